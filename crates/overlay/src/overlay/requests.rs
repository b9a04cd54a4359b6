//! End to end: ask the node in charge, try again, answer.
//!
//! A question goes from hop to hop to the node in charge, whose answer goes back the same
//! way (`back`). The asker tries again after a while, by another first hop, because
//! a hop may take a message, confirm it and die; from the fourth try on the answer comes
//! straight to the asker.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::forward::Fate;
use super::{Alarm, Effect, Overlay};
use crate::contact::Contact;
use crate::geometry::Geometry;
use crate::id::NodeId;
use crate::message::{Answer, Query, Reply, Routed};
use crate::ring::Position;
use crate::rng::Rng;
use crate::silence::Silences;
use crate::small_map::SmallMap;
use crate::time::Time;
use crate::view::Entry;
use crate::vitals::HopReport;

/// How long to wait for the answer to the first try: what a question loses that is dropped.
pub(super) const FIRST_TRY_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How long to wait for the answer to each try.
const TRY_TIMEOUTS: [Duration; 5] = [
    FIRST_TRY_TIMEOUT,
    Duration::from_millis(1_500),
    Duration::from_millis(2_000),
    Duration::from_millis(2_500),
    Duration::from_millis(3_000),
];
/// How many times as long as a hop usually takes to confirm, an answer is waited for where all
/// nodes are slow. Asked again sooner they would only have more to do.
const SLOW: u32 = 2;
/// After how long a question is given up.
const TRIES_TIME: Duration = Duration::from_secs(10);
/// How long to wait when the first hop is given: it may have to be dialled.
const VIA_TIMEOUT: Duration = Duration::from_secs(8);
/// Which try has its answer sent straight to the asker. The others have it sent back the way
/// they came, by which it gets through where the two ends cannot talk.
const TRY_STRAIGHT: u32 = 3;
/// Which try goes from node to node itself (`search`): tables may be too stale for others to
/// forward well.
const ITERATIVE_TRY: usize = 2;
/// How many tries of [`Manner::SOON`] set out at once, by different first hops.
const PARALLEL_TRIES: u32 = 2;
/// How many nodes near a position are asked for; the asker hears of more from their views.
pub(super) const NODES_ASKED: u8 = 4;
/// The most questions of this node that are open at one time.
const REQUESTS_MAX: usize = 1024;
/// Numbers of tries share the number of their request; this many bits tell them apart.
pub(super) const TRY_BITS: u32 = 3;

/// A question of this node to the node in charge of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

/// What a question is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A service asked it.
    Service,
    /// Where to draw a long link to.
    Link,
    /// Who is near this node's own position.
    Self_,
    /// A client makes itself known at its position.
    Register,
    /// Whether a peer passes it on.
    Trial,
}

/// Who may answer a question, and whether its way is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manner {
    /// Any of the nodes nearest to the target, as many as replicas, instead of the one in
    /// charge alone. They know who is in charge, but may not have noticed yet that it died.
    pub any: bool,
    /// Each hop reports ([`Effect::HopReport`]).
    pub trace: bool,
    /// It sets out on two ways at once, and the first answer counts: of two ways one is seldom
    /// slow, and one of two is oftener hostile. For what proves itself, such as signed records.
    pub twice: bool,
}

impl Manner {
    /// The node in charge answers.
    pub const EXACT: Self = Self {
        any: false,
        trace: false,
        twice: false,
    };
    /// The node in charge answers, by the faster of two ways.
    pub const SOON: Self = Self {
        twice: true,
        ..Self::EXACT
    };
    /// Any of the nodes nearest to the target answers.
    pub const ANY: Self = Self {
        any: true,
        ..Self::EXACT
    };
    /// The node in charge answers, and each hop reports.
    pub const TRACED: Self = Self {
        trace: true,
        ..Self::EXACT
    };
}

#[derive(Clone, Debug)]
struct Open {
    target: Position,
    query: Query,
    purpose: Purpose,
    manner: Manner,
    first_hop: Option<Contact>,
    since: Time,
    tries: u32,
    avoid: Vec<Position>,
    /// Who did not confirm it, as far as known here.
    silences: Silences,
}

