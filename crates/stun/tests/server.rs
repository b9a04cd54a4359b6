//! The server on virtual time: what clients get, and what they do not.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

#[path = "server/hostile.rs"]
mod hostile;
mod pair;
#[path = "server/users.rs"]
mod users;

use std::time::Duration;

use enishi_overlay::Time;
use enishi_stun::{
    Action, ClientEvent, ClientInput, Family, Input, Leg, Limits, Loss, QUIET_MAX, Rate, Server,
};
use pair::{Hand, PEER, Pair, Site, address, config};
use stun_types::attribute::{AttributeWrite, ErrorCode};
use stun_types::message::{Message, MessageWrite as _, MessageWriteExt as _, MessageWriteVec};
use turn_types::attribute::{
    AdditionalAddressFamily, AddressErrorCode, Data, DontFragment, EvenPort, Lifetime,
    RequestedTransport, XorPeerAddress, XorRelayedAddress,
};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH, SEND};
use turn_types::{AddressFamily, channel::ChannelData};

const CLIENT: &str = "198.51.100.7:4000";
const HOUR: Duration = Duration::from_secs(3600);

fn permit(hand: &mut Hand, site: &mut Site, peer: &str) -> Option<u16> {
    let peer = address(peer);
    let make = |hand: &Hand| hand.about(CREATE_PERMISSION, peer, None);
    hand.ask(site, CREATE_PERMISSION, make).0
}

fn bind(hand: &mut Hand, site: &mut Site, peer: &str, number: u16) -> Option<u16> {
    let peer = address(peer);
    let make = |hand: &Hand| hand.about(CHANNEL_BIND, peer, Some(number));
    hand.ask(site, CHANNEL_BIND, make).0
}

fn send(peer: &str, octets: &[u8]) -> Vec<u8> {
    let mut indication = Message::builder_indication(SEND, MessageWriteVec::new());
    let peer = XorPeerAddress::new(address(peer), indication.transaction_id());
    indication.add_attribute(&peer).unwrap();
    indication.add_attribute(&Data::new(octets)).unwrap();
    indication.finish()
}

fn channel(number: u16, octets: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; 4 + octets.len()];
    ChannelData::new(number, octets).write_into_unchecked(&mut datagram);
    datagram
}

#[test]
fn a_client_sends_and_receives_as_long_as_it_lives() {
    live(Pair::new());
}

#[test]
fn a_client_in_a_stream_sends_and_receives_as_long_as_it_lives() {
    live(Pair::by(Leg::Tcp));
}

fn live(mut pair: Pair) {
    pair.pass(Duration::from_secs(1));
    let relayed = pair.client.relayed().unwrap();
    let mapped = Some(pair.source);
    assert!(pair.happened(&ClientEvent::Allocated { relayed, mapped }));
    let peer = address(PEER);
    pair.tell(ClientInput::Permit(peer.ip()));
    pair.pass(Duration::from_secs(1));
    assert!(pair.happened(&ClientEvent::Permitted(peer.ip())));
    pair.tell(ClientInput::Bind(peer));
    pair.pass(Duration::from_secs(1));
    assert!(pair.happened(&ClientEvent::Bound(peer)));
    for number in 0..30_u8 {
        // Beyond the ends of permissions, channels, allocations and nonces.
        pair.pass(Duration::from_secs(600));
        let octets = [number; 5];
        pair.tell(ClientInput::Send {
            peer,
            octets: &octets,
        });
        assert_eq!(pair.to_peers.pop(), Some((peer, octets.to_vec())));
        let sent = pair.site.peer_sends(peer, &octets);
        pair.deliver(sent);
        let octets = octets.to_vec();
        assert!(pair.happened(&ClientEvent::Data { peer, octets }));
    }
    assert_eq!(pair.events, []);
    assert_eq!(pair.client.relayed(), Some(relayed));
    pair.tell(ClientInput::Release);
    assert!(pair.happened(&ClientEvent::Lost(Loss::Released)));
    assert!(pair.site.open.is_empty(), "the relayed address is closed");
    pair.site.pass(Duration::from_secs(60));
    assert_eq!(pair.site.server.next_timeout(), None, "nothing is left");
}

