//! Addresses that a member holds for others: had, found, reached, given back.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod town;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use enishi_services::vnet::wire::HOSTED_MAX;
use enishi_services::vnet::{ChannelId, Command as Vnet, Event as VnetEvent};
use enishi_services::{Command, Event};
use enishi_sim::world::{Index, World};

use town::{grown, office, setup};

const CHANNEL: ChannelId = ChannelId(1);

/// Members of a channel in a network of so many bits, among other nodes.
fn world(members: &[Index], network: &str) -> World {
    let mut world = grown(setup(9), 16, 30);
    for at in members {
        let spec = office(network);
        let address = None;
        tell(&mut world, *at, Vnet::Open { spec, address });
        world.run_for(Duration::from_secs(10));
    }
    world
}

/// Returns the events of the virtual networks that follow from a command.
fn tell(world: &mut World, at: Index, command: Vnet) -> Vec<(Index, VnetEvent)> {
    world.take_events();
    world.command(at, Command::Vnet(command));
    world.run_for(Duration::from_secs(10));
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

/// Has a node hold one more address, and returns all of them.
fn host(world: &mut World, at: Index) -> Option<Vec<[IpAddr; 2]>> {
    let told = tell(world, at, Vnet::Host(CHANNEL)).into_iter();
    told.rev().find_map(|(index, event)| match event {
        VnetEvent::Hosting { addresses, .. } if index == at => Some(addresses),
        _ => None,
    })
}

fn dismiss(world: &mut World, at: Index, address: IpAddr) -> Vec<(Index, VnetEvent)> {
    let IpAddr::V4(address) = address else {
        panic!("{address} is of IPv6")
    };
    let channel = CHANNEL;
    tell(world, at, Vnet::Dismiss { channel, address })
}

fn resolve(world: &mut World, at: Index, address: IpAddr) -> Vec<(Index, VnetEvent)> {
    let channel = CHANNEL;
    tell(world, at, Vnet::Resolve { channel, address })
}

/// The last that a node was told of the addresses of a member.
fn addresses(world: &World, told: &[(Index, VnetEvent)], at: Index, of: Index) -> Vec<IpAddr> {
    let member = world.id(of);
    let last = told.iter().rev().find_map(|(index, event)| match event {
        VnetEvent::Attached {
            peer, addresses, ..
        }
        | VnetEvent::Addressed {
            peer, addresses, ..
        } if *index == at && *peer == member => Some(addresses.clone()),
        _ => None,
    });
    last.unwrap_or_default()
}

fn own(world: &World, at: Index) -> Option<Ipv4Addr> {
    let (_, channel) = world.node(at)?.vnet().by_name("office")?;
    channel.address()
}

#[test]
fn what_a_member_holds_for_others_is_found_by_either_address() {
    let mut world = world(&[3, 7, 9], "10.77.0.0/16");
    assert_eq!(host(&mut world, 3).unwrap().len(), 1);
    let held = host(&mut world, 3).unwrap();
    let [first, second] = held[..] else {
        panic!("{held:?}")
    };
    let mut wanted: Vec<IpAddr> = [first, second].concat();
    wanted.sort();
    for (asker, address) in [(7, first[0]), (9, second[1])] {
        let told = resolve(&mut world, asker, address);
        for (at, of) in [(asker, 3), (3, asker)] {
            let told = addresses(&world, &told, at, of);
            assert!(told.contains(&own(&world, of).unwrap().into()), "{told:?}");
        }
        let mut told = addresses(&world, &told, asker, 3).split_off(2);
        told.sort();
        assert_eq!(told, wanted, "both are known to be held");
    }
}

#[test]
fn whoever_is_asked_knows_what_the_asker_holds_before_it_takes_packets() {
    let mut world = world(&[3, 7], "10.77.0.0/16");
    let held = host(&mut world, 3).unwrap();
    let there = own(&world, 7).unwrap();
    let told = resolve(&mut world, 3, there.into());
    assert_eq!(addresses(&world, &told, 7, 3)[2..], held.concat());
    // One more, while packets are exchanged.
    let told = tell(&mut world, 3, Vnet::Host(CHANNEL));
    assert_eq!(addresses(&world, &told, 7, 3).len(), 6);
    // And none of the first.
    let told = dismiss(&mut world, 3, held[0][0]);
    let left = addresses(&world, &told, 7, 3);
    assert!(left.len() == 4 && !left.contains(&held[0][0]), "{left:?}");
    world.run_for(Duration::from_secs(5));
    let told = resolve(&mut world, 7, held[0][0]);
    let is_unresolved = |(at, event): &(Index, VnetEvent)| {
        *at == 7 && matches!(event, VnetEvent::Unresolved { .. })
    };
    assert!(told.iter().any(is_unresolved), "{told:?}");
}

#[test]
fn no_address_is_held_twice_and_not_more_than_there_may_be() {
    // Six addresses for two members and those whom they host.
    let mut world = world(&[3, 7], "10.77.0.0/29");
    let mut all: Vec<IpAddr> = [3, 7].map(|at| own(&world, at).unwrap().into()).to_vec();
    for at in [3, 7, 3, 7] {
        let held = host(&mut world, at).unwrap();
        all.push(held.last().unwrap()[0]);
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 6);
    assert_eq!(host(&mut world, 3), None, "there is none left");
    let mut world = self::world(&[3], "10.77.0.0/16");
    for number in 1..=HOSTED_MAX {
        assert_eq!(host(&mut world, 3).map(|held| held.len()), Some(number));
    }
    assert_eq!(host(&mut world, 3), None, "no more than so many");
}

#[test]
fn what_is_held_stays_held_and_is_given_back_with_the_channel() {
    let mut world = world(&[3, 7], "10.77.0.0/16");
    let held = host(&mut world, 3).unwrap();
    // A day and more: the leases are renewed.
    world.run_for(Duration::from_secs(100_000));
    let told = resolve(&mut world, 7, held[0][0]);
    assert!(addresses(&world, &told, 7, 3).contains(&held[0][0]));
    // Leaving gives everything back.
    tell(&mut world, 3, Vnet::Close(CHANNEL));
    let told = resolve(&mut world, 7, held[0][0]);
    assert!(addresses(&world, &told, 7, 3).is_empty());
}
