//! What two nodes do to meet, as follows from how the packets of both come out.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::super::observed::{canonical, is_public};

/// How many ports are probed where they follow each other: others of the house take some meanwhile.
pub const EXPECTED_MAX: usize = 32;
/// How many are probed where the ports of both follow each other, and how many of these as far ahead as each
/// other.
const PAIRED: i32 = 64;
const PAIRED_AHEAD: i32 = 8;
/// How many ports are probed that are drawn, and how many sockets are opened for these to be met.
const DRAWN: u16 = 1536;
const SOCKETS: u16 = 256;
/// The first port that is probed besides one that was named: translations give none of services.
const SEARCHED_MIN: u16 = 1024;
/// By how much the next port of a translation may differ from the one before.
const STEP_MAX: i32 = 16;

/// How a translation gives outer ports to the packets of one inner port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ports {
    /// One for all.
    Kept,
    /// Another for each, so much after the one before.
    Steps(i16),
    /// Another for each, in no order.
    Random,
    /// As one server alone has answered, nobody can tell.
    Unknown,
}

/// How a node's packets come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The outer address; its port is the last one that was seen, unless there is one for all.
    pub at: SocketAddr,
    /// How outer ports are given.
    pub ports: Ports,
}

impl Offer {
    /// Judges from what servers answered: to questions from the socket that takes packets, and to
    /// others from a new one, in the order in which they were asked. None when nobody has answered,
    /// or not from the Internet.
    pub fn judge(first: &[SocketAddr], anew: &[SocketAddr]) -> Option<Self> {
        let said = first.iter().map(|at| canonical(*at));
        let mut first: Vec<SocketAddr> = said.filter(|at| is_public(at.ip())).collect();
        // Where there are both, IPv4 is what is translated.
        if first.iter().any(SocketAddr::is_ipv4) {
            first.retain(SocketAddr::is_ipv4);
        }
        let mut counts: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        for at in &first {
            *counts.entry(*at).or_default() += 1;
        }
        let (most, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        if count >= 2 || first.len() == 1 {
            let ports = if count >= 2 {
                Ports::Kept
            } else {
                Ports::Unknown
            };
            return Some(Self { at: most, ports });
        }
        let of_it = anew.iter().filter(|at| at.ip() == most.ip());
        let seen: Vec<u16> = of_it.map(SocketAddr::port).collect();
        let last = seen.last().copied().unwrap_or(most.port());
        let at = SocketAddr::new(most.ip(), last);
        let ports = steps(&seen).map_or(Ports::Random, Ports::Steps);
        Some(Self { at, ports })
    }
}

/// Returns by how much ports follow each other; none when they do not.
fn steps(seen: &[u16]) -> Option<i16> {
    let by = |pair: &[u16]| i32::from(pair[1]) - i32::from(pair[0]);
    let steps: Vec<i32> = seen.windows(2).map(by).collect();
    let least = *steps.iter().min_by_key(|step| step.abs())?;
    let follow = |step: &i32| (1..=STEP_MAX).contains(&(step * least.signum()));
    let follow = least != 0 && steps.iter().all(follow);
    follow.then(|| i16::try_from(least).ok()).flatten()
}

/// What the host is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Plan {
    /// Probe ports of an address: at most [`EXPECTED_MAX`] that are expected, then so many drawn.
    Search {
        /// The peer's outer address.
        ip: IpAddr,
        /// Probed first.
        expected: Vec<u16>,
        /// How many more.
        drawn: u16,
    },
    /// Probe one address and port by so many sockets besides the first one.
    Open {
        /// The peer's outer address.
        to: SocketAddr,
        /// How many.
        sockets: u16,
    },
    /// Probe ports of an address one after the other, as the other one does, by the socket that asked
    /// where this node comes out: some translations count on for each inner port by itself.
    Meet {
        /// The peer's outer address.
        ip: IpAddr,
        /// At most 64.
        ports: Vec<u16>,
    },
}

