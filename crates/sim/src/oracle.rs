//! What should be the case, seen from above: it judges and never helps.

use std::collections::BTreeSet;

use enishi_overlay::{NodeId, Position};

use crate::world::{Index, World};

/// How many near neighbours a node has on each side where there are enough nodes.
const NEAR: usize = 6;

/// Everyone's place, sorted, for one moment.
#[derive(Debug)]
pub struct Census {
    places: Vec<(Position, NodeId, Index)>,
}

impl Census {
    /// Takes the census of the living on the ring; clients do not count.
    pub fn take(world: &World) -> Self {
        let mut places: Vec<_> = world
            .living()
            .filter(|(_, node)| !node.overlay().is_client())
            .map(|(index, node)| (node.overlay().position(), node.id(), index))
            .collect();
        places.sort_unstable();
        Self { places }
    }

    /// Returns how many live on the ring.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Tells whether nobody lives there.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Returns the `count` nodes nearest to a position, nearest first.
    pub fn nearest(&self, target: Position, count: usize) -> Vec<Index> {
        let len = self.places.len();
        let at = self
            .places
            .partition_point(|(position, _, _)| *position < target);
        let reach = count.min(len);
        let mut around: Vec<_> = (0..2 * reach)
            .map(|i| self.places[(at + len + i - reach) % len])
            .map(|(position, id, index)| (target.rank(position), id, index))
            .collect();
        around.sort_unstable();
        around.dedup();
        around.truncate(count);
        around.into_iter().map(|(_, _, index)| index).collect()
    }

    /// Returns how many nodes do not count exactly their true neighbours, six on each
    /// side, among their near ones.
    pub fn near_gaps(&self, world: &World) -> usize {
        let len = self.places.len();
        let wrong = |i: usize| {
            let each = NEAR.min(len - 1);
            let around = (1..=each).flat_map(|step| [(i + step) % len, (i + len - step) % len]);
            let expected: BTreeSet<NodeId> = around.map(|at| self.places[at].1).collect();
            let near = world
                .node(self.places[i].2)
                .map(|node| node.overlay().near());
            let known = near.map(|near| near.iter().map(|place| place.id).collect());
            known != Some(expected)
        };
        (0..len).filter(|i| wrong(*i)).count()
    }

    /// Returns how many nodes do not know their true successor or predecessor.
    pub fn ring_gaps(&self, world: &World) -> usize {
        let len = self.places.len();
        let wrong = |i: usize| {
            let (_, _, index) = self.places[i];
            let near = world.node(index).map(|node| node.overlay().near());
            let (after, before) = (
                self.places[(i + 1) % len].1,
                self.places[(i + len - 1) % len].1,
            );
            len > 1
                && !near.is_some_and(|near| {
                    near.successors()
                        .first()
                        .is_some_and(|place| place.id == after)
                        && near
                            .predecessors()
                            .first()
                            .is_some_and(|place| place.id == before)
                })
        };
        (0..len).filter(|i| wrong(*i)).count()
    }
}
