//! Who is connected, and which of several connections to one peer counts.
//!
//! Two nodes that dial each other at the same moment have two connections for a
//! while, and a peer that crashed and came back dials beside the corpse of its old
//! connection. The table knows them as *lines* of one peer and names the current
//! one by a rule which both ends can apply without asking each other
//! ([`preferred`]). It touches no socket and reads no clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use enishi_overlay::NodeId;
use tokio::sync::{Notify, watch};

use super::queue::{Budget, ControlQueue};

/// Two connections opened within this time of each other count as dialled at once.
///
/// As long as one dial may take: a later connection cannot be the other half of a
/// simultaneous dial.
pub(super) const SIMULTANEOUS_MAX: Duration = Duration::from_secs(5);

/// The most connections that one peer may hold at a time; the oldest gives way.
pub(super) const LINES_PER_PEER_MAX: usize = 4;

/// The most peers that may wait for a dial to end.
pub(super) const DIALS_PENDING_MAX: usize = 256;

/// How many of them may be strangers, with whom there was never a session: whoever names
/// many nodes that are not there cannot keep this one from dialling those it knows.
pub(super) const STRANGERS_PENDING_MAX: usize = 192;

/// Names one connection among all that a node ever had.
pub(super) type LineId = u64;

/// The connection that counts for a peer, and its name; `None` when there is none.
pub(super) type Current<C> = Option<(LineId, C)>;

/// All peers with a connection or a dial under way.
pub(super) struct Table<C> {
    peers: HashMap<NodeId, Peer<C>>,
    lines: usize,
    dials: usize,
    strangers: usize,
    budget: Arc<Budget>,
    next_line: LineId,
}

struct Peer<C> {
    queue: Arc<ControlQueue>,
    current: watch::Sender<Current<C>>,
    lines: Vec<Line<C>>,
    dial: Option<Dial>,
}

struct Dial {
    wake: Arc<Notify>,
    stranger: bool,
}

#[derive(Clone)]
struct Line<C> {
    id: LineId,
    dialler: NodeId,
    opened: Instant,
    incarnation: Option<u64>,
    connection: C,
}

/// What a sender gets of a peer: where to put frames, which connection counts, and
/// a dial to start when there is neither connection nor dial.
pub(super) struct Entry<C> {
    pub(super) queue: Arc<ControlQueue>,
    pub(super) current: watch::Receiver<Current<C>>,
    pub(super) start_dial: Option<Arc<Notify>>,
}

/// What a new connection gets.
pub(super) struct Admission<C> {
    pub(super) line: LineId,
    pub(super) queue: Arc<ControlQueue>,
    /// A connection that had to give way at once, over [`LINES_PER_PEER_MAX`].
    pub(super) evicted: Option<C>,
}

/// What is left of a peer after a connection or a dial ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Another connection or a dial serves the peer.
    Served,
    /// Nothing serves it; so many control frames were waiting and are lost.
    Nothing { frames: usize },
}

impl<C: Clone> Table<C> {
    pub(super) fn new() -> Self {
        Self {
            peers: HashMap::new(),
            lines: 0,
            dials: 0,
            strangers: 0,
            budget: Arc::default(),
            next_line: 0,
        }
    }

    /// Returns how many connections there are, those about to be closed included.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    /// Finds or makes the entry of a peer; `None` when too many dials are pending, which a
    /// stranger meets sooner.
    pub(super) fn enter(&mut self, peer: NodeId, stranger: bool) -> Option<Entry<C>> {
        let known = self.peers.contains_key(&peer);
        let full = self.dials >= DIALS_PENDING_MAX
            || (stranger && self.strangers >= STRANGERS_PENDING_MAX);
        if !known && full {
            return None;
        }
        let entry = peer_entry(&mut self.peers, &self.budget, peer);
        let start_dial = (!known).then(|| {
            let wake = Arc::new(Notify::new());
            let dial = Arc::clone(&wake);
            entry.dial = Some(Dial { wake, stranger });
            self.dials += 1;
            self.strangers += usize::from(stranger);
            dial
        });
        Some(Entry {
            queue: Arc::clone(&entry.queue),
            current: entry.current.subscribe(),
            start_dial,
        })
    }

    /// Tells whether a dial of the peer is under way.
    pub(super) fn is_dialling(&self, peer: NodeId) -> bool {
        self.peers
            .get(&peer)
            .is_some_and(|peer| peer.dial.is_some())
    }

    /// Wakes the dial of a peer, because something that it should look at changed.
    pub(super) fn wake_dial(&self, peer: NodeId) {
        if let Some(dial) = self.peers.get(&peer).and_then(|p| p.dial.as_ref()) {
            dial.wake.notify_one();
        }
    }

    /// Adds a connection that `dialler` opened at `now`.
    pub(super) fn admit(
        &mut self,
        peer: NodeId,
        dialler: NodeId,
        now: Instant,
        connection: C,
    ) -> Admission<C> {
        let line = self.next_line;
        self.next_line += 1;
        let entry = peer_entry(&mut self.peers, &self.budget, peer);
        let evicted =
            (entry.lines.len() >= LINES_PER_PEER_MAX).then(|| entry.lines.remove(0).connection);
        entry.lines.push(Line {
            id: line,
            dialler,
            opened: now,
            incarnation: None,
            connection,
        });
        if evicted.is_none() {
            self.lines += 1;
        }
        entry.settle();
        Admission {
            line,
            queue: Arc::clone(&entry.queue),
            evicted,
        }
    }

