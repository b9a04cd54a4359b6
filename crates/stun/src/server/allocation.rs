//! One client: its protocol machine, and what is watched besides.
//!
//! A client has a slot from its proof of who it is until its allocation ends. What the
//! protocol machine does not do is done here: it counts permissions and channels without
//! a bound, takes EVEN-PORT and DONT-FRAGMENT without doing anything about them, answers a
//! repeated Allocate by an error, and binds one channel to two peers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use enishi_overlay::Time;
use stun_types::attribute::{
    Attribute as _, AttributeFromRaw as _, AttributeStaticType as _, ErrorCode, Nonce,
    PasswordAlgorithmValue,
};
use stun_types::message::{
    Message, MessageClass, MessageWrite as _, MessageWriteVec, TransactionId,
};
use turn_server_proto::api::{
    SocketAllocateError, Transmit, TurnServerApi as _, TurnServerPollRet,
};
use turn_server_proto::server::TurnServer;
use turn_types::attribute::{
    ChannelNumber, DontFragment, EvenPort, ReservationToken, XorPeerAddress,
};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION};
use turn_types::transmit::TransmitBuild;
use turn_types::{AddressFamily, TransportType};

use super::replies::{self, Signer};
use super::terms::Client;
use super::{Family, IDLE_MAX, REQUESTS_EACH};
use crate::budget::{Bucket, Rate};
use crate::clock::{heard, told};
use crate::credentials::Credentials;

/// How long a permission is good for (RFC 8656, section 9).
const PERMISSION: Duration = Duration::from_secs(300);

/// How long a channel is bound (RFC 8656, section 12).
const CHANNEL: Duration = Duration::from_secs(600);

/// What the protocol machine lets users sign with, in its order.
const ALGORITHMS: [PasswordAlgorithmValue; 2] =
    [PasswordAlgorithmValue::SHA256, PasswordAlgorithmValue::MD5];

/// The shortest pause between two looks at the protocol machine, which may name the present.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// How much the protocol machine may want done at a time: an address of each family, and each
/// of them closed.
const WISHES_MAX: usize = 16;

/// A client with a slot. To the protocol machine all speak by datagrams: a message is one wherever it came
/// from.
pub(super) struct Allocation {
    machine: TurnServer,
    listen: SocketAddr,
    client: Client,
    realm: String,
    user: usize,
    nonce: String,
    even_port: bool,
    wanted: Vec<Wanted>,
    relayed: Vec<SocketAddr>,
    granted: Option<(TransactionId, Vec<u8>)>,
    permissions: BTreeMap<IpAddr, Time>,
    channels: BTreeMap<SocketAddr, (u16, Time)>,
    octets: Bucket,
    requests: Bucket,
    idle_until: Time,
    due: Time,
    scheduled: Option<Time>,
}

/// A relayed address that is being opened.
struct Wanted {
    number: u64,
    family: Family,
    outcome: Option<Option<SocketAddr>>,
}

/// What a client makes its server do.
pub(super) enum Effect {
    Reply(Vec<u8>),
    Open(Family, bool),
    Close(SocketAddr),
}

/// A request that does not get to the protocol machine.
pub(super) struct Refused {
    pub(super) why: Why,
    pub(super) reply: Option<Vec<u8>>,
}

/// Why it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// A peer must not be reached.
    Denied,
    /// There are too many peers.
    Crowded,
    /// It wants what this server does not have.
    Unsupported,
    /// It was answered before, or is being worked on.
    Repeated,
}

