//! The route to a position, put together from what its hops reported.
//!
//! One probe is one traced question. Each hop that forwards it tells the origin its own
//! place, and to whom the question goes next. So a hop is known from two sides: from its
//! own report, and because the hop before named it. From that follows what became of it:
//!
//! | named | reported | something came from behind it | state |
//! |---|---|---|---|
//! | - | yes | - | reported |
//! | yes | no | yes | declined: it passed the question on, and keeps silent about itself |
//! | yes | no | no, or another was then named in its place and spoke | lost |
//! | no | no | yes | declined, and unknown: the hop before it declined as well |
//! | - | that it knows no way on | - | gave back: another is tried in its place |
//!
//! Reports are claims. Whoever is on the route can invent others; the places are bounded
//! ([`ROWS_MAX`]), and only what people read depends on them.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::{HopReport, NodeId, PathKind, Vitals};

/// The furthest place that a hop may claim; messages are dropped before.
const PLACE_MAX: u8 = 64;
/// The most rows of a route; further ones are not noted.
pub const ROWS_MAX: usize = 128;
/// The most reports of one probe that count.
const REPORTS_MAX: usize = 256;

/// What became of the questions at a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HopState {
    /// It was named, and nothing was heard of the question from there on.
    Lost,
    /// It passed the question on, or answered it, without a report of its own.
    Declined,
    /// It reported that it knows no way on, and that it gave the question back.
    GaveBack,
    /// It reported where the question goes, or that it is in charge.
    Reported,
}

/// One hop of a route, over all probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Its place, from 1; 0 is the asker, when it is in charge itself.
    pub place: u8,
    /// The node; none when neither it nor the one before it names it.
    pub node: Option<NodeId>,
    /// What became of the questions there; of several the best.
    pub state: HopState,
    /// How many questions went there.
    pub sent: u32,
    /// Of how many of them something was heard, from it or from behind it.
    pub received: u32,
    /// From each question until this hop's report, or until the answer if it gave that
    /// one alone; at most one for each of `sent`.
    pub round_trips: Vec<Duration>,
    /// How the node is, from its last report.
    pub vitals: Option<Vitals>,
    /// Where it last sent the question, and how it reaches that node.
    pub next: Option<(NodeId, PathKind)>,
}

/// Who answered a probe, at which place, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The node in charge.
    pub node: NodeId,
    /// How many hops the question made.
    pub hops: u8,
    /// From the question until the answer.
    pub round_trip: Duration,
}

/// The route as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Route {
    rows: BTreeMap<(u8, Option<NodeId>), Hop>,
    /// The present probe: what came, by the try of the question.
    attempts: BTreeMap<u8, Attempt>,
    reports: usize,
    end: Option<End>,
}

/// One try of a question.
#[derive(Clone, Debug, Default)]
struct Attempt {
    reports: Vec<Report>,
}

/// One report of a try.
#[derive(Clone, Copy, Debug)]
struct Report {
    by: NodeId,
    told: HopReport,
    round_trip: Duration,
}

/// Who said something at one place.
#[derive(Debug, Default)]
struct Spoke {
    all: Vec<NodeId>,
    /// Some of them did not just give the question back.
    took_it: bool,
}

impl Route {
    /// Takes in a report of the present probe: of which try, by whom, what, and how long
    /// after the question.
    pub fn report(&mut self, attempt: u8, by: NodeId, told: HopReport, round_trip: Duration) {
        if told.hops > PLACE_MAX || self.reports >= REPORTS_MAX {
            return;
        }
        self.reports += 1;
        let attempt = self.attempts.entry(attempt).or_default();
        attempt.reports.push(Report {
            by,
            told,
            round_trip,
        });
    }

    /// Ends the present probe with its answer, if there was one; the next one may begin.
    pub fn end_probe(&mut self, end: Option<End>) {
        self.reports = 0;
        let attempts: Vec<Attempt> = std::mem::take(&mut self.attempts).into_values().collect();
        let end = end.filter(|end| end.hops <= PLACE_MAX);
        let answered = end.and_then(|end| Attempt::answered_among(&attempts, end));
        for (number, attempt) in attempts.iter().enumerate() {
            let end = end.filter(|_| answered == Some(number));
            self.settle(attempt, end);
        }
        if let (None, Some(end)) = (answered, end) {
            self.settle(&Attempt::default(), Some(end));
        }
        self.end = end.or(self.end);
    }

    /// Returns who answered last.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Returns the hops by their places, as far as they are known; the last is the end.
    pub fn hops(&self) -> Vec<Hop> {
        self.rows.values().cloned().collect()
    }

