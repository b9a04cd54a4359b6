//! Recordings: everything that goes into one node, from its birth on, so that the same run
//! can be had again.
//!
//! ```text
//! recording: "enishirc" (8) | FORMAT (1) | frame of the header | frames of entries ...
//!
//!  0            4            8
//! +------------+------------+----------------------------------------------+
//! | length n   | checksum   | payload: n octets                            |
//! +------------+------------+----------------------------------------------+
//!   little       BLAKE3 of the payload, the first 4 octets
//!   endian
//!
//! header payload:  software version | key seed (32) | random seed (32) | Config
//!                  | 0, or 1 and the Membership in a closed overlay
//! entry payload:   0 | time in microseconds | Input | digest (8)     one step
//!                  1 | Ending                                        nothing follows
//! ```
//!
//! Payloads are postcard. The digest covers all outputs of this and of every earlier step,
//! and when the node wanted to be woken after each ([`Trace`]); so the first step with
//! another digest is the first that went otherwise.
//!
//! The software's version stands first, so that a program that cannot read the rest can
//! still say which one can. A frame that is cut off or damaged ends the reading.
//!
//! **A recording holds secrets:** the node's key, its randomness, and what people entrusted
//! to it. Only here and in invitations ([`crate::ticket`]) are they written out; the fields that
//! hold them name the modules `keypair` and `secret`, and the types themselves cannot be
//! serialised.

mod reader;
mod writer;

use enishi_overlay::{Keypair, NodeId, Time};
use serde::{Deserialize, Serialize};

use crate::admission::Membership;
use crate::keys::{Secret, derive};
use crate::node::{Config, Input, Node, Output};

pub use reader::{OpenError, Reader, Stop};
pub use writer::{TooLong, Writer};

/// What every recording begins with.
pub const MAGIC: [u8; 8] = *b"enishirc";

/// The format that this program writes and reads.
pub const FORMAT: u8 = 3;

/// The longest payload of a frame, in octets. A message has at most 64 KiB
/// ([`enishi_overlay::message::MESSAGE_BYTES_MAX`]); nothing else that goes into a node is
/// near this.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// Length and checksum before each payload, in octets.
const FRAME_HEAD_BYTES: usize = 8;

/// How much of the digest a step carries, in octets.
pub const DIGEST_BYTES: usize = 8;

/// The longest text that names a version, in octets.
const SOFTWARE_BYTES_MAX: usize = 64;

/// The latest moment of a recording, in microseconds since the start: 285 years.
const MICROS_MAX: u64 = 1 << 53;

/// The latest start of a recorded node, in seconds since 1970.
const STARTED_UNIX_S_MAX: u64 = 1 << 40;

/// The most near neighbours per side that a recorded node may have been set up with.
const NEAR_PER_SIDE_MAX: usize = 16;

/// What a recording begins with: all that a [`Node`] is made of.
#[derive(Clone, Debug)]
pub struct Header {
    /// The version of the software that recorded, at most 64 octets.
    pub software: String,
    birth: Birth,
}

/// How the recorded node came into being.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Birth {
    #[serde(with = "keypair")]
    keypair: Keypair,
    #[serde(with = "secret")]
    seed: Secret,
    config: Config,
    membership: Option<Membership>,
}

impl Header {
    /// Describes a node that this program is about to make of the same arguments.
    pub fn new(keypair: &Keypair, config: &Config, seed: &[u8; 32]) -> Self {
        Self {
            software: software().to_owned(),
            birth: Birth {
                keypair: keypair.clone(),
                seed: Secret::new(*seed),
                config: config.clone(),
                membership: None,
            },
        }
    }

    /// Describes the node as one of a closed overlay, whose id its [`Config`] must name.
    pub fn in_closed_overlay(mut self, membership: Membership) -> Self {
        self.birth.membership = Some(membership);
        self
    }

    /// Makes the node anew, as it was before its first input.
    pub fn node(&self) -> Node {
        let birth = &self.birth;
        let node = Node::new(birth.keypair.clone(), birth.config.clone(), *birth.seed);
        match &birth.membership {
            Some(membership) => node.in_closed_overlay(membership.clone()),
            None => node,
        }
    }

    /// Returns who the recorded node is.
    pub fn node_id(&self) -> NodeId {
        self.birth.keypair.id()
    }

    /// Returns how the recorded node was set up.
    pub fn config(&self) -> &Config {
        &self.birth.config
    }

