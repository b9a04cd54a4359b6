//! Sealed datagrams: what two members of a network send each other.
//!
//! Every datagram is sealed by itself, with a key of one direction of one session (numbers
//! are big-endian):
//!
//! ```text
//!   0               4                               12
//!  +---------------+-------------------------------+---- - - - ----+------+------ - - -+
//!  |     index     |            counter            |    content    | kind |     tag     |
//!  +---------------+-------------------------------+---- - - - ----+------+------ - - -+
//!                                                  |<------- sealed ----->|     16
//! ```
//!
//! The receiver chose the index; its two highest bits are set, by which these datagrams are
//! told from those of STUN (RFC 7983, section 7) on the same socket. The counter is the
//! nonce of the AEAD, filled up with zeros at the front, and never used twice with a key:
//! the sender counts up, the receiver takes each number once ([`ReplayWindow`]). A datagram
//! whose seal is broken changes nothing and is answered by nothing.

use aws_lc_rs::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::replay::ReplayWindow;

/// Octets before the content.
pub const HEADER_BYTES: usize = 12;
/// Octets of the tag.
const TAG_BYTES: usize = 16;
/// Octets after the content: kind and tag.
pub const TRAILER_BYTES: usize = 1 + TAG_BYTES;
/// By how much a datagram is longer than its content.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TRAILER_BYTES;
/// Octets of a key.
pub const KEY_BYTES: usize = 32;

/// The bits that every index has set.
pub const INDEX_MARK: u32 = 0xc000_0000;

/// The first octets of datagrams that are no packets, and for the host: it hears of them by
/// [`crate::engine::Outside::foreign`].
pub const FOR_HOST: std::ops::RangeInclusive<u8> = 0x30..=0x3f;

/// After so many datagrams a key should give way to another: well within what is safe for
/// AES-GCM with random-looking nonces of datagrams this short (NIST SP 800-38D, appendix B).
pub const DATAGRAMS_WANTED: u64 = 1 << 31;
/// After so many nothing is sealed with a key any more.
pub const DATAGRAMS_MAX: u64 = 1 << 32;

/// What the content of a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// An IP packet.
    Packet = 0,
    /// An IP packet whose TCP or UDP checksum covers the pseudo-header alone.
    PartialPacket = 1,
    /// A question whether datagrams pass here.
    Probe = 2,
    /// The answer.
    ProbeAnswer = 3,
    /// The number of a packet in two octets, and its first half.
    FirstHalf = 4,
    /// The same number, and the second half.
    SecondHalf = 5,
    /// What one host says to the other.
    Message = 6,
}

impl Kind {
    const fn from_octet(octet: u8) -> Option<Self> {
        Some(match octet {
            0 => Self::Packet,
            1 => Self::PartialPacket,
            2 => Self::Probe,
            3 => Self::ProbeAnswer,
            4 => Self::FirstHalf,
            5 => Self::SecondHalf,
            6 => Self::Message,
            _ => return None,
        })
    }

    /// Tells whether keys are in use by which this is sealed; halves come in pairs.
    pub(crate) const fn is_use(self) -> bool {
        match self {
            Self::Packet | Self::PartialPacket | Self::FirstHalf | Self::Message => true,
            Self::Probe | Self::ProbeAnswer | Self::SecondHalf => false,
        }
    }
}

/// Which AEAD seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// AES-256-GCM (NIST SP 800-38D), where both ends have AES in hardware.
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20Poly1305,
}

