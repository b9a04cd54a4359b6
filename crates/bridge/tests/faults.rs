//! Both ends and the search for a way, through a faulty proxy in virtual time.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod echo;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use echo::Echo;
use enishi_bridge::auth::{Authenticator, Credentials};
use enishi_bridge::exchange::{
    Answer, Answered, Failure, Far, FarInput, FarOutput, Limits, Near, NearInput, NearOutput,
    RequestId, STREAM_BYTES_MAX, SessionId,
};
use enishi_bridge::probe::{Outcome, Probe, ProbeInput, ProbeOutput, ProxyAuth};
use enishi_bridge::way::{Agent, Ask, Coding, ReplyCoding, Way};
use enishi_bridge::{CONNECTIONS_MAX, FRAME_BYTES_MAX, Time};
use enishi_lab::faulty::{PASSWORD, Request, Response, USER, Verdict};
use enishi_lab::{Fault, Faulty};
use proptest::prelude::*;

/// The time from the client to the proxy, or from there to the server.
const DELAY: Duration = Duration::from_millis(5);

/// A packet that all paths take.
const PACKET_BYTES: usize = 1_200;

/// How long the proxy forbids everything after a leak.
const BLOCK: Duration = Duration::from_secs(5);

enum Event {
    Reach {
        request: Asked,
        ask: Ask,
    },
    /// More of a request reaches the proxy.
    More(Asked, Bytes),
    Came(Asked, Came),
    /// Whoever asked the server has gone.
    Gone(u64),
}

/// What reaches the client.
enum Came {
    Answered(Answered, ProxyAuth),
    Part(Bytes),
    Written(usize),
}

/// A stream on its way to the server.
struct Pour {
    http: Request,
    left: usize,
    /// What the proxy has not passed on.
    held: Vec<Bytes>,
    /// What the server knows it by.
    ask: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    by_probe: bool,
    id: u64,
}

struct World {
    now: Time,
    faulty: Faulty,
    auth: Authenticator,
    far: Far,
    events: BTreeMap<(Time, u64), Event>,
    count: u64,
    /// What the server has not answered yet.
    held: BTreeMap<u64, (Asked, Request)>,
    /// Who waits for an answer.
    open: BTreeMap<Asked, ()>,
    pours: BTreeMap<Asked, Pour>,
    /// What came of streams from the server, and what of it the proxy has not passed on.
    streams: BTreeMap<u64, (usize, Vec<Bytes>)>,
    /// Requests in all, and how many of them were streams that the server saw.
    asked: usize,
    pours_begun: usize,
    under_way_max: usize,
    arrived: Vec<(SessionId, Bytes)>,
}

impl World {
    fn new(faults: impl IntoIterator<Item = Fault>) -> Self {
        let credentials = Credentials::new(USER.into(), PASSWORD.into());
        Self {
            now: Time::ZERO,
            faulty: Faulty::new(faults, BLOCK),
            auth: Authenticator::new(Some(Arc::new(credentials))),
            far: Far::new(Limits::default(), [1; 32]),
            events: BTreeMap::new(),
            count: 0,
            held: BTreeMap::new(),
            open: BTreeMap::new(),
            pours: BTreeMap::new(),
            streams: BTreeMap::new(),
            asked: 0,
            pours_begun: 0,
            under_way_max: 0,
            arrived: Vec::new(),
        }
    }

    fn ask(&mut self, request: Asked, ask: Ask, within: Duration) {
        self.open.insert(request, ());
        self.asked += 1;
        self.under_way_max = self.under_way_max.max(self.open.len());
        self.schedule(DELAY, Event::Reach { request, ask });
        let silence = Came::Answered(Err(Failure::Silence), ProxyAuth::None);
        self.schedule(within, Event::Came(request, silence));
    }

    fn more(&mut self, request: Asked, octets: Bytes) {
        self.schedule(DELAY, Event::Came(request, Came::Written(octets.len())));
        self.schedule(DELAY, Event::More(request, octets));
    }

    fn stop(&mut self, request: Asked) {
        self.open.remove(&request);
        self.pours.remove(&request);
        let held = self.held.iter().find(|(_, (other, _))| *other == request);
        if let Some(ask) = held.map(|(ask, _)| *ask) {
            self.schedule(DELAY * 2, Event::Gone(ask));
        }
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.count += 1;
        self.events.insert((self.now + after, self.count), event);
    }

