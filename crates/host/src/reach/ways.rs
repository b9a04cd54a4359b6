//! By way of whom each peer is reached, and whether those are still there.
//!
//! A peer has up to [`WAYS_MAX`] ways: the first one is used, the others are spare. Two things make
//! another one the first: the node that carries is silent although it is asked, which ends all ways
//! by it; or the peer is silent on that way although it is sent something, which may be for any reason
//! between. So a way that ends is noticed within two seconds, by each end for itself. What was sent last
//! then goes again by the new way, as QUIC waits ever longer before it sends again by itself.
//!
//! A way to a peer by the peer itself is a link (see `link`), and goes before those by others. What
//! carries it may stop for a while and go on, so it is given more time before it is given up; meanwhile
//! other ways go first, and one is wanted if there is none.
//!
//! Without any way packets are held for a moment, and a way is wanted.

mod relays;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use enishi_overlay::NodeId;

use relays::{LINK_SILENT_AFTER, Relays};

/// The most peers, and ways of each.
pub(super) const PEERS_MAX: usize = 1_024;
pub(super) const WAYS_MAX: usize = 4;

/// The most packets of a peer that wait until there is a way, and for how long.
const HELD_MAX: usize = 16;
const HELD_TIME: Duration = Duration::from_secs(3);

/// A peer from which nothing comes by a way for so long although it was sent something there is tried by
/// the next way. Longer than QUIC waits before it sends again on a path of 100 ms.
const SILENT_AFTER: Duration = Duration::from_millis(600);

/// How many packets a peer was sent at least before it is: the last confirmation may be late, and is
/// answered by nobody.
const UNHEARD_MIN: u32 = 2;

/// What was not answered before such a pause in what is sent says nothing of after.
const PAUSE: Duration = Duration::from_millis(1_200);

/// For how long after the last packet something is in use.
const IN_USE: Duration = Duration::from_secs(12);

/// For how long a peer without a way is given time to answer at an address of its own: every dial
/// tries both.
const PATIENCE: Duration = Duration::from_millis(150);

/// What is sent so soon after something came confirms it, and need not be answered.
const CONFIRMS: Duration = Duration::from_millis(50);

/// How often a way is wanted for a peer that has none, twice as long each time up to the longest;
/// and another one for one that has one.
const WANT_AGAIN: Duration = Duration::from_millis(1_500);
const WANT_AGAIN_MAX: Duration = Duration::from_secs(60);
const WANT_SPARE: Duration = Duration::from_secs(10);

/// How many peers of whom nothing was known may come by way of others, at once and per second:
/// anybody can name nodes that are not.
const STRANGERS_BURST: u32 = 64;
const STRANGERS_PER_S: u32 = 16;

/// All ways of a node.
pub(super) struct Ways {
    peers: HashMap<NodeId, Peer>,
    relays: Relays,
    strangers: u32,
    strangers_since: Instant,
}

#[derive(Default)]
struct Peer {
    /// The one in use first.
    ways: Vec<NodeId>,
    held: VecDeque<(Instant, Bytes)>,
    wanted: Option<Instant>,
    /// How often in vain.
    wants: u32,
    used: Option<Instant>,
    /// What was sent last, and by way of whom.
    last: Option<(NodeId, Bytes)>,
    /// When something came, and by way of whom.
    heard: Option<(Instant, NodeId)>,
    /// Since when it was sent something by the first way and nothing came there.
    unheard: Option<Unheard>,
    /// How many ways were tried since it was sent something new, or heard.
    turns: usize,
}

#[derive(Clone, Copy)]
struct Unheard {
    since: Instant,
    packets: u32,
}

/// What becomes of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// It goes by way of this node.
    By(NodeId),
    /// It is held, or lost if too many are.
    Held,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Ask a node whether it is there.
    Ask(NodeId),
    /// Look for a way to a peer.
    Want(NodeId),
    /// Try those with whom there is a session, since nobody says who carries.
    Try(NodeId),
    /// Send a peer again what it was sent last, since another way is the first now.
    Again {
        to: NodeId,
        by: NodeId,
        packet: Bytes,
    },
}

