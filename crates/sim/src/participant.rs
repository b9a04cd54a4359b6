//! What can live in the world: any protocol that is a state machine.
//!
//! The shape is the node's own: input in, effects out, one deadline. So rival protocols
//! meet the same delays, losses and deaths, and pay for the same octets, as the
//! [`Node`] of the daemon.

use std::fmt::Debug;

use enishi_overlay::class::{Limit, Measure};
use enishi_overlay::{Contact, Keypair, Message, NodeId, Time};
use enishi_services::admission::Membership;
use enishi_services::service::ServiceId;
use enishi_services::{self as services, Command, Event, Node, Output};

use crate::sorts;

/// A protocol's node as the world runs it.
///
/// Times are microseconds since the node's own start, as in the daemon.
pub trait Participant: Debug + Sized {
    /// What its nodes send each other.
    type Message: Clone + Debug;
    /// What its host may ask of it.
    type Command: Debug;
    /// What it tells its host.
    type Event: Debug;
    /// Under what it keeps things on disk; `()` if it keeps nothing.
    type Key: Clone + Ord + Debug;
    /// How its nodes are set up: what all of a world have in common, but for those that are
    /// born otherwise ([`World::spawn_as`](crate::World::spawn_as)).
    type Config: Debug;

    /// Makes a node that knows nobody yet.
    fn new(birth: Birth, config: &Self::Config) -> Self;

    /// Takes in what happened and returns what is to be done, in order. The world drains
    /// the iterator.
    fn handle(&mut self, now: Time, input: Input<Self>) -> impl Iterator<Item = Effect<Self>> + '_;

    /// Returns when [`Input::Timeout`] is due.
    fn next_timeout(&self) -> Option<Time>;

    /// Returns the length of a message on the wire, in octets.
    fn encoded_len(message: &Self::Message) -> usize;

    /// Names the sort of a message, under which it is counted.
    fn sort(_message: &Self::Message) -> &'static str {
        "message"
    }

    /// Takes leave of the others; the node is stopped right after.
    fn leave(&mut self, _now: Time) -> Vec<Effect<Self>> {
        Vec::new()
    }
}

/// What a node is born with.
#[derive(Debug)]
pub struct Birth {
    /// Its key pair, and by it its id.
    pub keypair: Keypair,
    /// Its number in the world.
    pub index: usize,
    /// How others reach it. A receiver named by another address is not found.
    pub contact: Contact,
    /// The world's clock, in seconds since 1970.
    pub unix_s: u64,
    /// The source of all its randomness.
    pub seed: [u8; 32],
    /// What it is capable of, by where it is.
    pub measure: Measure,
    /// Whether it is to be a client.
    pub client: bool,
}

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Input<P: Participant> {
    /// A message arrived.
    Message {
        /// Who sent it; proven by the session.
        from: NodeId,
        /// What it says.
        message: P::Message,
    },
    /// A node could not be reached: dialling it took too long.
    Unreachable(NodeId),
    /// This node may know the others; join through it.
    Bootstrap(Contact),
    /// Something that was kept before the last stop ([`Effect::Persist`]).
    Restored {
        /// Under what it was kept.
        key: P::Key,
        /// What was kept.
        value: Vec<u8>,
        /// Seconds since it was written.
        age_s: u64,
    },
    /// The host asks something.
    Command(P::Command),
    /// The deadline has come.
    Timeout,
}

/// What a node wants done.
#[derive(Clone, Debug)]
pub enum Effect<P: Participant> {
    /// Send a message, dialling if there is no session.
    Send {
        /// The receiver.
        to: Contact,
        /// The message.
        message: P::Message,
    },
    /// A node is taken for dead: end its session, unless it is there.
    GiveUp(NodeId),
    /// End a session at once.
    Drop(NodeId),
    /// Tell the host.
    Event(P::Event),
    /// Keep or, without a value, forget this.
    Persist {
        /// Under what.
        key: P::Key,
        /// What.
        value: Option<Vec<u8>>,
    },
}

/// How Enishi's nodes are set up in the world.
#[derive(Clone, Debug)]
pub struct Setting {
    /// How they take part in the overlay.
    pub overlay: enishi_overlay::Config,
    /// By what they are members, if the overlay is a closed one and they are.
    pub membership: Option<Membership>,
}

impl From<enishi_overlay::Config> for Setting {
    fn from(overlay: enishi_overlay::Config) -> Self {
        Self {
            overlay,
            membership: None,
        }
    }
}

impl Participant for Node {
    type Message = Message;
    type Command = Command;
    type Event = Event;
    type Key = (ServiceId, Vec<u8>);
    type Config = Setting;

    fn new(birth: Birth, setting: &Setting) -> Self {
        let mut overlay = setting.overlay.clone();
        overlay.measure = birth.measure;
        if birth.client {
            overlay.class = Limit::Client;
        }
        let config = services::Config {
            overlay,
            addresses: birth.contact.addresses().to_vec(),
            host_name: format!("host{}", birth.index),
            started_unix_s: birth.unix_s,
        };
        let node = Self::new(birth.keypair, config, birth.seed);
        match &setting.membership {
            Some(membership) => node.in_closed_overlay(membership.clone()),
            None => node,
        }
    }

    fn handle(&mut self, now: Time, input: Input<Self>) -> impl Iterator<Item = Effect<Self>> + '_ {
        self.handle(now, input.into()).filter_map(effect)
    }

    fn next_timeout(&self) -> Option<Time> {
        self.next_timeout()
    }

    fn encoded_len(message: &Message) -> usize {
        message.encoded_len()
    }

    fn sort(message: &Message) -> &'static str {
        sorts::sort(message)
    }

    fn leave(&mut self, now: Time) -> Vec<Effect<Self>> {
        let outputs = self.handle(now, services::Input::Leave);
        outputs.filter_map(effect).collect()
    }
}

impl From<Input<Node>> for services::Input {
    fn from(input: Input<Node>) -> Self {
        match input {
            Input::Message { from, message } => Self::Message { from, message },
            Input::Unreachable(peer) => Self::Unreachable(peer),
            Input::Bootstrap(contact) => Self::Bootstrap(vec![contact]),
            Input::Restored {
                key: (service, key),
                value,
                age_s,
            } => Self::Restored {
                service,
                key,
                value,
                age_s,
            },
            Input::Command(command) => Self::Command(command),
            Input::Timeout => Self::Timeout,
        }
    }
}

/// Translates what the node wants; what only concerns real hosts falls away.
fn effect(output: Output) -> Option<Effect<Node>> {
    Some(match output {
        Output::Send { to, message } => Effect::Send { to, message },
        Output::GiveUp(peer) => Effect::GiveUp(peer),
        Output::Drop(peer) => Effect::Drop(peer),
        Output::Event(event) => Effect::Event(event),
        Output::Persist {
            service,
            key,
            value,
        } => Effect::Persist {
            key: (service, key),
            value,
        },
        Output::Remember(_) | Output::Dial(_) => return None,
    })
}
