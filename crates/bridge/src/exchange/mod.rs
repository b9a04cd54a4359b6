//! A session: both of its ends, without sockets and clock.
//!
//! [`Near`] is the client's end, [`Far`] that of the server for all its sessions. Input in, effects
//! out, one deadline. Near asks, far only answers:
//!
//! - **Upward** each request carries packets and a number, and two are under way, three while a whole
//!   one waits. Far takes each
//!   number once ([`Order`]), so near may send a request again whose answer did not come.
//! - **Downward** two polls wait at far, three while replies come full. When packets come it gathers them for a moment, and answers
//!   the older poll with all that the reply may hold; after the time that near gave, with nothing.
//!   The answer to what goes upward takes along what waits.
//! - **Streams**, where the proxy was found to pass them: a reply whose frames follow each other as packets come,
//!   with one poll that waits beside it for when it ends; and a request of a declared length, begun when
//!   packets would have to wait for those under way. Each end tells the other which number it waits for next, which
//!   bounds what is under way (`window.rs`) and shows what is held up: then polls and requests carry the packets, and
//!   streams are tried again rarely.
//! - **Replies are numbered** and say what they answer. A number that came before, or an answer to
//!   something else, is out of a cache.
//! - **Sizes** are halved when a request is refused for its size, arrives cut or is not answered,
//!   and grow when as much as that passes; each growth that failed makes the next try rarer
//!   ([`Size`]). Near tells far how long replies may be.
//! - **A request that arrives damaged** three times is dressed otherwise.
//! - **403 to what passed before** may mean that much goes up and little comes down: requests then
//!   ask for longer replies, and wait until the proxy forgets.
//!
//! What far keeps is bounded by [`Limits`], for each session, each address and in all, and so is what it has
//! handed on to be written (`replies.rs`).

mod far;
mod near;
mod order;
mod replies;
mod size;
mod window;

use std::time::Duration;

pub use far::{AskId, Far, FarInput, FarOutput, Limits, SessionId, SessionToken};
pub(crate) use far::{network, pattern};
pub use near::{Figures, Near, NearInput, NearOutput, RequestId};
pub use order::Order;
pub use size::Size;

use crate::DATAGRAM_BYTES_MAX;
use crate::frame::{Frame, Kind, PACKETS_MAX};
use crate::way::undress;
use bytes::Bytes;

/// Requests with packets that are under way at once, the last of them only while more waits than one
/// carries.
pub const UPWARD_MAX: usize = 3;

/// Polls that wait at once, the last of them only while replies come full.
pub const POLLS_MAX: usize = 3;

/// The longest wait of a poll, in seconds.
pub const WAIT_S_MAX: u8 = 20;

/// Packets that follow each other within this time travel together.
pub const GATHER: Duration = Duration::from_millis(2);

/// With so much to carry nothing more is waited for, in octets.
pub const GATHER_BYTES: usize = 16 * 1024;

/// What waits to be carried, at most, in octets for each session and direction.
pub const QUEUE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The longest stream, in octets.
pub const STREAM_BYTES_MAX: usize = 64 << 20;

/// The shortest stream that is of use, in octets: shorter ones carry no more than polls and requests.
pub const STREAM_BYTES_MIN: usize = 1 << 20;

/// How long a stream lasts, in seconds.
pub const STREAM_S_MAX: u8 = 60;

/// How long packets wait for the next stream when one has come to its end: what went by polls in between would be
/// overtaken by too much.
const FOLLOWS_WITHIN: Duration = Duration::from_millis(500);

/// So often something comes in a stream downward, packets or none: others take it for dead otherwise.
pub const BEAT: Duration = Duration::from_secs(5);

/// What of a stream may have been handed on to be written, in octets.
pub const UNWRITTEN_BYTES_MAX: usize = 256 * 1024;

/// How long the other end of a stream may be left without word of what came.
const TELL_WITHIN: Duration = Duration::from_millis(200);

/// After so much it is told at once, in octets.
const TELL_BYTES: usize = 128 * 1024;

/// A frame that takes any one packet, in octets.
const PACKET_FRAME_BYTES: usize =
    DATAGRAM_BYTES_MAX + crate::frame::PACKET_OVERHEAD_BYTES + crate::frame::OVERHEAD_BYTES;

/// An answer to a request, or what came in its place.
pub type Answered = Result<Answer, Failure>;

