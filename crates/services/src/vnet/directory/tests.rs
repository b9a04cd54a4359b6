//! Many members find their pages, come, go and are restarted.

use super::*;

/// How many octets an entry with a long credential is, and how many of them an answer shows.
const ENTRY_BYTES: usize = 1290;
const SHOWN_MAX: usize = RECORDS_BYTES_MAX / ENTRY_BYTES;
/// How many of one page holders take.
const HELD_MAX: usize = 64;

/// A directory, and what each of its members knows of it.
struct Channel {
    pages: Vec<BTreeSet<usize>>,
    members: BTreeMap<usize, Directory>,
    rng: Rng,
    now: Time,
    moves: usize,
}

impl Channel {
    fn new() -> Self {
        Self {
            pages: vec![BTreeSet::new(); usize::from(PAGES_MAX)],
            members: BTreeMap::new(),
            rng: Rng::from_seed([1; 32]),
            now: Time::from_secs(1),
            moves: 0,
        }
    }

    /// What an answer shows of a page, to a member.
    fn page(&self, at: u8, member: usize) -> (Page, Vec<usize>) {
        let entries = self.pages[usize::from(at)].iter().copied();
        let shown: Vec<usize> = entries.take(SHOWN_MAX).collect();
        let page = Page {
            others: shown.iter().filter(|other| **other != member).count(),
            rank: shown.iter().position(|other| *other == member),
            bytes: shown.len() * ENTRY_BYTES,
        };
        (page, shown)
    }

    fn carry_out(&mut self, member: usize, moves: &Moves) {
        self.moves += usize::from(moves.put.is_some());
        if let Some(page) = moves.put.map(usize::from)
            && self.pages[page].len() < HELD_MAX
        {
            self.pages[page].insert(member);
        }
        if let Some(page) = moves.remove {
            self.pages[usize::from(page)].remove(&member);
        }
    }

    /// One member reads the directory, to its end; returns whom it has found.
    fn read(&mut self, member: usize) -> BTreeSet<usize> {
        let mut directory = self.members.remove(&member).unwrap();
        let mut seen = BTreeSet::new();
        loop {
            let (page, shown) = self.page(directory.ask(self.now), member);
            seen.extend(shown);
            let moves = directory.got(Some(page), self.now);
            self.carry_out(member, &moves);
            if !directory.reads_on() {
                break;
            }
        }
        let moves = directory.end_pass(self.now, &mut self.rng);
        self.carry_out(member, &moves);
        directory.begin_pass();
        self.members.insert(member, directory);
        seen
    }

    fn come(&mut self, member: usize) -> BTreeSet<usize> {
        self.members.insert(member, Directory::new(0));
        self.read(member)
    }

    fn leave(&mut self, member: usize) {
        let directory = self.members.remove(&member).unwrap();
        for page in directory.entries() {
            self.pages[usize::from(page)].remove(&member);
        }
    }

    /// All read as often as said; returns how often anybody has moved in the last time.
    fn go_on(&mut self, times: usize) -> usize {
        let mut moves = 0;
        for _ in 0..times {
            self.now = self.now + Duration::from_secs(61);
            self.moves = 0;
            let members: Vec<usize> = self.members.keys().copied().collect();
            for member in members {
                self.read(member);
            }
            moves = self.moves;
        }
        moves
    }

    fn assert_all_know_all(&mut self) {
        let members: Vec<usize> = self.members.keys().copied().collect();
        let all: BTreeSet<usize> = members.iter().copied().collect();
        for member in members {
            assert_eq!(self.read(member), all, "{member}");
        }
        // Who comes stops reading early, and misses nobody.
        let seen = self.come(usize::MAX);
        assert!(all.is_subset(&seen), "{} of {}", seen.len(), all.len());
        self.leave(usize::MAX);
    }

    fn used(&self) -> usize {
        let used = self.pages.iter().rposition(|page| !page.is_empty());
        used.map_or(0, |last| last + 1)
    }
}

#[test]
fn a_thousand_find_room_and_nobody_moves_any_more() {
    let mut channel = Channel::new();
    for member in 0..1000 {
        channel.come(member * 7 % 1000);
    }
    channel.go_on(3);
    channel.assert_all_know_all();
    assert_eq!(channel.used(), 1000_usize.div_ceil(PAGE));
    assert_eq!(channel.go_on(3), 0);
}

#[test]
fn those_who_fill_a_page_look_for_whoever_found_no_room_there() {
    let mut channel = Channel::new();
    (0..=PAGE).for_each(|member| drop(channel.come(member)));
    assert_eq!(channel.used(), 2);
    for member in 0..=PAGE {
        assert_eq!(channel.read(member).len(), PAGE + 1, "{member}");
    }
}

