//! The gate of a closed overlay: in front of everything else that a node hears and says.
//!
//! ```text
//!   session --message--> gate --of members only--> overlay, services
//!   session <--"I am a member", message-- gate <--message-- overlay, services
//! ```
//!
//! The first thing that goes to another node in a session is the own proof
//! ([`enishi_overlay::admission`]); whoever has shown none, or one that does not count, is
//! not listened to: its messages are counted and have no effect, and it hears the same
//! nothing whatever the reason is. A node shows its proof to those whom it addresses
//! itself, and to others only after they have shown theirs. Nothing waits for an answer, so
//! admission costs octets and no round trip.
//!
//! A node that restarted has forgotten whom it admitted: it asks who speaks
//! ([`Admission::Ask`]), which tells nothing, and the other shows its proof again.
//!
//! | part | does |
//! |---|---|
//! | `membership` | by what a node belongs to a closed overlay |
//! | `peers` | who was admitted in the present sessions, within limits |
//!
//! In the open overlay the gate lets everything pass.

mod membership;
mod peers;

use std::collections::VecDeque;
use std::convert::Infallible;

use enishi_overlay::admission::{
    Admission, Credential, Presentation, Proof, RefusedError, Revocations, Rule, Standing,
    secret_proof, verify_secret_proof,
};
use enishi_overlay::{Message, NodeId, OverlayId, Rng, Time};
use serde::{Deserialize, Serialize};

use crate::service::{Context, Service, ServiceInput};
use crate::uses::{Finding, Uses};

pub use membership::{Invited, Membership, invitation_keys, invitation_name};

use peers::Peers;

/// How many messages of a node that has shown no proof are overheard in one session before
/// the session is ended.
const OVERHEARD_MAX: u32 = 16;

/// Between two proofs of one node that are looked at after a wrong one, between two
/// questions to it, and between two answers to its questions.
const PAUSE: Time = Time::from_secs(1);

/// Under which keys the gate keeps what it has to remember.
const REVOCATIONS_KEY: &[u8] = b"revocations";
const USE_KEY: &[u8] = b"use";

/// What may be asked of the gate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Takes a list of the authority's over and spreads it.
    Revoke(Revocations),
}

/// What was refused, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages of nodes that had shown no proof that counts.
    pub messages_turned_away: u64,
    /// Proofs that do not count.
    pub proofs_refused: u64,
    /// Members whose certificate ended, was revoked or turned out to be a second use.
    pub members_dropped: u64,
}

/// What the gate has the node do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Order {
    /// Send this, past the gate.
    Send(NodeId, Message),
    /// End the session and take the node out of all tables.
    Drop(NodeId),
}

/// Whether a message may go to a node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Passage {
    /// It may.
    Free,
    /// It may, after this one.
    After(Message),
    /// The node was removed from the overlay.
    Barred,
}

/// The gate of one node.
#[derive(Debug, Default)]
pub struct Gate(Option<Closed>);

#[derive(Debug)]
struct Closed {
    me: NodeId,
    overlay: OverlayId,
    membership: Membership,
    /// None for the simple form.
    credential: Option<Credential>,
    revocations: Option<Revocations>,
    peers: Peers,
    uses: Uses,
    orders: VecDeque<Order>,
    counters: Counters,
}

type Cx<'a> = Context<'a, Infallible>;

impl Gate {
    /// Makes the gate of a closed overlay.
    pub fn closed(me: NodeId, membership: Membership, rng: &mut Rng) -> Self {
        let (credential, uses) = match &membership {
            Membership::Secret(_) => (None, Uses::default()),
            Membership::Certified { certificate, .. } => {
                let member = certificate.clone();
                let invitation = None;
                (Some(Credential { member, invitation }), Uses::default())
            }
            Membership::Invited(invited) => {
                let keys = invited.keys();
                // Users of one invitation begin with different keys of it.
                let first = rng.below(keys.len().max(1) as u64) as usize;
                let credential = keys.get(first).map(|key| invited.credential(me, key));
                let uses = match invited.is_single_use() {
                    true => Uses::with_keys(keys, first),
                    false => Uses::default(),
                };
                (credential, uses)
            }
        };
        Self(Some(Closed {
            me,
            overlay: membership.overlay(),
            membership,
            credential,
            revocations: None,
            peers: Peers::default(),
            uses,
            orders: VecDeque::new(),
            counters: Counters::default(),
        }))
    }

