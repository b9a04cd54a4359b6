//! What a peer says as soon as the session goes straight there, while here it does not yet.
//!
//! Each side of a session finds out by itself that it goes straight, and says at once what it sees of the
//! other. Whoever finds it out last would miss that, and it is not said again while nothing changes.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::{NodeId, Time};

use super::wire::ReachMessage;

/// How long it is kept: what is older may have been said of another path.
const KEPT: Duration = Duration::from_secs(10);
/// Of how many peers.
const PEERS_MAX: usize = 256;
/// How much of each: where it sees this node, and at which port it answers.
const MESSAGES_MAX: usize = 2;

/// What was said early.
#[derive(Debug, Default)]
pub(super) struct Early {
    said: BTreeMap<NodeId, Vec<(Time, ReachMessage)>>,
}

impl Early {
    /// Keeps what a peer says; the last of each kind. Without room it is missed.
    pub(super) fn keep(&mut self, now: Time, from: NodeId, message: ReachMessage) {
        if self.said.len() >= PEERS_MAX && !self.said.contains_key(&from) {
            let is_young = |said: &mut Vec<(Time, _)>| said.iter().any(|(at, _)| *at + KEPT > now);
            self.said.retain(|_, said| is_young(said));
            if self.said.len() >= PEERS_MAX {
                return;
            }
        }
        let kind = std::mem::discriminant(&message);
        let said = self.said.entry(from).or_default();
        said.retain(|(_, other)| std::mem::discriminant(other) != kind);
        said.push((now, message));
        said.truncate(MESSAGES_MAX);
    }

    /// The session with a peer goes straight here, too: returns what it said lately.
    pub(super) fn take(
        &mut self,
        now: Time,
        from: NodeId,
    ) -> impl Iterator<Item = ReachMessage> + use<> {
        let said = self.said.remove(&from).unwrap_or_default().into_iter();
        let said = said.filter(move |(at, _)| *at + KEPT > now);
        said.map(|(_, message)| message)
    }

    /// A session has ended.
    pub(super) fn gone(&mut self, peer: NodeId) {
        self.said.remove(&peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> NodeId {
        let mut octets = [0; 32];
        octets[..8].copy_from_slice(&number.to_le_bytes());
        NodeId::from_bytes(octets)
    }

    #[test]
    fn the_last_of_each_kind_is_kept_for_a_while() {
        let (mut early, at) = (Early::default(), Time::from_secs);
        let seen = |port: u16| ReachMessage::Seen(([198, 51, 100, 7], port).into());
        early.keep(at(1), id(1), seen(1));
        early.keep(at(2), id(1), ReachMessage::Stun(7001));
        early.keep(at(3), id(1), seen(2));
        let mut old = Early::default();
        old.keep(at(1), id(1), seen(1));
        let said: Vec<_> = early.take(at(12), id(1)).collect();
        assert_eq!(said, [seen(2)], "the other one is too old");
        assert_eq!(early.take(at(12), id(1)).count(), 0);
        early.keep(at(1), id(1), seen(1));
        early.gone(id(1));
        assert_eq!(early.take(at(1), id(1)).count(), 0);
    }

    #[test]
    fn it_is_bounded_and_the_old_gives_way() {
        let (mut early, at) = (Early::default(), Time::from_secs);
        for number in 0..2 * PEERS_MAX {
            early.keep(at(1), id(number), ReachMessage::Stun(7001));
        }
        assert_eq!(early.said.len(), PEERS_MAX);
        let last = id(2 * PEERS_MAX);
        early.keep(at(1) + KEPT, last, ReachMessage::Stun(7001));
        assert_eq!(early.said.len(), 1);
        assert_eq!(early.take(at(1) + KEPT, last).count(), 1);
    }
}
