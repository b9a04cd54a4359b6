//! One channel on this node: its state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use enishi_overlay::{NodeId, Time};

use super::access::{Permit, Permits};
use super::attach::{Attaching, Attachment};
use super::beyond::Beyond;
use super::charter::Charter;
use super::directory::Directory;
use super::government::{self, Government, Seat};
use super::hosted::Hosting;
use super::invitation::Issued;
use super::routes::Prefix;
use super::secret::{ChannelKeys, RecordName};
use super::settle::Settling;
use super::succession::{EPOCHS_MAX, Epoch};
use super::wire::{Mark, Offers};
use super::{Claim, Cx, Network};
use crate::calls::{GroupName, PutRequest};
use crate::keys::{Secret, seal, unseal};
use crate::record::Record;

/// How far a channel is with its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting to begin, or to go on after a failure.
    Waiting,
    /// Asking whether the address is free, claiming it, making sure.
    Claiming,
    /// The address is this node's.
    Held,
}

/// What was found for an address.
#[derive(Clone, Debug)]
pub(super) struct Cached {
    pub(super) claim: Option<Claim>,
    pub(super) until: Time,
}

/// One channel on this node.
#[derive(Debug)]
pub struct Channel {
    pub(super) name: String,
    pub(super) network: Network,
    pub(super) secret: Secret,
    pub(super) keys: ChannelKeys,
    /// Epochs that have ended, the last one first.
    pub(super) older: Vec<Epoch>,
    /// None where whoever knows the secret is a member.
    pub(super) government: Option<Government>,
    /// What this node offers to the others.
    pub(super) offers: Offers,
    /// Which addresses are held for others, here and at members.
    pub(super) hosting: Hosting,
    /// What others route for it.
    pub(super) beyond: Beyond,
    /// The multicast group in which it takes part.
    pub(super) group: Option<GroupName>,
    pub(super) phase: Phase,
    /// The address that is held, claimed or wanted.
    pub(super) address: Option<Ipv4Addr>,
    /// Whether a person chose the address.
    pub(super) by_hand: bool,
    pub(super) address6: Ipv6Addr,
    pub(super) tries: u32,
    /// How many addresses were drawn since this node has opened the channel or was started.
    pub(super) draws: u32,
    pub(super) members: BTreeMap<NodeId, Claim>,
    /// Members that were known when the epoch began and have not been seen in its directory yet,
    /// and until when they are taken for members all the same.
    pub(super) carried: (BTreeSet<NodeId>, Time),
    pub(super) announced: bool,
    /// How often the directory was read since an address was wanted.
    pub(super) directory_reads: u32,
    pub(super) directory: Directory,
    /// Whose addresses are being looked up, and which were found to be whose.
    pub(super) settling: Settling,
    pub(super) checked_at: Time,
    pub(super) cache: BTreeMap<IpAddr, Cached>,
    pub(super) attaching: BTreeMap<NodeId, Attaching>,
    pub(super) attached: BTreeMap<NodeId, Attachment>,
    /// Whether a member said that this node is none, and no charter has since.
    pub(super) is_said_removed: bool,
    pub(super) notice: Option<String>,
}

impl Channel {
    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the network.
    pub fn network(&self) -> Network {
        self.network
    }