impl Ways {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            peers: HashMap::new(),
            relays: Relays::default(),
            strangers: STRANGERS_BURST,
            strangers_since: now,
        }
    }

    /// Returns by way of whom a peer is reached now.
    pub(super) fn by(&self, to: NodeId) -> Option<NodeId> {
        self.peers.get(&to)?.ways.first().copied()
    }

    /// Returns by way of whom a peer may be reached, the one in use first.
    pub(super) fn all(&self, to: NodeId) -> Vec<NodeId> {
        let peer = self.peers.get(&to);
        peer.map_or_else(Vec::new, |peer| peer.ways.clone())
    }

    /// Tells where a packet to a peer goes, or holds it.
    pub(super) fn send(&mut self, now: Instant, to: NodeId, packet: &Bytes) -> Sending {
        let (peer, relays) = self.peer(now, to);
        peer.note_sent(now);
        if peer.is_silent(now, to, |way| relays.is_busy(now, way)) {
            peer.change_way(now, |way| relays.doubts(now, way, way == to));
        }
        let Some(relay) = peer.ways.first().copied() else {
            if peer.held.len() < HELD_MAX {
                peer.held.push_back((now, packet.clone()));
            }
            return Sending::Held;
        };
        peer.last = Some((relay, packet.clone()));
        relays.use_by(now, relay);
        Sending::By(relay)
    }

    /// Adds a way to a peer, and returns what was held for it.
    pub(super) fn add(&mut self, now: Instant, to: NodeId, relay: NodeId) -> Vec<Bytes> {
        let (peer, relays) = self.peer(now, to);
        let is_link = to == relay;
        if is_link {
            // It has just been opened.
            relays.heard(now, relay);
        }
        let doubts = |way| relays.doubts(now, way, way == to);
        peer.add(now, relay, is_link, doubts)
    }

    /// A packet came from a peer by way of a node, which therefore is a way to it. Returns what was
    /// held for it; none when the packet is not to be taken: not from more strangers than there
    /// may be.
    pub(super) fn heard(
        &mut self,
        now: Instant,
        from: NodeId,
        relay: NodeId,
    ) -> Option<Vec<Bytes>> {
        self.relays.heard(now, relay);
        if !self.peers.contains_key(&from) && !self.admits_stranger(now) {
            return None;
        }
        let (peer, relays) = self.peer(now, from);
        (peer.heard, peer.wants) = (Some((now, relay)), 0);
        let is_link = from == relay;
        if is_link || peer.ways.len() < WAYS_MAX || peer.ways.contains(&relay) {
            let doubts = |way| relays.doubts(now, way, way == from);
            let held = peer.add(now, relay, is_link, doubts);
            if peer.ways.first() == Some(&relay) {
                (peer.unheard, peer.turns) = (None, 0);
            }
            return Some(held);
        }
        Some(Vec::new())
    }

    /// A node that carries gave a sign of life. If a link to it was doubted, it goes first again.
    pub(super) fn heard_relay(&mut self, now: Instant, relay: NodeId) {
        let is_back = self.relays.doubts(now, relay, true);
        self.relays.heard(now, relay);
        if let Some(peer) = self.peers.get_mut(&relay).filter(|_| is_back)
            && let Some(at) = peer.ways.iter().position(|way| *way == relay)
        {
            peer.ways[..=at].rotate_right(1);
        }
    }

    /// Tells whether a node that carried was taken to be gone and not heard since.
    pub(super) fn is_lost(&self, now: Instant, relay: NodeId) -> bool {
        self.relays.is_lost(now, relay)
    }

    /// A node carries as much as it can: peers that are reached by it are reached by another one from now
    /// on, if there is one that neither says so nor is doubted.
    pub(super) fn busy(&mut self, now: Instant, relay: NodeId) {
        if !self.relays.busy(now, relay) {
            return;
        }
        let relays = &self.relays;
        for (id, peer) in &mut self.peers {
            if peer.ways.first() != Some(&relay) || relay == *id {
                continue;
            }
            let is_good =
                |way: &NodeId| !relays.is_busy(now, *way) && !relays.doubts(now, *way, way == id);
            if let Some(other) = peer.ways.iter().position(is_good) {
                peer.ways.swap(0, other);
                peer.unheard = None;
            }
        }
    }

    /// Tells whether a node said lately that it carries as much as it can.
    pub(super) fn is_busy(&self, now: Instant, relay: NodeId) -> bool {
        self.relays.is_busy(now, relay)
    }

    /// A node does not carry to a peer.
    pub(super) fn refused(&mut self, to: NodeId, relay: NodeId) {
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.ways.retain(|way| *way != relay);
        }
    }

    /// A peer is reached without anybody's help.
    pub(super) fn forget(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
    }

    /// Ends all ways by a node.
    pub(super) fn lose(&mut self, relay: NodeId) {
        self.relays.remove(relay);
        for peer in self.peers.values_mut() {
            peer.ways.retain(|way| *way != relay);
        }
    }

    /// This node is reached in another way than before: ways are wanted as if for the first time. What was
    /// in vain, with up to a minute between two attempts, need not be now. Those who are said to carry
    /// may not do it, so peers with a way are not left out.
    pub(super) fn take_heart(&mut self) {
        for peer in self.peers.values_mut() {
            (peer.wanted, peer.wants) = (None, 0);
        }
    }

    /// Looks after what is in use; called several times a second.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<Due> {
        let peers = &self.peers;
        let is_link = |id: &NodeId| peers.get(id).is_some_and(|peer| peer.ways.contains(id));
        let (asked, gone) = self.relays.tick(now, is_link);
        gone.into_iter().for_each(|relay| self.lose(relay));
        let mut due: Vec<Due> = asked.into_iter().map(Due::Ask).collect();
        let relays = &mut self.relays;
        for (id, peer) in &mut self.peers {
            peer.held
                .retain(|(at, _)| now.duration_since(*at) < HELD_TIME);
            let turned = peer.turn(
                now,
                *id,
                |way| relays.doubts(now, way, way == *id),
                |way| relays.is_busy(now, way),
            );
            if let Some((by, packet)) = turned {
                relays.use_by(now, by);
                let to = *id;
                due.push(Due::Again { to, by, packet });
            }
            let doubts = |way: NodeId| relays.doubts(now, way, way == *id);
            let unheard = peer
                .unheard
                .map(|unheard| now.duration_since(unheard.since));
            let mut good = peer.ways.iter().filter(|way| !doubts(**way));
            let again = match (good.next(), good.next()) {
                (None, _) if unheard >= Some(PATIENCE) => peer.pause(),
                (Some(way), None) if way != id => WANT_SPARE,
                _ => continue,
            };
            if peer.is_used(now) && peer.want(now, again) {
                due.push(Due::Want(*id));
                if peer.ways.is_empty() && peer.wants > 0 {
                    due.push(Due::Try(*id));
                }
            }
        }
        due
    }

    /// Finds or makes the entry of a peer, beside those who carry; with too many, the one that was not
    /// used for longest gives way.
    fn peer(&mut self, now: Instant, id: NodeId) -> (&mut Peer, &mut Relays) {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&id) {
            self.peers.retain(|_, peer| peer.is_used(now));
            let oldest = self.peers.iter().min_by_key(|(_, peer)| peer.used);
            if let Some(oldest) = oldest
                .map(|(id, _)| *id)
                .filter(|_| self.peers.len() >= PEERS_MAX)
            {
                self.peers.remove(&oldest);
            }
        }
        (self.peers.entry(id).or_default(), &mut self.relays)
    }

    fn admits_stranger(&mut self, now: Instant) -> bool {
        let seconds = now.duration_since(self.strangers_since).as_secs();
        if seconds > 0 {
            let more = u32::try_from(seconds).unwrap_or(u32::MAX);
            let more = more.saturating_mul(STRANGERS_PER_S);
            self.strangers = self.strangers.saturating_add(more).min(STRANGERS_BURST);
            self.strangers_since = now;
        }
        let admits = self.strangers > 0;
        self.strangers -= u32::from(admits);
        admits
    }
}

