//! Where a message goes next: choosing among the peers and everyone in their views.
//!
//! Each hop gets nearer to the target on the ring, or brings the message to a node that
//! knows a nearer one: so it cannot go round in circles, and where nobody nearer is known it
//! has arrived. Who hands a message to a peer for the sake of a node *X* in the peer's view
//! says so (`Routed::toward`); the peer then chooses nothing that is further from the target
//! than X.
//!
//! Among all that make progress the choice is by [`Forwarding`]. The default takes what
//! promises the earliest arrival: the way to the next node, from there to the one that it
//! knows, and what experience says of the rest (`remaining`). This is proximity route
//! selection as in K. Gummadi et al., "The Impact of DHT Routing Geometry on Resilience and
//! Proximity", SIGCOMM 2003, section 4, with the lookahead of Symphony.

use std::time::Duration;

use super::Overlay;
use crate::config::Forwarding;
use crate::contact::Contact;
use crate::coordinate::Coordinate;
use crate::id::NodeId;
use crate::near::Place;
use crate::peers::Peer;
use crate::ring::{Position, Rank};
use crate::time::Time;
use crate::view::Entry;

/// What opening a session costs before the first message arrives, in one-way delays: a
/// round trip for the handshake, and the way of the message itself.
const DIAL_COST: u32 = 3;
/// How many 1/256 hops each doubling of the distance to the target costs, on average.
const HOPS_PER_DOUBLING_256: u64 = 90;

/// A next hop.
#[derive(Clone, Debug)]
pub struct NextHop {
    /// Who gets the message.
    pub place: Place,
    /// The peer whose view names it, when it is not a peer itself.
    pub via: Option<NodeId>,
    /// Where the node sits, known to the next hop, for whose sake it is chosen.
    pub toward: Option<Position>,
}

/// What a message may do to get on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits<'a> {
    /// Every step leads to somebody nearer to the target than this.
    pub(super) nearer_than: Rank,
    /// The node for whose sake the message came here may itself be the next.
    pub(super) toward: Option<Position>,
    /// Whether any of the nodes nearest to the target will do.
    pub(super) any: bool,
    /// Whom it must not go to.
    pub(super) avoid: &'a [Position],
}

/// The best so far.
struct Choice {
    merit: (u64, Rank, u8),
    hop: NextHop,
}

impl Overlay {
    /// Returns the best next hop towards `target`; none when this node is the nearest known.
    ///
    /// Looks at every peer and at a few nodes of each peer's view.
    pub fn next_hop(&self, now: Time, target: Position) -> Option<NextHop> {
        let limits = Limits {
            nearer_than: self.reach(target),
            toward: None,
            any: false,
            avoid: &[],
        };
        self.best_hop(now, target, limits)
    }

    pub(super) fn best_hop(
        &self,
        now: Time,
        target: Position,
        limits: Limits<'_>,
    ) -> Option<NextHop> {
        let mut best: Option<Choice> = None;
        let mut consider = |merit, hop| {
            if best.as_ref().is_none_or(|best| merit < best.merit) {
                best = Some(Choice { merit, hop });
            }
        };
        for (id, peer) in &self.peers {
            if !self.is_usable(now, *id) || limits.avoid.contains(&peer.position) {
                continue;
            }
            let own = target.rank(peer.position);
            if own < limits.nearer_than || limits.toward == Some(peer.position) {
                let time = self.way_to(peer) + self.remaining(own, limits.any);
                consider(self.merit(time, own, 0), direct(peer));
            }
            if self.config.forwarding != Forwarding::Greedy {
                self.look_ahead(now, target, limits, peer, own, &mut consider);
            }
        }
        best.map(|choice| choice.hop)
    }

    /// Considers the best nodes in a peer's view: through the peer, or straight.
    fn look_ahead(
        &self,
        now: Time,
        target: Position,
        limits: Limits<'_>,
        peer: &Peer,
        own: Rank,
        consider: &mut impl FnMut((u64, Rank, u8), NextHop),
    ) {
        /// Of several that would do, so many on either side of the target are weighed.
        const WEIGHED: usize = 3;
        let usable = |position, id| !limits.avoid.contains(&position) && self.is_usable(now, id);
        let count = if limits.any { WEIGHED } else { 1 };
        for (position, entry) in peer.view.around(target, count, usable) {
            let rank = target.rank(position);
            if rank < own && rank < limits.nearer_than {
                self.consider_known(limits, peer, position, entry, rank, consider);
            }
        }
    }

