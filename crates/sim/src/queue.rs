//! What is going to happen, in the order of time: a calendar.
//!
//! ```text
//!   now     page: 4,096 slots of about a millisecond           later pages
//!   [slot]  [slot][slot][slot] ... [slot]                      [page] [page] ...
//!   sorted  each as it came                                    each as it came
//! ```
//!
//! An entry is put at the end of its slot or of its page, is moved once when its page
//! begins and sorted when its slot does; so the cost of an entry does not depend on how
//! many there are, and all work goes through memory in order.

use std::collections::BTreeMap;

use enishi_overlay::Time;

/// The width of a slot is 2 to this power in microseconds.
const SLOT_BITS: u32 = 10;
/// The slots of a page are 2 to this power.
const PAGE_BITS: u32 = 12;
const SLOTS: u64 = 1 << PAGE_BITS;

/// A queue of things to happen. Of two at one time, the one put in first comes first.
/// Meant for small `T`: entries are moved and sorted.
#[derive(Debug)]
pub struct Queue<T> {
    /// The present slot, counted from the beginning of time. All earlier ones are empty.
    slot: u64,
    /// The entries of the present slot in order, those from `next` on still to come.
    present: Vec<Entry<T>>,
    next: usize,
    /// The later slots of the present page; the others are empty.
    slots: Vec<Vec<Entry<T>>>,
    /// The later pages by number.
    pages: BTreeMap<u64, Vec<Entry<T>>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    at: Time,
    what: T,
}

impl<T> Entry<T> {
    const fn slot(&self) -> u64 {
        self.at.as_micros() >> SLOT_BITS
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            slot: 0,
            present: Vec::new(),
            next: 0,
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            pages: BTreeMap::new(),
        }
    }
}

impl<T: Copy> Queue<T> {
    /// Puts something in. It may not lie before the `until` of an earlier
    /// [`Self::pop_until`]; if it does, it happens at once.
    pub fn push(&mut self, at: Time, what: T) {
        let entry = Entry { at, what };
        let slot = entry.slot();
        if slot <= self.slot {
            let waiting = &self.present[self.next..];
            let place = waiting.partition_point(|other| other.at <= at);
            self.present.insert(self.next + place, entry);
        } else if slot >> PAGE_BITS == self.slot >> PAGE_BITS {
            self.slots[(slot % SLOTS) as usize].push(entry);
        } else {
            self.pages.entry(slot >> PAGE_BITS).or_default().push(entry);
        }
    }

    /// Takes the first thing that happens at `until` or before.
    pub fn pop_until(&mut self, until: Time) -> Option<(Time, T)> {
        while self.next == self.present.len() {
            if !self.turn(until.as_micros() >> SLOT_BITS) {
                return None;
            }
        }
        let entry = self.present[self.next];
        if entry.at > until {
            return None;
        }
        self.next += 1;
        Some((entry.at, entry.what))
    }

    /// Goes on to the next slot that holds something, or to `last` if none does before;
    /// tells whether there is anything to look at.
    fn turn(&mut self, last: u64) -> bool {
        self.present.clear();
        self.next = 0;
        while self.slot < last {
            self.slot += 1;
            if self.slot.is_multiple_of(SLOTS) {
                self.open_page(last);
            }
            let slot = &mut self.slots[(self.slot % SLOTS) as usize];
            if !slot.is_empty() {
                self.present = std::mem::take(slot);
                self.present.sort_by_key(|entry| entry.at);
                return true;
            }
        }
        false
    }

    /// Spreads the present page over its slots; skips empty pages before `last`.
    fn open_page(&mut self, last: u64) {
        let first = self.pages.first_key_value().map(|(page, _)| *page);
        let page = first.unwrap_or(u64::MAX).min(last >> PAGE_BITS);
        self.slot = self.slot.max(page << PAGE_BITS);
        for entry in self.pages.remove(&page).into_iter().flatten() {
            self.slots[(entry.slot() % SLOTS) as usize].push(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use enishi_overlay::Rng;

    use super::*;

    /// Entries at random times, far and near, many at one time, put in and taken out by
    /// turns, come in the order of a sorted list.
    #[test]
    fn things_come_in_the_order_of_time_and_then_of_their_coming() {
        let mut rng = Rng::from_seed([1; 32]);
        let mut queue = Queue::default();
        let mut model: BTreeMap<(Time, u64), u64> = BTreeMap::new();
        let (mut now, mut taken) = (0, 0);
        for number in 0..200_000_u64 {
            let reach = [0, 3, 900, 80_000, 20_000_000, 90_000_000][rng.below(6) as usize];
            let at = Time::from_micros(now + rng.below(reach + 1));
            queue.push(at, number);
            model.insert((at, number), number);
            if rng.below(3) == 0 {
                now += rng.below(2_000);
                while let Some((at, number)) = queue.pop_until(Time::from_micros(now)) {
                    let ((expected, _), first) = model.pop_first().expect("one is left");
                    assert_eq!((at, number), (expected, first));
                    taken += 1;
                }
                let waiting = model.first_key_value().map(|((at, _), _)| at.as_micros());
                assert!(waiting.is_none_or(|at| at > now));
            }
        }
        assert!(taken > 50_000, "{taken}");
        let rest = std::iter::from_fn(|| queue.pop_until(Time::from_secs(1_000_000)));
        assert!(rest.map(|(_, number)| number).eq(model.into_values()));
    }
}
