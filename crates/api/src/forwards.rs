//! Forwards: ports of this host that lead into a channel, and ports in a channel that lead to
//! this host.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What to forward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardAdd {
    /// The channel's name on this node.
    pub channel: String,
    /// From where to where.
    #[serde(flatten)]
    pub way: ForwardWay,
    /// What is forwarded; TCP unless told.
    #[serde(default)]
    pub protocol: Protocol,
}

/// From where to where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "direction")]
pub enum ForwardWay {
    /// From this host to a member.
    Local {
        /// Where programs of this host connect.
        listen: SocketAddr,
        /// The member: a host's name or an address of the channel, and a port: `HOST:80`,
        /// `10.77.0.9:80`, `[fd00::9]:80`.
        to: String,
    },
    /// From the members to this host.
    Remote {
        /// The port of this node's addresses in the channel.
        port: u16,
        /// The program of this host.
        to: SocketAddr,
    },
}

/// What is forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Connections.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A forward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Its number on this node.
    pub id: u32,
    /// What it forwards.
    #[serde(flatten)]
    pub forward: ForwardAdd,
    /// How many connections, or flows of datagrams, it carries now.
    #[serde(default)]
    pub open: u32,
    /// How many it has carried since the daemon started.
    #[serde(default)]
    pub total: u64,
    /// Why it does not work at present.
    #[serde(default)]
    pub notice: Option<String>,
}
