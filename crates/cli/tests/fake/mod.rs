//! A node that is played by the test, behind the real control interface.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use enishi_api::{
    Answer, Channel, ChannelInvitation, ChannelInvite, ChannelRule, Check, Count, Discovery,
    Failure, FailureKind, Finding, Forward, ForwardAdd, ForwardWay, Held, Holder, Hop, HopState,
    HostName, MapLink, MapNode, MapRole, Member, Nat, Offer, OpenInvitation, Outcome, OverlayMap,
    Password, PathKind, Peer, PingSummary, PortMapping, Protocol, Proxies, Refused, Remote,
    Removal, Request, RoundTrips, Sighting, Status, StreamRequest, TraceSummary, TurnAsk,
    TurnState, TurnUsed, TurnUser, Uses, ValueStep, Verdict, Verification, Verified,
    VerifiedRecord, WireGuardAsk, WireGuardClient, WireGuardConfig,
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
        let (StreamRequest::Listen { service } | StreamRequest::Connect { service, .. }) = request
        else {
            let ports = failure(FailureKind::No, "This node has no ports.");
            answer.send(Err(ports)).ok();
            continue;
        };
        let (node, member) = tokio::io::duplex(4096);
        let (reader, writer) = tokio::io::split(node);
        let duplex = Duplex {
            reader: Box::new(reader),
            writer: Box::new(writer),
            forbidden: Box::pin(std::future::pending()),
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
        Request::Status => vec![Answer::Status(Box::new(status()))],
        Request::Peers => vec![Answer::Peers {
            peers: vec![peer()],
        }],
        Request::Invite => vec![Answer::Ticket {
            ticket: "enishi-overlay".to_owned(),
        }],
        Request::ChannelInvite(invite) => vec![invitation(&invite)],
        Request::ChannelInvitations { .. } | Request::ChannelRevoke { .. } => {
            vec![Answer::ChannelInvitations {
                invitations: vec![open_invitation()],
            }]
        }
        Request::ChannelRemove(of) => vec![Answer::ChannelRemoved(Removal {
            node_id: "n1".to_owned(),
            host: Some(of.member),
            epoch: 2,
            invitation: Some("abcdefghijkl".to_owned()),
        })],
        Request::ChannelRole { role, .. } => {
            vec![Answer::ChannelMember(Member { role, ..member() })]
        }
        Request::ChannelAdmin { admin, .. } => {
            vec![Answer::ChannelMember(Member { admin, ..member() })]
        }
        Request::ChannelRules { .. }
        | Request::ChannelAllow { .. }
        | Request::ChannelDisallow { .. } => vec![Answer::ChannelRules {
            rules: vec![rule()],
        }],
        Request::ChannelShow { .. } => vec![Answer::Channel(channel())],
        Request::ChannelCreate(create) if create.name.contains('/') => {
            vec![Answer::Failure(failure(
                FailureKind::Usage,
                "No name has a slash.",
            ))]
        }
        Request::ChannelCreate(_) | Request::ChannelJoin(_) => vec![Answer::Channel(channel())],
        Request::Route(_) => vec![Answer::Routes {
            routes: vec![route()],
        }],
        Request::Proxy(_) => vec![Answer::Proxy(Default::default())],
        Request::Turn(ask) => vec![Answer::Turn(turn(ask))],
        Request::WireGuard(ask) => vec![wireguard(ask)],
        Request::ChannelList => vec![Answer::Channels {
            channels: vec![channel()],
        }],
        Request::Resolve { name } if name == "nobody" => {
            let message = "Nobody is called nobody.";
            vec![Answer::Failure(failure(FailureKind::No, message))]
        }
        Request::ChannelNames { .. } | Request::Resolve { .. } => vec![Answer::Names {
            names: vec![HostName {
                name: "aki.office.enishi".to_owned(),
                node_id: "n1".to_owned(),
                addresses: vec!["10.77.0.9".parse().unwrap(), "fd00::9".parse().unwrap()],
            }],
        }],
        Request::ForwardAdd(forward) => vec![Answer::Forward(carried(forward))],
        Request::ForwardList => vec![Answer::Forwards {
            forwards: Vec::new(),
        }],
        Request::ForwardRemove { .. } => vec![Answer::Done],
        Request::Ping(ping) => ping_answers(&ping.target),
        Request::OverlayInvite(_) | Request::OverlayShow | Request::OverlayRevoke { .. } => {
            let message = "This node is in no closed overlay.";
            vec![Answer::Failure(failure(FailureKind::No, message))]
        }
        Request::Trace { target, probes } => (0..probes)
            .map(|probe| Answer::Probed { probe })
            .chain([Answer::TraceSummary(trace(&target, probes))])
            .collect(),
        Request::Verify { target, .. } => vec![Answer::Verification(verification(&target))],
        Request::Doctor | Request::DoctorNet => doctor(),
        Request::OverlayMap { .. } => vec![Answer::OverlayMap(map())],
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
        Request::ChannelLeave { name, force } if name == "founded" && !force => {
            vec![Answer::Failure(failure(
                FailureKind::Founder,
                "This node has founded the channel.",
            ))]
        }
        Request::ChannelCount { name } => vec![Answer::Counted(Count {
            channel: name,
            members: 60,
            received: 57,
        })],
        Request::ChannelDiscovery { name, on } => vec![Answer::Discovery(Discovery {
            channel: name,
            on: on.unwrap_or(true),
        })],
        Request::Offer(_) => vec![Answer::Offers {
            offers: vec![offer()],
        }],
        Request::PortListen { .. } => vec![Answer::PortOpen],
        Request::DhtRemove { .. } | Request::ChannelLeave { .. } | Request::Shutdown => {
            vec![Answer::Done]
        }
    }
}

