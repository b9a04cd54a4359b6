//! Carries what one forward forwards, as long as the forward is there.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use enishi_api::{ForwardAdd, ForwardWay, Protocol};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::desk::Desk;
use super::destination::{self, Destination};
use super::forwards::State;
use super::{ACCEPT_PAUSE, CONNECTIONS_MAX, join};
use crate::packets::{Connection, Datagrams, Reach};

/// The longest datagram that is carried: of UDP over IPv4.
pub(super) const DATAGRAM_BYTES_MAX: usize = 65_507;

/// The most flows of datagrams of one forward, how many datagrams wait in each, and after how
/// long without any it ends (RFC 4787, REQ-5 asks for two minutes at least).
const FLOWS_MAX: usize = 256;
const WAITING_MAX: usize = 64;
const FLOW_IDLE_MAX: Duration = Duration::from_secs(120);

/// Before what failed is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Where a connection of a forward leads.
#[derive(Clone)]
enum Target {
    /// To a member of a channel.
    Member(Desk, String, String),
    /// To a program of this host.
    Program(SocketAddr),
}

/// Carries a forward; never ends by itself.
pub(super) async fn run(desk: Desk, forward: ForwardAdd, state: Arc<State>) {
    let protocol = forward.protocol;
    match forward.way {
        ForwardWay::Local { listen, to } => {
            let target = Target::Member(desk, forward.channel, to);
            loop {
                let ended = match protocol {
                    Protocol::Tcp => local_tcp(listen, &target, &state).await,
                    Protocol::Udp => local_udp(listen, &target, &state).await,
                };
                let Err(error) = ended;
                state.note(Some(format!(
                    "this host cannot listen at {listen}: {error}"
                )));
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
        ForwardWay::Remote { port, to } => {
            let target = Target::Program(to);
            let mut changes = desk.shared.networks.changes();
            loop {
                let reach = reach(&desk, &forward.channel).await;
                let Some(reach) = reach else {
                    state.note(Some("the channel has no address or no network".to_owned()));
                    // The loss of a device, and a channel that comes, are seen in time too.
                    let _ = tokio::time::timeout(RETRY_INTERVAL, changes.changed()).await;
                    continue;
                };
                let carrying = async {
                    match protocol {
                        Protocol::Tcp => remote_tcp(&reach, port, &target, &state).await,
                        Protocol::Udp => remote_udp(&reach, port, &target, &state).await,
                    }
                };
                tokio::select! {
                    Err(error) = carrying => {
                        state.note(Some(format!("port {port} of this node cannot be taken: {error}")));
                        tokio::time::sleep(RETRY_INTERVAL).await;
                    }
                    () = until_other(&desk, &forward.channel, &reach) => {}
                }
            }
        }
    }
}

/// Returns the way into a channel by its name.
async fn reach(desk: &Desk, channel: &str) -> Option<Reach> {
    let name = channel.to_owned();
    let id = desk.look(move |node| node.vnet().by_name(&name).map(|(id, _)| id));
    desk.shared.networks.reach(id.await.ok().flatten()?)
}

/// Waits until the way into a channel is another.
async fn until_other(desk: &Desk, channel: &str, before: &Reach) {
    let mut changes = desk.shared.networks.changes();
    loop {
        let now = reach(desk, channel).await;
        if now.is_none_or(|now| !now.is_same(before)) {
            return;
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

type Never = std::convert::Infallible;

async fn local_tcp(listen: SocketAddr, target: &Target, state: &Arc<State>) -> io::Result<Never> {
    let listener = TcpListener::bind(listen).await?;
    state.note(None);
    let mut connections = JoinSet::new();
    loop {
        make_room(&mut connections).await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let stream = stream.set_nodelay(true).map(|()| Box::new(stream));
                if let Ok(stream) = stream {
                    connections.spawn(carry(stream, target.clone(), Arc::clone(state)));
                }
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn remote_tcp(
    reach: &Reach,
    port: u16,
    target: &Target,
    state: &Arc<State>,
) -> io::Result<Never> {
    let mut listener = reach.listen(port)?;
    state.note(None);
    let mut connections = JoinSet::new();
    loop {
        make_room(&mut connections).await;
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(carry(stream, target.clone(), Arc::clone(state)));
            }
            // Those that are carried go on.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Waits until one connection more may be carried.
async fn make_room(connections: &mut JoinSet<()>) {
    while connections.try_join_next().is_some() {}
    while connections.len() >= CONNECTIONS_MAX {
        connections.join_next().await;
    }
}

async fn carry(mut stream: Box<impl Connection + ?Sized>, target: Target, state: Arc<State>) {
    let carried = state.carry();
    match target.connect().await {
        Ok(mut other) => {
            state.note(None);
            if let Err(error) = join(&mut *stream, &mut *other).await {
                tracing::debug!(%error, "a forwarded connection broke off");
            }
        }
        Err(reason) => state.note(Some(reason)),
    }
    drop(carried);
}

async fn local_udp(listen: SocketAddr, target: &Target, state: &Arc<State>) -> io::Result<Never> {
    let socket = Datagrams::Kernel(UdpSocket::bind(listen).await?);
    state.note(None);
    relay(Arc::new(socket), target, state).await
}

async fn remote_udp(
    reach: &Reach,
    port: u16,
    target: &Target,
    state: &Arc<State>,
) -> io::Result<Never> {
    let four = reach.bind(port, Ipv4Addr::UNSPECIFIED.into()).await?;
    let six = match reach {
        Reach::Kernel(_) => reach.bind(port, Ipv6Addr::UNSPECIFIED.into()).await.ok(),
        // The one socket is at both addresses.
        Reach::Userspace(_) => None,
    };
    state.note(None);
    let by_six = async {
        match six {
            Some(six) => relay(Arc::new(six), target, state).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = relay(Arc::new(four), target, state) => ended,
        ended = by_six => ended,
    }
}

/// Carries the datagrams that come to a socket, and the answers.
async fn relay(socket: Arc<Datagrams>, target: &Target, state: &Arc<State>) -> io::Result<Never> {
    let mut flows: BTreeMap<SocketAddr, mpsc::Sender<Vec<u8>>> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await?;
        while tasks.try_join_next().is_some() {}
        if flows.get(&from).is_none_or(mpsc::Sender::is_closed) {
            flows.retain(|_, flow| !flow.is_closed());
            if flows.len() >= FLOWS_MAX {
                continue;
            }
            let (flow, waiting) = mpsc::channel(WAITING_MAX);
            flows.insert(from, flow);
            let (socket, target) = (Arc::clone(&socket), target.clone());
            let carried = state.carry();
            let state = Arc::clone(state);
            tasks.spawn(async move {
                match target.bind().await {
                    Ok((other, to)) => {
                        state.note(None);
                        exchange(&socket, from, &other, to, waiting).await;
                    }
                    Err(reason) => state.note(Some(reason)),
                }
                drop(carried);
            });
        }
        if let Some(flow) = flows.get(&from) {
            // What finds no room is lost, as with any datagram.
            let _ = flow.try_send(buffer[..length].to_vec());
        }
    }
}

/// Carries one flow until it is idle.
async fn exchange(
    socket: &Datagrams,
    from: SocketAddr,
    other: &Datagrams,
    to: SocketAddr,
    mut waiting: mpsc::Receiver<Vec<u8>>,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        tokio::select! {
            datagram = waiting.recv() => match datagram {
                Some(datagram) => drop(other.send_to(&datagram, to).await),
                None => return,
            },
            answer = other.recv_from(&mut buffer) => match answer {
                Ok((length, sender)) if sender == to => {
                    let _ = socket.send_to(&buffer[..length], from).await;
                }
                Ok(_) => {}
                Err(_) => return,
            },
            () = tokio::time::sleep(FLOW_IDLE_MAX) => return,
        }
    }
}

impl Target {
    async fn connect(&self) -> Result<Box<dyn Connection>, String> {
        match self {
            Self::Member(..) => {
                let member = self.member().await?;
                let connected = member.connect().await;
                connected.map_err(|error| format!("{} is not reached: {error}", member.address))
            }
            Self::Program(to) => {
                let connected = TcpStream::connect(to).await;
                let stream = connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
                let stream = stream.map_err(|error| format!("{to} is not reached: {error}"))?;
                Ok(Box::new(stream))
            }
        }
    }

    /// Opens a socket for datagrams to the target, and tells where that is.
    async fn bind(&self) -> Result<(Datagrams, SocketAddr), String> {
        let (socket, to) = match self {
            Self::Member(..) => {
                let member = self.member().await?;
                let to = member.address;
                (member.reach.bind(0, to.ip()).await, to)
            }
            Self::Program(to) => {
                let own: IpAddr = match to.ip() {
                    IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                let socket = UdpSocket::bind(SocketAddr::new(own, 0)).await;
                (socket.map(Datagrams::Kernel), *to)
            }
        };
        let socket = socket.map_err(|error| format!("no socket for datagrams: {error}"))?;
        Ok((socket, to))
    }

    async fn member(&self) -> Result<Destination, String> {
        let Self::Member(desk, channel, to) = self else {
            return Err("it is a program of this host".to_owned());
        };
        let (host, port) = destination::parse(to).ok_or_else(|| format!("`{to}` is no member"))?;
        let found = Destination::find_in(desk, channel.clone(), host, port).await;
        found.map_err(|refusal| refusal.to_string())
    }
}
