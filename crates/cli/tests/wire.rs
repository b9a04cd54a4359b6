//! What who listens on the wire, and a node that helps without being a member, can find: neither
//! names nor whole ids.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

#[path = "wire/initial.rs"]
mod initial;
mod office;

use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::BASE32_NOPAD;
use enishi_lab::{Process, until};

use office::{A_WHILE, Office, PROGRAM, ping, wait_for_line};

/// What the hosts call themselves; the first is no member of the channel.
const HOSTS: [&str; 3] = ["carrier-of-others", "paymaster-of-acme", "auditor-of-acme"];
const CHANNEL: &str = "ledger-of-the-board";
/// What is in every packet between the members, and the same for `ping`.
const CONTENT: &str = "dividend cut";
const PATTERN: &str = "6469766964656e6420637574";
/// What a program says in the clear when all is over.
const END: &str = "that-was-all-of-it";

fn contains(octets: &[u8], part: &[u8]) -> bool {
    octets.windows(part.len()).any(|window| window == part)
}

/// Listens at the cable of a host.
fn listen(office: &Office, number: usize) -> (Process, PathBuf) {
    let file = office.path(&format!("h{number}.pcap"));
    let to = file.to_str().unwrap();
    let words = [
        "tcpdump", "-i", "eth0", "-s", "0", "-U", "-Z", "root", "-w", to,
    ];
    let (listener, log) = office.spawn(number, &format!("tcpdump{number}"), &words);
    wait_for_line(&log, "listening on");
    (listener, file)
}

/// Returns what was heard at a host's cable until now.
fn heard(office: &Office, number: usize, file: &Path) -> Vec<u8> {
    let other = office.hosts[(number + 1) % HOSTS.len()].address();
    let line = format!("echo {END} > /dev/udp/{other}/9");
    let mut heard = Vec::new();
    until(A_WHILE, "the end is heard", || {
        office.run(number, &["bash", "-c", &line]);
        heard = fs::read(file)?;
        Ok(contains(&heard, END.as_bytes()))
    })
    .unwrap();
    heard
}

#[test]
fn who_listens_or_carries_learns_neither_names_nor_whole_ids() {
    let programs = [("ping", "iputils-ping"), ("tcpdump", "tcpdump")];
    let Some(mut office) = Office::open("wire", &programs) else {
        return;
    };
    for name in HOSTS {
        let number = office.add_host();
        fs::write(office.config(number), format!("host_name = \"{name}\"\n")).unwrap();
    }
    let listeners = [0, 1, 2].map(|number| listen(&office, number));
    office.start(0, Path::new(PROGRAM), &[]);
    let way = office.daemons[0].text(&["invite"]).unwrap();
    for number in [1, 2] {
        office.start(number, Path::new(PROGRAM), &["--bootstrap", &way]);
    }
    let text = |number: usize, words: &[&str]| office.daemons[number].text(words).unwrap();
    text(1, &["channel", "create", CHANNEL]);
    let ticket = text(1, &["channel", "invite", CHANNEL]);
    text(2, &["channel", "join", &ticket]);
    let there = office.address(1);
    ping(&office.hosts[2], &["-c", "3", "-p", PATTERN], &there);
    until(A_WHILE, "the carrier holds records", || {
        let status = office.daemons[0].json(&["status"])?;
        Ok(status["records_held"].as_u64() > Some(0))
    })
    .unwrap();

    let names = [HOSTS[1], HOSTS[2], CHANNEL].map(|name| name.as_bytes().to_vec());
    let ids = [0, 1, 2].map(|number| {
        let status = office.daemons[number].json(&["status"]).unwrap();
        status["node_id"].as_str().unwrap().to_owned()
    });
    let octets = |id: &String| BASE32_NOPAD.decode(id.to_uppercase().as_bytes()).unwrap();
    let mut hidden = names.to_vec();
    hidden.extend(ids.iter().map(octets));
    hidden.extend(ids.iter().map(|id| id.as_bytes().to_vec()));
    hidden.push(CONTENT.as_bytes().to_vec());
    let mut openings = 0;
    for (number, (_, file)) in listeners.iter().enumerate() {
        let heard = heard(&office, number, file);
        // Who listens can open the first messages of handshakes, too.
        let opened = initial::opened(&heard);
        for part in &hidden {
            let shown = String::from_utf8_lossy(part);
            assert!(!contains(&heard, part), "h{number}: {shown}");
            assert!(
                !opened.iter().any(|opened| contains(opened, part)),
                "h{number}: {shown}"
            );
        }
        let names_overlay = |opened: &&Vec<u8>| contains(opened, b"enishi/1/");
        openings += opened.iter().filter(names_overlay).count();
    }
    assert!(
        openings > 0,
        "no handshake was opened: this test shows nothing"
    );

    // What the carrier holds names nobody, and a member's own disk does.
    let stored = |number: usize| fs::read(office.data(number).join("state.redb")).unwrap();
    for name in &names {
        let shown = String::from_utf8_lossy(name);
        assert!(!contains(&stored(0), name), "{shown}");
    }
    assert!(contains(&stored(1), CHANNEL.as_bytes()));
}
