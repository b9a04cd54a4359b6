//! Broadcast and multicast between real hosts: a lobby by UDP broadcast, a group, and the
//! discovery of services by avahi. Without root these tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod office;

use std::path::{Path, PathBuf};
use std::time::Duration;

use enishi_lab::{Process, until};

use office::{A_WHILE, Office, shell};

/// Hosts that are members of one channel, and send to groups there; none without root.
fn open(prefix: &str, size: usize, programs: &[(&str, &str)]) -> Option<Office> {
    let mut office = Office::open(prefix, programs)?.with_password("open sesame");
    for _ in 0..size {
        let number = office.hire(&[]);
        let multicast = "ip route add 224.0.0.0/4 dev enishi0";
        shell(&office.hosts[number], multicast);
    }
    Some(office)
}

fn say(office: &Office, at: usize, text: &str, to: &str) {
    let line = format!("printf '{text}\\n' | socat -u - {to}");
    shell(&office.hosts[at], &line);
}

fn heard(log: &Path, text: &str) -> usize {
    let said = std::fs::read_to_string(log).unwrap_or_default();
    said.matches(text).count()
}

#[test]
fn a_lobby_and_a_group_are_heard_by_every_member_once() {
    let Some(office) = open("lobby", 4, &[("socat", "socat")]) else {
        return;
    };
    let listen = |at: usize, name: &str, address: &str| {
        office.spawn(at, &format!("{name}-{at}"), &["socat", "-u", address, "-"])
    };
    let lobby: Vec<_> = (1..4)
        .map(|at| listen(at, "lobby", "UDP4-RECV:6112,reuseaddr"))
        .collect();
    let group: Vec<_> = (1..4)
        .map(|at| {
            let own = office.address(at);
            let address = format!("UDP4-RECV:6113,reuseaddr,ip-add-membership=239.1.2.3:{own}");
            listen(at, "group", &address)
        })
        .collect();
    let all_heard = |logs: &[(Process, PathBuf)], word, times| {
        logs.iter().all(|(_, log)| heard(log, word) >= times)
    };
    // Until all listen and know of each other.
    let broadcast = "UDP4-DATAGRAM:10.77.255.255:6112,broadcast";
    let to_group = "UDP4-DATAGRAM:239.1.2.3:6113";
    until(Duration::from_secs(60), "all hear the first word", || {
        say(&office, 0, "hello", broadcast);
        say(&office, 0, "hello", to_group);
        Ok(all_heard(&lobby, "hello", 1) && all_heard(&group, "hello", 1))
    })
    .unwrap();
    let everywhere = "UDP4-DATAGRAM:255.255.255.255:6112,broadcast,so-bindtodevice=enishi0";
    for word in ["one", "two", "three"] {
        for to in [broadcast, everywhere, to_group] {
            say(&office, 0, word, to);
        }
    }
    until(A_WHILE, "all hear what is said", || {
        let mut words = ["one", "two", "three"].into_iter();
        Ok(words.all(|word| all_heard(&lobby, word, 2) && all_heard(&group, word, 1)))
    })
    .unwrap();
    // What is told twice comes by another way, and later.
    std::thread::sleep(Duration::from_secs(2));
    for word in ["one", "two", "three"] {
        for (_, log) in &lobby {
            assert_eq!(heard(log, word), 2, "{word} in {log:?}");
        }
        for (_, log) in &group {
            assert_eq!(heard(log, word), 1, "{word} in {log:?}");
        }
    }
}

#[test]
fn avahi_is_found_across_the_channel() {
    let programs = [("avahi-daemon", "avahi-daemon"), ("python3", "python3")];
    let Some(office) = open("avahi", 2, &programs) else {
        return;
    };
    let text = "[server]\nhost-name=printer\nuse-ipv4=yes\nuse-ipv6=no\nenable-dbus=no\n\
                allow-interfaces=enishi0\nallow-point-to-point=yes\n\
                [publish]\npublish-workstation=no\n[rlimits]\n";
    let (_avahi, log) = office.avahi(0, text, "");
    let printer = office.address(0);
    // A question from any port is answered to it (RFC 6762, section 6.7).
    let question = r#"
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
name = b"\x07printer\x05local\x00"
s.sendto(struct.pack(">6H", 7, 0, 1, 0, 0, 0) + name + struct.pack(">2H", 1, 1), ("224.0.0.251", 5353))
answer = s.recv(2000)
print(socket.inet_ntoa(answer[-4:]))
"#;
    let words = ["python3", "-c", question];
    let found = until(Duration::from_secs(60), "the printer is found", || {
        Ok(office.run(1, &words).stdout.contains(&printer))
    });
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    assert!(found.is_ok(), "{}", said());
}
