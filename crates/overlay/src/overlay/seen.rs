//! Which messages came by lately, and how often.

use std::collections::{BTreeMap, VecDeque};

use crate::id::NodeId;
use crate::message::Routed;

/// A message that comes a second time with so many hops more came round, and is no second
/// copy by another way, which is as long or a hop longer.
const ROUND_HOPS: u8 = 2;
/// At how many stages a node works a message off. Each is worth a try while few nodes are silent; where
/// nobody reaches whom the message is for, all of its neighbours would send it to each other.
const STAGES_MAX: usize = 8;
/// How many messages are remembered to recognise second copies.
const SEEN_MAX: usize = 2048;

/// Messages that came by lately.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// With how many hops each came last.
    hops: BTreeMap<Passage, u8>,
    order: VecDeque<Passage>,
}

/// Whose message, which one, and at which stage.
type Passage = (NodeId, u64, u8);

/// What a message is to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// It has not been here.
    First,
    /// It was here, and is worked off again: it came round, or has come further in what it knows.
    Again,
    /// A second copy, which is dropped.
    Copy,
}

impl Seen {
    /// Notes a message. Two nodes that choose by time may each think the other's way the faster one;
    /// but each step is for the sake of a nearer node than the one before, so it does not go round
    /// for long.
    pub(super) fn note(&mut self, routed: &Routed) -> Sight {
        let passage = passage(routed);
        let hops = routed.hops;
        if let Some(before) = self.hops.get_mut(&passage) {
            let came_round = hops >= before.saturating_add(ROUND_HOPS);
            *before = hops.max(*before);
            return match came_round {
                true => Sight::Again,
                false => Sight::Copy,
            };
        }
        let (origin, request, _) = passage;
        let stages = (self.hops).range((origin, request, 0)..=(origin, request, u8::MAX));
        let stages = stages.take(STAGES_MAX).count();
        if stages == STAGES_MAX {
            return Sight::Copy;
        }
        self.hops.insert(passage, hops);
        self.order.push_back(passage);
        if self.order.len() > SEEN_MAX {
            let oldest = self.order.pop_front();
            oldest.map(|oldest| self.hops.remove(&oldest));
        }
        match stages {
            0 => Sight::First,
            _ => Sight::Again,
        }
    }

    /// Forgets a message, which may come again by another way.
    pub(super) fn forget(&mut self, routed: &Routed) {
        self.hops.remove(&passage(routed));
    }
}

/// Returns by what a message is recognised: it may pass a node once by the geometry and once
/// more by the ring, and once more for each witness of a silence.
fn passage(routed: &Routed) -> Passage {
    let told = routed.silences.weight().min(127) as u8;
    let stage = told | u8::from(routed.by_ring) << 7;
    (routed.origin.id(), routed.request, stage)
}
