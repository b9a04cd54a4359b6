//! TURN: who may use this node's server, and who does.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What is asked about TURN; answered by [`crate::Answer::Turn`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum TurnAsk {
    /// What there is.
    Show,
    /// Lets a user in, in place of one of the same name.
    Add {
        /// The name: 1 to 63 letters, digits, `-`, `_` and `.`.
        name: String,
        /// The password; none for one that is drawn.
        password: Option<Password>,
    },
    /// Lets a user in no more; what it has ends.
    Remove {
        /// The name.
        name: String,
    },
    /// Uses a server of somebody else, in place of the same one with another password; answered
    /// once it is known whether it serves, within seconds.
    Use {
        /// Which, as `turn:user@host:3478`.
        url: String,
        /// The password there.
        password: Password,
    },
    /// Uses it no longer.
    Forget {
        /// Which, as it was named, or `host:port`.
        url: String,
    },
}

/// A password. Its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// What there is of TURN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TurnState {
    /// This node's server; none when it is off.
    pub server: Option<TurnServer>,
    /// Who may use it, in the order of names.
    pub users: Vec<String>,
    /// Which servers of others this node uses; the one that was named last is the last.
    pub servers: Vec<TurnUsed>,
    /// The user that was just added.
    pub added: Option<TurnUser>,
}

/// A user, told once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnUser {
    /// The name.
    pub name: String,
    /// The password.
    pub password: Password,
}

/// A TURN server that runs. Counts are since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnServer {
    /// Where it is.
    pub listening: SocketAddr,
    /// What passwords are for.
    pub realm: String,
    /// Who has an allocation, in the order of their addresses.
    pub allocations: Vec<TurnAllocation>,
    /// Octets sent to peers.
    pub to_peers_bytes: u64,
    /// Octets sent to clients on behalf of peers.
    pub to_clients_bytes: u64,
    /// Octets dropped because a budget was used up.
    pub dropped_bytes: u64,
    /// Requests answered with 401 or 438: a client's first ones, or a wrong password.
    pub challenged_messages: u64,
    /// Requests refused because of a peer that must not be reached.
    pub denied_messages: u64,
    /// Requests refused because an allocation has too many peers.
    pub crowded_messages: u64,
    /// Requests not looked at, since their source sent too many.
    pub throttled_messages: u64,
    /// Datagrams without a meaning.
    pub ignored_messages: u64,
    /// Allocations refused because there were too many.
    pub refused_allocations: u64,
}

/// A server of somebody else that this node uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TurnUsed {
    /// Which, as `turn:user@host:3478`.
    pub url: String,
    /// The address at which this node is reached by it, while there is one.
    pub relayed: Option<SocketAddr>,
    /// Why there is none: `waiting` (for its first answer), `no-address`, `unreachable`, `silent`,
    /// `forgotten` (it was restarted) or `refused`; none while there is.
    pub trouble: Option<String>,
    /// The code with which it refuses: 401 tells of a wrong name or password, 486 of too many
    /// allocations of the user, 508 of too many at all.
    pub code: Option<u16>,
    /// What the system says, if it is not reached.
    pub error: Option<String>,
    /// How many peers come by it now.
    pub peers: usize,
    /// Octets to peers by it, since the start.
    pub sent_bytes: u64,
    /// Octets from peers.
    pub received_bytes: u64,
}

/// An allocation of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnAllocation {
    /// Whose it is.
    pub user: String,
    /// Where the client is.
    pub client: SocketAddr,
    /// Whether it speaks by TCP and not by UDP.
    #[serde(default)]
    pub tcp: bool,
    /// The relayed addresses.
    pub relayed: Vec<SocketAddr>,
    /// How many peers have its permission.
    pub peers: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_do_not_show_in_logs() {
        let password = Password("secret".to_owned());
        let name = "aki".to_owned();
        let added = TurnUser {
            name: name.clone(),
            password: password.clone(),
        };
        let ask = TurnAsk::Add {
            name,
            password: Some(password),
        };
        let text = format!("{ask:?} {added:?}");
        assert!(text.contains("aki") && !text.contains("secret"), "{text}");
    }
}
