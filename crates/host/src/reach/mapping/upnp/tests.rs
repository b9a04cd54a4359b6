//! A hostile router on loopback, and one that does what it should.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use super::search::{FOLLOWED_MAX, controlled_at, location, search};
use super::*;

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
    Gateway {
        at,
        control: "/c".to_owned(),
        service: "urn:schemas-upnp-org:service:WANIPConnection:1",
        local: Ipv4Addr::LOCALHOST,
    }
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
                assert_eq!(xml::service(&answer.text), None, "{name}");
            }
            Err(error) => assert!(!matches!(error, http::HttpError::Late), "{name}: {error}"),
        }
        let taken = seen.octets.load(Ordering::SeqCst);
        assert!(taken < http::ANSWER_MAX + BUFFERED, "{name}: {taken}");
        // The same to an action.
        let error = gateway(at).map(PORT, 40_000, LIFETIME).await.unwrap_err();
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
    assert_eq!(xml::service(&deep), None);
    let closed = format!("{deep}{}", "</a>".repeat(80_000));
    assert_eq!(xml::service(&closed), None);
    let spaces: String = (0..8000).map(|n| format!(" xmlns:a{n}=\"x\"")).collect();
    let spaces = format!("<r{spaces}>{}</r>", "<b/>".repeat(30_000));
    assert_eq!(xml::service(&spaces), None);
    let laughs = "<!DOCTYPE r [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;&a;\">]><r>&b;</r>";
    assert_eq!(xml::said(laughs, "X", ""), None);
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
    let control = |text: &str| controlled_at(text, at);
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

const PORT: NonZeroU16 = NonZeroU16::new(7000).unwrap();

/// A router that does it, as long as it wants to.
#[derive(Debug, Default)]
struct Router {
    mapped: Vec<u16>,
    added: usize,
    /// What it says to the next questions to map: a number of UPnP; 0 is yes. The last one stays.
    says: Vec<u16>,
}

impl Router {
    fn answer(&mut self, question: &str) -> (u16, String) {
        if question.starts_with("GET") {
            return (200, DESCRIBED.to_owned());
        }
        let value = |name: &str| {
            let (_, rest) = question.split_once(&format!("<{name}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        let action = question.split_once("<u:").unwrap().1;
        let action = action.split_once(' ').unwrap().0;
        let mut said = String::new();
        let mut refusal = 0;
        match action {
            "GetExternalIPAddress" => {
                said = "<NewExternalIPAddress>11.0.0.7</NewExternalIPAddress>".to_owned();
            }
            "AddPortMapping" => {
                assert_eq!(value("NewInternalPort"), "7000");
                assert_eq!(value("NewInternalClient"), "127.0.0.1");
                refusal = match self.says.as_slice() {
                    [] => 0,
                    [last] => *last,
                    _ => self.says.remove(0),
                };
                if refusal == 0 {
                    self.added += 1;
                    let outer = value("NewExternalPort").parse().unwrap();
                    self.mapped.retain(|mapped| *mapped != outer);
                    self.mapped.push(outer);
                }
            }
            "DeletePortMapping" => {
                let outer: u16 = value("NewExternalPort").parse().unwrap();
                self.mapped.retain(|mapped| *mapped != outer);
            }
            other => panic!("nothing else is asked: {other}"),
        }
        let envelope = |inner: String| {
            format!(
                "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"x\"><s:Body>{inner}</s:Body></s:Envelope>"
            )
        };
        match refusal {
            0 => (
                200,
                envelope(format!(
                    "<u:{action}Response xmlns:u=\"y\">{said}</u:{action}Response>"
                )),
            ),
            number => (
                500,
                envelope(format!(
                    "<s:Fault><faultcode>s:Client</faultcode><detail><UPnPError><errorCode>\
                     {number}</errorCode><errorDescription/></UPnPError></detail></s:Fault>"
                )),
            ),
        }
    }
}

const DESCRIBED: &str = "<?xml version=\"1.0\"?>\r\n<root xmlns=\"urn:schemas-upnp-org:device-1-0\">\
    <device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>\
    <serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>\
    <controlURL>/l3</controlURL></service></serviceList><deviceList><device><serviceList><service>\
    <serviceType>\n urn:schemas-upnp-org:service:WANPPPConnection:1 \n</serviceType>\
    <SCPDURL>/s</SCPDURL><controlURL>/c?a=1&amp;b=2</controlURL><eventSubURL/></service>\
    </serviceList></device></deviceList></device></root>";

/// Starts one.
fn router(says: &[u16]) -> (SocketAddrV4, Arc<Mutex<Router>>) {
    let listener = listen("127.0.0.1:0");
    let at = v4(&listener);
    let router = Arc::new(Mutex::new(Router {
        says: says.to_vec(),
        ..Router::default()
    }));
    let told = Arc::clone(&router);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let question = question(&mut stream).await;
            let (status, text) = router.lock().unwrap().answer(&question);
            let length = text.len();
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{text}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (at, told)
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waited);
    assert!(waited.await.is_ok(), "{what}");
}

async fn nobody() -> Option<Gateway> {
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
    assert_eq!(found.control, "/c?a=1&b=2");
    assert_eq!(
        found.service,
        "urn:schemas-upnp-org:service:WANPPPConnection:1"
    );
    let mapping = Mapping::open(found, (PORT, 40_000), Duration::from_secs(2), nobody);
    let mapping = mapping.await.unwrap();
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
    let mapped = gateway(at).map(PORT, 40_000, LIFETIME).await.unwrap();
    assert_eq!(mapped.at.port(), 7000);
}

/// One that maps to another outer port at each renewal keeps one of them, unless another host has the one before.
#[tokio::test]
async fn the_outer_port_before_is_given_back() {
    for (refusal, kept) in [(501, 1), (CONFLICTS[0], 2)] {
        let (at, router) = router(&[0, refusal, 0]);
        let ports = (PORT, 40_000);
        let mapping = Mapping::open(gateway(at), ports, Duration::from_secs(2), nobody);
        let mapping = mapping.await.unwrap();
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
    let (at, router) = router(&[725]);
    let refused = gateway(at).map(PORT, 40_000, LIFETIME).await.unwrap_err();
    assert!(matches!(refused, UpnpError::Refused(725)), "{refused}");
    assert!(router.lock().unwrap().mapped.is_empty());
}

/// One that renews nothing is believed at the end of the time, and another one is asked before.
#[tokio::test]
async fn what_is_not_renewed_is_lost() {
    let (at, router) = router(&[0, 606]);
    let mapping = Mapping::open(gateway(at), (PORT, 40_000), Duration::from_secs(2), nobody);
    let mapping = mapping.await.unwrap();
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
    let mapping = Mapping::open(gateway(at), (PORT, 40_000), Duration::from_secs(2), find);
    let mapping = mapping.await.unwrap();
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
