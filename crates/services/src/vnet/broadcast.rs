//! Broadcast and multicast packets: to all members by overlay multicast (document 004,
//! equation 8).
//!
//! Each channel is a group. What a member's host sends to many is said in it, and each other
//! member's host gets it once, if it comes from one of the author's own addresses and the
//! channel's rules let the author reach this host so. A message goes to the whole group or not at
//! all: what the rules let the author begin with nobody is not said. Neighbour discovery and
//! group membership are between a host and its own device, and are not carried.
//!
//! ```text
//!  0      1
//! +------+-----------+
//! | kind | IP packet |   kind 0: a packet; 1: a count, without one
//! +------+-----------+
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use serde::Serialize;

use super::access::{Permit, Ports};
use super::wire::Claim;
use super::{ChannelId, Cx, Event, Purpose, Vnet};
use crate::calls::{GroupName, GroupSpec, Heard, Order, Receipts, Tree};

/// The longest packet to many, in octets: the MTU of channels' devices.
pub const BROADCAST_BYTES_MAX: usize = super::MTU as usize;

const PACKET: u8 = 0;
const COUNT: u8 = 1;
/// The protocol number of UDP.
const UDP: u8 = 17;

/// How many members a message to all has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// How many others there are, as far as known.
    pub expected: u32,
    /// How many said that they have got it.
    pub received: u32,
}

impl Vnet {
    /// Takes part in the channel's group, and in none of an epoch that has ended.
    pub(super) fn follow_group(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let (name, secret) = channel.keys.group();
        let name = GroupName(name);
        if channel.group == Some(name) {
            return;
        }
        if let Some(before) = channel.group.replace(name) {
            cx.unsubscribe(before);
        }
        cx.subscribe(GroupSpec {
            name,
            secret,
            tree: Tree::Biased,
            order: Order::None,
        });
    }

    /// Sends a packet to all members, if it may pass to one of them. Whoever that is need not be
    /// known here: a group may have members that are not remembered.
    pub(super) fn broadcast(&mut self, id: ChannelId, packet: &[u8], cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let permits = channel.permits_with_any(cx.me());
        let may_pass = || About::of(packet).is_some_and(|a| a.may_pass(permits.as_deref()));
        if let Some(group) = channel.group
            && packet.len() <= BROADCAST_BYTES_MAX
            && may_pass()
        {
            cx.publish(group, [&[PACKET], packet].concat(), None);
        }
    }

    /// Counts whom a message to all reaches; [`Event::Counted`] follows within seconds.
    pub(super) fn count(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let group = self.channels.get(&id).and_then(|channel| channel.group);
        let token = self.token(Purpose::Count(id));
        match group {
            Some(group) => cx.publish(group, vec![COUNT], Some(token)),
            None => self.counted(token, None, cx),
        }
    }

    pub(super) fn counted(&mut self, token: u64, receipts: Option<Receipts>, cx: &mut Cx<'_>) {
        if let Some(Purpose::Count(channel)) = self.purposes.remove(&token) {
            let count = receipts.map(|receipts| Count {
                expected: receipts.expected,
                received: receipts.received,
            });
            cx.emit(Event::Counted { channel, count });
        }
    }

    /// A member has sent something to all.
    pub(super) fn heard(&mut self, heard: &Heard, cx: &mut Cx<'_>) {
        let Some((&PACKET, packet)) = heard.payload.split_first() else {
            return;
        };
        let mut channels = self.channels.iter();
        let channel = channels.find(|(_, channel)| channel.group == Some(heard.group));
        let (Some((id, channel)), Some(about)) = (channel, About::of(packet)) else {
            return;
        };
        let id = *id;
        match channel.speaker(&heard.author, about.source).cloned() {
            Some(author) => self.let_pass(id, &author, packet, cx),
            None => self.settle_author(id, heard.author, (about.source, packet), cx),
        }
    }

    /// Gives a packet to this host that its author sent from one of its own addresses, if the
    /// rules let it begin that here.
    pub(super) fn let_pass(&self, id: ChannelId, author: &Claim, packet: &[u8], cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let permits = channel.permits(cx.me(), author);
        let inbound = permits.as_ref().map(|permits| permits.inbound.as_slice());
        if About::of(packet).is_some_and(|about| about.may_pass(inbound)) {
            cx.emit(Event::Broadcast {
                channel: id,
                packet: Bytes::copy_from_slice(packet),
            });
        }
    }
}

/// What decides whether a packet to many passes.
struct About {
    source: IpAddr,
    protocol: u8,
    port: Option<u16>,
}

impl About {
    /// Reads an IP packet (RFC 791, RFC 8200), whose extension headers are not looked through;
    /// none for what is none.
    fn of(packet: &[u8]) -> Option<Self> {
        let version = packet.first()? >> 4;
        let (source, protocol, payload): (IpAddr, u8, usize) = match version {
            4 => {
                let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
                let header = usize::from(packet[0] & 0x0f) * 4;
                (Ipv4Addr::from(source).into(), packet[9], header)
            }
            6 => {
                let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
                (Ipv6Addr::from(source).into(), packet[6], 40)
            }
            _ => return None,
        };
        let port = packet.get(payload + 2..payload + 4);
        Some(Self {
            source,
            protocol,
            port: port.map(|port| u16::from_be_bytes([port[0], port[1]])),
        })
    }

    /// Tells whether these permits of its author let it pass; without any everything does.
    fn may_pass(&self, permits: Option<&[Permit]>) -> bool {
        permits.is_none_or(|permits| {
            let own = permits.iter().filter(|permit| permit.network.is_none());
            own.map(|permit| permit.ports)
                .any(|ports| match (ports, self.port) {
                    (None, _) => true,
                    (Some(Ports::Udp(first, last)), Some(port)) if self.protocol == UDP => {
                        (first..=last).contains(&port)
                    }
                    _ => false,
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four(protocol: u8, port: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, protocol, 0, 0];
        packet.extend([10, 77, 0, 1, 224, 0, 0, 251]);
        packet.extend([0, 9]);
        packet.extend(port.to_be_bytes());
        packet
    }

    #[test]
    fn packets_are_read_and_nothing_panics() {
        let about = About::of(&four(UDP, 5353)).unwrap();
        assert_eq!(about.source, "10.77.0.1".parse::<IpAddr>().unwrap());
        assert_eq!((about.protocol, about.port), (UDP, Some(5353)));
        let packet = four(UDP, 1);
        for length in 0..packet.len() {
            let _ = About::of(&packet[..length]);
        }
        assert!(About::of(&[0x60; 23]).is_none() && About::of(&[]).is_none());
    }

    #[test]
    fn rules_hold_for_packets_to_many() {
        let permits = |ports| {
            [Permit {
                network: None,
                ports,
            }]
        };
        let passes = |packet: &[u8], permits: Option<&[Permit]>| {
            About::of(packet).unwrap().may_pass(permits)
        };
        let mdns = permits(Some(Ports::Udp(5353, 5353)));
        assert!(passes(&four(UDP, 5353), Some(&mdns)) && passes(&four(UDP, 1), None));
        assert!(!passes(&four(UDP, 1), Some(&mdns)));
        assert!(!passes(&four(6, 5353), Some(&mdns)));
        assert!(passes(&four(6, 1), Some(&permits(None))));
    }
}
