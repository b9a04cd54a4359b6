//! At which addresses others see this node, and which of them to believe.
//!
//! Each observer is heard for one address, the last that it named. An address counts when
//! observers in two different networks (/24 of IPv4, /48 of IPv6) named it. As long as all
//! observers are in one network, the address that most of them name counts after a minute:
//! there may be nobody else.
//!
//! A liar is one observer of many. It takes two, in different networks, to bring in a false
//! address, and three times as many as there are networks of honest observers to push the true
//! one out of the [`GIVEN_MAX`] that are given out. The first [`OBSERVERS_MAX`] stay as long as
//! their sessions do; then who is in a network of its own is heard before others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use enishi_overlay::{NodeId, Time};

/// The most observers that are heard at a time.
pub const OBSERVERS_MAX: usize = 64;
/// The most of them in one network.
pub const NETWORK_OBSERVERS_MAX: usize = 4;
/// The most addresses that are given out.
pub const GIVEN_MAX: usize = 3;
/// The most addresses that are only tried.
pub const TRIED_MAX: usize = 3;
/// How long an observer's word holds after its session has ended.
pub const EXPIRY: Duration = Duration::from_secs(180);
/// How long the word of a single network is weighed.
pub const ALONE: Duration = Duration::from_secs(60);

/// What one observer said last.
#[derive(Clone, Copy, Debug)]
struct Report {
    /// In which network the observer is.
    network: IpAddr,
    /// Whether the observer is somewhere in the Internet.
    is_public: bool,
    address: SocketAddr,
    /// Since when it says so.
    since: Time,
    /// When its session ended.
    ended: Option<Time>,
}

/// Who sees this node where.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    reports: BTreeMap<NodeId, Report>,
}

impl Observed {
    /// Takes in that an observer, whose session comes from `from`, sees this node at `address`.
    pub fn seen(&mut self, now: Time, observer: NodeId, from: IpAddr, address: SocketAddr) {
        let (from, address) = (from.to_canonical(), canonical(address));
        if !is_credible(from, address) {
            return;
        }
        let mut report = Report {
            network: network_of(from),
            is_public: is_public(from),
            address,
            since: now,
            ended: None,
        };
        let before = self.reports.remove(&observer);
        if before.is_none() && !self.make_room(report.network) {
            return;
        }
        if let Some(before) = before.filter(|before| before.address == address) {
            report.since = before.since;
        }
        self.reports.insert(observer, report);
    }

    /// The path to an observer is no longer one on which it sees this node.
    pub fn ended(&mut self, now: Time, observer: NodeId) {
        if let Some(report) = self.reports.get_mut(&observer) {
            report.ended.get_or_insert(now);
        }
    }

    /// The path to an observer is one again on which it sees this node: it says nothing anew unless
    /// it sees another address.
    pub fn resumed(&mut self, observer: NodeId) {
        if let Some(report) = self.reports.get_mut(&observer) {
            report.ended = None;
        }
    }

    /// Forgets what has expired.
    pub fn expire(&mut self, now: Time) {
        self.reports
            .retain(|_, report| report.ended.is_none_or(|ended| now < ended + EXPIRY));
    }

    /// Returns the addresses to be given out, the best attested first.
    pub fn addresses(&self, now: Time) -> Vec<SocketAddr> {
        let mut attested: BTreeMap<SocketAddr, Attested> = BTreeMap::new();
        for report in self.reports.values() {
            let known = attested.entry(report.address).or_insert(Attested {
                networks: BTreeSet::new(),
                observers: 0,
                since: report.since,
            });
            known.networks.insert(report.network);
            known.observers += 1;
            known.since = known.since.min(report.since);
        }
        let mut ranked: Vec<(SocketAddr, Attested)> = attested.into_iter().collect();
        ranked.sort_by_key(|(_, known)| {
            (
                Reverse((known.networks.len(), known.observers)),
                known.since,
            )
        });
        if self.is_of_one_network() {
            let first = ranked.into_iter().next();
            let first = first.filter(|(_, known)| now >= known.since + ALONE);
            return first.map(|(address, _)| address).into_iter().collect();
        }
        let counts = ranked
            .into_iter()
            .filter(|(_, known)| known.networks.len() >= 2);
        counts.map(|(address, _)| address).take(GIVEN_MAX).collect()
    }

