//! What diagnostics promise, story by story.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod town;

use std::collections::BTreeSet;
use std::time::Duration;

use enishi_overlay::{Keypair, NodeId, Position, Rng};
use enishi_services::dht::{Caller, Event as DhtEvent, Held, Holding, REPLICAS};
use enishi_services::diag::route::{End, Hop, HopState, Route};
use enishi_services::diag::{Command as Diag, Event as DiagEvent};
use enishi_services::names::OpenName;
use enishi_services::{Command, Event, dht};
use enishi_sim::world::{Index, Setup, World};

use town::{grown, setup};

const PATIENCE: Duration = Duration::from_secs(12);

fn world(nodes: usize, seed: u64) -> World {
    let setup = Setup {
        long_links: Some(2),
        ..setup(seed)
    };
    grown(setup, nodes, 60)
}

fn position(world: &World, index: Index) -> Position {
    world.node(index).unwrap().overlay().position()
}

fn id(world: &World, index: Index) -> NodeId {
    world.node(index).unwrap().id()
}

/// Has a node decline to be traced.
fn restart_reticent(world: &mut World, index: Index) {
    world.kill(index);
    world.config_mut().overlay.reports_hops = false;
    world.restart(index, Some(0));
    world.config_mut().overlay.reports_hops = true;
}

/// Probes the route to a position.
fn trace(world: &mut World, from: Index, target: Position, probes: u64) -> Route {
    let mut route = Route::default();
    for probe in 0..probes {
        world.take_events();
        world.command(from, Command::Diag(Diag::Trace { id: probe, target }));
        world.run_for(PATIENCE);
        let mut end = None;
        for (_, index, event) in world.take_events() {
            match event {
                Event::Diag(DiagEvent::Hop {
                    attempt,
                    by,
                    report,
                    round_trip,
                    ..
                }) if index == from => route.report(attempt, by, report, round_trip),
                Event::Diag(DiagEvent::Traced { end: reached, .. }) if index == from => {
                    end = reached.map(|(node, hops, round_trip)| End {
                        node,
                        hops,
                        round_trip,
                    });
                }
                _ => {}
            }
        }
        route.end_probe(end);
    }
    route
}

/// Finds a route that passes through others on its way.
fn long_route(world: &mut World, hops: usize) -> (Index, Index, Route) {
    for (from, to) in (0..40).flat_map(|from| [(from, from + 40), (from, from + 80)]) {
        let target = position(world, to);
        let route = trace(world, from, target, 1);
        if route.hops().len() >= hops && route.end().is_some() {
            return (from, to, route);
        }
    }
    panic!("no route has {hops} hops");
}

#[test]
fn a_trace_names_every_hop_with_its_vitals() {
    let mut world = world(150, 3);
    let (from, to, route) = long_route(&mut world, 2);
    let target = position(&world, to);
    let route_again = trace(&mut world, from, target, 3);
    for (route, probes) in [(route, 1), (route_again, 3)] {
        let hops = route.hops();
        assert_whole(&hops, probes);
        for hop in hops.iter().filter(|hop| hop.received > 0) {
            assert_eq!(hop.state, HopState::Reported, "{hops:?}");
            assert_eq!(hop.vitals.is_some(), hop.node.is_some());
            assert_eq!(hop.round_trips.len(), hop.received as usize);
        }
        assert_eq!(hops.last().unwrap().node, Some(id(&world, to)), "{hops:?}");
        assert_eq!(hops.last().unwrap().next, None);
    }
}

/// Checks that all probes were heard of at the first place, and that no place is missing.
/// Each probe may take its own way.
fn assert_whole(hops: &[Hop], probes: u32) {
    let first = hops.iter().filter(|hop| hop.place == 1);
    let heard: u32 = first.map(|hop| hop.received).sum();
    assert!(heard >= probes, "{hops:?}");
    let places: BTreeSet<u8> = hops.iter().map(|hop| hop.place).collect();
    assert!(
        places.into_iter().eq(1..=hops.last().unwrap().place),
        "{hops:?}"
    );
}

