//! Nodes that no packet reaches straight, each behind a router that gives every destination another
//! port: what others carry between them. Without root these tests have nothing to stand on and say
//! so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use enishi_lab::wire::{LinkKind, NatKind, Ports};
use enishi_lab::{Daemon, Host, World, ensure_programs, is_root, until};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_enishi");
const DELAY: Duration = Duration::from_millis(10);
const A_WHILE: Duration = Duration::from_secs(60);

/// How much is sent while the node dies that carries it, in octets.
const SENT_BYTES: usize = 8_000_000;

/// Two nodes that everybody reaches, and two that nobody does.
struct Town {
    helpers: Vec<Daemon>,
    nodes: Vec<(Host, Daemon)>,
    directory: TempDir,
    _world: World,
}

impl Town {
    fn open(name: &str) -> Option<Self> {
        if !is_root() {
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        ensure_programs(&[("ping", "iputils-ping")]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut world = World::new(name, LinkKind::of_delay(DELAY)).unwrap();
        let start = |host: &Host, ticket: Option<&str>| {
            let words = ticket.map_or(vec![], |ticket| vec!["--bootstrap", ticket]);
            let data = directory.path().join(host.name());
            Daemon::start(Path::new(PROGRAM), Some(host), &data, &words).unwrap()
        };
        let first = start(&world.public("s0").unwrap(), None);
        first.text(&["channel", "create", "lab"]).unwrap();
        let invite = ["channel", "invite", "lab", "--uses", "any"];
        let ticket = first.text(&invite).unwrap();
        let join = |daemon: Daemon| {
            daemon.text(&["channel", "join", &ticket]).unwrap();
            daemon
        };
        let second = join(start(&world.public("s1").unwrap(), Some(&ticket)));
        let nodes = ["a", "b"].map(|name| {
            let router = world.home(NatKind::symmetric(Ports::Random)).unwrap();
            let host = world.host(name, router).unwrap();
            let daemon = join(start(&host, Some(&ticket)));
            (host, daemon)
        });
        Some(Self {
            helpers: vec![first, second],
            nodes: nodes.into(),
            directory,
            _world: world,
        })
    }

    fn id(&self, node: usize) -> String {
        let status = self.nodes[node].1.json(&["status"]).unwrap();
        status["node_id"].as_str().unwrap().to_owned()
    }

    /// Waits until the first node has a session with the second, by way of another, and returns
    /// which of the helpers that is.
    fn carries(&self) -> usize {
        let (a, b) = (&self.nodes[0].1, self.id(1));
        let mut by = None;
        until(A_WHILE, "one carries for the other", || {
            let peers = a.json(&["peers"])?;
            let peers = peers["peers"].as_array().unwrap();
            let path = peers.iter().find(|peer| peer["node_id"] == b.as_str());
            let path = path.and_then(|peer| peer["path"].as_str());
            by = path.and_then(|path| path.strip_prefix("relayed by ").map(str::to_owned));
            Ok(by.is_some())
        })
        .unwrap();
        let by = by.unwrap();
        // One of them may be dead by now.
        let is_it = |helper: &Daemon| {
            let status = helper.json(&["status"]);
            status.is_ok_and(|status| status["node_id"].as_str().unwrap().starts_with(&by))
        };
        self.helpers.iter().position(is_it).unwrap()
    }
}

#[test]
fn two_that_no_packet_reaches_speak_by_way_of_others_and_lose_nothing_when_one_dies() {
    let Some(mut town) = Town::open("carried") else {
        return;
    };
    let there = town.nodes[1].1.address().unwrap();
    let started = Instant::now();
    let ping = ["ping", "-c", "1", "-W", "10", &there.to_string()];
    let answered = town.nodes[0].0.run(&ping, A_WHILE).unwrap();
    println!("first answer after {:?}", started.elapsed());
    assert!(
        answered.success(),
        "{}\n{}",
        answered.stdout,
        town.nodes[0].1.log()
    );
    let by = town.carries();

    let sent: Vec<u8> = (0..SENT_BYTES as u32).map(|n| (n / 3) as u8).collect();
    let file = town.directory.path().join("sent");
    std::fs::write(&file, &sent).unwrap();
    let id = town.id(1);
    let connect = |node: &Daemon, words: &[&str]| {
        let mut command = std::process::Command::new(PROGRAM);
        command.arg("--data").arg(node.data()).args(words);
        command
    };
    let mut listener = connect(&town.nodes[1].1, &["connect", "--listen", "file"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut connector = None;
    until(A_WHILE, "the stream opens", || {
        let mut child = connect(&town.nodes[0].1, &["connect", &id, "file"])
            .stdin(File::open(&file)?)
            .stdout(Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(500));
        let is_open = child.try_wait()?.is_none();
        connector = is_open.then_some(child);
        Ok(is_open)
    })
    .unwrap();

    let mut output = listener.stdout.take().unwrap();
    let (mut received, mut piece) = (Vec::new(), vec![0; 65_536]);
    let (mut last, mut gap, mut killed) = (Instant::now(), Duration::ZERO, false);
    loop {
        let count = output.read(&mut piece).unwrap();
        gap = gap.max(last.elapsed());
        last = Instant::now();
        if count == 0 {
            break;
        }
        received.extend_from_slice(&piece[..count]);
        if !killed && received.len() > SENT_BYTES / 8 {
            town.helpers[by].process().kill9().unwrap();
            killed = true;
        }
    }
    println!("the longest gap: {gap:?}");
    // QUIC alone would notice after 15 seconds.
    assert!(gap < Duration::from_secs(10), "{gap:?}");
    assert!(killed && received == sent, "{} octets", received.len());
    assert!(listener.wait().unwrap().success());
    assert!(connector.unwrap().wait().unwrap().success());
    assert_ne!(town.carries(), by);
}
