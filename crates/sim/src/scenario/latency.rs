//! How long lookups take, with none or some of the nodes suddenly dead.

use std::time::Duration;

use super::churn::{micros, routed};
use super::crowd::{Crowd, Verdict};
use super::subject::Subject;
use super::{Options, Outcome, Protocol, grow};
use crate::draws::exponential;
use crate::plot::{Axis, Panel, Picture, Series};
use crate::statistics::{Figures, Results};
use crate::world::World;

/// How long the nodes live together before: until they have the links that they can afford.
const SETTLING: Duration = Duration::from_secs(3600);
/// Over how long the lookups are spread, so that sessions which are open anyway serve
/// them and others have to be opened.
const SPREAD: Duration = Duration::from_secs(60);
/// The same after deaths: less than the shortest period of upkeep, so that tables are as
/// the dead left them.
const SPREAD_AFTER_DEATHS: Duration = Duration::from_secs(4);
/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn run(options: &Options, progress: &mut impl FnMut(u32)) -> Outcome {
    match options.protocol {
        Protocol::Enishi => {
            let world = options.world_with(|config| config.reports_hops = false);
            tell(world, options, progress)
        }
        Protocol::Kademlia => tell(options.rival_world(), options, progress),
    }
}

fn tell<S: Subject>(
    mut world: World<S>,
    options: &Options,
    progress: &mut impl FnMut(u32),
) -> Outcome {
    let (dead, joined, verdicts) = story(&mut world, options, progress);
    let asked = verdicts.len() as u64;
    let count = |test: fn(&Verdict) -> bool| verdicts.iter().filter(|v| test(v)).count() as u64;
    let times = micros(&verdicts);
    let mut figures = Figures::default();
    figures.count("dead", dead);
    figures.count("joined", joined);
    figures.count("lookups", asked);
    figures.share("correct", count(|verdict| verdict.correct), asked);
    figures.share("answered", count(|verdict| verdict.time.is_some()), asked);
    figures.times(&times, options.median_round_trip());
    let picture = Picture {
        title: options.title("latency"),
        panels: vec![Panel {
            title: format!("Times of lookups; {dead} nodes had just died"),
            x: Axis::new("time until the answer, ms", 1000).from(0),
            y: Axis::new("share of lookups, %", 100),
            series: vec![Series::distribution("lookups", &times)],
        }],
    };
    let results = Results {
        figures,
        ..routed(&verdicts)
    };
    Outcome::new(&world, results).showing(picture)
}

/// Asks; returns how many died before, how many of the others had joined, and how the
/// lookups ended.
fn story<S: Subject>(
    world: &mut World<S>,
    options: &Options,
    progress: &mut impl FnMut(u32),
) -> (u64, u64, Vec<Verdict>) {
    grow::grow(world, options.nodes, &mut |done| progress(done * 4 / 10));
    grow::settle(world, SETTLING, &mut |done| progress(400 + done * 4 / 10));
    let mut crowd = Crowd::of(world);
    let dead = options.nodes as u64 * u64::from(options.dead_per_million) / 1_000_000;
    let verdicts = ask(world, &mut crowd, dead, options.routes, &mut |done| {
        progress(800 + done / 5);
    });
    (dead, crowd.len() as u64, verdicts)
}

/// Has so many of the crowd die and the others ask; `progress` hears the share done, in
/// thousandths.
pub(super) fn ask<S: Subject>(
    world: &mut World<S>,
    crowd: &mut Crowd,
    dead: u64,
    lookups: u64,
    progress: &mut impl FnMut(u32),
) -> Vec<Verdict> {
    for _ in 0..dead {
        if let Some(victim) = crowd.any(world) {
            crowd.remove(world, victim, false);
        }
    }
    let spread = if dead == 0 {
        SPREAD
    } else {
        SPREAD_AFTER_DEATHS
    };
    let apart = spread / u32::try_from(lookups.max(1)).unwrap_or(u32::MAX);
    for asked in 0..lookups {
        crowd.ask(world);
        let wait = exponential(world.rng(), apart);
        world.run_for(wait);
        progress((asked * 1000 / lookups) as u32);
    }
    world.run_for(PATIENCE);
    crowd.absorb(world);
    crowd.give_up();
    crowd.take_verdicts()
}
