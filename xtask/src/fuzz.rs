//! `cargo xtask fuzz`: libFuzzer on stable Rust.
//!
//! The compiler's coverage pass and the crate `libfuzzer-sys` are all that is
//! needed. The targets are `fuzz/targets/NAME.rs`, each with a `[[bin]]` entry in
//! `fuzz/Cargo.toml`; what they start from is in `fuzz/seeds/NAME/` (committed),
//! what they have learned in `fuzz/corpus/NAME/`, and inputs that broke something
//! in `fuzz/artifacts/NAME/` (both left out of the repository).

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::process::{cargo, follow, follow_quietly, read};
use crate::steps::{Outcome, Steps};

/// How long each target runs unless told otherwise, in seconds.
pub(crate) const SECONDS: u32 = 10;

/// The longest that one input may take, in seconds.
const INPUT_SECONDS_MAX: u32 = 10;

/// The most memory that a target may use, in MiB.
const MEMORY_MIB_MAX: u32 = 1024;

/// Inputs are at least allowed to be this long, in octets.
const INPUT_BYTES_MIN: u64 = 256;

/// How many of a broken target's last lines are shown.
const LINES_SHOWN_MAX: usize = 60;

/// What makes stable rustc count edges and trace comparisons the way libFuzzer
/// reads them. Memory errors are not looked for: the pure crates have no unsafe code.
const RUSTFLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// Fuzzes one target, or all one after another; returns whether none broke.
///
/// # Errors
/// When the target does not exist or the build cannot be started.
pub(crate) fn run(root: &Path, target: Option<&str>, seconds: u32) -> anyhow::Result<bool> {
    let known = targets(root)?;
    let mut chosen = known.clone();
    if let Some(target) = target {
        chosen.retain(|name| name == target);
        if chosen.is_empty() {
            bail!("no target `{target}`; there are: {}", known.join(", "));
        }
    }
    let Some(binaries) = build(root, &chosen)? else {
        return Ok(false);
    };
    let mut well = true;
    for name in &chosen {
        println!("fuzzing {name} for {seconds} s");
        well &= fuzz(root, &binaries, name, seconds)?.counts.failed == 0;
    }
    Ok(well)
}

/// Fuzzes all targets as steps of the tests, one step each.
pub(crate) fn steps(root: &Path, steps: &mut Steps, seconds: u32) {
    let mut built = None;
    steps.step("fuzz build", || {
        let names = targets(root)?;
        let binaries = build(root, &names)?;
        let well = binaries.is_some();
        built = binaries.map(|binaries| (names, binaries));
        Ok(Outcome::single(well))
    });
    let (names, binaries) = built.unwrap_or_default();
    for name in &names {
        steps.step(&format!("fuzz {name}"), || {
            fuzz(root, &binaries, name, seconds)
        });
    }
}

/// Runs a target once, on an input that broke it; returns whether it holds now.
///
/// # Errors
/// When the target does not exist or the build cannot be started.
pub(crate) fn replay(root: &Path, target: &str, input: &Path) -> anyhow::Result<bool> {
    let input = input
        .canonicalize()
        .with_context(|| format!("reading {}", input.display()))?;
    let Some(binaries) = build(root, &[target.to_owned()])? else {
        return Ok(false);
    };
    follow(Command::new(binaries.join(target)).arg(input), |_| ())
}

