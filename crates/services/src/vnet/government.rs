//! A governed channel as one member sees it: by what it is a member, the charter, and how
//! others stand.

use enishi_overlay::admission::{Certificate, Credential, Rule, Standing, Subject};
use enishi_overlay::{Keypair, NodeId, OverlayId};
use serde::{Deserialize, Serialize};

use super::ChannelId;
use super::access::{self, Party, Permit, Permits};
use super::charter::{Admin, Admins, Charter, Decisions};
use super::invitation::Issued;
use super::secret::epoch_digest;
use super::wire::{Claim, Mark};
use crate::admission::Invited;
use crate::keys::Secret;
use crate::uses::Uses;

/// How long the founder is a member, and those who come by invitation, in seconds: ten years.
pub(super) const MEMBER_S: u64 = 10 * 365 * 86_400;

/// By what a node is in a channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Entry {
    /// It knows the channel's secret, as all members do.
    Secret,
    /// It has made the channel, whose authority's key follows from this seed.
    Founder(#[serde(with = "crate::recording::secret")] Secret),
    /// It was invited to a governed channel.
    Invited(Box<Guest>),
}

/// What an invited node knows of a channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Guest {
    /// The channel's authority.
    pub authority: NodeId,
    /// Which epoch's secret it was given.
    pub epoch: u64,
    /// The invitation.
    pub invited: Invited,
}

/// By what this node is a member of a governed channel.
#[derive(Clone, Debug)]
pub(super) enum Seat {
    Founder(Secret),
    Guest(Box<Guest>),
}

/// A governed channel.
#[derive(Debug)]
pub(super) struct Government {
    pub(super) authority: NodeId,
    pub(super) seat: Seat,
    /// What shows the others that this node is a member.
    pub(super) credential: Credential,
    /// None until one was heard of.
    pub(super) charter: Option<Charter>,
    /// The last charter that this node has signed.
    pub(super) signed: Option<Charter>,
    /// Invitations that this node has made.
    pub(super) issued: Vec<Issued>,
    pub(super) uses: Uses,
}

impl Government {
    /// Founds a channel.
    pub(super) fn found(
        id: ChannelId,
        seed: Secret,
        secret: &Secret,
        (node, unix_s): (&Keypair, u64),
    ) -> Self {
        let authority = Keypair::from_seed(&seed);
        let overlay = OverlayId::of_authority(&authority.id());
        let subject = Subject::Member(node.id());
        let member = Certificate::sign(&authority, overlay, subject, unix_s..unix_s + MEMBER_S);
        let founder = Admin {
            node: node.id(),
            until_unix_s: None,
        };
        let decisions = Decisions {
            epoch: 1,
            epoch_digest: epoch_digest(secret),
            ..Decisions::default()
        };
        let admins = Admins::sign(&authority, 1, vec![founder]);
        let charter = Charter::sign(node, &authority.id(), admins, 1, decisions);
        Self {
            authority: authority.id(),
            seat: Seat::Founder(seed),
            credential: Credential {
                member,
                invitation: None,
            },
            signed: Some(charter.clone()),
            charter: Some(charter),
            issued: Vec::new(),
            uses: Uses::default().numbered_from(first_token(id)),
        }
    }

    /// Takes the place that an invitation gives, with one of its keys; none when it has no such
    /// key.
    pub(super) fn enter(id: ChannelId, guest: Guest, me: NodeId, key: usize) -> Option<Self> {
        let keys = guest.invited.keys();
        let credential = guest.invited.credential(me, keys.get(key)?);
        let uses = match guest.invited.is_single_use() {
            true => Uses::with_keys(keys, key).numbered_from(first_token(id)),
            false => Uses::default().numbered_from(first_token(id)),
        };
        Some(Self {
            authority: guest.authority,
            seat: Seat::Guest(Box::new(guest)),
            credential,
            charter: None,
            signed: None,
            issued: Vec::new(),
            uses,
        })
    }

    /// Uses another key of the own invitation.
    pub(super) fn use_key(&mut self, me: NodeId) {
        if let (Seat::Guest(guest), Some(key)) = (&self.seat, self.uses.key()) {
            self.credential = guest.invited.credential(me, key);
        }
    }

    /// What tells which charter this node has.
    pub(super) fn mark(&self) -> Mark {
        match (&self.charter, &self.seat) {
            (Some(charter), _) => Mark::of(charter),
            (None, Seat::Guest(guest)) => Mark::before(guest.epoch),
            (None, Seat::Founder(_)) => Mark::default(),
        }
    }

