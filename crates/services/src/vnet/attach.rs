//! Opening the way to a member.
//!
//! ```text
//! A                                                       B
//! | Attach: channel as A names it to B, nonce, key, claim, proof |
//! |------------------------------------------------------------->|
//! |                          get(A's address): is it A's? (once) |
//! |        Attached: the same of B, with A's nonce               |
//! |<-------------------------------------------------------------|
//! ```
//!
//! Both know each other's node key from the session; the proof, a keyed hash under the
//! channel's session key over both node ids and everything said, shows that the other
//! is a member. B looks A's address up before it takes packets from it, as A has looked
//! up B's; so nobody can send from an address that is not its own. Each chooses an index, with
//! which the other marks its datagrams, and tells where it takes them; the keys to seal them
//! follow from both ([`super::agreement`]). Keys are renewed by the same two messages.
//!
//! When both ask at once, the question of the node with the lower id counts.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use enishi_overlay::message::Reply;
use enishi_overlay::overlay::Manner;
use enishi_overlay::{Contact, NodeId, Time};

use super::agreement::{Agreement, Draw, Said, agree};
use super::claim::own_claim;
use super::members::{open_sealed, seal_claim};
use super::secret::RecordName;
use super::wire::{Attach, CANDIDATES_MAX, Claim, VnetMessage};
use super::{Alarm, Channel, ChannelId, Cx, Event, Purpose, Vnet};
use crate::calls::{Consistency, GetAnswer};

/// How long to wait for the answer, and how often to ask.
const ATTACH_TIMEOUT: Duration = Duration::from_millis(1500);
const ATTACH_TRIES: u32 = 3;
/// The most members with which packets are exchanged in one channel.
const ATTACHED_MAX: usize = 4096;
/// The most members that are being asked, and that are being looked up, in one channel.
const ATTACHING_MAX: usize = 256;
/// How often one node is told of an index that is not in use.
const UNKNOWN_INDEX_INTERVAL: Duration = Duration::from_millis(500);
const UNKNOWN_INDICES_MAX: usize = 1024;

/// A member on the way to being attached.
#[derive(Debug, Default)]
pub(super) struct Attaching {
    /// What this node asked, until it is answered.
    asked: Option<Asked>,
    /// What the member asked, until its address is looked up.
    answer_to: Option<(Attach, Claim)>,
}

/// Why a member is taken for the holder of its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The DHT has just said so, or when packets were exchanged first.
    Proof,
    /// It did some time ago, and is being asked again.
    Memory,
}

#[derive(Debug)]
struct Asked {
    by: By,
    /// Whether the DHT is still to say who has the addresses for which packets wait.
    is_looked_up: bool,
    nonce: [u8; 16],
    draw: Draw,
    claim: Claim,
    /// How the member may be reached: as its claim says, or as was found out since.
    contact: Contact,
    /// Addresses for which packets wait.
    wanted: Vec<IpAddr>,
    tries: u32,
}

/// A member with which packets are exchanged.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) claim: Claim,
    by: By,
    /// With what this node marks datagrams for it.
    send_index: u32,
    /// The question that it was answered last, and the answer: one that comes again is answered
    /// the same, or the two would have different keys.
    answered: Option<([u8; 16], Vec<u8>)>,
}

impl Channel {
    /// Tells whether packets are exchanged with a member of which the DHT said then that it holds its address.
    pub(super) fn is_attached_by_proof(&self, member: &NodeId) -> bool {
        let attached = self.attached.get(member);
        attached.is_some_and(|attached| attached.by == By::Proof)
    }

    /// The DHT says that a member holds its address.
    pub(super) fn prove(&mut self, member: NodeId) {
        if let Some(attached) = self.attached.get_mut(&member) {
            attached.by = By::Proof;
        }
    }
}

impl Vnet {
    /// Asks the holder of an address to exchange packets. One with which they are exchanged
    /// already is asked again: the host does not have the keys any more.
    pub(super) fn attach(
        &mut self,
        id: ChannelId,
        address: IpAddr,
        claim: &Claim,
        by: By,
        cx: &mut Cx<'_>,
    ) {
        let peer = claim.contact.id();
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if channel.attaching.len() >= ATTACHING_MAX && !channel.attaching.contains_key(&peer) {
            // What the DHT says comes still.
            if by == By::Memory {
                return;
            }
            return cx.emit(Event::Unresolved {
                channel: id,
                address,
            });
        }
        let attaching = channel.attaching.entry(peer).or_default();
        if let Some(asked) = &mut attaching.asked {
            match by {
                By::Proof => (asked.by, asked.is_looked_up) = (By::Proof, false),
                By::Memory => asked.is_looked_up = true,
            }
            if !asked.wanted.contains(&address) {
                asked.wanted.push(address);
            }
            return;
        }
        let mut nonce = [0; 16];
        cx.rng().fill(&mut nonce);
        let wanted = vec![address];
        attaching.asked = Some(Asked {
            by,
            is_looked_up: by == By::Memory,
            nonce,
            draw: Draw::new(cx.rng()),
            claim: claim.clone(),
            contact: claim.contact.clone(),
            wanted,
            tries: 0,
        });
        self.send_attach(id, peer, cx);
    }

