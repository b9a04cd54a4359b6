//! Running other programs: what they print is shown at once and can be read along.

use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::Context as _;

/// How long after its end a program's last lines are waited for. A process that it
/// left behind may hold the pipe open for ever.
const LAST_LINES_WAIT: Duration = Duration::from_secs(1);

/// Returns the cargo that runs us, in the workspace's directory, with plain output
/// where nobody watches.
pub(crate) fn cargo(root: &Path) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root);
    let colour = if watched() { "always" } else { "never" };
    command.env("CARGO_TERM_COLOR", colour);
    command.env("CARGO_TERM_PROGRESS_WHEN", "never");
    // What `cargo run` tells us of ourselves would be news to build scripts, and rebuild
    // what was built without it.
    for (name, _) in std::env::vars_os() {
        let ours = ["CARGO_MANIFEST_", "CARGO_PKG_"];
        if ours
            .iter()
            .any(|ours| name.to_string_lossy().starts_with(ours))
        {
            command.env_remove(&name);
        }
    }
    command
}

/// Tells whether a person watches: a terminal, and not CI.
pub(crate) fn watched() -> bool {
    let ci = std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false");
    !ci && std::io::stdout().is_terminal()
}

/// Runs `command`, shows each line that it prints and hands it, free of colours, to
/// `line`. Returns whether the program ended well.
///
/// # Errors
/// When the program cannot be started.
pub(crate) fn follow(command: &mut Command, mut line: impl FnMut(&str)) -> anyhow::Result<bool> {
    follow_quietly(command, |text| {
        println!("{text}");
        line(&plain(text));
    })
}

/// Like [`follow`], but shows nothing and leaves colours in place.
pub(crate) fn follow_quietly(
    command: &mut Command,
    mut line: impl FnMut(&str),
) -> anyhow::Result<bool> {
    let (reader, writer) = std::io::pipe().context("making a pipe")?;
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdout(writer.try_clone().context("sharing a pipe")?);
    command.stderr(writer);
    let mut child = command
        .spawn()
        .with_context(|| format!("starting `{name}`; is it installed?"))?;
    // The command owns the pipe's writing end: without this it would never close.
    command.stdout(std::process::Stdio::null());
    command.stderr(std::process::Stdio::null());

    let (sender, lines) = mpsc::sync_channel(256);
    std::thread::spawn(move || {
        for octets in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&octets).into_owned();
            if sender.send(text).is_err() {
                break;
            }
        }
    });
    let mut ended = None;
    loop {
        match lines.recv_timeout(LAST_LINES_WAIT) {
            Ok(text) => line(&text),
            Err(RecvTimeoutError::Timeout) if ended.is_some() => break,
            Err(RecvTimeoutError::Timeout) => ended = child.try_wait()?,
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(match ended {
        Some(status) => status,
        None => child.wait()?,
    }
    .success())
}

/// Runs `command` and returns what it prints on standard output.
///
/// # Errors
/// When it cannot be started or does not end well; its error output is shown.
pub(crate) fn read(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("running {command:?}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{command:?} ended with {}",
        output.status
    );
    String::from_utf8(output.stdout).context("reading a program's output as text")
}

/// Returns `text` without terminal colours (escape sequences that end in a letter).
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            rest.by_ref().find(char::is_ascii_alphabetic);
        } else if c != '\r' {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_taken_away() {
        assert_eq!(plain("\u{1b}[1m\u{1b}[32m ok\u{1b}[0m\r"), " ok");
    }

    #[test]
    fn both_outputs_are_read_in_order_and_failure_is_told() {
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; exit 3"]);
        let well = follow_quietly(&mut command, |line| lines.push(line.to_owned())).unwrap();
        assert!(!well);
        assert_eq!(lines, ["one", "two"]);
    }

    #[test]
    fn a_process_left_behind_does_not_hold_us_up() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 8 & exit 0"]);
        let started = std::time::Instant::now();
        assert!(follow_quietly(&mut command, |_| ()).unwrap());
        assert!(started.elapsed() < Duration::from_secs(7));
    }
}
