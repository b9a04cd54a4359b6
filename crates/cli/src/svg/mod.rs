//! Drawings as SVG text.

pub(crate) mod ring;
pub(crate) mod star;

use std::fmt::Write;

use crate::text::{Label, Language};

/// The bounds of round trips in milliseconds, and the class of lines below each.
const ROUND_TRIPS: [(f64, &str); 4] = [
    (10.0, "t0"),
    (50.0, "t1"),
    (150.0, "t2"),
    (f64::INFINITY, "t3"),
];

/// The colours are told apart also by people who see red and green alike, and on either
/// background.
const STYLE: &str = "\
text{font-family:sans-serif;font-size:12px;fill:#222}\
.title{font-size:20px;font-weight:bold}\
.small{font-size:10px}\
.figure{font-size:10px;text-anchor:middle;paint-order:stroke;stroke:#fff;stroke-width:3px}\
.strong{font-weight:bold}\
.background{fill:#fff}\
.ring{fill:none;stroke:#bbb;stroke-width:2}\
.faint{fill:none;stroke:#999;stroke-width:.6;opacity:.35}\
.line{fill:none;stroke-width:2}\
.t0{stroke:#1a85ff}.t1{stroke:#2aa876}.t2{stroke:#e69f00}.t3{stroke:#d41159}\
.tu{stroke:#888;stroke-dasharray:4 4}\
.session{stroke-dasharray:9 5}\
.node{stroke:#fff;stroke-width:1.5}.super{fill:none;stroke:#d41159;stroke-width:2}\
.itself{fill:#111}.near{fill:#6a3fb5}.long{fill:#a8572b}.known{fill:#888}.found{fill:#c4c4c4}\
@media(prefers-color-scheme:dark){text{fill:#ddd}.background{fill:#16181c}.ring{stroke:#555}\
.node,.figure{stroke:#16181c}.itself{fill:#fff}.near{fill:#a98bea}.long{fill:#d98d5f}.found{fill:#555}}";

/// Begins a document of so many pixels.
fn begin(width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\"><style>{STYLE}</style>\
         <rect class=\"background\" width=\"100%\" height=\"100%\"/>"
    )
}

/// The class of a line of a round trip.
fn class_of(rtt_ms: Option<f64>) -> &'static str {
    let Some(rtt_ms) = rtt_ms else { return "tu" };
    let fitting = ROUND_TRIPS.iter().find(|(below, _)| rtt_ms < *below);
    fitting.map_or("tu", |(_, class)| class)
}

/// A round trip with as many places as tell something.
fn figure(rtt_ms: f64) -> String {
    if rtt_ms < 10.0 {
        format!("{rtt_ms:.1} ms")
    } else {
        format!("{rtt_ms:.0} ms")
    }
}

/// Says which colour of a line means which round trip.
fn round_trips(svg: &mut String, y: f64, language: Language) {
    text(svg, (24.0, y + 4.0), "", language.label(Label::RoundTrip));
    let mut least = 0.0;
    let bounds = ROUND_TRIPS.map(|(below, class)| {
        let label = if below.is_finite() {
            format!("{least:.0}-{below:.0} ms")
        } else {
            format!("{least:.0}+ ms")
        };
        least = below;
        (class, label)
    });
    let unknown = ("tu", language.label(Label::Unknown).to_owned());
    for (column, (class, label)) in (0..).zip(bounds.into_iter().chain([unknown])) {
        let x = 130.0 + f64::from(column) * 130.0;
        let _ = write!(svg, "<path class=\"line {class}\" d=\"M{x} {y}h28\"/>");
        text(svg, (x + 34.0, y + 4.0), "", &label);
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), class: &str, content: &str) {
    let _ = write!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>",
        escaped(content)
    );
}

/// Replaces what has a meaning in XML, and what must not be in it.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
