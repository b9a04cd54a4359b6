//! The nodes that relay packets to peers which no datagram reaches straight, as their ends see it
//! ([`crate::relay`]).
//!
//! This node binds at each of them, and again from time to time: that keeps the translation between open,
//! and tells the relay where this node is now. Once bound, the relay is one more way to the peer
//! ([`super::paths`]), probed as any other, and left behind as soon as there is one that goes straight.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::driver::Driver;
use super::sockets::{Pair, Via};
use super::{ByRelay, Outside, PeerKey};
use crate::ecn::NOT_CAPABLE;
use crate::relay::{Bind, Kind, Mac, Token};

/// The most relays, and of one peer.
pub(super) const RELAYS_MAX: usize = 256;
/// How often it binds until it is answered, at first and at last; then, so that translations stay open
/// (RFC 4787, section 4.3: half a minute in some); and at most.
const FIRST: Duration = Duration::from_millis(250);
const LAST: Duration = Duration::from_secs(10);
const KEEP: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(200);

/// The relays by which peers are reached.
#[derive(Default)]
pub(super) struct Relays(BTreeMap<Token, Relay>);

struct Relay {
    peer: PeerKey,
    by: PeerKey,
    at: SocketAddr,
    key: Mac,
    until: Instant,
    counter: u64,
    /// The last bind that was answered.
    answered: u64,
    cookie: u64,
    is_bound: bool,
    asked: Option<Instant>,
    next: Instant,
    pause: Duration,
}

impl Relay {
    fn pair(&self, token: Token) -> Pair {
        Pair {
            via: Via::FIRST,
            address: self.at,
            relay: Some(token),
        }
    }

    /// Returns the next bind.
    fn bind(&mut self, now: Instant, token: Token) -> [u8; crate::relay::BIND_BYTES] {
        self.counter += 1;
        self.asked = Some(now);
        self.next = now + self.pause;
        self.pause = (self.pause * 2).min(LAST);
        let (counter, cookie) = (self.counter, self.cookie);
        let bind = Bind {
            token,
            counter,
            cookie,
        };
        bind.sign(Kind::Bind, &self.key)
    }
}

impl Relays {
    /// Tells who relays by a token.
    pub(super) fn by(&self, token: Token) -> Option<PeerKey> {
        self.0.get(&token).map(|relay| relay.by)
    }

    /// Tells whether a datagram of a token from an address is for this node.
    pub(super) fn is_end(&self, token: Token, from: SocketAddr) -> bool {
        self.0.get(&token).is_some_and(|relay| relay.at == from)
    }

    /// Returns the ways to a peer by relays at which this node is bound.
    pub(super) fn to(&self, peer: PeerKey) -> Vec<Pair> {
        let bound = self
            .0
            .iter()
            .filter(|(_, relay)| relay.is_bound && relay.peer == peer);
        bound.map(|(token, relay)| relay.pair(*token)).collect()
    }
}

/// Returns what is above all that an earlier life of this node, or an earlier relay by the same token,
/// has counted: microseconds since 1970, far more than binds in that time.
fn first_counter() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(0))
}

impl<O: Outside> Driver<O> {
    /// A node relays to a peer from now on, or longer.
    pub(super) fn by_relay(&mut self, told: &ByRelay) {
        let (now, until) = (self.now, self.now + told.lasts);
        if let Some(relay) = self.relays.0.get_mut(&told.token) {
            if (relay.by, relay.peer) != (told.by, told.peer) {
                return;
            }
            relay.until = until;
            if relay.at != told.at {
                // Where it is now this node is not bound yet.
                (relay.at, relay.is_bound, relay.next) = (told.at, false, now);
                for slot in self.slots_of(told.peer) {
                    self.sessions[slot].paths.forget_relay(now, told.token);
                }
            }
            return;
        }
        // One relay has one token for a peer.
        let same = |relay: &Relay| (relay.peer, relay.by) == (told.peer, told.by);
        let old = self.relays.0.iter().find(|(_, relay)| same(relay));
        let old = old.map(|(token, relay)| (*token, relay.asked));
        if let Some((token, _)) = old {
            self.end_relay(token);
        }
        let counter = first_counter();
        if self.relays.0.len() >= RELAYS_MAX || self.slots_of(told.peer).is_empty() {
            return;
        }
        let relay = Relay {
            peer: told.peer,
            by: told.by,
            at: told.at,
            key: told.key.mac(),
            until,
            counter,
            answered: counter,
            cookie: 0,
            is_bound: false,
            // Who grants again and again has binds sent no oftener.
            asked: old.and_then(|(_, asked)| asked),
            next: now,
            pause: FIRST,
        };
        self.relays.0.insert(told.token, relay);
        self.bind(told.token);
    }

