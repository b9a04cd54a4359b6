//! `cargo xtask bench`: measures something beside its peer in the same run.
//!
//! A benchmark is a set of cases that are run in turn, round after round, so that
//! whatever else the machine does falls on all of them alike. Medians are reported,
//! every value with them, and ratios to a peer measured in the same rounds.

mod bridge;
mod fifty;
mod floods;
mod idle;
mod relay;
mod report;
mod sessions;
mod sim;
mod traffic;
mod vnet;

use std::path::Path;

use anyhow::bail;

use report::Report;

/// How many rounds are run unless told otherwise.
pub(crate) const RUNS: u32 = 5;

/// A benchmark that can be asked for.
struct Bench {
    name: &'static str,
    about: &'static str,
    run: fn(&Path, u32) -> anyhow::Result<Report>,
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "bridge",
        about: "the bridge through plain HTTP, by squid and tinyproxy: beside what they give curl",
        run: bridge::run,
    },
    Bench {
        name: "fifty",
        about: "fifty daemons join at once, a third is killed: beside the simulator's forecast",
        run: fifty::run,
    },
    Bench {
        name: "floods",
        about: "floods of handshakes and datagrams: what they cost their sender and their victim",
        run: floods::run,
    },
    Bench {
        name: "idle",
        about: "a daemon with ten peers that has nothing to do: memory, CPU, octets",
        run: idle::run,
    },
    Bench {
        name: "relay",
        about: "two ends whose packets are relayed: throughput beside plain forwarders of datagrams",
        run: relay::run,
    },
    Bench {
        name: "sessions",
        about: "a thousand sessions on one engine: what they cost the one that is in use",
        run: sessions::run,
    },
    Bench {
        name: "sim",
        about: "the simulator with a thousand nodes: lookups per second, hops",
        run: sim::run,
    },
    Bench {
        name: "vnet",
        about: "two daemons on one veth: TCP, round trips, memory and CPU beside the bare veth",
        run: vnet::run,
    },
];

/// Runs a benchmark and prints its report; without a name lists them all.
///
/// # Errors
/// When there is no such benchmark, or when it cannot measure.
pub(crate) fn run(root: &Path, name: Option<&str>, runs: u32, json: bool) -> anyhow::Result<bool> {
    let Some(name) = name else {
        for bench in BENCHES {
            println!("{:8}  {}", bench.name, bench.about);
        }
        return Ok(true);
    };
    let Some(bench) = BENCHES.iter().find(|bench| bench.name == name) else {
        let names: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
        bail!("no benchmark `{name}`; there are: {}", names.join(", "));
    };
    let report = (bench.run)(root, runs)?;
    if json {
        println!("{:#}", report.to_json());
    } else {
        print!("{}", report.table());
    }
    Ok(true)
}
