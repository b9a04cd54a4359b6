//! The server's end: all sessions, and who may have one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use super::{GATHER, GATHER_BYTES, Order, POLLS_MAX, Queue, WAIT_S_MAX};
use crate::frame::{Damage, Frame, Kind, OVERHEAD_BYTES, Token, room};
use crate::way::{ReplyCoding, dress_reply};
use crate::{DATAGRAM_BYTES_MAX, FRAME_BYTES_FLOOR, FRAME_BYTES_MAX, Time};

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
    /// What all sessions have waiting, in octets.
    pub queued_bytes_max: usize,
    /// Replies to probes of one address at once, in octets; after these, a sixteenth each second.
    pub probe_bytes_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_max: 1_024,
            sessions_per_place_max: 64,
            openings_max: 64,
            queued_bytes_max: 64 << 20,
            probe_bytes_max: 8 << 20,
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
    /// Which session a poll that waits belongs to.
    held: BTreeMap<AskId, Token>,
    places: BTreeMap<IpAddr, Place>,
    queued_bytes: usize,
    dropped: u64,
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
    order: Order,
    reply_seq: u32,
    heard: Time,
    alarm: Time,
}

#[derive(Debug)]
struct Poll {
    ask: AskId,
    until: Time,
    frame: Frame,
}

/// What one address has used.
#[derive(Debug)]
struct Place {
    sessions: usize,
    openings: Bucket,
    probe_bytes: Bucket,
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
            dropped: 0,
            out: VecDeque::new(),
        }
    }

    /// Takes an input in; what is to be done comes out.
    pub fn handle(&mut self, now: Time, input: FarInput) -> impl Iterator<Item = FarOutput> + '_ {
        match input {
            FarInput::Asked { ask, from, octets } => self.asked(now, ask, from, octets),
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
        self.alarms.first().map(|(time, _)| *time)
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
        let Ok(frame) = octets.and_then(|octets| Frame::decode(&octets)) else {
            // What arrives damaged says nothing of how the reply may look: the safest.
            return self.say(ask, Kind::Damaged, ReplyCoding::Text, 0);
        };
        match frame.kind {
            Kind::Open => self.open(now, ask, from, &frame),
            Kind::Probe => self.probe(now, ask, from, &frame),
            Kind::Up | Kind::Poll | Kind::Close => self.in_session(now, ask, frame, length),
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
        let place = self.place(now, network(from));
        if !place.is_some_and(|place| place.probe_bytes.take(now, cost)) {
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
        session.heard = now;
        match frame.kind {
            Kind::Up => {
                let mut packets = Vec::new();
                session
                    .order
                    .take(now, frame.seq, frame.packets, &mut packets);
                let id = session.id;
                let given = packets
                    .into_iter()
                    .map(|packet| FarOutput::Datagram(id, packet));
                self.out.extend(given);
                let least = (frame.least as usize).min(length);
                let (seq, most, reply) = (frame.seq, frame.most, frame.reply);
                self.reply(&token, ask, Kind::Taken, seq, (least, most), reply);
                self.set_alarm(now, &token);
            }
            Kind::Poll => {
                let wait = Duration::from_secs(frame.wait_s.clamp(1, WAIT_S_MAX).into());
                let until = now + wait;
                session.polls.push_back(Poll { ask, until, frame });
                self.held.insert(ask, token);
                self.look_after(now, &token);
            }
            _ => {
                self.say(ask, Kind::Closed, frame.reply, frame.seq);
                self.close(now, &token);
            }
        }
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
        if let Some(token) = self.held.remove(&ask)
            && let Some(session) = self.sessions.get_mut(&token)
        {
            session.polls.retain(|poll| poll.ask != ask);
            self.set_alarm(now, &token);
        }
    }

    fn timeout(&mut self, now: Time) {
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
        while let Some(session) = self.sessions.get_mut(token) {
            let over = session.polls.len() > POLLS_MAX
                || session.polls.front().is_some_and(|poll| poll.until <= now);
            if !(over || session.is_ripe(now)) {
                let mut packets = Vec::new();
                session.order.timeout(now, &mut packets);
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
            let Frame {
                seq, most, reply, ..
            } = poll.frame;
            self.reply(token, poll.ask, Kind::Polled, seq, (0, most), reply);
        }
        self.set_alarm(now, token);
    }

    /// Answers a request of a session with what waits.
    fn reply(
        &mut self,
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
        let before = session.queue.bytes();
        self.dropped += session.queue.drop_unfit(bytes);
        let mut frame = Frame::new(kind, Token::default());
        frame.packets = session.queue.fill(bytes);
        frame.ack = ack;
        frame.seq = session.reply_seq;
        session.reply_seq = session.reply_seq.wrapping_add(1);
        if session.queue.is_empty() {
            session.waiting = None;
        }
        self.queued_bytes -= before - session.queue.bytes();
        self.answer(ask, &frame, least, coding);
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
        self.tokens.remove(&session.id);
        for poll in session.polls {
            self.held.remove(&poll.ask);
            self.say(poll.ask, Kind::Unknown, poll.frame.reply, poll.frame.seq);
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
        self.out.push_back(FarOutput::Answer { ask, coding, body });
    }
}

impl Session {
    fn is_ripe(&self, now: Time) -> bool {
        let enough = self.queue.bytes() >= GATHER_BYTES;
        !self.polls.is_empty()
            && self
                .waiting
                .is_some_and(|since| enough || since + GATHER <= now)
    }

    fn next_alarm(&self) -> Time {
        let poll = self.polls.front();
        let ripe = self
            .waiting
            .filter(|_| poll.is_some())
            .map(|since| since + GATHER);
        let times = [ripe, poll.map(|poll| poll.until), self.order.deadline()];
        times
            .into_iter()
            .flatten()
            .fold(self.heard + EXPIRY, Time::min)
    }
}

impl Place {
    /// Returns whether forgetting the address changes nothing.
    fn is_fresh(&self, now: Time) -> bool {
        self.openings.is_full(now) && self.probe_bytes.is_full(now)
    }
}

/// So much at once, and so much each second.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    capacity: u32,
    per_s: u32,
    left: u32,
    at: Time,
}

impl Bucket {
    fn new(now: Time, capacity: u32, per_s: u32) -> Self {
        Self {
            capacity,
            per_s,
            left: capacity,
            at: now,
        }
    }

    fn take(&mut self, now: Time, amount: u32) -> bool {
        let seconds = now.saturating_sub(self.at).as_secs();
        if seconds > 0 {
            self.at += Duration::from_secs(seconds);
            let more = u64::from(self.per_s).saturating_mul(seconds);
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            self.left = self.capacity.min(self.left.saturating_add(more));
        }
        let enough = self.left >= amount;
        if enough {
            self.left -= amount;
        }
        enough
    }

    fn is_full(mut self, now: Time) -> bool {
        self.take(now, 0);
        self.left == self.capacity
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
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}
