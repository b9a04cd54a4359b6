//! A hostile router on loopback, and one that does what it should.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use super::search::{FOLLOWED_MAX, controlled_at, described, location, search};
use super::*;
use router::{Router, router};

pub(in crate::reach::mapping) mod router;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n";

/// What a sender can get rid of that nobody reads: the system's buffers of both ends, which Linux makes
/// twice as large as asked, and what is written at once.
const BUFFERED: u64 = 512 * 1024;

/// What a hostile router sends: this once, and that for ever.
#[derive(Clone)]
struct Endless {
    head: String,
    body: Vec<u8>,
}

fn endless() -> Vec<(&'static str, Endless)> {
    let filling = "<a>".repeat(20_000);
    let chunk = format!("{:x}\r\n{filling}\r\n", filling.len());
    let of = |head: String, body: &str| Endless {
        head,
        body: body.as_bytes().to_vec(),
    };
    vec![
        ("no length", of(format!("{OK}\r\n<root>"), &filling)),
        (
            "a huge length",
            of(format!("{OK}Content-Length: 99999999999\r\n\r\n"), &filling),
        ),
        (
            "chunks",
            of(format!("{OK}Transfer-Encoding: chunked\r\n\r\n"), &chunk),
        ),
        (
            "an extension of a chunk",
            of(
                format!("{OK}Transfer-Encoding: chunked\r\n\r\n5;a="),
                &filling,
            ),
        ),
        ("fields", of(OK.to_owned(), &"X: y\r\n".repeat(10_000))),
        ("one field", of(format!("{OK}X: "), &filling)),
        (
            "answers before the answer",
            of(
                String::new(),
                &"HTTP/1.1 100 Continue\r\n\r\n".repeat(2_000),
            ),
        ),
    ]
}

/// Listens with small buffers, so that little is sent that nobody reads.
fn listen(at: &str) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(64 * 1024).unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(at.parse().unwrap()).unwrap();
    socket.listen(64).unwrap()
}

/// Reads one question, up to its end.
async fn question(stream: &mut TcpStream) -> String {
    let mut question = Vec::new();
    loop {
        stream.read_buf(&mut question).await.unwrap();
        let text = String::from_utf8_lossy(&question);
        let is_whole = match text.split_once("\r\n\r\n") {
            None => false,
            Some((head, body)) => head.starts_with("GET") || body.contains("</s:Envelope>"),
        };
        if is_whole {
            return text.into_owned();
        }
    }
}

/// What a hostile router has seen.
#[derive(Debug, Default)]
struct Seen {
    connections: AtomicUsize,
    octets: AtomicU64,
}

/// Answers every question so.
fn answer_endlessly(listener: TcpListener, what: Endless) -> Arc<Seen> {
    let seen = Arc::new(Seen::default());
    let told = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (seen, what) = (Arc::clone(&seen), what.clone());
            seen.connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                question(&mut stream).await;
                let mut next = what.head.into_bytes();
                while let Ok(sent) = stream.write(&next).await {
                    seen.octets.fetch_add(sent as u64, Ordering::SeqCst);
                    next.drain(..sent);
                    if next.is_empty() {
                        next = what.body.clone();
                    }
                }
            });
        }
    });
    told
}

fn v4(listener: &TcpListener) -> SocketAddrV4 {
    match listener.local_addr().unwrap() {
        std::net::SocketAddr::V4(at) => at,
        std::net::SocketAddr::V6(_) => unreachable!("it was bound to IPv4"),
    }
}

fn gateway(at: SocketAddrV4) -> Gateway {
    lines(&[at])
}

/// A router with a line at each of these.
pub(in crate::reach::mapping) fn lines(at: &[SocketAddrV4]) -> Gateway {
    let line = |at: &SocketAddrV4| Service {
        at: *at,
        control: "/c".to_owned(),
        kind: "urn:schemas-upnp-org:service:WANIPConnection:1",
        local: Ipv4Addr::LOCALHOST,
    };
    Gateway::new(at.iter().map(line).collect()).unwrap()
}

