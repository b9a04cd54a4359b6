//! What may pass between this host and one peer.
//!
//! A permit says what one side may begin. Answers pass by themselves: to UDP, SCTP and echo
//! requests while the flow is remembered (RFC 4787, section 4.3, asks for two minutes at least),
//! to TCP as long as they do not ask for a connection (a SYN without ACK, RFC 9293, section
//! 3.5), so that nothing has to be remembered of what makes up most traffic. ICMP errors pass
//! when anything may. Fragments but the first have no ports: they pass when anything may, and are
//! of no use without the first. One that could overwrite the first one's header of TCP does not pass
//! (RFC 3128, section 2.1).

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rustc_hash::FxBuildHasher;

use crate::packet::{IpPacket, protocol};
use crate::table::Network;

/// The most permits of each direction; at most as many are looked at for a packet.
pub const PERMITS_MAX: usize = 1024;
/// The most flows that are remembered of one peer.
pub const FLOWS_MAX: usize = 4096;
/// How long a flow without a packet is remembered: as RFC 4787, section 4.3, recommends.
const FLOW_TIME: Duration = Duration::from_secs(300);

/// What may be begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    /// To which network behind the side that answers, without its own addresses; none for these.
    pub network: Option<Network>,
    /// By which protocol (the number of IPv4; ICMPv6 is told as ICMP), and to which ports;
    /// none for everything.
    pub ports: Option<(u8, RangeInclusive<u16>)>,
}

/// What may pass between this host and a peer.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    inbound: Vec<Permit>,
    outbound: Vec<Permit>,
    /// Flows by how this host sees them, and when they were used last.
    flows: HashMap<Flow, Instant, FxBuildHasher>,
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the peer.
    Inbound,
    /// To the peer.
    Outbound,
}

/// The own addresses of both sides.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a> {
    /// This host's.
    pub mine: Own<'a>,
    /// The peer's.
    pub theirs: Own<'a>,
}

/// The own addresses of one side.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own<'a> {
    /// In the channel, those that it holds for others among them.
    pub here: &'a [IpAddr],
    /// In other networks, which are reached by way of it.
    pub elsewhere: &'a [IpAddr],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Flow {
    protocol: u8,
    here: (IpAddr, u16),
    there: (IpAddr, u16),
}

/// What a packet is, for the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// It has ports, or what takes their place.
    Ports {
        protocol: u8,
        source: u16,
        destination: u16,
        /// Whether it can only be an answer, can only be a beginning, or may be either.
        stage: Stage,
    },
    /// Without ports: a fragment, or an ICMP error.
    Companion,
    /// Of another protocol.
    Other(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begins,
    Answers,
    Either,
}

impl Filter {
    /// Makes a filter; permits beyond [`PERMITS_MAX`] are left out, which allows less.
    pub fn new(mut inbound: Vec<Permit>, mut outbound: Vec<Permit>) -> Self {
        inbound.truncate(PERMITS_MAX);
        outbound.truncate(PERMITS_MAX);
        Self {
            inbound,
            outbound,
            flows: HashMap::default(),
        }
    }

    /// Tells whether two filters permit the same.
    pub fn permits_as(&self, other: &Self) -> bool {
        (&self.inbound, &self.outbound) == (&other.inbound, &other.outbound)
    }

    /// Tells whether a packet may pass. Bounded by the number of permits.
    pub fn passes(
        &mut self,
        now: Instant,
        direction: Direction,
        sides: Sides<'_>,
        packet: &IpPacket<'_>,
    ) -> bool {
        let (source, destination) = (packet.source(), packet.destination());
        let (here, there) = match direction {
            Direction::Inbound => (&self.inbound, &self.outbound),
            Direction::Outbound => (&self.outbound, &self.inbound),
        };
        let (receiver, sender) = match direction {
            Direction::Inbound => (sides.mine, sides.theirs),
            Direction::Outbound => (sides.theirs, sides.mine),
        };
        match What::of(packet) {
            What::Companion => !(here.is_empty() && there.is_empty()),
            What::Other(number) => {
                let begun = allows(here, receiver, destination, number, 0);
                begun || allows(there, sender, source, number, 0)
            }
            What::Ports {
                protocol: number,
                source: from,
                destination: to,
                stage,
            } => {
                let begins =
                    stage != Stage::Answers && allows(here, receiver, destination, number, to);
                let is_tcp = number == protocol::TCP;
                let ends = [(source, from), (destination, to)];
                let flow = Flow::new(number, direction, ends);
                if begins {
                    if !is_tcp {
                        self.remember(now, flow);
                    }
                    return true;
                }
                match (is_tcp, stage) {
                    (_, Stage::Begins) => false,
                    (true, _) => allows(there, sender, source, number, from),
                    (false, _) => self.goes_on(now, flow),
                }
            }
        }
    }

