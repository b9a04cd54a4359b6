//! `cargo xtask lab matrix`: who reaches whom, how soon, and by which way.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use enishi_lab::Daemon;
use serde_json::{Value, json};

use super::kinds::Kind;
use super::survival::{self, Survival};
use super::town::{Node, Town};

/// How long a pair may take to say the first word.
const FIRST_MAX: Duration = Duration::from_secs(12);
/// How long after that a direct way may take.
const DIRECT_MAX: Duration = Duration::from_secs(10);
/// How many pairs are tried at once.
const AT_ONCE: usize = 4;
/// How often a pair is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long all have to find each other before anything is measured.
const SETTLING: Duration = Duration::from_secs(20);

/// What was found out about one pair.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    /// The kinds of the two, by their names; the first one spoke.
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    /// After how long the first packet was answered.
    pub(super) first: Option<Duration>,
    /// After how long packets went straight.
    pub(super) direct: Option<Duration>,
    /// Whether the session did in the end.
    pub(super) session_is_direct: bool,
}

/// All pairs.
pub(super) struct Matrix {
    pub(super) kinds: Vec<Kind>,
    pub(super) cells: Vec<Cell>,
    /// What became of packets when something changed; empty if that was not tried.
    pub(super) survivals: Vec<Survival>,
}

/// What is tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trials {
    /// Every kind with every other, or with its like alone.
    pub(super) all_pairs: bool,
    /// What is survived.
    pub(super) survival: bool,
}

/// Builds a town of these kinds and tries pairs of them, and what they survive.
///
/// # Errors
/// When the lab cannot be built.
pub(super) fn measure(program: &Path, kinds: &[Kind], trials: Trials) -> anyhow::Result<Matrix> {
    let mut town = Town::build(program, kinds)?;
    thread::sleep(SETTLING);
    let last = |from: usize| match trials.all_pairs {
        true => kinds.len(),
        false => from + 1,
    };
    let pairs = |from: usize| (from..last(from)).map(move |to| (from, to));
    let pairs: Vec<(usize, usize)> = (0..kinds.len()).flat_map(pairs).collect();
    let (next, [from, to]) = (AtomicUsize::new(0), &town.sides);
    let worker = || {
        let mut cells = Vec::new();
        while let Some((a, b)) = pairs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (first, direct) = attempt(&from[*a], &to[*b]);
            let session_is_direct = first.is_some() && has_direct_session(&from[*a], &to[*b]);
            let cell = Cell {
                from: kinds[*a].name,
                to: kinds[*b].name,
                first,
                direct,
                session_is_direct,
            };
            eprintln!("{} to {}: {}", cell.from, cell.to, cell.short());
            cells.push(((*a, *b), cell));
        }
        cells
    };
    let mut cells = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        let done = workers.into_iter().map(thread::ScopedJoinHandle::join);
        done.flatten().flatten().collect::<Vec<_>>()
    });
    cells.sort_by_key(|(pair, _)| *pair);
    let cells: Vec<Cell> = cells.into_iter().map(|(_, cell)| cell).collect();
    let names: Vec<_> = kinds.iter().map(|kind| kind.name).collect();
    let survivals = match trials.survival {
        true => survival::measure(&mut town, &names, &cells)?,
        false => Vec::new(),
    };
    Ok(Matrix {
        kinds: kinds.to_vec(),
        cells,
        survivals,
    })
}

/// Has one node speak to another for the first time; tells after how long it was answered, and
/// after how long packets went straight.
fn attempt(from: &Node, to: &Node) -> (Option<Duration>, Option<Duration>) {
    let (Some(daemon), Some(address)) = (&from.daemon, &to.address) else {
        return (None, None);
    };
    let started = Instant::now();
    let ping = |count: &str| {
        let words = ["ping", "-q", "-c", count, "-i", "0.2", "-W", "1", address];
        let output = from.host.run(&words, FIRST_MAX);
        output.is_ok_and(|output| output.success())
    };
    let answered = |_: &()| ping("1");
    let first = wait(started, FIRST_MAX, answered);
    if first.is_none() {
        return (None, None);
    }
    let direct = wait(started, FIRST_MAX + DIRECT_MAX, |()| {
        ping("1") && path(daemon, address).is_some_and(|path| path.starts_with("direct"))
    });
    (first, direct)
}

fn wait(started: Instant, most: Duration, holds: impl Fn(&()) -> bool) -> Option<Duration> {
    while started.elapsed() < most {
        if holds(&()) {
            return Some(started.elapsed());
        }
        thread::sleep(LOOK_INTERVAL);
    }
    None
}

