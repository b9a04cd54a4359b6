//! Certificates, and the chains of them that make a node a member.

use serde::{Deserialize, Serialize};

use super::{Revocations, Signature, VERSION, signed_octets};
use crate::id::{Keypair, NodeId, OverlayId};

/// The most keys of one invitation, and so the most uses that can be counted.
pub const INVITATION_KEYS_MAX: usize = 16;

/// How much earlier than its beginning a certificate is accepted, in seconds.
pub const SKEW_S: u64 = 86_400;

/// What goes before the signed octets of a certificate.
const CERTIFICATE: &[u8] = b"enishi 1 certificate\0";

/// Whom a certificate is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// One node.
    Member(NodeId),
    /// Whoever has the secret halves of these keys, and may sign one member with each.
    Invitation {
        /// 1 to [`INVITATION_KEYS_MAX`]; the first names the invitation.
        keys: Vec<NodeId>,
        /// Whether each key is for one member.
        single_use: bool,
        /// When the certificates of members that it lets in end at the latest.
        members_until_unix_s: u64,
    },
}

/// What a certificate says; the issuer signs all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    version: u8,
    /// The overlay that it is for.
    pub overlay: OverlayId,
    /// Whom it is about.
    pub subject: Subject,
    /// From when it counts.
    pub not_before_unix_s: u64,
    /// From when it does not count any more.
    pub expires_unix_s: u64,
    /// Whose key signs.
    pub issuer: NodeId,
}

/// A signed statement of the authority, or of an invitation's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    content: Content,
    signature: Signature,
}

impl Certificate {
    /// Signs a certificate.
    pub fn sign(
        issuer: &Keypair,
        overlay: OverlayId,
        subject: Subject,
        valid_unix_s: std::ops::Range<u64>,
    ) -> Self {
        let content = Content {
            version: VERSION,
            overlay,
            subject,
            not_before_unix_s: valid_unix_s.start,
            expires_unix_s: valid_unix_s.end,
            issuer: issuer.id(),
        };
        let signature = Signature::new(&issuer.sign(&signed_octets(CERTIFICATE, &content)));
        Self { content, signature }
    }

    /// Returns what was signed.
    pub fn content(&self) -> &Content {
        &self.content
    }

    fn is_signed_by(&self, issuer: &NodeId) -> bool {
        let octets = signed_octets(CERTIFICATE, &self.content);
        self.content.issuer == *issuer && issuer.verify(&octets, &self.signature.octets())
    }

    fn is_for(&self, overlay: &OverlayId) -> bool {
        self.content.version == VERSION && self.content.overlay == *overlay
    }

    /// Tells whether it has no more keys than it may.
    pub fn is_bounded(&self) -> bool {
        match &self.content.subject {
            Subject::Member(_) => true,
            Subject::Invitation { keys, .. } => keys.len() <= INVITATION_KEYS_MAX,
        }
    }
}

/// A member's certificate, with the one of its issuer unless that is the authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// The member's own.
    pub member: Certificate,
    /// The invitation by which it came.
    pub invitation: Option<Certificate>,
}

/// What a credential that counts says of its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// From when on it does not count any more; never for the simple form.
    pub expires_unix_s: u64,
    /// The name of the invitation by which the holder came: its first key.
    pub invitation: Option<NodeId>,
    /// The invitation's key that signed the holder, if it is for one member only.
    pub single_use: Option<NodeId>,
}

/// Why a proof is refused. For the holder's own eyes: the other side is told nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedError {
    /// It is of another form, version or overlay.
    #[error("it is for another overlay")]
    Foreign,
    /// It is somebody else's.
    #[error("it belongs to another node")]
    Holder,
    /// Its time has not come.
    #[error("its time has not come: check the clock")]
    Early,
    /// It is past its time.
    #[error("it is past its time")]
    Expired,
    /// The certificates do not lead to the authority.
    #[error("it does not lead to the overlay's authority")]
    Chain,
    /// The authority has revoked it.
    #[error("the overlay's authority has revoked it")]
    Revoked,
}

