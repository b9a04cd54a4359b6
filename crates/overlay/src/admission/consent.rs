//! Consent to a gateway: an authority's word that one of its members may pass named services on
//! between its overlay and one other.
//!
//! ```text
//!   overlay A                    gateway                    overlay B
//!   who uses ---> port of its node in A | its node in B ---> member : port
//!            "wiki may go out"          |           "wiki may come in"
//!            consent of A's authority   |           consent of B's authority
//! ```
//!
//! What may pass is called by the name of a *service*, on which the two administrators agree. The
//! side from which it is used says at which port the gateway has it, and who may use it; the side
//! that has it says which member it is, and at which port. So neither learns who the members of the
//! other are. A service passes only where both consents name it ([`Opening::between`]).
//!
//! Documents are values of the overlays' DHTs: the gateway copies those from one overlay to the other
//! that one consent gives and the other takes, under the same name.
//!
//! ```text
//! +---------+------+---------+---------+---------+-------+-------------+------------+--------+
//! | version | name | overlay | gateway | channel | other | out, in,    | limits,    | issuer |
//! |         |      |         |         |         |       | takes,gives | times      |        |
//! +---------+------+---------+---------+---------+-------+-------------+------------+--------+
//!  1         32     32        32        1 + n     32      1 + n each    varint       32, and 64
//!                                                                                  of signature
//! ```
//!
//! A consent has a random name, by which the authority can revoke it as it revokes nodes and
//! invitations ([`super::Revocations`]).

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{RefusedError, SKEW_S, Signature, VERSION, signed_octets};
use crate::id::{Keypair, NodeId, OverlayId};

/// The most services that a consent lets out, and that it lets in.
pub const SERVICES_MAX: usize = 8;

/// The most users that a consent names, of all services together.
pub const USERS_MAX: usize = 16;

/// The longest name of a service, in octets.
pub const SERVICE_BYTES_MAX: usize = 31;

/// The most documents that a consent gives, and that it takes.
pub const DOCUMENTS_MAX: usize = 4;

/// The longest name of a document, in octets.
pub const DOCUMENT_BYTES_MAX: usize = 64;

/// The longest name of a channel, in octets.
const CHANNEL_BYTES_MAX: usize = 63;

/// What goes before the signed octets of a consent.
const CONSENT: &[u8] = b"enishi 1 gateway consent\0";

/// A service of the other overlay that members of this one may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetOut {
    /// Its name.
    pub service: String,
    /// The TCP port of the gateway's addresses in this overlay's channel where it is reached; not 0.
    pub port: u16,
    /// The members that may use it; all members of the channel if none is named.
    pub users: Vec<NodeId>,
}

/// A service of this overlay that members of the other one may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetIn {
    /// Its name.
    pub service: String,
    /// The member of this overlay's channel that has it.
    pub member: NodeId,
    /// Its TCP port; not 0.
    pub port: u16,
}

/// How much may pass at most. Of two consents the smaller figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Connections at a time, at least 1.
    pub flows: u16,
    /// Octets a second in both directions of all connections together, at least 1,024.
    pub octets_per_s: u64,
    /// After how many seconds without an octet a connection is ended, at least 1.
    pub idle_s: u32,
}

impl Default for Limits {
    /// 64 connections, 10 MB a second, 5 minutes.
    fn default() -> Self {
        Self {
            flows: 64,
            octets_per_s: 10_000_000,
            idle_s: 300,
        }
    }
}

impl Limits {
    fn is_fit(self) -> bool {
        self.flows >= 1 && self.octets_per_s >= 1024 && self.idle_s >= 1
    }

    fn and(self, other: Self) -> Self {
        Self {
            flows: self.flows.min(other.flows),
            octets_per_s: self.octets_per_s.min(other.octets_per_s),
            idle_s: self.idle_s.min(other.idle_s),
        }
    }
}

