//! `enishi channel invite | invitations | revoke | remove | role | admin | rules | allow |
//! disallow`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use enishi_api::{
    Answer, ChannelInvitation, ChannelInvite, ChannelMember, ChannelRule, NewRule, OpenInvitation,
    Request,
};
use serde_json::json;

use super::channel::read_ticket;
use super::{Context, status, ticket};
use crate::args::{Governed, Member};
use crate::client::strange;
use crate::output::table::Table;
use crate::problem::{Problem, Verdict};
use crate::text::{Label, Message, or_dash};

/// How many characters of an id tell nodes and invitations apart for people.
pub(super) const ID_CHARACTERS: usize = 10;

pub(super) async fn run(cx: &Context, command: Governed) -> Result<Verdict, Problem> {
    match command {
        Governed::Invite {
            name,
            uses,
            expires,
            role,
        } => {
            let invite = ChannelInvite {
                name,
                uses,
                valid_s: expires,
                role,
            };
            invite_to(cx, invite).await
        }
        Governed::Invitations { name } => invitations(cx, name).await,
        Governed::Revoke { name, invitation } => {
            let invitation = read_ticket(&cx.out, invitation)?;
            revoke(cx, Request::ChannelRevoke { name, invitation }).await
        }
        Governed::Remove { of } => remove(cx, of).await,
        Governed::Role { of, role, none: _ } => {
            let of = of.into();
            change(cx, Request::ChannelRole { of, role }).await
        }
        Governed::Admin { of, no } => {
            let (of, admin) = (of.into(), !no);
            change(cx, Request::ChannelAdmin { of, admin }).await
        }
        Governed::Rules { name } => rules(cx, Request::ChannelRules { name }).await,
        Governed::Allow {
            name,
            from,
            to,
            ports,
        } => {
            let rule = NewRule { from, to, ports };
            rules(cx, Request::ChannelAllow { name, rule }).await
        }
        Governed::Disallow { name, number } => {
            rules(cx, Request::ChannelDisallow { name, number }).await
        }
    }
}

impl From<Member> for ChannelMember {
    fn from(Member { name, member }: Member) -> Self {
        Self { name, member }
    }
}

async fn invite_to(cx: &Context, invite: ChannelInvite) -> Result<Verdict, Problem> {
    let name = invite.name.clone();
    let request = Request::ChannelInvite(invite);
    let Answer::ChannelInvitation(invitation) = cx.client.ask(&request).await? else {
        return Err(strange(&cx.out));
    };
    if cx.out.json {
        cx.out.object(&invitation)?;
        return Ok(Verdict::Yes);
    }
    let ChannelInvitation {
        ticket,
        uses,
        stored,
        ..
    } = &invitation;
    let usage = match &invitation.invitation {
        None => Message::UseChannelTicket { ticket },
        Some(key) => Message::UseGovernedTicket {
            name: &name,
            ticket,
            uses: *uses,
            revoke: short(key),
        },
    };
    ticket::print(cx, ticket, &usage)?;
    if !stored {
        cx.out.hint(&Message::InvitationNotStored);
    }
    Ok(Verdict::Yes)
}

async fn invitations(cx: &Context, name: String) -> Result<Verdict, Problem> {
    let request = Request::ChannelInvitations { name: name.clone() };
    let Answer::ChannelInvitations { invitations } = cx.client.ask(&request).await? else {
        return Err(strange(&cx.out));
    };
    if cx.out.json {
        cx.out.object(&json!({ "invitations": invitations }))?;
    } else if invitations.is_empty() {
        cx.out.hint(&Message::NoInvitations { name: &name });
    } else {
        cx.out.line(&invitation_table(cx, &invitations))?;
    }
    Ok(Verdict::Yes)
}

fn invitation_table(cx: &Context, invitations: &[OpenInvitation]) -> String {
    let labels = [
        Label::Invitation,
        Label::Uses,
        Label::Ends,
        Label::Role,
        Label::CameBy,
    ];
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_s = now.as_ref().map_or(0, Duration::as_secs);
    let mut table = Table::new(labels.map(|label| cx.out.label(label)))
        .right(1)
        .right(2);
    for open in invitations {
        let uses = open.uses.map(|uses| uses.to_string());
        table.row([
            short(&open.invitation).to_owned(),
            uses.unwrap_or_else(|| cx.out.label(Label::Any).to_owned()),
            status::duration(open.expires_unix_s.saturating_sub(now_s)),
            or_dash(open.role.as_deref()),
            open.members.join(", "),
        ]);
    }
    table.print()
}

async fn revoke(cx: &Context, request: Request) -> Result<Verdict, Problem> {
    let Answer::ChannelInvitations { invitations } = cx.client.ask(&request).await? else {
        return Err(strange(&cx.out));
    };
    let object = json!({ "invitations": invitations });
    cx.out.result(&object, &Message::InvitationRevoked)?;
    Ok(Verdict::Yes)
}

async fn remove(cx: &Context, of: Member) -> Result<Verdict, Problem> {
    let name = of.name.clone();
    let Answer::ChannelRemoved(removal) = cx.client.ask(&Request::ChannelRemove(of.into())).await?
    else {
        return Err(strange(&cx.out));
    };
    let message = Message::MemberRemoved {
        name: &name,
        member: removal.host.as_deref().unwrap_or(&removal.node_id),
        invitation: removal.invitation.as_deref().map(short),
    };
    cx.out.result(&removal, &message)?;
    Ok(Verdict::Yes)
}

async fn change(cx: &Context, request: Request) -> Result<Verdict, Problem> {
    let Answer::ChannelMember(member) = cx.client.ask(&request).await? else {
        return Err(strange(&cx.out));
    };
    let name = match member.host.as_str() {
        "" => &member.node_id,
        host => host,
    };
    let message = Message::MemberStands {
        member: name,
        role: member.role.as_deref(),
        admin: member.admin,
    };
    cx.out.result(&member, &message)?;
    Ok(Verdict::Yes)
}

async fn rules(cx: &Context, request: Request) -> Result<Verdict, Problem> {
    let Answer::ChannelRules { rules } = cx.client.ask(&request).await? else {
        return Err(strange(&cx.out));
    };
    if cx.out.json {
        cx.out.object(&json!({ "rules": rules }))?;
    } else if rules.is_empty() {
        cx.out.hint(&Message::NoRules);
    } else {
        cx.out.line(&rule_table(cx, &rules))?;
        cx.out.hint(&Message::RulesBind);
    }
    Ok(Verdict::Yes)
}

fn rule_table(cx: &Context, rules: &[ChannelRule]) -> String {
    let labels = [Label::Rule, Label::From, Label::To, Label::Ports];
    let mut table = Table::new(labels.map(|label| cx.out.label(label))).right(0);
    for rule in rules {
        let ports = match rule.ports.as_slice() {
            [] => cx.out.label(Label::Everything).to_owned(),
            ports => ports.join(", "),
        };
        table.row([
            rule.number.to_string(),
            party(&rule.from, rule.from_host.as_deref()),
            party(&rule.to, rule.to_host.as_deref()),
            ports,
        ]);
    }
    table.print()
}

/// One side of a rule: hosts name themselves, so the id stands beside the name.
fn party(selector: &str, host: Option<&str>) -> String {
    match host {
        Some(host) => format!("{host} ({})", short(selector)),
        None => selector.to_owned(),
    }
}

/// The first characters of an id.
pub(super) fn short(id: &str) -> &str {
    id.get(..ID_CHARACTERS).unwrap_or(id)
}
