//! `enishi forward add | list | remove`.

use enishi_api::{Answer, Forward, ForwardAdd, ForwardWay, Protocol, Request};
use serde_json::json;

use super::Context;
use crate::args;
use crate::client::strange;
use crate::output::table::Table;
use crate::problem::{Problem, Verdict};
use crate::text::{Label, Message};

pub(super) async fn run(cx: &Context, command: args::Forward) -> Result<Verdict, Problem> {
    match command {
        args::Forward::Add { channel, way } => add(cx, forward(channel, way)).await,
        args::Forward::List => list(cx).await,
        args::Forward::Remove { id } => remove(cx, id).await,
    }
}

fn forward(channel: String, way: args::Way) -> ForwardAdd {
    let (way, udp) = match way {
        args::Way::Local { listen, to, udp } => (ForwardWay::Local { listen, to }, udp),
        args::Way::Remote { port, to, udp } => (ForwardWay::Remote { port, to }, udp),
    };
    let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
    ForwardAdd {
        channel,
        way,
        protocol,
    }
}

async fn add(cx: &Context, add: ForwardAdd) -> Result<Verdict, Problem> {
    let Answer::Forward(forward) = cx.client.ask(&Request::ForwardAdd(add)).await? else {
        return Err(strange(&cx.out));
    };
    let message = Message::ForwardAdded {
        id: forward.id,
        way: &way(&forward),
    };
    cx.out.result(&forward, &message)?;
    Ok(Verdict::Yes)
}

async fn remove(cx: &Context, id: u32) -> Result<Verdict, Problem> {
    let Answer::Done = cx.client.ask(&Request::ForwardRemove { id }).await? else {
        return Err(strange(&cx.out));
    };
    cx.out
        .result(&json!({ "removed": id }), &Message::ForwardRemoved { id })?;
    Ok(Verdict::Yes)
}

async fn list(cx: &Context) -> Result<Verdict, Problem> {
    let Answer::Forwards { forwards } = cx.client.ask(&Request::ForwardList).await? else {
        return Err(strange(&cx.out));
    };
    if cx.out.json {
        cx.out.object(&json!({ "forwards": forwards }))?;
    } else if forwards.is_empty() {
        cx.out.hint(&Message::NoForwards);
    } else {
        cx.out.line(&table(cx, &forwards))?;
    }
    Ok(Verdict::Yes)
}

fn table(cx: &Context, forwards: &[Forward]) -> String {
    let headings = [
        Label::Id,
        Label::Channel,
        Label::Forwarding,
        Label::Open,
        Label::State,
    ];
    let mut table = Table::new(headings.map(|label| cx.out.label(label)))
        .right(0)
        .right(3);
    for forward in forwards {
        let works = cx.out.label(Label::Works);
        table.row([
            forward.id.to_string(),
            forward.forward.channel.clone(),
            way(forward),
            forward.open.to_string(),
            forward.notice.clone().unwrap_or_else(|| works.to_owned()),
        ]);
    }
    table.print()
}

/// Draws from where to where a forward leads.
fn way(forward: &Forward) -> String {
    let protocol = forward.forward.protocol;
    match &forward.forward.way {
        ForwardWay::Local { listen, to } => format!("{protocol} {listen} -> {to}"),
        ForwardWay::Remote { port, to } => {
            format!("{protocol} {}:{port} -> {to}", forward.forward.channel)
        }
    }
}
