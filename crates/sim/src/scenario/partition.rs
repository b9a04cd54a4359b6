//! The network splits into halves, which later meet again: the ring becomes one, and of
//! two nodes that took the same address meanwhile one takes another.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use enishi_services::keys::Secret;
use enishi_services::vnet::{self, ChannelSpec, Network};
use enishi_services::{Command, Node};

use super::{Options, Outcome, grow, routes};
use crate::oracle::Census;
use crate::statistics::{Results, mean, percentile, share};
use crate::world::{Index, World};

/// How long the network stays split if nothing else is asked for.
const DURATION: Duration = Duration::from_secs(240);
/// How long the two parts get to become one.
const PATIENCE_S: u64 = 600;
const STEP: Duration = Duration::from_secs(1);
/// Nodes that take part in a channel, half of them joining it in each part, when half of the
/// time is over. They share a network of 126 addresses, so that some take the same.
const MEMBERS: usize = 60;
const NETWORK: &str = "192.168.7.0/25";

pub(super) fn run(options: &Options, progress: &mut impl FnMut(u32)) -> Outcome {
    let world = &mut options.world();
    grow::grow(world, options.nodes, &mut |done| progress(done * 5 / 10));
    let split = options.duration.unwrap_or(DURATION);
    let everyone: Vec<Index> = world.living().map(|(index, _)| index).collect();
    for (number, index) in everyone.iter().enumerate() {
        world.set_part(*index, number as u32 % 2);
    }
    world.run_for(split / 2);
    for index in everyone.iter().take(MEMBERS) {
        world.command(*index, Command::Vnet(open()));
    }
    world.run_for(split - split / 2);
    progress(700);
    let duplicates = held_twice(world);
    for index in &everyone {
        world.set_part(*index, 0);
    }
    let Recovery {
        whole,
        gone,
        resolved,
    } = recover(world);
    progress(850);
    let routes = routes::ask(world, options.routes);
    let results = Results {
        mean_hops: mean(&routes.hops),
        p99_hops: percentile(&routes.hops, 99),
        success: share(routes.succeeded(), routes.asked),
        ring_whole_after_s: whole,
        duplicates: Some(duplicates),
        duplicates_gone_after_s: gone,
        duplicates_resolved_after_s: resolved,
        ..Results::default()
    };
    Outcome::new(world, results)
}

fn open() -> vnet::Command {
    let network = NETWORK.parse::<Network>();
    let network = network.expect("the network above is well-formed");
    let spec = ChannelSpec {
        name: "split".into(),
        network,
        secret: Secret::new([7; 32]),
        entry: vnet::Entry::Secret,
    };
    vnet::Command::Open {
        spec,
        address: None,
    }
}

/// After how many seconds what was right again.
#[derive(Debug, Default)]
struct Recovery {
    /// The ring was whole.
    whole: Option<u64>,
    /// No address was held twice, to the end.
    gone: Option<u64>,
    /// Those who gave an address up had another, too.
    resolved: Option<u64>,
}

/// Waits for the ring and the addresses.
fn recover(world: &mut World) -> Recovery {
    let mut recovery = Recovery::default();
    for second in 1..=PATIENCE_S {
        world.run_for(STEP);
        if recovery.whole.is_none() && Census::take(world).ring_gaps(world) == 0 {
            recovery.whole = Some(second);
        }
        let none_twice = held_twice(world) == 0;
        recovery.gone = none_twice.then(|| recovery.gone.unwrap_or(second));
        if recovery.whole.is_some() && none_twice && everyone_holds(world) {
            recovery.resolved = Some(second);
            break;
        }
    }
    recovery
}

fn addresses(world: &World) -> impl Iterator<Item = Option<Ipv4Addr>> {
    let address = |node: &Node| node.vnet().channels().next().map(|(_, c)| c.address());
    world.living().filter_map(move |(_, node)| address(node))
}

fn everyone_holds(world: &World) -> bool {
    addresses(world).all(|address| address.is_some())
}

fn held_twice(world: &World) -> u64 {
    let mut counts = BTreeMap::new();
    for address in addresses(world).flatten() {
        *counts.entry(address).or_insert(0_u64) += 1;
    }
    counts.values().filter(|count| **count > 1).count() as u64
}
