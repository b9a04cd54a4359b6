//! Where a message goes next: choosing among the peers and everyone in their views.
//!
//! Each hop gets nearer to the target, by the [`Geometry`] of the overlay and at last on the
//! ring, or brings the message to a node that
//! knows a nearer one: so it cannot go round in circles, and where nobody nearer is known it
//! has arrived. Who hands a message to a peer for the sake of a node *X* in the peer's view
//! says so (`Routed::toward`); the peer then chooses nothing that is further from the target
//! than X.
//!
//! Among all that make progress the choice is by [`Forwarding`]. The default takes what
//! promises the earliest arrival: the way to the next node, from there to the one that it
//! knows, and what experience says of the rest (`remaining`). This is proximity route
//! selection as in K. Gummadi et al., "The Impact of DHT Routing Geometry on Resilience and
//! Proximity", SIGCOMM 2003, section 4, with the lookahead of Symphony. Where a policy tells
//! nodes apart ([`crate::standing`]), what they are likely to lose counts as time.

use std::time::Duration;

use super::Overlay;
use crate::config::Forwarding;
use crate::contact::Contact;
use crate::coordinate::Coordinate;
use crate::geometry::Geometry;
use crate::id::NodeId;
use crate::near::Place;
use crate::peers::Peer;
use crate::ring::{Position, Rank};
use crate::standing::Policy;
use crate::time::Time;
use crate::view::Member;

/// A next hop.
#[derive(Clone, Debug)]
pub struct NextHop {
    /// Who gets the message.
    pub place: Place,
    /// The peer whose view names it, when it is not a peer itself.
    pub via: Option<NodeId>,
    /// Where the node sits, known to the next hop, for whose sake it is chosen.
    pub toward: Option<Position>,
    /// Whether it is chosen by the distance on the ring although the geometry has another.
    pub by_ring: bool,
}

