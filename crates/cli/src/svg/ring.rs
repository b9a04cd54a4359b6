//! The ring as one node knows it.
//!
//! Positions go clockwise from the top. The node itself, its neighbours and its links are
//! drawn large and named; what is known beside them is a dot. Lines of the node itself
//! are coloured by their round trip; those of others are faint, and left out where there
//! are too many. Names are left out where they would cover each other.

use std::f64::consts::TAU;
use std::fmt::Write;

use enishi_api::{MapNode, MapRole, OverlayMap};

use super::{begin, class_of, escaped, figure, round_trips, text};
use crate::commands::map::{known_round_trip, role_label};
use crate::text::{Label, Language, Message};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 1_000.0;
const CENTRE: (f64, f64) = (WIDTH / 2.0, 490.0);
const RADIUS: f64 = 350.0;
/// Between two names, as a share of the circle: the height of a line.
const NAME_GAP: f64 = 0.0065;
/// How many characters of an id name a node.
const NAME_CHARACTERS: usize = 6;
/// The class of a node that is drawn with a ring around it.
const SUPERNODE: &str = "super";
/// With more links than these the others' are left out.
const FAINT_LINKS_MAX: usize = 600;
/// With more of its own lines than these they bear no figures.
const FIGURES_MAX: usize = 32;
/// Where on its line a figure stands, as a share of the way to the other node.
const FIGURE_AT: f64 = 0.8;
/// Between two figures, in pixels.
const FIGURE_GAP: f64 = 16.0;

/// Draws a map as an SVG document of its own.
pub(crate) fn draw(map: &OverlayMap, language: Language) -> String {
    let mut svg = begin(WIDTH, HEIGHT);
    heading(&mut svg, map, language);
    let (x, y) = CENTRE;
    let _ = write!(
        svg,
        "<circle class=\"ring\" cx=\"{x}\" cy=\"{y}\" r=\"{RADIUS}\"/>"
    );
    let places: Vec<Place<'_>> = map.nodes.iter().map(Place::of).collect();
    faint_links(&mut svg, map, &places);
    own_links(&mut svg, map, &places);
    nodes(&mut svg, &places, language);
    names(&mut svg, &places);
    legend(&mut svg, map, language);
    svg.push_str("</svg>\n");
    svg
}

/// A node and where it is drawn.
struct Place<'a> {
    node: &'a MapNode,
    /// Its place as a share of the circle.
    turn: f64,
}

impl<'a> Place<'a> {
    fn of(node: &'a MapNode) -> Self {
        let number = u64::from_str_radix(&node.position, 16).unwrap_or(0);
        Self {
            node,
            turn: number as f64 / 2_f64.powi(64),
        }
    }

    /// Returns the point of the node's ray at a share of the radius.
    fn at(&self, share: f64) -> (f64, f64) {
        let (sine, cosine) = (self.turn * TAU).sin_cos();
        let (x, y) = CENTRE;
        (x + sine * RADIUS * share, y - cosine * RADIUS * share)
    }

    fn is_close(&self) -> bool {
        matches!(
            self.node.role,
            MapRole::Itself | MapRole::Near | MapRole::Long
        )
    }
}

fn heading(svg: &mut String, map: &OverlayMap, language: Language) {
    let node = map.nodes.first().map_or("-", |node| &node.node_id);
    let title = language.text(&Message::MapTitle { node: name(node) });
    let summary = language.text(&Message::MapSummary {
        known: map.nodes.len(),
        estimate: map.size_estimate,
    });
    text(svg, (24.0, 36.0), "title", &title);
    text(svg, (24.0, 58.0), "", &summary);
}

