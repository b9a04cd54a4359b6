//! Classes of nodes: clients, peers, supernodes; measured, and regulated without a vote.
//!
//! A node measures itself ([`Measure`]): whether strangers can open sessions to it, how long
//! it stays, how fast it sends, how much it can compute. From that comes a score, and score
//! and class are one octet ([`Grade`]) that travels with every mention of the node:
//!
//! ```text
//!   bit 7     bits 0-6
//! +-------+------------------------------------------------------------+
//! | super | 0: a client; 1-64: not reachable; 65-127: reachable        |
//! +-------+------------------------------------------------------------+
//! ```
//!
//! **Supernodes** are the best of all, about one of a hundred. Nobody counts them and nobody
//! appoints them: a node knows the grades of some hundred others, its peers' near neighbours,
//! who are a fair sample of the ring because places on it are hashes of keys. Of *m* nodes
//! drawn evenly, fewer than *m*/100 are better than itself just when it belongs to the best
//! hundredth, as near as *m* can tell: then it is a supernode. The rule looks at scores only,
//! never at who is a supernode now, so it does not depend on what others do about it, comes
//! to the same from any start, and cannot swing. What is left is the noise of the sample:
//! [`Regulator`] asks for some agreement before it changes anything.
//!
//! **Clients** are too weak for the ring: they attach to peers (`overlay/client.rs`).
//!
//! A false grade is a claim like any other. Who claims too much is asked for more links and
//! more clients, and keeps better nodes from being supernodes; no lookup is sent to a node
//! for its class, and a client keeps two hosts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ring::Position;

/// What a node is to the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// Attached to peers; not on the ring, nobody's neighbour, stores nothing.
    Client,
    /// On the ring.
    Peer,
    /// On the ring, with more links and more clients.
    Super,
}

impl Class {
    /// Returns its name: `client`, `peer` or `super`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Peer => "peer",
            Self::Super => "super",
        }
    }
}

/// What the operator allows. Nobody can make a node more than it measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// Whatever the measurements say.
    #[default]
    Auto,
    /// On the ring, but never a supernode.
    Peer,
    /// A client in any case.
    Client,
}

/// What a node measured of itself. All zero, and reachability unknown, before anything was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// Whether strangers open sessions to it; none while nobody knows.
    pub reachable: Option<bool>,
    /// How long it usually stays, in seconds.
    pub stay_s: u32,
    /// What it has been seen to send, in octets per second.
    pub send_bytes_per_second: u64,
    /// How many signatures it checks in a second.
    pub checks_per_second: u32,
    /// Whether it runs on a battery.
    pub on_battery: bool,
}

/// Below this a node that nobody can reach is too short-lived for the ring: joining costs
/// its neighbours more than it gives.
const STAY_MIN: Duration = Duration::from_secs(600);

impl Measure {
    /// Tells whether a node that has been up for `age` is too weak for the ring.
    pub fn is_weak(&self, age: Duration) -> bool {
        let stay = self.stay(age);
        let brief = self.stay_s > 0 && stay < STAY_MIN;
        self.reachable == Some(false) && (brief || self.on_battery)
    }

    /// Returns how good a node is that has been up for `age`, 1 to 127.
    ///
    /// The time that it stays counts half: it decides how often others have to look for
    /// another (P. Maymounkov, D. Mazières, "Kademlia", 2002, section 2.1: who has been up
    /// for long stays for long). Rate and work count a quarter each. All by their
    /// logarithms: twice as much is a step, wherever one begins.
    pub fn score(&self, age: Duration) -> u8 {
        // Two steps for each doubling, from a minute to 22 days.
        let stay = steps(self.stay(age).as_secs() / 60, 0).min(15) * 2;
        // From 16 KiB/s to 256 MiB/s, and from 250 to 4 million checks per second.
        let rate = steps(self.send_bytes_per_second, 14).min(15);
        let work = steps(u64::from(self.checks_per_second) * 4, 10).min(15);
        let score = 1 + stay + rate + work;
        match self.reachable {
            // A supernode that nobody can dial is none.
            Some(true) => REACHABLE + score.min(SCORE_MAX - REACHABLE),
            Some(false) | None => score.min(REACHABLE),
        }
    }

    fn stay(&self, age: Duration) -> Duration {
        age.max(Duration::from_secs(self.stay_s.into()))
    }
}

/// The greatest score of a node that strangers cannot reach.
const REACHABLE: u8 = 64;
/// The greatest score.
const SCORE_MAX: u8 = 127;

/// Returns the doublings from 2^`from` to the number, counting that one; 0 below.
fn steps(number: u64, from: u32) -> u8 {
    let log = number.checked_ilog2().map_or(0, |log| log + 1);
    log.saturating_sub(from).min(64) as u8
}

