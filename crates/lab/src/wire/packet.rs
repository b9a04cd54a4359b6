//! What routers read and write in a packet: who sends, to whom, and how far it may go. What is
//! written, but for the hops, is of IPv4 alone.
//!
//! Ports are those of UDP and TCP; of an ICMP echo it is the identifier, on the side of who asked. An ICMP
//! error is of the packet that it quotes: its flow is that one's, turned round, so that it finds
//! the way back through each translation (RFC 5508, section 4).

use std::net::{IpAddr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use smoltcp::wire::{
    Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpAddress, IpProtocol, Ipv4Packet,
    Ipv6Packet, TcpPacket, UdpPacket,
};

/// The least of a quoted packet that names its flow: a header and eight octets.
const QUOTE_BYTES_MIN: usize = 28;
const QUOTE_BYTES_MIN_V6: usize = 48;

/// What carries the ports of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Transport {
    Udp,
    Tcp,
    /// ICMP echo.
    Echo,
}

/// Between whom a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow<A = SocketAddrV4> {
    pub(crate) transport: Transport,
    pub(crate) source: A,
    pub(crate) destination: A,
    /// Whether the packet is an error about one that went the other way.
    pub(crate) is_error: bool,
    /// Whether it asks for a connection: TCP's first packet.
    pub(crate) is_syn: bool,
}

/// Returns the destination of a packet; none for what is neither IPv4 nor IPv6.
pub(crate) fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(Ipv4Packet::new_checked(packet).ok()?.dst_addr().into()),
        6 => Some(Ipv6Packet::new_checked(packet).ok()?.dst_addr().into()),
        _ => None,
    }
}

/// Returns the source of a packet of IPv6.
pub(crate) fn source_v6(packet: &[u8]) -> Option<Ipv6Addr> {
    let ip = Ipv6Packet::new_checked(packet).ok()?;
    (ip.version() == 6).then(|| ip.src_addr())
}

/// Takes one hop off; tells whether any is left.
pub(crate) fn hop(packet: &mut [u8]) -> bool {
    let left = |limit: u8| limit.saturating_sub(1);
    match packet.first().map(|first| first >> 4) {
        Some(4) => Ipv4Packet::new_checked(packet).is_ok_and(|mut ip| {
            ip.set_hop_limit(left(ip.hop_limit()));
            ip.fill_checksum();
            ip.hop_limit() > 0
        }),
        Some(6) => Ipv6Packet::new_checked(packet).is_ok_and(|mut ip| {
            ip.set_hop_limit(left(ip.hop_limit()));
            ip.hop_limit() > 0
        }),
        _ => false,
    }
}

