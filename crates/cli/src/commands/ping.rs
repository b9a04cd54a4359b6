//! `enishi ping`.

use enishi_api::{Answer, PingSummary, Request, RoundTrips};
use serde_json::json;

use super::Context;
use crate::args::Ping;
use crate::client::strange;
use crate::problem::{Problem, Verdict};
use crate::text::{Label, Message};

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
                remote: _,
            }) => {
                let path = path_text(cx, &path);
                event(
                    cx,
                    &Message::Pong {
                        sequence,
                        rtt_ms,
                        path,
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

/// How packets reach the node, in words where there is no path.
fn path_text<'a>(cx: &Context, path: &'a str) -> &'a str {
    if path == "-" {
        cx.out.label(Label::Unconnected)
    } else {
        path
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
        path_kind,
        remote,
    } = summary;
    let (sent, received) = (*sent, *received);
    if cx.out.json {
        let object = json!({
            "node_id": node_id, "sent": sent, "received": received, "rtt_ms": rtt_ms,
            "path": path, "path_kind": path_kind, "remote": remote,
        });
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
            let RoundTrips {
                min,
                avg,
                mdev,
                p99,
                max,
            } = *times;
            let times = Message::RoundTrips {
                min,
                avg,
                mdev,
                p99,
                max,
            };
            event(cx, &times)?;
            let remote = remote.as_ref().map_or(Message::RemoteDeclines, |remote| {
                let (version, load_per_mille) = (&*remote.version, remote.load_per_mille);
                Message::Remote {
                    version,
                    load_per_mille,
                }
            });
            event(cx, &remote)?;
        }
    }
    Ok(if received > 0 {
        Verdict::Yes
    } else {
        Verdict::No
    })
}
