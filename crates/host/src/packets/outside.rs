//! Where others see this node's packets come from: the outer addresses of the packets' own port.
//!
//! Each answer to a probe tells it, and those who are asked by STUN. What most say is told to others as an address to try; behind a
//! translation that gives every destination another port nobody says the same, and nothing is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use enishi_overlay::NodeId;

/// The most members of whom it is remembered what they said; the oldest gives way.
const MEMBERS_MAX: usize = 64;

/// How often others may be told: it takes new keys with each.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// The most addresses that are told.
const TOLD_MAX: usize = 2;

/// What members said.
#[derive(Debug, Default)]
pub(super) struct Outside {
    /// The latest last, one of each member and family: a host with IPv4 and IPv6 comes out twice.
    said: VecDeque<(NodeId, SocketAddr)>,
    told: Vec<SocketAddr>,
    told_at: Option<Instant>,
}

impl Outside {
    /// A member says where it sees this node. Tells whether [`Self::addresses`] is another now.
    pub(super) fn seen(&mut self, now: Instant, by: NodeId, at: SocketAddr) -> bool {
        self.said
            .retain(|(member, known)| *member != by || known.is_ipv4() != at.is_ipv4());
        if self.said.len() >= MEMBERS_MAX {
            self.said.pop_front();
        }
        self.said.push_back((by, at));
        let lately = |at: Instant| now.duration_since(at) < TELL_INTERVAL;
        let most_said = self.most_said();
        let tells = self.told != most_said && !self.told_at.is_some_and(lately);
        if tells {
            (self.told, self.told_at) = (most_said, Some(now));
        }
        tells
    }

    /// This node moved: what was said is of yesterday.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns the addresses that are told.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.told
    }

    /// Returns what most say, of those that more than one said, or all if nobody else has said
    /// anything; in the order of addresses, lest a change of order looks like one.
    fn most_said(&self) -> Vec<SocketAddr> {
        let mut counts: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        for (_, address) in &self.said {
            *counts.entry(*address).or_default() += 1;
        }
        let members: BTreeSet<NodeId> = self.said.iter().map(|(by, _)| *by).collect();
        let is_enough = |(_, count): &(SocketAddr, usize)| *count >= 2 || members.len() == 1;
        let mut most: Vec<_> = counts.into_iter().filter(is_enough).collect();
        most.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let mut addresses: Vec<SocketAddr> = most.into_iter().map(|(at, _)| at).collect();
        addresses.truncate(TOLD_MAX);
        addresses.sort_unstable();
        addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn what_several_say_is_told_and_ports_that_differ_are_not() {
        let mut now = Instant::now();
        let mut outside = Outside::default();
        assert!(outside.seen(now, id(1), at(7)));
        assert_eq!(outside.addresses(), [at(7)]);
        now += TELL_INTERVAL;
        assert!(!outside.seen(now, id(2), at(7)) && !outside.seen(now, id(3), at(8)));
        assert_eq!(outside.addresses(), [at(7)]);
        assert!(outside.seen(now, id(1), at(9)));
        assert!(outside.addresses().is_empty());
        now += TELL_INTERVAL;
        assert!(outside.seen(now, id(3), at(9)));
        // Who changes its mind at once is not followed.
        outside.seen(now, id(1), at(7));
        assert!(!outside.seen(now, id(3), at(7)));
        assert_eq!(outside.addresses(), [at(9)]);
        now += TELL_INTERVAL;
        for number in 10..=255 {
            outside.seen(now, id(number), at(number.into()));
        }
        assert_eq!(outside.said.len(), MEMBERS_MAX);
        now += TELL_INTERVAL;
        assert!(outside.seen(now, id(1), at(6)));
        assert!(outside.addresses().is_empty());
        outside.clear();
        assert!(outside.seen(now, id(1), at(7)));
    }

    #[test]
    fn a_host_with_both_families_is_told_by_both() {
        let mut now = Instant::now();
        let mut outside = Outside::default();
        let six = |port: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], port));
        assert!(outside.seen(now, id(1), at(7)));
        now += TELL_INTERVAL;
        assert!(outside.seen(now, id(1), six(8)));
        assert_eq!(outside.addresses(), [at(7), six(8)]);
        now += TELL_INTERVAL;
        // Of one family nobody says the same.
        assert!(outside.seen(now, id(2), six(8)));
        assert!(!outside.seen(now, id(2), at(9)));
        assert_eq!(outside.addresses(), [six(8)]);
        // Who is the only one to speak of a family is not believed where others speak.
        now += TELL_INTERVAL;
        let mut outside = Outside::default();
        outside.seen(now, id(1), at(7));
        outside.seen(now, id(2), at(7));
        outside.seen(now, id(3), six(6));
        now += TELL_INTERVAL;
        outside.seen(now, id(3), six(6));
        assert_eq!(outside.addresses(), [at(7)]);
    }
}
