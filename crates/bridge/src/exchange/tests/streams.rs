//! Replies and requests that are streams: as they should be, and late, cut, lost or forged.

mod pours;

use super::*;
use crate::frame::{PART_BYTES_MAX, UNNUMBERED};

fn stream(token: Token, seq: u32) -> Frame {
    let mut frame = Frame::new(Kind::Stream, token);
    (frame.seq, frame.wait_s, frame.most) = (seq, 60, STREAM_BYTES_MAX as u32);
    frame
}

fn send(server: &mut Server, now: Time, packets: usize) {
    for _ in 0..packets {
        let packet = vec![5; 1_000].into();
        server.input(now, FarInput::Send(SessionId(0), packet));
    }
}

fn packets(parts: &[(AskId, Frame)]) -> usize {
    parts.iter().map(|(_, frame)| frame.packets.len()).sum()
}

/// A session with a stream, which is request 2, and a poll.
fn streaming(limits: Limits) -> (Server, Token) {
    let mut server = Server::new(limits);
    let token = server.open(Time::ZERO).token;
    server.ask(Time::ZERO, &stream(token, 0));
    let mut kept = poll(token, 1);
    kept.least = 1;
    server.ask(Time::ZERO, &kept);
    (server, token)
}

#[test]
fn a_stream_carries_packets_as_they_come_and_a_beat() {
    let (mut server, _) = streaming(Limits::default());
    assert_eq!((server.parts.len(), packets(&server.parts)), (1, 0));
    send(&mut server, second(1), 1);
    server.input(second(1) + GATHER, FarInput::Timeout);
    let (ask, part) = server.parts[1].clone();
    assert_eq!(
        (ask, part.kind, part.ack, part.seq),
        (2, Kind::Polled, 0, 0)
    );
    assert_eq!(part.packets.len(), 1);
    // What is told keeps it: a beat follows.
    let mut told = poll([0; 16], 2);
    (told.token, told.least, told.ack) = (server.answers[0].1.token, 1, 2);
    server.ask(second(2), &told);
    assert_eq!(server.far.next_timeout(), Some(second(1) + GATHER + BEAT));
    server.input(second(1) + GATHER + BEAT, FarInput::Timeout);
    assert_eq!((server.parts.len(), packets(&server.parts)), (3, 1));
    // Neither poll was answered with what the stream carried.
    assert_eq!(server.answers.len(), 1);
    server.input(second(60), FarInput::Timeout);
    assert_eq!(server.ended, [2]);
}

#[test]
fn a_stream_is_no_longer_than_was_asked_for_and_polls_have_the_rest() {
    let mut server = Server::new(Limits::default());
    let token = server.open(Time::ZERO).token;
    let mut short = stream(token, 0);
    short.most = 10_000;
    server.ask(Time::ZERO, &short);
    send(&mut server, Time::ZERO, 40);
    let bytes: usize = server.parts.iter().map(|(_, part)| part.bytes()).sum();
    assert!((5_000..=10_000).contains(&bytes), "{bytes}");
    assert_eq!((server.ended.len(), packets(&server.parts)), (1, 9));
    let mut rest = poll(token, 1);
    rest.most = 100_000;
    // The next stream is waited for, since what goes by polls may come later than what that carries.
    assert_eq!(server.ask(Time::ZERO, &rest), None);
    assert_eq!(server.far.next_timeout(), Some(FOLLOWS_WITHIN));
    server.input(FOLLOWS_WITHIN, FarInput::Timeout);
    assert_eq!(server.answers.last().unwrap().1.packets.len(), 31);
}

#[test]
fn a_stream_of_which_nothing_is_heard_gives_way_to_polls() {
    let (mut server, token) = streaming(Limits::default());
    send(&mut server, Time::ZERO, 20);
    assert!(packets(&server.parts) > 0);
    server.input(second(3), FarInput::Timeout);
    assert!(server.ended.is_empty());
    // The first of it takes two seconds on the slowest lines.
    server.input(second(5), FarInput::Timeout);
    // Who reads it after all learns why it ends.
    assert_eq!(server.parts.last().unwrap().1.most, 1);
    assert_eq!(server.ended, [2]);
    send(&mut server, second(6), 20);
    assert!(!server.answers.last().unwrap().1.packets.is_empty());
    // A poll that was asked before the next stream does not end it, one that was asked after it may.
    server.ask(second(7), &stream(token, 5));
    server.ask(second(7), &poll(token, 4));
    assert_eq!(server.ended.len(), 1);
    server.ask(second(7), &poll(token, 6));
    assert_eq!(server.ended.len(), 2);
}

