//! Iterative lookups: the asker itself goes from node to node.
//!
//! A routed message is as honest as every node on its way, and as quick as the tables are
//! fresh. Here the asker asks nodes directly whom they know near the target, goes on with
//! the nearest of those, and keeps several paths apart: no node is asked on two paths, so a
//! hostile node spoils one of them at most (I. Baumgart, S. Mies, "S/Kademlia: A
//! Practicable Approach Towards Secure Key-Based Routing", 2007, section 4.4). Only nodes
//! that answered themselves count as found: their sessions prove their keys, and so their
//! places on the ring. Of an honest path's findings nothing can be taken away by the others.
//!
//! The paths begin apart, too: each with peers of its own and what only those have told, so
//! that a peer with an invented view spoils the path that begins with it and no other. A
//! node that keeps naming others that are not there is not followed any longer.
//!
//! Each step sees the peers of the asked node and the neighbours of its neighbours: of the far
//! ends of others' links nobody tells who they are.

use std::collections::{BTreeMap, BTreeSet};

use super::{Alarm, Effect, Overlay};
use crate::contact::Contact;
use crate::id::NodeId;
use crate::message::{Message, NODES_MAX};
use crate::ring::{Position, Rank};
use crate::time::Time;
use crate::view::{Entry, Member, Role};

/// The most paths of one lookup.
pub const PATHS_MAX: usize = 8;
/// How many nodes are asked at one time on one path.
const PARALLEL: usize = 2;
/// How many nodes a node names when it is asked.
const NODES_TOLD: usize = 8;
/// How many of the nearest nodes of a path must have answered for it to end: as many as
/// hold a record, or, on behalf of a routed question, enough to know who is in charge.
const NEAREST_ANSWERED: usize = 6;
const NEAREST_FOR_REQUEST: usize = 3;
/// The most nodes asked on one path.
const ASKED_MAX: usize = 40;
/// After how many nodes that it named and that were not there the rest of what a node named
/// is left alone, unless others named it too.
const FICTIONS_MAX: usize = 2;
/// The most nodes that a path keeps in mind.
const CANDIDATES_MAX: usize = 48;
/// The most lookups at one time.
const SEARCHES_MAX: usize = 64;

/// For 1 to 8 found nodes: how many nodes, in hundredths, are expected up to the farthest
/// of them, at least and at most, where they sit by chance. The numbers follow the gamma
/// distribution; of a hundred honest places 1.5 have fewer and 0.3 more.
const LIMITS: [(u128, u128); 8] = [
    (1, 581),
    (18, 808),
    (53, 1017),
    (95, 1200),
    (144, 1365),
    (197, 1524),
    (254, 1677),
    (314, 1825),
];

/// An iterative lookup of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SearchId(u64);

/// How the nodes found near a target compare with those around this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Density {
    /// As far apart as usual.
    Usual,
    /// Much further apart: somebody may have hidden nodes.
    Sparse,
    /// Much closer together: somebody may have chosen keys to sit there.
    Dense,
}

/// How far a node that a path knows has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Asked,
    Answered,
    Failed,
    /// Another path has it.
    Elsewhere,
}

#[derive(Clone, Debug)]
struct Candidate {
    rank: Rank,
    entry: Entry,
    state: State,
    /// Who named it first; none when it is a peer, which has spoken itself.
    namer: Option<NodeId>,
    /// Whether more than one node named it.
    vouched: bool,
}

/// One path: the nodes it knows, nearest to the target first.
#[derive(Clone, Debug, Default)]
struct Path {
    candidates: Vec<Candidate>,
    asked: usize,
}

impl Path {
    fn take_in(&mut self, rank: Rank, entry: Entry, namer: Option<NodeId>) {
        let id = entry.contact.id();
        let known = |c: &&mut Candidate| c.entry.contact.id() == id;
        if let Some(known) = self.candidates.iter_mut().find(known) {
            known.vouched |= known.namer != namer;
            return;
        }
        let at = self.candidates.partition_point(|other| other.rank < rank);
        let candidate = Candidate {
            rank,
            entry,
            state: State::New,
            namer,
            vouched: namer.is_none(),
        };
        self.candidates.insert(at, candidate);
        self.candidates.truncate(CANDIDATES_MAX);
    }

