//! `overlay invite`, `show` and `revoke`: the closed overlay that the node is in.

use std::path::PathBuf;

use enishi_api::{Answer, Failure, Gate, OverlayInvitation, OverlayInvite};
use enishi_overlay::admission::{
    Certificate, INVITATION_KEYS_MAX, RefusedError, Revocations, Standing, Subject,
};
use enishi_overlay::{Contact, Keypair, NodeId, OverlayId};
use enishi_services::Node;
use enishi_services::admission::{Membership, invitation_keys};
use enishi_services::keys::Secret;
use enishi_services::ticket::{Card, OverlayTicket, Pass, read_consent};

use super::desk::{Desk, no, usage};
use super::invitations::contacts;
use super::target::{self, Target};
use crate::closed::{self, ClosedError, MEMBER_VALID_S};
use crate::data_dir::DataDir;
use crate::store::unix_s;

/// How long before the own certificate ends a person is told, in seconds: 30 days.
const WARNING_S: u64 = 30 * 86_400;

/// The most nodes that an invitation names: it has more to carry than others.
const CONTACTS_MAX: usize = 2;

/// The longest that an invitation may be valid, in seconds: a year.
const VALID_S_MAX: u64 = 365 * 86_400;

const DAY_S: u64 = 86_400;

/// The node's membership in a closed overlay.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) card: Card,
    data: PathBuf,
    /// Where its state is kept meanwhile.
    pub(super) state: PathBuf,
}

impl Member {
    /// Reads it; none outside closed overlays.
    pub(super) fn load(data: &DataDir) -> Result<Option<Self>, ClosedError> {
        let Some(card) = closed::load(data.path())? else {
            return Ok(None);
        };
        let state = closed::state_dir(data.path(), &card.membership.overlay())?;
        let data = data.path().to_owned();
        Ok(Some(Self { card, data, state }))
    }

    fn authority(&self) -> Result<Keypair, Failure> {
        if self.card.membership.authority().is_none() {
            return Err(usage(
                "This overlay rests on a secret that all members share: nothing can be revoked. \
                 Make a new overlay and invite the others.",
            ));
        }
        let overlay = self.card.membership.overlay();
        let key = closed::authority(&self.data, &overlay).map_err(|error| sentence(&error))?;
        key.ok_or_else(|| {
            no(
                "This node does not have the key of the overlay's authority. Ask whoever made the \
                overlay.",
            )
        })
    }
}

pub(super) async fn invite(desk: &Desk, invite: &OverlayInvite) -> Result<Answer, Failure> {
    let member = member(desk)?;
    let days = u64::from(desk.shared.config.ticket_valid_days);
    let valid_s = invite.valid_s.unwrap_or(days * DAY_S);
    if !(1..=VALID_S_MAX).contains(&valid_s) {
        return Err(usage("An invitation is valid for at most a year."));
    }
    let expires_unix_s = unix_s() + valid_s;
    let pass = match &member.card.membership {
        Membership::Secret(_) if invite.uses.is_some() => {
            return Err(usage(
                "This overlay rests on a secret that all members share: whoever has it may join, \
                 any number of nodes. Leave out --uses.",
            ));
        }
        Membership::Secret(secret) => Pass::Secret {
            secret: secret.clone(),
            expires_unix_s,
        },
        Membership::Certified { .. } | Membership::Invited(_) => {
            keys(&member.authority()?, invite.uses, expires_unix_s)?
        }
    };
    let mut contacts: Vec<Contact> = desk.look(contacts).await?;
    contacts.truncate(CONTACTS_MAX);
    let ticket = OverlayTicket {
        name: member.card.name.clone(),
        contacts,
        pass,
    };
    Ok(Answer::OverlayInvitation(OverlayInvitation {
        ticket: ticket.to_string(),
        invitation: ticket.key().map(|key| key.to_string()),
        uses: invite.uses,
        expires_unix_s,
    }))
}

