//! Opening and closing a channel, and what is kept of it on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use enishi_overlay::Time;
use serde::{Deserialize, Serialize};

use super::beyond::{Accepted, Beyond};
use super::charter::Charter;
use super::directory::Directory;
use super::government::{Entry, Government, Guest, Seat};
use super::hosted::Hosting;
use super::invitation::Issued;
use super::secret::{ChannelKeys, RecordName};
use super::settle::Settling;
use super::succession::Epoch;
use super::wire::Offers;
use super::{
    Alarm, CHANNELS_MAX, Channel, ChannelId, ChannelSpec, Cx, Event, Network, Phase, Purpose, Vnet,
};
use crate::keys::Secret;

/// The form of what is kept; its first octet is none with which the first form began.
const FORM: [u8; 2] = [0, 2];

/// What is kept on disk of a channel.
#[derive(Serialize, Deserialize)]
struct Kept {
    name: String,
    network: Network,
    #[serde(with = "crate::recording::secret")]
    secret: Secret,
    address: Option<Ipv4Addr>,
    by_hand: bool,
    offers: Offers,
    accepted: Accepted,
    older: Vec<KeptSecret>,
    government: Option<KeptGovernment>,
    /// In which page of the directory this node's entry is.
    page: u8,
}

#[derive(Serialize, Deserialize)]
struct KeptSecret(#[serde(with = "crate::recording::secret")] Secret);

#[derive(Serialize, Deserialize)]
struct KeptGovernment {
    entry: Entry,
    charter: Option<Charter>,
    issued: Vec<Issued>,
    /// Which key of the invitation this node uses.
    key: u8,
}

/// The first form of what is kept.
#[derive(Deserialize)]
struct KeptBefore {
    name: String,
    network: Network,
    #[serde(with = "crate::recording::secret")]
    secret: Secret,
    address: Option<Ipv4Addr>,
    by_hand: bool,
}

/// With what a channel begins on this node.
struct Beginning {
    address: Option<Ipv4Addr>,
    by_hand: bool,
    offers: Offers,
    accepted: Accepted,
    older: Vec<KeptSecret>,
    government: Option<Government>,
    page: u8,
}

impl Vnet {
    pub(super) fn open(&mut self, spec: ChannelSpec, address: Option<Ipv4Addr>, cx: &mut Cx<'_>) {
        let id = self.number();
        let government = match &spec.entry {
            Entry::Secret => None,
            Entry::Founder(seed) => {
                let signer = (cx.keypair(), cx.unix_s());
                let founded = Government::found(id, seed.clone(), &spec.secret, signer);
                Some(founded)
            }
            Entry::Invited(guest) => {
                // Users of one invitation begin with different keys of it.
                let keys = guest.invited.keys().len().max(1) as u64;
                let key = cx.rng().below(keys) as usize;
                Government::enter(id, Guest::clone(guest), cx.me(), key)
            }
        };
        let beginning = Beginning {
            address,
            by_hand: address.is_some(),
            offers: Offers::default(),
            accepted: Accepted::default(),
            older: Vec::new(),
            government,
            page: 0,
        };
        self.begin(id, spec, beginning, cx);
    }

    fn number(&mut self) -> ChannelId {
        self.next_channel += 1;
        ChannelId(self.next_channel)
    }

    fn begin(&mut self, id: ChannelId, spec: ChannelSpec, with: Beginning, cx: &mut Cx<'_>) {
        let governed = !matches!(spec.entry, Entry::Secret);
        let reason = if self.channels.len() >= CHANNELS_MAX {
            Some(format!(
                "a node takes part in at most {CHANNELS_MAX} channels"
            ))
        } else if governed && with.government.is_none() {
            Some("the invitation has no key that could be used".to_owned())
        } else {
            None
        };
        if let Some(reason) = reason {
            return cx.emit(Event::ClaimFailed {
                channel: id,
                reason,
            });
        }
        let ChannelSpec {
            name,
            network,
            secret,
            ..
        } = spec;
        let authority = with.government.as_ref().map(|g| g.authority);
        let keys = |secret: &Secret| ChannelKeys::new(&name, network, secret, authority.as_ref());
        let older = with.older.into_iter().map(|KeptSecret(secret)| Epoch {
            page: with.page,
            keys: keys(&secret),
            secret,
        });
        let older = older.collect();
        let keys = keys(&secret);
        let channel = Channel {
            address6: Network::address6(keys.id(), &cx.me()),
            name,
            network,
            secret,
            keys,
            older,
            government: with.government,
            offers: with.offers,
            hosting: Hosting::default(),
            beyond: Beyond::new(with.accepted),
            group: None,
            phase: Phase::Waiting,
            address: with.address,
            by_hand: with.by_hand,
            tries: 0,
            members: BTreeMap::new(),
            carried: (BTreeSet::new(), Time::ZERO),
            announced: false,
            directory_reads: 0,
            directory: Directory::new(with.page),
            settling: Settling::new(cx.now()),
            checked_at: Time::ZERO,
            cache: BTreeMap::new(),
            attaching: BTreeMap::new(),
            attached: BTreeMap::new(),
            notice: None,
            is_said_removed: false,
        };
        self.channels.insert(id, channel);
        self.keep(id, cx);
        self.begin_claim(id, cx);
        self.put_all_mail(id, cx);
        self.await_expiry(id, cx);
        self.claim_uses(cx);
    }

    pub(super) fn close(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        self.detach_channel(id, cx);
        self.take_all_mail_away(id, cx);
        let Some(channel) = self.channels.remove(&id) else {
            return;
        };
        for alarm in Alarm::of_channel(id) {
            self.deadlines.cancel(alarm);
        }
        if let Some(group) = channel.group {
            cx.unsubscribe(group);
        }
        let mut removals = Vec::new();
        if let Some(address) = channel.address {
            let addresses = [address.into(), channel.address6.into()].map(RecordName::Address);
            let hosted = channel.hosted_names(cx.me());
            let entries = channel.directory.entries().map(RecordName::Members);
            for name in addresses.into_iter().chain(hosted).chain(entries) {
                removals.push(channel.keys.removal(cx.keypair(), name));
            }
        }
        let older = channel.older.iter();
        removals.extend(older.map(|epoch| epoch.removal(cx.keypair())));
        for request in removals {
            let token = self.token(Purpose::Nothing);
            cx.put(token, request);
        }
        cx.persist(channel.name.clone().into_bytes(), None);
        cx.emit(Event::Closed(id));
    }

    /// Keeps the channel and its address for the next start.
    pub(super) fn keep(&self, id: ChannelId, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let government = channel.government.as_ref().map(|government| {
            let entry = match &government.seat {
                Seat::Founder(seed) => Entry::Founder(seed.clone()),
                Seat::Guest(guest) => Entry::Invited(guest.clone()),
            };
            KeptGovernment {
                entry,
                charter: government.charter.clone(),
                issued: government.issued.clone(),
                key: u8::try_from(government.uses.index()).unwrap_or(0),
            }
        });
        let kept = Kept {
            name: channel.name.clone(),
            network: channel.network,
            secret: channel.secret.clone(),
            address: channel.address,
            by_hand: channel.by_hand,
            offers: channel.offers.clone(),
            accepted: channel.beyond.accepted.clone(),
            older: channel
                .older
                .iter()
                .map(|epoch| KeptSecret(epoch.secret.clone()))
                .collect(),
            government,
            page: channel.directory.page(),
        };
        let key = channel.name.clone().into_bytes();
        cx.persist(key, postcard::to_extend(&kept, FORM.to_vec()).ok());
    }

    pub(super) fn restore(&mut self, value: &[u8], cx: &mut Cx<'_>) {
        let Some(kept) = Kept::read(value) else {
            return;
        };
        let id = self.number();
        let me = cx.me();
        let (entry, government) = match kept.government {
            None => (Entry::Secret, None),
            Some(of) => {
                let entry = of.entry.clone();
                (entry, of.restore(id, me, (&kept.secret, cx)))
            }
        };
        let spec = ChannelSpec {
            name: kept.name,
            network: kept.network,
            secret: kept.secret,
            entry,
        };
        let beginning = Beginning {
            address: kept.address,
            by_hand: kept.by_hand,
            offers: kept.offers,
            accepted: kept.accepted,
            older: kept.older,
            government,
            page: kept.page,
        };
        self.begin(id, spec, beginning, cx);
    }
}

impl KeptGovernment {
    fn restore(
        self,
        id: ChannelId,
        me: enishi_overlay::NodeId,
        (secret, cx): (&Secret, &Cx<'_>),
    ) -> Option<Government> {
        let mut government = match self.entry {
            Entry::Secret => return None,
            Entry::Founder(seed) => {
                Government::found(id, seed, secret, (cx.keypair(), cx.unix_s()))
            }
            Entry::Invited(guest) => Government::enter(id, *guest, me, usize::from(self.key))?,
        };
        government.signed = self
            .charter
            .clone()
            .filter(|charter| charter.signer() == me);
        government.charter = self.charter;
        government.issued = self.issued;
        Some(government)
    }
}

impl Kept {
    fn read(octets: &[u8]) -> Option<Self> {
        if let Some(kept) = octets.strip_prefix(&FORM) {
            // Of the time when a directory had one page nothing is kept of pages.
            let in_first = || postcard::from_bytes(&[kept, &[0]].concat()).ok();
            return postcard::from_bytes(kept).ok().or_else(in_first);
        }
        let before: KeptBefore = postcard::from_bytes(octets).ok()?;
        Some(Self {
            name: before.name,
            network: before.network,
            secret: before.secret,
            address: before.address,
            by_hand: before.by_hand,
            offers: Offers::default(),
            accepted: Accepted::default(),
            older: Vec::new(),
            government: None,
            page: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_first_form_kept_is_still_read() {
        let network: Network = "10.77.0.0/16".parse().unwrap();
        let address = Some(Ipv4Addr::new(10, 77, 0, 9));
        let before = ("office", network, [7_u8; 32], address, true);
        let kept = Kept::read(&postcard::to_stdvec(&before).unwrap()).unwrap();
        assert_eq!((kept.name.as_str(), *kept.secret), ("office", [7; 32]));
        assert_eq!((kept.address, kept.by_hand), (address, true));
        assert!(kept.government.is_none());
        assert!(Kept::read(&[0, 2, 1]).is_none() && Kept::read(&[]).is_none());
        assert_eq!(kept.page, 0);
    }

    #[test]
    fn the_page_of_the_directory_is_kept_and_may_be_missing() {
        let kept = Kept {
            name: "office".into(),
            network: "10.77.0.0/16".parse().unwrap(),
            secret: Secret::new([7; 32]),
            address: None,
            by_hand: false,
            offers: Offers::default(),
            accepted: Accepted::default(),
            older: Vec::new(),
            government: None,
            page: 3,
        };
        let mut octets = postcard::to_extend(&kept, FORM.to_vec()).unwrap();
        assert_eq!(Kept::read(&octets).unwrap().page, 3);
        octets.pop();
        let before = Kept::read(&octets).unwrap();
        assert_eq!((before.name.as_str(), before.page), ("office", 0));
    }
}
