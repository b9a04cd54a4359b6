//! Invitations to a governed channel.
//!
//! An invitation is a seed of 32 octets. From it follow its keys, which an administrator has
//! signed, and a *mailbox*: a leased record in the DHT that only who has the seed can find and
//! open. There lies what a newcomer needs: the channel's name and network, the signed invitation,
//! and the secret of the present epoch. So an invitation is short, works while the inviter is
//! away, and ends when the inviter takes the mailbox away. The mark of that stays as long as the
//! mail would have: a holder that was away meanwhile cannot bring it back.
//!
//! Each key of a limited invitation lets in one node (`uses.rs`).

use enishi_overlay::admission::{Certificate, INVITATION_KEYS_MAX, Subject};
use enishi_overlay::{Keypair, NodeId, OverlayId};
use serde::{Deserialize, Serialize};

use super::charter::{Charter, Decisions, Role};
use super::government::{Entry, Guest, MEMBER_S, invitation};
use super::{Alarm, Channel, ChannelId, ChannelSpec, Cx, Event, Network, Purpose, Vnet};
use crate::admission::{Invited, invitation_keys};
use crate::calls::{PutAnswer, PutRequest};
use crate::keys::{Secret, derive, derive_keypair, seal, unseal};
use crate::record::{Key, Kind, LEASE_S, Record};

/// The most open invitations of one node to one channel.
pub const ISSUED_MAX: usize = 64;
/// The most uses that can be counted.
pub const USES_MAX: u8 = INVITATION_KEYS_MAX as u8;

/// An invitation that this node has made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Issued {
    #[serde(with = "crate::recording::secret")]
    seed: Secret,
    certificate: Certificate,
}

/// What lies in a mailbox.
#[derive(Serialize, Deserialize)]
struct Mail {
    name: String,
    network: Network,
    #[serde(with = "crate::recording::secret")]
    secret: Secret,
    epoch: u64,
    authority: NodeId,
    invitation: Certificate,
}

/// How an invitation is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Terms {
    /// Fresh random octets.
    #[serde(with = "crate::recording::secret")]
    pub seed: Secret,
    /// How many nodes it lets in, 1 to [`USES_MAX`]; none for any number.
    pub uses: Option<u8>,
    /// When it ends, in seconds since 1970.
    pub expires_unix_s: u64,
    /// The role of those who come by it.
    pub role: Option<String>,
}

/// The keys of a mailbox.
struct Mailbox {
    writer: Keypair,
    seal: Secret,
}

impl Mailbox {
    fn new(seed: &Secret) -> Self {
        Self {
            writer: derive_keypair("enishi 1 invitation mailbox", &**seed, &[]),
            seal: derive("enishi 1 invitation mailbox seal", &**seed, &[]),
        }
    }

    fn key(&self) -> Key {
        Key::new(Kind::Lease, &self.writer.id())
    }

    fn owner(&self, node: &Keypair) -> Keypair {
        let about = self.writer.id();
        derive_keypair(
            "enishi 1 invitation mailbox owner",
            &*node.seed(),
            &[about.as_bytes()],
        )
    }
}

/// Returns where the mailbox of an invitation is.
pub fn mailbox_key(seed: &Secret) -> Key {
    Mailbox::new(seed).key()
}

/// Reads what lies in a mailbox, for a node that comes now; none when it was not put there by
/// who knows the seed.
pub fn open_mailbox(seed: &Secret, record: &Record, unix_s: u64) -> Option<ChannelSpec> {
    let mailbox = Mailbox::new(seed);
    let content = record.content();
    let sealed = (!content.removed).then_some(&content.value)?;
    let octets = unseal(&mailbox.seal, mailbox.writer.id().as_bytes(), sealed)?;
    let mail: Mail = postcard::from_bytes(&octets).ok()?;
    let issuer = mail.invitation.content().issuer;
    let known = mail.invitation.content().overlay == OverlayId::of_authority(&mail.authority);
    let guest = Guest {
        authority: mail.authority,
        epoch: mail.epoch,
        invited: Invited {
            authority: issuer,
            invitation: mail.invitation,
            seed: seed.clone(),
            joined_unix_s: unix_s,
        },
    };
    let fits = known && guest.invited.invitation.is_bounded() && !guest.invited.keys().is_empty();
    fits.then_some(ChannelSpec {
        name: mail.name,
        network: mail.network,
        secret: mail.secret,
        entry: Entry::Invited(Box::new(guest)),
    })
}

impl Issued {
    /// Returns the invitation's name: its first key.
    pub fn name(&self) -> Option<NodeId> {
        match &self.certificate.content().subject {
            Subject::Invitation { keys, .. } => keys.first().copied(),
            Subject::Member(_) => None,
        }
    }

