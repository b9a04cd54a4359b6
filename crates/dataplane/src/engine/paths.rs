//! Which way datagrams to one peer take: straight to one of its addresses, or, as long as
//! none is known to work, by a node that relays them, or else by the lane of its session.
//!
//! Probes find out. An address is taken when it answers, and given up when it falls silent
//! while something was sent; the first to answer is taken, and another one only if it is
//! clearly nearer. One that goes straight is taken before any relay. A peer whose address changes is followed when it speaks from the new one
//! and no longer from the old one. Probes are as long as datagrams may become, so that what
//! is known to pass is what was seen to pass (RFC 8899: probing with the packets themselves). As
//! long as long datagrams are sent, one of that length is tried every second: a path that ceases to
//! take them tells nobody (RFC 8899, section 4.3).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::sockets::{Pair, Via};
use crate::relay::Token;

/// The most addresses of one peer that are tried, and relays.
pub const CANDIDATES_MAX: usize = 16;
pub(super) const RELAYS_MAX: usize = 4;

/// Lengths of datagrams that are tried, longest first: what a full packet of the device needs,
/// what one of IPv6's least length needs, and what passes every path of IPv6's least length
/// over either version.
pub const DATAGRAM_BYTES: [usize; 3] = [1449, 1337, 1232];

/// What passes before anything is known.
const DATAGRAM_SAFE: usize = DATAGRAM_BYTES[DATAGRAM_BYTES.len() - 1];

/// How often addresses are tried while none works: often at first, then ever less.
const SEARCH_FIRST: Duration = Duration::from_millis(200);
const SEARCH_LAST: Duration = Duration::from_secs(10);
/// How often the other addresses are tried while one works, and longer datagrams.
const IMPROVE: Duration = Duration::from_secs(60);
/// How often it is made sure that long datagrams pass, while there are any.
const CONFIRM: Duration = Duration::from_secs(1);
/// How long answers to a trial of lengths are waited for; some round trips, at least so long, when
/// packets may be lost meanwhile.
const TRIAL: Duration = Duration::from_secs(1);
const TRIAL_ROUND_TRIPS: u32 = 4;
const TRIAL_MIN: Duration = Duration::from_millis(200);
/// How often a trial is made before what was not answered, while something shorter was, is taken
/// not to pass any more; and how often when nothing was, which says nothing about lengths.
const TRIAL_ROUNDS: u32 = 3;
const TRIAL_SILENCES: u32 = 3;
/// After so long without a word from the peer, while we spoke, it is asked: so soon that a peer
/// that moved, or hears that we did, is found before TCP waits for long (RFC 6298).
const DOUBT_AFTER: Duration = Duration::from_millis(200);
/// How often it is asked then.
const DOUBT_INTERVAL: Duration = Duration::from_millis(250);
/// After so long in doubt, and some round trips, the host is told: two questions have had no answer.
const TELL_AFTER: Duration = Duration::from_millis(500);
const TELL_ROUND_TRIPS: u32 = 3;
/// After so long in doubt the address is given up: well within the two seconds in which the
/// failure of a neighbour is to be noticed.
const GIVE_UP_AFTER: Duration = Duration::from_millis(1800);
/// The same for a relay: there is the lane, and another relay may be the next.
const GIVE_UP_RELAY_AFTER: Duration = Duration::from_millis(900);
/// How often a silent path is used, so that NATs keep it open, unless the host says otherwise: the
/// shortest lifetime that they may have is two minutes (RFC 4787, section 4.3), many have half a
/// minute.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// By which sockets a peer was heard within this time, it may send to: a way is used every
/// [`KEEP_ALIVE`], and one datagram may be lost.
const HEARD_LATELY: Duration = Duration::from_secs(45);
/// The host may say so much at least: a datagram each time, for each peer.
pub const KEEP_ALIVE_MIN: Duration = Duration::from_secs(4);
/// After so long without a way straight to a peer, help is asked for, and how often: by then all its
/// addresses were tried several times.
const HELP_AFTER: Duration = Duration::from_millis(1200);
const HELP_INTERVAL: Duration = Duration::from_secs(5);
/// For how long the old address must have been silent before a new one is followed.
const FOLLOW_AFTER: Duration = Duration::from_millis(300);

/// A question to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) to: Pair,
    /// How long the datagram is to be.
    pub(super) bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    pair: Pair,
    round_trip: Option<Duration>,
    /// When the peer was last heard by it, except while it is taken; none for never.
    heard: Option<Instant>,
}

