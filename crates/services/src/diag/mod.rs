//! Diagnostics: echo requests along the overlay, hop by hop and end to end (document
//! 003: echo request and echo response as a diagnostic of the peer protocol).
//!
//! | part | does |
//! |---|---|
//! | [`wire`] | the messages |
//! | [`route`] | puts a route together from what its hops report |
//!
//! Three questions beside the route: is a node there, and how is it (`Ping`); which
//! nodes are near a position (`Locate`); and does a stranger, who knows nothing of this
//! node, find it at its position (`FindMe`). The last one costs the stranger a routed
//! question, so it is answered for the asker's own position only, once at a time for
//! each asker, and for `FINDING_MAX` askers at once.

pub mod route;
pub mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::deadlines::Deadlines;
use enishi_overlay::message::Reply;
use enishi_overlay::overlay::Manner;
use enishi_overlay::view::Entry;
use enishi_overlay::{Contact, HopReport, NodeId, Position, Time};
use serde::{Deserialize, Serialize};

use crate::service::{Context, Service, ServiceInput};

use wire::{DiagMessage, EchoDetail, Found};

/// The most questions of each sort that are under way for the host.
const UNDER_WAY_MAX: usize = 1024;
/// The most strangers for whom this node looks at once.
const FINDING_MAX: usize = 16;

/// What may be asked.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Sends an echo request; answered by [`Event::Pong`], [`Event::Lost`] or
    /// [`Event::Unknown`].
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
    /// Looks up who is in charge of a position and who is near it, as services do it;
    /// answered by [`Event::Located`].
    Locate {
        /// The host's number for it.
        id: u64,
        /// The position.
        target: Position,
        /// Who may answer.
        manner: Manner,
    },
    /// Asks another node to look for this one at its position; answered by
    /// [`Event::FoundMe`].
    FindMe {
        /// The host's number for it.
        id: u64,
        /// Who is to look.
        stranger: NodeId,
        /// How long to wait for the response.
        timeout: Duration,
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
        /// What it says of itself; none when it declines to.
        detail: Option<EchoDetail>,
    },
    /// The node did not answer in time.
    Lost {
        /// The host's number.
        id: u64,
    },
    /// Whoever is in charge of the node's place does not know it.
    Unknown {
        /// The host's number.
        id: u64,
    },
    /// A hop reported.
    Hop {
        /// The host's number.
        id: u64,
        /// Which try of the question it is, from 0.
        attempt: u8,
        /// The hop, as it says itself.
        by: NodeId,
        /// What it reported.
        report: HopReport,
        /// From the question until the report.
        round_trip: Duration,
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
        /// The nodes near the position, the one in charge first, as the node that
        /// answered knows them; at most
        /// [`NODES_MAX`](enishi_overlay::message::NODES_MAX), none when nobody answered.
        nodes: Vec<Entry>,
    },
    /// What a stranger found at this node's position.
    FoundMe {
        /// The host's number.
        id: u64,
        /// What it found; none when the stranger did not answer.
        found: Option<Found>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Ping(u64),
}

/// What is asked of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Echo,
    FindMe,
}

/// An echo request, or another question to one node, that waits for its response.
#[derive(Debug)]
struct Pinging {
    asked: Asked,
    target: NodeId,
    nonce: u64,
    sent_at: Time,
}

#[derive(Debug)]
enum Asking {
    /// Where is the node that is to be pinged?
    Ping(u64),
    /// A trace.
    Trace { id: u64, started: Time },
    /// Which nodes are near a position?
    Locate { id: u64, started: Time },
    /// Who is in charge of the position of a node that wants to know?
    Find { asker: NodeId, nonce: u64 },
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
    fn ping(&mut self, id: u64, asked: Asked, target: NodeId, timeout: Duration, cx: &mut Cx<'_>) {
        if self.pinging.len() >= UNDER_WAY_MAX {
            return emit_silence(id, asked, cx);
        }
        let nonce = cx.rng().number();
        self.pinging.insert(
            id,
            Pinging {
                asked,
                target,
                nonce,
                sent_at: cx.now(),
            },
        );
        self.deadlines.set(Alarm::Ping(id), cx.now() + timeout);
        match cx.overlay().contact_of(target) {
            Some(contact) => self.send_question(id, contact, cx),
            None => {
                let token = self.ask(Asking::Ping(id));
                let position = cx.overlay().position_of(&target);
                cx.locate(token, position, Manner::EXACT);
            }
        }
    }

