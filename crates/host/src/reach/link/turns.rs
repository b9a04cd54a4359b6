//! To whom a link may be opened now.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use enishi_overlay::NodeId;

/// How many links are opened at once, and how many of these to peers with whom there was none before:
/// those behind translations answer nobody, and each of them takes its time.
const OPENING_MAX: usize = 32;
const STRANGERS_MAX: usize = 16;

/// The wait after a first link that could not be opened; it doubles with each further one. It is
/// forgotten when this host's addresses or its proxies change.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(120);

/// Of how many peers something is kept; with more, the oldest are forgotten.
const PEERS_MAX: usize = 1_024;

/// The peers to which links are opened, were opened, and could not be.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Whether it is one with whom there was none before.
    opening: HashMap<NodeId, bool>,
    /// When the last one was opened.
    opened: HashMap<NodeId, Instant>,
    /// Until when none is tried, and how long that was.
    failed: HashMap<NodeId, (Instant, Duration)>,
}

impl Turns {
    /// Tells whether a link to a peer may be opened now, and takes note that it is.
    pub(super) fn begin(&mut self, now: Instant, peer: NodeId) -> bool {
        let is_stranger = !self.opened.contains_key(&peer);
        let strangers = self.opening.values().filter(|stranger| **stranger);
        let is_full = self.opening.len() >= OPENING_MAX
            || (is_stranger && strangers.count() >= STRANGERS_MAX);
        let waits = self.failed.get(&peer).is_some_and(|(at, _)| now < *at);
        let begins = !is_full && !waits && !self.opening.contains_key(&peer);
        if begins {
            self.opening.insert(peer, is_stranger);
        }
        begins
    }

    /// It is not being opened any more.
    pub(super) fn end(&mut self, peer: NodeId) {
        self.opening.remove(&peer);
    }

    /// It was opened.
    pub(super) fn opened(&mut self, now: Instant, peer: NodeId) {
        self.failed.remove(&peer);
        make_room(&mut self.opened, peer, |at| *at);
        self.opened.insert(peer, now);
    }

    /// It could not be opened.
    pub(super) fn failed(&mut self, now: Instant, peer: NodeId) {
        make_room(&mut self.failed, peer, |(until, _)| *until);
        let before = self.failed.get(&peer);
        let wait = before.map_or(BACKOFF_MIN, |(_, wait)| 2 * *wait);
        let wait = wait.min(BACKOFF_MAX);
        self.failed.insert(peer, (now + wait, wait));
    }

    /// This host has other addresses, or connections take other proxies: what could not be opened may be now.
    pub(super) fn moved(&mut self) {
        self.failed.clear();
    }
}

/// Forgets the oldest if there is no room for one more.
fn make_room<T>(kept: &mut HashMap<NodeId, T>, peer: NodeId, at: impl Fn(&T) -> Instant) {
    if kept.len() >= PEERS_MAX && !kept.contains_key(&peer) {
        let oldest = kept.iter().min_by_key(|(_, one)| at(one));
        let oldest = oldest.map(|(peer, _)| *peer);
        oldest.map(|oldest| kept.remove(&oldest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> NodeId {
        let mut octets = [0; 32];
        octets[..8].copy_from_slice(&n.to_le_bytes());
        NodeId::from_bytes(octets)
    }

    #[test]
    fn who_had_a_link_does_not_wait_behind_those_who_answer_nobody() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        turns.opened(now, id(0));
        let begun = (1..100).filter(|n| turns.begin(now, id(*n))).count();
        assert_eq!(begun, STRANGERS_MAX);
        assert!(turns.begin(now, id(0)) && !turns.begin(now, id(0)));
        turns.end(id(1));
        assert!(turns.begin(now, id(99)));
    }

    #[test]
    fn what_could_not_be_opened_is_tried_ever_later_until_this_host_moves() {
        let (mut turns, mut now) = (Turns::default(), Instant::now());
        let mut wait = Duration::ZERO;
        for round in 0..20 {
            assert!(turns.begin(now, id(1)));
            turns.failed(now, id(1));
            turns.end(id(1));
            wait = (BACKOFF_MIN * 2_u32.pow(round.min(10))).min(BACKOFF_MAX);
            assert!(!turns.begin(now + wait - Duration::from_millis(1), id(1)));
            now += wait;
        }
        assert_eq!(wait, BACKOFF_MAX);
        turns.failed(now, id(1));
        turns.moved();
        assert!(turns.begin(now, id(1)));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (mut turns, mut now) = (Turns::default(), Instant::now());
        for n in 0..2 * PEERS_MAX {
            now += Duration::from_millis(1);
            turns.opened(now, id(n));
            turns.failed(now, id(n));
        }
        assert_eq!(
            (turns.opened.len(), turns.failed.len()),
            (PEERS_MAX, PEERS_MAX)
        );
        let last = id(2 * PEERS_MAX - 1);
        assert!(turns.opened.contains_key(&last) && turns.failed.contains_key(&last));
    }
}
