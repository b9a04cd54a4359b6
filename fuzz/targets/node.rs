//! A whole node against hostile peers, on a clock of the fuzzer's.
//!
//! The input is a row of events. Two real nodes, of which the first is watched more
//! closely, have their messages to each other delivered, dropped, doubled or damaged;
//! three peers without a node behind them say whatever the input wants, in messages
//! that are decoded from it or built so that they fit what the node just said. The
//! node must not panic, its tables and its answers to one input stay bounded, it must
//! not ring for ever at one moment, and what it says it would understand itself.
#![no_main]

#[path = "node/values.rs"]
mod values;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::OnceLock;
use std::time::Duration;

use enishi_overlay::class::Grade;
use enishi_overlay::message::{Answer, Query, Reply, Returned, Routed, WIRE_VERSION};
use enishi_overlay::overlay::Manner;
use enishi_overlay::silence::Silences;
use enishi_overlay::{
    Coordinate, HopReport, Keypair, Message, NodeId, OverlayId, PathKind, Software, Time, Vitals,
};
use enishi_services::calls::{GroupName, GroupSpec, Order, Tree};
use enishi_services::dht::store::{BYTES_HELD_MAX, RECORDS_HELD_MAX};
use enishi_services::dht::wire::{DhtMessage, Question, encode};
use enishi_services::dht::{self, Caller, PutRequest};
use enishi_services::keys::Secret;
use enishi_services::multicast::wire::{Body, Data, Flow, Have, Want};
use enishi_services::multicast::{CARRIED_MAX, GROUPS_MAX, Subscriber};
use enishi_services::service::ServiceId;
use enishi_services::vnet::wire::VnetMessage;
use enishi_services::vnet::{self, ChannelId, ChannelSpec};
use enishi_services::{Command, Config, Input, Node, Output, diag, multicast};
use libfuzzer_sys::fuzz_target;

use values::{address, hello};

/// The most answers to one input.
const OUTPUTS_MAX: usize = 10_000;
/// The most peers: near neighbours and links of both directions are far fewer.
const PEERS_MAX: usize = 200;
/// How often a node may ring at one moment.
const RINGS_MAX: usize = 100;
/// The most messages between the two nodes that wait.
const MAIL_MAX: usize = 256;
/// How many ids there are: two nodes, three peers, and strangers that nobody ever met.
const IDS: usize = 24;
const NODES: usize = 2;
const SPEAKERS: usize = 5;

fuzz_target!(|octets: &[u8]| {
    let mut world = World::new(octets);
    while world.step().is_some() {}
});

/// Key pairs are made once: they cost more than most events.
fn keypairs() -> &'static [Keypair] {
    static KEYPAIRS: OnceLock<Vec<Keypair>> = OnceLock::new();
    KEYPAIRS.get_or_init(|| {
        let keypair = |number: usize| Keypair::from_seed(&[number as u8 + 1; 32]);
        (0..IDS).map(keypair).collect()
    })
}

/// What the node said last to one of the peers, so that an answer can fit it.
#[derive(Default)]
struct Said {
    hello: u32,
    ping: u16,
    version: u32,
    hop: u32,
    find: u32,
    request: u64,
    dht: u64,
}

struct World<'a> {
    octets: &'a [u8],
    now: Time,
    nodes: [Node; NODES],
    mail: VecDeque<(usize, Message)>,
    said: Said,
}

impl<'a> World<'a> {
    fn new(octets: &'a [u8]) -> Self {
        let nodes = [0, 1].map(|number| {
            let config = Config {
                overlay: enishi_overlay::Config::new(OverlayId::from_name("fuzz")),
                addresses: vec![address(number as u8)],
                host_name: format!("node{number}"),
                started_unix_s: 1_800_000_000,
            };
            Node::new(keypairs()[number].clone(), config, [number as u8; 32])
        });
        Self {
            octets,
            now: Time::ZERO,
            nodes,
            mail: VecDeque::new(),
            said: Said::default(),
        }
    }

