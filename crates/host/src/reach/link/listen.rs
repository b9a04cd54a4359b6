//! Taking links: streams and HTTP bridges at the same port, told apart by their first octet.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use enishi_bridge::exchange::{Limits, SessionId};
use enishi_bridge::server::{Event, Sender, Server};
use enishi_bridge::websocket;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;

use super::hello::{self, Pipe};
use super::stream;
use super::{Beginning, Linker, Opened};
use crate::reach::lock;

/// Links that are streams, in all and from one address: a whole company may be behind that.
const LINKS: Rooms = Rooms {
    all: 256,
    of_one: 64,
};

/// Connections of those who have not said yet who they are, in all and from one address. Requests to the bridge are
/// counted by it, as soon as they are known to be such.
const STRANGERS: Rooms = Rooms {
    all: 128,
    of_one: 32,
};

/// How long a stream may take to say who it is.
const HELLO_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a session of a bridge may take for it: its messages go by requests.
const BRIDGE_HELLO_TIME_MAX: Duration = Duration::from_secs(30);

/// Packets that wait at a session of a bridge, each way: a request brings up to 750 at once.
const BRIDGE_WAITING_MAX: usize = 1_024;

/// Connections that wait for the bridge.
const HANDED_MAX: usize = 64;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 256;

/// How soon it is looked again whether there is enough to tell what a connection is.
const PEEK_AGAIN: Duration = Duration::from_millis(20);

/// The wait after the system could not accept a connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What is behind the bridge: no more than for streams.
const BRIDGE: Limits = Limits {
    sessions_max: LINKS.all,
    sessions_per_place_max: 64,
    openings_max: 64,
    queued_bytes_max: 32 << 20,
    probe_bytes_max: 8 << 20,
    replies_bytes_max: 32 << 20,
};

/// Binds a listener; IPv6 alone where the address is of IPv6.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Ipv6V6Only, &true)?;
            socket
        }
    };
    // A port that this node has just used is free for it.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves whoever comes to `listeners`, and bridges' sessions, until the linker stops.
pub(super) fn start(linker: &Arc<Linker>, listeners: Vec<TcpListener>) {
    if listeners.is_empty() {
        return;
    }
    let (handed, streams) = mpsc::channel(HANDED_MAX);
    let hall = Hall {
        strangers: Arc::new(Places::new(STRANGERS)),
        links: Arc::new(Places::new(LINKS)),
        handed,
    };
    for listener in listeners {
        let (linker, hall) = (Arc::clone(linker), hall.clone());
        tokio::spawn(async move {
            let stop = linker.stop.clone();
            let accepting = accept(linker, listener, hall);
            stop.run_until_cancelled(accepting).await;
        });
    }
    let (linker, server) = (Arc::clone(linker), Server::serve(streams, BRIDGE));
    tokio::spawn(async move {
        let stop = linker.stop.clone();
        stop.run_until_cancelled(bridge(linker, server)).await;
    });
}

/// Where those go who have come.
#[derive(Clone)]
struct Hall {
    strangers: Arc<Places>,
    links: Arc<Places>,
    /// To the bridge.
    handed: mpsc::Sender<(TcpStream, IpAddr)>,
}

async fn accept(linker: Arc<Linker>, listener: TcpListener, hall: Hall) {
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let Some(place) = Place::enter(&hall.strangers, network(from.ip())) else {
            tracing::debug!(%from, "a connection too many");
            continue;
        };
        let (linker, hall) = (Arc::clone(&linker), hall.clone());
        tokio::spawn(async move {
            let stop = linker.stop.clone();
            let greeting = greet(&linker, (stream, from), place, hall);
            stop.run_until_cancelled(greeting).await;
        });
    }
}

/// Finds out which of the two a connection is, and who opened it.
async fn greet(
    linker: &Arc<Linker>,
    (stream, from): (TcpStream, SocketAddr),
    place: Place,
    hall: Hall,
) {
    let deadline = tokio::time::Instant::now() + HELLO_TIME_MAX;
    let mut first = [0];
    let peeked = tokio::time::timeout_at(deadline, stream.peek(&mut first)).await;
    if !matches!(peeked, Ok(Ok(1))) {
        return;
    }
    // Where this fails it is only slower.
    let _ = stream.set_nodelay(true);
    // A method of HTTP; a link begins with the length of its first message.
    if first[0].is_ascii_uppercase() {
        let is_websocket = tokio::time::timeout_at(deadline, begins(&stream, websocket::BEGINS));
        if is_websocket.await.unwrap_or_default() {
            let opened = tokio::time::timeout_at(deadline, websocket::accept(stream)).await;
            let Ok(Some(stream)) = opened else { return };
            let about = format!("websocket from {from}");
            return link(linker, (stream, about), (from.ip(), place), &hall, deadline).await;
        }
        // The bridge counts its own; without room there the connection ends.
        let _ = hall.handed.try_send((stream, from.ip()));
        return;
    }
    let about = format!("tcp from {from}");
    link(linker, (stream, about), (from.ip(), place), &hall, deadline).await;
}

