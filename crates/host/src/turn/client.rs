//! An address of this node at somebody's TURN server: sessions come in there that find no other way.
//!
//! ```text
//!   peer ── UDP ──> relayed address │ server ── TURN ──> task ── socket of the peer ──> sessions
//!        <──────────                │        <────────        <── (on loopback) ───────
//! ```
//!
//! The peer knows nothing of TURN: to it, the relayed address is one more at which this node is
//! dialled. The server lets in whom this node permits, by address. Those are permitted with whom this
//! node exchanges a call (`services/src/reach/call.rs`), so that who reaches it otherwise never comes
//! this way. To the sessions, each peer is a socket on loopback; that it is none of this host,
//! [`Relayed`] tells.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use enishi_stun::{
    Client, ClientConfig, ClientEvent, ClientInput, ClientOutput, Credentials, Family, Leg, Loss,
};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::line::Line;
use super::permits::{Permits, Wish};
use super::places::{Place, place};
use super::url::ServerUrl;
use super::{DATAGRAM_BYTES_MAX, lock, time};
use crate::session::Relayed;

/// The most wishes that wait.
const WISHES_MAX: usize = 64;

/// For how long a peer without a datagram keeps its socket.
const PEER_IDLE_MAX: Duration = Duration::from_secs(180);

/// How often it is looked for those.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// After a socket is gone, sessions may be on its address for so long.
const ALIAS_MAX: Duration = Duration::from_secs(60);

/// The most datagrams of the sessions that wait for the task; further ones are lost.
const OUTGOING_MAX: usize = 512;

/// The pause before a server is tried again, doubled each time.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);

/// How a server is, and what passed by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The address at which this node is reached by it, while there is one.
    pub relayed: Option<SocketAddr>,
    /// Why there was none the last time; none while there is, or before the first answer.
    pub trouble: Option<Trouble>,
    /// How many peers come by it.
    pub peers: usize,
    /// Octets to peers, since the start.
    pub sent_bytes: u64,
    /// Octets from peers.
    pub received_bytes: u64,
}

/// Why a server does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Its name has no address.
    NoAddress,
    /// It is not reached, as the system says.
    Unreachable(String),
    /// It does not answer.
    Silent,
    /// It was restarted.
    Forgotten,
    /// It refuses with this code: 401 tells of a wrong name or password, 486 of too many allocations
    /// of the user, 508 of too many at all.
    Refused(u16),
}

/// A server that this node uses, until it is dropped. Then the server is told, once.
pub struct Used {
    url: ServerUrl,
    progress: Arc<Mutex<Progress>>,
    wishes: mpsc::Sender<IpAddr>,
    stop: CancellationToken,
}

impl Drop for Used {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Used {
    /// Begins to use a server, within a tokio runtime. `inside` is where the sessions take datagrams,
    /// `changed` is told of each new relayed address.
    pub fn start(
        url: ServerUrl,
        credentials: Credentials,
        inside: SocketAddr,
        relayed: Relayed,
        changed: watch::Sender<u64>,
    ) -> Self {
        let progress: Arc<Mutex<Progress>> = Arc::default();
        let (wishes, wishes_inlet) = mpsc::channel(WISHES_MAX);
        let (outgoing, outgoing_inlet) = mpsc::channel(OUTGOING_MAX);
        let stop = CancellationToken::new();
        let user = User {
            stop: stop.clone(),
            server: format!("turn {}", url.server()).into(),
            url: url.clone(),
            credentials,
            inside,
            relayed,
            changed,
            progress: Arc::clone(&progress),
            wishes: wishes_inlet,
            permits: Permits::default(),
            outgoing,
            outgoing_inlet,
            peers: BTreeMap::new(),
        };
        tokio::spawn(user.run());
        Self {
            url,
            progress,
            wishes,
            stop,
        }
    }

    /// Returns which server it is.
    pub fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// Returns how it is.
    pub fn progress(&self) -> Progress {
        lock(&self.progress).clone()
    }

