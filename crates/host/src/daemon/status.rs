//! `status` and `peers`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use enishi_api::{Account, Answer, Failure, Nat, Peer, Refused, Sent, Service, Status};
use enishi_overlay::class::Class;
use enishi_overlay::overlay::Counters;
use enishi_overlay::standing::Policy;
use enishi_overlay::{NodeId, Position, Time};
use enishi_services::Node;

use super::desk::Desk;
use super::gateway::forwards;
use super::{bootstrap, channels, closed, discovery, dns, lifetime};

/// How many messages services of the node did not read.
#[derive(Clone, Copy)]
struct Unread {
    malformed: u64,
    flooded: u64,
}

pub(super) async fn status(desk: &Desk) -> Result<Answer, Failure> {
    let channels = channels::all(desk).await?;
    let nat = nat(desk).await?;
    let look = |node: &Node| {
        let overlay = node.overlay();
        (
            overlay.size_estimate(),
            overlay.joined(),
            node.dht().store().len(),
            overlay.counters(),
            Unread {
                malformed: node.dht().malformed() + node.vnet().malformed(),
                flooded: node.vnet().flooded(),
            },
            (overlay.class(), overlay.clients()),
            (service(node), overlay.position(), bootstrap::company(node)),
        )
    };
    let (overlay_size_estimate, joined, records_held, counters, unread, classes, service) =
        desk.look(look).await?;
    let ((class, clients), (mut service, position, company)) = (classes, service);
    relays(desk, &mut service);
    let shared = &desk.shared;
    let mut notices = shared.noted();
    notices.extend(closed::notice(desk).await?);
    Ok(Answer::Status(Box::new(Status {
        node_id: desk.sessions.me().to_string(),
        position: position.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: shared.started.elapsed().as_secs(),
        peers: u32::try_from(desk.sessions.sessions().len()).unwrap_or(u32::MAX),
        overlay_size_estimate,
        joined,
        class: class.name().to_owned(),
        clients: u32::try_from(clients).unwrap_or(u32::MAX),
        addresses: desk.sessions.addresses(),
        nat,
        bootstrap: shared.found_by.told(&company.peers),
        records_held: records_held as u64,
        service,
        sent: sent(desk),
        refused: refused(desk, counters, unread),
        channels,
        names: dns::state(desk).map(Box::new),
        discovery: discovery::in_use(desk),
        proxies: shared.proxies,
        upstream: shared.upstream.line(),
        turn: shared.turn.serving(&shared.config.turn.realm).map(Box::new),
        forwards: forwards::all(desk),
        notices,
    })))
}

/// How others see the node, and what the router does for it.
pub(super) async fn nat(desk: &Desk) -> Result<Nat, Failure> {
    let look = |node: &Node| (node.reach().mapping(), node.reach().observed().to_vec());
    let (mapping, observed) = desk.look(look).await?;
    let mapped = desk.shared.mapped.borrow();
    Ok(Nat {
        mapping: mapping.as_str().to_owned(),
        observed,
        observed_packets: desk.shared.networks.outside(),
        mapped: mapped.sessions,
        mapped_packets: mapped.packets,
        router: mapped.router,
        lifetime: lifetime::told(&desk.shared.kept),
    })
}

fn service(node: &Node) -> Service {
    let overlay = node.overlay();
    let policy = match overlay.config().policy {
        Policy::None => "none",
        Policy::Trust => "trust",
        Policy::Reputation => "reputation",
    };
    let accounts = overlay.accounts();
    Service {
        policy: policy.to_owned(),
        carried_messages: accounts.carried_messages(),
        carried_bytes: accounts.carried_bytes(),
        declined_messages: accounts.declined_messages(),
        stored_bytes: node.dht().store().bytes(),
        ..Service::default()
    }
}

/// Adds what is relayed of packets.
fn relays(desk: &Desk, service: &mut Service) {
    let relayed = desk.shared.networks.report().relayed;
    service.relayed_pairs = u32::try_from(relayed.pairs).unwrap_or(u32::MAX);
    service.relayed_packets = relayed.packets;
    service.relayed_bytes = relayed.bytes;
    service.relay_dropped_packets = relayed.dropped_packets;
    let carrier = desk.shared.carrier.as_ref();
    service.carried_packet_bytes = carrier.map_or(0, |carrier| carrier.carried_bytes());
}

