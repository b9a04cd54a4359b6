//! Finding a way through a translation that gives each destination another outer port (symmetric:
//! RFC 4787, section 4.1, address and port-dependent mapping).
//!
//! ```text
//!   searches: one port known               opens: 256 outer ports, none known
//!   A 198.51.100.1:4000 -- probes to ports, drawn --> ?  B 203.0.113.9
//!                       <- probes by 256 sockets --------- :1031 :7702 :9345 ...
//! ```
//!
//! Whoever has one outer port for all *searches*: it sends probes to many ports of the other's outer
//! address. The other one *opens*: it sends probes to that one port by many sockets, each of which
//! gets an outer port. As soon as one probed port is one of these, probes pass in both directions.
//! After `k` probes that is so with the probability 1 - (1 - 256/64512)^k, 99.8 % for 1,536 (the
//! birthday paradox; B. Ford, P. Srisuresh and D. Kegel, "Peer-to-Peer Communication Across Network
//! Address Translators", USENIX 2005, section 5.1, describe why ports have to be guessed at all).
//! Where ports follow each other, the next ones are probed first; where those of both do, they *meet*:
//! each probes the other's next ports, one after the other, by the socket that has just asked where it
//! comes out, since some translations count on for each inner port by itself.
//!
//! All that is sent are the sealed probes of sessions that exist, at a rate of [`PER_S_MAX`], to
//! the one address that the host names.

use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::driver::Driver;
use super::paths::Ask;
use super::session::{Session, Tokens};
use super::sockets::{Pair, Via};
use super::{Note, Outside, PeerKey};

/// The most sockets that are opened.
pub const SOCKETS_MAX: u16 = 256;
/// The most ports that are probed because they are expected.
pub const EXPECTED_MAX: usize = 64;
/// The most ports that are probed because they were drawn.
pub const DRAWN_MAX: u16 = 1536;
/// The most probes in a second.
pub const PER_S_MAX: u32 = 250;

/// How many probes are sent at a time, and how long after them no others.
const AT_ONCE: u32 = 12;
const PAUSE: Duration = Duration::from_millis(48);
/// How long it goes on after the last port was probed, or all sockets were opened: the other side
/// may have begun later.
const LINGER: Duration = Duration::from_millis(1500);
/// How long it may take.
const PUNCH_MAX: Duration = Duration::from_secs(8);
/// How long sockets are kept that nothing goes by: before a punch begins, and after it has ended.
const SOCKETS_KEPT: Duration = Duration::from_secs(10);
/// The ports that translations give: those that are not reserved (RFC 4787, REQ-3).
const PORTS: std::ops::RangeInclusive<u16> = 1024..=65_535;

/// How a way is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Punch {
    /// The peer's outer port is searched.
    Search {
        /// The peer's outer address.
        ip: IpAddr,
        /// Ports that are probed first; at most [`EXPECTED_MAX`].
        expected: Vec<u16>,
        /// How many are drawn after that; at most [`DRAWN_MAX`].
        drawn: u16,
    },
    /// The peer searches this host's.
    Open {
        /// The peer's only outer address and port.
        to: SocketAddr,
        /// How many sockets are opened besides the first one; at most [`SOCKETS_MAX`].
        sockets: u16,
    },
    /// Both search ports that follow each other.
    Meet {
        /// The peer's outer address.
        ip: IpAddr,
        /// Ports that are probed in this order, by the socket of the last
        /// [`Command::SendAnew`](super::Command::SendAnew); at most [`EXPECTED_MAX`].
        ports: Vec<u16>,
    },
}

/// What is under way.
#[derive(Debug)]
struct Running {
    peer: PeerKey,
    punch: Punch,
    began: Instant,
    /// How many probes were sent, and when the last of all that are new.
    sent: u32,
    done: Option<Instant>,
    next: Instant,
    /// Two numbers that choose the ports.
    draw: (u32, u32),
}

/// The punches of the engine, one at a time.
#[derive(Debug, Default)]
pub(super) struct Puncher {
    running: Option<Running>,
    /// The sockets of this one or the last one.
    pool: Vec<Via>,
    /// Until when they are kept, unless one is under way.
    kept_until: Option<Instant>,
}

impl Puncher {
    /// Tells whether something is to be done soon.
    pub(super) fn is_busy(&self) -> bool {
        self.running.is_some() || self.kept_until.is_some()
    }
}

impl Running {
    fn new(now: Instant, peer: PeerKey, punch: Punch, number: u64) -> Self {
        Self {
            peer,
            punch,
            began: now,
            sent: 0,
            done: None,
            next: now,
            draw: ((number >> 32) as u32, number as u32),
        }
    }

