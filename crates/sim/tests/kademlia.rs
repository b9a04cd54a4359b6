//! The rival, Kademlia: it has to be right, quick and bounded, or comparing with it would
//! prove nothing.

use std::time::Duration;

use enishi_overlay::{Contact, NodeId, OverlayId, Position, Rng, Time};
use enishi_sim::internet::Transport;
use enishi_sim::rival::kademlia::{Config, Input, Kademlia, Message, Output};
use enishi_sim::rival::trial::{Figures, Trial};

fn trial(nodes: usize, k: usize, seed: u64) -> Trial {
    let config = Config::new(OverlayId::from_name("simulated"), k);
    let mut trial = Trial::new(config, nodes, seed);
    trial.lookups = 500;
    trial.quiet = Duration::from_secs(120);
    trial
}

/// Mean time of an answer in hundredths of the median round trip.
fn trips_hundredths(figures: &Figures) -> u64 {
    figures.answer_mean_us * 100 / figures.round_trip_median_us
}

#[test]
fn every_lookup_in_a_quiet_overlay_ends_at_the_node_in_charge() {
    let mut trial = trial(500, 20, 1);
    trial.model.loss_per_million = 0;
    let figures = trial.run();
    assert_eq!(figures.correct, figures.lookups, "{figures:?}");
    // The anchors' model of the same table at 1,024 nodes has 1.90 hops.
    assert!(figures.hops_mean_milli < 2_100, "{figures:?}");
    let trips = trips_hundredths(&figures);
    assert!((80..180).contains(&trips), "{figures:?}");
}

#[test]
fn with_dead_entries_lookups_are_still_right_and_slower() {
    let whole = trial(400, 20, 2).run();
    let mut trial = trial(400, 20, 2);
    trial.dead_percent = 30;
    let holed = trial.run();
    assert!((250..350).contains(&holed.dead_entries_milli), "{holed:?}");
    // Datagrams get lost: one of a hundred, on the worst links one of twelve.
    assert!(holed.correct * 1000 >= holed.lookups * 990, "{holed:?}");
    assert!(holed.answer_mean_us > whole.answer_mean_us, "{holed:?}");
    assert!(holed.certain_mean_us > holed.answer_mean_us, "{holed:?}");
}

#[test]
fn sessions_cost_it_what_they_cost_us() {
    let mut trial = trial(300, 8, 3);
    let datagrams = trial.run();
    trial.model.transport = Transport::Sessions;
    let sessions = trial.run();
    assert!(
        sessions.correct * 1000 >= sessions.lookups * 990,
        "{sessions:?}"
    );
    assert!(
        sessions.answer_mean_us * 10 > datagrams.answer_mean_us * 12,
        "a set-up takes a round trip: {sessions:?}"
    );
}

#[test]
fn the_dial_sets_what_upkeep_costs() {
    for rate in [5, 40] {
        let mut trial = trial(60, 20, 4);
        trial.config.upkeep_bytes_per_second = rate;
        trial.settling = Duration::from_secs(300);
        trial.quiet = Duration::from_secs(900);
        trial.lookups = 1;
        let spent = trial.run().upkeep_bytes_per_second_milli;
        let dial = u64::from(rate) * 1000;
        assert!(spent * 10 < dial * 13, "{spent} of {dial}");
        assert!(spent * 10 > dial * 6, "{spent} of {dial}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let first = trial(60, 8, 7).run();
    assert_eq!(first, trial(60, 8, 7).run());
    assert_ne!(first.trace, trial(60, 8, 8).run().trace);
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
