//! From the device to the peers.

use std::sync::Arc;
use std::time::Instant;

use enishi_dataplane::lane::{Datagrams, packet_bytes_max};
use enishi_dataplane::{IpPacket, LaneError, Lookup, Pushed, Reason, Tun};
use enishi_overlay::NodeId;
use enishi_services::vnet::MTU;

use super::network::{Device, Member, Network, lock};
use super::{Note, read};
use crate::session::{DatagramError, DatagramLane};

/// IP protocol number of UDP (IANA registry "Protocol Numbers").
const UDP: u8 = 17;

/// How long the device rests after an error other than its removal.
const ERROR_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// How often packets that have waited too long are looked for.
const EXPIRE_INTERVAL: std::time::Duration = std::time::Duration::from_millis(500);

/// Reads the device until it is removed or the network closed.
pub(super) async fn read_device(network: Arc<Network>) {
    let Some(device) = &network.device else {
        return;
    };
    let mut buffer = vec![0; usize::from(MTU)];
    let mut expire = tokio::time::interval(EXPIRE_INTERVAL);
    loop {
        tokio::select! {
            received = device.tun.recv(&mut buffer) => match received {
                Ok(length) => forward(&network, &buffer[..length], Otherwise::Wait),
                Err(error) if Tun::is_removed(&error) => return network.lost_device(device),
                Err(error) => {
                    tracing::debug!(%error, "the network device could not be read");
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            },
            _ = expire.tick() => {
                let expired = lock(&network.pending).expire(Instant::now());
                expired.iter().for_each(|packet| network.refuse(packet, Reason::HostUnreachable));
            }
        }
    }
}

/// What to do with a packet that cannot be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// Let it wait, and ask for the holder of its destination.
    Wait,
    /// Tell its sender that it is not delivered: it has waited already.
    Refuse,
}

/// Sends a packet to the holder of its destination; otherwise lets it wait for one, or
/// tells its sender.
pub(super) fn forward(network: &Network, bytes: &[u8], otherwise: Otherwise) {
    let Some(device) = &network.device else {
        return;
    };
    let Ok(packet) = IpPacket::parse(bytes) else {
        return;
    };
    let destination = packet.destination();
    // A packet may carry only the address that the other members know for this host.
    if !network.local.addresses().contains(&packet.source()) {
        return;
    }
    let (lookup, member) = {
        let tables = read(&network.tables);
        let lookup = tables.addresses.lookup(destination);
        let member = match lookup {
            Lookup::Forward(route) => tables.members.get(&route.peer).map(Arc::clone),
            _ => None,
        };
        (lookup, member)
    };
    match (lookup, member) {
        (Lookup::Forward(route), Some(member)) => {
            if is_tunnel(device, &packet) {
                return;
            }
            if packet.bytes().len() > usize::from(route.path_mtu) {
                let mtu = route.path_mtu;
                return network.refuse(bytes, Reason::TooBig { mtu });
            }
            if !send(network, device, route.peer, &member, packet.bytes()) {
                put_off(network, &packet, otherwise);
            }
        }
        (Lookup::Forward(_), None) | (Lookup::Miss, _) => {
            put_off(network, &packet, otherwise);
        }
        (Lookup::Local | Lookup::Many | Lookup::Outside, _) => {}
    }
}

/// Sends a packet; false when there is no session for it.
fn send(network: &Network, device: &Device, peer: NodeId, member: &Member, packet: &[u8]) -> bool {
    let Some((lane, datagram_bytes_max)) = open_lane(device, peer, member) else {
        return false;
    };
    let encoded = lock(&member.splitter).encode(member.tag, packet, datagram_bytes_max);
    let sent = match encoded {
        Ok(Datagrams::One(one)) => lane.send(one),
        Ok(Datagrams::Two(first, second)) => lane.send_many(&[first, second]),
        Err(LaneError::TooLong) => Err(DatagramError::TooLarge {
            bytes_max: datagram_bytes_max,
        }),
        // It was parsed as an IP packet before.
        Err(_) => Ok(()),
    };
    match sent {
        Ok(()) => {}
        Err(DatagramError::Closed) => return false,
        Err(DatagramError::TooLarge { bytes_max }) => {
            let mtu = u16::try_from(packet_bytes_max(bytes_max)).unwrap_or(u16::MAX);
            network.refuse(packet, Reason::TooBig { mtu });
        }
    }
    true
}

/// Returns the lane of the peer's session and the largest datagram that it takes; none
/// without a session.
fn open_lane(device: &Device, peer: NodeId, member: &Member) -> Option<(DatagramLane, usize)> {
    let mut kept = lock(&member.lane);
    if let Some(lane) = &*kept
        && let Some(bytes_max) = lane.bytes_max()
    {
        return Some((lane.clone(), bytes_max));
    }
    *kept = device.sessions.datagrams(peer);
    let lane = kept.clone()?;
    let bytes_max = lane.bytes_max()?;
    Some((lane, bytes_max))
}

/// Lets a packet wait until the holder of its destination is known, or refuses it.
fn put_off(network: &Network, packet: &IpPacket<'_>, otherwise: Otherwise) {
    if otherwise == Otherwise::Refuse {
        return network.refuse(packet.bytes(), Reason::HostUnreachable);
    }
    let (address, channel) = (packet.destination(), network.local.channel);
    let pushed = lock(&network.pending).push(Instant::now(), address, packet.bytes().to_vec());
    match pushed {
        Pushed::First => {
            let missing = Note::Missing { channel, address };
            if network.notes.try_send(missing).is_err() {
                // The node is overloaded: the sender hears so, and tries again.
                network.give_up(address);
            }
        }
        Pushed::Queued => {}
        Pushed::Full => network.refuse(packet.bytes(), Reason::HostUnreachable),
    }
}

/// Tells whether a packet is one of this node's own sessions, which found a way through
/// the network that it carries.
fn is_tunnel(device: &Device, packet: &IpPacket<'_>) -> bool {
    if packet.protocol() != UDP || packet.fragment_offset_bytes() > 0 {
        return false;
    }
    let [a, b, c, d, ..] = *packet.payload() else {
        return false;
    };
    let ports = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
    device.ports.iter().any(|port| ports.contains(port))
}
