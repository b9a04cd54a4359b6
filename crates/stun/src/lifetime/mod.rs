//! For how long a router keeps the mapping of a silent UDP socket: the discovery of binding lifetimes
//! of RFC 5780, section 4.6.
//!
//! ```text
//!   socket of 28 s --- question ---> server     its mapping is made, and seen at 198.51.100.7:4001
//!                 <--- answer ------
//!        28 s of silence
//!   asker ------------ question, to be answered at port 4001 ---> server
//!   socket of 28 s <------------------- answer ----------------          it was still there
//! ```
//!
//! There is a socket for each time of [`IDLE_S`], so that all take as long as the longest, and less where
//! a mapping ends early. Each socket speaks four times before it is silent, over more than three
//! seconds: what a router has seen once only, it may keep for less (Linux: 30 s in place of 120, until
//! something passes two seconds after the first answer, which may be late).
//! The first one is silent for no time at all: if nothing comes there, the server does not answer to other
//! ports, or the router lets nothing in, and nothing can be told.
//!
//! Silence is not taken for an end before the server has answered the asker itself at that time; and
//! two times in turn end the measurement. Where the server sees this host's own address, a socket
//! that never spoke is tried first: if it is reached, nothing is in between that could forget.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use enishi_overlay::Time;

use crate::answer::RESPONSE_PORT_MIN;
use crate::question::{QuestionId, mapped, not_understood, question, question_answered_at};

/// For how long the sockets are silent, in seconds: a little less, and a little more, than what
/// routers are commonly set to, up to the five minutes that RFC 4787 recommends (REQ-5).
pub const IDLE_S: [u16; 15] = [
    0, 5, 10, 18, 28, 35, 55, 65, 85, 100, 115, 130, 175, 190, 295,
];

/// How many sockets are needed: those that are silent; the one that asks for them; one that never speaks.
pub const SOCKETS: usize = IDLE_S.len() + 2;

/// The socket that asks.
const ASKER: usize = IDLE_S.len();

/// The socket that never speaks.
const UNSPOKEN: usize = ASKER + 1;

/// The most servers; two, so that one may be lost.
const SERVERS_MAX: usize = 2;

/// How often each socket speaks at the beginning, and the pause between.
const GREETINGS: u32 = 4;
const GREETING_PAUSE: Duration = Duration::from_millis(1_250);

/// How long the last answer may take.
const SETTLING: Duration = Duration::from_secs(1);

/// Within how long the answers of all servers to one greeting come.
const FRESH: Duration = Duration::from_millis(500);

/// How often it is tried whether something gets in, the pause between, and how long it takes in all.
const TRIES: u32 = 3;
const TRY_PAUSE: Duration = Duration::from_millis(400);
const TRY_TIME: Duration = Duration::from_secs(2);

/// How many times in turn nothing must have come in for the rest to be given up.
const GONE_MAX: usize = 2;

/// What is known of how long a silent mapping is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Nothing is in between that could forget.
    Unlimited,
    /// So long at least, and less than so long, if it ended within the measurement.
    Kept {
        /// The longest silence after which something came in.
        at_least: Duration,
        /// The shortest longer one after which nothing did.
        less_than: Option<Duration>,
        /// Whether addresses are translated; else something remembers who spoke to whom.
        is_translated: bool,
    },
}

/// What a measurement is told.
#[derive(Clone, Copy, Debug)]
pub enum MeasurementInput<'a> {
    /// A datagram came to a socket.
    Datagram {
        /// Which: below [`SOCKETS`].
        socket: usize,
        /// From where.
        from: SocketAddr,
        /// Its octets.
        octets: &'a [u8],
    },
    /// The time of [`Measurement::next_timeout`] has come.
    Timeout,
}

/// A datagram that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// By which socket: below [`SOCKETS`].
    pub socket: usize,
    /// Where to.
    pub to: SocketAddr,
    /// Its octets: 28 or 36.
    pub octets: Vec<u8>,
}

/// A measurement.
#[derive(Debug)]
pub struct Measurement {
    servers: Vec<Server>,
    own: Vec<IpAddr>,
    unspoken_port: u16,
    unspoken: Trial,
    is_open: bool,
    idle: Vec<Idle>,
    greeted: u32,
    next_greeting: Time,
    /// What was asked: at most some hundred questions.
    asked: BTreeMap<QuestionId, Asked>,
    questions: Vec<Question>,
}

#[derive(Debug)]
struct Server {
    at: SocketAddr,
    /// From where it sees the asker.
    sees: Option<IpAddr>,
    /// Whether it answers to other ports, as far as is known.
    answers_at_ports: bool,
}

/// A question that was asked, of which server, and what for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    server: usize,
    purpose: Purpose,
}

#[derive(Clone, Copy, Debug)]
enum Purpose {
    /// To have a mapping, of this socket.
    Greeting(usize),
    /// To see that the server is there, while this socket is tried.
    Presence(usize),
    /// To see whether something gets to this socket.
    Reach(usize),
}

