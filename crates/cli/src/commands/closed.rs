//! `enishi overlay map | create | invite | join | leave | show | revoke`.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use enishi_api::{Answer, OverlayInvite, Request, Uses};
use enishi_host::closed::{self, ClosedError, Form};
use enishi_host::data_dir::DataDir;
use serde_json::json;

use super::channel::read_ticket;
use super::{Context, map, ticket};
use crate::args::Overlay;
use crate::client::strange;
use crate::output::Output;
use crate::output::table::Table;
use crate::problem::{Problem, Verdict, sentence};
use crate::text::{Label, Message};

const DAY_S: u64 = 86_400;

/// Carries out what concerns the data directory alone; none for what asks the daemon.
pub(crate) fn without_daemon(
    out: &Output,
    data: &Path,
    command: &Overlay,
) -> Option<Result<Verdict, Problem>> {
    match command {
        Overlay::Create {
            name,
            secret,
            authority,
        } => {
            let form = match authority {
                Some(file) => Form::Authority(file.clone()),
                None if *secret => Form::Secret,
                None => Form::Certificates,
            };
            Some(create(out, data, name, &form))
        }
        Overlay::Join { invitation } => Some(join(out, data, invitation.clone())),
        Overlay::Leave => Some(leave(out, data)),
        Overlay::Map(_) | Overlay::Invite { .. } | Overlay::Show | Overlay::Revoke { .. } => None,
    }
}

/// Carries out what asks the daemon.
pub(super) async fn run(cx: &Context, command: Overlay) -> Result<Verdict, Problem> {
    match command {
        Overlay::Map(options) => map::draw(cx, options).await,
        Overlay::Invite { uses, expires } => invite(cx, uses, expires).await,
        Overlay::Show => show(cx).await,
        Overlay::Revoke { subject } => {
            let request = Request::OverlayRevoke { subject };
            let Answer::Overlay(overlay) = cx.client.ask(&request).await? else {
                return Err(strange(&cx.out));
            };
            cx.out.result(&overlay, &Message::OverlayRevoked)?;
            Ok(Verdict::Yes)
        }
        Overlay::Create { .. } | Overlay::Join { .. } | Overlay::Leave => {
            unreachable!("done without the daemon")
        }
    }
}

fn create(out: &Output, data: &Path, name: &str, form: &Form) -> Result<Verdict, Problem> {
    let dir = DataDir::open(data).map_err(|error| problem(&error.into()))?;
    let card = closed::found(&dir, name, form).map_err(|error| problem(&error))?;
    drop(dir);
    let overlay = closed::show(data).map_err(|error| problem(&error))?;
    let key = closed::authority_path(data, &card.membership.overlay());
    let key = overlay.is_authority.then_some(key);
    let key = key
        .as_deref()
        .map(Path::display)
        .map(|path| path.to_string());
    let mut object = json!(overlay);
    object["authority_key"] = json!(key);
    let message = Message::OverlayCreated {
        name,
        key: key.as_deref(),
    };
    out.result(&object, &message)?;
    Ok(Verdict::Yes)
}

fn join(out: &Output, data: &Path, invitation: String) -> Result<Verdict, Problem> {
    let text = read_ticket(out, invitation)?;
    let ticket = text
        .parse()
        .map_err(|error: enishi_host::closed::TicketError| usage(&error.to_string()))?;
    let dir = DataDir::open(data).map_err(|error| problem(&error.into()))?;
    let card = closed::join(&dir, ticket).map_err(|error| problem(&error))?;
    drop(dir);
    let overlay = closed::show(data).map_err(|error| problem(&error))?;
    let message = Message::OverlayJoined { name: &card.name };
    out.result(&overlay, &message)?;
    Ok(Verdict::Yes)
}

fn leave(out: &Output, data: &Path) -> Result<Verdict, Problem> {
    let dir = DataDir::open(data).map_err(|error| problem(&error.into()))?;
    let card = closed::leave(&dir).map_err(|error| problem(&error))?;
    let message = Message::OverlayLeft { name: &card.name };
    out.result(&json!({ "left": card.name }), &message)?;
    Ok(Verdict::Yes)
}

async fn invite(
    cx: &Context,
    uses: Option<Uses>,
    valid_s: Option<u64>,
) -> Result<Verdict, Problem> {
    let uses = match uses {
        Some(Uses::Of(number)) => Some(number),
        Some(Uses::Any) => None,
        None => default_uses(cx).await?,
    };
    let request = Request::OverlayInvite(OverlayInvite { uses, valid_s });
    let Answer::OverlayInvitation(invitation) = cx.client.ask(&request).await? else {
        return Err(strange(&cx.out));
    };
    if cx.out.json {
        cx.out.object(&invitation)?;
        return Ok(Verdict::Yes);
    }
    let message = Message::UseClosedTicket {
        ticket: &invitation.ticket,
        uses: invitation.uses,
        revoke: invitation.invitation.as_deref(),
    };
    ticket::print(cx, &invitation.ticket, &message)
}

/// One node, where uses are counted.
async fn default_uses(cx: &Context) -> Result<Option<u8>, Problem> {
    match cx.client.ask(&Request::OverlayShow).await? {
        Answer::Overlay(overlay) => Ok(overlay.authority.map(|_| 1)),
        _ => Err(strange(&cx.out)),
    }
}

async fn show(cx: &Context) -> Result<Verdict, Problem> {
    let overlay = match cx.client.ask(&Request::OverlayShow).await {
        Ok(Answer::Overlay(overlay)) => overlay,
        Ok(_) => return Err(strange(&cx.out)),
        // Without a daemon the data directory tells what it can.
        Err(Problem::NoDaemon(_)) => {
            closed::show(cx.client.data()).map_err(|error| problem(&error))?
        }
        Err(problem) => return Err(problem),
    };
    if cx.out.json {
        cx.out.object(&overlay)?;
    } else {
        cx.out.line(&facts(cx, &overlay))?;
    }
    Ok(Verdict::Yes)
}

fn facts(cx: &Context, overlay: &enishi_api::Overlay) -> String {
    let days = overlay
        .expires_unix_s
        .map(|end| end.saturating_sub(unix_s()) / DAY_S);
    let membership = Message::Membership {
        refusal: overlay.refusal.as_deref(),
        days,
        is_authority: overlay.is_authority,
    };
    let mut rows = vec![
        (
            Label::Overlay,
            format!("{} ({})", overlay.name, overlay.form),
        ),
        (Label::Id, overlay.overlay_id.clone()),
        (
            Label::Authority,
            overlay.authority.clone().unwrap_or_default(),
        ),
        (Label::Membership, cx.out.text(&membership)),
    ];
    if let Some(gate) = &overlay.gate {
        let refused = format!("{} / {}", gate.messages_turned_away, gate.proofs_refused);
        rows.extend([
            (Label::Admitted, gate.admitted.to_string()),
            (Label::TurnedAway, refused),
            (Label::Revoked, gate.revoked.join("\n")),
        ]);
    }
    let mut table = Table::default();
    for (label, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
        table.row([cx.out.label(label).to_owned(), value]);
    }
    table.print()
}

fn unix_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn usage(text: &str) -> Problem {
    Problem::Usage(sentence(text))
}

fn problem(error: &ClosedError) -> Problem {
    let text = sentence(&error.to_string());
    match error {
        ClosedError::Name | ClosedError::DamagedKey(_) => Problem::Usage(text),
        ClosedError::DataDir(_)
        | ClosedError::Another(_)
        | ClosedError::None
        | ClosedError::Damaged(_)
        | ClosedError::Refused(_) => Problem::No(text),
    }
}
