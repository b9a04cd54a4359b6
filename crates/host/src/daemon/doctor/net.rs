//! How the node gets out of its network, and what passes: `enishi doctor net`.

use std::net::SocketAddr;

use enishi_api::{Answer, Failure, Finding, Outcome};
use enishi_overlay::{Contact, PathKind};
use enishi_proxy::Route;
use enishi_services::Node;
use tokio::sync::mpsc;

use super::Report;
use crate::daemon::desk::Desk;
use crate::daemon::{lifetime, status};
use crate::reach::link::{self, Passage};
use crate::session::{Reach, SessionInfo};

/// With how many peers it is tried what passes.
const TRIED_MAX: usize = 2;

/// A router that forgets a mapping within so many seconds is worth a word.
const SHORT_S: u64 = 22;

/// Looks at everything, one thing after the other; for each peer that is tried a minute and a half at
/// most.
pub(in crate::daemon) async fn examine(
    desk: &Desk,
    answers: &mpsc::Sender<Answer>,
) -> Result<Answer, Failure> {
    let mut report = Report::new(answers);
    let nat = Box::new(status::nat(desk).await?);
    let own = desk.sessions.local_addresses();
    let is_hard = matches!(nat.mapping.as_str(), "random" | "sequential");
    let outcome = match is_hard && nat.mapped.is_none() {
        true => Outcome::Warning,
        false => Outcome::Ok,
    };
    report
        .tell(outcome, Finding::Translation { nat, own })
        .await;
    let lifetime = lifetime::told(&desk.shared.kept);
    let is_short = lifetime.less_than_s.is_some_and(|less| less <= SHORT_S);
    let outcome = match is_short {
        true => Outcome::Warning,
        false => Outcome::Ok,
    };
    report.tell(outcome, Finding::Lifetime(lifetime)).await;
    let paths = paths(desk);
    let outcome = match paths {
        Finding::Paths {
            datagrams: 0,
            site: 0,
            streams: 0,
            relayed: 0,
        } => Outcome::Problem,
        // In a site without an Internet there is nothing to be warned of.
        Finding::Paths {
            datagrams: 0,
            site,
            streams,
            relayed,
        } if site == 0 || streams + relayed > 0 => Outcome::Warning,
        _ => Outcome::Ok,
    };
    report.tell(outcome, paths).await;
    let proxies = &desk.shared.upstream.proxies;
    let peers = desk.look(listening).await?;
    let example = peers
        .first()
        .map_or("192.0.2.1".to_owned(), |at| at.ip().to_string());
    let routes = proxies.proxies_for(&format!("https://{example}/")).await;
    let routes = routes.iter().map(told).collect();
    report.tell(Outcome::Ok, Finding::Proxies { routes }).await;
    for server in desk.shared.turn.servers() {
        let outcome = match server.relayed {
            Some(_) => Outcome::Ok,
            None => Outcome::Problem,
        };
        report.tell(outcome, Finding::TurnServer(server)).await;
    }
    if peers.is_empty() {
        report.tell(Outcome::Warning, Finding::NoPassage).await;
    }
    let mut blocked = Vec::new();
    let mut passes = false;
    for peer in &peers {
        for passage in link::survey(*peer, proxies).await {
            let Passage { about, took, found } = passage;
            let Some(took) = took else {
                blocked.push(match found.is_empty() {
                    true => about,
                    false => format!("{about} ({found})"),
                });
                continue;
            };
            let finding = Finding::Passage {
                way: about,
                took_ms: took.as_millis() as u64,
                found,
            };
            passes = true;
            report.tell(Outcome::Ok, finding).await;
        }
    }
    if !blocked.is_empty() {
        // It is no fault as long as something passes.
        let outcome = if passes {
            Outcome::Ok
        } else {
            Outcome::Warning
        };
        report
            .tell(outcome, Finding::Blocked { ways: blocked })
            .await;
    }
    Ok(report.conclude())
}

/// Over what the sessions go.
fn paths(desk: &Desk) -> Finding {
    let sessions = desk.sessions.sessions();
    let of_the_internet = |session: &SessionInfo| {
        let at = session.address;
        at.is_some_and(|at| Reach::of(at.ip()) == Reach::Internet)
    };
    let count = |is_it: &dyn Fn(&SessionInfo) -> bool| {
        sessions.iter().filter(|session| is_it(session)).count() as u32
    };
    let is_straight = |session: &SessionInfo| session.kind == PathKind::Direct;
    Finding::Paths {
        datagrams: count(&|session| is_straight(session) && of_the_internet(session)),
        site: count(&|session| session.address.is_some() && !of_the_internet(session)),
        streams: count(&|session| is_straight(session) && session.address.is_none()),
        relayed: count(&|session| session.kind == PathKind::Relayed),
    }
}

/// Returns where peers are, those first that others are known to reach.
fn listening(node: &Node) -> Vec<SocketAddr> {
    let mut peers: Vec<_> = node.overlay().peers().collect();
    peers.sort_by_key(|peer| !peer.grade().is_reachable());
    let of_the_internet = |contact: &Contact| {
        let mut addresses = contact.addresses().iter().copied();
        addresses.find(|at| Reach::of(at.ip()) == Reach::Internet)
    };
    let addresses = peers
        .iter()
        .filter_map(|peer| of_the_internet(peer.contact()));
    addresses.take(TRIED_MAX).collect()
}

/// A route, for people.
fn told(route: &Route) -> String {
    match route {
        Route::Direct => "direct".to_owned(),
        Route::Http(server) => format!("http {server}"),
        Route::Https(server) => format!("https {server}"),
        Route::Socks5(server) => format!("socks5 {server}"),
    }
}
