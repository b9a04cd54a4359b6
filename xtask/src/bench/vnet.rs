//! `cargo xtask bench vnet`: the virtual network beside the wire under it.
//!
//! Each round makes two hosts joined by one veth, starts a release daemon on each,
//! lets the second join the channel of the first, and then measures the bare veth
//! and the virtual addresses in turn, the order changing from round to round.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use enishi_lab::daemon::JOIN_TIME_MAX;
use enishi_lab::{Daemon, Host, Lab, until};

use super::program::build;
use super::report::{Figure, Report, mean, p99};
use super::traffic::{self, Direction};

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

fn round(program: &Path, run: u32, report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir().context("making a directory for two daemons")?;
    let mut lab = Lab::new("bench")?;
    let (left, right) = lab.pair("left", "right")?;
    let server = traffic::serve(&right, &directory.path().join("iperf3.log"))?;

    let first = Daemon::start(program, Some(&left), &directory.path().join("left"), &[])?;
    first.text(&["channel", "create", CHANNEL, "--network", NETWORK])?;
    let ticket = first.text(&["channel", "invite", CHANNEL])?;
    let inner_left = first.address()?;

    let started = Instant::now();
    let data = directory.path().join("right");
    let second = Daemon::start(program, Some(&right), &data, &["--bootstrap", &ticket])?;
    second.text(&["channel", "join", &ticket])?;
    until(JOIN_TIME_MAX, "a virtual ping is answered", || {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_figures_too() {
        let peers = FIGURES.iter().filter_map(|figure| figure.peer);
        for peer in peers {
            assert!(FIGURES.iter().any(|figure| figure.name == peer), "{peer}");
        }
    }
}
