//! Invitations: one line of text that lets somebody in.
//!
//! ```text
//!   enishi1 <base32 without padding of>
//!  0                                  n        n+4
//! +----------------------------------+----------+
//! | postcard of the content          | checksum |
//! +----------------------------------+----------+
//! ```
//!
//! The figure after `enishi` is the version. The checksum is the first four octets of a
//! BLAKE3 hash of the content, so that a slip of the pen is told from a lie. Whoever has an
//! invitation to a channel of a secret has the secret; one to a governed channel is a key to
//! what the overlay keeps for those who are invited, and can be limited and taken back.
//!
//! Two relatives have the same form: an invitation to a closed overlay begins with
//! `enishioverlay1`, and what a node keeps of its membership with `enishimember1`. So has an
//! administrator's consent to a gateway, which is no secret: `enishiconsent1`.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use enishi_overlay::admission::{Certificate, Consent, RefusedError, Subject};
use enishi_overlay::{Contact, NodeId, OverlayId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::admission::{Invited, Membership};
use crate::keys::Secret;
use crate::vnet::Network;

const PREFIX: &str = "enishi";
const OVERLAY_PREFIX: &str = "enishioverlay";
const MEMBER_PREFIX: &str = "enishimember";
const CONSENT_PREFIX: &str = "enishiconsent";
const VERSION: &str = "1";
/// The longest invitation that is looked at, in characters.
const TEXT_MAX: usize = 4096;
/// The most contacts in an invitation: it has to fit into a QR code.
pub const CONTACTS_MAX: usize = 4;
/// The longest name of a closed overlay, in octets.
pub const OVERLAY_NAME_BYTES_MAX: usize = 63;

/// An invitation to the overlay and, maybe, to a channel.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The overlay it is for.
    pub overlay: OverlayId,
    /// Whom to ask first.
    pub contacts: Vec<Contact>,
    /// After when it is no longer to be used, in seconds since 1970.
    pub expires_unix_s: u64,
    /// What it tells of a channel.
    pub channel: ChannelTicket,
}

/// What an invitation tells of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChannelTicket {
    /// Nothing: it is for the overlay alone.
    None,
    /// The secret by which all members know each other.
    Secret {
        /// The channel's name.
        name: String,
        /// Its network.
        network: Network,
        /// Its secret.
        #[serde(with = "crate::recording::secret")]
        secret: Secret,
    },
    /// Where the overlay keeps all else about a governed channel, and what opens it
    /// ([`crate::vnet::invitation`]).
    Invitation {
        /// From what the place and its key follow.
        #[serde(with = "crate::recording::secret")]
        seed: Secret,
    },
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({:?}, {:?})", self.contacts, self.channel)
    }
}

/// Why a text is not an invitation that can be used here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It does not begin as invitations do.
    #[error("this is not an invitation: invitations are one line that begins with `enishi1`")]
    Foreign,
    /// It is of another version.
    #[error(
        "the invitation is of version {0}, this program knows version {VERSION}: update the older of the two programs"
    )]
    Version(String),
    /// Characters are wrong or missing.
    #[error("the invitation is damaged or cut off: copy the whole line again")]
    Damaged,
    /// It is to a closed overlay.
    #[error("this is an invitation to a closed overlay: use it with `enishi overlay join`")]
    ToOverlay,
    /// It is one, but not to a closed overlay.
    #[error("this is not an invitation to a closed overlay: these begin with `enishioverlay1`")]
    NotToOverlay,
    /// It is no consent to a gateway.
    #[error(
        "this is not a consent to a gateway: these are one line that begins with `enishiconsent1`"
    )]
    NoConsent,
}

/// Writes a consent to a gateway as one line.
pub fn write_consent(consent: &Consent) -> String {
    struct Line<'a>(&'a Consent);
    impl fmt::Display for Line<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write_line(f, CONSENT_PREFIX, self.0)
        }
    }
    Line(consent).to_string()
}

/// Reads a consent to a gateway. Whether it counts is another question ([`Consent::verify`]).
///
/// # Errors
/// [`TicketError`]; [`TicketError::Damaged`] also when its terms are out of their limits.
pub fn read_consent(text: &str) -> Result<Consent, TicketError> {
    let consent: Consent = read_line(text, CONSENT_PREFIX).map_err(|error| match error {
        TicketError::Foreign => TicketError::NoConsent,
        error => error,
    })?;
    let fits = consent.terms().check().is_ok();
    fits.then_some(consent).ok_or(TicketError::Damaged)
}

/// An invitation to a closed overlay. Whoever has it can use it; a member takes it up with
/// [`Card::take_up`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayTicket {
    /// How the overlay is called, for people.
    pub name: String,
    /// Whom to ask first.
    pub contacts: Vec<Contact>,
    /// What lets the bearer in.
    pub pass: Pass,
}

