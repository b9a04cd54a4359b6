//! STUN at the packets' port: standard clients are answered, and others are asked where this port is
//! seen (`enishi_stun`). It takes no session with a member, and so is known before the first one.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use enishi_overlay::{NodeId, Time};
use enishi_stun::{
    Answer, Answerer, QuestionId, Ticket, Tickets, is_stun, mapped, question_for_ticket, ticket,
};

use super::lock;

/// The most questions that wait for an answer; the oldest gives way.
const WAITING_MAX: usize = 64;
/// How long an answer is waited for.
const WAITING_TIME: Duration = Duration::from_secs(5);

/// A question that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    server: NodeId,
    at: SocketAddr,
    since: Instant,
    is_anew: bool,
}

/// What there is of questions.
#[derive(Debug, Default)]
struct Asked {
    waiting: BTreeMap<QuestionId, Waiting>,
    /// What was asked at once, in that order, to see how packets come out: from the socket that takes
    /// packets, and from a new one.
    look: Look,
}

#[derive(Debug, Default)]
struct Look {
    first: Vec<Looked>,
    anew: Vec<Looked>,
}

/// One question of a look.
#[derive(Clone, Copy, Debug)]
struct Looked {
    id: QuestionId,
    by: Family,
    /// Where the server saw the socket; none before it has answered.
    at: Option<SocketAddr>,
}

/// By which version of IP a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// This host's own IPv4.
    V4,
    /// IPv4 by way of a NAT64.
    Translated,
    /// IPv6.
    V6,
}

impl Looked {
    fn is_of_v4(&self) -> bool {
        self.by != Family::V6
    }
}

impl Asked {
    /// Writes a question to each server.
    fn ask(
        &mut self,
        now: Instant,
        servers: &[(NodeId, SocketAddr)],
        is_anew: bool,
    ) -> (Vec<QuestionId>, Vec<(SocketAddr, Bytes)>) {
        self.waiting
            .retain(|_, waits| now.duration_since(waits.since) < WAITING_TIME);
        let ask = |(server, at): &(NodeId, SocketAddr)| {
            if self.waiting.len() >= WAITING_MAX {
                let oldest = self.waiting.iter().min_by_key(|(_, waits)| waits.since);
                let oldest = oldest.map(|(id, _)| *id);
                oldest.and_then(|id| self.waiting.remove(&id));
            }
            let (id, octets) = question_for_ticket();
            let waiting = Waiting {
                server: *server,
                at: *at,
                since: now,
                is_anew,
            };
            self.waiting.insert(id, waiting);
            (id, (*at, octets.into()))
        };
        servers.iter().map(ask).unzip()
    }
}

/// The questions of this node that wait for answers, and the tickets that it gives to those who ask it;
/// cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Questions {
    asked: Arc<Mutex<Asked>>,
    tickets: Tickets,
    started: Instant,
}

