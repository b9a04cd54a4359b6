//! Whether streams pass: whether what was sent of a body arrives before the body has ended.
//!
//! Of a reply: the bridge sends four frames, a tenth of a second apart. Three must have come while the fourth is
//! under way, and not at once. Of a request: the beginning of a long one is sent, and nothing more, and a second
//! one is answered when that has arrived.

use std::time::Duration;

use bytes::Bytes;
use rand_core::Rng;

use super::{Probe, ProbeOutput, Stage};
use crate::Time;
use crate::exchange::{Answered, Refusal, RequestId, read};
use crate::frame::{Frame, Kind, Token};
use crate::way::Ask;

/// How long a trial may take.
const WITHIN: Duration = Duration::from_secs(3);

/// Frames of a reply that must have come, and how long after the first.
const FRAMES: u32 = 3;
const APART: Duration = Duration::from_millis(120);

/// A second try with a request that declares less, in octets: the first may have been refused for that.
const SHORTER_BYTES: usize = 8 << 20;

/// A trial that is under way.
#[derive(Debug)]
pub(super) struct Watch {
    /// What is answered, and its number.
    asks: RequestId,
    seq: u32,
    /// What is sent in part, if that is tried.
    pours: Option<RequestId>,
    until: Time,
    came: u32,
    first: Option<Time>,
    result: Option<Result<(), Refusal>>,
}

/// Whether streams do not pass. Of a bridge without room nothing is known: a session finds it out.
fn fails(result: Result<(), Refusal>) -> bool {
    !matches!(result, Ok(()) | Err(Refusal::Busy | Refusal::Status(503)))
}

impl Watch {
    pub(super) fn deadline(&self) -> Time {
        self.until
    }
}

impl Probe {
    /// Goes on with the trial of streams; returns whether it has ended.
    pub(super) fn watched(&mut self, now: Time) -> bool {
        let Some(watch) = &mut self.watch else {
            self.begin_watching(now);
            return false;
        };
        if watch.until <= now {
            watch.result.get_or_insert(Err(Refusal::Silence));
        }
        let Some(result) = watch.result else {
            return false;
        };
        self.stop_watching();
        let Some(way) = &mut self.way else {
            self.finish();
            return true;
        };
        if self.stage == Stage::Streams {
            if fails(result) {
                way.stream_bytes = 0;
            }
            self.try_asks();
        } else if result == Err(Refusal::TooLong) && way.pour_bytes > SHORTER_BYTES {
            way.pour_bytes = SHORTER_BYTES;
        } else {
            if fails(result) {
                way.pour_bytes = 0;
            }
            self.finish();
        }
        true
    }

    fn begin_watching(&mut self, now: Time) {
        let Some(way) = self.way else {
            return;
        };
        let mut token = Token::default();
        self.rng.fill_bytes(&mut token);
        let mut ask = |kind, coding| {
            let mut frame = Frame::new(kind, token);
            (frame.seq, frame.reply) = (self.seq, way.reply);
            self.seq += 1;
            let unique = self.rng.next_u64();
            let ask = Ask::new(&frame.encode(0), coding, way.agent, unique);
            let id = RequestId(self.requests);
            self.requests += 1;
            (id, frame.seq, ask)
        };
        let within = WITHIN * 2;
        let mut pours = None;
        let kind = if self.stage == Stage::Pours {
            let (id, _, mut ask) = ask(Kind::Pour, way.coding);
            ask.length = Some(way.pour_bytes);
            self.out.push_back(ProbeOutput::Ask(id, ask, within));
            pours = Some(id);
            Kind::Await
        } else {
            Kind::Try
        };
        let (asks, seq, mut ask) = ask(kind, way.polls);
        ask.streamed = pours.is_none();
        self.out.push_back(ProbeOutput::Ask(asks, ask, within));
        self.watch = Some(Watch {
            asks,
            seq,
            pours,
            until: now + WITHIN,
            came: 0,
            first: None,
            result: None,
        });
    }

    pub(super) fn stop_watching(&mut self) {
        if let Some(watch) = self.watch.take() {
            let stops = [Some(watch.asks), watch.pours].into_iter().flatten();
            self.out.extend(stops.map(ProbeOutput::Stop));
        }
    }

    /// The next frame of a reply came.
    pub(super) fn came(&mut self, now: Time, id: RequestId, octets: &Bytes) {
        let Some(watch) = self.watch.as_mut().filter(|watch| watch.asks == id) else {
            return;
        };
        let frame = Frame::decode(octets);
        if frame.as_ref().is_ok_and(|frame| frame.kind == Kind::Busy) {
            watch.result.get_or_insert(Err(Refusal::Busy));
            return;
        }
        let ours = |frame: &Frame| frame.kind == Kind::Probed && frame.ack == watch.seq;
        if !frame.is_ok_and(|frame| ours(&frame) && frame.seq == watch.came) {
            watch.result = Some(Err(Refusal::ReplyDamaged));
            return;
        }
        watch.came += 1;
        let first = *watch.first.get_or_insert(now);
        if watch.came >= FRAMES && now >= first + APART {
            watch.result.get_or_insert(Ok(()));
        }
    }

    /// A request of a trial was answered; returns whether it was one.
    pub(super) fn watch_answered(&mut self, id: RequestId, answered: &Answered) -> bool {
        let Some(watch) = &mut self.watch else {
            return false;
        };
        let seq = watch.seq;
        let result = if watch.pours == Some(id) {
            // It is not to end: somebody else than the bridge answers.
            Err(read(answered.clone()).err().unwrap_or(Refusal::Cached))
        } else if watch.asks != id {
            return false;
        } else if watch.pours.is_some() {
            read(answered.clone()).and_then(|frame| match frame.kind {
                Kind::Probed if frame.ack == seq => Ok(()),
                _ => Err(Refusal::Cached),
            })
        } else {
            match read(answered.clone()) {
                Err(Refusal::Status(503)) => Err(Refusal::Busy),
                // The whole reply came at once, or none of it.
                Ok(_) | Err(_) => Err(Refusal::Silence),
            }
        };
        watch.result.get_or_insert(result);
        true
    }
}