/// What a consent allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The gateway's node in this overlay.
    pub gateway: NodeId,
    /// The channel of this overlay, by the name that it has on the gateway's node.
    pub channel: String,
    /// The other overlay.
    pub other: OverlayId,
    /// What members of this overlay may use of the other one, at most [`SERVICES_MAX`].
    pub lets_out: Vec<LetOut>,
    /// What members of the other overlay may use of this one, at most [`SERVICES_MAX`].
    pub lets_in: Vec<LetIn>,
    /// Which documents of the other overlay are put into this one, by the names under which its DHT
    /// has them, at most [`DOCUMENTS_MAX`].
    pub takes: Vec<String>,
    /// Which documents of this overlay may be put into the other one, at most [`DOCUMENTS_MAX`].
    pub gives: Vec<String>,
    /// How much.
    pub limits: Limits,
}

/// Why terms cannot be signed, or count for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    /// Nothing is let out or in, or too much.
    #[error(
        "a consent lets up to {SERVICES_MAX} services out and in, gives and takes up to \
         {DOCUMENTS_MAX} documents, one of all these at least, and names {USERS_MAX} users at most"
    )]
    Count,
    /// The name of a document does not fit.
    #[error("a document's name has 1 to {DOCUMENT_BYTES_MAX} octets and no control characters")]
    Document,
    /// A name does not fit.
    #[error(
        "a service's name has 1 to {SERVICE_BYTES_MAX} letters, digits, `-` and `_`, a channel's 1 to 63"
    )]
    Name,
    /// Two services of one direction have one name, or one port at the gateway.
    #[error("two services that are let out have one port, or two of one direction one name")]
    Twice,
    /// A port or limit is 0, or too small.
    #[error(
        "ports are 1 to 65535; limits are at least 1 connection, 1024 octets a second and 1 second"
    )]
    Figure,
}

impl Terms {
    /// Tells whether the terms are within all limits.
    ///
    /// # Errors
    /// [`TermsError`].
    pub fn check(&self) -> Result<(), TermsError> {
        let documents = self.takes.len() + self.gives.len();
        let count = self.lets_out.len() + self.lets_in.len() + documents;
        let users: usize = self.lets_out.iter().map(|out| out.users.len()).sum();
        let most = self.lets_out.len().max(self.lets_in.len());
        let most_documents = self.takes.len().max(self.gives.len());
        let is_many = most > SERVICES_MAX || most_documents > DOCUMENTS_MAX || users > USERS_MAX;
        if count == 0 || is_many {
            return Err(TermsError::Count);
        }
        if !self
            .takes
            .iter()
            .chain(&self.gives)
            .all(|name| is_document(name))
        {
            return Err(TermsError::Document);
        }
        let out = self.lets_out.iter().map(|out| (&out.service, out.port));
        let inside = self
            .lets_in
            .iter()
            .map(|inside| (&inside.service, inside.port));
        let fits = |(name, _): (&String, u16)| is_name(name, SERVICE_BYTES_MAX);
        if !is_name(&self.channel, CHANNEL_BYTES_MAX)
            || !out.clone().chain(inside.clone()).all(fits)
        {
            return Err(TermsError::Name);
        }
        if !self.limits.is_fit() || out.chain(inside).any(|(_, port)| port == 0) {
            return Err(TermsError::Figure);
        }
        let twice = |at: usize, out: &LetOut| {
            let mut before = self.lets_out[..at].iter();
            before.any(|other| other.service == out.service || other.port == out.port)
        };
        let twice_in = |at: usize, inside: &LetIn| {
            let mut before = self.lets_in[..at].iter();
            before.any(|other| other.service == inside.service)
        };
        let mut out = self.lets_out.iter().enumerate();
        let mut inside = self.lets_in.iter().enumerate();
        if out.any(|(at, one)| twice(at, one)) || inside.any(|(at, one)| twice_in(at, one)) {
            return Err(TermsError::Twice);
        }
        Ok(())
    }
}

