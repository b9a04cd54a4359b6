//! The dial: how much a node does for its tables, from leaf to full view.
//!
//! One number, [`Config::upkeep_bytes_per_s`], is what a node is to spend. It counts what it
//! sends for its own upkeep, and does more or less of it until that is in a band below the
//! budget, which leaves room for what others ask: one factor, the effort, says how many long
//! links it draws and, where there is less to spend than usual, how seldom peers hear what
//! changed in its view, and how seldom it asks for signs of life and looks for its own place. What the ring lives by is
//! not stretched: the two nearest neighbours are asked as ever, and near neighbours hear of
//! changes among them at once. So the least effort is a leaf, which keeps its neighbours and
//! draws no link, and the least upkeep what neighbours cost that come and go.
//!
//! Where little changes, the usual budget pays for up to three times the usual links, and a larger one
//! for as many times more: in a small overlay nearly every node is then in some peer's view, or
//! is a peer itself. More than links is never done: what is asked more often is not known better.
//!
//! [`Config::upkeep_bytes_per_s`]: crate::Config::upkeep_bytes_per_s

use std::time::Duration;

use crate::config::UPKEEP_BYTES_PER_S_USUAL;
use crate::time::Time;

/// The usual effort, with which periods are as long as they are called and links as many as
/// Symphony's paper finds worth their upkeep. All efforts are in these units.
pub(super) const USUAL: u64 = 256;
/// A leaf's.
const LEAST: u64 = USUAL / 8;
/// What no budget goes beyond.
const MOST: u64 = USUAL * 16;
/// How many looks a change of what is spent takes to be believed; how many to be made good by
/// more links, and by less of everything. Down it goes slowly: the comings and goings around a
/// node pass, and links that were given up have to be drawn again.
const LOOKS_AVERAGED: u64 = 32;
const LOOKS_UP: u64 = 8;
const LOOKS_DOWN: u64 = 64;
/// The first greetings are the price of a place on the ring and not of its upkeep.
const GREETING_TIME: Duration = Duration::from_secs(60);
/// Between which shares of the budget, in sixteenths, the effort is left as it is.
const BAND_16: (u64, u64) = (7, 14);
/// The shortest time between two looks.
const LOOK_MIN: Duration = Duration::from_secs(5);

/// How much is done for upkeep, and what it costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    budget_bytes_per_s: u64,
    effort: u64,
    /// What was spent on average, in thousandths of an octet per second.
    average_milli: u64,
    /// Octets sent since the last look.
    sent: u64,
    looked_at: Time,
    steered_from: Time,
}

impl Effort {
    pub(super) fn new(now: Time, budget_bytes_per_s: u32) -> Self {
        let budget = u64::from(budget_bytes_per_s);
        let guess = USUAL * budget / u64::from(UPKEEP_BYTES_PER_S_USUAL);
        Self {
            budget_bytes_per_s: budget,
            effort: guess.clamp(LEAST, most(budget)),
            average_milli: budget * 1000 * (BAND_16.0 + BAND_16.1) / 32,
            sent: 0,
            looked_at: now,
            steered_from: now + GREETING_TIME,
        }
    }

    /// Notes octets sent for upkeep.
    pub(super) fn spend(&mut self, octets: usize) {
        self.sent += octets as u64;
    }

    /// Compares what was spent with the budget and does a little more or less from now on.
    pub(super) fn look(&mut self, now: Time) {
        let time = now.since(self.looked_at);
        if time < LOOK_MIN {
            return;
        }
        let sent = std::mem::take(&mut self.sent);
        self.looked_at = now;
        if now < self.steered_from {
            return;
        }
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let sample_milli = sent.saturating_mul(1_000_000) / millis.max(1);
        let weighted = self.average_milli * (LOOKS_AVERAGED - 1) + sample_milli;
        self.average_milli = weighted / LOOKS_AVERAGED;
        let budget_milli = (self.budget_bytes_per_s * 1000).max(1);
        let (low, high) = (
            budget_milli * BAND_16.0 / 16,
            (budget_milli * BAND_16.1 / 16).max(1),
        );
        // A step up or down, in proportion to what is missing or too much.
        let step = |apart: u64, looks: u64| {
            let apart = apart.min(budget_milli);
            (self.effort * apart / budget_milli / looks).max(1)
        };
        let next = match self.average_milli {
            average if average > high => {
                self.effort.saturating_sub(step(average - high, LOOKS_DOWN))
            }
            average if average < low => self.effort + step(low - average, LOOKS_UP),
            _ => self.effort,
        };
        self.effort = next.clamp(
            least(self.budget_bytes_per_s),
            most(self.budget_bytes_per_s),
        );
    }

