//! One group on this node: its parts, and what is common to them.

use std::time::Duration;

use bytes::Bytes;
use enishi_overlay::deadlines::Deadlines;
use enishi_overlay::small_map::SmallMap;
use enishi_overlay::{Contact, Coordinate, NodeId, Time};

use super::flow::FlowState;
use super::keys::GroupKeys;
use super::known::Known;
use super::receipts::Count;
use super::store::Store;
use super::wire::{Body, Data, Flow, Tag};
use super::{AUTHOR_RATE, CHILDREN_MAX, Counters, Cx, LINKS_MAX, SMALL_MAX, Subscriber};
use crate::bucket::{Bucket, Rate};
use crate::calls::{GroupName, GroupSpec, Order, Tree};

/// How many messages one neighbour may send about a group.
const SOURCE_RATE: Rate = Rate {
    per_s: 1024,
    burst: 4096,
};
/// How many all those may send who are no neighbours.
const STRANGERS_RATE: Rate = Rate {
    per_s: 256,
    burst: 1024,
};

/// What happens when, of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// See to the links.
    Tend,
    /// Tell all neighbours what is there.
    Digest,
    /// Tell some what has just come.
    Announce,
    /// Ask for what is missing.
    Repair,
    /// Look who is at the rendezvous.
    Meet,
    /// A count ends.
    Count,
}

/// What a link is to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// To a member that is near in the network.
    Near,
    /// To a member drawn from all.
    Far,
    /// To every member of a small group.
    Mesh,
    /// Scribe: to the next node on the way to the rendezvous.
    Parent,
}

/// A neighbour in the group.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) contact: Contact,
    pub(super) coordinate: Coordinate,
    /// What it is to this node; none when only the other end wants it.
    pub(super) mine: Option<Role>,
    /// Whether the other end wants it.
    pub(super) theirs: bool,
    pub(super) heard_at: Time,
    /// Its bit in [`FlowState::pruned`].
    pub(super) slot: u32,
    bucket: Bucket,
}

/// What a group is to a member; who only forwards has none of it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: GroupName,
    pub(super) subscriber: Subscriber,
    pub(super) order: Order,
    pub(super) keys: GroupKeys,
    /// The number of this life of the author's; grows.
    pub(super) incarnation: u64,
    pub(super) flow: Flow,
    /// How many messages this node has published.
    pub(super) published: u64,
    pub(super) bucket: Bucket,
    /// Whether this node has an entry at the rendezvous.
    pub(super) has_entry: bool,
}

/// One group on this node.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) tag: Tag,
    /// Tells its calls from those of other groups.
    pub(super) serial: u32,
    pub(super) tree: Tree,
    pub(super) member: Option<Member>,
    pub(super) links: SmallMap<NodeId, Link>,
    /// Who was asked for a link, for what, and when.
    pub(super) asking: SmallMap<NodeId, (Role, Time)>,
    pub(super) known: Known,
    pub(super) flows: SmallMap<Flow, FlowState>,
    pub(super) store: Store,
    pub(super) counts: SmallMap<(Flow, u64), Count>,
    /// Whose messages came since the last announcement.
    pub(super) fresh: Vec<Flow>,
    pub(super) deadlines: Deadlines<Alarm>,
    /// Since when this node takes part.
    pub(super) since: Time,
    /// Until links are seen to again.
    pub(super) pause: Duration,
    pub(super) counters: Counters,
    strangers: Bucket,
}

impl Group {
    /// Makes the group of a member.
    pub(super) fn of_member(
        serial: u32,
        spec: &GroupSpec,
        subscriber: Subscriber,
        cx: &mut Cx<'_>,
    ) -> Self {
        let keys = GroupKeys::new(spec.name, &spec.secret);
        // Above that of any earlier life, as long as the clock does not go back.
        let incarnation = cx.unix_s() << 16 | cx.rng().below(1 << 16);
        let flow = keys.flow(&cx.me(), incarnation);
        let mut group = Self::new(serial, keys.tag, spec.tree, cx.now());
        group.member = Some(Member {
            name: spec.name,
            subscriber,
            order: spec.order,
            keys,
            incarnation,
            flow,
            published: 0,
            bucket: Bucket::full(AUTHOR_RATE, cx.now()),
            has_entry: false,
        });
        let own = FlowState::own((cx.me(), incarnation), cx.now());
        group.flows.insert(flow, own);
        group
    }

    /// Makes the group of a node that is no member.
    pub(super) fn of_forwarder(serial: u32, tag: Tag, now: Time) -> Self {
        Self::new(serial, tag, Tree::Scribe, now)
    }

    fn new(serial: u32, tag: Tag, tree: Tree, now: Time) -> Self {
        Self {
            tag,
            serial,
            tree,
            member: None,
            links: SmallMap::new(),
            asking: SmallMap::new(),
            known: Known::default(),
            flows: SmallMap::new(),
            store: Store::default(),
            counts: SmallMap::new(),
            fresh: Vec::new(),
            deadlines: Deadlines::default(),
            since: now,
            pause: Duration::ZERO,
            counters: Counters::default(),
            strangers: Bucket::full(STRANGERS_RATE, now),
        }
    }

