//! The control frames that wait for one peer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::Notify;

use super::lock;
use super::table::LineId;

/// The most control frames that wait for one peer.
pub const QUEUE_FRAMES_MAX: usize = 256;

/// The most octets of control frames that wait for one peer.
pub const QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// The most octets of control frames that wait for all peers together.
pub const QUEUES_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The octets that wait for all peers.
#[derive(Default)]
pub(super) struct Budget(AtomicUsize);

impl Budget {
    /// Takes so many octets if they are left.
    fn take(&self, bytes: usize) -> bool {
        let room = |used: usize| {
            let used = used.checked_add(bytes)?;
            (used <= QUEUES_BYTES_MAX).then_some(used)
        };
        self.0.fetch_update(Relaxed, Relaxed, room).is_ok()
    }

    fn give(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Relaxed);
    }
}

/// Control frames for one peer, first in, first out.
///
/// It outlives the connections of the peer: at any time one of them, the owner,
/// takes frames out, and when another becomes the owner it goes on where the first
/// stopped.
pub(super) struct ControlQueue {
    state: Mutex<State>,
    changed: Notify,
    budget: Arc<Budget>,
}

struct State {
    frames: VecDeque<Bytes>,
    bytes: usize,
    owner: Option<LineId>,
    finished: bool,
}

/// Why a frame was not queued: the queue is full, or all queues together are, or it
/// takes no more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueueFull;

/// What the writer of a connection is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Frame(Bytes),
    /// All frames are out and no more will come.
    Finished,
}

impl ControlQueue {
    /// Makes an empty queue, one of those that share a budget.
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            state: Mutex::new(State {
                frames: VecDeque::new(),
                bytes: 0,
                owner: None,
                finished: false,
            }),
            changed: Notify::new(),
        }
    }

    /// Adds a frame, or refuses it over the limits. Never waits.
    pub(super) fn push(&self, frame: Bytes) -> Result<(), QueueFull> {
        let mut state = lock(&self.state);
        let full =
            state.frames.len() >= QUEUE_FRAMES_MAX || state.bytes + frame.len() > QUEUE_BYTES_MAX;
        if full || state.finished || !self.budget.take(frame.len()) {
            return Err(QueueFull);
        }
        state.bytes += frame.len();
        state.frames.push_back(frame);
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Waits until `line` owns the queue and there is something to do.
    pub(super) async fn next(&self, line: LineId) -> Next {
        loop {
            // Made before looking, so that a change in between is not missed.
            let changed = self.changed.notified();
            if let Some(next) = self.take(line) {
                return next;
            }
            changed.await;
        }
    }

    /// Puts a frame back that could not be written, ahead of all others; refuses it only
    /// when all queues together are full.
    pub(super) fn give_back(&self, frame: Bytes) -> Result<(), QueueFull> {
        let mut state = lock(&self.state);
        if !self.budget.take(frame.len()) {
            return Err(QueueFull);
        }
        state.bytes += frame.len();
        state.frames.push_front(frame);
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Names the connection that may take frames out.
    pub(super) fn set_owner(&self, owner: Option<LineId>) {
        lock(&self.state).owner = owner;
        self.changed.notify_waiters();
    }

    /// Takes no more frames; the owner is told once those inside are out.
    pub(super) fn finish(&self) {
        lock(&self.state).finished = true;
        self.changed.notify_waiters();
    }

    /// Drops all frames and returns how many there were.
    pub(super) fn clear(&self) -> usize {
        let mut state = lock(&self.state);
        self.budget.give(std::mem::take(&mut state.bytes));
        let frames = state.frames.len();
        state.frames.clear();
        frames
    }

    fn take(&self, line: LineId) -> Option<Next> {
        let mut state = lock(&self.state);
        if state.finished && (state.frames.is_empty() || state.owner != Some(line)) {
            return Some(Next::Finished);
        }
        if state.owner != Some(line) {
            return None;
        }
        let frame = state.frames.pop_front()?;
        state.bytes -= frame.len();
        self.budget.give(frame.len());
        Some(Next::Frame(frame))
    }
}

impl Drop for ControlQueue {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_bytes_are_bounded() {
        let queue = ControlQueue::new(Arc::default());
        for _ in 0..QUEUE_FRAMES_MAX {
            assert_eq!(queue.push(Bytes::from_static(b"x")), Ok(()));
        }
        assert_eq!(queue.push(Bytes::new()), Err(QueueFull));
        assert_eq!(queue.clear(), QUEUE_FRAMES_MAX);
        let half = Bytes::from(vec![0; QUEUE_BYTES_MAX / 2 + 1]);
        assert_eq!(queue.push(half.clone()), Ok(()));
        assert_eq!(queue.push(half), Err(QueueFull));
    }

    #[test]
    fn all_queues_together_are_bounded() {
        let budget = Arc::new(Budget::default());
        let frame = Bytes::from(vec![0; QUEUE_BYTES_MAX]);
        let mut queues: Vec<ControlQueue> = (0..QUEUES_BYTES_MAX / QUEUE_BYTES_MAX + 1)
            .map(|_| ControlQueue::new(Arc::clone(&budget)))
            .collect();
        let last = queues.pop().unwrap();
        assert!(queues.iter().all(|queue| queue.push(frame.clone()).is_ok()));
        assert_eq!(last.push(Bytes::from_static(b"x")), Err(QueueFull));
        queues[0].set_owner(Some(1));
        assert!(matches!(queues[0].take(1), Some(Next::Frame(_))));
        assert_eq!(last.push(frame.clone()), Ok(()));
        queues[1].clear();
        queues[2].push(frame.clone()).unwrap_err();
        drop((queues, last));
        assert_eq!(budget.0.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn the_next_owner_goes_on_where_the_last_stopped() {
        let queue = ControlQueue::new(Arc::default());
        for frame in [&b"a"[..], b"b"] {
            queue.push(Bytes::from_static(frame)).unwrap();
        }
        queue.set_owner(Some(1));
        let Next::Frame(frame) = queue.next(1).await else {
            panic!("two frames wait");
        };
        queue.give_back(frame).unwrap();
        queue.set_owner(Some(2));
        assert_eq!(queue.next(2).await, Next::Frame(Bytes::from_static(b"a")));
        queue.finish();
        assert_eq!(queue.next(1).await, Next::Finished);
        assert_eq!(queue.next(2).await, Next::Frame(Bytes::from_static(b"b")));
        assert_eq!(queue.next(2).await, Next::Finished);
        assert_eq!(queue.push(Bytes::new()), Err(QueueFull));
    }
}