/// Returns what a node does that comes out in one way, to meet one that comes out in another; none when
/// nothing is likely to help.
pub fn plan(mine: Offer, theirs: Offer) -> Option<Plan> {
    let to = theirs.at;
    if mine.at.is_ipv4() != to.is_ipv4() {
        return None;
    }
    let search = |expected| Plan::Search {
        ip: to.ip(),
        expected,
        drawn: DRAWN,
    };
    match (mine.ports, theirs.ports) {
        (Ports::Kept, Ports::Kept) | (Ports::Unknown, Ports::Unknown) => {
            Some(Plan::Open { to, sockets: 0 })
        }
        // Who is unknown may have one port for all: towards one that has, it opens many besides its own,
        // which the other one probes first; with any other one it is the one with one port.
        (_, Ports::Kept) | (Ports::Steps(_) | Ports::Random, Ports::Unknown) => Some(Plan::Open {
            to,
            sockets: SOCKETS,
        }),
        (Ports::Kept | Ports::Unknown, Ports::Steps(step)) => {
            Some(search(following(to.port(), step, 1..=EXPECTED_MAX as i32)))
        }
        (Ports::Steps(_), Ports::Steps(step)) => {
            let numbers = (0..PAIRED).map(|number| match mine.at < to {
                true => number + 1,
                false => ahead(number),
            });
            Some(Plan::Meet {
                ip: to.ip(),
                ports: following(to.port(), step, numbers),
            })
        }
        (Ports::Kept | Ports::Unknown, Ports::Random) => Some(search(Vec::new())),
        (Ports::Kept, Ports::Unknown) => {
            let port = Some(to.port()).filter(|port| *port >= SEARCHED_MIN);
            Some(search(port.into_iter().collect()))
        }
        (Ports::Random, Ports::Steps(_) | Ports::Random) | (Ports::Steps(_), Ports::Random) => None,
    }
}

/// Returns to which of the other's next ports, counted from one, the nth probe goes of the one who probes ahead.
///
/// Let others have taken `a` of this node's ports before its first probe, and `b` of the other one's. Probes meet
/// that leave and arrive at the same two ports: the nth of this node, which goes to the other one's port
/// `n + k`, and the mth of that, which goes to this node's port `m`, where `n + k = m + b` and `m = n + a`.
/// So it has to be ahead by `k = a + b`, whatever `n` is: up to seven are tried.
fn ahead(number: i32) -> i32 {
    number + 1 + number / PAIRED_AHEAD
}

