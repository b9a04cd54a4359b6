//! What is survived, as a picture: below the grid of pairs a row for each event, whose fields stand under
//! the kinds to which it happened, and then one for each pair.

use std::fmt::Write as _;
use std::time::Duration;

use super::matrix::Matrix;
use super::picture::{FIELD, NAMES};
use super::survival::{Outcome, Survival};

/// The heights of a row, of a title and of the legend.
const ROW: usize = 24;
const TITLE: usize = 22;
const LEGEND: usize = 24;
/// The room of one entry of the legend.
const ENTRY: usize = 82;

/// Below how many seconds which colour is taken, and above all of these.
const STEPS: [(u64, &str); 3] = [(1, "#9ad69a"), (3, "#d3e29a"), (10, "#ffd866")];
const LONGER: &str = "#f5a25d";
const LOST: &str = "#c9372c";
const UNREACHED: &str = "#cccccc";

/// What is drawn.
pub(super) struct Strip<'m> {
    /// For each event that happened to kinds what became of which column.
    by_kind: Vec<(&'static str, Vec<(usize, &'m Survival)>)>,
    by_pair: Vec<&'m Survival>,
}

impl<'m> Strip<'m> {
    /// Of what was survived, in the order in which it happened.
    pub(super) fn of(matrix: &'m Matrix) -> Self {
        let mut strip = Self {
            by_kind: Vec::new(),
            by_pair: Vec::new(),
        };
        for survival in &matrix.survivals {
            let mut kinds = matrix.kinds.iter();
            let Some(column) = kinds.position(|kind| kind.name == survival.who) else {
                strip.by_pair.push(survival);
                continue;
            };
            match strip.by_kind.last_mut() {
                Some((event, row)) if *event == survival.event => row.push((column, survival)),
                _ => strip
                    .by_kind
                    .push((survival.event, vec![(column, survival)])),
            }
        }
        strip
    }

    /// Returns how high it is; 0 where nothing was tried.
    pub(super) fn height(&self) -> usize {
        match self.by_kind.len() + self.by_pair.len() {
            0 => 0,
            rows => TITLE + rows * ROW + LEGEND,
        }
    }

    /// Draws it, so far down.
    pub(super) fn draw(&self, svg: &mut String, top: usize) {
        if self.height() == 0 {
            return;
        }
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{}\" font-weight=\"bold\">seconds without an answer</text>",
            top + TITLE - 8
        );
        let mut y = top + TITLE;
        for (event, row) in &self.by_kind {
            draw_name(svg, y, event);
            for (column, survival) in row {
                draw_field(svg, (NAMES + column * FIELD, y), survival);
            }
            y += ROW;
        }
        for survival in &self.by_pair {
            draw_name(svg, y, survival.event);
            draw_field(svg, (NAMES, y), survival);
            let (x, base) = (NAMES + FIELD + 4, y + ROW / 2 + 3);
            let _ = writeln!(svg, "<text x=\"{x}\" y=\"{base}\">{}</text>", survival.who);
            y += ROW;
        }
        draw_legend(svg, y);
    }
}

fn draw_name(svg: &mut String, y: usize, event: &str) {
    let (x, base) = (NAMES - 6, y + ROW / 2 + 3);
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{base}\" text-anchor=\"end\">{event}</text>"
    );
}

fn draw_field(svg: &mut String, (x, y): (usize, usize), survival: &Survival) {
    let Survival {
        event,
        who,
        outcome,
        late,
    } = survival;
    let (colour, ink) = colours(*outcome);
    let (short, late) = (outcome.short(), late.as_millis());
    let shown = match outcome {
        Outcome::Gap(_) | Outcome::Lost => short.as_str(),
        Outcome::Unreached => "",
    };
    let _ = writeln!(
        svg,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" fill=\"{colour}\"><title>{event}, {who}: \
         {short}; the lab was late by {late} ms at most</title></rect>\n<text x=\"{}\" y=\"{}\" \
         text-anchor=\"middle\" fill=\"{ink}\">{shown}</text>",
        FIELD - 2,
        ROW - 2,
        x + FIELD / 2 - 1,
        y + ROW / 2 + 3
    );
}

fn draw_legend(svg: &mut String, top: usize) {
    let steps = STEPS.map(|(seconds, colour)| (colour, format!("below {seconds}")));
    let others = [
        (LONGER, "longer"),
        (LOST, "lost"),
        (UNREACHED, "not reached before"),
    ];
    let others = others.map(|(colour, name)| (colour, name.to_owned()));
    for (number, (colour, name)) in steps.into_iter().chain(others).enumerate() {
        let (x, y) = (10 + number * ENTRY, top + 8);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\n\
             <text x=\"{}\" y=\"{}\">{name}</text>",
            x + 17,
            y + 10
        );
    }
}

