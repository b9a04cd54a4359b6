//! The tunnels of the clients: datagrams in and out, packets in and out, no socket.
//!
//! A handshake is first checked against the node's public key, and under load against a cookie,
//! before a key is agreed on for it (section 5.3 of the paper); then the key of who speaks tells
//! the client. All else names its tunnel by the index that this node chose. A client is sent to
//! where it was last heard from.
//!
//! The node is a hop between a client and the other members: it takes one from the time to live of
//! what it passes on, and tells who sent it when none is left.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use enishi_dataplane::hop::pass_on;
use enishi_dataplane::{ErrorBudget, IpPacket, Reason, error_for};
use enishi_services::vnet::ChannelId;

use super::clients::Client;

/// How many handshakes are worked on per second before who asks must show that it is where it
/// says. boringtun counts each twice: when it is looked at, and when its client is known.
const HANDSHAKES_PER_S: u64 = 64;

/// Room for any datagram or packet, and for what a tunnel adds.
const BUFFER_BYTES: usize = (1 << 16) + 32;

/// How many ICMP errors are sent for the packets of all clients, at once and per second.
const ERRORS_BURST: u32 = 50;
const ERRORS_PER_SECOND: u32 = 50;

/// How many bits of an index are a session's, the others a tunnel's.
const SESSION_BITS: u32 = 8;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram.
    Datagram(SocketAddr, Vec<u8>),
    /// Hand a client's packet to its channel.
    Packet(ChannelId, Vec<u8>),
}

/// What passed in a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Where the client was last heard from.
    pub endpoint: Option<SocketAddr>,
    /// How long ago keys were last agreed on; none when those have ended.
    pub handshake: Option<Duration>,
    /// Octets of packets to the client.
    pub sent_bytes: u64,
    /// Octets of packets from it.
    pub received_bytes: u64,
}

/// The tunnels of all clients.
pub struct Tunnels {
    key: StaticSecret,
    public: PublicKey,
    limiter: Arc<RateLimiter>,
    peers: BTreeMap<u32, Peer>,
    by_key: BTreeMap<[u8; 32], u32>,
    by_address: BTreeMap<(ChannelId, IpAddr), u32>,
    /// This node's own addresses.
    own: BTreeMap<ChannelId, [IpAddr; 2]>,
    next: u32,
    refused: u64,
    errors: ErrorBudget,
    buffer: Vec<u8>,
}

/// What becomes of a packet at this hop.
enum Hop {
    /// It goes on.
    Passed,
    /// It does not; what its sender is to be told.
    Last(Option<Vec<u8>>),
}

/// One of them.
struct Peer {
    tunnel: Tunn,
    client: Client,
    channel: ChannelId,
    addresses: [IpAddr; 2],
    endpoint: Option<SocketAddr>,
    sent_bytes: u64,
    received_bytes: u64,
}

impl Tunnels {
    /// Makes the table for a node with this secret key, empty.
    pub fn new(key: &[u8; 32]) -> Self {
        let key = StaticSecret::from(*key);
        let public = PublicKey::from(&key);
        Self {
            limiter: Arc::new(RateLimiter::new(&public, HANDSHAKES_PER_S)),
            key,
            public,
            peers: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_address: BTreeMap::new(),
            own: BTreeMap::new(),
            next: 0,
            refused: 0,
            errors: ErrorBudget::new(ERRORS_BURST, ERRORS_PER_SECOND),
            buffer: vec![0; BUFFER_BYTES],
        }
    }

    /// Returns the node's public key.
    pub fn public_key(&self) -> [u8; 32] {
        *self.public.as_bytes()
    }

    /// Returns how many datagrams were refused.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Sets who the clients are, in which channels and with which addresses. Tunnels of those
    /// that stay as they are go on.
    pub fn set(&mut self, wanted: Vec<(Client, ChannelId, [IpAddr; 2])>) {
        let stays = |peer: &Peer| {
            let mut wanted = wanted.iter();
            wanted.any(|(client, channel, addresses)| {
                (client, channel, addresses) == (&peer.client, &peer.channel, &peer.addresses)
            })
        };
        self.peers.retain(|_, peer| stays(peer));
        self.by_key
            .retain(|_, number| self.peers.contains_key(number));
        self.by_address
            .retain(|_, number| self.peers.contains_key(number));
        for (client, channel, addresses) in wanted {
            if !self.by_key.contains_key(&client.public_key) {
                self.add(client, channel, addresses);
            }
        }
    }

    /// Sets which addresses this node has in a channel: to and from them it is no hop.
    pub fn set_own(&mut self, channel: ChannelId, addresses: [IpAddr; 2]) {
        self.own.insert(channel, addresses);
    }

    fn add(&mut self, client: Client, channel: ChannelId, addresses: [IpAddr; 2]) {
        // Clients are few: a number is not used again within 16 million of them.
        self.next = (self.next + 1) & (u32::MAX >> SESSION_BITS);
        let number = self.next;
        let tunnel = Tunn::new(
            self.key.clone(),
            PublicKey::from(client.public_key),
            Some(*client.preshared_key),
            None,
            number,
            Some(Arc::clone(&self.limiter)),
        );
        self.by_key.insert(client.public_key, number);
        for address in addresses {
            self.by_address.insert((channel, address), number);
        }
        let peer = Peer {
            tunnel,
            client,
            channel,
            addresses,
            endpoint: None,
            sent_bytes: 0,
            received_bytes: 0,
        };
        self.peers.insert(number, peer);
    }

    /// Returns what passed between this node and a client; none when it has no tunnel.
    pub fn traffic(&self, public_key: &[u8; 32]) -> Option<Traffic> {
        let peer = self.peers.get(self.by_key.get(public_key)?)?;
        Some(Traffic {
            endpoint: peer.endpoint.map(canonical),
            handshake: peer.tunnel.time_since_last_handshake(),
            sent_bytes: peer.sent_bytes,
            received_bytes: peer.received_bytes,
        })
    }

