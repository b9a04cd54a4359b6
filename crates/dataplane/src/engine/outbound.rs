//! From the devices to the peers.

use std::net::IpAddr;

use bytes::{Bytes, BytesMut};

use super::backlog::SHORT_BYTES_MAX;
use super::batch::Batch;
use super::driver::Driver;
use super::session::Session;
use super::sockets::{Pair, Sockets};
use super::{NetworkId, Note, Outside, PeerKey};
use crate::device::Device;
use crate::ecn;
use crate::filter::Direction;
use crate::icmp::Reason;
use crate::offload::{OFFLOAD_HEADER_BYTES, Offload, Transport, complete, split};
use crate::packet::{IpPacket, protocol};
use crate::relay;
use crate::sealed::{Kind, OVERHEAD_BYTES};
use crate::socket::Socket;
use crate::table::Lookup;

/// How many packets are read from a device before others have their turn.
const READS_MAX: usize = 64;
/// How many super-packets are sent before others have their turn.
const AT_ONCE: usize = 2;
/// With how many octets a turn of those that have waited ends: two super-packets, or shorter ones.
const TURN_BYTES: usize = 100_000;
/// How many datagrams are given to a lane at once.
const LANE_DATAGRAMS_MAX: usize = 64;

/// Which of a network's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// This host's.
    Host,
    /// That of those for whom it holds addresses.
    Guests,
}

/// What to do with a packet that cannot be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// Let it wait, and ask for the holder of its destination.
    Wait,
    /// Tell its sender that it is not delivered: it has waited already.
    Refuse,
}

impl<O: Outside> Driver<O> {
    /// Reads a device until it is empty or others have to have their turn. What does not go at
    /// once is left for [`Self::forward_waiting`].
    pub(super) fn read_device(&mut self, id: NetworkId, side: Side) {
        let mut long = 0;
        for _ in 0..READS_MAX {
            if !self.backlog.has_room((id, side)) {
                break;
            }
            let network = self.networks.get(&id);
            let device = network.and_then(|network| match side {
                Side::Host => network.device.as_ref(),
                Side::Guests => network.guests.as_ref(),
            });
            let Some(device) = device else {
                return;
            };
            match device.read(&mut self.read) {
                Ok(length) => {
                    // As long as few come, none is put aside: it is still in the cache.
                    let is_early = self.backlog.is_empty() && long < AT_ONCE;
                    if is_early || self.backlog.goes_first((id, side), &mut self.read, length) {
                        self.forward(id, length, Otherwise::Wait);
                        long += usize::from(length > SHORT_BYTES_MAX);
                    }
                }
                Err(error) => {
                    if side == Side::Host && Device::is_removed(&error) {
                        self.lose_device(id);
                    }
                    break;
                }
            }
        }
        self.flush();
    }

    /// Sends some of the packets that wait for their turn.
    pub(super) fn forward_waiting(&mut self) {
        let (mut packets, mut bytes) = (0, 0);
        while packets < READS_MAX && bytes < TURN_BYTES {
            let Some((id, length)) = self.backlog.next(&mut self.read) else {
                break;
            };
            self.forward(id, length, Otherwise::Wait);
            packets += 1;
            bytes += length;
        }
        self.flush();
    }

    /// Sends those packets that waited for an address.
    pub(super) fn send_waiting(&mut self, id: NetworkId, address: IpAddr) {
        let Some(network) = self.networks.get_mut(&id) else {
            return;
        };
        for read in network.take_waiting(address) {
            self.read[..read.len()].copy_from_slice(&read);
            self.forward(id, read.len(), Otherwise::Refuse);
        }
        self.flush();
    }

