//! What passes between a node that relays packets and the two ends for which it does: plain UDP, at
//! the ports of packets (numbers are big-endian).
//!
//! ```text
//!   0      1                               9
//!  +------+-------------------------------+---- - - - ----+
//!  | 0x20 |            token              |   datagram    |   data, in both directions
//!  +------+-------------------------------+---- - - - ----+
//!  0      1               9               17              25              41
//!  +------+---------------+---------------+---------------+---------------+
//!  | 0x21 |     token     |    counter    |    cookie     |      MAC      |  bind, from an end
//!  +------+---------------+---------------+---------------+---------------+
//!  | 0x22 |     ...                                                       |  prove, to the end
//!  | 0x23 |     ...                                                       |  bound, to the end
//!  +------+---------------------------------------------------------------+
//! ```
//!
//! The token names a pair of ends; each end has a key of its own. An end *binds*: it shows by the MAC
//! (HMAC-SHA-256, RFC 2104, its first 16 octets) that it is the end to which the key was given, so the
//! relay learns at which outer address it is, and follows when that changes. A bind whose counter is
//! not above the last one of its end is repeated, and not answered. The first answer brings a cookie that
//! follows from the address and is to be sent back (as in RFC 9147, section 5.1): so an end cannot have
//! data sent to an address at which it does not receive. Questions and answers have one length.
//!
//! The datagram is sealed from end to end ([`crate::sealed`]); the relay passes it on as it is, header
//! and all. First octets are told from others at the same port: those of STUN are below 4, those for the
//! host are [`crate::sealed::FOR_HOST`], and sealed ones begin with 0xc0 or more.

use std::fmt;

use aws_lc_rs::hmac;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The first octet, but for its four lowest bits.
const MARK: u8 = 0x20;
const KINDS: u8 = 0xf0;

/// Octets before a datagram that is relayed.
pub const HEADER_BYTES: usize = 9;
/// Octets of a bind, and of the answers to it.
pub const BIND_BYTES: usize = SIGNED_BYTES + MAC_BYTES;
const SIGNED_BYTES: usize = HEADER_BYTES + 16;
const MAC_BYTES: usize = 16;

/// Names a pair of ends at one relay; drawn, so that strangers do not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// The key of one end; forgotten when dropped, and never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct RelayKey([u8; 32]);

impl RelayKey {
    /// Takes over the octets of a key.
    pub const fn new(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    pub(crate) fn mac(&self) -> Mac {
        Mac(hmac::Key::new(hmac::HMAC_SHA256, &self.0))
    }
}

impl fmt::Debug for RelayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayKey(..)")
    }
}

/// A key, ready for use.
pub(crate) struct Mac(hmac::Key);

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Something for the other end.
    Data = 0,
    /// An end says that it is here.
    Bind = 1,
    /// The relay wants the cookie back first.
    Prove = 2,
    /// The relay knows now.
    Bound = 3,
}

/// What a bind says, or an answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Which pair.
    pub token: Token,
    /// Higher than in all binds of this end before; answers repeat it.
    pub counter: u64,
    /// What the relay's last answer had; 0 in the first bind.
    pub cookie: u64,
}

/// Tells by its first octet whether a datagram is one of these.
pub fn is_relayed(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & KINDS == MARK)
}

/// Returns what goes before a datagram that is to be relayed.
pub fn header(token: Token) -> [u8; HEADER_BYTES] {
    head(Kind::Data, token)
}

fn head(kind: Kind, token: Token) -> [u8; HEADER_BYTES] {
    let mut head = [MARK | kind as u8; HEADER_BYTES];
    head[1..].copy_from_slice(&token.0.to_be_bytes());
    head
}

/// Reads what a datagram is and to which pair it belongs; none when it is none of these: of another
/// protocol, of an unknown kind, of a wrong length, or data that is empty.
pub fn decode(datagram: &[u8]) -> Option<(Kind, Token)> {
    let (head, rest) = datagram.split_first_chunk::<HEADER_BYTES>()?;
    let kind = match head[0] ^ MARK {
        0 => Kind::Data,
        1 => Kind::Bind,
        2 => Kind::Prove,
        3 => Kind::Bound,
        _ => return None,
    };
    let fits = match kind {
        Kind::Data => !rest.is_empty(),
        Kind::Bind | Kind::Prove | Kind::Bound => datagram.len() == BIND_BYTES,
    };
    let token = u64::from_be_bytes(*head.last_chunk()?);
    fits.then_some((kind, Token(token)))
}

