//! The SOCKS 5 proxy: connections, and datagrams as long as the connection that asked for them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use enishi_services::vnet::ChannelId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::super::desk::Desk;
use super::destination::{Destination, Refusal};
use super::forwarding::DATAGRAM_BYTES_MAX;
use super::{Place, join};
use crate::packets::Datagrams;
use crate::socks::{self, Command, MESSAGE_BYTES_MAX, Reply, Request, SocksError};

/// How long a client may take to say what it wants.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// The most sockets of one client's datagrams: one for each channel and family.
const SOCKETS_MAX: usize = 16;

const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Serves one client.
pub(super) async fn serve(desk: Desk, mut client: TcpStream, _place: Place) -> io::Result<()> {
    client.set_nodelay(true)?;
    let handshake = tokio::time::timeout(HANDSHAKE_TIME_MAX, handshake(&mut client));
    let Some(request) = handshake.await?? else {
        return Ok(());
    };
    match request.command {
        Command::Connect => connect(&desk, client, request).await,
        Command::Associate => associate(&desk, client).await,
        Command::Other(_) => answer(&mut client, Reply::CommandUnknown, NOWHERE).await,
    }
}

/// Reads greeting and request; none when the client was turned away.
async fn handshake(client: &mut TcpStream) -> io::Result<Option<Request>> {
    let mut read = Vec::new();
    let (greeting, accepted) = read_message(client, &mut read, |octets| {
        let (answer, accepted, length) = socks::greeting(octets)?;
        Ok(((answer, accepted), length))
    })
    .await?
    .map_err(io::Error::other)?;
    client.write_all(&greeting).await?;
    if !accepted {
        return Ok(None);
    }
    match read_message(client, &mut read, Request::decode).await? {
        Ok(request) => Ok(Some(request)),
        Err(SocksError::AddressKind) => {
            answer(client, Reply::AddressKindUnknown, NOWHERE).await?;
            Ok(None)
        }
        Err(error) => Err(io::Error::other(error)),
    }
}

/// Reads octet after octet what a message needs, so that none of what follows is taken.
async fn read_message<T>(
    client: &mut TcpStream,
    read: &mut Vec<u8>,
    decode: impl Fn(&[u8]) -> Result<(T, usize), SocksError>,
) -> io::Result<Result<T, SocksError>> {
    read.clear();
    while read.len() < MESSAGE_BYTES_MAX {
        read.push(client.read_u8().await?);
        match decode(read) {
            Ok((message, _)) => return Ok(Ok(message)),
            Err(SocksError::Truncated) => {}
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Err(SocksError::Truncated))
}

async fn connect(desk: &Desk, mut client: TcpStream, request: Request) -> io::Result<()> {
    let destination = match Destination::find(desk, request.host, request.port).await {
        Ok(destination) => destination,
        Err(refusal) => {
            tracing::debug!(%refusal, "a SOCKS client was refused");
            return answer(&mut client, of_refusal(&refusal), NOWHERE).await;
        }
    };
    match destination.connect().await {
        Ok(mut member) => {
            answer(&mut client, Reply::Succeeded, NOWHERE).await?;
            join(&mut client, &mut *member).await
        }
        Err(error) => answer(&mut client, of_error(&error), NOWHERE).await,
    }
}

async fn answer(client: &mut TcpStream, reply: Reply, bound: SocketAddr) -> io::Result<()> {
    client.write_all(&socks::reply(reply, bound)).await
}

fn of_refusal(refusal: &Refusal) -> Reply {
    match refusal {
        Refusal::Outside(_) | Refusal::Own(_) => Reply::NotAllowed,
        Refusal::Unknown(_) => Reply::HostUnreachable,
        Refusal::NoNetwork => Reply::NetworkUnreachable,
        Refusal::Stopping => Reply::Failed,
    }
}

fn of_error(error: &io::Error) -> Reply {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Reply::Refused,
        io::ErrorKind::HostUnreachable => Reply::HostUnreachable,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => Reply::NetworkUnreachable,
        io::ErrorKind::TimedOut => Reply::TimedOut,
        _ => Reply::Failed,
    }
}

/// Relays datagrams until the client ends the connection (RFC 1928, section 7).
async fn associate(desk: &Desk, mut client: TcpStream) -> io::Result<()> {
    // A listener of both families has IPv4 in the form of IPv6, of which the client knows nothing.
    let at = client.local_addr()?.ip().to_canonical();
    let socket = UdpSocket::bind(SocketAddr::new(at, 0)).await?;
    answer(&mut client, Reply::Succeeded, socket.local_addr()?).await?;
    let host = client.peer_addr()?.ip().to_canonical();
    let association = Association {
        desk: desk.clone(),
        socket: Arc::new(socket),
        sockets: BTreeMap::new(),
        readers: JoinSet::new(),
    };
    let mut rest = [0; 64];
    let ended = async {
        // Nothing more is to come by the connection; when it ends, so does this.
        while let Ok(1..) = client.read(&mut rest).await {}
    };
    tokio::select! {
        result = association.relay(host) => result,
        () = ended => Ok(()),
    }
}

/// The datagrams of one client.
struct Association {
    desk: Desk,
    socket: Arc<UdpSocket>,
    /// The sockets into the channels, by channel and whether for IPv4.
    sockets: BTreeMap<(ChannelId, bool), Arc<Datagrams>>,
    /// What relays the answers; ends with this.
    readers: JoinSet<()>,
}

impl Association {
    async fn relay(mut self, host: IpAddr) -> io::Result<()> {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let mut client = None;
        loop {
            let (length, from) = self.socket.recv_from(&mut buffer).await?;
            // The first that comes from the client's host is the client's.
            if from.ip() != host || *client.get_or_insert(from) != from {
                continue;
            }
            let Ok((to, port, data)) = socks::datagram(&buffer[..length]) else {
                continue;
            };
            // Whom it cannot reach hears nothing, as with any datagram.
            if let Ok(destination) = Destination::find(&self.desk, to, port).await
                && let Ok(socket) = self.socket_to(&destination, from).await
            {
                let _ = socket.send_to(data, destination.address).await;
            }
        }
    }

    async fn socket_to(
        &mut self,
        destination: &Destination,
        client: SocketAddr,
    ) -> io::Result<Arc<Datagrams>> {
        let key = (destination.channel, destination.address.is_ipv4());
        if let Some(socket) = self.sockets.get(&key) {
            return Ok(Arc::clone(socket));
        }
        if self.sockets.len() >= SOCKETS_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let socket = destination.reach.bind(0, destination.address.ip()).await?;
        let socket = Arc::new(socket);
        let (inside, outside) = (Arc::clone(&socket), Arc::clone(&self.socket));
        self.readers.spawn(async move {
            let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
            while let Ok((length, from)) = inside.recv_from(&mut buffer).await {
                let datagram = socks::relayed(from, &buffer[..length]);
                let _ = outside.send_to(&datagram, client).await;
            }
        });
        self.sockets.insert(key, Arc::clone(&socket));
        Ok(socket)
    }
}
