//! The address book: where nodes were said to be or were met, and when the next
//! dial is due.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use enishi_overlay::NodeId;
use enishi_overlay::contact::ADDRESSES_MAX;

use super::addresses::is_dialable;

/// The most nodes in the book; the one not looked at for longest gives way.
pub const BOOK_MAX: usize = 4_096;

/// The wait after a first failed dial; it doubles with each further failure.
const BACKOFF_MIN: Duration = Duration::from_millis(200);

/// The longest wait between two dials of one node.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// What is known of nodes by id, bounded.
pub(super) struct Book {
    entries: HashMap<NodeId, Entry>,
    by_use: BTreeMap<u64, NodeId>,
    uses: u64,
}

#[derive(Default)]
struct Entry {
    /// Hints, newest first; anyone may have written them.
    addresses: Vec<SocketAddr>,
    /// Where a session was last open: hints cannot push it out.
    proven: Option<SocketAddr>,
    failures: u32,
    not_before: Option<Instant>,
    used: u64,
}

impl Book {
    pub(super) fn new() -> Self {
        Self {
            entries: HashMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
        }
    }

    /// Adds hints, and tells whether one of them is new.
    ///
    /// A new address lifts the wait before the next dial: the node may have moved.
    pub(super) fn remember(&mut self, id: NodeId, hints: &[SocketAddr]) -> bool {
        let hints: Vec<_> = hints.iter().copied().filter(is_dialable).collect();
        let Some(entry) = self.entry(id, !hints.is_empty()) else {
            return false;
        };
        let known = |a: &SocketAddr| entry.addresses.contains(a) || entry.proven == Some(*a);
        let fresh = !hints.iter().all(known);
        for address in hints.into_iter().rev() {
            entry.addresses.retain(|a| *a != address);
            entry.addresses.insert(0, address);
        }
        entry.addresses.truncate(ADDRESSES_MAX);
        if fresh {
            entry.not_before = None;
        }
        fresh
    }

    /// Returns where to dial a node, at most [`ADDRESSES_MAX`] + 1 addresses.
    pub(super) fn addresses(&mut self, id: NodeId) -> Vec<SocketAddr> {
        let Some(entry) = self.entry(id, false) else {
            return Vec::new();
        };
        let hints = entry.addresses.iter().copied();
        let hints = hints.filter(|a| Some(*a) != entry.proven);
        entry.proven.into_iter().chain(hints).collect()
    }

    /// Notes that a session is open, at `address` if that is an IP address.
    pub(super) fn met(&mut self, id: NodeId, address: Option<SocketAddr>) {
        if let Some(entry) = self.entry(id, address.is_some()) {
            entry.proven = address.or(entry.proven);
            entry.failures = 0;
            entry.not_before = None;
        }
    }

    /// Tells whether a session with the node was ever open, as far as the book remembers.
    pub(super) fn has_met(&self, id: NodeId) -> bool {
        let entry = self.entries.get(&id);
        entry.is_some_and(|entry| entry.proven.is_some())
    }

    /// Notes that a dial failed, and puts the next one off.
    pub(super) fn failed(&mut self, id: NodeId, now: Instant) {
        if let Some(entry) = self.entry(id, false) {
            let wait = BACKOFF_MIN * 2_u32.pow(entry.failures.min(8));
            entry.failures = entry.failures.saturating_add(1);
            entry.not_before = Some(now + wait.min(BACKOFF_MAX));
        }
    }

    /// Some addresses can be reached that could not be: the nodes there are dialled without waiting.
    /// Returns them.
    pub(super) fn is_reached_now(&mut self, is_it: impl Fn(&SocketAddr) -> bool) -> Vec<NodeId> {
        let mut reached = Vec::new();
        for (id, entry) in &mut self.entries {
            if entry.addresses.iter().chain(&entry.proven).any(&is_it) {
                entry.not_before = None;
                reached.push(*id);
            }
        }
        reached
    }

    /// Returns the moment before which the node is not to be dialled again.
    pub(super) fn not_before(&self, id: NodeId) -> Option<Instant> {
        self.entries.get(&id)?.not_before
    }

    /// Returns the entry of a node as the most recently used one.
    fn entry(&mut self, id: NodeId, make: bool) -> Option<&mut Entry> {
        if !make && !self.entries.contains_key(&id) {
            return None;
        }
        self.uses += 1;
        let used = self.uses;
        let entry = self.entries.entry(id).or_default();
        self.by_use.remove(&entry.used);
        self.by_use.insert(used, id);
        entry.used = used;
        if self.by_use.len() > BOOK_MAX
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.entries.remove(&oldest);
        }
        self.entries.get_mut(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> NodeId {
        let mut octets = [0; 32];
        octets[..8].copy_from_slice(&n.to_le_bytes());
        NodeId::from_bytes(octets)
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn hints_cannot_push_out_a_proven_address() {
        let mut book = Book::new();
        book.met(id(1), Some(address(1)));
        for port in 2..100 {
            assert!(book.remember(id(1), &[address(port)]));
        }
        let addresses = book.addresses(id(1));
        assert_eq!(addresses[..2], [address(1), address(99)]);
        assert_eq!(addresses.len(), ADDRESSES_MAX + 1);
    }

    #[test]
    fn failures_put_off_the_next_dial_until_something_new_is_known() {
        let (mut book, now) = (Book::new(), Instant::now());
        book.remember(id(1), &[address(1)]);
        let mut wait = || {
            book.failed(id(1), now);
            book.not_before(id(1)).unwrap() - now
        };
        assert_eq!(wait(), BACKOFF_MIN);
        assert_eq!(wait(), 2 * BACKOFF_MIN);
        assert_eq!((0..20).map(|_| wait()).last(), Some(BACKOFF_MAX));
        assert!(!book.remember(id(1), &[address(1)]));
        assert!(book.not_before(id(1)).is_some());
        assert!(book.remember(id(1), &[address(2)]));
        assert!(book.not_before(id(1)).is_none());
    }

    #[test]
    fn who_can_be_reached_now_is_not_waited_for() {
        let (mut book, now) = (Book::new(), Instant::now());
        book.remember(id(1), &[address(1), address(2)]);
        book.remember(id(2), &[address(3)]);
        book.met(id(3), Some(address(2)));
        for number in 1..=3 {
            book.failed(id(number), now);
        }
        let mut reached = book.is_reached_now(|at| *at == address(2));
        reached.sort();
        assert_eq!(reached, [id(1), id(3)]);
        let waits = [1, 2, 3].map(|number| book.not_before(id(number)).is_some());
        assert_eq!(waits, [false, true, false]);
    }

    #[test]
    fn the_book_is_bounded() {
        let mut book = Book::new();
        for n in 0..=BOOK_MAX {
            book.remember(id(n), &[address(1)]);
            book.addresses(id(0));
        }
        assert_eq!(book.entries.len(), BOOK_MAX);
        assert_eq!(book.by_use.len(), BOOK_MAX);
        assert!(!book.addresses(id(0)).is_empty());
        assert!(book.addresses(id(1)).is_empty());
    }
}
