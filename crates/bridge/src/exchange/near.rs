//! The client's end.

mod direction;
mod pours;
mod streams;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use super::{
    Answered, GATHER, GATHER_BYTES, Order, POLLS_MAX, Queue, Refusal, UPWARD_MAX, WAIT_S_MAX, read,
};
use crate::frame::{Frame, Kind, OVERHEAD_BYTES, PACKET_OVERHEAD_BYTES, Token, UNNUMBERED};
use crate::way::{Ask, Coding, Way};
use crate::{DATAGRAM_BYTES_MAX, FRAME_BYTES_MAX, SLOW_BYTES_PER_S, Time};
use direction::{Direction, LOST_FAILURES};
use pours::Pours;
use streams::Streams;

/// How often a request with packets is sent.
const ATTEMPTS_MAX: u32 = 5;

/// After so many requests in a row that arrived damaged, another dress is tried.
const DAMAGED_MAX: u32 = 3;

/// The shortest wait that a poll asks for, in seconds.
const WAIT_S_MIN: u8 = 2;

/// An empty reply that comes sooner was not waited for: somebody answers in the bridge's place.
const HASTY: Duration = Duration::from_millis(100);

/// How long a request may take beside what it waits for.
const WITHIN: Duration = Duration::from_secs(10);

/// A request, in order of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What happens to the client's end.
#[derive(Debug)]
pub enum NearInput {
    /// A packet is to be carried. Dropped when it is too long or there is no room.
    Send(Bytes),
    /// A request was answered, or will not be.
    Answered(RequestId, Answered),
    /// The next frame of a reply that is a stream.
    Part(RequestId, Bytes),
    /// So much of what followed a request was written, in octets.
    Written(RequestId, usize),
    /// The deadline has come.
    Timeout,
    /// The session is not wanted any longer.
    Close,
}

/// What the client's end wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum NearOutput {
    /// Send this request, and give it up after this long, and as much longer as what comes takes at
    /// [`SLOW_BYTES_PER_S`].
    Ask(RequestId, Ask, Duration),
    /// Send this as the next of a request's body.
    More(RequestId, Bytes),
    /// Give a request up. It is not answered any longer.
    Stop(RequestId),
    /// The session is there; again, when the server had forgotten it.
    Opened,
    /// A packet came.
    Datagram(Bytes),
    /// The way does not lead there any longer: find another and [`Near::resume`].
    Lost,
}

/// What the client's end has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Packets that were carried upward.
    pub sent_packets: u64,
    /// Packets that came.
    pub received_packets: u64,
    /// Packets that were given up.
    pub dropped_packets: u64,
    /// Requests that did not pass.
    pub failed_requests: u64,
    /// Replies out of a cache.
    pub cached_replies: u64,
}

/// The client's end of one session.
#[derive(Debug)]
pub struct Near {
    way: Way,
    rng: ChaCha12Rng,
    token: Option<Token>,
    queue: Queue,
    /// Since when something waits.
    waiting: Option<Time>,
    again: VecDeque<Upward>,
    asked: BTreeMap<RequestId, Errand>,
    requests: u64,
    up_seq: u32,
    poll_seq: u32,
    order: Order,
    up: Direction,
    down: Direction,
    pad: bool,
    streams: Streams,
    pours: Pours,
    /// Whether the last poll came back full.
    full: bool,
    wait_s: u8,
    damaged: u32,
    ended: bool,
    figures: Figures,
    out: VecDeque<NearOutput>,
}

#[derive(Debug)]
enum Errand {
    Open,
    Up(Upward, usize),
    Poll { seq: u32, most: usize, at: Time },
    Stream,
    Pour,
    Close,
}

/// Packets under a number.
#[derive(Debug)]
struct Upward {
    seq: u32,
    packets: Vec<Bytes>,
    attempts: u32,
}

