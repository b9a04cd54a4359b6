//! The crowd: who lives and has joined, who is in charge of what, and whether lookups
//! found them.
//!
//! A node belongs to the crowd from the moment at which it tells that it has joined until
//! its death. An answer is correct when it names a node that was in charge, among the
//! crowd, at some moment between question and answer. Lookups of askers that die before
//! their answer are not judged.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::{Position, Time};

use super::subject::{End, Seen, Subject};
use crate::world::{Index, World};

/// A lookup under way.
#[derive(Debug)]
struct Asked {
    asker: Index,
    at: Time,
    target: Position,
    /// Who has been in charge since the question, in order.
    owners: Vec<Index>,
}

/// How a lookup ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    /// Who asked.
    pub(super) asker: Index,
    /// When it was asked.
    pub(super) at: Time,
    /// The time until the answer, if one came.
    pub(super) time: Option<Duration>,
    /// How many hops led to who answered.
    pub(super) hops: Option<u8>,
    /// Whether the answer was right.
    pub(super) correct: bool,
}

/// The crowd.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    places: BTreeMap<Position, Index>,
    /// The members in no order, to draw from, and where in it each is.
    members: Vec<Index>,
    slots: BTreeMap<Index, (usize, Position)>,
    /// Since when who is about to join.
    joining: BTreeMap<Index, Time>,
    asked: BTreeMap<u64, Asked>,
    lookups: u64,
    verdicts: Vec<Verdict>,
    /// How long joining took each, in microseconds.
    joins: Vec<u64>,
}

impl Crowd {
    /// Takes everyone who has joined a world that has grown.
    pub(super) fn of<S: Subject>(world: &mut World<S>) -> Self {
        let mut crowd = Self::default();
        crowd.absorb(world);
        crowd
    }

    /// Returns how many belong to it.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Visits those who belong to it.
    pub(super) fn members(&self) -> impl Iterator<Item = Index> {
        self.members.iter().copied()
    }

    /// Tells whether a node belongs to it.
    pub(super) fn has(&self, index: Index) -> bool {
        self.slots.contains_key(&index)
    }

    /// Returns who is in charge of a target.
    pub(super) fn in_charge<S: Subject>(&self, target: Position) -> Option<Index> {
        S::in_charge(&self.places, target)
    }

    /// Returns how the lookups ended since the last call, by the time of the question.
    pub(super) fn take_verdicts(&mut self) -> Vec<Verdict> {
        let mut verdicts = std::mem::take(&mut self.verdicts);
        verdicts.sort_by_key(|verdict| verdict.at);
        verdicts
    }

    /// Returns how long joining took those who joined since the last call, in microseconds.
    pub(super) fn take_joins(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.joins)
    }

    /// Draws a member.
    pub(super) fn any<S: Subject>(&self, world: &mut World<S>) -> Option<Index> {
        let slot = world.rng().below(self.members.len() as u64) as usize;
        self.members.get(slot).copied()
    }

    /// Brings a new node to life, which joins through a drawn one.
    pub(super) fn spawn<S: Subject>(&mut self, world: &mut World<S>) -> Index {
        let index = world.spawn(None);
        self.invite(world, index);
        self.joining.insert(index, world.now());
        index
    }

    /// Lets a node that has not joined yet try through another one; tells whether it had
    /// to.
    pub(super) fn retry<S: Subject>(&mut self, world: &mut World<S>, index: Index) -> bool {
        let stuck = self.joining.contains_key(&index);
        if stuck {
            self.invite(world, index);
        }
        stuck
    }

    /// Has a node join through a drawn one that it can reach.
    fn invite<S: Subject>(&self, world: &mut World<S>, index: Index) {
        const TRIES: usize = 16;
        for _ in 0..TRIES {
            let Some(via) = self.any(world) else { return };
            if !world.is_broken(index, via) {
                return world.bootstrap(index, via);
            }
        }
    }

    /// Has a node die, after taking leave if it is polite.
    pub(super) fn remove<S: Subject>(&mut self, world: &mut World<S>, index: Index, polite: bool) {
        self.absorb(world);
        if polite {
            world.leave(index);
        } else {
            world.kill(index);
        }
        self.joining.remove(&index);
        self.asked.retain(|_, asked| asked.asker != index);
        if let Some((slot, place)) = self.slots.remove(&index) {
            self.places.remove(&place);
            self.members.swap_remove(slot);
            if let Some(moved) = self.members.get(slot)
                && let Some(entry) = self.slots.get_mut(moved)
            {
                entry.0 = slot;
            }
            self.note_owners::<S>();
        }
    }

    /// Has a drawn member look for a drawn position.
    pub(super) fn ask<S: Subject>(&mut self, world: &mut World<S>) {
        self.absorb(world);
        let target = Position::from_number(world.rng().number());
        let Some(asker) = self.any(world) else { return };
        let id = self.lookups;
        self.lookups += 1;
        let asked = Asked {
            asker,
            at: world.now(),
            target,
            owners: self.in_charge::<S>(target).into_iter().collect(),
        };
        self.asked.insert(id, asked);
        world.command(asker, S::lookup(id, target));
    }

    /// Takes in what nodes told since the last call, in the order of time.
    pub(super) fn absorb<S: Subject>(&mut self, world: &mut World<S>) {
        for (at, index, event) in world.take_events() {
            match S::seen(event) {
                Some(Seen::Joined) => self.enter(world, at, index),
                Some(Seen::Answered { id, end }) => self.judge(world, id, end),
                None => {}
            }
        }
    }

    /// Gives up the lookups that are still under way.
    pub(super) fn give_up(&mut self) {
        for (_, asked) in std::mem::take(&mut self.asked) {
            self.verdicts.push(Verdict {
                asker: asked.asker,
                at: asked.at,
                time: None,
                hops: None,
                correct: false,
            });
        }
    }

    fn enter<S: Subject>(&mut self, world: &World<S>, at: Time, index: Index) {
        let Some(node) = world.node(index).filter(|_| !self.has(index)) else {
            return;
        };
        if let Some(since) = self.joining.remove(&index) {
            let micros = at.since(since).as_micros();
            self.joins.push(u64::try_from(micros).unwrap_or(u64::MAX));
        }
        let place = node.place();
        self.places.insert(place, index);
        self.slots.insert(index, (self.members.len(), place));
        self.members.push(index);
        self.note_owners::<S>();
    }

    fn judge<S: Subject>(&mut self, world: &World<S>, id: u64, end: Option<End>) {
        let Some(asked) = self.asked.remove(&id) else {
            return;
        };
        let named = end.and_then(|end| world.index_of(end.node));
        self.verdicts.push(Verdict {
            asker: asked.asker,
            at: asked.at,
            time: end.map(|end| end.time),
            hops: end.map(|end| end.hops),
            correct: named.is_some_and(|named| asked.owners.contains(&named)),
        });
    }

    /// Notes who is in charge of what is being looked for, after a change.
    fn note_owners<S: Subject>(&mut self) {
        for asked in self.asked.values_mut() {
            let owner = S::in_charge(&self.places, asked.target);
            if owner.is_some() && owner != asked.owners.last().copied() {
                asked.owners.extend(owner);
            }
        }
    }
}