#[test]
fn who_come_at_once_spread_over_the_pages() {
    let mut channel = Channel::new();
    for member in 0..120 {
        // As if all had read before any of them wrote.
        let mut directory = Directory::new(0);
        let moves = directory.got(Some(Page::default()), channel.now);
        directory.end_pass(channel.now, &mut channel.rng);
        directory.begin_pass();
        channel.carry_out(member, &moves);
        channel.members.insert(member, directory);
    }
    assert_eq!(channel.pages[0].len(), HELD_MAX);
    channel.go_on(6);
    channel.assert_all_know_all();
    assert_eq!(channel.go_on(3), 0);
}

#[test]
fn when_most_leave_the_others_move_up_to_the_front() {
    for stay in [2, 20, 40, 100, 400] {
        let mut channel = Channel::new();
        (0..500).for_each(|member| drop(channel.come(member)));
        channel.go_on(2);
        // Who stays is here and there.
        let kept: BTreeSet<usize> = (0..stay).map(|number| number * 251 % 500).collect();
        let leavers = (0..500).filter(|member| !kept.contains(member));
        leavers.for_each(|member| channel.leave(member));
        channel.go_on(12);
        channel.assert_all_know_all();
        assert!(channel.used() <= stay.div_ceil(PAGE_LOW).max(1), "{stay}");
        assert_eq!(channel.go_on(4), 0, "{stay}");
    }
}

#[test]
fn a_small_channel_has_one_page_and_one_question() {
    let mut channel = Channel::new();
    (0..PAGE_HALF).for_each(|member| drop(channel.come(member)));
    for member in 0..PAGE_HALF {
        let mut directory = channel.members.remove(&member).unwrap();
        let (page, _) = channel.page(0, member);
        assert_eq!(directory.got(Some(page), channel.now), Moves::default());
        assert!(!directory.reads_on());
    }
}

#[test]
fn who_was_away_keeps_its_page_and_what_nobody_answers_for_is_left_alone() {
    let mut channel = Channel::new();
    (0..100).for_each(|member| drop(channel.come(member)));
    channel.go_on(2);
    let page = channel.members[&99].page();
    assert!(page > 0);
    channel.members.insert(99, Directory::new(page));
    channel.read(99);
    assert_eq!(channel.members[&99].placed(), Some(page));
    let mut directory = Directory::new(0);
    assert_eq!(directory.got(None, channel.now), Moves::default());
    assert!(!directory.is_whole && directory.placed().is_none());
    assert!(
        !directory.reads_on(),
        "where nobody answers nothing more is asked"
    );
}

/// A page with so many others, and perhaps this node, the last in order.
fn page_of(others: usize, is_there: bool) -> Page {
    Page {
        others,
        rank: is_there.then_some(others),
        bytes: (others + usize::from(is_there)) * 400,
    }
}

/// One reads these pages, of which it reads as many as it wants, to the end of its pass.
fn pass(directory: &mut Directory, pages: &[Page], now: Time) -> Vec<Moves> {
    let mut moves = Vec::new();
    loop {
        let at = usize::from(directory.ask(now));
        let found = pages.get(at).copied().unwrap_or_default();
        moves.push(directory.got(Some(found), now));
        if !directory.reads_on() {
            break;
        }
    }
    moves.push(directory.end_pass(now, &mut Rng::from_seed([1; 32])));
    directory.begin_pass();
    moves.retain(|moves| *moves != Moves::default());
    moves
}

fn puts(page: u8) -> Vec<Moves> {
    let put = Some(page);
    vec![Moves { put, remove: None }]
}

fn removes(page: u8) -> Vec<Moves> {
    let remove = Some(page);
    vec![Moves { put: None, remove }]
}

/// One that has moved from the second page to the first when it came back.
fn moved(now: Time) -> Directory {
    let mut directory = Directory::restored(1, &[], now);
    let pages = [page_of(10, false), page_of(10, true)];
    assert_eq!(pass(&mut directory, &pages, now), puts(0));
    directory
}

#[test]
fn an_entry_that_was_left_is_known_until_it_is_removed() {
    let now = Time::from_secs(1);
    let mut directory = moved(now);
    let entries = |directory: &Directory| directory.entries().collect::<Vec<u8>>();
    assert_eq!(entries(&directory), [0, 1]);
    // A stop between the move and its end does not lose it.
    let mut again = Directory::restored(directory.page(), directory.left(), now);
    assert_eq!(entries(&again), [0, 1]);
    let pages = [page_of(10, false), page_of(10, true)];
    assert_eq!(pass(&mut again, &pages, now), puts(0));
    let pages = [page_of(10, true), page_of(10, true)];
    let later = now + MEMBERS_INTERVAL;
    assert_eq!(pass(&mut again, &pages, later), removes(1));
    assert_eq!(entries(&again), [0]);
    // In the directory of a new epoch there is one.
    directory.begin_epoch(later);
    assert_eq!(entries(&directory), [0]);
    // What was never known to be there is found, and of that not more than is bounded.
    let mut directory = Directory::restored(0, &[0, 1, 2, 3, 200], now);
    assert_eq!(entries(&directory), [0, 1, 2]);
    directory = Directory::new(0);
    let pages = [page_of(24, true); 5];
    pass(&mut directory, &pages, now);
    assert_eq!(entries(&directory), [0, 1, 2]);
}

