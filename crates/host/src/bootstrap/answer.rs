//! Whose question "who are you?" is answered, and how often.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use enishi_overlay::{Contact, Rng};
use enishi_services::rendezvous::{Answer, Asked, Rendezvous};

use crate::session::Reach;

/// How many questions of one network (/24, /48) are looked at in an interval.
const PER_NETWORK_MAX: u32 = 32;
const INTERVAL: Duration = Duration::from_secs(4);

/// Of how many networks is remembered what they asked; while it is full, questions of others are
/// dropped.
const NETWORKS_MAX: usize = 1_024;

/// Who is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Nobody.
    Nobody,
    /// Who asks from a network of the site, from one of this host's own, or from this host.
    Site,
    /// Everybody who knows the overlay.
    Everybody,
}

/// Answers.
#[derive(Debug)]
pub(crate) struct Answerer {
    rendezvous: Rendezvous,
    audience: Audience,
    rng: Rng,
    /// Since when each network asked how often.
    networks: BTreeMap<IpAddr, (Instant, u32)>,
}

impl Answerer {
    pub(crate) fn new(rendezvous: Rendezvous, audience: Audience, rng: Rng) -> Self {
        Self {
            rendezvous,
            audience,
            rng,
            networks: BTreeMap::new(),
        }
    }

    /// Reads a question; none when it is not to be answered. `own` are this host's addresses.
    pub(crate) fn read(
        &mut self,
        now: Instant,
        from: SocketAddr,
        own: &[SocketAddr],
        octets: &[u8],
    ) -> Option<Asked> {
        let is_heard = match self.audience {
            Audience::Nobody => false,
            Audience::Site => {
                let is_near = |own: &SocketAddr| in_one_network(own.ip(), from.ip());
                Reach::of(from.ip()) != Reach::Internet || own.iter().any(is_near)
            }
            Audience::Everybody => true,
        };
        if !is_heard || !self.may_ask(now, from.ip()) {
            return None;
        }
        self.rendezvous.read_question(octets)
    }

    /// Makes the answer; `port` is that of the sessions.
    pub(crate) fn answer(&mut self, asked: &Asked, port: u16, contacts: Vec<Contact>) -> Vec<u8> {
        let answer = Answer { port, contacts };
        self.rendezvous.answer(&mut self.rng, asked, answer)
    }

    fn may_ask(&mut self, now: Instant, ip: IpAddr) -> bool {
        let network = network(ip);
        if self.networks.len() >= NETWORKS_MAX && !self.networks.contains_key(&network) {
            self.networks
                .retain(|_, (since, _)| now.duration_since(*since) < INTERVAL);
            if self.networks.len() >= NETWORKS_MAX {
                return false;
            }
        }
        let (since, count) = self.networks.entry(network).or_insert((now, 0));
        if now.duration_since(*since) >= INTERVAL {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= PER_NETWORK_MAX
    }
}

/// Tells whether two addresses are probably of one link: sites with public addresses have networks of
/// at least 24 bits of prefix by IPv4 as a rule, and of 64 by IPv6 (RFC 4291, section 2.5.1).
fn in_one_network(one: IpAddr, other: IpAddr) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => one.octets()[..3] == other.octets()[..3],
        (IpAddr::V6(one), IpAddr::V6(other)) => one.segments()[..4] == other.segments()[..4],
        _ => false,
    }
}

fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            [a, b, c, 0].into()
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            [a, b, c, 0, 0, 0, 0, 0].into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use enishi_overlay::OverlayId;

    #[test]
    fn questions_are_answered_seldom_and_to_those_who_know_the_overlay() {
        let rendezvous = |name| Rendezvous::new(&OverlayId::from_name(name), None);
        let answerer =
            |audience| Answerer::new(rendezvous("office"), audience, Rng::from_seed([1; 32]));
        let (_, question) = rendezvous("office").question(&mut Rng::from_seed([2; 32]));
        let (_, foreign) = rendezvous("open").question(&mut Rng::from_seed([2; 32]));
        let now = Instant::now();
        let (inside, outside) = ("192.168.1.2:7", "11.0.1.1:7");
        let [inside, outside] = [inside, outside].map(|text| text.parse().unwrap());
        let mut everybody = answerer(Audience::Everybody);
        assert!(everybody.read(now, outside, &[], &question).is_some());
        assert!(everybody.read(now, outside, &[], &foreign).is_none());
        let mut site = answerer(Audience::Site);
        assert!(site.read(now, outside, &[], &question).is_none());
        assert!(site.read(now, inside, &[], &question).is_some());
        assert!(
            answerer(Audience::Nobody)
                .read(now, inside, &[], &question)
                .is_none()
        );
        // Sites may have public addresses.
        let own = ["11.0.1.9:4", "[2001:db8:1:2::1]:4"].map(|text| text.parse().unwrap());
        for (from, is_heard) in [
            ("11.0.1.1:7", true),
            ("11.0.2.1:7", false),
            ("[2001:db8:1:2::7]:7", true),
            ("[2001:db8:1:3::7]:7", false),
        ] {
            let read = site.read(now, from.parse().unwrap(), &own, &question);
            assert_eq!(read.is_some(), is_heard, "{from}");
        }
        // One network cannot ask for all.
        for _ in 0..PER_NETWORK_MAX {
            everybody.read(now, outside, &[], &foreign);
        }
        assert!(everybody.read(now, outside, &[], &question).is_none());
        assert!(everybody.read(now, inside, &[], &question).is_some());
        let later = now + INTERVAL;
        assert!(everybody.read(later, outside, &[], &question).is_some());
        // Nor can all together fill the table.
        for number in 0..2 * NETWORKS_MAX as u32 {
            let ip = IpAddr::from((0x0b00_0000 + (number << 8)).to_be_bytes());
            everybody.read(later, SocketAddr::new(ip, 7), &[], &foreign);
        }
        assert_eq!(everybody.networks.len(), NETWORKS_MAX);
        let after = later + INTERVAL;
        assert!(everybody.read(after, outside, &[], &question).is_some());
    }
}
