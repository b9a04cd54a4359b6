//! How a node is: what it does for others, what it refuses, its peers, and its ways.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Channel, Forward, TurnServer};

/// How the node is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The node's id.
    pub node_id: String,
    /// Its place on the ring, of 2^64, as 16 hexadecimal digits.
    #[serde(default)]
    pub position: String,
    /// The program's version.
    pub version: String,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// How many peers the node has a session with.
    pub peers: u32,
    /// How many nodes the overlay seems to have, this one included.
    pub overlay_size_estimate: u64,
    /// Whether the node has found its place among others on the ring or, as a client, a
    /// host.
    pub joined: bool,
    /// What the node is: `client`, `peer` or `super`.
    #[serde(default)]
    pub class: String,
    /// How many clients are attached to it.
    #[serde(default)]
    pub clients: u32,
    /// The addresses at which the node can be dialled.
    pub addresses: Vec<SocketAddr>,
    /// How the node is seen from outside.
    #[serde(default)]
    pub nat: Nat,
    /// Where the node looks or looked for others, and what came of it.
    #[serde(default)]
    pub bootstrap: Vec<BootstrapSource>,
    /// How many records the node holds for the overlay.
    pub records_held: u64,
    /// What the node does for others.
    #[serde(default)]
    pub service: Service,
    /// What the node sent of its own protocol since the start.
    #[serde(default)]
    pub sent: Sent,
    /// What was refused, dropped or lost since the start.
    pub refused: Refused,
    /// The channels in the order of their names.
    pub channels: Vec<Channel>,
    /// How names of hosts are served; none when they are not.
    #[serde(default)]
    pub names: Option<Box<Names>>,
    /// The channel in which programs of the host look for others that choose no device.
    #[serde(default)]
    pub discovery: Option<String>,
    /// Where the proxies listen.
    #[serde(default)]
    pub proxies: Proxies,
    /// Which proxy connections of this node take, and who says so; none when nobody names one. No
    /// user and no password is in it.
    #[serde(default)]
    pub upstream: Option<String>,
    /// This node's TURN server; none when it is off.
    #[serde(default)]
    pub turn: Option<Box<TurnServer>>,
    /// The forwards, in the order of their numbers.
    #[serde(default)]
    pub forwards: Vec<Forward>,
    /// What a person should know and maybe act on, for example that the disk is full.
    #[serde(default)]
    pub notices: Vec<String>,
}

/// One way by which a node finds others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BootstrapSource {
    /// Which: `invitation`, `earlier-runs`, `local-network`, `servers`, `dns-list` or `mainline`.
    pub source: String,
    /// How many nodes it found since the start, at most 256.
    pub found: u64,
    /// How many of them are peers now.
    pub peers: u64,
    /// Why it found nobody the last time; none when it did, or has not looked yet.
    pub error: Option<String>,
}

/// How a node is seen from outside its site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Nat {
    /// What kind of translation of addresses there is, as others see it: `none`,
    /// `endpoint-independent`, `sequential`, `random`, or `unknown` as long as fewer than three
    /// have told.
    pub mapping: String,
    /// At which addresses others see the node, as far as it believes them, at most three.
    pub observed: Vec<SocketAddr>,
    /// At which addresses others see the port that takes packets of virtual networks, at most two;
    /// none where each sees another one.
    pub observed_packets: Vec<SocketAddr>,
    /// The outer address at which the router takes datagrams for the node's sessions, if it maps
    /// that port.
    pub mapped: Option<SocketAddr>,
    /// The same for packets of virtual networks.
    pub mapped_packets: Option<SocketAddr>,
    /// Which protocols for it the router speaks; none when there is no router, or it was not
    /// asked.
    pub router: Option<PortMapping>,
    /// For how long a router, or a firewall, keeps the mapping of a silent UDP socket.
    pub lifetime: MappingLifetime,
}

/// For how long a router keeps the mapping of a UDP socket by which nothing passes, as this node has
/// measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MappingLifetime {
    /// Whether it is being measured, which takes up to five minutes.
    pub measuring: bool,
    /// So long at least, in seconds; none when nothing is known.
    pub at_least_s: Option<u64>,
    /// Less than so long, in seconds; none when the measurement, so far, did not see it end.
    pub less_than_s: Option<u64>,
    /// Nothing is in between that could forget.
    pub unlimited: bool,
    /// Whether addresses are translated; else a firewall remembers who spoke to whom.
    pub translated: bool,
    /// How often silent ways of packets are therefore used, in milliseconds.
    pub keep_alive_ms: u64,
}

/// The protocols by which a router maps ports on request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortMapping {
    /// UPnP, Internet Gateway Device.
    pub upnp: bool,
    /// NAT-PMP (RFC 6886).
    pub nat_pmp: bool,
    /// PCP (RFC 6887).
    pub pcp: bool,
}

