//! Who may reach what in a governed channel.
//!
//! Without rules everybody reaches everything. With rules, only what one of them allows: a
//! connection from a node that `from` names, to a node or a network behind one that `to` names,
//! with one of the protocols and ports. Answers to what was allowed pass. The rules are part of
//! the [charter](super::charter); both ends of a session apply them
//! ([`Permits`]), so that one of the two may be somebody else's program.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use enishi_overlay::NodeId;
use serde::{Deserialize, Serialize};

use super::charter::{Decisions, is_role};
use super::routes::Prefix;

/// The most protocols with ports of one rule.
pub const PORTS_MAX: usize = 16;

/// Whom one side of a rule means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Selector {
    /// Every member.
    Everybody,
    /// One node.
    Node(NodeId),
    /// All nodes with a role.
    Role(String),
    /// What is behind a node that routes there; on the `to` side only.
    Network(Prefix),
}

/// A protocol with a range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Ports {
    /// ICMP and ICMPv6.
    Icmp,
    /// TCP (RFC 9293), from the first port to the last.
    Tcp(u16, u16),
    /// UDP.
    Udp(u16, u16),
    /// SCTP (RFC 9260).
    Sctp(u16, u16),
}

/// One rule: what it names is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Who may begin.
    pub from: Selector,
    /// With whom.
    pub to: Selector,
    /// What; everything when there is none.
    pub ports: Vec<Ports>,
}

/// What one node may begin with another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Permit {
    /// To which network behind the other; none for the node's own addresses.
    pub network: Option<Prefix>,
    /// What; everything for none.
    pub ports: Option<Ports>,
}

/// What may pass between this node and a member, begun by either.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Permits {
    /// What the member may begin.
    pub inbound: Vec<Permit>,
    /// What this node may begin.
    pub outbound: Vec<Permit>,
}

/// A member as the rules see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Party<'a> {
    pub(super) node: NodeId,
    pub(super) role: Option<&'a str>,
}

/// Why a text is no selector, or no ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseRuleError {
    /// A selector.
    #[error("write `*` for everybody, a node's id, `role:NAME`, or `net:ADDRESS/LENGTH`")]
    Selector,
    /// Ports.
    #[error("write `icmp`, `tcp`, `udp` or `sctp`, with ports as in `tcp/22` or `udp/5000-5100`")]
    Ports,
}

impl Rule {
    pub(super) fn is_bounded(&self) -> bool {
        let name_fits = |selector: &Selector| match selector {
            Selector::Role(name) => is_role(name),
            Selector::Everybody | Selector::Node(_) | Selector::Network(_) => true,
        };
        self.ports.len() <= PORTS_MAX && name_fits(&self.from) && name_fits(&self.to)
    }

    /// What the rule lets `from` begin with `to`.
    fn permits(&self, from: Party<'_>, to: Party<'_>) -> Vec<Permit> {
        let network = match &self.to {
            Selector::Network(network) => Some(*network),
            selector if selector.names(to) => None,
            _ => return Vec::new(),
        };
        match self.from.names(from) {
            true => self.permits_at(network),
            false => Vec::new(),
        }
    }

    /// What the rule lets `from` begin with some other node, whoever that may be.
    fn permits_with_any(&self, from: Party<'_>) -> Vec<Permit> {
        let with_another = match &self.to {
            Selector::Everybody | Selector::Role(_) => true,
            Selector::Node(node) => *node != from.node,
            Selector::Network(_) => false,
        };
        match with_another && self.from.names(from) {
            true => self.permits_at(None),
            false => Vec::new(),
        }
    }

    fn permits_at(&self, network: Option<Prefix>) -> Vec<Permit> {
        let permit = |ports| Permit { network, ports };
        match self.ports.as_slice() {
            [] => vec![permit(None)],
            ports => ports.iter().map(|ports| permit(Some(*ports))).collect(),
        }
    }
}

