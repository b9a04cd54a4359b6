//! `cargo xtask bench vnet`: the virtual network beside the wire under it, a plain forwarder of
//! our own, and other people's virtual networks.
//!
//! Each round makes two hosts joined by one veth, twice: *fast* as it is, where super-packets
//! cross whole, and *wire*, where the veth cuts them as a network card would. All contenders
//! are started in turn, the order changing from round to round, and measured alone: TCP with
//! one and four streams each way, datagrams per second with at most a thousandth lost, round
//! trips at rest and under one TCP stream, processor time and memory.

mod contender;
mod peers;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use enishi_lab::daemon::JOIN_TIME_MAX;
use enishi_lab::{Daemon, Host, Lab, until};

use super::report::{Figure, Report, mean, p99};
use super::traffic::{self, Direction};
use crate::program::{build, build_example};
use contender::{Contender, Place, Running};
use peers::Peers;

/// The two ways in which the veth is set up.
#[derive(Clone, Copy, Debug)]
enum Setting {
    Fast,
    Wire,
}

impl Setting {
    const ALL: [Self; 2] = [Self::Fast, Self::Wire];

    fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Wire => "wire",
        }
    }

    fn apply(self, hosts: [&Host; 2]) -> anyhow::Result<()> {
        let Self::Wire = self else { return Ok(()) };
        for host in hosts {
            let words = "ethtool -K eth0 tso off tx-udp-segmentation off gro on";
            let words: Vec<&str> = words.split(' ').collect();
            let output = host.run(&words, Duration::from_secs(10))?;
            ensure!(output.success(), "ethtool: {}", output.stderr);
        }
        Ok(())
    }
}

/// What is measured of each contender, and its unit.
const MEASURES: &[(&str, &str)] = &[
    ("tcp1_forward", "Gbit/s"),
    ("tcp1_reverse", "Gbit/s"),
    ("tcp4_forward", "Gbit/s"),
    ("tcp4_reverse", "Gbit/s"),
    ("udp1300", "kpps"),
    ("udp64", "kpps"),
    ("rtt_mean", "ms"),
    ("rtt_p99", "ms"),
    ("rtt_loaded_p99", "ms"),
    ("cpu", "s/GB"),
    ("rss", "MB"),
];

/// After the first answered ping, until the measurements begin.
const SETTLING: Duration = Duration::from_secs(3);

/// What ours is held against.
const PEER: Contender = Contender::WireguardGo;

fn figure_name(setting: Setting, contender: Contender, measure: &str) -> String {
    format!("{}_{}_{measure}", setting.name(), contender.name())
}

fn figures() -> Vec<Figure> {
    let mut figures = vec![Figure {
        name: Cow::Borrowed("time_to_first_ping_ms"),
        unit: "ms",
        peer: None,
    }];
    for setting in Setting::ALL {
        for (measure, unit) in MEASURES {
            for contender in Contender::ALL {
                let beside = match contender {
                    Contender::Bare | Contender::WireguardGo => None,
                    _ => Some(PEER),
                };
                let peer = beside.map(|peer| Cow::Owned(figure_name(setting, peer, measure)));
                figures.push(Figure {
                    name: Cow::Owned(figure_name(setting, contender, measure)),
                    unit,
                    peer,
                });
            }
        }
    }
    figures
}

/// Builds our programs, gets those of others, and runs all rounds.
///
/// # Errors
/// When we are not root, the daemon does not build, or a round fails.
pub(super) fn run(root: &Path, runs: u32) -> anyhow::Result<Report> {
    enishi_lab::install_signal_cleanup()?;
    enishi_lab::ensure_programs(&[
        ("ping", "iputils-ping"),
        ("iperf3", "iperf3"),
        ("ethtool", "ethtool"),
        ("nft", "nftables"),
    ])?;
    let program = build(root)?;
    build_example(root, "enishi-dataplane", "forwarder")?;
    let programs = program.parent().map_or_else(PathBuf::new, Path::to_owned);
    let peers = Peers::get(&root.join("target"))?;
    let mut report = Report::new("vnet", runs, &figures());
    for run in 0..runs {
        eprintln!("round {} of {runs}", run + 1);
        let time_ms = time_to_first_ping_ms(&program)?;
        report.add("time_to_first_ping_ms", time_ms);
        for setting in Setting::ALL {
            round(&programs, &peers, setting, run, &mut report)
                .with_context(|| format!("in round {}, {}", run + 1, setting.name()))?;
        }
    }
    Ok(report)
}