    fn consider_known(
        &self,
        limits: Limits<'_>,
        peer: &Peer,
        position: Position,
        entry: &Entry,
        rank: Rank,
        consider: &mut impl FnMut((u64, Rank, u8), NextHop),
    ) {
        let id = entry.contact.id();
        if self.config.forwarding != Forwarding::Jump {
            let onward = self.between(&peer.coordinate, &entry.coordinate);
            let time = self.way_to(peer) + onward + self.remaining(rank, limits.any);
            let hop = NextHop {
                toward: Some(position),
                ..direct(peer)
            };
            consider(self.merit(time, rank, 1), hop);
        }
        let jumps = matches!(
            self.config.forwarding,
            Forwarding::Jump | Forwarding::Fastest
        );
        if jumps && !self.is_client() && !self.peers.contains_key(&id) {
            let way = self.between(&self.coordinate, &entry.coordinate);
            let time = way * DIAL_COST + self.remaining(rank, limits.any);
            let hop = NextHop {
                place: Place { position, id },
                via: Some(peer.contact.id()),
                toward: None,
            };
            consider(self.merit(time, rank, 2), hop);
        }
    }

    /// What a choice is judged by; the least is best.
    fn merit(&self, time: Duration, rank: Rank, effort: u8) -> (u64, Rank, u8) {
        let micros = match self.config.forwarding {
            Forwarding::Fastest => u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
            Forwarding::Greedy | Forwarding::Lookahead | Forwarding::Jump => 0,
        };
        (micros, rank, effort)
    }

    fn is_usable(&self, now: Time, id: NodeId) -> bool {
        !self.is_self(id) && !self.quarantine.holds(id, now)
    }

    /// Returns how long a message to a peer takes.
    fn way_to(&self, peer: &Peer) -> Duration {
        match peer.round_trip.least() {
            Some(round_trip) => round_trip / 2,
            None => self.between(&self.coordinate, &peer.coordinate),
        }
    }

    /// Returns how long a message between two others takes, as far as their places tell.
    fn between(&self, a: &Coordinate, b: &Coordinate) -> Duration {
        let round_trip = a.round_trip(b).unwrap_or_else(|| self.typical.usual());
        round_trip / 2
    }

    /// Returns how long a message takes on average from a node at this distance to the node
    /// in charge, or to any of those near it.
    fn remaining(&self, rank: Rank, any: bool) -> Duration {
        let nodes_256 = (u128::from(rank.0) * u128::from(self.size) * 256) >> 64;
        let near_256 = if any {
            self.config.near_per_side as u128 / 2 * 256
        } else {
            0
        };
        let nodes_256 = nodes_256.saturating_sub(near_256);
        let doublings_256 = log2_256(nodes_256 as u64 + 256) - log2_256(256);
        let hops_256 = doublings_256 * HOPS_PER_DOUBLING_256 / 256;
        self.typical.usual() / 2 * hops_256 as u32 / 256
    }

    pub(super) fn contact_for(&self, hop: &NextHop) -> Contact {
        let known = match hop.via {
            Some(via) => {
                let view = self.peers.get(&via).map(|peer| &peer.view);
                let entry = view.and_then(|view| view.at(hop.place.position));
                entry.map(|entry| &entry.contact)
            }
            None => self.peers.get(&hop.place.id).map(|peer| &peer.contact),
        };
        let known = known.filter(|contact| contact.id() == hop.place.id);
        known
            .cloned()
            .unwrap_or_else(|| Contact::new(hop.place.id, []))
    }
}

fn direct(peer: &Peer) -> NextHop {
    NextHop {
        place: peer.place(),
        via: None,
        toward: None,
    }
}

/// Returns the binary logarithm in 1/256, interpolated linearly between powers of two.
fn log2_256(number: u64) -> u64 {
    let number = number.max(1);
    let whole = u64::from(number.ilog2());
    let rest = (u128::from(number) << 8 >> whole) as u64 - 256;
    whole * 256 + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_exact_at_powers_of_two_and_grow_between() {
        for power in 0..64 {
            assert_eq!(log2_256(1 << power), power * 256);
        }
        assert!(log2_256(6) > log2_256(5) && log2_256(6) == 2 * 256 + 128);
    }
}
