//! What channels promise, story by story.

mod town;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use enishi_services::keys::Secret;
use enishi_services::vnet::{
    Agreement, ChannelId, ChannelSpec, Command as Vnet, Event as VnetEvent,
};
use enishi_services::{Command, Event};
use enishi_sim::world::{Index, World};

use town::{grown, office, setup};

const CHANNEL: ChannelId = ChannelId(1);

fn world(nodes: usize) -> World {
    grown(setup(6), nodes, 30)
}

fn spec(secret: u8) -> ChannelSpec {
    ChannelSpec {
        secret: Secret::new([secret; 32]),
        ..office("10.77.0.0/16")
    }
}

fn open(world: &mut World, at: Index, secret: u8, address: Option<Ipv4Addr>) {
    world.command(
        at,
        Command::Vnet(Vnet::Open {
            spec: spec(secret),
            address,
        }),
    );
    world.run_for(Duration::from_secs(15));
}

fn address(world: &World, at: Index) -> Option<Ipv4Addr> {
    world.node(at)?.vnet().by_name("office")?.1.address()
}

fn members(world: &World, at: Index) -> usize {
    let channel = world
        .node(at)
        .and_then(|node| node.vnet().by_name("office"));
    channel.map_or(0, |(_, channel)| channel.members().count())
}

fn resolve(world: &mut World, at: Index, address: impl Into<IpAddr>) -> Vec<(Index, VnetEvent)> {
    resolve_within(world, at, address.into(), Duration::from_secs(15))
}

fn resolve_within(
    world: &mut World,
    at: Index,
    address: IpAddr,
    time: Duration,
) -> Vec<(Index, VnetEvent)> {
    world.take_events();
    world.command(
        at,
        Command::Vnet(Vnet::Resolve {
            channel: CHANNEL,
            address,
        }),
    );
    world.run_for(time);
    let events = world.take_events().into_iter();
    events
        .filter_map(|(_, index, event)| match event {
            Event::Vnet(event) => Some((index, event)),
            Event::Joined
            | Event::Dht(_)
            | Event::Diag(_)
            | Event::Multicast(_)
            | Event::Reach(_) => None,
        })
        .collect()
}

/// Returns the last agreement that a node tells of.
fn agreement(events: &[(Index, VnetEvent)], at: Index) -> Option<&Agreement> {
    events.iter().rev().find_map(|(index, event)| match event {
        VnetEvent::Attached { agreement, .. } if *index == at => Some(agreement),
        _ => None,
    })
}

#[test]
fn two_members_find_each_other_and_agree_on_keys() {
    let mut world = world(20);
    open(&mut world, 3, 1, None);
    open(&mut world, 7, 1, None);
    let there = address(&world, 7).unwrap();
    assert_ne!(address(&world, 3), Some(there));
    assert_eq!((members(&world, 3), members(&world, 7)), (2, 2));
    let events = resolve(&mut world, 3, there);
    let (asker, answerer) = (
        agreement(&events, 3).unwrap(),
        agreement(&events, 7).unwrap(),
    );
    assert_eq!(
        (
            &asker.send,
            &asker.receive,
            asker.send_index,
            asker.receive_index
        ),
        (
            &answerer.receive,
            &answerer.send,
            answerer.receive_index,
            answerer.send_index
        )
    );
    assert!(asker.member_has_them && !answerer.member_has_them);

    // Asked again, by the other address: other keys.
    let (_, office) = world.node(7).unwrap().vnet().by_name("office").unwrap();
    let address6 = office.address6();
    let events = resolve(&mut world, 3, address6);
    let again = agreement(&events, 3).unwrap();
    assert_ne!(again.send, asker.send);
    assert_eq!(
        agreement(&events, 7).map(|other| &other.receive),
        Some(&again.send)
    );
}

#[test]
fn who_was_reached_before_is_reached_again_at_once_though_nobody_tells_of_addresses() {
    let mut world = world(20);
    open(&mut world, 3, 1, None);
    open(&mut world, 7, 1, None);
    let there = address(&world, 7).unwrap();
    let events = resolve(&mut world, 3, there);
    assert!(agreement(&events, 3).is_some());
    // What was looked up is known for a minute.
    world.run_for(Duration::from_secs(61));
    // They have each other, and nobody else; and their session has ended in between.
    for (index, other) in [(3, 7), (7, 3)] {
        world.set_part(index, 1);
        let other = world.id(other);
        world.command(index, Command::Vnet(Vnet::Restarted(other)));
    }
    let soon = Duration::from_secs(1);
    let events = resolve_within(&mut world, 3, there.into(), soon);
    assert!(agreement(&events, 3).is_some() && agreement(&events, 7).is_some());
    let unresolved = |event: &VnetEvent| matches!(event, VnetEvent::Unresolved { .. });
    assert!(!events.iter().any(|(_, event)| unresolved(event)));
}

