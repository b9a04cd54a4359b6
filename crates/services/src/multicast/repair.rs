//! Repair: members compare numbers, and ask for what they miss.
//!
//! Whoever has got something tells two neighbours soon after, of those that are not sent
//! it in full (Plumtree's lazy push), and all of them now and then. Who reads there of
//! something that it misses waits a little, since it may be on its way, asks the neighbour
//! for it, and from then on has that author's messages from there. So a forwarder that
//! dies is replaced by the first message that it does not forward.

use std::time::Duration;

use enishi_overlay::small_map::SmallMap;
use enishi_overlay::{NodeId, Time};

use super::Cx;
use super::flow::FlowState;
use super::group::{Alarm, Group};
use super::store::RETENTION;
use super::wire::{Body, FLOWS_TOLD_MAX, Flow, Have, NUMBERS_ASKED_MAX, Want, millis};
use crate::calls::Tree;

/// How long after a message it is announced.
pub(super) const ANNOUNCED_AFTER: Duration = Duration::from_millis(400);
/// How long something that is missing may be on its way.
pub(super) const GRAFTED_AFTER: Duration = Duration::from_millis(250);
/// To how many neighbours a message is announced.
const ANNOUNCED_TO: usize = 2;
/// How often all neighbours are told what is there; primes, as the overlay's periods are.
/// Along the ring nobody else tells a child that its parent is gone.
const DIGEST_INTERVAL: Duration = Duration::from_secs(29);
const DIGEST_INTERVAL_SCRIBE: Duration = Duration::from_secs(7);
/// How long an answer is waited for before another is asked.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// How long something that is missing is asked for.
pub(super) const PATIENCE: Duration = Duration::from_secs(8);
/// The most messages that are sent again at once.
const REPAIRS_MAX: usize = 64;

impl Group {
    /// Tells all neighbours what is there: also a sign of life.
    pub(super) fn tell_all(&mut self, cx: &mut Cx<'_>) {
        self.store.expire(cx.now());
        let to: Vec<NodeId> = self.links.keys().copied().collect();
        self.say_to_all(&to, &self.digest(cx), cx);
        let wait = cx.rng().jitter(match self.tree {
            Tree::Biased => DIGEST_INTERVAL,
            Tree::Scribe => DIGEST_INTERVAL_SCRIBE,
        });
        self.deadlines.set(Alarm::Digest, cx.now() + wait);
    }

    /// What is there of those who were heard of late.
    pub(super) fn digest(&self, cx: &Cx<'_>) -> Body {
        let (now, is_member) = (cx.now(), self.member.is_some());
        let flows = self.flows.iter();
        let mut lately: Vec<_> = flows
            .filter(|(_, state)| now.since(state.heard_at) <= RETENTION)
            // Of whom a member has only heard it has nothing.
            .filter(|(_, state)| state.author.is_some() || !is_member)
            .map(|(flow, state)| (state.heard_at, have(*flow, state, now)))
            .collect();
        lately.sort_by_key(|(heard_at, _)| std::cmp::Reverse(*heard_at));
        lately.truncate(FLOWS_TOLD_MAX);
        let has = lately.into_iter().map(|(_, have)| have);
        Body::Digest {
            has: has.filter(|have| have.up_to > 0).collect(),
        }
    }

    /// Tells some neighbours, who are not sent it, what has just come.
    pub(super) fn announce(&mut self, cx: &mut Cx<'_>) {
        let mut digests: SmallMap<NodeId, Vec<Have>> = SmallMap::new();
        for flow in std::mem::take(&mut self.fresh) {
            self.choose_parent(flow, cx);
            let Some(state) = self.flows.get(&flow) else {
                continue;
            };
            let (pruned, parent) = (state.pruned, state.parent);
            let small = self.is_small();
            let lazy = self
                .links
                .iter()
                .filter(|(id, link)| Some(**id) != parent && (small || pruned & link.bit() != 0));
            let mut lazy: Vec<NodeId> = lazy.map(|(id, _)| *id).collect();
            for _ in 0..ANNOUNCED_TO.min(lazy.len()) {
                let chosen = lazy.swap_remove(cx.rng().below(lazy.len() as u64) as usize);
                let has = digests.get_or_insert_with(chosen, Vec::new);
                has.push(have(flow, state, cx.now()));
            }
        }
        for (to, mut has) in std::iter::from_fn(|| digests.pop_first()) {
            has.truncate(FLOWS_TOLD_MAX);
            self.say(to, &Body::Digest { has }, cx);
        }
    }

