//! Relaying packets for others: which datagrams go where.
//!
//! A relay forwards between the two ends of a pair, from the address at which one is bound to the
//! address at which the other one is, and nothing else. Unknown tokens, and data from anywhere else, come
//! to nothing; what goes beyond the budget is dropped, as on a full link.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::driver::Driver;
use super::sockets::Pair;
use super::{Outside, RelayTerms, Relayed};
use crate::ecn::NOT_CAPABLE;
use crate::relay::{BIND_BYTES, Bind, Kind, Mac, RelayKey, Token};

/// After so long without data and binds a pair is forgotten.
const IDLE: Duration = Duration::from_secs(60);
/// For how long what was not used of a budget is saved; and the least that may pass at once, which is
/// what is received at once.
const SAVED: Duration = Duration::from_millis(250);
const SAVED_MIN_BYTES: u64 = 1 << 17;
/// What a datagram costs besides its own octets: the headers below it.
const OVERHEAD_BYTES: u64 = 48;
/// The longest datagram that is relayed: a jumbo frame's. Longer ones came in fragments.
const DATAGRAM_BYTES_MAX: usize = 9_216;

/// For how long an end is where it has shown to be: three times as long as ends wait before they bind
/// again. Who has left is sent nothing more, for somebody else may be there.
const BOUND_FOR: Duration = Duration::from_secs(45);
/// How often cookies change; the last one is good as well.
const COOKIE_EPOCH: Duration = Duration::from_secs(60);

/// The pairs for which this node relays.
pub(super) struct Relaying {
    /// Tokens are drawn by this host, so nobody can choose them to collide.
    pairs: FxHashMap<Token, Ends>,
    /// Those that were forgotten since nobody used them.
    unused: Vec<Token>,
    terms: RelayTerms,
    all: Tank,
    cookies: RandomState,
    began: Instant,
    counters: Relayed,
}

struct Ends {
    ends: [End; 2],
    tank: Tank,
    until: Instant,
    used: Instant,
}

struct End {
    key: Mac,
    /// That of the last bind; the first is above 0.
    counter: u64,
    /// Where it is, and since when it has shown that.
    bound: Option<(SocketAddr, Instant)>,
}

impl End {
    /// Returns where it is, if it has shown that lately.
    fn at(&self, now: Instant) -> Option<SocketAddr> {
        let fresh = |(_, since): &(_, Instant)| now.saturating_duration_since(*since) < BOUND_FOR;
        self.bound.filter(fresh).map(|(at, _)| at)
    }
}

struct Tank {
    bytes: u64,
    filled: Instant,
}

impl Relaying {
    pub(super) fn new(now: Instant) -> Self {
        let terms = RelayTerms::default();
        Self {
            pairs: FxHashMap::default(),
            unused: Vec::new(),
            all: Tank::full(now, terms.bytes_per_s_all),
            terms,
            cookies: RandomState::new(),
            began: now,
            counters: Relayed::default(),
        }
    }

    pub(super) fn set_terms(&mut self, now: Instant, terms: RelayTerms) {
        self.all = Tank::full(now, terms.bytes_per_s_all);
        self.terms = terms;
    }

    /// Relays for a pair, or longer than so far; no longer if it lasts for no time.
    pub(super) fn grant(
        &mut self,
        now: Instant,
        token: Token,
        keys: &[RelayKey; 2],
        lasts: Duration,
    ) {
        if lasts.is_zero() {
            self.pairs.remove(&token);
            return;
        }
        let until = now + lasts;
        if let Some(pair) = self.pairs.get_mut(&token) {
            pair.until = until;
            return;
        }
        self.expire(now);
        if self.pairs.len() >= self.terms.pairs_max {
            return;
        }
        let end = |key: &RelayKey| End {
            key: key.mac(),
            counter: 0,
            bound: None,
        };
        let pair = Ends {
            ends: keys.each_ref().map(end),
            tank: Tank::full(now, self.terms.bytes_per_s_each),
            until,
            used: now,
        };
        self.pairs.insert(token, pair);
    }

    /// Forgets pairs whose time is over or that nobody uses.
    pub(super) fn expire(&mut self, now: Instant) {
        self.pairs.retain(|token, pair| {
            let is_unused = now - pair.used >= IDLE;
            if is_unused && now < pair.until {
                self.unused.push(*token);
            }
            now < pair.until && !is_unused
        });
    }

