//! Geometries, ways to forward, and the rival, one after the other in the same circumstances.
//!
//! Each has a world of its own from the same seed. When it has grown and settled, what its
//! upkeep costs is counted for some minutes without lookups; then lookups are asked as in the
//! scenario `latency`, with nobody dead, after a tenth died at once, and, when newcomers have
//! taken their places and the overlay has settled again, after three tenths died.
//!
//! Equal tables: each node draws as many long links in every geometry as Chord's fingers and
//! Kademlia's buckets need beside the near neighbours, and CAN has as many axes. As the daemon:
//! as many links as the dial of upkeep gives, which has an hour's way to go when this is
//! measured, so that octets are near each other and not equal (CAN's links are given by its
//! axes, so it has no such row). Equal bytes: the rival has a dial for what it spends, and is
//! run at its own default and at what Symphony with that table was seen to spend. Equal
//! transport: the rival's own are bare datagrams, which cost no handshake and pass every NAT
//! here; over sessions it pays for both as our nodes do.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::Geometry;
use enishi_overlay::config::Forwarding;

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
/// Over how long the upkeep is counted: twice the longest of our own periods, and more.
const QUIET: Duration = Duration::from_secs(240);
/// After how long a newcomer that has not joined tries again.
const RETRY: Duration = Duration::from_secs(30);
/// How many of a hundred die before each round of lookups; names of rows follow.
const DEAD_PERCENT: [u64; 3] = [0, 10, 30];

/// What is compared.
#[derive(Clone, Copy, Debug)]
enum Contestant {
    /// Our own nodes, with as many links as they would have, or with equal tables.
    Overlay(Geometry, Forwarding, Option<u32>),
    /// The rival over such a transport, spending so many octets per second, or what it is set
    /// up to.
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

type Names = [&'static str; DEAD_PERCENT.len()];

pub(super) fn run(options: &Options, progress: &mut impl FnMut(u32)) -> Outcome {
    let links = links(options.nodes);
    let contestants = contestants(options, links);
    let all = contestants.len() as u32 + 2;
    let mut figures = Figures::default();
    let mut pictured = Vec::new();
    let mut outcome = Results::default();
    let mut tell = |number: u32, names: Names, contestant: Contestant| {
        let mut progress = |done| progress((number * 1000 + done) / all);
        let (measured, told) = match contestant {
            Contestant::Overlay(geometry, forwarding, links) => {
                let world = options.world_with(|config| {
                    config.reports_hops = false;
                    config.geometry = geometry;
                    config.forwarding = forwarding;
                    config.long_links = links;
                });
                measure(world, options, &mut progress)
            }
            Contestant::Rival(transport, rate) => {
                let mut options = options.clone();
                options.transport = Some(transport);
                options.upkeep_bytes_per_second = rate;
                measure(options.rival_world(), &options, &mut progress)
            }
        };
        rows(&mut figures, options, names, &measured);
        let rate = measured.bytes / QUIET.as_secs() / measured.nodes.max(1);
        let drawn = matches!(
            contestant,
            Contestant::Overlay(_, Forwarding::Fastest, Some(_))
                | Contestant::Overlay(Geometry::Can { .. }, Forwarding::Fastest, _)
                | Contestant::Rival(_, Some(_))
        );
        if drawn {
            pictured.push((names[0], measured));
        }
        outcome.add_run(&told);
        rate
    };
    let mut rate = 0;
    for (number, (names, contestant)) in (0..).zip(contestants) {
        let spent = tell(number, names, contestant);
        if let Contestant::Overlay(Geometry::Symphony, Forwarding::Fastest, Some(_)) = contestant {
            rate = spent;
        }
    }
    let rate = u32::try_from(rate.max(1)).ok();
    let rival = |transport| Contestant::Rival(transport, rate);
    let names = names!("kademlia protocol, equal bytes");
    tell(all - 2, names, rival(Transport::Datagrams));
    let names = names!("kademlia protocol over sessions, equal bytes");
    tell(all - 1, names, rival(Transport::Sessions));
    let picture = picture(options, &pictured);
    figures.count("long_links", options.long_links.unwrap_or(links).into());
    outcome.figures = figures;
    Outcome {
        results: outcome,
        picture: Some(picture),
    }
}

/// Returns how many long links Chord and Kademlia need beside near neighbours.
fn links(nodes: usize) -> u32 {
    nodes.max(1).ilog2().saturating_sub(3).max(1)
}

fn contestants(options: &Options, links: u32) -> Vec<(Names, Contestant)> {
    use Contestant::{Overlay, Rival};
    use Forwarding::{Fastest, Greedy, Jump, Lookahead};
    use Geometry::{Chord, Kademlia, Symphony};
    let can = Geometry::Can {
        dimensions: links as u8,
    };
    let equal = Some(options.long_links.unwrap_or(links));
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
            names!("chord, as the daemon"),
            Overlay(Chord, Fastest, None),
        ),
        (
            names!("kademlia, as the daemon"),
            Overlay(Kademlia, Fastest, None),
        ),
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
    progress: &mut impl FnMut(u32),
) -> (Measured, Results) {
    let world = &mut world;
    grow::grow(world, options.nodes, &mut |done| progress(done * 2 / 10));
    grow::settle(world, SETTLING, &mut |done| progress(200 + done / 10));
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
