//! The network between the nodes: delay, loss, and parts that cannot reach each other.
//!
//! Nodes sit on a plane; the delay between two grows with their distance, and every
//! message adds some delay of its own. The daemon's control lane is a reliable stream
//! (QUIC), so a lost packet does not lose a message but delays it by a retransmission.
//! A message to a node that is gone, or in another part, is lost if a session was open,
//! and is reported as undeliverable after the dial's time if none was.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::{Rng, Time};

/// How long dialling goes on before it is given up, as in the daemon.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// After how long without a message a session is closed, as in the daemon.
pub const SESSION_IDLE: Duration = Duration::from_secs(120);

/// How the network behaves.
#[derive(Clone, Debug)]
pub struct Model {
    /// The delay between two nodes at one place.
    pub delay_least: Duration,
    /// What distance adds between opposite corners of the plane.
    pub delay_spread: Duration,
    /// How many packets of a thousand are lost.
    pub loss_per_mille: u32,
}

impl Default for Model {
    /// A round trip of 4 to 170 ms, mostly near 80; one packet of a hundred is lost.
    fn default() -> Self {
        Self {
            delay_least: Duration::from_millis(2),
            delay_spread: Duration::from_millis(80),
            loss_per_mille: 10,
        }
    }
}

/// A node's place on the plane, each coordinate in 0..=65535.
#[derive(Clone, Copy, Debug)]
pub struct Spot(u16, u16);

impl Spot {
    /// Draws a place evenly.
    pub fn random(rng: &mut Rng) -> Self {
        let number = rng.number();
        Self(number as u16, (number >> 16) as u16)
    }

    /// Returns the distance in units of the plane's side, in 0..=65535·√2.
    fn distance(self, other: Self) -> u64 {
        let (x, y) = (self.0.abs_diff(other.0), self.1.abs_diff(other.1));
        (u64::from(x).pow(2) + u64::from(y).pow(2)).isqrt()
    }
}

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
    model: Model,
    rng: Rng,
    /// When each open session was used last.
    sessions: BTreeMap<(u32, u32), Time>,
    /// When the last message of each ordered stream arrives: none overtakes another.
    streams: BTreeMap<(u32, u32), Time>,
}

impl Network {
    /// Makes a network.
    pub fn new(model: Model, rng: Rng) -> Self {
        Self {
            model,
            rng,
            sessions: BTreeMap::new(),
            streams: BTreeMap::new(),
        }
    }

    /// Decides what becomes of a message. `reachable` tells whether the receiver lives
    /// and is in the same part.
    pub fn send(&mut self, now: Time, from: (u32, Spot), to: (u32, Spot), reachable: bool) -> Fate {
        let pair = (from.0.min(to.0), from.0.max(to.0));
        let used = self.sessions.get(&pair);
        let open = used.is_some_and(|used| now.since(*used) < SESSION_IDLE);
        if !reachable {
            return if open {
                Fate::Lost
            } else {
                Fate::Undeliverable
            };
        }
        self.sessions.insert(pair, now);
        let span = u64::try_from(self.model.delay_spread.as_micros()).unwrap_or(u64::MAX);
        let distance = Duration::from_micros(from.1.distance(to.1) * span / 92_680);
        let one_way = self.model.delay_least + distance;
        let mut delay = one_way + self.rng.duration_below(one_way / 10);
        if !open {
            // The handshake: one round trip before the first message.
            delay += one_way * 2;
        }
        while self.rng.below(1000) < u64::from(self.model.loss_per_mille) {
            delay += one_way * 3;
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