    fn send_attach(&mut self, id: ChannelId, peer: NodeId, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let asked = channel
            .attaching
            .get_mut(&peer)
            .and_then(|a| a.asked.as_mut());
        let Some(asked) = asked else { return };
        asked.tries += 1;
        let contact = asked.contact.clone();
        let said = Saying {
            to: peer,
            role: b"atch",
            nonce: asked.nonce,
            key: asked.draw.public,
            index: asked.draw.index,
        };
        let Some(attach) = self.say_attach(id, said, cx) else {
            // The address was lost meanwhile.
            return self.give_up(id, peer, cx);
        };
        self.deadlines
            .set(Alarm::Attach(id, peer), cx.now() + ATTACH_TIMEOUT);
        cx.send(contact, VnetMessage::Attach(attach).encode());
    }

    pub(super) fn attach_timed_out(&mut self, id: ChannelId, peer: NodeId, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let Some(attaching) = channel.attaching.get_mut(&peer) else {
            return;
        };
        match &attaching.asked {
            Some(asked) if asked.tries < ATTACH_TRIES => {
                if asked.tries == 1 {
                    // Its claim may be older than its addresses: the ring knows them.
                    let position = cx.overlay().position_of(&peer);
                    let token = self.token(Purpose::Locate(id, peer));
                    cx.locate(token, position, Manner::EXACT);
                }
                self.send_attach(id, peer, cx);
            }
            _ => self.give_up(id, peer, cx),
        }
    }

    /// The nodes near the member's place are known; it should be the first of them.
    pub(super) fn located(&mut self, id: ChannelId, peer: NodeId, reply: &Reply, cx: &mut Cx<'_>) {
        let Reply::Nodes(nodes) = reply else {
            return;
        };
        let mut contacts = nodes.iter().map(|entry| &entry.contact);
        let found = contacts.find(|contact| contact.id() == peer);
        let channel = self.channels.get_mut(&id);
        let attaching = channel.and_then(|channel| channel.attaching.get_mut(&peer));
        let asked = attaching.and_then(|attaching| attaching.asked.as_mut());
        if let (Some(found), Some(asked)) = (found, asked)
            && asked.contact != *found
        {
            asked.contact = found.clone();
            self.send_attach(id, peer, cx);
        }
    }

    /// The DHT knows of nobody who has an address. Tells whether a member is being asked for which packets to it
    /// wait; if it does not answer, nobody will.
    pub(super) fn is_last_hope(&mut self, id: ChannelId, address: IpAddr) -> bool {
        let channel = self.channels.get_mut(&id);
        let attaching = channel.into_iter().flat_map(|it| it.attaching.values_mut());
        let mut asked = attaching.filter_map(|attaching| attaching.asked.as_mut());
        let asked = asked.find(|asked| asked.wanted.contains(&address));
        asked.is_some_and(|asked| {
            asked.is_looked_up = false;
            true
        })
    }

    /// Another one has the address of a member: it is asked no longer, nor heard, if that was done because it
    /// held the address before.
    pub(super) fn forget_by_memory(&mut self, id: ChannelId, peer: NodeId, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let attaching = channel.attaching.get(&peer);
        let asked = attaching.and_then(|attaching| attaching.asked.as_ref());
        if asked.is_some_and(|asked| asked.by == By::Memory) {
            channel.attaching.remove(&peer);
            self.deadlines.cancel(Alarm::Attach(id, peer));
        }
        if channel.attached.contains_key(&peer) {
            detach(id, channel, peer, cx);
        }
    }

    fn give_up(&mut self, id: ChannelId, peer: NodeId, cx: &mut Cx<'_>) {
        self.deadlines.cancel(Alarm::Attach(id, peer));
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let asked = channel
            .attaching
            .remove(&peer)
            .and_then(|attaching| attaching.asked);
        let Some(asked) = asked else { return };
        for address in asked.wanted {
            let is_of_peer = |claim: &Claim| claim.contact.id() == peer;
            let cached = channel.cached(&address, cx.now()).flatten();
            if cached.is_some_and(is_of_peer) {
                channel.cache.remove(&address);
            }
            if !asked.is_looked_up {
                cx.emit(Event::Unresolved {
                    channel: id,
                    address,
                });
            }
        }
    }

