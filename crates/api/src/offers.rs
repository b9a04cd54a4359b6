//! Services that members of a channel offer, whom a message to all reaches, and which programs
//! look for others there.

use serde::{Deserialize, Serialize};

/// What is asked of the services in a channel; answered by [`crate::Answer::Offers`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum OfferAsk {
    /// Which there are.
    List {
        /// The channel's name.
        channel: String,
    },
    /// Offer a service of this host to the members, now and after every start, in place of what
    /// was said of it before.
    Offer {
        /// The channel's name.
        channel: String,
        /// The service as names have it (RFC 6763, section 7): `_http._tcp`, `_sip._udp`.
        service: String,
        /// Its port, from 1.
        port: u16,
        /// What else who looks for it is to know: `key=value` each.
        #[serde(default)]
        texts: Vec<String>,
    },
    /// Offer it no longer.
    Withdraw {
        /// The channel's name.
        channel: String,
        /// The service.
        service: String,
    },
}

/// A service that a member of a channel offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The service as names have it.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// What else there is to know: `key=value` each.
    pub texts: Vec<String>,
    /// The member's id.
    pub node_id: String,
    /// The name of its host in the channel: `aki.office.enishi`; none as long as it has no
    /// address.
    pub host: Option<String>,
    /// Whether it is this node.
    pub own: bool,
}

/// Whom a message to all members of a channel has reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// The channel's name.
    pub channel: String,
    /// How many other members there are, as far as known.
    pub members: u32,
    /// How many of them said that they have got it.
    pub received: u32,
}

/// Whether programs that choose no device look for others in a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovery {
    /// The channel's name.
    pub channel: String,
    /// Whether they do.
    pub on: bool,
}
