//! `invite`; `channel invite` and `channel invitations`, and how an invitation is taken up.

use std::time::{Duration, Instant};

use enishi_api::{Answer, ChannelInvitation, ChannelInvite, Failure, OpenInvitation, Uses};
use enishi_overlay::peers::Peer;
use enishi_overlay::{Contact, NodeId};
use enishi_services::Node;
use enishi_services::admission::invitation_name;
use enishi_services::calls::GetAnswer;
use enishi_services::keys::Secret;
use enishi_services::ticket::{CONTACTS_MAX, ChannelTicket, Ticket};
use enishi_services::vnet::charter::is_role;
use enishi_services::vnet::invitation::{
    ISSUED_MAX, Issued, Terms, USES_MAX, mailbox_key, open_mailbox,
};
use enishi_services::vnet::{self, ChannelId, ChannelSpec, Entry, Event};

use super::channels::{Open, closed, random_secret, unknown};
use super::desk::{Desk, no, usage};
use super::government::{administered, not_governed, wait_for};
use crate::store::unix_s;

/// How many addresses of each node an invitation names: it has to fit into a QR code.
const ADDRESSES_MAX: usize = 3;

const DAY_S: u64 = 86_400;

/// The longest that an invitation to a channel may be valid, in seconds: a year.
const VALID_S_MAX: u64 = 365 * DAY_S;

/// How long the overlay is waited for, that it takes an invitation.
const STORE_TIME_MAX: Duration = Duration::from_secs(10);

/// How long what an invitation leads to is looked for, and how often among others before it is
/// taken to be gone.
const FETCH_TIME_MAX: Duration = Duration::from_secs(12);
const FETCH_INTERVAL: Duration = Duration::from_millis(500);
const MISSES_MAX: u32 = 4;

/// How long it is waited for whether a limited invitation still serves.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(8);
const SETTLE_INTERVAL: Duration = Duration::from_millis(100);

pub(super) async fn overlay(desk: &Desk) -> Result<Answer, Failure> {
    let days = u64::from(desk.shared.config.ticket_valid_days);
    let expires_unix_s = unix_s() + days * DAY_S;
    let ticket = ticket(desk, ChannelTicket::None, expires_unix_s).await?;
    Ok(Answer::Ticket { ticket })
}

pub(super) async fn channel(desk: &Desk, invite: ChannelInvite) -> Result<Answer, Failure> {
    let days = u64::from(desk.shared.config.ticket_valid_days);
    let valid_s = invite.valid_s.unwrap_or(days * DAY_S);
    if valid_s == 0 || invite.valid_s.is_some_and(|valid_s| valid_s > VALID_S_MAX) {
        return Err(usage("An invitation is valid for at most a year."));
    }
    let expires_unix_s = unix_s() + valid_s;
    let name = invite.name.clone();
    let look = move |node: &Node| {
        let (_, channel) = node.vnet().by_name(&name)?;
        let secret = ChannelTicket::Secret {
            network: channel.network(),
            secret: channel.secret().clone(),
            name,
        };
        Some((channel.is_governed(), secret))
    };
    let found = desk.look(look).await?;
    let (is_governed, secret) = found.ok_or_else(|| unknown(&invite.name))?;
    if is_governed {
        return by_key(desk, invite, expires_unix_s).await;
    }
    if matches!(invite.uses, Some(Uses::Of(_))) || invite.role.is_some() {
        let what = "uses cannot be counted and roles not given";
        return Err(not_governed(&invite.name, what));
    }
    Ok(Answer::ChannelInvitation(ChannelInvitation {
        ticket: ticket(desk, secret, expires_unix_s).await?,
        invitation: None,
        uses: None,
        expires_unix_s,
        role: None,
        stored: true,
    }))
}