    /// Returns the port that is probed as the nth; none after the last.
    fn port(&self, nth: u32) -> Option<u16> {
        let (expected, drawn) = match &self.punch {
            Punch::Search {
                expected, drawn, ..
            } => (expected, *drawn),
            Punch::Meet { ports, .. } => (ports, 0),
            Punch::Open { .. } => return None,
        };
        let expected = &expected[..expected.len().min(EXPECTED_MAX)];
        let number = nth as usize;
        match number.checked_sub(expected.len()) {
            None => expected.get(number).copied(),
            Some(number) if number < usize::from(drawn.min(DRAWN_MAX)) => {
                Some(drawn_port(self.draw, number as u32))
            }
            Some(_) => None,
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        let is_done = self.done.is_some_and(|done| now >= done + LINGER);
        is_done || now >= self.began + PUNCH_MAX
    }
}

/// Returns one of the ports that a translation may give, another one for each number below the
/// count of these: they are taken at equal steps, which reach all of them as the step and the count
/// have no common divisor. Whoever gives ports does not know the steps, nor we the ports.
fn drawn_port((start, step): (u32, u32), number: u32) -> u16 {
    let count = u32::from(PORTS.end() - PORTS.start()) + 1; // 2^10 · 3^2 · 7
    let mut step = (step % count) | 1;
    while step.is_multiple_of(3) || step.is_multiple_of(7) {
        step += 2;
    }
    let place = (u64::from(start) + u64::from(step) * u64::from(number)) % u64::from(count);
    PORTS.start() + place as u16
}

impl<O: Outside> Driver<O> {
    /// Opens a socket for the next punch; none while one is under way.
    pub(super) fn open_for_punch(&mut self) -> Option<Via> {
        if self.puncher.running.is_some() {
            return None;
        }
        self.close_unused();
        let via = self.open_socket()?;
        self.puncher.pool = vec![via];
        self.puncher.kept_until = Some(self.now + SOCKETS_KEPT);
        Some(via)
    }

    pub(super) fn begin_punch(&mut self, peer: PeerKey, punch: Punch) {
        self.end_punch(false);
        let number = self
            .tokens
            .draw(self.now.saturating_duration_since(self.started));
        self.puncher.running = Some(Running::new(self.now, peer, punch, number));
    }

    /// Sends what is due of the punch that is under way, and closes what is not needed any more.
    pub(super) fn go_on_punching(&mut self) {
        if self
            .puncher
            .kept_until
            .is_some_and(|until| self.now >= until)
            && self.puncher.running.is_none()
        {
            self.puncher.kept_until = None;
            self.close_unused();
        } else if !self.is_punching() && self.puncher.kept_until.is_none() {
            // Those by which nobody is reached any more.
            self.close_unused();
        }
        let Some(running) = &self.puncher.running else {
            return;
        };
        let slots = self.slots_of(running.peer);
        let mut sessions = slots.iter().filter_map(|slot| self.sessions.get(*slot));
        if sessions.any(|session| session.paths.straight().is_some()) {
            self.share_ways(running.peer);
            return self.end_punch(true);
        }
        let able = |slot: &&usize| self.sessions.get(**slot).is_some_and(Session::can_seal);
        match slots.iter().find(able) {
            Some(slot) if !running.is_over(self.now) => self.probe_for_punch(*slot),
            _ => self.end_punch(false),
        }
    }

    /// Has packets of all networks with a peer try the ways straight to it that those of one have found:
    /// that a socket which was opened for it leads there, nothing else tells.
    pub(super) fn share_ways(&mut self, peer: PeerKey) {
        let slots = self.slots_of(peer);
        let sessions = || slots.iter().filter_map(|slot| self.sessions.get(*slot));
        let pairs: Vec<Pair> = sessions().filter_map(|it| it.paths.straight()).collect();
        for slot in slots {
            if let Some(session) = self.sessions.get_mut(slot)
                && session.paths.straight().is_none()
            {
                for pair in &pairs {
                    session.paths.learn_pair(self.now, *pair);
                }
            }
        }
    }

    fn is_punching(&self) -> bool {
        self.puncher.running.is_some()
    }

    /// Sends the next probes of a punch.
    fn probe_for_punch(&mut self, slot: usize) {
        let Some(running) = &mut self.puncher.running else {
            return;
        };
        if self.now < running.next {
            return;
        }
        running.next = self.now + PAUSE;
        let first = running.sent;
        running.sent += AT_ONCE;
        for nth in first..first + AT_ONCE {
            if let Some(to) = self.next_of_punch(nth) {
                self.ask(slot, Ask { to, bytes: 0 });
            }
        }
    }

