//! Nodes come and go all the time, and values have to stay.
//!
//! Values are stored under names that differ in their last digits only. Then half of
//! their owners leave for good, so that only the holders are left to keep their values;
//! the other half stays to the end and puts again as the protocol has it. All other nodes
//! come and go. A value is lost when its last holder dies though fewer than all replicas
//! had died within the time that repair takes ([`REPAIR`]), or when it cannot be read at
//! the end though someone holds it. At the end popular values are read more often.
//!
//! Both loads, of records and of readings, are told beside what they would be without skew:
//! of as many random names, each on the six living nodes nearest to it, and of as many
//! readings of values drawn evenly.

mod load;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use enishi_overlay::{Keypair, Rng, Time};
use enishi_services::Node;
use enishi_services::dht::REPLICAS;
use enishi_services::record::Key;

use self::load::Served;
use super::churn::{Churn, Plan, difference};
use super::crowd::Crowd;
use super::values::{self, Stored};
use super::{Options, Outcome, grow};
use crate::plot::{Axis, Panel, Picture, Series, Style};
use crate::statistics::{
    Figures, Results, mean, mean_thousandths, peak_to_mean, per_second, percentile, quotient,
    ratio, turnover,
};
use crate::world::{Index, Traffic, World};

/// How long the measured part lasts if nothing else is asked for.
const DURATION: Duration = Duration::from_secs(86_400);
/// How long the lease lasts beyond that.
const LEASE_BEYOND_S: u64 = 86_400;
/// The longest lease that holders accept.
const LEASE_S_MAX: u64 = 31 * 86_400;
/// Within this time a death among the holders is found out and its values are copied: two
/// questions after the longest round of the 13-second period, and the comparison.
const REPAIR: Duration = Duration::from_secs(60);
/// One owner for so many nodes: half of them leave at once, and that should not take all
/// holders of a value with it.
const NODES_PER_OWNER: usize = 5;
/// Into how many parts the time is divided.
const PARTS: u32 = 96;
/// The interval with which the owner's doubling ones are compared: the first of them.
const FIXED_INTERVAL: Duration = Duration::from_secs(60);
/// What holders send each other to keep values.
const REPAIR_SORTS: [&str; 7] = [
    "dht store",
    "dht store reply",
    "dht fetch",
    "dht fetch reply",
    "dht compare",
    "dht want",
    "dht records",
];

/// What owners and nodes in charge say when values are put again, but for the copies.
const REPUT_SORTS: [&str; 4] = [
    "routed, service",
    "answer, service",
    "dht put",
    "dht put reply",
];

/// What is known about a value from above.
#[derive(Debug)]
struct Watched {
    /// When holders of it died lately.
    deaths: Vec<Time>,
    /// How it went, if it did: whether repair had no chance.
    gone: Option<bool>,
}

/// The values from above, by their keys.
type Watch = BTreeMap<Key, Watched>;

/// What was measured over time.
#[derive(Debug, Default)]
struct Course {
    /// Seconds, and what was the case then.
    least_holders: Vec<(u64, u64)>,
    /// In thousandths.
    mean_holders: Vec<(u64, u64)>,
    lost: Vec<(u64, u64)>,
    without_holder: Vec<(u64, u64)>,
    /// Octets held by each node on average.
    held: Vec<u64>,
    traffic: Traffic,
}

pub(super) fn run(options: &Options, progress: &mut impl FnMut(u32)) -> Outcome {
    let mut world = options.world();
    let duration = options.duration.unwrap_or(DURATION);
    grow::grow(&mut world, options.nodes, &mut |done| progress(done / 10));
    let mut crowd = Crowd::of(&mut world);
    let stored = store(&mut world, options, duration);
    let owners: BTreeSet<Index> = stored.iter().map(|stored| stored.putter).collect();
    let (gone, stay): (Vec<Index>, Vec<Index>) = owners.iter().partition(|i| *i % 2 == 0);
    for owner in gone {
        crowd.remove(&mut world, owner, false);
        crowd.spawn(&mut world);
    }
    progress(130);
    let plan = Plan {
        session_mean: options.session_mean,
        polite_per_million: options.polite_per_million,
        lookups_apart: None,
    };
    let stays: BTreeSet<Index> = stay.into_iter().collect();
    let mut churn = Churn::new(&mut world, &crowd, plan, |index| stays.contains(&index));
    let mut watch: Watch = stored
        .iter()
        .map(|stored| (stored.key, Watched::new()))
        .collect();
    let mut done = |part: u32| progress(130 + 800 * part / PARTS);
    let course = keep(
        &mut world,
        &mut crowd,
        &mut churn,
        (&mut watch, duration),
        &mut done,
    );
    let figures = judge(
        &mut world,
        &crowd,
        options,
        (&stored, &stays, &watch),
        (&course, duration),
    );
    let picture = picture(options, &world, &crowd, &course);
    Outcome::new(&world, figures).showing(picture)
}

