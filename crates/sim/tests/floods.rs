//! What floods of handshakes do to a member: it does not try each of them, and goes on with the
//! others.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod town;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use enishi_overlay::{Keypair, Message, NodeId};
use enishi_services::service::ServiceId;
use enishi_services::vnet::wire::{Attach, HOSTED_MAX, VnetMessage};
use enishi_services::vnet::{ChannelId, Command as Vnet, Event as VnetEvent};
use enishi_services::{Command, Event};
use enishi_sim::world::{Index, World};

use town::{grown, office, setup};

const CHANNEL: ChannelId = ChannelId(1);
/// Members of the channel: the one that is flooded, one that floods, and an honest one.
const VICTIM: Index = 3;
const ROGUE: Index = 4;
const HONEST: Index = 5;
/// What one node may send at once, with room for what the story itself needs.
const HEARD_MAX: u64 = 512;
/// A member with guests in many channels at once, and how many channels.
const GATEWAY: Index = ROGUE;
const WITH_GUESTS: [u32; 6] = [1, 2, 3, 4, 5, 6];
const CHANNELS: [u32; 7] = [1, 2, 3, 4, 5, 6, 7];

/// A channel of the three; what arrives at the victim is taped.
fn world() -> World {
    let mut world = grown(setup(11), 60, 30);
    for member in [VICTIM, ROGUE, HONEST] {
        let spec = office("10.77.0.0/16");
        let address = None;
        world.command(member, Command::Vnet(Vnet::Open { spec, address }));
        world.run_for(Duration::from_secs(15));
    }
    world.tap(VICTIM);
    world
}

fn resolve(world: &mut World, at: Index) {
    let (_, channel) = world
        .node(VICTIM)
        .unwrap()
        .vnet()
        .by_name("office")
        .unwrap();
    let address = channel.address().unwrap().into();
    let channel = CHANNEL;
    world.command(at, Command::Vnet(Vnet::Resolve { channel, address }));
    world.run_for(Duration::from_secs(5));
}

/// With whom the victim has agreed on keys since it was last asked.
fn attached(world: &mut World) -> Vec<NodeId> {
    let events = world.take_events().into_iter();
    events
        .filter_map(|(_, index, event)| match event {
            Event::Vnet(VnetEvent::Attached { peer, .. }) if index == VICTIM => Some(peer),
            _ => None,
        })
        .collect()
}

/// The wishes to exchange packets that were taped.
fn wishes(world: &mut World) -> Vec<Attach> {
    let tape = world.take_tape().into_iter();
    let wish = |(_, message)| match message {
        Message::Direct { service, body } if service == ServiceId::Vnet as u8 => {
            match VnetMessage::decode(&body) {
                Some(VnetMessage::Attach(attach)) => Some(attach),
                _ => None,
            }
        }
        _ => None,
    };
    tape.filter_map(wish).collect()
}

fn wish(world: &mut World, from: NodeId, attach: Attach) {
    let service = ServiceId::Vnet as u8;
    let body = Bytes::from(VnetMessage::Attach(attach).encode());
    world.inject(VICTIM, from, Message::Direct { service, body });
}

fn flooded(world: &World) -> u64 {
    world.node(VICTIM).unwrap().vnet().flooded()
}

/// How many messages of some sorts all have sent.
fn sent(world: &World, sorts: &[&str]) -> u64 {
    let traffic = world.traffic();
    let of_sorts = sorts.iter().filter_map(|sort| traffic.get(sort));
    of_sorts.map(|tally| tally.messages).sum()
}

/// The honest member agrees with the victim, which has counted almost all of a flood.
fn honest_agrees(world: &mut World, flood: u64) {
    let heard = flood - flooded(world);
    assert!(heard <= HEARD_MAX, "{heard} of {flood} messages were tried");
    attached(world);
    resolve(world, HONEST);
    assert_eq!(attached(world), [world.id(HONEST)]);
}

#[test]
fn members_agree_while_strangers_flood_with_forged_names() {
    const FLOOD: u64 = 20_000;
    let mut world = world();
    resolve(&mut world, ROGUE);
    let genuine = wishes(&mut world).remove(0);
    let stranger = Keypair::from_seed(&[99; 32]).id();
    for number in 0..FLOOD {
        let mut forged = genuine.clone();
        forged.channel[..8].copy_from_slice(&number.to_le_bytes());
        wish(&mut world, stranger, forged);
    }
    attached(&mut world);
    honest_agrees(&mut world, FLOOD);
}

#[test]
fn members_agree_while_another_member_floods() {
    const FLOOD: u64 = 20_000;
    let mut world = world();
    resolve(&mut world, ROGUE);
    let genuine = wishes(&mut world).remove(0);
    let rogue = world.id(ROGUE);
    let before = sent(&world, &["vnet"]);
    for _ in 0..FLOOD {
        wish(&mut world, rogue, genuine.clone());
    }
    let answers = sent(&world, &["vnet"]) - before;
    assert!((1..=HEARD_MAX).contains(&answers), "{answers} answers");
    honest_agrees(&mut world, FLOOD);
}

