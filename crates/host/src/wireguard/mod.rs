//! Plain WireGuard clients: phones and other devices that take part in a channel by way of this
//! node, without a node of their own.
//!
//! ```text
//!   client ── UDP ──> socket ──> tunnels: whose? open, may it send this? ──> port ┐
//!                                                                                engine
//!   client <── UDP ── socket <── tunnels: whose address? seal           <── port ┘
//! ```
//!
//! This node is the other end of a client's tunnel. It holds an address for each client
//! (`vnet/hosted.rs`), answers for what the client does, and sees all of it. The protocol
//! (J. Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel", NDSS 2017) is boringtun's;
//! here are the socket, who the clients are, and which addresses they have.
//!
//! | part | does |
//! |---|---|
//! | [`clients`] | who they are, on disk |
//! | [`tunnels`] | datagrams and packets, without a socket |

pub mod clients;
pub mod tunnels;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use enishi_dataplane::device::{Port, queue};
use enishi_overlay::Keypair;
use enishi_services::keys::{Secret, derive};
use enishi_services::vnet::{self, ChannelId, Event, MTU, Vnet};
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

use crate::bell;
use crate::data_dir::DataDirError;
use crate::packets::Networks;
use clients::{Client, Clients};
use tunnels::{Output, Traffic, Tunnels};

/// How many ports are tried, from the configured one on.
const PORTS_MAX: u16 = 16;

/// How often timers are looked at, as boringtun's own devices do.
const TICK: Duration = Duration::from_millis(250);

/// How many packets of a channel are sealed before others have their turn.
const PACKETS_AT_ONCE: usize = 64;

/// The longest datagram.
const DATAGRAM_BYTES_MAX: usize = 1 << 16;

/// How long to wait when the system gives no datagram.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// The clients of this node, and their tunnels.
pub struct WireGuard {
    inner: Arc<Inner>,
}

struct Inner {
    networks: Arc<Networks>,
    first_port: u16,
    state: Mutex<State>,
    /// Made with the first client.
    socket: OnceLock<UdpSocket>,
}

struct State {
    clients: Clients,
    tunnels: Tunnels,
    channels: BTreeMap<ChannelId, Channel>,
    /// Those of the socket.
    tasks: Vec<AbortHandle>,
}

/// A channel in which addresses are held for clients.
struct Channel {
    name: String,
    held: Vec<[IpAddr; 2]>,
    /// Where packets come from and go to, and the task that waits for them.
    port: Option<(Port, AbortHandle)>,
}

