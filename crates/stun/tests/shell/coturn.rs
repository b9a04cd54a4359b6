//! coturn, unpacked from Debian's package. Tests of other crates use it too.

#![allow(dead_code, reason = "each test needs a part of it")]

use std::time::Duration;

use enishi_lab::programs::find_program;
use enishi_lab::{Host, Process};
use tempfile::TempDir;

/// The longest that anything here takes.
pub(crate) const A_WHILE: Duration = Duration::from_secs(60);

/// How long a program on the same machine takes to answer.
const A_SECOND: Duration = Duration::from_secs(1);

/// The port of STUN and TURN (RFC 8656, section 4).
pub(crate) const PORT: u16 = 3478;

/// The port at which `turnutils_peer` says everything back.
pub(crate) const ECHO_PORT: u16 = 3480;

/// Name and password of the user in all tests.
pub(crate) const USER: (&str, &str) = ("aki", "correct horse");

/// The programs of coturn.
pub(crate) struct Coturn {
    logs: TempDir,
    installed: bool,
}

/// Where it is unpacked, once for all tests.
const UNPACKED: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/coturn");

/// Unpacks coturn unless it is there; installing it would start a service. Tests in other processes
/// wait for the first.
const UNPACK: &str = r#"
    exec 9>lock
    flock 9
    test ! -e usr/bin/complete || exit 0
    apt-get -q download coturn || { apt-get -q update; apt-get -q download coturn; }
    dpkg-deb -x coturn_*.deb .
    libraries=$(dpkg-deb -f coturn_*.deb Depends | tr , '\n' | sed 's/^ *//; s/[ (|].*//' | grep '^lib')
    apt-get -q -o DPkg::Lock::Timeout=60 install -y --no-install-recommends $libraries
    touch usr/bin/complete
"#;

impl Coturn {
    /// Finds it or unpacks it.
    pub(crate) fn new() -> Self {
        let installed = find_program("turnserver").is_some();
        if !installed {
            std::fs::create_dir_all(UNPACKED).unwrap();
            let mut unpack = enishi_lab::command("sh");
            unpack.args(["-ec", UNPACK]).current_dir(UNPACKED);
            unpack.env("DEBIAN_FRONTEND", "noninteractive");
            let unpacked = enishi_lab::run(unpack, 3 * A_WHILE).unwrap();
            assert!(unpacked.success(), "{}", unpacked.stderr);
        }
        Self {
            logs: tempfile::tempdir().unwrap(),
            installed,
        }
    }

    /// Returns the path of one of its programs.
    pub(crate) fn program(&self, name: &str) -> String {
        if self.installed {
            name.to_owned()
        } else {
            format!("{UNPACKED}/usr/bin/{name}")
        }
    }

    /// Starts `turnserver` on a host; it listens when this returns.
    pub(crate) fn serve(&self, host: &Host) -> Process {
        let log = self.logs.path().join("turnserver.log");
        let (user, password) = USER;
        let mut command = host.command(self.program("turnserver"));
        command.args([
            "-n",
            "-v",
            "--lt-cred-mech",
            "--realm=lab",
            "--log-file=stdout",
        ]);
        command.args(["--no-tls", "--no-dtls", "--no-cli"]);
        command.arg(format!("--listening-ip={}", host.address()));
        command.arg(format!("--relay-ip={}", host.address()));
        command.arg(format!("--listening-port={PORT}"));
        command.arg(format!("--user={user}:{password}"));
        for file in ["pidfile", "userdb"] {
            let path = self.logs.path().join(file);
            command.arg(format!("--{file}={}", path.display()));
        }
        let process = host.spawn(command, &log).unwrap();
        enishi_lab::until(A_WHILE, "turnserver listens", || {
            let words = [
                &self.program("turnutils_stunclient"),
                &host.address().to_string(),
            ];
            // It asks once and waits for ever.
            Ok(host.run(&words.map(String::as_str), A_SECOND)?.success())
        })
        .unwrap();
        process
    }

    /// Returns what `turnserver` logged since it was started last.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.logs.path().join("turnserver.log")).unwrap_or_default()
    }

    /// Starts `turnutils_peer` on a host, which says everything back.
    pub(crate) fn echo(&self, host: &Host) -> Process {
        let log = self.logs.path().join("peer.log");
        let mut command = host.command(self.program("turnutils_peer"));
        command.args(["-L", &host.address().to_string()]);
        command.args(["-p", &ECHO_PORT.to_string()]);
        host.spawn(command, &log).unwrap()
    }
}
