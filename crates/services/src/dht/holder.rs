//! The holder: answers puts, gets and copies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use enishi_overlay::NodeId;
use enishi_overlay::overlay::Asker;

use super::store::{Arrival, Store};
use super::wire::{self, Aged, DhtMessage, Found, Outcome, Question, Summary};
use super::{Alarm, Consistency, Cx, Dht, REPLICAS, sure};
use crate::record::{Key, Kind, Precedence, Record};

/// How long the node in charge waits for the other holders.
const COPY_TIMEOUT: Duration = Duration::from_millis(1500);
const GATHER_TIMEOUT: Duration = Duration::from_millis(1000);
/// The most puts and gets that wait for other holders, each.
const WAITING_MAX: usize = 1024;
/// The most records that a node keeps for keys to which it is not one of the nearest.
pub(super) const WIDE_HELD_MAX: usize = 1024;
/// Instead of the source of a record that was kept on disk, which is not kept.
const RESTORED: NodeId = NodeId::from_bytes([0; 32]);
/// How often ended leases are looked for.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(30);

/// A copy handed over by a node that is no longer its holder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handover {
    pub(super) to: NodeId,
    pub(super) key: Key,
    pub(super) owner: NodeId,
}

/// A put that waits for copies to be stored.
#[derive(Debug)]
struct Copying {
    client: NodeId,
    client_token: u64,
    stored: u32,
    needed: u32,
    waiting: BTreeSet<NodeId>,
}

/// A get that waits for what other holders have.
#[derive(Debug)]
struct Gathering {
    asker: Asker,
    /// What the asker knows.
    known: Option<Summary>,
    key: Key,
    best: Vec<Aged>,
    replies: u32,
    needed: u32,
    waiting: BTreeSet<NodeId>,
    first_will_do: bool,
}

/// The part of the DHT that serves others.
#[derive(Debug, Default)]
pub(super) struct Holder {
    pub(super) store: Store,
    pub(super) next_token: u64,
    /// Copies handed over by this node, which is no longer their holder.
    pub(super) handovers: BTreeMap<u64, Handover>,
    /// Whether nothing can be kept on disk, and so nothing may be acknowledged.
    pub(super) refusing: bool,
    /// What owners asked this node to keep though it is not one of the nearest to the key.
    pub(super) wide: BTreeSet<(Key, NodeId)>,
    copying: BTreeMap<u64, Copying>,
    gathering: BTreeMap<u64, Gathering>,
    started: bool,
    /// Messages and questions that could not be decoded.
    pub(super) malformed: u64,
}

impl Dht {
    /// Starts the periodic work with the first input.
    pub(super) fn start_upkeep(&mut self, cx: &mut Cx<'_>) {
        if !std::mem::replace(&mut self.holder.started, true) {
            // Strangers should not know which numbers come.
            self.holder.next_token = cx.rng().number() >> 16;
            let phase = cx.rng().duration_below(EXPIRE_INTERVAL);
            self.deadlines.set(Alarm::Expire, cx.now() + phase);
            self.schedule_compare(cx);
        }
    }

    pub(super) fn on_put(&mut self, from: NodeId, token: u64, record: &Record, cx: &mut Cx<'_>) {
        let aged = Aged {
            record: record.clone(),
            age_s: 0,
        };
        let others = other_holders(record.key(), cx);
        let outcome = match self.accept(aged.clone(), from, Arrival::Put, cx) {
            // Somebody took this client for the node in charge, and should look again.
            Err(Outcome::Full) if cx.overlay().is_client() => Outcome::TooFew,
            Ok(()) if others.is_empty() => Outcome::Stored { replicas: 1 },
            Ok(()) => return self.copy_to(from, token, &aged, &others, 1, cx),
            // A node that cannot keep anything still has it kept by the others.
            Err(Outcome::Full) if self.holder.refusing && !others.is_empty() => {
                return self.copy_to(from, token, &aged, &others, 0, cx);
            }
            Err(outcome) => outcome,
        };
        cx.send_to(from, DhtMessage::PutReply { token, outcome }.encode());
    }