/// Returns the colours of a field and of what is written in it.
fn colours(outcome: Outcome) -> (&'static str, &'static str) {
    match outcome {
        Outcome::Gap(gap) => {
            let mut steps = STEPS.iter();
            let step = steps.find(|(seconds, _)| gap < Duration::from_secs(*seconds));
            (step.map_or(LONGER, |(_, colour)| colour), "#000")
        }
        Outcome::Lost => (LOST, "#fff"),
        Outcome::Unreached => (UNREACHED, "#000"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds::KINDS;
    use super::super::links::Links;
    use super::super::picture;
    use super::*;

    const EVENTS: [&str; 3] = ["one thing", "another", "a third"];

    fn gap(millis: u64) -> Outcome {
        Outcome::Gap(Duration::from_millis(millis))
    }

    /// Two kinds, of which the second one has these fates in two events; and a pair.
    fn matrix(fates: [Outcome; 2]) -> Matrix {
        let survival = |event: usize, who: String, outcome| Survival {
            event: EVENTS[event],
            who,
            outcome,
            late: Duration::from_millis(7),
        };
        let [one, other] = [0, 1].map(|kind| KINDS[kind].name);
        Matrix {
            kinds: KINDS[..2].to_vec(),
            cells: Vec::new(),
            survivals: vec![
                survival(0, one.to_owned(), gap(400)),
                survival(0, other.to_owned(), fates[0]),
                survival(1, other.to_owned(), fates[1]),
                survival(2, format!("{other} to {one}"), gap(12_300)),
            ],
            late: Duration::ZERO,
            links: Links::default(),
        }
    }

    /// The fields that are as wide as those of kinds: where they are, their colour, and the rest.
    fn fields(svg: &str) -> Vec<(usize, usize, &str, &str)> {
        let width = format!("width=\"{}\" height=\"{}\"", FIELD - 2, ROW - 2);
        let lines = svg.lines().filter(|line| line.contains(&width));
        let fields = lines.map(|line| {
            let mut values = line.split('"').skip(1).step_by(2);
            let mut next = || values.next().unwrap();
            let (x, y) = (next().parse().unwrap(), next().parse().unwrap());
            let _size = [next(), next()];
            (x, y, next(), line.split("<title>").nth(1).unwrap())
        });
        fields.collect()
    }

    #[test]
    fn each_fate_stands_under_its_kind_in_a_colour_of_its_own() {
        let drawn = picture::draw(&matrix([gap(2_999), Outcome::Lost]));
        let found = fields(&drawn);
        let columns: Vec<usize> = found.iter().map(|field| field.0).collect();
        let second = NAMES + FIELD;
        assert_eq!(columns, [NAMES, second, second, NAMES]);
        let rows: Vec<usize> = found.iter().map(|field| field.1 - found[0].1).collect();
        assert_eq!(rows, [0, 0, ROW, 2 * ROW]);
        let colours: Vec<&str> = found.iter().map(|field| field.2).collect();
        assert_eq!(colours, [STEPS[0].1, STEPS[1].1, LOST, LONGER]);
        let all: Vec<&str> = found.iter().map(|field| field.3).collect();
        assert!(all[0].starts_with("one thing, public: 0.4; the lab was late by 7 ms"));
        assert!(
            all[2].starts_with("another, full-cone: lost; "),
            "{}",
            all[2]
        );
        assert!(all[3].starts_with("a third, full-cone to public: 12.3; "));
        for shown in ["0.4", "3.0", "lost", "12.3", "full-cone to public"] {
            assert!(drawn.contains(&format!(">{shown}</text>")), "{shown}");
        }
        let drawn = picture::draw(&matrix([gap(3_000), Outcome::Unreached]));
        let colours: Vec<&str> = fields(&drawn).iter().map(|field| field.2).collect();
        assert_eq!(colours, [STEPS[0].1, STEPS[2].1, UNREACHED, LONGER]);
        assert!(
            drawn.contains("#000\"></text>"),
            "nothing is in grey fields"
        );
    }

    #[test]
    fn everything_is_in_the_picture_and_without_events_nothing_is() {
        let mut matrix = matrix([gap(0), gap(0)]);
        let strip = Strip::of(&matrix).height();
        assert_eq!(strip, TITLE + 3 * ROW + LEGEND);
        let drawn = picture::draw(&matrix);
        let view = drawn.split("viewBox=\"0 0 ").nth(1).unwrap();
        let view = view.split('"').next().unwrap();
        let (width, height) = view.split_once(' ').unwrap();
        for (name, most) in [(" x=\"", width), (" y=\"", height)] {
            let values = drawn.split(name).skip(1);
            let values = values.map(|rest| rest.split('"').next().unwrap());
            let last = values.map(|value| value.parse::<usize>().unwrap()).max();
            assert!(last < most.parse().ok(), "{name}{last:?} {most}");
        }
        let lowest = fields(&drawn).last().unwrap().1;
        assert!(drawn.contains(">not reached before</text>"));
        matrix.survivals.clear();
        let without = picture::draw(&matrix);
        assert!(!without.contains("without an answer") && fields(&without).is_empty());
        let lower: usize = height.parse().unwrap();
        let view = format!("{width} {}", lower - strip);
        assert!(without.contains(&view), "{view}");
        assert!(lowest > lower - strip - ROW);
    }
}
