//! Opening the way to a member.
//!
//! ```text
//! A                                                       B
//! | Attach: channel as A names it to B, nonce, tag, claim, proof |
//! |------------------------------------------------------------->|
//! |                          get(A's address): is it A's? (once) |
//! |        Attached: the same of B, with A's nonce               |
//! |<-------------------------------------------------------------|
//! ```
//!
//! Both know each other's node key from the session; the proof, a keyed hash under the
//! channel's session key over both node ids and everything said, shows that the other
//! is a member. B looks A's address up before it takes packets from it, as A has looked
//! up B's; so nobody can send from an address that is not its own. The tag marks the
//! channel's packets in the session: each receiver chooses its own.

use std::net::IpAddr;
use std::time::Duration;

use enishi_overlay::message::Reply;
use enishi_overlay::overlay::Manner;
use enishi_overlay::{Contact, NodeId, Time};

use super::claim::own_claim;
use super::members::{open_sealed, seal_claim};
use super::secret::RecordName;
use super::wire::{Attach, Claim, VnetMessage};
use super::{Alarm, Channel, ChannelId, Cx, Event, MTU, Purpose, Vnet};
use crate::calls::{Consistency, GetAnswer};

/// How long to wait for the answer, and how often to ask.
const ATTACH_TIMEOUT: Duration = Duration::from_millis(1500);
const ATTACH_TRIES: u32 = 3;
/// The most members with which packets are exchanged in one channel.
const ATTACHED_MAX: usize = 4096;
/// The most members that are being asked, and that are being looked up, in one channel.
const ATTACHING_MAX: usize = 256;
/// How often one node is told of a tag that is not in use.
const UNKNOWN_TAG_INTERVAL: Duration = Duration::from_millis(500);
const UNKNOWN_TAGS_MAX: usize = 1024;

/// A member on the way to being attached.
#[derive(Debug, Default)]
pub(super) struct Attaching {
    /// What this node asked, until it is answered.
    asked: Option<Asked>,
    /// What the member asked, until its address is looked up.
    answer_to: Option<(Attach, Claim)>,
}

#[derive(Debug)]
struct Asked {
    nonce: [u8; 16],
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
    tag: u32,
    mtu: u16,
}

