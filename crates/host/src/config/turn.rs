//! The table about the TURN server.

use std::net::{IpAddr, SocketAddr};

use enishi_stun::{Limits, Prefix, Rate};
use serde::Deserialize;

/// The port of STUN and TURN (RFC 8656, section 4).
const PORT: u16 = 3478;

/// The most allocations that may be wanted: each has a socket.
const ALLOCATIONS_MAX: usize = 10_000;

/// The most ranges of peers.
const PEERS_MAX: usize = 64;

/// The longest name of what passwords are for, in characters.
const REALM_MAX: usize = 127;

/// A TURN server for programs with a password.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Turn {
    /// Where it is, by UDP; none for nowhere.
    pub listen: Option<Listen>,
    /// The address that peers see in place of the host's own, where a router hands all on.
    pub external: Option<IpAddr>,
    /// The ports of relayed addresses.
    pub ports: Ports,
    /// What passwords are for, 1 to 127 characters: programs show it.
    pub realm: String,
    /// Ranges of peers that are allowed besides the Internet, at most 64.
    pub peers: Vec<Peers>,
    /// The most allocations, 1 to 10,000.
    pub allocations: usize,
    /// The most allocations of one user, and of one address.
    pub user_allocations: usize,
    /// What all may carry together, in octets a second.
    pub bytes_per_s: u64,
    /// What one allocation may carry.
    pub allocation_bytes_per_s: u64,
}

impl Default for Turn {
    fn default() -> Self {
        let usual = Limits::default();
        Self {
            listen: None,
            external: None,
            ports: Ports(49_152, 65_535),
            realm: "enishi".to_owned(),
            peers: Vec::new(),
            allocations: usual.allocations_max,
            user_allocations: usual.allocations_per_user_max,
            bytes_per_s: usual.octets_all.per_s,
            allocation_bytes_per_s: usual.octets_each.per_s,
        }
    }
}

impl Turn {
    /// Tells what is wrong with the values.
    pub(super) fn check(&self) -> Result<(), String> {
        let wrong = |key: &str, rule: &str| Err(format!("`turn.{key}` {rule}"));
        if !(1..=REALM_MAX).contains(&self.realm.chars().count())
            || self.realm.chars().any(char::is_control)
        {
            return wrong("realm", "must have 1 to 127 characters");
        }
        if let Some(ip) = self.external
            && (!super::is_of_a_host(ip) || ip.is_unspecified())
        {
            return wrong("external", "must be an address that others reach");
        }
        if self.peers.len() > PEERS_MAX {
            return wrong("peers", "has more than 64 ranges");
        }
        if !(1..=ALLOCATIONS_MAX).contains(&self.allocations) {
            return wrong("allocations", "must be between 1 and 10000");
        }
        if self.user_allocations == 0 {
            return wrong("user_allocations", "must be at least 1");
        }
        if self.bytes_per_s == 0 || self.allocation_bytes_per_s == 0 {
            return wrong(
                "bytes_per_s",
                "and `turn.allocation_bytes_per_s` must be at least 1",
            );
        }
        Ok(())
    }

    /// Returns the ranges that are allowed besides the Internet.
    pub fn peers(&self) -> Vec<Prefix> {
        self.peers.iter().map(|peers| peers.0).collect()
    }

    /// Returns how much clients may have.
    pub fn limits(&self) -> Limits {
        // Two seconds' worth at once for one, one for all.
        let rate = |per_s: u64, bursts: u64| Rate {
            per_s,
            burst: per_s.saturating_mul(bursts),
        };
        Limits {
            allocations_max: self.allocations,
            allocations_per_user_max: self.user_allocations,
            allocations_per_source_max: self.user_allocations,
            octets_each: rate(self.allocation_bytes_per_s, 2),
            octets_all: rate(self.bytes_per_s, 1),
            ..Limits::default()
        }
    }
}

/// An address to listen on, with or without a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Listen(pub SocketAddr);

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let alone = text.parse().map(|ip: IpAddr| SocketAddr::new(ip, PORT));
        let listen = text.parse().or(alone);
        listen.map(Self).map_err(|_| {
            format!("`{text}` is no address such as \"0.0.0.0\", \"0.0.0.0:3478\" or \"[::]:3478\"")
        })
    }
}

/// A range of ports, from 1,024 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Ports(u16, u16);

impl Ports {
    /// Returns the first and the last.
    pub fn range(self) -> (u16, u16) {
        (self.0, self.1)
    }
}

impl TryFrom<String> for Ports {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let ports = text.split_once('-').and_then(|(first, last)| {
            let ports = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (ports.0 >= 1024 && ports.0 <= ports.1).then_some(Self(ports.0, ports.1))
        });
        ports.ok_or_else(|| format!("`{text}` is no range of ports such as \"49152-65535\""))
    }
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Peers(Prefix);

impl TryFrom<String> for Peers {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let range = text.parse().map(Self);
        range.map_err(|error| format!("`{text}` is {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    #[test]
    fn the_server_is_off_unless_told_and_has_the_usual_port() {
        let turn = Config::parse("").unwrap().turn;
        assert_eq!((turn.listen, turn.limits()), (None, Limits::default()));
        let text = "[turn]\nlisten = \"192.0.2.1\"\nports = \"50000-50099\"\n\
                    peers = [\"192.168.1.0/24\"]\nallocations = 5\nuser_allocations = 2\n\
                    bytes_per_s = 1000\nallocation_bytes_per_s = 100";
        let turn = Config::parse(text).unwrap().turn;
        let listen = turn.listen.unwrap().0;
        assert_eq!(listen, "192.0.2.1:3478".parse().unwrap());
        assert_eq!(turn.ports.range(), (50_000, 50_099));
        assert!(turn.peers()[0].contains("192.168.1.9".parse().unwrap()));
        let limits = turn.limits();
        let all = (limits.allocations_max, limits.allocations_per_user_max);
        assert_eq!(all, (5, 2));
        assert_eq!(
            (limits.octets_all.per_s, limits.octets_each.burst),
            (1000, 200)
        );
    }

    #[test]
    fn mistakes_are_told_with_an_example() {
        for (line, wanted) in [
            ("listen = \"here\"", "0.0.0.0:3478"),
            ("external = \"0.0.0.0\"", "that others reach"),
            ("external = \"224.0.0.1\"", "that others reach"),
            ("ports = \"80-90\"", "49152-65535"),
            ("ports = \"5000-4000\"", "49152-65535"),
            ("peers = [\"10.0.0.0/33\"]", "192.168.1.0/24"),
            ("allocations = 0", "turn.allocations"),
            ("realm = \"\"", "turn.realm"),
            ("bytes_per_s = 0", "turn.bytes_per_s"),
            ("quota = 1", "quota"),
        ] {
            let error = Config::parse(&format!("[turn]\n{line}")).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
