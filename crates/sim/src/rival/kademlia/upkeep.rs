//! Joining, and keeping the table true within a budget.
//!
//! The budget is octets per second, requests and their answers counted. One share buys
//! signs of life: the longest silent entry is pinged, in between spares that could fill
//! a bucket or be nearer than what is in it. The other share buys refreshes: a member of
//! the most stale bucket is asked for nodes near a random place in it. After each action
//! the node waits for as long as the budget takes to pay for it.

use std::time::Duration;

use enishi_overlay::{Contact, Position, Time};

use super::lookup::{Lookup, Plan, Purpose};
use super::table::{Entry, Spare};
use super::{Alarm, BOOTSTRAPS_MAX, Event, Kademlia, Output};

/// Between the first two tries to join; twice as long after each, up to the longest.
pub(super) const JOIN_AGAIN: Duration = Duration::from_secs(5);
/// The longest time between two tries to join.
const JOIN_AGAIN_LONGEST: Duration = Duration::from_secs(600);
/// Octets of a `Ping` and its `Pong`.
const PING_BYTES: u64 = 10;
/// Octets that a refresh costs at least, so that failing ones do not follow each other.
const REFRESH_BYTES_LEAST: u64 = 200;
/// No entry that was heard within this time is pinged, however large the budget.
const HEARD_LATELY: Duration = Duration::from_secs(10);
/// When there is nothing to do, look again after this time.
const IDLE: Duration = Duration::from_secs(1);
/// Each such ping goes to a spare that was never measured: it may be nearer.
const EXPLORE_EVERY: u32 = 4;

impl Kademlia {
    pub(super) fn bootstrap(&mut self, now: Time, contacts: Vec<Contact>) {
        let me = self.me.id();
        self.bootstraps = contacts;
        self.bootstraps.retain(|contact| contact.id() != me);
        self.bootstraps.truncate(BOOTSTRAPS_MAX);
        self.join_wait = JOIN_AGAIN;
        self.join(now);
    }

    /// Joins, if it is not done: whoever was asked first may have been a newcomer itself,
    /// so a node with few acquaintances tries again, ever less often.
    pub(super) fn join_if_needed(&mut self, now: Time) {
        if !self.joined || self.table.entries().count() < self.config.bucket {
            self.join(now);
        }
    }

    /// Looks for this node's own surroundings.
    pub(super) fn join(&mut self, now: Time) {
        let again = self.rng.jitter(self.join_wait);
        self.join_wait = (self.join_wait * 2).min(JOIN_AGAIN_LONGEST);
        self.deadlines.set(Alarm::Join, now + again);
        let empty = self.table.entries().next().is_none();
        let seeds = if empty {
            self.bootstraps.clone()
        } else {
            Vec::new()
        };
        let plan = Plan {
            purpose: Purpose::Join,
            target: self.position,
            parallel: self.config.parallel,
            // This node stands first in the row of the closest to itself.
            width: self.config.join_width + 1,
            requests_max: None,
            reach: self.config.bucket,
        };
        self.start_lookup(now, plan, &seeds);
    }

    /// The join's lookup ended: greet the surroundings, and fill the buckets beyond.
    pub(super) fn found_surroundings(&mut self, now: Time, lookup: &Lookup) {
        if lookup.found().iter().all(|found| found.hops == 0) {
            return;
        }
        let unasked = lookup.unasked(self.config.bucket);
        for (contact, at) in &unasked {
            self.ping(now, contact, *at);
        }
        let edge = unasked
            .iter()
            .map(|(_, at)| self.table.bucket_of(*at))
            .min();
        for bucket in 0..edge.unwrap_or(0) {
            self.refresh(now, bucket);
        }
        self.begin_upkeep(now);
        // Soon one look at the surroundings, for those who joined at the same time.
        self.refresh_turn = false;
        self.settled = false;
        self.refresh_after(now, JOIN_AGAIN);
    }

    /// The node is part of the overlay: it has found others, or they have found it.
    pub(super) fn begin_upkeep(&mut self, now: Time) {
        if !self.joined {
            self.joined = true;
            self.outputs.push_back(Output::Event(Event::Joined));
            self.ping_after(now, IDLE);
            self.pay_refresh(now, REFRESH_BYTES_LEAST);
        }
    }

    /// Refreshes the bucket, or the surroundings, that nobody asked about for longest.
    pub(super) fn refresh_most_stale(&mut self, now: Time) {
        self.settled = true;
        self.pay_refresh(now, REFRESH_BYTES_LEAST);
        if self.table.entries().next().is_none() {
            return self.join(now);
        }
        let depth = self.table.depth();
        let stale = (0..depth)
            .filter(|bucket| self.table.wants_more(*bucket))
            .min_by_key(|bucket| self.table.refreshed_at(*bucket));
        // Every other time the surroundings, where one unknown node makes answers wrong.
        self.refresh_turn = !self.refresh_turn;
        let bucket = stale.filter(|_| !self.refresh_turn);
        self.refresh(now, bucket.unwrap_or(depth));
    }