    fn send_question(&mut self, id: u64, to: Contact, cx: &mut Cx<'_>) {
        let Some(pinging) = self.pinging.get_mut(&id) else {
            return;
        };
        pinging.sent_at = cx.now();
        let message = match pinging.asked {
            Asked::Echo => DiagMessage::EchoRequest,
            Asked::FindMe => DiagMessage::FindMe,
        };
        cx.send(to, message.encode(pinging.nonce));
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
            return emit_nowhere(id, cx);
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
        let Some((nonce, message)) = DiagMessage::decode(body) else {
            return;
        };
        match message {
            DiagMessage::EchoRequest => {
                let response = DiagMessage::EchoResponse(detail_for(from, cx));
                cx.send_to(from, response.encode(nonce));
            }
            DiagMessage::EchoResponse(detail) => {
                if let Some((id, round_trip)) = self.responded(Asked::Echo, from, nonce, cx) {
                    cx.emit(Event::Pong {
                        id,
                        round_trip,
                        detail,
                    });
                }
            }
            DiagMessage::FindMe => self.find(from, nonce, cx),
            DiagMessage::Found(found) => {
                if let Some((id, _)) = self.responded(Asked::FindMe, from, nonce, cx) {
                    let found = Some(found);
                    cx.emit(Event::FoundMe { id, found });
                }
            }
        }
    }

    /// Looks for the asker at its position, unless this node declines or has enough to do.
    fn find(&mut self, asker: NodeId, nonce: u64, cx: &mut Cx<'_>) {
        let finding = self.asking.values().filter_map(|asking| match asking {
            Asking::Find { asker, .. } => Some(*asker),
            Asking::Ping(_) | Asking::Trace { .. } | Asking::Locate { .. } => None,
        });
        let finding: Vec<NodeId> = finding.collect();
        let busy = finding.len() >= FINDING_MAX || finding.contains(&asker);
        if busy || cx.overlay().vitals().is_none() {
            return;
        }
        let token = self.ask(Asking::Find { asker, nonce });
        let position = cx.overlay().position_of(&asker);
        cx.locate(token, position, Manner::EXACT);
    }

    /// Ends a question to one node with the node's response.
    fn responded(
        &mut self,
        asked: Asked,
        from: NodeId,
        nonce: u64,
        cx: &Cx<'_>,
    ) -> Option<(u64, Duration)> {
        let fits = |p: &Pinging| p.asked == asked && p.nonce == nonce && p.target == from;
        let (id, pinging) = self.pinging.iter().find(|(_, pinging)| fits(pinging))?;
        let (id, round_trip) = (*id, cx.now().since(pinging.sent_at));
        self.pinging.remove(&id);
        self.deadlines.cancel(Alarm::Ping(id));
        Some((id, round_trip))
    }

    fn lost(&mut self, id: u64, cx: &mut Cx<'_>) {
        self.deadlines.cancel(Alarm::Ping(id));
        if let Some(pinging) = self.pinging.remove(&id) {
            emit_silence(id, pinging.asked, cx);
        }
    }

    fn unknown(&mut self, id: u64, cx: &mut Cx<'_>) {
        self.deadlines.cancel(Alarm::Ping(id));
        match self.pinging.remove(&id).map(|pinging| pinging.asked) {
            Some(Asked::Echo) => cx.emit(Event::Unknown { id }),
            Some(asked @ Asked::FindMe) => emit_silence(id, asked, cx),
            None => {}
        }
    }