    /// Returns the pairs that were forgotten since this was asked last, although their time is not over.
    pub(super) fn unused(&mut self) -> Vec<Token> {
        std::mem::take(&mut self.unused)
    }

    /// Returns where datagrams of a pair go that came from an address, so many with so many octets in
    /// all, if they may.
    pub(super) fn route(
        &mut self,
        now: Instant,
        (token, from): (Token, SocketAddr),
        (datagrams, bytes): (usize, usize),
    ) -> Option<SocketAddr> {
        let pair = self.pairs.get_mut(&token).filter(|pair| now < pair.until)?;
        let to = match pair.ends.each_ref().map(|end| end.at(now)) {
            [Some(one), Some(other)] if one == from => other,
            [Some(one), Some(other)] if other == from => one,
            _ => return None,
        };
        let (datagrams, bytes) = (datagrams as u64, bytes as u64);
        let cost = bytes + datagrams * OVERHEAD_BYTES;
        let enough = self.all.has(now, self.terms.bytes_per_s_all, cost)
            && pair.tank.has(now, self.terms.bytes_per_s_each, cost);
        if !enough {
            self.counters.dropped_packets += datagrams;
            return None;
        }
        self.all.bytes -= cost;
        pair.tank.bytes -= cost;
        pair.used = now;
        self.counters.packets += datagrams;
        self.counters.bytes += bytes;
        Some(to)
    }

    /// Takes a bind from an address; returns the answer, which is as long.
    pub(super) fn bind(
        &mut self,
        now: Instant,
        (token, from): (Token, SocketAddr),
        datagram: &[u8],
    ) -> Option<[u8; BIND_BYTES]> {
        let pair = self.pairs.get_mut(&token).filter(|pair| now < pair.until)?;
        let binds = |end: &End| Bind::verify(datagram, &end.key);
        let (place, bind) = match pair.ends.each_ref().map(binds) {
            [Some(bind), _] => (0, bind),
            [None, Some(bind)] => (1, bind),
            [None, None] => return None,
        };
        let epoch = now.saturating_duration_since(self.began).as_secs() / COOKIE_EPOCH.as_secs();
        let cookie_of = |epoch: u64| self.cookies.hash_one((token, place, from, epoch));
        let cookie = cookie_of(epoch);
        let is_known = [cookie, cookie_of(epoch.saturating_sub(1))].contains(&bind.cookie);
        let other = pair.ends[1 - place].at(now);
        let end = &mut pair.ends[place];
        // Repeated by somebody; or both ends in one place, between which nothing is to be relayed.
        if bind.counter <= end.counter || other == Some(from) {
            return None;
        }
        end.counter = bind.counter;
        pair.used = now;
        let kind = match is_known {
            true => {
                end.bound = Some((from, now));
                Kind::Bound
            }
            false => Kind::Prove,
        };
        Some(Bind { cookie, ..bind }.sign(kind, &end.key))
    }

    /// Tells what passed, and for how many pairs.
    pub(super) fn report(&self) -> Relayed {
        Relayed {
            pairs: self.pairs.len(),
            ..self.counters
        }
    }
}

impl Tank {
    fn full(now: Instant, rate: u64) -> Self {
        Self {
            bytes: Self::size(rate),
            filled: now,
        }
    }

    fn size(rate: u64) -> u64 {
        (rate / 1_000 * SAVED.as_millis() as u64).max(SAVED_MIN_BYTES)
    }

    /// Tells whether there are so many octets now.
    fn has(&mut self, now: Instant, rate: u64, bytes: u64) -> bool {
        let passed = now.saturating_duration_since(self.filled).min(SAVED);
        let gained = rate.saturating_mul(passed.as_micros() as u64) / 1_000_000;
        // What is less than an octet is gained with the next one.
        if gained > 0 {
            self.bytes = (self.bytes + gained).min(Self::size(rate));
            self.filled = now;
        }
        self.bytes >= bytes
    }
}

