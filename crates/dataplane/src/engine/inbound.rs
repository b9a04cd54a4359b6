//! From the peers to the devices.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use slab::Slab;

use super::driver::{Driver, Indices};
use super::network::Network;
use super::outbound::Way;
use super::session::{Probe, Tokens};
use super::sockets::{Pair, Via};
use super::{FOREIGN_BYTES_MAX, NetworkId, Note, Outside, PeerKey};
use crate::ecn;
use crate::filter::Direction;
use crate::offload::Run;
use crate::packet::IpPacket;
use crate::reassembly::Half;
use crate::relay::{self, HEADER_BYTES};
use crate::sealed::{self, Kind};
use crate::socket::Received;

/// How many buffers are filled at once, and how often before others have their turn.
pub(super) const BUFFERS: usize = 4;
const RECEIVES_MAX: usize = 2;
/// How often the host is told of one peer's unknown indices, and of how many peers' at once.
const UNKNOWN_INTERVAL: Duration = Duration::from_millis(500);
const UNKNOWN_MAX: usize = 1024;
/// First octets below this are of STUN, and below this of other protocols than ours (RFC 7983,
/// section 7).
const STUN_BELOW: u8 = 4;
const FOREIGN_BELOW: u8 = 64;

/// What datagrams bring about besides packets.
pub(super) enum Happened {
    /// The peer is seen to have the next keys of a session.
    HasKeys(usize),
    /// A way straight to the peer was found.
    HasWay(usize),
    /// A probe to be answered, and where it came from; nowhere for the lane.
    Asked(usize, Probe, Option<Pair>),
    /// A question to be asked: has the peer moved?
    Ask(usize, super::paths::Ask),
    /// The peer sees this host at another address than before.
    Seen(PeerKey, SocketAddr),
    /// A datagram of another protocol came.
    Foreign(Pair, Vec<u8>),
    /// The host of a peer has said something.
    Said(PeerKey, Vec<u8>),
}

impl<O: Outside> Driver<O> {
    /// Takes what has arrived at a socket.
    pub(super) fn receive(&mut self, via: Via) {
        let mut buffers = std::mem::take(&mut self.buffers);
        for _ in 0..RECEIVES_MAX {
            let mut batches = [None; BUFFERS];
            let mut slices: [IoSliceMut<'_>; BUFFERS] =
                buffers.each_mut().map(|buffer| IoSliceMut::new(buffer));
            let Some(socket) = self.exit.sockets.get(via) else {
                break;
            };
            match socket.receive(&mut slices, &mut batches) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An ICMP error of an earlier send; the paths find out by themselves.
                Err(_) => continue,
            }
            self.take_commands_first();
            for (buffer, batch) in buffers.iter_mut().zip(batches) {
                if let Some(batch) = batch {
                    self.open_batch(buffer, via, batch);
                }
            }
        }
        self.buffers = buffers;
        self.flush();
    }

    fn open_batch(&mut self, buffer: &mut [u8], via: Via, batch: Received) {
        let from = Pair::straight(via, batch.from);
        let mut rest = &mut buffer[..batch.bytes];
        while !rest.is_empty() {
            let is_relayed = relay::is_relayed(rest);
            let like = |datagram: &&[u8]| relay::is_relayed(datagram) == is_relayed;
            let alike = rest.chunks(batch.stride).take_while(like);
            let bytes = alike.map(<[u8]>::len).sum();
            let (part, after) = rest.split_at_mut(bytes);
            match is_relayed {
                true => self.take_relayed(part, from, batch),
                false => self.open_all(part.chunks_mut(batch.stride), from, batch),
            }
            rest = after;
        }
    }