impl Allocation {
    /// Makes the slot of a client. `None` when no message can carry the realm.
    pub(super) fn new(
        now: Time,
        listen: SocketAddr,
        client: Client,
        realm: &str,
        user: usize,
        credentials: &Credentials,
        octets: Rate,
    ) -> Option<Self> {
        let mut machine = TurnServer::new(TransportType::Udp, listen, realm.to_owned());
        let password = credentials.password().to_owned();
        machine.add_user(credentials.name().to_owned(), password);
        // The machine tells its nonce to a request without credentials only.
        let question = Message::builder_request(ALLOCATE, MessageWriteVec::new()).finish();
        let question = Transmit::new(question, TransportType::Udp, client.at, listen);
        let answer = machine.recv(question, told(now))?.build();
        let nonce = Message::from_bytes(&answer.data).ok()?;
        let nonce = nonce.attribute::<Nonce>().ok()?.nonce().to_owned();
        Some(Self {
            machine,
            listen,
            client,
            realm: realm.to_owned(),
            user,
            nonce,
            even_port: false,
            wanted: Vec::new(),
            relayed: Vec::new(),
            granted: None,
            permissions: BTreeMap::new(),
            channels: BTreeMap::new(),
            octets: Bucket::full(octets, now),
            requests: Bucket::full(REQUESTS_EACH, now),
            idle_until: now + IDLE_MAX,
            due: now + IDLE_MAX,
            scheduled: None,
        })
    }

    pub(super) fn user(&self) -> usize {
        self.user
    }

    pub(super) fn client(&self) -> Client {
        self.client
    }

    pub(super) fn relayed(&self) -> &[SocketAddr] {
        &self.relayed
    }

    /// Returns how many peers have permission.
    pub(super) fn peers(&self, now: Time) -> usize {
        let live = self.permissions.values().filter(|until| **until > now);
        live.count()
    }

    pub(super) fn octets(&mut self) -> &mut Bucket {
        &mut self.octets
    }

    pub(super) fn requests(&mut self) -> &mut Bucket {
        &mut self.requests
    }

    /// Returns when to settle next.
    pub(super) fn due(&self) -> Time {
        self.due
    }

    /// Notes that it is settled when due; returns for when that was noted before.
    pub(super) fn schedule(&mut self) -> Option<Time> {
        self.scheduled.replace(self.due)
    }

    /// Tells whether the slot is free again.
    pub(super) fn is_over(&self, now: Time) -> bool {
        self.relayed.is_empty() && now >= self.idle_until
    }

    /// Says that a request needs the nonce of the protocol machine.
    pub(super) fn stale(&self, request: &Message<'_>) -> Option<Vec<u8>> {
        let code = ErrorCode::STALE_NONCE;
        replies::challenge(request, code, &self.realm, &self.nonce, &ALGORITHMS)
    }

    /// Judges a request that its user has signed.
    pub(super) fn judge(
        &self,
        now: Time,
        request: &Message<'_>,
        signer: &Signer<'_>,
        may: &impl Fn(IpAddr) -> bool,
        peers_max: usize,
    ) -> Result<(), Refused> {
        match request.method() {
            ALLOCATE => self.judge_allocate(request, signer),
            CREATE_PERMISSION | CHANNEL_BIND if !self.relayed.is_empty() => {
                self.judge_peers(now, request, signer, may, peers_max)
            }
            _ => Ok(()),
        }
    }

    fn judge_allocate(&self, request: &Message<'_>, signer: &Signer<'_>) -> Result<(), Refused> {
        if let Some((id, reply)) = &self.granted
            && *id == request.transaction_id()
        {
            return refused(Why::Repeated, Some(reply.clone()));
        }
        if !self.wanted.is_empty() {
            return refused(Why::Repeated, None);
        }
        if request.has_attribute(DontFragment::TYPE) {
            let reply = replies::unknown(request, DontFragment::TYPE, signer);
            return refused(Why::Unsupported, reply);
        }
        let reserves = request.attribute::<EvenPort>();
        if reserves.is_ok_and(|it| it.requested()) || request.has_attribute(ReservationToken::TYPE)
        {
            let reply = replies::signed(request, ErrorCode::INSUFFICIENT_CAPACITY, signer);
            return refused(Why::Unsupported, reply);
        }
        Ok(())
    }

