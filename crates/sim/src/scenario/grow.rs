//! Letting an overlay grow by the protocol alone.

use std::time::Duration;

use crate::participant::Participant;
use crate::world::{Index, World};

/// Between two births.
const BIRTHS_APART: Duration = Duration::from_millis(50);
/// How long the overlay is left alone after the last birth.
const SETTLING: Duration = Duration::from_secs(90);

/// Brings `nodes` to life, each through one drawn from those before it, and waits until
/// the overlay has settled. `progress` hears the share done, in thousandths.
pub(super) fn grow<P: Participant>(
    world: &mut World<P>,
    nodes: usize,
    progress: &mut impl FnMut(u32),
) {
    for born in 0..nodes {
        let bootstrap = (born > 0).then(|| inviter(world, born));
        world.spawn(bootstrap);
        world.run_for(BIRTHS_APART);
        progress((born * 1000 / nodes) as u32);
    }
    world.run_for(SETTLING);
}

/// Draws the node through which the next one joins, of those that it can reach: an
/// invitation that does not work is not used.
pub(super) fn inviter<P: Participant>(world: &mut World<P>, born: Index) -> Index {
    const TRIES: usize = 16;
    let mut via = world.any();
    for _ in 0..TRIES {
        if !world.is_broken(born, via) {
            break;
        }
        via = world.any();
    }
    via
}
