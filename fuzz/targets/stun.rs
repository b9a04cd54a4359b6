//! Whoever speaks STUN and TURN: strangers, a client that has a password, peers, and a server that
//! our client uses. Nothing panics; answers are short; who gets a ticket asked for it where it went;
//! peers of the site are not reached; and what was opened is closed in the end.
//!
//! The input is a row of steps: one octet that says whose, one for the length, and so many octets.
#![no_main]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use enishi_overlay::Time;
use enishi_stun::{
    ANSWER_MULTIPLE_MAX, Action, Answerer, Client, ClientConfig, ClientInput, ClientOutput,
    Credentials, Family, Input, Leg, Limits, MESSAGE_BYTES_MAX, Policy, Server, ServerConfig,
    Stream, Tickets, allowed, in_stream, is_stun, mapped, ticket,
};
use libfuzzer_sys::fuzz_target;
use stun_types::attribute::{AttributeType, Nonce, RawAttribute, Realm, Username};
use stun_types::message::{
    BINDING, IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials, Message, MessageWrite as _,
    MessageWriteExt as _, MessageWriteVec, Method,
};

const USER: (&str, &str, &str) = ("u", "p", "r");
const CLIENT: ([u8; 4], u16) = ([198, 51, 100, 7], 4000);
const STRANGER: ([u8; 4], u16) = ([198, 51, 100, 8], 4000);
const SERVER: ([u8; 4], u16) = ([192, 0, 2, 1], 3478);
const ALLOCATE: u8 = 3;
/// REQUESTED-TRANSPORT of UDP.
const UDP: &[u8] = &[0x00, 0x19, 4, 17, 0, 0, 0];
/// Attributes that signing writes.
const SIGNATURES: [u16; 3] = [0x0008, 0x001c, 0x8028];
/// TICKET, and its octets.
const TICKET: (u16, usize) = (0xe715, 8);

fuzz_target!(|octets: &[u8]| {
    answer(Time::ZERO, octets);
    let mut site = Site::new();
    site.signed(ALLOCATE, UDP);
    site.signed(ALLOCATE, UDP);
    site.signed(ALLOCATE, UDP);
    assert_eq!(site.open.len(), 1);
    let mut client = Client::new(ClientConfig {
        server: SERVER.into(),
        local: CLIENT.into(),
        credentials: Credentials::new(USER.0, USER.1).unwrap(),
        family: Family::V4,
        leg: Leg::Udp,
    });
    let mut rest = octets;
    while let [kind, length, after @ ..] = rest {
        let (step, after) = after.split_at(after.len().min((*length).into()));
        rest = after;
        match kind % 9 {
            6 => site.stream(step),
            7 => site.handle(Input::StreamEnded(CLIENT.into())),
            0 => site.handle(Input::FromClient {
                source: CLIENT.into(),
                datagram: step,
            }),
            1 => site.handle(Input::FromClient {
                source: STRANGER.into(),
                datagram: step,
            }),
            2 => site.peer(step),
            3 => {
                if let [method, attributes @ ..] = step {
                    site.signed(*method, attributes);
                }
            }
            4 => use_server(&mut client, site.now, step),
            8 => answer(site.now, &binding(step)),
            _ => site.pass(Duration::from_secs(u64::from(*length) * 8)),
        }
    }
    site.pass(Duration::from_secs(3700));
    assert!(site.open.is_empty());
    assert_eq!(site.server.next_timeout(), None);
});

/// What comes to those who answer Binding requests, and to those who asked.
fn answer(now: Time, octets: &[u8]) {
    let _ = (mapped(octets), ticket(octets));
    let tickets = Tickets::new([9; 32]);
    let giving = Answerer::at_ports().with_tickets(tickets.clone());
    for (mut answerer, gives) in [
        (Answerer::new(), false),
        (Answerer::at_ports(), false),
        (giving, true),
    ] {
        let Some(answer) = answerer.answer(now, STRANGER.into(), octets) else {
            continue;
        };
        assert!(is_stun(octets) && is_stun(&answer.octets));
        assert!(answer.octets.len() <= ANSWER_MULTIPLE_MAX * octets.len());
        assert_eq!(answer.octets[8..20], octets[8..20]);
        let is_same = answer.to == STRANGER.into();
        assert!(
            is_same || (answer.to.ip() == IpAddr::from(STRANGER.0) && answer.to.port() >= 1024)
        );
        let told = mapped(&answer.octets);
        assert!(told.is_none_or(|(_, at)| at == STRANGER.into()));
        let given = ticket(&answer.octets);
        let is_given = gives && is_same && told.is_some() && wants_ticket(octets);
        assert_eq!(given.is_some(), is_given);
        if let Some(given) = given {
            let elsewhere = Tickets::new([8; 32]);
            assert!(tickets.gave(now, STRANGER.0.into(), given));
            assert!(!tickets.gave(now, CLIENT.0.into(), given));
            assert!(!elsewhere.gave(now, STRANGER.0.into(), given));
        }
    }
}

fn wants_ticket(octets: &[u8]) -> bool {
    let request = Message::from_bytes(octets).unwrap();
    let wanted = request.raw_attribute(AttributeType::new(TICKET.0));
    wanted.is_some_and(|wanted| wanted.value.len() == TICKET.1)
}

