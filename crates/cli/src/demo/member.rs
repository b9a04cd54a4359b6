//! One member of the demo's network: a daemon, its data directory and its host.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use enishi_lab::{Host, Output, Process};
use serde_json::Value;

use super::transcript::Transcript;

/// How long a command of enishi may take; joining and claiming an address included.
pub(super) const COMMAND_TIME_MAX: Duration = Duration::from_secs(40);

/// How long a daemon may take until it answers.
const START_TIME_MAX: Duration = Duration::from_secs(15);

/// Between two looks at something that is to come about.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How many lines of its log a daemon that ended is quoted with.
const LOG_LINES_MAX: usize = 5;

/// A member; its daemon is killed when it is dropped.
#[derive(Debug)]
pub(super) struct Member {
    /// The name of the member and its host.
    pub(super) name: &'static str,
    /// The host; none on loopback.
    host: Option<Host>,
    program: PathBuf,
    data: PathBuf,
    /// The daemon, while it runs.
    daemon: Option<Process>,
    /// The node's id, once it has started.
    pub(super) node_id: String,
    /// The virtual address, once it is known.
    pub(super) address: Option<Ipv4Addr>,
}

impl Member {
    /// Makes a member whose daemon does not run yet.
    pub(super) fn new(name: &'static str, host: Option<Host>, directory: &Path) -> Result<Self> {
        let program = std::env::current_exe().context("finding this program's own file")?;
        let data = directory.join(name);
        Ok(Self {
            name,
            host,
            program,
            data,
            daemon: None,
            node_id: String::new(),
            address: None,
        })
    }

    /// Starts the daemon and waits until it answers.
    pub(super) fn start(
        &mut self,
        transcript: &mut Transcript,
        bootstrap: Option<&str>,
    ) -> Result<Value> {
        let mut words = vec!["up"];
        if self.host.is_none() {
            words.extend(["--no-tun", "--listen", "127.0.0.1:0"]);
        }
        if let Some(ticket) = bootstrap {
            words.extend(["--bootstrap", ticket]);
        }
        let log = self.data.with_extension("log");
        let command = self.enishi_command(&words);
        self.daemon = Some(match &self.host {
            Some(host) => host.spawn(command, &log)?,
            None => Process::spawn(command, &log)?,
        });
        let shown = format!("{} &", self.shown(&words));
        transcript.command(self.name, &shown, "")?;
        let status = until(START_TIME_MAX, "the daemon to answer", || {
            self.refuse_if_ended(&log)?;
            self.ask(&["status"])
        })?;
        let node_id = status["node_id"]
            .as_str()
            .context("the status has no node_id")?;
        node_id.clone_into(&mut self.node_id);
        Ok(status)
    }

    /// Kills the daemon at once, as a power cut would.
    pub(super) fn kill(&mut self, transcript: &mut Transcript) -> Result<()> {
        let mut daemon = self.daemon.take().context("its daemon does not run")?;
        transcript.command(self.name, &format!("kill -9 {}", daemon.id()), "")?;
        daemon.kill9()?;
        Ok(())
    }

    /// Runs a command of enishi, shows it, and gives its JSON.
    ///
    /// # Errors
    /// When it does not end with exit code 0 in time; the text is the daemon's own.
    pub(super) fn tell(&self, transcript: &mut Transcript, words: &[&str]) -> Result<Value> {
        let output = self.enishi(words)?;
        let shown = format!("{} --json", self.shown(words));
        transcript.command(self.name, &shown, &output.stdout)?;
        parse(words, &output)
    }

    /// Runs a command of enishi as a person would, only to show what it prints.
    pub(super) fn show(&self, transcript: &mut Transcript, words: &[&str]) -> Result<()> {
        let output = enishi_lab::run(self.enishi_command(words), COMMAND_TIME_MAX)?;
        transcript.command(self.name, &self.shown(words), &output.stdout)?;
        Ok(())
    }

    /// The same without showing it, for what is asked again and again.
    pub(super) fn ask(&self, words: &[&str]) -> Result<Value> {
        parse(words, &self.enishi(words)?)
    }

