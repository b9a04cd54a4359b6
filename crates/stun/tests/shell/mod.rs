//! Sockets, a clock and threads around the server and the client, as little of each as a test
//! needs.

mod coturn;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use enishi_lab::Host;
use enishi_overlay::Time;
use enishi_stun::{
    Action, Client, ClientConfig, ClientEvent, ClientInput, ClientOutput, Counters, Input, Server,
    ServerConfig,
};

pub(crate) use coturn::{A_WHILE, Coturn, ECHO_PORT, PORT, USER};

/// How long a loop sleeps when there is nothing to do.
const NAP: Duration = Duration::from_millis(1);

/// A server that runs on a host.
pub(crate) struct Serving {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Counters>>,
}

impl Serving {
    /// Starts it; it listens when this returns.
    pub(crate) fn start(host: &Host, config: ServerConfig) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, listens) = std::sync::mpsc::channel();
        let (host, stopped) = (host.clone(), stop.clone());
        let thread = thread::spawn(move || {
            host.enter().unwrap();
            let socket = open(config.listen);
            ready.send(()).unwrap();
            serve(&socket, config, &stopped)
        });
        listens.recv_timeout(A_WHILE).unwrap();
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Stops it, and returns what it counted.
    pub(crate) fn stop(mut self) -> Counters {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn serve(socket: &UdpSocket, config: ServerConfig, stop: &AtomicBool) -> Counters {
    let started = Instant::now();
    let relay_ip = config.listen.ip();
    let mut server = Server::new(config, [7; 32]);
    let mut relays: BTreeMap<SocketAddr, UdpSocket> = BTreeMap::new();
    let mut todo: Vec<Action> = Vec::new();
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let now = time(started);
        if let Some((length, source)) = receive(socket, &mut buffer) {
            let datagram = &buffer[..length];
            todo.extend(server.handle(now, Input::FromClient { source, datagram }));
        }
        for (&relayed, relay) in &relays {
            if let Some((length, source)) = receive(relay, &mut buffer) {
                let datagram = &buffer[..length];
                let input = Input::FromPeer {
                    relayed,
                    source,
                    datagram,
                };
                todo.extend(server.handle(now, input));
            }
        }
        if server.next_timeout().is_some_and(|due| due <= now) {
            todo.extend(server.handle(now, Input::Timeout));
        }
        if todo.is_empty() {
            thread::sleep(NAP);
        }
        while !todo.is_empty() {
            for action in std::mem::take(&mut todo) {
                match action {
                    Action::ToClient { to, datagram } => {
                        let _ = socket.send_to(&datagram, to);
                    }
                    Action::ToStream { .. } => unreachable!("there is no stream"),
                    Action::ToPeer {
                        relayed,
                        to,
                        datagram,
                    } => {
                        let _ = relays[&relayed].send_to(&datagram, to);
                    }
                    Action::Open(opening) => {
                        let relay = loop {
                            let relay = open((relay_ip, 0).into());
                            let port = relay.local_addr().unwrap().port();
                            if port.is_multiple_of(2) || !opening.even_port {
                                break relay;
                            }
                        };
                        let relayed = relay.local_addr().unwrap();
                        relays.insert(relayed, relay);
                        let relayed = Some(relayed);
                        let input = Input::Opened { opening, relayed };
                        todo.extend(server.handle(now, input));
                    }
                    Action::Close(relayed) => {
                        relays.remove(&relayed);
                    }
                }
            }
        }
    }
    server.counters()
}

/// A client with its socket, in the namespace of the thread that makes it.
pub(crate) struct Calling {
    socket: UdpSocket,
    server: SocketAddr,
    client: Client,
    started: Instant,
    events: Vec<ClientEvent>,
}

impl Calling {
    /// Starts to allocate.
    pub(crate) fn start(config: ClientConfig) -> Self {
        let socket = open(config.local);
        let local = socket.local_addr().unwrap();
        let server = config.server;
        Self {
            socket,
            server,
            client: Client::new(ClientConfig { local, ..config }),
            started: Instant::now(),
            events: Vec::new(),
        }
    }

    /// Tells the client something.
    pub(crate) fn tell(&mut self, input: ClientInput<'_>) {
        let outputs: Vec<ClientOutput> = self.client.handle(time(self.started), input).collect();
        for output in outputs {
            match output {
                ClientOutput::Send(datagram) => {
                    let _ = self.socket.send_to(&datagram, self.server);
                }
                ClientOutput::Event(event) => self.events.push(event),
            }
        }
    }

    /// Runs until an event that passes, and returns it; events before it are forgotten.
    pub(crate) fn until<T>(&mut self, what: &str, pass: impl Fn(&ClientEvent) -> Option<T>) -> T {
        let start = Instant::now();
        let mut buffer = vec![0; 65_536];
        loop {
            while !self.events.is_empty() {
                let event = self.events.remove(0);
                if let Some(found) = pass(&event) {
                    return found;
                }
            }
            assert!(start.elapsed() < A_WHILE, "not within a minute: {what}");
            if let Some((length, source)) = receive(&self.socket, &mut buffer) {
                assert_eq!(source, self.server);
                self.tell(ClientInput::Datagram(&buffer[..length]));
            } else if self.client.next_timeout() <= Some(time(self.started)) {
                self.tell(ClientInput::Timeout);
                thread::sleep(NAP);
            } else {
                thread::sleep(NAP);
            }
        }
    }
}

/// Does something in the network of a host.
pub(crate) fn inside<T: Send>(host: &Host, work: impl FnOnce() -> T + Send) -> T {
    let done = thread::scope(|scope| {
        let work = scope.spawn(|| {
            host.enter().unwrap();
            work()
        });
        work.join()
    });
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn open(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Returns how long a datagram is and whose; `None` when there is none now. An ICMP error about
/// one that was sent is none.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    match socket.recv_from(buffer) {
        Ok(received) => Some(received),
        Err(error) => {
            let kind = error.kind();
            assert!(
                matches!(kind, ErrorKind::WouldBlock | ErrorKind::ConnectionRefused),
                "{error}"
            );
            None
        }
    }
}

fn time(started: Instant) -> Time {
    Time::ZERO + started.elapsed()
}
