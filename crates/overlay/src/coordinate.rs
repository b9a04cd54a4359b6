//! Network coordinates: how far two nodes are from each other that never met.
//!
//! Vivaldi (F. Dabek, R. Cox, F. Kaashoek, R. Morris, "Vivaldi: A Decentralized Network
//! Coordinate System", SIGCOMM 2004): each node has a place on a plane and a height above
//! it, its way into the network. The distance of two nodes predicts their round trip: the
//! distance on the plane plus both heights (section 5.4 there). With every measured round
//! trip a node moves a little, as if a spring of that length were between the two; the
//! less it trusts its own place and the more the other's, the further (section 4.3).
//!
//! Everything is integers, so that runs replay on any machine.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// The unit of coordinates on the wire, in microseconds.
const UNIT_MICROS: i64 = 250;
/// A share of one whole, for errors and weights.
const ONE: i64 = 1024;
/// How far a node moves towards where a measurement wants it, and how fast its error
/// follows: c_c = c_e = 1/4 (section 4.3).
const STEP: i64 = ONE / 4;
/// How many measurements are kept to pull again.
const SAMPLES_KEPT: usize = 24;
/// With fewer measurements a place means nothing.
const SAMPLES_MIN: usize = 6;
/// The least height: no node is nearer to the network than this.
const HEIGHT_MICROS_MIN: i64 = 250;
/// Round trips beyond this say nothing about the way.
const ROUND_TRIP_MICROS_MAX: i64 = 4_000_000;
/// No place is further out than this; a liar cannot push further.
const PLACE_MICROS_MAX: i64 = 8_000_000;

/// A node's place as it tells others, in units of 250 µs: at most 11 octets on the wire,
/// mostly 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinate {
    x: i16,
    y: i16,
    height: u16,
    /// How wrong it thinks it is, in 1/256 of a round trip; 255 before any measurement.
    error: u8,
}

impl Default for Coordinate {
    fn default() -> Self {
        Self {
            x: 0,
            y: 0,
            height: 0,
            error: u8::MAX,
        }
    }
}

impl Coordinate {
    /// Tells whether the node has measured enough for its place to mean something.
    pub const fn is_known(&self) -> bool {
        self.error < u8::MAX
    }

    /// Returns the predicted round trip between two nodes; none when either place means
    /// nothing yet.
    pub fn round_trip(&self, other: &Self) -> Option<Duration> {
        if !(self.is_known() && other.is_known()) {
            return None;
        }
        let (x, y) = (self.x.abs_diff(other.x), self.y.abs_diff(other.y));
        let plane = (u64::from(x).pow(2) + u64::from(y).pow(2)).isqrt();
        let units = plane + u64::from(self.height) + u64::from(other.height);
        Some(Duration::from_micros(units * UNIT_MICROS as u64))
    }

    /// Tells whether the place differs so much from an earlier one that others should
    /// hear of it: by a quarter of the predicted round trips, and by more than 16 ms.
    pub fn has_moved_from(&self, earlier: &Self) -> bool {
        const LEAST_UNITS: u64 = 64;
        let (x, y) = (self.x.abs_diff(earlier.x), self.y.abs_diff(earlier.y));
        let height = self.height.abs_diff(earlier.height);
        let moved = u64::from(x) + u64::from(y) + u64::from(height);
        let out = u64::from(earlier.x.unsigned_abs()) + u64::from(earlier.y.unsigned_abs());
        let whole = out + u64::from(earlier.height);
        moved > LEAST_UNITS.max(whole / 4)
            || self.is_known() != earlier.is_known()
            || self.error < earlier.error / 4
    }
}

/// A node's own place, with full precision.
#[derive(Clone, Debug)]
pub(crate) struct Vivaldi {
    x_micros: i64,
    y_micros: i64,
    height_micros: i64,
    /// In 1/1024 of a round trip.
    error: i64,
    /// The measurements of late, oldest first.
    samples: VecDeque<(Coordinate, Duration)>,
}

impl Vivaldi {
    pub(crate) fn new() -> Self {
        Self {
            x_micros: 0,
            y_micros: 0,
            height_micros: HEIGHT_MICROS_MIN,
            error: ONE,
            samples: VecDeque::new(),
        }
    }

    /// Returns the place as others are told it.
    pub(crate) fn coordinate(&self) -> Coordinate {
        if self.samples.len() < SAMPLES_MIN {
            return Coordinate::default();
        }
        let unit = |micros: i64| (micros / UNIT_MICROS) as i16;
        Coordinate {
            x: unit(self.x_micros),
            y: unit(self.y_micros),
            height: (self.height_micros / UNIT_MICROS) as u16,
            error: (self.error / 4).clamp(0, 254) as u8,
        }
    }