    /// Notes what one try tells of each hop.
    fn settle(&mut self, attempt: &Attempt, end: Option<End>) {
        let furthest = attempt.reports.iter().map(|report| report.told.hops);
        let furthest = furthest.chain(end.map(|end| end.hops)).max().unwrap_or(0);
        let last = furthest.saturating_add(1).min(PLACE_MAX);
        for place in u8::from(end.is_none_or(|end| end.hops > 0))..=last {
            let spoke = self.settle_reports(attempt, place, end);
            let passed = place < furthest;
            self.settle_silent(attempt, place, passed, &spoke, end);
        }
    }

    /// Notes who spoke at a place, and returns them.
    fn settle_reports(&mut self, attempt: &Attempt, place: u8, end: Option<End>) -> Spoke {
        let mut spoke = Spoke::default();
        let here = attempt.reports.iter().filter(|r| r.told.hops == place);
        for Report {
            by,
            told,
            round_trip,
        } in here
        {
            let Some(hop) = self.row(place, Some(*by)) else {
                continue;
            };
            hop.vitals = (place > 0).then_some(told.vitals);
            hop.next = told.next.map(|next| (next, told.next_path));
            let gave_back = attempt.gave_back(place, *by);
            // A second report of the same try only tells of a second choice.
            if !spoke.all.contains(by) {
                let state = match gave_back {
                    true => HopState::GaveBack,
                    false => HopState::Reported,
                };
                hop.heard(state, Some(*round_trip));
                spoke.all.push(*by);
                spoke.took_it |= !gave_back;
            }
        }
        let silent_end = end.filter(|end| end.hops == place && !spoke.all.contains(&end.node));
        if let Some(end) = silent_end
            && let Some(hop) = self.row(place, Some(end.node))
        {
            hop.heard(HopState::Declined, Some(end.round_trip));
            spoke.all.push(end.node);
            spoke.took_it = true;
        }
        spoke
    }

    /// Notes who was named at a place, but said nothing.
    fn settle_silent(
        &mut self,
        attempt: &Attempt,
        place: u8,
        passed: bool,
        spoke: &Spoke,
        end: Option<End>,
    ) {
        let named = attempt.named(place);
        let count = named.len();
        let took_it = |node: &NodeId| spoke.all.contains(node) && !attempt.gave_back(place, *node);
        let first_took = named.iter().position(took_it);
        for (index, node) in named.into_iter().enumerate() {
            // A second copy, sent because the first was slow and not lost: the answer came
            // before anything could be heard of it, or it came where the first had been.
            let needless = first_took.is_some_and(|first| first < index);
            let had_it = attempt.heard_elsewhere(place, node, end);
            if spoke.all.contains(&node) || needless || had_it {
                continue;
            }
            // Of several that were tried in turn, the last is the one that took it.
            let took_it = passed && !spoke.took_it && index + 1 == count;
            if let Some(hop) = self.row(place, Some(node)) {
                if took_it {
                    hop.heard(HopState::Declined, None);
                } else {
                    hop.sent += 1;
                }
            }
        }
        let unnamed = passed && count == 0 && spoke.all.is_empty() && place > 0;
        if unnamed && let Some(hop) = self.row(place, None) {
            hop.heard(HopState::Declined, None);
        }
    }

    fn row(&mut self, place: u8, node: Option<NodeId>) -> Option<&mut Hop> {
        if self.rows.len() >= ROWS_MAX && !self.rows.contains_key(&(place, node)) {
            return None;
        }
        Some(self.rows.entry((place, node)).or_insert(Hop {
            place,
            node,
            state: HopState::Lost,
            sent: 0,
            received: 0,
            round_trips: Vec::new(),
            vitals: None,
            next: None,
        }))
    }
}

impl Attempt {
    /// Tells which of several tries was answered: the one whose reports lead to the end,
    /// otherwise the one that came furthest, otherwise the last.
    fn answered_among(attempts: &[Self], end: End) -> Option<usize> {
        let fits = |attempt: &Self| {
            let is_end = |r: &Report| r.by == end.node && r.told.hops == end.hops;
            let reported = attempt.reports.iter().any(is_end);
            let named = attempt.named(end.hops).contains(&end.node);
            let furthest = attempt.reports.iter().map(|r| r.told.hops).max();
            (reported, named, furthest)
        };
        (0..attempts.len()).max_by_key(|number| (fits(&attempts[*number]), *number))
    }

