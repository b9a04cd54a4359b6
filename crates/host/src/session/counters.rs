//! What the session layer refused, dropped or lost.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Control frames handed to QUIC.
    pub frames_sent: u64,
    /// Their octets, without the length before each.
    pub frame_bytes_sent: u64,
    /// Control frames dropped because the peer's queue was full, or all queues together.
    pub frames_dropped: u64,
    /// Control frames lost because the dial failed or the last connection closed.
    pub frames_lost: u64,
    /// Control frames over the size limit: received ones cost the peer its session,
    /// own ones were not sent.
    pub frames_oversized: u64,
    /// Connections refused because there are too many.
    pub sessions_refused: u64,
    /// Dials refused because too many are pending.
    pub dials_refused: u64,
    /// Sessions opened by nodes that this one had not met, and was not dialling.
    pub strangers: u64,
}

/// The counters while they count.
#[derive(Default)]
pub(super) struct Counting {
    frames_sent: AtomicU64,
    frame_bytes_sent: AtomicU64,
    frames_dropped: AtomicU64,
    frames_lost: AtomicU64,
    frames_oversized: AtomicU64,
    sessions_refused: AtomicU64,
    dials_refused: AtomicU64,
    strangers: AtomicU64,
}

impl Counting {
    pub(super) fn snapshot(&self) -> Counters {
        Counters {
            frames_sent: self.frames_sent.load(Relaxed),
            frame_bytes_sent: self.frame_bytes_sent.load(Relaxed),
            frames_dropped: self.frames_dropped.load(Relaxed),
            frames_lost: self.frames_lost.load(Relaxed),
            frames_oversized: self.frames_oversized.load(Relaxed),
            sessions_refused: self.sessions_refused.load(Relaxed),
            dials_refused: self.dials_refused.load(Relaxed),
            strangers: self.strangers.load(Relaxed),
        }
    }

    pub(super) fn frame_sent(&self, bytes: usize) {
        self.frames_sent.fetch_add(1, Relaxed);
        self.frame_bytes_sent.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn frames_dropped(&self) {
        self.frames_dropped.fetch_add(1, Relaxed);
    }

    pub(super) fn frames_lost(&self, frames: usize) {
        self.frames_lost.fetch_add(frames as u64, Relaxed);
    }

    pub(super) fn frames_oversized(&self) {
        self.frames_oversized.fetch_add(1, Relaxed);
    }

    pub(super) fn sessions_refused(&self) {
        self.sessions_refused.fetch_add(1, Relaxed);
    }

    pub(super) fn strangers(&self) {
        self.strangers.fetch_add(1, Relaxed);
    }

    pub(super) fn dials_refused(&self) {
        self.dials_refused.fetch_add(1, Relaxed);
    }
}