    /// A node wants to exchange packets.
    pub(super) fn on_attach(&mut self, from: NodeId, attach: &Attach, cx: &mut Cx<'_>) {
        let Some((id, claim)) = self.check_attach(from, attach, b"atch", cx) else {
            return;
        };
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let attaching = channel.attaching.get(&from);
        let asked = attaching.is_some_and(|attaching| attaching.asked.is_some());
        if asked && cx.me() < from {
            // Both asked at once; the other answers.
            return;
        }
        let attached = channel.attached.get(&from);
        let answered = attached.and_then(|attached| attached.answered.as_ref());
        if let Some((nonce, answer)) = answered
            && *nonce == attach.nonce
        {
            return cx.send(claim.contact, answer.clone());
        }
        let same = attached.filter(|attached| attached.claim.address == claim.address);
        let memory = channel.is_settled(&claim).then_some(By::Memory);
        // Its address was looked up before, and was found to be nobody else's since.
        if let Some(by) = same.map(|attached| attached.by).or(memory) {
            return self.accept(id, from, (attach, &claim), by, cx);
        }
        let is_full = channel.attaching.len() >= ATTACHING_MAX && attaching.is_none();
        let before = attaching.and_then(|attaching| attaching.answer_to.as_ref());
        let is_looked_up = before.is_some_and(|(_, before)| before.address == claim.address);
        if is_full || !(is_looked_up || self.lookups.take(from, cx.now())) {
            return;
        }
        let address = claim.address.into();
        let answer_to = (attach.clone(), claim.clone());
        channel.attaching.entry(from).or_default().answer_to = Some(answer_to);
        if is_looked_up {
            return;
        }
        self.verify_hosted(id, &claim, cx);
        let purpose = Purpose::Verify(id, from);
        self.get(id, address, purpose, Consistency::Any, cx);
        self.deadlines
            .set_no_later(Alarm::Attach(id, from), cx.now() + ATTACH_TIMEOUT * 4);
    }

