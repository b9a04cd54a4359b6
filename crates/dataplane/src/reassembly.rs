//! Puts the halves of split packets together, for one peer.
//!
//! A half waits in a slot until the other one comes. Slots are few and short-lived:
//! the halves of a packet are sent one right after the other, so one that waits
//! longer than [`WAIT_MAX`] has lost its partner. A peer can fill only its own slots.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The longest part that is taken, in octets.
pub const PART_BYTES_MAX: usize = 4096;

/// Which part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The first half.
    First,
    /// The second half.
    Second,
}

/// The most halves that wait for their partners. With parts of [`PART_BYTES_MAX`], 128 KiB.
pub const SLOTS_MAX: usize = 32;

/// How long a half waits for its partner. Short, so that an id which comes round again
/// (after 65,536 split packets) does not meet an old half.
pub const WAIT_MAX: Duration = Duration::from_millis(500);

/// Halves of one peer's packets that wait for their partners.
#[derive(Clone, Debug, Default)]
pub struct Reassembly {
    /// Oldest first.
    slots: VecDeque<Slot>,
    lost: u64,
}

#[derive(Clone, Debug)]
struct Slot {
    id: u16,
    half: Half,
    until: Instant,
    bytes: Vec<u8>,
}

impl Reassembly {
    /// Takes a half that arrived at `now`, and returns the packet when it completes one.
    ///
    /// The half is copied, so that a small one does not keep a large buffer alive. With
    /// all slots in use the oldest half is given up. Looks at [`SLOTS_MAX`] slots at most.
    pub fn insert(&mut self, now: Instant, id: u16, half: Half, bytes: &[u8]) -> Option<Vec<u8>> {
        self.expire(now);
        if bytes.len() > PART_BYTES_MAX {
            self.lost += 1;
            return None;
        }
        let found = self.slots.iter().position(|slot| slot.id == id);
        let waiting = found.and_then(|index| self.slots.remove(index));
        match waiting {
            Some(slot) if slot.half != half => {
                let (first, second) = match half {
                    Half::First => (bytes, &slot.bytes[..]),
                    Half::Second => (&slot.bytes[..], bytes),
                };
                return Some([first, second].concat());
            }
            // The id came round, or the half came twice: the newer one counts.
            Some(_) => self.lost += 1,
            None => {}
        }
        if self.slots.len() == SLOTS_MAX {
            self.slots.pop_front();
            self.lost += 1;
        }
        self.slots.push_back(Slot {
            id,
            half,
            until: now + WAIT_MAX,
            bytes: bytes.to_vec(),
        });
        None
    }

    /// Returns how many halves were given up so far: too old, too many, too long or double.
    pub fn lost_count(&self) -> u64 {
        self.lost
    }

    /// Gives up the halves that have waited too long; [`Reassembly::insert`] does it as
    /// well, so calling it serves only to free memory of a silent peer.
    pub fn expire(&mut self, now: Instant) {
        while self.slots.pop_front_if(|slot| slot.until <= now).is_some() {
            self.lost += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn halves_meet_in_either_order_and_never_across_ids() {
        let (mut reassembly, now) = (Reassembly::default(), Instant::now());
        assert_eq!(reassembly.insert(now, 1, Half::Second, b"b"), None);
        assert_eq!(reassembly.insert(now, 7, Half::First, b"x"), None);
        assert_eq!(reassembly.insert(now, 2, Half::First, b"y"), None);
        assert_eq!(
            reassembly.insert(now, 1, Half::First, b"a"),
            Some(b"ab".to_vec())
        );
        assert_eq!(
            reassembly.insert(now, 7, Half::Second, b"z"),
            Some(b"xz".to_vec())
        );
        assert_eq!(reassembly.lost_count(), 0);
    }

    #[test]
    fn old_double_and_surplus_halves_are_given_up_and_counted() {
        let (mut reassembly, now) = (Reassembly::default(), Instant::now());
        reassembly.insert(now, 1, Half::First, b"old");
        assert_eq!(
            reassembly.insert(now + WAIT_MAX, 1, Half::Second, b"x"),
            None
        );
        assert_eq!(reassembly.lost_count(), 1);

        let now = now + 3 * WAIT_MAX;
        reassembly.insert(now, 5, Half::First, b"double");
        reassembly.insert(now, 5, Half::First, b"new");
        let packet = reassembly.insert(now, 5, Half::Second, b"er");
        assert_eq!(packet, Some(b"newer".to_vec()));
        assert_eq!(reassembly.lost_count(), 3);

        for id in 0..100 {
            reassembly.insert(now, id, Half::First, b"flood");
        }
        assert_eq!(reassembly.slots.len(), SLOTS_MAX);
        assert_eq!(reassembly.lost_count(), 3 + 100 - 32);
        reassembly.insert(now, 500, Half::First, &[0; PART_BYTES_MAX + 1]);
        assert_eq!(reassembly.lost_count(), 72);
    }

    proptest! {
        #[test]
        fn any_halves_stay_within_the_slots(
            halves in prop::collection::vec((0_u16..50, any::<bool>(), 0_u64..300), 0..200),
        ) {
            let (mut reassembly, mut now) = (Reassembly::default(), Instant::now());
            for (id, first, later_ms) in halves {
                now += Duration::from_millis(later_ms);
                let half = if first { Half::First } else { Half::Second };
                let packet = reassembly.insert(now, id, half, &[1, 2]);
                prop_assert!(packet.is_none_or(|packet| packet.len() == 4));
                prop_assert!(reassembly.slots.len() <= SLOTS_MAX);
            }
        }
    }
}
