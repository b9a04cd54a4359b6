//! What a protocol has to offer so that its lookups can be measured.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::overlay::Manner;
use enishi_overlay::{NodeId, Position};
use enishi_services::{Command, Event, Node, diag};

use crate::participant::Participant;
use crate::rival::{Kademlia, kademlia};
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

    /// Returns how many nodes it keeps in touch with, and how many it knows with these.
    fn table_len(&self) -> (usize, usize);

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
    /// How many hops led there.
    pub(super) hops: u8,
    /// From the question until the answer.
    pub(super) time: Duration,
}

impl Subject for Node {
    fn lookup(id: u64, target: Position) -> Command {
        let manner = Manner::SOON;
        Command::Diag(diag::Command::Locate { id, target, manner })
    }

    fn seen(event: Event) -> Option<Seen> {
        match event {
            Event::Joined => Some(Seen::Joined),
            Event::Diag(diag::Event::Located { id, end, .. }) => {
                let end = end.map(|(node, hops, time)| End { node, hops, time });
                Some(Seen::Answered { id, end })
            }
            Event::Diag(_)
            | Event::Dht(_)
            | Event::Vnet(_)
            | Event::Multicast(_)
            | Event::Reach(_) => None,
        }
    }

    fn place(&self) -> Position {
        self.overlay().position()
    }

    fn table_len(&self) -> (usize, usize) {
        let peers = self.overlay().peers().count();
        (peers, self.overlay().places_known())
    }

    /// Confirmations do not tell what they belong to; they are divided as the questions are.
    fn lookup_bytes(traffic: &Traffic) -> u64 {
        let of = |sort: &str| traffic.get(sort).copied().unwrap_or_default();
        let (lookups, upkeep) = (of(sorts::LOOKUP), of(sorts::UPKEEP));
        let shared: u64 = sorts::SHARED.iter().map(|sort| of(sort).bytes).sum();
        let questions = (lookups.messages + upkeep.messages).max(1);
        lookups.bytes + of(sorts::LOOKUP_ANSWER).bytes + shared * lookups.messages / questions
    }
}

/// A lookup of Kademlia ends for the host when the node in charge first answers: a value that
/// it has would be there. That nobody closer is left to be asked is certain a little later.
impl Subject for Kademlia {
    fn lookup(id: u64, target: Position) -> kademlia::Command {
        let width = 1;
        kademlia::Command::Lookup { id, target, width }
    }

    fn seen(event: kademlia::Event) -> Option<Seen> {
        Some(match event {
            kademlia::Event::Joined => Seen::Joined,
            kademlia::Event::Done(outcome) => {
                let end = outcome.closest.first().map(|found| End {
                    node: found.contact.id(),
                    hops: found.hops,
                    time: found.answered_at.since(outcome.started_at),
                });
                let id = outcome.id;
                Seen::Answered { id, end }
            }
        })
    }

    fn place(&self) -> Position {
        self.position()
    }

    /// The closest by XOR: of each half of the positions, beginning with all of them, the one
    /// with the target if anybody is in it.
    fn in_charge(places: &BTreeMap<Position, Index>, target: Position) -> Option<Index> {
        let at = Position::from_number;
        let first_at_least = |number| places.range(at(number)..).next();
        let mut start = 0_u64;
        for bit in (0..64).rev() {
            let half = start | target.number() & 1 << bit;
            let last = half | ((1 << bit) - 1);
            let inhabited = first_at_least(half).is_some_and(|(place, _)| *place <= at(last));
            start = if inhabited { half } else { half ^ 1 << bit };
        }
        places.get(&at(start)).copied()
    }

    fn table_len(&self) -> (usize, usize) {
        let entries = self.table().entries().count();
        (entries, entries + self.table().spares().count())
    }

    fn lookup_bytes(traffic: &Traffic) -> u64 {
        let of = |sort| traffic.get(sort).map_or(0, |tally| tally.bytes);
        of(kademlia::FIND_LOOKUP) + of(kademlia::NODES_LOOKUP)
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
        assert_eq!(Kademlia::in_charge(&BTreeMap::new(), at(1)), None);
    }

    #[test]
    fn kademlia_has_the_closest_by_xor_in_charge() {
        let mut rng = enishi_overlay::Rng::from_seed([1; 32]);
        for count in 1..40 {
            let places: BTreeMap<Position, Index> = (0..count)
                .map(|index| (Position::from_number(rng.number()), index))
                .collect();
            for _ in 0..40 {
                let target = rng.number();
                let closest = places.iter().min_by_key(|(at, _)| at.number() ^ target);
                let found = Kademlia::in_charge(&places, Position::from_number(target));
                assert_eq!(found, closest.map(|(_, index)| *index));
            }
        }
    }
}
