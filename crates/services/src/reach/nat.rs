//! Which kind of translation is between this node and the others (RFC 4787, section 4.1), told
//! from where observers see it.
//!
//! | observers say | mapping |
//! |---|---|
//! | an address of this node | none |
//! | one and the same address | endpoint-independent |
//! | one host, ports that follow each other closely | sequential |
//! | anything else | random |
//!
//! A few observers may lie or be of yesterday, so more than half of them decide; and with fewer
//! than three, nothing is known.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// How many observers it takes.
pub const OBSERVERS_MIN: usize = 3;
/// How far a translation's next port may be from the last one that an observer saw, others of
/// the same house having taken some in between.
const STEP_MAX: u16 = 16;

/// How a translation chooses outer addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mapping {
    /// Too few have said something.
    #[default]
    Unknown,
    /// There is none.
    None,
    /// The same for all others.
    EndpointIndependent,
    /// Another port for each, one after the other.
    Sequential,
    /// Another port for each, in no order, or another address.
    Random,
}

impl Mapping {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::None => "none",
            Self::EndpointIndependent => "endpoint-independent",
            Self::Sequential => "sequential",
            Self::Random => "random",
        }
    }
}

/// Judges from what observers say, one sighting of each, and the node's own addresses. Of the
/// family of which there are more: IPv6 is seldom translated.
pub fn classify(own: &[SocketAddr], sightings: impl IntoIterator<Item = SocketAddr>) -> Mapping {
    let (v4, v6): (Vec<_>, Vec<_>) = sightings.into_iter().partition(SocketAddr::is_ipv4);
    let seen = if v4.len() >= OBSERVERS_MIN { v4 } else { v6 };
    if seen.len() < OBSERVERS_MIN {
        return Mapping::Unknown;
    }
    let mut counts: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for address in &seen {
        *counts.entry(*address).or_default() += 1;
    }
    let most = counts.iter().max_by_key(|(_, count)| **count);
    match most {
        Some((address, count)) if 2 * count > seen.len() => match own.contains(address) {
            true => Mapping::None,
            false => Mapping::EndpointIndependent,
        },
        _ if is_sequential(&seen) => Mapping::Sequential,
        _ => Mapping::Random,
    }
}

/// Tells whether most ports of the host that most see follow each other closely.
fn is_sequential(seen: &[SocketAddr]) -> bool {
    let mut hosts: BTreeMap<IpAddr, Vec<u16>> = BTreeMap::new();
    for address in seen {
        hosts.entry(address.ip()).or_default().push(address.port());
    }
    let Some(mut ports) = hosts.into_values().max_by_key(Vec::len) else {
        return false;
    };
    ports.sort_unstable();
    ports.dedup();
    let close = |pair: &&[u16]| pair[1] - pair[0] <= STEP_MAX;
    2 * ports.windows(2).filter(close).count() > seen.len() - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ports: &[u16]) -> Vec<SocketAddr> {
        let at = |port: &u16| SocketAddr::from(([198, 51, 100, 7], *port));
        ports.iter().map(at).collect()
    }

    #[test]
    fn each_kind_is_told() {
        let inside = ["192.168.1.2:7000".parse().unwrap()];
        let told = |ports: &[u16]| classify(&inside, at(ports));
        assert_eq!(told(&[]), Mapping::Unknown);
        assert_eq!(told(&[7000, 7000]), Mapping::Unknown);
        assert_eq!(told(&[7000; 3]), Mapping::EndpointIndependent);
        assert_eq!(told(&[5004, 5000, 5002]), Mapping::Sequential);
        assert_eq!(told(&[5001, 5040, 5002, 5003, 5004]), Mapping::Sequential);
        assert_eq!(told(&[5000, 40_000, 23_000]), Mapping::Random);
        assert_eq!(classify(&at(&[7000]), at(&[7000; 3])), Mapping::None);
    }

    #[test]
    fn few_liars_change_nothing() {
        let seen = at(&[7000, 7000, 7000, 7000, 1, 2, 3]);
        assert_eq!(classify(&[], seen), Mapping::EndpointIndependent);
    }

    #[test]
    fn another_address_for_each_is_random() {
        let seen: Vec<SocketAddr> = (1..6)
            .map(|host| SocketAddr::from(([198, 51, 100, host], 7000)))
            .collect();
        assert_eq!(classify(&[], seen), Mapping::Random);
    }

    #[test]
    fn the_family_that_is_translated_decides() {
        let six = ["[2001:db8::1]:7000"; 3].map(|text| text.parse().unwrap());
        assert_eq!(classify(&six, six), Mapping::None);
        let both = six.into_iter().chain(at(&[7000; 3]));
        assert_eq!(classify(&six, both), Mapping::EndpointIndependent);
    }
}