/// Returns the lengths that are tried on a way: what passes every path is shorter by what a relay
/// wants said.
fn lengths(pair: &Pair) -> [usize; 3] {
    let [long, middle, _] = DATAGRAM_BYTES;
    [long, middle, safe(pair)]
}

fn safe(pair: &Pair) -> usize {
    DATAGRAM_SAFE - pair.header_bytes()
}

#[derive(Clone, Copy, Debug)]
struct Taken {
    pair: Pair,
    round_trip: Duration,
    heard: Instant,
    /// Since when the peer has been asked without an answer, and of which such time the host was told.
    doubted: Option<Instant>,
    told: Option<Instant>,
    asked: Instant,
    /// The longest datagram that was answered.
    bytes_max: usize,
    /// Longer ones being tried, and when any were last.
    trial: Option<Trial>,
    tried: Instant,
}

/// Datagrams of several lengths that were sent at once, to find out which of them pass.
#[derive(Clone, Copy, Debug)]
struct Trial {
    until: Instant,
    wait: Duration,
    /// How many trials in turn have shown that the longest does not pass, and how many nothing.
    failures: u32,
    silences: u32,
    /// The longest that was answered; 0 for none.
    longest: usize,
}

/// The ways to one peer.
#[derive(Debug)]
pub(super) struct Paths {
    candidates: Vec<Candidate>,
    /// By nodes that relay, the oldest first.
    relayed: Vec<Pair>,
    taken: Option<Taken>,
    search_pause: Duration,
    next_search: Instant,
    /// When an address that was heard from may be asked at once again.
    next_trigger: Instant,
    next_improve: Instant,
    /// When something was last sent to the peer, whichever way, and when something long was.
    spoke: Instant,
    spoke_long: Instant,
    /// Since when there is no way straight to the peer, and when help is to be asked for next.
    lost: Instant,
    next_help: Instant,
}