impl Near {
    /// Makes the end of a session that is still to be opened. The addresses of requests are drawn from
    /// `seed`.
    #[must_use]
    pub fn new(way: Way, seed: [u8; 32]) -> Self {
        let mut near = Self {
            way,
            rng: ChaCha12Rng::from_seed(seed),
            token: None,
            queue: Queue::default(),
            waiting: None,
            again: VecDeque::new(),
            asked: BTreeMap::new(),
            requests: 0,
            up_seq: 0,
            poll_seq: 0,
            order: Order::default(),
            up: Direction::new(0, 0),
            down: Direction::new(0, 0),
            pad: false,
            streams: Streams::default(),
            pours: Pours::default(),
            full: false,
            wait_s: WAIT_S_MAX,
            damaged: 0,
            ended: false,
            figures: Figures::default(),
            out: VecDeque::new(),
        };
        near.resume(way);
        near
    }

    /// Goes on by another way, in the same session if the server still knows it.
    pub fn resume(&mut self, way: Way) {
        self.way = way;
        self.up = Direction::new(way.ask_bytes, way.coding.frame_bytes_max());
        self.down = Direction::new(way.reply_bytes, FRAME_BYTES_MAX);
        self.pad = way.pad;
        self.streams.resume(way.stream_bytes);
        let pour_bytes = if way.pad { 0 } else { way.pour_bytes };
        self.pours
            .resume(pour_bytes, way.ask_bytes < FRAME_BYTES_MAX);
        self.damaged = 0;
        self.ended = false;
    }

