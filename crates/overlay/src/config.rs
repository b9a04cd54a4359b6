//! What an operator, an experiment or a test may choose about the overlay.

use serde::{Deserialize, Serialize};

use crate::id::OverlayId;

/// How one node takes part in the overlay.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
            reports_hops: true,
        }
    }
}
