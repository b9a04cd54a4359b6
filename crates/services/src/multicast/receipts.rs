//! Receipts: how many have got a message.
//!
//! Everyone answers to the neighbour from whom it has the message: for itself and for those
//! to whom it passed it on, once they have answered or were given up. What comes later is
//! passed up as a difference. A neighbour that neither answers nor says that it has the
//! message from somebody else counts as one who should have it and has not.

use std::collections::BTreeSet;
use std::time::Duration;

use enishi_overlay::{NodeId, Time};

use super::group::{Alarm, Group};
use super::wire::{Body, Data, Flow};
use super::{Cx, Event};
use crate::calls::Receipts;

/// How long the author counts.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much shorter each hop waits, so that what it counted is in time for the one before.
const SHORTER_BY: Duration = Duration::from_millis(300);
/// The shortest that anyone waits.
const PATIENCE_MIN: Duration = Duration::from_millis(500);
/// How long what comes late is still passed up.
const LATE: Duration = Duration::from_secs(5);
/// The most counts of one group under way; further ones are not begun.
const COUNTS_MAX: usize = 64;
/// The most that one neighbour can say at once.
const SAID_MAX: i32 = 1 << 20;

/// To whom is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// The neighbour from whom the message came.
    Node(NodeId),
    /// Who subscribed here, by its number for the message.
    Own(u64),
}

/// A count under way.
#[derive(Debug)]
pub(super) struct Count {
    asker: Asker,
    /// Who has not answered.
    waiting: BTreeSet<NodeId>,
    /// Who did not answer in time.
    missing: BTreeSet<NodeId>,
    /// What is not passed up yet.
    received: i32,
    expected: i32,
    due: Time,
    reported: bool,
}

impl Group {
    /// Begins to count a message of this node's.
    pub(super) fn begin_own_count(
        &mut self,
        data: &Data,
        token: Option<u64>,
        to: &[NodeId],
        cx: &mut Cx<'_>,
    ) {
        if let Some(token) = token {
            self.count(data, Asker::Own(token), 0, to, cx);
        }
    }

    /// Begins to count a message that came from a neighbour, if its author wants to know.
    pub(super) fn begin_count(
        &mut self,
        data: &Data,
        from: NodeId,
        to: &[NodeId],
        cx: &mut Cx<'_>,
    ) {
        if data.receipts {
            let me = i32::from(self.member.is_some());
            self.count(data, Asker::Node(from), me, to, cx);
        }
    }

    fn count(&mut self, data: &Data, asker: Asker, me: i32, to: &[NodeId], cx: &mut Cx<'_>) {
        let slot = (data.flow, data.number);
        if self.counts.len() >= COUNTS_MAX {
            return self.conclude(asker, slot, me, me, cx);
        }
        let shorter = SHORTER_BY * u32::from(data.hops);
        let due = cx.now() + PATIENCE.saturating_sub(shorter).max(PATIENCE_MIN);
        let count = Count {
            asker,
            waiting: to.iter().copied().collect(),
            missing: BTreeSet::new(),
            received: me,
            expected: me,
            due,
            reported: false,
        };
        self.counts.insert(slot, count);
        self.deadlines.set_no_later(Alarm::Count, due);
        self.report_if_complete(slot, cx);
    }

    /// A neighbour says how many have a message.
    pub(super) fn on_receipt(
        &mut self,
        from: NodeId,
        slot: (Flow, u64),
        (received, expected): (i32, i32),
        cx: &mut Cx<'_>,
    ) {
        let Some(count) = self.counts.get_mut(&slot) else {
            return;
        };
        let asked = count.waiting.remove(&from);
        let was_missing = count.missing.remove(&from);
        if !(asked || was_missing || self.links.contains_key(&from)) {
            return;
        }
        let said = |number: i32| number.clamp(-SAID_MAX, SAID_MAX);
        count.received = count.received.saturating_add(said(received));
        count.expected = count.expected.saturating_add(said(expected));
        count.expected -= i32::from(was_missing);
        self.report_if_complete(slot, cx);
    }

    /// A neighbour has this author's messages from somebody else, who will answer for it.
    pub(super) fn child_has(&mut self, child: NodeId, flow: Flow, cx: &mut Cx<'_>) {
        let slots = self.counts.keys().filter(|slot| slot.0 == flow);
        let slots: Vec<(Flow, u64)> = slots.copied().collect();
        for slot in slots {
            if let Some(count) = self.counts.get_mut(&slot)
                && count.waiting.remove(&child)
            {
                self.report_if_complete(slot, cx);
            }
        }
    }

    /// A neighbour is gone: it counts as one that has nothing.
    pub(super) fn child_gone(&mut self, child: NodeId, cx: &mut Cx<'_>) {
        let slots: Vec<(Flow, u64)> = self.counts.keys().copied().collect();
        for slot in slots {
            if let Some(count) = self.counts.get_mut(&slot)
                && count.waiting.remove(&child)
            {
                count.missing.insert(child);
                count.expected += 1;
                self.report_if_complete(slot, cx);
            }
        }
    }

    /// Answers a second copy for which no other neighbour answers.
    pub(super) fn answer_again(&self, to: NodeId, data: &Data, cx: &mut Cx<'_>) {
        let slot = (data.flow, data.number);
        self.conclude(Asker::Node(to), slot, 0, 0, cx);
    }

    /// Gives up who did not answer in time.
    pub(super) fn end_counts(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now();
        let due = self.counts.iter().filter(|(_, count)| count.due <= now);
        let due: Vec<(Flow, u64)> = due.map(|(slot, _)| *slot).collect();
        for slot in due {
            let Some(count) = self.counts.get_mut(&slot) else {
                continue;
            };
            if count.reported {
                self.counts.remove(&slot);
                continue;
            }
            let silent = std::mem::take(&mut count.waiting);
            count.expected += silent.len() as i32;
            count.missing.extend(silent);
            self.report_if_complete(slot, cx);
        }
        if let Some(next) = self.counts.values().map(|count| count.due).min() {
            self.deadlines.set(Alarm::Count, next);
        }
    }

    /// Passes up what was counted, when nobody is waited for.
    fn report_if_complete(&mut self, slot: (Flow, u64), cx: &mut Cx<'_>) {
        let Some(count) = self.counts.get_mut(&slot) else {
            return;
        };
        if !count.waiting.is_empty() {
            return;
        }
        let received = std::mem::take(&mut count.received);
        let expected = std::mem::take(&mut count.expected);
        let asker = count.asker;
        if !count.reported {
            count.reported = true;
            count.due = cx.now() + LATE;
        } else if (received, expected) == (0, 0) {
            return;
        }
        if let Asker::Own(_) = asker {
            self.counts.remove(&slot);
        }
        self.conclude(asker, slot, received, expected, cx);
    }

    fn conclude(
        &self,
        asker: Asker,
        (flow, number): (Flow, u64),
        received: i32,
        expected: i32,
        cx: &mut Cx<'_>,
    ) {
        match asker {
            Asker::Node(to) => {
                let receipt = Body::Receipt {
                    flow,
                    number,
                    received,
                    expected,
                };
                self.say(to, &receipt, cx);
            }
            Asker::Own(token) => {
                let Some(member) = &self.member else {
                    return;
                };
                let whole = |number: i32| u32::try_from(number).unwrap_or(0);
                let receipts = Some(Receipts {
                    group: member.name,
                    number,
                    expected: whole(expected),
                    received: whole(received),
                });
                let subscriber = member.subscriber;
                cx.emit(Event::Receipts {
                    subscriber,
                    token,
                    receipts,
                });
            }
        }
    }
}