    fn is_bounded(&self) -> bool {
        let config = self.config();
        let belongs = |membership: &Membership| {
            membership.is_bounded() && membership.overlay() == config.overlay.overlay
        };
        self.software.len() <= SOFTWARE_BYTES_MAX
            && config.started_unix_s <= STARTED_UNIX_S_MAX
            && (1..=NEAR_PER_SIDE_MAX).contains(&config.overlay.near_per_side)
            && self.birth.membership.as_ref().is_none_or(belongs)
    }
}

/// The version of this program, as it stands in the recordings that it makes.
pub const fn software() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// One input and what followed from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// When.
    pub at: Time,
    /// What happened.
    pub input: Input,
    /// The digest of all that the node said until the next input: [`Trace::digest`].
    pub digest: [u8; DIGEST_BYTES],
}

/// Why a recording has no more entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// The node was stopped.
    Stopped,
    /// The recording had reached its size limit; the node went on.
    Limit,
    /// The disk was too slow for what happened; the node went on.
    Slow,
    /// An input was longer than [`PAYLOAD_BYTES_MAX`]; the node went on.
    TooLong,
}

/// What stands in a frame after the header.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Entry {
    /// One step.
    Step(Box<Step>),
    /// Nothing follows.
    End(Ending),
}

impl Entry {
    /// Reads the payload of a frame; none when it is not one of this format. The work is
    /// linear in its length.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (entry, rest) = postcard::take_from_bytes(payload).ok()?;
        let in_time = match &entry {
            Self::Step(step) => step.at.as_micros() <= MICROS_MAX,
            Self::End(_) => true,
        };
        (rest.is_empty() && in_time).then_some(entry)
    }

    /// Writes the payload of a frame.
    pub fn encode(&self) -> Vec<u8> {
        // Serialising into a growing vector fails for no value of these types.
        postcard::to_stdvec(self).unwrap_or_default()
    }
}

/// A digest of everything that came out of a node, in order, and of its deadlines, which
/// show sooner than outputs that it is in another state.
#[derive(Clone, Debug)]
pub struct Trace {
    state: [u8; 32],
    hasher: blake3::Hasher,
    scratch: Vec<u8>,
}

impl Trace {
    /// Begins the trace of a node.
    pub fn new(node: &NodeId) -> Self {
        let state = *derive("enishi 1 trace of outputs", node.as_bytes(), &[]);
        Self {
            state,
            hasher: blake3::Hasher::new_keyed(&state),
            scratch: Vec::new(),
        }
    }

    /// Takes in one output of the present step.
    pub fn output(&mut self, output: &Output) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        // Serialising into a growing vector fails for no value of these types.
        self.scratch = postcard::to_extend(output, scratch).unwrap_or_default();
        self.hasher.update(&self.scratch);
    }

    /// Ends the step after which the node wants to be woken at `next_timeout`, and returns
    /// the digest of all steps so far.
    pub fn digest(&mut self, next_timeout: Option<Time>) -> [u8; DIGEST_BYTES] {
        let next = next_timeout.map_or(u64::MAX, Time::as_micros);
        self.hasher.update(&next.to_le_bytes());
        self.state = *self.hasher.finalize().as_bytes();
        self.hasher = blake3::Hasher::new_keyed(&self.state);
        let mut digest = [0; DIGEST_BYTES];
        digest.copy_from_slice(&self.state[..DIGEST_BYTES]);
        digest
    }
}

fn checksum(payload: &[u8]) -> [u8; 4] {
    let hash = blake3::hash(payload);
    let [a, b, c, d, ..] = *hash.as_bytes();
    [a, b, c, d]
}

/// Writes out a key pair, for recordings alone.
pub(crate) mod keypair {
    use enishi_overlay::Keypair;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use zeroize::Zeroizing;

    pub(crate) fn serialize<S: Serializer>(keypair: &Keypair, to: S) -> Result<S::Ok, S::Error> {
        keypair.seed().serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Keypair, D::Error> {
        let seed = Zeroizing::new(<[u8; 32]>::deserialize(from)?);
        Ok(Keypair::from_seed(&seed))
    }
}

/// Writes out a secret, for recordings alone.
pub(crate) mod secret {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::keys::Secret;

    pub(crate) fn serialize<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
        (**secret).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
        <[u8; 32]>::deserialize(from).map(Secret::new)
    }
}

/// Writes a message as it goes over the wire, so that its version is checked and its lists
/// are bounded when it is read.
pub(crate) mod message {
    use bytes::Bytes;
    use enishi_overlay::Message;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(message: &Message, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&message.encode())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Message, D::Error> {
        Message::decode(&Bytes::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