    /// Returns how many links are drawn where usually `usual` are; a leaf draws none.
    pub(super) fn links(&self, usual: u32) -> u32 {
        if self.effort <= LEAST {
            return 0;
        }
        let links = u64::from(usual) * self.effort;
        links.div_ceil(USUAL).try_into().unwrap_or(u32::MAX)
    }

    /// Returns how many links are kept: a few more than are drawn, so that a small change of
    /// the effort costs no link.
    pub(super) fn links_kept(&self, usual: u32) -> u32 {
        self.links(usual) + self.links(usual).div_ceil(2)
    }

    /// Returns what usually is a number of rounds or changes, at least 1.
    pub(super) fn stretched(&self, usual: u32) -> u32 {
        let stretched = u64::from(usual) * USUAL / self.effort.min(USUAL);
        stretched.max(1).try_into().unwrap_or(u32::MAX)
    }

    /// Returns how long to wait for what is due after a period usually.
    pub(super) fn stretched_time(&self, usual: Duration) -> Duration {
        usual * USUAL as u32 / self.effort.min(USUAL) as u32
    }
}

/// Returns the least effort that a budget asks for. Others can make a node spend, by lies
/// and by dying: it does less then, but it does not give up its links for them.
fn least(budget_bytes_per_s: u64) -> u64 {
    let share = USUAL * budget_bytes_per_s / u64::from(UPKEEP_BYTES_PER_S_USUAL);
    (share * 3 / 4).clamp(LEAST, USUAL)
}

/// Returns the most effort that a budget allows.
fn most(budget_bytes_per_s: u64) -> u64 {
    let share = USUAL * budget_bytes_per_s / u64::from(UPKEEP_BYTES_PER_S_USUAL);
    (share * 3).clamp(USUAL, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_secs(23);

    /// Lets time go by for a node whose upkeep costs `fixed` octets per second whatever it
    /// does, and `usual` more with the usual effort; returns what it spends in the end.
    fn spends(budget: u32, fixed: u64, usual: u64) -> (u64, Effort) {
        let mut now = Time::ZERO;
        let mut effort = Effort::new(now, budget);
        let mut spent = Vec::new();
        for _ in 0..3000 {
            now = now + LOOK;
            let rate = fixed + usual * effort.effort / USUAL;
            effort.spend((rate * LOOK.as_secs()) as usize);
            effort.look(now);
            spent.push(rate);
        }
        (*spent.last().unwrap(), effort)
    }

    #[test]
    fn what_is_spent_comes_to_the_budget() {
        for (budget, fixed, usual) in [(20, 2, 40), (40, 5, 35), (100, 10, 60), (400, 10, 60)] {
            let (spent, _) = spends(budget, fixed, usual);
            let share = |sixteenths| u64::from(budget) * sixteenths / 16;
            let band = share(BAND_16.0) - 1..=share(BAND_16.1) + 2;
            assert!(band.contains(&spent), "{spent}");
        }
    }

    #[test]
    fn the_effort_keeps_its_bounds() {
        let (spent, leaf) = spends(0, 10, 80);
        assert_eq!((spent, leaf.links(3), leaf.links(8)), (20, 0, 0));
        assert_eq!(leaf.stretched(4), 32);
        // What costs little is not done without end, and nothing more often than usual.
        let (_, idle) = spends(UPKEEP_BYTES_PER_S_USUAL, 0, 1);
        assert_eq!((idle.links(3), idle.stretched(4)), (9, 4));
        let (_, full) = spends(5 * UPKEEP_BYTES_PER_S_USUAL, 0, 1);
        assert_eq!((full.links(3), full.stretched(4)), (45, 4));
        assert_eq!(full.stretched_time(LOOK), LOOK);
    }

    #[test]
    fn the_first_greetings_do_not_count() {
        let mut effort = Effort::new(Time::ZERO, UPKEEP_BYTES_PER_S_USUAL);
        effort.spend(20_000);
        effort.look(Time::ZERO + LOOK);
        effort.look(Time::ZERO + LOOK + LOOK);
        assert_eq!(effort.effort, USUAL);
    }
}
