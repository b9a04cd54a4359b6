//! A fifth of the nodes crashes at once while values are stored.

use std::time::Duration;

use super::values::Stored;
use super::{Options, Outcome, grow, routes, values};
use crate::oracle::Census;
use crate::statistics::{Results, mean, percentile, share};
use crate::world::World;

const VALUES_PER_NODE: usize = 1;
/// How long the ring and the replicas get; nobody waits longer.
const PATIENCE_S: u64 = 300;
const STEP: Duration = Duration::from_secs(1);

pub(super) fn run(options: &Options, progress: &mut impl FnMut(u32)) -> Outcome {
    let world = &mut options.world();
    grow::grow(world, options.nodes, &mut |done| progress(done * 5 / 10));
    let stored = values::store(world, options.nodes * VALUES_PER_NODE);
    progress(650);
    for _ in 0..options.nodes / 5 {
        let victim = world.any();
        world.kill(victim);
    }
    let (left, gone): (Vec<Stored>, Vec<Stored>) = stored
        .iter()
        .cloned()
        .partition(|stored| values::holders(world, stored.key) > 0);
    let (whole, replicated) = recover(world, &left);
    progress(800);
    let lost = values::unreadable(world, &left);
    let routes = routes::ask(world, options.routes);
    let results = Results {
        mean_hops: mean(&routes.hops),
        p99_hops: percentile(&routes.hops, 99),
        success: share(routes.succeeded(), routes.asked),
        acknowledged: Some(stored.len() as u64),
        lost: Some(lost as u64),
        without_holder: Some(gone.len() as u64),
        ring_whole_after_s: whole,
        replicated_after_s: replicated,
        ..Results::default()
    };
    Outcome::new(world, results)
}

/// Waits for the ring and the replicas; returns after how many seconds each was whole.
fn recover(world: &mut World, left: &[Stored]) -> (Option<u64>, Option<u64>) {
    let (mut whole, mut replicated) = (None, None);
    for second in 1..=PATIENCE_S {
        world.run_for(STEP);
        if whole.is_none() && Census::take(world).ring_gaps(world) == 0 {
            whole = Some(second);
        }
        if whole.is_some() && values::fully_replicated(world, left) {
            replicated = Some(second);
            break;
        }
    }
    (whole, replicated)
}