#[test]
fn what_nobody_reads_of_a_stream_is_bounded() {
    let (mut server, token) = streaming(Limits::default());
    server.writes = false;
    send(&mut server, Time::ZERO, 1_500);
    let bytes = |server: &Server| -> usize {
        let parts = server.parts.iter();
        parts.map(|(_, part)| part.bytes()).sum()
    };
    let unread = bytes(&server);
    assert!(unread < UNWRITTEN_BYTES_MAX + PART_BYTES_MAX, "{unread}");
    server.input(Time::ZERO, FarInput::Written(2, unread));
    let mut told = poll(token, 2);
    (told.least, told.ack) = (1, 1_000);
    server.ask(Time::ZERO, &told);
    assert!(bytes(&server) > unread);
    // Less where all together have little room.
    let limits = Limits {
        replies_bytes_max: 80_000,
        ..Limits::default()
    };
    let (mut server, _) = streaming(limits);
    server.writes = false;
    send(&mut server, Time::ZERO, 1_500);
    let unread = bytes(&server);
    assert!((10_000..=20_100).contains(&unread), "{unread}");
    server.input(Time::ZERO, FarInput::Gone(2));
    // What was in its way is gone.
    assert!(!server.answers.last().unwrap().1.packets.is_empty());
}

#[test]
fn long_replies_have_room_or_are_short() {
    let limits = Limits {
        replies_bytes_max: 80_000,
        ..Limits::default()
    };
    let mut server = Server::new(limits);
    server.writes = false;
    let token = server.open(Time::ZERO).token;
    let mut long = poll(token, 0);
    long.most = FRAME_BYTES_MAX as u32;
    send(&mut server, Time::ZERO, 100);
    let lengths: Vec<usize> = (0..4)
        .map(|_| server.ask(Time::ZERO, &long).unwrap().bytes())
        .collect();
    assert!((18_000..=20_000).contains(&lengths[0]), "{lengths:?}");
    // One packet passes always.
    assert!(
        lengths[1..]
            .iter()
            .all(|bytes| (1_000..2_100).contains(bytes)),
        "{lengths:?}"
    );
    let mut probe = Frame::new(Kind::Probe, [0; 16]);
    probe.most = 3_000;
    assert_eq!(server.ask(Time::ZERO, &probe).unwrap().kind, Kind::Busy);
    server.input(Time::ZERO, FarInput::Written(2, lengths[0]));
    assert_eq!(server.ask(Time::ZERO, &probe).unwrap().kind, Kind::Probed);
}

#[test]
fn probes_that_nobody_reads_leave_room_for_sessions() {
    let limits = Limits {
        replies_bytes_max: 80_000,
        ..Limits::default()
    };
    let mut server = Server::new(limits);
    server.writes = false;
    let token = server.open(Time::ZERO).token;
    let mut probe = Frame::new(Kind::Probe, [0; 16]);
    probe.most = 4_000;
    // One of the addresses is that of the session too.
    for last in 1..=8 {
        for ask in 0..8 {
            let (ask, from) = (
                1_000 + u64::from(last) * 100 + ask,
                [127, 0, 0, last].into(),
            );
            let octets = Ok(probe.encode(0));
            server.input(Time::ZERO, FarInput::Asked { ask, from, octets });
        }
    }
    let kinds = |kind| {
        let answers = server.answers.iter();
        answers.filter(|(_, frame)| frame.kind == kind).count()
    };
    assert!(
        (8..=10).contains(&kinds(Kind::Probed)),
        "{}",
        kinds(Kind::Probed)
    );
    assert!(kinds(Kind::Busy) > 50);
    send(&mut server, Time::ZERO, 100);
    let mut long = poll(token, 0);
    long.most = FRAME_BYTES_MAX as u32;
    let bytes = server.ask(Time::ZERO, &long).unwrap().bytes();
    assert!((8_000..=20_000).contains(&bytes), "{bytes}");
}

