//! One hop: choose, send, confirm, hedge, introduce.
//!
//! The next hop is the node nearest to the target among the peers and everyone in
//! their views, as long as it is nearer than this node itself; so a message cannot
//! loop, and where no nearer node is known it has arrived. The receiver confirms each
//! hop. Without a confirmation after 1.3 round trips a second copy goes to the next
//! best node, and so on; receivers drop what they have seen. A message counts as arrived
//! only when every nearer node is known to be gone, not while one is merely slow.
//!
//! A node known only from a peer's view is dialled directly; the peer in common is
//! asked to tell it, so that both can open their NATs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::{Alarm, Asker, Effect, InFlight, Overlay};
use crate::contact::Contact;
use crate::id::NodeId;
use crate::message::{Message, Query, Reply, Routed};
use crate::near::Place;
use crate::ring::Position;
use crate::time::Time;
use crate::vitals::{HopReport, PathKind};

/// After so many hops a message is dropped; routes in a whole ring of a million nodes
/// take under 20.
const HOPS_MAX: u8 = 64;
/// The most messages that wait for their next hop's confirmation.
const HOPS_PENDING_MAX: usize = 1024;
/// To how many nodes a message is tried to be handed on.
const HOP_TRIES: usize = 6;
/// How often, and how long each time, a confirmation is waited for when there is no
/// further node to try.
const HOP_WAITS: u32 = 5;
const HOP_WAIT: Duration = Duration::from_millis(500);
/// How many nodes are named to whoever asks for those near a position. The asker hears
/// of more from their views.
const NODES_ANSWERED: usize = 4;
/// How many messages are remembered to recognise second copies.
const SEEN_MAX: usize = 2048;
/// How often the same introduction is asked for.
const INTRODUCTION_INTERVAL: Duration = Duration::from_secs(30);
/// The most introductions that are remembered.
const INTRODUCTIONS_MAX: usize = 256;

/// Messages that wait for their next hop's confirmation.
#[derive(Clone, Debug, Default)]
pub(super) struct Hops {
    next: u32,
    pending: BTreeMap<u32, InFlight>,
    introduced: BTreeMap<NodeId, Time>,
}

/// Messages that came by lately.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    set: BTreeSet<(NodeId, u64)>,
    order: VecDeque<(NodeId, u64)>,
}

impl Seen {
    /// Notes a message; tells whether it is new.
    fn note(&mut self, origin: NodeId, request: u64) -> bool {
        if !self.set.insert((origin, request)) {
            return false;
        }
        self.order.push_back((origin, request));
        if self.order.len() > SEEN_MAX {
            let oldest = self.order.pop_front();
            oldest.map(|oldest| self.set.remove(&oldest));
        }
        true
    }
}

impl Overlay {
    /// Returns the best next hop towards `target`, and the peer that knows it if it is
    /// not a peer itself; none when this node is the nearest known.
    ///
    /// Looks at every peer and at a few nodes of each peer's view.
    pub fn next_hop(&self, now: Time, target: Position) -> Option<(Place, Option<NodeId>)> {
        self.best_hop(now, target, &[])
    }

    fn best_hop(
        &self,
        now: Time,
        target: Position,
        avoid: &[NodeId],
    ) -> Option<(Place, Option<NodeId>)> {
        let usable = |id: NodeId| {
            !self.is_self(id) && !avoid.contains(&id) && !self.quarantine.holds(id, now)
        };
        let mut best: Option<(Place, Option<NodeId>)> = None;
        let mut rank = target.rank(self.position);
        for (id, peer) in &self.peers {
            if usable(*id) && target.rank(peer.position) < rank {
                rank = target.rank(peer.position);
                best = Some((peer.place(), None));
            }
        }
        for (via, peer) in &self.peers {
            let Some(place) = peer.view.nearest(target, usable) else {
                continue;
            };
            if target.rank(place.position) < rank {
                rank = target.rank(place.position);
                best = Some((place, Some(*via)));
            }
        }
        if self.config.jump {
            return best;
        }
        // The paper's lookahead: through the peer that knows the best node.
        best.map(
            |(place, via)| match via.and_then(|via| self.peers.get(&via)) {
                Some(peer) if target.rank(peer.position) < target.rank(self.position) => {
                    (peer.place(), None)
                }
                _ => (place, via),
            },
        )
    }