    /// Takes a node for gone, and what its namer named for invented, if that is not the
    /// first time and nobody whom it named has answered.
    fn fail(&mut self, id: NodeId) {
        self.set(id, State::Failed);
        let failed = self.candidates.iter().find(|c| c.entry.contact.id() == id);
        let Some(namer) = failed.and_then(|c| c.namer) else {
            return;
        };
        let named = |c: &&mut Candidate| c.namer == Some(namer);
        let count = |state: State| {
            let all = self.candidates.iter();
            let named = all.filter(|c| c.namer == Some(namer) && c.state == state);
            named.count()
        };
        if count(State::Failed) >= FICTIONS_MAX && count(State::Answered) == 0 {
            let rest = self.candidates.iter_mut().filter(named);
            rest.filter(|c| c.state == State::New && !c.vouched)
                .for_each(|c| c.state = State::Failed);
        }
    }

    /// Returns where the path ended: the nearest nodes that are there.
    fn end(&self) -> Option<NodeId> {
        let proven = |c: &&Candidate| matches!(c.state, State::Answered | State::Elsewhere);
        let nearest = self.candidates.iter().find(proven);
        nearest.map(|candidate| candidate.entry.contact.id())
    }

    fn set(&mut self, id: NodeId, state: State) {
        let candidate = self
            .candidates
            .iter_mut()
            .find(|c| c.entry.contact.id() == id);
        if let Some(candidate) = candidate {
            candidate.state = state;
        }
    }

    fn waiting(&self) -> usize {
        self.candidates
            .iter()
            .filter(|c| c.state == State::Asked)
            .count()
    }

    /// Tells whether the nearest nodes have answered, or nobody is left to ask.
    fn is_over(&self, nearest: usize) -> bool {
        let mut live = self.candidates.iter().filter(|c| c.state != State::Failed);
        let settled = live
            .by_ref()
            .take(nearest)
            .all(|c| matches!(c.state, State::Answered | State::Elsewhere));
        let fresh = self.candidates.iter().any(|c| c.state == State::New);
        settled || (self.waiting() == 0 && (!fresh || self.asked >= ASKED_MAX))
    }
}

#[derive(Clone, Debug)]
struct Search {
    target: Position,
    /// The routed question for whose sake it is made.
    request: Option<u64>,
    /// How many of the nearest nodes of a path must have answered.
    nearest: usize,
    paths: Vec<Path>,
    /// Everyone asked, on whatever path.
    taken: BTreeSet<NodeId>,
}

impl Search {
    /// Visits those who did not answer and are nearer to the target than all who did.
    fn silent(&self) -> impl Iterator<Item = NodeId> {
        let all = || self.paths.iter().flat_map(|path| &path.candidates);
        let answered = all().filter(|candidate| candidate.state == State::Answered);
        let nearest = answered.map(|candidate| candidate.rank).min();
        let failed = all().filter(move |candidate| {
            candidate.state == State::Failed && nearest.is_none_or(|best| candidate.rank < best)
        });
        let failed = failed.map(|candidate| candidate.entry.contact.id());
        failed.filter(|id| self.taken.contains(id))
    }
}

/// The iterative lookups under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Searches {
    next: u64,
    open: BTreeMap<u64, Search>,
    /// The questions under way: which lookup, which path, to whom.
    finds: BTreeMap<u32, (u64, usize, NodeId)>,
}

impl Overlay {
    /// Looks the target up over `paths` paths (1 to [`PATHS_MAX`]) that have no node in
    /// common. [`Effect::Searched`] follows; with nobody found if too many lookups are
    /// under way.
    pub fn search(&mut self, now: Time, target: Position, paths: usize) -> SearchId {
        SearchId(self.start_search(now, target, paths, None))
    }

    /// Looks the target of a routed question up, over one path.
    pub(super) fn search_for(&mut self, now: Time, request: u64, target: Position) {
        self.start_search(now, target, 1, Some(request));
    }

    fn start_search(
        &mut self,
        now: Time,
        target: Position,
        paths: usize,
        request: Option<u64>,
    ) -> u64 {
        self.searches.next += 1;
        let id = self.searches.next;
        let mut search = Search {
            target,
            request,
            nearest: match request {
                Some(_) => NEAREST_FOR_REQUEST,
                None => NEAREST_ANSWERED,
            },
            paths: vec![Path::default(); paths.clamp(1, PATHS_MAX)],
            taken: BTreeSet::new(),
        };
        if self.searches.open.len() < SEARCHES_MAX {
            self.deal(now, &mut search);
        }
        self.searches.open.insert(id, search);
        self.advance(now, id);
        id
    }

    /// Compares how close together found nodes sit with how the ring is elsewhere. The
    /// nodes are the nearest to `target` that were found, in any order.
    ///
    /// Castro et al., "Secure Routing for Structured Peer-to-Peer Overlay Networks", OSDI
    /// 2002, section 5.2, test for nodes left out; the same ratio tells of too many. Only the
    /// nearest eight are looked at.
    pub fn density(&self, target: Position, found: &[Entry]) -> Density {
        let ids = found.iter().map(|entry| entry.contact.id());
        self.density_of(target, ids.map(|id| self.position_of(&id)))
    }

