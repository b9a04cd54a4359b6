//! Values under attack: put, read, and what that costs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use enishi_overlay::Keypair;
use enishi_services::dht::{self, Caller, Consistency, GetAnswer, PutAnswer, PutRequest};
use enishi_services::record::{Key, Kind};
use enishi_services::{Command, Event};

use super::{APART, Attack, PATIENCE, Stage};
use crate::statistics::ratio;

/// How long a put may take with all its tries.
const PUT_PATIENCE: Duration = Duration::from_secs(100);
const LEASE_S: u32 = 86_400;
/// How many new values are put at least.
const PUTS_MIN: usize = 20;
/// How many read each surrounded value.
pub(super) const READERS: usize = 10;

/// The ways to read, with the names of their success and their cost.
pub(super) const GETS: [(&str, &str, Consistency); 3] = [
    ("gets_hasty", "messages_per_hasty_get", Consistency::Hasty),
    ("gets_plain", "messages_per_plain_get", Consistency::Any),
    ("gets_sure", "messages_per_sure_get", Consistency::Sure),
];

/// A value that was acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) key: Key,
    value: Bytes,
}

/// How a value is put.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As a lease, by the node in charge.
    Plain,
    /// As a lease, over disjoint paths.
    Sure,
    /// As an entry of a set, over disjoint paths.
    SureSet,
}

impl Way {
    const fn kind(self) -> Kind {
        match self {
            Self::Plain | Self::Sure => Kind::Lease,
            Self::SureSet => Kind::Set,
        }
    }
}

impl<Progress: FnMut(u32)> Attack<'_, Progress> {
    pub(super) fn measure_values(&mut self, values: &[Value], stage: &mut Stage) {
        for (name, cost, consistency) in GETS {
            let usual = self.usual_messages(values.len(), PATIENCE);
            let before = self.messages_of_values();
            stage.push((name, self.read(values, consistency, 1)));
            let spent = self.messages_of_values() - before;
            stage.push((cost, above(spent, usual, values.len())));
        }
        let count = (values.len() / 2).max(PUTS_MIN);
        for (name, cost, way) in [
            ("puts_plain", "messages_per_plain_put", Way::Plain),
            ("puts_sure", "messages_per_sure_put", Way::Sure),
        ] {
            let usual = self.usual_messages(count, PUT_PATIENCE);
            let before = self.messages_of_values();
            let stored = self.put(count, None, way);
            let spent = self.messages_of_values() - before;
            stage.push((cost, above(spent, usual, count)));
            let read = self.read(&stored, Consistency::Sure, 1);
            let share = ratio(stored.len() as u64, count as u64);
            stage.push((name, share.zip(read).map(|(stored, read)| stored * read)));
            let name = if way == Way::Sure {
                "puts_sure_belied"
            } else {
                "puts_plain_belied"
            };
            stage.push((name, read.map(|read| 1.0 - read)));
        }
    }

    /// Returns how many messages of these sorts are sent anyway, for owners put again what
    /// they have put, in the time that so many questions take; none once nodes are hostile,
    /// for a flood may be among them.
    fn usual_messages(&mut self, questions: usize, patience: Duration) -> Option<u64> {
        if !self.hostile.is_empty() {
            return None;
        }
        let before = self.messages_of_values();
        self.wait(APART * questions as u32 + patience);
        Some(self.messages_of_values() - before)
    }

    /// Returns how many messages were sent of the sorts that gets and puts are made of.
    fn messages_of_values(&self) -> u64 {
        let sorts = ["find", "found", "routed, service", "answer, service"];
        let own = |sort: &str| {
            let values = ["dht put", "dht store", "dht fetch", "dht keep"];
            sorts.contains(&sort) || values.iter().any(|value| sort.starts_with(value))
        };
        let traffic = self.world.traffic();
        let sent = traffic.iter().filter(|(sort, _)| own(sort));
        sent.map(|(_, tally)| tally.messages).sum()
    }

    /// Has values stored, under random keys unless given; returns those acknowledged.
    pub(super) fn put(
        &mut self,
        count: usize,
        writers: Option<&[Keypair]>,
        way: Way,
    ) -> Vec<Value> {
        let mut values = BTreeMap::new();
        let mut commands = Vec::new();
        for number in 0..count {
            let writer = match writers.and_then(|writers| writers.get(number)) {
                Some(writer) => Keypair::from_seed(&writer.seed()),
                None => Keypair::from_seed(&self.world.rng().octets()),
            };
            let owner = Keypair::from_seed(&self.world.rng().octets());
            let (id, value) = (number as u64, Bytes::from(format!("value {number}")));
            let key = Key::new(way.kind(), &writer.id());
            values.insert(
                id,
                Value {
                    key,
                    value: value.clone(),
                },
            );
            let request = Box::new(PutRequest {
                kind: way.kind(),
                writer,
                owner,
                lease_s: LEASE_S,
                value: Some(value),
            });
            let caller = Caller::Host(id);
            commands.push(Command::Dht(match way {
                Way::Plain => dht::Command::Put { caller, request },
                Way::Sure | Way::SureSet => dht::Command::PutSure { caller, request },
            }));
        }
        let events = self.ask(commands, PUT_PATIENCE).into_iter();
        let stored = events.filter_map(|event| match event {
            Event::Dht(dht::Event::PutDone {
                caller: Caller::Host(id),
                answer: PutAnswer::Stored { .. },
            }) => values.remove(&id),
            _ => None,
        });
        stored.collect()
    }

    /// Has values read, each by so many; returns the share of readings that gave what was
    /// stored.
    pub(super) fn read(
        &mut self,
        values: &[Value],
        consistency: Consistency,
        readers: usize,
    ) -> Option<f64> {
        let readings = values
            .iter()
            .flat_map(|value| std::iter::repeat_n(value, readers));
        let readings: Vec<&Value> = readings.collect();
        let right = self.read_each(&readings, consistency);
        ratio(right.len() as u64, readings.len() as u64)
    }

    /// Returns how many values nobody can read any more who goes about it surely.
    pub(super) fn unreadable(&mut self, values: &[Value]) -> u64 {
        let mut left: Vec<&Value> = values.iter().collect();
        for _ in 0..READERS {
            if left.is_empty() {
                break;
            }
            let right = self.read_each(&left, Consistency::Sure);
            let mut number = 0..;
            left.retain(|_| number.next().is_some_and(|number| !right.contains(&number)));
        }
        left.len() as u64
    }

    /// Has values read, each by a drawn node; returns the numbers of those readings that gave
    /// what was stored.
    fn read_each(&mut self, readings: &[&Value], consistency: Consistency) -> BTreeSet<usize> {
        let get = |(id, value): (u64, &&Value)| {
            let (caller, key) = (Caller::Host(id), value.key);
            Command::Dht(dht::Command::Get {
                caller,
                key,
                consistency,
            })
        };
        let events = self.ask((0..).zip(readings).map(get).collect(), PATIENCE);
        let right = events.iter().filter_map(|event| match event {
            Event::Dht(dht::Event::Got {
                caller: Caller::Host(id),
                answer: GetAnswer::Records(records),
            }) => {
                let value = records.first().map(|record| &record.content().value);
                let reading = readings.get(*id as usize).map(|reading| &reading.value);
                (value == reading).then_some(*id as usize)
            }
            _ => None,
        });
        right.collect()
    }
}

/// Returns what each of `count` cost above what is usual, if that is known.
fn above(spent: u64, usual: Option<u64>, count: usize) -> Option<f64> {
    ratio(spent.saturating_sub(usual?), count as u64)
}
