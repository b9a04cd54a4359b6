//! What this node speaks by with a TURN server of others: datagrams, or a stream where no UDP passes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use enishi_stun::{Leg, Stream};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::DATAGRAM_BYTES_MAX;
use super::queue::{self, Full, Queue};

/// How long a stream may take to be opened.
const OPEN_TIME_MAX: Duration = Duration::from_secs(8);

/// How long what waits for a stream is written that is not used any more.
const LAST_TIME_MAX: Duration = Duration::from_secs(5);

/// The most messages with data that wait for a stream; further ones are lost, as datagrams would be.
const WAITING_MAX: usize = 128;

/// The way to a server.
pub(super) struct Line {
    kind: Kind,
    buffer: Vec<u8>,
}

enum Kind {
    Datagrams(UdpSocket),
    Stream {
        reader: OwnedReadHalf,
        found: Stream,
        messages: Queue,
        _used: DropGuard,
    },
}

impl Line {
    /// Opens it, and returns where it begins.
    ///
    /// # Errors
    /// When the system has no socket, or nobody takes the stream.
    pub(super) async fn open(server: SocketAddr, leg: Leg) -> io::Result<(Self, SocketAddr)> {
        let (kind, local) = match leg {
            Leg::Udp => {
                let anywhere: IpAddr = match server {
                    SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                let socket = UdpSocket::bind((anywhere, 0)).await?;
                socket.connect(server).await?;
                let local = socket.local_addr()?;
                (Kind::Datagrams(socket), local)
            }
            Leg::Tcp => {
                let opening = tokio::time::timeout(OPEN_TIME_MAX, TcpStream::connect(server));
                let stream = opening.await??;
                // What is relayed is not to wait for more.
                stream.set_nodelay(true)?;
                let local = stream.local_addr()?;
                let (reader, writer) = stream.into_split();
                let (messages, waiting) = Queue::new(WAITING_MAX);
                let unused = CancellationToken::new();
                tokio::spawn(write(writer, waiting, unused.clone()));
                let found = Stream::default();
                let kind = Kind::Stream {
                    reader,
                    found,
                    messages,
                    _used: unused.drop_guard(),
                };
                (kind, local)
            }
        };
        let buffer = vec![0; DATAGRAM_BYTES_MAX];
        Ok((Self { kind, buffer }, local))
    }

    /// Waits for a message. May be given up, and loses nothing then.
    ///
    /// # Errors
    /// When the stream has ended, or what is in it is not TURN; or an ICMP error came.
    pub(super) async fn receive(&mut self) -> io::Result<Vec<u8>> {
        match &mut self.kind {
            Kind::Datagrams(socket) => {
                let length = socket.recv(&mut self.buffer).await?;
                Ok(self.buffer[..length].to_vec())
            }
            Kind::Stream { reader, found, .. } => loop {
                if let Some(message) = found.message().map_err(io::Error::other)? {
                    return Ok(message);
                }
                match reader.read(&mut self.buffer).await? {
                    0 => return Err(io::Error::other("the server has ended the connection")),
                    length => found.push(&self.buffer[..length]),
                }
            },
        }
    }

    /// Sends a message. A datagram, and data, that find no room are lost, as on any network.
    ///
    /// # Errors
    /// When a message has no room that nobody would repeat.
    pub(super) fn send(&self, message: Vec<u8>) -> Result<(), Full> {
        match &self.kind {
            Kind::Datagrams(socket) => {
                let _ = socket.try_send(&message);
                Ok(())
            }
            Kind::Stream { messages, .. } => messages.put(message),
        }
    }
}

/// Writes what waits; for a while yet when the line is not used any more.
async fn write(
    writer: impl AsyncWrite + Unpin,
    waiting: mpsc::Receiver<Vec<u8>>,
    unused: CancellationToken,
) {
    let late = async {
        unused.cancelled().await;
        tokio::time::sleep(LAST_TIME_MAX).await;
    };
    tokio::select! {
        () = queue::write(writer, waiting) => {}
        () = late => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A line, and the other end of its stream.
    async fn line() -> (Line, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (opened, taken) = tokio::join!(Line::open(at, Leg::Tcp), listener.accept());
        (opened.unwrap().0, taken.unwrap().0)
    }

    #[tokio::test]
    async fn what_waits_when_a_line_ends_is_written_yet() {
        let (line, mut other) = line().await;
        let (_, question) = enishi_stun::question();
        assert_eq!(line.send(question.clone()), Ok(()));
        drop(line);
        let mut read = Vec::new();
        other.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, question);
    }

    #[tokio::test]
    async fn a_stream_that_takes_nothing_ends_soon_after_its_line() {
        let (ours, _other) = tokio::io::duplex(16);
        let (queue, waiting) = Queue::new(1);
        let (_, question) = enishi_stun::question();
        assert_eq!(queue.put(question), Ok(()));
        drop(queue);
        let unused = CancellationToken::new();
        unused.cancel();
        let writing = write(ours, waiting, unused);
        let ended = tokio::time::timeout(2 * LAST_TIME_MAX, writing).await;
        assert_eq!(ended, Ok(()));
    }
}
