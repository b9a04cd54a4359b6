//! Steps one after another: a headline and a time for each, a table at the end.

use std::time::{Duration, Instant};

use crate::summary::Counts;

/// What a step came to.
pub(crate) struct Outcome {
    /// A step that runs no tests counts as one.
    pub(crate) counts: Counts,
    /// What the table says beside it.
    pub(crate) note: String,
}

impl Outcome {
    /// A step that runs no tests, well or not.
    pub(crate) fn single(well: bool) -> Self {
        let counts = Counts {
            passed: well.into(),
            failed: (!well).into(),
        };
        let note = String::new();
        Self { counts, note }
    }

    /// A step that was left out, and why; it counts as nothing.
    pub(crate) fn skipped(why: impl Into<String>) -> Self {
        Self {
            counts: Counts::default(),
            note: format!("left out: {}", why.into()),
        }
    }

    /// Adds a remark for the table.
    pub(crate) fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

struct Row {
    name: String,
    outcome: Outcome,
    time: Duration,
}

/// The steps so far.
#[derive(Default)]
pub(crate) struct Steps(Vec<Row>);

impl Steps {
    /// Runs a step. An error is shown and counts as one failure; it never keeps the
    /// following steps from running.
    pub(crate) fn step(&mut self, name: &str, run: impl FnOnce() -> anyhow::Result<Outcome>) {
        println!("\n=== {name}");
        let started = Instant::now();
        let outcome = run().unwrap_or_else(|error| {
            println!("error: {error:#}");
            Outcome::single(false).with_note("could not be run")
        });
        let time = started.elapsed();
        let verdict = verdict(&outcome);
        println!("--- {name}: {verdict} in {:.1} s", time.as_secs_f64());
        let name = name.to_owned();
        self.0.push(Row {
            name,
            outcome,
            time,
        });
    }

    /// Prints the table, and the count as the very last line. Returns whether
    /// nothing failed.
    pub(crate) fn finish(self) -> bool {
        print!("{}", self.table());
        self.total().failed == 0
    }

    fn total(&self) -> Counts {
        let mut total = Counts::default();
        self.0.iter().for_each(|row| total.add(row.outcome.counts));
        total
    }

    fn table(&self) -> String {
        let width = self.0.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let mut table = format!(
            "\n{:width$}  {:>8} {:>7} {:>7}\n",
            "step", "seconds", "passed", "failed"
        );
        for row in &self.0 {
            let Counts { passed, failed } = row.outcome.counts;
            let seconds = row.time.as_secs_f64();
            let line = format!(
                "{:width$}  {seconds:>8.1} {passed:>7} {failed:>7}  {:6}  {}",
                row.name,
                verdict(&row.outcome),
                row.outcome.note,
            );
            table.push_str(line.trim_end());
            table.push('\n');
        }
        let total = self.total();
        let time: Duration = self.0.iter().map(|row| row.time).sum();
        table.push_str(&format!(
            "{:width$}  {:>8.1}\n\n{} passed, {} failed\n",
            "all",
            time.as_secs_f64(),
            total.passed,
            total.failed,
        ));
        table
    }
}

fn verdict(outcome: &Outcome) -> &'static str {
    match outcome.counts {
        Counts { failed: 1.., .. } => "FAILED",
        Counts { passed: 0, .. } => "-",
        Counts { .. } => "ok",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_hides_nothing_and_the_count_is_the_last_line() {
        let mut steps = Steps::default();
        steps.step("format", || Ok(Outcome::single(true)));
        steps.step("clippy", || anyhow::bail!("no clippy"));
        steps.step("packages", || Ok(Outcome::skipped("not root")));
        steps.step("tests", || {
            let counts = Counts {
                passed: 40,
                failed: 2,
            };
            let note = String::new();
            Ok(Outcome { counts, note })
        });
        let table = steps.table();
        assert_eq!(table.lines().last(), Some("41 passed, 3 failed"));
        assert_eq!(table.matches("FAILED").count(), 2);
        assert!(!steps.finish());
    }
}
