//! A TURN server for standard clients (RFC 8656) over UDP and TCP.
//!
//! What the protocol is belongs to `turn-server-proto`; what is allowed is decided here, before
//! a message gets there:
//!
//! ```text
//!   datagram of a client
//!     | Binding request ---------------> Answerer
//!     | request of a stranger ---------> 401 with a nonce, nothing is remembered   (admission)
//!     | ... that proves a user --------> a slot, within the limits                 (admission)
//!     | request of a client -----------> peers that are allowed, not too many      (allocation)
//!     | data of a client --------------> budgets ---> relayed address ---> peer
//!   datagram of a peer ----------------> budgets ---> client
//! ```
//!
//! Each client has a protocol machine of its own (`allocation.rs`), made when it has proved who it
//! is and dropped with its allocation. One machine for all would remember a nonce for every
//! address that ever sent a request, true or forged, and never forget it.
//!
//! A client that comes by TCP is served as one by UDP is, but that its allocation ends with its stream;
//! what is found in the stream goes the same way. There is no TCP to peers; no reservation of a second port (RFC 8656,
//! section 7.2, lets a server answer 508), and none of ports' DF bit, which it says by 420. The
//! lifetimes are those of section 3.2 and 7.2: ten minutes unless asked otherwise, an hour at
//! most, five minutes for permissions and ten for channels.

mod admission;
mod allocation;
mod replies;
mod terms;

pub use terms::{
    Action, ClientInfo, Counters, DATAGRAM_BYTES_MAX, Family, Input, Leg, Limits, Opening, Policy,
    ServerConfig,
};

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use enishi_overlay::Time;
use stun_types::message::{BINDING, Message, MessageClass};
use turn_types::message::{ALLOCATE, SEND};

use crate::answer::{Answered, Answerer, is_stun};
use crate::budget::{Bucket, Rate, Throttle, subscriber};
use crate::credentials::Credentials;
use crate::peers::allowed;
use admission::{Admission, Judgement};
use allocation::{Allocation, Effect};
use terms::Client;

/// How long a client may be without an allocation before its slot is another's.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// How many requests of one source are looked at, in messages. Each costs two or three hashes.
const REQUESTS_EACH: Rate = Rate {
    per_s: 50,
    burst: 200,
};

/// How many requests are looked at in all, in messages.
const REQUESTS_ALL: Rate = Rate {
    per_s: 2_000,
    burst: 4_000,
};

/// The most sources that are known at a time.
const SOURCES_MAX: usize = 4_096;

/// A TURN server.
pub struct Server {
    listen: SocketAddr,
    families: Vec<Family>,
    policy: Policy,
    limits: Limits,
    admission: Admission,
    answerer: Answerer,
    requests: Throttle,
    octets: Bucket,
    clients: BTreeMap<Client, Allocation>,
    relays: BTreeMap<SocketAddr, Client>,
    deadlines: BTreeSet<(Time, Client)>,
    next_opening: u64,
    actions: Vec<Action>,
    counters: Counters,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut server = f.debug_struct("Server");
        server.field("allocations", &self.relays.len());
        server.field("counters", &self.counters);
        server.finish_non_exhaustive()
    }
}

