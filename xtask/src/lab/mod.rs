//! `cargo xtask lab`: real daemons in an Internet made up, behind routers of every kind.

mod kinds;
mod matrix;
mod picture;

use std::path::Path;

use anyhow::{Context as _, bail};

use crate::options::Options;
use kinds::{KINDS, Kind};

/// Runs one command of the lab.
///
/// # Errors
/// When there is no such command, or the lab cannot be built.
pub(crate) fn run(root: &Path, mut options: Options) -> anyhow::Result<bool> {
    match options.word().as_deref() {
        Some("matrix") => {
            let named = options.value("--kinds")?;
            let (svg, json) = (options.value("--svg")?, options.flag("--json"));
            options.finish()?;
            let kinds = chosen(named.as_deref())?;
            let matrix = matrix::measure(root, &kinds)?;
            if let Some(file) = svg {
                std::fs::write(&file, picture::draw(&matrix))
                    .with_context(|| format!("writing {file}"))?;
            }
            match json {
                true => println!("{:#}", matrix.to_json()),
                false => print!("{}", matrix.to_text()),
            }
            Ok(true)
        }
        None => {
            for kind in KINDS {
                println!("{:<18} {}", kind.name, kind.about);
            }
            Ok(true)
        }
        Some(other) => bail!("there is no lab `{other}`; `cargo xtask lab matrix` is one"),
    }
}

/// The kinds of these names, or all.
fn chosen(named: Option<&str>) -> anyhow::Result<Vec<Kind>> {
    let Some(named) = named else {
        return Ok(KINDS.to_vec());
    };
    let find = |name: &str| {
        let found = KINDS.iter().find(|kind| kind.name == name).copied();
        found.with_context(|| format!("no kind `{name}`; `cargo xtask lab` lists them"))
    };
    named.split(',').map(find).collect()
}