/// What lets the bearer of an invitation into a closed overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pass {
    /// The secret of the simple form.
    Secret {
        /// The secret.
        #[serde(with = "crate::recording::secret")]
        secret: Secret,
        /// After when the invitation is no longer to be used, in seconds since 1970.
        expires_unix_s: u64,
    },
    /// Keys that the authority has signed.
    Keys {
        /// The authority's word for them.
        invitation: Box<Certificate>,
        /// From what they follow.
        #[serde(with = "crate::recording::secret")]
        seed: Secret,
    },
}

/// What a node keeps of its membership in a closed overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// How the overlay is called, for people.
    pub name: String,
    /// Whom to ask first.
    pub contacts: Vec<Contact>,
    /// The membership.
    pub membership: Membership,
}

impl Ticket {
    /// Tells whether it is past its time, with an hour's grace for clocks that differ.
    pub fn has_expired(&self, now_unix_s: u64) -> bool {
        now_unix_s > self.expires_unix_s.saturating_add(3600)
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_line(f, PREFIX, self)
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let ticket: Self = read_line(text, PREFIX).map_err(|error| {
            match error == TicketError::Foreign && plain(text).starts_with(OVERLAY_PREFIX) {
                true => TicketError::ToOverlay,
                false => error,
            }
        })?;
        are_few(&ticket.contacts)
            .then_some(ticket)
            .ok_or(TicketError::Damaged)
    }
}

impl fmt::Display for OverlayTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_line(f, OVERLAY_PREFIX, self)
    }
}

impl FromStr for OverlayTicket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let ticket: Self = read_line(text, OVERLAY_PREFIX).map_err(|error| match error {
            TicketError::Foreign => TicketError::NotToOverlay,
            error => error,
        })?;
        let fits = are_few(&ticket.contacts) && is_overlay_name(&ticket.name);
        fits.then_some(ticket).ok_or(TicketError::Damaged)
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_line(f, MEMBER_PREFIX, self)
    }
}

impl FromStr for Card {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let card: Self = read_line(text, MEMBER_PREFIX)?;
        let fits = are_few(&card.contacts) && is_overlay_name(&card.name);
        fits.then_some(card).ok_or(TicketError::Damaged)
    }
}

impl OverlayTicket {
    /// Returns after when it is no longer to be used, in seconds since 1970.
    pub fn expires_unix_s(&self) -> u64 {
        match &self.pass {
            Pass::Secret { expires_unix_s, .. } => *expires_unix_s,
            Pass::Keys { invitation, .. } => invitation.content().expires_unix_s,
        }
    }

    /// Returns the name by which it can be revoked: its first key. None for the simple
    /// form.
    pub fn key(&self) -> Option<NodeId> {
        match &self.pass {
            Pass::Secret { .. } => None,
            Pass::Keys { invitation, .. } => match &invitation.content().subject {
                Subject::Invitation { keys, .. } => keys.first().copied(),
                Subject::Member(_) => None,
            },
        }
    }
}

impl Card {
    /// Makes the node `me` a member by an invitation.
    ///
    /// # Errors
    /// [`RefusedError`] when the invitation is past its time, or the other members would
    /// refuse the certificate that comes of it.
    pub fn take_up(ticket: OverlayTicket, me: NodeId, unix_s: u64) -> Result<Self, RefusedError> {
        if ticket.expires_unix_s() < unix_s {
            return Err(RefusedError::Expired);
        }
        let membership = match ticket.pass {
            Pass::Secret { secret, .. } => Membership::Secret(secret),
            Pass::Keys { invitation, seed } => Membership::Invited(Invited {
                authority: invitation.content().issuer,
                invitation: *invitation,
                seed,
                joined_unix_s: unix_s,
            }),
        };
        membership.standing(me, unix_s, None)?;
        Ok(Self {
            name: ticket.name,
            contacts: ticket.contacts,
            membership,
        })
    }
}

/// Tells whether a closed overlay may be called so: 1 to [`OVERLAY_NAME_BYTES_MAX`] letters,
/// digits, `-` and `_`.
pub fn is_overlay_name(name: &str) -> bool {
    let fits = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    (1..=OVERLAY_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits)
}

fn are_few(contacts: &[Contact]) -> bool {
    contacts.len() <= CONTACTS_MAX
}

fn write_line(f: &mut fmt::Formatter<'_>, prefix: &str, content: &impl Serialize) -> fmt::Result {
    let mut octets = postcard::to_stdvec(content).map_err(|_| fmt::Error)?;
    octets.extend(checksum(&octets));
    let mut text = BASE32_NOPAD.encode(&octets);
    text.make_ascii_lowercase();
    octets.zeroize();
    let written = write!(f, "{prefix}{VERSION}{text}");
    text.zeroize();
    written
}