/// The questions that wait for their answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    open: SmallMap<u64, Open>,
}

impl Requests {
    /// Draws the number of a new question. Nobody can tell it from others, and so neither
    /// answer it unasked nor speak for it; and no number is one of a former life of this node,
    /// which others may remember.
    fn number(&self, rng: &mut Rng) -> u64 {
        loop {
            // Of 32 bits with those of the tries: five octets on the wire.
            let number = rng.number() >> (32 + TRY_BITS);
            if !self.open.contains_key(&number) {
                return number;
            }
        }
    }

    pub(super) fn count(&self, purpose: Purpose) -> u32 {
        self.open
            .values()
            .filter(|open| open.purpose == purpose)
            .count() as u32
    }
}

impl Overlay {
    /// Asks a service of the node in charge of `target`. [`Effect::Answered`] or
    /// [`Effect::Failed`] follows within ten seconds.
    ///
    /// With `any` a node near the target may answer in place of the one in charge.
    pub fn request(
        &mut self,
        now: Time,
        target: Position,
        any: bool,
        service: u8,
        body: Bytes,
    ) -> RequestId {
        let query = Query::Service { service, body };
        let manner = Manner {
            any,
            ..Manner::SOON
        };
        self.open(now, target, query, Purpose::Service, manner, None)
    }

    /// As [`Self::request`], or else by way of a given peer: of the node that this one and those after it think
    /// in charge of `target`, for who is nearest to it as far as this node knows.
    pub fn request_by(
        &mut self,
        now: Time,
        via: Option<Contact>,
        (target, any): (Position, bool),
        (service, body): (u8, Bytes),
    ) -> RequestId {
        if via.is_none() {
            return self.request(now, target, any, service, body);
        }
        let query = Query::Service { service, body };
        let (purpose, manner) = (Purpose::Service, Manner::EXACT);
        self.open(now, target, query, purpose, manner, via)
    }

    /// Asks who is in charge of `target` and near it; answered by [`Reply::Nodes`].
    pub fn locate(&mut self, now: Time, target: Position, manner: Manner) -> RequestId {
        let query = Query::Nodes { count: NODES_ASKED };
        self.open(now, target, query, Purpose::Service, manner, None)
    }

    pub(super) fn ask(&mut self, now: Time, target: Position, query: Query, purpose: Purpose) {
        self.open(now, target, query, purpose, Manner::ANY, None);
    }

    /// Asks who is near this node's own position, by way of the given node.
    pub(super) fn ask_for_place(&mut self, now: Time, via: Contact) {
        let alone = self.near.is_empty();
        self.open(
            now,
            self.position,
            Query::Place { alone },
            Purpose::Self_,
            Manner::ANY,
            Some(via),
        );
    }

    /// Makes this client known at its position, with the peer that it is attached to.
    pub(super) fn ask_to_register(&mut self, now: Time, host: Contact) {
        let query = Query::Register { host };
        let purpose = Purpose::Register;
        self.open(now, self.position, query, purpose, Manner::EXACT, None);
    }

    /// Asks by way of the given peer what this node has no need to know.
    pub(super) fn ask_in_vain(&mut self, now: Time, target: Position, via: Contact) {
        let query = Query::Links { to: None };
        self.open(now, target, query, Purpose::Trial, Manner::ANY, Some(via));
    }

    fn open(
        &mut self,
        now: Time,
        target: Position,
        query: Query,
        purpose: Purpose,
        manner: Manner,
        first_hop: Option<Contact>,
    ) -> RequestId {
        let id = self.requests.number(&mut self.rng);
        if self.requests.open.len() >= REQUESTS_MAX {
            self.effects.push_back(Effect::Failed(RequestId(id)));
            return RequestId(id);
        }
        let open = Open {
            target,
            query,
            purpose,
            manner,
            first_hop,
            since: now,
            tries: 0,
            avoid: vec![],
            silences: Silences::default(),
        };
        self.requests.open.insert(id, open);
        self.copies.earn();
        self.try_request(now, id);
        RequestId(id)
    }

