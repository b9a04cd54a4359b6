//! Members that send what they may not, and programs that send too much.

use std::net::UdpSocket;

use enishi_dataplane::sealed::{Kind, OVERHEAD_BYTES, Sealer};

use super::*;

/// Makes a UDP packet from an address of the network to another, without a checksum of UDP.
fn udp(from: [u8; 4], to: SocketAddr, content: &[u8]) -> Vec<u8> {
    let SocketAddr::V4(to) = to else {
        unreachable!()
    };
    let udp_bytes = (8 + content.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend((20 + udp_bytes).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, protocol::UDP, 0, 0]);
    packet.extend(from);
    packet.extend(to.ip().octets());
    let words = packet
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    for field in [9, to.port(), udp_bytes, 0] {
        packet.extend(field.to_be_bytes());
    }
    packet.extend(content);
    packet
}

#[test]
fn a_member_sends_from_its_own_address_alone() {
    need_root!();
    let (_lab, left, right) = ends();
    // The test is the left member, and there is a third one.
    right.attach(&left, 0, true, false);
    right.engine.inbox().tell(Command::Attach {
        network: NETWORK,
        peer: [3; 32],
        addresses: vec![address(3)],
        filter: None,
        keys: SessionKeys {
            cipher: Cipher::Aes256Gcm,
            send: key(2, 1),
            receive: key(3, 1),
            send_index: index(3, 1),
            receive_index: index(2, 1),
            peer_has_them: true,
            renew_after: Duration::from_secs(120),
        },
        candidates: Vec::new(),
    });
    let there = SocketAddr::new(right.host.address().into(), right.engine.port());
    let socket = within(&left, || UdpSocket::bind("0.0.0.0:0").unwrap());
    let program = within(&right, || UdpSocket::bind("10.77.0.2:0").unwrap());
    program.set_read_timeout(Some(LIMIT)).unwrap();
    let to = program.local_addr().unwrap();
    let mut sealer = Sealer::new(Cipher::Aes256Gcm, &key(1, 0), index(2, 0));
    let mut send = |kind, content: &[u8]| {
        let mut datagram = vec![0; content.len() + OVERHEAD_BYTES];
        sealer.seal(kind, content, &mut datagram).unwrap();
        socket.send_to(&datagram, there).unwrap();
    };
    let counters = || {
        let sessions = right.report().sessions;
        let session = sessions.iter().find(|session| session.peer == [1; 32]);
        session.unwrap().counters
    };
    let is_refused = |so_many| {
        until("the packet is refused", || counters().refused == so_many);
    };
    // Another member's, the receiver's own, nobody's, and one of another network.
    let forged = [
        [10, 77, 0, 3],
        [10, 77, 0, 2],
        [10, 77, 0, 9],
        [192, 0, 2, 1],
    ];
    let mut refused = 0;
    for from in forged {
        let packet = udp(from, to, b"forged");
        for kind in [Kind::Packet, Kind::PartialPacket] {
            send(kind, &packet);
            refused += 1;
            is_refused(refused);
        }
        let (first, second) = packet.split_at(packet.len() / 2);
        send(Kind::FirstHalf, &[&[0, refused as u8], first].concat());
        send(Kind::SecondHalf, &[&[0, refused as u8], second].concat());
        refused += 1;
        is_refused(refused);
    }
    // From its own address, but for somebody else.
    let elsewhere = SocketAddr::new(address(9), to.port());
    send(Kind::Packet, &udp([10, 77, 0, 1], elsewhere, b"astray"));
    is_refused(refused + 1);
    assert_eq!(counters().received_packets, 0);
    assert_eq!(right.report().refused, refused + 1);

    send(Kind::Packet, &udp([10, 77, 0, 1], to, b"own"));
    let mut buffer = [0; 16];
    let (bytes, from) = program.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..bytes], from.ip()), (&b"own"[..], address(1)));
    assert_eq!(counters().received_packets, 1);
}

#[test]
fn a_storm_of_broadcasts_is_bounded_and_counted() {
    const SENT: usize = 5000;
    need_root!();
    let (_lab, left, _right) = ends();
    let begin = Instant::now();
    let send = format!(
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
         s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)\n\
         for _ in range({SENT}): s.sendto(b'storm', ('10.77.0.255', 9))"
    );
    let told = left.host.run(&["python3", "-c", &send], LIMIT).unwrap();
    assert!(told.success(), "{told:?}");
    // What is heard after a packet of later has been read is all.
    let later = Note::Missing {
        network: NETWORK,
        address: address(9),
    };
    let mut spread = 0;
    until("all packets were read", || {
        left.ping(&["-c", "1", "-W", "1", "10.77.0.9"]);
        let notes = left.notes.lock().unwrap();
        let mut all_read = false;
        for note in notes.try_iter() {
            let is_storm = |packet: &Bytes| packet.ends_with(b"storm");
            spread += usize::from(matches!(&note, Note::Many { packet, .. } if is_storm(packet)));
            all_read |= note == later;
        }
        all_read
    });
    // 200 at once and 60 a second.
    let most = 200.0 + 60.0 * begin.elapsed().as_secs_f64();
    let dropped = left.report().storm_packets as usize;
    assert!(spread >= 200 && spread as f64 <= most, "{spread} of {most}");
    // The kernel's queue may have dropped some before.
    assert!(dropped > 0 && spread + dropped <= SENT, "{dropped}");
    assert_eq!(left.report().refused, 0);
}

/// A host that answers whoever asks it, and is told of nothing else.
struct Answering;

impl Outside for Answering {
    fn note(&mut self, _: Note) {}

    fn lane_bytes_max(&mut self, _: &PeerKey) -> Option<usize> {
        None
    }

    fn send_by_lane(&mut self, _: &PeerKey, _: &[Bytes]) {}

    fn foreign(&mut self, from: SocketAddr, datagram: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        // What would be taken for a sealed datagram is not sent.
        let answer = if datagram.ends_with(b"seal") {
            "\u{c0}"
        } else {
            "2 it is "
        };
        let answer = [answer.as_bytes(), from.to_string().as_bytes()].concat();
        Some((from, answer))
    }
}

#[test]
fn questions_of_strangers_reach_the_host_and_are_answered_by_the_same_port() {
    let engine = Engine::start(0, Answering).unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.set_read_timeout(Some(LIMIT)).unwrap();
    let there = SocketAddr::from(([127, 0, 0, 1], engine.port()));
    stranger.send_to(&[0x2f; 40], there).unwrap();
    stranger.send_to(b"1 answer me with a seal", there).unwrap();
    stranger.send_to(b"1 who am I?", there).unwrap();
    let mut buffer = [0; 100];
    let (bytes, by) = stranger.recv_from(&mut buffer).unwrap();
    let expected = format!("2 it is {}", stranger.local_addr().unwrap());
    assert_eq!((&buffer[..bytes], by), (expected.as_bytes(), there));
    let (to, report) = mpsc::sync_channel(1);
    engine.inbox().tell(Command::Report(to));
    assert_eq!(report.recv_timeout(LIMIT).unwrap().refused, 1);
}
