//! Storing values, and looking whether they are still there.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use enishi_overlay::Keypair;
use enishi_services::dht::{self, Caller, Consistency, GetAnswer, PutAnswer, PutRequest, REPLICAS};
use enishi_services::record::{Key, Kind};
use enishi_services::{Command, Event};

use crate::oracle::Census;
use crate::world::World;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long holders keep a value without its owner.
const LEASE_S: u32 = 86_400;
/// How many are asked for at one time.
const AT_ONCE: usize = 200;

/// Stores `count` values from drawn nodes; returns the keys of those acknowledged.
pub(super) fn store(world: &mut World, count: usize) -> Vec<Key> {
    let mut acknowledged = Vec::new();
    let numbers: Vec<usize> = (0..count).collect();
    for batch in numbers.chunks(AT_ONCE) {
        let mut keys = BTreeMap::new();
        for number in batch {
            let writer = Keypair::from_seed(&world.rng().octets());
            let owner = Keypair::from_seed(&world.rng().octets());
            let id = *number as u64;
            keys.insert(id, Key::new(Kind::Lease, &writer.id()));
            let value = Some(Bytes::from(format!("value {number}")));
            let request = Box::new(PutRequest {
                kind: Kind::Lease,
                writer,
                owner,
                lease_s: LEASE_S,
                value,
            });
            let command = dht::Command::Put {
                caller: Caller::Host(id),
                request,
            };
            let putter = world.any();
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
            if let (PutAnswer::Stored { .. }, Some(key)) = (answer, keys.get(&id)) {
                acknowledged.push(*key);
            }
        }
    }
    acknowledged
}

/// Reads the values from drawn nodes; returns the keys that cannot be read.
pub(super) fn unreadable(world: &mut World, keys: &[Key]) -> Vec<Key> {
    let mut missing: BTreeMap<u64, Key> = keys
        .iter()
        .copied()
        .enumerate()
        .map(|(i, k)| (i as u64, k))
        .collect();
    let numbers: Vec<(u64, Key)> = missing.iter().map(|(id, key)| (*id, *key)).collect();
    for batch in numbers.chunks(AT_ONCE) {
        for (id, key) in batch {
            let caller = Caller::Host(*id);
            let consistency = Consistency::Any;
            let reader = world.any();
            let command = dht::Command::Get {
                caller,
                key: *key,
                consistency,
            };
            world.command(reader, Command::Dht(command));
        }
        world.run_for(PATIENCE);
        for (_, _, event) in world.take_events() {
            if let Event::Dht(dht::Event::Got {
                caller: Caller::Host(id),
                answer,
            }) = event
                && matches!(answer, GetAnswer::Records(records) if !records.is_empty())
            {
                missing.remove(&id);
            }
        }
    }
    missing.into_values().collect()
}

/// Returns how many living nodes hold the key.
pub(super) fn holders(world: &World, key: Key) -> usize {
    world
        .living()
        .filter(|(_, node)| {
            node.dht()
                .store()
                .under(key, enishi_overlay::Time::ZERO)
                .count()
                > 0
        })
        .count()
}

/// Tells whether the nodes nearest to each key all hold it.
pub(super) fn fully_replicated(world: &World, keys: &[Key]) -> bool {
    let census = Census::take(world);
    keys.iter().all(|key| {
        census
            .nearest(key.position(), REPLICAS)
            .into_iter()
            .all(|index| {
                world.node(index).is_some_and(|node| {
                    node.dht()
                        .store()
                        .under(*key, enishi_overlay::Time::ZERO)
                        .count()
                        > 0
                })
            })
    })
}
