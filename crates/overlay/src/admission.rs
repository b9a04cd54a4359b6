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

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{Keypair, NodeId, OverlayId};

/// The first field of every certificate and revocation list; others are refused.
pub const VERSION: u8 = 1;

/// The most keys of one invitation, and so the most uses that can be counted.
pub const INVITATION_KEYS_MAX: usize = 16;

/// The most keys that can be revoked; 32 octets each must fit one message.
pub const REVOKED_MAX: usize = 1024;

/// How much earlier than its beginning a certificate is accepted, in seconds.
pub const SKEW_S: u64 = 86_400;

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

/// What proves membership.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Proof {
    /// Certificates that lead to the authority.
    Credential(Box<Credential>),
    /// A hash keyed with the overlay's secret over both ids.
    Secret([u8; 32]),
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

/// Whom the authority has removed: one list, each with a higher number than the one before.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocations {
    version: u8,
    overlay: OverlayId,
    number: u64,
    keys: Vec<NodeId>,
    signature: Signature,
}

impl Revocations {
    /// Signs the list that follows `before`, with one more node or invitation (the name of
    /// an invitation is its first key). None when the list is full ([`REVOKED_MAX`]).
    pub fn sign(
        authority: &Keypair,
        overlay: OverlayId,
        before: Option<&Self>,
        key: NodeId,
    ) -> Option<Self> {
        let mut keys = before.map_or_else(Vec::new, |list| list.keys.clone());
        if let Err(at) = keys.binary_search(&key) {
            keys.insert(at, key);
        }
        let number = before.map_or(0, |list| list.number).saturating_add(1);
        let content = (VERSION, &overlay, number, &keys);
        let signature = Signature::new(&authority.sign(&signed_octets(REVOCATIONS, &content)));
        (keys.len() <= REVOKED_MAX).then_some(Self {
            version: VERSION,
            overlay,
            number,
            keys,
            signature,
        })
    }

    /// Tells whether it is the authority's list for the overlay. One signature check.
    pub fn verify(&self, overlay: &OverlayId, authority: &NodeId) -> bool {
        let content = (self.version, &self.overlay, self.number, &self.keys);
        self.version == VERSION
            && self.overlay == *overlay
            && self.is_bounded()
            && self.keys.is_sorted()
            && authority.verify(
                &signed_octets(REVOCATIONS, &content),
                &self.signature.octets(),
            )
    }

    /// Tells whether a node or an invitation is in the list.
    pub fn contains(&self, key: &NodeId) -> bool {
        self.keys.binary_search(key).is_ok()
    }

    /// Returns the number of the list, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns the nodes and invitations in it, in order, at most [`REVOKED_MAX`].
    pub fn keys(&self) -> &[NodeId] {
        &self.keys
    }

    fn is_bounded(&self) -> bool {
        self.keys.len() <= REVOKED_MAX
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revocations({}, {} keys)", self.number, self.keys.len())
    }
}

/// Makes the proof of the simple form, from the node that shows it for the one that is to
/// be convinced.
pub fn secret_proof(secret: &[u8; 32], overlay: &OverlayId, from: &NodeId, to: &NodeId) -> Proof {
    Proof::Secret(*secret_hash(secret, overlay, from, to).as_bytes())
}

/// Tells whether `from` has shown `to` the proof of the simple form. Takes the same time
/// for every wrong proof.
pub fn verify_secret_proof(
    secret: &[u8; 32],
    overlay: &OverlayId,
    from: &NodeId,
    to: &NodeId,
    shown: [u8; 32],
) -> bool {
    // Comparing two `blake3::Hash` takes constant time.
    secret_hash(secret, overlay, from, to) == blake3::Hash::from_bytes(shown)
}

fn secret_hash(secret: &[u8; 32], overlay: &OverlayId, from: &NodeId, to: &NodeId) -> blake3::Hash {
    let key = blake3::derive_key("enishi 1 closed overlay admission", secret);
    let mut hasher = blake3::Hasher::new_keyed(&key);
    for part in [overlay.as_bytes(), from.as_bytes(), to.as_bytes()] {
        hasher.update(part);
    }
    hasher.finalize()
}

const CERTIFICATE: &[u8] = b"enishi 1 certificate\0";
const REVOCATIONS: &[u8] = b"enishi 1 revocations\0";

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

    #[test]
    fn only_the_authority_revokes_and_lists_grow() {
        let office = Office::new();
        let (authority, overlay) = (&office.authority, office.overlay);
        let mut list = Revocations::sign(authority, overlay, None, key(9).id()).unwrap();
        for seed in [3, 7, 3] {
            list = Revocations::sign(authority, overlay, Some(&list), key(seed).id()).unwrap();
        }
        assert_eq!((list.number(), list.keys().len()), (4, 3));
        assert!(list.verify(&overlay, &authority.id()) && list.contains(&key(7).id()));
        assert!(!list.verify(&overlay, &key(2).id()));
        let mut forged = list.clone();
        forged.number += 1;
        assert!(!forged.verify(&overlay, &authority.id()));
        let by_another = Revocations::sign(&key(2), overlay, Some(&list), key(1).id()).unwrap();
        assert!(!by_another.verify(&overlay, &authority.id()));
    }

    #[test]
    fn the_proof_of_the_secret_is_for_one_pair_in_one_direction() {
        let overlay = OverlayId::of_secret(&[7; 32]);
        let (a, b, c) = (key(1).id(), key(2).id(), key(3).id());
        let Proof::Secret(shown) = secret_proof(&[7; 32], &overlay, &a, &b) else {
            panic!("a proof of the simple form");
        };
        let verify = |secret: u8, from: &NodeId, to: &NodeId| {
            verify_secret_proof(&[secret; 32], &overlay, from, to, shown)
        };
        assert!(verify(7, &a, &b));
        assert!(!verify(7, &b, &a) && !verify(7, &a, &c) && !verify(7, &c, &b));
        assert!(!verify(8, &a, &b));
    }
}
