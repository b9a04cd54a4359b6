//! Nodes come and go all the time, and lookups go on.
//!
//! How long a node stays is drawn from the exponential distribution. Whoever dies is
//! replaced at once by a newcomer with a new key, so that their number stays the same.
//! Lookups are asked at random moments by drawn nodes for drawn positions.

use std::time::Duration;

use enishi_overlay::Time;

use super::crowd::{Crowd, Verdict};
use super::subject::Subject;
use super::{Options, Outcome, Protocol, grow};
use crate::draws::exponential;
use crate::plot::{Axis, Panel, Picture, Series, Style};
use crate::queue::Queue;
use crate::statistics::{Figures, Results, mean, millis, per_second, percentile, ratio};
use crate::world::{Index, Traffic, World};

/// How long the measured part lasts if nothing else is asked for.
const DURATION: Duration = Duration::from_secs(1800);
/// The longest time that nodes come and go before lookups are counted.
const WARM_UP_MAX: Duration = Duration::from_secs(600);
/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// When a newcomer that has not joined tries another contact of its invitation.
const RETRY: Duration = Duration::from_secs(30);
/// Into how many parts the measured time is divided for the picture.
const PARTS: u32 = 60;

/// Who dies when, and who asks when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) session_mean: Duration,
    pub(super) polite_per_million: u32,
    /// Between two lookups of anyone; none for no lookups.
    pub(super) lookups_apart: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Die(Index),
    Retry(Index),
    Ask,
}

/// Births, deaths and questions, carried out as time goes by.
#[derive(Debug)]
pub(super) struct Churn {
    plan: Plan,
    acts: Queue<Act>,
    /// How many died, and how many newcomers had to try another contact.
    pub(super) deaths: u64,
    pub(super) retries: u64,
}

impl Churn {
    /// Plans the deaths of a crowd, except of those who are to stay.
    pub(super) fn new<S: Subject>(
        world: &mut World<S>,
        crowd: &Crowd,
        plan: Plan,
        stays: impl Fn(Index) -> bool,
    ) -> Self {
        let mut churn = Self {
            plan,
            acts: Queue::default(),
            deaths: 0,
            retries: 0,
        };
        for index in crowd.members().filter(|index| !stays(*index)) {
            churn.plan_death(world, index);
        }
        if plan.lookups_apart.is_some() {
            churn.acts.push(world.now(), Act::Ask);
        }
        churn
    }

    fn plan_death<S: Subject>(&mut self, world: &mut World<S>, index: Index) {
        let stay = exponential(world.rng(), self.plan.session_mean);
        self.acts.push(world.now() + stay, Act::Die(index));
    }

    /// Asks nothing more.
    pub(super) fn fall_silent(&mut self) {
        self.plan.lookups_apart = None;
    }

    /// Lets time go by until `until`. `mourn` hears of each death right before it.
    pub(super) fn run_until<S: Subject>(
        &mut self,
        world: &mut World<S>,
        crowd: &mut Crowd,
        until: Time,
        mut mourn: impl FnMut(&World<S>, &Crowd, Index),
    ) {
        while let Some((at, act)) = self.acts.pop_until(until) {
            world.run_for(at.since(world.now()));
            match act {
                Act::Die(index) => {
                    crowd.absorb(world);
                    mourn(world, crowd, index);
                    self.replace(world, crowd, index);
                }
                Act::Retry(index) => self.retry(world, crowd, index),
                Act::Ask => self.ask(world, crowd),
            }
        }
        world.run_for(until.since(world.now()));
        crowd.absorb(world);
    }

    fn replace<S: Subject>(&mut self, world: &mut World<S>, crowd: &mut Crowd, index: Index) {
        let polite = world.rng().below(1_000_000) < u64::from(self.plan.polite_per_million);
        crowd.remove(world, index, polite);
        self.deaths += 1;
        let newcomer = crowd.spawn(world);
        self.plan_death(world, newcomer);
        self.acts.push(world.now() + RETRY, Act::Retry(newcomer));
    }

    fn retry<S: Subject>(&mut self, world: &mut World<S>, crowd: &mut Crowd, index: Index) {
        crowd.absorb(world);
        if crowd.retry(world, index) {
            self.retries += 1;
            self.acts.push(world.now() + RETRY, Act::Retry(index));
        }
    }

