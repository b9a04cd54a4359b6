//! Two members whose packets find no way straight to each other choose nodes that relay them.
//!
//! ```text
//!   A -- could: B ------------------------------------> R1, R2, R3   those with whom A has sessions
//!     <- offer: round trip to B, load; or not --------- R1, R2, R3
//!   A -- relay: B ------------------------------------> R1, R2       the nearest of these
//!     <- grant: token, A's key, port ------------------ R1, R2
//!   B <- grant: token, B's key, port ------------------ R1, R2
//! ```
//!
//! Then both ends bind at the relay with plain datagrams, and their packets go that way as they are: the
//! engine of the host does it (`crates/dataplane`, `relay.rs`). The relay sees who speaks with whom, how
//! much and when; what is said is sealed from end to end.
//!
//! A node relays if its host says for how many pairs, others reach it without a translation or by a port that
//! its router maps, and its sessions with both go straight. It grants for [`LASTS`]; an end that still needs the relay asks again
//! before that is over, and names the token. A new wish for the same pair ends what was granted before.
//!
//! Of two members the one with the lesser id asks; the other one only if nothing came of it. Up to
//! [`RELAYS_MAX`] are held at a time, so that another is there when one dies. Grants that nobody asked for are
//! taken as long as fewer than four are held: only packets of members go by them, and only where
//! none go straight.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use enishi_overlay::{NodeId, Time};
use serde::{Deserialize, Serialize};

use super::ports::Ports;
use super::wire::ReachMessage;
use super::{Cx, Event, Session};
use crate::bucket::Rate;
use crate::keys::Secret;
use crate::pace::Pace;

/// For how long a relay is granted: sessions that are used as often as it is prolonged stay open.
pub const LASTS: Duration = Duration::from_secs(240);
/// How many relays a pair is to have, and how many at most.
pub const RELAYS_MAX: usize = 2;
const HELD_MAX: usize = 4;

/// How many are asked at a time whether they could, and how long they are waited for.
const ASKED_MAX: usize = 6;
const ASK_WAIT: Duration = Duration::from_millis(400);
/// How soon others are asked again while there is no relay, and while there is one but no second.
const AGAIN: Duration = Duration::from_secs(4);
const AGAIN_SPARE: Duration = Duration::from_secs(30);
/// After so long a relay by which no packets go is taken to be of no use, and not asked for so long.
const USELESS_AFTER: Duration = Duration::from_secs(3);
const USELESS_FOR: Duration = Duration::from_secs(20);
/// The most members for which relays are looked for.
const PEERS_MAX: usize = 64;
/// How many of these may be members for which this host has not asked for any, but others have.
const UNASKED_MAX: usize = 16;
/// A member that needed no relay for so long is forgotten.
const WANTED_FOR: Duration = Duration::from_secs(60);
/// What is taken for a round trip that was never measured.
const UNKNOWN: Duration = Duration::from_millis(200);
/// How often one node's wishes are followed: as many at once as it may want relays for members.
const WISHES: Rate = Rate {
    per_s: 4,
    burst: 2 * PEERS_MAX as u32,
};

/// For whom this node relays at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Pairs at a time.
    pub pairs_max: u32,
    /// Of these with one member.
    pub pairs_of_one_max: u32,
}

/// How well a node could relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its round trip to the other end, in microseconds.
    pub round_trip_us: u32,
    /// How much of what it relays at most is taken, in percent.
    pub load: u8,
}

/// What one end needs to have its packets relayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What names the pair at the relay.
    pub token: u64,
    /// This end's key.
    pub key: Secret,
    /// At which port the relay takes packets.
    pub port: u16,
    /// For how many seconds.
    pub lasts_s: u16,
}

/// A node that relays packets between this one and another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Relayed {
    /// The other one.
    pub peer: NodeId,
    /// Who relays.
    pub by: NodeId,
    /// Where.
    pub at: SocketAddr,
    /// What names the two there.
    pub token: u64,
    /// This node's key.
    #[serde(skip)]
    pub key: Secret,
    /// For how long.
    pub lasts: Duration,
}

/// What is granted to a pair, the lesser id first.
#[derive(Debug)]
struct Granted {
    token: u64,
    keys: [Secret; 2],
    until: Time,
}

