//! A super-packet into packets for the wire.

use super::{CWR, FIN, PSH, TCP_FLAGS_AT, Transport, transport_header_bytes};
use crate::checksum::{Sum, pseudo_header};
use crate::packet::IpPacket;

/// The longest IP and transport headers together of a super-packet that is cut: IPv6 with
/// some extension headers, and TCP with all options.
const HEADERS_BYTES_MAX: usize = 256;

/// Cuts the super-packet that fills `bytes` into packets with `segment_bytes` of payload each,
/// of TCP fewer if a packet were longer than `packet_bytes_max` otherwise, and hands each to
/// `each`, with a partial checksum. `bytes` are overwritten: the headers of
/// each packet are written before its payload, over that of the packet before it.
///
/// A stream may be cut as one likes, which is how a super-packet is fitted to a shorter path;
/// the datagrams of UDP are what they are.
///
/// Returns false, and hands out nothing, when the packet is none that can be cut so.
pub fn split(
    bytes: &mut [u8],
    transport: Transport,
    segment_bytes: u16,
    packet_bytes_max: usize,
    mut each: impl FnMut(&mut [u8]),
) -> bool {
    let Some(cut) = Cut::new(bytes, transport) else {
        return false;
    };
    let segment_bytes = match transport {
        Transport::Udp => usize::from(segment_bytes),
        Transport::Tcp => packet_bytes_max
            .saturating_sub(cut.headers_bytes)
            .min(segment_bytes.into()),
    };
    let payload_bytes = bytes.len() - cut.headers_bytes;
    if segment_bytes == 0 || payload_bytes == 0 {
        return false;
    }
    let segments = payload_bytes.div_ceil(segment_bytes);
    for number in 0..segments {
        let start = number * segment_bytes;
        let end = (start + segment_bytes).min(payload_bytes) + cut.headers_bytes;
        let packet = &mut bytes[start..end];
        cut.write_headers(packet, number, start, number + 1 == segments);
        each(packet);
    }
    true
}

/// What is the same in all packets of a super-packet.
struct Cut {
    transport: Transport,
    is_v4: bool,
    headers: [u8; HEADERS_BYTES_MAX],
    headers_bytes: usize,
    /// Octets of the IP header alone.
    ip_bytes: usize,
    /// Of the IPv4 header without length, identification and sum.
    header_sum: Sum,
    /// Of the transport's pseudo-header without length.
    pseudo_sum: Sum,
}

impl Cut {
    fn new(bytes: &[u8], transport: Transport) -> Option<Self> {
        let packet = IpPacket::parse(bytes).ok()?;
        let whole = packet.bytes().len() == bytes.len() && !packet.is_fragment();
        if !whole || Transport::of(packet.protocol()) != Some(transport) {
            return None;
        }
        let ip_bytes = packet.header_bytes();
        let headers_bytes = ip_bytes + transport_header_bytes(transport, packet.payload())?;
        let mut headers = [0; HEADERS_BYTES_MAX];
        headers
            .get_mut(..headers_bytes)?
            .copy_from_slice(bytes.get(..headers_bytes)?);
        let mut ip = headers;
        for range in [2..6, 10..12] {
            ip[range].fill(0);
        }
        Some(Self {
            transport,
            is_v4: packet.is_v4(),
            headers,
            headers_bytes,
            ip_bytes,
            header_sum: Sum::default().add(&ip[..ip_bytes]),
            pseudo_sum: pseudo_header(&packet),
        })
    }

    /// Writes the headers of the packet with that number, whose payload begins at octet
    /// `offset` of the whole.
    fn write_headers(&self, packet: &mut [u8], number: usize, offset: usize, is_last: bool) {
        // A super-packet is shorter than 65,536 octets, and so is all that is cut from it.
        let short = |length: usize| length as u16;
        let transport_bytes = short(packet.len() - self.ip_bytes);
        let total_bytes = short(packet.len());
        packet[..self.headers_bytes].copy_from_slice(&self.headers[..self.headers_bytes]);
        let (ip, rest) = packet.split_at_mut(self.ip_bytes);
        if self.is_v4 {
            let first = u16::from_be_bytes([ip[4], ip[5]]);
            let identification = first.wrapping_add(short(number));
            let sum = !self
                .header_sum
                .word(total_bytes)
                .word(identification)
                .fold();
            put(ip, 2, total_bytes);
            put(ip, 4, identification);
            put(ip, 10, sum);
        } else {
            put(ip, 4, total_bytes - 40);
        }
        match self.transport {
            Transport::Tcp => {
                let sequence = [rest[4], rest[5], rest[6], rest[7]];
                let sequence = u32::from_be_bytes(sequence).wrapping_add(offset as u32);
                rest[4..8].copy_from_slice(&sequence.to_be_bytes());
                if !is_last {
                    rest[TCP_FLAGS_AT] &= !(FIN | PSH);
                }
                if number > 0 {
                    rest[TCP_FLAGS_AT] &= !CWR;
                }
            }
            Transport::Udp => put(rest, 4, transport_bytes),
        }
        let partial = self.pseudo_sum.word(transport_bytes).fold();
        put(rest, self.transport.checksum_at(), partial);
    }
}

fn put(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}