    /// Notes which life of the peer's process is at the other end of a connection. Tells
    /// whether it is the first sign of that life, while a connection to an earlier one is open.
    pub(super) fn identify(&mut self, peer: NodeId, line: LineId, incarnation: u64) -> bool {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return false;
        };
        let mut lives = entry.lines.iter().filter_map(|l| l.incarnation).peekable();
        let is_another = lives.peek().is_some() && lives.all(|life| life != incarnation);
        let line = entry.lines.iter_mut().find(|l| l.id == line);
        let Some(line) = line else {
            return false;
        };
        line.incarnation = Some(incarnation);
        entry.settle();
        is_another
    }

    /// Takes a connection out; unknown ones are ignored.
    pub(super) fn remove(&mut self, peer: NodeId, line: LineId) -> Left {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return Left::Nothing { frames: 0 };
        };
        let before = entry.lines.len();
        entry.lines.retain(|l| l.id != line);
        self.lines -= before - entry.lines.len();
        entry.settle();
        self.forget_if_unused(peer)
    }

    /// Ends the dial of a peer, whatever came of it.
    pub(super) fn end_dial(&mut self, peer: NodeId) -> Left {
        if let Some(entry) = self.peers.get_mut(&peer)
            && let Some(dial) = entry.dial.take()
        {
            self.dials -= 1;
            self.strangers -= usize::from(dial.stranger);
        }
        self.forget_if_unused(peer)
    }

    /// Takes all connections of a peer out and drops its waiting frames.
    pub(super) fn cut(&mut self, peer: NodeId) -> Vec<C> {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return Vec::new();
        };
        let lines = std::mem::take(&mut entry.lines);
        self.lines -= lines.len();
        entry.queue.clear();
        entry.settle();
        self.forget_if_unused(peer);
        lines.into_iter().map(|line| line.connection).collect()
    }

    /// Returns all connections of a peer.
    pub(super) fn lines_of(&self, peer: NodeId) -> Vec<C> {
        let entry = self.peers.get(&peer);
        let lines = entry.into_iter().flat_map(|entry| &entry.lines);
        lines.map(|line| line.connection.clone()).collect()
    }

    /// Returns the connection that counts for a peer.
    pub(super) fn current(&self, peer: NodeId) -> Option<C> {
        let current = self.peers.get(&peer)?.current.borrow();
        current.as_ref().map(|(_, connection)| connection.clone())
    }

    /// Returns a receiver that follows the connection which counts for a peer.
    pub(super) fn follow(&self, peer: NodeId) -> Option<watch::Receiver<Current<C>>> {
        let entry = self.peers.get(&peer)?;
        let connected = entry.current.borrow().is_some();
        connected.then(|| entry.current.subscribe())
    }

    /// Tells whether another connection of the peer counts in place of this one.
    pub(super) fn is_superseded(&self, peer: NodeId, line: LineId) -> bool {
        let Some(entry) = self.peers.get(&peer) else {
            return false;
        };
        entry
            .current
            .borrow()
            .as_ref()
            .is_some_and(|(current, _)| *current != line)
    }

    /// Lists the connected peers, each with the connection that counts.
    pub(super) fn connected(&self) -> Vec<(NodeId, C)> {
        let current = |(id, peer): (&NodeId, &Peer<C>)| {
            let current = peer.current.borrow();
            current.as_ref().map(|(_, c)| (*id, c.clone()))
        };
        self.peers.iter().filter_map(current).collect()
    }

    /// Lists the queues of all peers.
    pub(super) fn queues(&self) -> Vec<Arc<ControlQueue>> {
        self.peers.values().map(|p| Arc::clone(&p.queue)).collect()
    }

    fn forget_if_unused(&mut self, peer: NodeId) -> Left {
        let Some(entry) = self.peers.get(&peer) else {
            return Left::Nothing { frames: 0 };
        };
        if !entry.lines.is_empty() || entry.dial.is_some() {
            return Left::Served;
        }
        let frames = entry.queue.clear();
        self.peers.remove(&peer);
        Left::Nothing { frames }
    }
}

/// Finds or makes the entry of a peer.
fn peer_entry<'a, C: Clone>(
    peers: &'a mut HashMap<NodeId, Peer<C>>,
    budget: &Arc<Budget>,
    peer: NodeId,
) -> &'a mut Peer<C> {
    let make = || Peer::new(Arc::clone(budget));
    peers.entry(peer).or_insert_with(make)
}

impl<C: Clone> Peer<C> {
    fn new(budget: Arc<Budget>) -> Self {
        Self {
            queue: Arc::new(ControlQueue::new(budget)),
            current: watch::Sender::new(None),
            lines: Vec::new(),
            dial: None,
        }
    }