#[test]
fn a_client_by_tcp_is_another_one_than_by_udp_and_goes_with_its_stream() {
    let mut site = Site::new(Limits::default());
    assert_eq!(Hand::new(CLIENT).allocate(&mut site), None);
    let by_udp = site.open.clone();
    site.leg = Leg::Tcp;
    assert!(!site.server.serves_stream(address(CLIENT)));
    let mut hand = Hand::new(CLIENT);
    assert_eq!(hand.allocate(&mut site), None);
    assert_eq!(permit(&mut hand, &mut site, PEER), None);
    assert_eq!((site.open.len(), by_udp.len()), (2, 1));
    assert!(site.server.serves_stream(address(CLIENT)));
    let legs = site.server.clients(site.now).into_iter();
    assert!(legs.map(|client| client.leg).eq([Leg::Udp, Leg::Tcp]));
    let sent = site.client_sends(address(CLIENT), &send(PEER, b"by tcp"));
    assert_eq!(sent.to_peers.len(), 1);

    site.handle(Input::StreamEnded(address("198.51.100.7:4001")));
    assert_eq!(site.open.len(), 2, "it was another's");
    site.handle(Input::StreamEnded(address(CLIENT)));
    assert_eq!(site.open, by_udp);
    assert!(!site.server.serves_stream(address(CLIENT)));
    let sent = site.client_sends(address(CLIENT), &send(PEER, b"by tcp"));
    assert_eq!(sent.to_peers.len(), 0);
}

#[test]
fn in_a_stream_nothing_is_repeated_and_a_silent_server_is_given_up() {
    let mut pair = Pair::by(Leg::Tcp);
    pair.deaf = true;
    let mut sent = 0;
    let mut now = Time::ZERO;
    while let Some(due) = pair.client.next_timeout() {
        now = now.max(due);
        let outputs = pair.client.handle(now, ClientInput::Timeout);
        sent += outputs
            .filter(|output| matches!(output, enishi_stun::ClientOutput::Send(_)))
            .count();
    }
    assert_eq!(sent, 1);
    assert!(
        now >= Time::from_secs(5) && now <= Time::from_secs(12),
        "{now:?}"
    );
}

#[test]
fn the_ports_of_one_address_take_few_channels() {
    let mut pair = Pair::new();
    pair.pass(Duration::from_secs(1));
    let peer = |port: u16| std::net::SocketAddr::new(address(PEER).ip(), port);
    for port in 1..100 {
        pair.tell(ClientInput::Bind(peer(port)));
        pair.pass(Duration::from_secs(1));
        assert_eq!(pair.happened(&ClientEvent::NotBound(peer(port))), port > 4);
    }
    let other = address("9.9.9.10:99");
    pair.tell(ClientInput::Bind(other));
    pair.pass(Duration::from_secs(1));
    assert!(pair.happened(&ClientEvent::Bound(other)));
    // Those without a channel are sent to all the same.
    let octets = b"x".as_slice();
    pair.tell(ClientInput::Send {
        peer: peer(50),
        octets,
    });
    assert_eq!(pair.to_peers.pop(), Some((peer(50), octets.to_vec())));
}

#[test]
fn an_allocation_in_use_is_kept() {
    let mut pair = Pair::new();
    let peer = address(PEER);
    pair.pass(Duration::from_secs(1));
    pair.tell(ClientInput::Permit(peer.ip()));
    // One question of its own, and from then on no silence.
    pair.pass(2 * QUIET_MAX);
    for _ in 0..720 {
        pair.pass(Duration::from_secs(10));
        let sent = pair.site.peer_sends(peer, b"tick");
        assert_eq!(sent.to_clients.len(), 1);
        pair.deliver(sent);
    }
    assert!(
        !pair
            .events
            .iter()
            .any(|event| matches!(event, ClientEvent::Lost(_)))
    );
}

