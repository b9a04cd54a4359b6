//! Where a node is whom this one is about to meet: a node that is reached by way of a server that
//! relays for it has to say there who may send to it, and where that one's packets come from.
//!
//! Its peers are asked, as before ports are searched ([`super::punch`]). What they say is not proven:
//! whoever is let in by it can send datagrams, which anybody can to a node that has no router.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use enishi_overlay::{NodeId, Time};

/// For how long answers are looked for.
const WAITING_TIME: Duration = Duration::from_secs(10);

/// The most nodes that are sought at a time.
const SOUGHT_MAX: usize = 32;

/// How many are asked where they see a node.
pub(super) const ASKED_MAX: usize = 6;

/// The most addresses at which one node is believed to be seen.
const ADDRESSES_MAX: usize = 3;

/// Who is sought.
#[derive(Debug, Default)]
pub(super) struct Sought {
    /// Whether the host wants to know.
    pub(super) is_wanted: bool,
    searches: BTreeMap<NodeId, Search>,
}

#[derive(Debug)]
struct Search {
    since: Time,
    /// Those who were asked and have not answered.
    asked: BTreeSet<NodeId>,
    /// Where others see the node.
    seen: BTreeSet<IpAddr>,
}

impl Sought {
    /// Tells whether it is to be looked for a node: not if it is already, or too many are.
    pub(super) fn may_begin(&mut self, now: Time, peer: NodeId) -> bool {
        self.searches
            .retain(|_, search| now.since(search.since) < WAITING_TIME);
        self.is_wanted && !self.searches.contains_key(&peer) && self.searches.len() < SOUGHT_MAX
    }

    /// Notes that some are asked where they see a node.
    pub(super) fn begin(&mut self, now: Time, peer: NodeId, asked: &[NodeId]) {
        let search = Search {
            since: now,
            asked: asked.iter().copied().collect(),
            seen: BTreeSet::new(),
        };
        self.searches.insert(peer, search);
    }

    /// Takes an answer. Tells whether it is news: of each that was asked the first answer is heard,
    /// and of each node that is sought few addresses.
    pub(super) fn hear(&mut self, now: Time, from: NodeId, of: NodeId, at: IpAddr) -> bool {
        let search = self.searches.get_mut(&of);
        let search = search.filter(|search| now.since(search.since) < WAITING_TIME);
        search.is_some_and(|search| {
            search.asked.remove(&from)
                && search.seen.len() < ADDRESSES_MAX
                && search.seen.insert(at)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    #[test]
    fn nobody_is_sought_twice_at_once_nor_too_many_nor_without_need() {
        let mut now = Time::from_secs(1);
        let mut sought = Sought::default();
        assert!(!sought.may_begin(now, id(1)));
        sought.is_wanted = true;
        let mut begin = |now: Time, number: u8| {
            let may = sought.may_begin(now, id(number));
            if may {
                sought.begin(now, id(number), &[]);
            }
            (may, sought.searches.len())
        };
        assert_eq!(begin(now, 1), (true, 1));
        assert_eq!(begin(now, 1), (false, 1));
        for number in 2..=200 {
            begin(now, number);
        }
        assert_eq!(begin(now, 201), (false, SOUGHT_MAX));
        now = now + WAITING_TIME;
        assert_eq!(begin(now, 1), (true, 1));
    }

    #[test]
    fn of_those_who_are_asked_each_is_heard_once_and_of_few_addresses() {
        let at = |number: u8| IpAddr::from([20, 0, 0, number]);
        let now = Time::from_secs(1);
        let mut sought = Sought::default();
        let asked: Vec<NodeId> = (10..10 + ASKED_MAX as u8).map(id).collect();
        sought.begin(now, id(1), &asked);
        // Somebody who was not asked, and somebody of another node.
        assert!(!sought.hear(now, id(9), id(1), at(1)));
        assert!(!sought.hear(now, id(10), id(2), at(1)));
        assert!(sought.hear(now, id(10), id(1), at(1)));
        assert!(!sought.hear(now, id(10), id(1), at(2)));
        // What is known is no news.
        assert!(!sought.hear(now, id(11), id(1), at(1)));
        let others = asked[2..].iter().zip(2..);
        let heard = others.filter(|(from, number)| sought.hear(now, **from, id(1), at(*number)));
        assert_eq!(heard.count(), ADDRESSES_MAX - 1);

        sought.begin(now, id(2), &asked);
        assert!(!sought.hear(now + WAITING_TIME, id(10), id(2), at(1)));
    }
}