impl Peer {
    fn is_used(&self, now: Instant) -> bool {
        self.used
            .is_some_and(|used| now.duration_since(used) < IN_USE)
    }

    /// Notes that it is sent something, which may be answered.
    fn note_sent(&mut self, now: Instant) {
        self.turns = 0;
        let before = self.used.replace(now);
        if before.is_none_or(|before| now.duration_since(before) >= PAUSE) {
            self.unheard = None;
        }
        let first = self.ways.first();
        let confirms =
            |(at, by): (Instant, NodeId)| now.duration_since(at) <= CONFIRMS && Some(&by) == first;
        if !self.heard.is_some_and(confirms) {
            let since = now;
            let unheard = self.unheard.get_or_insert(Unheard { since, packets: 0 });
            unheard.packets += 1;
        }
    }

    /// Tells whether it was silent for too long on its first way.
    fn is_silent(&self, now: Instant, id: NodeId, is_busy: impl Fn(NodeId) -> bool) -> bool {
        let Some((first, unheard)) = self.ways.first().zip(self.unheard) else {
            return false;
        };
        let patience = match *first == id {
            true => LINK_SILENT_AFTER,
            false => SILENT_AFTER,
        };
        // It may be going another way itself. Then both could change at the same time, again and again: who
        // goes by the lesser node waits longer, and longest who has left a node that is busy, until the other
        // one follows.
        let lately = |at: Instant| now.duration_since(at) < patience;
        let heard = self.heard.filter(|(at, by)| lately(*at) && by != first);
        let patience = match heard.filter(|(_, by)| self.ways.contains(by)) {
            Some((_, by)) if is_busy(by) => patience * 3,
            Some((_, by)) if by > *first => patience * 2,
            _ => patience,
        };
        now.duration_since(unheard.since) >= patience
    }

