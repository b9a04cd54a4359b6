//! What leaves the node: values to the store, messages to the sessions, in the order
//! that a crash may not reverse.
//!
//! What follows a value in the same batch waits until the value is on disk: an
//! acknowledgement must not be out before what it acknowledges is safe. While one commit
//! runs, the values and messages of further batches gather for the next (group commit).
//!
//! When the store fails, for example with a full disk, the messages that waited for it are
//! dropped, so whoever asked hears nothing and asks again. Then the node is told: until the
//! values could be written after all, it stores nothing for others and acknowledges
//! nothing, and nothing has to wait.

use std::sync::Arc;

use enishi_overlay::{Contact, Message, Time};
use enishi_services::Event;
use enishi_services::dht::{self, PutAnswer};

use super::desk::Shared;
use crate::session::Sessions;
use crate::store::{Batch, Outcome, Slot, Store};

/// The most values that wait for the store, counted by slots.
const VALUES_MAX: usize = 65_536;

/// The most messages that wait for the store.
const HELD_MAX: usize = 65_536;

/// How long after a failure the store is tried again, in seconds.
const RETRY_S: u64 = 5;

const ABOUT: &str = "store";

/// What waits for the store.
enum Held {
    Send(Contact, Message),
    Dial(Contact),
    Tell(Event),
}

/// The way out.
pub(super) struct Outbox {
    store: Store,
    sessions: Sessions,
    shared: Arc<Shared>,
    /// For the next commit.
    values: Batch,
    held: Vec<Held>,
    /// What waits for the commit that runs; none when none runs.
    committing: Option<Vec<Held>>,
    /// When the store is tried again after a failure.
    retry_at: Option<Time>,
    /// Whether the batch at hand has a value.
    holding: bool,
    failures: u64,
    dropped: u64,
}

impl Outbox {
    pub(super) fn new(store: Store, sessions: Sessions, shared: Arc<Shared>) -> Self {
        Self {
            store,
            sessions,
            shared,
            values: Batch::new(),
            held: Vec::new(),
            committing: None,
            retry_at: None,
            holding: false,
            failures: 0,
            dropped: 0,
        }
    }

    /// Tells whether values can be kept, as far as the last commit has shown.
    pub(super) fn works(&self) -> bool {
        self.retry_at.is_none()
    }

    /// Keeps a value, or forgets it without one.
    pub(super) fn persist(&mut self, slot: Slot, value: Option<Vec<u8>>) {
        self.holding = true;
        self.keep(slot, value);
    }

    /// Keeps a value that nothing has to wait for.
    pub(super) fn keep(&mut self, slot: Slot, value: Option<Vec<u8>>) {
        if self.values.len() < VALUES_MAX || self.values.contains_key(&slot) {
            self.values.insert(slot, value);
        } else {
            self.dropped += 1;
        }
    }

    /// Sends a message, once the values before it in the batch are on disk.
    pub(super) fn send(&mut self, to: Contact, message: Message) {
        match self.holding && self.works() {
            true => self.hold(Held::Send(to, message)),
            false => self.sessions.send_control(&to, message.encode().into()),
        }
    }

    /// Opens a session, once the values before it in the batch are on disk.
    pub(super) fn dial(&mut self, to: Contact) {
        match self.holding && self.works() {
            true => self.hold(Held::Dial(to)),
            false => self.sessions.dial(&to),
        }
    }

    /// Gives an event back that may be told at once; others are told once the values before
    /// them in the batch are on disk.
    pub(super) fn tell(&mut self, event: Event) -> Option<Event> {
        if !self.holding || !self.works() {
            return Some(event);
        }
        if self.held.len() >= HELD_MAX {
            return Some(not_kept(event));
        }
        self.held.push(Held::Tell(event));
        None
    }

    /// Ends a batch, and commits what gathered unless a commit runs or it is too early
    /// to try again.
    pub(super) fn flush(&mut self, now: Time) {
        self.holding = false;
        let early = self.retry_at.is_some_and(|at| now < at);
        if self.committing.is_none() && !self.values.is_empty() && !early {
            self.store.commit(std::mem::take(&mut self.values));
            self.committing = Some(std::mem::take(&mut self.held));
        }
    }

    /// A commit has ended; returns the events that may be told now.
    pub(super) fn committed(&mut self, now: Time, outcome: Outcome) -> Vec<Event> {
        let held = self.committing.take().unwrap_or_default();
        let events = match outcome {
            Ok(()) => {
                if self.retry_at.take().is_some() {
                    tracing::info!("the state is on disk again");
                    self.shared.unnote(ABOUT);
                }
                held.into_iter()
                    .filter_map(|held| self.release(held))
                    .collect()
            }
            Err((batch, reason)) => self.failed(now, batch, held, &reason),
        };
        self.flush(now);
        events
    }

    /// Returns when the store is to be tried again.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.retry_at
            .filter(|_| self.committing.is_none() && !self.values.is_empty())
    }

    /// Tells whether everything is on disk, or cannot be for now.
    pub(super) fn is_settled(&self) -> bool {
        self.committing.is_none() && (self.values.is_empty() || self.retry_at.is_some())
    }

    /// Closes the store.
    pub(super) fn close(self) {
        self.store.close();
    }

    fn hold(&mut self, held: Held) {
        if self.held.len() >= HELD_MAX {
            self.dropped += 1;
        } else {
            self.held.push(held);
        }
    }

    fn release(&self, held: Held) -> Option<Event> {
        match held {
            Held::Send(to, message) => self.sessions.send_control(&to, message.encode().into()),
            Held::Dial(to) => self.sessions.dial(&to),
            Held::Tell(event) => return Some(event),
        }
        None
    }

    fn failed(&mut self, now: Time, batch: Batch, held: Vec<Held>, reason: &str) -> Vec<Event> {
        self.failures += 1;
        let waiting = std::mem::take(&mut self.held);
        self.dropped += (held.len() + waiting.len()) as u64;
        let events = held
            .into_iter()
            .chain(waiting)
            .filter_map(|held| match held {
                Held::Tell(event) => Some(not_kept(event)),
                Held::Send(..) | Held::Dial(_) => None,
            });
        self.retry_at = Some(now + std::time::Duration::from_secs(RETRY_S));
        // What was decided since stands.
        let newer = std::mem::replace(&mut self.values, batch);
        for (slot, value) in newer {
            self.keep(slot, value);
        }
        let notice = format!(
            "The state cannot be written ({reason}): make room on the disk of the data \
             directory. The node goes on and tries again every {RETRY_S} s; what it could not \
             keep it does not acknowledge ({} failures, {} messages dropped).",
            self.failures, self.dropped
        );
        tracing::warn!("{notice}");
        self.shared.note(ABOUT, notice);
        events.collect()
    }
}

/// What an event comes to when the values before it could not be kept: a value that only
/// this node holds is not stored.
fn not_kept(event: Event) -> Event {
    match event {
        Event::Dht(dht::Event::PutDone {
            caller,
            answer: PutAnswer::Stored { .. },
        }) => Event::Dht(dht::Event::PutDone {
            caller,
            answer: PutAnswer::Failed,
        }),
        event => event,
    }
}
