//! The scenarios, each a story with an end that can be judged.
//!
//! A scenario is one file below with a function `run`, and one line in the list of
//! [`Scenario`]s.

mod attack;
mod bursts;
mod churn;
mod classes;
mod compare;
mod crash;
mod crowd;
mod grow;
mod hops;
mod latency;
mod multicast;
mod options;
mod partition;
mod rider;
mod riders;
mod routes;
mod storage;
mod storm;
mod subject;
mod values;

use std::str::FromStr;

use serde::Serialize;

use crate::participant::Participant;
use crate::plot::Picture;
use crate::statistics::{Results, digest};
use crate::world::World;

pub use compare::COLUMNS as COMPARED;
pub use hops::GROWN_MAX;
pub use options::{Options, Protocol};

/// Makes the enum of scenarios from a list: what it is about, its name in Rust, the module
/// with its `run`, and the options that it heeds beside those of every scenario.
macro_rules! scenarios {
    ($($(#[doc = $doc:literal])+ $variant:ident => $module:ident [$($takes:literal),*];)+) => {
        /// Which story.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Scenario {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Scenario {
            /// Every scenario.
            pub const ALL: [Self; [$(stringify!($module)),+].len()] = [$(Self::$variant),+];

            /// Returns the name on the command line.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($module),)+
                }
            }

            /// Returns the names of the options that the scenario heeds, beside those that
            /// every scenario does: how many nodes, the seed, links, loss, broken pairs. `plot`
            /// is among them if the scenario has a picture.
            pub const fn takes(self) -> &'static [&'static str] {
                match self {
                    $(Self::$variant => &[$($takes),*],)+
                }
            }

            fn tell(self, options: &Options, progress: &mut impl FnMut(u32)) -> Outcome {
                match self {
                    $(Self::$variant => $module::run(options, progress),)+
                }
            }
        }
    };
}

scenarios! {
    /// Nodes join one after the other; then routes from anywhere to anywhere.
    Hops => hops ["routes", "by-rule", "paper", "plot"];
    /// A fifth of the nodes crashes at once while values are stored.
    Crash => crash ["routes"];
    /// All join at almost the same time; a third crashes at once while values are stored.
    Storm => storm ["joins-within", "dead", "values"];
    /// The network splits into halves, which later meet again.
    Partition => partition ["duration", "routes"];
    /// How long lookups take, with none or some of the nodes suddenly dead.
    Latency => latency ["routes", "dead", "protocol", "transport", "upkeep", "without", "plot"];
    /// Nodes come and go all the time, and lookups go on.
    Churn => churn ["session-mean", "session-median", "duration", "polite", "lookup-interval", "protocol", "transport", "upkeep", "without", "plot"];
    /// Nodes come and go all the time, and values have to stay.
    Storage => storage ["session-mean", "session-median", "duration", "polite", "values", "routes", "plot"];
    /// How evenly the upkeep of nodes that started together is spread over time.
    Bursts => bursts ["duration", "plot"];
    /// Who becomes a supernode, and how clients fare.
    Classes => classes ["clients", "duration", "routes", "values", "plot"];
    /// Geometries and ways to forward, and the rival, one after the other.
    Compare => compare ["routes", "plot"];
    /// Some nodes take and do not give: what the others' policies make of it.
    Riders => riders ["duration", "hostile", "lookup-interval", "plot"];
    /// Some nodes turn hostile, and lookups and values have to survive.
    Attack => attack ["routes", "hostile", "behaviour", "values", "plot"];
    /// Members of a group say something to all others: at rest, and while some of them die.
    Multicast => multicast ["group", "tree", "dead", "values", "plot"];
}

impl Scenario {
    /// Runs the story. `progress` hears what share of it is done, in thousandths.
    pub fn run(self, options: &Options, progress: &mut impl FnMut(u32)) -> Report {
        let Outcome { results, picture } = self.tell(options, progress);
        progress(1000);
        Report {
            scenario: self.name(),
            nodes: options.nodes,
            seed: options.seed,
            results,
            picture,
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

/// What a scenario hands back.
#[derive(Debug)]
struct Outcome {
    results: Results,
    picture: Option<Picture>,
}

impl Outcome {
    /// Adds what is told of every world: how many inputs it worked off, and its trace.
    fn new<P: Participant>(world: &World<P>, mut results: Results) -> Self {
        let counters = world.counters();
        results.inputs = counters.inputs;
        results.events = counters.inputs + counters.lost;
        results.trace = digest(&blake3::Hash::from_bytes(world.trace()));
        Self {
            results,
            picture: None,
        }
    }

    /// Adds a picture.
    fn showing(mut self, picture: Picture) -> Self {
        self.picture = Some(picture);
        self
    }
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
    /// A picture of it, if the scenario has one.
    #[serde(skip)]
    pub picture: Option<Picture>,
}
