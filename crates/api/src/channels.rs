//! Channels and their members.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// What a new channel is to be. Its `Debug` form does not show the password.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ChannelCreate {
    /// The name, 1 to 63 letters, digits, `-` and `_`.
    pub name: String,
    /// The network as `address/prefix length`, for example `10.77.0.0/16`.
    pub network: String,
    /// With a password, whoever knows name, password and network may join; without, the
    /// channel is governed: it is joined by invitation, and this node is its founder.
    pub password: Option<String>,
    /// The address to claim instead of a random one.
    pub address: Option<Ipv4Addr>,
}

/// How a channel is joined. Its `Debug` form shows neither invitation nor password.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum ChannelJoin {
    /// By an invitation.
    Ticket {
        /// The invitation's text.
        ticket: String,
        /// The address to claim instead of a random one.
        address: Option<Ipv4Addr>,
    },
    /// By what all members know.
    Password {
        /// The channel's name.
        name: String,
        /// The password.
        password: String,
        /// The network as `address/prefix length`.
        network: String,
        /// The address to claim instead of a random one.
        address: Option<Ipv4Addr>,
    },
}

impl fmt::Debug for ChannelCreate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelCreate")
            .field("name", &self.name)
            .field("network", &self.network)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ChannelJoin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ticket { address, .. } => f
                .debug_struct("Ticket")
                .field("address", address)
                .finish_non_exhaustive(),
            Self::Password {
                name,
                network,
                address,
                ..
            } => f
                .debug_struct("Password")
                .field("name", name)
                .field("network", network)
                .field("address", address)
                .finish_non_exhaustive(),
        }
    }
}

/// The state of one channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Channel {
    /// The channel's name.
    pub name: String,
    /// The network as `address/prefix length`.
    pub network: String,
    /// This node's IPv4 address in it; none while it is being claimed.
    pub address: Option<Ipv4Addr>,
    /// This node's IPv6 address in it.
    pub address6: Option<Ipv6Addr>,
    /// The network device; none without permission for one or with `--no-tun`.
    pub interface: Option<String>,
    /// How many members are known, this one included.
    pub members: u32,
    /// The known members.
    pub member_list: Vec<Member>,
    /// What a person should know, for example that an address was in use elsewhere.
    pub notice: Option<String>,
    /// `governed`, where administrators decide who is a member, or `secret`, where whoever
    /// knows the secret is one.
    #[serde(default)]
    pub form: String,
    /// How many members this node is in touch with, itself included.
    #[serde(default)]
    pub online: u32,
    /// Whether this node has founded the channel.
    #[serde(default)]
    pub founder: bool,
    /// Whether this node is an administrator.
    #[serde(default)]
    pub admin: bool,
    /// Which secret of a governed channel is in use: the first, the second, …
    #[serde(default)]
    pub epoch: Option<u64>,
    /// How often the charter of a governed channel was changed, its making included.
    #[serde(default)]
    pub charter_version: Option<u64>,
    /// How many rules say who may reach what; everybody may reach everything without any.
    #[serde(default)]
    pub rules: u32,
    /// To how many other members packets go straight.
    #[serde(default)]
    pub direct: u32,
    /// To how many packets are relayed by another node.
    #[serde(default)]
    pub relayed: u32,
    /// How many others are reached in the session with them only.
    #[serde(default)]
    pub in_session: u32,
    /// The host by way of which everything is reached that is nowhere else, or its node id.
    #[serde(default)]
    pub exit: Option<String>,
    /// The networks behind members that are reached now, but for everything by the exit.
    #[serde(default)]
    pub routes: Vec<String>,
    /// How many WireGuard clients this node has there.
    #[serde(default)]
    pub wireguard_clients: u32,
    /// How many of them have keys now: they were there within minutes.
    #[serde(default)]
    pub wireguard_attached: u32,
}

/// A member of a channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// The member's node id.
    pub node_id: String,
    /// The name that its host gives itself.
    pub host: String,
    /// Its addresses in the channel.
    pub addresses: Vec<IpAddr>,
    /// Its role, for rules.
    #[serde(default)]
    pub role: Option<String>,
    /// Whether it has founded the channel.
    #[serde(default)]
    pub founder: bool,
    /// Whether it is an administrator.
    #[serde(default)]
    pub admin: bool,
    /// The name of the invitation by which it came.
    #[serde(default)]
    pub invitation: Option<String>,
    /// How packets reach it: `direct ADDRESS:PORT`, `relayed by NODE`, `session direct ADDRESS:PORT` in the
    /// session with it, `self`, or `-` when this node is not in touch with it.
    #[serde(default)]
    pub path: String,
    /// The round trip of that path in milliseconds.
    #[serde(default)]
    pub rtt_ms: Option<f64>,
    /// Octets of the channel's packets that were sent to it since packets are exchanged.
    #[serde(default)]
    pub bytes_sent: u64,
    /// The same that came from it.
    #[serde(default)]
    pub bytes_received: u64,
}
