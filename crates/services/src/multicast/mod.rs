//! Overlay multicast: what one member of a group says reaches every other, once.
//!
//! A group is known by a name and a secret. Whoever has both is a member; the nodes that help,
//! in charge of its rendezvous or forwarding for it, can neither read nor forge. Every
//! message is numbered and signed by its author and sealed for the members.
//!
//! | group | its messages go |
//! |---|---|
//! | of up to [`SMALL_MAX`] | from the author straight to each member |
//! | larger | along a tree on links among the members, most of them to near ones |
//! | with [`Tree::Scribe`](crate::calls::Tree) | along the union of the routes to the rendezvous |
//!
//! | part | does |
//! |---|---|
//! | `keys` | what follows from name and secret; signing and sealing |
//! | `rendezvous` | how members find the first others: entries in the DHT |
//! | `known` | the members that this one knows of |
//! | `links` | who is linked with whom in the tree among the members |
//! | `scribe` | the same along the ring |
//! | `spread` | publish, pass on, deliver |
//! | `flow`, `window` | what came of each author: each number once, in order if wanted |
//! | `store`, `repair` | members compare numbers and ask for what they miss |
//! | `receipts` | how many have got a message |
//! | [`wire`] | the messages |
//!
//! Everything is bounded: groups, links, authors, messages that are kept, hops, sizes, and
//! how much an author and a neighbour may send.

mod flow;
mod group;
mod keys;
mod known;
mod links;
mod receipts;
mod rendezvous;
mod repair;
mod scribe;
mod spread;
mod store;
mod window;
pub mod wire;

use bytes::Bytes;
use enishi_overlay::small_map::SmallMap;
use enishi_overlay::{NodeId, Time};
use serde::{Deserialize, Serialize};

use crate::bucket::Rate;
use crate::calls::{GroupName, GroupSpec, Heard, Receipts, Tree};
use crate::service::{Context, Service, ServiceId, ServiceInput};

use group::{Alarm, Group};
use keys::GroupKeys;
use wire::{Body, Tag};

/// The longest message, in octets.
pub const PAYLOAD_BYTES_MAX: usize = 4096;
/// Up to how many members, this one included, are sent to one by one.
pub const SMALL_MAX: usize = 16;
/// The most groups in which a node is a member.
pub const GROUPS_MAX: usize = 64;
/// The most groups for which it forwards without being a member.
pub const CARRIED_MAX: usize = 64;
/// The most links among members in one group.
pub const LINKS_MAX: u32 = 32;
/// The most links along the ring in one group.
pub const CHILDREN_MAX: u32 = 64;
/// After how many hops a message is dropped.
pub const HOPS_MAX: u8 = 32;
/// How much an author may publish in one group: messages per second, and at once.
const AUTHOR_RATE: Rate = Rate {
    per_s: 64,
    burst: 256,
};

/// Who takes part in a group here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Subscriber {
    /// The host.
    Host,
    /// A service of this node.
    Service(ServiceId),
}

/// What may be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Take part in a group. One that is there already stays as it is, with whom it has.
    Subscribe {
        /// Who.
        subscriber: Subscriber,
        /// In which group.
        spec: GroupSpec,
    },
    /// Take part no longer.
    Unsubscribe {
        /// Who.
        subscriber: Subscriber,
        /// In which group.
        group: GroupName,
    },
    /// Say something to all other members.
    Publish {
        /// Who.
        subscriber: Subscriber,
        /// In which group.
        group: GroupName,
        /// What, at most [`PAYLOAD_BYTES_MAX`] octets.
        payload: Bytes,
        /// The subscriber's number for [`Event::Receipts`], if it wants to know how many
        /// have got it.
        receipts: Option<u64>,
    },
    /// The node is about to stop: tell the neighbours.
    Suspend,
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Event {
    /// Another member said something.
    Heard {
        /// To whom this is told.
        subscriber: Subscriber,
        /// What.
        heard: Heard,
    },
    /// So many have got a message.
    Receipts {
        /// To whom this is told.
        subscriber: Subscriber,
        /// Its number for the message.
        token: u64,
        /// How many; none when the message was not published.
        receipts: Option<Receipts>,
    },
}

