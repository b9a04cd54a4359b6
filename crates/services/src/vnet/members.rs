//! Who is in the channel: a directory in the DHT, one entry of each member, and a word
//! to those already there when one comes.

use std::net::Ipv4Addr;
use std::time::Duration;

use enishi_overlay::NodeId;

use super::directory::{Moves, Page};
use super::secret::{ChannelKeys, RecordName};
use super::wire::{Claim, Mark};
use super::{Alarm, Channel, ChannelId, Cx, Event, Purpose, Vnet};
use crate::calls::{Consistency, GetAnswer};
use crate::keys::{seal, unseal};
use crate::record::{Key, Kind};

/// How often the directory is read; a prime, as the overlay's periods are.
pub(super) const MEMBERS_INTERVAL: Duration = Duration::from_secs(61);
/// How long after its first read a node that has come reads it again, and twice as long after each
/// further one: who came at the same time may not have been in it.
const MEMBERS_SOON: Duration = Duration::from_secs(3);
/// The most members that are remembered, besides those with which packets are exchanged.
pub(super) const MEMBERS_MAX: usize = 1024;
/// To how many members a newcomer makes itself known; the others read of it. In larger channels
/// who was there before does not make itself known to newcomers, who have read of it.
const ANNOUNCEMENTS_MAX: usize = 64;
/// How many members that are in no page are looked up after a pass.
const DOUBTS_MAX: usize = 16;
/// How many addresses that two have claimed are looked up in a pass.
const CONTESTS_MAX: usize = 16;

impl Channel {
    /// Forgets a member that is neither in touch nor in a page, if there is no room for another.
    pub(super) fn make_room_for(&mut self, other: NodeId, me: NodeId) {
        if self.members.len() < MEMBERS_MAX || self.members.contains_key(&other) {
            return;
        }
        let is_needed = |node: &NodeId| {
            *node == me
                || self.attached.contains_key(node)
                || self.directory.seen.contains(node)
                || self.directory.listed.contains(node)
        };
        let spare = self.members.keys().find(|node| !is_needed(node)).copied();
        if let Some(spare) = spare {
            self.members.remove(&spare);
        }
    }
}