    fn judge_peers(
        &self,
        now: Time,
        request: &Message<'_>,
        signer: &Signer<'_>,
        may: &impl Fn(IpAddr) -> bool,
        peers_max: usize,
    ) -> Result<(), Refused> {
        let refuse = |why, code| refused(why, replies::signed(request, code, signer));
        let peers = peers(request);
        if !peers.iter().all(|peer| may(peer.ip())) {
            // RFC 8656, sections 10.2 and 12.2.
            return refuse(Why::Denied, ErrorCode::FORBIDDEN);
        }
        let live = self.permissions.iter().filter(|(_, until)| **until > now);
        let mut addresses: Vec<IpAddr> = live.map(|(peer, _)| *peer).collect();
        addresses.extend(peers.iter().map(SocketAddr::ip));
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.len() > peers_max {
            return refuse(Why::Crowded, ErrorCode::INSUFFICIENT_CAPACITY);
        }
        if !request.has_method(CHANNEL_BIND) {
            return Ok(());
        }
        let number = channel_number(request);
        let channels = self.channels.iter().filter(|(_, (_, until))| *until > now);
        let others = channels.filter(|(peer, _)| !peers.contains(peer));
        let (mut taken, mut count) = (false, 0);
        for (_, (other, _)) in others {
            count += 1;
            taken |= number == Some(*other);
        }
        if taken {
            refuse(Why::Unsupported, ErrorCode::BAD_REQUEST)
        } else if count >= peers_max {
            refuse(Why::Crowded, ErrorCode::INSUFFICIENT_CAPACITY)
        } else {
            Ok(())
        }
    }

    /// Gives a request to the protocol machine.
    pub(super) fn take(&mut self, now: Time, request: &Message<'_>) -> Vec<Effect> {
        if request.has_method(ALLOCATE) {
            self.even_port = request.has_attribute(EvenPort::TYPE);
        }
        let datagram = request.as_bytes();
        let transmit = Transmit::new(datagram, TransportType::Udp, self.client.at, self.listen);
        let reply = self.machine.recv(transmit, told(now));
        let reply = reply.map(TransmitBuild::build);
        let reply = reply.filter(|reply| reply.to == self.client.at);
        let mut effects = Vec::new();
        if let Some(reply) = reply {
            effects.extend(self.replied(now, request, reply.data).map(Effect::Reply));
        }
        effects.extend(self.settle(now));
        effects
    }

    /// Reads what the protocol machine says to a request.
    fn replied(&mut self, now: Time, request: &Message<'_>, reply: Vec<u8>) -> Option<Vec<u8>> {
        let said = Message::from_bytes(&reply).ok()?;
        let code = said.attribute::<ErrorCode>().map(|error| error.code());
        if code == Ok(ErrorCode::STALE_NONCE) {
            // Its own is refused by clients of RFC 8489: see `replies::challenge`.
            said.attribute::<Nonce>()
                .ok()?
                .nonce()
                .clone_into(&mut self.nonce);
            return self.stale(request);
        }
        if said.has_class(MessageClass::Success) {
            self.note(now, request);
        }
        Some(reply)
    }

    /// Notes permissions and channels that were given.
    fn note(&mut self, now: Time, request: &Message<'_>) {
        let binds = request.has_method(CHANNEL_BIND);
        if !binds && !request.has_method(CREATE_PERMISSION) {
            return;
        }
        self.permissions.retain(|_, until| *until > now);
        self.channels.retain(|_, (_, until)| *until > now);
        for peer in peers(request) {
            self.permissions.insert(peer.ip(), now + PERMISSION);
            if let (true, Some(number)) = (binds, channel_number(request)) {
                self.channels.insert(peer, (number, now + CHANNEL));
            }
        }
    }