#[test]
fn a_server_that_is_gone_is_noticed_within_seconds() {
    let mut pair = Pair::new();
    pair.pass(Duration::from_secs(1));
    pair.events.clear();
    pair.deaf = true;
    pair.pass(QUIET_MAX + Duration::from_secs(4));
    assert_eq!(pair.events, [ClientEvent::Lost(Loss::Silent)]);
    assert_eq!(pair.client.next_timeout(), None);

    let mut pair = Pair::new();
    pair.pass(Duration::from_secs(1));
    pair.tell(ClientInput::Permit(address(PEER).ip()));
    pair.pass(Duration::from_secs(1));
    pair.events.clear();
    pair.deaf = true;
    let peer = address(PEER);
    pair.tell(ClientInput::Send { peer, octets: b"" });
    pair.pass(Duration::from_secs(6));
    assert_eq!(pair.events, [ClientEvent::Lost(Loss::Silent)]);

    let mut pair = Pair::new();
    pair.deaf = true;
    pair.pass(Duration::from_secs(30));
    assert_eq!(pair.events, [ClientEvent::Lost(Loss::Silent)]);

    // In a stream TCP repeats, and a lost packet holds up all that is behind it.
    let mut pair = Pair::by(Leg::Tcp);
    pair.pass(Duration::from_secs(1));
    pair.events.clear();
    pair.deaf = true;
    pair.pass(QUIET_MAX + Duration::from_secs(6));
    assert_eq!(pair.events, []);
    pair.pass(Duration::from_secs(3));
    assert_eq!(pair.events, [ClientEvent::Lost(Loss::Silent)]);
}

#[test]
fn a_server_that_forgot_is_noticed() {
    let mut pair = Pair::new();
    pair.pass(Duration::from_secs(1));
    pair.events.clear();
    let now = pair.site.now;
    pair.site = Site::new(Limits::default());
    pair.site.now = now;
    pair.pass(QUIET_MAX + Duration::from_secs(4));
    assert_eq!(pair.events, [ClientEvent::Lost(Loss::Forgotten)]);
}

#[test]
fn nothing_is_remembered_of_strangers() {
    let mut site = Site::new(Limits::default());
    for port in 1000..3000_u16 {
        let mut hand = Hand::with_password(&format!("198.51.100.7:{port}"), "a guess");
        if port % 2 == 0 {
            site.client_sends(hand.source, &hand.request(ALLOCATE, &[]));
        } else if port < 1100 {
            assert_eq!(hand.allocate(&mut site), Some(401));
        }
        assert_eq!(site.server.next_timeout(), None);
    }
    assert!(site.server.counters().throttled_messages > 0);
    assert_eq!(site.server.relayed_addresses(), 0);
}

#[test]
fn a_flood_of_strangers_ends_no_allocation() {
    let mut site = Site::new(Limits::default());
    let mut hand = Hand::new(CLIENT);
    assert_eq!(hand.allocate(&mut site), None);
    for number in 0..20_000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let stranger = Hand::new(&format!("203.0.{high}.{low}:1"));
        site.client_sends(stranger.source, &stranger.request(ALLOCATE, &[]));
    }
    let throttled = site.server.counters().throttled_messages;
    assert!(throttled > 10_000, "{throttled}");
    assert_eq!(hand.say(&mut site, REFRESH, &[]), None);
    for _ in 0..1000 {
        site.client_sends(hand.source, &hand.request(REFRESH, &[]));
    }
    let of_client = site.server.counters().throttled_messages - throttled;
    assert!(of_client > 700, "a client has a rate too: {of_client}");
}

#[test]
fn the_nonce_of_another_address_is_of_no_use() {
    let mut site = Site::new(Limits::default());
    let mut hand = Hand::new(CLIENT);
    let sent = site.client_sends(hand.source, &hand.request(ALLOCATE, &[]));
    hand.learn(&sent.to_clients[0].1);
    let signed = hand.request(ALLOCATE, &[]);
    let thief = address("198.51.100.8:4000");
    let code = |sent: pair::Sent| {
        let answer = Message::from_bytes(&sent.to_clients[0].1).unwrap();
        assert!(answer.attribute::<ErrorCode>().is_ok());
        answer.attribute::<ErrorCode>().unwrap().code()
    };
    assert_eq!(code(site.client_sends(thief, &signed)), 438);
    assert_eq!(site.server.next_timeout(), None);
    site.pass(Duration::from_secs(120));
    assert_eq!(code(site.client_sends(hand.source, &signed)), 438);
    assert_eq!(site.server.next_timeout(), None, "it was too old");
}

