//! The queue of the engine as smoltcp sees it: a device for IP packets.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use enishi_dataplane::device::Port;
use enishi_dataplane::packet::protocol;
use smoltcp::phy::{
    Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, SegmentationCapabilities,
    TxToken,
};
use smoltcp::time::Instant;

/// The longest super-packet that is sent: sealed in packets for an ordinary path it still fits
/// one batch of the engine's socket.
const SUPER_PACKET_BYTES: NonZeroUsize = NonZeroUsize::new(60_000).unwrap();

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
        Some((Received(packet), Sending::by(self.port)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        let port = self.port.filter(|port| port.room() > 0)?;
        Some(Sending::by(Some(port)))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu.into();
        // TCP comes without: the seal of the datagrams protects more than it would.
        capabilities.checksum.tcp = Checksum::None;
        let mut segmentation = SegmentationCapabilities::default();
        segmentation.tcpv4 = Some(SUPER_PACKET_BYTES);
        segmentation.tcpv6 = Some(SUPER_PACKET_BYTES);
        capabilities.segmentation = segmentation;
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
pub(super) struct Sending<'p> {
    port: Option<&'p Port>,
    /// Octets of payload in each segment, of a super-packet.
    segment_bytes: Option<u16>,
}

impl<'p> Sending<'p> {
    fn by(port: Option<&'p Port>) -> Self {
        Self {
            port,
            segment_bytes: None,
        }
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut packet = vec![0; length];
        let result = fill(&mut packet);
        // A packet that finds no room is lost, as in any network.
        let _ = match self.port {
            Some(port) if is_tcp(&packet) => port.send_tcp(packet, self.segment_bytes),
            Some(port) => port.send(packet),
            None => false,
        };
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment_bytes = meta.segmentation_offload_size.map(u16::from);
    }
}

/// Tells whether smoltcp made a segment of TCP, which it does without extension headers.
fn is_tcp(packet: &[u8]) -> bool {
    let next = match packet.first().map(|first| first >> 4) {
        Some(4) => packet.get(9),
        Some(6) => packet.get(6),
        _ => None,
    };
    next == Some(&protocol::TCP)
}
