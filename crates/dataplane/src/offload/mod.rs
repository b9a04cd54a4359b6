//! Super-packets: many segments of one flow that cross the TUN device as one packet.
//!
//! Passing the kernel's boundary costs the same for 60 kilobytes as for 60, so the device
//! gives and takes TCP and UDP in super-packets (GSO), and leaves checksums to whoever
//! needs them. A header before each packet tells of both ("virtio 1.2", section 5.1.6,
//! without `num_buffers`, in the byte order of the host, as Linux has it for TUN devices):
//!
//! ```text
//!   0       1       2           4           6           8           10
//!  +-------+-------+-----------+-----------+-----------+-----------+---- - - -
//!  | flags |  kind |  headers  |  segment  | sum from  | sum at    | IP packet
//!  +-------+-------+-----------+-----------+-----------+-----------+---- - - -
//! ```
//!
//! [`split`] cuts a super-packet into packets for the wire, [`Run`] makes one of packets
//! that follow each other. In between, checksums stay partial: they cover the pseudo-header
//! alone. The seal of the datagram protects the rest, and the receiving kernel is told that
//! the sum is partial, as if the packet had been made there.

mod coalesce;
mod split;

pub(crate) use coalesce::PIECES_MAX;
pub use coalesce::Run;
pub use split::split;

pub use crate::checksum::{begin_checksum, complete};
use crate::packet::protocol;

/// Octets of the header before each packet of a device with offloads.
pub const OFFLOAD_HEADER_BYTES: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const GSO_TCP_V4: u8 = 1;
const GSO_TCP_V6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// Set in the kind when the segments of a TCP super-packet must not be merged over a CWR.
const GSO_ECN: u8 = 0x80;

/// Where the checksum of TCP is in its header (RFC 9293, section 3.1).
const TCP_CHECKSUM_AT: usize = 16;
/// Where the checksum of UDP is in its header (RFC 768).
const UDP_CHECKSUM_AT: usize = 6;
/// Octets of the header of UDP.
const UDP_HEADER_BYTES: usize = 8;
/// Octets of the header of TCP without options.
const TCP_HEADER_BYTES: usize = 20;

/// Where the flags are in the header of TCP (RFC 9293, section 3.1), and what they mean.
const TCP_FLAGS_AT: usize = 13;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CWR: u8 = 0x80;

/// Which transport a super-packet or a partial checksum is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Returns the transport of an IP protocol number; none for others.
    pub const fn of(protocol: u8) -> Option<Self> {
        match protocol {
            protocol::TCP => Some(Self::Tcp),
            protocol::UDP => Some(Self::Udp),
            _ => None,
        }
    }

    pub(crate) const fn checksum_at(self) -> usize {
        match self {
            Self::Tcp => TCP_CHECKSUM_AT,
            Self::Udp => UDP_CHECKSUM_AT,
        }
    }
}

/// What the header before a packet says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Where the checksummed part begins and where in it the sum is, if the sum is still
    /// partial.
    pub partial: Option<(u16, u16)>,
    /// Of a super-packet: the transport and the octets of payload in each segment.
    pub segments: Option<(Transport, u16)>,
}

impl Offload {
    /// Reads the header; none when it says what cannot be of the device as it is set up.
    pub fn decode(header: &[u8; OFFLOAD_HEADER_BYTES]) -> Option<Self> {
        let [flags, kind, _, _, s0, s1, c0, c1, o0, o1] = *header;
        let number = |a, b| u16::from_ne_bytes([a, b]);
        let partial = flags & NEEDS_CHECKSUM != 0;
        let partial = partial.then(|| (number(c0, c1), number(o0, o1)));
        let transport = match kind & !GSO_ECN {
            0 => {
                return Some(Self {
                    partial,
                    segments: None,
                });
            }
            GSO_TCP_V4 | GSO_TCP_V6 => Transport::Tcp,
            GSO_UDP_L4 => Transport::Udp,
            _ => return None,
        };
        let segment_bytes = number(s0, s1);
        (segment_bytes > 0 && partial.is_some()).then_some(Self {
            partial,
            segments: Some((transport, segment_bytes)),
        })
    }

    /// Writes the header of a packet of which `headers` octets are IP and transport headers.
    pub fn encode(self, is_v4: bool, headers: u16) -> [u8; OFFLOAD_HEADER_BYTES] {
        let (from, at) = self.partial.unwrap_or_default();
        let flags = if self.partial.is_some() {
            NEEDS_CHECKSUM
        } else {
            0
        };
        let (kind, segment) = match self.segments {
            None => (0, 0),
            Some((Transport::Tcp, segment)) if is_v4 => (GSO_TCP_V4, segment),
            Some((Transport::Tcp, segment)) => (GSO_TCP_V6, segment),
            Some((Transport::Udp, segment)) => (GSO_UDP_L4, segment),
        };
        let [h0, h1] = headers.to_ne_bytes();
        let [s0, s1] = segment.to_ne_bytes();
        let [c0, c1] = from.to_ne_bytes();
        let [o0, o1] = at.to_ne_bytes();
        [flags, kind, h0, h1, s0, s1, c0, c1, o0, o1]
    }
}

/// Corrects a device's header for a packet that begins `by` octets later, behind another
/// header. None when what it names would be before the packet.
pub(crate) fn move_headers(
    mut header: [u8; OFFLOAD_HEADER_BYTES],
    by: i16,
) -> Option<[u8; OFFLOAD_HEADER_BYTES]> {
    let [flags, _, h0, h1, _, _, c0, c1, ..] = header;
    let headers = u16::from_ne_bytes([h0, h1]);
    if headers > 0 {
        let headers = headers.checked_add_signed(by)?;
        header[2..4].copy_from_slice(&headers.to_ne_bytes());
    }
    if flags & NEEDS_CHECKSUM != 0 {
        let from = u16::from_ne_bytes([c0, c1]).checked_add_signed(by)?;
        header[6..8].copy_from_slice(&from.to_ne_bytes());
    }
    Some(header)
}

/// Returns the length of the transport's header that `bytes` begin with; none when it is cut
/// short or cannot be.
fn transport_header_bytes(transport: Transport, bytes: &[u8]) -> Option<usize> {
    let length = match transport {
        Transport::Udp => UDP_HEADER_BYTES,
        Transport::Tcp => {
            let words = bytes.get(12)? >> 4;
            usize::from(words) * 4
        }
    };
    let least = match transport {
        Transport::Udp => UDP_HEADER_BYTES,
        Transport::Tcp => TCP_HEADER_BYTES,
    };
    (length >= least && length <= bytes.len()).then_some(length)
}
