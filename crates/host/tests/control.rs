//! The control interface before a node that is played by the test.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use enishi_api::{Answer, Failure, FailureKind, Request, SOCKET_NAME, StreamRequest};
use enishi_host::control::{
    ANSWERS_QUEUED_MAX, BODY_BYTES_MAX, BindError, Call, Control, Duplex, StreamCall, records,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(10);

/// A served control interface; the test takes the node's part.
struct Daemon {
    data: TempDir,
    calls: mpsc::Receiver<Call>,
    streams: mpsc::Receiver<StreamCall>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Daemon {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let control = Control::bind(data.path()).unwrap();
        let (calls_in, calls) = mpsc::channel(8);
        let (streams_in, streams) = mpsc::channel(8);
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(control.serve(calls_in, streams_in, async move {
            stopped.await.ok();
        }));
        Self {
            data,
            calls,
            streams,
            stop,
            served,
        }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.data.path().join(SOCKET_NAME))
            .await
            .unwrap()
    }

    /// Sends a request in HTTP/1.0, whose response simply ends with the connection.
    async fn send(&self, line: &str, body: &str) -> UnixStream {
        let mut stream = self.connect().await;
        let text = format!(
            "{line} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    async fn upgrade(&self, request: &StreamRequest) -> UnixStream {
        let mut stream = self.connect().await;
        let body = serde_json::to_string(request).unwrap();
        let head = "POST /v1/stream HTTP/1.1\r\nHost: enishi\r\nConnection: upgrade\r\n\
                    Upgrade: enishi-stream\r\nContent-Length:";
        let text = format!("{head} {}\r\n\r\n{body}", body.len());
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    async fn call(&mut self) -> Call {
        timeout(LONG, self.calls.recv()).await.unwrap().unwrap()
    }

    async fn stream_call(&mut self) -> StreamCall {
        timeout(LONG, self.streams.recv()).await.unwrap().unwrap()
    }
}

async fn read_all(mut stream: UnixStream) -> (u16, String) {
    let mut text = String::new();
    timeout(LONG, stream.read_to_string(&mut text))
        .await
        .unwrap()
        .unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

async fn read_head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(LONG, stream.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn failure(body: &str) -> Failure {
    let Answer::Failure(failure) = serde_json::from_str(body).unwrap() else {
        panic!("not a failure: {body}")
    };
    failure
}

fn json(request: &Request) -> String {
    serde_json::to_string(request).unwrap()
}

fn echo() -> StreamRequest {
    StreamRequest::Connect {
        target: "10.77.0.2".to_owned(),
        service: "echo".to_owned(),
    }
}

#[tokio::test]
async fn answers_come_one_by_one_as_lines() {
    let mut daemon = Daemon::start();
    let mut caller = daemon
        .send("POST /v1/call", &json(&Request::ChannelList))
        .await;
    let call = daemon.call().await;
    assert_eq!(call.request, Request::ChannelList);
    call.answers
        .send(Answer::Lost { sequence: 7 })
        .await
        .unwrap();
    let head = read_head(&mut caller).await;
    assert!(head.starts_with("HTTP/1.0 200"), "{head}");
    // The first answer is there although the second is not yet.
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        line.push(timeout(LONG, caller.read_u8()).await.unwrap().unwrap());
    }
    assert_eq!(line, b"{\"answer\":\"lost\",\"sequence\":7}\n");
    call.answers.send(Answer::Done).await.unwrap();
    drop(call);
    let mut rest = String::new();
    timeout(LONG, caller.read_to_string(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rest, "{\"answer\":\"done\"}\n");
}

#[tokio::test]
async fn plain_paths_serve_people_with_curl() {
    for (path, request) in [
        ("/v1/status", Request::Status),
        ("/v1/peers", Request::Peers),
        ("/v1/channels", Request::ChannelList),
    ] {
        let mut daemon = Daemon::start();
        let caller = daemon.send(&format!("GET {path}"), "").await;
        let call = daemon.call().await;
        assert_eq!(call.request, request);
        call.answers
            .send(Answer::Peers { peers: vec![] })
            .await
            .unwrap();
        drop(call);
        let (status, body) = read_all(caller).await;
        assert_eq!(
            (status, body.as_str()),
            (200, "{\"answer\":\"peers\",\"peers\":[]}\n")
        );
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_never_reaches_the_node() {
    let mut daemon = Daemon::start();
    let deep = "[".repeat(BODY_BYTES_MAX);
    for (line, body, expected) in [
        ("POST /v1/call", "{\"request\":", 400),
        ("POST /v1/call", "", 400),
        ("POST /v1/call", "\u{0}\u{1}", 400),
        ("POST /v1/call", deep.as_str(), 400),
        ("POST /v1/call", "{\"request\":\"make_tea\"}", 400),
        ("POST /v1/call", "{\"request\":\"dht_get\"}", 400),
        ("GET /v1/call", "", 405),
        ("GET /v2/status", "", 404),
        (
            "POST /v1/stream",
            "{\"stream\":\"listen\",\"service\":\"x\"}",
            426,
        ),
    ] {
        let (status, answer) = read_all(daemon.send(line, body).await).await;
        assert_eq!(status, expected, "{line} {answer}");
        assert_eq!(failure(&answer).kind, FailureKind::Usage);
        assert!(answer.len() < 1024, "{answer}");
    }
    assert!(daemon.calls.try_recv().is_err());
    assert!(daemon.streams.try_recv().is_err());
}

#[tokio::test]
async fn a_huge_body_is_refused() {
    let mut daemon = Daemon::start();
    let mut caller = daemon.connect().await;
    let head = "POST /v1/call HTTP/1.0\r\nContent-Length: 10000000\r\n\r\n";
    caller.write_all(head.as_bytes()).await.unwrap();
    // The daemon stops reading somewhere after the limit.
    let part = vec![b' '; BODY_BYTES_MAX];
    for _ in 0..100 {
        if caller.write_all(&part).await.is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    // The connection may end in a reset, for the rest of the body was never read.
    let _ = timeout(LONG, caller.read_to_end(&mut answer))
        .await
        .unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.0 413"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert!(daemon.calls.try_recv().is_err());
}

#[tokio::test]
async fn a_slow_reader_gets_every_answer_and_holds_the_node_back() {
    const ANSWERS: u32 = 20_000;
    let mut daemon = Daemon::start();
    let caller = daemon.send("POST /v1/call", &json(&Request::Peers)).await;
    let call = daemon.call().await;
    let sender = call.answers.clone();
    let node = tokio::spawn(async move {
        for sequence in 0..ANSWERS {
            call.answers.send(Answer::Lost { sequence }).await.unwrap();
        }
    });
    // Full, and not for a moment only.
    let stuck = async {
        let mut looks = 0;
        while looks < 30 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            looks = if sender.capacity() == 0 { looks + 1 } else { 0 };
        }
    };
    let full = timeout(LONG, stuck).await;
    assert!(
        full.is_ok(),
        "the queue of {ANSWERS_QUEUED_MAX} is not full"
    );
    assert!(!node.is_finished());
    drop(sender);
    let (_, body) = read_all(caller).await;
    node.await.unwrap();
    assert_eq!(body.lines().count(), ANSWERS as usize);
    let last = format!("{{\"answer\":\"lost\",\"sequence\":{}}}\n", ANSWERS - 1);
    assert!(body.ends_with(&last));
}

#[tokio::test]
async fn a_caller_who_hangs_up_closes_the_answers() {
    let mut daemon = Daemon::start();
    let caller = daemon.send("POST /v1/call", &json(&Request::Status)).await;
    let call = daemon.call().await;
    drop(caller);
    timeout(LONG, call.answers.closed()).await.unwrap();

    let caller = daemon.upgrade(&echo()).await;
    let mut call = daemon.stream_call().await;
    drop(caller);
    timeout(LONG, call.answer.closed()).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_is_forbidden_breaks_off() {
    let mut daemon = Daemon::start();
    let mut caller = daemon.upgrade(&echo()).await;
    let call = daemon.stream_call().await;
    let (node, mut member) = tokio::io::duplex(4096);
    let (reader, writer) = tokio::io::split(node);
    let (forbid, forbidden) = oneshot::channel::<()>();
    let duplex = Duplex {
        reader: Box::new(reader),
        writer: Box::new(writer),
        forbidden: Box::pin(async { drop(forbidden.await) }),
    };
    assert!(call.answer.send(Ok(duplex)).is_ok());
    read_head(&mut caller).await;
    caller.write_all(b"\x00\x04word").await.unwrap();
    let mut word = [0; 4];
    member.read_exact(&mut word).await.unwrap();
    forbid.send(()).unwrap();
    let ends = async { (member.read(&mut word).await, caller.read(&mut [0]).await) };
    let (at_member, at_caller) = timeout(LONG, ends).await.unwrap();
    assert_eq!((at_member.unwrap(), at_caller.unwrap()), (0, 0));
}

#[tokio::test]
async fn a_stream_flows_both_ways_and_each_way_ends_by_itself() {
    let mut daemon = Daemon::start();
    let mut caller = daemon.upgrade(&echo()).await;
    let call = daemon.stream_call().await;
    assert_eq!(call.request, echo());
    let (node, mut member) = tokio::io::duplex(4096);
    let (reader, writer) = tokio::io::split(node);
    let duplex = Duplex {
        reader: Box::new(reader),
        writer: Box::new(writer),
        forbidden: Box::pin(std::future::pending()),
    };
    assert!(call.answer.send(Ok(duplex)).is_ok());
    let head = read_head(&mut caller).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");

    let sent: Vec<u8> = (0..300_000_u32).map(|i| i as u8).collect();
    let (mut from_daemon, mut to_daemon) = caller.into_split();
    let to_send = sent.clone();
    let writing = tokio::spawn(async move {
        records::pack(&to_send[..], &mut to_daemon).await.unwrap();
        to_daemon
    });
    let mut received = Vec::new();
    timeout(LONG, member.read_to_end(&mut received))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(received, sent);
    let _open = writing.await.unwrap();

    // The caller's direction has ended; the other still works.
    member.write_all(b"late answer").await.unwrap();
    drop(member);
    let mut answer = Vec::new();
    timeout(LONG, records::unpack(&mut from_daemon, &mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer, b"late answer");
}

#[tokio::test]
async fn a_refused_stream_is_told_why() {
    let mut daemon = Daemon::start();
    let caller = daemon.upgrade(&echo()).await;
    let call = daemon.stream_call().await;
    let refused = Failure {
        kind: FailureKind::No,
        message: "nobody there".to_owned(),
    };
    assert!(call.answer.send(Err(refused.clone())).is_ok());
    let (status, body) = read_all(caller).await;
    assert_eq!(status, 404);
    assert_eq!(failure(&body), refused);
}

#[tokio::test]
async fn a_node_that_is_gone_is_a_failure() {
    let mut daemon = Daemon::start();
    daemon.calls.close();
    let (status, body) = read_all(daemon.send("GET /v1/status", "").await).await;
    assert_eq!(status, 503);
    assert_eq!(failure(&body).kind, FailureKind::No);
}

#[tokio::test]
async fn stopping_finishes_the_answer_under_way_and_removes_the_socket() {
    let mut daemon = Daemon::start();
    let caller = daemon
        .send("POST /v1/call", &json(&Request::Shutdown))
        .await;
    let call = daemon.call().await;
    daemon.stop.send(()).unwrap();
    call.answers.send(Answer::Done).await.unwrap();
    drop(call);
    assert_eq!(
        read_all(caller).await,
        (200, "{\"answer\":\"done\"}\n".to_owned())
    );
    timeout(LONG, daemon.served).await.unwrap().unwrap();
    assert!(!daemon.data.path().join(SOCKET_NAME).exists());
}

#[tokio::test]
async fn the_socket_is_the_owners_alone_and_a_dead_one_is_replaced() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join(SOCKET_NAME);
    let live = Control::bind(data.path()).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert!(matches!(Control::bind(data.path()), Err(BindError::InUse(at)) if at == path));
    drop(live);
    assert!(path.exists(), "a daemon that is killed leaves its socket");
    let _again = Control::bind(data.path()).unwrap();
    assert_eq!(mode(&path), 0o600);
    let left: Vec<_> = std::fs::read_dir(data.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn other_files_and_missing_directories_are_left_alone() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join(SOCKET_NAME);
    std::fs::write(&path, "mine").unwrap();
    assert!(matches!(
        Control::bind(data.path()),
        Err(BindError::NotASocket(_))
    ));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    let missing = data.path().join("missing");
    assert!(matches!(Control::bind(&missing), Err(BindError::Io { .. })));
    let long = data.path().join("x".repeat(120));
    std::fs::create_dir(&long).unwrap();
    assert!(matches!(Control::bind(&long), Err(BindError::Io { .. })));
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