/// What a node does for others, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Whom it serves: `none`, `trust` or `reputation`.
    pub policy: String,
    /// Messages passed on for others since the start.
    pub carried_messages: u64,
    /// Their octets.
    pub carried_bytes: u64,
    /// Messages that it declined to pass on.
    pub declined_messages: u64,
    /// Octets of records held for the overlay.
    pub stored_bytes: u64,
    /// Octets of packets of sessions that were carried between two others.
    pub carried_packet_bytes: u64,
    /// Pairs of nodes between which packets of channels are relayed now.
    pub relayed_pairs: u32,
    /// Datagrams that were relayed.
    pub relayed_packets: u64,
    /// Their octets.
    pub relayed_bytes: u64,
    /// Datagrams that were more than this node relays.
    pub relay_dropped_packets: u64,
}

/// What a node sent of the overlay's own protocol since the daemon started: without the
/// sessions' headers and upkeep, and without the packets and streams of channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sent {
    /// Messages.
    pub messages: u64,
    /// Their octets.
    pub bytes: u64,
}

/// What a node and one peer did for each other since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Account {
    /// Messages passed on for the peer.
    pub carried_messages: u64,
    /// Their octets.
    pub carried_bytes: u64,
    /// Messages of the peer that were not passed on.
    pub declined_messages: u64,
    /// Octets of records held that the peer brought.
    pub stored_bytes: u64,
    /// Own questions that the peer passed on and that were answered.
    pub delivered_messages: u64,
    /// Own questions that it confirmed and that nobody answered.
    pub dropped_messages: u64,
    /// Own questions that it gave back.
    pub given_back_messages: u64,
    /// Whether it takes and does not give, by this node's own experience.
    pub bad_standing: bool,
}

/// What was refused, dropped or lost since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// Messages that could not be decoded.
    pub malformed_messages: u64,
    /// Messages over a peer's rate, or that would cost more questions to the DHT than it may cause.
    pub flooded_messages: u64,
    /// IP packets from a node that is not a member or does not hold the source address.
    pub foreign_packets: u64,
    /// Ethernet frames of TAP devices that were neither IP nor questions for addresses.
    pub foreign_frames: u64,
    /// Packets of this host to all members of a channel (broadcast, multicast) over the rate at
    /// which it may send such.
    pub storm_packets: u64,
    /// Messages that made no sense at their time or claimed a false sender.
    pub messages_refused: u64,
    /// Messages for others given up because too many were under way.
    pub hops_dropped: u64,
    /// Copies of messages for others that were not sent, or not passed on, since too many were:
    /// many nodes, or the network, were slow at the same time.
    pub copies_withheld: u64,
    /// Peers taken for dead.
    pub peers_lost: u64,
    /// Control frames dropped because a queue was full.
    pub frames_dropped: u64,
    /// Control frames lost because a dial failed or the last connection closed.
    pub frames_lost: u64,
    /// Control frames over the size limit.
    pub frames_oversized: u64,
    /// Connections refused because there were too many.
    pub sessions_refused: u64,
    /// Dials refused because too many were pending.
    pub dials_refused: u64,
}

/// How names of hosts are served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Names {
    /// How they reach the programs of the host: `systemd-resolved`, `resolv.conf`, or `none`
    /// when programs have to be told where to ask.
    pub how: String,
    /// Where queries are answered.
    pub listening: Vec<SocketAddr>,
    /// Which servers are asked for all other names; empty when they are refused.
    pub upstreams: Vec<SocketAddr>,
    /// What a person should know, for example that the port is taken.
    pub notice: Option<String>,
}

/// Where the proxies of a node listen, those that it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Proxies {
    /// That for SOCKS 5.
    pub socks: Option<SocketAddr>,
    /// That for HTTP.
    pub http: Option<SocketAddr>,
}

/// A host of a channel and its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostName {
    /// The whole name: `aki.office.enishi`.
    pub name: String,
    /// The member's node id.
    pub node_id: String,
    /// Its addresses in the channel.
    pub addresses: Vec<IpAddr>,
}

/// A peer that the node knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// The peer's id.
    pub node_id: String,
    /// Its place on the ring, of 2^64, as 16 hexadecimal digits.
    #[serde(default)]
    pub position: String,
    /// `near`, `long`, `known` (a neighbour's neighbour), `client`, `host` (of this client)
    /// or `session` (nothing of that).
    pub role: String,
    /// What it says to be: `client`, `peer` or `super`.
    #[serde(default)]
    pub class: Option<String>,
    /// Whether a session is open.
    pub connected: bool,
    /// How packets reach it: `direct ADDRESS:PORT`, or `-` without a session.
    pub path: String,
    /// Smoothed round-trip time in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Octets sent and received over the present session.
    pub bytes_sent: u64,
    /// See `bytes_sent`.
    pub bytes_received: u64,
    /// What the two nodes did for each other.
    #[serde(default)]
    pub account: Account,
}