    /// Takes a datagram. What is not a client's gets no answer, but for a cookie under load.
    pub fn receive(&mut self, from: SocketAddr, datagram: &[u8], outputs: &mut Vec<Output>) {
        let address = canonical(from).ip();
        let mut cookie = [0; 64];
        let verified = self
            .limiter
            .verify_packet(Some(address), datagram, &mut cookie);
        let packet = match verified {
            Ok(packet) => packet,
            Err(TunnResult::WriteToNetwork(cookie)) => {
                return outputs.push(Output::Datagram(from, cookie.to_vec()));
            }
            Err(_) => return self.refused += 1,
        };
        let number = self.number(&packet);
        let Some(peer) = number.and_then(|number| self.peers.get_mut(&number)) else {
            return self.refused += 1;
        };
        let result = peer
            .tunnel
            .decapsulate(Some(address), datagram, &mut self.buffer);
        match result {
            TunnResult::Done => peer.endpoint = Some(from),
            TunnResult::Err(_) => self.refused += 1,
            TunnResult::WriteToNetwork(datagram) => {
                peer.endpoint = Some(from);
                outputs.push(Output::Datagram(from, datagram.to_vec()));
                peer.send_waiting(from, &mut self.buffer, outputs);
            }
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                peer.endpoint = Some(from);
                let source = IpPacket::parse(packet).map(|packet| packet.source());
                if !source.is_ok_and(|source| peer.addresses.contains(&source)) {
                    return self.refused += 1;
                }
                peer.received_bytes += packet.len() as u64;
                let (channel, mut packet) = (peer.channel, packet.to_vec());
                match self.hop(channel, &mut packet) {
                    Hop::Passed => outputs.push(Output::Packet(channel, packet)),
                    Hop::Last(Some(error)) => self.send(channel, &error, outputs),
                    Hop::Last(None) => {}
                }
            }
        }
    }

    /// Passes a packet on, unless it begins or ends here or is for many.
    fn hop(&mut self, channel: ChannelId, packet: &mut [u8]) -> Hop {
        let Ok(parsed) = IpPacket::parse(packet) else {
            return Hop::Last(None);
        };
        let own = self.own.get(&channel).copied();
        let ends = [parsed.source(), parsed.destination()];
        let is_end = own.is_some_and(|own| own.iter().any(|own| ends.contains(own)));
        if is_end || parsed.is_multicast_or_broadcast() || pass_on(packet) {
            return Hop::Passed;
        }
        let router = own.into_iter().flatten();
        let router = router
            .into_iter()
            .find(|own| own.is_ipv4() == ends[0].is_ipv4());
        let error = IpPacket::parse(packet)
            .ok()
            .and_then(|packet| error_for(&packet, Reason::TimeExceeded, router));
        Hop::Last(error.filter(|_| self.errors.take(Instant::now())))
    }

    /// Which tunnel a datagram is for.
    fn number(&self, packet: &Packet<'_>) -> Option<u32> {
        let index = match packet {
            Packet::HandshakeInit(init) => {
                let said = parse_handshake_anon(&self.key, &self.public, init).ok()?;
                return self.by_key.get(&said.peer_static_public).copied();
            }
            Packet::HandshakeResponse(response) => response.receiver_idx,
            Packet::PacketCookieReply(reply) => reply.receiver_idx,
            Packet::PacketData(data) => data.receiver_idx,
        };
        Some(index >> SESSION_BITS)
    }

    /// Seals a packet of a channel for the client that has its destination. It is lost when
    /// there is none, or the client was never heard from.
    pub fn send(&mut self, channel: ChannelId, packet: &[u8], outputs: &mut Vec<Output>) {
        let Ok(parsed) = IpPacket::parse(packet) else {
            return;
        };
        let (source, destination) = (parsed.source(), parsed.destination());
        let mut packet = packet.to_vec();
        // What comes from another client was passed on already.
        if !self.by_address.contains_key(&(channel, source))
            && let Hop::Last(error) = self.hop(channel, &mut packet)
        {
            return outputs.extend(error.map(|error| Output::Packet(channel, error)));
        }
        let number = self.by_address.get(&(channel, destination));
        let peer = number.and_then(|number| self.peers.get_mut(number));
        let Some((peer, to)) = peer.and_then(|peer| peer.endpoint.map(|to| (peer, to))) else {
            return;
        };
        peer.sent_bytes += packet.len() as u64;
        let sealed = peer.tunnel.encapsulate(&packet, &mut self.buffer);
        if let TunnResult::WriteToNetwork(datagram) = sealed {
            outputs.push(Output::Datagram(to, datagram.to_vec()));
        }
    }

    /// Looks at the timers; to be called several times a second.
    pub fn tick(&mut self, outputs: &mut Vec<Output>) {
        self.limiter.reset_count();
        for peer in self.peers.values_mut() {
            let due = peer.tunnel.update_timers(&mut self.buffer);
            if let (TunnResult::WriteToNetwork(datagram), Some(to)) = (due, peer.endpoint) {
                outputs.push(Output::Datagram(to, datagram.to_vec()));
            }
        }
    }
}

impl Peer {
    /// Sends what waited for keys; boringtun lets 256 packets wait.
    fn send_waiting(&mut self, to: SocketAddr, buffer: &mut [u8], outputs: &mut Vec<Output>) {
        while let TunnResult::WriteToNetwork(datagram) = self.tunnel.decapsulate(None, &[], buffer)
        {
            outputs.push(Output::Datagram(to, datagram.to_vec()));
        }
    }
}

/// An address as people write it, also when IPv4 came by a socket of IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