    fn answer(&mut self, request: Asked, answered: Answered) {
        let came = Came::Answered(answered, self.auth.seen());
        self.schedule(DELAY, Event::Came(request, came));
    }

    /// The proxy has the request, and is asked again as long as it wants to know who asks.
    fn reach(&mut self, request: Asked, ask: &Ask) {
        for _ in 0..3 {
            let http = self.dress(ask);
            match self.faulty.request(self.now, http.clone()) {
                Verdict::Drop => return self.answer(request, Err(Failure::Broken)),
                Verdict::Answer(response) if response.status == 407 => {
                    let named = response
                        .headers
                        .iter()
                        .filter(|(name, _)| name == "Proxy-Authenticate");
                    if !self.auth.challenged(named.map(|(_, value)| value.as_str())) {
                        return self.answer(request, answer(response));
                    }
                }
                Verdict::Answer(response) => {
                    self.auth.passed();
                    return self.answer(request, answer(response));
                }
                Verdict::Pass(_) if ask.length.is_some() => {
                    self.auth.passed();
                    let pour = Pour {
                        http,
                        left: ask.length.unwrap(),
                        held: Vec::new(),
                        ask: None,
                    };
                    self.pours.insert(request, pour);
                    return self.pour(request, ask.body.clone());
                }
                Verdict::Pass(passed) => {
                    self.auth.passed();
                    let path = passed.target.strip_prefix("http://bridge").unwrap();
                    let octets = Ask::undress(path, &passed.body.clone().into()).unwrap();
                    self.count += 1;
                    let ask = self.count;
                    self.held.insert(ask, (request, http));
                    let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
                    return self.far(FarInput::Asked { ask, from, octets });
                }
            }
        }
        self.answer(request, answer(Response::of(407)));
    }

    /// The proxy has more of a stream.
    fn pour(&mut self, request: Asked, octets: Bytes) {
        let Some(pour) = self.pours.get_mut(&request) else {
            return;
        };
        pour.left -= octets.len();
        pour.held.push(octets);
        let whole = pour.left == 0;
        if self.faulty.holds_requests() && !whole {
            return;
        }
        let held = std::mem::take(&mut pour.held);
        for octets in held {
            let pour = self.pours.get_mut(&request).unwrap();
            let input = if let Some(ask) = pour.ask {
                FarInput::More(ask, Ok(octets))
            } else {
                self.count += 1;
                self.pours_begun += 1;
                let ask = self.count;
                pour.ask = Some(ask);
                self.held.insert(ask, (request, pour.http.clone()));
                let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
                let octets = Ok(octets);
                FarInput::Asked { ask, from, octets }
            };
            self.far(input);
            if !self.pours.contains_key(&request) {
                return;
            }
        }
        if whole && let Some(ask) = self.pours.remove(&request).and_then(|pour| pour.ask) {
            self.far(FarInput::Ended(ask));
        }
    }

    fn dress(&mut self, ask: &Ask) -> Request {
        let method = if ask.coding.is_post() { "POST" } else { "GET" };
        let target = format!("http://bridge{}", ask.path);
        let mut headers = vec![
            ("Host".to_owned(), "bridge".to_owned()),
            ("User-Agent".to_owned(), ask.agent.text().to_owned()),
        ];
        let kind = ask.coding.content_type();
        headers.extend(kind.map(|kind| ("Content-Type".to_owned(), kind.to_owned())));
        let length = ask.length.map(|length| length.to_string());
        headers.extend(length.map(|length| ("Content-Length".to_owned(), length)));
        let auth = self.auth.header(method, &target, [3; 12]);
        headers.extend(auth.map(|auth| ("Proxy-Authorization".to_owned(), auth.to_string())));
        let (method, version) = (method.to_owned(), "HTTP/1.1".to_owned());
        Request {
            method,
            target,
            version,
            headers,
            body: ask.body.to_vec(),
        }
    }

    fn far(&mut self, input: FarInput) {
        let outputs: Vec<FarOutput> = self.far.handle(self.now, input).collect();
        for output in outputs {
            match output {
                FarOutput::Answer { ask, body, .. } => {
                    let (request, http) = self.held.remove(&ask).unwrap();
                    self.pours.remove(&request);
                    let response = Response {
                        status: 200,
                        headers: Vec::new(),
                        body: body.to_vec(),
                    };
                    let response = self.faulty.reply(self.now + DELAY, &http, response);
                    self.answer(request, answer(response));
                    self.far(FarInput::Written(ask, body.len()));
                }
                FarOutput::Part { ask, body, .. } => {
                    self.part(ask, &body);
                    self.far(FarInput::Written(ask, body.len()));
                }
                FarOutput::End(ask) => self.end(ask),
                FarOutput::Datagram(session, packet) => self.arrived.push((session, packet)),
                FarOutput::Opened(..) | FarOutput::Closed(_) => {}
            }
        }
    }

