//! Addresses that a node holds for others: those who take part in the channel by way of it,
//! and have no node of their own.
//!
//! Such an address is drawn and claimed as the node's own ([`super::claim`]): a lease in the
//! DHT, with the node's claim as its value. The claim lists them all, which proves nothing: a
//! member takes packets from such an address, and sends packets to it, only by way of the node
//! whose claim it has found under the address itself. The IPv6 address follows from the node's
//! key and the IPv4 address ([`Network::hosted6`](super::Network::hosted6)).
//!
//! Whoever uses an address that is lost to an earlier claim needs another: unlike the node's
//! own, it is not replaced by itself, since those who were told of it are out of reach.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use enishi_overlay::NodeId;

use super::claim::{DRAWS_MAX, Whose, own_claim_with};
use super::pace::HOSTED_LOOKUPS;
use super::secret::RecordName;
use super::wire::{Claim, HOSTED_MAX};
use super::{Alarm, Channel, ChannelId, Cx, Event, Network, Purpose, Vnet};
use crate::calls::{Consistency, GetAnswer, PutAnswer};

/// The most addresses of which it is known, and of which it is being found out, that a member
/// holds them for others; in one channel.
const HOLDERS_MAX: usize = 16_384;
const VERIFYING_MAX: usize = 1024;
/// When to go on with those that a member may not have looked up yet: in this time its rate allows
/// all that it may hold in one channel.
const VERIFY_MORE_AFTER: Duration =
    Duration::from_secs(HOSTED_MAX as u64 / HOSTED_LOOKUPS.per_s as u64);

/// What a call to the DHT is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Is the drawn address free?
    Probe,
    /// Claim it.
    Claim,
    /// Is it really ours?
    Confirm,
    /// Is an address still ours?
    Check(Ipv4Addr),
    /// Does a member hold the address that it lists?
    Verify(NodeId, Ipv4Addr),
}

/// Which addresses are held for others, here and at members.
#[derive(Debug, Default)]
pub(super) struct Hosting {
    /// The address that is being claimed, and how many were drawn before it.
    drawn: Option<(Ipv4Addr, u32)>,
    /// Members that were found to hold addresses for others.
    holders: BTreeMap<Ipv4Addr, NodeId>,
    /// Those about which the DHT is being asked.
    verifying: BTreeMap<Ipv4Addr, NodeId>,
}

impl Hosting {
    /// Packets are exchanged with a member no longer: what it holds has to be looked up again.
    pub(super) fn forget(&mut self, member: NodeId) {
        self.holders.retain(|_, holder| *holder != member);
    }
}

impl Channel {
    /// Returns the addresses that this node holds for others, each with its IPv6 address.
    pub fn hosted(&self, me: NodeId) -> Vec<[IpAddr; 2]> {
        let six = |address| Network::hosted6(self.address6, &me, address);
        let hosted = self.offers.hosted.iter();
        hosted
            .map(|address| [(*address).into(), six(*address).into()])
            .collect()
    }

    /// The names of their records.
    pub(super) fn hosted_names(&self, me: NodeId) -> Vec<RecordName> {
        let hosted = self.hosted(me).into_iter().flatten();
        hosted.map(RecordName::Address).collect()
    }

    /// All addresses of a member, as far as it is known to hold them: its own first.
    pub(super) fn addresses_of(&self, claim: &Claim) -> Vec<IpAddr> {
        let node = claim.contact.id();
        let hosted = claim.offers.hosted.iter();
        let held = hosted.filter(|address| self.hosting.holders.get(address) == Some(&node));
        let held = held.flat_map(|address| claim.hosted(*address));
        claim.addresses().into_iter().chain(held).collect()
    }
}

impl Vnet {
    /// Begins to claim one more address.
    pub(super) fn host(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        if channel.address().is_none() {
            self.fail_to_host(id, "the node itself holds no address yet", cx);
        } else if channel.hosting.drawn.is_some() {
            self.fail_to_host(id, "another address is being claimed; try again", cx);
        } else if channel.offers.hosted.len() >= HOSTED_MAX {
            let reason = format!("a node holds at most {HOSTED_MAX} addresses for others");
            self.fail_to_host(id, &reason, cx);
        } else {
            self.draw_hosted(id, 0, cx);
        }
    }

    /// Draws an address, and asks whether it is free.
    fn draw_hosted(&mut self, id: ChannelId, draws: u32, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let address = channel.network.random_host(cx.rng());
        let is_ours = channel.address == Some(address) || channel.offers.hosted.contains(&address);
        if draws >= DRAWS_MAX {
            return self.fail_to_host(id, "no free address was found", cx);
        }
        if is_ours {
            return self.draw_hosted(id, draws + 1, cx);
        }
        channel.hosting.drawn = Some((address, draws));
        let purpose = Purpose::Hosted(id, Step::Probe);
        self.get(id, address.into(), purpose, Consistency::Majority, cx);
    }

