//! A checked view of an IP packet.
//!
//! Version 4 (RFC 791, section 3.1):
//!
//! ```text
//!   0       1       2               4               6               8
//!  +---+---+-------+---------------+---------------+-+-+-+---------+
//!  | 4 |IHL|service| total length  |identification |0|D|M| offset  |
//!  +---+---+-------+---------------+---------------+-+-+-+---------+
//!  |  TTL  | prot. |header checksum|        source address         |
//!  +-------+-------+---------------+-------------------------------+
//!  |      destination address      |  options, IHL * 4 - 20 octets
//!  +-------------------------------+---- - - -
//! ```
//!
//! Version 6 (RFC 8200, section 3), followed by a chain of extension headers:
//!
//! ```text
//!   0               4               6       7       8
//!  +---+-----------+---------------+-------+-------+---- - - -
//!  | 6 |class, flow| payload length| next  |  hop  | source (16), destination (16)
//!  +---+-----------+---------------+-------+-------+---- - - -
//! ```
//!
//! The octets may come from anyone; nothing here panics whatever they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets of an IPv4 header without options.
pub const IPV4_HEADER_BYTES: usize = 20;

/// Octets of an IPv6 header without extension headers.
pub const IPV6_HEADER_BYTES: usize = 40;

/// The most IPv6 extension headers that are followed; a longer chain is refused.
pub const EXTENSION_HEADERS_MAX: usize = 8;

/// Protocol numbers (IANA registry "Protocol Numbers") that this crate looks at.
pub mod protocol {
    /// ICMP for IPv4 (RFC 792).
    pub const ICMP: u8 = 1;
    /// ICMP for IPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// Group membership of IPv4 (RFC 3376).
    pub const IGMP: u8 = 2;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// SCTP (RFC 9260).
    pub const SCTP: u8 = 132;
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION_OPTIONS: u8 = 60;
}

/// Why octets are not an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// The buffer ends within the header.
    #[error("the header is cut short")]
    Truncated,
    /// The version is neither 4 nor 6.
    #[error("neither IPv4 nor IPv6")]
    Version,
    /// The header length is less than 20 octets or more than the packet.
    #[error("impossible header length")]
    HeaderLength,
    /// The total length is less than the header or more than the buffer.
    #[error("the total length does not fit the header or the buffer")]
    TotalLength,
    /// There are more than [`EXTENSION_HEADERS_MAX`] extension headers.
    #[error("too many extension headers")]
    ExtensionHeaders,
}

/// An IP packet whose header was checked. Checksums are not checked: the kernel does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPacket<'a> {
    bytes: &'a [u8],
    source: IpAddr,
    destination: IpAddr,
    header_bytes: usize,
    protocol: u8,
    hop_limit: u8,
    dont_fragment: bool,
    more_fragments: bool,
    fragment_offset_bytes: usize,
}

impl<'a> IpPacket<'a> {
    /// Checks the header. Octets of the buffer after the packet are left out of the view.
    ///
    /// Work is bounded by [`EXTENSION_HEADERS_MAX`].
    ///
    /// # Errors
    /// See [`PacketError`].
    pub fn parse(buffer: &'a [u8]) -> Result<Self, PacketError> {
        match buffer.first().ok_or(PacketError::Truncated)? >> 4 {
            4 => Self::parse_v4(buffer),
            6 => Self::parse_v6(buffer),
            _ => Err(PacketError::Version),
        }
    }

