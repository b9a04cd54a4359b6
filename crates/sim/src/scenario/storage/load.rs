//! How evenly records and readings are spread over the nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::Position;
use enishi_services::dht::REPLICAS;

use super::super::crowd::Crowd;
use super::super::values::{self, Stored};
use super::Options;
use crate::draws::Zipf;
use crate::oracle::Census;
use crate::world::{Index, World};

/// Zipf's exponent of the popularity, in thousandths: as found for the web and for names
/// (ANCHORS: caching at 0.91).
const POPULARITY_PER_MILLE: u32 = 910;
/// Between two readings by popularity: far more messages than upkeep takes meanwhile.
const READ_APART: Duration = Duration::from_millis(2);

/// Returns how many records each node holds.
pub(super) fn records(world: &World, crowd: &Crowd) -> Vec<u64> {
    let nodes = crowd.members().filter_map(|index| world.node(index));
    nodes.map(|node| node.dht().store().len() as u64).collect()
}

/// Returns how many records each node on the ring would hold of so many random names.
pub(super) fn records_by_random_names(world: &mut World, names: usize) -> Vec<u64> {
    let census = Census::take(world);
    let living = world
        .living()
        .filter(|(_, node)| !node.overlay().is_client());
    let mut loads: BTreeMap<Index, u64> = living.map(|(index, _)| (index, 0)).collect();
    for _ in 0..names {
        let name = Position::from_number(world.rng().number());
        for holder in census.nearest(name, REPLICAS) {
            *loads.entry(holder).or_default() += 1;
        }
    }
    loads.into_values().collect()
}

/// What reading cost each node: the messages that it sent beyond what it sends in as much
/// time anyway.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// How many popular readings went wrong.
    pub(super) missed: u64,
    /// When popular values are read more often.
    pub(super) popular: Vec<u64>,
    /// When all are read equally often.
    pub(super) even: Vec<u64>,
}

impl Served {
    pub(super) fn measure(
        world: &mut World,
        crowd: &Crowd,
        options: &Options,
        left: &[&Stored],
    ) -> Self {
        let mut served = Self::default();
        if left.is_empty() {
            return served;
        }
        let zipf = Zipf::new(left.len(), POPULARITY_PER_MILLE);
        let count = options.routes as usize;
        let popular: Vec<&Stored> = (0..count).map(|_| left[zipf.draw(world.rng())]).collect();
        let number = left.len() as u64;
        let even = (0..count).map(|_| left[world.rng().below(number) as usize]);
        let even: Vec<&Stored> = even.collect();
        let read = |world: &mut World, readings: &[&Stored]| {
            let reader = |world: &mut World| crowd.any(world).unwrap_or_default();
            values::unread_apart(world, readings, READ_APART, reader) as u64
        };
        let (_, usual) = sent_during(world, crowd, |world| {
            world.run_for(values::reading_time(count, READ_APART));
        });
        let beyond = |sent: Vec<u64>| -> Vec<u64> {
            let beyond = sent.into_iter().zip(&usual);
            beyond
                .map(|(sent, usual)| sent.saturating_sub(*usual))
                .collect()
        };
        let (missed, sent) = sent_during(world, crowd, |world| read(world, &popular));
        served.missed = missed;
        served.popular = beyond(sent);
        let (_, sent) = sent_during(world, crowd, |world| read(world, &even));
        served.even = beyond(sent);
        served
    }
}

/// Does something; returns how many messages each node sent meanwhile beside what came of it.
fn sent_during<T>(
    world: &mut World,
    crowd: &Crowd,
    act: impl FnOnce(&mut World) -> T,
) -> (T, Vec<u64>) {
    let sent = |world: &World| -> Vec<u64> {
        let loads = crowd.members().map(|index| world.load(index));
        loads.map(|load| load.messages_sent).collect()
    };
    let before = sent(world);
    let done = act(world);
    let after = sent(world).into_iter().zip(before);
    (done, after.map(|(after, before)| after - before).collect())
}
