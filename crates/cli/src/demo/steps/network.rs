//! Ordinary IP programs over the virtual network.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use enishi_lab::Process;

use super::{FILE_TIME_MAX, SPREAD_TIME_MAX, random_file, rate, sha256};
use crate::demo::member::{Member, until};
use crate::demo::transcript::Transcript;
use crate::demo::world::World;

/// How long one call of ping may take.
pub(super) const PING_TIME_MAX: Duration = Duration::from_secs(15);

/// The port of the web server.
const PORT: &str = "8080";

pub(super) fn ping_both_ways(
    world: &mut World,
    transcript: &mut Transcript,
    a: usize,
    b: usize,
) -> Result<String> {
    let (a, b) = (&world.members[a], &world.members[b]);
    let there = ping(transcript, a, b)?;
    let back = ping(transcript, b, a)?;
    Ok(format!("{there}; back: {back}"))
}

/// Pings with the system's own ping, which must hear at least one answer.
pub(super) fn ping(transcript: &mut Transcript, from: &Member, to: &Member) -> Result<String> {
    let address = to.virtual_address()?.to_string();
    let words = ["ping", "-c", "3", "-i", "0.2", "-W", "2", &address];
    let output = from.run(transcript, &words, PING_TIME_MAX)?;
    let summary = output
        .stdout
        .lines()
        .find(|line| line.contains(" received"));
    let summary = summary.context("ping printed no summary")?;
    let shown: Vec<&str> = summary.split(", ").take(2).collect();
    Ok(shown.join(", "))
}

/// Serves a file with Python at one member and fetches it with curl at another.
pub(super) fn download(world: &mut World, transcript: &mut Transcript) -> Result<String> {
    let file = random_file(world)?;
    let [client, server, _] = world.members.as_slice() else {
        anyhow::bail!("there are not three members")
    };
    let address = server.virtual_address()?.to_string();
    let _server = serve(transcript, server, &address, &file)?;
    let url = format!("http://{address}:{PORT}/random");
    until(SPREAD_TIME_MAX, "the web server", || {
        let words = [
            "curl",
            "--silent",
            "--fail",
            "--head",
            "--max-time",
            "2",
            &url,
        ];
        let output = client.try_run(&words, PING_TIME_MAX)?;
        ensure!(
            output.success(),
            "curl does not reach {url} ({})",
            output.status
        );
        Ok(())
    })?;
    let fetched = world.directory().join("fetched");
    let target = fetched.to_string_lossy();
    let started = Instant::now();
    client.run(
        transcript,
        &["curl", "--silent", "--fail", "-o", &target, &url],
        FILE_TIME_MAX,
    )?;
    let time = started.elapsed();
    let (sent, received) = (
        sha256(server, transcript, &file)?,
        sha256(client, transcript, &fetched)?,
    );
    ensure!(sent == received, "what arrived is not what was sent");
    Ok(rate(time))
}

/// Starts a web server, which ends when the value is dropped.
fn serve(
    transcript: &mut Transcript,
    server: &Member,
    address: &str,
    file: &std::path::Path,
) -> Result<Process> {
    let directory = file.parent().context("the file is in no directory")?;
    let mut command = server.command("python3");
    command
        .args(["-m", "http.server", PORT, "--bind", address, "--directory"])
        .arg(directory);
    let shown = format!("python3 -m http.server {PORT} --bind {address} &");
    transcript.command(server.name, &shown, "")?;
    Process::spawn(command, &directory.with_extension("log"))
}
