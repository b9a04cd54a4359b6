//! An office for tests: hosts of one lab with a daemon each, all members of one channel.
//!
//! Host N is called `hN`, and so calls itself; the channel is called `office`, and the first
//! host has made it. A file of tests adds what it alone needs in an `impl Office` of its own.

#![allow(dead_code, reason = "every file of tests needs a part of it")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use enishi_lab::{Daemon, Host, Lab, Output, Process, ensure_programs, until};
use tempfile::TempDir;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_enishi");

/// How long anything may take that is waited for. Nothing is found to be absent by it.
pub(crate) const A_WHILE: Duration = Duration::from_secs(20);

/// When a program is killed that should have ended.
const RUN_TIME_MAX: Duration = Duration::from_secs(60);

pub(crate) struct Office {
    // The daemons go before their network, and that before their data.
    pub(crate) daemons: Vec<Daemon>,
    /// Programs that are to run until the end.
    pub(crate) servers: Vec<Process>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) lab: Lab,
    pub(crate) directory: TempDir,
    /// Leads to the first daemon, and into a governed channel.
    pub(crate) ticket: String,
    /// The file with the password that the channel rests on; none where it is governed.
    password: Option<PathBuf>,
}

impl Office {
    /// An office without hosts, where these programs (and Debian packages) are to be had; none
    /// without root, which is said.
    pub(crate) fn open(prefix: &str, programs: &[(&str, &str)]) -> Option<Self> {
        if !enishi_lab::is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        ensure_programs(programs).unwrap();
        let directory = tempfile::tempdir().unwrap();
        // For daemons of users other than root.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        Some(Self {
            daemons: Vec::new(),
            servers: Vec::new(),
            hosts: Vec::new(),
            lab: Lab::new(prefix).unwrap(),
            directory,
            ticket: String::new(),
            password: None,
        })
    }

    /// Has the channel rest on a password.
    pub(crate) fn with_password(mut self, password: &str) -> Self {
        let file = self.path("password");
        fs::write(&file, password).unwrap();
        self.password = Some(file);
        self
    }

    /// Adds a host and its daemon, and lets it join. Returns its number.
    pub(crate) fn hire(&mut self, arguments: &[&str]) -> usize {
        let number = self.add_host();
        self.employ(number, Path::new(PROGRAM), arguments);
        number
    }

    /// Adds a host on which nothing runs yet. Returns its number.
    pub(crate) fn add_host(&mut self) -> usize {
        let name = format!("h{}", self.hosts.len());
        self.hosts.push(self.lab.host(&name).unwrap());
        let number = self.hosts.len() - 1;
        fs::write(self.config(number), format!("host_name = \"{name}\"\n")).unwrap();
        number
    }

    /// Starts the daemon of the host that was added last, and lets it join.
    pub(crate) fn employ(&mut self, number: usize, program: &Path, arguments: &[&str]) {
        let ticket = self.ticket.clone();
        let bootstrap = ["--bootstrap", &ticket];
        let bootstrap = if number == 0 { &[] } else { &bootstrap[..] };
        self.start(number, program, &[arguments, bootstrap].concat());
        self.join(number);
    }

    /// Starts the daemon of the host that was added last, which knows no other node.
    pub(crate) fn start(&mut self, number: usize, program: &Path, arguments: &[&str]) {
        assert_eq!(number, self.daemons.len(), "one after the other");
        let daemon = self.launch(number, program, arguments);
        self.daemons.push(daemon);
    }

    /// Starts the daemon of a host anew. The one before has ended, or is killed now.
    pub(crate) fn restart(&mut self, number: usize, arguments: &[&str]) {
        self.restart_as(number, Path::new(PROGRAM), arguments);
    }

    /// The same, of another program.
    pub(crate) fn restart_as(&mut self, number: usize, program: &Path, arguments: &[&str]) {
        self.daemons[number] = self.launch(number, program, arguments);
    }

    fn launch(&self, number: usize, program: &Path, arguments: &[&str]) -> Daemon {
        let config = self.config(number);
        let words = [&["--config", config.to_str().unwrap()], arguments].concat();
        Daemon::start(
            program,
            Some(&self.hosts[number]),
            &self.data(number),
            &words,
        )
        .unwrap()
    }

    /// Lets a daemon join the channel; the first one makes it.
    pub(crate) fn join(&mut self, number: usize) {
        let daemon = &self.daemons[number];
        let text = |words: &[&str]| daemon.text(words).unwrap();
        let password = self.password.as_ref().map(|file| file.to_str().unwrap());
        match (number, password) {
            (0, None) => {
                text(&["channel", "create", "office"]);
                self.ticket = text(&["channel", "invite", "office", "--uses", "any"]);
            }
            (0, Some(password)) => {
                text(&["channel", "create", "office", "--password-file", password]);
                self.ticket = text(&["invite"]);
            }
            (_, None) => drop(text(&["channel", "join", &self.ticket])),
            (_, Some(password)) => {
                let by_name = ["channel", "join", "--name", "office"];
                text(&[&by_name[..], &["--password-file", password]].concat());
            }
        }
    }

    /// Makes a program that is Enishi after these lines of shell.
    pub(crate) fn wrap(&self, lines: &str) -> PathBuf {
        self.script("enishi", &format!("{lines}\nexec {PROGRAM} \"$@\""))
    }

    /// Makes an Enishi for which `ip` refuses lines with this word as long as there is a file;
    /// returns both.
    pub(crate) fn with_failing_ip(&self, word: &str) -> [PathBuf; 2] {
        let (real, fails) = (shell(&self.hosts[0], "command -v ip"), self.path("fails"));
        fs::write(&fails, "").unwrap();
        let (real, file) = (real.trim(), fails.display());
        let ip = self.script(
            "ip",
            &format!(
                "[ -e {file} ] || exec {real} \"$@\"\nlines=$(cat)\n\
                 case \"$lines\" in *{word}*) echo 'ip does not want to' >&2; exit 2;; esac\n\
                 printf '%s\\n' \"$lines\" | {real} \"$@\""
            ),
        );
        let directory = ip.parent().unwrap().display();
        [self.wrap(&format!("export PATH={directory}:$PATH")), fails]
    }

    fn script(&self, name: &str, lines: &str) -> PathBuf {
        let directory = self.path("bin");
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join(name);
        fs::write(&file, format!("#!/bin/sh\n{lines}\n")).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
        file
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where a host's daemon keeps its data.
    pub(crate) fn data(&self, number: usize) -> PathBuf {
        self.path(&format!("h{number}"))
    }

    pub(crate) fn config(&self, number: usize) -> PathBuf {
        self.path(&format!("h{number}.toml"))
    }

    /// The virtual address of a host, once it has one.
    pub(crate) fn address(&self, number: usize) -> String {
        self.daemons[number].address().unwrap().to_string()
    }

    pub(crate) fn address6(&self, number: usize) -> String {
        let status = self.daemons[number].json(&["status"]).unwrap();
        let address = status["channels"][0]["address6"].as_str();
        address.unwrap_or_else(|| panic!("{status}")).to_owned()
    }

    /// Runs a program on a host.
    pub(crate) fn run(&self, number: usize, words: &[&str]) -> Output {
        self.hosts[number].run(words, RUN_TIME_MAX).unwrap()
    }

    /// Runs a program that goes on; what it prints goes into the file `NAME.log`.
    pub(crate) fn spawn(&self, number: usize, name: &str, words: &[&str]) -> (Process, PathBuf) {
        let log = self.path(&format!("{name}.log"));
        let mut command = self.hosts[number].command(words[0]);
        command.args(&words[1..]);
        (self.hosts[number].spawn(command, &log).unwrap(), log)
    }

    /// Runs a program on a host until the end; returns where it says what.
    pub(crate) fn serve(&mut self, number: usize, words: &[&str]) -> PathBuf {
        let name = format!("server{}", self.servers.len());
        let (server, log) = self.spawn(number, &name, words);
        self.servers.push(server);
        log
    }

    pub(crate) fn wait_for_ping(&self, from: usize, to: &str, limit: Duration) {
        let what = format!("h{from} reaches {to}");
        until(limit, &what, || Ok(reaches(&self.hosts[from], to))).unwrap();
    }
}

