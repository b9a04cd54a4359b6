//! The sockets of this node's TURN server: one for clients, one for each relayed address; and those who
//! come by TCP, at the same port (`streams`).
//!
//! ```text
//!   client ── UDP ──> socket ──> Server ──> socket of the relayed address ──> peer
//!          <─────────        <──        <──                               <──
//! ```
//!
//! Each socket has a task that hands what comes to the protocol machine and carries out what that
//! wants, at once: what finds no room in a socket is lost, as on any network. The machine is theirs
//! together, under a lock that nobody holds while it waits.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use enishi_dataplane::{addresses_of_host, networks_of_host};
use enishi_stun::{
    Action, ClientInfo, Counters, Credentials, Family, Input, Opening, Policy, Prefix, Server,
    ServerConfig,
};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::streams::{self, Streams};
use super::{DATAGRAM_BYTES_MAX, canonical, for_socket, lock, time};
use crate::config::Turn;
use crate::session::Reach;

/// How many ports are tried for a relayed address.
const PORT_TRIES_MAX: usize = 64;

/// How many datagrams of one socket are worked off before others have their turn.
const DATAGRAMS_AT_ONCE: usize = 32;

/// The longest pause between two looks at what is due.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait when the system gives no datagram.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// A TURN server that runs.
pub struct TurnServer {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) config: Turn,
    listening: SocketAddr,
    socket: UdpSocket,
    started: Instant,
    /// There is something to be looked at in time.
    wake: Notify,
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    pub(super) server: Server,
    pub(super) streams: Streams,
    relays: BTreeMap<SocketAddr, Relay>,
    /// The addresses of the virtual networks: nothing is relayed from there.
    hidden: Vec<IpAddr>,
    tasks: Vec<AbortHandle>,
}

/// The socket of a relayed address.
struct Relay {
    socket: Arc<UdpSocket>,
    task: AbortHandle,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TurnServer {
    /// Opens its sockets and serves these users; within a tokio runtime.
    ///
    /// # Errors
    /// When the port is in use, or the system gives no random numbers.
    pub fn start(config: Turn, listen: SocketAddr, users: Vec<Credentials>) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(listen)?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        let listening = socket.local_addr()?;
        let listener = std::net::TcpListener::bind(listening)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(|error| io::Error::other(error.to_string()))?;
        let families = [Family::V4, Family::V6].into_iter();
        let server = ServerConfig {
            realm: config.realm.clone(),
            listen: listening,
            users,
            families: families.filter(|it| has(listening, &config, *it)).collect(),
            policy: Policy {
                own: of_host().collect(),
                extra: config.peers(),
            },
            limits: config.limits(),
        };
        let state = State {
            server: Server::new(server, *seed),
            streams: Streams::default(),
            relays: BTreeMap::new(),
            hidden: Vec::new(),
            tasks: Vec::new(),
        };
        let inner = Arc::new(Inner {
            config,
            listening,
            socket,
            started: Instant::now(),
            wake: Notify::new(),
            state: Mutex::new(state),
        });
        let tasks = [
            tokio::spawn(receive(Arc::clone(&inner))),
            tokio::spawn(keep_time(Arc::clone(&inner))),
            tokio::spawn(streams::accept(Arc::clone(&inner), listener)),
        ];
        let tasks = tasks.map(|task| task.abort_handle());
        lock(&inner.state).tasks.extend(tasks);
        Ok(Self { inner })
    }

    /// Returns where clients are served.
    pub fn listening(&self) -> SocketAddr {
        self.inner.listening
    }

    /// Lets a user in, in place of one of the same name.
    pub fn add_user(&self, credentials: Credentials) {
        let mut state = lock(&self.inner.state);
        let actions = state.server.add_user(credentials).collect();
        self.inner.carry_out(&mut state, actions);
    }

