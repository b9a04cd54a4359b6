//! Consents: signed, and shown.

use enishi_api::{Answer, Member, Request};
use enishi_host::gateway::{self, Consent, LetIn, LetOut, Limits, Terms, write_consent};
use enishi_overlay::{NodeId, OverlayId};
use serde_json::{Value, json};

use super::super::Context;
use super::{ends, problem};
use crate::args;
use crate::client::strange;
use crate::output::table::Table;
use crate::problem::{Problem, Verdict};
use crate::text::{Gateway as Text, Label, Message};

/// Signs a consent with the authority's key of the data directory.
pub(super) async fn sign(cx: &Context, options: args::Consent) -> Result<Verdict, Problem> {
    let usage = |what: &str| Problem::Usage(cx.out.text(&Message::Gateway(Text::NoId { what })));
    let gateway: NodeId = options.node.parse().map_err(|_| usage("--node"))?;
    let other = options.other.to_ascii_lowercase();
    // Both are 32 octets in base32.
    let other: NodeId = other.parse().map_err(|_| usage("--other"))?;
    let members = Members::of(cx, &options.channel);
    let members = members.await?;
    let mut lets_out = Vec::new();
    for out in options.out {
        let users: Result<Vec<NodeId>, Problem> = out
            .users
            .iter()
            .map(|user| members.find(cx, user))
            .collect();
        lets_out.push(LetOut {
            service: out.service,
            port: out.port,
            users: users?,
        });
    }
    let mut lets_in = Vec::new();
    for inside in options.inside {
        lets_in.push(LetIn {
            member: members.find(cx, &inside.member)?,
            service: inside.service,
            port: inside.port,
        });
    }
    let terms = Terms {
        gateway,
        channel: options.channel,
        other: OverlayId::from_bytes(*other.as_bytes()),
        lets_out,
        lets_in,
        takes: options.take,
        gives: options.give,
        limits: Limits {
            flows: options.flows,
            octets_per_s: options.rate,
            idle_s: options.idle,
        },
    };
    let signed = gateway::sign(cx.client.data(), terms, options.expires);
    let consent = signed.map_err(|error| problem(&error))?;
    if cx.out.json {
        return tell(cx, &consent);
    }
    cx.out.line(&write_consent(&consent))?;
    let name = consent.name().to_string();
    cx.out.hint(&Message::Gateway(Text::Signed { name: &name }));
    Ok(Verdict::Yes)
}

/// The members of a channel as the daemon knows them, if it runs.
struct Members(Vec<Member>);

impl Members {
    async fn of(cx: &Context, channel: &str) -> Result<Self, Problem> {
        let name = channel.to_owned();
        match cx.client.ask(&Request::ChannelShow { name }).await {
            Ok(Answer::Channel(channel)) => Ok(Self(channel.member_list)),
            Ok(_) => Err(strange(&cx.out)),
            // Whole ids need no daemon, and no membership.
            Err(Problem::NoDaemon(_) | Problem::No(_)) => Ok(Self(Vec::new())),
            Err(problem) => Err(problem),
        }
    }

    fn find(&self, cx: &Context, text: &str) -> Result<NodeId, Problem> {
        if let Ok(id) = text.to_ascii_lowercase().parse() {
            return Ok(id);
        }
        let mut fitting = self.0.iter().filter(|member| {
            let is_address = member.addresses.iter().any(|own| own.to_string() == text);
            member.host.eq_ignore_ascii_case(text) || is_address
        });
        let id = match (fitting.next(), fitting.next()) {
            (Some(member), None) => member.node_id.parse().ok(),
            _ => None,
        };
        let message = Message::Gateway(Text::NoMember { member: text });
        id.ok_or_else(|| Problem::No(cx.out.text(&message)))
    }
}

pub(super) fn object(consent: &Consent) -> Value {
    let terms = consent.terms();
    let ids = |ids: &[NodeId]| ids.iter().map(NodeId::to_string).collect::<Vec<_>>();
    let out = terms
        .lets_out
        .iter()
        .map(|out| json!({ "service": out.service, "port": out.port, "users": ids(&out.users) }));
    let inside = terms.lets_in.iter().map(|inside| {
        let member = inside.member.to_string();
        json!({ "service": inside.service, "member": member, "port": inside.port })
    });
    json!({
        "consent": write_consent(consent),
        "name": consent.name().to_string(),
        "overlay_id": consent.overlay().to_string(),
        "node_id": terms.gateway.to_string(),
        "channel": terms.channel,
        "other_overlay_id": terms.other.to_string(),
        "out": out.collect::<Vec<_>>(),
        "in": inside.collect::<Vec<_>>(),
        "take": terms.takes,
        "give": terms.gives,
        "flows": terms.limits.flows,
        "octets_per_s": terms.limits.octets_per_s,
        "idle_s": terms.limits.idle_s,
        "expires_unix_s": consent.expires_unix_s(),
    })
}

pub(super) fn tell(cx: &Context, consent: &Consent) -> Result<Verdict, Problem> {
    if cx.out.json {
        cx.out.object(&object(consent))?;
        return Ok(Verdict::Yes);
    }
    let terms = consent.terms();
    let everybody = cx.out.label(Label::Everybody);
    let mut table = Table::default();
    let mut row = |label, value: String| {
        table.row([cx.out.label(label).to_owned(), value]);
    };
    row(Label::Consent, consent.name().to_string());
    row(Label::Overlay, consent.overlay().to_string());
    row(Label::Gateway, terms.gateway.to_string());
    row(Label::Channel, terms.channel.clone());
    row(Label::OtherOverlay, terms.other.to_string());
    for out in &terms.lets_out {
        let users: Vec<String> = out.users.iter().map(NodeId::short).collect();
        let users = match users.is_empty() {
            true => everybody.to_owned(),
            false => users.join(", "),
        };
        row(
            Label::LetOut,
            format!("{} :{} ({users})", out.service, out.port),
        );
    }
    for inside in &terms.lets_in {
        let to = format!("{}:{}", inside.member.short(), inside.port);
        row(Label::LetIn, format!("{} -> {to}", inside.service));
    }
    for (label, names) in [(Label::Takes, &terms.takes), (Label::Gives, &terms.gives)] {
        for name in names {
            row(label, name.clone());
        }
    }
    let Limits {
        flows,
        octets_per_s,
        idle_s,
    } = terms.limits;
    row(
        Label::Limits,
        cx.out.text(&Message::Gateway(Text::Limits {
            flows,
            octets_per_s,
            idle_s,
        })),
    );
    row(Label::Ends, ends(consent.expires_unix_s()));
    cx.out.line(&table.print())?;
    Ok(Verdict::Yes)
}