/// What credentials are held against.
#[derive(Clone, Copy, Debug)]
pub struct Rule<'a> {
    /// The overlay.
    pub overlay: &'a OverlayId,
    /// Its authority.
    pub authority: &'a NodeId,
    /// Whom the authority has removed.
    pub revocations: Option<&'a Revocations>,
    /// The present time.
    pub unix_s: u64,
}

impl Credential {
    /// Tells how `holder`, who has shown this credential in a session that proves its key,
    /// stands. Two signature checks at most, after everything that is cheaper.
    ///
    /// # Errors
    /// [`RefusedError`].
    pub fn verify(&self, holder: &NodeId, rule: &Rule<'_>) -> Result<Standing, RefusedError> {
        let member = self.member.content();
        if !self.member.is_for(rule.overlay) {
            return Err(RefusedError::Foreign);
        }
        if member.subject != Subject::Member(*holder) {
            return Err(RefusedError::Holder);
        }
        if member.not_before_unix_s > rule.unix_s.saturating_add(SKEW_S) {
            return Err(RefusedError::Early);
        }
        if member.expires_unix_s <= rule.unix_s {
            return Err(RefusedError::Expired);
        }
        if rule.is_revoked(holder) {
            return Err(RefusedError::Revoked);
        }
        let mut standing = Standing {
            expires_unix_s: member.expires_unix_s,
            invitation: None,
            single_use: None,
        };
        let Some(invitation) = &self.invitation else {
            let signed = self.member.is_signed_by(rule.authority);
            return signed.then_some(standing).ok_or(RefusedError::Chain);
        };
        (standing.invitation, standing.single_use) = self.vouched_for(invitation, rule)?;
        Ok(standing)
    }

    /// Checks that the invitation let this member in; returns its name and, if it is for
    /// one member, the key that signed.
    fn vouched_for(
        &self,
        invitation: &Certificate,
        rule: &Rule<'_>,
    ) -> Result<(Option<NodeId>, Option<NodeId>), RefusedError> {
        let (member, content) = (self.member.content(), invitation.content());
        let Subject::Invitation {
            keys,
            single_use,
            members_until_unix_s,
        } = &content.subject
        else {
            return Err(RefusedError::Chain);
        };
        let in_time = content.not_before_unix_s <= member.not_before_unix_s.saturating_add(SKEW_S)
            && member.not_before_unix_s <= content.expires_unix_s
            && member.expires_unix_s <= *members_until_unix_s;
        let by_it = invitation.is_for(rule.overlay)
            && invitation.is_bounded()
            && keys.contains(&member.issuer);
        if !in_time || !by_it {
            return Err(RefusedError::Chain);
        }
        let name = keys.first().copied();
        if name.is_some_and(|name| rule.is_revoked(&name)) {
            return Err(RefusedError::Revoked);
        }
        if !invitation.is_signed_by(rule.authority) || !self.member.is_signed_by(&member.issuer) {
            return Err(RefusedError::Chain);
        }
        Ok((name, single_use.then_some(member.issuer)))
    }
}

