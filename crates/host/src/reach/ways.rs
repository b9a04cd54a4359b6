//! By way of whom each peer is reached, and whether those are still there.
//!
//! A peer has up to [`WAYS_MAX`] ways: the first one is used, the others are spare. Two things make
//! another one the first: the node that carries is silent although it is asked, which ends all ways
//! by it; or the peer is silent although it is sent something, which may be for any reason between.
//! So a way that ends is noticed within two seconds, by whoever sends.
//!
//! A way to a peer by the peer itself is a link (see `link`), and goes before those by others. What
//! carries it may stop for a while and go on, so it is given more time.
//!
//! Without any way packets are held for a moment, and a way is wanted.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use enishi_overlay::NodeId;

/// The most peers, and ways of each.
pub(super) const PEERS_MAX: usize = 1_024;
pub(super) const WAYS_MAX: usize = 4;

/// The most packets of a peer that wait until there is a way, and for how long.
const HELD_MAX: usize = 16;
const HELD_TIME: Duration = Duration::from_secs(3);

/// A node that carries is asked whether it is there when it was silent for so long while it was
/// used, and again after as long; it is taken to be gone after three questions.
const ASK_AFTER: Duration = Duration::from_millis(300);
const GONE_AFTER: Duration = Duration::from_millis(900);

/// The same for a link: TCP needs as long to send twice what was lost (RFC 6298, section 5), and a
/// proxy may hold what is asked back.
const LINK_GONE_AFTER: Duration = Duration::from_secs(4);
const LINK_SILENT_AFTER: Duration = Duration::from_secs(2);

/// A peer from which nothing comes for so long although it was sent something is tried by the next
/// way. Longer than QUIC waits before it sends again on a path of 100 ms.
const SILENT_AFTER: Duration = Duration::from_millis(600);

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
    relays: HashMap<NodeId, Relay>,
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
    /// When something came, and by way of whom.
    heard: Option<(Instant, NodeId)>,
    /// Since when it was sent something and nothing came.
    unheard: Option<Instant>,
}

/// A node that carries.
struct Relay {
    heard: Instant,
    used: Instant,
    asked: Option<Instant>,
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
}

