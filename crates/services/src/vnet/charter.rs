//! The charter of a governed channel: what its administrators have decided.
//!
//! A channel that is made without a password has an *authority*, an ed25519 key that its
//! founder keeps. The authority names administrators ([`Admins`]); an administrator, or the
//! authority itself, signs the charter: who was removed, which invitations do not count any
//! more, who has which role, who may reach what, and which epoch of the channel's secret is in
//! use.
//!
//! ```text
//!   authority --signs--> admins --each may sign--> charter 1, 2, 3 …
//! ```
//!
//! Members pass it on in their sessions. Of two charters the one with the newer list of
//! administrators counts, then the later epoch, then the higher version, then the greater hash;
//! so all members end with the same one. What an administrator has removed in a charter that was
//! overtaken is removed again by the next one that it signs.

use enishi_overlay::{Keypair, NodeId, OverlayId};
use serde::{Deserialize, Serialize};

use super::access::Rule;
use crate::record::Signature;

/// The most administrators besides the founder, with those that are none any more.
pub const ADMINS_MAX: usize = 16;
/// The most nodes that are removed by name.
pub const REMOVED_MAX: usize = 512;
/// The most invitations that are revoked, those for one of removed nodes among them.
pub const REVOKED_MAX: usize = 512;
/// The most members that stay although the invitation by which they came is revoked.
pub const KEPT_MAX: usize = 256;
/// The most nodes and invitations that have a role.
pub const ROLES_MAX: usize = 256;
/// The most rules.
pub const RULES_MAX: usize = 64;
/// The longest name of a role, in octets.
pub const ROLE_BYTES_MAX: usize = 31;
/// The longest charter, in octets: it travels in one message.
pub const CHARTER_BYTES_MAX: usize = 48 * 1024;

const ADMINS: &[u8] = b"enishi 1 channel administrators\0";
const CHARTER: &[u8] = b"enishi 1 channel charter\0";

/// One administrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admin {
    /// Which node.
    pub node: NodeId,
    /// Since when it is none any more, in seconds since 1970: invitations that it made before
    /// still count.
    pub until_unix_s: Option<u64>,
}

/// The administrators, as the authority has named them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admins {
    version: u64,
    nodes: Vec<Admin>,
    signature: Signature,
}

/// An invitation that lets nobody in any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// The invitation's name: its first key.
    pub invitation: NodeId,
    /// Who came by it and stays.
    pub kept: Vec<NodeId>,
}

/// A role of a node, or of all who came by an invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// A node, or the name of an invitation.
    pub of: NodeId,
    /// The role; empty for a node that is to have none though its invitation gives it one.
    pub name: String,
}

/// What administrators decide.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decisions {
    /// Which secret of the channel is in use; grows by one when a member is removed.
    pub epoch: u64,
    /// The hash of that secret.
    pub epoch_digest: [u8; 32],
    /// Who was removed, in order.
    pub removed: Vec<NodeId>,
    /// Invitations that do not count any more.
    pub revoked: Vec<Revoked>,
    /// Who has which role.
    pub roles: Vec<Role>,
    /// Who may reach what; everybody everything when there is none.
    pub rules: Vec<Rule>,
}

/// The charter of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charter {
    admins: Admins,
    version: u64,
    decisions: Decisions,
    signer: NodeId,
    signature: Signature,
}

impl Admins {
    /// Signs the list.
    pub(super) fn sign(authority: &Keypair, version: u64, nodes: Vec<Admin>) -> Self {
        let said = (&OverlayId::of_authority(&authority.id()), version, &nodes);
        let signature = Signature::new(authority.sign(&signed(ADMINS, &said)));
        Self {
            version,
            nodes,
            signature,
        }
    }

    fn verify(&self, authority: &NodeId) -> bool {
        let said = (
            &OverlayId::of_authority(authority),
            self.version,
            &self.nodes,
        );
        self.nodes.len() <= ADMINS_MAX
            && authority.verify(&signed(ADMINS, &said), &self.signature.octets())
    }