impl Selector {
    fn names(&self, party: Party<'_>) -> bool {
        match self {
            Self::Everybody => true,
            Self::Node(node) => *node == party.node,
            Self::Role(name) => party.role == Some(name),
            Self::Network(_) => false,
        }
    }
}

/// Works out what may pass between this node and a member; none for everything. Bounded by the
/// number of rules and their ports.
pub(super) fn permits(decisions: &Decisions, me: Party<'_>, member: Party<'_>) -> Option<Permits> {
    if decisions.rules.is_empty() {
        return None;
    }
    let between = |from, to| {
        let rules = decisions.rules.iter();
        let mut permits: Vec<Permit> = rules.flat_map(|rule| rule.permits(from, to)).collect();
        permits.sort();
        permits.dedup();
        permits
    };
    Some(Permits {
        inbound: between(member, me),
        outbound: between(me, member),
    })
}

/// Works out what this node may begin with at least one other, known or not; none for everything.
/// Bounded as [`permits`].
pub(super) fn permits_with_any(decisions: &Decisions, me: Party<'_>) -> Option<Vec<Permit>> {
    let rules = decisions.rules.iter();
    (!decisions.rules.is_empty()).then(|| rules.flat_map(|r| r.permits_with_any(me)).collect())
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("*"),
            Self::Node(node) => node.fmt(f),
            Self::Role(name) => write!(f, "role:{name}"),
            Self::Network(network) => write!(f, "net:{network}"),
        }
    }
}

impl FromStr for Selector {
    type Err = ParseRuleError;

    fn from_str(text: &str) -> Result<Self, ParseRuleError> {
        if text == "*" {
            return Ok(Self::Everybody);
        }
        if let Some(name) = text.strip_prefix("role:") {
            let role = is_role(name).then(|| Self::Role(name.to_owned()));
            return role.ok_or(ParseRuleError::Selector);
        }
        if let Some(network) = text.strip_prefix("net:") {
            let network = network.parse().map(Self::Network);
            return network.map_err(|_| ParseRuleError::Selector);
        }
        let node = text.parse().map(Self::Node);
        node.map_err(|_| ParseRuleError::Selector)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, first, last) = match *self {
            Self::Icmp => return f.write_str("icmp"),
            Self::Tcp(first, last) => ("tcp", first, last),
            Self::Udp(first, last) => ("udp", first, last),
            Self::Sctp(first, last) => ("sctp", first, last),
        };
        match (first, last) {
            (0, u16::MAX) => f.write_str(name),
            (first, last) if first == last => write!(f, "{name}/{first}"),
            (first, last) => write!(f, "{name}/{first}-{last}"),
        }
    }
}

impl FromStr for Ports {
    type Err = ParseRuleError;

    fn from_str(text: &str) -> Result<Self, ParseRuleError> {
        let (name, ports) = match text.split_once('/') {
            None => (text, None),
            Some((name, ports)) => (name, Some(ports)),
        };
        let port = |text: &str| text.parse::<u16>().map_err(|_| ParseRuleError::Ports);
        let (first, last) = match ports.map(|ports| ports.split_once('-')) {
            None => (0, u16::MAX),
            Some(None) => {
                let port = port(ports.unwrap_or_default())?;
                (port, port)
            }
            Some(Some((first, last))) => (port(first)?, port(last)?),
        };
        match name {
            _ if first > last => Err(ParseRuleError::Ports),
            "icmp" if ports.is_none() => Ok(Self::Icmp),
            "tcp" => Ok(Self::Tcp(first, last)),
            "udp" => Ok(Self::Udp(first, last)),
            "sctp" => Ok(Self::Sctp(first, last)),
            _ => Err(ParseRuleError::Ports),
        }
    }
}

impl Permit {
    /// Tells whether the permit is for an address.
    pub fn is_for(&self, address: IpAddr) -> bool {
        self.network.is_none_or(|network| network.contains(address))
    }

