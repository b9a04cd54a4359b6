//! `enishi verify`.

use enishi_api::{Answer, Request, Verdict as Judgement, Verification, Verified};

use super::Context;
use crate::args::Verify;
use crate::client::strange;
use crate::output::progress::Progress;
use crate::output::table::Table;
use crate::problem::{Problem, Verdict};
use crate::text::{Label, Message};

/// Asks over several paths and tells what they agree on; the answer is yes only when it is
/// confirmed.
pub(super) async fn run(cx: &Context, options: Verify) -> Result<Verdict, Problem> {
    let Verify { target, key, paths } = options;
    let target = if key { format!("key:{target}") } else { target };
    let progress = Progress::start(&cx.out, &Message::Waiting);
    let answer = cx.client.ask(&Request::Verify { target, paths }).await?;
    progress.stop().await;
    let Answer::Verification(verification) = answer else {
        return Err(strange(&cx.out));
    };
    if cx.out.json {
        cx.out.object(&verification)?;
    } else {
        tell(cx, &verification)?;
    }
    Ok(match verification.verdict {
        Judgement::Confirmed => Verdict::Yes,
        Judgement::Disputed | Judgement::Unknown => Verdict::No,
    })
}

fn tell(cx: &Context, verification: &Verification) -> Result<(), Problem> {
    let is_key = matches!(verification.subject, Verified::Key(_));
    let verdict = verification.verdict;
    cx.out
        .line(&cx.out.text(&Message::Verdict { verdict, is_key }))?;
    cx.out.line(&format!("\n{}", facts(cx, verification)))?;
    if verdict != Judgement::Confirmed {
        cx.out.hint(&Message::VerdictAdvice { verdict, is_key });
    }
    if verification.unusual {
        cx.out.hint(&Message::CrowdedAdvice { is_key });
    }
    Ok(())
}

fn facts(cx: &Context, verification: &Verification) -> String {
    let (about, subject) = match &verification.subject {
        Verified::Node(node) => (Label::Node, node),
        Verified::Key(key) => (Label::Key, key),
    };
    let paths = Message::Paths {
        all_known: verification.all_known,
        agreeing: verification.agreeing,
        paths: verification.paths,
    };
    let density = match verification.unusual {
        true => Label::Unusual,
        false => Label::AsElsewhere,
    };
    let mut table = Table::default();
    let mut row = |label: Label, value: String| {
        table.row([cx.out.label(label).to_owned(), value]);
    };
    row(about, subject.clone());
    row(Label::PathsAgreeing, cx.out.text(&paths));
    row(Label::NodesAsked, verification.asked.to_string());
    if let Some(record) = &verification.record {
        let (seq, holders) = (record.seq, record.holders);
        row(Label::Record, cx.out.text(&Message::Shown { seq, holders }));
        row(Label::Owner, record.owner.clone());
    }
    row(Label::Density, cx.out.label(density).to_owned());
    for (place, node) in verification.nearest.iter().enumerate() {
        let label = if place == 0 {
            Label::Nearest
        } else {
            Label::Blank
        };
        row(label, node.clone());
    }
    table.print()
}
