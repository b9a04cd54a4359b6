//! The rival, Kademlia: it has to be right, quick and bounded, or comparing with it would
//! prove nothing.

use std::time::Duration;

use enishi_overlay::{Contact, NodeId, OverlayId, Position, Rng, Time};
use enishi_sim::internet::Transport;
use enishi_sim::rival::kademlia::{Config, Input, Kademlia, Message, Output};
use enishi_sim::statistics::Results;
use enishi_sim::{Options, Protocol, Scenario};

fn run(scenario: Scenario, nodes: usize, seed: u64, change: impl FnOnce(&mut Options)) -> Results {
    let mut options = Options {
        nodes,
        seed,
        routes: 500,
        protocol: Protocol::Kademlia,
        ..Options::default()
    };
    change(&mut options);
    scenario.run(&options, &mut |_| {}).results
}

fn number(results: &Results, name: &str) -> f64 {
    let number = results.figures.number(name);
    number.unwrap_or_else(|| panic!("no {name}: {results:?}"))
}

#[test]
fn every_lookup_in_a_quiet_overlay_ends_at_the_node_in_charge() {
    let results = run(Scenario::Latency, 500, 1, |options| {
        options.model.loss_per_million = 0;
    });
    assert_eq!(number(&results, "correct"), 1.0);
    // The anchors' model of the same table at 1,024 nodes has 1.90 hops.
    assert!(results.mean_hops < Some(2.1), "{results:?}");
    let trips = number(&results, "mean_in_round_trips");
    assert!((0.8..1.8).contains(&trips), "{results:?}");
}

#[test]
fn with_dead_entries_lookups_are_still_right_and_slower() {
    let whole = run(Scenario::Latency, 400, 2, |_| {});
    let holed = run(Scenario::Latency, 400, 2, |options| {
        options.dead_per_million = 300_000;
    });
    // Datagrams get lost: one of a hundred, on the worst links one of twelve.
    assert!(number(&holed, "correct") >= 0.99, "{holed:?}");
    assert!(number(&holed, "mean_ms") > number(&whole, "mean_ms"));
}

#[test]
fn sessions_cost_it_what_they_cost_us() {
    let datagrams = run(Scenario::Latency, 300, 3, |_| {});
    let sessions = run(Scenario::Latency, 300, 3, |options| {
        options.transport = Some(Transport::Sessions);
    });
    assert!(number(&sessions, "correct") >= 0.99, "{sessions:?}");
    // A set-up takes a round trip.
    assert!(number(&sessions, "mean_ms") > 1.2 * number(&datagrams, "mean_ms"));
}

#[test]
fn the_dial_sets_what_upkeep_costs() {
    for rate in [5, 40] {
        let results = run(Scenario::Churn, 60, 4, |options| {
            options.upkeep_bytes_per_second = Some(rate);
            options.session_mean = Duration::from_secs(1_000_000);
            options.duration = Some(Duration::from_secs(900));
        });
        let spent = number(&results, "upkeep_bytes_per_second_per_node") / f64::from(rate);
        assert!((0.6..1.3).contains(&spent), "{spent} of {rate}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let trace = |seed| run(Scenario::Latency, 60, seed, |_| {}).trace;
    let first = trace(7);
    assert_eq!(first, trace(7));
    assert_ne!(first, trace(8));
}

/// One node, told of a hundred thousand others by a flood of requests and answers.
#[test]
fn whoever_speaks_memory_stays_bounded() {
    let overlay = OverlayId::from_name("simulated");
    let k = 8;
    let id = |number: u64| {
        let mut octets = [0; 32];
        octets[..8].copy_from_slice(&number.to_le_bytes());
        NodeId::from_bytes(octets)
    };
    let contact = |number| Contact::new(id(number), []);
    let mut node = Kademlia::new(contact(0), Config::new(overlay, k), Rng::from_seed([1; 32]));
    let mut answers = 0;
    for number in 1..100_000 {
        let now = Time::from_micros(number * 100);
        let target = Position::from_number(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let message = if number % 2 == 0 {
            Message::FindNode { request: 1, target }
        } else {
            let contacts = (0..64).map(|other| contact(number * 64 + other)).collect();
            Message::Nodes {
                request: number as u16,
                contacts,
            }
        };
        let from = contact(number);
        for output in node.handle(now, Input::Message { from, message }) {
            if let Output::Send {
                message: Message::Nodes { contacts, .. },
                ..
            } = output
            {
                assert!(contacts.len() <= k);
                answers += 1;
            }
        }
        if number % 100 == 0 {
            let lookup = Input::Lookup {
                id: number,
                target,
                width: 1,
            };
            node.handle(now, lookup).for_each(drop);
        }
    }
    assert_eq!(answers, 49_999);
    let table = node.table();
    for bucket in 0..64 {
        assert!(table.bucket(bucket).count() <= 2 * k);
    }
    // 17 bits tell 100,000 nodes apart: no bucket is deeper by much.
    assert!(table.entries().count() <= 17 * k + 2 * k);
    assert!(table.spares().count() <= 30 * k);
}
