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
use enishi_overlay::admission::Credential;
use enishi_overlay::{Contact, Keypair};
use serde::{Deserialize, Serialize};

use super::charter::Charter;
use super::routes::{Prefix, ROUTES_MAX};
use super::secret::ChannelKeys;
use crate::record::Signature;

const VERSION: u8 = 3;
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
        /// Which charter the sender has.
        mark: Mark,
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
    /// A governed channel's charter, for a member that has an older one.
    Charter {
        /// Which channel, for these two nodes, by the secret that the receiver has.
        channel: [u8; 16],
        /// The charter and the secret of its epoch, sealed under the secret that the receiver
        /// has.
        delivery: Bytes,
    },
    /// Asks a router for a sign of life.
    Check {
        /// Which channel, for these two nodes.
        channel: [u8; 16],
    },
    /// Gives it.
    Checked {
        /// Which channel, for these two nodes.
        channel: [u8; 16],
    },
    /// The receiver is no member any more.
    Removed {
        /// Which channel, for these two nodes, by the secret that the receiver has.
        channel: [u8; 16],
        /// That the sender is a member.
        proof: [u8; 32],
    },
}

/// How many epochs, or versions, a member may have missed: a hundred years at one a second.
const LEAP_MAX: u64 = 1 << 32;

/// Which charter a member has: the greater one counts. All zero where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    admins: u64,
    epoch: u64,
    version: u64,
    hash: [u8; 4],
}

impl Mark {
    /// The mark of a charter: its precedence, with four octets of the hash.
    pub(super) fn of(charter: &Charter) -> Self {
        let (admins, epoch, version, hash) = charter.precedence();
        Self {
            admins,
            epoch,
            version,
            hash: [hash[0], hash[1], hash[2], hash[3]],
        }
    }

    /// Tells whether its epoch or version is so far beyond another's that nobody came there one by
    /// one. An administrator who signs the greatest number would end all changes.
    pub(super) fn leaps(&self, before: &Self) -> bool {
        let leaps = |to: u64, from: u64| to.saturating_sub(from) > LEAP_MAX;
        leaps(self.epoch, before.epoch) || leaps(self.version, before.version)
    }

    /// The mark of who has the secret of an epoch, and no charter yet.
    pub(super) fn before(epoch: u64) -> Self {
        Self {
            epoch,
            ..Self::default()
        }
    }
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
    /// Which charter the sender has.
    pub mark: Mark,
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
        said.extend(postcard::to_stdvec(&self.mark).unwrap_or_default());
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
    /// What it offers to the others.
    pub offers: Offers,
    signature: Signature,
    /// What shows that it is a member of a governed channel.
    pub credential: Option<Box<Credential>>,
}

/// What a member offers to the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offers {
    /// Networks behind it to which it routes; at most [`ROUTES_MAX`].
    pub routes: Vec<Prefix>,
    /// Services that it has, for those who look for them by name; at most [`SERVICES_MAX`].
    pub services: Vec<ServiceOffer>,
    /// Further addresses that it holds, for those who take part by way of it; at most
    /// [`HOSTED_MAX`]. Each counts only as far as its own record in the DHT is this node's.
    pub hosted: Vec<Ipv4Addr>,
}

/// A service of a member, as in RFC 6763 and RFC 2782.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceOffer {
    /// The name, without underscore, for example `ssh`: 1 to 15 letters, digits and `-`
    /// (RFC 6335, section 5.1).
    pub name: String,
    /// Whether by UDP, otherwise by TCP.
    pub udp: bool,
    /// The port.
    pub port: u16,
    /// What else who looks for it is to know: `key=value` each, 1 to 255 octets (RFC 6763,
    /// section 6).
    pub texts: Vec<String>,
}

/// The most services of one member.
pub const SERVICES_MAX: usize = 16;
/// The most octets of all texts of a member's services, an octet for the length of each
/// included: its claim has to fit a record.
pub const SERVICE_TEXTS_BYTES_MAX: usize = 512;
/// The most addresses that a member holds for others.
pub const HOSTED_MAX: usize = 32;

impl Offers {
    /// Tells whether there are no more than there may be, with names as they have to be.
    pub fn are_bounded(&self) -> bool {
        let texts = || self.services.iter().flat_map(|service| &service.texts);
        self.routes.len() <= ROUTES_MAX
            && self.services.len() <= SERVICES_MAX
            && self.hosted.len() <= HOSTED_MAX
            && self.services.iter().all(ServiceOffer::is_sound)
            && texts().map(|text| 1 + text.len()).sum::<usize>() <= SERVICE_TEXTS_BYTES_MAX
    }
}

impl ServiceOffer {
    /// Tells whether a service can have this name.
    pub fn is_name(name: &str) -> bool {
        let fits = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        (1..=15).contains(&name.len()) && name.bytes().all(fits)
    }

    fn is_sound(&self) -> bool {
        let is_text = |text: &String| (1..=255).contains(&text.len());
        Self::is_name(&self.name) && self.texts.iter().all(is_text)
    }
}

impl Claim {
    /// Signs a claim.
    pub(super) fn sign(
        keys: &ChannelKeys,
        node: &Keypair,
        (contact, host): (Contact, &str),
        address: Ipv4Addr,
        offers: &Offers,
        credential: Option<&Credential>,
    ) -> Self {
        let mut claim = Self {
            contact,
            host: host.to_owned(),
            address,
            address6: super::Network::address6(keys.id(), &node.id()),
            offers: offers.clone(),
            signature: Signature::new([0; 64]),
            credential: credential.cloned().map(Box::new),
        };
        claim.signature = Signature::new(node.sign(&claim.signed(keys)));
        claim
    }

    /// Tells whether the node itself claims this in this channel, and could have these addresses.
    /// Whether it has the IPv4 address only the DHT tells.
    pub(super) fn verify(&self, keys: &ChannelKeys) -> bool {
        let node = self.contact.id();
        let said = self.signed(keys);
        self.host.len() <= HOST_NAME_BYTES_MAX
            && self.offers.are_bounded()
            && keys.network().has_host(self.address)
            && self.address6 == super::Network::address6(keys.id(), &node)
            && node.verify(&said, &self.signature.octets())
    }

    /// Returns both addresses of the node itself.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.address.into(), self.address6.into()]
    }

    /// Returns both addresses of one that the node holds for somebody else.
    pub fn hosted(&self, address: Ipv4Addr) -> [IpAddr; 2] {
        let address6 = super::Network::hosted6(self.address6, &self.contact.id(), address);
        [address.into(), address6.into()]
    }

    /// Tells whether the node says that it has an address, for itself or for somebody else.
    pub(super) fn names(&self, address: IpAddr) -> bool {
        let mut hosted = self.offers.hosted.iter();
        self.addresses().contains(&address)
            || hosted.any(|hosted| self.hosted(*hosted).contains(&address))
    }

    /// What the node signs. Its credential is signed by others.
    fn signed(&self, keys: &ChannelKeys) -> Vec<u8> {
        let said = (
            keys.id(),
            &self.contact,
            &self.host,
            self.address,
            self.address6,
            &self.offers,
        );
        postcard::to_extend(&said, b"enishi 1 claim\0".to_vec()).unwrap_or_default()
    }
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
