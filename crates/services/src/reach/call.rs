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
//! reachable ones first, and of these the nearest. The caller then takes the nearest to itself of those with
//! whom it has a session.
//!
//! If A itself is in charge of B's position, since B has been silent to it, A goes on as if another one had
//! said that B is not there, and calls once more, by way of one of those who may carry, who may know B: each
//! time that was in vain, the next call goes by another one. If somebody else is in charge of B's position, for example since B is a client, it names itself
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

/// How often this node calls. Where many are not reached at once, the others are wanted again. A call
/// costs about ten messages where all is well, and several times as many where nodes are slow.
const CALLS: Rate = Rate {
    per_s: 1,
    burst: 64,
};

/// How often this node follows the calls of others.
const CALLED: Rate = Rate {
    per_s: 2,
    burst: 24,
};

/// For how long a call is taken for a copy of the same caller's last one, which came by another way, and how
/// many copies are answered: the first answer may be lost.
const COPIES_FOR: Duration = Duration::from_secs(2);
const COPIES_MAX: u8 = 4;

/// The calls of a node.
#[derive(Debug, Default)]
pub(super) struct Calls {
    waiting: BTreeMap<u64, Waiting>,
    last: u64,
    /// How many calls of a node by way of a peer were in vain since one was not.
    in_vain: BTreeMap<NodeId, usize>,
    calls: Option<Bucket>,
    called: Option<Bucket>,
    /// Whose calls were followed lately: at most as many as [`CALLED`] allows in [`COPIES_FOR`].
    followed: BTreeMap<NodeId, Followed>,
}

/// A caller whose call was followed.
#[derive(Clone, Copy, Debug)]
struct Followed {
    at: Time,
    copies: u8,
}

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    to: NodeId,
    since: Time,
    /// Whether it goes by way of a peer that was chosen.
    is_by_peer: bool,
}

impl Calls {
    /// Calls a node.
    pub(super) fn call(&mut self, to: NodeId, cx: &mut Cx<'_>) {
        let now = cx.now();
        let is_late = |_: &u64, call: &mut Waiting| now.since(call.since) >= WAITING_TIME;
        let late: Vec<_> = self.waiting.extract_if(.., is_late).collect();
        late.into_iter().for_each(|(_, call)| self.note_vain(call));
        let is_called = self.waiting.values().any(|call| call.to == to);
        if to == cx.me() || is_called || self.waiting.len() >= WAITING_MAX {
            return;
        }
        let bucket = self.calls.get_or_insert_with(|| Bucket::full(CALLS, now));
        if !bucket.take(CALLS, now) {
            return;
        }
        let is_by_peer = false;
        self.send(to, is_by_peer, cx);
    }

    fn send(&mut self, to: NodeId, is_by_peer: bool, cx: &mut Cx<'_>) {
        let relays = relays(cx.overlay(), to);
        let turn = self.in_vain.get(&to).copied().unwrap_or_default();
        let via = relays.get(turn % relays.len().max(1));
        let via = via.filter(|_| is_by_peer).cloned();
        let target = cx.overlay().position_of(&to);
        let call = ReachMessage::Call { to, relays }.encode();
        let since = cx.now();
        self.last += 1;
        let waiting = Waiting {
            to,
            since,
            is_by_peer,
        };
        self.waiting.insert(self.last, waiting);
        match via {
            Some(via) => cx.ask_by(self.last, via, target, call),
            None => cx.ask(self.last, target, false, call),
        }
    }

    /// Answers the call of another node, for this node or one near it. Returns who is to be met.
    pub(super) fn asked(&mut self, asker: Asker, body: &[u8], cx: &mut Cx<'_>) -> Option<NodeId> {
        let Some(ReachMessage::Call { to, relays: theirs }) = ReachMessage::decode(body) else {
            return None;
        };
        let (now, caller) = (cx.now(), asker.contact.clone());
        let mut is_new = true;
        let answer = if to == cx.me() {
            is_new = self.follow(caller.id(), now)?;
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
        let is_met = to == cx.me() && by != to && is_new;
        if is_met {
            cx.emit(Event::Called {
                by: caller,
                relays: theirs.iter().map(brief).collect(),
            });
        }
        is_met.then_some(by)
    }

    /// Tells whether a call is followed, or is answered as a copy; none if it is neither.
    fn follow(&mut self, caller: NodeId, now: Time) -> Option<bool> {
        self.followed
            .retain(|_, followed| now.since(followed.at) < COPIES_FOR);
        if let Some(followed) = self.followed.get_mut(&caller) {
            followed.copies = followed.copies.saturating_add(1);
            return (followed.copies <= COPIES_MAX).then_some(false);
        }
        let bucket = self.called.get_or_insert_with(|| Bucket::full(CALLED, now));
        let followed = Followed { at: now, copies: 0 };
        bucket.take(CALLED, now).then(|| {
            self.followed.insert(caller, followed);
            true
        })
    }

    /// Takes the answer to a call. Returns who is to be met.
    pub(super) fn answered(
        &mut self,
        token: u64,
        from: NodeId,
        reply: &Reply,
        cx: &mut Cx<'_>,
    ) -> Option<NodeId> {
        let call = self.waiting.remove(&token)?;
        let to = call.to;
        // Where the other one would be the next on the ring but was silent, this node is in charge of its
        // place itself. Others may reach it. Whether they do or not, it is to be met.
        if from == cx.me() && !call.is_by_peer && !relays(cx.overlay(), to).is_empty() {
            self.send(to, true, cx);
        }
        match from == to {
            true => drop(self.in_vain.remove(&to)),
            false => self.note_vain(call),
        }
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
        if let Some(call) = self.waiting.remove(&token) {
            self.note_vain(call);
        }
    }

    /// Notes that a call was in vain, if it went by way of a peer: that one does not know the way.
    fn note_vain(&mut self, call: Waiting) {
        if call.is_by_peer {
            if self.in_vain.len() >= WAITING_MAX && !self.in_vain.contains_key(&call.to) {
                self.in_vain.pop_first();
            }
            let count = self.in_vain.entry(call.to).or_default();
            *count = count.wrapping_add(1);
        }
    }
}

/// Returns who may carry from `other` to this node: those with whom it has sessions that go
/// straight, reachable ones first, and of these the nearest.
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
            peer.round_trip().usual(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_one_call_take_nobody_elses_turn() {
        let mut calls = Calls::default();
        let now = Time::from_secs(100);
        for caller in 1..=24 {
            let caller = NodeId::from_bytes([caller; 32]);
            assert_eq!(calls.follow(caller, now), Some(true));
            for _ in 0..COPIES_MAX {
                assert_eq!(calls.follow(caller, now), Some(false));
            }
            assert_eq!(calls.follow(caller, now), None);
        }
        assert_eq!(calls.follow(NodeId::from_bytes([25; 32]), now), None);
        let again = calls.follow(NodeId::from_bytes([1; 32]), now + COPIES_FOR);
        assert_eq!(again, Some(true));
    }
}