/// Class and score as they are told to others, in one octet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Grade(u8);

impl Default for Grade {
    /// A peer of which nothing is known.
    fn default() -> Self {
        Self(1)
    }
}

impl Grade {
    const SUPER: u8 = 128;

    /// A client's.
    pub const CLIENT: Self = Self(0);

    /// Makes the grade of a node on the ring; the score is brought into 1 to 127.
    pub fn new(class: Class, score: u8) -> Self {
        let score = score.clamp(1, SCORE_MAX);
        match class {
            Class::Client => Self::CLIENT,
            Class::Peer => Self(score),
            Class::Super => Self(Self::SUPER | score),
        }
    }

    /// Returns the class.
    pub const fn class(self) -> Class {
        match self.0 {
            0 => Class::Client,
            1..=127 => Class::Peer,
            128.. => Class::Super,
        }
    }

    /// Returns the score; 0 for clients.
    pub const fn score(self) -> u8 {
        self.0 & SCORE_MAX
    }

    /// Tells whether it is a client's.
    pub const fn is_client(self) -> bool {
        matches!(self.class(), Class::Client)
    }

    /// Tells whether it is that of a node which strangers can reach.
    pub const fn is_reachable(self) -> bool {
        is_reachable(self.score())
    }
}

impl std::fmt::Debug for Grade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.class().name(), self.score())
    }
}

/// By how much a score has to change before others are told: it travels with views.
const SCORE_STEP: u8 = 6;

/// Tells whether a score is worth telling after another was told.
pub(crate) fn is_news(told: u8, score: u8) -> bool {
    let crossed = (told > REACHABLE) != (score > REACHABLE);
    crossed || told.abs_diff(score) >= SCORE_STEP
}

/// One of so many nodes is to be a supernode.
const SHARE: u64 = 100;
/// But so many at least, should there be twice as many nodes.
const SUPERS_MIN: u64 = 3;
/// In how many looks running the others must say the same before the class changes.
const LOOKS: u8 = 3;

/// Where a node stands among those that it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How many nodes it knows the scores of, itself included.
    pub known: u64,
    /// How many of them are better.
    pub better: u64,
    /// How many nodes the overlay has.
    pub size: u64,
}

/// Who is better: by the score, and where that is equal, by the place on the ring, which
/// nobody can choose.
pub(crate) type Merit = (u8, Position);

impl Standing {
    /// Compares a node with others, which must be drawn without regard to their grades.
    pub fn among(mine: Merit, others: impl Iterator<Item = Merit>, size: u64) -> Self {
        let (mut known, mut better) = (1, 0);
        for other in others {
            known += 1;
            better += u64::from(other > mine);
        }
        Self {
            known,
            better,
            size: size.max(known),
        }
    }

    /// Tells whether the node belongs to the best of `share`/2 of a supernode's due.
    fn is_within(&self, halves: u64) -> bool {
        let aim = (self.size / SHARE)
            .max(SUPERS_MIN)
            .min(self.size.div_ceil(2));
        // better / known < aim / size, times halves / 2.
        u128::from(self.better) * u128::from(self.size) * 2
            < u128::from(self.known) * u128::from(aim) * u128::from(halves)
    }
}

/// Decides whether a node is a supernode.
#[derive(Clone, Copy, Debug, Default)]
pub struct Regulator {
    is_super: bool,
    /// How many looks running spoke for the other class.
    against: u8,
}

impl Regulator {
    /// Tells whether the node is a supernode.
    pub const fn is_super(&self) -> bool {
        self.is_super
    }

    /// Takes in one look at the others; tells whether the class changed. A node is promoted
    /// among the best hundredth, and demoted when it is no longer among the best of one and
    /// a half hundredths, by [`LOOKS`](self) looks running each time.
    pub fn look(&mut self, reachable: bool, standing: Standing) -> bool {
        let fit = reachable && standing.is_within(if self.is_super { 3 } else { 2 });
        if fit == self.is_super {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let change = self.against >= LOOKS;
        if change {
            (self.is_super, self.against) = (fit, 0);
        }
        change
    }

    /// Ends being a supernode, because the node is no longer on the ring.
    pub fn resign(&mut self) {
        *self = Self::default();
    }
}

/// Tells whether a score is that of a node which strangers can reach.
pub(crate) const fn is_reachable(score: u8) -> bool {
    score > REACHABLE
}

/// The most clients of a peer, and of a supernode.
const CLIENTS_OF_PEER_MAX: usize = 16;
const CLIENTS_OF_SUPER_MAX: usize = 128;
/// How many times as many links as a peer a supernode draws and takes.
const SUPER_LINKS: u32 = 2;

impl Class {
    /// Returns how many clients a node of the class takes at most.
    pub(crate) const fn clients_max(self) -> usize {
        match self {
            Self::Client => 0,
            Self::Peer => CLIENTS_OF_PEER_MAX,
            Self::Super => CLIENTS_OF_SUPER_MAX,
        }
    }

