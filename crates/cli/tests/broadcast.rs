//! Broadcast and multicast between real hosts: a lobby by UDP broadcast, a group, and the
//! discovery of services by avahi. Without root these tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use enishi_lab::{Daemon, Host, Lab, Process, ensure_programs, until};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_enishi");
const A_WHILE: Duration = Duration::from_secs(20);

/// Hosts that are members of one channel.
struct Party {
    hosts: Vec<Host>,
    daemons: Vec<Daemon>,
    directory: TempDir,
    _lab: Lab,
}

impl Party {
    /// None without root.
    fn open(prefix: &str, size: usize) -> Option<Self> {
        if !enishi_lab::is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let mut lab = Lab::new(prefix).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let password = directory.path().join("password");
        std::fs::write(&password, "open sesame").unwrap();
        let password = password.to_str().unwrap();
        let mut ticket: Option<String> = None;
        let (mut hosts, mut daemons) = (Vec::new(), Vec::new());
        for number in 0..size {
            let host = lab.host(&format!("h{number}")).unwrap();
            let data = directory.path().join(format!("h{number}"));
            let bootstrap = ticket.iter().flat_map(|ticket| ["--bootstrap", ticket]);
            let bootstrap: Vec<&str> = bootstrap.collect();
            let daemon = Daemon::start(Path::new(PROGRAM), Some(&host), &data, &bootstrap).unwrap();
            let words: &[&str] = match &ticket {
                Some(_) => &["channel", "join", "--name", "party"],
                None => &["channel", "create", "party"],
            };
            daemon
                .text(&[words, &["--password-file", password]].concat())
                .unwrap();
            ticket.get_or_insert_with(|| daemon.text(&["invite"]).unwrap());
            let multicast = ["ip", "route", "add", "224.0.0.0/4", "dev", "enishi0"];
            assert!(host.run(&multicast, A_WHILE).unwrap().success());
            hosts.push(host);
            daemons.push(daemon);
        }
        Some(Self {
            hosts,
            daemons,
            directory,
            _lab: lab,
        })
    }

    /// Starts a program at a host; what it prints goes into the file that is returned.
    fn spawn(&self, at: usize, name: &str, words: &[&str]) -> (Process, PathBuf) {
        let log = self.directory.path().join(format!("{name}-{at}.log"));
        let mut command = self.hosts[at].command(words[0]);
        command.args(&words[1..]);
        (self.hosts[at].spawn(command, &log).unwrap(), log)
    }

    fn say(&self, at: usize, text: &str, to: &str) {
        let line = format!("printf '{text}\\n' | socat -u - {to}");
        let output = self.hosts[at].run(&["sh", "-c", &line], A_WHILE).unwrap();
        assert!(output.success(), "{}", output.stderr);
    }
}

fn heard(log: &Path, text: &str) -> usize {
    let said = std::fs::read_to_string(log).unwrap_or_default();
    said.matches(text).count()
}

#[test]
fn a_lobby_and_a_group_are_heard_by_every_member_once() {
    let Some(party) = Party::open("lobby", 4) else {
        return;
    };
    ensure_programs(&[("socat", "socat")]).unwrap();
    let listen = |at: usize, name: &str, address: &str| {
        party.spawn(at, name, &["socat", "-u", address, "-"])
    };
    let lobby: Vec<_> = (1..4)
        .map(|at| listen(at, "lobby", "UDP4-RECV:6112,reuseaddr"))
        .collect();
    let group: Vec<_> = (1..4)
        .map(|at| {
            let own = party.daemons[at].address().unwrap();
            let address = format!("UDP4-RECV:6113,reuseaddr,ip-add-membership=239.1.2.3:{own}");
            listen(at, "group", &address)
        })
        .collect();
    // Until all know of each other.
    let broadcast = "UDP4-DATAGRAM:10.77.255.255:6112,broadcast";
    until(Duration::from_secs(60), "all hear the first word", || {
        party.say(0, "hello", broadcast);
        Ok(lobby.iter().all(|(_, log)| heard(log, "hello") > 0))
    })
    .unwrap();
    for word in ["one", "two", "three"] {
        party.say(0, word, broadcast);
        party.say(
            0,
            word,
            "UDP4-DATAGRAM:255.255.255.255:6112,broadcast,so-bindtodevice=enishi0",
        );
        party.say(0, word, "UDP4-DATAGRAM:239.1.2.3:6113");
    }
    until(A_WHILE, "all hear what is said", || {
        let all = |logs: &[(Process, PathBuf)], times| {
            logs.iter().all(|(_, log)| heard(log, "three") >= times)
        };
        Ok(all(&lobby, 2) && all(&group, 1))
    })
    .unwrap();
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
    let Some(party) = Party::open("avahi", 2) else {
        return;
    };
    ensure_programs(&[("avahi-daemon", "avahi-daemon"), ("dig", "bind9-dnsutils")]).unwrap();
    let config = party.directory.path().join("avahi.conf");
    let text = "[server]\nhost-name=printer\nuse-ipv4=yes\nuse-ipv6=no\nenable-dbus=no\n\
                allow-interfaces=enishi0\nallow-point-to-point=yes\n\
                [publish]\npublish-workstation=no\n[rlimits]\n";
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let words = [
        "avahi-daemon",
        "-f",
        config,
        "--no-drop-root",
        "--no-chroot",
        "--no-rlimits",
    ];
    let (_avahi, log) = party.spawn(0, "avahi", &words);
    let printer = party.daemons[0].address().unwrap().to_string();
    let words = [
        "dig",
        "+short",
        "+timeout=1",
        "+tries=1",
        "-p",
        "5353",
        "@224.0.0.251",
        "printer.local",
    ];
    let found = until(Duration::from_secs(60), "the printer is found", || {
        let output = party.hosts[1].run(&words, A_WHILE)?;
        Ok(output.stdout.contains(&printer))
    });
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    assert!(found.is_ok(), "{}", said());
}
