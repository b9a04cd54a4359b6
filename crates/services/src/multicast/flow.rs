//! What one author says: what of it came, from where, and who need not be sent it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use enishi_overlay::small_map::SmallMap;
use enishi_overlay::{NodeId, Time};

use super::AUTHOR_RATE;
use super::group::Group;
use super::repair::{PATIENCE, RETRY};
use super::store::RETENTION;
use super::window::Window;
use super::wire::Flow;
use crate::bucket::{Bucket, Rate};

/// The most authors of one group; of these, one that was silent long enough gives way.
pub(super) const FLOWS_MAX: usize = 4096;
/// How long an author must have been silent for its numbers to be forgotten: nothing that is
/// on its way, or can be had again, is as old.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// How many numbers before the first one heard are asked for.
const REACH: u64 = 32;
/// The most places from which something missing is asked for in turn.
const SOURCES_MAX: usize = 4;

/// How many messages of an author are passed on by every link before the fastest is chosen:
/// one alone may have been late by chance.
const EXPLORED: usize = 3;
/// What a link that did not bring a message is taken to be late by, in milliseconds; none is
/// taken to be later.
const LATE_MS_MAX: u32 = 1000;

/// Which link is the fastest from an author: how late each was with its first messages.
#[derive(Debug, Default)]
pub(super) struct Exploration {
    /// When each of these messages came first.
    arrivals: Vec<(u64, Time)>,
    /// By how much each link was later, summed up, and for how many messages.
    lags: SmallMap<NodeId, (u32, usize)>,
}

impl Exploration {
    pub(super) fn is_over(&self) -> bool {
        self.arrivals.len() >= EXPLORED
    }

    /// Notes that a message came by a link, first or again; tells whether that counts.
    pub(super) fn note(&mut self, number: u64, from: NodeId, now: Time) -> bool {
        let known = self.arrivals.iter().find(|(other, _)| *other == number);
        let first_at = match known {
            Some((_, at)) => *at,
            None if self.is_over() => return false,
            None => {
                self.arrivals.push((number, now));
                now
            }
        };
        let late_ms = u32::try_from(now.since(first_at).as_millis()).unwrap_or(u32::MAX);
        let lag = self.lags.get_or_insert_with(from, || (0, 0));
        lag.0 += late_ms.min(LATE_MS_MAX);
        lag.1 += 1;
        true
    }

    /// Ends it: returns the link that was the fastest, and the others.
    pub(super) fn conclude(&mut self) -> Option<(NodeId, Vec<NodeId>)> {
        let lags = std::mem::take(&mut self.lags);
        let total =
            |(sum, count): (u32, usize)| sum + LATE_MS_MAX * EXPLORED.saturating_sub(count) as u32;
        let best = lags.iter().min_by_key(|(_, lag)| total(**lag));
        let best = best.map(|(id, _)| *id)?;
        let others = lags.keys().copied().filter(|id| *id != best);
        Some((best, others.collect()))
    }

    /// One that is over from the beginning: for the author itself.
    fn none() -> Self {
        Self {
            arrivals: vec![(0, Time::ZERO); EXPLORED],
            lags: SmallMap::new(),
        }
    }
}

/// What one author says in one of its lives.
#[derive(Debug)]
pub(super) struct FlowState {
    /// Who, and in which life; none as long as nothing was opened.
    pub(super) author: Option<(NodeId, u64)>,
    pub(super) window: Window,
    /// From whom the newest came.
    pub(super) parent: Option<NodeId>,
    /// The links by which nothing of it is sent, by [`Link::bit`](super::group::Link::bit).
    pub(super) pruned: u64,
    pub(super) exploration: Exploration,
    pub(super) heard_at: Time,
    pub(super) bucket: Bucket,
    /// What waits for what comes before it.
    pub(super) held: SmallMap<u64, Bytes>,
    pub(super) gap: Option<Gap>,
}

/// Something is missing.
#[derive(Clone, Debug, Default)]
pub(super) struct Gap {
    /// When numbers were found to be missing, and up to which: each is asked for as long as
    /// any other, however they follow each other. Those of one [`RETRY`] are taken together.
    found: VecDeque<(Time, u64)>,
    pub(super) asked_at: Option<Time>,
    pub(super) tries: usize,
    /// Who may have it.
    pub(super) sources: Vec<NodeId>,
}

impl Gap {
    /// Notes that something is missing up to a number, and who may have it.
    fn note(&mut self, up_to: u64, source: NodeId, now: Time) {
        match self.found.back_mut() {
            Some((_, last)) if *last >= up_to => {}
            Some((at, last)) if now.since(*at) < RETRY => *last = up_to,
            _ => self.found.push_back((now, up_to)),
        }
        if self.sources.len() < SOURCES_MAX && !self.sources.contains(&source) {
            self.sources.push(source);
        }
    }