    /// Returns the whole packet, header included, exactly its total length.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Tells whether it is IPv4; it is IPv6 otherwise.
    pub fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }

    /// Returns the source address.
    pub fn source(&self) -> IpAddr {
        self.source
    }

    /// Returns the destination address.
    pub fn destination(&self) -> IpAddr {
        self.destination
    }

    /// Returns the length of the header with options or extension headers, in octets.
    pub fn header_bytes(&self) -> usize {
        self.header_bytes
    }

    /// Returns what follows the header.
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(self.header_bytes..).unwrap_or_default()
    }

    /// Returns the protocol of the payload, after all extension headers. In a fragment
    /// that is not the first, the payload is a middle part of that protocol's data.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Returns the time to live (IPv4) or hop limit (IPv6).
    pub fn hop_limit(&self) -> u8 {
        self.hop_limit
    }

    /// Tells whether routers must not fragment it; always so for IPv6.
    pub fn dont_fragment(&self) -> bool {
        self.dont_fragment
    }

    /// Returns where the payload belongs in the unfragmented packet's, in octets.
    pub fn fragment_offset_bytes(&self) -> usize {
        self.fragment_offset_bytes
    }

    /// Tells whether it is a part of a fragmented packet.
    pub fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset_bytes != 0
    }

    /// Tells whether the destination is a multicast address or 255.255.255.255. The
    /// broadcast address of a network shows only to who knows the network's prefix:
    /// see [`crate::Network::is_broadcast`].
    pub fn is_multicast_or_broadcast(&self) -> bool {
        match self.destination {
            IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
            IpAddr::V6(address) => address.is_multicast(),
        }
    }

    fn parse_v4(buffer: &'a [u8]) -> Result<Self, PacketError> {
        let header: &[u8; IPV4_HEADER_BYTES] =
            buffer.first_chunk().ok_or(PacketError::Truncated)?;
        let header_bytes = usize::from(header[0] & 0x0f) * 4;
        let total_bytes = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header_bytes < IPV4_HEADER_BYTES {
            return Err(PacketError::HeaderLength);
        }
        let bytes = buffer.get(..total_bytes).ok_or(PacketError::TotalLength)?;
        if total_bytes < header_bytes {
            return Err(PacketError::TotalLength);
        }
        let fragment = u16::from_be_bytes([header[6], header[7]]);
        let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
        Ok(Self {
            bytes,
            source: Ipv4Addr::new(s0, s1, s2, s3).into(),
            destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
            header_bytes,
            protocol: header[9],
            hop_limit: header[8],
            dont_fragment: fragment & 0x4000 != 0,
            more_fragments: fragment & 0x2000 != 0,
            fragment_offset_bytes: usize::from(fragment & 0x1fff) * 8,
        })
    }

    fn parse_v6(buffer: &'a [u8]) -> Result<Self, PacketError> {
        let header: &[u8; IPV6_HEADER_BYTES] =
            buffer.first_chunk().ok_or(PacketError::Truncated)?;
        let payload_bytes = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let bytes = buffer
            .get(..IPV6_HEADER_BYTES + payload_bytes)
            .ok_or(PacketError::TotalLength)?;
        let mut packet = Self {
            bytes,
            source: ipv6_address(header, 8),
            destination: ipv6_address(header, 24),
            header_bytes: IPV6_HEADER_BYTES,
            protocol: header[6],
            hop_limit: header[7],
            dont_fragment: true,
            more_fragments: false,
            fragment_offset_bytes: 0,
        };
        packet.follow_extension_headers()?;
        Ok(packet)
    }

    /// Moves `header_bytes` and `protocol` past the extension headers (RFC 8200,
    /// section 4). After the header of a later fragment comes no header any more.
    fn follow_extension_headers(&mut self) -> Result<(), PacketError> {
        for _ in 0..=EXTENSION_HEADERS_MAX {
            let unit_bytes = match self.protocol {
                protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => 8,
                protocol::FRAGMENT => 0,
                // RFC 4302, section 2.2: in units of 4 octets, less 2.
                protocol::AUTHENTICATION => 4,
                _ => return Ok(()),
            };
            let extension: &[u8; 8] = self.payload().first_chunk().ok_or(PacketError::Truncated)?;
            let bytes = 8 + usize::from(extension[1]) * unit_bytes;
            if self.payload().len() < bytes {
                return Err(PacketError::Truncated);
            }
            if self.protocol == protocol::FRAGMENT {
                let fragment = u16::from_be_bytes([extension[2], extension[3]]);
                self.more_fragments = fragment & 1 != 0;
                self.fragment_offset_bytes = usize::from(fragment & 0xfff8);
            }
            self.header_bytes += bytes;
            self.protocol = extension[0];
            if self.fragment_offset_bytes != 0 {
                return Ok(());
            }
        }
        Err(PacketError::ExtensionHeaders)
    }
}