/// What the node and another did for each other.
fn account(node: &Node, now: Time, id: NodeId) -> Account {
    let account = node.overlay().accounts().of(id);
    let account = account.copied().unwrap_or_default();
    Account {
        carried_messages: account.carried_messages,
        carried_bytes: account.carried_bytes,
        declined_messages: account.declined_messages,
        stored_bytes: node.dht().store().bytes_of(id),
        delivered_messages: account.delivered_messages,
        dropped_messages: account.dropped_messages,
        given_back_messages: account.given_back_messages,
        bad_standing: account.is_bad(now),
    }
}

fn sent(desk: &Desk) -> Sent {
    let counters = desk.sessions.counters();
    Sent {
        messages: counters.frames_sent,
        bytes: counters.frame_bytes_sent,
    }
}

fn refused(desk: &Desk, overlay: Counters, unread: Unread) -> Refused {
    let (shared, sessions) = (&desk.shared, desk.sessions.counters());
    let report = shared.networks.report();
    Refused {
        malformed_messages: shared.malformed_messages.load(Relaxed) + unread.malformed,
        flooded_messages: shared.flooded_messages.load(Relaxed) + unread.flooded,
        foreign_packets: report.refused,
        foreign_frames: report.foreign_frames,
        storm_packets: report.storm_packets,
        messages_refused: overlay.messages_refused,
        hops_dropped: overlay.hops_dropped,
        copies_withheld: overlay.copies_withheld,
        peers_lost: overlay.peers_lost,
        frames_dropped: sessions.frames_dropped,
        frames_lost: sessions.frames_lost,
        frames_oversized: sessions.frames_oversized,
        sessions_refused: sessions.sessions_refused,
        dials_refused: sessions.dials_refused,
    }
}

pub(super) async fn peers(desk: &Desk) -> Result<Answer, Failure> {
    let uptime = desk.shared.started.elapsed();
    let now = Time::ZERO + uptime;
    let look = move |node: &Node| known(node, now);
    let mut peers = desk.look(look).await?;
    for session in desk.sessions.sessions() {
        let peer = peers.entry(session.peer);
        let peer = peer.or_insert_with(|| absent(session.peer, "session", None, None));
        peer.connected = true;
        if !session.path.is_empty() {
            peer.path = session.path;
        }
        peer.rtt_ms = Some(session.rtt.as_secs_f64() * 1e3);
        peer.bytes_sent = session.bytes_sent;
        peer.bytes_received = session.bytes_received;
    }
    for (id, peer) in &mut peers {
        peer.position = Position::of_node(&desk.shared.overlay, id).to_string();
    }
    let peers = peers.into_values().collect();
    Ok(Answer::Peers { peers })
}

/// Whom the overlay knows, without what the sessions know.
fn known(node: &Node, now: Time) -> BTreeMap<NodeId, Peer> {
    let overlay = node.overlay();
    let members = overlay.peers().flat_map(|peer| peer.view().members());
    let known = members.filter_map(|m| Some((m.contact.as_ref()?.id(), m.grade.class())));
    let known = known.filter(|(id, _)| *id != overlay.me().id());
    let mut peers: BTreeMap<NodeId, Peer> = known
        .map(|(id, class)| (id, absent(id, "known", None, Some(class))))
        .collect();
    for peer in overlay.peers() {
        let id = peer.contact().id();
        let class = peer.grade().class();
        let role = if overlay.near().contains(id) {
            "near"
        } else if overlay.is_client() {
            "host"
        } else {
            "long"
        };
        peers.insert(
            id,
            absent(id, role, peer.round_trip().smoothed(), Some(class)),
        );
    }
    for id in overlay.attached() {
        peers.insert(id, absent(id, "client", None, Some(Class::Client)));
    }
    for (id, peer) in &mut peers {
        peer.account = account(node, now, *id);
    }
    peers
}

fn absent(id: NodeId, role: &str, rtt: Option<Duration>, class: Option<Class>) -> Peer {
    Peer {
        node_id: id.to_string(),
        position: String::new(),
        role: role.to_owned(),
        class: class.map(|class| class.name().to_owned()),
        connected: false,
        path: "-".to_owned(),
        rtt_ms: rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        bytes_sent: 0,
        bytes_received: 0,
        account: Account::default(),
    }
}
