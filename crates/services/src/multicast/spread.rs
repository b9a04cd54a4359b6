//! How messages spread: to all who are linked and did not say that they have them from
//! somebody else.
//!
//! The first messages of an author take every link, and each member notes which link brings
//! them soonest. It keeps that one and asks the others to send nothing more of this author:
//! what is left is the tree of the fastest ways from this author to all. Whoever gets
//! something twice later on says so at once (Plumtree: J. Leitão, J. Pereira, L. Rodrigues,
//! "Epidemic Broadcast Trees", SRDS 2007, section 3). Unlike there each author has a tree of
//! its own, at the price of 8 octets for each author: with one tree for all, only the first
//! author's messages take the fastest ways. And not the first message alone decides, which
//! may have been late on the best way.

use bytes::Bytes;
use enishi_overlay::{NodeId, Time};

use super::flow::RECEIVED_RATE;
use super::group::{Alarm, Group};
use super::keys::Opened;
use super::repair::{ANNOUNCED_AFTER, GRAFTED_AFTER};
use super::wire::{Body, Data, Flow};
use super::{AUTHOR_RATE, Cx, Event, HOPS_MAX, PAYLOAD_BYTES_MAX};
use crate::calls::{Heard, Order, Tree};

impl Group {
    /// Publishes a message; tells whether it went out: not when it is too long, or too
    /// much was published of late.
    pub(super) fn publish(
        &mut self,
        payload: Bytes,
        receipts: Option<u64>,
        cx: &mut Cx<'_>,
    ) -> bool {
        let (now, direct) = (cx.now(), self.is_small());
        let Some(member) = &mut self.member else {
            return false;
        };
        if payload.len() > PAYLOAD_BYTES_MAX || !member.bucket.take(AUTHOR_RATE, now) {
            self.counters.refused += 1;
            return false;
        }
        member.published += 1;
        let mut data = Data {
            flow: member.flow,
            number: member.published,
            hops: 0,
            age_ms: 0,
            direct,
            receipts: receipts.is_some(),
            sealed: Bytes::new(),
        };
        let (keys, incarnation) = (&member.keys, member.incarnation);
        let keypair = cx.keypair.clone();
        keys.seal(cx.rng(), &keypair, incarnation, payload, &mut data);
        if let Some(own) = self.flows.get_mut(&data.flow) {
            own.window.note(data.number);
            own.heard_at = now;
        }
        self.keep(&data, now);
        let to = match direct {
            true => self.known.ids(),
            false => self.onward(data.flow, None),
        };
        self.begin_own_count(&data, receipts, &to, cx);
        self.send_data(&to, &data, cx);
        self.announce_later(data.flow, now);
        true
    }

    /// A message came.
    pub(super) fn on_data(&mut self, from: NodeId, data: &Data, cx: &mut Cx<'_>) {
        // A member sees by the seal whether something is genuine, whoever brings it: links
        // change while messages are on their way. Others forward for their neighbours only.
        let may_bring = self.member.is_some() || self.links.contains_key(&from);
        if !may_bring || data.hops >= HOPS_MAX {
            self.counters.refused += 1;
            return;
        }
        let known = self.flows.get(&data.flow);
        if known.is_some_and(|flow| flow.window.has(data.number)) {
            return self.on_duplicate(from, data, cx);
        }
        let opened = self.member.as_ref().map(|member| member.keys.open(data));
        match opened {
            Some(None) => self.counters.refused += 1,
            Some(Some(opened)) => self.accept(from, data, Some(opened), cx),
            None => self.accept(from, data, None, cx),
        }
    }

    /// Takes in a new message: a genuine one, or, forwarding for others, one that cannot be
    /// read.
    fn accept(&mut self, from: NodeId, data: &Data, opened: Option<Opened>, cx: &mut Cx<'_>) {
        let now = cx.now();
        let was_before = self.was_before(data.age_ms, now);
        let author = opened
            .as_ref()
            .map(|opened| (opened.author, opened.incarnation));
        let Some(flow) = self.flow_of(data.flow, data.number, author, now) else {
            self.counters.refused += 1;
            return;
        };
        if flow.window.has(data.number) || !flow.bucket.take(RECEIVED_RATE, now) {
            self.counters.refused += 1;
            return;
        }
        if flow.window.is_newest(data.number) {
            flow.parent = Some(from);
            flow.exploration.note(data.number, from, now);
        }
        flow.window.note(data.number);
        if was_before {
            flow.window.skip(data.number);
        }
        flow.heard_at = now;
        if flow.note_gap(from, now) {
            self.deadlines
                .set_no_later(Alarm::Repair, now + GRAFTED_AFTER);
        }
        self.counters.received += 1;
        self.keep(data, now);
        let to = match data.direct {
            true => Vec::new(),
            false => self.onward(data.flow, Some(from)),
        };
        self.begin_count(data, from, &to, cx);
        self.send_data(&to, data, cx);
        self.announce_later(data.flow, now);
        match opened {
            Some(opened) if !was_before => self.deliver(data, opened, cx),
            _ => self.hand_over_held(data.flow, cx),
        }
    }

