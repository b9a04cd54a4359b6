//! Standing: what this node did for each of the others, what they did for it, and what
//! follows from that when it decides whom to serve and whom to rely on.
//!
//! For each node there is an account. One side of it counts what this node passed on for
//! it; the session proves the previous hop of a message, so that is whom it counts against.
//! The other side counts what became of this node's *own* questions that were entrusted to
//! it: *delivered* when another node's answer came of it, *dropped* when it confirmed and
//! nothing came, *given back* when it declined. What a node answers itself is no evidence of
//! its passing things on and counts for nothing.
//!
//! Only own questions are evidence. Of others' questions nobody knows whether they can be
//! answered at all: with unanswerable ones a stranger could ruin whoever stands in the way.
//! For the same reason nobody hears of these opinions: a third party's word cannot be
//! checked, and who lies gains by it.
//!
//! Evidence loses half of its weight in [`HALF_LIFE`]. A newcomer begins with none, some
//! failures of an otherwise reliable node cost it little, and one delivered message makes
//! good for [`FORGIVEN`] failures.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::time::Time;

/// The most accounts. Beyond it one is closed: of those without failures the one that was
/// used least lately, so that many new names do not wash off an old one's record.
pub const ACCOUNTS_MAX: usize = 1024;
/// In how much time evidence loses half of its weight.
pub const HALF_LIFE: Duration = Duration::from_secs(3600);
/// For how many failures one delivered message makes good.
pub const FORGIVEN: u32 = 8;

/// Evidence is weighed anew in steps of a quarter of [`HALF_LIFE`].
const STEP: Duration = Duration::from_secs(HALF_LIFE.as_secs() / 4);
/// What remains of evidence after a step, in 1/256: the fourth root of one half.
const STEP_KEEPS_256: u32 = 215;
/// After so many steps nothing is left of any evidence.
const STEPS_MAX: u128 = 64;
/// The weight of one message as evidence.
const ONE: u32 = 256;
/// The most weight on one side of an account, so that no record lasts for ever.
const WEIGHT_MAX: u32 = 64 * ONE;
/// How much good evidence everybody is credited with, so that one failure does not condemn.
const CREDIT: u32 = 2 * ONE;
/// From how much failure on a node can be in bad standing. Of a node on whose routes every
/// fourth message fails, so many in a row are one in sixty, and its next delivery clears it.
const BAD_FROM: u32 = 2 * ONE + ONE / 2;

/// For whom this node passes messages on, and to whom it gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// All alike. Accounts are kept, and nothing follows from them.
    #[default]
    None,
    /// Those that the operator trusts come first: as next hops, and over the budget of
    /// messages for others they alone are served.
    Trust,
    /// By own experience: next hops that deliver are preferred, and who is given messages
    /// and never delivers is not served.
    Reputation,
}

/// What this node and another did for each other since the account was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Messages that were passed on for it: it was the previous hop.
    pub carried_messages: u64,
    /// Their octets.
    pub carried_bytes: u64,
    /// Those among them that it had asked itself.
    pub carried_own_messages: u64,
    /// Messages that this node declined to pass on for it.
    pub declined_messages: u64,
    /// Own questions entrusted to it that another node answered.
    pub delivered_messages: u64,
    /// Own questions that it confirmed and that nobody answered in time.
    pub dropped_messages: u64,
    /// Own questions that it gave back.
    pub given_back_messages: u64,
    /// The weights of the three, as of `weighed_at`.
    weights: Weights,
    weighed_at: Time,
    used_at: Time,
    /// When it was last put to the test.
    tried_at: Time,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weights {
    delivered: u32,
    dropped: u32,
    given_back: u32,
}

impl Weights {
    fn after(self, steps: u128) -> Self {
        let fade = |weight| match steps {
            STEPS_MAX.. => 0,
            _ => (0..steps).fold(weight, |weight, _| weight * STEP_KEEPS_256 / 256),
        };
        Self {
            delivered: fade(self.delivered),
            dropped: fade(self.dropped),
            given_back: fade(self.given_back),
        }
    }

    fn failed(self) -> u32 {
        self.dropped + self.given_back
    }
}

impl Account {
    /// Tells whether the node takes and does not give: it was entrusted with several
    /// messages lately and delivered hardly any.
    pub fn is_bad(&self, now: Time) -> bool {
        let weights = self.weights(now);
        weights.failed() >= BAD_FROM && weights.failed() >= weights.delivered * FORGIVEN
    }

    /// Returns what time a message loses on average when this node is to pass it on, if a
    /// drop costs `drop` and having it given back costs `give_back`.
    pub fn doubt(&self, now: Time, drop: Duration, give_back: Duration) -> Duration {
        let weights = self.weights(now);
        let all = weights.delivered + weights.failed() + CREDIT;
        (drop * weights.dropped + give_back * weights.given_back) / all
    }

