//! Two members whose packets find no way straight to each other open their translations together.
//!
//! ```text
//!   A  asks by STUN how its packets come out; asks its peers where they see B
//!   A -- punch: the outer address of A's packets, and how its ports are given --> B
//!   B  asks the same of others, and of its own peers where they see A
//!   A <- meet: the same of B ---------------------------------------------------- B
//!   both begin
//! ```
//!
//! What each does follows from both offers ([`plan`]). Where both have one port for all, each sends to
//! the other's. Where one has another port for each, it opens many, and the other one searches: the
//! engine of the host does it, and says why it succeeds (`crates/dataplane`, `engine/punch.rs`). Where
//! both do, nothing can be done.
//!
//! **Nobody is led to spray a stranger.** Where probes go to many ports, or from many, the peer's
//! address must be the one at which this node's own session with it goes, or at which observers in two
//! different networks see it, whom this node chose itself. Only if all who answer are in one network,
//! that one is believed. A node takes part in one such attempt at a time, three times with each peer,
//! then not for [`PAUSE_LONG`]; and the host only where both are members of one channel.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use enishi_overlay::{NodeId, PathKind, Time};
use serde::{Deserialize, Serialize};

use super::observed::{canonical, is_public, network_of};
use super::wire::ReachMessage;
use super::{Cx, Event};
use crate::bucket::{Bucket, Rate};

/// How many ports are probed where they follow each other: others of the house take some meanwhile.
pub const EXPECTED_MAX: usize = 32;
/// How many ports are probed that are drawn, and how many sockets are opened for these to be met.
const DRAWN: u16 = 1024;
const SOCKETS: u16 = 256;
/// By how much the next port of a translation may differ from the one before.
const STEP_MAX: i32 = 16;

/// How often it is tried with one peer before the long pause.
pub const TRIES_MAX: u32 = 3;
/// After so long it is tried again.
const PAUSE_SHORT: Duration = Duration::from_secs(5);
/// After so long it is tried again when it was in vain [`TRIES_MAX`] times.
pub const PAUSE_LONG: Duration = Duration::from_secs(3 * 60 * 60);
/// For so long others are asked where they see the peer, if one network alone has answered.
const WITNESS_WAIT: Duration = Duration::from_millis(700);
/// After so long an attempt that has not begun is given up: the other one may have no time.
const PREPARE_MAX: Duration = Duration::from_secs(2);
/// After so long one that has begun is over, whatever the host says.
const RUN_MAX: Duration = Duration::from_secs(12);
/// How many are asked where they see the peer.
const WITNESSES_MAX: usize = 12;
/// The most peers of whom it is remembered how often it was tried.
const PEERS_MAX: usize = 256;
/// The most peers that wait for their turn.
const WANTED_MAX: usize = 16;
/// How often others are told where this node sees somebody.
const WHERE: Rate = Rate {
    per_s: 5,
    burst: 40,
};

/// How a translation gives outer ports to the packets of one inner port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ports {
    /// One for all.
    Kept,
    /// Another for each, so much after the one before.
    Steps(i16),
    /// Another for each, in no order.
    Random,
}

/// How a node's packets come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The outer address; its port is the last one that was seen, unless there is one for all.
    pub at: SocketAddr,
    /// How outer ports are given.
    pub ports: Ports,
}

