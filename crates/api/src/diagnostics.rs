//! What diagnostics tell: of other nodes, of routes, of the node's own health, and of the
//! overlay as the node sees it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{BootstrapSource, MappingLifetime, Nat, TurnUsed};

/// How packets reach another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// There is no session: the node would have to be dialled first.
    #[default]
    Unconnected,
    /// From address to address.
    Direct,
    /// By way of a third node.
    Relayed,
    /// It is this node itself.
    Itself,
}

/// What another node says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remote {
    /// The version of its program.
    pub version: String,
    /// How much of one processor core the program used lately, in thousandths: above
    /// 1,000 with several cores.
    pub load_per_mille: u16,
    /// Its class, where it is known.
    #[serde(default)]
    pub class: Option<String>,
}

/// What became of the questions at a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HopState {
    /// It reported.
    Reported,
    /// It reported that it knew no way on, and that it gave the question back.
    GaveBack,
    /// It passed the question on, or answered it, but declines to be traced.
    Declined,
    /// The hop before it named it, and nothing was heard of the question from there on.
    Lost,
}

/// One hop of a route, over all probes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hop {
    /// Its place in the route, from 1; 0 is the asker, when it is in charge itself.
    pub place: u8,
    /// The node; none when it declines and so does the one before it.
    pub node_id: Option<String>,
    /// What became of the questions there.
    pub state: HopState,
    /// How many questions went there.
    pub sent: u32,
    /// Of how many of them something was heard, from it or from behind it.
    pub received: u32,
    /// From the question until this hop's own report, in milliseconds: the shortest of
    /// all probes; none when there was no report.
    pub rtt_ms: Option<f64>,
    /// The mean of all probes.
    pub rtt_ms_avg: Option<f64>,
    /// The path by which the asker reaches the hop.
    pub path: String,
    /// How the hop reaches the next one, as it says; none when it declines or is the end.
    pub next_path: Option<PathKind>,
    /// What it says of itself.
    pub remote: Option<Remote>,
}

/// A whole route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceSummary {
    /// The hops by their places; the last is the node in charge of the target.
    pub hops: Vec<Hop>,
    /// Whether the node in charge answered.
    pub complete: bool,
    /// The node that answered.
    pub answered_by: Option<String>,
    /// Whether that is the node that was the target; none when a key was, or nobody answered.
    pub reached: Option<bool>,
    /// How many probes were sent.
    pub probes: u32,
    /// How many of them were answered.
    pub answered: u32,
    /// For a key: what each of the nodes nearest to it has, nearest first.
    pub holders: Option<Vec<Holder>>,
}

/// One of the nodes nearest to a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    /// The node.
    pub node_id: String,
    /// What it has.
    #[serde(flatten)]
    pub held: Held,
}

/// What a node has under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "held")]
pub enum Held {
    /// A value.
    Value {
        /// Its version.
        seq: u64,
        /// Seconds since its owner was last heard, as the node says.
        age_s: u32,
    },
    /// Only the mark of a removal.
    Removed,
    /// Nothing.
    Nothing,
    /// It did not answer in time.
    Silent,
}

/// How one check of the node's health came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Whether it is well.
    pub outcome: Outcome,
    /// What was found.
    #[serde(flatten)]
    pub finding: Finding,
}

/// Whether something is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is.
    Ok,
    /// It works, but a person should know or do something.
    Warning,
    /// It does not work.
    Problem,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "check")]
