//! What follows from a channel's secret.
//!
//! | derived | from | for |
//! |---|---|---|
//! | channel id | secret, name, network | the IPv6 network, signatures of claims |
//! | writer key of a record | secret, id, the record's name | where the record is in the DHT, and who may write it |
//! | seal key of a record | the same | its value |
//! | session key | secret, id | proofs of membership in a session |
//! | owner key of a record | the *node's* secret, id, the record's name | whose record it is, without telling holders |
//!
//! Outsiders see DHT keys and owners that look random, and cannot tell that two records
//! belong to one channel.

use argon2::{Algorithm, Argon2, Params, Version};
use enishi_overlay::{Keypair, NodeId};
use zeroize::Zeroizing;

use super::Network;
use crate::calls::PutRequest;
use crate::keys::{Secret, derive, derive_keypair};
use crate::record::Kind;

/// Argon2id with 64 MiB, three passes, one lane: RFC 9106, section 4, second
/// recommended option, with one lane so that small machines take no longer.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;

/// The longest password, in octets.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Derives a channel's secret from what all members know. Takes some tenths of a second
/// and 64 MiB on purpose.
///
/// # Errors
/// A sentence for people when the password is empty or too long.
pub fn secret_from_password(
    name: &str,
    password: &str,
    network: Network,
) -> Result<Secret, &'static str> {
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err("the password must have 1 to 1024 octets");
    }
    let params = Params::new(MEMORY_KIB, PASSES, 1, Some(32));
    let params = params.map_err(|_| "the password could not be worked on")?;
    let about = network.to_string();
    let salt = derive(
        "enishi 1 channel password salt",
        name.as_bytes(),
        &[about.as_bytes()],
    );
    let mut secret = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), &*salt, &mut *secret)
        .map_err(|_| "there is not enough memory to work on the password (64 MiB)")?;
    Ok(Secret::new(*secret))
}

/// What a charter tells of an epoch's secret, so that a wrong one is recognised.
pub(super) fn epoch_digest(secret: &Secret) -> [u8; 32] {
    *derive("enishi 1 channel epoch digest", &**secret, &[])
}

/// The keys of one channel on one node.
#[derive(Debug)]
pub(super) struct ChannelKeys {
    network: Network,
    secret: Secret,
    id: [u8; 32],
    session: Secret,
}

/// The names of a channel's records.
#[derive(Clone, Copy, Debug)]
pub(super) enum RecordName {
    /// Who has an address.
    Address(std::net::IpAddr),
    /// A page of the directory of the members.
    Members(u8),
}

impl RecordName {
    /// What sort of record it is.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Address(_) => Kind::Lease,
            Self::Members(_) => Kind::Set,
        }
    }

    fn octets(self) -> Vec<u8> {
        match self {
            Self::Address(std::net::IpAddr::V4(address)) => [&b"4"[..], &address.octets()].concat(),
            Self::Address(std::net::IpAddr::V6(address)) => [&b"6"[..], &address.octets()].concat(),
            // The first was the whole directory once.
            Self::Members(0) => b"m".to_vec(),
            Self::Members(page) => [b'm', page].to_vec(),
        }
    }
}

impl ChannelKeys {
    /// Derives the keys. A governed channel's id follows from its authority and not from its
    /// secret, so that addresses and claims outlive an epoch.
    pub(super) fn new(
        name: &str,
        network: Network,
        secret: &Secret,
        authority: Option<&NodeId>,
    ) -> Self {
        let written = network.to_string();
        let about = [name.as_bytes(), written.as_bytes()];
        let id = match authority {
            None => derive("enishi 1 channel id", &**secret, &about),
            Some(authority) => derive("enishi 1 governed channel id", authority.as_bytes(), &about),
        };
        let session = derive("enishi 1 channel session", &**secret, &about);
        Self {
            network,
            secret: secret.clone(),
            id: *id,
            session,
        }
    }

    /// The network in which the members' addresses are.
    pub(super) fn network(&self) -> Network {
        self.network
    }

