//! Where those are asked who tell where this host's packets come out.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use enishi_overlay::{Contact, NodeId};
use enishi_services::reach::observed::{is_public, network_of};

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

#[cfg(test)]
mod tests {
    use super::*;

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
