//! Packets that follow each other into a super-packet.

use std::io::IoSlice;

use super::{
    ACK, FIN, OFFLOAD_HEADER_BYTES, Offload, PSH, TCP_FLAGS_AT, Transport, transport_header_bytes,
};
use crate::checksum::{Sum, pseudo_header};
use crate::packet::{IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, IpPacket};

/// The most packets of one super-packet, as the kernel's own GRO of UDP has it.
const PACKETS_MAX: usize = 64;
/// The most pieces that a run is handed out in.
pub(crate) const PIECES_MAX: usize = PACKETS_MAX + 1;
/// The longest headers of packets that are put together: IPv6 without extension headers,
/// and TCP with all options.
const HEADERS_BYTES_MAX: usize = IPV6_HEADER_BYTES + 60;
/// The longest super-packet, headers included.
const TOTAL_BYTES_MAX: usize = 65_535;

/// Packets of one flow, in order, on their way to the device: the headers of the first, and
/// the payloads where they are.
pub struct Run<'b> {
    /// Room for the header of the device, then the headers of the first packet.
    headers: [u8; OFFLOAD_HEADER_BYTES + HEADERS_BYTES_MAX],
    headers_bytes: usize,
    ip_bytes: usize,
    is_v4: bool,
    /// None when it is neither TCP nor UDP, or a fragment.
    transport: Option<Transport>,
    /// Whether the checksum of the transport is partial.
    partial: bool,
    /// Whether another packet may follow.
    is_open: bool,
    payloads: [&'b [u8]; PACKETS_MAX],
    packets: usize,
    payload_bytes: usize,
    /// The next sequence number of TCP.
    next_sequence: u32,
    pseudo_sum: Sum,
}

impl<'b> Run<'b> {
    /// Begins a run with a packet; `partial` tells whether the checksum of its transport is.
    pub fn begin(packet: &IpPacket<'b>, partial: bool) -> Self {
        let ip_bytes = packet.header_bytes();
        let transport = Transport::of(packet.protocol()).filter(|_| !packet.is_fragment());
        let transport_bytes =
            transport.and_then(|transport| transport_header_bytes(transport, packet.payload()));
        let simple = ip_bytes
            == match packet.is_v4() {
                true => IPV4_HEADER_BYTES,
                false => IPV6_HEADER_BYTES,
            };
        // What cannot be extended passes as it is, all of it as payload.
        let headers_bytes = match transport_bytes {
            Some(transport_bytes) if simple => ip_bytes + transport_bytes,
            _ => 0,
        };
        let (head, payload) = packet.bytes().split_at(headers_bytes);
        let mut headers = [0; OFFLOAD_HEADER_BYTES + HEADERS_BYTES_MAX];
        headers[OFFLOAD_HEADER_BYTES..][..headers_bytes].copy_from_slice(head);
        let mut payloads: [&[u8]; PACKETS_MAX] = [&[]; PACKETS_MAX];
        payloads[0] = payload;
        let mut run = Self {
            headers,
            headers_bytes,
            ip_bytes,
            is_v4: packet.is_v4(),
            transport,
            partial: partial && transport.is_some(),
            is_open: partial && headers_bytes > 0 && !payload.is_empty(),
            payloads,
            packets: 1,
            payload_bytes: payload.len(),
            next_sequence: 0,
            pseudo_sum: pseudo_header(packet),
        };
        if run.is_open && transport == Some(Transport::Tcp) {
            let tcp = &head[ip_bytes..];
            run.next_sequence = sequence(tcp).wrapping_add(payload.len() as u32);
            run.is_open = tcp[TCP_FLAGS_AT] == ACK;
        }
        run
    }

    /// Lets nothing follow the first packet unless super-packets of its transport are taken.
    pub fn close_unless(&mut self, takes: impl FnOnce(Transport) -> bool) {
        self.is_open &= self.transport.is_some_and(takes);
    }

    /// Adds a packet if it follows the last one: of the same flow with the same headers, the
    /// next in order, and as long, or shorter and the last. False if it does not.
    pub fn extend(&mut self, packet: &IpPacket<'b>, partial: bool) -> bool {
        let bytes = packet.bytes();
        let possible = self.is_open && partial && self.packets < PACKETS_MAX;
        if !possible || bytes.len() <= self.headers_bytes {
            return false;
        }
        let (head, payload) = bytes.split_at(self.headers_bytes);
        let total = self.headers_bytes + self.payload_bytes + payload.len();
        let fits = payload.len() <= self.payloads[0].len() && total <= TOTAL_BYTES_MAX;
        if !fits || packet.is_fragment() || !self.follows(head) {
            return false;
        }
        if self.transport == Some(Transport::Tcp) {
            let flags = head[self.ip_bytes + TCP_FLAGS_AT];
            self.next_sequence = self.next_sequence.wrapping_add(payload.len() as u32);
            self.headers[OFFLOAD_HEADER_BYTES + self.ip_bytes + TCP_FLAGS_AT] |= flags;
            self.is_open = flags == ACK;
        }
        self.is_open &= payload.len() == self.payloads[0].len();
        self.payloads[self.packets] = payload;
        self.packets += 1;
        self.payload_bytes += payload.len();
        true
    }