    /// Returns whom the authority has removed, as far as this node has heard.
    pub fn revocations(&self) -> Option<&Revocations> {
        self.0.as_ref()?.revocations.as_ref()
    }

    /// Returns what was refused.
    pub fn counters(&self) -> Counters {
        let closed = self.0.as_ref();
        closed.map_or_else(Counters::default, |closed| closed.counters)
    }

    /// Returns how many nodes have shown a proof that counts in the present sessions.
    pub fn admitted(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |closed| closed.peers.admitted().count())
    }

    /// Tells whether a node has.
    pub fn has_admitted(&self, peer: NodeId) -> bool {
        let closed = self.0.as_ref();
        closed.is_some_and(|closed| closed.peers.standing(peer).is_some())
    }

    /// Tells whether there is one at all.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_some()
    }

    /// Tells whether what a node says gets through.
    pub(crate) fn lets_speak(&self, peer: NodeId) -> bool {
        !self.is_closed() || self.has_admitted(peer)
    }

    /// Tells whether other nodes have used up the invitation by which this one came.
    pub fn is_used_up(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|closed| closed.uses.is_used_up())
    }

    /// Takes in a message; returns it when it is for the overlay.
    pub(crate) fn receive(
        &mut self,
        from: NodeId,
        message: Message,
        cx: &mut Cx<'_>,
    ) -> Option<Message> {
        let Some(closed) = &mut self.0 else {
            return Some(message);
        };
        match message {
            Message::Admission(admission) => {
                closed.on_admission(from, *admission, cx);
                None
            }
            message if closed.is_admitted(from, cx) => Some(message),
            _ => {
                closed.turn_away(from, cx.now());
                None
            }
        }
    }

    /// Tells whether a message may go to a node, and what has to go before it.
    pub(crate) fn passage(&mut self, to: NodeId, now: Time) -> Passage {
        let Some(closed) = &mut self.0 else {
            return Passage::Free;
        };
        if closed.bars(&to) {
            return Passage::Barred;
        }
        if closed.peers.partner(to, now).presented_at.is_some() {
            return Passage::Free;
        }
        Passage::After(closed.presentation(to, now))
    }

    /// Tells whether nothing may be said to a node: it was removed from the overlay.
    pub(crate) fn bars(&self, peer: NodeId) -> bool {
        self.0.as_ref().is_some_and(|closed| closed.bars(&peer))
    }

    /// The session with a node ended; whoever comes back has to show its proof again.
    pub(crate) fn session_ended(&mut self, peer: NodeId) {
        if let Some(closed) = &mut self.0 {
            closed.peers.forget(peer);
        }
    }

    /// Takes the next order.
    pub(crate) fn pop_order(&mut self) -> Option<Order> {
        self.0.as_mut()?.orders.pop_front()
    }
}

impl Closed {
    fn on_admission(&mut self, from: NodeId, admission: Admission, cx: &mut Cx<'_>) {
        match admission {
            Admission::Ask => self.on_ask(from, cx.now()),
            Admission::Present(presentation) => self.on_present(from, &presentation, cx),
            Admission::Revoked(list) if self.is_admitted(from, cx) => {
                self.peers.partner(from, cx.now()).revocations = list.number();
                self.adopt(list, cx);
            }
            Admission::Revoked(_) => self.turn_away(from, cx.now()),
        }
    }

    /// A node wants to know who speaks to it: those to whom this one does speak.
    fn on_ask(&mut self, from: NodeId, now: Time) {
        let presented_at = self.peers.presented_at(from);
        if !self.bars(&from) && presented_at.is_some_and(|at| is_past(at, now)) {
            self.present(from, now);
        }
    }

    fn on_present(&mut self, from: NodeId, shown: &Presentation, cx: &mut Cx<'_>) {
        let now = cx.now();
        let digest = digest(&shown.proof);
        let peer = self.peers.spoken(from, now);
        let (seen, tried_at) = (peer.admitted_by(&digest), peer.tried_at);
        let standing = match seen {
            Some(standing) => Some(standing),
            // A wrong proof costs its sender time, and this node no signature checks.
            None if tried_at.is_some_and(|at| !is_past(at, now)) => None,
            None => self.verify(from, &shown.proof, cx.unix_s()).ok(),
        };
        let second_use = |standing: &Standing| {
            let key = standing.single_use;
            key.is_some_and(|key| self.uses.bars_use(key, from))
        };
        let Some(standing) = standing.filter(|standing| !second_use(standing)) else {
            return self.refuse(from, now);
        };
        let peer = self.peers.partner(from, now);
        peer.admit(standing, digest);
        peer.revocations = peer.revocations.max(shown.revocations);
        if let Some(key) = standing.single_use {
            self.uses.watch(key, from, cx);
        } else {
            self.uses.unbar(&from);
        }
        if !shown.known {
            self.present(from, now);
        }
        self.update(from, now);
    }

