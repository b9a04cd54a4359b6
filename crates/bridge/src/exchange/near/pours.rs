//! Requests that are streams, at the client's end.
//!
//! One begins when packets wait and as many requests are under way as may be: others are as quick where
//! little goes upward. It declares a length, as many proxies want, and is filled up with zeros at its end; when it
//! is not used for a while it is given up.
//!
//! Squid ends a connection when more than half a MiB of a request waits in it, as when its own connection to the server
//! is slower or still to be made. So a quarter is under way at first, and no more after a stream was broken, or
//! where long requests are not known to pass.

use std::time::Duration;

use super::streams::Attempts;
use super::{Errand, Near, NearOutput, RequestId, UPWARD_MAX, WITHIN};
use crate::Time;
use crate::exchange::window::Window;
use crate::exchange::{
    GATHER, PACKET_FRAME_BYTES, Refusal, STREAM_BYTES_MAX, STREAM_S_MAX, UNWRITTEN_BYTES_MAX,
};
use crate::frame::{Frame, Kind, PART_BYTES_MAX, Token};
use crate::way::{Ask, Coding};

/// What is left at the end of a stream takes at least one more frame, or belongs to the last, in octets.
const REST_BYTES: usize = 2 * 1024;

/// How long a stream waits for requests that were sent before: one may hang.
const WAITS_MAX: Duration = Duration::from_millis(300);

/// A stream that is not used for so long is given up.
const IDLE_MAX: Duration = Duration::from_secs(3);

/// Streams under way at once: one that is full may not be answered yet.
const POURS_MAX: usize = 2;

/// Where this is refused for its length there are no streams, in octets.
const BYTES_MIN: usize = 1 << 20;

/// What is known of streams upward, and the one that there is.
#[derive(Debug, Default)]
pub(super) struct Pours {
    /// How long one is, in octets; 0 when there are to be none.
    bytes: usize,
    attempts: Attempts,
    open: Option<Open>,
    /// Whether the one before was full: the next follows at once.
    follows: bool,
    /// Whether little is to be under way.
    is_careful: bool,
    /// Whether the proxy asked who asks for the last one: its nonce may have been an old one.
    was_asked: bool,
    window: Window,
}

#[derive(Debug)]
struct Open {
    id: RequestId,
    /// Octets of its body that are not sent yet.
    left: usize,
    unwritten: usize,
    until: Time,
    used: Time,
    /// Whether its time is over, and word of the last packets is waited for.
    is_ending: bool,
    /// Whether what was sent before still has to come: nothing is to overtake it.
    waits: bool,
    /// Until when requests are waited for.
    waits_until: Time,
}

impl Open {
    fn ends_at(&self) -> Time {
        self.until.min(self.used + IDLE_MAX)
    }
}

impl Pours {
    pub(super) fn resume(&mut self, bytes: usize, is_careful: bool) {
        self.bytes = bytes.min(STREAM_BYTES_MAX);
        self.attempts = Attempts::default();
        self.is_careful = is_careful;
        self.was_asked = false;
        self.window = Window::default();
        if is_careful {
            self.window.stay_low();
        }
    }

    pub(super) fn stop(&mut self) {
        (self.open, self.follows) = (None, false);
        self.window.clear();
    }

    /// Whether packets go into a stream, or wait until what one carried has come: nothing is to overtake it.
    pub(super) fn is_feeding(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the stream takes word of what came, and that does not have to wait in it.
    pub(super) fn tells(&self, now: Time) -> bool {
        self.has_room() && self.window.is_prompt(now)
    }

    fn passed(&mut self) {
        self.was_asked = false;
        self.attempts.passed();
    }

    pub(super) fn written(&mut self, id: RequestId, bytes: usize) {
        if let Some(open) = self.open.as_mut().filter(|open| open.id == id) {
            open.unwritten = open.unwritten.saturating_sub(bytes);
        }
    }

    pub(super) fn told(&mut self, now: Time, next: u32) {
        self.window.told(now, next);
    }

    pub(super) fn has_room(&self) -> bool {
        let open = self.open.as_ref();
        let takes =
            |open: &Open| !open.is_ending && !open.waits && open.unwritten < UNWRITTEN_BYTES_MAX;
        open.is_some_and(takes) && self.window.room() > 0
    }
}

impl Near {
    pub(super) fn pours_under_way(&self) -> usize {
        let is_pour = |errand: &&Errand| matches!(errand, Errand::Pour);
        self.asked.values().filter(is_pour).count()
    }

    /// Begins a stream when packets have to wait for requests that are under way.
    pub(super) fn begin_pour(&mut self, now: Time, token: Token) {
        let pours = &self.pours;
        let busy = pours.follows || self.upward() + 1 >= UPWARD_MAX;
        let may = pours.bytes >= BYTES_MIN
            && pours.open.is_none()
            && pours.attempts.at() <= now
            && self.way.coding == Coding::Raw
            && !self.pad
            && self.pours_under_way() < POURS_MAX;
        if !(may && busy && self.up.pause <= now && self.has_gathered(now)) {
            return;
        }
        let bytes = pours.bytes;
        self.streams.tell();
        let octets = self.octets(&Frame::new(Kind::Pour, token), 0);
        let unique = rand_core::Rng::next_u64(&mut self.rng);
        let mut ask = Ask::new(&octets, self.way.coding, self.way.agent, unique);
        ask.length = Some(bytes);
        let lasts = Duration::from_secs(STREAM_S_MAX.into());
        let id = self.put(ask, Errand::Pour, WITHIN * 2 + lasts);
        self.pours.open = Some(Open {
            id,
            left: bytes - octets.len(),
            unwritten: 0,
            until: now + lasts,
            used: now,
            is_ending: false,
            waits: true,
            waits_until: now + WAITS_MAX,
        });
        self.pours.follows = false;
        self.pour(now, token);
    }

