//! The virtual networks that are measured: each joins two hosts, and says by which address.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use enishi_lab::daemon::JOIN_TIME_MAX;
use enishi_lab::{Daemon, Host, Process, until};

use super::super::traffic;
use super::peers::Peers;

/// The longest that anything but a measurement may take.
const STEP_TIME_MAX: Duration = Duration::from_secs(20);
/// After how long packets go by the lane once the other way is shut.
const LANE_TIME: Duration = Duration::from_secs(10);
/// The address of the right host in the networks of the others.
const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 2);

/// The programs of the others.
const WIREGUARD_GO: &str = "usr/bin/wireguard-go";
pub(super) const GOTATUN: &str = "bin/gotatun";
const N2N_EDGE: &str = "usr/sbin/edge";
const N2N_SUPERNODE: &str = "usr/sbin/supernode";

/// One of those that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    /// The wire itself.
    Bare,
    /// The plain forwarder of `crates/dataplane`.
    Forwarder,
    /// Our daemon.
    Enishi,
    /// Our daemon where nothing but its QUIC sockets passes: packets go by the lane of the
    /// sessions, as they do behind a firewall that lets in no more.
    Fallback,
    /// wireguard-go.
    WireguardGo,
    /// gotatun.
    Gotatun,
    /// n2n.
    N2n,
}

/// One of them, running on two hosts.
pub(super) enum Running {
    /// Our daemons.
    Daemons(Box<[Daemon; 2]>, Ipv4Addr),
    /// Other programs; on each host one that carries packets, the rest helps.
    Programs(Vec<Process>, Ipv4Addr),
}

/// Where it runs.
pub(super) struct Place<'a> {
    pub(super) left: &'a Host,
    pub(super) right: &'a Host,
    /// For its files.
    pub(super) directory: &'a Path,
    /// Our own release programs.
    pub(super) programs: &'a Path,
    pub(super) peers: &'a Peers,
}

impl Contender {
    pub(super) const ALL: [Self; 7] = [
        Self::Bare,
        Self::Forwarder,
        Self::Enishi,
        Self::Fallback,
        Self::WireguardGo,
        Self::Gotatun,
        Self::N2n,
    ];

    /// As it appears in the names of figures.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Forwarder => "forwarder",
            Self::Enishi => "enishi",
            Self::Fallback => "enishi_fallback",
            Self::WireguardGo => "wireguard_go",
            Self::Gotatun => "gotatun",
            Self::N2n => "n2n",
        }
    }

    /// Starts it and waits until packets pass; none when its program is not to be had.
    pub(super) fn start(self, place: &Place<'_>) -> anyhow::Result<Option<Running>> {
        let running = match self {
            Self::Bare => Running::Programs(Vec::new(), place.right.address()),
            Self::Forwarder => place.forwarders()?,
            Self::Enishi => place.daemons()?,
            Self::Fallback => place.fallback()?,
            Self::WireguardGo if place.peers.have(WIREGUARD_GO) => place.wireguard(
                |host, interface| {
                    let mut command = place.peers.command(host, WIREGUARD_GO);
                    command.args(["-f", interface]);
                    command
                },
                ["wgl", "wgr"],
            )?,
            Self::Gotatun if place.peers.have(GOTATUN) => place.wireguard(
                |host, interface| {
                    let mut command = host.command(place.peers.path(GOTATUN));
                    command.args(["-f", "--disable-drop-privileges", interface]);
                    command
                },
                ["gtl", "gtr"],
            )?,
            Self::N2n if place.peers.have(N2N_EDGE) => place.n2n()?,
            Self::WireguardGo | Self::Gotatun | Self::N2n => return Ok(None),
        };
        let address = running.address();
        until(JOIN_TIME_MAX, "a ping is answered", || {
            traffic::answers(place.left, address)
        })
        .with_context(|| format!("starting {}", self.name()))?;
        Ok(Some(running))
    }
}

impl Running {
    /// Returns the address of the right host.
    pub(super) fn address(&self) -> Ipv4Addr {
        match self {
            Self::Daemons(_, address) | Self::Programs(_, address) => *address,
        }
    }

    /// Returns the processor time that both ends have used, in seconds.
    pub(super) fn cpu_s(&self) -> anyhow::Result<f64> {
        match self {
            Self::Daemons(daemons, _) => daemons.iter().map(Daemon::cpu_s).sum(),
            Self::Programs(programs, _) => programs.iter().map(Process::cpu_s).sum(),
        }
    }

    /// Returns the memory of the larger end, in megabytes; none of the wire.
    pub(super) fn rss_mb(&self) -> anyhow::Result<Option<f64>> {
        let all: Vec<f64> = match self {
            Self::Daemons(daemons, _) => daemons
                .iter()
                .map(Daemon::rss_mb)
                .collect::<Result<_, _>>()?,
            Self::Programs(programs, _) => programs
                .iter()
                .map(Process::rss_mb)
                .collect::<Result<_, _>>()?,
        };
        Ok(all.into_iter().reduce(f64::max))
    }
}

