//! The owner: this node's own records in the DHT.
//!
//! A put is tried with the node in charge, found anew for each try. What was put is
//! put again, first after a minute, then at intervals that double up to a third of the
//! lease (document 004, section 3.5: the interval grows exponentially, so that what
//! lasts costs little).

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::NodeId;
use enishi_overlay::overlay::{Density, Manner};
use enishi_overlay::view::Entry;

use super::sure::Purpose;
use super::wire::{DhtMessage, Outcome};
use super::{Alarm, Caller, Cx, Dht, Event, PutAnswer, PutRequest, REPLICAS};
use crate::record::{Content, Key, Kind, Record};

/// How often a put is tried.
const PUT_TRIES: u32 = 4;
/// How long to wait for the node in charge.
const PUT_TIMEOUT: Duration = Duration::from_millis(2500);
/// How long to wait before another try after a refusal by circumstances.
const PUT_PAUSE: Duration = Duration::from_millis(400);
/// Of how many nodes how close they sit tells something.
const TELLING: usize = 4;
/// The most puts that are under way.
const UNDER_WAY_MAX: usize = 512;
/// When a record is put again for the first time.
const REPUT_FIRST: Duration = Duration::from_secs(60);
/// How far a version may be ahead of the clock: a year, for clocks that were set wrong.
const SEQ_AHEAD_MAX: u64 = 365 * 86_400;
/// The most records that a node keeps in the DHT.
const OWNED_MAX: usize = 4096;

/// A put on its way.
#[derive(Debug)]
pub(super) struct Putting {
    /// None for a repetition.
    pub(super) caller: Option<Caller>,
    /// What was asked, to sign a higher version if holders know one.
    request: Option<PutRequest>,
    pub(super) record: Record,
    /// Whether it is a sure put ([`super::sure`]).
    sure: bool,
    tries: u32,
    holder: Option<NodeId>,
}

impl Putting {
    /// Returns what is written: the key and the owner.
    pub(super) fn slot(&self) -> (Key, NodeId) {
        (self.record.key(), self.record.content().owner)
    }
}

#[derive(Debug)]
struct Owned {
    record: Record,
    sure: bool,
    interval: Duration,
}

/// This node's own records, and the puts under way.
#[derive(Debug, Default)]
pub(super) struct Owner {
    owned: BTreeMap<(Key, NodeId), Owned>,
    putting: BTreeMap<u64, Putting>,
}

impl Owner {
    pub(super) fn len(&self) -> usize {
        self.owned.len()
    }
}

impl Dht {
    pub(super) fn start_put(
        &mut self,
        caller: Caller,
        request: PutRequest,
        sure: bool,
        cx: &mut Cx<'_>,
    ) {
        let full = self.owner.owned.len() >= OWNED_MAX && request.value.is_some();
        // What is there can always be taken away.
        let slot = (
            Key::new(request.kind, &request.writer.id()),
            request.owner.id(),
        );
        let withdraws = request.value.is_none() && self.owner.owned.contains_key(&slot);
        if full || (self.owner.putting.len() >= UNDER_WAY_MAX && !withdraws) {
            return cx.emit(Event::PutDone {
                caller,
                answer: PutAnswer::Full,
            });
        }
        let record = self.sign(&request, 0, cx);
        self.supersede((record.key(), record.content().owner), cx);
        self.own(&record, sure, cx);
        let request = Some(request);
        let putting = Putting {
            caller: Some(caller),
            request,
            record,
            sure,
            tries: 0,
            holder: None,
        };
        self.begin(putting, cx);
    }

    /// Ends puts of earlier versions: a late try of one must not come after this.
    fn supersede(&mut self, slot: (Key, NodeId), cx: &mut Cx<'_>) {
        self.supersede_sure(slot, cx);
        let same = |p: &Putting| p.slot() == slot;
        let putting = self.owner.putting.iter();
        let older: Vec<u64> = putting
            .filter(|(_, p)| same(p))
            .map(|(id, _)| *id)
            .collect();
        for id in older {
            self.deadlines.cancel(Alarm::Put(id));
            let caller = self.owner.putting.remove(&id).and_then(|p| p.caller);
            if let Some(caller) = caller {
                let answer = PutAnswer::Failed;
                cx.emit(Event::PutDone { caller, answer });
            }
        }
    }

