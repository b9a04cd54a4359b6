//! Certain removal of namespaces and of what runs in them.
//!
//! A namespace is named `PREFIX.PID.START.COUNT.NAME`: the process that made it,
//! the moment that process started (in clock ticks since boot, so that a later
//! process with the same number is not mistaken for it), and a number for each
//! lab of that process. From the name alone anyone can tell whether its maker is alive.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::ip::{ETC_DIRECTORY, NAMESPACES_DIRECTORY, ip, namespace_exists};

/// How often the processes of a namespace are looked up and killed before it is removed.
const KILL_ROUNDS_MAX: u32 = 50;

/// Between two such rounds.
const KILL_ROUND_DELAY: Duration = Duration::from_millis(10);

/// The labs of this process which may still have namespaces.
static LIVE: Mutex<Vec<Weak<Mutex<State>>>> = Mutex::new(Vec::new());

/// The means to remove one lab at any moment; clones stand for the same lab.
#[derive(Clone, Debug)]
pub struct Cleanup(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    namespaces: Vec<String>,
    closed: bool,
}

impl Cleanup {
    /// Makes the record of a new lab, which signals will find.
    pub(crate) fn register() -> Self {
        let cleanup = Self(Arc::default());
        let mut live = lock(&LIVE);
        live.retain(|lab| lab.strong_count() > 0);
        live.push(Arc::downgrade(&cleanup.0));
        cleanup
    }

    /// Runs `make`, which makes the namespace `name`, and remembers the name first,
    /// so that a namespace made half is removed too.
    pub(crate) fn make(&self, name: &str, make: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut state = lock(&self.0);
        anyhow::ensure!(!state.closed, "the lab was cleaned up");
        state.namespaces.push(name.to_owned());
        make()
    }

    /// Kills everything that runs in the lab and removes its namespaces; the lab
    /// makes no new ones afterwards. The second call does nothing.
    pub fn run(&self) {
        let mut state = lock(&self.0);
        state.closed = true;
        for name in state.namespaces.drain(..).rev() {
            remove_namespace(&name);
        }
    }
}

/// Makes SIGINT, SIGTERM and SIGHUP remove all labs of this process and end it
/// with the exit code 128 + signal (130 for Ctrl-C).
///
/// Call it once, early. Handlers of others (for example of tokio) still run, so
/// a program may do its own clean-up instead and call [`Cleanup::run`].
///
/// # Errors
/// When the handlers or their thread cannot be set up.
pub fn install_signal_cleanup() -> Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("setting up signal handlers")?;
    thread::Builder::new()
        .name("lab-signals".into())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                clean_all();
                std::process::exit(128 + signal);
            }
        })
        .context("starting the thread that waits for signals")?;
    Ok(())
}

/// Removes the namespaces of labs with this prefix whose process is gone.
pub(crate) fn remove_stale(prefix: &str) {
    let Ok(entries) = std::fs::read_dir(NAMESPACES_DIRECTORY) else {
        return; // No namespace was ever made on this machine.
    };
    for entry in entries.flatten() {
        if let Some(name) = entry.file_name().to_str()
            && is_stale(name, prefix)
        {
            remove_namespace(name);
        }
    }
}

/// Returns the part of a namespace's name that stands for this process.
pub(crate) fn maker() -> Result<String> {
    let pid = std::process::id();
    let started = start_ticks(pid).context("reading /proc/self/stat")?;
    Ok(format!("{pid}.{started}"))
}

fn clean_all() {
    let labs: Vec<_> = lock(&LIVE).iter().filter_map(Weak::upgrade).collect();
    for lab in labs {
        Cleanup(lab).run();
    }
}

fn is_stale(name: &str, prefix: &str) -> bool {
    let mut parts = name.split('.');
    if parts.next() != Some(prefix) {
        return false;
    }
    let pid = parts.next().and_then(|part| part.parse::<u32>().ok());
    let started = parts.next().and_then(|part| part.parse::<u64>().ok());
    match (pid, started) {
        (Some(pid), Some(started)) => start_ticks(pid) != Some(started),
        _ => false, // Not a name of ours.
    }
}

/// Returns when a process started, in clock ticks since boot (proc(5), field 22).
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may contain anything.
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Kills what runs in the namespace and removes it. Failures are reported on
/// standard error: there is nobody left to return them to.
fn remove_namespace(name: &str) {
    if !namespace_exists(name) {
        return;
    }
    for _ in 0..KILL_ROUNDS_MAX {
        if kill_inside(name) == 0 {
            break;
        }
        thread::sleep(KILL_ROUND_DELAY);
    }
    // Few have any.
    let _ = fs::remove_dir_all(Path::new(ETC_DIRECTORY).join(name));
    if let Err(error) = ip(&["netns", "delete", name])
        && namespace_exists(name)
    {
        eprintln!("a network namespace of the lab stays behind: {error:#}");
    }
}

/// Sends SIGKILL to the processes in a namespace, except to this one, and returns
/// how many there were.
fn kill_inside(name: &str) -> usize {
    let listed = ip(&["netns", "pids", name]).unwrap_or_default();
    let myself = Pid::this();
    let inside = listed
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .map(Pid::from_raw)
        .filter(|pid| *pid != myself);
    // One that ended in between is no longer there to be killed: no error.
    inside
        .map(|pid| kill(pid, Signal::SIGKILL))
        .filter(Result::is_ok)
        .count()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_dead_makers_are_stale() {
        let alive = maker().unwrap();
        let pid = std::process::id();
        assert!(!is_stale(&format!("test.{alive}.0.a"), "test"));
        assert!(is_stale(&format!("test.{pid}.1.0.a"), "test"));
        assert!(is_stale("test.4194305.77.0.a", "test"));
        assert!(!is_stale("test.4194305.77.0.a", "other"));
        assert!(!is_stale("test", "test"));
        assert!(!is_stale("test.words.more", "test"));
    }
}
