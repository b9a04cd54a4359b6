//! `enishi status` and `enishi peers`.

use enishi_api::{
    Answer, Channel, Forward, Nat, Peer, Proxies, Refused, Request, Service, Status, TurnServer,
};
use serde_json::json;

use super::{Context, names, show};
use crate::client::strange;
use crate::output::table::Table;
use crate::problem::{Problem, Verdict};
use crate::text::{Label, Message, octets, or_dash, protocols};

/// Tells how the node is.
pub(super) async fn status(cx: &Context) -> Result<Verdict, Problem> {
    let Answer::Status(status) = cx.client.ask(&Request::Status).await? else {
        return Err(strange(&cx.out));
    };
    if cx.out.json {
        cx.out.object(&status)?;
    } else {
        cx.out.line(&facts(cx, &status))?;
        if !status.channels.is_empty() {
            let ways = ways(cx, &status.channels);
            let channels = channels(cx, &status.channels);
            cx.out.line(&format!("\n{channels}\n\n{ways}"))?;
        }
        for notice in &status.notices {
            cx.out.line(&format!("\n{notice}"))?;
        }
    }
    Ok(Verdict::Yes)
}

/// Tells whom the node knows.
pub(super) async fn peers(cx: &Context) -> Result<Verdict, Problem> {
    let Answer::Peers { peers } = cx.client.ask(&Request::Peers).await? else {
        return Err(strange(&cx.out));
    };
    if cx.out.json {
        cx.out.object(&json!({ "peers": peers }))?;
    } else if peers.is_empty() {
        cx.out.hint(&Message::NoPeers);
    } else {
        cx.out.line(&peer_table(cx, &peers))?;
    }
    Ok(Verdict::Yes)
}