fn offer() -> Offer {
    Offer {
        service: "_http._tcp".to_owned(),
        port: 8080,
        texts: vec!["path=/wiki".to_owned()],
        node_id: "n1".to_owned(),
        host: Some("aki.office.enishi".to_owned()),
        own: false,
    }
}

fn ping_answers(target: &str) -> Vec<Answer> {
    let path = "direct 192.0.2.1:1".to_owned();
    let node_id = "n1".to_owned();
    let pong = |sequence| Answer::Pong {
        sequence,
        rtt_ms: 1.5,
        path: path.clone(),
        remote: Some(remote()),
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
            path_kind: PathKind::Unconnected,
            remote: None,
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
                    mdev: 0.25,
                    p99: 1.5,
                    max: 1.5,
                }),
                path,
                path_kind: PathKind::Direct,
                remote: Some(remote()),
            }),
        ],
    }
}

fn remote() -> Remote {
    Remote {
        version: "0.1.0".to_owned(),
        load_per_mille: 12,
        class: None,
    }
}

fn hop(place: u8, node: Option<&str>, state: HopState) -> Hop {
    let reported = state == HopState::Reported;
    let rtt_ms = reported.then(|| f64::from(place) * 2.0);
    Hop {
        place,
        node_id: node.map(str::to_owned),
        state,
        sent: 3,
        received: if state == HopState::Lost { 0 } else { 3 },
        rtt_ms,
        rtt_ms_avg: rtt_ms.map(|rtt_ms| rtt_ms + 0.5),
        path: format!("direct 192.0.2.{place}:1"),
        next_path: (reported && place < 5).then_some(PathKind::Direct),
        remote: reported.then(remote),
    }
}

fn trace(target: &str, probes: u32) -> TraceSummary {
    let holder = |node: &str, held| Holder {
        node_id: node.to_owned(),
        held,
    };
    let mut summary = TraceSummary {
        hops: vec![
            hop(1, Some("n2"), HopState::Reported),
            hop(2, Some("n3"), HopState::Lost),
            hop(2, Some("n4"), HopState::Declined),
            hop(3, None, HopState::Declined),
            hop(5, Some("n6"), HopState::Reported),
        ],
        complete: true,
        answered_by: Some("n6".to_owned()),
        reached: None,
        probes,
        answered: probes,
        holders: None,
    };
    match target {
        "silent" => {
            summary.hops.truncate(2);
            (summary.complete, summary.answered_by, summary.answered) = (false, None, 0);
        }
        "key:greeting" => {
            let (seq, age_s) = (7, 12);
            summary.holders = Some(vec![
                holder("n6", Held::Value { seq, age_s }),
                holder("n7", Held::Removed),
                holder("n8", Held::Nothing),
                holder("n9", Held::Silent),
            ]);
        }
        _ => {}
    }
    summary
}

