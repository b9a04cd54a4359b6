//! Who is let in at a TURN server. What is permitted is renewed for as long as the allocation lives, so
//! that room is made only by another allocation, which ends what goes by this one. Whoever can have
//! addresses permitted must not bring that about again and again: it happens rarely, and then leaves
//! half of the room free.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The most peers that are permitted by one allocation, fewer than there may be. When there are more,
/// there is another allocation.
const PERMITS_MAX: usize = 60;

/// The most that a new allocation begins with.
const PERMITS_FIRST: usize = PERMITS_MAX / 2;

/// For how long a wish to permit a peer is remembered, should there be a new allocation.
const PERMIT_MAX: Duration = Duration::from_secs(600);

/// Between two allocations that are given up for want of room.
const RELEASE_PAUSE: Duration = Duration::from_secs(300);

/// What is to be done about a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing, now.
    Noted,
    /// The peer is to be permitted.
    Permit,
    /// The allocation is to be given up, in favour of another one.
    Release,
}

/// Who is to be let in, and who is.
#[derive(Debug, Default)]
pub(super) struct Permits {
    /// Since when; at most [`PERMITS_MAX`].
    wanted: BTreeMap<IpAddr, Instant>,
    /// Those permitted by the allocation; at most [`PERMITS_MAX`].
    given: BTreeSet<IpAddr>,
    released_at: Option<Instant>,
}

impl Permits {
    /// Takes the wish to let a peer in. `is_allocated` tells whether it can be now.
    pub(super) fn wish(&mut self, now: Instant, peer: IpAddr, is_allocated: bool) -> Wish {
        if !is_allocated || self.given.contains(&peer) {
            // The protocol renews what was given.
            self.note(now, peer);
            return Wish::Noted;
        }
        if self.given.len() < PERMITS_MAX {
            self.note(now, peer);
            self.given.insert(peer);
            return Wish::Permit;
        }
        let next = self.released_at.map(|at| at + RELEASE_PAUSE);
        if next.is_some_and(|next| now < next) {
            return Wish::Noted;
        }
        self.note(now, peer);
        self.released_at = Some(now);
        Wish::Release
    }

    /// Notes that a peer is to be let in by the next allocation.
    pub(super) fn note(&mut self, now: Instant, peer: IpAddr) {
        self.wanted
            .retain(|_, since| now.duration_since(*since) < PERMIT_MAX);
        let since = self.wanted.entry(peer).or_insert(now);
        *since = now.max(*since);
        if self.wanted.len() > PERMITS_MAX {
            let others = self.wanted.iter().filter(|(other, _)| **other != peer);
            let oldest = others.min_by_key(|(_, since)| **since);
            let oldest = oldest.map(|(oldest, _)| *oldest);
            oldest.and_then(|oldest| self.wanted.remove(&oldest));
        }
    }

    /// There is an allocation: returns whom it is to permit, those wished last.
    pub(super) fn begin(&mut self) -> Vec<IpAddr> {
        let mut wanted: Vec<_> = self.wanted.iter().collect();
        wanted.sort_by_key(|(_, since)| Reverse(**since));
        let first = wanted.into_iter().take(PERMITS_FIRST);
        self.given = first.map(|(peer, _)| *peer).collect();
        self.given.iter().copied().collect()
    }

    /// The server does not let a peer in.
    pub(super) fn refused(&mut self, peer: IpAddr) {
        self.given.remove(&peer);
    }

    /// There is no allocation any more.
    pub(super) fn end(&mut self) {
        self.given.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u32) -> IpAddr {
        IpAddr::from((0x1400_0000 + number).to_be_bytes())
    }

    #[test]
    fn who_wishes_without_end_has_an_allocation_given_up_rarely() {
        let start = Instant::now();
        let mut permits = Permits::default();
        assert!(permits.begin().is_empty());
        let mut released = 0;
        // A new address each second, for an hour.
        for second in 0..3600 {
            let now = start + Duration::from_secs(u64::from(second));
            match permits.wish(now, ip(second), true) {
                Wish::Noted => {}
                Wish::Permit => assert!(permits.given.contains(&ip(second))),
                Wish::Release => {
                    released += 1;
                    permits.end();
                    let first = permits.begin();
                    assert_eq!(first.len(), PERMITS_FIRST);
                    assert!(first.contains(&ip(second)), "it was for this one");
                }
            }
            assert!(permits.given.len() <= PERMITS_MAX && permits.wanted.len() <= PERMITS_MAX);
        }
        assert!((2..=12).contains(&released), "{released}");
    }

    #[test]
    fn there_is_room_after_an_allocation_is_given_up() {
        let now = Instant::now();
        let mut permits = Permits::default();
        permits.begin();
        let most = u32::try_from(PERMITS_MAX).unwrap();
        for number in 0..most {
            assert_eq!(permits.wish(now, ip(number), true), Wish::Permit);
        }
        assert_eq!(permits.wish(now, ip(1), true), Wish::Noted);
        assert_eq!(permits.wish(now, ip(most), true), Wish::Release);
        permits.end();
        let given = permits.begin().len();
        let room = u32::try_from(PERMITS_MAX - given).unwrap();
        for number in 1000..1000 + room {
            assert_eq!(permits.wish(now, ip(number), true), Wish::Permit);
        }
        assert_eq!(permits.wish(now, ip(2000), true), Wish::Noted);
        // One that the server refuses takes no room.
        permits.refused(ip(1000));
        assert_eq!(permits.wish(now, ip(2000), true), Wish::Permit);
    }

    #[test]
    fn a_wish_that_is_repeated_drives_out_nobody() {
        let start = Instant::now();
        let mut permits = Permits::default();
        let most = u32::try_from(PERMITS_MAX).unwrap();
        for number in 0..most {
            let now = start + Duration::from_secs(u64::from(number));
            assert_eq!(permits.wish(now, ip(number), false), Wish::Noted);
        }
        let now = start + Duration::from_secs(100);
        permits.wish(now, ip(most - 1), false);
        assert_eq!(permits.wanted.len(), PERMITS_MAX);
        // One more: the oldest goes.
        permits.wish(now, ip(most), false);
        assert!(!permits.wanted.contains_key(&ip(0)) && permits.wanted.contains_key(&ip(1)));
        // All are old some time.
        permits.note(now + PERMIT_MAX, ip(7));
        assert_eq!(permits.wanted.len(), 1);
    }
}
