//! One iterative lookup: whom it knows, whom to ask next, when it is done.
//!
//! The paper's section 2.3: keep the closest nodes known, ask `parallel` of them at one
//! time, take in what they name, and stop when the closest `width` have all answered. A
//! request that waits for longer than usual no longer counts among the parallel ones, so
//! that a dead node does not hold the lookup up (as in libtorrent's short timeout); its
//! answer still counts when it comes.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::{Contact, NodeId, Position, Time};

use super::table::distance;

/// The most nodes that a lookup keeps in mind; beyond it the farthest are forgotten.
pub const CANDIDATES_MAX: usize = 128;

/// Bits of progress that are worth one usual round trip: an answer of k = 20 nodes brings
/// the next hop about log2 20 bits closer.
const BITS_PER_TRIP: u32 = 4;

/// Why a lookup is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The host asked, and gave it this number.
    Host(u64),
    /// To find the own surroundings at the start.
    Join,
    /// To fill this bucket.
    Refresh(usize),
}

/// What is to be looked up how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Why.
    pub purpose: Purpose,
    /// Close to what.
    pub target: Position,
    /// Requests under way at one time.
    pub parallel: usize,
    /// How many of the closest must have answered.
    pub width: usize,
    /// After how many requests to stop; none for never.
    pub requests_max: Option<u32>,
    /// Among how many of the closest known the next to be asked is chosen.
    pub reach: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh,
    Asked,
    Late,
    Answered(Time),
    Failed,
}

#[derive(Clone, Debug)]
struct Candidate {
    contact: Contact,
    position: Position,
    state: State,
    hops: u8,
    /// The shortest round trip, where known.
    trip: Option<Duration>,
}

/// A node that a lookup found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Who.
    pub contact: Contact,
    /// The length of the chain of nodes that led to it, itself included; 0 for the asker.
    pub hops: u8,
    /// When it answered.
    pub answered_at: Time,
}

/// A lookup under way.
#[derive(Clone, Debug)]
pub struct Lookup {
    plan: Plan,
    /// This node; it counts as having answered at the start.
    me: (u64, Contact),
    started_at: Time,
    candidates: BTreeMap<(u64, NodeId), Candidate>,
    requests: u32,
    bytes: u64,
}

impl Lookup {
    /// Starts a lookup from `me`.
    pub fn new(now: Time, plan: Plan, me: Contact, my_position: Position) -> Self {
        let mine = distance(my_position, plan.target);
        Self {
            plan,
            me: (mine, me),
            started_at: now,
            candidates: BTreeMap::new(),
            requests: 0,
            bytes: 0,
        }
    }

    /// Returns what it is for.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns when it began.
    pub fn started_at(&self) -> Time {
        self.started_at
    }

    /// Returns the number of requests sent, second tries not counted.
    pub fn requests(&self) -> u32 {
        self.requests
    }

    /// Returns the octets of its requests and of their answers.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds octets.
    pub fn spent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Takes in a node, named by one that is `hops` away (0 for this node itself).
    pub fn learn(&mut self, contact: &Contact, at: Position, hops: u8, trip: Option<Duration>) {
        let key = (distance(at, self.plan.target), contact.id());
        if contact.id() == self.me.1.id() {
            return;
        }
        self.candidates.entry(key).or_insert_with(|| Candidate {
            contact: contact.clone(),
            position: at,
            state: State::Fresh,
            hops: hops.saturating_add(1),
            trip,
        });
        if self.candidates.len() > CANDIDATES_MAX {
            self.candidates.pop_last();
        }
    }

    /// Chooses the next node to ask, and counts it as asked; none while enough requests
    /// are under way or nobody is left. `usual` is the usual round trip of strangers.
    pub fn next(&mut self, usual: Duration) -> Option<(Contact, Position)> {
        let spent = self
            .plan
            .requests_max
            .is_some_and(|most| self.requests >= most);
        let asked = |candidate: &&Candidate| candidate.state == State::Asked;
        let under_way = self.candidates.values().filter(asked).count();
        if spent || under_way >= self.plan.parallel {
            return None;
        }
        // The first slot goes for progress, the others where progress is cheap.
        let key = self.choose((under_way > 0).then_some(usual))?;
        let candidate = self.candidates.get_mut(&key)?;
        candidate.state = State::Asked;
        self.requests += 1;
        Some((candidate.contact.clone(), candidate.position))
    }

