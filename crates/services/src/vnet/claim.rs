//! Getting and keeping an address (document 004, algorithm 2).
//!
//! ```text
//! draw address -> get: held by another? --yes--> draw again
//!                   | no
//!                 put as a lease -----taken-----> draw again
//!                   | a majority has it
//!                 get: is it ours? ----no-------> draw again
//!                   | yes
//!                 held; looked at again now and then
//! ```
//!
//! Holders refuse a second owner, so the put itself decides; the gets before and after
//! keep the document's order and catch what a change of holders lets through. When two
//! parts of a split overlay meet, the earlier claim stays ([`Record::precedence`]), and
//! the other node finds that out and draws again. It looks again soon after its neighbours
//! changed. But the holders are elsewhere on the ring, and may meet a little later than the
//! node itself: so after a reunion it looks at growing intervals.
//!
//! [`Record::precedence`]: crate::record::Record::precedence

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use enishi_overlay::Time;

use super::secret::RecordName;
use super::wire::{Claim, Offers};
use super::{Alarm, Channel, ChannelId, Cx, Event, Phase, Purpose, Vnet};
use crate::calls::{Consistency, GetAnswer, PutAnswer, PutRequest};
use crate::record::Key;

/// How long an address stays with a node that is gone, in seconds: a day.
pub(super) const LEASE_S: u32 = 86_400;
/// How many addresses are drawn before it is given up.
pub(super) const DRAWS_MAX: u32 = 64;
/// How long a node without neighbours, which looks for some, waits before it claims.
const ALONE_WAIT: Duration = Duration::from_secs(5);
/// How long to wait after a failure of the DHT.
const RETRY_WAIT: Duration = Duration::from_secs(2);
/// How often the address is looked at again; a prime, as the overlay's periods are.
const CHECK_INTERVAL: Duration = Duration::from_secs(31);
/// How soon after a change of neighbours it is looked at, and how often at most. After a
/// reunion each wait is as long as the reunion is ago, up to the usual interval: three looks
/// more, of which each asks the six holders.
const CHECK_SOON: Duration = Duration::from_secs(3);

impl Vnet {
    pub(super) fn begin_claim(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let overlay = cx.overlay();
        if overlay.is_alone() && overlay.is_seeking() {
            self.deadlines.set(Alarm::Claim(id), cx.now() + ALONE_WAIT);
        } else {
            self.try_claim(id, cx);
        }
    }

    pub(super) fn neighbours_changed(&mut self, cx: &mut Cx<'_>) {
        self.claim_uses(cx);
        let now = cx.now();
        let ids: Vec<(ChannelId, Phase, Time)> = self
            .channels
            .iter()
            .map(|(id, c)| (*id, c.phase, c.checked_at))
            .collect();
        for (id, phase, checked_at) in ids {
            match phase {
                Phase::Waiting => self.deadlines.set_no_later(Alarm::Claim(id), now),
                Phase::Held => {
                    let soon = now.max(checked_at) + CHECK_SOON;
                    self.deadlines.set_no_later(Alarm::Check(id), soon);
                }
                Phase::Claiming => {}
            }
        }
    }

    /// Asks whether the wanted address, or one drawn now, is free.
    pub(super) fn try_claim(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if channel.phase != Phase::Waiting {
            return;
        }
        let network = channel.network();
        let address = *channel
            .address
            .get_or_insert_with(|| network.random_host(cx.rng()));
        channel.phase = Phase::Claiming;
        self.get(
            id,
            address.into(),
            Purpose::Probe(id),
            Consistency::Majority,
            cx,
        );
    }

    pub(super) fn probed(&mut self, id: ChannelId, answer: &GetAnswer, cx: &mut Cx<'_>) {
        match self.whose_is_own(id, answer, cx) {
            Whose::Unknown => self.wait_and_retry(id, cx),
            Whose::Others => self.draw_again(id, cx),
            Whose::Nobodys | Whose::Ours => {
                let Some((channel, address)) = self.claiming(id) else {
                    return;
                };
                let claim = own_claim(channel, address, &self.host_name, cx);
                let name = RecordName::Address(address.into());
                let request = channel.put_request(name, Some(&claim), cx);
                let token = self.token(Purpose::Claim(id));
                cx.put(token, request);
            }
        }
    }

