//! Who has this address (document 004, algorithm 3).

use std::net::IpAddr;
use std::time::Duration;

use super::channel::Cached;
use super::secret::RecordName;
use super::{ChannelId, Cx, Event, Purpose, Vnet};
use crate::calls::{Consistency, GetAnswer};

/// How long an answer is good.
const FOUND_FOR: Duration = Duration::from_secs(60);
/// How long the answer that nobody has an address is good.
const NOBODY_FOR: Duration = Duration::from_secs(3);
/// The most answers that are kept for one channel.
const CACHE_MAX: usize = 4096;

impl Vnet {
    pub(super) fn resolve(&mut self, id: ChannelId, address: IpAddr, cx: &mut Cx<'_>) {
        let now = cx.now();
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let member = channel.members.values().find(|claim| claim.names(address));
        match channel
            .cache
            .get(&address)
            .filter(|cached| cached.until > now)
        {
            Some(Cached {
                claim: Some(claim), ..
            }) => {
                let claim = claim.clone();
                self.attach(id, address, &claim, cx);
            }
            Some(Cached { claim: None, .. }) if member.is_none() => {
                cx.emit(Event::Unresolved {
                    channel: id,
                    address,
                });
            }
            _ => self.get(
                id,
                address,
                Purpose::Resolve(id, address),
                Consistency::Any,
                cx,
            ),
        }
    }

    pub(super) fn resolved(
        &mut self,
        id: ChannelId,
        address: IpAddr,
        answer: &GetAnswer,
        cx: &mut Cx<'_>,
    ) {
        let now = cx.now();
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let claim = match answer {
            GetAnswer::Records(records) => records
                .first()
                .and_then(|record| {
                    channel.open_claim(RecordName::Address(address), record, cx.unix_s())
                })
                .filter(|claim| claim.names(address)),
            // Nobody answered: that says nothing of the address.
            GetAnswer::Failed => {
                return cx.emit(Event::Unresolved {
                    channel: id,
                    address,
                });
            }
        };
        let until = now
            + if claim.is_some() {
                FOUND_FOR
            } else {
                NOBODY_FOR
            };
        if channel.cache.len() >= CACHE_MAX {
            channel.cache.retain(|_, cached| cached.until > now);
        }
        if channel.cache.len() < CACHE_MAX {
            channel.cache.insert(
                address,
                Cached {
                    claim: claim.clone(),
                    until,
                },
            );
        }
        match claim.filter(|claim| claim.contact.id() != cx.me()) {
            Some(claim) => {
                self.note_holder(id, address, &claim, cx);
                self.attach(id, address, &claim, cx);
            }
            None => cx.emit(Event::Unresolved {
                channel: id,
                address,
            }),
        }
    }
}