    fn choose(&self, usual: Option<Duration>) -> Option<(u64, NodeId)> {
        let live = |(_, candidate): &(_, &Candidate)| candidate.state != State::Failed;
        let mut answers = 0;
        let mut fresh = self
            .candidates
            .iter()
            .filter(live)
            .take(self.plan.reach)
            // Behind the `width` closest that answered nobody needs to be asked.
            .take_while(|(_, candidate)| {
                answers += usize::from(matches!(candidate.state, State::Answered(_)));
                answers < self.plan.width
            })
            .filter(|(_, candidate)| candidate.state == State::Fresh);
        let (first, closest) = fresh.next()?;
        let Some(usual) = usual else {
            return Some(*first);
        };
        let bits = first.0.leading_zeros();
        let cost = |key: &(u64, NodeId), candidate: &Candidate| {
            let behind = bits - key.0.leading_zeros();
            candidate.trip.unwrap_or(usual) + usual * behind / BITS_PER_TRIP
        };
        let others = fresh.map(|(key, candidate)| (cost(key, candidate), *key));
        others
            .chain([(cost(first, closest), *first)])
            .min()
            .map(|(_, key)| key)
    }

    /// Notes an answer; returns how many hops away the node is, none if it was not asked.
    pub fn answered(&mut self, now: Time, at: Position, id: NodeId) -> Option<u8> {
        let candidate = self.candidate(at, id)?;
        candidate.state = State::Answered(now);
        Some(candidate.hops)
    }

    /// Notes that a request waits for longer than usual.
    pub fn late(&mut self, at: Position, id: NodeId) {
        if let Some(candidate) = self.candidate(at, id) {
            candidate.state = State::Late;
        }
    }

    /// Notes that a request was not answered.
    pub fn failed(&mut self, at: Position, id: NodeId) {
        if let Some(candidate) = self.candidate(at, id) {
            candidate.state = State::Failed;
        }
    }

    /// Tells whether nothing more is to be found out: the closest `width` have answered,
    /// or nobody is left to ask or to wait for.
    pub fn is_done(&self) -> bool {
        let spent = self
            .plan
            .requests_max
            .is_some_and(|most| self.requests >= most);
        let waiting =
            |candidate: &&Candidate| matches!(candidate.state, State::Asked | State::Late);
        if spent && self.candidates.values().filter(waiting).count() == 0 {
            return true;
        }
        let mut width = self.plan.width;
        for ((far, _), candidate) in &self.candidates {
            // This node stands in the row too, and needs no asking.
            let with_me = usize::from(self.me.0 <= *far);
            if width == with_me {
                return true;
            }
            match candidate.state {
                State::Failed => {}
                State::Answered(_) => width -= 1,
                State::Fresh | State::Asked | State::Late => return false,
            }
            if width == 0 {
                return true;
            }
        }
        true
    }

    /// Returns the closest nodes that answered, this one among them, closest first; at
    /// most `width`.
    pub fn found(&self) -> Vec<Found> {
        let (mine, me) = &self.me;
        let others = self.candidates.iter().filter_map(|(key, candidate)| {
            let State::Answered(answered_at) = candidate.state else {
                return None;
            };
            let found = Found {
                contact: candidate.contact.clone(),
                hops: candidate.hops,
                answered_at,
            };
            Some((*key, found))
        });
        let myself = Found {
            contact: me.clone(),
            hops: 0,
            answered_at: self.started_at,
        };
        let mut row: Vec<_> = others.chain([((*mine, me.id()), myself)]).collect();
        row.sort_unstable_by_key(|(key, _)| *key);
        row.truncate(self.plan.width);
        row.into_iter().map(|(_, found)| found).collect()
    }

