//! `cargo xtask lab matrix`: who reaches whom, how soon, and by which way.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use enishi_lab::Daemon;
use serde_json::{Value, json};

use super::iroh::{Programs, Times};
use super::kinds::Kind;
use super::links::Links;
use super::survival::{self, Outcome, Survival};
use super::town::{Node, Town};

/// How long a pair may take to say the first word.
const FIRST_MAX: Duration = Duration::from_secs(12);
/// How long after that a direct way may take.
const DIRECT_MAX: Duration = Duration::from_secs(10);
/// How many kinds are in one town: two nodes of each, all of whom have sessions with all others. With 24
/// kinds two cores had no time left before anything was tried, and it would be they that are measured.
const KINDS_MAX: usize = 16;
/// How many pairs are tried at once.
const AT_ONCE: usize = 4;
/// How often a pair is looked at, and to which part of the time so far: to look takes two processes, and with many
/// pairs that stay relayed the lab would be busy with nothing else.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
const LOOKS: u32 = 20;
/// How long all have to find each other before anything is measured.
const SETTLING: Duration = Duration::from_secs(20);

/// What was found out about one pair.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    /// The kinds of the two, by their names; the first one spoke.
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    /// How soon packets were answered, and went straight.
    pub(super) times: Times,
    /// Whether the session did in the end.
    pub(super) session_is_direct: bool,
    /// How soon a stream of iroh alone did, if that was tried.
    pub(super) iroh: Option<Times>,
}

/// All pairs.
pub(super) struct Matrix {
    pub(super) kinds: Vec<Kind>,
    pub(super) cells: Vec<Cell>,
    /// What became of packets when something changed; empty if that was not tried.
    pub(super) survivals: Vec<Survival>,
    /// How late the lab itself was with a packet at most, while pairs were tried.
    pub(super) late: Duration,
    /// What the links were like.
    pub(super) links: Links,
}

/// What is tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trials {
    /// Every kind with every other, or with its like alone.
    pub(super) all_pairs: bool,
    /// What is survived.
    pub(super) survival: bool,
    /// Over which links.
    pub(super) links: Links,
}

/// Builds towns of these kinds, one after the other, and tries pairs of them, and what they survive; each
/// pair with iroh alone too, if its programs are given.
///
/// # Errors
/// When the lab cannot be built.
pub(super) fn measure(
    program: &Path,
    iroh: Option<&Programs>,
    kinds: &[Kind],
    trials: Trials,
) -> anyhow::Result<Matrix> {
    let mut matrix = Matrix {
        kinds: kinds.to_vec(),
        cells: Vec::new(),
        survivals: Vec::new(),
        late: Duration::ZERO,
        links: trials.links,
    };
    for places in towns(kinds.len(), trials.all_pairs) {
        let kinds: Vec<Kind> = places.iter().map(|place| kinds[*place]).collect();
        let mut town = Town::build(program, &kinds, iroh, trials.links)?;
        thread::sleep(SETTLING);
        town.world.take_lateness();
        let is_tried = |from: &Kind, to: &Kind| {
            let is_known = matrix.cell(from.name, to.name).is_some();
            !is_known && (trials.all_pairs || from.name == to.name)
        };
        let cells = attempt_pairs(&town, &kinds, trials.links, is_tried);
        matrix.late = matrix.late.max(town.world.take_lateness());
        if trials.survival {
            let names: Vec<_> = kinds.iter().map(|kind| kind.name).collect();
            let survivals = survival::measure(&mut town, &names, &cells)?;
            matrix.survivals.extend(survivals);
        }
        matrix.cells.extend(cells);
    }
    let place = |name: &str| kinds.iter().position(|kind| kind.name == name);
    let order = |cell: &Cell| (place(cell.from), place(cell.to));
    matrix.cells.sort_by_key(order);
    Ok(matrix)
}

/// Returns which kinds are in each town, by their numbers, so that every two of them are in one at
/// least, or every one if not all pairs are tried.
fn towns(kinds: usize, all_pairs: bool) -> Vec<Vec<usize>> {
    let all: Vec<usize> = (0..kinds).collect();
    if kinds <= KINDS_MAX || !all_pairs {
        return all.chunks(KINDS_MAX).map(<[usize]>::to_vec).collect();
    }
    let parts: Vec<&[usize]> = all.chunks(KINDS_MAX / 2).collect();
    let pairs =
        (0..parts.len()).flat_map(|one| (one + 1..parts.len()).map(move |other| (one, other)));
    pairs
        .map(|(one, other)| [parts[one], parts[other]].concat())
        .collect()
}

