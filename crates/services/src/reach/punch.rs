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
//! Who has no time for it, or does not know how its packets come out, says `later`: the other one turns to
//! the next who wait, and is asked in its turn.
//!
//! What each does follows from both offers ([`plan`]). Where both have one port for all, each sends to
//! the other's. Where one has another port for each, it opens many, and the other one searches: the
//! engine of the host does it, and says why it succeeds (`crates/dataplane`, `engine/punch.rs`). Where
//! both do, and the ports of both follow each other, the nth probe of each goes to where the other's nth comes
//! out; as others of the house take ports meanwhile, one of the two probes further and further ahead
//! (`plan.rs`). Where they follow in no order nothing can be done.
//!
//! **Nobody is led to spray a stranger.** Where probes go to many ports, or from many, the peer's
//! address must be the one at which this node's own session with it goes, or at which observers in two
//! different networks see it, whom this node chose itself. Only if all who answer say it, those of one
//! network are believed. The session of a peer that has IPv6 besides says nothing of its IPv4: that, it
//! shows the observers by itself (`shown`), and their word of it weighs neither more nor less. That the
//! peer answer from there itself cannot be asked for: through a symmetric router nothing comes from an
//! address and port at which it could be asked, before the search has found one. What is heard in a
//! session by way of a NAT64 that nobody vouches for (`Command::Hearsay`) is of one network, however
//! many sessions there are; and where such a session itself goes shows nothing. A node takes part in one
//! such attempt at a time, three times with each peer, then not for [`PAUSE_LONG`]; and the host only
//! where both are members of one channel.

mod plan;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use enishi_overlay::{NodeId, PathKind, Time};

use super::observed::{canonical, is_public, network_of};
use super::wire::ReachMessage;
use super::{Cx, Event};
use crate::bucket::{Bucket, Rate};

pub use plan::{EXPECTED_MAX, Offer, Plan, Ports, plan};

/// How often it is tried with one peer before the long pause.
pub const TRIES_MAX: u32 = 3;
/// After so long it is tried again.
const PAUSE_SHORT: Duration = Duration::from_secs(5);
/// After so long it is tried again when it was in vain [`TRIES_MAX`] times.
pub const PAUSE_LONG: Duration = Duration::from_secs(3 * 60 * 60);
/// For so long others are asked where they see the peer, if one network alone has answered.
const WITNESS_WAIT: Duration = Duration::from_millis(700);
/// At these times after the beginning those are asked again who did not see the peer by IPv4: they may
/// have had it show them.
const ASK_AGAIN: [Duration; 2] = [WITNESS_WAIT, Duration::from_secs(2)];
/// So long after this node's offer an attempt that has no answer gives way to a member that asks, or
/// waits: whoever has time looks for 1.5 s at most (`host/packets/look.rs`), and usually for 0.4.
const UNANSWERED_MAX: Duration = Duration::from_secs(2);
/// After so long an attempt that has not begun is given up: the other one may have no time.
const PREPARE_MAX: Duration = Duration::from_secs(4);
/// After so long one that has begun is over, whatever the host says.
const RUN_MAX: Duration = Duration::from_secs(12);
/// How many are asked where they see the peer.
const WITNESSES_MAX: usize = 12;
/// The most peers of whom it is remembered how often it was tried.
const PEERS_MAX: usize = 256;
/// The most peers that wait for their turn.
const WANTED_MAX: usize = 16;
/// How often others are told where this node sees somebody: public nodes are asked by all of their peers
/// at once.
const WHERE: Rate = Rate {
    per_s: 200,
    burst: 800,
};
/// How often one of them is told, who asks three times in an attempt of a few seconds.
const WHERE_EACH: Rate = Rate {
    per_s: 3,
    burst: 30,
};

/// Who began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// This node: its offer is the first.
    Asks,
    /// The other one.
    Answers,
}

/// What an observer says.
#[derive(Clone, Copy, Debug)]
struct Word {
    /// In which network it is.
    network: IpAddr,
    at: [Option<IpAddr>; 2],
}