/// Returns the names of the targets: the files in `fuzz/targets`.
fn targets(root: &Path) -> anyhow::Result<Vec<String>> {
    let directory = root.join("fuzz/targets");
    let entries = fs::read_dir(&directory)
        .with_context(|| format!("listing {}", directory.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    let files = entries.into_iter().map(|entry| entry.path());
    let mut names: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Builds targets; returns the directory of the programs, or `None` when they do
/// not compile.
fn build(root: &Path, names: &[String]) -> anyhow::Result<Option<PathBuf>> {
    let host = host(root)?;
    let output = root.join("target/fuzz");
    let mut command = cargo(&root.join("fuzz"));
    // With an explicit target the flags stay away from build scripts, which are not
    // linked with libFuzzer.
    command.args(["build", "--target", &host, "--target-dir"]);
    command.arg(&output);
    for name in names {
        command.args(["--bin", name]);
    }
    command.env_remove("RUSTFLAGS");
    command.env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\u{1f}"));
    let built = follow(&mut command, |_| ())?;
    Ok(built.then(|| output.join(host).join("debug")))
}

/// Returns the name of the platform that we run on, as rustc says it.
fn host(root: &Path) -> anyhow::Result<String> {
    let version = read(Command::new("rustc").arg("-vV").current_dir(root))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .context("rustc does not say what it runs on")
}

fn fuzz(root: &Path, binaries: &Path, name: &str, seconds: u32) -> anyhow::Result<Outcome> {
    let directories = ["corpus", "artifacts", "seeds"].map(|kind| root.join("fuzz").join(kind));
    let [corpus, artifacts, seeds] = directories.map(|directory| directory.join(name));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;

    let mut command = Command::new(binaries.join(name));
    command.arg(&corpus);
    if seeds.is_dir() {
        command.arg(&seeds);
    }
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-timeout={INPUT_SECONDS_MAX}"));
    command.arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"));
    command.arg(format!("-max_len={}", input_bytes_max(&seeds)?));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    // A replay shows the backtrace; here it would push the message out of sight.
    command.env("RUST_BACKTRACE", "0");

    let mut last = VecDeque::new();
    let mut progress = Progress::default();
    let well = follow_quietly(&mut command, |line| {
        progress.read_line(line);
        if last.len() == LINES_SHOWN_MAX {
            last.pop_front();
        }
        last.push_back(line.to_owned());
    })?;
    let note = progress.note();
    println!("{note}");
    if !well {
        last.iter().for_each(|line| println!("  {line}"));
        let input = progress.artifact.as_deref().unwrap_or("FILE");
        println!("{name} broke. Try again with:");
        println!("  cargo xtask fuzz {name} --replay {input}");
    }
    Ok(Outcome::single(well).with_note(note))
}

/// Returns how long inputs may get: twice the largest seed. Short inputs are found to
/// break things many times sooner, so the seeds say which sizes matter.
fn input_bytes_max(seeds: &Path) -> anyhow::Result<u64> {
    let mut largest = 0;
    if seeds.is_dir() {
        for seed in fs::read_dir(seeds)? {
            largest = largest.max(seed?.metadata()?.len());
        }
    }
    Ok(INPUT_BYTES_MIN.max(2 * largest))
}

/// What libFuzzer says on the way.
#[derive(Default)]
struct Progress {
    runs: u64,
    edges: u64,
    artifact: Option<String>,
}

impl Progress {
    /// Reads `#12 NEW cov: 34 ft: …`, `Done 56 runs in …` and `…Test unit written to FILE`.
    fn read_line(&mut self, line: &str) {
        if let Some((_, file)) = line.split_once("Test unit written to ") {
            self.artifact = Some(file.trim().to_owned());
            return;
        }
        let Some(rest) = line.strip_prefix('#').or(line.strip_prefix("Done ")) else {
            return;
        };
        let mut words = rest.split_whitespace();
        let runs = words.next().and_then(|word| word.parse().ok());
        self.runs = self.runs.max(runs.unwrap_or(0));
        let edges = words.skip_while(|word| *word != "cov:").nth(1);
        let edges = edges.and_then(|word| word.parse().ok());
        self.edges = self.edges.max(edges.unwrap_or(0));
    }

    fn note(&self) -> String {
        format!("{} runs, {} edges", self.runs, self.edges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_libfuzzer_says() {
        let mut progress = Progress::default();
        for line in [
            "INFO: Seed: 1",
            "#2\tINITED cov: 3 ft: 3 corp: 1/1b exec/s: 0 rss: 25Mb",
            "#77\tNEW    cov: 12 ft: 13 corp: 2/2b lim: 4 exec/s: 0",
            "Done 4989729 runs in 5 second(s)",
            "artifact_prefix='a/'; Test unit written to a/crash-1",
        ] {
            progress.read_line(line);
        }
        assert_eq!(progress.note(), "4989729 runs, 12 edges");
        assert_eq!(progress.artifact.as_deref(), Some("a/crash-1"));
    }

    #[test]
    fn every_target_file_has_its_entry_and_seeds() {
        let root = crate::root().unwrap();
        let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
        for name in targets(&root).unwrap() {
            let entry = format!("path = \"targets/{name}.rs\"");
            assert!(manifest.contains(&entry), "no [[bin]] entry for {name}");
            let seeds = root.join("fuzz/seeds").join(&name);
            assert!(seeds.is_dir(), "no seeds for {name}");
        }
    }
}