#[test]
fn wishes_of_a_member_do_not_cost_a_question_to_the_dht_each() {
    const WISHES: usize = 100;
    let mut world = world();
    resolve(&mut world, ROGUE);
    let (channel, peer) = (CHANNEL, world.id(VICTIM));
    for _ in 0..WISHES {
        world.command(ROGUE, Command::Vnet(Vnet::Renew { channel, peer }));
        world.run_for(Duration::from_secs(1));
    }
    let mut wishes = wishes(&mut world);
    assert!(wishes.len() > WISHES, "{}", wishes.len());
    // One of them, and then the others; each has a number that was not answered last.
    let others = wishes.split_off(1);
    let one = asked_for(&mut world, wishes);
    assert!(one > 0, "the victim does not hold the record itself");
    let most = one * WISHES as u64 / 10;
    let asked = asked_for(&mut world, others);
    assert!(
        asked <= most,
        "{asked} messages for {WISHES}, {one} for one"
    );
}

/// Has the rogue member leave the victim and send it wishes at once; returns how many messages
/// questions to the DHT there were in the second in which they were looked up, more than in the
/// second before.
fn asked_for(world: &mut World, wishes: Vec<Attach>) -> u64 {
    const QUESTIONS: [&str; 2] = ["routed, service", "dht fetch"];
    let rogue = world.id(ROGUE);
    resolve(world, ROGUE);
    world.take_events();
    world.command(ROGUE, Command::Vnet(Vnet::Suspend));
    world.run_for(Duration::from_secs(5));
    let left = world
        .take_events()
        .into_iter()
        .any(|(_, index, event)| match event {
            Event::Vnet(VnetEvent::Detached { peer, .. }) => index == VICTIM && peer == rogue,
            _ => false,
        });
    assert!(left, "the victim does not know its address any more");
    let at_first = sent(world, &QUESTIONS);
    world.run_for(Duration::from_secs(1));
    let before = sent(world, &QUESTIONS);
    for attach in wishes {
        wish(world, rogue, attach);
    }
    world.run_for(Duration::from_secs(1));
    assert!(attached(world).contains(&rogue));
    let others = before - at_first;
    (sent(world, &QUESTIONS) - before).saturating_sub(others)
}

/// A gateway with as many guests as it may have in six channels, and none in a seventh.
fn gateway() -> World {
    let mut world = grown(setup(12), 30, 30);
    for number in CHANNELS {
        for member in [VICTIM, GATEWAY] {
            let mut spec = office("10.77.0.0/16");
            spec.name = format!("office{number}");
            let address = None;
            world.command(member, Command::Vnet(Vnet::Open { spec, address }));
        }
        world.run_for(Duration::from_secs(15));
    }
    for _ in 0..HOSTED_MAX {
        for number in WITH_GUESTS {
            let host = Vnet::Host(ChannelId(number));
            world.command(GATEWAY, Command::Vnet(host));
        }
        world.run_for(Duration::from_secs(5));
    }
    world.take_events();
    world
}

/// The addresses that the victim has learnt to be the gateway's, each with its channel.
fn learnt(world: &mut World) -> BTreeSet<(ChannelId, IpAddr)> {
    let mut learnt = BTreeSet::new();
    for (_, index, event) in world.take_events() {
        if let Event::Vnet(
            VnetEvent::Attached {
                channel, addresses, ..
            }
            | VnetEvent::Addressed {
                channel, addresses, ..
            },
        ) = event
            && index == VICTIM
        {
            learnt.extend(addresses.into_iter().map(|address| (channel, address)));
        }
    }
    learnt
}

#[test]
fn attaching_does_not_wait_for_guests_and_each_guest_is_looked_up() {
    let mut world = gateway();
    let vnet = world.node(VICTIM).unwrap().vnet();
    let own = CHANNELS.map(|number| {
        let channel = ChannelId(number);
        let address = vnet.channel(channel).unwrap().address().unwrap().into();
        (channel, address)
    });
    for (channel, address) in own {
        let resolve = Vnet::Resolve { channel, address };
        world.command(GATEWAY, Command::Vnet(resolve));
        // Shorter than until a wish that was not heard comes again.
        world.run_for(Duration::from_secs(1));
    }
    let mut learnt_of = learnt(&mut world);
    let channels: BTreeSet<ChannelId> = learnt_of.iter().map(|(channel, _)| *channel).collect();
    assert_eq!(channels.len(), CHANNELS.len(), "{channels:?}");
    assert_eq!(flooded(&world), 0);
    world.run_for(Duration::from_secs(60));
    learnt_of.extend(learnt(&mut world));
    // Its own two addresses in each channel, and two of each guest.
    let all = 2 * (CHANNELS.len() + WITH_GUESTS.len() * HOSTED_MAX);
    assert_eq!(learnt_of.len(), all);
}