fn is_document(name: &str) -> bool {
    (1..=DOCUMENT_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

fn is_name(name: &str, bytes_max: usize) -> bool {
    let fits = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    (1..=bytes_max).contains(&name.len()) && name.bytes().all(fits)
}

/// A consent, signed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    version: u8,
    name: NodeId,
    overlay: OverlayId,
    terms: Terms,
    not_before_unix_s: u64,
    expires_unix_s: u64,
    issuer: NodeId,
    signature: Signature,
}

impl fmt::Debug for Consent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Consent({:?}, {:?})", self.name, self.terms)
    }
}

impl Consent {
    /// Signs a consent. `name` is to be random: it is never used again.
    ///
    /// # Errors
    /// [`TermsError`].
    pub fn sign(
        authority: &Keypair,
        name: NodeId,
        terms: Terms,
        valid_unix_s: Range<u64>,
    ) -> Result<Self, TermsError> {
        terms.check()?;
        let mut consent = Self {
            version: VERSION,
            name,
            overlay: OverlayId::of_authority(&authority.id()),
            terms,
            not_before_unix_s: valid_unix_s.start,
            expires_unix_s: valid_unix_s.end,
            issuer: authority.id(),
            signature: Signature::new(&[0; 64]),
        };
        consent.signature = Signature::new(&authority.sign(&consent.signed()));
        Ok(consent)
    }

    /// Returns the name by which it is revoked.
    pub fn name(&self) -> NodeId {
        self.name
    }

    /// Returns the overlay whose authority signs.
    pub fn overlay(&self) -> OverlayId {
        self.overlay
    }

    /// Returns what it allows.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Returns from when on it counts no more, in seconds since 1970.
    pub fn expires_unix_s(&self) -> u64 {
        self.expires_unix_s
    }

    /// Tells whether it counts now: for `holder`, the node that shows it, by the authority from
    /// whose key the id of the overlay follows. One signature check, after all that is cheaper.
    ///
    /// # Errors
    /// [`RefusedError`]: `Foreign` for another version or overlay, or terms out of their limits.
    pub fn verify(
        &self,
        overlay: &OverlayId,
        holder: &NodeId,
        is_revoked: impl Fn(&NodeId) -> bool,
        unix_s: u64,
    ) -> Result<(), RefusedError> {
        let is_form = self.version == VERSION && self.terms.check().is_ok();
        if !is_form || self.overlay != *overlay {
            return Err(RefusedError::Foreign);
        }
        if self.terms.gateway != *holder {
            return Err(RefusedError::Holder);
        }
        if self.not_before_unix_s > unix_s.saturating_add(SKEW_S) {
            return Err(RefusedError::Early);
        }
        if self.expires_unix_s <= unix_s {
            return Err(RefusedError::Expired);
        }
        if is_revoked(&self.name) || is_revoked(holder) {
            return Err(RefusedError::Revoked);
        }
        let is_authority = OverlayId::of_authority(&self.issuer) == *overlay;
        let signed = is_authority && self.issuer.verify(&self.signed(), &self.signature.octets());
        signed.then_some(()).ok_or(RefusedError::Chain)
    }

    fn signed(&self) -> Vec<u8> {
        let times = (self.not_before_unix_s, self.expires_unix_s);
        let content = (
            self.version,
            &self.name,
            &self.overlay,
            &self.terms,
            times,
            &self.issuer,
        );
        signed_octets(CONSENT, &content)
    }
}

/// A service that both consents let pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Its name.
    pub service: String,
    /// The gateway's port on the side from which it is used.
    pub port: u16,
    /// Who may use it there; everybody if none is named.
    pub users: Vec<NodeId>,
    /// The member of the other side that has it.
    pub member: NodeId,
    /// Its port.
    pub member_port: u16,
    /// How much may pass.
    pub limits: Limits,
}

impl Opening {
    /// Returns what members on the side of `user` may use on the side of `owner`. Nothing unless
    /// the two consents name each other's overlays. Bounded by [`SERVICES_MAX`].
    pub fn between(user: &Consent, owner: &Consent) -> Vec<Self> {
        if !match_each_other(user, owner) {
            return Vec::new();
        }
        let limits = user.terms.limits.and(owner.terms.limits);
        let open = |out: &LetOut| {
            let mut inside = owner.terms.lets_in.iter();
            let inside = inside.find(|inside| inside.service == out.service)?;
            Some(Self {
                service: out.service.clone(),
                port: out.port,
                users: out.users.clone(),
                member: inside.member,
                member_port: inside.port,
                limits,
            })
        };
        user.terms.lets_out.iter().filter_map(open).collect()
    }