    /// The member's address is looked up.
    pub(super) fn verified(
        &mut self,
        id: ChannelId,
        from: NodeId,
        answer: &GetAnswer,
        cx: &mut Cx<'_>,
    ) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let Some(attaching) = channel.attaching.get_mut(&from) else {
            return;
        };
        let Some((attach, claim)) = attaching.answer_to.take() else {
            return;
        };
        let name = RecordName::Address(claim.address.into());
        let holder = match answer {
            GetAnswer::Records(records) => records
                .first()
                .and_then(|record| channel.open_claim(name, record, cx.unix_s())),
            GetAnswer::Failed => None,
        };
        if holder.is_some_and(|holder| holder.contact.id() == from) {
            channel.settling.note(from, claim.address);
            self.accept(id, from, (&attach, &claim), By::Proof, cx);
        }
    }

    fn accept(
        &mut self,
        id: ChannelId,
        from: NodeId,
        (attach, claim): (&Attach, &Claim),
        by: By,
        cx: &mut Cx<'_>,
    ) {
        let draw = Draw::new(cx.rng());
        let said = Saying {
            to: from,
            role: b"atcd",
            nonce: attach.nonce,
            key: draw.public,
            index: draw.index,
        };
        let Some(answer) = self.say_attach(id, said, cx) else {
            return;
        };
        let sides = (said_by(from, attach), said_by(cx.me(), &answer));
        let Some(agreement) = self.agree(id, &draw, sides, attach) else {
            return;
        };
        let answer = VnetMessage::Attached(answer).encode();
        cx.send(claim.contact.clone(), answer.clone());
        self.enter(id, (from, claim, by), agreement, cx);
        let channel = self.channels.get_mut(&id);
        if let Some(attached) = channel.and_then(|channel| channel.attached.get_mut(&from)) {
            attached.answered = Some((attach.nonce, answer));
        }
    }

    /// A member agreed to exchange packets.
    pub(super) fn on_attached(&mut self, from: NodeId, attach: &Attach, cx: &mut Cx<'_>) {
        let Some((id, claim)) = self.check_attach(from, attach, b"atcd", cx) else {
            return;
        };
        let attaching = self.channels.get_mut(&id);
        let attaching = attaching.and_then(|channel| channel.attaching.get_mut(&from));
        let fits =
            |asked: &mut Asked| asked.nonce == attach.nonce && asked.claim.address == claim.address;
        let asked = attaching.and_then(|attaching| attaching.asked.take_if(fits));
        let Some(asked) = asked else { return };
        let mine = Said {
            node: cx.me(),
            public: asked.draw.public,
            index: asked.draw.index,
            aes: self.ways.1,
        };
        let sides = (mine, said_by(from, attach));
        if let Some(agreement) = self.agree(id, &asked.draw, sides, attach) {
            self.enter(id, (from, &claim, asked.by), agreement, cx);
        }
    }

    fn agree(
        &self,
        id: ChannelId,
        draw: &Draw,
        sides: (Said, Said),
        attach: &Attach,
    ) -> Option<Agreement> {
        let channel = self.channels.get(&id)?;
        let candidates = attach.candidates.iter().take(CANDIDATES_MAX).copied();
        agree(
            &channel.keys,
            draw,
            sides,
            &attach.nonce,
            candidates.collect(),
        )
    }

    fn enter(
        &mut self,
        id: ChannelId,
        (peer, claim, by): (NodeId, &Claim, By),
        agreement: Agreement,
        cx: &mut Cx<'_>,
    ) {
        self.deadlines.cancel(Alarm::Attach(id, peer));
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        channel.attaching.remove(&peer);
        if channel.attached.len() < ATTACHED_MAX || channel.attached.contains_key(&peer) {
            channel.make_room_for(peer, cx.me());
            channel.members.insert(peer, claim.clone());
            let addresses = channel.addresses_of(claim);
            let permits = channel.permits(cx.me(), claim);
            let send_index = agreement.send_index;
            let attachment = Attachment {
                claim: claim.clone(),
                by,
                send_index,
                answered: None,
            };
            channel.attached.insert(peer, attachment);
            cx.emit(Event::Attached {
                channel: id,
                peer,
                addresses,
                permits,
                agreement,
            });
        }
        self.verify_hosted(id, claim, cx);
        self.watch_use(id, peer, cx);
    }

    /// Agrees on new keys with a member.
    pub(super) fn renew(&mut self, id: ChannelId, peer: NodeId, cx: &mut Cx<'_>) {
        let channel = self.channels.get(&id);
        let attached = channel.and_then(|channel| channel.attached.get(&peer));
        let attached = attached.map(|attached| (attached.claim.clone(), attached.by));
        let Some((claim, by)) = attached else { return };
        self.attach(id, claim.address.into(), &claim, by, cx);
    }

    /// This node takes datagrams elsewhere: tells those with which packets are exchanged, by
    /// agreeing on new keys.
    pub(super) fn set_ways(&mut self, candidates: Vec<SocketAddr>, aes: bool, cx: &mut Cx<'_>) {
        if self.ways == (candidates.clone(), aes) {
            return;
        }
        self.ways = (candidates, aes);
        let channels = self.channels.iter();
        let attached = channels.flat_map(|(id, channel)| {
            let peers = channel.attached.keys();
            peers.map(|peer| (*id, *peer))
        });
        let attached: Vec<(ChannelId, NodeId)> = attached.collect();
        for (id, peer) in attached {
            self.renew(id, peer, cx);
        }
    }

    fn check_attach(
        &mut self,
        from: NodeId,
        attach: &Attach,
        role: &[u8; 4],
        cx: &mut Cx<'_>,
    ) -> Option<(ChannelId, Claim)> {
        let (id, epoch) = self.by_blinded(from, attach.channel, cx)?;
        let channel = self.channels.get(&id)?;
        let (keys, said) = (channel.keys_of(epoch), attach.said());
        if !keys.mac_is(&attach.proof, role, &from, &cx.me(), &said) {
            return None;
        }
        let claim = open_sealed(keys, &attach.claim).filter(|c| c.contact.id() == from)?;
        if channel.is_governed() {
            self.compare_marks(id, &claim, (attach.mark, epoch), cx);
        }
        let admitted = self.channels.get(&id)?.admits(&claim, cx.unix_s());
        (epoch.is_none() && admitted).then_some((id, claim))
    }

    pub(super) fn on_detach(
        &mut self,
        from: NodeId,
        name: [u8; 16],
        proof: &[u8; 32],
        cx: &mut Cx<'_>,
    ) {
        let Some((id, epoch)) = self.by_blinded(from, name, cx) else {
            return;
        };
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let keys = channel.keys_of(epoch);
        if keys.mac_is(proof, b"dtch", &from, &cx.me(), &[]) {
            channel.carried.0.remove(&from);
            channel.settling.forget(&from);
            if let Some(claim) = channel.members.get(&from) {
                channel.cache.retain(|address, _| !claim.names(*address));
            }
            detach(id, channel, from, cx);
        }
    }

    /// A peer does not know the index that this node uses for it: it restarted.
    pub(super) fn on_unknown_index(&mut self, from: NodeId, index: u32, cx: &mut Cx<'_>) {
        for (id, channel) in &mut self.channels {
            let attached = channel.attached.get(&from);
            if attached.is_some_and(|attached| attached.send_index == index) {
                detach(*id, channel, from, cx);
            }
        }
    }

    pub(super) fn tell_unknown_index(&mut self, from: NodeId, index: u32, cx: &mut Cx<'_>) {
        let now = cx.now();
        let lately = |at: &Time| now.since(*at) < UNKNOWN_INDEX_INTERVAL;
        if self.unknown_indices.get(&from).is_some_and(lately) {
            return;
        }
        if self.unknown_indices.len() >= UNKNOWN_INDICES_MAX {
            self.unknown_indices.retain(|_, at| lately(at));
        }
        if self.unknown_indices.len() < UNKNOWN_INDICES_MAX {
            self.unknown_indices.insert(from, now);
            cx.send_to(from, VnetMessage::UnknownIndex { index }.encode());
        }
    }

    /// The session with a node ended, or the node was restarted and does not hear what is sent by the
    /// old agreement: packets need a new one.
    pub(super) fn gone(&mut self, peer: NodeId, may_hear: bool, cx: &mut Cx<'_>) {
        for (id, channel) in &mut self.channels {
            if channel.attached.remove(&peer).is_some() {
                channel.hosting.forget(peer);
                let channel = *id;
                cx.emit(Event::Lapsed {
                    channel,
                    peer,
                    may_hear,
                });
            }
        }
    }

    /// Exchanges packets with a member no longer.
    pub(super) fn detach_one(&mut self, id: ChannelId, peer: NodeId, cx: &mut Cx<'_>) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.attaching.remove(&peer);
            detach(id, channel, peer, cx);
        }
    }

    /// Tells all members with which packets are exchanged that this ends.
    pub(super) fn detach_channel(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let peers: Vec<NodeId> = channel.attached.keys().copied().collect();
        let me = cx.me();
        for peer in peers {
            let message = VnetMessage::Detach {
                channel: channel.keys.blinded(&me, &peer),
                proof: channel.keys.mac(b"dtch", &me, &peer, &[]),
            };
            cx.send_to(peer, message.encode());
            detach(id, channel, peer, cx);
        }
    }

    pub(super) fn detach_all(&mut self, cx: &mut Cx<'_>) {
        let ids: Vec<ChannelId> = self.channels.keys().copied().collect();
        ids.into_iter().for_each(|id| self.detach_channel(id, cx));
    }
}

