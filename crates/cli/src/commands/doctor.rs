//! `enishi doctor`, and `enishi doctor net`.

use enishi_api::{Answer, Check, Outcome, Request};
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

use super::Context;
use crate::args::DoctorPart;
use crate::client::{Answers, strange};
use crate::output::progress::Progress;
use crate::problem::{Problem, Verdict};
use crate::text::{Diagnosis, Label, Message};

/// How wide the titles of checks are made; the widest has so many columns.
const TITLE_COLUMNS: usize = 20;

/// What is told at the end.
#[derive(Default)]
struct Findings {
    checks: Vec<Value>,
    counts: [u32; 3],
}

/// Checks the node; the answer is no when there is a problem, be it that no daemon runs.
pub(super) async fn run(cx: &Context, part: Option<DoctorPart>) -> Result<Verdict, Problem> {
    let mut findings = Findings::default();
    let request = match part {
        None => Request::Doctor,
        Some(DoctorPart::Net) => Request::DoctorNet,
    };
    match cx.client.call(&request).await {
        Ok(answers) => {
            let diagnosis = cx.out.language.daemon_diagnosis(None);
            findings.tell(cx, Outcome::Ok, json!({"check": "daemon"}), &diagnosis)?;
            follow(cx, answers, &mut findings).await?;
        }
        Err(Problem::NoDaemon(reason)) => {
            let diagnosis = cx.out.language.daemon_diagnosis(Some(&reason));
            findings.tell(cx, Outcome::Problem, json!({"check": "daemon"}), &diagnosis)?;
        }
        Err(problem) => return Err(problem),
    }
    findings.conclude(cx)
}

async fn follow(
    cx: &Context,
    mut answers: Answers,
    findings: &mut Findings,
) -> Result<(), Problem> {
    loop {
        let progress = Progress::start(&cx.out, &Message::Examining);
        let answer = answers.next().await;
        progress.stop().await;
        match answer? {
            Some(Answer::Check(check)) => findings.tell_check(cx, &check)?,
            Some(Answer::Checked { .. }) => return Ok(()),
            Some(_) => return Err(strange(&cx.out)),
            None => return Err(Problem::No(cx.out.text(&Message::DaemonSilent))),
        }
    }
}

impl Findings {
    fn tell_check(&mut self, cx: &Context, check: &Check) -> Result<(), Problem> {
        let object = serde_json::to_value(check);
        let object = object.map_err(|error| Problem::No(error.to_string()))?;
        let diagnosis = cx.out.language.diagnosis(check);
        self.tell(cx, check.outcome, object, &diagnosis)
    }

    /// Shows one check to a person at once, or keeps it for the object of all.
    fn tell(
        &mut self,
        cx: &Context,
        outcome: Outcome,
        mut object: Value,
        diagnosis: &Diagnosis,
    ) -> Result<(), Problem> {
        self.counts[outcome as usize] += 1;
        if cx.out.json {
            object["outcome"] = json!(outcome);
            object["detail"] = json!(diagnosis.detail);
            object["advice"] = json!(diagnosis.advice);
            self.checks.push(object);
            return Ok(());
        }
        let outcomes = [Label::Ok, Label::Warning, Label::Problem];
        let words = outcomes.map(|label| cx.out.label(label));
        let columns = words.iter().map(|word| word.width()).max().unwrap_or(0);
        let outcome = padded(words[outcome as usize], columns);
        let title = padded(diagnosis.title, TITLE_COLUMNS);
        cx.out
            .line(&format!("{outcome}  {title}  {}", diagnosis.detail))?;
        match &diagnosis.advice {
            Some(advice) => cx
                .out
                .line(&format!("{}  -> {advice}", " ".repeat(columns))),
            None => Ok(()),
        }
    }

    fn conclude(self, cx: &Context) -> Result<Verdict, Problem> {
        let [ok, warnings, problems] = self.counts;
        let object = json!({
            "checks": self.checks, "ok": ok, "warnings": warnings, "problems": problems,
        });
        let message = Message::Examined {
            ok,
            warnings,
            problems,
        };
        cx.out.say("")?;
        cx.out.result(&object, &message)?;
        Ok(if problems == 0 {
            Verdict::Yes
        } else {
            Verdict::No
        })
    }
}

fn padded(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(text.width())))
}
