//! A hash of everything that has happened.

use enishi_overlay::{NodeId, Time};

/// The number of a receiver whom nobody in the world is.
const NOBODY: u32 = u32::MAX;
/// How much is gathered before it is hashed: the hash is fastest on long input.
const GATHERED_BYTES: usize = 16 * 1024;

/// Who sent how much to whom at what time, as a hash that grows.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hasher: blake3::Hasher,
    gathered: Vec<u8>,
}

impl Trace {
    /// Notes a message of so many octets between two numbered nodes.
    pub(crate) fn sent(&mut self, now: Time, from: u32, to: u32, bytes: u64) {
        if self.gathered.len() >= GATHERED_BYTES {
            self.hasher.update(&self.gathered);
            self.gathered.clear();
        }
        let mut line = [0; 24];
        line[..8].copy_from_slice(&now.as_micros().to_le_bytes());
        line[8..12].copy_from_slice(&from.to_le_bytes());
        line[12..16].copy_from_slice(&to.to_le_bytes());
        line[16..].copy_from_slice(&bytes.to_le_bytes());
        self.gathered.extend_from_slice(&line);
    }

    /// Notes a message to somebody who is not in the world.
    pub(crate) fn sent_astray(&mut self, now: Time, from: u32, to: &NodeId, bytes: u64) {
        self.sent(now, from, NOBODY, bytes);
        self.gathered.extend_from_slice(to.as_bytes());
    }

    /// Returns the hash so far.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut hasher = self.hasher.clone();
        hasher.update(&self.gathered);
        *hasher.finalize().as_bytes()
    }
}
