//! Kademlia as an inhabitant of the simulated world.
//!
//! A datagram tells where it comes from: its source address is in the header, which no
//! protocol here pays for.

use enishi_overlay::{Contact, NodeId, Position, Rng, Time};

use super::{Config, Event, Input, Kademlia, Message, Output};
use crate::participant::{self, Birth, Effect, Participant};

/// The sort of requests on behalf of lookups that hosts ask for.
pub(crate) const FIND_LOOKUP: &str = "find node, lookup";
/// The sort of the answers to them.
pub(crate) const NODES_LOOKUP: &str = "nodes, lookup";

/// A message with its source, as it arrives.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// The sender with the address in the header.
    pub source: Contact,
    /// What it says.
    pub message: Message,
    /// Whether it belongs to a lookup that a host asked for; counted, not sent.
    pub for_host: bool,
}

/// What the host asks.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    /// Find the nodes closest to a position.
    Lookup {
        /// Comes back in the outcome.
        id: u64,
        /// Close to what.
        target: Position,
        /// How many must have answered; 1 asks who is in charge.
        width: usize,
    },
}

impl Participant for Kademlia {
    type Message = Datagram;
    type Command = Command;
    type Event = Event;
    type Key = ();
    type Config = Config;

    fn new(birth: Birth, config: &Config) -> Self {
        Self::new(birth.contact, config.clone(), Rng::from_seed(birth.seed))
    }

    fn handle(
        &mut self,
        now: Time,
        input: participant::Input<Self>,
    ) -> impl Iterator<Item = Effect<Self>> + '_ {
        let source = self.me.clone();
        // Answers belong to what the question does.
        let asked_for_host = matches!(
            &input,
            participant::Input::Message { message, .. } if message.for_host
        );
        translate(input)
            .map(|input| self.handle(now, input))
            .into_iter()
            .flatten()
            .map(move |output| match output {
                Output::Send {
                    to,
                    message,
                    for_host,
                } => {
                    let answers = matches!(message, Message::Nodes { .. });
                    let datagram = Datagram {
                        source: source.clone(),
                        message,
                        for_host: for_host || answers && asked_for_host,
                    };
                    Effect::Send {
                        to,
                        message: datagram,
                    }
                }
                Output::Event(event) => Effect::Event(event),
            })
    }

    fn next_timeout(&self) -> Option<Time> {
        self.next_timeout()
    }

    fn encoded_len(datagram: &Datagram) -> usize {
        datagram.message.encoded_len()
    }

    fn sort(datagram: &Datagram) -> &'static str {
        match (&datagram.message, datagram.for_host) {
            (Message::Ping { .. }, _) => "ping",
            (Message::Pong { .. }, _) => "pong",
            (Message::FindNode { .. }, true) => FIND_LOOKUP,
            (Message::FindNode { .. }, false) => "find node, upkeep",
            (Message::Nodes { .. }, true) => NODES_LOOKUP,
            (Message::Nodes { .. }, false) => "nodes, upkeep",
        }
    }
}

fn translate(input: participant::Input<Kademlia>) -> Option<Input> {
    Some(match input {
        participant::Input::Message { from, message } => {
            let Datagram {
                source, message, ..
            } = message;
            let from = genuine(from, source);
            Input::Message { from, message }
        }
        participant::Input::Unreachable(peer) => Input::Unreachable(peer),
        participant::Input::Bootstrap(contact) => Input::Bootstrap(vec![contact]),
        participant::Input::Command(Command::Lookup { id, target, width }) => {
            Input::Lookup { id, target, width }
        }
        participant::Input::Timeout => Input::Timeout,
        participant::Input::Restored { .. } => return None,
    })
}

/// The world proves who sent; an address under another name is not believed.
fn genuine(from: NodeId, source: Contact) -> Contact {
    if source.id() == from {
        source
    } else {
        Contact::new(from, [])
    }
}
