//! A link in one direction: how long packets take, how many get lost, how much fits.

use std::time::Duration;

/// What a link is like, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkKind {
    /// How long a packet takes.
    pub delay: Duration,
    /// Up to how much longer it may take, drawn for each. Packets stay in order.
    pub jitter: Duration,
    /// How many of a million get lost.
    pub loss_ppm: u32,
    /// How many bits a second pass; none for any number.
    pub bits_per_second: Option<u64>,
    /// How many octets wait for their turn before more are dropped.
    pub queue_bytes: usize,
}

impl LinkKind {
    /// A link that only takes its time.
    pub fn of_delay(delay: Duration) -> Self {
        Self {
            delay,
            jitter: Duration::ZERO,
            loss_ppm: 0,
            bits_per_second: None,
            queue_bytes: 256 * 1024,
        }
    }
}

/// A link in use. Times are since any moment that is the same for all calls.
#[derive(Debug)]
pub(crate) struct Link {
    kind: LinkKind,
    is_cut: bool,
    /// Until when what waits takes the link.
    busy_until: Duration,
    last_arrival: Duration,
    random: u64,
}

impl Link {
    pub(crate) fn new(kind: LinkKind, seed: u64) -> Self {
        Self {
            kind,
            is_cut: false,
            busy_until: Duration::ZERO,
            last_arrival: Duration::ZERO,
            random: seed | 1,
        }
    }

    /// Makes it another one; what is on its way arrives as it would have.
    pub(crate) fn change(&mut self, kind: LinkKind) {
        self.kind = kind;
    }

    /// Lets nothing more in, or does again.
    pub(crate) fn cut(&mut self, is_cut: bool) {
        self.is_cut = is_cut;
    }

    /// Sends a packet of so many octets; returns when it arrives, or nothing when it does not.
    pub(crate) fn send(&mut self, now: Duration, bytes: usize) -> Option<Duration> {
        if self.is_cut || self.draw() % 1_000_000 < u64::from(self.kind.loss_ppm) {
            return None;
        }
        let start = self.busy_until.max(now);
        let mut end = start;
        if let Some(rate) = self.kind.bits_per_second {
            let nanos = |bytes: usize| bytes as u64 * 8 * 1_000_000_000 / rate.max(1);
            let waiting = (start - now).as_nanos() as u64;
            if waiting > nanos(self.kind.queue_bytes) {
                return None;
            }
            end += Duration::from_nanos(nanos(bytes));
        }
        self.busy_until = end;
        let jitter = self.kind.jitter.as_nanos() as u64;
        let jitter = Duration::from_nanos(self.draw() % (jitter + 1));
        self.last_arrival = self.last_arrival.max(end + self.kind.delay + jitter);
        Some(self.last_arrival)
    }

    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn packets_take_their_time_and_stay_in_order() {
        let kind = LinkKind {
            jitter: 5 * MILLI,
            ..LinkKind::of_delay(20 * MILLI)
        };
        let mut link = Link::new(kind, 3);
        let sent = (0..1000).map(|n| n * MILLI / 10);
        let arrived: Vec<Duration> = sent.clone().map(|at| link.send(at, 100).unwrap()).collect();
        assert!(arrived.is_sorted());
        for (at, arrived) in sent.zip(arrived) {
            assert!((20 * MILLI..=25 * MILLI).contains(&(arrived - at)));
        }
    }

    #[test]
    fn as_many_get_lost_as_was_said() {
        let kind = LinkKind {
            loss_ppm: 50_000,
            ..LinkKind::of_delay(MILLI)
        };
        let mut link = Link::new(kind, 3);
        let lost = (0..20_000).filter(|n| link.send(*n * MILLI, 100).is_none());
        // Three standard deviations of 1,000.
        assert!(lost.count().abs_diff(1000) < 93);
    }

    #[test]
    fn a_slow_link_passes_what_it_can_and_drops_the_rest() {
        let kind = LinkKind {
            bits_per_second: Some(8_000_000),
            queue_bytes: 10_000,
            ..LinkKind::of_delay(MILLI)
        };
        let mut link = Link::new(kind, 3);
        // A megabyte a second: a packet of 1,000 octets each millisecond, offered twice as fast.
        let passed = (0..2000).filter_map(|n| link.send(n * MILLI / 2, 1000));
        let passed: Vec<Duration> = passed.collect();
        assert!((1000..=1012).contains(&passed.len()), "{}", passed.len());
        let gaps = passed.windows(2).skip(1).map(|pair| pair[1] - pair[0]);
        assert!(gaps.clone().all(|gap| gap == MILLI));
        link.cut(true);
        assert_eq!(link.send(Duration::from_secs(9), 1), None);
    }
}
