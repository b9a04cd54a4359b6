//! The pages of a channel's directory, and which of them a member is in.
//!
//! A page is one record of the DHT with an entry of each of some members. The first page is all
//! that a small channel has. What follows keeps three things true, without anybody in charge:
//!
//! - No page has more entries than one answer carries: who comes takes the lowest page that has
//!   less than [`PAGE`] of others, and of too many in one page those last in order go on.
//! - Who reads page after page up to the first that is not half full misses nobody: when pages
//!   empty, those in the last one fill them up.
//! - Nobody moves back and forth: a page is left downwards only when fewer pages would do, with
//!   room to spare.
//!
//! Who moves is in both pages until it has found itself in the new one, and everybody has had the
//! time to read it there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use enishi_overlay::{NodeId, Rng, Time};

use super::members::MEMBERS_INTERVAL;
use crate::dht::wire::RECORDS_BYTES_MAX;
use crate::record::{RECORD_BYTES, Record, SEALED_BYTES_MAX};

/// How many entries make a page full: with the longest credentials, and some that come at the same
/// time, they fit one answer.
const PAGE: usize = 24;
/// How many entries a page may have before some of them go on.
const PAGE_MOST: usize = 28;
/// On how many entries each page, members leave the last one.
const PAGE_SPARSE: usize = 18;
/// With fewer entries a page is filled up from the last one.
const PAGE_LOW: usize = 16;
/// From how many entries on readers look for a further page.
const PAGE_HALF: usize = 12;
/// How many octets make a page full, however few entries they are.
const BYTES_FULL: usize = RECORDS_BYTES_MAX / 4 * 3;
/// Up to how many octets nothing can have been left out of an answer.
const BYTES_WHOLE: usize = RECORDS_BYTES_MAX - SEALED_BYTES_MAX - RECORD_BYTES;
/// The most pages of a directory.
pub(super) const PAGES_MAX: u8 = 64;
/// How many pages are read at once, except by a newcomer, who reads all.
const ROUND_PAGES: u8 = 8;
/// In how many passes a page that is half full, but not full, is taken for the last until the next
/// look behind it.
const LOOK_BEHIND: u32 = 8;
/// How long an answer is waited for before the directory is read again.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How long what a member has said itself may be newer than its entry.
const SAID_FOR: Duration = Duration::from_secs(10);
/// Of how many members that is remembered.
const SAID_MAX: usize = 1024;
/// How long an entry that was put may not be found in its page.
const ENTRY_WAIT: Duration = Duration::from_secs(2);
/// How long a put may take: an entry that is not found after that is put again.
const PUT_WAIT: Duration = Duration::from_secs(30);
/// In how many pages besides its own a node remembers that it has entries still.
const LEFT_MAX: usize = 2;

/// What was found in a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// How many entries of others.
    pub(super) others: usize,
    /// How many of them come before this node's own, if that is there.
    pub(super) rank: Option<usize>,
    /// How many octets all of it is.
    pub(super) bytes: usize,
}

impl Page {
    /// What nobody answered for: none should go there.
    const UNKNOWN: Self = Self {
        others: PAGE,
        rank: None,
        bytes: 0,
    };

    /// Counts what was found, whatever it may be: it takes room.
    pub(super) fn of(records: &[Record], mine: NodeId) -> Self {
        let owners = || records.iter().map(|record| record.content().owner);
        let is_there = owners().any(|owner| owner == mine);
        Self {
            others: owners().filter(|owner| *owner != mine).count(),
            rank: is_there.then(|| owners().filter(|owner| *owner < mine).count()),
            bytes: records.iter().map(Record::size).sum(),
        }
    }

    fn is_full(&self) -> bool {
        self.others >= PAGE || self.bytes >= BYTES_FULL
    }

    /// Tells whether others may have found no room here, to whom this node's own entry counts too.
    fn was_full(&self) -> bool {
        self.is_full() || self.others + usize::from(self.rank.is_some()) >= PAGE
    }

    fn is_half_full(&self) -> bool {
        self.others >= PAGE_HALF || self.bytes >= BYTES_FULL / 2
    }

    fn is_empty(&self) -> bool {
        self.others == 0 && self.rank.is_none()
    }

