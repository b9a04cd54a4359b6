//! Sure gets and puts: for keys near which hostile nodes may sit.
//!
//! A plain get or put is as honest as the way there and the node at its end. A sure one
//! goes without both:
//!
//! 1. **Search.** The key is looked up over `PATHS` paths that have no node in common.
//!    Only nodes that answered themselves count: their sessions prove their places.
//! 2. **Density.** Six nodes sit unnaturally close to the key, or far from it? Then the
//!    places around it are looked up too, and the replica set is widened to what was found
//!    within the distance in which twelve nodes are expected, [`WIDE_MAX`] at most. Whoever
//!    makes keys until some surround a target gains the places next to it, not the region.
//!    (T. Cholez et al., "Detection and mitigation of localized attacks in a widely
//!    deployed P2P network", 2010; S. Sridhar et al., "Content Censorship in the
//!    InterPlanetary File System", NDSS 2024, where records go to a region too.) Of the
//!    region one node for each of its [`CELLS`] cells is taken, so that a crowd in one place
//!    has no more weight than a single node elsewhere.
//! 3. **Keep**, for puts: each of them is asked to keep the record, by the owner itself.
//! 4. **Fetch.** Each is asked what it has. Records are signed, so a lie can only hide or
//!    be late: the owner that most of them name has the key, and its newest record counts.
//!    A put counts when a majority shows the record; otherwise it goes to more nodes, once.
//!
//! Refusals are not believed without the record that causes them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use enishi_overlay::overlay::Density;
use enishi_overlay::view::{Entry, Role};
use enishi_overlay::{Contact, Coordinate, NodeId, Position};

use super::holder::majority;
use super::owner::Putting;
use super::votes::Votes;
use super::wire::{Aged, DhtMessage};
use super::{Alarm, Caller, Cx, Dht, Event, GetAnswer, PutAnswer, REPLICAS};
use crate::calls::{Confirmation, Subject, Verdict};
use crate::record::{Key, Record};

/// Over how many paths a key is looked up.
pub(super) const PATHS: usize = 8;
/// Over how many paths the places around a suspicious key are looked up, each.
const PATHS_AROUND: usize = 3;
/// How many of the nearest nodes are asked what they have.
const ASKED: usize = REPLICAS + 2;
/// To how many of the nearest nodes a record goes that too few of the six keep.
const SPREAD: usize = 2 * REPLICAS;
/// Into how many cells the region around a suspicious key is divided.
pub const CELLS: u64 = 16;
/// The most nodes of a widened replica set.
pub const WIDE_MAX: usize = ASKED + CELLS as usize;
/// The most nodes that one sure get or put keeps in mind.
const PROVEN_MAX: usize = 256;
/// How long to wait for the nodes that are asked to keep something, or what they have; a
/// session may have to be opened first.
const REPLY_TIMEOUT: Duration = Duration::from_millis(2000);
/// The most sure gets and puts that are under way.
const UNDER_WAY_MAX: usize = 256;

/// What a sure get or put is for.
#[derive(Debug)]
pub(super) enum Purpose {
    Get(Caller, Key),
    Put(Box<Putting>),
    Confirm(Caller, Subject, u8),
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Lookups are under way.
    Searching,
    /// Nodes were asked to keep the record.
    Keeping,
    /// Nodes were asked what they have.
    Fetching,
}

#[derive(Debug)]
struct Sure {
    purpose: Purpose,
    target: Position,
    key: Option<Key>,
    stage: Stage,
    /// Lookups under way.
    searches: usize,
    /// Who proved to be there.
    proven: BTreeMap<NodeId, Entry>,
    /// Where the paths of the first lookup ended.
    ends: Vec<Option<NodeId>>,
    asked: u32,
    density: Density,
    /// Whether the region around the key is looked at, not only what is nearest.
    wide: bool,
    /// Whether the record went to more nodes than usual already.
    spread: bool,
    chosen: Vec<NodeId>,
    waiting: BTreeSet<NodeId>,
    /// Those of the chosen that count for a put: of a widened set one for each cell.
    counted: Vec<NodeId>,
    /// What the chosen have.
    votes: Votes,
}

