//! An IP packet from a device or a peer: what is read of it lies within it, and an
//! error about it is a packet itself, about which no error is made. A datagram of a relay: what is no bind
//! of the key's holder is none.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use enishi_dataplane::icmp::{IPV4_ERROR_BYTES_MAX, IPV6_ERROR_BYTES_MAX};
use enishi_dataplane::relay::{self, BIND_BYTES, Bind, Kind, RelayKey};
use enishi_dataplane::{IpPacket, Reason, error_for};
use libfuzzer_sys::fuzz_target;

const REASONS: [Reason; 3] = [
    Reason::HostUnreachable,
    Reason::AdministrativelyProhibited,
    Reason::TooBig { mtu: 576 },
];

fuzz_target!(|octets: &[u8]| {
    if let Some((kind, token)) = relay::decode(octets) {
        assert!(relay::is_relayed(octets));
        match kind {
            Kind::Data => assert!(octets.starts_with(&relay::header(token))),
            Kind::Bind | Kind::Prove | Kind::Bound => assert_eq!(octets.len(), BIND_BYTES),
        }
        let key = RelayKey::new([7; 32]);
        if let Some(bind) = Bind::decode(octets, &key) {
            assert_eq!(bind.encode(kind, &key), octets);
        }
    }
    let Ok(packet) = IpPacket::parse(octets) else {
        return;
    };
    assert!(packet.bytes().len() <= octets.len());
    assert_eq!(
        packet.header_bytes() + packet.payload().len(),
        packet.bytes().len()
    );
    let _ = (
        packet.protocol(),
        packet.hop_limit(),
        packet.dont_fragment(),
    );
    let routers: [Option<IpAddr>; 3] = [
        None,
        Some(Ipv4Addr::new(10, 77, 0, 1).into()),
        Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into()),
    ];
    for reason in REASONS {
        for from in routers {
            if let Some(error) = error_for(&packet, reason, from) {
                check(&packet, reason, &error);
            }
        }
    }
});

fn check(about: &IpPacket<'_>, reason: Reason, error: &[u8]) {
    let longest = if about.is_v4() {
        IPV4_ERROR_BYTES_MAX
    } else {
        IPV6_ERROR_BYTES_MAX
    };
    assert!(error.len() <= longest);
    let error = IpPacket::parse(error).expect("an error is a packet");
    assert_eq!(error.is_v4(), about.is_v4());
    assert_eq!(error.destination(), about.source());
    assert_eq!(error_for(&error, reason, None), None);
}
