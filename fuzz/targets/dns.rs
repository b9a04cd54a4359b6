//! A query to the DNS responder: whatever the octets are, the answer is within its bounds, has
//! the number of the query, is an answer, and tells a member of one channel nothing of another.
#![no_main]

use std::sync::LazyLock;

use enishi_dns::answer::{UDP_BYTES_MAX, is_answer_to};
use enishi_dns::{
    Asker, Channel, Member, Policy, Protocol, Reply, Service, Transport, Zone, answer,
};
use enishi_overlay::NodeId;
use libfuzzer_sys::fuzz_target;

/// What no member of the channel `office` may hear.
const SECRET: &[u8] = b"hidden";

static ZONE: LazyLock<Zone> = LazyLock::new(|| {
    Zone::new(
        1,
        &[channel(1, "office", "aki"), channel(2, "home", "hidden")],
    )
});

fn channel(number: u8, name: &str, host: &str) -> Channel {
    let node = NodeId::from_bytes([number; 32]);
    let service = Service {
        name: "ssh".to_owned(),
        protocol: Protocol::Tcp,
        port: 22,
        texts: vec!["key=value".to_owned()],
    };
    let member = Member {
        node,
        host: host.to_owned(),
        addresses: vec![
            [10, 77, number, 1].into(),
            [0xfd00, 0, 0, number.into(), 0, 0, 0, 1].into(),
        ],
        services: vec![service],
    };
    Channel {
        number: number.into(),
        name: name.to_owned(),
        network: ([10, 77, number, 0].into(), 24),
        network6: ([0xfd00, 0, 0, number.into(), 0, 0, 0, 0].into(), 64),
        me: node,
        members: vec![member],
        guests: Vec::new(),
    }
}

fuzz_target!(|octets: &[u8]| {
    let policy = Policy {
        domains: true,
        channels: true,
    };
    for asker in [Asker::Host, Asker::Member(1)] {
        for transport in [Transport::Udp, Transport::Tcp] {
            let reply = answer(&ZONE, octets, asker, transport, policy);
            check(octets, asker, transport, &reply);
        }
    }
    let _ = is_answer_to(octets, octets);
});

fn check(query: &[u8], asker: Asker, transport: Transport, reply: &Reply) {
    let octets = match reply {
        Reply::Nothing => return,
        Reply::Forward | Reply::ForwardChannel => {
            assert_eq!(
                asker,
                Asker::Host,
                "members use no other servers by way of this one"
            );
            return;
        }
        Reply::Answer(octets) => octets,
    };
    assert_eq!(octets[..2], query[..2]);
    assert!(octets[2] & 0x80 != 0);
    if transport == Transport::Udp {
        assert!(octets.len() <= usize::from(UDP_BYTES_MAX));
    }
    let tells = octets.windows(SECRET.len()).any(|window| window == SECRET);
    let knew = query.to_ascii_lowercase();
    let knew = knew.windows(SECRET.len()).any(|window| window == SECRET);
    assert!(
        asker == Asker::Host || !tells || knew,
        "told of another channel"
    );
}