/// What a message may do to get on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits<'a> {
    /// By which distance.
    pub(super) distance: Geometry,
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
        let by_ring = self.is_by_ring(target, false);
        self.next_hop_avoiding(now, target, by_ring, false, &[])
    }

    /// The same, without some nodes; when the geometry knows nobody nearer, by the ring.
    pub(super) fn next_hop_avoiding(
        &self,
        now: Time,
        target: Position,
        by_ring: bool,
        any: bool,
        avoid: &[Position],
    ) -> Option<NextHop> {
        let limits = |distance: Geometry| Limits {
            distance,
            nearer_than: self.own_reach(distance, target),
            toward: None,
            any,
            avoid,
        };
        let distance = self.distance(by_ring);
        let hop = self.best_hop(now, target, limits(distance));
        if hop.is_some() || distance == Geometry::Symphony {
            return hop;
        }
        self.best_hop(now, target, limits(Geometry::Symphony))
    }

    /// Returns the distance that counts for a message.
    pub(super) fn distance(&self, by_ring: bool) -> Geometry {
        if by_ring {
            Geometry::Symphony
        } else {
            self.config.geometry
        }
    }

    /// Tells whether a message goes by the ring from here on: it did before, or the target is
    /// in the neighbourhood, of which this node knows everyone.
    pub(super) fn is_by_ring(&self, target: Position, before: bool) -> bool {
        let near = || {
            let held = self.near.arc_held(self.config.near_per_side);
            !self.near.is_empty() && held.contains(target)
        };
        before || self.config.geometry != Geometry::Symphony && near()
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
            if !self.is_usable(now, peer.position) || limits.avoid.contains(&peer.position) {
                continue;
            }
            let own = limits.distance.remaining(peer.position, target);
            if own < limits.nearer_than || limits.toward == Some(peer.position) {
                let onward = self.remaining(own, limits);
                let doubt = self.doubt(now, Some(*id), self.relays_256(target, own, peer, limits));
                let time = self.way_to(peer) + onward + doubt;
                consider(self.merit(time, own, 0), direct(peer));
            }
            if self.config.forwarding != Forwarding::Greedy {
                self.look_ahead(now, target, limits, peer, own, &mut consider);
            }
        }
        let by_ring = self.config.geometry != limits.distance;
        best.map(|choice| NextHop {
            by_ring,
            ..choice.hop
        })
    }

    /// Returns how likely a peer is to have to pass a message on, in 1/256: it does when it
    /// knows somebody nearer, unless it may answer itself.
    fn relays_256(&self, target: Position, own: Rank, peer: &Peer, limits: Limits<'_>) -> u64 {
        if self.config.policy == Policy::None {
            return 0;
        }
        let others = |member: &Member| member.position != self.position;
        let mut known = peer.view.around(target, 1, others);
        let nearer = known.any(|m| limits.distance.remaining(m.position, target) < own);
        match self.hops_left_256(own, limits) {
            0 => 0,
            _ if nearer => 256,
            _ => 0,
        }
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
        let nearer = |rank: Rank| rank < own && rank < limits.nearer_than;
        // Who is not nearer need not be looked up.
        let usable = |member: &Member| {
            let at = member.position;
            !limits.avoid.contains(&at)
                && (self.is_usable(now, at)
                    || at != self.position && self.is_vouched_for(now, peer, at))
        };
        if limits.distance != Geometry::Symphony {
            let members = peer.view.members();
            let ranked = members.map(|m| (limits.distance.remaining(m.position, target), m));
            let usable = ranked.filter(|(rank, member)| nearer(*rank) && usable(member));
            if let Some((rank, member)) = usable.min_by_key(|(rank, m)| (*rank, m.position)) {
                self.consider_known(now, limits, peer, member, rank, consider);
            }
            return;
        }
        let count = if limits.any { WEIGHED } else { 1 };
        let usable = |member: &Member| nearer(target.rank(member.position)) && usable(member);
        for member in peer.view.around(target, count, usable) {
            let rank = target.rank(member.position);
            self.consider_known(now, limits, peer, member, rank, consider);
        }
    }

    fn consider_known(
        &self,
        now: Time,
        limits: Limits<'_>,
        peer: &Peer,
        member: &Member,
        rank: Rank,
        consider: &mut impl FnMut((u64, Rank, u8), NextHop),
    ) {
        let position = member.position;
        let id = member.contact.as_ref().map(Contact::id);
        let doubt = self.doubt(
            now,
            id.or(self.peer_at(position)),
            self.hops_left_256(rank, limits),
        );
        let remaining = self.remaining(rank, limits) + doubt;
        if self.config.forwarding != Forwarding::Jump {
            let onward = self.between(&peer.coordinate, &member.coordinate);
            let doubt = self.doubt(now, Some(peer.contact.id()), 256);
            let time = self.way_to(peer) + onward + remaining + doubt;
            let hop = NextHop {
                toward: Some(position),
                ..direct(peer)
            };
            consider(self.merit(time, rank, 1), hop);
        }
        let jumps = self.config.forwarding == Forwarding::Jump && !self.is_client();
        let silent = self.quarantine.remembers(position);
        if let Some(id) = id.filter(|id| jumps && !silent && !self.peers.contains_key(id)) {
            let hop = NextHop {
                place: Place { position, id },
                via: Some(peer.contact.id()),
                toward: None,
                by_ring: false,
            };
            consider(self.merit(Duration::ZERO, rank, 2), hop);
        }
    }

    /// Returns who the peer at a position is, where it makes a difference who somebody is.
    fn peer_at(&self, position: Position) -> Option<NodeId> {
        let mut peers = self
            .peers
            .values()
            .filter(|_| self.config.policy != Policy::None);
        let peer = peers.find(|peer| peer.position == position);
        peer.map(|peer| peer.contact.id())
    }

    /// What a choice is judged by; the least is best.
    fn merit(&self, time: Duration, rank: Rank, effort: u8) -> (u64, Rank, u8) {
        let micros = match self.config.forwarding {
            Forwarding::Fastest => u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
            Forwarding::Greedy | Forwarding::Lookahead | Forwarding::Jump => 0,
        };
        (micros, rank, effort)
    }

    fn is_usable(&self, now: Time, at: Position) -> bool {
        at != self.position && !self.quarantine.holds(at, now)
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
    fn remaining(&self, rank: Rank, limits: Limits<'_>) -> Duration {
        self.typical.usual() / 2 * self.hops_left_256(rank, limits) as u32 / 256
    }

    /// Returns how many 1/256 hops that takes.
    fn hops_left_256(&self, rank: Rank, limits: Limits<'_>) -> u64 {
        let near_256 = if limits.any {
            self.config.near_per_side as u64 / 2 * 256
        } else {
            0
        };
        limits.distance.hops_left_256(rank, self.size, near_256)
    }

    pub(super) fn contact_for(&self, hop: &NextHop) -> Contact {
        let known = match hop.via {
            Some(via) => {
                let view = self.peers.get(&via).map(|peer| &peer.view);
                let member = view.and_then(|view| view.at(hop.place.position));
                member.and_then(|member| member.contact.as_ref())
            }
            None => self.peers.get(&hop.place.id).map(|peer| &peer.contact),
        };
        let known = known.filter(|contact| contact.id() == hop.place.id);
        known
            .cloned()
            .unwrap_or_else(|| Contact::new(hop.place.id, []))
    }
}

pub(super) fn direct(peer: &Peer) -> NextHop {
    NextHop {
        place: peer.place(),
        via: None,
        toward: None,
        by_ring: false,
    }
}
