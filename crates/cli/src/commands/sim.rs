//! `enishi sim`.

use std::io::{self, IsTerminal};

use enishi_sim::{Options, Report};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::replay;
use crate::args::{Recorded, Sim};
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
    if let Some(Recorded::Replay { file }) = &options.recorded {
        return replay::run(out, file);
    }
    let Some(scenario) = options.scenario else {
        return Err(Problem::Usage("Name a scenario.".to_owned()));
    };
    let bar = progress_bar(out, PARTS);
    let simulated = Options {
        nodes: options.nodes as usize,
        seed: options.seed,
        long_links: options.links,
        routes: u64::from(options.routes),
    };
    let report = scenario.run(&simulated, &mut |done| bar.set_position(u64::from(done)));
    bar.finish_and_clear();
    if out.json {
        out.object(&report)?;
    } else {
        out.line(&table(&report))?;
    }
    Ok(Verdict::Yes)
}

/// A bar of so many parts, for a person alone.
pub(super) fn progress_bar(out: &Output, parts: u64) -> ProgressBar {
    if out.json || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {eta} left");
    let bar = ProgressBar::new(parts);
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
