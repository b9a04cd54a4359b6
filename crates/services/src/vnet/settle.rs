//! Whose an address is, before that is believed.
//!
//! A claim that a member tells of, or that is in the directory, says who made it and not that its
//! address is the member's. So the DHT is asked before a packet to many is taken from an IPv4
//! address for the first time, before the way to a member that was found by another of its
//! addresses is opened, and when two claim the same. The IPv6 address follows from the node's key.
//! What waits for an answer is bounded, and questions that others cause come out of their budgets
//! ([`super::pace`]).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use enishi_overlay::{NodeId, Time};

use super::attach::By;
use super::members::MEMBERS_MAX;
use super::wire::Claim;
use super::{Channel, ChannelId, Cx, Event, Network, Purpose, Vnet};
use crate::bucket::{Bucket, Rate};
use crate::calls::{Consistency, GetAnswer};

/// The most addresses that are being looked up at once, in one channel.
const ADDRESSES_MAX: usize = 64;
/// The most that waits for one of them.
const WAITING_MAX: usize = 4;
/// Of how many members it is remembered that they hold their addresses, in one channel.
const SETTLED_MAX: usize = 2 * MEMBERS_MAX;

/// How many questions packets of authors who are not known may cause, in one channel: anybody who
/// has its secret may make authors up.
const STRANGERS: Rate = Rate {
    per_s: 1,
    burst: 16,
};
/// For how long nobody is asked again about an address of which nobody answered.
const UNANSWERED_FOR: Duration = Duration::from_secs(10);

/// What waits until it is known whose an address is.
#[derive(Debug)]
pub(super) enum Waiting {
    /// A packet to all from that address.
    Packet {
        /// Who has sent it.
        author: NodeId,
        /// The packet.
        packet: Bytes,
    },
    /// The way to a member that was found by another address.
    Way {
        /// That address.
        wanted: IpAddr,
        /// The member's claim.
        claim: Box<Claim>,
    },
}

/// Whose addresses are being looked up, and which were found to be whose.
#[derive(Debug)]
pub(super) struct Settling {
    waiting: BTreeMap<IpAddr, Vec<Waiting>>,
    settled: BTreeMap<NodeId, Ipv4Addr>,
    /// Until when nobody is asked about which address again.
    unanswered: BTreeMap<IpAddr, Time>,
    /// What is left of [`STRANGERS`].
    strangers: Bucket,
}

impl Settling {
    pub(super) fn new(now: Time) -> Self {
        Self {
            waiting: BTreeMap::new(),
            settled: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            strangers: Bucket::full(STRANGERS, now),
        }
    }

    /// The DHT has an address for a member, and so for no other.
    pub(super) fn note(&mut self, member: NodeId, address: Ipv4Addr) {
        self.settled
            .retain(|node, other| *other != address || *node == member);
        if self.settled.len() < SETTLED_MAX || self.settled.contains_key(&member) {
            self.settled.insert(member, address);
        }
    }

    /// A member has left, and may have given its address up.
    pub(super) fn forget(&mut self, member: &NodeId) {
        self.settled.remove(member);
    }

    /// Forgets those that are no members any more.
    pub(super) fn retain(&mut self, is_member: impl Fn(&NodeId) -> bool) {
        self.settled.retain(|node, _| is_member(node));
    }

    /// Nobody answered whose an address is.
    fn note_unanswered(&mut self, address: IpAddr, now: Time) {
        self.unanswered.retain(|_, until| now < *until);
        if self.unanswered.len() < ADDRESSES_MAX {
            self.unanswered.insert(address, now + UNANSWERED_FOR);
        }
    }

    fn is_unanswered(&self, address: &IpAddr, now: Time) -> bool {
        self.unanswered
            .get(address)
            .is_some_and(|until| now < *until)
    }

    fn is_settled(&self, member: &NodeId, address: Ipv4Addr) -> bool {
        self.settled.get(member) == Some(&address)
    }
}

impl Channel {
    /// Tells whether a member was found to hold the address that its claim says, and nobody else since.
    pub(super) fn is_settled(&self, claim: &Claim) -> bool {
        self.settling.is_settled(&claim.contact.id(), claim.address)
    }

    /// Returns the member that speaks from an address, if it is known that the address is its own.
    pub(super) fn speaker(&self, author: &NodeId, source: IpAddr) -> Option<&Claim> {
        let claim = self.members.get(author)?;
        let is_own = match source {
            IpAddr::V4(source) => {
                source == claim.address && self.settling.is_settled(author, source)
            }
            IpAddr::V6(source) => source == claim.address6,
        };
        is_own.then_some(claim)
    }

    /// Tells whether a node could have an address as its own: one that it has claimed, or, while
    /// its claim is not known, any.
    fn may_have(&self, node: &NodeId, address: IpAddr) -> bool {
        let claim = self.members.get(node);
        match address {
            IpAddr::V4(address) => claim.map_or_else(
                || self.network.has_host(address),
                |claim| claim.address == address,
            ),
            IpAddr::V6(address) => address == Network::address6(self.keys.id(), node),
        }
    }
}

