//! Meeting: a few entries in the DHT, under keys that follow from the group's secret.
//!
//! Each entry says how a member may be reached, sealed for members. A newcomer turns to
//! those whom it reads of, and hears of everyone else from them. While there are fewer
//! than wanted, whoever reads adds its own. Those who have one read again and again, and
//! greet whom they do not know: so two groups that met nobody of each other become one.
//!
//! Entries are records and not kept by an asked node, because records already are what is
//! needed: replicated, repaired, leased, limited for each putter, and refused from who does
//! not know the secret.

use std::time::Duration;

use enishi_overlay::NodeId;

use super::Cx;
use super::group::{Alarm, Group};
use super::links::myself;
use super::wire::{Told, whole};
use crate::calls::{Consistency, GetAnswer, PutRequest, Tree};
use crate::record::{Kind, Record};

/// How many entries there should be.
const ENTRIES_WANTED: usize = 16;
/// How many entries are looked at.
const ENTRIES_READ_MAX: usize = 64;
/// How many of those whom it reads of a member turns to.
const GREETED_MAX: usize = 4;
/// How long an entry is kept after its owner was last heard, in seconds.
const LEASE_S: u32 = 600;
/// How often the rendezvous is looked at: at first, by those who have an entry, and by the
/// others; primes, as the overlay's periods are.
const MEET_FIRST: Duration = Duration::from_secs(7);
const MEET_INTERVAL: Duration = Duration::from_secs(61);
const MEET_SELDOM: Duration = Duration::from_secs(1021);

impl Group {
    /// Reads the entries.
    pub(super) fn meet(&mut self, cx: &mut Cx<'_>) {
        let Some(member) = self.member.as_ref().filter(|_| self.tree == Tree::Biased) else {
            return;
        };
        let alone = self.links.is_empty();
        // That there is nothing is sure only after a long search; the rest need not be sure.
        let consistency = match alone {
            true => Consistency::Any,
            false => Consistency::Hasty,
        };
        cx.get(self.serial.into(), member.keys.key(), consistency);
        let interval = match (alone, member.has_entry) {
            (true, _) => MEET_FIRST,
            (false, true) => MEET_INTERVAL,
            (false, false) => MEET_SELDOM,
        };
        let wait = cx.rng().jitter(interval);
        self.deadlines.set(Alarm::Meet, cx.now() + wait);
    }

    /// The entries were read.
    pub(super) fn met(&mut self, answer: &GetAnswer, cx: &mut Cx<'_>) {
        let GetAnswer::Records(records) = answer else {
            return;
        };
        let me = cx.me();
        let read = records.iter().take(ENTRIES_READ_MAX);
        let told: Vec<Told> = read.filter_map(|record| self.open_entry(record)).collect();
        let others = told.iter().filter(|told| told.contact.id() != me);
        let mut strangers: Vec<NodeId> = Vec::new();
        for told in others {
            let id = told.contact.id();
            if !self.known.has(id) {
                strangers.push(id);
                let here = cx.overlay().coordinate();
                self.known.learn(told, here, cx.now(), cx.rng());
            }
        }
        for _ in 0..GREETED_MAX.min(strangers.len()) {
            let drawn = cx.rng().below(strangers.len() as u64) as usize;
            self.tell_members(strangers.swap_remove(drawn), false, cx);
        }
        self.deadlines.set_no_later(Alarm::Tend, cx.now());
        let alone = self.links.is_empty() && told.len() < ENTRIES_READ_MAX;
        if told.len() < ENTRIES_WANTED || alone {
            self.put_entry(true, cx);
        }
    }

    /// Adds this node's entry, or removes it.
    pub(super) fn put_entry(&mut self, add: bool, cx: &mut Cx<'_>) {
        let me = myself(cx);
        let Some(member) = &mut self.member else {
            return;
        };
        if member.has_entry == add {
            return;
        }
        member.has_entry = add;
        let sealed = add.then(|| {
            let octets = postcard::to_stdvec(&me).unwrap_or_default();
            member.keys.seal_entry(cx.rng(), &octets).into()
        });
        let request = PutRequest {
            kind: Kind::Set,
            writer: member.keys.writer.clone(),
            owner: member.keys.owner(cx.keypair()),
            lease_s: LEASE_S,
            value: sealed,
        };
        cx.put(self.serial.into(), request);
        if add {
            let wait = cx.rng().jitter(MEET_INTERVAL);
            self.deadlines.set_no_later(Alarm::Meet, cx.now() + wait);
        }
    }

    fn open_entry(&self, record: &Record) -> Option<Told> {
        let member = self.member.as_ref()?;
        let mut told: Told = whole(&member.keys.open_entry(&record.content().value)?)?;
        // It may have been there for as long as its lease.
        told.age_s = told.age_s.max(1);
        Some(told)
    }
}