impl Paths {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            candidates: Vec::new(),
            relayed: Vec::new(),
            taken: None,
            search_pause: SEARCH_FIRST,
            next_search: now,
            next_trigger: now,
            next_improve: now,
            spoke: now,
            spoke_long: now,
            lost: now,
            next_help: now + HELP_AFTER,
        }
    }

    /// Adds addresses where the peer may be reached, and begins to try them all at once.
    pub(super) fn learn(&mut self, now: Instant, addresses: impl IntoIterator<Item = SocketAddr>) {
        for address in addresses {
            self.add(address.into());
        }
        self.search(now);
    }

    /// Adds a way that goes straight, by a socket that may not be the first, and begins to try it at once.
    pub(super) fn learn_pair(&mut self, now: Instant, pair: Pair) {
        self.add(pair);
        self.search(now);
    }

    /// Adds a way by a relay, and begins to try it at once. The oldest that is not in use makes room.
    pub(super) fn learn_relay(&mut self, now: Instant, pair: Pair) {
        if self.relayed.contains(&pair) {
            return;
        }
        if self.relayed.len() >= RELAYS_MAX {
            let in_use = self.taken.map(|taken| taken.pair);
            let unused = self.relayed.iter().position(|pair| Some(*pair) != in_use);
            self.relayed.remove(unused.unwrap_or(0));
        }
        self.relayed.push(pair);
        self.next_improve = now;
        self.search(now);
    }

    /// A relay is none any more.
    pub(super) fn forget_relay(&mut self, now: Instant, token: Token) {
        self.relayed.retain(|pair| pair.relay != Some(token));
        let is_lost = |taken: &mut Taken| taken.pair.relay == Some(token);
        if self.taken.take_if(is_lost).is_some() {
            self.lose(now);
        }
    }

    /// Tries all ways, from now on.
    fn search(&mut self, now: Instant) {
        self.search_pause = SEARCH_FIRST;
        self.next_search = now;
    }

    /// There is no way any more.
    fn lose(&mut self, now: Instant) {
        self.lost = now;
        self.search(now);
    }

    fn add(&mut self, pair: Pair) {
        // Relays are named by the host.
        if !is_possible(&pair.address) || !pair.is_straight() {
            return;
        }
        if self.candidates.iter().any(|known| known.pair == pair) {
            return;
        }
        if self.candidates.len() >= CANDIDATES_MAX {
            // The oldest that never answered makes room, or the oldest that is not in use.
            let mut known = self.candidates.iter();
            let is_silent = |known: &Candidate| known.round_trip.is_none() && known.heard.is_none();
            let silent = known.position(is_silent);
            let in_use = self.taken.map(|taken| taken.pair);
            let mut known = self.candidates.iter();
            let unused = known.position(|known| Some(known.pair) != in_use);
            self.candidates.remove(silent.or(unused).unwrap_or(0));
        }
        self.candidates.push(Candidate {
            pair,
            round_trip: None,
            heard: None,
        });
    }

    /// Returns where to send to without a relay; none when there is no such way.
    pub(super) fn straight(&self) -> Option<Pair> {
        let taken = self.taken.map(|taken| taken.pair);
        taken.filter(Pair::is_straight)
    }

    /// Returns by which relay datagrams go, if they do.
    pub(super) fn relay(&self) -> Option<Token> {
        self.taken.and_then(|taken| taken.pair.relay)
    }

    /// Returns where to send to and the longest datagram; none for the lane.
    pub(super) fn direct(&self) -> Option<(Pair, usize)> {
        self.taken.map(|taken| (taken.pair, taken.bytes_max))
    }

    /// Tells whether datagrams go to the peer by a socket, or come from it: it may prefer another way
    /// than this side.
    pub(super) fn uses(&self, now: Instant, via: Via) -> bool {
        let is_taken = self.taken.is_some_and(|taken| taken.pair.via == via);
        let lately = |heard: Instant| now.saturating_duration_since(heard) < HEARD_LATELY;
        let mut known = self.candidates.iter();
        is_taken || known.any(|known| known.pair.via == via && known.heard.is_some_and(lately))
    }

    /// A socket is closed: what is reached by it is not any more.
    pub(super) fn close(&mut self, via: Via) {
        self.candidates.retain(|known| known.pair.via != via);
        let is_lost = self.taken.take_if(|taken| taken.pair.via == via);
        debug_assert!(is_lost.is_none(), "a socket in use is kept open");
    }

    /// Tells whether the peer is spoken to and no way straight to it is found: at most every
    /// [`HELP_INTERVAL`].
    pub(super) fn wants_help(&mut self, now: Instant) -> bool {
        let is_wanted = self.straight().is_none()
            && now >= self.lost + HELP_AFTER
            && now >= self.next_help
            && now - self.spoke < HELP_INTERVAL * 2;
        if is_wanted {
            self.next_help = now + HELP_INTERVAL;
        }
        is_wanted
    }

    /// Tells, once each time, whether the peer has left some questions unanswered by the way that is taken.
    pub(super) fn is_doubtful(&mut self, now: Instant) -> bool {
        let Some(taken) = &mut self.taken else {
            return false;
        };
        let tell_after = TELL_AFTER.max(taken.round_trip * TELL_ROUND_TRIPS);
        let tell_after = tell_after.min(GIVE_UP_AFTER - DOUBT_INTERVAL);
        let since = taken.doubted.filter(|since| now - *since >= tell_after);
        let tells = since.is_some() && since != taken.told;
        if tells {
            taken.told = since;
        }
        tells
    }

    /// Returns the round trip of the way that is taken.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.taken.map(|taken| taken.round_trip)
    }

    /// Something is sent to the peer, of so many octets before it is cut.
    pub(super) fn spoke(&mut self, now: Instant, bytes: usize) {
        self.spoke = now;
        if bytes > DATAGRAM_SAFE {
            self.spoke_long = now;
        }
    }

    /// This host has other addresses: the peer is asked at once, and so hears from where.
    pub(super) fn moved(&mut self, now: Instant) {
        match &mut self.taken {
            Some(taken) => {
                taken.doubted.get_or_insert(now);
            }
            None => self.search(now),
        }
    }

    /// A datagram longer than the path takes was refused by the system.
    pub(super) fn too_long(&mut self, bytes: usize) {
        if let Some(taken) = &mut self.taken {
            let shorter = lengths(&taken.pair)
                .into_iter()
                .find(|shorter| *shorter < bytes);
            taken.bytes_max = taken.bytes_max.min(shorter.unwrap_or(taken.bytes_max));
        }
    }

    /// The peer was heard from an address, in the newest of its datagrams or an older one.
    /// Returns what to ask if it may have moved there.
    pub(super) fn heard(&mut self, now: Instant, from: Pair, is_newest: bool) -> Option<Ask> {
        if !from.is_straight() && !self.relayed.contains(&from) {
            return None;
        }
        if let Some(taken) = self.taken.as_mut().filter(|taken| taken.pair == from) {
            taken.heard = now;
            taken.doubted = None;
            return None;
        }
        self.add(from);
        self.note_heard(now, from);
        match &mut self.taken {
            // What comes straight is asked as if there were no relay.
            Some(taken)
                if is_newest
                    && now - taken.heard >= FOLLOW_AFTER
                    && (taken.pair.is_straight() || !from.is_straight()) =>
            {
                if now - taken.asked < DOUBT_INTERVAL {
                    return None;
                }
                taken.asked = now;
                Some(Ask { to: from, bytes: 0 })
            }
            // Should the old address turn out to be silent, this is where to ask.
            Some(taken) if taken.pair.is_straight() || !from.is_straight() => None,
            // What came through there may have opened the way: it is asked at once (the triggered
            // check of RFC 8445, section 7.3.1.4).
            Some(_) | None => {
                let due = now >= self.next_trigger;
                due.then(|| {
                    self.next_trigger = now + DOUBT_INTERVAL;
                    Ask { to: from, bytes: 0 }
                })
            }
        }
    }

    fn note_heard(&mut self, at: Instant, from: Pair) {
        let mut known = self.candidates.iter_mut();
        if let Some(known) = known.find(|known| known.pair == from) {
            known.heard = Some(at);
        }
    }

    /// The newest of the peer's datagrams came by the lane: it knows no way straight to us. If
    /// it has been silent otherwise, neither do we.
    pub(super) fn heard_by_lane(&mut self, now: Instant) {
        let silent = |taken: &mut Taken| now - taken.heard >= FOLLOW_AFTER;
        if let Some(lost) = self.taken.take_if(silent) {
            self.note_heard(lost.heard, lost.pair);
            self.lose(now);
        }
    }

    /// The peer answered a question that was sent to it by `pair` a round trip ago, in a
    /// datagram of so many octets. Tells whether the way has changed.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        pair: Pair,
        round_trip: Duration,
        bytes: usize,
    ) -> bool {
        if !pair.is_straight() && !self.relayed.contains(&pair) {
            return false;
        }
        self.add(pair);
        for known in &mut self.candidates {
            if known.pair == pair {
                known.round_trip = Some(round_trip);
            }
        }
        let better = match &mut self.taken {
            Some(taken) if taken.pair == pair => {
                taken.round_trip = round_trip;
                taken.bytes_max = taken.bytes_max.max(bytes);
                if let Some(trial) = &mut taken.trial {
                    trial.longest = trial.longest.max(bytes);
                }
                return false;
            }
            Some(taken) => {
                let silent = now - taken.heard >= FOLLOW_AFTER;
                let nearer = round_trip + Duration::from_millis(1) < taken.round_trip * 4 / 5;
                match (taken.pair.is_straight(), pair.is_straight()) {
                    (false, true) => true,
                    (true, false) => silent && taken.doubted.is_some(),
                    _ => silent || nearer,
                }
            }
            None => true,
        };
        if better {
            if let Some(before) = self.taken {
                self.note_heard(before.heard, before.pair);
            }
            self.taken = Some(Taken {
                pair,
                round_trip,
                heard: now,
                doubted: None,
                told: None,
                asked: now,
                bytes_max: bytes.max(safe(&pair)),
                trial: None,
                tried: now,
            });
            // Find out how long datagrams may be.
            self.next_improve = now;
        }
        better
    }

    /// Says what to ask now, and whether the way was given up; a silent one is used every `keep_alive`.
    pub(super) fn tick(&mut self, now: Instant, keep_alive: Duration) -> (Vec<Ask>, bool) {
        let mut asks = Vec::new();
        let mut given_up = false;
        if let Some(taken) = &mut self.taken {
            let spoke = self.spoke > taken.heard;
            let silent = now.saturating_duration_since(taken.heard);
            let doubtful = silent >= keep_alive || (spoke && silent >= DOUBT_AFTER);
            if doubtful || taken.doubted.is_some() {
                let doubt = now - *taken.doubted.get_or_insert(now);
                let give_up_after = match taken.pair.is_straight() {
                    true => GIVE_UP_AFTER,
                    false => GIVE_UP_RELAY_AFTER,
                };
                if doubt >= give_up_after {
                    given_up = true;
                } else if now - taken.asked >= DOUBT_INTERVAL {
                    taken.asked = now;
                    // Not answered once: the peer may be at another of its addresses.
                    let everywhere = doubt >= DOUBT_INTERVAL;
                    let known = self.candidates.iter().map(|known| known.pair);
                    let known = known.chain(self.relayed.iter().copied());
                    let asked = known.filter(|to| everywhere || *to == taken.pair);
                    asks.extend(asked.map(|to| Ask { to, bytes: 0 }));
                }
            }
        }
        if let Some(lost) = self.taken.take_if(|_| given_up) {
            self.note_heard(lost.heard, lost.pair);
            self.lose(now);
        }
        if let Some(taken) = &mut self.taken {
            asks.extend(taken.try_lengths(now));
            asks.extend(taken.confirm_length(now, self.spoke_long));
        }
        match &mut self.taken {
            Some(taken) if now >= self.next_improve => {
                self.next_improve = now + IMPROVE;
                let lengths = lengths(&taken.pair);
                asks.extend(taken.begin_trial(now, TRIAL, &lengths, (0, 0)));
                let others = self.candidates.iter().map(|known| known.pair);
                let others = others.chain(self.relayed.iter().copied());
                let others = others.filter(|pair| *pair != taken.pair);
                asks.extend(others.map(|to| Ask { to, bytes: 0 }));
            }
            taken if now >= self.next_search && taken.is_none_or(|t| !t.pair.is_straight()) => {
                self.next_search = now + self.search_pause;
                self.search_pause = (self.search_pause * 3 / 2).min(SEARCH_LAST);
                let known = self.candidates.iter().map(|known| known.pair);
                let relayed = self.relayed.iter().filter(|_| taken.is_none()).copied();
                asks.extend(known.chain(relayed).map(|to| Ask { to, bytes: 0 }));
            }
            _ => {}
        }
        (asks, given_up)
    }
}

