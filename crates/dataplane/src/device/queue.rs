//! A device whose other end is a task of this process.
//!
//! ```text
//!   engine  Queue ── received, 1,024 packets at most ──> Port   task
//!                 <── sent ─────────────────────────────
//! ```
//!
//! Each direction is a bounded queue with a bell. What finds no room is dropped, as a network
//! interface would: whoever sends too much slows down by that.
//!
//! Packets are whole and their checksums complete, unless the task asks for super-packets of
//! TCP ([`queue_with_super_packets`]): those cross at once, and their checksums are not made.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};

use super::Device;
use crate::bell::Bell;
use crate::offload::{OFFLOAD_HEADER_BYTES, Offload, Transport, begin_checksum, complete};

/// The most packets that wait in each direction, as the kernel's own queue of a TUN device
/// has room for twice that.
pub const PACKETS_MAX: usize = 1024;

/// Makes a device for packets of at most `mtu` octets, and the port through which a task uses
/// it as the kernel uses a TUN device.
///
/// # Errors
/// When the system has no file descriptor left.
pub fn queue(mtu: u16) -> io::Result<(Device, Port)> {
    make(mtu, false)
}

/// Makes a device as [`queue`] does, whose task gets TCP in super-packets and with checksums
/// that are not to be looked at, and may send it so ([`Port::send_tcp`]).
///
/// # Errors
/// When the system has no file descriptor left.
pub fn queue_with_super_packets(mtu: u16) -> io::Result<(Device, Port)> {
    make(mtu, true)
}

fn make(mtu: u16, has_super_packets: bool) -> io::Result<(Device, Port)> {
    let (to_engine, of_task) = line(mtu)?;
    let (to_task, of_engine) = line(mtu)?;
    let queue = Queue {
        has_super_packets,
        incoming: of_task,
        outgoing: to_task,
    };
    let port = Port {
        incoming: of_engine,
        outgoing: to_engine,
    };
    Ok((Device::Queue(queue), port))
}

/// The engine's end.
pub struct Queue {
    has_super_packets: bool,
    incoming: Outlet,
    outgoing: Inlet,
}

impl Queue {
    pub(super) fn takes_super_packets(&self, transport: Transport) -> bool {
        self.has_super_packets && transport == Transport::Tcp
    }

    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (offload, packet) = self.incoming.take().ok_or(io::ErrorKind::WouldBlock)?;
        let (header, room) = buffer
            .split_first_chunk_mut::<OFFLOAD_HEADER_BYTES>()
            .ok_or(io::ErrorKind::InvalidInput)?;
        *header = offload.encode(packet.first().is_some_and(|first| first >> 4 == 4), 0);
        let length = packet.len().min(room.len());
        room[..length].copy_from_slice(&packet[..length]);
        Ok(OFFLOAD_HEADER_BYTES + length)
    }

    pub(super) fn write(&self, pieces: &[IoSlice<'_>]) {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let Some((header, first)) = pieces
            .split_first()
            .and_then(|(first, _)| first.split_first_chunk::<OFFLOAD_HEADER_BYTES>())
        else {
            return;
        };
        let mut packet = Vec::with_capacity(length);
        packet.extend(first);
        for piece in &pieces[1..] {
            packet.extend_from_slice(piece);
        }
        let offload = Offload::decode(header).unwrap_or_default();
        let is_left = |at: u16| self.has_super_packets && at == Transport::Tcp.checksum_at() as u16;
        let is_fit = match offload.partial {
            Some((from, at)) if !is_left(at) => complete(&mut packet, from, at),
            Some(_) | None => true,
        };
        if is_fit {
            self.outgoing.put(offload, packet);
        }
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.incoming.bell.as_fd()
    }
}

/// The task's end: readable when there is something to [`Port::receive`].
pub struct Port {
    incoming: Outlet,
    outgoing: Inlet,
}

impl Port {
    /// Sends an IP packet into the network, as the kernel would; false when it is dropped:
    /// longer than the MTU, or the queue is full.
    pub fn send(&self, packet: Vec<u8>) -> bool {
        self.outgoing.put(Offload::default(), packet)
    }

    /// Sends a packet of TCP whose checksum was not made, or a super-packet to be cut into
    /// segments with so many octets of payload; false when it is dropped.
    pub fn send_tcp(&self, mut packet: Vec<u8>, segment_bytes: Option<u16>) -> bool {
        let partial = begin_checksum(&mut packet, Transport::Tcp);
        let segments = segment_bytes.map(|bytes| (Transport::Tcp, bytes));
        if partial.is_none() {
            self.outgoing.count_drop();
            return false;
        }
        self.outgoing.put(Offload { partial, segments }, packet)
    }

    /// Returns how many packets find room now. It grows as the engine takes packets, which
    /// nothing tells of: whoever waits for room looks again after a millisecond.
    pub fn room(&self) -> usize {
        PACKETS_MAX.saturating_sub(self.outgoing.waiting.load(Ordering::Relaxed))
    }

    /// Takes a packet that came out of the network, its checksums complete. Once there is none
    /// the port is not readable until one comes.
    pub fn receive(&self) -> Option<Vec<u8>> {
        self.incoming.take().map(|(_, packet)| packet)
    }

    /// Returns how many packets were dropped, in both directions.
    pub fn dropped(&self) -> u64 {
        let dropped = [&self.incoming.dropped, &self.outgoing.dropped];
        dropped
            .map(|count| count.load(Ordering::Relaxed))
            .iter()
            .sum()
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.incoming.bell.as_fd()
    }
}

/// Where packets of one direction go in.
struct Inlet {
    packets: SyncSender<(Offload, Vec<u8>)>,
    bell: Arc<Bell>,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
    mtu: u16,
}