impl Offer {
    /// Judges from what servers answered: to questions from the socket that takes packets, and to
    /// others from a new one, in the order in which they were asked. None when nobody has answered,
    /// or not from the Internet.
    pub fn judge(first: &[SocketAddr], anew: &[SocketAddr]) -> Option<Self> {
        let said = first.iter().map(|at| canonical(*at));
        let mut first: Vec<SocketAddr> = said.filter(|at| is_public(at.ip())).collect();
        // Where there are both, IPv4 is what is translated.
        if first.iter().any(SocketAddr::is_ipv4) {
            first.retain(SocketAddr::is_ipv4);
        }
        let mut counts: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        for at in &first {
            *counts.entry(*at).or_default() += 1;
        }
        let (most, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        if count >= 2 || first.len() == 1 {
            let ports = Ports::Kept;
            return Some(Self { at: most, ports });
        }
        let of_it = anew.iter().filter(|at| at.ip() == most.ip());
        let seen: Vec<u16> = of_it.map(SocketAddr::port).collect();
        let last = seen.last().copied().unwrap_or(most.port());
        let at = SocketAddr::new(most.ip(), last);
        let ports = steps(&seen).map_or(Ports::Random, Ports::Steps);
        Some(Self { at, ports })
    }
}

/// Returns by how much ports follow each other; none when they do not.
fn steps(seen: &[u16]) -> Option<i16> {
    let by = |pair: &[u16]| i32::from(pair[1]) - i32::from(pair[0]);
    let steps: Vec<i32> = seen.windows(2).map(by).collect();
    let least = *steps.iter().min_by_key(|step| step.abs())?;
    let follow = |step: &i32| (1..=STEP_MAX).contains(&(step * least.signum()));
    let follow = least != 0 && steps.iter().all(follow);
    follow.then(|| i16::try_from(least).ok()).flatten()
}

/// What the host is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Plan {
    /// Probe ports of an address: at most [`EXPECTED_MAX`] that are expected, then so many drawn.
    Search {
        /// The peer's outer address.
        ip: IpAddr,
        /// Probed first.
        expected: Vec<u16>,
        /// How many more.
        drawn: u16,
    },
    /// Probe one address and port by so many sockets besides the first one.
    Open {
        /// The peer's outer address.
        to: SocketAddr,
        /// How many.
        sockets: u16,
    },
}

/// Returns what a node does that comes out in one way, to meet one that comes out in another; none when
/// nothing is likely to help.
pub fn plan(mine: Offer, theirs: Offer) -> Option<Plan> {
    let to = theirs.at;
    if mine.at.is_ipv4() != to.is_ipv4() {
        return None;
    }
    match (mine.ports, theirs.ports) {
        (Ports::Kept, Ports::Kept) => Some(Plan::Open { to, sockets: 0 }),
        (_, Ports::Kept) => Some(Plan::Open {
            to,
            sockets: SOCKETS,
        }),
        (Ports::Kept, Ports::Steps(step)) => Some(Plan::Search {
            ip: to.ip(),
            expected: following(to.port(), step),
            drawn: DRAWN,
        }),
        (Ports::Kept, Ports::Random) => Some(Plan::Search {
            ip: to.ip(),
            expected: Vec::new(),
            drawn: DRAWN,
        }),
        (Ports::Steps(_) | Ports::Random, Ports::Steps(_) | Ports::Random) => None,
    }
}

/// Returns the ports that come next.
fn following(last: u16, step: i16) -> Vec<u16> {
    let next = |number: i32| i32::from(last) + number * i32::from(step);
    let ports = (1..=EXPECTED_MAX as i32).map(next);
    let ports = ports.filter_map(|port| u16::try_from(port).ok());
    ports.filter(|port| *port >= 1024).collect()
}

/// Who began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// This node: its offer is the first.
    Asks,
    /// The other one.
    Answers,
}

/// One attempt.
#[derive(Clone, Debug)]
struct Attempt {
    peer: NodeId,
    number: u64,
    part: Part,
    began: Time,
    mine: Option<Offer>,
    theirs: Option<Offer>,
    /// In which networks it was seen at which addresses, and who has yet to say.
    seen: BTreeSet<(IpAddr, IpAddr)>,
    asked: BTreeSet<NodeId>,
    /// Since when the host is at it.
    running: Option<Time>,
}

