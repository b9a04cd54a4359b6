//! A router's translation between inner hosts that have IPv6 alone and an Internet of IPv4.
//!
//! RFC 6146 does two things at once: it makes packets of one family those of the other (RFC 7915),
//! and gives each inner port an outer one. Here they are two: each inner host stands for an IPv4
//! address that only the router knows, and what bears it goes through [`super::nat::Nat`] as at any
//! other home. Outer hosts are reached at the well-known prefix, 64:ff9b::/96 (RFC 6052, section
//! 2.1).
//!
//! UDP, TCP and echoes are translated. ICMP errors are dropped, as are fragments, and what would
//! be longer than the inner network lets pass: nobody is told to send shorter ones.

use std::net::{Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{
    Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpAddress, IpProtocol, Ipv4Packet,
    Ipv6Packet, TcpPacket, UdpPacket,
};

use crate::lab::MTU;

/// The lengths of headers without options, in octets.
const V4_BYTES: usize = 20;
const V6_BYTES: usize = 40;
/// Longer packets may not be fragmented on their way (RFC 7915, section 5.1).
const FRAGMENTED_BYTES_MAX: usize = 1260;

/// Returns the IPv4 address that an address of the prefix stands for.
pub(crate) fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = address.segments() else {
        return None;
    };
    Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
}

/// Returns the address of the prefix that stands for an IPv4 address.
pub(crate) fn embed(address: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = address.octets().map(u16::from);
    Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, (a << 8) | b, (c << 8) | d)
}

/// Returns a packet to the prefix as one of IPv4, from the address that its sender stands for.
pub(crate) fn to_ipv4(packet: &[u8], source: Ipv4Addr) -> Option<Vec<u8>> {
    let from = Ipv6Packet::new_checked(packet).ok()?;
    let destination = embedded(from.dst_addr())?;
    let length = V4_BYTES + from.payload().len();
    let mut translated = vec![0; length];
    let mut ip = Ipv4Packet::new_unchecked(&mut translated);
    ip.set_version(4);
    ip.set_header_len(V4_BYTES as u8);
    ip.set_dscp(from.traffic_class() >> 2);
    ip.set_ecn(from.traffic_class() & 3);
    ip.set_total_len(u16::try_from(length).ok()?);
    ip.set_dont_frag(length > FRAGMENTED_BYTES_MAX);
    ip.set_hop_limit(from.hop_limit());
    ip.set_src_addr(source);
    ip.set_dst_addr(destination);
    let protocol = match from.next_header() {
        IpProtocol::Icmpv6 => IpProtocol::Icmp,
        other => other,
    };
    ip.set_next_header(protocol);
    ip.fill_checksum();
    let payload = ip.payload_mut();
    payload.copy_from_slice(from.payload());
    if protocol == IpProtocol::Icmp {
        let asked = Icmpv6Packet::new_checked(from.payload()).ok()?;
        let kind = match asked.msg_type() {
            Icmpv6Message::EchoRequest => Icmpv4Message::EchoRequest,
            Icmpv6Message::EchoReply => Icmpv4Message::EchoReply,
            _ => return None,
        };
        let mut icmp = Icmpv4Packet::new_checked(payload).ok()?;
        icmp.set_msg_type(kind);
        icmp.fill_checksum();
    } else {
        fill_checksum(protocol, payload, source.into(), destination.into())?;
    }
    Some(translated)
}

/// Returns a packet of IPv4 as one to an inner host.
pub(crate) fn to_ipv6(packet: &[u8], destination: Ipv6Addr) -> Option<Vec<u8>> {
    let from = Ipv4Packet::new_checked(packet).ok()?;
    let length = V6_BYTES + from.payload().len();
    if from.more_frags() || from.frag_offset() != 0 || length > usize::from(MTU) {
        return None;
    }
    let source = embed(from.src_addr());
    let mut translated = vec![0; length];
    let mut ip = Ipv6Packet::new_unchecked(&mut translated);
    ip.set_version(6);
    ip.set_traffic_class((from.dscp() << 2) | from.ecn());
    ip.set_payload_len(u16::try_from(from.payload().len()).ok()?);
    ip.set_hop_limit(from.hop_limit());
    ip.set_src_addr(source);
    ip.set_dst_addr(destination);
    let protocol = match from.next_header() {
        IpProtocol::Icmp => IpProtocol::Icmpv6,
        other => other,
    };
    ip.set_next_header(protocol);
    let payload = ip.payload_mut();
    payload.copy_from_slice(from.payload());
    if protocol == IpProtocol::Icmpv6 {
        let asked = Icmpv4Packet::new_checked(from.payload()).ok()?;
        let kind = match asked.msg_type() {
            Icmpv4Message::EchoRequest => Icmpv6Message::EchoRequest,
            Icmpv4Message::EchoReply => Icmpv6Message::EchoReply,
            _ => return None,
        };
        // Its type says how long the header is, so it comes before the check.
        let mut icmp = Icmpv6Packet::new_unchecked(payload);
        icmp.set_msg_type(kind);
        icmp.fill_checksum(&source, &destination);
    } else {
        fill_checksum(protocol, payload, source.into(), destination.into())?;
    }
    Some(translated)
}