    fn remember(&mut self, now: Instant, flow: Flow) {
        if self.flows.len() >= FLOWS_MAX && !self.flows.contains_key(&flow) {
            self.make_room();
        }
        self.flows.insert(flow, now);
    }

    /// Forgets the flows that were used least lately: a quarter, so that this is seldom done.
    fn make_room(&mut self) {
        let mut surplus = self.flows.len() / 4;
        let mut used: Vec<Instant> = self.flows.values().copied().collect();
        let (_, last, _) = used.select_nth_unstable(surplus.saturating_sub(1));
        self.flows.retain(|_, used| {
            let stays = used > last || surplus == 0;
            surplus -= usize::from(!stays);
            stays
        });
    }

    fn goes_on(&mut self, now: Instant, flow: Flow) -> bool {
        let used = self.flows.get_mut(&flow);
        let fresh = used.filter(|used| now - **used < FLOW_TIME);
        fresh.is_some_and(|used| {
            *used = now;
            true
        })
    }
}

impl Flow {
    /// The flow of a packet between two ends, the sender's first, as this host sees it.
    fn new(protocol: u8, direction: Direction, [from, to]: [(IpAddr, u16); 2]) -> Self {
        let (here, there) = match direction {
            Direction::Inbound => (to, from),
            Direction::Outbound => (from, to),
        };
        Self {
            protocol,
            here,
            there,
        }
    }
}

impl What {
    fn of(packet: &IpPacket<'_>) -> Self {
        let number = packet.protocol();
        match packet.fragment_offset_bytes() {
            0 => {}
            // The unit of offsets; the flags of TCP come right after it.
            8 if number == protocol::TCP => return Self::Other(number),
            _ => return Self::Companion,
        }
        let payload = packet.payload();
        let port = |at: usize| {
            let octets = payload.get(at..at + 2)?;
            Some(u16::from_be_bytes([octets[0], octets[1]]))
        };
        let what = match number {
            protocol::TCP => payload.get(13).and_then(|flags| {
                // SYN without ACK begins; everything else goes on.
                let begins = flags & 0b1_0010 == 0b0_0010;
                let stage = if begins { Stage::Begins } else { Stage::Either };
                Self::ports(number, (port(0)?, port(2)?), stage)
            }),
            protocol::UDP | protocol::SCTP => port(0)
                .zip(port(2))
                .and_then(|ports| Self::ports(number, ports, Stage::Either)),
            protocol::ICMP | protocol::ICMPV6 => Self::of_icmp(number, payload, port(4)),
            _ => None,
        };
        what.unwrap_or(Self::Other(number))
    }

    fn ports(protocol: u8, (source, destination): (u16, u16), stage: Stage) -> Option<Self> {
        Some(Self::Ports {
            protocol,
            source,
            destination,
            stage,
        })
    }

    /// Echoes have an identifier (RFC 792, RFC 4443, section 4); errors belong to a flow.
    fn of_icmp(number: u8, payload: &[u8], identifier: Option<u16>) -> Option<Self> {
        let kind = *payload.first()?;
        let stage = match (number, kind) {
            (protocol::ICMP, 8) | (protocol::ICMPV6, 128) => Stage::Begins,
            (protocol::ICMP, 0) | (protocol::ICMPV6, 129) => Stage::Answers,
            (protocol::ICMP, 3 | 11 | 12) | (protocol::ICMPV6, 1..=4) => {
                return Some(Self::Companion);
            }
            _ => return None,
        };
        let identifier = identifier?;
        Self::ports(protocol::ICMP, (identifier, identifier), stage)
    }
}

