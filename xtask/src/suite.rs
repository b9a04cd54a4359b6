//! `cargo xtask test`: everything that must hold before a commit.
//!
//! One target directory and one profile serve all steps. Clippy and rustdoc share
//! the checked dependencies, tests and doc tests the built ones; only fuzzing
//! builds the pure crates once more, with its instrumentation.

use std::path::Path;
use std::process::Command;

use enishi_lab::programs::find_program;

use crate::process::{cargo, follow};
use crate::steps::{Outcome, Steps};
use crate::summary::{Counts, Runner};
use crate::{fuzz, packages, tidy};

/// Runs all steps; `quick` leaves out documentation and fuzzing. Returns whether
/// everything passed.
pub(crate) fn run(root: &Path, quick: bool, fuzz_seconds: u32) -> anyhow::Result<bool> {
    let mut steps = Steps::default();
    steps.step("packages", packages::ensure);
    steps.step("format", || {
        let workspaces = [root.to_path_buf(), root.join("fuzz")];
        let mut well = true;
        for workspace in &workspaces {
            let mut format = cargo(workspace);
            well &= follow(format.args(["fmt", "--all", "--check"]), |_| ())?;
        }
        Ok(Outcome::single(well))
    });
    steps.step("tidy", || {
        let failures = tidy::run(root)?;
        Ok(Outcome::single(failures == 0).with_note(format!("{failures} findings")))
    });
    steps.step("dependency policy", || deny(root));
    steps.step("clippy", || {
        let mut clippy = cargo(root);
        clippy.args(["clippy", "--workspace", "--all-targets", "--", "-Dwarnings"]);
        one(&mut clippy)
    });
    steps.step("tests", || tests(root));
    if quick {
        return Ok(steps.finish());
    }
    steps.step("doc tests", || {
        let mut command = cargo(root);
        command.args(["test", "--doc", "--workspace", "--no-fail-fast"]);
        count(&mut command, Runner::Cargo)
    });
    steps.step("docs", || {
        let mut doc = cargo(root);
        doc.args(["doc", "--no-deps", "--workspace"]);
        one(doc.env("RUSTDOCFLAGS", "-Dwarnings"))
    });
    fuzz::steps(root, &mut steps, fuzz_seconds);
    Ok(steps.finish())
}

/// A program that counts as one.
fn one(command: &mut Command) -> anyhow::Result<Outcome> {
    Ok(Outcome::single(follow(command, |_| ())?))
}

/// Unit, property, simulator and end-to-end tests, by nextest where it is installed.
/// Both runners run the same tests.
fn tests(root: &Path) -> anyhow::Result<Outcome> {
    let mut command = cargo(root);
    if find_program("cargo-nextest").is_some() {
        command.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
        command.args(["--no-tests=pass", "--status-level=fail"]);
        command.arg("--final-status-level=fail");
        return count(&mut command, Runner::Nextest);
    }
    command.args(["test", "--workspace", "--no-fail-fast"]);
    command.args(["--lib", "--bins", "--tests", "--examples"]);
    count(&mut command, Runner::Cargo)
}

/// A runner whose tests are counted. One that fails without a failed test did not
/// build, which counts as one failure.
fn count(command: &mut Command, runner: Runner) -> anyhow::Result<Outcome> {
    let mut counts = Counts::default();
    let well = follow(command, |line| counts.read_line(runner, line))?;
    let mut note = String::new();
    if !well && counts.failed == 0 {
        counts.failed = 1;
        note.push_str("the runner failed");
    }
    Ok(Outcome { counts, note })
}

/// The full policy where cargo-deny is installed. `tidy` has checked licences,
/// sources and duplicates already; building cargo-deny would take longer than all
/// the rest.
fn deny(root: &Path) -> anyhow::Result<Outcome> {
    if find_program("cargo-deny").is_none() {
        return Ok(Outcome::skipped(
            "no cargo-deny; tidy has checked the essentials",
        ));
    }
    // Advisories need a database from the network, and change without a commit.
    one(cargo(root).args(["deny", "check", "licenses", "bans", "sources"]))
}