#[test]
fn nothing_waits_for_what_carries_no_packets() {
    let (mut server, token) = streaming(Limits::default());
    let mut sent = Frame::new(Kind::Up, token);
    sent.packets = pattern(2_000);
    for seq in 0..3 {
        sent.seq = seq;
        // Beside a stream an answer carries nothing, and may come late.
        let taken = server.ask(second(1), &sent).unwrap();
        assert_eq!((taken.kind, taken.seq), (Kind::Taken, UNNUMBERED));
        send(&mut server, second(1), 20);
    }
    let numbers = server
        .parts
        .iter()
        .filter(|(_, part)| !part.packets.is_empty());
    let numbers: Vec<u32> = numbers.map(|(_, part)| part.seq).collect();
    assert_eq!(numbers, (0..numbers.len() as u32).collect::<Vec<_>>());
    // Nor does anything at the other end for what only tells.
    let mut client = Client::new(STREAM_BYTES_MAX, 0);
    client.part(second(1), 0, 10);
    client.input(second(2), NearInput::Timeout);
    assert_eq!(client.find(Kind::Up).unwrap().1.seq, UNNUMBERED);
    client.send(second(3), 1);
    assert_eq!(client.open.last().unwrap().1.seq, 0);
}

fn poured(token: Token, seq: u32) -> Result<Bytes, Damage> {
    let mut frame = Frame::new(Kind::Up, token);
    frame.seq = seq;
    frame.packets = pattern(2_000);
    Ok(frame.encode(0))
}

#[test]
fn what_is_poured_arrives_and_is_told_of() {
    for by_stream in [true, false] {
        let (mut server, token) = streaming(Limits::default());
        if !by_stream {
            server.input(Time::ZERO, FarInput::Gone(2));
        }
        assert_eq!(server.ask(second(1), &Frame::new(Kind::Pour, token)), None);
        for seq in 0..3 {
            server.input(second(1), FarInput::More(4, poured(token, seq)));
        }
        assert_eq!(server.arrived, pattern(2_000).len() * 3);
        server.input(second(1) + TELL_WITHIN, FarInput::Timeout);
        let told = match by_stream {
            true => &server.parts.last().unwrap().1,
            false => &server.answers.last().unwrap().1,
        };
        assert_eq!((told.kind, told.least), (Kind::Polled, 3));
        assert!(server.far.next_timeout().unwrap() > second(2));
        server.input(second(2), FarInput::Ended(4));
        let (ask, taken) = server.answers.last().unwrap();
        assert_eq!((*ask, taken.kind, taken.least), (4, Kind::Taken, 3));
    }
}

#[test]
fn a_request_that_pours_what_is_not_its_own_ends() {
    let (mut server, token) = streaming(Limits::default());
    let other = server.open(Time::ZERO).token;
    let bad = [
        poured(other, 0),
        Err(Damage::Foreign),
        Ok(Frame::new(Kind::Poll, token).encode(0)),
        Ok(poured(token, 0).unwrap().slice(..100)),
    ];
    for octets in bad {
        server.ask(Time::ZERO, &Frame::new(Kind::Pour, token));
        let ask = server.asks;
        server.input(Time::ZERO, FarInput::More(ask, octets));
        assert_eq!(server.answers.last().unwrap().0, ask);
        assert_eq!(server.answers.last().unwrap().1.kind, Kind::Damaged);
        server.input(Time::ZERO, FarInput::More(ask, poured(token, 0)));
        server.input(Time::ZERO, FarInput::Ended(ask));
    }
    assert_eq!(server.arrived, 0);
    let first = server.asks + 1;
    for _ in 0..3 {
        server.ask(Time::ZERO, &Frame::new(Kind::Pour, token));
    }
    let (ask, busy) = server.answers.last().unwrap().clone();
    assert_eq!((ask, busy.kind), (first, Kind::Busy));
    // The end of a session is the end of all that is its own.
    server.ask(Time::ZERO, &Frame::new(Kind::Close, token));
    let unknown = server
        .answers
        .iter()
        .filter(|(_, frame)| frame.kind == Kind::Unknown);
    assert_eq!((unknown.count(), server.ended.len()), (3, 1));
    assert_eq!(server.parts.last().unwrap().1.kind, Kind::Unknown);
}

