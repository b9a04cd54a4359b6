//! What a service is, and its system calls.

use std::collections::VecDeque;

use bytes::Bytes;
use enishi_overlay::message::Reply;
use enishi_overlay::overlay::{Asker, Manner};
use enishi_overlay::view::Entry;
use enishi_overlay::{Contact, HopReport, Keypair, NodeId, Overlay, Position, Rng, Time};
use serde::{Deserialize, Serialize};

use crate::calls::{
    Consistency, GetAnswer, GroupName, GroupSpec, Heard, PutAnswer, PutRequest, Receipts,
};
use crate::record::Key;

/// Which service; the number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum ServiceId {
    /// The distributed hash table.
    Dht = 1,
    /// Ping and trace.
    Diag = 2,
    /// The control of virtual networks.
    Vnet = 3,
    /// The gate of a closed overlay. Other nodes cannot address it by this number.
    Admission = 4,
    /// Overlay multicast.
    Multicast = 5,
    /// How nodes are reached.
    Reach = 6,
}

impl ServiceId {
    /// Reads the number on the wire; none for a service that this node does not have.
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Dht),
            2 => Some(Self::Diag),
            3 => Some(Self::Vnet),
            4 => Some(Self::Admission),
            5 => Some(Self::Multicast),
            6 => Some(Self::Reach),
            _ => None,
        }
    }
}

/// A process of the node: inputs in, system calls and events out, one deadline.
pub trait Service {
    /// What the host may ask of it.
    type Command;
    /// What it tells the host.
    type Event;

    /// Takes in what happened.
    fn handle(&mut self, input: ServiceInput<Self::Command>, cx: &mut Context<'_, Self::Event>);

    /// Returns when [`ServiceInput::Timeout`] is due.
    fn next_timeout(&self) -> Option<Time>;
}

/// What may happen to a service.
///
/// A `token` is the service's own number for a call that it made.
#[derive(Clone, Debug)]
pub enum ServiceInput<C> {
    /// The host asks something.
    Command(C),
    /// The same service of another node says something.
    Direct {
        /// Who says it; proven by the session.
        from: NodeId,
        /// In the service's own format.
        body: Bytes,
    },
    /// Another node asks the node in charge of a position, which is this one.
    Asked {
        /// Where the answer goes: [`Context::answer`].
        asker: Asker,
        /// The position.
        target: Position,
        /// In the service's own format.
        body: Bytes,
    },
    /// [`Context::ask`] or [`Context::locate`] was answered.
    Answered {
        /// From the call.
        token: u64,
        /// Who answered.
        from: NodeId,
        /// How many hops the question made.
        hops: u8,
        /// What was answered.
        reply: Reply,
    },
    /// [`Context::ask`] or [`Context::locate`] was not answered after all tries.
    Failed {
        /// From the call.
        token: u64,
    },
    /// [`Context::search`] ended.
    Searched {
        /// From the call.
        token: u64,
        /// Who answered, nearest to the target first; each has proven its key.
        found: Vec<Entry>,
        /// For each path the nearest node that is there, by its own findings.
        ends: Vec<Option<NodeId>>,
        /// How many nodes were asked.
        asked: u32,
    },
    /// A hop of a traced [`Context::locate`] reported.
    HopReport {
        /// From the call.
        token: u64,
        /// Which try of the question it is, from 0.
        attempt: u8,
        /// The reporting node. It is a claim: the report came by way of others.
        by: NodeId,
        /// What the hop tells; this node itself is hop 0.
        report: HopReport,
    },
    /// [`Context::get`] ended.
    Got {
        /// From the call.
        token: u64,
        /// What was found.
        answer: GetAnswer,
    },
    /// [`Context::put`] ended.
    PutDone {
        /// From the call.
        token: u64,
        /// What came of it.
        answer: PutAnswer,
    },
    /// Another member of a group of [`Context::subscribe`] said something.
    Heard(Heard),
    /// [`Context::publish`] was counted.
    Receipts {
        /// From the call.
        token: u64,
        /// How many have got the message; none when it was not published.
        receipts: Option<Receipts>,
    },
    /// Something that the service had kept before the last stop.
    Restored {
        /// The key of [`Context::persist`].
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
        /// Seconds since it was written, by the host's clock.
        age_s: u64,
    },
    /// The near neighbours on the ring changed.
    NeighboursChanged,
    /// The addresses at which this node can be dialled changed.
    AddressesChanged,
    /// The session with the node ended, or it cannot be reached.
    Gone(NodeId),
    /// The deadline has come.
    Timeout,
}

/// A system call on its way to the kernel.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Send {
        service: ServiceId,
        to: Contact,
        body: Bytes,
    },
    Ask {
        service: ServiceId,
        token: u64,
        target: Position,
        any: bool,
        /// By way of this peer first.
        via: Option<Contact>,
        body: Bytes,
    },
    Locate {
        service: ServiceId,
        token: u64,
        target: Position,
        manner: Manner,
    },
    Search {
        service: ServiceId,
        token: u64,
        target: Position,
        paths: usize,
    },
    Answer {
        asker: Asker,
        body: Bytes,
    },
    Get {
        service: ServiceId,
        token: u64,
        key: Key,
        consistency: Consistency,
    },
    Put {
        service: ServiceId,
        token: u64,
        request: Box<PutRequest>,
    },
    Persist {
        service: ServiceId,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    },
    Suspect(NodeId),
    Subscribe {
        service: ServiceId,
        spec: Box<GroupSpec>,
    },
    Unsubscribe {
        service: ServiceId,
        group: GroupName,
    },
    Publish {
        service: ServiceId,
        group: GroupName,
        payload: Bytes,
        receipts: Option<u64>,
    },
}

