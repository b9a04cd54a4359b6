//! Each key of a limited invitation lets in one node.
//!
//! There is no server that could count, so the overlay remembers: the node that uses a key
//! claims a leased record in the DHT that only holders of the key can write, and that
//! belongs to the first who does. Whoever admits a node by such a key looks there a while
//! later, when the newcomer has had the time to claim it. Another owner, or nobody's claim
//! time and again, means that the node is expelled; it is looked after again now and then.
//!
//! So a second user is among the members until they have looked, and can come back when the
//! first stays away for longer than the lease. docs/closed-overlays.md tells it to people.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use enishi_overlay::deadlines::Deadlines;
use enishi_overlay::{Keypair, NodeId, Time};

use crate::calls::{Consistency, GetAnswer, PutAnswer, PutRequest};
use crate::record::{Key, Kind, LEASE_S};
use crate::service::Context;

/// How long after a newcomer was admitted its claim is looked up; up to twice as long.
const CHECK_AFTER: Duration = Duration::from_secs(30);
/// The same when another node has shown the same key.
const CHECK_RIVAL_AFTER: Duration = Duration::from_secs(10);
/// Between two looks while there is no claim or no answer.
const CHECK_AGAIN: Duration = Duration::from_secs(60);
/// After how many looks without a claim a node is expelled.
const MISSES_MAX: u8 = 3;
/// For how long a claim that was found is believed.
const BELIEVED: Duration = Duration::from_secs(3600);
/// How long an expelled node is left alone before its claim is looked up again, and how
/// often that is done.
const BARRED: Duration = Duration::from_secs(600);
const BARRED_LOOKS_MAX: u8 = 6;
/// The most claims of others that are followed, and looked up at one time.
const CHECKS_MAX: usize = 1024;
const CHECKS_AT_ONCE: usize = 4;
/// When the own claim is tried again, and looked after once it is held.
const CLAIM_SOON: Duration = Duration::from_secs(1);
const CLAIM_AGAIN: Duration = Duration::from_secs(10);
const CLAIM_CARE: Duration = Duration::from_secs(300);

/// What happens when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    /// Claim the own key, or see whether the claim is still there.
    Claim,
    /// Look up the claim of a node to a key.
    Check(NodeId, NodeId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is known yet; so many looks found no claim.
    Open { misses: u8 },
    /// It holds the key.
    Passed(Time),
    /// It does not; so many looks since.
    Barred { looks: u8 },
}

/// Who asked the DHT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    Own,
    Check(NodeId, NodeId),
}

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    Nothing,
    /// The own key belongs to somebody else; this one is tried next.
    AnotherKey(usize),
    /// The node does not hold the key by which it came.
    SecondUse {
        key: NodeId,
        member: NodeId,
    },
}

/// The keys of the own invitation.
#[derive(Debug)]
struct Own {
    keys: Vec<Keypair>,
    index: usize,
    held: bool,
    /// How many keys in a row belong to others.
    taken: usize,
    used_up: bool,
}

/// What a node knows of the uses of invitations.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    own: Option<Own>,
    checks: BTreeMap<(NodeId, NodeId), State>,
    barred: BTreeSet<NodeId>,
    asked: BTreeMap<u64, Asker>,
    next_token: u64,
    deadlines: Deadlines<Alarm>,
}

impl Uses {
    /// Looks after the keys of the own invitation, beginning with one of them.
    pub(crate) fn with_keys(keys: Vec<Keypair>, index: usize) -> Self {
        let own = Own {
            keys,
            index,
            held: false,
            taken: 0,
            used_up: false,
        };
        Self {
            own: Some(own),
            ..Self::default()
        }
    }

    /// Has the numbers of its calls begin above `first`, for a service that makes others.
    pub(crate) fn numbered_from(mut self, first: u64) -> Self {
        self.next_token = first;
        self
    }

    /// Goes on with the key that was in use before the last stop.
    pub(crate) fn choose(&mut self, index: usize) -> bool {
        let own = self.own.as_mut().filter(|own| index < own.keys.len());
        own.map(|own| own.index = index).is_some()
    }

    /// Returns the own key in use.
    pub(crate) fn key(&self) -> Option<&Keypair> {
        let own = self.own.as_ref()?;
        own.keys.get(own.index)
    }

    /// Returns which of the own keys is in use.
    pub(crate) fn index(&self) -> usize {
        self.own.as_ref().map_or(0, |own| own.index)
    }