/// Makes the keys of an invitation and signs them.
fn keys(authority: &Keypair, uses: Option<u8>, expires_unix_s: u64) -> Result<Pass, Failure> {
    let count = uses.unwrap_or(1);
    if count == 0 || usize::from(count) > INVITATION_KEYS_MAX {
        return Err(usage(format!(
            "An invitation is for 1 to {INVITATION_KEYS_MAX} nodes, or for any number."
        )));
    }
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| no(format!("The system gives no random numbers: {error}.")))?;
    let seed = Secret::new(seed);
    let now = unix_s();
    let subject = Subject::Invitation {
        keys: invitation_keys(&seed, count)
            .iter()
            .map(Keypair::id)
            .collect(),
        single_use: uses.is_some(),
        members_until_unix_s: now + MEMBER_VALID_S,
    };
    let overlay = OverlayId::of_authority(&authority.id());
    let invitation = Certificate::sign(authority, overlay, subject, now..expires_unix_s);
    let invitation = Box::new(invitation);
    Ok(Pass::Keys { invitation, seed })
}

pub(super) async fn show(desk: &Desk) -> Result<Answer, Failure> {
    let member = member(desk)?;
    let (gate, standing) = desk.look(look(&member.card)).await?;
    let has_key = member.authority().is_ok();
    let mut overlay = closed::describe(&member.card, desk.sessions.me(), has_key, standing);
    overlay.gate = Some(gate);
    Ok(Answer::Overlay(overlay))
}

pub(super) async fn revoke(desk: &Desk, subject: &str) -> Result<Answer, Failure> {
    let authority = member(desk)?.authority()?;
    let key = match named(subject, desk.shared.overlay)? {
        Some(key) => key,
        None => target::node(desk, &Target::parse(subject)?).await?,
    };
    if key == desk.sessions.me() {
        return Err(usage(
            "This node cannot revoke itself; `enishi overlay leave` takes it out of the overlay.",
        ));
    }
    let before = desk.look(|node| node.gate().revocations().cloned()).await?;
    let list = Revocations::sign(&authority, desk.shared.overlay, before.as_ref(), key);
    let list = list.ok_or_else(|| {
        no("The list of revoked nodes is full; make a new overlay and invite the others.")
    })?;
    desk.revoke(list).await?;
    show(desk).await
}

/// Returns the name of an invitation or a consent of this overlay, by which it is revoked; none when
/// the text is neither.
fn named(subject: &str, own: OverlayId) -> Result<Option<NodeId>, Failure> {
    let (what, overlay, key) = match (subject.parse::<OverlayTicket>(), read_consent(subject)) {
        (Ok(ticket), _) => {
            let Pass::Keys { invitation, .. } = &ticket.pass else {
                return Err(usage(
                    "This invitation holds a secret that cannot be revoked.",
                ));
            };
            let key = ticket
                .key()
                .ok_or_else(|| usage("This invitation has no key that could be revoked."))?;
            ("invitation", invitation.content().overlay, key)
        }
        (Err(_), Ok(consent)) => ("consent", consent.overlay(), consent.name()),
        (Err(_), Err(_)) => return Ok(None),
    };
    // The list of this overlay says nothing in another.
    if overlay != own {
        return Err(no(format!(
            "This {what} is of the overlay {overlay}, and this node is in {own}: revoke it with a \
             node of the former that has the key of its authority."
        )));
    }
    Ok(Some(key))
}

type Looked = (Gate, Result<Option<Standing>, RefusedError>);

fn look(card: &Card) -> impl FnOnce(&Node) -> Looked + Send + 'static {
    let membership = card.membership.clone();
    move |node| {
        let (gate, list) = (node.gate(), node.gate().revocations());
        let counters = gate.counters();
        let told = Gate {
            admitted: gate.admitted() as u64,
            messages_turned_away: counters.messages_turned_away,
            proofs_refused: counters.proofs_refused,
            members_dropped: counters.members_dropped,
            revocations: list.map_or(0, Revocations::number),
            revoked: list.map_or_else(Vec::new, |list| {
                list.keys().iter().map(NodeId::to_string).collect()
            }),
        };
        (told, membership.standing(node.id(), unix_s(), list))
    }
}

