//! Plain WireGuard clients of a node.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// What is asked of the WireGuard clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum WireGuardAsk {
    /// Have one more; answered by [`crate::Answer::WireGuardConfig`].
    Add {
        /// The channel's name.
        channel: String,
        /// What it is to be called: 1 to 63 letters, digits, `-` and `_`.
        client: String,
        /// Where it finds this node, as HOST:PORT; none for an address that this node has.
        endpoint: Option<String>,
    },
    /// Have one less; answered by [`crate::Answer::WireGuardClients`].
    Remove {
        /// The channel's name.
        channel: String,
        /// The client's name.
        client: String,
    },
    /// Which there are; answered by [`crate::Answer::WireGuardClients`].
    List {
        /// The channel's name; all channels for none.
        channel: Option<String>,
    },
}

/// What a new WireGuard client needs. Its secret key is nowhere else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireGuardConfig {
    /// The channel's name.
    pub channel: String,
    /// What it is called.
    pub client: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The configuration as `wg-quick` reads it.
    pub configuration: String,
    /// What a person should know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

impl fmt::Debug for WireGuardConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WireGuardConfig of {}", self.client)
    }
}

/// A WireGuard client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireGuardClient {
    /// The channel's name.
    pub channel: String,
    /// What it is called.
    pub client: String,
    /// Its address.
    pub address: IpAddr,
    /// Its public key, as WireGuard's programs write it.
    pub public_key: String,
    /// Whether this node holds its address; otherwise it is cut off.
    pub held: bool,
    /// Where it was last heard from, since the node was started.
    pub endpoint: Option<SocketAddr>,
    /// How many seconds ago keys were last agreed on; none when they have ended.
    pub handshake_s: Option<u64>,
    /// Octets of packets to it, since the node was started.
    pub sent_bytes: u64,
    /// Octets of packets from it.
    pub received_bytes: u64,
}