/// Runs a line of shell, which must succeed; what it printed.
pub(crate) fn shell(host: &Host, line: &str) -> String {
    let output = host.run(&["sh", "-ec", line], RUN_TIME_MAX).unwrap();
    assert!(output.success(), "{line}: {}", output.stderr);
    output.stdout
}

/// Whether one echo request is answered within two seconds: to be waited for, or for absence.
pub(crate) fn reaches(host: &Host, to: &str) -> bool {
    let words = ["ping", "-c", "1", "-W", "2", to];
    host.run(&words, RUN_TIME_MAX).unwrap().success()
}

/// Sends echo requests that must be answered, however long that takes; what `ping` printed.
pub(crate) fn ping(host: &Host, options: &[&str], to: impl AsRef<str>) -> String {
    let words = [&["ping", "-W", "15"], options, &[to.as_ref()]].concat();
    let output = host.run(&words, RUN_TIME_MAX).unwrap();
    assert!(
        output.success(),
        "{words:?}: {}{}",
        output.stdout,
        output.stderr
    );
    output.stdout
}

/// Waits until a program has said something in its log.
pub(crate) fn wait_for_line(log: &Path, part: &str) {
    let said = || fs::read_to_string(log).unwrap_or_default();
    let heard = until(A_WHILE, part, || Ok(said().contains(part)));
    heard.unwrap_or_else(|error| panic!("{error}: {}", said()));
}

/// The configuration of a system bus for one host alone, at a socket that is filled in.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=SOCKET</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"#;

/// Starts a system bus (package dbus-daemon) for the programs of one host, at this socket. Returns
/// it, and the variable of the environment by which they find it.
pub(crate) fn system_bus(host: &Host, socket: &Path) -> (Process, String) {
    let config = socket.with_extension("conf");
    fs::write(&config, BUS.replace("SOCKET", socket.to_str().unwrap())).unwrap();
    let mut bus = host.command("dbus-daemon");
    bus.args(["--nofork", "--nopidfile", "--config-file"])
        .arg(&config);
    let bus = host.spawn(bus, &socket.with_extension("log")).unwrap();
    until(A_WHILE, "there is a bus", || Ok(socket.exists())).unwrap();
    let address = format!("DBUS_SYSTEM_BUS_ADDRESS=unix:path={}", socket.display());
    (bus, address)
}

impl Office {
    /// Starts avahi on a host with this configuration, with files in /run that are its own: it
    /// does not start where another one of this machine has written that it runs. `bus` is the
    /// variable by which it finds its system bus, if it is to have one. Returns it and its log.
    pub(crate) fn avahi(&self, number: usize, text: &str, bus: &str) -> (Process, PathBuf) {
        let name = format!("avahi{number}");
        let config = self.path(&format!("{name}.conf"));
        fs::write(&config, text).unwrap();
        let line = format!(
            "mount -t tmpfs tmpfs /run; exec env {bus} avahi-daemon -f {} --no-drop-root \
             --no-chroot --no-rlimits",
            config.display()
        );
        self.spawn(number, &name, &["sh", "-ec", &line])
    }
}