/// What a member's relays are, as far as this node knows.
#[derive(Debug, Default)]
struct Wanted {
    /// When the host last said that it has no way straight to the member, and how often.
    at: Time,
    times: u32,
    /// Who is asked whether it could, and who said so.
    asked: BTreeSet<NodeId>,
    offers: Vec<(u64, NodeId)>,
    choose_at: Option<Time>,
    next: Time,
    held: BTreeMap<NodeId, Held>,
    useless: BTreeMap<NodeId, Time>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    token: u64,
    since: Time,
    until: Time,
}

/// The relays of a node, and those for which it is one.
#[derive(Debug, Default)]
pub(super) struct Relays {
    terms: Terms,
    granted: BTreeMap<[NodeId; 2], Granted>,
    wanted: BTreeMap<NodeId, Wanted>,
    wishes: Option<Pace>,
}

/// What is known of the sessions at the moment.
pub(super) struct Sight<'a> {
    /// Those that go straight.
    pub(super) sessions: &'a BTreeMap<NodeId, Session>,
    /// The ports at which the host takes packets, if others reach it.
    pub(super) ports: Option<Ports>,
}

impl Sight<'_> {
    /// Returns where the peer of a session that goes straight is; none without one.
    fn at(&self, peer: NodeId) -> Option<SocketAddr> {
        self.sessions.get(&peer).map(|session| session.at)
    }

    /// Returns the port at which such a peer reaches this node.
    fn port_toward(&self, peer: NodeId) -> Option<u16> {
        self.ports
            .zip(self.at(peer))
            .map(|(ports, at)| ports.toward(at))
    }
}

impl Relays {
    pub(super) fn set_terms(&mut self, terms: Terms) {
        self.terms = terms;
    }

    /// The host finds no way straight to a member; a relay may be between. Some nodes may have
    /// sessions with both.
    pub(super) fn want(
        &mut self,
        (peer, is_relayed): (NodeId, bool),
        candidates: &[NodeId],
        sight: &Sight<'_>,
        cx: &mut Cx<'_>,
    ) {
        let now = cx.now();
        self.wanted
            .retain(|_, wanted| now.since(wanted.at) < WANTED_FOR || wanted.lives(now));
        let is_full = self.is_full() && !self.wanted.contains_key(&peer);
        // Who goes straight in a session is reached well enough by it.
        if is_full || peer == cx.me() || sight.at(peer).is_some() {
            return;
        }
        let wanted = self.wanted.entry(peer).or_default();
        wanted.times += 1;
        wanted.at = now;
        wanted.clear(now, is_relayed);
        let due = match cx.me() < peer {
            true => LASTS / 2,
            false => LASTS / 4,
        };
        for (relay, held) in &wanted.held {
            if held.until.since(now) < due {
                cx.send_to(*relay, ReachMessage::Relay(peer, held.token).encode());
            }
        }
        let waits = wanted.choose_at.is_some() || now < wanted.next;
        let is_others_turn = cx.me() > peer && wanted.times < 2;
        if wanted.held.len() >= RELAYS_MAX || waits || is_others_turn {
            return;
        }
        wanted.next = now
            + match wanted.held.is_empty() {
                true => AGAIN,
                false => AGAIN_SPARE,
            };
        let could = |id: &&NodeId| {
            let is_new = !wanted.held.contains_key(id) && !wanted.useless.contains_key(id);
            is_new && **id != peer && sight.at(**id).is_some()
        };
        let mut chosen: Vec<NodeId> = Vec::new();
        for id in candidates.iter().filter(could) {
            if chosen.len() < ASKED_MAX && !chosen.contains(id) {
                chosen.push(*id);
            }
        }
        if chosen.is_empty() {
            return;
        }
        for id in &chosen {
            cx.send_to(*id, ReachMessage::Could(peer).encode());
        }
        wanted.asked = chosen.into_iter().collect();
        wanted.choose_at = Some(now + ASK_WAIT);
    }