impl Attempt {
    /// Tells whether the peer is where it says.
    fn believes(&self, now: Time, straight: Option<IpAddr>, said: IpAddr) -> bool {
        if straight == Some(said) {
            return true;
        }
        let says = |(_, at): &&(IpAddr, IpAddr)| *at == said;
        let networks = self.seen.iter().filter(says).count();
        let is_alone = self.seen.len() == 1;
        let all_spoke = self.asked.is_empty() || now >= self.began + WITNESS_WAIT;
        networks >= 2 || (networks == 1 && is_alone && all_spoke)
    }
}

/// How often it was tried with a peer.
#[derive(Clone, Copy, Debug, Default)]
struct Tried {
    times: u32,
    /// How often the other one had no time, in turn.
    unheard: u32,
    /// When it may be tried again, and when this node may ask for it again.
    next: Time,
    next_ask: Time,
}

/// The attempts of a node, one at a time.
#[derive(Debug, Default)]
pub(super) struct Punches {
    attempt: Option<Attempt>,
    tried: BTreeMap<NodeId, Tried>,
    /// With whom it is to be tried next.
    wanted: VecDeque<NodeId>,
    told: Option<Bucket>,
}

impl Punches {
    /// A way to a peer is wanted: it is tried once nothing else is.
    pub(super) fn want(&mut self, peer: NodeId) {
        if !self.wanted.contains(&peer) && self.wanted.len() < WANTED_MAX {
            self.wanted.push_back(peer);
        }
    }

    /// Returns with whom to [`Self::begin`] now.
    pub(super) fn due(&mut self, now: Time) -> Option<NodeId> {
        if self.attempt.is_some() {
            return None;
        }
        while let Some(peer) = self.wanted.pop_front() {
            let tried = self.tried.get(&peer);
            if tried.is_none_or(|tried| now >= tried.next.max(tried.next_ask)) {
                return Some(peer);
            }
        }
        None
    }

    /// Begins with a peer.
    pub(super) fn begin(&mut self, peer: NodeId, witnesses: &[NodeId], cx: &mut Cx<'_>) {
        let number = cx.rng().number();
        self.prepare(peer, (Part::Asks, number), witnesses, cx);
    }

    /// Tells whether there is an attempt now.
    fn prepare(
        &mut self,
        peer: NodeId,
        (part, number): (Part, u64),
        witnesses: &[NodeId],
        cx: &mut Cx<'_>,
    ) -> bool {
        let now = cx.now();
        let is_early = self.tried.get(&peer).is_some_and(|tried| now < tried.next);
        if self.attempt.is_some() || is_early || peer == cx.me() {
            return false;
        }
        let asked = witnesses.iter().filter(|id| **id != peer);
        let asked: BTreeSet<NodeId> = asked.take(WITNESSES_MAX).copied().collect();
        for witness in &asked {
            cx.send_to(*witness, ReachMessage::Where(peer).encode());
        }
        self.attempt = Some(Attempt {
            peer,
            number,
            part,
            began: now,
            mine: None,
            theirs: None,
            seen: BTreeSet::new(),
            asked,
            running: None,
        });
        cx.emit(Event::Look(peer));
        true
    }

    /// The host says how packets come out; none when it does not know, or will not.
    pub(super) fn looked(&mut self, peer: NodeId, offer: Option<Offer>, cx: &mut Cx<'_>) {
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        if attempt.peer != peer || attempt.mine.is_some() {
            return;
        }
        let Some(offer) = offer else {
            // Whoever is no member is not listened to either, for as long.
            self.give_up(cx.now());
            let tried = self.tried(peer);
            tried.next = tried.next_ask;
            return;
        };
        attempt.mine = Some(offer);
        let message = match attempt.part {
            Part::Asks => ReachMessage::Punch(attempt.number, offer),
            Part::Answers => ReachMessage::Meet(attempt.number, offer),
        };
        cx.send_to(peer, message.encode());
        self.go_on(cx);
    }