impl Vnet {
    /// Asks the holder of an address to exchange packets, unless that is so already.
    pub(super) fn attach(
        &mut self,
        id: ChannelId,
        address: IpAddr,
        claim: &Claim,
        cx: &mut Cx<'_>,
    ) {
        let peer = claim.contact.id();
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if channel.attached.contains_key(&peer) {
            return tell_attached(id, channel, peer, cx);
        }
        if channel.attaching.len() >= ATTACHING_MAX && !channel.attaching.contains_key(&peer) {
            return cx.emit(Event::Unresolved {
                channel: id,
                address,
            });
        }
        let attaching = channel.attaching.entry(peer).or_default();
        if let Some(asked) = &mut attaching.asked {
            if !asked.wanted.contains(&address) {
                asked.wanted.push(address);
            }
            return;
        }
        let mut nonce = [0; 16];
        cx.rng().fill(&mut nonce);
        let wanted = vec![address];
        attaching.asked = Some(Asked {
            nonce,
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
        let (nonce, contact) = (asked.nonce, asked.contact.clone());
        let Some(attach) = say_attach(channel, &self.host_name, peer, nonce, b"atch", cx) else {
            return;
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

    fn give_up(&mut self, id: ChannelId, peer: NodeId, cx: &mut Cx<'_>) {
        self.deadlines.cancel(Alarm::Attach(id, peer));
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let asked = channel
            .attaching
            .remove(&peer)
            .and_then(|attaching| attaching.asked);
        for address in asked.into_iter().flat_map(|asked| asked.wanted) {
            channel.cache.remove(&address);
            cx.emit(Event::Unresolved {
                channel: id,
                address,
            });
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
        let known = channel.attaching.contains_key(&from);
        if channel.attaching.len() >= ATTACHING_MAX && !known {
            return;
        }
        let address = claim.address.into();
        channel.attaching.entry(from).or_default().answer_to = Some((attach.clone(), claim));
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
                .and_then(|record| channel.open_claim(name, record)),
            GetAnswer::Failed => None,
        };
        if holder.is_some_and(|holder| holder.contact.id() == from) {
            self.accept(id, from, &attach, claim, cx);
        }
    }

    fn accept(
        &mut self,
        id: ChannelId,
        from: NodeId,
        attach: &Attach,
        claim: Claim,
        cx: &mut Cx<'_>,
    ) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let answer = say_attach(channel, &self.host_name, from, attach.nonce, b"atcd", cx);
        let Some(answer) = answer else { return };
        cx.send(
            claim.contact.clone(),
            VnetMessage::Attached(answer).encode(),
        );
        self.enter(id, from, attach, claim, cx);
    }

    /// A member agreed to exchange packets.
    pub(super) fn on_attached(&mut self, from: NodeId, attach: &Attach, cx: &mut Cx<'_>) {
        let Some((id, claim)) = self.check_attach(from, attach, b"atcd", cx) else {
            return;
        };
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let asked = channel
            .attaching
            .get(&from)
            .and_then(|attaching| attaching.asked.as_ref());
        let fits = asked.is_some_and(|asked| {
            asked.nonce == attach.nonce && asked.claim.address == claim.address
        });
        if fits {
            self.enter(id, from, attach, claim, cx);
        }
    }

    fn enter(
        &mut self,
        id: ChannelId,
        peer: NodeId,
        attach: &Attach,
        claim: Claim,
        cx: &mut Cx<'_>,
    ) {
        self.deadlines.cancel(Alarm::Attach(id, peer));
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        channel.attaching.remove(&peer);
        if channel.attached.len() < ATTACHED_MAX || channel.attached.contains_key(&peer) {
            channel.members.insert(peer, claim.clone());
            let mtu = attach.mtu.clamp(MTU, u16::MAX);
            channel.attached.insert(
                peer,
                Attachment {
                    claim,
                    tag: attach.tag,
                    mtu,
                },
            );
            tell_attached(id, channel, peer, cx);
        }
    }

    fn check_attach(
        &self,
        from: NodeId,
        attach: &Attach,
        role: &[u8; 4],
        cx: &Cx<'_>,
    ) -> Option<(ChannelId, Claim)> {
        let id = self.by_blinded(from, attach.channel, cx)?;
        let channel = self.channels.get(&id)?;
        let said = attach.said();
        if !channel
            .keys
            .mac_is(&attach.proof, role, &from, &cx.me(), &said)
        {
            return None;
        }
        let claim = open_sealed(channel, &attach.claim)?;
        (claim.contact.id() == from).then_some((id, claim))
    }

    pub(super) fn on_detach(
        &mut self,
        from: NodeId,
        name: [u8; 16],
        proof: &[u8; 32],
        cx: &mut Cx<'_>,
    ) {
        let Some(id) = self.by_blinded(from, name, cx) else {
            return;
        };
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if channel.keys.mac_is(proof, b"dtch", &from, &cx.me(), &[]) {
            if let Some(claim) = channel.members.get(&from) {
                for address in claim.addresses() {
                    channel.cache.remove(&address);
                }
            }
            detach(id, channel, from, cx);
        }
    }

    /// A peer does not know the tag that this node uses for it: it restarted.
    pub(super) fn on_unknown_tag(&mut self, from: NodeId, tag: u32, cx: &mut Cx<'_>) {
        for (id, channel) in &mut self.channels {
            if channel
                .attached
                .get(&from)
                .is_some_and(|attachment| attachment.tag == tag)
            {
                detach(*id, channel, from, cx);
            }
        }
    }

    pub(super) fn tell_unknown_tag(&mut self, from: NodeId, tag: u32, cx: &mut Cx<'_>) {
        let now = cx.now();
        let lately = |at: &Time| now.since(*at) < UNKNOWN_TAG_INTERVAL;
        if self.unknown_tags.get(&from).is_some_and(lately) {
            return;
        }
        if self.unknown_tags.len() >= UNKNOWN_TAGS_MAX {
            self.unknown_tags.retain(|_, at| lately(at));
        }
        if self.unknown_tags.len() < UNKNOWN_TAGS_MAX {
            self.unknown_tags.insert(from, now);
            cx.send_to(from, VnetMessage::UnknownTag { tag }.encode());
        }
    }

    /// The session with a node ended: packets need a new agreement.
    pub(super) fn gone(&mut self, peer: NodeId, cx: &mut Cx<'_>) {
        for (id, channel) in &mut self.channels {
            detach(*id, channel, peer, cx);
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

/// Makes `Attach` or `Attached`; none without an address.
fn say_attach(
    channel: &Channel,
    host_name: &str,
    to: NodeId,
    nonce: [u8; 16],
    role: &[u8; 4],
    cx: &mut Cx<'_>,
) -> Option<Attach> {
    let me = cx.me();
    let claim = own_claim(channel, channel.address()?, host_name, cx);
    let mut attach = Attach {
        channel: channel.keys.blinded(&me, &to),
        nonce,
        tag: channel.tag,
        mtu: MTU,
        claim: seal_claim(channel, &claim, cx).into(),
        proof: [0; 32],
    };
    attach.proof = channel.keys.mac(role, &me, &to, &attach.said());
    Some(attach)
}

fn tell_attached(id: ChannelId, channel: &Channel, peer: NodeId, cx: &mut Cx<'_>) {
    if let Some(Attachment { claim, tag, mtu }) = channel.attached.get(&peer) {
        let (addresses, tag, mtu) = (claim.addresses(), *tag, *mtu);
        cx.emit(Event::Attached {
            channel: id,
            peer,
            addresses,
            tag,
            mtu,
        });
    }
}

fn detach(id: ChannelId, channel: &mut Channel, peer: NodeId, cx: &mut Cx<'_>) {
    if channel.attached.remove(&peer).is_some() {
        cx.emit(Event::Detached { channel: id, peer });
    }
}
