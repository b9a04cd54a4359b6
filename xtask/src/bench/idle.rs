//! `cargo xtask bench idle`: what a daemon costs that does nothing but belong.
//!
//! Each round makes eleven hosts on one bridge with a daemon each, all members of one
//! channel, lets them settle, and measures one of them for a minute: it has ten peers. Then
//! a hundred and one, of which one pings all the others before its memory is measured.

use std::borrow::Cow;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use enishi_lab::daemon::JOIN_TIME_MAX;
use enishi_lab::{Daemon, Host, Lab, until};
use tempfile::TempDir;

use super::report::{Figure, Report};
use super::traffic;
use crate::program::build;

const HOSTS: usize = 11;
const HOSTS_OF_MANY: usize = 101;
/// After the last join, until the measurement begins.
const SETTLING: Duration = Duration::from_secs(60);
const MEASURED: Duration = Duration::from_secs(60);

const FIGURES: &[Figure] = &[
    figure("peers", "nodes"),
    figure("daemon_rss", "MB"),
    figure("daemon_cpu", "ms/s"),
    figure("wire_sent", "B/s"),
    figure("wire_received", "B/s"),
    figure("members_reached", "members"),
    figure("daemon_rss_of_many", "MB"),
];

const fn figure(name: &'static str, unit: &'static str) -> Figure {
    Figure {
        name: Cow::Borrowed(name),
        unit,
        peer: None,
    }
}

/// Builds the daemon and runs all rounds.
///
/// # Errors
/// When we are not root, the daemon does not build, or a round fails.
pub(super) fn run(root: &Path, runs: u32) -> anyhow::Result<Report> {
    enishi_lab::install_signal_cleanup()?;
    let program = build(root)?;
    let mut report = Report::new("idle", runs, FIGURES);
    for run in 0..runs {
        eprintln!("round {} of {runs}: about five minutes", run + 1);
        at_rest(&program, &mut report).with_context(|| format!("in round {}", run + 1))?;
        with_many(&program, &mut report).with_context(|| format!("in round {}", run + 1))?;
    }
    Ok(report)
}

fn at_rest(program: &Path, report: &mut Report) -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut lab = Lab::new("idle")?;
    let daemons = place.gather(program, &mut lab, HOSTS)?;
    sleep(SETTLING);
    let (host, daemon) = daemons.get(HOSTS / 2).context("no daemon to measure")?;
    let before = (octets(host)?, daemon.cpu_s()?);
    sleep(MEASURED);
    let after = (octets(host)?, daemon.cpu_s()?);
    let status = daemon.json(&["status"])?;
    let seconds = MEASURED.as_secs_f64();
    report.add("peers", status["peers"].as_f64().unwrap_or_default());
    report.add("daemon_rss", daemon.rss_mb()?);
    report.add("daemon_cpu", (after.1 - before.1) * 1e3 / seconds);
    report.add("wire_sent", (after.0.0 - before.0.0) / seconds);
    report.add("wire_received", (after.0.1 - before.0.1) / seconds);
    Ok(())
}

fn with_many(program: &Path, report: &mut Report) -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut lab = Lab::new("many")?;
    let daemons = place.gather(program, &mut lab, HOSTS_OF_MANY)?;
    let mut daemons = daemons.iter();
    let (host, daemon) = daemons.next().context("no daemon to measure")?;
    let mut reached = 0;
    for (_, other) in daemons {
        let address = other.address()?;
        until(JOIN_TIME_MAX, "a virtual ping is answered", || {
            traffic::answers(host, address)
        })?;
        reached += 1;
    }
    report.add("members_reached", f64::from(reached));
    report.add("daemon_rss_of_many", daemon.rss_mb()?);
    Ok(())
}

/// Where the daemons have their files.
struct Place(TempDir);

impl Place {
    fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("making a directory for the daemons")?;
        Ok(Self(directory))
    }

    /// Starts so many daemons on hosts of their own, all members of one channel.
    fn gather(
        &self,
        program: &Path,
        lab: &mut Lab,
        count: usize,
    ) -> anyhow::Result<Vec<(Host, Daemon)>> {
        let hosts = (0..count).map(|number| lab.host(&format!("h{number}")));
        let hosts = hosts.collect::<anyhow::Result<Vec<Host>>>()?;
        lab.acquaint(&hosts.iter().collect::<Vec<_>>())?;
        let mut daemons: Vec<(Host, Daemon)> = Vec::new();
        let mut ticket = String::new();
        for (number, host) in hosts.into_iter().enumerate() {
            let bootstrap = ["--bootstrap", &ticket];
            let arguments = if number == 0 { &[][..] } else { &bootstrap };
            let data = self.0.path().join(host.name());
            let daemon = Daemon::start(program, Some(&host), &data, arguments)?;
            if number == 0 {
                daemon.text(&["channel", "create", "idle"])?;
                ticket = daemon.text(&["channel", "invite", "idle", "--uses", "any"])?;
            } else {
                daemon.text(&["channel", "join", &ticket])?;
            }
            daemons.push((host, daemon));
        }
        Ok(daemons)
    }
}

/// What has passed the host's interface, Ethernet headers included: sent and received.
fn octets(host: &Host) -> anyhow::Result<(f64, f64)> {
    let read = |name: &str| -> anyhow::Result<f64> {
        let file = format!("/sys/class/net/eth0/statistics/{name}");
        let output = host.run(&["cat", &file], Duration::from_secs(5))?;
        ensure!(output.success(), "{file} cannot be read");
        Ok(output.stdout.trim().parse()?)
    };
    Ok((read("tx_bytes")?, read("rx_bytes")?))
}