    fn verify(&self, from: NodeId, proof: &Proof, unix_s: u64) -> Result<Standing, RefusedError> {
        match (&self.membership, proof) {
            (Membership::Secret(secret), Proof::Secret(shown)) => {
                let standing = Standing {
                    expires_unix_s: u64::MAX,
                    invitation: None,
                    single_use: None,
                };
                verify_secret_proof(secret, &self.overlay, &from, &self.me, *shown)
                    .then_some(standing)
                    .ok_or(RefusedError::Foreign)
            }
            (
                Membership::Certified { authority, .. }
                | Membership::Invited(Invited { authority, .. }),
                Proof::Credential(credential),
            ) => {
                let rule = Rule {
                    overlay: &self.overlay,
                    authority,
                    revocations: self.revocations.as_ref(),
                    unix_s,
                };
                credential.verify(&from, &rule)
            }
            (Membership::Secret(_), Proof::Credential(_))
            | (Membership::Certified { .. } | Membership::Invited(_), Proof::Secret(_)) => {
                Err(RefusedError::Foreign)
            }
        }
    }

    /// A proof that does not count ends the session, without a word.
    fn refuse(&mut self, from: NodeId, now: Time) {
        self.counters.proofs_refused += 1;
        self.peers.forget(from);
        self.peers.spoken(from, now).tried_at = Some(now);
        self.orders.push_back(Order::Drop(from));
    }

    fn is_admitted(&mut self, from: NodeId, cx: &Cx<'_>) -> bool {
        let Some(standing) = self.peers.standing(from) else {
            return false;
        };
        if standing.expires_unix_s > cx.unix_s() {
            self.peers.partner(from, cx.now());
            return true;
        }
        self.expel(from);
        false
    }

    fn turn_away(&mut self, from: NodeId, now: Time) {
        self.counters.messages_turned_away += 1;
        let peer = self.peers.spoken(from, now);
        peer.overheard += 1;
        if peer.overheard > OVERHEARD_MAX {
            self.peers.forget(from);
            self.orders.push_back(Order::Drop(from));
        } else if peer.asked_at.is_none_or(|at| is_past(at, now)) {
            peer.asked_at = Some(now);
            self.say(from, Admission::Ask);
        }
    }

    fn present(&mut self, to: NodeId, now: Time) {
        let message = self.presentation(to, now);
        self.orders.push_back(Order::Send(to, message));
    }

    /// Makes the own proof for a node.
    fn presentation(&mut self, to: NodeId, now: Time) -> Message {
        let number = self.number();
        let proof = match (&self.membership, &self.credential) {
            (Membership::Secret(secret), _) => secret_proof(secret, &self.overlay, &self.me, &to),
            (_, Some(credential)) => Proof::Credential(Box::new(credential.clone())),
            // An invitation without keys: nobody accepts it, and nobody made one.
            (_, None) => Proof::Secret([0; 32]),
        };
        let peer = self.peers.partner(to, now);
        peer.presented_at = Some(now);
        let presentation = Presentation {
            proof,
            known: peer.standing.is_some(),
            revocations: number,
        };
        Message::Admission(Box::new(Admission::Present(presentation)))
    }

    fn say(&mut self, to: NodeId, admission: Admission) {
        let message = Message::Admission(Box::new(admission));
        self.orders.push_back(Order::Send(to, message));
    }

    fn number(&self) -> u64 {
        self.revocations.as_ref().map_or(0, Revocations::number)
    }

    fn bars(&self, peer: &NodeId) -> bool {
        let list = self.revocations.as_ref();
        list.is_some_and(|list| list.contains(peer)) || self.uses.bars(peer)
    }

    /// Sends a node the list of removed ones, if its own is older.
    fn update(&mut self, peer: NodeId, now: Time) {
        let number = self.number();
        let theirs = &mut self.peers.partner(peer, now).revocations;
        if *theirs < number
            && let Some(list) = self.revocations.clone()
        {
            *theirs = number;
            self.say(peer, Admission::Revoked(list));
        }
    }

