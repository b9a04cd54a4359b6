//! What a channel costs when nobody does anything.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::statistics::{Figures, ratio};
use crate::world::{Index, Traffic, World};

/// Sorts of messages that nodes send for the overlay itself.
const UPKEEP: [&str; 13] = [
    "hello",
    "welcome",
    "leave",
    "ping",
    "pong",
    "view request",
    "view update",
    "introduce",
    "introduced",
    "summon",
    "routed, upkeep",
    "answer, upkeep",
    "routed, register",
];

/// What all nodes have sent in a time.
#[derive(Debug)]
pub(super) struct Cost {
    seconds: u64,
    pub(super) bytes: u64,
    by_sort: BTreeMap<&'static str, u64>,
    /// What the node has sent that sent most.
    busiest: u64,
}

impl Cost {
    /// Lets time go by, and measures.
    pub(super) fn of(world: &mut World, time: Duration) -> Self {
        let sent = |world: &World| -> BTreeMap<Index, u64> {
            let living = world.living().map(|(index, _)| index);
            living.map(|i| (i, world.load(i).bytes_sent)).collect()
        };
        let (before, sent_before) = (world.traffic(), sent(world));
        world.run_for(time);
        let each = sent(world).into_iter();
        let each = each.map(|(index, bytes)| bytes - sent_before.get(&index).unwrap_or(&0));
        let busiest = each.max().unwrap_or(0);
        let by_sort = world.traffic().into_iter().map(|(sort, tally)| {
            let earlier = before.get(sort).map_or(0, |tally| tally.bytes);
            (sort, tally.bytes - earlier)
        });
        let by_sort: BTreeMap<&'static str, u64> = by_sort.collect();
        Self {
            seconds: time.as_secs(),
            bytes: by_sort.values().sum(),
            by_sort,
            busiest,
        }
    }

    /// Tells what a channel costs that was not there `before`.
    pub(super) fn tell(&self, before: &Self, members: usize, figures: &mut Figures) {
        let whole = self.seconds * members as u64;
        let mut all = 0;
        let mut by_message = BTreeMap::new();
        let services = self.by_sort.iter().filter(|(sort, _)| is_of_services(sort));
        for (sort, bytes) in services {
            let more = bytes.saturating_sub(before.by_sort.get(sort).copied().unwrap_or(0));
            all += more;
            by_message.extend(ratio(more, whole).map(|share| (*sort, share)));
        }
        figures.share("bytes_per_second_per_member", all, whole);
        figures.each("bytes_by_message", by_message);
        figures.share("busiest_node_bytes_per_second", self.busiest, self.seconds);
    }
}

/// Returns how many octets were sent for services.
pub(super) fn of_services(traffic: &Traffic) -> u64 {
    let services = traffic.iter().filter(|(sort, _)| is_of_services(sort));
    services.map(|(_, tally)| tally.bytes).sum()
}

fn is_of_services(sort: &str) -> bool {
    !UPKEEP.contains(&sort)
}
