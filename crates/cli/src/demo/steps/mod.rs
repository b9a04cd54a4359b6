//! Carries out the steps; this file only tells which.

mod join;
mod network;
mod overlay;
mod stranger;
mod stream;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::member::Member;
use super::plan::Step;
use super::transcript::Transcript;
use super::world::World;

/// The channel's name.
const CHANNEL: &str = "office";

/// The channel's network.
const NETWORK: &str = "10.77.0.0/16";

/// The size of the file that is sent, in octets.
const FILE_BYTES: u64 = 8 * 1024 * 1024;

/// How long sending that file may take.
const FILE_TIME_MAX: Duration = Duration::from_secs(60);

/// How long it may take until a change has spread among three nodes.
const SPREAD_TIME_MAX: Duration = Duration::from_secs(30);

/// Carries out a step and tells in a few words what was seen.
///
/// # Errors
/// What went wrong; the check has failed then.
pub(super) fn run(step: Step, world: &mut World, transcript: &mut Transcript) -> Result<String> {
    match step {
        Step::Hosts => join::hosts(world),
        Step::FirstDaemon => join::first_daemon(world, transcript),
        Step::OtherDaemons => join::other_daemons(world, transcript),
        Step::Create => join::create(world, transcript),
        Step::JoinByInvitation => join::by_invitation(world, transcript),
        Step::JoinByPassword => join::by_password(world, transcript),
        Step::Addresses => join::addresses(world, transcript),
        Step::VirtualPing(a, b) => network::ping_both_ways(world, transcript, a, b),
        Step::Download => network::download(world, transcript),
        Step::Stream => stream::send(world, transcript),
        Step::OverlayPing => overlay::ping(world, transcript),
        Step::Trace => overlay::trace(world, transcript),
        Step::Store => overlay::store(world, transcript),
        Step::Kill => overlay::kill(world, transcript),
        Step::Return => overlay::come_back(world, transcript),
        Step::Stranger => stranger::try_password(world, transcript),
    }
}

/// Makes a file of random octets in a directory of its own.
fn random_file(world: &World) -> Result<PathBuf> {
    let directory = world.directory().join("files");
    fs::create_dir_all(&directory)?;
    let path = directory.join("random");
    let mut random = File::open("/dev/urandom")?.take(FILE_BYTES);
    io::copy(&mut random, &mut File::create(&path)?).context("making a file of random octets")?;
    Ok(path)
}

/// Gives the SHA-256 of a file as `sha256sum` prints it.
fn sha256(member: &Member, transcript: &mut Transcript, file: &Path) -> Result<String> {
    let file = file.to_str().context("the path of a file is not UTF-8")?;
    let output = member.run(transcript, &["sha256sum", file], FILE_TIME_MAX)?;
    let sum = output.stdout.split_whitespace().next();
    Ok(sum.context("sha256sum printed nothing")?.to_owned())
}

/// How fast the file went, for people.
fn rate(time: Duration) -> String {
    let mbit = FILE_BYTES as f64 * 8.0 / 1e6 / time.as_secs_f64();
    format!("the same SHA-256; {mbit:.0} Mbit/s")
}
