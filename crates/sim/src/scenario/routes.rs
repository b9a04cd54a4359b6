//! Asking for the node in charge, and judging the answers.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::Position;
use enishi_services::{Command, Event, diag};

use crate::oracle::Census;
use crate::world::World;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(12);
/// How many questions are asked at one time.
const AT_ONCE: u64 = 500;

/// What came of many routes.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// How many were asked for.
    pub(super) asked: usize,
    /// Hops of those that ended at the node in charge; 0 at the asker itself.
    pub(super) hops: Vec<u64>,
    /// Microseconds until their answers.
    pub(super) micros: Vec<u64>,
}

impl Routes {
    pub(super) fn succeeded(&self) -> usize {
        self.hops.len()
    }
}

/// Asks `count` times from a drawn node for a drawn position.
pub(super) fn ask(world: &mut World, count: u64) -> Routes {
    let census = Census::take(world);
    let mut routes = Routes::default();
    for first in (0..count).step_by(AT_ONCE as usize) {
        let mut targets = BTreeMap::new();
        for id in first..count.min(first + AT_ONCE) {
            let target = Position::from_number(world.rng().number());
            let asker = world.any();
            targets.insert(id, target);
            routes.asked += 1;
            world.command(asker, Command::Diag(diag::Command::Trace { id, target }));
        }
        world.run_for(PATIENCE);
        for (_, _, event) in world.take_events() {
            let Event::Diag(diag::Event::Traced {
                id,
                end: Some((node, hops, time)),
            }) = event
            else {
                continue;
            };
            let Some(target) = targets.get(&id) else {
                continue;
            };
            let in_charge = census.nearest(*target, 1);
            if in_charge.first().copied() == world.index_of(node) {
                routes.hops.push(u64::from(hops));
                routes
                    .micros
                    .push(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
            }
        }
    }
    routes
}
