//! `enishi trace`.

use enishi_api::{Answer, Held, Holder, Hop, HopState, PathKind, Request, TraceSummary};

use super::Context;
use crate::args::Trace;
use crate::client::strange;
use crate::output::progress::Progress;
use crate::output::table::Table;
use crate::problem::{Problem, Verdict};
use crate::text::{Label, Message, loss, or_dash, percent};

/// Follows the route to a target; the answer is no when the node in charge stays silent.
///
/// Hops report in any order, so they are shown once their order is known.
pub(super) async fn run(cx: &Context, options: Trace) -> Result<Verdict, Problem> {
    let Trace {
        target,
        key,
        probes,
    } = options;
    let target = if key { format!("key:{target}") } else { target };
    let request = Request::Trace { target, probes };
    let progress = Progress::start(&cx.out, &Message::Waiting);
    let mut answers = cx.client.call(&request).await?;
    let summary = loop {
        match answers.next().await? {
            Some(Answer::Probed { .. }) => {}
            Some(Answer::TraceSummary(summary)) => break summary,
            Some(_) => return Err(strange(&cx.out)),
            None => return Err(Problem::No(cx.out.text(&Message::DaemonSilent))),
        }
    };
    progress.stop().await;
    tell(cx, &summary)
}

fn tell(cx: &Context, summary: &TraceSummary) -> Result<Verdict, Problem> {
    if cx.out.json {
        cx.out.object(summary)?;
    } else {
        if !summary.hops.is_empty() {
            cx.out.line(&hop_table(cx, summary))?;
        }
        if let Some(node) = &summary.answered_by {
            let (answered, probes) = (summary.answered, summary.probes);
            let message = Message::TraceAnswered {
                node,
                answered,
                probes,
            };
            cx.out.line(&format!("\n{}", cx.out.text(&message)))?;
        }
        if let Some(holders) = &summary.holders {
            cx.out.line(&format!("\n{}", holder_table(cx, holders)))?;
        }
        if !summary.complete {
            cx.out.hint(&Message::TraceIncomplete);
        } else if summary.reached == Some(false) {
            cx.out.hint(&Message::TraceMissed);
        }
    }
    Ok(if summary.complete {
        Verdict::Yes
    } else {
        Verdict::No
    })
}

fn hop_table(cx: &Context, summary: &TraceSummary) -> String {
    // A column that nobody fills yet is left out.
    let classes = |hop: &Hop| {
        hop.remote
            .as_ref()
            .is_some_and(|remote| remote.class.is_some())
    };
    let with_class = summary.hops.iter().any(classes);
    let labels = [
        Label::Hop,
        Label::Node,
        Label::State,
        Label::RoundTrip,
        Label::Mean,
        Label::Loss,
        Label::Version,
        Label::Load,
        Label::ToNext,
        Label::Path,
        Label::Class,
    ];
    let columns = labels.len() - usize::from(!with_class);
    let headings = labels
        .into_iter()
        .take(columns)
        .map(|label| cx.out.label(label));
    let mut table = Table::new(headings);
    for column in [0, 3, 4, 5, 7] {
        table = table.right(column);
    }
    for hop in &summary.hops {
        let cells = hop_cells(cx, hop, summary.answered_by.as_deref());
        table.row(cells.into_iter().take(columns));
    }
    table.print()
}

fn hop_cells(cx: &Context, hop: &Hop, answered_by: Option<&str>) -> [String; 11] {
    let milliseconds = |time: Option<f64>| or_dash(time.map(|ms| format!("{ms:.2} ms")));
    let remote = hop.remote.as_ref();
    let in_charge = hop.node_id.is_some() && hop.node_id.as_deref() == answered_by;
    let state = match hop.state {
        HopState::Reported if in_charge => Label::InCharge,
        HopState::Declined if in_charge => Label::InChargeDeclined,
        HopState::Reported => Label::Reported,
        HopState::GaveBack => Label::GaveBack,
        HopState::Declined => Label::Declined,
        HopState::Lost => Label::Lost,
    };
    let unknown = || cx.out.label(Label::Unknown).to_owned();
    [
        hop.place.to_string(),
        hop.node_id.clone().unwrap_or_else(unknown),
        cx.out.label(state).to_owned(),
        milliseconds(hop.rtt_ms),
        milliseconds(hop.rtt_ms_avg),
        loss(hop.sent, hop.received),
        or_dash(remote.map(|remote| &remote.version)),
        or_dash(remote.map(|remote| percent(remote.load_per_mille))),
        or_dash(hop.next_path.map(|kind| cx.out.label(path_label(kind)))),
        hop.path.clone(),
        or_dash(remote.and_then(|remote| remote.class.as_ref())),
    ]
}

/// What a sort of path is called.
pub(super) fn path_label(kind: PathKind) -> Label {
    match kind {
        PathKind::Unconnected => Label::Unconnected,
        PathKind::Direct => Label::Direct,
        PathKind::Relayed => Label::Relayed,
        PathKind::Itself => Label::Itself,
    }
}

fn holder_table(cx: &Context, holders: &[Holder]) -> String {
    let with = holders
        .iter()
        .filter(|holder| matches!(holder.held, Held::Value { .. }));
    let heading = Message::Holders {
        with: with.count(),
        asked: holders.len(),
    };
    let mut table = Table::new([Label::Holder, Label::Held].map(|label| cx.out.label(label)));
    for holder in holders {
        let held = match holder.held {
            Held::Value { seq, age_s } => cx.out.text(&Message::HeldValue { seq, age_s }),
            Held::Removed => cx.out.label(Label::Removed).to_owned(),
            Held::Nothing => cx.out.label(Label::Nothing).to_owned(),
            Held::Silent => cx.out.label(Label::Silent).to_owned(),
        };
        table.row([holder.node_id.clone(), held]);
    }
    format!("{}\n{}", cx.out.text(&heading), table.print())
}
