//! A node that is played by the test, behind the real control interface.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use enishi_api::{
    Answer, Channel, Failure, FailureKind, Hop, Member, Peer, PingSummary, Refused, Request,
    RoundTrips, Status, StreamRequest, TraceSummary,
};
use enishi_host::control::{Call, Control, Duplex, StreamCall};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// The fake node; dropping it ends it.
pub(crate) struct Fake {
    data: TempDir,
    requests: Arc<Mutex<Vec<Request>>>,
    sunk: Arc<Mutex<Vec<u8>>>,
    _runtime: Runtime,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let requests = Arc::default();
        let sunk = Arc::default();
        let runtime = Runtime::new().unwrap();
        let _entered = runtime.enter();
        let control = Control::bind(data.path()).unwrap();
        let (calls, calls_out) = mpsc::channel(8);
        let (streams, streams_out) = mpsc::channel(8);
        runtime.spawn(control.serve(calls, streams, std::future::pending()));
        runtime.spawn(answer_calls(calls_out, Arc::clone(&requests)));
        runtime.spawn(answer_streams(streams_out, Arc::clone(&sunk)));
        drop(_entered);
        Self {
            data,
            requests,
            sunk,
            _runtime: runtime,
        }
    }

    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    /// Waits for what the service `sink` received.
    pub(crate) fn sunk(&self) -> Vec<u8> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let sunk = self.sunk.lock().unwrap().clone();
            if !sunk.is_empty() || Instant::now() > deadline {
                return sunk;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What was asked so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

async fn answer_calls(mut calls: mpsc::Receiver<Call>, requests: Arc<Mutex<Vec<Request>>>) {
    while let Some(Call { request, answers }) = calls.recv().await {
        requests.lock().unwrap().push(request.clone());
        tokio::spawn(async move {
            for answer in script(request) {
                if answers.send(answer).await.is_err() {
                    break;
                }
            }
        });
    }
}

async fn answer_streams(mut streams: mpsc::Receiver<StreamCall>, sunk: Arc<Mutex<Vec<u8>>>) {
    while let Some(StreamCall { request, answer }) = streams.recv().await {
        let (StreamRequest::Listen { service } | StreamRequest::Connect { service, .. }) = request;
        let (node, member) = tokio::io::duplex(4096);
        let (reader, writer) = tokio::io::split(node);
        let duplex = Duplex {
            reader: Box::new(reader),
            writer: Box::new(writer),
        };
        let (mut from_node, mut to_node) = tokio::io::split(member);
        if service == "nothing" {
            answer
                .send(Err(failure(FailureKind::No, "No such service.")))
                .ok();
            continue;
        }
        answer.send(Ok(duplex)).ok();
        let sunk = Arc::clone(&sunk);
        tokio::spawn(async move {
            if service == "sink" {
                to_node.shutdown().await.unwrap();
                tokio::time::sleep(Duration::from_millis(200)).await;
                let mut received = Vec::new();
                from_node.read_to_end(&mut received).await.unwrap();
                *sunk.lock().unwrap() = received;
            } else {
                tokio::io::copy(&mut from_node, &mut to_node).await.unwrap();
                to_node.shutdown().await.unwrap();
            }
        });
    }
}

fn script(request: Request) -> Vec<Answer> {
    match request {
        Request::Status => vec![Answer::Status(status())],
        Request::Peers => vec![Answer::Peers {
            peers: vec![peer()],
        }],
        Request::Invite => vec![Answer::Ticket {
            ticket: "enishi-overlay".to_owned(),
        }],
        Request::ChannelInvite { name } => {
            vec![Answer::Ticket {
                ticket: format!("enishi-{name}"),
            }]
        }
        Request::ChannelCreate(create) if create.name.contains('/') => {
            vec![Answer::Failure(failure(
                FailureKind::Usage,
                "No name has a slash.",
            ))]
        }
        Request::ChannelCreate(_) | Request::ChannelJoin(_) => vec![Answer::Channel(channel())],
        Request::ChannelList => vec![Answer::Channels {
            channels: vec![channel()],
        }],
        Request::Ping(ping) => ping_answers(&ping.target),
        Request::Trace { target } => vec![Answer::TraceSummary(trace(&target))],
        Request::DhtPut { .. } => vec![Answer::Stored {
            replicas: 3,
            seq: 1,
        }],
        Request::DhtGet { key } => vec![match key.as_str() {
            "nothing" => {
                Answer::Failure(failure(FailureKind::No, "There is no value under nothing."))
            }
            "octets" => Answer::Value {
                value: vec![0xff, 0x00],
                seq: 1,
            },
            _ => Answer::Value {
                value: b"v\n".to_vec(),
                seq: 1,
            },
        }],
        Request::DhtRemove { .. } | Request::ChannelLeave { .. } | Request::Shutdown => {
            vec![Answer::Done]
        }
    }
}

fn ping_answers(target: &str) -> Vec<Answer> {
    let path = "direct 192.0.2.1:1".to_owned();
    let node_id = "n1".to_owned();
    let pong = |sequence| Answer::Pong {
        sequence,
        rtt_ms: 1.5,
        path: path.clone(),
    };
    match target {
        "mute" => vec![],
        "strange" => vec![Answer::Done],
        "flood" => (0..50_000).map(pong).collect(),
        "silent" => vec![Answer::PingSummary(PingSummary {
            node_id,
            sent: 2,
            received: 0,
            rtt_ms: None,
            path: "-".to_owned(),
        })],
        _ => vec![
            pong(0),
            Answer::Lost { sequence: 1 },
            Answer::PingSummary(PingSummary {
                node_id,
                sent: 2,
                received: 1,
                rtt_ms: Some(RoundTrips {
                    min: 1.5,
                    avg: 1.5,
                    p99: 1.5,
                    max: 1.5,
                }),
                path,
            }),
        ],
    }
}

fn trace(target: &str) -> TraceSummary {
    let path = "direct 192.0.2.2:2".to_owned();
    let hop = Hop {
        node_id: "n2".to_owned(),
        rtt_ms: Some(2.0),
        path,
    };
    match target {
        "silent" => TraceSummary {
            hops: vec![],
            complete: false,
        },
        _ => TraceSummary {
            hops: vec![hop],
            complete: true,
        },
    }
}

fn failure(kind: FailureKind, message: &str) -> Failure {
    Failure {
        kind,
        message: message.to_owned(),
    }
}

fn status() -> Status {
    Status {
        node_id: "n0".to_owned(),
        version: "0.1.0".to_owned(),
        uptime_s: 61,
        peers: 1,
        overlay_size_estimate: 2,
        joined: true,
        class: "peer".to_owned(),
        clients: 0,
        addresses: vec!["192.0.2.9:9".parse().unwrap()],
        records_held: 3,
        refused: Refused::default(),
        channels: vec![channel()],
        notices: vec![],
    }
}

fn channel() -> Channel {
    Channel {
        name: "office".to_owned(),
        network: "10.77.0.0/16".to_owned(),
        address: Some("10.77.0.2".parse().unwrap()),
        address6: Some("fd00::2".parse().unwrap()),
        interface: Some("enishi0".to_owned()),
        members: 2,
        member_list: vec![Member {
            node_id: "n1".to_owned(),
            host: "other".to_owned(),
            addresses: vec!["10.77.0.3".parse().unwrap()],
        }],
        notice: Some("the address moved".to_owned()),
    }
}

fn peer() -> Peer {
    Peer {
        node_id: "n1".to_owned(),
        role: "near\u{1b}[2J".to_owned(),
        class: Some("super".to_owned()),
        connected: true,
        path: "direct 192.0.2.1:1".to_owned(),
        rtt_ms: Some(1.5),
        bytes_sent: 2048,
        bytes_received: 0,
    }
}

pub(crate) fn channel_json() -> Value {
    serde_json::to_value(channel()).unwrap()
}

pub(crate) fn peer_json() -> Value {
    serde_json::to_value(peer()).unwrap()
}
