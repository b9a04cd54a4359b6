//! The reply that is a stream, at the client's end.

use std::time::Duration;

use bytes::Bytes;

use super::{Errand, Near, RequestId, WITHIN, number};
use crate::Time;
use crate::exchange::{
    Answered, BEAT, Failure, STREAM_BYTES_MIN, STREAM_S_MAX, TELL_BYTES, TELL_WITHIN,
};
use crate::frame::{Frame, Kind, Token};
use crate::way::Ask;

/// A stream in which nothing comes for so long is held up.
const SILENCE_MAX: Duration = Duration::from_secs(BEAT.as_secs() * 2 + 2);

/// The wait before the next try after streams did not pass; it doubles with each other.
const AGAIN_MIN: Duration = Duration::from_secs(60);
const AGAIN_MAX: Duration = Duration::from_secs(3_600);

/// The wait where the next one is to fare better.
const SOON: Duration = Duration::from_secs(1);

/// A stream that was cut is of no use when it did not last so long, unless much came.
const CUT_SOON: Duration = Duration::from_secs(4);

/// A stream that ends well but sooner, with nothing in it, did not come from the bridge.
const HASTY: Duration = Duration::from_millis(100);

/// So many streams come to their end before longer ones are tried, after one was cut.
const RIPE: u32 = 8;

/// When something that did not pass is tried again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attempts {
    failures: u32,
    at: Time,
}

impl Attempts {
    pub(super) fn at(&self) -> Time {
        self.at
    }

    pub(super) fn passed(&mut self) {
        self.failures = 0;
    }

    pub(super) fn soon(&mut self, now: Time) {
        self.at = now + SOON;
    }

    pub(super) fn failed(&mut self, now: Time) {
        self.at = now + AGAIN_MAX.min(AGAIN_MIN * (1 << self.failures.min(6)));
        self.failures += 1;
    }
}

/// What is known of streams downward, and the one that there is.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// How long one may be, in octets, as was found; 0 when there are to be none.
    bytes_max: usize,
    bytes: usize,
    seconds: u8,
    /// How many came to their end since one was cut.
    whole: u32,
    attempts: Attempts,
    open: Option<Open>,
    /// When the other end is to be told what came, and how much came since it was.
    tell_at: Option<Time>,
    untold_bytes: usize,
}

#[derive(Debug)]
struct Open {
    id: RequestId,
    seq: u32,
    since: Time,
    heard: Time,
    bytes: usize,
    /// Whether the other end heard of nothing that it sent.
    is_stalled: bool,
}

impl Streams {
    pub(super) fn resume(&mut self, bytes_max: usize) {
        (self.bytes_max, self.bytes) = (bytes_max, bytes_max);
        self.seconds = STREAM_S_MAX;
        self.attempts = Attempts::default();
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(super) fn stop(&mut self) {
        (self.open, self.tell_at) = (None, None);
    }

    pub(super) fn tell_at(&self) -> Option<Time> {
        self.tell_at
    }

    /// The other end is told.
    pub(super) fn tell(&mut self) {
        (self.tell_at, self.untold_bytes) = (None, 0);
    }

    /// Packets came that the other end is to be told of.
    fn note(&mut self, now: Time, bytes: usize) {
        self.untold_bytes += bytes;
        let at = match self.untold_bytes {
            TELL_BYTES.. => now,
            _ => now + TELL_WITHIN,
        };
        self.tell_at = Some(self.tell_at.map_or(at, |before| before.min(at)));
    }

    fn ended_well(&mut self) {
        self.attempts.passed();
        self.whole += 1;
        if self.whole >= RIPE {
            self.whole = 0;
            self.bytes = self.bytes_max.min(self.bytes * 2);
            self.seconds = STREAM_S_MAX.min(self.seconds * 2);
        }
    }

    /// A stream was cut after so long, and so much: the next is shorter.
    fn cut(&mut self, now: Time, lasted: Duration, bytes: usize) {
        self.whole = 0;
        if lasted < CUT_SOON && bytes < STREAM_BYTES_MIN {
            return self.attempts.failed(now);
        }
        let seconds = u8::try_from(lasted.as_secs() / 4 * 3).unwrap_or(u8::MAX);
        if lasted >= CUT_SOON {
            self.seconds = seconds.clamp(3, self.seconds.max(3));
        }
        if bytes >= STREAM_BYTES_MIN {
            self.bytes = (bytes / 4 * 3).clamp(STREAM_BYTES_MIN, self.bytes.max(STREAM_BYTES_MIN));
        }
    }
}

impl Near {
    /// Begins a stream, and gives one up that is held up.
    pub(super) fn stream(&mut self, now: Time, token: Token) {
        let open = self.streams.open.as_ref();
        if let Some(id) = open
            .filter(|open| open.heard + SILENCE_MAX <= now)
            .map(|open| open.id)
        {
            self.give_up(id);
            self.streams.attempts.failed(now);
        }
        if !self.may_stream() || self.streams.attempts.at.max(self.down.pause) > now {
            return;
        }
        let mut frame = Frame::new(Kind::Stream, token);
        (frame.seq, frame.wait_s) = (self.poll_seq, self.streams.seconds);
        frame.most = number(self.streams.bytes);
        self.poll_seq += 1;
        self.streams.tell();
        let octets = self.octets(&frame, 0);
        let unique = rand_core::Rng::next_u64(&mut self.rng);
        let mut ask = Ask::new(&octets, self.way.polls, self.way.agent, unique);
        ask.streamed = true;
        let within = WITHIN + SILENCE_MAX + Duration::from_secs(frame.wait_s.into());
        let id = self.put(ask, Errand::Stream, within);
        self.streams.open = Some(Open {
            id,
            seq: frame.seq,
            since: now,
            heard: now,
            bytes: 0,
            is_stalled: false,
        });
    }

