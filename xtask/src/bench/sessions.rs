//! `cargo xtask bench sessions`: what many sessions that are silent cost the one that is not.
//!
//! The engine of one host has a session with another host, and, in the second case, with 998
//! more engines on a third; the throughput of the first session is measured in both.

use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use enishi_lab::{Lab, Process, until};

use super::report::{Figure, Report, p99};
use super::traffic::{self, Direction};
use crate::program::build_example;

/// How many members there are in the two cases: one session, and a thousand but one.
const CASES: [u16; 2] = [2, 1000];
/// The address of the right host in the network.
const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 2);
const START_TIME_MAX: Duration = Duration::from_secs(20);
/// How long the sessions may look for their ways before it is measured.
const SETTLE: Duration = Duration::from_secs(5);

/// What is measured in each case, and its unit.
const MEASURES: [(&str, &str); 5] = [
    ("tcp1_forward", "Gbit/s"),
    ("tcp1_reverse", "Gbit/s"),
    ("rtt_p99", "ms"),
    ("cpu_at_rest", "%"),
    ("rss", "MB"),
];

fn figure_name(members: u16, measure: &str) -> String {
    format!("members{members}_{measure}")
}

fn figures() -> Vec<Figure> {
    let [few, many] = CASES;
    let figure = |(measure, unit), members, peer: Option<u16>| Figure {
        name: Cow::Owned(figure_name(members, measure)),
        unit,
        peer: peer.map(|peer| Cow::Owned(figure_name(peer, measure))),
    };
    let both = |measure| [figure(measure, few, None), figure(measure, many, Some(few))];
    MEASURES.into_iter().flat_map(both).collect()
}

/// Builds the engines and runs all rounds.
///
/// # Errors
/// When we are not root, the engines do not build, or a round fails.
pub(super) fn run(root: &Path, runs: u32) -> anyhow::Result<Report> {
    enishi_lab::install_signal_cleanup()?;
    enishi_lab::ensure_programs(&[("ping", "iputils-ping"), ("iperf3", "iperf3")])?;
    let program = build_example(root, "enishi-dataplane", "crowd")?;
    let mut report = Report::new("sessions", runs, &figures());
    for run in 0..runs {
        eprintln!("round {} of {runs}", run + 1);
        for members in CASES {
            measure(&program, members, &mut report)
                .with_context(|| format!("in round {}, {members} members", run + 1))?;
        }
    }
    Ok(report)
}

fn measure(program: &Path, members: u16, report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir().context("making a directory for logs")?;
    let mut lab = Lab::new("bench")?;
    let hosts = [lab.host("left")?, lab.host("right")?, lab.host("rest")?];
    let mut engines = Vec::new();
    for host in &hosts {
        let mut command = host.command(program);
        command.args([host.name(), &members.to_string()]);
        command.args(hosts.iter().map(|host| host.address().to_string()));
        engines.push(host.spawn(command, &directory.path().join(host.name()))?);
    }
    let [left, right, _] = &hosts;
    let _server = traffic::serve(right, &directory.path().join("iperf3"))?;
    until(START_TIME_MAX, "a ping is answered", || {
        traffic::answers(left, RIGHT)
    })?;
    std::thread::sleep(SETTLE);
    let mut add = |measure: &str, value| report.add(&figure_name(members, measure), value);
    add("cpu_at_rest", cpu_at_rest(&engines[0])?);
    let times_ms = traffic::round_trips_ms(left, RIGHT)?;
    add("rtt_p99", p99(&times_ms).context("no ping was answered")?);
    for direction in [Direction::Forward, Direction::Reverse] {
        let flow = traffic::tcp(left, RIGHT, direction, 1)?;
        add(&format!("tcp1_{}", direction.name()), flow.bits_per_s / 1e9);
    }
    add("rss", engines[0].rss_mb()?);
    Ok(())
}

/// Returns which share of one processor a process takes in a while without traffic, in percent.
fn cpu_at_rest(process: &Process) -> anyhow::Result<f64> {
    const WHILE: Duration = Duration::from_secs(5);
    let before_s = process.cpu_s()?;
    std::thread::sleep(WHILE);
    Ok((process.cpu_s()? - before_s) / WHILE.as_secs_f64() * 100.0)
}
