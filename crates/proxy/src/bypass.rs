//! What goes without a proxy: the entries of `no_proxy`, of a desktop's list, and what is on this host.
//!
//! | entry | goes without a proxy |
//! |---|---|
//! | `example.com`, `.example.com` | the host of that name and all below it (curl(1), `NO_PROXY`) |
//! | `*.example.com` | all below it |
//! | `10.1.2.3`, `2001:db8::1` | the address |
//! | `10.0.0.0/8`, `2001:db8::/32` | the addresses of the network |
//! | `example.com:8080` | that port alone |
//! | `<local>` | names without a dot |
//! | `*` | everything |
//! | `<-loopback>` | takes back what goes without a proxy by itself |
//!
//! By itself this goes without a proxy: `localhost` and names below it, 127.0.0.0/8, ::1, 169.254.0.0/16,
//! fe80::/10 (Chromium, net/docs/proxy.md, "Implicit bypass rules"; curl has no such rule).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::glob;
use crate::target::{Target, split_port};

/// The most entries of one list; further ones are refused.
pub const ENTRIES_MAX: usize = 1_024;

/// The longest entry, in octets.
const ENTRY_BYTES_MAX: usize = 255;

/// How the reason is told that a target is on this host.
pub(crate) const LOOPBACK: &str = "<loopback>";

/// What goes without a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bypass {
    entries: Vec<Entry>,
    /// Only what the entries name takes a proxy.
    reversed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    what: What,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Everything,
    PlainNames,
    NoLoopback,
    Network(Network),
    Domain(String),
    Pattern(String),
}

/// Why a list cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BypassError {
    /// It has too many entries.
    #[error("there are more than 1024 entries: name domains and networks in place of hosts")]
    Many,
    /// An entry is none.
    #[error(
        "`{0}` is no entry: write a domain (example.com), an address, a network (10.0.0.0/8), \
         <local> for names without a dot, or *"
    )]
    Entry(String),
}

impl BypassError {
    /// Says that a word is no entry; of a long one the beginning, and nothing of one that may name a
    /// password.
    fn entry(word: &str) -> Self {
        Self::Entry(match word.contains('@') {
            true => "…@…".to_owned(),
            false => word.chars().take(80).collect(),
        })
    }
}

impl Bypass {
    /// Reads a list.
    ///
    /// # Errors
    /// [`BypassError`] when it has more than [`ENTRIES_MAX`] entries, or names one that is none.
    pub fn new<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, BypassError> {
        let mut read = Vec::new();
        for entry in entries.into_iter().map(str::trim) {
            if entry.is_empty() {
                continue;
            }
            if read.len() == ENTRIES_MAX {
                return Err(BypassError::Many);
            }
            let parsed = Entry::parse(entry);
            read.push(parsed.ok_or_else(|| BypassError::entry(entry))?);
        }
        Ok(Self {
            entries: read,
            reversed: false,
        })
    }

    /// Reads the value of the variable `no_proxy` as curl does: entries between commas or blanks, those
    /// that are none are passed over and returned besides, `*` counts only if it stands alone; at most
    /// [`ENTRIES_MAX`].
    pub fn of_variable(value: &str) -> (Self, Vec<BypassError>) {
        let (mut entries, mut passed_over) = (Vec::new(), Vec::new());
        let alone = value.trim() == "*";
        let words = value.split([',', ' ', '\t']);
        for word in words.filter(|word| !word.is_empty()) {
            match Entry::parse(word).filter(|_| alone || word != "*") {
                Some(_) if entries.len() == ENTRIES_MAX => {
                    passed_over.push(BypassError::Many);
                    break;
                }
                Some(entry) => entries.push(entry),
                None => passed_over.push(BypassError::entry(word)),
            }
        }
        let reversed = false;
        (Self { entries, reversed }, passed_over)
    }

    /// Makes only what the entries name take a proxy, as KDE's `ReversedException` does.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        self.reversed = true;
        self
    }

    /// Tells why a target goes without a proxy, in the words of the entry; none when it takes one.
    #[must_use]
    pub fn reason(&self, target: &Target) -> Option<String> {
        if is_of_this_host(target) && !self.takes_loopback() {
            return Some(LOOPBACK.to_owned());
        }
        self.named(target)
    }

    /// Tells whether an entry takes back what goes without a proxy by itself.
    pub(crate) fn takes_loopback(&self) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|entry| entry.what == What::NoLoopback)
    }

    /// Tells which entry lets a target go without a proxy, apart from what does by itself.
    pub(crate) fn named(&self, target: &Target) -> Option<String> {
        let entry = self.entries.iter().find(|entry| entry.covers(target));
        if self.reversed {
            return entry.is_none().then(|| "<all others>".to_owned());
        }
        entry.map(ToString::to_string)
    }
}

