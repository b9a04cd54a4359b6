//! A byte stream between two members, without any network device.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use enishi_lab::Process;

use super::{FILE_TIME_MAX, random_file, rate, sha256};
use crate::demo::member::Member;
use crate::demo::transcript::Transcript;
use crate::demo::world::World;

/// The name of the service that takes the stream.
const SERVICE: &str = "demo";

/// How often the stream is tried while the other side may not listen yet.
const ATTEMPTS_MAX: u32 = 10;

/// Before each attempt.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(300);

/// Sends a file from the first member to the second by `enishi connect` on both sides.
pub(super) fn send(world: &mut World, transcript: &mut Transcript) -> Result<String> {
    let file = random_file(world)?;
    let received = world.directory().join("received");
    let [from, to, _] = world.members.as_slice() else {
        anyhow::bail!("there are not three members")
    };
    let words = ["connect", "--listen", SERVICE];
    let listen = redirected(to, &words, Path::new("/dev/null"), &received);
    let log = world.directory().join("connect.log");
    transcript.command(to.name, "enishi connect --listen demo > received &", "")?;
    let mut listener = Process::spawn(listen, &log)?;
    let address = to.virtual_address()?.to_string();
    let time = connect(world, from, &address, &file)?;
    let shown = format!("enishi connect {address} {SERVICE} < random");
    transcript.command(from.name, &shown, "")?;
    let ended = listener
        .wait(FILE_TIME_MAX)?
        .context("the listening side does not end")?;
    ensure!(
        ended.success(),
        "the listening side failed: {}",
        last_line(&log)
    );
    let (sent, arrived) = (
        sha256(from, transcript, &file)?,
        sha256(to, transcript, &received)?,
    );
    ensure!(sent == arrived, "what arrived is not what was sent");
    Ok(rate(time))
}

/// Sends the file; repeated, for nobody tells when the other side has begun to listen.
fn connect(world: &World, from: &Member, address: &str, file: &Path) -> Result<Duration> {
    let answer = world.directory().join("answer");
    let mut said = String::new();
    for _ in 0..ATTEMPTS_MAX {
        thread::sleep(ATTEMPT_PAUSE);
        let command = redirected(from, &["connect", address, SERVICE], file, &answer);
        let started = Instant::now();
        let output = enishi_lab::run(command, FILE_TIME_MAX)?;
        if output.success() {
            return Ok(started.elapsed());
        }
        said = output.stderr.trim().to_owned();
    }
    anyhow::bail!("no stream could be opened: {said}")
}

/// A command of enishi with its input and output taken from and put into files.
fn redirected(member: &Member, words: &[&str], input: &Path, output: &Path) -> Command {
    let (program, data) = member.program_and_data();
    let mut command = member.command("sh");
    // The paths are arguments, so that the shell does not read anything into them.
    command.args([
        "-c",
        r#"input=$1 output=$2; shift 2; exec "$@" < "$input" > "$output""#,
        "sh",
    ]);
    command
        .arg(input)
        .arg(output)
        .arg(program)
        .arg("--data")
        .arg(data)
        .args(words);
    command
}

fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().last().unwrap_or_default().to_owned()
}