    /// Returns by what the next node to be put to the test is found, the least of all: those
    /// that failed, never delivered and are not condemned yet; then by the time of the last
    /// test.
    pub(crate) fn tried(&self, now: Time) -> (bool, Time) {
        let weights = self.weights(now);
        let suspect = weights.failed() > 0 && weights.delivered == 0 && !self.is_bad(now);
        (!suspect, self.tried_at)
    }

    fn weights(&self, now: Time) -> Weights {
        let steps = now.since(self.weighed_at).as_micros() / STEP.as_micros();
        self.weights.after(steps)
    }

    /// Brings the weights up to date before something is added.
    fn weigh(&mut self, now: Time) -> &mut Weights {
        let steps = now.since(self.weighed_at).as_micros() / STEP.as_micros();
        self.weights = self.weights.after(steps);
        let whole = u32::try_from(steps).unwrap_or(u32::MAX);
        self.weighed_at = match steps {
            STEPS_MAX.. => now,
            _ => self.weighed_at + STEP * whole,
        };
        &mut self.weights
    }
}

/// What came of an own question that was entrusted to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Another node answered it.
    Delivered,
    /// It was confirmed, and nothing came of it.
    Dropped,
    /// It came back.
    GivenBack,
}

/// The accounts by node.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    accounts: BTreeMap<NodeId, Account>,
    carried_messages: u64,
    carried_bytes: u64,
    declined_messages: u64,
}

impl Accounts {
    /// Returns the account of a node, if there is one.
    pub fn of(&self, id: NodeId) -> Option<&Account> {
        self.accounts.get(&id)
    }

    /// Visits the accounts in the order of their nodes; at most [`ACCOUNTS_MAX`].
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Account)> {
        self.accounts.iter().map(|(id, account)| (*id, account))
    }

    /// Returns how many messages were passed on for others, closed accounts included.
    pub fn carried_messages(&self) -> u64 {
        self.carried_messages
    }

    /// Returns the octets of those messages.
    pub fn carried_bytes(&self) -> u64 {
        self.carried_bytes
    }

    /// Returns how many messages this node declined to pass on.
    pub fn declined_messages(&self) -> u64 {
        self.declined_messages
    }

    /// Returns how many nodes are in bad standing.
    pub fn bad(&self, now: Time) -> usize {
        let bad = |account: &&Account| account.is_bad(now);
        self.accounts.values().filter(bad).count()
    }

    /// Notes a message passed on for `previous`, which asked it itself or not.
    pub(crate) fn carried(&mut self, now: Time, previous: NodeId, bytes: usize, own: bool) {
        self.carried_messages += 1;
        self.carried_bytes += bytes as u64;
        let account = self.open(now, previous);
        account.carried_messages += 1;
        account.carried_bytes += bytes as u64;
        account.carried_own_messages += u64::from(own);
    }

    /// Notes that a message of `previous` was declined.
    pub(crate) fn declined(&mut self, now: Time, previous: NodeId) {
        self.declined_messages += 1;
        self.open(now, previous).declined_messages += 1;
    }

    /// Notes that a node is put to the test.
    pub(crate) fn tries(&mut self, now: Time, id: NodeId) {
        self.open(now, id).tried_at = now;
    }

    /// Notes what came of an own question.
    pub(crate) fn learned(&mut self, now: Time, of: NodeId, outcome: Outcome) {
        let account = self.open(now, of);
        match outcome {
            Outcome::Delivered => account.delivered_messages += 1,
            Outcome::Dropped => account.dropped_messages += 1,
            Outcome::GivenBack => account.given_back_messages += 1,
        }
        let weights = account.weigh(now);
        let weight = match outcome {
            Outcome::Delivered => &mut weights.delivered,
            Outcome::Dropped => &mut weights.dropped,
            Outcome::GivenBack => &mut weights.given_back,
        };
        *weight = (*weight + ONE).min(WEIGHT_MAX);
    }

    fn open(&mut self, now: Time, id: NodeId) -> &mut Account {
        if self.accounts.len() >= ACCOUNTS_MAX && !self.accounts.contains_key(&id) {
            let worth = |account: &Account| (account.weights(now).failed() > 0, account.used_at);
            let least = self.accounts.iter().min_by_key(|(_, a)| worth(a));
            let least = least.map(|(id, _)| *id);
            least.map(|least| self.accounts.remove(&least));
        }
        let account = self.accounts.entry(id).or_insert_with(|| Account {
            weighed_at: now,
            ..Account::default()
        });
        account.used_at = now;
        account
    }
}