/// Tries some pairs of kinds, a few at a time.
fn attempt_pairs(
    town: &Town,
    kinds: &[Kind],
    links: Links,
    is_tried: impl Fn(&Kind, &Kind) -> bool,
) -> Vec<Cell> {
    let pairs = (0..kinds.len()).flat_map(|from| (from..kinds.len()).map(move |to| (from, to)));
    let pairs = pairs.filter(|(from, to)| is_tried(&kinds[*from], &kinds[*to]));
    let pairs: Vec<(usize, usize)> = pairs.collect();
    let (next, [from, to]) = (AtomicUsize::new(0), &town.sides);
    let worker = || {
        let mut cells = Vec::new();
        while let Some((a, b)) = pairs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (one, other) = (&from[*a], &to[*b]);
            let times = attempt(one, other, links);
            let cell = Cell {
                from: kinds[*a].name,
                to: kinds[*b].name,
                times,
                session_is_direct: times.first.is_some() && has_direct_session(one, other),
                iroh: attempt_of_iroh(one, other),
            };
            let beside = cell.short_of_iroh();
            eprintln!("{} to {}: {} {beside}", cell.from, cell.to, cell.short());
            cells.push(cell);
        }
        cells
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        let done = workers.into_iter().map(thread::ScopedJoinHandle::join);
        done.flatten().flatten().collect()
    })
}

/// Has one node speak to another for the first time; tells after how long it was answered, and
/// after how long packets went straight.
fn attempt(from: &Node, to: &Node, links: Links) -> Times {
    let (Some(daemon), Some(address)) = (&from.daemon, &to.address) else {
        return Times::default();
    };
    let started = Instant::now();
    let longest = links.answer_s().to_string();
    let ping = |count: &str| {
        let words = [
            "ping", "-q", "-c", count, "-i", "0.2", "-W", &longest, address,
        ];
        let output = from.host.run(&words, FIRST_MAX);
        output.is_ok_and(|output| output.success())
    };
    let answered = |_: &()| ping("1");
    let first = wait(started, FIRST_MAX, answered);
    if first.is_none() {
        return Times::default();
    }
    let direct = wait(started, FIRST_MAX + DIRECT_MAX, |()| {
        ping("1") && path(daemon, address).is_some_and(|path| path.starts_with("direct"))
    });
    Times { first, direct }
}

/// The same of iroh; none where it is not compared.
fn attempt_of_iroh(from: &Node, to: &Node) -> Option<Times> {
    let (from, to) = (from.iroh.as_ref()?, to.iroh.as_ref()?);
    let attempted = from.attempt(to);
    if let Err(error) = &attempted {
        eprintln!("{error:#}");
    }
    Some(attempted.unwrap_or_default())
}

fn wait(started: Instant, most: Duration, holds: impl Fn(&()) -> bool) -> Option<Duration> {
    while started.elapsed() < most {
        if holds(&()) {
            return Some(started.elapsed());
        }
        thread::sleep(LOOK_INTERVAL.max(started.elapsed() / LOOKS));
    }
    None
}

/// How packets reach a member.
pub(super) fn path(daemon: &Daemon, address: &str) -> Option<String> {
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
        let session = match self.times.direct.is_some() && !self.session_is_direct {
            true => " (session relayed)",
            false => "",
        };
        format!("{}{session}", self.times.short())
    }

    /// The same of iroh alone; nothing where it is not compared.
    pub(super) fn short_of_iroh(&self) -> String {
        let short = self.iroh.map(|times| format!("iroh {}", times.short()));
        short.unwrap_or_default()
    }
}

impl Times {
    /// The seconds to the first word and to a direct way, or what there is of it.
    pub(super) fn short(&self) -> String {
        let seconds = |time: Duration| format!("{:.1}", time.as_secs_f64());
        match (self.first, self.direct) {
            (None, _) => "-".to_owned(),
            (Some(first), None) => format!("{} relayed", seconds(first)),
            (Some(first), Some(direct)) => format!("{} {}", seconds(first), seconds(direct)),
        }
    }