    /// Somebody asks whether this node could relay to another one.
    pub(super) fn could(&mut self, from: NodeId, with: NodeId, sight: &Sight<'_>, cx: &mut Cx<'_>) {
        // Who has no session that goes straight costs the others nothing.
        if sight.at(from).is_none() || !self.may(from, cx.now()) {
            return;
        }
        let standing = self.has_room(from, with, sight).then(|| Standing {
            round_trip_us: micros(round_trip(with, cx)),
            load: self.load(),
        });
        cx.send_to(from, ReachMessage::Offer(with, standing).encode());
    }

    /// Somebody could relay to a member, or not.
    pub(super) fn offered(
        &mut self,
        (from, peer): (NodeId, NodeId),
        standing: Option<Standing>,
        cx: &mut Cx<'_>,
    ) {
        let to_it = u64::from(micros(round_trip(from, cx)));
        let Some(wanted) = self.wanted.get_mut(&peer) else {
            return;
        };
        if !wanted.asked.remove(&from) {
            return;
        }
        if let Some(standing) = standing {
            let whole = to_it + u64::from(standing.round_trip_us);
            // One that is half taken has to be nearer by a third.
            let cost = whole * (100 + u64::from(standing.load.min(100)));
            wanted.offers.push((cost, from));
        }
        if wanted.asked.is_empty() {
            wanted.choose(peer, cx);
        }
    }

    /// Somebody wants packets relayed, or longer if it names the token.
    pub(super) fn wished(
        &mut self,
        from: NodeId,
        (with, token): (NodeId, u64),
        sight: &Sight<'_>,
        cx: &mut Cx<'_>,
    ) {
        let now = cx.now();
        if sight.port_toward(from).is_none() {
            return;
        }
        let pair = pair(from, with);
        let renews = |granted: &&Granted| granted.token == token && now < granted.until;
        let renewed = self.granted.get(&pair).filter(renews);
        // What is renewed is no new wish; what was renewed just now lasts for long enough.
        if renewed.is_some_and(|granted| granted.until.since(now) > LASTS * 3 / 4) {
            return;
        }
        if renewed.is_none() {
            if !self.may(from, now) {
                return;
            }
            if let Some(before) = self.granted.remove(&pair) {
                cx.emit(Event::RelayEnds(before.token));
            }
            if !self.has_room(from, with, sight) {
                return cx.send_to(from, ReachMessage::Offer(with, None).encode());
            }
        }
        let granted = self.granted.entry(pair).or_insert_with(|| Granted {
            token: cx.rng().number(),
            keys: [(); 2].map(|()| Secret::new(cx.rng().octets())),
            until: now,
        });
        granted.until = now + LASTS;
        let (token, keys) = (granted.token, granted.keys.clone());
        for (place, to) in pair.into_iter().enumerate() {
            let Some(port) = sight.port_toward(to) else {
                continue;
            };
            let grant = Grant {
                token,
                key: keys[place].clone(),
                port,
                lasts_s: LASTS.as_secs() as u16,
            };
            cx.send_to(to, ReachMessage::Grant(pair[1 - place], grant).encode());
        }
        cx.emit(Event::Relay {
            token,
            keys,
            lasts: LASTS,
        });
    }

    /// Somebody relays to a peer.
    pub(super) fn granted(
        &mut self,
        (from, peer): (NodeId, NodeId),
        grant: Grant,
        sight: &Sight<'_>,
        cx: &mut Cx<'_>,
    ) {
        let now = cx.now();
        let at = sight
            .at(from)
            .filter(|_| grant.port != 0 && grant.token != 0);
        let is_known = self.wanted.contains_key(&peer);
        let unasked = self.wanted.values().filter(|wanted| wanted.times == 0);
        let has_room = is_known || (unasked.count() < UNASKED_MAX && !self.is_full());
        let Some(at) = at.filter(|_| peer != cx.me() && from != peer && has_room) else {
            return;
        };
        let wanted = self.wanted.entry(peer).or_default();
        if wanted.useless.contains_key(&from) {
            return;
        }
        wanted.held.retain(|_, held| now < held.until);
        if wanted.held.len() >= HELD_MAX && !wanted.held.contains_key(&from) {
            return;
        }
        let lasts = Duration::from_secs(grant.lasts_s.into()).min(LASTS);
        // Another token makes it no newer: nothing goes by it still.
        let since = wanted.held.get(&from).map_or(now, |held| held.since);
        let (token, until) = (grant.token, now + lasts);
        wanted.held.insert(
            from,
            Held {
                token,
                since,
                until,
            },
        );
        cx.emit(Event::Relayed(Relayed {
            peer,
            by: from,
            at: SocketAddr::new(at.ip(), grant.port),
            token,
            key: grant.key,
            lasts,
        }));
    }

