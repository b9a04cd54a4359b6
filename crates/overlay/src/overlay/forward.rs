//! One hop: send, confirm, hedge, give back, introduce.
//!
//! The receiver confirms each hop. Without a confirmation after 1.3 round trips a second
//! copy goes to the next best node, and so on; receivers drop what they have seen. A node
//! that knows no way on gives the message back. It counts as arrived only when every nearer
//! node is known to be gone, not while one is merely slow.
//!
//! Where messages jump ([`crate::config::Forwarding::Jump`]), a node known only from a peer's
//! view is dialled directly; the peer in common is asked to tell it, so that both can open
//! their NATs.

use std::time::Duration;

use super::back::{Previous, Returns};
use super::client::RANK_MAX;
use super::liveness::QUARANTINE;
use super::route::{Limits, NextHop};
use super::seen::Sight;
use super::{Alarm, Overlay};
use crate::contact::Contact;
use crate::geometry::Geometry;
use crate::id::NodeId;
use crate::message::{Message, Query, Returned, Routed};
use crate::ring::Position;
use crate::small_map::SmallMap;
use crate::standing::Outcome;
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
/// How often at most while a node that was tried is being asked for a sign of life.
const HOP_WAITS_MAX: u32 = 20;
/// How much longer a further opinion on a silent node takes: long enough for what was lost on
/// the way to be sent again. Opinions that are formed at one time fail for one cause.
const OPINION_PATIENCE: u32 = 2;
/// How long at most a newcomer leaves it to others who is in charge.
const SETTLING_MAX: Duration = Duration::from_secs(10);
/// How often the same introduction is asked for.
const INTRODUCTION_INTERVAL: Duration = Duration::from_secs(30);
/// The most introductions that are remembered.
const INTRODUCTIONS_MAX: usize = 256;

/// A message on its way.
#[derive(Clone, Debug)]
struct InFlight {
    routed: Routed,
    /// From whom this node has it; none when it is its own.
    previous: Option<Previous>,
    tried: Vec<NodeId>,
    /// The places of the tried, and of nodes that they know no longer.
    avoid: Vec<Position>,
    /// For whose sake the last try was chosen.
    toward: Option<Position>,
    /// How often nothing but waiting was left.
    waits: u32,
    /// Whether somebody who knew a way on declined.
    declined: bool,
    sent_at: Time,
}

/// Messages that wait for their next hop's confirmation, and the ways back.
#[derive(Clone, Debug, Default)]
pub(super) struct Hops {
    next: u32,
    pending: SmallMap<u32, InFlight>,
    pub(super) returns: Returns,
    introduced: SmallMap<NodeId, Time>,
}

/// What became of a traced message here.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Passed(NodeId),
    Arrived,
    GivenBack,
}

/// What to do with a message.
enum Decision {
    Pass(NextHop),
    Arrived,
    GiveBack,
}

impl Overlay {
    pub(super) fn on_routed(&mut self, now: Time, from: NodeId, mut routed: Routed) {
        let hop = routed.hop;
        let origin = routed.origin.id();
        // Whoever was invited by a client asks it for the way; it knows its hosts.
        if self.is_client() && self.peers.is_empty() {
            let declined = false;
            return self.send_to(from, Message::HopNack { hop, declined });
        }
        if routed.hops >= HOPS_MAX || !self.is_worked_off(now, &routed) {
            return self.send_to(from, Message::HopAck { hop });
        }
        self.hear_testimony(now, &mut routed);
        if self.is_self(origin) {
            self.send_to(from, Message::HopAck { hop });
            return match self.decide(now, &routed, Some(from), &[]) {
                Decision::Pass(hop) => self.launch(now, &hop, routed, None, &[]),
                Decision::Arrived | Decision::GiveBack => self.returned_home(now, routed),
            };
        }
        match self.decide(now, &routed, Some(from), &[]) {
            Decision::GiveBack => self.give_back((from, hop), &routed, false),
            Decision::Pass(_) if self.declines(now, from, &routed) => {
                self.seen.forget(&routed);
                self.accounts.declined(now, from);
                self.give_back((from, hop), &routed, true);
            }
            decision => {
                let decision = match decision {
                    Decision::Arrived => self.ask_the_settled(now, &routed, Some(from)),
                    decision => decision,
                };
                if matches!(decision, Decision::Pass(_)) {
                    self.account_for(now, from, &routed);
                }
                self.send_to(from, Message::HopAck { hop });
                self.carry_out(now, decision, routed, Some((from, hop)), &[]);
            }
        }
    }

