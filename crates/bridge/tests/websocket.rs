//! Streams within WebSockets: straight, and through real squids that let them pass, or do not.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod real;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use enishi_bridge::auth::Credentials;
use enishi_bridge::dial::Proxy;
use enishi_bridge::tunnel::{self, TunnelError};
use enishi_bridge::websocket::{self, WebSocket};
use enishi_lab::ForwardProxy;
use real::{PASSWORD, USER, squid, tinyproxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// How long anything may take on a slow machine.
const WITHIN: Duration = Duration::from_secs(60);

/// Octets that go there and back.
const STREAM_BYTES: usize = 3_000_000;

/// Lets squid pass WebSockets, and no CONNECT.
const SOCKETS_ALONE: &str = "acl C method CONNECT\nhttp_access deny C\n\
                             http_upgrade_request_protocols websocket allow all\n";

/// Sends back what comes by WebSockets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let socket = websocket::accept(stream).await?;
                let (mut reader, mut writer) = tokio::io::split(socket);
                tokio::io::copy(&mut reader, &mut writer).await.ok()?;
                writer.shutdown().await.ok()
            });
        }
    });
    at
}

/// Sends octets and takes them back.
async fn carry(socket: WebSocket) {
    let sent: Vec<u8> = (0..STREAM_BYTES).map(|n| (n % 251) as u8).collect();
    let (mut reader, mut writer) = tokio::io::split(socket);
    let mut received = vec![0; sent.len()];
    let sending = async {
        writer.write_all(&sent).await.unwrap();
        writer.flush().await.unwrap();
    };
    let both = async { tokio::join!(sending, reader.read_exact(&mut received)) };
    timeout(WITHIN, both).await.unwrap().1.unwrap();
    assert!(received == sent);
    timeout(WITHIN, writer.shutdown()).await.unwrap().unwrap();
    assert_eq!(reader.read(&mut received).await.unwrap(), 0);
}

async fn by(proxy: &ForwardProxy, user: bool) -> Result<WebSocket, TunnelError> {
    let (at, target) = (proxy.address(), echo().await.to_string());
    let proxy = Proxy::plain(at.ip().to_string(), at.port());
    let credentials = user.then(|| Credentials::new(USER.to_owned(), PASSWORD.to_owned()));
    tunnel::websocket(Some(&proxy), credentials.map(Arc::new), &target).await
}

#[tokio::test]
async fn straight_it_is_a_stream() {
    let target = echo().await.to_string();
    carry(tunnel::websocket(None, None, &target).await.unwrap()).await;
}

#[tokio::test]
async fn through_a_squid_that_lets_it_pass() {
    if !real::can_run() {
        return;
    }
    carry(by(&squid(SOCKETS_ALONE), false).await.unwrap()).await;
}

#[tokio::test]
async fn through_a_squid_that_asks_who_it_is() {
    if !real::can_run() {
        return;
    }
    let proxy = squid(&format!(
        "auth_param digest program /usr/lib/squid/digest_file_auth -c DIRECTORY/digest\n\
         auth_param digest children 1\nauth_param digest realm lab\n\
         acl A proxy_auth REQUIRED\nhttp_access deny !A\n{SOCKETS_ALONE}"
    ));
    let refused = by(&proxy, false).await.unwrap_err();
    assert!(matches!(refused, TunnelError::Refused(407)), "{refused}");
    carry(by(&proxy, true).await.unwrap()).await;
}

#[tokio::test]
async fn proxies_as_they_are_do_not_let_it_pass() {
    if !real::can_run() {
        return;
    }
    for proxy in [squid(""), tinyproxy("")] {
        let refused = by(&proxy, false).await.unwrap_err();
        assert!(matches!(refused, TunnelError::Refused(_)), "{refused}");
    }
}

#[tokio::test]
async fn another_request_is_answered_that_there_is_nothing() {
    let at = echo().await;
    let key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let all = format!(
        "Host: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\n{key}"
    );
    for (line, headers, status) in [
        ("GET /link HTTP/1.1", all.clone(), "101"),
        ("GET /else HTTP/1.1", all.clone(), "404"),
        ("GET /link HTTP/1.1", all.replace("13", "8"), "404"),
        ("GET /link HTTP/1.1", all.replace(key, ""), "404"),
        (
            "GET /link HTTP/1.1",
            format!("{all}X: {}\r\n", "x".repeat(1 << 20)),
            "431",
        ),
    ] {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let request = format!("{line}\r\n{headers}\r\n");
        // What is too long is not read to its end.
        let asking = async { drop(writer.write_all(request.as_bytes()).await) };
        let mut answer = [0; 12];
        let both = async { tokio::join!(asking, reader.read_exact(&mut answer)) };
        let answered = timeout(WITHIN, both).await.unwrap().1;
        answered.unwrap();
        assert_eq!(&answer[9..], status.as_bytes(), "{line}");
    }
}

#[tokio::test]
async fn what_is_not_found_on_a_used_connection_is_asked_for_again() {
    let strays = |count: usize| async move {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let target = listener.local_addr().unwrap().to_string();
        let serving = tokio::spawn(async move {
            for _ in 0..count {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 1_024];
                assert!(stream.read(&mut head).await.unwrap() > 0);
                let answer = b"HTTP/1.1 404 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
            let (stream, _) = listener.accept().await.unwrap();
            websocket::accept(stream).await
        });
        (tunnel::websocket(None, None, &target).await, serving)
    };
    let (opened, serving) = strays(2).await;
    assert!(opened.is_ok() && serving.await.unwrap().is_some());
    let (opened, serving) = strays(3).await;
    assert!(matches!(opened, Err(TunnelError::Refused(404))));
    serving.abort();
}

#[tokio::test]
async fn answers_to_pings_do_not_pile_up() {
    let at = echo().await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    let request = "GET /link HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    // An empty ping, masked by zeros.
    let ping = [0x89, 0x80, 0, 0, 0, 0];
    let flood = async {
        while stream.write_all(&ping.repeat(100)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(WITHIN, flood).await.expect("the other end closes");
}