    /// Takes out up to which number all was asked for long enough.
    fn pop_exhausted(&mut self, now: Time) -> Option<u64> {
        let (at, up_to) = *self.found.front()?;
        if now.since(at) < PATIENCE {
            return None;
        }
        self.found.pop_front();
        Some(up_to)
    }
}

/// What a receiver allows an author: more than authors allow themselves, since what left
/// evenly may arrive at once.
pub(super) const RECEIVED_RATE: Rate = Rate {
    per_s: AUTHOR_RATE.per_s * 2,
    burst: AUTHOR_RATE.burst * 2,
};

impl FlowState {
    /// Makes the one of this node itself.
    pub(super) fn own(author: (NodeId, u64), now: Time) -> Self {
        Self {
            author: Some(author),
            exploration: Exploration::none(),
            ..Self::heard_of(1, now)
        }
    }

    /// Makes one of which nothing has come yet, so that nothing is known for sure.
    pub(super) fn heard_of(first: u64, now: Time) -> Self {
        Self {
            author: None,
            window: Window::starting_at(first),
            parent: None,
            pruned: 0,
            exploration: Exploration::default(),
            heard_at: now,
            bucket: Bucket::full(RECEIVED_RATE, now),
            held: SmallMap::new(),
            gap: None,
        }
    }

    /// Notes that, as others say, all up to a number was said before this node was there. Once
    /// the author itself was heard, only its messages tell.
    pub(super) fn begin_after(&mut self, up_to: u64) {
        if self.author.is_none() {
            self.window.skip(up_to);
        }
    }

    /// Notes that somebody may have what is missing, if something is.
    pub(super) fn note_gap(&mut self, source: NodeId, now: Time) -> bool {
        if self.window.missing().next().is_none() {
            self.gap = None;
            return false;
        }
        let gap = self.gap.get_or_insert_with(Gap::default);
        gap.note(self.window.end(), source, now);
        true
    }

    /// Gives up what was asked for long enough; tells whether something was.
    pub(super) fn give_up(&mut self, now: Time) -> bool {
        let Some(gap) = &mut self.gap else {
            return false;
        };
        let mut given_up = false;
        while let Some(up_to) = gap.pop_exhausted(now) {
            given_up |= self.window.give_up(up_to);
        }
        if gap.found.is_empty() {
            self.window.forget_claims();
        }
        if self.window.missing().next().is_none() {
            self.gap = None;
        }
        given_up
    }

    /// Takes out what has nothing missing before it.
    pub(super) fn release(&mut self) -> Vec<Bytes> {
        let up_to = self.window.up_to();
        let mut released = Vec::new();
        while let Some((number, _)) = self.held.first_key_value()
            && *number <= up_to
        {
            released.extend(self.held.pop_first().map(|(_, payload)| payload));
        }
        released
    }
}

impl Group {
    /// Tells whether something of this age was said before this node was a member, and is not
    /// meant for it. Later than a minute after it joined nothing is: what is older cannot be had
    /// again, and ages are not signed.
    pub(super) fn was_before(&self, age_ms: u32, now: Time) -> bool {
        let member_for = now.since(self.since);
        let is_new = self.member.is_some() && member_for < RETENTION;
        is_new && Duration::from_millis(age_ms.into()) > member_for
    }

    /// Finds the flow of a genuine message, or makes it. None for an earlier life of an author
    /// whose later one was heard, and when there are too many authors.
    pub(super) fn flow_of(
        &mut self,
        flow: Flow,
        number: u64,
        author: Option<(NodeId, u64)>,
        now: Time,
    ) -> Option<&mut FlowState> {
        let mut first = first_wanted(number);
        let fresh = self
            .flows
            .get(&flow)
            .is_none_or(|state| state.author.is_none());
        if fresh && let Some((id, incarnation)) = author {
            let lives = self.flows.values().filter_map(|state| state.author);
            if lives
                .filter(|life| life.0 == id)
                .any(|life| life.1 > incarnation)
            {
                return None;
            }
        }
        if !self.flows.contains_key(&flow) {
            self.make_room(now)?;
            self.flows.insert(flow, FlowState::heard_of(first, now));
        }
        let state = self.flows.get_mut(&flow)?;
        if fresh && author.is_some() {
            // What was claimed of it before proves nothing, but tells where to begin.
            let claimed = state.window.up_to().saturating_add(1);
            if claimed <= number {
                first = first.max(claimed);
            }
            state.author = author;
            state.window = Window::starting_at(first);
        }
        Some(state)
    }

