//! Pictures of what was found: panels with axes and series, written as SVG.
//!
//! What is drawn is given in whole numbers of a small unit, and each axis tells by what
//! they are divided: times in microseconds with a divisor of 1,000 are labelled in ms.
//! No library: the light ones among those that draw SVG bring font or image code along.

mod svg;

use std::collections::BTreeMap;

/// A picture: panels one below the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// What it shows, with what it was made from.
    pub title: String,
    /// The panels, at least one.
    pub panels: Vec<Panel>,
}

impl Picture {
    /// Returns the picture as the text of an SVG file. Points that an axis cannot show,
    /// zeros on a logarithmic one, are left out.
    pub fn to_svg(&self) -> String {
        svg::write(self)
    }
}

/// Two axes and what is drawn between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// What it shows.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What is drawn; with names, if there are several.
    pub series: Vec<Series>,
}

/// An axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What it measures, with the unit.
    pub label: String,
    /// By what the numbers are divided to be in that unit.
    pub divisor: u64,
    /// Whether it is logarithmic.
    pub logarithmic: bool,
    /// Where it begins, as the numbers are given; none where the least one is, or at 0
    /// when that is not far.
    pub from: Option<u64>,
}

impl Axis {
    /// Makes a linear axis.
    pub fn new(label: &str, divisor: u64) -> Self {
        Self {
            label: label.to_owned(),
            divisor,
            logarithmic: false,
            from: None,
        }
    }

    /// Makes the axis logarithmic.
    #[must_use]
    pub fn logarithmic(mut self) -> Self {
        self.logarithmic = true;
        self
    }

    /// Has the axis begin somewhere.
    #[must_use]
    pub fn from(mut self, from: u64) -> Self {
        self.from = Some(from);
        self
    }
}

/// How points are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Joined by straight lines.
    Line,
    /// Each holding until the next.
    Steps,
    /// A bar from the axis up to each.
    Bars,
}

/// Points that belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What they are.
    pub name: String,
    /// How they are drawn.
    pub style: Style,
    /// The points, by rising x.
    pub points: Vec<(u64, u64)>,
}

impl Series {
    /// Makes a series.
    pub fn new(name: &str, style: Style, points: Vec<(u64, u64)>) -> Self {
        Self {
            name: name.to_owned(),
            style,
            points,
        }
    }

    /// Makes the distribution function of some values: y, in hundredths of a percent, is
    /// the share of values up to x. Of many values 400 are drawn.
    pub fn distribution(name: &str, values: &[u64]) -> Self {
        const POINTS: usize = 400;
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let len = sorted.len();
        let points = (0..=POINTS.min(len)).filter_map(|i| {
            let rank = i * len / POINTS.min(len).max(1);
            let value = *sorted.get(rank.max(1) - 1)?;
            Some((value, (rank * 10_000 / len) as u64))
        });
        let points = points.collect();
        Self::new(name, Style::Steps, points)
    }

    /// Makes a histogram: how often each value occurs.
    pub fn histogram(name: &str, values: impl IntoIterator<Item = u64>) -> Self {
        let mut counts = BTreeMap::new();
        for value in values {
            *counts.entry(value).or_insert(0_u64) += 1;
        }
        Self::new(name, Style::Bars, counts.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_begin_at_nothing_and_end_at_everything() {
        let values: Vec<u64> = (1..=1000).collect();
        let series = Series::distribution("times", &values);
        assert_eq!(series.points.first(), Some(&(1, 0)));
        assert_eq!(series.points.last(), Some(&(1000, 10_000)));
        assert!(series.points.contains(&(500, 5000)));
        assert_eq!(Series::distribution("none", &[]).points, []);
        let few = Series::distribution("few", &[7, 3]).points;
        assert_eq!(few, [(3, 0), (3, 5000), (7, 10_000)]);
    }

    #[test]
    fn pictures_are_well_formed_and_show_every_series() {
        let panel = |logarithmic| Panel {
            title: "a < b & c".to_owned(),
            x: Axis::new("time, s", 1000),
            y: Axis {
                logarithmic,
                ..Axis::new("count", 1)
            },
            series: vec![
                Series::new("first", Style::Line, vec![(0, 1), (5000, 100), (9000, 0)]),
                Series::histogram("second", [1000, 1000, 2000]),
            ],
        };
        let svg = Picture {
            title: "both".to_owned(),
            panels: vec![panel(false), panel(true)],
        }
        .to_svg();
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("first").count(), 2);
        assert!(svg.contains("a &lt; b &amp; c"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        let (open, closed) = (svg.matches("<g").count(), svg.matches("</g>").count());
        assert_eq!(open, closed);
    }
}
