//! Real forward proxies with the configuration of a test: squid and tinyproxy.
//!
//! The files that squid's helpers for Basic and Digest read are in its directory, as `basic` and `digest`;
//! `DIRECTORY` in a configuration stands for that.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::host::Host;
use crate::process::{self, Process};
use crate::programs::ensure_programs;

/// User and password that the proxies take, once they ask.
pub const USER: &str = "aki";
/// The password of [`USER`].
pub const PASSWORD: &str = "sesame";

/// How long a proxy may take to listen.
const START_WITHIN: Duration = Duration::from_secs(20);

/// User and password as squid's helpers read them; the realm of Digest is `lab`.
const FILES: [(&str, &str); 2] = [
    ("digest", "aki:lab:e5889fbc26804e4863e389bc862caeb9\n"),
    ("basic", "aki:$apr1$labslabs$zJCTe.QeMDUI6mJJ6pbkU.\n"),
];

/// A real proxy; dropping it ends it.
#[derive(Debug)]
pub struct ForwardProxy {
    address: SocketAddr,
    _process: Process,
    directory: TempDir,
}

/// Makes sure that squid and tinyproxy are there.
///
/// # Errors
/// When one is missing and cannot be installed; see [`ensure_programs`].
pub fn ensure_proxies() -> Result<()> {
    ensure_programs(&[("squid", "squid"), ("tinyproxy", "tinyproxy-bin")])
}

impl ForwardProxy {
    /// Starts squid at an address of a host, or of this one. `lines` go before the one that lets everybody
    /// in; there may be further `http_port` and `https_port` among them.
    ///
    /// # Errors
    /// When it does not listen within 20 s; what it said is in the text.
    pub fn squid(host: Option<&Host>, address: SocketAddr, lines: &str) -> Result<Self> {
        let directory = directory()?;
        for (name, text) in FILES {
            write(directory.path(), name, text)?;
        }
        let at = directory.path().display().to_string();
        let text = format!(
            "http_port {address}\nacl lab src all\ncache_mem 16 MB\n\
             access_log stdio:{at}/access.log\ncache_log {at}/cache.log\n\
             pid_filename {at}/squid.pid\nnetdb_filename none\npinger_enable off\n\
             shutdown_lifetime 0 seconds\nvisible_hostname lab\ncoredump_dir {at}\n{}\
             http_access allow lab\n",
            lines.replace("DIRECTORY", &at)
        );
        let file = write(directory.path(), "squid.conf", &text)?;
        // Others of this machine are not to have the same name: they share memory by it.
        let name: String = at.chars().filter(char::is_ascii_alphanumeric).collect();
        Self::start(
            host,
            address,
            directory,
            "squid",
            &["-N", "-f", &file, "-n", &name],
        )
    }

    /// Starts tinyproxy at an address of a host, or of this one, with further lines of configuration.
    ///
    /// # Errors
    /// When it does not listen within 20 s; what it said is in the text.
    pub fn tinyproxy(host: Option<&Host>, address: SocketAddr, lines: &str) -> Result<Self> {
        let directory = directory()?;
        let (ip, port) = (address.ip(), address.port());
        let text = format!("Port {port}\nListen {ip}\nTimeout 60\nMaxClients 50\n{lines}");
        let file = write(directory.path(), "tinyproxy.conf", &text)?;
        Self::start(host, address, directory, "tinyproxy", &["-d", "-c", &file])
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the directory with its configuration, logs and whatever a test adds.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn start(
        host: Option<&Host>,
        address: SocketAddr,
        directory: TempDir,
        program: &str,
        words: &[&str],
    ) -> Result<Self> {
        let log = directory.path().join("output.log");
        let mut command: Command = match host {
            Some(host) => host.command(program),
            None => process::command(program),
        };
        command.args(words);
        let mut process = Process::spawn(command, &log)?;
        let end = Instant::now() + START_WITHIN;
        while !is_listening(host, address)? {
            let runs = process.is_running()?;
            let said = || fs::read_to_string(&log).unwrap_or_default();
            ensure!(runs && Instant::now() < end, "no {program}: {}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            address,
            _process: process,
            directory,
        })
    }
}

fn is_listening(host: Option<&Host>, address: SocketAddr) -> Result<bool> {
    let Some(host) = host else {
        return Ok(TcpStream::connect(address).is_ok());
    };
    let filter = format!("sport = :{}", address.port());
    let listening = host.run(&["ss", "-Hltn", &filter], START_WITHIN)?;
    let shown = match address.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    Ok(listening.stdout.contains(&shown))
}

/// A directory that a proxy can use which gives up the rights of root.
fn directory() -> Result<TempDir> {
    let directory = tempfile::tempdir().context("making a directory")?;
    let all = fs::Permissions::from_mode(0o1777);
    fs::set_permissions(directory.path(), all).context("opening a directory to all")?;
    Ok(directory)
}

fn write(directory: &Path, name: &str, text: &str) -> Result<String> {
    let path = directory.join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    let readable = fs::Permissions::from_mode(0o644);
    fs::set_permissions(&path, readable).context("opening a file to all")?;
    Ok(path.display().to_string())
}
