//! How much of a stream may be under way before the other end has told that it came.

use std::collections::VecDeque;
use std::time::Duration;

use crate::{SLOW_BYTES_PER_S, Time};

/// What may be under way, in octets.
const LIMIT_MIN: usize = 128 * 1024;
const LIMIT_FIRST: usize = 256 * 1024;
const LIMIT_MAX: usize = 4 << 20;

/// Frames that may be under way.
const FRAMES_MAX: usize = 4_096;

/// Word that comes sooner shows that more may be under way, and what comes later that less may.
const SOON: Duration = Duration::from_millis(500);
const LATE: Duration = Duration::from_secs(2);

/// How long nothing may be heard of what is under way: four times as long as it took before, within these, and
/// as long as the first of it takes at [`SLOW_BYTES_PER_S`].
const STALL_MIN: Duration = Duration::from_secs(3);
const STALL_MAX: Duration = Duration::from_secs(30);

/// What is under way in a stream.
///
/// The limit doubles when word comes soon and is halved when it comes late, between 128 KiB and 4 MiB, so
/// that buffers between the ends of a slow line do not fill with seconds of packets.
#[derive(Clone, Debug)]
pub(super) struct Window {
    limit: usize,
    limit_max: usize,
    bytes: usize,
    /// Number, length and when it was sent.
    sent: VecDeque<(u32, usize, Time)>,
    took: Duration,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            limit: LIMIT_FIRST,
            limit_max: LIMIT_MAX,
            bytes: 0,
            sent: VecDeque::new(),
            took: Duration::ZERO,
        }
    }
}

impl Window {
    /// Has no more under way from now on than at first.
    pub(super) fn stay_low(&mut self) {
        self.limit_max = LIMIT_FIRST;
        self.limit = self.limit.min(LIMIT_FIRST);
    }

    /// Returns how much more may be sent, in octets.
    pub(super) fn room(&self) -> usize {
        let full = self.sent.len() >= FRAMES_MAX;
        if full {
            0
        } else {
            self.limit.saturating_sub(self.bytes)
        }
    }

    /// A frame of `bytes` octets was sent.
    pub(super) fn sent(&mut self, now: Time, seq: u32, bytes: usize) {
        self.bytes += bytes;
        self.sent.push_back((seq, bytes, now));
    }

    /// The other end waits for the number `next`.
    pub(super) fn told(&mut self, now: Time, next: u32) {
        let much = self.bytes >= self.limit / 2;
        let mut took = None;
        while let Some((seq, bytes, at)) = self.sent.front().copied()
            && seq < next
        {
            self.sent.pop_front();
            self.bytes -= bytes;
            took = Some(now.saturating_sub(at));
        }
        let Some(took) = took else {
            return;
        };
        self.took = took;
        if took >= LATE {
            self.limit = LIMIT_MIN.max(self.limit / 2);
        } else if took < SOON && much {
            self.limit = self.limit_max.min(self.limit * 2);
        }
    }

    /// Returns when too long nothing was heard of what is under way. `None` when nothing is.
    pub(super) fn stalls_at(&self) -> Option<Time> {
        let (_, bytes, at) = self.sent.front()?;
        let slow = *bytes as u64 / u64::from(SLOW_BYTES_PER_S);
        let slow = Duration::from_secs(slow);
        Some(*at + slow + (self.took * 4).clamp(STALL_MIN, STALL_MAX))
    }

    /// Whether word of all that is under way may come soon still.
    pub(super) fn is_prompt(&self, now: Time) -> bool {
        self.sent.front().is_none_or(|(_, _, at)| now < *at + SOON)
    }

    /// Whether all has come.
    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// What is under way is given up.
    pub(super) fn clear(&mut self) {
        self.sent.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Time {
        Duration::from_millis(ms)
    }

    #[test]
    fn more_is_sent_where_word_comes_soon_and_less_where_it_comes_late() {
        let mut window = Window::default();
        let mut seq = 0;
        let mut round = |window: &mut Window, now: Time, took: Time| {
            let room = window.room();
            window.sent(now, seq, room);
            seq += 1;
            assert_eq!(window.room(), 0);
            window.told(now + took, seq);
            assert!(window.is_empty());
            room
        };
        for at in 0..10 {
            round(&mut window, ms(at * 100), ms(20));
        }
        assert_eq!(window.room(), LIMIT_MAX);
        for at in 1..10 {
            round(&mut window, ms(at * 10_000), ms(3_000));
        }
        assert_eq!(window.room(), LIMIT_MIN);
        window.stay_low();
        for at in 0..10 {
            round(&mut window, ms(200_000 + at * 100), ms(20));
        }
        assert_eq!(window.room(), LIMIT_FIRST);
    }

    #[test]
    fn what_is_not_told_of_stalls_later_where_all_is_slow() {
        let mut window = Window::default();
        assert_eq!(window.stalls_at(), None);
        window.sent(ms(0), 0, 1_000);
        assert_eq!(window.stalls_at(), Some(ms(3_000)));
        window.told(ms(2_000), 0);
        assert_eq!(window.stalls_at(), Some(ms(3_000)));
        window.told(ms(2_000), 1);
        window.sent(ms(2_000), 1, 1_000);
        assert_eq!(window.stalls_at(), Some(ms(10_000)));
        window.told(ms(60_000), 2);
        window.sent(ms(60_000), 2, 1_000);
        assert_eq!(window.stalls_at(), Some(ms(90_000)));
    }

    #[test]
    fn a_line_of_eight_kib_a_second_does_not_stall() {
        let mut window = Window::default();
        let (frame, mut seq, mut arrives) = (64 * 1024, 0, Vec::new());
        let mut line_free = ms(0);
        for _ in 0..40 {
            let now = line_free;
            while window.room() >= frame {
                let from = arrives.last().copied().unwrap_or(now);
                arrives.push(from + Duration::from_secs(8));
                window.sent(now, arrives.len() as u32 - 1, frame);
            }
            let comes = arrives[seq as usize];
            assert!(window.stalls_at().unwrap() > comes, "{seq}");
            seq += 1;
            window.told(comes, seq);
            line_free = comes;
        }
        assert_eq!(window.limit, LIMIT_MIN);
    }

    #[test]
    fn few_frames_are_remembered() {
        let mut window = Window::default();
        for seq in 0..FRAMES_MAX as u32 {
            assert!(window.room() > 0);
            window.sent(ms(0), seq, 1);
        }
        assert_eq!(window.room(), 0);
        window.clear();
        assert_eq!(window.room(), LIMIT_FIRST);
    }
}