    /// Binds at a relay, unless it was done just now.
    pub(super) fn bind(&mut self, token: Token) {
        let now = self.now;
        let Some(relay) = self.relays.0.get_mut(&token) else {
            return;
        };
        if relay.asked.is_some_and(|asked| now - asked < PAUSE) {
            return;
        }
        let (to, datagram) = (relay.at, relay.bind(now, token));
        self.send_bind(to, &datagram);
    }

    fn send_bind(&self, to: SocketAddr, datagram: &[u8]) {
        // What the system does not take is lost.
        let socket = self.exit.sockets.first();
        let _ = socket.send((to, NOT_CAPABLE), datagram, datagram.len());
    }

    /// A relay answers a bind.
    pub(super) fn bind_answered(
        &mut self,
        (kind, token): (Kind, Token),
        from: Pair,
        datagram: &[u8],
    ) {
        let now = self.now;
        let relay = self.relays.0.get_mut(&token);
        let relay = relay.filter(|relay| relay.at == from.address && from.via == Via::FIRST);
        let answered = relay.and_then(|relay| {
            let answer = Bind::verify(datagram, &relay.key)?;
            // To each bind once, and none before another one.
            let awaited = relay.answered + 1..=relay.counter;
            awaited.contains(&answer.counter).then_some((relay, answer))
        });
        let Some((relay, answer)) = answered else {
            self.refused += 1;
            return;
        };
        relay.answered = answer.counter;
        relay.cookie = answer.cookie;
        if kind == Kind::Prove {
            let (to, datagram) = (relay.at, relay.bind(now, token));
            return self.send_bind(to, &datagram);
        }
        (relay.next, relay.pause) = (now + KEEP, FIRST);
        if !relay.is_bound {
            relay.is_bound = true;
            let (pair, peer) = (relay.pair(token), relay.peer);
            for slot in self.slots_of(peer) {
                self.sessions[slot].paths.learn_relay(now, pair);
            }
            self.look_soon();
        }
    }

    /// Tells whether packets of any session with a peer go by a relay.
    pub(super) fn is_relayed(&self, peer: PeerKey) -> bool {
        let slots = self.slots_of(peer);
        let mut slots = slots.into_iter();
        slots.any(|slot| self.sessions[slot].paths.relay().is_some())
    }

    /// Binds where it is due, and forgets relays whose time is over or whose peer is gone.
    pub(super) fn look_after_relays(&mut self) {
        let now = self.now;
        let mut over = Vec::new();
        let mut due = Vec::new();
        for (token, relay) in &self.relays.0 {
            if now >= relay.until || self.slots_of(relay.peer).is_empty() {
                over.push(*token);
            } else if now >= relay.next {
                due.push(*token);
            }
        }
        over.into_iter().for_each(|token| self.end_relay(token));
        due.into_iter().for_each(|token| self.bind(token));
    }

    /// This host has other addresses: the relays are to know.
    pub(super) fn bind_all(&mut self) {
        for relay in self.relays.0.values_mut() {
            (relay.next, relay.pause, relay.asked) = (self.now, FIRST, None);
        }
    }

    fn end_relay(&mut self, token: Token) {
        if let Some(relay) = self.relays.0.remove(&token) {
            for slot in self.slots_of(relay.peer) {
                self.sessions[slot].paths.forget_relay(self.now, token);
            }
        }
    }
}
