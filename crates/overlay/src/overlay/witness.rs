//! Whom a message waits for, and when it stops waiting.
//!
//! A node in charge that has just died keeps whoever is next in line from answering: it may
//! merely be slow, or out of reach for this one node. So a node that gets no confirmation
//! notes that on the message ([`crate::silence`]) and hands it on to another that could
//! answer; when itself is next in line, to a neighbour that still names the silent one, for a
//! second opinion. That one tries for itself. After three such tries the message arrives at
//! whoever is next.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Overlay;
use super::requests::TRY_BITS;
use super::route::{NextHop, direct};
use crate::id::NodeId;
use crate::message::Routed;
use crate::peers::Peer;
use crate::ring::Position;
use crate::silence::Silences;
use crate::time::Time;
use crate::view::Role;

/// How much longer the first confirmation takes when a session has to be opened.
const SET_UP: u32 = 3;
/// After so long in silence a session may have been closed: hosts close it after two minutes.
const SESSION_DOUBTED: Duration = Duration::from_secs(100);

/// So many times as long as a confirmation takes a peer must have been silent for others not to
/// be kept waiting for it.
const MUTE: u32 = 2;
/// The most questions of which is remembered who was silent.
const QUESTIONS_MAX: usize = 256;

/// Who was silent to the messages of a question that came by, on whatever way: what one of
/// them has found out the others need not find out again.
#[derive(Clone, Debug, Default)]
pub(super) struct Testimony {
    told: BTreeMap<(NodeId, u64), Silences>,
    order: VecDeque<(NodeId, u64)>,
}

impl Testimony {
    /// Returns what the messages of a question have told so far.
    fn of(&self, routed: &Routed) -> Option<&Silences> {
        self.told.get(&question_of(routed))
    }

    /// Tells a message what others of its question have told, and remembers what it tells. What
    /// another brought leaves this node, `me`, to try for itself: that one may have lied.
    fn share(&mut self, routed: &mut Routed, me: NodeId) {
        let question = question_of(routed);
        if let Some(told) = self.told.get_mut(&question) {
            let carried = routed.silences.clone();
            routed.silences.hear(told, me);
            told.merge(&carried);
        } else if routed.silences.weight() > 0 {
            self.told.insert(question, routed.silences.clone());
            self.order.push_back(question);
            if self.order.len() > QUESTIONS_MAX {
                let oldest = self.order.pop_front();
                oldest.map(|oldest| self.told.remove(&oldest));
            }
        }
    }
}

fn question_of(routed: &Routed) -> (NodeId, u64) {
    (routed.origin.id(), routed.request >> TRY_BITS)
}

impl Overlay {
    /// Has a message that came in and the others of its question tell each other who was
    /// silent, as far as this node believes it.
    pub(super) fn hear_testimony(&mut self, now: Time, routed: &mut Routed) {
        let me = self.me.id();
        let can_try = |at: Position| {
            let mut there = self.peers.values().filter(|peer| peer.position == at);
            there.any(|peer| !self.is_overdue(now, peer.contact.id()))
        };
        let own = self.testimony.of(routed);
        routed.silences.doubt(me, own, can_try);
        self.testimony.share(routed, me);
    }

    /// Has a message that waits here and the others of its question tell each other who was
    /// silent.
    pub(super) fn share_testimony(&mut self, routed: &mut Routed) {
        let me = self.me.id();
        self.testimony.share(routed, me);
    }

    /// Notes on a message that a node did not confirm it in time, and said nothing else since
    /// it was sent; tells whether no message of the question has told so yet.
    pub(super) fn note_silence(
        &mut self,
        routed: &mut Routed,
        silent: NodeId,
        since: Time,
    ) -> bool {
        // A stranger may be out of reach for this node alone; who spoke meanwhile is there,
        // and what it was sent is late.
        let Some(peer) = self.peers.get_mut(&silent).filter(|p| p.heard_at <= since) else {
            return false;
        };
        peer.mute_since = Some(since);
        let (position, me) = (self.position_of(&silent), self.me.id());
        self.testimony.share(routed, me);
        let news = routed.silences.note(position, me);
        self.testimony.share(routed, me);
        if self.is_self(routed.origin.id()) {
            self.remember_silences(routed.request, &routed.silences);
        }
        news
    }