    /// Returns the number of the list.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns those who are or were administrators.
    pub fn nodes(&self) -> &[Admin] {
        &self.nodes
    }

    /// Tells whether a node is one now.
    pub fn contains(&self, node: &NodeId) -> bool {
        self.nodes
            .iter()
            .any(|admin| admin.node == *node && admin.until_unix_s.is_none())
    }
}

impl Charter {
    /// Signs what was decided. `signer` is the authority or an administrator.
    pub(super) fn sign(
        signer: &Keypair,
        authority: &NodeId,
        admins: Admins,
        version: u64,
        decisions: Decisions,
    ) -> Self {
        let said = (
            &OverlayId::of_authority(authority),
            admins.version,
            version,
            &decisions,
        );
        let signature = Signature::new(signer.sign(&signed(CHARTER, &said)));
        Self {
            admins,
            version,
            decisions,
            signer: signer.id(),
            signature,
        }
    }

    /// Tells whether it is within its limits, and signed by who may sign it. Two signature
    /// checks.
    pub(super) fn verify(&self, authority: &NodeId) -> bool {
        let said = (
            &OverlayId::of_authority(authority),
            self.admins.version,
            self.version,
            &self.decisions,
        );
        (self.signer == *authority || self.admins.contains(&self.signer))
            && self.decisions.are_bounded()
            && self.admins.verify(authority)
            && self
                .signer
                .verify(&signed(CHARTER, &said), &self.signature.octets())
    }

    /// What decides between two charters: the greater counts.
    pub(super) fn precedence(&self) -> (u64, u64, u64, [u8; 32]) {
        let hash = blake3::hash(&self.signature.octets());
        (
            self.admins.version,
            self.decisions.epoch,
            self.version,
            *hash.as_bytes(),
        )
    }

    /// Returns the version, which every change raises by one.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns who signed it: an administrator, or the authority.
    pub fn signer(&self) -> NodeId {
        self.signer
    }

    /// Returns the administrators.
    pub fn admins(&self) -> &Admins {
        &self.admins
    }

    /// Returns what was decided.
    pub fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    /// Tells whether invitations that a node signed at a time count.
    pub(super) fn may_invite(&self, authority: &NodeId, node: &NodeId, at_unix_s: u64) -> bool {
        let in_time = |admin: &Admin| admin.until_unix_s.is_none_or(|until| at_unix_s < until);
        let mut admins = self.admins.nodes.iter();
        node == authority || admins.any(|admin| admin.node == *node && in_time(admin))
    }
}

impl Decisions {
    fn are_bounded(&self) -> bool {
        let kept = self.revoked.iter().map(|revoked| revoked.kept.len());
        self.removed.len() <= REMOVED_MAX
            && self.revoked.len() <= REVOKED_MAX
            && kept.sum::<usize>() <= KEPT_MAX
            && self.roles.len() <= ROLES_MAX
            && self
                .roles
                .iter()
                .all(|role| role.name.is_empty() || is_role(&role.name))
            && self.rules.len() <= RULES_MAX
            && self.rules.iter().all(Rule::is_bounded)
    }

    /// Tells whether they fit into one message, and every list within its limit.
    pub fn fit(&self) -> bool {
        let octets = postcard::to_stdvec(self).unwrap_or_default();
        self.are_bounded() && octets.len() + 2048 <= CHARTER_BYTES_MAX
    }

    /// Tells whether a role can be given to one more.
    pub(super) fn has_room_for(&self, role: &Option<String>) -> bool {
        let Some(name) = role else { return true };
        let mut with = self.clone();
        let (of, name) = (NodeId::from_bytes([0; 32]), name.clone());
        with.roles.push(Role { of, name });
        with.fit()
    }

    /// Tells whether a node that came by an invitation, or by none, is a member no longer.
    pub(super) fn bars(&self, node: &NodeId, invitation: Option<NodeId>) -> bool {
        let revoked = |revoked: &&Revoked| Some(revoked.invitation) == invitation;
        self.removed.binary_search(node).is_ok()
            || self
                .revoked
                .iter()
                .find(revoked)
                .is_some_and(|revoked| !revoked.kept.contains(node))
    }

