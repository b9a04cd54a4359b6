//! By what a node belongs to a closed overlay.

use enishi_overlay::admission::{
    Certificate, Credential, RefusedError, Revocations, Rule, Standing, Subject,
};
use enishi_overlay::{Keypair, NodeId, OverlayId};
use serde::{Deserialize, Serialize};

use crate::keys::{Secret, derive_keypair};

/// By what a node belongs to a closed overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Membership {
    /// The simple form: it knows the overlay's secret.
    Secret(#[serde(with = "crate::recording::secret")] Secret),
    /// The authority has signed its certificate.
    Certified {
        /// The authority.
        authority: NodeId,
        /// The certificate.
        certificate: Certificate,
    },
    /// It has an invitation.
    Invited(Invited),
}

/// An invitation in the hands of a node that uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invited {
    /// The authority.
    pub authority: NodeId,
    /// What the authority has signed.
    pub invitation: Certificate,
    /// From what the invitation's keys follow ([`invitation_keys`]).
    #[serde(with = "crate::recording::secret")]
    pub seed: Secret,
    /// When the node took it up.
    pub joined_unix_s: u64,
}

/// Derives the keys of an invitation. Bounded by the size of `count`.
pub fn invitation_keys(seed: &Secret, count: u8) -> Vec<Keypair> {
    (0..count).map(|index| key(seed, index)).collect()
}

/// Returns the name of an invitation: its first key.
pub fn invitation_name(seed: &Secret) -> NodeId {
    key(seed, 0).id()
}

fn key(seed: &Secret, index: u8) -> Keypair {
    derive_keypair("enishi 1 invitation key", &**seed, &[&[index]])
}

impl Invited {
    pub(crate) fn keys(&self) -> Vec<Keypair> {
        match &self.invitation.content().subject {
            Subject::Invitation { keys, .. } => {
                invitation_keys(&self.seed, u8::try_from(keys.len()).unwrap_or(u8::MAX))
            }
            Subject::Member(_) => Vec::new(),
        }
    }

    pub(crate) fn is_single_use(&self) -> bool {
        matches!(
            self.invitation.content().subject,
            Subject::Invitation {
                single_use: true,
                ..
            }
        )
    }

    /// Signs the own certificate with one of the invitation's keys.
    pub(crate) fn credential(&self, me: NodeId, key: &Keypair) -> Credential {
        let content = self.invitation.content();
        let until = match content.subject {
            Subject::Invitation {
                members_until_unix_s,
                ..
            } => members_until_unix_s,
            Subject::Member(_) => content.expires_unix_s,
        };
        let subject = Subject::Member(me);
        let valid = self.joined_unix_s..until;
        Credential {
            member: Certificate::sign(key, content.overlay, subject, valid),
            invitation: Some(self.invitation.clone()),
        }
    }
}

impl Membership {
    /// Returns the overlay's id.
    pub fn overlay(&self) -> OverlayId {
        match self {
            Self::Secret(secret) => OverlayId::of_secret(secret),
            Self::Certified { authority, .. } | Self::Invited(Invited { authority, .. }) => {
                OverlayId::of_authority(authority)
            }
        }
    }

    /// Tells whether all lists in it are within their limits.
    pub fn is_bounded(&self) -> bool {
        match self {
            Self::Secret(_) => true,
            Self::Certified { certificate, .. } => certificate.is_bounded(),
            Self::Invited(invited) => invited.invitation.is_bounded(),
        }
    }

    /// Returns the authority; none for the simple form.
    pub fn authority(&self) -> Option<NodeId> {
        match self {
            Self::Secret(_) => None,
            Self::Certified { authority, .. } | Self::Invited(Invited { authority, .. }) => {
                Some(*authority)
            }
        }
    }

    /// Tells how the node `me` stands with it, as the other members see it; none for the
    /// simple form, which does not end.
    ///
    /// # Errors
    /// [`RefusedError`] when the others would refuse it.
    pub fn standing(
        &self,
        me: NodeId,
        unix_s: u64,
        revocations: Option<&Revocations>,
    ) -> Result<Option<Standing>, RefusedError> {
        let credential = match self {
            Self::Secret(_) => return Ok(None),
            Self::Certified { certificate, .. } => Credential {
                member: certificate.clone(),
                invitation: None,
            },
            Self::Invited(invited) => {
                let keys = invited.keys();
                let key = keys.first().ok_or(RefusedError::Chain)?;
                invited.credential(me, key)
            }
        };
        let (overlay, authority) = (self.overlay(), self.authority());
        let rule = Rule {
            overlay: &overlay,
            authority: authority.as_ref().ok_or(RefusedError::Foreign)?,
            revocations,
            unix_s,
        };
        credential.verify(&me, &rule).map(Some)
    }
}