    fn may_stream(&self) -> bool {
        let streams = &self.streams;
        // Few requests are under way at once.
        streams.bytes >= STREAM_BYTES_MIN && streams.open.is_none() && self.polls() <= 2
    }

    pub(super) fn stream_timeout(&self) -> Option<Time> {
        match &self.streams.open {
            Some(open) => Some(open.heard + SILENCE_MAX),
            None if self.may_stream() => Some(self.streams.attempts.at.max(self.down.pause)),
            None => None,
        }
    }

    /// The next frame of a stream came.
    pub(super) fn came(&mut self, now: Time, id: RequestId, octets: &Bytes) {
        let open = self.streams.open.as_mut();
        let Some(open) = open.filter(|open| open.id == id) else {
            return;
        };
        let frame = Frame::decode(octets);
        if frame
            .as_ref()
            .is_ok_and(|frame| frame.kind == Kind::Unknown)
        {
            return self.forget_session(now);
        }
        let ours = |frame: &Frame| frame.kind == Kind::Polled && frame.ack == open.seq;
        let Some(frame) = frame.ok().filter(ours) else {
            self.figures.failed_requests += 1;
            self.give_up(id);
            return self.streams.attempts.failed(now);
        };
        open.heard = now;
        open.bytes += octets.len();
        open.is_stalled |= frame.most == 1;
        if !frame.packets.is_empty() {
            self.streams.note(now, octets.len());
        }
        // Whether new requests pass, polls tell.
        self.take(now, frame);
    }

    /// A stream has ended.
    pub(super) fn streamed(&mut self, now: Time, id: RequestId, answered: &Answered) {
        let open = self.streams.open.take_if(|open| open.id == id);
        let Some(open) = open else {
            return;
        };
        let (lasted, bytes) = (now.saturating_sub(open.since), open.bytes);
        match answered {
            Ok(answer) if answer.status == 200 && bytes > 0 && !open.is_stalled => {
                if lasted < HASTY && bytes < STREAM_BYTES_MIN {
                    self.streams.attempts.failed(now);
                } else {
                    self.streams.ended_well();
                }
            }
            Err(Failure::Cut | Failure::Silence) if bytes > 0 && !open.is_stalled => {
                self.figures.failed_requests += 1;
                self.streams.cut(now, lasted, bytes);
            }
            // By then polls may pass better.
            Ok(_) | Err(_) => {
                self.figures.failed_requests += 1;
                self.streams.attempts.failed(now);
            }
        }
    }

    /// Gives up a stream.
    fn give_up(&mut self, id: RequestId) {
        self.asked.remove(&id);
        self.streams.open = None;
        self.out.push_back(super::NearOutput::Stop(id));
    }
}
