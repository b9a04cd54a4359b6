//! The program that is measured: built for release, as people run it.

use std::path::{Path, PathBuf};

use anyhow::ensure;

use crate::process::{cargo, follow_quietly};

/// Builds the release daemon and returns its path.
pub(crate) fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let mut command = cargo(root);
    command.args(["build", "--release", "--package", "enishi-cli"]);
    // Standard output is for the report alone.
    let well = follow_quietly(&mut command, |line| eprintln!("{line}"))?;
    ensure!(well, "the daemon does not build");
    Ok(root.join("target/release/enishi"))
}

/// Builds an example program of a package for release and returns its path.
pub(crate) fn build_example(root: &Path, package: &str, name: &str) -> anyhow::Result<PathBuf> {
    let mut command = cargo(root);
    command.args(["build", "--release", "--package", package]);
    command.args(["--example", name]);
    let well = follow_quietly(&mut command, |line| eprintln!("{line}"))?;
    ensure!(well, "the example `{name}` does not build");
    Ok(root.join("target/release/examples").join(name))
}