/// What was counted of one group, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that came for the first time.
    pub received: u64,
    /// Messages that came again.
    pub duplicates: u64,
    /// Copies of messages that were sent.
    pub sent: u64,
    /// How many of these were asked for.
    pub repaired: u64,
    /// What was not taken: not genuine, too much, too long, from strangers.
    pub refused: u64,
    /// How often something missing was given up.
    pub given_up: u64,
}

/// Returns the name of a group among those who carry its messages.
pub fn tag_of(spec: &GroupSpec) -> Tag {
    GroupKeys::new(spec.name, &spec.secret).tag
}

/// The groups of one node.
#[derive(Debug, Default)]
pub struct Multicast {
    groups: SmallMap<Tag, Box<Group>>,
    next_serial: u32,
    malformed: u64,
}

type Cx<'a> = Context<'a, Event>;

impl Multicast {
    /// Returns how many messages could not be decoded.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Returns for how many groups this node forwards, those of which it is a member among
    /// them.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Returns what was counted of all present groups.
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for group in self.groups.values() {
            let counted = group.counters;
            sum.received += counted.received;
            sum.duplicates += counted.duplicates;
            sum.sent += counted.sent;
            sum.repaired += counted.repaired;
            sum.refused += counted.refused;
            sum.given_up += counted.given_up;
        }
        sum
    }

    /// Returns how many neighbours this node has in a group, and how many other members it
    /// knows; none when it is no member.
    pub fn acquaintances(&self, group: GroupName) -> Option<(usize, usize)> {
        let group = self.find(group)?;
        Some((group.links.len(), group.known.len()))
    }

    fn find(&self, name: GroupName) -> Option<&Group> {
        let mut groups = self.groups.values();
        let group = groups.find(|group| group.member.as_ref().is_some_and(|m| m.name == name));
        group.map(|group| &**group)
    }

    /// Returns the group of a name, if it is this subscriber's.
    fn tag_of(&self, subscriber: Subscriber, name: GroupName) -> Option<Tag> {
        let group = self.find(name)?;
        let member = group.member.as_ref()?;
        (member.subscriber == subscriber).then_some(group.tag)
    }

    fn members(&self) -> usize {
        self.groups
            .values()
            .filter(|group| group.member.is_some())
            .count()
    }

    fn serial(&mut self) -> u32 {
        self.next_serial = self.next_serial.wrapping_add(1);
        self.next_serial
    }

    fn command(&mut self, command: Command, cx: &mut Cx<'_>) {
        match command {
            Command::Subscribe { subscriber, spec } => self.subscribe(subscriber, &spec, cx),
            Command::Unsubscribe { subscriber, group } => self.unsubscribe(subscriber, group, cx),
            Command::Publish {
                subscriber,
                group,
                payload,
                receipts,
            } => self.publish((subscriber, group), payload, receipts, cx),
            Command::Suspend => self.groups.values().for_each(|group| group.take_leave(cx)),
        }
    }

    fn subscribe(&mut self, subscriber: Subscriber, spec: &GroupSpec, cx: &mut Cx<'_>) {
        if self.find(spec.name).is_some() || self.members() >= GROUPS_MAX {
            return;
        }
        let serial = self.serial();
        let mut group = Group::of_member(serial, spec, subscriber, cx);
        group.start(cx);
        // Who forwarded for the group joins anew as a member.
        if let Some(carried) = self.groups.insert(group.tag, Box::new(group)) {
            carried.take_leave(cx);
        }
    }

    fn unsubscribe(&mut self, subscriber: Subscriber, name: GroupName, cx: &mut Cx<'_>) {
        let Some(tag) = self.tag_of(subscriber, name) else {
            return;
        };
        if let Some(mut group) = self.groups.remove(&tag) {
            group.take_leave(cx);
            group.put_entry(false, cx);
        }
    }

    fn publish(
        &mut self,
        (subscriber, name): (Subscriber, GroupName),
        payload: Bytes,
        token: Option<u64>,
        cx: &mut Cx<'_>,
    ) {
        let tag = self.tag_of(subscriber, name);
        let group = tag.and_then(|tag| self.groups.get_mut(&tag));
        let published = group.is_some_and(|group| group.publish(payload, token, cx));
        if let Some(token) = token.filter(|_| !published) {
            cx.emit(Event::Receipts {
                subscriber,
                token,
                receipts: None,
            });
        }
    }

    fn receive(&mut self, from: NodeId, body: &[u8], cx: &mut Cx<'_>) {
        let Some((tag, body)) = Body::decode(body) else {
            self.malformed += 1;
            return;
        };
        if !self.groups.contains_key(&tag) && body == Body::Join {
            self.carry(tag, cx.now());
        }
        if let Some(group) = self.groups.get_mut(&tag) {
            group.receive(from, body, cx);
        }
    }

    /// Begins to forward for a group of others.
    fn carry(&mut self, tag: Tag, now: Time) {
        if self.groups.len() - self.members() < CARRIED_MAX {
            let mut group = Group::of_forwarder(self.serial(), tag, now);
            group.deadlines.set(Alarm::Digest, now);
            self.groups.insert(tag, Box::new(group));
        }
    }

    /// The group of a call's token.
    fn called(&mut self, token: u64) -> Option<&mut Group> {
        let mut groups = self.groups.iter_mut();
        let group = groups.find(|(_, group)| u64::from(group.serial) == token);
        group.map(|(_, group)| &mut **group)
    }

    /// Ends groups for which nobody needs this node any more.
    fn drop_idle(&mut self, cx: &mut Cx<'_>) {
        self.groups.retain(|_, group| {
            let idle = group.is_idle();
            if idle {
                group.take_leave(cx);
            }
            !idle
        });
    }
}

