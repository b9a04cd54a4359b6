//! `cargo xtask bench floods`: what floods cost who sends them and who gets them.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::report::{Figure, Report};
use crate::program::build_example;

/// What is flooded with: wishes to exchange packets in names that mean no channel, a member's
/// wishes, datagrams of no session, and datagrams of a session whose seal is broken.
const FLOODS: [&str; 4] = ["forged_attach", "member_attach", "bad_index", "bad_seal"];
const RUN_TIME_MAX: Duration = Duration::from_secs(180);

fn figures() -> Vec<Figure> {
    let figures = FLOODS.into_iter().flat_map(|flood| {
        let sender = format!("{flood}_sender");
        let victim = format!("{flood}_victim");
        [(sender.clone(), None), (victim, Some(sender))]
    });
    let figure = |(name, peer): (String, Option<String>)| Figure {
        name: Cow::Owned(name),
        unit: "us",
        peer: peer.map(Cow::Owned),
    };
    figures.map(figure).collect()
}

/// Builds the flood and runs all rounds.
///
/// # Errors
/// When the program does not build, or a round fails.
pub(super) fn run(root: &Path, runs: u32) -> anyhow::Result<Report> {
    let program = build_example(root, "enishi-host", "floods")?;
    let figures = figures();
    let mut report = Report::new("floods", runs, &figures);
    for run in 0..runs {
        eprintln!("round {} of {runs}", run + 1);
        let output = enishi_lab::run(enishi_lab::command(&program), RUN_TIME_MAX)?;
        ensure!(output.success(), "the flood failed: {}", output.stderr);
        let told: Value = serde_json::from_str(&output.stdout).context("what the flood told")?;
        for figure in &figures {
            let value = told[figure.name.as_ref()].as_f64();
            let value = value.with_context(|| format!("no `{}` in {told}", figure.name))?;
            report.add(&figure.name, value);
        }
    }
    Ok(report)
}