    /// A peer wants to begin.
    pub(super) fn asked(
        &mut self,
        from: NodeId,
        (number, theirs): (u64, Offer),
        witnesses: &[NodeId],
        cx: &mut Cx<'_>,
    ) {
        let me = cx.me();
        match &mut self.attempt {
            // Both began: the lesser id has the word.
            Some(attempt) if attempt.peer == from && attempt.running.is_none() => {
                if from > me && attempt.mine.is_some() {
                    return;
                }
                (attempt.number, attempt.part) = (number, Part::Answers);
                attempt.theirs = Some(theirs);
                if let Some(mine) = attempt.mine {
                    cx.send_to(from, ReachMessage::Meet(number, mine).encode());
                }
            }
            Some(attempt) => {
                // Its turn comes.
                if attempt.peer != from {
                    self.want(from);
                }
                return;
            }
            None => {
                if !self.prepare(from, (Part::Answers, number), witnesses, cx) {
                    return;
                }
                if let Some(attempt) = &mut self.attempt {
                    attempt.theirs = Some(theirs);
                }
            }
        }
        self.go_on(cx);
    }

    /// A peer answers.
    pub(super) fn met(&mut self, from: NodeId, number: u64, theirs: Offer, cx: &mut Cx<'_>) {
        if let Some(attempt) = &mut self.attempt
            && (attempt.peer, attempt.number, attempt.part) == (from, number, Part::Asks)
        {
            attempt.theirs.get_or_insert(theirs);
            self.go_on(cx);
        }
    }

    /// Somebody asks where this node sees a node: it is told if their session goes straight.
    pub(super) fn tell_where(&mut self, from: NodeId, of: NodeId, cx: &mut Cx<'_>) {
        let now = cx.now();
        let bucket = self.told.get_or_insert_with(|| Bucket::full(WHERE, now));
        if let Some(at) = straight(of, cx)
            && bucket.take(WHERE, now)
        {
            cx.send_to(from, ReachMessage::Sees(of, at).encode());
        }
    }

    /// Somebody whom this node asked sees a node at an address.
    pub(super) fn told_where(
        &mut self,
        (from, network): (NodeId, IpAddr),
        (of, at): (NodeId, IpAddr),
        cx: &mut Cx<'_>,
    ) {
        if let Some(attempt) = &mut self.attempt
            && attempt.peer == of
            && attempt.asked.remove(&from)
        {
            let network = network_of(network.to_canonical());
            attempt.seen.insert((network, at.to_canonical()));
            self.go_on(cx);
        }
    }

    /// Has the host begin, if all is known.
    fn go_on(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now();
        let Some(attempt) = self.attempt.as_mut().filter(|a| a.running.is_none()) else {
            return;
        };
        let (Some(mine), Some(theirs)) = (attempt.mine, attempt.theirs) else {
            return;
        };
        let peer = attempt.peer;
        let at = canonical(theirs.at);
        let plan = plan(mine, Offer { at, ..theirs });
        let Some(plan) = plan.filter(|_| is_public(at.ip()) && at.port() != 0) else {
            let tried = self.tried(peer);
            (tried.times, tried.next) = (0, now + PAUSE_LONG);
            self.attempt = None;
            return;
        };
        // One address and port more to try is what any peer may name.
        let is_one = matches!(plan, Plan::Open { sockets: 0, .. });
        if !is_one && !attempt.believes(now, straight(peer, cx), at.ip()) {
            return;
        }
        attempt.running = Some(now);
        let tried = self.tried(peer);
        tried.times += 1;
        tried.unheard = 0;
        cx.emit(Event::Punch { peer, plan });
    }

    /// The host has ended an attempt.
    pub(super) fn ended(&mut self, peer: NodeId, is_through: bool, now: Time) {
        let ended = |attempt: &mut Attempt| attempt.peer == peer && attempt.running.is_some();
        if self.attempt.take_if(ended).is_none() {
            return;
        }
        let tried = self.tried(peer);
        if is_through {
            tried.times = 0;
        }
        tried.next = now + PAUSE_SHORT;
        if tried.times >= TRIES_MAX {
            (tried.times, tried.next) = (0, now + PAUSE_LONG);
        }
    }

