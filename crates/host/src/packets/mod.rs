//! IP packets of the virtual networks: between the devices of this host and the datagram
//! lanes of its sessions. They do not pass through the node, which only fills the tables.
//!
//! ```text
//! device ─> outbound: whose address? ─ peer ─> datagram lane
//!                        │ nobody's yet: keep it, ask the node
//! device <─ inbound: which channel, may the peer send this? <─ datagram lane
//! ```

mod inbound;
mod network;
mod outbound;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use enishi_dataplane::Frame;
use enishi_overlay::NodeId;
use enishi_services::vnet::{ChannelId, Event, Vnet};
use tokio::sync::mpsc;

use crate::session::Sessions;
use inbound::Refused;
use network::{Local, Network};

/// What the packet path tells the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A packet waits for the holder of an address.
    Missing {
        /// In which channel.
        channel: ChannelId,
        /// Which address.
        address: IpAddr,
    },
    /// A peer marked a packet with a tag that is not in use, or not by it: it thinks that
    /// packets may be exchanged.
    UnknownTag {
        /// Who.
        from: NodeId,
        /// The tag.
        tag: u32,
    },
}

/// The virtual networks of this host.
pub struct Networks {
    with_devices: bool,
    notes: mpsc::Sender<Note>,
    sessions: OnceLock<Sessions>,
    by_channel: RwLock<BTreeMap<ChannelId, Arc<Network>>>,
    by_tag: RwLock<HashMap<u32, Arc<Network>>>,
    foreign_packets: AtomicU64,
}

impl Networks {
    /// Makes the table of networks, empty. Notes that find no room are dropped: the next
    /// packet brings another.
    pub fn new(notes: mpsc::Sender<Note>, with_devices: bool) -> Self {
        Self {
            with_devices,
            notes,
            sessions: OnceLock::new(),
            by_channel: RwLock::default(),
            by_tag: RwLock::default(),
            foreign_packets: AtomicU64::new(0),
        }
    }

    /// Says over which sessions packets go; before that there are none.
    pub fn start(&self, sessions: Sessions) {
        // Told once, at the start.
        let _ = self.sessions.set(sessions);
    }

    /// Follows what the virtual networks' control decided. Must be called within a tokio
    /// runtime; makes and removes devices, which takes some milliseconds.
    pub fn on_event(&self, event: &Event, vnet: &Vnet) {
        match event {
            Event::Claimed {
                channel,
                address,
                address6,
                tag,
            } => {
                let Some(prefix) = vnet.channel(*channel).map(|c| c.network().prefix()) else {
                    return;
                };
                let local = Local {
                    channel: *channel,
                    address: *address,
                    address6: *address6,
                    prefix,
                    tag: *tag,
                };
                self.open(local);
            }
            Event::Attached {
                channel,
                peer,
                addresses,
                tag,
                mtu,
            } => {
                if let Some(network) = self.of_channel(*channel) {
                    network.attach(*peer, *addresses, *tag, *mtu);
                }
            }
            Event::Detached { channel, peer } => {
                if let Some(network) = self.of_channel(*channel) {
                    network.detach(*peer);
                }
            }
            Event::Unresolved { channel, address } => {
                if let Some(network) = self.of_channel(*channel) {
                    network.give_up(*address);
                }
            }
            Event::Displaced { channel, .. } | Event::Closed(channel) => self.close_one(*channel),
            Event::ClaimFailed { .. } => {}
        }
    }

    /// Takes a datagram of a session. Does not wait.
    pub fn on_datagram(&self, from: NodeId, datagram: &Bytes) {
        let Ok(frame) = Frame::decode(datagram) else {
            return self.count_foreign();
        };
        let tag = frame.tag;
        let network = read(&self.by_tag).get(&tag).map(Arc::clone);
        match network.map(|network| network.receive(from, frame)) {
            Some(Ok(())) => return,
            Some(Err(Refused::Foreign)) => return self.count_foreign(),
            Some(Err(Refused::NotAttached)) => self.count_foreign(),
            None => {}
        }
        // Without room: the next packet brings another.
        let _ = self.notes.try_send(Note::UnknownTag { from, tag });
    }

    /// Tells whether channels get network devices.
    pub fn makes_devices(&self) -> bool {
        self.with_devices
    }

