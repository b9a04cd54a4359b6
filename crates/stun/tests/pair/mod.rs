//! A server, our client and a hand-made client, with virtual time and a network without delay.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use enishi_overlay::Time;
use enishi_stun::{
    Action, Client, ClientConfig, ClientEvent, ClientInput, ClientOutput, Credentials, Family,
    Input, Leg, Limits, Policy, Server, ServerConfig,
};
use stun_types::attribute::{AttributeWrite, ErrorCode, Nonce, Realm, Username};
use stun_types::message::{
    IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageWrite as _, MessageWriteExt as _,
    MessageWriteVec, Method,
};
use turn_types::attribute::{ChannelNumber, RequestedTransport, XorPeerAddress};
use turn_types::message::ALLOCATE;

pub(crate) const SERVER: &str = "192.0.2.1:3478";
pub(crate) const PEER: &str = "9.9.9.9:99";
const REALM: &str = "lab";
const USER: &str = "aki";
const PASSWORD: &str = "correct horse";

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn config(limits: Limits) -> ServerConfig {
    ServerConfig {
        realm: REALM.to_owned(),
        listen: address(SERVER),
        users: vec![Credentials::new(USER, PASSWORD).unwrap()],
        families: vec![Family::V4],
        policy: Policy::default(),
        limits,
    }
}

/// A server with its host.
pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) now: Time,
    pub(crate) open: BTreeSet<SocketAddr>,
    pub(crate) exhausted: bool,
    /// By what clients speak.
    pub(crate) leg: Leg,
    port: u16,
}

/// What reached the network.
#[derive(Default)]
pub(crate) struct Sent {
    pub(crate) to_clients: Vec<(SocketAddr, Vec<u8>)>,
    pub(crate) to_peers: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
}

impl Site {
    pub(crate) fn new(limits: Limits) -> Self {
        Self::with(config(limits))
    }

    pub(crate) fn with(config: ServerConfig) -> Self {
        Self {
            server: Server::new(config, [7; 32]),
            now: Time::from_secs(1),
            open: BTreeSet::new(),
            exhausted: false,
            leg: Leg::Udp,
            port: 50_000,
        }
    }

    /// Gives something to the server and does what it wants.
    pub(crate) fn handle(&mut self, input: Input<'_>) -> Sent {
        let mut sent = Sent::default();
        let mut todo: Vec<Action> = self.server.handle(self.now, input).collect();
        while !todo.is_empty() {
            let action = todo.remove(0);
            match action {
                Action::ToClient { to, datagram } if self.leg == Leg::Udp => {
                    sent.to_clients.push((to, datagram));
                }
                Action::ToStream { to, message } if self.leg == Leg::Tcp => {
                    sent.to_clients.push((to, message));
                }
                Action::ToClient { .. } | Action::ToStream { .. } => {
                    panic!("it is answered as it came")
                }
                Action::ToPeer {
                    relayed,
                    to,
                    datagram,
                } => {
                    assert!(self.open.contains(&relayed));
                    sent.to_peers.push((relayed, to, datagram));
                }
                Action::Open(opening) => {
                    self.port += 2;
                    let ip = match opening.family {
                        Family::V4 => "192.0.2.1",
                        Family::V6 => "[2001:db8::1]",
                    };
                    let relayed = address(&format!("{ip}:{}", self.port));
                    let relayed = (!self.exhausted).then_some(relayed);
                    self.open.extend(relayed);
                    let input = Input::Opened { opening, relayed };
                    todo.extend(self.server.handle(self.now, input));
                }
                Action::Close(relayed) => assert!(self.open.remove(&relayed)),
            }
        }
        sent
    }

    pub(crate) fn client_sends(&mut self, source: SocketAddr, datagram: &[u8]) -> Sent {
        let message = datagram;
        self.handle(match self.leg {
            Leg::Udp => Input::FromClient { source, datagram },
            Leg::Tcp => Input::FromStream { source, message },
        })
    }

    pub(crate) fn peer_sends(&mut self, source: SocketAddr, datagram: &[u8]) -> Sent {
        let relayed = *self.open.first().unwrap();
        self.handle(Input::FromPeer {
            relayed,
            source,
            datagram,
        })
    }

    /// Lets time pass, with every timeout on the way.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.server.next_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.handle(Input::Timeout);
            let next = self.server.next_timeout();
            assert!(next.is_none_or(|next| next > self.now), "it has come");
        }
        self.now = end;
    }
}

/// A client made by hand, which signs whatever it is given.
pub(crate) struct Hand {
    pub(crate) source: SocketAddr,
    nonce: Option<String>,
    password: &'static str,
}

impl Hand {
    pub(crate) fn new(source: &str) -> Self {
        Self {
            source: address(source),
            nonce: None,
            password: PASSWORD,
        }
    }

    pub(crate) fn with_password(source: &str, password: &'static str) -> Self {
        Self {
            password,
            ..Self::new(source)
        }
    }

    pub(crate) fn request(&self, method: Method, attributes: &[&dyn AttributeWrite]) -> Vec<u8> {
        let mut request = Message::builder_request(method, MessageWriteVec::new());
        for attribute in attributes {
            request.add_attribute(*attribute).unwrap();
        }
        self.sign(request)
    }

    /// A request about a peer, whose address is written by the request's id.
    pub(crate) fn about(&self, method: Method, peer: SocketAddr, channel: Option<u16>) -> Vec<u8> {
        let mut request = Message::builder_request(method, MessageWriteVec::new());
        if let Some(number) = channel {
            let number = ChannelNumber::new(number);
            request.add_attribute(&number).unwrap();
        }
        let peer = XorPeerAddress::new(peer, request.transaction_id());
        request.add_attribute(&peer).unwrap();
        self.sign(request)
    }

