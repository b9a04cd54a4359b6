//! Who did not confirm a message, as the message itself tells on its way.
//!
//! A node that is silent to one may be slow, or cannot be reached by that one alone. So each
//! message carries whom it was sent to in vain, and by how many. Who is silent to three
//! counts as gone for this message, everywhere on its way: nobody else waits for it, and the
//! next in line answers in its place.

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::ring::Position;

/// How many must have found a node silent before nobody tries it any more.
const WITNESSES: u32 = 3;
/// The most silent nodes that a message tells of; it keeps the first.
pub const SILENCES_MAX: usize = 8;

/// A node that did not confirm in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Where it sits.
    pub position: Position,
    /// To whom it was silent: a bit for each, drawn by the node id, so that the same node
    /// counts once.
    pub witnesses: u16,
}

/// The silent nodes that a message was meant for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silences(Vec<Silence>);

/// Keeps the first [`SILENCES_MAX`].
impl FromIterator<Silence> for Silences {
    fn from_iter<I: IntoIterator<Item = Silence>>(silences: I) -> Self {
        Self(silences.into_iter().take(SILENCES_MAX).collect())
    }
}

impl Silences {
    /// Tells whether there are no more than allowed.
    pub fn is_bounded(&self) -> bool {
        self.0.len() <= SILENCES_MAX
    }

    /// Notes that a node was silent to `witness`; tells whether that is news.
    pub(crate) fn note(&mut self, position: Position, witness: NodeId) -> bool {
        let before = self.weight();
        self.add(position, bit_of(witness));
        self.weight() > before
    }

    /// Takes in what other messages of the same question told `listener`: so much that it takes
    /// one more to believe it, unless the listener is among those who tell.
    pub(crate) fn hear(&mut self, told: &Self, listener: NodeId) {
        for silence in &told.0 {
            let mut heard = silence.witnesses;
            if heard & bit_of(listener) == 0 {
                heard = one_too_few(heard);
            }
            self.add(silence.position, heard);
        }
    }

    /// Has `listener` believe a message no more than it should, for what it carries may be
    /// forged: the listener is a witness by its `own` word alone, and whomever it `can_try`
    /// itself it takes one more to believe.
    pub(crate) fn doubt(
        &mut self,
        listener: NodeId,
        own: Option<&Self>,
        can_try: impl Fn(Position) -> bool,
    ) {
        let bit = bit_of(listener);
        for silence in &mut self.0 {
            let mut known = own.into_iter().flat_map(|own| &own.0);
            if known.any(|known| known.position == silence.position && known.witnesses & bit != 0) {
                continue;
            }
            silence.witnesses &= !bit;
            if can_try(silence.position) {
                silence.witnesses = one_too_few(silence.witnesses);
            }
        }
    }

    /// Takes in what another message of the same question told.
    pub(crate) fn merge(&mut self, other: &Self) {
        for silence in &other.0 {
            self.add(silence.position, silence.witnesses);
        }
    }

    fn add(&mut self, position: Position, witnesses: u16) {
        let room = self.0.len() < SILENCES_MAX;
        let known = self.0.iter_mut().find(|known| known.position == position);
        match known {
            Some(known) => known.witnesses |= witnesses,
            None if room => self.0.push(Silence {
                position,
                witnesses,
            }),
            None => {}
        }
    }

    /// Tells whether a node counts as gone.
    pub(crate) fn believes(&self, position: Position) -> bool {
        let mut gone = self.0.iter().filter(|silence| is_enough(silence));
        gone.any(|silence| silence.position == position)
    }

    /// Tells whether somebody found a node silent.
    pub(crate) fn tell_of(&self, position: Position) -> bool {
        self.0.iter().any(|silence| silence.position == position)
    }

    /// Visits those that count as gone, and those that were silent to `witness` itself.
    pub(crate) fn for_whom(&self, witness: NodeId) -> impl Iterator<Item = Position> + '_ {
        let bit = bit_of(witness);
        let told = self.0.iter();
        told.filter(move |silence| is_enough(silence) || silence.witnesses & bit != 0)
            .map(|silence| silence.position)
    }

    /// Visits those that were silent, but not to enough others.
    pub(crate) fn open(&self) -> impl Iterator<Item = Position> + '_ {
        let told = self.0.iter().filter(|silence| !is_enough(silence));
        told.map(|silence| silence.position)
    }

    /// Returns how much the message tells: it grows with each witness.
    pub(crate) fn weight(&self) -> u32 {
        let each = self.0.iter().map(|silence| silence.witnesses.count_ones());
        each.sum()
    }
}

/// Returns as many of the witnesses as are not enough.
fn one_too_few(mut witnesses: u16) -> u16 {
    while witnesses.count_ones() >= WITNESSES {
        witnesses &= witnesses - 1;
    }
    witnesses
}

fn is_enough(silence: &Silence) -> bool {
    silence.witnesses.count_ones() >= WITNESSES
}

fn bit_of(witness: NodeId) -> u16 {
    1 << (witness.as_bytes()[0] % 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(octet: u8) -> NodeId {
        NodeId::from_bytes([octet; 32])
    }

    #[test]
    fn one_witness_counts_once_and_three_are_believed() {
        let (at, other) = (Position::from_number(7), Position::from_number(8));
        let mut silences = Silences::default();
        silences.note(at, id(1));
        silences.note(at, id(1));
        assert!(!silences.believes(at) && silences.weight() == 1);
        assert_eq!(silences.for_whom(id(1)).collect::<Vec<_>>(), [at]);
        assert_eq!(silences.for_whom(id(2)).count(), 0);
        silences.note(at, id(2));
        assert!(!silences.believes(at));
        silences.note(at, id(4));
        silences.note(other, id(2));
        assert!(silences.believes(at) && !silences.believes(other));
        assert_eq!(silences.for_whom(id(3)).collect::<Vec<_>>(), [at]);
        assert_eq!(silences.open().collect::<Vec<_>>(), [other]);
        assert_eq!(silences.weight(), 4);
    }

    #[test]
    fn a_forged_silence_needs_the_listeners_own_try() {
        let at = Position::from_number(7);
        let forged: Silences = [Silence {
            position: at,
            witnesses: u16::MAX,
        }]
        .into_iter()
        .collect();
        let doubted = |own: Option<&Silences>, can_try: bool| {
            let mut carried = forged.clone();
            carried.doubt(id(1), own, |_| can_try);
            carried
        };
        assert!(forged.believes(at) && doubted(None, false).believes(at));
        let mut mine = Silences::default();
        mine.note(at, id(1));
        assert!(doubted(Some(&mine), true).believes(at));
        let mut theirs = Silences::default();
        theirs.note(at, id(2));
        for own in [None, Some(&theirs)] {
            let mut carried = doubted(own, true);
            assert!(!carried.believes(at) && carried.tell_of(at));
            // What it heard from this message does not make others of the question believed.
            let mut other = Silences::default();
            other.hear(&doubted(own, false), id(1));
            assert!(!other.believes(at));
            assert!(carried.note(at, id(1)) && carried.believes(at));
        }
    }

    #[test]
    fn a_message_tells_of_few() {
        let mut silences = Silences::default();
        for number in 0..20 {
            silences.note(Position::from_number(number), id(1));
        }
        assert!(silences.is_bounded());
        assert_eq!(silences.open().count(), SILENCES_MAX);
        let mut merged = Silences::default();
        merged.note(Position::from_number(1), id(2));
        merged.note(Position::from_number(1), id(3));
        merged.merge(&silences);
        assert!(merged.is_bounded() && merged.believes(Position::from_number(1)));
    }
}
