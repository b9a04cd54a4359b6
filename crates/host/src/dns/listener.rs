//! One address at which queries are answered, by UDP and by TCP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use enishi_dns::{Reply, Transport};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::forward::{read_message, write_message};
use super::responder::{Door, Responder};

/// The longest query by UDP, in octets; none is longer than its one question and some options.
const QUERY_BYTES_MAX: usize = 4096;

/// How many connections are open at once at one address; further ones wait.
const STREAMS_MAX: usize = 32;

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
    let room = Arc::new(Semaphore::new(STREAMS_MAX));
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        let Ok((stream, from)) = listener.accept().await else {
            sleep(ERROR_WAIT).await;
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