    /// Unwraps data for a peer: from which relayed address, to whom, what.
    pub(super) fn unwrap_data(
        &mut self,
        now: Time,
        datagram: &[u8],
    ) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
        let transmit = Transmit::new(datagram, TransportType::Udp, self.client.at, self.listen);
        let sent = self.machine.recv(transmit, told(now))?.build();
        let relays = self.relayed.contains(&sent.from);
        relays.then_some((sent.from, sent.to, sent.data))
    }

    /// Wraps data of a peer; `None` when it has no permission.
    pub(super) fn wrap_data(
        &mut self,
        now: Time,
        relayed: SocketAddr,
        peer: SocketAddr,
        datagram: &[u8],
    ) -> Option<Vec<u8>> {
        let transmit = Transmit::new(datagram, TransportType::Udp, peer, relayed);
        let sent = self.machine.recv(transmit, told(now))?.build();
        (sent.to == self.client.at).then_some(sent.data)
    }

    /// Notes that an address is being opened.
    pub(super) fn wait_for(&mut self, number: u64, family: Family) {
        self.wanted.push(Wanted {
            number,
            family,
            outcome: None,
        });
    }

    pub(super) fn waits_for(&self, number: u64) -> bool {
        let mut waits = self.wanted.iter().filter(|it| it.outcome.is_none());
        waits.any(|it| it.number == number)
    }

    /// Takes what became of an address.
    pub(super) fn opened(
        &mut self,
        now: Time,
        number: u64,
        relayed: Option<SocketAddr>,
    ) -> Vec<Effect> {
        let wanted = self.wanted.iter_mut().find(|it| it.number == number);
        if let Some(wanted) = wanted {
            wanted.outcome = Some(relayed);
        }
        if self.wanted.iter().any(|it| it.outcome.is_none()) {
            return Vec::new();
        }
        let mut wanted = std::mem::take(&mut self.wanted);
        // The machine keeps the client if the last one could be had.
        wanted.sort_by_key(|it| it.outcome.flatten().is_some());
        for Wanted {
            family, outcome, ..
        } in wanted
        {
            let relayed = outcome.flatten();
            self.relayed.extend(relayed);
            let outcome = relayed.ok_or(SocketAllocateError::InsufficientCapacity);
            let family = match family {
                Family::V4 => AddressFamily::IPV4,
                Family::V6 => AddressFamily::IPV6,
            };
            let (udp, now) = (TransportType::Udp, told(now));
            let (listen, client) = (self.listen, self.client.at);
            self.machine
                .allocated_socket(udp, listen, client, udp, family, outcome, now);
        }
        self.settle(now)
    }

    /// Lets the protocol machine do what is due.
    pub(super) fn settle(&mut self, now: Time) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.due = now + PAUSE_MIN;
        for _ in 0..WISHES_MAX {
            match self.machine.poll(told(now)) {
                TurnServerPollRet::WaitUntil(then) => {
                    self.due = heard(then).max(self.due);
                    break;
                }
                TurnServerPollRet::AllocateSocket { family, .. } => {
                    let family = match family {
                        AddressFamily::IPV4 => Family::V4,
                        AddressFamily::IPV6 => Family::V6,
                    };
                    effects.push(Effect::Open(family, self.even_port));
                }
                TurnServerPollRet::SocketClose { listen_addr, .. } => {
                    self.relayed.retain(|relayed| *relayed != listen_addr);
                    effects.push(Effect::Close(listen_addr));
                    if self.relayed.is_empty() {
                        self.idle_until = now + IDLE_MAX;
                        self.granted = None;
                        self.permissions.clear();
                        self.channels.clear();
                    }
                }
                // Never of a machine for UDP.
                TurnServerPollRet::TcpConnect { .. } | TurnServerPollRet::TcpClose { .. } => {}
            }
        }
        while let Some(sent) = self.machine.poll_transmit(told(now)) {
            self.remember_grant(&sent.data);
            effects.push(Effect::Reply(sent.data));
        }
        if self.relayed.is_empty() {
            self.due = self.due.min(self.idle_until);
        }
        effects
    }

    /// Keeps the answer to an Allocate for when it is lost and the request repeated
    /// (RFC 8656, section 7.2).
    fn remember_grant(&mut self, reply: &[u8]) {
        if let Ok(said) = Message::from_bytes(reply)
            && said.has_class(MessageClass::Success)
            && said.has_method(ALLOCATE)
        {
            self.granted = Some((said.transaction_id(), reply.to_vec()));
        }
    }
}

fn refused(why: Why, reply: Option<Vec<u8>>) -> Result<(), Refused> {
    Err(Refused { why, reply })
}

fn peers(request: &Message<'_>) -> Vec<SocketAddr> {
    let attributes = request.iter_attributes().map(|(_, attribute)| attribute);
    let peers = attributes.filter(|it| it.get_type() == XorPeerAddress::TYPE);
    let peers = peers.filter_map(|it| XorPeerAddress::from_raw(it).ok());
    peers
        .map(|peer| peer.addr(request.transaction_id()))
        .collect()
}

fn channel_number(request: &Message<'_>) -> Option<u16> {
    let number = request.attribute::<ChannelNumber>().ok()?;
    Some(number.channel())
}
