use super::*;
use crate::Answerer;
use proptest::prelude::*;

const OUTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));
const ONE_WAY: Duration = Duration::from_millis(20);

/// A router between sockets and servers, and how it is.
struct Router {
    lifetime: Duration,
    /// Whether each destination is given another port.
    is_symmetric: bool,
    /// Whether what comes in keeps a mapping, too (RFC 4787, REQ-6).
    inward_keeps: bool,
    translates: bool,
    /// By socket and, in a symmetric router, server: the outer port, and until when.
    mappings: BTreeMap<(usize, Option<SocketAddr>), (u16, Time)>,
    /// Who may send to a port: until when.
    last_port: u16,
}

impl Router {
    fn new(lifetime_s: u64) -> Self {
        Self {
            lifetime: Duration::from_secs(lifetime_s),
            is_symmetric: false,
            inward_keeps: false,
            translates: true,
            mappings: BTreeMap::new(),
            last_port: 40_000,
        }
    }

    fn outward(&mut self, now: Time, socket: usize, to: SocketAddr) -> SocketAddr {
        let key = (socket, self.is_symmetric.then_some(to));
        self.last_port += 1;
        let mapping = self.mappings.entry(key).or_insert((self.last_port, now));
        if mapping.1 < now {
            mapping.0 = self.last_port;
        }
        mapping.1 = now + self.lifetime;
        match self.translates {
            true => SocketAddr::new(OUTER, mapping.0),
            false => SocketAddr::new(OUTER, port_of(socket)),
        }
    }

    fn inward(&mut self, now: Time, from: SocketAddr, to: SocketAddr) -> Option<usize> {
        let (translates, lifetime) = (self.translates, self.lifetime);
        let mut mappings = self.mappings.iter_mut();
        let found = mappings.find(|((socket, toward), (port, until))| {
            let own = if translates { *port } else { port_of(*socket) };
            own == to.port() && toward.is_none_or(|toward| toward == from) && *until >= now
        });
        let ((socket, _), (_, until)) = found?;
        if self.inward_keeps {
            *until = now + lifetime;
        }
        Some(*socket)
    }
}

fn port_of(socket: usize) -> u16 {
    5_000 + u16::try_from(socket).unwrap()
}

fn server(number: u8) -> SocketAddr {
    ([20, 0, number, 1], 7000).into()
}

/// Measures, and returns what came of it and after how many seconds. Questions for which `passes` does
/// not hold are lost, by time and number.
fn measure(
    router: &mut Router,
    mut answerers: [Answerer; 2],
    passes: impl Fn(Time, usize) -> bool,
) -> (Option<Lifetime>, u64) {
    let mut now = Time::from_secs(1);
    let start = now;
    let servers = [server(1), server(2)];
    let own = if router.translates {
        vec![]
    } else {
        vec![OUTER]
    };
    let mut measurement = Measurement::new(now, &servers, own, port_of(UNSPOKEN));
    let mut way: Vec<(Time, usize, SocketAddr, Vec<u8>)> = Vec::new();
    let mut number = 0;
    loop {
        way.sort_by_key(|datagram| datagram.0);
        let timeout = measurement.next_timeout();
        let arrival = way.first().map(|(at, ..)| *at);
        let Some(next) = timeout.into_iter().chain(arrival).min() else {
            break;
        };
        now = now.max(next);
        let questions: Vec<Question> = if arrival.is_some_and(|at| at <= now) {
            let (_, socket, from, octets) = way.remove(0);
            let input = MeasurementInput::Datagram {
                socket,
                from,
                octets: &octets,
            };
            measurement.handle(now, input).collect()
        } else {
            measurement.handle(now, MeasurementInput::Timeout).collect()
        };
        for question in questions {
            number += 1;
            assert!(number < 1_000, "questions are bounded");
            let source = router.outward(now, question.socket, question.to);
            let at = servers.iter().position(|server| *server == question.to);
            if !passes(now, number) {
                continue;
            }
            let answerer = &mut answerers[at.unwrap()];
            let answer = answerer.answer(now + ONE_WAY, source, &question.octets);
            let Some(answer) = answer else { continue };
            let back = now + 2 * ONE_WAY;
            // Without a filter, what is of the outside comes in.
            let is_open = !router.translates && router.lifetime == Duration::MAX;
            let to = match is_open {
                true => (0..SOCKETS).find(|socket| port_of(*socket) == answer.to.port()),
                false => router.inward(back, question.to, answer.to),
            };
            if let Some(socket) = to {
                way.push((back, socket, question.to, answer.octets));
            }
        }
        assert!(now < start + Duration::from_secs(400), "it ends");
    }
    (measurement.lifetime(), now.since(start).as_secs())
}

fn helpful() -> [Answerer; 2] {
    [Answerer::at_ports(), Answerer::at_ports()]
}