    fn open_all<'b>(
        &mut self,
        datagrams: impl Iterator<Item = &'b mut [u8]>,
        from: Pair,
        batch: Received,
    ) {
        let mut happened = Vec::new();
        let mut entry = self.entry(&mut happened);
        for datagram in datagrams {
            entry.open(datagram, Some(from), batch.is_marked);
        }
        entry.write_run();
        self.work_off(happened);
    }

    /// Takes datagrams with headers of relays: for this host, from one by which it is reached, or for
    /// another one, if this host relays.
    fn take_relayed(&mut self, mut datagrams: &mut [u8], from: Pair, batch: Received) {
        while !datagrams.is_empty() {
            let head = datagrams.first_chunk::<HEADER_BYTES>().copied();
            let like = |datagram: &&[u8]| datagram.first_chunk() == head.as_ref();
            let alike = datagrams.chunks(batch.stride).take_while(like);
            let bytes = alike.map(<[u8]>::len).sum();
            let (part, after) = datagrams.split_at_mut(bytes);
            datagrams = after;
            match relay::decode(part) {
                Some((relay::Kind::Data, token)) => {
                    if self.relays.is_end(token, from.address) {
                        let relay = Some(token);
                        let from = Pair { relay, ..from };
                        let inner = part.chunks_mut(batch.stride);
                        let inner = inner.map(|datagram| &mut datagram[HEADER_BYTES..]);
                        self.open_all(inner, from, batch);
                    } else {
                        self.pass_on((token, from), (batch.ecn, batch.stride), part);
                    }
                }
                // Binds come one by one: alike they would be repeated.
                Some((relay::Kind::Bind, token)) => self.answer_bind(token, from, part),
                Some((kind @ (relay::Kind::Prove | relay::Kind::Bound), token)) => {
                    self.bind_answered((kind, token), from, part);
                }
                None => self.refused += 1,
            }
        }
    }

    /// Takes datagrams that came by the lanes of peers' sessions.
    pub(super) fn receive_by_lanes(&mut self, mut arrived: Vec<(PeerKey, Bytes)>) {
        arrived.retain(|(peer, datagram)| self.is_of(*peer, datagram));
        let arrived = arrived.into_iter();
        let mut datagrams: Vec<Vec<u8>> = arrived.map(|(_, datagram)| datagram.into()).collect();
        let mut happened = Vec::new();
        let mut entry = self.entry(&mut happened);
        for datagram in &mut datagrams {
            entry.open(datagram, None, false);
        }
        entry.write_run();
        self.work_off(happened);
    }

    /// Tells whether a datagram that came by a peer's lane is of a session with it, and has the
    /// peer told if it is of none.
    fn is_of(&mut self, peer: PeerKey, datagram: &[u8]) -> bool {
        let Some(index) = sealed::index(datagram) else {
            return false;
        };
        let slot = self.by_index.get(&index);
        let session = slot.and_then(|slot| self.sessions.get(*slot));
        let is_of = session.is_some_and(|session| session.peer == peer);
        if !is_of {
            self.refused += 1;
            if self.may_tell_unknown(peer) {
                self.exit.outside.note(Note::UnknownIndex { peer, index });
            }
        }
        is_of
    }

    fn entry<'e, 'b>(&'e mut self, happened: &'e mut Vec<Happened>) -> Entry<'e, 'b> {
        Entry {
            sessions: &mut self.sessions,
            indices: &self.by_index,
            networks: &mut self.networks,
            refused: &mut self.refused,
            happened,
            tokens: &self.tokens,
            started: self.started,
            now: self.now,
            run: None,
        }
    }

    /// Tells whether a peer's unknown index may be told again: a flood of them is to cost nobody
    /// but this thread.
    fn may_tell_unknown(&mut self, peer: PeerKey) -> bool {
        let now = self.now;
        let lately = |at: &Instant| now - *at < UNKNOWN_INTERVAL;
        if self.unknown.get(&peer).is_some_and(lately) {
            return false;
        }
        if self.unknown.len() >= UNKNOWN_MAX {
            self.unknown.retain(|_, at| lately(at));
        }
        let has_room = self.unknown.len() < UNKNOWN_MAX;
        if has_room {
            self.unknown.insert(peer, now);
        }
        has_room
    }

    fn work_off(&mut self, happened: Vec<Happened>) {
        for happened in happened {
            match happened {
                Happened::HasKeys(slot) => self.promote(slot),
                Happened::HasWay(slot) => {
                    self.send_all_waiting(slot);
                    self.tell_way(slot);
                }
                Happened::Asked(slot, probe, from) => self.answer(slot, probe, from),
                Happened::Ask(slot, ask) => self.ask(slot, ask),
                Happened::Said(peer, message) => self.exit.outside.said(&peer, &message),
                Happened::Seen(peer, at) => self.exit.outside.note(Note::Seen { peer, at }),
                Happened::Foreign(from, datagram) => {
                    let answer = self.exit.outside.foreign(from.address, &datagram);
                    if let Some((address, answer)) = answer {
                        self.send_foreign(Pair { address, ..from }, &answer);
                    }
                }
            }
        }
    }

    /// Sends a datagram of another protocol.
    pub(super) fn send_foreign(&mut self, to: Pair, datagram: &[u8]) {
        // Nobody may take it for a sealed one.
        let is_foreign = datagram.first().is_some_and(|first| *first < FOREIGN_BELOW);
        if let Some(socket) = self.exit.sockets.get(to.via).filter(|_| is_foreign) {
            let to = (to.address, ecn::NOT_CAPABLE);
            // What the system does not take is lost.
            let _ = socket.send(to, datagram, datagram.len());
        }
    }

    fn answer(&mut self, slot: usize, probe: Probe, from: Option<Pair>) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        // By the lane there is nothing to find out: the probe showed that the peer has keys.
        let Some(from) = from else { return };
        self.exit.emit(
            session,
            Way::Direct(from, 0),
            Kind::ProbeAnswer,
            &probe.answer(from.address),
        );
    }
}

