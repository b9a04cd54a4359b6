//! Whether daemons know their true neighbours, seen from above.

/// How many near neighbours a node has on each side where there are enough nodes.
const NEAR: usize = 6;

/// Whom a node has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    /// Its true successor and predecessor, and nobody nearer who is dead.
    Next,
    /// The [`NEAR`] true ones on each side, and nobody else.
    Near,
}

/// A node and where it is on the ring.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) position: u64,
    pub(super) id: String,
}

/// Where the living are; whom each should know follows from it.
#[derive(Debug, Default)]
pub(super) struct Ring {
    living: Vec<Place>,
}

impl Ring {
    /// Makes the ring of nodes that live.
    pub(super) fn new(mut living: Vec<Place>) -> Self {
        living.sort();
        Self { living }
    }

    /// Tells whether a living node knows those that it should, when it says that these are
    /// its near neighbours; no for one that is not on the ring.
    pub(super) fn is_right(&self, node: &Place, said: &[Place], whom: Whom) -> bool {
        let living: Vec<&Place> = self.living.iter().collect();
        self.living.binary_search(node).is_ok_and(|at| match whom {
            Whom::Next => knows_next(&living, at, said),
            Whom::Near => knows_all(&living, at, said),
        })
    }
}

/// Tells whether the first of those named in each direction is the true one.
fn knows_next(living: &[&Place], at: usize, said: &[Place]) -> bool {
    let len = living.len();
    let me = living[at].position;
    let after = said
        .iter()
        .min_by_key(|other| other.position.wrapping_sub(me));
    let before = said
        .iter()
        .min_by_key(|other| me.wrapping_sub(other.position));
    len == 1
        || (after == Some(living[(at + 1) % len]) && before == Some(living[(at + len - 1) % len]))
}

/// Tells whether those named are the true ones, no more and no fewer.
fn knows_all(living: &[&Place], at: usize, said: &[Place]) -> bool {
    let len = living.len();
    let each = NEAR.min(len - 1);
    let around = (1..=each).flat_map(|step| [(at + step) % len, (at + len - step) % len]);
    let mut expected: Vec<&Place> = around.map(|place| living[place]).collect();
    expected.sort();
    expected.dedup();
    let mut said: Vec<&Place> = said.iter().collect();
    said.sort();
    said == expected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u64) -> Place {
        Place {
            position: number << 58,
            id: format!("n{number}"),
        }
    }

    fn ring(numbers: impl IntoIterator<Item = u64>) -> Ring {
        Ring::new(numbers.into_iter().map(place).collect())
    }

    /// What number 7 of twenty should say.
    fn around_seven() -> Vec<Place> {
        let around = (1..=6).flat_map(|step| [7 + step, 7 - step]);
        around.map(place).collect()
    }

    #[test]
    fn who_is_right_knows_the_next_and_all() {
        let (ring, said) = (ring(0..20), around_seven());
        assert!(ring.is_right(&place(7), &said, Whom::Next));
        assert!(ring.is_right(&place(7), &said, Whom::Near));
        // The same of another node, or of one that is not there.
        for node in [8, 30] {
            assert!(!ring.is_right(&place(node), &said, Whom::Next));
            assert!(!ring.is_right(&place(node), &said, Whom::Near));
        }
    }

    #[test]
    fn the_dead_and_the_forgotten_are_noticed() {
        let said = around_seven();
        // A dead neighbour next to it; a dead one further away.
        let without = |gone: u64| ring((0..20).filter(move |number| *number != gone));
        assert!(!without(8).is_right(&place(7), &said, Whom::Next));
        assert!(without(9).is_right(&place(7), &said, Whom::Next));
        assert!(!without(9).is_right(&place(7), &said, Whom::Near));
        // The farthest of twelve forgotten; the next one forgotten; all forgotten.
        assert!(ring(0..20).is_right(&place(7), &said[..11], Whom::Next));
        assert!(!ring(0..20).is_right(&place(7), &said[..11], Whom::Near));
        assert!(!ring(0..20).is_right(&place(7), &said[1..], Whom::Next));
        assert!(!ring(0..20).is_right(&place(7), &[], Whom::Next));
    }

    #[test]
    fn small_rings_wrap_around() {
        assert!(ring([1]).is_right(&place(1), &[], Whom::Near));
        assert!(!ring([1]).is_right(&place(1), &[place(2)], Whom::Near));
        assert!(ring([1, 2]).is_right(&place(1), &[place(2)], Whom::Next));
        assert!(ring([1, 2]).is_right(&place(1), &[place(2)], Whom::Near));
        assert!(!ring([1, 2]).is_right(&place(2), &[], Whom::Next));
    }
}
