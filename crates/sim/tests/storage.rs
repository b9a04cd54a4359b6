//! What the DHT promises, story by story.

use std::time::Duration;

use bytes::Bytes;
use enishi_overlay::{Keypair, Time};
use enishi_services::dht::{
    Caller, Command as Dht, Consistency, Event as DhtEvent, GetAnswer, PutAnswer, PutRequest,
    REPLICAS,
};
use enishi_services::record::{Key, Kind};
use enishi_services::{Command, Event};
use enishi_sim::internet::Model;
use enishi_sim::oracle::Census;
use enishi_sim::world::{Index, Setup, World};

const A_WHILE: Duration = Duration::from_secs(15);

fn world(nodes: usize) -> World {
    world_with(nodes, Model::default())
}

fn world_with(nodes: usize, model: Model) -> World {
    let mut world = World::new(Setup {
        seed: 5,
        model,
        long_links: None,
    });
    for born in 0..nodes {
        let bootstrap = (born > 0).then(|| world.any());
        world.spawn(bootstrap);
        world.run_for(Duration::from_millis(100));
    }
    world.run_for(Duration::from_secs(60));
    world
}

fn keypair(seed: u8) -> Keypair {
    Keypair::from_seed(&[seed; 32])
}

fn put(world: &mut World, at: Index, writer: u8, owner: u8, value: Option<&str>) -> PutAnswer {
    let request = PutRequest {
        kind: Kind::Lease,
        writer: keypair(writer),
        owner: keypair(owner),
        lease_s: 3600,
        value: value.map(|value| Bytes::from(value.to_owned())),
    };
    let caller = Caller::Host(1);
    let request = Box::new(request);
    world.command(at, Command::Dht(Dht::Put { caller, request }));
    world.run_for(A_WHILE);
    let answer = world
        .take_events()
        .into_iter()
        .find_map(|(_, _, event)| match event {
            Event::Dht(DhtEvent::PutDone { answer, .. }) => Some(answer),
            _ => None,
        });
    answer.expect("every put is answered")
}

fn key(writer: u8) -> Key {
    Key::new(Kind::Lease, &keypair(writer).id())
}

fn get(world: &mut World, at: Index, writer: u8, consistency: Consistency) -> Option<String> {
    let (caller, key) = (Caller::Host(2), key(writer));
    world.command(
        at,
        Command::Dht(Dht::Get {
            caller,
            key,
            consistency,
        }),
    );
    world.run_for(A_WHILE);
    let records = world
        .take_events()
        .into_iter()
        .find_map(|(_, _, event)| match event {
            Event::Dht(DhtEvent::Got {
                answer: GetAnswer::Records(records),
                ..
            }) => Some(records),
            _ => None,
        });
    let records = records.expect("every get is answered");
    records
        .first()
        .map(|r| String::from_utf8_lossy(&r.content().value).into_owned())
}

fn holders(world: &World, writer: u8) -> Vec<Index> {
    let holds = |node: &enishi_services::Node| {
        node.dht().store().under(key(writer), Time::ZERO).count() > 0
    };
    world
        .living()
        .filter(|(_, node)| holds(node))
        .map(|(index, _)| index)
        .collect()
}

#[test]
fn a_value_is_read_anywhere_changed_by_its_owner_and_removed() {
    let mut world = world(40);
    assert!(matches!(
        put(&mut world, 3, 1, 1, Some("one")),
        PutAnswer::Stored { .. }
    ));
    assert_eq!(
        get(&mut world, 17, 1, Consistency::Any).as_deref(),
        Some("one")
    );
    assert!(matches!(
        put(&mut world, 9, 1, 1, Some("two")),
        PutAnswer::Stored { .. }
    ));
    assert_eq!(
        get(&mut world, 30, 1, Consistency::Majority).as_deref(),
        Some("two")
    );
    assert_eq!(put(&mut world, 5, 1, 2, Some("mine")), PutAnswer::Taken);
    assert!(matches!(
        put(&mut world, 3, 1, 1, None),
        PutAnswer::Stored { .. }
    ));
    assert_eq!(get(&mut world, 30, 1, Consistency::Any), None);
    assert!(matches!(
        put(&mut world, 5, 1, 2, Some("mine now")),
        PutAnswer::Stored { .. }
    ));
    assert_eq!(
        get(&mut world, 30, 1, Consistency::Any).as_deref(),
        Some("mine now")
    );
}

