//! A real `enishi up`, driven by the real command line as a script would.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::ask::ask;
use crate::host::Host;
use crate::process::{Output, Process, command, run};

/// How long a daemon may take to answer, and a node to join and be reached.
pub const JOIN_TIME_MAX: Duration = Duration::from_secs(30);

/// The longest that one call of the command line may take.
const CALL_TIME_MAX: Duration = Duration::from_secs(45);

/// The variables that name proxies. Those of whoever runs the lab are not meant for its nodes.
const PROXY_VARIABLES: [&str; 8] = [
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
];

/// Between two looks at something that is to come about.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// One daemon and its data directory; dropping it kills the daemon.
#[derive(Debug)]
pub struct Daemon {
    program: PathBuf,
    data: PathBuf,
    host: Option<Host>,
    process: Process,
}

impl Daemon {
    /// Starts `PROGRAM up --data DATA ARGUMENTS` on a host, or without one on this
    /// machine, and waits until it answers. Its log is `DATA.log`.
    ///
    /// # Errors
    /// When it does not answer within [`JOIN_TIME_MAX`]; the text holds its log.
    pub fn start(
        program: &Path,
        host: Option<&Host>,
        data: &Path,
        arguments: &[&str],
    ) -> Result<Self> {
        Self::start_with(program, host, data, arguments, &[])
    }

    /// The same, with these variables in the daemon's environment besides.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        program: &Path,
        host: Option<&Host>,
        data: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        let daemon = Self::spawn(program, host, data, arguments, variables)?;
        let mut last = String::new();
        let there = until(JOIN_TIME_MAX, "the daemon answers", || {
            let asked = daemon.call(&["status", "--json"])?;
            last.clone_from(&asked.stderr);
            Ok(asked.success())
        });
        there
            .with_context(|| format!("its command: {last}\nthe daemon said:\n{}", daemon.log()))?;
        Ok(daemon)
    }

    /// Starts it without waiting.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn launch(
        program: &Path,
        host: Option<&Host>,
        data: &Path,
        arguments: &[&str],
    ) -> Result<Self> {
        Self::spawn(program, host, data, arguments, &[])
    }

    fn spawn(
        program: &Path,
        host: Option<&Host>,
        data: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        let mut up = match host {
            Some(host) => host.command(program),
            None => command(program),
        };
        for name in PROXY_VARIABLES {
            up.env_remove(name);
        }
        up.envs(variables.iter().copied());
        up.arg("up").arg("--data").arg(data).args(arguments);
        // Nodes of one lab find each other only where that is what is tried.
        if !arguments.contains(&"--mdns") {
            up.args(["--mdns", "off"]);
        }
        let log = data.with_extension("log");
        let process = match host {
            Some(host) => host.spawn(up, &log)?,
            None => Process::spawn(up, &log)?,
        };
        Ok(Self {
            program: program.to_owned(),
            data: data.to_owned(),
            host: host.cloned(),
            process,
        })
    }

    /// Returns where it keeps its data.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Returns the process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Returns what the daemon wrote to its log, of this and of earlier runs.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.process.log()).unwrap_or_default()
    }

    /// Asks the daemon one thing at its control socket, as docs/commands.md tells, and
    /// returns the last answer: cheaper than a command, where many are asked.
    ///
    /// # Errors
    /// When it does not answer within a minute, or answers with a failure.
    pub fn ask(&self, request: &Value) -> Result<Value> {
        ask(&self.data, request)
    }

    /// Runs one command of the command line.
    ///
    /// # Errors
    /// When it cannot be run; a bad exit code is no error.
    pub fn call(&self, words: &[&str]) -> Result<Output> {
        let mut enishi = match &self.host {
            Some(host) => host.command(&self.program),
            None => command(&self.program),
        };
        enishi.arg("--data").arg(&self.data).args(words);
        run(enishi, CALL_TIME_MAX)
    }

    /// Runs one command and returns its standard output.
    ///
    /// # Errors
    /// When it does not end with exit code 0.
    pub fn text(&self, words: &[&str]) -> Result<String> {
        let output = self.call(words)?;
        let (call, said) = (words.join(" "), output.stderr.trim());
        ensure!(
            !output.timed_out,
            "`enishi {call}` did not end within {CALL_TIME_MAX:?}: {said}\nthe daemon said:\n{}",
            self.log()
        );
        ensure!(output.success(), "`enishi {call}`: {said}");
        Ok(output.stdout.trim_end().to_owned())
    }

    /// Runs one command with `--json` and returns the object.
    ///
    /// # Errors
    /// When it does not end with exit code 0, or prints something else.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.text(&[words, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("reading {text:?}"))
    }

    /// Returns the virtual address in the node's first channel, once it holds one.
    ///
    /// # Errors
    /// When it holds none within [`JOIN_TIME_MAX`].
    pub fn address(&self) -> Result<Ipv4Addr> {
        let mut address = None;
        until(JOIN_TIME_MAX, "the node holds a virtual address", || {
            let status = self.json(&["status"])?;
            let text = status["channels"][0]["address"].as_str();
            address = text.and_then(|text| text.parse().ok());
            Ok(address.is_some())
        })?;
        address.context("the daemon's status has no address")
    }

    /// Returns the memory that is resident now, in megabytes.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn rss_mb(&self) -> Result<f64> {
        self.process.rss_mb()
    }

    /// Returns the processor time used since the start, in seconds.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn cpu_s(&self) -> Result<f64> {
        self.process.cpu_s()
    }
}

/// Tries `holds` again and again until it does.
///
/// # Errors
/// When `limit` passes first, with `what` was waited for; and those of `holds`.
pub fn until(limit: Duration, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !holds()? {
        ensure!(started.elapsed() < limit, "waited {limit:?} until {what}");
        thread::sleep(LOOK_INTERVAL);
    }
    Ok(())
}
