//! STUN at the packets' port: standard clients are answered, and others are asked where this port is
//! seen (`enishi_stun`). It takes no session with a member, and so is known before the first one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use enishi_overlay::{NodeId, Time};
use enishi_stun::{Answerer, QuestionId, is_stun, mapped, question};

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
    first: Vec<(QuestionId, Option<SocketAddr>)>,
    anew: Vec<(QuestionId, Option<SocketAddr>)>,
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
            let (id, octets) = question();
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

/// The questions of this node that wait for answers; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Questions(Arc<Mutex<Asked>>);

impl Questions {
    /// Writes a question to each server.
    pub(super) fn ask(
        &self,
        now: Instant,
        servers: &[(NodeId, SocketAddr)],
    ) -> Vec<(SocketAddr, Bytes)> {
        lock(&self.0).ask(now, servers, false).1
    }

    /// Writes two questions to each server: from the socket that takes packets, and from a new one.
    /// The answers are what [`Self::looked`] returns, until another look.
    pub(super) fn look(
        &self,
        now: Instant,
        servers: &[(NodeId, SocketAddr)],
    ) -> [Vec<(SocketAddr, Bytes)>; 2] {
        let mut asked = lock(&self.0);
        let none = |ids: Vec<QuestionId>| ids.into_iter().map(|id| (id, None)).collect();
        let (ids, first) = asked.ask(now, servers, false);
        asked.look.first = none(ids);
        let (ids, anew) = asked.ask(now, servers, true);
        asked.look.anew = none(ids);
        [first, anew]
    }

    /// Tells whether all have answered.
    pub(super) fn has_looked(&self) -> bool {
        let look = &lock(&self.0).look;
        let mut answers = look.first.iter().chain(&look.anew);
        answers.all(|(_, at)| at.is_some())
    }

    /// Returns where the servers saw the two sockets, in the order in which they were asked.
    pub(super) fn looked(&self) -> [Vec<SocketAddr>; 2] {
        let look = &lock(&self.0).look;
        [&look.first, &look.anew].map(|of| of.iter().filter_map(|(_, at)| *at).collect())
    }

    /// Takes an answer that came from an address. Returns who answered, and where it sees the socket
    /// that takes packets; not an address if it was another socket.
    fn answered(&self, from: SocketAddr, datagram: &[u8]) -> Option<(NodeId, Option<SocketAddr>)> {
        let (id, seen_at) = mapped(datagram)?;
        let mut asked = lock(&self.0);
        let waits = *asked.waiting.get(&id).filter(|waits| waits.at == from)?;
        asked.waiting.remove(&id);
        let look = &mut asked.look;
        for (of, at) in look.first.iter_mut().chain(&mut look.anew) {
            if *of == id {
                *at = Some(seen_at);
            }
        }
        Some((waits.server, (!waits.is_anew).then_some(seen_at)))
    }
}

/// What takes STUN's messages at the packets' port.
pub(super) struct Stun {
    questions: Questions,
    answerer: Answerer,
    started: Instant,
}

/// What came of a message.
pub(super) enum Stunned {
    /// This is to be sent back.
    Answer(Vec<u8>),
    /// Somebody sees this node at an address.
    Seen(NodeId, SocketAddr),
}

impl Stun {
    pub(super) fn new(questions: Questions) -> Self {
        Self {
            questions,
            answerer: Answerer::new(),
            started: Instant::now(),
        }
    }

    /// Takes a datagram; none when nothing comes of it.
    pub(super) fn take(&mut self, from: SocketAddr, datagram: &[u8]) -> Option<Stunned> {
        if !is_stun(datagram) {
            return None;
        }
        if let Some((server, at)) = self.questions.answered(from, datagram) {
            return at.map(|at| Stunned::Seen(server, at));
        }
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let now = Time::from_micros(micros);
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
        let questions = Questions::default();
        let asked = questions.ask(Instant::now(), &[(server, at)]);
        let [(to, question)] = &asked[..] else {
            panic!("one server, one question");
        };
        assert_eq!(*to, at);
        let answer = Answerer::new().answer(Time::ZERO, seen, question).unwrap();
        let mut stun = Stun::new(questions);
        assert!(stun.take(seen, &answer).is_none(), "from elsewhere");
        assert!(
            matches!(stun.take(at, &answer), Some(Stunned::Seen(by, told)) if (by, told) == (server, seen))
        );
        assert!(stun.take(at, &answer).is_none(), "again");
        assert!(matches!(
            stun.take(seen, question),
            Some(Stunned::Answer(_))
        ));
    }

    #[test]
    fn what_waits_is_bounded() {
        let questions = Questions::default();
        let at = SocketAddr::from(([192, 0, 2, 1], 7));
        for _ in 0..100 {
            questions.ask(Instant::now(), &[(NodeId::from_bytes([1; 32]), at); 3]);
        }
        assert_eq!(lock(&questions.0).waiting.len(), WAITING_MAX);
    }

    #[test]
    fn a_look_tells_both_sockets_apart_and_keeps_the_order() {
        let at = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        let seen = |port: u16| SocketAddr::from(([198, 51, 100, 1], port));
        let servers: Vec<_> = (1..=2_u8)
            .map(|number| (NodeId::from_bytes([number; 32]), at(number.into())))
            .collect();
        let questions = Questions::default();
        let asked = questions.look(Instant::now(), &servers);
        let mut stun = Stun::new(questions.clone());
        let mut ports = [1000, 2000];
        // The last is answered first.
        for (asked, port) in asked.iter().zip(&mut ports) {
            for (server, question) in asked.iter().rev() {
                assert!(!questions.has_looked());
                *port += server.port();
                let answer = Answerer::new().answer(Time::ZERO, seen(*port), question);
                let came = stun.take(*server, &answer.unwrap());
                assert_eq!(came.is_some(), *port < 2000, "of the first socket alone");
            }
        }
        assert!(questions.has_looked());
        let told = questions.looked();
        assert_eq!(told[0], [seen(1003), seen(1002)]);
        assert_eq!(told[1], [seen(2003), seen(2002)]);
    }
}