/// A Binding request; the first octet says whether it has a fingerprint.
fn binding(step: &[u8]) -> Vec<u8> {
    let mut request = Message::builder_request(BINDING, MessageWriteVec::new());
    if let [print, attributes @ ..] = step {
        add(&mut request, attributes);
        if *print == 1 {
            let _ = request.add_fingerprint();
        }
    }
    request.finish()
}

/// Attributes are written as type, one octet of length, value.
fn add(request: &mut MessageWriteVec, attributes: &[u8]) {
    let mut rest = attributes;
    while let [high, low, length, after @ ..] = rest {
        let (value, after) = after.split_at(after.len().min((*length).into()));
        rest = after;
        let kind = u16::from_be_bytes([*high, *low]);
        if !SIGNATURES.contains(&kind) {
            let attribute = RawAttribute::new(AttributeType::new(kind), value);
            let _ = request.add_attribute(&attribute);
        }
    }
}

/// What comes from the server that our client uses, or what its owner wants.
fn use_server(client: &mut Client, now: Time, step: &[u8]) {
    let peer = SocketAddr::from(([9, 9, 9, 9], 9));
    let outputs: Vec<ClientOutput> = match step {
        [] => client.handle(now, ClientInput::Timeout).collect(),
        [0] => client.handle(now, ClientInput::Permit(peer.ip())).collect(),
        [1] => client.handle(now, ClientInput::Bind(peer)).collect(),
        [2] => client.handle(now, ClientInput::Release).collect(),
        [3, octets @ ..] => {
            let input = ClientInput::Send { peer, octets };
            client.handle(now, input).collect()
        }
        octets => client.handle(now, ClientInput::Datagram(octets)).collect(),
    };
    assert!(outputs.len() <= 8);
}

/// A server and its host.
struct Site {
    server: Server,
    now: Time,
    key: IntegrityKey,
    nonce: Option<String>,
    open: BTreeSet<SocketAddr>,
    port: u16,
}

impl Site {
    fn new() -> Self {
        let (user, password, realm) = USER;
        let config = ServerConfig {
            realm: realm.to_owned(),
            listen: SERVER.into(),
            users: vec![Credentials::new(user, password).unwrap()],
            families: vec![Family::V4],
            policy: Policy::default(),
            limits: Limits {
                peers_max: 4,
                ..Limits::default()
            },
        };
        let (user, password, realm) = (user.to_owned(), password.to_owned(), realm.to_owned());
        let credentials = LongTermKeyCredentials::new(user, password, realm);
        Self {
            server: Server::new(config, [7; 32]),
            now: Time::from_secs(1),
            key: credentials.make_key(IntegrityAlgorithm::Sha1),
            nonce: None,
            open: BTreeSet::new(),
            port: 50_000,
        }
    }

    fn handle(&mut self, input: Input<'_>) {
        let mut todo: Vec<Action> = self.server.handle(self.now, input).collect();
        while let Some(action) = todo.pop() {
            match action {
                Action::ToClient { to, datagram } => {
                    if to == CLIENT.into()
                        && let Ok(message) = Message::from_bytes(&datagram)
                        && let Ok(nonce) = message.attribute::<Nonce>()
                    {
                        self.nonce = Some(nonce.nonce().to_owned());
                    }
                }
                Action::ToStream { .. } => {}
                Action::ToPeer { relayed, to, .. } => {
                    assert!(self.open.contains(&relayed));
                    assert!(allowed(to.ip(), &[], &[]).is_ok(), "{to}");
                }
                Action::Open(opening) => {
                    self.port += 1;
                    let relayed = SocketAddr::from((SERVER.0, self.port));
                    self.open.insert(relayed);
                    let relayed = Some(relayed);
                    todo.extend(
                        self.server
                            .handle(self.now, Input::Opened { opening, relayed }),
                    );
                }
                Action::Close(relayed) => assert!(self.open.remove(&relayed)),
            }
        }
        assert_eq!(self.open.len(), self.server.relayed_addresses());
    }

    /// What comes in a stream.
    fn stream(&mut self, step: &[u8]) {
        let mut stream = Stream::default();
        for piece in step.chunks(7) {
            stream.push(piece);
            while let Ok(Some(message)) = stream.message() {
                assert!(message.len() <= MESSAGE_BYTES_MAX);
                assert!(in_stream(message.clone()).starts_with(&message));
                self.handle(Input::FromStream {
                    source: CLIENT.into(),
                    message: &message,
                });
            }
        }
    }

    fn peer(&mut self, step: &[u8]) {
        let Some(&relayed) = self.open.first() else {
            return;
        };
        let source = ([9, 9, 9, step.len() as u8], 9).into();
        self.handle(Input::FromPeer {
            relayed,
            source,
            datagram: step,
        });
    }

    /// A signed request of the client.
    fn signed(&mut self, method: u8, attributes: &[u8]) {
        let method = Method::new(method.into());
        let mut request = Message::builder_request(method, MessageWriteVec::new());
        add(&mut request, attributes);
        if let Some(nonce) = &self.nonce {
            let _ = request.add_attribute(&Username::new(USER.0).unwrap());
            let _ = request.add_attribute(&Realm::new(USER.2).unwrap());
            let _ = request.add_attribute(&Nonce::new(nonce).unwrap());
            let _ = request.add_message_integrity_with_key(&self.key, IntegrityAlgorithm::Sha1);
        }
        let source = CLIENT.into();
        let datagram = &request.finish();
        self.handle(Input::FromClient { source, datagram });
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.server.next_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.handle(Input::Timeout);
        }
        self.now = end;
    }
}
