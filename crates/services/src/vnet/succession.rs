//! How a charter changes, how members hear of it, and what follows: who is no longer a member,
//! what may pass between whom, and a new secret of the channel.
//!
//! ```text
//! A                                        B
//! | Attach or Announce, with A's mark      |
//! |--------------------------------------->|  A's mark is lower: B has a newer charter
//! |      Charter: sealed under A's secret, |
//! |      with the new secret if it changed |
//! |<---------------------------------------|  only if A is a member by B's charter
//! ```
//!
//! A charter goes to some members at once, from each of them to some more, and to whoever says a
//! lower mark; members tell theirs to another one now and then. A member that was away comes
//! back with the secret of an older epoch, which the others remember for a while
//! ([`EPOCHS_MAX`]): they recognise it by that, and give it the new one. A removed one is only
//! told that it is.

use enishi_overlay::message::Reply;
use enishi_overlay::overlay::Manner;
use enishi_overlay::{Contact, Keypair, NodeId, Time};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::charter::{Admin, Admins, CHARTER_BYTES_MAX, Charter, Decisions};
use super::claim::own_claim;
use super::government::{Government, Seat, for_one, invitation};
use super::members::{open_sealed, seal_claim};
use super::secret::{ChannelKeys, RecordName, epoch_digest};
use super::wire::{Claim, Mark, Offers, VnetMessage};
use super::{Alarm, Channel, ChannelId, Cx, Event, Purpose, Vnet};
use crate::calls::PutRequest;
use crate::keys::{Secret, seal, unseal};

/// How many epochs before the present one are remembered.
pub(super) const EPOCHS_MAX: usize = 16;
/// For how long the entry in the directory of an epoch that has ended stays there, for members
/// that were away: as long as it would by itself.
pub(super) const OLD_ENTRY: Duration = Duration::from_secs(super::claim::LEASE_S as u64);
/// To how many members the signer of a charter sends it, and each that hears of it first.
const SENT_BY_SIGNER: u64 = 256;
const SENT_ON: u64 = 8;
/// How often one member is sent the same charter or told that it was removed, and of how many
/// that is noted at a time.
const SEND_INTERVAL: Duration = Duration::from_secs(3);
const SENT_MAX: usize = 1024;

/// An epoch that has ended.
#[derive(Debug)]
pub(super) struct Epoch {
    pub(super) secret: Secret,
    pub(super) keys: ChannelKeys,
    /// In which pages of its directory this node's entries are still.
    pub(super) pages: Vec<u8>,
}

impl Epoch {
    /// Makes the requests that remove this node's entries from its directory.
    pub(super) fn removals(&self, node: &Keypair) -> impl Iterator<Item = PutRequest> {
        let names = self.pages.iter().copied().map(RecordName::Members);
        names.map(|name| self.keys.removal(node, name))
    }
}

/// A charter on its way, with the secret of its epoch for who does not have it.
#[derive(Serialize, Deserialize)]
struct Delivery {
    charter: Charter,
    #[serde(with = "crate::recording::secret")]
    secret: Secret,
}

impl Vnet {
    /// Changes what is decided, if this node is an administrator; members hear of it.
    pub(super) fn decide(
        &mut self,
        id: ChannelId,
        change: impl FnOnce(&mut Decisions),
        cx: &mut Cx<'_>,
    ) {
        let signed = self.sign(id, change, cx);
        if let Some(charter) = signed {
            self.adopt(id, charter, None, cx);
        }
    }

    /// The same, with a new secret of the channel.
    pub(super) fn decide_in_new_epoch(
        &mut self,
        id: ChannelId,
        change: impl FnOnce(&mut Decisions),
        cx: &mut Cx<'_>,
    ) {
        let secret = Secret::new(cx.rng().octets());
        let digest = epoch_digest(&secret);
        let renew = move |decisions: &mut Decisions| {
            change(decisions);
            decisions.epoch = decisions.epoch.saturating_add(1);
            decisions.epoch_digest = digest;
        };
        if let Some(charter) = self.sign(id, renew, cx) {
            self.adopt(id, charter, Some(secret), cx);
        }
    }

