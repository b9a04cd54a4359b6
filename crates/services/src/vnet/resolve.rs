//! Who has this address (document 004, algorithm 3).

use std::net::IpAddr;
use std::time::Duration;

use enishi_overlay::Time;

use super::attach::By;
use super::channel::Cached;
use super::secret::RecordName;
use super::wire::Claim;
use super::{Channel, ChannelId, Cx, Event, Purpose, Vnet};
use crate::calls::{Consistency, GetAnswer};

/// How long an answer is good.
const FOUND_FOR: Duration = Duration::from_secs(60);
/// How long the answer that nobody has an address is good.
const NOBODY_FOR: Duration = Duration::from_secs(3);
/// The most answers that are kept for one channel.
const CACHE_MAX: usize = 4096;

impl Channel {
    /// Returns whose an address was lately: a claim, or that nobody has it; none where that is not
    /// known.
    pub(super) fn cached(&self, address: &IpAddr, now: Time) -> Option<Option<&Claim>> {
        let cached = self.cache.get(address);
        let cached = cached.filter(|cached| cached.until > now);
        cached.map(|cached| cached.claim.as_ref())
    }
}

impl Vnet {
    pub(super) fn resolve(&mut self, id: ChannelId, address: IpAddr, cx: &mut Cx<'_>) {
        let now = cx.now();
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let member = channel.members.values().find(|claim| claim.names(address));
        match channel.cached(&address, now) {
            Some(Some(claim)) => {
                let claim = claim.clone();
                self.attach_found(id, address, &claim, cx);
            }
            Some(None) if member.is_none() => {
                cx.emit(Event::Unresolved {
                    channel: id,
                    address,
                });
            }
            _ => {
                let known = member.filter(|claim| channel.is_settled(claim)).cloned();
                if let Some(claim) = known.filter(|claim| claim.contact.id() != cx.me()) {
                    // Where a whole neighbourhood has lost its sessions, nobody may answer for a while.
                    self.attach(id, address, &claim, By::Memory, cx);
                }
                let purpose = Purpose::Resolve(id, address);
                self.get(id, address, purpose, Consistency::Any, cx);
            }
        }
    }

    pub(super) fn resolved(
        &mut self,
        id: ChannelId,
        address: IpAddr,
        answer: &GetAnswer,
        cx: &mut Cx<'_>,
    ) {
        let claim = self.found_under(id, address, answer, cx);
        let claim = claim.or_else(|| self.proven_by_key(id, address, answer));
        match claim.filter(|claim| claim.contact.id() != cx.me()) {
            Some(claim) => {
                self.learn(id, address, &claim, cx);
                self.note_holder(id, address, &claim, cx);
                self.attach_found(id, address, &claim, cx);
            }
            // Who held it lately may still answer.
            None if self.is_last_hope(id, address) => {}
            None => cx.emit(Event::Unresolved {
                channel: id,
                address,
            }),
        }
    }

    /// Returns a known member's claim to an IPv6 address where the record is somebody else's. The
    /// address follows from the node's key: a record can hide it, but not give it to another.
    fn proven_by_key(&self, id: ChannelId, address: IpAddr, answer: &GetAnswer) -> Option<Claim> {
        let is_hidden = matches!(answer, GetAnswer::Records(records) if !records.is_empty());
        let channel = self.channels.get(&id).filter(|_| is_hidden)?;
        let mut members = channel.members.values();
        members
            .find(|claim| address == IpAddr::V6(claim.address6))
            .cloned()
    }

    /// Returns the claim that was found under an address, if it names that, and remembers it for
    /// a while; that nobody answered says nothing of the address.
    pub(super) fn found_under(
        &mut self,
        id: ChannelId,
        address: IpAddr,
        answer: &GetAnswer,
        cx: &Cx<'_>,
    ) -> Option<Claim> {
        let (now, unix_s) = (cx.now(), cx.unix_s());
        let GetAnswer::Records(records) = answer else {
            return None;
        };
        let channel = self.channels.get_mut(&id)?;
        let name = RecordName::Address(address);
        let claim = records.first();
        let claim = claim.and_then(|record| channel.open_claim(name, record, unix_s));
        let claim = claim.filter(|claim| claim.names(address));
        let good_for = if claim.is_some() {
            FOUND_FOR
        } else {
            NOBODY_FOR
        };
        if channel.cache.len() >= CACHE_MAX {
            channel.cache.retain(|_, cached| cached.until > now);
        }
        if channel.cache.len() < CACHE_MAX {
            let until = now + good_for;
            let claim = claim.clone();
            channel.cache.insert(address, Cached { claim, until });
        }
        claim
    }
}
