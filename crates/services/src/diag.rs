//! Diagnostics: echo requests along the overlay, hop by hop and end to end (document
//! 003: echo request and echo response as a diagnostic of the peer protocol).
//!
//! ```text
//! echo:   version (1) | 0 | nonce (8, little endian)      answered by the same with 1
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::deadlines::Deadlines;
use enishi_overlay::message::Reply;
use enishi_overlay::overlay::Manner;
use enishi_overlay::{Contact, NodeId, Position, Time};
use serde::{Deserialize, Serialize};

use crate::service::{Context, Service, ServiceInput};

const VERSION: u8 = 1;
const REQUEST: u8 = 0;
const RESPONSE: u8 = 1;
/// The most echo requests, and the most traces, that are under way.
const UNDER_WAY_MAX: usize = 1024;

/// What may be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Sends an echo request; answered by [`Event::Pong`] or [`Event::Lost`].
    Ping {
        /// The host's number for it.
        id: u64,
        /// The node.
        target: NodeId,
        /// How long to wait for the response.
        timeout: Duration,
    },
    /// Follows the route to a position; answered by [`Event::Hop`]s and
    /// [`Event::Traced`].
    Trace {
        /// The host's number for it.
        id: u64,
        /// The position.
        target: Position,
    },
    /// Looks up who is in charge of a position, as services do it; answered by
    /// [`Event::Located`].
    Locate {
        /// The host's number for it.
        id: u64,
        /// The position.
        target: Position,
        /// Who may answer.
        manner: Manner,
    },
}

/// What is told.
#[derive(Clone, Debug, Serialize)]
pub enum Event {
    /// The node answered.
    Pong {
        /// The host's number.
        id: u64,
        /// Round trip.
        round_trip: Duration,
    },
    /// The node did not answer in time, or nobody knows it.
    Lost {
        /// The host's number.
        id: u64,
    },
    /// A hop reported.
    Hop {
        /// The host's number.
        id: u64,
        /// The hop.
        node: NodeId,
        /// Its place in the route, from 1.
        hops: u8,
        /// From the question until the report.
        round_trip: Duration,
        /// Where the question went next.
        next: Option<NodeId>,
    },
    /// The route is known to its end, or was given up.
    Traced {
        /// The host's number.
        id: u64,
        /// The node in charge, how many hops it is away, and the time until its answer;
        /// none when nobody answered.
        end: Option<(NodeId, u8, Duration)>,
    },
    /// A lookup ended.
    Located {
        /// The host's number.
        id: u64,
        /// The node in charge, the hops of the question, and the time until its answer;
        /// none when nobody answered.
        end: Option<(NodeId, u8, Duration)>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Ping(u64),
}

#[derive(Debug)]
struct Pinging {
    target: NodeId,
    nonce: u64,
    sent_at: Time,
}

#[derive(Debug)]
enum Asking {
    /// Where is the node that is to be pinged?
    Ping(u64),
    /// A trace.
    Trace {
        id: u64,
        started: Time,
    },
    Locate {
        id: u64,
        started: Time,
    },
}

/// Ping and trace.
#[derive(Debug, Default)]
pub struct Diag {
    next_token: u64,
    pinging: BTreeMap<u64, Pinging>,
    asking: BTreeMap<u64, Asking>,
    deadlines: Deadlines<Alarm>,
}

type Cx<'a> = Context<'a, Event>;

impl Diag {
    fn ping(&mut self, id: u64, target: NodeId, timeout: Duration, cx: &mut Cx<'_>) {
        if self.pinging.len() >= UNDER_WAY_MAX {
            return cx.emit(Event::Lost { id });
        }
        let nonce = cx.rng().number();
        self.pinging.insert(
            id,
            Pinging {
                target,
                nonce,
                sent_at: cx.now(),
            },
        );
        self.deadlines.set(Alarm::Ping(id), cx.now() + timeout);
        match cx.overlay().contact_of(target) {
            Some(contact) => self.send_echo(id, contact, cx),
            None => {
                let token = self.ask(Asking::Ping(id));
                let position = cx.overlay().position_of(&target);
                cx.locate(token, position, Manner::EXACT);
            }
        }
    }

    fn send_echo(&mut self, id: u64, to: Contact, cx: &mut Cx<'_>) {
        let Some(pinging) = self.pinging.get_mut(&id) else {
            return;
        };
        pinging.sent_at = cx.now();
        cx.send(to, echo(REQUEST, pinging.nonce));
    }

    fn trace(&mut self, id: u64, target: Position, cx: &mut Cx<'_>) {
        if self.asking.len() >= UNDER_WAY_MAX {
            return cx.emit(Event::Traced { id, end: None });
        }
        let token = self.ask(Asking::Trace {
            id,
            started: cx.now(),
        });
        cx.locate(token, target, Manner::TRACED);
    }

    fn locate(&mut self, id: u64, target: Position, manner: Manner, cx: &mut Cx<'_>) {
        if self.asking.len() >= UNDER_WAY_MAX {
            return cx.emit(Event::Located { id, end: None });
        }
        let started = cx.now();
        let token = self.ask(Asking::Locate { id, started });
        cx.locate(token, target, manner);
    }