    /// Takes over a newer list of the authority's: drops whom it names and tells the
    /// others.
    fn adopt(&mut self, list: Revocations, cx: &mut Cx<'_>) {
        let authority = self.membership.authority();
        let genuine = |authority| list.verify(&self.overlay, &authority);
        if list.number() <= self.number() || !authority.is_some_and(genuine) {
            return;
        }
        cx.persist(REVOCATIONS_KEY.to_vec(), postcard::to_stdvec(&list).ok());
        let admitted: Vec<(NodeId, Standing)> = self.peers.admitted().collect();
        for (peer, standing) in &admitted {
            let by = standing.invitation.is_some_and(|name| list.contains(&name));
            if by || list.contains(peer) {
                self.expel(*peer);
            }
        }
        self.revocations = Some(list);
        for (peer, _) in admitted {
            if self.peers.standing(peer).is_some() {
                self.update(peer, cx.now());
            }
        }
    }

    fn expel(&mut self, peer: NodeId) {
        self.counters.members_dropped += 1;
        self.peers.forget(peer);
        self.orders.push_back(Order::Drop(peer));
    }

    fn restore(&mut self, key: &[u8], value: &[u8]) {
        match (key, self.membership.authority()) {
            (REVOCATIONS_KEY, Some(authority)) => {
                let list: Option<Revocations> = postcard::from_bytes(value).ok();
                self.revocations = list.filter(|list| list.verify(&self.overlay, &authority));
            }
            (USE_KEY, _) => {
                if let [index] = value
                    && self.uses.choose(usize::from(*index))
                {
                    self.renew_credential();
                }
            }
            _ => {}
        }
    }

    /// Acts on what was found out about the uses of invitations.
    fn act(&mut self, finding: Finding, cx: &mut Cx<'_>) {
        match finding {
            Finding::Nothing => {}
            Finding::AnotherKey(index) => {
                let index = u8::try_from(index).unwrap_or_default();
                cx.persist(USE_KEY.to_vec(), Some(vec![index]));
                self.renew_credential();
                self.peers.present_anew();
            }
            Finding::SecondUse { key, member } => {
                let standing = self.peers.standing(member);
                if standing.is_some_and(|standing| standing.single_use == Some(key)) {
                    self.expel(member);
                }
            }
        }
    }

    fn renew_credential(&mut self) {
        if let (Membership::Invited(invited), Some(key)) = (&self.membership, self.uses.key()) {
            self.credential = Some(invited.credential(self.me, key));
        }
    }
}

impl Service for Gate {
    type Command = Command;
    type Event = Infallible;

    fn handle(&mut self, input: ServiceInput<Command>, cx: &mut Cx<'_>) {
        let Some(closed) = &mut self.0 else { return };
        match input {
            ServiceInput::Command(Command::Revoke(list)) => closed.adopt(list, cx),
            ServiceInput::Restored { key, value, .. } => closed.restore(&key, &value),
            ServiceInput::NeighboursChanged => closed.uses.neighbours_changed(cx.now()),
            ServiceInput::Got { token, answer } => {
                let finding = closed.uses.got(token, &answer, cx);
                closed.act(finding, cx);
            }
            ServiceInput::PutDone { token, answer } => {
                let finding = closed.uses.put_done(token, answer, cx);
                closed.act(finding, cx);
            }
            ServiceInput::Direct { .. }
            | ServiceInput::Asked { .. }
            | ServiceInput::Answered { .. }
            | ServiceInput::Failed { .. }
            | ServiceInput::Searched { .. }
            | ServiceInput::HopReport { .. }
            | ServiceInput::AddressesChanged
            | ServiceInput::Heard(_)
            | ServiceInput::Receipts { .. }
            | ServiceInput::Gone(_)
            | ServiceInput::Timeout => {}
        }
        closed.uses.ring(cx);
    }

    fn next_timeout(&self) -> Option<Time> {
        self.0.as_ref()?.uses.next_timeout()
    }
}

fn is_past(at: Time, now: Time) -> bool {
    now.since(at) >= PAUSE.since(Time::ZERO)
}

fn digest(proof: &Proof) -> [u8; 32] {
    // Serialising into a growing vector fails for no value of this type.
    *blake3::hash(&postcard::to_stdvec(proof).unwrap_or_default()).as_bytes()
}