/// Stores values under successive names; returns those acknowledged.
fn store(world: &mut World, options: &Options, duration: Duration) -> Vec<Stored> {
    let count = options.values.unwrap_or((options.nodes as u64 / 5).max(20));
    let lease_s = (duration.as_secs() + LEASE_BEYOND_S).min(LEASE_S_MAX) as u32;
    let writer = |_: &mut Rng, number| {
        let name = format!("office/room/{number:08}");
        Keypair::from_seed(&blake3::derive_key(
            "enishi 1 simulated name",
            name.as_bytes(),
        ))
    };
    let owners = (options.nodes / NODES_PER_OWNER).max(2);
    let owners: Vec<Index> = (0..owners).map(|_| world.any()).collect();
    let putter = |world: &mut World| owners[world.rng().below(owners.len() as u64) as usize];
    values::store_as(world, count as usize, lease_s, writer, putter)
}

impl Watched {
    const fn new() -> Self {
        Self {
            deaths: Vec::new(),
            gone: None,
        }
    }
}

/// Lets nodes come and go for a time, and looks after each part what has become of the
/// values.
fn keep(
    world: &mut World,
    crowd: &mut Crowd,
    churn: &mut Churn,
    (watch, duration): (&mut Watch, Duration),
    done: &mut impl FnMut(u32),
) -> Course {
    let (start, before) = (world.now(), world.traffic());
    let mut course = Course::default();
    for part in 1..=PARTS {
        let until = start + duration * part / PARTS;
        churn.run_until(world, crowd, until, |world, crowd, index| {
            mourn(world, crowd, watch, index);
        });
        course.note(world, crowd, watch, world.now().since(start));
        done(part);
    }
    course.traffic = difference(&world.traffic(), &before);
    course
}

/// Notes, right before a node dies, which values lose a holder, and which the last one.
fn mourn(world: &World, crowd: &Crowd, watch: &mut Watch, index: Index) {
    let Some(node) = world.node(index) else {
        return;
    };
    let now = world.now();
    let all = enishi_overlay::Arc::ALL;
    for (_, held) in node.dht().store().on_arc(all) {
        let key = held.record().key();
        let Some(watched) = watch.get_mut(&key) else {
            continue;
        };
        watched.deaths.retain(|died| now.since(*died) < REPAIR);
        watched.deaths.push(now);
        if watched.gone.is_none() && !held_by_another(world, crowd, key, index) {
            watched.gone = Some(watched.deaths.len() >= REPLICAS);
        }
    }
}

fn held_by_another(world: &World, crowd: &Crowd, key: Key, index: Index) -> bool {
    // One that is in charge mostly has it, which saves asking everyone.
    let in_charge = crowd.in_charge::<Node>(key.position());
    let other = |holder: Index| holder != index && values::holds(world, holder, key);
    in_charge.is_some_and(other) || world.living().any(|(holder, _)| other(holder))
}

impl Course {
    fn note(&mut self, world: &World, crowd: &Crowd, watch: &Watch, since: Duration) {
        let mut holders: BTreeMap<Key, u64> = watch.keys().map(|key| (*key, 0)).collect();
        for (_, node) in world.living() {
            for (_, held) in node.dht().store().on_arc(enishi_overlay::Arc::ALL) {
                if let Some(count) = holders.get_mut(&held.record().key()) {
                    *count += 1;
                }
            }
        }
        let at = since.as_secs();
        let count = |how: bool| watch.values().filter(|w| w.gone == Some(how)).count() as u64;
        let sum: u64 = holders.values().sum();
        let mean = sum * 1000 / (holders.len() as u64).max(1);
        self.least_holders
            .push((at, holders.values().min().copied().unwrap_or(0)));
        self.mean_holders.push((at, mean));
        self.lost.push((at, count(false)));
        self.without_holder.push((at, count(true)));
        let bytes: u64 = world
            .living()
            .map(|(_, node)| node.dht().store().bytes())
            .sum();
        self.held.push(bytes / (crowd.len() as u64).max(1));
    }
}

