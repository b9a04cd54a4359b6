//! `enishi sim`.

use std::fs;
use std::io::{self, IsTerminal};
use std::time::Instant;

use enishi_sim::{Options, Report};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::args::Sim;
use crate::output::Output;
use crate::output::table::Table;
use crate::problem::{Problem, Verdict};

/// The parts into which a run is divided for the progress bar.
const PARTS: u64 = 1000;

/// Runs a scenario and tells what came of it.
///
/// # Errors
/// [`Problem`] when the result cannot be written.
pub(crate) fn run(out: &Output, options: &Sim) -> Result<Verdict, Problem> {
    let bar = progress_bar(out);
    let simulated = Options {
        nodes: options.nodes as usize,
        seed: options.seed,
        long_links: options.links,
        routes: u64::from(options.routes),
    };
    let (started, memory_before) = (Instant::now(), memory_most_bytes());
    let mut report = options
        .scenario
        .run(&simulated, &mut |done| bar.set_position(u64::from(done)));
    bar.finish_and_clear();
    let results = &mut report.results;
    results.events_per_second = Some(results.events as f64 / started.elapsed().as_secs_f64());
    results.memory_bytes_per_node = memory_most_bytes()
        .zip(memory_before)
        .map(|(after, before)| (after - before) / u64::from(options.nodes));
    if out.json {
        out.object(&report)?;
    } else {
        out.line(&table(&report))?;
    }
    Ok(Verdict::Yes)
}

/// Returns the most memory that this process ever had, where the kernel tells it.
fn memory_most_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

fn progress_bar(out: &Output) -> ProgressBar {
    if out.json || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {eta} left");
    let bar = ProgressBar::new(PARTS);
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

fn table(report: &Report) -> String {
    let mut table = Table::new(["figure", "value"]).right(1);
    table.row(["scenario".to_owned(), report.scenario.to_owned()]);
    table.row(["nodes".to_owned(), report.nodes.to_string()]);
    table.row(["seed".to_owned(), report.seed.to_string()]);
    if let Ok(Value::Object(figures)) = serde_json::to_value(&report.results) {
        for (name, value) in figures {
            table.row([name, figure(&value)]);
        }
    }
    table.print()
}

fn figure(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            format!("{:.3}", number.as_f64().unwrap_or_default())
        }
        other => other.to_string(),
    }
}