    /// Tells whether all keys of the own invitation belong to others.
    pub(crate) fn is_used_up(&self) -> bool {
        self.own.as_ref().is_some_and(|own| own.used_up)
    }

    /// Tells whether it is known if the own invitation serves: one of its keys is held, or
    /// others have them all, or nobody counts.
    pub(crate) fn is_settled(&self) -> bool {
        let own = self.own.as_ref();
        own.is_none_or(|own| own.held || own.used_up)
    }

    /// Tells whether nothing is to be said to a node.
    pub(crate) fn bars(&self, member: &NodeId) -> bool {
        self.barred.contains(member)
    }

    /// Tells whether a node was found not to hold a key.
    pub(crate) fn bars_use(&self, key: NodeId, member: NodeId) -> bool {
        let state = self.checks.get(&(key, member));
        matches!(state, Some(State::Barred { .. }))
    }

    /// A node has shown that it is a member by other means.
    pub(crate) fn unbar(&mut self, member: &NodeId) {
        self.barred.remove(member);
    }

    /// A node was admitted by a key that is for one node: its claim is to be looked up.
    pub(crate) fn watch<E>(&mut self, key: NodeId, member: NodeId, cx: &mut Context<'_, E>) {
        self.unbar(&member);
        let (alarm, now) = (Alarm::Check(key, member), cx.now());
        let asked = self.asked.values().any(|a| *a == Asker::Check(key, member));
        match self.checks.get(&(key, member)) {
            Some(State::Passed(at)) if now.since(*at) < BELIEVED => return,
            Some(State::Open { .. }) if asked || self.deadlines.is_set(alarm) => return,
            _ => {}
        }
        let all = NodeId::from_bytes([0; 32])..=NodeId::from_bytes([255; 32]);
        let mut same = self
            .checks
            .range((key, *all.start())..=(key, *all.end()))
            .map(|((_, member), _)| member);
        let wait = match same.any(|other| *other != member) {
            true => CHECK_RIVAL_AFTER,
            false => CHECK_AFTER,
        };
        self.make_room();
        self.checks.insert((key, member), State::Open { misses: 0 });
        let wait = wait + cx.rng().duration_below(wait);
        self.deadlines.set(alarm, now + wait);
    }

    fn make_room(&mut self) {
        if self.checks.len() >= CHECKS_MAX {
            let age = |state: &State| match state {
                State::Passed(at) => (0, *at),
                State::Barred { .. } => (1, Time::ZERO),
                State::Open { .. } => (2, Time::ZERO),
            };
            let least = self.checks.iter().min_by_key(|(_, state)| age(state));
            if let Some((key, member)) = least.map(|(id, _)| *id) {
                self.drop_check(key, member);
            }
        }
    }

    fn drop_check(&mut self, key: NodeId, member: NodeId) {
        self.checks.remove(&(key, member));
        self.deadlines.cancel(Alarm::Check(key, member));
        self.barred.remove(&member);
    }