    /// Gives a message to who subscribed, at once or when all before it were given.
    fn deliver(&mut self, data: &Data, opened: Opened, cx: &mut Cx<'_>) {
        let Some(member) = &self.member else {
            return;
        };
        match member.order {
            Order::None => self.hand_over(opened.author, opened.payload, cx),
            Order::PerSender => {
                if let Some(flow) = self.flows.get_mut(&data.flow) {
                    flow.held.insert(data.number, opened.payload);
                }
                self.hand_over_held(data.flow, cx);
            }
        }
    }

    /// Gives what waited in its order and has nothing missing before it.
    pub(super) fn hand_over_held(&mut self, flow: Flow, cx: &mut Cx<'_>) {
        let Some(state) = self.flows.get_mut(&flow) else {
            return;
        };
        let Some((author, _)) = state.author else {
            return;
        };
        for payload in state.release() {
            self.hand_over(author, payload, cx);
        }
    }

    fn hand_over(&self, author: NodeId, payload: Bytes, cx: &mut Cx<'_>) {
        if let Some(member) = &self.member {
            let heard = Heard {
                group: member.name,
                author,
                payload,
            };
            let subscriber = member.subscriber;
            cx.emit(Event::Heard { subscriber, heard });
        }
    }

    /// Something came that was there. Its sender has it from elsewhere, and this node too.
    fn on_duplicate(&mut self, from: NodeId, data: &Data, cx: &mut Cx<'_>) {
        self.counters.duplicates += 1;
        let Some(state) = self.flows.get_mut(&data.flow) else {
            return;
        };
        let in_tree = self.tree == Tree::Biased && !data.direct && state.parent != Some(from);
        let explores = in_tree && state.exploration.note(data.number, from, cx.now());
        if in_tree && !explores {
            if let Some(link) = self.links.get(&from) {
                state.pruned |= link.bit();
            }
            let flow = data.flow;
            self.child_has(from, flow, cx);
            self.say(from, &Body::Prune { flow }, cx);
        } else if data.receipts {
            self.answer_again(from, data, cx);
        }
    }

    /// Chooses the fastest of the links by which the first messages came.
    pub(super) fn choose_parent(&mut self, flow: Flow, cx: &mut Cx<'_>) {
        let Some(state) = self.flows.get_mut(&flow) else {
            return;
        };
        if !state.exploration.is_over() {
            return;
        }
        if let Some((best, others)) = state.exploration.conclude() {
            state.parent = Some(best);
            self.say_to_all(&others, &Body::Prune { flow }, cx);
        }
    }

    pub(super) fn on_prune(&mut self, from: NodeId, flow: Flow, cx: &mut Cx<'_>) {
        let link = self.links.get(&from).filter(|_| self.tree == Tree::Biased);
        let Some(bit) = link.map(super::group::Link::bit) else {
            return;
        };
        if let Some(state) = self.flows.get_mut(&flow) {
            state.pruned |= bit;
            self.child_has(from, flow, cx);
        }
    }

    /// Returns who is sent a message that came from somewhere.
    fn onward(&self, flow: Flow, from: Option<NodeId>) -> Vec<NodeId> {
        let pruned = self.flows.get(&flow).map_or(0, |state| state.pruned);
        let links = self.links.iter();
        links
            .filter(|(id, link)| Some(**id) != from && pruned & link.bit() == 0)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Sends a message on by one hop.
    pub(super) fn send_data(&mut self, to: &[NodeId], data: &Data, cx: &mut Cx<'_>) {
        let mut onward = data.clone();
        onward.hops = onward.hops.saturating_add(1);
        self.counters.sent += to.len() as u64;
        self.say_to_all(to, &Body::Data(onward), cx);
    }

    fn announce_later(&mut self, flow: Flow, now: Time) {
        if self.tree == Tree::Biased {
            if !self.fresh.contains(&flow) {
                self.fresh.push(flow);
            }
            self.deadlines
                .set_no_later(Alarm::Announce, now + ANNOUNCED_AFTER);
        }
    }
}