impl Questions {
    /// Makes one whose tickets are of this key.
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self {
            asked: Arc::default(),
            tickets: Tickets::new(key),
            started: Instant::now(),
        }
    }

    /// Tells whether a ticket went to an address lately.
    pub(super) fn gave(&self, to: IpAddr, ticket: Ticket) -> bool {
        self.tickets.gave(self.now(), to, ticket)
    }

    fn now(&self) -> Time {
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        Time::from_micros(micros)
    }

    /// Writes a question to each server.
    pub(super) fn ask(
        &self,
        now: Instant,
        servers: &[(NodeId, SocketAddr)],
    ) -> Vec<(SocketAddr, Bytes)> {
        lock(&self.asked).ask(now, servers, false).1
    }

    /// Writes two questions to each server: from the socket that takes packets, and from a new one.
    /// The answers are what [`Self::looked`] returns, until another look.
    pub(super) fn look(
        &self,
        now: Instant,
        servers: &[(NodeId, SocketAddr)],
        family: impl Fn(SocketAddr) -> Family,
    ) -> [Vec<(SocketAddr, Bytes)>; 2] {
        let mut asked = lock(&self.asked);
        let none = |ids: Vec<QuestionId>| {
            let families = servers.iter().map(|(_, at)| family(*at));
            let looked = |(id, by)| Looked { id, by, at: None };
            ids.into_iter().zip(families).map(looked).collect()
        };
        let (ids, first) = asked.ask(now, servers, false);
        asked.look.first = none(ids);
        let (ids, anew) = asked.ask(now, servers, true);
        asked.look.anew = none(ids);
        [first, anew]
    }

    /// Tells whether all have answered.
    pub(super) fn has_looked(&self) -> bool {
        let look = &lock(&self.asked).look;
        let mut answers = look.first.iter().chain(&look.anew);
        answers.all(|looked| looked.at.is_some())
    }

    /// Tells whether so many have answered that it can be told how ports are given: two servers to each
    /// socket, or one if no more were asked. By IPv4, if any were asked by that: it is what is
    /// translated.
    pub(super) fn tells(&self) -> bool {
        let look = &lock(&self.asked).look;
        let tells = |asked: &Vec<Looked>| {
            let is_v4 = asked.iter().any(Looked::is_of_v4);
            let of_it = || asked.iter().filter(|looked| looked.is_of_v4() == is_v4);
            let answers = of_it().filter(|looked| looked.at.is_some());
            answers.count() >= of_it().count().min(2)
        };
        tells(&look.first) && tells(&look.anew)
    }

    /// Returns where the servers saw the two sockets, in the order in which they were asked, and whether
    /// by a NAT64. What comes out there is passed over if the host has IPv4 as well.
    pub(super) fn looked(&self) -> ([Vec<SocketAddr>; 2], bool) {
        let look = &lock(&self.asked).look;
        let has = |family: Family| {
            let mut answers = look.first.iter().filter(|looked| looked.at.is_some());
            answers.any(|looked| looked.by == family)
        };
        let by_nat64 = has(Family::Translated) && !has(Family::V4);
        let passed_over = match by_nat64 {
            true => Family::V4,
            false => Family::Translated,
        };
        let seen = |of: &Vec<Looked>| {
            let of = of.iter().filter(|looked| looked.by != passed_over);
            of.filter_map(|looked| looked.at).collect()
        };
        ([&look.first, &look.anew].map(seen), by_nat64)
    }

    /// Takes an answer that came from an address. Returns who answered, and where it sees the socket
    /// that takes packets; not an address if it was another socket.
    fn answered(&self, from: SocketAddr, datagram: &[u8]) -> Option<(NodeId, Option<SocketAddr>)> {
        let (id, seen_at) = mapped(datagram)?;
        let mut asked = lock(&self.asked);
        let waits = *asked.waiting.get(&id).filter(|waits| waits.at == from)?;
        asked.waiting.remove(&id);
        let look = &mut asked.look;
        for looked in look.first.iter_mut().chain(&mut look.anew) {
            if looked.id == id {
                looked.at = Some(seen_at);
            }
        }
        Some((waits.server, (!waits.is_anew).then_some(seen_at)))
    }
}

/// What takes STUN's messages at the packets' port.
pub(super) struct Stun {
    questions: Questions,
    answerer: Answerer,
}

/// What came of a message.
pub(super) enum Stunned {
    /// This is to be sent.
    Answer(Answer),
    /// Somebody sees this node at an address, and may have given a ticket for it.
    Seen(NodeId, SocketAddr, Option<Ticket>),
}

impl Stun {
    pub(super) fn new(questions: Questions) -> Self {
        let answerer = Answerer::at_ports().with_tickets(questions.tickets.clone());
        Self {
            questions,
            answerer,
        }
    }