/// Returns an invitation as it was written: mail programs wrap lines, and codes that are scanned
/// may be in capitals. At most [`TEXT_MAX`] characters and one.
fn plain(text: &str) -> Zeroizing<String> {
    let written = text.chars().filter(|c| !c.is_whitespace());
    let written = written.map(|c| c.to_ascii_lowercase());
    // All at once, lest parts of a secret stay behind.
    let mut line = Zeroizing::new(String::with_capacity(text.len()));
    line.extend(written.take(TEXT_MAX + 1));
    line
}

fn read_line<T: DeserializeOwned>(text: &str, prefix: &str) -> Result<T, TicketError> {
    let text = plain(text);
    let rest = text.strip_prefix(prefix).ok_or(TicketError::Foreign)?;
    let Some(body) = rest.strip_prefix(VERSION) else {
        let version: String = rest
            .chars()
            .take_while(char::is_ascii_digit)
            .take(4)
            .collect();
        let foreign = version.is_empty();
        return Err(if foreign {
            TicketError::Foreign
        } else {
            TicketError::Version(version)
        });
    };
    if text.len() > TEXT_MAX {
        return Err(TicketError::Damaged);
    }
    let octets = BASE32_NOPAD
        .decode(body.to_ascii_uppercase().as_bytes())
        .map_err(|_| TicketError::Damaged)?;
    let (content, sum) = octets.split_last_chunk::<4>().ok_or(TicketError::Damaged)?;
    if *sum != checksum(content) {
        return Err(TicketError::Damaged);
    }
    match postcard::take_from_bytes::<T>(content) {
        Ok((content, [])) => Ok(content),
        _ => Err(TicketError::Damaged),
    }
}

