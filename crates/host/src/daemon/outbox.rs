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
//!
//! Events are told in the order in which they came: behind one that waits for the store the
//! later ones wait too, whether or not they have a value of their own to wait for. The messages
//! of a batch follow its events: a member that is answered may send packets at once, so the
//! tables of the packet path have to know it before it has the answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use enishi_overlay::{Contact, Message, NodeId, Time};
use enishi_services::Event;
use enishi_services::dht::{self, PutAnswer};

use super::desk::Shared;
use crate::session::Sessions;
use crate::store::{Batch, Outcome, Slot, Store};

/// The most values that wait for the store, counted by slots.
const VALUES_MAX: usize = 65_536;

/// The most messages and dials that wait for one commit; further ones are dropped.
const HELD_MAX: usize = 65_536;

/// The most octets of messages that wait for one commit; further ones are dropped. Twice
/// as many may wait in all: for the commit that runs and for the next.
const HELD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The most events that wait for the store. One more counts as a failure of the store.
const TELLS_MAX: usize = 8_192;

/// How long after a failure the store is tried again.
const RETRY: Duration = Duration::from_secs(5);

pub(super) const ABOUT: &str = "store";

/// What waits for the store.
struct Held {
    what: What,
    /// Whether it only waits for its turn behind others, and for no value.
    in_turn: bool,
}

enum What {
    Tell(Event),
    Leave(Leaving),
}

/// What goes to the sessions.
enum Leaving {
    Send(Contact, Bytes),
    Dial(Contact),
    End(NodeId),
}

/// What waits for one commit, in order.
#[derive(Default)]
struct Waiting {
    held: Vec<Held>,
    tells: usize,
    bytes: usize,
}

/// How the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Works,
    /// It is tried again at this time.
    Fails(Time),
    /// Its thread is gone.
    Dead,
}

