//! Our time as the protocol crates see it. Their `Instant` is a number too, not a clock.

use enishi_overlay::Time;
use stun_proto::Instant;

/// Nanoseconds to a microsecond.
const NANOS: u64 = 1_000;

/// Tells the protocol crates a time. The last one that they can hold is in 292 years.
pub(crate) fn told(now: Time) -> Instant {
    let nanos = now.as_micros().saturating_mul(NANOS);
    Instant::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
}

/// Reads a time that the protocol crates say.
pub(crate) fn heard(then: Instant) -> Time {
    let nanos = u64::try_from(then.as_nanos()).unwrap_or(0);
    Time::from_micros(nanos.div_ceil(NANOS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back() {
        let now = Time::from_micros(123_456_789);
        assert_eq!(heard(told(now)), now);
        assert_eq!(heard(Instant::from_nanos(-5)), Time::ZERO);
        assert_eq!(heard(Instant::from_nanos(1)), Time::from_micros(1));
    }
}
