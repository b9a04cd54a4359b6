//! Writing pictures as SVG, readable on light and dark ground.

use std::fmt::Write as _;

use super::{Axis, Panel, Picture, Series, Style};

const WIDTH: f64 = 860.0;
const PANEL_HEIGHT: f64 = 380.0;
const TITLE_HEIGHT: f64 = 44.0;
/// Room left of, above, right of and below what is drawn in a panel.
const LEFT: f64 = 84.0;
const TOP: f64 = 40.0;
const RIGHT: f64 = 40.0;
const BOTTOM: f64 = 58.0;
/// Colours that people with the common deficiencies tell apart (Okabe and Ito, 2008), as
/// far as they stand out from white and from near black.
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00",
];
const STYLE: &str = "text{font-family:'DejaVu Sans',Verdana,sans-serif;font-size:13px;fill:#222}\
.title{font-size:16px;font-weight:bold}.panel{font-size:14px;font-weight:bold}\
.ground{fill:#fff}.grid{stroke:#ddd}.axis{stroke:#222}.line{fill:none;stroke-width:1.8}\
@media (prefers-color-scheme:dark){text{fill:#ddd}.ground{fill:#161616}.grid{stroke:#3a3a3a}\
.axis{stroke:#ddd}}";

/// Writes a picture.
pub(super) fn write(picture: &Picture) -> String {
    let height = TITLE_HEIGHT + PANEL_HEIGHT * picture.panels.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\">\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n"
    );
    text(
        &mut svg,
        (WIDTH / 2.0, 28.0),
        "middle",
        "title",
        &picture.title,
    );
    for (number, panel) in picture.panels.iter().enumerate() {
        let top = TITLE_HEIGHT + PANEL_HEIGHT * number as f64;
        _ = writeln!(svg, "<g transform=\"translate(0 {top})\">");
        write_panel(&mut svg, panel);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn write_panel(svg: &mut String, panel: &Panel) {
    let numbers = |pick: fn(&(u64, u64)) -> u64| {
        let points = panel.series.iter().flat_map(|series| &series.points);
        points.map(pick).collect::<Vec<u64>>()
    };
    let x = Scale::new(&panel.x, &numbers(|point| point.0), LEFT, WIDTH - RIGHT);
    let y = Scale::new(
        &panel.y,
        &numbers(|point| point.1),
        PANEL_HEIGHT - BOTTOM,
        TOP,
    );
    text(svg, (LEFT, 24.0), "start", "panel", &panel.title);
    write_axes(svg, panel, &x, &y);
    for (number, series) in panel.series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        match series.style {
            Style::Bars => write_bars(svg, series, &x, &y, (number, panel.series.len()), colour),
            Style::Line | Style::Steps => write_line(svg, series, &x, &y, colour),
        }
    }
    if panel.series.len() > 1 {
        write_legend(svg, panel);
    }
}

fn write_axes(svg: &mut String, panel: &Panel, x: &Scale, y: &Scale) {
    for (value, label) in x.ticks() {
        let at = x.at(value);
        line(svg, "grid", (at, y.start), (at, y.end));
        text(svg, (at, y.start + 18.0), "middle", "", &label);
    }
    for (value, label) in y.ticks() {
        let at = y.at(value);
        line(svg, "grid", (x.start, at), (x.end, at));
        text(svg, (x.start - 8.0, at + 4.5), "end", "", &label);
    }
    line(svg, "axis", (x.start, y.start), (x.end, y.start));
    line(svg, "axis", (x.start, y.start), (x.start, y.end));
    let middle = (x.start.midpoint(x.end), PANEL_HEIGHT - 16.0);
    text(svg, middle, "middle", "", &panel.x.label);
    let middle = y.start.midpoint(y.end);
    _ = writeln!(
        svg,
        "<text transform=\"translate(20 {middle}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        escape(&panel.y.label)
    );
}

fn write_line(svg: &mut String, series: &Series, x: &Scale, y: &Scale, colour: &str) {
    if let [(a, b)] = series.points[..] {
        // A line of one point cannot be seen.
        if let (Some(px), Some(py)) = (x.place(a), y.place(b)) {
            _ = writeln!(
                svg,
                "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"4\" fill=\"{colour}\"/>"
            );
        }
        return;
    }
    let mut path = String::new();
    for (a, b) in &series.points {
        let (Some(px), Some(py)) = (x.place(*a), y.place(*b)) else {
            continue;
        };
        match (path.is_empty(), series.style) {
            (true, _) => _ = write!(path, "M{px:.1} {py:.1}"),
            (false, Style::Steps) => _ = write!(path, "H{px:.1}V{py:.1}"),
            (false, Style::Line | Style::Bars) => _ = write!(path, "L{px:.1} {py:.1}"),
        }
    }
    _ = writeln!(
        svg,
        "<path class=\"line\" stroke=\"{colour}\" d=\"{path}\"/>"
    );
}