    /// An attempt comes to nothing before it has begun.
    fn give_up(&mut self, now: Time) {
        if let Some(Attempt { peer, .. }) = self.attempt.take() {
            let tried = self.tried(peer);
            tried.unheard = (tried.unheard + 1).min(10);
            tried.next_ask = now + PAUSE_SHORT * (1 << (tried.unheard - 1));
        }
    }

    pub(super) fn gone(&mut self, peer: NodeId) {
        self.attempt.take_if(|attempt| attempt.peer == peer);
        self.wanted.retain(|wanted| *wanted != peer);
    }

    pub(super) fn on_timeout(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now();
        self.go_on(cx);
        let Some(attempt) = &self.attempt else { return };
        let peer = attempt.peer;
        match attempt.running {
            Some(since) if now >= since + RUN_MAX => self.ended(peer, false, now),
            None if now >= attempt.began + PREPARE_MAX => self.give_up(now),
            _ => {}
        }
    }

    pub(super) fn next_timeout(&self, now: Time) -> Option<Time> {
        let attempt = self.attempt.as_ref()?;
        if let Some(since) = attempt.running {
            return Some(since + RUN_MAX);
        }
        let witnesses = attempt.began + WITNESS_WAIT;
        Some(match now < witnesses {
            true => witnesses,
            false => attempt.began + PREPARE_MAX,
        })
    }

    fn tried(&mut self, peer: NodeId) -> &mut Tried {
        if self.tried.len() >= PEERS_MAX && !self.tried.contains_key(&peer) {
            let soonest = self
                .tried
                .iter()
                .min_by_key(|(_, tried)| tried.next.max(tried.next_ask));
            let soonest = soonest.map(|(id, _)| *id);
            soonest.and_then(|id| self.tried.remove(&id));
        }
        self.tried.entry(peer).or_default()
    }
}

