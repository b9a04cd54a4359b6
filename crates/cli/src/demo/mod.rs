//! `enishi demo`: a private network of three hosts at work, on this machine.
//!
//! As root the hosts are network namespaces joined by a bridge; without root they are
//! three daemons on loopback that do without network devices. Either way the demo
//! starts real daemons, `enishi up`, and drives them by the same commands that a
//! person would type, with `--json`. It shows what it runs, checks what comes out,
//! and leaves nothing behind.
//!
//! [`plan`] lists the steps, [`steps`] carries them out, [`world`] is what they work
//! on, [`report`] what comes of them.

mod member;
mod plan;
mod report;
mod steps;
mod transcript;
mod world;

use anyhow::Context;

use crate::args::Demo;
use crate::output::Output;
use crate::problem::{Problem, Verdict};

use plan::Mode;
use report::Report;
use transcript::Transcript;
use world::World;

/// Runs the demo. The answer is no when a check failed.
///
/// # Errors
/// [`Problem`] when the demo cannot begin at all, for example without a needed program.
pub(crate) fn run(out: &Output, options: &Demo) -> Result<Verdict, Problem> {
    let mode = Mode::choose(options.loopback);
    if let Some(reason) = mode.restriction(options.loopback) {
        out.say(reason)?;
    }
    let mut world = World::new(mode, options.keep)
        .context("The demo cannot begin")
        .map_err(|error| Problem::No(format!("{error:#}.")))?;
    let mut report = Report::new(mode);
    for step in plan::steps(mode) {
        let mut transcript = Transcript::new(*out);
        report.check(*step, &mut transcript, |transcript| {
            steps::run(*step, &mut world, transcript)
        })?;
    }
    if options.keep {
        out.say(&format!(
            "The data directories are left in {}.",
            world.directory().display()
        ))?;
    }
    // The hosts and daemons are gone before the result is told.
    drop(world);
    report.print(out)?;
    Ok(if report.failed() == 0 {
        Verdict::Yes
    } else {
        Verdict::No
    })
}