    /// Tells whether a member of the side from which it is used may use it.
    pub fn admits(&self, user: &NodeId) -> bool {
        self.users.is_empty() || self.users.contains(user)
    }
}

/// Returns the documents that `taker` takes and `giver` gives. None unless the two consents name
/// each other's overlays.
pub fn documents<'a>(taker: &'a Consent, giver: &Consent) -> Vec<&'a str> {
    let taken = taker.terms.takes.iter();
    let is_given =
        |name: &&String| match_each_other(taker, giver) && giver.terms.gives.contains(name);
    taken.filter(is_given).map(String::as_str).collect()
}

fn match_each_other(one: &Consent, other: &Consent) -> bool {
    one.terms.other == other.overlay
        && other.terms.other == one.overlay
        && one.overlay != other.overlay
}

#[cfg(test)]
mod tests {
    use super::super::Revocations;
    use super::*;

    const NOW: u64 = 1_700_000_000;
    const DAY: u64 = 86_400;

    fn key(seed: u8) -> Keypair {
        Keypair::from_seed(&[seed; 32])
    }

    fn overlay(seed: u8) -> OverlayId {
        OverlayId::of_authority(&key(seed).id())
    }

    fn terms(gateway: u8, other: u8) -> Terms {
        Terms {
            gateway: key(gateway).id(),
            channel: "office".to_owned(),
            other: overlay(other),
            lets_out: vec![],
            lets_in: vec![],
            takes: vec![],
            gives: vec![],
            limits: Limits::default(),
        }
    }

    fn user() -> Terms {
        let out = |service: &str, port, users| LetOut {
            service: service.to_owned(),
            port,
            users,
        };
        Terms {
            lets_out: vec![
                out("wiki", 8080, vec![key(20).id()]),
                out("mail", 25, vec![]),
            ],
            ..terms(11, 2)
        }
    }

    fn owner() -> Terms {
        let wiki = LetIn {
            service: "wiki".to_owned(),
            member: key(30).id(),
            port: 80,
        };
        let limits = Limits {
            flows: 2,
            octets_per_s: 1 << 30,
            idle_s: 9,
        };
        Terms {
            lets_in: vec![wiki],
            limits,
            ..terms(12, 1)
        }
    }

    fn signed(authority: u8, terms: Terms) -> Consent {
        Consent::sign(&key(authority), key(99).id(), terms, NOW..NOW + DAY).unwrap()
    }

    #[test]
    fn a_consent_counts_for_its_gateway_its_overlay_and_its_time() {
        let consent = signed(1, user());
        let verify =
            |overlay, holder: u8, at| consent.verify(&overlay, &key(holder).id(), |_| false, at);
        assert_eq!(verify(overlay(1), 11, NOW), Ok(()));
        assert_eq!(verify(overlay(2), 11, NOW), Err(RefusedError::Foreign));
        assert_eq!(verify(overlay(1), 12, NOW), Err(RefusedError::Holder));
        assert_eq!(
            verify(overlay(1), 11, NOW + DAY),
            Err(RefusedError::Expired)
        );
        let early = verify(overlay(1), 11, NOW - SKEW_S - 1);
        assert_eq!(early, Err(RefusedError::Early));
        for revoked in [99, 11] {
            let list = Revocations::sign(&key(1), overlay(1), None, key(revoked).id()).unwrap();
            let is_revoked = |key: &NodeId| list.contains(key);
            let refused = consent.verify(&overlay(1), &key(11).id(), is_revoked, NOW);
            assert_eq!(refused, Err(RefusedError::Revoked));
        }
    }