fn facts(cx: &Context, status: &Status) -> String {
    let place = if status.joined {
        Message::Joined {
            size: status.overlay_size_estimate,
            peers: status.peers,
        }
    } else {
        Message::NotJoined
    };
    let addresses: Vec<String> = status.addresses.iter().map(ToString::to_string).collect();
    let refused = &status.refused;
    let dropped = dropped(refused);
    let refused = format!(
        "{} / {} / {} {}",
        refused.malformed_messages,
        refused.flooded_messages,
        refused.foreign_packets,
        cx.out.label(Label::RefusedDetail),
    );
    let mut table = Table::default();
    for (label, value) in [
        (Label::Node, status.node_id.clone()),
        (Label::Version, status.version.clone()),
        (Label::Uptime, duration(status.uptime_s)),
        (Label::Overlay, cx.out.text(&place)),
        (Label::Class, class(cx, status)),
        (Label::Addresses, addresses.join(", ")),
        (Label::Outside, outside(&status.nat)),
        (Label::Records, status.records_held.to_string()),
        (Label::Carried, carried(&status.service)),
        (Label::Relays, relayed(cx, &status.service)),
        (Label::Names, names::line(status.names.as_deref())),
        (
            Label::Discovery,
            status.discovery.clone().unwrap_or_default(),
        ),
        (Label::Proxies, proxies(status.proxies)),
        (
            Label::TakesProxy,
            status.upstream.clone().unwrap_or_default(),
        ),
        (Label::Forwards, forwards(cx, &status.forwards)),
        (Label::TurnServer, turn(cx, status.turn.as_deref())),
        (Label::Refused, refused),
        (Label::Dropped, dropped),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    {
        table.row([cx.out.label(label).to_owned(), value]);
    }
    table.print()
}

/// What the node is, with the clients that it has, if any.
fn class(cx: &Context, status: &Status) -> String {
    match status.clients {
        0 => status.class.clone(),
        clients => {
            let clients = cx.out.text(&Message::Clients { count: clients });
            format!("{}, {clients}", status.class)
        }
    }
}

/// How the node is seen from outside, once others have told, or a router maps its port.
fn outside(nat: &Nat) -> String {
    let mapping = match nat.mapping.as_str() {
        "" | "unknown" => None,
        mapping => Some(format!("NAT: {mapping}")),
    };
    let observed = nat.observed.iter().map(ToString::to_string);
    let router = nat.router.map(protocols).unwrap_or_default();
    let mapped = nat.mapped.map(|mapped| format!("{mapped} ({router})"));
    let told = mapping.into_iter().chain(observed).chain(mapped);
    told.collect::<Vec<_>>().join(", ")
}

/// What was passed on for others, and the policy unless it is to serve all alike.
fn carried(service: &Service) -> String {
    let mut text = octets(service.carried_bytes);
    if !matches!(service.policy.as_str(), "" | "none") {
        text += &format!(" ({}: -{})", service.policy, service.declined_messages);
    }
    text
}

/// Where the TURN server is, and how many use it.
fn turn(cx: &Context, server: Option<&TurnServer>) -> String {
    server.map_or_else(String::new, |server| {
        let clients = server.allocations.len();
        let carried = octets(server.to_peers_bytes + server.to_clients_bytes);
        let label = cx.out.label(Label::Allocations);
        format!("{}, {label}: {clients}, {carried}", server.listening)
    })
}

/// What passed of packets between two others, and between how many pairs it does now.
fn relayed(cx: &Context, service: &Service) -> String {
    let bytes = service.carried_packet_bytes + service.relayed_bytes;
    if bytes == 0 && service.relayed_pairs == 0 {
        return String::new();
    }
    let pairs = service.relayed_pairs;
    cx.out.text(&Message::Relays {
        octets: octets(bytes),
        pairs,
    })
}

fn proxies(Proxies { socks, http }: Proxies) -> String {
    let proxies = [("SOCKS", socks), ("HTTP", http)].into_iter();
    let proxies = proxies.filter_map(|(name, at)| Some(format!("{name} {}", at?)));
    proxies.collect::<Vec<_>>().join(", ")
}

/// How many forwards there are, and what is in the way of those that do not work.
fn forwards(cx: &Context, forwards: &[Forward]) -> String {
    if forwards.is_empty() {
        return String::new();
    }
    let open = forwards.iter().map(|forward| forward.open).sum();
    let count = forwards.len();
    let mut told = vec![cx.out.text(&Message::ForwardsOpen { count, open })];
    told.extend(forwards.iter().filter_map(|forward| {
        let notice = forward.notice.as_ref()?;
        Some(format!("{}: {notice}", forward.id))
    }));
    told.join("; ")
}

/// The figures that are seldom anything but zero, where they are not, called as with
/// `--json`.
fn dropped(refused: &Refused) -> String {
    let figures = [
        ("storm_packets", refused.storm_packets),
        ("messages_refused", refused.messages_refused),
        ("hops_dropped", refused.hops_dropped),
        ("copies_withheld", refused.copies_withheld),
        ("peers_lost", refused.peers_lost),
        ("frames_dropped", refused.frames_dropped),
        ("frames_lost", refused.frames_lost),
        ("frames_oversized", refused.frames_oversized),
        ("sessions_refused", refused.sessions_refused),
        ("dials_refused", refused.dials_refused),
    ];
    let some = figures.into_iter().filter(|(_, count)| *count > 0);
    let texts: Vec<String> = some
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    texts.join(", ")
}

/// The table of channels, with what a person should know about them below.
pub(super) fn channels(cx: &Context, channels: &[Channel]) -> String {
    let labels = [
        Label::Channel,
        Label::Network,
        Label::Address,
        Label::Address6,
        Label::Interface,
        Label::Online,
        Label::Members,
    ];
    let headings = labels.map(|label| cx.out.label(label));
    let mut table = Table::new(headings).right(5).right(6);
    for channel in channels {
        table.row([
            channel.name.clone(),
            channel.network.clone(),
            or_dash(channel.address),
            or_dash(channel.address6),
            or_dash(channel.interface.as_deref()),
            channel.online.to_string(),
            channel.members.to_string(),
        ]);
    }
    let notices = channels.iter().filter_map(|channel| {
        channel
            .notice
            .as_ref()
            .map(|notice| format!("\n{}: {notice}", channel.name))
    });
    table.print() + &notices.collect::<String>()
}

/// How this node stands in each channel, and by which ways it reaches what.
fn ways(cx: &Context, channels: &[Channel]) -> String {
    let labels = [
        Label::Channel,
        Label::Standing,
        Label::Direct,
        Label::Relayed,
        Label::InSession,
        Label::Exit,
        Label::Routes,
        Label::WireGuard,
    ];
    let headings = labels.map(|label| cx.out.label(label));
    let mut table = Table::new(headings).right(2).right(3).right(4);
    for channel in channels {
        let clients = (channel.wireguard_clients > 0).then(|| {
            format!(
                "{}/{}",
                channel.wireguard_attached, channel.wireguard_clients
            )
        });
        table.row([
            channel.name.clone(),
            show::standing(cx, channel.founder, channel.admin),
            channel.direct.to_string(),
            channel.relayed.to_string(),
            channel.in_session.to_string(),
            or_dash(channel.exit.as_deref()),
            or_dash((!channel.routes.is_empty()).then(|| channel.routes.join(", "))),
            or_dash(clients),
        ]);
    }
    table.print()
}

fn peer_table(cx: &Context, peers: &[Peer]) -> String {
    let labels = [
        Label::Node,
        Label::Role,
        Label::Class,
        Label::RoundTrip,
        Label::Sent,
        Label::Received,
        Label::Path,
    ];
    let headings = labels.map(|label| cx.out.label(label));
    let mut table = Table::new(headings).right(3).right(4).right(5);
    for peer in peers {
        table.row([
            peer.node_id.clone(),
            peer.role.clone(),
            or_dash(peer.class.as_deref()),
            or_dash(peer.rtt_ms.map(|rtt_ms| format!("{rtt_ms:.2} ms"))),
            octets(peer.bytes_sent),
            octets(peer.bytes_received),
            peer.path.clone(),
        ]);
    }
    table.print()
}

pub(super) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        assert_eq!(duration(0), "0 s");
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(61), "1 min 1 s");
        assert_eq!(duration(3_600), "1 h 0 min");
        assert_eq!(duration(90_000), "1 d 1 h");
    }

    #[test]
    fn figures_that_are_zero_are_not_shown() {
        let mut refused = Refused::default();
        assert_eq!(dropped(&refused), "");
        (refused.peers_lost, refused.frames_lost) = (1, 20);
        assert_eq!(dropped(&refused), "peers_lost 1, frames_lost 20");
    }

    #[test]
    fn octets_are_told_in_the_unit_that_fits() {
        assert_eq!(octets(0), "0 B");
        assert_eq!(octets(1023), "1023 B");
        assert_eq!(octets(1536), "1.5 KiB");
        assert_eq!(octets(u64::MAX), "16777216.0 TiB");
    }
}
