//! `cargo xtask lab`: real daemons in an Internet made up, behind routers of every kind.

mod iroh;
mod kinds;
mod links;
mod matrix;
mod picture;
mod strip;
mod survival;
mod town;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::options::Options;
use crate::program;
use enishi_lab::Daemon;
use iroh::Programs;
use kinds::{KINDS, Kind};
use links::Links;
use matrix::Trials;
use town::Town;

/// Runs one command of the lab.
///
/// # Errors
/// When there is no such command, or the lab cannot be built.
pub(crate) fn run(root: &Path, mut options: Options) -> anyhow::Result<bool> {
    match options.word().as_deref() {
        Some("matrix") => {
            let named = options.value("--kinds")?;
            let (svg, json) = (options.value("--svg")?, options.flag("--json"));
            let endpoint = options.value("--iroh-program")?.map(PathBuf::from);
            let with_iroh = options.flag("--iroh") || endpoint.is_some();
            let only_survives = options.flag("--only-survives");
            let trials = Trials {
                all_pairs: !only_survives,
                survival: options.flag("--survives") || only_survives,
                links: Links::taken(&mut options)?,
            };
            let program = options.value("--program")?.map(PathBuf::from);
            options.finish()?;
            let kinds = chosen(named.as_deref())?;
            let program = program.map_or_else(|| program::build(root), Ok)?;
            let iroh = with_iroh
                .then(|| Programs::get(root, endpoint))
                .transpose()?;
            let matrix = matrix::measure(&program, iroh.as_ref(), &kinds, trials)?;
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
        Some("open") => {
            let named = options.value("--kinds")?;
            let program = options.value("--program")?.map(PathBuf::from);
            let links = Links::taken(&mut options)?;
            options.finish()?;
            let kinds = chosen(named.as_deref())?;
            let program = program.map_or_else(|| program::build(root), Ok)?;
            open(&program, &kinds, links)
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

/// Builds a town and leaves it to the person until the end of standard input.
fn open(program: &Path, kinds: &[Kind], links: Links) -> anyhow::Result<bool> {
    let town = Town::build(program, kinds, None, links)?;
    let named = kinds.iter().map(|kind| kind.name);
    let sides = town.sides.iter().flat_map(|side| named.clone().zip(side));
    let all = town
        .helpers
        .iter()
        .map(|node| ("helper", node))
        .chain(sides);
    for (kind, node) in all {
        let joined = node.address.as_deref().unwrap_or("has not joined");
        let data = node.daemon.as_ref().map(Daemon::data);
        let data = data.map_or_else(String::new, |data| data.display().to_string());
        println!(
            "{kind:<18} {:<32} {joined:<16} {data}",
            node.host.namespace()
        );
    }
    println!(
        "\nip netns exec NAMESPACE PROGRAM, and enishi --data DIRECTORY COMMAND. All of it goes with \
         the end of standard input (Ctrl-D)."
    );
    std::io::stdin().lines().for_each(drop);
    Ok(true)
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