/// One attempt.
#[derive(Clone, Debug)]
struct Attempt {
    peer: NodeId,
    number: u64,
    part: Part,
    began: Time,
    /// When the peer was sent this node's offer.
    offered: Option<Time>,
    mine: Option<Offer>,
    theirs: Option<Offer>,
    /// What each has said who was asked: where it is, and where it sees the peer, by each version of IP
    /// at most once. Then who was asked, and who has yet to say.
    seen: BTreeMap<NodeId, Word>,
    witnesses: BTreeSet<NodeId>,
    asked: BTreeSet<NodeId>,
    /// How often they were asked again.
    asked_again: usize,
    /// Since when the host is at it.
    running: Option<Time>,
}

impl Attempt {
    /// Returns when to ask again where the peer is.
    fn next_asking(&self) -> Option<Time> {
        let waits = ASK_AGAIN.get(self.asked_again)?;
        Some(self.began + *waits)
    }

    /// Tells whether it is time to ask again where the peer is: some may have had it show them.
    fn asks_again(&mut self, now: Time) -> bool {
        let is_due = self.next_asking().is_some_and(|at| now >= at);
        let asks = is_due && self.running.is_none();
        if asks {
            self.asked_again += 1;
            let by_ipv4 = |word: &Word| word.at.iter().flatten().any(IpAddr::is_ipv4);
            let has_said = |witness: &NodeId| self.seen.get(witness).is_some_and(by_ipv4);
            let witnesses = self.witnesses.iter().filter(|witness| !has_said(witness));
            self.asked = witnesses.copied().collect();
        }
        asks
    }

    /// Returns since when it gives way to others, as the peer has not answered; none if it has.
    fn gives_way(&self) -> Option<Time> {
        let is_unanswered = self.running.is_none() && self.theirs.is_none();
        Some(self.offered.filter(|_| is_unanswered)? + UNANSWERED_MAX)
    }

    /// Tells whether the peer is where it says.
    fn believes(&self, now: Time, straight: Option<IpAddr>, said: IpAddr) -> bool {
        if straight == Some(said) {
            return true;
        }
        let (for_it, against): (Vec<&Word>, Vec<&Word>) = self
            .seen
            .values()
            .partition(|word| word.at.contains(&Some(said)));
        let networks: BTreeSet<IpAddr> = for_it.iter().map(|word| word.network).collect();
        let all_spoke = self.asked.is_empty() || now >= self.began + WITNESS_WAIT;
        // Who sees it by another version of IP alone speaks against it.
        networks.len() >= 2 || (networks.len() == 1 && against.is_empty() && all_spoke)
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
    /// Whether the host has said that it is a member of a common channel.
    is_member: bool,
}

impl Tried {
    /// Returns when this node may begin.
    fn begins(&self) -> Time {
        self.next.max(self.next_ask)
    }
}

/// How often one asks where this node sees others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AskedWhere(Option<Bucket>);

/// The attempts of a node, one at a time.
#[derive(Debug, Default)]
pub(super) struct Punches {
    attempt: Option<Attempt>,
    tried: BTreeMap<NodeId, Tried>,
    /// With whom it is to be tried next.
    wanted: VecDeque<NodeId>,
    told: Option<Bucket>,
    /// Whose sessions go by way of a NAT64 that nobody vouches for.
    hearsay: BTreeSet<NodeId>,
}

impl Punches {
    /// Whether a session goes by way of a NAT64 that nobody vouches for. There are no more of them than
    /// sessions, as each is told to be [`Self::gone`].
    pub(super) fn set_hearsay(&mut self, peer: NodeId, is_hearsay: bool) {
        match is_hearsay {
            true => self.hearsay.insert(peer),
            false => self.hearsay.remove(&peer),
        };
    }

    pub(super) fn is_hearsay(&self, peer: NodeId) -> bool {
        self.hearsay.contains(&peer)
    }

    /// The host wants a way to a member: it is tried once nothing else is.
    pub(super) fn want(&mut self, member: NodeId) {
        self.tried(member).is_member = true;
        self.wait(member);
    }

