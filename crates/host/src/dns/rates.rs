//! How often one source may ask: a bucket of tokens for each, filled steadily.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The most sources that are told apart; when there are more, the quiet ones are forgotten.
const SOURCES_MAX: usize = 4096;

/// What a source may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// Queries per second, in the long run.
    pub(super) per_second: f64,
    /// Queries at once.
    pub(super) burst: f64,
}

/// A member: more than any program of it asks.
pub(super) const MEMBER: Allowance = Allowance {
    per_second: 50.0,
    burst: 200.0,
};

/// This host, which may be a busy mail server.
pub(super) const HOST: Allowance = Allowance {
    per_second: 5_000.0,
    burst: 10_000.0,
};

/// How often each source has asked of late.
#[derive(Debug, Default)]
pub(super) struct Rates {
    sources: BTreeMap<IpAddr, Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Rates {
    /// Tells whether a source may ask now, and counts it.
    pub(super) fn take(&mut self, source: IpAddr, allowance: Allowance, now: Instant) -> bool {
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            self.forget_quiet(now);
        }
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            return false;
        }
        let full = Bucket {
            tokens: allowance.burst,
            at: now,
        };
        let bucket = self.sources.entry(source).or_insert(full);
        let gained = now.duration_since(bucket.at).as_secs_f64() * allowance.per_second;
        bucket.tokens = (bucket.tokens + gained).min(allowance.burst);
        bucket.at = now;
        let may = bucket.tokens >= 1.0;
        if may {
            bucket.tokens -= 1.0;
        }
        may
    }

    /// Forgets those whose buckets are full again.
    fn forget_quiet(&mut self, now: Instant) {
        let filled = Duration::from_secs_f64(MEMBER.burst / MEMBER.per_second);
        let recent = |bucket: &mut Bucket| now.duration_since(bucket.at) < filled;
        self.sources.retain(|_, bucket| recent(bucket));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_may_ask_at_its_rate_and_hinders_no_other() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let [noisy, quiet]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let mut taken = |source, times, at| {
            let at = start + Duration::from_millis(at);
            (0..times)
                .filter(|_| rates.take(source, MEMBER, at))
                .count()
        };
        assert_eq!(taken(noisy, 1_000, 0), 200);
        assert_eq!(taken(quiet, 10, 0), 10);
        assert_eq!(taken(noisy, 1_000, 1_000), 50);
    }

    #[test]
    fn sources_are_bounded() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        for number in 0..2 * SOURCES_MAX as u32 {
            rates.take(IpAddr::from(number.to_be_bytes()), MEMBER, start);
        }
        assert_eq!(rates.sources.len(), SOURCES_MAX);
        let later = start + Duration::from_secs(60);
        assert!(rates.take([10, 0, 0, 1].into(), MEMBER, later));
        assert_eq!(rates.sources.len(), 1);
    }
}
