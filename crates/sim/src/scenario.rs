//! The scenarios, each a story with an end that can be judged.

mod crash;
mod grow;
mod hops;
mod partition;
mod routes;
mod values;

use std::str::FromStr;

use serde::Serialize;

use crate::internet::Model;
use crate::statistics::Results;
use crate::world::{Setup, World};

/// Which story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Nodes join one after the other; then routes from anywhere to anywhere.
    Hops,
    /// A fifth of the nodes crashes at once while values are stored.
    Crash,
    /// The network splits into halves, which later meet again.
    Partition,
}

impl Scenario {
    /// Every scenario.
    pub const ALL: [Self; 3] = [Self::Hops, Self::Crash, Self::Partition];

    /// Returns the name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hops => "hops",
            Self::Crash => "crash",
            Self::Partition => "partition",
        }
    }

    /// Runs the story. `progress` hears what share of it is done, in thousandths.
    pub fn run(self, options: &Options, progress: &mut impl FnMut(u32)) -> Report {
        let setup = Setup {
            seed: options.seed,
            model: Model::default(),
            long_links: options.long_links,
        };
        let mut world = World::new(setup);
        let mut results = match self {
            Self::Hops => hops::run(&mut world, options, progress),
            Self::Crash => crash::run(&mut world, options, progress),
            Self::Partition => partition::run(&mut world, options, progress),
        };
        let counters = world.counters();
        results.inputs = counters.inputs;
        results.events = counters.inputs + counters.lost;
        results.trace = world.trace()[..8]
            .iter()
            .map(|octet| format!("{octet:02x}"))
            .collect();
        Report {
            scenario: self.name(),
            nodes: options.nodes,
            seed: options.seed,
            results,
        }
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names: Vec<&str> = Self::ALL.iter().map(|scenario| scenario.name()).collect();
        let found = Self::ALL
            .into_iter()
            .find(|scenario| scenario.name() == text);
        found.ok_or_else(|| {
            format!(
                "there is no scenario {text:?}; there are {}",
                names.join(", ")
            )
        })
    }
}

/// How a scenario is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes, at least 2.
    pub nodes: usize,
    /// The source of everything random.
    pub seed: u64,
    /// Long links per node; none lets each node decide.
    pub long_links: Option<u32>,
    /// How many routes are asked for and judged.
    pub routes: u64,
}

/// What came of a scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Which.
    pub scenario: &'static str,
    /// With how many nodes.
    pub nodes: usize,
    /// From which seed.
    pub seed: u64,
    /// What was found.
    pub results: Results,
}