/// What a person should know of the membership and maybe act on.
pub(super) async fn notice(desk: &Desk) -> Result<Option<String>, Failure> {
    let Some(member) = &desk.shared.closed else {
        return Ok(None);
    };
    let name = &member.card.name;
    let (_, standing) = desk.look(look(&member.card)).await?;
    let (used_up, alone) = desk
        .look(|node| (node.gate().is_used_up(), node.overlay().near().is_empty()))
        .await?;
    let remedy = "ask for a new invitation (`enishi overlay join`)";
    Ok(match standing {
        Ok(_) if used_up => Some(format!(
            "The invitation to the closed overlay {name} has been used by other nodes, so the \
             members do not speak with this one; {remedy}."
        )),
        Ok(Some(standing)) if standing.expires_unix_s < unix_s() + WARNING_S => {
            let days = standing.expires_unix_s.saturating_sub(unix_s()) / DAY_S;
            Some(format!(
                "The membership in the closed overlay {name} ends in {days} days; {remedy}."
            ))
        }
        // Whoever was removed is not told.
        Ok(_) if alone && !member.card.contacts.is_empty() => Some(format!(
            "No member of the closed overlay {name} speaks with this node. Either none can be \
             reached, or this node was removed: ask whoever made the overlay."
        )),
        Ok(_) => None,
        Err(error) => Some(format!(
            "The other members of the closed overlay {name} refuse this node's certificate: \
             {error}; {remedy}."
        )),
    })
}

fn member(desk: &Desk) -> Result<&Member, Failure> {
    desk.shared.closed.as_ref().ok_or_else(|| {
        no(
            "This node is in no closed overlay; `enishi overlay create NAME` makes one, `enishi \
            overlay join INVITATION` joins one.",
        )
    })
}

fn sentence(error: &ClosedError) -> Failure {
    let mut text = format!("{error}.");
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    no(text)
}

#[cfg(test)]
mod tests {
    use enishi_overlay::admission::consent::{Consent, Limits, Terms};
    use enishi_services::ticket::write_consent;

    use super::*;

    #[test]
    fn what_is_of_another_overlay_is_not_revoked() {
        let [own, other] = [1, 2].map(|seed| Keypair::from_seed(&[seed; 32]));
        let [own_id, other_id] = [&own, &other].map(|key| OverlayId::of_authority(&key.id()));
        let name = NodeId::from_bytes([9; 32]);
        let consent = |authority: &Keypair, with: OverlayId| {
            let terms = Terms {
                gateway: Keypair::from_seed(&[3; 32]).id(),
                other: with,
                channel: "office".to_owned(),
                lets_out: Vec::new(),
                lets_in: Vec::new(),
                takes: vec!["notice".to_owned()],
                gives: Vec::new(),
                limits: Limits::default(),
            };
            write_consent(&Consent::sign(authority, name, terms, 0..u64::MAX).unwrap())
        };
        let invitation = |authority: &Keypair| {
            let pass = keys(authority, None, u64::MAX).unwrap();
            OverlayTicket {
                name: "x".to_owned(),
                contacts: Vec::new(),
                pass,
            }
        };
        assert_eq!(named(&consent(&own, other_id), own_id), Ok(Some(name)));
        let refused = named(&consent(&other, own_id), own_id).unwrap_err();
        assert!(
            refused.message.contains(&other_id.to_string()),
            "{refused:?}"
        );
        let ticket = invitation(&own);
        assert_eq!(named(&ticket.to_string(), own_id), Ok(ticket.key()));
        assert!(named(&invitation(&other).to_string(), own_id).is_err());
        assert_eq!(named("aki", own_id), Ok(None));
    }
}
