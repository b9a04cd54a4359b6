//! How long frames of one direction are.

use crate::{FRAME_BYTES_FLOOR, FRAME_BYTES_MAX};

/// How many long frames must pass before longer ones are tried, after growth never failed.
const RIPE_MIN: u32 = 8;

/// The same where longer ones are known not to have passed.
const RIPE_FOUND: u32 = 64;

/// The same, after growth failed often.
const RIPE_MAX: u32 = 512;

/// A length in octets that is halved when it does not pass, and grows when it does.
#[derive(Clone, Debug)]
pub struct Size {
    now: usize,
    ceiling: usize,
    passed: u32,
    ripe: u32,
}

impl Size {
    /// Begins with `now`, found by trial, and stays at or below `ceiling`; neither is less than
    /// [`FRAME_BYTES_FLOOR`] or more than [`FRAME_BYTES_MAX`].
    #[must_use]
    pub fn new(now: usize, ceiling: usize) -> Self {
        let ceiling = ceiling.clamp(FRAME_BYTES_FLOOR, FRAME_BYTES_MAX);
        let now = now.clamp(FRAME_BYTES_FLOOR, ceiling);
        let ripe = if now < ceiling { RIPE_FOUND } else { RIPE_MIN };
        Self {
            now,
            ceiling,
            passed: 0,
            ripe,
        }
    }

    /// Returns the length that frames may have.
    #[must_use]
    pub fn now(&self) -> usize {
        self.now
    }

    /// A frame of `bytes` octets passed. Short ones say nothing.
    pub fn passed(&mut self, bytes: usize) {
        if bytes < self.now / 2 {
            return;
        }
        self.passed += 1;
        if self.passed >= self.ripe {
            self.passed = 0;
            self.now = self.ceiling.min(self.now * 2);
        }
    }

    /// A frame of `bytes` octets did not pass. Returns whether a shorter one can be tried.
    pub fn refused(&mut self, bytes: usize) -> bool {
        let before = self.now;
        if bytes <= before {
            self.now = (bytes / 2).max(FRAME_BYTES_FLOOR);
            self.passed = 0;
            self.ripe = RIPE_MAX.min(self.ripe * 2);
        }
        bytes > FRAME_BYTES_FLOOR
    }

    /// Stays below `ceiling` from now on.
    pub fn limit(&mut self, ceiling: usize) {
        self.ceiling = ceiling.clamp(FRAME_BYTES_FLOOR, FRAME_BYTES_MAX);
        self.now = self.now.min(self.ceiling);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `frames` do not pass where only `limit` octets do.
    fn refused(limit: usize, frames: usize) -> usize {
        let mut size = Size::new(FRAME_BYTES_MAX, FRAME_BYTES_MAX);
        let refused = |_: &usize| {
            let bytes = size.now();
            if bytes > limit {
                size.refused(bytes);
            } else {
                size.passed(bytes);
            }
            bytes > limit
        };
        (0..frames).filter(refused).count()
    }

    #[test]
    fn the_length_that_passes_is_found_and_seldom_left() {
        for limit in [1_500, 4_096, 50_000, FRAME_BYTES_MAX] {
            assert!(refused(limit, 10_000) < 40, "{limit}");
        }
    }

    #[test]
    fn short_frames_do_not_make_longer_ones() {
        let mut size = Size::new(8_000, FRAME_BYTES_MAX);
        (0..1_000).for_each(|_| size.passed(100));
        assert_eq!(size.now(), 8_000);
        (0..RIPE_FOUND).for_each(|_| size.passed(8_000));
        assert_eq!(size.now(), 16_000);
    }
}