    /// How many more may come.
    fn room(&self) -> usize {
        if self.is_full() {
            0
        } else {
            PAGE - self.others
        }
    }
}

/// What is to be done about this node's own entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    /// In which page it is to be put.
    pub(super) put: Option<u8>,
    /// From which it is to be removed.
    pub(super) remove: Option<u8>,
}

/// What one node knows of a channel's directory.
#[derive(Debug)]
pub(super) struct Directory {
    /// The page of this node's entry.
    page: u8,
    /// Since when the entry is there, if it is.
    placed_at: Option<Time>,
    /// Pages where there are other entries of this node's still, and since when they are not needed
    /// but by those who are reading.
    left: Vec<u8>,
    left_at: Time,
    /// With which pass the epoch began and when, as long as many may not have come into its
    /// directory yet.
    epoch: Option<(u32, Time)>,
    /// Tells answers to the present pass from those to one that was given up.
    pass: u32,
    /// How many passes have ended since the first page was read first.
    passes: u32,
    /// Since when an answer is waited for, if one is.
    asked_at: Option<Time>,
    /// How many pages were read at once.
    in_round: u8,
    /// What this pass has found so far.
    pages: Vec<Page>,
    /// How many pages the last pass has found.
    depth: usize,
    /// Whether this pass has seen all that is there.
    pub(super) is_whole: bool,
    /// Whom this pass has found, and whom the last one.
    pub(super) seen: BTreeSet<NodeId>,
    pub(super) listed: BTreeSet<NodeId>,
    /// How many this node has made itself known to, and how many addresses that two have claimed
    /// were looked up, in this pass.
    pub(super) told: usize,
    pub(super) contests: usize,
    /// When members have said themselves what they claim, within [`SAID_FOR`].
    said: BTreeMap<NodeId, Time>,
    /// The member whose claim was looked up last because it was in no page.
    pub(super) doubted: Option<NodeId>,
}

impl Directory {
    /// A directory of which nothing is known, but in which page this node's entry was before.
    pub(super) fn new(page: u8) -> Self {
        Self {
            page: page.min(PAGES_MAX - 1),
            placed_at: None,
            left: Vec::new(),
            left_at: Time::ZERO,
            epoch: None,
            pass: 0,
            passes: 0,
            asked_at: None,
            in_round: 0,
            pages: Vec::new(),
            depth: 0,
            is_whole: true,
            seen: BTreeSet::new(),
            listed: BTreeSet::new(),
            told: 0,
            contests: 0,
            said: BTreeMap::new(),
            doubted: None,
        }
    }

    /// The same after a stop, when there may have been entries in further pages.
    pub(super) fn restored(page: u8, left: &[u8], now: Time) -> Self {
        let mut directory = Self::new(page);
        let left = left.iter().copied();
        let left = left.filter(|left| *left < PAGES_MAX && *left != directory.page);
        directory.left = left.take(LEFT_MAX).collect();
        directory.left_at = now;
        directory
    }

    /// Returns the page of this node's entry, or where it was last.
    pub(super) fn page(&self) -> u8 {
        self.page
    }

    /// Returns the pages where there are other entries of this node's still.
    pub(super) fn left(&self) -> &[u8] {
        &self.left
    }

    /// Returns the pages in which there may be entries of this node's.
    pub(super) fn entries(&self) -> impl Iterator<Item = u8> {
        std::iter::once(self.page).chain(self.left.iter().copied())
    }

    /// Returns the page where this node's claim belongs, if there is one yet.
    pub(super) fn placed(&self) -> Option<u8> {
        self.placed_at.map(|_| self.page)
    }

    /// Begins anew with the first page, as one who has come.
    pub(super) fn restart(&mut self) {
        self.passes = 0;
        self.asked_at = None;
        self.listed.clear();
        self.begin_pass();
    }

    /// The entry has to be put anew: what it says has changed.
    pub(super) fn take_out(&mut self) {
        self.placed_at = None;
    }

    /// There is another directory, where this node's entry is put in the same page, and only there.
    /// It is read from the first page on, but not at once as by a newcomer: all begin it together.
    pub(super) fn begin_epoch(&mut self, now: Time) {
        self.left.clear();
        self.placed_at = self.placed_at.map(|_| now);
        self.asked_at = None;
        self.listed.clear();
        self.begin_pass();
        self.epoch = Some((self.pass, now));
    }

