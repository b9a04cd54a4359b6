//! The near neighbours: the nodes next to this one on the ring, on both sides.
//!
//! They make the ring a ring: while each node knows its nearest live neighbours,
//! greedy routing ends at the node in charge. They are also the candidates for
//! replicas, which are the nodes nearest to a key.

use crate::id::NodeId;
use crate::ring::{Arc, Position};

/// A node and its place on the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Where it sits.
    pub position: Position,
    /// Who it is.
    pub id: NodeId,
}

/// The nearest nodes on each side, nearest first.
///
/// On a ring with few nodes the two sides overlap and hold the same nodes.
#[derive(Clone, Debug)]
pub struct NearSet {
    me: Place,
    side_max: usize,
    successors: Vec<Place>,
    predecessors: Vec<Place>,
}

impl NearSet {
    /// Makes an empty set that will hold up to `side_max` nodes on each side.
    pub fn new(me: Place, side_max: usize) -> Self {
        Self {
            me,
            side_max,
            successors: Vec::new(),
            predecessors: Vec::new(),
        }
    }

    /// Tells whether the node would get a place on either side.
    pub fn would_take(&self, place: Place) -> bool {
        place.id != self.me.id
            && (room_for(&self.successors, self.side_max, place, |p| self.after(p))
                || room_for(&self.predecessors, self.side_max, place, |p| self.before(p)))
    }

    /// Adds a live node where it belongs; tells whether the set changed.
    pub fn insert(&mut self, place: Place) -> bool {
        if !self.would_take(place) {
            return false;
        }
        let me = self.me.position;
        let side_max = self.side_max;
        let up = put(&mut self.successors, side_max, place, |p| {
            me.clockwise(p.position)
        });
        let down = put(&mut self.predecessors, side_max, place, |p| {
            p.position.clockwise(me)
        });
        up || down
    }

    /// Removes a node; tells whether it was there.
    pub fn remove(&mut self, id: NodeId) -> bool {
        let before = self.successors.len() + self.predecessors.len();
        self.successors.retain(|place| place.id != id);
        self.predecessors.retain(|place| place.id != id);
        before != self.successors.len() + self.predecessors.len()
    }

    /// Tells whether the node is in the set.
    pub fn contains(&self, id: NodeId) -> bool {
        self.iter().any(|place| place.id == id)
    }

    /// Returns the nodes clockwise of this one, nearest first.
    pub fn successors(&self) -> &[Place] {
        &self.successors
    }

    /// Returns the nodes counter-clockwise of this one, nearest first.
    pub fn predecessors(&self) -> &[Place] {
        &self.predecessors
    }

    /// Visits every node of the set once.
    pub fn iter(&self) -> impl Iterator<Item = Place> + '_ {
        let second = self
            .predecessors
            .iter()
            .filter(|place| !self.successors.contains(place));
        self.successors.iter().chain(second).copied()
    }

    /// Returns how many distinct nodes the set holds.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Tells whether this node knows no neighbour.
    pub fn is_empty(&self) -> bool {
        self.successors.is_empty() && self.predecessors.is_empty()
    }

    /// Tells whether the two sides meet, that is, whether every node of the ring is
    /// in the set. A node alone spans its ring.
    pub fn spans_ring(&self) -> bool {
        self.is_empty()
            || self
                .successors
                .iter()
                .any(|place| self.predecessors.contains(place))
    }

    /// Returns the `count` nodes nearest to `key` among this one and its neighbours,
    /// nearest first: the replica set as far as this node can see.
    pub fn nearest(&self, key: Position, count: usize) -> Vec<Place> {
        let mut all: Vec<Place> = self.iter().chain([self.me]).collect();
        all.sort_by_key(|place| (key.rank(place.position), place.id));
        all.truncate(count);
        all
    }

    /// Returns the stretch of keys for which this node is among the `count` nearest.
    ///
    /// The replica set of a key is a run of `count` successive nodes; this node is in
    /// it as long as the key is nearer to it than to the node `count` places away on
    /// the other side, so the stretch ends half way to those two. Needs `count` ≤
    /// neighbours per side to be exact.
    pub fn arc_held(&self, count: usize) -> Arc {
        if self.spans_ring() && self.len() < count {
            return Arc::ALL;
        }
        // A side that has lost neighbours and not yet found others counts to its end.
        let furthest = |side: &[Place]| side.get(count - 1).or(side.last()).copied();
        match (furthest(&self.predecessors), furthest(&self.successors)) {
            (Some(before), Some(after)) => Arc {
                start: before.position.midpoint(self.me.position),
                end: self.me.position.midpoint(after.position),
            },
            _ => Arc::ALL,
        }
    }

    fn after(&self, place: Place) -> u64 {
        self.me.position.clockwise(place.position)
    }

    fn before(&self, place: Place) -> u64 {
        place.position.clockwise(self.me.position)
    }
}

fn room_for(
    side: &[Place],
    side_max: usize,
    place: Place,
    distance: impl Fn(Place) -> u64,
) -> bool {
    !side.contains(&place)
        && (side.len() < side_max
            || side
                .last()
                .is_some_and(|last| distance(place) < distance(*last)))
}

fn put(
    side: &mut Vec<Place>,
    side_max: usize,
    place: Place,
    distance: impl Fn(Place) -> u64,
) -> bool {
    if side.contains(&place) {
        return false;
    }
    let index = side.partition_point(|other| distance(*other) < distance(place));
    if index >= side_max {
        return false;
    }
    side.insert(index, place);
    side.truncate(side_max);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u64) -> Place {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        Place {
            position: Position::from_number(number),
            id: NodeId::from_bytes(id),
        }
    }

    fn set(me: u64, others: &[u64]) -> NearSet {
        let mut set = NearSet::new(place(me), 3);
        for number in others {
            set.insert(place(*number));
        }
        set
    }

    #[test]
    fn keeps_the_nearest_on_each_side() {
        let near = set(1000, &[10, 900, 1100, 1200, 1300, 1400, 950, 960, 1001]);
        assert_eq!(near.successors(), [place(1001), place(1100), place(1200)]);
        assert_eq!(near.predecessors(), [place(960), place(950), place(900)]);
        assert!(!near.spans_ring());
        assert!(near.would_take(place(999)) && !near.would_take(place(2000)));
    }

    #[test]
    fn few_nodes_are_on_both_sides_and_span_the_ring() {
        let near = set(5, &[10, 20, 30]);
        assert_eq!(near.len(), 3);
        assert!(near.spans_ring());
        assert_eq!(near.arc_held(3), near.arc_held(3));
        assert!(near.arc_held(6).contains(Position::from_number(77)));
    }

    #[test]
    fn holds_exactly_the_keys_for_which_it_is_among_the_nearest() {
        let numbers: Vec<u64> = (0..32)
            .map(|i| i * (u64::MAX / 32) + i * i * 1000)
            .collect();
        let count = 3;
        for me in &numbers {
            let near = set(*me, &numbers);
            let arc = near.arc_held(count);
            for step in 0..2000 {
                let key = Position::from_number(step * (u64::MAX / 2000));
                let mut all: Vec<Place> = numbers.iter().map(|n| place(*n)).collect();
                all.sort_by_key(|p| key.rank(p.position));
                let holds = all[..count].contains(&place(*me));
                assert_eq!(arc.contains(key), holds, "{me} {key:?}");
            }
        }
    }
}
