//! A real daemon on a host of the lab, driven by the real command line.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use enishi_lab::{Host, Process};

use crate::process::{cargo, follow_quietly};

/// How long a daemon may take to answer, and a node to join and be reached.
pub(super) const JOIN_WAIT_MAX: Duration = Duration::from_secs(30);

/// Between two tries of something that is not there yet.
const TRY_AGAIN: Duration = Duration::from_millis(5);

/// The longest that one call of the command line may take.
const CALL_TIME_MAX: Duration = Duration::from_secs(30);

/// Builds the release daemon and returns its path.
pub(super) fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let mut command = cargo(root);
    command.args(["build", "--release", "--package", "enishi-cli"]);
    // Standard output is for the report alone.
    let well = follow_quietly(&mut command, |line| eprintln!("{line}"))?;
    ensure!(well, "the daemon does not build");
    Ok(root.join("target/release/enishi"))
}

/// One `enishi up` and its data directory.
pub(super) struct Daemon {
    process: Process,
    program: PathBuf,
    data: PathBuf,
}

impl Daemon {
    pub(super) fn start(
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
    pub(super) fn call(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut command = enishi_lab::command(&self.program);
        command.arg("--data").arg(&self.data).args(words);
        let output = enishi_lab::run(command, CALL_TIME_MAX)?;
        let said = output.stderr.trim();
        ensure!(output.success(), "`enishi {}`: {said}", words.join(" "));
        Ok(output.stdout)
    }

    pub(super) fn wait_until_there(&self) -> anyhow::Result<()> {
        let there = until(JOIN_WAIT_MAX, "the daemon answers", || {
            Ok(self.call(&["status", "--json"]).is_ok())
        });
        there.with_context(|| {
            let log = std::fs::read_to_string(self.process.log()).unwrap_or_default();
            format!("the daemon said:\n{log}")
        })
    }

    /// Returns the virtual address, once the node holds one.
    pub(super) fn address(&self) -> anyhow::Result<Ipv4Addr> {
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
    pub(super) fn rss_mb(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        parse_rss_mb(&status).with_context(|| format!("no VmRSS in {path}"))
    }

    /// Processor time used since the start, in seconds.
    pub(super) fn cpu_s(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/stat", self.process.id());
        let stat = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        parse_cpu_s(&stat).with_context(|| format!("{path} cannot be read"))
    }
}

/// Tries `holds` again and again until it does.
pub(super) fn until(
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
}