impl WireGuard {
    /// Reads who the clients are; sockets wait until there is one.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn new(
        networks: Arc<Networks>,
        keypair: &Keypair,
        data: &Path,
        first_port: u16,
    ) -> Result<Self, DataDirError> {
        let key = derive("enishi 1 WireGuard static key", &*keypair.seed(), &[]);
        let state = State {
            clients: Clients::load(data)?,
            tunnels: Tunnels::new(&key),
            channels: BTreeMap::new(),
            tasks: Vec::new(),
        };
        let inner = Inner {
            networks,
            first_port,
            state: Mutex::new(state),
            socket: OnceLock::new(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Makes the socket if there are clients, so that what the system is told of this node's
    /// ports tells of it too. Within a tokio runtime, as all that follows.
    pub fn start(&self) {
        if !self.inner.lock().clients.is_empty()
            && let Err(error) = self.listen()
        {
            tracing::warn!(%error, "WireGuard clients cannot attach: no socket");
        }
    }

    /// Makes the socket if there is none, and returns its port.
    ///
    /// # Errors
    /// When none of the ports is free, or the system refuses.
    pub fn listen(&self) -> io::Result<u16> {
        let inner = &self.inner;
        let mut state = inner.lock();
        if let Some(socket) = inner.socket.get() {
            return socket.local_addr().map(|address| address.port());
        }
        let socket = bind(inner.first_port)?;
        let port = socket.local_addr()?.port();
        inner.networks.set_wireguard_port(port);
        if inner.socket.set(socket).is_ok() {
            let tasks = [
                tokio::spawn(receive(Arc::clone(inner))),
                tokio::spawn(tick(Arc::clone(inner))),
            ];
            state.tasks.extend(tasks.map(|task| task.abort_handle()));
        }
        Ok(port)
    }

    /// Returns this node's public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.inner.lock().tunnels.public_key()
    }

    /// Follows which addresses this node has, and which it holds for clients.
    pub fn on_event(&self, event: &Event, networks: &Vnet) {
        if let Event::Claimed {
            channel,
            address,
            address6,
        } = event
        {
            let addresses = [(*address).into(), (*address6).into()];
            self.inner.lock().tunnels.set_own(*channel, addresses);
        } else if let Event::Hosting { channel, addresses } = event
            && let Some(name) = networks.channel(*channel).map(vnet::Channel::name)
        {
            self.open(*channel, name, addresses);
        } else if let Event::Closed(channel) = event {
            self.leave(*channel);
        }
    }

    /// Adds a client, whose address this node holds; the state is on disk when it returns.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn add(&self, client: Client) -> Result<(), DataDirError> {
        let mut state = self.inner.lock();
        state.clients.add(client)?;
        state.follow_clients();
        Ok(())
    }

    /// Removes a client, and returns who it was.
    ///
    /// # Errors
    /// When that cannot be kept.
    pub fn remove(&self, channel: &str, name: &str) -> Result<Option<Client>, DataDirError> {
        let mut state = self.inner.lock();
        let removed = state.clients.remove(channel, name)?;
        state.follow_clients();
        Ok(removed)
    }

    /// Returns the clients, whether this node holds their addresses, and what passed.
    pub fn clients(&self) -> Vec<(Client, Option<Traffic>)> {
        let state = self.inner.lock();
        let clients = state.clients.all().iter();
        clients
            .map(|client| (client.clone(), state.tunnels.traffic(&client.public_key)))
            .collect()
    }

    /// Ends all tasks.
    pub fn close(&self) {
        let mut state = self.inner.lock();
        state.tasks.drain(..).for_each(|task| task.abort());
        let channels = std::mem::take(&mut state.channels);
        channels.into_values().for_each(Channel::end);
    }

    fn open(&self, id: ChannelId, name: &str, held: &[[IpAddr; 2]]) {
        let mut state = self.inner.lock();
        let port = match held.is_empty() {
            true => None,
            false => self.inner.make_port(id),
        };
        let (device, port) = port.unzip();
        self.inner.networks.host(id, device, held.concat());
        let channel = Channel {
            name: name.to_owned(),
            held: held.to_vec(),
            port,
        };
        if let Some(before) = state.channels.insert(id, channel) {
            before.end();
        }
        state.follow_clients();
    }

    /// The channel was left: its clients go with it.
    fn leave(&self, id: ChannelId) {
        let mut state = self.inner.lock();
        let Some(channel) = state.channels.remove(&id) else {
            return;
        };
        if let Err(error) = state.clients.remove_all(&channel.name) {
            tracing::warn!(%error, "WireGuard clients of a channel that was left stay on disk");
        }
        channel.end();
        state.follow_clients();
    }
}

impl State {
    /// Has tunnels for the clients whose addresses are held, and for no others.
    fn follow_clients(&mut self) {
        let wanted = self.clients.all().iter().filter_map(|client| {
            let mut channels = self.channels.iter();
            let (id, channel) = channels.find(|(_, channel)| channel.name == client.channel)?;
            let mut held = channel.held.iter();
            let addresses = held.find(|held| held[0] == IpAddr::V4(client.address))?;
            Some((client.clone(), *id, *addresses))
        });
        self.tunnels.set(wanted.collect());
    }
}

