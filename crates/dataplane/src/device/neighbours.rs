//! Questions for the Ethernet address of a neighbour, and the answers: for every address of
//! the network that is not this host's own, one and the same (proxy ARP, RFC 1027; proxy
//! neighbour advertisements, RFC 4861, section 7.2.8). Who holds the address, if anybody, is
//! found out when packets go there (document 004, section 4.4).
//!
//! ARP (RFC 826), for IPv4 over Ethernet:
//!
//! ```text
//!   0       2       4   5   6       8                14       18               24     28
//!  +-------+-------+---+---+-------+----------------+--------+----------------+--------+
//!  |   1   | 0x0800| 6 | 4 |1 or 2 |  sender's MAC  |its IPv4|  target's MAC  |its IPv4|
//!  +-------+-------+---+---+-------+----------------+--------+----------------+--------+
//! ```
//!
//! Neighbour discovery (RFC 4861, sections 4.3 and 4.4) in ICMPv6, with an option that holds
//! a MAC:
//!
//! ```text
//!   0     1   2        4               8                              24  25   26
//!  +-----+---+--------+---------------+------------------------------+---+---+- - -
//!  |type | 0 |checksum| flags         |        target (16)           | 2 | 1 | MAC (6)
//!  +-----+---+--------+---------------+------------------------------+---+---+- - -
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum::{Sum, pseudo_header};
use crate::packet::{IPV6_HEADER_BYTES, IpPacket, protocol};
use crate::table::Network;

/// An Ethernet address.
pub(super) type Mac = [u8; 6];

/// The address of everybody but this host: unicast, administered locally.
pub(super) const OTHERS: Mac = *b"\x02enish";

const ARP_BYTES: usize = 28;
const ARP_IPV4_OVER_ETHERNET: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: [u8; 2] = [0, 1];
const ARP_REPLY: [u8; 2] = [0, 2];

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOLICITED: u8 = 0x40;
/// Octets of a solicitation without options.
const SOLICITATION_BYTES: usize = 24;
/// Octets of an advertisement with the address of its target.
const ADVERTISEMENT_BYTES: u8 = 32;
const TARGET_LINK_ADDRESS: u8 = 2;
/// What no router has passed on (RFC 4861, section 7.1.1).
const HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// For which addresses questions are answered.
pub(super) struct Neighbours {
    /// This host's addresses, and the networks that they are in.
    own: Vec<(IpAddr, Network)>,
}

impl Neighbours {
    pub(super) fn new(ipv4: (Ipv4Addr, u8), ipv6: Option<(Ipv6Addr, u8)>) -> Self {
        let ipv6 = ipv6.map(|(address, prefix)| (address.into(), prefix));
        let own = [(IpAddr::from(ipv4.0), ipv4.1)].into_iter().chain(ipv6);
        let own = own.map(|(address, prefix)| (address, Network::new(address, prefix)));
        Self { own: own.collect() }
    }

    /// Returns the answer to an ARP request; none when there is none to give.
    pub(super) fn answer_arp(&self, request: &[u8]) -> Option<[u8; ARP_BYTES]> {
        let request: &[u8; ARP_BYTES] = request.first_chunk()?;
        let (kind, rest) = request.split_first_chunk::<6>()?;
        let (operation, rest) = rest.split_first_chunk::<2>()?;
        let (sender, target) = rest.split_at(10);
        let address: [u8; 4] = target.last_chunk().copied()?;
        let is_question = *kind == ARP_IPV4_OVER_ETHERNET && *operation == ARP_REQUEST;
        if !is_question || !self.answers_for(Ipv4Addr::from(address).into()) {
            return None;
        }
        let mut reply = *request;
        reply[6..8].copy_from_slice(&ARP_REPLY);
        reply[8..14].copy_from_slice(&OTHERS);
        reply[14..18].copy_from_slice(&address);
        reply[18..28].copy_from_slice(sender);
        Some(reply)
    }

    /// Returns the answer to a neighbour solicitation, an IPv6 packet; none when the packet is
    /// none, or there is no answer to give.
    pub(super) fn answer_solicitation(&self, packet: &IpPacket<'_>) -> Option<Vec<u8>> {
        let solicitation: &[u8; SOLICITATION_BYTES] = packet.payload().first_chunk()?;
        let is_question = packet.protocol() == protocol::ICMPV6
            && solicitation[..2] == [SOLICITATION, 0]
            && packet.hop_limit() == HOP_LIMIT
            && !packet.is_fragment();
        let target: [u8; 16] = solicitation.last_chunk().copied()?;
        let target = Ipv6Addr::from(target);
        match packet.source() {
            IpAddr::V6(asker) if is_question && self.answers_for(target.into()) => {
                Some(advertisement(target, asker))
            }
            _ => None,
        }
    }

    fn answers_for(&self, target: IpAddr) -> bool {
        let is_own = self.own.iter().any(|(own, _)| *own == target);
        let mut networks = self.own.iter().map(|(_, network)| network);
        !is_own && networks.any(|network| network.contains(target) && !network.is_broadcast(target))
    }
}