/// Puts entries of a set, reads all of them, and returns what the reading cost all nodes.
fn read_set(world: &mut World, at: Index, expected: usize) -> u64 {
    let caller = Caller::Host(3);
    let read = Dht::Get {
        caller,
        key: Key::new(Kind::Set, &keypair(1).id()),
        consistency: Consistency::Majority,
    };
    let sent = |world: &World| -> u64 {
        let loads = (0..40).map(|index| world.load(index).bytes_sent);
        loads.sum()
    };
    let before = sent(world);
    world.command(at, Command::Dht(read));
    world.run_for(Duration::from_secs(2));
    let cost = sent(world) - before;
    let mut events = world.take_events().into_iter();
    let found = events.find_map(|(_, _, event)| match event {
        Event::Dht(DhtEvent::Got {
            answer: GetAnswer::Records(records),
            ..
        }) => Some(records.len()),
        _ => None,
    });
    assert_eq!(found, Some(expected));
    cost
}

fn put_entry(world: &mut World, owner: u8, value: Option<&[u8]>) {
    let request = Box::new(PutRequest {
        kind: Kind::Set,
        writer: keypair(1),
        owner: keypair(owner),
        lease_s: 3600,
        value: value.map(Bytes::copy_from_slice),
    });
    let caller = Caller::Host(1);
    world.command(3, Command::Dht(Dht::Put { caller, request }));
    world.run_for(Duration::from_secs(5));
    let mut events = world.take_events().into_iter();
    let stored = |event| {
        let answer = match event {
            Event::Dht(DhtEvent::PutDone { answer, .. }) => Some(answer),
            _ => None,
        };
        matches!(answer, Some(PutAnswer::Stored { .. }))
    };
    assert!(events.any(|(_, _, event)| stored(event)));
}

#[test]
fn what_a_reader_knows_is_not_sent_again_and_what_is_new_is() {
    const ENTRY: [u8; 500] = [7; 500];
    let mut world = world(40);
    for owner in 10..30 {
        put_entry(&mut world, owner, Some(&ENTRY));
    }
    world.run_for(Duration::from_secs(60));
    // All of the set goes to the reader once.
    let set = 20 * ENTRY.len() as u64;
    let (first, second) = (read_set(&mut world, 17, 20), read_set(&mut world, 17, 20));
    assert!(first > set, "{first}");
    assert!(second < first / 4, "{second} instead of {first}");
    for (owner, value, left) in [(30, Some(&ENTRY[..]), 21), (10, None, 20)] {
        put_entry(&mut world, owner, value);
        read_set(&mut world, 17, left);
        let again = read_set(&mut world, 17, left);
        assert!(again < first / 4, "{again} instead of {first}");
    }
    // Who has read nothing yet is sent all.
    assert!(read_set(&mut world, 25, 20) > set);
}

#[test]
fn the_last_holder_saves_the_value() {
    let mut world = world(60);
    for writer in 1..=6 {
        let putter = world.any();
        let answer = put(&mut world, putter, writer, 1, Some("kept"));
        assert!(matches!(answer, PutAnswer::Stored { .. }));
        let holding = holders(&world, writer);
        assert!(holding.len() >= REPLICAS, "{} holders", holding.len());
        // One holder remains, and not the owner, which would put the value again.
        let last = holding.iter().copied().find(|index| *index != putter);
        for index in holding.iter().copied().chain([putter]) {
            if Some(index) != last {
                world.kill(index);
            }
        }
        world.run_for(Duration::from_secs(60));
        let reader = world.any();
        assert_eq!(
            get(&mut world, reader, writer, Consistency::Any).as_deref(),
            Some("kept")
        );
        assert!(holders(&world, writer).len() >= REPLICAS, "copied again");
        for _ in 0..6 {
            let bootstrap = world.any();
            world.spawn(Some(bootstrap));
        }
        world.run_for(Duration::from_secs(30));
    }
}