    fn ask<S: Subject>(&mut self, world: &mut World<S>, crowd: &mut Crowd) {
        let Some(apart) = self.plan.lookups_apart else {
            return;
        };
        crowd.ask(world);
        let wait = exponential(world.rng(), apart);
        self.acts.push(world.now() + wait, Act::Ask);
    }
}

/// What was measured.
#[derive(Debug, Default)]
struct Measured {
    verdicts: Vec<Verdict>,
    joins: Vec<u64>,
    deaths: u64,
    retries: u64,
    /// How many belonged to the crowd at the end.
    joined: u64,
    traffic: Traffic,
    /// Octets sent in each part of the time.
    bytes: Vec<u64>,
}

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
    let duration = options.duration.unwrap_or(DURATION);
    let (start, measured) = story(&mut world, options, duration, progress);
    let median = options.median_round_trip();
    let figures = figures::<S>(options, duration, &measured, median);
    let picture = picture(options, start, duration, &measured);
    let results = Results {
        figures,
        ..routed(&measured.verdicts)
    };
    Outcome::new(&world, results).showing(picture)
}

/// Lets nodes come and go; returns when the measured part began, and what was measured.
fn story<S: Subject>(
    world: &mut World<S>,
    options: &Options,
    duration: Duration,
    progress: &mut impl FnMut(u32),
) -> (Time, Measured) {
    grow::grow(world, options.nodes, &mut |done| progress(done / 5));
    let mut crowd = Crowd::of(world);
    let plan = Plan {
        session_mean: options.session_mean,
        polite_per_million: options.polite_per_million,
        lookups_apart: Some(options.lookup_interval / options.nodes as u32),
    };
    let mut churn = Churn::new(world, &crowd, plan, |_| false);
    let warm_up = options.session_mean.min(WARM_UP_MAX);
    let begin = world.now();
    for part in 1..=PARTS {
        let until = begin + warm_up * part / PARTS;
        churn.run_until(world, &mut crowd, until, |_, _, _| {});
        progress(200 + 200 * part / PARTS);
    }
    let start = world.now();
    let measured = measure(world, &mut crowd, &mut churn, duration, progress);
    (start, measured)
}

fn measure<S: Subject>(
    world: &mut World<S>,
    crowd: &mut Crowd,
    churn: &mut Churn,
    duration: Duration,
    progress: &mut impl FnMut(u32),
) -> Measured {
    let (start, before) = (world.now(), world.traffic());
    let (deaths, retries) = (churn.deaths, churn.retries);
    crowd.take_joins();
    let mut measured = Measured::default();
    let mut sent = world.counters().bytes;
    for part in 1..=PARTS {
        churn.run_until(world, crowd, start + duration * part / PARTS, |_, _, _| {});
        let now = world.counters().bytes;
        measured.bytes.push(now - sent);
        sent = now;
        progress(400 + 590 * part / PARTS);
    }
    measured.traffic = difference(&world.traffic(), &before);
    measured.deaths = churn.deaths - deaths;
    measured.retries = churn.retries - retries;
    measured.joins = crowd.take_joins();
    measured.joined = crowd.len() as u64;
    churn.fall_silent();
    churn.run_until(world, crowd, world.now() + PATIENCE, |_, _, _| {});
    crowd.give_up();
    measured.verdicts = crowd.take_verdicts();
    measured.verdicts.retain(|verdict| verdict.at >= start);
    measured
}

/// Returns what was sent since `before`.
pub(super) fn difference(now: &Traffic, before: &Traffic) -> Traffic {
    let mut difference = now.clone();
    for (sort, tally) in before {
        if let Some(after) = difference.get_mut(sort) {
            after.messages -= tally.messages;
            after.bytes -= tally.bytes;
        }
    }
    difference.retain(|_, tally| tally.messages > 0);
    difference
}

