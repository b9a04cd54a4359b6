//! What the demo's steps work on, and its certain end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use enishi_lab::{Cleanup, Lab, ensure_programs};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tempfile::TempDir;

use super::member::Member;
use super::plan::{MEMBER_NAMES, Mode};

/// The programs that the steps run, with their Debian packages.
const PROGRAMS: [(&str, &str); 3] = [
    ("setpriv", "util-linux"),
    ("sha256sum", "coreutils"),
    ("sh", "dash"),
];

/// The programs that the steps run in namespaces in addition.
const NAMESPACE_PROGRAMS: [(&str, &str); 4] = [
    ("ip", "iproute2"),
    ("ping", "iputils-ping"),
    ("curl", "curl"),
    ("python3", "python3"),
];

/// How often the removal of a directory is tried while something may still write to it.
const REMOVALS_MAX: u32 = 20;

/// Between two such attempts.
const REMOVAL_PAUSE: Duration = Duration::from_millis(50);

/// Everything that the demo made. Dropping it kills the daemons, removes the
/// namespaces and then the data directories, in the order of the fields.
#[derive(Debug)]
pub(super) struct World {
    /// Where the demo runs.
    pub(super) mode: Mode,
    /// The three members; empty until their hosts are made.
    pub(super) members: Vec<Member>,
    /// Somebody without the password.
    pub(super) stranger: Option<Member>,
    /// The invitation by which others join the first node.
    pub(super) invitation: String,
    lab: Option<Lab>,
    directory: Directory,
    /// What a signal has to remove.
    at_signal: Arc<Mutex<Option<Cleanup>>>,
}

impl World {
    /// Prepares the demo: programs, a directory, and what happens at Ctrl-C.
    pub(super) fn new(mode: Mode, keep: bool) -> Result<Self> {
        ensure_programs(&PROGRAMS)?;
        if mode == Mode::Namespaces {
            ensure_programs(&NAMESPACE_PROGRAMS)?;
        }
        let directory = Directory::new(keep)?;
        let at_signal = Arc::default();
        clean_up_at_signals(directory.path.clone(), keep, Arc::clone(&at_signal))?;
        let mut world = Self {
            mode,
            members: Vec::new(),
            stranger: None,
            invitation: String::new(),
            lab: None,
            directory,
            at_signal,
        };
        if mode == Mode::Loopback {
            for name in MEMBER_NAMES {
                world
                    .members
                    .push(Member::new(name, None, &world.directory.path)?);
            }
        }
        Ok(world)
    }

    /// Makes the hosts of the three members.
    pub(super) fn make_hosts(&mut self) -> Result<()> {
        let mut lab = Lab::new("enishi-demo")?;
        *self
            .at_signal
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(lab.cleanup_handle());
        for name in MEMBER_NAMES {
            let host = lab.host(name)?;
            self.members
                .push(Member::new(name, Some(host), &self.directory.path)?);
        }
        self.lab = Some(lab);
        Ok(())
    }

    /// Makes one who is no member, with a host where there are hosts.
    pub(super) fn make_stranger(&mut self) -> Result<&mut Member> {
        let host = match &mut self.lab {
            Some(lab) => Some(lab.host("stranger")?),
            None => None,
        };
        let stranger = Member::new("stranger", host, &self.directory.path)?;
        Ok(self.stranger.insert(stranger))
    }

    /// The directory with the data directories of all members.
    pub(super) fn directory(&self) -> &Path {
        &self.directory.path
    }
}

/// A directory that goes with this value unless it is to be kept.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    keep: bool,
}

impl Directory {
    fn new(keep: bool) -> Result<Self> {
        let made = TempDir::with_prefix("enishi-demo-").context("making a directory")?;
        Ok(Self {
            path: made.keep(),
            keep,
        })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.keep {
            remove(&self.path);
        }
    }
}

fn clean_up_at_signals(
    directory: PathBuf,
    keep: bool,
    lab: Arc<Mutex<Option<Cleanup>>>,
) -> Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("setting up signal handlers")?;
    let wait = move || {
        let Some(signal) = signals.forever().next() else {
            return;
        };
        if let Some(lab) = lab.lock().unwrap_or_else(PoisonError::into_inner).take() {
            lab.run();
        }
        if !keep {
            remove(&directory);
        }
        // The kernel kills the daemons that are left with their parent.
        std::process::exit(128 + signal);
    };
    let thread = thread::Builder::new().name("demo-signals".to_owned());
    thread
        .spawn(wait)
        .context("starting the thread that waits for signals")?;
    Ok(())
}

/// Removes a directory to which daemons that are about to end may still write.
fn remove(directory: &Path) {
    for _ in 0..REMOVALS_MAX {
        if fs::remove_dir_all(directory).is_ok() || !directory.exists() {
            return;
        }
        thread::sleep(REMOVAL_PAUSE);
    }
}
