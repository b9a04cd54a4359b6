//! What members of a channel say to each other, and what they keep in the DHT.
//!
//! ```text
//!  0        1
//! +--------+-------------------------+
//! | version| postcard of the message |
//! +--------+-------------------------+
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use enishi_overlay::{Contact, Keypair};
use serde::{Deserialize, Serialize};

use super::secret::ChannelKeys;
use crate::record::Signature;

const VERSION: u8 = 2;
/// The most addresses at which a member takes packets.
pub const CANDIDATES_MAX: usize = 8;
/// The longest name that a host may give itself, in octets.
pub const HOST_NAME_BYTES_MAX: usize = 63;

/// What one node's virtual network control says to another's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum VnetMessage {
    /// Opens the way for IP packets; answered by `Attached`.
    Attach(Attach),
    /// Opens it in the other direction too.
    Attached(Attach),
    /// Tells a member who the sender is, without opening anything.
    Announce {
        /// Which channel, for these two nodes.
        channel: [u8; 16],
        /// The sender's sealed [`Claim`].
        claim: Bytes,
    },
    /// Closes the way: the sender leaves the channel or changes its address.
    Detach {
        /// Which channel, for these two nodes.
        channel: [u8; 16],
        /// That the sender is a member.
        proof: [u8; 32],
    },
    /// The receiver used an index that the sender does not know: the sender restarted.
    UnknownIndex {
        /// The index.
        index: u32,
    },
}

/// The body of `Attach` and `Attached`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attach {
    /// Which channel, for these two nodes.
    pub channel: [u8; 16],
    /// Fresh in `Attach`, the same in `Attached`.
    pub nonce: [u8; 16],
    /// The sender's X25519 key for this agreement.
    pub key: [u8; 32],
    /// What the sender calls the session: how the receiver has to mark its datagrams.
    pub index: u32,
    /// Whether the sender has AES in hardware.
    pub aes: bool,
    /// Where the sender takes datagrams; no more than [`CANDIDATES_MAX`] are looked at.
    pub candidates: Vec<SocketAddr>,
    /// The sender's sealed [`Claim`].
    pub claim: Bytes,
    /// That the sender is a member and said all this to the receiver.
    pub proof: [u8; 32],
}

impl Attach {
    /// What the proof covers.
    pub(super) fn said(&self) -> Vec<u8> {
        let mut said = self.nonce.to_vec();
        said.extend(self.key);
        said.extend(self.index.to_be_bytes());
        said.push(self.aes.into());
        said.extend(postcard::to_stdvec(&self.candidates).unwrap_or_default());
        said.extend(&self.claim);
        said
    }
}

/// Who has which addresses in a channel; signed with the node's own key, so that members
/// cannot speak for each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// The node.
    pub contact: Contact,
    /// The name that its host gives itself.
    pub host: String,
    /// Its IPv4 address.
    pub address: Ipv4Addr,
    /// Its IPv6 address.
    pub address6: Ipv6Addr,
    signature: Signature,
}

impl Claim {
    /// Signs a claim.
    pub(super) fn sign(
        keys: &ChannelKeys,
        node: &Keypair,
        contact: Contact,
        host: &str,
        address: Ipv4Addr,
    ) -> Self {
        let address6 = super::Network::address6(keys.id(), &node.id());
        let signature = node.sign(&signed(keys, &contact, host, address, address6));
        let signature = Signature::new(signature);
        Self {
            contact,
            host: host.to_owned(),
            address,
            address6,
            signature,
        }
    }

    /// Tells whether the node itself claims this in this channel.
    pub(super) fn verify(&self, keys: &ChannelKeys) -> bool {
        let node = self.contact.id();
        let said = signed(keys, &self.contact, &self.host, self.address, self.address6);
        self.host.len() <= HOST_NAME_BYTES_MAX
            && self.address6 == super::Network::address6(keys.id(), &node)
            && node.verify(&said, &self.signature.octets())
    }

    /// Returns both addresses.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.address.into(), self.address6.into()]
    }
}

fn signed(
    keys: &ChannelKeys,
    contact: &Contact,
    host: &str,
    address: Ipv4Addr,
    address6: Ipv6Addr,
) -> Vec<u8> {
    let said = (keys.id(), contact, host, address, address6);
    postcard::to_extend(&said, b"enishi 1 claim\0".to_vec()).unwrap_or_default()
}

impl VnetMessage {
    /// Writes the message.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default()
    }

    /// Reads a message; none when the octets are no message of this version.
    pub fn decode(octets: &[u8]) -> Option<Self> {
        match octets.split_first() {
            Some((&VERSION, body)) => match postcard::take_from_bytes(body) {
                Ok((message, [])) => Some(message),
                _ => None,
            },
            _ => None,
        }
    }
}