/// How many messages a node passes on for others before it serves only those that it
/// trusts: a bucket that fills evenly and holds what a minute brings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    per_minute: u32,
    /// What is left, in millionths of a message.
    left: u64,
    at: Time,
}

impl Budget {
    /// Makes a full one.
    pub(crate) fn new(now: Time, per_minute: u32) -> Self {
        Self {
            per_minute,
            left: Self::full(per_minute),
            at: now,
        }
    }

    /// Tells whether there is room for one more message.
    pub(crate) fn has_room(&mut self, now: Time) -> bool {
        let micros = u64::try_from(now.since(self.at).as_micros()).unwrap_or(u64::MAX);
        let gained = micros.saturating_mul(u64::from(self.per_minute)) / 60;
        self.left = self
            .left
            .saturating_add(gained)
            .min(Self::full(self.per_minute));
        self.at = now;
        self.left >= 1_000_000
    }

    /// Takes one message off, if there is anything to take it off.
    pub(crate) fn spend(&mut self) {
        self.left = self.left.saturating_sub(1_000_000);
    }

    fn full(per_minute: u32) -> u64 {
        u64::from(per_minute) * 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DROP: Duration = Duration::from_secs(1);
    const BACK: Duration = Duration::from_millis(100);

    fn id(number: u32) -> NodeId {
        let mut octets = [0; 32];
        octets[..4].copy_from_slice(&number.to_be_bytes());
        NodeId::from_bytes(octets)
    }

    fn told(outcomes: &[(Outcome, u32)]) -> Account {
        let mut accounts = Accounts::default();
        for (outcome, times) in outcomes {
            (0..*times).for_each(|_| accounts.learned(Time::ZERO, id(1), *outcome));
        }
        *accounts.of(id(1)).unwrap()
    }

    #[test]
    fn a_newcomer_and_one_mistake_are_not_bad_and_only_takers_are() {
        use Outcome::{Delivered, Dropped, GivenBack};
        let now = Time::ZERO;
        assert_eq!(Account::default().doubt(now, DROP, BACK), Duration::ZERO);
        let once = told(&[(Dropped, 1)]);
        assert!(!once.is_bad(now) && once.doubt(now, DROP, BACK) < DROP / 2);
        assert!(!told(&[(Dropped, 2)]).is_bad(now));
        assert!(told(&[(Dropped, 3)]).is_bad(now));
        assert!(told(&[(Dropped, 1), (GivenBack, 2)]).is_bad(now));
        // Of a node that fails seven times out of eight less is expected, but it gives.
        assert!(!told(&[(Dropped, 7), (Delivered, 1)]).is_bad(now));
        // Giving back costs less than dropping.
        let (drops, returns) = (told(&[(Dropped, 9)]), told(&[(GivenBack, 9)]));
        assert!(drops.doubt(now, DROP, BACK) > DROP / 2);
        assert!(returns.doubt(now, DROP, BACK) < BACK);
    }

    #[test]
    fn failures_are_forgotten_with_time() {
        let taker = told(&[(Outcome::Dropped, 8)]);
        let at = |half_lives: u64| Time::from_secs(HALF_LIFE.as_secs() * half_lives);
        assert!(taker.is_bad(at(1)) && !taker.is_bad(at(2)));
        let soon = taker.doubt(at(1), DROP, BACK);
        assert!(soon > DROP / 2 && taker.doubt(at(4), DROP, BACK) < DROP / 4);
        assert_eq!(taker.doubt(at(1000), DROP, BACK), Duration::ZERO);
        // However long the record, half a day of something else outweighs it.
        let old = told(&[(Outcome::Dropped, 100_000)]);
        assert!(!old.is_bad(at(12)));
    }

    #[test]
    fn accounts_are_bounded_and_many_names_do_not_wash_off_a_record() {
        let mut accounts = Accounts::default();
        (0..5).for_each(|_| accounts.learned(Time::ZERO, id(0), Outcome::Dropped));
        for number in 1..=2 * ACCOUNTS_MAX as u32 {
            accounts.carried(Time::from_secs(1), id(number), 100, true);
        }
        assert_eq!(accounts.iter().count(), ACCOUNTS_MAX);
        assert!(accounts.of(id(0)).is_some_and(|a| a.is_bad(Time::ZERO)));
        assert_eq!(accounts.carried_bytes(), 2 * 100 * ACCOUNTS_MAX as u64);
    }

    #[test]
    fn a_budget_is_spent_and_fills_up_again() {
        let mut budget = Budget::new(Time::ZERO, 30);
        let second = Time::from_secs(1);
        for _ in 0..30 {
            assert!(budget.has_room(second));
            budget.spend();
        }
        assert!(!budget.has_room(second));
        assert!(budget.has_room(Time::from_secs(3)));
        budget.spend();
        assert!(!budget.has_room(Time::from_secs(4)));
    }
}
