//! The geometry: which distance brings a message nearer, and which long links serve it.
//!
//! Symphony's is the overlay's own. The others do the same job for comparison, as in
//! K. Gummadi et al., "The Impact of DHT Routing Geometry on Resilience and Proximity",
//! SIGCOMM 2003: whatever the geometry, a node keeps its near neighbours on the ring, and
//! the node in charge is the nearest on the ring. So everything but the choice of long
//! links and of next hops is the same for all.
//!
//! | geometry | distance | long links |
//! |---|---|---|
//! | Symphony | the shorter way round the ring | harmonic draws (G. S. Manku et al., USITS 2003) |
//! | Chord | clockwise | fingers at 1/2, 1/4, … of the ring (I. Stoica et al., SIGCOMM 2001) |
//! | Kademlia | XOR of the positions | one node at least in each bucket (P. Maymounkov, D. Mazières, IPTPS 2002) |
//! | CAN | sum over the axes of a torus | the zones next to the node's, both ways on each axis (S. Ratnasamy et al., SIGCOMM 2001) |
//!
//! A message goes by the geometry's distance until it is in the neighbourhood of the target
//! on the ring, or nobody nearer is known; from there it goes by the ring ([`Routed::by_ring`]).
//! In each of the two stages every hop is nearer than the last, so there are no circles.
//!
//! CAN's coordinates are the bits of the position dealt out to the axes in turn, and its
//! zones the blocks of positions that share their first log2 n bits: the zones that CAN's
//! splits make when nodes are spread evenly.
//!
//! [`Routed::by_ring`]: crate::message::Routed::by_ring

use serde::{Deserialize, Serialize};

use crate::ring::{Position, Rank};
use crate::rng::Rng;

/// The most axes of a torus; more are taken for so many.
pub const DIMENSIONS_MAX: u8 = 32;
/// Bits taken off each coordinate's distance, so that the sum of all does not overflow.
const SUM_BITS: u32 = 6;
/// How many 1/256 hops each doubling of the distance to the target costs, on average.
const HOPS_PER_DOUBLING_256: u64 = 90;

/// Which distance brings messages nearer, and which long links a node draws. All nodes of an
/// overlay must have the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Geometry {
    /// The ring in both directions, with links of harmonic lengths.
    #[default]
    Symphony,
    /// The ring in one direction, with links of lengths that halve.
    Chord,
    /// The tree of prefixes: XOR.
    Kademlia,
    /// A torus.
    Can {
        /// Its axes, 1 to [`DIMENSIONS_MAX`].
        dimensions: u8,
    },
}

impl Geometry {
    /// Returns how far a message at `from` is from `target`; the least is best. Comparable
    /// for the same target only.
    #[inline]
    pub fn remaining(self, from: Position, target: Position) -> Rank {
        match self {
            Self::Symphony => target.rank(from),
            Self::Chord => (from.clockwise(target), false),
            Self::Kademlia => (from.number() ^ target.number(), false),
            Self::Can { dimensions } => (on_torus(axes(dimensions), from, target), false),
        }
    }

    /// Returns how many 1/256 hops a message still makes on average in an overlay of `size`
    /// nodes, the last `spared_256` 1/256 nodes of the ring's distance not counted.
    pub(crate) fn hops_left_256(self, remaining: Rank, size: u64, spared_256: u64) -> u64 {
        match self {
            Self::Symphony | Self::Chord | Self::Kademlia => {
                let nodes_256 = (u128::from(remaining.0) * u128::from(size) * 256) >> 64;
                let nodes_256 = nodes_256.saturating_sub(u128::from(spared_256));
                let doublings_256 = log2_256(nodes_256 as u64 + 256) - log2_256(256);
                doublings_256 * HOPS_PER_DOUBLING_256 / 256
            }
            Self::Can { dimensions } => {
                // Zones to be crossed; who looks ahead crosses two at a time.
                let zones_per_axis = 1_u128 << (size.max(1).ilog2() / axes(dimensions));
                let zones_256 = (u128::from(remaining.0) * zones_per_axis * 256) >> (64 - SUM_BITS);
                zones_256 as u64 / 2
            }
        }
    }

    /// Returns into how many slots the long links of a node are sorted in an overlay of
    /// `size` nodes: fingers, buckets or directions; none where links are drawn freely.
    pub(crate) fn slots(self, size: u64) -> u32 {
        match self {
            Self::Symphony => 0,
            // The last three halvings are within the near neighbours, or almost.
            Self::Chord | Self::Kademlia => size.max(1).ilog2().saturating_sub(3).max(1),
            Self::Can { dimensions } => 2 * axes(dimensions),
        }
    }

    /// Returns in which slot of `me` a node at `position` is, if that follows from its
    /// position alone.
    pub(crate) fn slot_of(self, me: Position, position: Position) -> Option<u32> {
        match self {
            Self::Symphony | Self::Can { .. } => None,
            Self::Chord => {
                // A finger's slot reaches from three quarters of its length to twice that.
                let distance = me.clockwise(position);
                Some(distance.saturating_add(distance / 3).leading_zeros())
            }
            Self::Kademlia => Some((me.number() ^ position.number()).leading_zeros()),
        }
    }

    /// Returns a point in a slot, to whose node in charge a link may go; none where links
    /// are drawn freely.
    pub(crate) fn point(
        self,
        rng: &mut Rng,
        me: Position,
        slot: u32,
        size: u64,
    ) -> Option<Position> {
        match self {
            Self::Symphony => None,
            Self::Chord => {
                // A little further at random: who refused once would refuse again.
                let length = 1_u64 << (63 - slot.min(63));
                Some(me.advance(length + rng.below(length / 4 + 1)))
            }
            Self::Kademlia => {
                let flip = 1_u64 << (63 - slot.min(63));
                let below = flip - 1;
                let number = (me.number() ^ flip) & !below | rng.number() & below;
                Some(Position::from_number(number))
            }
            Self::Can { dimensions } => {
                Some(beside(axes(dimensions), me, slot, size.max(1).ilog2()))
            }
        }
    }
}

