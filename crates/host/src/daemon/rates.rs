//! How many messages a peer may send: a token bucket for each.

use std::collections::HashMap;
use std::time::Duration;

use enishi_overlay::{NodeId, Time};

/// How many messages a peer may send at once.
const BURST: u64 = 4_000;

/// How many messages a second a peer may send in the long run.
const PER_SECOND: u64 = 1_000;

/// Of how many peers account is kept; more than there can be sessions.
const PEERS_MAX: usize = 4_096;

/// The buckets of all peers. A peer without one has a full one.
#[derive(Debug, Default)]
pub(super) struct Rates {
    buckets: HashMap<NodeId, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: u64,
    filled: Time,
}

impl Rates {
    /// Tells whether the peer may send one more message now, and counts it.
    pub(super) fn take(&mut self, peer: NodeId, now: Time) -> bool {
        if self.buckets.len() >= PEERS_MAX {
            let full = Duration::from_secs(BURST / PER_SECOND);
            self.buckets
                .retain(|_, bucket| now.since(bucket.filled) < full);
        }
        let bucket = self.buckets.entry(peer).or_insert(Bucket {
            tokens: BURST,
            filled: now,
        });
        let micros = u64::try_from(now.since(bucket.filled).as_micros()).unwrap_or(u64::MAX);
        let gained = micros.saturating_mul(PER_SECOND) / 1_000_000;
        if gained > 0 {
            bucket.tokens = bucket.tokens.saturating_add(gained).min(BURST);
            bucket.filled = now;
        }
        let allowed = bucket.tokens > 0;
        bucket.tokens = bucket.tokens.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_the_rate_and_others_do_not_suffer() {
        let [flooder, other] = [1, 2].map(|octet| NodeId::from_bytes([octet; 32]));
        let mut rates = Rates::default();
        let allowed = |rates: &mut Rates, now| {
            (0..10_000).filter(|_| rates.take(flooder, now)).count() as u64
        };
        assert_eq!(allowed(&mut rates, Time::ZERO), BURST);
        assert!(rates.take(other, Time::ZERO));
        assert_eq!(allowed(&mut rates, Time::from_secs(1)), PER_SECOND);
        assert_eq!(allowed(&mut rates, Time::from_secs(100)), BURST);
    }
}
