//! Large channels, and members that claim what is not theirs.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod forger;
mod town;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use enishi_overlay::{Contact, Keypair, Message, NodeId};
use enishi_services::service::ServiceId;
use enishi_services::vnet::{Channel, ChannelId, Command as Vnet, Event as VnetEvent};
use enishi_services::{Command, Event};
use enishi_sim::world::{Index, World};

use forger::Forger;
use town::{grown, office, setup};

const CHANNEL: ChannelId = ChannelId(1);
const NETWORK: &str = "10.77.0.0/16";
/// Two honest members, and one whose program was changed.
const WITNESS: Index = 2;
const VICTIM: Index = 16;
const ROGUE: Index = 17;
const SEEDS: [[u8; 32]; 2] = [[65; 32], [66; 32]];

fn tell(world: &mut World, at: Index, command: Vnet) {
    world.command(at, Command::Vnet(command));
}

fn open(world: &mut World, at: Index) {
    let spec = office(NETWORK);
    let address = None;
    tell(world, at, Vnet::Open { spec, address });
}

fn channel(world: &World, at: Index) -> &Channel {
    world.node(at).unwrap().vnet().by_name("office").unwrap().1
}

fn address(world: &World, at: Index) -> Ipv4Addr {
    channel(world, at).address().unwrap()
}

fn members(world: &World, at: Index) -> BTreeSet<NodeId> {
    let members = channel(world, at).members();
    members.map(|claim| claim.contact.id()).collect()
}

fn ids(world: &World, of: impl Iterator<Item = Index>) -> BTreeSet<NodeId> {
    of.map(|index| world.id(index)).collect()
}

/// The address that a node takes another's to be.
fn claimed(world: &World, at: Index, of: Index) -> Option<Ipv4Addr> {
    let claim = channel(world, at).member(world.id(of));
    claim.map(|claim| claim.address)
}

fn run(world: &mut World, seconds: u64) {
    world.run_for(Duration::from_secs(seconds));
}

/// Has a node send a packet to all from an address; returns who has got it.
fn broadcast(world: &mut World, at: Index, source: IpAddr) -> BTreeSet<Index> {
    let mut packet = match source {
        IpAddr::V4(source) => {
            let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
            packet.extend(source.octets());
            packet.extend([255; 4]);
            packet
        }
        IpAddr::V6(source) => {
            let mut packet = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
            packet.extend(source.octets());
            packet.extend([0xff; 16]);
            packet
        }
    };
    packet.extend([0, 9, 0, 9, 0, 8, 0, 0]);
    world.take_events();
    let (channel, packet) = (CHANNEL, packet.into());
    tell(world, at, Vnet::Broadcast { channel, packet });
    run(world, 10);
    let events = world.take_events().into_iter();
    let heard = events.filter_map(|(_, index, event)| match event {
        Event::Vnet(VnetEvent::Broadcast { .. }) => Some(index),
        _ => None,
    });
    heard.collect()
}

/// Waits until all of these know each other and nobody else, and the last page that any of them
/// is in is one of some.
fn all_know_all(world: &mut World, of: &[Index], seconds_max: u64, last_page: RangeInclusive<u8>) {
    let all = ids(world, of.iter().copied());
    let unaware = |world: &World| {
        let unaware = of.iter().filter(|index| members(world, **index) != all);
        unaware.count()
    };
    let mut waited = 0;
    while waited < seconds_max {
        run(world, 5);
        waited += 5;
        let pages = pages(world, of);
        let is_done = pages.len() == of.len() && last_page.contains(&pages[pages.len() - 1]);
        if is_done && unaware(world) == 0 {
            return;
        }
    }
    let (unaware, pages) = (unaware(world), pages(world, of));
    panic!("after {waited} s {unaware} do not know all, in pages {pages:?}");
}

fn pages(world: &World, of: &[Index]) -> Vec<u8> {
    let pages = of.iter();
    let pages = pages.filter_map(|index| channel(world, *index).directory_page());
    let mut pages: Vec<u8> = pages.collect();
    pages.sort_unstable();
    pages
}

