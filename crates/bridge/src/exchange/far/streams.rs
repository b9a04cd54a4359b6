//! Streams of sessions, at the server's end: one reply, or one request, that carries frame after frame.

use bytes::Bytes;

use super::{AskId, Far, FarOutput, Session};
use crate::Time;
use crate::exchange::window::Window;
use crate::exchange::{
    BEAT, FOLLOWS_WITHIN, PACKET_FRAME_BYTES, STREAM_BYTES_MAX, STREAM_S_MAX, TELL_BYTES,
    TELL_WITHIN, UNWRITTEN_BYTES_MAX,
};
use crate::frame::{Damage, Frame, Kind, OVERHEAD_BYTES, PART_BYTES_MAX, Token, UNNUMBERED};
use crate::way::ReplyCoding;
use std::time::Duration;

/// Streams of one session upward: the next may begin before the one before has come to its end.
const POURS_MAX: usize = 2;

/// A reply that is written as packets come.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) ask: AskId,
    pub(super) reply: ReplyCoding,
    seq: u32,
    /// Octets that it may still have.
    left: usize,
    until: Time,
    /// When something has to be sent.
    beat: Time,
    /// Whether more may be handed on to be written.
    is_free: bool,
}

/// A request of which more comes.
#[derive(Debug)]
pub(super) struct Pour {
    pub(super) ask: AskId,
    pub(super) seq: u32,
    pub(super) reply: ReplyCoding,
}

impl Stream {
    /// Returns when something has to be done, if what waits is `gathered` at some time.
    pub(super) fn next_alarm(
        &self,
        window: &Window,
        gathered: Option<Time>,
        tell_at: Option<Time>,
    ) -> Time {
        let carries = self.is_free && window.room() > 0;
        let times = [
            window.stalls_at(),
            gathered.filter(|_| carries),
            tell_at.filter(|_| self.is_free),
            Some(self.beat).filter(|_| self.is_free),
        ];
        times.into_iter().flatten().fold(self.until, Time::min)
    }
}

impl Session {
    /// Something was heard of the client: it waits for the reply `next`.
    pub(super) fn told(&mut self, now: Time, next: u32) {
        self.heard = now;
        self.window.told(now, next);
    }

    /// Whether packets go by polls, and with other answers: there is no stream, nor is one waited for.
    pub(super) fn by_polls(&self, now: Time) -> bool {
        self.stream.is_none() && self.follows_until <= now
    }

    /// Whether a poll is to be answered so that the client learns what came.
    pub(super) fn tells_by_poll(&self, now: Time) -> bool {
        let due = self.tell_at.is_some_and(|at| at <= now);
        due && self.stream.is_none() && !self.polls.is_empty()
    }

    /// Returns what a reply tells of what came.
    pub(super) fn tell(&mut self) -> u32 {
        (self.tell_at, self.untold_bytes) = (None, 0);
        self.order.next()
    }
}

impl Far {
    /// Begins a reply that is a stream; one before it ends.
    pub(super) fn begin_stream(&mut self, now: Time, ask: AskId, frame: &Frame) {
        let token = frame.token;
        if frame.reply == ReplyCoding::Text {
            return self.say(ask, Kind::Damaged, frame.reply, frame.seq);
        }
        let newest = self.sessions.get(&token).map(|session| session.stream_seq);
        if newest.is_some_and(|newest| frame.seq < newest) {
            // It comes late: the client has asked for another one since.
            return self.say(ask, Kind::Busy, frame.reply, frame.seq);
        }
        self.end_stream(&token, false);
        let Some(session) = self.sessions.get_mut(&token) else {
            return;
        };
        session.stream_seq = frame.seq;
        // What was found of the line before holds for the next one.
        session.window.clear();
        let lasts = Duration::from_secs(frame.wait_s.clamp(1, STREAM_S_MAX).into());
        session.follows_until = now;
        session.stream = Some(Stream {
            ask,
            reply: frame.reply,
            seq: frame.seq,
            left: (frame.most as usize).min(STREAM_BYTES_MAX),
            until: now + lasts,
            // At once: its head is to pass.
            beat: now,
            is_free: true,
        });
        self.held.insert(ask, token);
        self.look_after(now, &token);
    }

    /// Sends in the stream of a session what can be sent.
    pub(super) fn stream(&mut self, now: Time, token: &Token) {
        while let Some(session) = self.sessions.get_mut(token) {
            let has_gathered = session.has_gathered(now);
            let tells = session.tell_at.is_some_and(|at| at <= now);
            let Some(stream) = &mut session.stream else {
                return;
            };
            let is_stalled = session.window.stalls_at().is_some_and(|at| at <= now);
            let is_over = stream.until <= now || stream.left < PACKET_FRAME_BYTES + OVERHEAD_BYTES;
            if is_stalled || is_over {
                if is_over && !is_stalled {
                    session.follows_until = now + FOLLOWS_WITHIN;
                }
                return self.end_stream(token, is_stalled);
            }
            let unwritten = self.replies.unwritten(stream.ask);
            let mut room = self.replies.room(stream.ask);
            if unwritten == 0 {
                // What is short has room always, and what was written makes room for what follows.
                room = room.max(PACKET_FRAME_BYTES);
            }
            stream.is_free = unwritten < UNWRITTEN_BYTES_MAX && room >= PACKET_FRAME_BYTES;
            let carries = has_gathered && session.window.room() > 0;
            if !stream.is_free || !(carries || tells || stream.beat <= now) {
                return;
            }
            let mut frame = Frame::new(Kind::Polled, Token::default());
            if carries {
                let most = session.window.room().max(PACKET_FRAME_BYTES);
                let left = stream.left - OVERHEAD_BYTES;
                let bytes = PART_BYTES_MAX.min(most).min(room).min(left);
                let before = session.queue.bytes();
                frame.packets = session.queue.fill(bytes);
                self.queued_bytes -= before - session.queue.bytes();
                if session.queue.is_empty() {
                    session.waiting = None;
                }
            }
            frame.ack = stream.seq;
            let bytes = frame.bytes();
            stream.left -= bytes;
            stream.beat = now + BEAT;
            let (ask, reply) = (stream.ask, stream.reply);
            frame.seq = session.next_seq(&frame);
            frame.least = session.tell();
            // Of what carries nothing no word is sent.
            if !frame.packets.is_empty() {
                session.window.sent(now, frame.seq, bytes);
            }
            self.part(ask, &frame, reply);
        }
    }

