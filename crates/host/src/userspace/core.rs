//! The sockets of a stack, and what is to be done with each packet.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::Waker;
use std::time::{Duration, Instant};

use enishi_dataplane::device::Port;
use enishi_dataplane::packet::{IpPacket, protocol};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::{Duration as SmoltcpDuration, Instant as SmoltcpInstant};
use smoltcp::wire::{HardwareAddress, IpCidr, IpListenEndpoint};

use super::link::Link;
use super::{BACKLOG_MAX, BUFFER_BYTES, SOCKETS_MAX};

/// How many packets are taken at once, before others have the lock.
const PACKETS_AT_ONCE: usize = 64;

/// After how long without traffic a connection is asked for a sign of life, and after how long
/// without any it is given up.
const KEEP_ALIVE: SmoltcpDuration = SmoltcpDuration::from_secs(60);
const SILENCE_MAX: SmoltcpDuration = SmoltcpDuration::from_secs(120);

/// How long a connection that nobody uses any more may take to end.
const LINGER_MAX: Duration = Duration::from_secs(30);

/// The ports that are given to whoever names none (RFC 6335, section 6).
const PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;

/// Flags of TCP (RFC 9293, section 3.1).
const TCP_FLAGS_AT: usize = 13;
const SYN: u8 = 0x02;
const SYN_RST_ACK: u8 = 0x16;

/// Everything of a stack that is behind its lock.
pub(super) struct Core {
    pub(super) interface: Interface,
    pub(super) sockets: SocketSet<'static>,
    pub(super) addresses: [IpAddr; 2],
    /// How many sockets there are.
    pub(super) count: usize,
    /// Where connections are taken, by port.
    pub(super) listeners: BTreeMap<u16, Waiting>,
    /// Connections that are being made to this node, and from whom.
    incoming: Vec<(SocketHandle, SocketAddr)>,
    /// Connections that nobody uses any more, and when they are given up.
    lingering: Vec<(SocketHandle, Instant)>,
    /// Connections of this node to addresses that nobody has.
    pub(super) unreachable: Vec<SocketHandle>,
    next_port: u16,
    mtu: u16,
    started: Instant,
}

/// Connections to a port that stand and were not taken yet, [`BACKLOG_MAX`] at most.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) ready: VecDeque<(SocketHandle, SocketAddr)>,
    pub(super) taker: Option<Waker>,
}

impl Waiting {
    fn wake(&mut self) {
        if let Some(taker) = self.taker.take() {
            taker.wake();
        }
    }
}

/// When there is something to do again.
pub(super) enum Next {
    /// At once.
    Now,
    /// After a time, or when something comes.
    After(Duration),
    /// When something comes.
    Idle,
}

impl Core {
    pub(super) fn new(addresses: [(IpAddr, u8); 2], mtu: u16) -> io::Result<Self> {
        let mut link = Link {
            port: None,
            received: VecDeque::new(),
            mtu,
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed =
            getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        let next_port = PORTS.start() + (config.random_seed % PORTS.len() as u64) as u16;
        let mut interface = Interface::new(config, &mut link, SmoltcpInstant::ZERO);
        interface.update_ip_addrs(|own| {
            for (address, prefix) in addresses {
                // There is room for two.
                let _ = own.push(IpCidr::new(address.into(), prefix));
            }
        });
        Ok(Self {
            interface,
            sockets: SocketSet::new(Vec::new()),
            addresses: addresses.map(|(address, _)| address),
            count: 0,
            listeners: BTreeMap::new(),
            incoming: Vec::new(),
            lingering: Vec::new(),
            unreachable: Vec::new(),
            next_port,
            mtu,
            started: Instant::now(),
        })
    }

    /// Adds a socket.
    pub(super) fn add<T: smoltcp::socket::AnySocket<'static>>(
        &mut self,
        socket: T,
    ) -> io::Result<SocketHandle> {
        if self.count >= SOCKETS_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.count += 1;
        Ok(self.sockets.add(socket))
    }

    pub(super) fn remove(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
        self.count -= 1;
    }