/// Tells whether a target is on this host or on its link alone.
pub(crate) fn is_of_this_host(target: &Target) -> bool {
    match target.address() {
        Some(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Some(IpAddr::V6(address)) => address.is_loopback() || address.is_unicast_link_local(),
        None => is_below("localhost", target.host()),
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        if text.len() > ENTRY_BYTES_MAX {
            return None;
        }
        let (what, port) = match text {
            "*" => (What::Everything, None),
            "<local>" => (What::PlainNames, None),
            "<-loopback>" => (What::NoLoopback, None),
            _ if text.contains('/') => (What::Network(Network::parse(text)?), None),
            _ => {
                let (host, port) = split_port(text)?;
                (What::host(host)?, port)
            }
        };
        Some(Self { what, port })
    }

    fn covers(&self, target: &Target) -> bool {
        if self.port.is_some_and(|port| port != target.port()) {
            return false;
        }
        match &self.what {
            What::Everything => true,
            What::PlainNames => target.address().is_none() && !target.host().contains('.'),
            What::NoLoopback => false,
            What::Network(network) => target.address().is_some_and(|at| network.contains(at)),
            What::Domain(domain) => is_below(domain, target.host()),
            What::Pattern(pattern) => glob::matches(pattern, target.host()),
        }
    }
}

impl What {
    fn host(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Network(Network::of_host(address)));
        }
        let text = text.to_ascii_lowercase();
        let is_of_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '*');
        if text.is_empty() || !text.chars().all(is_of_host) {
            return None;
        }
        if text.contains('*') {
            return Some(Self::Pattern(text));
        }
        let domain = text.trim_matches('.');
        (!domain.is_empty()).then(|| Self::Domain(domain.to_owned()))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Everything => f.write_str("*"),
            What::PlainNames => f.write_str("<local>"),
            What::NoLoopback => f.write_str("<-loopback>"),
            What::Network(network) => write!(f, "{network}"),
            What::Domain(text) | What::Pattern(text) => f.write_str(text),
        }?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

fn is_below(domain: &str, host: &str) -> bool {
    host.strip_suffix(domain)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Addresses with one beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads `address/prefix length`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let bits = bits.parse().ok()?;
        let all = Self::of_host(address);
        (bits <= all.bits).then_some(Self { bits, ..all })
    }

    fn of_host(address: IpAddr) -> Self {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        Self { address, bits }
    }

    pub(crate) fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => self.has_v4(network, address),
            (IpAddr::V6(network), IpAddr::V6(address)) => self.has_v6(network, address),
            _ => false,
        }
    }

    fn has_v4(self, network: Ipv4Addr, address: Ipv4Addr) -> bool {
        let different = network.to_bits() ^ address.to_bits();
        different.leading_zeros() >= u32::from(self.bits)
    }

    fn has_v6(self, network: Ipv6Addr, address: Ipv6Addr) -> bool {
        let different = network.to_bits() ^ address.to_bits();
        different.leading_zeros() >= u32::from(self.bits)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::of_host(self.address).bits == self.bits {
            true => write!(f, "{}", self.address),
            false => write!(f, "{}/{}", self.address, self.bits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(list: &[&str], url: &str) -> Option<String> {
        let bypass = Bypass::new(list.iter().copied()).unwrap();
        bypass.reason(&Target::parse(url).unwrap())
    }

    #[test]
    fn entries_name_hosts_domains_networks_and_ports() {
        for (entry, url, is) in [
            ("example.com", "http://example.com", true),
            (".example.com", "http://example.com", true),
            ("example.com", "http://www.Example.com.", true),
            ("example.com", "http://badexample.com", false),
            ("*.example.com", "http://example.com", false),
            ("*.example.com", "http://a.example.com", true),
            ("10.0.0.0/8", "http://10.200.3.4", true),
            ("10.0.0.0/8", "http://11.0.0.1", false),
            ("10.0.0.0/8", "http://[::ffff:10.1.1.1]", true),
            ("0.0.0.0/0", "http://11.0.0.1", true),
            ("2001:db8::/32", "http://[2001:db8:5::1]", true),
            ("[2001:db8::1]", "http://[2001:db8::1]:8080", true),
            ("2001:db8::1", "http://[2001:db8::2]", false),
            ("example.com:8080", "http://example.com:8080", true),
            ("example.com:8080", "http://example.com", false),
            ("<local>", "http://intranet", true),
            ("<local>", "http://intranet.example.com", false),
            ("*", "http://anything", true),
        ] {
            assert_eq!(reason(&[entry], url).is_some(), is, "{entry} {url}");
        }
    }

    #[test]
    fn what_is_on_this_host_takes_no_proxy_unless_told() {
        for url in [
            "http://localhost",
            "http://a.localhost",
            "http://127.9.9.9",
            "http://[::1]",
            "http://169.254.1.1",
            "http://[fe80::1]",
            "http://[::ffff:127.0.0.1]",
        ] {
            assert!(reason(&[], url).is_some(), "{url}");
            assert!(reason(&["<-loopback>"], url).is_none(), "{url}");
        }
        assert!(reason(&[], "http://notlocalhost").is_none());
    }

    #[test]
    fn a_reversed_list_names_what_takes_the_proxy() {
        let bypass = Bypass::new(["example.com"]).unwrap().reversed();
        let reason = |url| bypass.reason(&Target::parse(url).unwrap());
        assert!(reason("http://www.example.com").is_none());
        assert!(reason("http://example.org").is_some());
    }

    #[test]
    fn the_variable_is_read_as_curl_reads_it() {
        let reason = |list, url| {
            Bypass::of_variable(list)
                .0
                .reason(&Target::parse(url).unwrap())
        };
        assert!(reason("a.com, b.com  c.com,10.0.0.0/8", "http://c.com").is_some());
        assert!(reason("*", "http://x.com").is_some());
        assert!(reason("a.com,*", "http://x.com").is_none());
        assert!(reason("10.0.0.0/99,!!,b.com", "http://b.com").is_some());
    }

    #[test]
    fn wrong_entries_are_named_and_there_is_a_limit() {
        for entry in ["10.0.0.0/33", "a/b", "a b", "http://x.com", "[::1", "."] {
            let error = Bypass::new([entry]).unwrap_err();
            assert!(error.to_string().contains(entry), "{error}");
        }
        let many = vec!["a.com"; ENTRIES_MAX + 1];
        assert_eq!(Bypass::new(many), Err(BypassError::Many));
    }
}
