//! The host's one exit: what refuses everything that is to go by it, whether it can be had or not.
//!
//! In each version of IP there is a table of its own, whose last route refuses, and rules before
//! the main table that lead there, from which the node's own sockets are exempt by their ports. As
//! long as that stands the node has a lock, so that another node of the host neither clears it nor
//! puts its own in its place.

use std::collections::BTreeSet;
use std::fs::TryLockError;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use enishi_services::vnet::routes::Prefix;

use super::shared::Shared;
use super::system::{After, family, ip};

/// The table with the way to everything, and the priorities of the rules that lead there.
pub(super) const TABLE: &str = "25966";
const OWN_SOCKETS: &str = "5180";
const OWN_NETWORKS: &str = "5190";
const EVERYTHING: &str = "5200";
/// Of the route in that table that refuses what no other takes.
const METRIC_LAST: u32 = u32::MAX;
/// The most rules that a run is taken to have left for its sockets.
const SOCKETS_MAX: usize = 16;
/// What `ip` says of a rule that is there.
const IS_THERE: &str = "File exists";
/// How long the lock is waited for, which a node that clears what was left has for a moment, and how
/// often it is tried.
const LOCK_TIME_MAX: Duration = Duration::from_millis(300);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

const TAKEN: &str = "no exit: everything of this host goes by way of the exit of another node, or \
                     of another channel; `enishi route unuse CHANNEL everything` there ends that";

/// Everything that has no nearer way is refused, but for the node's own sockets, until this is
/// dropped.
pub(super) struct Hold {
    /// Of the host's exit; none where it cannot be had, which is no reason to let packets out.
    _lock: Option<Lock>,
    /// For a node with sockets at these ports; none while a part of it does not stand.
    stands_for: Option<BTreeSet<u16>>,
}

impl Hold {
    /// Takes the host's exit, for which nothing stands yet.
    ///
    /// # Errors
    /// A sentence for people when another one has it.
    pub(super) fn take() -> Result<Self, String> {
        let started = Instant::now();
        let mut locked = lock();
        while matches!(locked, Err(TryLockError::WouldBlock)) && started.elapsed() < LOCK_TIME_MAX {
            thread::sleep(LOCK_PAUSE);
            locked = lock();
        }
        let lock = match locked {
            Ok(lock) => Some(lock),
            Err(TryLockError::WouldBlock) => return Err(TAKEN.to_owned()),
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, "no other node is kept from clearing what holds the exit");
                None
            }
        };
        Ok(Self {
            _lock: lock,
            stands_for: None,
        })
    }

    /// Puts what refuses, unless all of it stands. After an error what could be put does: to be cut
    /// off is better than to leave by another way.
    ///
    /// # Errors
    /// A sentence for people about the first thing that could not be done.
    pub(super) fn stand(&mut self, ports: &BTreeSet<u16>) -> Result<(), String> {
        if self.stands_for.as_ref() == Some(ports) {
            return Ok(());
        }
        let [four, six] = Prefix::EVERYTHING.map(|network| refuse(network, ports));
        let outcome = four.and(six);
        self.stands_for = outcome.is_ok().then(|| ports.clone());
        outcome
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        Prefix::EVERYTHING.into_iter().for_each(release);
    }
}

/// The lock, until it is dropped.
struct Lock(Shared);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.remove();
    }
}

/// Removes what a node left that crashed while it had an exit, unless another node has one now.
pub(super) fn release_left() {
    let left = |network: &Prefix| {
        let words = [family(*network), "route", "show", "table", TABLE];
        let shown = Command::new("ip").args(words).output();
        shown.is_ok_and(|output| !output.stdout.is_empty())
    };
    if let Ok(_lock) = lock() {
        let networks = Prefix::EVERYTHING.into_iter().filter(left);
        networks.for_each(release);
    }
}

/// Locks the exit of this host, that is, of this network namespace, until the file is closed.
fn lock() -> Result<Lock, TryLockError> {
    loop {
        let shared = Shared::open("exit").map_err(TryLockError::Error)?;
        shared.file.try_lock()?;
        if shared.is_named() {
            return Ok(Lock(shared));
        }
    }
}

/// Has everything of one version of IP refused that has no nearer way, but for these ports.
fn refuse(network: Prefix, ports: &BTreeSet<u16>) -> Result<(), String> {
    // An earlier run may have had other ports. What else it left refuses meanwhile.
    let _ = ip(network, After::GoOn, &removals(OWN_SOCKETS));
    let refusal = format!("route replace unreachable default table {TABLE} metric {METRIC_LAST}");
    let own_socket =
        |port| format!("rule add pref {OWN_SOCKETS} ipproto udp sport {port} lookup main");
    let rules = [
        format!("rule add pref {OWN_NETWORKS} lookup main suppress_prefixlength 0"),
        format!("rule add pref {EVERYTHING} lookup {TABLE}"),
    ];
    let lines = std::iter::once(refusal).chain(ports.iter().map(own_socket));
    lines
        .chain(rules)
        .map(|line| match ip(network, After::Stop, &[line]) {
            Err(why) if why.ends_with(IS_THERE) => Ok(()),
            outcome => outcome,
        })
        .fold(Ok(()), Result::and)
}

/// Lets everything of one version of IP go as if there were no exit.
fn release(network: Prefix) {
    let mut lines = [EVERYTHING, OWN_NETWORKS, OWN_SOCKETS]
        .map(removals)
        .concat();
    lines.push(format!("route flush table {TABLE}"));
    // What is not there need not be removed.
    let _ = ip(network, After::GoOn, &lines);
}

/// Removes as many rules of a priority as may be there.
fn removals(priority: &str) -> Vec<String> {
    vec![format!("rule del pref {priority}"); SOCKETS_MAX]
}