/// The sure gets and puts under way.
#[derive(Debug, Default)]
pub(super) struct Sures {
    open: BTreeMap<u64, Sure>,
    /// Which of them a lookup belongs to.
    searches: BTreeMap<u64, u64>,
}

impl Dht {
    /// Begins a sure get or put, or a confirmation.
    pub(super) fn start_sure(&mut self, purpose: Purpose, cx: &mut Cx<'_>) {
        let (target, key) = purpose.target(cx);
        let id = self.holder.token();
        let mut sure = Sure {
            purpose,
            target,
            key,
            stage: Stage::Searching,
            searches: 0,
            proven: BTreeMap::new(),
            ends: Vec::new(),
            asked: 0,
            density: Density::Usual,
            wide: false,
            spread: false,
            chosen: Vec::new(),
            waiting: BTreeSet::new(),
            counted: Vec::new(),
            votes: Votes::default(),
        };
        if self.sures.open.len() >= UNDER_WAY_MAX {
            return self.end_sure(sure, cx);
        }
        if !cx.overlay().is_client() {
            sure.note(entry(cx.overlay().me().clone()));
        }
        if knows_all(cx) {
            for place in cx.overlay().near().iter() {
                let contact = cx.overlay().contact_of(place.id);
                sure.proven.extend(contact.map(|c| (place.id, entry(c))));
            }
            sure.asked = sure.proven.len() as u32;
            self.sures.open.insert(id, sure);
            return self.all_found(id, cx);
        }
        let paths = match sure.purpose {
            Purpose::Confirm(_, _, paths) => usize::from(paths),
            Purpose::Get(..) | Purpose::Put(_) => PATHS,
        };
        self.sures.open.insert(id, sure);
        self.look(id, target, paths, cx);
    }

    fn look(&mut self, id: u64, target: Position, paths: usize, cx: &mut Cx<'_>) {
        let token = self.holder.token();
        self.sures.searches.insert(token, id);
        if let Some(sure) = self.sures.open.get_mut(&id) {
            sure.searches += 1;
        }
        cx.search(token, target, paths);
    }

    /// A lookup ended.
    pub(super) fn searched(
        &mut self,
        token: u64,
        found: Vec<Entry>,
        ends: Vec<Option<NodeId>>,
        asked: u32,
        cx: &mut Cx<'_>,
    ) {
        let Some(id) = self.sures.searches.remove(&token) else {
            return;
        };
        let Some(sure) = self.sures.open.get_mut(&id) else {
            return;
        };
        sure.searches -= 1;
        sure.asked += asked;
        if !sure.wide {
            sure.ends = ends;
        }
        found.into_iter().for_each(|entry| sure.note(entry));
        if sure.searches == 0 {
            self.all_found(id, cx);
        }
    }

    /// Decides whether the region has to be looked at too.
    fn all_found(&mut self, id: u64, cx: &mut Cx<'_>) {
        let Some(sure) = self.sures.open.get_mut(&id) else {
            return;
        };
        let nearest: Vec<Entry> = sure.nearest(REPLICAS, cx);
        if !sure.wide && !knows_all(cx) {
            sure.density = cx.overlay().density(sure.target, &nearest);
            if sure.density != Density::Usual {
                return self.widen(id, cx);
            }
        }
        self.go_on(id, cx);
    }

    /// Looks up the places around the key.
    fn widen(&mut self, id: u64, cx: &mut Cx<'_>) {
        let Some(sure) = self.sures.open.get_mut(&id) else {
            return;
        };
        sure.wide = true;
        sure.stage = Stage::Searching;
        let (target, reach) = (sure.target, region(cx));
        for part in [reach / 2, reach] {
            self.look(id, target.advance(part), PATHS_AROUND, cx);
            let before = target.advance(0_u64.wrapping_sub(part));
            self.look(id, before, PATHS_AROUND, cx);
        }
    }