/// Makes an invitation to a governed channel.
async fn by_key(
    desk: &Desk,
    invite: ChannelInvite,
    expires_unix_s: u64,
) -> Result<Answer, Failure> {
    let ChannelInvite {
        name, uses, role, ..
    } = invite;
    let uses = match uses.unwrap_or(Uses::Of(1)) {
        Uses::Any => None,
        Uses::Of(uses @ 1..=USES_MAX) => Some(uses),
        Uses::Of(_) => {
            return Err(usage(format!(
                "An invitation is for 1 to {USES_MAX} nodes, or for any number."
            )));
        }
    };
    check_role(role.as_deref())?;
    let id = administered(desk, &name).await?;
    let seed = random_secret()?;
    let invitation = invitation_name(&seed);
    let terms = Terms {
        seed: seed.clone(),
        uses,
        expires_unix_s,
        role: role.clone(),
    };
    let stored = issue(desk, id, invitation, terms).await?;
    Ok(Answer::ChannelInvitation(ChannelInvitation {
        ticket: ticket(desk, ChannelTicket::Invitation { seed }, expires_unix_s).await?,
        invitation: Some(invitation.to_string()),
        uses,
        expires_unix_s,
        role,
        stored,
    }))
}

/// Has the node make an invitation; tells whether it can be used already.
async fn issue(
    desk: &Desk,
    channel: ChannelId,
    invitation: NodeId,
    terms: Terms,
) -> Result<bool, Failure> {
    let mut events = desk.events();
    desk.vnet(vnet::Command::Invite { channel, terms }).await?;
    let look = move |node: &Node| {
        let issued = node.vnet().channel(channel).map(vnet::Channel::issued)?;
        let is_there = issued
            .iter()
            .any(|issued| issued.name() == Some(invitation));
        Some((is_there, issued.len()))
    };
    match desk.look(look).await?.ok_or_else(closed)? {
        (true, _) => {}
        (false, open) if open >= ISSUED_MAX => {
            return Err(no(format!(
                "This node has {ISSUED_MAX} open invitations to the channel; revoke one (`enishi \
                 channel invitations`, `enishi channel revoke`)."
            )));
        }
        (false, _) => return Err(no("There are too many roles in the channel.")),
    }
    let put = wait_for(&mut events, STORE_TIME_MAX, |event| match event {
        Event::Invited {
            invitation: name,
            stored,
            ..
        } if *name == invitation => Some(*stored),
        _ => None,
    });
    Ok(put.await.unwrap_or(false))
}

/// Refuses what cannot name a role.
pub(super) fn check_role(role: Option<&str>) -> Result<(), Failure> {
    match role.is_none_or(is_role) {
        true => Ok(()),
        false => Err(usage(
            "A role has 1 to 31 small letters, digits and `-`, for example `guest`.",
        )),
    }
}

/// Lists the open invitations that this node has made.
pub(super) async fn open_ones(desk: &Desk, name: &str) -> Result<Answer, Failure> {
    let asked = name.to_owned();
    let look = move |node: &Node| {
        let (_, channel) = node.vnet().by_name(&asked)?;
        let issued = channel.issued().iter();
        let open = issued.filter_map(|issued| open_one(channel, issued));
        Some((channel.is_governed(), open.collect()))
    };
    match desk.look(look).await?.ok_or_else(|| unknown(name))? {
        (true, invitations) => Ok(Answer::ChannelInvitations { invitations }),
        (false, _) => Err(not_governed(name, "its invitations are not kept")),
    }
}

fn open_one(channel: &vnet::Channel, issued: &Issued) -> Option<OpenInvitation> {
    let name = issued.name()?;
    let came = channel
        .members()
        .filter(|claim| channel.invitation_of(claim) == Some(name));
    let decisions = channel.charter()?.decisions();
    Some(OpenInvitation {
        invitation: name.to_string(),
        uses: issued.uses().and_then(|uses| u8::try_from(uses).ok()),
        expires_unix_s: issued.expires_unix_s(),
        role: decisions.role(&name, None).map(str::to_owned),
        members: came.map(|claim| claim.host.clone()).collect(),
    })
}