    /// Runs any program on the member's host and shows it.
    ///
    /// # Errors
    /// When it does not end with exit code 0 in time.
    pub(super) fn run(
        &self,
        transcript: &mut Transcript,
        words: &[&str],
        timeout: Duration,
    ) -> Result<Output> {
        let output = self.try_run(words, timeout)?;
        transcript.command(self.name, &words.join(" "), &output.stdout)?;
        if !output.success() {
            let said = output.stderr.lines().last().unwrap_or_default();
            bail!("`{}` failed ({}) {said}", words.join(" "), output.status);
        }
        Ok(output)
    }

    /// Runs any program on the member's host; a bad exit code is no error.
    pub(super) fn try_run(&self, words: &[&str], timeout: Duration) -> Result<Output> {
        let (program, arguments) = words.split_first().context("no program to run")?;
        let mut command = self.command(program);
        command.args(arguments);
        enishi_lab::run(command, timeout)
    }

    /// A command on the member's host.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match &self.host {
            Some(host) => host.command(program),
            None => enishi_lab::command(program),
        }
    }

    /// A command of enishi for this member's daemon.
    pub(super) fn enishi_command(&self, words: &[&str]) -> Command {
        let mut command = self.command(&self.program);
        command.arg("--data").arg(&self.data).args(words);
        command
    }

    /// The program and the data directory, for a shell's command line.
    pub(super) fn program_and_data(&self) -> (&Path, &Path) {
        (&self.program, &self.data)
    }

    /// Whether its daemon was started and not killed since.
    pub(super) fn is_started(&self) -> bool {
        self.daemon.is_some()
    }

    /// The virtual address.
    pub(super) fn virtual_address(&self) -> Result<Ipv4Addr> {
        self.address
            .with_context(|| format!("{} has no virtual address", self.name))
    }

    fn enishi(&self, words: &[&str]) -> Result<Output> {
        let mut command = self.enishi_command(words);
        command.arg("--json");
        enishi_lab::run(command, COMMAND_TIME_MAX)
    }

    fn shown(&self, words: &[&str]) -> String {
        let quote = |word: &&str| match word.contains(' ') {
            true => format!("'{word}'"),
            false => (*word).to_owned(),
        };
        let words: Vec<String> = words.iter().map(quote).collect();
        format!("enishi --data {} {}", self.name, words.join(" "))
    }

    fn refuse_if_ended(&mut self, log: &Path) -> Result<()> {
        let Some(daemon) = &mut self.daemon else {
            bail!("its daemon was not started")
        };
        if daemon.is_running()? {
            return Ok(());
        }
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join(" | ");
        Err(anyhow!(Ended(format!(
            "the daemon of {} ended: {tail}",
            self.name
        ))))
    }
}

/// An error after which waiting is in vain.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Ended(String);

/// Repeats `attempt` until it succeeds, for at most `time_max`.
///
/// # Errors
/// The last attempt's error when the time is over.
pub(super) fn until<T>(
    time_max: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if error.is::<Ended>() => return Err(error),
            Err(error) if started.elapsed() >= time_max => {
                return Err(error.context(format!("waited {} s for {what}", time_max.as_secs())));
            }
            Err(_) => thread::sleep(LOOK_INTERVAL),
        }
    }
}

fn parse(words: &[&str], output: &Output) -> Result<Value> {
    let words = words.join(" ");
    if output.timed_out {
        bail!(
            "`enishi {words}` took more than {} s",
            COMMAND_TIME_MAX.as_secs()
        );
    }
    let object: Value = serde_json::from_str(&output.stdout)
        .with_context(|| format!("`enishi {words}` gave no JSON; {}", output.stderr.trim()))?;
    if output.success() {
        return Ok(object);
    }
    let message = object["error"]["message"]
        .as_str()
        .unwrap_or("the answer is no");
    Err(anyhow!("`enishi {words}`: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_success_with_the_time_or_when_it_is_in_vain() {
        let mut left = 2;
        let mut countdown = || {
            left -= 1;
            if left == 0 {
                Ok("done")
            } else {
                bail!("not yet")
            }
        };
        assert_eq!(
            until(Duration::from_secs(5), "it", &mut countdown).unwrap(),
            "done"
        );
        let error = until::<()>(Duration::ZERO, "it", || bail!("not yet")).unwrap_err();
        assert_eq!(format!("{error:#}"), "waited 0 s for it: not yet");
        let ended = || Err::<(), _>(anyhow!(Ended("over".to_owned())));
        let error = until(Duration::from_secs(60), "it", ended).unwrap_err();
        assert_eq!(error.to_string(), "over");
    }
}
