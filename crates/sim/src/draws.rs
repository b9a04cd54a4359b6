//! Random draws of a given distribution, in integers only so that runs replay anywhere.

use std::time::Duration;

use enishi_overlay::Rng;

/// One, in the fixed point of this file: 32 binary places.
const ONE: u64 = 1 << 32;
/// The natural logarithm of 2.
const LN_2: u64 = 2_977_044_472;

/// Draws from the exponential distribution: the time until something that happens once
/// in `mean`, at any moment as likely as at any other.
pub fn exponential(rng: &mut Rng, mean: Duration) -> Duration {
    // −ln u for an even u in (0, 1].
    let bits = 64 * ONE - log2(rng.number().max(1));
    let nats = (u128::from(bits) * u128::from(LN_2)) >> 32;
    let micros = (mean.as_micros() * nats) >> 32;
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// Returns the binary logarithm with 32 binary places, rounded down; 0 of 0.
pub fn log2(number: u64) -> u64 {
    let whole = number.max(1).ilog2();
    // The mantissa in [1, 2) with 63 binary places; each squaring yields one bit.
    let mut mantissa = number.max(1) << (63 - whole);
    let mut places = 0;
    for _ in 0..32 {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        places <<= 1;
        if square >> 64 == 0 {
            mantissa = square as u64;
        } else {
            mantissa = (square >> 1) as u64;
            places |= 1;
        }
    }
    (u64::from(whole) << 32) | places
}

/// Returns 2 to the power of `-exponent`, both with 32 binary places.
fn exp2_negative(exponent: u64) -> u64 {
    let mut power = ONE;
    let mut root = ONE / 2;
    let mut places = exponent & (ONE - 1);
    for _ in 0..32 {
        // 2^(-1/2), 2^(-1/4), and so on.
        root = (u128::from(root) << 32).isqrt() as u64;
        places <<= 1;
        if places & ONE != 0 {
            power = ((u128::from(power) * u128::from(root)) >> 32) as u64;
        }
        places &= ONE - 1;
    }
    power.checked_shr((exponent >> 32) as u32).unwrap_or(0)
}

/// Zipf's distribution: the k-th most popular of some things is asked for in proportion
/// to k^-s.
#[derive(Clone, Debug)]
pub struct Zipf {
    /// The weights of the first, of the first two, and so on.
    sums: Vec<u64>,
}

impl Zipf {
    /// Prepares to draw among `count` things with s = `exponent_per_mille` / 1000.
    pub fn new(count: usize, exponent_per_mille: u32) -> Self {
        let mut sum = 0;
        let sums = (1..=count as u64).map(|rank| {
            let log = u128::from(log2(rank)) * u128::from(exponent_per_mille) / 1000;
            sum += exp2_negative(log as u64).max(1);
            sum
        });
        Self {
            sums: sums.collect(),
        }
    }

    /// Draws one, counted from 0, the most popular.
    pub fn draw(&self, rng: &mut Rng) -> usize {
        let at = rng.below(self.sums.last().copied().unwrap_or(0));
        self.sums.partition_point(|sum| *sum <= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_and_powers_are_right_to_a_millionth() {
        for number in [1, 2, 3, 1000, 12_345_678_901, u64::MAX] {
            let (log, right) = (log2(number) as f64 / ONE as f64, (number as f64).log2());
            assert!((log - right).abs() < 1e-6, "{number}: {log}, {right}");
        }
        for exponent in [0.0, 0.5, 1.0, 3.25, 20.25] {
            let power = exp2_negative((exponent * ONE as f64) as u64) as f64 / ONE as f64;
            assert!(
                (power / (-exponent).exp2() - 1.0).abs() < 1e-3,
                "{exponent}"
            );
        }
    }

    #[test]
    fn exponential_draws_have_their_mean_and_median() {
        let mut rng = Rng::from_seed([2; 32]);
        let mean = Duration::from_secs(3600);
        let mut draws: Vec<Duration> = (0..20_001).map(|_| exponential(&mut rng, mean)).collect();
        draws.sort_unstable();
        let sum: Duration = draws.iter().sum();
        assert!((3520..3680).contains(&(sum.as_secs() / 20_001)));
        // The median is the mean times ln 2: 2,495 s.
        assert!((2430..2560).contains(&draws[10_000].as_secs()));
    }

    #[test]
    fn zipf_draws_fall_off_as_the_exponent_says() {
        let mut rng = Rng::from_seed([3; 32]);
        let zipf = Zipf::new(1000, 910);
        let mut counts = [0_u32; 1000];
        for _ in 0..100_000 {
            counts[zipf.draw(&mut rng)] += 1;
        }
        // 10^0.91 is 8.13.
        let ratio = f64::from(counts[0]) / f64::from(counts[9]);
        assert!((7.0..9.3).contains(&ratio), "{ratio}");
    }
}