    /// Notes an author of whom only others tell.
    pub(super) fn hear_of(&mut self, flow: Flow, up_to: u64, now: Time) {
        if up_to == 0 || self.flows.contains_key(&flow) || self.make_room(now).is_none() {
            return;
        }
        let first = first_wanted(up_to.saturating_add(1));
        self.flows.insert(flow, FlowState::heard_of(first, now));
    }

    /// Makes room for one more author.
    fn make_room(&mut self, now: Time) -> Option<()> {
        if self.flows.len() < FLOWS_MAX {
            return Some(());
        }
        let own = self.member.as_ref().map(|member| member.flow);
        let others = self.flows.iter().filter(|(flow, _)| Some(**flow) != own);
        let (oldest, state) = others.min_by_key(|(_, state)| state.heard_at)?;
        if now.since(state.heard_at) < FORGOTTEN_AFTER {
            return None;
        }
        let oldest = *oldest;
        self.flows.remove(&oldest);
        Some(())
    }
}

/// Returns the first number that is wanted of an author who is heard with this one first.
fn first_wanted(heard: u64) -> u64 {
    heard.saturating_sub(REACH).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multicast::wire::Tag;
    use enishi_overlay::Keypair;

    #[test]
    fn the_fastest_link_is_the_one_that_is_so_usually() {
        let [fast, slow, lucky] = [1, 2, 3].map(|seed| Keypair::from_seed(&[seed; 32]).id());
        let mut exploration = Exploration::default();
        let at = |ms| Time::ZERO + Duration::from_millis(ms);
        for (number, arrivals) in [
            (1, [(100, fast), (110, slow), (400, lucky)]),
            (2, [(500, lucky), (505, slow), (700, fast)]),
            (3, [(900, fast), (1000, slow), (1300, lucky)]),
        ] {
            assert!(!exploration.is_over());
            for (ms, link) in arrivals {
                assert!(exploration.note(number, link, at(ms)));
            }
        }
        assert!(exploration.is_over() && !exploration.note(4, fast, at(2000)));
        let (best, others) = exploration.conclude().expect("there were some");
        assert_eq!((best, others.len()), (slow, 2), "never first, never late");
        assert!(exploration.conclude().is_none());
    }

    #[test]
    fn what_waits_is_released_up_to_the_first_missing() {
        let mut flow = FlowState::heard_of(1, Time::ZERO);
        for number in [1, 2, 4] {
            flow.window.note(number);
            flow.held.insert(number, vec![number as u8].into());
        }
        assert_eq!(flow.release(), [vec![1], vec![2]]);
        flow.window.give_up(3);
        assert_eq!(flow.release(), [vec![4]]);
    }

    #[test]
    fn what_others_say_of_an_author_never_stands_for_what_it_says_itself() {
        let now = Time::ZERO;
        let flow = Flow([1; 8]);
        for (claimed, first) in [(49, 50), (12, 18), (50, 18), (u64::MAX, 18)] {
            let mut group = Group::of_forwarder(1, Tag([1; 16]), now);
            group.hear_of(flow, claimed, now);
            let state = group.flows.get_mut(&flow).expect("it was heard of");
            state.begin_after(claimed);
            assert!(state.window.missing().next().is_none());
            let author = Keypair::from_seed(&[1; 32]).id();
            let state = group.flow_of(flow, 50, Some((author, 1)), now);
            let state = state.expect("there is room");
            assert_eq!(state.window.up_to() + 1, first, "{claimed} were claimed");
        }
    }

    #[test]
    fn each_number_is_asked_for_as_long_as_any_other() {
        let mut flow = FlowState::heard_of(1, Time::ZERO);
        let source = Keypair::from_seed(&[1; 32]).id();
        let at = |s| Time::ZERO + Duration::from_secs(s);
        // Every other one is lost, one each second; none ever comes again.
        let end = PATIENCE.as_secs() * 3;
        for s in 0..end {
            flow.window.note(s * 2 + 2);
            assert!(flow.note_gap(source, at(s)));
            assert_eq!(flow.give_up(at(s)), s >= PATIENCE.as_secs(), "{s}");
            let patient = flow.window.missing().count() as u64;
            assert_eq!(patient, (s + 1).min(PATIENCE.as_secs()), "{s}");
            let found = flow.gap.as_ref().map_or(0, |gap| gap.found.len());
            assert!(found as u64 <= PATIENCE.as_secs());
        }
        assert!(flow.give_up(at(end) + PATIENCE) && flow.gap.is_none());
    }
}