    /// More of a reply reaches the proxy, which may keep it, or cut it.
    fn part(&mut self, ask: u64, body: &Bytes) {
        let Some((request, _)) = self.held.get(&ask) else {
            return;
        };
        let request = *request;
        let (came, held) = self.streams.entry(ask).or_default();
        *came += body.len();
        if *came > self.faulty.reply_bytes_max() {
            self.streams.remove(&ask);
            self.held.remove(&ask);
            self.schedule(DELAY, Event::Gone(ask));
            return self.answer(request, Err(Failure::Cut));
        }
        if self.faulty.holds_replies() {
            held.push(body.clone());
        } else {
            self.schedule(DELAY, Event::Came(request, Came::Part(body.clone())));
        }
    }

    fn end(&mut self, ask: u64) {
        let Some((request, _)) = self.held.remove(&ask) else {
            return;
        };
        let (_, held) = self.streams.remove(&ask).unwrap_or_default();
        for body in held {
            self.schedule(DELAY, Event::Came(request, Came::Part(body)));
        }
        let body = Bytes::new();
        self.answer(request, Ok(Answer { status: 200, body }));
    }

    /// Lets time pass until something reaches the client, or `until`.
    fn next(&mut self, until: Option<Time>) -> Option<(Asked, Came)> {
        loop {
            let event = self.events.keys().next().map(|(time, _)| *time);
            let times = [event, self.far.next_timeout(), until];
            let next = times
                .into_iter()
                .flatten()
                .min()
                .expect("something happens");
            self.now = self.now.max(next);
            if self.far.next_timeout().is_some_and(|time| time <= self.now) {
                self.far(FarInput::Timeout);
            }
            let (key, event) = self.events.pop_first()?;
            if key.0 > self.now {
                self.events.insert(key, event);
                if until.is_some_and(|until| until <= self.now) {
                    return None;
                }
                continue;
            }
            match event {
                Event::Reach { request, ask } => self.reach(request, &ask),
                Event::More(request, octets) => self.pour(request, octets),
                Event::Gone(ask) => {
                    self.held.remove(&ask);
                    self.streams.remove(&ask);
                    self.far(FarInput::Gone(ask));
                }
                Event::Came(request, came) => {
                    let is_open = match came {
                        Came::Answered(..) => self.open.remove(&request).is_some(),
                        Came::Part(_) | Came::Written(_) => self.open.contains_key(&request),
                    };
                    if is_open {
                        return Some((request, came));
                    }
                }
            }
        }
    }

    fn probe(&mut self) -> Outcome {
        let mut probe = Probe::new([5; 32]);
        let mut input = ProbeInput::Timeout;
        loop {
            let outputs: Vec<ProbeOutput> = probe.handle(self.now, input).collect();
            for output in outputs {
                match output {
                    ProbeOutput::Ask(id, ask, within) => self.ask(
                        Asked {
                            by_probe: true,
                            id: id.0,
                        },
                        ask,
                        within,
                    ),
                    ProbeOutput::Stop(id) => self.stop(Asked {
                        by_probe: true,
                        id: id.0,
                    }),
                    ProbeOutput::Done(outcome) => return *outcome,
                }
            }
            input = match self.next(probe.next_timeout()) {
                Some((request, came)) if request.by_probe => match came {
                    Came::Answered(answered, auth) => {
                        ProbeInput::Answered(RequestId(request.id), answered, auth)
                    }
                    Came::Part(octets) => ProbeInput::Part(RequestId(request.id), octets),
                    Came::Written(_) => ProbeInput::Timeout,
                },
                Some(_) | None => ProbeInput::Timeout,
            };
        }
    }

