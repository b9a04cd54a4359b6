//! Other geometries do Symphony's job in the same nodes, and the comparison is fair.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::config::Forwarding;
use enishi_overlay::{Config, Geometry, OverlayId, Position};
use enishi_services::{Command, Event, diag};
use enishi_sim::World;
use enishi_sim::internet::Model;

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

#[test]
fn every_geometry_brings_every_lookup_to_the_node_in_charge() {
    for geometry in ALL {
        for forwarding in [Forwarding::Fastest, Forwarding::Greedy] {
            let mut world = grown(geometry, forwarding, 300);
            let (hops, times) = ask(&mut world, 600);
            let mean = hops.iter().sum::<u64>() as f64 / hops.len() as f64;
            let peers: usize = world
                .living()
                .map(|(_, node)| node.overlay().peers().count())
                .sum();
            let drawn: u32 = world
                .living()
                .map(|(_, node)| node.overlay().links_drawn())
                .sum();
            println!(
                "{geometry:?} {forwarding:?}: {} right, {mean:.2} hops, {} ms, peers {:.1} drawn {:.1} most {:?} {:?}",
                hops.len(),
                times.iter().sum::<u128>() / times.len() as u128,
                peers as f64 / 300.0,
                f64::from(drawn) / 300.0,
                hops.iter().max(),
                times.iter().max(),
            );
        }
    }
}