    /// All nodes are known: the record is sent, or asked for.
    fn go_on(&mut self, id: u64, cx: &mut Cx<'_>) {
        let Some(sure) = self.sures.open.get_mut(&id) else {
            return;
        };
        sure.choose(cx);
        match (&sure.purpose, sure.key) {
            (Purpose::Put(putting), _) => {
                let (token, record) = (id, putting.record.clone());
                let message = DhtMessage::Keep { token, record };
                self.ask_chosen(id, Stage::Keeping, &message, cx);
            }
            (Purpose::Get(..) | Purpose::Confirm(..), Some(key)) => self.fetch(id, key, cx),
            (Purpose::Get(..) | Purpose::Confirm(..), None) => self.judge(id, cx),
        }
    }

    fn fetch(&mut self, id: u64, key: Key, cx: &mut Cx<'_>) {
        let message = DhtMessage::Fetch {
            token: id,
            key,
            known: None,
        };
        self.ask_chosen(id, Stage::Fetching, &message, cx);
    }

    fn ask_chosen(&mut self, id: u64, stage: Stage, message: &DhtMessage, cx: &mut Cx<'_>) {
        let Some(sure) = self.sures.open.get_mut(&id) else {
            return;
        };
        sure.stage = stage;
        sure.waiting = sure.chosen.iter().copied().collect();
        let contacts = sure.chosen.iter().filter_map(|id| sure.proven.get(id));
        for entry in contacts {
            cx.send(entry.contact.clone(), message.encode());
        }
        self.deadlines
            .set(Alarm::Sure(id), cx.now() + REPLY_TIMEOUT);
        if sure.waiting.is_empty() {
            self.sure_timed_out(id, cx);
        }
    }

    /// Takes a holder's word on a record; tells whether it was awaited here. Word alone
    /// proves nothing: what it has is asked for afterwards.
    pub(super) fn sure_kept(&mut self, from: NodeId, token: u64, cx: &mut Cx<'_>) -> bool {
        let Some(sure) = self.sures.open.get_mut(&token) else {
            return false;
        };
        if sure.stage == Stage::Keeping && sure.waiting.remove(&from) && sure.waiting.is_empty() {
            self.sure_timed_out(token, cx);
        }
        true
    }

    /// Takes what a holder has; tells whether it was awaited here.
    pub(super) fn sure_fetched(
        &mut self,
        from: NodeId,
        token: u64,
        records: &[Aged],
        cx: &mut Cx<'_>,
    ) -> bool {
        let Some(sure) = self.sures.open.get_mut(&token) else {
            return false;
        };
        if sure.stage != Stage::Fetching || !sure.waiting.remove(&from) {
            return true;
        }
        let of_key = records.iter().map(|aged| &aged.record);
        let of_key = of_key.filter(|record| Some(record.key()) == sure.key);
        sure.votes.cast(from, of_key);
        if sure.waiting.is_empty() {
            self.sure_timed_out(token, cx);
        }
        true
    }

    /// Everyone has answered, or waiting has lasted long enough.
    pub(super) fn sure_timed_out(&mut self, id: u64, cx: &mut Cx<'_>) {
        self.deadlines.cancel(Alarm::Sure(id));
        let Some(sure) = self.sures.open.get(&id) else {
            return;
        };
        match (sure.stage, sure.key) {
            (Stage::Keeping, Some(key)) => self.fetch(id, key, cx),
            (Stage::Keeping | Stage::Searching | Stage::Fetching, _) => self.judge(id, cx),
        }
    }

    /// Everything is there that will come: ends it, or looks further.
    fn judge(&mut self, id: u64, cx: &mut Cx<'_>) {
        let Some(sure) = self.sures.open.get_mut(&id) else {
            return;
        };
        let further = match &sure.purpose {
            Purpose::Put(putting) => !sure.spread && !sure.is_settled(&putting.record),
            Purpose::Get(..) | Purpose::Confirm(_, Subject::Key(_), _) => {
                !sure.wide && sure.votes.len() < majority(sure.chosen.len()) as usize
            }
            Purpose::Confirm(..) => false,
        };
        if further && !knows_all(cx) {
            sure.spread = true;
            return match sure.purpose {
                Purpose::Put(_) => self.go_on(id, cx),
                Purpose::Get(..) | Purpose::Confirm(..) => self.widen(id, cx),
            };
        }
        if let Some(sure) = self.sures.open.remove(&id) {
            self.end_sure(sure, cx);
        }
    }