#[test]
fn an_entry_is_left_where_it_was_as_long_as_anybody_may_read_it_there() {
    let (now, second) = (Time::from_secs(1), Duration::from_secs(1));
    let mut directory = moved(now);
    let small = [page_of(10, true), page_of(10, true)];
    for after in [3, 9, 60] {
        assert_eq!(pass(&mut directory, &small, now + second * after), []);
    }
    let mut large = [page_of(24, true); 17];
    large[2..].fill(page_of(24, false));
    // Seventeen pages are read in three rounds.
    assert_eq!(pass(&mut directory, &large, now + MEMBERS_INTERVAL * 2), []);
    let later = now + MEMBERS_INTERVAL * 3;
    assert_eq!(pass(&mut directory, &large, later), removes(1));
    // So it is with what was left before a stop, and after a further move.
    let mut directory = Directory::restored(1, &[2], now);
    let pages = [page_of(10, false), page_of(10, true), page_of(10, true)];
    let both = Moves {
        put: Some(0),
        remove: Some(1),
    };
    let moved_at = now + MEMBERS_INTERVAL;
    assert_eq!(pass(&mut directory, &pages, moved_at), [both]);
    let pages = [page_of(10, true), page_of(0, false), page_of(10, true)];
    assert_eq!(pass(&mut directory, &pages, moved_at + second * 60), []);
    let later = moved_at + MEMBERS_INTERVAL;
    assert_eq!(pass(&mut directory, &pages, later), removes(2));
}

#[test]
fn an_entry_that_is_missing_is_put_again_once_a_pass() {
    let now = Time::from_secs(1);
    let mut directory = Directory::new(0);
    let without = [page_of(10, false)];
    assert_eq!(pass(&mut directory, &without, now), puts(0));
    // It may be on its way.
    assert_eq!(pass(&mut directory, &without, now + ENTRY_WAIT), []);
    let later = now + PUT_WAIT;
    assert_eq!(pass(&mut directory, &without, later), puts(0));
    assert_eq!(pass(&mut directory, &without, later + ENTRY_WAIT), []);
    assert_eq!(pass(&mut directory, &without, later + PUT_WAIT), puts(0));
    let later = later + PUT_WAIT * 2;
    assert_eq!(pass(&mut directory, &[page_of(10, true)], later), []);
}

#[test]
fn a_new_epoch_is_read_by_and_by_and_nobody_moves_in_its_first_pass() {
    let now = Time::from_secs(1);
    let mut directory = Directory::restored(9, &[], now);
    let mut full = [page_of(24, false); 10];
    full[9] = page_of(20, true);
    pass(&mut directory, &full, now);
    assert_eq!(directory.placed(), Some(9));
    pass(&mut directory, &full, now + MEMBERS_INTERVAL);
    assert!(directory.was_there(8));
    let began_at = now + MEMBERS_INTERVAL * 4;
    directory.begin_epoch(began_at);
    // No storm: as many pages at once as ever, and none that are looked for in vain.
    assert_eq!(directory.begin_round(began_at), 0);
    assert!(directory.was_there(0) && !directory.was_there(8));
    // Nothing of it is full, and what is in its own page is to come.
    let nearly_empty = Some(page_of(1, false));
    for _ in 1..ROUND_PAGES {
        assert_eq!(directory.got(nearly_empty, began_at), Moves::default());
        assert!(directory.is_in_round() && directory.reads_on());
        directory.ask(began_at);
    }
    directory.got(nearly_empty, began_at);
    assert!(!directory.is_in_round() && directory.reads_on());
    let later = began_at + MEMBERS_INTERVAL;
    directory.begin_round(later);
    directory.got(nearly_empty, later);
    directory.ask(later);
    directory.got(Some(page_of(1, true)), later);
    let rng = &mut Rng::from_seed([1; 32]);
    assert_eq!(directory.end_pass(later, rng), Moves::default());
    assert_eq!(directory.placed(), Some(9));
    directory.begin_pass();
    // When all had the time to come, but have not, it goes to where there is room.
    let pages = [page_of(1, false); 9];
    let pages = [&pages[..], &[page_of(1, true)]].concat();
    let later = began_at + MEMBERS_INTERVAL * 2;
    assert_eq!(pass(&mut directory, &pages, later), []);
    assert!(directory.was_there(8));
    let later = later + MEMBERS_INTERVAL;
    assert_eq!(pass(&mut directory, &pages, later), puts(0));
}

#[test]
fn in_a_new_epoch_a_full_page_is_not_left_before_the_entry_could_be_there() {
    let now = Time::from_secs(1);
    let mut directory = Directory::new(0);
    pass(&mut directory, &[page_of(10, false)], now);
    let began_at = now + MEMBERS_INTERVAL;
    directory.begin_epoch(began_at);
    pass(&mut directory, &[page_of(24, false)], began_at);
    assert_eq!(directory.placed(), Some(0));
}
