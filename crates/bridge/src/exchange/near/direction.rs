//! How it goes upward, or downward: how long requests are, and when the way is lost.

use std::time::Duration;

use crate::Time;
use crate::exchange::Size;

/// A direction in which nothing has passed for this long needs another way.
const LOST_AFTER: Duration = Duration::from_secs(6);

/// The same, as a number of failures.
pub(super) const LOST_FAILURES: u32 = 6;

/// The wait after a first failure; it doubles with each other.
const PAUSE_MIN: Duration = Duration::from_millis(25);

/// The longest wait after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How it goes in one direction.
#[derive(Debug)]
pub(super) struct Direction {
    pub(super) size: Size,
    pub(super) failures: u32,
    since: Time,
    pub(super) pause: Time,
}

impl Direction {
    pub(super) fn new(bytes: usize, ceiling: usize) -> Self {
        Self {
            size: Size::new(bytes, ceiling),
            failures: 0,
            since: Time::ZERO,
            pause: Time::ZERO,
        }
    }

    pub(super) fn passed(&mut self, bytes: usize) {
        self.size.passed(bytes);
        self.failures = 0;
        self.pause = Time::ZERO;
    }

    /// Returns whether the way is lost.
    pub(super) fn failed(&mut self, now: Time) -> bool {
        if self.failures == 0 {
            self.since = now;
        }
        self.failures += 1;
        let pause = PAUSE_MIN * (1 << self.failures.min(10));
        self.pause = now + pause.min(PAUSE_MAX);
        self.failures >= LOST_FAILURES && now >= self.since + LOST_AFTER
    }
}