    fn end_sure(&mut self, mut sure: Sure, cx: &mut Cx<'_>) {
        let nobody = Purpose::Get(Caller::Host(0), Key::MIN);
        match std::mem::replace(&mut sure.purpose, nobody) {
            Purpose::Put(putting) => self.end_sure_put(*putting, &sure, cx),
            Purpose::Get(caller, _) => {
                let answer = match sure.votes.is_empty() {
                    true => GetAnswer::Failed,
                    false => GetAnswer::Records(sure.votes.live()),
                };
                cx.emit(Event::Got { caller, answer });
            }
            Purpose::Confirm(caller, subject, _) => {
                let confirmation = sure.confirmation(subject, cx);
                cx.emit(Event::Confirmed {
                    caller,
                    confirmation,
                });
            }
        }
    }

    fn end_sure_put(&mut self, putting: Putting, sure: &Sure, cx: &mut Cx<'_>) {
        let seq = putting.record.content().seq;
        let replicas = sure.votes.counting(&sure.counted, &putting.record);
        match sure.votes.newer_than(&putting.record) {
            _ if sure.is_settled(&putting.record) => {
                self.end_put(&putting, PutAnswer::Stored { seq, replicas }, cx);
            }
            Some(above) => self.raise(putting, above, cx),
            None if sure.votes.is_taken(&putting.record) => {
                self.end_put(&putting, PutAnswer::Taken, cx);
            }
            None => self.end_put(&putting, PutAnswer::Failed, cx),
        }
    }

    /// Ends sure puts of earlier versions.
    pub(super) fn supersede_sure(&mut self, slot: (Key, NodeId), cx: &mut Cx<'_>) {
        let same = |sure: &Sure| matches!(&sure.purpose, Purpose::Put(p) if p.slot() == slot);
        let open = self.sures.open.iter().filter(|(_, sure)| same(sure));
        let older: Vec<u64> = open.map(|(id, _)| *id).collect();
        for id in older {
            self.deadlines.cancel(Alarm::Sure(id));
            let Some(sure) = self.sures.open.remove(&id) else {
                continue;
            };
            if let Purpose::Put(putting) = sure.purpose
                && let Some(caller) = putting.caller
            {
                let answer = PutAnswer::Failed;
                cx.emit(Event::PutDone { caller, answer });
            }
        }
    }
}

impl Purpose {
    /// Returns where it is about, and which record if it is about one.
    fn target(&self, cx: &Cx<'_>) -> (Position, Option<Key>) {
        let of_key = |key: Key| (key.position(), Some(key));
        match self {
            Self::Get(_, key) => of_key(*key),
            Self::Put(putting) => of_key(putting.record.key()),
            Self::Confirm(_, Subject::Key(key), _) => of_key(*key),
            Self::Confirm(_, Subject::Node(node), _) => (cx.overlay().position_of(node), None),
            Self::Confirm(_, Subject::Place(place), _) => (*place, None),
        }
    }
}

impl Sure {
    fn note(&mut self, entry: Entry) {
        if self.proven.len() < PROVEN_MAX {
            self.proven.insert(entry.contact.id(), entry);
        }
    }

    /// Returns the nearest nodes that proved to be there, nearest first.
    fn nearest(&self, count: usize, cx: &Cx<'_>) -> Vec<Entry> {
        let rank = |entry: &Entry| {
            let position = cx.overlay().position_of(&entry.contact.id());
            self.target.rank(position)
        };
        let mut all: Vec<_> = self.proven.values().map(|e| (rank(e), e)).collect();
        all.sort_by_key(|(rank, entry)| (*rank, entry.contact.id()));
        let nearest = all.into_iter().take(count);
        nearest.map(|(_, entry)| entry.clone()).collect()
    }

    /// Chooses whom to ask.
    fn choose(&mut self, cx: &Cx<'_>) {
        let count = match self.purpose {
            Purpose::Put(_) if !self.spread => REPLICAS,
            Purpose::Put(_) => SPREAD,
            Purpose::Get(..) | Purpose::Confirm(..) => ASKED,
        };
        let nearest = self.nearest(count, cx);
        self.chosen = nearest.iter().map(|entry| entry.contact.id()).collect();
        self.counted = self.chosen.clone();
        if self.wide {
            self.counted = self.cells(cx);
            for id in &self.counted {
                if !self.chosen.contains(id) {
                    self.chosen.push(*id);
                }
            }
            self.chosen.truncate(WIDE_MAX);
        }
    }

