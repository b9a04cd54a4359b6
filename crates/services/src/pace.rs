//! How often each of many nodes may have this one do something: what one of them does costs no other
//! anything.

use std::collections::BTreeMap;

use enishi_overlay::{NodeId, Time};

use crate::bucket::{Bucket, Rate};

/// Of how many nodes it is known what is left to them; more than there are sessions.
const PEERS_MAX: usize = 4096;

/// What is left to whom.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: Rate,
    peers: BTreeMap<NodeId, Bucket>,
    refused: u64,
}

impl Pace {
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            rate,
            peers: BTreeMap::new(),
            refused: 0,
        }
    }

    /// Takes one from what is left to a node; false when nothing is.
    pub(crate) fn take(&mut self, from: NodeId, now: Time) -> bool {
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
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const RATE: Rate = Rate {
        per_s: 32,
        burst: 512,
    };

    fn node(number: usize) -> NodeId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_le_bytes());
        NodeId::from_bytes(id)
    }

    #[test]
    fn who_says_too_much_is_not_heard_and_costs_no_other_anything() {
        let mut pace = Pace::new(RATE);
        let burst = RATE.burst as usize;
        let heard = (0..10_000)
            .filter(|_| pace.take(node(0), Time::ZERO))
            .count();
        assert_eq!(heard, burst);
        assert_eq!(pace.refused(), (10_000 - burst) as u64);
        assert!(pace.take(node(1), Time::ZERO));
        let later = Time::ZERO + Duration::from_secs(1);
        let heard = (0..10_000).filter(|_| pace.take(node(0), later)).count();
        assert_eq!(heard, RATE.per_s as usize);
    }

    #[test]
    fn of_too_many_nodes_the_silent_are_forgotten() {
        let mut pace = Pace::new(RATE);
        let at = |number: usize| Time::ZERO + Duration::from_micros(number as u64);
        for number in 0..2 * PEERS_MAX {
            assert!(pace.take(node(number), at(number)));
        }
        assert_eq!(pace.peers.len(), PEERS_MAX);
        assert!(!pace.peers.contains_key(&node(PEERS_MAX - 1)));
        assert!(pace.peers.contains_key(&node(PEERS_MAX)));
    }
}
