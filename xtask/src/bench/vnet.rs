//! `cargo xtask bench vnet`: the virtual network beside the wire under it.
//!
//! Each round makes two hosts joined by one veth, starts a release daemon on each,
//! lets the second join the channel of the first, and then measures the bare veth
//! and the virtual addresses in turn, the order changing from round to round.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use enishi_lab::{Host, Lab, Process};

use super::report::{Figure, Report, mean, p99};
use super::traffic::{self, Direction};
use crate::process::{cargo, follow_quietly};

/// How long a daemon may take to answer, and a node to join and be reached.
const JOIN_WAIT_MAX: Duration = Duration::from_secs(30);

/// Between two tries of something that is not there yet.
const TRY_AGAIN: Duration = Duration::from_millis(5);

/// The longest that one call of the command line may take.
const CALL_TIME_MAX: Duration = Duration::from_secs(30);

const CHANNEL: &str = "bench";
const NETWORK: &str = "10.77.0.0/16";

const FIGURES: &[Figure] = &[
    figure("bare_tcp_forward", "Gbit/s", None),
    figure("virtual_tcp_forward", "Gbit/s", Some("bare_tcp_forward")),
    figure("bare_tcp_reverse", "Gbit/s", None),
    figure("virtual_tcp_reverse", "Gbit/s", Some("bare_tcp_reverse")),
    figure("bare_rtt_mean", "ms", None),
    figure("virtual_rtt_mean", "ms", Some("bare_rtt_mean")),
    figure("bare_rtt_p99", "ms", None),
    figure("virtual_rtt_p99", "ms", Some("bare_rtt_p99")),
    figure("daemon_rss_idle", "MB", None),
    figure("daemon_rss_loaded", "MB", None),
    figure("daemons_cpu", "s/GB", None),
    figure("time_to_first_ping_ms", "ms", None),
];

const fn figure(name: &'static str, unit: &'static str, peer: Option<&'static str>) -> Figure {
    Figure { name, unit, peer }
}

/// Builds the daemon and runs all rounds.
///
/// # Errors
/// When we are not root, the daemon does not build, or a round fails.
pub(super) fn run(root: &Path, runs: u32) -> anyhow::Result<Report> {
    enishi_lab::install_signal_cleanup()?;
    enishi_lab::ensure_programs(&[("ping", "iputils-ping"), ("iperf3", "iperf3")])?;
    let program = build(root)?;
    let mut report = Report::new("vnet", runs, FIGURES);
    for run in 0..runs {
        eprintln!("round {} of {runs}", run + 1);
        round(&program, run, &mut report).with_context(|| format!("in round {}", run + 1))?;
    }
    Ok(report)
}

fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let mut command = cargo(root);
    command.args(["build", "--release", "--package", "enishi-cli"]);
    // Standard output is for the report alone.
    let well = follow_quietly(&mut command, |line| eprintln!("{line}"))?;
    ensure!(well, "the daemon does not build");
    Ok(root.join("target/release/enishi"))
}

fn round(program: &Path, run: u32, report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir().context("making a directory for two daemons")?;
    let mut lab = Lab::new("bench")?;
    let (left, right) = lab.pair("left", "right")?;
    let server = traffic::serve(&right, &directory.path().join("iperf3.log"))?;

    let first = Daemon::start(program, &left, directory.path(), None)?;
    first.wait_until_there()?;
    first.call(&["channel", "create", CHANNEL, "--network", NETWORK])?;
    let ticket = first.call(&["channel", "invite", CHANNEL])?;
    let inner_left = first.address()?;

    let started = Instant::now();
    let second = Daemon::start(program, &right, directory.path(), Some(ticket.trim()))?;
    second.wait_until_there()?;
    second.call(&["channel", "join", ticket.trim()])?;
    until(JOIN_WAIT_MAX, "a virtual ping is answered", || {
        traffic::answers(&right, inner_left)
    })?;
    report.add(
        "time_to_first_ping_ms",
        started.elapsed().as_secs_f64() * 1e3,
    );
    report.add("daemon_rss_idle", second.rss_mb()?);

    let inner_right = second.address()?;
    let mut cases = [("bare", right.address()), ("virtual", inner_right)];
    if run % 2 == 1 {
        cases.reverse();
    }
    let daemons = [&first, &second];
    measure_tcp(&left, cases, &daemons, report)?;
    report.add("daemon_rss_loaded", second.rss_mb()?);
    for (case, address) in cases {
        let times_ms = traffic::round_trips_ms(&left, address)?;
        let figures = [("mean", mean(&times_ms)), ("p99", p99(&times_ms))];
        for (figure, value) in figures {
            let value = value.with_context(|| format!("no {case} ping was answered"))?;
            report.add(&format!("{case}_rtt_{figure}"), value);
        }
    }
    drop(server);
    Ok(())
}