    #[test]
    fn what_was_changed_or_signed_by_another_does_not_count() {
        let verify = |consent: &Consent| consent.verify(&overlay(1), &key(11).id(), |_| false, NOW);
        let mut changed = signed(1, user());
        changed.terms.lets_out[0].users.clear();
        assert_eq!(verify(&changed), Err(RefusedError::Chain));
        // Another authority's word for this overlay, with its own key and with the right one.
        let mut foreign = signed(7, user());
        foreign.overlay = overlay(1);
        assert_eq!(verify(&foreign), Err(RefusedError::Chain));
        foreign.issuer = key(1).id();
        assert_eq!(verify(&foreign), Err(RefusedError::Chain));
    }

    #[test]
    fn only_what_both_sides_name_is_open_and_the_smaller_limit_counts() {
        let (one, other) = (signed(1, user()), signed(2, owner()));
        let open = Opening::between(&one, &other);
        assert_eq!(open.len(), 1, "mail is let out and not in");
        let wiki = &open[0];
        assert_eq!((wiki.port, wiki.member_port), (8080, 80));
        assert_eq!(wiki.member, key(30).id());
        assert!(wiki.admits(&key(20).id()) && !wiki.admits(&key(21).id()));
        let limits = Limits {
            flows: 2,
            octets_per_s: 10_000_000,
            idle_s: 9,
        };
        assert_eq!(wiki.limits, limits);
        assert!(
            Opening::between(&other, &one).is_empty(),
            "not the other way"
        );
        let elsewhere = signed(3, owner());
        assert!(Opening::between(&one, &elsewhere).is_empty());
        let mut meant_for_another = owner();
        meant_for_another.other = overlay(5);
        assert!(Opening::between(&one, &signed(2, meant_for_another)).is_empty());
    }

    #[test]
    fn a_document_is_copied_where_one_side_takes_and_the_other_gives() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let mut taker = user();
        taker.takes = names(&["notice", "plan"]);
        let mut giver = owner();
        giver.gives = names(&["notice", "menu"]);
        let [taker, giver] = [signed(1, taker), signed(2, giver)];
        assert_eq!(documents(&taker, &giver), ["notice"]);
        assert!(documents(&giver, &taker).is_empty());
        let mut elsewhere = owner();
        elsewhere.gives = names(&["notice"]);
        assert!(documents(&taker, &signed(3, elsewhere)).is_empty());
    }

    #[test]
    fn terms_out_of_their_limits_are_not_signed_and_do_not_count() {
        let sign = |change: fn(&mut Terms)| {
            let mut terms = user();
            change(&mut terms);
            Consent::sign(&key(1), key(99).id(), terms, NOW..NOW + DAY).map(drop)
        };
        assert_eq!(sign(|_| {}), Ok(()));
        assert_eq!(sign(|terms| terms.lets_out.clear()), Err(TermsError::Count));
        let crowd = |terms: &mut Terms| terms.lets_out[1].users = vec![key(1).id(); USERS_MAX];
        assert_eq!(sign(crowd), Err(TermsError::Count));
        assert_eq!(sign(|terms| terms.channel.clear()), Err(TermsError::Name));
        let steering = |terms: &mut Terms| terms.takes = vec!["a\u{1b}".to_owned()];
        assert_eq!(sign(steering), Err(TermsError::Document));
        let spaced = |terms: &mut Terms| terms.lets_out[0].service = "a b".to_owned();
        assert_eq!(sign(spaced), Err(TermsError::Name));
        assert_eq!(
            sign(|terms| terms.lets_out[0].port = 0),
            Err(TermsError::Figure)
        );
        assert_eq!(
            sign(|terms| terms.limits.flows = 0),
            Err(TermsError::Figure)
        );
        assert_eq!(
            sign(|terms| terms.lets_out[0].port = 25),
            Err(TermsError::Twice)
        );
        let mut many = signed(1, user());
        many.terms.lets_out = vec![many.terms.lets_out[0].clone(); SERVICES_MAX + 1];
        let refused = many.verify(&overlay(1), &key(11).id(), |_| false, NOW);
        assert_eq!(refused, Err(RefusedError::Foreign));
    }
}