/// How packets reach a member.
fn path(daemon: &Daemon, address: &str) -> Option<String> {
    let told = daemon.json(&["channel", "show", "lab"]).ok()?;
    let mut members = told["member_list"].as_array()?.iter();
    let has_it = |member: &&Value| {
        let addresses = member["addresses"].as_array();
        addresses.is_some_and(|all| all.iter().any(|own| own == address))
    };
    Some(members.find(has_it)?["path"].as_str()?.to_owned())
}

/// Tells whether the session of two nodes goes straight.
fn has_direct_session(from: &Node, to: &Node) -> bool {
    let (Some(from), Some(to)) = (&from.daemon, &to.daemon) else {
        return false;
    };
    let looked = || -> anyhow::Result<bool> {
        let (peers, to) = (from.json(&["peers"])?, to.json(&["status"])?);
        let mut peers = peers["peers"].as_array().into_iter().flatten();
        let peer = peers.find(|peer| peer["node_id"] == to["node_id"]);
        let path = peer.and_then(|peer| peer["path"].as_str());
        Ok(path.is_some_and(|path| path.starts_with("direct")))
    };
    looked().unwrap_or_default()
}

impl Cell {
    /// As it stands in the table: the seconds to the first word, and to a direct way of packets;
    /// and whether their session goes by way of others meanwhile.
    pub(super) fn short(&self) -> String {
        let seconds = |time: Duration| format!("{:.1}", time.as_secs_f64());
        match (self.first, self.direct) {
            (None, _) => "-".to_owned(),
            (Some(first), None) => format!("{} relayed", seconds(first)),
            (Some(first), Some(direct)) => {
                let session = match self.session_is_direct {
                    true => "",
                    false => " (session relayed)",
                };
                format!("{} {}{session}", seconds(first), seconds(direct))
            }
        }
    }
}

impl Matrix {
    /// Returns what was found about two kinds, in either order.
    pub(super) fn cell(&self, one: &str, other: &str) -> Option<&Cell> {
        let is_it = |cell: &&Cell| {
            (cell.from, cell.to) == (one, other) || (cell.from, cell.to) == (other, one)
        };
        self.cells.iter().find(is_it)
    }

    /// Counts pairs: all, those that were connected, and those directly.
    fn counts(&self) -> (usize, usize, usize) {
        let connected = self.cells.iter().filter(|cell| cell.first.is_some());
        let direct = self.cells.iter().filter(|cell| cell.direct.is_some());
        (self.cells.len(), connected.count(), direct.count())
    }

    /// Returns a table: for each pair the seconds to the first answer, and to a direct way.
    pub(super) fn to_text(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for cell in &self.cells {
            let _ = writeln!(text, "{:<18} {:<18} {}", cell.from, cell.to, cell.short());
        }
        let (all, connected, direct) = self.counts();
        let _ = writeln!(
            text,
            "\n{all} pairs, {connected} connected, {direct} directly"
        );
        if !self.survivals.is_empty() {
            let _ = writeln!(text, "\nseconds without an answer when");
        }
        for Survival { event, who, gap } in &self.survivals {
            let gap = gap.map_or_else(
                || "lost".to_owned(),
                |gap| format!("{:.1}", gap.as_secs_f64()),
            );
            let _ = writeln!(text, "{event:<22} {who:<36} {gap}");
        }
        text
    }

    /// Returns `{pairs: [{from, to, first_s, direct_s, session_direct}], all, connected, direct,
    /// survives: [{event, who, gap_s}]}`.
    pub(super) fn to_json(&self) -> Value {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        let pair = |cell: &Cell| {
            json!({
                "from": cell.from,
                "to": cell.to,
                "first_s": seconds(cell.first),
                "direct_s": seconds(cell.direct),
                "session_direct": cell.session_is_direct,
            })
        };
        let pairs: Vec<Value> = self.cells.iter().map(pair).collect();
        let (all, connected, direct) = self.counts();
        let survival = |survival: &Survival| {
            let Survival { event, who, gap } = survival;
            json!({ "event": event, "who": who, "gap_s": seconds(*gap) })
        };
        let survives: Vec<Value> = self.survivals.iter().map(survival).collect();
        json!({
            "pairs": pairs,
            "all": all,
            "connected": connected,
            "direct": direct,
            "survives": survives,
        })
    }
}
