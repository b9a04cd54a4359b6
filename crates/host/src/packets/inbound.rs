//! From the peers to the device.

use std::sync::Arc;
use std::time::Instant;

use enishi_dataplane::lane::Content;
use enishi_dataplane::{Frame, IpPacket};
use enishi_overlay::NodeId;

use super::network::{Network, lock};
use super::read;

/// Why a packet is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The peer is not attached, or no longer: it may think that it is.
    NotAttached,
    /// It is no packet, comes from an address that is not the peer's, or goes to one that
    /// is not this host's.
    Foreign,
}

impl Network {
    /// Takes what a peer sent with this network's tag.
    ///
    /// # Errors
    /// [`Refused`] says why it is not taken.
    pub(super) fn receive(&self, from: NodeId, frame: Frame) -> Result<(), Refused> {
        let member = read(&self.tables).members.get(&from).map(Arc::clone);
        let member = member.ok_or(Refused::NotAttached)?;
        match frame.content {
            Content::Whole(packet) => self.admit(from, &packet),
            Content::Part { id, half, bytes } => {
                let place = (frame.tag, id);
                let whole = lock(&member.reassembly).insert(Instant::now(), place, half, &bytes);
                whole.map_or(Ok(()), |packet| self.admit(from, &packet))
            }
        }
    }

    fn admit(&self, from: NodeId, bytes: &[u8]) -> Result<(), Refused> {
        let packet = IpPacket::parse(bytes).map_err(|_| Refused::Foreign)?;
        let allowed = read(&self.tables)
            .addresses
            .may_send(&from, packet.source());
        if !allowed || !self.local.addresses().contains(&packet.destination()) {
            return Err(Refused::Foreign);
        }
        self.deliver(packet.bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use enishi_services::vnet::ChannelId;
    use tokio::sync::mpsc;

    use super::super::network::Local;
    use super::*;

    fn packet(source: [u8; 4], destination: [u8; 4]) -> Bytes {
        let mut octets = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0];
        octets.extend(source);
        octets.extend(destination);
        octets.into()
    }

    #[test]
    fn only_members_send_and_only_from_their_addresses() {
        let local = Local {
            channel: ChannelId(1),
            address: [10, 77, 0, 1].into(),
            address6: "fd00::1".parse().unwrap(),
            prefix: 16,
            tag: 5,
        };
        let (notes, _notes) = mpsc::channel(1);
        let network = Network::open(local, None, notes);
        let [member, stranger] = [1, 2].map(|octet| NodeId::from_bytes([octet; 32]));
        let there = [10, 77, 0, 2];
        let addresses = [there.into(), "fd00::2".parse().unwrap()];
        network.attach(member, addresses, 9, 1280);
        let receive = |from, source, destination| {
            let content = Content::Whole(packet(source, destination));
            network.receive(from, Frame { tag: 5, content })
        };
        assert_eq!(receive(member, there, [10, 77, 0, 1]), Ok(()));
        assert_eq!(
            receive(stranger, there, [10, 77, 0, 1]),
            Err(Refused::NotAttached)
        );
        assert_eq!(
            receive(member, [10, 77, 0, 3], [10, 77, 0, 1]),
            Err(Refused::Foreign)
        );
        assert_eq!(
            receive(member, there, [10, 77, 0, 9]),
            Err(Refused::Foreign)
        );
        network.detach(member);
        assert_eq!(
            receive(member, there, [10, 77, 0, 1]),
            Err(Refused::NotAttached)
        );
    }
}
