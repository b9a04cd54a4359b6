//! The server's end: all sessions, and who may have one.

mod places;
mod streams;
mod trials;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use super::replies::Replies;
use super::window::Window;
use super::{GATHER, GATHER_BYTES, Order, PACKET_FRAME_BYTES, POLLS_MAX, Queue, WAIT_S_MAX};
use crate::frame::{Damage, Frame, Kind, OVERHEAD_BYTES, Token, UNNUMBERED, room};
use crate::way::{ReplyCoding, dress_reply};
use crate::{DATAGRAM_BYTES_MAX, FRAME_BYTES_FLOOR, FRAME_BYTES_MAX, Time};
use places::{Bucket, Place};
use streams::{Pour, Stream};
use trials::Trials;

/// A session of which nothing is heard for this long has ended.
const EXPIRY: Duration = Duration::from_secs(60);

/// Addresses of which something is remembered.
const PLACES_MAX: usize = 4_096;

/// What a server allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions in all.
    pub sessions_max: usize,
    /// Sessions of one address, or of one IPv6 network of 64 bits. A whole company may be behind it.
    pub sessions_per_place_max: usize,
    /// Sessions that one address opens at once; after these, one each second.
    pub openings_max: u32,
    /// What all sessions have waiting, in octets; and as much upward, for what has to come before it.
    pub queued_bytes_max: usize,
    /// Replies to probes of one address at once, in octets; after these, a sixteenth each second.
    pub probe_bytes_max: u32,
    /// Replies that were handed on and not written yet, in octets, a quarter of it for one address, and half of
    /// either for sessions alone. Where there is no room replies carry one packet.
    pub replies_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_max: 1_024,
            sessions_per_place_max: 64,
            openings_max: 64,
            queued_bytes_max: 64 << 20,
            probe_bytes_max: 8 << 20,
            replies_bytes_max: 64 << 20,
        }
    }
}

/// The number of a session, in order of opening; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// The name under which a client knows its session.
pub type SessionToken = Token;

/// A request that is to be answered, as the shell numbers them.
pub type AskId = u64;

/// What happens to the server's end.
#[derive(Debug)]
pub enum FarInput {
    /// A request came, undressed or not to be.
    Asked {
        /// Its number.
        ask: AskId,
        /// Where the connection comes from: mostly a proxy.
        from: IpAddr,
        /// The frame.
        octets: Result<Bytes, Damage>,
    },
    /// A stream came that begins with the frame of this request: its next frame.
    More(AskId, Result<Bytes, Damage>),
    /// A stream came to its end.
    Ended(AskId),
    /// So much of a reply was written, in octets, or is not going to be.
    Written(AskId, usize),
    /// Whoever asked has gone.
    Gone(AskId),
    /// A packet is to be carried. Dropped when it is too long or there is no room.
    Send(SessionId, Bytes),
    /// A session is not wanted any longer.
    Close(SessionId),
    /// The deadline has come.
    Timeout,
}

/// What the server's end wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum FarOutput {
    /// Answer a request with status 200.
    Answer {
        /// Its number.
        ask: AskId,
        /// The content type.
        coding: ReplyCoding,
        /// The body.
        body: Bytes,
    },
    /// Answer a request with status 200 and a body of which this is the beginning, or what follows.
    Part {
        /// Its number.
        ask: AskId,
        /// The content type.
        coding: ReplyCoding,
        /// The next of the body.
        body: Bytes,
    },
    /// The body of a reply has ended.
    End(AskId),
    /// There is a new session.
    Opened(SessionId, IpAddr),
    /// A packet came.
    Datagram(SessionId, Bytes),
    /// A session has ended.
    Closed(SessionId),
}

/// The server's end of all sessions.
#[derive(Debug)]
pub struct Far {
    limits: Limits,
    rng: ChaCha12Rng,
    opened: u64,
    sessions: BTreeMap<Token, Session>,
    tokens: BTreeMap<SessionId, Token>,
    /// When to look after which session.
    alarms: BTreeSet<(Time, Token)>,
    /// Which session a poll that waits belongs to, or a stream.
    held: BTreeMap<AskId, Token>,
    places: BTreeMap<IpAddr, Place>,
    queued_bytes: usize,
    /// What waits out of order in all sessions.
    unordered_bytes: usize,
    dropped: u64,
    replies: Replies,
    trials: Trials,
    out: VecDeque<FarOutput>,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    place: IpAddr,
    queue: Queue,
    /// Since when something waits.
    waiting: Option<Time>,
    polls: VecDeque<Poll>,
    stream: Option<Stream>,
    /// The number of the last stream that was asked for, and what may be under way in it.
    stream_seq: u32,
    window: Window,
    /// Until when the next stream is waited for.
    follows_until: Time,
    pours: VecDeque<Pour>,
    /// When the client is to be told what came of its streams, and how much came since it was, in octets.
    tell_at: Option<Time>,
    untold_bytes: usize,
    order: Order,
    reply_seq: u32,
    heard: Time,
    alarm: Time,
}