#[test]
fn a_hundred_and_twenty_know_each_other_and_so_do_those_who_stay() {
    const ALL: usize = 120;
    const LEAVE: usize = 60;
    let mut world = grown(setup(21), ALL, 30);
    for index in 0..ALL {
        open(&mut world, index);
    }
    let all: Vec<Index> = (0..ALL).collect();
    all_know_all(&mut world, &all, 300, 4..=5);
    for author in [0, 60, 119] {
        let source = address(&world, author).into();
        let heard = broadcast(&mut world, author, source);
        let others: BTreeSet<Index> = (0..ALL).filter(|index| *index != author).collect();
        assert_eq!(heard, others, "of {author}");
    }
    for index in 0..LEAVE {
        tell(&mut world, index, Vnet::Close(CHANNEL));
    }
    let mut rest: Vec<Index> = (LEAVE..ALL).collect();
    all_know_all(&mut world, &rest, 600, 2..=3);
    // Who comes now reads them all.
    open(&mut world, 0);
    rest.push(0);
    all_know_all(&mut world, &rest, 90, 2..=3);
}

fn key(of: Index) -> Keypair {
    Keypair::from_seed(&SEEDS[of - VICTIM])
}

/// A network with two nodes of which the test has the keys, and a member that lies.
fn with_forger(seed: u64) -> (World, Forger) {
    let mut world = grown(setup(seed), VICTIM, 30);
    for seed in SEEDS {
        world.spawn_with(seed, Some(0));
        run(&mut world, 10);
    }
    (world, Forger::new(&office(NETWORK), key(ROGUE)))
}

/// The same with a channel of the two honest members.
fn with_rogue(seed: u64) -> (World, Forger) {
    let (mut world, forger) = with_forger(seed);
    for member in [WITNESS, VICTIM] {
        open(&mut world, member);
        run(&mut world, 15);
    }
    (world, forger)
}

fn contact(world: &World, of: Index) -> Contact {
    world.node(of).unwrap().overlay().me().clone()
}

#[test]
fn an_address_outside_of_the_network_is_no_members_address() {
    let (mut world, forger) = with_rogue(22);
    for address in ["127.0.0.1", "10.78.0.1", "10.77.0.0", "10.77.255.255"] {
        let claim = forger.claim(&contact(&world, ROGUE), address.parse().unwrap());
        forger.announce(&mut world, WITNESS, &claim);
        forger.enter_directory(&mut world, ROGUE, 0, &claim);
        run(&mut world, 130);
        assert_eq!(claimed(&world, WITNESS, ROGUE), None, "{address}");
    }
    let claim = forger.claim(&contact(&world, ROGUE), "10.77.0.1".parse().unwrap());
    forger.announce(&mut world, WITNESS, &claim);
    run(&mut world, 1);
    assert!(claimed(&world, WITNESS, ROGUE).is_some());
}

#[test]
fn who_claims_another_members_address_is_not_taken_for_its_holder() {
    let (mut world, forger) = with_rogue(23);
    open(&mut world, ROGUE);
    run(&mut world, 30);
    let (of_victim, of_rogue) = (address(&world, VICTIM), address(&world, ROGUE));
    // What it has said before about itself does not help it.
    let heard = broadcast(&mut world, ROGUE, of_rogue.into());
    assert_eq!(heard, BTreeSet::from([WITNESS, VICTIM]));
    let claim = forger.claim(&contact(&world, ROGUE), of_victim);
    forger.enter_directory(&mut world, ROGUE, 0, &claim);
    for _ in 0..3 {
        forger.announce(&mut world, WITNESS, &claim);
        run(&mut world, 1);
        assert!(broadcast(&mut world, ROGUE, of_victim.into()).is_empty());
        assert_ne!(claimed(&world, WITNESS, ROGUE), Some(of_victim));
        assert_eq!(claimed(&world, WITNESS, VICTIM), Some(of_victim));
        run(&mut world, 60);
    }
    let heard = broadcast(&mut world, VICTIM, of_victim.into());
    assert_eq!(heard, BTreeSet::from([WITNESS, ROGUE]));
}

#[test]
fn who_knows_only_the_liar_asks_before_it_believes() {
    let (mut world, forger) = with_rogue(24);
    open(&mut world, ROGUE);
    run(&mut world, 30);
    let of_victim = address(&world, VICTIM);
    // A newcomer hears of the rogue first, and of the victim never by itself.
    forger.leave_directory(&mut world, WITNESS, &key(VICTIM));
    let claim = forger.claim(&contact(&world, ROGUE), of_victim);
    forger.enter_directory(&mut world, ROGUE, 0, &claim);
    open(&mut world, 5);
    run(&mut world, 2);
    forger.announce(&mut world, 5, &claim);
    run(&mut world, 1);
    assert!(!broadcast(&mut world, ROGUE, of_victim.into()).contains(&5));
    assert_ne!(claimed(&world, 5, ROGUE), Some(of_victim));
}