    /// Does the same with the places of nodes.
    pub fn density_of(&self, target: Position, found: impl Iterator<Item = Position>) -> Density {
        let mut distances: Vec<u64> = found.map(|place| target.distance(place)).collect();
        distances.sort_unstable();
        distances.truncate(LIMITS.len());
        let Some((farthest, (dense, sparse))) = distances
            .last()
            .zip(distances.len().checked_sub(1).map(|last| LIMITS[last]))
        else {
            return Density::Sparse;
        };
        // The nodes lie within `farthest` on both sides, so on average n · 2d / 2^64 do.
        let size = u128::from(self.size_estimate());
        let expected = (size * u128::from(*farthest) * 2 * 100) >> 64;
        if expected < dense {
            Density::Dense
        } else if expected > sparse {
            Density::Sparse
        } else {
            Density::Usual
        }
    }

    /// Returns the distance from any position within which so many nodes are expected, on
    /// both sides together.
    pub fn reach(&self, nodes: u64) -> u64 {
        let reach = (u128::from(nodes) << 63) / u128::from(self.size_estimate().max(1));
        u64::try_from(reach).unwrap_or(u64::MAX).min(1 << 63)
    }

    /// Gives each path peers of its own to begin with, the nearest in turn, each with the
    /// nodes near the target that it has told of, as far as they can be turned to.
    fn deal(&self, now: Time, search: &mut Search) {
        let target = search.target;
        let mut peers: Vec<&crate::peers::Peer> = self.peers.values().collect();
        peers.sort_by_key(|peer| target.rank(peer.position));
        peers.retain(|peer| !self.quarantine.holds(peer.position, now));
        let paths = search.paths.len();
        let each = (CANDIDATES_MAX * paths / peers.len().max(1)).clamp(1, NODES_TOLD / 2);
        for (turn, peer) in peers.into_iter().enumerate() {
            let path = &mut search.paths[turn % paths];
            let namer = peer.contact.id();
            path.take_in(target.rank(peer.position), peer.entry(Role::Near), None);
            let usable = |member: &Member| {
                let at = member.position;
                at != self.position && !self.quarantine.holds(at, now) && member.contact.is_some()
            };
            for member in peer.view.around(target, each, usable) {
                if let Some(entry) = member.entry() {
                    path.take_in(target.rank(member.position), entry, Some(namer));
                }
            }
        }
    }

    /// Returns the nodes nearest to the target among the peers and everyone in their views,
    /// without this one; nearest first.
    fn known_near(&self, target: Position, count: usize) -> Vec<(Rank, Entry)> {
        let peers = self
            .peers
            .values()
            .map(|p| (target.rank(p.position), p.entry(Role::Near)));
        let views = self.peers.values().flat_map(|peer| peer.view.members());
        let views = views.filter_map(|m| Some((target.rank(m.position), m.entry()?)));
        let mut known: Vec<(Rank, Entry)> = peers.chain(views).collect();
        known.sort_by_key(|(rank, _)| *rank);
        known.dedup_by_key(|(rank, _)| *rank);
        known.retain(|(_, entry)| !self.is_self(entry.contact.id()));
        known.truncate(count);
        known
    }

    /// Asks on, on every path that needs it; ends the lookup when all are over.
    fn advance(&mut self, now: Time, id: u64) {
        let Some(search) = self.searches.open.get_mut(&id) else {
            return;
        };
        let mut questions: Vec<(usize, Contact)> = Vec::new();
        for (number, path) in search.paths.iter_mut().enumerate() {
            while !path.is_over(search.nearest)
                && path.waiting() < PARALLEL
                && path.asked < ASKED_MAX
            {
                let mut new = path.candidates.iter_mut().filter(|c| c.state == State::New);
                let Some(candidate) = new.next() else { break };
                let contact = candidate.entry.contact.clone();
                if search.taken.insert(contact.id()) {
                    candidate.state = State::Asked;
                    path.asked += 1;
                    questions.push((number, contact));
                } else {
                    candidate.state = State::Elsewhere;
                }
            }
        }
        let (target, over) = (
            search.target,
            search.paths.iter().all(|path| path.is_over(search.nearest)),
        );
        for (path, contact) in questions {
            self.find(now, id, path, target, contact);
        }
        if over {
            self.end_search(now, id);
        }
    }