    /// Takes a datagram; none when nothing comes of it.
    pub(super) fn take(&mut self, from: SocketAddr, datagram: &[u8]) -> Option<Stunned> {
        if !is_stun(datagram) {
            return None;
        }
        if let Some((server, at)) = self.questions.answered(from, datagram) {
            return at.map(|at| Stunned::Seen(server, at, ticket(datagram)));
        }
        let now = self.questions.now();
        let answer = self.answerer.answer(now, from, datagram)?;
        Some(Stunned::Answer(answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_asked_answers_and_once() {
        let (server, at) = (
            NodeId::from_bytes([1; 32]),
            SocketAddr::from(([192, 0, 2, 1], 7)),
        );
        let seen = SocketAddr::from(([198, 51, 100, 1], 9));
        let questions = Questions::new([1; 32]);
        let asked = questions.ask(Instant::now(), &[(server, at)]);
        let [(to, question)] = &asked[..] else {
            panic!("one server, one question");
        };
        assert_eq!(*to, at);
        let answer = Answerer::new().answer(Time::ZERO, seen, question).unwrap();
        let answer = answer.octets;
        let mut stun = Stun::new(questions);
        assert!(stun.take(seen, &answer).is_none(), "from elsewhere");
        assert!(
            matches!(stun.take(at, &answer), Some(Stunned::Seen(by, told, None)) if (by, told) == (server, seen))
        );
        assert!(stun.take(at, &answer).is_none(), "again");
        assert!(matches!(
            stun.take(seen, question),
            Some(Stunned::Answer(_))
        ));
    }

    #[test]
    fn what_waits_is_bounded() {
        let questions = Questions::new([1; 32]);
        let at = SocketAddr::from(([192, 0, 2, 1], 7));
        for _ in 0..100 {
            questions.ask(Instant::now(), &[(NodeId::from_bytes([1; 32]), at); 3]);
        }
        assert_eq!(lock(&questions.asked).waiting.len(), WAITING_MAX);
    }

    #[test]
    fn a_look_tells_both_sockets_apart_and_keeps_the_order() {
        let at = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        let seen = |port: u16| SocketAddr::from(([198, 51, 100, 1], port));
        let servers: Vec<_> = (1..=2_u8)
            .map(|number| (NodeId::from_bytes([number; 32]), at(number.into())))
            .collect();
        let questions = Questions::new([1; 32]);
        let asked = questions.look(Instant::now(), &servers, |_| Family::V4);
        let mut stun = Stun::new(questions.clone());
        let mut ports = [1000, 2000];
        // The last is answered first.
        for (asked, port) in asked.iter().zip(&mut ports) {
            for (server, question) in asked.iter().rev() {
                assert!(!questions.has_looked() && !questions.tells());
                *port += server.port();
                let answer = Answerer::new().answer(Time::ZERO, seen(*port), question);
                let came = stun.take(*server, &answer.unwrap().octets);
                assert_eq!(came.is_some(), *port < 2000, "of the first socket alone");
            }
        }
        assert!(questions.has_looked());
        let (told, by_nat64) = questions.looked();
        assert!(!by_nat64);
        assert_eq!(told[0], [seen(1003), seen(1002)]);
        assert_eq!(told[1], [seen(2003), seen(2002)]);
    }

    #[test]
    fn a_ticket_shows_where_the_answer_came() {
        let (server, at) = (
            NodeId::from_bytes([1; 32]),
            SocketAddr::from(([192, 0, 2, 1], 7)),
        );
        let seen = SocketAddr::from(([198, 51, 100, 1], 9));
        let questions = [1, 2].map(|key| Questions::new([key; 32]));
        let [mut here, mut there] = questions.clone().map(Stun::new);
        let asked = questions[0].ask(Instant::now(), &[(server, at)]);
        let Some(Stunned::Answer(answer)) = there.take(seen, &asked[0].1) else {
            panic!("a question is answered");
        };
        let Some(Stunned::Seen(_, _, Some(ticket))) = here.take(at, &answer.octets) else {
            panic!("an answer has a ticket");
        };
        assert!(questions[1].gave(seen.ip(), ticket));
        assert!(!questions[1].gave(at.ip(), ticket) && !questions[0].gave(seen.ip(), ticket));
    }

    #[test]
    fn ipv4_is_waited_for_and_by_the_nat64_only_where_there_is_no_other() {
        let servers: Vec<_> = (1..=6_u8)
            .map(|number| {
                let at = SocketAddr::from(([192, 0, 2, number], 7));
                (NodeId::from_bytes([number; 32]), at)
            })
            .collect();
        // Two servers, each by three ways.
        let families = [Family::V6, Family::V4, Family::Translated].repeat(2);
        let place = |at: SocketAddr| servers.iter().position(|server| server.1 == at);
        let family = |at: SocketAddr| families[place(at).unwrap()];
        let seen = |number: usize| SocketAddr::from(([198, 51, 100, 1], number as u16));
        let look = |has: &[Family]| {
            let questions = Questions::new([1; 32]);
            let asked = questions.look(Instant::now(), &servers, family);
            let mut stun = Stun::new(questions.clone());
            for asked in &asked {
                for (number, (server, question)) in asked.iter().enumerate() {
                    if has.contains(&families[number]) {
                        let mut answerer = Answerer::new();
                        let answer = answerer.answer(Time::ZERO, seen(number), question);
                        stun.take(*server, &answer.unwrap().octets);
                    }
                }
            }
            let (looked, by_nat64) = questions.looked();
            (questions.tells(), looked[0].clone(), by_nat64)
        };
        let of = |numbers: &[usize]| numbers.iter().map(|at| seen(*at)).collect::<Vec<_>>();
        assert_eq!(look(&[Family::V6]), (false, of(&[0, 3]), false));
        let both = look(&[Family::V6, Family::V4]);
        assert_eq!(both, (true, of(&[0, 1, 3, 4]), false));
        let translated = look(&[Family::V6, Family::Translated]);
        assert_eq!(translated, (true, of(&[0, 2, 3, 5]), true));
        let all = look(&[Family::V6, Family::V4, Family::Translated]);
        assert_eq!(all, (true, of(&[0, 1, 3, 4]), false));
    }
}