    /// Names the connection that counts and hands it the queue.
    fn settle(&self) {
        let current = preferred(&self.lines).map(|line| (line.id, line.connection.clone()));
        let id = current.as_ref().map(|(id, _)| *id);
        self.queue.set_owner(id);
        self.current.send_if_modified(|value| {
            let changed = value.as_ref().map(|(id, _)| *id) != id;
            *value = current;
            changed
        });
    }
}

/// Returns the connection that counts among those of one peer, oldest first.
///
/// Connections to an earlier life of the peer never count. Of two dialled by
/// different ends within [`SIMULTANEOUS_MAX`] the one of the smaller id counts;
/// otherwise the newest.
fn preferred<C>(lines: &[Line<C>]) -> Option<&Line<C>> {
    let life = lines.iter().rev().find_map(|line| line.incarnation);
    lines
        .iter()
        .filter(|line| line.incarnation.is_none() || line.incarnation == life)
        .reduce(|best, line| {
            let apart = line.opened.saturating_duration_since(best.opened);
            let simultaneous = apart < SIMULTANEOUS_MAX && best.dialler != line.dialler;
            if simultaneous && best.dialler < line.dialler {
                best
            } else {
                line
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: NodeId = NodeId::from_bytes([1; 32]);
    const LARGE: NodeId = NodeId::from_bytes([2; 32]);

    fn after(start: Instant, secs: u64) -> Instant {
        start + Duration::from_secs(secs)
    }

    #[test]
    fn of_two_dialled_at_once_both_ends_keep_the_one_of_the_smaller_id() {
        let now = Instant::now();
        for (first, second) in [(SMALL, LARGE), (LARGE, SMALL)] {
            let mut table = Table::new();
            table.admit(LARGE, first, now, first);
            table.admit(LARGE, second, after(now, 1), second);
            assert_eq!(table.current(LARGE), Some(SMALL));
        }
    }

    #[test]
    fn later_the_newest_counts() {
        let now = Instant::now();
        let mut table = Table::new();
        let old = table.admit(LARGE, SMALL, now, "old");
        let new = table.admit(LARGE, LARGE, after(now, 6), "new");
        assert_eq!(table.current(LARGE), Some("new"));
        assert!(table.is_superseded(LARGE, old.line));
        assert_eq!(table.remove(LARGE, new.line), Left::Served);
        assert_eq!(table.current(LARGE), Some("old"));
        assert!(!table.is_superseded(LARGE, old.line));
    }

    #[test]
    fn the_corpse_of_an_earlier_life_does_not_count() {
        let now = Instant::now();
        let mut table = Table::new();
        let corpse = table.admit(LARGE, SMALL, now, "corpse");
        assert!(!table.identify(LARGE, corpse.line, 1));
        let fresh = table.admit(LARGE, LARGE, after(now, 1), "fresh");
        assert_eq!(table.current(LARGE), Some("corpse"));
        assert!(table.identify(LARGE, fresh.line, 2));
        assert_eq!(table.current(LARGE), Some("fresh"));
        let other = table.admit(LARGE, SMALL, after(now, 2), "other");
        assert!(!table.identify(LARGE, other.line, 2), "that is known");
    }

    #[test]
    fn the_oldest_of_too_many_gives_way() {
        let mut table = Table::new();
        for n in 0..LINES_PER_PEER_MAX {
            assert!(
                table
                    .admit(LARGE, LARGE, Instant::now(), n)
                    .evicted
                    .is_none()
            );
        }
        let admission = table.admit(LARGE, LARGE, Instant::now(), 99);
        assert_eq!(admission.evicted, Some(0));
        assert_eq!(table.lines(), LINES_PER_PEER_MAX);
    }

    #[test]
    fn a_peer_is_forgotten_with_its_last_connection_and_dial() {
        let mut table = Table::new();
        let entry = table.enter(LARGE, true).unwrap();
        assert!(entry.start_dial.is_some());
        entry.queue.push(bytes::Bytes::new()).unwrap();
        assert!(table.enter(LARGE, true).unwrap().start_dial.is_none());
        let line = table.admit(LARGE, SMALL, Instant::now(), ()).line;
        assert_eq!(table.end_dial(LARGE), Left::Served);
        assert_eq!(table.remove(LARGE, line), Left::Nothing { frames: 1 });
        assert!(table.follow(LARGE).is_none());
        assert!(entry.current.has_changed().is_err());
        assert!(entry.current.borrow().is_none());
    }

    #[test]
    fn dials_are_bounded_and_strangers_leave_room() {
        let mut table = Table::<()>::new();
        let id = |n: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_le_bytes());
            NodeId::from_bytes(id)
        };
        for n in 0..DIALS_PENDING_MAX {
            let stranger = n < STRANGERS_PENDING_MAX;
            assert!(table.enter(id(n), stranger).is_some());
            if n + 1 >= STRANGERS_PENDING_MAX {
                assert!(table.enter(LARGE, true).is_none());
            }
        }
        assert!(table.enter(LARGE, false).is_none());
        table.end_dial(id(0));
        assert!(table.enter(LARGE, true).is_some());
    }
}