/// Reads the address at an offset of at most 24.
fn ipv6_address(header: &[u8; IPV6_HEADER_BYTES], offset: usize) -> IpAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[offset..offset + 16]);
    Ipv6Addr::from(octets).into()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Builds an IPv4 packet without options; `fragment` is the field with the flags.
    pub(crate) fn ipv4(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        (protocol, fragment): (u8, u16),
        payload: &[u8],
    ) -> Vec<u8> {
        let total = u16::try_from(IPV4_HEADER_BYTES + payload.len()).unwrap();
        let mut packet = vec![0x45, 0];
        packet.extend(total.to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(fragment.to_be_bytes());
        packet.extend([64, protocol, 0, 0]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(payload);
        packet
    }

    /// Builds an IPv6 packet; `next` is the first extension header or the protocol.
    pub(crate) fn ipv6(
        source: Ipv6Addr,
        destination: Ipv6Addr,
        next: u8,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        packet.extend([next, 64]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(payload);
        packet
    }

    #[test]
    fn reads_every_field_of_a_fragment() {
        let (source, destination) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::BROADCAST);
        let mut bytes = ipv4(source, destination, (17, 0x6003), b"data");
        bytes.push(99); // Not part of the packet.
        let packet = IpPacket::parse(&bytes).unwrap();
        assert_eq!(packet.bytes(), &bytes[..24]);
        assert_eq!(
            (packet.source(), packet.destination()),
            (source.into(), destination.into())
        );
        assert_eq!((packet.protocol(), packet.hop_limit()), (17, 64));
        assert!(packet.dont_fragment() && packet.is_fragment());
        assert_eq!(packet.fragment_offset_bytes(), 24);
        assert_eq!(packet.payload(), b"data");
        assert!(packet.is_multicast_or_broadcast());
    }

    #[test]
    fn follows_extension_headers_up_to_a_later_fragment() {
        let hop_by_hop = [protocol::FRAGMENT, 0, 1, 4, 0, 0, 0, 0];
        let fragment = |offset: u8| [protocol::ICMPV6, 0, 0, offset, 0, 0, 0, 1];
        let build = |offset| {
            let payload = [&hop_by_hop[..], &fragment(offset), b"x"].concat();
            ipv6(
                Ipv6Addr::LOCALHOST,
                Ipv6Addr::LOCALHOST,
                protocol::HOP_BY_HOP,
                &payload,
            )
        };
        let first = build(1);
        let first = IpPacket::parse(&first).unwrap();
        assert_eq!(
            (first.protocol(), first.header_bytes()),
            (protocol::ICMPV6, 56)
        );
        assert!(first.is_fragment() && first.fragment_offset_bytes() == 0);
        let later = build(8);
        let later = IpPacket::parse(&later).unwrap();
        assert_eq!(
            (later.fragment_offset_bytes(), later.payload()),
            (8, &b"x"[..])
        );
    }

    #[test]
    fn refuses_what_cannot_be() {
        let good = ipv4(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, (17, 0), b"data");
        let parse = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            IpPacket::parse(&bytes).err()
        };
        assert_eq!(parse(&|bytes| bytes.clear()), Some(PacketError::Truncated));
        assert_eq!(
            parse(&|bytes| bytes.truncate(19)),
            Some(PacketError::Truncated)
        );
        assert_eq!(
            parse(&|bytes| bytes.truncate(23)),
            Some(PacketError::TotalLength)
        );
        assert_eq!(parse(&|bytes| bytes[0] = 0x55), Some(PacketError::Version));
        assert_eq!(
            parse(&|bytes| bytes[0] = 0x44),
            Some(PacketError::HeaderLength)
        );
        assert_eq!(
            parse(&|bytes| bytes[0] = 0x4f),
            Some(PacketError::TotalLength)
        );
        let chain = [protocol::DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0].repeat(20);
        let chain = ipv6(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, 60, &chain);
        assert_eq!(IpPacket::parse(&chain), Err(PacketError::ExtensionHeaders));
    }

    proptest! {
        #[test]
        fn any_octets_are_refused_or_viewed(
            version in prop::sample::select(vec![0x45_u8, 0x4f, 0x60, 0x00]),
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            length in 0_u8..200,
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = version;
            }
            // A length that often fits, so that more than the first check is reached.
            for (at, octet) in [(2, 0), (3, length), (4, 0), (5, length / 2)] {
                if let Some(place) = bytes.get_mut(at) {
                    *place = octet;
                }
            }
            if let Ok(packet) = IpPacket::parse(&bytes) {
                prop_assert!(packet.bytes().len() <= bytes.len());
                prop_assert_eq!(
                    packet.header_bytes() + packet.payload().len(),
                    packet.bytes().len()
                );
            }
        }
    }
}