    /// Lets a peer in. Never waits; without room the next call brings another wish.
    pub fn permit(&self, peer: IpAddr) {
        let _ = self.wishes.try_send(peer);
    }
}

/// Returns where sessions that listen at these addresses take datagrams of this host.
pub fn inside(listening: &[SocketAddr]) -> Option<SocketAddr> {
    let first = listening.iter().find(|at| at.is_ipv4());
    let first = first.or(listening.first())?;
    let ip = match first.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Some(SocketAddr::new(ip, first.port()))
}

/// What the task has.
struct User {
    stop: CancellationToken,
    server: Arc<str>,
    url: ServerUrl,
    credentials: Credentials,
    inside: SocketAddr,
    relayed: Relayed,
    changed: watch::Sender<u64>,
    progress: Arc<Mutex<Progress>>,
    wishes: mpsc::Receiver<IpAddr>,
    permits: Permits,
    outgoing: mpsc::Sender<(SocketAddr, Vec<u8>)>,
    outgoing_inlet: mpsc::Receiver<(SocketAddr, Vec<u8>)>,
    peers: BTreeMap<SocketAddr, Peer>,
}

/// A peer that comes by the server.
struct Peer {
    socket: Arc<UdpSocket>,
    local: SocketAddr,
    /// What the sessions are told of it, of this socket alone.
    told: Arc<str>,
    task: AbortHandle,
    used: Instant,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One allocation, or the attempt at one.
struct Attempt {
    line: Line,
    client: Client,
    started: Instant,
    /// Why it is over; none when this node gave it up.
    over: Option<Option<Trouble>>,
}

impl User {
    async fn run(mut self) {
        let stop = self.stop.clone();
        let mut pause = RETRY_FIRST;
        loop {
            let attempt = tokio::select! {
                () = stop.cancelled() => return,
                attempt = self.attempt() => attempt,
            };
            let trouble = match attempt {
                Ok(mut attempt) => {
                    let trouble = self.serve(&mut attempt).await;
                    if self.progress().relayed.is_some() {
                        pause = RETRY_FIRST;
                    }
                    trouble
                }
                Err(trouble) => Some(trouble),
            };
            tracing::debug!(?trouble, "a TURN server does not serve");
            self.lose(trouble);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(RETRY_LAST);
        }
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        lock(&self.progress)
    }

    /// Opens a way to the server.
    async fn attempt(&self) -> Result<Attempt, Trouble> {
        let (host, port) = self.url.place();
        let found = tokio::net::lookup_host((host, port)).await;
        let found: Vec<SocketAddr> = found.map_err(|_| Trouble::NoAddress)?.collect();
        let first = found.iter().find(|at| at.is_ipv4());
        let server = *first.or(found.first()).ok_or(Trouble::NoAddress)?;
        let family = match server {
            SocketAddr::V4(_) => Family::V4,
            SocketAddr::V6(_) => Family::V6,
        };
        let leg = self.url.leg();
        let opened = Line::open(server, leg).await;
        let (line, local) = opened.map_err(|error| Trouble::Unreachable(error.to_string()))?;
        let client = Client::new(ClientConfig {
            server,
            local,
            credentials: self.credentials.clone(),
            family,
            leg,
        });
        Ok(Attempt {
            line,
            client,
            started: Instant::now(),
            over: None,
        })
    }

