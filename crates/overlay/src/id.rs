//! Who a node is: an ed25519 key, and its place on the ring as a hash of it.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A node's identity: its ed25519 public key, 32 octets.
///
/// Written as 52 lower-case letters and digits (base32 without padding).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeId([u8; 32]);

impl Ord for NodeId {
    /// The order of the octets. The first eight of them nearly always decide: they are
    /// compared as one number, since tables are searched for every message.
    fn cmp(&self, other: &Self) -> Ordering {
        let first = self.first().cmp(&other.first());
        first.then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for NodeId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl NodeId {
    /// Wraps the octets of a public key; whether they are a point of the curve
    /// shows only when a signature is checked.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    const fn first(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// Returns the octets of the public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the first ten characters, enough for people to tell nodes apart.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(10);
        text
    }

    /// Tells whether `signature` over `message` was made by this node's key.
    ///
    /// Uses strict verification: keys of small order are refused.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.0).is_ok_and(|key| {
            let signature = ed25519_dalek::Signature::from_bytes(signature);
            key.verify_strict(message, &signature).is_ok()
        })
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// Why a text is not a node id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a node id is 52 characters of base32 (a-z, 2-7)")]
pub struct ParseNodeIdError;

impl FromStr for NodeId {
    type Err = ParseNodeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let octets = BASE32_NOPAD
            .decode(text.to_ascii_uppercase().as_bytes())
            .map_err(|_| ParseNodeIdError)?;
        octets.try_into().map(Self).map_err(|_| ParseNodeIdError)
    }
}

/// A node's secret key. Zeroised when dropped, never printed.
#[derive(Clone)]
pub struct Keypair(SigningKey);

impl Keypair {
    /// Makes the key pair of a 32-octet secret seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Returns the secret seed, to be kept on disk or handed to the session layer.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// Returns the public half.
    pub fn id(&self) -> NodeId {
        NodeId(self.0.verifying_key().to_bytes())
    }

    /// Agrees on a secret with who holds the key of `other`, by X25519 (RFC 7748) over the Montgomery
    /// form of both ed25519 keys. None when `other` is no point of the curve, or one of small order.
    pub fn agree(&self, other: &NodeId) -> Option<Zeroizing<[u8; 32]>> {
        let other = VerifyingKey::from_bytes(other.as_bytes()).ok()?;
        let own = Zeroizing::new(self.0.to_scalar_bytes());
        let shared = other.to_montgomery().mul_clamped(*own);
        let shared = Zeroizing::new(shared.to_bytes());
        (*shared != [0; 32]).then_some(shared)
    }

    /// Signs `message` with ed25519 (RFC 8032).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keypair({:?})", self.id())
    }
}

/// The name of one overlay: nodes with different names never speak to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OverlayId([u8; 32]);

impl OverlayId {
    /// Derives the id from the overlay's name; the open overlay is called `open`.
    pub fn from_name(name: &str) -> Self {
        Self(blake3::derive_key("enishi 1 overlay id", name.as_bytes()))
    }

    /// Derives the id of the closed overlay of an authority.
    pub fn of_authority(authority: &NodeId) -> Self {
        let context = "enishi 1 closed overlay id of authority";
        Self(blake3::derive_key(context, authority.as_bytes()))
    }

    /// Derives the id of the closed overlay of a secret. The id is seen on the wire, so the
    /// secret must be random: one that can be guessed could be tried against it.
    pub fn of_secret(secret: &[u8; 32]) -> Self {
        Self(blake3::derive_key(
            "enishi 1 closed overlay id of secret",
            secret,
        ))
    }

    /// Wraps the octets of an id, as another told it.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the octets of the id.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for OverlayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_refuses_noise() {
        let id = Keypair::from_seed(&[7; 32]).id();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().len(), 52);
        assert_eq!("short".parse::<NodeId>(), Err(ParseNodeIdError));
        assert_eq!("1".repeat(52).parse::<NodeId>(), Err(ParseNodeIdError));
    }

    #[test]
    fn two_agree_on_what_no_third_knows() {
        let [a, b, c] = [1, 2, 3].map(|n| Keypair::from_seed(&[n; 32]));
        assert_eq!(a.agree(&b.id()), b.agree(&a.id()));
        assert_ne!(a.agree(&b.id()), a.agree(&c.id()));
        // The neutral point, and no point at all.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert_eq!(a.agree(&NodeId::from_bytes(neutral)), None);
        assert_eq!(a.agree(&NodeId::from_bytes([2; 32])), None);
    }

    #[test]
    fn only_the_signer_verifies() {
        let (a, b) = (Keypair::from_seed(&[1; 32]), Keypair::from_seed(&[2; 32]));
        let signature = a.sign(b"hello");
        assert!(a.id().verify(b"hello", &signature));
        assert!(!a.id().verify(b"hellp", &signature));
        assert!(!b.id().verify(b"hello", &signature));
    }
}