    pub(super) fn claimed(&mut self, id: ChannelId, answer: PutAnswer, cx: &mut Cx<'_>) {
        let Some((_, address)) = self.claiming(id) else {
            return;
        };
        match answer {
            PutAnswer::Stored { .. } => {
                let purpose = Purpose::Confirm(id);
                self.get(id, address.into(), purpose, Consistency::Majority, cx);
            }
            PutAnswer::Taken => self.draw_again(id, cx),
            PutAnswer::Full | PutAnswer::Failed => self.wait_and_retry(id, cx),
        }
    }

    pub(super) fn confirmed(&mut self, id: ChannelId, answer: &GetAnswer, cx: &mut Cx<'_>) {
        match self.whose_is_own(id, answer, cx) {
            Whose::Ours => self.hold(id, cx),
            Whose::Others => self.draw_again(id, cx),
            Whose::Nobodys | Whose::Unknown => self.wait_and_retry(id, cx),
        }
    }

    fn hold(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let now = cx.now();
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let Some(address) = channel.address else {
            return;
        };
        channel.phase = Phase::Held;
        channel.tries = 0;
        channel.checked_at = now;
        let event = Event::Claimed {
            channel: id,
            address,
            address6: channel.address6,
        };
        let mut names = channel.hosted_names(cx.me());
        names.push(RecordName::Address(channel.address6.into()));
        // Into which page of the directory it goes is seen there.
        channel.directory.take_out();
        self.publish(id, &names, cx);
        self.keep(id, cx);
        cx.emit(event);
        self.tell_hosting_again(id, cx);
        self.tell_routes_again(id, cx);
        self.follow_group(id, cx);
        self.schedule_check(id, cx);
        self.ask_members(id, cx);
    }

    /// Puts this node's claim, as it is now, under the given names.
    pub(super) fn publish(&mut self, id: ChannelId, names: &[RecordName], cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let Some(address) = channel.address() else {
            return;
        };
        let claim = own_claim(channel, address, &self.host_name, cx);
        channel.members.insert(cx.me(), claim.clone());
        let request = |name: &RecordName| channel.put_request(*name, Some(&claim), cx);
        let requests: Vec<PutRequest> = names.iter().map(request).collect();
        for request in requests {
            let token = self.token(Purpose::Nothing);
            cx.put(token, request);
        }
    }

    /// This node can be dialled elsewhere: the members have to find it there.
    pub(super) fn addresses_changed(&mut self, cx: &mut Cx<'_>) {
        let channels: Vec<ChannelId> = self.channels.keys().copied().collect();
        for id in channels {
            self.publish_all(id, cx);
            self.announce_to_known(id, cx);
        }
    }

    /// Puts this node's claim, as it is now, wherever members look.
    pub(super) fn publish_all(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let channel = self.channels.get(&id);
        let names = channel.and_then(|channel| {
            let own = [channel.address()?.into(), channel.address6.into()];
            let mut names = channel.hosted_names(cx.me());
            names.extend(own.map(RecordName::Address));
            // In a page that is about to be left too: readers may come to it last.
            if channel.directory.placed().is_some() {
                names.extend(channel.directory.entries().map(RecordName::Members));
            }
            Some(names)
        });
        if let Some(names) = names {
            self.publish(id, &names, cx);
        }
    }

    fn schedule_check(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let now = cx.now();
        let reunited_at = cx.overlay().reunited_at();
        let wait = reunited_at.map_or(CHECK_INTERVAL, |at| {
            now.since(at).clamp(CHECK_SOON, CHECK_INTERVAL)
        });
        let wait = cx.rng().jitter(wait);
        self.deadlines.set(Alarm::Check(id), now + wait);
    }

    /// Looks whether the address is still this node's.
    pub(super) fn check_claim(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        self.schedule_check(id, cx);
        let now = cx.now();
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        channel.checked_at = now;
        if let Some(address) = channel.address() {
            let purpose = Purpose::Check(id);
            self.get(id, address.into(), purpose, Consistency::Majority, cx);
            self.check_hosted(id, cx);
        }
    }

    pub(super) fn checked(&mut self, id: ChannelId, answer: &GetAnswer, cx: &mut Cx<'_>) {
        match self.whose_is_own(id, answer, cx) {
            Whose::Ours | Whose::Unknown => {}
            Whose::Others => self.displaced(id, cx),
            Whose::Nobodys => {
                // All holders lost it at once: claim it again before another does.
                if let Some(channel) = self.channels.get_mut(&id)
                    && channel.phase == Phase::Held
                {
                    channel.phase = Phase::Waiting;
                    self.try_claim(id, cx);
                }
            }
        }
    }