    fn to_json(self) -> Value {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        json!({ "first_s": seconds(self.first), "direct_s": seconds(self.direct) })
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

    /// Counts pairs: those that were connected, and those directly.
    fn counts(&self, times: impl Fn(&Cell) -> Option<Times>) -> (usize, usize) {
        let all = || self.cells.iter().filter_map(&times);
        let connected = all().filter(|times| times.first.is_some());
        let direct = all().filter(|times| times.direct.is_some());
        (connected.count(), direct.count())
    }

    /// Tells whether iroh alone was tried too.
    pub(super) fn has_iroh(&self) -> bool {
        self.cells.iter().any(|cell| cell.iroh.is_some())
    }

    /// Returns a table: for each pair the seconds to the first answer, and to a direct way.
    pub(super) fn to_text(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for cell in &self.cells {
            let (own, iroh) = (cell.short(), cell.short_of_iroh());
            let line = format!("{:<18} {:<18} {own:<26} {iroh}", cell.from, cell.to);
            let _ = writeln!(text, "{}", line.trim_end());
        }
        let (connected, direct) = self.counts(|cell| Some(cell.times));
        let all = self.cells.len();
        let _ = writeln!(
            text,
            "\n{all} pairs, {connected} connected, {direct} directly; {}; the lab was late by {} ms at most",
            self.links,
            self.late.as_millis()
        );
        if self.has_iroh() {
            let (connected, direct) = self.counts(|cell| cell.iroh);
            let _ = writeln!(text, "iroh alone: {connected} connected, {direct} directly");
        }
        if !self.survivals.is_empty() {
            let _ = writeln!(text, "\nseconds without an answer when");
        }
        for survival in &self.survivals {
            let Survival {
                event,
                who,
                outcome,
                late,
            } = survival;
            let gap = outcome.short();
            let late = late.as_millis();
            let _ = writeln!(
                text,
                "{event:<22} {who:<36} {gap:<18} lab late by {late} ms"
            );
        }
        text
    }

    /// Returns `{pairs: [{from, to, first_s, direct_s, session_direct, iroh: {first_s, direct_s}}],
    /// all, connected, direct, links: {delay_ms, loss_percent}, late_s, iroh: {connected, direct},
    /// survives: [{event, who, reached_before, gap_s, late_s}]}`; what is of iroh is null where it was not tried, `gap_s` where
    /// nothing was answered any more, `late_s` is how late the lab itself was with a packet at most.
    pub(super) fn to_json(&self) -> Value {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        let pair = |cell: &Cell| {
            json!({
                "from": cell.from,
                "to": cell.to,
                "first_s": seconds(cell.times.first),
                "direct_s": seconds(cell.times.direct),
                "session_direct": cell.session_is_direct,
                "iroh": cell.iroh.map(Times::to_json),
            })
        };
        let pairs: Vec<Value> = self.cells.iter().map(pair).collect();
        let (connected, direct) = self.counts(|cell| Some(cell.times));
        let iroh = self.has_iroh().then(|| {
            let (connected, direct) = self.counts(|cell| cell.iroh);
            json!({ "connected": connected, "direct": direct })
        });
        let survival = |survival: &Survival| {
            let Survival {
                event,
                who,
                outcome,
                late,
            } = survival;
            let gap = match outcome {
                Outcome::Gap(gap) => Some(*gap),
                Outcome::Lost | Outcome::Unreached => None,
            };
            json!({
                "event": event,
                "who": who,
                "reached_before": !matches!(outcome, Outcome::Unreached),
                "gap_s": seconds(gap),
                "late_s": late.as_secs_f64(),
            })
        };
        let survives: Vec<Value> = self.survivals.iter().map(survival).collect();
        json!({
            "pairs": pairs,
            "all": self.cells.len(),
            "connected": connected,
            "direct": direct,
            "links": self.links.to_json(),
            "late_s": self.late.as_secs_f64(),
            "iroh": iroh,
            "survives": survives,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_two_kinds_meet_in_a_town_that_is_not_too_large() {
        for kinds in [1, 2, KINDS_MAX, KINDS_MAX + 1, 24, 33] {
            let towns = towns(kinds, true);
            assert!(towns.iter().all(|town| town.len() <= KINDS_MAX));
            let meet = |one, other| {
                towns
                    .iter()
                    .any(|town| [one, other].iter().all(|kind| town.contains(kind)))
            };
            assert!((0..kinds).all(|one| (one..kinds).all(|other| meet(one, other))));
        }
        assert_eq!(towns(24, true).len(), 3);
        assert_eq!(
            towns(24, false).iter().map(Vec::len).collect::<Vec<_>>(),
            [16, 8]
        );
    }
}