    /// Returns for each cell of the region the node nearest to the key, if there is one.
    fn cells(&self, cx: &Cx<'_>) -> Vec<NodeId> {
        let reach = region(cx);
        let start = self.target.advance(0_u64.wrapping_sub(reach));
        let width = (reach / CELLS).max(1) * 2;
        let mut cells: BTreeMap<u64, NodeId> = BTreeMap::new();
        for entry in self.nearest(PROVEN_MAX, cx) {
            let id = entry.contact.id();
            let cell = start.clockwise(cx.overlay().position_of(&id)) / width;
            if cell < CELLS {
                cells.entry(cell).or_insert(id);
            }
        }
        cells.into_values().collect()
    }

    /// Tells whether enough of those that count showed the record.
    fn is_settled(&self, record: &Record) -> bool {
        let needed = majority(self.counted.len().min(REPLICAS));
        self.votes.counting(&self.counted, record) >= needed
    }

    fn confirmation(&self, subject: Subject, cx: &Cx<'_>) -> Confirmation {
        let me = cx.me();
        let nearest = self.nearest(REPLICAS, cx).into_iter();
        let nearest: Vec<NodeId> = nearest.map(|entry| entry.contact.id()).collect();
        let records = self.votes.live();
        let shows = |id: &NodeId| records.first().is_some_and(|r| self.votes.shows(*id, r));
        let end = match subject {
            Subject::Node(node) => Some(node),
            Subject::Place(_) => nearest.iter().copied().find(|id| *id != me),
            Subject::Key(_) => None,
        };
        let agrees = |id: &NodeId| match end {
            Some(end) => *id == end,
            None => shows(id),
        };
        let paths = self.ends.iter().flatten().count() as u32;
        let agreeing = self.ends.iter().flatten().filter(|id| agrees(id)).count() as u32;
        let holders = records
            .first()
            .map_or(0, |record| self.votes.counting(&self.chosen, record));
        let (found, most) = match subject {
            Subject::Node(node) => {
                let small = paths == 0 && knows_all(cx);
                let found = self.proven.contains_key(&node);
                (found, small || agreeing * 2 > paths)
            }
            Subject::Place(_) => (!nearest.is_empty(), agreeing * 2 >= paths),
            Subject::Key(_) => {
                let needed = majority(self.chosen.len().min(REPLICAS));
                (holders > 0, holders >= needed)
            }
        };
        Confirmation {
            verdict: match (found, most) {
                (true, true) => Verdict::Confirmed,
                (true, false) => Verdict::Disputed,
                (false, _) => Verdict::Unknown,
            },
            paths,
            agreeing,
            asked: self.asked,
            nearest,
            holders,
            records,
            unusual: self.density != Density::Usual,
        }
    }
}

/// Tells whether all of the ring are neighbours: nobody else is to be found. A client has no
/// place on the ring and knows nobody there but its hosts.
fn knows_all(cx: &Cx<'_>) -> bool {
    !cx.overlay().is_client() && cx.overlay().near().spans_ring()
}

/// Returns how far from a suspicious key nodes count as of its region, on either side: as
/// far as twelve nodes are expected, so that hardly ever fewer than five honest ones are.
fn region(cx: &Cx<'_>) -> u64 {
    cx.overlay().reach(2 * REPLICAS as u64)
}

/// Tells whether a key lies where this node may be asked to keep it: within one and a half
/// times the region, for the estimates of the ring's size differ.
pub(super) fn may_keep(key: Key, cx: &Cx<'_>) -> bool {
    let distance = key.position().distance(cx.overlay().position());
    let reach = cx.overlay().reach(3 * REPLICAS as u64);
    distance <= reach
        || cx
            .overlay()
            .near()
            .arc_held(REPLICAS)
            .contains(key.position())
}

fn entry(contact: Contact) -> Entry {
    Entry {
        contact,
        role: Role::Near,
        coordinate: Coordinate::default(),
        grade: enishi_overlay::class::Grade::default(),
    }
}
