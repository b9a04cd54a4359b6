//! The worlds and channels that tests begin with.

#![allow(dead_code, reason = "every file of tests needs a part of it")]

use std::time::Duration;

use enishi_services::keys::Secret;
use enishi_services::vnet::{ChannelSpec, Entry};
use enishi_sim::internet::Model;
use enishi_sim::world::{Setup, World};

/// A seed with the model and the links that nodes have if nobody says otherwise.
pub(crate) fn setup(seed: u64) -> Setup {
    Setup {
        seed,
        model: Model::default(),
        long_links: None,
    }
}

/// Nodes that came one after the other through the first, and had so long to settle.
pub(crate) fn grown(setup: Setup, nodes: usize, settled_s: u64) -> World {
    let mut world = World::new(setup);
    for born in 0..nodes {
        world.spawn((born > 0).then_some(0));
        world.run_for(Duration::from_millis(100));
    }
    world.run_for(Duration::from_secs(settled_s));
    world
}

/// A channel called `office` that rests on the secret of all ones.
pub(crate) fn office(network: &str) -> ChannelSpec {
    ChannelSpec {
        name: "office".into(),
        network: network.parse().expect("a network"),
        secret: Secret::new([1; 32]),
        entry: Entry::Secret,
    }
}
