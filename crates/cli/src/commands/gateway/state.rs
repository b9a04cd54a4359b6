//! What a gateway may pass on at present, and why not.

use serde_json::{Value, json};

use super::super::Context;
use super::ends;
use crate::gateway as runtime;
use crate::gateway::{SideState, State, short};
use crate::output::table::Table;
use crate::problem::{Problem, Verdict, sentence};
use crate::text::Label;

pub(super) async fn show(cx: &Context) -> Result<Verdict, Problem> {
    let state = runtime::look(&cx.out, cx.client.data()).await;
    let is_open = state.ports.values().any(|port| port.opening.is_some());
    let is_open = is_open || !state.documents.is_empty();
    let verdict = if is_open { Verdict::Yes } else { Verdict::No };
    if cx.out.json {
        cx.out.object(&state_object(&state))?;
        return Ok(verdict);
    }
    let labels = |labels: &[Label]| {
        let words = labels.iter().map(|label| cx.out.label(*label));
        Table::new(words.collect::<Vec<_>>())
    };
    let mut sides = labels(&[
        Label::Overlay,
        Label::Id,
        Label::Channel,
        Label::Node,
        Label::Consent,
        Label::Ends,
        Label::State,
    ]);
    for side in &state.sides {
        let counts = cx.out.label(Label::Counts).to_owned();
        sides.row([
            side.name.clone(),
            short(&side.overlay).to_owned(),
            side.channel.clone(),
            short(&side.node).to_owned(),
            short(&side.consent).to_owned(),
            ends(side.expires_unix_s),
            side.objection.clone().unwrap_or(counts),
        ]);
    }
    let mut documents = labels(&[Label::Document, Label::From, Label::To]);
    for (taker, document) in &state.documents {
        let name = |at: usize| state.sides.get(at).map_or("", name).to_owned();
        documents.row([document.clone(), name(1 - taker), name(*taker)]);
    }
    let mut ports = labels(&[
        Label::Service,
        Label::From,
        Label::Port,
        Label::To,
        Label::State,
    ]);
    for ((at, port), there) in &state.ports {
        let name = |at: usize| state.sides.get(at).map_or("", name);
        let leads = there.opening.as_ref().map_or("-".to_owned(), |opening| {
            format!(
                "{} {}:{}",
                name(1 - at),
                opening.member.short(),
                opening.member_port
            )
        });
        let open = cx.out.label(Label::Open).to_owned();
        ports.row([
            there.service.clone(),
            name(*at).to_owned(),
            port.to_string(),
            leads,
            if there.opening.is_some() {
                open
            } else {
                there.reason.clone()
            },
        ]);
    }
    if !state.sides.is_empty() {
        cx.out.line(&sides.print())?;
    }
    if !state.ports.is_empty() {
        cx.out.line(&format!("\n{}", ports.print()))?;
    }
    if !state.documents.is_empty() {
        cx.out.line(&format!("\n{}", documents.print()))?;
    }
    if let Some(reason) = &state.reason {
        cx.out.notice(&sentence(reason));
    }
    Ok(verdict)
}

fn name(side: &SideState) -> &str {
    if side.name.is_empty() {
        short(&side.overlay)
    } else {
        &side.name
    }
}

fn state_object(state: &State) -> Value {
    let sides = state.sides.iter().map(|side| {
        json!({
            "data": side.data,
            "name": side.name,
            "overlay_id": side.overlay,
            "channel": side.channel,
            "node_id": side.node,
            "consent": side.consent,
            "expires_unix_s": side.expires_unix_s,
            "objection": side.objection,
        })
    });
    let services = state.ports.iter().map(|((at, port), there)| {
        let overlay = |at: usize| state.sides.get(at).map(|side| &side.overlay);
        let opening = there.opening.as_ref();
        json!({
            "service": there.service,
            "from_overlay_id": overlay(*at),
            "port": port,
            "to_overlay_id": overlay(1 - at),
            "open": opening.is_some(),
            "reason": Some(&there.reason).filter(|reason| !reason.is_empty()),
            "to_node_id": opening.map(|opening| opening.member.to_string()),
            "to_port": opening.map(|opening| opening.member_port),
        })
    });
    let documents = state.documents.iter().map(|(taker, document)| {
        let overlay = |at: usize| state.sides.get(at).map(|side| &side.overlay);
        json!({
            "document": document,
            "from_overlay_id": overlay(1 - taker),
            "to_overlay_id": overlay(*taker),
        })
    });
    json!({
        "documents": documents.collect::<Vec<_>>(),
        "sides": sides.collect::<Vec<_>>(),
        "services": services.collect::<Vec<_>>(),
        "reason": state.reason,
    })
}
