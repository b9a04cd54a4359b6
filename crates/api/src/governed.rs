//! What may be asked about a governed channel, and the answers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many nodes may join by an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Uses {
    /// So many, 1 to 16.
    Of(u8),
    /// Any number.
    Any,
}

/// What an invitation to a channel is to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChannelInvite {
    /// The channel's name on this node.
    pub name: String,
    /// How many nodes may join by it; none for one, and for any number in a channel of a
    /// secret, which cannot count.
    #[serde(default)]
    pub uses: Option<Uses>,
    /// For how long it may be used, in seconds; none for as long as the configuration says.
    #[serde(default)]
    pub valid_s: Option<u64>,
    /// The role of those who come by it.
    #[serde(default)]
    pub role: Option<String>,
}

/// An invitation to a channel. Its `Debug` form does not show the text.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ChannelInvitation {
    /// The text.
    pub ticket: String,
    /// The name by which it can be revoked; none in a channel of a secret.
    pub invitation: Option<String>,
    /// How many nodes may join by it; none for any number.
    pub uses: Option<u8>,
    /// From when on it cannot be used any more, in seconds since 1970.
    pub expires_unix_s: u64,
    /// The role of those who come by it.
    pub role: Option<String>,
    /// Whether the overlay has what it leads to. The node goes on trying where it has not.
    pub stored: bool,
}

impl fmt::Debug for ChannelInvitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelInvitation")
            .field("invitation", &self.invitation)
            .field("uses", &self.uses)
            .field("expires_unix_s", &self.expires_unix_s)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// An invitation to a channel that can still be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenInvitation {
    /// The name by which it can be revoked.
    pub invitation: String,
    /// How many nodes may join by it; none for any number.
    pub uses: Option<u8>,
    /// From when on it cannot be used any more, in seconds since 1970.
    pub expires_unix_s: u64,
    /// The role of those who come by it.
    pub role: Option<String>,
    /// The names of the hosts that came by it and are known.
    pub members: Vec<String>,
}

/// A member of a channel, as a person names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChannelMember {
    /// The channel's name on this node.
    pub name: String,
    /// The name of its host, one of its addresses, its node id or its first six or more characters.
    pub member: String,
}

/// A member that was removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Removal {
    /// Its node id.
    pub node_id: String,
    /// The name of its host, where it was known.
    pub host: Option<String>,
    /// Which secret of the channel is in use since.
    pub epoch: u64,
    /// The invitation by which it came, when that still lets others in.
    pub invitation: Option<String>,
}

/// A rule that is to be added. What it names is allowed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewRule {
    /// Who may begin: `*` for everybody, `role:NAME`, or a member as in [`ChannelMember`].
    pub from: String,
    /// With whom: the same, or `net:ADDRESS/LENGTH` for what is behind a member.
    pub to: String,
    /// With which protocols and ports: `tcp/22`, `udp/5000-5100`, `sctp`, `icmp`; everything
    /// when there is none.
    #[serde(default)]
    pub ports: Vec<String>,
}

/// A rule of a channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChannelRule {
    /// Its number, from 1.
    pub number: u32,
    /// Who may begin: `*`, a node id, or `role:NAME`.
    pub from: String,
    /// The name of that node's host, where it is known.
    pub from_host: Option<String>,
    /// With whom: the same, or `net:ADDRESS/LENGTH`.
    pub to: String,
    /// The name of that node's host, where it is known.
    pub to_host: Option<String>,
    /// With which protocols and ports; everything when there is none.
    pub ports: Vec<String>,
}