/// What is needed to open datagrams.
struct Entry<'e, 'b> {
    sessions: &'e mut Slab<super::session::Session>,
    indices: &'e Indices,
    networks: &'e mut BTreeMap<NetworkId, Network>,
    refused: &'e mut u64,
    happened: &'e mut Vec<Happened>,
    tokens: &'e Tokens,
    started: Instant,
    now: Instant,
    /// Packets of one flow on their way to the device of their destination in a network.
    run: Option<(NetworkId, IpAddr, Run<'b>)>,
}

impl<'b> Entry<'_, 'b> {
    /// Opens a datagram that came from an address, or by the lane; a router may have marked it.
    fn open(&mut self, datagram: &'b mut [u8], from: Option<Pair>, is_marked: bool) {
        let Some(slot) = sealed::index(datagram).and_then(|index| self.indices.get(&index)) else {
            return self.pass_by(datagram, from);
        };
        let (slot, bytes) = (*slot, datagram.len());
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let Some(index) = sealed::index(datagram) else {
            return;
        };
        let Ok((opened, has_next_keys)) = session.open(index, datagram) else {
            session.counters.refused += 1;
            return;
        };
        if has_next_keys {
            self.happened.push(Happened::HasKeys(slot));
        }
        match from {
            Some(from) => {
                let ask = session.paths.heard(self.now, from, opened.is_newest);
                self.happened
                    .extend(ask.map(|ask| Happened::Ask(slot, ask)));
            }
            None if opened.is_newest => session.paths.heard_by_lane(self.now),
            None => {}
        }
        let is_packet = matches!(opened.kind, Some(Kind::Packet | Kind::PartialPacket));
        if is_packet && is_marked && !ecn::mark(opened.content) {
            // Its ends take a loss for the mark that they would not understand.
            return;
        }
        match opened.kind {
            Some(Kind::Packet) => self.take(slot, opened.content, false),
            Some(Kind::PartialPacket) => self.take(slot, opened.content, true),
            Some(Kind::FirstHalf) => self.take_half(slot, Half::First, opened.content),
            Some(Kind::SecondHalf) => self.take_half(slot, Half::Second, opened.content),
            Some(Kind::Probe) => {
                let probe = Probe::decode(opened.content);
                let probe = probe.filter(|probe| usize::from(probe.bytes) == bytes);
                self.happened
                    .extend(probe.map(|probe| Happened::Asked(slot, probe, from)));
            }
            Some(Kind::ProbeAnswer) => {
                let answer = Probe::decode(opened.content);
                if let (Some(answer), Some(from)) = (answer, from)
                    && self.tokens.fits(answer, from)
                {
                    let asked = self.started + Duration::from_micros(answer.micros);
                    let round_trip = self.now.saturating_duration_since(asked);
                    let bytes = usize::from(answer.bytes);
                    if session.paths.answered(self.now, from, round_trip, bytes) {
                        self.happened.push(Happened::HasWay(slot));
                    }
                    // By a relay the peer sees the relay.
                    let seen_at = Probe::seen_at(opened.content).filter(|_| from.is_straight());
                    if let Some(at) = seen_at.filter(|at| session.seen_at != Some(*at)) {
                        session.seen_at = Some(at);
                        self.happened.push(Happened::Seen(session.peer, at));
                    }
                }
            }
            Some(Kind::Message) => {
                // By a relay, or by the lane, hosts say nothing.
                let from = from.filter(Pair::is_straight);
                let said = from.map(|_| Happened::Said(session.peer, opened.content.to_vec()));
                self.happened.extend(said);
            }
            // Of a later version.
            None => {}
        }
    }