impl Ways {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            peers: HashMap::new(),
            relays: HashMap::new(),
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
        let peer = self.peer(now, to);
        peer.used = Some(now);
        if peer
            .heard
            .is_none_or(|(at, _)| now.duration_since(at) > CONFIRMS)
        {
            peer.unheard.get_or_insert(now);
        }
        let patience = match peer.ways.first() {
            Some(first) if *first == to => LINK_SILENT_AFTER,
            _ => SILENT_AFTER,
        };
        let silent = |since: Instant| now.duration_since(since) >= patience;
        if peer.ways.len() > 1 && peer.unheard.is_some_and(silent) {
            peer.change_way();
            peer.unheard = Some(now);
        }
        let Some(relay) = peer.ways.first().copied() else {
            if peer.held.len() < HELD_MAX {
                peer.held.push_back((now, packet.clone()));
            }
            return Sending::Held;
        };
        let relay_state = self.relays.entry(relay).or_insert_with(|| Relay::new(now));
        if relay_state.asked.is_none() && now.duration_since(relay_state.used) > ASK_AFTER {
            // It was not used, so it had no reason to speak.
            (relay_state.heard, relay_state.asked) = (now, None);
        }
        relay_state.used = now;
        Sending::By(relay)
    }

    /// Adds a way to a peer, and returns what was held for it.
    pub(super) fn add(&mut self, now: Instant, to: NodeId, relay: NodeId) -> Vec<Bytes> {
        self.peer(now, to).add(now, relay, to == relay)
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
        self.heard_relay(now, relay);
        if !self.peers.contains_key(&from) && !self.admits_stranger(now) {
            return None;
        }
        let peer = self.peer(now, from);
        (peer.heard, peer.wants) = (Some((now, relay)), 0);
        let is_link = from == relay;
        if is_link || peer.ways.len() < WAYS_MAX || peer.ways.contains(&relay) {
            let held = peer.add(now, relay, from == relay);
            if peer.ways.first() == Some(&relay) {
                peer.unheard = None;
            }
            return Some(held);
        }
        Some(Vec::new())
    }

    /// A node that carries gave a sign of life.
    pub(super) fn heard_relay(&mut self, now: Instant, relay: NodeId) {
        if let Some(relay) = self.relays.get_mut(&relay) {
            (relay.heard, relay.asked) = (now, None);
        }
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
        self.relays.remove(&relay);
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
        let mut due = Vec::new();
        let mut gone = Vec::new();
        let peers = &self.peers;
        for (id, relay) in &mut self.relays {
            let is_link = peers.get(id).is_some_and(|peer| peer.ways.contains(id));
            let gone_after = if is_link { LINK_GONE_AFTER } else { GONE_AFTER };
            let silent = now.duration_since(relay.heard);
            let is_unused = now.duration_since(relay.used) > GONE_AFTER;
            if (is_unused && relay.asked.is_none()) || silent < ASK_AFTER {
                continue;
            }
            if silent >= gone_after && relay.asked.is_some() {
                gone.push(*id);
            } else if relay
                .asked
                .is_none_or(|at| now.duration_since(at) >= ASK_AFTER)
            {
                relay.asked = Some(now);
                due.push(Due::Ask(*id));
            }
        }
        gone.into_iter().for_each(|relay| self.lose(relay));
        self.relays
            .retain(|_, relay| now.duration_since(relay.used) < IN_USE);
        for (id, peer) in &mut self.peers {
            peer.held
                .retain(|(at, _)| now.duration_since(*at) < HELD_TIME);
            let unheard = peer.unheard.map(|since| now.duration_since(since));
            let again = match peer.ways.len() {
                0 if unheard >= Some(PATIENCE) => peer.pause(),
                1 if !peer.ways.contains(id) => WANT_SPARE,
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

    /// Finds or makes the entry of a peer; with too many, the one that was not used for longest
    /// gives way.
    fn peer(&mut self, now: Instant, id: NodeId) -> &mut Peer {
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
        self.peers.entry(id).or_default()
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

    /// Adds a way behind the others, or before them, in place of the last one if there are too many;
    /// returns what was held.
    fn add(&mut self, now: Instant, relay: NodeId, before: bool) -> Vec<Bytes> {
        if before {
            self.ways.retain(|way| *way != relay);
        }
        if !self.ways.contains(&relay) {
            if self.ways.len() >= WAYS_MAX {
                self.ways.pop();
            }
            let at = if before { 0 } else { self.ways.len() };
            self.ways.insert(at, relay);
        }
        let fresh = |held: &(Instant, Bytes)| now.duration_since(held.0) < HELD_TIME;
        let held = self.held.drain(..).filter(fresh);
        held.map(|(_, packet)| packet).collect()
    }

    /// Puts another way first: the one by which the peer itself was heard last, or the next.
    fn change_way(&mut self) {
        let heard = self.heard.map(|(_, relay)| relay);
        let heard = self.ways.iter().position(|way| Some(*way) == heard);
        self.ways
            .rotate_left(heard.filter(|at| *at > 0).unwrap_or(1));
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

impl Relay {
    fn new(now: Instant) -> Self {
        Self {
            heard: now,
            used: now,
            asked: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> NodeId {
        let mut octets = [0; 32];
        octets[..4].copy_from_slice(&n.to_le_bytes());
        NodeId::from_bytes(octets)
    }

    const PACKET: Bytes = Bytes::from_static(b"packet");
    const LOOK: Duration = Duration::from_millis(100);

    #[test]
    fn packets_wait_for_a_way_which_is_wanted_when_nobody_answered() {
        let mut now = Instant::now();
        let mut ways = Ways::new(now);
        for _ in 0..2 * HELD_MAX {
            assert_eq!(ways.send(now, id(1), &PACKET), Sending::Held);
        }
        assert_eq!(ways.tick(now), []);
        now += PATIENCE;
        assert_eq!(ways.tick(now), [Due::Want(id(1))]);
        assert_eq!((ways.tick(now), ways.by(id(1))), (vec![], None));
        assert_eq!(ways.add(now, id(1), id(9)).len(), HELD_MAX);
        assert_eq!(ways.send(now, id(1), &PACKET), Sending::By(id(9)));
        now += LOOK;
        ways.refused(id(1), id(9));
        assert_eq!(ways.send(now, id(1), &PACKET), Sending::Held);
        now += HELD_TIME;
        assert_eq!(ways.tick(now), [Due::Want(id(1)), Due::Try(id(1))]);
        assert!(ways.add(now, id(1), id(8)).is_empty());
        ways.forget(id(1));
        assert_eq!(ways.by(id(1)), None);
    }

    /// Sends a packet every look; returns after how long it goes by another node.
    fn until_changed(
        ways: &mut Ways,
        mut now: Instant,
        mut looks: impl FnMut(&mut Ways, Instant, &[Due]),
    ) -> Duration {
        let started = now;
        let first = ways.by(id(1));
        while ways.by(id(1)) == first {
            now += LOOK;
            assert!(now - started < Duration::from_secs(5), "it stays");
            ways.send(now, id(1), &PACKET);
            let due = ways.tick(now);
            looks(ways, now, &due);
        }
        now - started
    }

    #[test]
    fn a_node_that_is_gone_is_noticed_within_two_seconds() {
        let now = Instant::now();
        let mut ways = Ways::new(now);
        ways.add(now, id(1), id(8));
        ways.add(now, id(1), id(9));
        ways.send(now, id(1), &PACKET);
        let mut asked = 0;
        let took = until_changed(&mut ways, now, |ways, now, due| {
            asked += due.iter().filter(|due| **due == Due::Ask(id(8))).count();
            // The peer is heard by the other way.
            ways.heard(now, id(1), id(9));
        });
        assert!(
            took <= Duration::from_secs(2) && asked >= 2,
            "{took:?} {asked}"
        );
        assert_eq!(ways.by(id(1)), Some(id(9)));
    }

    #[test]
    fn a_peer_that_is_silent_is_tried_by_the_next_way() {
        let now = Instant::now();
        let mut ways = Ways::new(now);
        ways.add(now, id(1), id(8));
        ways.add(now, id(1), id(9));
        let took = until_changed(&mut ways, now, |ways, now, _| ways.heard_relay(now, id(8)));
        assert!(took <= SILENT_AFTER + 2 * LOOK, "{took:?}");
    }

    #[test]
    fn who_answers_stays_and_a_spare_is_wanted() {
        let mut now = Instant::now();
        let mut ways = Ways::new(now);
        ways.add(now, id(1), id(8));
        let mut wanted = 0;
        for _ in 0..300 {
            now += LOOK;
            assert_eq!(ways.send(now, id(1), &PACKET), Sending::By(id(8)));
            for due in ways.tick(now) {
                match due {
                    Due::Ask(relay) => ways.heard_relay(now, relay),
                    Due::Want(_) => wanted += 1,
                    Due::Try(_) => panic!("there is a way"),
                }
            }
        }
        assert!((2..=4).contains(&wanted), "{wanted}");
        // Unused, nobody is asked.
        now += IN_USE;
        assert_eq!(ways.tick(now), []);
    }

    #[test]
    fn pauses_change_nothing_and_one_that_dies_in_a_pause_is_noticed() {
        let mut now = Instant::now();
        let mut ways = Ways::new(now);
        ways.add(now, id(1), id(8));
        ways.add(now, id(1), id(9));
        for _ in 0..20 {
            // A question, its answer, and what confirms that.
            ways.send(now, id(1), &PACKET);
            now += LOOK;
            ways.heard(now, id(1), id(8));
            now += CONFIRMS / 2;
            ways.send(now, id(1), &PACKET);
            for _ in 0..50 {
                now += LOOK;
                for due in ways.tick(now) {
                    if let Due::Ask(relay) = due {
                        ways.heard_relay(now, relay);
                    }
                }
            }
            assert_eq!(ways.by(id(1)), Some(id(8)));
        }
        // One packet, and nobody answers any more.
        ways.send(now, id(1), &PACKET);
        for _ in 0..20 {
            now += LOOK;
            ways.tick(now);
        }
        assert_eq!(ways.by(id(1)), Some(id(9)));
    }

    #[test]
    fn who_is_heard_another_way_is_answered_that_way() {
        let mut now = Instant::now();
        let mut ways = Ways::new(now);
        for relay in [7, 8, 9] {
            ways.add(now, id(1), id(relay));
        }
        // What goes by 7 is lost, and the peer says it again by 9.
        for _ in 0..10 {
            now += LOOK;
            ways.send(now, id(1), &PACKET);
            ways.heard_relay(now, id(7));
            ways.heard(now, id(1), id(9));
            now += LOOK;
            ways.send(now, id(1), &PACKET);
        }
        assert_eq!(ways.by(id(1)), Some(id(9)));
    }

    #[test]
    fn a_way_that_is_not_found_is_wanted_ever_less_often() {
        let mut now = Instant::now();
        let mut ways = Ways::new(now);
        let mut wanted = 0;
        for _ in 0..1_200 {
            now += LOOK;
            ways.send(now, id(1), &PACKET);
            let due = ways.tick(now);
            wanted += due.iter().filter(|due| **due == Due::Want(id(1))).count();
        }
        assert!((5..=9).contains(&wanted), "{wanted} in two minutes");
        // Of what came by itself the way is known, and what was held goes out.
        assert!(!ways.heard(now, id(1), id(9)).unwrap().is_empty());
        assert_eq!(ways.send(now, id(1), &PACKET), Sending::By(id(9)));
    }

    #[test]
    fn a_node_that_is_reached_anew_does_not_wait_for_the_next_attempt() {
        let mut now = Instant::now();
        let mut ways = Ways::new(now);
        let mut wanted = |ways: &mut Ways, ms: u32| {
            let mut first = None;
            for step in 0..ms / 100 {
                now += LOOK;
                ways.send(now, id(1), &PACKET);
                if ways.tick(now).contains(&Due::Want(id(1))) {
                    first.get_or_insert(LOOK * step);
                }
            }
            first
        };
        wanted(&mut ways, 100_000);
        assert_eq!(wanted(&mut ways, 10_000), None);
        ways.take_heart();
        assert!(wanted(&mut ways, 10_000) <= Some(LOOK));
    }

    #[test]
    fn a_link_goes_first_and_is_given_time() {
        let now = Instant::now();
        let mut ways = Ways::new(now);
        for relay in 5..9 {
            ways.add(now, id(1), id(relay));
        }
        ways.add(now, id(1), id(1));
        assert_eq!(ways.peers[&id(1)].ways[..2], [id(1), id(5)]);
        let mut ways = Ways::new(now);
        ways.add(now, id(1), id(1));
        let took = until_changed(&mut ways, now, |ways, _, due| {
            let is_there = ways.by(id(1)).is_some();
            let wants = due.contains(&Due::Want(id(1)));
            assert!(!is_there || !wants, "{due:?}");
        });
        assert!(took >= LINK_GONE_AFTER && took <= LINK_GONE_AFTER + 2 * LOOK);
    }

    #[test]
    fn strangers_are_few_and_ways_and_peers_bounded() {
        let now = Instant::now();
        let mut ways = Ways::new(now);
        let taken = (0..10_000)
            .filter(|n| ways.heard(now, id(*n), id(99_999)).is_some())
            .count();
        assert_eq!(taken, STRANGERS_BURST as usize);
        for n in 0..10 {
            ways.heard(now, id(0), id(50_000 + n));
        }
        assert_eq!(ways.peers[&id(0)].ways.len(), WAYS_MAX);
        for n in 0..2 * PEERS_MAX as u32 {
            ways.send(now, id(n), &PACKET);
        }
        assert_eq!(ways.peers.len(), PEERS_MAX);
        ways.lose(id(99_999));
        assert!(ways.by(id(1)).is_none());
    }
}
