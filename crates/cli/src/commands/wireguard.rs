//! `enishi channel wireguard add | remove | list`.

use enishi_api::{Answer, Request, WireGuardAsk, WireGuardClient, WireGuardConfig};
use serde_json::json;
use zeroize::Zeroizing;

use super::Context;
use crate::args::WireGuard;
use crate::client::strange;
use crate::output::qr;
use crate::output::table::Table;
use crate::problem::{Problem, Verdict};
use crate::text::{Label, Message, octets, or_dash};

pub(super) async fn run(cx: &Context, command: WireGuard) -> Result<Verdict, Problem> {
    let ask = match command {
        WireGuard::Add {
            channel,
            client,
            endpoint,
        } => WireGuardAsk::Add {
            channel,
            client,
            endpoint,
        },
        WireGuard::Remove { channel, client } => WireGuardAsk::Remove { channel, client },
        WireGuard::List { channel } => WireGuardAsk::List { channel },
    };
    match cx.client.ask(&Request::WireGuard(ask)).await? {
        Answer::WireGuardConfig(config) => show(cx, config),
        Answer::WireGuardClients { clients } => list(cx, &clients),
        _ => Err(strange(&cx.out)),
    }
}

/// The configuration alone where a program reads it; with a code to scan where a person does.
fn show(cx: &Context, config: WireGuardConfig) -> Result<Verdict, Problem> {
    if cx.out.json {
        cx.out.object(&config)?;
        return Ok(Verdict::Yes);
    }
    let text = Zeroizing::new(config.configuration);
    if cx.out.person_reads() {
        let code = qr::draw(&text).map(Zeroizing::new);
        cx.out.line(code.as_deref().map_or("", String::as_str))?;
    }
    cx.out.line(text.trim_end())?;
    cx.out.hint(&Message::UseWireGuard {
        channel: &config.channel,
        client: &config.client,
    });
    if let Some(notice) = &config.notice {
        cx.out.notice(notice);
    }
    Ok(Verdict::Yes)
}

fn list(cx: &Context, clients: &[WireGuardClient]) -> Result<Verdict, Problem> {
    if cx.out.json {
        cx.out.object(&json!({ "clients": clients }))?;
    } else if clients.is_empty() {
        cx.out.hint(&Message::NoWireGuardClients);
    } else {
        cx.out.line(&table(cx, clients))?;
    }
    Ok(Verdict::Yes)
}

fn table(cx: &Context, clients: &[WireGuardClient]) -> String {
    let label = |label| cx.out.label(label).to_owned();
    let mut table = Table::default();
    table.row(
        [
            Label::Channel,
            Label::Client,
            Label::Address,
            Label::Endpoint,
            Label::Handshake,
            Label::Sent,
            Label::Received,
        ]
        .map(label),
    );
    for client in clients {
        let endpoint = match client.held {
            true => or_dash(client.endpoint),
            false => label(Label::AddressLost),
        };
        table.row([
            client.channel.clone(),
            client.client.clone(),
            client.address.to_string(),
            endpoint,
            or_dash(client.handshake_s.map(|ago| format!("{ago} s"))),
            octets(client.sent_bytes),
            octets(client.received_bytes),
        ]);
    }
    table.print()
}