    /// Tells whether the node is an administrator.
    pub(super) fn is_admin(&self, node: &NodeId) -> bool {
        let charter = self.charter.as_ref();
        charter.is_some_and(|charter| charter.admins().contains(node))
    }

    /// Tells how the node of a claim stands; none when it is no member. Two signature checks.
    pub(super) fn standing(&self, claim: &Claim, unix_s: u64) -> Option<Standing> {
        let node = claim.contact.id();
        let credential = claim.credential.as_deref()?;
        let inviter = match &credential.invitation {
            None => self.authority,
            Some(invitation) => {
                let content = invitation.content();
                let may = self.may_invite(&content.issuer, content.not_before_unix_s);
                may.then_some(content.issuer)?
            }
        };
        let rule = Rule {
            overlay: &OverlayId::of_authority(&self.authority),
            authority: &inviter,
            revocations: None,
            unix_s,
        };
        let standing = credential.verify(&node, &rule).ok()?;
        let barred = self.is_barred(&node, standing.invitation)
            || standing
                .single_use
                .is_some_and(|key| self.uses.bars_use(key, node));
        (!barred).then_some(standing)
    }

    fn may_invite(&self, issuer: &NodeId, at_unix_s: u64) -> bool {
        let by_charter = |charter: &Charter| charter.may_invite(&self.authority, issuer, at_unix_s);
        match (&self.charter, &self.seat) {
            (Some(charter), _) => by_charter(charter),
            // Whoever invited this node is believed until the charter is there.
            (None, Seat::Guest(guest)) => guest.invited.invitation.content().issuer == *issuer,
            (None, Seat::Founder(_)) => false,
        }
    }

    /// Tells whether a node that came by an invitation, or by none, was removed.
    pub(super) fn is_barred(&self, node: &NodeId, invitation: Option<NodeId>) -> bool {
        let charter = self.charter.as_ref();
        charter.is_some_and(|charter| charter.decisions().bars(node, invitation))
    }

    /// Works out what may pass between this node and a member; none for everything.
    pub(super) fn permits(&self, me: NodeId, member: &Claim) -> Option<Permits> {
        let decisions = self.charter.as_ref()?.decisions();
        let member = party(decisions, member.contact.id(), member.credential.as_deref());
        let me = party(decisions, me, Some(&self.credential));
        access::permits(decisions, me, member)
    }

    /// Works out what this node may begin with at least one other; none for everything.
    pub(super) fn permits_with_any(&self, me: NodeId) -> Option<Vec<Permit>> {
        let decisions = self.charter.as_ref()?.decisions();
        access::permits_with_any(decisions, party(decisions, me, Some(&self.credential)))
    }

    /// Returns the role of a member.
    pub(super) fn role(&self, member: &Claim) -> Option<&str> {
        let decisions = self.charter.as_ref()?.decisions();
        decisions.role(
            &member.contact.id(),
            invitation(member.credential.as_deref()),
        )
    }
}

/// A node as the rules see it.
fn party<'d>(decisions: &'d Decisions, node: NodeId, credential: Option<&Credential>) -> Party<'d> {
    Party {
        node,
        role: decisions.role(&node, invitation(credential)),
    }
}

/// The invitation by which a node came, by its own word.
pub(super) fn invitation(credential: Option<&Credential>) -> Option<NodeId> {
    match &credential?.invitation.as_ref()?.content().subject {
        Subject::Invitation { keys, .. } => keys.first().copied(),
        Subject::Member(_) => None,
    }
}

/// Returns the name of the invitation by which a member came, if that lets in one node alone.
pub(super) fn for_one(credential: Option<&Credential>) -> Option<NodeId> {
    match &credential?.invitation.as_ref()?.content().subject {
        Subject::Invitation {
            keys,
            single_use: true,
            ..
        } if keys.len() == 1 => keys.first().copied(),
        Subject::Invitation { .. } | Subject::Member(_) => None,
    }
}

/// Calls that look after invitations have numbers of their own, by which the channel is found.
const USES: u64 = 1 << 63;

fn first_token(id: ChannelId) -> u64 {
    USES | u64::from(id.0) << 32
}

/// Tells whether a call looks after invitations.
pub(super) fn is_of_uses(token: u64) -> bool {
    token & USES != 0
}

/// Returns the channel of a call that looks after invitations.
pub(super) fn channel_of_token(token: u64) -> Option<ChannelId> {
    (token & USES != 0).then_some(ChannelId((token >> 32) as u32 & (u32::MAX >> 1)))
}
