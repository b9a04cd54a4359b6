//! The use of a TURN server of others, for instance coturn (RFC 8656), over UDP or TCP.
//!
//! A [`Client`] stands for one allocation. It begins to allocate with its first
//! [`ClientInput::Timeout`], renews what it has as long as it lives, and says
//! [`ClientEvent::Lost`] once when the server does not serve it any more; then it is to be
//! dropped. Whoever wants another tries again, with growing pauses.
//!
//! The protocol crate renews a permission a minute before its five minutes are over, an allocation
//! a minute before its half hour, and notices nothing in between. A server that was restarted, or
//! cannot be reached, would be missed for minutes. So
//! a Refresh of our own goes out whenever nothing was heard for [`QUIET_MAX`], which also keeps
//! the way through NATs open (RFC 4787, REQ-5), and sooner when something was sent and nothing
//! came back. A server without the allocation answers 437, one that is gone does not answer.

mod terms;

pub use terms::{ClientConfig, ClientEvent, ClientInput, ClientOutput, Loss};

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use enishi_overlay::Time;
use stun_proto::auth::Feature;
use stun_types::attribute::{ErrorCode, Nonce, Realm, Username, XorMappedAddress};
use stun_types::message::{
    IntegrityAlgorithm, IntegrityKey, Message, MessageClass, MessageWrite as _,
    MessageWriteExt as _, MessageWriteVec, TransactionId,
};
use turn_client_proto::api::{
    BindChannelError, CreatePermissionError, Transmit, TurnClientApi as _, TurnConfig, TurnEvent,
    TurnPollRet, TurnRecvRet,
};
use turn_client_proto::udp::TurnClientUdp;
use turn_types::attribute::Lifetime;
use turn_types::message::{ALLOCATE, REFRESH};
use turn_types::{AddressFamily, TransportType, TurnCredentials};

use crate::answer::is_stun;
use crate::clock::{heard, told};
use crate::credentials::Credentials;
use crate::server::{DATAGRAM_BYTES_MAX, Family, Leg};

/// After how much silence the server is asked whether it is there. The shortest lifetime of a
/// NAT's mapping that RFC 4787, section 4.3, finds in the field is half a minute.
pub const QUIET_MAX: Duration = Duration::from_secs(20);

/// After how much silence it is asked when something was sent.
pub const UNANSWERED_MAX: Duration = Duration::from_secs(2);

/// The pause before a question is repeated the first time; doubled each time (RFC 8489, section
/// 6.2.1).
const REPEAT: Duration = Duration::from_millis(500);

/// The longest pause between two requests of the protocol machine.
const REPEAT_MAX: Duration = Duration::from_secs(4);

/// How often the protocol machine repeats a request.
const REPEATS: u32 = 4;

/// How long it waits after the last. A server that does not answer is given up within ten seconds.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// How long it waits in a stream, in which nothing is repeated: TCP does (RFC 8489, section 6.2.2).
const STREAM_WAIT: Duration = Duration::from_secs(8);

/// How often a question is sent, but in a stream. The last is given up 3.5 s after the first.
const QUESTIONS: u32 = 3;

/// How often in a row a server may demand another nonce.
const STALE_MAX: u32 = 4;

/// For how long an allocation is asked for, in seconds: as the protocol machine does, or ours would
/// end what it thinks to have.
const LIFETIME_S: u32 = 1800;

/// The most permissions, and the most channels. All are renewed as long as the client lives.
const PEERS_MAX: usize = 64;

/// The most channels with the ports of one address, so that who has one address permitted cannot take
/// all of them. Those without one are sent to all the same.
const CHANNELS_OF_ADDRESS_MAX: usize = 4;

/// To how many requests answers are looked for: for each peer a permission and a channel, and
/// some more.
const REQUESTS_MAX: usize = 2 * PEERS_MAX + 16;

/// The shortest pause between two looks at the protocol machine: that of its requests.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// A client of a TURN server.
pub struct Client {
    machine: TurnClientUdp,
    leg: Leg,
    credentials: Credentials,
    signature: Option<Signature>,
    relayed: Option<SocketAddr>,
    mapped: Option<SocketAddr>,
    permits: BTreeSet<IpAddr>,
    channels: BTreeSet<SocketAddr>,
    check: Option<Check>,
    heard_at: Option<Time>,
    unanswered_since: Option<Time>,
    last_error: Option<u16>,
    requests: VecDeque<TransactionId>,
    allocates: Option<(TransactionId, TransactionId)>,
    is_over: bool,
    due: Time,
    outputs: VecDeque<ClientOutput>,
}

/// What requests are signed with.
struct Signature {
    realm: String,
    nonce: String,
    key: IntegrityKey,
}

