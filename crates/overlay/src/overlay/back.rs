//! The way back: answers return over the sessions in which their question came.
//!
//! Each node remembers for a while from whom it had a message that it passed on, and under
//! which number. What comes back under its own number for the message goes on to there.
//! So a lookup opens no session and passes every NAT that the question passed.
//!
//! Of its own questions a node also notes here who confirmed them and whether an answer
//! came: that is the experience from which others have their standing
//! ([`crate::standing`]).

use std::collections::VecDeque;
use std::time::Duration;

use super::{Asker, Overlay};
use crate::id::NodeId;
use crate::message::{Answer, Message, Reply, Returned};
use crate::small_map::SmallMap;
use crate::time::Time;

/// How long the way back is remembered.
const RETURN_KEPT: Duration = Duration::from_secs(12);
/// After how long an own question counts as dropped by whoever confirmed it. By then the
/// origin of any question has tried again twice.
const DROPPED_AFTER: Duration = Duration::from_secs(5);
/// The most messages whose way back is remembered.
const RETURNS_MAX: usize = 4096;

/// Where a message came from, and under which number.
pub(super) type Previous = (NodeId, u32);

/// Ways back by this node's number for each message.
#[derive(Clone, Debug, Default)]
pub(super) struct Returns {
    ways: SmallMap<u32, Return>,
    /// Own questions of which it is open what comes, oldest first.
    own: VecDeque<Entrusted>,
}

#[derive(Clone, Debug)]
struct Return {
    /// None for this node's own questions.
    to: Option<Previous>,
    /// To whom the message was given.
    given: Vec<NodeId>,
    at: Time,
}

/// An own question in the hands of others.
#[derive(Clone, Debug)]
pub(super) struct Entrusted {
    hop: u32,
    request: u64,
    at: Time,
    pub(super) given: Vec<NodeId>,
    pub(super) confirmed: Vec<NodeId>,
}

impl Returns {
    /// Notes that the message went to `next` under the number `hop`.
    fn note(&mut self, now: Time, hop: u32, to: Option<Previous>, next: NodeId) {
        while let Some((_, oldest)) = self.ways.first_key_value() {
            let old = now.since(oldest.at) > RETURN_KEPT;
            if !old && self.ways.len() < RETURNS_MAX {
                break;
            }
            self.ways.pop_first();
        }
        let entry = self.ways.get_or_insert_with(hop, || Return {
            to,
            given: Vec::with_capacity(1),
            at: now,
        });
        entry.given.push(next);
    }

    /// Notes that an own question went to `next`.
    fn entrust(&mut self, now: Time, hop: u32, request: u64, next: NodeId) {
        if let Some(entrusted) = self.entrusted(hop) {
            return entrusted.given.push(next);
        }
        if self.own.len() >= RETURNS_MAX {
            self.own.pop_front();
        }
        self.own.push_back(Entrusted {
            hop,
            request,
            at: now,
            given: vec![next],
            confirmed: Vec::new(),
        });
    }

    fn entrusted(&mut self, hop: u32) -> Option<&mut Entrusted> {
        self.own.iter_mut().rev().find(|own| own.hop == hop)
    }

    /// Notes that a node confirmed a message, if it is an own question.
    pub(super) fn confirmed(&mut self, hop: u32, by: NodeId) {
        if let Some(entrusted) = self.entrusted(hop) {
            entrusted.confirmed.push(by);
        }
    }

    /// Takes out the oldest own question for whose answer the time is over.
    pub(super) fn take_overdue(&mut self, now: Time) -> Option<Entrusted> {
        let oldest = self.own.front()?;
        let overdue = now.since(oldest.at) >= DROPPED_AFTER;
        overdue.then(|| self.own.pop_front()).flatten()
    }

    /// Takes out the own question that an answer is for.
    pub(super) fn take_answered(&mut self, request: u64) -> Option<Entrusted> {
        let at = self.own.iter().rposition(|own| own.request == request)?;
        self.own.remove(at)
    }

    /// Returns where something that `from` returns goes; none when it was not given it.
    fn follow(&self, hop: u32, from: NodeId) -> Option<Option<Previous>> {
        let entry = self.ways.get(&hop)?;
        entry.given.contains(&from).then_some(entry.to)
    }
}

impl Overlay {
    /// Answers a question that was put to this node.
    pub fn answer(&mut self, asker: Asker, reply: Reply) {
        let answer = Answer {
            request: asker.request,
            hops: asker.hops,
            reply,
        };
        let origin = asker.contact.id();
        match asker.back {
            _ if self.is_self(origin) => self.close(origin, answer),
            Some(previous)
                if asker.traced
                    || !(asker.straight || self.peers.contains_key(&origin))
                    || self.quarantine.remembers(self.position_of(&origin)) =>
            {
                self.send_back(previous, self.me.id(), Returned::Answer(answer));
            }
            _ => self.send(asker.contact, Message::Answer(answer)),
        }
    }

    pub(super) fn send_back(&mut self, to: Previous, by: NodeId, returned: Returned) {
        let (id, hop) = to;
        let back = Message::Back { hop, by, returned };
        self.send_to(id, back);
    }

    pub(super) fn on_back(
        &mut self,
        now: Time,
        from: NodeId,
        hop: u32,
        by: NodeId,
        returned: Returned,
    ) {
        match (self.hops.returns.follow(hop, from), returned) {
            (None, _) => self.refuse(),
            (Some(Some(previous)), returned) => self.send_back(previous, by, returned),
            (Some(None), Returned::Answer(answer)) => {
                self.delivered(now, answer.request, Some(from), by);
                self.on_answer(now, by, answer);
            }
            (Some(None), Returned::Report(report)) => self.on_hop_report(by, report),
        }
    }

    /// An answer came from the one who gives it, not by the way of its question.
    pub(super) fn on_straight_answer(&mut self, now: Time, from: NodeId, answer: Answer) {
        self.delivered(now, answer.request, None, from);
        self.on_answer(now, from, answer);
    }

    /// Notes where what goes back for a message is to go, and of an own question that its
    /// answer is awaited.
    pub(super) fn note_return(
        &mut self,
        now: Time,
        hop: u32,
        to: Option<Previous>,
        next: NodeId,
        request: u64,
    ) {
        self.note_dropped(now);
        self.hops.returns.note(now, hop, to, next);
        if to.is_none() {
            self.hops.returns.entrust(now, hop, request, next);
        }
    }
}