    /// Sends in the stream what can be sent, and ends it in time.
    pub(super) fn pour(&mut self, now: Time, token: Token) {
        if self
            .pours
            .window
            .stalls_at()
            .is_some_and(|stalls| stalls <= now)
        {
            self.stop_pours();
            self.figures.failed_requests += 1;
            return self.pours.attempts.failed(now);
        }
        let carries = self.carrying() > 0;
        while let Some(open) = &mut self.pours.open {
            let is_first = !self.pours.window.is_empty();
            open.waits &= is_first || (carries && now < open.waits_until);
            open.is_ending |= open.until <= now;
            if open.ends_at() <= now && self.pours.window.is_empty() {
                let id = open.id;
                self.asked.remove(&id);
                self.pours.open = None;
                self.out.push_back(NearOutput::Stop(id));
                return self.pours.passed();
            }
            let tells = self.streams.tell_at().is_some_and(|at| at <= now);
            let tells = tells && (self.pours.tells(now) || self.is_full());
            if !self.pours.has_room() || !(self.has_gathered(now) || tells) {
                return;
            }
            self.feed(now, token);
        }
    }

    /// Sends the next frame of the stream.
    fn feed(&mut self, now: Time, token: Token) {
        let Some(open) = &mut self.pours.open else {
            return;
        };
        let bytes = self.pours.window.room().max(PACKET_FRAME_BYTES);
        let bytes = bytes.min(PART_BYTES_MAX - REST_BYTES).min(open.left);
        let mut frame = Frame::new(Kind::Up, token);
        frame.packets = self.queue.fill(bytes);
        if self.queue.is_empty() {
            self.waiting = None;
        }
        let (id, carried, rest) = (open.id, frame.packets.len(), open.left - frame.bytes());
        let least = if rest < REST_BYTES { open.left } else { 0 };
        frame.seq = self.next_seq(&frame.packets);
        if self.pours.tells(now) || self.is_full() {
            self.streams.tell();
        }
        let octets = self.octets(&frame, least);
        self.figures.sent_packets += carried as u64;
        if carried > 0 {
            self.pours.window.sent(now, frame.seq, octets.len());
        }
        if let Some(open) = &mut self.pours.open {
            open.left -= octets.len();
            open.unwritten += octets.len();
            if carried > 0 {
                open.used = now;
            }
        }
        let filled = self.pours.open.take_if(|open| open.left == 0);
        self.pours.follows = filled.is_some();
        self.out.push_back(NearOutput::More(id, octets));
    }

    pub(super) fn pour_timeout(&self) -> Option<Time> {
        let pours = &self.pours;
        let stalls = pours.window.stalls_at();
        let Some(open) = &pours.open else {
            return stalls;
        };
        let gathered = self.waiting.map(|since| since + GATHER);
        let is_empty = pours.window.is_empty();
        let ends = is_empty.then(|| open.ends_at());
        let sends = gathered.filter(|_| pours.has_room());
        let until = (!open.is_ending).then_some(open.until);
        let waits = (open.waits && is_empty).then_some(open.waits_until);
        let times = [stalls, ends, sends, until, waits];
        times.into_iter().flatten().min()
    }

    /// A stream was answered: it has ended, or is to.
    pub(super) fn poured(&mut self, now: Time, id: RequestId, frame: Result<Frame, Refusal>) {
        let open = self.pours.open.take_if(|open| open.id == id);
        match frame {
            Ok(frame) if frame.kind == Kind::Taken && open.is_none() => {
                self.pours.told(now, frame.least);
                return self.pours.passed();
            }
            Err(Refusal::Authentication) if !self.pours.was_asked => {
                self.pours.was_asked = true;
                self.stop_pours();
                return self.pours.attempts.soon(now);
            }
            Err(Refusal::TooLong) => self.pours.bytes /= 4,
            // Much that goes up is told of little that comes down.
            Err(Refusal::Forbidden) => (self.pad, self.pours.bytes) = (true, 0),
            Err(Refusal::Broken) if !self.pours.is_careful => {
                self.pours.is_careful = true;
                self.pours.window.stay_low();
                self.stop_pours();
                return self.pours.attempts.soon(now);
            }
            Ok(_) | Err(_) => {}
        }
        if open.is_some() {
            self.out.push_back(NearOutput::Stop(id));
        }
        self.stop_pours();
        self.pours.attempts.failed(now);
    }

    fn stop_pours(&mut self) {
        let is_pour = |errand: &Errand| matches!(errand, Errand::Pour);
        let pours = self.asked.extract_if(.., |_, errand| is_pour(errand));
        self.out.extend(pours.map(|(id, _)| NearOutput::Stop(id)));
        self.pours.stop();
    }
}
