//! The way back: answers return over the sessions in which their question came.
//!
//! Each node remembers for a while from whom it had a message that it passed on, and under
//! which number. What comes back under its own number for the message goes on to there.
//! So a lookup opens no session, passes every NAT that the question passed, and the nodes on
//! the way see whether those to whom they entrust messages deliver them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Asker, Overlay};
use crate::id::NodeId;
use crate::message::{Answer, Message, Reply, Returned};
use crate::time::Time;

/// How long the way back is remembered.
const RETURN_KEPT: Duration = Duration::from_secs(12);
/// The most messages whose way back is remembered.
const RETURNS_MAX: usize = 4096;

/// Where a message came from, and under which number.
pub(super) type Previous = (NodeId, u32);

/// Ways back by this node's number for each message.
#[derive(Clone, Debug, Default)]
pub(super) struct Returns(BTreeMap<u32, Return>);

#[derive(Clone, Debug)]
struct Return {
    /// None for this node's own questions.
    to: Option<Previous>,
    /// To whom the message was given.
    given: Vec<NodeId>,
    at: Time,
}

impl Returns {
    /// Notes that the message went to `next` under the number `hop`.
    pub(super) fn note(&mut self, now: Time, hop: u32, to: Option<Previous>, next: NodeId) {
        while let Some(oldest) = self.0.first_entry() {
            let old = now.since(oldest.get().at) > RETURN_KEPT;
            if !old && self.0.len() < RETURNS_MAX {
                break;
            }
            self.0.pop_first();
        }
        let entry = self.0.entry(hop).or_insert_with(|| Return {
            to,
            given: Vec::with_capacity(1),
            at: now,
        });
        entry.given.push(next);
    }

    /// Returns where something that `from` returns goes; none when it was not given it.
    fn follow(&self, hop: u32, from: NodeId) -> Option<Option<Previous>> {
        let entry = self.0.get(&hop)?;
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
                if asker.traced || !(asker.straight || self.peers.contains_key(&origin)) =>
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
            (Some(None), Returned::Answer(answer)) => self.on_answer(now, by, answer),
            (Some(None), Returned::Report(report)) => self.on_hop_report(by, report),
        }
    }
}
