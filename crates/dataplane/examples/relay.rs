//! What `cargo xtask bench relay` measures: two ends with the engine and a device each, and between them
//! the engine as a relay, or the simplest forwarder of datagrams that takes and sends as many at once.
//! Keys are fixed: it protects nothing.
//!
//!     relay end NUMBER PORT HOST:PORT           # straight to what forwards there
//!     relay end NUMBER PORT HOST:PORT relayed   # by the relay there
//!     relay engine PORT
//!     relay plain PORT LEFT:PORT RIGHT:PORT

use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use enishi_dataplane::engine::{
    ByRelay, Command, Engine, NetworkId, Note, Outside, PeerKey, RelayTerms, SessionKeys,
};
use enishi_dataplane::relay::{RelayKey, Token};
use enishi_dataplane::sealed::{Cipher, DirectionKey, INDEX_MARK};
use enishi_dataplane::socket::Socket;
use enishi_dataplane::{Device, DeviceConfig, Layer, Network};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const NETWORK: NetworkId = NetworkId(1);
const TOKEN: Token = Token(0x6265_6e63_685f_3031);
/// Longer than anything is measured.
const LASTS: Duration = Duration::from_secs(24 * 60 * 60);
/// More than any machine forwards, in octets a second.
const WITHOUT_LIMIT: u64 = 1 << 40;
/// As many as the engine takes at once.
const BUFFERS: usize = 4;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["end", number, port, there] => end(number.parse()?, port.parse()?, there.parse()?, false),
        ["end", number, port, there, "relayed"] => {
            end(number.parse()?, port.parse()?, there.parse()?, true)
        }
        ["engine", port] => relay(port.parse()?),
        ["plain", port, left, right] => plain(port.parse()?, [left.parse()?, right.parse()?]),
        _ => bail!("usage: see the source"),
    }
}

/// A host without sessions.
struct Alone;

impl Outside for Alone {
    fn note(&mut self, _: Note) {}

    fn lane_bytes_max(&mut self, _: &PeerKey) -> Option<usize> {
        None
    }

    fn send_by_lane(&mut self, _: &PeerKey, _: &[Bytes]) {}
}

fn relay_key(number: u8) -> RelayKey {
    RelayKey::new([number ^ 0x50; 32])
}

fn relay(port: u16) -> anyhow::Result<()> {
    let engine = Engine::start(port, Alone)?;
    engine.inbox().tell(Command::RelayTerms(RelayTerms {
        pairs_max: 1,
        bytes_per_s_each: WITHOUT_LIMIT,
        bytes_per_s_all: WITHOUT_LIMIT,
    }));
    engine.inbox().tell(Command::Relay {
        token: TOKEN,
        keys: [1, 2].map(relay_key),
        lasts: LASTS,
    });
    loop {
        std::thread::park();
    }
}

fn end(number: u8, port: u16, there: SocketAddr, by_relay: bool) -> anyhow::Result<()> {
    let other = 3 - number;
    let address = |number| Ipv4Addr::new(10, 88, 0, number);
    let device = Device::new(&DeviceConfig {
        layer: Layer::Ip,
        name: "relayed%d".to_owned(),
        mtu: 1420,
        ipv4: (address(number), 24),
        ipv6: None,
    })?;
    let engine = Engine::start(port, Alone)?;
    let inbox = engine.inbox();
    inbox.tell(Command::Open {
        network: NETWORK,
        device: Some(device),
        prefixes: vec![Network::new(IpAddr::V4(address(number)), 24)],
        addresses: vec![address(number).into()],
    });
    let index = |number: u8| INDEX_MARK | u32::from(number);
    inbox.tell(Command::Attach {
        network: NETWORK,
        peer: [other; 32],
        addresses: vec![address(other).into()],
        filter: None,
        keys: SessionKeys {
            cipher: Cipher::preferred(),
            send: DirectionKey::new([number; 32]),
            receive: DirectionKey::new([other; 32]),
            send_index: index(other),
            receive_index: index(number),
            peer_has_them: true,
            renew_after: LASTS,
        },
        candidates: if by_relay { Vec::new() } else { vec![there] },
    });
    if by_relay {
        inbox.tell(Command::ByRelay(ByRelay {
            peer: [other; 32],
            by: [9; 32],
            at: there,
            token: TOKEN,
            key: relay_key(number),
            lasts: LASTS,
        }));
    }
    loop {
        std::thread::park();
    }
}

/// Forwards what comes from one to the other one: a whole batch with one call, and no questions asked.
fn plain(port: u16, ends: [SocketAddr; 2]) -> anyhow::Result<()> {
    let socket = Socket::bind(port)?;
    let mut received = vec![vec![0; 1 << 16]; BUFFERS];
    loop {
        poll(
            &mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)],
            PollTimeout::NONE,
        )
        .context("waiting")?;
        let mut buffers: Vec<_> = received
            .iter_mut()
            .map(|buffer| IoSliceMut::new(buffer))
            .collect();
        let mut batches = [None; BUFFERS];
        if socket.receive(&mut buffers, &mut batches).is_err() {
            continue;
        }
        for (buffer, batch) in received.iter().zip(batches) {
            let Some(batch) = batch else { continue };
            let to = match ends.iter().position(|end| *end == batch.from) {
                Some(place) => ends[1 - place],
                None => continue,
            };
            // What the system does not take is lost.
            let _ = socket.send((to, batch.ecn), &buffer[..batch.bytes], batch.stride);
        }
    }
}
