//! `enishi overlay map`.

use std::fs;
use std::path::Path;

use enishi_api::{Answer, MapNode, MapRole, OverlayMap, Request};

use super::{Context, trace};
use crate::args::Map;
use crate::client::strange;
use crate::output::table::Table;
use crate::problem::{Problem, Verdict};
use crate::svg::ring;
use crate::text::{Label, Message, or_dash};

/// Draws the ring to a file, or shows it as a table.
pub(super) async fn draw(cx: &Context, options: Map) -> Result<Verdict, Problem> {
    let Map { svg, crawl } = options;
    if cx.out.json && svg.as_deref() == Some(Path::new("-")) {
        return Err(Problem::Usage(cx.out.text(&Message::MapTwice)));
    }
    let Answer::OverlayMap(map) = cx.client.ask(&Request::OverlayMap { crawl }).await? else {
        return Err(strange(&cx.out));
    };
    if let Some(file) = &svg {
        let drawing = ring::draw(&map, cx.out.language);
        if file == Path::new("-") {
            cx.out.bytes(drawing.as_bytes())?;
            return Ok(Verdict::Yes);
        }
        write(cx, file, &drawing)?;
    }
    if cx.out.json {
        cx.out.object(&map)?;
        return Ok(Verdict::Yes);
    }
    let summary = Message::MapSummary {
        known: map.nodes.len(),
        estimate: map.size_estimate,
    };
    cx.out.line(&cx.out.text(&summary))?;
    match svg {
        Some(file) => {
            let file = &file.display().to_string();
            cx.out.line(&cx.out.text(&Message::MapWritten { file }))?;
        }
        None => cx.out.line(&format!("\n{}", table(cx, &map)))?,
    }
    Ok(Verdict::Yes)
}

pub(super) fn write(cx: &Context, file: &Path, drawing: &str) -> Result<(), Problem> {
    fs::write(file, drawing).map_err(|error| {
        let file = &file.display().to_string();
        let error = &error;
        Problem::No(cx.out.text(&Message::FileUnwritable { file, error }))
    })
}

fn table(cx: &Context, map: &OverlayMap) -> String {
    let labels = [
        Label::Position,
        Label::Node,
        Label::Role,
        Label::Class,
        Label::RoundTrip,
        Label::Path,
    ];
    let mut table = Table::new(labels.map(|label| cx.out.label(label))).right(4);
    for node in &map.nodes {
        table.row([
            node.position.clone(),
            node.node_id.clone(),
            cx.out.label(role_label(node.role)).to_owned(),
            or_dash(node.class.as_deref()),
            round_trip(node),
            cx.out.label(trace::path_label(node.path)).to_owned(),
        ]);
    }
    table.print()
}

/// The measured round trip, or the predicted one behind a tilde: it is a guess.
fn round_trip(node: &MapNode) -> String {
    or_dash(known_round_trip(node))
}

/// The same, if it is known.
pub(crate) fn known_round_trip(node: &MapNode) -> Option<String> {
    let measured = node.rtt_ms.map(|ms| format!("{ms:.2} ms"));
    measured.or_else(|| Some(format!("~{:.0} ms", node.rtt_predicted_ms?)))
}

/// What a role on the map is called.
pub(crate) fn role_label(role: MapRole) -> Label {
    match role {
        MapRole::Itself => Label::Itself,
        MapRole::Near => Label::Near,
        MapRole::Long => Label::Long,
        MapRole::Known => Label::Known,
        MapRole::Found => Label::Found,
    }
}