/// Makes the checksum of a transport that of other addresses; none for those that are not
/// translated.
fn fill_checksum(
    protocol: IpProtocol,
    payload: &mut [u8],
    source: IpAddress,
    destination: IpAddress,
) -> Option<()> {
    match protocol {
        IpProtocol::Udp => {
            let mut udp = UdpPacket::new_checked(payload).ok()?;
            udp.fill_checksum(&source, &destination);
        }
        IpProtocol::Tcp => {
            let mut tcp = TcpPacket::new_checked(payload).ok()?;
            tcp.fill_checksum(&source, &destination);
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::packet;
    use super::super::packet::tests::{udp, udp_v6, unreachable, unreachable_v6};
    use super::*;

    const KNOWN_AS: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);

    fn inner() -> Ipv6Addr {
        "2600:11::2".parse().unwrap()
    }

    #[test]
    fn the_prefix_is_that_of_rfc_6052() {
        // Section 2.4.
        let address: Ipv6Addr = "64:ff9b::192.0.2.33".parse().unwrap();
        assert_eq!(embedded(address), Some(Ipv4Addr::new(192, 0, 2, 33)));
        assert_eq!(embed(Ipv4Addr::new(192, 0, 2, 33)), address);
        assert_eq!(embedded("64:ff9b:1::192.0.2.33".parse().unwrap()), None);
    }

    #[test]
    fn there_and_back_it_is_the_same_packet() {
        let sent = udp_v6("[2600:11::2]:4000", "[64:ff9b::11.0.0.1]:53");
        let four = to_ipv4(&sent, KNOWN_AS).unwrap();
        let flow = packet::flow(&four).unwrap();
        assert_eq!(flow.source.to_string(), "192.168.1.2:4000");
        assert_eq!(flow.destination.to_string(), "11.0.0.1:53");
        // The same as a host of IPv4 would have sent.
        assert_eq!(four, udp("192.168.1.2:4000", "11.0.0.1:53"));
        let back = to_ipv6(&udp("11.0.0.1:53", "192.168.1.2:4000"), inner()).unwrap();
        assert_eq!(back, udp_v6("[64:ff9b::11.0.0.1]:53", "[2600:11::2]:4000"));
    }

    #[test]
    fn what_is_not_translated_is_dropped() {
        let sent = udp_v6("[2600:11::2]:4000", "[2600:11::9]:53");
        assert_eq!(to_ipv4(&sent, KNOWN_AS), None);
        let sent = udp_v6("[2600:11::2]:4000", "[64:ff9b::11.0.0.1]:53");
        for length in 0..sent.len() {
            assert_eq!(to_ipv4(&sent[..length], KNOWN_AS), None, "{length}");
        }
        assert_eq!(to_ipv4(&unreachable_v6(&sent, "2600::9"), KNOWN_AS), None);
        let answer = udp("11.0.0.1:53", "192.168.1.2:4000");
        for length in 0..answer.len() {
            assert_eq!(to_ipv6(&answer[..length], inner()), None, "{length}");
        }
        let error = unreachable(&answer, Ipv4Addr::new(11, 0, 0, 9));
        assert_eq!(to_ipv6(&error, inner()), None);
        let mut fragment = answer.clone();
        Ipv4Packet::new_unchecked(&mut fragment).set_more_frags(true);
        assert_eq!(to_ipv6(&fragment, inner()), None);
    }
}
