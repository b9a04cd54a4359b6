//! How much one node may make this one do.
//!
//! A message that names a channel has this node try the name against all of its channels and
//! their epochs; one that names the right channel has it check a proof, open a seal, verify
//! signatures, agree on keys, and sometimes ask the DHT. That takes up to some hundred
//! microseconds, while its sender may have made it once and send it, or something like it, time
//! and again. So whatever a node says is paid from its own budget before anything is worked out.
//! What one node says costs no other node anything.

use std::collections::BTreeMap;

use enishi_overlay::{NodeId, Time};

use super::wire::HOSTED_MAX;
use crate::bucket::{Bucket, Rate};

/// How many messages one node may send: the seven that an agreement and an announcement with
/// their repetitions may take in each of 64 channels that two nodes share, at once; and in the long
/// run signs of life of routers every two seconds in half of them. At some 300 us each that is a
/// hundredth of a processor for each node that does no better.
pub(super) const MESSAGES: Rate = Rate {
    per_s: 32,
    burst: 512,
};
/// How many questions to the DHT a node's messages may cause: whether it has its address, twice in
/// each of 64 channels at once.
pub(super) const LOOKUPS: Rate = Rate {
    per_s: 2,
    burst: 128,
};
/// How many questions about addresses that a node holds for others: all in four channels, at once.
/// Those beyond are asked later, and attaching does not wait for them.
pub(super) const HOSTED_LOOKUPS: Rate = Rate {
    per_s: 2,
    burst: 4 * HOSTED_MAX as u32,
};
/// Of how many nodes it is known what is left to them; more than there are sessions.
const PEERS_MAX: usize = 4096;

/// What is left to whom.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Rate,
    peers: BTreeMap<NodeId, Bucket>,
    refused: u64,
}

impl Pace {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            rate,
            peers: BTreeMap::new(),
            refused: 0,
        }
    }

    /// Takes one from what is left to a node; false when nothing is.
    pub(super) fn take(&mut self, from: NodeId, now: Time) -> bool {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&from) {
            // Who was silent longest has most of its budget, or all, again.
            let silent = self.peers.iter().min_by_key(|(_, left)| left.filled_at());
            if let Some(silent) = silent.map(|(node, _)| *node) {
                self.peers.remove(&silent);
            }
        }
        let left = self.peers.entry(from);
        let left = left.or_insert_with(|| Bucket::full(self.rate, now));
        let may = left.take(self.rate, now);
        self.refused += u64::from(!may);
        may
    }

    /// Returns how often nothing was left.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn node(number: usize) -> NodeId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_le_bytes());
        NodeId::from_bytes(id)
    }

    #[test]
    fn who_says_too_much_is_not_heard_and_costs_no_other_anything() {
        let mut pace = Pace::new(MESSAGES);
        let burst = MESSAGES.burst as usize;
        let heard = (0..10_000)
            .filter(|_| pace.take(node(0), Time::ZERO))
            .count();
        assert_eq!(heard, burst);
        assert_eq!(pace.refused(), (10_000 - burst) as u64);
        assert!(pace.take(node(1), Time::ZERO));
        let later = Time::ZERO + Duration::from_secs(1);
        let heard = (0..10_000).filter(|_| pace.take(node(0), later)).count();
        assert_eq!(heard, MESSAGES.per_s as usize);
    }

    #[test]
    fn of_too_many_nodes_the_silent_are_forgotten() {
        let mut pace = Pace::new(LOOKUPS);
        let at = |number: usize| Time::ZERO + Duration::from_micros(number as u64);
        for number in 0..2 * PEERS_MAX {
            assert!(pace.take(node(number), at(number)));
        }
        assert_eq!(pace.peers.len(), PEERS_MAX);
        assert!(!pace.peers.contains_key(&node(PEERS_MAX - 1)));
        assert!(pace.peers.contains_key(&node(PEERS_MAX)));
    }
}
