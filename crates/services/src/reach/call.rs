//! Two nodes that do not reach each other agree how to: one calls the other through the overlay.
//!
//! ```text
//!   A ---- call, routed to B's position: A's addresses, who may carry to A ----> B
//!     <--- answer: B's addresses, who may carry to B ---------------------------
//! ```
//!
//! Both then do two things at the same time. They dial each other, which opens the translations
//! in front of them (P. Srisuresh et al., RFC 5128, section 3.3) and is enough where only one of
//! them can be dialled; and each opens sessions with those who may carry to the other, lest
//! dialling fails. Who may carry is whoever has a session with a node that goes straight:
//! reachable ones first.
//!
//! If somebody else is in charge of B's position, for example since B is a client, it names itself
//! as the one who carries if it has a session with B, and says else that B is not there.
//!
//! A call is the word of whoever sends it: what it names is dialled, no more, and twice a second at
//! most.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::message::Reply;
use enishi_overlay::overlay::Asker;
use enishi_overlay::{Contact, NodeId, Overlay, PathKind, Time};

use super::wire::{Answer, ReachMessage};
use super::{Cx, Event};
use crate::bucket::{Bucket, Rate};

/// The most nodes that are named as those who may carry, and addresses of each.
pub const RELAYS_MAX: usize = 6;
const ADDRESSES_MAX: usize = 4;

/// The most calls of this node that wait for an answer.
const WAITING_MAX: usize = 256;

/// How long a call waits for its answer.
const WAITING_TIME: Duration = Duration::from_secs(15);

/// How often this node calls. Where many are not reached at once, the others are wanted again.
const CALLS: Rate = Rate {
    per_s: 4,
    burst: 64,
};

/// How often this node follows the calls of others.
const CALLED: Rate = Rate {
    per_s: 2,
    burst: 24,
};

/// The calls of a node.
#[derive(Debug, Default)]
pub(super) struct Calls {
    waiting: BTreeMap<u64, (NodeId, Time)>,
    last: u64,
    calls: Option<Bucket>,
    called: Option<Bucket>,
}

impl Calls {
    /// Calls a node.
    pub(super) fn call(&mut self, to: NodeId, cx: &mut Cx<'_>) {
        let now = cx.now();
        self.waiting
            .retain(|_, (_, since)| now.since(*since) < WAITING_TIME);
        let is_called = self.waiting.values().any(|(called, _)| *called == to);
        if to == cx.me() || is_called || self.waiting.len() >= WAITING_MAX {
            return;
        }
        let bucket = self.calls.get_or_insert_with(|| Bucket::full(CALLS, now));
        if !bucket.take(CALLS, now) {
            return;
        }
        self.last += 1;
        self.waiting.insert(self.last, (to, now));
        let relays = relays(cx.overlay(), to);
        let target = cx.overlay().position_of(&to);
        let call = ReachMessage::Call { to, relays };
        cx.ask(self.last, target, false, call.encode());
    }

    /// Answers the call of another node, for this node or one near it. Returns who is to be met.
    pub(super) fn asked(&mut self, asker: Asker, body: &[u8], cx: &mut Cx<'_>) -> Option<NodeId> {
        let Some(ReachMessage::Call { to, relays: theirs }) = ReachMessage::decode(body) else {
            return None;
        };
        let (now, caller) = (cx.now(), asker.contact.clone());
        let answer = if to == cx.me() {
            let bucket = self.called.get_or_insert_with(|| Bucket::full(CALLED, now));
            if !bucket.take(CALLED, now) {
                return None;
            }
            Answer {
                contact: Some(cx.overlay().me().clone()),
                relays: relays(cx.overlay(), caller.id()),
            }
        } else {
            let is_straight = cx.overlay().path(to).0 == PathKind::Direct;
            let me = is_straight.then(|| brief(cx.overlay().me()));
            Answer {
                contact: None,
                relays: me.into_iter().collect(),
            }
        };
        cx.answer(asker, ReachMessage::Answer(answer).encode());
        let by = caller.id();
        let is_met = to == cx.me() && by != to;
        if is_met {
            cx.emit(Event::Called {
                by: caller,
                relays: theirs.iter().map(brief).collect(),
            });
        }
        is_met.then_some(by)
    }

    /// Takes the answer to a call. Returns who is to be met.
    pub(super) fn answered(
        &mut self,
        token: u64,
        from: NodeId,
        reply: &Reply,
        cx: &mut Cx<'_>,
    ) -> Option<NodeId> {
        let (to, _) = self.waiting.remove(&token)?;
        let Reply::Service(body) = reply else {
            return None;
        };
        let Some(ReachMessage::Answer(Answer { contact, relays })) = ReachMessage::decode(body)
        else {
            return None;
        };
        // Of others' addresses nobody else tells.
        let contact = contact.filter(|contact| contact.id() == to && from == to);
        let contact = contact.unwrap_or_else(|| Contact::new(to, []));
        let relays = relays.iter().map(brief).collect();
        cx.emit(Event::Answered { contact, relays });
        Some(to)
    }

    /// Nobody answered.
    pub(super) fn failed(&mut self, token: u64) {
        self.waiting.remove(&token);
    }
}

/// Returns who may carry from `other` to this node: those with whom it has sessions that go
/// straight, reachable ones first.
pub(super) fn relays(overlay: &Overlay, other: NodeId) -> Vec<Contact> {
    let peers = overlay.peers().filter(|peer| {
        let id = peer.contact().id();
        // A session between two paths has none; who carries looks again.
        id != other && overlay.path(id).0 != PathKind::Relayed
    });
    let mut peers: Vec<_> = peers.collect();
    peers.sort_by_key(|peer| {
        let id = peer.contact().id();
        let is_where_it_says = overlay.path(id).1;
        let is_where_it_says = is_where_it_says.map(|at| peer.contact().addresses().contains(&at));
        (
            !peer.grade().is_reachable(),
            is_where_it_says != Some(true),
            id,
        )
    });
    let contacts = peers.into_iter().map(|peer| brief(peer.contact()));
    contacts.take(RELAYS_MAX).collect()
}

/// A contact with few addresses.
fn brief(contact: &Contact) -> Contact {
    let addresses = contact.addresses().iter().take(ADDRESSES_MAX);
    Contact::new(contact.id(), addresses.copied())
}