/// Whatever is endless in an answer, the client ends the connection by its length, not by time alone.
#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    for (name, what) in endless() {
        let listener = listen("127.0.0.1:0");
        let at = v4(&listener);
        let seen = answer_endlessly(listener, what);
        match http::ask(at, "/d.xml", None).await {
            // What has no length ends where the connection does.
            Ok(answer) => {
                assert!(answer.text.len() as u64 <= http::ANSWER_MAX, "{name}");
                assert_eq!(xml::described(&answer.text), None, "{name}");
            }
            Err(error) => assert!(!matches!(error, http::HttpError::Late), "{name}: {error}"),
        }
        let taken = seen.octets.load(Ordering::SeqCst);
        assert!(taken < http::ANSWER_MAX + BUFFERED, "{name}: {taken}");
        // The same to an action.
        let error = gateway(at)
            .map(PORT, 40_000, TERMS.lifetime)
            .await
            .unwrap_err();
        assert!(!matches!(error, UpnpError::Late), "{name}: {error}");
        let taken = seen.octets.load(Ordering::SeqCst);
        assert!(taken < 2 * (http::ANSWER_MAX + BUFFERED), "{name}: {taken}");
    }
}

/// One that says nothing, and one that says a letter now and then.
#[tokio::test]
async fn a_slow_answer_is_not_waited_for() {
    let listener = listen("127.0.0.1:0");
    let at = v4(&listener);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _silent = listener.accept().await.unwrap();
        // An answer before its question would be refused at once.
        question(&mut stream).await;
        stream.write_all(OK.as_bytes()).await.unwrap();
        loop {
            let _ = stream.write_all(b"X").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let (slow, silent) = tokio::join!(http::ask(at, "/", None), http::ask(at, "/", None));
    for answer in [slow, silent] {
        assert!(matches!(answer, Err(http::HttpError::Late)), "{answer:?}");
    }
}

/// Whole documents within the limit that would cost more than their length elsewhere.
#[test]
fn no_document_costs_more_than_its_length() {
    let deep = "<a>".repeat(80_000);
    assert_eq!(xml::described(&deep), None);
    let closed = format!("{deep}{}", "</a>".repeat(80_000));
    assert_eq!(xml::described(&closed), Some(xml::Described::default()));
    let spaces: String = (0..8000).map(|n| format!(" xmlns:a{n}=\"x\"")).collect();
    let spaces = format!("<r{spaces}>{}</r>", "<b/>".repeat(30_000));
    assert_eq!(xml::described(&spaces), Some(xml::Described::default()));
    let laughs = "<!DOCTYPE r [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;&a;\">]><r>&b;</r>";
    assert_eq!(xml::said(laughs, "X", []), None);
}

#[test]
fn a_location_leads_to_who_answered() {
    let from = Ipv4Addr::new(192, 168, 1, 1);
    let at = |url: &str| {
        let text = format!("HTTP/1.1 200 OK\r\nST: x\r\nLocation: {url}\r\n\r\n");
        location(text.as_bytes(), from)
    };
    assert_eq!(
        at("http://192.168.1.1:5000/d.xml?a=b"),
        Some((SocketAddrV4::new(from, 5000), "/d.xml?a=b".to_owned()))
    );
    assert_eq!(
        at("http://192.168.1.1"),
        Some((SocketAddrV4::new(from, 80), "/".to_owned()))
    );
    for bad in [
        "http://192.168.1.2:5000/d.xml",
        "http://192.168.1.1@192.168.1.2/",
        "http://[::ffff:192.168.1.1]/",
        "https://192.168.1.1/",
        "http://192.168.1.1:0/",
        "http://192.168.1.1:99999/",
        "http://router/",
        "/d.xml",
        "",
    ] {
        assert_eq!(at(bad), None, "{bad}");
    }
    let refused = b"HTTP/1.1 404 Not Found\r\nLocation: http://192.168.1.1/\r\n\r\n";
    let notify = b"NOTIFY * HTTP/1.1\r\nLocation: http://192.168.1.1/\r\n\r\n";
    assert_eq!(location(refused, from), None);
    assert_eq!(location(notify, from), None);
    assert_eq!(location(&[0xff; 2000], from), None);
    let at = SocketAddrV4::new(from, 5000);
    let control = |text: &str| controlled_at(text, at, "");
    assert_eq!(control("/ctl?a"), Some((at, "/ctl?a".to_owned())));
    assert_eq!(control("ctl"), Some((at, "/ctl".to_owned())));
    assert_eq!(
        control("http://192.168.1.1:80/c"),
        Some((SocketAddrV4::new(from, 80), "/c".to_owned()))
    );
    for bad in ["http://192.168.1.2:5000/c", "/a\r\nX: y", "/a b"] {
        assert_eq!(control(bad), None, "{bad}");
    }
}

/// Thousands answer: few are asked, each once, and none that may not answer.
#[tokio::test]
async fn few_answers_are_followed() {
    let listener = listen("0.0.0.0:0");
    let port = v4(&listener).port();
    let (_, what) = endless().swap_remove(0);
    let seen = answer_endlessly(listener, what);
    let group = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let std::net::SocketAddr::V4(at) = group.local_addr().unwrap() else {
        unreachable!("it was bound to IPv4")
    };
    let flood = tokio::spawn(async move {
        let mut sockets = Vec::new();
        for number in 1..=100 {
            let own = Ipv4Addr::new(127, 0, 1, number);
            sockets.push((own, UdpSocket::bind((own, 0)).await.unwrap()));
        }
        let (_, to) = group.recv_from(&mut [0; 2000]).await.unwrap();
        for turn in 0..100 {
            for (own, socket) in &sockets {
                let answer =
                    format!("HTTP/1.1 200 OK\r\nLOCATION: http://{own}:{port}/{turn}\r\n\r\n");
                let _ = socket.send_to(answer.as_bytes(), to).await;
            }
            tokio::task::yield_now().await;
        }
    });
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let may_answer = |at: Ipv4Addr| at.octets()[3] > 10;
    assert_eq!(search(&socket, at, may_answer).await, None);
    flood.await.unwrap();
    assert_eq!(seen.connections.load(Ordering::SeqCst), FOLLOWED_MAX);
    let taken = seen.octets.load(Ordering::SeqCst);
    let most = FOLLOWED_MAX as u64 * (http::ANSWER_MAX + BUFFERED);
    assert!(taken < most, "{taken}");
}

pub(in crate::reach::mapping) const PORT: NonZeroU16 = NonZeroU16::new(7000).unwrap();

/// Little time for everything.
const SHORT: Terms = Terms {
    lifetime: Duration::from_secs(2),
    look: Duration::from_millis(200),
    look_early: Duration::from_millis(50),
};

/// Has the port mapped, by a node that nobody sees.
async fn open<F, Found>(gateway: Gateway, terms: Terms, find: F) -> Result<Mapping, UpnpError>
where
    F: Fn() -> Found + Send + 'static,
    Found: Future<Output = Option<Gateway>> + Send + 'static,
{
    let nowhere = watch::channel(External::default()).1;
    Mapping::open(gateway, (PORT, 40_000), terms, nowhere, find).await
}

pub(in crate::reach::mapping) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waited);
    assert!(waited.await.is_ok(), "{what}");
}