    /// Has a record copied by the other holders; it is `stored` here already or not.
    fn copy_to(
        &mut self,
        client: NodeId,
        client_token: u64,
        aged: &Aged,
        others: &[NodeId],
        stored: u32,
        cx: &mut Cx<'_>,
    ) {
        if self.holder.copying.len() >= WAITING_MAX {
            let (token, outcome) = (client_token, Outcome::TooFew);
            return cx.send_to(client, DhtMessage::PutReply { token, outcome }.encode());
        }
        let id = self.holder.token();
        let waiting: BTreeSet<NodeId> = others.iter().copied().collect();
        let needed = majority(waiting.len() + 1);
        let copying = Copying {
            client,
            client_token,
            stored,
            needed,
            waiting,
        };
        self.holder.copying.insert(id, copying);
        self.deadlines.set(Alarm::Copy(id), cx.now() + COPY_TIMEOUT);
        for other in others {
            cx.send_to(
                *other,
                DhtMessage::Store {
                    token: id,
                    aged: aged.clone(),
                }
                .encode(),
            );
        }
    }

    pub(super) fn on_store(&mut self, from: NodeId, token: u64, aged: Aged, cx: &mut Cx<'_>) {
        // Whoever sends it: what is here already stays. Only neighbours, which hold the
        // same keys, may bring an earlier claim to bear (`reconcile`).
        let neighbour = cx.overlay().near().contains(from);
        let arrival = if neighbour {
            Arrival::Copy
        } else {
            Arrival::Put
        };
        let outcome = match self.accept(aged, from, arrival, cx) {
            Ok(()) => Outcome::Stored { replicas: 1 },
            Err(outcome) => outcome,
        };
        cx.send_to(from, DhtMessage::StoreReply { token, outcome }.encode());
    }

    /// The owner itself asks this node to keep a record, because the nodes that are nearest
    /// to the key are suspicious or failed it.
    pub(super) fn on_keep(&mut self, from: NodeId, token: u64, record: Record, cx: &mut Cx<'_>) {
        let (key, owner) = (record.key(), record.content().owner);
        let held = cx.overlay().near().arc_held(REPLICAS);
        let wide = !held.contains(key.position());
        let room = self.holder.wide.len() < WIDE_HELD_MAX;
        let outcome = if wide && !(room && sure::may_keep(key, cx)) {
            Outcome::Full
        } else {
            let aged = Aged { record, age_s: 0 };
            match self.accept(aged, from, Arrival::Put, cx) {
                Ok(()) => Outcome::Stored { replicas: 1 },
                Err(outcome) => outcome,
            }
        };
        if wide && matches!(outcome, Outcome::Stored { .. }) {
            self.holder.wide.insert((key, owner));
        }
        cx.send_to(from, DhtMessage::StoreReply { token, outcome }.encode());
    }

    pub(super) fn on_store_reply(
        &mut self,
        from: NodeId,
        token: u64,
        outcome: Outcome,
        cx: &mut Cx<'_>,
    ) {
        if self.handover_answered(from, token, outcome, cx) || self.sure_kept(from, token, cx) {
            return;
        }
        let Some(copying) = self.holder.copying.get_mut(&token) else {
            return;
        };
        if !copying.waiting.remove(&from) {
            return;
        }
        match outcome {
            Outcome::Stored { .. } => copying.stored += 1,
            Outcome::Taken | Outcome::Stale { .. } => {
                // This holder was behind the others: let them tell what it missed.
                self.schedule_repair(cx);
                return self.end_copying(token, outcome, cx);
            }
            Outcome::Full | Outcome::Invalid | Outcome::TooFew => {}
        }
        let (stored, over) = (copying.stored, copying.waiting.is_empty());
        if stored >= copying.needed {
            self.end_copying(token, Outcome::Stored { replicas: stored }, cx);
        } else if over {
            self.end_copying(token, Outcome::TooFew, cx);
        }
    }

    pub(super) fn copy_timed_out(&mut self, id: u64, cx: &mut Cx<'_>) {
        let silent = self.holder.copying.get(&id).map(|open| &open.waiting);
        silent.into_iter().flatten().for_each(|id| cx.suspect(*id));
        self.end_copying(id, Outcome::TooFew, cx);
    }

    fn end_copying(&mut self, id: u64, outcome: Outcome, cx: &mut Cx<'_>) {
        self.deadlines.cancel(Alarm::Copy(id));
        if let Some(Copying {
            client,
            client_token: token,
            ..
        }) = self.holder.copying.remove(&id)
        {
            cx.send_to(client, DhtMessage::PutReply { token, outcome }.encode());
        }
    }