    /// How long it takes who is no newcomer to read all pages.
    fn reading_time(&self) -> Duration {
        let rounds = self.depth / usize::from(ROUND_PAGES) + 1;
        MEMBERS_INTERVAL * rounds as u32
    }

    /// Tells whether an answer is being waited for.
    pub(super) fn is_reading(&self, now: Time) -> bool {
        let asked_at = self.asked_at;
        asked_at.is_some_and(|asked_at| now.since(asked_at) < READ_TIMEOUT)
    }

    /// Reads the next pages: returns the first of them.
    pub(super) fn begin_round(&mut self, now: Time) -> u8 {
        self.in_round = 0;
        self.ask(now)
    }

    /// Returns the next page of this pass, which is asked for.
    pub(super) fn ask(&mut self, now: Time) -> u8 {
        self.asked_at = Some(now);
        self.in_round += 1;
        self.awaited()
    }

    /// A member has said itself what it claims.
    pub(super) fn note_said(&mut self, member: NodeId, now: Time) {
        self.said.retain(|_, at| now.since(*at) < SAID_FOR);
        if self.said.len() < SAID_MAX {
            self.said.insert(member, now);
        }
    }

    /// Tells whether a member's entry may be older than what it has said.
    pub(super) fn has_said(&self, member: &NodeId, now: Time) -> bool {
        let at = self.said.get(member);
        at.is_some_and(|at| now.since(*at) < SAID_FOR)
    }

    fn awaited(&self) -> u8 {
        self.pages.len() as u8
    }

    /// Tells whether a page of a pass is the one that is being asked for.
    pub(super) fn awaits(&self, (pass, page): (u32, u8)) -> bool {
        self.asked_at.is_some() && (self.pass, self.awaited()) == (pass, page)
    }

    /// Returns the number of this pass.
    pub(super) fn pass(&self) -> u32 {
        self.pass
    }

    /// Tells whether a page was there the last time, in this epoch.
    pub(super) fn was_there(&self, page: u8) -> bool {
        let is_first = self.epoch.is_some_and(|(pass, _)| pass == self.pass);
        page == 0 || (usize::from(page) < self.depth && !is_first)
    }

    /// Takes what was found in a page, the one that was asked for; none when nobody answered.
    pub(super) fn got(&mut self, page: Option<Page>, now: Time) -> Moves {
        let at = self.pages.len() as u8;
        self.asked_at = None;
        let Some(found) = page else {
            self.pages.push(Page::UNKNOWN);
            self.is_whole = false;
            return Moves::default();
        };
        // What is not shown may be one that was shown before.
        self.is_whole &= found.bytes <= BYTES_WHOLE;
        self.pages.push(found);
        self.place(at, &found, now)
    }

    fn place(&mut self, at: u8, found: &Page, now: Time) -> Moves {
        match self.placed_at {
            Some(placed_at) if at == self.page => {
                let is_too_many = match found.rank {
                    Some(rank) => rank >= PAGE_MOST,
                    None => found.is_full() && now.since(placed_at) >= ENTRY_WAIT,
                };
                let is_missing = found.rank.is_none() && now.since(placed_at) >= PUT_WAIT;
                if is_too_many {
                    self.placed_at = None;
                } else if is_missing {
                    return self.move_to(at, now);
                }
                Moves::default()
            }
            // Back from a stop its own place is kept for it.
            None if found.room() > 0 || found.rank.is_some_and(|rank| rank < PAGE_MOST) => {
                self.move_to(at, now)
            }
            Some(_) | None => Moves::default(),
        }
    }

    fn move_to(&mut self, page: u8, now: Time) -> Moves {
        let mut moves = Moves {
            put: Some(page),
            remove: None,
        };
        if self.page != page {
            // Of two that are left, the one where it was found stays for the time being.
            match self.left.is_empty() {
                true => self.left.push(self.page),
                false => moves.remove = Some(self.page),
            }
            self.left_at = now;
        }
        self.left.retain(|left| *left != page);
        self.page = page;
        self.placed_at = Some(now);
        moves
    }