pub(in crate::reach::mapping) async fn nobody() -> Option<Gateway> {
    None
}

/// A router is found, maps, is asked again at half of the time, and is told at the end.
#[tokio::test]
async fn a_port_is_mapped_renewed_and_given_back() {
    let (at, router) = router(&[CONFLICTS[0], 0]);
    let group = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let std::net::SocketAddr::V4(asked) = group.local_addr().unwrap() else {
        unreachable!("it was bound to IPv4")
    };
    tokio::spawn(async move {
        let (_, to) = group.recv_from(&mut [0; 2000]).await.unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\nLocation:http://{at}/d.xml\r\n\r\n");
        group.send_to(answer.as_bytes(), to).await.unwrap();
    });
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let found = search(&socket, asked, |at| at.is_loopback()).await.unwrap();
    let [line] = &found.services[..] else {
        panic!("it has one line: {found:?}");
    };
    assert_eq!(line.control, "/c?a=1&b=2");
    assert_eq!(line.kind, "urn:schemas-upnp-org:service:WANPPPConnection:1");
    let mapping = open(found, SHORT, nobody).await.unwrap();
    let outer = mapping.watch().borrow().unwrap();
    assert_eq!(router.lock().unwrap().mapped, [outer.port()]);
    assert_eq!(outer.ip().to_string(), "11.0.0.7");
    until("it is renewed", || router.lock().unwrap().added >= 3).await;
    assert_eq!(*mapping.watch().borrow(), Some(outer));
    assert_eq!(router.lock().unwrap().mapped, [outer.port()]);
    mapping.release().await;
    assert!(router.lock().unwrap().mapped.is_empty());
}

