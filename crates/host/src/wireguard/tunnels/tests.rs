use std::net::{Ipv4Addr, Ipv6Addr};

use enishi_services::keys::Secret;

use super::*;

const CHANNEL: ChannelId = ChannelId(1);
const ADDRESS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, 9)),
    IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 9)),
];
/// The node's.
const OWN: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1)),
];
const PRESHARED: [u8; 32] = [9; 32];

/// The node's tunnels, and one client.
struct Pair {
    node: Tunnels,
    phone: Tunn,
}

/// A client's end, with a secret key of this octet.
fn phone(node: &Tunnels, key: u8, preshared: [u8; 32]) -> Tunn {
    let key = StaticSecret::from([key; 32]);
    let node = PublicKey::from(node.public_key());
    Tunn::new(key, node, Some(preshared), None, 7, None)
}

fn client(name: &str, key: u8) -> Client {
    Client {
        channel: "office".to_owned(),
        name: name.to_owned(),
        public_key: *PublicKey::from(&StaticSecret::from([key; 32])).as_bytes(),
        preshared_key: Secret::new(PRESHARED),
        address: Ipv4Addr::new(10, 77, 0, 9),
    }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), port)
}

/// An IPv4 packet without payload.
fn packet(from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(from);
    packet.extend(to);
    packet
}

fn outgoing(result: TunnResult<'_>) -> Option<Vec<u8>> {
    match result {
        TunnResult::WriteToNetwork(datagram) => Some(datagram.to_vec()),
        _ => None,
    }
}

/// A client begins a handshake.
fn begin(phone: &mut Tunn) -> Vec<u8> {
    outgoing(phone.format_handshake_initiation(&mut [0; 2048], true)).unwrap()
}

impl Pair {
    fn new() -> Self {
        let mut node = Tunnels::new(&[1; 32]);
        node.set(vec![(client("phone", 2), CHANNEL, ADDRESS)]);
        node.set_own(CHANNEL, OWN);
        let phone = phone(&node, 2, PRESHARED);
        Self { node, phone }
    }

    fn receive(&mut self, from: SocketAddr, datagram: &[u8]) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.node.receive(from, datagram, &mut outputs);
        outputs
    }

    /// The client seals a packet; none when it has no keys for it.
    fn seal(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        outgoing(self.phone.encapsulate(packet, &mut [0; 2048]))
    }

    /// Carries a handshake out, from this port; false when the node does not answer.
    fn shake_hands(&mut self, port: u16) -> bool {
        let asked = begin(&mut self.phone);
        let answers = self.receive(at(port), &asked);
        let [Output::Datagram(to, answer)] = &answers[..] else {
            return false;
        };
        assert_eq!(*to, at(port));
        let alive = outgoing(self.phone.decapsulate(None, answer, &mut [0; 2048]));
        assert_eq!(self.receive(at(port), &alive.unwrap()), []);
        true
    }
}

#[test]
fn packets_pass_both_ways_once_hands_are_shaken() {
    let mut pair = Pair::new();
    let mut outputs = Vec::new();
    let there = packet([10, 77, 0, 1], [10, 77, 0, 9]);
    pair.node.send(CHANNEL, &there, &mut outputs);
    assert_eq!(outputs, [], "it was never heard from");
    assert!(pair.shake_hands(1000));
    let back = packet([10, 77, 0, 9], [10, 77, 0, 1]);
    let datagram = pair.seal(&back).unwrap();
    let taken = pair.receive(at(1000), &datagram);
    assert_eq!(taken, [Output::Packet(CHANNEL, back)]);
    assert_eq!(pair.receive(at(1000), &datagram), [], "a second time");
    pair.node.send(ChannelId(2), &there, &mut outputs);
    assert_eq!(outputs, [], "another channel's");
    pair.node.send(CHANNEL, &there, &mut outputs);
    let [Output::Datagram(_, datagram)] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    let mut room = [0; 2048];
    let opened = pair.phone.decapsulate(None, datagram, &mut room);
    assert!(matches!(opened, TunnResult::WriteToTunnelV4(packet, _) if *packet == there[..]));
    let traffic = pair.node.traffic(&client("phone", 2).public_key).unwrap();
    assert_eq!((traffic.sent_bytes, traffic.received_bytes), (20, 20));
    assert!(traffic.handshake.is_some() && traffic.endpoint == Some(at(1000)));
}

#[test]
fn the_node_is_a_hop_between_a_client_and_a_member() {
    let mut pair = Pair::new();
    assert!(pair.shake_hands(1000));
    let (phone, member) = ([10, 77, 0, 9], [10, 77, 0, 7]);
    let with = |from, to, left: u8| {
        let mut packet = packet(from, to);
        packet[8] = left;
        packet
    };
    let is_told = |packet: &[u8]| {
        let parsed = IpPacket::parse(packet).unwrap();
        parsed.source() == OWN[0] && parsed.payload()[..2] == [11, 0]
    };
    let datagram = pair.seal(&with(phone, member, 2)).unwrap();
    let [Output::Packet(_, passed)] = &pair.receive(at(1000), &datagram)[..] else {
        panic!("it was to go on");
    };
    assert_eq!(passed[8], 1);
    let datagram = pair.seal(&with(phone, member, 1)).unwrap();
    let [Output::Datagram(_, told)] = &pair.receive(at(1000), &datagram)[..] else {
        panic!("the client was to be told");
    };
    let mut room = [0; 2048];
    let opened = pair.phone.decapsulate(None, told, &mut room);
    assert!(matches!(opened, TunnResult::WriteToTunnelV4(packet, _) if is_told(packet)));
    let mut outputs = Vec::new();
    pair.node
        .send(CHANNEL, &with(member, phone, 1), &mut outputs);
    assert!(matches!(&outputs[..], [Output::Packet(_, packet)] if is_told(packet)));
}