    /// Takes one event from the input; none at its end.
    fn step(&mut self) -> Option<()> {
        match self.octet()? % 25 {
            0 => {
                let wait = Duration::from_millis(u64::from(self.octet()?) * 20);
                self.pass(self.now + wait);
            }
            1 => {
                let next = self.nodes.iter().filter_map(Node::next_timeout).min();
                self.pass(next.unwrap_or(self.now));
            }
            2 => {
                let wait = Duration::from_secs(self.octet()?.into());
                self.pass(self.now + wait);
            }
            3..=6 => self.mail()?,
            7 => self.raw()?,
            8 => {
                let (from, nonce, link) = (self.peer()?, self.number()? as u32, self.flag()?);
                let view = self.view()?;
                self.say(from, Message::Hello(hello(from, nonce, link, view)));
            }
            9 => {
                let (from, nonce, link) = (self.peer()?, self.said.hello, self.flag()?);
                let view = self.view()?;
                self.say(from, Message::Welcome(hello(from, nonce, link, view)));
            }
            10 => {
                let (from, known) = (self.peer()?, self.flag()?);
                let (nonce, version) = (self.said.ping, self.said.version);
                self.say(
                    from,
                    Message::Pong {
                        nonce,
                        version,
                        known,
                        about: known.then(Default::default),
                    },
                );
            }
            11 => {
                let (from, view) = (self.peer()?, self.view()?);
                self.say(from, Message::ViewUpdate(view));
            }
            12 => self.routed()?,
            13 => self.answer()?,
            14 => self.hop()?,
            15..=18 => self.dht()?,
            19 => {
                let (from, service) = (self.peer()?, self.octet()?);
                let body = self.body()?;
                self.say(from, Message::Direct { service, body });
            }
            20 | 21 => self.command()?,
            22 => self.restored()?,
            23 => self.circumstance()?,
            _ => self.multicast()?,
        }
        Some(())
    }

    /// Lets time pass, with every deadline on the way.
    fn pass(&mut self, until: Time) {
        let mut rings = [0; NODES];
        loop {
            let due = (0..NODES).filter_map(|node| Some((self.nodes[node].next_timeout()?, node)));
            let Some((at, node)) = due.min().filter(|(at, _)| *at <= until) else {
                break;
            };
            if at > self.now {
                self.now = at;
                rings = [0; NODES];
            }
            rings[node] += 1;
            assert!(
                rings[node] <= RINGS_MAX,
                "it rings for ever at {}",
                self.now
            );
            self.give(node, Input::Timeout);
        }
        self.now = self.now.max(until);
    }

    /// What happens to the first message between the nodes.
    fn mail(&mut self) -> Option<()> {
        let fate = self.octet()?;
        let place = usize::from(self.octet()?);
        let Some((to, message)) = self.mail.pop_front() else {
            return Some(());
        };
        let from = keypairs()[1 - to].id();
        let message = match fate % 8 {
            0 => return Some(()),
            1 => {
                self.mail.push_back((to, message.clone()));
                message
            }
            2 => {
                let mut octets = message.encode();
                let place = place % octets.len();
                octets[place] ^= fate;
                Message::decode(&octets).unwrap_or(message)
            }
            _ => message,
        };
        self.give(to, Input::Message { from, message });
        Some(())
    }

    fn raw(&mut self) -> Option<()> {
        let from = self.peer()?;
        let body = self.body()?;
        let octets = [&[WIRE_VERSION][..], &body].concat();
        if let Ok(message) = Message::decode(&octets) {
            self.say(from, message);
        }
        Some(())
    }

    fn routed(&mut self) -> Option<()> {
        let from = self.peer()?;
        let routed = Routed {
            request: self.number()?,
            origin: self.contact()?,
            target: self.position()?,
            hops: self.octet()?,
            hop: self.number()? as u32,
            toward: match self.flag()? {
                true => Some(self.position()?),
                false => None,
            },
            by_ring: self.flag()?,
            silences: self.silences()?,
            straight: self.flag()?,
            any: self.flag()?,
            trace: self.flag()?,
            query: match self.octet()? % 6 {
                0 => Query::Nodes {
                    count: self.octet()?,
                },
                1 => {
                    let (key, consistency) = (self.key()?, self.consistency()?);
                    let body = encode(&Question {
                        key,
                        consistency,
                        known: self.summary()?,
                    })
                    .into();
                    Query::Service { service: 1, body }
                }
                2 => Query::Place {
                    alone: self.flag()?,
                },
                3 => Query::Links {
                    to: self.flag()?.then(Coordinate::default),
                },
                4 => Query::Register {
                    host: self.contact()?,
                },
                _ => Query::Service {
                    service: self.octet()?,
                    body: self.body()?,
                },
            },
        };
        self.say(from, Message::Routed(routed));
        Some(())
    }

