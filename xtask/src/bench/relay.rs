//! `cargo xtask bench relay`: two ends whose packets are relayed, beside plain forwarders of datagrams.
//!
//! Three hosts on one bridge; those at the ends know the one in the middle alone. The ends are the same in
//! each case, the engine with a device. In the middle is the engine as a relay, the simplest loop that
//! takes and sends as many datagrams at once, or socat. *Fast*: super-packets cross whole; *wire*: they are
//! cut where they are sent, as by a network card. One after the other, in another order each round.

use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use enishi_lab::daemon::JOIN_TIME_MAX;
use enishi_lab::{Host, Lab, Process, until};

use super::report::{Figure, Report};
use super::traffic::{self, Direction};
use crate::program::build_example;

const PORT: u16 = 5000;
/// socat has a socket for each end.
const SECOND_PORT: u16 = 5001;
const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 2);
/// After the first answer: the longest datagrams are found within a second.
const SETTLING: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Middle {
    Enishi,
    Plain,
    Socat,
}

impl Middle {
    const ALL: [Self; 3] = [Self::Enishi, Self::Plain, Self::Socat];

    fn name(self) -> &'static str {
        match self {
            Self::Enishi => "enishi",
            Self::Plain => "plain",
            Self::Socat => "socat",
        }
    }
}

const SETTINGS: [&str; 2] = ["fast", "wire"];
const MEASURES: &[(&str, &str)] = &[
    ("tcp1_forward", "Gbit/s"),
    ("tcp1_reverse", "Gbit/s"),
    ("udp1300", "kpps"),
    ("cpu", "s/GB"),
];

fn figure_name(setting: &str, middle: Middle, measure: &str) -> String {
    format!("{setting}_{}_{measure}", middle.name())
}

fn figures() -> Vec<Figure> {
    let mut figures = Vec::new();
    for setting in SETTINGS {
        for (measure, unit) in MEASURES {
            for middle in Middle::ALL {
                let beside = (middle != Middle::Plain).then_some(Middle::Plain);
                let peer = beside.map(|peer| Cow::Owned(figure_name(setting, peer, measure)));
                figures.push(Figure {
                    name: Cow::Owned(figure_name(setting, middle, measure)),
                    unit,
                    peer,
                });
            }
        }
    }
    figures
}

/// Builds the programs and runs all rounds.
///
/// # Errors
/// When we are not root, something does not build, or a round fails.
pub(super) fn run(root: &Path, runs: u32) -> anyhow::Result<Report> {
    enishi_lab::install_signal_cleanup()?;
    enishi_lab::ensure_programs(&[
        ("ping", "iputils-ping"),
        ("iperf3", "iperf3"),
        ("ethtool", "ethtool"),
        ("socat", "socat"),
    ])?;
    let program = build_example(root, "enishi-dataplane", "relay")?;
    let mut report = Report::new("relay", runs, &figures());
    for run in 0..runs {
        eprintln!("round {} of {runs}", run + 1);
        for setting in SETTINGS {
            let mut middles = Middle::ALL;
            middles.rotate_left(run as usize % Middle::ALL.len());
            for middle in middles {
                round(&program, setting, middle, &mut report)
                    .with_context(|| format!("{setting}, {}", middle.name()))?;
            }
        }
    }
    Ok(report)
}

/// Three hosts, and what runs on them.
struct Place {
    hosts: [Host; 3],
    programs: Vec<Process>,
    middle: Process,
}

fn round(program: &Path, setting: &str, middle: Middle, report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir().context("making a directory")?;
    let mut lab = Lab::new("bench")?;
    let [left, between, right] = ["left", "middle", "right"].map(|name| lab.host(name));
    let hosts = [left?, between?, right?];
    if setting == "wire" {
        for host in &hosts {
            let words = "ethtool -K eth0 tso off tx-udp-segmentation off gro on";
            let words: Vec<&str> = words.split(' ').collect();
            let output = host.run(&words, Duration::from_secs(10))?;
            ensure!(output.success(), "ethtool: {}", output.stderr);
        }
    }
    let place = Place::start(hosts, program, middle, directory.path())?;
    let from = &place.hosts[0];
    until(JOIN_TIME_MAX, "a ping is answered", || {
        traffic::answers(from, RIGHT)
    })?;
    let _server = traffic::serve(&place.hosts[2], &directory.path().join("iperf3.log"))?;
    sleep(SETTLING);
    eprintln!("  {setting} {}", middle.name());
    let mut add = |measure: &str, value: f64| {
        eprintln!("    {measure} {value:.3}");
        report.add(&figure_name(setting, middle, measure), value);
    };
    let (before_s, mut bytes) = (place.middle.cpu_s()?, 0.0);
    for direction in [Direction::Forward, Direction::Reverse] {
        let flow = traffic::tcp(from, RIGHT, direction, 1)?;
        bytes += flow.bytes;
        let measure = format!("tcp1_{}", direction.name());
        add(&measure, flow.bits_per_s / 1e9);
    }
    ensure!(bytes > 0.0, "nothing passed");
    add("cpu", (place.middle.cpu_s()? - before_s) / (bytes / 1e9));
    add("udp1300", traffic::udp_kpps(from, RIGHT, 1300)?);
    drop(place.programs);
    Ok(())
}

impl Place {
    fn start(
        hosts: [Host; 3],
        program: &Path,
        middle: Middle,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let [left, between, right] = &hosts;
        let [left_at, right_at] = [left, right].map(|host| format!("{}:{PORT}", host.address()));
        let own = |words: &[&str]| {
            let mut command = between.command(program);
            command.args(words);
            command
        };
        let command = match middle {
            Middle::Enishi => own(&["engine", &PORT.to_string()]),
            Middle::Plain => own(&["plain", &PORT.to_string(), &left_at, &right_at]),
            Middle::Socat => {
                let mut command = between.command("socat");
                command.args(["-b", "65536"]);
                command.arg(format!("UDP4-DATAGRAM:{left_at},bind=:{PORT}"));
                command.arg(format!("UDP4-DATAGRAM:{right_at},bind=:{SECOND_PORT}"));
                command
            }
        };
        let middle_process = between.spawn(command, &directory.join("middle.log"))?;
        let mut programs = Vec::new();
        for (host, number) in [(left, 1), (right, 2)] {
            let port = match (middle, number) {
                (Middle::Socat, 2) => SECOND_PORT,
                _ => PORT,
            };
            let mut command = host.command(program);
            command.args(["end", &number.to_string(), &PORT.to_string()]);
            command.arg(format!("{}:{port}", between.address()));
            if middle == Middle::Enishi {
                command.arg("relayed");
            }
            programs.push(host.spawn(command, &directory.join(format!("end-{number}.log")))?);
        }
        Ok(Self {
            hosts,
            programs,
            middle: middle_process,
        })
    }
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