fn bounds(lifetime: Option<Lifetime>) -> (u64, Option<u64>) {
    match lifetime {
        Some(Lifetime::Kept {
            at_least,
            less_than,
            ..
        }) => (at_least.as_secs(), less_than.map(|less| less.as_secs())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn common_lifetimes_are_found_as_soon_as_they_are_over() {
    for (lifetime_s, found, took_s) in [
        (3, (0, Some(7)), 20),
        (30, (28, Some(37)), 65),
        (60, (55, Some(67)), 95),
        (120, (115, Some(132)), 185),
        (180, (175, Some(192)), 305),
        (300, (295, None), 305),
    ] {
        let (lifetime, took) = measure(&mut Router::new(lifetime_s), helpful(), |_, _| true);
        assert_eq!(bounds(lifetime), found, "{lifetime_s}");
        assert!(took <= took_s, "{lifetime_s}: {took}");
    }
}

#[test]
fn where_nothing_is_in_between_nothing_is_claimed() {
    let mut open = Router::new(0);
    (open.translates, open.lifetime) = (false, Duration::MAX);
    let (lifetime, took) = measure(&mut open, helpful(), |_, _| true);
    assert_eq!(lifetime, Some(Lifetime::Unlimited));
    assert!(took <= 6, "{took}");
    // A firewall translates nothing, and forgets all the same.
    let mut firewall = Router::new(60);
    firewall.translates = false;
    let (lifetime, _) = measure(&mut firewall, helpful(), |_, _| true);
    assert_eq!(bounds(lifetime), (55, Some(67)));
    let is_translated = |lifetime: Option<Lifetime>| match lifetime {
        Some(Lifetime::Kept { is_translated, .. }) => is_translated,
        _ => panic!("it is measured"),
    };
    assert!(!is_translated(lifetime));
}

#[test]
fn servers_that_do_not_help_or_go_away_prove_nothing() {
    let plain = [Answerer::new(), Answerer::new()];
    let (lifetime, took) = measure(&mut Router::new(60), plain, |_, _| true);
    assert_eq!(lifetime, None);
    assert!(took <= 8, "{took}");
    let one = [Answerer::new(), Answerer::at_ports()];
    let (lifetime, _) = measure(&mut Router::new(60), one, |_, _| true);
    assert_eq!(bounds(lifetime), (55, Some(67)));
    let (lifetime, _) = measure(&mut Router::new(60), helpful(), |_, _| false);
    assert_eq!(lifetime, None);
    // After 20 s nobody answers any more.
    let until = Time::from_secs(20);
    let (lifetime, _) = measure(&mut Router::new(300), helpful(), |now, _| now < until);
    assert_eq!(bounds(lifetime), (10, None));
}

#[test]
fn a_server_that_answers_every_other_question_only_proves_nothing() {
    let last = std::cell::Cell::new((Time::ZERO, 0));
    let is_even = |now: Time, _| {
        let (at, count) = last.get();
        let count = if at == now { count + 1 } else { 0 };
        last.set((now, count));
        // But all greetings.
        now < Time::from_secs(5) || count % 2 == 0
    };
    let (lifetime, _) = measure(&mut Router::new(300), helpful(), is_even);
    assert_eq!(bounds(lifetime), (295, None));
}

#[test]
fn strangers_and_what_is_not_asked_are_not_heard() {
    let now = Time::from_secs(1);
    let mut measurement = Measurement::new(now, &[server(1)], vec![OUTER], port_of(UNSPOKEN));
    let input = MeasurementInput::Timeout;
    let questions: Vec<Question> = measurement.handle(now, input).collect();
    assert_eq!(questions.len(), IDLE_S.len() + 1, "but not the last one");
    let first = &questions[0];
    let mut answerer = Answerer::at_ports();
    let answer = answerer.answer(now, SocketAddr::new(OUTER, 9), &first.octets);
    let octets = answer.unwrap().octets;
    let mut tell = |socket, from| {
        let octets = octets.as_slice();
        let input = MeasurementInput::Datagram {
            socket,
            from,
            octets,
        };
        assert_eq!(measurement.handle(now, input).count(), 0);
        measurement.idle[0].mapped[0]
    };
    assert_eq!(tell(0, server(2)), None);
    assert_eq!(tell(1, server(1)), None);
    assert_eq!(tell(UNSPOKEN, server(1)), None);
    assert!(tell(0, server(1)).is_some());
}

proptest! {
    #[test]
    fn what_is_found_contains_the_lifetime(
        // What ends before the first trial cannot be told from a router that lets nothing in.
        lifetime_s in 3_u64..400,
        is_symmetric in any::<bool>(),
        inward_keeps in any::<bool>(),
        lost in 3_usize..8,
    ) {
        let mut router = Router::new(lifetime_s);
        (router.is_symmetric, router.inward_keeps) = (is_symmetric, inward_keeps);
        let (lifetime, _) = measure(&mut router, helpful(), |_, number| number % lost != 0);
        let (at_least, less_than) = bounds(lifetime);
        prop_assert!(at_least <= lifetime_s, "{at_least} {lifetime_s}");
        prop_assert!(less_than.is_none_or(|less| lifetime_s < less), "{less_than:?} {lifetime_s}");
    }
}
