//! Where a node is whom this one is about to meet: a node that is reached by way of a server that
//! relays for it has to say there who may send to it, and where that one's packets come from.
//!
//! Its peers are asked, as before ports are searched ([`super::punch`]). What they say is not proven:
//! whoever is let in by it can send datagrams, which anybody can to a node that has no router.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::{NodeId, Time};

/// For how long answers are looked for.
const WAITING_TIME: Duration = Duration::from_secs(10);

/// The most nodes that are sought at a time.
const SOUGHT_MAX: usize = 32;

/// How many are asked where they see a node.
pub(super) const ASKED_MAX: usize = 6;

/// Who is sought.
#[derive(Debug, Default)]
pub(super) struct Sought {
    /// Whether the host wants to know.
    pub(super) is_wanted: bool,
    since: BTreeMap<NodeId, Time>,
}

impl Sought {
    /// Begins to look for a node; not if it is looked for already, or too many are.
    pub(super) fn begin(&mut self, now: Time, peer: NodeId) -> bool {
        self.since
            .retain(|_, since| now.since(*since) < WAITING_TIME);
        let begins =
            self.is_wanted && !self.since.contains_key(&peer) && self.since.len() < SOUGHT_MAX;
        begins && self.since.insert(peer, now).is_none()
    }

    /// Tells whether a node is looked for.
    pub(super) fn is_sought(&self, now: Time, peer: NodeId) -> bool {
        let since = self.since.get(&peer);
        since.is_some_and(|since| now.since(*since) < WAITING_TIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sought_twice_at_once_nor_too_many_nor_without_need() {
        let id = |number: u8| NodeId::from_bytes([number; 32]);
        let mut now = Time::from_secs(1);
        let mut sought = Sought::default();
        assert!(!sought.begin(now, id(1)));
        sought.is_wanted = true;
        assert!(sought.begin(now, id(1)) && !sought.begin(now, id(1)));
        assert!(sought.is_sought(now, id(1)) && !sought.is_sought(now, id(2)));
        for number in 2..=200 {
            sought.begin(now, id(number));
        }
        assert_eq!(sought.since.len(), SOUGHT_MAX);
        now = now + WAITING_TIME;
        assert!(!sought.is_sought(now, id(1)));
        assert!(sought.begin(now, id(1)));
        assert_eq!(sought.since.len(), 1);
    }
}
