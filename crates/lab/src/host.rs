//! One host of a lab: a network namespace with one Ethernet port.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use crate::ip::{ETC_DIRECTORY, NAMESPACES_DIRECTORY, ip};
use crate::process::{self, Output, Process};
use crate::programs::find_program;

/// The name of every host's Ethernet interface.
pub const INTERFACE: &str = "eth0";

/// The length of the network prefix of every host's address.
pub const PREFIX_LENGTH: u8 = 24;

/// One host of a lab; clones stand for the same host, which lives as long as its lab.
#[derive(Clone, Debug)]
pub struct Host {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) address_v6: Option<Ipv6Addr>,
    /// The other end of the cable.
    pub(crate) far_end: Port,
}

/// A network interface in a namespace.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) namespace: String,
    pub(crate) interface: String,
}

impl Host {
    /// Returns the name that the lab gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the name of its network namespace, as `ip netns` lists it.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Returns its address on [`INTERFACE`], with a prefix of [`PREFIX_LENGTH`] bits. Of a host with
    /// IPv6 alone ([`crate::world::Stack::Ipv6`]) it is what the router calls it, and the host does
    /// not have it.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Returns its address of IPv6 on [`INTERFACE`]; none where the lab gave it none.
    pub fn address_v6(&self) -> Option<Ipv6Addr> {
        self.address_v6
    }

    /// Returns the address of [`INTERFACE`] on the cable: locally administered, and made of
    /// the host's IPv4 address.
    pub(crate) fn ethernet(&self) -> String {
        let [a, b, c, d] = self.address.octets();
        format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    }

    /// Returns a command that runs `program` on this host.
    ///
    /// Signals reach the program itself, its exit code comes back unchanged, `/sys`
    /// shows the host's interfaces, and the kernel kills it when its parent dies
    /// (see [`process::command`] for who that is). A program that cannot be executed
    /// ends with exit code 1 or 255 and a message of `ip` on standard error.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = process::command("ip");
        command.args(["netns", "exec", &self.namespace]);
        command.arg(
            find_program(&program)
                .as_deref()
                .map_or(program.as_ref(), Path::as_os_str),
        );
        command
    }

    /// Starts a command of [`Host::command`] with its output appended to the file `log`.
    ///
    /// # Errors
    /// See [`Process::spawn`].
    pub fn spawn(&self, command: Command, log: &Path) -> Result<Process> {
        Process::spawn(command, log).with_context(|| format!("on host {}", self.name))
    }

    /// Runs a program with its arguments on this host, for at most `timeout`.
    ///
    /// # Errors
    /// When no program is given or it does not exist; see also [`process::run`].
    pub fn run(&self, words: &[&str], timeout: Duration) -> Result<Output> {
        let (program, arguments) = words.split_first().context("no program to run")?;
        find_program(program).with_context(|| format!("the program `{program}` is missing"))?;
        let mut command = self.command(program);
        command.args(arguments);
        process::run(command, timeout).with_context(|| format!("on host {}", self.name))
    }

    /// Gives the host a file of its own in place of `/etc/NAME`, which must be there; programs
    /// started from then on see it. Returns where it is for all others.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_etc(&self, name: &str, text: &str) -> Result<PathBuf> {
        let directory = PathBuf::from(ETC_DIRECTORY).join(&self.namespace);
        let path = directory.join(name);
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Moves the calling thread, and whatever threads it starts later, to this
    /// host's network. Meant for a thread made for it; there is no way back. Children
    /// that [`process::run`] and [`Process::spawn`] start for it are where their
    /// commands say, not where the thread is.
    ///
    /// # Errors
    /// When the namespace is gone or the process is not root.
    pub fn enter(&self) -> Result<()> {
        let path = PathBuf::from(NAMESPACES_DIRECTORY).join(&self.namespace);
        let file = std::fs::File::open(&path)
            .with_context(|| format!("opening the namespace {}", path.display()))?;
        process::prepare_spawner();
        setns(file, CloneFlags::CLONE_NEWNET).context("entering a network namespace")
    }

    /// Pulls the cable: the host's interface loses its carrier but keeps its addresses.
    ///
    /// # Errors
    /// When the lab is gone.
    pub fn link_down(&self) -> Result<()> {
        self.set_far_end("down")
    }

    /// Plugs the cable in again.
    ///
    /// # Errors
    /// When the lab is gone.
    pub fn link_up(&self) -> Result<()> {
        self.set_far_end("up")
    }

    fn set_far_end(&self, state: &str) -> Result<()> {
        let Port {
            namespace,
            interface,
        } = &self.far_end;
        ip(&["-n", namespace, "link", "set", interface, state])?;
        Ok(())
    }
}