    pub(super) fn add_tcp(&mut self) -> io::Result<SocketHandle> {
        if self.count >= SOCKETS_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let buffer = || SocketBuffer::new(vec![0; BUFFER_BYTES]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_congestion_control(CongestionControl::Cubic);
        socket.set_nagle_enabled(false);
        socket.set_keep_alive(Some(KEEP_ALIVE));
        socket.set_timeout(Some(SILENCE_MAX));
        self.add(socket)
    }

    /// Returns a port for whoever names none. There are more of them than sockets.
    pub(super) fn free_port(&mut self) -> u16 {
        loop {
            let port = self.next_port;
            self.next_port = match port {
                u16::MAX => *PORTS.start(),
                port => port + 1,
            };
            if !self.has_port(port) && !self.listeners.contains_key(&port) {
                return port;
            }
        }
    }

    /// Tells whether a socket uses a port of this node.
    pub(super) fn has_port(&self, port: u16) -> bool {
        self.sockets.iter().any(|(_, socket)| match socket {
            smoltcp::socket::Socket::Tcp(socket) => socket
                .local_endpoint()
                .is_some_and(|local| local.port == port),
            smoltcp::socket::Socket::Udp(socket) => socket.endpoint().port == port,
        })
    }

    /// Returns this node's address of the family of another.
    pub(super) fn own_address(&self, other: IpAddr) -> Option<IpAddr> {
        let mut own = self.addresses.into_iter();
        own.find(|own| own.is_ipv4() == other.is_ipv4())
    }

    /// Lets a connection that nobody uses any more come to its end, or breaks it off.
    pub(super) fn let_go(&mut self, handle: SocketHandle, breaks: bool) {
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        match socket.recv_queue() {
            0 if !breaks => socket.close(),
            // The other is to know that nobody reads what it sends (RFC 2525, section 2.17).
            _ => socket.abort(),
        }
        self.lingering.push((handle, Instant::now() + LINGER_MAX));
    }

    /// Takes what has arrived, sends what is to be sent, and hands out new connections.
    pub(super) fn poll(&mut self, port: &Port) -> Next {
        let mut received = VecDeque::with_capacity(PACKETS_AT_ONCE);
        while received.len() < PACKETS_AT_ONCE
            && let Some(packet) = port.receive()
        {
            self.look_at(&packet);
            received.push_back(packet);
        }
        let is_full = received.len() == PACKETS_AT_ONCE;
        let now = SmoltcpInstant::from_micros(self.started.elapsed().as_micros() as i64);
        let mut link = Link {
            port: Some(port),
            received,
            mtu: self.mtu,
        };
        self.interface.poll(now, &mut link, &mut self.sockets);
        self.hand_out();
        self.bury();
        if is_full {
            return Next::Now;
        }
        match self.interface.poll_delay(now, &self.sockets) {
            // The engine's queue is full.
            Some(SmoltcpDuration::ZERO) => Next::After(Duration::from_millis(1)),
            Some(delay) => Next::After(delay.into()),
            None if self.lingering.is_empty() => Next::Idle,
            None => Next::After(LINGER_MAX),
        }
    }

    /// Breaks all connections off, and tells the others so.
    pub(super) fn end(&mut self, port: &Port) {
        for waiting in self.listeners.values_mut() {
            waiting.wake();
        }
        for (_, socket) in self.sockets.iter_mut() {
            match socket {
                smoltcp::socket::Socket::Tcp(socket) => socket.abort(),
                smoltcp::socket::Socket::Udp(socket) => socket.close(),
            }
        }
        self.poll(port);
    }

    /// Looks at a packet before smoltcp does.
    fn look_at(&mut self, packet: &[u8]) {
        let Ok(packet) = IpPacket::parse(packet) else {
            return;
        };
        match packet.protocol() {
            _ if packet.is_fragment() => {}
            protocol::TCP => self.expect(&packet),
            protocol::ICMP | protocol::ICMPV6 => self.learn_error(&packet),
            _ => {}
        }
    }

    /// Makes a socket for a connection that somebody opens to a port where it is waited for.
    fn expect(&mut self, packet: &IpPacket<'_>) {
        let tcp = packet.payload();
        let (Some([s0, s1, d0, d1]), Some(flags)) = (tcp.first_chunk(), tcp.get(TCP_FLAGS_AT))
        else {
            return;
        };
        let from = SocketAddr::new(packet.source(), u16::from_be_bytes([*s0, *s1]));
        let port = u16::from_be_bytes([*d0, *d1]);
        let is_new = flags & SYN_RST_ACK == SYN
            && self.incoming.iter().all(|(_, other)| *other != from)
            && !self.is_connected(from, port);
        let has_room = self.incoming.len() < BACKLOG_MAX;
        if !is_new || !has_room || !self.listeners.contains_key(&port) {
            return;
        }
        // Without a socket the other is told that nobody listens.
        let Ok(handle) = self.add_tcp() else { return };
        let local = IpListenEndpoint {
            addr: Some(packet.destination().into()),
            port,
        };
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        match socket.listen(local) {
            Ok(()) => self.incoming.push((handle, from)),
            Err(_) => self.remove(handle),
        }
    }

    fn is_connected(&self, remote: SocketAddr, port: u16) -> bool {
        self.sockets.iter().any(|(_, socket)| match socket {
            smoltcp::socket::Socket::Tcp(socket) => {
                socket.remote_endpoint() == Some(remote.into())
                    && socket.local_endpoint().is_some_and(|own| own.port == port)
            }
            smoltcp::socket::Socket::Udp(_) => false,
        })
    }

    /// Notes that nobody has the address to which a connection is being made: destination
    /// unreachable (RFC 792; RFC 4443, section 3.1). Others are as good as silence, since a
    /// connection that stands survives them (RFC 1122, section 4.2.3.9).
    fn learn_error(&mut self, packet: &IpPacket<'_>) {
        let unreachable = if packet.is_v4() { 3 } else { 1 };
        let Some(([kind, ..], quoted)) = packet.payload().split_first_chunk::<8>() else {
            return;
        };
        let Some((local, remote)) = quoted_connection(quoted).filter(|_| *kind == unreachable)
        else {
            return;
        };
        for (handle, socket) in self.sockets.iter_mut() {
            if let smoltcp::socket::Socket::Tcp(socket) = socket
                && socket.state() == State::SynSent
                && socket.local_endpoint() == Some(local.into())
                && socket.remote_endpoint() == Some(remote.into())
            {
                socket.abort();
                self.unreachable.push(handle);
            }
        }
    }

    /// Hands connections that stand to whoever takes them.
    fn hand_out(&mut self) {
        for (handle, from) in std::mem::take(&mut self.incoming) {
            let socket = self.sockets.get_mut::<Socket<'_>>(handle);
            match socket.state() {
                State::SynReceived => self.incoming.push((handle, from)),
                // It was none, or was taken back.
                State::Listen | State::Closed => self.remove(handle),
                _ => {
                    let port = socket.local_endpoint().map(|local| local.port);
                    let waiting = port.and_then(|port| self.listeners.get_mut(&port));
                    match waiting.filter(|waiting| waiting.ready.len() < BACKLOG_MAX) {
                        Some(waiting) => {
                            waiting.ready.push_back((handle, from));
                            waiting.wake();
                        }
                        None => {
                            socket.abort();
                            self.let_go(handle, false);
                        }
                    }
                }
            }
        }
    }

    /// Removes connections that have ended.
    fn bury(&mut self) {
        let now = Instant::now();
        for (handle, until) in std::mem::take(&mut self.lingering) {
            let socket = self.sockets.get_mut::<Socket<'_>>(handle);
            // A reset is sent by a socket that is closed and still has its ends.
            let has_ended = match socket.state() {
                State::Closed => socket.remote_endpoint().is_none(),
                State::TimeWait => true,
                _ => false,
            };
            match has_ended {
                true => self.remove(handle),
                false if now >= until && socket.state() == State::Closed => self.remove(handle),
                false => {
                    if now >= until {
                        socket.abort();
                    }
                    self.lingering.push((handle, until));
                }
            }
        }
    }
}

/// Reads which connection the packet in an ICMP error is of: this node's end and the other.
fn quoted_connection(quoted: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let version = quoted.first()? >> 4;
    let address = |at: usize| -> Option<IpAddr> {
        Some(match version {
            4 => <[u8; 4]>::try_from(quoted.get(at..at + 4)?).ok()?.into(),
            _ => <[u8; 16]>::try_from(quoted.get(at..at + 16)?).ok()?.into(),
        })
    };
    // Its length is that of the whole packet, of which this is the beginning.
    let (next, source, destination, transport_at) = match version {
        4 => (9, 12, 16, usize::from(quoted.first()? & 0x0f) * 4),
        6 => (6, 8, 24, 40),
        _ => return None,
    };
    let ports: &[u8; 4] = quoted.get(transport_at..)?.first_chunk()?;
    let [s0, s1, d0, d1] = *ports;
    let is_tcp = *quoted.get(next)? == protocol::TCP;
    is_tcp.then_some((
        SocketAddr::new(address(source)?, u16::from_be_bytes([s0, s1])),
        SocketAddr::new(address(destination)?, u16::from_be_bytes([d0, d1])),
    ))
}
