//! Ordinary programs as measuring instruments: ping and iperf3.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use enishi_lab::{Host, Process};
use serde_json::Value;

/// The longest that one measurement may take.
const MEASURE_TIME_MAX: Duration = Duration::from_secs(30);

/// Which way the payload goes, seen from the host that asks.
#[derive(Clone, Copy)]
pub(super) enum Direction {
    /// From the asker.
    Forward,
    /// To the asker.
    Reverse,
}

impl Direction {
    /// As it appears in the names of figures.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Reverse => "reverse",
        }
    }
}

/// What one TCP flow carried.
#[derive(Debug, PartialEq)]
pub(super) struct Flow {
    /// As received, after the first second.
    pub(super) bits_per_s: f64,
    /// Sent in all, the first second included.
    pub(super) bytes: f64,
}

/// Starts an iperf3 server on all addresses of `host`; dropping it ends it.
pub(super) fn serve(host: &Host, log: &Path) -> anyhow::Result<Process> {
    let mut command = host.command("iperf3");
    command.arg("--server");
    host.spawn(command, log)
}

/// How often, and how long each time, a busy server is waited for.
const BUSY_TRIES: u32 = 10;
const BUSY_WAIT: Duration = Duration::from_millis(300);

/// Measures TCP with some streams for three seconds, after one that does not count.
pub(super) fn tcp(
    from: &Host,
    to: Ipv4Addr,
    direction: Direction,
    streams: u32,
) -> anyhow::Result<Flow> {
    let streams = streams.to_string();
    let mut words = vec!["-t", "3", "-O", "1", "-C", "cubic", "-P", &streams];
    match direction {
        Direction::Forward => {}
        Direction::Reverse => words.push("-R"),
    }
    let report = iperf3(from, to, &words)?;
    flow(&report).with_context(|| format!("iperf3 to {to} reports no throughput"))
}

/// The most datagrams per second that are tried, in thousands.
const KPPS_MAX: f64 = 400.0;
/// How much may be lost, in percent.
const LOSS_MAX: f64 = 0.1;
/// How often the range is halved: to within a hundredth of the most.
const HALVINGS: u32 = 7;
/// How often a rate is tried: what else the machine does in one second is not to decide.
const UDP_TRIES: u32 = 2;
/// Octets that wait in the sockets of both programs: those of some milliseconds, in which the
/// receiver may have to wait for the processor.
const SOCKET_BYTES: &str = "4M";

/// Returns how many datagrams with `bytes` octets of payload pass per second, in thousands,
/// while no more than [`LOSS_MAX`] are lost; found by halving.
pub(super) fn udp_kpps(from: &Host, to: Ipv4Addr, bytes: u32) -> anyhow::Result<f64> {
    let (mut passes, mut fails, mut best) = (0.0, KPPS_MAX, 0.0_f64);
    let length = bytes.to_string();
    for _ in 0..HALVINGS {
        let kpps = f64::midpoint(passes, fails);
        let rate = format!("{:.0}", kpps * 1e3 * f64::from(bytes) * 8.0);
        let words = [
            "-u",
            "-t",
            "1",
            "-w",
            SOCKET_BYTES,
            "-l",
            &length,
            "-b",
            &rate,
        ];
        let mut passed = None;
        for _ in 0..UDP_TRIES {
            passed = passed_kpps(&iperf3(from, to, &words)?);
            if passed.is_some() {
                break;
            }
        }
        let Some(passed) = passed else {
            fails = kpps;
            continue;
        };
        passes = kpps;
        best = best.max(passed);
        // The sender itself does not reach more.
        if passed < kpps * 0.9 {
            break;
        }
    }
    Ok(best)
}

/// Returns how many thousand datagrams per second passed, unless more than [`LOSS_MAX`] were lost.
fn passed_kpps(report: &Value) -> Option<f64> {
    let sum = &report["end"]["sum"];
    let number = |name: &str| sum[name].as_f64();
    let (packets, seconds) = (number("packets")?, number("seconds")?);
    (number("lost_percent")? <= LOSS_MAX && packets > 0.0).then(|| packets / seconds.max(0.1) / 1e3)
}

/// Returns round-trip times in milliseconds while one TCP stream passes the same way.
pub(super) fn round_trips_under_load_ms(from: &Host, to: Ipv4Addr) -> anyhow::Result<Vec<f64>> {
    std::thread::scope(|scope| {
        let load = scope.spawn(|| iperf3(from, to, &["-t", "3", "-C", "cubic"]));
        std::thread::sleep(Duration::from_secs(1));
        let times_ms = round_trips_ms(from, to);
        // Whatever became of it, it has ended.
        load.join()
            .map_err(|_| anyhow::anyhow!("the load ended badly"))??;
        times_ms
    })
}