#[test]
fn streams_are_tried_without_a_session_and_few_at_once() {
    let mut server = Server::new(Limits::default());
    let trial = |kind, token| Frame::new(kind, [token; 16]);
    server.ask(Time::ZERO, &trial(Kind::Try, 1));
    for at in 1..5 {
        assert_eq!(server.parts.len(), at.min(4));
        server.input(Duration::from_millis(100) * at as u32, FarInput::Timeout);
    }
    assert_eq!((server.parts.len(), &server.ended[..]), (4, &[1][..]));
    // Either half may come first, and others' are not mixed up.
    server.ask(second(1), &trial(Kind::Pour, 2));
    assert_eq!(server.ask(second(1), &trial(Kind::Await, 3)), None);
    assert_eq!(
        server.ask(second(1), &trial(Kind::Await, 2)).unwrap().kind,
        Kind::Probed
    );
    server.ask(second(1), &trial(Kind::Pour, 3));
    assert_eq!(server.answers.last().unwrap().1.kind, Kind::Probed);
    server.input(second(6), FarInput::Timeout);
    assert_eq!((server.far.next_timeout(), server.answers.len()), (None, 4));
    let kinds: Vec<_> = (0..40)
        .map(|_| {
            server
                .ask(second(9), &trial(Kind::Await, 9))
                .map(|frame| frame.kind)
        })
        .collect();
    let busy = kinds.iter().filter(|kind| **kind == Some(Kind::Busy));
    assert_eq!(busy.count(), 8);
}

/// A client in a session, and what it asks.
struct Client {
    near: Near,
    open: Vec<(RequestId, Frame)>,
    more: Vec<(RequestId, Bytes)>,
    stopped: Vec<RequestId>,
}

impl Client {
    fn new(stream_bytes: usize, pour_bytes: usize) -> Self {
        Self::by(way(), stream_bytes, pour_bytes)
    }

    fn by(way: Way, stream_bytes: usize, pour_bytes: usize) -> Self {
        let way = Way {
            stream_bytes,
            pour_bytes,
            ..way
        };
        let mut client = Self {
            near: Near::new(way, [2; 32]),
            open: Vec::new(),
            more: Vec::new(),
            stopped: Vec::new(),
        };
        client.input(Time::ZERO, NearInput::Timeout);
        let opened = reply(&Frame::new(Kind::Opened, [4; 16]));
        client.answer(Time::ZERO, Kind::Open, opened);
        client
    }

    fn input(&mut self, now: Time, input: NearInput) {
        let outputs: Vec<NearOutput> = self.near.handle(now, input).collect();
        for output in &outputs {
            match output {
                NearOutput::More(id, octets) => self.more.push((*id, octets.clone())),
                NearOutput::Stop(id) => {
                    self.open.retain(|(other, _)| other != id);
                    self.stopped.push(*id);
                }
                NearOutput::Ask(..)
                | NearOutput::Opened
                | NearOutput::Datagram(_)
                | NearOutput::Lost => {}
            }
        }
        self.open.extend(asks(outputs.into_iter()));
        let next = self.near.next_timeout();
        assert!(next.is_none_or(|time| time > now), "{:?}", self.near);
    }

    fn find(&self, kind: Kind) -> Option<(RequestId, Frame)> {
        self.open
            .iter()
            .find(|(_, frame)| frame.kind == kind)
            .cloned()
    }

    fn answer(&mut self, now: Time, kind: Kind, answered: Answered) {
        let (id, _) = self.find(kind).unwrap();
        self.open.retain(|(other, _)| *other != id);
        self.input(now, NearInput::Answered(id, answered));
    }

    fn send(&mut self, now: Time, packets: usize) {
        for _ in 0..packets {
            self.input(now, NearInput::Send(vec![8; 1_000].into()));
        }
        self.input(now + GATHER, NearInput::Timeout);
    }

    /// A frame of the stream that there is.
    fn part(&mut self, now: Time, seq: u32, packets: usize) {
        let (id, asked) = self.find(Kind::Stream).unwrap();
        let mut frame = Frame::new(Kind::Polled, [0; 16]);
        (frame.seq, frame.ack) = (seq, asked.seq);
        frame.packets = vec![vec![9; 1_000].into(); packets];
        self.input(now, NearInput::Part(id, frame.encode(0)));
    }