#[test]
fn an_allocation_ends() {
    let mut site = Site::new(Limits::default());
    let mut hand = Hand::new(CLIENT);
    assert_eq!(hand.allocate(&mut site), None);
    assert_eq!(site.open.len(), 1);
    site.pass(Duration::from_secs(599));
    assert_eq!(site.open.len(), 1);
    assert_eq!(
        hand.say(&mut site, REFRESH, &[&Lifetime::new(86_400)]),
        None
    );
    site.pass(Duration::from_secs(3599));
    assert_eq!(site.open.len(), 1);
    site.pass(Duration::from_secs(40));
    assert!(site.open.is_empty(), "an hour is the most");
    assert_eq!(site.server.next_timeout(), None);
}

#[test]
fn a_repeated_allocate_gets_the_same_answer() {
    let mut site = Site::new(Limits::default());
    let mut hand = Hand::new(CLIENT);
    let udp = RequestedTransport::new(RequestedTransport::UDP);
    let last = std::cell::RefCell::new(Vec::new());
    let (code, answer) = hand.ask(&mut site, ALLOCATE, |hand| {
        let request = hand.request(ALLOCATE, &[&udp]);
        last.replace(request.clone());
        request
    });
    assert_eq!(code, None);
    let again = site.client_sends(hand.source, &last.borrow());
    assert_eq!(again.to_clients, [(hand.source, answer)]);
    assert_eq!(hand.allocate(&mut site), Some(437), "another is too much");
    assert_eq!(site.open.len(), 1);
}

#[test]
fn there_are_only_so_many_allocations() {
    let mut limits = Limits {
        allocations_per_user_max: 3,
        allocations_per_source_max: 2,
        ..Limits::default()
    };
    let mut site = Site::new(limits);
    let mut ask = |source: &str| Hand::new(source).allocate(&mut site);
    assert_eq!(ask("198.51.100.1:1"), None);
    assert_eq!(ask("198.51.100.1:2"), None);
    assert_eq!(ask("198.51.100.1:3"), Some(486));
    assert_eq!(ask("198.51.100.2:1"), None);
    assert_eq!(ask("198.51.100.3:1"), Some(486));
    assert_eq!(site.server.counters().refused_allocations, 2);

    limits.allocations_max = 1;
    let mut site = Site::new(limits);
    assert_eq!(Hand::new("198.51.100.1:1").allocate(&mut site), None);
    assert_eq!(Hand::new("198.51.100.2:1").allocate(&mut site), Some(508));
    site.pass(HOUR);
    assert_eq!(Hand::new("198.51.100.2:1").allocate(&mut site), None);
}

#[test]
fn a_host_without_sockets_says_so() {
    let mut site = Site::new(Limits::default());
    site.exhausted = true;
    assert_eq!(Hand::new(CLIENT).allocate(&mut site), Some(508));
    site.pass(HOUR);
    assert_eq!(site.server.next_timeout(), None);
}

#[test]
fn peers_of_the_site_are_refused_and_others_need_permission() {
    let mut site = Site::new(Limits::default());
    let mut hand = Hand::new(CLIENT);
    assert_eq!(permit(&mut hand, &mut site, PEER), Some(437));
    assert_eq!(hand.allocate(&mut site), None);
    for peer in ["10.0.0.1:80", "127.0.0.1:80", "169.254.169.254:80"] {
        assert_eq!(permit(&mut hand, &mut site, peer), Some(403), "{peer}");
        assert_eq!(bind(&mut hand, &mut site, peer, 0x4000), Some(403));
        let sent = site.client_sends(hand.source, &send(peer, b"x"));
        assert!(sent.to_peers.is_empty());
    }
    assert_eq!(site.server.counters().denied_messages, 6);
    let sent = site.client_sends(hand.source, &send(PEER, b"too early"));
    assert!(sent.to_peers.is_empty());
    let sent = site.peer_sends(address(PEER), b"too early");
    assert!(sent.to_clients.is_empty());

    assert_eq!(permit(&mut hand, &mut site, PEER), None);
    let sent = site.client_sends(hand.source, &send(PEER, b"now"));
    assert_eq!(sent.to_peers[0].1, address(PEER));
    assert_eq!(sent.to_peers[0].2, b"now");
    let sent = site.peer_sends(address("9.9.9.9:1"), b"any port");
    assert_eq!(sent.to_clients.len(), 1);
    let sent = site.peer_sends(address("9.9.9.8:99"), b"another");
    assert!(sent.to_clients.is_empty());

    site.pass(Duration::from_secs(301));
    let sent = site.client_sends(hand.source, &send(PEER, b"too late"));
    assert!(sent.to_peers.is_empty(), "a permission lasts five minutes");
}

