//! Packets of devices that wait for their turn.
//!
//! A device hands its packets over in order: those of a flow that is faster than the engine would
//! keep everybody else's waiting. So they are taken out of the device as they come, and what
//! belongs to a flow of which nothing waits goes before what does, as new queues go before old
//! ones in fair queueing (RFC 8290, section 4.2). A flow's own packets stay in order. Nothing is
//! dropped here: what there is no room for stays in the device.

use std::collections::VecDeque;
use std::hash::{Hash as _, Hasher as _};
use std::mem;

use rustc_hash::FxHasher;

use super::NetworkId;
use super::outbound::Side;
use crate::device::READ_BYTES_MAX;
use crate::offload::OFFLOAD_HEADER_BYTES;
use crate::packet::{IpPacket, protocol};

/// The most packets that wait, and how many may of each device although others fill the room.
const PACKETS_MAX: usize = 1024;
const PACKETS_OWN: usize = 64;
/// The longest read that counts as short: one packet, and no super-packet.
pub(super) const SHORT_BYTES_MAX: usize = 2048;
/// The most super-packets that wait; their buffers take 4 MiB, as much as Linux lets one TCP
/// stream have under way unless told otherwise (tcp(7), `tcp_wmem`). And how many may of each
/// device although others fill the room.
const SUPER_PACKETS_MAX: usize = 64;
const SUPER_PACKETS_OWN: usize = 2;
/// How many flows are told apart, by a hash; a power of two.
const FLOWS: usize = 256;

/// A device: of which network, and whose.
pub(super) type Source = (NetworkId, Side);

/// What waits.
pub(super) struct Backlog {
    /// Of each device, those first that have their turn first. None is empty.
    queues: VecDeque<Queue>,
    waiting: Count,
    /// How many packets of a flow wait.
    of_flow: [u16; FLOWS],
    /// Buffers for super-packets that hold none.
    spare: Vec<Vec<u8>>,
}

/// What waits of one device, in order.
struct Queue {
    source: Source,
    packets: VecDeque<Waiting>,
    waiting: Count,
}

struct Waiting {
    flow: usize,
    length: usize,
    read: Vec<u8>,
}

/// How many wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    packets: usize,
    /// Super-packets among them.
    long: usize,
}

impl Count {
    fn add(&mut self, length: usize) {
        self.packets += 1;
        self.long += usize::from(length > SHORT_BYTES_MAX);
    }

    fn take(&mut self, length: usize) {
        self.packets -= 1;
        self.long -= usize::from(length > SHORT_BYTES_MAX);
    }
}