    /// Returns what is probed as the nth.
    fn next_of_punch(&mut self, nth: u32) -> Option<Pair> {
        let running = self.puncher.running.as_mut()?;
        match running.punch {
            Punch::Search { ip, .. } | Punch::Meet { ip, .. } => {
                let port = running.port(nth);
                if port.is_none() {
                    running.done.get_or_insert(self.now);
                }
                let asked = self.puncher.pool.first().copied();
                let via = match running.punch {
                    Punch::Meet { .. } => asked.unwrap_or(Via::FIRST),
                    Punch::Search { .. } | Punch::Open { .. } => Via::FIRST,
                };
                Some(Pair::straight(via, SocketAddr::new(ip, port?)))
            }
            Punch::Open { to, sockets } => {
                let wanted = usize::from(sockets.min(SOCKETS_MAX));
                if self.puncher.pool.len() < wanted && nth as usize > self.puncher.pool.len() {
                    let opened = self.open_socket();
                    self.puncher.pool.extend(opened);
                }
                // Of sockets that the system refuses there is another chance at the next turn.
                let pool = &self.puncher.pool[..self.puncher.pool.len().min(wanted)];
                let turn = nth as usize % (pool.len() + 1);
                let via = turn.checked_sub(1).and_then(|at| pool.get(at).copied());
                let via = via.unwrap_or(Via::FIRST);
                // With one socket alone some probes are enough.
                let is_enough = wanted == 0 && !nth.is_multiple_of(AT_ONCE);
                (!is_enough).then_some(Pair::straight(via, to))
            }
        }
    }

    fn end_punch(&mut self, is_through: bool) {
        if let Some(Running { peer, .. }) = self.puncher.running.take() {
            self.puncher.kept_until = Some(self.now + SOCKETS_KEPT);
            self.exit.outside.note(Note::Punched { peer, is_through });
        }
    }

    /// Closes the sockets by which nobody is reached.
    fn close_unused(&mut self) {
        for via in self.exit.sockets.others() {
            let mut sessions = self.sessions.iter();
            if !sessions.any(|(_, session)| session.paths.uses(self.now, via)) {
                self.close_socket(via);
            }
        }
        self.puncher.pool.clear();
    }
}

impl Tokens {
    /// Draws a number that nobody outside can tell.
    fn draw(&self, seed: Duration) -> u64 {
        self.hasher().hash_one((seed, "punch"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn expected_ports_come_first_and_all_of_it_is_bounded() {
        let punch = Punch::Search {
            ip: [192, 0, 2, 1].into(),
            expected: (1..=100).collect(),
            drawn: u16::MAX,
        };
        let running = Running::new(Instant::now(), [1; 32], punch, 0x1234_5678_9abc_def0);
        let ports: Vec<u16> = (0..).map_while(|nth| running.port(nth)).collect();
        assert_eq!(ports.len(), EXPECTED_MAX + usize::from(DRAWN_MAX));
        assert!(
            ports[..EXPECTED_MAX]
                .iter()
                .copied()
                .eq(1..=EXPECTED_MAX as u16)
        );
        assert!(Duration::from_secs(1) >= PAUSE * (PER_S_MAX / AT_ONCE));
        let meet = Punch::Meet {
            ip: [192, 0, 2, 1].into(),
            ports: (1..=100).rev().collect(),
        };
        let running = Running::new(Instant::now(), [1; 32], meet, 1);
        let ports = (0..).map_while(|nth| running.port(nth));
        assert!(ports.eq((1..=100).rev().take(EXPECTED_MAX)));
    }

    #[test]
    fn it_ends_some_time_after_the_last_probe() {
        let now = Instant::now();
        let punch = Punch::Open {
            to: ([192, 0, 2, 1], 7).into(),
            sockets: 256,
        };
        let mut running = Running::new(now, [1; 32], punch, 1);
        assert!(!running.is_over(now + PUNCH_MAX / 2));
        assert!(running.is_over(now + PUNCH_MAX));
        running.done = Some(now);
        assert!(running.is_over(now + LINGER));
    }

    proptest! {
        #[test]
        fn drawn_ports_differ(start in any::<u32>(), step in any::<u32>()) {
            let ports = (0..u32::from(DRAWN_MAX)).map(|number| drawn_port((start, step), number));
            let ports: BTreeSet<u16> = ports.collect();
            prop_assert_eq!(ports.len(), usize::from(DRAWN_MAX));
            prop_assert!(ports.iter().all(|port| PORTS.contains(port)));
        }
    }
}
