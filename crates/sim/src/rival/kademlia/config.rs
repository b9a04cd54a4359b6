//! What an experiment may choose about Kademlia.

use enishi_overlay::OverlayId;

/// How one node takes part.
#[derive(Clone, Debug)]
pub struct Config {
    /// The overlay; it gives nodes their positions, as in our own overlay.
    pub overlay: OverlayId,
    /// Nodes kept in a bucket, the paper's k; 1 to 64. BitTorrent has 8, IPFS 20.
    pub bucket: usize,
    /// Requests of a lookup under way at one time, the paper's alpha; at least 1.
    pub parallel: usize,
    /// Contacts in an answer, 1 to [`super::wire::CONTACTS_MAX`]; the paper's k.
    pub reply: usize,
    /// Whether round trips decide who is kept in a full bucket, and who is asked among
    /// those that promise the same progress.
    pub proximity: bool,
    /// The dial: what this node spends on its table, in octets per second, its requests
    /// and the answers to them counted. 0 leaves the table to passing traffic.
    /// Joining and what the host asks for come on top.
    pub upkeep_bytes_per_second: u32,
    /// How much of it goes to refreshing buckets, in percent; the rest to signs of life.
    pub refresh_percent: u32,
    /// Requests of one refresh; none lets it run to its end, as in the paper.
    pub refresh_requests: Option<u32>,
    /// How many of the closest must have answered before the node's look-up of itself
    /// ends. The others of the k closest are greeted by `Ping`, which is cheaper.
    pub join_width: usize,
}

impl Config {
    /// Kademlia with the given k. `parallel` is the paper's; short refreshes and the join's
    /// width were compared at 1,024 nodes, one seed each; the share of refreshes is a guess.
    pub fn new(overlay: OverlayId, bucket: usize) -> Self {
        Self {
            overlay,
            bucket,
            parallel: 3,
            reply: bucket,
            proximity: true,
            upkeep_bytes_per_second: 10,
            refresh_percent: 40,
            refresh_requests: Some(1),
            join_width: 3,
        }
    }
}