    /// Returns the role of a node that came by an invitation, or by none.
    pub fn role(&self, node: &NodeId, invitation: Option<NodeId>) -> Option<&str> {
        let of = |key: NodeId| self.roles.iter().find(move |role| role.of == key);
        let role = of(*node).or_else(|| invitation.and_then(of));
        let name = role.map(|role| role.name.as_str());
        name.filter(|name| !name.is_empty())
    }

    /// Gives a role to a node that came by an invitation, or by none, or takes it away.
    pub(super) fn assign(
        &mut self,
        node: NodeId,
        invitation: Option<NodeId>,
        role: Option<String>,
    ) {
        self.roles.retain(|role| role.of != node);
        let name = match role {
            None if self.role(&node, invitation).is_some() => String::new(),
            None => return,
            Some(name) => name,
        };
        self.roles.push(Role { of: node, name });
    }

    /// Adds a removed node, in order.
    pub(super) fn remove(&mut self, node: NodeId) {
        if let Err(at) = self.removed.binary_search(&node) {
            self.removed.insert(at, node);
        }
    }

    /// Lets nobody in by an invitation any more but those who came and are kept.
    pub(super) fn revoke(&mut self, invitation: NodeId, kept: Vec<NodeId>) {
        if !self
            .revoked
            .iter()
            .any(|known| known.invitation == invitation)
        {
            self.revoked.push(Revoked { invitation, kept });
        }
    }

    /// Adds what another charter has removed and revoked.
    pub(super) fn absorb(&mut self, other: &Self) {
        other.removed.iter().for_each(|node| self.remove(*node));
        for revoked in &other.revoked {
            self.revoke(revoked.invitation, revoked.kept.clone());
        }
    }

    /// Tells whether it has removed and revoked all that another has.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let mut removed = other.removed.iter();
        let mut revoked = other.revoked.iter();
        let known = |name: NodeId| self.revoked.iter().any(|own| own.invitation == name);
        removed.all(|node| self.removed.binary_search(node).is_ok())
            && revoked.all(|revoked| known(revoked.invitation))
    }
}

/// Tells whether a text may name a role: 1 to [`ROLE_BYTES_MAX`] small letters, digits and `-`.
pub fn is_role(name: &str) -> bool {
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=ROLE_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits)
}

