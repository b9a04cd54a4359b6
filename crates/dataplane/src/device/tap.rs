//! TAP devices: Ethernet at the kernel, IP at the engine (document 004, section 4.4).
//!
//! ```text
//!   0                  10        16        22     24
//!  +------------------+---------+---------+------+---- - - -
//!  | offload header   |   to    |  from   | type | IP packet, ARP, anything
//!  +------------------+---------+---------+------+---- - - -
//! ```
//!
//! The kernel asks for the Ethernet address of whomever it sends to, and is answered here:
//! all others have one and the same ([`super::neighbours`]). The Ethernet header is taken
//! off and put on without copying what follows. Frames of other protocols are dropped and
//! counted.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use super::kernel::{DeviceConfig, DeviceError, Kernel};
use super::neighbours::{Mac, Neighbours, OTHERS, mac_of};
use crate::offload::{OFFLOAD_HEADER_BYTES, Offload, PIECES_MAX, move_headers};
use crate::packet::IpPacket;

const ETHERNET_HEADER_BYTES: usize = 14;
const ETHERNET_SHIFT: i16 = ETHERNET_HEADER_BYTES as i16;

const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// How many frames that are no packets for the engine are taken at once.
const OTHER_FRAMES_MAX: usize = 64;

/// A TAP device that is up.
pub struct Tap {
    kernel: Kernel,
    host: Mac,
    neighbours: Neighbours,
    dropped: AtomicU64,
}

/// What a frame is.
enum Frame {
    /// A packet for the engine, of so many octets.
    Packet(usize),
    /// A question that was answered, or needs no answer.
    Question,
    /// None of ours.
    Other,
}

impl Tap {
    pub(super) fn new(config: &DeviceConfig) -> Result<Self, DeviceError> {
        let kernel = Kernel::new(config)?;
        Ok(Self {
            host: kernel.mac().map_err(DeviceError::System)?,
            neighbours: Neighbours::new(config.ipv4, config.ipv6),
            dropped: AtomicU64::new(0),
            kernel,
        })
    }

    pub(super) fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Returns how many frames were neither IP nor ARP.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Reads frames until one has a packet for the engine.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (header, packet) = buffer
            .split_first_chunk_mut::<OFFLOAD_HEADER_BYTES>()
            .ok_or(io::ErrorKind::InvalidInput)?;
        for _ in 0..OTHER_FRAMES_MAX {
            let mut ethernet = [0; ETHERNET_HEADER_BYTES];
            let length = self.kernel.read_into(&mut [
                IoSliceMut::new(header),
                IoSliceMut::new(&mut ethernet),
                IoSliceMut::new(packet),
            ])?;
            let length = length.saturating_sub(OFFLOAD_HEADER_BYTES + ETHERNET_HEADER_BYTES);
            match self.sort(header, &ethernet, &packet[..length]) {
                Frame::Packet(length) => return Ok(OFFLOAD_HEADER_BYTES + length),
                Frame::Question => {}
                Frame::Other => {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        // There may be more, but others have their turn first.
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Puts the Ethernet header before a packet.
    pub(super) fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        let (first, rest) = pieces.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let (header, headers) = first
            .split_first_chunk::<OFFLOAD_HEADER_BYTES>()
            .ok_or(io::ErrorKind::InvalidInput)?;
        let start: &[u8] = match (headers, rest) {
            ([], [packet, ..]) => packet,
            (headers, _) => headers,
        };
        let (kind, to) = destination(start).ok_or(io::ErrorKind::InvalidInput)?;
        let header = move_headers(*header, ETHERNET_SHIFT).ok_or(io::ErrorKind::InvalidInput)?;
        let ethernet = ethernet(mac_of(to, self.host), kind);
        let mut frame = [IoSlice::new(&[]); PIECES_MAX + 2];
        let count = pieces.len() + 2;
        let frame = frame.get_mut(..count).ok_or(io::ErrorKind::InvalidInput)?;
        frame[0] = IoSlice::new(&header);
        frame[1] = IoSlice::new(&ethernet);
        frame[2] = IoSlice::new(headers);
        frame[3..].copy_from_slice(rest);
        self.kernel.write(frame)
    }

    /// Tells what a frame is, and answers it if it is a question. The header of a packet for
    /// the engine is corrected.
    fn sort(
        &self,
        header: &mut [u8; OFFLOAD_HEADER_BYTES],
        ethernet: &[u8; ETHERNET_HEADER_BYTES],
        packet: &[u8],
    ) -> Frame {
        let [.., t0, t1] = *ethernet;
        let sender: Mac = std::array::from_fn(|at| ethernet[6 + at]);
        match [t0, t1] {
            ARP => {
                if let Some(reply) = self.neighbours.answer_arp(packet) {
                    self.answer(sender, ARP, &reply);
                }
                Frame::Question
            }
            IPV6 if self.answer_solicitation(sender, packet) => Frame::Question,
            IPV4 | IPV6 => match move_headers(*header, -ETHERNET_SHIFT) {
                Some(moved) => {
                    *header = moved;
                    Frame::Packet(packet.len())
                }
                None => Frame::Other,
            },
            _ => Frame::Other,
        }
    }

    /// Answers a neighbour solicitation; false when the packet is none to be answered.
    fn answer_solicitation(&self, sender: Mac, packet: &[u8]) -> bool {
        let answer = IpPacket::parse(packet)
            .ok()
            .and_then(|packet| self.neighbours.answer_solicitation(&packet));
        if let Some(answer) = &answer
            && let Some((kind, to)) = destination(answer)
        {
            self.answer(mac_of(to, sender), kind, answer);
        }
        answer.is_some()
    }

    fn answer(&self, to: Mac, kind: [u8; 2], payload: &[u8]) {
        let header = Offload::default().encode(true, 0);
        let ethernet = ethernet(to, kind);
        let pieces = [&header[..], &ethernet, payload].map(IoSlice::new);
        // Who is not answered asks again.
        let _ = self.kernel.write(&pieces);
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kernel.as_fd()
    }
}

fn ethernet(to: Mac, kind: [u8; 2]) -> [u8; ETHERNET_HEADER_BYTES] {
    let mut header = [0; ETHERNET_HEADER_BYTES];
    header[..6].copy_from_slice(&to);
    header[6..12].copy_from_slice(&OTHERS);
    header[12..].copy_from_slice(&kind);
    header
}

/// Returns the type of Ethernet and the destination of a packet that begins so.
fn destination(packet: &[u8]) -> Option<([u8; 2], IpAddr)> {
    match packet.first()? >> 4 {
        4 => {
            let address: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            Some((IPV4, Ipv4Addr::from(address).into()))
        }
        6 => {
            let address: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            Some((IPV6, Ipv6Addr::from(address).into()))
        }
        _ => None,
    }
}