    /// Carries packets there and back. Finds another way when one is lost.
    fn carry(&mut self, way: Way, packets: u32, within: Duration) -> Result<Near, String> {
        let mut near = Near::new(way, [7; 32]);
        let mut echo = Echo::new(packets, PACKET_BYTES);
        let end = self.now + within;
        let mut input = NearInput::Timeout;
        let mut opened = false;
        while !echo.is_done() {
            if self.now > end {
                return Err(format!("not within {within:?}: {near:?}"));
            }
            let mut outputs: Vec<NearOutput> = near.handle(self.now, input).collect();
            if opened {
                for packet in echo.due(self.now) {
                    outputs.extend(near.handle(self.now, NearInput::Send(packet)));
                }
            }
            let mut lost = false;
            for output in outputs {
                match output {
                    NearOutput::Ask(id, ask, within) => self.ask(
                        Asked {
                            by_probe: false,
                            id: id.0,
                        },
                        ask,
                        within,
                    ),
                    NearOutput::More(id, octets) => self.more(
                        Asked {
                            by_probe: false,
                            id: id.0,
                        },
                        octets,
                    ),
                    NearOutput::Stop(id) => self.stop(Asked {
                        by_probe: false,
                        id: id.0,
                    }),
                    NearOutput::Datagram(packet) => echo.take(&packet),
                    NearOutput::Opened => opened = true,
                    NearOutput::Lost => lost = true,
                }
            }
            if lost {
                let way = self.probe().way.ok_or("no way is left")?;
                near.resume(way);
            }
            for (session, packet) in std::mem::take(&mut self.arrived) {
                self.far(FarInput::Send(session, packet));
            }
            let tick = self.now + Duration::from_millis(500);
            let until = near.next_timeout().map_or(tick, |time| time.min(tick));
            input = match self.next(Some(until)) {
                Some((request, came)) if !request.by_probe => {
                    let id = RequestId(request.id);
                    match came {
                        Came::Answered(answered, _) => NearInput::Answered(id, answered),
                        Came::Part(octets) => NearInput::Part(id, octets),
                        Came::Written(bytes) => NearInput::Written(id, bytes),
                    }
                }
                Some(_) | None => NearInput::Timeout,
            };
        }
        Ok(near)
    }
}

fn answer(response: Response) -> Answered {
    Ok(Answer {
        status: response.status,
        body: response.body.into(),
    })
}

fn found(faults: &[Fault]) -> (World, Outcome, Way) {
    let mut world = World::new(faults.iter().copied());
    let outcome = world.probe();
    let way = outcome
        .way
        .unwrap_or_else(|| panic!("{faults:?}: no way: {outcome}"));
    (world, outcome, way)
}

#[test]
fn nothing_wrong_leaves_the_plainest_way_and_the_longest_requests() {
    let (mut world, outcome, way) = found(&[]);
    let best = Way {
        coding: Coding::Raw,
        polls: Coding::Path,
        reply: ReplyCoding::Raw,
        agent: Agent::Own,
        ask_bytes: FRAME_BYTES_MAX,
        reply_bytes: FRAME_BYTES_MAX,
        pad: false,
        stream_bytes: STREAM_BYTES_MAX,
        pour_bytes: STREAM_BYTES_MAX,
    };
    assert_eq!(way, best);
    assert!(outcome.tried.iter().all(|(_, refusal)| refusal.is_none()));
    assert!(world.now < Duration::from_secs(1), "{:?}", world.now);
    let near = world.carry(way, 2_000, Duration::from_secs(10)).unwrap();
    assert_eq!(near.figures().sent_packets, 2_000);
    assert_eq!(near.figures().failed_requests, 0);
    assert_eq!(near.figures().cached_replies, 0);
    // Most of it went by one stream each way.
    assert!((2..4).contains(&world.pours_begun), "{}", world.pours_begun);
    assert!(world.asked < 40, "{}", world.asked);
    assert!(
        world.under_way_max <= CONNECTIONS_MAX,
        "{}",
        world.under_way_max
    );
}