    /// Returns addresses that somebody says and that need not be believed yet: worth a try with a peer
    /// with whom there is a session anyway. Those that most say first, and of these the oldest.
    pub fn tried(&self) -> Vec<SocketAddr> {
        let mut said: BTreeMap<SocketAddr, (usize, Time)> = BTreeMap::new();
        for report in self.reports.values() {
            let known = said.entry(report.address).or_insert((0, report.since));
            *known = (known.0 + 1, known.1.min(report.since));
        }
        let mut said: Vec<_> = said.into_iter().collect();
        said.sort_by_key(|(_, (count, since))| (Reverse(*count), *since));
        said.truncate(TRIED_MAX);
        let mut tried: Vec<SocketAddr> = said.into_iter().map(|(at, _)| at).collect();
        tried.sort_unstable();
        tried
    }

    /// Returns what one observer said last; none when it is not heard.
    pub fn by(&self, observer: NodeId) -> Option<SocketAddr> {
        let report = self.reports.get(&observer);
        report.map(|report| report.address)
    }

    /// Returns what each observer somewhere in the Internet says.
    pub fn sightings(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let reports = self.reports.values().filter(|report| report.is_public);
        reports.map(|report| report.address)
    }

    /// Returns when something here changes without anything being said.
    pub fn next_timeout(&self, now: Time) -> Option<Time> {
        let expiries = self
            .reports
            .values()
            .filter_map(|report| Some(report.ended? + EXPIRY));
        let is_alone = self.is_of_one_network();
        let weighed = self
            .reports
            .values()
            .filter(|_| is_alone)
            .map(|report| report.since + ALONE)
            .filter(|at| *at > now);
        expiries.chain(weighed).min()
    }

    fn is_of_one_network(&self) -> bool {
        let mut networks = self.reports.values().map(|report| report.network);
        let first = networks.next();
        networks.all(|network| Some(network) == first)
    }

    /// Sees to it that one more observer of a network may be heard; tells whether it may.
    fn make_room(&mut self, network: IpAddr) -> bool {
        let of_network = |report: &Report| report.network == network;
        if self.reports.values().filter(|r| of_network(r)).count() >= NETWORK_OBSERVERS_MAX {
            return self.drop_ended(of_network);
        }
        if self.reports.len() < OBSERVERS_MAX {
            return true;
        }
        self.drop_ended(|_| true) || self.drop_redundant()
    }

    /// Forgets the observer that went first, of some.
    fn drop_ended(&mut self, of: impl Fn(&Report) -> bool) -> bool {
        let ended = self.reports.iter().filter(|(_, report)| of(report));
        let ended = ended.filter_map(|(id, report)| Some((report.ended?, *id)));
        let first = ended.min();
        first.is_some_and(|(_, id)| self.reports.remove(&id).is_some())
    }

    /// Forgets the newest observer of a network from which several are heard.
    fn drop_redundant(&mut self) -> bool {
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for report in self.reports.values() {
            *counts.entry(report.network).or_default() += 1;
        }
        let several = |report: &Report| counts.get(&report.network).is_some_and(|n| *n > 1);
        let redundant = self.reports.iter().filter(|(_, report)| several(report));
        let newest = redundant.max_by_key(|(_, report)| report.since);
        let newest = newest.map(|(id, _)| *id);
        newest.is_some_and(|id| self.reports.remove(&id).is_some())
    }
}

/// How well an address is attested.
struct Attested {
    networks: BTreeSet<IpAddr>,
    observers: usize,
    since: Time,
}