#[derive(Debug)]
struct Poll {
    ask: AskId,
    until: Time,
    seq: u32,
    most: u32,
    reply: ReplyCoding,
}

impl Far {
    /// Makes a server's end without sessions. The names of sessions are drawn from `seed`.
    #[must_use]
    pub fn new(limits: Limits, seed: [u8; 32]) -> Self {
        Self {
            limits,
            rng: ChaCha12Rng::from_seed(seed),
            opened: 0,
            sessions: BTreeMap::new(),
            tokens: BTreeMap::new(),
            alarms: BTreeSet::new(),
            held: BTreeMap::new(),
            places: BTreeMap::new(),
            queued_bytes: 0,
            unordered_bytes: 0,
            dropped: 0,
            replies: Replies::new(limits.replies_bytes_max),
            trials: Trials::default(),
            out: VecDeque::new(),
        }
    }

    /// Takes an input in; what is to be done comes out.
    pub fn handle(&mut self, now: Time, input: FarInput) -> impl Iterator<Item = FarOutput> + '_ {
        match input {
            FarInput::Asked { ask, from, octets } => self.asked(now, ask, from, octets),
            FarInput::More(ask, octets) => self.more(now, ask, octets),
            FarInput::Ended(ask) => self.ended(now, ask),
            FarInput::Written(ask, bytes) => self.written(now, ask, bytes),
            FarInput::Gone(ask) => self.gone(now, ask),
            FarInput::Send(id, packet) => self.send(now, id, packet),
            FarInput::Close(id) => {
                if let Some(token) = self.tokens.get(&id).copied() {
                    self.close(now, &token);
                }
            }
            FarInput::Timeout => self.timeout(now),
        }
        self.out.drain(..)
    }

    /// Returns when [`FarInput::Timeout`] is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        let session = self.alarms.first().map(|(time, _)| *time);
        session.into_iter().chain(self.trials.next_timeout()).min()
    }

    /// Returns how many sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Returns how many packets were dropped for want of room.
    #[must_use]
    pub fn dropped_packets(&self) -> u64 {
        self.dropped
    }

    fn asked(&mut self, now: Time, ask: AskId, from: IpAddr, octets: Result<Bytes, Damage>) {
        let length = octets.as_ref().map_or(0, Bytes::len);
        self.replies.asked(ask, network(from));
        let Ok(frame) = octets.and_then(|octets| Frame::decode(&octets)) else {
            // What arrives damaged says nothing of how the reply may look: the safest.
            return self.say(ask, Kind::Damaged, ReplyCoding::Text, 0);
        };
        if !frame.packets.is_empty() && !matches!(frame.kind, Kind::Up | Kind::Probe) {
            // No client puts packets there.
            return self.say(ask, Kind::Damaged, frame.reply, frame.seq);
        }
        match frame.kind {
            Kind::Open => self.open(now, ask, from, &frame),
            Kind::Probe => self.probe(now, ask, from, &frame),
            Kind::Up | Kind::Poll | Kind::Close | Kind::Stream => {
                self.in_session(now, ask, frame, length);
            }
            Kind::Pour if self.sessions.contains_key(&frame.token) => {
                self.in_session(now, ask, frame, length);
            }
            Kind::Pour | Kind::Try | Kind::Await => {
                self.try_stream(now, ask, network(from), &frame);
            }
            Kind::Opened
            | Kind::Taken
            | Kind::Polled
            | Kind::Closed
            | Kind::Probed
            | Kind::Damaged
            | Kind::Unknown
            | Kind::Busy => self.say(ask, Kind::Damaged, frame.reply, frame.seq),
        }
    }

    fn open(&mut self, now: Time, ask: AskId, from: IpAddr, frame: &Frame) {
        let full = self.sessions.len() >= self.limits.sessions_max;
        let per_place = self.limits.sessions_per_place_max;
        let address = network(from);
        let place = self
            .place(now, address)
            .filter(|place| !full && place.sessions < per_place);
        let admitted = place.is_some_and(|place| {
            let admitted = place.openings.take(now, 1);
            place.sessions += usize::from(admitted);
            admitted
        });
        if !admitted {
            return self.say(ask, Kind::Busy, frame.reply, frame.seq);
        }
        let mut token = Token::default();
        self.rng.fill_bytes(&mut token);
        let id = SessionId(self.opened);
        self.opened += 1;
        let alarm = now + EXPIRY;
        let session = Session {
            id,
            place: address,
            queue: Queue::default(),
            waiting: None,
            polls: VecDeque::new(),
            stream: None,
            stream_seq: 0,
            window: Window::default(),
            follows_until: Time::ZERO,
            pours: VecDeque::new(),
            tell_at: None,
            untold_bytes: 0,
            order: Order::default(),
            reply_seq: 0,
            heard: now,
            alarm,
        };
        self.sessions.insert(token, session);
        self.tokens.insert(id, token);
        self.alarms.insert((alarm, token));
        self.out.push_back(FarOutput::Opened(id, from));
        let mut reply = Frame::new(Kind::Opened, token);
        reply.ack = frame.seq;
        self.answer(ask, &reply, 0, frame.reply);
    }

    /// Answers with as much as was asked for: all octets that there are, over and over.
    fn probe(&mut self, now: Time, ask: AskId, from: IpAddr, frame: &Frame) {
        let bytes = (frame.most as usize).clamp(OVERHEAD_BYTES, FRAME_BYTES_MAX);
        let cost = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = self.replies.room_for_strangers(ask);
        let room = room.max(FRAME_BYTES_FLOOR);
        let place = self.place(now, network(from));
        if !place.is_some_and(|place| bytes <= room && place.probe_bytes.take(now, cost)) {
            return self.say(ask, Kind::Busy, frame.reply, frame.seq);
        }
        let mut reply = Frame::new(Kind::Probed, Token::default());
        reply.ack = frame.seq;
        reply.packets = pattern(bytes);
        self.answer(ask, &reply, 0, frame.reply);
    }

    fn in_session(&mut self, now: Time, ask: AskId, frame: Frame, length: usize) {
        let token = frame.token;
        let Some(session) = self.sessions.get_mut(&token) else {
            return self.say(ask, Kind::Unknown, frame.reply, frame.seq);
        };
        session.told(now, frame.ack);
        match frame.kind {
            Kind::Up => {
                self.take(now, &token, frame.seq, frame.packets);
                let least = (frame.least as usize).min(length);
                let (seq, most, reply) = (frame.seq, frame.most, frame.reply);
                self.reply(now, &token, ask, Kind::Taken, seq, (least, most), reply);
                self.look_after(now, &token);
            }
            Kind::Stream => self.begin_stream(now, ask, &frame),
            Kind::Pour => self.begin_pour(ask, &frame),
            Kind::Poll => {
                let wait = Duration::from_secs(frame.wait_s.clamp(1, WAIT_S_MAX).into());
                let until = now + wait;
                session.polls.push_back(Poll {
                    ask,
                    until,
                    seq: frame.seq,
                    most: frame.most,
                    reply: frame.reply,
                });
                self.held.insert(ask, token);
                if frame.least == 0 {
                    self.end_stream_before(token, frame.seq);
                }
                self.look_after(now, &token);
            }
            _ => {
                self.say(ask, Kind::Closed, frame.reply, frame.seq);
                self.close(now, &token);
            }
        }
    }

    /// Takes packets in, and gives on what can be.
    fn take(&mut self, now: Time, token: &Token, seq: u32, came: Vec<Bytes>) {
        let Some(session) = self.sessions.get_mut(token) else {
            return;
        };
        let mut packets = Vec::new();
        let before = session.order.bytes();
        // One without a number is not taken.
        session.order.take(now, seq, came, &mut packets);
        if self.unordered_bytes - before + session.order.bytes() > self.limits.queued_bytes_max {
            session.order.give_all(&mut packets);
        }
        self.unordered_bytes = self.unordered_bytes - before + session.order.bytes();
        let id = session.id;
        let given = packets.into_iter();
        self.out
            .extend(given.map(|packet| FarOutput::Datagram(id, packet)));
    }

    fn send(&mut self, now: Time, id: SessionId, packet: Bytes) {
        let Some(token) = self.tokens.get(&id).copied() else {
            return;
        };
        let Some(session) = self.sessions.get_mut(&token) else {
            return;
        };
        let length = packet.len();
        let fits = (1..=DATAGRAM_BYTES_MAX).contains(&length)
            && self.queued_bytes + length <= self.limits.queued_bytes_max
            && session.queue.push(packet);
        if !fits {
            self.dropped += 1;
            return;
        }
        self.queued_bytes += length;
        session.waiting.get_or_insert(now);
        self.look_after(now, &token);
    }

    fn gone(&mut self, now: Time, ask: AskId) {
        self.replies.forget(ask);
        self.trials.gone(ask);
        if let Some(token) = self.held.remove(&ask)
            && let Some(session) = self.sessions.get_mut(&token)
        {
            session.polls.retain(|poll| poll.ask != ask);
            session.pours.retain(|pour| pour.ask != ask);
            session.stream.take_if(|stream| stream.ask == ask);
            self.look_after(now, &token);
        }
    }

    fn timeout(&mut self, now: Time) {
        self.try_on(now);
        while let Some((time, token)) = self.alarms.first().copied()
            && time <= now
        {
            let session = self.sessions.get(&token);
            if session.is_some_and(|session| session.heard + EXPIRY <= now) {
                self.close(now, &token);
            } else {
                self.look_after(now, &token);
            }
        }
    }

    /// Answers polls that have waited long enough, or for which there is enough.
    fn look_after(&mut self, now: Time, token: &Token) {
        self.stream(now, token);
        while let Some(session) = self.sessions.get_mut(token) {
            let over = session.polls.len() > POLLS_MAX
                || session.polls.front().is_some_and(|poll| poll.until <= now)
                || session.tells_by_poll(now);
            if !(over || session.is_ripe(now)) {
                let mut packets = Vec::new();
                let before = session.order.bytes();
                session.order.timeout(now, &mut packets);
                self.unordered_bytes -= before - session.order.bytes();
                let id = session.id;
                self.out.extend(
                    packets
                        .into_iter()
                        .map(|packet| FarOutput::Datagram(id, packet)),
                );
                break;
            }
            let Some(poll) = session.polls.pop_front() else {
                break;
            };
            self.held.remove(&poll.ask);
            let sizes = (0, poll.most);
            let (ask, seq, coding) = (poll.ask, poll.seq, poll.reply);
            self.reply(now, token, ask, Kind::Polled, seq, sizes, coding);
        }
        self.set_alarm(now, token);
    }

    /// Answers a request of a session with what waits.
    #[allow(
        clippy::too_many_arguments,
        reason = "each is of the request that is answered"
    )]
    fn reply(
        &mut self,
        now: Time,
        token: &Token,
        ask: AskId,
        kind: Kind,
        ack: u32,
        (least, most): (usize, u32),
        coding: ReplyCoding,
    ) {
        let Some(session) = self.sessions.get_mut(token) else {
            return;
        };
        let bytes = (most as usize).clamp(FRAME_BYTES_FLOOR, FRAME_BYTES_MAX);
        let room = match coding {
            ReplyCoding::Raw | ReplyCoding::Image => self.replies.room(ask),
            ReplyCoding::Text => self.replies.room(ask) / 4 * 3,
        };
        let room = room.max(PACKET_FRAME_BYTES);
        let before = session.queue.bytes();
        let mut frame = Frame::new(kind, Token::default());
        // What is sent beside a stream would come before what is in it.
        if session.by_polls(now) {
            self.dropped += session.queue.drop_unfit(bytes);
            frame.packets = session.queue.fill(bytes.min(room));
        }
        frame.least = session.tell();
        frame.ack = ack;
        frame.seq = session.next_seq(&frame);
        if session.queue.is_empty() {
            session.waiting = None;
        }
        self.queued_bytes -= before - session.queue.bytes();
        self.answer(ask, &frame, least.min(room), coding);
    }

    fn set_alarm(&mut self, now: Time, token: &Token) {
        let Some(session) = self.sessions.get_mut(token) else {
            return;
        };
        let alarm = session.next_alarm().max(now);
        if alarm != session.alarm {
            self.alarms.remove(&(session.alarm, *token));
            self.alarms.insert((alarm, *token));
            session.alarm = alarm;
        }
    }

    fn close(&mut self, now: Time, token: &Token) {
        let Some(session) = self.sessions.remove(token) else {
            return;
        };
        self.alarms.remove(&(session.alarm, *token));
        self.queued_bytes -= session.queue.bytes();
        self.unordered_bytes -= session.order.bytes();
        self.tokens.remove(&session.id);
        for poll in session.polls {
            self.held.remove(&poll.ask);
            self.say(poll.ask, Kind::Unknown, poll.reply, poll.seq);
        }
        for pour in session.pours {
            self.held.remove(&pour.ask);
            self.say(pour.ask, Kind::Unknown, pour.reply, pour.seq);
        }
        if let Some(stream) = session.stream {
            let gone = Frame::new(Kind::Unknown, Token::default());
            self.part(stream.ask, &gone, stream.reply);
            self.end(stream.ask);
        }
        if let Some(place) = self.place(now, session.place) {
            place.sessions = place.sessions.saturating_sub(1);
        }
        self.out.push_back(FarOutput::Closed(session.id));
    }

    /// Returns what is known of an address. `None` when there are too many others.
    fn place(&mut self, now: Time, address: IpAddr) -> Option<&mut Place> {
        if self.places.len() >= PLACES_MAX && !self.places.contains_key(&address) {
            self.places
                .retain(|_, place| place.sessions > 0 || !place.is_fresh(now));
            if self.places.len() >= PLACES_MAX {
                return None;
            }
        }
        let limits = self.limits;
        Some(self.places.entry(address).or_insert_with(|| Place {
            sessions: 0,
            openings: Bucket::new(now, limits.openings_max, 1),
            probe_bytes: Bucket::new(now, limits.probe_bytes_max, limits.probe_bytes_max / 16),
        }))
    }

    fn say(&mut self, ask: AskId, kind: Kind, coding: ReplyCoding, ack: u32) {
        let mut frame = Frame::new(kind, Token::default());
        frame.ack = ack;
        self.answer(ask, &frame, 0, coding);
    }

    fn answer(&mut self, ask: AskId, frame: &Frame, least: usize, coding: ReplyCoding) {
        let body = dress_reply(&frame.encode(least), coding);
        self.replies.handed(ask, body.len());
        self.out.push_back(FarOutput::Answer { ask, coding, body });
    }
}