/// Returns the address to which this node's own session with another one goes.
fn straight(node: NodeId, cx: &Cx<'_>) -> Option<IpAddr> {
    let (kind, at) = cx.overlay().path(node);
    let at = at.filter(|_| kind == PathKind::Direct)?;
    Some(at.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ports: &[u16]) -> Vec<SocketAddr> {
        let at = |port: &u16| SocketAddr::from(([198, 51, 100, 7], *port));
        ports.iter().map(at).collect()
    }

    #[test]
    fn how_ports_are_given_is_seen_from_a_few_answers() {
        let judged = |first: &[u16], anew: &[u16]| {
            let offer = Offer::judge(&at(first), &at(anew));
            offer.map(|offer| (offer.at.port(), offer.ports))
        };
        assert_eq!(judged(&[], &[7]), None);
        assert_eq!(judged(&[7], &[9, 11]), Some((7, Ports::Kept)));
        assert_eq!(judged(&[7, 7, 9], &[1]), Some((7, Ports::Kept)));
        let steps = Some((2007, Ports::Steps(2)));
        assert_eq!(judged(&[1, 2], &[2001, 2003, 2007]), steps);
        assert_eq!(
            judged(&[1, 2], &[2003, 2001]),
            Some((2001, Ports::Steps(-2)))
        );
        assert_eq!(
            judged(&[1, 2], &[2001, 40_000]),
            Some((40_000, Ports::Random))
        );
        assert_eq!(
            judged(&[1, 2], &[2001, 2000, 2001]),
            Some((2001, Ports::Random))
        );
        let inner = ["192.168.1.2:7".parse().unwrap()];
        assert_eq!(Offer::judge(&inner, &inner), None);
    }

    #[test]
    fn one_searches_what_the_other_one_opens() {
        let offer = |ports| Offer {
            at: at(&[5000])[0],
            ports,
        };
        let (kept, steps) = (offer(Ports::Kept), offer(Ports::Steps(2)));
        let random = offer(Ports::Random);
        let sockets = |plan| match plan {
            Some(Plan::Open { sockets, .. }) => Some(sockets),
            Some(Plan::Search { .. }) | None => None,
        };
        assert_eq!(sockets(plan(kept, kept)), Some(0));
        assert_eq!(sockets(plan(steps, kept)), Some(SOCKETS));
        assert_eq!(sockets(plan(random, kept)), Some(SOCKETS));
        let Some(Plan::Search {
            expected, drawn, ..
        }) = plan(kept, steps)
        else {
            panic!("it searches");
        };
        assert_eq!((expected.len(), drawn), (EXPECTED_MAX, DRAWN));
        assert_eq!(expected[..2], [5002, 5004]);
        assert!(
            matches!(plan(kept, random), Some(Plan::Search { expected, .. }) if expected.is_empty())
        );
        for (one, other) in [(steps, steps), (random, steps), (random, random)] {
            assert_eq!(plan(one, other), None);
        }
    }

    #[test]
    fn only_where_two_networks_or_the_own_session_see_it_a_peer_is() {
        let ip = |network: u8| IpAddr::from([20, 0, network, 0]);
        let (truth, lie) = (
            IpAddr::from([198, 51, 100, 7]),
            IpAddr::from([192, 0, 2, 1]),
        );
        let attempt = |seen: &[(u8, IpAddr)], awaited: u8| Attempt {
            peer: NodeId::from_bytes([1; 32]),
            number: 1,
            part: Part::Asks,
            began: Time::ZERO,
            mine: None,
            theirs: None,
            seen: seen
                .iter()
                .map(|(network, at)| (ip(*network), *at))
                .collect(),
            asked: (0..awaited)
                .map(|n| NodeId::from_bytes([9 + n; 32]))
                .collect(),
            running: None,
        };
        let late = Time::ZERO + WITNESS_WAIT;
        let believes = |attempt: &Attempt, straight, said| {
            [Time::ZERO, late].map(|now| attempt.believes(now, straight, said))
        };
        assert_eq!(believes(&attempt(&[], 0), None, truth), [false; 2]);
        assert_eq!(believes(&attempt(&[], 0), Some(truth), truth), [true; 2]);
        assert_eq!(believes(&attempt(&[], 0), Some(truth), lie), [false; 2]);
        let two = attempt(&[(1, truth), (2, truth)], 5);
        assert_eq!(believes(&two, None, truth), [true; 2]);
        assert_eq!(believes(&two, None, lie), [false; 2]);
        // One alone, when all others had time to speak.
        assert_eq!(
            believes(&attempt(&[(1, truth)], 5), None, truth),
            [false, true]
        );
        assert_eq!(believes(&attempt(&[(1, truth)], 0), None, truth), [true; 2]);
        let disputed = attempt(&[(1, lie), (2, truth), (3, truth)], 0);
        assert_eq!(believes(&disputed, None, lie), [false; 2]);
        assert_eq!(believes(&disputed, None, truth), [true; 2]);
        assert_eq!(
            believes(&attempt(&[(1, lie), (2, truth)], 0), None, lie),
            [false; 2]
        );
    }

    proptest! {
        #[test]
        fn whatever_is_said_little_follows(
            first in proptest::collection::vec(any::<u16>(), 0..6),
            anew in proptest::collection::vec(any::<u16>(), 0..6),
            last in any::<u16>(),
            step in any::<i16>(),
        ) {
            if let Some(mine) = Offer::judge(&at(&first), &at(&anew)) {
                let theirs = Offer { at: at(&[last])[0], ports: Ports::Steps(step) };
                if let Some(Plan::Search { expected, drawn, .. }) = plan(mine, theirs) {
                    prop_assert!(expected.len() <= EXPECTED_MAX && drawn <= DRAWN);
                    prop_assert!(expected.iter().all(|port| *port >= 1024));
                }
            }
        }
    }
}