    /// Whatever the octets make of it, if there are no more than a decoder lets pass.
    fn silences(&mut self) -> Option<Silences> {
        let silences: Silences = postcard::from_bytes(&self.body()?).unwrap_or_default();
        Some(if silences.is_bounded() {
            silences
        } else {
            Silences::default()
        })
    }

    fn answer(&mut self) -> Option<()> {
        let from = self.peer()?;
        let back = u64::from(self.octet()? / 16);
        let reply = match self.octet()? % 3 {
            0 => Reply::Nodes(self.list(12, Self::entry)?),
            1 => Reply::Acquaintances(self.list(12, Self::entry)?),
            _ => Reply::Service(self.body()?),
        };
        let request = self.said.request.saturating_sub(back);
        let answer = Answer {
            request,
            hops: 3,
            reply,
        };
        let message = match self.flag()? {
            true => Message::Answer(answer),
            false => Message::Back {
                hop: self.said.hop,
                by: self.id()?,
                returned: Returned::Answer(answer),
            },
        };
        self.say(from, message);
        Some(())
    }

    fn hop(&mut self) -> Option<()> {
        let from = self.peer()?;
        let message = match self.octet()? % 7 {
            0 => Message::HopAck { hop: self.said.hop },
            1 => Message::Back {
                hop: self.said.hop,
                by: self.id()?,
                returned: Returned::Report(HopReport {
                    request: self.said.request,
                    hops: self.octet()?,
                    next: Some(self.id()?),
                    next_path: PathKind::Direct,
                    gives_back: self.octet()? & 1 == 1,
                    vitals: Vitals {
                        software: Software::THIS,
                        load_per_mille: 0,
                        grade: Grade::default(),
                    },
                }),
            },
            3 => Message::HopNack {
                hop: self.said.hop,
                declined: self.octet()? & 1 == 1,
            },
            4 => Message::Find {
                nonce: self.number()? as u32,
                target: self.position()?,
            },
            5 => Message::Found {
                nonce: self.said.find,
                nodes: self.list(12, Self::entry)?,
            },
            2 => Message::Introduce {
                subject: self.id()?,
            },
            _ => Message::Introduced {
                newcomer: self.contact()?,
            },
        };
        self.say(from, message);
        Some(())
    }

    fn dht(&mut self) -> Option<()> {
        let (from, token) = (self.peer()?, self.said.dht);
        let message = match self.octet()? % 12 {
            0 => DhtMessage::Put {
                token,
                record: self.record()?,
            },
            1 => DhtMessage::PutReply {
                token,
                outcome: self.outcome()?,
            },
            2 => DhtMessage::Store {
                token,
                aged: self.aged()?,
            },
            3 => DhtMessage::StoreReply {
                token,
                outcome: self.outcome()?,
            },
            4 => DhtMessage::Fetch {
                token,
                key: self.key()?,
                known: self.summary()?,
            },
            5 => DhtMessage::FetchReply {
                token,
                records: self.list(6, Self::aged)?,
            },
            6 => DhtMessage::Compare(self.compare()?),
            7 => DhtMessage::Want {
                items: self.list(8, Self::item)?,
            },
            8 => DhtMessage::Near {
                token,
                key: self.key()?,
            },
            9 => DhtMessage::NearReply {
                token,
                nodes: vec![self.contact()?],
            },
            10 => DhtMessage::Same { token },
            _ => DhtMessage::Records {
                records: self.list(6, Self::aged)?,
            },
        };
        let body = message.encode().into();
        self.say(from, Message::Direct { service: 1, body });
        Some(())
    }