fn figures<S: Subject>(
    options: &Options,
    duration: Duration,
    measured: &Measured,
    median_round_trip: Duration,
) -> Figures {
    let mut figures = Figures::default();
    let nodes = options.nodes as u64;
    let verdicts = &measured.verdicts;
    let asked = verdicts.len() as u64;
    let count = |test: fn(&Verdict) -> bool| verdicts.iter().filter(|v| test(v)).count() as u64;
    figures.count("lookups", asked);
    figures.share("correct", count(|verdict| verdict.correct), asked);
    figures.share("answered", count(|verdict| verdict.time.is_some()), asked);
    figures.times(&micros(verdicts), median_round_trip);
    let bytes: u64 = measured.traffic.values().map(|tally| tally.bytes).sum();
    let messages = measured.traffic.values().map(|tally| tally.messages).sum();
    let lookups = S::lookup_bytes(&measured.traffic);
    let rate = |part| per_second(part, duration, nodes);
    figures.amount("bytes_per_second_per_node", rate(bytes));
    figures.amount("upkeep_bytes_per_second_per_node", rate(bytes - lookups));
    figures.amount("lookup_bytes_per_second_per_node", rate(lookups));
    figures.amount("messages_per_second_per_node", rate(messages));
    figures.count("joined", measured.joined);
    figures.count("deaths", measured.deaths);
    figures.count("joins", measured.joins.len() as u64);
    figures.count("joins_tried_again", measured.retries);
    let join = |percent| percentile(&measured.joins, percent).map(millis);
    figures.amount("p50_join_ms", join(50));
    figures.amount("p99_join_ms", join(99));
    let each = measured.traffic.iter();
    let each = each.filter_map(|(sort, tally)| Some((*sort, rate(tally.bytes)?)));
    figures.each("bytes_by_message", each.collect());
    let each = measured.traffic.iter();
    let each = each.filter_map(|(sort, tally)| Some((*sort, rate(tally.messages)?)));
    figures.each("messages_by_message", each.collect());
    figures
}

/// Tells of lookups what is told of routes: how many ended right, and over how many hops.
pub(super) fn routed(verdicts: &[Verdict]) -> Results {
    let correct = verdicts.iter().filter(|verdict| verdict.correct).count() as u64;
    let hops = verdicts.iter().filter_map(|verdict| verdict.hops);
    let hops: Vec<u64> = hops.map(u64::from).collect();
    Results {
        mean_hops: mean(&hops),
        p99_hops: percentile(&hops, 99),
        success: ratio(correct, verdicts.len() as u64),
        ..Results::default()
    }
}

/// Returns the times of the answered lookups, in microseconds.
pub(super) fn micros(verdicts: &[Verdict]) -> Vec<u64> {
    let times = verdicts.iter().filter_map(|verdict| verdict.time);
    times
        .map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
        .collect()
}

fn picture(options: &Options, start: Time, duration: Duration, measured: &Measured) -> Picture {
    let part = duration / PARTS;
    let part_of = |verdict: &Verdict| {
        let micros = verdict.at.since(start).as_micros();
        (micros / part.as_micros().max(1)).min(u128::from(PARTS - 1)) as usize
    };
    let mut counts = vec![(0_u64, 0_u64); PARTS as usize];
    for verdict in &measured.verdicts {
        let (right, all) = &mut counts[part_of(verdict)];
        *right += u64::from(verdict.correct);
        *all += 1;
    }
    let at = |number: usize| (part * number as u32).as_secs();
    let shares = counts.iter().enumerate().filter(|(_, (_, all))| *all > 0);
    let shares = shares.map(|(i, (right, all))| (at(i), right * 1_000_000 / all));
    let per_node = part.as_millis() as u64 * options.nodes as u64;
    let rates = measured.bytes.iter().enumerate();
    let rates = rates.map(|(i, bytes)| (at(i), bytes * 1_000_000 / per_node.max(1)));
    Picture {
        title: options.title("churn"),
        panels: vec![
            Panel {
                title: "Lookups answered with a node that was in charge".into(),
                x: Axis::new("time, minutes", 60),
                y: Axis::new("correct, %", 10_000),
                series: vec![Series::new("correct", Style::Steps, shares.collect())],
            },
            Panel {
                title: "Everything sent".into(),
                x: Axis::new("time, minutes", 60),
                y: Axis::new("bytes per second per node", 1000).from(0),
                series: vec![Series::new("bytes", Style::Steps, rates.collect())],
            },
            Panel {
                title: "Times of lookups".into(),
                x: Axis::new("time until the answer, ms", 1000).logarithmic(),
                y: Axis::new("share of lookups, %", 100),
                series: vec![Series::distribution("lookups", &micros(&measured.verdicts))],
            },
        ],
    }
}