#[test]
fn what_is_not_allowed_any_more_is_not_sent() {
    let mut site = Site::new(Limits::default());
    let mut hand = Hand::new(CLIENT);
    assert_eq!(hand.allocate(&mut site), None);
    assert_eq!(permit(&mut hand, &mut site, PEER), None);
    let mut policy = config(Limits::default()).policy;
    policy.own.push(address(PEER).ip().into());
    site.server.set_policy(policy);
    let sent = site.client_sends(hand.source, &send(PEER, b"x"));
    assert!(sent.to_peers.is_empty());
    assert!(site.peer_sends(address(PEER), b"x").to_clients.is_empty());
}

#[test]
fn an_allocation_has_only_so_many_peers() {
    let limits = Limits {
        peers_max: 2,
        ..Limits::default()
    };
    let mut site = Site::new(limits);
    let mut hand = Hand::new(CLIENT);
    assert_eq!(hand.allocate(&mut site), None);
    assert_eq!(permit(&mut hand, &mut site, "9.9.9.1:1"), None);
    assert_eq!(permit(&mut hand, &mut site, "9.9.9.2:1"), None);
    assert_eq!(permit(&mut hand, &mut site, "9.9.9.3:1"), Some(508));
    assert_eq!(permit(&mut hand, &mut site, "9.9.9.2:1"), None, "renewed");
    assert_eq!(bind(&mut hand, &mut site, "9.9.9.1:1", 0x4001), None);
    assert_eq!(bind(&mut hand, &mut site, "9.9.9.2:1", 0x4001), Some(400));
    assert_eq!(bind(&mut hand, &mut site, "9.9.9.1:2", 0x4002), None);
    assert_eq!(bind(&mut hand, &mut site, "9.9.9.1:3", 0x4003), Some(508));
    site.pass(Duration::from_secs(301));
    assert_eq!(permit(&mut hand, &mut site, "9.9.9.3:1"), None);
    assert_eq!(site.server.counters().crowded_messages, 2);
    let sent = site.client_sends(hand.source, &channel(0x4001, b"late"));
    assert!(sent.to_peers.is_empty(), "a channel needs a permission too");
}

#[test]
fn budgets_hold_both_ways() {
    let each = Rate {
        per_s: 100,
        burst: 1000,
    };
    let limits = Limits {
        octets_each: each,
        ..Limits::default()
    };
    let mut site = Site::new(limits);
    let mut hand = Hand::new(CLIENT);
    assert_eq!(hand.allocate(&mut site), None);
    assert_eq!(bind(&mut hand, &mut site, PEER, 0x4000), None);
    let octets = [1; 400];
    let sent = |site: &mut Site| {
        let sent = site.client_sends(address(CLIENT), &channel(0x4000, &octets));
        sent.to_peers.len()
    };
    assert_eq!(sent(&mut site), 1);
    assert_eq!(site.peer_sends(address(PEER), &octets).to_clients.len(), 1);
    assert_eq!(sent(&mut site), 0);
    assert_eq!(site.peer_sends(address(PEER), &octets).to_clients.len(), 0);
    let counters = site.server.counters();
    assert_eq!(counters.dropped_octets, 800);
    assert_eq!(
        (counters.to_peers_octets, counters.to_clients_octets),
        (400, 400)
    );
    site.pass(Duration::from_secs(3));
    assert_eq!(sent(&mut site), 1);
}