    /// Uses an allocation until it ends.
    async fn serve(&mut self, attempt: &mut Attempt) -> Option<Trouble> {
        let stop = self.stop.clone();
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.tell(attempt, ClientInput::Timeout);
        loop {
            if let Some(over) = attempt.over.take() {
                return over;
            }
            let due = attempt.client.next_timeout();
            let wait = due.map(|due| due.since(time(attempt.started)));
            tokio::select! {
                // The server keeps the address for minutes if it is not told.
                () = stop.cancelled() => self.tell(attempt, ClientInput::Release),
                received = attempt.line.receive() => match received {
                    Ok(message) => self.tell(attempt, ClientInput::Datagram(&message)),
                    // Anybody can forge that; the protocol asks again, and finds out.
                    Err(error) if is_of_icmp(error.kind()) && self.url.leg() == Leg::Udp => {}
                    Err(error) => return Some(Trouble::Unreachable(error.to_string())),
                },
                Some((peer, octets)) = self.outgoing_inlet.recv() => {
                    self.progress().sent_bytes += octets.len() as u64;
                    self.tell(attempt, ClientInput::Send { peer, octets: &octets });
                }
                Some(peer) = self.wishes.recv() => self.wish(attempt, peer),
                _ = sweep.tick() => self.sweep(),
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {
                    self.tell(attempt, ClientInput::Timeout);
                }
            }
        }
    }

    /// Lets a peer in if it can.
    fn wish(&mut self, attempt: &mut Attempt, peer: IpAddr) {
        let is_allocated = attempt.client.relayed().is_some();
        match self.permits.wish(Instant::now(), peer, is_allocated) {
            Wish::Noted => {}
            Wish::Permit => self.tell(attempt, ClientInput::Permit(peer)),
            Wish::Release => self.tell(attempt, ClientInput::Release),
        }
    }

    /// Tells the protocol machine something, and does what it wants.
    fn tell(&mut self, attempt: &mut Attempt, input: ClientInput<'_>) {
        let now = time(attempt.started);
        let outputs: Vec<ClientOutput> = attempt.client.handle(now, input).collect();
        for output in outputs {
            match output {
                ClientOutput::Send(message) => {
                    if attempt.line.send(message).is_err() {
                        let why = "the server takes nothing".to_owned();
                        attempt.over = Some(Some(Trouble::Unreachable(why)));
                    }
                }
                ClientOutput::Event(event) => self.on_event(attempt, event),
            }
        }
    }

    fn on_event(&mut self, attempt: &mut Attempt, event: ClientEvent) {
        match event {
            ClientEvent::Allocated { relayed, .. } => {
                tracing::info!("a TURN server relays for this node");
                let mut progress = self.progress();
                (progress.relayed, progress.trouble) = (Some(relayed), None);
                drop(progress);
                self.changed.send_modify(|count| *count += 1);
                for peer in self.permits.begin() {
                    self.tell(attempt, ClientInput::Permit(peer));
                }
            }
            ClientEvent::Data { peer, octets } => self.came(attempt, peer, &octets),
            ClientEvent::NotPermitted(peer) => {
                self.permits.refused(peer);
                tracing::debug!("a TURN server does not let a peer in");
            }
            ClientEvent::Lost(loss) => {
                attempt.over = Some(match loss {
                    Loss::Silent => Some(Trouble::Silent),
                    Loss::Forgotten => Some(Trouble::Forgotten),
                    Loss::Refused(code) => Some(Trouble::Refused(code)),
                    Loss::Released => None,
                });
            }
            // Without a channel data goes all the same, with some octets more.
            ClientEvent::Permitted(_)
            | ClientEvent::Bound(_)
            | ClientEvent::NotBound(_)
            | ClientEvent::NotSent(_) => {}
        }
    }

    /// Hands what a peer sent to the sessions.
    fn came(&mut self, attempt: &mut Attempt, from: SocketAddr, octets: &[u8]) {
        if !self.peers.contains_key(&from) {
            if !self.make_room(from) {
                return;
            }
            match self.open(from) {
                Ok(peer) => {
                    self.peers.insert(from, peer);
                    self.progress().peers = self.peers.len();
                    self.tell(attempt, ClientInput::Bind(from));
                }
                Err(error) => {
                    tracing::warn!(%error, "no socket for a peer that a TURN server relays");
                    return;
                }
            }
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.used = Instant::now();
            // Without room it is lost, as on any network.
            let _ = peer.socket.try_send(octets);
            self.progress().received_bytes += octets.len() as u64;
        }
    }

