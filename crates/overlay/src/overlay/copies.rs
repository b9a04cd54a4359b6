//! How many copies of messages a node sends besides the first.
//!
//! A copy is cheap where one node has died, and the ruin of a network whose nodes are all slow at
//! the same time: each is silent to the others, each silence begets copies, and the copies keep the
//! nodes slow after what began it has passed. So copies have a budget that does not grow with them:
//! some each second, and some for each message that comes by for the first time. (B. Beyer et al.,
//! *Site Reliability Engineering*, O'Reilly 2016, chapter 22, "Retries"; Finagle's `RetryBudget`
//! allows ten each second and one for five first tries.) Each copy makes some hops more, and each of
//! them is confirmed, so one a second at each node is ten messages a second at each node. Without
//! budget a node waits, and what comes to it again it does not pass on.

use crate::time::Time;

/// How many copies a second.
const PER_S: u64 = 2;
/// For how many messages one copy.
const FOR_MESSAGES: u64 = 5;
/// How many copies that were not sent are saved: enough for what waits when several neighbours die
/// at once.
const SAVED_MAX: u64 = 64;
/// What one copy is, in the unit of [`Copies::left`].
const COPY: u64 = 1_000_000;

/// What is left of the budget.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copies {
    /// In millionths: a rate per second is then so many per microsecond.
    left: u64,
    filled_at: Time,
}

impl Copies {
    pub(super) fn new(now: Time) -> Self {
        Self {
            left: SAVED_MAX * COPY,
            filled_at: now,
        }
    }

    /// A message came by for the first time, or is this node's own.
    pub(super) fn earn(&mut self) {
        self.left = (self.left + COPY / FOR_MESSAGES).min(SAVED_MAX * COPY);
    }

    /// Takes one copy, if there is one left.
    pub(super) fn take(&mut self, now: Time) -> bool {
        let micros = u64::try_from(now.since(self.filled_at).as_micros()).unwrap_or(u64::MAX);
        let more = micros.saturating_mul(PER_S);
        self.left = self.left.saturating_add(more).min(SAVED_MAX * COPY);
        self.filled_at = now;
        let taken = self.left >= COPY;
        if taken {
            self.left -= COPY;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn copies_do_not_grow_with_copies() {
        let mut copies = Copies::new(Time::ZERO);
        let taken = |copies: &mut Copies, now| (0..10_000).filter(|_| copies.take(now)).count();
        assert_eq!(taken(&mut copies, Time::ZERO), 64);
        (0..10).for_each(|_| copies.earn());
        assert_eq!(taken(&mut copies, Time::ZERO), 2);
        let later = Time::ZERO + Duration::from_secs(2);
        assert_eq!(taken(&mut copies, later), 4);
        assert_eq!(taken(&mut copies, later + Duration::from_secs(3600)), 64);
    }
}