/// Tells whether who is at `from` can see a node at `address` at all: at an address of one
/// host, and from the Internet at one of the Internet.
fn is_credible(from: IpAddr, address: SocketAddr) -> bool {
    let ip = address.ip();
    let is_of_a_host = match ip {
        IpAddr::V4(v4) => !v4.is_broadcast() && v4.octets()[0] != 0,
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    };
    is_of_a_host
        && address.port() != 0
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && ip.is_ipv4() == from.is_ipv4()
        && (is_public(ip) || !is_public(from))
}

/// Tells whether an address is one of a host of the Internet, rather than of a site, link, group or none.
pub fn is_public(ip: IpAddr) -> bool {
    if ip.is_multicast() || ip.is_unspecified() {
        return false;
    }
    match ip {
        IpAddr::V4(v4) => {
            let [first, second, third, _] = v4.octets();
            let is_shared = first == 100 && second & 0xc0 == 64; // RFC 6598
            // RFC 6333 for one, and what is reserved (RFC 1112, section 4).
            let is_of_nobody = first == 0 || first >= 240 || [first, second, third] == [192, 0, 0];
            let is_local = v4.is_private() || v4.is_link_local() || v4.is_loopback();
            !(is_local || is_shared || is_of_nobody)
        }
        IpAddr::V6(v6) => !(v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_loopback()),
    }
}

/// Returns the network that one party is likely to have as a whole.
pub fn network_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            Ipv4Addr::new(a, b, c, 0).into()
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
        }
    }
}

