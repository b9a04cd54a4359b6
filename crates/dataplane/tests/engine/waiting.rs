//! Packets that come before their time: none of them is lost.

use std::net::UdpSocket;

use enishi_dataplane::sealed::{Kind, OVERHEAD_BYTES, Sealer};

use super::*;

/// Sends one echo request in the background.
fn ping_once(end: &End, there: &'static str) -> thread::JoinHandle<String> {
    let host = end.host.clone();
    let words = ["ping", "-n", "-q", "-c", "1", "-W", "5", there];
    thread::spawn(move || host.run(&words, LIMIT).unwrap().stdout)
}

fn hear(end: &End, note: &Note) {
    until(&format!("{note:?}"), || {
        let notes = end.notes.lock().unwrap();
        notes.try_iter().any(|heard| heard == *note)
    });
}

#[test]
fn a_packet_that_nothing_follows_is_asked_for_until_the_host_hears() {
    need_root!();
    let (_lab, left, right) = ends();
    let missing = Note::Missing {
        network: NETWORK,
        address: address(2),
    };
    let pinging = ping_once(&left, "10.77.0.2");
    // The first time the host is too busy.
    hear(&left, &missing);
    hear(&left, &missing);
    agree(&left, &right);
    assert_eq!(received(&pinging.join().unwrap()), 1);
}

#[test]
fn packets_wait_for_the_keys_also_those_to_networks_behind_a_member() {
    need_root!();
    let (_lab, left, right) = ends();
    let lan = Network::new([192, 168, 7, 0].into(), 24);
    let via = address(2);
    for (end, line, gateways, behind) in [
        (
            &left,
            "ip route add 192.168.7.0/24 dev enishi0",
            vec![Gateway { network: lan, via }],
            vec![],
        ),
        (
            &right,
            "ip address add 192.168.7.1/24 dev lo",
            vec![],
            vec![lan],
        ),
    ] {
        assert!(end.host.run(&["sh", "-ec", line], LIMIT).unwrap().success());
        end.engine.inbox().tell(Command::Beyond {
            network: NETWORK,
            gateways,
            behind,
        });
    }
    // The left end was asked, and the right one has not shown yet that it has the keys.
    left.attach(&right, 0, false, true);
    let pinging = [
        ping_once(&left, "10.77.0.2"),
        ping_once(&left, "192.168.7.1"),
    ];
    // Told when the keys are missed for some time: both packets wait.
    hear(
        &left,
        &Note::KeysWanted {
            network: NETWORK,
            peer: [2; 32],
        },
    );
    right.attach(&left, 0, true, true);
    for pinging in pinging {
        assert_eq!(received(&pinging.join().unwrap()), 1);
    }
}

#[test]
fn the_answer_to_a_packet_that_waited_passes_the_filter() {
    need_root!();
    let (_lab, left, right) = ends();
    let pinging = ping_once(&left, "10.77.0.2");
    let missing = Note::Missing {
        network: NETWORK,
        address: address(2),
    };
    hear(&left, &missing);
    // The left end may begin anything, the right one nothing.
    let everything = Permit {
        network: None,
        ports: None,
    };
    left.set_lane(&right, true);
    right.attach(&left, 0, false, true);
    right.report();
    let filter = Some(Filter::new(vec![], vec![everything]));
    left.attach_with(&right, 0, true, true, filter);
    assert_eq!(received(&pinging.join().unwrap()), 1);
    let told = right.ping(&["-c", "1", "-W", "1", "10.77.0.1"]);
    assert_eq!(received(&told), 0, "{told}");
}

