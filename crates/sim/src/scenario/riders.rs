//! Some nodes take and do not give: what the others' policies make of it.
//!
//! For each share of riders and each policy of the others a world grows, everyone asks for
//! 40 minutes, and then lookups are counted for half an hour. With `trust` everybody trusts all
//! that are no riders, which is the best that trust can do, and passes on as much for
//! others as an even share of the lookups comes to. `rider.rs` says what riders do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use enishi_overlay::standing::Policy;
use enishi_overlay::{Config, NodeId, OverlayId};

use super::churn::{Churn, Plan, micros};
use super::crowd::{Crowd, Verdict};
use super::rider::{Manners, Member, Setting};
use super::{Options, Outcome, grow};
use crate::plot::{Axis, Panel, Picture, Series, Style};
use crate::statistics::{Figures, Results, mean_thousandths, millis, percentile, ratio};
use crate::world::{Index, World};

/// How long lookups are counted if nothing else is asked for.
const DURATION: Duration = Duration::from_secs(1800);
/// How long everyone asks before, and learns whom to rely on.
const LEARNING: Duration = Duration::from_secs(2400);
/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The shares of riders that are compared, in percent, unless one is asked for.
const PERCENTS: [u32; 4] = [0, 10, 30, 50];
/// The policies that are compared.
const POLICIES: [Policy; 3] = [Policy::None, Policy::Trust, Policy::Reputation];
/// The rows of the table: a policy at each of the percentages, or at the one asked for.
const ROWS: [[&str; 5]; 3] = [
    ["none_0", "none_10", "none_30", "none_50", "none"],
    ["trust_0", "trust_10", "trust_30", "trust_50", "trust"],
    [
        "reputation_0",
        "reputation_10",
        "reputation_30",
        "reputation_50",
        "reputation",
    ],
];

/// What was measured in one world.
#[derive(Debug)]
struct Found {
    row: &'static str,
    policy: Policy,
    per_million: u32,
    honest: Group,
    riders: Group,
    /// Messages that the honest passed on in the measured time.
    carried: u64,
    /// Messages of honest nodes that other honest nodes declined, from the start.
    honest_declined: u64,
    /// Messages of riders that were declined, from the start.
    riders_declined: u64,
    /// How many are no riders.
    trustworthy: u64,
}

/// How the lookups of some nodes ended.
#[derive(Debug, Default)]
struct Group {
    asked: u64,
    correct: u64,
    micros: Vec<u64>,
}

impl Group {
    fn of(verdicts: &[Verdict]) -> Self {
        Self {
            asked: verdicts.len() as u64,
            correct: verdicts.iter().filter(|verdict| verdict.correct).count() as u64,
            micros: micros(verdicts),
        }
    }

    fn correct_per_million(&self) -> Option<u64> {
        (self.correct * 1_000_000).checked_div(self.asked)
    }

    fn mean_micros(&self) -> Option<u64> {
        let sum: u64 = self.micros.iter().sum();
        sum.checked_div(self.micros.len() as u64)
    }
}

impl Found {
    fn honest(&self) -> &Group {
        &self.honest
    }

    fn riders(&self) -> &Group {
        &self.riders
    }
}

pub(super) fn run(options: &Options, progress: &mut impl FnMut(u32)) -> Outcome {
    let shares: Vec<(usize, u32)> = match options.hostile_per_million {
        None => PERCENTS
            .iter()
            .map(|share| share * 10_000)
            .enumerate()
            .collect(),
        Some(share) => vec![(PERCENTS.len(), share)],
    };
    let worlds = (shares.len() * POLICIES.len()) as u32;
    let mut found = Vec::new();
    let mut results = Results::default();
    for (column, per_million) in shares {
        let mut trusted = BTreeSet::new();
        for (policy, names) in POLICIES.into_iter().zip(ROWS) {
            let done = found.len() as u32;
            let config = config(options, policy, trusted.clone());
            let mut world = world(options, config, per_million);
            let mut one = story(&mut world, options, per_million, &mut |part| {
                progress((done * 1000 + part) / worlds);
            });
            (one.row, one.policy) = (names[column], policy);
            found.push(one);
            // The same seed gives the same keys.
            trusted = honest(options, per_million)
                .map(|index| world.id(index))
                .collect();
            results.add_run(&Outcome::new(&world, Results::default()).results);
        }
    }
    results.figures = figures(options, &found);
    Outcome {
        results,
        picture: Some(picture(options, &found)),
    }
}

