//! How a scenario is run.

use std::str::FromStr;
use std::time::Duration;

use enishi_overlay::config::Remedies;
use enishi_overlay::{Config, OverlayId};
use enishi_services::calls::Tree;

use crate::hostile::Behaviour;
use crate::internet::{Internet, Model, Transport};
use crate::rival::{Kademlia, kademlia};
use crate::world::World;

/// Nodes in a bucket of the rival, as in IPFS.
const RIVAL_BUCKET: usize = 20;

/// Whose nodes are to be measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The daemon's own.
    #[default]
    Enishi,
    /// The rival with k = 20 and alpha = 3.
    Kademlia,
}

impl Protocol {
    /// Returns what it is made for.
    const fn transport(self) -> Transport {
        match self {
            Self::Enishi => Transport::Sessions,
            Self::Kademlia => Transport::Datagrams,
        }
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "enishi" => Ok(Self::Enishi),
            "kademlia" => Ok(Self::Kademlia),
            _ => Err("there are enishi and kademlia".to_owned()),
        }
    }
}

/// How a scenario is run. What a scenario does not heed ([`takes`]) is without effect.
///
/// [`takes`]: crate::Scenario::takes
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes, at least 2.
    pub nodes: usize,
    /// The source of everything random.
    pub seed: u64,
    /// Long links per node; none lets each node decide.
    pub long_links: Option<u32>,
    /// How the network behaves; what carries the messages is [`Self::transport`]'s matter.
    pub model: Model,
    /// Whose nodes.
    pub protocol: Protocol,
    /// What carries the messages; none for what the protocol is made for.
    pub transport: Option<Transport>,
    /// What a rival's node spends on its table, in octets per second; none for its default.
    pub upkeep_bytes_per_second: Option<u32>,
    /// How many routes, lookups or gets are asked for and judged.
    pub routes: u64,
    /// How long the measured part lasts, or the split; none lets the scenario decide.
    pub duration: Option<Duration>,
    /// How long a node stays on average.
    pub session_mean: Duration,
    /// How many of a million leave politely; the others crash.
    pub polite_per_million: u32,
    /// After how long each node asks for something, on average.
    pub lookup_interval: Duration,
    /// How many of a million die at once before lookups begin.
    pub dead_per_million: u32,
    /// In how much time all nodes begin to join.
    pub joins_within: Duration,
    /// How many of a million are hostile; none lets the scenario go through several shares.
    pub hostile_per_million: Option<u32>,
    /// How the hostile ones behave; none draws it for each.
    pub behaviour: Option<Behaviour>,
    /// What our nodes do for messages that may be lost.
    pub remedies: Remedies,
    /// How many of a million are clients.
    pub clients_per_million: u32,
    /// How many members a multicast group has.
    pub group: usize,
    /// Along what its messages go.
    pub tree: Tree,
    /// How many values are stored, or messages published; none lets the scenario decide.
    pub values: Option<u64>,
    /// Whether tables are filled by the protocol's own rule from above, without a message.
    pub by_rule: bool,
    /// Whether routes are those of Symphony's paper, without what was added to it.
    pub paper: bool,
}

impl Default for Options {
    /// A thousand nodes that stay for an hour on average, crash, and ask every 100 s.
    fn default() -> Self {
        Self {
            nodes: 1000,
            seed: 1,
            long_links: None,
            model: Model::default(),
            protocol: Protocol::Enishi,
            transport: None,
            upkeep_bytes_per_second: None,
            routes: 2000,
            duration: None,
            session_mean: Duration::from_secs(3600),
            polite_per_million: 0,
            lookup_interval: Duration::from_secs(100),
            dead_per_million: 0,
            joins_within: Duration::from_secs(1),
            hostile_per_million: None,
            behaviour: None,
            remedies: Remedies::default(),
            clients_per_million: 0,
            group: 256,
            tree: Tree::default(),
            values: None,
            by_rule: false,
            paper: false,
        }
    }
}

impl Options {
    /// Makes an empty world of Enishi's nodes.
    pub(super) fn world(&self) -> World {
        self.world_with(|_| {})
    }

    /// Makes an empty world of Enishi's nodes that are set up differently.
    pub(super) fn world_with(&self, change: impl FnOnce(&mut Config)) -> World {
        let mut config = Config::new(OverlayId::from_name("simulated"));
        config.long_links = self.long_links;
        config.remedies = self.remedies;
        if let Some(rate) = self.upkeep_bytes_per_second {
            config.upkeep_bytes_per_s = rate;
        }
        change(&mut config);
        World::inhabited(self.seed, self.model_for(Protocol::Enishi), config)
    }

    /// Makes an empty world of Kademlia's nodes.
    pub(super) fn rival_world(&self) -> World<Kademlia> {
        let overlay = OverlayId::from_name("simulated");
        let mut config = kademlia::Config::new(overlay, RIVAL_BUCKET);
        if let Some(rate) = self.upkeep_bytes_per_second {
            config.upkeep_bytes_per_second = rate;
        }
        World::inhabited(self.seed, self.model_for(Protocol::Kademlia), config)
    }

    fn model_for(&self, protocol: Protocol) -> Model {
        Model {
            transport: self.transport.unwrap_or(protocol.transport()),
            ..self.model.clone()
        }
    }

    /// Returns the median round trip between two nodes.
    pub(super) fn median_round_trip(&self) -> Duration {
        Internet::new(self.model.clone(), self.seed).median_round_trip()
    }

    /// Returns the title of a picture.
    pub(super) fn title(&self, what: &str) -> String {
        format!("{what}: {} nodes, seed {}", self.nodes, self.seed)
    }
}