    /// Signs the next version: above what this node wrote, above what holders are said
    /// to have, and, should this node have lost its memory, above the clock.
    fn sign(&self, request: &PutRequest, above: u64, cx: &Cx<'_>) -> Record {
        let key = Key::new(request.kind, &request.writer.id());
        let present = self.owner.owned.get(&(key, request.owner.id()));
        let present = present.map(|owned| owned.record.content());
        let written = present.map_or(0, |content| content.seq);
        let content = Content {
            kind: request.kind,
            writer: request.writer.id(),
            owner: request.owner.id(),
            seq: written.max(above).saturating_add(1).max(cx.unix_s()),
            since_unix_s: present.map_or(cx.unix_s(), |content| content.since_unix_s),
            lease_s: request.lease_s,
            removed: request.value.is_none(),
            value: request.value.clone().unwrap_or_default(),
        };
        Record::sign(content, &request.writer, &request.owner)
    }

    fn begin(&mut self, putting: Putting, cx: &mut Cx<'_>) {
        if putting.sure {
            return self.start_sure(Purpose::Put(Box::new(putting)), cx);
        }
        let token = self.holder.token();
        let target = putting.record.key().position();
        cx.locate(token, target, Manner::EXACT);
        self.owner.putting.insert(token, putting);
    }

    /// The nodes in charge are known: send to the first, or to another after a failure.
    pub(super) fn put_located(&mut self, token: u64, nodes: &[Entry], cx: &mut Cx<'_>) {
        let Some(putting) = self.owner.putting.get_mut(&token) else {
            // An answer to a question that was not asked: a get wants records.
            return self.call_failed(token, cx);
        };
        let Some(holder) = nodes.first().map(|entry| &entry.contact) else {
            return self.try_again(token, cx);
        };
        // Far from the key, or in a crowd at it: somebody may want to be taken for the node
        // in charge.
        let overlay = cx.overlay();
        let place = putting.record.key().position();
        let told = &nodes[..nodes.len().min(REPLICAS)];
        let telling = told.len() >= TELLING && !overlay.near().spans_ring();
        // A lease is given to one owner only, by those who are in charge: it is not put in
        // the sure way unless that is asked for, since others would take it beside them.
        let lease = putting.record.content().kind == Kind::Lease;
        if telling && !lease && overlay.density(place, told) != Density::Usual {
            return self.put_surely(token, cx);
        }
        putting.holder = Some(holder.id());
        let record = putting.record.clone();
        self.deadlines
            .set(Alarm::Put(token), cx.now() + PUT_TIMEOUT);
        cx.send(holder.clone(), DhtMessage::Put { token, record }.encode());
    }

    /// Goes on with a put in the sure way.
    fn put_surely(&mut self, token: u64, cx: &mut Cx<'_>) {
        self.deadlines.cancel(Alarm::Put(token));
        if let Some(mut putting) = self.owner.putting.remove(&token) {
            putting.sure = true;
            self.begin(putting, cx);
        }
    }

    pub(super) fn put_timed_out(&mut self, token: u64, cx: &mut Cx<'_>) {
        let silent = self.owner.putting.get(&token).and_then(|put| put.holder);
        silent.into_iter().for_each(|id| cx.suspect(id));
        self.try_again(token, cx);
    }

    pub(super) fn try_again(&mut self, token: u64, cx: &mut Cx<'_>) {
        self.deadlines.cancel(Alarm::Put(token));
        let Some(mut putting) = self.owner.putting.remove(&token) else {
            return;
        };
        putting.tries += 1;
        putting.holder = None;
        if putting.tries >= PUT_TRIES && putting.record.content().kind == Kind::Lease {
            return self.end_put(&putting, PutAnswer::Failed, cx);
        }
        if putting.tries >= PUT_TRIES {
            putting.sure = true;
        }
        self.begin(putting, cx);
    }

    pub(super) fn on_put_reply(
        &mut self,
        from: NodeId,
        token: u64,
        outcome: Outcome,
        cx: &mut Cx<'_>,
    ) {
        let awaited = self
            .owner
            .putting
            .get(&token)
            .is_some_and(|p| p.holder == Some(from));
        if !awaited {
            return;
        }
        self.deadlines.cancel(Alarm::Put(token));
        if outcome == Outcome::TooFew {
            // The alarm ends the pause and starts the next try.
            return self.deadlines.set(Alarm::Put(token), cx.now() + PUT_PAUSE);
        }
        let Some(putting) = self.owner.putting.remove(&token) else {
            return;
        };
        let seq = putting.record.content().seq;
        let answer = match outcome {
            Outcome::Stored { replicas } => PutAnswer::Stored { seq, replicas },
            Outcome::Stale { seq } => return self.raise(putting, seq, cx),
            Outcome::Taken => PutAnswer::Taken,
            Outcome::Full => PutAnswer::Full,
            Outcome::Invalid | Outcome::TooFew => PutAnswer::Failed,
        };
        self.end_put(&putting, answer, cx);
    }

