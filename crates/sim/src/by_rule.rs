//! Overlays too large to be grown by messages: every node's table is filled by the rule by
//! which the protocol fills it, and routes choose as `overlay/route.rs` in `enishi-overlay`
//! does. There are no messages, delays or losses.
//!
//! ```text
//! nodes by position   0        1        2        ...            (their number is their place)
//! first               [0]      [22]     [43]     ...            where a node's peers begin
//! peers               [1 2 9 …][0 2 3 …][…]                     near and long, ascending
//! ```
//!
//! A node's peers are its near neighbours and its long links in both directions. Its view,
//! which its peers know, is the same list.
//!
//! What the rule leaves out: links drawn while the overlay was smaller (the protocol draws
//! them anew when the size has doubled), places in the network (a link goes to one drawn
//! among the candidates instead of the nearest of them by coordinates), and peers that
//! died. A test compares both at a thousand nodes.

use enishi_overlay::config::Forwarding;
use enishi_overlay::ring::{Rank, harmonic_distance};
use enishi_overlay::{Position, Rng};

/// Among how many nodes about a drawn point the protocol chooses a link, as in
/// `overlay/links.rs` there.
const CANDIDATES: usize = 16;
/// How often a node draws for each link before it does without. The protocol draws on as
/// long as it lives.
const DRAWS_PER_LINK: u32 = 64;
/// After so many hops a message is dropped, as in `overlay/forward.rs` there.
const HOPS_MAX: u64 = 64;
/// How far from the target a view is searched, as in `view.rs` there.
const REACH: usize = 6;

/// By what rule tables are filled.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    nodes: usize,
    links: u32,
    near_per_side: usize,
    candidates: usize,
    /// Whether a point belongs to the next node clockwise, not to the nearest.
    clockwise: bool,
}

/// A question: the number of the node that asks, and what for.
pub type Question = (u32, Position);

impl Rule {
    /// The protocol's own rule, for so many nodes that draw so many long links each.
    pub fn protocol(nodes: usize, links: u32) -> Self {
        Self {
            nodes,
            links,
            near_per_side: 6,
            candidates: CANDIDATES,
            clockwise: false,
        }
    }

    /// The rule of Symphony's paper (sections 3 and 5): one short link on each side, and
    /// long links to the managers of the drawn points. A point's manager is the next node
    /// clockwise there. Questions go from drawn nodes to drawn nodes.
    pub fn paper(nodes: usize, links: u32) -> Self {
        Self {
            nodes,
            links,
            near_per_side: 1,
            candidates: 1,
            clockwise: true,
        }
    }

    /// Fills the tables of all nodes. `progress` hears the share done, in thousandths.
    pub fn fill(self, seed: u64, progress: &mut impl FnMut(u32)) -> Tables {
        let mut rng = seeded(seed, 0);
        let mut positions: Vec<Position> = (0..self.nodes)
            .map(|_| Position::from_number(rng.number()))
            .collect();
        positions.sort_unstable();
        positions.dedup();
        let count = positions.len();
        let mut drawing = Drawing {
            rule: self,
            positions,
            drawn: vec![Vec::new(); count],
            granted: vec![0; count],
            rng,
        };
        for (done, node) in drawing.order().into_iter().enumerate() {
            drawing.draw(node);
            progress((done * 1000 / count) as u32);
        }
        drawing.tables()
    }
}

/// Links while they are being drawn.
struct Drawing {
    rule: Rule,
    positions: Vec<Position>,
    /// The long links that each node has drawn.
    drawn: Vec<Vec<u32>>,
    /// How many links of others each node has taken.
    granted: Vec<u32>,
    rng: Rng,
}

