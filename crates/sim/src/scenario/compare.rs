//! Geometries, ways to forward, and the rival, one after the other in the same circumstances.
//!
//! Each has a world of its own from the same seed. When it has grown and settled, what its
//! upkeep costs is counted for some minutes without lookups; then lookups are asked as in the
//! scenario `latency`, with nobody dead, after a tenth died at once, and, when newcomers have
//! taken their places and the overlay has settled again, after three tenths died.
//!
//! Equal tables: each node draws as many long links in every geometry as Chord's fingers and
//! Kademlia's buckets need beside the near neighbours, and CAN has as many axes.
//!
//! Equal bytes: Symphony with that table is left alone for ten minutes, and what its upkeep
//! costs then is the budget. Each other geometry is given more or fewer links ([`steered`]) until
//! it costs as nearly as much as whole links allow; the dial of upkeep is open, so that
//! nothing is told or asked less often to save octets. The rival has a dial of its own, and
//! is run at its default and at that budget.
//!
//! Equal transport: the rival's own are bare datagrams, which cost no handshake and pass every
//! NAT here; over sessions it pays for both as our nodes do.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::Geometry;
use enishi_overlay::config::Forwarding;
use enishi_overlay::geometry::DIMENSIONS_MAX;

use super::churn::micros;
use super::crowd::{Crowd, Verdict};
use super::latency::ask;
use super::subject::Subject;
use super::{Options, Outcome, grow};
use crate::internet::Transport;
use crate::plot::{Axis, Panel, Picture, Series, Style};
use crate::statistics::{Figures, Results, mean, mean_in, millis, per_second, percentile, ratio};
use crate::world::World;

/// The columns of the table, in order: figures of each row.
pub const COLUMNS: [&str; 9] = [
    "peers",
    "known",
    "upkeep_bytes_per_second",
    "hops",
    "mean_ms",
    "p50_ms",
    "p99_ms",
    "round_trips",
    "correct",
];

/// How long the overlay is left alone before its upkeep is counted, and how long newcomers
/// have to join.
const SETTLING: Duration = Duration::from_secs(120);
/// How long instead where octets are to be equal: until all links are drawn, and what was drawn
/// while the overlay was small is given up.
const SETTLING_LONG: Duration = Duration::from_secs(600);
/// Over how long the upkeep is counted: twice the longest of our own periods, and more.
const QUIET: Duration = Duration::from_secs(240);
/// After how long a newcomer that has not joined tries again.
const RETRY: Duration = Duration::from_secs(30);
/// How many worlds it takes at most to find the links that cost a budget.
const TRIALS: u32 = 3;
/// What a link is taken to cost at first, in thousandths of an octet per second.
const LINK_MILLI: i64 = 2000;
/// No dial: what upkeep is worth is done.
const UNLIMITED: u32 = 100_000;
/// How many of a hundred die before each round of lookups; names of rows follow.
const DEAD_PERCENT: [u64; 3] = [0, 10, 30];

/// What is compared.
#[derive(Clone, Copy, Debug)]
enum Contestant {
    /// Our own nodes, set up as the daemon's, or with so many long links.
    Overlay(Geometry, Forwarding, Option<u32>),
    /// Our own nodes with so many long links, which pay for them whatever they cost, after a
    /// long time.
    Settled(Geometry, u32),
    /// The rival over such a transport, spending so many octets per second after a long time, or
    /// what it is set up to.
    Rival(Transport, Option<u32>),
}

/// What was measured of one of them.
#[derive(Debug, Default)]
struct Measured {
    peers: Vec<u64>,
    known: Vec<u64>,
    /// Octets in the quiet time.
    bytes: u64,
    nodes: u64,
    /// By [`DEAD_PERCENT`].
    verdicts: [Vec<Verdict>; DEAD_PERCENT.len()],
}

/// Names of the rows: what it is at each share of the dead.
macro_rules! names {
    ($name:literal) => {
        [
            concat!($name, ", 0 % dead"),
            concat!($name, ", 10 % dead"),
            concat!($name, ", 30 % dead"),
        ]
    };
}

