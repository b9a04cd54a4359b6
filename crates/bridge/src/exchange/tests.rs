mod streams;

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::frame::{Damage, OVERHEAD_BYTES, Token};
use crate::way::{Agent, Ask, Coding, ReplyCoding, Way, dress_reply};
use crate::{FRAME_BYTES_MAX, Time};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn second(seconds: u64) -> Time {
    Duration::from_secs(seconds)
}

/// A server's end and how requests fare.
struct Server {
    far: Far,
    asks: AskId,
    answers: Vec<(AskId, Frame)>,
    /// What came of streams, and which have ended.
    parts: Vec<(AskId, Frame)>,
    ended: Vec<AskId>,
    /// Whether what is handed on is written at once.
    writes: bool,
    arrived: usize,
    closed: usize,
}

impl Server {
    fn new(limits: Limits) -> Self {
        Self {
            far: Far::new(limits, [1; 32]),
            asks: 0,
            answers: Vec::new(),
            parts: Vec::new(),
            ended: Vec::new(),
            writes: true,
            arrived: 0,
            closed: 0,
        }
    }

    fn input(&mut self, now: Time, input: FarInput) {
        let outputs: Vec<FarOutput> = self.far.handle(now, input).collect();
        for output in outputs {
            let (ask, body) = match output {
                FarOutput::Answer { ask, body, .. } => {
                    let frame = Frame::decode(&undress(&body).unwrap()).unwrap();
                    self.answers.push((ask, frame));
                    (ask, body)
                }
                FarOutput::Part { ask, body, .. } => {
                    assert!(!self.ended.contains(&ask), "it has ended");
                    self.parts.push((ask, Frame::decode(&body).unwrap()));
                    (ask, body)
                }
                FarOutput::End(ask) => {
                    self.ended.push(ask);
                    continue;
                }
                FarOutput::Datagram(..) => {
                    self.arrived += 1;
                    continue;
                }
                FarOutput::Closed(_) => {
                    self.closed += 1;
                    continue;
                }
                FarOutput::Opened(..) => continue,
            };
            if self.writes {
                self.input(now, FarInput::Written(ask, body.len()));
            }
        }
    }

    fn ask_from(&mut self, now: Time, from: IpAddr, frame: &Frame) -> Option<Frame> {
        self.asks += 1;
        let (ask, octets) = (self.asks, Ok(frame.encode(0)));
        self.input(now, FarInput::Asked { ask, from, octets });
        let answer = self.answers.iter().find(|(id, _)| *id == ask);
        answer.map(|(_, frame)| frame.clone())
    }

    fn ask(&mut self, now: Time, frame: &Frame) -> Option<Frame> {
        self.ask_from(now, HERE, frame)
    }

    fn open(&mut self, now: Time) -> Frame {
        self.ask(now, &Frame::new(Kind::Open, [0; 16])).unwrap()
    }
}

fn poll(token: Token, seq: u32) -> Frame {
    let mut frame = Frame::new(Kind::Poll, token);
    (frame.seq, frame.wait_s, frame.most) = (seq, 20, 4_096);
    frame
}

#[test]
fn a_poll_returns_with_packets_or_when_its_time_is_over() {
    let mut server = Server::new(Limits::default());
    let token = server.open(Time::ZERO).token;
    assert_eq!(server.ask(Time::ZERO, &poll(token, 0)), None);
    assert_eq!(server.far.next_timeout(), Some(second(20)));
    let packet = Bytes::from_static(b"packet");
    server.input(second(1), FarInput::Send(SessionId(0), packet.clone()));
    assert_eq!(server.far.next_timeout(), Some(second(1) + GATHER));
    server.input(second(1) + GATHER, FarInput::Timeout);
    let (_, reply) = server.answers.last().unwrap();
    assert_eq!(
        (reply.kind, reply.ack, reply.packets.len()),
        (Kind::Polled, 0, 1)
    );
    server.ask(second(2), &poll(token, 1));
    server.input(second(22), FarInput::Timeout);
    let (_, reply) = server.answers.last().unwrap();
    assert_eq!(
        (reply.ack, reply.seq, reply.packets.len()),
        (1, crate::frame::UNNUMBERED, 0)
    );
}