    /// Takes in a measured round trip to a node at `other`.
    ///
    /// The last [`SAMPLES_KEPT`] pull once more each time, so that few measurements are
    /// enough to find a place: a newcomer has only those of its first greetings.
    pub(crate) fn measured(&mut self, other: &Coordinate, round_trip: Duration, rng: &mut Rng) {
        let micros = round_trip.as_micros();
        // Who knows no place yet helps only those who know none either.
        let helps = other.is_known() || self.samples.len() < SAMPLES_MIN;
        if micros == 0 || micros > ROUND_TRIP_MICROS_MAX as u128 || !helps {
            return;
        }
        if self.samples.len() >= SAMPLES_KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back((*other, round_trip));
        for index in 0..self.samples.len() {
            let (other, round_trip) = self.samples[index];
            self.pull(&other, round_trip, rng);
        }
    }

    fn pull(&mut self, other: &Coordinate, round_trip: Duration, rng: &mut Rng) {
        let micros = i64::try_from(round_trip.as_micros()).unwrap_or(i64::MAX);
        let micros = micros.clamp(1, ROUND_TRIP_MICROS_MAX);
        let (mut dx, mut dy) = (
            self.x_micros - i64::from(other.x) * UNIT_MICROS,
            self.y_micros - i64::from(other.y) * UNIT_MICROS,
        );
        if dx == 0 && dy == 0 {
            // Two nodes at one place leave it in a direction drawn by lot.
            (dx, dy) = (draw(rng), draw(rng));
        }
        let plane = ((dx * dx + dy * dy) as u64).isqrt().max(1) as i64;
        let other_height = (i64::from(other.height) * UNIT_MICROS).max(HEIGHT_MICROS_MIN);
        let predicted = plane + self.height_micros + other_height;
        let other_error = (i64::from(other.error) * 4).max(1);
        let weight = self.error * ONE / (self.error + other_error).max(1);
        let off = ((predicted - micros).abs() * ONE / micros).min(ONE);
        let pace = STEP * weight / ONE;
        self.error = ((off * pace + self.error * (ONE - pace)) / ONE).clamp(1, ONE);
        // The whole way is divided on plane and heights as it is now.
        let push = (micros - predicted) * pace / ONE;
        self.x_micros = bounded(self.x_micros + push * dx / predicted);
        self.y_micros = bounded(self.y_micros + push * dy / predicted);
        let rise = push * (self.height_micros + other_height) / predicted;
        self.height_micros = (self.height_micros + rise).clamp(HEIGHT_MICROS_MIN, PLACE_MICROS_MAX);
    }
}

fn bounded(micros: i64) -> i64 {
    micros.clamp(-PLACE_MICROS_MAX, PLACE_MICROS_MAX)
}

fn draw(rng: &mut Rng) -> i64 {
    rng.below(2001) as i64 - 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes on a plane of 100 ms, each with a way of 2 to 20 ms into the network.
    #[test]
    fn predictions_come_near_the_truth() {
        let mut rng = Rng::from_seed([5; 32]);
        let spots: Vec<(i64, i64, i64)> = (0..60)
            .map(|_| {
                let (x, y) = (rng.below(100_000) as i64, rng.below(100_000) as i64);
                (x, y, 2_000 + rng.below(18_000) as i64)
            })
            .collect();
        let truth = |a: usize, b: usize| {
            let (p, q) = (spots[a], spots[b]);
            let plane = (((p.0 - q.0).pow(2) + (p.1 - q.1).pow(2)) as u64).isqrt();
            plane + (p.2 + q.2) as u64
        };
        let mut places: Vec<Vivaldi> = spots.iter().map(|_| Vivaldi::new()).collect();
        for _ in 0..60 * 120 {
            let (a, b) = (rng.below(60) as usize, rng.below(60) as usize);
            if a != b {
                let other = places[b].coordinate();
                let measured = Duration::from_micros(truth(a, b));
                places[a].measured(&other, measured, &mut rng);
            }
        }
        let mut errors = Vec::new();
        for a in 0..60 {
            for b in 0..a {
                let predicted = places[a].coordinate().round_trip(&places[b].coordinate());
                let predicted = predicted.unwrap().as_micros() as u64;
                errors.push(predicted.abs_diff(truth(a, b)) * 100 / truth(a, b));
            }
        }
        errors.sort_unstable();
        assert!(
            errors[errors.len() / 2] < 12,
            "median {} %",
            errors[errors.len() / 2]
        );
    }

    #[test]
    fn a_liar_pushes_nobody_out_of_bounds() {
        let mut rng = Rng::from_seed([6; 32]);
        let mut place = Vivaldi::new();
        for number in 0..10_000_u32 {
            let lie = Coordinate {
                x: i16::MAX,
                y: i16::MIN,
                height: u16::MAX,
                error: (number % 2) as u8,
            };
            place.measured(
                &lie,
                Duration::from_millis(u64::from(number % 4000)),
                &mut rng,
            );
        }
        let coordinate = place.coordinate();
        assert!(coordinate.round_trip(&Coordinate::default()).is_none());
        assert!(place.x_micros.abs() <= PLACE_MICROS_MAX);
    }
}