#[test]
fn what_the_server_does_not_have_is_refused() {
    let mut site = Site::new(Limits::default());
    let mut hand = Hand::new(CLIENT);
    let udp = RequestedTransport::new(RequestedTransport::UDP);
    let mut ask = |more: &dyn AttributeWrite| hand.say(&mut site, ALLOCATE, &[&udp, more]);
    assert_eq!(ask(&DontFragment::new()), Some(420));
    assert_eq!(ask(&EvenPort::new(true)), Some(508));
    assert_eq!(ask(&EvenPort::new(false)), None);
    let mut hand = Hand::new("198.51.100.8:1");
    let tcp = RequestedTransport::new(RequestedTransport::TCP);
    assert_eq!(hand.say(&mut site, ALLOCATE, &[&tcp]), Some(400));
}

#[test]
fn of_two_families_the_one_that_can_be_had_is_given() {
    let mut site = Site::new(Limits::default());
    let mut hand = Hand::new(CLIENT);
    let udp = RequestedTransport::new(RequestedTransport::UDP);
    let both = AdditionalAddressFamily::new(AddressFamily::IPV6);
    let make = |hand: &Hand| hand.request(ALLOCATE, &[&udp, &both]);
    let (code, answer) = hand.ask(&mut site, ALLOCATE, make);
    assert_eq!(code, None);
    let answer = Message::from_bytes(&answer).unwrap();
    let relayed = answer.attribute::<XorRelayedAddress>().unwrap();
    let relayed = relayed.addr(answer.transaction_id());
    assert_eq!(site.open.iter().collect::<Vec<_>>(), [&relayed]);
    let error = answer.attribute::<AddressErrorCode>().unwrap();
    assert_eq!(error.family(), AddressFamily::IPV6);
    assert_eq!(permit(&mut hand, &mut site, PEER), None);
    site.pass(HOUR);
    assert!(site.open.is_empty());
}

#[test]
fn both_families_carry_data() {
    let mut config = config(Limits::default());
    config.families.push(Family::V6);
    let mut site = Site::with(config);
    let mut hand = Hand::new(CLIENT);
    let udp = RequestedTransport::new(RequestedTransport::UDP);
    let both = AdditionalAddressFamily::new(AddressFamily::IPV6);
    let make = |hand: &Hand| hand.request(ALLOCATE, &[&udp, &both]);
    assert_eq!(hand.ask(&mut site, ALLOCATE, make).0, None);
    assert_eq!(site.open.len(), 2);
    for (peer, inside) in [(PEER, "10.0.0.1:1"), ("[2a00::1]:1", "[::ffff:10.0.0.1]:1")] {
        assert_eq!(permit(&mut hand, &mut site, inside), Some(403));
        assert_eq!(permit(&mut hand, &mut site, peer), None);
        let sent = site.client_sends(hand.source, &send(peer, b"x"));
        let (relayed, to, _) = &sent.to_peers[0];
        assert_eq!(relayed.is_ipv4(), to.is_ipv4());
    }
    assert_eq!(hand.say(&mut site, REFRESH, &[&Lifetime::new(0)]), None);
    assert!(site.open.is_empty());
}

#[test]
fn a_socket_that_comes_too_late_is_closed() {
    let mut server = Server::new(config(Limits::default()), [7; 32]);
    let mut hand = Hand::new(CLIENT);
    let mut now = Time::from_secs(1);
    let udp = RequestedTransport::new(RequestedTransport::UDP);
    let opening = loop {
        let datagram = hand.request(ALLOCATE, &[&udp]);
        let source = hand.source;
        let actions = server.handle(
            now,
            Input::FromClient {
                source,
                datagram: &datagram,
            },
        );
        match actions.collect::<Vec<_>>().remove(0) {
            Action::ToClient { datagram, .. } => hand.learn(&datagram),
            Action::Open(opening) => break opening,
            other => panic!("{other:?}"),
        }
    };
    while let Some(due) = server.next_timeout() {
        now = due;
        assert_eq!(server.handle(now, Input::Timeout).count(), 0);
    }
    let relayed = address("192.0.2.1:50000");
    let input = Input::Opened {
        opening,
        relayed: Some(relayed),
    };
    let actions: Vec<_> = server.handle(now, input).collect();
    assert_eq!(actions, [Action::Close(relayed)]);
}
