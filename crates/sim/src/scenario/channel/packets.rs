//! Members send packets to all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use enishi_overlay::Time;
use enishi_services::vnet::{self, Event as VnetEvent};
use enishi_services::{Command, Event};

use super::{address, channel};
use crate::statistics::{mean, millis, percentile, ratio};
use crate::world::{Index, World};

/// How many packets are sent, each by another member.
const AUTHORS: usize = 8;
/// Between two of them.
const APART: Duration = Duration::from_secs(1);
/// How long the last one is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Octets of the headers of IPv4 and UDP, without options.
const HEADERS: usize = 28;

/// What came of packets to all.
#[derive(Debug, Default)]
pub(super) struct Packets {
    sent: u64,
    /// How many members were to get them, and how many did.
    expected: u64,
    heard: u64,
    /// How often anybody got one again.
    twice: u64,
    /// After how long, in microseconds.
    micros: Vec<u64>,
}

impl Packets {
    /// Has drawn members send a packet each.
    pub(super) fn send(world: &mut World, among: &[Index]) -> Self {
        world.take_events();
        let mut sent: BTreeMap<u64, (Index, Time)> = BTreeMap::new();
        let mut left: Vec<Index> = among.to_vec();
        for number in 0..AUTHORS.min(among.len()) as u64 {
            let drawn = world.rng().below(left.len() as u64) as usize;
            let author = left.swap_remove(drawn);
            if let Some((channel, _)) = channel(world, author)
                && let Some(source) = address(world, author)
            {
                sent.insert(number, (author, world.now()));
                let packet = packet(source, number);
                let broadcast = vnet::Command::Broadcast { channel, packet };
                world.command(author, Command::Vnet(broadcast));
            }
            world.run_for(APART);
        }
        world.run_for(PATIENCE);
        let mut packets = Self {
            sent: sent.len() as u64,
            expected: (sent.len() * (among.len() - 1)) as u64,
            ..Self::default()
        };
        packets.judge(world, &sent);
        packets
    }

    fn judge(&mut self, world: &mut World, sent: &BTreeMap<u64, (Index, Time)>) {
        let mut seen = BTreeSet::new();
        for (at, index, event) in world.take_events() {
            let Event::Vnet(VnetEvent::Broadcast { packet, .. }) = event else {
                continue;
            };
            let number = packet.get(HEADERS..).and_then(|body| body.first_chunk());
            let number = number.map(|octets| u64::from_le_bytes(*octets));
            let Some((number, (_, since))) = number.and_then(|n| Some((n, sent.get(&n)?))) else {
                continue;
            };
            if seen.insert((number, index)) {
                self.heard += 1;
                self.micros.push(at.since(*since).as_micros() as u64);
            } else {
                self.twice += 1;
            }
        }
    }

    pub(super) fn row(&self) -> BTreeMap<&'static str, f64> {
        let found = [
            ("sent", Some(self.sent as f64)),
            ("heard", ratio(self.heard, self.expected)),
            ("heard_twice", Some(self.twice as f64)),
            ("mean_ms", mean(&self.micros).map(|mean| mean / 1000.0)),
            ("p99_ms", percentile(&self.micros, 99).map(millis)),
        ];
        let told = found.into_iter();
        told.filter_map(|(name, figure)| Some((name, figure?)))
            .collect()
    }
}

/// A UDP packet to everybody, with a number in it. Nobody looks at its checksums.
fn packet(source: Ipv4Addr, number: u64) -> Bytes {
    let body = number.to_le_bytes();
    let length = (HEADERS + body.len()) as u8;
    let mut packet = vec![0x45, 0, 0, length, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(source.octets());
    packet.extend(Ipv4Addr::BROADCAST.octets());
    packet.extend([0, 9, 0, 9, 0, length - 20, 0, 0]);
    packet.extend(body);
    packet.into()
}
