//! Letting an overlay grow by the protocol alone.

use std::time::Duration;

use crate::participant::Participant;
use crate::world::World;

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
        let bootstrap = (born > 0).then(|| world.any());
        world.spawn(bootstrap);
        world.run_for(BIRTHS_APART);
        progress((born * 1000 / nodes) as u32);
    }
    world.run_for(SETTLING);
}
