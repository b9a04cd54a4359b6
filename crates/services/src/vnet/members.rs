//! Who is in the channel: a directory in the DHT, one entry of each member, and a word
//! to those already there when one comes.

use std::time::Duration;

use enishi_overlay::NodeId;

use super::secret::{ChannelKeys, RecordName};
use super::wire::{Claim, Mark};
use super::{Alarm, ChannelId, Cx, Event, Purpose, Vnet};
use crate::calls::{Consistency, GetAnswer};
use crate::keys::{seal, unseal};
use crate::record::{Key, Kind};

/// How often the directory is read; a prime, as the overlay's periods are.
const MEMBERS_INTERVAL: Duration = Duration::from_secs(61);
/// How long after its first read a node that has come reads it again, and twice as long after each
/// further one: who came at the same time may not have been in it.
const MEMBERS_SOON: Duration = Duration::from_secs(3);
/// The most members that are remembered.
const MEMBERS_MAX: usize = 4096;
/// To how many members a newcomer makes itself known.
const ANNOUNCEMENTS_MAX: usize = 64;

impl Vnet {
    /// Reads the directory.
    pub(super) fn ask_members(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let is_governed = channel.is_governed();
        let key = Key::new(Kind::Set, &channel.keys.writer(RecordName::Members).id());
        let wait = MEMBERS_SOON * 2_u32.saturating_pow(channel.directory_reads);
        channel.directory_reads = channel.directory_reads.saturating_add(1);
        let wait = cx.rng().jitter(wait.min(MEMBERS_INTERVAL));
        self.deadlines.set(Alarm::Members(id), cx.now() + wait);
        let token = self.token(Purpose::Members(id));
        cx.get(token, key, Consistency::Majority);
        if is_governed {
            self.compare_with_one(id, cx);
        }
    }

    pub(super) fn got_members(&mut self, id: ChannelId, answer: &GetAnswer, cx: &mut Cx<'_>) {
        let GetAnswer::Records(records) = answer else {
            return;
        };
        let (me, unix_s) = (cx.me(), cx.unix_s());
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let mut members: Vec<Claim> = records
            .iter()
            .filter_map(|record| channel.open_claim(RecordName::Members, record, unix_s))
            .filter(|claim| claim.contact.id() != me)
            .collect();
        members.truncate(MEMBERS_MAX);
        let announced = std::mem::replace(&mut channel.announced, true);
        let is_new = |claim: &Claim| !channel.members.contains_key(&claim.contact.id());
        let to_tell = members.iter().filter(|claim| !announced || is_new(claim));
        let to_tell: Vec<Claim> = to_tell.take(ANNOUNCEMENTS_MAX).cloned().collect();
        let (carried, until) = &mut channel.carried;
        if cx.now() >= *until {
            carried.clear();
        }
        for claim in &members {
            carried.remove(&claim.contact.id());
        }
        let is_away = |node: &NodeId, _: &mut Claim| *node != me && !carried.contains(node);
        let away = channel.members.extract_if(.., is_away);
        let away: Vec<NodeId> = away.map(|(node, _)| node).collect();
        // Members that are in touch stay, whatever the directory says.
        let attached = channel
            .attached
            .values()
            .map(|attachment| attachment.claim.clone());
        for claim in members.iter().cloned().chain(attached) {
            channel.members.insert(claim.contact.id(), claim);
        }
        // Nor is one heard any more whose agreement had lapsed.
        for peer in away {
            if !channel.members.contains_key(&peer) {
                cx.emit(Event::Detached { channel: id, peer });
            }
        }
        self.announce(id, &to_tell, cx);
        self.find_routes(id, cx);
    }

    /// Somebody who has the secret spoke to all, and is no member as far as known: reads the
    /// directory soon, but not time and again for whoever is not in it.
    pub(super) fn look_for_members(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let now = cx.now();
        let channel = self.channels.get_mut(&id);
        let Some(channel) = channel.filter(|channel| now >= channel.sought_until) else {
            return;
        };
        channel.sought_until = now + MEMBERS_INTERVAL;
        let soon = now + cx.rng().jitter(MEMBERS_SOON);
        self.deadlines.set_no_later(Alarm::Members(id), soon);
    }

    /// Makes this node known to the members.
    fn announce(&self, id: ChannelId, members: &[Claim], cx: &mut Cx<'_>) {
        for member in members.iter().take(ANNOUNCEMENTS_MAX) {
            self.announce_to(id, &member.contact, cx);
        }
    }

    /// Makes this node known to the members that it knows.
    pub(super) fn announce_to_known(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let me = cx.me();
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let others = channel.members.values();
        let members: Vec<Claim> = others.filter(|c| c.contact.id() != me).cloned().collect();
        self.announce(id, &members, cx);
    }

    pub(super) fn on_announce(
        &mut self,
        from: NodeId,
        name: [u8; 16],
        (mark, sealed): (Mark, &[u8]),
        cx: &mut Cx<'_>,
    ) {
        let Some((id, epoch)) = self.by_blinded(from, name, cx) else {
            return;
        };
        if epoch.is_some() {
            return self.on_laggard(from, (id, epoch), (mark, sealed), cx);
        }
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let claim = open_sealed(&channel.keys, sealed);
        let Some(claim) = claim.filter(|claim| claim.contact.id() == from) else {
            return;
        };
        // By the charter of who speaks it may be a member when it is none by this node's.
        self.compare_marks(id, &claim, (mark, None), cx);
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if channel.members.len() < MEMBERS_MAX && channel.admits(&claim, cx.unix_s()) {
            // What was not there before may be there now.
            channel.cache.retain(|address, _| !claim.names(*address));
            channel.members.insert(from, claim.clone());
            self.update_attached(id, &claim, cx);
            self.find_routes(id, cx);
        }
    }

    /// Finds the channel that another node means, and by which older secret, if it does not
    /// have the present one. Bounded by channels and epochs.
    pub(super) fn by_blinded(
        &self,
        from: NodeId,
        name: [u8; 16],
        cx: &Cx<'_>,
    ) -> Option<(ChannelId, Option<usize>)> {
        let me = cx.me();
        let means = |keys: &ChannelKeys| keys.blinded(&from, &me) == name;
        let mut channels = self.channels.iter();
        channels.find_map(|(id, channel)| {
            let older = || channel.older.iter().position(|epoch| means(&epoch.keys));
            match means(&channel.keys) {
                true => Some((*id, None)),
                false => older().map(|epoch| (*id, Some(epoch))),
            }
        })
    }
}

/// Seals a claim for the members.
pub(super) fn seal_claim(channel: &super::Channel, claim: &Claim, cx: &mut Cx<'_>) -> Vec<u8> {
    let octets = postcard::to_stdvec(claim).unwrap_or_default();
    seal(
        cx.rng(),
        &channel.keys.message_seal(),
        channel.keys.id(),
        &octets,
    )
}

/// Opens a claim that a member sealed; none when it is not genuine.
pub(super) fn open_sealed(keys: &ChannelKeys, sealed: &[u8]) -> Option<Claim> {
    let octets = unseal(&keys.message_seal(), keys.id(), sealed)?;
    let claim: Claim = postcard::from_bytes(&octets).ok()?;
    claim.verify(keys).then_some(claim)
}
