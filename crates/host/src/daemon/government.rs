//! What administrators of a governed channel decide: `channel revoke`, `remove`, `role`,
//! `admin`, `rules`, `allow` and `disallow`.
//!
//! The node refuses what it may not do without a word. So everything is checked here first, to
//! say why; then it is told, and it counts once the charter shows it and is on disk.

use std::time::Duration;

use enishi_api::{Answer, ChannelMember, ChannelRule, Failure, Member, NewRule, Removal};
use enishi_overlay::NodeId;
use enishi_services::Node;
use enishi_services::admission::invitation_name;
use enishi_services::ticket::{ChannelTicket, Ticket};
use enishi_services::vnet::access::{PORTS_MAX, ParseRuleError, Ports, Rule, Selector};
use enishi_services::vnet::charter::{
    ADMINS_MAX, Charter, Decisions, KEPT_MAX, REMOVED_MAX, REVOKED_MAX, ROLES_MAX, RULES_MAX,
};
use enishi_services::vnet::invitation::Issued;
use enishi_services::vnet::{self, ChannelId, Command, Event};
use tokio::sync::{Semaphore, SemaphorePermit, broadcast};

use super::channels::{closed, sentence, unknown};
use super::desk::{Desk, no, usage};
use super::{invitations, members};

/// How long the disk is waited for.
const KEEP_TIME_MAX: Duration = Duration::from_secs(10);

/// How long the overlay is waited for, that it gives an invitation's mail up: as long as a put
/// may take.
const WITHDRAW_TIME_MAX: Duration = Duration::from_secs(20);

/// One change after the other: each goes on from what the one before has left.
static CHANGING: Semaphore = Semaphore::const_new(1);

async fn turn() -> Result<SemaphorePermit<'static>, Failure> {
    // The semaphore is never closed.
    CHANGING.acquire().await.map_err(|_| closed())
}

/// A channel of a secret has no administrators.
pub(super) fn not_governed(name: &str, what: &str) -> Failure {
    usage(format!(
        "Channel `{name}` rests on a secret that all members share: {what}. A channel that is \
         made without a password is governed (`enishi channel create NAME`)."
    ))
}

/// Returns a channel of which this node is an administrator.
///
/// # Errors
/// It is none, for people.
pub(super) async fn administered(desk: &Desk, name: &str) -> Result<ChannelId, Failure> {
    let asked = name.to_owned();
    let look = move |node: &Node| {
        let (id, channel) = node.vnet().by_name(&asked)?;
        let (governed, heard) = (channel.is_governed(), channel.charter().is_some());
        Some((id, governed, heard, channel.is_admin(&node.id())))
    };
    match desk.look(look).await?.ok_or_else(|| unknown(name))? {
        (id, true, true, true) => Ok(id),
        (_, false, _, _) => Err(not_governed(name, "it has no administrators")),
        (_, true, false, _) => Err(no(
            "This node has not heard yet what the channel's administrators have decided; try \
             again when another member can be reached.",
        )),
        (_, true, true, false) => Err(no(format!(
            "Only administrators of channel `{name}` can do this; `enishi channel show {name}` \
             shows who is one."
        ))),
    }
}