#[test]
fn much_returns_at_once_and_no_more_than_was_asked_for() {
    let mut server = Server::new(Limits::default());
    let token = server.open(Time::ZERO).token;
    server.ask(Time::ZERO, &poll(token, 0));
    for _ in 0..20 {
        server.input(
            Time::ZERO,
            FarInput::Send(SessionId(0), vec![1; 1_000].into()),
        );
    }
    let (_, reply) = server.answers.last().unwrap();
    assert_eq!(reply.packets.len(), 4);
    assert!(reply.bytes() <= 4_096);
}

#[test]
fn a_request_that_comes_twice_is_taken_once_and_answered_twice() {
    let mut server = Server::new(Limits::default());
    let mut frame = Frame::new(Kind::Up, server.open(Time::ZERO).token);
    frame.packets.push(Bytes::from_static(b"packet"));
    for _ in 0..2 {
        assert_eq!(server.ask(Time::ZERO, &frame).unwrap().kind, Kind::Taken);
    }
    assert_eq!(server.arrived, 1);
}

#[test]
fn packets_where_none_belong_are_not_kept() {
    let mut server = Server::new(Limits::default());
    let token = server.open(Time::ZERO).token;
    for kind in [Kind::Open, Kind::Poll, Kind::Close] {
        let mut frame = poll(token, 0);
        frame.kind = kind;
        frame.packets = pattern(FRAME_BYTES_MAX);
        assert_eq!(
            server.ask(Time::ZERO, &frame).unwrap().kind,
            Kind::Damaged,
            "{kind:?}"
        );
    }
    assert_eq!((server.far.sessions(), server.arrived), (1, 0));
}

#[test]
fn what_waits_out_of_order_is_bounded_for_all_sessions() {
    let limits = Limits {
        queued_bytes_max: 10_000,
        ..Limits::default()
    };
    let mut server = Server::new(limits);
    let tokens = [(); 3].map(|()| server.open(Time::ZERO).token);
    for (at, token) in tokens.into_iter().enumerate() {
        let mut frame = Frame::new(Kind::Up, token);
        frame.seq = 1;
        frame.packets = pattern(4_096);
        server.ask(Time::ZERO, &frame);
        // Those of the third have no room, and are given on at once.
        assert_eq!(server.arrived > 0, at == 2, "{at}");
    }
    server.ask(Time::ZERO, &Frame::new(Kind::Close, tokens[0]));
    let mut frame = Frame::new(Kind::Up, tokens[2]);
    frame.seq = 3;
    frame.packets = pattern(4_096);
    let before = server.arrived;
    server.ask(Time::ZERO, &frame);
    assert_eq!(server.arrived, before);
    server.input(second(1), FarInput::Timeout);
    assert_eq!(server.arrived, before * 3);
}

#[test]
fn sessions_are_counted_for_each_address_and_in_all() {
    let limits = Limits {
        sessions_max: 3,
        sessions_per_place_max: 2,
        ..Limits::default()
    };
    let mut server = Server::new(limits);
    let mut open = |from: &str| {
        let open = Frame::new(Kind::Open, [0; 16]);
        server
            .ask_from(Time::ZERO, from.parse().unwrap(), &open)
            .unwrap()
            .kind
    };
    assert_eq!(open("2001:db8::1"), Kind::Opened);
    assert_eq!(open("2001:db8::2"), Kind::Opened);
    assert_eq!(open("2001:db8::3"), Kind::Busy);
    assert_eq!(open("192.0.2.1"), Kind::Opened);
    assert_eq!(open("192.0.2.2"), Kind::Busy);
}

#[test]
fn openings_and_probes_are_rationed() {
    let limits = Limits {
        openings_max: 2,
        probe_bytes_max: FRAME_BYTES_MAX as u32,
        ..Limits::default()
    };
    let mut server = Server::new(limits);
    let kinds = [0, 0, 0, 1].map(|at| server.open(second(at)).kind);
    assert_eq!(
        kinds,
        [Kind::Opened, Kind::Opened, Kind::Busy, Kind::Opened]
    );
    let mut probe = Frame::new(Kind::Probe, [0; 16]);
    probe.most = u32::MAX;
    let reply = server.ask(second(1), &probe).unwrap();
    assert!(reply.kind == Kind::Probed && reply.bytes() > FRAME_BYTES_MAX - 3);
    assert_eq!(server.ask(second(1), &probe).unwrap().kind, Kind::Busy);
}

