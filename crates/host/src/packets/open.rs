//! The networks that are open: what carries the packets of each on this host.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};

use enishi_dataplane::device::{self, Device, DeviceConfig, Layer};
use enishi_services::vnet::{self, ChannelId, MTU};

use super::lock;
use super::system::SystemRoutes;
use crate::userspace::Stack;

/// What devices are called; the kernel puts a number.
const DEVICE_NAME: &str = "enishi%d";

/// The networks that are open, and with whom packets are exchanged.
#[derive(Default)]
pub(super) struct Open {
    networks: Mutex<BTreeMap<ChannelId, Network>>,
}

/// A network that is open.
pub(super) struct Network {
    pub(super) addresses: [IpAddr; 2],
    pub(super) device: Option<String>,
    /// The user-space network that is there instead.
    pub(super) stack: Option<Stack>,
    /// Why there is no device, or no more.
    pub(super) notice: Option<String>,
    /// What the system routes; nothing without a device.
    pub(super) system: Option<SystemRoutes>,
}

impl Network {
    /// Ends what is in user space; the engine ends the rest.
    pub(super) fn end(self) {
        if let Some(stack) = self.stack {
            stack.close();
        }
    }
}

impl Open {
    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<ChannelId, Network>> {
        lock(&self.networks)
    }

    /// Tells whether an address is this host's in any of them.
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        self.lock()
            .values()
            .any(|network| network.addresses.contains(&address))
    }

    /// The device was removed from outside; the channel goes on without one.
    pub(super) fn lost_device(&self, channel: ChannelId, device: &str) {
        let notice = format!(
            "no network device: {device} was removed by another program; leave the channel and \
             join it again, or restart the daemon, to have a new one"
        );
        tracing::warn!("{notice}");
        if let Some(network) = self.lock().get_mut(&channel)
            && network.device.as_deref() == Some(device)
        {
            network.device = None;
            network.notice = Some(notice);
        }
    }
}

pub(super) fn make_device(
    layer: Layer,
    addresses: [IpAddr; 2],
    prefix: u8,
) -> Result<Device, String> {
    let [IpAddr::V4(address), IpAddr::V6(address6)] = addresses else {
        return Err("no network device: the channel has no address".to_owned());
    };
    let config = DeviceConfig {
        layer,
        name: DEVICE_NAME.to_owned(),
        mtu: MTU,
        ipv4: (address, prefix),
        ipv6: Some((address6, vnet::Network::PREFIX6)),
    };
    match Device::new(&config) {
        Ok(device) => {
            tracing::info!(device = device.name(), "network device made");
            if let Some(error) = device.ipv6_failure() {
                tracing::warn!(%error, "the network device has no IPv6 address");
            }
            Ok(device)
        }
        Err(error) => {
            tracing::warn!("the channel has no network device: {error}");
            Err(format!("no network device: {error}"))
        }
    }
}

/// Makes a user-space network, and the device by which the engine carries its packets.
pub(super) fn make_stack(addresses: [IpAddr; 2], prefix: u8) -> std::io::Result<(Device, Stack)> {
    let [address, address6] = addresses;
    let (queue, port) = device::queue_with_super_packets(MTU)?;
    let prefixes = [(address, prefix), (address6, vnet::Network::PREFIX6)];
    Ok((queue, Stack::start(port, prefixes, MTU)?))
}
