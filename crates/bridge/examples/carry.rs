//! What `cargo xtask bench bridge` runs, once for each thing that it measures.
//!
//! ```text
//! carry origin                              a server for curl: endless replies, and requests are read
//! carry bridge PROXY up|down SECONDS        both ends of a bridge through a proxy: prints octets each second
//! ```

#![allow(clippy::expect_used, reason = "a program for measuring")]

use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use enishi_bridge::client::{Client, Settings};
use enishi_bridge::dial::Proxy;
use enishi_bridge::exchange::{Limits, SessionId};
use enishi_bridge::server::{Event, Sender, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PACKET_BYTES: usize = 1_400;

/// Octets that may be under way: what a congestion window comes to.
const WINDOW_BYTES: u64 = 2 << 20;

/// After so many packets the other end is told.
const ACKNOWLEDGED: u64 = 32;

/// What is not heard of for this long is lost.
const LOST_AFTER: Duration = Duration::from_millis(500);

/// How long a bridge may take to find out what passes.
const OPEN_WITHIN: Duration = Duration::from_secs(60);

/// The time that does not count.
const WARMING: Duration = Duration::from_secs(1);

const BLOCK_BYTES: usize = 256 * 1024;

#[tokio::main]
async fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["origin"] => origin().await,
        ["bridge", proxy, direction @ ("up" | "down"), seconds] => {
            let seconds = seconds.parse().expect("a number of seconds");
            let proxy = proxy.parse().expect("an address and a port");
            let carried = carry(proxy, direction == "up", Duration::from_secs(seconds)).await;
            println!("{carried:.0}");
        }
        _ => panic!("carry origin, or carry bridge PROXY up|down SECONDS"),
    }
}

/// Serves whoever connects: a GET has a reply without an end, anything else is read to its end.
async fn origin() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a port is free");
    println!("{}", listener.local_addr().expect("it has an address"));
    loop {
        let (stream, _) = listener.accept().await.expect("connections are taken");
        tokio::spawn(async move {
            // Who asked ends it.
            let _ = serve(stream).await;
        });
    }
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut head = Vec::new();
    let end = loop {
        let read = stream.read(&mut block).await?;
        if read == 0 {
            return Ok(());
        }
        head.extend_from_slice(&block[..read]);
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    if head.starts_with(b"GET ") {
        let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n";
        stream.write_all(reply).await?;
        loop {
            stream.write_all(&block).await?;
        }
    }
    let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let length: u64 = length
        .and_then(|length| length.trim().parse().ok())
        .unwrap_or(0);
    let mut left = length.saturating_sub((head.len() - end) as u64);
    while left > 0 {
        let read = stream.read(&mut block).await?;
        if read == 0 {
            return Ok(());
        }
        left = left.saturating_sub(read as u64);
    }
    let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(reply).await
}

/// Both ends of a session.
struct Ends {
    server: Server,
    sender: Sender,
    session: SessionId,
    client: Client,
}

impl Ends {
    async fn open(proxy: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port is free");
        let settings = Settings {
            bridge: listener
                .local_addr()
                .expect("it has an address")
                .to_string(),
            proxy: Some(Proxy::plain(proxy.ip().to_string(), proxy.port())),
            credentials: None,
            remembered: None,
        };
        let mut server = Server::start(listener, Limits::default());
        let sender = server.sender();
        let client = Client::start(settings);
        let mut state = client.state();
        let opened = tokio::time::timeout(OPEN_WITHIN, state.wait_for(|state| state.open)).await;
        opened
            .expect("a way is found in time")
            .expect("the client lives");
        let Some(Event::Opened(session, _)) = server.recv().await else {
            panic!("no session");
        };
        Self {
            server,
            sender,
            session,
            client,
        }
    }

    fn send(&self, upward: bool, packet: Bytes) -> bool {
        if upward {
            self.client.send(packet)
        } else {
            self.sender.send(self.session, packet)
        }
    }

    /// Waits for a packet and says whether it went up; `None` when nothing comes.
    async fn recv(&mut self) -> Option<(bool, Bytes)> {
        loop {
            tokio::select! {
                Some(event) = self.server.recv() => match event {
                    Event::Datagram(_, packet) => return Some((true, packet)),
                    Event::Opened(..) | Event::Closed(_) => {}
                },
                Some(packet) = self.client.recv() => return Some((false, packet)),
                () = tokio::time::sleep(LOST_AFTER) => return None,
            }
        }
    }
}

/// Returns what a bridge carries, in octets each second.
async fn carry(proxy: SocketAddr, upward: bool, duration: Duration) -> f64 {
    let mut ends = Ends::open(proxy).await;
    let packet = Bytes::from(vec![7; PACKET_BYTES]);
    let window = WINDOW_BYTES / PACKET_BYTES as u64;
    let (mut began, mut warm) = (Instant::now(), false);
    let (mut sent, mut arrived, mut acknowledged) = (0, 0, 0);
    loop {
        if !warm && began.elapsed() >= WARMING {
            (began, arrived, warm) = (Instant::now(), 0, true);
        }
        if warm && began.elapsed() >= duration {
            break;
        }
        while sent < acknowledged + window && ends.send(upward, packet.clone()) {
            sent += 1;
        }
        match ends.recv().await {
            None => acknowledged = sent,
            Some((went_up, packet)) if went_up == upward => {
                assert_eq!(packet.len(), PACKET_BYTES, "what was sent arrives");
                arrived += 1;
                if arrived % ACKNOWLEDGED == 0 {
                    let acknowledge = Bytes::from_static(b"more");
                    ends.send(!upward, acknowledge);
                }
            }
            Some(_) => acknowledged = sent.min(acknowledged + ACKNOWLEDGED),
        }
    }
    let state = ends.client.state();
    eprintln!("{:?}", state.borrow().figures);
    arrived as f64 * PACKET_BYTES as f64 / began.elapsed().as_secs_f64()
}