impl Cipher {
    /// Returns the faster one on this machine.
    pub fn preferred() -> Self {
        if has_aes() {
            Self::Aes256Gcm
        } else {
            Self::ChaCha20Poly1305
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Aes256Gcm => &AES_256_GCM,
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

/// A key of one direction; forgotten when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct DirectionKey([u8; KEY_BYTES]);

impl DirectionKey {
    /// Takes over the octets of a key.
    pub const fn new(octets: [u8; KEY_BYTES]) -> Self {
        Self(octets)
    }

    fn key(&self, cipher: Cipher) -> LessSafeKey {
        // The only error is a wrong length.
        let unbound = UnboundKey::new(cipher.algorithm(), &self.0);
        LessSafeKey::new(unbound.unwrap_or_else(|_| unreachable!("32 octets fit both ciphers")))
    }
}

impl std::fmt::Debug for DirectionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DirectionKey(..)")
    }
}

/// Why a datagram is not sealed or not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// [`DATAGRAMS_MAX`] have been sealed with the key.
    #[error("the key is used up")]
    UsedUp,
    /// It is too short for a datagram, or no index is in it.
    #[error("no sealed datagram")]
    Malformed,
    /// The seal is broken: it was not made with this key, or was changed.
    #[error("the seal is broken")]
    Broken,
    /// It was taken before, or is too old to know.
    #[error("a repetition")]
    Replayed,
}

/// Seals datagrams of one direction.
pub struct Sealer {
    key: LessSafeKey,
    index: u32,
    counter: u64,
}

impl Sealer {
    /// Begins to seal for the session that the receiver calls `index`.
    pub fn new(cipher: Cipher, key: &DirectionKey, index: u32) -> Self {
        Self {
            key: key.key(cipher),
            index,
            counter: 0,
        }
    }

    /// Returns how many datagrams have been sealed.
    pub const fn sealed(&self) -> u64 {
        self.counter
    }

    /// Goes on as if so many datagrams had been sealed.
    #[cfg(test)]
    pub(crate) fn skip_to(&mut self, counter: u64) {
        self.counter = counter;
    }

    /// Seals `content` into `datagram`, which must be [`OVERHEAD_BYTES`] longer.
    ///
    /// # Errors
    /// [`SealError::UsedUp`], or [`SealError::Malformed`] for a wrong length.
    pub fn seal(
        &mut self,
        kind: Kind,
        content: &[u8],
        datagram: &mut [u8],
    ) -> Result<(), SealError> {
        if self.counter >= DATAGRAMS_MAX {
            return Err(SealError::UsedUp);
        }
        let (header, sealed) = datagram
            .split_first_chunk_mut::<HEADER_BYTES>()
            .ok_or(SealError::Malformed)?;
        if sealed.len() != content.len() + TRAILER_BYTES {
            return Err(SealError::Malformed);
        }
        header[..4].copy_from_slice(&self.index.to_be_bytes());
        header[4..].copy_from_slice(&self.counter.to_be_bytes());
        let (ciphertext, trailer) = sealed.split_at_mut(content.len());
        let nonce = nonce(self.counter);
        // Also when sealing fails, which it does for wrong lengths alone.
        self.counter += 1;
        self.key
            .seal_out_of_place_scatter(
                nonce,
                Aad::empty(),
                content,
                ciphertext,
                &[kind as u8],
                trailer,
            )
            .map_err(|_| SealError::Malformed)
    }
}

/// Opens datagrams of one direction.
pub struct Opener {
    key: LessSafeKey,
    window: ReplayWindow,
}

/// A datagram that was opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'b> {
    /// What the content is; none for a kind of later versions.
    pub kind: Option<Kind>,
    /// The content.
    pub content: &'b mut [u8],
    /// Whether it is the newest so far.
    pub is_newest: bool,
}

impl Opener {
    /// Begins to open.
    pub fn new(cipher: Cipher, key: &DirectionKey) -> Self {
        Self {
            key: key.key(cipher),
            window: ReplayWindow::default(),
        }
    }