    fn find(&mut self, now: Time, search: u64, path: usize, target: Position, to: Contact) {
        let nonce = self.rng.number() as u32;
        let wait = match self.peers.get(&to.id()) {
            Some(peer) => peer.round_trip.hedge_delay(),
            // A session has to be opened first, which takes some round trips.
            None => self.typical.hedge_delay() * 3,
        };
        let hasty = self.searches.open.get(&search);
        let hasty = hasty.is_some_and(|search| search.request.is_some());
        let wait = if hasty { wait } else { wait * 2 };
        self.searches.finds.insert(nonce, (search, path, to.id()));
        self.deadlines.set(Alarm::Find(nonce), now + wait);
        self.send(to, Message::Find { nonce, target });
    }

    fn end_search(&mut self, now: Time, id: u64) {
        let Some(search) = self.searches.open.remove(&id) else {
            return;
        };
        let obsolete = self.searches.finds.iter().filter(|(_, f)| f.0 == id);
        let obsolete: Vec<u32> = obsolete.map(|(nonce, _)| *nonce).collect();
        for nonce in obsolete {
            self.deadlines.cancel(Alarm::Find(nonce));
            self.searches.finds.remove(&nonce);
        }
        let ends = search.paths.iter().map(Path::end).collect();
        let silent = search.silent();
        let silent: Vec<Position> = silent.map(|id| self.position_of(&id)).collect();
        let paths = search.paths.into_iter();
        let answered = paths.flat_map(|path| path.candidates);
        let answered = answered.filter(|candidate| candidate.state == State::Answered);
        let mut found: Vec<(Rank, Entry)> = answered.map(|c| (c.rank, c.entry)).collect();
        found.sort_by_key(|(rank, _)| *rank);
        let found: Vec<Entry> = found.into_iter().map(|(_, entry)| entry).collect();
        match search.request {
            Some(request) => self.found_for_request(now, request, &found, &silent),
            None => self.effects.push_back(Effect::Searched {
                search: SearchId(id),
                found,
                ends,
                asked: search.taken.len() as u32,
            }),
        }
    }

    pub(super) fn on_find(&mut self, from: NodeId, nonce: u32, target: Position) {
        let mut nodes = self.known_near(target, NODES_TOLD);
        let me = self.entry_of(self.me.id());
        if let Some(me) = me.filter(|_| !self.is_client()) {
            nodes.push((target.rank(self.position), me));
            nodes.sort_by_key(|(rank, _)| *rank);
            nodes.truncate(NODES_TOLD);
        }
        let nodes = nodes.into_iter().map(|(_, entry)| entry).collect();
        self.send_to(from, Message::Found { nonce, nodes });
    }

    pub(super) fn on_found(&mut self, now: Time, from: NodeId, nonce: u32, nodes: &[Entry]) {
        let asked = self.searches.finds.get(&nonce).copied();
        let Some((id, number, _)) = asked.filter(|(_, _, to)| *to == from) else {
            return self.refuse();
        };
        self.searches.finds.remove(&nonce);
        self.deadlines.cancel(Alarm::Find(nonce));
        let overlay = self.config.overlay;
        let me = self.me.id();
        let Some(search) = self.searches.open.get_mut(&id) else {
            return;
        };
        let path = &mut search.paths[number];
        path.set(from, State::Answered);
        for entry in nodes.iter().take(NODES_TOLD.min(NODES_MAX)) {
            let other = entry.contact.id();
            let position = Position::of_node(&overlay, &other);
            if other != me && !self.quarantine.holds(position, now) {
                path.take_in(search.target.rank(position), entry.clone(), Some(from));
            }
        }
        self.advance(now, id);
    }

    pub(super) fn find_timed_out(&mut self, now: Time, nonce: u32) {
        let Some((id, _, to)) = self.searches.finds.remove(&nonce) else {
            return;
        };
        if let Some(search) = self.searches.open.get_mut(&id) {
            // Whoever waits for what another path finds there, waits in vain.
            search.paths.iter_mut().for_each(|path| path.fail(to));
        }
        self.probe(now, to);
        self.advance(now, id);
    }

    /// The node cannot be reached: whoever waits for its answer goes on.
    pub(super) fn fail_finds(&mut self, now: Time, gone: NodeId) {
        let finds = self.searches.finds.iter().filter(|(_, f)| f.2 == gone);
        let nonces: Vec<u32> = finds.map(|(nonce, _)| *nonce).collect();
        for nonce in nonces {
            self.deadlines.cancel(Alarm::Find(nonce));
            self.find_timed_out(now, nonce);
        }
    }
}