    pub(super) fn on_question(&mut self, asker: Asker, body: &[u8], cx: &mut Cx<'_>) {
        let Ok(Question {
            key,
            consistency,
            known,
        }) = wire::decode(body)
        else {
            self.holder.malformed += 1;
            return;
        };
        let now = cx.now();
        let best: Vec<Aged> = self
            .holder
            .store
            .under(key, now)
            .map(|held| held.aged(now))
            .collect();
        let any = matches!(consistency, Consistency::Any | Consistency::Hasty);
        let others = other_holders(key, cx);
        let suffices = any && best.iter().any(|aged| !aged.record.content().removed);
        if suffices || others.is_empty() {
            return answer(asker, best, known, cx);
        }
        if self.holder.gathering.len() >= WAITING_MAX {
            return answer(asker, if any { best } else { Vec::new() }, known, cx);
        }
        let id = self.holder.token();
        let waiting: BTreeSet<NodeId> = others.iter().copied().collect();
        let needed = majority(waiting.len() + 1);
        let first_will_do = any;
        let mine = Summary::of(&wire::cut(best.clone()));
        let gathering = Gathering {
            asker,
            known,
            key,
            best,
            replies: 1,
            needed,
            waiting,
            first_will_do,
        };
        self.holder.gathering.insert(id, gathering);
        self.deadlines.set(Alarm::Gather(id), now + GATHER_TIMEOUT);
        for other in others {
            let fetch = DhtMessage::Fetch {
                token: id,
                key,
                known: Some(mine),
            };
            cx.send_to(other, fetch.encode());
        }
    }

    pub(super) fn on_fetch(
        &mut self,
        from: NodeId,
        token: u64,
        (key, known): (Key, Option<Summary>),
        cx: &mut Cx<'_>,
    ) {
        let now = cx.now();
        let held = self.holder.store.under(key, now);
        let records = wire::cut(held.map(|held| held.aged(now)).collect());
        let reply = match known.is_some() && known == Some(Summary::of(&records)) {
            true => DhtMessage::Same { token },
            false => DhtMessage::FetchReply { token, records },
        };
        cx.send_to(from, reply.encode());
    }

    /// Another holder has what this one had when it asked.
    pub(super) fn on_same(&mut self, from: NodeId, token: u64, cx: &mut Cx<'_>) {
        self.gathered(from, token, Vec::new(), cx);
    }

    pub(super) fn on_fetch_reply(
        &mut self,
        from: NodeId,
        token: u64,
        records: Vec<Aged>,
        cx: &mut Cx<'_>,
    ) {
        if !self.sure_fetched(from, token, &records, cx) {
            self.gathered(from, token, records, cx);
        }
    }

    /// Takes what another holder has besides what is known.
    fn gathered(&mut self, from: NodeId, token: u64, records: Vec<Aged>, cx: &mut Cx<'_>) {
        let Some(gathering) = self.holder.gathering.get_mut(&token) else {
            return;
        };
        if !gathering.waiting.remove(&from) {
            return;
        }
        let key = gathering.key;
        gathering.replies += 1;
        let new: Vec<Aged> = records
            .into_iter()
            .filter(|aged| aged.record.key() == key)
            .filter(|aged| {
                !gathering
                    .best
                    .iter()
                    .any(|known| known.record == aged.record)
            })
            .filter(|aged| aged.record.verify())
            .collect();
        for aged in &new {
            merge(&mut gathering.best, aged.clone());
        }
        let live = gathering
            .best
            .iter()
            .any(|aged| !aged.record.content().removed);
        let done = gathering.waiting.is_empty()
            || gathering.replies >= gathering.needed
            || (gathering.first_will_do && live);
        let neighbour = cx.overlay().near().contains(from);
        for aged in new.into_iter().filter(|_| neighbour) {
            // What was missing here is kept; a refusal changes nothing for the asker.
            let _ = self.keep(aged, from, Arrival::Repair, cx);
        }
        if done {
            self.end_gathering(token, cx);
        }
    }

    pub(super) fn gather_timed_out(&mut self, id: u64, cx: &mut Cx<'_>) {
        if let Some(gathering) = self.holder.gathering.get_mut(&id) {
            gathering.waiting.iter().for_each(|id| cx.suspect(*id));
            if !gathering.first_will_do && gathering.replies < gathering.needed {
                // Those who are silent may know of something newer. Without a majority nothing
                // is shown, and the asker turns to the holders itself, in the sure way.
                gathering.best.clear();
            }
        }
        self.end_gathering(id, cx);
    }

    fn end_gathering(&mut self, id: u64, cx: &mut Cx<'_>) {
        self.deadlines.cancel(Alarm::Gather(id));
        if let Some(Gathering {
            asker, known, best, ..
        }) = self.holder.gathering.remove(&id)
        {
            answer(asker, best, known, cx);
        }
    }