/// Writes an address as one writes it: IPv4 as IPv4, and IPv6 without a zone or a flow.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRUTH: &str = "198.51.100.7:7000";

    fn id(number: usize) -> NodeId {
        let mut octets = [0; 32];
        octets[..8].copy_from_slice(&number.to_le_bytes());
        NodeId::from_bytes(octets)
    }

    /// An address in the network of a number.
    fn at(network: usize) -> IpAddr {
        Ipv4Addr::new(20, (network >> 8) as u8, network as u8, 1).into()
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn secs(seconds: u64) -> Time {
        Time::from_secs(seconds)
    }

    #[test]
    fn two_networks_are_believed_and_one_only_if_nobody_else_speaks() {
        let mut observed = Observed::default();
        let truth = address(TRUTH);
        observed.seen(secs(0), id(1), at(1), truth);
        observed.seen(secs(1), id(2), at(1), truth);
        assert_eq!(observed.addresses(secs(59)), []);
        assert_eq!(observed.next_timeout(secs(1)), Some(secs(60)));
        assert_eq!(observed.addresses(secs(60)), [truth]);
        let mut disputed = observed.clone();
        observed.seen(secs(2), id(3), at(2), truth);
        assert_eq!(observed.addresses(secs(2)), [truth]);
        disputed.seen(secs(70), id(3), at(2), address("198.51.100.7:7001"));
        assert_eq!(disputed.addresses(secs(99)), [], "each says something else");
    }

    #[test]
    fn what_is_said_holds_with_the_session_and_some_minutes_longer() {
        let mut observed = Observed::default();
        let truth = address(TRUTH);
        observed.seen(secs(0), id(1), at(1), truth);
        observed.seen(secs(0), id(2), at(2), truth);
        observed.expire(secs(10_000));
        assert_eq!(observed.addresses(secs(10_000)), [truth]);
        observed.ended(secs(10_000), id(1));
        observed.ended(secs(10_050), id(2));
        assert_eq!(observed.next_timeout(secs(10_060)), Some(secs(10_180)));
        observed.expire(secs(10_179));
        assert_eq!(observed.addresses(secs(10_179)), [truth]);
        observed.expire(secs(10_180));
        assert_eq!(
            observed.addresses(secs(10_180)),
            [truth],
            "one that is alone"
        );
        observed.expire(secs(10_230));
        assert_eq!(observed.addresses(secs(10_230)), []);
    }

    #[test]
    fn an_observer_that_comes_back_is_heard_on() {
        let mut observed = Observed::default();
        observed.seen(secs(0), id(1), at(1), address(TRUTH));
        observed.ended(secs(5), id(1));
        observed.seen(secs(9), id(1), at(1), address(TRUTH));
        assert_eq!(observed.next_timeout(secs(100)), None);
        observed.expire(secs(1_000));
        assert_eq!(observed.addresses(secs(1_000)), [address(TRUTH)]);
    }

    #[test]
    fn nonsense_is_not_heard() {
        let mut observed = Observed::default();
        let nonsense = [
            "0.0.0.0:1",
            "0.1.2.3:1",
            "255.255.255.255:1",
            "224.0.0.1:1",
            "192.0.2.1:0",
            "127.0.0.1:1",
            "192.168.1.1:1",
            "100.64.0.1:1",
            "[2001:db8::1]:1",
        ];
        for (number, text) in nonsense.into_iter().enumerate() {
            observed.seen(secs(0), id(number), at(number), address(text));
        }
        assert_eq!(observed.reports.len(), 0);
        // A neighbour in the same house does see such.
        let neighbour = Ipv4Addr::new(192, 168, 1, 5).into();
        observed.seen(secs(0), id(1), neighbour, address("192.168.1.1:1"));
        assert_eq!(observed.reports.len(), 1);
        assert_eq!(observed.sightings().count(), 0);
    }

    #[test]
    fn no_network_takes_the_place_of_others() {
        let mut observed = Observed::default();
        let lie = address("192.0.2.66:1");
        for number in 0..10_000 {
            observed.seen(secs(0), id(number), at(1), lie);
        }
        assert_eq!(observed.reports.len(), NETWORK_OBSERVERS_MAX);
        for number in 10_000..20_000 {
            observed.seen(secs(1), id(number), at(number), lie);
        }
        assert_eq!(observed.reports.len(), OBSERVERS_MAX);
        // Those that went make room.
        for number in 10_000..20_000 {
            observed.ended(secs(2), id(number));
        }
        for number in 0..2 {
            observed.seen(
                secs(3),
                id(30_000 + number),
                at(900 + number),
                address(TRUTH),
            );
        }
        assert!(observed.addresses(secs(3)).contains(&address(TRUTH)));
        assert_eq!(observed.reports.len(), OBSERVERS_MAX);
    }

    proptest! {
        /// Whatever liars say, wherever and whenever: the truth of a third as many honest
        /// networks is given out.
        #[test]
        fn liars_do_not_crowd_out_the_truth(
            honest in 2_usize..10,
            lies in proptest::collection::vec((0_u8..4, 0_usize..27, any::<bool>()), 0..27),
        ) {
            let mut observed = Observed::default();
            let truth = address(TRUTH);
            let liars = lies.into_iter().take(3 * honest - 1).enumerate();
            for (number, (lie, network, early)) in liars {
                let lie = address(&format!("192.0.2.{lie}:66"));
                let when = if early { 0 } else { 20 };
                observed.seen(secs(when), id(1_000 + number), at(100 + network), lie);
            }
            for number in 0..honest {
                observed.seen(secs(10), id(number), at(number), truth);
            }
            let given = observed.addresses(secs(30));
            prop_assert!(given.contains(&truth), "{given:?}");
            prop_assert!(given.len() <= GIVEN_MAX);
        }

        #[test]
        fn memory_is_bounded_and_deadlines_come(
            steps in proptest::collection::vec((0_usize..200, 0_usize..80, 0_u8..6, any::<bool>()), 0..300),
        ) {
            let mut observed = Observed::default();
            for (second, (observer, network, last, ends)) in steps.into_iter().enumerate() {
                let now = secs(second as u64);
                if ends {
                    observed.ended(now, id(observer));
                } else {
                    let seen = address(&format!("198.51.100.{last}:9"));
                    observed.seen(now, id(observer), at(network), seen);
                }
                observed.expire(now);
                prop_assert!(observed.reports.len() <= OBSERVERS_MAX);
                prop_assert!(observed.next_timeout(now).is_none_or(|at| at > now));
            }
        }
    }
}