/// The system calls of a service.
#[derive(Debug)]
pub struct Context<'a, E> {
    pub(crate) now: Time,
    pub(crate) unix_s: u64,
    pub(crate) service: ServiceId,
    pub(crate) keypair: &'a Keypair,
    pub(crate) overlay: &'a Overlay,
    pub(crate) rng: &'a mut Rng,
    pub(crate) calls: &'a mut VecDeque<Call>,
    pub(crate) events: &'a mut VecDeque<E>,
}

impl<E> Context<'_, E> {
    /// Returns the time of the present input.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Returns the seconds since 1970 by the host's clock at its start plus the time
    /// that has gone by since. Only for what other nodes take as a hint.
    pub fn unix_s(&self) -> u64 {
        self.unix_s
    }

    /// Returns the randomness of this node.
    pub fn rng(&mut self) -> &mut Rng {
        self.rng
    }

    /// Returns this node's key pair.
    pub fn keypair(&self) -> &Keypair {
        self.keypair
    }

    /// Returns the overlay as this node sees it.
    pub fn overlay(&self) -> &Overlay {
        self.overlay
    }

    /// Returns this node's id.
    pub fn me(&self) -> NodeId {
        self.overlay.me().id()
    }

    /// Sends to the same service of one node; without any promise of arrival.
    pub fn send(&mut self, to: Contact, body: impl Into<Bytes>) {
        let call = Call::Send {
            service: self.service,
            to,
            body: body.into(),
        };
        self.calls.push_back(call);
    }

    /// Sends to the same service of a node that has just spoken or is known.
    pub fn send_to(&mut self, to: NodeId, body: impl Into<Bytes>) {
        let contact = self
            .overlay
            .contact_of(to)
            .unwrap_or_else(|| Contact::new(to, []));
        self.send(contact, body);
    }

    /// Asks the same service of the node in charge of a position; with `any`, any node near
    /// it may answer.
    pub fn ask(&mut self, token: u64, target: Position, any: bool, body: impl Into<Bytes>) {
        let call = Call::Ask {
            service: self.service,
            token,
            target,
            any,
            via: None,
            body: body.into(),
        };
        self.calls.push_back(call);
    }

    /// Asks the same service of the node that a peer, and those after it, think in charge of a position.
    pub fn ask_by(&mut self, token: u64, via: Contact, target: Position, body: impl Into<Bytes>) {
        let call = Call::Ask {
            service: self.service,
            token,
            target,
            any: false,
            via: Some(via),
            body: body.into(),
        };
        self.calls.push_back(call);
    }

    /// Asks which nodes are in charge of a position.
    pub fn locate(&mut self, token: u64, target: Position, manner: Manner) {
        self.calls.push_back(Call::Locate {
            service: self.service,
            token,
            target,
            manner,
        });
    }

    /// Looks a position up over paths that have no node in common, 1 to
    /// [`enishi_overlay::overlay::PATHS_MAX`] of them.
    pub fn search(&mut self, token: u64, target: Position, paths: usize) {
        self.calls.push_back(Call::Search {
            service: self.service,
            token,
            target,
            paths,
        });
    }

    /// Answers [`ServiceInput::Asked`].
    pub fn answer(&mut self, asker: Asker, body: impl Into<Bytes>) {
        self.calls.push_back(Call::Answer {
            asker,
            body: body.into(),
        });
    }

    /// Reads the DHT.
    pub fn get(&mut self, token: u64, key: Key, consistency: Consistency) {
        self.calls.push_back(Call::Get {
            service: self.service,
            token,
            key,
            consistency,
        });
    }

    /// Writes to the DHT, and keeps the record there until it is removed.
    pub fn put(&mut self, token: u64, request: PutRequest) {
        self.calls.push_back(Call::Put {
            service: self.service,
            token,
            request: Box::new(request),
        });
    }

    /// Takes part in a multicast group; [`ServiceInput::Heard`] tells what others say there.
    pub fn subscribe(&mut self, spec: GroupSpec) {
        let spec = Box::new(spec);
        let service = self.service;
        self.calls.push_back(Call::Subscribe { service, spec });
    }

    /// Takes part in a multicast group no longer.
    pub fn unsubscribe(&mut self, group: GroupName) {
        let service = self.service;
        self.calls.push_back(Call::Unsubscribe { service, group });
    }

    /// Says something to all other members of a multicast group, at most
    /// [`PAYLOAD_BYTES_MAX`](crate::multicast::PAYLOAD_BYTES_MAX) octets. With a token for
    /// `receipts`, [`ServiceInput::Receipts`] follows within some seconds.
    pub fn publish(&mut self, group: GroupName, payload: impl Into<Bytes>, receipts: Option<u64>) {
        self.calls.push_back(Call::Publish {
            service: self.service,
            group,
            payload: payload.into(),
            receipts,
        });
    }

    /// Keeps a value for the next start; `None` forgets it. What was kept is on disk
    /// before anything leaves the node that was sent in the same step.
    pub fn persist(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.calls.push_back(Call::Persist {
            service: self.service,
            key,
            value,
        });
    }

    /// Tells the overlay that a node did not answer: a peer is asked for a sign of life, and
    /// one that is dead leaves the tables seconds later.
    pub fn suspect(&mut self, silent: NodeId) {
        self.calls.push_back(Call::Suspect(silent));
    }

    /// Tells the host.
    pub fn emit(&mut self, event: E) {
        self.events.push_back(event);
    }
}