    /// Tells whether a message is passed on or answered: it is new, or there is a copy left for it.
    fn is_worked_off(&mut self, now: Time, routed: &Routed) -> bool {
        match self.seen.note(routed) {
            Sight::First => {
                self.copies.earn();
                true
            }
            Sight::Again => self.may_copy(now),
            Sight::Copy => false,
        }
    }

    /// Takes one copy of the budget.
    fn may_copy(&mut self, now: Time) -> bool {
        let may = self.copies.take(now);
        self.counters.copies_withheld += u64::from(!may);
        may
    }

    /// Hands a message of this node on to the best node, if possible none of those to be
    /// shunned, or takes it as arrived when no nearer node is known.
    pub(super) fn forward(&mut self, now: Time, routed: Routed, shunned: &[Position]) {
        let decision = match self.decide(now, &routed, None, shunned) {
            Decision::Pass(hop) => Decision::Pass(hop),
            Decision::Arrived | Decision::GiveBack => self.decide(now, &routed, None, &[]),
        };
        let decision = match decision {
            Decision::Arrived => self.ask_the_settled(now, &routed, None),
            decision => decision,
        };
        self.carry_out(now, decision, routed, None, shunned);
    }

    fn decide(
        &self,
        now: Time,
        routed: &Routed,
        from: Option<NodeId>,
        shunned: &[Position],
    ) -> Decision {
        if self.may_answer_for_another(routed) {
            return Decision::Arrived;
        }
        let by_ring = self.is_by_ring(routed.target, routed.by_ring);
        let distance = self.distance(by_ring);
        let toward = routed.toward.filter(|_| by_ring == routed.by_ring);
        let decision = match self.decide_by(now, distance, (routed, toward), from, shunned) {
            // Nobody nearer is known by the geometry: the ring ends the way, from here on.
            Decision::Arrived if distance != Geometry::Symphony => {
                self.decide_by(now, Geometry::Symphony, (routed, None), None, shunned)
            }
            decision => decision,
        };
        match decision {
            Decision::Arrived => match self.second_opinion(now, routed, from, &[]) {
                Some(hop) => Decision::Pass(hop),
                None => decision,
            },
            decision => decision,
        }
    }

    fn decide_by(
        &self,
        now: Time,
        distance: Geometry,
        (routed, toward): (&Routed, Option<Position>),
        from: Option<NodeId>,
        shunned: &[Position],
    ) -> Decision {
        let target = routed.target;
        let mine = self.own_reach(distance, target);
        let mut avoid = shunned.to_vec();
        avoid.extend(routed.silences.for_whom(self.me.id()));
        // Who asks for its own place may have restarted and forgotten all of its neighbours,
        // while they remember it.
        avoid.extend(self.vain_origin(routed));
        avoid.extend(from.map(|from| self.position_of(&from)));
        if let Some(toward) = toward {
            let limits = Limits {
                distance,
                nearer_than: mine.min(distance.remaining(toward, target)),
                toward: Some(toward),
                any: routed.any,
                avoid: &avoid,
            };
            if let Some(hop) = self.best_hop(now, target, limits) {
                return Decision::Pass(hop);
            }
            // Whoever made the sender choose this node is gone.
            avoid.push(toward);
        }
        let sender = from.and_then(|from| self.ring_position(from));
        let asks_first = || toward.is_none() && from == Some(routed.origin.id());
        let theirs = sender
            .filter(|sender| *sender != target && !asks_first())
            .map(|sender| distance.remaining(sender, target));
        let limits = Limits {
            distance,
            nearer_than: theirs.map_or(mine, |theirs| theirs.min(mine)),
            toward: None,
            any: routed.any,
            avoid: &avoid,
        };
        match self.best_hop(now, target, limits) {
            Some(hop) => Decision::Pass(hop),
            None if theirs.is_some_and(|theirs| theirs < mine) => Decision::GiveBack,
            None => Decision::Arrived,
        }
    }

