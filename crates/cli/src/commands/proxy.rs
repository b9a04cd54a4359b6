//! `enishi proxy`, `proxy tell | forget | sign`.

use std::io::{self, Read};
use std::path::Path;

use enishi_api::{Answer, ProxyAnswer, ProxyAsk, ProxyState, ProxyTold, Request};
use enishi_proxy::Secret;
use enishi_proxy::company::sign_file;
use enishi_proxy::desktop::Found;
use serde_json::json;

use super::Context;
use crate::args::{Proxy, ProxyCommand};
use crate::client::strange;
use crate::output::table::Table;
use crate::problem::{Problem, Verdict};
use crate::text::{Label, Message};

/// The longest text that standard input may hold, in octets.
const INPUT_BYTES_MAX: u64 = 64 * 1024;

pub(super) async fn run(cx: &Context, proxy: Proxy) -> Result<Verdict, Problem> {
    match proxy.command {
        None => show(cx, proxy.url).await,
        Some(ProxyCommand::Tell { print: true, .. }) => {
            cx.out.object(&found(cx).1)?;
            Ok(Verdict::Yes)
        }
        Some(ProxyCommand::Tell { stdin: true, .. }) => tell(cx, read(cx)?).await,
        Some(ProxyCommand::Tell { .. }) => {
            let (by, told) = found(cx);
            match by {
                Some(by) => cx.out.hint(&Message::ProxyFound { by }),
                None => cx.out.hint(&Message::ProxyNotFound),
            }
            if by.is_none() {
                return forget(cx).await;
            }
            tell(cx, told).await
        }
        Some(ProxyCommand::Forget) => forget(cx).await,
        Some(ProxyCommand::Sign { file, key }) => sign(cx, &file, &key),
    }
}

async fn show(cx: &Context, url: Option<String>) -> Result<Verdict, Problem> {
    let state = ask(cx, ProxyAsk::Show { url }).await?;
    present(cx, &state)
}

async fn tell(cx: &Context, told: ProxyTold) -> Result<Verdict, Problem> {
    let state = ask(cx, ProxyAsk::Tell(told)).await?;
    present(cx, &state)
}

async fn forget(cx: &Context) -> Result<Verdict, Problem> {
    let state = ask(cx, ProxyAsk::Forget).await?;
    present(cx, &state)
}

async fn ask(cx: &Context, ask: ProxyAsk) -> Result<ProxyState, Problem> {
    match cx.client.ask(&Request::Proxy(ask)).await? {
        Answer::Proxy(state) => Ok(state),
        _ => Err(strange(&cx.out)),
    }
}

/// Reads the settings of the person, and tells what was passed over.
fn found(cx: &Context) -> (Option<&'static str>, ProxyTold) {
    let found = Found::by_person();
    for notice in &found.notices {
        cx.out.notice(notice);
    }
    let text = |text: &Option<Secret>| text.as_ref().map(|text| text.text().to_owned());
    let written = &found.written;
    let told = ProxyTold {
        proxy: text(&written.proxy),
        http: text(&written.http),
        https: text(&written.https),
        pac: written.pac.clone(),
        no_proxy: written.no_proxy.clone(),
        reversed: written.reversed,
    };
    (found.by, told)
}

fn read(cx: &Context) -> Result<ProxyTold, Problem> {
    let mut text = String::new();
    let read = io::stdin()
        .lock()
        .take(INPUT_BYTES_MAX)
        .read_to_string(&mut text);
    read.map_err(|error| Problem::Usage(cx.out.text(&Message::InputUnreadable { error: &error })))?;
    let told = serde_json::from_str(&text);
    told.map_err(|_| Problem::Usage(cx.out.text(&Message::ProxyInputUnfit)))
}

fn sign(cx: &Context, file: &Path, key: &Path) -> Result<Verdict, Problem> {
    let signed = sign_file(file, key);
    let (signature, id) = signed.map_err(|error| Problem::No(format!("{error}.")))?;
    let object = json!({ "signature": signature, "company_key": id.to_string() });
    let message = Message::CompanySigned {
        signature: &signature.display().to_string(),
        key: &id.to_string(),
    };
    cx.out.result(&object, &message)?;
    Ok(Verdict::Yes)
}

fn present(cx: &Context, state: &ProxyState) -> Result<Verdict, Problem> {
    if cx.out.json {
        cx.out.object(state)?;
        return Ok(Verdict::Yes);
    }
    if state.sources.is_empty() {
        cx.out.hint(&Message::NoProxies);
    } else {
        cx.out.line(&table(cx, state))?;
    }
    if let Some(answer) = &state.choice {
        cx.out.line(&explain(cx, answer))?;
    }
    let notices = state
        .choice
        .iter()
        .filter_map(|answer| answer.notice.as_ref());
    for notice in notices.chain(&state.notices) {
        cx.out.notice(notice);
    }
    Ok(Verdict::Yes)
}

fn table(cx: &Context, state: &ProxyState) -> String {
    let headings = [Label::Source, Label::Says];
    let mut table = Table::new(headings.map(|label| cx.out.label(label)));
    for source in &state.sources {
        table.row([named(cx, &source.source), source.says.join(", ")]);
    }
    table.print()
}

fn explain(cx: &Context, answer: &ProxyAnswer) -> String {
    let source = answer.source.as_deref().map(|source| named(cx, source));
    cx.out.text(&Message::ProxyAnswer {
        url: &answer.url,
        routes: &answer.routes.join("; "),
        source: source.as_deref(),
        bypass: answer.bypass.as_deref(),
        pac: answer.pac.as_deref(),
    })
}

/// Names a source in the person's language.
fn named(cx: &Context, source: &str) -> String {
    let label = match source {
        "configuration" => Label::Configuration,
        "company" => Label::Company,
        "desktop" => Label::Desktop,
        "environment" => Label::Environment,
        other => return other.to_owned(),
    };
    cx.out.label(label).to_owned()
}