#[test]
fn a_session_of_which_nothing_is_heard_ends_and_keeps_nothing() {
    let limits = Limits {
        queued_bytes_max: 3_000,
        ..Limits::default()
    };
    let mut server = Server::new(limits);
    let token = server.open(Time::ZERO).token;
    for _ in 0..4 {
        server.input(
            Time::ZERO,
            FarInput::Send(SessionId(0), vec![0; 1_000].into()),
        );
    }
    assert_eq!(server.far.dropped_packets(), 1);
    server.input(second(60), FarInput::Timeout);
    assert_eq!(
        (
            server.closed,
            server.far.sessions(),
            server.far.next_timeout()
        ),
        (1, 0, None)
    );
    assert_eq!(
        server.ask(second(61), &poll(token, 0)).unwrap().kind,
        Kind::Unknown
    );
    server.open(second(61));
    server.input(
        second(61),
        FarInput::Send(SessionId(1), vec![0; 1_000].into()),
    );
    assert_eq!(server.far.dropped_packets(), 1);
}

#[test]
fn what_is_damaged_is_told_so_and_a_closed_session_is_gone() {
    let mut server = Server::new(Limits::default());
    let token = server.open(Time::ZERO).token;
    let octets = Err(Damage::Foreign);
    server.input(
        Time::ZERO,
        FarInput::Asked {
            ask: 9,
            from: HERE,
            octets,
        },
    );
    assert_eq!(server.answers.last().unwrap().1.kind, Kind::Damaged);
    server.ask(Time::ZERO, &poll(token, 0));
    let close = Frame::new(Kind::Close, token);
    assert_eq!(server.ask(Time::ZERO, &close).unwrap().kind, Kind::Closed);
    // The poll that waited is answered too.
    assert_eq!(server.answers.last().unwrap().1.kind, Kind::Unknown);
    assert_eq!((server.closed, server.far.sessions()), (1, 0));
}

fn way() -> Way {
    Way {
        coding: Coding::Raw,
        polls: Coding::Path,
        reply: ReplyCoding::Raw,
        agent: Agent::Own,
        ask_bytes: 16 * 1024,
        reply_bytes: 16 * 1024,
        pad: false,
        stream_bytes: 0,
        pour_bytes: 0,
    }
}

fn reply(frame: &Frame) -> Answered {
    let body = dress_reply(&frame.encode(0), ReplyCoding::Raw);
    Ok(Answer { status: 200, body })
}

fn asks(outputs: impl Iterator<Item = NearOutput>) -> Vec<(RequestId, Frame)> {
    let asks = outputs.filter_map(|output| match output {
        NearOutput::Ask(id, ask, _) => Some((id, ask)),
        NearOutput::More(..)
        | NearOutput::Stop(_)
        | NearOutput::Opened
        | NearOutput::Datagram(_)
        | NearOutput::Lost => None,
    });
    asks.map(|(id, Ask { path, body, .. })| {
        let octets = Ask::undress(&path, &body).unwrap().unwrap();
        (id, Frame::decode(&octets).unwrap())
    })
    .collect()
}

fn open_near() -> (Near, Vec<(RequestId, Frame)>) {
    let mut near = Near::new(way(), [2; 32]);
    let opening = asks(near.handle(Time::ZERO, NearInput::Timeout));
    let opened = Frame::new(Kind::Opened, [4; 16]);
    let polls = asks(near.handle(
        Time::ZERO,
        NearInput::Answered(opening[0].0, reply(&opened)),
    ));
    (near, polls)
}

#[test]
fn a_reply_out_of_a_cache_is_told() {
    let (mut near, polls) = open_near();
    let mut polled = Frame::new(Kind::Polled, [0; 16]);
    polled.packets.push(Bytes::from_static(b"packet"));
    let first = near.handle(second(1), NearInput::Answered(polls[0].0, reply(&polled)));
    assert!(
        first
            .into_iter()
            .any(|output| matches!(output, NearOutput::Datagram(_)))
    );
    // The same again, as the answer to another.
    let second_time = near.handle(second(1), NearInput::Answered(polls[1].0, reply(&polled)));
    assert!(
        !second_time
            .into_iter()
            .any(|output| matches!(output, NearOutput::Datagram(_)))
    );
    assert_eq!(near.figures().cached_replies, 1);
}