    /// Returns the secret, for invitations.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Returns how far the channel is with its address.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns the address if it is held.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.address.filter(|_| self.phase == Phase::Held)
    }

    /// Tells whether no address could be had: nothing is claimed until the neighbours
    /// on the ring change.
    pub fn has_given_up(&self) -> bool {
        self.phase == Phase::Waiting && self.address.is_none() && self.tries > 0
    }

    /// Returns how many addresses this node has drawn in the channel since it has opened it or was
    /// started: one, if nobody had that one.
    pub fn draws(&self) -> u32 {
        self.draws
    }

    /// Returns the IPv6 address.
    pub fn address6(&self) -> Ipv6Addr {
        self.address6
    }

    /// Returns the known members, this node included once it has an address.
    pub fn members(&self) -> impl Iterator<Item = &Claim> {
        self.members.values()
    }

    /// Returns the claim of a member, if the node is known as one.
    pub fn member(&self, node: NodeId) -> Option<&Claim> {
        self.members.get(&node)
    }

    /// Returns the claim of a member with which packets are exchanged: it has proved in its
    /// session that it is one.
    pub fn attached(&self, node: NodeId) -> Option<&Claim> {
        self.attached.get(&node).map(|attached| &attached.claim)
    }

    /// Returns the claims of all members with which packets are exchanged.
    pub fn all_attached(&self) -> impl Iterator<Item = &Claim> {
        self.attached.values().map(|attached| &attached.claim)
    }

    /// Returns what may pass between this node, `me`, and a member; none for everything.
    pub fn permits(&self, me: NodeId, member: &Claim) -> Option<Permits> {
        self.government.as_ref()?.permits(me, member)
    }

    /// Tells whether the rules let this node, `me`, begin anything at all in a network behind a
    /// member.
    pub fn lets_into(&self, me: NodeId, network: Prefix, by: NodeId) -> bool {
        let permits = self.member(by).and_then(|member| self.permits(me, member));
        let leads_there = |permit: &Permit| {
            let behind = permit.network.as_ref();
            behind.is_some_and(|behind| behind.overlaps(&network))
        };
        permits.is_none_or(|permits| permits.outbound.iter().any(leads_there))
    }

    /// Returns in which page of the channel's directory this node's entry is, from 0 on; none as
    /// long as it is in none.
    pub fn directory_page(&self) -> Option<u8> {
        self.directory.placed()
    }

    /// Returns what a person should know.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Returns the charter, of a governed channel and once it was heard of.
    pub fn charter(&self) -> Option<&Charter> {
        self.government.as_ref()?.charter.as_ref()
    }

    /// Tells whether the channel is governed: has a founder, invitations and a charter.
    pub fn is_governed(&self) -> bool {
        self.government.is_some()
    }

    /// Tells whether this node has founded the channel, and keeps the authority's key.
    pub fn is_founded_here(&self) -> bool {
        let seat = self.government.as_ref().map(|government| &government.seat);
        matches!(seat, Some(Seat::Founder(_)))
    }

    /// Tells whether a node is an administrator.
    pub fn is_admin(&self, node: &NodeId) -> bool {
        let government = self.government.as_ref();
        government.is_some_and(|government| government.is_admin(node))
    }

    /// Returns the role of a member.
    pub fn role(&self, member: &Claim) -> Option<&str> {
        self.government.as_ref()?.role(member)
    }

    /// Returns the open invitations that this node has made.
    pub fn issued(&self) -> &[Issued] {
        let government = self.government.as_ref();
        government.map_or(&[], |government| &government.issued)
    }

    /// Tells whether others have used up the invitation by which this node came.
    pub fn is_used_up(&self) -> bool {
        let government = self.government.as_ref();
        government.is_some_and(|government| government.uses.is_used_up())
    }

    /// Tells whether it is known if the invitation by which this node came serves: it holds one
    /// of the keys, or others have them all, or its uses are not counted.
    pub fn use_is_settled(&self) -> bool {
        let government = self.government.as_ref();
        government.is_none_or(|government| government.uses.is_settled())
    }

    /// Returns the channel's authority; none where whoever knows the secret is a member.
    pub fn authority(&self) -> Option<NodeId> {
        self.government.as_ref().map(|g| g.authority)
    }

    /// Returns the name of the invitation by which a member came; none for the founder, and
    /// where whoever knows the secret is a member.
    pub fn invitation_of(&self, member: &Claim) -> Option<NodeId> {
        government::invitation(member.credential.as_deref())
    }

    /// Tells whether a member has founded the channel: the authority itself vouches for it.
    pub fn is_founder(&self, member: &Claim) -> bool {
        let credential = member.credential.as_ref();
        self.is_governed() && credential.is_some_and(|c| c.invitation.is_none())
    }

    /// Returns what this node offers to the others.
    pub fn offers(&self) -> &Offers {
        &self.offers
    }

    /// Tells whether the node of a claim is a member.
    pub fn admits(&self, claim: &Claim, unix_s: u64) -> bool {
        let government = self.government.as_ref();
        government.is_none_or(|government| government.standing(claim, unix_s).is_some())
    }

    /// Tells whether this node, which has no charter, was told that it is a member no longer. Any
    /// member could have said so.
    pub fn is_said_removed(&self) -> bool {
        self.is_said_removed && self.charter().is_none()
    }

    /// Tells whether this node is a member no longer.
    pub fn is_removed(&self, me: NodeId) -> bool {
        self.government.as_ref().is_some_and(|government| {
            let invitation = government::invitation(Some(&government.credential));
            government.is_barred(&me, invitation)
        })
    }

    /// What this node may begin with at least one other member; none for everything.
    pub(super) fn permits_with_any(&self, me: NodeId) -> Option<Vec<Permit>> {
        self.government.as_ref()?.permits_with_any(me)
    }

    /// What tells which charter this node has.
    pub(super) fn mark(&self) -> Mark {
        let government = self.government.as_ref();
        government.map_or_else(Mark::default, Government::mark)
    }

    /// The keys of an epoch that has ended, or of the present one.
    pub(super) fn keys_of(&self, epoch: Option<usize>) -> &ChannelKeys {
        let older = epoch.and_then(|epoch| self.older.get(epoch));
        older.map_or(&self.keys, |epoch| &epoch.keys)
    }

    /// Goes over to another secret, and remembers the one before; returns the epochs that are not
    /// remembered any more.
    pub(super) fn begin_epoch(&mut self, secret: Secret, now: Time) -> Vec<Epoch> {
        let keys = self.derive(&secret);
        let before = Epoch {
            pages: self.directory.entries().collect(),
            keys: std::mem::replace(&mut self.keys, keys),
            secret: std::mem::replace(&mut self.secret, secret),
        };
        self.older.insert(0, before);
        self.directory.begin_epoch(now);
        self.older.split_off(self.older.len().min(EPOCHS_MAX))
    }

    fn derive(&self, secret: &Secret) -> ChannelKeys {
        let authority = self.government.as_ref().map(|g| &g.authority);
        ChannelKeys::new(&self.name, self.network, secret, authority)
    }

    /// Reads a claim from the value of a record; none when it is not genuine.
    pub(super) fn open_claim(
        &self,
        name: RecordName,
        record: &Record,
        unix_s: u64,
    ) -> Option<Claim> {
        let writer = record.content().writer;
        let octets = unseal(
            &self.keys.seal(name),
            writer.as_bytes(),
            &record.content().value,
        )?;
        let claim: Claim = postcard::from_bytes(&octets).ok()?;
        // One that was taken in was verified.
        let is_known = self.members.get(&claim.contact.id()) == Some(&claim);
        let is_genuine = is_known || claim.verify(&self.keys);
        (is_genuine && self.admits(&claim, unix_s)).then_some(claim)
    }

    /// Makes the request that puts this node's claim under a name, or removes it.
    pub(super) fn put_request(
        &self,
        name: RecordName,
        claim: Option<&Claim>,
        cx: &mut Cx<'_>,
    ) -> PutRequest {
        let mut request = self.keys.removal(cx.keypair(), name);
        request.value = claim.map(|claim| {
            let octets = postcard::to_stdvec(claim).unwrap_or_default();
            let (key, writer) = (self.keys.seal(name), request.writer.id());
            seal(cx.rng(), &key, writer.as_bytes(), &octets).into()
        });
        request
    }
}
