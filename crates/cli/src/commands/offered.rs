//! `enishi channel offer | withdraw | offers`.

use enishi_api::{Answer, Offer, OfferAsk, Request};
use serde_json::json;

use super::Context;
use super::governed::short;
use crate::args::Offered;
use crate::client::strange;
use crate::output::table::Table;
use crate::problem::{Problem, Verdict};
use crate::text::{Label, Message};

pub(super) async fn run(cx: &Context, command: Offered) -> Result<Verdict, Problem> {
    let ask = match command {
        Offered::Offer {
            name: channel,
            service,
            port,
            texts,
        } => OfferAsk::Offer {
            channel,
            service,
            port,
            texts,
        },
        Offered::Withdraw {
            name: channel,
            service,
        } => OfferAsk::Withdraw { channel, service },
        Offered::Offers { name: channel } => OfferAsk::List { channel },
    };
    let Answer::Offers { offers } = cx.client.ask(&Request::Offer(ask)).await? else {
        return Err(strange(&cx.out));
    };
    if cx.out.json {
        cx.out.object(&json!({ "offers": offers }))?;
    } else if offers.is_empty() {
        cx.out.hint(&Message::NoOffers);
    } else {
        cx.out.line(&table(cx, &offers))?;
    }
    Ok(Verdict::Yes)
}

fn table(cx: &Context, offers: &[Offer]) -> String {
    let labels = [Label::Service, Label::Port, Label::OfferedBy, Label::Texts];
    let mut table = Table::new(labels.map(|label| cx.out.label(label))).right(1);
    for offer in offers {
        let host = offer.host.as_deref().unwrap_or(short(&offer.node_id));
        let texts = match offer.texts.is_empty() {
            true => "-".to_owned(),
            false => offer.texts.join(", "),
        };
        table.row([
            offer.service.clone(),
            offer.port.to_string(),
            host.to_owned(),
            texts,
        ]);
    }
    table.print()
}
