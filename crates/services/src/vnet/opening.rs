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
use super::succession::{Epoch, OLD_ENTRY};
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
    /// In which page of the directory this node's entry is, in which others there are entries of it
    /// still, and in which there are in the directories of the older epochs.
    page: u8,
    left: Vec<u8>,
    older_pages: Vec<Vec<u8>>,
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
    older: Vec<(KeptSecret, Vec<u8>)>,
    government: Option<Government>,
    page: u8,
    left: Vec<u8>,
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
            left: Vec::new(),
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
        let older = with.older.into_iter();
        let older = older.map(|(KeptSecret(secret), pages)| Epoch {
            pages,
            keys: keys(&secret),
            secret,
        });
        let older: Vec<Epoch> = older.collect();
        if older.iter().any(|epoch| !epoch.pages.is_empty()) {
            self.deadlines
                .set(Alarm::OldEntries(id), cx.now() + OLD_ENTRY);
        }
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
            draws: 0,
            members: BTreeMap::new(),
            carried: (BTreeSet::new(), Time::ZERO),
            announced: false,
            directory_reads: 0,
            directory: Directory::restored(with.page, &with.left, cx.now()),
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
        removals.extend(older.flat_map(|epoch| epoch.removals(cx.keypair())));
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
            left: channel.directory.left().to_vec(),
            older_pages: channel.older.iter().map(|e| e.pages.clone()).collect(),
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
        // Of the time when they were not kept they are taken for the same.
        let pages = kept.older_pages.into_iter().map(Some);
        let pages = pages.chain(std::iter::repeat(None));
        let pages = pages.map(|pages| pages.unwrap_or_else(|| vec![kept.page]));
        let beginning = Beginning {
            address: kept.address,
            by_hand: kept.by_hand,
            offers: kept.offers,
            accepted: kept.accepted,
            older: kept.older.into_iter().zip(pages).collect(),
            government,
            page: kept.page,
            left: kept.left,
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
            // What was kept before ends with the page, or, of the time when a directory had one
            // page, before it.
            let mut forms = [&[][..], &[0, 0], &[0, 0, 0]].into_iter();
            return forms.find_map(|rest| postcard::from_bytes(&[kept, rest].concat()).ok());
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
            left: Vec::new(),
            older_pages: Vec::new(),
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
    fn the_pages_of_the_directory_are_kept_and_may_be_missing() {
        let kept = Kept {
            name: "office".into(),
            network: "10.77.0.0/16".parse().unwrap(),
            secret: Secret::new([7; 32]),
            address: None,
            by_hand: false,
            offers: Offers::default(),
            accepted: Accepted::default(),
            older: vec![KeptSecret(Secret::new([6; 32]))],
            government: None,
            page: 3,
            left: vec![5],
            older_pages: vec![vec![4, 2]],
        };
        let octets = postcard::to_extend(&kept, FORM.to_vec()).unwrap();
        let read = |kept: &[u8]| {
            let kept = Kept::read(kept).unwrap();
            (kept.name, kept.page, kept.left, kept.older_pages)
        };
        let office = || "office".to_owned();
        let all = (office(), 3, vec![5], vec![vec![4, 2]]);
        assert_eq!(read(&octets), all);
        // What was kept before pages besides its own were, and before any was.
        let without = octets.len() - [1, 5, 1, 2, 4, 2].len();
        let empty = Vec::<Vec<u8>>::new;
        assert_eq!(read(&octets[..without]), (office(), 3, vec![], empty()));
        assert_eq!(read(&octets[..without - 1]), (office(), 0, vec![], empty()));
    }
}