    /// Tells whether this node is so new that it has not found its place yet: neighbours have
    /// named others that would be nearer.
    fn is_settling(&self, now: Time) -> bool {
        let newborn = now.since(self.born_at) < SETTLING_MAX;
        newborn && !self.near.is_empty() && self.is_greeting_neighbours()
    }

    /// A newcomer hands a question to the best peer although itself seems to be nearer to the
    /// target. The peer gives it back if it knows nobody else.
    fn ask_the_settled(&self, now: Time, routed: &Routed, from: Option<NodeId>) -> Decision {
        if !self.is_settling(now) {
            return Decision::Arrived;
        }
        let mut avoid = vec![self.position_of(&routed.origin.id())];
        avoid.extend(from.map(|from| self.position_of(&from)));
        avoid.extend(routed.silences.for_whom(self.me.id()));
        let limits = Limits {
            distance: Geometry::Symphony,
            nearer_than: RANK_MAX,
            toward: None,
            any: routed.any,
            avoid: &avoid,
        };
        let hop = self.best_hop(now, routed.target, limits);
        hop.map_or(Decision::Arrived, Decision::Pass)
    }

    /// Tells whether any node near the target will do, and this is one.
    fn may_answer_for_another(&self, routed: &Routed) -> bool {
        let replicas = self.config.near_per_side;
        routed.any && !self.near.is_empty() && self.near.arc_held(replicas).contains(routed.target)
    }

    fn carry_out(
        &mut self,
        now: Time,
        decision: Decision,
        routed: Routed,
        previous: Option<Previous>,
        shunned: &[Position],
    ) {
        match decision {
            Decision::Pass(hop) => self.launch(now, &hop, routed, previous, shunned),
            Decision::Arrived | Decision::GiveBack => {
                let own = self.is_self(routed.origin.id());
                if own && matches!(routed.query, Query::Place { .. } | Query::Links { .. }) {
                    return self.returned_home(now, routed);
                }
                self.report_hop(previous, &routed, Fate::Arrived);
                // A client is in charge of nothing; the question is tried again.
                if !self.is_client() {
                    self.arrived(now, routed, previous);
                }
            }
        }
    }

    fn give_back(&mut self, previous: Previous, routed: &Routed, declined: bool) {
        self.report_hop(Some(previous), routed, Fate::GivenBack);
        let (id, hop) = previous;
        self.send_to(id, Message::HopNack { hop, declined });
    }

    /// Sends a message to a chosen next hop and waits for the confirmation.
    fn launch(
        &mut self,
        now: Time,
        to: &NextHop,
        routed: Routed,
        previous: Option<Previous>,
        shunned: &[Position],
    ) {
        let flight = InFlight {
            routed,
            previous,
            tried: Vec::new(),
            avoid: shunned.to_vec(),
            toward: None,
            waits: 0,
            declined: false,
            sent_at: now,
        };
        if let Some(hop) = self.number_hop() {
            self.transmit_by(now, hop, flight, to);
        }
    }

    /// Sends a message of this node to a given first hop.
    pub(super) fn launch_by(&mut self, now: Time, first_hop: Contact, routed: Routed) {
        let flight = InFlight {
            routed,
            previous: None,
            tried: Vec::new(),
            avoid: Vec::new(),
            toward: None,
            waits: 0,
            declined: false,
            sent_at: now,
        };
        if let Some(hop) = self.number_hop() {
            self.transmit(now, hop, flight, first_hop);
        }
    }

    fn number_hop(&mut self) -> Option<u32> {
        if self.hops.pending.len() >= HOPS_PENDING_MAX {
            self.counters.hops_dropped += 1;
            return None;
        }
        self.hops.next = self.hops.next.wrapping_add(1);
        Some(self.hops.next)
    }

    fn transmit_by(&mut self, now: Time, hop: u32, mut flight: InFlight, to: &NextHop) {
        let contact = self.contact_for(to);
        self.introduce(now, to);
        flight.toward = to.toward;
        flight.routed.by_ring |= to.by_ring;
        flight.avoid.push(to.place.position);
        self.transmit(now, hop, flight, contact);
    }