    /// Returns the `count` closest nodes that were named but not asked.
    pub fn unasked(&self, count: usize) -> Vec<(Contact, Position)> {
        self.candidates
            .values()
            .take(count)
            .filter(|candidate| candidate.state == State::Fresh)
            .map(|candidate| (candidate.contact.clone(), candidate.position))
            .collect()
    }

    fn candidate(&mut self, at: Position, id: NodeId) -> Option<&mut Candidate> {
        self.candidates
            .get_mut(&(distance(at, self.plan.target), id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::ZERO;
    const USUAL: Duration = Duration::from_millis(80);

    fn contact(number: u64) -> Contact {
        let mut octets = [0; 32];
        octets[..8].copy_from_slice(&number.to_be_bytes());
        Contact::new(NodeId::from_bytes(octets), [])
    }

    fn at(number: u64) -> Position {
        Position::from_number(number)
    }

    fn lookup(parallel: usize, width: usize, me: u64) -> Lookup {
        let plan = Plan {
            purpose: Purpose::Host(1),
            target: at(0),
            parallel,
            width,
            requests_max: None,
            reach: 20,
        };
        Lookup::new(NOW, plan, contact(me), at(me))
    }

    fn asked(lookup: &mut Lookup) -> Vec<u64> {
        std::iter::from_fn(|| lookup.next(USUAL))
            .map(|(_, position)| position.number())
            .collect()
    }

    #[test]
    fn it_ends_when_the_closest_has_answered_and_nobody_closer_is_known() {
        let mut lookup = lookup(2, 1, 1 << 40);
        for number in [64, 512, 4096] {
            lookup.learn(&contact(number), at(number), 0, None);
        }
        assert_eq!(asked(&mut lookup), [64, 512]);
        lookup.learn(&contact(8), at(8), 1, None);
        assert_eq!(lookup.answered(NOW, at(64), contact(64).id()), Some(1));
        assert!(!lookup.is_done(), "8 is closer and not asked");
        assert_eq!(asked(&mut lookup), [8]);
        assert_eq!(lookup.answered(NOW, at(8), contact(8).id()), Some(2));
        assert!(lookup.is_done());
        assert_eq!(lookup.found()[0].contact.id(), contact(8).id());
    }

    #[test]
    fn who_is_late_makes_room_for_another_but_is_waited_for() {
        let mut lookup = lookup(1, 1, 1 << 40);
        lookup.learn(&contact(4), at(4), 0, None);
        lookup.learn(&contact(64), at(64), 0, None);
        assert_eq!(asked(&mut lookup), [4]);
        lookup.late(at(4), contact(4).id());
        assert_eq!(asked(&mut lookup), [64]);
        lookup.answered(NOW, at(64), contact(64).id());
        assert!(!lookup.is_done(), "4 may still answer");
        lookup.failed(at(4), contact(4).id());
        assert!(lookup.is_done());
    }

    #[test]
    fn of_the_same_progress_the_nearest_is_asked() {
        let mut lookup = lookup(3, 1, 1 << 40);
        let trip = |millis| Some(Duration::from_millis(millis));
        for (number, millis) in [(1024, 160), (1025, 90), (1026, 10), (1 << 30, 1)] {
            lookup.learn(&contact(number), at(number), 0, trip(millis));
        }
        assert_eq!(asked(&mut lookup), [1024, 1026, 1025]);
    }

    #[test]
    fn the_asker_is_in_charge_when_it_is_the_closest() {
        let mut lookup = lookup(3, 1, 2);
        lookup.learn(&contact(64), at(64), 0, None);
        assert!(lookup.is_done());
        assert_eq!(lookup.found()[0].hops, 0);
    }

    #[test]
    fn it_keeps_a_bounded_number_in_mind() {
        let mut lookup = lookup(3, 1, 1 << 62);
        for number in 1..10_000 {
            lookup.learn(&contact(number), at(number), 0, None);
        }
        assert_eq!(lookup.candidates.len(), CANDIDATES_MAX);
    }
}