    fn refresh(&mut self, now: Time, bucket: usize) {
        let depth = self.table.depth();
        let (target, seeds) = if bucket < depth {
            let target = self.somewhere_in(bucket);
            (target, self.some_member(|index| index == bucket))
        } else {
            (self.position, self.some_member(|index| index >= depth))
        };
        let whole = self.config.refresh_requests.is_none();
        let plan = Plan {
            purpose: Purpose::Refresh(bucket),
            target,
            parallel: if whole { self.config.parallel } else { 1 },
            // This node may stand first in the row of the closest.
            width: if whole { self.config.bucket } else { 2 },
            requests_max: self.config.refresh_requests,
            reach: self.config.bucket,
        };
        let seeds = if whole { Vec::new() } else { seeds };
        self.start_lookup(now, plan, &seeds);
    }

    /// A refresh ended: whom it named is asked for a sign of life if there is room.
    pub(super) fn refreshed(&mut self, now: Time, lookup: &Lookup) {
        let mut bytes = lookup.bytes();
        let known: Vec<(Contact, Position)> = self
            .table
            .missing()
            .filter(|spare| spare.heard_at.is_none() && spare.looked_at >= lookup.started_at())
            .map(|spare| (spare.contact.clone(), spare.position))
            .collect();
        for (contact, at) in known {
            if !self.requests.is_asked(contact.id()) {
                self.ping(now, &contact, at);
                bytes += PING_BYTES;
            }
        }
        if self.settled {
            self.pay_refresh(now, bytes.max(REFRESH_BYTES_LEAST));
        }
    }

    fn pay_refresh(&mut self, now: Time, bytes: u64) {
        if let Some(wait) = self.time_for(bytes, self.config.refresh_percent) {
            self.refresh_after(now, wait);
        }
    }

    fn refresh_after(&mut self, now: Time, wait: Duration) {
        let wait = self.rng.jitter(wait);
        self.deadlines.set(Alarm::Refresh, now + wait);
    }

    /// Asks for one sign of life.
    pub(super) fn ping_someone(&mut self, now: Time) {
        self.upkeep_turn = self.upkeep_turn.wrapping_add(1);
        let explore = self.config.proximity && self.upkeep_turn.is_multiple_of(EXPLORE_EVERY);
        let chosen = self
            .to_fill(now)
            .or_else(|| self.to_explore(now).filter(|_| explore))
            .or_else(|| self.longest_silent(now))
            .or_else(|| self.to_explore(now).filter(|_| self.config.proximity));
        let wait = match chosen {
            Some((contact, at)) => {
                self.ping(now, &contact, at);
                self.time_for(PING_BYTES, 100 - self.config.refresh_percent.min(100))
            }
            None => Some(IDLE),
        };
        if let Some(wait) = wait {
            self.ping_after(now, wait);
        }
    }

    fn ping_after(&mut self, now: Time, wait: Duration) {
        if self
            .time_for(PING_BYTES, 100 - self.config.refresh_percent.min(100))
            .is_some()
        {
            let wait = self.rng.jitter(wait);
            self.deadlines.set(Alarm::Ping, now + wait);
        }
    }

    /// Returns how long a share of the budget takes to pay; none if there is none.
    fn time_for(&self, bytes: u64, percent: u32) -> Option<Duration> {
        let rate = u64::from(self.config.upkeep_bytes_per_second) * u64::from(percent);
        (bytes * 100_000_000)
            .checked_div(rate)
            .map(Duration::from_micros)
    }

    fn to_fill(&self, now: Time) -> Option<(Contact, Position)> {
        let missing = self
            .table
            .missing()
            .filter(|spare| self.may_ask(now, spare));
        let best =
            missing.max_by_key(|spare| (spare.heard_at, spare.looked_at, spare.contact.id()));
        best.map(|spare| (spare.contact.clone(), spare.position))
    }

    fn to_explore(&self, now: Time) -> Option<(Contact, Position)> {
        let spares = self.table.spares();
        let unmeasured = spares.filter(|spare| spare.least.is_none() && self.may_ask(now, spare));
        let newest = unmeasured.max_by_key(|spare| (spare.looked_at, spare.contact.id()));
        newest.map(|spare| (spare.contact.clone(), spare.position))
    }

    fn may_ask(&self, now: Time, spare: &Spare) -> bool {
        let id = spare.contact.id();
        !self.is_quarantined(now, id) && !self.requests.is_asked(id)
    }

    fn longest_silent(&self, now: Time) -> Option<(Contact, Position)> {
        let silent = |entry: &&Entry| {
            now.since(entry.heard_at) >= HEARD_LATELY && !self.requests.is_asked(entry.contact.id())
        };
        let entries = self.table.entries().filter(silent);
        let longest = entries.min_by_key(|entry| (entry.heard_at, entry.contact.id()));
        longest.map(|entry| (entry.contact.clone(), entry.position))
    }

    /// Draws a sound entry from the buckets that fit; empty if there is none.
    fn some_member(&mut self, fits: impl Fn(usize) -> bool) -> Vec<Contact> {
        let members: Vec<&Entry> = self
            .table
            .entries()
            .filter(|entry| entry.strikes == 0 && fits(self.table.bucket_of(entry.position)))
            .collect();
        let drawn = self.rng.below(members.len() as u64) as usize;
        members
            .get(drawn)
            .map(|entry| vec![entry.contact.clone()])
            .unwrap_or_default()
    }

    /// Draws a position in a bucket's range: the same first bits, then another one.
    fn somewhere_in(&mut self, bucket: usize) -> Position {
        let (mine, random) = (self.position.number(), self.rng.number());
        let flip = 1_u64 << (63 - bucket.min(63));
        let below = flip - 1;
        Position::from_number((mine ^ flip) & !below | random & below)
    }
}
