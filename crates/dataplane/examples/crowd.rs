//! A host with many sessions: what do those that are silent cost the one that is not? The
//! members have numbers; 1 is on the left host, 2 on the right one, and the rest, each with an
//! engine and a port of its own, on a third. Number 1 has a session with each of the others.
//! Keys are fixed, so this protects nothing.
//!
//!     crowd left|right|rest MEMBERS LEFT RIGHT REST
//!
//! with the IPv4 addresses of the three hosts; `cargo xtask bench sessions` measures it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use enishi_dataplane::engine::{Command, Engine, NetworkId, Note, Outside, PeerKey, SessionKeys};
use enishi_dataplane::sealed::{Cipher, DirectionKey, INDEX_MARK};
use enishi_dataplane::{Device, DeviceConfig, Layer, Network};

const MTU: u16 = 1420;
const NETWORK: NetworkId = NetworkId(1);
const PREFIX: u8 = 16;
/// The port of member 0; the others follow.
const PORT: u16 = 20_000;
const MEMBERS_MAX: u16 = 10_000;
const KEYS_LAST: Duration = Duration::from_secs(3600);

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [role, members, hosts @ ..] = words.as_slice() else {
        bail!("usage: crowd left|right|rest MEMBERS LEFT RIGHT REST");
    };
    let members: u16 = members.parse().context("the number of members")?;
    ensure!(
        (2..=MEMBERS_MAX).contains(&members),
        "2 to {MEMBERS_MAX} members"
    );
    let hosts: Vec<Ipv4Addr> = hosts
        .iter()
        .map(|host| host.parse())
        .collect::<Result<_, _>>()?;
    let [left, right, rest] = hosts.as_slice() else {
        bail!("three addresses of hosts");
    };
    let host_of = |member| match member {
        1 => *left,
        2 => *right,
        _ => *rest,
    };
    let running: Vec<Engine> = match role.as_str() {
        "left" => vec![start(1, 2..=members, host_of)?],
        "right" => vec![start(2, 1..=1, host_of)?],
        "rest" => (3..=members)
            .map(|member| start(member, 1..=1, host_of))
            .collect::<Result<_, _>>()?,
        other => bail!("`{other}` is none of left, right, rest"),
    };
    println!("{} engines", running.len());
    loop {
        std::thread::park();
    }
}

/// Starts the engine of a member, with a session with each of `others`.
fn start(
    me: u16,
    others: impl Iterator<Item = u16>,
    host_of: impl Fn(u16) -> Ipv4Addr,
) -> anyhow::Result<Engine> {
    let engine = Engine::start(PORT + me, Alone)?;
    // Those of the rest only keep their sessions.
    let device = match me {
        1 | 2 => Some(Device::new(&DeviceConfig {
            layer: Layer::Ip,
            name: "crowd%d".to_owned(),
            mtu: MTU,
            ipv4: (address(me), PREFIX),
            ipv6: None,
        })?),
        _ => None,
    };
    engine.inbox().tell(Command::Open {
        network: NETWORK,
        device,
        prefixes: vec![Network::new(address(me).into(), PREFIX)],
        addresses: vec![address(me).into()],
    });
    for other in others {
        engine.inbox().tell(Command::Attach {
            network: NETWORK,
            peer: key_of(other),
            addresses: vec![address(other).into()],
            filter: None,
            keys: keys(me, other),
            candidates: vec![SocketAddr::new(IpAddr::V4(host_of(other)), PORT + other)],
        });
    }
    Ok(engine)
}

fn address(member: u16) -> Ipv4Addr {
    let [high, low] = member.to_be_bytes();
    Ipv4Addr::new(10, 88, high, low)
}

fn key_of(member: u16) -> PeerKey {
    let mut key = [0; 32];
    key[..2].copy_from_slice(&member.to_be_bytes());
    key
}

fn keys(me: u16, other: u16) -> SessionKeys {
    let direction = |from: u16, to: u16| {
        let mut key = [7; 32];
        key[..2].copy_from_slice(&from.to_be_bytes());
        key[2..4].copy_from_slice(&to.to_be_bytes());
        DirectionKey::new(key)
    };
    SessionKeys {
        cipher: Cipher::preferred(),
        send: direction(me, other),
        receive: direction(other, me),
        send_index: INDEX_MARK | u32::from(me),
        receive_index: INDEX_MARK | u32::from(other),
        peer_has_them: true,
        renew_after: KEYS_LAST,
    }
}

/// There is no host: no lane, and nobody to agree on other keys with.
struct Alone;

impl Outside for Alone {
    fn note(&mut self, _: Note) {}

    fn lane_bytes_max(&mut self, _: &PeerKey) -> Option<usize> {
        None
    }

    fn send_by_lane(&mut self, _: &PeerKey, _: &[Bytes]) {}
}
