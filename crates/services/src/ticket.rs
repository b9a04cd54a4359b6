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
//! BLAKE3 hash of the content, so that a slip of the pen is told from a lie. Whoever
//! has an invitation to a channel has the channel's secret.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use enishi_overlay::{Contact, OverlayId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::vnet::Network;

const PREFIX: &str = "enishi";
const VERSION: &str = "1";
/// The longest invitation that is looked at, in characters.
const TEXT_MAX: usize = 4096;
/// The most contacts in an invitation: it has to fit into a QR code.
pub const CONTACTS_MAX: usize = 4;

/// An invitation to the overlay and, maybe, to a channel.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The overlay it is for.
    pub overlay: OverlayId,
    /// Whom to ask first.
    pub contacts: Vec<Contact>,
    /// After when it is no longer to be used, in seconds since 1970.
    pub expires_unix_s: u64,
    /// The channel it is for; none for the overlay alone.
    pub channel: Option<ChannelTicket>,
}

/// What an invitation tells of a channel.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelTicket {
    /// The channel's name.
    pub name: String,
    /// Its network.
    pub network: Network,
    /// Its secret.
    pub secret: [u8; 32],
}

impl Drop for ChannelTicket {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Ticket({:?}, {:?})",
            self.contacts,
            self.channel.as_ref().map(|c| &c.name)
        )
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
}

impl Ticket {
    /// Tells whether it is past its time, with an hour's grace for clocks that differ.
    pub fn has_expired(&self, now_unix_s: u64) -> bool {
        now_unix_s > self.expires_unix_s.saturating_add(3600)
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut octets = postcard::to_stdvec(self).map_err(|_| fmt::Error)?;
        octets.extend(checksum(&octets));
        let text = BASE32_NOPAD.encode(&octets).to_ascii_lowercase();
        octets.zeroize();
        write!(f, "{PREFIX}{VERSION}{text}")
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        let rest = text.strip_prefix(PREFIX).ok_or(TicketError::Foreign)?;
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
        match postcard::take_from_bytes::<Self>(content) {
            Ok((ticket, [])) if ticket.contacts.len() <= CONTACTS_MAX => Ok(ticket),
            _ => Err(TicketError::Damaged),
        }
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
            channel: Some(ChannelTicket {
                name: "office".into(),
                network: "10.77.0.0/16".parse().unwrap(),
                secret: [5; 32],
            }),
        }
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