/// The way out.
pub(super) struct Outbox {
    store: Store,
    sessions: Sessions,
    shared: Arc<Shared>,
    /// For the next commit.
    values: Batch,
    waiting: Waiting,
    /// What waits for the commit that runs; none when none runs.
    committing: Option<Waiting>,
    /// What may be told now.
    ready: Vec<Event>,
    /// Messages and dials that may leave once it is told.
    leaving: Vec<Leaving>,
    health: Health,
    /// Whether the batch at hand has a value.
    holding: bool,
    /// Whether an event of the batch at hand waits for its turn.
    in_turn: bool,
    /// Whether a value of the batch at hand is lost, and with it what follows.
    refusing: bool,
    /// When the batch at hand began.
    now: Time,
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
            waiting: Waiting::default(),
            committing: None,
            ready: Vec::new(),
            leaving: Vec::new(),
            health: Health::Works,
            holding: false,
            in_turn: false,
            refusing: false,
            now: Time::from_micros(0),
            failures: 0,
            dropped: 0,
        }
    }

    /// Tells whether values can be kept, as far as the last commit has shown.
    pub(super) fn works(&self) -> bool {
        self.health == Health::Works
    }

    /// Tells whether the store is gone for good.
    pub(super) fn is_dead(&self) -> bool {
        self.health == Health::Dead
    }

    /// Begins a batch.
    pub(super) fn begin(&mut self, now: Time) {
        self.now = now;
        self.holding = false;
        self.in_turn = false;
        self.refusing = false;
    }

    /// Keeps a value, or forgets it without one.
    pub(super) fn persist(&mut self, slot: Slot, value: Option<Vec<u8>>) {
        self.holding = true;
        if !self.keep(slot, value) && self.works() {
            // Without it, nothing that follows may be acknowledged.
            self.fail(&format!("more than {VALUES_MAX} values wait for the disk"));
        }
    }

    /// Keeps a value that nothing has to wait for; false when there is no room for it.
    pub(super) fn keep(&mut self, slot: Slot, value: Option<Vec<u8>>) -> bool {
        let room = self.values.len() < VALUES_MAX || self.values.contains_key(&slot);
        if self.is_dead() || !room {
            self.dropped += 1;
            return false;
        }
        self.values.insert(slot, value);
        true
    }

    /// Sends a message, once the values before it in the batch are on disk and the events of
    /// the batch are told.
    pub(super) fn send(&mut self, to: Contact, message: &Message) {
        self.hold_back_or_release(Leaving::Send(to, message.encode().into()));
    }

    /// Opens a session, as [`Self::send`] sends a message.
    pub(super) fn dial(&mut self, to: Contact) {
        self.hold_back_or_release(Leaving::Dial(to));
    }

    /// Ends a session, after the messages before it that wait for nothing.
    pub(super) fn end_session(&mut self, peer: NodeId) {
        self.leaving.push(Leaving::End(peer));
    }

    /// Tells an event, once the values before it in the batch are on disk and the events
    /// before it are told. What may be told now, [`Self::ready`] returns.
    pub(super) fn tell(&mut self, event: Event) {
        if self.refusing {
            return self.ready.push(not_kept(event));
        }
        let before = self.committing.as_ref().map_or(0, |before| before.tells);
        let tells = before + self.waiting.tells;
        if !self.works() || (!self.holding && tells == 0) {
            self.ready.push(event);
        } else if tells >= TELLS_MAX {
            self.fail(&format!("more than {TELLS_MAX} events wait for the disk"));
            let event = if self.holding { not_kept(event) } else { event };
            self.ready.push(event);
        } else {
            let in_turn = !self.holding;
            self.in_turn = true;
            let last = if in_turn {
                self.last()
            } else {
                &mut self.waiting
            };
            last.push(Held {
                what: What::Tell(event),
                in_turn,
            });
        }
    }

    /// Ends a batch, and commits what gathered unless a commit runs or it is too early
    /// to try again.
    pub(super) fn flush(&mut self, now: Time) {
        self.holding = false;
        if std::mem::take(&mut self.in_turn) {
            let leaving = std::mem::take(&mut self.leaving).into_iter();
            let (ends, others): (Vec<_>, Vec<_>) =
                leaving.partition(|one| matches!(one, Leaving::End(_)));
            others.into_iter().for_each(|one| self.hold(one, true));
            // These wait for nothing, and none is dropped.
            self.leaving = ends;
        }
        let early = match self.health {
            Health::Works => false,
            Health::Fails(retry_at) => now < retry_at,
            Health::Dead => true,
        };
        if self.committing.is_none() && !self.values.is_empty() && !early {
            self.store.commit(std::mem::take(&mut self.values));
            self.committing = Some(std::mem::take(&mut self.waiting));
        }
    }

    /// A commit has ended.
    pub(super) fn committed(&mut self, now: Time, outcome: Outcome) {
        self.begin(now);
        match outcome {
            Ok(()) => {
                if !self.works() {
                    tracing::info!("the state is on disk again");
                    self.shared.unnote(ABOUT);
                    self.health = Health::Works;
                }
                let done = self.committing.take().unwrap_or_default();
                done.held
                    .into_iter()
                    .for_each(|held| self.release(held.what));
            }
            Err((batch, reason)) => {
                self.fail(&reason);
                self.committing = None;
                // What was decided since stands.
                let newer = std::mem::replace(&mut self.values, batch);
                for (slot, value) in newer {
                    self.keep(slot, value);
                }
            }
        }
        self.flush(now);
    }

    /// The store's thread has ended, which it does only by a defect: nothing is kept from
    /// now on.
    pub(super) fn died(&mut self) {
        self.fail("the program's store broke down");
        self.health = Health::Dead;
        self.committing = None;
        self.values.clear();
        let notice = "The program's store broke down: nothing is kept any more, and nothing \
                      acknowledged. Stop the daemon and start it again; its log says more.";
        tracing::error!("{notice}");
        self.shared.note(ABOUT, notice.to_owned());
    }

    /// Tells whether events wait, so that the node is ahead of what follows its events.
    pub(super) fn lags(&self) -> bool {
        let before = self.committing.as_ref().map_or(0, |before| before.tells);
        before + self.waiting.tells > 0
    }

    /// Returns the events that may be told now, in order.
    pub(super) fn ready(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.ready)
    }

    /// Lets go the messages that may leave, after what was [`Self::ready`] has been told.
    pub(super) fn leave(&mut self) {
        for leaving in self.leaving.drain(..) {
            match leaving {
                Leaving::Send(to, frame) => self.sessions.send_control(&to, frame),
                Leaving::Dial(to) => self.sessions.dial(&to),
                Leaving::End(peer) => self.sessions.drop_session(peer),
            }
        }
    }

    /// Returns when the store is to be tried again.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        match self.health {
            Health::Fails(at) if self.committing.is_none() && !self.values.is_empty() => Some(at),
            _ => None,
        }
    }

    /// Tells whether everything is on disk, or cannot be for now.
    pub(super) fn is_settled(&self) -> bool {
        self.committing.is_none() && (self.values.is_empty() || !self.works())
    }

    /// Closes the store.
    pub(super) fn close(self) {
        self.store.close();
    }

    fn hold_back_or_release(&mut self, leaving: Leaving) {
        if self.refusing {
            self.dropped += 1;
        } else if self.holding && self.works() {
            self.hold(leaving, false);
        } else {
            self.leaving.push(leaving);
        }
    }

    fn hold(&mut self, leaving: Leaving, in_turn: bool) {
        let what = What::Leave(leaving);
        let held = Held { what, in_turn };
        let last = if in_turn {
            self.last()
        } else {
            &mut self.waiting
        };
        if last.has_room_for(&held) {
            last.push(held);
        } else {
            self.dropped += 1;
        }
    }

    /// Where the last event waits, if one does.
    fn last(&mut self) -> &mut Waiting {
        match &mut self.committing {
            Some(committing) if self.waiting.tells == 0 => committing,
            _ => &mut self.waiting,
        }
    }

    fn release(&mut self, what: What) {
        match what {
            What::Tell(event) => self.ready.push(event),
            What::Leave(leaving) => self.leaving.push(leaving),
        }
    }

    /// Drops the messages that wait, lets the events go with what they come to, and waits a
    /// while until the store is tried again. What follows in the batch fares the same. A commit that runs goes on, for nobody.
    fn fail(&mut self, reason: &str) {
        self.failures += 1;
        let first = self.committing.as_mut().map(std::mem::take);
        let then = std::mem::take(&mut self.waiting);
        for held in first.unwrap_or_default().held.into_iter().chain(then.held) {
            match held.what {
                what if held.in_turn => self.release(what),
                What::Tell(event) => self.ready.push(not_kept(event)),
                What::Leave(_) => self.dropped += 1,
            }
        }
        self.refusing = self.holding;
        self.health = Health::Fails(self.now + RETRY);
        let notice = format!(
            "The state cannot be written ({reason}): make room on the disk of the data \
             directory. The node goes on and tries again every {} s; what it could not keep it \
             does not acknowledge ({} failures, {} messages and values dropped).",
            RETRY.as_secs(),
            self.failures,
            self.dropped
        );
        tracing::warn!("{notice}");
        self.shared.note(ABOUT, notice);
    }
}

impl Waiting {
    fn has_room_for(&self, held: &Held) -> bool {
        self.held.len() - self.tells < HELD_MAX && self.bytes + held.bytes() <= HELD_BYTES_MAX
    }

    fn push(&mut self, held: Held) {
        self.bytes += held.bytes();
        self.tells += usize::from(matches!(held.what, What::Tell(_)));
        self.held.push(held);
    }
}

impl Held {
    /// The octets that count for [`HELD_BYTES_MAX`].
    fn bytes(&self) -> usize {
        match &self.what {
            What::Leave(Leaving::Send(_, frame)) => frame.len(),
            What::Leave(Leaving::Dial(_) | Leaving::End(_)) | What::Tell(_) => 0,
        }
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

#[cfg(test)]
mod tests;
