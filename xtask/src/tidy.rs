//! `cargo xtask tidy`: the rules that no compiler knows.
//!
//! Each rule looks at one kind of thing and says what it found; [`run`] only
//! gathers. The same check runs as a unit test, so no commit passes without it.

mod attributes;
mod claims;
mod layers;
mod paths;
mod policy;
mod purity;
mod size;
mod source;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use crate::process::{cargo, read};
use source::Source;

/// Directories that hold nothing of ours, wherever they appear.
const FOREIGN_DIRECTORIES: &[&str] = &[".git", "artifacts", "corpus", "node_modules", "target"];

/// Something that is against a rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// The file, relative to the workspace; or a crate.
    place: String,
    /// From 1; 0 when it is about the whole file.
    line: usize,
    message: String,
}

impl Finding {
    fn new(place: &str, line: usize, message: impl Into<String>) -> Self {
        Self {
            place: place.to_owned(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.place, self.message),
            line => write!(f, "{}:{line}: {}", self.place, self.message),
        }
    }
}

/// Checks everything, prints what it found and returns the number of failures.
///
/// # Errors
/// When the files or cargo's metadata cannot be read.
pub(crate) fn run(root: &Path) -> anyhow::Result<usize> {
    let (failures, warnings) = check(root)?;
    for warning in &warnings {
        println!("warning: {warning}");
    }
    for failure in &failures {
        println!("{failure}");
    }
    println!("{} failures, {} warnings", failures.len(), warnings.len());
    Ok(failures.len())
}

/// Returns failures and warnings.
fn check(root: &Path) -> anyhow::Result<(Vec<Finding>, Vec<Finding>)> {
    let mut failures = Vec::new();
    let mut warnings = Vec::new();
    let mut tests = BTreeSet::new();
    for (path, text) in texts(root)? {
        failures.extend(paths::machine_paths(&path, &text));
        if path.ends_with(".rs") {
            let source = Source::new(path, &text);
            failures.extend(purity::check(&source));
            failures.extend(attributes::check(&source));
            failures.extend(size::too_long(&source));
            warnings.extend(size::getting_long(&source));
            tests.extend(claims::tests(&source));
        }
    }
    let page = fs::read_to_string(root.join(claims::PAGE)).unwrap_or_default();
    failures.extend(claims::check(&page, &tests));
    let members = metadata(root, &["--no-deps"])?;
    failures.extend(layers::check(&members));
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_default();
    failures.extend(layers::unmapped(&members, &map));

    let rules = policy::Rules::read(&fs::read_to_string(root.join("deny.toml"))?);
    let all = metadata(root, &["--filter-platform", "x86_64-unknown-linux-gnu"])?;
    failures.extend(policy::check(&all, &rules));
    Ok((failures, warnings))
}

/// Returns cargo's description of the workspace.
fn metadata(root: &Path, options: &[&str]) -> anyhow::Result<Value> {
    let mut command = cargo(root);
    command.args(["metadata", "--quiet", "--format-version=1", "--locked"]);
    let text = read(command.args(options))?;
    serde_json::from_str(&text).context("reading cargo's metadata")
}

/// Returns every text file of ours: its path in the workspace, and its content.
fn texts(root: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let entries =
            fs::read_dir(&directory).with_context(|| format!("listing {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let name = entry.file_name();
            if kind.is_dir() && !FOREIGN_DIRECTORIES.iter().any(|skip| name == *skip) {
                directories.push(path);
            } else if kind.is_file()
                && name != ".git"
                && let Ok(text) = fs::read_to_string(&path)
            {
                let place = path.strip_prefix(root)?.to_string_lossy().into_owned();
                texts.push((place, text));
            }
        }
    }
    texts.sort();
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        let (failures, _) = check(&crate::root().unwrap()).unwrap();
        let lines: Vec<String> = failures.iter().map(Finding::to_string).collect();
        assert!(lines.is_empty(), "\n{}", lines.join("\n"));
    }
}
