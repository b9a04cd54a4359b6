//! Members open the way to others whose addresses they have been told.
//!
//! As when a program sends a packet: the node looks the address up in the DHT, says that it wants
//! to exchange packets to the node whose claim it finds there, which looks up the asker's address
//! in its turn, and both agree on keys.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use enishi_overlay::{NodeId, Time};
use enishi_services::vnet::{self, Event as VnetEvent};
use enishi_services::{Command, Event};

use super::{address, channel};
use crate::statistics::{mean, millis, percentile, ratio};
use crate::world::{Index, World};

/// In how much time all are asked.
const SPREAD: Duration = Duration::from_secs(60);
/// How long the last answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a pair is drawn that has not been asked for.
const DRAWS_MAX: usize = 16;

/// What came of lookups.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    asked: u64,
    /// After how long the way to the right member was open, in microseconds.
    pub(super) micros: Vec<u64>,
}

/// What is asked, by whom, and who is to be found since when.
type Open = BTreeMap<(Index, IpAddr), (NodeId, Time)>;

/// Has drawn members look up the addresses of drawn others, `count` in all.
pub(super) fn ask(world: &mut World, among: &[Index], count: u64) -> Lookups {
    world.take_events();
    let mut open = Open::new();
    let mut pairs = BTreeSet::new();
    let apart = SPREAD / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    for _ in 0..count {
        if let Some((asker, other)) = draw(world, among, &mut pairs)
            && let Some((id, _)) = channel(world, asker)
            && let Some(address) = address(world, other)
        {
            let (channel, address) = (id, IpAddr::V4(address));
            open.insert((asker, address), (world.id(other), world.now()));
            let resolve = vnet::Command::Resolve { channel, address };
            world.command(asker, Command::Vnet(resolve));
        }
        world.run_for(apart);
    }
    world.run_for(PATIENCE);
    judge(world, open)
}

/// Draws two members, if it can be two that were not drawn before.
fn draw(
    world: &mut World,
    among: &[Index],
    pairs: &mut BTreeSet<(Index, Index)>,
) -> Option<(Index, Index)> {
    let mut draws = (0..DRAWS_MAX).map(|_| {
        let mut one = || among[world.rng().below(among.len() as u64) as usize];
        (one(), one())
    });
    draws.find(|(asker, other)| asker != other && pairs.insert((*asker, *other)))
}

fn judge(world: &mut World, mut open: Open) -> Lookups {
    let mut lookups = Lookups {
        asked: open.len() as u64,
        micros: Vec::new(),
    };
    for (at, index, event) in world.take_events() {
        let Event::Vnet(VnetEvent::Attached {
            peer, addresses, ..
        }) = event
        else {
            continue;
        };
        for address in addresses {
            let asked = open.get(&(index, address)).copied();
            if let Some((wanted, since)) = asked.filter(|(_, since)| at >= *since) {
                open.remove(&(index, address));
                let micros = at.since(since).as_micros() as u64;
                lookups.micros.extend((peer == wanted).then_some(micros));
            }
        }
    }
    lookups
}

impl Lookups {
    pub(super) fn row(&self) -> BTreeMap<&'static str, f64> {
        let times = &self.micros;
        let found = [
            ("asked", Some(self.asked as f64)),
            ("success", ratio(times.len() as u64, self.asked)),
            ("mean_ms", mean(times).map(|mean| mean / 1000.0)),
            ("p50_ms", percentile(times, 50).map(millis)),
            ("p99_ms", percentile(times, 99).map(millis)),
        ];
        let told = found.into_iter();
        told.filter_map(|(name, figure)| Some((name, figure?)))
            .collect()
    }
}