/// Returns between whom a packet is; none for what no router of this lab translates: fragments
/// but the first, other protocols, and what is cut short.
pub(crate) fn flow(packet: &[u8]) -> Option<Flow> {
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    if ip.version() != 4 || ip.frag_offset() != 0 {
        return None;
    }
    let between = |transport, source, destination| Flow {
        transport,
        source: SocketAddrV4::new(ip.src_addr(), source),
        destination: SocketAddrV4::new(ip.dst_addr(), destination),
        is_error: false,
        is_syn: false,
    };
    match ip.next_header() {
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(ip.payload()).ok()?;
            Some(between(Transport::Udp, udp.src_port(), udp.dst_port()))
        }
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
            let flow = between(Transport::Tcp, tcp.src_port(), tcp.dst_port());
            let is_syn = tcp.syn() && !tcp.ack();
            Some(Flow { is_syn, ..flow })
        }
        IpProtocol::Icmp => {
            let icmp = Icmpv4Packet::new_checked(ip.payload()).ok()?;
            match icmp.msg_type() {
                Icmpv4Message::EchoRequest => Some(between(Transport::Echo, icmp.echo_ident(), 0)),
                Icmpv4Message::EchoReply => Some(between(Transport::Echo, 0, icmp.echo_ident())),
                Icmpv4Message::DstUnreachable | Icmpv4Message::TimeExceeded => {
                    let (transport, source, destination) = quoted(icmp.data())?;
                    Some(Flow {
                        transport,
                        source: destination,
                        destination: source,
                        is_error: true,
                        is_syn: false,
                    })
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// Returns between whom a packet of IPv6 is; none for what no firewall of this lab lets through:
/// what has headers in between, other protocols, and what is cut short.
pub(crate) fn flow_v6(packet: &[u8]) -> Option<Flow<SocketAddrV6>> {
    let ip = Ipv6Packet::new_checked(packet).ok()?;
    if ip.version() != 6 {
        return None;
    }
    let between = |transport, source, destination| Flow {
        transport,
        source: SocketAddrV6::new(ip.src_addr(), source, 0, 0),
        destination: SocketAddrV6::new(ip.dst_addr(), destination, 0, 0),
        is_error: false,
        is_syn: false,
    };
    match ip.next_header() {
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(ip.payload()).ok()?;
            Some(between(Transport::Udp, udp.src_port(), udp.dst_port()))
        }
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
            let flow = between(Transport::Tcp, tcp.src_port(), tcp.dst_port());
            let is_syn = tcp.syn() && !tcp.ack();
            Some(Flow { is_syn, ..flow })
        }
        IpProtocol::Icmpv6 => {
            let icmp = Icmpv6Packet::new_checked(ip.payload()).ok()?;
            match icmp.msg_type() {
                Icmpv6Message::EchoRequest => Some(between(Transport::Echo, icmp.echo_ident(), 0)),
                Icmpv6Message::EchoReply => Some(between(Transport::Echo, 0, icmp.echo_ident())),
                Icmpv6Message::DstUnreachable
                | Icmpv6Message::PktTooBig
                | Icmpv6Message::TimeExceeded => quoted_v6(icmp.payload()),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The flow of an error, from what it quotes.
fn quoted_v6(quote: &[u8]) -> Option<Flow<SocketAddrV6>> {
    if quote.len() < QUOTE_BYTES_MIN_V6 {
        return None;
    }
    let ip = Ipv6Packet::new_unchecked(quote);
    let ports = quote.get(40..48)?;
    let number = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    let (transport, source, destination) = match ip.next_header() {
        IpProtocol::Udp => (Transport::Udp, number(0), number(2)),
        IpProtocol::Tcp => (Transport::Tcp, number(0), number(2)),
        IpProtocol::Icmpv6 => (Transport::Echo, number(4), 0),
        _ => return None,
    };
    Some(Flow {
        transport,
        source: SocketAddrV6::new(ip.dst_addr(), destination, 0, 0),
        destination: SocketAddrV6::new(ip.src_addr(), source, 0, 0),
        is_error: true,
        is_syn: false,
    })
}

/// Between whom the packet was that an error quotes.
fn quoted(quote: &[u8]) -> Option<(Transport, SocketAddrV4, SocketAddrV4)> {
    if quote.len() < QUOTE_BYTES_MIN {
        return None;
    }
    let ip = Ipv4Packet::new_unchecked(quote);
    let ports = quote.get(usize::from(ip.header_len())..)?.get(..8)?;
    let number = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    let (transport, source, destination) = match ip.next_header() {
        IpProtocol::Udp => (Transport::Udp, number(0), number(2)),
        IpProtocol::Tcp => (Transport::Tcp, number(0), number(2)),
        IpProtocol::Icmp => (Transport::Echo, number(4), 0),
        _ => return None,
    };
    Some((
        transport,
        SocketAddrV4::new(ip.src_addr(), source),
        SocketAddrV4::new(ip.dst_addr(), destination),
    ))
}

/// Makes a packet come from elsewhere. Of an error it is the quoted packet's destination, and the
/// error itself comes from that address.
pub(crate) fn set_source(packet: &mut [u8], source: SocketAddrV4) {
    set(packet, source, Side::Source);
}

/// Makes a packet go elsewhere. Of an error it is the quoted packet's source, to which the error
/// goes as well.
pub(crate) fn set_destination(packet: &mut [u8], destination: SocketAddrV4) {
    set(packet, destination, Side::Destination);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

fn set(packet: &mut [u8], to: SocketAddrV4, side: Side) {
    let Ok(mut ip) = Ipv4Packet::new_checked(packet) else {
        return;
    };
    match side {
        Side::Source => ip.set_src_addr(*to.ip()),
        Side::Destination => ip.set_dst_addr(*to.ip()),
    }
    ip.fill_checksum();
    let ends = (
        IpAddress::Ipv4(ip.src_addr()),
        IpAddress::Ipv4(ip.dst_addr()),
    );
    let protocol = ip.next_header();
    let payload = ip.payload_mut();
    match protocol {
        IpProtocol::Udp => {
            let Ok(mut udp) = UdpPacket::new_checked(payload) else {
                return;
            };
            match side {
                Side::Source => udp.set_src_port(to.port()),
                Side::Destination => udp.set_dst_port(to.port()),
            }
            udp.fill_checksum(&ends.0, &ends.1);
        }
        IpProtocol::Tcp => {
            let Ok(mut tcp) = TcpPacket::new_checked(payload) else {
                return;
            };
            match side {
                Side::Source => tcp.set_src_port(to.port()),
                Side::Destination => tcp.set_dst_port(to.port()),
            }
            tcp.fill_checksum(&ends.0, &ends.1);
        }
        IpProtocol::Icmp => {
            let Ok(mut icmp) = Icmpv4Packet::new_checked(payload) else {
                return;
            };
            match icmp.msg_type() {
                Icmpv4Message::EchoRequest | Icmpv4Message::EchoReply => {
                    icmp.set_echo_ident(to.port());
                }
                _ => requote(icmp.data_mut(), to, side),
            }
            icmp.fill_checksum();
        }
        _ => {}
    }
}

/// Changes what an error quotes. Its transport's checksum stays wrong, which nobody looks at: the
/// quote may be cut short.
fn requote(quote: &mut [u8], to: SocketAddrV4, side: Side) {
    if quote.len() < QUOTE_BYTES_MIN {
        return;
    }
    let mut ip = Ipv4Packet::new_unchecked(&mut *quote);
    // It went the other way.
    match side {
        Side::Source => ip.set_dst_addr(*to.ip()),
        Side::Destination => ip.set_src_addr(*to.ip()),
    }
    ip.fill_checksum();
    let (start, protocol) = (usize::from(ip.header_len()), ip.next_header());
    let at = match (protocol, side) {
        (IpProtocol::Udp | IpProtocol::Tcp, Side::Source) => start + 2,
        (IpProtocol::Udp | IpProtocol::Tcp, Side::Destination) => start,
        (IpProtocol::Icmp, _) => start + 4,
        _ => return,
    };
    if let Some(port) = quote.get_mut(at..at + 2) {
        port.copy_from_slice(&to.port().to_be_bytes());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// Makes a UDP packet.
    pub(crate) fn udp(source: &str, destination: &str) -> Vec<u8> {
        let (source, destination): (SocketAddrV4, SocketAddrV4) =
            (source.parse().unwrap(), destination.parse().unwrap());
        let mut packet = vec![0; 20 + 8 + 4];
        let mut ip = Ipv4Packet::new_unchecked(&mut packet);
        ip.set_version(4);
        ip.set_header_len(20);
        ip.set_total_len(32);
        ip.set_hop_limit(64);
        ip.set_next_header(IpProtocol::Udp);
        ip.set_src_addr(*source.ip());
        ip.set_dst_addr(*destination.ip());
        let mut udp = UdpPacket::new_unchecked(ip.payload_mut());
        udp.set_len(12);
        udp.set_src_port(source.port());
        udp.set_dst_port(destination.port());
        set_source(&mut packet, source);
        packet
    }

    /// Makes a UDP packet of IPv6.
    pub(crate) fn udp_v6(source: &str, destination: &str) -> Vec<u8> {
        let (source, destination): (SocketAddrV6, SocketAddrV6) =
            (source.parse().unwrap(), destination.parse().unwrap());
        let mut packet = vec![0; 40 + 8 + 4];
        let mut ip = Ipv6Packet::new_unchecked(&mut packet);
        ip.set_version(6);
        ip.set_payload_len(12);
        ip.set_hop_limit(64);
        ip.set_next_header(IpProtocol::Udp);
        ip.set_src_addr(*source.ip());
        ip.set_dst_addr(*destination.ip());
        let mut udp = UdpPacket::new_unchecked(ip.payload_mut());
        udp.set_len(12);
        udp.set_src_port(source.port());
        udp.set_dst_port(destination.port());
        udp.fill_checksum(&(*source.ip()).into(), &(*destination.ip()).into());
        packet
    }

    /// Makes an ICMPv6 error about a packet, from a router.
    pub(crate) fn unreachable_v6(about: &[u8], router: &str) -> Vec<u8> {
        let quote = &about[..QUOTE_BYTES_MIN_V6];
        let mut packet = vec![0; 40 + 8 + quote.len()];
        let back = Ipv6Packet::new_unchecked(about).src_addr();
        let router = router.parse().unwrap();
        let mut ip = Ipv6Packet::new_unchecked(&mut packet);
        ip.set_version(6);
        ip.set_payload_len(8 + quote.len() as u16);
        ip.set_hop_limit(64);
        ip.set_next_header(IpProtocol::Icmpv6);
        ip.set_src_addr(router);
        ip.set_dst_addr(back);
        let mut icmp = Icmpv6Packet::new_unchecked(ip.payload_mut());
        icmp.set_msg_type(Icmpv6Message::DstUnreachable);
        icmp.set_msg_code(4);
        icmp.payload_mut().copy_from_slice(quote);
        icmp.fill_checksum(&router, &back);
        packet
    }

    /// Makes an ICMP error about a packet, from a router.
    pub(crate) fn unreachable(about: &[u8], router: Ipv4Addr) -> Vec<u8> {
        let quote = &about[..QUOTE_BYTES_MIN];
        let mut packet = vec![0; 20 + 8 + quote.len()];
        let total = packet.len() as u16;
        let back = Ipv4Packet::new_unchecked(about).src_addr();
        let mut ip = Ipv4Packet::new_unchecked(&mut packet);
        ip.set_version(4);
        ip.set_header_len(20);
        ip.set_total_len(total);
        ip.set_hop_limit(64);
        ip.set_next_header(IpProtocol::Icmp);
        ip.set_src_addr(router);
        ip.set_dst_addr(back);
        ip.fill_checksum();
        let mut icmp = Icmpv4Packet::new_unchecked(ip.payload_mut());
        icmp.set_msg_type(Icmpv4Message::DstUnreachable);
        icmp.set_msg_code(3);
        icmp.data_mut().copy_from_slice(quote);
        icmp.fill_checksum();
        packet
    }

    fn checksums_hold(packet: &[u8]) -> bool {
        let ip = Ipv4Packet::new_checked(packet).unwrap();
        let ends = (
            IpAddress::Ipv4(ip.src_addr()),
            IpAddress::Ipv4(ip.dst_addr()),
        );
        ip.verify_checksum()
            && match ip.next_header() {
                IpProtocol::Udp => UdpPacket::new_checked(ip.payload())
                    .unwrap()
                    .verify_checksum(&ends.0, &ends.1),
                _ => Icmpv4Packet::new_checked(ip.payload())
                    .unwrap()
                    .verify_checksum(),
            }
    }

    #[test]
    fn both_sides_of_a_flow_can_be_read_and_set() {
        let mut packet = udp("192.168.1.2:4000", "11.0.0.1:53");
        assert!(checksums_hold(&packet));
        set_source(&mut packet, "11.0.9.9:61000".parse().unwrap());
        set_destination(&mut packet, "11.0.0.2:54".parse().unwrap());
        assert!(checksums_hold(&packet));
        let flow = flow(&packet).unwrap();
        assert_eq!(flow.source.to_string(), "11.0.9.9:61000");
        assert_eq!(flow.destination.to_string(), "11.0.0.2:54");
        assert!(hop(&mut packet) && checksums_hold(&packet));
    }

    #[test]
    fn an_error_goes_the_way_of_what_it_quotes_back() {
        let sent = udp("11.0.9.9:61000", "11.0.0.1:53");
        let mut error = unreachable(&sent, "11.0.0.1".parse().unwrap());
        let found = flow(&error).unwrap();
        assert!(found.is_error);
        assert_eq!(found.destination.to_string(), "11.0.9.9:61000");
        assert_eq!(found.source.to_string(), "11.0.0.1:53");
        set_destination(&mut error, "192.168.1.2:4000".parse().unwrap());
        assert!(checksums_hold(&error));
        let found = flow(&error).unwrap();
        assert_eq!(found.destination.to_string(), "192.168.1.2:4000");
        assert_eq!(destination(&error), Some("192.168.1.2".parse().unwrap()));
    }

    #[test]
    fn a_flow_of_ipv6_and_its_errors_are_read() {
        let mut packet = udp_v6("[2600::1]:4000", "[2600::2]:53");
        assert_eq!(destination(&packet), Some("2600::2".parse().unwrap()));
        assert!(hop(&mut packet));
        let found = flow_v6(&packet).unwrap();
        assert_eq!(found.source.to_string(), "[2600::1]:4000");
        assert_eq!(found.destination.to_string(), "[2600::2]:53");
        let error = unreachable_v6(&packet, "2600::9");
        let about = flow_v6(&error).unwrap();
        assert!(about.is_error);
        assert_eq!(
            (about.source, about.destination),
            (found.destination, found.source)
        );
        for whole in [packet, error] {
            for length in 0..whole.len() {
                assert_eq!(flow_v6(&whole[..length]), None, "{length}");
            }
        }
    }

    #[test]
    fn what_is_cut_short_is_of_no_flow() {
        let whole = udp("192.168.1.2:4000", "11.0.0.1:53");
        let error = unreachable(&whole, "11.0.0.1".parse().unwrap());
        for packet in [whole, error] {
            for length in 0..packet.len() {
                let mut part = packet[..length].to_vec();
                assert_eq!(flow(&part), None, "{length}");
                set_source(&mut part, "11.0.9.9:61000".parse().unwrap());
            }
        }
    }
}