#[test]
fn one_more_poll_waits_while_replies_come_full() {
    let (mut near, polls) = open_near();
    assert_eq!(polls.len(), POLLS_MAX - 1);
    let mut full = Frame::new(Kind::Polled, [0; 16]);
    let most = polls[0].1.most as usize;
    full.packets = vec![vec![1; 1_000].into(); most / 2_000];
    full.packets.push(vec![1; 1_000].into());
    let more = near.handle(second(1), NearInput::Answered(polls[0].0, reply(&full)));
    assert_eq!(asks(more).len(), 2);
    let mut short = Frame::new(Kind::Polled, [0; 16]);
    (short.seq, short.ack) = (1, polls[1].1.seq);
    let fewer = near.handle(second(1), NearInput::Answered(polls[1].0, reply(&short)));
    assert_eq!(asks(fewer).len(), 0);
}

#[test]
fn a_request_that_is_too_long_is_sent_in_parts() {
    let (mut near, _) = open_near();
    let mut sent = Vec::new();
    for _ in 0..20 {
        sent.extend(asks(
            near.handle(second(1), NearInput::Send(vec![8; 1_000].into())),
        ));
    }
    let (id, long) = sent.first().cloned().unwrap();
    assert!(long.packets.len() > 10);
    let refused = Ok(Answer {
        status: 413,
        body: Bytes::new(),
    });
    let again = asks(near.handle(second(1), NearInput::Answered(id, refused)));
    assert_eq!(again[0].1.seq, long.seq);
    assert!(again[0].1.bytes() <= long.bytes() / 2);
    assert_eq!(near.figures().dropped_packets, 0);
}

#[test]
fn a_silent_poll_is_given_up_soon_however_long_replies_may_be() {
    let way = Way {
        ask_bytes: FRAME_BYTES_MAX,
        reply_bytes: FRAME_BYTES_MAX,
        ..way()
    };
    let mut near = Near::new(way, [2; 32]);
    let opening = asks(near.handle(Time::ZERO, NearInput::Timeout));
    let opened = reply(&Frame::new(Kind::Opened, [4; 16]));
    let within = |output| match output {
        NearOutput::Ask(_, ask, within) => Some((ask.body.len(), within)),
        NearOutput::More(..)
        | NearOutput::Stop(_)
        | NearOutput::Opened
        | NearOutput::Datagram(_)
        | NearOutput::Lost => None,
    };
    let polls = near.handle(Time::ZERO, NearInput::Answered(opening[0].0, opened));
    let polls: Vec<_> = polls.filter_map(within).collect();
    assert_eq!(polls, vec![(0, second(30)); 2]);
    // What is long takes long to send.
    let mut sent = Vec::new();
    for _ in 0..1_024 {
        let packet = NearInput::Send(vec![8; 1_400].into());
        sent.extend(near.handle(Time::ZERO, packet).filter_map(within));
    }
    sent.extend(near.handle(GATHER, NearInput::Timeout).filter_map(within));
    assert!(!sent.is_empty());
    for (bytes, within) in sent {
        assert_eq!(within, second(10 + bytes as u64 / 8_192), "{bytes}");
    }
}

#[test]
fn where_nothing_passes_the_way_is_lost_once() {
    let mut near = Near::new(way(), [2; 32]);
    let (mut now, mut lost, mut tries) = (Time::ZERO, 0, 0);
    while let Some(next) = near.next_timeout() {
        now = now.max(next);
        let outputs: Vec<NearOutput> = near.handle(now, NearInput::Timeout).collect();
        for (id, _) in asks(outputs.into_iter()) {
            tries += 1;
            let failed = near.handle(now, NearInput::Answered(id, Err(Failure::Connect)));
            lost += failed
                .into_iter()
                .filter(|output| *output == NearOutput::Lost)
                .count();
        }
    }
    assert_eq!(lost, 1);
    assert!(
        (6..30).contains(&tries) && now < second(60),
        "{tries} {now:?}"
    );
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Open),
        Just(Kind::Up),
        Just(Kind::Up),
        Just(Kind::Poll),
        Just(Kind::Poll),
        Just(Kind::Close),
        Just(Kind::Probe),
        Just(Kind::Stream),
        Just(Kind::Pour),
        Just(Kind::Try),
        Just(Kind::Await),
        Just(Kind::Opened),
        Just(Kind::Taken),
        Just(Kind::Polled),
        Just(Kind::Unknown),
        Just(Kind::Damaged),
        Just(Kind::Busy),
    ]
}

