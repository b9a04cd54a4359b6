//! Token buckets: how often something may happen, or how many octets may pass.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use enishi_overlay::Time;

/// What one token is, in millionths: a rate per second is then tokens per microsecond.
const TOKEN: u64 = 1_000_000;

/// How many octets of an IPv6 address one subscriber has for itself at least: the /64 of one
/// link (RFC 6177). Whoever has it can send from all of its addresses.
const SUBSCRIBER_BITS: u32 = 64;

/// How much may happen: `per_s` a second in the long run, `burst` at once. Units are messages or
/// octets, as the user says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How much in each second of a long time.
    pub per_s: u64,
    /// How much at once after a pause.
    pub burst: u64,
}

/// What is left of a [`Rate`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    left: u64,
    filled_at: Time,
}

impl Bucket {
    /// Makes a full one.
    pub(crate) fn full(rate: Rate, now: Time) -> Self {
        Self {
            left: rate.burst.saturating_mul(TOKEN),
            filled_at: now,
        }
    }

    /// Tells whether so much is there.
    pub(crate) fn has(&mut self, rate: Rate, now: Time, amount: u64) -> bool {
        self.fill(rate, now);
        self.left >= amount.saturating_mul(TOKEN)
    }

    /// Takes so much, if it is there.
    pub(crate) fn take(&mut self, rate: Rate, now: Time, amount: u64) -> bool {
        let taken = self.has(rate, now, amount);
        if taken {
            self.left -= amount.saturating_mul(TOKEN);
        }
        taken
    }

    fn is_full(&mut self, rate: Rate, now: Time) -> bool {
        self.has(rate, now, rate.burst)
    }

    fn fill(&mut self, rate: Rate, now: Time) {
        let micros = u64::try_from(now.since(self.filled_at).as_micros()).unwrap_or(u64::MAX);
        let added = micros.saturating_mul(rate.per_s);
        let most = rate.burst.saturating_mul(TOKEN);
        self.left = self.left.saturating_add(added).min(most);
        self.filled_at = now;
    }
}

/// A [`Rate`] for each source address, and one for all of them together, in bounded memory.
///
/// A source is an IPv4 address or the /64 of an IPv6 address. When `sources_max` sources are
/// known and none of them has been silent long enough to be forgotten, new ones get nothing:
/// the addresses of a flood are made up, and those who were there before it must not pay.
#[derive(Clone, Debug)]
pub(crate) struct Throttle {
    each: Rate,
    all: Rate,
    sources_max: usize,
    sources: BTreeMap<IpAddr, Bucket>,
    total: Bucket,
    looked_at: Time,
}

impl Throttle {
    pub(crate) fn new(each: Rate, all: Rate, sources_max: usize) -> Self {
        Self {
            each,
            all,
            sources_max,
            sources: BTreeMap::new(),
            total: Bucket::full(all, Time::ZERO),
            looked_at: Time::ZERO,
        }
    }

    /// Takes one token of a source, if there is one of its own and one of all.
    pub(crate) fn take(&mut self, source: IpAddr, now: Time) -> bool {
        let source = subscriber(source);
        if !self.sources.contains_key(&source) && !self.has_room(now) {
            return false;
        }
        if !self.total.has(self.all, now, 1) {
            return false;
        }
        let each = self.each;
        let bucket = self.sources.entry(source);
        let bucket = bucket.or_insert_with(|| Bucket::full(each, now));
        bucket.take(each, now, 1) && self.total.take(self.all, now, 1)
    }

    #[cfg(test)]
    fn known(&self) -> usize {
        self.sources.len()
    }

    /// Makes room for another source by forgetting those that are owed nothing. Looks through
    /// all of them at most once a second.
    fn has_room(&mut self, now: Time) -> bool {
        if self.sources.len() < self.sources_max {
            return true;
        }
        if now.since(self.looked_at).as_secs() == 0 {
            return false;
        }
        self.looked_at = now;
        let each = self.each;
        self.sources.retain(|_, bucket| !bucket.is_full(each, now));
        self.sources.len() < self.sources_max
    }
}

/// Returns the address that stands for all that one subscriber has: itself, or its /64 of IPv6.
pub fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << SUBSCRIBER_BITS);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const EACH: Rate = Rate {
        per_s: 10,
        burst: 3,
    };
    const ALL: Rate = Rate {
        per_s: 1000,
        burst: 1000,
    };

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let mut bucket = Bucket::full(EACH, Time::ZERO);
        let taken =
            |bucket: &mut Bucket, now| (0..20).filter(|_| bucket.take(EACH, now, 1)).count();
        assert_eq!(taken(&mut bucket, Time::ZERO), 3);
        let later = Time::ZERO + Duration::from_millis(250);
        assert_eq!(taken(&mut bucket, later), 2);
        assert_eq!(taken(&mut bucket, later + Duration::from_secs(3600)), 3);
        assert!(!bucket.take(EACH, later + Duration::from_secs(7200), 4));
    }

    #[test]
    fn sources_do_not_pay_for_each_other() {
        let mut throttle = Throttle::new(EACH, ALL, 10);
        let taken = |throttle: &mut Throttle, last| {
            let tries = (0..20).filter(|_| throttle.take(v4(last), Time::ZERO));
            tries.count()
        };
        assert_eq!(taken(&mut throttle, 1), 3);
        assert_eq!(taken(&mut throttle, 2), 3);
    }

    #[test]
    fn the_addresses_of_a_flood_take_bounded_memory_and_turns() {
        let mut throttle = Throttle::new(EACH, ALL, 10);
        assert!(throttle.take(v4(1), Time::ZERO));
        for last in 0..=255 {
            throttle.take(v4(last), Time::ZERO);
        }
        assert_eq!(throttle.known(), 10);
        assert!(throttle.take(v4(1), Time::ZERO), "it was there before");
        assert!(!throttle.take(v4(200), Time::ZERO));
        let later = Time::from_secs(2);
        assert!(throttle.take(v4(200), later), "the flood is forgotten");
    }

    #[test]
    fn all_sources_together_have_a_rate() {
        let mut throttle = Throttle::new(EACH, EACH, 100);
        let taken = (0..100).filter(|last| throttle.take(v4(*last), Time::ZERO));
        assert_eq!(taken.count(), 3);
    }

    #[test]
    fn a_link_of_ipv6_is_one_source() {
        let subscriber_of = |text: &str| subscriber(text.parse().unwrap());
        assert_eq!(
            subscriber_of("2001:db8:1:2:3:4:5:6"),
            subscriber_of("2001:db8:1:2::9")
        );
        assert_ne!(
            subscriber_of("2001:db8:1:2::9"),
            subscriber_of("2001:db8:1:3::9")
        );
        assert_eq!(subscriber_of("::ffff:192.0.2.1"), v4(1));
    }
}
