//! Which node or place on the ring a person means.

use std::collections::BTreeSet;
use std::net::IpAddr;

use enishi_api::Failure;
use enishi_overlay::NodeId;
use enishi_services::Node;

use super::desk::{Desk, no, usage};

/// What a target may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A node's id.
    Node(NodeId),
    /// A virtual address.
    Address(IpAddr),
    /// The first characters of a node's id.
    Prefix(String),
    /// The name of a value in the DHT.
    Key(String),
}

impl Target {
    /// Reads a target.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        if let Some(key) = text.strip_prefix("key:") {
            return Ok(Self::Key(key.to_owned()));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        if let Ok(id) = text.to_ascii_lowercase().parse() {
            return Ok(Self::Node(id));
        }
        let is_digit = |c: char| matches!(c.to_ascii_lowercase(), 'a'..='z' | '2'..='7');
        if text.is_empty() || text.len() > 52 || !text.chars().all(is_digit) {
            return Err(usage(
                "A target is a node id, its first characters (a-z, 2-7), or a virtual address.",
            ));
        }
        Ok(Self::Prefix(text.to_ascii_lowercase()))
    }
}

/// Finds the one node whose id begins so.
///
/// # Errors
/// None does, or several do.
pub(super) fn of_prefix(prefix: &str, known: &BTreeSet<NodeId>) -> Result<NodeId, Failure> {
    let mut fitting = known.iter().filter(|id| id.to_string().starts_with(prefix));
    match (fitting.next(), fitting.next()) {
        (Some(id), None) => Ok(*id),
        (Some(_), Some(_)) => Err(usage(format!(
            "Several known nodes begin with `{prefix}`; write more characters."
        ))),
        (None, _) => Err(no(format!(
            "No known node begins with `{prefix}`; write the whole id (`enishi peers` shows \
             those that are known)."
        ))),
    }
}

/// Finds the node that a person means.
///
/// # Errors
/// There is none, or the target is a key.
pub(super) async fn node(desk: &Desk, target: &Target) -> Result<NodeId, Failure> {
    match target {
        Target::Node(id) => Ok(*id),
        Target::Prefix(prefix) => {
            let mut known = desk.look(known).await?;
            known.extend(desk.sessions.sessions().iter().map(|session| session.peer));
            of_prefix(prefix, &known)
        }
        Target::Address(address) => of_address(desk, *address).await,
        Target::Key(_) => Err(usage("A key is no node; `enishi trace` takes one.")),
    }
}

async fn of_address(desk: &Desk, address: IpAddr) -> Result<NodeId, Failure> {
    let (member, channels) = desk.look(move |node| search(node, address)).await?;
    if let Some(member) = member {
        return Ok(member);
    }
    for channel in channels {
        if let Some(peer) = super::streams::attach(desk, channel, address).await? {
            return Ok(peer);
        }
    }
    Err(no(format!(
        "No member of this node's channels has the address {address}."
    )))
}

/// Looks for the member with an address, and for the channels where it could be.
pub(super) fn search(
    node: &Node,
    address: IpAddr,
) -> (Option<NodeId>, Vec<enishi_services::vnet::ChannelId>) {
    let mut fitting = Vec::new();
    for (id, channel) in node.vnet().channels() {
        let own = [
            channel.address().map(IpAddr::from),
            Some(channel.address6().into()),
        ];
        if own.contains(&Some(address)) {
            return (Some(node.id()), vec![id]);
        }
        let member = channel
            .members()
            .find(|claim| claim.addresses().contains(&address));
        if let Some(claim) = member {
            return (Some(claim.contact.id()), vec![id]);
        }
        if contains(channel, address) {
            fitting.push(id);
        }
    }
    (None, fitting)
}

pub(super) fn contains(channel: &enishi_services::vnet::Channel, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => channel.network().has_host(address),
        IpAddr::V6(address) => address.octets()[..8] == channel.address6().octets()[..8],
    }
}

/// All nodes that this one knows, itself included.
fn known(node: &Node) -> BTreeSet<NodeId> {
    let overlay = node.overlay();
    let members = node.vnet().channels();
    let members = members.flat_map(|(_, channel)| channel.members().map(|c| c.contact.id()));
    let peers = overlay.peers().map(|peer| peer.contact().id());
    let views = overlay.known().into_keys();
    members
        .chain(peers)
        .chain(views)
        .chain([node.id()])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_told_apart() {
        let id = NodeId::from_bytes([7; 32]);
        assert_eq!(Target::parse(&id.to_string()), Ok(Target::Node(id)));
        assert_eq!(
            Target::parse(&id.to_string().to_uppercase()),
            Ok(Target::Node(id))
        );
        let address = "10.77.0.2".parse().unwrap();
        assert_eq!(Target::parse("10.77.0.2"), Ok(Target::Address(address)));
        assert!(matches!(Target::parse("fd00::2"), Ok(Target::Address(_))));
        assert_eq!(Target::parse("key:a b"), Ok(Target::Key("a b".to_owned())));
        assert_eq!(Target::parse("Abc"), Ok(Target::Prefix("abc".to_owned())));
        assert!(Target::parse("").is_err() && Target::parse("a-b").is_err());
        assert!(Target::parse("10.77.0.300").is_err());
    }

    #[test]
    fn prefixes_must_fit_one_node() {
        let [a, b] = [0, 255].map(|octet| NodeId::from_bytes([octet; 32]));
        let known = BTreeSet::from([a, b]);
        assert_eq!(of_prefix("aaa", &known), Ok(a));
        assert_eq!(of_prefix(&b.to_string(), &known), Ok(b));
        assert!(of_prefix("bbb", &known).is_err());
        let several = of_prefix("", &known).unwrap_err();
        assert_eq!(several.kind, enishi_api::FailureKind::Usage);
    }
}
