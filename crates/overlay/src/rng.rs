//! Randomness as the pure crates see it: a stream that follows from a given seed.

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng as _, SeedableRng};
use std::time::Duration;

/// A deterministic stream of random numbers (ChaCha12).
///
/// With a secret seed from the system it is unpredictable to others; with a known
/// seed the same run replays.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha12Rng);

impl Rng {
    /// Starts the stream of a seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha12Rng::from_seed(seed))
    }

    /// Returns 64 even random bits.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Returns an even random number below `bound`; 0 when `bound` is 0.
    ///
    /// Widening multiplication; the bias is below `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.number()) * u128::from(bound);
        (product >> 64) as u64
    }

    /// Fills the buffer with random octets.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        self.0.fill_bytes(buffer);
    }

    /// Returns 32 random octets.
    pub fn octets(&mut self) -> [u8; 32] {
        let mut octets = [0; 32];
        self.fill(&mut octets);
        octets
    }

    /// Returns an even random duration below `bound`.
    pub fn duration_below(&mut self, bound: Duration) -> Duration {
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.below(micros))
    }

    /// Returns `base` lengthened or shortened by up to a fifth, evenly.
    ///
    /// Every periodic action takes its next delay from here, so that nodes that
    /// started together do not stay together.
    pub fn jitter(&mut self, base: Duration) -> Duration {
        let fifth = base / 5;
        base - fifth + self.duration_below(fifth * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_fifth() {
        let mut rng = Rng::from_seed([1; 32]);
        let base = Duration::from_secs(10);
        for _ in 0..1000 {
            let delay = rng.jitter(base);
            assert!(delay >= Duration::from_secs(8) && delay < Duration::from_secs(12));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_stream() {
        let (mut a, mut b) = (Rng::from_seed([9; 32]), Rng::from_seed([9; 32]));
        assert!((0..100).all(|_| a.number() == b.number()));
    }
}