#[test]
fn nodes_that_decline_are_neither_lost_nor_left_out() {
    let mut world = world(150, 3);
    let reticent = |index: Index| index > 0 && index.is_multiple_of(3);
    for index in (0..150).filter(|index| reticent(*index)) {
        restart_reticent(&mut world, index);
        world.run_for(Duration::from_secs(2));
    }
    world.run_for(Duration::from_secs(60));
    let mut seen = [0; 3];
    let mut overtaken = 0;
    for (from, to) in (0..20).map(|from| (from, from + 45)) {
        let target = position(&world, to);
        let route = trace(&mut world, from, target, 3);
        let hops = route.hops();
        assert_eq!(route.end().map(|end| end.node), Some(id(&world, to)));
        assert_whole(&hops, 3);
        for hop in &hops {
            let index = hop.node.and_then(|node| world.index_of(node));
            let expected = match index {
                Some(index) if !reticent(index) => HopState::Reported,
                Some(_) | None => HopState::Declined,
            };
            // A copy that was overtaken by another.
            if hop.state == HopState::Lost {
                overtaken += 1;
                continue;
            }
            assert_eq!(hop.state, expected, "{hops:?}");
            assert_eq!(hop.vitals.is_some(), expected == HopState::Reported);
            let kind = usize::from(expected == HopState::Declined) + usize::from(index.is_none());
            seen[kind] += 1;
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "the story needs both: {seen:?}");
    assert!(overtaken * 10 < seen[0] + seen[1], "{seen:?}, {overtaken}");
    // The echo of a node that declines is an acknowledgement and nothing else.
    world.take_events();
    let timeout = Duration::from_secs(5);
    for target in [id(&world, 30), id(&world, 0)] {
        let id = 9;
        let ping = Diag::Ping {
            id,
            target,
            timeout,
        };
        world.command(1, Command::Diag(ping));
        world.run_for(timeout);
    }
    let details: Vec<bool> = world
        .take_events()
        .into_iter()
        .filter_map(|(_, _, event)| match event {
            Event::Diag(DiagEvent::Pong { id: 9, detail, .. }) => Some(detail.is_some()),
            _ => None,
        })
        .collect();
    assert_eq!(details, [false, true]);
}

#[test]
fn a_hop_that_just_died_is_lost_and_the_route_goes_round_it() {
    // The next question may begin with another hop, whose round trip was measured meanwhile.
    const TRIES: usize = 5;
    let mut world = world(150, 3);
    let met = (0..TRIES).find_map(|_| {
        let (from, to, route) = long_route(&mut world, 2);
        let dead = route.hops()[0].node.unwrap();
        let index = world.index_of(dead).unwrap();
        world.kill(index);
        let target = position(&world, to);
        let route = trace(&mut world, from, target, 1);
        let meets = route.hops().iter().any(|hop| hop.node == Some(dead));
        meets.then_some((to, dead, route))
    });
    let (to, dead, route) = met.expect("a question went to a node that had just died");
    let hops = route.hops();
    let lost = hops.iter().find(|hop| hop.node == Some(dead)).unwrap();
    assert_eq!(
        (lost.state, lost.sent, lost.received),
        (HopState::Lost, 1, 0)
    );
    let end = route.end().expect("the question found another way");
    assert_eq!(end.node, id(&world, to), "{hops:?}");
    let instead = hops
        .iter()
        .any(|hop| hop.place == 1 && hop.state == HopState::Reported);
    assert!(instead, "{hops:?}");
}

#[test]
fn nobody_in_charge_looks_like_a_loss() {
    let mut world = world(60, 5);
    // All others are gone at once: every question is lost, until this node sees that
    // nobody but itself is left.
    for index in 1..60 {
        world.set_part(index, 1);
    }
    let target = position(&world, 30);
    let route = trace(&mut world, 0, target, 1);
    let hops = route.hops();
    let mut others = hops.iter().filter(|hop| hop.place > 0).peekable();
    assert!(others.peek().is_some());
    assert!(others.all(|hop| hop.state == HopState::Lost), "{hops:?}");
}

fn survey(world: &mut World, from: Index, name: &str) -> Vec<Holding> {
    let anyone = Keypair::from_seed(&[1; 32]);
    let key = OpenName::new(name, &anyone).unwrap().key();
    world.take_events();
    world.command(from, Command::Dht(dht::Command::Survey { id: 4, key }));
    world.run_for(Duration::from_secs(20));
    let surveyed = world
        .take_events()
        .into_iter()
        .find_map(|(_, index, event)| match event {
            Event::Dht(DhtEvent::Surveyed { id: 4, holdings }) if index == from => Some(holdings),
            _ => None,
        });
    surveyed.expect("a survey ends")
}

/// Who holds the name's record, as seen from outside.
fn holders(world: &World, name: &str) -> BTreeSet<NodeId> {
    let anyone = Keypair::from_seed(&[1; 32]);
    let key = OpenName::new(name, &anyone).unwrap().key();
    let holds = |node: &enishi_services::Node, now| node.dht().store().under(key, now).count() > 0;
    let now = world.now();
    let holders = world.living().filter(|(_, node)| holds(node, now));
    holders.map(|(_, node)| node.id()).collect()
}

#[test]
fn the_holders_of_a_key_are_found_and_the_silent_ones_told() {
    let mut world = world(80, 8);
    let owner = Keypair::from_seed(&[2; 32]);
    let name = OpenName::new("greeting", &owner).unwrap();
    let request = name.put_request(&mut Rng::from_seed([3; 32]), 3600, Some(b"hello"));
    let caller = Caller::Host(1);
    let request = Box::new(request);
    world.command(7, Command::Dht(dht::Command::Put { caller, request }));
    world.run_for(Duration::from_secs(20));

    let holdings = survey(&mut world, 70, "greeting");
    let having = |holdings: &[Holding]| -> BTreeSet<NodeId> {
        let having = holdings
            .iter()
            .filter(|h| matches!(h.held, Held::Value { .. }));
        having.map(|holding| holding.node).collect()
    };
    assert_eq!(having(&holdings), holders(&world, "greeting"));
    assert_eq!(holdings.len(), REPLICAS, "{holdings:?}");

    let dead = holdings[2].node;
    let index = world.index_of(dead).unwrap();
    world.kill(index);
    let after = survey(&mut world, 70, "greeting");
    let silent = after.iter().find(|holding| holding.node == dead);
    assert!(
        silent.is_none_or(|holding| holding.held == Held::Silent),
        "{after:?}"
    );
    assert_eq!(
        having(&after).len(),
        REPLICAS - usize::from(silent.is_some()),
        "{after:?}"
    );

    let nothing = survey(&mut world, 70, "nothing");
    assert!(
        nothing.iter().all(|holding| holding.held == Held::Nothing),
        "{nothing:?}"
    );
}

fn find_me(world: &mut World, from: Index, stranger: Index) -> Option<(Option<NodeId>, u8)> {
    world.take_events();
    let (stranger, timeout) = (id(world, stranger), PATIENCE);
    let command = Diag::FindMe {
        id: 3,
        stranger,
        timeout,
    };
    world.command(from, Command::Diag(command));
    world.run_for(PATIENCE);
    let answers = world.take_events();
    let found = answers
        .into_iter()
        .find_map(|(_, index, event)| match event {
            Event::Diag(DiagEvent::FoundMe { id: 3, found }) if index == from => Some(found),
            _ => None,
        });
    let found = found.expect("a question ends");
    found.map(|found| (found.in_charge, found.hops))
}

#[test]
fn a_stranger_finds_a_node_at_its_position_unless_it_cannot_be_reached() {
    let mut world = world(100, 9);
    let me = id(&world, 10);
    let near = |world: &World, index: Index| {
        let near: BTreeSet<NodeId> = world
            .node(10)
            .unwrap()
            .overlay()
            .near()
            .iter()
            .map(|p| p.id)
            .collect();
        near.contains(&id(world, index))
    };
    let stranger = (11..100).find(|index| !near(&world, *index)).unwrap();
    let (in_charge, _) = find_me(&mut world, 10, stranger).unwrap();
    assert_eq!(in_charge, Some(me));

    // Whoever declines, does not look either.
    restart_reticent(&mut world, stranger);
    world.run_for(Duration::from_secs(30));
    assert_eq!(find_me(&mut world, 10, stranger), None);
}