    /// All requests that carry packets are answered.
    fn taken(&mut self, now: Time) {
        while let Some((_, asked)) = self.find(Kind::Up) {
            let mut taken = Frame::new(Kind::Taken, [0; 16]);
            (taken.ack, taken.seq) = (asked.seq, UNNUMBERED);
            self.answer(now, Kind::Up, reply(&taken));
        }
    }

    /// The server tells that it waits for the number `next`.
    fn told(&mut self, now: Time, next: u32) {
        let (id, asked) = self.find(Kind::Poll).unwrap();
        self.open.retain(|(other, _)| *other != id);
        let mut frame = Frame::new(Kind::Polled, [0; 16]);
        (frame.ack, frame.least) = (asked.seq, next);
        self.input(now, NearInput::Answered(id, reply(&frame)));
    }
}

fn over() -> Answered {
    let body = Bytes::new();
    Ok(Answer { status: 200, body })
}

#[test]
fn beside_a_stream_one_poll_waits_and_what_came_is_told() {
    let mut client = Client::new(STREAM_BYTES_MAX, 0);
    let kinds: Vec<Kind> = client.open.iter().map(|(_, frame)| frame.kind).collect();
    assert_eq!(kinds, [Kind::Stream, Kind::Poll]);
    client.part(second(1), 0, 0);
    // Of a beat nothing is told.
    client.input(second(2), NearInput::Timeout);
    assert_eq!(client.find(Kind::Up), None);
    client.part(second(3), 1, 10);
    assert_eq!(client.near.next_timeout(), Some(second(3) + TELL_WITHIN));
    client.input(second(3) + TELL_WITHIN, NearInput::Timeout);
    let (_, told) = client.find(Kind::Up).unwrap();
    assert_eq!((told.ack, told.packets.len()), (2, 0));
    assert_eq!(client.near.figures().received_packets, 10);
    // The next follows at once.
    client.answer(second(60), Kind::Stream, over());
    assert!(client.find(Kind::Stream).is_some());
}

#[test]
fn a_silent_stream_is_given_up_and_tried_again_rarely() {
    let mut client = Client::new(STREAM_BYTES_MAX, 0);
    let (mut now, mut tries) = (Time::ZERO, Vec::new());
    while now < second(3_600) {
        if let Some((id, _)) = client.find(Kind::Stream)
            && tries.last() != Some(&id)
        {
            tries.push(id);
        }
        now += second(1);
        client.input(now, NearInput::Timeout);
    }
    assert!((4..8).contains(&tries.len()), "{tries:?}");
    assert!(client.stopped.len() + 1 >= tries.len());
    // Polls go on as they did without it, and tell that it is not used.
    let polls = client
        .open
        .iter()
        .filter(|(_, frame)| frame.kind == Kind::Poll);
    assert_eq!(polls.count(), 2);
}

#[test]
fn a_stream_that_is_cut_is_shorter_the_next_time() {
    let mut client = Client::new(STREAM_BYTES_MAX, 0);
    client.part(second(1), 0, 1);
    client.answer(second(30), Kind::Stream, Err(Failure::Cut));
    let (_, next) = client.find(Kind::Stream).unwrap();
    assert_eq!((next.wait_s, next.most), (21, STREAM_BYTES_MAX as u32));
    for seq in 1..41 {
        client.part(second(31), seq, 60);
    }
    client.answer(second(32), Kind::Stream, Err(Failure::Cut));
    let (_, next) = client.find(Kind::Stream).unwrap();
    assert_eq!(next.wait_s, 21);
    assert!((1_700_000..1_900_000).contains(&next.most), "{}", next.most);
    // What comes to its end for a while grows again.
    for round in 0..64 {
        client.part(second(33 + round), 41 + round as u32, 1);
        client.answer(second(34 + round), Kind::Stream, over());
    }
    let (_, next) = client.find(Kind::Stream).unwrap();
    assert_eq!((next.wait_s, next.most), (60, STREAM_BYTES_MAX as u32));
    // What is cut at once is of no use, nor is what nobody is told of, nor what is no stream.
    client.part(second(97), 200, 1);
    client.answer(second(98), Kind::Stream, Err(Failure::Cut));
    assert_eq!(client.find(Kind::Stream), None);
    client.input(second(200), NearInput::Timeout);
    client.answer(second(201), Kind::Stream, over());
    assert_eq!(client.find(Kind::Stream), None);
}