fn doctor() -> Vec<Answer> {
    let check = |outcome, finding| Answer::Check(Check { outcome, finding });
    let address = "192.0.2.9:9".parse().unwrap();
    vec![
        check(
            Outcome::Ok,
            Finding::DataDirectory {
                path: "/data".to_owned(),
                error: None,
                free_bytes: Some(1536 << 20),
            },
        ),
        check(
            Outcome::Warning,
            Finding::Addresses {
                own: vec!["10.0.0.1:9".parse().unwrap()],
                seen: vec![Sighting { address, peers: 2 }],
                nat: Box::new(Nat {
                    router: Some(PortMapping::default()),
                    ..Nat::default()
                }),
            },
        ),
        check(
            Outcome::Problem,
            Finding::Values {
                failed: Some(ValueStep::Put),
                replicas: 0,
                time_ms: 9_000,
            },
        ),
        Answer::Checked {
            ok: 1,
            warnings: 1,
            problems: 1,
        },
    ]
}

fn map() -> OverlayMap {
    let node = |id: &str, position: &str, role, rtt_ms| MapNode {
        rtt_predicted_ms: None,
        node_id: id.to_owned(),
        position: position.to_owned(),
        role,
        path: PathKind::Direct,
        rtt_ms,
        class: None,
    };
    OverlayMap {
        size_estimate: 3,
        nodes: vec![
            node("n0", "0000000000000000", MapRole::Itself, None),
            node("n1", "4000000000000000", MapRole::Near, Some(1.5)),
            node("n2", "8000000000000000", MapRole::Known, None),
        ],
        links: vec![MapLink {
            from: 0,
            to: 1,
            long: false,
        }],
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
        position: "0000000000000000".to_owned(),
        version: "0.1.0".to_owned(),
        uptime_s: 61,
        peers: 1,
        overlay_size_estimate: 2,
        joined: true,
        class: "peer".to_owned(),
        clients: 0,
        addresses: vec!["192.0.2.9:9".parse().unwrap()],
        nat: Default::default(),
        bootstrap: Vec::new(),
        records_held: 3,
        service: Default::default(),
        sent: Default::default(),
        refused: Refused::default(),
        channels: vec![channel()],
        names: None,
        discovery: Some("office".to_owned()),
        proxies: Proxies {
            socks: "127.0.0.1:1080".parse().ok(),
            http: None,
        },
        upstream: Some("PROXY proxy.example:3128 (desktop)".to_owned()),
        turn: None,
        forwards: forwards(),
        notices: vec![],
    }
}

/// A server of somebody else that refuses the password; no server here.
fn turn(ask: TurnAsk) -> TurnState {
    let added = match ask {
        TurnAsk::Add { name, password } => Some(TurnUser {
            name,
            password: password.unwrap_or_else(|| Password("drawn".to_owned())),
        }),
        TurnAsk::Show | TurnAsk::Remove { .. } | TurnAsk::Use { .. } | TurnAsk::Forget { .. } => {
            None
        }
    };
    TurnState {
        server: None,
        users: Vec::new(),
        servers: vec![TurnUsed {
            url: "turn:aki@host:3478".to_owned(),
            trouble: Some("refused".to_owned()),
            code: Some(401),
            ..TurnUsed::default()
        }],
        added,
    }
}

fn carried(forward: ForwardAdd) -> Forward {
    Forward {
        id: 3,
        forward,
        open: 2,
        total: 5,
        notice: None,
    }
}

/// One that works, and one that does not.
fn forwards() -> Vec<Forward> {
    let forward = carried(ForwardAdd {
        channel: "office".to_owned(),
        way: ForwardWay::Local {
            listen: "127.0.0.1:8080".parse().unwrap(),
            to: "other:80".to_owned(),
        },
        protocol: Protocol::Tcp,
    });
    let broken = Forward {
        id: 4,
        open: 0,
        notice: Some("the port is taken".to_owned()),
        ..forward.clone()
    };
    vec![forward, broken]
}

fn verification(target: &str) -> Verification {
    let key = target.strip_prefix("key:").map(str::to_owned);
    let is_key = key.is_some();
    Verification {
        subject: key.map_or_else(|| Verified::Node(target.to_owned()), Verified::Key),
        verdict: match target {
            "n1" => Verdict::Confirmed,
            _ if is_key => Verdict::Disputed,
            _ => Verdict::Unknown,
        },
        all_known: target == "n1",
        paths: 8,
        agreeing: 3,
        asked: 41,
        nearest: vec!["n6".to_owned(), "n7".to_owned()],
        record: is_key.then(|| VerifiedRecord {
            owner: "o1".to_owned(),
            seq: 7,
            holders: 3,
        }),
        unusual: is_key,
    }
}

