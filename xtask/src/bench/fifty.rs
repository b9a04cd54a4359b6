//! `cargo xtask bench fifty`: fifty daemons that all join at once and of which a third is
//! killed at once, beside the simulator's forecast for the same setting.
//!
//! Each round tells the story once with real daemons, each on a host of its own at one
//! bridge, and then lets `enishi sim storm` tell it with as many nodes, joins in as much
//! time, and nearly no delay or loss, as at the bridge.

use std::borrow::Cow;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use enishi_lab::{Plan, Story};
use serde_json::Value;

use super::report::{Figure, Report, mean, p99};
use crate::program::build;

const PLAN: Plan = Plan {
    daemons: 50,
    values: 100,
    quiet: Some(Duration::from_secs(60)),
    patience: Duration::from_secs(180),
};

/// The delay one way between two hosts of the lab, about half of what `ping` measures.
const DELAY: &str = "0.03ms";

/// How many simulated runs make the forecast: their means are told.
const SEEDS: &str = "5";

/// What is measured with daemons, each followed by the forecast of it, if there is one.
const FIGURES: &[Figure] = &[
    figure("launched", "s", None),
    figure("joining_cpu", "s", None),
    figure("joined_after", "s", Some("forecast_joined_after")),
    figure("forecast_joined_after", "s", None),
    figure("near_after", "s", Some("forecast_near_after")),
    figure("forecast_near_after", "s", None),
    figure(
        "joining_messages",
        "messages",
        Some("forecast_joining_messages"),
    ),
    figure("forecast_joining_messages", "messages", None),
    figure("joining_bytes", "B", Some("forecast_joining_bytes")),
    figure("forecast_joining_bytes", "B", None),
    figure("acknowledged", "values", Some("forecast_acknowledged")),
    figure("forecast_acknowledged", "values", None),
    figure("put_mean", "ms", None),
    figure("put_p99", "ms", None),
    figure("verified", "of 20", None),
    figure("paths", "paths", None),
    figure("daemon_rss_mean", "MB", None),
    figure("daemon_rss_max", "MB", None),
    figure("daemon_cpu", "ms/s", None),
    figure("wire_sent", "B/s", None),
    figure("messages_sent", "/s", Some("forecast_messages_sent")),
    figure("forecast_messages_sent", "/s", None),
    figure("bytes_sent", "B/s", Some("forecast_bytes_sent")),
    figure("forecast_bytes_sent", "B/s", None),
    figure("healing_cpu", "s", None),
    figure("whole_after", "s", Some("forecast_whole_after")),
    figure("forecast_whole_after", "s", None),
    figure("near_again_after", "s", Some("forecast_near_again_after")),
    figure("forecast_near_again_after", "s", None),
    figure(
        "healing_messages",
        "messages",
        Some("forecast_healing_messages"),
    ),
    figure("forecast_healing_messages", "messages", None),
    figure("healing_bytes", "B", Some("forecast_healing_bytes")),
    figure("forecast_healing_bytes", "B", None),
    figure(
        "values_whole_after",
        "s",
        Some("forecast_values_whole_after"),
    ),
    figure("forecast_values_whole_after", "s", None),
    figure("without_holder", "values", Some("forecast_without_holder")),
    figure("forecast_without_holder", "values", None),
    figure("lost", "values", Some("forecast_lost")),
    figure("forecast_lost", "values", None),
    figure("misread", "readings", None),
    figure("read_late", "readings", None),
];

/// What is forecast, and what the simulator calls it.
const FORECAST: [(&str, &str); 14] = [
    ("forecast_joined_after", "joined_after_s"),
    ("forecast_near_after", "near_after_s"),
    ("forecast_joining_messages", "joining_messages_per_node"),
    ("forecast_joining_bytes", "joining_bytes_per_node"),
    ("forecast_acknowledged", "acknowledged"),
    ("forecast_messages_sent", "messages_per_second_per_node"),
    ("forecast_bytes_sent", "bytes_per_second_per_node"),
    ("forecast_whole_after", "whole_after_s"),
    ("forecast_near_again_after", "near_again_after_s"),
    ("forecast_healing_messages", "healing_messages_per_node"),
    ("forecast_healing_bytes", "healing_bytes_per_node"),
    ("forecast_values_whole_after", "values_whole_after_s"),
    ("forecast_without_holder", "without_holder"),
    ("forecast_lost", "lost"),
];

const fn figure(name: &'static str, unit: &'static str, peer: Option<&'static str>) -> Figure {
    Figure {
        name: Cow::Borrowed(name),
        unit,
        peer: match peer {
            Some(peer) => Some(Cow::Borrowed(peer)),
            None => None,
        },
    }
}