    /// What somebody who knows a group by its tag only may say of it.
    fn multicast(&mut self) -> Option<()> {
        let (from, tag) = (self.peer()?, multicast::tag_of(&self.group()?));
        let flow = Flow([self.octet()? % 4; 8]);
        let body = match self.octet()? % 10 {
            0 | 1 => Body::Data(Data {
                flow,
                number: self.number()?.max(1),
                hops: self.octet()?,
                direct: self.flag()?,
                receipts: self.flag()?,
                sealed: self.body()?,
                age_ms: self.number()? as u32,
            }),
            2 => Body::Prune { flow },
            3 => Body::Graft {
                wanted: vec![Want {
                    flow,
                    numbers: vec![self.number()?, 1],
                }],
            },
            4 => Body::Digest {
                has: vec![Have {
                    flow,
                    up_to: self.number()?,
                    silent_ms: self.number()? as u32,
                }],
            },
            5 => Body::Receipt {
                flow,
                number: self.number()?,
                received: self.number()? as i32,
                expected: self.number()? as i32,
            },
            6 => Body::Link(self.body()?),
            7 => Body::Exchange(self.body()?),
            8 => Body::Join,
            _ => [Body::Joined, Body::Leave][usize::from(self.flag()?)].clone(),
        };
        let (service, body) = (ServiceId::Multicast as u8, body.encode(tag).into());
        self.say(from, Message::Direct { service, body });
        Some(())
    }

    fn group(&mut self) -> Option<GroupSpec> {
        let number = self.octet()? % 4;
        Some(GroupSpec {
            name: GroupName([number / 2; 32]),
            secret: Secret::new([8; 32]),
            tree: [Tree::Biased, Tree::Scribe][usize::from(number % 2)],
            order: [Order::None, Order::PerSender][usize::from(number / 2)],
        })
    }

    fn command(&mut self) -> Option<()> {
        let node = usize::from(self.octet()?) % NODES;
        let command = match self.octet()? % 13 {
            0 => Command::Vnet(self.open()?),
            1 => Command::Vnet(vnet::Command::Close(ChannelId(self.octet()?.into()))),
            2 => Command::Vnet(vnet::Command::Resolve {
                channel: ChannelId(u32::from(self.octet()? % 4)),
                address: self.virtual_address(),
            }),
            3 => Command::Vnet(vnet::Command::UnknownIndex {
                from: self.id()?,
                index: self.number()? as u32,
            }),
            4 => Command::Dht(dht::Command::Get {
                caller: Caller::Host(1),
                key: self.key()?,
                consistency: self.consistency()?,
            }),
            5 => Command::Dht(self.put()?),
            6 => Command::Diag(diag::Command::Ping {
                id: self.octet()?.into(),
                target: self.id()?,
                timeout: Duration::from_secs(1),
            }),
            7 => Command::Diag(diag::Command::Locate {
                id: self.octet()?.into(),
                target: self.position()?,
                manner: [Manner::EXACT, Manner::ANY][usize::from(self.flag()?)],
            }),
            8 => Command::Diag(diag::Command::FindMe {
                id: self.octet()?.into(),
                stranger: self.id()?,
                timeout: Duration::from_secs(1),
            }),
            9 => Command::Dht(dht::Command::Survey {
                id: self.octet()?.into(),
                key: self.key()?,
            }),
            11 => Command::Multicast(match self.flag()? {
                true => multicast::Command::Subscribe {
                    subscriber: Subscriber::Host,
                    spec: self.group()?,
                },
                false => multicast::Command::Unsubscribe {
                    subscriber: Subscriber::Host,
                    group: self.group()?.name,
                },
            }),
            12 => Command::Multicast(multicast::Command::Publish {
                subscriber: Subscriber::Host,
                group: self.group()?.name,
                payload: self.body()?,
                receipts: self.flag()?.then_some(1),
            }),
            _ => Command::Diag(diag::Command::Trace {
                id: self.octet()?.into(),
                target: self.position()?,
            }),
        };
        self.give(node, Input::Command(command));
        Some(())
    }

    fn open(&mut self) -> Option<vnet::Command> {
        let network = ["10.77.0.0/30", "10.77.0.0/16"][usize::from(self.flag()?)];
        let spec = ChannelSpec {
            name: format!("channel{}", self.octet()? % 2),
            network: network.parse().expect("a network"),
            secret: Secret::new([7; 32]),
            entry: vnet::Entry::Secret,
        };
        let chosen = self.octet()?;
        let address = (chosen % 2 == 0).then(|| Ipv4Addr::new(10, 77, 0, 1 + chosen % 2));
        Some(vnet::Command::Open { spec, address })
    }

