//! The queue of the engine as smoltcp sees it: a device for IP packets.

use std::collections::VecDeque;

use enishi_dataplane::device::Port;
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// A device for one poll: what was received before it, and where to send.
pub(super) struct Link<'p> {
    /// None before there is one: nothing can be sent then.
    pub(super) port: Option<&'p Port>,
    pub(super) received: VecDeque<Vec<u8>>,
    pub(super) mtu: u16,
}

impl Device for Link<'_> {
    type RxToken<'t>
        = Received
    where
        Self: 't;
    type TxToken<'t>
        = Sending<'t>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Received(packet), Sending(self.port)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        let port = self.port.filter(|port| port.room() > 0)?;
        Some(Sending(Some(port)))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu.into();
        // Nothing changes on the way, but whoever sent it may have made it wrong.
        capabilities.checksum = ChecksumCapabilities::default();
        capabilities
    }
}

/// A packet that was received.
pub(super) struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

/// The right to send a packet.
pub(super) struct Sending<'p>(Option<&'p Port>);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut packet = vec![0; length];
        let result = fill(&mut packet);
        if let Some(port) = self.0 {
            // A packet that finds no room is lost, as in any network.
            port.send(packet);
        }
        result
    }
}
