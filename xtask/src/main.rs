//! Everything a developer runs: test, tidy, fuzz, bench.
//!
//! ```text
//! cargo xtask test  [--quick] [--fuzz-seconds N]
//! cargo xtask tidy
//! cargo xtask fuzz  [TARGET] [--seconds N] [--replay FILE]
//! cargo xtask bench NAME [--runs N] [--json]
//! cargo xtask lab   [matrix | open] [--kinds A,B] [--program FILE] [--delay MS] [--loss PERCENT]
//!                   [--iroh] [--survives | --only-survives] [--svg FILE] [--json]
//! ```

mod bench;
mod fuzz;
mod lab;
mod options;
mod packages;
mod process;
mod program;
mod steps;
mod suite;
mod summary;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::options::Options;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  test  [--quick] [--fuzz-seconds N]            everything that must hold before a commit;
                                                --quick leaves out docs and fuzzing
  tidy                                          the rules that no compiler knows
  fuzz  [TARGET] [--seconds N] [--replay FILE]  fuzz one target, or each for N seconds
  bench NAME [--runs N] [--json]                measure; without NAME: list the benchmarks
  lab   [matrix | open] [--kinds A,B] [--program FILE] [--delay MS] [--loss PERCENT]
        [--iroh] [--survives | --only-survives] [--svg FILE] [--json]
                                                nodes behind routers of every kind: try all
                                                pairs (--iroh: and iroh alone beside them;
                                                --survives: and what they survive), or leave
                                                them to you; alone: list the kinds. Links take
                                                10 ms each way and lose nothing, or what is said
";

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs one command; tells whether all of it was well.
fn run(arguments: Vec<String>) -> anyhow::Result<bool> {
    let root = root()?;
    let mut options = Options::new(arguments);
    match options.word().as_deref() {
        Some("test") => {
            let quick = options.flag("--quick");
            let fuzz_seconds = options.number("--fuzz-seconds")?;
            options.finish()?;
            suite::run(&root, quick, fuzz_seconds.unwrap_or(fuzz::SECONDS))
        }
        Some("tidy") => {
            options.finish()?;
            Ok(tidy::run(&root)? == 0)
        }
        Some("fuzz") => {
            let seconds = options.number("--seconds")?.unwrap_or(fuzz::SECONDS);
            let replay = options.value("--replay")?;
            let target = options.word();
            options.finish()?;
            match (target, replay) {
                (Some(target), Some(file)) => fuzz::replay(&root, &target, Path::new(&file)),
                (None, Some(_)) => bail!("--replay needs the TARGET whose input FILE is"),
                (target, None) => fuzz::run(&root, target.as_deref(), seconds),
            }
        }
        Some("bench") => {
            let runs = options.number("--runs")?.unwrap_or(bench::RUNS);
            let json = options.flag("--json");
            let name = options.word();
            options.finish()?;
            bench::run(&root, name.as_deref(), runs, json)
        }
        Some("lab") => lab::run(&root, options),
        Some("help") | None => {
            print!("{USAGE}");
            Ok(true)
        }
        Some(other) => bail!("there is no command `{other}`\n\n{USAGE}"),
    }
}

/// Returns the directory of the whole workspace.
fn root() -> anyhow::Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .context("xtask lies inside the workspace")
}