impl Server {
    /// Starts one. The seed must be secret: the nonces that strangers are given follow from it.
    pub fn new(config: ServerConfig, seed: [u8; 32]) -> Self {
        Self {
            listen: config.listen,
            families: config.families,
            policy: config.policy,
            limits: config.limits,
            admission: Admission::new(config.realm, config.users, seed),
            answerer: Answerer::new(),
            requests: Throttle::new(REQUESTS_EACH, REQUESTS_ALL, SOURCES_MAX),
            octets: Bucket::full(config.limits.octets_all, Time::ZERO),
            clients: BTreeMap::new(),
            relays: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            next_opening: 0,
            actions: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Takes what happened, and returns what is to be done, in this order.
    pub fn handle(&mut self, now: Time, input: Input<'_>) -> impl Iterator<Item = Action> + '_ {
        match input {
            Input::FromClient { source, datagram } => {
                let (at, leg) = (source, Leg::Udp);
                self.client_sent(now, Client { at, leg }, datagram);
            }
            Input::FromStream { source, message } => {
                let (at, leg) = (source, Leg::Tcp);
                self.client_sent(now, Client { at, leg }, message);
            }
            Input::StreamEnded(at) => {
                let leg = Leg::Tcp;
                self.end(|client, _| *client == Client { at, leg });
            }
            Input::FromPeer {
                relayed,
                source,
                datagram,
            } => self.peer_sent(now, relayed, source, datagram),
            Input::Opened { opening, relayed } => self.opened(now, opening, relayed),
            Input::Timeout => self.timeout(now),
        }
        self.actions.drain(..)
    }

    /// Returns when [`Input::Timeout`] is due.
    pub fn next_timeout(&self) -> Option<Time> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    /// Sets other addresses of the node and ranges to be allowed. What is permitted already
    /// stays so for its five minutes, but nothing is sent there any more.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Lets a user in, in place of one of the same name, whose allocations end.
    pub fn add_user(&mut self, credentials: Credentials) -> impl Iterator<Item = Action> + '_ {
        let before = self.admission.add(credentials);
        self.end_those_of(before);
        self.actions.drain(..)
    }

    /// Lets a user in no more; its allocations end.
    pub fn remove_user(&mut self, name: &str) -> impl Iterator<Item = Action> + '_ {
        let removed = self.admission.remove(name);
        self.end_those_of(removed);
        self.actions.drain(..)
    }

    /// Returns who has an allocation, or is about to, in the order of addresses.
    pub fn clients(&self, now: Time) -> Vec<ClientInfo> {
        let clients = self.clients.values().map(|allocation| {
            let user = self.admission.credentials(allocation.user());
            ClientInfo {
                client: allocation.client().at,
                leg: allocation.client().leg,
                user: user.map_or_else(String::new, |user| user.name().to_owned()),
                relayed: allocation.relayed().to_vec(),
                peers: allocation.peers(now),
            }
        });
        clients.collect()
    }

    /// Tells whether the client at the other end of a stream has a slot.
    pub fn serves_stream(&self, source: SocketAddr) -> bool {
        let (at, leg) = (source, Leg::Tcp);
        self.clients.contains_key(&Client { at, leg })
    }

    /// Returns how many relayed addresses there are.
    pub fn relayed_addresses(&self) -> usize {
        self.relays.len()
    }

    /// Returns what happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Returns what became of Binding requests so far.
    pub fn answered(&self) -> Answered {
        self.answerer.answered()
    }

    fn client_sent(&mut self, now: Time, source: Client, datagram: &[u8]) {
        if datagram.len() > DATAGRAM_BYTES_MAX {
            self.counters.ignored_messages += 1;
        } else if is_channel_data(datagram) {
            self.data(now, source, datagram);
        } else if is_stun(datagram)
            && let Ok(message) = Message::from_bytes(datagram)
        {
            match (message.class(), message.method()) {
                (MessageClass::Request, BINDING) => {
                    let answer = self.answerer.answer(now, source.at, datagram);
                    self.reply(source, answer.map(|answer| answer.octets));
                }
                (MessageClass::Request, _) => self.request(now, source, &message),
                (MessageClass::Indication, SEND) => self.data(now, source, datagram),
                (MessageClass::Indication | MessageClass::Success | MessageClass::Error, _) => {
                    self.counters.ignored_messages += 1;
                }
            }
        } else {
            self.counters.ignored_messages += 1;
        }
    }

    fn request(&mut self, now: Time, source: Client, request: &Message<'_>) {
        // A flood of strangers must not keep clients from renewing what they have.
        let known = self.clients.get_mut(&source);
        let is_known = known.is_some();
        let may = match known {
            Some(allocation) => allocation.requests().take(REQUESTS_EACH, now, 1),
            None => self.requests.take(source.at.ip(), now),
        };
        match (may, is_known) {
            (false, _) => self.counters.throttled_messages += 1,
            (true, true) => self.known(now, source, request),
            (true, false) => self.stranger(now, source, request),
        }
    }

    /// A request from an address that has no slot yet.
    fn stranger(&mut self, now: Time, source: Client, request: &Message<'_>) {
        let judgement = self.admission.judge(now, source.at, request);
        let user = match judgement {
            Judgement::Refused(reply) => {
                self.counters.challenged_messages += 1;
                return self.reply(source, reply);
            }
            Judgement::Proved(user) => user,
        };
        if !request.has_method(ALLOCATE) {
            let reply = self.admission.mismatch(request, user);
            return self.reply(source, reply);
        }
        if let Some(code) = self.too_many(source, user) {
            self.counters.refused_allocations += 1;
            let reply = self.admission.refuse(request, user, code);
            return self.reply(source, reply);
        }
        let Some(credentials) = self.admission.credentials(user) else {
            return;
        };
        let realm = self.admission.realm();
        let made = Allocation::new(
            now,
            self.listen,
            source,
            realm,
            user,
            credentials,
            self.limits.octets_each,
        );
        let Some(allocation) = made else {
            return;
        };
        let reply = allocation.stale(request);
        self.clients.insert(source, allocation);
        self.reschedule(now, source);
        self.counters.challenged_messages += 1;
        self.reply(source, reply);
    }

    /// Returns the error for who wants one more than allowed (RFC 8656, section 7.2).
    fn too_many(&self, source: Client, user: usize) -> Option<u16> {
        use stun_types::attribute::ErrorCode;
        let limits = &self.limits;
        if self.clients.len() >= limits.allocations_max {
            return Some(ErrorCode::INSUFFICIENT_CAPACITY);
        }
        let place = subscriber(source.at.ip());
        let clients = self.clients.keys();
        let near = clients.filter(|client| subscriber(client.at.ip()) == place);
        let of_user = self.clients.values().filter(|it| it.user() == user);
        let quota = near.count() >= limits.allocations_per_source_max
            || of_user.count() >= limits.allocations_per_user_max;
        quota.then_some(ErrorCode::ALLOCATION_QUOTA_REACHED)
    }

    /// A request from an address that has a slot.
    fn known(&mut self, now: Time, source: Client, request: &Message<'_>) {
        let Some(allocation) = self.clients.get_mut(&source) else {
            return;
        };
        let signer = self.admission.signer(request, allocation.user());
        let (policy, relays) = (&self.policy, &self.relays);
        let may = |peer: IpAddr| {
            // Another client may be behind a relayed address: see `Self::data`.
            let is_relay = |relayed: &SocketAddr| relayed.ip() == peer.to_canonical();
            policy.allows(peer) || relays.keys().any(is_relay)
        };
        let peers_max = self.limits.peers_max;
        let judged = signer.map(|signer| allocation.judge(now, request, &signer, &may, peers_max));
        match judged {
            Some(Err(refusal)) => {
                match refusal.why {
                    allocation::Why::Denied => self.counters.denied_messages += 1,
                    allocation::Why::Crowded => self.counters.crowded_messages += 1,
                    allocation::Why::Unsupported | allocation::Why::Repeated => {}
                }
                self.reply(source, refusal.reply);
            }
            Some(Ok(())) | None => {
                let effects = allocation.take(now, request);
                self.apply(now, source, effects);
            }
        }
    }

    /// Data of a client for a peer, in a Send indication or on a channel.
    fn data(&mut self, now: Time, source: Client, datagram: &[u8]) {
        let Some(allocation) = self.clients.get_mut(&source) else {
            self.counters.ignored_messages += 1;
            return;
        };
        let Some((relayed, to, datagram)) = allocation.unwrap_data(now, datagram) else {
            self.counters.ignored_messages += 1;
            return;
        };
        let own = allocation.octets();
        let all = &mut self.octets;
        // What is for another client stays here: of the node's own ports, only these are reached.
        let is_client = self.relays.contains_key(&to);
        if !is_client && !self.policy.allows(to.ip()) {
            self.counters.denied_messages += 1;
        } else if is_client {
            // Else whoever sends would spend only what is the other one's.
            if own.take(self.limits.octets_each, now, datagram.len() as u64) {
                self.peer_sent(now, to, relayed, &datagram);
            } else {
                self.counters.dropped_octets += datagram.len() as u64;
            }
        } else if spend(own, all, &self.limits, now, datagram.len()) {
            self.counters.to_peers_octets += datagram.len() as u64;
            self.actions.push(Action::ToPeer {
                relayed,
                to,
                datagram,
            });
        } else {
            self.counters.dropped_octets += datagram.len() as u64;
        }
    }

    fn peer_sent(&mut self, now: Time, relayed: SocketAddr, source: SocketAddr, datagram: &[u8]) {
        let client = self.relays.get(&relayed).copied();
        let allocation = client.and_then(|client| self.clients.get_mut(&client));
        let (Some(to), Some(allocation)) = (client, allocation) else {
            self.counters.ignored_messages += 1;
            return;
        };
        let fits = datagram.len() <= DATAGRAM_BYTES_MAX
            && (self.relays.contains_key(&source) || self.policy.allows(source.ip()));
        let wrapped = if fits {
            allocation.wrap_data(now, relayed, source, datagram)
        } else {
            None
        };
        let Some(wrapped) = wrapped else {
            self.counters.ignored_messages += 1;
            return;
        };
        let own = allocation.octets();
        let all = &mut self.octets;
        if spend(own, all, &self.limits, now, datagram.len()) {
            self.counters.to_clients_octets += datagram.len() as u64;
            self.reply(to, Some(wrapped));
        } else {
            self.counters.dropped_octets += datagram.len() as u64;
        }
    }

    fn opened(&mut self, now: Time, opening: Opening, relayed: Option<SocketAddr>) {
        // An address that is another client's would be both's.
        let relayed = relayed.filter(|relayed| !self.relays.contains_key(relayed));
        let waiting = self.clients.get_mut(&opening.client);
        let Some(allocation) = waiting.filter(|it| it.waits_for(opening.number)) else {
            self.actions.extend(relayed.map(Action::Close));
            return;
        };
        if let Some(relayed) = relayed {
            self.relays.insert(relayed, opening.client);
        }
        let effects = allocation.opened(now, opening.number, relayed);
        self.apply(now, opening.client, effects);
    }

    fn timeout(&mut self, now: Time) {
        while let Some((_, client)) = self.deadlines.first().copied().filter(|it| it.0 <= now) {
            let Some(allocation) = self.clients.get_mut(&client) else {
                self.deadlines.pop_first();
                continue;
            };
            let effects = allocation.settle(now);
            self.apply(now, client, effects);
        }
    }

    fn apply(&mut self, now: Time, client: Client, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Reply(datagram) => self.reply(client, Some(datagram)),
                Effect::Open(family, even_port) => {
                    let number = self.next_opening;
                    self.next_opening += 1;
                    let opening = Opening {
                        number,
                        client,
                        family,
                        even_port,
                    };
                    self.open(now, opening);
                }
                Effect::Close(relayed) => {
                    self.relays.remove(&relayed);
                    self.actions.push(Action::Close(relayed));
                }
            }
        }
        self.reschedule(now, client);
    }

    fn open(&mut self, now: Time, opening: Opening) {
        let Some(allocation) = self.clients.get_mut(&opening.client) else {
            return;
        };
        allocation.wait_for(opening.number, opening.family);
        if self.families.contains(&opening.family) {
            self.actions.push(Action::Open(opening));
        } else {
            self.opened(now, opening, None);
        }
    }

    fn reschedule(&mut self, now: Time, client: Client) {
        let Some(allocation) = self.clients.get_mut(&client) else {
            return;
        };
        if let Some(before) = allocation.schedule() {
            self.deadlines.remove(&(before, client));
        }
        if allocation.is_over(now) {
            self.clients.remove(&client);
            // Those that were opened while others were waited for in vain.
            let left = self.relays.extract_if(.., |_, of| *of == client);
            self.actions
                .extend(left.map(|(relayed, _)| Action::Close(relayed)));
        } else {
            self.deadlines.insert((allocation.due(), client));
        }
    }

    fn end_those_of(&mut self, user: Option<usize>) {
        self.end(|_, allocation| Some(allocation.user()) == user);
    }

    /// Ends allocations, and frees the slots.
    fn end(&mut self, is_one: impl Fn(&Client, &Allocation) -> bool) {
        let is_one = |client: &Client, allocation: &mut Allocation| is_one(client, allocation);
        let ended: Vec<_> = self.clients.extract_if(.., is_one).collect();
        for (client, mut allocation) in ended {
            if let Some(due) = allocation.schedule() {
                self.deadlines.remove(&(due, client));
            }
            let relays = self.relays.extract_if(.., |_, of| *of == client);
            self.actions
                .extend(relays.map(|(relayed, _)| Action::Close(relayed)));
        }
    }

    fn reply(&mut self, to: Client, reply: Option<Vec<u8>>) {
        let Client { at: to, leg } = to;
        let action = reply.map(|octets| match leg {
            Leg::Udp => Action::ToClient {
                to,
                datagram: octets,
            },
            Leg::Tcp => Action::ToStream {
                to,
                message: octets,
            },
        });
        self.actions.extend(action);
    }
}

impl Policy {
    fn allows(&self, peer: IpAddr) -> bool {
        allowed(peer, &self.own, &self.extra).is_ok()
    }
}

/// Takes octets from the budget of an allocation and from that of all, or from none.
fn spend(own: &mut Bucket, all: &mut Bucket, limits: &Limits, now: Time, octets: usize) -> bool {
    let amount = octets as u64;
    own.has(limits.octets_each, now, amount)
        && all.take(limits.octets_all, now, amount)
        && own.take(limits.octets_each, now, amount)
}

/// Tells whether a datagram has the form of channel data (RFC 8656, section 12): its first two
/// bits are 01.
fn is_channel_data(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first >> 6 == 1)
}