/// Gets what an invitation leads to.
pub(super) async fn fetch(desk: &Desk, seed: Secret) -> Result<ChannelSpec, Failure> {
    let deadline = Instant::now() + FETCH_TIME_MAX;
    let mut misses = 0;
    loop {
        let answer = desk.get(mailbox_key(&seed)).await?;
        if let GetAnswer::Records(records) = &answer {
            let spec = records
                .iter()
                .find_map(|r| open_mailbox(&seed, r, unix_s()));
            if let Some(spec) = spec {
                return in_time(spec);
            }
        }
        // Alone, a node knows of nothing; and those who have just met may not know either.
        let alone = desk.look(|node| node.overlay().is_alone()).await?;
        misses += u32::from(!alone && answer != GetAnswer::Failed);
        if misses >= MISSES_MAX || Instant::now() >= deadline {
            return Err(no(match alone || answer == GetAnswer::Failed {
                true => {
                    "Nobody of the overlay can be reached, so the invitation cannot be looked up. \
                     Check that one of the nodes that the invitation names runs, and what this \
                     network lets through (`enishi doctor net`); then try again."
                }
                false => {
                    "The overlay does not have the invitation any more: it was revoked, has ended, \
                     or whoever made it has left the channel. Ask for a new one (`enishi channel \
                     invite`)."
                }
            }));
        }
        tokio::time::sleep(FETCH_INTERVAL).await;
    }
}

fn in_time(spec: ChannelSpec) -> Result<ChannelSpec, Failure> {
    match &spec.entry {
        Entry::Invited(guest) if guest.invited.invitation.content().expires_unix_s <= unix_s() => {
            Err(no(
                "The invitation has expired; ask for a new one (`enishi channel invite`).",
            ))
        }
        _ => Ok(spec),
    }
}

/// Waits until it is known whether a limited invitation still serves; a channel that others
/// have joined by it instead is left again.
pub(super) async fn settle(desk: &Desk, Open { id, new }: Open) -> Result<(), Failure> {
    let deadline = Instant::now() + SETTLE_TIME_MAX;
    loop {
        let look = move |node: &Node| {
            let channel = node.vnet().channel(id)?;
            Some((channel.use_is_settled(), channel.is_used_up()))
        };
        match desk.look(look).await?.ok_or_else(closed)? {
            (_, true) => break,
            (true, false) => return Ok(()),
            // It goes on; should the invitation not serve, `status` tells.
            (false, false) if Instant::now() >= deadline => return Ok(()),
            (false, false) => tokio::time::sleep(SETTLE_INTERVAL).await,
        }
    }
    if new {
        desk.vnet(vnet::Command::Close(id)).await?;
    }
    Err(no(
        "The invitation was used by others already; ask for another one (`enishi channel invite`).",
    ))
}

async fn ticket(
    desk: &Desk,
    channel: ChannelTicket,
    expires_unix_s: u64,
) -> Result<String, Failure> {
    let ticket = Ticket {
        overlay: desk.shared.overlay,
        contacts: desk.look(contacts).await?,
        expires_unix_s,
        channel,
    };
    Ok(ticket.to_string())
}

/// This node and its nearest neighbours, in case that this one is away; of a client its
/// hosts.
pub(super) fn contacts(node: &Node) -> Vec<Contact> {
    let overlay = node.overlay();
    let near = overlay
        .near()
        .iter()
        .filter_map(|place| overlay.peer(place.id));
    let near = near.map(Peer::contact);
    // A client is no way into the ring; its hosts are.
    let me = (!overlay.is_client()).then_some(overlay.me());
    let hosts = overlay.peers().filter(|_| overlay.is_client());
    let contacts = me.into_iter().chain(near).chain(hosts.map(Peer::contact));
    let short = |contact: &Contact| {
        let addresses = contact.addresses().iter().copied();
        Contact::new(contact.id(), addresses.take(ADDRESSES_MAX))
    };
    contacts.take(CONTACTS_MAX).map(short).collect()
}