    /// Returns whether the pass goes on with a further page.
    pub(super) fn reads_on(&self) -> bool {
        let next = self.pages.len();
        let Some(last) = self.pages.last() else {
            return true;
        };
        let looks_behind = self.passes.is_multiple_of(LOOK_BEHIND);
        let own = usize::from(self.page);
        let is_expected = (self.placed_at.is_some() && next <= own) || next < self.depth;
        let leads_on = last.was_full() || (last.is_half_full() && looks_behind);
        let is_wanted = is_expected || (leads_on && *last != Page::UNKNOWN);
        next < usize::from(PAGES_MAX) && is_wanted
    }

    /// Tells whether the next page is read at once.
    pub(super) fn is_in_round(&self) -> bool {
        self.passes == 0 || self.in_round < ROUND_PAGES
    }

    /// Ends the pass; [`Self::begin_pass`] follows when its result was used.
    pub(super) fn end_pass(&mut self, now: Time, rng: &mut Rng) -> Moves {
        self.passes = self.passes.saturating_add(self.has_begun().into());
        let last = self.pages.iter().rposition(|page| !page.is_empty());
        let depth = last.map_or(0, |last| last + 1);
        // Many may come into the directory of an epoch yet, where they were in the one before.
        let is_early = self.epoch.is_some();
        self.depth = if is_early {
            depth.max(self.depth)
        } else {
            depth
        };
        let reading_time = self.reading_time();
        let still_early = |(_, began_at): &(u32, Time)| now.since(*began_at) < reading_time;
        self.epoch = self.epoch.filter(still_early);
        let own = self.pages.get(usize::from(self.page));
        if self.placed_at.is_none() || own.is_none_or(|own| own.rank.is_none()) {
            return Moves::default();
        }
        if self.left.is_empty() {
            self.left_at = now;
        }
        let found = (0..)
            .zip(&self.pages)
            .filter(|(_, page)| page.rank.is_some());
        for (at, _) in found {
            let is_known = at == self.page || self.left.contains(&at);
            if !is_known && self.left.len() < LEFT_MAX {
                self.left.push(at);
            }
        }
        if !self.left.is_empty() {
            // Who began to read before it came here may look there yet.
            let is_over = now.since(self.left_at) >= reading_time;
            let remove = is_over.then(|| self.left.remove(0));
            return Moves { put: None, remove };
        }
        if is_early {
            return Moves::default();
        }
        match self.lower(last.unwrap_or(0), rng) {
            Some(page) => self.move_to(page, now),
            None => Moves::default(),
        }
    }

    /// A lower page to which this node is to move, drawn by their room.
    fn lower(&self, last: usize, rng: &mut Rng) -> Option<u8> {
        let own = usize::from(self.page);
        let all: usize = self.pages.iter().map(|page| page.others).sum();
        let needed = (all + 1).div_ceil(PAGE_SPARSE);
        let is_low = |page: &Page| page.others < PAGE_LOW && !page.is_full();
        let lower: Vec<(u8, usize)> = if own >= needed {
            let rooms = self.pages.iter().map(Page::room);
            (0..).zip(rooms).take(needed).collect()
        } else if own == last {
            let pages = (0..).zip(&self.pages).take(own);
            let low = pages.filter(|(_, page)| is_low(page));
            low.map(|(at, page)| (at, page.room())).collect()
        } else {
            Vec::new()
        };
        if lower.is_empty() {
            return None;
        }
        let room: usize = lower.iter().map(|(_, room)| room).sum();
        // As many as there is room for, of those who think alike.
        let rivals = self.pages.get(own).map_or(0, |page| page.others) + 1;
        let drawn = rng.below(rivals.max(room).max(1) as u64) as usize;
        let mut before = 0;
        lower.into_iter().find_map(|(at, room)| {
            before += room;
            (drawn < before).then_some(at)
        })
    }

    /// Tells whether this pass has found the first page.
    pub(super) fn has_begun(&self) -> bool {
        self.pages
            .first()
            .is_some_and(|page| *page != Page::UNKNOWN)
    }

    /// Begins the next pass.
    pub(super) fn begin_pass(&mut self) {
        self.pass = self.pass.wrapping_add(1);
        self.pages.clear();
        self.seen.clear();
        self.is_whole = true;
        self.told = 0;
        self.contests = 0;
        self.in_round = 0;
    }
}

#[cfg(test)]
mod tests;