    /// Lets a user in no more.
    pub fn remove_user(&self, name: &str) {
        let mut state = lock(&self.inner.state);
        let actions = state.server.remove_user(name).collect();
        self.inner.carry_out(&mut state, actions);
    }

    /// Says which addresses and networks are this node's, and which of them are virtual.
    pub fn set_policy(&self, policy: Policy, hidden: Vec<IpAddr>) {
        let mut state = lock(&self.inner.state);
        state.server.set_policy(policy);
        state.hidden = hidden;
    }

    /// Returns who has an allocation, and what happened since the start.
    pub fn report(&self) -> (Vec<ClientInfo>, Counters) {
        let state = lock(&self.inner.state);
        let clients = state.server.clients(time(self.inner.started));
        (clients, state.server.counters())
    }

    /// Ends all tasks.
    pub fn close(&self) {
        let mut state = lock(&self.inner.state);
        state.tasks.drain(..).for_each(|task| task.abort());
        state.relays.clear();
        state.streams.close();
    }
}

impl Inner {
    /// Hands something to the protocol machine, and does what it wants. Returns how many messages were ignored.
    pub(super) fn take(self: &Arc<Self>, input: Input<'_>) -> u64 {
        let mut state = lock(&self.state);
        let before = state.server.counters().ignored_messages;
        let had_time = state.server.next_timeout().is_some();
        let actions = state.server.handle(time(self.started), input).collect();
        self.carry_out(&mut state, actions);
        if !had_time && state.server.next_timeout().is_some() {
            self.wake.notify_one();
        }
        state.server.counters().ignored_messages - before
    }

    fn carry_out(self: &Arc<Self>, state: &mut State, actions: Vec<Action>) {
        let mut todo = actions;
        while !todo.is_empty() {
            for action in std::mem::take(&mut todo) {
                match action {
                    Action::ToClient { to, datagram } => {
                        let to = for_socket(self.listening, to);
                        let _ = self.socket.try_send_to(&datagram, to);
                    }
                    Action::ToStream { to, message } => state.streams.write(to, message),
                    Action::ToPeer {
                        relayed,
                        to,
                        datagram,
                    } => {
                        if let Some(relay) = state.relays.get(&relayed) {
                            let _ = relay.socket.try_send_to(&datagram, to);
                        }
                    }
                    Action::Open(opening) => {
                        let opened = self.open(state, opening);
                        if let Err(error) = &opened {
                            tracing::warn!(%error, "no relayed address for a TURN client");
                        }
                        let relayed = opened.ok();
                        let input = Input::Opened { opening, relayed };
                        todo.extend(state.server.handle(time(self.started), input));
                    }
                    Action::Close(relayed) => drop(state.relays.remove(&relayed)),
                }
            }
        }
    }

    /// Opens the socket of a relayed address, and returns that as peers see it.
    fn open(self: &Arc<Self>, state: &mut State, opening: Opening) -> io::Result<SocketAddr> {
        let (at, told) = self.place(opening.family, &state.hidden)?;
        let (first, last) = self.config.ports.range();
        let count = u32::from(last - first) + 1;
        let mut drawn = [0; 4];
        getrandom::fill(&mut drawn).map_err(|error| io::Error::other(error.to_string()))?;
        let drawn = u32::from_le_bytes(drawn);
        let mut refused = io::Error::from(io::ErrorKind::AddrInUse);
        let numbers = (0..count).map(|step| first + (drawn.wrapping_add(step) % count) as u16);
        let fits = |port: &u16| !opening.even_port || port.is_multiple_of(2);
        for port in numbers.filter(fits).take(PORT_TRIES_MAX) {
            let socket = match std::net::UdpSocket::bind((at, port)) {
                Ok(socket) => socket,
                Err(error) => {
                    refused = error;
                    continue;
                }
            };
            socket.set_nonblocking(true)?;
            let socket = Arc::new(UdpSocket::from_std(socket)?);
            let relayed = SocketAddr::new(told, port);
            let task = relay(Arc::clone(self), relayed, Arc::clone(&socket));
            let task = tokio::spawn(task).abort_handle();
            state.relays.insert(relayed, Relay { socket, task });
            return Ok(relayed);
        }
        Err(refused)
    }

