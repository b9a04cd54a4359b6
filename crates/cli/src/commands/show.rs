//! `enishi channel show`.

use std::path::{Path, PathBuf};

use enishi_api::{Answer, Channel, Member, Request};

use super::governed::short;
use super::{Context, map};
use crate::client::strange;
use crate::output::table::Table;
use crate::problem::{Problem, Verdict};
use crate::svg::star;
use crate::text::{Label, Message, octets, or_dash};

pub(super) async fn run(
    cx: &Context,
    name: String,
    svg: Option<PathBuf>,
) -> Result<Verdict, Problem> {
    let on_stdout = svg.as_deref() == Some(Path::new("-"));
    if cx.out.json && on_stdout {
        return Err(Problem::Usage(cx.out.text(&Message::MapTwice)));
    }
    let Answer::Channel(channel) = cx.client.ask(&Request::ChannelShow { name }).await? else {
        return Err(strange(&cx.out));
    };
    if let Some(file) = &svg {
        let drawing = star::draw(&channel, cx.out.language);
        if on_stdout {
            cx.out.bytes(drawing.as_bytes())?;
            return Ok(Verdict::Yes);
        }
        map::write(cx, file, &drawing)?;
    }
    if cx.out.json {
        cx.out.object(&channel)?;
        return Ok(Verdict::Yes);
    }
    cx.out.line(&facts(cx, &channel))?;
    cx.out.line(&format!("\n{}", members(cx, &channel)))?;
    if let Some(notice) = &channel.notice {
        cx.out.line(&format!("\n{notice}"))?;
    }
    if let Some(file) = svg {
        let file = &file.display().to_string();
        cx.out.line(&cx.out.text(&Message::MapWritten { file }))?;
    }
    Ok(Verdict::Yes)
}

fn facts(cx: &Context, channel: &Channel) -> String {
    let is_governed = channel.form == "governed";
    let addresses = [
        channel.address.map(|address| address.to_string()),
        channel.address6.map(|address| address.to_string()),
    ];
    let addresses: Vec<String> = addresses.into_iter().flatten().collect();
    let summary = Message::ChannelSummary {
        known: channel.members,
        online: channel.online,
    };
    let charter = channel.charter_version.zip(channel.epoch);
    let charter = charter.map(|(version, epoch)| Message::Charter { version, epoch });
    let rules = is_governed.then(|| channel.rules.to_string());
    let standing = is_governed.then(|| standing(cx, channel.founder, channel.admin));
    let rows = [
        (
            Label::Channel,
            format!("{} ({})", channel.name, channel.form),
        ),
        (Label::Network, channel.network.clone()),
        (Label::Address, addresses.join(", ")),
        (
            Label::Interface,
            channel.interface.clone().unwrap_or_default(),
        ),
        (Label::Membership, standing.unwrap_or_default()),
        (
            Label::Charter,
            charter.map_or_else(String::new, |c| cx.out.text(&c)),
        ),
        (Label::Rules, rules.unwrap_or_default()),
        (Label::Members, cx.out.text(&summary)),
    ];
    let mut table = Table::default();
    for (label, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
        table.row([cx.out.label(label).to_owned(), value]);
    }
    table.print()
}

fn members(cx: &Context, channel: &Channel) -> String {
    let labels = [
        Label::Host,
        Label::Address,
        Label::Address6,
        Label::Node,
        Label::Standing,
        Label::Role,
        Label::RoundTrip,
        Label::Sent,
        Label::Received,
        Label::Path,
    ];
    let headings = labels.map(|label| cx.out.label(label));
    let mut table = Table::new(headings).right(6).right(7).right(8);
    for member in &channel.member_list {
        let address = |index: usize| or_dash(member.addresses.get(index));
        table.row([
            member.host.clone(),
            address(0),
            address(1),
            short(&member.node_id).to_owned(),
            standing_of(cx, member),
            or_dash(member.role.as_deref()),
            or_dash(member.rtt_ms.map(|rtt_ms| format!("{rtt_ms:.2} ms"))),
            octets(member.bytes_sent),
            octets(member.bytes_received),
            member.path.clone(),
        ]);
    }
    table.print()
}

fn standing_of(cx: &Context, member: &Member) -> String {
    standing(cx, member.founder, member.admin)
}

pub(super) fn standing(cx: &Context, founder: bool, admin: bool) -> String {
    let label = match (founder, admin) {
        (true, _) => Label::Founder,
        (false, true) => Label::Administrator,
        (false, false) => Label::Member,
    };
    cx.out.label(label).to_owned()
}
