//! One channel on this node: its state, opening, closing, and what is kept on disk.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use enishi_overlay::{NodeId, Time};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::attach::{Attaching, Attachment};
use super::secret::{ChannelKeys, RecordName};
use super::{
    Alarm, CHANNELS_MAX, ChannelId, ChannelSpec, Claim, Cx, Event, Network, Purpose, Vnet,
};
use crate::calls::PutRequest;
use crate::keys::{Secret, seal, unseal};
use crate::record::{Kind, Record};

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
    name: String,
    network: Network,
    secret: Secret,
    pub(super) keys: ChannelKeys,
    pub(super) phase: Phase,
    /// The address that is held, claimed or wanted.
    pub(super) address: Option<Ipv4Addr>,
    /// Whether a person chose the address.
    pub(super) by_hand: bool,
    pub(super) address6: Ipv6Addr,
    pub(super) tries: u32,
    pub(super) members: BTreeMap<NodeId, Claim>,
    pub(super) announced: bool,
    pub(super) checked_at: Time,
    pub(super) cache: BTreeMap<IpAddr, Cached>,
    pub(super) attaching: BTreeMap<NodeId, Attaching>,
    pub(super) attached: BTreeMap<NodeId, Attachment>,
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

    /// Returns the IPv6 address.
    pub fn address6(&self) -> Ipv6Addr {
        self.address6
    }

    /// Returns the known members, this node included once it has an address.
    pub fn members(&self) -> impl Iterator<Item = &Claim> {
        self.members.values()
    }

    /// Returns what a person should know.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Reads a claim from the value of a record; none when it is not genuine.
    pub(super) fn open_claim(&self, name: RecordName, record: &Record) -> Option<Claim> {
        let writer = record.content().writer;
        let octets = unseal(
            &self.keys.seal(name),
            writer.as_bytes(),
            &record.content().value,
        )?;
        let claim: Claim = postcard::from_bytes(&octets).ok()?;
        claim.verify(&self.keys).then_some(claim)
    }

    /// Makes the request that puts this node's claim under a name, or removes it.
    pub(super) fn put_request(
        &self,
        name: RecordName,
        claim: Option<&Claim>,
        cx: &mut Cx<'_>,
    ) -> PutRequest {
        let writer = self.keys.writer(name);
        let value = claim.map(|claim| {
            let octets = postcard::to_stdvec(claim).unwrap_or_default();
            seal(
                cx.rng(),
                &self.keys.seal(name),
                writer.id().as_bytes(),
                &octets,
            )
            .into()
        });
        PutRequest {
            kind: match name {
                RecordName::Address(_) => Kind::Lease,
                RecordName::Members => Kind::Set,
            },
            owner: self.keys.owner(cx.keypair(), name),
            writer,
            lease_s: super::claim::LEASE_S,
            value,
        }
    }
}

/// What is kept on disk of a channel.
#[derive(Serialize, Deserialize)]
struct Kept {
    name: String,
    network: Network,
    secret: [u8; 32],
    address: Option<Ipv4Addr>,
    by_hand: bool,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl Vnet {
    pub(super) fn open(&mut self, spec: ChannelSpec, address: Option<Ipv4Addr>, cx: &mut Cx<'_>) {
        self.open_with(spec, address, address.is_some(), cx);
    }

    fn open_with(
        &mut self,
        spec: ChannelSpec,
        address: Option<Ipv4Addr>,
        by_hand: bool,
        cx: &mut Cx<'_>,
    ) {
        self.next_channel += 1;
        let id = ChannelId(self.next_channel);
        if self.channels.len() >= CHANNELS_MAX {
            let reason = format!("a node takes part in at most {CHANNELS_MAX} channels");
            return cx.emit(Event::ClaimFailed {
                channel: id,
                reason,
            });
        }
        let ChannelSpec {
            name,
            network,
            secret,
        } = spec;
        let keys = ChannelKeys::new(&name, network, &secret);
        let channel = Channel {
            address6: Network::address6(keys.id(), &cx.me()),
            name,
            network,
            secret,
            keys,
            phase: Phase::Waiting,
            address,
            by_hand,
            tries: 0,
            members: BTreeMap::new(),
            announced: false,
            checked_at: Time::ZERO,
            cache: BTreeMap::new(),
            attaching: BTreeMap::new(),
            attached: BTreeMap::new(),
            notice: None,
        };
        self.channels.insert(id, channel);
        self.keep(id, cx);
        self.begin_claim(id, cx);
    }

    pub(super) fn close(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        self.detach_channel(id, cx);
        let Some(channel) = self.channels.remove(&id) else {
            return;
        };
        for alarm in [Alarm::Claim(id), Alarm::Check(id), Alarm::Members(id)] {
            self.deadlines.cancel(alarm);
        }
        if let Some(address) = channel.address {
            let addresses = [address.into(), channel.address6.into()].map(RecordName::Address);
            for name in addresses.into_iter().chain([RecordName::Members]) {
                let request = channel.put_request(name, None, cx);
                let token = self.token(Purpose::Nothing);
                cx.put(token, request);
            }
        }
        cx.persist(channel.name.clone().into_bytes(), None);
        cx.emit(Event::Closed(id));
    }

    /// Keeps the channel and its address for the next start.
    pub(super) fn keep(&self, id: ChannelId, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let kept = Kept {
            name: channel.name.clone(),
            network: channel.network,
            secret: *channel.secret,
            address: channel.address,
            by_hand: channel.by_hand,
        };
        cx.persist(
            channel.name.clone().into_bytes(),
            postcard::to_stdvec(&kept).ok(),
        );
    }

    pub(super) fn restore(&mut self, value: &[u8], cx: &mut Cx<'_>) {
        let Ok(kept) = postcard::from_bytes::<Kept>(value) else {
            return;
        };
        let (name, network) = (kept.name.clone(), kept.network);
        let spec = ChannelSpec {
            name,
            network,
            secret: Secret::new(kept.secret),
        };
        self.open_with(spec, kept.address, kept.by_hand, cx);
    }
}