/// A socket that is silent.
#[derive(Debug, Default)]
struct Idle {
    /// Where each server sees it.
    mapped: [Option<SocketAddr>; SERVERS_MAX],
    /// When each was heard last.
    heard: [Time; SERVERS_MAX],
    /// When it was last sent or heard something.
    active: Time,
    trial: Trial,
    /// Which servers have answered the asker since the trial began.
    present: [bool; SERVERS_MAX],
    outcome: Option<Outcome>,
}

/// Whether something gets to a socket.
#[derive(Clone, Copy, Debug, Default)]
struct Trial {
    began: Option<Time>,
    tries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Something came in.
    Kept,
    /// Nothing did, though the server was there.
    Gone,
    /// It could not be found out.
    Unclear,
}

impl Trial {
    /// Returns when something is to be done; none when it is over.
    fn due(&self, not_before: Time) -> Time {
        match self.began {
            None => not_before,
            Some(began) if self.tries < TRIES => began + TRY_PAUSE * self.tries,
            Some(began) => began + TRY_TIME,
        }
    }

    /// Tells whether it is to be tried now, once more.
    fn is_due(&mut self, now: Time, not_before: Time) -> bool {
        let is_due = self.tries < TRIES && now >= self.due(not_before);
        if is_due {
            self.began.get_or_insert(now);
            self.tries += 1;
        }
        is_due
    }

    fn is_over(&self, now: Time) -> bool {
        self.began.is_some_and(|began| now >= began + TRY_TIME)
    }
}

impl Measurement {
    /// Makes one that begins with its first [`MeasurementInput::Timeout`]. Of the servers, which must be of
    /// one family, the first two are asked. `own` are this host's addresses, `unspoken_port` is the
    /// port of the socket that never speaks, the last one.
    pub fn new(now: Time, servers: &[SocketAddr], own: Vec<IpAddr>, unspoken_port: u16) -> Self {
        let servers = servers.iter().take(SERVERS_MAX).map(|at| Server {
            at: *at,
            sees: None,
            answers_at_ports: true,
        });
        let idle = |_: &u16| Idle::default();
        Self {
            servers: servers.collect(),
            own,
            unspoken_port,
            unspoken: Trial::default(),
            is_open: false,
            idle: IDLE_S.iter().map(idle).collect(),
            greeted: 0,
            next_greeting: now,
            asked: BTreeMap::new(),
            questions: Vec::new(),
        }
    }