pub enum Finding {
    /// What there is between the node's addresses and the Internet.
    Translation {
        /// How others see it, and what its router does.
        nat: Box<Nat>,
        /// Its addresses on this host.
        own: Vec<SocketAddr>,
    },
    /// For how long silent ways are kept open by what is in between.
    Lifetime(MappingLifetime),
    /// Over what the node's sessions go.
    Paths {
        /// By datagrams from socket to socket, over the Internet.
        datagrams: u32,
        /// The same within the site.
        site: u32,
        /// By streams and requests to the peer itself.
        streams: u32,
        /// By way of other nodes.
        relayed: u32,
    },
    /// Which proxies connections to the web take.
    Proxies {
        /// Which they are, without passwords, in order; `direct` for none.
        routes: Vec<String>,
    },
    /// A TURN server of somebody else that this node uses.
    TurnServer(TurnUsed),
    /// A way in which links get through to a peer.
    Passage {
        /// Which way: `tcp 192.0.2.1:443 by the proxy proxy:3128`.
        way: String,
        /// After how long the peer answered, in milliseconds.
        took_ms: u64,
        /// What else was found out: what a proxy does to requests, line by line.
        found: String,
    },
    /// Ways in which nobody answered.
    Blocked {
        /// Which ways, and what was answered in place of the peer.
        ways: Vec<String>,
    },
    /// Nobody is known with whom it could be tried what passes.
    NoPassage,
    /// Whether the data directory can be written to.
    DataDirectory {
        /// Its path.
        path: String,
        /// What the system said when a file was written there; none when it worked.
        error: Option<String>,
        /// The room that is left, in octets, where the system tells.
        free_bytes: Option<u64>,
    },
    /// How many files and sockets the daemon may open.
    Files {
        /// How many are open.
        open: u64,
        /// How many may be.
        limit: u64,
    },
    /// Whether there are neighbours on the ring.
    Neighbours {
        /// Near neighbours.
        near: u32,
        /// Long links.
        long: u32,
        /// Whether others are known that do not answer.
        seeking: bool,
    },
    /// By which ways others were found.
    Bootstrap {
        /// Each way that was taken.
        sources: Vec<BootstrapSource>,
    },
    /// Whether strangers, asked to look at this node's position, find this node there.
    Position {
        /// How many strangers were asked.
        asked: u32,
        /// How many found this node.
        agree: u32,
        /// How many found another node, or nobody.
        disagree: u32,
        /// Whether they are strangers indeed: in a small overlay everybody is a
        /// neighbour.
        strangers: bool,
    },
    /// Whether a value can be stored, read back and removed.
    Values {
        /// What did not work; none when everything did.
        failed: Option<ValueStep>,
        /// How many nodes acknowledged the value.
        replicas: u32,
        /// How long all of it took, in milliseconds.
        time_ms: u64,
    },
    /// Whether the size of the overlay is estimated sensibly.
    Size {
        /// The estimate.
        estimate: u64,
        /// How many nodes this one knows of, itself included: peers, and everyone in their views.
        known: u64,
    },
    /// Whether the clock is right.
    Clock {
        /// By how many seconds it was set forward since the daemon started.
        stepped_s: i64,
        /// By how many seconds it is ahead of the clocks of the peers, the middle one of
        /// all; none when no peer tells.
        ahead_s: Option<i64>,
        /// How many peers told.
        peers: u32,
    },
    /// At which addresses the node can be dialled.
    Addresses {
        /// Its own, best first.
        own: Vec<SocketAddr>,
        /// Where peers see it, as they say.
        seen: Vec<Sighting>,
        /// How it is seen from outside, and whether the router maps ports.
        #[serde(default)]
        nat: Box<Nat>,
    },
    /// How the sessions reach their peers.
    Sessions {
        /// From address to address.
        direct: u32,
        /// By way of a third node.
        relayed: u32,
    },
    /// Which way the packets of channels take to the members with which they are exchanged.
    Packets {
        /// The UDP port for them.
        port: u16,
        /// How many members are reached straight at an address of theirs.
        direct: u32,
        /// How many by their sessions.
        by_session: u32,
    },
    /// Whether a channel is ready.
    Channel {
        /// Its name.
        name: String,
        /// This node's address in it.
        address: Option<String>,
        /// Its network device.
        interface: Option<String>,
        /// Whether the device is up; none without a device.
        up: Option<bool>,
        /// Whether this node makes devices at all.
        devices: bool,
        /// What the node has to tell about it.
        notice: Option<String>,
    },
    /// Whether the other members of a channel answer.
    Members {
        /// The channel's name.
        channel: String,
        /// How many others were asked.
        asked: u32,
        /// The host names of those that did not answer.
        silent: Vec<String>,
    },
    /// Whether hosts of channels are found by name.
    Names {
        /// How names reach the programs of the host, as in `status`.
        how: String,
        /// Where queries are answered.
        listening: Vec<SocketAddr>,
        /// The name of this host that was looked up as every program does; none when there is
        /// none yet, or programs have to be told where to ask.
        asked: Option<String>,
        /// Whether that led to this host.
        found: bool,
        /// What the node has to tell about it.
        notice: Option<String>,
    },
    /// What the node keeps.
    Records {
        /// For others.
        held: u64,
        /// Of its own, in the overlay.
        own: u64,
    },
    /// What the node refused or dropped.
    Refused {
        /// Since the start.
        count: u64,
        /// Seconds since the start.
        uptime_s: u64,
        /// The counter that counted most, as in `status`.
        most: String,
    },
    /// What the node has to tell.
    Notice {
        /// In English.
        text: String,
    },
}

/// A step of storing a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueStep {
    /// Storing it.
    Put,
    /// Reading it back.
    Get,
    /// Removing it.
    Remove,
}

/// An address at which peers see this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// The address.
    pub address: SocketAddr,
    /// How many of the peers that were asked see the node there.
    pub peers: u32,
}

/// The ring as the node knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OverlayMap {
    /// How many nodes the overlay seems to have.
    pub size_estimate: u64,
    /// The nodes, this one first, then by their positions.
    pub nodes: Vec<MapNode>,
    /// Who counts whom among its neighbours and links, as far as it is known.
    pub links: Vec<MapLink>,
}

/// A node on the map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapNode {
    /// Its id.
    pub node_id: String,
    /// Its place on the ring, of 2^64, as 16 hexadecimal digits.
    pub position: String,
    /// What it is to this node.
    pub role: MapRole,
    /// How packets reach it.
    pub path: PathKind,
    /// Smoothed round-trip time in milliseconds, where it was measured.
    pub rtt_ms: Option<f64>,
    /// Round-trip time in milliseconds as the network coordinates predict it, for nodes
    /// that are only known from others.
    #[serde(default)]
    pub rtt_predicted_ms: Option<f64>,
    /// Its class, where it is known.
    #[serde(default)]
    pub class: Option<String>,
}

/// What a node on the map is to the node that draws it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapRole {
    /// The node itself.
    Itself,
    /// A near neighbour.
    Near,
    /// A long link, in either direction.
    Long,
    /// Known from a peer's view.
    Known,
    /// Found by asking around.
    Found,
}

/// Who counts whom among its own, by their places in [`OverlayMap::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapLink {
    /// The one.
    pub from: u32,
    /// The other.
    pub to: u32,
    /// Whether it is a long link, and not a near neighbour.
    pub long: bool,
}
