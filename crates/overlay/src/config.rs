//! What an operator, an experiment or a test may choose about the overlay.

use crate::id::OverlayId;

/// How one node takes part in the overlay.
#[derive(Clone, Debug)]
pub struct Config {
    /// The overlay to take part in.
    pub overlay: OverlayId,
    /// Near neighbours kept on each side, 1 to 16. As many as replicas, so that a node
    /// sees exactly which keys it holds ([`crate::near::NearSet::arc_held`]).
    pub near_per_side: usize,
    /// Long links that this node draws; none means floor(log2 n / 2) of the estimated
    /// size n, as many as Symphony's paper finds worth their upkeep (section 5).
    pub long_links: Option<u32>,
    /// Whether a message jumps straight to the best node in any peer's view; otherwise
    /// it goes to the peer whose view holds that node (the paper's lookahead).
    pub jump: bool,
    /// When the six periodic actions are due.
    pub upkeep: UpkeepClock,
    /// Whether this node reports to the origin of a traced message that it came by.
    pub reports_hops: bool,
}

impl Config {
    /// The defaults in the given overlay.
    pub fn new(overlay: OverlayId) -> Self {
        Self {
            overlay,
            near_per_side: 6,
            long_links: None,
            jump: true,
            upkeep: UpkeepClock::Primes,
            reports_hops: true,
        }
    }
}

/// When the periodic actions are due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpkeepClock {
    /// At prime periods, from a random phase on, each interval lengthened or shortened by
    /// up to a fifth.
    #[default]
    Primes,
    /// All of them every 17 seconds from the start on, to the moment: what the primes are
    /// to be compared with in experiments, and nothing for a real overlay.
    Common,
}