    /// Takes an input in; what is to be done comes out.
    pub fn handle(&mut self, now: Time, input: NearInput) -> impl Iterator<Item = NearOutput> + '_ {
        match input {
            NearInput::Send(packet) => self.send(now, packet),
            NearInput::Answered(id, answered) => self.answered(now, id, answered),
            NearInput::Part(id, octets) => self.came(now, id, &octets),
            NearInput::Written(id, bytes) => self.pours.written(id, bytes),
            NearInput::Timeout => {}
            NearInput::Close => self.close(),
        }
        let mut packets = Vec::new();
        self.order.timeout(now, &mut packets);
        self.give(packets);
        self.proceed(now);
        self.out.drain(..)
    }

    /// Returns when [`NearInput::Timeout`] is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        let mut times = vec![self.order.deadline()];
        if !self.ended {
            let pours = self.pours.is_feeding();
            let free = !self.is_full();
            let ripe = self
                .waiting
                .filter(|_| self.token.is_some() && !pours)
                .map(|since| since + GATHER);
            let up = if !self.again.is_empty() || self.token.is_none() {
                Some(Time::ZERO)
            } else {
                ripe
            };
            let opening = self.token.is_none() && self.upward() > 0;
            times.push(
                up.filter(|_| free && !opening)
                    .map(|up| up.max(self.up.pause)),
            );
            if self.token.is_some() {
                times.push(self.stream_timeout());
                times.push(self.pour_timeout());
                // By a request, or in the stream upward.
                let in_stream = self.pours.has_room();
                let tells = self.streams.tell_at().filter(|_| free || in_stream);
                times.push(tells.map(|at| at.max(self.up.pause)));
            }
            times.push(
                (self.token.is_some() && self.polls() < self.polls_max())
                    .then_some(self.down.pause),
            );
        }
        times.into_iter().flatten().min()
    }

    /// Returns whether there is a session, as far as is known, and a way to it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.token.is_some() && !self.ended
    }

    /// Returns the longest datagram that passes upward at this time, in octets.
    #[must_use]
    pub fn datagram_bytes_max(&self) -> usize {
        let room = self.up.size.now() - OVERHEAD_BYTES - PACKET_OVERHEAD_BYTES;
        room.min(DATAGRAM_BYTES_MAX)
    }

    /// Returns the way as it is by now, for the next time.
    #[must_use]
    pub fn way(&self) -> Way {
        Way {
            ask_bytes: self.up.size.now(),
            reply_bytes: self.down.size.now(),
            pad: self.pad,
            ..self.way
        }
    }

    /// Returns what was seen so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.figures
    }

    fn send(&mut self, now: Time, packet: Bytes) {
        let fits = (1..=DATAGRAM_BYTES_MAX).contains(&packet.len()) && self.queue.push(packet);
        if fits {
            self.waiting.get_or_insert(now);
        } else {
            self.figures.dropped_packets += 1;
        }
    }

    fn close(&mut self) {
        self.stop_streams();
        if let Some(token) = self.token.take() {
            let frame = Frame::new(Kind::Close, token);
            self.ask(&frame, self.way.polls, Errand::Close);
        }
        self.ended = true;
    }

    /// Asks whatever may be asked now.
    fn proceed(&mut self, now: Time) {
        if self.ended {
            return;
        }
        let Some(token) = self.token else {
            if self.upward() == 0 && self.up.pause <= now {
                self.ask(
                    &Frame::new(Kind::Open, Token::default()),
                    self.way.coding,
                    Errand::Open,
                );
            }
            return;
        };
        self.pour(now, token);
        self.begin_pour(now, token);
        while !self.is_full() && self.up.pause <= now {
            let Some(upward) = self.next_upward(now) else {
                break;
            };
            self.ask_upward(token, upward);
        }
        self.begin_pour(now, token);
        self.stream(now, token);
        while self.polls() < self.polls_max() && self.down.pause <= now {
            self.ask_poll(now, token);
        }
    }

    fn next_upward(&mut self, now: Time) -> Option<Upward> {
        if let Some(upward) = self.again.pop_front() {
            return Some(upward);
        }
        let tells = self.streams.tell_at().is_some_and(|at| at <= now);
        if self.pours.is_feeding() {
            // Word of what came waits for no packets.
            return tells.then(|| Upward {
                seq: UNNUMBERED,
                packets: Vec::new(),
                attempts: 0,
            });
        }
        if !self.has_gathered(now) && !tells {
            return None;
        }
        let bytes = self.up.size.now();
        self.figures.dropped_packets += self.queue.drop_unfit(bytes);
        let packets = self.queue.fill(bytes);
        if self.queue.is_empty() {
            self.waiting = None;
        }
        (!packets.is_empty() || tells).then(|| Upward {
            seq: self.next_seq(&packets),
            packets,
            attempts: 0,
        })
    }

    /// Returns the number of a request with these packets.
    fn next_seq(&mut self, packets: &[Bytes]) -> u32 {
        if packets.is_empty() {
            return UNNUMBERED;
        }
        let seq = self.up_seq;
        self.up_seq += 1;
        seq
    }

    fn ask_upward(&mut self, token: Token, mut upward: Upward) {
        let mut frame = Frame::new(Kind::Up, token);
        frame.seq = upward.seq;
        frame.packets = std::mem::take(&mut upward.packets);
        let bytes = frame.bytes();
        frame.least = if self.pad { number(bytes / 2) } else { 0 };
        frame.most = number(self.down.size.now());
        upward.attempts += 1;
        // The packets are kept for another try; they are counted references.
        upward.packets.clone_from(&frame.packets);
        self.ask(&frame, self.way.coding, Errand::Up(upward, bytes));
    }

    fn ask_poll(&mut self, now: Time, token: Token) {
        let mut frame = Frame::new(Kind::Poll, token);
        frame.seq = self.poll_seq;
        frame.most = number(self.down.size.now());
        frame.wait_s = self.wait_s;
        // A stream that is not used any longer is to end.
        frame.least = u32::from(self.streams.is_open());
        self.poll_seq += 1;
        let most = self.down.size.now();
        let errand = Errand::Poll {
            seq: frame.seq,
            most,
            at: now,
        };
        self.ask(&frame, self.way.polls, errand);
    }

    fn ask(&mut self, frame: &Frame, coding: Coding, errand: Errand) {
        self.streams.tell();
        let octets = self.octets(frame, 0);
        let ask = Ask::new(&octets, coding, self.way.agent, self.rng.next_u64());
        let within = WITHIN + Duration::from_secs(frame.wait_s.into()) + seconds(octets.len());
        self.put(ask, errand, within);
    }

    /// Encodes a request, which tells what came.
    fn octets(&mut self, frame: &Frame, least: usize) -> Bytes {
        let frame = Frame {
            ack: self.order.next(),
            reply: self.way.reply,
            ..frame.clone()
        };
        frame.encode(least)
    }

    fn put(&mut self, ask: Ask, errand: Errand, within: Duration) -> RequestId {
        let id = RequestId(self.requests);
        self.requests += 1;
        self.asked.insert(id, errand);
        self.out.push_back(NearOutput::Ask(id, ask, within));
        id
    }

    fn answered(&mut self, now: Time, id: RequestId, answered: Answered) {
        let Some(errand) = self.asked.remove(&id) else {
            return;
        };
        if matches!(errand, Errand::Stream) {
            return self.streamed(now, id, &answered);
        }
        let frame = read(answered);
        if frame.is_err() {
            self.figures.failed_requests += 1;
        }
        if frame
            .as_ref()
            .is_ok_and(|frame| frame.kind == Kind::Unknown)
        {
            return self.forget_session(now);
        }
        match errand {
            Errand::Open => self.opened(now, frame),
            Errand::Up(upward, bytes) => self.carried(now, upward, bytes, frame),
            Errand::Poll { seq, most, at } => self.polled(now, (seq, most, at), frame),
            Errand::Pour => self.poured(now, id, frame),
            Errand::Stream | Errand::Close => {}
        }
    }

    fn opened(&mut self, now: Time, frame: Result<Frame, Refusal>) {
        match frame {
            Ok(frame) if frame.kind == Kind::Opened => {
                self.token = Some(frame.token);
                self.order = Order::default();
                (self.up_seq, self.poll_seq) = (0, 0);
                self.up.passed(0);
                self.out.push_back(NearOutput::Opened);
            }
            Err(Refusal::Damaged) => {
                self.damaged();
                self.failed(now, true);
            }
            Ok(_) | Err(_) => self.failed(now, true),
        }
    }

    /// The server does not know the session: what waits goes into the next one.
    fn forget_session(&mut self, now: Time) {
        if self.token.take().is_some() {
            self.stop_streams();
            self.again.clear();
            self.asked.clear();
            self.failed(now, true);
        }
    }

    fn carried(&mut self, now: Time, upward: Upward, bytes: usize, frame: Result<Frame, Refusal>) {
        let refusal = match frame {
            Ok(frame) if frame.kind == Kind::Taken && frame.ack == upward.seq => {
                self.figures.sent_packets += upward.packets.len() as u64;
                self.damaged = 0;
                self.up.passed(bytes);
                return self.take(now, frame);
            }
            Ok(_) => Refusal::Cached,
            Err(refusal) => refusal,
        };
        let few = self.up.failures < LOST_FAILURES;
        match refusal {
            Refusal::TooLong => {
                if self.up.size.refused(bytes) {
                    return self.shorter(upward);
                }
            }
            Refusal::Damaged => {
                self.damaged();
                if self.up.size.refused(bytes) {
                    return self.shorter(upward);
                }
            }
            Refusal::Forbidden if !self.pad => self.pad = true,
            Refusal::Forbidden | Refusal::Silence | Refusal::Broken | Refusal::Status(_) => {
                if few && upward.attempts > 1 {
                    self.up.size.refused(bytes);
                    self.down.size.refused(self.down.size.now());
                }
            }
            Refusal::ReplyDamaged => {
                self.down.size.refused(self.down.size.now());
            }
            Refusal::Cached => self.figures.cached_replies += 1,
            Refusal::NoConnection | Refusal::Authentication | Refusal::Busy => {}
        }
        self.failed(now, true);
        // Without a connection nothing was tried.
        if refusal == Refusal::NoConnection || upward.attempts < ATTEMPTS_MAX {
            self.shorter(upward);
        } else {
            self.figures.dropped_packets += upward.packets.len() as u64;
        }
    }

    /// Sends under the same number what fits by now, and the rest after it.
    fn shorter(&mut self, mut upward: Upward) {
        let bytes = self.up.size.now().min(self.way.coding.frame_bytes_max());
        let mut all = Queue::default();
        all.put_back(std::mem::take(&mut upward.packets));
        self.figures.dropped_packets += all.drop_unfit(bytes);
        upward.packets = all.fill(bytes);
        let rest = all.fill(usize::MAX);
        if !rest.is_empty() {
            self.queue.put_back(rest);
            self.waiting.get_or_insert(Time::ZERO);
        }
        self.again.push_back(upward);
    }

    fn polled(
        &mut self,
        now: Time,
        (seq, most, at): (u32, usize, Time),
        frame: Result<Frame, Refusal>,
    ) {
        let refusal = match frame {
            Ok(frame) if frame.kind == Kind::Polled && frame.ack == seq => {
                self.down.passed(frame.bytes());
                self.full = frame.bytes() >= most / 2;
                if now >= at + Duration::from_secs(self.wait_s.into()) {
                    self.wait_s = WAIT_S_MAX.min(self.wait_s + 1);
                }
                if frame.packets.is_empty() && now < at + HASTY {
                    self.down.pause = at + HASTY;
                }
                return self.take(now, frame);
            }
            Ok(_) => Refusal::Cached,
            Err(refusal) => refusal,
        };
        let few = self.down.failures < LOST_FAILURES;
        match refusal {
            Refusal::Silence | Refusal::Broken | Refusal::Status(_) => {
                if few {
                    self.wait_s = WAIT_S_MIN.max(self.wait_s / 2);
                    self.down.size.refused(most);
                }
            }
            // A proxy that forbids everything for a while says nothing of this reply.
            Refusal::ReplyDamaged | Refusal::Forbidden => {
                if few && self.up.failures == 0 {
                    self.down.size.refused(most);
                }
            }
            Refusal::Cached => self.figures.cached_replies += 1,
            Refusal::TooLong
            | Refusal::Damaged
            | Refusal::NoConnection
            | Refusal::Authentication
            | Refusal::Busy => {}
        }
        self.failed(now, false);
    }

    fn damaged(&mut self) {
        self.damaged += 1;
        if self.damaged >= DAMAGED_MAX
            && let Some(coding) = self.way.coding.safer()
        {
            self.damaged = 0;
            self.way.coding = coding;
            self.up.size.limit(coding.frame_bytes_max());
        }
    }

    fn failed(&mut self, now: Time, upward: bool) {
        let direction = if upward { &mut self.up } else { &mut self.down };
        if direction.failed(now) && !self.ended {
            self.ended = true;
            self.stop_streams();
            self.out.push_back(NearOutput::Lost);
        }
    }

    fn take(&mut self, now: Time, frame: Frame) {
        self.pours.told(now, frame.least);
        if frame.seq == UNNUMBERED {
            return;
        }
        let mut packets = Vec::new();
        if !self.order.take(now, frame.seq, frame.packets, &mut packets) {
            self.figures.cached_replies += 1;
        }
        self.give(packets);
    }

    fn give(&mut self, packets: Vec<Bytes>) {
        self.figures.received_packets += packets.len() as u64;
        self.out
            .extend(packets.into_iter().map(NearOutput::Datagram));
    }

    /// Whether what waits has waited long enough, or is enough.
    fn has_gathered(&self, now: Time) -> bool {
        let enough = self.queue.bytes() >= GATHER_BYTES;
        self.waiting
            .is_some_and(|since| enough || since + GATHER <= now)
    }

    /// Whether no request with packets may follow those under way.
    fn is_full(&self) -> bool {
        self.upward() >= self.upward_max()
    }

    fn upward_max(&self) -> usize {
        let more = self.queue.bytes() >= self.up.size.now() && self.pours_under_way() == 0;
        UPWARD_MAX - usize::from(!more)
    }

    fn polls_max(&self) -> usize {
        // Beside a stream one is there for when it ends.
        match self.streams.is_open() {
            true => 1,
            false => POLLS_MAX - usize::from(!self.full),
        }
    }

    /// Gives up all that is a stream.
    fn stop_streams(&mut self) {
        let is_stream = |errand: &Errand| matches!(errand, Errand::Stream | Errand::Pour);
        let streams = self.asked.extract_if(.., |_, errand| is_stream(errand));
        self.out.extend(streams.map(|(id, _)| NearOutput::Stop(id)));
        self.streams.stop();
        self.pours.stop();
    }

    fn upward(&self) -> usize {
        let is_up = |errand: &&Errand| matches!(errand, Errand::Up(..) | Errand::Open);
        self.asked.values().filter(is_up).count()
    }

    /// Requests under way that carry packets.
    fn carrying(&self) -> usize {
        let carries = |errand: &&Errand| match errand {
            Errand::Up(upward, _) => !upward.packets.is_empty(),
            _ => false,
        };
        self.asked.values().filter(carries).count()
    }

    fn polls(&self) -> usize {
        let is_poll = |errand: &&Errand| matches!(errand, Errand::Poll { .. });
        self.asked.values().filter(is_poll).count()
    }
}

fn number(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn seconds(bytes: usize) -> Duration {
    Duration::from_secs(bytes as u64 / u64::from(SLOW_BYTES_PER_S))
}
