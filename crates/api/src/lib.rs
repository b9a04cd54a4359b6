//! Types of the daemon's control interface: what may be asked, and the answers.
//!
//! The daemon serves them as JSON over HTTP on the Unix socket `control.sock` in
//! its data directory. One request, `POST /v1/call` with a [`Request`], gets a
//! stream of [`Answer`]s, one JSON object per line: for most requests a single
//! line, for [`Request::Ping`], [`Request::Trace`], [`Request::Doctor`] and [`Request::DoctorNet`] one line per event and the
//! summary last. A [`Failure`] takes the place of an answer and ends the stream.
//! `POST /v1/stream` with a [`StreamRequest`] and `Upgrade: enishi-stream` turns
//! the connection into the byte stream itself.

mod channels;
mod closed;
mod diagnostics;
mod forwards;
mod governed;
mod offers;
mod proxy;
mod routes;
mod status;
mod turn;
mod verify;
mod wireguard;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use channels::{Channel, ChannelCreate, ChannelJoin, Member};
pub use closed::{Gate, Overlay, OverlayInvitation, OverlayInvite};
pub use diagnostics::{
    Check, Finding, Held, Holder, Hop, HopState, MapLink, MapNode, MapRole, Outcome, OverlayMap,
    PathKind, Remote, Sighting, TraceSummary, ValueStep,
};
pub use forwards::{Forward, ForwardAdd, ForwardWay, Protocol};
pub use governed::{
    ChannelInvitation, ChannelInvite, ChannelMember, ChannelRule, NewRule, OpenInvitation, Removal,
    Uses,
};
pub use offers::{Count, Discovery, Offer, OfferAsk};
pub use proxy::{ProxyAnswer, ProxyAsk, ProxySource, ProxyState, ProxyTold};
pub use routes::{Route, RouteAsk, Router};
pub use status::{
    Account, BootstrapSource, HostName, MappingLifetime, Names, Nat, Peer, PortMapping, Proxies,
    Refused, Sent, Service, Status,
};
pub use turn::{Password, TurnAllocation, TurnAsk, TurnServer, TurnState, TurnUsed, TurnUser};
pub use verify::{PATHS_MAX, Verdict, Verification, Verified, VerifiedRecord};
pub use wireguard::{WireGuardAsk, WireGuardClient, WireGuardConfig};

/// The name of the control socket in the data directory.
pub const SOCKET_NAME: &str = "control.sock";

/// The largest value that `dht put` takes, in octets.
pub const VALUE_BYTES_MAX: usize = 4096;