    /// Returns how many nodes it lets in; none for any number.
    pub fn uses(&self) -> Option<usize> {
        match &self.certificate.content().subject {
            Subject::Invitation {
                keys,
                single_use: true,
                ..
            } => Some(keys.len()),
            Subject::Invitation { .. } | Subject::Member(_) => None,
        }
    }

    /// Returns when it ends, in seconds since 1970.
    pub fn expires_unix_s(&self) -> u64 {
        self.certificate.content().expires_unix_s
    }

    /// How long the mail lies there, or the mark that it was taken away: as long as the
    /// invitation may be used.
    fn lease_s(&self, unix_s: u64) -> u32 {
        let left = self.expires_unix_s().saturating_sub(unix_s);
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        left.clamp(*LEASE_S.start(), *LEASE_S.end())
    }
}

impl Vnet {
    /// Makes an invitation; [`Event::Invited`] follows. Nothing happens when this node may not,
    /// has made too many, or there is no room for the role: who came by it would have none.
    pub(super) fn invite(&mut self, id: ChannelId, terms: Terms, cx: &mut Cx<'_>) {
        let me = cx.me();
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let Some(government) = channel.government.as_mut().filter(|g| g.is_admin(&me)) else {
            return;
        };
        let decisions = government.charter.as_ref().map(Charter::decisions);
        let has_room = decisions.is_some_and(|decisions| decisions.has_room_for(&terms.role));
        if government.issued.len() >= ISSUED_MAX || !has_room {
            return;
        }
        let keys = invitation_keys(&terms.seed, terms.uses.unwrap_or(1).clamp(1, USES_MAX));
        let now_s = cx.unix_s();
        let subject = Subject::Invitation {
            keys: keys.iter().map(Keypair::id).collect(),
            single_use: terms.uses.is_some(),
            members_until_unix_s: now_s + MEMBER_S,
        };
        let overlay = OverlayId::of_authority(&government.authority);
        let valid = now_s..terms.expires_unix_s;
        let certificate = Certificate::sign(cx.keypair(), overlay, subject, valid);
        let issued = Issued {
            seed: terms.seed,
            certificate,
        };
        let name = issued.name();
        government.issued.push(issued);
        self.put_mail(id, issued_len(self.channels.get(&id)) - 1, cx);
        if let (Some(of), Some(name)) = (name, terms.role) {
            self.decide(id, |decisions| decisions.roles.push(Role { of, name }), cx);
        }
        self.keep(id, cx);
        self.await_expiry(id, cx);
    }

    /// Puts the mail of all open invitations anew: the epoch is another.
    pub(super) fn put_all_mail(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        for index in 0..issued_len(self.channels.get(&id)) {
            self.put_mail(id, index, cx);
        }
    }

    fn put_mail(&mut self, id: ChannelId, index: usize, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let Some((request, name)) = mail(channel, index, cx) else {
            return;
        };
        let token = self.token(Purpose::Mail(id, name));
        cx.put(token, request);
    }

    /// The mailbox is there, or cannot be had.
    pub(super) fn mail_put(
        &mut self,
        channel: ChannelId,
        invitation: NodeId,
        answer: PutAnswer,
        cx: &mut Cx<'_>,
    ) {
        let stored = matches!(answer, PutAnswer::Stored { .. });
        cx.emit(Event::Invited {
            channel,
            invitation,
            stored,
        });
    }

    /// Ends an invitation: its mailbox goes, those who came by it and are known stay, and the
    /// channel gets a new secret, for the old one may have been read there.
    /// [`Event::Withdrawn`] follows if this node has made it.
    pub(super) fn revoke(&mut self, id: ChannelId, name: NodeId, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let came = |claim: &&super::Claim| invitation(claim.credential.as_deref()) == Some(name);
        let members = channel.members.values().filter(came);
        let kept: Vec<NodeId> = members.map(|claim| claim.contact.id()).collect();
        let revoke = move |decisions: &mut Decisions| {
            decisions
                .roles
                .retain(|role| role.of != name || !kept.is_empty());
            decisions.revoke(name, kept);
        };
        self.decide_in_new_epoch(id, revoke, cx);
    }