/// A geometry by how many links, or axes, it has.
type WithLinks = fn(u32) -> Geometry;

/// What is in the picture: those whose octets are equal.
const PICTURED: [&str; 6] = [
    "symphony, equal bytes",
    "chord, equal bytes",
    "kademlia, equal bytes",
    "can, equal bytes",
    "kademlia protocol, equal bytes",
    "kademlia protocol over sessions, equal bytes",
];

type Names = [&'static str; DEAD_PERCENT.len()];

pub(super) fn run(options: &Options, progress: &mut impl FnMut(u32)) -> Outcome {
    use Contestant::{Rival, Settled};
    let links = options.long_links.unwrap_or(links(options.nodes));
    let contestants = contestants(links);
    let mut figures = Figures::default();
    let mut pictured = Vec::new();
    let mut outcome = Results::default();
    let (mut begun, all) = (0, contestants.len() as u32 + 3 * TRIALS + 3);
    let mut measure = |contestant: Contestant| {
        let mut progress = |done| progress((begun * 1000 + done) / all);
        let (measured, told) = contestant.measure(options, &mut progress);
        begun += 1;
        outcome.add_run(&told);
        measured
    };
    let mut tell = |names: Names, measured: Measured| {
        rows(&mut figures, options, names, &measured);
        let [name, ..] = names;
        if PICTURED.iter().any(|pictured| name.starts_with(pictured)) {
            pictured.push((name, measured));
        }
    };
    for (names, contestant) in contestants {
        tell(names, measure(contestant));
    }
    let symphony = measure(Settled(Geometry::Symphony, links));
    let budget = symphony.milli();
    tell(names!("symphony, equal bytes"), symphony);
    let geometries: [(Names, WithLinks); 3] = [
        (names!("chord, equal bytes"), |_| Geometry::Chord),
        (names!("kademlia, equal bytes"), |_| Geometry::Kademlia),
        (names!("can, equal bytes"), can),
    ];
    for (names, geometry) in geometries {
        let at = |links| measure(Settled(geometry(links), links));
        tell(names, steered(budget, links, at));
    }
    let rate = u32::try_from(budget / 1000).unwrap_or(UNLIMITED).max(1);
    let names = names!("kademlia protocol, equal bytes");
    tell(names, measure(Rival(Transport::Datagrams, Some(rate))));
    let names = names!("kademlia protocol over sessions, equal bytes");
    tell(names, measure(Rival(Transport::Sessions, Some(rate))));
    let picture = picture(options, &pictured);
    figures.count("long_links", links.into());
    outcome.figures = figures;
    Outcome {
        results: outcome,
        picture: Some(picture),
    }
}

/// Measures with more or fewer links until the upkeep is as near to a budget, in thousandths of
/// an octet per second, as [`TRIALS`] worlds come.
fn steered(budget: i64, links: u32, mut measure: impl FnMut(u32) -> Measured) -> Measured {
    let first = measure(links);
    let mut tried = vec![(i64::from(links), first.milli())];
    let mut best = first;
    while tried.len() < TRIALS as usize {
        let next = next_trial(budget, &tried);
        if tried.iter().any(|(links, _)| *links == next) {
            break;
        }
        let measured = measure(next as u32);
        tried.push((next, measured.milli()));
        if measured.milli().abs_diff(budget) < best.milli().abs_diff(budget) {
            best = measured;
        }
    }
    best
}

/// Returns how many links to try after some, by the line through the last two.
fn next_trial(budget: i64, tried: &[(i64, i64)]) -> i64 {
    let (links, cost) = tried[tried.len() - 1];
    let slope = match tried {
        [.., (links_before, cost_before), _] => (cost - cost_before) / (links - links_before),
        _ => LINK_MILLI,
    };
    let slope = slope.max(LINK_MILLI / 4);
    let apart = budget - cost;
    let more = (apart + slope / 2 * apart.signum()) / slope;
    (links + more).clamp(1, DIMENSIONS_MAX.into())
}

impl Measured {
    /// Returns what upkeep cost a node, in thousandths of an octet per second.
    fn milli(&self) -> i64 {
        let milli = self.bytes * 1000 / QUIET.as_secs() / self.nodes.max(1);
        i64::try_from(milli).unwrap_or(i64::MAX)
    }
}

impl Contestant {
    /// Grows a world and measures it.
    fn measure(self, options: &Options, progress: &mut impl FnMut(u32)) -> (Measured, Results) {
        let world = |geometry, forwarding, links, rate: Option<u32>| {
            options.world_with(|config| {
                config.reports_hops = false;
                config.geometry = geometry;
                config.forwarding = forwarding;
                config.long_links = links;
                config.upkeep_bytes_per_s = rate.unwrap_or(config.upkeep_bytes_per_s);
            })
        };
        match self {
            Self::Overlay(geometry, forwarding, links) => {
                let world = world(geometry, forwarding, links, None);
                measure(world, options, SETTLING, progress)
            }
            Self::Settled(geometry, links) => {
                let world = world(geometry, Forwarding::Fastest, Some(links), Some(UNLIMITED));
                measure(world, options, SETTLING_LONG, progress)
            }
            Self::Rival(transport, rate) => {
                let mut options = options.clone();
                options.transport = Some(transport);
                options.upkeep_bytes_per_second = rate;
                let settling = if rate.is_some() {
                    SETTLING_LONG
                } else {
                    SETTLING
                };
                measure(options.rival_world(), &options, settling, progress)
            }
        }
    }
}

/// Returns how many long links Chord and Kademlia need beside near neighbours.
fn links(nodes: usize) -> u32 {
    nodes.max(1).ilog2().saturating_sub(3).max(1)
}

/// Returns CAN's geometry with so many axes.
fn can(axes: u32) -> Geometry {
    let dimensions = u8::try_from(axes).unwrap_or(DIMENSIONS_MAX);
    Geometry::Can { dimensions }
}

fn contestants(links: u32) -> Vec<(Names, Contestant)> {
    use Contestant::{Overlay, Rival};
    use Forwarding::{Fastest, Greedy, Jump, Lookahead};
    use Geometry::{Chord, Kademlia, Symphony};
    let can = can(links);
    let equal = Some(links);
    vec![
        (
            names!("symphony, as the daemon"),
            Overlay(Symphony, Fastest, None),
        ),
        (names!("symphony"), Overlay(Symphony, Fastest, equal)),
        (names!("symphony, greedy"), Overlay(Symphony, Greedy, equal)),
        (
            names!("symphony, lookahead"),
            Overlay(Symphony, Lookahead, equal),
        ),
        (names!("symphony, jump"), Overlay(Symphony, Jump, equal)),
        (names!("chord"), Overlay(Chord, Fastest, equal)),
        (names!("chord, greedy"), Overlay(Chord, Greedy, equal)),
        (names!("kademlia"), Overlay(Kademlia, Fastest, equal)),
        (names!("kademlia, greedy"), Overlay(Kademlia, Greedy, equal)),
        (names!("can"), Overlay(can, Fastest, None)),
        (names!("can, greedy"), Overlay(can, Greedy, None)),
        (
            names!("kademlia protocol"),
            Rival(Transport::Datagrams, None),
        ),
        (
            names!("kademlia protocol over sessions"),
            Rival(Transport::Sessions, None),
        ),
    ]
}

/// Grows a world and measures it.
fn measure<S: Subject>(
    mut world: World<S>,
    options: &Options,
    settling: Duration,
    progress: &mut impl FnMut(u32),
) -> (Measured, Results) {
    let world = &mut world;
    grow::grow(world, options.nodes, &mut |done| progress(done * 2 / 10));
    grow::settle(world, settling, &mut |done| progress(200 + done / 10));
    let mut crowd = Crowd::of(world);
    let before = world.counters().bytes;
    grow::settle(world, QUIET, &mut |done| progress(300 + done * 2 / 10));
    let mut measured = Measured {
        bytes: world.counters().bytes - before,
        nodes: crowd.len() as u64,
        ..Measured::default()
    };
    for (_, node) in world.living() {
        let (peers, known) = node.table_len();
        measured.peers.push(peers as u64);
        measured.known.push(known as u64);
    }
    progress(500);
    for (round, percent) in (0..).zip(DEAD_PERCENT) {
        let dead = options.nodes as u64 * percent / 100;
        let verdicts = ask(world, &mut crowd, dead, options.routes, &mut |done| {
            progress(500 + 150 * round + done * 3 / 20);
        });
        measured.verdicts[round as usize] = verdicts;
        if round as usize + 1 < DEAD_PERCENT.len() {
            replenish(world, &mut crowd, dead);
        }
    }
    let results = Outcome::new(world, Results::default()).results;
    (measured, results)
}

/// Brings newcomers for the dead, and waits until the overlay has settled.
fn replenish<S: Subject>(world: &mut World<S>, crowd: &mut Crowd, dead: u64) {
    let newcomers: Vec<_> = (0..dead).map(|_| crowd.spawn(world)).collect();
    if newcomers.is_empty() {
        return;
    }
    for _ in 0..SETTLING.as_secs() / RETRY.as_secs() {
        world.run_for(RETRY);
        crowd.absorb(world);
        for newcomer in &newcomers {
            crowd.retry(world, *newcomer);
        }
    }
}

/// Tells what was measured: a row for each share of the dead.
fn rows(figures: &mut Figures, options: &Options, names: Names, measured: &Measured) {
    for (name, verdicts) in names.into_iter().zip(&measured.verdicts) {
        let times = micros(verdicts);
        let hops = verdicts.iter().filter_map(|verdict| verdict.hops);
        let hops: Vec<u64> = hops.map(u64::from).collect();
        let correct = verdicts.iter().filter(|verdict| verdict.correct).count() as u64;
        let row = COLUMNS.into_iter().zip([
            mean(&measured.peers),
            mean(&measured.known),
            per_second(measured.bytes, QUIET, measured.nodes),
            mean(&hops),
            mean_in(&times, Duration::from_millis(1)),
            percentile(&times, 50).map(millis),
            percentile(&times, 99).map(millis),
            mean_in(&times, options.median_round_trip()),
            ratio(correct, verdicts.len() as u64),
        ]);
        let row: BTreeMap<_, _> = row
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        figures.each(name, row);
    }
}

fn picture(options: &Options, pictured: &[(&'static str, Measured)]) -> Picture {
    let name = |name: &'static str| name.rsplit_once(", ").map_or(name, |(name, _)| name);
    let means = pictured.iter().map(|(full, measured)| {
        let points = DEAD_PERCENT.into_iter().zip(&measured.verdicts);
        let points = points.filter_map(|(percent, verdicts)| {
            let times = micros(verdicts);
            let mean = times.iter().sum::<u64>().checked_div(times.len() as u64)?;
            Some((percent, mean))
        });
        Series::new(name(full), Style::Line, points.collect())
    });
    let distributions = pictured
        .iter()
        .map(|(full, measured)| Series::distribution(name(full), &micros(&measured.verdicts[0])));
    Picture {
        title: options.title("compare"),
        panels: vec![
            Panel {
                title: "Mean time of a lookup, some nodes having just died".into(),
                x: Axis::new("dead nodes, %", 1).from(0),
                y: Axis::new("mean time until the answer, ms", 1000).from(0),
                series: means.collect(),
            },
            Panel {
                title: "Times of lookups, nobody dead".into(),
                x: Axis::new("time until the answer, ms", 1000).logarithmic(),
                y: Axis::new("share of lookups, %", 100),
                series: distributions.collect(),
            },
        ],
    }
}