    /// Makes room for a new peer. Tells whether there is some.
    fn make_room(&mut self, new: SocketAddr) -> bool {
        let taken = self.peers.iter().map(|(at, peer)| (*at, peer.used));
        match place(taken, new, Instant::now()) {
            Place::Free => true,
            Place::Of(idle) => {
                let idle = self.peers.remove(&idle);
                idle.inspect(|idle| self.end(idle)).is_some()
            }
            Place::None => false,
        }
    }

    /// Opens the socket that stands for a peer.
    fn open(&self, peer: SocketAddr) -> io::Result<Peer> {
        let socket = std::net::UdpSocket::bind((self.inside.ip(), 0))?;
        socket.connect(self.inside)?;
        socket.set_nonblocking(true)?;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        let local = socket.local_addr()?;
        let told: Arc<str> = self.server.as_ref().into();
        self.relayed.add(local, Arc::clone(&told));
        let task = hand_on(Arc::clone(&socket), peer, self.outgoing.clone());
        Ok(Peer {
            local,
            told,
            task: tokio::spawn(task).abort_handle(),
            socket,
            used: Instant::now(),
        })
    }

    /// Closes the sockets of those who are gone.
    fn sweep(&mut self) {
        let now = Instant::now();
        let is_idle =
            |_: &SocketAddr, peer: &mut Peer| now.duration_since(peer.used) >= PEER_IDLE_MAX;
        let idle: Vec<_> = self.peers.extract_if(.., is_idle).collect();
        idle.into_iter().for_each(|(_, peer)| self.end(&peer));
        self.progress().peers = self.peers.len();
    }

    /// There is no allocation any more.
    fn lose(&mut self, trouble: Option<Trouble>) {
        self.permits.end();
        let peers = std::mem::take(&mut self.peers);
        for (at, peer) in &peers {
            // Who came by it is to find the next one open.
            self.permits.note(peer.used, at.ip());
            self.end(peer);
        }
        let mut progress = self.progress();
        let was = progress.relayed.take();
        (progress.trouble, progress.peers) = (trouble, 0);
        drop(progress);
        if was.is_some() {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    fn end(&self, peer: &Peer) {
        let (relayed, local) = (self.relayed.clone(), peer.local);
        let told = Arc::clone(&peer.told);
        tokio::spawn(async move {
            tokio::time::sleep(ALIAS_MAX).await;
            relayed.remove(local, &told);
        });
    }
}

impl Drop for User {
    fn drop(&mut self) {
        for peer in self.peers.values() {
            self.relayed.remove(peer.local, &peer.told);
        }
    }
}

/// Tells whether a socket has an error because somebody on the way said so (ICMP): nobody has the port,
/// or the way is down for a while.
fn is_of_icmp(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(
        kind,
        ConnectionRefused | HostUnreachable | NetworkUnreachable
    )
}

/// Hands on what the sessions send to a peer.
async fn hand_on(
    socket: Arc<UdpSocket>,
    peer: SocketAddr,
    outgoing: mpsc::Sender<(SocketAddr, Vec<u8>)>,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        match socket.recv(&mut buffer).await {
            Ok(length) => {
                let sent = outgoing.try_send((peer, buffer[..length].to_vec()));
                // Without room it is lost, as on any network.
                if let Err(mpsc::error::TrySendError::Closed(_)) = sent {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_on_all_interfaces_are_reached_on_loopback() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let listening = [at("[::]:5"), at("0.0.0.0:4")];
        assert_eq!(inside(&listening), Some(at("127.0.0.1:4")));
        assert_eq!(inside(&listening[..1]), Some(at("[::1]:5")));
        let one = [at("192.168.1.2:4")];
        assert_eq!(inside(&one), Some(one[0]));
        assert_eq!(inside(&[]), None);
    }
}