    /// Sends the packet that fills so many octets of `read` to the holder of its destination.
    fn forward(&mut self, id: NetworkId, length: usize, otherwise: Otherwise) {
        let Some(network) = self.networks.get(&id) else {
            return;
        };
        let Some((header, packet)) =
            self.read[..length].split_first_chunk_mut::<OFFLOAD_HEADER_BYTES>()
        else {
            return;
        };
        let Some(offload) = Offload::decode(header) else {
            return;
        };
        let Ok(parsed) = IpPacket::parse(packet) else {
            return;
        };
        // A packet may carry only the addresses that the other members know for this host.
        let source = parsed.source();
        let is_own = network.is_of_this_host(source) && !network.is_in_user_space();
        if !network.table.is_here(source) || (is_own && is_tunnel(&self.own_ports, &parsed)) {
            return;
        }
        let destination = parsed.destination();
        let (slot, wanted) = match network.table.lookup(destination) {
            Lookup::Forward(route) => (Some(route.peer), destination),
            Lookup::Miss(wanted) => (None, wanted),
            Lookup::Many => return self.spread(id, length),
            Lookup::Hosted => return network.deliver(offload, packet),
            Lookup::Local if network.table.hosts(source) => {
                return network.deliver(offload, packet);
            }
            Lookup::Local | Lookup::Outside => return,
        };
        let session = slot.and_then(|slot| self.sessions.get_mut(slot));
        let Some(session) = session.filter(|session| session.can_seal()) else {
            return self.put_off(id, slot, wanted, length, otherwise);
        };
        if !session.passes(self.now, Direction::Outbound, network.mine(), &parsed) {
            let network = self.networks.get_mut(&id);
            let read = &self.read[..length];
            return network
                .into_iter()
                .for_each(|n| n.refuse(self.now, Reason::AdministrativelyProhibited, read));
        }
        session.paths.spoke(self.now, packet.len() + OVERHEAD_BYTES);
        let exit = &mut self.exit;
        let Some(way) = exit.way(session) else {
            return self.put_off(id, slot, wanted, length, otherwise);
        };
        if let Some((transport, segment_bytes)) = offload.segments {
            let most = way.datagram_bytes_max() - OVERHEAD_BYTES;
            split(packet, transport, segment_bytes, most, |packet| {
                exit.send(session, way, offload, packet);
            });
        } else {
            exit.send(session, way, offload, packet);
        }
    }

    /// Hands the packet that fills so many octets of `read` to the host, for all members.
    fn spread(&mut self, id: NetworkId, length: usize) {
        let Some((header, packet)) =
            self.read[..length].split_first_chunk_mut::<OFFLOAD_HEADER_BYTES>()
        else {
            return;
        };
        // What is to be cut is longer than what goes to many at once.
        let offload = Offload::decode(header).filter(|offload| offload.segments.is_none());
        if !offload.is_some_and(|offload| complete_checksum(offload, packet)) {
            return;
        }
        if let (Some(network), Ok(parsed)) = (self.networks.get_mut(&id), IpPacket::parse(packet))
            && network.may_spread(self.now, &parsed)
        {
            let packet = Bytes::copy_from_slice(parsed.bytes());
            let network = id;
            self.exit.outside.note(Note::Many { network, packet });
        }
    }

    /// Lets the packet that fills so many octets of `read` wait, or tells its sender.
    fn put_off(
        &mut self,
        id: NetworkId,
        slot: Option<usize>,
        destination: IpAddr,
        length: usize,
        otherwise: Otherwise,
    ) {
        let Some(network) = self.networks.get_mut(&id) else {
            return;
        };
        let read = &self.read[..length];
        if otherwise == Otherwise::Refuse {
            return network.refuse(self.now, Reason::HostUnreachable, read);
        }
        let is_first = network.put_off(self.now, destination, read);
        if is_first || slot.is_some() {
            self.ask_for(id, slot, destination);
        }
    }

    /// Asks again for what packets wait for, lest those that nothing follows wait in vain: the
    /// host may not have heard, or a session may have ended meanwhile.
    pub(super) fn ask_again(&mut self, id: NetworkId) {
        let Some(network) = self.networks.get_mut(&id) else {
            return;
        };
        for address in network.ask_again(self.now) {
            let network = self.networks.get(&id);
            let slot = network.and_then(|network| match network.table.lookup(address) {
                Lookup::Forward(route) => Some(route.peer),
                _ => None,
            });
            match slot {
                Some(slot) if self.can_send(slot) => self.send_waiting(id, address),
                slot => self.ask_for(id, slot, address),
            }
        }
    }

    /// Has the host find the holder of an address, or agree on keys with it.
    fn ask_for(&mut self, id: NetworkId, slot: Option<usize>, address: IpAddr) {
        let network = id;
        let note = match slot.and_then(|slot| self.sessions.get_mut(slot)) {
            None => Note::Missing { network, address },
            Some(session) => {
                if !session.wants_keys(self.now, true) {
                    return;
                }
                session.wish()
            }
        };
        self.exit.outside.note(note);
    }
}

/// Which way datagrams take, and how long they may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Direct(Pair, usize),
    Lane(PeerKey, usize),
}

impl Way {
    fn datagram_bytes_max(self) -> usize {
        match self {
            Self::Direct(_, bytes_max) | Self::Lane(_, bytes_max) => bytes_max,
        }
    }
}

/// Where datagrams leave.
pub(super) struct Exit<O> {
    pub(super) sockets: Sockets,
    pub(super) batch: Batch,
    pub(super) outside: O,
    /// Datagrams that take the lane of a peer's session.
    by_lane: (PeerKey, Vec<Bytes>),
}

impl<O: Outside> Exit<O> {
    pub(super) fn new(socket: Socket, outside: O) -> Self {
        Self {
            sockets: Sockets::new(socket),
            batch: Batch::new(),
            outside,
            by_lane: ([0; 32], Vec::with_capacity(LANE_DATAGRAMS_MAX)),
        }
    }

