//! One virtual network on this host: its device, its table, what waits.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use enishi_dataplane::{
    AddressTable, ErrorBudget, IpPacket, Pending, Reason, Reassembly, Route, Splitter, Tun,
    TunConfig, error_for, table,
};
use enishi_overlay::NodeId;
use enishi_services::vnet::{self, ChannelId, MTU};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::outbound::{self, Otherwise};
use super::{Note, read, write};
use crate::session::{DatagramLane, Sessions};

/// How many ICMP errors may be sent at once, and a second in the long run.
const ERRORS_BURST: u32 = 50;
const ERRORS_PER_SECOND: u32 = 20;

/// What devices are called; the kernel puts a number.
const DEVICE_NAME: &str = "enishi%d";

/// What this host is in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Local {
    pub(super) channel: ChannelId,
    pub(super) address: Ipv4Addr,
    pub(super) address6: Ipv6Addr,
    pub(super) prefix: u8,
    /// With what peers mark packets for this host.
    pub(super) tag: u32,
}

impl Local {
    pub(super) fn addresses(&self) -> [IpAddr; 2] {
        [self.address.into(), self.address6.into()]
    }
}

/// A member with which packets are exchanged.
pub(super) struct Member {
    /// How to mark packets for it.
    pub(super) tag: u32,
    pub(super) splitter: Mutex<Splitter>,
    pub(super) reassembly: Mutex<Reassembly>,
    /// Its session's lane, as long as that session is open.
    pub(super) lane: Mutex<Option<DatagramLane>>,
}

/// The tables that the control fills.
pub(super) struct Tables {
    pub(super) addresses: AddressTable<NodeId>,
    pub(super) members: HashMap<NodeId, Arc<Member>>,
}

/// The device, and with what its packets go out.
pub(super) struct Device {
    pub(super) tun: Tun,
    pub(super) sessions: Sessions,
    /// The ports of the sessions' sockets.
    pub(super) ports: Vec<u16>,
}

/// One virtual network.
pub(super) struct Network {
    pub(super) local: Local,
    pub(super) tables: RwLock<Tables>,
    pub(super) device: Option<Device>,
    pub(super) pending: Mutex<Pending>,
    pub(super) notes: mpsc::Sender<Note>,
    /// Why there is no device, or no more.
    notice: OnceLock<String>,
    errors: Mutex<ErrorBudget>,
    closed: CancellationToken,
}

impl Network {
    /// Opens a network; without `sessions` it has no device.
    pub(super) fn open(
        local: Local,
        sessions: Option<Sessions>,
        notes: mpsc::Sender<Note>,
    ) -> Arc<Self> {
        let (device, notice) = match sessions.map(|sessions| make_device(&local, sessions)) {
            None => (None, None),
            Some(Ok(device)) => (Some(device), None),
            Some(Err(notice)) => (None, Some(notice)),
        };
        let mut addresses = AddressTable::new([
            table::Network::new(local.address.into(), local.prefix),
            table::Network::new(local.address6.into(), vnet::Network::PREFIX6),
        ]);
        for address in local.addresses() {
            // Two are within the table's limit.
            let _ = addresses.add_local(address);
        }
        let members = HashMap::new();
        let network = Arc::new(Self {
            local,
            tables: RwLock::new(Tables { addresses, members }),
            device,
            pending: Mutex::default(),
            notes,
            notice: notice.map_or_else(OnceLock::new, OnceLock::from),
            errors: Mutex::new(ErrorBudget::new(ERRORS_BURST, ERRORS_PER_SECOND)),
            closed: CancellationToken::new(),
        });
        if network.device.is_some() {
            let (reader, closed) = (Arc::clone(&network), network.closed.clone());
            tokio::spawn(closed.run_until_cancelled_owned(outbound::read_device(reader)));
        }
        network
    }

    pub(super) fn is_for(&self, local: &Local) -> bool {
        self.local == *local
    }

    pub(super) fn interface(&self) -> (Option<String>, Option<String>) {
        let notice = self.notice.get().cloned();
        let device = self.device.as_ref().filter(|_| notice.is_none());
        (device.map(|device| device.tun.name().to_owned()), notice)
    }

