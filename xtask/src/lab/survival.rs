//! What becomes of packets when something between two nodes changes: a router starts anew, its outer
//! address is another one, a node dies that carried.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use enishi_lab::World;

use super::matrix::Cell;
use super::town::{Node, Town};

/// How long is pinged, ten times a second, and when in between it happens.
const WATCHED_S: u32 = 20;
const HAPPENS_AFTER: Duration = Duration::from_secs(3);

/// How long they may take to reach each other before that: not to be counted as what happens does.
const REACHED_TIME_MAX: Duration = Duration::from_secs(20);

/// How many pairs that go by way of others are watched when a node dies.
const CARRIED_MAX: usize = 6;

/// For how long packets of one node stood still.
#[derive(Clone, Debug)]
pub(super) struct Survival {
    /// What happened.
    pub(super) event: &'static str,
    /// To whom: the kind, or two of them.
    pub(super) who: String,
    /// What became of it.
    pub(super) outcome: Outcome,
    /// How late the lab itself was with a packet at most meanwhile.
    pub(super) late: Duration,
}

/// What becomes of packets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// For so long nothing was answered.
    Gap(Duration),
    /// Nothing was any more.
    Lost,
    /// Nothing was before it happened.
    Unreached,
}

impl Outcome {
    /// Returns the seconds without an answer, or what there was instead.
    pub(super) fn short(self) -> String {
        match self {
            Self::Gap(gap) => format!("{:.1}", gap.as_secs_f64()),
            Self::Lost => "lost".to_owned(),
            Self::Unreached => "not reached before".to_owned(),
        }
    }
}

/// Lets it happen, one thing after the other. The routers are changed all at once, then one of the
/// helpers is killed.
///
/// # Errors
/// When the lab cannot do it.
pub(super) fn measure(
    town: &mut Town,
    names: &[&'static str],
    cells: &[Cell],
) -> anyhow::Result<Vec<Survival>> {
    let mut survivals = Vec::new();
    let routed: Vec<usize> = (0..names.len())
        .filter(|kind| town.sides[0][*kind].area.is_some())
        .collect();
    for (event, moves) in [
        ("router starts anew", false),
        ("outer address changes", true),
    ] {
        let Town {
            sides,
            helpers,
            world,
            ..
        } = &mut *town;
        let to = helpers[1]
            .address
            .clone()
            .context("a helper without an address")?;
        let watched = routed.iter().map(|kind| {
            let node = &sides[0][*kind];
            (names[*kind].to_owned(), node, to.clone())
        });
        let areas: Vec<_> = routed
            .iter()
            .filter_map(|kind| sides[0][*kind].area)
            .collect();
        let happens = |world: &mut World| {
            areas
                .iter()
                .try_for_each(|area| world.restart_router(*area, moves))
        };
        survivals.extend(watch(event, watched.collect(), world, happens)?);
    }
    let at = |name: &str| names.iter().position(|known| *known == name);
    let is_carried = |cell: &&Cell| cell.times.first.is_some() && cell.times.direct.is_none();
    let carried = cells.iter().filter(is_carried).take(CARRIED_MAX);
    let Town {
        sides,
        helpers,
        world,
        ..
    } = &mut *town;
    let watched = carried.filter_map(|cell| {
        let (from, to) = (&sides[0][at(cell.from)?], &sides[1][at(cell.to)?]);
        let who = format!("{} to {}", cell.from, cell.to);
        Some((who, from, to.address.clone()?))
    });
    let victim = helpers[0].daemon.as_mut().context("no helper")?;
    let happens = |_: &mut World| victim.process().kill9().map(drop);
    survivals.extend(watch(
        "a helper is killed",
        watched.collect(),
        world,
        happens,
    )?);
    Ok(survivals)
}

/// Pings from each to an address while something happens.
fn watch(
    event: &'static str,
    watched: Vec<(String, &Node, String)>,
    world: &mut World,
    happens: impl FnOnce(&mut World) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Survival>> {
    let survivals = Mutex::new(Vec::new());
    let reached: Vec<bool> = thread::scope(|scope| {
        let tries = watched.iter();
        let tries = tries.map(|(_, from, to)| scope.spawn(move || is_reached(from, to)));
        let tries: Vec<_> = tries.collect();
        let ended = tries.into_iter().map(|trial| trial.join().unwrap_or(false));
        ended.collect()
    });
    world.take_lateness();
    let happened = thread::scope(|scope| {
        for ((who, from, to), was_reached) in watched.into_iter().zip(reached) {
            let survivals = &survivals;
            scope.spawn(move || {
                let outcome = match was_reached {
                    true => gap(from, &to).map_or(Outcome::Lost, Outcome::Gap),
                    false => Outcome::Unreached,
                };
                eprintln!("{event}, {who}: {outcome:?}");
                let mut survivals = survivals.lock().unwrap_or_else(PoisonError::into_inner);
                survivals.push(Survival {
                    event,
                    who,
                    outcome,
                    late: Duration::ZERO,
                });
            });
        }
        thread::sleep(HAPPENS_AFTER);
        happens(world)
    });
    happened?;
    let mut survivals = survivals
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let late = world.take_lateness();
    survivals
        .iter_mut()
        .for_each(|survival| survival.late = late);
    survivals.sort_by(|one, other| one.who.cmp(&other.who));
    Ok(survivals)
}

/// Pings until it is answered.
fn is_reached(from: &Node, to: &str) -> bool {
    let deadline = REACHED_TIME_MAX.as_secs().to_string();
    let words = ["ping", "-n", "-c", "1", "-i", "0.2", "-w", &deadline, to];
    let output = from
        .host
        .run(&words, REACHED_TIME_MAX + Duration::from_secs(10));
    output.is_ok_and(|output| output.success())
}

/// Pings, and returns the longest time without an answer; none when the last ones have none.
fn gap(from: &Node, to: &str) -> Option<Duration> {
    let deadline = WATCHED_S.to_string();
    let words = ["ping", "-n", "-D", "-i", "0.1", "-w", &deadline, to];
    let most = Duration::from_secs(u64::from(WATCHED_S) + 10);
    let output = from.host.run(&words, most).ok()?;
    // `[1795390000.123456] 64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time=0.3 ms`
    let at = |line: &str| {
        let line = line.contains(" bytes from ").then_some(line)?;
        let (time, _) = line.strip_prefix('[')?.split_once(']')?;
        time.parse::<f64>().ok()
    };
    let answers: Vec<f64> = output.stdout.lines().filter_map(at).collect();
    let (first, last) = (answers.first()?, answers.last()?);
    let goes_on = last - first > f64::from(WATCHED_S) - 4.0;
    let gaps = answers.windows(2).map(|pair| pair[1] - pair[0]);
    let longest = gaps.fold(0.0, f64::max);
    goes_on.then(|| Duration::from_secs_f64(longest))
}