/// Builds what tells `asker` that [`OTHERS`] is where packets for `target` go. It does not
/// override what the asker knows better: the target itself does not speak. An asker without
/// an address, who wants to take `target`, hears it among all nodes.
fn advertisement(target: Ipv6Addr, asker: Ipv6Addr) -> Vec<u8> {
    let (to, flags) = match asker.is_unspecified() {
        true => (ALL_NODES, 0),
        false => (asker, SOLICITED),
    };
    let mut packet = vec![0x60, 0, 0, 0, 0, ADVERTISEMENT_BYTES];
    packet.extend([protocol::ICMPV6, HOP_LIMIT]);
    packet.extend(target.octets());
    packet.extend(to.octets());
    packet.extend([ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0]);
    packet.extend(target.octets());
    packet.extend([TARGET_LINK_ADDRESS, 1]);
    packet.extend(OTHERS);
    let sum = IpPacket::parse(&packet).map_or(Sum::default(), |packet| pseudo_header(&packet));
    let sum = sum.word(ADVERTISEMENT_BYTES.into());
    let sum = !sum.add(&packet[IPV6_HEADER_BYTES..]).fold();
    packet[IPV6_HEADER_BYTES + 2..][..2].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Returns the Ethernet address for packets to an address: that of everyone for broadcast, of
/// the group for multicast (RFC 1112, section 6.4; RFC 2464, section 7), and `host` otherwise.
pub(super) fn mac_of(destination: IpAddr, host: Mac) -> Mac {
    match destination {
        IpAddr::V4(address) if address.is_broadcast() => [0xff; 6],
        IpAddr::V4(address) if address.is_multicast() => {
            let [_, b, c, d] = address.octets();
            [0x01, 0x00, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(address) if address.is_multicast() => {
            let [.., c, d, e, f] = address.octets();
            [0x33, 0x33, c, d, e, f]
        }
        IpAddr::V4(_) | IpAddr::V6(_) => host,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::tests::ipv6;

    const HOST: Mac = [2, 0, 0, 0, 0, 1];
    const OWN6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);

    fn neighbours() -> Neighbours {
        Neighbours::new((Ipv4Addr::new(10, 77, 0, 1), 16), Some((OWN6, 64)))
    }

    fn request(target: [u8; 4]) -> Vec<u8> {
        [
            &[0, 1, 8, 0, 6, 4, 0, 1][..],
            &HOST,
            &[10, 77, 0, 1],
            &[0; 6],
            &target,
        ]
        .concat()
    }

    fn solicitation(source: Ipv6Addr, target: Ipv6Addr, hop_limit: u8) -> Vec<u8> {
        let payload = [&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
        let mut packet = ipv6(source, target, protocol::ICMPV6, &payload);
        packet[7] = hop_limit;
        packet
    }

    #[test]
    fn arp_is_answered_for_all_others_of_the_network() {
        let reply = neighbours().answer_arp(&request([10, 77, 9, 9])).unwrap();
        let expected = [
            &[0, 1, 8, 0, 6, 4, 0, 2][..],
            &OTHERS,
            &[10, 77, 9, 9],
            &HOST,
            &[10, 77, 0, 1],
        ];
        assert_eq!(reply[..], expected.concat());
        // This host's own, everybody's, another network's.
        for target in [[10, 77, 0, 1], [10, 77, 255, 255], [10, 78, 0, 1]] {
            assert!(neighbours().answer_arp(&request(target)).is_none());
        }
        assert!(neighbours().answer_arp(&reply).is_none());
        assert!(
            neighbours()
                .answer_arp(&request([10, 77, 9, 9])[..27])
                .is_none()
        );
    }

    #[test]
    fn solicitations_are_answered_likewise() {
        let target = Ipv6Addr::new(0xfd77, 0, 0, 0, 1, 2, 3, 4);
        let answer = |source, target, hop_limit| {
            let packet = solicitation(source, target, hop_limit);
            neighbours().answer_solicitation(&IpPacket::parse(&packet).unwrap())
        };
        let octets = answer(OWN6, target, HOP_LIMIT).unwrap();
        let packet = IpPacket::parse(&octets).unwrap();
        assert_eq!(
            (packet.source(), packet.destination()),
            (target.into(), OWN6.into())
        );
        assert_eq!(packet.payload()[4], SOLICITED);
        assert_eq!(packet.payload()[26..], OTHERS);
        let sum = pseudo_header(&packet).word(ADVERTISEMENT_BYTES.into());
        assert_eq!(sum.add(packet.payload()).fold(), 0xffff);
        // Somebody wants to take the address.
        let octets = answer(Ipv6Addr::UNSPECIFIED, target, HOP_LIMIT).unwrap();
        let packet = IpPacket::parse(&octets).unwrap();
        assert_eq!(
            (packet.destination(), packet.payload()[4]),
            (ALL_NODES.into(), 0)
        );
        // From elsewhere, for this host's own, for another network's.
        assert!(answer(OWN6, target, 64).is_none());
        assert!(answer(OWN6, OWN6, HOP_LIMIT).is_none());
        assert!(answer(OWN6, "fd78::1".parse().unwrap(), HOP_LIMIT).is_none());
    }

    #[test]
    fn groups_have_addresses_of_their_own() {
        let mac = |text: &str| mac_of(text.parse().unwrap(), HOST);
        assert_eq!(mac("10.77.0.1"), HOST);
        assert_eq!(mac("255.255.255.255"), [0xff; 6]);
        assert_eq!(mac("239.255.255.250"), [0x01, 0, 0x5e, 0x7f, 0xff, 0xfa]);
        assert_eq!(mac("ff02::fb"), [0x33, 0x33, 0, 0, 0, 0xfb]);
    }

    proptest! {
        #[test]
        fn any_octets_are_answered_or_not(mut bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = neighbours().answer_arp(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = 0x60;
            }
            if let Ok(packet) = IpPacket::parse(&bytes) {
                let _ = neighbours().answer_solicitation(&packet);
            }
        }
    }
}
