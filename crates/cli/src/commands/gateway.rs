//! `enishi gateway consent | read | accept | forget | run | show | audit | list`.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use enishi_api::{Answer, Member, Overlay, Request};
use enishi_host::audit::{self, Event, Line, Passage};
use enishi_host::gateway::{
    self, Consent, GatewayError, LetIn, LetOut, Limits, Terms, read_consent, write_consent,
};
use enishi_overlay::{NodeId, OverlayId};
use serde_json::{Value, json};

use super::Context;
use super::channel::read_ticket;
use crate::args;
use crate::client::strange;
use crate::gateway as runtime;
use crate::gateway::{SideState, State, sentence, short};
use crate::output::table::Table;
use crate::problem::{Problem, Verdict};
use crate::text::{Gateway as Text, Label, Message};

const DAY_S: u64 = 86_400;

/// The most members whose consents `list` looks for.
const MEMBERS_MAX: usize = 256;

pub(super) async fn run(cx: &Context, command: args::Gateway) -> Result<Verdict, Problem> {
    let dir = cx.client.data();
    match command {
        args::Gateway::Consent(options) => consent(cx, options).await,
        args::Gateway::Read { consent } => {
            let consent = read_consent(&read_ticket(&cx.out, consent)?);
            let consent = consent.map_err(|error| Problem::Usage(sentence(&error.to_string())))?;
            tell_consent(cx, &consent)
        }
        args::Gateway::Accept { side, consent } => {
            let text = read_ticket(&cx.out, consent)?;
            make_dir(dir)?;
            let side = gateway::accept(dir, &side, &text).map_err(|error| problem(&error))?;
            let overlay = side.consent.overlay().to_string();
            let message = Message::Gateway(Text::Accepted { overlay: &overlay });
            cx.out.result(&object(&side.consent), &message)?;
            Ok(Verdict::Yes)
        }
        args::Gateway::Forget { overlay } => {
            let overlay = gateway::forget(dir, &overlay).map_err(|error| problem(&error))?;
            let overlay = overlay.to_string();
            let message = Message::Gateway(Text::Forgotten { overlay: &overlay });
            cx.out.result(&json!({ "forgotten": overlay }), &message)?;
            Ok(Verdict::Yes)
        }
        args::Gateway::Run => runtime::run(cx.out, dir).await,
        args::Gateway::Show => show(cx).await,
        args::Gateway::Audit(options) => tell_audit(cx, &options),
        args::Gateway::List => list(cx).await,
    }
}

fn make_dir(dir: &Path) -> Result<(), Problem> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    made.map_err(|error| Problem::No(format!("{} cannot be made: {error}.", dir.display())))
}