fn faint_links(svg: &mut String, map: &OverlayMap, places: &[Place<'_>]) {
    let of_others = map
        .links
        .iter()
        .filter(|link| link.long && link.from != 0 && link.to != 0);
    let links: Vec<_> = of_others.collect();
    if links.len() > FAINT_LINKS_MAX {
        return;
    }
    for link in links {
        let (Some(from), Some(to)) = (places.get(link.from as usize), places.get(link.to as usize))
        else {
            continue;
        };
        let _ = write!(svg, "<path class=\"faint\" d=\"{}\"/>", chord(from, to));
    }
}

/// The lines from the node itself to its neighbours and links, with their round trips.
fn own_links(svg: &mut String, map: &OverlayMap, places: &[Place<'_>]) {
    let Some((me, others)) = places.split_first() else {
        return;
    };
    let close: Vec<&Place<'_>> = others.iter().filter(|place| place.is_close()).collect();
    for place in &close {
        let class = class_of(place.node.rtt_ms);
        let _ = write!(
            svg,
            "<path class=\"line {class}\" d=\"{}\"/>",
            chord(me, place)
        );
    }
    if close.len() > FIGURES_MAX || map.nodes.len() < 2 {
        return;
    }
    let mut taken: Vec<(f64, f64)> = Vec::new();
    for place in close {
        let Some(rtt_ms) = place.node.rtt_ms else {
            continue;
        };
        let at = on_chord(me, place, FIGURE_AT);
        let free =
            |other: &(f64, f64)| (other.0 - at.0).hypot((other.1 - at.1) * 2.0) > 2.0 * FIGURE_GAP;
        if taken.iter().all(free) {
            text(svg, at, "figure", &figure(rtt_ms));
            taken.push(at);
        }
    }
}

/// A line bent towards the centre, the more the nearer the ends are to each other.
fn chord(from: &Place<'_>, to: &Place<'_>) -> String {
    let ((x0, y0), (x, y), (x1, y1)) = (from.at(1.0), control(from, to), to.at(1.0));
    format!("M{x0:.1} {y0:.1}Q{x:.1} {y:.1} {x1:.1} {y1:.1}")
}

/// The point towards which a chord is bent.
fn control(from: &Place<'_>, to: &Place<'_>) -> (f64, f64) {
    let ((x0, y0), (x1, y1)) = (from.at(1.0), to.at(1.0));
    let apart = (x0 - x1).hypot(y0 - y1) / (2.0 * RADIUS);
    let bend = 0.75 * (1.0 - apart) + 0.1;
    (
        CENTRE.0 + ((x0 + x1) / 2.0 - CENTRE.0) * bend,
        CENTRE.1 + ((y0 + y1) / 2.0 - CENTRE.1) * bend,
    )
}

/// The point of a chord at a share of its way.
fn on_chord(from: &Place<'_>, to: &Place<'_>, share: f64) -> (f64, f64) {
    let ((x0, y0), (x, y), (x1, y1)) = (from.at(1.0), control(from, to), to.at(1.0));
    let rest = 1.0 - share;
    let mix = |a: f64, b: f64, c: f64| rest * rest * a + 2.0 * rest * share * b + share * share * c;
    (mix(x0, x, x1), mix(y0, y, y1))
}

fn nodes(svg: &mut String, places: &[Place<'_>], language: Language) {
    let small = if places.len() > 150 { 2.5 } else { 4.0 };
    // The ones that matter are drawn last, so that no dot covers them.
    let mut order: Vec<&Place<'_>> = places.iter().collect();
    order.sort_by_key(|place| std::cmp::Reverse(importance(place)));
    for place in order {
        let (x, y) = place.at(1.0);
        let radius = match place.node.role {
            MapRole::Itself => 9.0,
            MapRole::Near | MapRole::Long => 6.0,
            MapRole::Known | MapRole::Found => small,
        };
        if place.node.class.as_deref() == Some(SUPERNODE) {
            let radius = radius + 3.5;
            let _ = write!(
                svg,
                "<circle class=\"super\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/>"
            );
        }
        let class = role_class(place.node.role);
        let _ = write!(
            svg,
            "<circle class=\"node {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"><title>{}\
             </title></circle>",
            escaped(&tooltip(place.node, language))
        );
    }
}

fn tooltip(node: &MapNode, language: Language) -> String {
    let role = language.label(role_label(node.role));
    let rtt = known_round_trip(node).map_or_else(String::new, |rtt| format!(", {rtt}"));
    let class = node
        .class
        .as_ref()
        .map_or_else(String::new, |class| format!(", {class}"));
    format!("{} ({role}{rtt}{class})", node.node_id)
}

fn importance(place: &Place<'_>) -> u8 {
    match place.node.role {
        MapRole::Itself => 0,
        MapRole::Long => 1,
        MapRole::Near => 2,
        MapRole::Known => 3,
        MapRole::Found => 4,
    }
}

const fn role_class(role: MapRole) -> &'static str {
    match role {
        MapRole::Itself => "itself",
        MapRole::Near => "near",
        MapRole::Long => "long",
        MapRole::Known => "known",
        MapRole::Found => "found",
    }
}

/// Names the nodes outside the circle, along their rays, the important ones first.
fn names(svg: &mut String, places: &[Place<'_>]) {
    let mut order: Vec<&Place<'_>> = places.iter().collect();
    order.sort_by_key(|place| importance(place));
    let mut taken: Vec<f64> = Vec::new();
    for place in order {
        let apart = |other: &f64| {
            let apart = (place.turn - other).abs();
            apart.min(1.0 - apart)
        };
        if taken.iter().any(|other| apart(other) < NAME_GAP) {
            continue;
        }
        taken.push(place.turn);
        let (x, y) = place.at(1.05);
        // On the left half the text is turned round, so that it is never upside down.
        let left = place.turn > 0.5;
        let degrees = place.turn * 360.0 - 90.0 + if left { 180.0 } else { 0.0 };
        let anchor = if left { "end" } else { "start" };
        let class = match place.node.role {
            MapRole::Itself => "strong",
            MapRole::Near | MapRole::Long => "",
            MapRole::Known | MapRole::Found => "small",
        };
        let _ = write!(
            svg,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" \
             dominant-baseline=\"central\" transform=\"rotate({degrees:.1} {x:.1} {y:.1})\">{}</text>",
            escaped(name(&place.node.node_id))
        );
    }
}

fn legend(svg: &mut String, map: &OverlayMap, language: Language) {
    let roles = [
        MapRole::Itself,
        MapRole::Near,
        MapRole::Long,
        MapRole::Known,
        MapRole::Found,
    ];
    let y = HEIGHT - 62.0;
    for (column, role) in (0..).zip(roles) {
        let x = 32.0 + f64::from(column) * 186.0;
        let count = map.nodes.iter().filter(|node| node.role == role).count();
        let class = role_class(role);
        let _ = write!(
            svg,
            "<circle class=\"node {class}\" cx=\"{x}\" cy=\"{y}\" r=\"6\"/>"
        );
        let label = format!("{} ({count})", language.label(role_label(role)));
        text(svg, (x + 12.0, y + 4.0), "", &label);
    }
    let y = y + 24.0;
    round_trips(svg, y, language);
    classes(svg, map, language, y + 24.0);
}

/// How many nodes of each class there are, where classes are known.
fn classes(svg: &mut String, map: &OverlayMap, language: Language, y: f64) {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for class in map.nodes.iter().filter_map(|node| node.class.as_deref()) {
        *counts.entry(class).or_default() += 1;
    }
    if !counts.is_empty() {
        let counts: Vec<String> = counts
            .iter()
            .map(|(class, count)| {
                let mark = if *class == SUPERNODE { " \u{25ce}" } else { "" };
                format!("{class}{mark} {count}")
            })
            .collect();
        let line = format!("{}: {}", language.label(Label::Class), counts.join(", "));
        text(svg, (24.0, y), "", &line);
    }
}

fn name(id: &str) -> &str {
    id.get(..NAME_CHARACTERS).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use enishi_api::{MapLink, PathKind};

    fn node(number: u64, of: u64, role: MapRole) -> MapNode {
        MapNode {
            node_id: format!("node{number:04}"),
            position: format!("{:016x}", u64::MAX / of * number),
            role,
            path: PathKind::Direct,
            rtt_ms: Some(number as f64),
            rtt_predicted_ms: None,
            class: None,
        }
    }

    fn map(count: u64) -> OverlayMap {
        let role = |number| match number {
            0 => MapRole::Itself,
            1..=3 => MapRole::Near,
            4..=6 => MapRole::Long,
            _ => MapRole::Known,
        };
        OverlayMap {
            size_estimate: count,
            nodes: (0..count)
                .map(|number| node(number, count, role(number)))
                .collect(),
            links: vec![
                MapLink {
                    from: 4,
                    to: 5,
                    long: true,
                },
                MapLink {
                    from: 0,
                    to: 9_999,
                    long: true,
                },
                MapLink {
                    from: 7,
                    to: 9_999,
                    long: true,
                },
            ],
        }
    }

    fn count(svg: &str, part: &str) -> usize {
        svg.matches(part).count()
    }

    #[test]
    fn every_node_is_a_dot_and_the_nearest_are_lines() {
        for nodes in [3, 40, 500] {
            let svg = draw(&map(nodes), Language::En);
            assert_eq!(count(&svg, "</title></circle>") as u64, nodes);
            let close = nodes.min(7) - 1;
            // Five more in the legend.
            assert_eq!(count(&svg, "class=\"line ") as u64, close + 5);
            assert_eq!(count(&svg, "class=\"faint\""), usize::from(nodes > 5));
            assert_eq!(count(&svg, "<svg"), 1);
            assert!(svg.ends_with("</svg>\n"));
        }
    }

    #[test]
    fn names_do_not_cover_each_other() {
        let svg = draw(&map(500), Language::En);
        let names = count(&svg, "rotate(");
        assert!((100..=154).contains(&names), "{names}");
        assert!(svg.contains(">node00</text>"));
        assert_eq!(count(&draw(&map(40), Language::En), "rotate("), 40);
    }

    #[test]
    fn positions_go_clockwise_from_the_top() {
        let [top, right] = [0, 1].map(|number| node(number, 4, MapRole::Known));
        let (x, y) = Place::of(&top).at(1.0);
        assert!((x - CENTRE.0).abs() < 0.1 && (y - (CENTRE.1 - RADIUS)).abs() < 0.1);
        let (x, y) = Place::of(&right).at(1.0);
        assert!((x - (CENTRE.0 + RADIUS)).abs() < 0.1 && (y - CENTRE.1).abs() < 0.1);
    }

    #[test]
    fn what_others_write_stays_text() {
        let mut map = map(3);
        map.nodes[1].class = Some("</text><script>\u{1b}".to_owned());
        map.nodes[1].position = "nonsense".to_owned();
        let svg = draw(&map, Language::Ja);
        assert!(!svg.contains("<script>") && !svg.contains('\u{1b}'));
        assert!(svg.contains("&lt;script&gt;"));
    }
}