proptest! {
    /// Whatever clients ask, in whatever order, each request is answered once, few polls wait, and
    /// what is kept is bounded.
    #[test]
    fn a_server_survives_any_client(steps in proptest::collection::vec((any_kind(), 0_usize..4, any::<[u32; 4]>(), any::<u8>(), 0_u64..5_000), 1..200)) {
        let limits = Limits { sessions_max: 4, queued_bytes_max: 20_000, probe_bytes_max: 100_000, ..Limits::default() };
        let mut server = Server::new(limits);
        let mut tokens = vec![[0; 16]];
        let mut now = Time::ZERO;
        for (kind, at, numbers, wait_s, wait_ms) in steps {
            now += Duration::from_millis(wait_ms);
            if server.far.next_timeout().is_some_and(|time| time <= now) {
                server.input(now, FarInput::Timeout);
            }
            prop_assert!(server.far.next_timeout().is_none_or(|time| time > now));
            let mut frame = Frame::new(kind, tokens[at % tokens.len()]);
            [frame.seq, frame.ack, frame.least, frame.most] = numbers;
            frame.wait_s = wait_s;
            let carries = matches!(kind, Kind::Up | Kind::Probe) || wait_s % 16 == 0;
            frame.packets = pattern(OVERHEAD_BYTES + usize::from(carries) * usize::from(wait_s) * 10);
            if let Some(opened) = server.ask(now, &frame).filter(|frame| frame.kind == Kind::Opened) {
                tokens.push(opened.token);
            }
            server.input(now, FarInput::Send(SessionId(u64::from(wait_s) % 8), vec![0; 1_400].into()));
            prop_assert!(server.far.sessions() <= 4);
            let waiting = server.asks as usize - server.answers.len() - server.ended.len();
            prop_assert!(waiting <= 4 * (POLLS_MAX + 3) + 32, "{} wait", waiting);
        }
        while let Some(next) = server.far.next_timeout() {
            now = now.max(next);
            server.input(now, FarInput::Timeout);
        }
        prop_assert_eq!(server.far.sessions(), 0);
        prop_assert_eq!(server.answers.len() + server.ended.len(), server.asks as usize);
    }

    /// Whatever a server or proxy answers, a client has few requests under way, and its deadline is
    /// never one that has passed and changes nothing.
    #[test]
    fn a_client_survives_any_server(steps in proptest::collection::vec((any_kind(), 0_usize..5, any::<u32>(), 0_u32..4, prop_oneof![Just(200_u16), Just(200), Just(200), Just(413), Just(403), Just(502)], 0_u64..500), 1..200)) {
        let mut near = Near::new(way(), [2; 32]);
        let mut now = Time::ZERO;
        let mut open = asks(near.handle(now, NearInput::Timeout));
        for (kind, at, seq, ack, status, wait_ms) in steps {
            now += Duration::from_millis(wait_ms);
            if !open.is_empty() {
                let (id, asked) = open.remove(at % open.len());
                let mut frame = Frame::new(kind, [7; 16]);
                (frame.seq, frame.ack) = (seq, asked.seq.wrapping_add(ack / 3));
                frame.packets = pattern(OVERHEAD_BYTES + 2_000);
                let answered = match status {
                    200 => reply(&frame),
                    status => Ok(Answer { status, body: Bytes::new() }),
                };
                open.extend(asks(near.handle(now, NearInput::Answered(id, answered))));
            }
            open.extend(asks(near.handle(now, NearInput::Send(vec![0; 1_000].into()))));
            open.extend(asks(near.handle(now, NearInput::Timeout)));
            prop_assert!(near.next_timeout().is_none_or(|time| time > now), "{:?}", near);
        }
    }
}