/// Returns how the honest take part.
fn config(options: &Options, policy: Policy, trusted: BTreeSet<NodeId>) -> Config {
    let mut config = Config::new(OverlayId::from_name("simulated"));
    config.long_links = options.long_links;
    config.reports_hops = false;
    config.policy = policy;
    config.trusted = trusted;
    // One relay for each lookup, but no less than one a minute.
    let per_minute = 60 / options.lookup_interval.as_secs().max(1);
    config.carried_per_minute = u32::try_from(per_minute).unwrap_or(u32::MAX).max(1);
    config
}

/// Visits those that are no riders.
fn honest(options: &Options, per_million: u32) -> impl Iterator<Item = Index> {
    (0..options.nodes).filter(move |index| is_honest(*index, per_million))
}

fn is_honest(index: Index, per_million: u32) -> bool {
    Manners::of(index, per_million) == Manners::Honest
}

fn world(options: &Options, config: Config, riders_per_million: u32) -> World<Member> {
    let setting = Setting {
        config,
        riders_per_million,
    };
    World::inhabited(options.seed, options.model.clone(), setting)
}

/// Lets everyone ask, and nobody die.
fn story(
    world: &mut World<Member>,
    options: &Options,
    per_million: u32,
    progress: &mut impl FnMut(u32),
) -> Found {
    let stays = Plan {
        session_mean: options.session_mean,
        polite_per_million: 0,
        lookups_apart: Some(options.lookup_interval / options.nodes as u32),
    };
    let honest = |index| is_honest(index, per_million);
    grow::grow(world, options.nodes, &mut |done| progress(done / 10));
    let mut crowd = Crowd::of(world);
    let mut churn = Churn::new(world, &crowd, stays, |_| true);
    tell(world, &mut crowd, &mut churn, LEARNING, &mut |part| {
        progress(100 + part * 6 / 10);
    });
    let (begin, before) = (world.now(), carried(world, honest));
    let duration = options.duration.unwrap_or(DURATION);
    tell(world, &mut crowd, &mut churn, duration, &mut |part| {
        progress(700 + part * 3 / 10);
    });
    let carried = carried(world, honest) - before;
    churn.fall_silent();
    churn.run_until(world, &mut crowd, world.now() + PATIENCE, |_, _, _| {});
    crowd.give_up();
    let mut verdicts = crowd.take_verdicts();
    verdicts.retain(|verdict| verdict.at >= begin);
    let (of_honest, of_riders): (Vec<Verdict>, Vec<Verdict>) = verdicts
        .into_iter()
        .partition(|verdict| honest(verdict.asker));
    let (honest_declined, riders_declined) = declined(world, honest);
    Found {
        row: "",
        policy: Policy::None,
        per_million,
        honest: Group::of(&of_honest),
        riders: Group::of(&of_riders),
        carried,
        honest_declined,
        riders_declined,
        trustworthy: self::honest(options, per_million).count() as u64,
    }
}

/// Lets time go by.
fn tell(
    world: &mut World<Member>,
    crowd: &mut Crowd,
    churn: &mut Churn,
    duration: Duration,
    progress: &mut impl FnMut(u32),
) {
    const PARTS: u32 = 50;
    let begin = world.now();
    for part in 1..=PARTS {
        churn.run_until(world, crowd, begin + duration * part / PARTS, |_, _, _| {});
        progress(part * 1000 / PARTS);
    }
}

/// Returns how many messages the honest have passed on for others.
fn carried(world: &World<Member>, honest: impl Fn(Index) -> bool) -> u64 {
    let honest = world.living().filter(|(index, _)| honest(*index));
    honest
        .map(|(_, member)| member.node.overlay().accounts().carried_messages())
        .sum()
}

/// Returns how many messages the honest living have declined: of honest nodes, of riders.
fn declined(world: &World<Member>, honest: impl Fn(Index) -> bool) -> (u64, u64) {
    let (mut of_honest, mut of_riders) = (0, 0);
    for (_, member) in world.living().filter(|(index, _)| honest(*index)) {
        for (id, account) in member.node.overlay().accounts().iter() {
            match world.index_of(id).is_some_and(&honest) {
                true => of_honest += account.declined_messages,
                false => of_riders += account.declined_messages,
            }
        }
    }
    (of_honest, of_riders)
}

