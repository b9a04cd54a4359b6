//! `enishi trace`.

use enishi_api::{Answer, Hop, Request, TraceSummary};
use serde_json::json;

use super::Context;
use crate::args::Trace;
use crate::client::strange;
use crate::output::progress::Progress;
use crate::problem::{Problem, Verdict};
use crate::text::Message;

/// Follows the route to a target; the answer is no when the node in charge stays silent.
///
/// Hops report in any order, so they are shown once their order is known.
pub(super) async fn run(cx: &Context, options: Trace) -> Result<Verdict, Problem> {
    let request = Request::Trace {
        target: options.target,
    };
    let progress = Progress::start(&cx.out, &Message::Waiting);
    let mut answers = cx.client.call(&request).await?;
    let summary = loop {
        match answers.next().await? {
            Some(Answer::Hop(_)) => {}
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
        cx.out.object(&json!({ "hops": summary.hops }))?;
    } else {
        for (
            index,
            Hop {
                node_id,
                rtt_ms,
                path,
            },
        ) in summary.hops.iter().enumerate()
        {
            let number = index + 1;
            let message = Message::Hop {
                number,
                node: node_id,
                rtt_ms: *rtt_ms,
                path,
            };
            cx.out.line(&cx.out.text(&message))?;
        }
        if !summary.complete {
            cx.out.hint(&Message::TraceIncomplete);
        }
    }
    Ok(if summary.complete {
        Verdict::Yes
    } else {
        Verdict::No
    })
}