    /// Takes a datagram of no session: one of STUN is for others.
    fn pass_by(&mut self, datagram: &[u8], from: Option<Pair>) {
        let first = datagram.first();
        let is_foreign =
            first.is_some_and(|first| *first < STUN_BELOW || sealed::FOR_HOST.contains(first));
        // Nobody speaks so by way of a relay.
        let from = from.filter(Pair::is_straight);
        match from.filter(|_| is_foreign && datagram.len() <= FOREIGN_BYTES_MAX) {
            Some(from) => {
                let foreign = Happened::Foreign(from, datagram.to_vec());
                self.happened.push(foreign);
            }
            None => *self.refused += 1,
        }
    }

    /// Takes a packet that came in a session.
    fn take(&mut self, slot: usize, content: &'b [u8], partial: bool) {
        let Some((id, packet)) = self.admit(slot, content) else {
            return;
        };
        let follows = |(of, _, run): &mut (NetworkId, IpAddr, Run<'b>)| {
            *of == id && run.extend(&packet, partial)
        };
        if !self.run.as_mut().is_some_and(follows) {
            self.write_run();
            let mut run = Run::begin(&packet, partial);
            let destination = packet.destination();
            let network = self.networks.get(&id);
            let device = network.and_then(|network| network.device_of(destination));
            run.close_unless(|transport| {
                device.is_some_and(|device| device.takes_super_packets(transport))
            });
            self.run = Some((id, destination, run));
        }
    }

    fn take_half(&mut self, slot: usize, half: Half, content: &[u8]) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let Some(whole) = session.put_together(self.now, half, content) else {
            return;
        };
        // What came before it goes before it.
        self.write_run();
        if let Some((id, packet)) = self.admit(slot, &whole)
            && let Some(network) = self.networks.get(&id)
        {
            network.write(packet.bytes());
        }
    }

    /// Checks that the peer may send a packet, and to whom it is.
    fn admit<'p>(&mut self, slot: usize, content: &'p [u8]) -> Option<(NetworkId, IpPacket<'p>)> {
        let session = self.sessions.get_mut(slot)?;
        let packet = IpPacket::parse(content).ok();
        let network = self.networks.get(&session.network);
        let admitted = packet.zip(network).filter(|(packet, network)| {
            network.table.may_send(&slot, packet.source())
                && network.table.is_here(packet.destination())
                && session.passes(self.now, Direction::Inbound, network.mine(), packet)
        });
        let Some((packet, _)) = admitted else {
            session.counters.refused += 1;
            return None;
        };
        session.counters.received_packets += 1;
        session.counters.received_bytes += packet.bytes().len() as u64;
        Some((session.network, packet))
    }

    /// Writes what was put together so far to its device.
    fn write_run(&mut self) {
        let Some((id, destination, run)) = self.run.take() else {
            return;
        };
        let network = self.networks.get(&id);
        let device = network.and_then(|network| network.device_of(destination));
        if let Some(device) = device {
            // What the kernel does not take is lost.
            run.finish(|pieces| drop(device.write(pieces)));
        }
    }
}