    /// Holders know a higher version of this owner's: sign one above it, once. Versions
    /// follow the clock, so one far beyond it is a lie that would leave no room above.
    pub(super) fn raise(&mut self, mut putting: Putting, above: u64, cx: &mut Cx<'_>) {
        let credible = above < cx.unix_s().saturating_add(SEQ_AHEAD_MAX);
        match putting.request.take().filter(|_| credible) {
            Some(request) => {
                putting.record = self.sign(&request, above, cx);
                self.own(&putting.record, putting.sure, cx);
                self.begin(putting, cx);
            }
            None => self.end_put(&putting, PutAnswer::Failed, cx),
        }
    }

    pub(super) fn end_put(&mut self, putting: &Putting, answer: PutAnswer, cx: &mut Cx<'_>) {
        let content = putting.record.content();
        let slot = (putting.record.key(), content.owner);
        match answer {
            PutAnswer::Stored { .. } if content.removed => self.disown(slot, cx),
            PutAnswer::Stored { .. } | PutAnswer::Failed | PutAnswer::Full => {
                self.schedule_reput(slot, matches!(answer, PutAnswer::Stored { .. }), cx);
            }
            PutAnswer::Taken => self.disown(slot, cx),
        }
        if let Some(caller) = putting.caller {
            cx.emit(Event::PutDone { caller, answer });
        }
    }

    /// Keeps a record as this node's own, on disk before it is sent.
    fn own(&mut self, record: &Record, sure: bool, cx: &mut Cx<'_>) {
        let slot = (record.key(), record.content().owner);
        cx.persist(owned_key(slot), postcard::to_stdvec(record).ok());
        self.owner.owned.insert(
            slot,
            Owned {
                record: record.clone(),
                sure,
                interval: REPUT_FIRST,
            },
        );
    }

    fn disown(&mut self, slot: (Key, NodeId), cx: &mut Cx<'_>) {
        cx.persist(owned_key(slot), None);
        self.owner.owned.remove(&slot);
        self.deadlines.cancel(Alarm::Reput(slot.0, slot.1));
    }

    fn schedule_reput(&mut self, slot: (Key, NodeId), stored: bool, cx: &mut Cx<'_>) {
        let Some(owned) = self.owner.owned.get_mut(&slot) else {
            return;
        };
        let wait = cx.rng().jitter(owned.interval);
        if stored {
            let third = Duration::from_secs(u64::from(owned.record.content().lease_s) / 3);
            owned.interval = (owned.interval * 2).min(third);
        } else {
            owned.interval = REPUT_FIRST;
        }
        self.deadlines
            .set(Alarm::Reput(slot.0, slot.1), cx.now() + wait);
    }

    pub(super) fn put_again(&mut self, key: Key, owner: NodeId, cx: &mut Cx<'_>) {
        if let Some(owned) = self.owner.owned.get(&(key, owner)) {
            let (record, sure) = (owned.record.clone(), owned.sure);
            let putting = Putting {
                caller: None,
                request: None,
                record,
                sure,
                tries: 0,
                holder: None,
            };
            self.begin(putting, cx);
        }
    }

    pub(super) fn restore_owned(&mut self, value: &[u8], cx: &mut Cx<'_>) {
        let Ok(record) = postcard::from_bytes::<Record>(value) else {
            return;
        };
        let slot = (record.key(), record.content().owner);
        self.owner.owned.insert(
            slot,
            Owned {
                record,
                sure: false,
                interval: REPUT_FIRST,
            },
        );
        let wait = cx.rng().duration_below(Duration::from_secs(5));
        self.deadlines.set(
            Alarm::Reput(slot.0, slot.1),
            cx.now() + Duration::from_secs(2) + wait,
        );
    }
}

/// The name under which a record of this node's is kept on disk.
fn owned_key((key, owner): (Key, NodeId)) -> Vec<u8> {
    [b"o", &key.as_bytes()[..], owner.as_bytes()].concat()
}