#[test]
fn a_stream_that_the_server_ends_for_want_of_word_is_left() {
    let mut client = Client::new(STREAM_BYTES_MAX, 0);
    let (id, asked) = client.find(Kind::Stream).unwrap();
    let mut last = Frame::new(Kind::Polled, [0; 16]);
    (last.ack, last.most) = (asked.seq, 1);
    client.input(second(9), NearInput::Part(id, last.encode(0)));
    client.answer(second(9), Kind::Stream, over());
    assert_eq!(client.find(Kind::Stream), None);
    // Somebody else's frames are not taken.
    client.input(second(90), NearInput::Timeout);
    let (id, _) = client.find(Kind::Stream).unwrap();
    last.ack = 77;
    client.input(second(91), NearInput::Part(id, last.encode(0)));
    assert_eq!(client.stopped, [id]);
    let gone = Frame::new(Kind::Unknown, [0; 16]);
    client.input(second(300), NearInput::Timeout);
    let (id, _) = client.find(Kind::Stream).unwrap();
    client.input(second(301), NearInput::Part(id, gone.encode(0)));
    assert!(!client.near.is_open());
}

#[test]
fn a_stream_that_was_asked_for_before_ends_no_newer_one() {
    let (mut server, token) = streaming(Limits::default());
    assert_eq!(server.ask(second(1), &stream(token, 5)), None);
    assert_eq!(server.ended, [2]);
    let late = server.ask(second(2), &stream(token, 4)).unwrap();
    assert_eq!((late.kind, server.ended.len()), (Kind::Busy, 1));
    // Who asks again for the same has not got it.
    assert_eq!(server.ask(second(3), &stream(token, 5)), None);
    assert_eq!(server.ended.len(), 2);
}

proptest! {
    /// Whatever comes of streams, a client has few requests under way, sends no more than it declared, and its
    /// deadline is never one that has passed.
    #[test]
    fn a_client_survives_any_streams(steps in proptest::collection::vec((any_kind(), 0_usize..8, any::<u32>(), 0_u32..6, 0_u8..10, 0_u64..2_000), 1..100)) {
        let mut client = Client::new(1 << 20, 1 << 20);
        let mut now = Time::ZERO;
        for (kind, at, seq, numbers, what, wait_ms) in steps {
            now += Duration::from_millis(wait_ms);
            client.send(now, usize::from(what) * 8);
            now += GATHER;
            if !client.open.is_empty() {
                let (id, asked) = client.open[at % client.open.len()].clone();
                let mut frame = Frame::new(kind, [7; 16]);
                (frame.seq, frame.least) = (seq % 64, seq % 100);
                (frame.ack, frame.most) = (asked.seq.wrapping_add(numbers / 5), numbers % 2);
                frame.packets = pattern(OVERHEAD_BYTES + 2_000);
                let input = match what {
                    0..4 => NearInput::Part(id, frame.encode(0)),
                    4 => NearInput::Part(id, Bytes::from_static(b"<html>")),
                    5 => NearInput::Written(id, seq as usize),
                    _ => {
                        client.open.retain(|(other, _)| *other != id);
                        NearInput::Answered(id, match what {
                            6 => reply(&frame),
                            7 => over(),
                            8 => Err(Failure::Cut),
                            _ => Ok(Answer { status: 413, body: Bytes::new() }),
                        })
                    }
                };
                client.input(now, input);
            }
            // Those of a session that was forgotten are nobody's.
            let token = client.open.last().map(|(_, frame)| frame.token);
            let open = client.open.iter().filter(|(_, frame)| Some(frame.token) == token).count();
            prop_assert!(open <= crate::CONNECTIONS_MAX, "{}", open);
            if !client.near.is_open() {
                client.near.resume(Way { stream_bytes: 1 << 20, pour_bytes: 1 << 20, ..way() });
                client.input(now, NearInput::Timeout);
            }
        }
        let mut sent = std::collections::BTreeMap::<RequestId, usize>::new();
        for (id, octets) in &client.more {
            *sent.entry(*id).or_default() += octets.len();
        }
        prop_assert!(sent.values().all(|bytes| *bytes < 1 << 20));
    }
}