    /// Returns at which address a relayed one is opened, and which one peers are told.
    fn place(&self, family: Family, hidden: &[IpAddr]) -> io::Result<(IpAddr, IpAddr)> {
        let is_it = |ip: &IpAddr| ip.is_ipv4() == (family == Family::V4);
        let listens = Some(self.listening.ip()).filter(|ip| !ip.is_unspecified() && is_it(ip));
        let anywhere: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        if let Some(told) = self.config.external.filter(is_it) {
            return Ok((listens.unwrap_or(anywhere), told));
        }
        if let Some(ip) = listens {
            return Ok((ip, ip));
        }
        let own = addresses_of_host().into_iter().filter(is_it);
        let own = own.filter(|ip| !hidden.contains(ip) && Reach::of(*ip) <= Reach::Site);
        let best = own.min_by_key(|ip| (Reach::of(*ip), *ip));
        let best =
            best.ok_or_else(|| io::Error::other("this host has no address of the family"))?;
        Ok((best, best))
    }
}

/// Returns the addresses of this host, and the networks that it is in: its neighbours are nothing that
/// clients are to reach, whatever their addresses.
pub fn of_host() -> impl Iterator<Item = Prefix> {
    let addresses = addresses_of_host().into_iter().map(Prefix::from);
    let networks = networks_of_host().into_iter();
    addresses.chain(networks.filter_map(|(network, bits)| Prefix::new(network, bits)))
}

/// Tells whether relayed addresses of a family can be had at all.
fn has(listening: SocketAddr, config: &Turn, family: Family) -> bool {
    let is_four = family == Family::V4;
    let is_external = config.external.is_some_and(|ip| ip.is_ipv4() == is_four);
    let is_everywhere = listening.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    is_external || is_everywhere || listening.is_ipv4() == is_four
}

/// Takes what clients send, as long as the server runs.
async fn receive(inner: Arc<Inner>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let mut received = inner.socket.recv_from(&mut buffer).await;
        for _ in 0..DATAGRAMS_AT_ONCE {
            let Ok((length, source)) = received else {
                break;
            };
            inner.take(Input::FromClient {
                source: canonical(source),
                datagram: &buffer[..length],
            });
            received = inner.socket.try_recv_from(&mut buffer);
        }
        match received {
            // Others have their turn.
            Ok((length, source)) => {
                let (source, datagram) = (canonical(source), &buffer[..length]);
                inner.take(Input::FromClient { source, datagram });
                tokio::task::yield_now().await;
            }
            Err(error) => wait_after(&error).await,
        }
    }
}

/// Takes what peers send to a relayed address, until the task is ended.
async fn relay(inner: Arc<Inner>, relayed: SocketAddr, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, source)) => {
                let (source, datagram) = (canonical(source), &buffer[..length]);
                inner.take(Input::FromPeer {
                    relayed,
                    source,
                    datagram,
                });
            }
            Err(error) => wait_after(&error).await,
        }
    }
}

/// An ICMP error about something that was sent is none; others may last.
pub(super) async fn wait_after(error: &io::Error) {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock => {}
        _ => tokio::time::sleep(ERROR_PAUSE).await,
    }
}

/// Lets what is due be done.
async fn keep_time(inner: Arc<Inner>) {
    loop {
        let due = lock(&inner.state).server.next_timeout();
        let Some(due) = due else {
            inner.wake.notified().await;
            continue;
        };
        let wait = due.since(time(inner.started));
        tokio::time::sleep(wait.min(LOOK_INTERVAL)).await;
        if due <= time(inner.started) {
            inner.take(Input::Timeout);
        }
    }
}