/// Draws bars; those of the `which.0`-th of `which.1` series beside the others'.
fn write_bars(
    svg: &mut String,
    series: &Series,
    x: &Scale,
    y: &Scale,
    which: (usize, usize),
    colour: &str,
) {
    let places: Vec<f64> = series
        .points
        .iter()
        .filter_map(|(a, _)| x.place(*a))
        .collect();
    let gaps = places.windows(2).map(|pair| pair[1] - pair[0]);
    let room = gaps.fold(60.0_f64, f64::min).max(1.5) * 0.8;
    let width = room / which.1 as f64;
    for (a, b) in &series.points {
        let (Some(px), Some(py)) = (x.place(*a), y.place(*b)) else {
            continue;
        };
        let left = px - room / 2.0 + width * which.0 as f64;
        _ = writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{py:.1}\" width=\"{width:.1}\" height=\"{:.1}\" \
             fill=\"{colour}\"/>",
            (y.start - py).max(0.0)
        );
    }
}

/// Names the series, at the right of the panel's title.
fn write_legend(svg: &mut String, panel: &Panel) {
    let mut right = WIDTH - RIGHT;
    for (number, series) in panel.series.iter().enumerate().rev() {
        text(svg, (right, 24.0), "end", "", &series.name);
        right -= series.name.chars().count() as f64 * 7.3 + 20.0;
        _ = writeln!(
            svg,
            "<rect x=\"{right:.1}\" y=\"14\" width=\"12\" height=\"12\" fill=\"{}\"/>",
            COLOURS[number % COLOURS.len()]
        );
        right -= 14.0;
    }
}

/// How numbers of an axis become places in the picture.
struct Scale {
    divisor: f64,
    logarithmic: bool,
    /// The least and greatest value shown, in the axis's unit, or their logarithms.
    least: f64,
    greatest: f64,
    start: f64,
    end: f64,
}

impl Scale {
    fn new(axis: &Axis, numbers: &[u64], start: f64, end: f64) -> Self {
        let shown = numbers.iter().filter(|n| !axis.logarithmic || **n > 0);
        let divisor = axis.divisor.max(1) as f64;
        let value = |number: u64| {
            let value = number as f64 / divisor;
            if axis.logarithmic {
                value.log10()
            } else {
                value
            }
        };
        let mut least = shown.clone().min().map_or(0.0, |number| value(*number));
        let mut greatest = shown.max().map_or(1.0, |number| value(*number));
        if axis.logarithmic {
            (least, greatest) = (least.floor(), greatest.ceil());
        } else if least < greatest / 2.0 {
            least = 0.0;
        }
        least = axis.from.map_or(least, value);
        if greatest <= least {
            // One value only: show what is below it, where there is something.
            let room = if least >= 1.0 && axis.from.is_none() {
                1.0
            } else {
                0.0
            };
            (least, greatest) = (least - room, greatest.max(least) + 1.0 - room);
        }
        Self {
            divisor,
            logarithmic: axis.logarithmic,
            least,
            greatest,
            start,
            end,
        }
    }

    /// Returns the place of a value in the axis's unit, or of its logarithm.
    fn at(&self, value: f64) -> f64 {
        let share = (value - self.least) / (self.greatest - self.least);
        self.start + share * (self.end - self.start)
    }

    /// Returns the place of a number as it was given, if it can be shown.
    fn place(&self, number: u64) -> Option<f64> {
        let value = number as f64 / self.divisor;
        match self.logarithmic {
            false => Some(self.at(value)),
            true => (number > 0).then(|| self.at(value.log10())),
        }
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        if self.logarithmic {
            let decades = self.least.ceil() as i32..=self.greatest.floor() as i32;
            return decades
                .map(|d| (f64::from(d), label(10_f64.powi(d))))
                .collect();
        }
        let rough = (self.greatest - self.least) / 7.0;
        let decade = 10_f64.powf(rough.log10().floor());
        let factors = [1.0, 2.0, 2.5, 5.0, 10.0];
        let fits = |factor: &f64| decade * factor >= rough;
        let step = decade * factors.into_iter().find(fits).unwrap_or(10.0);
        let first = (self.least / step).ceil() as i64;
        let last = (self.greatest / step + 1e-9).floor() as i64;
        let tick = |i: i64| (i as f64 * step, label(i as f64 * step));
        (first..=last).map(tick).collect()
    }
}

/// Writes a number without needless places, with thousands set apart.
fn label(value: f64) -> String {
    let rounded = format!("{value:.6}");
    let short = rounded.trim_end_matches('0').trim_end_matches('.');
    let (whole, places) = short
        .split_once('.')
        .map_or((short, None), |(w, p)| (w, Some(p)));
    let mut text = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if let Some(places) = places {
        _ = write!(text, ".{places}");
    }
    text
}

fn line(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    _ = writeln!(
        svg,
        "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, class: &str, what: &str) {
    _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
        at.0,
        at.1,
        escape(what)
    );
}

fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short() {
        assert_eq!(label(1_250_000.0), "1,250,000");
        assert_eq!(label(0.05), "0.05");
        assert_eq!(label(0.0), "0");
        assert_eq!(label(100.0), "100");
    }

    #[test]
    fn ticks_are_round_numbers_within_the_axis() {
        let scale = Scale::new(&Axis::new("s", 1000), &[0, 17_300], 0.0, 100.0);
        let labels: Vec<String> = scale.ticks().into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["0", "2.5", "5", "7.5", "10", "12.5", "15"]);
    }
}