    /// Returns who could tell whether a node is there that this one, nearest to the target
    /// but for it, found silent: a peer that names it as its neighbour.
    pub(super) fn second_opinion(
        &self,
        now: Time,
        routed: &Routed,
        from: Option<NodeId>,
        tried: &[NodeId],
    ) -> Option<NextHop> {
        let mine = routed.target.rank(self.position);
        let open = routed.silences.open();
        let nearer = open.filter(|at| routed.target.rank(*at) < mine);
        let silent = nearer.min_by_key(|at| routed.target.rank(*at))?;
        let voucher = self.voucher_for(now, silent, from, tried)?;
        Some(NextHop {
            toward: Some(silent),
            ..direct(voucher)
        })
    }

    /// Returns where the origin of a message sits if it would go there in vain: from there it
    /// came. Unless it came for a second opinion; but whoever asks for its own place wants its
    /// neighbours.
    pub(super) fn vain_origin(&self, routed: &Routed) -> Option<Position> {
        let origin = self.position_of(&routed.origin.id());
        let asked_others = routed.silences.weight() > 0 && origin != routed.target;
        (!asked_others).then_some(origin)
    }

    /// Tells whether a message need not wait for a node that it was sent to.
    pub(super) fn is_gone_for(&self, now: Time, routed: &Routed, id: NodeId) -> bool {
        self.quarantine.holds(self.position_of(&id), now)
            || routed.silences.believes(self.position_of(&id))
    }

    /// Returns how long to wait for a node to confirm a message before another is tried.
    pub(super) fn patience(&self, now: Time, id: NodeId) -> Duration {
        match self.peers.get(&id) {
            // Who owes a sign of life already is not waited for.
            Some(_) if self.is_overdue(now, id) => Duration::ZERO,
            Some(peer) => confirmed_within(now, peer),
            // A session has to be opened first, which takes some round trips.
            None => self.typical.hedge_delay() * SET_UP,
        }
    }

    /// Tells whether a peer was sent something that it should have confirmed, or answered, by
    /// now, and was not heard since.
    pub(super) fn is_overdue(&self, now: Time, id: NodeId) -> bool {
        let overdue = |peer: &Peer| {
            let mute = peer.mute_since.filter(|since| *since >= peer.heard_at);
            if mute.is_some_and(|since| now.since(since) >= confirmed_within(now, peer) * MUTE) {
                return true;
            }
            let probe = peer.probe.filter(|probe| probe.sent_at() >= peer.heard_at);
            probe.is_some_and(|probe| {
                probe.tries() > 1 || now.since(probe.sent_at()) >= confirmed_within(now, peer)
            })
        };
        self.peers.get(&id).is_some_and(overdue)
    }

    fn voucher_for(
        &self,
        now: Time,
        silent: Position,
        from: Option<NodeId>,
        tried: &[NodeId],
    ) -> Option<&Peer> {
        let vouches = |peer: &&Peer| {
            let id = peer.contact.id();
            let member = peer.view.at(silent);
            peer.position != silent
                && from != Some(id)
                && !tried.contains(&id)
                && !self.quarantine.holds(peer.position, now)
                && !self.is_overdue(now, id)
                && member.is_some_and(|member| member.role == Role::Near)
        };
        let vouchers = self.peers.values().filter(vouches);
        vouchers.min_by_key(|peer| peer.round_trip.least().unwrap_or(Duration::MAX))
    }
}

/// Returns how long a living peer hardly ever takes to confirm a message.
fn confirmed_within(now: Time, peer: &Peer) -> Duration {
    let usual = peer.round_trip.hedge_delay();
    if now.since(peer.heard_at) >= SESSION_DOUBTED {
        usual * SET_UP
    } else {
        usual
    }
}