    /// Another node had the address first.
    fn displaced(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let Some(address) = channel.address() else {
            return;
        };
        channel.notice = Some(format!(
            "{address} was claimed earlier by another member; this node took a new address"
        ));
        channel.phase = Phase::Waiting;
        channel.address = None;
        channel.by_hand = false;
        channel.announced = false;
        channel.directory_reads = 0;
        // The lost claim is given up, or it would be put again and again.
        let request = channel.put_request(RecordName::Address(address.into()), None, cx);
        let token = self.token(Purpose::Nothing);
        cx.put(token, request);
        self.detach_channel(id, cx);
        cx.emit(Event::Displaced {
            channel: id,
            address,
        });
        self.try_claim(id, cx);
    }

    fn draw_again(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let address = channel.address;
        channel.tries += 1;
        channel.phase = Phase::Waiting;
        let failure = match address {
            Some(address) if channel.by_hand => Some(format!(
                "{address} belongs to another member; choose another address"
            )),
            _ if channel.tries >= DRAWS_MAX => Some(format!(
                "no free address was found in {}",
                channel.network()
            )),
            _ => None,
        };
        if let Some(reason) = failure {
            channel.address = None;
            channel.notice = Some(reason.clone());
            return cx.emit(Event::ClaimFailed {
                channel: id,
                reason,
            });
        }
        channel.address = None;
        self.try_claim(id, cx);
    }

    fn wait_and_retry(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.phase = Phase::Waiting;
            let wait = cx.rng().jitter(RETRY_WAIT);
            self.deadlines.set(Alarm::Claim(id), cx.now() + wait);
        }
    }

    fn claiming(&self, id: ChannelId) -> Option<(&Channel, Ipv4Addr)> {
        let channel = self.channels.get(&id)?;
        let address = channel
            .address
            .filter(|_| channel.phase == Phase::Claiming)?;
        Some((channel, address))
    }

    /// Reads the record of an address.
    pub(super) fn get(
        &mut self,
        id: ChannelId,
        address: IpAddr,
        purpose: Purpose,
        consistency: Consistency,
        cx: &mut Cx<'_>,
    ) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let name = RecordName::Address(address);
        let key = Key::new(crate::record::Kind::Lease, &channel.keys.writer(name).id());
        let token = self.token(purpose);
        cx.get(token, key, consistency);
    }

    /// Whose the address is that the node itself has or wants.
    fn whose_is_own(&self, id: ChannelId, answer: &GetAnswer, cx: &Cx<'_>) -> Whose {
        let channel = self.channels.get(&id);
        match channel.and_then(|channel| channel.address) {
            Some(address) => self.whose(id, address, answer, cx),
            None => Whose::Unknown,
        }
    }

    /// Whose an address is by what was found under it.
    pub(super) fn whose(
        &self,
        id: ChannelId,
        address: Ipv4Addr,
        answer: &GetAnswer,
        cx: &Cx<'_>,
    ) -> Whose {
        let (GetAnswer::Records(records), Some(channel)) = (answer, self.channels.get(&id)) else {
            return Whose::Unknown;
        };
        let name = RecordName::Address(address.into());
        let owner = channel.keys.owner(cx.keypair(), name).id();
        match records.first() {
            None => Whose::Nobodys,
            Some(record) if record.content().owner == owner => Whose::Ours,
            Some(_) => Whose::Others,
        }
    }
}

/// Whose an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Ours,
    Others,
    Nobodys,
    /// The DHT did not answer.
    Unknown,
}

/// This node's claim to an address.
pub(super) fn own_claim(
    channel: &Channel,
    address: Ipv4Addr,
    host_name: &str,
    cx: &Cx<'_>,
) -> Claim {
    own_claim_with(channel, address, (host_name, &channel.offers), cx)
}

/// The same with what this node is about to offer.
pub(super) fn own_claim_with(
    channel: &Channel,
    address: Ipv4Addr,
    (host_name, offers): (&str, &Offers),
    cx: &Cx<'_>,
) -> Claim {
    let about = (cx.overlay().me().clone(), host_name);
    let credential = channel.government.as_ref().map(|g| &g.credential);
    let keys = &channel.keys;
    Claim::sign(keys, cx.keypair(), about, address, offers, credential)
}