#[test]
fn the_way_to_a_member_does_not_carry_packets_of_anothers_address() {
    let (mut world, forger) = with_rogue(25);
    let claim = forger.claim(&contact(&world, ROGUE), address(&world, VICTIM));
    let wanted = forger.address6(&key(ROGUE).id());
    forger.claim_address6(&mut world, ROGUE, wanted, &claim);
    world.tap(ROGUE);
    world.take_events();
    let (channel, address) = (CHANNEL, wanted.into());
    tell(&mut world, WITNESS, Vnet::Resolve { channel, address });
    run(&mut world, 15);
    let unresolved = |event| matches!(event, Event::Vnet(VnetEvent::Unresolved { .. }));
    let mut events = world.take_events().into_iter();
    assert!(events.any(|(_, index, event)| index == WITNESS && unresolved(event)));
    let service = ServiceId::Vnet as u8;
    let witness = world.id(WITNESS);
    let asked = world.take_tape().into_iter().any(|(from, message)| {
        let is_wish = matches!(message, Message::Direct { service: of, .. } if of == service);
        from == witness && is_wish
    });
    assert!(!asked, "the witness wants to exchange packets");
}

/// Has the witness look for an address, and tells whom it found.
fn found(world: &mut World, address: IpAddr) -> Option<NodeId> {
    world.take_events();
    let channel = CHANNEL;
    tell(world, WITNESS, Vnet::Resolve { channel, address });
    run(world, 15);
    let events = world.take_events().into_iter();
    let mut attached = events.filter_map(|(_, index, event)| match event {
        Event::Vnet(VnetEvent::Attached { peer, .. }) if index == WITNESS => Some(peer),
        _ => None,
    });
    attached.next()
}

#[test]
fn an_ipv6_address_is_nobodys_but_its_keys() {
    let (mut world, forger) = with_forger(28);
    let of_victim = forger.address6(&key(VICTIM).id());
    let of_rogue = forger.address6(&key(ROGUE).id());
    for member in [WITNESS, ROGUE] {
        open(&mut world, member);
        run(&mut world, 15);
    }
    // The rogue is there before its victim, and has the record of the victim's address.
    let true_one = address(&world, ROGUE);
    let false_claim = forger.claim_both(&contact(&world, ROGUE), true_one, of_victim);
    let true_claim = forger.claim(&contact(&world, ROGUE), true_one);
    for claim in [&false_claim, &true_claim] {
        forger.claim_address6(&mut world, ROGUE, of_victim, claim);
        forger.announce(&mut world, WITNESS, claim);
        run(&mut world, 5);
        assert_eq!(found(&mut world, of_victim.into()), None);
        assert!(broadcast(&mut world, ROGUE, of_victim.into()).is_empty());
    }
    // The victim comes, and cannot have the record; who knows it as a member finds it.
    open(&mut world, VICTIM);
    run(&mut world, 30);
    assert_eq!(found(&mut world, of_victim.into()), Some(world.id(VICTIM)));
    assert_eq!(found(&mut world, of_rogue.into()), Some(world.id(ROGUE)));
}

#[test]
fn a_packet_to_all_of_a_member_that_is_in_no_page_is_heard() {
    let (mut world, forger) = with_rogue(26);
    open(&mut world, ROGUE);
    run(&mut world, 30);
    forger.leave_directory(&mut world, WITNESS, &key(ROGUE));
    run(&mut world, 130);
    for source in channel(&world, ROGUE)
        .member(world.id(ROGUE))
        .unwrap()
        .addresses()
    {
        let heard = broadcast(&mut world, ROGUE, source);
        assert_eq!(heard, BTreeSet::from([WITNESS, VICTIM]), "{source}");
    }
    assert!(claimed(&world, WITNESS, ROGUE).is_some());
}

#[test]
fn a_page_that_a_member_has_filled_is_passed_by() {
    let (mut world, forger) = with_forger(27);
    for page in 0..2 {
        forger.fill(&mut world, ROGUE, page);
        run(&mut world, 20);
    }
    for member in 0..6 {
        open(&mut world, member);
        run(&mut world, 5);
    }
    all_know_all(&mut world, &[0, 1, 2, 3, 4, 5], 60, 2..=2);
}