#[test]
fn packets_go_on_after_the_session_that_agreed_on_them_has_ended() {
    need_root!();
    let (_lab, left, right) = ends();
    agree(&left, &right);
    until_direct(&left, &right);
    for (end, peer) in [(&left, [2; 32]), (&right, [1; 32])] {
        end.engine.inbox().tell(Command::Lapse {
            network: NETWORK,
            peer,
            may_hear: true,
        });
        // There is no session whose lane could be used.
        end.set_lane(end, false);
    }
    let told = left.ping(&["-c", "5", "-i", "0.2", "-W", "1", "10.77.0.2"]);
    assert_eq!(received(&told), 5, "{told}");
    // Meanwhile another agreement is wanted.
    for (end, other) in [(&left, 2), (&right, 1)] {
        hear(
            end,
            &Note::Missing {
                network: NETWORK,
                address: address(other),
            },
        );
    }
    // Without one it is over.
    until("the sessions are forgotten", || {
        left.report().sessions.is_empty() && right.report().sessions.is_empty()
    });
}

#[test]
fn who_does_not_know_that_the_agreement_lapsed_is_heard_and_answered() {
    need_root!();
    let (_lab, left, right) = ends();
    agree(&left, &right);
    until_direct(&left, &right);
    let peer = [2; 32];
    let network = NETWORK;
    let lapse = Command::Lapse {
        network,
        peer,
        may_hear: false,
    };
    left.engine.inbox().tell(lapse);
    left.report();
    let pinging = ping_once(&right, "10.77.0.1");
    // The answer waits for another agreement.
    hear(
        &left,
        &Note::Missing {
            network,
            address: address(2),
        },
    );
    right.attach(&left, 1, false, true);
    right.report();
    left.attach(&right, 1, true, true);
    assert_eq!(received(&pinging.join().unwrap()), 1);
    // Who is detached after it is not heard any more.
    let may_hear = true;
    let lapse = Command::Lapse {
        network,
        peer,
        may_hear,
    };
    left.engine.inbox().tell(lapse);
    left.engine.inbox().tell(Command::Detach { network, peer });
    assert!(left.report().sessions.is_empty());
}

#[test]
fn what_follows_from_a_command_is_received_after_it() {
    need_root!();
    let (_lab, left, right) = ends();
    let there = SocketAddr::new(right.host.address().into(), right.engine.port());
    let socket = within(&left, || UdpSocket::bind("0.0.0.0:0").unwrap());
    // The right end's thread is held up by its host, and has something to receive.
    let busy = right.lane.lock().unwrap();
    let pinging = ping_once(&right, "10.77.0.9");
    hear(
        &right,
        &Note::Missing {
            network: NETWORK,
            address: address(9),
        },
    );
    socket.send_to(&[], there).unwrap();
    thread::sleep(Duration::from_millis(50));
    // Then it is told of keys, and the peer, which has them now, uses them.
    right.attach(&left, 0, false, false);
    let mut sealer = Sealer::new(Cipher::Aes256Gcm, &key(1, 0), index(2, 0));
    let mut datagram = [0; OVERHEAD_BYTES];
    sealer.seal(Kind::Packet, &[], &mut datagram).unwrap();
    socket.send_to(&datagram, there).unwrap();
    thread::sleep(Duration::from_millis(50));
    drop(busy);
    until("the datagram is opened", || {
        let report = right.report();
        let refused_packets = report.sessions[0].counters.refused;
        assert_eq!(report.refused, refused_packets, "of an unknown session");
        refused_packets == 1
    });
    drop(pinging);
}

#[test]
fn ports_of_others_that_are_also_this_node_s_are_theirs_to_use() {
    need_root!();
    let (_lab, left, right) = ends();
    agree(&left, &right);
    until_direct(&left, &right);
    // A program at the left end has drawn the port at which the right node takes datagrams.
    let port = right.engine.port();
    let asker = within(&left, || UdpSocket::bind(("10.77.0.1", port)).unwrap());
    let answerer = within(&right, || UdpSocket::bind(("10.77.0.2", 0)).unwrap());
    for socket in [&asker, &answerer] {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
    }
    let mut buffer = [0; 8];
    asker
        .send_to(b"ask", answerer.local_addr().unwrap())
        .unwrap();
    let (_, from) = answerer.recv_from(&mut buffer).unwrap();
    assert_eq!(from.port(), port);
    answerer.send_to(b"told", from).unwrap();
    assert_eq!(asker.recv(&mut buffer).unwrap(), 4);
}