    fn put(&mut self) -> Option<dht::Command> {
        let request = PutRequest {
            kind: self.kind()?,
            writer: keypairs()[usize::from(self.octet()?) % IDS].clone(),
            owner: keypairs()[usize::from(self.octet()?) % IDS].clone(),
            lease_s: self.number()? as u32,
            value: Some(self.body()?),
        };
        let caller = Caller::Host(2);
        let request = request.into();
        Some(dht::Command::Put { caller, request })
    }

    /// What a damaged disk, or this one, gives back.
    fn restored(&mut self) -> Option<()> {
        let service = [ServiceId::Dht, ServiceId::Vnet][usize::from(self.flag()?)];
        let (key, value) = match self.octet()? % 3 {
            0 => (b"h".to_vec(), postcard::to_stdvec(&self.aged()?).ok()?),
            1 => (b"o".to_vec(), postcard::to_stdvec(&self.record()?).ok()?),
            _ => (vec![self.octet()?], self.body()?.to_vec()),
        };
        let age_s = self.number()?;
        let input = Input::Restored {
            service,
            key,
            value,
            age_s,
        };
        self.give(0, input);
        Some(())
    }

    fn circumstance(&mut self) -> Option<()> {
        let node = usize::from(self.octet()?) % NODES;
        match self.octet()? % 6 {
            0 => {
                let id = self.id()?;
                self.give(node, Input::Unreachable(id));
            }
            1 => {
                let id = self.id()?;
                self.give(node, Input::Closed(id));
            }
            2 => {
                let from = self.peer()?;
                self.say(from, Message::Leave);
            }
            3 => {
                let addresses = self.list(10, |world| world.octet().map(address))?;
                self.give(node, Input::Addresses(addresses));
            }
            4 => self.give(node, Input::Leave),
            _ => {
                let contacts = self.list(20, Self::contact)?;
                self.give(node, Input::Bootstrap(contacts));
            }
        }
        Some(())
    }

    /// One of the peers says something to the first node.
    fn say(&mut self, from: usize, message: Message) {
        let from = keypairs()[from].id();
        self.give(0, Input::Message { from, message });
    }

    /// Gives a node an input, and checks what it does and has become.
    fn give(&mut self, node: usize, input: Input) {
        let outputs: Vec<Output> = self.nodes[node].handle(self.now, input).collect();
        assert!(outputs.len() < OUTPUTS_MAX, "{} outputs", outputs.len());
        let state = &self.nodes[node];
        assert!(state.overlay().peers().count() <= PEERS_MAX);
        assert!(state.dht().store().len() <= RECORDS_HELD_MAX);
        assert!(state.dht().store().bytes() <= BYTES_HELD_MAX);
        assert!(state.multicast().groups() <= GROUPS_MAX + CARRIED_MAX);
        for output in outputs {
            if let Output::Send { to, message } = output {
                check(&message);
                self.sent(node, to.id(), message);
            }
        }
    }

    fn sent(&mut self, node: usize, to: NodeId, message: Message) {
        if to == self.nodes[1 - node].id() {
            if self.mail.len() < MAIL_MAX {
                self.mail.push_back((1 - node, message));
            }
        } else if node == 0 {
            self.said.note(&message);
        }
    }
}

impl Said {
    fn note(&mut self, message: &Message) {
        match message {
            Message::Hello(hello) => self.hello = hello.nonce,
            Message::Ping { nonce, version } => (self.ping, self.version) = (*nonce, *version),
            Message::Find { nonce, .. } => self.find = *nonce,
            Message::Routed(routed) => (self.hop, self.request) = (routed.hop, routed.request),
            Message::Direct { service: 1, body } => match DhtMessage::decode(body) {
                Ok(
                    DhtMessage::Put { token, .. }
                    | DhtMessage::Store { token, .. }
                    | DhtMessage::Fetch { token, .. },
                ) => self.dht = token,
                _ => {}
            },
            _ => {}
        }
    }
}

/// What a node says, it would understand itself.
fn check(message: &Message) {
    assert_eq!(Message::decode(&message.encode()).as_ref(), Ok(message));
    match message {
        Message::Direct { service: 1, body } => {
            assert!(DhtMessage::decode(body).is_ok(), "a DHT message of its own");
        }
        Message::Direct { service: 3, body } => {
            assert!(
                VnetMessage::decode(body).is_some(),
                "a vnet message of its own"
            );
        }
        _ => {}
    }
}