    /// Returns how many times as many links as usual a node of the class has.
    pub(crate) const fn links_factor(self) -> u32 {
        match self {
            Self::Client | Self::Peer => 1,
            Self::Super => SUPER_LINKS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn measure(reachable: Option<bool>, stay_s: u32, rate: u64) -> Measure {
        Measure {
            reachable,
            stay_s,
            send_bytes_per_second: rate,
            checks_per_second: 10_000,
            on_battery: false,
        }
    }

    #[test]
    fn grades_are_one_octet_and_keep_class_and_score() {
        for (class, score) in [(Class::Peer, 1), (Class::Peer, 127), (Class::Super, 90)] {
            let grade = Grade::new(class, score);
            assert_eq!((grade.class(), grade.score()), (class, score));
            assert_eq!(postcard::to_stdvec(&grade).unwrap().len(), 1);
        }
        assert!(Grade::new(Class::Client, 99).is_client());
        assert_eq!(Grade::new(Class::Super, 200).score(), 127);
    }

    #[test]
    fn whoever_is_reachable_stays_longer_or_sends_faster_is_better() {
        let score = |measure: Measure| measure.score(Duration::ZERO);
        let (day, mbyte) = (86_400, 1 << 20);
        let best_hidden = score(measure(Some(false), u32::MAX, u64::MAX));
        let worst_open = score(measure(Some(true), 0, 0));
        assert!(best_hidden < worst_open && is_reachable(worst_open));
        assert!(!is_reachable(best_hidden));
        let usual = score(measure(Some(true), day, mbyte));
        assert!(usual < score(measure(Some(true), 8 * day, mbyte)));
        assert!(usual < score(measure(Some(true), day, 8 * mbyte)));
        let up_for_long = measure(Some(true), 60, mbyte).score(Duration::from_secs(86_400));
        assert_eq!(usual, up_for_long);
        assert!(score(measure(Some(true), u32::MAX, u64::MAX)) <= SCORE_MAX);
    }

    #[test]
    fn only_the_brief_and_hidden_are_weak() {
        let new = Duration::from_secs(5);
        assert!(measure(Some(false), 120, 0).is_weak(new));
        assert!(!measure(Some(false), 120, 0).is_weak(STAY_MIN));
        assert!(!measure(Some(true), 120, 0).is_weak(new));
        assert!(!measure(None, 120, 0).is_weak(new));
        // Of a node that starts for the first time nothing is known yet.
        assert!(!measure(Some(false), 0, 0).is_weak(new));
    }

    /// Many nodes with few different scores, each of which sees some drawn others.
    fn share_after(looks: u32, start: bool, sample: u64) -> (usize, usize) {
        const NODES: u64 = 5_000;
        let mut rng = Rng::from_seed([5; 32]);
        let merits: Vec<Merit> = (0..NODES)
            .map(|_| {
                let score = 60 + rng.below(20) as u8;
                (score, Position::from_number(rng.number()))
            })
            .collect();
        let regulator = Regulator {
            is_super: start,
            against: 0,
        };
        let mut regulators = vec![regulator; NODES as usize];
        let mut changes = 0;
        for look in 0..looks {
            for (regulator, mine) in regulators.iter_mut().zip(&merits) {
                let others = (0..sample).map(|_| merits[rng.below(NODES) as usize]);
                let standing = Standing::among(*mine, others, NODES);
                let changed = regulator.look(is_reachable(mine.0), standing);
                changes += usize::from(changed && look > looks / 2);
            }
        }
        let supers = regulators.iter().filter(|r| r.is_super()).count();
        (supers, changes)
    }

    #[test]
    fn one_of_a_hundred_from_any_start_and_then_hardly_a_change() {
        for start in [false, true] {
            let (supers, changes) = share_after(40, start, 260);
            assert!((30..=90).contains(&supers), "{supers} from {start}");
            assert!(changes < 60, "{changes} changes from {start}");
        }
    }

    #[test]
    fn small_overlays_have_a_few() {
        let everybody = |nodes: u64| {
            let merit = |i: u64| (100, Position::from_number(i));
            let mut supers = 0;
            for me in 0..nodes {
                let others = (0..nodes).filter(|other| *other != me).map(merit);
                let mut regulator = Regulator::default();
                let standing = Standing::among(merit(me), others, nodes);
                for _ in 0..LOOKS {
                    regulator.look(true, standing);
                }
                supers += u64::from(regulator.is_super());
            }
            supers
        };
        assert_eq!([2, 4, 10, 99, 300].map(everybody), [1, 2, 3, 3, 3]);
    }
}