/// Tells whether one of the permits lets a side with these own addresses be asked there.
fn allows(permits: &[Permit], own: Own<'_>, address: IpAddr, number: u8, port: u16) -> bool {
    let is_here = own.here.contains(&address);
    let is_own = is_here || own.elsewhere.contains(&address);
    let number = match number {
        protocol::ICMPV6 => protocol::ICMP,
        number => number,
    };
    permits.iter().any(|permit| {
        let there = match &permit.network {
            None => is_own,
            // A rule for a network opens no member, nor does one for exits, which names everything,
            // open the exit by another address.
            Some(network) => {
                let is_closed = is_here || (is_own && network.is_everything());
                !is_closed && network.contains(address)
            }
        };
        let by = permit.ports.as_ref().is_none_or(|(protocol, ports)| {
            *protocol == number && (number == protocol::ICMP || ports.contains(&port))
        });
        there && by
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: [u8; 4] = [10, 77, 0, 1];
    const PEER: [u8; 4] = [10, 77, 0, 2];
    /// Of this host, in a network behind it.
    const ON_LAN: [u8; 4] = [192, 168, 7, 1];
    const SYN: u8 = 0b0_0010;
    const ACK: u8 = 0b1_0000;

    fn packet(number: u8, from: ([u8; 4], u16), to: ([u8; 4], u16), flags: u8) -> Vec<u8> {
        let mut octets = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, number, 0, 0];
        octets.extend(from.0);
        octets.extend(to.0);
        match number {
            // Type, code, checksum, identifier.
            1 => octets.extend([flags, 0, 0, 0, (from.1 >> 8) as u8, from.1 as u8]),
            _ => {
                octets.extend(from.1.to_be_bytes());
                octets.extend(to.1.to_be_bytes());
            }
        }
        octets.resize(40, 0);
        if number == protocol::TCP {
            octets[33] = flags;
        }
        octets
    }

    fn permit(number: u8, ports: RangeInclusive<u16>) -> Permit {
        Permit {
            network: None,
            ports: Some((number, ports)),
        }
    }

    struct Host {
        filter: Filter,
        now: Instant,
    }

    impl Host {
        fn new(inbound: Vec<Permit>, outbound: Vec<Permit>) -> Self {
            Self {
                filter: Filter::new(inbound, outbound),
                now: Instant::now(),
            }
        }

        fn passes(&mut self, direction: Direction, packet: &[u8]) -> bool {
            let (mine, theirs) = (&[IpAddr::V4(ME.into())], &[IpAddr::V4(PEER.into())]);
            let sides = Sides {
                mine: Own {
                    here: mine,
                    elsewhere: &[IpAddr::V4(ON_LAN.into())],
                },
                theirs: Own {
                    here: theirs,
                    elsewhere: &[],
                },
            };
            let packet = IpPacket::parse(packet).unwrap();
            self.filter.passes(self.now, direction, sides, &packet)
        }
    }

    use Direction::{Inbound, Outbound};

    #[test]
    fn a_connection_begins_where_it_may_and_goes_on_both_ways() {
        let mut host = Host::new(vec![permit(protocol::TCP, 22..=22)], vec![]);
        let tcp = |from, to, flags| packet(protocol::TCP, from, to, flags);
        assert!(host.passes(Inbound, &tcp((PEER, 999), (ME, 22), SYN)));
        assert!(host.passes(Outbound, &tcp((ME, 22), (PEER, 999), SYN | ACK)));
        assert!(host.passes(Inbound, &tcp((PEER, 999), (ME, 22), ACK)));
        assert!(!host.passes(Inbound, &tcp((PEER, 999), (ME, 23), SYN)));
        assert!(!host.passes(Inbound, &tcp((PEER, 999), (ME, 23), ACK)));
        // From the permitted port nothing can be begun.
        assert!(!host.passes(Outbound, &tcp((ME, 22), (PEER, 999), SYN)));
        assert!(!host.passes(Outbound, &tcp((ME, 999), (PEER, 22), SYN)));
    }

    #[test]
    fn answers_of_udp_and_echoes_pass_while_the_flow_is_remembered() {
        let outbound = vec![
            permit(protocol::UDP, 53..=53),
            permit(protocol::ICMP, 0..=0),
        ];
        let mut host = Host::new(vec![], outbound);
        let answer = packet(protocol::UDP, (PEER, 53), (ME, 999), 0);
        assert!(!host.passes(Inbound, &answer));
        assert!(host.passes(Outbound, &packet(protocol::UDP, (ME, 999), (PEER, 53), 0)));
        assert!(host.passes(Inbound, &answer));
        assert!(!host.passes(Inbound, &packet(protocol::UDP, (PEER, 54), (ME, 999), 0)));
        let reply = packet(protocol::ICMP, (PEER, 7), (ME, 7), 0);
        assert!(!host.passes(Inbound, &reply));
        assert!(host.passes(Outbound, &packet(protocol::ICMP, (ME, 7), (PEER, 7), 8)));
        assert!(host.passes(Inbound, &reply));
        assert!(!host.passes(Inbound, &packet(protocol::ICMP, (PEER, 7), (ME, 7), 8)));
        // Errors belong to what passes.
        assert!(host.passes(Inbound, &packet(protocol::ICMP, (PEER, 7), (ME, 7), 3)));
        host.now += FLOW_TIME;
        assert!(!host.passes(Inbound, &answer));
    }

    #[test]
    fn later_fragments_pass_but_not_over_the_flags_of_the_first() {
        let mut host = Host::new(vec![permit(protocol::TCP, 22..=22)], vec![]);
        let mut part = packet(protocol::TCP, (PEER, 999), (ME, 23), SYN);
        for (units, passes) in [(0, false), (1, false), (2, true), (180, true)] {
            part[7] = units;
            assert_eq!(host.passes(Inbound, &part), passes, "offset {units}");
        }
    }

    #[test]
    fn networks_behind_a_side_are_permitted_by_name() {
        let lan = Permit {
            network: Some(Network::new([192, 168, 7, 0].into(), 24)),
            ports: None,
        };
        let mut host = Host::new(vec![lan], vec![]);
        let to = |address| packet(protocol::TCP, (PEER, 999), (address, 80), SYN);
        assert!(host.passes(Inbound, &to([192, 168, 7, 9])) && host.passes(Inbound, &to(ON_LAN)));
        assert!(!host.passes(Inbound, &to(ME)) && !host.passes(Inbound, &to([192, 168, 8, 9])));
        let back = packet(protocol::TCP, ([192, 168, 7, 9], 80), (PEER, 999), ACK);
        assert!(host.passes(Outbound, &back));
    }

    #[test]
    fn what_opens_everything_behind_a_member_does_not_open_the_member() {
        let everything = || Permit {
            network: Some(Network::new([0, 0, 0, 0].into(), 0)),
            ports: None,
        };
        let mut host = Host::new(vec![everything()], vec![everything()]);
        let begin = |from, to| packet(protocol::TCP, (from, 999), (to, 80), SYN);
        assert!(host.passes(Inbound, &begin(PEER, [203, 0, 113, 9])));
        assert!(!host.passes(Inbound, &begin(PEER, ME)));
        assert!(!host.passes(Inbound, &begin(PEER, ON_LAN)));
        assert!(host.passes(Outbound, &begin(ME, [203, 0, 113, 9])));
        assert!(!host.passes(Outbound, &begin(ME, PEER)));
    }

    #[test]
    fn nothing_permitted_is_nothing_passed_and_flows_are_bounded() {
        let mut host = Host::new(vec![], vec![]);
        for kind in [0, 3, 8] {
            assert!(!host.passes(Inbound, &packet(protocol::ICMP, (PEER, 7), (ME, 7), kind)));
        }
        let mut host = Host::new(vec![], vec![permit(protocol::UDP, 0..=u16::MAX)]);
        // The last one needs room, and what was used lately stays.
        let last = FLOWS_MAX as u16;
        for port in 0..=last {
            host.now += Duration::from_millis(1);
            let sent = packet(protocol::UDP, (ME, port), (PEER, 53), 0);
            assert!(host.passes(Outbound, &sent));
        }
        assert_eq!(host.filter.flows.len(), FLOWS_MAX / 4 * 3 + 1);
        let answers = [0, last / 4 - 1, last / 4, last].map(|port| {
            let answer = packet(protocol::UDP, (PEER, 53), (ME, port), 0);
            host.passes(Inbound, &answer)
        });
        assert_eq!(answers, [false, false, true, true]);
    }
}
