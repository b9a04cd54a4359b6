//! What this node is: client, peer or supernode ([`class`](crate::class) has the rules).
//!
//! It looks at itself and at the others whenever it looks at its links, every 23 seconds.
//! Its own class and score go out with hellos and pongs; what peers say of theirs is passed
//! on with the view at its next change, and changes no view by itself.

use std::collections::BTreeMap;

use super::{Effect, Overlay};
use crate::class::{Class, Grade, Limit, Measure, Merit, Standing, is_news, is_reachable};
use crate::contact::Contact;
use crate::coordinate::Coordinate;
use crate::id::NodeId;
use crate::ring::Position;
use crate::time::Time;
use crate::view::Role;

/// The greatest score that a node tells which may not become a supernode.
const SCORE_CAPPED: u8 = 64;

impl Overlay {
    /// Returns what this node is.
    pub fn class(&self) -> Class {
        self.grade.class()
    }

    /// Returns what others are told of this node's class and score.
    pub fn grade(&self) -> Grade {
        self.grade
    }

    /// Tells whether this node is attached to peers, or looks for some, instead of being on
    /// the ring.
    pub fn is_client(&self) -> bool {
        self.grade.is_client()
    }

    /// Tells whether this node knows neither a neighbour nor, as a client, a host.
    pub fn is_alone(&self) -> bool {
        let has_host = self.is_client() && !self.peers.is_empty();
        self.near.is_empty() && !has_host
    }

    pub(super) fn on_measured(&mut self, now: Time, measure: Measure) {
        self.measure = measure;
        self.grade_self(now);
    }

    /// Judges this node by itself alone: whether it is strong enough for the ring, and its
    /// score.
    pub(super) fn grade_self(&mut self, now: Time) {
        let age = now.since(self.born_at);
        let client = match self.config.class {
            Limit::Auto => self.measure.is_weak(age),
            Limit::Peer => false,
            Limit::Client => true,
        };
        if client != self.is_client() {
            self.change_sides(now, client);
        }
        if client {
            return;
        }
        let mut score = self.measure.score(age);
        if self.config.class == Limit::Peer {
            score = score.min(SCORE_CAPPED);
        }
        if is_news(self.grade.score(), score) {
            self.grade = Grade::new(self.class(), score);
        }
    }

    /// Looks at this node and those that it knows, and becomes a supernode or ceases to be
    /// one.
    pub(super) fn regulate(&mut self, now: Time) {
        self.grade_self(now);
        if self.is_client() || self.near.is_empty() {
            return;
        }
        let score = self.grade.score();
        let standing = Standing::among(
            (score, self.position),
            self.sample().into_iter(),
            self.size_estimate(),
        );
        if self.regulator.look(is_reachable(score), standing) {
            let class = if self.regulator.is_super() {
                Class::Super
            } else {
                Class::Peer
            };
            self.grade = Grade::new(class, score);
        }
    }

    /// Returns the merits of the nodes that are near neighbours of peers, each once. Where
    /// they are on the ring has nothing to do with their grades; long links may.
    fn sample(&self) -> Vec<Merit> {
        let mut sample: BTreeMap<Position, u8> = BTreeMap::new();
        let views = self.peers.values().flat_map(|peer| peer.view.members());
        for member in views.filter(|member| member.role == Role::Near) {
            // Scores mostly grow, so the greatest told is the latest.
            let known = sample.entry(member.position).or_default();
            *known = member.grade.score().max(*known);
        }
        for place in self.near.iter() {
            // What a neighbour says of itself is newer than what others tell of it.
            if let Some(peer) = self.peers.get(&place.id) {
                sample.insert(place.position, peer.grade.score());
            }
        }
        sample.remove(&self.position);
        let merits = sample.into_iter();
        merits.map(|(position, score)| (score, position)).collect()
    }

    /// A peer said where and what it is.
    pub(super) fn note_about(&mut self, from: NodeId, coordinate: Coordinate, grade: Grade) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.coordinate = coordinate;
            if !grade.is_client() {
                peer.grade = grade;
            }
        }
    }

    /// Leaves the ring to be a client, or the other way round; the former peers know the way.
    fn change_sides(&mut self, now: Time, client: bool) {
        let known: Vec<Contact> = self.peers.values().map(|p| p.contact.clone()).collect();
        self.part_with_all();
        self.regulator.resign();
        self.grade = if client {
            Grade::CLIENT
        } else {
            Grade::default()
        };
        if known.is_empty() {
            return;
        }
        self.effects.push_back(Effect::NeighboursChanged);
        self.bootstrap(now, known);
    }
}