    fn answered(&mut self, token: u64, from: NodeId, hops: u8, reply: Reply, cx: &mut Cx<'_>) {
        let nodes = match reply {
            Reply::Nodes(nodes) => nodes,
            Reply::Service(_) | Reply::Acquaintances(_) => Vec::new(),
        };
        match self.asking.remove(&token) {
            Some(Asking::Ping(id)) => {
                let target = self.pinging.get(&id).map(|pinging| pinging.target);
                let contacts = nodes.iter().map(|entry| &entry.contact);
                let mut found = contacts.filter(|contact| Some(contact.id()) == target);
                match found.next() {
                    Some(contact) => self.send_question(id, contact.clone(), cx),
                    None => self.unknown(id, cx),
                }
            }
            Some(Asking::Trace { id, started }) => {
                let end = Some((from, hops, cx.now().since(started)));
                cx.emit(Event::Traced { id, end });
            }
            Some(Asking::Locate { id, started }) => {
                let in_charge = nodes.first().map(|entry| entry.contact.id());
                let end = in_charge.map(|node| (node, hops, cx.now().since(started)));
                cx.emit(Event::Located { id, end, nodes });
            }
            Some(Asking::Find { asker, nonce }) => {
                let in_charge = Some(from);
                let found = DiagMessage::Found(Found { in_charge, hops });
                cx.send_to(asker, found.encode(nonce));
            }
            None => {}
        }
    }

    fn failed(&mut self, token: u64, cx: &mut Cx<'_>) {
        match self.asking.remove(&token) {
            Some(Asking::Ping(id)) => self.lost(id, cx),
            Some(Asking::Trace { id, .. }) => cx.emit(Event::Traced { id, end: None }),
            Some(Asking::Locate { id, .. }) => emit_nowhere(id, cx),
            Some(Asking::Find { asker, nonce }) => {
                let found = Found {
                    in_charge: None,
                    hops: 0,
                };
                cx.send_to(asker, DiagMessage::Found(found).encode(nonce));
            }
            None => {}
        }
    }

    fn command(&mut self, command: Command, cx: &mut Cx<'_>) {
        match command {
            Command::Ping {
                id,
                target,
                timeout,
            } => self.ping(id, Asked::Echo, target, timeout, cx),
            Command::Trace { id, target } => self.trace(id, target, cx),
            Command::Locate { id, target, manner } => self.locate(id, target, manner, cx),
            Command::FindMe {
                id,
                stranger,
                timeout,
            } => self.ping(id, Asked::FindMe, stranger, timeout, cx),
        }
    }
}

/// What this node says of itself, and of the asker, unless it declines.
fn detail_for(asker: NodeId, cx: &Cx<'_>) -> Option<EchoDetail> {
    let vitals = cx.overlay().vitals()?;
    let (_, seen_at) = cx.overlay().path(asker);
    Some(EchoDetail {
        vitals,
        unix_s: cx.unix_s(),
        seen_at,
    })
}

/// Nothing came back.
fn emit_silence(id: u64, asked: Asked, cx: &mut Cx<'_>) {
    match asked {
        Asked::Echo => cx.emit(Event::Lost { id }),
        Asked::FindMe => cx.emit(Event::FoundMe { id, found: None }),
    }
}

/// A lookup found nobody.
fn emit_nowhere(id: u64, cx: &mut Cx<'_>) {
    cx.emit(Event::Located {
        id,
        end: None,
        nodes: Vec::new(),
    });
}

impl Service for Diag {
    type Command = Command;
    type Event = Event;

    fn handle(&mut self, input: ServiceInput<Command>, cx: &mut Cx<'_>) {
        match input {
            ServiceInput::Command(command) => self.command(command, cx),
            ServiceInput::Direct { from, body } => self.receive(from, &body, cx),
            ServiceInput::Answered {
                token,
                from,
                hops,
                reply,
            } => {
                self.answered(token, from, hops, reply, cx);
            }
            ServiceInput::Failed { token } => self.failed(token, cx),
            ServiceInput::HopReport {
                token,
                attempt,
                by,
                report,
            } => {
                if let Some(Asking::Trace { id, started }) = self.asking.get(&token) {
                    let round_trip = cx.now().since(*started);
                    cx.emit(Event::Hop {
                        id: *id,
                        attempt,
                        by,
                        report,
                        round_trip,
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
            | ServiceInput::Heard(_)
            | ServiceInput::Receipts { .. }
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
