//! Kademlia as an inhabitant of the simulated world.
//!
//! A datagram tells where it comes from: its source address is in the header, which no
//! protocol here pays for.

use enishi_overlay::{Contact, NodeId, Position, Rng, Time};

use super::{Config, Event, Input, Kademlia, Message, Output};
use crate::participant::{self, Birth, Effect, Participant};

/// A message with its source, as it arrives.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// The sender with the address in the header.
    pub source: Contact,
    /// What it says.
    pub message: Message,
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
        translate(input)
            .map(|input| self.handle(now, input))
            .into_iter()
            .flatten()
            .map(move |output| match output {
                Output::Send { to, message } => Effect::Send {
                    to,
                    message: Datagram {
                        source: source.clone(),
                        message,
                    },
                },
                Output::Event(event) => Effect::Event(event),
            })
    }

    fn next_timeout(&self) -> Option<Time> {
        self.next_timeout()
    }

    fn encoded_len(datagram: &Datagram) -> usize {
        datagram.message.encoded_len()
    }
}

fn translate(input: participant::Input<Kademlia>) -> Option<Input> {
    Some(match input {
        participant::Input::Message { from, message } => {
            let Datagram { source, message } = message;
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
