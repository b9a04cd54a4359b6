//! Ties the node to what looks for others of its overlay ([`crate::bootstrap`]), and answers who asks
//! at the port of packets who this node is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use enishi_overlay::{Contact, Rng};
use enishi_services::Node;
use enishi_services::rendezvous::Rendezvous;
use tokio::sync::{mpsc, watch};

use super::desk::Desk;
use super::invitations::contacts;
use crate::bootstrap::{self, Answerer, Around, Audience, Company, Plan};
use crate::packets::Networks;

/// How many questions wait; further ones are dropped.
pub(super) const QUESTIONS_MAX: usize = 64;

/// How many finds wait for the node.
const FOUND_MAX: usize = 16;

/// Between two looks at whom the node knows, while it is alone and later.
const LOOK_INTERVAL_ALONE: Duration = Duration::from_millis(500);
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Starts everything. Nothing of it keeps the daemon from stopping.
pub(super) fn start(desk: &Desk, questions: mpsc::Receiver<(SocketAddr, Bytes)>) {
    let shared = &desk.shared;
    let mut seed = [0; 32];
    if let Err(error) = getrandom::fill(&mut seed) {
        tracing::warn!(%error, "nobody is looked for: the system gives no random numbers");
        return;
    }
    let membership = shared.closed.as_ref().map(|member| &member.card.membership);
    let rendezvous = Rendezvous::new(&shared.overlay, membership);
    let plan = plan(desk);
    let audience = match (shared.config.bootstrap_server, &plan.mainline, plan.mdns) {
        (true, _, _) | (_, Some(_), _) => Audience::Everybody,
        (_, _, true) => Audience::Site,
        _ => Audience::Nobody,
    };
    note_port(desk);
    let answerer = Answerer::new(rendezvous.clone(), audience, Rng::from_seed(seed));
    tokio::spawn(answer(desk.clone(), answerer, questions));
    let (known, company) = watch::channel(Company::default());
    tokio::spawn(look(desk.clone(), known));
    let (found, found_inlet) = mpsc::channel(FOUND_MAX);
    tokio::spawn(hand_over(desk.clone(), found_inlet));
    let around = Around {
        rendezvous,
        found,
        company,
        networks: Arc::clone(&shared.networks),
        addresses: desk.sessions.watch_local_addresses(),
        book: Arc::clone(&shared.found_by),
        stop: desk.ending.stop.clone(),
    };
    bootstrap::start(plan, &around);
}

/// Notes that a Bootstrap Server is not asked where others expect it.
fn note_port(desk: &Desk) {
    let sessions = desk.sessions.listening().first().map(SocketAddr::port);
    let expected = sessions.and_then(|port| port.checked_add(1));
    let actual = desk.shared.networks.port();
    if let (true, Some(expected), Some(actual)) =
        (desk.shared.config.bootstrap_server, expected, actual)
        && expected != actual
    {
        let notice = format!(
            "UDP port {expected} is in use, at which a Bootstrap Server is asked; others have to name \
             port {actual} (`--bootstrap NAME:{actual}`), or free it and start this node again"
        );
        tracing::warn!("{notice}");
        desk.shared.note("bootstrap server", notice);
    }
}

fn plan(desk: &Desk) -> Plan {
    let config = &desk.shared.config;
    let listening = desk.sessions.listening();
    let on_loopback = listening.iter().all(|at| at.ip().is_loopback());
    let nodes = &config.bootstrap_mainline_nodes;
    Plan {
        mdns: config.mdns && !on_loopback,
        servers: config.bootstrap.clone(),
        lists: config.bootstrap_dns.clone(),
        mainline: config.bootstrap_mainline.then(|| nodes.clone()),
    }
}

/// Returns whom the node knows.
pub(super) fn company(node: &Node) -> Company {
    let overlay = node.overlay();
    let peers = overlay.peers().map(|peer| peer.contact().id()).collect();
    let near = match overlay.is_client() {
        // A client has hosts, and needs no more than one.
        true if overlay.peers().next().is_some() => bootstrap::FEW,
        true => 0,
        false => overlay.near().len(),
    };
    Company { near, peers }
}

/// Tells those who look for others whom the node knows, as it changes.
async fn look(desk: Desk, known: watch::Sender<Company>) {
    while let Ok(company) = desk.look(company).await {
        let interval = match company.near {
            0 => LOOK_INTERVAL_ALONE,
            _ => LOOK_INTERVAL,
        };
        known.send_if_modified(|before| {
            let is_new = *before != company;
            *before = company;
            is_new
        });
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = desk.ending.stop.cancelled() => return,
        }
    }
}

/// Hands the node what was found.
async fn hand_over(desk: Desk, mut found: mpsc::Receiver<Vec<Contact>>) {
    while let Some(contacts) = found.recv().await {
        tracing::debug!(?contacts, "found");
        if desk.bootstrap(contacts).await.is_err() {
            return;
        }
    }
}

/// Answers who asks, as long as there is somebody to ask for.
async fn answer(
    desk: Desk,
    mut answerer: Answerer,
    mut questions: mpsc::Receiver<(SocketAddr, Bytes)>,
) {
    let hands_out = desk.shared.config.bootstrap_server;
    let networks: &Networks = &desk.shared.networks;
    loop {
        let question = tokio::select! {
            question = questions.recv() => question,
            () = desk.ending.stop.cancelled() => return,
        };
        let Some((from, octets)) = question else {
            return;
        };
        let own = desk.sessions.local_addresses();
        let Some(asked) = answerer.read(Instant::now(), from, &own, &octets) else {
            continue;
        };
        let Ok(contacts) = desk.look(move |node| named(node, hands_out)).await else {
            return;
        };
        let port = desk.sessions.listening().first().map(SocketAddr::port);
        if let (Some(port), false) = (port, contacts.is_empty()) {
            let answer = answerer.answer(&asked, port, contacts);
            networks.send(from, Bytes::from(answer));
        }
    }
}

/// Returns whom the node names: itself first. A client is no way into the ring, and names nobody.
fn named(node: &Node, hands_out: bool) -> Vec<Contact> {
    let overlay = node.overlay();
    match (overlay.is_client(), hands_out) {
        (true, _) => Vec::new(),
        (false, true) => contacts(node),
        (false, false) => vec![overlay.me().clone()],
    }
}