/// TCP each way, and what the daemons worked for the virtual part of it.
fn measure_tcp(
    from: &Host,
    cases: [(&str, Ipv4Addr); 2],
    daemons: &[&Daemon],
    report: &mut Report,
) -> anyhow::Result<()> {
    let (mut cpu_s, mut bytes) = (0.0, 0.0);
    for direction in [Direction::Forward, Direction::Reverse] {
        for (case, address) in cases {
            let before_s = cpu_of_all_s(daemons)?;
            let flow = traffic::tcp(from, address, direction)?;
            if case == "virtual" {
                cpu_s += cpu_of_all_s(daemons)? - before_s;
                bytes += flow.bytes;
            }
            let name = format!("{case}_tcp_{}", direction.name());
            report.add(&name, flow.bits_per_s / 1e9);
        }
    }
    ensure!(bytes > 0.0, "nothing passed the virtual network");
    report.add("daemons_cpu", cpu_s / (bytes / 1e9));
    Ok(())
}

fn cpu_of_all_s(daemons: &[&Daemon]) -> anyhow::Result<f64> {
    daemons.iter().map(|daemon| daemon.cpu_s()).sum()
}

/// One `enishi up` and its data directory.
struct Daemon {
    process: Process,
    program: PathBuf,
    data: PathBuf,
}

impl Daemon {
    fn start(
        program: &Path,
        host: &Host,
        directory: &Path,
        bootstrap: Option<&str>,
    ) -> anyhow::Result<Self> {
        let data = directory.join(host.name());
        let mut command = host.command(program);
        command.arg("up").arg("--data").arg(&data);
        if let Some(ticket) = bootstrap {
            command.args(["--bootstrap", ticket]);
        }
        let process = host.spawn(command, &directory.join(format!("{}.log", host.name())))?;
        let program = program.to_path_buf();
        Ok(Self {
            process,
            program,
            data,
        })
    }

    /// Runs one command of the command line and returns its standard output.
    fn call(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut command = enishi_lab::command(&self.program);
        command.arg("--data").arg(&self.data).args(words);
        let output = enishi_lab::run(command, CALL_TIME_MAX)?;
        let said = output.stderr.trim();
        ensure!(output.success(), "`enishi {}`: {said}", words.join(" "));
        Ok(output.stdout)
    }

    fn wait_until_there(&self) -> anyhow::Result<()> {
        let there = until(JOIN_WAIT_MAX, "the daemon answers", || {
            Ok(self.call(&["status", "--json"]).is_ok())
        });
        there.with_context(|| {
            let log = std::fs::read_to_string(self.process.log()).unwrap_or_default();
            format!("the daemon said:\n{log}")
        })
    }

    /// Returns the virtual address, once the node holds one.
    fn address(&self) -> anyhow::Result<Ipv4Addr> {
        let mut address = None;
        until(JOIN_WAIT_MAX, "the node holds a virtual address", || {
            let status: serde_json::Value =
                serde_json::from_str(&self.call(&["status", "--json"])?)?;
            let text = status["channels"][0]["address"].as_str();
            address = text.and_then(|text| text.parse().ok());
            Ok(address.is_some())
        })?;
        address.context("the daemon's status has no address")
    }

    /// Memory that is resident now, in megabytes.
    fn rss_mb(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        parse_rss_mb(&status).with_context(|| format!("no VmRSS in {path}"))
    }

    /// Processor time used since the start, in seconds.
    fn cpu_s(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/stat", self.process.id());
        let stat = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        parse_cpu_s(&stat).with_context(|| format!("{path} cannot be read"))
    }
}

/// Tries `holds` again and again until it does.
fn until(
    limit: Duration,
    what: &str,
    mut holds: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let started = Instant::now();
    while !holds()? {
        ensure!(started.elapsed() < limit, "waited {limit:?} until {what}");
        std::thread::sleep(TRY_AGAIN);
    }
    Ok(())
}

/// Reads `VmRSS:  1234 kB` (units of 1,024 octets) of `/proc/PID/status`.
fn parse_rss_mb(status: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

/// Reads `utime` and `stime` of `/proc/PID/stat`, which count in ticks of 10 ms. The
/// name before them is in parentheses and may hold anything.
fn parse_cpu_s(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_memory_and_processor_time() {
        let status = "Name:\tenishi\nVmRSS:\t   10000 kB\n";
        assert_eq!(parse_rss_mb(status), Some(10.24));
        assert_eq!(parse_rss_mb(""), None);
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 4 0";
        assert_eq!(parse_cpu_s(stat), Some(2.0));
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert!(parse_cpu_s(&own).is_some());
    }

    #[test]
    fn peers_are_figures_too() {
        let peers = FIGURES.iter().filter_map(|figure| figure.peer);
        for peer in peers {
            assert!(FIGURES.iter().any(|figure| figure.name == peer), "{peer}");
        }
    }
}
