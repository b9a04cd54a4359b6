//! What is told of a channel and its members, and which member a person means.

use std::net::IpAddr;

use enishi_api::{Channel, Failure, Member};
use enishi_dataplane::engine::{NetworkId, Report, SessionReport};
use enishi_overlay::NodeId;
use enishi_services::Node;
use enishi_services::vnet::wire::Claim;
use enishi_services::vnet::{self, ChannelId};

use super::channels::unknown;
use super::desk::{Desk, no, usage};
use crate::wireguard::WireGuard;

/// A channel as the node knows it. How its members are reached the host knows.
pub(super) struct Known {
    id: ChannelId,
    channel: Channel,
    /// The members, in the order of the list.
    nodes: Vec<NodeId>,
    /// Whether everything is to go by way of one of them.
    wants_exit: bool,
}

impl Known {
    pub(super) fn new(me: NodeId, id: ChannelId, channel: &vnet::Channel) -> Self {
        let members: Vec<Member> = channel
            .members()
            .map(|claim| member(channel, claim))
            .collect();
        let charter = channel.charter();
        let form = if channel.is_governed() {
            "governed"
        } else {
            "secret"
        };
        let known = Channel {
            name: channel.name().to_owned(),
            network: channel.network().to_string(),
            address: channel.address(),
            address6: channel.address().map(|_| channel.address6()),
            interface: None,
            members: count(members.len().max(1)),
            member_list: members,
            notice: channel.notice().map(str::to_owned),
            form: form.to_owned(),
            online: 1,
            founder: channel.is_founded_here(),
            admin: channel.is_admin(&me),
            epoch: charter.map(|charter| charter.decisions().epoch),
            charter_version: charter.map(vnet::charter::Charter::version),
            rules: charter.map_or(0, |charter| count(charter.decisions().rules.len())),
            exit: exit(channel),
            routes: routes(channel),
            ..Channel::default()
        };
        let nodes = channel.members().map(|claim| claim.contact.id()).collect();
        Self {
            id,
            channel: known,
            nodes,
            wants_exit: channel.accepted().exit.is_some(),
        }
    }

    /// Adds what the host knows.
    pub(super) fn told(self, desk: &Desk, report: &Report) -> Channel {
        let mut told = self.channel;
        let (interface, notice) = desk.shared.networks.interface(self.id);
        told.interface = interface;
        let has_devices = desk.shared.networks.makes_devices();
        // Without a device nothing of this host goes by one.
        told.exit = told.exit.filter(|_| has_devices);
        let lost = self.wants_exit && told.exit.is_none() && has_devices;
        told.notice = told.notice.or(notice).or_else(|| {
            lost.then(|| {
                format!(
                    "everything is to go by way of a member that does not offer it now: what has \
                     no other way is refused; `enishi route unuse {} everything` ends that",
                    told.name
                )
            })
        });
        for (node, member) in self.nodes.iter().zip(&mut told.member_list) {
            let network = NetworkId(self.id.0);
            let with = |s: &&SessionReport| s.network == network && s.peer == *node.as_bytes();
            fill(desk, *node, member, report.sessions.iter().find(with));
        }
        let reached = |by: &str| {
            let paths = told.member_list.iter().map(|member| &member.path);
            count(paths.filter(|path| path.starts_with(by)).count())
        };
        (told.direct, told.relayed) = (reached("direct "), reached("relayed "));
        told.in_session = reached("session");
        told.online = told.direct + told.relayed + told.in_session + 1;
        let clients = desk.shared.wireguard.iter().flat_map(WireGuard::clients);
        let clients = clients.filter(|(client, _)| client.channel == told.name);
        for (_, traffic) in clients {
            told.wireguard_clients += 1;
            let handshake = traffic.and_then(|traffic| traffic.handshake);
            told.wireguard_attached += u32::from(handshake.is_some());
        }
        told
    }
}

/// The host by way of which everything is reached, if there is one now.
fn exit(channel: &vnet::Channel) -> Option<String> {
    let mut routes = channel.routes().iter();
    let exit = routes.find(|route| route.network.is_everything())?.node;
    let host = channel.member(exit).map(|claim| claim.host.clone());
    let host = host.filter(|host| !host.is_empty());
    Some(host.unwrap_or_else(|| exit.to_string()))
}