    fn transmit(&mut self, now: Time, hop: u32, mut flight: InFlight, to: Contact) {
        self.report_hop(flight.previous, &flight.routed, Fate::Passed(to.id()));
        let mut routed = flight.routed.clone();
        routed.hop = hop;
        routed.hops += 1;
        routed.toward = flight.toward;
        flight.tried.push(to.id());
        flight.sent_at = now;
        let mut wait = self.patience(now, to.id());
        if flight.routed.silences.tell_of(self.position_of(&to.id())) {
            wait *= OPINION_PATIENCE;
        }
        self.note_return(now, hop, flight.previous, to.id(), routed.request);
        self.hops.pending.insert(hop, flight);
        self.deadlines.set(Alarm::Hop(hop), now + wait);
        self.send(to, Message::Routed(routed));
    }

    pub(super) fn on_hop_ack(&mut self, now: Time, from: NodeId, hop: u32) {
        let Some(flight) = self.hops.pending.get(&hop) else {
            return;
        };
        if !flight.tried.contains(&from) {
            return self.refuse();
        }
        self.hops.returns.confirmed(hop, from);
        // Of an earlier copy's confirmation the round trip is not known.
        let round_trip = (flight.tried.last() == Some(&from)).then(|| now.since(flight.sent_at));
        self.hops.pending.remove(&hop);
        self.deadlines.cancel(Alarm::Hop(hop));
        if let Some(round_trip) = round_trip {
            self.measured(now, from, round_trip);
        }
    }

    /// The next hop gave the message back: another is chosen, and whom it should have
    /// reached through that one counts as gone unless it is known here, too.
    pub(super) fn on_hop_nack(&mut self, now: Time, from: NodeId, hop: u32, declined: bool) {
        let Some(flight) = self.hops.pending.get_mut(&hop) else {
            return;
        };
        if !flight.tried.contains(&from) {
            return self.refuse();
        }
        flight.declined |= declined;
        if flight.previous.is_none() {
            self.accounts.learned(now, from, Outcome::GivenBack);
        }
        if flight.tried.last() != Some(&from) || self.is_bound_to_first(hop) {
            return;
        }
        let Some(mut flight) = self.hops.pending.remove(&hop) else {
            return;
        };
        self.deadlines.cancel(Alarm::Hop(hop));
        let toward = flight.toward.take();
        let known = |position| self.peers.values().any(|peer| peer.position == position);
        // One peer may be late to say that it lost sight of a node; several are believed.
        if let Some(gone) = toward.filter(|position| !declined && !known(*position)) {
            flight.routed.silences.note(gone, from);
            self.share_testimony(&mut flight.routed);
        }
        match self.another(now, &flight) {
            Some(next) => self.transmit_by(now, hop, flight, &next),
            None => self.stuck(now, flight),
        }
    }

    /// No further node is left to try, and all that were tried gave the message back.
    fn stuck(&mut self, now: Time, flight: InFlight) {
        let sender = flight.previous.and_then(|(id, _)| self.ring_position(id));
        let target = flight.routed.target;
        let mine = target.rank(self.position);
        match flight.previous {
            // There is a way on, and it is not open to this message: the origin tries again.
            _ if flight.declined => {}
            Some(previous) if sender.is_some_and(|sender| target.rank(sender) < mine) => {
                self.give_back(previous, &flight.routed, false);
            }
            previous => {
                let decision = Decision::Arrived;
                self.carry_out(now, decision, flight.routed, previous, &[]);
            }
        }
    }

    /// Chooses a node that was not tried yet.
    fn another(&self, now: Time, flight: &InFlight) -> Option<NextHop> {
        if flight.tried.len() >= HOP_TRIES {
            return None;
        }
        let target = flight.routed.target;
        let mut avoid = flight.avoid.clone();
        avoid.extend(flight.routed.silences.for_whom(self.me.id()));
        avoid.extend(self.vain_origin(&flight.routed));
        let by_ring = self.is_by_ring(target, flight.routed.by_ring);
        let next = self.next_hop_avoiding(now, target, by_ring, flight.routed.any, &avoid);
        let previous = flight.previous.map(|(id, _)| id);
        next.or_else(|| self.second_opinion(now, &flight.routed, previous, &flight.tried))
    }

    /// When a node was found silent that is not known to be gone, a second opinion is asked for
    /// at the same time as the next in line is: one after the other would take as long again.
    fn opinion_besides(&self, now: Time, flight: &InFlight, next: &NextHop) -> Option<NextHop> {
        if flight.routed.any {
            return None;
        }
        let previous = flight.previous.map(|(id, _)| id);
        let tried: Vec<NodeId> = flight
            .tried
            .iter()
            .copied()
            .chain([next.place.id])
            .collect();
        self.second_opinion(now, &flight.routed, previous, &tried)
    }