/// A Refresh of our own that is not answered yet.
struct Check {
    id: TransactionId,
    octets: Vec<u8>,
    sent: u32,
    stale: u32,
    next: Time,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Makes one that allocates with its first timeout.
    pub fn new(config: ClientConfig) -> Self {
        let ClientConfig {
            server,
            local,
            credentials,
            family,
            leg,
        } = config;
        let named = TurnCredentials::new(credentials.name(), credentials.password());
        let mut turn = TurnConfig::new(named);
        // The name in clear, as in the requests of our own; a server compares them.
        turn.set_anonymous_username(Feature::Disabled);
        match leg {
            Leg::Udp => turn.set_request_retransmits(REPEAT, REPEAT_MAX, REPEATS, LAST_WAIT),
            Leg::Tcp => turn.set_request_retransmits(REPEAT, REPEAT_MAX, 1, STREAM_WAIT),
        }
        turn.set_address_family(match family {
            Family::V4 => AddressFamily::IPV4,
            Family::V6 => AddressFamily::IPV6,
        });
        Self {
            // Messages in a stream are to it as datagrams: that for TCP would look for them once more.
            machine: TurnClientUdp::allocate(local, server, turn),
            leg,
            credentials,
            signature: None,
            relayed: None,
            mapped: None,
            permits: BTreeSet::new(),
            channels: BTreeSet::new(),
            check: None,
            heard_at: None,
            unanswered_since: None,
            last_error: None,
            requests: VecDeque::new(),
            allocates: None,
            is_over: false,
            due: Time::ZERO,
            outputs: VecDeque::new(),
        }
    }