    /// Opens a datagram in place. On an error its content may have been overwritten.
    ///
    /// # Errors
    /// [`SealError::Malformed`], [`SealError::Broken`] or [`SealError::Replayed`].
    pub fn open<'b>(&mut self, datagram: &'b mut [u8]) -> Result<Opened<'b>, SealError> {
        let (header, sealed) = datagram
            .split_first_chunk_mut::<HEADER_BYTES>()
            .ok_or(SealError::Malformed)?;
        if sealed.len() < TRAILER_BYTES {
            return Err(SealError::Malformed);
        }
        let [_, _, _, _, counter @ ..] = *header;
        let counter = u64::from_be_bytes(counter);
        if !self.window.would_take(counter) {
            return Err(SealError::Replayed);
        }
        let opened = self.key.open_in_place(nonce(counter), Aad::empty(), sealed);
        let opened = opened.map_err(|_| SealError::Broken)?;
        let is_newest = self.window.take(counter);
        let (kind, content) = opened.split_last_mut().ok_or(SealError::Malformed)?;
        Ok(Opened {
            kind: Kind::from_octet(*kind),
            content,
            is_newest,
        })
    }
}

/// Returns the index of a datagram; none when it is no sealed datagram.
pub fn index(datagram: &[u8]) -> Option<u32> {
    let index = u32::from_be_bytes(*datagram.first_chunk()?);
    (index & INDEX_MARK == INDEX_MARK).then_some(index)
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CIPHERS: [Cipher; 2] = [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];

    fn pair(cipher: Cipher) -> (Sealer, Opener) {
        let key = DirectionKey::new([7; 32]);
        (
            Sealer::new(cipher, &key, INDEX_MARK | 5),
            Opener::new(cipher, &key),
        )
    }

    fn sealed(sealer: &mut Sealer, content: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0; content.len() + OVERHEAD_BYTES];
        sealer
            .seal(Kind::PartialPacket, content, &mut datagram)
            .unwrap();
        datagram
    }

    #[test]
    fn what_is_sealed_is_opened_once() {
        for cipher in CIPHERS {
            let (mut sealer, mut opener) = pair(cipher);
            for content in [&b""[..], b"packet", &[9; 1400]] {
                let datagram = sealed(&mut sealer, content);
                assert_eq!(index(&datagram), Some(INDEX_MARK | 5));
                let mut copy = datagram.clone();
                let opened = opener.open(&mut copy).unwrap();
                assert_eq!(
                    (opened.kind, &*opened.content),
                    (Some(Kind::PartialPacket), content)
                );
                assert!(opened.is_newest);
                assert_eq!(opener.open(&mut datagram.clone()), Err(SealError::Replayed));
            }
            assert_eq!(sealer.sealed(), 3);
        }
    }

    #[test]
    fn a_changed_datagram_is_refused_and_changes_nothing() {
        for cipher in CIPHERS {
            let (mut sealer, mut opener) = pair(cipher);
            let datagram = sealed(&mut sealer, b"packet");
            for at in 4..datagram.len() {
                let mut changed = datagram.clone();
                changed[at] ^= 1;
                assert_eq!(
                    opener.open(&mut changed),
                    Err(SealError::Broken),
                    "octet {at}"
                );
            }
            for length in 0..datagram.len() {
                assert!(opener.open(&mut datagram[..length].to_vec()).is_err());
            }
            assert!(opener.open(&mut datagram.clone()).is_ok());
        }
    }

    #[test]
    fn a_key_is_not_used_beyond_its_limit() {
        let (mut sealer, _) = pair(Cipher::Aes256Gcm);
        sealer.skip_to(DATAGRAMS_MAX - 1);
        let mut datagram = [0; OVERHEAD_BYTES];
        assert_eq!(sealer.seal(Kind::Probe, &[], &mut datagram), Ok(()));
        assert_eq!(
            sealer.seal(Kind::Probe, &[], &mut datagram),
            Err(SealError::UsedUp)
        );
        assert_eq!(
            sealer.seal(Kind::Probe, &[1], &mut [0; 3]),
            Err(SealError::UsedUp)
        );
    }

    #[test]
    fn keys_are_not_shown() {
        let shown = format!("{:?}", DirectionKey::new([7; 32]));
        assert_eq!(shown, "DirectionKey(..)");
    }

    proptest! {
        #[test]
        fn any_octets_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let (_, mut opener) = pair(Cipher::Aes256Gcm);
            prop_assert!(opener.open(&mut bytes.clone()).is_err());
            let _ = index(&bytes);
        }
    }
}