    /// Tells whether the channel's address is held, and its device made if it is to have
    /// one.
    pub fn is_open(&self, channel: ChannelId) -> bool {
        self.of_channel(channel).is_some()
    }

    /// Returns the name of a channel's device, and what a person should know of it.
    pub fn interface(&self, channel: ChannelId) -> (Option<String>, Option<String>) {
        self.of_channel(channel)
            .map_or((None, None), |network| network.interface())
    }

    /// Tells whether packets are exchanged with a node in any channel: both have proved
    /// that they are members.
    pub fn is_attached(&self, peer: NodeId) -> bool {
        read(&self.by_channel)
            .values()
            .any(|network| network.is_attached(peer))
    }

    /// Returns how many packets came from nodes that may not send them.
    pub fn foreign_packets(&self) -> u64 {
        self.foreign_packets.load(Relaxed)
    }

    /// Removes all devices.
    pub fn close(&self) {
        write(&self.by_tag).clear();
        let networks = std::mem::take(&mut *write(&self.by_channel));
        networks.values().for_each(|network| network.close());
    }

    fn open(&self, local: Local) {
        // Claimed again after its holders had lost it: nothing has changed.
        if self
            .of_channel(local.channel)
            .is_some_and(|network| network.is_for(&local))
        {
            return;
        }
        self.close_one(local.channel);
        let sessions = self.sessions.get().filter(|_| self.with_devices).cloned();
        let network = Network::open(local, sessions, self.notes.clone());
        write(&self.by_tag).insert(local.tag, Arc::clone(&network));
        write(&self.by_channel).insert(local.channel, network);
        self.hide_addresses();
    }

    fn close_one(&self, channel: ChannelId) {
        let Some(network) = write(&self.by_channel).remove(&channel) else {
            return;
        };
        write(&self.by_tag).remove(&network.local.tag);
        network.close();
        self.hide_addresses();
    }

    /// Sessions must not run through the virtual networks that they carry.
    fn hide_addresses(&self) {
        let addresses = read(&self.by_channel)
            .values()
            .flat_map(|network| network.local.addresses())
            .collect();
        if let Some(sessions) = self.sessions.get() {
            sessions.hide_addresses(addresses);
        }
    }

    fn of_channel(&self, channel: ChannelId) -> Option<Arc<Network>> {
        read(&self.by_channel).get(&channel).map(Arc::clone)
    }

    fn count_foreign(&self) {
        self.foreign_packets.fetch_add(1, Relaxed);
    }
}

/// A panic elsewhere does not make the tables useless: every change is complete.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: u32 = 5;

    #[test]
    fn whoever_is_not_attached_hears_so_and_is_counted() {
        let (notes, mut inlet) = mpsc::channel(1);
        let networks = Networks::new(notes, false);
        let from = NodeId::from_bytes([1; 32]);
        let datagram = {
            use enishi_dataplane::lane::{Datagrams, Splitter};
            let packet = [&[0x45, 0, 0, 20][..], &[0; 16]].concat();
            match Splitter::default().encode(TAG, &packet, 1200) {
                Ok(Datagrams::One(datagram)) => datagram,
                other => panic!("{other:?}"),
            }
        };
        let told = Note::UnknownTag { from, tag: TAG };
        networks.on_datagram(from, &datagram);
        assert_eq!(inlet.try_recv(), Ok(told), "nobody uses the tag");
        networks.open(Local {
            channel: ChannelId(1),
            address: [10, 77, 0, 1].into(),
            address6: std::net::Ipv6Addr::LOCALHOST,
            prefix: 16,
            tag: TAG,
        });
        networks.on_datagram(from, &datagram);
        assert_eq!(inlet.try_recv(), Ok(told), "another uses the tag");
        let network = networks.of_channel(ChannelId(1)).unwrap();
        let addresses = [[10, 77, 0, 2].into(), [10, 77, 0, 3].into()];
        network.attach(from, addresses, 9, 1280);
        networks.on_datagram(from, &datagram);
        assert!(
            inlet.try_recv().is_err(),
            "attached, only the packet is bad"
        );
        assert_eq!(networks.foreign_packets(), 2);
    }
}