impl Group {
    /// Begins to take part as a member.
    fn start(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now();
        match self.tree {
            Tree::Biased => self.deadlines.set(Alarm::Meet, now),
            Tree::Scribe => self.deadlines.set(Alarm::Tend, now),
        }
        self.deadlines.set(Alarm::Digest, now);
    }
}

impl Service for Multicast {
    type Command = Command;
    type Event = Event;

    fn handle(&mut self, input: ServiceInput<Command>, cx: &mut Cx<'_>) {
        match input {
            ServiceInput::Command(command) => self.command(command, cx),
            ServiceInput::Direct { from, body } => self.receive(from, &body, cx),
            ServiceInput::Got { token, answer } => {
                if let Some(group) = self.called(token) {
                    group.met(&answer, cx);
                }
            }
            ServiceInput::Gone(id) => {
                self.groups
                    .iter_mut()
                    .for_each(|(_, group)| group.gone(id, cx));
            }
            ServiceInput::NeighboursChanged => {
                self.groups
                    .iter_mut()
                    .for_each(|(_, group)| group.tend_soon(cx));
            }
            ServiceInput::Asked { .. }
            | ServiceInput::Answered { .. }
            | ServiceInput::Failed { .. }
            | ServiceInput::Searched { .. }
            | ServiceInput::HopReport { .. }
            | ServiceInput::PutDone { .. }
            | ServiceInput::Restored { .. }
            | ServiceInput::AddressesChanged
            | ServiceInput::Heard(_)
            | ServiceInput::Receipts { .. }
            | ServiceInput::Timeout => {}
        }
        for (_, group) in self.groups.iter_mut() {
            group.ring(cx);
        }
        self.drop_idle(cx);
    }

    fn next_timeout(&self) -> Option<Time> {
        let groups = self.groups.values();
        groups.filter_map(|group| group.deadlines.next()).min()
    }
}