    fn try_request(&mut self, now: Time, id: u64) {
        let Some(open) = self.requests.open.get(&id) else {
            return;
        };
        let tries = open.tries as usize;
        let wait = match open.first_hop {
            Some(_) => VIA_TIMEOUT,
            None => {
                let slow = self.typical.hedge_delay() * SLOW;
                let left = TRIES_TIME.saturating_sub(now.since(open.since));
                TRY_TIMEOUTS[tries].max(slow.min(left))
            }
        };
        let (first_hop, target, any) = (open.first_hop.clone(), open.target, open.manner.any);
        let twice = open.manner.twice && self.config.remedies.two_ways;
        let by_ring = self.is_by_ring(target, false);
        self.deadlines.set(Alarm::Request(id), now + wait);
        let remedies = self.config.remedies;
        if remedies.iterative && tries == ITERATIVE_TRY && first_hop.is_none() {
            self.next_try(id);
            return self.search_for(now, id, target);
        }
        let parallel = match tries {
            0 if twice => PARALLEL_TRIES,
            _ => 1,
        };
        if let Some(contact) = first_hop {
            if let Some(routed) = self.next_try(id) {
                self.launch_by(now, contact, routed);
            }
            return;
        }
        for _ in 0..parallel {
            let Some(open) = self.requests.open.get(&id) else {
                return;
            };
            let avoid = open.avoid.clone();
            if let Some(hop) = self.next_hop_avoiding(now, target, by_ring, any, &avoid) {
                self.avoid_next_time(id, hop.place.position);
            }
            let Some(routed) = self.next_try(id) else {
                return;
            };
            self.forward(now, routed, &avoid);
        }
    }

    /// Makes the message of the next try.
    fn next_try(&mut self, id: u64) -> Option<Routed> {
        let open = self.requests.open.get_mut(&id)?;
        let number = open.tries;
        open.tries += 1;
        self.message_of(id, number)
    }

    /// Makes the message of one try.
    fn message_of(&self, id: u64, number: u32) -> Option<Routed> {
        let is_client = self.is_client();
        let open = self.requests.open.get(&id)?;
        Some(Routed {
            request: (id << TRY_BITS) | u64::from(number),
            origin: self.me.clone(),
            target: open.target,
            hops: 0,
            hop: 0,
            toward: None,
            by_ring: false,
            silences: open.silences.clone(),
            // Reports take the way back, and the answer must not overtake them. Whether others
            // can reach a client is not known.
            straight: number == TRY_STRAIGHT && !open.manner.trace && !is_client,
            any: open.manner.any,
            trace: open.manner.trace,
            query: open.query.clone(),
        })
    }

    /// An iterative lookup found who is near the target: the question goes straight there.
    pub(super) fn found_for_request(
        &mut self,
        now: Time,
        id: u64,
        found: &[Entry],
        silent: &[Position],
    ) {
        let me = self.me.id();
        if let Some(open) = self.requests.open.get_mut(&id) {
            for at in silent {
                open.silences.note(*at, me);
            }
        }
        // The next try may be under way; others would take its number for a second copy.
        let Some(routed) = self.message_of(id, ITERATIVE_TRY as u32) else {
            return;
        };
        let target = routed.target;
        let nearest = found.first().map(|entry| entry.contact.clone());
        let mine = self.own_reach(Geometry::Symphony, target);
        let nearer = |contact: &Contact| target.rank(self.position_of(&contact.id())) < mine;
        match nearest.filter(nearer) {
            Some(contact) => self.launch_by(now, contact, routed),
            None => self.forward(now, routed, &[]),
        }
    }

    /// Has the further tries of a question tell of silent nodes.
    pub(super) fn remember_silences(&mut self, request: u64, silences: &Silences) {
        if let Some(open) = self.requests.open.get_mut(&(request >> TRY_BITS)) {
            open.silences.merge(silences);
        }
    }

