//! Invitations: `enishi invite`, and how any is printed.

use enishi_api::{Answer, Request};
use serde_json::json;

use super::Context;
use crate::client::strange;
use crate::output::qr;
use crate::problem::{Problem, Verdict};
use crate::text::Message;

/// Prints an invitation to the overlay alone.
pub(super) async fn overlay(cx: &Context) -> Result<Verdict, Problem> {
    let ticket = ask(cx, &Request::Invite).await?;
    show(cx, &ticket, &Message::UseOverlayTicket { ticket: &ticket })
}

async fn ask(cx: &Context, request: &Request) -> Result<String, Problem> {
    match cx.client.ask(request).await? {
        Answer::Ticket { ticket } => Ok(ticket),
        _ => Err(strange(&cx.out)),
    }
}

/// The ticket alone where a program reads it; with a code to scan and a line to copy
/// where a person does.
fn show(cx: &Context, ticket: &str, usage: &Message<'_>) -> Result<Verdict, Problem> {
    if cx.out.json {
        cx.out.object(&json!({ "ticket": ticket }))?;
        return Ok(Verdict::Yes);
    }
    print(cx, ticket, usage)
}

/// Prints an invitation where JSON is not asked for.
pub(super) fn print(cx: &Context, ticket: &str, usage: &Message<'_>) -> Result<Verdict, Problem> {
    if cx.out.person_reads() {
        cx.out.line(&qr::draw(ticket).unwrap_or_default())?;
        cx.out.line(ticket)?;
        cx.out.hint(usage);
    } else {
        cx.out.line(ticket)?;
    }
    Ok(Verdict::Yes)
}
