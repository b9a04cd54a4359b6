//! A token bucket: how often something may happen.

use enishi_overlay::Time;

/// What one token is, in millionths: a rate per second is then tokens per microsecond.
const TOKEN: u64 = 1_000_000;

/// How often something may happen: `per_s` times a second in the long run, `burst` times at
/// once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) per_s: u32,
    pub(crate) burst: u32,
}

/// What is left of a [`Rate`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    left: u64,
    filled_at: Time,
}

impl Bucket {
    /// Makes a full one.
    pub(crate) fn full(rate: Rate, now: Time) -> Self {
        Self {
            left: u64::from(rate.burst) * TOKEN,
            filled_at: now,
        }
    }

    /// Returns when it was last looked into.
    pub(crate) fn filled_at(&self) -> Time {
        self.filled_at
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, rate: Rate, now: Time) -> bool {
        let micros = u64::try_from(now.since(self.filled_at).as_micros()).unwrap_or(u64::MAX);
        let added = micros.saturating_mul(rate.per_s.into());
        self.left = (self.left.saturating_add(added)).min(u64::from(rate.burst) * TOKEN);
        self.filled_at = now;
        let taken = self.left >= TOKEN;
        if taken {
            self.left -= TOKEN;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let rate = Rate {
            per_s: 10,
            burst: 3,
        };
        let mut bucket = Bucket::full(rate, Time::ZERO);
        let taken = |bucket: &mut Bucket, now| (0..20).filter(|_| bucket.take(rate, now)).count();
        assert_eq!(taken(&mut bucket, Time::ZERO), 3);
        let later = Time::ZERO + Duration::from_millis(250);
        assert_eq!(taken(&mut bucket, later), 2);
        assert_eq!(taken(&mut bucket, later + Duration::from_secs(3600)), 3);
    }
}