    fn avoid_next_time(&mut self, id: u64, first_hop: Position) {
        if let Some(open) = self.requests.open.get_mut(&id) {
            open.avoid.push(first_hop);
        }
    }

    pub(super) fn request_timed_out(&mut self, now: Time, id: u64) {
        let Some(open) = self.requests.open.get(&id) else {
            return;
        };
        let goes_on = (open.tries as usize) < TRY_TIMEOUTS.len() && open.first_hop.is_none();
        if goes_on && now.since(open.since) < TRIES_TIME {
            return self.try_request(now, id);
        }
        let purpose = open.purpose;
        self.requests.open.remove(&id);
        match purpose {
            Purpose::Service => self.effects.push_back(Effect::Failed(RequestId(id))),
            Purpose::Register => self.register_soon(now),
            Purpose::Link | Purpose::Self_ | Purpose::Trial => {}
        }
    }

    pub(super) fn on_answer(&mut self, now: Time, from: NodeId, answer: Answer) {
        let id = answer.request >> TRY_BITS;
        match self.requests.open.get(&id).map(|open| open.purpose) {
            None => {}
            Some(Purpose::Service) => self.close(from, answer),
            Some(Purpose::Trial) => {
                self.finish(id);
            }
            Some(Purpose::Link) => {
                self.finish(id);
                if let Reply::Acquaintances(nodes) = answer.reply {
                    self.link_found(now, &nodes);
                }
            }
            Some(Purpose::Register) => drop(self.finish(id)),
            Some(Purpose::Self_) => {
                self.finish(id);
                if let Reply::Acquaintances(nodes) = answer.reply {
                    self.learn(now, from, &nodes);
                }
            }
        }
    }

    /// Tells whether the message is a question of this node that must go by way of one
    /// given node and no other.
    pub(super) fn is_bound(&self, routed: &Routed) -> bool {
        let open = self.requests.open.get(&(routed.request >> TRY_BITS));
        self.is_self(routed.origin.id()) && open.is_some_and(|open| open.first_hop.is_some())
    }

    /// A question of this node came back to it: it is in charge itself.
    pub(super) fn returned_home(&mut self, now: Time, routed: Routed) {
        self.report_hop(None, &routed, Fate::Arrived);
        let reply = match routed.query {
            Query::Nodes { count } => {
                Reply::Nodes(self.nodes_left(routed.target, count.into(), &routed.silences))
            }
            Query::Place { .. } => Reply::Acquaintances(Vec::new()),
            Query::Links { to } => {
                Reply::Acquaintances(self.link_candidates(routed.target, to, &routed.silences))
            }
            Query::Service { .. } => return self.arrived(now, routed, None),
            Query::Register { .. } => return,
        };
        let answer = Answer {
            request: routed.request,
            hops: routed.hops,
            reply,
        };
        self.on_answer(now, self.me.id(), answer);
    }

    pub(super) fn on_hop_report(&mut self, by: NodeId, report: HopReport) {
        let id = report.request >> TRY_BITS;
        let open = self.requests.open.get(&id);
        if open.is_some_and(|open| open.manner.trace) {
            self.effects.push_back(Effect::HopReport {
                request: RequestId(id),
                attempt: (report.request & ((1 << TRY_BITS) - 1)) as u8,
                by,
                report,
            });
        }
    }

    pub(super) fn close(&mut self, from: NodeId, answer: Answer) {
        let id = answer.request >> TRY_BITS;
        if matches!(answer.reply, Reply::Acquaintances(_)) {
            return self.refuse();
        }
        if self.finish(id) {
            self.effects.push_back(Effect::Answered {
                request: RequestId(id),
                from,
                hops: answer.hops,
                reply: answer.reply,
            });
        }
    }

    fn finish(&mut self, id: u64) -> bool {
        self.deadlines.cancel(Alarm::Request(id));
        self.requests.open.remove(&id).is_some()
    }
}