    /// Checks and stores a record that came from outside, and keeps it on disk.
    pub(super) fn accept(
        &mut self,
        aged: Aged,
        source: NodeId,
        arrival: Arrival,
        cx: &mut Cx<'_>,
    ) -> Result<(), Outcome> {
        if aged.record.verify() {
            self.keep(aged, source, arrival, cx)
        } else {
            Err(Outcome::Invalid)
        }
    }

    /// Stores a record whose signatures are checked, and keeps it on disk.
    pub(super) fn keep(
        &mut self,
        aged: Aged,
        source: NodeId,
        arrival: Arrival,
        cx: &mut Cx<'_>,
    ) -> Result<(), Outcome> {
        if self.holder.refusing || cx.overlay().is_client() {
            return Err(Outcome::Full);
        }
        let (key, owner) = (aged.record.key(), aged.record.content().owner);
        let kept = postcard::to_stdvec(&aged).unwrap_or_default();
        let change = self.holder.store.accept(cx.now(), aged, source, arrival)?;
        for displaced in change.displaced {
            cx.persist(held_key(key, displaced), None);
        }
        cx.persist(held_key(key, owner), Some(kept));
        Ok(())
    }

    /// Takes back what was kept before the last stop.
    pub(super) fn restore(&mut self, key: &[u8], value: &[u8], age_s: u64, cx: &mut Cx<'_>) {
        match key.first() {
            // A client holds nothing; the other holders still have it.
            Some(b'h') if cx.overlay().is_client() => cx.persist(key.to_vec(), None),
            Some(b'h') => self.restore_held(key, value, age_s, cx),
            Some(b'o') => self.restore_owned(value, cx),
            _ => {}
        }
    }

    fn restore_held(&mut self, key: &[u8], value: &[u8], age_s: u64, cx: &mut Cx<'_>) {
        let restored = postcard::from_bytes::<Aged>(value)
            .ok()
            .and_then(|mut aged| {
                aged.age_s = aged
                    .age_s
                    .saturating_add(u32::try_from(age_s).unwrap_or(u32::MAX));
                self.holder
                    .store
                    .accept(cx.now(), aged, RESTORED, Arrival::Restored)
                    .ok()
            });
        if restored.is_none() {
            cx.persist(key.to_vec(), None);
        }
    }

    pub(super) fn expire(&mut self, cx: &mut Cx<'_>) {
        self.deadlines
            .set(Alarm::Expire, cx.now() + EXPIRE_INTERVAL);
        for (key, owner) in self.holder.store.expire(cx.now()) {
            cx.persist(held_key(key, owner), None);
        }
        let Holder { wide, store, .. } = &mut self.holder;
        wide.retain(|(key, owner)| store.one(*key, *owner).is_some());
        self.reader.expire(cx.now());
    }
}

impl Holder {
    pub(super) fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }
}

/// The name under which a held record is kept on disk.
pub(super) fn held_key(key: Key, owner: NodeId) -> Vec<u8> {
    [b"h", &key.as_bytes()[..], owner.as_bytes()].concat()
}

/// The other nodes nearest to a key, as far as this one can see.
fn other_holders(key: Key, cx: &Cx<'_>) -> Vec<NodeId> {
    let me = cx.me();
    let nearest = cx.overlay().near().nearest(key.position(), REPLICAS);
    nearest
        .into_iter()
        .map(|place| place.id)
        .filter(|id| *id != me)
        .collect()
}

/// How many of so many holders are a majority.
pub(super) fn majority(holders: usize) -> u32 {
    holders as u32 / 2 + 1
}

/// Adds a record to what was found, by precedence. The marks of other owners' removals
/// stand beside a live record, as they do in the store.
fn merge(best: &mut Vec<Aged>, new: Aged) {
    let content = new.record.content();
    let rival = |known: &Aged| {
        let other = known.record.content();
        let both_live = !content.removed && !other.removed;
        content.owner == other.owner || (content.kind == Kind::Lease && both_live)
    };
    match best.iter().position(rival) {
        Some(index) if new.record.precedence(&best[index].record) == Precedence::Newer => {
            best[index] = new;
        }
        Some(_) => {}
        None => best.push(new),
    }
}

fn answer(asker: Asker, records: Vec<Aged>, known: Option<Summary>, cx: &mut Cx<'_>) {
    let records = wire::cut(records);
    let found = match known.is_some() && known == Some(Summary::of(&records)) {
        true => Found::Same,
        false => Found::Records(records),
    };
    cx.answer(asker, wire::encode(&found));
}