    /// The device was removed from outside; the channel goes on without one.
    pub(super) fn lost_device(&self, device: &Device) {
        let name = device.tun.name();
        let notice = format!(
            "no network device: {name} was removed by another program; leave the channel and \
             join it again, or restart the daemon, to have a new one"
        );
        tracing::warn!("{notice}");
        // Told once: the reader ends with it.
        let _ = self.notice.set(notice);
    }

    pub(super) fn is_attached(&self, peer: NodeId) -> bool {
        read(&self.tables).members.contains_key(&peer)
    }

    /// Packets may be exchanged with a member from now on.
    pub(super) fn attach(&self, peer: NodeId, addresses: [IpAddr; 2], tag: u32, mtu: u16) {
        {
            let mut tables = write(&self.tables);
            let same = tables
                .members
                .get(&peer)
                .is_some_and(|member| member.tag == tag);
            if !same {
                let member = Member {
                    tag,
                    splitter: Mutex::default(),
                    reassembly: Mutex::default(),
                    lane: Mutex::new(None),
                };
                tables.members.insert(peer, Arc::new(member));
            }
            tables.addresses.forget_peer(&peer);
            for address in addresses {
                let route = Route {
                    peer,
                    path_mtu: mtu,
                };
                let set = tables.addresses.set_route(address, route);
                if set
                    .and_then(|()| tables.addresses.allow_source(peer, address))
                    .is_err()
                {
                    tracing::warn!("the address table of a channel is full");
                }
            }
        }
        for address in addresses {
            let waiting = lock(&self.pending).take(address);
            for packet in waiting {
                outbound::forward(self, &packet, Otherwise::Refuse);
            }
        }
    }

    pub(super) fn detach(&self, peer: NodeId) {
        let mut tables = write(&self.tables);
        tables.members.remove(&peer);
        tables.addresses.forget_peer(&peer);
    }

    /// Nobody has the address: tells those whose packets wait.
    pub(super) fn give_up(&self, address: IpAddr) {
        let waiting = lock(&self.pending).take(address);
        waiting
            .iter()
            .for_each(|packet| self.refuse(packet, Reason::HostUnreachable));
    }

    /// Tells the sender on this host why its packet is not delivered.
    pub(super) fn refuse(&self, packet: &[u8], reason: Reason) {
        let Some(device) = &self.device else { return };
        let Ok(packet) = IpPacket::parse(packet) else {
            return;
        };
        let Some(error) = error_for(&packet, reason, None) else {
            return;
        };
        if lock(&self.errors).take(Instant::now()) {
            self.write_to(device, &error);
        }
    }

    /// Hands a packet to the kernel; one that it does not take is lost.
    pub(super) fn deliver(&self, packet: &[u8]) {
        if let Some(device) = &self.device {
            self.write_to(device, packet);
        }
    }

    /// Removes the device once nobody uses it any more.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    fn write_to(&self, device: &Device, packet: &[u8]) {
        if let Err(error) = device.tun.try_send(packet) {
            tracing::trace!(%error, "the device did not take a packet");
        }
    }
}

fn make_device(local: &Local, sessions: Sessions) -> Result<Device, String> {
    let config = TunConfig {
        name: DEVICE_NAME.to_owned(),
        mtu: MTU,
        ipv4: (local.address, local.prefix),
        ipv6: Some((local.address6, vnet::Network::PREFIX6)),
    };
    match Tun::new(&config) {
        Ok(tun) => {
            tracing::info!(device = tun.name(), "network device made");
            if let Some(error) = tun.ipv6_failure() {
                tracing::warn!(%error, "the network device has no IPv6 address");
            }
            let listening = sessions.listening();
            let ports = listening.iter().map(std::net::SocketAddr::port).collect();
            Ok(Device {
                tun,
                sessions,
                ports,
            })
        }
        Err(error) => {
            tracing::warn!("the channel has no network device: {error}");
            Err(format!("no network device: {error}"))
        }
    }
}

/// A panic elsewhere does not make what is guarded useless.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