    pub(super) fn on_routed(&mut self, now: Time, from: NodeId, routed: Routed) {
        self.send_to(from, Message::HopAck { hop: routed.hop });
        let origin = routed.origin.id();
        if routed.hops >= HOPS_MAX || !self.seen.note(origin, routed.request) {
            return;
        }
        if self.is_self(origin) {
            return self.returned_home(now, &routed);
        }
        self.forward(now, routed, &[]);
    }

    /// Hands a message on to the best node, if possible none of those to be shunned, or
    /// takes it as arrived when no nearer node is known.
    pub(super) fn forward(&mut self, now: Time, routed: Routed, shunned: &[NodeId]) {
        let target = routed.target;
        let origin = routed.origin.id();
        let next = if target == self.position_of(&origin) {
            // Whoever asks for its own place wants its neighbours there, not itself: it
            // may have restarted and forgotten all of them, while they remember it.
            self.best_hop(now, target, &[shunned, &[origin]].concat())
        } else {
            self.best_hop(now, target, shunned)
                .or_else(|| self.next_hop(now, target))
        };
        if routed.trace {
            self.report_hop(&routed, next.map(|(place, _)| place.id));
        }
        match next {
            Some((place, via)) => {
                let contact = self.contact_for(place.id, via);
                self.introduce(now, place.id, via);
                self.launch(now, contact, routed);
            }
            None => self.arrived(routed),
        }
    }

    /// Sends a message to a chosen next hop and waits for the confirmation.
    pub(super) fn launch(&mut self, now: Time, to: Contact, routed: Routed) {
        if self.hops.pending.len() >= HOPS_PENDING_MAX {
            self.counters.hops_dropped += 1;
            return;
        }
        self.hops.next = self.hops.next.wrapping_add(1);
        let flight = InFlight {
            routed,
            tried: Vec::new(),
            waits: 0,
            sent_at: now,
        };
        self.transmit(now, self.hops.next, flight, to);
    }

    fn transmit(&mut self, now: Time, hop: u32, mut flight: InFlight, to: Contact) {
        let wait = match self.peers.get(&to.id()) {
            Some(peer) => peer.round_trip.hedge_delay(),
            // A session has to be opened first, which takes some round trips.
            None => self.typical_hedge_delay() * 3,
        };
        let mut routed = flight.routed.clone();
        routed.hop = hop;
        routed.hops += 1;
        flight.tried.push(to.id());
        flight.sent_at = now;
        self.hops.pending.insert(hop, flight);
        self.deadlines.set(Alarm::Hop(hop), now + wait);
        self.send(to, Message::Routed(routed));
    }

    fn typical_hedge_delay(&self) -> Duration {
        let known = self
            .peers
            .values()
            .filter(|peer| peer.round_trip.smoothed().is_some());
        let (sum, count) = known.fold((Duration::ZERO, 0_u32), |(sum, count), peer| {
            (sum + peer.round_trip.hedge_delay(), count + 1)
        });
        if count == 0 {
            Duration::from_millis(400)
        } else {
            sum / count
        }
    }

    pub(super) fn on_hop_ack(&mut self, now: Time, from: NodeId, hop: u32) {
        let Some(flight) = self.hops.pending.get(&hop) else {
            return;
        };
        if !flight.tried.contains(&from) {
            return self.refuse();
        }
        // Of an earlier copy's confirmation the round trip is not known.
        let round_trip = (flight.tried.last() == Some(&from)).then(|| now.since(flight.sent_at));
        self.hops.pending.remove(&hop);
        self.deadlines.cancel(Alarm::Hop(hop));
        if let (Some(peer), Some(round_trip)) = (self.peers.get_mut(&from), round_trip) {
            peer.round_trip.measured(round_trip);
        }
    }

