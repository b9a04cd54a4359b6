//! The network between the nodes: delay, loss, and parts that cannot reach each other.
//!
//! What the way between two nodes is like is told by [`internet`](crate::internet). The
//! daemon's control lane is a reliable stream (QUIC), so a lost packet does not lose a
//! message but delays it by a retransmission. A message to a node that is gone, or in
//! another part, is lost if a session was open, and is reported as undeliverable after
//! the dial's time if none was, unless the two have a session by then.

use std::time::Duration;

use enishi_overlay::{Rng, Time};
use rustc_hash::FxHashMap;

use crate::internet::{Internet, Model, Path, Site, Transport};

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

/// Two nodes, the one with the smaller number first.
type Pair = (u32, u32);

/// What two nodes have between them, or had: when it is [spent](Self::is_spent) it is as
/// good as nothing.
#[derive(Clone, Copy, Debug)]
struct Session {
    /// In which of their lives the two nodes opened it.
    lives: (u32, u32),
    /// Until when it stays open if it is not used.
    open_until: Time,
    /// When the last message of each direction arrives: none overtakes another.
    arrivals: [Time; 2],
    one_way_micros: u32,
    loss_per_million: u32,
}

impl Session {
    fn is_spent(&self, now: Time) -> bool {
        self.open_until <= now && self.arrivals.iter().all(|at| *at <= now)
    }
}

/// The state of the network.
#[derive(Debug)]
pub struct Network {
    internet: Internet,
    rng: Rng,
    /// In an order without meaning: only looked up and thinned out.
    sessions: FxHashMap<Pair, Session>,
    /// How often each node has died.
    lives: Vec<u32>,
    /// How much longer than usual every message takes at present.
    slowness: Duration,
}

impl Network {
    /// Makes a network.
    pub fn new(model: Model, mut rng: Rng) -> Self {
        Self {
            internet: Internet::new(model, rng.number()),
            rng,
            sessions: FxHashMap::default(),
            lives: Vec::new(),
            slowness: Duration::ZERO,
        }
    }

    /// Has every message take so much longer from now on, in either direction.
    pub fn set_slowness(&mut self, slowness: Duration) {
        self.slowness = slowness;
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
        if self.internet.transport() == Transport::Datagrams {
            return self.send_datagram(from, to, reachable);
        }
        let pair = pair(from.0, to.0);
        let known = self.session(pair);
        let open = known.filter(|session| now < session.open_until);
        let Some((mut session, set_up)) = (match open {
            _ if !reachable => None,
            Some(open) => Some((open, Duration::ZERO)),
            None => self.open(from, to, known),
        }) else {
            return match open {
                Some(_) => Fate::Lost,
                None => Fate::Undeliverable,
            };
        };
        let arrives = now + set_up + self.delay(&session);
        let arrival = &mut session.arrivals[usize::from(from.0 > to.0)];
        *arrival = arrives.max(*arrival);
        let delay = arrival.since(now);
        session.open_until = now + SESSION_IDLE;
        self.keep(now, pair, session);
        Fate::Arrives(delay)
    }

    /// Draws how long one message would take in an open session, without any being sent; none
    /// when the two can never reach each other.
    pub fn one_way(&mut self, from: (u32, &Site), to: (u32, &Site)) -> Option<Duration> {
        let (session, _) = self.open(from, to, None)?;
        Some(self.delay(&session))
    }

    fn send_datagram(&mut self, from: (u32, &Site), to: (u32, &Site), reachable: bool) -> Fate {
        let path = self.internet.path(from, to).filter(|_| reachable);
        let Some(path) = path else { return Fate::Lost };
        if self.rng.below(1_000_000) < u64::from(path.loss_per_million) {
            return Fate::Lost;
        }
        Fate::Arrives(path.one_way + self.internet.jitter(&mut self.rng, &path))
    }

    /// Draws how long one message takes in an open session.
    fn delay(&mut self, session: &Session) -> Duration {
        let path = Path {
            one_way: Duration::from_micros(session.one_way_micros.into()),
            set_up: Duration::ZERO,
            loss_per_million: session.loss_per_million,
        };
        let mut delay = path.one_way + self.slowness + self.internet.jitter(&mut self.rng, &path);
        while self.rng.below(1_000_000) < u64::from(path.loss_per_million) {
            // A probe of QUIC after one and a half round trips (RFC 9002, section 6.2.1).
            delay += path.one_way * 3;
        }
        delay
    }

    /// Returns a new session and how long its handshake takes; none when there is no way.
    fn open(
        &self,
        from: (u32, &Site),
        to: (u32, &Site),
        before: Option<Session>,
    ) -> Option<(Session, Duration)> {
        let path = self.internet.path(from, to)?;
        let (low, high) = pair(from.0, to.0);
        let session = Session {
            lives: (self.life(low), self.life(high)),
            open_until: Time::ZERO,
            arrivals: before.map_or_else(Default::default, |before| before.arrivals),
            one_way_micros: u32::try_from(path.one_way.as_micros()).unwrap_or(u32::MAX),
            loss_per_million: path.loss_per_million,
        };
        Some((session, path.set_up))
    }

    /// Returns what two nodes have between them, open or not.
    fn session(&self, (low, high): Pair) -> Option<Session> {
        let session = self.sessions.get(&(low, high)).copied();
        session.filter(|session| session.lives == (self.life(low), self.life(high)))
    }

    fn keep(&mut self, now: Time, pair: Pair, session: Session) {
        if self.sessions.len() == self.sessions.capacity() {
            self.sessions.retain(|_, session| !session.is_spent(now));
            self.sessions.reserve(self.sessions.len());
        }
        self.sessions.insert(pair, session);
    }

    /// Tells whether two nodes can never reach each other.
    pub fn is_broken(&self, a: u32, b: u32) -> bool {
        self.internet.is_broken(a, b)
    }

    /// Tells whether two nodes have an open session.
    pub fn is_open(&self, now: Time, a: u32, b: u32) -> bool {
        let session = self.session(pair(a, b));
        session.is_some_and(|session| now < session.open_until)
    }

    /// Ends the session of two nodes.
    pub fn close(&mut self, a: u32, b: u32) {
        if let Some(session) = self.sessions.get_mut(&pair(a, b)) {
            session.open_until = Time::ZERO;
        }
    }

    /// Forgets the sessions of a node that is gone.
    pub fn forget(&mut self, node: u32) {
        let node = node as usize;
        if self.lives.len() <= node {
            self.lives.resize(node + 1, 0);
        }
        self.lives[node] += 1;
    }

    fn life(&self, node: u32) -> u32 {
        self.lives.get(node as usize).copied().unwrap_or(0)
    }
}

const fn pair(a: u32, b: u32) -> Pair {
    if a < b { (a, b) } else { (b, a) }
}
