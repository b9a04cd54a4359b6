//! A node for tests: a data directory, and a daemon on loopback without network devices.

#![allow(dead_code, reason = "every file of tests needs a part of it")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use enishi_lab::{Daemon, Output, command, run};
use serde_json::Value;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_enishi");

/// How long anything may take that is waited for. Nothing is found to be absent by it.
const A_WHILE: Duration = Duration::from_secs(60);

/// A data directory, and the daemon there; killed when it is dropped.
pub(crate) struct Node {
    pub(crate) data: PathBuf,
    daemon: Option<Daemon>,
}

impl Node {
    /// A node whose daemon does not run.
    pub(crate) fn new(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            daemon: None,
        }
    }

    /// A node whose daemon answers.
    pub(crate) fn start(data: &Path, arguments: &[&str]) -> Self {
        let mut node = Self::new(data);
        node.up(arguments);
        node
    }

    /// Starts the daemon.
    pub(crate) fn up(&mut self, arguments: &[&str]) {
        let arguments = [&["--no-tun", "--listen", "127.0.0.1:0"], arguments].concat();
        let daemon = Daemon::start(Path::new(PROGRAM), None, &self.data, &arguments);
        self.daemon = Some(daemon.unwrap());
    }

    pub(crate) fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("a daemon that was started")
    }

    /// Kills the daemon.
    pub(crate) fn kill(&mut self) {
        self.daemon().process().kill9().unwrap();
    }

    /// Ends the daemon in good order.
    pub(crate) fn stop(&mut self) {
        self.ask(&["down"]);
        let ended = self.daemon().process().wait(A_WHILE).unwrap();
        assert_eq!(
            ended.and_then(|status| status.code()),
            Some(0),
            "{}",
            self.log()
        );
    }

    /// Runs a command.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        let mut enishi = command(PROGRAM);
        enishi.arg("--data").arg(&self.data).args(words);
        run(enishi, A_WHILE).unwrap()
    }

    /// Runs a command that must succeed and returns its JSON.
    pub(crate) fn ask(&self, words: &[&str]) -> Value {
        let output = self.run(&[words, &["--json"]].concat());
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(output.success(), "{words:?}: {said}\n{}", self.log());
        serde_json::from_str(&output.stdout).unwrap()
    }

    /// Runs a command that must fail so, and returns what it says.
    pub(crate) fn fail(&self, words: &[&str], code: i32) -> String {
        let output = self.run(words);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{words:?}: {}",
            output.stderr
        );
        output.stderr
    }

    pub(crate) fn exit_code(&self, words: &[&str]) -> i32 {
        self.run(words).status.code().unwrap()
    }

    pub(crate) fn id(&self) -> String {
        text(&self.ask(&["status"])["node_id"]).to_owned()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }
}

/// Waits for a condition; returns how long it took.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let started = std::time::Instant::now();
    enishi_lab::until(A_WHILE, what, || Ok(holds())).unwrap();
    started.elapsed()
}

pub(crate) fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
}