    /// Returns the way to a peer; none without a session. The lane is that of a session which may be another than
    /// the one that has agreed on keys, if that has ended: the peer may have been restarted since.
    pub(super) fn way(&mut self, session: &Session) -> Option<Way> {
        if let Some((to, bytes_max)) = session.paths.direct() {
            return Some(Way::Direct(to, bytes_max));
        }
        if session.has_lapsed() {
            return None;
        }
        let bytes_max = self.outside.lane_bytes_max(&session.peer)?;
        (bytes_max > 2 * OVERHEAD_BYTES).then_some(Way::Lane(session.peer, bytes_max))
    }

    /// Sends a packet whose checksum is as `offload` tells, in one datagram or in two.
    fn send(&mut self, session: &mut Session, way: Way, offload: Offload, packet: &mut [u8]) {
        session.counters.sent_packets += 1;
        session.counters.sent_bytes += packet.len() as u64;
        if packet.len() + OVERHEAD_BYTES <= way.datagram_bytes_max() {
            let kind = if is_of_transport(offload, packet) {
                Kind::PartialPacket
            } else if complete_checksum(offload, packet) {
                Kind::Packet
            } else {
                return;
            };
            return self.emit(session, way, kind, packet);
        }
        if !complete_checksum(offload, packet) {
            return;
        }
        let (number, second) = session.halve(packet);
        let (first, second) = packet.split_at(second);
        for (kind, part) in [(Kind::FirstHalf, first), (Kind::SecondHalf, second)] {
            if part.len() + number.len() + OVERHEAD_BYTES <= way.datagram_bytes_max() {
                let content = [&number[..], part].concat();
                self.emit(session, way, kind, &content);
            }
        }
    }

    /// Seals a datagram and sends it.
    pub(super) fn emit(&mut self, session: &mut Session, way: Way, kind: Kind, content: &[u8]) {
        let bytes = content.len() + OVERHEAD_BYTES;
        match way {
            Way::Direct(to, _) => {
                // Of halves, which have no header of their own, nothing is said.
                let ecn = match kind {
                    Kind::Packet | Kind::PartialPacket => ecn::of(content),
                    _ => ecn::NOT_CAPABLE,
                };
                let bytes = bytes + to.header_bytes();
                let room = self.batch.room(&self.sockets, (to, ecn), bytes);
                let (head, room) = room.split_at_mut(to.header_bytes());
                if let Some(token) = to.relay {
                    head.copy_from_slice(&relay::header(token));
                }
                if session.seal(kind, content, room).is_err() {
                    self.batch.take_back(bytes);
                }
            }
            Way::Lane(peer, _) => {
                let mut datagram = BytesMut::zeroed(bytes);
                if session.seal(kind, content, &mut datagram).is_err() {
                    return;
                }
                if self.by_lane.0 != peer || self.by_lane.1.len() >= LANE_DATAGRAMS_MAX {
                    self.flush_lane();
                    self.by_lane.0 = peer;
                }
                self.by_lane.1.push(datagram.freeze());
            }
        }
    }

    /// Sends what waits for more of its kind.
    pub(super) fn flush(&mut self) {
        self.batch.flush(&self.sockets);
        self.flush_lane();
    }

    fn flush_lane(&mut self) {
        let (peer, datagrams) = &mut self.by_lane;
        if !datagrams.is_empty() {
            self.outside.send_by_lane(peer, datagrams);
            datagrams.clear();
        }
    }
}

/// Tells whether a packet of this host is one of this node's own sessions, which found a way
/// through the network that it carries: their sockets alone have its source port. Its destination
/// port says nothing, as programs of others draw theirs from the same range.
fn is_tunnel(own_ports: &[u16], packet: &IpPacket<'_>) -> bool {
    if packet.protocol() != protocol::UDP || packet.fragment_offset_bytes() > 0 {
        return false;
    }
    let port = packet.payload().first_chunk();
    port.is_some_and(|port| own_ports.contains(&u16::from_be_bytes(*port)))
}

/// Tells whether a partial checksum is that of a packet's own TCP or UDP, as the receiver will
/// take it to be.
fn is_of_transport(offload: Offload, packet: &[u8]) -> bool {
    let Some((from, at)) = offload.partial else {
        return false;
    };
    IpPacket::parse(packet).is_ok_and(|packet| {
        let transport = Transport::of(packet.protocol()).filter(|_| !packet.is_fragment());
        usize::from(from) == packet.header_bytes()
            && transport.is_some_and(|transport| transport.checksum_at() == usize::from(at))
    })
}

/// Completes the checksum of a packet as the device's header has it; false when that makes no
/// sense.
fn complete_checksum(offload: Offload, packet: &mut [u8]) -> bool {
    offload
        .partial
        .is_none_or(|(from, at)| complete(packet, from, at))
}