async fn consent(cx: &Context, options: args::Consent) -> Result<Verdict, Problem> {
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
        return tell_consent(cx, &consent);
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

fn object(consent: &Consent) -> Value {
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

fn tell_consent(cx: &Context, consent: &Consent) -> Result<Verdict, Problem> {
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

fn ends(unix_s: u64) -> String {
    let left = unix_s.saturating_sub(now_s());
    match left {
        0..DAY_S => format!("{} h {} min", left / 3600, left % 3600 / 60),
        _ => format!("{} d {} h", left / DAY_S, left % DAY_S / 3600),
    }
}

async fn show(cx: &Context) -> Result<Verdict, Problem> {
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

fn tell_audit(cx: &Context, options: &args::Audit) -> Result<Verdict, Problem> {
    let mut last: VecDeque<(Line, String)> = VecDeque::new();
    let mut is_found = options.expect.is_none();
    let read = audit::read(cx.client.data(), |line, hash| {
        is_found |= options.expect.as_deref() == Some(hash);
        last.push_back((line.clone(), hash.to_owned()));
        if last.len() > options.last {
            last.pop_front();
        }
    });
    let found = read.map_err(|error| Problem::No(sentence(&error.to_string())))?;
    let hash = found.last.as_ref().map(|(_, hash)| hash.clone());
    if !is_found {
        return Err(Problem::No(
            cx.out.text(&Message::Gateway(Text::HashMissing)),
        ));
    }
    let shown = if options.verify {
        VecDeque::new()
    } else {
        last
    };
    if cx.out.json {
        let lines: Vec<&Line> = shown.iter().map(|(line, _)| line).collect();
        let count = found.lines;
        cx.out.object(&json!({ "whole": true, "count": count, "torn": found.torn, "last_hash": hash, "lines": lines }))?;
        return Ok(Verdict::Yes);
    }
    if !shown.is_empty() {
        let mut table = Table::default();
        for (line, _) in &shown {
            let [event, text] = words(&line.event);
            table.row([line.seq.to_string(), utc(line.unix_ms / 1000), event, text]);
        }
        cx.out.line(&table.print())?;
    }
    let whole = Text::Whole {
        lines: found.lines,
        hash: hash.as_deref().unwrap_or("-"),
    };
    cx.out.line(&cx.out.text(&Message::Gateway(whole)))?;
    Ok(Verdict::Yes)
}

/// What a line tells; the words are those of the file.
fn words(event: &Event) -> [String; 2] {
    let [event, text] = match event {
        Event::Begun { .. } => ["begun", ""].map(str::to_owned),
        Event::Repaired { octets } => ["repaired".to_owned(), format!("{octets} octets cut off")],
        Event::Started => ["started", ""].map(str::to_owned),
        Event::Stopped => ["stopped", ""].map(str::to_owned),
        Event::Changed { open, reason } => {
            let text = reason.clone().unwrap_or_else(|| {
                let open = open.iter().map(|line| {
                    let words = line.split(' ').map(|word| word.get(..10).unwrap_or(word));
                    words.collect::<Vec<_>>().join(" ")
                });
                open.collect::<Vec<_>>().join(", ")
            });
            ["changed".to_owned(), text]
        }
        Event::Opened { flow, passage } => {
            ["opened".to_owned(), format!("#{flow} {}", who(passage))]
        }
        Event::Refused { passage, reason } => {
            ["refused".to_owned(), format!("{}: {reason}", who(passage))]
        }
        Event::Closed {
            flow,
            octets_in,
            octets_out,
            open_ms,
            reason,
        } => {
            let text = format!("#{flow} {octets_in} in, {octets_out} out, {open_ms} ms: {reason}");
            ["closed".to_owned(), text]
        }
        Event::Copied {
            document,
            from_overlay,
            to_overlay,
            octets,
            ..
        } => {
            let (from, to) = (short(from_overlay), short(to_overlay));
            [
                "copied".to_owned(),
                format!("{document} {from} -> {to}, {octets} octets"),
            ]
        }
        Event::NotCopied { document, reason } => {
            ["not copied".to_owned(), format!("{document}: {reason}")]
        }
        Event::Withdrawn {
            document,
            to_overlay,
        } => [
            "withdrawn".to_owned(),
            format!("{document} {}", short(to_overlay)),
        ],
        Event::Suppressed { refusals } => ["suppressed".to_owned(), format!("{refusals} refusals")],
    };
    [event, text]
}

fn who(passage: &Passage) -> String {
    let node = passage.from_node.as_deref().unwrap_or("-");
    let to = passage.to_node.as_deref().unwrap_or("-");
    let port = passage
        .to_port
        .map_or(String::new(), |port| format!(":{port}"));
    let (node, to) = (short(node), short(to));
    format!(
        "{} {node} ({}) -> {to}{port}",
        passage.service, passage.from
    )
}

/// Writes a time as in RFC 3339, UTC. Days are counted as in "chrono-compatible low-level date
/// algorithms" (H. Hinnant), `civil_from_days`.
fn utc(unix_s: u64) -> String {
    let (days, second) = (unix_s / DAY_S, unix_s % DAY_S);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Looks which members of this node's channels show a consent that counts.
async fn list(cx: &Context) -> Result<Verdict, Problem> {
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

fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn problem(error: &GatewayError) -> Problem {
    let text = sentence(&error.to_string());
    match error {
        GatewayError::Terms(_) | GatewayError::Text(_) => Problem::Usage(text),
        GatewayError::DataDir(_)
        | GatewayError::Closed(_)
        | GatewayError::NoAuthority
        | GatewayError::OtherOverlay(..)
        | GatewayError::OtherNode(..)
        | GatewayError::Full(..)
        | GatewayError::Unknown(_)
        | GatewayError::Random(_) => Problem::No(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(utc(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(utc(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
