//! Storing values, and looking whether they are still there.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use enishi_overlay::{Keypair, Rng};
use enishi_services::dht::{self, Caller, Consistency, GetAnswer, PutAnswer, PutRequest, REPLICAS};
use enishi_services::record::{Key, Kind};
use enishi_services::{Command, Event};

use crate::oracle::Census;
use crate::world::{Index, World};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long holders keep a value without its owner.
const LEASE_S: u32 = 86_400;
/// How many are asked for at one time.
const AT_ONCE: usize = 200;

/// A value that was acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) key: Key,
    /// Who put it.
    pub(super) putter: Index,
    value: Bytes,
}

/// Stores `count` values from drawn nodes under random names; returns those acknowledged.
pub(super) fn store(world: &mut World, count: usize) -> Vec<Stored> {
    store_by(world, count, World::any)
}

/// Stores `count` values under random names from the nodes that `putter` draws; returns
/// those acknowledged.
pub(super) fn store_by(
    world: &mut World,
    count: usize,
    putter: impl FnMut(&mut World) -> Index,
) -> Vec<Stored> {
    let writer = |rng: &mut Rng, _| Keypair::from_seed(&rng.octets());
    store_as(world, count, LEASE_S, writer, putter)
}

/// Stores `count` values from the nodes that `putter` draws, each under the name that `writer`
/// gives to its number; returns those acknowledged.
pub(super) fn store_as(
    world: &mut World,
    count: usize,
    lease_s: u32,
    writer: impl Fn(&mut Rng, usize) -> Keypair,
    mut putter: impl FnMut(&mut World) -> Index,
) -> Vec<Stored> {
    let mut acknowledged = Vec::new();
    let numbers: Vec<usize> = (0..count).collect();
    for batch in numbers.chunks(AT_ONCE) {
        let mut under_way = BTreeMap::new();
        for number in batch {
            let writer = writer(world.rng(), *number);
            let owner = Keypair::from_seed(&world.rng().octets());
            let id = *number as u64;
            let key = Key::new(Kind::Lease, &writer.id());
            let value = Bytes::from(format!("value {number}"));
            let putter = putter(world);
            under_way.insert(
                id,
                Stored {
                    key,
                    putter,
                    value: value.clone(),
                },
            );
            let request = Box::new(PutRequest {
                kind: Kind::Lease,
                writer,
                owner,
                lease_s,
                value: Some(value),
            });
            let command = dht::Command::Put {
                caller: Caller::Host(id),
                request,
            };
            world.command(putter, Command::Dht(command));
        }
        world.run_for(PATIENCE);
        for (_, _, event) in world.take_events() {
            let Event::Dht(dht::Event::PutDone {
                caller: Caller::Host(id),
                answer,
            }) = event
            else {
                continue;
            };
            if let (PutAnswer::Stored { .. }, Some(stored)) = (answer, under_way.remove(&id)) {
                acknowledged.push(stored);
            }
        }
    }
    acknowledged
}

/// Reads the values from drawn nodes; returns how many cannot be read as they were stored.
pub(super) fn unreadable(world: &mut World, stored: &[Stored]) -> usize {
    let all: Vec<&Stored> = stored.iter().collect();
    unread(world, &all, World::any)
}

/// Reads values, some perhaps several times, from the nodes that `reader` draws; returns how
/// many readings did not give what was stored.
pub(super) fn unread(
    world: &mut World,
    readings: &[&Stored],
    mut reader: impl FnMut(&mut World) -> Index,
) -> usize {
    let numbered: Vec<(u64, &Stored)> = (0..).zip(readings.iter().copied()).collect();
    let mut missing: Missing<'_> = numbered.iter().copied().collect();
    for batch in numbered.chunks(AT_ONCE) {
        for (id, stored) in batch {
            let reader = reader(world);
            ask_for(world, reader, *id, stored);
        }
        world.run_for(PATIENCE);
        take_answers(world, &mut missing);
    }
    missing.len()
}

/// Does the same, one reading every `apart`; it takes as long as [`reading_time`] says.
pub(super) fn unread_apart(
    world: &mut World,
    readings: &[&Stored],
    apart: Duration,
    mut reader: impl FnMut(&mut World) -> Index,
) -> usize {
    let mut missing: Missing<'_> = (0..).zip(readings.iter().copied()).collect();
    for (id, stored) in (0..).zip(readings) {
        let reader = reader(world);
        ask_for(world, reader, id, stored);
        world.run_for(apart);
    }
    world.run_for(PATIENCE);
    take_answers(world, &mut missing);
    missing.len()
}

/// Returns how long so many readings take, one every `apart`.
pub(super) fn reading_time(readings: usize, apart: Duration) -> Duration {
    apart * u32::try_from(readings).unwrap_or(u32::MAX) + PATIENCE
}

/// What has not been read yet, by the number of the reading.
type Missing<'a> = BTreeMap<u64, &'a Stored>;

fn ask_for(world: &mut World, reader: Index, id: u64, stored: &Stored) {
    let command = dht::Command::Get {
        caller: Caller::Host(id),
        key: stored.key,
        consistency: Consistency::Any,
    };
    world.command(reader, Command::Dht(command));
}

fn take_answers(world: &mut World, missing: &mut Missing<'_>) {
    for (_, _, event) in world.take_events() {
        let Event::Dht(dht::Event::Got {
            caller: Caller::Host(id),
            answer: GetAnswer::Records(records),
        }) = event
        else {
            continue;
        };
        let value = records.first().map(|record| &record.content().value);
        if value.is_some() && value == missing.get(&id).map(|stored| &stored.value) {
            missing.remove(&id);
        }
    }
}

/// Tells whether a node lives and holds the key.
pub(super) fn holds(world: &World, index: Index, key: Key) -> bool {
    world.node(index).is_some_and(|node| {
        let mut held = node.dht().store().under(key, enishi_overlay::Time::ZERO);
        held.next().is_some()
    })
}

/// Returns how many living nodes hold the key.
pub(super) fn holders(world: &World, key: Key) -> usize {
    let living = world.living();
    living
        .filter(|(index, _)| holds(world, *index, key))
        .count()
}

/// Tells whether the nodes nearest to each key all hold it.
pub(super) fn fully_replicated(world: &World, values: &[Stored]) -> bool {
    let census = Census::take(world);
    values.iter().all(|Stored { key, .. }| {
        let nearest = census.nearest(key.position(), REPLICAS);
        nearest.into_iter().all(|index| holds(world, index, *key))
    })
}