    fn ask(&mut self, asking: Asking) -> u64 {
        self.next_token += 1;
        self.asking.insert(self.next_token, asking);
        self.next_token
    }

    fn receive(&mut self, from: NodeId, body: &[u8], cx: &mut Cx<'_>) {
        let [VERSION, kind, nonce @ ..] = body else {
            return;
        };
        let Ok(nonce) = nonce.try_into().map(u64::from_le_bytes) else {
            return;
        };
        match *kind {
            REQUEST => cx.send_to(from, echo(RESPONSE, nonce)),
            RESPONSE => self.responded(from, nonce, cx),
            _ => {}
        }
    }

    fn responded(&mut self, from: NodeId, nonce: u64, cx: &mut Cx<'_>) {
        let waiting = self
            .pinging
            .iter()
            .find(|(_, p)| p.nonce == nonce && p.target == from);
        let Some((id, pinging)) = waiting else { return };
        let (id, round_trip) = (*id, cx.now().since(pinging.sent_at));
        self.pinging.remove(&id);
        self.deadlines.cancel(Alarm::Ping(id));
        cx.emit(Event::Pong { id, round_trip });
    }

    fn lost(&mut self, id: u64, cx: &mut Cx<'_>) {
        self.deadlines.cancel(Alarm::Ping(id));
        if self.pinging.remove(&id).is_some() {
            cx.emit(Event::Lost { id });
        }
    }

    fn answered(&mut self, token: u64, from: NodeId, hops: u8, reply: &Reply, cx: &mut Cx<'_>) {
        match self.asking.remove(&token) {
            Some(Asking::Ping(id)) => {
                let target = self.pinging.get(&id).map(|pinging| pinging.target);
                let Reply::Nodes(nodes) = reply else { return };
                let contacts = nodes.iter().map(|entry| &entry.contact);
                let mut found = contacts.filter(|contact| Some(contact.id()) == target);
                match found.next() {
                    Some(contact) => self.send_echo(id, contact.clone(), cx),
                    None => self.lost(id, cx),
                }
            }
            Some(Asking::Trace { id, started }) => {
                let end = Some((from, hops, cx.now().since(started)));
                cx.emit(Event::Traced { id, end });
            }
            Some(Asking::Locate { id, started }) => {
                let Reply::Nodes(nodes) = reply else { return };
                let in_charge = nodes.first().map(|entry| entry.contact.id());
                let end = in_charge.map(|node| (node, hops, cx.now().since(started)));
                cx.emit(Event::Located { id, end });
            }
            None => {}
        }
    }

    fn failed(&mut self, token: u64, cx: &mut Cx<'_>) {
        match self.asking.remove(&token) {
            Some(Asking::Ping(id)) => self.lost(id, cx),
            Some(Asking::Trace { id, .. }) => cx.emit(Event::Traced { id, end: None }),
            Some(Asking::Locate { id, .. }) => cx.emit(Event::Located { id, end: None }),
            None => {}
        }
    }
}

fn echo(kind: u8, nonce: u64) -> Vec<u8> {
    [&[VERSION, kind][..], &nonce.to_le_bytes()].concat()
}

impl Service for Diag {
    type Command = Command;
    type Event = Event;

    fn handle(&mut self, input: ServiceInput<Command>, cx: &mut Cx<'_>) {
        match input {
            ServiceInput::Command(Command::Ping {
                id,
                target,
                timeout,
            }) => {
                self.ping(id, target, timeout, cx);
            }
            ServiceInput::Command(Command::Trace { id, target }) => self.trace(id, target, cx),
            ServiceInput::Command(Command::Locate { id, target, manner }) => {
                self.locate(id, target, manner, cx);
            }
            ServiceInput::Direct { from, body } => self.receive(from, &body, cx),
            ServiceInput::Answered {
                token,
                from,
                hops,
                reply,
            } => {
                self.answered(token, from, hops, &reply, cx);
            }
            ServiceInput::Failed { token } => self.failed(token, cx),
            ServiceInput::HopReport {
                token,
                from,
                hops,
                next,
            } => {
                if let Some(Asking::Trace { id, started }) = self.asking.get(&token) {
                    let round_trip = cx.now().since(*started);
                    cx.emit(Event::Hop {
                        id: *id,
                        node: from,
                        hops,
                        round_trip,
                        next,
                    });
                }
            }
            ServiceInput::Asked { .. }
            | ServiceInput::Searched { .. }
            | ServiceInput::Got { .. }
            | ServiceInput::PutDone { .. }
            | ServiceInput::Restored { .. }
            | ServiceInput::NeighboursChanged
            | ServiceInput::AddressesChanged
            | ServiceInput::Gone(_)
            | ServiceInput::Timeout => {}
        }
        while let Some(Alarm::Ping(id)) = self.deadlines.pop_due(cx.now()) {
            self.lost(id, cx);
        }
    }

    fn next_timeout(&self) -> Option<Time> {
        self.deadlines.next()
    }
}
