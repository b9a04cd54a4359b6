//! A client that has a password and means harm, and strangers that have none: whatever they send,
//! the server keeps to its limits. Found inputs become tests of `server.rs`.

use std::time::Duration;

use crate::pair::{Hand, PEER, Pair, Sent, Site, address};
use enishi_stun::{DATAGRAM_BYTES_MAX, Input, Limits, allowed};
use proptest::prelude::*;
use stun_types::attribute::{AttributeType, RawAttribute};
use stun_types::message::Method;
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION};

/// One thing that somebody does.
#[derive(Clone, Debug)]
enum Step {
    /// A client with a slot sends octets.
    Client(Vec<u8>),
    /// Somebody else does.
    Stranger(Vec<u8>),
    /// A peer does.
    Peer(u8, Vec<u8>),
    /// The client sends a signed request with these attributes.
    Signed(u16, Vec<(u16, Vec<u8>)>),
    /// It sends a good request that is cut or changed at one place.
    Damaged(u16, usize, u8),
    /// It wants a peer.
    Wants([u8; 4], Option<u16>),
    /// It sends by a channel or in an indication.
    Channel(u16, u16, Vec<u8>),
    /// So many seconds pass.
    Pass(u16),
}

fn octets() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..80)
}

/// Attributes that mean something to TURN more often than others.
fn kind() -> impl Strategy<Value = u16> {
    prop_oneof![
        0x0001..0x0030_u16,
        prop::sample::select(vec![0x8000_u16, 0x8001, 0x8002, 0x8004, 0x802a, 0x001e]),
        any::<u16>(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let attribute = (kind(), proptest::collection::vec(any::<u8>(), 0..24));
    prop_oneof![
        octets().prop_map(Step::Client),
        octets().prop_map(Step::Stranger),
        (any::<u8>(), octets()).prop_map(|(last, octets)| Step::Peer(last, octets)),
        (1..13_u16, proptest::collection::vec(attribute, 0..6))
            .prop_map(|(method, attributes)| Step::Signed(method, attributes)),
        (1..13_u16, 0..160_usize, any::<u8>()).prop_map(|(a, b, c)| Step::Damaged(a, b, c)),
        (any::<[u8; 4]>(), proptest::option::of(0x3ffe..0x8002_u16))
            .prop_map(|(peer, channel)| Step::Wants(peer, channel)),
        (0x3ffe..0x8002_u16, 0..90_u16, octets()).prop_map(|(a, b, c)| Step::Channel(a, b, c)),
        (0..2_000_u16).prop_map(Step::Pass),
    ]
}

fn check(site: &Site, sent: &Sent, limits: &Limits) -> Result<(), TestCaseError> {
    for (relayed, to, octets) in &sent.to_peers {
        prop_assert!(site.open.contains(relayed));
        prop_assert!(allowed(to.ip(), &[], &[]).is_ok(), "{}", to);
        prop_assert!(octets.len() <= DATAGRAM_BYTES_MAX);
    }
    prop_assert!(sent.to_clients.len() <= 2);
    prop_assert!(site.open.len() <= 2 * limits.allocations_max);
    prop_assert_eq!(site.open.len(), site.server.relayed_addresses());
    Ok(())
}

fn signed(hand: &Hand, method: u16, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    hand.unchecked(Method::new(method), |request| {
        use stun_types::message::MessageWriteExt as _;
        for (kind, octets) in attributes {
            // Those that end a message are written by signing it.
            if ![0x0008, 0x001c, 0x8028].contains(kind) {
                let attribute = RawAttribute::new(AttributeType::new(*kind), octets);
                let _ = request.add_attribute(&attribute);
            }
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn limits_hold_whatever_is_sent(steps in proptest::collection::vec(step(), 1..40)) {
        let limits = Limits { allocations_max: 3, peers_max: 4, ..Limits::default() };
        let mut site = Site::new(limits);
        let mut hand = Hand::new("198.51.100.7:4000");
        hand.allocate(&mut site);
        for step in steps {
            let sent = match step {
                Step::Client(octets) => site.client_sends(hand.source, &octets),
                Step::Stranger(octets) => site.client_sends(address("198.51.100.9:1"), &octets),
                Step::Peer(last, octets) => {
                    let relayed = site.open.first().copied().unwrap_or(address(PEER));
                    let source = ([9, 9, 9, last], 99).into();
                    let datagram = octets.as_slice();
                    site.handle(Input::FromPeer { relayed, source, datagram })
                }
                Step::Signed(method, attributes) => {
                    let request = signed(&hand, method, &attributes);
                    site.client_sends(hand.source, &request)
                }
                Step::Damaged(method, at, by) => {
                    let mut request = signed(&hand, method, &[]);
                    match request.get_mut(at) {
                        Some(octet) => *octet ^= by,
                        None => request.truncate(usize::from(by)),
                    }
                    site.client_sends(hand.source, &request)
                }
                Step::Wants(peer, channel) => {
                    let peer = (peer, 99).into();
                    let method = if channel.is_some() { CHANNEL_BIND } else { CREATE_PERMISSION };
                    site.client_sends(hand.source, &hand.about(method, peer, channel))
                }
                Step::Channel(number, length, mut octets) => {
                    let mut datagram = number.to_be_bytes().to_vec();
                    datagram.extend(length.to_be_bytes());
                    datagram.append(&mut octets);
                    site.client_sends(hand.source, &datagram)
                }
                Step::Pass(seconds) => {
                    site.pass(Duration::from_secs(seconds.into()));
                    Sent::default()
                }
            };
            for (to, answer) in &sent.to_clients {
                if *to == hand.source {
                    hand.learn_if_told(answer);
                }
            }
            check(&site, &sent, &limits)?;
        }
        site.pass(Duration::from_secs(3700));
        prop_assert!(site.open.is_empty());
        prop_assert_eq!(site.server.next_timeout(), None);
        let mut newcomer = Hand::new("198.51.100.7:4001");
        prop_assert_eq!(newcomer.allocate(&mut site), None);
        prop_assert!(newcomer.say(&mut site, ALLOCATE, &[]).is_some());
    }

    #[test]
    fn a_client_bears_any_server(steps in proptest::collection::vec((0..6_u8, octets()), 1..40)) {
        use enishi_stun::ClientInput;
        let mut pair = Pair::new();
        pair.pass(Duration::from_secs(1));
        let peer = address(PEER);
        for (kind, mut octets) in steps {
            match kind {
                0 => pair.tell(ClientInput::Datagram(&octets)),
                1 => {
                    if octets.len() >= 20 {
                        octets.truncate(octets.len() / 4 * 4);
                        let length = u16::try_from(octets.len() - 20).unwrap();
                        octets[0] &= 1;
                        octets[2..4].copy_from_slice(&length.to_be_bytes());
                        octets[4..8].copy_from_slice(&0x2112_a442_u32.to_be_bytes());
                    }
                    pair.tell(ClientInput::Datagram(&octets));
                }
                2 => pair.tell(ClientInput::Permit(peer.ip())),
                3 => pair.tell(ClientInput::Bind(peer)),
                4 => pair.tell(ClientInput::Send { peer, octets: &octets }),
                _ => pair.pass(Duration::from_secs(octets.len() as u64)),
            }
        }
        prop_assert!(pair.client.relayed().is_some(), "nothing made up ends it");
    }
}