impl Bind {
    /// Writes a bind or an answer to one.
    pub fn encode(&self, kind: Kind, key: &RelayKey) -> [u8; BIND_BYTES] {
        self.sign(kind, &key.mac())
    }

    /// Reads a bind or an answer to one; none when it was not made with the key.
    pub fn decode(datagram: &[u8], key: &RelayKey) -> Option<Self> {
        Self::verify(datagram, &key.mac())
    }

    pub(crate) fn sign(&self, kind: Kind, key: &Mac) -> [u8; BIND_BYTES] {
        let mut octets = [0; BIND_BYTES];
        octets[..HEADER_BYTES].copy_from_slice(&head(kind, self.token));
        octets[9..17].copy_from_slice(&self.counter.to_be_bytes());
        octets[17..25].copy_from_slice(&self.cookie.to_be_bytes());
        let mac = hmac::sign(&key.0, &octets[..SIGNED_BYTES]);
        octets[SIGNED_BYTES..].copy_from_slice(&mac.as_ref()[..MAC_BYTES]);
        octets
    }

    pub(crate) fn verify(datagram: &[u8], key: &Mac) -> Option<Self> {
        let octets: &[u8; BIND_BYTES] = datagram.try_into().ok()?;
        let (signed, mac) = octets.split_at(SIGNED_BYTES);
        let expected = hmac::sign(&key.0, signed);
        let expected = &expected.as_ref()[..MAC_BYTES];
        aws_lc_rs::constant_time::verify_slices_are_equal(mac, expected).ok()?;
        let number = |at: usize| {
            let octets = signed.get(at..at + 8)?.try_into().ok()?;
            Some(u64::from_be_bytes(octets))
        };
        Some(Self {
            token: Token(number(1)?),
            counter: number(9)?,
            cookie: number(17)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealed::{FOR_HOST, INDEX_MARK};
    use proptest::prelude::*;

    const KEY: RelayKey = RelayKey::new([7; 32]);
    const BIND: Bind = Bind {
        token: Token(0x0102_0304_0506_0708),
        counter: 5,
        cookie: 9,
    };

    #[test]
    fn binds_come_back_and_changed_ones_are_refused() {
        for kind in [Kind::Bind, Kind::Prove, Kind::Bound] {
            let octets = BIND.encode(kind, &KEY);
            assert_eq!(decode(&octets), Some((kind, BIND.token)));
            assert_eq!(Bind::decode(&octets, &KEY), Some(BIND));
            assert_eq!(Bind::decode(&octets, &RelayKey::new([8; 32])), None);
            for at in 0..octets.len() {
                let mut changed = octets;
                changed[at] ^= 1;
                assert_eq!(Bind::decode(&changed, &KEY), None, "octet {at}");
                assert_eq!(decode(&octets[..at]), None);
            }
        }
        assert_eq!(format!("{KEY:?}"), "RelayKey(..)");
    }

    #[test]
    fn first_octets_are_told_apart() {
        let is_ours = |first: u8| is_relayed(&[first]);
        assert!((0..4).chain(FOR_HOST).all(|first| !is_ours(first)));
        assert!(((INDEX_MARK >> 24) as u8..=u8::MAX).all(|first| !is_ours(first)));
        let data = [&header(BIND.token)[..], &[1]].concat();
        assert!(is_relayed(&data) && !is_relayed(&[]));
        assert_eq!(decode(&data), Some((Kind::Data, BIND.token)));
        assert_eq!(decode(&data[..HEADER_BYTES]), None, "nothing in it");
    }

    proptest! {
        #[test]
        fn noise_never_panics(octets in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&octets);
            prop_assert_eq!(Bind::decode(&octets, &KEY), None);
        }
    }
}