impl Rule<'_> {
    fn is_revoked(&self, key: &NodeId) -> bool {
        self.revocations.is_some_and(|list| list.contains(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;
    const YEAR: u64 = 365 * 86_400;

    fn key(seed: u8) -> Keypair {
        Keypair::from_seed(&[seed; 32])
    }

    struct Office {
        authority: Keypair,
        overlay: OverlayId,
    }

    impl Office {
        fn new() -> Self {
            let authority = key(1);
            let overlay = OverlayId::of_authority(&authority.id());
            Self { authority, overlay }
        }

        fn invitation(&self, keys: &[&Keypair], expires: u64) -> Certificate {
            let subject = Subject::Invitation {
                keys: keys.iter().map(|key| key.id()).collect(),
                single_use: true,
                members_until_unix_s: NOW + 2 * YEAR,
            };
            Certificate::sign(&self.authority, self.overlay, subject, NOW..expires)
        }

        fn by(&self, issuer: &Keypair, member: NodeId, valid: std::ops::Range<u64>) -> Certificate {
            Certificate::sign(issuer, self.overlay, Subject::Member(member), valid)
        }

        fn verify(
            &self,
            credential: &Credential,
            holder: &Keypair,
            unix_s: u64,
        ) -> Result<Standing, RefusedError> {
            let rule = Rule {
                overlay: &self.overlay,
                authority: &self.authority.id(),
                revocations: None,
                unix_s,
            };
            credential.verify(&holder.id(), &rule)
        }
    }

    fn alone(member: Certificate) -> Credential {
        Credential {
            member,
            invitation: None,
        }
    }

    #[test]
    fn the_authority_lets_in_and_only_its_holder_for_its_time() {
        let office = Office::new();
        let member = key(2);
        let credential = alone(office.by(&office.authority, member.id(), NOW..NOW + YEAR));
        let verify = |at| office.verify(&credential, &member, at);
        assert_eq!(verify(NOW).unwrap().expires_unix_s, NOW + YEAR);
        assert!(verify(NOW - SKEW_S).is_ok());
        assert_eq!(verify(NOW - SKEW_S - 1), Err(RefusedError::Early));
        assert_eq!(verify(NOW + YEAR), Err(RefusedError::Expired));
        let copied = office.verify(&credential, &key(3), NOW);
        assert_eq!(copied, Err(RefusedError::Holder));
    }

    #[test]
    fn foreign_issuers_and_longer_chains_are_refused() {
        let office = Office::new();
        let (member, other) = (key(2), key(9));
        let by_other = alone(office.by(&other, member.id(), NOW..NOW + YEAR));
        let chain = Err(RefusedError::Chain);
        assert_eq!(office.verify(&by_other, &member, NOW), chain);
        // A member lets in another as if it were an invitation.
        let insider = office.by(&office.authority, other.id(), NOW..NOW + YEAR);
        let by_member = Credential {
            member: office.by(&other, member.id(), NOW..NOW + YEAR),
            invitation: Some(insider),
        };
        assert_eq!(office.verify(&by_member, &member, NOW), chain);
        let mut altered = alone(office.by(&office.authority, member.id(), NOW..NOW + YEAR));
        altered.member.content.expires_unix_s += 1;
        assert_eq!(office.verify(&altered, &member, NOW), chain);
        let elsewhere = OverlayId::of_authority(&other.id());
        let subject = Subject::Member(member.id());
        let foreign = Certificate::sign(&office.authority, elsewhere, subject, NOW..NOW + YEAR);
        let foreign = office.verify(&alone(foreign), &member, NOW);
        assert_eq!(foreign, Err(RefusedError::Foreign));
    }

    #[test]
    fn an_invitation_lets_in_within_its_limits() {
        let office = Office::new();
        let (member, first, second) = (key(2), key(5), key(6));
        let invitation = office.invitation(&[&first, &second], NOW + 1000);
        let credential = |issuer: &Keypair, valid| Credential {
            member: office.by(issuer, member.id(), valid),
            invitation: Some(invitation.clone()),
        };
        let verify = |credential: &Credential, at| office.verify(credential, &member, at);
        let good = credential(&second, NOW + 10..NOW + YEAR);
        let standing = verify(&good, NOW + 5000).unwrap();
        assert_eq!(standing.invitation, Some(first.id()));
        assert_eq!(standing.single_use, Some(second.id()));
        let chain = Err(RefusedError::Chain);
        let late = credential(&second, NOW + 1001..NOW + YEAR);
        assert_eq!(verify(&late, NOW + 5000), chain);
        let too_long = credential(&second, NOW..NOW + 3 * YEAR);
        assert_eq!(verify(&too_long, NOW), chain);
        let not_its_key = credential(&key(7), NOW..NOW + YEAR);
        assert_eq!(verify(&not_its_key, NOW), chain);
        let list = |key| Revocations::sign(&office.authority, office.overlay, None, key).unwrap();
        for revoked in [member.id(), first.id()] {
            let rule = Rule {
                overlay: &office.overlay,
                authority: &office.authority.id(),
                revocations: Some(&list(revoked)),
                unix_s: NOW,
            };
            let refused = good.verify(&member.id(), &rule);
            assert_eq!(refused, Err(RefusedError::Revoked));
        }
    }
}