fn axes(dimensions: u8) -> u32 {
    u32::from(dimensions.clamp(1, DIMENSIONS_MAX))
}

/// Returns every `axes`-th bit from the `axis`-th on, from the top of a number downwards.
fn coordinate(number: u64, axis: u32, axes: u32) -> u64 {
    let bits = (axis..64).step_by(axes as usize);
    let placed = (0..).zip(bits);
    placed.fold(0, |sum, (place, bit)| {
        sum | (number << bit >> 63) << (63 - place)
    })
}

/// Puts a coordinate back into a number.
fn with_coordinate(number: u64, axis: u32, axes: u32, coordinate: u64) -> u64 {
    let bits = (axis..64).step_by(axes as usize);
    (0..).zip(bits).fold(number, |number, (place, bit)| {
        let value = coordinate << place >> 63;
        number & !(1 << (63 - bit)) | value << (63 - bit)
    })
}

fn on_torus(axes: u32, from: Position, target: Position) -> u64 {
    let distance = |axis| {
        let (a, b) = (from.number(), target.number());
        let way = coordinate(a, axis, axes).wrapping_sub(coordinate(b, axis, axes));
        way.min(way.wrapping_neg()) >> SUM_BITS
    };
    (0..axes).map(distance).sum()
}

/// Returns the point one zone away: slots are the axes in turn, upwards and downwards each.
fn beside(axes: u32, me: Position, slot: u32, zone_bits: u32) -> Position {
    let (axis, down) = (slot / 2 % axes, slot % 2 == 1);
    let bits = (axis..zone_bits).step_by(axes as usize).count() as u32;
    if bits == 0 {
        return me;
    }
    let zone = 1_u64 << (64 - bits);
    let mine = coordinate(me.number(), axis, axes);
    let theirs = if down {
        mine.wrapping_sub(zone)
    } else {
        mine.wrapping_add(zone)
    };
    Position::from_number(with_coordinate(me.number(), axis, axes, theirs))
}

/// Returns the binary logarithm in 1/256, interpolated linearly between powers of two.
fn log2_256(number: u64) -> u64 {
    let number = number.max(1);
    let whole = u64::from(number.ilog2());
    let rest = (u128::from(number) << 8 >> whole) as u64 - 256;
    whole * 256 + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use proptest::prelude::*;

    fn at(number: u64) -> Position {
        Position::from_number(number)
    }

    #[test]
    fn logarithms_are_exact_at_powers_of_two_and_grow_between() {
        for power in 0..64 {
            assert_eq!(log2_256(1 << power), power * 256);
        }
        assert!(log2_256(6) > log2_256(5) && log2_256(6) == 2 * 256 + 128);
    }

    #[test]
    fn bits_are_dealt_out_to_the_axes_in_turn() {
        let number = 0b1011_0110 << 56;
        assert_eq!(coordinate(number, 0, 2), 0b1101 << 60);
        assert_eq!(coordinate(number, 1, 2), 0b0110 << 60);
        assert_eq!(coordinate(number, 0, 1), number);
    }

    #[test]
    fn neighbours_on_the_torus_are_one_zone_away_on_one_axis() {
        let can = Geometry::Can { dimensions: 3 };
        let mut rng = Rng::from_seed([5; 32]);
        // 512 nodes: nine bits, three on each axis, so eight zones all around.
        for slot in 0..can.slots(512) {
            let me = at(rng.number());
            let point = can.point(&mut rng, me, slot, 512).unwrap();
            assert_eq!(can.remaining(me, point).0, (1 << 61) >> SUM_BITS);
            let ways: Vec<bool> = (0..3)
                .map(|axis| coordinate(me.number(), axis, 3) != coordinate(point.number(), axis, 3))
                .collect();
            assert_eq!(ways.iter().filter(|way| **way).count(), 1);
            assert!(ways[slot as usize / 2]);
        }
    }

    #[test]
    fn points_lie_in_their_slots() {
        let mut rng = Rng::from_seed([6; 32]);
        for geometry in [Geometry::Chord, Geometry::Kademlia] {
            for slot in 0..geometry.slots(1 << 20) {
                let me = at(rng.number());
                let point = geometry.point(&mut rng, me, slot, 1 << 20).unwrap();
                assert_eq!(geometry.slot_of(me, point), Some(slot), "{geometry:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_remains_at_the_target_and_something_elsewhere(
            a in any::<u64>(),
            b in any::<u64>(),
            dimensions in 1_u8..=8,
        ) {
            prop_assume!(a != b);
            let can = Geometry::Can { dimensions };
            for geometry in [Geometry::Symphony, Geometry::Chord, Geometry::Kademlia, can] {
                prop_assert_eq!(geometry.remaining(at(a), at(a)).0, 0);
                prop_assert!(geometry.remaining(at(a), at(b)).0 > 0 || a >> 40 == b >> 40);
            }
        }

        #[test]
        fn coordinates_go_back_where_they_came_from(
            number in any::<u64>(),
            other in any::<u64>(),
            axes in 1_u32..=32,
            axis in 0_u32..32,
        ) {
            let axis = axis % axes;
            let own = coordinate(number, axis, axes);
            prop_assert_eq!(with_coordinate(other, axis, axes, own) & !other & !number, 0);
            prop_assert_eq!(coordinate(with_coordinate(other, axis, axes, own), axis, axes), own);
        }
    }
}
