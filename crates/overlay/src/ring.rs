//! The ring: positions, distances and the harmonic density.
//!
//! Positions are the numbers 0 to 2^64 − 1, closed to a circle. A key belongs to
//! the node whose position is nearest to it, in either direction; of two at equal
//! distance, to the one met first going clockwise (upwards) from the key.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{NodeId, OverlayId};
use crate::rng::Rng;

/// How well a node suits a key; the least is in charge ([`Position::rank`]).
pub type Rank = (u64, bool);

/// A place on the ring.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position(u64);

impl Position {
    /// Makes a position from its number.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Derives a node's place from its key and the overlay, so that nobody chooses
    /// where to sit and a place in one overlay says nothing about another.
    pub fn of_node(overlay: &OverlayId, id: &NodeId) -> Self {
        let mut input = [0; 64];
        input[..32].copy_from_slice(overlay.as_bytes());
        input[32..].copy_from_slice(id.as_bytes());
        Self::of_hash(&blake3::derive_key("enishi 1 node position", &input))
    }

    /// Takes the position of a hash: its first eight octets, most significant first.
    pub const fn of_hash(hash: &[u8; 32]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *hash;
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    /// Returns the number of the position.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Returns how far it is to `to` going clockwise.
    pub const fn clockwise(self, to: Self) -> u64 {
        to.0.wrapping_sub(self.0)
    }

    /// Returns the shorter way between the two.
    pub const fn distance(self, other: Self) -> u64 {
        let (up, down) = (self.clockwise(other), other.clockwise(self));
        if up < down { up } else { down }
    }

    /// Orders nodes by how well they suit `self` as a key: the least is in charge.
    pub const fn rank(self, node: Self) -> Rank {
        let (up, down) = (self.clockwise(node), node.clockwise(self));
        if up <= down {
            (up, false)
        } else {
            (down, true)
        }
    }

    /// Returns the position `distance` further clockwise.
    pub const fn advance(self, distance: u64) -> Self {
        Self(self.0.wrapping_add(distance))
    }

    /// Returns the middle of the way clockwise from `self` to `to`.
    pub const fn midpoint(self, to: Self) -> Self {
        self.advance(self.clockwise(to) / 2)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A stretch of the ring: from `start` clockwise up to, not including, `end`.
/// When both are equal it is the whole ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arc {
    /// The first position of the stretch.
    pub start: Position,
    /// The first position after the stretch.
    pub end: Position,
}

impl Arc {
    /// The whole ring.
    pub const ALL: Self = Self {
        start: Position(0),
        end: Position(0),
    };

    /// Tells whether the position lies on the stretch.
    pub const fn contains(&self, position: Position) -> bool {
        self.start.0 == self.end.0
            || self.start.clockwise(position) < self.start.clockwise(self.end)
    }
}

/// Draws a distance from the harmonic density p(x) = 1/(x ln n) on [1/n, 1] of the
/// ring (Symphony, section 3.2), in integers only so that runs replay anywhere.
///
/// An octave is drawn evenly, then a point in it by rejection with probability
/// proportional to 1/x. At most 64 rounds; nine of ten draws need three.
pub fn harmonic_distance(rng: &mut Rng, nodes: u64) -> u64 {
    const ROUNDS_MAX: u32 = 64;
    const UNIT: u64 = 1 << 32;
    let nodes = nodes.max(2);
    let shortest = u64::MAX / nodes;
    let octaves = u64::from((nodes - 1).ilog2() + 1);
    for _ in 0..ROUNDS_MAX {
        let octave = rng.below(octaves);
        let point = UNIT + rng.below(UNIT);
        if rng.below(point) >= UNIT {
            continue;
        }
        let distance = ((point << 31) | rng.below(1 << 31)) >> octave;
        if distance >= shortest {
            return distance;
        }
    }
    u64::MAX / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64) -> Position {
        Position::from_number(number)
    }

    #[test]
    fn distance_takes_the_shorter_way_round() {
        assert_eq!(at(10).distance(at(u64::MAX)), 11);
        assert_eq!(at(u64::MAX).clockwise(at(10)), 11);
        assert_eq!(at(u64::MAX - 1).midpoint(at(4)), at(1));
    }

    #[test]
    fn of_two_equally_near_nodes_the_clockwise_one_is_in_charge() {
        let key = at(100);
        assert!(key.rank(at(110)) < key.rank(at(90)));
        assert!(key.rank(at(91)) < key.rank(at(110)));
    }

    #[test]
    fn arcs_wrap_and_equal_ends_are_the_whole_ring() {
        let arc = Arc {
            start: at(u64::MAX - 5),
            end: at(5),
        };
        assert!(arc.contains(at(u64::MAX)) && arc.contains(at(4)));
        assert!(!arc.contains(at(5)) && !arc.contains(at(1 << 40)));
        assert!(Arc::ALL.contains(at(77)));
    }

    #[test]
    fn harmonic_draws_fall_evenly_on_octaves() {
        let mut rng = Rng::from_seed([3; 32]);
        let mut octaves = [0_u32; 10];
        for _ in 0..100_000 {
            let distance = harmonic_distance(&mut rng, 1024);
            octaves[distance.leading_zeros() as usize] += 1;
        }
        for count in octaves {
            assert!((9_400..10_600).contains(&count), "{octaves:?}");
        }
    }

    #[test]
    fn harmonic_draws_stay_in_range_for_tiny_rings() {
        let mut rng = Rng::from_seed([4; 32]);
        for nodes in [0, 1, 2, 3, 5, 1000] {
            for _ in 0..1000 {
                assert!(harmonic_distance(&mut rng, nodes) >= u64::MAX / nodes.max(2));
            }
        }
    }
}