fn invitation(invite: &ChannelInvite) -> Answer {
    Answer::ChannelInvitation(ChannelInvitation {
        ticket: format!("enishi-{}", invite.name),
        invitation: Some("abcdefghijkl".to_owned()),
        uses: match invite.uses {
            Some(Uses::Of(uses)) => Some(uses),
            Some(Uses::Any) => None,
            None => Some(1),
        },
        expires_unix_s: 2_000_000_000,
        role: invite.role.clone(),
        stored: true,
    })
}

fn open_invitation() -> OpenInvitation {
    OpenInvitation {
        invitation: "abcdefghijkl".to_owned(),
        uses: None,
        expires_unix_s: 0,
        role: Some("guest".to_owned()),
        members: vec!["other".to_owned()],
    }
}

fn rule() -> ChannelRule {
    ChannelRule {
        number: 1,
        from: "role:guest".to_owned(),
        from_host: None,
        to: "n1".to_owned(),
        to_host: Some("other".to_owned()),
        ports: vec!["tcp/22".to_owned(), "icmp".to_owned()],
    }
}

fn member() -> Member {
    Member {
        node_id: "n1".to_owned(),
        host: "other".to_owned(),
        addresses: vec!["10.77.0.3".parse().unwrap()],
        path: "direct 192.0.2.1:2".to_owned(),
        rtt_ms: Some(1.5),
        bytes_sent: 2048,
        ..Member::default()
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
        member_list: vec![member()],
        notice: Some("the address moved".to_owned()),
        form: "governed".to_owned(),
        online: 2,
        founder: true,
        admin: true,
        epoch: Some(2),
        charter_version: Some(7),
        rules: 1,
        direct: 1,
        relayed: 0,
        in_session: 0,
        exit: Some("other".to_owned()),
        routes: vec!["192.168.7.0/24".to_owned(), "10.9.0.0/16".to_owned()],
        wireguard_clients: 2,
        wireguard_attached: 1,
    }
}

fn peer() -> Peer {
    Peer {
        node_id: "n1".to_owned(),
        position: "8000000000000000".to_owned(),
        role: "near\u{1b}[2J".to_owned(),
        class: Some("super".to_owned()),
        connected: true,
        path: "direct 192.0.2.1:1".to_owned(),
        rtt_ms: Some(1.5),
        bytes_sent: 2048,
        bytes_received: 0,
        account: Default::default(),
    }
}

pub(crate) fn channel_json() -> Value {
    serde_json::to_value(channel()).unwrap()
}

pub(crate) fn peer_json() -> Value {
    serde_json::to_value(peer()).unwrap()
}

fn wireguard(ask: WireGuardAsk) -> Answer {
    match ask {
        WireGuardAsk::Add {
            channel, client, ..
        } => Answer::WireGuardConfig(WireGuardConfig {
            channel,
            client,
            addresses: vec!["10.77.0.9".parse().unwrap()],
            configuration: "[Interface]\nMTU = 1280\n".to_owned(),
            notice: Some("192.168.7.2 is no public address".to_owned()),
        }),
        WireGuardAsk::Remove { .. } => Answer::WireGuardClients {
            clients: Vec::new(),
        },
        WireGuardAsk::List { .. } => Answer::WireGuardClients {
            clients: vec![WireGuardClient {
                channel: "office".to_owned(),
                client: "phone".to_owned(),
                address: "10.77.0.9".parse().unwrap(),
                public_key: "key".to_owned(),
                held: true,
                endpoint: Some("192.0.2.1:4000".parse().unwrap()),
                handshake_s: Some(7),
                sent_bytes: 2048,
                received_bytes: 0,
            }],
        },
    }
}

fn route() -> enishi_api::Route {
    enishi_api::Route {
        channel: "office".to_owned(),
        network: "192.168.7.0/24".to_owned(),
        shared: false,
        accepted: true,
        via: Some("n2".to_owned()),
        barred: true,
        routers: vec![enishi_api::Router {
            node_id: "n2".to_owned(),
            host: "router".to_owned(),
        }],
    }
}
