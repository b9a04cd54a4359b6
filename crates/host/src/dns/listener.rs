//! One address at which queries are answered, by UDP and by TCP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use enishi_dns::{Reply, Transport};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::forward::{read_message, write_message};
use super::responder::{Door, Responder};
use crate::places::Places;

/// The longest query by UDP, in octets; none is longer than its one question and some options.
const QUERY_BYTES_MAX: usize = 4096;

/// How many connections are open at once at one address, and of them from one; further ones are
/// closed at once.
const STREAMS_MAX: usize = 256;
const STREAMS_PER_SOURCE_MAX: usize = 8;

/// How long a connection may be idle, or take for one query or answer (RFC 7766, section 6.2.3).
const STREAM_IDLE_MAX: Duration = Duration::from_secs(10);

/// How long to wait after an error of a socket, lest it be asked again and again.
const ERROR_WAIT: Duration = Duration::from_millis(100);

/// Answers queries at one address until it is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    address: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

impl Listener {
    /// Listens at an address, by UDP and TCP.
    pub(super) async fn bind(
        address: SocketAddr,
        door: Door,
        responder: &Arc<Responder>,
    ) -> io::Result<Self> {
        let datagrams = UdpSocket::bind(address).await?;
        let streams = TcpListener::bind(address).await?;
        let tasks = [
            tokio::spawn(serve_datagrams(datagrams, door, Arc::clone(responder))),
            tokio::spawn(serve_streams(streams, door, Arc::clone(responder))),
        ];
        Ok(Self { address, tasks })
    }

    /// Returns the address.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn serve_datagrams(socket: UdpSocket, door: Door, responder: Arc<Responder>) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; QUERY_BYTES_MAX];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            sleep(ERROR_WAIT).await;
            continue;
        };
        let query = &buffer[..length];
        let judged = responder.judge(query, from.ip(), door, Transport::Udp);
        let channel = match judged.await {
            Reply::Nothing => continue,
            Reply::Answer(octets) => {
                // Whoever does not get it asks again.
                let _ = socket.send_to(&octets, from).await;
                continue;
            }
            Reply::ForwardChannel => true,
            Reply::Forward => false,
        };
        // Ends within some seconds, and no more than so many go on at once.
        let (socket, responder) = (Arc::clone(&socket), Arc::clone(&responder));
        let query = query.to_vec();
        tokio::spawn(async move {
            if let Some(octets) = responder.forward(&query, Transport::Udp, channel).await {
                let _ = socket.send_to(&octets, from).await;
            }
        });
    }
}

async fn serve_streams(listener: TcpListener, door: Door, responder: Arc<Responder>) {
    // All programs of this host come from one address.
    let each_max = match door {
        Door::Loopback => STREAMS_MAX,
        Door::Channel { .. } => STREAMS_PER_SOURCE_MAX,
    };
    let places = Places::new(STREAMS_MAX, each_max);
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            sleep(ERROR_WAIT).await;
            continue;
        };
        let Some(place) = places.take(from.ip()) else {
            continue;
        };
        let responder = Arc::clone(&responder);
        tokio::spawn(async move {
            // It ends by an error or by the other side; neither is of interest.
            let _ = serve_stream(stream, from, door, &responder).await;
            drop(place);
        });
    }
}

async fn serve_stream(
    mut stream: TcpStream,
    from: SocketAddr,
    door: Door,
    responder: &Responder,
) -> io::Result<()> {
    loop {
        let query = timeout(STREAM_IDLE_MAX, read_message(&mut stream)).await??;
        let judged = responder.judge(&query, from.ip(), door, Transport::Tcp);
        let octets = match judged.await {
            Reply::Nothing => return Ok(()),
            Reply::Answer(octets) => Some(octets),
            Reply::ForwardChannel => responder.forward(&query, Transport::Tcp, true).await,
            Reply::Forward => responder.forward(&query, Transport::Tcp, false).await,
        };
        let Some(octets) = octets else {
            return Ok(());
        };
        timeout(STREAM_IDLE_MAX, write_message(&mut stream, &octets)).await??;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpSocket;
    use tokio::sync::mpsc;

    use super::*;
    use crate::dns::ZoneRequest;

    #[tokio::test]
    async fn idle_connections_of_one_keep_no_other_out() {
        let (zones, mut requests) = mpsc::channel::<ZoneRequest>(1);
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                let _ = request.send(Arc::default());
            }
        });
        let responder = Arc::new(Responder::new(zones));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let to = listener.local_addr().unwrap();
        let own = [
            Ipv4Addr::new(127, 0, 0, 9).into(),
            Ipv4Addr::LOCALHOST.into(),
        ];
        let door = Door::Channel { number: 1, own };
        let serving = tokio::spawn(serve_streams(listener, door, responder));

        let mut idle = Vec::new();
        for _ in 0..STREAMS_PER_SOURCE_MAX {
            idle.push(connect(to, 1).await);
        }
        let mut further = connect(to, 1).await;
        assert_eq!(further.read(&mut [0]).await.unwrap(), 0, "it is closed");
        let mut other = connect(to, 2).await;
        write_message(&mut other, QUERY).await.unwrap();
        assert_eq!(read_message(&mut other).await.unwrap()[..2], QUERY[..2]);
        serving.abort();
    }

    /// Asks for the address of `a.`.
    const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";

    /// Opens a connection from an address of loopback.
    async fn connect(to: SocketAddr, from: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        let from = Ipv4Addr::new(127, 0, 0, from);
        socket.bind((from, 0).into()).unwrap();
        socket.connect(to).await.unwrap()
    }
}