/// Tells whether what came by a connection begins so, and leaves it there. Waits for as much of it as there
/// is to compare; the caller limits the time.
async fn begins(stream: &TcpStream, with: &[u8]) -> bool {
    let mut octets = vec![0; with.len()];
    loop {
        let Ok(length) = stream.peek(&mut octets).await else {
            return false;
        };
        if length == with.len() || length == 0 || octets[..length] != with[..length] {
            return octets == with;
        }
        tokio::time::sleep(PEEK_AGAIN).await;
    }
}

/// Serves the link over a stream, once it is known who has opened it.
async fn link(
    linker: &Arc<Linker>,
    (stream, about): (impl AsyncRead + AsyncWrite + Send + 'static, String),
    (from, place): (IpAddr, Place),
    hall: &Hall,
    deadline: tokio::time::Instant,
) {
    let (mut pipe, tasks) = stream::pipe(stream);
    let room = || Place::enter(&hall.links, network(from));
    let accepted = hello::accept(&mut pipe, &linker.keypair, room);
    if let Ok(Some((peer, welcome, room))) = tokio::time::timeout_at(deadline, accepted).await {
        drop(place);
        let opened = Opened {
            pipe,
            about,
            beginning: Beginning::Taken(welcome),
            held: Box::new((tasks, room)),
        };
        linker.serve(peer, opened);
    }
}

/// Serves the sessions of the bridge.
async fn bridge(linker: Arc<Linker>, mut server: Server) {
    let sender = server.sender();
    let mut sessions: HashMap<SessionId, mpsc::Sender<Bytes>> = HashMap::new();
    while let Some(event) = server.recv().await {
        match event {
            Event::Opened(id, from) => {
                let (incoming, packets) = mpsc::channel(BRIDGE_WAITING_MAX);
                sessions.insert(id, incoming);
                let (linker, sender) = (Arc::clone(&linker), sender.clone());
                tokio::spawn(async move {
                    let stop = linker.stop.clone();
                    let served = session(&linker, id, from, packets, sender);
                    stop.run_until_cancelled(served).await;
                });
            }
            Event::Datagram(id, packet) => {
                if let Some(incoming) = sessions.get(&id) {
                    // Who does not keep up loses packets, as with any socket.
                    let _ = incoming.try_send(packet);
                }
            }
            Event::Closed(id) => drop(sessions.remove(&id)),
        }
    }
}

/// Serves one session of the bridge until the link over it ends.
async fn session(
    linker: &Arc<Linker>,
    id: SessionId,
    from: IpAddr,
    packets: mpsc::Receiver<Bytes>,
    sender: Sender,
) {
    let (to, mut outgoing) = mpsc::channel(BRIDGE_WAITING_MAX);
    let mut pipe = Pipe { to, from: packets };
    let forwarding = async {
        while let Some(packet) = outgoing.recv().await {
            sender.send(id, packet);
        }
    };
    let accepting = async {
        // The bridge has counted it.
        let accepted = hello::accept(&mut pipe, &linker.keypair, || Some(()));
        let accepted = tokio::time::timeout(BRIDGE_HELLO_TIME_MAX, accepted).await;
        if let Ok(Some((peer, welcome, ()))) = accepted {
            let opened = Opened {
                pipe,
                about: format!("http from {from}"),
                beginning: Beginning::Taken(welcome),
                held: Box::new(()),
            };
            linker.serve(peer, opened);
        } else {
            drop(pipe);
        }
    };
    tokio::join!(forwarding, accepting);
    sender.close(id).await;
}

/// Returns by what the connections of an address are counted: itself, or its IPv6 network of 64 bits.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

/// How many there may be, in all and of one address.
#[derive(Clone, Copy, Debug)]
struct Rooms {
    all: usize,
    of_one: usize,
}

/// How many there are of each address.
#[derive(Debug)]
struct Places {
    rooms: Rooms,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

impl Places {
    fn new(rooms: Rooms) -> Self {
        let counts = Mutex::default();
        Self { rooms, counts }
    }
}

/// One of them.
struct Place {
    from: IpAddr,
    places: Arc<Places>,
}

impl Place {
    fn enter(places: &Arc<Places>, from: IpAddr) -> Option<Self> {
        let mut counts = lock(&places.counts);
        let is_full = counts.values().sum::<usize>() >= places.rooms.all;
        let count = counts.get(&from).copied().unwrap_or_default();
        if is_full || count >= places.rooms.of_one {
            return None;
        }
        counts.insert(from, count + 1);
        let places = Arc::clone(places);
        Some(Self { from, places })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = lock(&self.places.counts);
        if let Some(count) = counts.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_few_streams_and_all_have_a_limit() {
        let rooms = Rooms {
            all: 100,
            of_one: 7,
        };
        let places = Arc::new(Places::new(rooms));
        let from = |n: u16| IpAddr::from([11, 0, (n >> 8) as u8, n as u8]);
        let one: Vec<_> = (0..50)
            .filter_map(|_| Place::enter(&places, from(0)))
            .collect();
        assert_eq!(one.len(), rooms.of_one);
        let all: Vec<_> = (1..1_000)
            .filter_map(|n| Place::enter(&places, from(n)))
            .collect();
        assert_eq!(one.len() + all.len(), rooms.all);
        let of_one = ["2001:db8::1", "2001:db8::2:3"].map(|ip| network(ip.parse().unwrap()));
        assert_eq!(of_one[0], of_one[1]);
        drop((one, all));
        assert!(lock(&places.counts).is_empty());
    }
}