impl Channel {
    fn end(self) {
        if let Some((_, task)) = self.port {
            task.abort();
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere does not make it useless: every change is complete.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the device for a channel's clients, and the task that sends what comes from it.
    fn make_port(
        self: &Arc<Self>,
        id: ChannelId,
    ) -> Option<(enishi_dataplane::Device, (Port, AbortHandle))> {
        let made = queue(MTU).and_then(|(device, port)| {
            let bell = bell::of(&port)?;
            Ok((device, port, bell))
        });
        match made {
            Ok((device, port, bell)) => {
                let task = tokio::spawn(send(Arc::clone(self), id, bell));
                Some((device, (port, task.abort_handle())))
            }
            Err(error) => {
                tracing::warn!(%error, "WireGuard clients of a channel cannot be served");
                None
            }
        }
    }

    /// Seals packets to clients until there is none or others have to have their turn; tells
    /// whether there may be more.
    fn send(&self, id: ChannelId) -> bool {
        let mut outputs = Vec::new();
        let mut state = self.lock();
        let State {
            tunnels, channels, ..
        } = &mut *state;
        let port = channels.get(&id).and_then(|channel| channel.port.as_ref());
        let Some((port, _)) = port else { return false };
        let mut more = true;
        for _ in 0..PACKETS_AT_ONCE {
            let Some(packet) = port.receive() else {
                more = false;
                break;
            };
            tunnels.send(id, &packet, &mut outputs);
        }
        self.carry_out(outputs, &state);
        more
    }

    fn receive(&self, from: SocketAddr, datagram: &[u8]) {
        let mut outputs = Vec::new();
        let mut state = self.lock();
        state.tunnels.receive(from, datagram, &mut outputs);
        self.carry_out(outputs, &state);
    }

    fn tick(&self) {
        let mut outputs = Vec::new();
        let mut state = self.lock();
        state.tunnels.tick(&mut outputs);
        self.carry_out(outputs, &state);
    }

    /// What finds no room, in the socket or in the port, is lost, as on any network.
    fn carry_out(&self, outputs: Vec<Output>, state: &State) {
        for output in outputs {
            match output {
                Output::Datagram(to, datagram) => {
                    if let Some(socket) = self.socket.get() {
                        let _ = socket.try_send_to(&datagram, to);
                    }
                }
                Output::Packet(channel, packet) => {
                    let channel = state.channels.get(&channel);
                    if let Some((port, _)) = channel.and_then(|channel| channel.port.as_ref()) {
                        port.send(packet);
                    }
                }
            }
        }
    }
}

/// Takes the first port that is free, for IPv6 and IPv4 where there is IPv6.
fn bind(first: u16) -> io::Result<UdpSocket> {
    let bind_one = |port: u16| {
        let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let socket = std::net::UdpSocket::bind(everywhere).or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Err(error),
            _ => std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)),
        })?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    };
    let last = first.saturating_add(PORTS_MAX - 1);
    let mut refused = io::ErrorKind::AddrInUse.into();
    for port in first..=last {
        match bind_one(port) {
            Ok(socket) => return Ok(socket),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Takes datagrams as long as the node runs.
async fn receive(inner: Arc<Inner>) {
    let Some(socket) = inner.socket.get() else {
        return;
    };
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => inner.receive(from, &buffer[..length]),
            Err(error) => {
                tracing::debug!(%error, "no datagram of a WireGuard client");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// Has the tunnels look at their timers.
async fn tick(inner: Arc<Inner>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        inner.tick();
        ticks.tick().await;
    }
}

/// Takes packets to the clients of a channel, until the task is ended.
async fn send(inner: Arc<Inner>, id: ChannelId, bell: AsyncFd<OwnedFd>) {
    while let Ok(mut ready) = bell.readable().await {
        if inner.send(id) {
            tokio::task::yield_now().await;
        } else {
            ready.clear_ready();
        }
    }
}

/// Returns the public key of a secret one.
pub fn public_key_of(key: &Secret) -> [u8; 32] {
    let key = boringtun::x25519::StaticSecret::from(**key);
    *boringtun::x25519::PublicKey::from(&key).as_bytes()
}

/// Draws a key: a secret one, or a preshared one.
///
/// # Errors
/// When the system gives no random numbers.
pub fn random_key() -> Result<Secret, getrandom::Error> {
    let mut key = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(&mut *key)?;
    Ok(Secret::new(*key))
}