impl<O: Outside> Driver<O> {
    /// Passes datagrams of a pair on, all of which have `stride` octets but the last, which may be
    /// shorter.
    pub(super) fn pass_on(
        &mut self,
        (token, from): (Token, Pair),
        (ecn, stride): (u8, usize),
        datagrams: &[u8],
    ) {
        let count = datagrams.len().div_ceil(stride);
        if stride > DATAGRAM_BYTES_MAX {
            self.refused += count as u64;
            return;
        }
        let (of, size) = ((token, from.address), (count, datagrams.len()));
        match self.relaying.route(self.now, of, size) {
            Some(to) => {
                let to = (to.into(), ecn);
                let exit = &mut self.exit;
                exit.batch.pass_on(&exit.sockets, to, datagrams, stride);
            }
            None => self.refused += count as u64,
        }
    }

    /// Answers a bind.
    pub(super) fn answer_bind(&mut self, token: Token, from: Pair, datagram: &[u8]) {
        match self
            .relaying
            .bind(self.now, (token, from.address), datagram)
        {
            Some(answer) => {
                if let Some(socket) = self.exit.sockets.get(from.via) {
                    // What the system does not take is lost: the end binds again.
                    let _ = socket.send((from.address, NOT_CAPABLE), &answer, answer.len());
                }
            }
            None => self.refused += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = Token(77);
    const LASTS: Duration = Duration::from_secs(120);

    fn at(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    fn keys() -> [RelayKey; 2] {
        [1, 2].map(|octet| RelayKey::new([octet; 32]))
    }

    fn relaying(now: Instant) -> Relaying {
        let mut relaying = Relaying::new(now);
        relaying.set_terms(
            now,
            RelayTerms {
                pairs_max: 2,
                bytes_per_s_each: 1_000_000,
                bytes_per_s_all: 1_500_000,
            },
        );
        relaying.grant(now, TOKEN, &keys(), LASTS);
        relaying
    }

    /// Binds an end from an address as it does: proves it can hear there.
    fn bind(relaying: &mut Relaying, now: Instant, place: usize, from: SocketAddr, counter: u64) {
        let key = &keys()[place];
        let mut bind = Bind {
            token: TOKEN,
            counter,
            cookie: 0,
        };
        for kind in [Kind::Prove, Kind::Bound] {
            let octets = bind.encode(Kind::Bind, key);
            let answer = relaying.bind(now, (TOKEN, from), &octets).unwrap();
            assert_eq!(crate::relay::decode(&answer), Some((kind, TOKEN)));
            assert_eq!(answer.len(), octets.len());
            bind = Bind::decode(&answer, key).unwrap();
            bind.counter += 1;
            let again = relaying.bind(now, (TOKEN, from), &octets);
            assert_eq!(again, None, "a bind counts once");
        }
    }

    #[test]
    fn it_forwards_between_two_that_proved_themselves_and_follows_them() {
        let now = Instant::now();
        let mut relaying = relaying(now);
        let route =
            |relaying: &mut Relaying, token, from| relaying.route(now, (token, from), (1, 1_000));
        assert_eq!(route(&mut relaying, TOKEN, at(1)), None);
        bind(&mut relaying, now, 0, at(1), 1);
        assert_eq!(route(&mut relaying, TOKEN, at(1)), None, "one end alone");
        bind(&mut relaying, now, 1, at(2), 1);
        assert_eq!(route(&mut relaying, TOKEN, at(1)), Some(at(2)));
        assert_eq!(route(&mut relaying, TOKEN, at(2)), Some(at(1)));
        assert_eq!(route(&mut relaying, TOKEN, at(3)), None, "a stranger");
        assert_eq!(route(&mut relaying, Token(78), at(1)), None, "a guess");
        bind(&mut relaying, now, 0, at(3), 10);
        assert_eq!(route(&mut relaying, TOKEN, at(2)), Some(at(3)));
        assert_eq!(route(&mut relaying, TOKEN, at(1)), None, "it left");
        assert_eq!(relaying.report().packets, 3);
        // Who has not shown for a while where it is may have left that place to somebody else.
        let later = now + BOUND_FOR;
        bind(&mut relaying, later, 1, at(2), 20);
        assert_eq!(relaying.route(later, (TOKEN, at(2)), (1, 9)), None);
        bind(&mut relaying, later, 0, at(3), 20);
        assert_eq!(relaying.route(later, (TOKEN, at(2)), (1, 9)), Some(at(3)));
    }

    #[test]
    fn a_cookie_serves_for_two_minutes_at_most() {
        let now = Instant::now();
        let mut relaying = relaying(now);
        relaying.grant(now, TOKEN, &keys(), 2 * LASTS);
        let key = &keys()[0];
        let mut ask = |at_s, counter, cookie| {
            let (now, from) = (now + Duration::from_secs(at_s), at(1));
            let bind = Bind {
                token: TOKEN,
                counter,
                cookie,
            };
            let answer = relaying.bind(now, (TOKEN, from), &bind.encode(Kind::Bind, key));
            let answer = answer.unwrap();
            let kind = crate::relay::decode(&answer).unwrap().0;
            (kind, Bind::decode(&answer, key).unwrap().cookie)
        };
        let (_, cookie) = ask(0, 1, 0);
        assert_eq!(ask(59, 2, cookie).0, Kind::Bound);
        assert_eq!(ask(119, 3, cookie).0, Kind::Bound);
        assert_eq!(ask(120, 4, cookie).0, Kind::Prove);
    }

    #[test]
    fn what_is_ended_leaves_its_place_at_once() {
        let now = Instant::now();
        let mut relaying = relaying(now);
        relaying.grant(now, Token(1), &keys(), LASTS);
        relaying.grant(now, TOKEN, &keys(), Duration::ZERO);
        relaying.grant(now, Token(2), &keys(), LASTS);
        assert!(relaying.pairs.contains_key(&Token(2)) && relaying.report().pairs == 2);
        relaying.grant(now, Token(3), &keys(), Duration::ZERO);
        assert_eq!(relaying.report().pairs, 2);
    }

    #[test]
    fn an_end_has_nothing_sent_to_where_it_does_not_hear() {
        let now = Instant::now();
        let mut relaying = relaying(now);
        bind(&mut relaying, now, 0, at(1), 1);
        bind(&mut relaying, now, 1, at(2), 1);
        // The cookie of one address is none for another, and a foreign key none at all.
        let key = &keys()[0];
        let ask = |relaying: &mut Relaying, from, counter, cookie, key: &RelayKey| {
            let bind = Bind {
                token: TOKEN,
                counter,
                cookie,
            };
            relaying.bind(now, (TOKEN, from), &bind.encode(Kind::Bind, key))
        };
        let own = ask(&mut relaying, at(1), 5, 0, key).unwrap();
        let cookie = Bind::decode(&own, key).unwrap().cookie;
        let victim = ask(&mut relaying, at(9), 6, cookie, key).unwrap();
        assert_eq!(crate::relay::decode(&victim), Some((Kind::Prove, TOKEN)));
        assert_eq!(relaying.route(now, (TOKEN, at(2)), (1, 9)), Some(at(1)));
        assert_eq!(
            ask(&mut relaying, at(1), 7, 0, &RelayKey::new([9; 32])),
            None
        );
        assert_eq!(
            ask(&mut relaying, at(2), 8, 0, key),
            None,
            "the other end's"
        );
    }

    #[test]
    fn what_passes_and_for_how_many_is_bounded() {
        let mut now = Instant::now();
        let mut relaying = relaying(now);
        bind(&mut relaying, now, 0, at(1), 1);
        bind(&mut relaying, now, 1, at(2), 1);
        let mut passed = 0;
        for _ in 0..1_000 {
            now += Duration::from_millis(1);
            let sends = (0..10).filter(|_| {
                let to = relaying.route(now, (TOKEN, at(1)), (1, 1_000));
                to.is_some()
            });
            passed += sends.count() as u64 * 1_000;
        }
        let most = 1_000_000 + Tank::size(1_000_000);
        assert!((900_000..=most).contains(&passed), "{passed}");
        let report = relaying.report();
        assert_eq!(report.bytes, passed);
        assert_eq!(report.dropped_packets, 10_000 - passed / 1_000);
        for token in 0..10 {
            relaying.grant(now, Token(token), &keys(), LASTS);
        }
        assert_eq!(relaying.report().pairs, 2);
        // What nobody uses is forgotten and told, and what is not prolonged ends.
        relaying.expire(now + IDLE);
        assert_eq!(relaying.report().pairs, 0);
        assert_eq!(relaying.unused().len(), 2);
        relaying.grant(now, TOKEN, &keys(), LASTS);
        bind(&mut relaying, now, 0, at(1), 1);
        bind(&mut relaying, now, 1, at(2), 1);
        let later = now + LASTS;
        assert_eq!(relaying.route(later, (TOKEN, at(1)), (1, 9)), None);
    }
}