    /// Takes what happened, and returns what is to be done and what happened further.
    pub fn handle(
        &mut self,
        now: Time,
        input: ClientInput<'_>,
    ) -> impl Iterator<Item = ClientOutput> + '_ {
        if !self.is_over {
            match input {
                ClientInput::Datagram(datagram) => self.datagram(now, datagram),
                ClientInput::Permit(peer) => self.permit(now, peer),
                ClientInput::Bind(peer) => self.bind(now, peer),
                ClientInput::Send { peer, octets } => self.send(now, peer, octets),
                ClientInput::Release => self.release(now),
                ClientInput::Timeout => self.look(now),
            }
        }
        if !self.is_over {
            self.settle(now);
        }
        self.outputs.drain(..)
    }

    /// Returns when [`ClientInput::Timeout`] is due; `None` after [`ClientEvent::Lost`].
    pub fn next_timeout(&self) -> Option<Time> {
        (!self.is_over).then_some(self.due)
    }

    /// Returns the relayed address, while there is one.
    pub fn relayed(&self) -> Option<SocketAddr> {
        self.relayed
    }

    fn datagram(&mut self, now: Time, datagram: &[u8]) {
        self.heard_at = Some(now);
        self.unanswered_since = None;
        if is_stun(datagram)
            && let Ok(message) = Message::from_bytes(datagram)
            && message.is_response()
        {
            let id = message.transaction_id();
            if !self.requests.contains(&id) {
                // To nothing that was asked lately.
                return;
            }
            self.learn(&message);
            if self.is_over {
                return;
            }
            if self.check.as_ref().is_some_and(|check| check.id == id) {
                return self.answered(now, &message);
            }
        }
        let (udp, server) = (TransportType::Udp, self.machine.remote_addr());
        let transmit = Transmit::new(datagram, udp, server, self.machine.local_addr());
        match self.machine.recv(transmit, told(now)) {
            TurnRecvRet::PeerData(data) => {
                let (peer, octets) = (data.peer, data.data().to_vec());
                self.say(ClientEvent::Data { peer, octets });
            }
            TurnRecvRet::Handled | TurnRecvRet::Ignored(_) | TurnRecvRet::PeerIcmp { .. } => {}
        }
    }

    /// Notes what answers say besides.
    fn learn(&mut self, message: &Message<'_>) {
        if let Ok(error) = message.attribute::<ErrorCode>() {
            self.last_error = Some(error.code());
            self.look_for_refusal(message, error.code());
            let (realm, nonce) = (message.attribute::<Realm>(), message.attribute::<Nonce>());
            if let (Ok(realm), Ok(nonce)) = (realm, nonce) {
                self.sign_with(realm.realm(), nonce.nonce());
            }
        } else if message.has_method(ALLOCATE)
            && let Ok(mapped) = message.attribute::<XorMappedAddress>()
        {
            self.mapped = Some(mapped.addr(message.transaction_id()));
        }
    }

    /// The first request has no credentials and is refused for that; when a second one is, they
    /// are wrong. The protocol machine would repeat it in the hope of something better.
    fn look_for_refusal(&mut self, message: &Message<'_>, code: u16) {
        if code != ErrorCode::UNAUTHORIZED || !message.has_method(ALLOCATE) {
            return;
        }
        let id = message.transaction_id();
        if self
            .allocates
            .is_some_and(|(first, last)| id != first && id == last)
        {
            self.lose(Loss::Refused(code));
        }
    }

    fn sign_with(&mut self, realm: &str, nonce: &str) {
        let known = self.signature.as_mut().filter(|it| it.realm == realm);
        if let Some(known) = known {
            nonce.clone_into(&mut known.nonce);
            return;
        }
        self.signature = Some(Signature {
            realm: realm.to_owned(),
            nonce: nonce.to_owned(),
            key: self.credentials.key(realm, IntegrityAlgorithm::Sha1),
        });
    }

    /// Takes the answer to our own Refresh.
    fn answered(&mut self, now: Time, message: &Message<'_>) {
        let Some(check) = self.check.take() else {
            return;
        };
        if message.has_class(MessageClass::Success) {
            let key = self.signature.as_ref().map(|signature| &signature.key);
            let genuine = key.is_some_and(|key| message.validate_integrity_with_key(key).is_ok());
            // Of who makes up answers we go on waiting.
            self.check = (!genuine).then_some(check);
            return;
        }
        match message.attribute::<ErrorCode>().map(|error| error.code()) {
            Ok(ErrorCode::STALE_NONCE) if check.stale < STALE_MAX => {
                self.ask(now, check.stale + 1);
            }
            Ok(ErrorCode::ALLOCATION_MISMATCH) => self.lose(Loss::Forgotten),
            Ok(code) => self.lose(Loss::Refused(code)),
            Err(_) => self.check = Some(check),
        }
    }

    fn permit(&mut self, now: Time, peer: IpAddr) {
        if !self.permits.contains(&peer) && self.permits.len() >= PEERS_MAX {
            return self.say(ClientEvent::NotPermitted(peer));
        }
        let udp = TransportType::Udp;
        match self.machine.create_permission(udp, peer, told(now)) {
            Ok(()) => {
                self.permits.insert(peer);
            }
            Err(CreatePermissionError::AlreadyExists) => {
                if self.machine.have_permission(udp, peer) {
                    self.say(ClientEvent::Permitted(peer));
                }
            }
            Err(_) => self.say(ClientEvent::NotPermitted(peer)),
        }
    }

    fn bind(&mut self, now: Time, peer: SocketAddr) {
        let of_address = self.channels.iter().filter(|it| it.ip() == peer.ip());
        let is_full =
            self.channels.len() >= PEERS_MAX || of_address.count() >= CHANNELS_OF_ADDRESS_MAX;
        if !self.channels.contains(&peer) && is_full {
            return self.say(ClientEvent::NotBound(peer));
        }
        match self
            .machine
            .bind_channel(TransportType::Udp, peer, told(now))
        {
            Ok(()) => {
                self.channels.insert(peer);
            }
            Err(BindChannelError::AlreadyExists) => {}
            Err(_) => self.say(ClientEvent::NotBound(peer)),
        }
    }

    fn send(&mut self, now: Time, peer: SocketAddr, octets: &[u8]) {
        if octets.len() > DATAGRAM_BYTES_MAX {
            return self.say(ClientEvent::NotSent(peer));
        }
        let udp = TransportType::Udp;
        match self.machine.send_to(udp, peer, octets, told(now)) {
            Ok(Some(transmit)) => {
                let sent = transmit.build();
                self.unanswered_since.get_or_insert(now);
                self.outputs.push_back(ClientOutput::Send(sent.data));
            }
            Ok(None) => {}
            Err(_) => self.say(ClientEvent::NotSent(peer)),
        }
    }

    fn release(&mut self, now: Time) {
        // Without an allocation there is nothing to say to the server.
        let _ = self.machine.delete(told(now));
        self.transmit(now);
        self.lose(Loss::Released);
    }

    /// Asks the server whether it is there, if it is time to.
    fn look(&mut self, now: Time) {
        let Some(check) = &mut self.check else {
            if self.check_due().is_some_and(|due| due <= now) {
                self.ask(now, 0);
            }
            return;
        };
        if now < check.next {
            return;
        }
        if check.sent >= QUESTIONS {
            return self.lose(Loss::Silent);
        }
        check.next = now + REPEAT * (1 << check.sent);
        check.sent += 1;
        let octets = check.octets.clone();
        self.outputs.push_back(ClientOutput::Send(octets));
    }

    fn check_due(&self) -> Option<Time> {
        self.relayed?;
        let quiet = self.heard_at? + QUIET_MAX;
        let unanswered = self.unanswered_since.map(|since| since + UNANSWERED_MAX);
        Some(unanswered.map_or(quiet, |unanswered| unanswered.min(quiet)))
    }

    fn ask(&mut self, now: Time, stale: u32) {
        let Some((id, octets)) = self.refresh() else {
            return;
        };
        self.expect(id);
        self.outputs.push_back(ClientOutput::Send(octets.clone()));
        let (sent, wait) = match self.leg {
            Leg::Udp => (1, REPEAT),
            Leg::Tcp => (QUESTIONS, STREAM_WAIT),
        };
        self.check = Some(Check {
            id,
            octets,
            sent,
            stale,
            next: now + wait,
        });
    }

    fn refresh(&self) -> Option<(TransactionId, Vec<u8>)> {
        let Signature { realm, nonce, key } = self.signature.as_ref()?;
        let mut request = Message::builder_request(REFRESH, MessageWriteVec::new());
        let id = request.transaction_id();
        request.add_attribute(&Lifetime::new(LIFETIME_S)).ok()?;
        let name = Username::new(self.credentials.name()).ok()?;
        request.add_attribute(&name).ok()?;
        request.add_attribute(&Realm::new(realm).ok()?).ok()?;
        request.add_attribute(&Nonce::new(nonce).ok()?).ok()?;
        request
            .add_message_integrity_with_key(key, IntegrityAlgorithm::Sha1)
            .ok()?;
        Some((id, request.finish()))
    }

    /// Lets the protocol machine do what is due, and finds out when it wants to be asked again.
    fn settle(&mut self, now: Time) {
        self.transmit(now);
        self.events();
        // It says one look later that it gave up.
        let _ = self.machine.poll(told(now));
        let then = match self.machine.poll(told(now)) {
            TurnPollRet::WaitUntil(then) => heard(then),
            TurnPollRet::Closed => {
                self.events();
                let answer = self.last_error.filter(|_| self.heard_at.is_some());
                return self.lose(answer.map_or(Loss::Silent, Loss::Refused));
            }
            // Never without TCP to peers.
            TurnPollRet::AllocateTcpSocket { .. } | TurnPollRet::TcpClose { .. } => now,
        };
        self.events();
        self.due = then.max(now + PAUSE_MIN);
        let check = self.check.as_ref().map(|check| check.next);
        if let Some(due) = check.or(self.check_due()) {
            self.due = self.due.min(due);
        }
    }

    fn transmit(&mut self, now: Time) {
        while let Some(sent) = self.machine.poll_transmit(told(now)) {
            let octets = sent.data.to_vec();
            if let Ok(message) = Message::from_bytes(&octets)
                && message.has_class(MessageClass::Request)
            {
                let id = message.transaction_id();
                self.expect(id);
                if message.has_method(ALLOCATE) {
                    let first = self.allocates.map_or(id, |(first, _)| first);
                    self.allocates = Some((first, id));
                }
            }
            self.outputs.push_back(ClientOutput::Send(octets));
        }
    }

    /// Notes that an answer to a request may come.
    fn expect(&mut self, id: TransactionId) {
        if self.requests.contains(&id) {
            return;
        }
        if self.requests.len() >= REQUESTS_MAX {
            self.requests.pop_front();
        }
        self.requests.push_back(id);
    }

    fn events(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            match event {
                TurnEvent::AllocationCreated(_, relayed) => {
                    self.relayed = Some(relayed);
                    let mapped = self.mapped;
                    self.say(ClientEvent::Allocated { relayed, mapped });
                }
                TurnEvent::PermissionCreated(_, peer) => self.say(ClientEvent::Permitted(peer)),
                TurnEvent::PermissionCreateFailed(_, peer) => {
                    self.permits.remove(&peer);
                    self.say(ClientEvent::NotPermitted(peer));
                }
                TurnEvent::ChannelCreated(_, peer) => self.say(ClientEvent::Bound(peer)),
                TurnEvent::ChannelCreateFailed(_, peer) => {
                    self.channels.remove(&peer);
                    self.say(ClientEvent::NotBound(peer));
                }
                // The machine closes itself then; the others are of TCP.
                TurnEvent::AllocationCreateFailed(_)
                | TurnEvent::TcpConnected(_)
                | TurnEvent::TcpConnectFailed(_) => {}
            }
        }
    }

    fn say(&mut self, event: ClientEvent) {
        self.outputs.push_back(ClientOutput::Event(event));
    }

    fn lose(&mut self, loss: Loss) {
        if !self.is_over {
            self.is_over = true;
            self.relayed = None;
            self.say(ClientEvent::Lost(loss));
        }
    }
}
