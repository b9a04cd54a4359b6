//! The first join, and finding lost parts of the ring again.
//!
//! Both are the same: a node asks somebody who may belong to another ring, or to the
//! only one, who is near its own position there, and says hello to those who would be
//! nearer than its present neighbours. A newcomer is a ring of one. Nodes that are
//! taken for dead are remembered, because after a split of the network they are the
//! other side; one of them is asked again from time to time. All lose each other in the same
//! moment then, so each draws its waits widely: else they would ask together, and after a short
//! split nobody for most of a minute.

use std::time::Duration;

use super::requests::NODES_ASKED;
use super::{Alarm, Effect, Overlay};
use crate::contact::Contact;
use crate::id::NodeId;
use crate::silence::Silences;
use crate::time::Time;
use crate::view::Entry;

/// The most nodes that are remembered.
const REMEMBERED_MAX: usize = 64;
/// When a lost node is asked again for the first time; then after ever longer, up to
/// the longest of the six periods. Each wait is drawn from half to one and a half of that.
const RECONNECT_FIRST: Duration = Duration::from_secs(3);
const RECONNECT_LAST: Duration = Duration::from_secs(89);
/// By how much longer each wait is than the one before.
const RECONNECT_FACTOR: u32 = 4;
/// At least every so many periods a node looks for its own place.
const QUIET_CHECKS_MAX: u32 = 8;
/// So many changes among the near neighbours between two looks are more than one death and
/// one birth.
const UNREST: u32 = 4;
/// A node without any neighbour asks at least this often.
const RECONNECT_ALONE: Duration = Duration::from_secs(10);

/// Nodes that were there once.
#[derive(Clone, Debug, Default)]
pub(super) struct Remembered {
    contacts: Vec<Contact>,
    wait: Option<Duration>,
}

impl Remembered {
    /// The node is there again.
    pub(super) fn alive(&mut self, id: NodeId) {
        self.contacts.retain(|contact| contact.id() != id);
    }

    fn put(&mut self, contact: Contact) {
        self.alive(contact.id());
        if self.contacts.len() >= REMEMBERED_MAX {
            self.contacts.remove(0);
        }
        self.contacts.push(contact);
        self.wait = Some(RECONNECT_FIRST);
    }
}

impl Overlay {
    /// Tells whether the node knows of others that it has not found yet.
    pub fn is_seeking(&self) -> bool {
        !self.remembered.contacts.is_empty()
    }

    /// Returns those that were there once, or that it was told of, and that it has not found since; at
    /// most 64.
    pub fn sought(&self) -> &[Contact] {
        &self.remembered.contacts
    }

    /// Asks all given nodes for this node's place, and keeps asking until one answers.
    pub(super) fn bootstrap(&mut self, now: Time, contacts: Vec<Contact>) {
        let others: Vec<Contact> = contacts
            .into_iter()
            .filter(|contact| !self.is_self(contact.id()))
            .collect();
        for contact in others.into_iter().take(REMEMBERED_MAX) {
            self.quarantine.release(self.position_of(&contact.id()));
            self.remembered.put(contact.clone());
            if self.is_client() {
                self.hosting.offer_contact(contact);
            } else {
                self.ask_for_place(now, contact);
            }
        }
        self.keep_hosts(now);
        self.schedule_reconnect(now);
    }

    /// Keeps in mind somebody who is taken for dead. A split takes neighbours away, too, so
    /// only then it is soon asked again.
    pub(super) fn remember_lost(&mut self, now: Time, contact: Contact, was_near: bool) {
        let wait = self.remembered.wait;
        self.remembered.put(contact);
        if !was_near {
            self.remembered.wait = wait.or(self.remembered.wait);
        }
        self.schedule_reconnect(now);
    }

    fn schedule_reconnect(&mut self, now: Time) {
        if let Some(wait) = self.remembered.wait {
            let wait = wait / 2 + self.rng.duration_below(wait);
            self.deadlines.set_no_later(Alarm::Reconnect, now + wait);
        }
    }

    /// Asks one of the remembered nodes, and waits longer for the next time.
    pub(super) fn reconnect(&mut self, now: Time) {
        let count = self.remembered.contacts.len() as u64;
        if count == 0 {
            self.remembered.wait = None;
            return;
        }
        let contact = self.remembered.contacts[self.rng.below(count) as usize].clone();
        if self.is_client() {
            if self.peers.is_empty() {
                self.quarantine.release(self.position_of(&contact.id()));
            }
            self.hosting.offer_contact(contact);
            self.keep_hosts(now);
        } else {
            self.ask_for_place(now, contact);
        }
        let wait = self.remembered.wait.unwrap_or(RECONNECT_FIRST) * RECONNECT_FACTOR;
        let longest = if self.near.is_empty() {
            RECONNECT_ALONE
        } else {
            RECONNECT_LAST
        };
        self.remembered.wait = Some(wait.min(longest));
        self.schedule_reconnect(now);
    }

    /// Looks for this node's place, the seldomer the longer its neighbours are the same but
    /// for one now and then.
    pub(super) fn check_place_seldom(&mut self, now: Time) {
        if std::mem::take(&mut self.near_changes) >= UNREST {
            self.quiet_checks = 0;
        }
        self.quiet_checks = self.quiet_checks.saturating_add(1);
        let due = self.quiet_checks.is_power_of_two()
            || self.quiet_checks.is_multiple_of(QUIET_CHECKS_MAX);
        if due {
            self.check_place(now);
        }
    }

    /// Looks for a split that nobody noticed: asks for this node's place by way of a
    /// peer far away on the ring.
    fn check_place(&mut self, now: Time) {
        let long: Vec<&Contact> = self
            .peers
            .values()
            .filter(|peer| peer.is_long())
            .map(|peer| &peer.contact)
            .collect();
        if long.is_empty() {
            return;
        }
        let via = long[self.rng.below(long.len() as u64) as usize].clone();
        self.ask_for_place(now, via);
    }

    /// Returns whom somebody that looks for its place should say hello to; this node alone when
    /// the two are neighbours, since then each of them knows what the other does.
    pub(super) fn neighbours_of(
        &self,
        asker: &Contact,
        alone: bool,
        silences: &Silences,
    ) -> Vec<Entry> {
        let id = asker.id();
        if !alone && self.near.contains(id) {
            return self.entry_of(self.me.id()).into_iter().collect();
        }
        let mut nodes = self.nodes_left(self.position_of(&id), NODES_ASKED.into(), silences);
        nodes.retain(|entry| entry.contact.id() != id);
        nodes
    }

    /// Has the present peers, and then the lost ones, kept for the next start.
    pub(super) fn keep_contacts(&mut self) {
        let present = self.peers.values().map(|peer| peer.contact.clone());
        let lost = self.remembered.contacts.iter().rev().cloned();
        let offered = self.hosting.contacts();
        let contacts: Vec<Contact> = present
            .chain(offered)
            .chain(lost)
            .take(REMEMBERED_MAX)
            .collect();
        if !contacts.is_empty() {
            self.effects.push_back(Effect::Remember(contacts));
        }
    }
}
