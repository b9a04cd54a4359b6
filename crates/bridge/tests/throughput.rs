//! How much passes a proxy each way, beside what it gives a plain transfer: run by hand, optimised.
//!
//! ```sh
//! cargo test -p enishi-bridge --test throughput --config profile.dev.package.enishi-bridge.opt-level=3 -- --ignored --nocapture
//! ```

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[allow(dead_code, reason = "`proxies.rs` uses more of it")]
mod real;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use enishi_bridge::client::{Client, Settings};
use enishi_bridge::exchange::Limits;
use enishi_bridge::server::{Event, Server};
use real::Proxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PACKET_BYTES: usize = 1_400;

/// Packets under way, of about a megabyte.
const WINDOW: u64 = 700;

const DURATION: Duration = Duration::from_secs(4);

const MEGA: f64 = 1e6;

/// What a plain GET of a long body gets, in megabytes each second.
async fn plain(proxy: &Proxy) -> f64 {
    const BODY_BYTES: usize = 400 << 20;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let server = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4_096];
        let _ = stream.read(&mut head).await.unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let block = vec![7; 256 * 1024];
        while stream.write_all(&block).await.is_ok() {}
    });
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let head = format!("GET http://{server}/ HTTP/1.1\r\nHost: {server}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (began, mut bytes) = (Instant::now(), 0);
    let mut block = vec![0; 256 * 1024];
    while bytes < BODY_BYTES && began.elapsed() < DURATION {
        bytes += stream.read(&mut block).await.unwrap();
    }
    bytes as f64 / MEGA / began.elapsed().as_secs_f64()
}

/// What the bridge carries, in megabytes each second.
async fn bridge(proxy: &Proxy, upward: bool) -> f64 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let settings = Settings {
        bridge: listener.local_addr().unwrap().to_string(),
        proxy: Some(proxy.address.to_string()),
        credentials: None,
        remembered: None,
    };
    let mut server = Server::start(listener, Limits::default());
    let sender = server.sender();
    let mut client = Client::start(settings);
    client.state().wait_for(|state| state.open).await.unwrap();
    let Some(Event::Opened(session, _)) = server.recv().await else {
        panic!("no session");
    };
    let packet = Bytes::from(vec![7; PACKET_BYTES]);
    let acknowledge = Bytes::from_static(b"more");
    let (began, mut sent, mut arrived, mut acknowledged) = (Instant::now(), 0, 0, 0);
    let mut heard = Instant::now();
    while began.elapsed() < DURATION {
        while sent < acknowledged + WINDOW {
            let fits = match upward {
                true => client.send(packet.clone()),
                false => sender.send(session, packet.clone()),
            };
            assert!(fits, "the window is less than what waits at most");
            sent += 1;
        }
        // Each end hears of packets, or of acknowledgements.
        let (here, octets) = tokio::select! {
            Some(event) = server.recv() => match event {
                Event::Datagram(_, octets) => (upward, octets),
                Event::Opened(..) | Event::Closed(_) => continue,
            },
            Some(octets) = client.recv() => (!upward, octets),
            () = tokio::time::sleep(Duration::from_millis(100)) => {
                // What was lost is not waited for.
                if heard.elapsed() > Duration::from_millis(500) {
                    acknowledged = sent;
                }
                continue;
            }
        };
        heard = Instant::now();
        if here {
            assert_eq!(octets.len(), PACKET_BYTES);
            arrived += 1;
            if arrived % 32 == 0 {
                match upward {
                    true => drop(sender.send(session, acknowledge.clone())),
                    false => drop(client.send(acknowledge.clone())),
                }
            }
        } else {
            acknowledged += 32;
        }
    }
    eprintln!("{:?}", client.state().borrow().figures);
    arrived as f64 * PACKET_BYTES as f64 / MEGA / began.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, and is meant to be run alone and optimised"]
async fn the_bridge_beside_a_plain_transfer() {
    if !real::can_run() {
        return;
    }
    for (name, proxy) in [
        ("squid", real::squid("")),
        ("tinyproxy", real::tinyproxy("")),
    ] {
        let plain = plain(&proxy).await;
        let (up, down) = (bridge(&proxy, true).await, bridge(&proxy, false).await);
        eprintln!("{name}: plain {plain:.0} MB/s, bridge up {up:.0} MB/s, down {down:.0} MB/s");
    }
}
