//! Asking for the node in charge, and judging the answers.

use std::time::Duration;

use enishi_overlay::Position;
use enishi_services::{Command, Event, diag};

use crate::oracle::Census;
use crate::world::{Index, World};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(12);
/// How many questions are asked at one time.
const AT_ONCE: usize = 500;
/// In large overlays, one of so many nodes asks at one time.
const ASKERS_AT_ONCE: usize = 20;

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

/// A question: who asks, and for what.
pub(super) type Question = (Index, Position);

/// Draws so many questions from drawn nodes for drawn positions.
pub(super) fn draw(world: &mut World, count: u64) -> Vec<Question> {
    let mut question = |_| {
        let target = Position::from_number(world.rng().number());
        (world.any(), target)
    };
    (0..count).map(&mut question).collect()
}

/// Asks `count` times from a drawn node for a drawn position.
pub(super) fn ask(world: &mut World, count: u64) -> Routes {
    let questions = draw(world, count);
    put(world, &questions)
}

/// Puts questions, and judges the answers.
pub(super) fn put(world: &mut World, questions: &[Question]) -> Routes {
    let census = Census::take(world);
    let at_once = AT_ONCE.max(census.len() / ASKERS_AT_ONCE);
    let mut routes = Routes::default();
    for questions in questions.chunks(at_once) {
        // No two batches begin within a second, so a late answer never meets another question.
        let first = world.now().as_micros();
        for (id, (asker, target)) in (first..).zip(questions) {
            let (asker, target) = (*asker, *target);
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
            let Some((_, target)) = questions.get(id.wrapping_sub(first) as usize) else {
                continue;
            };
            let in_charge = census.nearest(*target, 1);
            if in_charge.first().copied() == world.index_of(node) {
                routes.hops.push(u64::from(hops));
                let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
                routes.micros.push(micros);
            }
        }
    }
    routes
}