    fn sign(
        &self,
        id: ChannelId,
        change: impl FnOnce(&mut Decisions),
        cx: &Cx<'_>,
    ) -> Option<Charter> {
        let government = self.channels.get(&id)?.government.as_ref()?;
        let charter = government.charter.as_ref()?;
        let may = government.is_admin(&cx.me());
        let mut decisions = charter.decisions().clone();
        change(&mut decisions);
        (may && decisions.fit()).then(|| {
            let (admins, version) = (
                charter.admins().clone(),
                charter.version().saturating_add(1),
            );
            Charter::sign(
                cx.keypair(),
                &government.authority,
                admins,
                version,
                decisions,
            )
        })
    }

    /// Makes a node an administrator, or one no longer; only the founder can.
    pub(super) fn appoint(&mut self, id: ChannelId, node: NodeId, admin: bool, cx: &mut Cx<'_>) {
        let channel = self.channels.get(&id);
        let Some(government) = channel.and_then(|channel| channel.government.as_ref()) else {
            return;
        };
        let (Seat::Founder(seed), Some(charter)) = (&government.seat, &government.charter) else {
            return;
        };
        let authority = &Keypair::from_seed(seed);
        let mut nodes = charter.admins().nodes().to_vec();
        nodes.retain(|known| known.node != node || !admin);
        match nodes.iter_mut().find(|known| known.node == node) {
            Some(known) => known.until_unix_s = known.until_unix_s.or(Some(cx.unix_s())),
            None if admin => nodes.push(Admin {
                node,
                until_unix_s: None,
            }),
            None => return,
        }
        if nodes.len() > super::charter::ADMINS_MAX {
            return;
        }
        let admins = Admins::sign(authority, charter.admins().version() + 1, nodes);
        let (version, decisions) = (
            charter.version().saturating_add(1),
            charter.decisions().clone(),
        );
        let authority = government.authority;
        let charter = Charter::sign(cx.keypair(), &authority, admins, version, decisions);
        self.adopt(id, charter, None, cx);
    }

    /// Removes a member: it is not spoken with any more, and does not have the new secret. An
    /// administrator is deposed first, or it could sign itself back in; so only the founder
    /// removes one. An invitation for one by which it came counts no more: it has kept the proof,
    /// and could show it under another key.
    pub(super) fn remove(&mut self, id: ChannelId, node: NodeId, cx: &mut Cx<'_>) {
        self.appoint(id, node, false, cx);
        let channel = self.channels.get(&id);
        let Some(channel) = channel.filter(|channel| !channel.is_admin(&node)) else {
            return;
        };
        let claim = channel.member(node).or_else(|| channel.attached(node));
        let spent = claim.and_then(|claim| for_one(claim.credential.as_deref()));
        let remove = move |decisions: &mut Decisions| {
            decisions.remove(node);
            spent
                .into_iter()
                .for_each(|name| decisions.revoke(name, Vec::new()));
        };
        self.decide_in_new_epoch(id, remove, cx);
    }

    /// Takes a charter over if it counts more than the present one, and its secret is known.
    fn adopt(&mut self, id: ChannelId, charter: Charter, secret: Option<Secret>, cx: &mut Cx<'_>) {
        let me = cx.me();
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let present = epoch_digest(channel.secret());
        let Some(government) = &mut channel.government else {
            return;
        };
        let (mark, before) = (Mark::of(&charter), government.mark());
        if mark <= before || mark.leaps(&before) || !charter.verify(&government.authority) {
            return;
        }
        let digest = charter.decisions().epoch_digest;
        let is_present = present == digest;
        let secret = secret.filter(|secret| epoch_digest(secret) == digest);
        if !is_present && secret.is_none() {
            return;
        }
        let by_me = charter.signer() == me;
        if by_me {
            government.signed = Some(charter.clone());
        }
        government.charter = Some(charter);
        self.take_dead_mail_away(id, cx);
        let heirs = self.heirs(id, by_me, cx);
        let before = match secret.filter(|_| !is_present) {
            Some(secret) => self.begin_epoch(id, secret, cx),
            None => None,
        };
        for member in heirs {
            self.send_charter(id, &member, before, cx);
        }
        self.part_with_removed(id, before, cx);
        self.renew_permits(id, cx);
        self.keep(id, cx);
        cx.emit(Event::Governed(id));
        self.insist(id, cx);
    }

