//! Values from the input, for the events of the target `node`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use enishi_overlay::class::Grade;
use enishi_overlay::message::Hello;
use enishi_overlay::ring::Arc;
use enishi_overlay::view::{Entry, Role, Seat, Snapshot, ViewUpdate, mark};
use enishi_overlay::{Contact, Coordinate, NodeId, Position};
use enishi_services::dht::Consistency;
use enishi_services::dht::wire::{Aged, Compare, Item, Outcome, Range, RangeContent, Summary};
use enishi_services::record::{Content, Key, Kind, Record};

use super::{IDS, NODES, SPEAKERS, World, keypairs};

/// Values from the input, in the order in which they are asked for.
impl World<'_> {
    pub(super) fn octet(&mut self) -> Option<u8> {
        let (first, rest) = self.octets.split_first()?;
        self.octets = rest;
        Some(*first)
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        self.octet().map(|octet| octet & 1 == 1)
    }

    /// Small numbers mostly, and extreme ones.
    pub(super) fn number(&mut self) -> Option<u64> {
        let octet = self.octet()?;
        Some(match octet {
            0..=199 => octet.into(),
            200..=219 => 1 << (3 * (octet - 200)),
            220..=239 => 1_800_000_000 + u64::from(octet),
            _ => u64::MAX - u64::from(255 - octet),
        })
    }

    pub(super) fn list<T>(
        &mut self,
        most: u8,
        mut item: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let count = self.octet()? % (most + 1);
        (0..count).map(|_| item(self)).collect()
    }

    pub(super) fn body(&mut self) -> Option<Bytes> {
        let length = usize::from(self.octet()?).min(self.octets.len());
        let (body, rest) = self.octets.split_at(length);
        self.octets = rest;
        Some(Bytes::copy_from_slice(body))
    }

    /// One of the ids that speak and have no node behind them.
    pub(super) fn peer(&mut self) -> Option<usize> {
        Some(NODES + usize::from(self.octet()?) % (SPEAKERS - NODES))
    }

    pub(super) fn id(&mut self) -> Option<NodeId> {
        self.octet().map(|octet| stranger(usize::from(octet)))
    }

    pub(super) fn contact(&mut self) -> Option<Contact> {
        self.octet()
            .map(|octet| Contact::new(stranger(octet.into()), [address(octet)]))
    }

    pub(super) fn entry(&mut self) -> Option<Entry> {
        self.contact().map(|contact| entry(contact, Role::Near))
    }

    pub(super) fn seat(&mut self) -> Option<Seat> {
        let (role, coordinate) = (Role::Long, Coordinate::default());
        Some(Seat::new(
            self.position()?,
            role,
            coordinate,
            Grade::default(),
        ))
    }

    pub(super) fn position(&mut self) -> Option<Position> {
        let (high, low) = (self.octet()?, self.number()?);
        Some(Position::from_number((u64::from(high) << 56) ^ low))
    }

    pub(super) fn view(&mut self) -> Option<ViewUpdate> {
        let base = if self.flag()? {
            Some(self.number()? as u32)
        } else {
            None
        };
        let version = self.number()? as u32;
        let removed = self.list(8, Self::octet)?;
        // Whole crowds at once are what fills tables.
        let (first, count) = (self.octet()?, self.octet()? % 161);
        let added = (0..count).map(|number| {
            let number = first.wrapping_add(number);
            let role = if number % 3 == 0 {
                Role::Long
            } else {
                Role::Near
            };
            let contact = Contact::new(stranger(number.into()), [address(number)]);
            entry(contact, role)
        });
        Some(ViewUpdate {
            base,
            version,
            removed,
            added: added.collect(),
            seated: self.list(8, Self::seat)?,
            moved: self.list(4, |w| Some((w.octet()?, Coordinate::default())))?,
            graded: self.list(4, |w| Some((w.octet()?, Grade::default())))?,
            shared: self.list(4, |w| Some((Role::Near, mark(w.position()?))))?,
            snapshot: Snapshot::default(),
        })
    }

    pub(super) fn kind(&mut self) -> Option<Kind> {
        Some([Kind::Lease, Kind::Set][usize::from(self.flag()?)])
    }

    pub(super) fn key(&mut self) -> Option<Key> {
        let kind = self.kind()?;
        let writer = usize::from(self.octet()?) % IDS;
        Some(Key::new(kind, &keypairs()[writer].id()))
    }

    pub(super) fn consistency(&mut self) -> Option<Consistency> {
        Some([Consistency::Any, Consistency::Majority][usize::from(self.flag()?)])
    }

    /// What somebody says it knows: nothing, or that there is nothing.
    pub(super) fn summary(&mut self) -> Option<Option<Summary>> {
        Some(self.flag()?.then(|| Summary::of(&[])))
    }

    pub(super) fn record(&mut self) -> Option<Record> {
        let kind = self.kind()?;
        let writer = &keypairs()[usize::from(self.octet()?) % IDS];
        let owner = &keypairs()[usize::from(self.octet()?) % IDS];
        let removed = self.octet()? % 8 == 0;
        let content = Content {
            kind,
            writer: writer.id(),
            owner: owner.id(),
            seq: self.number()?,
            since_unix_s: self.number()?,
            lease_s: self.number()? as u32,
            removed,
            value: if removed { Bytes::new() } else { self.body()? },
        };
        Some(Record::sign(content, writer, owner))
    }

    pub(super) fn aged(&mut self) -> Option<Aged> {
        let (record, age_s) = (self.record()?, self.number()? as u32);
        Some(Aged { record, age_s })
    }

    pub(super) fn item(&mut self) -> Option<Item> {
        Some(Item {
            key: self.key()?,
            owner: self.id()?,
            digest: self.number()?.into(),
        })
    }

    pub(super) fn outcome(&mut self) -> Option<Outcome> {
        Some(match self.octet()? % 6 {
            0 => Outcome::Stored {
                replicas: self.number()? as u32,
            },
            1 => Outcome::Taken,
            2 => Outcome::Stale {
                seq: self.number()?,
            },
            3 => Outcome::Full,
            4 => Outcome::Invalid,
            _ => Outcome::TooFew,
        })
    }

    pub(super) fn compare(&mut self) -> Option<Compare> {
        let arc = Arc {
            start: self.position()?,
            end: self.position()?,
        };
        let ranges = self.list(128, |world| {
            let content = match world.octet()? % 4 {
                0 => RangeContent::Same,
                1 => RangeContent::Items(world.list(3, Self::item)?),
                _ => RangeContent::Sum {
                    count: world.number()? as u32,
                    sum: 1,
                },
            };
            let end = Position::from_number(u64::from(world.octet()?) << 56);
            Some(Range { end, content })
        })?;
        Some(Compare { arc, ranges })
    }

    /// Where the other node is, if it has an address.
    pub(super) fn virtual_address(&self) -> IpAddr {
        let mut channels = self.nodes.iter().flat_map(|node| node.vnet().channels());
        let held = channels.find_map(|(_, channel)| channel.address());
        held.unwrap_or(Ipv4Addr::new(10, 77, 0, 1)).into()
    }
}

/// The ids with a key first, then ids that are none.
pub(super) fn stranger(number: usize) -> NodeId {
    match keypairs().get(number) {
        Some(keypair) => keypair.id(),
        None => NodeId::from_bytes([number as u8; 32]),
    }
}

pub(super) fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 7000))
}

fn entry(contact: Contact, role: Role) -> Entry {
    Entry {
        contact,
        role,
        coordinate: Coordinate::default(),
        grade: Grade::default(),
    }
}

pub(super) fn hello(from: usize, nonce: u32, link: bool, view: ViewUpdate) -> Hello {
    let contact = Contact::new(keypairs()[from].id(), [address(from as u8)]);
    Hello {
        nonce,
        contact,
        coordinate: Coordinate::default(),
        grade: Grade::default(),
        link,
        view: Some(view),
    }
}
