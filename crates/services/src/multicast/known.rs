//! The members that this one knows of.
//!
//! A bounded table: the nearest by their coordinates, and others as chance has it. From
//! the first come near links, from the second far ones. What is told of a member carries
//! the time since somebody heard from it, so that the dead fade away though others go on
//! telling of them.

use std::time::Duration;

use enishi_overlay::small_map::SmallMap;
use enishi_overlay::{Contact, Coordinate, NodeId, Rng, Time};

use super::wire::Told;

/// The most members that are remembered.
pub(super) const KNOWN_MAX: usize = 64;
/// How many of them are the nearest.
const NEAREST_KEPT: usize = 24;
/// How long a member is remembered of whom nobody heard.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How long one that is gone is not taken in again on hearsay.
const GONE_FOR: Duration = Duration::from_secs(120);
/// How many of those are remembered.
const GONE_MAX: usize = 32;

/// A member that is known.
#[derive(Clone, Debug)]
pub(super) struct Acquaintance {
    pub(super) contact: Contact,
    pub(super) coordinate: Coordinate,
    /// When somebody heard from it, as far as known.
    pub(super) heard_at: Time,
    /// Until when it is not asked for a link: it has enough.
    pub(super) shunned_until: Time,
}

/// The members that are known, without this one.
#[derive(Debug, Default)]
pub(super) struct Known {
    members: SmallMap<NodeId, Acquaintance>,
    gone: SmallMap<NodeId, Time>,
}

impl Known {
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodeId, &Acquaintance)> {
        self.members.iter()
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.members.keys().copied().collect()
    }

    pub(super) fn has(&self, id: NodeId) -> bool {
        self.members.contains_key(&id)
    }

    pub(super) fn contact(&self, id: NodeId) -> Option<&Contact> {
        self.members.get(&id).map(|member| &member.contact)
    }

    pub(super) fn coordinate(&self, id: NodeId) -> Option<Coordinate> {
        self.members.get(&id).map(|member| member.coordinate)
    }

    /// Learns of a member, from itself or from another, who is at `here`.
    pub(super) fn learn(&mut self, told: &Told, here: Coordinate, now: Time, rng: &mut Rng) {
        let id = told.contact.id();
        let heard_at = now - Duration::from_secs(told.age_s.into());
        if told.age_s == 0 {
            self.gone.remove(&id);
        }
        let is_gone = self.gone.get(&id).is_some_and(|until| *until > now);
        if is_gone || Duration::from_secs(told.age_s.into()) > REMEMBERED {
            return;
        }
        match self.members.get_mut(&id) {
            Some(member) if member.heard_at > heard_at => {}
            Some(member) => {
                member.contact = told.contact.clone();
                member.coordinate = told.coordinate;
                member.heard_at = heard_at;
            }
            None => {
                let acquaintance = Acquaintance {
                    contact: told.contact.clone(),
                    coordinate: told.coordinate,
                    heard_at,
                    shunned_until: Time::ZERO,
                };
                self.members.insert(id, acquaintance);
                self.make_room(here, rng);
            }
        }
    }

    /// A member has links enough.
    pub(super) fn shun(&mut self, id: NodeId, until: Time) {
        if let Some(member) = self.members.get_mut(&id) {
            member.shunned_until = until;
        }
    }

    /// A member is gone.
    pub(super) fn lost(&mut self, id: NodeId, now: Time) {
        if self.members.remove(&id).is_none() {
            return;
        }
        if self.gone.len() >= GONE_MAX {
            self.gone.retain(|_, until| *until > now);
        }
        if self.gone.len() < GONE_MAX {
            self.gone.insert(id, now + GONE_FOR);
        }
    }

    /// Forgets those of whom nobody has heard for long.
    pub(super) fn expire(&mut self, now: Time) {
        self.members
            .retain(|_, member| now.since(member.heard_at) <= REMEMBERED);
    }

    /// Returns the members by their distance from a place, nearest first.
    pub(super) fn nearest(&self, here: Coordinate) -> Vec<NodeId> {
        let distance = |member: &Acquaintance| {
            let round_trip = here.round_trip(&member.coordinate);
            round_trip.unwrap_or(Duration::MAX)
        };
        let members = self.members.iter();
        let mut ranked: Vec<(Duration, NodeId)> = members
            .map(|(id, member)| (distance(member), *id))
            .collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, id)| id).collect()
    }

    /// Returns what others are told of a member.
    pub(super) fn tell(&self, id: NodeId, now: Time) -> Option<Told> {
        let member = self.members.get(&id)?;
        let age_s = now.since(member.heard_at).as_secs();
        Some(Told {
            contact: member.contact.clone(),
            coordinate: member.coordinate,
            age_s: u16::try_from(age_s).unwrap_or(u16::MAX),
        })
    }

    /// Of too many, one goes that is not among the nearest.
    fn make_room(&mut self, here: Coordinate, rng: &mut Rng) {
        if self.members.len() <= KNOWN_MAX {
            return;
        }
        let ranked = self.nearest(here);
        let others = &ranked[NEAREST_KEPT..];
        let victim = others[rng.below(others.len() as u64) as usize];
        self.members.remove(&victim);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use enishi_overlay::Keypair;

    fn told(seed: u8, age_s: u16) -> Told {
        Told {
            contact: Contact::new(Keypair::from_seed(&[seed; 32]).id(), []),
            coordinate: Coordinate::default(),
            age_s,
        }
    }

    #[test]
    fn the_table_stays_bounded_and_the_dead_stay_away() {
        let (mut known, mut rng) = (Known::default(), Rng::from_seed([1; 32]));
        let (here, now) = (Coordinate::default(), Time::ZERO + REMEMBERED * 2);
        for seed in 0..=u8::MAX {
            known.learn(&told(seed, 5), here, now, &mut rng);
        }
        assert_eq!(known.len(), KNOWN_MAX);
        let gone = known.ids()[0];
        let seed = (0..=u8::MAX).find(|seed| told(*seed, 0).contact.id() == gone);
        let seed = seed.expect("it is one of them");
        known.lost(gone, now);
        known.learn(&told(seed, 5), here, now, &mut rng);
        assert!(!known.has(gone), "on hearsay");
        known.learn(&told(seed, 0), here, now, &mut rng);
        assert!(known.has(gone), "it spoke itself");
        known.expire(now + REMEMBERED);
        assert_eq!(known.len(), 1, "only of one somebody heard just now");
    }
}