    /// What this node has removed in a charter that was overtaken is removed again.
    fn insist(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let channel = self.channels.get(&id);
        let government = channel.and_then(|channel| channel.government.as_ref());
        let Some(Government {
            signed: Some(signed),
            charter: Some(charter),
            ..
        }) = government
        else {
            return;
        };
        if !charter.decisions().covers(signed.decisions()) {
            let mine = signed.decisions().clone();
            self.decide_in_new_epoch(id, |decisions| decisions.absorb(&mine), cx);
        }
    }

    /// Whom this node tells of a new charter.
    fn heirs(&mut self, id: ChannelId, all: bool, cx: &mut Cx<'_>) -> Vec<Claim> {
        let me = cx.me();
        let Some(channel) = self.channels.get(&id) else {
            return Vec::new();
        };
        let others = channel.members.values().filter(|c| c.contact.id() != me);
        let mut others: Vec<Claim> = others.cloned().collect();
        let wanted = if all { SENT_BY_SIGNER } else { SENT_ON };
        let mut chosen = Vec::new();
        while (chosen.len() as u64) < wanted && !others.is_empty() {
            let at = cx.rng().below(others.len() as u64) as usize;
            chosen.push(others.swap_remove(at));
        }
        chosen
    }

    /// Goes over to another secret; returns where the one before is remembered.
    fn begin_epoch(&mut self, id: ChannelId, secret: Secret, cx: &mut Cx<'_>) -> Option<usize> {
        let me = cx.me();
        let channel = self.channels.get_mut(&id)?;
        // Where the others look up addresses now.
        let addresses = channel.address().map(|address| {
            let addresses = [address.into(), channel.address6.into()];
            addresses.map(RecordName::Address)
        });
        let old = addresses.into_iter().flatten();
        let old: Vec<_> = old
            .map(|name| channel.put_request(name, None, cx))
            .collect();
        let channel = self.channels.get_mut(&id)?;
        let forgotten = channel.begin_epoch(secret, cx.now());
        let removals = forgotten
            .iter()
            .flat_map(|epoch| epoch.removals(cx.keypair()));
        let requests: Vec<PutRequest> = old.into_iter().chain(removals).collect();
        for request in requests {
            let token = self.token(Purpose::Nothing);
            cx.put(token, request);
        }
        let channel = self.channels.get_mut(&id)?;
        channel.cache.clear();
        // The others come into the new directory one after the other.
        let known = channel.members.keys().copied();
        channel.carried = (
            known.filter(|node| *node != me).collect(),
            cx.now() + OLD_ENTRY,
        );
        self.deadlines
            .set(Alarm::OldEntries(id), cx.now() + OLD_ENTRY);
        self.publish_all(id, cx);
        self.follow_group(id, cx);
        self.put_all_mail(id, cx);
        self.read_on(id, cx);
        Some(0)
    }

    /// The entries in the directories of epochs that have ended are not needed any more.
    pub(super) fn forget_old_entries(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let mut removals = Vec::new();
        for epoch in &mut channel.older {
            removals.extend(epoch.removals(cx.keypair()));
            epoch.pages.clear();
        }
        for request in removals {
            let token = self.token(Purpose::Nothing);
            cx.put(token, request);
        }
        self.keep(id, cx);
    }

    /// Ends what there was with nodes that are no members any more.
    fn part_with_removed(&mut self, id: ChannelId, epoch: Option<usize>, cx: &mut Cx<'_>) {
        let (me, unix_s) = (cx.me(), cx.unix_s());
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let is_out = |channel: &Channel, claim: &Claim| !channel.admits(claim, unix_s);
        let members = channel.members.iter();
        let out = members.filter(|(node, claim)| **node != me && is_out(channel, claim));
        let out: Vec<(NodeId, Claim)> = out.map(|(node, claim)| (*node, claim.clone())).collect();
        for (node, claim) in &out {
            channel.members.remove(node);
            channel.settling.forget(node);
            for address in claim.addresses() {
                channel.cache.remove(&address);
            }
        }
        let removed = channel.is_removed(me);
        channel.is_said_removed = false;
        channel.notice = removed.then(|| {
            "this node was removed from the channel by an administrator; leave it with `enishi \
             channel leave`"
                .to_owned()
        });
        for (node, claim) in out {
            self.detach_one(id, node, cx);
            self.tell_removed(id, &claim, epoch, cx);
        }
        self.find_routes(id, cx);
    }

