//! Where those are asked who tell where this host's packets come out; and who is asked when it may be reached
//! by a NAT64.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use enishi_overlay::{Contact, NodeId};
use enishi_services::Node;
use enishi_services::reach::observed::{is_public, network_of};

use crate::nat64::Nat64;

/// Returns the same nodes, each also at an address of the other family of IP if it is known by one: a
/// host with both comes out at another place by each, and those with one alone need to be told that.
/// Nodes take packets at the same port by both. Contacts are to be what these nodes say of themselves;
/// at most one is asked in each network, as its owner could speak for all of them.
pub(super) fn by_both_families(
    contact_of: impl Fn(NodeId) -> Option<Contact>,
    servers: Vec<(NodeId, SocketAddr)>,
) -> Vec<(NodeId, SocketAddr)> {
    let networks = servers.iter().map(|(_, at)| network_of(at.ip()));
    let mut networks: HashSet<IpAddr> = networks.collect();
    let places = servers.into_iter().flat_map(|(node, at)| {
        let contact = contact_of(node);
        let other = contact.and_then(|contact| {
            let mut addresses = contact.addresses().iter().map(SocketAddr::ip);
            let is_v4 = at.ip().to_canonical().is_ipv4();
            addresses.find(|ip| ip.to_canonical().is_ipv4() != is_v4 && is_public(*ip))
        });
        let other = other.filter(|ip| networks.insert(network_of(*ip)));
        let other = other.map(|ip| SocketAddr::new(ip, at.port()));
        [at].into_iter().chain(other).map(move |at| (node, at))
    });
    places.collect()
}

/// Returns those whom a node looks for in vain, and that a NAT64 may lead to.
pub(super) fn reached_by(nat64: Nat64, node: &Node) -> Vec<Contact> {
    let sought = node.overlay().sought().iter();
    let is_translated = |at: &SocketAddr| nat64.translated(*at).is_some();
    let reached = sought.filter(|contact| contact.addresses().iter().any(is_translated));
    reached.cloned().collect()
}

#[cfg(test)]
mod tests {
    use enishi_overlay::{Keypair, OverlayId, Time};
    use enishi_services::{Config, Input, Output};

    use super::*;

    #[test]
    fn whom_a_new_nat64_may_lead_to_is_asked_at_once() {
        let config = Config {
            overlay: enishi_overlay::Config::new(OverlayId::from_name("test")),
            addresses: Vec::new(),
            host_name: "here".to_owned(),
            started_unix_s: 0,
        };
        let mut node = Node::new(Keypair::from_seed(&[1; 32]), config, [1; 32]);
        let contact = |seed: u8, at: &[&str]| {
            let id = Keypair::from_seed(&[seed; 32]).id();
            Contact::new(id, at.iter().map(|at| at.parse().unwrap()))
        };
        let four = contact(2, &["11.0.0.1:7"]);
        let both = contact(3, &["[2600::1]:7", "11.0.0.2:7"]);
        let six = contact(4, &["[2600::1]:7"]);
        let inner = contact(5, &["192.168.0.1:7"]);
        let (now, all) = (Time::from_secs(1), vec![four.clone(), both, six, inner]);
        node.handle(now, Input::Bootstrap(all.clone()))
            .for_each(drop);
        for contact in &all {
            node.handle(now, Input::Unreachable(contact.id()))
                .for_each(drop);
        }
        let nat64 = Nat64::try_from("64:ff9b::/96".to_owned()).unwrap();
        let reached = reached_by(nat64, &node);
        assert_eq!(reached, all[..2]);
        let asked = node.handle(now, Input::Bootstrap(reached));
        let asked = asked.filter_map(|output| match output {
            Output::Send { to, .. } => Some(to),
            _ => None,
        });
        let asked: Vec<Contact> = asked.collect();
        assert!(
            asked.contains(&four) && !asked.contains(&all[2]),
            "{asked:?}"
        );
    }

    #[test]
    fn who_is_known_by_both_is_asked_by_both() {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let [both, four, inner] = [1, 2, 3].map(|seed| NodeId::from_bytes([seed; 32]));
        let contact_of = |node: NodeId| {
            let other = match node {
                node if node == both => Some("[2600::1]:7"),
                node if node == inner => Some("[fd00::1]:7"),
                _ => None,
            };
            let addresses = [Some("11.0.0.1:7"), other].into_iter().flatten().map(at);
            Some(Contact::new(node, addresses))
        };
        let servers = [both, four, inner].map(|node| (node, at("11.0.0.1:9")));
        let asked = by_both_families(contact_of, servers.to_vec());
        let six = (both, at("[2600::1]:9"));
        assert_eq!(asked, [servers[0], six, servers[1], servers[2]]);
        let back = by_both_families(contact_of, vec![six]);
        assert_eq!(back, [six, servers[0]]);
        assert_eq!(by_both_families(|_| None, vec![six]), [six]);
        // One network speaks once, whoever is said to be in it.
        let same = |node| Some(Contact::new(node, [at("[2600::7]:7")]));
        let asked = by_both_families(
            same,
            vec![(both, at("11.0.0.1:9")), (four, at("11.0.1.1:9"))],
        );
        assert_eq!(asked.len(), 3);
    }
}
