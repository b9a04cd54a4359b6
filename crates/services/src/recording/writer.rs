//! Making a recording, octet by octet; where the octets go is the host's business.

use enishi_overlay::Time;
use zeroize::Zeroizing;

use super::{
    Ending, Entry, FORMAT, FRAME_HEAD_BYTES, Header, MAGIC, PAYLOAD_BYTES_MAX, Trace, checksum,
};
use crate::node::{Input, Output};

/// The number of a step among the entries, as postcard writes it.
const STEP: u8 = 0;

/// An input was longer than [`PAYLOAD_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an input was too long to be recorded")]
pub struct TooLong;

/// Writes the entries of one recording.
///
/// For each input: [`Self::begin`], [`Self::output`] for everything that came out, and
/// [`Self::finish`].
#[derive(Debug)]
pub struct Writer {
    trace: Trace,
    frame: Zeroizing<Vec<u8>>,
}

impl Writer {
    /// Begins a recording.
    pub fn new(header: &Header) -> Self {
        Self {
            trace: Trace::new(&header.node_id()),
            frame: Zeroizing::new(Vec::new()),
        }
    }

    /// Returns the octets that a recording begins with.
    pub fn preamble(header: &Header) -> Zeroizing<Vec<u8>> {
        let mut payload = Zeroizing::new(Vec::new());
        // Serialising into a growing vector fails for no value of these types.
        *payload = postcard::to_stdvec(&(&header.software, &header.birth)).unwrap_or_default();
        let mut octets = Zeroizing::new(Vec::with_capacity(
            MAGIC.len() + 1 + FRAME_HEAD_BYTES + payload.len(),
        ));
        octets.extend(MAGIC);
        octets.push(FORMAT);
        octets.extend(head(&payload));
        octets.extend_from_slice(&payload);
        octets
    }

    /// Notes an input that the node is about to get.
    pub fn begin(&mut self, at: Time, input: &Input) {
        self.frame.clear();
        self.frame.extend([0; FRAME_HEAD_BYTES]);
        self.frame.push(STEP);
        let frame = std::mem::take(&mut *self.frame);
        // Serialising into a growing vector fails for no value of these types.
        *self.frame = postcard::to_extend(&(at, input), frame).unwrap_or_default();
    }

    /// Notes what came out of the node.
    pub fn output(&mut self, output: &Output) {
        self.trace.output(output);
    }

    /// Ends the step, after which [`Node::next_timeout`](crate::Node::next_timeout) is
    /// `next_timeout`, and returns its frame.
    ///
    /// # Errors
    /// [`TooLong`]; then the recording has to end.
    pub fn finish(&mut self, next_timeout: Option<Time>) -> Result<&[u8], TooLong> {
        let digest = self.trace.digest(next_timeout);
        self.frame.extend(digest);
        self.framed()
    }

    /// Returns the frame that says why nothing follows.
    pub fn end(&mut self, ending: Ending) -> &[u8] {
        self.frame.clear();
        self.frame.extend([0; FRAME_HEAD_BYTES]);
        self.frame.extend(Entry::End(ending).encode());
        self.framed().unwrap_or_default()
    }

    fn framed(&mut self) -> Result<&[u8], TooLong> {
        let (place, payload) = self
            .frame
            .split_first_chunk_mut::<FRAME_HEAD_BYTES>()
            .ok_or(TooLong)?;
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(TooLong);
        }
        *place = head(payload);
        Ok(&self.frame)
    }
}

/// Length and checksum of a payload of at most [`PAYLOAD_BYTES_MAX`] octets.
fn head(payload: &[u8]) -> [u8; FRAME_HEAD_BYTES] {
    let mut head = [0; FRAME_HEAD_BYTES];
    head[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    head[4..].copy_from_slice(&checksum(payload));
    head
}
