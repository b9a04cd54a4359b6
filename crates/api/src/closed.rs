//! What may be asked about a closed overlay, and the answers.

use serde::{Deserialize, Serialize};

/// What an invitation to a closed overlay is to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OverlayInvite {
    /// How many nodes may join by it, 1 to 16; none for any number. The simple form does
    /// not count: none is the only value.
    pub uses: Option<u8>,
    /// For how long it may be used, in seconds; none for as long as the configuration says.
    pub valid_s: Option<u64>,
}

/// An invitation to a closed overlay.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct OverlayInvitation {
    /// The text.
    pub ticket: String,
    /// The name by which it can be revoked; none in the simple form.
    pub invitation: Option<String>,
    /// How many nodes may join by it; none for any number.
    pub uses: Option<u8>,
    /// From when on it cannot be used any more, in seconds since 1970.
    pub expires_unix_s: u64,
}

impl std::fmt::Debug for OverlayInvitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OverlayInvitation")
            .field("invitation", &self.invitation)
            .field("uses", &self.uses)
            .field("expires_unix_s", &self.expires_unix_s)
            .finish_non_exhaustive()
    }
}

/// How a node stands in a closed overlay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Overlay {
    /// How the overlay is called.
    pub name: String,
    /// Its id.
    pub overlay_id: String,
    /// This node's id.
    #[serde(default)]
    pub node_id: String,
    /// `certificates` or `secret`.
    pub form: String,
    /// The authority's key; none in the simple form.
    pub authority: Option<String>,
    /// Whether this node has the authority's secret key, and may invite and revoke.
    pub is_authority: bool,
    /// Whether the other members accept this node.
    pub is_member: bool,
    /// Why they do not.
    pub refusal: Option<String>,
    /// When the own certificate ends, in seconds since 1970; none in the simple form.
    pub expires_unix_s: Option<u64>,
    /// What the daemon knows; none when it does not run.
    pub gate: Option<Gate>,
}

/// What the daemon knows of a closed overlay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// How many nodes have proved their membership in the present sessions.
    pub admitted: u64,
    /// Messages of nodes that had shown no proof.
    pub messages_turned_away: u64,
    /// Proofs that did not count.
    pub proofs_refused: u64,
    /// Members whose certificate ended, was revoked, or was a second use.
    pub members_dropped: u64,
    /// The number of the newest list of revoked nodes and invitations; 0 for none.
    pub revocations: u64,
    /// The nodes and invitations in it.
    pub revoked: Vec<String>,
}