/// Returns those of the ports that come next which have these numbers, from one on.
fn following(last: u16, step: i16, numbers: impl Iterator<Item = i32>) -> Vec<u16> {
    let next = |number: i32| i32::from(last) + number * i32::from(step);
    let ports = numbers.map(next);
    let ports = ports.filter_map(|port| u16::try_from(port).ok());
    ports.filter(|port| *port >= SEARCHED_MIN).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ports: &[u16]) -> Vec<SocketAddr> {
        let at = |port: &u16| SocketAddr::from(([198, 51, 100, 7], *port));
        ports.iter().map(at).collect()
    }

    #[test]
    fn how_ports_are_given_is_seen_from_a_few_answers() {
        let judged = |first: &[u16], anew: &[u16]| {
            let offer = Offer::judge(&at(first), &at(anew));
            offer.map(|offer| (offer.at.port(), offer.ports))
        };
        assert_eq!(judged(&[], &[7]), None);
        // One server alone sees one port, however they are given.
        assert_eq!(judged(&[7], &[9, 11]), Some((7, Ports::Unknown)));
        assert_eq!(judged(&[7, 7], &[]), Some((7, Ports::Kept)));
        assert_eq!(judged(&[7, 7, 9], &[1]), Some((7, Ports::Kept)));
        let steps = Some((2007, Ports::Steps(2)));
        assert_eq!(judged(&[1, 2], &[2001, 2003, 2007]), steps);
        assert_eq!(
            judged(&[1, 2], &[2003, 2001]),
            Some((2001, Ports::Steps(-2)))
        );
        assert_eq!(
            judged(&[1, 2], &[2001, 40_000]),
            Some((40_000, Ports::Random))
        );
        assert_eq!(
            judged(&[1, 2], &[2001, 2000, 2001]),
            Some((2001, Ports::Random))
        );
        let inner = ["192.168.1.2:7".parse().unwrap()];
        assert_eq!(Offer::judge(&inner, &inner), None);
    }

    #[test]
    fn one_searches_what_the_other_one_opens() {
        let offer = |ports| Offer {
            at: at(&[5000])[0],
            ports,
        };
        let (kept, steps) = (offer(Ports::Kept), offer(Ports::Steps(2)));
        let random = offer(Ports::Random);
        let sockets = |plan| match plan {
            Some(Plan::Open { sockets, .. }) => Some(sockets),
            Some(Plan::Search { .. } | Plan::Meet { .. }) | None => None,
        };
        assert_eq!(sockets(plan(kept, kept)), Some(0));
        assert_eq!(sockets(plan(steps, kept)), Some(SOCKETS));
        assert_eq!(sockets(plan(random, kept)), Some(SOCKETS));
        let Some(Plan::Search {
            expected, drawn, ..
        }) = plan(kept, steps)
        else {
            panic!("it searches");
        };
        assert_eq!((expected.len(), drawn), (EXPECTED_MAX, DRAWN));
        assert_eq!(expected[..2], [5002, 5004]);
        assert!(
            matches!(plan(kept, random), Some(Plan::Search { expected, .. }) if expected.is_empty())
        );
        for (one, other) in [(steps, random), (random, steps), (random, random)] {
            assert_eq!(plan(one, other), None);
        }
        // Whoever is unknown is met if it has one port for all, and by one that has one in any case.
        let unknown = offer(Ports::Unknown);
        assert_eq!(sockets(plan(unknown, unknown)), Some(0));
        assert_eq!(sockets(plan(unknown, kept)), Some(SOCKETS));
        let searched = plan(kept, unknown);
        assert!(
            matches!(searched, Some(Plan::Search { expected, drawn, .. })
            if (&expected[..], drawn) == (&[5000][..], DRAWN))
        );
        for other in [steps, random] {
            assert_eq!(plan(unknown, other), plan(kept, other));
            assert_eq!(sockets(plan(other, unknown)), Some(SOCKETS));
        }
    }

    /// Each probe of a node comes out at the next port of its router, some of which others have taken before.
    #[test]
    fn two_whose_ports_follow_each_other_meet() {
        let (mine, theirs) = ([203, 0, 113, 7], [198, 51, 100, 9]);
        for steps in [[1, 1], [2, -1], [-3, 16], [7, 2]] {
            let ports = [30_000, 50_000];
            let offers: [Offer; 2] = std::array::from_fn(|end| Offer {
                at: ([mine, theirs][end], ports[end]).into(),
                ports: Ports::Steps(steps[end]),
            });
            let probes = |end: usize, taken: i32| -> Vec<(i32, i32)> {
                let Some(Plan::Meet { ip, ports: probed }) = plan(offers[end], offers[1 - end])
                else {
                    panic!("they meet");
                };
                assert_eq!(ip, offers[1 - end].at.ip());
                assert_eq!(probed.len(), PAIRED as usize);
                let out = |nth: i32| i32::from(ports[end]) + (nth + taken) * i32::from(steps[end]);
                (1..)
                    .map(out)
                    .zip(probed.into_iter().map(i32::from))
                    .collect()
            };
            for taken in [[0, 0], [1, 0], [0, 3], [4, 3], [0, 7]] {
                let [one, other] = [probes(0, taken[0]), probes(1, taken[1])];
                let meets = |(from, to): &(i32, i32)| other.contains(&(*to, *from));
                assert!(one.iter().any(meets), "{steps:?} {taken:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_said_little_follows(
            first in proptest::collection::vec(any::<u16>(), 0..6),
            anew in proptest::collection::vec(any::<u16>(), 0..6),
            last in any::<u16>(),
            step in any::<i16>(),
        ) {
            if let Some(mine) = Offer::judge(&at(&first), &at(&anew)) {
                let theirs = Offer { at: at(&[last])[0], ports: Ports::Steps(step) };
                let (ports, most) = match plan(mine, theirs) {
                    Some(Plan::Search { expected, drawn: DRAWN, .. }) => (expected, EXPECTED_MAX),
                    Some(Plan::Meet { ports, .. }) => (ports, PAIRED as usize),
                    Some(Plan::Search { .. } | Plan::Open { .. }) | None => (Vec::new(), 0),
                };
                prop_assert!(ports.len() <= most);
                prop_assert!(ports.iter().all(|port| *port >= 1024));
            }
        }
    }
}