    fn wait(&mut self, peer: NodeId) {
        if !self.wanted.contains(&peer) && self.wanted.len() < WANTED_MAX {
            self.wanted.push_back(peer);
        }
    }

    /// Returns with whom to [`Self::begin`] now. Who may be tried soon goes on waiting; the others are
    /// wanted again by the host.
    pub(super) fn due(&mut self, now: Time) -> Option<NodeId> {
        if self.attempt.is_some() {
            return None;
        }
        let Self { wanted, tried, .. } = self;
        let begins = |peer: &NodeId| tried.get(peer).map_or(Time::ZERO, Tried::begins);
        wanted.retain(|peer| begins(peer) <= now + PAUSE_SHORT);
        let first = wanted.iter().position(|peer| begins(peer) <= now)?;
        wanted.remove(first)
    }

    /// Returns from when on there is a member that waits for its turn.
    fn awaited(&self) -> Option<Time> {
        let members = self.wanted.iter().filter_map(|peer| self.tried.get(peer));
        let members = members.filter(|tried| tried.is_member);
        members.map(Tried::begins).min()
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
            offered: None,
            mine: None,
            theirs: None,
            seen: BTreeMap::new(),
            witnesses: asked.clone(),
            asked,
            asked_again: 0,
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
            if attempt.part == Part::Answers {
                cx.send_to(peer, ReachMessage::Later(attempt.number).encode());
            }
            // Whoever is no member is not listened to either, for as long.
            self.give_up(cx.now());
            let tried = self.tried(peer);
            (tried.next, tried.is_member) = (tried.next_ask, false);
            return;
        };
        attempt.mine = Some(offer);
        attempt.offered = Some(cx.now());
        let message = match attempt.part {
            Part::Asks => ReachMessage::Punch(attempt.number, offer),
            Part::Answers => ReachMessage::Meet(attempt.number, offer),
        };
        cx.send_to(peer, message.encode());
        self.tried(peer).is_member = true;
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
        let (me, now) = (cx.me(), cx.now());
        let tried = self.tried.get(&from).copied().unwrap_or_default();
        let other = self.attempt.as_ref().filter(|other| other.peer != from);
        let gives_way = other.and_then(Attempt::gives_way);
        if tried.is_member && now >= tried.next && gives_way.is_some_and(|since| now >= since) {
            self.give_way(now);
        }
        let same = |attempt: &&mut Attempt| attempt.peer == from && attempt.running.is_none();
        if let Some(attempt) = self.attempt.as_mut().filter(same) {
            // Both began: the lesser id has the word. It says it again, as the other one may have had no
            // time for it.
            if let (true, Part::Asks, Some(mine)) = (from > me, attempt.part, attempt.mine) {
                let message = ReachMessage::Punch(attempt.number, mine);
                return cx.send_to(from, message.encode());
            }
            (attempt.number, attempt.part) = (number, Part::Answers);
            attempt.theirs = Some(theirs);
            if let Some(mine) = attempt.mine {
                cx.send_to(from, ReachMessage::Meet(number, mine).encode());
            }
        } else if self.prepare(from, (Part::Answers, number), witnesses, cx) {
            if let Some(attempt) = &mut self.attempt {
                attempt.theirs = Some(theirs);
            }
        } else {
            // Its turn comes.
            if tried.next <= now + PAUSE_SHORT {
                self.tried(from).next_ask = now;
                self.wait(from);
            }
            return cx.send_to(from, ReachMessage::Later(number).encode());
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

    /// A peer has no time for an attempt now.
    pub(super) fn put_off(&mut self, from: NodeId, number: u64, now: Time) {
        let is_it = |attempt: &Attempt| {
            let Attempt { peer, part, .. } = *attempt;
            let is_unanswered = attempt.theirs.is_none();
            (peer, attempt.number, part, is_unanswered) == (from, number, Part::Asks, true)
        };
        if self.attempt.as_ref().is_some_and(is_it) {
            self.give_up(now);
        }
    }

    /// Tells whether somebody may be told where this node sees a node.
    pub(super) fn may_tell(&mut self, now: Time, by: &mut AskedWhere) -> bool {
        let each = by.0.get_or_insert_with(|| Bucket::full(WHERE_EACH, now));
        let all = self.told.get_or_insert_with(|| Bucket::full(WHERE, now));
        each.take(WHERE_EACH, now) && all.take(WHERE, now)
    }

    /// Somebody whom this node asked sees a node at an address, or two.
    pub(super) fn told_where(
        &mut self,
        (from, network): (NodeId, IpAddr),
        (of, at): (NodeId, [Option<IpAddr>; 2]),
        cx: &mut Cx<'_>,
    ) {
        if let Some(attempt) = &mut self.attempt
            && attempt.peer == of
            && attempt.asked.remove(&from)
        {
            let network = network_of(network.to_canonical());
            let at = at.map(|at| at.map(|at| at.to_canonical()));
            attempt.seen.insert(from, Word { network, at });
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
        if mine.at.is_ipv4() != at.is_ipv4() {
            // One that has both may have heard of one alone, as datagrams are lost.
            self.tried(peer).times += 1;
            return self.end(peer, now);
        }
        let plan = plan(mine, Offer { at, ..theirs });
        let Some(plan) = plan.filter(|_| is_public(at.ip()) && at.port() != 0) else {
            let tried = self.tried(peer);
            (tried.times, tried.next) = (0, now + PAUSE_LONG);
            self.attempt = None;
            return;
        };
        // One address and port more to try is what any peer may name.
        let is_one = matches!(plan, Plan::Open { sockets: 0, .. });
        let straight = straight(peer, cx).filter(|_| !self.hearsay.contains(&peer));
        if !is_one && !attempt.believes(now, straight, at.ip()) {
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
        let is_it = self.attempt.as_mut().is_some_and(ended);
        if !is_it {
            return;
        }
        if is_through {
            self.tried(peer).times = 0;
        }
        self.end(peer, now);
    }

    /// An attempt is over: the next one follows soon, unless there were enough.
    fn end(&mut self, peer: NodeId, now: Time) {
        self.attempt = None;
        let tried = self.tried(peer);
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

    /// An attempt that the other one has not answered is put off, as others have time.
    fn give_way(&mut self, now: Time) {
        if let Some(Attempt { peer, .. }) = self.attempt.take() {
            self.tried(peer).next_ask = now + PAUSE_SHORT;
            self.wait(peer);
        }
    }

    pub(super) fn gone(&mut self, peer: NodeId) {
        self.hearsay.remove(&peer);
        self.attempt.take_if(|attempt| attempt.peer == peer);
        self.wanted.retain(|wanted| *wanted != peer);
    }

    pub(super) fn on_timeout(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now();
        self.go_on(cx);
        let awaited = self.awaited().is_some_and(|since| now >= since);
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        let peer = attempt.peer;
        let gives_way = attempt.gives_way().is_some_and(|since| now >= since);
        let running = attempt.running;
        match running {
            Some(since) if now >= since + RUN_MAX => self.ended(peer, false, now),
            None if now >= attempt.began + PREPARE_MAX => self.give_up(now),
            None if awaited && gives_way => self.give_way(now),
            None if attempt.asks_again(now) => {
                for witness in &attempt.asked {
                    cx.send_to(*witness, ReachMessage::Where(peer).encode());
                }
            }
            _ => {}
        }
    }

    pub(super) fn next_timeout(&self, now: Time) -> Option<Time> {
        let Some(attempt) = &self.attempt else {
            let begins = |peer| self.tried.get(peer).map_or(now, Tried::begins);
            return self.wanted.iter().map(begins).min();
        };
        if let Some(since) = attempt.running {
            return Some(since + RUN_MAX);
        }
        let end = attempt.began + PREPARE_MAX;
        let way = attempt.gives_way().zip(self.awaited());
        let way = way.map(|(gives, awaited)| gives.max(awaited));
        let deadlines = [attempt.next_asking(), way, Some(end)];
        deadlines.into_iter().flatten().min()
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

    fn attempt() -> Attempt {
        Attempt {
            peer: NodeId::from_bytes([1; 32]),
            number: 1,
            part: Part::Asks,
            began: Time::ZERO,
            offered: None,
            mine: None,
            theirs: None,
            seen: BTreeMap::new(),
            witnesses: BTreeSet::new(),
            asked: BTreeSet::new(),
            asked_again: 0,
            running: None,
        }
    }

    fn words(said: impl Iterator<Item = (IpAddr, [Option<IpAddr>; 2])>) -> BTreeMap<NodeId, Word> {
        let words = said.zip(100..);
        let word =
            |((network, at), number)| (NodeId::from_bytes([number; 32]), Word { network, at });
        words.map(word).collect()
    }

    #[test]
    fn only_where_two_networks_or_the_own_session_see_it_a_peer_is() {
        let ip = |network: u8| IpAddr::from([20, 0, network, 0]);
        let (truth, lie) = (
            IpAddr::from([198, 51, 100, 7]),
            IpAddr::from([192, 0, 2, 1]),
        );
        let attempt = |seen: &[(u8, IpAddr)], awaited: u8| Attempt {
            seen: words(
                seen.iter()
                    .map(|(network, at)| (ip(*network), [Some(*at), None])),
            ),
            asked: (0..awaited)
                .map(|n| NodeId::from_bytes([9 + n; 32]))
                .collect(),
            ..attempt()
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
        // Where its session goes by IPv6, it is believed by IPv4 where that was shown to two networks, or
        // to the only one that speaks.
        let six: IpAddr = "2001:db8::7".parse().unwrap();
        let says = |said: &[(u8, [Option<IpAddr>; 2])]| Attempt {
            seen: words(said.iter().map(|(network, at)| (ip(*network), *at))),
            ..self::attempt()
        };
        let both = |at: IpAddr| [Some(six), Some(at)];
        let shown = says(&[(1, both(truth)), (2, both(truth))]);
        assert_eq!(believes(&shown, Some(six), truth), [true; 2]);
        let shown = says(&[(1, both(truth)), (1, both(truth))]);
        assert_eq!(believes(&shown, Some(six), truth), [true; 2]);
        // Who sees it by IPv6 alone is not outvoted by its neighbours.
        for honest in [1, 2] {
            let lies = says(&[(1, both(lie)), (1, both(lie)), (honest, [Some(six), None])]);
            assert_eq!(believes(&lies, Some(six), lie), [false; 2]);
        }
        let of_two = says(&[(1, both(lie)), (1, both(truth))]);
        assert_eq!(believes(&of_two, Some(six), truth), [false; 2]);
    }

    proptest! {
        /// Whatever one network says, at however many addresses and however often: it is believed only
        /// if nobody else has said anything, in it or in another, by either version of IP.
        #[test]
        fn one_network_says_nothing_against_others(
            lies in proptest::collection::vec(0_u8..4, 1..20),
            honest in 1_u8..4,
            by_ipv6 in any::<bool>(),
        ) {
            let lie = |number: u8| IpAddr::from([192, 0, 2, number]);
            let truth = match by_ipv6 {
                true => "2001:db8::7".parse().unwrap(),
                false => IpAddr::from([198, 51, 100, 7]),
            };
            let network = |number: u8| IpAddr::from([20, 0, number, 0]);
            let mut attempt = attempt();
            let lying = lies.iter().map(|number| (network(99), [Some(lie(*number)), None]));
            // Who is honest may be a neighbour of the liars.
            let honest = (0..honest).map(|number| (network(99 + number), [Some(truth), None]));
            attempt.seen = words(lying.chain(honest));
            let late = Time::ZERO + PREPARE_MAX;
            for number in lies {
                prop_assert!(!attempt.believes(late, Some(truth), lie(number)));
            }
        }
    }
}