impl Backlog {
    pub(super) fn new() -> Self {
        Self {
            queues: VecDeque::new(),
            waiting: Count::default(),
            of_flow: [0; FLOWS],
            spare: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Tells whether there is room for one more of a device.
    pub(super) fn has_room(&self, source: Source) -> bool {
        let own = self.queues.iter().find(|queue| queue.source == source);
        let own = own.map_or_else(Count::default, |queue| queue.waiting);
        (self.waiting.packets < PACKETS_MAX || own.packets < PACKETS_OWN)
            && (self.waiting.long < SUPER_PACKETS_MAX || own.long < SUPER_PACKETS_OWN)
    }

    /// Gives back what memory a busy time took.
    pub(super) fn rest(&mut self) {
        if self.is_empty() {
            self.spare.clear();
        }
    }

    /// Tells whether the packet of a device that fills the first `length` octets of `read`, which
    /// is [`READ_BYTES_MAX`] long, goes at once. Otherwise it was taken in, for which there must be
    /// room, and `read` may be another buffer.
    pub(super) fn goes_first(&mut self, source: Source, read: &mut Vec<u8>, length: usize) -> bool {
        let flow = flow(source, &read[..length]);
        let is_short = length <= SHORT_BYTES_MAX;
        if is_short && self.of_flow[flow] == 0 {
            return true;
        }
        let taken = if is_short {
            read[..length].to_vec()
        } else {
            let buffer = self.spare.pop();
            mem::replace(read, buffer.unwrap_or_else(|| vec![0; READ_BYTES_MAX]))
        };
        self.of_flow[flow] += 1;
        self.waiting.add(length);
        let queue = self.queue_of(source);
        queue.waiting.add(length);
        queue.packets.push_back(Waiting {
            flow,
            length,
            read: taken,
        });
        false
    }

    fn queue_of(&mut self, source: Source) -> &mut Queue {
        let known = self.queues.iter().position(|queue| queue.source == source);
        let at = known.unwrap_or_else(|| {
            self.queues.push_back(Queue {
                source,
                packets: VecDeque::new(),
                waiting: Count::default(),
            });
            self.queues.len() - 1
        });
        &mut self.queues[at]
    }

    /// Puts the packet that has waited longest of the device whose turn it is into `read`, which is
    /// as long as above, and tells of which network it is and how many octets it fills.
    pub(super) fn next(&mut self, read: &mut Vec<u8>) -> Option<(NetworkId, usize)> {
        let mut queue = self.queues.pop_front()?;
        let next = queue.packets.pop_front()?;
        let (id, _) = queue.source;
        queue.waiting.take(next.length);
        self.waiting.take(next.length);
        self.of_flow[next.flow] -= 1;
        if !queue.packets.is_empty() {
            self.queues.push_back(queue);
        }
        if next.length <= SHORT_BYTES_MAX {
            read[..next.length].copy_from_slice(&next.read);
        } else {
            self.spare.push(mem::replace(read, next.read));
        }
        Some((id, next.length))
    }
}

/// Which flow a packet is of, as far as they are told apart.
fn flow((network, side): Source, read: &[u8]) -> usize {
    let mut hasher = FxHasher::default();
    (network.0, side == Side::Host).hash(&mut hasher);
    let packet = read.get(OFFLOAD_HEADER_BYTES..).unwrap_or_default();
    if let Ok(packet) = IpPacket::parse(packet) {
        packet.source().hash(&mut hasher);
        packet.destination().hash(&mut hasher);
        packet.protocol().hash(&mut hasher);
        let has_ports = matches!(packet.protocol(), protocol::TCP | protocol::UDP);
        if has_ports && !packet.is_fragment() {
            packet.payload().first_chunk::<4>().hash(&mut hasher);
        }
    }
    hasher.finish() as usize % FLOWS
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Source = (NetworkId(7), Side::Host);
    const OTHER: Source = (NetworkId(7), Side::Guests);

    /// What a device would give: a UDP packet from a port, `length` octets with its headers.
    fn packet(port: u16, number: u8, length: usize) -> (Vec<u8>, usize) {
        let mut read = vec![0; READ_BYTES_MAX];
        let packet = &mut read[OFFLOAD_HEADER_BYTES..length];
        packet[0] = 0x45;
        let total = (length - OFFLOAD_HEADER_BYTES) as u16;
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet[8] = 64;
        packet[9] = protocol::UDP;
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet[20..22].copy_from_slice(&port.to_be_bytes());
        packet[28] = number;
        (read, length)
    }

    fn put(backlog: &mut Backlog, source: Source, (mut read, length): (Vec<u8>, usize)) -> bool {
        let goes_first = backlog.goes_first(source, &mut read, length);
        assert_eq!(read.len(), READ_BYTES_MAX);
        goes_first
    }

    /// The port and the number of the next.
    fn take(backlog: &mut Backlog) -> Option<(u16, u8)> {
        let mut read = vec![0; READ_BYTES_MAX];
        let (network, length) = backlog.next(&mut read)?;
        assert_eq!((network, read.len()), (ONE.0, READ_BYTES_MAX));
        let packet = &read[OFFLOAD_HEADER_BYTES..length];
        Some((u16::from_be_bytes([packet[20], packet[21]]), packet[28]))
    }

    #[test]
    fn what_nothing_waits_of_overtakes_and_a_flow_stays_in_order() {
        let mut backlog = Backlog::new();
        assert!(put(&mut backlog, ONE, packet(1, 0, 100)), "nothing waits");
        assert!(!put(&mut backlog, ONE, packet(1, 1, 40_000)));
        assert!(!put(&mut backlog, ONE, packet(1, 2, 100)), "behind its own");
        assert!(put(&mut backlog, ONE, packet(2, 3, 100)), "another flow");
        assert!(!put(&mut backlog, ONE, packet(2, 4, 40_000)));
        assert_eq!(take(&mut backlog), Some((1, 1)));
        assert!(!put(&mut backlog, ONE, packet(1, 5, 100)));
        for expected in [(1, 2), (2, 4), (1, 5)] {
            assert_eq!(take(&mut backlog), Some(expected));
        }
        assert_eq!(take(&mut backlog), None);
        assert!(put(&mut backlog, ONE, packet(1, 6, 100)), "nothing waits");
        assert_eq!(backlog.waiting, Count::default());
    }

    #[test]
    fn devices_take_turns_and_each_has_some_room() {
        let mut backlog = Backlog::new();
        while backlog.has_room(ONE) {
            put(&mut backlog, ONE, packet(1, 0, 60_000));
        }
        assert_eq!(backlog.waiting.long, SUPER_PACKETS_MAX);
        assert!(put(&mut backlog, OTHER, packet(3, 0, 100)));
        let mut own = 0;
        while backlog.has_room(OTHER) {
            put(&mut backlog, OTHER, packet(2, own, 60_000));
            own += 1;
        }
        assert_eq!(usize::from(own), SUPER_PACKETS_OWN);
        for expected in [(1, 0), (2, 0), (1, 0), (2, 1), (1, 0), (1, 0)] {
            assert_eq!(take(&mut backlog), Some(expected));
        }
    }

    #[test]
    fn there_is_room_for_so_many_and_buffers_are_used_again() {
        let mut backlog = Backlog::new();
        for length in [60_000, SHORT_BYTES_MAX + 1] {
            while backlog.has_room(ONE) {
                put(&mut backlog, ONE, packet(1, 0, length));
            }
            assert_eq!(backlog.waiting.packets, SUPER_PACKETS_MAX);
            while take(&mut backlog).is_some() {}
            assert_eq!(backlog.spare.len(), SUPER_PACKETS_MAX);
        }
        put(&mut backlog, ONE, packet(1, 0, 60_000));
        while backlog.has_room(ONE) {
            put(&mut backlog, ONE, packet(1, 0, 100));
        }
        assert_eq!(backlog.waiting.packets, PACKETS_MAX);
        while take(&mut backlog).is_some() {}
        backlog.rest();
        assert_eq!(backlog.spare.len(), 0);
        // What cannot be read goes on, to be refused.
        assert!(put(&mut backlog, ONE, (vec![0; READ_BYTES_MAX], 5)));
    }
}