#[test]
fn newcomers_take_over_and_the_nearest_nodes_hold() {
    let mut world = world(20);
    for writer in 1..=20 {
        put(&mut world, 2, writer, 1, Some("kept"));
    }
    for _ in 0..40 {
        let bootstrap = world.any();
        world.spawn(Some(bootstrap));
        world.run_for(Duration::from_secs(1));
    }
    world.run_for(Duration::from_secs(180));
    let census = Census::take(&world);
    for writer in 1..=20 {
        let nearest = census.nearest(key(writer).position(), REPLICAS);
        let holders = holders(&world, writer);
        let held = nearest.iter().all(|index| holders.contains(index));
        assert!(held, "key {writer}: {holders:?}, {nearest:?}");
        // Others near by may keep it, too, but not everybody.
        assert!(holders.len() <= 3 * REPLICAS, "key {writer}: {holders:?}");
    }
}

#[test]
fn a_whole_office_is_switched_off_and_on_again() {
    let mut world = world(5);
    put(&mut world, 1, 1, 1, Some("kept"));
    (0..5).for_each(|index| world.kill(index));
    world.run_for(Duration::from_secs(600));
    for index in (0..5).rev() {
        world.restart(index, Some((index + 1) % 5));
    }
    world.run_for(Duration::from_secs(30));
    assert_eq!(
        get(&mut world, 4, 1, Consistency::Any).as_deref(),
        Some("kept")
    );
}

#[test]
fn what_nobody_renews_ends_with_its_lease() {
    let mut world = world(8);
    put(&mut world, 1, 1, 1, Some("kept"));
    world.run_for(Duration::from_secs(2 * 3600));
    assert_eq!(
        get(&mut world, 3, 1, Consistency::Any).as_deref(),
        Some("kept"),
        "renewed"
    );
    world.kill(1);
    world.run_for(Duration::from_secs(3600 + 60));
    assert_eq!(get(&mut world, 3, 1, Consistency::Majority), None);
    assert!(holders(&world, 1).is_empty());
}

#[test]
fn a_node_that_cannot_keep_anything_acknowledges_nothing() {
    let mut world = world(6);
    let in_charge = Census::take(&world).nearest(key(1).position(), 1)[0];
    world.command(in_charge, Command::Dht(Dht::Storage { works: false }));
    let putter = (in_charge + 1) % 6;
    let answer = put(&mut world, putter, 1, 1, Some("kept"));
    assert!(
        matches!(answer, PutAnswer::Stored { .. }),
        "the others keep it"
    );
    assert_eq!(holders(&world, 1).len(), 5);
    let mut alone = self::world(1);
    alone.command(0, Command::Dht(Dht::Storage { works: false }));
    assert_eq!(put(&mut alone, 0, 1, 1, Some("lost")), PutAnswer::Full);
}

#[test]
fn a_node_that_has_just_started_does_not_answer_for_all() {
    let mut world = world(8);
    put(&mut world, 1, 1, 1, Some("kept"));
    let newcomer = world.spawn(Some(0));
    // Asked at once, before it can have found a neighbour.
    let value = get(&mut world, newcomer, 1, Consistency::Any);
    assert_eq!(value.as_deref(), Some("kept"));
}

#[test]
fn who_was_away_does_not_answer_for_a_majority() {
    // So slow that no holder hears another one in time.
    let mut world = world_with(
        8,
        Model {
            delay: Some(Duration::from_millis(550)),
            loss_per_million: 0,
            ..Model::default()
        },
    );
    let in_charge = Census::take(&world).nearest(key(1).position(), 1)[0];
    let owner = (in_charge + 1) % 8;
    let stored = |answer| assert!(matches!(answer, PutAnswer::Stored { .. }), "{answer:?}");
    stored(put(&mut world, owner, 1, 1, Some("old")));
    world.kill(in_charge);
    world.run_for(Duration::from_secs(60));
    stored(put(&mut world, owner, 1, 1, Some("new")));
    world.restart(in_charge, Some(owner));
    for _ in 0..100 {
        let (caller, key) = (Caller::Host(2), key(1));
        let consistency = Consistency::Majority;
        let get = Dht::Get {
            caller,
            key,
            consistency,
        };
        world.command(in_charge, Command::Dht(get));
        world.run_for(Duration::from_millis(100));
    }
    world.run_for(A_WHILE);
    let (mut old, mut new) = (0, 0);
    for (_, _, event) in world.take_events() {
        if let Event::Dht(DhtEvent::Got {
            answer: GetAnswer::Records(records),
            ..
        }) = event
        {
            let is = |value: &str| records.first().is_some_and(|r| r.content().value == value);
            old += u32::from(is("old"));
            new += u32::from(is("new"));
        }
    }
    assert_eq!((old, new), (0, 100));
}