#[test]
fn who_had_an_address_before_does_not_hide_who_has_it_now() {
    let mut world = world(20);
    open(&mut world, 3, 1, None);
    open(&mut world, 7, 1, None);
    let there = address(&world, 7).unwrap();
    assert!(agreement(&resolve(&mut world, 3, there), 3).is_some());
    // While it hears nothing of it, that one leaves the channel, and another one takes the address.
    world.set_part(3, 1);
    world.command(7, Command::Vnet(Vnet::Close(CHANNEL)));
    world.run_for(Duration::from_secs(5));
    open(&mut world, 9, 1, Some(there));
    assert_eq!(address(&world, 9), Some(there));
    world.set_part(3, 0);
    let gone = world.id(7);
    world.command(3, Command::Vnet(Vnet::Restarted(gone)));
    world.run_for(Duration::from_secs(30));
    let events = resolve_within(&mut world, 3, there.into(), Duration::from_secs(3));
    assert!(agreement(&events, 3).is_some() && agreement(&events, 9).is_some());
    let unresolved = |event: &VnetEvent| matches!(event, VnetEvent::Unresolved { .. });
    assert!(!events.iter().any(|(_, event)| unresolved(event)));
}

#[test]
fn keys_are_renewed_even_when_both_ask_at_once() {
    let mut world = world(20);
    open(&mut world, 3, 1, None);
    open(&mut world, 7, 1, None);
    let there = address(&world, 7).unwrap();
    let events = resolve(&mut world, 3, there);
    let first = agreement(&events, 3).unwrap().clone();
    let [three, seven] = [3, 7].map(|index| world.node(index).unwrap().id());
    for (at, peer) in [(3, seven), (7, three)] {
        let channel = CHANNEL;
        world.command(at, Command::Vnet(Vnet::Renew { channel, peer }));
    }
    world.run_for(Duration::from_secs(10));
    let events: Vec<(Index, VnetEvent)> = world
        .take_events()
        .into_iter()
        .filter_map(|(_, index, event)| match event {
            Event::Vnet(event) => Some((index, event)),
            Event::Joined
            | Event::Dht(_)
            | Event::Diag(_)
            | Event::Multicast(_)
            | Event::Reach(_) => None,
        })
        .collect();
    let (one, other) = (
        agreement(&events, 3).unwrap(),
        agreement(&events, 7).unwrap(),
    );
    assert_ne!(one.send, first.send);
    assert_eq!((&one.send, &one.receive), (&other.receive, &other.send));
    assert_ne!(one.member_has_them, other.member_has_them);
    // One question counts, and the other is not answered.
    assert_eq!(events.len(), 2, "{events:?}");
}

#[test]
fn an_address_without_holder_is_unresolved() {
    let mut world = world(10);
    open(&mut world, 3, 1, None);
    let nobody: Ipv4Addr = "10.77.200.200".parse().unwrap();
    let events = resolve(&mut world, 3, nobody);
    let expected = VnetEvent::Unresolved {
        channel: CHANNEL,
        address: nobody.into(),
    };
    assert_eq!(events, [(3, expected)]);
}

#[test]
fn with_another_password_one_sees_nothing() {
    let mut world = world(10);
    open(&mut world, 3, 1, None);
    open(&mut world, 4, 1, None);
    open(&mut world, 5, 2, None);
    assert_eq!(members(&world, 5), 1);
    assert_eq!(members(&world, 3), 2);
    let there = address(&world, 3).unwrap();
    let events = resolve(&mut world, 5, there);
    assert!(
        matches!(events[..], [(5, VnetEvent::Unresolved { .. })]),
        "{events:?}"
    );
}

#[test]
fn an_address_by_hand_is_had_once() {
    let mut world = world(10);
    let wanted: Ipv4Addr = "10.77.0.9".parse().unwrap();
    open(&mut world, 3, 1, Some(wanted));
    assert_eq!(address(&world, 3), Some(wanted));
    open(&mut world, 4, 1, Some(wanted));
    let refused = world.take_events().into_iter().any(|(_, index, event)| {
        index == 4 && matches!(event, Event::Vnet(VnetEvent::ClaimFailed { .. }))
    });
    assert!(refused && address(&world, 4).is_none());
    world.command(3, Command::Vnet(Vnet::Close(CHANNEL)));
    world.run_for(Duration::from_secs(15));
    open(&mut world, 5, 1, Some(wanted));
    assert_eq!(
        address(&world, 5),
        Some(wanted),
        "free again after its holder has left"
    );
}

#[test]
fn a_crashed_member_comes_back_to_its_address() {
    let mut world = world(10);
    open(&mut world, 3, 1, None);
    open(&mut world, 4, 1, None);
    let (here, there) = (address(&world, 3).unwrap(), address(&world, 4).unwrap());
    resolve(&mut world, 3, there);
    world.kill(4);
    world.run_for(Duration::from_secs(60));
    world.restart(4, Some(0));
    world.run_for(Duration::from_secs(15));
    assert_eq!(address(&world, 4), Some(there));
    let events = resolve(&mut world, 4, here);
    let attached = |at: Index| {
        events
            .iter()
            .any(|(index, e)| *index == at && matches!(e, VnetEvent::Attached { .. }))
    };
    assert!(attached(3) && attached(4), "{events:?}");
}

#[test]
fn who_come_in_quick_succession_know_each_other_within_seconds() {
    for seed in 0..60 {
        let mut world = World::new(setup(seed));
        for born in 0..5 {
            world.spawn((born > 0).then_some(0));
            world.run_for(Duration::from_millis(seed * 17 % 500));
            let spec = spec(1);
            let address = None;
            world.command(born, Command::Vnet(Vnet::Open { spec, address }));
            world.run_for(Duration::from_millis(50 + seed * 37 % 900));
        }
        world.run_for(Duration::from_secs(20));
        let known: Vec<usize> = (0..5).map(|at| members(&world, at)).collect();
        assert_eq!(known, [5; 5], "seed {seed}");
    }
}