    pub(super) fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// What goes into the keys for packets between members.
    pub(super) fn session(&self) -> &Secret {
        &self.session
    }

    /// The key pair with which every member may write the record.
    pub(super) fn writer(&self, name: RecordName) -> Keypair {
        let about = [&self.id[..], &name.octets()];
        derive_keypair("enishi 1 channel record writer", &*self.secret, &about)
    }

    /// The key with which the record's value is sealed.
    pub(super) fn seal(&self, name: RecordName) -> Secret {
        derive(
            "enishi 1 channel record seal",
            &*self.secret,
            &[&self.id, &name.octets()],
        )
    }

    /// The key with which messages between members are sealed.
    pub(super) fn message_seal(&self) -> Secret {
        derive("enishi 1 channel message seal", &*self.secret, &[&self.id])
    }

    /// The key pair of this node for the record, which tells holders nothing of the node.
    pub(super) fn owner(&self, node: &Keypair, name: RecordName) -> Keypair {
        let about = [&self.id[..], &name.octets()];
        derive_keypair("enishi 1 channel record owner", &*node.seed(), &about)
    }

    /// The name and the secret of the channel's multicast group.
    pub(super) fn group(&self) -> ([u8; 32], Secret) {
        let name = derive("enishi 1 channel group name", &*self.secret, &[&self.id]);
        let secret = derive("enishi 1 channel group secret", &*self.secret, &[&self.id]);
        (*name, secret)
    }

    /// Makes the request that removes this node's entry under a name.
    pub(super) fn removal(&self, node: &Keypair, name: RecordName) -> PutRequest {
        PutRequest {
            kind: name.kind(),
            writer: self.writer(name),
            owner: self.owner(node, name),
            lease_s: super::claim::LEASE_S,
            value: None,
        }
    }

    /// How one member names the channel to another: different for every pair and
    /// direction, so that others cannot recognise it.
    pub(super) fn blinded(&self, from: &NodeId, to: &NodeId) -> [u8; 16] {
        let mut name = [0; 16];
        name.copy_from_slice(&self.mac(b"name", from, to, &[])[..16]);
        name
    }

    /// Proves membership: a keyed hash (BLAKE3) of who speaks to whom and what is said.
    pub(super) fn mac(&self, role: &[u8; 4], from: &NodeId, to: &NodeId, said: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.session);
        hasher
            .update(role)
            .update(from.as_bytes())
            .update(to.as_bytes())
            .update(said);
        *hasher.finalize().as_bytes()
    }

    /// Checks a proof in constant time.
    pub(super) fn mac_is(
        &self,
        proof: &[u8; 32],
        role: &[u8; 4],
        from: &NodeId,
        to: &NodeId,
        said: &[u8],
    ) -> bool {
        blake3::Hash::from(self.mac(role, from, to, said)) == blake3::Hash::from(*proof)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_name_leads_to_another_secret() {
        let network: Network = "10.77.0.0/16".parse().unwrap();
        let other: Network = "10.77.0.0/17".parse().unwrap();
        let secret =
            |name, password, network| *secret_from_password(name, password, network).unwrap();
        let reference = secret("a", "p", network);
        assert_eq!(reference, secret("a", "p", network));
        assert_ne!(reference, secret("b", "p", network));
        assert_ne!(reference, secret("a", "q", network));
        assert_ne!(reference, secret("a", "p", other));
        assert!(secret_from_password("a", "", network).is_err());
    }

    #[test]
    fn a_channel_looks_different_to_every_pair() {
        let network: Network = "10.77.0.0/16".parse().unwrap();
        let keys = ChannelKeys::new("a", network, &Secret::new([1; 32]), None);
        let [a, b] = [1, 2].map(|seed| Keypair::from_seed(&[seed; 32]).id());
        assert_ne!(keys.blinded(&a, &b), keys.blinded(&b, &a));
        let proof = keys.mac(b"test", &a, &b, b"said");
        assert!(keys.mac_is(&proof, b"test", &a, &b, b"said"));
        assert!(!keys.mac_is(&proof, b"test", &b, &a, b"said"));
    }
}