/// The networks behind members that are reached now.
fn routes(channel: &vnet::Channel) -> Vec<String> {
    let networks = channel.routes().iter().map(|route| route.network);
    let networks = networks.filter(|network| !network.is_everything());
    networks.map(|network| network.to_string()).collect()
}

/// Tells how a member is reached, by packets or at least in a session.
fn fill(desk: &Desk, node: NodeId, member: &mut Member, packets: Option<&SessionReport>) {
    if node == desk.sessions.me() {
        "self".clone_into(&mut member.path);
        return;
    }
    let session = desk.sessions.session(node);
    let session_rtt = session.as_ref().map(|session| session.rtt);
    let direct = packets.and_then(|packets| packets.direct);
    let by = packets.and_then(|packets| packets.relay);
    let way = match (direct, by.map(NodeId::from_bytes)) {
        (Some(direct), _) => Some(format!("direct {direct}")),
        (None, Some(by)) => Some(format!("relayed by {}", by.short())),
        (None, None) => None,
    };
    let (path, rtt) = match (way, session) {
        (Some(way), _) => (way, packets.and_then(|packets| packets.round_trip)),
        (None, Some(session)) => (format!("session {}", session.path), session_rtt),
        (None, None) => ("-".to_owned(), None),
    };
    path.trim_end().clone_into(&mut member.path);
    member.rtt_ms = rtt.map(|rtt| rtt.as_secs_f64() * 1e3);
    if let Some(packets) = packets {
        member.bytes_sent = packets.counters.sent_bytes;
        member.bytes_received = packets.counters.received_bytes;
    }
}

pub(super) fn member(channel: &vnet::Channel, claim: &Claim) -> Member {
    let node = claim.contact.id();
    Member {
        node_id: node.to_string(),
        host: claim.host.clone(),
        addresses: claim.addresses().to_vec(),
        role: channel.role(claim).map(str::to_owned),
        founder: channel.is_founder(claim),
        admin: channel.is_admin(&node),
        invitation: channel.invitation_of(claim).map(|name| name.to_string()),
        path: "-".to_owned(),
        ..Member::default()
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// How many characters of a node id are enough to name its member. With fewer, the host's name `h2`
/// would now and then be the beginning of another member's id as well.
const ABBREVIATION_MIN: usize = 6;

/// Finds the member that a person names: by its host, an address, its node id or the first
/// six or more characters of that. A whole id need not be that of a member that is known.
///
/// # Errors
/// None is named so, or several are.
pub(super) async fn find(desk: &Desk, channel: &str, text: &str) -> Result<NodeId, Failure> {
    if let Ok(node) = text.to_ascii_lowercase().parse() {
        return Ok(node);
    }
    let (name, wanted) = (channel.to_owned(), text.to_owned());
    let look = move |node: &Node| {
        let (_, channel) = node.vnet().by_name(&name)?;
        let members = channel.members().filter(|claim| is_named(claim, &wanted));
        Some(members.map(|claim| claim.contact.id()).collect::<Vec<_>>())
    };
    let found = desk.look(look).await?.ok_or_else(|| unknown(channel))?;
    match found.as_slice() {
        [node] => Ok(*node),
        [] => Err(no(format!(
            "No known member of channel `{channel}` is `{text}`; `enishi channel show {channel}` \
             shows them. One that is away is named by its whole node id."
        ))),
        several => {
            let ids: Vec<String> = several.iter().map(NodeId::to_string).collect();
            Err(usage(format!(
                "`{text}` may be several members; write the node id of the one: {}.",
                ids.join(", ")
            )))
        }
    }
}

fn is_named(claim: &Claim, text: &str) -> bool {
    if let Ok(address) = text.parse::<IpAddr>() {
        return claim.addresses().contains(&address);
    }
    claim.host.eq_ignore_ascii_case(text) || abbreviates(text, &claim.contact.id().to_string())
}

fn abbreviates(text: &str, id: &str) -> bool {
    text.len() >= ABBREVIATION_MIN && id.starts_with(&text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_of_a_host_names_nobody_else() {
        let id = "h2rf2zqyfdmvtrpflbps4747o2ijcmwvbywmnryhgnfwbjvgjktq";
        assert!(!abbreviates("h2", id) && !abbreviates("", id));
        assert!(abbreviates("H2RF2Z", id) && !abbreviates("h2rf2a", id));
    }
}
