//! Other geometries do Symphony's job in the same nodes, and the comparison is fair.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::config::Forwarding;
use enishi_overlay::{Config, Geometry, OverlayId, Position};
use enishi_services::{Command, Event, diag};
use enishi_sim::internet::{Model, Transport};
use enishi_sim::{Options, Protocol, Scenario, World};

const CAN: Geometry = Geometry::Can { dimensions: 4 };
const ALL: [Geometry; 4] = [Geometry::Symphony, Geometry::Chord, Geometry::Kademlia, CAN];

fn grown(geometry: Geometry, forwarding: Forwarding, nodes: usize) -> World {
    let mut config = Config::new(OverlayId::from_name("simulated"));
    config.geometry = geometry;
    config.forwarding = forwarding;
    let model = Model {
        loss_per_million: 0,
        ..Model::default()
    };
    let mut world = World::inhabited(1, model, config);
    for born in 0..nodes {
        let bootstrap = (born > 0).then(|| world.any());
        world.spawn(bootstrap);
        world.run_for(Duration::from_millis(50));
    }
    world.run_for(Duration::from_secs(120));
    world.take_events();
    world
}

/// Asks for the nodes in charge of drawn positions; returns the hops and the times of the
/// right answers in milliseconds.
fn ask(world: &mut World, count: u64) -> (Vec<u64>, Vec<u128>) {
    let places: Vec<_> = world
        .living()
        .map(|(index, node)| (node.overlay().position(), index))
        .collect();
    let mut targets = BTreeMap::new();
    for id in 0..count {
        let target = Position::from_number(world.rng().number());
        let asker = world.any();
        world.command(asker, Command::Diag(diag::Command::Trace { id, target }));
        targets.insert(id, target);
        world.run_for(Duration::from_millis(20));
    }
    world.run_for(Duration::from_secs(12));
    let (mut hops, mut times) = (Vec::new(), Vec::new());
    for (_, _, event) in world.take_events() {
        if let Event::Diag(diag::Event::Traced {
            id,
            end: Some((node, count, time)),
        }) = event
        {
            let owner = places.iter().min_by_key(|(at, _)| targets[&id].rank(*at));
            if owner.map(|(_, index)| *index) == world.index_of(node) {
                hops.push(u64::from(count));
                times.push(time.as_millis());
            }
        }
    }
    (hops, times)
}

fn mean(values: &[u64]) -> u64 {
    values.iter().sum::<u64>() * 100 / values.len() as u64
}

#[test]
fn every_geometry_brings_every_lookup_to_the_node_in_charge() {
    for geometry in ALL {
        let mut world = grown(geometry, Forwarding::Fastest, 300);
        let (hops, times) = ask(&mut world, 600);
        assert_eq!(hops.len(), 600, "{geometry:?}");
        // CAN has the longest ways; none comes near the bound on hops, 64.
        let longest = match geometry {
            CAN => 20,
            _ => 14,
        };
        assert!(mean(&hops) < 650, "{geometry:?}: {}", mean(&hops));
        assert!(hops.iter().all(|hops| *hops <= longest), "{geometry:?}");
        assert!(times.iter().all(|ms| *ms < 8_000), "{geometry:?}");
    }
}

#[test]
fn greedy_hops_are_what_the_geometry_has() {
    let hops = |geometry| {
        let mut world = grown(geometry, Forwarding::Greedy, 300);
        let (hops, _) = ask(&mut world, 600);
        assert_eq!(hops.len(), 600, "{geometry:?}");
        mean(&hops)
    };
    // On a torus of four axes the ways are longer than on a ring whose links halve them.
    let (can, xor) = (hops(CAN), hops(Geometry::Kademlia));
    assert!((200..400).contains(&xor), "{xor}");
    assert!(can > xor + 30, "{can} {xor}");
}

#[test]
fn the_comparison_has_equal_tables_and_right_answers() {
    let options = Options {
        nodes: 100,
        routes: 150,
        ..Options::default()
    };
    let report = Scenario::Compare.run(&options, &mut |_| {});
    let rows: BTreeMap<_, _> = report.results.figures.rows().collect();
    assert_eq!(rows.len(), 57);
    for (name, row) in &rows {
        let least = if name.contains("30 %") { 0.95 } else { 0.97 };
        assert!(row["correct"] >= least, "{name}: {row:?}");
    }
    let of = |name: &str, column: &str| rows[format!("{name}, 0 % dead").as_str()][column];
    for name in ["chord", "kademlia", "can"] {
        let (ours, theirs) = (of("symphony", "peers"), of(name, "peers"));
        assert!((theirs / ours - 1.0).abs() < 0.2, "{name}: {theirs} {ours}");
    }
    let spent = |name: &str| of(&format!("{name}, equal bytes"), "upkeep_bytes_per_second");
    let budget = spent("symphony");
    for name in ["chord", "kademlia", "can"] {
        let apart = spent(name) / budget - 1.0;
        assert!(apart.abs() < 0.15, "{name}: {apart}");
    }
    let rival = spent("kademlia protocol");
    assert!((0.5..1.35).contains(&(rival / budget)), "{rival} {budget}");
    assert_eq!(report.picture.map(|picture| picture.panels.len()), Some(2));
}

#[test]
fn the_rival_is_measured_by_the_same_scenarios() {
    let mut options = Options {
        nodes: 80,
        routes: 200,
        dead_per_million: 100_000,
        protocol: Protocol::Kademlia,
        ..Options::default()
    };
    let datagrams = Scenario::Latency.run(&options, &mut |_| {}).results;
    assert!(
        datagrams.figures.number("correct") > Some(0.97),
        "{datagrams:?}"
    );
    options.transport = Some(Transport::Sessions);
    let sessions = Scenario::Latency.run(&options, &mut |_| {}).results;
    assert!(sessions.figures.number("mean_ms") > datagrams.figures.number("mean_ms"));
    options.transport = None;
    options.duration = Some(Duration::from_secs(300));
    options.session_mean = Duration::from_secs(600);
    let churn = Scenario::Churn.run(&options, &mut |_| {}).results.figures;
    assert!(churn.number("correct") > Some(0.9), "{churn:?}");
    let part = |name| churn.number(name).unwrap();
    let (lookups, upkeep) = (
        part("lookup_bytes_per_second_per_node"),
        part("upkeep_bytes_per_second_per_node"),
    );
    assert!(lookups > 0.0 && upkeep > 0.0, "{lookups} {upkeep}");
    assert!((lookups + upkeep - part("bytes_per_second_per_node")).abs() < 0.01);
}