/// An answer of the bridge, or of a proxy on its own account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status of HTTP.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

/// Why no answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made.
    Connect,
    /// The connection ended before the answer did.
    Broken,
    /// Nothing came in time.
    Silence,
    /// A stream ended before its end.
    Cut,
}

/// What kept a request or its reply from passing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The proxy could not be reached.
    NoConnection,
    /// The connection was ended.
    Broken,
    /// No answer in time.
    Silence,
    /// Too long for the proxy: 413, 414 or 431.
    TooLong,
    /// 403.
    Forbidden,
    /// 407: the proxy wants to know who asks.
    Authentication,
    /// Another answer than the bridge's, with this status.
    Status(u16),
    /// The bridge got something else than was sent.
    Damaged,
    /// The reply is not what the bridge sent.
    ReplyDamaged,
    /// The reply is one to another request.
    Cached,
    /// The bridge has too much to do.
    Busy,
}

/// Reads an answer as a frame.
///
/// # Errors
/// What the answer says, when it is none of the bridge's, or says that the request was damaged.
pub fn read(answered: Answered) -> Result<Frame, Refusal> {
    let answer = answered.map_err(|failure| match failure {
        Failure::Connect => Refusal::NoConnection,
        Failure::Broken | Failure::Cut => Refusal::Broken,
        Failure::Silence => Refusal::Silence,
    })?;
    match answer.status {
        200 => {}
        403 => return Err(Refusal::Forbidden),
        407 => return Err(Refusal::Authentication),
        413 | 414 | 431 => return Err(Refusal::TooLong),
        status => return Err(Refusal::Status(status)),
    }
    let octets = undress(&answer.body).map_err(|_| Refusal::ReplyDamaged)?;
    let frame = Frame::decode(&octets).map_err(|_| Refusal::ReplyDamaged)?;
    match frame.kind {
        Kind::Damaged => Err(Refusal::Damaged),
        Kind::Busy => Err(Refusal::Busy),
        // Requests are no answers: somebody sends back what comes.
        Kind::Open
        | Kind::Up
        | Kind::Poll
        | Kind::Close
        | Kind::Probe
        | Kind::Stream
        | Kind::Pour
        | Kind::Try
        | Kind::Await => Err(Refusal::Cached),
        Kind::Opened | Kind::Taken | Kind::Polled | Kind::Closed | Kind::Probed | Kind::Unknown => {
            Ok(frame)
        }
    }
}

/// Packets that wait, oldest first, no more than fit [`QUEUE_BYTES_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Queue {
    packets: std::collections::VecDeque<Bytes>,
    bytes: usize,
}

impl Queue {
    /// Takes a packet; `false` when there is no room.
    pub(crate) fn push(&mut self, packet: Bytes) -> bool {
        let room = self.bytes + packet.len() <= QUEUE_BYTES_MAX;
        if room {
            self.bytes += packet.len();
            self.packets.push_back(packet);
        }
        room
    }

    /// Puts packets back before all others; they had their room before.
    pub(crate) fn put_back(&mut self, packets: Vec<Bytes>) {
        for packet in packets.into_iter().rev() {
            self.bytes += packet.len();
            self.packets.push_front(packet);
        }
    }

    /// Takes what fits into a frame of `bytes` octets.
    pub(crate) fn fill(&mut self, bytes: usize) -> Vec<Bytes> {
        let mut left = bytes.saturating_sub(crate::frame::OVERHEAD_BYTES);
        let mut taken = Vec::new();
        while let Some(packet) = self.packets.front() {
            let room = crate::frame::room(packet);
            if room > left || taken.len() == PACKETS_MAX {
                break;
            }
            left -= room;
            self.bytes -= packet.len();
            taken.extend(self.packets.pop_front());
        }
        taken
    }

    /// Drops packets that no frame of `bytes` octets can hold from the front; says how many.
    pub(crate) fn drop_unfit(&mut self, bytes: usize) -> u64 {
        let mut dropped = 0;
        while let Some(packet) = self.packets.front() {
            if crate::frame::room(packet) + crate::frame::OVERHEAD_BYTES <= bytes {
                break;
            }
            self.bytes -= packet.len();
            self.packets.pop_front();
            dropped += 1;
        }
        dropped
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }
}

#[cfg(test)]
mod tests;
