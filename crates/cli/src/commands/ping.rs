//! `enishi ping`.

use enishi_api::{Answer, PingSummary, Request};
use serde_json::json;

use super::Context;
use crate::args::Ping;
use crate::client::strange;
use crate::problem::{Problem, Verdict};
use crate::text::Message;

/// Sends echo requests; the answer is no when none came back.
pub(super) async fn run(cx: &Context, options: Ping) -> Result<Verdict, Problem> {
    let Ping {
        target,
        count,
        interval_ms,
        timeout_ms,
    } = options;
    let request = Request::Ping(enishi_api::Ping {
        target,
        count,
        interval_ms,
        timeout_ms,
    });
    let mut answers = cx.client.call(&request).await?;
    loop {
        match answers.next().await? {
            Some(Answer::Pong {
                sequence,
                rtt_ms,
                path,
            }) => {
                event(
                    cx,
                    &Message::Pong {
                        sequence,
                        rtt_ms,
                        path: &path,
                    },
                )?;
            }
            Some(Answer::Lost { sequence }) => event(cx, &Message::Lost { sequence })?,
            Some(Answer::PingSummary(summary)) => return tell(cx, &summary),
            Some(_) => return Err(strange(&cx.out)),
            None => return Err(Problem::No(cx.out.text(&Message::DaemonSilent))),
        }
    }
}

fn event(cx: &Context, message: &Message<'_>) -> Result<(), Problem> {
    if cx.out.json {
        Ok(())
    } else {
        cx.out.line(&cx.out.text(message))
    }
}

fn tell(cx: &Context, summary: &PingSummary) -> Result<Verdict, Problem> {
    let PingSummary {
        node_id,
        sent,
        received,
        rtt_ms,
        path,
    } = summary;
    let (sent, received) = (*sent, *received);
    if cx.out.json {
        let object = json!({ "sent": sent, "received": received, "rtt_ms": rtt_ms, "path": path });
        cx.out.object(&object)?;
    } else {
        event(
            cx,
            &Message::PingSummary {
                node: node_id,
                sent,
                received,
            },
        )?;
        if let Some(times) = rtt_ms {
            let (min, avg, p99, max) = (times.min, times.avg, times.p99, times.max);
            event(cx, &Message::RoundTrips { min, avg, p99, max })?;
        }
    }
    Ok(if received > 0 {
        Verdict::Yes
    } else {
        Verdict::No
    })
}
