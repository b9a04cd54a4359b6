//! Admission to a closed overlay: certificates, invitations, revocations, and what two
//! nodes show each other at the beginning of a session.
//!
//! A closed overlay has an *authority*, an ed25519 key; the overlay's id is a hash of it.
//! A node is a member when a chain of at most two certificates leads from the authority
//! to its key:
//!
//! ```text
//!   authority --signs--> member                              (the founder)
//!   authority --signs--> keys of an invitation --sign--> member
//!
//!   certificate
//! +---------+---------+---------+------------+---------+--------+-----------+
//! | version | overlay | subject | not before | expires | issuer | signature |
//! +---------+---------+---------+------------+---------+--------+-----------+
//!  1         32        33 or n   1–10         1–10      32       64     octets
//! ```
//!
//! In the simple form there is no authority: whoever knows the overlay's secret is a
//! member, and proves it by a keyed hash over both node ids. The session proves the ids, so
//! the hash of one pair is of no use to anybody else.
//!
//! Times are seconds since 1970. A certificate that is to begin in the future is accepted up
//! to [`SKEW_S`] early, for clocks that differ; the end is not stretched.

mod certificate;
pub mod consent;
mod proof;
mod revocations;

use serde::{Deserialize, Serialize};

pub use certificate::{
    Certificate, Content, Credential, INVITATION_KEYS_MAX, RefusedError, Rule, SKEW_S, Standing,
    Subject,
};
pub use consent::Consent;
pub use proof::{Proof, secret_proof, verify_secret_proof};
pub use revocations::{REVOKED_MAX, Revocations};

/// The first field of every certificate and revocation list; others are refused.
pub const VERSION: u8 = 1;

/// What two nodes of a closed overlay tell each other before anything else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Admission {
    /// Asks a node that speaks without having shown anything in this session. Tells
    /// nothing: not even whether the sender is a member.
    Ask,
    /// Shows the sender's proof.
    Present(Presentation),
    /// Tells whom the authority has removed.
    Revoked(Revocations),
}

/// How a node shows that it is a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Presentation {
    /// The proof, for this receiver.
    pub proof: Proof,
    /// Whether the sender has admitted the receiver in this session; otherwise the
    /// receiver is to show its own proof.
    pub known: bool,
    /// The number of the newest revocation list that the sender has; 0 for none.
    pub revocations: u64,
}

/// A signature of 64 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Signature([u8; 32], [u8; 32]);

impl Signature {
    fn new(octets: &[u8; 64]) -> Self {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        a.copy_from_slice(&octets[..32]);
        b.copy_from_slice(&octets[32..]);
        Self(a, b)
    }

    fn octets(&self) -> [u8; 64] {
        let mut octets = [0; 64];
        octets[..32].copy_from_slice(&self.0);
        octets[32..].copy_from_slice(&self.1);
        octets
    }
}

fn signed_octets(purpose: &[u8], content: &impl Serialize) -> Vec<u8> {
    // Serialising into a growing vector fails for no value of these types.
    postcard::to_extend(content, purpose.to_vec()).unwrap_or_default()
}

impl Admission {
    /// Tells whether all lists are within their limits.
    pub fn is_bounded(&self) -> bool {
        match self {
            Self::Ask => true,
            Self::Present(Presentation { proof, .. }) => match proof {
                Proof::Secret(_) => true,
                Proof::Credential(credential) => {
                    let invitation = credential.invitation.as_ref();
                    credential.member.is_bounded() && invitation.is_none_or(Certificate::is_bounded)
                }
            },
            Self::Revoked(list) => list.is_bounded(),
        }
    }
}
