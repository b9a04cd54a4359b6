//! What becomes of packets when something between two nodes changes: a router starts anew, its outer
//! address is another one, a node dies that carried.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use enishi_lab::World;
use enishi_lab::wire::Area;

use super::matrix::{Cell, path};
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

/// Lets it happen, one thing after the other. The routers are changed all at once, then a node is killed
/// that carries for others. Of pairs whose like is reached straight, both routers are.
///
/// # Errors
/// When the lab cannot do it.
pub(super) fn measure(
    town: &mut Town,
    names: &[&'static str],
    cells: &[Cell],
) -> anyhow::Result<Vec<Survival>> {
    let mut survivals = Vec::new();
    let at = |name: &str| names.iter().position(|known| *known == name);
    // Each kind once, though it may be in several towns.
    let alike = cells.iter().filter(|cell| cell.from == cell.to);
    let routed: Vec<(usize, &Cell)> = alike
        .filter_map(|cell| Some((at(cell.from)?, cell)))
        .filter(|(kind, _)| town.sides[0][*kind].area.is_some())
        .collect();
    for (event, moves) in [
        ("router starts anew", false),
        ("outer address changes", true),
    ] {
        let Town {
            sides: [from, to],
            helpers,
            world,
            ..
        } = &mut *town;
        let helper = helpers[1].address.as_ref();
        let helper = helper.context("a helper without an address")?;
        let watched = routed.iter().flat_map(|(kind, cell)| {
            let (name, node) = (names[*kind], &from[*kind]);
            let like = to[*kind]
                .address
                .as_ref()
                .filter(|_| cell.times.direct.is_some());
            let like = like.map(|like| (format!("{name} to {name}"), node, like.clone()));
            [Some((name.to_owned(), node, helper.clone())), like]
        });
        // Both routers of two that are alike.
        let areas = routed
            .iter()
            .flat_map(|(kind, _)| [from[*kind].area, to[*kind].area]);
        let areas: BTreeSet<Area> = areas.flatten().collect();
        let happens = |world: &mut World| {
            let mut areas = areas.iter();
            areas.try_for_each(|area| world.restart_router(*area, moves))
        };
        survivals.extend(watch(event, watched.flatten().collect(), world, happens)?);
    }
    survivals.extend(carrier_dies(town, names, cells)?);
    Ok(survivals)
}

/// Kills the node that carries for most of some pairs which go by way of others, and watches these.
fn carrier_dies(
    town: &mut Town,
    names: &[&'static str],
    cells: &[Cell],
) -> anyhow::Result<Vec<Survival>> {
    let at = |name: &str| names.iter().position(|known| *known == name);
    let Town {
        sides: [from, to],
        helpers,
        world,
        ..
    } = town;
    let is_carried = |cell: &&Cell| cell.times.first.is_some() && cell.times.direct.is_none();
    let mut by_carrier: BTreeMap<String, Vec<(String, usize, String)>> = BTreeMap::new();
    for cell in cells.iter().filter(is_carried) {
        let (Some(a), Some(b)) = (at(cell.from), at(cell.to)) else {
            continue;
        };
        let (Some(daemon), Some(address)) = (&from[a].daemon, &to[b].address) else {
            continue;
        };
        // `relayed by abcdefghij`, or `session relayed by abcdefghij`
        let path = is_reached(&from[a], address)
            .then(|| path(daemon, address))
            .flatten();
        let carrier = path
            .as_deref()
            .and_then(|path| path.split_once("relayed by "));
        if let Some((_, carrier)) = carrier {
            let who = format!("{} to {}", cell.from, cell.to);
            let pairs = by_carrier.entry(carrier.to_owned()).or_default();
            pairs.push((who, a, address.clone()));
        }
    }
    // Of two that carry for as many a helper.
    let nodes = to.iter_mut().chain(helpers.iter_mut());
    let carriers = nodes.filter_map(|node| {
        let daemon = node.daemon.as_mut()?;
        let told = daemon.json(&["status"]).ok()?;
        let id = told["node_id"].as_str()?;
        let mut known = by_carrier.iter();
        let (_, pairs) = known.find(|(carrier, _)| id.starts_with(*carrier))?;
        let mut ends = pairs.iter().map(|(.., to)| to);
        let is_end = ends.any(|to| Some(to) == node.address.as_ref());
        (!is_end).then_some((pairs, daemon))
    });
    let Some((pairs, victim)) = carriers.max_by_key(|(pairs, _)| pairs.len()) else {
        eprintln!("nobody is killed: no pair goes by a node that could be");
        return Ok(Vec::new());
    };
    let pairs = pairs.iter().take(CARRIED_MAX);
    let watched = pairs.map(|(who, kind, to)| (who.clone(), &from[*kind], to.clone()));
    let happens = |_: &mut World| victim.process().kill9().map(drop);
    watch("its carrier is killed", watched.collect(), world, happens)
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