    /// Tells whether headers as long as the run's are those of its next packet.
    fn follows(&self, head: &[u8]) -> bool {
        let mine = &self.headers[OFFLOAD_HEADER_BYTES..][..self.headers_bytes];
        let ((my_ip, mine), (ip, other)) =
            (mine.split_at(self.ip_bytes), head.split_at(self.ip_bytes));
        // All but length, identification and sum.
        let same_ip = if self.is_v4 {
            ip[..2] == my_ip[..2] && ip[6..10] == my_ip[6..10] && ip[12..] == my_ip[12..]
        } else {
            ip[..4] == my_ip[..4] && ip[6..] == my_ip[6..]
        };
        let same_ports = mine[..4] == other[..4];
        same_ip
            && same_ports
            && match self.transport {
                Some(Transport::Tcp) => {
                    let flags = other[TCP_FLAGS_AT];
                    // Acknowledgement and length; window; urgent pointer and options.
                    sequence(other) == self.next_sequence
                        && flags & ACK != 0
                        && flags & !(ACK | FIN | PSH) == 0
                        && mine[8..13] == other[8..13]
                        && mine[14..16] == other[14..16]
                        && mine[18..] == other[18..]
                }
                Some(Transport::Udp) => true,
                None => false,
            }
    }

    /// Hands out what is to be written to the device at once: its header, and one packet.
    pub fn finish(mut self, write: impl FnOnce(&[IoSlice<'_>])) {
        let segments = self.transport.filter(|_| self.packets > 1);
        let segments = segments.map(|transport| (transport, self.payloads[0].len() as u16));
        if let Some((transport, _)) = segments {
            self.write_lengths(transport);
        }
        let partial = self.transport.filter(|_| self.partial);
        let partial =
            partial.map(|transport| (self.ip_bytes as u16, transport.checksum_at() as u16));
        let header = Offload { partial, segments }.encode(self.is_v4, self.headers_bytes as u16);
        self.headers[..OFFLOAD_HEADER_BYTES].copy_from_slice(&header);
        let mut slices = [IoSlice::new(&[]); PIECES_MAX];
        slices[0] = IoSlice::new(&self.headers[..OFFLOAD_HEADER_BYTES + self.headers_bytes]);
        for (slice, payload) in slices[1..].iter_mut().zip(&self.payloads[..self.packets]) {
            *slice = IoSlice::new(payload);
        }
        write(&slices[..=self.packets]);
    }

    /// Corrects what in the first packet's headers is of the whole.
    fn write_lengths(&mut self, transport: Transport) {
        let total = (self.headers_bytes + self.payload_bytes) as u16;
        let transport_bytes = total - self.ip_bytes as u16;
        let headers = &mut self.headers[OFFLOAD_HEADER_BYTES..][..self.headers_bytes];
        let (ip, rest) = headers.split_at_mut(self.ip_bytes);
        if self.is_v4 {
            ip[2..4].copy_from_slice(&total.to_be_bytes());
            ip[10..12].fill(0);
            let sum = !Sum::default().add(ip).fold();
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            ip[4..6].copy_from_slice(&transport_bytes.to_be_bytes());
        }
        if transport == Transport::Udp {
            rest[4..6].copy_from_slice(&transport_bytes.to_be_bytes());
        }
        let sum = self.pseudo_sum.word(transport_bytes).fold();
        rest[transport.checksum_at()..][..2].copy_from_slice(&sum.to_be_bytes());
    }
}

fn sequence(tcp: &[u8]) -> u32 {
    u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::split;
    use super::*;

    /// An IPv4 or IPv6 super-packet of TCP or UDP with a partial checksum.
    fn whole(is_v4: bool, transport: Transport, payload: &[u8], flags: u8) -> Vec<u8> {
        let transport_header = match transport {
            Transport::Tcp => {
                let mut header = vec![0x1f, 0x90, 0, 80, 0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 7];
                header.extend([
                    0x80, flags, 1, 0, 0, 0, 0, 0, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2,
                ]);
                header.truncate(32);
                header
            }
            Transport::Udp => vec![0x1f, 0x90, 0, 53, 0, 0, 0, 0],
        };
        let protocol = match transport {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        };
        let length = transport_header.len() + payload.len();
        let mut bytes = if is_v4 {
            let [h, l] = (20 + length as u16).to_be_bytes();
            let mut ip = vec![0x45, 0, h, l, 0xff, 0xfe, 0x40, 0, 64, protocol, 0, 0];
            ip.extend([10, 77, 0, 1, 10, 77, 0, 2]);
            ip
        } else {
            let [h, l] = (length as u16).to_be_bytes();
            let mut ip = vec![0x60, 0, 0, 0, h, l, protocol, 64];
            ip.extend([0xfd; 16]);
            ip.extend([0xfe; 16]);
            ip
        };
        bytes.extend(transport_header);
        bytes.extend(payload);
        bytes
    }

    fn checksum_is_right(packet: &[u8]) -> bool {
        let parsed = IpPacket::parse(packet).unwrap();
        let transport = Transport::of(parsed.protocol()).unwrap();
        let (from, at) = (parsed.header_bytes(), transport.checksum_at());
        let pseudo = pseudo_header(&parsed).word(parsed.payload().len() as u16);
        let mut completed = packet.to_vec();
        assert!(super::super::complete(
            &mut completed,
            from as u16,
            at as u16
        ));
        let header_right = !parsed.is_v4() || Sum::default().add(&packet[..from]).fold() == 0xffff;
        let sum = Sum::default().add(&completed[from..]);
        header_right && sum.word(pseudo.fold()).fold() == 0xffff
    }

    #[test]
    fn what_does_not_follow_begins_another() {
        let payload = [7; 100];
        let first = whole(true, Transport::Tcp, &payload, ACK);
        let parse = |bytes| IpPacket::parse(bytes).unwrap();
        let next = {
            let mut next = first.clone();
            next[24..28].copy_from_slice(&(0xffff_fff0_u32.wrapping_add(100)).to_be_bytes());
            next
        };
        assert!(Run::begin(&parse(&first), true).extend(&parse(&next), true));
        assert!(!Run::begin(&parse(&first), false).extend(&parse(&next), true));
        assert!(!Run::begin(&parse(&first), true).extend(&parse(&next), false));
        assert!(!Run::begin(&parse(&first), true).extend(&parse(&first), true));
        for (at, octet) in [
            (12, 11),
            (21, 1),
            (29, 9),
            (34, 2),
            (45, 3),
            (8, 63),
            (33, 0x12),
        ] {
            let mut other = next.clone();
            other[at] = octet;
            let other = other.as_slice();
            let mut run = Run::begin(&parse(&first), true);
            assert!(
                !run.extend(&IpPacket::parse(other).unwrap(), true),
                "octet {at}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_was_split_becomes_whole_again(
            payload in prop::collection::vec(any::<u8>(), 1..9_000),
            segment_bytes in 500_u16..1_500,
            is_v4: bool,
            is_tcp: bool,
        ) {
            let transport = if is_tcp { Transport::Tcp } else { Transport::Udp };
            let original = whole(is_v4, transport, &payload, ACK | PSH);
            let mut cut = Vec::new();
            let mut buffer = original.clone();
            let done = split(&mut buffer, transport, segment_bytes, usize::MAX, |packet| {
                cut.push(packet.to_vec());
            });
            prop_assert!(done);
            prop_assert_eq!(cut.len(), payload.len().div_ceil(usize::from(segment_bytes)));
            prop_assert!(cut.iter().all(|packet| checksum_is_right(packet)));
            let mut packets = cut.iter().map(|packet| IpPacket::parse(packet).unwrap());
            let mut run = Run::begin(&packets.next().unwrap(), true);
            for packet in packets {
                prop_assert!(run.extend(&packet, true));
            }
            let mut written = Vec::new();
            run.finish(|slices| slices.iter().for_each(|slice| written.extend_from_slice(slice)));
            let (header, packet) = written.split_first_chunk().unwrap();
            let offload = Offload::decode(header).unwrap();
            let segments = (cut.len() > 1).then_some((transport, segment_bytes));
            prop_assert_eq!(offload.segments, segments);
            prop_assert!(offload.partial.is_some());
            prop_assert!(checksum_is_right(packet));
            let headers = packet.len() - payload.len();
            prop_assert_eq!(&packet[headers..], &payload[..]);
        }

        #[test]
        fn any_octets_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            others in prop::collection::vec(any::<u8>(), 0..200),
            segment_bytes: u16,
            first in prop::sample::select(vec![0x45_u8, 0x46, 0x60, 0x4f]),
        ) {
            let shape = |mut bytes: Vec<u8>| {
                if let Some(octet) = bytes.first_mut() {
                    *octet = first;
                }
                let length = bytes.len() as u16;
                if let Some(place) = bytes.get_mut(2..4) {
                    place.copy_from_slice(&length.to_be_bytes());
                }
                bytes
            };
            let (bytes, others) = (shape(bytes), shape(others));
            for transport in [Transport::Tcp, Transport::Udp] {
                split(&mut bytes.clone(), transport, segment_bytes, usize::MAX, |_| {});
            }
            if let (Ok(packet), Ok(other)) = (IpPacket::parse(&bytes), IpPacket::parse(&others)) {
                let mut run = Run::begin(&packet, true);
                run.extend(&other, true);
                run.finish(|_| {});
            }
        }
    }
}
