//! How the programs of this node itself reach a channel: by the kernel's sockets where it has
//! a network interface, by those of a user-space network otherwise.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use crate::userspace::{self, Stack};

/// How long a connection by the kernel's sockets may take to be made.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);

/// How many connections wait at a port of the kernel.
const BACKLOG: u32 = 64;

/// The way into a channel.
#[derive(Clone)]
pub enum Reach {
    /// The kernel routes it; this node's addresses.
    Kernel([IpAddr; 2]),
    /// A user-space network.
    Userspace(Stack),
}

/// A connection of either kind.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send {
    /// Has the connection break off when it is dropped (RST), where it would end in good order:
    /// the other is not to take what it got for all.
    fn break_off(&self);
}

impl Connection for TcpStream {
    fn break_off(&self) {
        // What is no connection any more has broken off.
        let _ = self.set_zero_linger();
    }
}

impl Connection for userspace::Stream {
    fn break_off(&self) {
        self.break_when_dropped();
    }
}

impl Reach {
    /// Tells whether it is the same way still.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Kernel(one), Self::Kernel(other)) => one == other,
            (Self::Userspace(one), Self::Userspace(other)) => one.is_same(other),
            (Self::Kernel(_), Self::Userspace(_)) | (Self::Userspace(_), Self::Kernel(_)) => false,
        }
    }

    /// Connects to a member, from this node's address.
    ///
    /// # Errors
    /// As the system or [`Stack::connect`] tell.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<Box<dyn Connection>> {
        match self {
            Self::Kernel(own) => {
                let connecting = connect_by_kernel(*own, to);
                let connected = tokio::time::timeout(CONNECT_TIME_MAX, connecting).await;
                connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            }
            Self::Userspace(stack) => Ok(Box::new(stack.connect(to).await?)),
        }
    }

    /// Takes connections to a port of this node's addresses.
    ///
    /// # Errors
    /// When the port is in use.
    pub fn listen(&self, port: u16) -> io::Result<Listener> {
        match self {
            Self::Kernel([four, six]) => Ok(Listener::Kernel(
                listen_by_kernel(SocketAddr::new(*four, port))?,
                // The interface may be without IPv6.
                listen_by_kernel(SocketAddr::new(*six, port)).ok(),
            )),
            Self::Userspace(stack) => stack.listen(port).map(Listener::Userspace),
        }
    }

    /// Opens a socket for datagrams to and from addresses of the family of `other`, at a port
    /// of this node, or at any for 0.
    ///
    /// # Errors
    /// When the port is in use.
    pub async fn bind(&self, port: u16, other: IpAddr) -> io::Result<Datagrams> {
        match self {
            Self::Kernel(own) => {
                let own = of_family(*own, other)?;
                let socket = UdpSocket::bind(SocketAddr::new(own, port)).await?;
                Ok(Datagrams::Kernel(socket))
            }
            Self::Userspace(stack) => stack.bind(port).map(Datagrams::Userspace),
        }
    }
}

/// Where connections are taken.
pub enum Listener {
    /// At each address.
    Kernel(TcpListener, Option<TcpListener>),
    /// At both.
    Userspace(userspace::Listener),
}

impl Listener {
    /// Waits for a connection, and tells from where it is.
    ///
    /// # Errors
    /// When there will be none any more, or the system has no file descriptor left.
    pub async fn accept(&mut self) -> io::Result<(Box<dyn Connection>, SocketAddr)> {
        match self {
            Self::Kernel(four, six) => {
                let six = async {
                    match six {
                        Some(six) => six.accept().await,
                        None => std::future::pending().await,
                    }
                };
                let (stream, from) = tokio::select! {
                    accepted = four.accept() => accepted?,
                    accepted = six => accepted?,
                };
                stream.set_nodelay(true)?;
                Ok((Box::new(stream), from))
            }
            Self::Userspace(listener) => {
                let (stream, from) = listener.accept().await?;
                Ok((Box::new(stream), from))
            }
        }
    }
}

/// A socket for datagrams.
pub enum Datagrams {
    /// Of the kernel.
    Kernel(UdpSocket),
    /// Of a user-space network.
    Userspace(userspace::Socket),
}

impl Datagrams {
    /// Sends a datagram.
    ///
    /// # Errors
    /// When the network is down, or the address makes no sense.
    pub async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        match self {
            Self::Kernel(socket) => socket.send_to(datagram, to).await.map(drop),
            Self::Userspace(socket) => socket.send_to(datagram, to),
        }
    }

    /// Waits for a datagram, and returns its length and from whom it is.
    ///
    /// # Errors
    /// When the network is down. An ICMP error about what was sent is none.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self {
            Self::Kernel(socket) => loop {
                match socket.recv_from(buffer).await {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    received => return received,
                }
            },
            Self::Userspace(socket) => socket.recv_from(buffer).await,
        }
    }
}

async fn connect_by_kernel(own: [IpAddr; 2], to: SocketAddr) -> io::Result<Box<dyn Connection>> {
    let socket = socket_for(to)?;
    socket.bind(SocketAddr::new(of_family(own, to.ip())?, 0))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

fn listen_by_kernel(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket_for(at)?;
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

fn socket_for(address: SocketAddr) -> io::Result<TcpSocket> {
    match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
}

fn of_family(own: [IpAddr; 2], other: IpAddr) -> io::Result<IpAddr> {
    let mut own = own.into_iter();
    let own = own.find(|own| own.is_ipv4() == other.is_ipv4());
    own.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}