/// Builds the program and runs all rounds.
///
/// # Errors
/// When we are not root, the program does not build, or a round fails.
pub(super) fn run(root: &Path, runs: u32) -> anyhow::Result<Report> {
    enishi_lab::install_signal_cleanup()?;
    let program = build(root)?;
    let mut report = Report::new("fifty", runs, FIGURES);
    for run in 0..runs {
        eprintln!("round {} of {runs}: about four minutes", run + 1);
        let story = PLAN.run(&program, |part| eprintln!("  {part}"));
        let story = story.with_context(|| format!("in round {}", run + 1))?;
        tell(&story, &mut report);
        eprintln!("  simulating the same");
        forecast(&program, &story, run, &mut report)?;
    }
    Ok(report)
}

fn tell(story: &Story, report: &mut Report) {
    let figures = [
        ("launched", Some(story.launched_s)),
        ("joining_cpu", Some(story.joining_cpu_s)),
        ("joined_after", Some(story.joined_after_s)),
        ("near_after", Some(story.near_after_s)),
        ("joining_messages", Some(story.joining.messages)),
        ("joining_bytes", Some(story.joining.bytes)),
        ("acknowledged", Some(story.acknowledged as f64)),
        ("put_mean", mean(&story.put_ms)),
        ("put_p99", p99(&story.put_ms)),
        ("verified", Some(story.verified as f64)),
        ("paths", Some(story.paths)),
        ("daemon_rss_mean", Some(story.rss_mean_mb)),
        ("daemon_rss_max", Some(story.rss_max_mb)),
        ("daemon_cpu", story.cpu_ms_per_s),
        ("wire_sent", story.wire_bytes_per_s),
        ("messages_sent", story.quiet_per_s.map(|said| said.messages)),
        ("bytes_sent", story.quiet_per_s.map(|said| said.bytes)),
        ("healing_cpu", Some(story.healing_cpu_s)),
        ("whole_after", Some(story.whole_after_s)),
        ("near_again_after", Some(story.near_again_after_s)),
        ("healing_messages", Some(story.healing.messages)),
        ("healing_bytes", Some(story.healing.bytes)),
        ("values_whole_after", Some(story.values_whole_after_s)),
        ("without_holder", Some(story.without_holder as f64)),
        ("lost", Some(story.lost as f64)),
        ("misread", Some(story.misread as f64)),
        ("read_late", Some(story.read_late as f64)),
    ];
    for (name, value) in figures {
        if let Some(value) = value {
            report.add(name, value);
        }
    }
}

fn forecast(program: &Path, story: &Story, run: u32, report: &mut Report) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args([
            "sim", "storm", "--loss", "0", "--delay", DELAY, "--seeds", SEEDS,
        ])
        .args(["--nodes", &story.daemons.to_string()])
        .args(["--values", &story.values.to_string()])
        .args(["--joins-within", &format!("{:.3}s", story.launched_s)])
        .args(["--dead", &format!("{:.4}", share_percent(story))])
        .args(["--seed", &(run * 1000 + 1).to_string(), "--json"])
        .output()
        .context("running the simulator")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the simulator failed: {said}");
    let told: Value = serde_json::from_slice(&output.stdout).context("reading the forecast")?;
    for (name, called) in FORECAST {
        if let Some(value) = told["results"][called].as_f64() {
            report.add(name, value);
        }
    }
    Ok(())
}

/// How many of a hundred daemons were killed, rounded down: the simulator rounds up to
/// whole nodes.
fn share_percent(story: &Story) -> f64 {
    (story.killed as f64 * 1e6 / story.daemons as f64).floor() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_told_and_forecast_is_listed() {
        let mut report = Report::new("fifty", 1, FIGURES);
        tell(&Story::default(), &mut report);
        for (name, _) in FORECAST {
            report.add(name, 1.0);
        }
        let peers = FIGURES.iter().filter_map(|figure| figure.peer.clone());
        for peer in peers {
            assert!(FIGURES.iter().any(|figure| figure.name == peer), "{peer}");
        }
    }

    #[test]
    fn the_share_of_the_killed_is_never_one_too_many() {
        let story = Story {
            daemons: 50,
            killed: 17,
            ..Story::default()
        };
        assert_eq!(share_percent(&story), 34.0);
        let story = Story {
            daemons: 49,
            ..story
        };
        assert_eq!((share_percent(&story) * 49.0 / 100.0).ceil(), 17.0);
    }
}
