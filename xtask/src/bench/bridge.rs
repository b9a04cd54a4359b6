//! `cargo xtask bench bridge`: what the bridge through plain HTTP carries, beside what the same proxy gives
//! curl.
//!
//! On loopback, each way, through squid, through tinyproxy as Debian has it, which writes several lines of log for each
//! request and waits for the disk after each, and through one that logs warnings alone (`quiet`): curl with one endless GET or one
//! long PUT, then both ends of a bridge that keep 2 MiB of datagrams under way. One after the other, in
//! turns each round; all programs share the machine's processors with the proxy.

use std::borrow::Cow;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use enishi_lab::forward::{ForwardProxy, ensure_proxies};
use enishi_lab::{Process, command, ensure_programs, until};

use super::report::{Figure, Report};
use crate::program::build_example;

/// How long each measurement lasts, in seconds.
const SECONDS: u64 = 4;

/// The longest that one may take, the search for a way included.
const MEASURE_TIME_MAX: Duration = Duration::from_secs(90);

/// How long the server for curl may take to listen.
const ORIGIN_TIME_MAX: Duration = Duration::from_secs(10);

const PROXIES: [&str; 3] = ["squid", "tinyproxy", "quiet"];
const DIRECTIONS: [&str; 2] = ["up", "down"];

/// The length of the file that curl sends, of zeros that no disk holds: more than passes in the time.
const UPLOAD_BYTES: u64 = 16 << 30;

fn figure_name(proxy: &str, direction: &str, program: &str) -> String {
    format!("{proxy}_{direction}_{program}")
}

fn figures() -> Vec<Figure> {
    let mut figures = Vec::new();
    for proxy in PROXIES {
        for direction in DIRECTIONS {
            let curl = figure_name(proxy, direction, "curl");
            let bridge = figure_name(proxy, direction, "bridge");
            for (name, peer) in [(curl.clone(), None), (bridge, Some(Cow::Owned(curl)))] {
                let (name, unit) = (Cow::Owned(name), "MB/s");
                figures.push(Figure { name, unit, peer });
            }
        }
    }
    figures
}

/// Builds the programs and runs all rounds.
///
/// # Errors
/// When a program is missing, something does not build, or a round fails.
pub(super) fn run(root: &Path, runs: u32) -> anyhow::Result<Report> {
    ensure_proxies()?;
    ensure_programs(&[("curl", "curl")])?;
    let program = build_example(root, "enishi-bridge", "carry")?;
    let directory = tempfile::tempdir().context("making a directory")?;
    let place = Place::start(program, directory.path())?;
    let mut report = Report::new("bridge", runs, &figures());
    for run in 0..runs {
        eprintln!("round {} of {runs}", run + 1);
        for (name, proxy) in PROXIES.iter().zip(&place.proxies) {
            for direction in DIRECTIONS {
                let mut programs = ["curl", "bridge"];
                let turn = run as usize % programs.len();
                programs.rotate_left(turn);
                for program in programs {
                    let bytes_per_s = match program {
                        "curl" => place.curl(proxy.address(), direction),
                        _ => place.bridge(proxy.address(), direction),
                    };
                    let name = figure_name(name, direction, program);
                    let value = bytes_per_s.with_context(|| name.clone())? / 1e6;
                    eprintln!("  {name} {value:.1} MB/s");
                    report.add(&name, value);
                }
            }
        }
    }
    Ok(report)
}

/// What runs in all rounds.
struct Place {
    program: std::path::PathBuf,
    upload: String,
    origin: String,
    proxies: [ForwardProxy; 3],
    _server: Process,
}

impl Place {
    fn start(program: std::path::PathBuf, directory: &Path) -> anyhow::Result<Self> {
        let log = directory.join("origin.log");
        let mut server = command(&program);
        server.arg("origin");
        let server = Process::spawn(server, &log)?;
        let mut origin = String::new();
        until(ORIGIN_TIME_MAX, "the server for curl listens", || {
            origin = std::fs::read_to_string(&log)?.trim().to_owned();
            Ok(origin.parse::<SocketAddr>().is_ok())
        })?;
        let upload = directory.join("zeros");
        let file = std::fs::File::create(&upload).context("making the file to send")?;
        file.set_len(UPLOAD_BYTES)
            .context("making the file to send")?;
        Ok(Self {
            program,
            upload: upload.display().to_string(),
            origin,
            proxies: [
                ForwardProxy::squid(None, free_address()?, "")?,
                ForwardProxy::tinyproxy(None, free_address()?, "")?,
                ForwardProxy::tinyproxy(None, free_address()?, "LogLevel Warning\n")?,
            ],
            _server: server,
        })
    }

    /// What curl gets through a proxy, in octets each second.
    fn curl(&self, proxy: SocketAddr, direction: &str) -> anyhow::Result<f64> {
        let mut curl = command("curl");
        curl.args(["-s", "-o", "/dev/null", "-H", "Expect:", "-x"]);
        curl.arg(format!("http://{proxy}"));
        curl.args(["--max-time", &SECONDS.to_string()]);
        // Without a proxy that the environment names for this host.
        curl.args(["--noproxy", ""]);
        let figure = match direction {
            "up" => {
                curl.args(["-T", &self.upload]);
                "%{speed_upload}"
            }
            _ => "%{speed_download}",
        };
        curl.args(["-w", figure])
            .arg(format!("http://{}/", self.origin));
        // It ends because its time is over.
        let output = enishi_lab::run(curl, MEASURE_TIME_MAX)?;
        number(&output.stdout)
    }

    /// What a bridge carries through a proxy, in octets each second.
    fn bridge(&self, proxy: SocketAddr, direction: &str) -> anyhow::Result<f64> {
        let mut bridge = command(&self.program);
        bridge.args(["bridge", &proxy.to_string(), direction]);
        bridge.arg(SECONDS.to_string());
        let output = enishi_lab::run(bridge, MEASURE_TIME_MAX)?;
        ensure!(output.success(), "the bridge: {}", output.stderr);
        eprintln!("    {}", output.stderr.trim());
        number(&output.stdout)
    }
}

fn number(text: &str) -> anyhow::Result<f64> {
    let number: f64 = text
        .trim()
        .parse()
        .with_context(|| format!("no figure: {text}"))?;
    ensure!(number > 0.0, "nothing passed");
    Ok(number)
}

fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("finding a port")?;
    listener.local_addr().context("finding a port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_of_the_bridge_has_curl_as_its_peer() {
        let figures = figures();
        for figure in &figures {
            assert_eq!(figure.peer.is_some(), figure.name.ends_with("_bridge"));
            let is_there = |name: &Cow<'_, str>| figures.iter().any(|one| one.name == *name);
            assert!(figure.peer.as_ref().is_none_or(is_there));
        }
    }
}