fn signed(purpose: &[u8], said: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(said, purpose.to_vec()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::wire::Mark;
    use super::*;

    fn key(seed: u8) -> Keypair {
        Keypair::from_seed(&[seed; 32])
    }

    fn admins(version: u64, nodes: &[Admin]) -> Admins {
        Admins::sign(&key(1), version, nodes.to_vec())
    }

    fn admin(seed: u8, until_unix_s: Option<u64>) -> Admin {
        Admin {
            node: key(seed).id(),
            until_unix_s,
        }
    }

    fn charter(signer: u8, admins: Admins, version: u64, decisions: Decisions) -> Charter {
        Charter::sign(&key(signer), &key(1).id(), admins, version, decisions)
    }

    #[test]
    fn only_the_authority_and_its_administrators_sign() {
        let nodes = [admin(2, None), admin(3, Some(100))];
        let signed = |signer| charter(signer, admins(1, &nodes), 1, Decisions::default());
        let authority = key(1).id();
        assert!(signed(1).verify(&authority) && signed(2).verify(&authority));
        assert!(!signed(3).verify(&authority), "it is none any more");
        assert!(!signed(4).verify(&authority) && !signed(1).verify(&key(5).id()));
        let charter = signed(1);
        assert!(charter.may_invite(&authority, &key(3).id(), 99));
        assert!(!charter.may_invite(&authority, &key(3).id(), 100));
        assert!(!charter.may_invite(&authority, &key(4).id(), 0));
    }

    #[test]
    fn any_change_breaks_it() {
        let nodes = [admin(2, None)];
        let good = charter(2, admins(1, &nodes), 3, Decisions::default());
        let mut octets = postcard::to_stdvec(&good).unwrap();
        for index in 0..octets.len() {
            octets[index] ^= 1;
            let damaged = postcard::from_bytes::<Charter>(&octets);
            assert!(!damaged.is_ok_and(|damaged| damaged.verify(&key(1).id())));
            octets[index] ^= 1;
        }
    }

    #[test]
    fn newer_administrators_then_epochs_then_versions_count() {
        let epoch = |epoch| Decisions {
            epoch,
            ..Decisions::default()
        };
        let mut charters = [
            charter(1, admins(2, &[]), 1, epoch(1)),
            charter(1, admins(1, &[]), 2, epoch(2)),
            charter(1, admins(1, &[]), 9, epoch(1)),
            charter(1, admins(1, &[]), 8, epoch(1)),
        ];
        let sorted = charters.clone();
        charters.reverse();
        charters.sort_by_key(|charter| std::cmp::Reverse(charter.precedence()));
        assert_eq!(charters, sorted);
    }

    #[test]
    fn an_administrator_cannot_use_up_the_numbers() {
        let nodes = [admin(2, None)];
        let mark = |version, epoch| {
            let decisions = Decisions {
                epoch,
                ..Decisions::default()
            };
            Mark::of(&charter(2, admins(1, &nodes), version, decisions))
        };
        let now = mark(9, 5);
        for far in [mark(1, u64::MAX), mark(u64::MAX, 5), mark(9, 6 + (1 << 32))] {
            assert!(far > now && far.leaps(&now));
        }
        for near in [mark(10, 5), mark(1, 6), mark(1, 5 + (1 << 32))] {
            assert!(near > now && !near.leaps(&now));
        }
        assert!(!Mark::default().leaps(&now));
    }

    #[test]
    fn lists_have_limits() {
        let nodes = |count: usize| (0..count).map(|i| NodeId::from_bytes([i as u8; 32]));
        let mut decisions = Decisions {
            removed: nodes(REMOVED_MAX).collect(),
            ..Decisions::default()
        };
        assert!(decisions.fit());
        decisions.removed.push(NodeId::from_bytes([0; 32]));
        assert!(!decisions.fit());
        let signed = charter(1, admins(1, &[]), 1, decisions);
        assert!(!signed.verify(&key(1).id()));
        assert!(is_role("guest-1") && !is_role("") && !is_role("Guest") && !is_role("a b"));
    }

    #[test]
    fn a_nodes_own_role_comes_before_that_of_its_invitation() {
        let [invitation, node] = [1, 2].map(|seed| key(seed).id());
        let mut decisions = Decisions::default();
        decisions.assign(invitation, None, Some("guest".to_owned()));
        let by = Some(invitation);
        assert_eq!(decisions.role(&node, by), Some("guest"));
        decisions.assign(node, by, Some("staff".to_owned()));
        assert_eq!(decisions.role(&node, by), Some("staff"));
        decisions.assign(node, by, None);
        assert_eq!((decisions.role(&node, by), decisions.fit()), (None, true));
        decisions.assign(invitation, None, None);
        decisions.assign(node, by, None);
        assert!(decisions.roles.is_empty());
    }

    #[test]
    fn a_revoked_invitation_keeps_who_is_to_stay() {
        let [invitation, stays, comes] = [1, 2, 3].map(|seed| key(seed).id());
        let mut decisions = Decisions {
            revoked: vec![Revoked {
                invitation,
                kept: vec![stays],
            }],
            ..Decisions::default()
        };
        assert!(decisions.bars(&comes, Some(invitation)));
        assert!(!decisions.bars(&stays, Some(invitation)) && !decisions.bars(&comes, None));
        decisions.remove(stays);
        assert!(decisions.bars(&stays, Some(invitation)));
        let mut other = Decisions::default();
        assert!(!other.covers(&decisions));
        other.absorb(&decisions);
        assert!(other.covers(&decisions));
    }
}
