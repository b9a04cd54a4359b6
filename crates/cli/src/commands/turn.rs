//! `enishi turn show | add | remove | use | forget`.

use enishi_api::{Answer, Password, Request, TurnAsk, TurnServer, TurnState, TurnUsed, TurnUser};
use enishi_host::turn::url::ServerUrl;

use super::Context;
use crate::args::Turn;
use crate::client::strange;
use crate::output::table::Table;
use crate::password;
use crate::problem::{Problem, Verdict, sentence};
use crate::text::{Label, Message, octets};

pub(super) async fn run(cx: &Context, command: Turn) -> Result<Verdict, Problem> {
    let is_use = matches!(command, Turn::Use { .. });
    let ask = match command {
        Turn::Show => TurnAsk::Show,
        Turn::Add {
            name,
            password_file,
        } => {
            let password = password_file.map(|file| password::read(&cx.out, &file));
            let password = password.transpose()?;
            TurnAsk::Add {
                name,
                password: password.map(|password| Password(password.to_string())),
            }
        }
        Turn::Remove { name } => TurnAsk::Remove { name },
        Turn::Use { url, password_file } => {
            // Before somebody is asked for a password. It may have one in it: what it says is not repeated.
            let server = url.parse::<ServerUrl>();
            server.map_err(|error| Problem::Usage(sentence(&error)))?;
            let password = password::read(&cx.out, &password_file)?;
            let password = Password(password.to_string());
            TurnAsk::Use { url, password }
        }
        Turn::Forget { url } => TurnAsk::Forget { url },
    };
    let Answer::Turn(state) = cx.client.ask(&Request::Turn(ask)).await? else {
        return Err(strange(&cx.out));
    };
    if cx.out.json {
        cx.out.object(&state)?;
    } else if let Some(added) = &state.added {
        added_one(cx, added, state.server.as_ref())?;
    } else {
        show(cx, &state)?;
    }
    // It is the last that was named.
    let failed = state.servers.last().filter(|_| is_use);
    match failed.filter(|server| has_failed(server)) {
        Some(server) => {
            if !cx.out.json {
                cx.out.hint(&Message::TurnKeptTrying { server });
            }
            Ok(Verdict::No)
        }
        None => Ok(Verdict::Yes),
    }
}

/// Tells whether it is known that a server does not relay. One that has not answered yet may.
fn has_failed(server: &TurnUsed) -> bool {
    let trouble = server.trouble.as_deref();
    server.relayed.is_none() && trouble.is_some_and(|trouble| trouble != "waiting")
}

/// The user and the password alone, for programs too, and where they are of use.
fn added_one(cx: &Context, added: &TurnUser, server: Option<&TurnServer>) -> Result<(), Problem> {
    cx.out
        .line(&format!("{} {}", added.name, added.password.0))?;
    match server {
        Some(server) => cx.out.hint(&Message::UseTurn {
            port: server.listening.port(),
            realm: &server.realm,
        }),
        None => cx.out.hint(&Message::TurnIsOff),
    }
    Ok(())
}

fn show(cx: &Context, state: &TurnState) -> Result<(), Problem> {
    if !state.servers.is_empty() {
        cx.out.line(&used(cx, &state.servers))?;
    }
    let Some(server) = &state.server else {
        cx.out.hint(&Message::TurnIsOff);
        return Ok(());
    };
    cx.out.line(&facts(cx, server, &state.users))?;
    if !server.allocations.is_empty() {
        cx.out.line(&format!("\n{}", allocations(cx, server)))?;
    }
    Ok(())
}

fn used(cx: &Context, servers: &[TurnUsed]) -> String {
    let headings = [
        Label::TurnServer,
        Label::State,
        Label::Peers,
        Label::Sent,
        Label::Received,
    ];
    let headings = headings.map(|label| cx.out.label(label));
    let mut table = Table::new(headings).right(2).right(3).right(4);
    for server in servers {
        table.row([
            server.url.clone(),
            cx.out.text(&Message::TurnUsed { server }),
            server.peers.to_string(),
            octets(server.sent_bytes),
            octets(server.received_bytes),
        ]);
    }
    table.print()
}

fn facts(cx: &Context, server: &TurnServer, users: &[String]) -> String {
    let refused = [
        ("dropped_bytes", server.dropped_bytes),
        ("denied_messages", server.denied_messages),
        ("crowded_messages", server.crowded_messages),
        ("throttled_messages", server.throttled_messages),
        ("ignored_messages", server.ignored_messages),
        ("refused_allocations", server.refused_allocations),
    ];
    let refused = refused.into_iter().filter(|(_, count)| *count > 0);
    let refused: Vec<String> = refused.map(|(name, n)| format!("{name} {n}")).collect();
    let mut table = Table::default();
    for (label, value) in [
        (Label::TurnServer, server.listening.to_string()),
        (Label::Realm, server.realm.clone()),
        (Label::Users, users.join(", ")),
        (Label::Allocations, server.allocations.len().to_string()),
        (Label::ToPeers, octets(server.to_peers_bytes)),
        (Label::ToClients, octets(server.to_clients_bytes)),
        (Label::Dropped, refused.join(", ")),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    {
        table.row([cx.out.label(label).to_owned(), value]);
    }
    table.print()
}

fn allocations(cx: &Context, server: &TurnServer) -> String {
    let headings = [Label::User, Label::Client, Label::Relayed, Label::Peers];
    let mut table = Table::new(headings.map(|label| cx.out.label(label))).right(3);
    for allocation in &server.allocations {
        let relayed = allocation.relayed.iter().map(ToString::to_string);
        table.row([
            allocation.user.clone(),
            match allocation.tcp {
                true => format!("{} tcp", allocation.client),
                false => allocation.client.to_string(),
            },
            relayed.collect::<Vec<_>>().join(", "),
            allocation.peers.to_string(),
        ]);
    }
    table.print()
}
