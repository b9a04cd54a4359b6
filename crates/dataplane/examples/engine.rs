//! The engine between two hosts with keys and addresses given by hand: what it costs beside
//! the plain `forwarder`, without daemon or overlay.
//!
//!     engine NAME ADDRESS/PREFIX PORT PEER:PORT PEER-ADDRESS

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use enishi_dataplane::device::{Device, DeviceConfig};
use enishi_dataplane::engine::{Command, Engine, NetworkId, Note, Outside, PeerKey, SessionKeys};
use enishi_dataplane::sealed::{Cipher, DirectionKey, INDEX_MARK};
use enishi_dataplane::table::Network;

struct Alone;

impl Outside for Alone {
    fn note(&mut self, note: Note) {
        eprintln!("{note:?}");
    }

    fn lane_bytes_max(&mut self, _: &PeerKey) -> Option<usize> {
        None
    }

    fn send_by_lane(&mut self, _: &PeerKey, _: &[u8]) {}
}

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, address, port, peer, peer_address] = words.as_slice() else {
        bail!("usage: engine NAME ADDRESS/PREFIX PORT PEER:PORT PEER-ADDRESS");
    };
    let (address, prefix) = address.split_once('/').context("no prefix")?;
    let (address, prefix): (Ipv4Addr, u8) = (address.parse()?, prefix.parse()?);
    let peer_address: IpAddr = peer_address.parse()?;
    let device = Device::new(&DeviceConfig {
        name: name.clone(),
        mtu: 1420,
        ipv4: (address, prefix),
        ipv6: None,
    })?;
    let engine = Engine::start(port.parse()?, Alone)?;
    let network = NetworkId(1);
    engine.inbox().tell(Command::Open {
        network,
        device: Some(device),
        prefixes: vec![Network::new(address.into(), prefix)],
        addresses: vec![address.into()],
    });
    engine.inbox().tell(Command::Attach {
        network,
        peer: [1; 32],
        addresses: vec![peer_address],
        keys: SessionKeys {
            cipher: Cipher::preferred(),
            send: DirectionKey::new([7; 32]),
            receive: DirectionKey::new([7; 32]),
            send_index: INDEX_MARK,
            receive_index: INDEX_MARK,
            peer_has_them: true,
            renew_after: Duration::from_secs(120),
        },
        candidates: vec![peer.parse()?],
    });
    loop {
        std::thread::park();
    }
}
