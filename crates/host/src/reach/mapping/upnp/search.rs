//! Finds a router by SSDP (UPnP Device Architecture 1.1, section 1.3). Whoever is in the local network
//! may answer, as often as it likes; few answers are followed, and none that leads elsewhere.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use hyper::{StatusCode, Uri};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Gateway, Service, http, xml};
use crate::session::Reach;

/// The group that hears such questions.
const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), 1900);

/// Answers come within a second, as the question says, and the network takes time as well.
const SEARCH: &str = "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n\
    ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n\r\n";

/// How long answers to the question are taken.
const LISTEN_TIME: Duration = Duration::from_millis(1500);

/// How long the search may take, with the questions to those who answered.
const FIND_TIME_MAX: Duration = Duration::from_secs(4);

/// How many datagrams are looked at.
const DATAGRAMS_MAX: usize = 512;

/// How many hosts are asked for their description; each is asked once.
pub(super) const FOLLOWED_MAX: usize = 4;

/// How long a datagram may be, in octets; what is longer is cut.
const DATAGRAM_MAX: usize = 2048;

/// Looks for a router of the site. `own` are this host's addresses but for those of virtual networks.
pub(crate) async fn find(own: Vec<IpAddr>) -> Option<Gateway> {
    // The address of the way that leads everywhere; if that is a virtual network, as where all goes by an
    // exit, nobody is asked: any member could say to be the router. Nothing is sent to the other one,
    // which is of the documentation (RFC 5737).
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok()?;
    probe.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).await.ok()?;
    let local = probe.local_addr().ok()?.ip();
    if !own.contains(&local) {
        return None;
    }
    let socket = UdpSocket::bind((local, 0)).await.ok()?;
    let is_of_site = |at| matches!(Reach::of(IpAddr::V4(at)), Reach::Link | Reach::Site);
    search(&socket, GROUP, is_of_site).await
}

/// Asks a group, and those who answer from an address that may; returns the first that describes a
/// router. The others' answers are not waited for.
pub(super) async fn search(
    socket: &UdpSocket,
    group: SocketAddrV4,
    may_answer: impl Fn(Ipv4Addr) -> bool,
) -> Option<Gateway> {
    socket.send_to(SEARCH.as_bytes(), group).await.ok()?;
    let until = Instant::now() + LISTEN_TIME;
    let mut asked: Vec<Ipv4Addr> = Vec::new();
    let mut described = JoinSet::new();
    let mut datagrams = 0;
    let mut datagram = [0; DATAGRAM_MAX];
    let found = async {
        loop {
            let is_listening = datagrams < DATAGRAMS_MAX && asked.len() < FOLLOWED_MAX;
            tokio::select! {
                received = socket.recv_from(&mut datagram), if is_listening => {
                    datagrams += 1;
                    let Ok((length, SocketAddr::V4(from))) = received else {
                        continue;
                    };
                    let from = *from.ip();
                    if asked.contains(&from) || !may_answer(from) {
                        continue;
                    }
                    if let Some((at, path)) = location(&datagram[..length], from) {
                        asked.push(from);
                        described.spawn(describe(at, path));
                    }
                }
                Some(described) = described.join_next() => {
                    if let Ok(Some(gateway)) = described {
                        return Some(gateway);
                    }
                }
                () = tokio::time::sleep_until(until), if is_listening => datagrams = DATAGRAMS_MAX,
                else => return None,
            }
        }
    };
    tokio::time::timeout(FIND_TIME_MAX, found).await.ok()?
}

/// Returns where an answer says that the description is, if that is at the address it came from.
pub(super) fn location(datagram: &[u8], from: Ipv4Addr) -> Option<(SocketAddrV4, String)> {
    let text = std::str::from_utf8(datagram).ok()?;
    let mut lines = text.lines();
    let status = lines.next()?;
    if !status.starts_with("HTTP/1.") || status.split_whitespace().nth(1) != Some("200") {
        return None;
    }
    let mut headers = lines.filter_map(|line| line.split_once(':'));
    let (_, value) = headers.find(|(name, _)| name.trim().eq_ignore_ascii_case("location"))?;
    at_address(value.trim(), from)
}

/// Returns the port and the path of an address of HTTP, if its host is this one.
fn at_address(text: &str, host: Ipv4Addr) -> Option<(SocketAddrV4, String)> {
    let uri: Uri = text.parse().ok()?;
    let is_there = uri.scheme_str() == Some("http") && uri.host()?.parse() == Ok(host);
    // A port that is no number of 16 bits is as none to the library.
    let port = match uri.port_u16() {
        None if uri.authority()?.as_str().contains(':') => return None,
        port => port.unwrap_or(80),
    };
    let path = uri.path_and_query()?.as_str().to_owned();
    (is_there && port != 0).then(|| (SocketAddrV4::new(host, port), path))
}

/// Asks for a description, and looks for what maps ports in it.
async fn describe(at: SocketAddrV4, path: String) -> Option<Gateway> {
    let answer = http::ask(at, &path, None).await;
    let answer = answer
        .inspect_err(|error| tracing::debug!(%at, %error, "no description by UPnP"))
        .ok()?;
    if answer.status != StatusCode::OK {
        return None;
    }
    described(&answer.text, at, answer.local)
}

/// Reads the description that is at an address; `local` is the one of this host that the router sees.
/// Whatever it says, nobody else is asked than who gave it.
pub(super) fn described(text: &str, at: SocketAddrV4, local: Ipv4Addr) -> Option<Gateway> {
    let described = xml::described(text)?;
    let base = described.base.and_then(|base| at_address(&base, *at.ip()));
    let (at, directory) = base.map_or((at, String::new()), |(at, path)| (at, directory_of(&path)));
    let services = described.services.into_iter();
    let services = services.filter_map(|(kind, control)| {
        let (at, control) = controlled_at(&control, at, &directory)?;
        Some(Service {
            at,
            control,
            kind,
            local,
        })
    });
    Gateway::new(services.collect())
}

/// Returns what of a path others are relative to: all before its last slash (RFC 3986, section 5.2.3).
fn directory_of(path: &str) -> String {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let directory = path.rsplit_once('/').map(|(directory, _)| directory);
    directory.unwrap_or_default().to_owned()
}

/// Resolves the address that takes questions: a whole one of the same host, or a path. One without a
/// slash in front is relative to the directory.
pub(super) fn controlled_at(
    control: &str,
    at: SocketAddrV4,
    directory: &str,
) -> Option<(SocketAddrV4, String)> {
    let host = *at.ip();
    match control {
        whole if whole.contains("://") => at_address(whole, host),
        path if path.starts_with('/') => at_address(&format!("http://{at}{path}"), host),
        path => at_address(&format!("http://{at}{directory}/{path}"), host),
    }
}