/// A router that wants the same port gets it.
#[tokio::test]
async fn a_router_may_want_the_same_port() {
    let (at, _router) = router(&[SAME_PORT_WANTED, 0]);
    let mapped = gateway(at).map(PORT, 40_000, TERMS.lifetime).await.unwrap();
    assert_eq!(mapped.at.port(), 7000);
}

/// One that maps to another outer port at each renewal keeps one of them, unless another host has the one before.
#[tokio::test]
async fn the_outer_port_before_is_given_back() {
    for (refusal, kept) in [(501, 1), (CONFLICTS[0], 2)] {
        let (at, router) = router(&[0, refusal, 0]);
        let mapping = open(gateway(at), SHORT, nobody).await.unwrap();
        let mut told = mapping.watch();
        assert_eq!(told.borrow_and_update().unwrap().port(), 40_000);
        told.changed().await.unwrap();
        let now = told.borrow().unwrap();
        assert_ne!(now.port(), 40_000);
        let mapped = router.lock().unwrap().mapped.clone();
        assert_eq!(mapped.len(), kept, "{refusal}: {mapped:?}");
        assert!(mapped.contains(&now.port()));
    }
}

/// What a router never does is asked for once.
#[tokio::test]
async fn what_another_port_does_not_change_is_not_tried_with_one() {
    let (at, router) = router(&[FORBIDDEN]);
    let refused = gateway(at).map(PORT, 40_000, TERMS.lifetime).await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, UpnpError::Refused(FORBIDDEN)),
        "{refused}"
    );
    let router = router.lock().unwrap();
    assert!(router.mapped.is_empty());
    assert_eq!(router.asked["AddPortMapping"], 1);
}

/// One that renews nothing is not believed for long, and another one is asked before.
#[tokio::test]
async fn what_is_not_renewed_is_lost() {
    let (at, router) = router(&[0, 606]);
    let mapping = open(gateway(at), SHORT, nobody).await.unwrap();
    let mut told = mapping.watch();
    assert!(told.borrow_and_update().is_some());
    until("it is lost", || told.borrow().is_none()).await;
    until("it is given back", || {
        router.lock().unwrap().mapped.is_empty()
    })
    .await;
}

/// After a restart the router takes questions elsewhere, and may give another port.
#[tokio::test]
async fn a_router_is_found_again() {
    let (at, _first) = router(&[0, 606]);
    let (again, second) = router(&[CONFLICTS[0], 0]);
    let find = move || async move { Some(gateway(again)) };
    let mapping = open(gateway(at), SHORT, find).await.unwrap();
    let mut told = mapping.watch();
    let before = *told.borrow_and_update();
    told.changed().await.unwrap();
    let now = told.borrow().unwrap();
    assert_ne!(Some(now), before);
    assert_eq!(second.lock().unwrap().mapped, [now.port()]);
    // It is given back also when it is just forgotten.
    drop(mapping);
    until("it is given back", || {
        second.lock().unwrap().mapped.is_empty()
    })
    .await;
}

/// Of several lines the first is taken that is on the Internet and does it.
#[tokio::test]
async fn every_line_of_a_router_is_tried() {
    for (name, ip, says, used) in [
        ("the first does it", "11.0.0.7", 0, 0),
        ("is offline", "0.0.0.0", 0, 1),
        ("has no address", "", 0, 1),
        ("is behind another router", "192.168.0.7", 0, 1),
        ("refuses", "11.0.0.7", FORBIDDEN, 1),
        ("maps nothing", "11.0.0.7", 501, 1),
    ] {
        let (first, second) = (router(&[says]), router(&[0]));
        first.1.lock().unwrap().ip = ip;
        second.1.lock().unwrap().ip = "11.0.0.9";
        let gateway = lines(&[first.0, second.0]);
        let mapped = gateway.map(PORT, 40_000, TERMS.lifetime).await.unwrap();
        let at = [first.0, second.0][used];
        assert_eq!(mapped.by.at, at, "{name}");
        let last = [7, 9][used];
        assert_eq!(mapped.at.ip(), &Ipv4Addr::new(11, 0, 0, last), "{name}");
        let count = |router: &Arc<Mutex<Router>>| router.lock().unwrap().mapped.len();
        let counts = [count(&first.1), count(&second.1)];
        assert_eq!(counts, [1 - used, used], "{name}");
    }
    // What is behind another router is better than nothing.
    let (at, router) = router(&[0]);
    router.lock().unwrap().ip = "192.168.0.7";
    assert!(gateway(at).map(PORT, 40_000, TERMS.lifetime).await.is_ok());
}

