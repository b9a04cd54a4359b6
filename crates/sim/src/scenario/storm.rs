//! All nodes join at almost the same time; values are stored; some nodes crash at once.
//!
//! The story that `cargo xtask bench fifty` tells with real daemons, with the same names
//! for what is found.

use std::time::Duration;

use enishi_overlay::Time;

use super::values::Stored;
use super::{Options, Outcome, values};
use crate::oracle::Census;
use crate::statistics::{Results, rate, thousandths};
use crate::world::{Counters, World};

/// Between two looks.
const STEP: Duration = Duration::from_millis(100);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long what nodes send is measured, after as long a rest.
const QUIET_S: u64 = 60;
/// How many of a million die unless told.
const DEAD_PER_MILLION: u32 = 333_333;

/// What each node has sent until all have joined: how that is called.
const JOINING: [&str; 2] = ["joining_messages_per_node", "joining_bytes_per_node"];
/// What each one that lives has sent until all know their near neighbours again.
const HEALING: [&str; 2] = ["healing_messages_per_node", "healing_bytes_per_node"];

pub(super) fn run(options: &Options, progress: &mut impl FnMut(u32)) -> Outcome {
    let world = &mut options.world();
    let mut results = Results::default();
    let joined = join(world, options);
    progress(200);
    seconds(&mut results, "joined_after_s", joined.next);
    seconds(&mut results, "near_after_s", joined.near);
    let joining = world.counters();
    sent(&mut results, &JOINING, joining, options.nodes);

    let count = options
        .values
        .map_or(options.nodes, |values| values as usize);
    let stored = values::store(world, count);
    results.acknowledged = Some(stored.len() as u64);
    progress(400);
    let quiet = Duration::from_secs(QUIET_S);
    world.run_for(quiet);
    let before = world.counters();
    world.run_for(quiet);
    let said = since(world, before);
    results.bytes_per_second_per_node = rate(said.bytes, QUIET_S, options.nodes);
    let messages = rate(said.messages, QUIET_S, options.nodes);
    results
        .figures
        .amount("messages_per_second_per_node", messages);
    progress(600);

    let left = kill(world, options, &stored);
    results.without_holder = Some((stored.len() - left.len()) as u64);
    let (crashed, before) = (world.now(), world.counters());
    let whole = Wholeness::wait(world, crashed);
    let living = world.living().count();
    sent(&mut results, &HEALING, since(world, before), living);
    let replicated = wait(world, crashed, |world| {
        values::fully_replicated(world, &left)
    });
    seconds(&mut results, "whole_after_s", whole.next);
    seconds(&mut results, "near_again_after_s", whole.near);
    seconds(&mut results, "values_whole_after_s", replicated);
    progress(800);
    results.lost = Some(values::unreadable(world, &left) as u64);
    Outcome::new(world, results)
}

/// Lets all join through the first, evenly spread over the time that they get.
fn join(world: &mut World, options: &Options) -> Wholeness {
    let first = world.spawn(None);
    let since = world.now();
    let others = options.nodes - 1;
    for _ in 0..others {
        world.spawn(Some(first));
        world.run_for(options.joins_within / others as u32);
    }
    Wholeness::wait(world, since)
}

/// Kills a share of the nodes; returns the values of which a holder is left.
fn kill(world: &mut World, options: &Options, stored: &[Stored]) -> Vec<Stored> {
    let share = match options.dead_per_million {
        0 => DEAD_PER_MILLION,
        share => share,
    };
    // A third of fifty is seventeen, as where every third one is killed.
    let killed = (options.nodes as u64 * u64::from(share)).div_ceil(1_000_000);
    for _ in 0..killed.min(options.nodes as u64 - 1) {
        let victim = world.any();
        world.kill(victim);
    }
    let left = stored
        .iter()
        .filter(|value| values::holders(world, value.key) > 0);
    left.cloned().collect()
}

/// After how long the ring was whole; none when it was not in time.
struct Wholeness {
    /// All knew their true successors and predecessors.
    next: Option<Duration>,
    /// All knew all their true near neighbours, and no others.
    near: Option<Duration>,
}

impl Wholeness {
    fn wait(world: &mut World, since: Time) -> Self {
        let next = wait(world, since, |world| {
            Census::take(world).ring_gaps(world) == 0
        });
        let near = wait(world, since, |world| {
            Census::take(world).near_gaps(world) == 0
        });
        Self { next, near }
    }
}

/// Waits until something holds; returns how long that took from `since` on.
fn wait(world: &mut World, since: Time, holds: impl Fn(&World) -> bool) -> Option<Duration> {
    while !holds(world) {
        if world.now().since(since) >= PATIENCE {
            return None;
        }
        world.run_for(STEP);
    }
    Some(world.now().since(since))
}

/// Returns what was counted since then.
fn since(world: &World, before: Counters) -> Counters {
    let now = world.counters();
    Counters {
        inputs: now.inputs - before.inputs,
        lost: now.lost - before.lost,
        messages: now.messages - before.messages,
        bytes: now.bytes - before.bytes,
    }
}

/// Tells what each of so many nodes has sent.
fn sent(results: &mut Results, names: &[&'static str; 2], said: Counters, nodes: usize) {
    for (name, all) in names.iter().zip([said.messages, said.bytes]) {
        results.figures.share(name, all, nodes as u64);
    }
}

/// Turns a time into a figure in seconds.
fn seconds(results: &mut Results, name: &'static str, time: Option<Duration>) {
    let millis = time.map(|time| time.as_millis() as u64);
    results.figures.amount(name, millis.map(thousandths));
}