/// Runs `iperf3` to a server and returns its report.
fn iperf3(from: &Host, to: Ipv4Addr, words: &[&str]) -> anyhow::Result<Value> {
    let to = to.to_string();
    let words = [&["iperf3", "-J", "-c", &to], words].concat();
    let mut tries = 0;
    loop {
        let output = from.run(&words, MEASURE_TIME_MAX)?;
        // With -J its complaints are in the report.
        let report: Value = serde_json::from_str(&output.stdout)
            .with_context(|| format!("iperf3 to {to}: {}", output.stderr.trim()))?;
        tries += 1;
        match report["error"].as_str() {
            None => return Ok(report),
            // The server has not yet put the measurement before this one away.
            Some(error) if error.contains("busy") && tries < BUSY_TRIES => {
                std::thread::sleep(BUSY_WAIT);
            }
            Some(error) => anyhow::bail!("iperf3 to {to}: {error}"),
        }
    }
}

/// Returns the round-trip times in milliseconds of 500 pings, 2 ms apart. Lost ones
/// have none.
pub(super) fn round_trips_ms(from: &Host, to: Ipv4Addr) -> anyhow::Result<Vec<f64>> {
    let to = to.to_string();
    let words = ["ping", "-n", "-i", "0.002", "-c", "500", &to];
    let output = from.run(&words, MEASURE_TIME_MAX)?;
    ensure!(!output.timed_out, "ping to {to} took too long");
    Ok(output.stdout.lines().filter_map(round_trip_ms).collect())
}

/// Tells whether `to` answers one ping within a tenth of a second.
pub(super) fn answers(from: &Host, to: Ipv4Addr) -> anyhow::Result<bool> {
    let to = to.to_string();
    let words = ["ping", "-n", "-q", "-c", "1", "-W", "0.1", &to];
    Ok(from.run(&words, MEASURE_TIME_MAX)?.success())
}

fn flow(report: &Value) -> Option<Flow> {
    let intervals = report["intervals"].as_array()?.iter();
    Some(Flow {
        bits_per_s: report["end"]["sum_received"]["bits_per_second"].as_f64()?,
        bytes: intervals
            .filter_map(|interval| interval["sum"]["bytes"].as_f64())
            .sum(),
    })
}

/// Reads `64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time=0.045 ms`.
fn round_trip_ms(line: &str) -> Option<f64> {
    let (_, rest) = line.split_once(" time=")?;
    rest.strip_suffix(" ms")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_the_lines_of_ping() {
        let line = "64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time=0.045 ms";
        assert_eq!(round_trip_ms(line), Some(0.045));
        assert_eq!(round_trip_ms("500 packets transmitted, time 1002ms"), None);
    }

    #[test]
    fn reads_the_report_of_iperf3() {
        let report = json!({
            "intervals": [
                { "sum": { "bytes": 100, "omitted": true } },
                { "sum": { "bytes": 250, "omitted": false } },
            ],
            "end": { "sum_received": { "bits_per_second": 2000.0 } },
        });
        let bytes = 350.0;
        let bits_per_s = 2000.0;
        assert_eq!(flow(&report), Some(Flow { bits_per_s, bytes }));
        assert_eq!(flow(&json!({ "error": "refused" })), None);
        let sum = |lost| json!({ "packets": 3000, "seconds": 2.0, "lost_percent": lost });
        assert_eq!(
            passed_kpps(&json!({ "end": { "sum": sum(0.1) } })),
            Some(1.5)
        );
        assert_eq!(passed_kpps(&json!({ "end": { "sum": sum(0.2) } })), None);
        assert_eq!(passed_kpps(&json!({ "error": "refused" })), None);
    }

    #[test]
    fn the_instruments_measure_a_bare_veth() {
        let programs = ["ping", "iperf3"].map(enishi_lab::programs::find_program);
        if !enishi_lab::is_root() || programs.iter().any(Option::is_none) {
            eprintln!("skipped: needs root, ping and iperf3");
            return;
        }
        let mut lab = enishi_lab::Lab::new("traffic").unwrap();
        let (left, right) = lab.pair("left", "right").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let _server = serve(&right, &directory.path().join("log")).unwrap();
        assert!(answers(&left, right.address()).unwrap());
        assert!(!answers(&left, Ipv4Addr::new(10, 99, 1, 77)).unwrap());
        let times_ms = round_trips_ms(&left, right.address()).unwrap();
        assert!(times_ms.len() > 400 && times_ms.iter().all(|ms| *ms > 0.0));
        let flow = tcp(&left, right.address(), Direction::Reverse, 1).unwrap();
        assert!(flow.bits_per_s > 1e6 && flow.bytes * 8.0 > flow.bits_per_s);
    }
}
