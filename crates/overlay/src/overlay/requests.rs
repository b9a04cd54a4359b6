//! End to end: ask the node in charge, try again, answer.
//!
//! A question goes from hop to hop to the node in charge, which answers straight to
//! the asker. The asker tries again after a while, by another first hop, because a hop
//! may take a message, confirm it and die.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::{Alarm, Asker, Effect, Overlay};
use crate::contact::Contact;
use crate::id::NodeId;
use crate::message::{Answer, Message, Query, Reply, Routed};
use crate::ring::Position;
use crate::rng::Rng;
use crate::time::Time;
use crate::vitals::HopReport;

/// How long to wait for the answer to each try.
const TRY_TIMEOUTS: [Duration; 4] = [
    Duration::from_millis(1_000),
    Duration::from_millis(1_500),
    Duration::from_millis(3_000),
    Duration::from_millis(4_000),
];
/// How long to wait when the first hop is given: it may have to be dialled.
const VIA_TIMEOUT: Duration = Duration::from_secs(8);
/// The most questions of this node that are open at one time.
const REQUESTS_MAX: usize = 1024;
/// Numbers of tries share the number of their request; this many bits tell them apart.
const TRY_BITS: u32 = 3;

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
}

#[derive(Clone, Debug)]
struct Open {
    target: Position,
    query: Query,
    purpose: Purpose,
    trace: bool,
    first_hop: Option<Contact>,
    tries: u32,
    avoid: Vec<NodeId>,
}

/// The questions that wait for their answers.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    next: u64,
    open: BTreeMap<u64, Open>,
}

impl Requests {
    /// Begins to number at a random place: other nodes remember the numbers of a
    /// former life of this one for a while, and take the same ones for duplicates.
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            // Of 32 bits with those of the tries: five octets on the wire.
            next: rng.number() >> (32 + TRY_BITS),
            open: BTreeMap::new(),
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
    pub fn request(&mut self, now: Time, target: Position, service: u8, body: Bytes) -> RequestId {
        self.open(
            now,
            target,
            Query::Service { service, body },
            Purpose::Service,
            false,
            None,
        )
    }

    /// Asks who is in charge of `target` and near it; answered by [`Reply::Nodes`]. With
    /// `trace` each hop reports ([`Effect::HopReport`]).
    pub fn locate(&mut self, now: Time, target: Position, trace: bool) -> RequestId {
        self.open(now, target, Query::Nodes, Purpose::Service, trace, None)
    }

    /// Answers a question that was put to this node.
    pub fn answer(&mut self, asker: Asker, reply: Reply) {
        let answer = Answer {
            request: asker.request,
            hops: asker.hops,
            reply,
        };
        if self.is_self(asker.contact.id()) {
            let id = self.me.id();
            self.close(id, answer);
        } else {
            self.send(asker.contact, Message::Answer(answer));
        }
    }

    pub(super) fn ask(&mut self, now: Time, target: Position, query: Query, purpose: Purpose) {
        self.open(now, target, query, purpose, false, None);
    }

    /// Asks who is near this node's own position, by way of the given node.
    pub(super) fn ask_for_place(&mut self, now: Time, via: Contact) {
        self.open(
            now,
            self.position,
            Query::Nodes,
            Purpose::Self_,
            false,
            Some(via),
        );
    }

    fn open(
        &mut self,
        now: Time,
        target: Position,
        query: Query,
        purpose: Purpose,
        trace: bool,
        first_hop: Option<Contact>,
    ) -> RequestId {
        self.requests.next += 1;
        let id = self.requests.next;
        if self.requests.open.len() >= REQUESTS_MAX {
            self.effects.push_back(Effect::Failed(RequestId(id)));
            return RequestId(id);
        }
        let open = Open {
            target,
            query,
            purpose,
            trace,
            first_hop,
            tries: 0,
            avoid: vec![],
        };
        self.requests.open.insert(id, open);
        self.try_request(now, id);
        RequestId(id)
    }

    fn try_request(&mut self, now: Time, id: u64) {
        let me = self.me.clone();
        let Some(open) = self.requests.open.get_mut(&id) else {
            return;
        };
        let wait = match open.first_hop {
            Some(_) => VIA_TIMEOUT,
            None => TRY_TIMEOUTS[open.tries as usize],
        };
        let routed = Routed {
            request: (id << TRY_BITS) | u64::from(open.tries),
            origin: me,
            target: open.target,
            hops: 0,
            hop: 0,
            trace: open.trace,
            query: open.query.clone(),
        };
        open.tries += 1;
        let (first_hop, avoid) = (open.first_hop.clone(), open.avoid.clone());
        self.deadlines.set(Alarm::Request(id), now + wait);
        match first_hop {
            Some(contact) => self.launch(now, contact, routed),
            None => {
                if let Some((place, _)) = self.next_hop(now, routed.target) {
                    self.avoid_next_time(id, place.id);
                }
                self.forward(now, routed, &avoid);
            }
        }
    }

    fn avoid_next_time(&mut self, id: u64, first_hop: NodeId) {
        if let Some(open) = self.requests.open.get_mut(&id) {
            open.avoid.push(first_hop);
        }
    }

    pub(super) fn request_timed_out(&mut self, now: Time, id: u64) {
        let Some(open) = self.requests.open.get(&id) else {
            return;
        };
        if (open.tries as usize) < TRY_TIMEOUTS.len() && open.first_hop.is_none() {
            return self.try_request(now, id);
        }
        let purpose = open.purpose;
        self.requests.open.remove(&id);
        if purpose == Purpose::Service {
            self.effects.push_back(Effect::Failed(RequestId(id)));
        }
    }

    pub(super) fn on_answer(&mut self, now: Time, from: NodeId, answer: Answer) {
        let id = answer.request >> TRY_BITS;
        match self.requests.open.get(&id).map(|open| open.purpose) {
            None => {}
            Some(Purpose::Service) => self.close(from, answer),
            Some(Purpose::Link) => {
                self.finish(id);
                if let Reply::Nodes(nodes) = answer.reply {
                    self.link_found(now, &nodes);
                }
            }
            Some(Purpose::Self_) => {
                self.finish(id);
                if let Reply::Nodes(nodes) = answer.reply {
                    nodes
                        .iter()
                        .for_each(|contact| self.learn(now, contact, from));
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
    pub(super) fn returned_home(&mut self, now: Time, routed: &Routed) {
        let nodes = self.nodes_near(routed.target);
        let reply = match routed.query {
            Query::Nodes => Reply::Nodes(nodes),
            Query::Service { .. } => return,
        };
        let answer = Answer {
            request: routed.request,
            hops: routed.hops,
            reply,
        };
        self.on_answer(now, self.me.id(), answer);
    }

    pub(super) fn on_hop_report(&mut self, request: u64, report: HopReport) {
        let id = request >> TRY_BITS;
        if self.requests.open.get(&id).is_some_and(|open| open.trace) {
            self.effects.push_back(Effect::HopReport {
                request: RequestId(id),
                attempt: (request & ((1 << TRY_BITS) - 1)) as u8,
                report,
            });
        }
    }

    fn close(&mut self, from: NodeId, answer: Answer) {
        let id = answer.request >> TRY_BITS;
        if self.finish(id) {
            let Answer { hops, reply, .. } = answer;
            self.effects.push_back(Effect::Answered {
                request: RequestId(id),
                from,
                hops,
                reply,
            });
        }
    }

    fn finish(&mut self, id: u64) -> bool {
        self.deadlines.cancel(Alarm::Request(id));
        self.requests.open.remove(&id).is_some()
    }
}
