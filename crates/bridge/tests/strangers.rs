//! What a bridge answers to those who are no clients, or send too much.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use enishi_bridge::exchange::Limits;
use enishi_bridge::frame::{Frame, Kind};
use enishi_bridge::server::Server;
use enishi_bridge::way::{Agent, Ask, BODY_BYTES_MAX, Coding, undress};
use tokio::net::TcpListener;

async fn server() -> (Server, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (Server::start(listener, Limits::default()), address)
}

fn status(stream: &mut TcpStream) -> String {
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(length: usize) -> String {
    format!("POST /AAAAAAAAAAA HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
}

#[tokio::test]
async fn who_finds_no_room_reads_that_and_goes_on() {
    let (_server, address) = server().await;
    let asking = tokio::task::spawn_blocking(move || {
        let begun = |_| {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(stream, "{}EE", post(BODY_BYTES_MAX)).unwrap();
            stream
        };
        // What is declared and does not come takes no room.
        let declared: Vec<TcpStream> = (0..80).map(begun).collect();
        let body = vec![b'x'; BODY_BYTES_MAX];
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(post(body.len()).as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        assert_eq!(status(&mut stream), "HTTP/1.1 200");
        drop(declared);
        // What has come of it does.
        let begun = |_| {
            let mut stream = begun(0);
            stream.write_all(&body[..BODY_BYTES_MAX - 3]).unwrap();
            stream
        };
        let mut holding: Vec<TcpStream> = (0..20).map(begun).collect();
        let mut stream = TcpStream::connect(address).unwrap();
        let short = vec![b'x'; 8 * 1024];
        loop {
            stream.write_all(post(body.len()).as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
            let refused = status(&mut stream);
            // Those that are to hold it may not have been read yet, or have had none beside each other.
            if refused == "HTTP/1.1 413" {
                break;
            }
            assert_eq!(refused, "HTTP/1.1 200");
            holding.push(begun(0));
            stream = TcpStream::connect(address).unwrap();
        }
        let mut rest = vec![0; 4_096];
        let read = stream.read(&mut rest).unwrap();
        assert!(rest[..read].ends_with(b"\r\n\r\n"), "it is without a body");
        // All was read, so the connection goes on, and what is short has room.
        stream.write_all(post(short.len()).as_bytes()).unwrap();
        stream.write_all(&short).unwrap();
        assert_eq!(status(&mut stream), "HTTP/1.1 200");
        drop(holding);
    });
    asking.await.unwrap();
}

#[tokio::test]
async fn strangers_are_answered_that_there_is_nothing() {
    let (_server, address) = server().await;
    let ask = |request: Vec<u8>| {
        tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&request).unwrap();
            status(&mut stream)
        })
    };
    for head in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "DELETE /AAAAAAAAAAA HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /AAAAAAAAAAA HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\nx",
    ] {
        let answer = ask(head.into()).await.unwrap();
        assert_eq!(answer, "HTTP/1.1 404", "{head}");
    }
    // Of what a proxy sends on a connection of other requests the connection ends.
    let request =
        "GET /link HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let asking = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = asking.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    // A stream that did not come as such cannot go on.
    let pour = Frame::new(Kind::Pour, [7; 16]).encode(0);
    let path = Ask::new(&pour, Coding::Path, Agent::Own, 1).path;
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let asking = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = vec![0; 4_096];
        let mut read = 0;
        loop {
            read += stream.read(&mut answer[read..]).unwrap();
            let head = answer.windows(4).position(|at| at == b"\r\n\r\n");
            if let Some(at) = head.filter(|at| read > at + 4) {
                return answer[at + 4..read].to_vec();
            }
        }
    });
    let body = asking.await.unwrap().into();
    let answer = Frame::decode(&undress(&body).unwrap()).unwrap();
    assert_eq!(answer.kind, Kind::Damaged);
    // Whoever does not say how long a body is learns that it is too long, and sends shorter ones.
    let head = b"POST /AAAAAAAAAAA HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut request = head.to_vec();
    let long = BODY_BYTES_MAX + 1;
    request.extend(format!("{long:x}\r\n").bytes());
    request.resize(request.len() + long, b'x');
    assert_eq!(ask(request).await.unwrap(), "HTTP/1.1 413");
}

#[tokio::test]
async fn a_stream_that_does_not_begin_holds_no_room() {
    let (_server, address) = server().await;
    let asking = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let second = std::time::Duration::from_secs(1);
        stream.set_read_timeout(Some(second)).unwrap();
        // A first frame of 4 KiB, one octet at a time, never as late as what takes a stream for idle.
        stream.write_all(post(1 << 20).as_bytes()).unwrap();
        stream.write_all(&[0x45, 0x07, 0, 0, 0x10, 0]).unwrap();
        let mut answer = [0; 12];
        for sent in 0..40 {
            if stream.read_exact(&mut answer).is_ok() {
                return (sent, answer);
            }
            stream.write_all(b"x").unwrap();
        }
        (40, answer)
    });
    let (sent, answer) = asking.await.unwrap();
    assert!(sent < 40, "it goes on");
    assert_eq!(&answer, b"HTTP/1.1 404");
}