/// Where they come out.
struct Outlet {
    packets: Receiver<(Offload, Vec<u8>)>,
    bell: Arc<Bell>,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

fn line(mtu: u16) -> io::Result<(Inlet, Outlet)> {
    let (to, from) = mpsc::sync_channel(PACKETS_MAX);
    let bell = Arc::new(Bell::new()?);
    let waiting = Arc::new(AtomicUsize::new(0));
    let dropped = Arc::new(AtomicU64::new(0));
    let outlet = Outlet {
        packets: from,
        bell: Arc::clone(&bell),
        waiting: Arc::clone(&waiting),
        dropped: Arc::clone(&dropped),
    };
    let inlet = Inlet {
        packets: to,
        bell,
        waiting,
        dropped,
        mtu,
    };
    Ok((inlet, outlet))
}

impl Inlet {
    fn put(&self, offload: Offload, packet: Vec<u8>) -> bool {
        // Counted before, so that it is never taken out before it is counted.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let is_fit = offload.segments.is_some() || packet.len() <= self.mtu.into();
        let taken = is_fit && self.packets.try_send((offload, packet)).is_ok();
        if taken {
            self.bell.ring();
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.count_drop();
        }
        taken
    }

    fn count_drop(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl Outlet {
    fn take(&self) -> Option<(Offload, Vec<u8>)> {
        let packet = self.packets.try_recv().or_else(|_| {
            self.bell.silence();
            self.packets.try_recv()
        });
        let packet = packet.ok()?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::super::READ_BYTES_MAX;
    use super::*;

    fn is_readable(end: &impl AsFd) -> bool {
        let mut ready = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::ZERO).unwrap() > 0
    }

    #[test]
    fn packets_pass_both_ways_and_wake_the_other_end() {
        let (device, port) = queue(1420).unwrap();
        assert!(!is_readable(&device) && !is_readable(&port));
        assert!(port.send(vec![1; 40]) && port.send(vec![2; 50]));
        assert!(is_readable(&device));
        let mut buffer = vec![0xff; READ_BYTES_MAX];
        assert_eq!(device.read(&mut buffer).unwrap(), OFFLOAD_HEADER_BYTES + 40);
        assert_eq!(
            buffer[..OFFLOAD_HEADER_BYTES + 1],
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
        );
        assert_eq!(device.read(&mut buffer).unwrap(), OFFLOAD_HEADER_BYTES + 50);
        let empty = device.read(&mut buffer).unwrap_err();
        assert!(empty.kind() == io::ErrorKind::WouldBlock && !is_readable(&device));
        let header = Offload::default().encode(true, 0);
        let pieces = [
            IoSlice::new(&header),
            IoSlice::new(b"pack"),
            IoSlice::new(b"et"),
        ];
        device.write(&pieces).unwrap();
        assert!(is_readable(&port));
        assert_eq!(port.receive().as_deref(), Some(&b"packet"[..]));
        assert!(port.receive().is_none() && !is_readable(&port));
    }

    #[test]
    fn a_partial_checksum_is_completed() {
        let (device, port) = queue(100).unwrap();
        let partial = Offload {
            partial: Some((20, 6)),
            segments: None,
        };
        let header = partial.encode(true, 0);
        let packet = vec![0x11; 31];
        device
            .write(&[IoSlice::new(&header), IoSlice::new(&packet)])
            .unwrap();
        let mut completed = packet;
        assert!(complete(&mut completed, 20, 6));
        assert_eq!(port.receive(), Some(completed));
    }

    #[test]
    fn super_packets_of_tcp_cross_at_once_if_they_are_wanted() {
        let (device, port) = queue_with_super_packets(100).unwrap();
        assert!(device.takes_super_packets(Transport::Tcp));
        assert!(!device.takes_super_packets(Transport::Udp));
        let mut packet = vec![0; 540];
        packet[..4].copy_from_slice(&[0x45, 0, 2, 28]);
        (packet[9], packet[32]) = (6, 0x50);
        assert!(port.send_tcp(packet.clone(), Some(250)));
        assert!(!port.send_tcp(vec![0; 40], None));
        let mut buffer = vec![0; READ_BYTES_MAX];
        let length = device.read(&mut buffer).unwrap();
        let (header, whole) = buffer[..length].split_first_chunk().unwrap();
        let offload = Offload::decode(header).unwrap();
        assert_eq!(offload.segments, Some((Transport::Tcp, 250)));
        assert_eq!(offload.partial, Some((20, 16)));
        assert_eq!(whole.len(), packet.len());
        // And the other way, with the sum that was begun left as it is.
        device.write(&[IoSlice::new(&buffer[..length])]).unwrap();
        let received = port.receive().unwrap();
        assert_eq!((received.len(), received[36..38] == [0, 0]), (540, false));
        let (plain, _) = queue(100).unwrap();
        assert!(!plain.takes_super_packets(Transport::Tcp));
    }

    #[test]
    fn what_is_too_long_or_too_much_is_dropped_and_counted() {
        let (device, port) = queue(100).unwrap();
        assert!(!port.send(vec![0; 101]));
        for _ in 0..PACKETS_MAX {
            assert!(port.send(vec![0; 100]));
        }
        assert!(!port.send(vec![0; 100]) && port.room() == 0);
        device.read(&mut vec![0; READ_BYTES_MAX]).unwrap();
        assert_eq!(port.room(), 1);
        let header = Offload::default().encode(true, 0);
        let long = [0; 101];
        device
            .write(&[IoSlice::new(&header), IoSlice::new(&long)])
            .unwrap();
        assert_eq!((port.dropped(), port.receive()), (3, None));
    }
}