/// What may be asked of the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "request")]
pub enum Request {
    /// Asks how the node is; answered by [`Answer::Status`].
    Status,
    /// Asks whom the node knows; answered by [`Answer::Peers`].
    Peers,
    /// Asks for an invitation to the overlay alone; answered by [`Answer::Ticket`].
    Invite,
    /// Makes a channel and claims an address in it; answered by [`Answer::Channel`]
    /// once the address is held.
    ChannelCreate(ChannelCreate),
    /// Asks for an invitation to a channel; answered by [`Answer::ChannelInvitation`].
    ChannelInvite(ChannelInvite),
    /// Lists the open invitations that this node has made to a governed channel; answered by
    /// [`Answer::ChannelInvitations`].
    ChannelInvitations {
        /// The channel's name on this node.
        name: String,
    },
    /// Ends an invitation to a governed channel; answered by [`Answer::ChannelInvitations`]
    /// with those that are left.
    ChannelRevoke {
        /// The channel's name on this node.
        name: String,
        /// The invitation's text, its name, or the first characters of that.
        invitation: String,
    },
    /// Removes a member from a governed channel; answered by [`Answer::ChannelRemoved`].
    ChannelRemove(ChannelMember),
    /// Gives a member of a governed channel a role; answered by [`Answer::ChannelMember`].
    ChannelRole {
        /// Who, and where.
        #[serde(flatten)]
        of: ChannelMember,
        /// The role, 1 to 31 small letters, digits and `-`; none to take it away.
        role: Option<String>,
    },
    /// Makes a member of a governed channel an administrator, or one no longer; answered by
    /// [`Answer::ChannelMember`].
    ChannelAdmin {
        /// Who, and where.
        #[serde(flatten)]
        of: ChannelMember,
        /// Whether it is to be one.
        admin: bool,
    },
    /// Asks who may reach what in a governed channel; answered by [`Answer::ChannelRules`].
    ChannelRules {
        /// The channel's name on this node.
        name: String,
    },
    /// Adds a rule; answered by [`Answer::ChannelRules`].
    ChannelAllow {
        /// The channel's name on this node.
        name: String,
        /// The rule.
        rule: NewRule,
    },
    /// Takes a rule away; answered by [`Answer::ChannelRules`].
    ChannelDisallow {
        /// The channel's name on this node.
        name: String,
        /// Its number, from 1.
        number: u32,
    },
    /// Asks for everything about one channel; answered by [`Answer::Channel`].
    ChannelShow {
        /// The channel's name on this node.
        name: String,
    },
    /// Joins a channel and claims an address in it; answered by [`Answer::Channel`]
    /// once the address is held.
    ChannelJoin(ChannelJoin),
    /// Leaves a channel, gives its address back; answered by [`Answer::Done`]. Who has founded
    /// a governed channel is refused with [`FailureKind::Founder`] unless it insists.
    ChannelLeave {
        /// The channel's name on this node.
        name: String,
        /// Whether its founder insists, and the channel's authority is lost.
        #[serde(default)]
        force: bool,
    },
    /// Counts whom a message to all members reaches; answered by [`Answer::Counted`] within
    /// seconds.
    ChannelCount {
        /// The channel's name on this node.
        name: String,
    },
    /// Asks whether programs of this host that choose no device look for others in a channel, or
    /// decides it, now and after every start; answered by [`Answer::Discovery`].
    ChannelDiscovery {
        /// The channel's name on this node.
        name: String,
        /// Whether they are to; none to ask only.
        on: Option<bool>,
    },
    /// Asks of services that members offer, or changes which this node does; answered by
    /// [`Answer::Offers`].
    Offer(OfferAsk),
    /// Lists the channels; answered by [`Answer::Channels`].
    ChannelList,
    /// Asks of networks behind members, or changes which are offered and used; answered by
    /// [`Answer::Routes`].
    Route(RouteAsk),
    /// Asks for proxies of this node's connections, or tells of them; answered by
    /// [`Answer::Proxy`].
    Proxy(ProxyAsk),
    /// Lists the hosts of a channel by name; answered by [`Answer::Names`].
    ChannelNames {
        /// The channel's name on this node.
        name: String,
    },
    /// Looks up a host of this node's channels; answered by [`Answer::Names`], or by a failure
    /// with [`FailureKind::No`].
    Resolve {
        /// A host's name, with or without channel and domain, its node id, or an address.
        name: String,
    },
    /// Forwards a port between this host and a channel, now and after every start; answered
    /// by [`Answer::Forward`].
    ForwardAdd(ForwardAdd),
    /// Ends a forward and its connections; answered by [`Answer::Done`].
    ForwardRemove {
        /// Its number.
        id: u32,
    },
    /// Lists the forwards; answered by [`Answer::Forwards`].
    ForwardList,
    /// Adds, removes or lists WireGuard clients; answered by [`Answer::WireGuardConfig`] or
    /// [`Answer::WireGuardClients`].
    WireGuard(WireGuardAsk),
    /// Asks of TURN, or changes who may use this node's server; answered by [`Answer::Turn`].
    Turn(TurnAsk),
    /// Takes connections to a port of this node's addresses in a channel as long as the caller
    /// listens; answered by [`Answer::PortOpen`], and by [`Answer::PortConnection`] for each one,
    /// which [`StreamRequest::Take`] hands over.
    PortListen {
        /// The channel's name on this node.
        channel: String,
        /// The TCP port.
        port: u16,
    },
    /// Sends echo requests; answered by [`Answer::Pong`] or [`Answer::Lost`] for each
    /// and by [`Answer::PingSummary`] last.
    Ping(Ping),
    /// Follows the route to a target hop by hop; answered by [`Answer::TraceSummary`],
    /// and before it by [`Answer::Probed`] after each probe.
    Trace {
        /// A node id, the first characters of one that the node knows, a virtual address
        /// or `key:TEXT`.
        target: String,
        /// How many questions to send one after the other, 1 to 20; 1 unless told.
        #[serde(default = "one")]
        probes: u32,
    },
    /// Asks over several paths that have no node in common whether a node is where its key
    /// puts it, or what is stored under a key; answered by [`Answer::Verification`].
    Verify {
        /// A node id, the first characters of one that the node knows, a virtual address
        /// or `key:TEXT`.
        target: String,
        /// Over how many paths, 1 to [`PATHS_MAX`]; that many unless told.
        #[serde(default = "paths_max")]
        paths: u8,
    },
    /// Checks the node end to end; answered by an [`Answer::Check`] for each check and by
    /// [`Answer::Checked`] last.
    Doctor,
    /// Looks how the node gets out of its network, and what passes; answered as
    /// [`Request::Doctor`].
    DoctorNet,
    /// Asks for the ring as the node knows it; answered by [`Answer::OverlayMap`].
    OverlayMap {
        /// How many nodes to ask for their neighbours, at most 1,000; 0 for none.
        #[serde(default)]
        crawl: u32,
    },
    /// Stores a value under a name; answered by [`Answer::Stored`].
    DhtPut {
        /// The name, any text up to 1,024 octets.
        key: String,
        /// The value, at most [`VALUE_BYTES_MAX`] octets.
        value: Vec<u8>,
        /// How long holders keep it without hearing of the owner again, in seconds.
        lease_s: u32,
    },
    /// Reads the value of a name; answered by [`Answer::Value`], or by a failure with
    /// [`FailureKind::No`].
    DhtGet {
        /// The name.
        key: String,
    },
    /// Removes a value that this node stored; answered by [`Answer::Done`].
    DhtRemove {
        /// The name.
        key: String,
    },
    /// Asks for an invitation to the closed overlay; answered by
    /// [`Answer::OverlayInvitation`].
    OverlayInvite(OverlayInvite),
    /// Asks how the node stands in the closed overlay; answered by [`Answer::Overlay`].
    OverlayShow,
    /// Removes a node or an invitation from the closed overlay; answered by
    /// [`Answer::Overlay`].
    OverlayRevoke {
        /// A node's id, the first characters of one that the node knows, an invitation or
        /// its name.
        subject: String,
    },
    /// Ends the daemon in good order; answered by [`Answer::Done`].
    Shutdown,
}