impl Vnet {
    /// Reads the directory from the first page on.
    pub(super) fn ask_members(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.directory.restart();
            self.read_on(id, cx);
        }
    }

    /// Reads the next pages of the directory: all of a small one.
    pub(super) fn read_on(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let now = cx.now();
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if channel.directory.is_reading(now) {
            let soon = now + cx.rng().jitter(MEMBERS_SOON);
            return self.deadlines.set(Alarm::Members(id), soon);
        }
        let is_governed = channel.is_governed();
        let wait = MEMBERS_SOON * 2_u32.saturating_pow(channel.directory_reads);
        channel.directory_reads = channel.directory_reads.saturating_add(1);
        let page = channel.directory.begin_round(now);
        let wait = cx.rng().jitter(wait.min(MEMBERS_INTERVAL));
        self.deadlines.set(Alarm::Members(id), now + wait);
        self.ask_page(id, page, cx);
        if is_governed {
            self.compare_with_one(id, cx);
        }
    }

    fn ask_page(&mut self, id: ChannelId, page: u8, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let writer = channel.keys.writer(RecordName::Members(page));
        let key = Key::new(Kind::Set, &writer.id());
        // Where there may well be nothing a word of the first holder does.
        let consistency = if channel.directory.was_there(page) {
            Consistency::Majority
        } else {
            Consistency::Hasty
        };
        let token = self.token(Purpose::Members(id, (channel.directory.pass(), page)));
        cx.get(token, key, consistency);
    }

    pub(super) fn got_members(
        &mut self,
        id: ChannelId,
        asked: (u32, u8),
        answer: &GetAnswer,
        cx: &mut Cx<'_>,
    ) {
        let (now, unix_s) = (cx.now(), cx.unix_s());
        let channel = self.channels.get_mut(&id);
        let Some(channel) = channel.filter(|channel| channel.directory.awaits(asked)) else {
            return;
        };
        let name = RecordName::Members(asked.1);
        let (moves, claims) = match answer {
            GetAnswer::Records(records) => {
                let mine = channel.keys.owner(cx.keypair(), name).id();
                let claims = records.iter();
                let claims = claims.filter_map(|record| channel.open_claim(name, record, unix_s));
                let claims: Vec<Claim> = claims.collect();
                let page = Page::of(records, mine);
                (channel.directory.got(Some(page), now), claims)
            }
            GetAnswer::Failed => (channel.directory.got(None, now), Vec::new()),
        };
        self.move_entry(id, &moves, cx);
        self.read_of(id, claims, cx);
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if !channel.directory.reads_on() {
            self.end_pass(id, cx);
        } else if channel.directory.is_in_round() {
            let page = channel.directory.ask(now);
            self.ask_page(id, page, cx);
        }
    }

    /// Takes the members in of whom a page tells, and makes this node known to new ones.
    fn read_of(&mut self, id: ChannelId, claims: Vec<Claim>, cx: &mut Cx<'_>) {
        let (me, now) = (cx.me(), cx.now());
        for claim in claims {
            let node = claim.contact.id();
            let Some(channel) = self.channels.get_mut(&id) else {
                return;
            };
            let is_new = !channel.members.contains_key(&node);
            if node == me {
                continue;
            }
            if is_new && channel.directory.seen.len() >= MEMBERS_MAX {
                // Of those who come after it is not known that they are in no page.
                channel.directory.is_whole = false;
                continue;
            }
            channel.directory.seen.insert(node);
            channel.carried.0.remove(&node);
            let is_few = channel.members.len() <= ANNOUNCEMENTS_MAX;
            let tells = !channel.announced || (is_new && is_few);
            let tells = tells && channel.directory.told < ANNOUNCEMENTS_MAX;
            channel.directory.told += usize::from(tells);
            if tells {
                self.announce_to(id, &claim.contact, cx);
            }
            let channel = self.channels.get(&id);
            if channel.is_some_and(|channel| is_new || !channel.directory.has_said(&node, now)) {
                self.take_in(id, &claim, false, cx);
            }
        }
    }

    /// Remembers a member by its own claim, unless another has claimed the same address: then the
    /// DHT is asked first. Tells whether it was taken.
    pub(super) fn take_in(
        &mut self,
        id: ChannelId,
        claim: &Claim,
        has_said: bool,
        cx: &mut Cx<'_>,
    ) -> bool {
        let node = claim.contact.id();
        let Some(channel) = self.channels.get_mut(&id) else {
            return false;
        };
        if channel.members.len() >= MEMBERS_MAX && !channel.members.contains_key(&node) {
            return false;
        }
        let is_same = |other: &Claim| other.address == claim.address;
        let mut others = channel.members.values();
        if others.any(|other| is_same(other) && other.contact.id() != node) {
            self.contest(id, claim, has_said, cx);
            return false;
        }
        channel.members.insert(node, claim.clone());
        true
    }

    /// Two have claimed an address: sees whose it is.
    fn contest(&mut self, id: ChannelId, claim: &Claim, has_said: bool, cx: &mut Cx<'_>) {
        let (node, now) = (claim.contact.id(), cx.now());
        let address = claim.address.into();
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        // What one says is paid from its budget; what pages say, by the pass.
        let may_ask = if has_said {
            self.lookups.take(node, now)
        } else {
            let is_known = channel.cached(&address, now).is_some();
            channel.directory.contests += usize::from(!is_known);
            !is_known && channel.directory.contests <= CONTESTS_MAX
        };
        if may_ask {
            self.settle(id, address, None, cx);
        }
    }

    /// All pages were read: who is in none of them has gone, unless it is in touch or has made
    /// itself known and still holds its address.
    fn end_pass(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let (me, now) = (cx.me(), cx.now());
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if now >= channel.carried.1 {
            channel.carried.0.clear();
        }
        let moves = channel.directory.end_pass(now, cx.rng());
        let (directory, carried) = (&mut channel.directory, &channel.carried.0);
        let was_listed = |node: &NodeId| directory.is_whole && directory.listed.contains(node);
        let is_known = |node: &NodeId| {
            *node == me
                || directory.seen.contains(node)
                || carried.contains(node)
                || channel.attached.contains_key(node)
        };
        let missing = channel.members.keys().filter(|node| !is_known(node));
        let (away, doubtful): (Vec<NodeId>, Vec<NodeId>) = missing.copied().partition(was_listed);
        channel.announced |= directory.has_begun();
        directory.listed = std::mem::take(&mut directory.seen);
        // Those that follow the one that was looked up last, in a circle.
        let last = directory.doubted;
        let nowhere = doubtful.clone();
        let (before, after): (Vec<NodeId>, Vec<NodeId>) =
            doubtful.into_iter().partition(|node| Some(*node) <= last);
        let doubted = after.into_iter().chain(before).take(DOUBTS_MAX);
        let doubted: Vec<NodeId> = doubted.collect();
        directory.doubted = doubted.last().copied().or(last);
        directory.begin_pass();
        // There is no room for who was seen nowhere.
        let surplus = channel.members.len().saturating_sub(MEMBERS_MAX);
        let away: Vec<NodeId> = away
            .into_iter()
            .chain(nowhere.into_iter().take(surplus))
            .collect();
        let members = &channel.members;
        channel.settling.retain(|node| members.contains_key(node));
        for peer in away {
            self.lose(id, peer, cx);
        }
        for node in doubted {
            self.doubt(id, node, cx);
        }
        self.move_entry(id, &moves, cx);
        self.find_routes(id, cx);
    }

    /// Looks up whether a member holds its address still.
    fn doubt(&mut self, id: ChannelId, node: NodeId, cx: &mut Cx<'_>) {
        let channel = self.channels.get(&id);
        let claim = channel.and_then(|channel| channel.members.get(&node));
        if let Some(address) = claim.map(|claim| claim.address) {
            let pass = channel.map_or(0, |channel| channel.directory.pass());
            let purpose = Purpose::Doubt(id, node, (pass, address));
            self.get(id, address.into(), purpose, Consistency::Majority, cx);
        }
    }

    pub(super) fn doubted(
        &mut self,
        id: ChannelId,
        node: NodeId,
        (pass, address): (u32, Ipv4Addr),
        answer: &GetAnswer,
        cx: &mut Cx<'_>,
    ) {
        let (Some(channel), GetAnswer::Records(records)) = (self.channels.get(&id), answer) else {
            return;
        };
        // It may have another address since, or the channel other keys.
        let claim = channel.members.get(&node);
        let claim = claim.filter(|claim| claim.address == address);
        let claim = claim.filter(|_| channel.directory.pass() == pass);
        let is_there = claim.is_none_or(|claim| {
            let name = RecordName::Address(claim.address.into());
            let mut found = records.iter();
            let found = found.find_map(|record| channel.open_claim(name, record, cx.unix_s()));
            found.is_some_and(|found| found.contact.id() == node)
        });
        if !is_there && !channel.attached.contains_key(&node) {
            self.lose(id, node, cx);
            self.find_routes(id, cx);
        }
    }

    /// A member is none any more. Nor is one heard any more whose agreement had lapsed.
    pub(super) fn lose(&mut self, id: ChannelId, peer: NodeId, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        channel.settling.forget(&peer);
        if channel.members.remove(&peer).is_some() {
            cx.emit(Event::Detached { channel: id, peer });
        }
    }

    /// Puts this node's entry where it belongs.
    fn move_entry(&mut self, id: ChannelId, moves: &Moves, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let name = moves.remove.map(RecordName::Members);
        let removal = name.map(|name| channel.keys.removal(cx.keypair(), name));
        if let Some(request) = removal {
            let token = self.token(Purpose::Nothing);
            cx.put(token, request);
        }
        if let Some(page) = moves.put {
            self.publish(id, &[RecordName::Members(page)], cx);
        }
        if *moves != Moves::default() {
            self.keep(id, cx);
        }
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
        if !channel.admits(&claim, cx.unix_s()) {
            return;
        }
        // What was not there before may be there now.
        channel.cache.retain(|address, cached| {
            let of_other = cached
                .claim
                .as_ref()
                .is_some_and(|c| c.contact.id() != from);
            of_other || !claim.names(*address)
        });
        channel.directory.note_said(from, cx.now());
        if self.take_in(id, &claim, true, cx) {
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
