//! `enishi route list | share | unshare | use | unuse`.

use enishi_api::{Answer, Request, RouteAsk};
use serde_json::json;

use super::Context;
use crate::args::Route;
use crate::client::strange;
use crate::output::table::Table;
use crate::problem::{Problem, Verdict};
use crate::text::{Label, Message};

pub(super) async fn run(cx: &Context, command: Route) -> Result<Verdict, Problem> {
    let ask = match command {
        Route::List { channel } => RouteAsk::List { channel },
        Route::Share { channel, network } => RouteAsk::Share {
            channel,
            network,
            share: true,
        },
        Route::Unshare { channel, network } => RouteAsk::Share {
            channel,
            network,
            share: false,
        },
        Route::Use {
            channel,
            network,
            by,
        } => RouteAsk::Use {
            channel,
            network,
            by,
            r#use: true,
        },
        Route::Unuse { channel, network } => RouteAsk::Use {
            channel,
            network,
            by: None,
            r#use: false,
        },
    };
    let Answer::Routes { routes } = cx.client.ask(&Request::Route(ask)).await? else {
        return Err(strange(&cx.out));
    };
    if cx.out.json {
        cx.out.object(&json!({ "routes": routes }))?;
    } else if routes.is_empty() {
        cx.out.hint(&Message::NoRoutes);
    } else {
        cx.out.line(&table(cx, &routes))?;
    }
    Ok(Verdict::Yes)
}

fn table(cx: &Context, routes: &[enishi_api::Route]) -> String {
    let label = |label| cx.out.label(label).to_owned();
    let mut table = Table::default();
    table.row([
        label(Label::Channel),
        label(Label::Network),
        label(Label::OfferedBy),
        label(Label::UsedBy),
    ]);
    for route in routes {
        let host = |id: &str| {
            let mut routers = route.routers.iter();
            let router = routers.find(|router| router.node_id == id);
            router.map_or_else(|| id.to_owned(), name)
        };
        let mine = route.shared.then(|| label(Label::ThisNode));
        let offered: Vec<String> = mine
            .into_iter()
            .chain(route.routers.iter().map(name))
            .collect();
        let used = match (&route.via, route.accepted) {
            (Some(via), _) if route.barred => format!("{} ({})", host(via), label(Label::RulesBar)),
            (Some(via), _) => host(via),
            (None, true) => label(Label::NobodyOffers),
            (None, false) => "-".to_owned(),
        };
        table.row([
            route.channel.clone(),
            route.network.clone(),
            offered.join(", "),
            used,
        ]);
    }
    table.print()
}

fn name(router: &enishi_api::Router) -> String {
    if router.host.is_empty() {
        router.node_id[..10].to_owned()
    } else {
        router.host.clone()
    }
}