impl Drawing {
    /// Returns all nodes in a random order.
    fn order(&mut self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.positions.len() as u32).collect();
        for last in (1..order.len()).rev() {
            let other = self.rng.below(last as u64 + 1) as usize;
            order.swap(last, other);
        }
        order
    }

    /// Draws all links of a node. Who has taken 2k links takes no more; a new point is
    /// drawn then.
    fn draw(&mut self, node: u32) {
        let size = self.positions.len() as u64;
        let granted_max = (2 * self.rule.links).max(2);
        let spans_ring = self.positions.len() <= 2 * self.rule.near_per_side;
        if spans_ring {
            return;
        }
        for _ in 0..self.rule.links * DRAWS_PER_LINK {
            if self.drawn[node as usize].len() == self.rule.links as usize {
                return;
            }
            let distance = harmonic_distance(&mut self.rng, size);
            let point = self.positions[node as usize].advance(distance);
            let Some(to) = self.candidate(node, point) else {
                continue;
            };
            if self.granted[to as usize] < granted_max {
                self.granted[to as usize] += 1;
                self.drawn[node as usize].push(to);
            }
        }
    }

    /// Chooses among the nodes nearest to a drawn point.
    fn candidate(&mut self, node: u32, point: Position) -> Option<u32> {
        let around = match self.rule.clockwise {
            true => vec![manager(&self.positions, point)],
            false => nearest(&self.positions, point, self.rule.candidates),
        };
        let drawn = &self.drawn[node as usize];
        let suits = |to: &u32| !drawn.contains(to) && !self.is_near(node, *to);
        let suited: Vec<u32> = around.into_iter().filter(suits).collect();
        let chosen = self.rng.below(suited.len() as u64) as usize;
        suited.get(chosen).copied()
    }

    /// Tells whether two nodes are the same or near neighbours.
    fn is_near(&self, a: u32, b: u32) -> bool {
        let up = a.abs_diff(b) as usize;
        up.min(self.positions.len() - up) <= self.rule.near_per_side
    }

    fn tables(self) -> Tables {
        let count = self.positions.len();
        let mut peers: Vec<Vec<u32>> = vec![Vec::new(); count];
        for (node, drawn) in self.drawn.iter().enumerate() {
            for to in drawn {
                peers[node].push(*to);
                peers[*to as usize].push(node as u32);
            }
        }
        let mut tables = Tables {
            positions: self.positions,
            clockwise: self.rule.clockwise,
            first: vec![0],
            peers: Vec::new(),
        };
        for (node, mut of_node) in peers.into_iter().enumerate() {
            for step in 1..=self.rule.near_per_side.min(count - 1) {
                of_node.push(((node + step) % count) as u32);
                of_node.push(((node + count - step) % count) as u32);
            }
            of_node.sort_unstable();
            of_node.dedup();
            tables.peers.extend_from_slice(&of_node);
            tables.first.push(tables.peers.len() as u32);
        }
        tables
    }
}

/// The tables of all nodes.
#[derive(Debug)]
pub struct Tables {
    /// Ascending.
    positions: Vec<Position>,
    /// Whether a point belongs to the next node clockwise.
    clockwise: bool,
    /// Where each node's peers begin in `peers`, and where the last one's end.
    first: Vec<u32>,
    peers: Vec<u32>,
}

/// A next hop: how good it is, who it is, and for whose sake it is chosen.
type Choice = ((Rank, u8), u32, Option<u32>);

/// What a message may do to get on, as `Limits` in the overlay.
#[derive(Clone, Copy)]
struct Limits<'a> {
    nearer_than: Rank,
    toward: Option<u32>,
    avoid: &'a [u32],
}

impl Tables {
    /// Returns how many peers all nodes have together.
    pub fn links(&self) -> usize {
        self.peers.len()
    }