/// How to ping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ping {
    /// A node id, the first characters of one that the node knows, or a virtual address.
    pub target: String,
    /// How many echo requests to send, 1 to 1,000.
    pub count: u32,
    /// Between two requests, in milliseconds, at least 10.
    pub interval_ms: u32,
    /// How long to wait for each answer, in milliseconds.
    pub timeout_ms: u32,
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub enum Answer {
    /// The request was carried out.
    Done,
    /// How the node is.
    Status(Box<Status>),
    /// Whom the node knows.
    Peers {
        /// Every peer with a session or a place in the routing table.
        peers: Vec<Peer>,
    },
    /// An invitation: one line of text.
    Ticket {
        /// The text.
        ticket: String,
    },
    /// The state of one channel.
    Channel(Channel),
    /// Which proxies connections of this node take.
    Proxy(ProxyState),
    /// The networks behind members of channels.
    Routes {
        /// In the order of channels and networks.
        routes: Vec<Route>,
    },
    /// The services that members of a channel offer.
    Offers {
        /// In the order of members and services.
        offers: Vec<Offer>,
    },
    /// Whom a message to all members has reached.
    Counted(Count),
    /// Whether programs look for others in a channel.
    Discovery(Discovery),
    /// What a new WireGuard client needs; told once.
    WireGuardConfig(WireGuardConfig),
    /// The WireGuard clients of this node.
    WireGuardClients {
        /// In the order in which they came.
        clients: Vec<WireGuardClient>,
    },
    /// What there is of TURN.
    Turn(TurnState),
    /// The state of all channels.
    Channels {
        /// In the order of their names.
        channels: Vec<Channel>,
    },
    /// Hosts of channels.
    Names {
        /// In the order of their node ids.
        names: Vec<HostName>,
    },
    /// A forward.
    Forward(Forward),
    /// All forwards.
    Forwards {
        /// In the order of their numbers.
        forwards: Vec<Forward>,
    },
    /// Connections to a port are taken from now on.
    PortOpen,
    /// Somebody connected to a port.
    PortConnection(PortConnection),
    /// An echo response arrived.
    Pong {
        /// Which request it answers, from 0.
        sequence: u32,
        /// Round-trip time in milliseconds.
        rtt_ms: f64,
        /// The path it took.
        path: String,
        /// What the other node says of itself; none when it declines to.
        #[serde(default)]
        remote: Option<Remote>,
    },
    /// No echo response arrived in time.
    Lost {
        /// Which request was lost, from 0.
        sequence: u32,
    },
    /// What all echo requests of a ping came to.
    PingSummary(PingSummary),
    /// One probe of a route came to its end.
    Probed {
        /// Which, from 0.
        probe: u32,
    },
    /// The whole route.
    TraceSummary(TraceSummary),
    /// What several paths agree on.
    Verification(Verification),
    /// How one check of the node's health came out.
    Check(Check),
    /// All checks were made.
    Checked {
        /// How many came out well.
        ok: u32,
        /// How many with a warning.
        warnings: u32,
        /// How many found a problem.
        problems: u32,
    },
    /// The ring as the node knows it.
    OverlayMap(OverlayMap),
    /// A value was stored.
    Stored {
        /// How many nodes acknowledged it.
        replicas: u32,
        /// The version that it got.
        seq: u64,
    },
    /// The value of a name.
    Value {
        /// The octets.
        value: Vec<u8>,
        /// The version.
        seq: u64,
    },
    /// An invitation to a channel.
    ChannelInvitation(ChannelInvitation),
    /// The open invitations that this node has made to a channel.
    ChannelInvitations {
        /// The invitations, oldest first.
        invitations: Vec<OpenInvitation>,
    },
    /// A member was removed.
    ChannelRemoved(Removal),
    /// A member of a channel, after a change.
    ChannelMember(Member),
    /// Who may reach what in a channel.
    ChannelRules {
        /// The rules; without any, everybody may reach everything.
        rules: Vec<ChannelRule>,
    },
    /// An invitation to the closed overlay.
    OverlayInvitation(OverlayInvitation),
    /// How the node stands in the closed overlay.
    Overlay(Overlay),
    /// The request failed; nothing follows.
    Failure(Failure),
}