    /// Takes in what another node says about the group.
    pub(super) fn receive(&mut self, from: NodeId, body: Body, cx: &mut Cx<'_>) {
        if !self.admits(from, cx.now()) {
            self.counters.refused += 1;
            return;
        }
        match body {
            Body::Data(data) => self.on_data(from, &data, cx),
            Body::Prune { flow } => self.on_prune(from, flow, cx),
            Body::Graft { wanted } => self.on_graft(from, wanted, cx),
            Body::Digest { has } => self.on_digest(from, &has, cx),
            Body::Receipt {
                flow,
                number,
                received,
                expected,
            } => self.on_receipt(from, (flow, number), (received, expected), cx),
            Body::Link(sealed) => self.on_link(from, &sealed, cx),
            Body::Exchange(sealed) => self.on_exchange(from, &sealed, cx),
            Body::Join => self.on_join(from, cx),
            Body::Joined => self.on_joined(from, cx),
            Body::Leave => self.on_leave(from, cx),
        }
    }

    /// Works off what is due.
    pub(super) fn ring(&mut self, cx: &mut Cx<'_>) {
        while let Some(alarm) = self.deadlines.pop_due(cx.now()) {
            match alarm {
                Alarm::Tend => self.tend(cx),
                Alarm::Digest => self.tell_all(cx),
                Alarm::Announce => self.announce(cx),
                Alarm::Repair => self.repair(cx),
                Alarm::Meet => self.meet(cx),
                Alarm::Count => self.end_counts(cx),
            }
        }
    }

    /// Tells whether the sender may be heard, and counts what it sends.
    fn admits(&mut self, from: NodeId, now: Time) -> bool {
        match self.links.get_mut(&from) {
            Some(link) => {
                link.heard_at = now;
                link.bucket.take(SOURCE_RATE, now)
            }
            None => self.strangers.take(STRANGERS_RATE, now),
        }
    }

    /// Tells whether all members are known and few enough to be sent to one by one.
    pub(super) fn is_small(&self) -> bool {
        self.tree == Tree::Biased && self.known.len() < SMALL_MAX
    }

    /// Says something to one node.
    pub(super) fn say(&self, to: NodeId, body: &Body, cx: &mut Cx<'_>) {
        self.pass(to, body.encode(self.tag).into(), cx);
    }

    /// Says the same to several nodes.
    pub(super) fn say_to_all(&self, to: &[NodeId], body: &Body, cx: &mut Cx<'_>) {
        if to.is_empty() {
            return;
        }
        let octets = Bytes::from(body.encode(self.tag));
        for id in to {
            self.pass(*id, octets.clone(), cx);
        }
    }

    fn pass(&self, to: NodeId, octets: Bytes, cx: &mut Cx<'_>) {
        let link = self.links.get(&to).map(|link| &link.contact);
        match link.or_else(|| self.known.contact(to)).cloned() {
            Some(contact) => cx.send(contact, octets),
            None => cx.send_to(to, octets),
        }
    }

    /// Makes a link, or returns the one that is there; none when there are too many.
    pub(super) fn link_with(
        &mut self,
        contact: &Contact,
        coordinate: Coordinate,
        now: Time,
    ) -> Option<&mut Link> {
        let id = contact.id();
        if !self.links.contains_key(&id) {
            let taken = self
                .links
                .values()
                .fold(0, |taken, link| taken | link.bit());
            let most = match self.tree {
                Tree::Biased => LINKS_MAX,
                Tree::Scribe => CHILDREN_MAX,
            };
            let slot = (0..most).find(|slot| taken & 1 << slot == 0)?;
            self.links.insert(
                id,
                Link {
                    contact: contact.clone(),
                    coordinate,
                    mine: None,
                    theirs: false,
                    heard_at: now,
                    slot,
                    bucket: Bucket::full(SOURCE_RATE, now),
                },
            );
        }
        let link = self.links.get_mut(&id)?;
        link.coordinate = coordinate;
        Some(link)
    }

    /// Forgets a link: what came by it is asked of the others.
    pub(super) fn unlink(&mut self, id: NodeId, cx: &mut Cx<'_>) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        for flow in self.flows.iter_mut().map(|(_, flow)| flow) {
            flow.pruned &= !link.bit();
        }
        self.child_gone(id, cx);
        self.regraft(id, cx);
    }

    /// A node is gone.
    pub(super) fn gone(&mut self, id: NodeId, cx: &mut Cx<'_>) {
        let concerns = self.links.contains_key(&id) || self.asking.contains_key(&id);
        self.known.lost(id, cx.now());
        self.asking.remove(&id);
        self.unlink(id, cx);
        if concerns {
            self.deadlines.set_no_later(Alarm::Tend, cx.now());
        }
    }

    /// Returns how far a member is, as the coordinates have it.
    pub(super) fn distance(&self, id: NodeId, cx: &Cx<'_>) -> Option<Duration> {
        let linked = || self.links.get(&id).map(|link| link.coordinate);
        let coordinate = self.known.coordinate(id).or_else(linked)?;
        cx.overlay().coordinate().round_trip(&coordinate)
    }

    /// Keeps a message for those who missed it.
    pub(super) fn keep(&mut self, data: &Data, now: Time) {
        self.store.expire(now);
        self.store.keep(now, data.clone());
    }
}

impl Link {
    /// Its bit among those of all links.
    pub(super) const fn bit(&self) -> u64 {
        1 << self.slot
    }
}
