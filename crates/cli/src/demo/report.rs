//! What came of each check, as a table or as JSON.

use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use super::plan::{Mode, Step};
use super::transcript::Transcript;
use crate::output::Output;
use crate::output::table::Table;
use crate::problem::Problem;
use crate::text::Label;

/// The checks so far.
#[derive(Debug)]
pub(super) struct Report {
    mode: Mode,
    checks: Vec<Check>,
}

#[derive(Debug)]
struct Check {
    step: Step,
    time_s: f64,
    /// What was seen, or what went wrong.
    outcome: Result<String, String>,
    commands: Vec<Value>,
}

impl Report {
    pub(super) fn new(mode: Mode) -> Self {
        Self {
            mode,
            checks: Vec::new(),
        }
    }

    /// Carries out a step, unless one that it needs has failed, and notes what came of it.
    ///
    /// # Errors
    /// Only when standard output is closed; a check that fails is no error.
    pub(super) fn check(
        &mut self,
        step: Step,
        transcript: &mut Transcript,
        work: impl FnOnce(&mut Transcript) -> Result<String>,
    ) -> Result<(), Problem> {
        transcript.title(&step.title())?;
        let started = Instant::now();
        let outcome = match self.failed_need(step) {
            Some(need) => Err(format!("not tried, for this failed: {}", need.title())),
            None => match work(transcript).map_err(anyhow::Error::downcast::<Problem>) {
                Ok(seen) => Ok(seen),
                Err(Ok(problem)) => return Err(problem),
                Err(Err(error)) => Err(format!("{error:#}")),
            },
        };
        let time_s = started.elapsed().as_secs_f64();
        match &outcome {
            Ok(seen) => transcript.line(&format!("OK  {seen}"))?,
            Err(wrong) => transcript.line(&format!("FAILED  {wrong}"))?,
        }
        self.checks.push(Check {
            step,
            time_s,
            outcome,
            commands: transcript.take_commands(),
        });
        Ok(())
    }

    /// How many checks failed.
    pub(super) fn failed(&self) -> usize {
        self.checks
            .iter()
            .filter(|check| check.outcome.is_err())
            .count()
    }

    /// Prints the result of all checks.
    pub(super) fn print(&self, out: &Output) -> Result<(), Problem> {
        if out.json {
            return out.object(&self.to_json());
        }
        out.line(&format!("\n{}\n", self.to_table(out).print()))?;
        out.line(&format!(
            "{} passed, {} failed",
            self.passed(),
            self.failed()
        ))
    }

    fn passed(&self) -> usize {
        self.checks.len() - self.failed()
    }

    fn to_table(&self, out: &Output) -> Table {
        let labels = [Label::Check, Label::Time, Label::Result];
        let mut table = Table::new(labels.map(|label| out.label(label))).right(1);
        for check in &self.checks {
            let result = if check.outcome.is_ok() {
                "OK"
            } else {
                "FAILED"
            };
            let time = format!("{:.2} s", check.time_s);
            table.row([check.step.title(), time, result.to_owned()]);
        }
        table
    }

    fn to_json(&self) -> Value {
        let checks = self.checks.iter().map(|check| {
            json!({
                "check": check.step.title(),
                "ok": check.outcome.is_ok(),
                "time_s": (check.time_s * 1000.0).round() / 1000.0,
                "detail": check.outcome.as_ref().unwrap_or_else(|wrong| wrong),
                "commands": check.commands,
            })
        });
        json!({
            "mode": self.mode.name(),
            "checks": checks.collect::<Vec<_>>(),
            "passed": self.passed(),
            "failed": self.failed(),
        })
    }

    fn failed_need(&self, step: Step) -> Option<Step> {
        let failed = |need: &&Step| {
            self.checks
                .iter()
                .any(|check| check.step == **need && check.outcome.is_err())
        };
        step.needs().iter().find(failed).copied()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;
    use crate::text::Language;

    fn report() -> Report {
        let out = Output {
            json: true,
            language: Language::En,
        };
        let mut report = Report::new(Mode::Loopback);
        let mut transcript = Transcript::new(out);
        let mut check = |step, work: fn(&mut Transcript) -> Result<String>| {
            report.check(step, &mut transcript, work).unwrap();
        };
        check(Step::FirstDaemon, |_| Ok("up".to_owned()));
        check(Step::OtherDaemons, |_| bail!("nobody came"));
        check(Step::Trace, |_| {
            panic!("a step is not tried whose need failed")
        });
        check(Step::Create, |_| Ok("made".to_owned()));
        report
    }

    #[test]
    fn a_failure_stops_only_what_depends_on_it() {
        let report = report();
        assert_eq!((report.passed(), report.failed()), (2, 2));
        let wrong = report.checks[2].outcome.as_ref().unwrap_err();
        assert!(wrong.contains("ben and chie join"), "{wrong}");
    }

    #[test]
    fn the_report_has_a_form_for_people_and_one_for_scripts() {
        let mut report = report();
        for check in &mut report.checks {
            check.time_s = 0.126;
        }
        let out = Output {
            json: false,
            language: Language::En,
        };
        let expected = "\
CHECK                                  TIME  RESULT
aki starts the first node            0.13 s  OK
ben and chie join by its invitation  0.13 s  FAILED
trace the route hop by hop           0.13 s  FAILED
aki makes a channel                  0.13 s  OK";
        assert_eq!(report.to_table(&out).print(), expected);
        let object = report.to_json();
        assert_eq!(
            (&object["passed"], &object["failed"]),
            (&json!(2), &json!(2))
        );
        assert_eq!(object["checks"][1]["detail"], json!("nobody came"));
        assert_eq!(object["checks"][1]["ok"], json!(false));
    }
}