/// What is particular in one `Attach` or `Attached`.
#[derive(Clone, Copy, Debug)]
struct Saying {
    to: NodeId,
    role: &'static [u8; 4],
    nonce: [u8; 16],
    key: [u8; 32],
    index: u32,
}

impl Vnet {
    /// Makes `Attach` or `Attached`; none without an address.
    fn say_attach(&self, id: ChannelId, saying: Saying, cx: &mut Cx<'_>) -> Option<Attach> {
        let me = cx.me();
        let channel = self.channels.get(&id)?;
        let claim = own_claim(channel, channel.address()?, &self.host_name, cx);
        let (candidates, aes) = &self.ways;
        let mut attach = Attach {
            channel: channel.keys.blinded(&me, &saying.to),
            nonce: saying.nonce,
            key: saying.key,
            index: saying.index,
            aes: *aes,
            candidates: candidates.clone(),
            mark: channel.mark(),
            claim: seal_claim(channel, &claim, cx).into(),
            proof: [0; 32],
        };
        attach.proof = channel
            .keys
            .mac(saying.role, &me, &saying.to, &attach.said());
        Some(attach)
    }
}

fn said_by(node: NodeId, attach: &Attach) -> Said {
    Said {
        node,
        public: attach.key,
        index: attach.index,
        aes: attach.aes,
    }
}

/// Also one whose agreement had lapsed.
fn detach(id: ChannelId, channel: &mut Channel, peer: NodeId, cx: &mut Cx<'_>) {
    if channel.attached.remove(&peer).is_some() {
        channel.hosting.forget(peer);
    }
    cx.emit(Event::Detached { channel: id, peer });
}