/// Reads everything, and tells what was found.
fn judge(
    world: &mut World,
    crowd: &Crowd,
    options: &Options,
    (stored, stays, watch): (&[Stored], &BTreeSet<Index>, &Watch),
    (course, duration): (&Course, Duration),
) -> Results {
    let gone = |stored: &&Stored| watch.get(&stored.key).is_none_or(|w| w.gone.is_some());
    let (_, left): (Vec<&Stored>, Vec<&Stored>) = stored.iter().partition(gone);
    let loads = load::records(world, crowd);
    let by_random_names = load::records_by_random_names(world, left.len());
    let reader = |world: &mut World| crowd.any(world).unwrap_or_default();
    let unreadable = values::unread(world, &left, reader) as u64;
    let served = Served::measure(world, crowd, options, &left);
    let count = |how: bool| watch.values().filter(|w| w.gone == Some(how)).count() as u64;
    let mut figures = Figures::default();
    figures.count("unreadable", unreadable);
    figures.count(
        "least_holders",
        course.least_holders.iter().map(|p| p.1).min().unwrap_or(0),
    );
    let means: Vec<u64> = course.mean_holders.iter().map(|point| point.1).collect();
    figures.amount("mean_holders", mean_thousandths(&means));
    traffic(&mut figures, options, course, duration);
    let kept = stored
        .iter()
        .filter(|stored| stays.contains(&stored.putter))
        .count() as u64;
    let puts = course
        .traffic
        .get("dht put")
        .map_or(0, |tally| tally.messages);
    figures.amount("reputs_per_value", ratio(puts, kept));
    let fixed = duration.as_secs() / FIXED_INTERVAL.as_secs();
    figures.count("reputs_per_value_at_fixed_60_s", fixed);
    let sorts = REPUT_SORTS.iter();
    let reput = sorts.filter_map(|sort| course.traffic.get(sort));
    let reput: u64 = reput.map(|tally| tally.bytes).sum();
    let spent = per_second(reput, duration, options.nodes as u64);
    figures.amount("reput_bytes_per_second_per_node", spent);
    let times = ratio(fixed * kept, puts);
    let at_fixed = spent.zip(times).map(|(spent, times)| spent * times);
    figures.amount("reput_bytes_per_second_per_node_at_fixed_60_s", at_fixed);
    figures.amount("records_per_node_mean", mean(&loads));
    for (p99, most, loads) in [
        (
            "records_per_node_p99",
            "records_per_node_max_to_mean",
            &loads,
        ),
        (
            "records_per_node_p99_random_names",
            "records_per_node_max_to_mean_random_names",
            &by_random_names,
        ),
    ] {
        figures.count(p99, percentile(loads, 99).unwrap_or(0));
        figures.amount(most, peak_to_mean(loads));
    }
    figures.share("gets_right", options.routes - served.missed, options.routes);
    figures.amount(
        "messages_per_get",
        ratio(served.popular.iter().sum(), options.routes),
    );
    figures.amount(
        "messages_under_gets_max_to_mean",
        peak_to_mean(&served.popular),
    );
    figures.amount(
        "messages_under_even_gets_max_to_mean",
        peak_to_mean(&served.even),
    );
    Results {
        acknowledged: Some(stored.len() as u64),
        lost: Some(count(false) + unreadable),
        without_holder: Some(count(true)),
        figures,
        ..Results::default()
    }
}

/// Tells what keeping the values cost, beside what copying everything that dies costs at
/// least.
fn traffic(figures: &mut Figures, options: &Options, course: &Course, duration: Duration) {
    let nodes = options.nodes as u64;
    let sorts = REPAIR_SORTS
        .iter()
        .filter_map(|sort| course.traffic.get(sort));
    let repair: u64 = sorts.map(|tally| tally.bytes).sum();
    let all: u64 = course.traffic.values().map(|tally| tally.bytes).sum();
    let repair = per_second(repair, duration, nodes);
    let held = mean(&course.held);
    let bound = turnover(&course.held, options.session_mean);
    figures.amount("repair_bytes_per_second_per_node", repair);
    figures.amount("repair_bound_bytes_per_second_per_node", bound);
    figures.amount("repair_to_bound", quotient(repair, bound));
    figures.amount(
        "bytes_per_second_per_node",
        per_second(all, duration, nodes),
    );
    figures.amount("bytes_held_per_node", held);
    let each = REPAIR_SORTS.iter().filter_map(|sort| {
        let tally = course.traffic.get(sort)?;
        Some((*sort, per_second(tally.bytes, duration, nodes)?))
    });
    figures.each("bytes_by_message", each.collect());
}

fn picture(options: &Options, world: &World, crowd: &Crowd, course: &Course) -> Picture {
    let time = || Axis::new("time, hours", 3600).from(0);
    let line = |name: &str, points: &[(u64, u64)]| Series::new(name, Style::Steps, points.to_vec());
    let least = course
        .least_holders
        .iter()
        .map(|(at, count)| (*at, count * 1000));
    let least: Vec<(u64, u64)> = least.collect();
    Picture {
        title: options.title("storage"),
        panels: vec![
            Panel {
                title: "Holders of a value".into(),
                x: time(),
                y: Axis::new("living holders", 1000).from(0),
                series: vec![line("mean", &course.mean_holders), line("least", &least)],
            },
            Panel {
                title: "Values without any holder".into(),
                x: time(),
                y: Axis::new("values so far", 1).from(0),
                series: vec![
                    line("lost", &course.lost),
                    line("all replicas died at once", &course.without_holder),
                ],
            },
            Panel {
                title: "Load, of names that differ in their last digits only".into(),
                x: Axis::new("records held", 1).from(0),
                y: Axis::new("nodes", 1).from(0),
                series: vec![Series::histogram("nodes", load::records(world, crowd))],
            },
        ],
    }
}