    /// Returns who was named for a place, each once, in the order of the last mention.
    fn named(&self, place: u8) -> Vec<NodeId> {
        let mut named = Vec::new();
        for Report { told, .. } in &self.reports {
            let before = told.hops.checked_add(1) == Some(place);
            if let Some(next) = told.next.filter(|_| before) {
                named.retain(|node| *node != next);
                named.push(next);
            }
        }
        named
    }

    /// Tells whether a node gave the question back at a place.
    fn gave_back(&self, place: u8, node: NodeId) -> bool {
        let mut reports = self.reports.iter();
        reports.any(|r| r.by == node && r.told.hops == place && r.told.gives_back)
    }

    /// Tells whether a node had the question at another place.
    fn heard_elsewhere(&self, place: u8, node: NodeId, end: Option<End>) -> bool {
        let mut reports = self.reports.iter();
        end.is_some_and(|end| end.node == node && end.hops != place)
            || reports.any(|r| r.by == node && r.told.hops != place)
    }
}

impl Hop {
    /// Something was heard of a question that went to this hop.
    fn heard(&mut self, state: HopState, round_trip: Option<Duration>) {
        self.sent += 1;
        self.received += 1;
        self.round_trips.extend(round_trip);
        self.state = self.state.max(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use enishi_overlay::Software;
    use enishi_overlay::class::Grade;

    fn node(octet: u8) -> NodeId {
        NodeId::from_bytes([octet; 32])
    }

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    /// Reports of (by, place, next); node 0 is the origin.
    fn probe(route: &mut Route, attempt: u8, reports: &[(u8, u8, Option<u8>)]) {
        for (by, hops, next) in reports {
            let report = HopReport {
                request: 0,
                hops: *hops,
                next: next.map(node),
                next_path: PathKind::Direct,
                gives_back: false,
                vitals: Vitals {
                    software: Software::THIS,
                    load_per_mille: 0,
                    grade: Grade::default(),
                },
            };
            route.report(attempt, node(*by), report, ms(u64::from(*hops) * 10));
        }
    }

    fn end(node_octet: u8, hops: u8) -> Option<End> {
        Some(End {
            node: node(node_octet),
            hops,
            round_trip: ms(99),
        })
    }

    /// Place, node, state, sent, received.
    type Row = (u8, Option<u8>, HopState, u32, u32);

    fn rows(route: &Route) -> Vec<Row> {
        let row = |hop: &Hop| {
            let octet = hop.node.map(|node| node.as_bytes()[0]);
            (hop.place, octet, hop.state, hop.sent, hop.received)
        };
        route.hops().iter().map(row).collect()
    }

    use HopState::{Declined, GaveBack, Lost, Reported};

    #[test]
    fn hops_that_report_are_in_order_with_their_round_trips() {
        let mut route = Route::default();
        for _ in 0..2 {
            // In whatever order they come.
            probe(
                &mut route,
                0,
                &[(0, 0, Some(1)), (2, 2, None), (1, 1, Some(2))],
            );
            route.end_probe(end(2, 2));
        }
        assert_eq!(
            rows(&route),
            [(1, Some(1), Reported, 2, 2), (2, Some(2), Reported, 2, 2)]
        );
        assert_eq!(route.hops()[0].round_trips, [ms(10), ms(10)]);
        assert_eq!(route.hops()[0].next, Some((node(2), PathKind::Direct)));
        assert_eq!(route.hops()[1].next, None);
        assert_eq!(route.end(), end(2, 2));
    }

    #[test]
    fn a_hop_that_declines_is_named_by_the_one_before_it() {
        let mut route = Route::default();
        probe(
            &mut route,
            0,
            &[(0, 0, Some(1)), (1, 1, Some(2)), (3, 3, None)],
        );
        route.end_probe(end(3, 3));
        assert_eq!(
            rows(&route),
            [
                (1, Some(1), Reported, 1, 1),
                (2, Some(2), Declined, 1, 1),
                (3, Some(3), Reported, 1, 1)
            ]
        );
        let mut route = Route::default();
        probe(&mut route, 0, &[(0, 0, Some(1))]);
        route.end_probe(end(4, 3));
        let expected = [
            (1, Some(1), Declined, 1, 1),
            (2, None, Declined, 1, 1),
            (3, Some(4), Declined, 1, 1),
        ];
        assert_eq!(rows(&route), expected, "all of them decline");
        assert_eq!(route.hops()[2].round_trips, [ms(99)], "that of the answer");
    }

    #[test]
    fn a_hop_behind_which_nothing_is_heard_is_lost() {
        let mut route = Route::default();
        probe(&mut route, 0, &[(0, 0, Some(1)), (1, 1, Some(2))]);
        route.end_probe(None);
        assert_eq!(
            rows(&route),
            [(1, Some(1), Reported, 1, 1), (2, Some(2), Lost, 1, 0)]
        );
        // The next probe comes through: half of them were lost there.
        probe(
            &mut route,
            0,
            &[(0, 0, Some(1)), (1, 1, Some(2)), (2, 2, None)],
        );
        route.end_probe(end(2, 2));
        assert_eq!(
            rows(&route),
            [(1, Some(1), Reported, 2, 2), (2, Some(2), Reported, 2, 1)]
        );
    }

    #[test]
    fn a_hop_in_whose_place_another_was_tried_is_lost_not_declined() {
        let mut route = Route::default();
        let reports = [
            (0, 0, Some(1)),
            (1, 1, Some(2)),
            (1, 1, Some(3)),
            (4, 3, None),
        ];
        probe(&mut route, 0, &reports);
        route.end_probe(end(4, 3));
        let expected = [
            (1, Some(1), Reported, 1, 1),
            (2, Some(2), Lost, 1, 0),
            (2, Some(3), Declined, 1, 1),
            (3, Some(4), Reported, 1, 1),
        ];
        assert_eq!(rows(&route), expected);
    }

    #[test]
    fn a_hop_that_gives_the_question_back_is_told_from_the_one_that_took_it() {
        let giver = HopReport {
            request: 0,
            hops: 2,
            next: None,
            next_path: PathKind::Unconnected,
            gives_back: true,
            vitals: Vitals {
                software: Software::THIS,
                load_per_mille: 0,
                grade: Grade::default(),
            },
        };
        let mut route = Route::default();
        probe(&mut route, 0, &[(0, 0, Some(1)), (1, 1, Some(2))]);
        route.report(0, node(2), giver, ms(20));
        probe(&mut route, 0, &[(1, 1, Some(3)), (4, 3, None)]);
        route.end_probe(end(4, 3));
        let expected = [
            (1, Some(1), Reported, 1, 1),
            (2, Some(2), GaveBack, 1, 1),
            (2, Some(3), Declined, 1, 1),
            (3, Some(4), Reported, 1, 1),
        ];
        assert_eq!(rows(&route), expected);
    }

    #[test]
    fn a_second_copy_that_comes_where_the_first_has_been_is_no_loss() {
        let mut route = Route::default();
        let reports = [
            (0, 0, Some(1)),
            (0, 0, Some(2)),
            (1, 1, Some(3)),
            (2, 1, Some(4)),
            (4, 2, Some(3)),
            (3, 2, None),
        ];
        probe(&mut route, 0, &reports);
        route.end_probe(end(3, 2));
        assert!(rows(&route).iter().all(|row| row.2 == Reported));
        assert_eq!(rows(&route).len(), 4, "nobody twice");
    }

    #[test]
    fn a_second_copy_that_was_not_needed_is_no_loss() {
        let mut route = Route::default();
        probe(
            &mut route,
            0,
            &[(0, 0, Some(1)), (0, 0, Some(2)), (1, 1, None)],
        );
        route.end_probe(end(1, 1));
        assert_eq!(rows(&route), [(1, Some(1), Reported, 1, 1)]);
    }

    #[test]
    fn tries_are_told_apart() {
        let mut route = Route::default();
        probe(&mut route, 0, &[(0, 0, Some(1))]);
        probe(
            &mut route,
            1,
            &[(0, 0, Some(2)), (2, 1, Some(3)), (3, 2, None)],
        );
        route.end_probe(end(3, 2));
        let expected = [
            (1, Some(1), Lost, 1, 0),
            (1, Some(2), Reported, 1, 1),
            (2, Some(3), Reported, 1, 1),
        ];
        assert_eq!(rows(&route), expected);
    }

    #[test]
    fn the_asker_itself_may_be_the_end() {
        let mut route = Route::default();
        probe(&mut route, 0, &[(0, 0, None)]);
        route.end_probe(end(0, 0));
        assert_eq!(rows(&route), [(0, Some(0), Reported, 1, 1)]);
        assert_eq!(Route::default().hops(), []);
    }

    #[test]
    fn invented_reports_have_a_limit() {
        let mut route = Route::default();
        for round in 0..10 {
            for octet in 0..=255 {
                probe(&mut route, octet, &[(octet, round * 20, Some(!octet))]);
            }
            route.end_probe(end(round, 255));
        }
        assert!(route.hops().len() <= ROWS_MAX);
        assert_eq!(route.end(), None);
    }
}