    pub(crate) fn neighbours_changed(&mut self, now: Time) {
        // A node that the others have expelled is soon its own only neighbour, and would
        // believe itself.
        let waits = |own: &Own| !own.held && !own.used_up;
        if self.own.as_ref().is_some_and(waits) {
            self.deadlines.set_no_later(Alarm::Claim, now + CLAIM_SOON);
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.deadlines.next()
    }

    /// Does what is due.
    pub(crate) fn ring<E>(&mut self, cx: &mut Context<'_, E>) {
        while let Some(alarm) = self.deadlines.pop_due(cx.now()) {
            match alarm {
                Alarm::Claim => {
                    let key = self.key().map(Keypair::id);
                    match key.filter(|_| !cx.overlay().near().is_empty()) {
                        Some(key) => self.get(Asker::Own, key, cx),
                        // Alone, the own word means nothing.
                        None => self.deadlines.set(alarm, cx.now() + BARRED),
                    }
                }
                Alarm::Check(key, member) if self.asked.len() < CHECKS_AT_ONCE => {
                    self.get(Asker::Check(key, member), key, cx);
                }
                Alarm::Check(..) => self.deadlines.set(alarm, cx.now() + CLAIM_SOON),
            }
        }
    }

    fn get<E>(&mut self, asker: Asker, key: NodeId, cx: &mut Context<'_, E>) {
        let token = self.token(asker);
        let key = Key::new(Kind::Lease, &key);
        cx.get(token, key, Consistency::Majority);
    }

    fn token(&mut self, asker: Asker) -> u64 {
        self.next_token += 1;
        self.asked.insert(self.next_token, asker);
        self.next_token
    }

    /// The DHT has answered a question.
    pub(crate) fn got<E>(
        &mut self,
        token: u64,
        answer: &GetAnswer,
        cx: &mut Context<'_, E>,
    ) -> Finding {
        let owner = match answer {
            GetAnswer::Records(records) => Ok(records.first().map(|r| r.content().owner)),
            GetAnswer::Failed => Err(()),
        };
        match self.asked.remove(&token) {
            Some(Asker::Own) => self.own_found(owner, cx),
            Some(Asker::Check(key, member)) => self.found(key, member, owner, cx.now()),
            None => Finding::Nothing,
        }
    }

    fn own_found<E>(
        &mut self,
        owner: Result<Option<NodeId>, ()>,
        cx: &mut Context<'_, E>,
    ) -> Finding {
        match owner {
            Ok(Some(owner)) if owner == cx.me() => self.hold(cx),
            Ok(Some(_)) => return self.next_key(cx),
            Ok(None) => {
                let Some(writer) = self.key().cloned() else {
                    return Finding::Nothing;
                };
                let request = PutRequest {
                    kind: Kind::Lease,
                    writer,
                    owner: cx.keypair().clone(),
                    lease_s: *LEASE_S.end(),
                    value: Some(Bytes::new()),
                };
                let token = self.token(Asker::Own);
                cx.put(token, request);
            }
            Err(()) => self.deadlines.set(Alarm::Claim, cx.now() + CLAIM_AGAIN),
        }
        Finding::Nothing
    }

    /// The DHT has done with the claim.
    pub(crate) fn put_done<E>(
        &mut self,
        token: u64,
        answer: PutAnswer,
        cx: &mut Context<'_, E>,
    ) -> Finding {
        if self.asked.remove(&token).is_none() {
            return Finding::Nothing;
        }
        match answer {
            PutAnswer::Stored { replicas, .. } if replicas > 1 => self.hold(cx),
            PutAnswer::Taken => return self.next_key(cx),
            PutAnswer::Stored { .. } | PutAnswer::Full | PutAnswer::Failed => {
                self.deadlines.set(Alarm::Claim, cx.now() + CLAIM_AGAIN);
            }
        }
        Finding::Nothing
    }

    fn hold<E>(&mut self, cx: &mut Context<'_, E>) {
        if let Some(own) = &mut self.own {
            (own.held, own.taken, own.used_up) = (true, 0, false);
        }
        let wait = cx.rng().jitter(CLAIM_CARE);
        self.deadlines.set(Alarm::Claim, cx.now() + wait);
    }

    fn next_key<E>(&mut self, cx: &mut Context<'_, E>) -> Finding {
        let Some(own) = &mut self.own else {
            return Finding::Nothing;
        };
        own.held = false;
        own.taken += 1;
        own.index = (own.index + 1) % own.keys.len().max(1);
        own.used_up |= own.taken >= own.keys.len();
        let wait = if own.used_up { BARRED } else { CLAIM_SOON };
        self.deadlines.set(Alarm::Claim, cx.now() + wait);
        Finding::AnotherKey(own.index)
    }

    fn found(
        &mut self,
        key: NodeId,
        member: NodeId,
        owner: Result<Option<NodeId>, ()>,
        now: Time,
    ) -> Finding {
        let Some(state) = self.checks.get_mut(&(key, member)) else {
            return Finding::Nothing;
        };
        let next = match (owner, *state) {
            (Err(()), state) => state,
            (Ok(Some(owner)), _) if owner == member => State::Passed(now),
            (Ok(None), State::Open { misses }) if misses + 1 < MISSES_MAX => {
                State::Open { misses: misses + 1 }
            }
            (Ok(None), State::Passed(_)) => State::Open { misses: 1 },
            (Ok(_), State::Open { .. } | State::Passed(_)) => State::Barred { looks: 0 },
            (Ok(_), State::Barred { looks }) => State::Barred { looks: looks + 1 },
        };
        let news = next != *state;
        *state = next;
        let alarm = Alarm::Check(key, member);
        match next {
            State::Open { .. } => self.deadlines.set(alarm, now + CHECK_AGAIN),
            State::Passed(_) => self.unbar(&member),
            State::Barred { looks } if looks >= BARRED_LOOKS_MAX => self.drop_check(key, member),
            State::Barred { looks } => {
                self.deadlines.set(alarm, now + BARRED);
                if news && looks == 0 {
                    self.barred.insert(member);
                    return Finding::SecondUse { key, member };
                }
            }
        }
        Finding::Nothing
    }
}
