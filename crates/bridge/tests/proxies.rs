//! Client and server through real proxies: squid, tinyproxy and the lab's faulty one, on
//! loopback.
//!
//! Each row carries what it carries there and back, octet by octet.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod echo;
mod real;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use echo::Echo;
use enishi_bridge::FRAME_BYTES_MAX;
use enishi_bridge::auth::Credentials;
use enishi_bridge::client::{Client, Settings, State, probe};
use enishi_bridge::dial::Proxy;
use enishi_bridge::exchange::Limits;
use enishi_bridge::probe::{Outcome, ProxyAuth};
use enishi_bridge::server::{Event, Server};
use enishi_bridge::way::{Agent, Coding, ReplyCoding};
use enishi_lab::faulty::{PASSWORD, USER};
use enishi_lab::{Fault, FaultyProxy, ForwardProxy};
use real::{squid, tinyproxy};
use tokio::net::TcpListener;

/// Octets of a packet that all paths take.
const PACKET_BYTES: usize = 1_200;

/// Packets of about 2 MB.
const PACKETS: u32 = 1_750;

/// How long a row may take on a slow machine.
const WITHIN: Duration = Duration::from_secs(120);

fn plain(at: SocketAddr) -> Proxy {
    Proxy::plain(at.ip().to_string(), at.port())
}

/// Carries packets there and back.
async fn carry(proxy: SocketAddr, credentials: Option<Credentials>, packets: u32) -> State {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let bridge = listener.local_addr().unwrap().to_string();
    let server = Server::start(listener, Limits::default());
    let echoing = tokio::spawn(echo_all(server));
    let settings = Settings {
        bridge,
        proxy: Some(plain(proxy)),
        credentials,
        remembered: None,
    };
    let mut client = Client::start(settings);
    let began = Instant::now();
    let mut state = client.state();
    let opening = state.wait_for(|state| state.open);
    let opened = tokio::time::timeout(WITHIN, opening).await.is_ok();
    assert!(opened, "no session: {:?}", *state.borrow());
    let found_after = began.elapsed();
    let mut echo = Echo::new(packets, PACKET_BYTES);
    while !echo.is_done() {
        assert!(began.elapsed() < WITHIN, "{:?}", *state.borrow());
        for packet in echo.due(began.elapsed()) {
            client.send(packet);
        }
        let received = tokio::time::timeout(Duration::from_millis(100), client.recv()).await;
        if let Ok(packet) = received {
            echo.take(&packet.expect("the client lives"));
        }
    }
    let state = state.borrow().clone();
    let took = began.elapsed() - found_after;
    eprintln!(
        "opened after {found_after:?}, {packets} packets there and back in {took:?}, {:?}",
        state.figures
    );
    eprint!("{}", state.outcome.as_deref().unwrap());
    echoing.abort();
    state
}

async fn echo_all(mut server: Server) {
    let sender = server.sender();
    while let Some(event) = server.recv().await {
        if let Event::Datagram(session, packet) = event {
            sender.send(session, packet);
        }
    }
}

/// A row: 2 MB through a proxy; what was found is judged by `expected`.
async fn row(proxy: ForwardProxy, credentials: bool, expected: impl Fn(&Outcome) -> bool) {
    let known = Credentials::new(real::USER.into(), real::PASSWORD.into());
    let state = carry(proxy.address(), credentials.then_some(known), PACKETS).await;
    let outcome = state.outcome.unwrap();
    assert!(expected(&outcome), "{outcome:?}");
}

/// Whether replies and requests are streams.
fn streams(outcome: &Outcome) -> (bool, bool) {
    let way = outcome.way.unwrap();
    (way.stream_bytes > 0, way.pour_bytes > 0)
}

fn coding(outcome: &Outcome) -> Coding {
    outcome.way.unwrap().coding
}