impl Vnet {
    /// A packet to all came from an address of which it is not known that it is its author's: it
    /// passes if the DHT says so.
    pub(super) fn settle_author(
        &mut self,
        id: ChannelId,
        author: NodeId,
        (source, packet): (IpAddr, &[u8]),
        cx: &mut Cx<'_>,
    ) {
        let now = cx.now();
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if !channel.may_have(&author, source) {
            return;
        }
        let packet = Bytes::copy_from_slice(packet);
        let waiting = Waiting::Packet { author, packet };
        if let Some(claim) = channel.cached(&source, now) {
            let claim = claim.cloned();
            return self.tell_waiting(id, claim.as_ref(), waiting, cx);
        }
        if channel.settling.is_unanswered(&source, now) {
            return self.tell_unanswered(id, waiting, cx);
        }
        let is_known = channel.members.contains_key(&author);
        let is_asked = channel.settling.waiting.contains_key(&source);
        let may_ask = is_asked
            || (is_known || channel.settling.strangers.take(STRANGERS, now))
                && self.lookups.take(author, now);
        if may_ask {
            self.settle(id, source, Some(waiting), cx);
        }
    }

    /// Opens the way to the member whose claim was found under an address, once it is known that
    /// the claim's own IPv4 address is the member's too.
    pub(super) fn attach_found(
        &mut self,
        id: ChannelId,
        wanted: IpAddr,
        claim: &Claim,
        cx: &mut Cx<'_>,
    ) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let own = claim.address;
        if wanted == own || channel.is_settled(claim) {
            return self.attach(id, wanted, claim, By::Proof, cx);
        }
        let claim = Box::new(claim.clone());
        self.settle(id, own.into(), Some(Waiting::Way { wanted, claim }), cx);
    }

    /// Asks the DHT whose an address is.
    pub(super) fn settle(
        &mut self,
        id: ChannelId,
        address: IpAddr,
        waiting: Option<Waiting>,
        cx: &mut Cx<'_>,
    ) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let all = &mut channel.settling.waiting;
        let is_asked = all.contains_key(&address);
        let has_room = is_asked || all.len() < ADDRESSES_MAX;
        let of_address = has_room.then(|| all.entry(address).or_default());
        match (of_address, waiting) {
            (Some(of_address), Some(waiting)) if of_address.len() < WAITING_MAX => {
                of_address.push(waiting);
            }
            (_, Some(waiting)) => self.tell_waiting(id, None, waiting, cx),
            (_, None) => {}
        }
        if has_room && !is_asked {
            let purpose = Purpose::Settle(id, address);
            self.get(id, address, purpose, Consistency::Any, cx);
        }
    }

    /// The DHT has told whose an address is.
    pub(super) fn settled(
        &mut self,
        id: ChannelId,
        address: IpAddr,
        answer: &GetAnswer,
        cx: &mut Cx<'_>,
    ) {
        let claim = self.found_under(id, address, answer, cx);
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let waiting = channel.settling.waiting.remove(&address);
        if *answer == GetAnswer::Failed {
            channel.settling.note_unanswered(address, cx.now());
            for waiting in waiting.into_iter().flatten() {
                self.tell_unanswered(id, waiting, cx);
            }
            return;
        }
        if let Some(claim) = &claim {
            self.learn(id, address, claim, cx);
        }
        for waiting in waiting.into_iter().flatten() {
            self.tell_waiting(id, claim.as_ref(), waiting, cx);
        }
    }

    /// Nobody answered whose an address is, as when the overlay is split: what a known member says
    /// from the address that it alone has claimed passes; ways are not opened.
    fn tell_unanswered(&mut self, id: ChannelId, waiting: Waiting, cx: &mut Cx<'_>) {
        let Waiting::Packet { author, packet } = &waiting else {
            return self.tell_waiting(id, None, waiting, cx);
        };
        // The claims that are known name no address twice.
        let channel = self.channels.get(&id);
        let author = channel.and_then(|channel| channel.members.get(author));
        if let Some(author) = author.cloned() {
            self.let_pass(id, &author, packet, cx);
        }
    }

    /// The claim of who has an address, or that nobody has, for one that waits for it.
    fn tell_waiting(
        &mut self,
        id: ChannelId,
        holder: Option<&Claim>,
        waiting: Waiting,
        cx: &mut Cx<'_>,
    ) {
        let is_of = |node: NodeId| holder.is_some_and(|holder| holder.contact.id() == node);
        match waiting {
            Waiting::Packet { author, packet } => {
                if let Some(holder) = holder.filter(|_| is_of(author)) {
                    self.let_pass(id, holder, &packet, cx);
                }
            }
            Waiting::Way { wanted, claim } if is_of(claim.contact.id()) => {
                self.attach(id, wanted, &claim, By::Proof, cx);
            }
            Waiting::Way { wanted, .. } => cx.emit(Event::Unresolved {
                channel: id,
                address: wanted,
            }),
        }
    }

    /// A claim was found under an address: the member holds it, and no other that claims it does.
    pub(super) fn learn(&mut self, id: ChannelId, address: IpAddr, claim: &Claim, cx: &mut Cx<'_>) {
        let (me, node) = (cx.me(), claim.contact.id());
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if address == IpAddr::V4(claim.address) {
            let is_rival = |other: &&Claim| {
                let rival = other.contact.id();
                let is_other = rival != node && rival != me;
                other.address == claim.address && is_other && !channel.is_attached_by_proof(&rival)
            };
            let rivals = channel.members.values().filter(is_rival);
            let rivals: Vec<NodeId> = rivals.map(|rival| rival.contact.id()).collect();
            channel.settling.note(node, claim.address);
            channel.prove(node);
            for rival in rivals {
                // It may just be asked, or have answered, as it held the address before.
                self.forget_by_memory(id, rival, cx);
                self.lose(id, rival, cx);
            }
        }
        let channel = self.channels.get(&id);
        let known = channel.and_then(|channel| channel.members.get(&node));
        // What the member itself has said may be newer.
        if node != me && known.is_none_or(|known| known.address != claim.address) {
            self.take_in(id, claim, false, cx);
            self.find_routes(id, cx);
        }
    }
}