    /// Ends the stream of a session, and tells if that is because nothing came of it.
    pub(super) fn end_stream(&mut self, token: &Token, is_stalled: bool) {
        let Some(session) = self.sessions.get_mut(token) else {
            return;
        };
        let Some(stream) = session.stream.take() else {
            return;
        };
        if is_stalled {
            let mut frame = Frame::new(Kind::Polled, Token::default());
            (frame.ack, frame.seq, frame.most) = (stream.seq, UNNUMBERED, 1);
            frame.least = session.order.next();
            self.part(stream.ask, &frame, stream.reply);
        }
        self.end(stream.ask);
    }

    /// The client does not use a stream any longer that began before the poll `seq`.
    pub(super) fn end_stream_before(&mut self, token: Token, seq: u32) {
        let session = self.sessions.get(&token);
        let stream = session.and_then(|session| session.stream.as_ref());
        if stream.is_some_and(|stream| stream.seq < seq) {
            self.end_stream(&token, false);
        }
    }

    /// Begins a request that is a stream.
    pub(super) fn begin_pour(&mut self, ask: AskId, frame: &Frame) {
        let Some(session) = self.sessions.get_mut(&frame.token) else {
            return;
        };
        session.pours.push_back(Pour {
            ask,
            seq: frame.seq,
            reply: frame.reply,
        });
        self.held.insert(ask, frame.token);
        let too_many = session.pours.len() > POURS_MAX;
        if let Some(pour) = session.pours.pop_front_if(|_| too_many) {
            self.held.remove(&pour.ask);
            self.say(pour.ask, Kind::Busy, pour.reply, pour.seq);
        }
    }

    /// The next frame of a request came.
    pub(super) fn more(&mut self, now: Time, ask: AskId, octets: Result<Bytes, Damage>) {
        let Some(token) = self.held.get(&ask).copied() else {
            return;
        };
        let length = octets.as_ref().map_or(0, Bytes::len);
        let frame = octets.and_then(|octets| Frame::decode(&octets)).ok();
        let Some(frame) = frame.filter(|frame| frame.kind == Kind::Up && frame.token == token)
        else {
            return self.end_pour(ask, Kind::Damaged);
        };
        if let Some(session) = self.sessions.get_mut(&token) {
            session.told(now, frame.ack);
            // Of what carries nothing no word is waited for.
            if !frame.packets.is_empty() {
                session.untold_bytes += length;
                let within = match session.untold_bytes {
                    TELL_BYTES.. => Duration::ZERO,
                    _ => TELL_WITHIN,
                };
                let at = session.tell_at.unwrap_or(now + TELL_WITHIN);
                session.tell_at = Some(at.min(now + within));
            }
        }
        self.take(now, &token, frame.seq, frame.packets);
        self.look_after(now, &token);
    }

    /// A request came to its end.
    pub(super) fn ended(&mut self, now: Time, ask: AskId) {
        if self.trials.is_poured(ask) {
            return self.end_trial(ask);
        }
        if let Some(token) = self.held.get(&ask).copied() {
            self.end_pour(ask, Kind::Taken);
            self.set_alarm(now, &token);
        }
    }

    fn end_pour(&mut self, ask: AskId, kind: Kind) {
        let Some(token) = self.held.get(&ask).copied() else {
            return;
        };
        let Some(session) = self.sessions.get_mut(&token) else {
            return;
        };
        let at = session.pours.iter().position(|pour| pour.ask == ask);
        let Some(pour) = at.and_then(|at| session.pours.remove(at)) else {
            return;
        };
        self.held.remove(&ask);
        let mut frame = Frame::new(kind, Token::default());
        (frame.ack, frame.least) = (pour.seq, session.order.next());
        self.answer(ask, &frame, 0, pour.reply);
    }

    /// So much of a reply was written.
    pub(super) fn written(&mut self, now: Time, ask: AskId, bytes: usize) {
        self.replies.written(ask, bytes);
        if let Some(token) = self.held.get(&ask).copied() {
            self.look_after(now, &token);
        } else if !self.trials.is_open(ask) && self.replies.unwritten(ask) == 0 {
            self.replies.forget(ask);
        }
    }

    /// Hands on the next frame of a reply.
    pub(super) fn part(&mut self, ask: AskId, frame: &Frame, coding: ReplyCoding) {
        let body = frame.encode(0);
        self.replies.handed(ask, body.len());
        self.out.push_back(FarOutput::Part { ask, coding, body });
    }

    /// Ends a reply that is a stream.
    pub(super) fn end(&mut self, ask: AskId) {
        self.held.remove(&ask);
        if self.replies.unwritten(ask) == 0 {
            self.replies.forget(ask);
        }
        self.out.push_back(FarOutput::End(ask));
    }
}