/// From starting a second daemon to the first answered ping on a virtual address.
fn time_to_first_ping_ms(program: &Path) -> anyhow::Result<f64> {
    const CHANNEL: &str = "bench";
    let directory = tempfile::tempdir().context("making a directory for two daemons")?;
    let mut lab = Lab::new("bench")?;
    let (left, right) = lab.pair("left", "right")?;
    let first = Daemon::start(program, Some(&left), &directory.path().join("left"), &[])?;
    first.text(&["channel", "create", CHANNEL, "--network", "10.77.0.0/16"])?;
    let ticket = first.text(&["channel", "invite", CHANNEL, "--uses", "any"])?;
    let there = first.address()?;
    let started = Instant::now();
    let data = directory.path().join("right");
    let second = Daemon::start(program, Some(&right), &data, &["--bootstrap", &ticket])?;
    second.text(&["channel", "join", &ticket])?;
    until(JOIN_TIME_MAX, "a virtual ping is answered", || {
        traffic::answers(&right, there)
    })?;
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

fn round(
    programs: &Path,
    peers: &Peers,
    setting: Setting,
    run: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut contenders = Contender::ALL;
    contenders.rotate_left(run as usize % Contender::ALL.len());
    for contender in contenders {
        let directory = tempfile::tempdir().context("making a directory for a contender")?;
        let mut lab = Lab::new("bench")?;
        let (left, right) = lab.pair("left", "right")?;
        setting.apply([&left, &right])?;
        let _server = traffic::serve(&right, &directory.path().join("iperf3.log"))?;
        let place = Place {
            left: &left,
            right: &right,
            directory: directory.path(),
            programs,
            peers,
        };
        let Some(running) = contender.start(&place)? else {
            continue;
        };
        eprintln!("  {} {}", setting.name(), contender.name());
        let mut add = |measure: &str, value: f64| {
            eprintln!("    {measure} {value:.3}");
            report.add(&figure_name(setting, contender, measure), value);
        };
        // What programs do when they start is not measured.
        sleep(SETTLING);
        measure(&left, &running, &mut add)
            .with_context(|| format!("measuring {}", contender.name()))?;
    }
    Ok(())
}

fn measure(from: &Host, running: &Running, add: &mut impl FnMut(&str, f64)) -> anyhow::Result<()> {
    let to = running.address();
    let times_ms = traffic::round_trips_ms(from, to)?;
    add("rtt_mean", mean(&times_ms).context("no ping was answered")?);
    add("rtt_p99", p99(&times_ms).context("no ping was answered")?);
    let (mut cpu_s, mut bytes) = (0.0, 0.0);
    for streams in [1, 4] {
        for direction in [Direction::Forward, Direction::Reverse] {
            let before_s = running.cpu_s()?;
            let flow = traffic::tcp(from, to, direction, streams)?;
            cpu_s += running.cpu_s()? - before_s;
            bytes += flow.bytes;
            add(
                &format!("tcp{streams}_{}", direction.name()),
                flow.bits_per_s / 1e9,
            );
        }
    }
    ensure!(bytes > 0.0, "nothing passed");
    add("cpu", cpu_s / (bytes / 1e9));
    let loaded_ms = traffic::round_trips_under_load_ms(from, to)?;
    add(
        "rtt_loaded_p99",
        p99(&loaded_ms).context("no ping was answered under load")?,
    );
    for size in [1300, 64] {
        add(&format!("udp{size}"), traffic::udp_kpps(from, to, size)?);
    }
    if let Some(rss_mb) = running.rss_mb()? {
        add("rss", rss_mb);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_figures_too() {
        let figures = figures();
        for peer in figures.iter().filter_map(|figure| figure.peer.as_ref()) {
            assert!(figures.iter().any(|figure| figure.name == *peer), "{peer}");
        }
    }
}