    /// The DHT has told of an address.
    pub(super) fn host_got(
        &mut self,
        id: ChannelId,
        step: Step,
        answer: &GetAnswer,
        cx: &mut Cx<'_>,
    ) {
        match step {
            Step::Probe | Step::Claim | Step::Confirm => self.drawn_got(id, step, answer, cx),
            Step::Check(address) => match self.whose(id, address, answer, cx) {
                Whose::Ours | Whose::Unknown => {}
                Whose::Others => self.dismiss(id, address, cx),
                // All holders lost it at once: claim it again before another does.
                Whose::Nobodys => self.publish_all(id, cx),
            },
            Step::Verify(member, address) => self.hosted_verified(id, member, address, answer, cx),
        }
    }

    fn drawn_got(&mut self, id: ChannelId, step: Step, answer: &GetAnswer, cx: &mut Cx<'_>) {
        let Some((address, draws)) = self.drawn(id) else {
            return;
        };
        match (step, self.whose(id, address, answer, cx)) {
            (_, Whose::Others) => self.draw_hosted(id, draws + 1, cx),
            (Step::Probe, Whose::Nobodys | Whose::Ours) => self.claim_hosted(id, address, cx),
            (Step::Confirm, Whose::Ours) => self.hold_hosted(id, address, cx),
            _ => self.fail_to_host(id, "too few nodes of the overlay answer; try again", cx),
        }
    }

    fn claim_hosted(&mut self, id: ChannelId, address: Ipv4Addr, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let Some(own) = channel.address() else {
            return self.fail_to_host(id, "the node's own address was lost", cx);
        };
        let mut offers = channel.offers.clone();
        offers.hosted.push(address);
        let claim = own_claim_with(channel, own, (&self.host_name, &offers), cx);
        let name = RecordName::Address(address.into());
        let request = channel.put_request(name, Some(&claim), cx);
        let token = self.token(Purpose::Hosted(id, Step::Claim));
        cx.put(token, request);
    }

    /// The claim is stored, or not.
    pub(super) fn host_put(&mut self, id: ChannelId, answer: PutAnswer, cx: &mut Cx<'_>) {
        let Some((address, draws)) = self.drawn(id) else {
            return;
        };
        match answer {
            PutAnswer::Stored { .. } => {
                let purpose = Purpose::Hosted(id, Step::Confirm);
                self.get(id, address.into(), purpose, Consistency::Majority, cx);
            }
            PutAnswer::Taken => self.draw_hosted(id, draws + 1, cx),
            PutAnswer::Full | PutAnswer::Failed => {
                self.fail_to_host(id, "too few nodes of the overlay answer; try again", cx);
            }
        }
    }

