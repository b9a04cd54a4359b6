//! What a protocol has to offer so that its lookups can be measured.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::overlay::Manner;
use enishi_overlay::{NodeId, Position};
use enishi_services::{Command, Event, Node, diag};

use crate::participant::Participant;
use crate::sorts;
use crate::world::{Index, Traffic};

/// A protocol whose lookups can be measured.
pub(super) trait Subject: Participant {
    /// Makes the command that looks for the node in charge of a position.
    fn lookup(id: u64, target: Position) -> Self::Command;

    /// Reads what a node told its host.
    fn seen(event: Self::Event) -> Option<Seen>;

    /// Returns the node's place.
    fn place(&self) -> Position;

    /// Returns who is in charge of a target, among nodes by their places: by default the
    /// nearest on the ring.
    fn in_charge(places: &BTreeMap<Position, Index>, target: Position) -> Option<Index> {
        let after = places.range(target..).next().or(places.iter().next());
        let before = places.range(..target).next_back();
        let before = before.or(places.iter().next_back());
        let candidates = after.into_iter().chain(before);
        let nearest = candidates.min_by_key(|(place, _)| target.rank(**place));
        nearest.map(|(_, index)| *index)
    }

    /// Returns how many of the octets sent were sent for lookups.
    fn lookup_bytes(traffic: &Traffic) -> u64;
}

/// What a node told its host.
#[derive(Debug)]
pub(super) enum Seen {
    /// It has found its place.
    Joined,
    /// A lookup came to its end.
    Answered {
        /// Its number.
        id: u64,
        /// What was found, unless it was given up.
        end: Option<End>,
    },
}

/// What a lookup found.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// The node said to be in charge.
    pub(super) node: NodeId,
    /// From the question until the answer.
    pub(super) time: Duration,
}

impl Subject for Node {
    fn lookup(id: u64, target: Position) -> Command {
        let manner = Manner::EXACT;
        Command::Diag(diag::Command::Locate { id, target, manner })
    }

    fn seen(event: Event) -> Option<Seen> {
        match event {
            Event::Joined => Some(Seen::Joined),
            Event::Diag(diag::Event::Located { id, end, .. }) => {
                let end = end.map(|(node, _, time)| End { node, time });
                Some(Seen::Answered { id, end })
            }
            Event::Diag(_) | Event::Dht(_) | Event::Vnet(_) => None,
        }
    }

    fn place(&self) -> Position {
        self.overlay().position()
    }

    /// Confirmations and answers do not tell what they belong to; they are divided as the
    /// questions are.
    fn lookup_bytes(traffic: &Traffic) -> u64 {
        let of = |sort: &str| traffic.get(sort).copied().unwrap_or_default();
        let (lookups, upkeep) = (of(sorts::LOOKUP), of(sorts::UPKEEP));
        let shared: u64 = sorts::SHARED.iter().map(|sort| of(sort).bytes).sum();
        let questions = (lookups.messages + upkeep.messages).max(1);
        lookups.bytes + shared * lookups.messages / questions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_in_charge_is_the_nearest_round_the_ring() {
        let at = Position::from_number;
        let places = BTreeMap::from([(at(100), 1), (at(200), 2), (at(u64::MAX - 10), 3)]);
        for (target, index) in [
            (149, 1),
            (150, 2),
            (300, 2),
            (20, 3),
            (60, 1),
            (u64::MAX, 3),
        ] {
            assert_eq!(
                Node::in_charge(&places, at(target)),
                Some(index),
                "{target}"
            );
        }
        assert_eq!(Node::in_charge(&BTreeMap::new(), at(1)), None);
    }
}