    /// A request with whatever is written into it.
    pub(crate) fn unchecked(
        &self,
        method: Method,
        write: impl FnOnce(&mut MessageWriteVec),
    ) -> Vec<u8> {
        let mut request = Message::builder_request(method, MessageWriteVec::new());
        write(&mut request);
        self.sign(request)
    }

    /// Reads the nonce in an answer, if there is one.
    pub(crate) fn learn_if_told(&mut self, answer: &[u8]) {
        if let Ok(message) = Message::from_bytes(answer)
            && message.attribute::<Nonce>().is_ok()
        {
            self.learn(answer);
        }
    }

    /// Reads the nonce in an answer.
    pub(crate) fn learn(&mut self, answer: &[u8]) {
        let answer = Message::from_bytes(answer).unwrap();
        let nonce = answer.attribute::<Nonce>().unwrap();
        self.nonce = Some(nonce.nonce().to_owned());
    }

    fn sign(&self, mut request: MessageWriteVec) -> Vec<u8> {
        if let Some(nonce) = &self.nonce {
            request
                .add_attribute(&Username::new(USER).unwrap())
                .unwrap();
            request.add_attribute(&Realm::new(REALM).unwrap()).unwrap();
            request.add_attribute(&Nonce::new(nonce).unwrap()).unwrap();
            let credentials = LongTermKeyCredentials::new(
                USER.to_owned(),
                self.password.to_owned(),
                REALM.to_owned(),
            );
            let algorithm = IntegrityAlgorithm::Sha1;
            let key = credentials.make_key(algorithm);
            request
                .add_message_integrity_with_key(&key, algorithm)
                .unwrap();
        }
        request.finish()
    }

    /// Sends a request, again as long as it is told another nonce, and returns the error code or
    /// `None` for success, and the last answer.
    pub(crate) fn ask(
        &mut self,
        site: &mut Site,
        method: Method,
        make: impl Fn(&Self) -> Vec<u8>,
    ) -> (Option<u16>, Vec<u8>) {
        for _ in 0..4 {
            let sent = site.client_sends(self.source, &make(self));
            let (to, answer) = sent.to_clients.first().expect("an answer").clone();
            assert_eq!(to, self.source);
            let message = Message::from_bytes(&answer).unwrap();
            assert!(message.has_method(method));
            let Ok(error) = message.attribute::<ErrorCode>() else {
                return (None, answer);
            };
            let retry = error.code() == 438 || (error.code() == 401 && self.nonce.is_none());
            if !retry {
                return (Some(error.code()), answer);
            }
            self.learn(&answer);
        }
        panic!("told another nonce again and again");
    }

    pub(crate) fn say(
        &mut self,
        site: &mut Site,
        method: Method,
        attributes: &[&dyn AttributeWrite],
    ) -> Option<u16> {
        self.ask(site, method, |hand| hand.request(method, attributes))
            .0
    }

    pub(crate) fn allocate(&mut self, site: &mut Site) -> Option<u16> {
        let udp = RequestedTransport::new(RequestedTransport::UDP);
        self.say(site, ALLOCATE, &[&udp])
    }
}

/// Our client and the site of its server.
pub(crate) struct Pair {
    pub(crate) site: Site,
    pub(crate) client: Client,
    pub(crate) source: SocketAddr,
    pub(crate) events: Vec<ClientEvent>,
    pub(crate) to_peers: Vec<(SocketAddr, Vec<u8>)>,
    /// The server neither hears nor is heard.
    pub(crate) deaf: bool,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::by(Leg::Udp)
    }

    /// A client that speaks so.
    pub(crate) fn by(leg: Leg) -> Self {
        let source = address("198.51.100.7:4000");
        let client = Client::new(ClientConfig {
            server: address(SERVER),
            local: source,
            credentials: Credentials::new(USER, PASSWORD).unwrap(),
            family: Family::V4,
            leg,
        });
        Self {
            site: Site {
                leg,
                ..Site::new(Limits::default())
            },
            client,
            source,
            events: Vec::new(),
            to_peers: Vec::new(),
            deaf: false,
        }
    }

    pub(crate) fn tell(&mut self, input: ClientInput<'_>) {
        let outputs: Vec<ClientOutput> = self.client.handle(self.site.now, input).collect();
        for output in outputs {
            match output {
                ClientOutput::Event(event) => self.events.push(event),
                ClientOutput::Send(datagram) if !self.deaf => {
                    let sent = self.site.client_sends(self.source, &datagram);
                    self.deliver(sent);
                }
                ClientOutput::Send(_) => {}
            }
        }
    }

    pub(crate) fn deliver(&mut self, sent: Sent) {
        let to_peers = sent.to_peers.into_iter();
        self.to_peers
            .extend(to_peers.map(|(_, to, octets)| (to, octets)));
        for (_, datagram) in sent.to_clients {
            self.tell(ClientInput::Datagram(&datagram));
        }
    }

    /// Lets time pass, with every timeout of both on the way.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.site.now + time;
        while let Some(due) = self.client.next_timeout().filter(|due| *due <= end) {
            let step = due.since(self.site.now);
            self.site.pass(step);
            self.tell(ClientInput::Timeout);
        }
        self.site.pass(end.since(self.site.now));
    }

    pub(crate) fn happened(&mut self, event: &ClientEvent) -> bool {
        let position = self.events.iter().position(|other| other == event);
        position.map(|at| self.events.remove(at)).is_some()
    }
}