#[test]
fn a_client_sends_from_its_own_addresses_only() {
    let mut pair = Pair::new();
    assert!(pair.shake_hands(1000));
    let stolen = packet([10, 77, 0, 8], [10, 77, 0, 1]);
    let datagram = pair.seal(&stolen).unwrap();
    assert_eq!(pair.receive(at(1000), &datagram), []);
    assert_eq!(pair.node.refused(), 1);
}

#[test]
fn a_client_that_moves_is_answered_where_it_is() {
    let mut pair = Pair::new();
    assert!(pair.shake_hands(1000));
    let datagram = pair.seal(&packet([10, 77, 0, 9], [10, 77, 0, 1])).unwrap();
    assert_eq!(pair.receive(at(2000), &datagram).len(), 1);
    let mut outputs = Vec::new();
    let there = packet([10, 77, 0, 1], [10, 77, 0, 9]);
    pair.node.send(CHANNEL, &there, &mut outputs);
    assert!(matches!(outputs[..], [Output::Datagram(to, _)] if to == at(2000)));
}

#[test]
fn who_is_no_client_gets_no_answer() {
    let mut pair = Pair::new();
    pair.phone = phone(&pair.node, 3, PRESHARED);
    assert!(!pair.shake_hands(1000), "another key");
    // The preshared key counts from the answer on: it comes, and is of no use.
    pair.phone = phone(&pair.node, 2, [8; 32]);
    let asked = begin(&mut pair.phone);
    let answers = pair.receive(at(1000), &asked);
    let [Output::Datagram(_, answer)] = &answers[..] else {
        panic!("{answers:?}");
    };
    let read = outgoing(pair.phone.decapsulate(None, answer, &mut [0; 2048]));
    assert_eq!(read, None, "another preshared key");
    let mut pair = Pair::new();
    assert!(pair.shake_hands(1000));
    let datagram = pair.seal(&packet([10, 77, 0, 9], [10, 77, 0, 1])).unwrap();
    pair.node.set(Vec::new());
    assert_eq!(pair.receive(at(1000), &datagram), [], "removed");
    assert!(!pair.shake_hands(1000), "removed");
}

#[test]
fn clients_that_stay_keep_their_tunnels() {
    let mut pair = Pair::new();
    assert!(pair.shake_hands(1000));
    let mut other = client("tablet", 4);
    other.address = Ipv4Addr::new(10, 77, 0, 10);
    let addresses = [other.address.into(), ADDRESS[1]];
    pair.node.set(vec![
        (client("phone", 2), CHANNEL, ADDRESS),
        (other, CHANNEL, addresses),
    ]);
    let datagram = pair.seal(&packet([10, 77, 0, 9], [10, 77, 0, 1])).unwrap();
    assert_eq!(pair.receive(at(1000), &datagram).len(), 1);
}

#[test]
fn under_a_flood_of_handshakes_the_asker_must_show_where_it_is() {
    let mut pair = Pair::new();
    let mut answers = BTreeMap::new();
    for _ in 0..HANDSHAKES_PER_S {
        pair.phone = phone(&pair.node, 3, PRESHARED);
        let asked = begin(&mut pair.phone);
        let answer = pair.receive(at(1000), &asked);
        *answers.entry(answer.len()).or_insert(0) += 1;
    }
    assert_eq!(answers, BTreeMap::from([(0, HANDSHAKES_PER_S)]));
    let asked = begin(&mut pair.phone);
    let answer = pair.receive(at(1000), &asked);
    let [Output::Datagram(_, cookie)] = &answer[..] else {
        panic!("{answer:?}");
    };
    assert!(cookie.len() < asked.len(), "nothing is amplified");
}

#[test]
fn what_is_no_datagram_of_wireguard_does_nothing() {
    let mut pair = Pair::new();
    assert!(pair.shake_hands(1000));
    let asked = begin(&mut pair.phone);
    let sealed = pair.seal(&packet([10, 77, 0, 9], [10, 77, 0, 1])).unwrap();
    // The cookie's place at a handshake's end is looked at under load only.
    let covered = [asked.len() - 16, sealed.len()];
    for (genuine, covered) in [asked, sealed].into_iter().zip(covered) {
        for length in 0..genuine.len() {
            assert_eq!(pair.receive(at(1), &genuine[..length]), []);
        }
        for place in 0..covered {
            let mut broken = genuine.clone();
            broken[place] ^= 0x55;
            assert_eq!(pair.receive(at(1), &broken), [], "octet {place}");
        }
    }
}