    /// Puts another way first if the one in use is doubted, or silent. Returns what was sent last, and by way
    /// of whom it is to go again, if that is another node than before.
    fn turn(
        &mut self,
        now: Instant,
        id: NodeId,
        doubts: impl Fn(NodeId) -> bool,
        is_busy: impl Fn(NodeId) -> bool,
    ) -> Option<(NodeId, Bytes)> {
        if !self.is_used(now) {
            self.last = None;
            return None;
        }
        let is_asked = self.unheard.is_some_and(|it| it.packets >= UNHEARD_MIN);
        let is_silent =
            is_asked && self.turns < self.ways.len() && self.is_silent(now, id, is_busy);
        let is_doubted = self.ways.first().is_some_and(|first| doubts(*first));
        if is_silent || (is_doubted && self.ways.iter().any(|way| !doubts(*way))) {
            self.change_way(now, doubts);
            self.turns += usize::from(is_silent);
        }
        let is_recent = now.duration_since(self.used?) < HELD_TIME;
        let first = *self.ways.first()?;
        let (by, packet) = self.last.as_mut()?;
        let is_another = std::mem::replace(by, first) != first;
        (is_another && is_recent).then(|| (first, packet.clone()))
    }

    /// Adds a way behind the others that are not doubted, or before them all, in place of the last one if
    /// there are too many; returns what was held.
    fn add(
        &mut self,
        now: Instant,
        relay: NodeId,
        before: bool,
        doubts: impl Fn(NodeId) -> bool,
    ) -> Vec<Bytes> {
        if before {
            self.ways.retain(|way| *way != relay);
        }
        if !self.ways.contains(&relay) {
            if self.ways.len() >= WAYS_MAX {
                self.ways.pop();
            }
            let behind = self.ways.iter().position(|way| doubts(*way));
            let behind = behind.filter(|_| !doubts(relay));
            let at = match before {
                true => 0,
                false => behind.unwrap_or(self.ways.len()),
            };
            self.ways.insert(at, relay);
        }
        let fresh = |held: &(Instant, Bytes)| now.duration_since(held.0) < HELD_TIME;
        let held = self.held.drain(..).filter(fresh);
        held.map(|(_, packet)| packet).collect()
    }

    /// Puts another way first: the one by which the peer itself was heard last, or the next that is not
    /// doubted. If all are, they take turns.
    fn change_way(&mut self, now: Instant, doubts: impl Fn(NodeId) -> bool) {
        let heard = self.heard.map(|(_, relay)| relay);
        let is_good = |at: &usize| !doubts(self.ways[*at]);
        let is_heard = |at: &usize| Some(self.ways[*at]) == heard && is_good(at);
        let mut others = 1..self.ways.len();
        let next = others.clone().find(is_heard);
        let next = next.or_else(|| others.clone().find(is_good));
        let next = next.or_else(|| others.next().filter(|_| !is_good(&0)));
        if let Some(next) = next {
            self.ways.rotate_left(next);
            if let Some(unheard) = &mut self.unheard {
                unheard.since = now;
            }
        }
    }

    /// How long to wait before a way is wanted again.
    fn pause(&self) -> Duration {
        (WANT_AGAIN * 2_u32.pow(self.wants.min(8))).min(WANT_AGAIN_MAX)
    }

    /// Tells whether to look for a way, which was not done for a while, and something was sent
    /// since.
    fn want(&mut self, now: Instant, again: Duration) -> bool {
        let wants = self.wanted.is_none_or(|at| {
            now.duration_since(at) >= again && self.used.is_some_and(|used| used > at)
        });
        if wants {
            // The first one has nothing behind it.
            self.wants += u32::from(self.wanted.is_some());
            self.wanted = Some(now);
        }
        wants
    }
}

#[cfg(test)]
mod tests;