    /// Nobody uses what was granted under a token: there is room for others.
    pub(super) fn unused(&mut self, token: u64) {
        self.granted.retain(|_, granted| granted.token != token);
    }

    /// A session has ended: if that was with a relay, another one is needed.
    pub(super) fn gone(&mut self, peer: NodeId) {
        for wanted in self.wanted.values_mut() {
            wanted.asked.remove(&peer);
            if wanted.held.remove(&peer).is_some() {
                wanted.next = Time::ZERO;
            }
        }
    }

    pub(super) fn on_timeout(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now();
        for (peer, wanted) in &mut self.wanted {
            if wanted.choose_at.is_some_and(|at| at <= now) {
                wanted.choose(*peer, cx);
            }
        }
        self.granted.retain(|_, granted| now < granted.until);
    }

    pub(super) fn next_timeout(&self) -> Option<Time> {
        let choices = self.wanted.values().filter_map(|wanted| wanted.choose_at);
        let ends = self.granted.values().map(|granted| granted.until);
        choices.chain(ends).min()
    }

    fn is_full(&self) -> bool {
        self.wanted.len() >= PEERS_MAX
    }

    fn may(&mut self, from: NodeId, now: Time) -> bool {
        let wishes = self.wishes.get_or_insert_with(|| Pace::new(WISHES));
        wishes.take(from, now)
    }

    /// Tells whether one more pair has room, both ends of which are reached straight.
    fn has_room(&self, one: NodeId, other: NodeId, sight: &Sight<'_>) -> bool {
        let of = |id: NodeId| {
            self.granted
                .keys()
                .filter(|pair| pair.contains(&id))
                .count()
        };
        let is_room_of = |id: NodeId| of(id) < self.terms.pairs_of_one_max as usize;
        let is_straight = |id: NodeId| sight.at(id).is_some();
        let is_known = self.granted.contains_key(&pair(one, other));
        let has_room = is_known
            || (self.granted.len() < self.terms.pairs_max as usize
                && is_room_of(one)
                && is_room_of(other));
        sight.ports.is_some() && one != other && has_room && is_straight(one) && is_straight(other)
    }

    fn load(&self) -> u8 {
        let pairs_max = (self.terms.pairs_max as usize).max(1);
        (self.granted.len() * 100 / pairs_max).min(100) as u8
    }
}

impl Wanted {
    /// Tells whether relays are held.
    fn lives(&self, now: Time) -> bool {
        self.held.values().any(|held| now < held.until)
    }

    /// Forgets relays that have ended, and those by which nothing goes.
    fn clear(&mut self, now: Time, is_relayed: bool) {
        self.useless.retain(|_, until| now < *until);
        let useless = |held: &Held| !is_relayed && now.since(held.since) >= USELESS_AFTER;
        let (ended, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(_, held)| now >= held.until || useless(held));
        self.held = kept.into_iter().collect();
        for (relay, _) in ended {
            self.useless.insert(relay, now + USELESS_FOR);
            self.next = now;
        }
    }

    /// Wishes for the nearest of those that could.
    fn choose(&mut self, peer: NodeId, cx: &mut Cx<'_>) {
        self.choose_at = None;
        self.asked.clear();
        let mut offers = std::mem::take(&mut self.offers);
        offers.sort_unstable();
        let wanted = RELAYS_MAX.saturating_sub(self.held.len());
        for (_, relay) in offers.into_iter().take(wanted) {
            cx.send_to(relay, ReachMessage::Relay(peer, 0).encode());
        }
    }
}

fn pair(one: NodeId, other: NodeId) -> [NodeId; 2] {
    [one.min(other), one.max(other)]
}

fn round_trip(with: NodeId, cx: &Cx<'_>) -> Duration {
    let peer = cx.overlay().peer(with);
    let measured = peer.and_then(|peer| peer.round_trip().smoothed());
    measured.unwrap_or(UNKNOWN)
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