    /// A neighbour tells what it has.
    pub(super) fn on_digest(&mut self, from: NodeId, has: &[Have], cx: &mut Cx<'_>) {
        let now = cx.now();
        if !self.links.contains_key(&from) {
            return self.deny_link(from, cx);
        }
        let mut missing = false;
        for have in has {
            self.hear_of(have.flow, have.up_to, now);
            let was_before = self.was_before(have.silent_ms, now);
            let Some(state) = self.flows.get_mut(&have.flow) else {
                continue;
            };
            if was_before {
                state.begin_after(have.up_to);
                continue;
            }
            state.window.claim(have.up_to);
            let first = state.window.missing().next();
            missing |= first.is_some_and(|first| first <= have.up_to) && state.note_gap(from, now);
        }
        if missing {
            let soon = now + GRAFTED_AFTER;
            self.deadlines.set_no_later(Alarm::Repair, soon);
        }
    }

    /// Asks for what is missing, or gives it up.
    pub(super) fn repair(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now();
        let mut wanted: SmallMap<NodeId, Vec<Want>> = SmallMap::new();
        let (mut given_up, mut next): (Vec<Flow>, Option<Time>) = (Vec::new(), None);
        for (flow, state) in self.flows.iter_mut() {
            if state.give_up(now) {
                given_up.push(*flow);
            }
            let Some(gap) = &mut state.gap else {
                continue;
            };
            let numbers: Vec<u64> = state.window.missing().take(NUMBERS_ASKED_MAX).collect();
            if numbers.is_empty() {
                state.gap = None;
                continue;
            }
            if gap.asked_at.is_none_or(|at| now.since(at) >= RETRY) && !gap.sources.is_empty() {
                let source = gap.sources[gap.tries % gap.sources.len()];
                gap.tries += 1;
                gap.asked_at = Some(now);
                let want = Want {
                    flow: *flow,
                    numbers,
                };
                if let Some(link) = self.links.get(&source) {
                    state.pruned &= !link.bit();
                }
                wanted.get_or_insert_with(source, Vec::new).push(want);
            }
            let again = gap.asked_at.unwrap_or(now) + RETRY;
            next = Some(next.map_or(again, |next| next.min(again)));
        }
        self.graft(wanted, cx);
        for flow in given_up {
            self.counters.given_up += 1;
            self.hand_over_held(flow, cx);
        }
        if let Some(next) = next {
            self.deadlines.set_no_later(Alarm::Repair, next);
        }
    }

    fn graft(&self, mut wanted: SmallMap<NodeId, Vec<Want>>, cx: &mut Cx<'_>) {
        for (to, mut wanted) in std::iter::from_fn(|| wanted.pop_first()) {
            wanted.truncate(FLOWS_TOLD_MAX);
            self.say(to, &Body::Graft { wanted }, cx);
        }
    }

    /// A neighbour through whom messages came is gone: all others are asked to send what it
    /// did. Those that are not needed are told so with the next message.
    pub(super) fn regraft(&mut self, gone: NodeId, cx: &mut Cx<'_>) {
        let now = cx.now();
        let mut wanted = Vec::new();
        for (flow, state) in self.flows.iter_mut() {
            if state.parent == Some(gone) {
                state.parent = None;
                if now.since(state.heard_at) <= RETENTION && wanted.len() < FLOWS_TOLD_MAX {
                    state.pruned = 0;
                    let numbers = Vec::new();
                    wanted.push(Want {
                        flow: *flow,
                        numbers,
                    });
                }
            }
        }
        if !wanted.is_empty() && self.tree == Tree::Biased {
            let to: Vec<NodeId> = self.links.keys().copied().collect();
            self.say_to_all(&to, &Body::Graft { wanted }, cx);
        }
    }

    /// A neighbour, or in a small group any member, asks for something.
    pub(super) fn on_graft(&mut self, from: NodeId, wanted: Vec<Want>, cx: &mut Cx<'_>) {
        let link = self.links.get(&from).map(super::group::Link::bit);
        if link.is_none() && !self.known.has(from) {
            return;
        }
        let mut again = Vec::new();
        for want in wanted {
            if let Some((state, bit)) = self.flows.get_mut(&want.flow).zip(link) {
                state.pruned &= !bit;
            }
            let found = want.numbers.iter();
            again.extend(found.filter_map(|number| self.store.find(want.flow, *number, cx.now())));
        }
        again.truncate(REPAIRS_MAX);
        for data in again {
            self.counters.repaired += 1;
            self.send_data(&[from], &data, cx);
        }
    }
}

fn have(flow: Flow, state: &FlowState, now: Time) -> Have {
    Have {
        flow,
        up_to: state.window.up_to(),
        silent_ms: millis(now.since(state.heard_at)),
    }
}
