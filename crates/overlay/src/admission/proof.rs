//! What a node shows another to prove that it is a member.

use serde::{Deserialize, Serialize};

use super::Credential;
use crate::id::{NodeId, OverlayId};

/// What proves membership.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Proof {
    /// Certificates that lead to the authority.
    Credential(Box<Credential>),
    /// A hash keyed with the overlay's secret over both ids.
    Secret([u8; 32]),
}

/// Makes the proof of the simple form, from the node that shows it for the one that is to
/// be convinced.
pub fn secret_proof(secret: &[u8; 32], overlay: &OverlayId, from: &NodeId, to: &NodeId) -> Proof {
    Proof::Secret(*secret_hash(secret, overlay, from, to).as_bytes())
}

/// Tells whether `from` has shown `to` the proof of the simple form. Takes the same time
/// for every wrong proof.
pub fn verify_secret_proof(
    secret: &[u8; 32],
    overlay: &OverlayId,
    from: &NodeId,
    to: &NodeId,
    shown: [u8; 32],
) -> bool {
    // Comparing two `blake3::Hash` takes constant time.
    secret_hash(secret, overlay, from, to) == blake3::Hash::from_bytes(shown)
}

fn secret_hash(secret: &[u8; 32], overlay: &OverlayId, from: &NodeId, to: &NodeId) -> blake3::Hash {
    let key = blake3::derive_key("enishi 1 closed overlay admission", secret);
    let mut hasher = blake3::Hasher::new_keyed(&key);
    for part in [overlay.as_bytes(), from.as_bytes(), to.as_bytes()] {
        hasher.update(part);
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Keypair;

    fn key(seed: u8) -> Keypair {
        Keypair::from_seed(&[seed; 32])
    }

    #[test]
    fn the_proof_of_the_secret_is_for_one_pair_in_one_direction() {
        let overlay = OverlayId::of_secret(&[7; 32]);
        let (a, b, c) = (key(1).id(), key(2).id(), key(3).id());
        let Proof::Secret(shown) = secret_proof(&[7; 32], &overlay, &a, &b) else {
            panic!("a proof of the simple form");
        };
        let verify = |secret: u8, from: &NodeId, to: &NodeId| {
            verify_secret_proof(&[secret; 32], &overlay, from, to, shown)
        };
        assert!(verify(7, &a, &b));
        assert!(!verify(7, &b, &a) && !verify(7, &a, &c) && !verify(7, &c, &b));
        assert!(!verify(8, &a, &b));
    }
}
