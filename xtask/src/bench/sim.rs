//! `cargo xtask bench sim`: how fast the simulator is, and how short routes are.
//!
//! Each round runs `enishi sim hops` with few and with many routes; the difference is
//! what the routes cost, the upkeep of all nodes meanwhile included.

use std::borrow::Cow;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::report::{Figure, Report};
use crate::program::build;

const NODES: &str = "1000";
const FEW_ROUTES: u32 = 1_000;
const MANY_ROUTES: u32 = 21_000;

const FIGURES: &[Figure] = &[
    figure("inputs", "1/s"),
    figure("events", "1/s"),
    figure("memory_per_node", "B"),
    figure("lookups", "1/s"),
    figure("mean_hops", "hops"),
    figure("bytes_per_second_per_node", "B/s"),
];

const fn figure(name: &'static str, unit: &'static str) -> Figure {
    Figure {
        name: Cow::Borrowed(name),
        unit,
        peer: None,
    }
}

/// Builds the program and runs all rounds.
///
/// # Errors
/// When the program does not build, or a run fails.
pub(super) fn run(root: &Path, runs: u32) -> anyhow::Result<Report> {
    let program = build(root)?;
    let mut report = Report::new("sim", runs, FIGURES);
    for run in 0..runs {
        eprintln!("round {} of {runs}", run + 1);
        let (few_s, few) = simulate(&program, run, FEW_ROUTES)?;
        let (many_s, many) = simulate(&program, run, MANY_ROUTES)?;
        ensure!(many_s > few_s, "the clock stood still");
        report.add("inputs", (few.inputs + many.inputs) / (few_s + many_s));
        report.add("events", (few.events + many.events) / (few_s + many_s));
        report.add("memory_per_node", few.memory_bytes_per_node);
        let routes = f64::from(MANY_ROUTES - FEW_ROUTES);
        report.add("lookups", routes / (many_s - few_s));
        report.add("mean_hops", many.mean_hops);
        report.add("bytes_per_second_per_node", few.bytes_per_second_per_node);
    }
    Ok(report)
}

struct Results {
    inputs: f64,
    events: f64,
    memory_bytes_per_node: f64,
    mean_hops: f64,
    bytes_per_second_per_node: f64,
}

fn simulate(program: &Path, run: u32, routes: u32) -> anyhow::Result<(f64, Results)> {
    let started = Instant::now();
    let output = Command::new(program)
        .args([
            "sim", "hops", "--nodes", NODES, "--links", "5", "--cost", "--json",
        ])
        .args(["--seed", &(run + 1).to_string()])
        .args(["--routes", &routes.to_string()])
        .output()
        .context("running the simulator")?;
    let elapsed_s = started.elapsed().as_secs_f64();
    ensure!(output.status.success(), "the simulator failed");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let results = &report["results"];
    let memory = report["cost"]["memory_bytes_per_node"].as_f64();
    let number = |name: &str| {
        let value = results[name].as_f64();
        value.with_context(|| format!("the simulator does not tell `{name}`"))
    };
    ensure!(number("success")? > 0.999, "routes went astray");
    let results = Results {
        inputs: number("inputs")?,
        events: number("events")?,
        memory_bytes_per_node: memory.context("the simulator does not tell its memory")?,
        mean_hops: number("mean_hops")?,
        bytes_per_second_per_node: number("bytes_per_second_per_node")?,
    };
    Ok((elapsed_s, results))
}
