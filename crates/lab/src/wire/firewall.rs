//! A home router's firewall for IPv6: nothing is translated, and who was not spoken to is kept out.
//!
//! As RFC 6092 has it for homes (section 3): flows that begin inside are let out, with that their
//! answers come in, and nothing else does. Who may answer is told by address and port, as by Linux; the
//! RFC would rather have it independent of them where applications matter more.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddrV6};
use std::time::Duration;

use super::nat::{ECHO_LIFETIME, NatKind, TCP_LIFETIME};
use super::packet::{self, Flow, Transport};

/// The most flows at once.
const FLOWS_MAX: usize = 4096;

/// One firewall. Times are since any moment that is the same for all calls.
#[derive(Debug)]
pub(crate) struct Firewall {
    /// Of which what may leave, and how long UDP lives, holds for IPv6 too.
    kind: NatKind,
    /// Who inside spoke to whom outside, until when.
    flows: BTreeMap<(Transport, SocketAddrV6, SocketAddrV6), Duration>,
}

impl Firewall {
    /// Makes one that has let nobody out, beside the translation of a kind.
    pub(crate) fn new(kind: NatKind) -> Self {
        Self {
            kind,
            flows: BTreeMap::new(),
        }
    }

    /// Forgets everything, as a router that starts.
    pub(crate) fn restart(&mut self) {
        self.flows.clear();
    }

    /// Tells whether a packet may leave; if so, its answers may come in.
    pub(crate) fn outward(&mut self, now: Duration, packet: &[u8]) -> bool {
        let Some(flow) = packet::flow_v6(packet) else {
            return false;
        };
        let key = (flow.transport, flow.source, flow.destination);
        if flow.is_error {
            return self.is_known(now, &key);
        }
        let (inner, port) = (IpAddr::V6(*flow.source.ip()), flow.destination.port());
        if !self.kind.outward.permits(flow.transport, inner, port) {
            return false;
        }
        if self.flows.len() >= FLOWS_MAX {
            self.flows.retain(|_, until| *until > now);
        }
        let has_room = self.flows.len() < FLOWS_MAX || self.flows.contains_key(&key);
        if has_room {
            let until = now + self.lifetime(&flow);
            self.flows.insert(key, until);
        }
        has_room
    }

    /// Tells whether a packet may come in.
    pub(crate) fn inward(&self, now: Duration, packet: &[u8]) -> bool {
        let flow = packet::flow_v6(packet);
        flow.is_some_and(|flow| {
            self.is_known(now, &(flow.transport, flow.destination, flow.source))
        })
    }

    fn is_known(&self, now: Duration, key: &(Transport, SocketAddrV6, SocketAddrV6)) -> bool {
        self.flows.get(key).is_some_and(|until| *until > now)
    }

    fn lifetime(&self, flow: &Flow<SocketAddrV6>) -> Duration {
        match flow.transport {
            Transport::Udp => self.kind.udp_lifetime,
            Transport::Tcp => TCP_LIFETIME,
            Transport::Echo => ECHO_LIFETIME,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::nat::Outward;
    use super::super::packet::tests::{udp_v6, unreachable_v6};
    use super::*;

    const INNER: &str = "[2600::1:2]:4000";
    const OTHER: &str = "[2600::2:1]:53";
    const NOW: Duration = Duration::from_secs(10);

    #[test]
    fn who_was_spoken_to_may_answer_for_a_while() {
        let kind = NatKind::port_restricted();
        let (mut firewall, lifetime) = (Firewall::new(kind.clone()), kind.udp_lifetime);
        let (sent, answer) = (udp_v6(INNER, OTHER), udp_v6(OTHER, INNER));
        assert!(!firewall.inward(NOW, &answer));
        assert!(firewall.outward(NOW, &sent));
        assert!(firewall.inward(NOW, &answer));
        for other in ["[2600::2:1]:54", "[2600::2:2]:53"] {
            assert!(!firewall.inward(NOW, &udp_v6(other, INNER)), "{other}");
        }
        assert!(!firewall.inward(NOW + lifetime, &answer));
        firewall.restart();
        assert!(!firewall.inward(NOW, &answer));
    }

    #[test]
    fn errors_about_known_flows_pass() {
        let mut firewall = Firewall::new(NatKind::port_restricted());
        let (sent, answer) = (udp_v6(INNER, OTHER), udp_v6(OTHER, INNER));
        let error = unreachable_v6(&sent, "2600::9");
        assert!(!firewall.inward(NOW, &error));
        assert!(!firewall.outward(NOW, &unreachable_v6(&answer, "2600::1:2")));
        assert!(firewall.outward(NOW, &sent));
        assert!(firewall.inward(NOW, &error));
        assert!(firewall.outward(NOW, &unreachable_v6(&answer, "2600::1:2")));
    }

    #[test]
    fn what_may_not_leave_does_not_and_a_full_one_takes_no_more() {
        let closed = NatKind {
            outward: Outward::NoUdp,
            ..NatKind::port_restricted()
        };
        assert!(!Firewall::new(closed).outward(NOW, &udp_v6(INNER, OTHER)));
        let mut firewall = Firewall::new(NatKind::port_restricted());
        for port in 1..=FLOWS_MAX {
            assert!(firewall.outward(NOW, &udp_v6(INNER, &format!("[2600::2:1]:{port}"))));
        }
        let another = udp_v6(INNER, "[2600::2:2]:1");
        assert!(!firewall.outward(NOW, &another));
        // Those who speak go on.
        assert!(firewall.outward(NOW, &udp_v6(INNER, OTHER)));
        let later = NOW + firewall.kind.udp_lifetime;
        assert!(firewall.outward(later, &another));
    }
}