    /// Takes the mail of invitations away that do not count any more, whoever revoked them, and
    /// of those for one node that was removed since: who has an invitation can read there, and
    /// must not find the next secret.
    pub(super) fn take_dead_mail_away(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let channel = self.channels.get(&id);
        let Some((channel, charter)) = channel.and_then(|c| Some((c, c.charter()?))) else {
            return;
        };
        let decisions = charter.decisions();
        let is_removed = |claim: &&super::Claim| decisions.removed.contains(&claim.contact.id());
        let removed = channel.members.values().filter(is_removed);
        let spent = removed.filter_map(|claim| invitation(claim.credential.as_deref()));
        let spent: Vec<NodeId> = spent.collect();
        let revoked = decisions.revoked.iter().map(|revoked| revoked.invitation);
        let revoked: Vec<NodeId> = revoked.collect();
        let is_dead = |issued: &Issued| {
            let is_among = |names: &[NodeId]| issued.name().is_some_and(|n| names.contains(&n));
            is_among(&revoked) || (issued.uses() == Some(1) && is_among(&spent))
        };
        self.take_mail_away(id, is_dead, cx);
    }

    fn take_mail_away(&mut self, id: ChannelId, which: impl Fn(&Issued) -> bool, cx: &mut Cx<'_>) {
        let channel = self.channels.get_mut(&id);
        let Some(government) = channel.and_then(|channel| channel.government.as_mut()) else {
            return;
        };
        let gone: Vec<Issued> = government
            .issued
            .extract_if(.., |issued| which(issued))
            .collect();
        if gone.is_empty() {
            return;
        }
        for issued in gone {
            let Some(name) = issued.name() else {
                continue;
            };
            let mailbox = Mailbox::new(&issued.seed);
            let lease_s = issued.lease_s(cx.unix_s());
            let token = self.token(Purpose::Withdrawal(id, name));
            cx.put(token, request(&mailbox, cx.keypair(), lease_s, None));
        }
        self.keep(id, cx);
    }

    /// The mailbox is gone, or too few of its holders could be told.
    pub(super) fn mail_withdrawn(
        &mut self,
        channel: ChannelId,
        invitation: NodeId,
        answer: PutAnswer,
        cx: &mut Cx<'_>,
    ) {
        let gone = matches!(answer, PutAnswer::Stored { .. });
        cx.emit(Event::Withdrawn {
            channel,
            invitation,
            gone,
        });
    }

    /// Takes all mail of a channel away that this node leaves.
    pub(super) fn take_all_mail_away(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        self.take_mail_away(id, |_| true, cx);
    }

    /// Takes away the mail of invitations that have ended.
    pub(super) fn expire_invitations(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let now_s = cx.unix_s();
        self.take_mail_away(id, |issued| issued.expires_unix_s() <= now_s, cx);
        self.await_expiry(id, cx);
    }

    pub(super) fn await_expiry(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let channel = self.channels.get(&id);
        let issued = channel.and_then(|channel| channel.government.as_ref());
        let next = issued.and_then(|g| g.issued.iter().map(Issued::expires_unix_s).min());
        if let Some(next) = next {
            let wait = next
                .saturating_sub(cx.unix_s())
                .clamp(1, u64::from(*LEASE_S.end()));
            let at = cx.now() + std::time::Duration::from_secs(wait);
            self.deadlines.set(Alarm::Invitations(id), at);
        }
    }
}

fn issued_len(channel: Option<&Channel>) -> usize {
    let government = channel.and_then(|channel| channel.government.as_ref());
    government.map_or(0, |government| government.issued.len())
}

/// Makes the request that puts an invitation's mail.
fn mail(channel: &Channel, index: usize, cx: &mut Cx<'_>) -> Option<(PutRequest, NodeId)> {
    let government = channel.government.as_ref()?;
    let issued = government.issued.get(index)?;
    let mail = Mail {
        name: channel.name().to_owned(),
        network: channel.network(),
        secret: channel.secret().clone(),
        epoch: government.charter.as_ref()?.decisions().epoch,
        authority: government.authority,
        invitation: issued.certificate.clone(),
    };
    let mailbox = Mailbox::new(&issued.seed);
    let octets = zeroize::Zeroizing::new(postcard::to_stdvec(&mail).ok()?);
    let about = mailbox.writer.id();
    let value = seal(cx.rng(), &mailbox.seal, about.as_bytes(), &octets);
    let lease_s = issued.lease_s(cx.unix_s());
    let request = request(&mailbox, cx.keypair(), lease_s, Some(value));
    Some((request, issued.name()?))
}

fn request(mailbox: &Mailbox, node: &Keypair, lease_s: u32, value: Option<Vec<u8>>) -> PutRequest {
    PutRequest {
        kind: Kind::Lease,
        writer: mailbox.writer.clone(),
        owner: mailbox.owner(node),
        lease_s,
        value: value.map(Into::into),
    }
}