    /// What may pass between whom follows from the charter.
    fn renew_permits(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let me = cx.me();
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        for (peer, attached) in &channel.attached {
            cx.emit(Event::Permitted {
                channel: id,
                peer: *peer,
                permits: channel.permits(me, &attached.claim),
            });
        }
    }

    /// A member has said which charter it has; `epoch` is where its secret is remembered.
    pub(super) fn compare_marks(
        &mut self,
        id: ChannelId,
        claim: &Claim,
        (mark, epoch): (Mark, Option<usize>),
        cx: &mut Cx<'_>,
    ) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let mine = channel.mark();
        if mark < mine || epoch.is_some() {
            self.send_charter(id, claim, epoch, cx);
        } else if mark > mine {
            // It answers with the newer one.
            self.announce_to(id, &claim.contact.clone(), cx);
        }
    }

    /// Sends the charter to a member that is still one; tells others that they are not.
    fn send_charter(&mut self, id: ChannelId, to: &Claim, epoch: Option<usize>, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        if !channel.admits(to, cx.unix_s()) {
            return self.tell_removed(id, to, epoch, cx);
        }
        let keys = channel.keys_of(epoch);
        let Some(charter) = channel.charter().cloned() else {
            return;
        };
        let delivery = Delivery {
            charter,
            secret: channel.secret().clone(),
        };
        let octets = zeroize::Zeroizing::new(postcard::to_stdvec(&delivery).unwrap_or_default());
        let message = VnetMessage::Charter {
            channel: keys.blinded(&cx.me(), &to.contact.id()),
            delivery: seal(cx.rng(), &keys.message_seal(), keys.id(), &octets).into(),
        };
        if self.may_send(id, to.contact.id(), cx.now()) {
            cx.send(to.contact.clone(), message.encode());
        }
    }

    /// Tells a node that it is no member any more, by the secret that it still has.
    fn tell_removed(&mut self, id: ChannelId, to: &Claim, epoch: Option<usize>, cx: &mut Cx<'_>) {
        let node = to.contact.id();
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let keys = channel.keys_of(epoch);
        let me = cx.me();
        let message = VnetMessage::Removed {
            channel: keys.blinded(&me, &node),
            proof: keys.mac(b"rmvd", &me, &node, &[]),
        };
        if self.may_send(id, node, cx.now()) {
            cx.send(to.contact.clone(), message.encode());
        }
    }

    /// Tells whether a node has not been sent this charter, or told of it, lately.
    fn may_send(&mut self, id: ChannelId, to: NodeId, now: Time) -> bool {
        let mark = self
            .channels
            .get(&id)
            .map_or_else(Mark::default, Channel::mark);
        let lately = |at: &Time| now.since(*at) < SEND_INTERVAL;
        let last = self.charters_sent.get(&(id, to));
        if last.is_some_and(|(at, sent)| lately(at) && *sent == mark) {
            return false;
        }
        if self.charters_sent.len() >= SENT_MAX {
            self.charters_sent.retain(|_, (at, _)| lately(at));
        }
        let has_room = self.charters_sent.len() < SENT_MAX;
        if has_room {
            self.charters_sent.insert((id, to), (now, mark));
        }
        has_room
    }

    /// A member sends its charter.
    pub(super) fn on_charter(
        &mut self,
        from: NodeId,
        name: [u8; 16],
        delivery: &[u8],
        cx: &mut Cx<'_>,
    ) {
        if delivery.len() > CHARTER_BYTES_MAX + 1024 {
            return;
        }
        let Some((id, epoch)) = self.by_blinded(from, name, cx) else {
            return;
        };
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let keys = channel.keys_of(epoch);
        let octets = unseal(&keys.message_seal(), keys.id(), delivery);
        let octets = octets.map(zeroize::Zeroizing::new);
        let delivery = octets.and_then(|octets| postcard::from_bytes::<Delivery>(&octets).ok());
        if let Some(Delivery { charter, secret }) = delivery {
            self.adopt(id, charter, Some(secret), cx);
        }
    }

    /// A member says that this node is none any more. Any member could say so; it is noted for
    /// the person, and nothing else follows.
    pub(super) fn on_removed(
        &mut self,
        from: NodeId,
        name: [u8; 16],
        proof: &[u8; 32],
        cx: &mut Cx<'_>,
    ) {
        let Some((id, epoch)) = self.by_blinded(from, name, cx) else {
            return;
        };
        let me = cx.me();
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let keys = channel.keys_of(epoch);
        if channel.government.is_some() && keys.mac_is(proof, b"rmvd", &from, &me, &[]) {
            channel.is_said_removed = true;
            channel.notice = Some(
                "members say that this node was removed from the channel; leave it with `enishi \
                 channel leave`, or ask an administrator"
                    .to_owned(),
            );
            self.detach_one(id, from, cx);
        }
    }

    /// Tells a member that is drawn which charter this node has. Alone in the directory, an
    /// administrator is looked for on the ring: the secret may be one of long ago.
    pub(super) fn compare_with_one(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let others = self.heirs(id, false, cx);
        if let Some(other) = others.first() {
            return self.announce_to(id, &other.contact.clone(), cx);
        }
        let me = cx.me();
        let channel = self.channels.get(&id);
        let admins = channel
            .and_then(Channel::charter)
            .map(|charter| charter.admins().nodes().to_vec());
        let mut admins = admins.unwrap_or_default();
        admins.retain(|admin| admin.node != me && admin.until_unix_s.is_none());
        if !admins.is_empty() {
            let drawn = admins[cx.rng().below(admins.len() as u64) as usize].node;
            let position = cx.overlay().position_of(&drawn);
            let token = self.token(Purpose::Find(id, drawn));
            cx.locate(token, position, Manner::EXACT);
        }
    }

    /// The administrator was found, or the ring knows nothing of it.
    pub(super) fn found(&mut self, id: ChannelId, node: NodeId, reply: &Reply, cx: &mut Cx<'_>) {
        let Reply::Nodes(nodes) = reply else {
            return;
        };
        let contacts = nodes.iter().map(|entry| &entry.contact);
        if let Some(contact) = contacts.into_iter().find(|contact| contact.id() == node) {
            self.announce_to(id, contact, cx);
        }
    }

    /// Gives a role to a node, or takes it away.
    pub(super) fn assign(
        &mut self,
        id: ChannelId,
        node: NodeId,
        role: Option<String>,
        cx: &mut Cx<'_>,
    ) {
        let member = self.channels.get(&id).and_then(|c| c.members.get(&node));
        let by = member.and_then(|claim| invitation(claim.credential.as_deref()));
        self.decide(id, |decisions| decisions.assign(node, by, role), cx);
    }

    /// Says what this node offers.
    pub(super) fn offer(&mut self, id: ChannelId, offers: Offers, cx: &mut Cx<'_>) {
        let channel = self.channels.get_mut(&id);
        if let Some(channel) = channel.filter(|_| offers.are_bounded()) {
            let hosted = std::mem::take(&mut channel.offers.hosted);
            channel.offers = Offers { hosted, ..offers };
            self.keep(id, cx);
            self.publish_all(id, cx);
            self.announce_to_known(id, cx);
            self.find_routes(id, cx);
        }
    }

    /// Makes this node known to one member, with its mark.
    pub(super) fn announce_to(&self, id: ChannelId, to: &Contact, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let Some(address) = channel.address() else {
            return;
        };
        let claim = own_claim(channel, address, &self.host_name, cx);
        let message = VnetMessage::Announce {
            channel: channel.keys.blinded(&cx.me(), &to.id()),
            mark: channel.mark(),
            claim: seal_claim(channel, &claim, cx).into(),
        };
        cx.send(to.clone(), message.encode());
    }

    /// A member that still has an older secret speaks: it gets the present one.
    pub(super) fn on_laggard(
        &mut self,
        from: NodeId,
        (id, epoch): (ChannelId, Option<usize>),
        (mark, sealed): (Mark, &[u8]),
        cx: &mut Cx<'_>,
    ) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let claim = open_sealed(channel.keys_of(epoch), sealed);
        if let Some(claim) = claim.filter(|claim| claim.contact.id() == from) {
            self.compare_marks(id, &claim, (mark, epoch), cx);
        }
    }
}