/// A line that goes down gives way to the other one.
#[tokio::test]
async fn another_line_takes_over() {
    let ((one, first), (other, second)) = (router(&[0]), router(&[0]));
    second.lock().unwrap().ip = "11.0.0.9";
    let mapping = open(lines(&[one, other]), SHORT, nobody).await.unwrap();
    let mut told = mapping.watch();
    assert_eq!(
        told.borrow_and_update().unwrap().ip().to_string(),
        "11.0.0.7"
    );
    first.lock().unwrap().ip = "0.0.0.0";
    told.changed().await.unwrap();
    assert_eq!(told.borrow().unwrap().ip().to_string(), "11.0.0.9");
    until("the first one is given back", || {
        first.lock().unwrap().mapped.is_empty()
    })
    .await;
}

/// What has no end is not renewed, but looked after, and given back.
#[tokio::test]
async fn a_router_may_map_without_an_end_alone() {
    let (at, router) = router(&[0]);
    router.lock().unwrap().is_endless = true;
    let mapping = open(gateway(at), SHORT, nobody).await.unwrap();
    // Its own port: the next life of this node has the same.
    assert_eq!(mapping.watch().borrow().unwrap().port(), PORT.get());
    assert_eq!(router.lock().unwrap().lifetimes, ["0"]);
    let looks = || router.lock().unwrap().asked["GetSpecificPortMappingEntry"];
    tokio::time::sleep(SHORT.lifetime).await;
    assert!(looks() >= 3, "{}", looks());
    assert_eq!(router.lock().unwrap().added, 1);
    router.lock().unwrap().mapped.clear();
    until("it is mapped again", || router.lock().unwrap().added == 2).await;
    assert_eq!(router.lock().unwrap().lifetimes, ["0", "0"]);
    mapping.release().await;
    assert!(router.lock().unwrap().mapped.is_empty());
    // One that takes no end either way is left alone.
    let (at, router) = self::router(&[ENDLESS_WANTED]);
    assert!(open(gateway(at), SHORT, nobody).await.is_err());
    assert_eq!(router.lock().unwrap().asked["AddPortMapping"], 2);
}

/// Long before it would be renewed.
#[tokio::test]
async fn what_a_router_forgets_is_mapped_again_soon_or_lost() {
    let terms = Terms {
        lifetime: TERMS.lifetime,
        ..SHORT
    };
    let (at, router) = router(&[0]);
    let mapping = open(gateway(at), terms, nobody).await.unwrap();
    let added = || router.lock().unwrap().added;
    let told = mapping.watch();
    router.lock().unwrap().mapped.clear();
    until("it is mapped again", || added() == 2).await;
    router.lock().unwrap().client = "127.0.0.2";
    until("it is taken back", || added() > 2).await;
    router.lock().unwrap().client = "127.0.0.1";
    router.lock().unwrap().ip = "11.0.0.8";
    let is_told = || {
        told.borrow()
            .is_some_and(|at| at.ip().to_string() == "11.0.0.8")
    };
    until("its new address is told", is_told).await;
    // As long as it is there nothing is asked for.
    let before = added();
    tokio::time::sleep(3 * terms.look).await;
    assert_eq!(added(), before);
    // One that cannot tell is asked to map it each time.
    router.lock().unwrap().tells = false;
    until("it is mapped again", || added() >= before + 2).await;
    let looks = || router.lock().unwrap().asked["GetSpecificPortMappingEntry"];
    let before = looks();
    router.lock().unwrap().tells = true;
    until("it is looked again", || looks() >= before + 2).await;
    // What is another host's now is lost at the first refusal, and left to that.
    let lost = {
        let mut router = router.lock().unwrap();
        (router.client, router.says) = ("127.0.0.2", vec![501]);
        router.asked["AddPortMapping"] + 2
    };
    until("it is lost", || told.borrow().is_none()).await;
    mapping.release().await;
    let router = router.lock().unwrap();
    assert_eq!(router.asked["AddPortMapping"], lost);
    assert_eq!(router.mapped.len(), 1);
}

