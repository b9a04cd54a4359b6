//! An Internet in network namespaces, and daemons in it.

// Each test uses a part of it.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use enishi_lab::wire::LinkKind;
use enishi_lab::{Daemon, Host, Process, World, ensure_programs, is_root, until};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_enishi");
pub(crate) const A_WHILE: Duration = Duration::from_secs(60);

/// A round trip of 40 ms between two public hosts.
const DELAY: Duration = Duration::from_millis(10);

/// An Internet with some nodes.
pub(crate) struct Net {
    pub(crate) directory: TempDir,
    pub(crate) world: World,
}

impl Net {
    /// None without root.
    pub(crate) fn open(name: &str) -> Option<Self> {
        if !is_root() {
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        ensure_programs(&[("nft", "nftables"), ("ping", "iputils-ping")]).unwrap();
        Some(Self {
            directory: tempfile::tempdir().unwrap(),
            world: World::new(name, LinkKind::of_delay(DELAY)).unwrap(),
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts a node with a configuration and further words.
    pub(crate) fn start(&self, host: &Host, config: &str, words: &[&str]) -> Daemon {
        self.start_with(host, config, words, &[])
    }

    /// The same, with these variables in its environment besides.
    pub(crate) fn start_with(
        &self,
        host: &Host,
        config: &str,
        words: &[&str],
        variables: &[(&str, &str)],
    ) -> Daemon {
        let data = self.path(host.name());
        let file = data.with_extension("toml");
        std::fs::write(&file, config).unwrap();
        let mut words = words.to_vec();
        words.extend(["--config", file.to_str().unwrap()]);
        Daemon::start_with(Path::new(PROGRAM), Some(host), &data, &words, variables).unwrap()
    }

    /// Starts the first node of a channel, and returns it with an invitation.
    pub(crate) fn found(&self, host: &Host, config: &str) -> (Daemon, String) {
        let daemon = self.start(host, config, &[]);
        daemon.text(&["channel", "create", "lab"]).unwrap();
        let invite = ["channel", "invite", "lab", "--uses", "any"];
        let ticket = daemon.text(&invite).unwrap();
        (daemon, ticket)
    }

    /// Starts a node that joins the channel.
    pub(crate) fn join(&self, host: &Host, config: &str, ticket: &str) -> Daemon {
        let daemon = self.start(host, config, &["--bootstrap", ticket]);
        until(A_WHILE, "it joins the channel", || {
            Ok(daemon.call(&["channel", "join", ticket])?.success())
        })
        .unwrap_or_else(|error| panic!("{error}: {}", daemon.log()));
        daemon
    }
}

pub(crate) fn status(daemon: &Daemon) -> Value {
    daemon.json(&["status"]).unwrap()
}

/// Waits until something of the status is so.
pub(crate) fn wait(daemon: &Daemon, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let waited = until(A_WHILE, what, || {
        std::thread::sleep(Duration::from_millis(100));
        last = daemon.json(&["status"])?;
        Ok(holds(&last))
    });
    waited.unwrap_or_else(|error| panic!("{error}: {last:#}\n{}", daemon.log()));
    last
}

pub(crate) fn id(daemon: &Daemon) -> String {
    status(daemon)["node_id"].as_str().unwrap().to_owned()
}

/// Returns how a daemon reaches a node; `-` without a session.
pub(crate) fn way(from: &Daemon, to: &str) -> String {
    let peers = from.json(&["peers"]).unwrap();
    let mut peers = peers["peers"].as_array().unwrap().iter();
    let peer = peers.find(|peer| peer["node_id"] == to);
    peer.map_or("-", |peer| peer["path"].as_str().unwrap())
        .to_owned()
}

/// Has one node ping another one until packets go a way that begins so.
pub(crate) fn packets_go(from: (&Daemon, &Host), to: &Daemon, beginning: &str) {
    let address = to.address().unwrap().to_string();
    let mut last = String::new();
    let gone = until(A_WHILE, "packets go straight", || {
        let ping = ["ping", "-c", "1", "-W", "1", &address];
        from.1.run(&ping, A_WHILE)?;
        let told = from.0.json(&["channel", "show", "lab"])?;
        let mut members = told["member_list"].as_array().unwrap().iter();
        let has_it = |addresses: &Value| {
            let all = addresses.as_array().into_iter().flatten();
            all.into_iter().any(|own| *own == address.as_str())
        };
        let member = members.find(|member| has_it(&member["addresses"]));
        last = member.map_or_else(String::new, |member| member["path"].to_string());
        std::thread::sleep(Duration::from_millis(200));
        Ok(last.trim_matches('"').starts_with(beginning))
    });
    gone.unwrap_or_else(|error| panic!("{error}: {last}\n{}", from.0.log()));
}

/// How a node dies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Death {
    /// Its process is killed; its host is there and says so.
    Killed,
    /// Its host is cut off, and says nothing any more.
    CutOff,
}

impl Net {
    /// Has a node die.
    pub(crate) fn kill(&self, (host, daemon): &mut (Host, Daemon), death: Death) {
        match death {
            Death::Killed => drop(daemon.process().kill9().unwrap()),
            Death::CutOff => self.world.cut(host, true).unwrap(),
        }
    }
}

/// Opens a TCP connection from one host to an address of another one; returns its two ends.
pub(crate) fn connect(from: &Host, to: &Host, at: IpAddr) -> [TcpStream; 2] {
    fn on<T: Send>(host: &Host, make: impl FnOnce() -> T + Send) -> T {
        let made = || {
            host.enter().unwrap();
            make()
        };
        std::thread::scope(|scope| scope.spawn(made).join().unwrap())
    }
    let listener = on(to, || TcpListener::bind((at, 0)).unwrap());
    let there: SocketAddr = listener.local_addr().unwrap();
    let near = on(from, || TcpStream::connect(there).unwrap());
    let (far, _) = listener.accept().unwrap();
    far.set_read_timeout(Some(A_WHILE)).unwrap();
    [near, far]
}

/// Sends octets over a TCP connection, and ends its direction.
pub(crate) fn send(stream: TcpStream, sent: Vec<u8>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        (&stream).write_all(&sent).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    })
}

/// Reads what is to come as it was sent, and has something done after an eighth of it. Returns the longest
/// time in which nothing came.
pub(crate) fn longest_gap(
    mut stream: impl Read,
    sent: &[u8],
    in_between: impl FnOnce(),
) -> Duration {
    let (mut received, mut piece) = (0, vec![0; 65_536]);
    let (mut last, mut gap) = (Instant::now(), Duration::ZERO);
    let mut in_between = Some(in_between);
    loop {
        let count = stream.read(&mut piece).unwrap();
        gap = gap.max(last.elapsed());
        last = Instant::now();
        if count == 0 {
            break;
        }
        let expected = sent.get(received..received + count);
        assert!(expected == Some(&piece[..count]), "after {received} octets");
        received += count;
        if received > sent.len() / 8
            && let Some(act) = in_between.take()
        {
            act();
        }
    }
    assert_eq!(received, sent.len());
    gap
}

/// Octets that are not the same everywhere.
pub(crate) fn octets(count: usize) -> Vec<u8> {
    (0..count as u32).map(|n| (n / 3) as u8).collect()
}

/// Runs a DNS server on a host, with these lines in its configuration. The package is unpacked rather
/// than installed, as that would start it on this machine.
pub(crate) fn dnsmasq(directory: &Path, host: &Host, lines: &str) -> Process {
    let unpack = format!(
        "cd {}; apt-get -q download dnsmasq-base || {{ apt-get -q update; \
         apt-get -q download dnsmasq-base; }}; dpkg-deb -x dnsmasq-base_*.deb .",
        directory.display()
    );
    let mut download = enishi_lab::command("sh");
    download.args(["-ec", &unpack]);
    let unpacked = enishi_lab::run(download, 3 * A_WHILE).unwrap();
    assert!(unpacked.success(), "{}", unpacked.stderr);
    let config = directory.join("dnsmasq.conf");
    let common = "no-resolv\nno-hosts\nuser=root\nlocal-ttl=1\n";
    std::fs::write(&config, format!("{common}{lines}\n")).unwrap();
    let mut command = host.command(directory.join("usr/sbin/dnsmasq"));
    command.args(["--keep-in-foreground", "--pid-file"]);
    command.arg(format!("--conf-file={}", config.display()));
    host.spawn(command, &directory.join("dnsmasq.log")).unwrap()
}
