//! What an operator, an experiment or a test may choose about the overlay.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::class::{Limit, Measure};
use crate::geometry::Geometry;
use crate::id::{NodeId, OverlayId};
use crate::standing::Policy;

/// How the next hop of a message is chosen. Each goes to nodes that are nearer to the target
/// on the ring, or that know one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Forwarding {
    /// The peer nearest to the target (Symphony, section 3).
    Greedy,
    /// The peer that knows the node nearest to the target (Symphony, section 4.3).
    Lookahead,
    /// That node itself, which is dialled if need be: the fewest hops, and for experiments. All
    /// views then tell how to reach everyone.
    Jump,
    /// What promises the earliest arrival by measured and predicted round trips, in open
    /// sessions.
    #[default]
    Fastest,
}

/// The usual budget of a node's upkeep, in octets per second.
pub const UPKEEP_BYTES_PER_S_USUAL: u32 = 40;

/// How one node takes part in the overlay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// The overlay to take part in.
    pub overlay: OverlayId,
    /// Near neighbours kept on each side, 1 to 16. As many as replicas, so that a node
    /// sees exactly which keys it holds ([`crate::near::NearSet::arc_held`]).
    pub near_per_side: usize,
    /// What this node is to spend on upkeep, in octets per second: from 0 for a leaf, which
    /// keeps its near neighbours and nothing more, to some hundreds for links to much of a
    /// small overlay. Joining, lookups and services come on top.
    pub upkeep_bytes_per_s: u32,
    /// Long links that this node draws; none means floor(log2 n / 2) of the estimated
    /// size n, as many as Symphony's paper finds worth their upkeep (section 5), more or
    /// fewer as [`Self::upkeep_bytes_per_s`] allows.
    pub long_links: Option<u32>,
    /// Which distance and which long links; all nodes of an overlay must agree. Anything but
    /// the default is for experiments and for closed overlays.
    pub geometry: Geometry,
    /// How the next hop of a message is chosen.
    pub forwarding: Forwarding,
    /// What is done for messages that may be lost.
    pub remedies: Remedies,
    /// Whether long links go to near places in the network among those that suit.
    pub proximity: bool,
    /// When the six periodic actions are due.
    pub upkeep: UpkeepClock,
    /// Whether this node reports to the origin of a traced message that it came by.
    pub reports_hops: bool,
    /// For whom this node passes messages on, and to whom it gives them.
    pub policy: Policy,
    /// Whom the operator trusts ([`Policy::Trust`]).
    pub trusted: BTreeSet<NodeId>,
    /// How many messages are passed on for others per minute before only the trusted are
    /// served ([`Policy::Trust`]).
    pub carried_per_minute: u32,
    /// What the node may become at most.
    pub class: Limit,
    /// What it measured before this start ([`crate::overlay::Input::Measured`]).
    pub measure: Measure,
}

impl Config {
    /// The defaults in the given overlay.
    pub fn new(overlay: OverlayId) -> Self {
        Self {
            overlay,
            near_per_side: 6,
            upkeep_bytes_per_s: UPKEEP_BYTES_PER_S_USUAL,
            long_links: None,
            geometry: Geometry::Symphony,
            forwarding: Forwarding::Fastest,
            remedies: Remedies::default(),
            proximity: true,
            upkeep: UpkeepClock::Primes,
            reports_hops: true,
            policy: Policy::None,
            trusted: BTreeSet::new(),
            carried_per_minute: 6000,
            class: Limit::default(),
            measure: Measure::default(),
        }
    }
}

/// What is done for messages that may be lost. All of it, but in experiments that are to tell
/// what each is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remedies {
    /// A hop that does not confirm in time is gone round.
    pub hedging: bool,
    /// Questions of [`crate::overlay::Manner::SOON`] set out by two first hops at once.
    pub two_ways: bool,
    /// A question that stays without an answer is asked in parallel of one node after the
    /// other, nearer and nearer to the position, instead of being passed on.
    pub iterative: bool,
}

impl Default for Remedies {
    fn default() -> Self {
        Self {
            hedging: true,
            two_ways: true,
            iterative: true,
        }
    }
}

/// When the periodic actions are due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpkeepClock {
    /// At prime periods, from a random phase on, each interval lengthened or shortened by
    /// up to a fifth.
    #[default]
    Primes,
    /// All of them every 17 seconds from the start on, to the moment: what the primes are
    /// to be compared with in experiments, and nothing for a real overlay.
    Common,
}
