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
}

/// The questions of this node that wait for answers; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Questions(Arc<Mutex<BTreeMap<QuestionId, Waiting>>>);

impl Questions {
    /// Writes a question to each server.
    pub(super) fn ask(
        &self,
        now: Instant,
        servers: &[(NodeId, SocketAddr)],
    ) -> Vec<(SocketAddr, Bytes)> {
        let mut waiting = lock(&self.0);
        waiting.retain(|_, waits| now.duration_since(waits.since) < WAITING_TIME);
        let mut questions = Vec::new();
        for (server, at) in servers {
            if waiting.len() >= WAITING_MAX {
                let oldest = waiting.iter().min_by_key(|(_, waits)| waits.since);
                let oldest = oldest.map(|(id, _)| *id);
                oldest.and_then(|id| waiting.remove(&id));
            }
            let (id, octets) = question();
            let (server, since) = (*server, now);
            waiting.insert(
                id,
                Waiting {
                    server,
                    at: *at,
                    since,
                },
            );
            questions.push((*at, octets.into()));
        }
        questions
    }

    /// Takes an answer that came from an address; returns who answered, and where it sees us.
    fn answered(&self, from: SocketAddr, datagram: &[u8]) -> Option<(NodeId, SocketAddr)> {
        let (id, seen_at) = mapped(datagram)?;
        let mut waiting = lock(&self.0);
        let waits = waiting.get(&id).filter(|waits| waits.at == from)?;
        let server = waits.server;
        waiting.remove(&id);
        Some((server, seen_at))
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
            return Some(Stunned::Seen(server, at));
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
        assert_eq!(lock(&questions.0).len(), WAITING_MAX);
    }
}
