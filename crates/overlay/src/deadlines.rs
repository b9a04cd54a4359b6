//! Alarms: what has to happen when, at most one time for each purpose.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Time;

/// A set of alarms of a closed kind `A`, each set for one moment.
#[derive(Clone, Debug)]
pub struct Deadlines<A: Copy + Ord> {
    by_time: BTreeSet<(Time, A)>,
    by_alarm: BTreeMap<A, Time>,
}

impl<A: Copy + Ord> Default for Deadlines<A> {
    fn default() -> Self {
        Self {
            by_time: BTreeSet::new(),
            by_alarm: BTreeMap::new(),
        }
    }
}

impl<A: Copy + Ord> Deadlines<A> {
    /// Sets an alarm; an earlier setting of the same alarm is forgotten.
    pub fn set(&mut self, alarm: A, at: Time) {
        self.cancel(alarm);
        self.by_alarm.insert(alarm, at);
        self.by_time.insert((at, alarm));
    }

    /// Sets an alarm unless it is already set for an earlier time.
    pub fn set_no_later(&mut self, alarm: A, at: Time) {
        if self
            .by_alarm
            .get(&alarm)
            .is_none_or(|present| *present > at)
        {
            self.set(alarm, at);
        }
    }

    /// Forgets an alarm.
    pub fn cancel(&mut self, alarm: A) {
        if let Some(at) = self.by_alarm.remove(&alarm) {
            self.by_time.remove(&(at, alarm));
        }
    }

    /// Tells whether the alarm is set.
    pub fn is_set(&self, alarm: A) -> bool {
        self.by_alarm.contains_key(&alarm)
    }

    /// Takes the first alarm that is due at `now`.
    pub fn pop_due(&mut self, now: Time) -> Option<A> {
        let (at, alarm) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.cancel(alarm);
        Some(alarm)
    }

    /// Returns when the next alarm is due.
    pub fn next(&self) -> Option<Time> {
        self.by_time.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_has_one_time_and_fires_in_order() {
        let mut deadlines = Deadlines::default();
        deadlines.set('a', Time::from_secs(5));
        deadlines.set('b', Time::from_secs(3));
        deadlines.set('a', Time::from_secs(1));
        deadlines.set_no_later('a', Time::from_secs(9));
        assert_eq!(deadlines.next(), Some(Time::from_secs(1)));
        assert_eq!(deadlines.pop_due(Time::from_secs(4)), Some('a'));
        assert_eq!(deadlines.pop_due(Time::from_secs(4)), Some('b'));
        assert_eq!(deadlines.pop_due(Time::from_secs(4)), None);
        assert_eq!(deadlines.next(), None);
    }
}