fn checksum(octets: &[u8]) -> [u8; 4] {
    let hash = blake3::derive_key("enishi 1 ticket checksum", octets);
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use enishi_overlay::Keypair;
    use proptest::prelude::*;

    fn ticket() -> Ticket {
        let contact = Contact::new(
            Keypair::from_seed(&[1; 32]).id(),
            [
                "192.0.2.7:7000".parse().unwrap(),
                "[2001:db8::1]:7000".parse().unwrap(),
            ],
        );
        Ticket {
            overlay: OverlayId::from_name("open"),
            contacts: vec![contact],
            expires_unix_s: 2_000_000_000,
            channel: ChannelTicket::Secret {
                name: "office".into(),
                network: "10.77.0.0/16".parse().unwrap(),
                secret: Secret::new([5; 32]),
            },
        }
    }

    #[test]
    fn an_invitation_to_a_governed_channel_is_short() {
        let mut ticket = ticket();
        ticket.channel = ChannelTicket::Invitation {
            seed: Secret::new([6; 32]),
        };
        let text = ticket.to_string();
        assert!(text.len() < 260, "{}", text.len());
        assert_eq!(text.parse(), Ok(ticket.clone()));
        assert!(!format!("{ticket:?}").contains("6, 6"));
    }

    #[test]
    fn an_invitation_is_one_line_and_round_trips() {
        let text = ticket().to_string();
        assert!(text.starts_with("enishi1") && !text.contains(char::is_whitespace));
        assert!(
            text.len() < 400,
            "{} characters do not fit a QR code well",
            text.len()
        );
        assert_eq!(text.parse(), Ok(ticket()));
        assert_eq!(format!("  {text}\n").parse(), Ok(ticket()));
        let wrapped = format!("{}\r\n  {}", &text[..76], text[76..].to_uppercase());
        assert_eq!(wrapped.parse(), Ok(ticket()));
    }

    #[test]
    fn bad_invitations_are_told_apart() {
        let text = ticket().to_string();
        assert_eq!("hello".parse::<Ticket>(), Err(TicketError::Foreign));
        assert_eq!("enishi".parse::<Ticket>(), Err(TicketError::Foreign));
        let newer = text.replacen("enishi1", "enishi2", 1);
        assert_eq!(
            newer.parse::<Ticket>(),
            Err(TicketError::Version("2".into()))
        );
        assert_eq!(
            text[..text.len() - 9].parse::<Ticket>(),
            Err(TicketError::Damaged)
        );
        assert!(ticket().has_expired(2_000_003_601));
        assert!(!ticket().has_expired(2_000_000_001));
    }

    #[test]
    fn the_largest_consent_is_one_line_that_is_read() {
        use enishi_overlay::admission::consent::{
            DOCUMENT_BYTES_MAX, DOCUMENTS_MAX, LetIn, LetOut, Limits, SERVICE_BYTES_MAX,
            SERVICES_MAX, Terms, USERS_MAX,
        };
        let key = |seed| Keypair::from_seed(&[seed; 32]);
        let name = |at: usize| format!("{at:0>SERVICE_BYTES_MAX$}");
        let numbers = 0..SERVICES_MAX;
        let terms = Terms {
            gateway: key(2).id(),
            channel: "c".repeat(63),
            other: OverlayId::of_authority(&key(3).id()),
            lets_out: (numbers.clone())
                .map(|at| LetOut {
                    service: name(at),
                    port: u16::MAX - at as u16,
                    users: vec![key(4).id(); USERS_MAX / SERVICES_MAX],
                })
                .collect(),
            lets_in: numbers
                .map(|at| LetIn {
                    service: name(at),
                    member: key(5).id(),
                    port: u16::MAX,
                })
                .collect(),
            takes: vec!["t".repeat(DOCUMENT_BYTES_MAX); DOCUMENTS_MAX],
            gives: vec!["g".repeat(DOCUMENT_BYTES_MAX); DOCUMENTS_MAX],
            limits: Limits {
                flows: u16::MAX,
                octets_per_s: u64::MAX,
                idle_s: u32::MAX,
            },
        };
        let consent = Consent::sign(&key(1), key(6).id(), terms, u64::MAX - 1..u64::MAX).unwrap();
        let text = write_consent(&consent);
        assert!(text.len() <= TEXT_MAX, "{}", text.len());
        assert_eq!(read_consent(&text), Ok(consent));
        assert_eq!(read_consent("enishi1aa"), Err(TicketError::NoConsent));
        assert_eq!(read_consent(&text[..99]), Err(TicketError::Damaged));
    }

    fn overlay_ticket(keys: u8) -> OverlayTicket {
        let authority = Keypair::from_seed(&[3; 32]);
        let seed = Secret::new([4; 32]);
        let subject = Subject::Invitation {
            keys: crate::admission::invitation_keys(&seed, keys)
                .iter()
                .map(Keypair::id)
                .collect(),
            single_use: true,
            members_until_unix_s: 2_030_000_000,
        };
        let overlay = OverlayId::of_authority(&authority.id());
        let valid = 1_990_000_000..2_000_000_000;
        OverlayTicket {
            name: "office".into(),
            contacts: ticket().contacts,
            pass: Pass::Keys {
                invitation: Box::new(Certificate::sign(&authority, overlay, subject, valid)),
                seed,
            },
        }
    }

    #[test]
    fn an_invitation_to_a_closed_overlay_is_taken_up_once_and_in_time() {
        let text = overlay_ticket(1).to_string();
        let length = overlay_ticket(16).to_string().len();
        assert!(text.len() < 600 && length < 1600, "{} {length}", text.len());
        let ticket: OverlayTicket = text.parse().unwrap();
        assert_eq!(ticket.key(), overlay_ticket(1).key());
        let me = Keypair::from_seed(&[9; 32]).id();
        let card = Card::take_up(ticket.clone(), me, 1_995_000_000).unwrap();
        let standing = card.membership.standing(me, 1_995_000_000, None);
        assert_eq!(standing.unwrap().unwrap().expires_unix_s, 2_030_000_000);
        assert_eq!(card.to_string().parse::<Card>().ok(), Some(card));
        let late = Card::take_up(ticket, me, 2_000_000_001).err();
        assert_eq!(late, Some(RefusedError::Expired));
    }

    #[test]
    fn the_kinds_of_invitation_are_told_apart() {
        let to_overlay = overlay_ticket(1).to_string();
        assert_eq!(to_overlay.parse::<Ticket>(), Err(TicketError::ToOverlay));
        let plain = ticket().to_string().parse::<OverlayTicket>().err();
        assert_eq!(plain, Some(TicketError::NotToOverlay));
        let newer = to_overlay.replacen("overlay1", "overlay7", 1);
        let newer = newer.parse::<OverlayTicket>().err();
        assert_eq!(newer, Some(TicketError::Version("7".into())));
        let card = Card::take_up(
            overlay_ticket(1),
            NodeId::from_bytes([1; 32]),
            1_995_000_000,
        );
        let card = card.unwrap().to_string();
        assert_eq!(card.parse::<Ticket>(), Err(TicketError::Foreign));
    }

    proptest! {
        #[test]
        fn one_wrong_character_is_noticed(index in 7..200_usize, letter in "[a-z2-7]") {
            let mut text = ticket().to_string();
            let index = 7 + index % (text.len() - 7);
            let changed = text[index..=index] != letter;
            text.replace_range(index..=index, &letter);
            prop_assert_eq!(text.parse::<Ticket>().is_err(), changed);
        }
    }
}
