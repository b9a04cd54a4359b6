//! Requests under way: which answer belongs to which, how long to wait, who failed.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::{Contact, NodeId, Position, Rng, Time};

use super::lookup::{Plan, Purpose};
use super::wire::Message;
use super::{Alarm, Kademlia};

/// The most requests under way; beyond it none is sent.
const REQUESTS_MAX: usize = 1024;
/// How often a request is sent: datagrams get lost. At one lost of a hundred, two tries
/// fail once in 2,500 times, and a lookup ends at the wrong node; three, once in 125,000.
const TRIES: u8 = 3;
/// How much longer the last try waits than those before it, as timeouts back off.
const LAST_TRY: u32 = 2;
/// The usual round trip before anything was measured.
const TRIP_UNKNOWN: Duration = Duration::from_millis(400);

#[derive(Clone, Debug)]
struct Request {
    to: Contact,
    at: Position,
    what: What,
    sent_at: Time,
    wait: Duration,
    tries: u8,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Ping,
    Find {
        lookup: u32,
        target: Position,
        for_host: bool,
    },
}

/// The requests under way.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    pending: BTreeMap<u16, Request>,
    next: u16,
}

impl Requests {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            pending: BTreeMap::new(),
            next: rng.number() as u16,
        }
    }

    /// Tells whether the node is being asked something.
    pub(super) fn is_asked(&self, id: NodeId) -> bool {
        self.pending.values().any(|request| request.to.id() == id)
    }

    fn add(&mut self, request: Request) -> Option<u16> {
        if self.pending.len() >= REQUESTS_MAX {
            return None;
        }
        // Fewer are under way than there are numbers: one is free.
        while self.pending.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.pending.insert(number, request);
        Some(number)
    }
}

impl Kademlia {
    /// Asks for nodes close to the target of a lookup; returns the request's octets, none if too many
    /// requests are under way.
    pub(super) fn find_node(
        &mut self,
        now: Time,
        to: &Contact,
        at: Position,
        plan: &Plan,
        lookup: u32,
    ) -> Option<usize> {
        let what = What::Find {
            lookup,
            target: plan.target,
            for_host: matches!(plan.purpose, Purpose::Host(_)),
        };
        self.ask(now, to, at, what)
    }

    /// Asks for a sign of life; returns the octets of the request.
    pub(super) fn ping(&mut self, now: Time, to: &Contact, at: Position) -> Option<usize> {
        self.table.looked(now, at, to.id());
        self.ask(now, to, at, What::Ping)
    }

    fn ask(&mut self, now: Time, to: &Contact, at: Position, what: What) -> Option<usize> {
        let wait = self.patience(at, to.id());
        let number = self.requests.add(Request {
            to: to.clone(),
            at,
            what,
            sent_at: now,
            wait,
            tries: 1,
        })?;
        self.deadlines.set(Alarm::Request(number), now + wait);
        let message = what.message(number);
        let bytes = message.encoded_len();
        self.send(to, message, what.is_for_host());
        Some(bytes)
    }

    /// Returns how long to wait before a second try.
    fn patience(&self, at: Position, id: NodeId) -> Duration {
        let usual = self.strangers.hedge_delay();
        let Some(entry) = self.table.entry(at, id) else {
            return usual;
        };
        let Some(trip) = entry.round_trip.smoothed() else {
            return usual;
        };
        // The first few measurements of one node say little about its variation; those of
        // all nodes together bound it.
        let bound = usual.max(trip * 13 / 10 + Duration::from_millis(10));
        entry.round_trip.hedge_delay().min(bound)
    }

    /// Returns the usual round trip to a node of which nothing is known.
    pub(super) fn usual_trip(&self) -> Duration {
        self.strangers.smoothed().unwrap_or(TRIP_UNKNOWN)
    }

    /// Takes in an answer: `contacts` of `Nodes`, none of `Pong`. What was not asked is
    /// only a sign of life.
    pub(super) fn answered(
        &mut self,
        now: Time,
        from: &Contact,
        at: Position,
        number: u16,
        contacts: Option<&Vec<Contact>>,
    ) {
        let asked = self.requests.pending.get(&number);
        let fits = asked.is_some_and(|request| {
            let find = matches!(request.what, What::Find { .. });
            request.to.id() == from.id() && find == contacts.is_some()
        });
        let request = if fits {
            self.requests.pending.remove(&number)
        } else {
            None
        };
        let Some(request) = request else {
            return self.table.heard(now, from, at, None);
        };
        self.deadlines.cancel(Alarm::Request(number));
        // After a second try it is not known which one was answered (Karn's rule).
        let trip = (request.tries == 1).then(|| now.since(request.sent_at));
        if self.table.entry(at, from.id()).is_none()
            && let Some(trip) = trip
        {
            self.strangers.measured(trip);
        }
        self.table.heard(now, from, at, trip);
        if let (What::Find { lookup, .. }, Some(contacts)) = (request.what, contacts) {
            self.found(now, lookup, from.id(), at, number, contacts);
        }
    }

    fn found(
        &mut self,
        now: Time,
        lookup: u32,
        from: NodeId,
        at: Position,
        request: u16,
        contacts: &[Contact],
    ) {
        let hops = self.lookups.get_mut(&lookup).and_then(|lookup| {
            let contacts = contacts.to_vec();
            lookup.spent(Message::Nodes { request, contacts }.encoded_len());
            lookup.answered(now, at, from)
        });
        self.named(now, lookup, hops.unwrap_or(u8::MAX), contacts);
        self.advance(now, lookup);
    }

    pub(super) fn request_timed_out(&mut self, now: Time, number: u16) {
        let Some(request) = self.requests.pending.get_mut(&number) else {
            return;
        };
        if request.tries >= TRIES {
            return self.request_failed(now, number);
        }
        request.tries += 1;
        if request.tries == TRIES {
            request.wait *= LAST_TRY;
        }
        let due = now + request.wait;
        let (to, at, what) = (request.to.clone(), request.at, request.what);
        self.deadlines.set(Alarm::Request(number), due);
        self.send(&to, what.message(number), what.is_for_host());
        self.table.doubt(at, to.id());
        if let What::Find { lookup, .. } = what {
            if let Some(lookup) = self.lookups.get_mut(&lookup) {
                lookup.late(at, to.id());
            }
            self.advance(now, lookup);
        }
    }

    /// The node is not there: whatever it was asked has failed.
    pub(super) fn unreachable(&mut self, now: Time, peer: NodeId) {
        let numbers: Vec<u16> = self
            .requests
            .pending
            .iter()
            .filter(|(_, request)| request.to.id() == peer)
            .map(|(number, _)| *number)
            .collect();
        for number in numbers {
            self.request_failed(now, number);
        }
    }

    fn request_failed(&mut self, now: Time, number: u16) {
        let Some(request) = self.requests.pending.remove(&number) else {
            return;
        };
        self.deadlines.cancel(Alarm::Request(number));
        let id = request.to.id();
        self.table.failed(now, request.at, id);
        self.put_in_quarantine(now, id);
        if let What::Find { lookup, .. } = request.what {
            if let Some(lookup) = self.lookups.get_mut(&lookup) {
                lookup.failed(request.at, id);
            }
            self.advance(now, lookup);
        }
    }
}

impl What {
    fn is_for_host(self) -> bool {
        matches!(self, Self::Find { for_host: true, .. })
    }

    fn message(self, request: u16) -> Message {
        match self {
            Self::Ping => Message::Ping { request },
            Self::Find { target, .. } => Message::FindNode { request, target },
        }
    }
}
