//! The programs that ours is held against: from a newer suite of Debian than the machine's,
//! unpacked beside the system, and from crates.io.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use enishi_lab::{Host, ensure_programs};

use super::contender::GOTATUN;

/// The suite whose packages are taken.
const SUITE: &str = "sid";
/// The packages, and the library of C that they are made for.
const PACKAGES: [&str; 3] = ["wireguard-go", "n2n", "libc6"];
/// What starts a program with that library.
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Which version of gotatun is built.
const GOTATUN_VERSION: &str = "0.10.2";

/// Where they were unpacked.
pub(super) struct Peers {
    root: PathBuf,
}

impl Peers {
    /// Gets the packages, once; what cannot be had is left out, and said.
    ///
    /// # Errors
    /// When the directory cannot be made, or the tool `wg` is not to be had.
    pub(super) fn get(target: &Path) -> anyhow::Result<Self> {
        ensure_programs(&[("wg", "wireguard-tools")])?;
        let home = target.join("peers");
        let root = home.join("root");
        fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
        let peers = Self { root };
        if !peers.root.join(LOADER).exists()
            && let Err(error) = peers.unpack(&home)
        {
            eprintln!("peers from Debian are left out: {error:#}");
        }
        if !peers.have(GOTATUN)
            && let Err(error) = peers.install()
        {
            eprintln!("gotatun is left out: {error:#}");
        }
        Ok(peers)
    }

    /// Tells whether a program of theirs is there.
    pub(super) fn have(&self, program: &str) -> bool {
        self.path(program).exists()
    }

    /// Returns where a program of theirs is.
    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.root.join(program)
    }

    /// Returns a command that runs a program of theirs on a host.
    pub(super) fn command(&self, host: &Host, program: &str) -> Command {
        let mut command = host.command(self.root.join(LOADER));
        command.arg("--library-path");
        command.args([LIBRARIES, program].map(|path| self.root.join(path)));
        command
    }

    /// Builds what comes from crates.io.
    fn install(&self) -> anyhow::Result<()> {
        eprintln!("building gotatun: some minutes, once");
        let status = Command::new(env!("CARGO"))
            .args([
                "install",
                "--quiet",
                "--locked",
                "--version",
                GOTATUN_VERSION,
            ])
            .arg("--root")
            .arg(&self.root)
            .arg("gotatun-cli")
            .status()?;
        ensure!(status.success(), "cargo install gotatun-cli");
        Ok(())
    }

    fn unpack(&self, home: &Path) -> anyhow::Result<()> {
        let (parts, lists) = (home.join("parts"), home.join("lists"));
        fs::create_dir_all(&parts)?;
        fs::create_dir_all(lists.join("partial"))?;
        fs::write(parts.join("newer.sources"), sources()?)?;
        let apt = |words: &[&str]| -> anyhow::Result<()> {
            let mut command = Command::new("apt-get");
            for option in [
                "Dir::Etc::sourcelist=/dev/null".to_owned(),
                format!("Dir::Etc::sourceparts={}", parts.display()),
                format!("Dir::State::lists={}", lists.display()),
                "Dir::Cache::pkgcache=".to_owned(),
                "Dir::Cache::srcpkgcache=".to_owned(),
                "APT::Sandbox::User=root".to_owned(),
            ] {
                command.args(["-o", &option]);
            }
            let output = command.args(words).current_dir(home).output()?;
            let told = String::from_utf8_lossy(&output.stderr);
            ensure!(
                output.status.success(),
                "apt-get {}: {told}",
                words.join(" ")
            );
            Ok(())
        };
        apt(&["update"])?;
        for package in PACKAGES {
            apt(&["download", package])?;
        }
        for entry in fs::read_dir(home)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                let status = Command::new("dpkg-deb")
                    .arg("-x")
                    .args([&path, &self.root])
                    .status()?;
                ensure!(status.success(), "dpkg-deb -x {}", path.display());
            }
        }
        Ok(())
    }
}

/// Returns this machine's own source of Debian packages, with another suite.
fn sources() -> anyhow::Result<String> {
    let own = fs::read_to_string("/etc/apt/sources.list.d/debian.sources")
        .context("this machine has no Debian sources in the newer form")?;
    let stanza = own.split("\n\n").find(|stanza| {
        let uri = stanza.lines().find_map(|line| line.strip_prefix("URIs:"));
        uri.is_some_and(|uri| uri.trim().trim_end_matches('/').ends_with("/debian"))
    });
    let Some(stanza) = stanza else {
        bail!("no source of Debian's main archive");
    };
    let lines = stanza
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| match line.starts_with("Suites:") {
            true => format!("Suites: {SUITE}"),
            false => line.to_owned(),
        });
    Ok(lines.collect::<Vec<_>>().join("\n") + "\n")
}