    pub(super) fn hop_timed_out(&mut self, now: Time, hop: u32) {
        let Some(mut flight) = self.hops.pending.remove(&hop) else {
            return;
        };
        if self.is_bound(&flight.routed) {
            return;
        }
        if let Some(silent) = flight.tried.last() {
            self.probe(now, *silent);
        }
        let target = flight.routed.target;
        // It came from the origin, so back there it goes in vain.
        let shunned = [&flight.tried[..], &[flight.routed.origin.id()]].concat();
        let another = (flight.tried.len() < HOP_TRIES)
            .then(|| self.best_hop(now, target, &shunned))
            .flatten();
        if let Some((place, via)) = another {
            self.counters.hops_hedged += 1;
            let contact = self.contact_for(place.id, via);
            if flight.routed.trace {
                self.report_hop(&flight.routed, Some(place.id));
            }
            self.introduce(now, place.id, via);
            return self.transmit(now, hop, flight, contact);
        }
        if flight
            .tried
            .iter()
            .all(|id| self.quarantine.holds(*id, now))
        {
            // All nodes nearer to the target are gone.
            return self.forward(now, flight.routed, &[]);
        }
        flight.waits += 1;
        if flight.waits < HOP_WAITS {
            self.hops.pending.insert(hop, flight);
            self.deadlines.set(Alarm::Hop(hop), now + HOP_WAIT);
        } else {
            // Nobody confirmed: strangers are left alone, peers are being probed, and the
            // origin tries again.
            let strangers = flight
                .tried
                .iter()
                .filter(|id| !self.peers.contains_key(id));
            strangers.for_each(|id| self.quarantine.put(*id, now));
        }
    }

    /// The node is known to be gone: what waits for its confirmation goes elsewhere.
    pub(super) fn expedite_hops(&mut self, now: Time, gone: NodeId) {
        let waiting: Vec<u32> = self
            .hops
            .pending
            .iter()
            .filter(|(_, flight)| flight.tried.contains(&gone))
            .map(|(hop, _)| *hop)
            .collect();
        for hop in waiting {
            self.deadlines.set(Alarm::Hop(hop), now);
        }
    }

    /// Answers a message for which this node is in charge.
    fn arrived(&mut self, routed: Routed) {
        let Routed {
            request,
            origin,
            target,
            hops,
            query,
            ..
        } = routed;
        let asker = Asker {
            contact: origin,
            request,
            hops,
        };
        match query {
            Query::Nodes => {
                let nodes = self.nodes_near(target);
                self.answer(asker, Reply::Nodes(nodes));
            }
            Query::Service { service, body } => {
                self.effects.push_back(Effect::Asked {
                    asker,
                    target,
                    service,
                    body,
                });
            }
        }
    }

    /// Returns the few nodes nearest to the target that this one knows among itself and its
    /// neighbours, nearest first.
    pub fn nodes_near(&self, target: Position) -> Vec<Contact> {
        let nearest = self.near.nearest(target, NODES_ANSWERED);
        nearest
            .iter()
            .filter_map(|place| self.contact_of(place.id))
            .collect()
    }

    fn contact_for(&self, id: NodeId, via: Option<NodeId>) -> Contact {
        let known = match via {
            Some(via) => self.peers.get(&via).and_then(|peer| peer.view.contact(id)),
            None => self.peers.get(&id).map(|peer| &peer.contact),
        };
        known.cloned().unwrap_or_else(|| Contact::new(id, []))
    }

    fn introduce(&mut self, now: Time, subject: NodeId, via: Option<NodeId>) {
        let Some(via) = via else { return };
        let lately = |at: &Time| now.since(*at) < INTRODUCTION_INTERVAL;
        if self.hops.introduced.get(&subject).is_some_and(lately) {
            return;
        }
        if self.hops.introduced.len() >= INTRODUCTIONS_MAX {
            self.hops.introduced.retain(|_, at| lately(at));
        }
        if self.hops.introduced.len() < INTRODUCTIONS_MAX {
            self.hops.introduced.insert(subject, now);
            self.send_to(via, Message::Introduce { subject });
        }
    }

    /// Tells the origin where the message goes; once more when it is sent elsewhere
    /// because the first choice was silent. A node that declines tells nothing.
    fn report_hop(&mut self, routed: &Routed, next: Option<NodeId>) {
        let mine = self.is_self(routed.origin.id());
        if !mine && !self.config.reports_hops {
            return;
        }
        let report = HopReport {
            by: self.me.id(),
            hops: routed.hops,
            next,
            next_path: next.map_or(PathKind::Unconnected, |next| self.paths.kind(next)),
            vitals: self.own_vitals(),
        };
        let request = routed.request;
        if mine {
            self.on_hop_report(request, report);
        } else {
            self.send(
                routed.origin.clone(),
                Message::HopReport { request, report },
            );
        }
    }
}