#[test]
fn each_fault_alone_passes() {
    for fault in Fault::ALL {
        let (mut world, outcome, way) = found(&[fault]);
        let took = world.now;
        assert!(took < Duration::from_secs(30), "{fault:?}: {took:?}");
        let near = world.carry(way, 1_000, Duration::from_secs(60));
        let near = near.unwrap_or_else(|text| panic!("{fault:?}: {text}"));
        assert!(
            near.figures().dropped_packets == 0,
            "{fault:?}: {:?}",
            near.figures()
        );
        let expected = match fault {
            Fault::PostForbidden => way.coding == Coding::Path,
            Fault::LineEnds | Fault::SevenBits | Fault::CutAtZero => way.coding == Coding::Form,
            Fault::UnknownType => way.coding == Coding::Upload,
            Fault::UnknownAgent => way.agent == Agent::Browser,
            Fault::SmallRequests => way.coding == Coding::Raw && way.ask_bytes == 4_096,
            Fault::SmallReplies => way.reply_bytes == 4_096,
            Fault::Basic => outcome.auth == ProxyAuth::Basic,
            Fault::Digest => outcome.auth == ProxyAuth::Digest,
            Fault::Leak => outcome.flagged && way.pad,
            Fault::NoConnect
            | Fault::PostCached
            | Fault::Appended
            | Fault::ShortPaths
            | Fault::NoCookies
            | Fault::HostRequired
            | Fault::OnlyHttp11
            | Fault::OneReply
            | Fault::HeldRequests
            | Fault::HeldReplies
            | Fault::LongReplies => way.coding == Coding::Raw && way.ask_bytes == FRAME_BYTES_MAX,
        };
        assert!(expected, "{fault:?}: {outcome:?}");
        let (streams, pours) = (way.stream_bytes > 0, way.pour_bytes > 0);
        let lacks = match fault {
            Fault::HeldReplies | Fault::SmallReplies => (true, false),
            Fault::PostForbidden
            | Fault::LineEnds
            | Fault::SevenBits
            | Fault::CutAtZero
            | Fault::UnknownType
            | Fault::SmallRequests
            | Fault::Appended
            | Fault::HeldRequests => (false, true),
            Fault::PostCached | Fault::Leak => (true, true),
            Fault::NoConnect
            | Fault::ShortPaths
            | Fault::UnknownAgent
            | Fault::NoCookies
            | Fault::HostRequired
            | Fault::OnlyHttp11
            | Fault::Basic
            | Fault::Digest
            | Fault::OneReply
            | Fault::LongReplies => (false, false),
        };
        assert_eq!((!streams, !pours), lacks, "{fault:?}: {outcome:?}");
    }
}

#[test]
fn all_faults_together_pass() {
    let (mut world, _, way) = found(&Fault::ALL);
    world.carry(way, 200, Duration::from_secs(120)).unwrap();
}

#[test]
fn a_wrong_password_is_told_and_ends_the_search() {
    for fault in [Fault::Basic, Fault::Digest] {
        let mut world = World::new([fault]);
        world.auth = Authenticator::new(Some(Arc::new(Credentials::new("a".into(), "b".into()))));
        let outcome = world.probe();
        assert_eq!((outcome.way, outcome.auth), (None, ProxyAuth::Refused));
        let mut world = World::new([fault]);
        world.auth = Authenticator::new(None);
        assert_eq!(world.probe().auth, ProxyAuth::Missing);
    }
}

#[test]
fn a_way_that_is_closed_in_use_is_replaced_by_another() {
    for fault in Fault::ALL {
        let (mut world, _, way) = found(&[]);
        world.carry(way, 100, Duration::from_secs(10)).unwrap();
        world.faulty = Faulty::new([fault], BLOCK);
        let carried = world.carry(way, 500, Duration::from_secs(120));
        carried.unwrap_or_else(|text| panic!("{fault:?}: {text}"));
    }
}

#[test]
fn streams_that_a_proxy_begins_to_hold_or_cut_are_left_in_time() {
    for (fault, within_s) in [
        (Fault::HeldReplies, 10),
        (Fault::HeldRequests, 10),
        (Fault::LongReplies, 20),
    ] {
        let (mut world, _, way) = found(&[]);
        world.faulty = Faulty::new([fault], BLOCK);
        let began = world.now;
        let near = world.carry(way, 4_000, Duration::from_secs(60)).unwrap();
        let took = world.now - began;
        assert!(took < Duration::from_secs(within_s), "{fault:?}: {took:?}");
        // The way itself is none that was lost.
        assert!(
            near.is_open() && near.figures().failed_requests <= 3,
            "{fault:?}: {near:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// GET with short addresses is left by every subset.
    #[test]
    fn any_subset_that_leaves_one_way_passes(faults in proptest::sample::subsequence(Fault::ALL.to_vec(), 0..=Fault::ALL.len())) {
        let mut world = World::new(faults.iter().copied());
        let outcome = world.probe();
        let way = outcome.way.ok_or_else(|| TestCaseError::fail(format!("no way: {outcome}")))?;
        prop_assert!(world.now < Duration::from_secs(60));
        let carried = world.carry(way, 100, Duration::from_secs(120));
        prop_assert!(carried.is_ok(), "{:?}", carried.err());
        prop_assert!(world.under_way_max <= CONNECTIONS_MAX);
    }
}
