//! Alarms: what has to happen when, at most one time for each purpose.

use crate::time::Time;

/// A set of alarms of a closed kind `A`, each set for one moment.
///
/// Made for the few dozen alarms that a node has: an alarm is found by binary search, and
/// putting one in moves the others; to find the next one all are looked at, once after
/// each change. A thousand alarms still take about a microsecond.
#[derive(Clone, Debug)]
pub struct Deadlines<A: Copy + Ord> {
    /// By alarm.
    alarms: Vec<(A, Time)>,
    /// The first to come: the earliest, of equally early ones the least alarm.
    first: Option<(Time, A)>,
}

impl<A: Copy + Ord> Default for Deadlines<A> {
    fn default() -> Self {
        Self {
            alarms: Vec::new(),
            first: None,
        }
    }
}

impl<A: Copy + Ord> Deadlines<A> {
    /// Sets an alarm; an earlier setting of the same alarm is forgotten.
    pub fn set(&mut self, alarm: A, at: Time) {
        match self.find(alarm) {
            Ok(index) => self.alarms[index].1 = at,
            Err(index) => self.alarms.insert(index, (alarm, at)),
        }
        match self.first {
            Some((_, first)) if first == alarm => self.find_first(),
            Some(first) if first < (at, alarm) => {}
            _ => self.first = Some((at, alarm)),
        }
    }

    /// Sets an alarm unless it is already set for an earlier time.
    pub fn set_no_later(&mut self, alarm: A, at: Time) {
        let present = self.find(alarm).ok().map(|index| self.alarms[index].1);
        if present.is_none_or(|present| present > at) {
            self.set(alarm, at);
        }
    }

    /// Forgets an alarm.
    pub fn cancel(&mut self, alarm: A) {
        if let Ok(index) = self.find(alarm) {
            self.alarms.remove(index);
            if self.first.is_some_and(|(_, first)| first == alarm) {
                self.find_first();
            }
        }
    }

    /// Tells whether the alarm is set.
    pub fn is_set(&self, alarm: A) -> bool {
        self.find(alarm).is_ok()
    }

    /// Takes the first alarm that is due at `now`.
    pub fn pop_due(&mut self, now: Time) -> Option<A> {
        let (at, alarm) = self.first?;
        if at > now {
            return None;
        }
        self.cancel(alarm);
        Some(alarm)
    }

    /// Returns when the next alarm is due.
    pub fn next(&self) -> Option<Time> {
        self.first.map(|(at, _)| at)
    }

    fn find(&self, alarm: A) -> Result<usize, usize> {
        self.alarms.binary_search_by(|(other, _)| other.cmp(&alarm))
    }

    fn find_first(&mut self) {
        // The alarms are in order, so the first of equally early ones is the least.
        let first = self.alarms.iter().min_by_key(|(_, at)| *at);
        self.first = first.map(|(alarm, at)| (*at, *alarm));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_map(
            changes in proptest::collection::vec((0..5_u8, 0..9_u8, 0..9_u64), 0..200),
        ) {
            let mut deadlines = Deadlines::default();
            let mut model = BTreeMap::new();
            for (what, alarm, at) in changes {
                let at = Time::from_secs(at);
                let first = model.iter().map(|(alarm, at)| (*at, *alarm)).min();
                match what {
                    0 => deadlines.cancel(alarm),
                    1 => {
                        let due = first.filter(|(first, _)| *first <= at);
                        prop_assert_eq!(deadlines.pop_due(at), due.map(|(_, alarm)| alarm));
                        due.map(|(_, alarm)| model.remove(&alarm));
                        continue;
                    }
                    2 => deadlines.set_no_later(alarm, at),
                    _ => deadlines.set(alarm, at),
                }
                let earlier = model.get(&alarm).filter(|present| what == 2 && **present <= at);
                match (what, earlier) {
                    (0, _) => drop(model.remove(&alarm)),
                    (_, Some(_)) => {}
                    _ => drop(model.insert(alarm, at)),
                }
                prop_assert_eq!(deadlines.next(), model.values().min().copied());
                prop_assert_eq!(deadlines.is_set(alarm), model.contains_key(&alarm));
            }
        }
    }
}
