//! Who knows whom, and since when.

use enishi_overlay::{NodeId, Time};

use super::channel;
use crate::plot::{Series, Style};
use crate::world::{Index, World};

/// By how many of those who are watched the share of whom they know is judged.
const SAMPLED_MAX: usize = 64;

/// Some members of a channel, and since when each of them knows all of some others.
#[derive(Debug)]
pub(super) struct Awareness {
    since: Time,
    watched: Vec<Watched>,
    whom: Vec<NodeId>,
    /// What share of them was known when: microseconds, and hundredths of a percent.
    shares: Vec<(u64, u64)>,
}

#[derive(Debug)]
struct Watched {
    index: Index,
    /// All before this one were known.
    missing: usize,
    /// After how long it knew all.
    micros: Option<u64>,
}

impl Awareness {
    pub(super) fn new(world: &World, since: Time, watched: &[Index], whom: &[Index]) -> Self {
        let each = watched.iter().map(|index| Watched {
            index: *index,
            missing: 0,
            micros: None,
        });
        Self {
            since,
            watched: each.collect(),
            whom: whom.iter().map(|index| world.id(*index)).collect(),
            shares: Vec::new(),
        }
    }

    /// Looks who knows all by now.
    pub(super) fn look(&mut self, world: &World) {
        let elapsed = world.now().since(self.since).as_micros() as u64;
        for watched in &mut self.watched {
            if watched.micros.is_none() && watched.knows_all(world, &self.whom) {
                watched.micros = Some(elapsed);
            }
        }
        self.sample(world);
    }

    /// Looks how many are known by now.
    pub(super) fn sample(&mut self, world: &World) {
        let elapsed = world.now().since(self.since).as_micros() as u64;
        let apart = self.watched.len().div_ceil(SAMPLED_MAX).max(1);
        let (mut known, mut all) = (0_u64, 0_u64);
        for watched in self.watched.iter().step_by(apart) {
            let Some((_, channel)) = channel(world, watched.index) else {
                continue;
            };
            let has = |id: &&NodeId| channel.member(**id).is_some();
            known += self.whom.iter().filter(has).count() as u64;
            all += self.whom.len() as u64;
        }
        let share = (known * 10_000).checked_div(all);
        self.shares.extend(share.map(|share| (elapsed, share)));
    }

    /// Tells whether each knows all, or has known all once.
    pub(super) fn is_over(&self) -> bool {
        self.watched.iter().all(|watched| watched.micros.is_some())
    }

    /// After how long each knew all, of those who did.
    pub(super) fn micros(&self) -> Vec<u64> {
        let times = self.watched.iter();
        times.filter_map(|watched| watched.micros).collect()
    }

    /// What share is known now, on average, in hundredths of a percent.
    pub(super) fn share(&self) -> Option<u64> {
        self.shares.last().map(|(_, share)| *share)
    }

    pub(super) fn series(self, name: &str) -> Series {
        Series::new(name, Style::Line, self.shares)
    }
}

impl Watched {
    /// Goes on from the first that was not known the last time; what it passes is looked at once
    /// more in the end, since members are forgotten too.
    fn knows_all(&mut self, world: &World, whom: &[NodeId]) -> bool {
        let Some((_, channel)) = channel(world, self.index) else {
            return false;
        };
        let is_missing = |id: &NodeId| channel.member(*id).is_none();
        let after = whom[self.missing..].iter().position(is_missing);
        let missing = after.map(|after| self.missing + after);
        let missing = missing.or_else(|| whom[..self.missing].iter().position(is_missing));
        self.missing = missing.unwrap_or(0);
        missing.is_none()
    }
}
