//! What a node makes of its accounts: whom it serves, on whom it relies, and how it learns.
//!
//! [`crate::standing`] keeps the accounts and says what counts as evidence. With
//! [`Policy::Reputation`] a node does not wait for its lookups to fail: once in a while it
//! puts a question to which the answer is of no interest to a peer that has to pass it on,
//! to one that failed lately and never delivered before all others. So a free rider is known
//! soon, an unlucky node is cleared as soon, and what it costs is not time that a person
//! waits. A question of that kind looks like any other.

use std::time::Duration;

use super::Overlay;
use super::requests::FIRST_TRY_TIMEOUT;
use crate::contact::Contact;
use crate::id::NodeId;
use crate::message::Routed;
use crate::ring::Position;
use crate::standing::{Outcome, Policy};
use crate::time::Time;

impl Overlay {
    /// An own question was answered by `by`; `through` is who brought the answer. If it
    /// came straight, that is known only of a question that one node alone was given.
    pub(super) fn delivered(
        &mut self,
        now: Time,
        request: u64,
        through: Option<NodeId>,
        by: NodeId,
    ) {
        let Some(entrusted) = self.hops.returns.take_answered(request) else {
            return;
        };
        let only = match entrusted.given.as_slice() {
            [only] => Some(*only),
            _ => None,
        };
        // Who answers itself has not passed anything on.
        if let Some(through) = through.or(only).filter(|through| *through != by) {
            self.accounts.learned(now, through, Outcome::Delivered);
        }
    }

    /// Of own questions that were not answered in time: whoever confirmed one, and was the
    /// only one to, has dropped it.
    pub(super) fn note_dropped(&mut self, now: Time) {
        while let Some(entrusted) = self.hops.returns.take_overdue(now) {
            if let [only] = entrusted.confirmed.as_slice() {
                self.accounts.learned(now, *only, Outcome::Dropped);
            }
        }
    }

    /// Notes that a message is passed on for `previous`.
    pub(super) fn account_for(&mut self, now: Time, previous: NodeId, routed: &Routed) {
        let bytes = routed.encoded_len();
        let own = routed.origin.id() == previous;
        self.accounts.carried(now, previous, bytes, own);
        self.budget.spend();
    }

    /// Tells whether this node does not want to pass a message of `previous` on. Who looks
    /// for its own place is always served: that the ring is whole concerns everybody.
    pub(super) fn declines(&mut self, now: Time, previous: NodeId, routed: &Routed) -> bool {
        if routed.target == self.position_of(&routed.origin.id()) {
            return false;
        }
        match self.config.policy {
            Policy::None => false,
            Policy::Trust => {
                let room = self.budget.has_room(now);
                !room && !self.config.trusted.contains(&previous)
            }
            Policy::Reputation => self.only_takes(now, previous),
        }
    }

    /// Tells whether a node is in bad standing, if the policy is to heed that.
    pub(super) fn only_takes(&self, now: Time, id: NodeId) -> bool {
        let account = self.accounts.of(id);
        self.config.policy == Policy::Reputation && account.is_some_and(|a| a.is_bad(now))
    }

    /// Ends the long links, in both directions, with those that pass nothing on.
    pub(super) fn end_vain_links(&mut self, now: Time) {
        let long = self.peers.iter().filter(|(_, peer)| peer.is_long());
        let vain = long.filter(|(id, _)| self.only_takes(now, **id));
        let vain: Vec<NodeId> = vain.map(|(id, _)| *id).collect();
        for id in vain {
            self.view_stale = true;
            if self.near.contains(id)
                && let Some(peer) = self.peers.get_mut(&id)
            {
                (peer.drawn_at_size, peer.link_in) = (None, false);
            } else {
                self.peers.remove(&id);
            }
        }
    }

    /// Returns how much time a message is expected to lose with a node that has to pass it
    /// on with a probability of `relays_256` / 256. Of some in others' views it is not known
    /// who they are: those have neither trust nor a record.
    pub(super) fn doubt(&self, now: Time, id: Option<NodeId>, relays_256: u64) -> Duration {
        let trusts = |id| self.config.trusted.contains(&id);
        let whole = match self.config.policy {
            Policy::None => return Duration::ZERO,
            Policy::Trust if id.is_some_and(trusts) => Duration::ZERO,
            Policy::Trust => self.typical.usual(),
            Policy::Reputation => match id.and_then(|id| self.accounts.of(id)) {
                Some(account) => account.doubt(now, FIRST_TRY_TIMEOUT, self.typical.usual()),
                None => Duration::ZERO,
            },
        };
        whole * relays_256.min(256) as u32 / 256
    }

    /// Tries one peer by a question that it has to pass on, if the policy asks for it.
    pub(super) fn try_a_peer(&mut self, now: Time) {
        if self.config.policy != Policy::Reputation {
            return;
        }
        self.note_dropped(now);
        let worth = |id: &NodeId| self.accounts.of(*id).map(|a| a.tried(now));
        let next = self.peers.iter().min_by_key(|(id, _)| worth(id));
        let Some(via) = next.map(|(_, peer)| peer.contact.clone()) else {
            return;
        };
        let target = Position::from_number(self.rng.number());
        self.try_peer(now, target, via);
    }

    fn try_peer(&mut self, now: Time, target: Position, via: Contact) {
        self.accounts.tries(now, via.id());
        self.ask_in_vain(now, target, via);
    }
}