/// Waits for an event of which something is to be known; none when it does not come in time.
pub(super) async fn wait_for<T>(
    events: &mut broadcast::Receiver<Event>,
    time_max: Duration,
    wanted: impl Fn(&Event) -> Option<T>,
) -> Option<T> {
    let waiting = async {
        loop {
            match events.recv().await {
                Ok(event) => {
                    if let Some(found) = wanted(&event) {
                        return Some(found);
                    }
                }
                // It may have been among those that were missed.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    };
    tokio::time::timeout(time_max, waiting).await.ok().flatten()
}

/// Has the node decide something, and waits until the charter shows it and is on disk.
/// `refusal` says why the node may have refused.
async fn decide(
    desk: &Desk,
    id: ChannelId,
    command: Command,
    shown: impl FnOnce(&Charter) -> bool + Send + 'static,
    refusal: &str,
) -> Result<(), Failure> {
    let mut events = desk.events();
    desk.vnet(command).await?;
    if !look(desk, id, move |channel| {
        channel.charter().is_some_and(shown)
    })
    .await?
    {
        return Err(no(refusal));
    }
    let governed = |event: &Event| (*event == Event::Governed(id)).then_some(());
    let kept = wait_for(&mut events, KEEP_TIME_MAX, governed).await;
    kept.ok_or_else(|| {
        no(
            "It counts from now on, but could not be kept on disk: after a restart this node may \
             not know of it. `enishi doctor` checks the disk.",
        )
    })
}

/// Looks at a channel.
async fn look<T: Send + 'static>(
    desk: &Desk,
    id: ChannelId,
    look: impl FnOnce(&vnet::Channel) -> T + Send + 'static,
) -> Result<T, Failure> {
    let found = desk.look(move |node| node.vnet().channel(id).map(look));
    found.await?.ok_or_else(closed)
}

pub(super) async fn revoke(desk: &Desk, name: &str, invitation: &str) -> Result<Answer, Failure> {
    let _turn = turn().await?;
    let id = administered(desk, name).await?;
    let key = invitation_named(desk, id, name, invitation).await?;
    let is_revoked = move |charter: &Charter| {
        let mut revoked = charter.decisions().revoked.iter();
        revoked.any(|revoked| revoked.invitation == key)
    };
    let before = look(desk, id, move |c| c.charter().is_some_and(is_revoked)).await?;
    if before {
        return Err(no("This invitation was revoked before."));
    }
    let command = Command::Revoke {
        channel: id,
        invitation: key,
    };
    let refusal = format!(
        "The charter of channel `{name}` has no room for this: it names at most {REVOKED_MAX} \
         revoked invitations, and {KEPT_MAX} members who came by them and stay."
    );
    let made_here = look(desk, id, move |channel| is_open_here(channel, key)).await?;
    let mut events = desk.events();
    decide(desk, id, command, is_revoked, &refusal).await?;
    if made_here && !is_withdrawn(&mut events, key).await {
        return Err(no(
            "Members turn away whoever comes by this invitation from now on. But too few of the \
             nodes that keep it for newcomers could be told, so `channel join` may still find it \
             there; this node goes on telling them.",
        ));
    }
    invitations::open_ones(desk, name).await
}

/// Waits until a majority of those who kept an invitation's mail have given it up.
async fn is_withdrawn(events: &mut broadcast::Receiver<Event>, name: NodeId) -> bool {
    let withdrawn = wait_for(events, WITHDRAW_TIME_MAX, |event| match event {
        Event::Withdrawn {
            invitation, gone, ..
        } if *invitation == name => Some(*gone),
        _ => None,
    });
    withdrawn.await.unwrap_or(false)
}

/// Finds the invitation that a person names: by its text, its name, or the beginning of that.
async fn invitation_named(
    desk: &Desk,
    id: ChannelId,
    name: &str,
    text: &str,
) -> Result<NodeId, Failure> {
    if let Ok(ticket) = text.parse::<Ticket>() {
        return match &ticket.channel {
            ChannelTicket::Invitation { seed } => Ok(invitation_name(seed)),
            ChannelTicket::None | ChannelTicket::Secret { .. } => Err(usage(
                "This invitation is not to a governed channel, and cannot be revoked.",
            )),
        };
    }
    let text = text.to_ascii_lowercase();
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let fitting = look(desk, id, move |channel| {
        let issued = channel.issued().iter().filter_map(Issued::name);
        let came = channel
            .members()
            .filter_map(|claim| channel.invitation_of(claim));
        let all: std::collections::BTreeSet<NodeId> = issued.chain(came).collect();
        let fits = |key: &NodeId| !text.is_empty() && key.to_string().starts_with(&text);
        all.into_iter().filter(fits).collect::<Vec<_>>()
    });
    match fitting.await?.as_slice() {
        [key] => Ok(*key),
        [] => Err(no(format!(
            "No invitation is named so; `enishi channel invitations {name}` shows those that this \
             node has made, `enishi channel show {name} --json` by which each member came."
        ))),
        _ => Err(usage(
            "Several invitations begin so; write more characters.",
        )),
    }
}

pub(super) async fn remove(desk: &Desk, of: ChannelMember) -> Result<Answer, Failure> {
    let _turn = turn().await?;
    let ChannelMember { name, member } = of;
    let id = administered(desk, &name).await?;
    let node = members::find(desk, &name, &member).await?;
    let known = look(desk, id, move |channel| Standing::of(channel, node)).await?;
    if node == desk.sessions.me() {
        return Err(usage(format!(
            "This node cannot remove itself; `enishi channel leave {name}` takes it out."
        )));
    }
    if known.removed {
        return Err(no("This node was removed before."));
    }
    if known.member.as_ref().is_some_and(|member| member.founder) {
        return Err(no("The founder of a channel cannot be removed."));
    }
    if known.admin && !known.founded_here {
        return Err(no(
            "Only the founder of the channel can remove an administrator.",
        ));
    }
    let command = Command::Remove { channel: id, node };
    let is_removed = move |charter: &Charter| charter.decisions().removed.contains(&node);
    let refusal = format!(
        "The charter of channel `{name}` is full: it names at most {REMOVED_MAX} removed nodes. \
         Make a new channel and invite the others."
    );
    decide(desk, id, command, is_removed, &refusal).await?;
    let (epoch, invitation) = look(desk, id, move |channel| {
        let epoch = channel.charter().map_or(0, |c| c.decisions().epoch);
        let open = known.came_by.filter(|by| lets_others_in(channel, *by));
        (epoch, open.map(|by| by.invitation.to_string()))
    })
    .await?;
    Ok(Answer::ChannelRemoved(Removal {
        node_id: node.to_string(),
        host: known.member.map(|member| member.host),
        epoch,
        invitation,
    }))
}

/// Tells whether an invitation still lets others in, as far as this node knows.
fn lets_others_in(channel: &vnet::Channel, by: CameBy) -> bool {
    let decisions = channel.charter().map(Charter::decisions);
    let mut revoked = decisions
        .into_iter()
        .flat_map(|decisions| &decisions.revoked);
    match by.made_here {
        true => is_open_here(channel, by.invitation),
        false => revoked.all(|revoked| revoked.invitation != by.invitation),
    }
}

fn is_open_here(channel: &vnet::Channel, invitation: NodeId) -> bool {
    let mut issued = channel.issued().iter();
    issued.any(|issued| issued.name() == Some(invitation))
}

/// The invitation by which a member came.
#[derive(Clone, Copy)]
struct CameBy {
    invitation: NodeId,
    /// This node has made it, and it was open.
    made_here: bool,
}

/// How a node stands in a channel.
struct Standing {
    member: Option<Member>,
    came_by: Option<CameBy>,
    admin: bool,
    removed: bool,
    founded_here: bool,
}

impl Standing {
    fn of(channel: &vnet::Channel, node: NodeId) -> Self {
        let mut claims = channel.members();
        let claim = claims.find(|claim| claim.contact.id() == node);
        let decisions = channel.charter().map(Charter::decisions);
        let invitation = claim.and_then(|claim| channel.invitation_of(claim));
        Self {
            member: claim.map(|claim| members::member(channel, claim)),
            came_by: invitation.map(|invitation| CameBy {
                invitation,
                made_here: is_open_here(channel, invitation),
            }),
            admin: channel.is_admin(&node),
            removed: decisions.is_some_and(|d| d.removed.contains(&node)),
            founded_here: channel.is_founded_here(),
        }
    }
}

pub(super) async fn role(
    desk: &Desk,
    of: ChannelMember,
    role: Option<String>,
) -> Result<Answer, Failure> {
    let _turn = turn().await?;
    invitations::check_role(role.as_deref())?;
    let id = administered(desk, &of.name).await?;
    let node = members::find(desk, &of.name, &of.member).await?;
    let command = Command::Assign {
        channel: id,
        node,
        role: role.clone(),
    };
    let has_role = move |charter: &Charter| match &role {
        Some(role) => charter.decisions().role(&node, None) == Some(role),
        None => charter.decisions().role(&node, None).is_none(),
    };
    let refusal = format!("The channel's charter is full: it names at most {ROLES_MAX} roles.");
    decide(desk, id, command, has_role, &refusal).await?;
    changed(desk, id, node).await
}

pub(super) async fn admin(desk: &Desk, of: ChannelMember, admin: bool) -> Result<Answer, Failure> {
    let _turn = turn().await?;
    let id = administered(desk, &of.name).await?;
    let node = members::find(desk, &of.name, &of.member).await?;
    let known = look(desk, id, move |channel| Standing::of(channel, node)).await?;
    if !known.founded_here {
        return Err(no(
            "Only the founder of a channel says who its administrators are.",
        ));
    }
    if node == desk.sessions.me() {
        return Err(usage(
            "The founder of a channel is always an administrator.",
        ));
    }
    if known.removed {
        return Err(no("This node was removed from the channel."));
    }
    if known.admin == admin {
        return changed(desk, id, node).await;
    }
    let command = Command::Appoint {
        channel: id,
        node,
        admin,
    };
    let is_so = move |charter: &Charter| charter.admins().contains(&node) == admin;
    let refusal = format!(
        "A channel has at most {ADMINS_MAX} administrators, those who are none any more included."
    );
    decide(desk, id, command, is_so, &refusal).await?;
    changed(desk, id, node).await
}

/// Tells how a member stands now; one that is not known, as far as the charter says.
async fn changed(desk: &Desk, id: ChannelId, node: NodeId) -> Result<Answer, Failure> {
    let member = look(desk, id, move |channel| {
        let known = Standing::of(channel, node).member;
        let decisions = channel.charter().map(Charter::decisions);
        let role = decisions.and_then(|d| d.role(&node, None));
        known.unwrap_or_else(|| Member {
            node_id: node.to_string(),
            role: role.map(str::to_owned),
            admin: channel.is_admin(&node),
            path: "-".to_owned(),
            ..Member::default()
        })
    });
    Ok(Answer::ChannelMember(member.await?))
}

pub(super) async fn rules(desk: &Desk, name: &str) -> Result<Answer, Failure> {
    let asked = name.to_owned();
    let look = move |node: &Node| {
        let (_, channel) = node.vnet().by_name(&asked)?;
        Some((channel.is_governed(), told(channel)))
    };
    match desk.look(look).await?.ok_or_else(|| unknown(name))? {
        (true, rules) => Ok(Answer::ChannelRules { rules }),
        (false, _) => Err(not_governed(name, "everybody may reach everything")),
    }
}

fn told(channel: &vnet::Channel) -> Vec<ChannelRule> {
    let host = |selector: &Selector| {
        let Selector::Node(node) = selector else {
            return None;
        };
        let mut members = channel.members();
        let member = members.find(|claim| claim.contact.id() == *node)?;
        Some(member.host.clone())
    };
    let rules = channel.charter().map_or(&[][..], |c| &c.decisions().rules);
    let rule = |(number, rule): (u32, &Rule)| ChannelRule {
        number,
        from: rule.from.to_string(),
        from_host: host(&rule.from),
        to: rule.to.to_string(),
        to_host: host(&rule.to),
        ports: rule.ports.iter().map(Ports::to_string).collect(),
    };
    (1..).zip(rules).map(rule).collect()
}

pub(super) async fn allow(desk: &Desk, name: &str, new: NewRule) -> Result<Answer, Failure> {
    let _turn = turn().await?;
    let id = administered(desk, name).await?;
    let from = selector(desk, name, &new.from).await?;
    if matches!(from, Selector::Network(_)) {
        return Err(usage(
            "A rule begins with members: `--from` takes no network, `--to` does.",
        ));
    }
    let to = selector(desk, name, &new.to).await?;
    let ports: Result<Vec<Ports>, ParseRuleError> = new.ports.iter().map(|p| p.parse()).collect();
    let ports = ports.map_err(|error| usage(sentence(&error.to_string())))?;
    if ports.len() > PORTS_MAX {
        return Err(usage(format!(
            "One rule has at most {PORTS_MAX} protocols with ports; make a second one."
        )));
    }
    let rule = Rule { from, to, ports };
    let mut wanted = present(desk, id).await?.rules;
    if wanted.contains(&rule) {
        return rules(desk, name).await;
    }
    wanted.push(rule);
    replace(desk, id, wanted).await?;
    rules(desk, name).await
}

pub(super) async fn disallow(desk: &Desk, name: &str, number: u32) -> Result<Answer, Failure> {
    let _turn = turn().await?;
    let id = administered(desk, name).await?;
    let mut wanted = present(desk, id).await?.rules;
    let index = usize::try_from(number)
        .unwrap_or(usize::MAX)
        .wrapping_sub(1);
    if index >= wanted.len() {
        return Err(no(format!(
            "There is no rule {number}; `enishi channel rules {name}` shows them."
        )));
    }
    wanted.remove(index);
    replace(desk, id, wanted).await?;
    rules(desk, name).await
}

async fn present(desk: &Desk, id: ChannelId) -> Result<Decisions, Failure> {
    let decisions = look(desk, id, |c| c.charter().map(|c| c.decisions().clone()));
    decisions.await?.ok_or_else(closed)
}

async fn replace(desk: &Desk, id: ChannelId, rules: Vec<Rule>) -> Result<(), Failure> {
    let command = Command::Rule {
        channel: id,
        rules: rules.clone(),
    };
    let is_so = move |charter: &Charter| charter.decisions().rules == rules;
    let refusal = format!("A channel has at most {RULES_MAX} rules.");
    decide(desk, id, command, is_so, &refusal).await
}

/// Reads whom a rule means.
async fn selector(desk: &Desk, channel: &str, text: &str) -> Result<Selector, Failure> {
    match text.parse::<Selector>() {
        Ok(selector) => Ok(selector),
        Err(error) if text.contains(':') && text.parse::<std::net::IpAddr>().is_err() => {
            Err(usage(sentence(&error.to_string())))
        }
        Err(_) => members::find(desk, channel, text).await.map(Selector::Node),
    }
}
