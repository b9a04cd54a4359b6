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

/// The most addresses at which one node is believed to be seen: three of each version of IP.
const ADDRESSES_MAX: usize = 6;

/// Who is sought.
#[derive(Debug, Default)]
pub(super) struct Sought {
    /// Whether the host wants to know.
    is_wanted: bool,
    searches: BTreeMap<NodeId, Search>,
}

#[derive(Debug)]
struct Search {
    since: Time,
    /// Those who were asked and have not answered.
    asked: BTreeSet<NodeId>,
    /// Where others see the node.
    seen: BTreeSet<IpAddr>,
    /// Whether it may begin anew, though this is not over.
    is_old: bool,
}

impl Sought {
    /// Notes whether the host wants to know. Whom it has heard of before it may have told to a server that it
    /// does not use any more: they are looked for again, without the pause. Answers under way are for the
    /// new one.
    pub(super) fn set_wanted(&mut self, is_wanted: bool) {
        self.is_wanted = is_wanted;
        if !is_wanted {
            self.searches.clear();
        }
        for search in self.searches.values_mut() {
            search.seen.clear();
            search.is_old = true;
        }
    }

    /// Tells whether it is to be looked for a node: not if it is already, or too many are.
    pub(super) fn may_begin(&mut self, now: Time, peer: NodeId) -> bool {
        self.searches
            .retain(|_, search| now.since(search.since) < WAITING_TIME);
        let may = match self.searches.get(&peer) {
            Some(search) => search.is_old,
            None => self.searches.len() < SOUGHT_MAX,
        };
        self.is_wanted && may
    }

    /// Notes that some are asked where they see a node.
    pub(super) fn begin(&mut self, now: Time, peer: NodeId, asked: &[NodeId]) {
        let before = self.searches.remove(&peer);
        let (before, seen) = before.map_or_else(Default::default, |it| (it.asked, it.seen));
        let mut asked: BTreeSet<NodeId> = asked.iter().copied().collect();
        // Of those who were asked twice one answer is heard.
        let others: Vec<NodeId> = before.difference(&asked).copied().collect();
        asked.extend(others.into_iter().take(ASKED_MAX));
        let search = Search {
            since: now,
            asked,
            seen,
            is_old: false,
        };
        self.searches.insert(peer, search);
    }

    /// Takes an answer, of a node's addresses, and returns what is news: of each that was asked the first
    /// answer is heard, in it one address of each version of IP, and of each node that is sought few.
    pub(super) fn hear(
        &mut self,
        now: Time,
        from: NodeId,
        of: NodeId,
        at: impl IntoIterator<Item = IpAddr>,
    ) -> Vec<IpAddr> {
        let search = self.searches.get_mut(&of);
        let search = search.filter(|search| now.since(search.since) < WAITING_TIME);
        let Some(search) = search else {
            return Vec::new();
        };
        if !search.asked.remove(&from) {
            return Vec::new();
        }
        let seen = &mut search.seen;
        let mut versions = BTreeSet::new();
        let is_first = |at: &IpAddr| versions.insert(at.is_ipv4());
        let is_news = |at: &IpAddr| seen.len() < ADDRESSES_MAX && seen.insert(*at);
        at.into_iter().filter(is_first).filter(is_news).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn hears(sought: &mut Sought, now: Time, from: NodeId, of: NodeId, at: IpAddr) -> bool {
        sought.hear(now, from, of, [at]) == [at]
    }

    #[test]
    fn nobody_is_sought_twice_at_once_nor_too_many_nor_without_need() {
        let mut now = Time::from_secs(1);
        let mut sought = Sought::default();
        assert!(!sought.may_begin(now, id(1)));
        sought.set_wanted(true);
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
        assert_eq!(begin(now, 1), (false, 1));
        // There is another server.
        sought.set_wanted(true);
        assert!(sought.may_begin(now, id(1)));
        sought.begin(now, id(1), &[]);
        assert!(!sought.may_begin(now, id(1)));
        sought.set_wanted(false);
        assert!(!sought.may_begin(now, id(1)) && sought.searches.is_empty());
    }

    #[test]
    fn answers_under_way_are_heard_for_another_server_too() {
        let at = |number: u8| IpAddr::from([20, 0, 0, number]);
        let now = Time::from_secs(1);
        let mut sought = Sought::default();
        sought.set_wanted(true);
        sought.begin(now, id(1), &[id(10), id(11), id(12)]);
        assert!(hears(&mut sought, now, id(10), id(1), at(1)));
        sought.set_wanted(true);
        // The new server was not told.
        assert!(hears(&mut sought, now, id(11), id(1), at(1)));
        sought.begin(now, id(1), &[id(10), id(12)]);
        assert!(
            !hears(&mut sought, now, id(10), id(1), at(1)),
            "it is known"
        );
        assert!(hears(&mut sought, now, id(12), id(1), at(2)));
        assert!(
            !hears(&mut sought, now, id(12), id(1), at(3)),
            "it was heard"
        );
        for number in 20..100 {
            sought.set_wanted(true);
            let asked: Vec<NodeId> = (0..ASKED_MAX as u8).map(|more| id(number + more)).collect();
            sought.begin(now, id(1), &asked);
            assert!(sought.searches[&id(1)].asked.len() <= 2 * ASKED_MAX);
        }
    }

    #[test]
    fn of_those_who_are_asked_each_is_heard_once_and_of_few_addresses() {
        let at = |number: u8| IpAddr::from([20, 0, 0, number]);
        let now = Time::from_secs(1);
        let mut sought = Sought::default();
        let asked: Vec<NodeId> = (10..10 + ASKED_MAX as u8).map(id).collect();
        sought.begin(now, id(1), &asked);
        // Somebody who was not asked, and somebody of another node.
        assert!(!hears(&mut sought, now, id(9), id(1), at(1)));
        assert!(!hears(&mut sought, now, id(10), id(2), at(1)));
        assert!(hears(&mut sought, now, id(10), id(1), at(1)));
        assert!(!hears(&mut sought, now, id(10), id(1), at(2)));
        // What is known is no news.
        assert!(!hears(&mut sought, now, id(11), id(1), at(1)));
        let others = asked[2..].iter().zip(2..);
        let heard =
            others.filter(|(from, number)| hears(&mut sought, now, **from, id(1), at(*number)));
        assert_eq!(heard.count(), ASKED_MAX - 2);

        // Of each answer one address of each version.
        sought.begin(now, id(3), &asked);
        let six = |number: u16| IpAddr::from([0x2600, 0, 0, 0, 0, 0, 0, number]);
        let mut heard = 0;
        for (from, number) in asked.iter().zip(1..) {
            let said = [six(number), six(99), at(number as u8), at(99)];
            let news = sought.hear(now, *from, id(3), said);
            assert!(
                news.iter()
                    .all(|it| [six(number), at(number as u8)].contains(it))
            );
            heard += news.len();
        }
        assert_eq!(heard, ADDRESSES_MAX);

        sought.begin(now, id(2), &asked);
        assert!(!hears(
            &mut sought,
            now + WAITING_TIME,
            id(10),
            id(2),
            at(1)
        ));
    }
}