fn figures(options: &Options, found: &[Found]) -> Figures {
    let mut figures = Figures::default();
    for (names, group) in [
        (
            ["honest_success", "honest_mean_ms", "honest_p99_ms"],
            Found::honest as Who,
        ),
        (
            ["riders_success", "riders_mean_ms", "riders_p99_ms"],
            Found::riders,
        ),
    ] {
        let [success, mean, p99] = names;
        let of = |one: &Found| ratio(group(one).correct, group(one).asked);
        figures.each(success, rows(found, of));
        let of = |one: &Found| mean_thousandths(&group(one).micros);
        figures.each(mean, rows(found, of));
        let of = |one: &Found| percentile(&group(one).micros, 99).map(millis);
        figures.each(p99, rows(found, of));
    }
    let of = |one: &Found| ratio(one.carried, one.trustworthy);
    figures.each("carried_per_honest_node", rows(found, of));
    let of = |one: &Found| ratio(one.honest_declined, 1);
    figures.each("declined_of_honest", rows(found, of));
    let of = |one: &Found| ratio(one.riders_declined, 1);
    figures.each("declined_of_riders", rows(found, of));
    figures.amount("median_round_trip_ms", Some(millis(round_trip(options))));
    figures
}

/// Whose lookups.
type Who = fn(&Found) -> &Group;

/// Tells one thing of every world; where it cannot be told it is left out.
fn rows<T>(found: &[Found], of: impl Fn(&Found) -> Option<T>) -> BTreeMap<&'static str, T> {
    let rows = found.iter();
    rows.filter_map(|one| Some((one.row, of(one)?))).collect()
}

fn round_trip(options: &Options) -> u64 {
    u64::try_from(options.median_round_trip().as_micros()).unwrap_or(u64::MAX)
}

fn picture(options: &Options, found: &[Found]) -> Picture {
    let panel = |title: &str, who: Who, y: Axis, of: fn(&Group) -> Option<u64>| Panel {
        title: title.to_owned(),
        x: Axis::new("free riders, %", 10_000).from(0),
        y,
        series: POLICIES
            .into_iter()
            .zip(["none", "trust", "reputation"])
            .map(|(policy, name)| {
                let worlds = found.iter().filter(|one| one.policy == policy);
                let points = worlds.filter_map(|one| Some((one.per_million.into(), of(who(one))?)));
                Series::new(name, Style::Line, points.collect())
            })
            .collect(),
    };
    let right = || Axis::new("correct, %", 10_000);
    let time = || Axis::new("mean time until the answer, ms", 1000).from(0);
    Picture {
        title: options.title("riders"),
        panels: vec![
            panel(
                "Lookups of the honest",
                Found::honest,
                right(),
                Group::correct_per_million,
            ),
            panel(
                "Lookups of the honest",
                Found::honest,
                time(),
                Group::mean_micros,
            ),
            panel(
                "Lookups of the riders",
                Found::riders,
                time(),
                Group::mean_micros,
            ),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nodes_come_and_go_hardly_anybody_is_declined() {
        let options = Options {
            nodes: 60,
            ..Options::default()
        };
        let config = config(&options, Policy::Reputation, BTreeSet::new());
        let mut world = world(&options, config, 0);
        grow::grow(&mut world, options.nodes, &mut |_| {});
        let mut crowd = Crowd::of(&mut world);
        let plan = Plan {
            session_mean: Duration::from_secs(3600),
            polite_per_million: 0,
            lookups_apart: Some(Duration::from_millis(300)),
        };
        let mut churn = Churn::new(&mut world, &crowd, plan, |_| false);
        tell(&mut world, &mut crowd, &mut churn, LEARNING, &mut |_| {});
        assert!(churn.deaths > 20, "{} died", churn.deaths);
        let carried = carried(&world, |_| true);
        assert!(carried > 1000);
        // Who loses three questions to the dead in a row looks bad until the next success.
        let (declined, _) = declined(&world, |_| true);
        assert!(declined * 500 < carried, "{declined} of {carried}");
    }
}