    pub(super) fn hop_timed_out(&mut self, now: Time, hop: u32) {
        if self.is_bound_to_first(hop) || !self.config.remedies.hedging {
            self.hops.pending.remove(&hop);
            return;
        }
        let Some(mut flight) = self.hops.pending.remove(&hop) else {
            return;
        };
        let silent = flight.tried.last().copied();
        let news = silent.is_some_and(|silent| {
            self.probe(now, silent);
            self.note_silence(&mut flight.routed, silent, flight.sent_at)
        });
        // Instead of one that is gone for certain another is no copy.
        let is_gone = silent.is_some_and(|id| self.quarantine.holds(self.position_of(&id), now));
        let next = self.another(now, &flight);
        if let Some(next) = next.filter(|_| is_gone || self.may_copy(now)) {
            self.counters.hops_hedged += 1;
            let besides = news.then(|| self.opinion_besides(now, &flight, &next));
            if let Some(voucher) = besides.flatten().filter(|_| self.may_copy(now)) {
                let (routed, previous) = (flight.routed.clone(), flight.previous);
                self.launch(now, &voucher, routed, previous, &[]);
            }
            return self.transmit_by(now, hop, flight, &next);
        }
        if flight
            .tried
            .iter()
            .all(|id| self.is_gone_for(now, &flight.routed, *id))
        {
            // All nodes nearer to the target are gone.
            let InFlight {
                routed, previous, ..
            } = flight;
            let decision = self.decide(now, &routed, None, &[]);
            return self.carry_out(now, decision, routed, previous, &[]);
        }
        flight.waits += 1;
        // A peer that is being asked for a sign of life will soon be known as there or gone.
        let undecided = flight.tried.iter().any(|id| self.is_probed(*id));
        if flight.waits < HOP_WAITS || undecided && flight.waits < HOP_WAITS_MAX {
            self.hops.pending.insert(hop, flight);
            self.deadlines.set(Alarm::Hop(hop), now + HOP_WAIT);
        } else {
            // Nobody confirmed: strangers are left alone, peers are being probed, and the
            // origin tries again.
            let strangers = flight
                .tried
                .iter()
                .filter(|id| !self.peers.contains_key(id));
            let strangers: Vec<Position> = strangers.map(|id| self.position_of(id)).collect();
            let quarantine = &mut self.quarantine;
            strangers
                .into_iter()
                .for_each(|at| quarantine.put(at, now, QUARANTINE));
        }
    }

    /// Tells whether a message in flight must go by way of one given node and no other.
    fn is_bound_to_first(&self, hop: u32) -> bool {
        let flight = self.hops.pending.get(&hop);
        flight.is_some_and(|flight| self.is_bound(&flight.routed))
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

    fn introduce(&mut self, now: Time, to: &NextHop) {
        if let Some(via) = to.via {
            self.ask_introduction(now, via, to.place.id);
        }
    }

    /// Asks a peer to have another node dial this one, while this one dials it; seldom.
    pub(super) fn ask_introduction(&mut self, now: Time, via: NodeId, subject: NodeId) {
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

    /// Tells the origin where a traced message goes; once more when it is sent elsewhere
    /// because the first choice was silent or gave it back. A node that declines tells
    /// nothing.
    pub(super) fn report_hop(&mut self, previous: Option<Previous>, routed: &Routed, fate: Fate) {
        if !routed.trace || (previous.is_some() && !self.config.reports_hops) {
            return;
        }
        let next = match fate {
            Fate::Passed(next) => Some(next),
            Fate::Arrived | Fate::GivenBack => None,
        };
        let report = HopReport {
            request: routed.request,
            hops: routed.hops,
            next,
            next_path: next.map_or(PathKind::Unconnected, |next| self.paths.kind(next)),
            gives_back: matches!(fate, Fate::GivenBack),
            vitals: self.own_vitals(),
        };
        let me = self.me.id();
        match previous {
            Some(previous) => self.send_back(previous, me, Returned::Report(report)),
            None => self.on_hop_report(me, report),
        }
    }
}