/// What all echo requests of a ping came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PingSummary {
    /// The node that was pinged.
    pub node_id: String,
    /// Echo requests sent.
    pub sent: u32,
    /// Echo responses received in time.
    pub received: u32,
    /// Round-trip times; none when nothing was received.
    pub rtt_ms: Option<RoundTrips>,
    /// The path of the last response.
    pub path: String,
    /// What sort of path it is.
    #[serde(default)]
    pub path_kind: PathKind,
    /// What the other node said of itself last; none when it declines to.
    #[serde(default)]
    pub remote: Option<Remote>,
}

/// Round-trip times in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundTrips {
    /// The shortest.
    pub min: f64,
    /// The mean.
    pub avg: f64,
    /// The mean deviation from the mean, as `ping` counts it: the root of the mean of the
    /// squares.
    #[serde(default)]
    pub mdev: f64,
    /// The 99th percentile (nearest rank).
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

fn one() -> u32 {
    1
}

fn paths_max() -> u8 {
    PATHS_MAX
}

/// Opens a byte stream between two members.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "stream")]
pub enum StreamRequest {
    /// Waits for one stream to a service of this node.
    Listen {
        /// The service's name, 1 to 63 letters, digits, `-` and `_`.
        service: String,
    },
    /// Opens a stream to a service of another member.
    Connect {
        /// A virtual address, a node id, or the first characters of one.
        target: String,
        /// The service's name there.
        service: String,
    },
    /// Takes a connection that was told of, within five seconds.
    Take {
        /// Its number.
        connection: u64,
    },
    /// Connects to a TCP port of a member.
    ConnectPort {
        /// The channel's name on this node.
        channel: String,
        /// The member's node id.
        member: String,
        /// The port.
        port: u16,
    },
}

/// A connection to a port of this node in a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortConnection {
    /// Its number, for [`StreamRequest::Take`].
    pub connection: u64,
    /// From where it came.
    pub from: SocketAddr,
    /// The member that has that address, and has proved it; none when it is nobody's.
    pub node_id: Option<String>,
}

/// Why a request failed, for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What sort of failure it is; decides the exit code.
    pub kind: FailureKind,
    /// What went wrong and what to do about it, one or two sentences.
    pub message: String,
}

/// What sort of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The answer is no: not found, refused, timed out. Exit code 1.
    No,
    /// The request makes no sense. Exit code 2.
    Usage,
    /// This node has founded the channel, and would take its authority with it. Exit code 1.
    Founder,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show_in_logs() {
        let (name, network) = ("office".to_owned(), "10.77.0.0/16".to_owned());
        let password = "secret".to_owned();
        let create = ChannelCreate {
            name: name.clone(),
            network: network.clone(),
            password: Some(password.clone()),
            address: None,
        };
        let join = ChannelJoin::Password {
            name,
            password,
            network,
            address: None,
        };
        let ticket = ChannelJoin::Ticket {
            ticket: "secret".to_owned(),
            address: None,
        };
        for request in [
            Request::ChannelCreate(create),
            Request::ChannelJoin(join),
            Request::ChannelJoin(ticket),
        ] {
            let text = format!("{request:?}");
            assert!(
                text.contains("address") && !text.contains("secret"),
                "{text}"
            );
        }
    }

    #[test]
    fn requests_have_the_form_that_scripts_write() {
        for (text, request) in [
            (r#"{"request":"status"}"#, Request::Status),
            (
                r#"{"request":"dht_get","key":"k"}"#,
                Request::DhtGet {
                    key: "k".to_owned(),
                },
            ),
            (
                r#"{"request":"channel_join","by":"ticket","ticket":"t","address":null}"#,
                Request::ChannelJoin(ChannelJoin::Ticket {
                    ticket: "t".to_owned(),
                    address: None,
                }),
            ),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        }
    }
}
