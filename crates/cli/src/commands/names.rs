//! `enishi channel names` and `enishi resolve`.

use std::net::IpAddr;

use enishi_api::{Answer, HostName, Names, Request};
use serde_json::json;

use super::Context;
use crate::client::strange;
use crate::output::table::Table;
use crate::problem::{Problem, Verdict};
use crate::text::Label;

/// Lists the hosts of a channel.
pub(super) async fn channel(cx: &Context, name: String) -> Result<Verdict, Problem> {
    show(cx, &Request::ChannelNames { name }).await
}

/// Looks up a host.
pub(super) async fn resolve(cx: &Context, name: String) -> Result<Verdict, Problem> {
    show(cx, &Request::Resolve { name }).await
}

/// How names are served, in one line; nothing when they are not.
pub(super) fn line(names: Option<&Names>) -> String {
    let Some(names) = names else {
        return String::new();
    };
    let listening: Vec<String> = names.listening.iter().map(ToString::to_string).collect();
    match &names.notice {
        None => format!("{}: {}", names.how, listening.join(", ")),
        Some(notice) => format!("{}: {}; {notice}", names.how, listening.join(", ")),
    }
}

async fn show(cx: &Context, request: &Request) -> Result<Verdict, Problem> {
    let Answer::Names { names } = cx.client.ask(request).await? else {
        return Err(strange(&cx.out));
    };
    match cx.out.json {
        true => cx.out.object(&json!({ "names": names }))?,
        false => cx.out.line(&table(cx, &names))?,
    }
    Ok(Verdict::Yes)
}

fn table(cx: &Context, names: &[HostName]) -> String {
    let labels = [Label::Name, Label::Address, Label::Address6, Label::Node];
    let mut table = Table::new(labels.map(|label| cx.out.label(label)));
    for host in names {
        let address = |is_meant: fn(&IpAddr) -> bool| {
            let mut meant = host.addresses.iter().filter(|address| is_meant(address));
            meant.next().map_or("-".to_owned(), ToString::to_string)
        };
        table.row([
            host.name.clone(),
            address(IpAddr::is_ipv4),
            address(IpAddr::is_ipv6),
            host.node_id.clone(),
        ]);
    }
    table.print()
}