/// Its address of the Internet is another: the router may have been restarted.
#[tokio::test]
async fn it_is_looked_at_once_when_others_see_the_host_elsewhere() {
    let terms = Terms {
        look: TERMS.lifetime,
        ..SHORT
    };
    let terms = Terms {
        lifetime: 4 * TERMS.lifetime,
        ..terms
    };
    let seen_at = |ips: &[[u8; 4]]| External {
        told: ips.iter().map(|ip| (*ip, 7).into()).collect(),
        tried: Vec::new(),
    };
    let [one, other] = [[11, 0, 0, 7], [11, 0, 0, 8]];
    let (external, seen) = watch::channel(seen_at(&[one]));
    let (at, router) = router(&[0]);
    let mapping = Mapping::open(gateway(at), (PORT, 40_000), terms, seen, nobody);
    let mapping = mapping.await.unwrap();
    let looks = || {
        let asked = &router.lock().unwrap().asked;
        asked
            .get("GetSpecificPortMappingEntry")
            .copied()
            .unwrap_or_default()
    };
    router.lock().unwrap().ip = "11.0.0.8";
    external.send_replace(seen_at(&[]));
    tokio::time::sleep(4 * terms.look_early).await;
    assert_eq!(looks(), 0);
    external.send_replace(seen_at(&[one, other]));
    until("it is looked", || looks() == 1).await;
    let told = mapping.watch();
    let is_told = || told.borrow().is_some_and(|at| at.ip().octets() == other);
    until("its new address is told", is_told).await;
}

/// The host that gives a description is the only one that is asked, whatever it says.
#[test]
fn no_description_leads_to_another_host() {
    let at = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 1), 5000);
    let of = |base: &str, control: &str| {
        let text = format!(
            "<root><URLBase>{base}</URLBase><device><serviceList><service><serviceType>\
             urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>{control}\
             </controlURL></service></serviceList></device></root>"
        );
        let gateway = described(&text, at, Ipv4Addr::LOCALHOST)?;
        let [line] = &gateway.services[..] else {
            panic!("there is one");
        };
        assert_eq!(line.at.ip(), at.ip(), "{base} {control}");
        Some((line.at.port(), line.control.clone()))
    };
    for (base, control, wanted) in [
        ("", "/c", (5000, "/c")),
        ("http://192.168.1.1:80/", "/c", (80, "/c")),
        ("http://192.168.1.1:49152", "/c?a=/", (49152, "/c?a=/")),
        (
            "http://192.168.1.1:80/upnp/x.xml?a=/b/",
            "c",
            (80, "/upnp/c"),
        ),
        ("http://192.168.1.1:80/upnp/", "/c", (80, "/c")),
        (
            "http://192.168.1.1:80/",
            "http://192.168.1.1:81/c",
            (81, "/c"),
        ),
        // What leads elsewhere, or nowhere, is as none.
        ("http://192.168.1.2:80/", "/c", (5000, "/c")),
        ("http://192.168.1.1@192.168.1.2:80/", "/c", (5000, "/c")),
        ("https://192.168.1.1/", "/c", (5000, "/c")),
        ("http://router/", "c", (5000, "/c")),
        ("/upnp/", "c", (5000, "/c")),
        (
            "http://192.168.1.1:80/@192.168.1.2/",
            "c",
            (80, "/@192.168.1.2/c"),
        ),
    ] {
        let (port, path) = wanted;
        let wanted = Some((port, path.to_owned()));
        assert_eq!(of(base, control), wanted, "{base} {control}");
    }
    for control in [
        "http://192.168.1.2/c",
        "//:@192.168.1.2://c",
        "@192.168.1.2:80/c d",
    ] {
        assert_eq!(of("http://192.168.1.1:80", control), None, "{control}");
    }
}

/// A description that names many lines has few of them asked.
#[test]
fn few_lines_are_looked_at() {
    let line = "<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:2</serviceType>\
                <controlURL>/c</controlURL></service>";
    let at = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80);
    for (count, wanted) in [(2, 2), (1000, xml::SERVICES_MAX)] {
        let text = format!("<root>{}</root>", line.repeat(count));
        let gateway = described(&text, at, Ipv4Addr::LOCALHOST).unwrap();
        assert_eq!(gateway.services.len(), wanted);
    }
    assert_eq!(described("<root/>", at, Ipv4Addr::LOCALHOST), None);
    // What comes before a mistake is of use.
    let broken = format!("<root>{line}</device>");
    assert!(described(&broken, at, Ipv4Addr::LOCALHOST).is_some());
}