    /// Takes what happened, and returns what is to be sent.
    pub fn handle(
        &mut self,
        now: Time,
        input: MeasurementInput<'_>,
    ) -> impl Iterator<Item = Question> + '_ {
        match input {
            MeasurementInput::Datagram {
                socket,
                from,
                octets,
            } => self.heard(now, socket, from, octets),
            MeasurementInput::Timeout => self.look(now),
        }
        self.questions.drain(..)
    }

    /// Returns when [`MeasurementInput::Timeout`] is due; none when all is known that will be.
    pub fn next_timeout(&self) -> Option<Time> {
        if self.is_over() {
            return None;
        }
        if self.greeted < GREETINGS {
            return Some(self.next_greeting);
        }
        let running = self.running();
        let trials = running.map(|number| self.idle[number].trial.due(self.begins(number)));
        let unspoken = self.seeks_unspoken();
        let unspoken = unspoken.then(|| self.unspoken.due(self.settled()));
        trials.chain(unspoken).min()
    }

    /// Returns what is known so far; none when nothing is, or the servers do not help.
    pub fn lifetime(&self) -> Option<Lifetime> {
        if self.is_open {
            return Some(Lifetime::Unlimited);
        }
        let times_of = |outcome| {
            let times = self.idle.iter().zip(IDLE_S);
            let such = times.filter(move |(idle, _)| idle.outcome == Some(outcome));
            such.map(|(_, time_s)| Duration::from_secs(time_s.into()))
        };
        let at_least = times_of(Outcome::Kept).max()?;
        let gone = times_of(Outcome::Gone).find(|time| *time > at_least);
        Some(Lifetime::Kept {
            at_least,
            // The last try had so long.
            less_than: gone.map(|time| time + TRY_TIME),
            is_translated: !self.is_own(),
        })
    }

    /// Tells whether nothing more will be known.
    pub fn is_over(&self) -> bool {
        let first = self.idle.first().and_then(|idle| idle.outcome);
        let is_no_use = first.is_some_and(|first| first != Outcome::Kept);
        self.is_open || is_no_use || self.running().next().is_none()
    }

    /// Returns the sockets of which it is still to be found out.
    fn running(&self) -> impl Iterator<Item = usize> + '_ {
        let is_gone = |idle: &Idle| idle.outcome == Some(Outcome::Gone);
        let gone = self
            .idle
            .windows(GONE_MAX)
            .position(|idle| idle.iter().all(is_gone));
        let end = gone.unwrap_or(self.idle.len());
        (0..end).filter(|number| self.idle[*number].outcome.is_none())
    }

    /// Returns when all answers to greetings are there.
    fn settled(&self) -> Time {
        self.next_greeting + SETTLING
    }

    /// Returns when a socket has been silent for its time.
    fn begins(&self, number: usize) -> Time {
        let silent = Duration::from_secs(IDLE_S[number].into());
        (self.idle[number].active + silent).max(self.settled())
    }

    /// Tells whether servers see this host's own address.
    fn is_own(&self) -> bool {
        let mut mapped = self.idle.iter().flat_map(|idle| idle.mapped).flatten();
        mapped.any(|at| self.own.contains(&at.ip()))
    }

    /// Tells whether it is to be found out if a socket is reached that never spoke.
    fn seeks_unspoken(&self) -> bool {
        self.unspoken.tries < TRIES && self.is_own()
    }

    fn look(&mut self, now: Time) {
        if self.greeted < GREETINGS {
            if now >= self.next_greeting {
                self.greet(now);
            }
            return;
        }
        if self.seeks_unspoken() && self.unspoken.is_due(now, self.settled()) {
            for server in 0..self.servers.len() {
                self.ask_for(UNSPOKEN, server, self.unspoken_port);
            }
        }
        let running: Vec<usize> = self.running().collect();
        for number in running {
            let begins = self.begins(number);
            if self.idle[number].trial.is_due(now, begins) {
                self.try_socket(number);
            } else if self.idle[number].trial.is_over(now) {
                self.idle[number].outcome = Some(self.judge(number));
            }
        }
    }

    fn greet(&mut self, now: Time) {
        self.greeted += 1;
        self.next_greeting = now + GREETING_PAUSE;
        for server in 0..self.servers.len() {
            for socket in 0..=ASKER {
                self.ask(socket, server, Purpose::Greeting(socket), question());
            }
        }
        self.idle.iter_mut().for_each(|idle| idle.active = now);
    }

    fn try_socket(&mut self, number: usize) {
        for server in 0..self.servers.len() {
            if let Some(at) = self.idle[number].mapped[server] {
                // Who answers the second one would have answered the first, though it answers few.
                self.ask_for(number, server, at.port());
                self.ask(ASKER, server, Purpose::Presence(number), question());
            }
        }
    }

    /// Has a server answer to a port, at which a socket should be reached.
    fn ask_for(&mut self, socket: usize, server: usize, port: u16) {
        let asked = question_answered_at(port);
        self.ask(ASKER, server, Purpose::Reach(socket), asked);
    }

    fn ask(
        &mut self,
        socket: usize,
        server: usize,
        purpose: Purpose,
        (id, octets): (QuestionId, Vec<u8>),
    ) {
        self.asked.insert(id, Asked { server, purpose });
        let to = self.servers[server].at;
        self.questions.push(Question { socket, to, octets });
    }

    fn heard(&mut self, now: Time, socket: usize, from: SocketAddr, octets: &[u8]) {
        let id = mapped(octets).map(|(id, _)| id);
        let Some(id) = id.or_else(|| not_understood(octets)) else {
            return;
        };
        let Some(Asked { server, purpose }) = self.asked.get(&id).copied() else {
            return;
        };
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        if self.servers[server].at != from {
            return;
        }
        let Some((_, seen)) = mapped(octets) else {
            self.servers[server].answers_at_ports = false;
            return;
        };
        match purpose {
            Purpose::Greeting(ASKER) if socket == ASKER => {
                self.servers[server].sees = Some(seen.ip());
            }
            Purpose::Greeting(number) if socket == number => {
                let idle = &mut self.idle[number];
                (idle.mapped[server], idle.heard[server]) = (Some(seen), now);
                // It is silent from now on, in both directions.
                if idle.trial.began.is_none() {
                    idle.active = now;
                }
            }
            Purpose::Presence(number) if socket == ASKER => {
                self.servers[server].sees = Some(seen.ip());
                self.idle[number].present[server] = true;
            }
            Purpose::Reach(UNSPOKEN) if socket == UNSPOKEN => self.is_open = true,
            Purpose::Reach(number) if socket == number && number < ASKER => {
                self.idle[number].outcome = Some(Outcome::Kept);
            }
            // What comes to another socket than it was to says that the mapping is another's now.
            Purpose::Greeting(_) | Purpose::Presence(_) | Purpose::Reach(_) => {}
        }
    }

    /// Judges a socket to which nothing has come.
    fn judge(&self, number: usize) -> Outcome {
        let idle = &self.idle[number];
        let mut servers = self.servers.iter().enumerate();
        let tells = servers.any(|(at, server)| {
            let mapped = idle.mapped[at];
            // The answer went to the address of the asker.
            let is_there = mapped.is_some_and(|mapped| {
                server.sees == Some(mapped.ip()) && mapped.port() >= RESPONSE_PORT_MIN
            });
            // Its mapping may be older than the last greeting if that one was lost.
            let is_fresh = idle.active.since(idle.heard[at]) < FRESH;
            is_there && is_fresh && idle.present[at] && server.answers_at_ports
        });
        match tells {
            true => Outcome::Gone,
            false => Outcome::Unclear,
        }
    }
}

#[cfg(test)]
mod tests;
