//! Letting an overlay grow by the protocol alone.
//!
//! Each node brings others, so births are as frequent as nodes are many, and the time to
//! grow rises with the logarithm of their number: 100,000 nodes are there after four
//! minutes. Small overlays grow at a steady pace.

use std::time::Duration;

use crate::participant::Participant;
use crate::world::{Index, World};

/// Between two births at the steady pace.
const BIRTHS_APART: Duration = Duration::from_millis(50);
/// In how much time the overlay doubles once that is faster than the steady pace.
const DOUBLING: Duration = Duration::from_secs(25);
/// 1,000,000 times the natural logarithm of 2.
const LN_2_MILLIONTHS: u64 = 693_147;
/// How long a node has been there before others join through it; the first one at once.
const KNOWN_AFTER: Duration = Duration::from_secs(5);
/// How long the overlay is left alone after the last birth.
const SETTLING: Duration = Duration::from_secs(90);

/// Brings `nodes` to life in an empty world, each through one drawn from those that have
/// been there for a while, and waits until the overlay has settled. `progress` hears the
/// share done, in thousandths: three quarters are births.
pub(super) fn grow<P: Participant>(
    world: &mut World<P>,
    nodes: usize,
    progress: &mut impl FnMut(u32),
) {
    let mut births = Vec::with_capacity(nodes);
    let mut uninvited: Vec<Index> = Vec::new();
    let mut known = 0;
    for born in 0..nodes {
        let since = world.now() - KNOWN_AFTER;
        while known < born && (births[known] < since || known == 0) {
            known += 1;
        }
        births.push(world.now());
        let bootstrap = inviter(world, born, known, &uninvited);
        if bootstrap.is_none() && born > 0 {
            uninvited.push(born);
        }
        world.spawn(bootstrap);
        invite_late(world, known, &mut uninvited);
        world.run_for(pause(born as u64 + 1));
        progress((born * 750 / nodes) as u32);
    }
    invite_late(world, nodes, &mut uninvited);
    settle(world, SETTLING, &mut |done| progress(750 + done / 4));
}

/// Leaves the overlay alone for a time. `progress` hears the share done, in thousandths.
pub(super) fn settle<P: Participant>(
    world: &mut World<P>,
    time: Duration,
    progress: &mut impl FnMut(u32),
) {
    const PARTS: u32 = 100;
    let start = world.now();
    for part in 1..=PARTS {
        let until = start + time * part / PARTS;
        world.run_for(until.since(world.now()));
        progress(part * 1000 / PARTS);
    }
}

/// Gives those an invitation that could reach nobody known when they were born.
fn invite_late<P: Participant>(world: &mut World<P>, known: usize, uninvited: &mut Vec<Index>) {
    let waiting = uninvited.clone();
    for index in waiting {
        if let Some(via) = inviter(world, index, known, uninvited) {
            world.bootstrap(index, via);
            uninvited.retain(|other| *other != index);
        }
    }
}

/// Draws the node through which another joins, among the first `known` and of those that it
/// can reach: an invitation that does not work is not used, and whoever has none invites
/// nobody, or there would be two overlays. None when a few draws find nobody.
fn inviter<P: Participant>(
    world: &mut World<P>,
    newcomer: Index,
    known: usize,
    uninvited: &[Index],
) -> Option<Index> {
    const TRIES: usize = 16;
    let mut draws = (0..TRIES).filter(|_| known > 0);
    draws.find_map(|_| {
        let via = world.rng().below(known as u64) as usize;
        let works = via != newcomer && !world.is_broken(newcomer, via) && !uninvited.contains(&via);
        works.then_some(via)
    })
}

/// Returns the time until the next birth while so many are alive.
fn pause(alive: u64) -> Duration {
    let micros = DOUBLING.as_secs() * 1_000_000 * 1_000_000 / LN_2_MILLIONTHS / alive;
    BIRTHS_APART.min(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_overlays_grow_in_the_logarithm_of_their_size() {
        let time = |nodes: u64| (1..nodes).map(pause).sum::<Duration>();
        assert_eq!(time(501), Duration::from_secs(25));
        // At the steady pace 100,000 would take 83 minutes.
        assert!((200..230).contains(&time(100_000).as_secs()));
        let doubling = time(200_000) - time(100_000);
        assert!(
            doubling.abs_diff(DOUBLING) < Duration::from_millis(100),
            "{doubling:?}"
        );
    }
}
