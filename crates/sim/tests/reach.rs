//! What nodes that do not reach each other do about it, by the overlay.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod town;

use std::time::Duration;

use enishi_overlay::{Contact, NodeId};
use enishi_services::reach::call::RELAYS_MAX;
use enishi_services::reach::{Command as Reach, Event as Told};
use enishi_services::{Command, Event};
use enishi_sim::world::{Index, World};

use town::{grown, setup};

fn id(world: &World, index: Index) -> NodeId {
    world.node(index).unwrap().id()
}

fn call(world: &mut World, from: Index, to: NodeId) -> Vec<(Index, Told)> {
    world.take_events();
    world.command(from, Command::Reach(Reach::Call(to)));
    world.run_for(Duration::from_secs(5));
    let events = world.take_events().into_iter();
    let told = events.filter_map(|(_, index, event)| match event {
        Event::Reach(told @ (Told::Called { .. } | Told::Answered { .. })) => Some((index, told)),
        _ => None,
    });
    told.collect()
}

/// Those who may carry are peers of the node, and neither of the two.
fn carry(world: &World, between: [Index; 2], relays: &[Contact]) {
    let [node, other] = between;
    let overlay = world.node(node).unwrap().overlay();
    assert!((1..=RELAYS_MAX).contains(&relays.len()), "{relays:?}");
    for relay in relays {
        assert!(overlay.peer(relay.id()).is_some() && relay.id() != id(world, other));
        assert!(!relay.addresses().is_empty());
    }
}

#[test]
fn a_call_tells_both_how_the_other_is_reached_and_who_may_carry() {
    let mut world = grown(setup(3), 60, 30);
    for (from, to) in [(5, 40), (41, 7), (20, 21)] {
        let (caller, called) = (id(&world, from), id(&world, to));
        let mut told = call(&mut world, from, called);
        told.sort_by_key(|(index, _)| *index != to);
        // A question may arrive twice.
        told.dedup();
        let [
            (at, Told::Called { by, relays: ours }),
            (
                back,
                Told::Answered {
                    contact,
                    relays: theirs,
                },
            ),
        ] = &told[..]
        else {
            panic!("{told:?}");
        };
        assert_eq!(
            (*at, *back, by.id(), contact.id()),
            (to, from, caller, called)
        );
        assert!(!by.addresses().is_empty() && !contact.addresses().is_empty());
        carry(&world, [from, to], ours);
        carry(&world, [to, from], theirs);
    }
}

#[test]
fn who_is_gone_does_not_answer_and_calls_are_followed_no_faster_than_they_may() {
    let mut world = grown(setup(4), 40, 30);
    let gone = id(&world, 30);
    world.kill(30);
    world.run_for(Duration::from_secs(60));
    let told = call(&mut world, 5, gone);
    // Whoever is in charge now has no session with it, so nobody carries.
    let nobody = |told: &Told| matches!(told, Told::Answered { contact, relays } if contact.addresses().is_empty() && relays.is_empty());
    assert!(told.iter().all(|(_, told)| nobody(told)), "{told:?}");

    let victim = id(&world, 12);
    world.take_events();
    let mut followed = 0;
    for from in (0..40).filter(|from| ![12, 30].contains(from)) {
        followed += call(&mut world, from, victim)
            .iter()
            .filter(|(at, told)| *at == 12 && matches!(told, Told::Called { .. }))
            .count();
    }
    assert!(followed >= 38, "five seconds lie between them: {followed}");
    world.take_events();
    for from in (0..40).filter(|from| ![12, 30].contains(from)) {
        world.command(from, Command::Reach(Reach::Call(victim)));
    }
    world.run_for(Duration::from_secs(1));
    let events = world.take_events().into_iter();
    let followed = events
        .filter(|(_, index, event)| {
            *index == 12 && matches!(event, Event::Reach(Told::Called { .. }))
        })
        .count();
    assert!((1..=24 + 2).contains(&followed), "{followed}");
}

/// Where every node is slow, each is silent to the others. What they send each other on account of it
/// would keep them slow: without a budget 2,108 messages for a call.
#[test]
fn slow_nodes_are_not_flooded_with_copies() {
    const NODES: usize = 32;
    let mut world = grown(setup(5), NODES, 60);
    let calls_for = |world: &mut World, seconds: usize| {
        let sent = |world: &World| {
            (0..NODES)
                .map(|node| world.load(node).messages_sent)
                .sum::<u64>()
        };
        let before = sent(world);
        for second in 0..seconds {
            for from in 0..NODES {
                let to = id(world, (from + 1 + second) % NODES);
                world.command(from, Command::Reach(Reach::Call(to)));
            }
            world.run_for(Duration::from_secs(1));
        }
        (sent(world) - before) / (seconds * NODES) as u64
    };
    let usual = calls_for(&mut world, 20);
    world.set_slowness(Duration::from_millis(1_500));
    let slow = calls_for(&mut world, 40);
    world.set_slowness(Duration::ZERO);
    world.run_for(Duration::from_secs(30));
    let after = calls_for(&mut world, 20);
    println!("messages for a call: {usual}, slow {slow}, after {after}");
    assert!(slow < 250 && after < 2 * usual, "{usual}, {slow}, {after}");
}