    fn hold_hosted(&mut self, id: ChannelId, address: Ipv4Addr, cx: &mut Cx<'_>) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.hosting.drawn = None;
            channel.offers.hosted.push(address);
            self.hosted_changed(id, cx);
        }
    }

    fn fail_to_host(&mut self, id: ChannelId, reason: &str, cx: &mut Cx<'_>) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.hosting.drawn = None;
        }
        cx.emit(Event::HostFailed {
            channel: id,
            reason: reason.to_owned(),
        });
    }

    /// Gives an address back that was held for somebody else.
    pub(super) fn dismiss(&mut self, id: ChannelId, address: Ipv4Addr, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let hosted = &mut channel.offers.hosted;
        let Some(at) = hosted.iter().position(|hosted| *hosted == address) else {
            return;
        };
        hosted.remove(at);
        let six = Network::hosted6(channel.address6, &cx.me(), address);
        let names = [address.into(), six.into()].map(RecordName::Address);
        let requests = names.map(|name| channel.put_request(name, None, cx));
        for request in requests {
            let token = self.token(Purpose::Nothing);
            cx.put(token, request);
        }
        self.hosted_changed(id, cx);
    }

    /// Keeps which addresses are held for others, and tells everybody.
    fn hosted_changed(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        self.keep(id, cx);
        self.publish_all(id, cx);
        self.announce_to_known(id, cx);
        self.tell_hosting(id, cx);
    }

    fn tell_hosting(&self, id: ChannelId, cx: &mut Cx<'_>) {
        if let Some(channel) = self.channels.get(&id) {
            let addresses = channel.hosted(cx.me());
            cx.emit(Event::Hosting {
                channel: id,
                addresses,
            });
        }
    }

    /// What is told after the host has made the device anew.
    pub(super) fn tell_hosting_again(&self, id: ChannelId, cx: &mut Cx<'_>) {
        let channel = self.channels.get(&id);
        if channel.is_some_and(|channel| !channel.offers.hosted.is_empty()) {
            self.tell_hosting(id, cx);
        }
    }

    /// Looks whether the addresses are still this node's.
    pub(super) fn check_hosted(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let channel = self.channels.get(&id);
        let hosted = channel.map(|channel| channel.offers.hosted.clone());
        for address in hosted.into_iter().flatten() {
            let purpose = Purpose::Hosted(id, Step::Check(address));
            self.get(id, address.into(), purpose, Consistency::Majority, cx);
        }
    }

    /// Looks up the addresses that a member says it holds for others, as far as that is not
    /// known yet: as many as may be asked about now, and the others later.
    pub(super) fn verify_hosted(&mut self, id: ChannelId, claim: &Claim, cx: &mut Cx<'_>) {
        let member = claim.contact.id();
        for address in &claim.offers.hosted {
            let Some(channel) = self.channels.get_mut(&id) else {
                return;
            };
            let hosting = &mut channel.hosting;
            let is_known = hosting.holders.get(address) == Some(&member);
            let is_asked = hosting.verifying.contains_key(address);
            if is_known || is_asked || !channel.network.has_host(*address) {
                continue;
            }
            let is_full = hosting.verifying.len() >= VERIFYING_MAX;
            if is_full || !self.hosted_lookups.take(member, cx.now()) {
                let later = cx.now() + VERIFY_MORE_AFTER;
                return self
                    .deadlines
                    .set_no_later(Alarm::Hosted(id, member), later);
            }
            hosting.verifying.insert(*address, member);
            let purpose = Purpose::Hosted(id, Step::Verify(member, *address));
            self.get(id, (*address).into(), purpose, Consistency::Any, cx);
        }
    }

    /// Goes on with what a member, if packets are exchanged with it still, says it holds.
    pub(super) fn verify_more_hosted(&mut self, id: ChannelId, member: NodeId, cx: &mut Cx<'_>) {
        let channel = self.channels.get(&id);
        let claim = channel.and_then(|channel| channel.attached(member));
        if let Some(claim) = claim.cloned() {
            self.verify_hosted(id, &claim, cx);
        }
    }

    fn hosted_verified(
        &mut self,
        id: ChannelId,
        member: NodeId,
        address: Ipv4Addr,
        answer: &GetAnswer,
        cx: &mut Cx<'_>,
    ) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        channel.hosting.verifying.remove(&address);
        let GetAnswer::Records(records) = answer else {
            return;
        };
        let name = RecordName::Address(address.into());
        let record = records.first();
        let claim = record.and_then(|record| channel.open_claim(name, record, cx.unix_s()));
        let claim = claim.filter(|claim| claim.names(address.into()));
        if let Some(claim) = claim.filter(|claim| claim.contact.id() == member) {
            self.note_holder(id, address.into(), &claim, cx);
        }
    }

    /// A claim was found under an address: that node holds it, and no other does.
    pub(super) fn note_holder(
        &mut self,
        id: ChannelId,
        address: IpAddr,
        claim: &Claim,
        cx: &mut Cx<'_>,
    ) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let IpAddr::V4(address) = address else {
            return;
        };
        let (node, holders) = (claim.contact.id(), &mut channel.hosting.holders);
        let is_full = holders.len() >= HOLDERS_MAX && !holders.contains_key(&address);
        if claim.address == address || is_full {
            return;
        }
        let before = holders.insert(address, node);
        for changed in [before, Some(node)].into_iter().flatten() {
            if before != Some(node) {
                self.tell_addresses(id, changed, cx);
            }
        }
    }

    /// A member that packets are exchanged with, maybe, has made another claim.
    pub(super) fn update_attached(&mut self, id: ChannelId, claim: &Claim, cx: &mut Cx<'_>) {
        let node = claim.contact.id();
        let channel = self.channels.get_mut(&id);
        let attached = channel.and_then(|channel| channel.attached.get_mut(&node));
        // With another address of its own it attaches anew.
        let Some(attached) = attached.filter(|a| a.claim.address == claim.address) else {
            return;
        };
        let is_same = attached.claim.offers.hosted == claim.offers.hosted;
        attached.claim = claim.clone();
        if !is_same {
            self.tell_addresses(id, node, cx);
            self.verify_hosted(id, claim, cx);
        }
    }

    /// Tells the host what a member's addresses are now.
    fn tell_addresses(&self, id: ChannelId, peer: NodeId, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        if let Some(attached) = channel.attached.get(&peer) {
            let addresses = channel.addresses_of(&attached.claim);
            cx.emit(Event::Addressed {
                channel: id,
                peer,
                addresses,
            });
        }
    }

    fn drawn(&self, id: ChannelId) -> Option<(Ipv4Addr, u32)> {
        self.channels.get(&id)?.hosting.drawn
    }
}