    /// Tells whether the permit is for everything that the other itself answers: what has no
    /// port needs such a one.
    pub fn is_for_everything(&self) -> bool {
        self.network.is_none() && self.ports.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(node: u8, role: Option<&str>) -> Party<'_> {
        Party {
            node: NodeId::from_bytes([node; 32]),
            role,
        }
    }

    fn rule(from: &str, to: &str, ports: &[&str]) -> Rule {
        Rule {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            ports: ports.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn of(rules: &[Rule]) -> Decisions {
        Decisions {
            rules: rules.to_vec(),
            ..Decisions::default()
        }
    }

    #[test]
    fn without_rules_everything_passes_and_with_some_only_what_they_name() {
        let (me, guest) = (party(1, None), party(2, Some("guest")));
        assert_eq!(permits(&of(&[]), me, guest), None);
        let rules = of(&[rule("role:guest", "*", &["tcp/443", "icmp"])]);
        let allowed = permits(&rules, me, guest).unwrap();
        let ports: Vec<_> = allowed.inbound.iter().map(|p| p.ports.unwrap()).collect();
        assert_eq!(ports, [Ports::Icmp, Ports::Tcp(443, 443)]);
        assert_eq!(allowed.outbound, []);
        let turned = permits(&rules, guest, me).unwrap();
        assert_eq!((turned.outbound, turned.inbound), (allowed.inbound, vec![]));
    }

    #[test]
    fn nodes_and_networks_are_named_alone() {
        let (me, other) = (party(1, None), party(2, None));
        let only = rule(&me.node.to_string(), &other.node.to_string(), &[]);
        let lan = rule("*", "net:192.168.7.0/24", &["tcp"]);
        let allowed = permits(&of(&[only, lan]), me, other).unwrap();
        assert_eq!(allowed.outbound.len(), 2);
        assert_eq!(allowed.inbound.len(), 1);
        let to_lan = &allowed.inbound[0];
        assert!(to_lan.is_for("192.168.7.9".parse().unwrap()));
        assert!(!to_lan.is_for("192.168.8.9".parse().unwrap()));
    }

    #[test]
    fn what_may_be_begun_with_somebody_needs_nobody_to_be_known() {
        let me = party(1, Some("guest"));
        assert_eq!(permits_with_any(&of(&[]), me), None);
        let mine = me.node.to_string();
        let rules = of(&[
            rule("role:guest", "role:server", &["udp/5353"]),
            rule("*", &mine, &["udp/1"]),
            rule("*", "net:192.168.7.0/24", &["udp/2"]),
            rule("role:server", "*", &["udp/3"]),
        ]);
        let permits = permits_with_any(&rules, me).unwrap();
        let ports: Vec<_> = permits.iter().map(|permit| permit.ports).collect();
        assert_eq!(ports, [Some(Ports::Udp(5353, 5353))]);
        assert!(!permits[0].is_for_everything());
        let all = permits_with_any(&of(&[rule(&mine, "*", &[])]), me).unwrap();
        assert!(all.len() == 1 && all[0].is_for_everything());
    }

    #[test]
    fn what_is_written_can_be_read() {
        for text in ["icmp", "tcp", "udp/53", "tcp/8000-8100", "sctp/1"] {
            assert_eq!(text.parse::<Ports>().unwrap().to_string(), text);
        }
        for text in ["", "tcp/", "tcp/70000", "tcp/9-8", "icmp/3", "ip"] {
            assert_eq!(text.parse::<Ports>(), Err(ParseRuleError::Ports), "{text}");
        }
        let node = NodeId::from_bytes([7; 32]).to_string();
        for text in ["*", "role:guest", "net:fd00::/8", node.as_str()] {
            assert_eq!(text.parse::<Selector>().unwrap().to_string(), text);
        }
        for text in ["", "role:", "role:A", "net:1.2.3.4/33", "everybody"] {
            assert_eq!(text.parse::<Selector>(), Err(ParseRuleError::Selector));
        }
    }
}