fn refuses_connect(proxy: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(proxy).unwrap();
    let mut answer = [0; 12];
    let port = proxy.port();
    write!(
        stream,
        "CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    )
    .unwrap();
    stream.read_exact(&mut answer).unwrap();
    !answer.ends_with(b"200")
}

macro_rules! skip {
    () => {
        if !real::can_run() {
            return;
        }
    };
}

#[tokio::test]
async fn squid_as_it_is() {
    skip!();
    row(squid(""), false, |outcome| {
        coding(outcome) == Coding::Raw
            && outcome.way.unwrap().ask_bytes == FRAME_BYTES_MAX
            && streams(outcome) == (true, true)
    })
    .await;
}

#[tokio::test]
async fn squid_without_connect() {
    skip!();
    let proxy = squid("acl C method CONNECT\nhttp_access deny C\n");
    assert!(refuses_connect(proxy.address()));
    row(proxy, false, |outcome| coding(outcome) == Coding::Raw).await;
}

#[tokio::test]
async fn squid_that_forbids_post() {
    skip!();
    let proxy = squid("acl P method POST PUT\nhttp_access deny P\n");
    row(proxy, false, |outcome| coding(outcome) == Coding::Path).await;
}

#[tokio::test]
async fn squid_that_caches_what_it_must_not() {
    skip!();
    let proxy = squid(
        "refresh_pattern . 1440 100% 1440 override-expire ignore-no-store ignore-private ignore-reload\n",
    );
    row(proxy, false, |outcome| coding(outcome) == Coding::Raw).await;
}

#[tokio::test]
async fn squid_with_small_requests() {
    skip!();
    row(squid("request_body_max_size 4 KB\n"), false, |outcome| {
        outcome.way.unwrap().ask_bytes <= 4_096 && streams(outcome) == (true, false)
    })
    .await;
}

#[tokio::test]
async fn squid_with_small_replies() {
    skip!();
    row(squid("reply_body_max_size 16 KB\n"), false, |outcome| {
        outcome.way.unwrap().reply_bytes <= 16 * 1024 && streams(outcome) == (false, true)
    })
    .await;
}

#[tokio::test]
async fn squid_that_lets_browsers_alone_pass() {
    skip!();
    let proxy =
        squid("acl K browser ^Mozilla/ ^curl/\nhttp_access deny !K\ndeny_info TCP_RESET K\n");
    row(proxy, false, |outcome| {
        outcome.way.unwrap().agent == Agent::Browser
    })
    .await;
}

#[tokio::test]
async fn squid_that_knows_few_content_types() {
    skip!();
    let proxy = squid(
        "acl P method POST\n\
         acl T req_mime_type ^application/x-www-form-urlencoded ^multipart/ ^text/\n\
         http_access deny P !T\nacl R rep_mime_type ^text/ ^image/\nhttp_reply_access deny !R\n",
    );
    row(proxy, false, |outcome| {
        coding(outcome) == Coding::Upload && outcome.way.unwrap().reply == ReplyCoding::Image
    })
    .await;
}

#[tokio::test]
async fn squid_that_takes_forms_and_text_alone() {
    skip!();
    let proxy = squid(
        "acl P method POST\nacl T req_mime_type ^application/x-www-form-urlencoded\n\
         http_access deny P !T\nacl R rep_mime_type ^text/\nhttp_reply_access deny !R\n",
    );
    row(proxy, false, |outcome| {
        coding(outcome) == Coding::Form && outcome.way.unwrap().reply == ReplyCoding::Text
    })
    .await;
}

#[tokio::test]
async fn squid_that_strips_cookies_and_wants_a_host() {
    skip!();
    let proxy = squid(
        "request_header_access Cookie deny all\nreply_header_access Set-Cookie deny all\n\
         acl HH req_header Host .\nhttp_access deny !HH\n",
    );
    row(proxy, false, |outcome| coding(outcome) == Coding::Raw).await;
}

const BASIC: &str = "auth_param basic program /usr/lib/squid/basic_ncsa_auth DIRECTORY/basic\n\
                     auth_param basic children 1\nacl A proxy_auth REQUIRED\nhttp_access deny !A\n";

const DIGEST: &str = "auth_param digest program /usr/lib/squid/digest_file_auth -c DIRECTORY/digest\n\
                      auth_param digest children 1\nauth_param digest realm lab\n\
                      auth_param digest nonce_max_count 50\n\
                      acl A proxy_auth REQUIRED\nhttp_access deny !A\n";

#[tokio::test]
async fn squid_with_basic_authentication() {
    skip!();
    row(squid(BASIC), true, |outcome| {
        outcome.auth == ProxyAuth::Basic
    })
    .await;
}

#[tokio::test]
async fn squid_with_digest_authentication() {
    skip!();
    row(squid(DIGEST), true, |outcome| {
        outcome.auth == ProxyAuth::Digest
    })
    .await;
}

#[tokio::test]
async fn squid_that_does_not_know_who_asks() {
    skip!();
    for (lines, credentials, expected) in [
        (BASIC, None, ProxyAuth::Missing),
        (BASIC, Some("wrong"), ProxyAuth::Refused),
        (DIGEST, Some("wrong"), ProxyAuth::Refused),
    ] {
        let proxy = squid(lines);
        let settings = Settings {
            bridge: "127.0.0.1:9".into(),
            proxy: Some(plain(proxy.address())),
            credentials: credentials
                .map(|password| Credentials::new(real::USER.into(), password.into())),
            remembered: None,
        };
        let outcome = probe(&settings).await;
        assert_eq!((outcome.way, outcome.auth), (None, expected));
    }
}

#[tokio::test]
async fn squid_with_all_of_it() {
    skip!();
    let lines = format!(
        "{DIGEST}acl C method CONNECT\nhttp_access deny C\nacl P method POST PUT\nhttp_access deny P\n\
         acl K browser ^Mozilla/\nhttp_access deny !K\ndeny_info TCP_RESET K\n\
         acl R rep_mime_type ^text/\nhttp_reply_access deny !R\nreply_body_max_size 16 KB\n\
         refresh_pattern . 1440 100% 1440 override-expire ignore-no-store ignore-private ignore-reload\n"
    );
    row(squid(&lines), true, |outcome| {
        let way = outcome.way.unwrap();
        (way.coding, way.agent, way.reply) == (Coding::Path, Agent::Browser, ReplyCoding::Text)
    })
    .await;
}

#[tokio::test]
async fn tinyproxy_without_connect() {
    skip!();
    let proxy = tinyproxy("ConnectPort 0\n");
    assert!(refuses_connect(proxy.address()));
    row(proxy, false, |outcome| {
        coding(outcome) == Coding::Raw && streams(outcome) == (true, true)
    })
    .await;
}

#[tokio::test]
async fn squid_that_limits_both_has_streams_where_they_are_longer_than_requests() {
    skip!();
    let proxy = squid("reply_body_max_size 300 KB\nrequest_body_max_size 20 MB\n");
    row(proxy, false, |outcome| {
        let way = outcome.way.unwrap();
        (way.stream_bytes, way.pour_bytes) == (0, 8 << 20)
    })
    .await;
}

#[tokio::test]
async fn tinyproxy_that_strips_headers() {
    skip!();
    let proxy =
        tinyproxy("Anonymous \"Host\"\nAnonymous \"Content-Length\"\nAnonymous \"Content-Type\"\n");
    row(proxy, false, |outcome| coding(outcome) == Coding::Raw).await;
}

#[tokio::test]
async fn tinyproxy_with_basic_authentication() {
    skip!();
    let proxy = tinyproxy("BasicAuth aki sesame\n");
    row(proxy, true, |outcome| outcome.auth == ProxyAuth::Basic).await;
}

/// Carries some packets through the lab's proxy.
async fn faulty(faults: &[Fault]) -> State {
    let proxy = FaultyProxy::start(faults.iter().copied(), Duration::from_secs(1)).unwrap();
    let credentials = Credentials::new(USER.into(), PASSWORD.into());
    carry(proxy.address(), Some(credentials), PACKETS / 5).await
}

#[tokio::test]
async fn the_lab_proxy_with_each_fault() {
    for fault in Fault::ALL {
        eprintln!("{fault:?}");
        faulty(&[fault]).await;
    }
}

#[tokio::test]
async fn the_lab_proxy_that_holds_what_it_carries_or_cuts_it_has_its_streams() {
    for (fault, expected) in [
        (Fault::HeldReplies, (false, true)),
        (Fault::HeldRequests, (true, false)),
        (Fault::LongReplies, (true, true)),
    ] {
        let proxy = FaultyProxy::start([fault], Duration::ZERO).unwrap();
        let state = carry(proxy.address(), None, PACKETS * 2).await;
        assert_eq!(streams(&state.outcome.unwrap()), expected, "{fault:?}");
    }
}

#[tokio::test]
async fn the_lab_proxy_with_all_faults() {
    faulty(&Fault::ALL).await;
}

#[tokio::test]
async fn a_session_goes_on_by_another_way_when_its_own_is_closed() {
    let proxy = FaultyProxy::start([], Duration::ZERO).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let settings = Settings {
        bridge: listener.local_addr().unwrap().to_string(),
        proxy: Some(plain(proxy.address())),
        credentials: None,
        remembered: None,
    };
    let mut server = Server::start(listener, Limits::default());
    let client = Client::start(settings);
    let mut state = client.state();
    state.wait_for(|state| state.open).await.unwrap();
    let Some(Event::Opened(session, _)) = server.recv().await else {
        panic!("no session");
    };
    let faults = [Fault::UnknownAgent, Fault::PostForbidden];
    proxy.change(faults, Duration::ZERO);
    let browser = |state: &State| {
        let way = state.outcome.as_ref().and_then(|outcome| outcome.way);
        state.open && way.is_some_and(|way| way.agent == Agent::Browser)
    };
    client.send("lost".into());
    let again = state.wait_for(browser);
    let again = tokio::time::timeout(WITHIN, again).await.is_ok();
    assert!(again, "no other way: {:?}", *state.borrow());
    client.send("found".into());
    loop {
        let event = tokio::time::timeout(WITHIN, server.recv())
            .await
            .unwrap()
            .unwrap();
        if event == Event::Datagram(session, "found".into()) {
            break;
        }
        assert!(
            !matches!(event, Event::Opened(..) | Event::Closed(_)),
            "{event:?}"
        );
    }
}
