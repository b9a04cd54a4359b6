//! Which numbers of one author have been received, and which are missing.

use std::collections::BTreeSet;

/// How far ahead of the first missing number others are taken; what is missing before that is
/// given up.
pub(super) const WINDOW: u64 = 256;

/// The numbers of one flow.
///
/// What others claim to have is kept apart from what was received: a claim may be asked
/// after, and never makes a number count as received.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// The first number that is missing; all before it were received or given up.
    next: u64,
    /// Numbers that were received beyond it.
    ahead: BTreeSet<u64>,
    /// The last number that somebody claims to have.
    claimed: u64,
}

impl Window {
    /// Begins with a number that is the first to be received.
    pub(super) fn starting_at(next: u64) -> Self {
        Self {
            next,
            ..Self::default()
        }
    }

    /// Returns the last number up to which none is missing.
    pub(super) fn up_to(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Tells whether a number was received, or is not wanted any more.
    pub(super) fn has(&self, number: u64) -> bool {
        number < self.next || self.ahead.contains(&number)
    }

    /// Tells whether a number is beyond all that were received.
    pub(super) fn is_newest(&self, number: u64) -> bool {
        number >= self.next && self.ahead.last().is_none_or(|last| number > *last)
    }

    /// Notes a number as received.
    pub(super) fn note(&mut self, number: u64) {
        if self.has(number) {
            return;
        }
        self.ahead.insert(number);
        self.next = self.next.max(number.saturating_sub(WINDOW));
        self.ahead = self.ahead.split_off(&self.next);
        self.close_up();
    }

    /// Notes that somebody claims to have all up to a number.
    pub(super) fn claim(&mut self, number: u64) {
        self.claimed = self
            .claimed
            .max(number.min(self.next.saturating_add(WINDOW)));
    }

    /// Returns the last number that was received or is claimed: none beyond it is missing.
    pub(super) fn end(&self) -> u64 {
        let received = self.ahead.last().copied().unwrap_or(self.up_to());
        received.max(self.claimed)
    }

    /// Visits the missing numbers upwards, at most [`WINDOW`].
    pub(super) fn missing(&self) -> impl Iterator<Item = u64> + '_ {
        let numbers = self.next..=self.end().min(self.next.saturating_add(WINDOW));
        numbers.filter(|number| !self.ahead.contains(number))
    }

    /// Gives up what is missing up to a number, as far as later ones were received; tells
    /// whether something was.
    pub(super) fn give_up(&mut self, up_to: u64) -> bool {
        let was_missing = self.missing().next().is_some_and(|first| first <= up_to);
        if let Some(last) = self.ahead.last() {
            self.skip(up_to.min(*last));
        }
        was_missing
    }

    /// Forgets what others claim to have.
    pub(super) fn forget_claims(&mut self) {
        self.claimed = 0;
    }

    /// Wants nothing up to a number any more.
    pub(super) fn skip(&mut self, up_to: u64) {
        self.next = self.next.max(up_to.saturating_add(1));
        self.ahead = self.ahead.split_off(&self.next);
        self.close_up();
    }

    fn close_up(&mut self) {
        while self.ahead.first() == Some(&self.next) {
            self.ahead.pop_first();
            self.next = self.next.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn missing(window: &Window) -> Vec<u64> {
        window.missing().collect()
    }

    #[test]
    fn gaps_are_missing_until_they_are_filled_or_given_up() {
        let mut window = Window::starting_at(1);
        for number in [1, 2, 5, 7] {
            window.note(number);
        }
        assert_eq!(missing(&window), [3, 4, 6]);
        assert!(window.has(5) && !window.has(4) && !window.is_newest(6));
        window.note(3);
        assert!(window.give_up(5) && !window.give_up(5));
        assert_eq!((missing(&window), window.up_to()), (vec![6], 5));
        window.claim(9);
        assert_eq!(missing(&window), [6, 8, 9]);
    }

    #[test]
    fn a_claim_never_counts_as_received() {
        let mut window = Window::starting_at(4);
        window.claim(1_000_000);
        assert_eq!(missing(&window).len(), WINDOW as usize + 1);
        assert!(window.give_up(u64::MAX));
        window.forget_claims();
        assert!(missing(&window).is_empty());
        assert!(!window.has(4) && window.is_newest(4));
    }

    #[test]
    fn a_leap_gives_up_what_is_too_far_behind() {
        let mut window = Window::starting_at(1);
        window.note(10_000);
        assert!(window.has(10_000 - WINDOW - 1) && !window.has(9_999));
        assert_eq!(missing(&window).len(), WINDOW as usize);
    }

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), 0..9_u64, (u64::MAX - 9)..=u64::MAX]
    }

    proptest! {
        #[test]
        fn each_number_is_new_once(numbers in proptest::collection::vec(1_u64..200, 0..300)) {
            let mut window = Window::starting_at(1);
            let mut seen = BTreeSet::new();
            for number in numbers {
                prop_assert_eq!(window.has(number), !seen.insert(number));
                window.note(number);
            }
            let last = seen.last().copied().unwrap_or(0);
            let absent: Vec<u64> = (1..=last).filter(|n| !seen.contains(n)).collect();
            prop_assert_eq!(missing(&window), absent);
        }

        #[test]
        fn nothing_grows_or_panics(numbers in proptest::collection::vec((number(), 0..5), 0..80)) {
            let mut window = Window::starting_at(1);
            for (number, what) in numbers {
                match what {
                    0 => window.note(number),
                    1 => window.claim(number),
                    2 => window.forget_claims(),
                    3 => window.skip(number),
                    _ => drop(window.give_up(number)),
                }
                prop_assert!(window.ahead.len() <= WINDOW as usize + 1);
                prop_assert!(missing(&window).len() <= WINDOW as usize + 1);
            }
        }
    }
}