    /// Returns a hash of all tables, as 16 hexadecimal digits.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for position in &self.positions {
            hasher.update(&position.number().to_le_bytes());
        }
        for peer in &self.peers {
            hasher.update(&peer.to_le_bytes());
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }

    /// Follows a question to its end; returns its hops if it ends at the node in charge.
    ///
    /// [`Forwarding::Fastest`] chooses by time, which does not exist here; it is followed as
    /// the jump.
    pub fn route(&self, forwarding: Forwarding, (asker, target): Question) -> Option<u64> {
        let in_charge = nearest(&self.positions, target, 1).first().copied();
        let (mut at, mut from, mut toward) = (asker, None, None);
        for hops in 0..=HOPS_MAX {
            match self.decide(forwarding, target, at, [Some(asker), from], toward) {
                Some((_, next, sake)) => (at, from, toward) = (next, Some(at), sake),
                None => return (Some(at) == in_charge).then_some(hops),
            }
        }
        None
    }

    /// Decides as `decide` in `overlay/forward.rs` of the overlay does.
    fn decide(
        &self,
        forwarding: Forwarding,
        target: Position,
        at: u32,
        avoided: [Option<u32>; 2],
        toward: Option<u32>,
    ) -> Option<Choice> {
        let rank = |node: u32| target.rank(self.positions[node as usize]);
        let mut avoid: Vec<u32> = avoided.into_iter().flatten().collect();
        avoid.push(at);
        if let Some(sake) = toward {
            let limits = Limits {
                nearer_than: rank(at).min(rank(sake)),
                toward,
                avoid: &avoid,
            };
            let hop = self.best_hop(forwarding, target, at, limits);
            if hop.is_some() {
                return hop;
            }
            avoid.push(sake);
        }
        let theirs = avoided[1].map_or(rank(at), rank);
        let limits = Limits {
            nearer_than: rank(at).min(theirs),
            toward: None,
            avoid: &avoid,
        };
        self.best_hop(forwarding, target, at, limits)
    }

    /// Chooses as `best_hop` in `overlay/route.rs` of the overlay does.
    fn best_hop(
        &self,
        forwarding: Forwarding,
        target: Position,
        at: u32,
        limits: Limits<'_>,
    ) -> Option<Choice> {
        let rank = |node: u32| target.rank(self.positions[node as usize]);
        let peers = self.peers(at);
        let mut best: Option<Choice> = None;
        let mut consider = |choice: Choice| {
            if best.is_none_or(|best| choice.0 < best.0) {
                best = Some(choice);
            }
        };
        for peer in peers.iter().filter(|peer| !limits.avoid.contains(peer)) {
            let own = rank(*peer);
            if own < limits.nearer_than || limits.toward == Some(*peer) {
                consider(((own, 0), *peer, None));
            }
            if forwarding == Forwarding::Greedy {
                continue;
            }
            for known in self.around(*peer, target, limits.avoid) {
                let theirs = rank(known);
                if theirs >= own || theirs >= limits.nearer_than {
                    continue;
                }
                match forwarding {
                    Forwarding::Lookahead => consider(((theirs, 1), *peer, Some(known))),
                    _ if peers.binary_search(&known).is_ok() => {}
                    _ => consider(((theirs, 2), known, None)),
                }
            }
        }
        best
    }

    /// Returns the usable nodes of a node's view next to the target on either side.
    fn around(&self, node: u32, target: Position, avoid: &[u32]) -> impl Iterator<Item = u32> {
        let view = self.peers(node);
        let split = view.partition_point(|known| self.positions[*known as usize] < target);
        let reach = REACH.min(view.len());
        let side = |up: bool| {
            let offset = |i: usize| {
                if up {
                    split + i
                } else {
                    split + view.len() - 1 - i
                }
            };
            let mut nodes = (0..reach).map(|i| view[offset(i) % view.len()]);
            nodes.find(|known| !avoid.contains(known))
        };
        [side(true), side(false)].into_iter().flatten()
    }

    fn peers(&self, node: u32) -> &[u32] {
        let node = node as usize;
        &self.peers[self.first[node] as usize..self.first[node + 1] as usize]
    }
}

/// Draws so many questions of drawn nodes for drawn positions, by the paper's rule for those of
/// drawn nodes. (For the managers of drawn positions, who have the longer segments, routes are
/// 1.6 % shorter.)
pub fn draw(tables: &Tables, seed: u64, count: u64) -> Vec<Question> {
    let mut rng = seeded(seed, 1);
    let nodes = tables.positions.len() as u64;
    let mut question = |_| {
        let target = match tables.clockwise {
            true => tables.positions[rng.below(nodes) as usize],
            false => Position::from_number(rng.number()),
        };
        (rng.below(nodes) as u32, target)
    };
    (0..count).map(&mut question).collect()
}

fn seeded(seed: u64, purpose: u8) -> Rng {
    let mut octets = [0; 32];
    octets[..8].copy_from_slice(&seed.to_le_bytes());
    octets[8] = purpose;
    Rng::from_seed(octets)
}

/// Returns the first node at a point or clockwise of it, among ascending ones.
fn manager(positions: &[Position], point: Position) -> u32 {
    (positions.partition_point(|position| *position < point) % positions.len()) as u32
}

/// Returns the `count` nodes nearest to a position, nearest first, among ascending ones.
fn nearest(positions: &[Position], target: Position, count: usize) -> Vec<u32> {
    let len = positions.len();
    let count = count.min(len);
    let mut up = positions.partition_point(|position| *position < target) % len;
    let mut down = (up + len - 1) % len;
    let mut found = Vec::with_capacity(count);
    while found.len() < count {
        if target.rank(positions[up]) < target.rank(positions[down]) {
            found.push(up as u32);
            up = (up + 1) % len;
        } else {
            found.push(down as u32);
            down = (down + len - 1) % len;
        }
    }
    found
}
