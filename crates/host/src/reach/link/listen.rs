//! Taking links: streams and HTTP bridges at the same port, told apart by their first octet.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use enishi_bridge::exchange::{Limits, SessionId};
use enishi_bridge::server::{Event, Sender, Server};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;

use super::hello::{self, Pipe};
use super::stream::{self, WAITING_MAX};
use super::{Linker, Opened};
use crate::reach::lock;

/// Links that are streams, in all and from one address: a whole company may be behind that.
const STREAMS_MAX: usize = 256;
const STREAMS_PER_PLACE_MAX: usize = 32;

/// How long a stream may take to say who it is.
const HELLO_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a session of a bridge may take for it: its messages go by requests.
const BRIDGE_HELLO_TIME_MAX: Duration = Duration::from_secs(30);

/// Connections that wait for the bridge.
const HANDED_MAX: usize = 64;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 256;

/// The wait after the system could not accept a connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What is behind the bridge: no more than for streams.
const BRIDGE: Limits = Limits {
    sessions_max: STREAMS_MAX,
    sessions_per_place_max: 64,
    openings_max: 64,
    queued_bytes_max: 32 << 20,
    probe_bytes_max: 8 << 20,
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
    let places = Arc::new(Places::default());
    for listener in listeners {
        let (linker, places, handed) = (Arc::clone(linker), Arc::clone(&places), handed.clone());
        tokio::spawn(async move {
            let stop = linker.stop.clone();
            let accepting = accept(linker, listener, places, handed);
            stop.run_until_cancelled(accepting).await;
        });
    }
    let (linker, server) = (Arc::clone(linker), Server::serve(streams, BRIDGE));
    tokio::spawn(async move {
        let stop = linker.stop.clone();
        stop.run_until_cancelled(bridge(linker, server)).await;
    });
}

async fn accept(
    linker: Arc<Linker>,
    listener: TcpListener,
    places: Arc<Places>,
    handed: mpsc::Sender<(TcpStream, IpAddr)>,
) {
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let Some(place) = Place::enter(&places, network(from.ip())) else {
            tracing::debug!(%from, "a connection too many");
            continue;
        };
        let (linker, handed) = (Arc::clone(&linker), handed.clone());
        tokio::spawn(async move {
            let stop = linker.stop.clone();
            let greeting = greet(&linker, stream, from, place, handed);
            stop.run_until_cancelled(greeting).await;
        });
    }
}

/// Finds out which of the two a connection is, and who opened it.
async fn greet(
    linker: &Arc<Linker>,
    stream: TcpStream,
    from: SocketAddr,
    place: Place,
    handed: mpsc::Sender<(TcpStream, IpAddr)>,
) {
    let deadline = tokio::time::Instant::now() + HELLO_TIME_MAX;
    let mut first = [0];
    let peeked = tokio::time::timeout_at(deadline, stream.peek(&mut first)).await;
    if !matches!(peeked, Ok(Ok(1))) {
        return;
    }
    // A method of HTTP; a link begins with the length of its first message.
    if first[0].is_ascii_uppercase() {
        // The bridge counts its own; without room there the connection ends.
        let _ = handed.try_send((stream, from.ip()));
        return;
    }
    // Where this fails it is only slower.
    let _ = stream.set_nodelay(true);
    let (mut pipe, tasks) = stream::pipe(stream);
    let accepted = hello::accept(&mut pipe, &linker.keypair);
    if let Ok(Some((peer, welcome))) = tokio::time::timeout_at(deadline, accepted).await {
        let opened = Opened {
            pipe,
            about: format!("tcp from {from}"),
            welcome: Some(welcome),
            held: Box::new((tasks, place)),
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
                let (incoming, packets) = mpsc::channel(WAITING_MAX);
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
    let (to, mut outgoing) = mpsc::channel(WAITING_MAX);
    let mut pipe = Pipe { to, from: packets };
    let forwarding = async {
        while let Some(packet) = outgoing.recv().await {
            sender.send(id, packet);
        }
    };
    let accepting = async {
        let accepted = hello::accept(&mut pipe, &linker.keypair);
        let accepted = tokio::time::timeout(BRIDGE_HELLO_TIME_MAX, accepted).await;
        if let Ok(Some((peer, welcome))) = accepted {
            let opened = Opened {
                pipe,
                about: format!("http from {from}"),
                welcome: Some(welcome),
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

/// How many streams there are of each address.
#[derive(Debug, Default)]
struct Places(Mutex<HashMap<IpAddr, usize>>);

/// One of them.
struct Place {
    from: IpAddr,
    places: Arc<Places>,
}

impl Place {
    fn enter(places: &Arc<Places>, from: IpAddr) -> Option<Self> {
        let mut counts = lock(&places.0);
        let is_full = counts.values().sum::<usize>() >= STREAMS_MAX;
        let count = counts.get(&from).copied().unwrap_or_default();
        if is_full || count >= STREAMS_PER_PLACE_MAX {
            return None;
        }
        counts.insert(from, count + 1);
        let places = Arc::clone(places);
        Some(Self { from, places })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = lock(&self.places.0);
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
        let places = Arc::new(Places::default());
        let from = |n: u16| IpAddr::from([11, 0, (n >> 8) as u8, n as u8]);
        let one: Vec<_> = (0..STREAMS_MAX)
            .filter_map(|_| Place::enter(&places, from(0)))
            .collect();
        assert_eq!(one.len(), STREAMS_PER_PLACE_MAX);
        let all: Vec<_> = (1..1_000)
            .filter_map(|n| Place::enter(&places, from(n)))
            .collect();
        assert_eq!(one.len() + all.len(), STREAMS_MAX);
        let of_one = ["2001:db8::1", "2001:db8::2:3"].map(|ip| network(ip.parse().unwrap()));
        assert_eq!(of_one[0], of_one[1]);
        drop((one, all));
        assert!(lock(&places.0).is_empty());
    }
}