impl Place<'_> {
    fn forwarders(&self) -> anyhow::Result<Running> {
        let program = self.programs.join("examples/forwarder");
        let start = |host: &Host, number: u8, other: &Host| {
            let mut command = host.command(&program);
            command.args(["plain", &format!("10.88.0.{number}/24"), "5000"]);
            command.arg(format!("{}:5000", other.address()));
            host.spawn(
                command,
                &self.directory.join(format!("forwarder-{number}.log")),
            )
        };
        let programs = vec![
            start(self.left, 1, self.right)?,
            start(self.right, 2, self.left)?,
        ];
        Ok(Running::Programs(programs, RIGHT))
    }

    fn daemons(&self) -> anyhow::Result<Running> {
        const CHANNEL: &str = "bench";
        let program = self.programs.join("enishi");
        let start = |host, name: &str, words: &[&str]| {
            Daemon::start(&program, Some(host), &self.directory.join(name), words)
        };
        let left = start(self.left, "left", &[])?;
        left.text(&["channel", "create", CHANNEL, "--network", "10.77.0.0/16"])?;
        let ticket = left.text(&["channel", "invite", CHANNEL, "--uses", "any"])?;
        let right = start(self.right, "right", &["--bootstrap", &ticket])?;
        right.text(&["channel", "join", &ticket])?;
        let address = right.address()?;
        Ok(Running::Daemons(Box::new([left, right]), address))
    }

    fn fallback(&self) -> anyhow::Result<Running> {
        let running = self.daemons()?;
        let Running::Daemons(daemons, _) = &running else {
            return Ok(running);
        };
        for (host, daemon) in [self.left, self.right].into_iter().zip(daemons.iter()) {
            let status = daemon.json(&["status"])?;
            let addresses = status["addresses"].as_array();
            let sockets = addresses.context("the daemon says no addresses")?;
            let ports = sockets.iter().filter_map(|socket| {
                let socket: SocketAddr = socket.as_str()?.parse().ok()?;
                Some(socket.port().to_string())
            });
            let ports = ports.collect::<Vec<_>>().join(", ");
            let rules = format!(
                "add table inet bench; \
                 add chain inet bench out {{ type filter hook output priority 0; }}; \
                 add rule inet bench out oifname eth0 udp sport != {{ {ports} }} drop"
            );
            let output = host.run(&["nft", &rules], STEP_TIME_MAX)?;
            ensure!(output.success(), "nft: {}", output.stderr);
        }
        std::thread::sleep(LANE_TIME);
        Ok(running)
    }

    /// Starts programs that speak WireGuard and are told by `wg` what to do, as interfaces with
    /// names of their own.
    fn wireguard(
        &self,
        program: impl Fn(&Host, &str) -> Command,
        names: [&str; 2],
    ) -> anyhow::Result<Running> {
        let key = |host: &Host, words: &[&str]| -> anyhow::Result<String> {
            let output = host.run(words, STEP_TIME_MAX)?;
            ensure!(output.success(), "{words:?}: {}", output.stderr);
            Ok(output.stdout.trim().to_owned())
        };
        let mut ends = Vec::new();
        for (host, name) in [self.left, self.right].into_iter().zip(names) {
            let secret = self.directory.join(name);
            std::fs::write(&secret, key(host, &["wg", "genkey"])?)?;
            let public = format!("wg pubkey < {}", secret.display());
            ends.push((host, name, secret, key(host, &["sh", "-c", &public])?));
        }
        let mut programs = Vec::new();
        for (mine, other) in [(0, 1), (1, 0)] {
            let (host, name, secret, _) = &ends[mine];
            let log = self.directory.join(format!("{name}.log"));
            programs.push(host.spawn(program(host, name), &log)?);
            let steps = format!(
                "for i in $(seq 100); do ip link show {name} > /dev/null 2>&1 && break; sleep 0.05; done; \
                 wg set {name} private-key {} listen-port 51820 peer {} allowed-ips 10.88.0.0/24 \
                 endpoint {}:51820 && ip address add 10.88.0.{}/24 dev {name} && \
                 ip link set {name} mtu 1420 up",
                secret.display(),
                ends[other].3,
                ends[other].0.address(),
                mine + 1,
            );
            key(host, &["sh", "-c", &steps])?;
        }
        Ok(Running::Programs(programs, RIGHT))
    }

    fn n2n(&self) -> anyhow::Result<Running> {
        let mut command = self.peers.command(self.left, N2N_SUPERNODE);
        command.args(["-f", "-p", "7777"]);
        let mut programs = vec![
            self.left
                .spawn(command, &self.directory.join("supernode.log"))?,
        ];
        for (host, number) in [(self.left, 1), (self.right, 2)] {
            let mut command = self.peers.command(host, N2N_EDGE);
            command.args(["-f", "-d", "n2n0", "-c", "bench", "-k", "secret", "-a"]);
            command.arg(format!("10.88.0.{number}/24"));
            command.args(["-l", &format!("{}:7777", self.left.address())]);
            programs.push(host.spawn(command, &self.directory.join(format!("edge-{number}.log")))?);
        }
        Ok(Running::Programs(programs, RIGHT))
    }
}
