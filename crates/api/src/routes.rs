//! Networks behind members.

use serde::{Deserialize, Serialize};

/// What is asked of a channel's routes; answered by [`crate::Answer::Routes`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum RouteAsk {
    /// Which there are.
    List {
        /// The channel's name; all channels for none.
        channel: Option<String>,
    },
    /// Offer a network behind this node to the members, or no longer.
    Share {
        /// The channel's name.
        channel: String,
        /// The network as ADDRESS/LENGTH, or `everything`.
        network: String,
        /// Whether to offer it.
        share: bool,
    },
    /// Reach a network by way of who offers it, or no longer.
    Use {
        /// The channel's name.
        channel: String,
        /// The network as ADDRESS/LENGTH, or `everything`.
        network: String,
        /// For `everything`: by way of which member, by its host's name, its virtual address or
        /// its id.
        by: Option<String>,
        /// Whether to use it.
        r#use: bool,
    },
}

/// A network behind members of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The channel's name.
    pub channel: String,
    /// The network.
    pub network: String,
    /// Whether this node offers it.
    pub shared: bool,
    /// Whether this node's person wants it.
    pub accepted: bool,
    /// By way of whom it is reached now: a node id.
    pub via: Option<String>,
    /// Whether the channel's rules let this node begin nothing there by way of it.
    pub barred: bool,
    /// The other members that offer it.
    pub routers: Vec<Router>,
}

/// A member that offers a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// Its id.
    pub node_id: String,
    /// The name that its host gives itself.
    pub host: String,
}
