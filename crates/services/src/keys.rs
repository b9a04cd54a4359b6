//! Keys from secrets, and sealing.
//!
//! Every key is derived from one secret by BLAKE3's key derivation with a context text
//! of its own (BLAKE3 paper, section 2.3 "derive_key"), so no key is used for two
//! purposes. Values are sealed with XChaCha20-Poly1305 and a random nonce of 24
//! octets:
//!
//! ```text
//!  0                        24
//! +------------------------+----------------------------+
//! | nonce                  | ciphertext and 16-octet tag |
//! +------------------------+----------------------------+
//! ```

use std::fmt;
use std::ops::Deref;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use enishi_overlay::{Keypair, Rng};
use zeroize::Zeroizing;

/// How many octets sealing adds to a value.
pub const SEAL_BYTES: usize = 24 + 16;

/// A secret of 32 octets. Zeroised when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// Takes the octets of a secret.
    pub fn new(octets: [u8; 32]) -> Self {
        Self(Zeroizing::new(octets))
    }
}

impl Deref for Secret {
    type Target = [u8; 32];

    fn deref(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Derives a key for one purpose from a secret and what it is about.
pub fn derive(context: &'static str, secret: &[u8], about: &[&[u8]]) -> Secret {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in std::iter::once(&secret).chain(about) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    Secret::new(*hasher.finalize().as_bytes())
}

/// Derives a signing key for one purpose.
pub fn derive_keypair(context: &'static str, secret: &[u8], about: &[&[u8]]) -> Keypair {
    Keypair::from_seed(&derive(context, secret, about))
}

/// Seals a value so that only who has the key can read it, bound to `about`.
pub fn seal(rng: &mut Rng, key: &Secret, about: &[u8], value: &[u8]) -> Vec<u8> {
    let mut nonce = [0; 24];
    rng.fill(&mut nonce);
    let cipher = XChaCha20Poly1305::new((&**key).into());
    let payload = Payload {
        msg: value,
        aad: about,
    };
    let mut sealed = nonce.to_vec();
    // Fails only for values of 256 GiB and more.
    sealed.extend(
        cipher
            .encrypt(&XNonce::from(nonce), payload)
            .unwrap_or_default(),
    );
    sealed
}

/// Opens a sealed value; none when it was not sealed with this key for `about`.
pub fn unseal(key: &Secret, about: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, ciphertext) = sealed.split_first_chunk::<24>()?;
    let cipher = XChaCha20Poly1305::new((&**key).into());
    cipher
        .decrypt(
            &XNonce::from(*nonce),
            Payload {
                msg: ciphertext,
                aad: about,
            },
        )
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_and_the_subject_open_a_seal() {
        let mut rng = Rng::from_seed([1; 32]);
        let (key, other) = (derive("a", b"s", &[]), derive("b", b"s", &[]));
        let sealed = seal(&mut rng, &key, b"about", b"value");
        assert_eq!(sealed.len(), 5 + SEAL_BYTES);
        assert_eq!(
            unseal(&key, b"about", &sealed).as_deref(),
            Some(&b"value"[..])
        );
        assert_eq!(unseal(&key, b"other", &sealed), None);
        assert_eq!(unseal(&other, b"about", &sealed), None);
        assert_eq!(unseal(&key, b"about", &sealed[..20]), None);
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", Secret::new([7; 32])), "Secret");
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(
            derive("a", b"s", &[b"ab", b"c"]),
            derive("a", b"s", &[b"a", b"bc"])
        );
    }
}