impl Taken {
    /// Tries datagrams of some lengths, after so many trials that failed and that nothing answered.
    fn begin_trial(
        &mut self,
        now: Instant,
        wait: Duration,
        lengths: &[usize],
        (failures, silences): (u32, u32),
    ) -> Vec<Ask> {
        self.trial = Some(Trial {
            until: now + wait,
            wait,
            failures,
            silences,
            longest: 0,
        });
        self.tried = now;
        let to = self.pair;
        let ask = |bytes: &usize| Ask { to, bytes: *bytes };
        lengths.iter().map(ask).collect()
    }

    /// Makes sure that datagrams as long as were sent still pass.
    fn confirm_length(&mut self, now: Instant, spoke_long: Instant) -> Vec<Ask> {
        let is_due = spoke_long > self.tried && now - self.tried >= CONFIRM;
        if !is_due || self.trial.is_some() || self.bytes_max <= safe(&self.pair) {
            return Vec::new();
        }
        let wait = self.round_trip * TRIAL_ROUND_TRIPS;
        let wait = wait.clamp(TRIAL_MIN, TRIAL);
        self.begin_trial(now, wait, &[self.bytes_max], (0, 0))
    }

    /// Judges a trial whose time is over: what did not pass several times in turn, though it
    /// once did and something shorter does, passes no more.
    fn try_lengths(&mut self, now: Instant) -> Vec<Ask> {
        let Some(trial) = self.trial.take_if(|trial| now >= trial.until) else {
            return Vec::new();
        };
        let safe = safe(&self.pair);
        if trial.longest.max(safe) >= self.bytes_max {
            return Vec::new();
        }
        let (mut failures, mut silences) = (trial.failures, trial.silences);
        match trial.longest {
            0 => silences += 1,
            _ => failures += 1,
        }
        if failures >= TRIAL_ROUNDS {
            self.bytes_max = trial.longest.max(safe);
            return Vec::new();
        }
        match silences > TRIAL_SILENCES {
            true => Vec::new(),
            false => {
                let lengths = lengths(&self.pair);
                self.begin_trial(now, trial.wait, &lengths, (failures, silences))
            }
        }
    }
}

/// Tells whether one host may be at an address: what peers say may be anything.
fn is_possible(address: &SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let broadcast = matches!(ip, std::net::IpAddr::V4(four) if four.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

#[cfg(test)]
mod tests;
