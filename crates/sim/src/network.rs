//! The network between the nodes: delay, loss, and parts that cannot reach each other.
//!
//! What the way between two nodes is like is told by [`internet`](crate::internet). The
//! daemon's control lane is a reliable stream (QUIC), so a lost packet does not lose a
//! message but delays it by a retransmission. A message to a node that is gone, or in
//! another part, is lost if a session was open, and is reported as undeliverable after
//! the dial's time if none was.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::{Rng, Time};

use crate::internet::{Internet, Model, Site};

/// How long dialling goes on before it is given up, as in the daemon.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// After how long without a message a session is closed, as in the daemon.
pub const SESSION_IDLE: Duration = Duration::from_secs(120);

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives after this time.
    Arrives(Duration),
    /// It is lost without a word.
    Lost,
    /// The sender hears after the dial's time that there was no way.
    Undeliverable,
}

/// The state of the network.
#[derive(Debug)]
pub struct Network {
    internet: Internet,
    rng: Rng,
    /// When each open session was used last.
    sessions: BTreeMap<(u32, u32), Time>,
    /// When the last message of each ordered stream arrives: none overtakes another.
    streams: BTreeMap<(u32, u32), Time>,
}

impl Network {
    /// Makes a network.
    pub fn new(model: Model, mut rng: Rng) -> Self {
        Self {
            internet: Internet::new(model, rng.number()),
            rng,
            sessions: BTreeMap::new(),
            streams: BTreeMap::new(),
        }
    }

    /// Decides what becomes of a message. `reachable` tells whether the receiver lives
    /// and is in the same part.
    pub fn send(
        &mut self,
        now: Time,
        from: (u32, &Site),
        to: (u32, &Site),
        reachable: bool,
    ) -> Fate {
        let pair = (from.0.min(to.0), from.0.max(to.0));
        let used = self.sessions.get(&pair);
        let open = used.is_some_and(|used| now.since(*used) < SESSION_IDLE);
        let path = reachable.then(|| self.internet.path(from, to)).flatten();
        let Some(path) = path else {
            return if open {
                Fate::Lost
            } else {
                Fate::Undeliverable
            };
        };
        self.sessions.insert(pair, now);
        let mut delay = path.one_way + Internet::jitter(&mut self.rng, &path);
        if !open {
            delay += path.set_up;
        }
        while self.rng.below(1_000_000) < u64::from(path.loss_per_million) {
            // A probe of QUIC after one and a half round trips (RFC 9002, section 6.2.1).
            delay += path.one_way * 3;
        }
        let stream = self.streams.entry((from.0, to.0)).or_default();
        let arrives = (now + delay).max(*stream);
        *stream = arrives;
        Fate::Arrives(arrives.since(now))
    }

    /// Ends the session of two nodes.
    pub fn close(&mut self, a: u32, b: u32) {
        self.sessions.remove(&(a.min(b), a.max(b)));
    }

    /// Forgets the sessions of a node that is gone.
    pub fn forget(&mut self, node: u32) {
        self.sessions.retain(|(a, b), _| *a != node && *b != node);
        self.streams.retain(|(a, b), _| *a != node && *b != node);
    }
}
