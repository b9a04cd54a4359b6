//! The gateways that members of channels see.

use std::collections::BTreeSet;

use enishi_api::{Answer, Member, Overlay, Request};
use enishi_host::gateway::{self, Consent, read_consent};
use enishi_overlay::NodeId;
use serde_json::{Value, json};

use super::super::Context;
use super::consent::object;
use super::{ends, now_s};
use crate::client::strange;
use crate::gateway::short;
use crate::output::table::Table;
use crate::problem::{Problem, Verdict};
use crate::text::{Gateway as Text, Label, Message};

/// The most members whose consents are looked for.
const MEMBERS_MAX: usize = 256;

/// Looks which members of this node's channels show a consent that counts.
pub(super) async fn list(cx: &Context) -> Result<Verdict, Problem> {
    let Answer::Overlay(overlay) = cx.client.ask(&Request::OverlayShow).await? else {
        return Err(strange(&cx.out));
    };
    let Answer::Channels { channels } = cx.client.ask(&Request::ChannelList).await? else {
        return Err(strange(&cx.out));
    };
    let members = channels.into_iter().flat_map(|channel| channel.member_list);
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    for member in members
        .filter(|member| seen.insert(member.node_id.clone()))
        .take(MEMBERS_MAX)
    {
        let key = gateway::public_name(&member.node_id);
        match cx.client.ask(&Request::DhtGet { key }).await {
            Ok(Answer::Value { value, .. }) => {
                found.extend(genuine(&overlay, &member, &value).map(|consent| (member, consent)));
            }
            Ok(_) | Err(Problem::No(_)) => {}
            Err(problem) => return Err(problem),
        }
    }
    if cx.out.json {
        let object = |(member, consent): &(Member, Consent)| {
            let mut object = object(consent);
            object["host"] = json!(member.host);
            object
        };
        let gateways: Vec<Value> = found.iter().map(object).collect();
        cx.out.object(&json!({ "gateways": gateways }))?;
        return Ok(Verdict::Yes);
    }
    if found.is_empty() {
        cx.out.hint(&Message::Gateway(Text::NoGateways));
        return Ok(Verdict::Yes);
    }
    let labels = [
        Label::Host,
        Label::Node,
        Label::OtherOverlay,
        Label::LetOut,
        Label::LetIn,
        Label::Ends,
    ];
    let mut table = Table::new(labels.map(|label| cx.out.label(label)));
    for (member, consent) in &found {
        let terms = consent.terms();
        let out = terms
            .lets_out
            .iter()
            .map(|out| format!("{}:{}", out.service, out.port));
        let out = out.chain(terms.takes.iter().cloned());
        let inside = terms.lets_in.iter().map(|inside| inside.service.clone());
        let inside = inside.chain(terms.gives.iter().cloned());
        table.row([
            member.host.clone(),
            short(&member.node_id).to_owned(),
            short(&terms.other.to_string()).to_owned(),
            out.collect::<Vec<_>>().join(", "),
            inside.collect::<Vec<_>>().join(", "),
            ends(consent.expires_unix_s()),
        ]);
    }
    cx.out.line(&table.print())?;
    Ok(Verdict::Yes)
}

/// Reads what is said to be the consent to a member; none unless it is, and counts.
fn genuine(overlay: &Overlay, member: &Member, value: &[u8]) -> Option<Consent> {
    let consent = read_consent(str::from_utf8(value).ok()?).ok()?;
    let gate = overlay.gate.as_ref()?;
    let is_revoked = |key: &NodeId| gate.revoked.contains(&key.to_string());
    let holder = member.node_id.parse().ok()?;
    let counts = consent.verify(&consent.overlay(), &holder, is_revoked, now_s());
    let is_ours = consent.overlay().to_string() == overlay.overlay_id;
    (is_ours && counts.is_ok()).then_some(consent)
}
