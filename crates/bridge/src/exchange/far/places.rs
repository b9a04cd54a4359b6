//! What one address has used of what it may.

use std::time::Duration;

use crate::Time;

/// What one address has used.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) sessions: usize,
    pub(super) openings: Bucket,
    pub(super) probe_bytes: Bucket,
}

impl Place {
    /// Returns whether forgetting the address changes nothing.
    pub(super) fn is_fresh(&self, now: Time) -> bool {
        self.openings.is_full(now) && self.probe_bytes.is_full(now)
    }
}

/// So much at once, and so much each second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    capacity: u32,
    per_s: u32,
    left: u32,
    at: Time,
}

impl Bucket {
    pub(super) fn new(now: Time, capacity: u32, per_s: u32) -> Self {
        Self {
            capacity,
            per_s,
            left: capacity,
            at: now,
        }
    }

    pub(super) fn take(&mut self, now: Time, amount: u32) -> bool {
        let seconds = now.saturating_sub(self.at).as_secs();
        if seconds > 0 {
            self.at += Duration::from_secs(seconds);
            let more = u64::from(self.per_s).saturating_mul(seconds);
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            self.left = self.capacity.min(self.left.saturating_add(more));
        }
        let enough = self.left >= amount;
        if enough {
            self.left -= amount;
        }
        enough
    }

    pub(super) fn is_full(mut self, now: Time) -> bool {
        self.take(now, 0);
        self.left == self.capacity
    }
}