impl Session {
    /// Returns the number of a reply.
    fn next_seq(&mut self, frame: &Frame) -> u32 {
        if frame.packets.is_empty() {
            return UNNUMBERED;
        }
        let seq = self.reply_seq;
        self.reply_seq = seq.wrapping_add(1);
        seq
    }

    /// Whether what waits has waited long enough, or is enough.
    fn has_gathered(&self, now: Time) -> bool {
        let enough = self.queue.bytes() >= GATHER_BYTES;
        let waiting = self.waiting;
        waiting.is_some_and(|since| enough || since + GATHER <= now)
    }

    /// Whether a poll is to be answered with what waits.
    fn is_ripe(&self, now: Time) -> bool {
        self.by_polls(now) && !self.polls.is_empty() && self.has_gathered(now)
    }

    fn next_alarm(&self) -> Time {
        let poll = self.polls.front();
        let by_poll = self.stream.is_none() && poll.is_some();
        let gathered = self.waiting.map(|since| since + GATHER);
        let times = [
            gathered
                .filter(|_| by_poll)
                .map(|at| at.max(self.follows_until)),
            self.tell_at.filter(|_| by_poll),
            poll.map(|poll| poll.until),
            self.order.deadline(),
            self.stream
                .as_ref()
                .map(|stream| stream.next_alarm(&self.window, gathered, self.tell_at)),
        ];
        times
            .into_iter()
            .flatten()
            .fold(self.heard + EXPIRY, Time::min)
    }
}

/// Returns packets that fill a frame of `bytes` octets and have all octets in them that proxies
/// do something to.
pub(crate) fn pattern(bytes: usize) -> Vec<Bytes> {
    let all = b"\r\n\0\n\r\n".iter().copied().chain(0..=255).cycle();
    let mut left = bytes.saturating_sub(OVERHEAD_BYTES);
    let mut packets = Vec::new();
    while left > 2 {
        let packet: Bytes = all
            .clone()
            .take((left - 2).min(DATAGRAM_BYTES_MAX))
            .collect();
        left -= room(&packet);
        packets.push(packet);
    }
    packets
}

/// Whose address it is: one household or company has a network of 64 bits.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}
