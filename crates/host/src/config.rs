//! The configuration file: TOML, few keys, each optional. docs/configuration.md
//! describes them with their defaults.

mod plain;
mod proxy;
mod turn;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use enishi_overlay::NodeId;
use enishi_overlay::class::Limit;
use enishi_overlay::config::UPKEEP_BYTES_PER_S_USUAL;
use enishi_overlay::standing::Policy;
use enishi_proxy::{Location, Secret};
use enishi_services::reach::relay::Terms;
use serde::Deserialize;

use crate::nat64;
use crate::reach::Rates;

pub use crate::bootstrap::{ListName, Server};
pub use turn::Turn;

/// The name of the configuration file in the data directory.
pub const FILE_NAME: &str = "config.toml";

/// The longest configuration file, in octets.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The longest name of an overlay, in octets.
const OVERLAY_BYTES_MAX: usize = 255;

/// The most addresses to listen on.
const LISTEN_MAX: usize = 8;

/// The most nodes that are named to be asked, and the most names of lists.
const SERVERS_MAX: usize = 16;
const LISTS_MAX: usize = 8;

/// The longest that an invitation may be valid, in days.
const TICKET_VALID_DAYS_MAX: u32 = 3650;

/// The most ports at which links are taken besides that of the sessions.
const WEB_PORTS_MAX: usize = 8;

/// The most nodes that can be named as trusted.
const TRUSTED_MAX: usize = 1024;

/// The most networks whose hosts may use the proxies.
const PROXY_CLIENTS_MAX: usize = 64;

/// The least that a recording may be allowed, in octets.
const RECORD_BYTES_MIN: u64 = 1 << 20;

/// What the operator chose.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The UDP addresses to listen on, at most eight; port 0 takes the port of the last
    /// run or any free one. An empty list is as none.
    pub listen: Vec<SocketAddr>,
    /// Whether the site's router is asked to map the node's ports: by PCP, NAT-PMP or UPnP.
    pub port_mapping: bool,
    /// Whether nodes of the overlay are looked for in the local network, and this one announced
    /// there, by mDNS. Not where the node listens on loopback alone.
    pub mdns: bool,
    /// Nodes that are asked for others, by name or address and port: at most 16.
    pub bootstrap: Vec<Server>,
    /// DNS names whose TXT records name nodes, at most eight.
    pub bootstrap_dns: Vec<ListName>,
    /// Whether others are looked for in the Mainline DHT, and this one is announced there.
    pub bootstrap_mainline: bool,
    /// The nodes of that DHT to begin at, at most 16; empty for the public ones.
    pub bootstrap_mainline_nodes: Vec<Server>,
    /// Whether this node hands out contacts of its overlay to whoever knows it.
    pub bootstrap_server: bool,
    /// The name of the overlay; `open` is the one of everybody.
    pub overlay: String,
    /// How this host is called among the members of its channels, up to 63 octets;
    /// empty for the system's own name.
    pub host_name: String,
    /// Whether channels get a network device; a user-space network otherwise.
    pub tun: bool,
    /// Whether hosts of channels are found by name; none for where channels get devices and
    /// the daemon is root.
    pub dns: Option<bool>,
    /// The address on loopback at which names are looked up where there is no device, or by
    /// way of `/etc/resolv.conf`; if it is taken, one of the fifteen after it.
    pub dns_listen: SocketAddr,
    /// What kind of device that is.
    pub device: DeviceKind,
    /// Where programs are served that speak SOCKS 5; none for nowhere.
    pub socks: Option<SocketAddr>,
    /// Where programs are served that use an HTTP proxy; none for nowhere.
    pub http_proxy: Option<SocketAddr>,
    /// Which hosts may use the two, besides this one: at most 64 networks.
    pub proxy_clients: Vec<Clients>,
    /// The proxy that connections to the Internet take, as `http://user:password@host:3128`, or
    /// `none` for no proxy whatever else is known; none for what others know (`enishi proxy`).
    pub proxy: Option<Secret>,
    /// The PAC file that says which proxy connections take, in place of `proxy`.
    pub proxy_pac: Option<Location>,
    /// What takes no proxy: domains, addresses, networks; at most 1,024.
    pub no_proxy: Vec<String>,
    /// A file of PEM with certificates that are trusted, beside those of the system, where a proxy, a PAC
    /// file or a company's file is reached by TLS.
    pub proxy_ca: Option<PathBuf>,
    /// The signed settings file of a company.
    pub company_settings: Option<Location>,
    /// The key by which that file has to be signed.
    pub company_key: Option<Trusted>,
    /// The prefix of the site's NAT64, where the host has IPv6 alone; whether it is looked for.
    pub nat64_prefix: nat64::Source,
    /// The UDP port at which WireGuard clients attach, as soon as there is one; when it is in
    /// use, one of the 15 after it. At least 1.
    pub wireguard_port: u16,
    /// What the node may be at most: `auto` is what it measures, `peer` never a supernode,
    /// `client` always a client.
    pub class: Limit,
    /// How long invitations are valid, in days, 1 to 3,650.
    pub ticket_valid_days: u32,
    /// Whether this node tells others how it is when they trace a route through it or
    /// ping it; otherwise it only confirms.
    pub reports_hops: bool,
    /// Whether this node carries packets between nodes that do not reach each other.
    pub relay: bool,
    /// How much it carries for all together, in Mbit/s, 1 to 100,000; the packets of channels and those
    /// of sessions each.
    pub relay_mbit_s: u32,
    /// How much of it for one node, or for one pair whose packets are relayed.
    pub relay_mbit_s_each: u32,
    /// Between how many pairs of nodes it relays packets of channels at a time, at most 4,096.
    pub relay_pairs: u32,
    /// Whether this node takes links, which are streams of TCP and requests of HTTP, at the port of
    /// its sessions: from nodes where no datagram passes.
    pub links: bool,
    /// At which other ports of TCP it takes them, at most eight: those that companies let out, as 443
    /// and 80.
    pub web_ports: Vec<u16>,
    /// For whom messages are passed on, and to whom they are given.
    pub policy: Policy,
    /// The nodes that the policy `trust` serves first, at most 1,024.
    pub trusted: Vec<Trusted>,
    /// How many messages are passed on for others per minute before the policy `trust`
    /// serves only the trusted; at least 1.
    pub carried_per_minute: u32,
    /// What the node is to spend on its tables, in octets per second, at most 10,000: from 0
    /// for a leaf to some hundreds for a view of all of a small overlay.
    pub upkeep_bytes_per_s: u32,
    /// The file that everything that goes into the node is recorded to, its secret key
    /// included; none for no recording.
    pub record: Option<PathBuf>,
    /// How large that file may become.
    pub record_limit: RecordLimit,
    /// A TURN server for programs with a password.
    pub turn: Turn,
    /// What is logged, as `tracing` filters are written: `info`, `enishi_host=debug`.
    pub log: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![([0; 4], 0).into(), ([0_u16; 8], 0).into()],
            port_mapping: true,
            mdns: true,
            bootstrap: Vec::new(),
            bootstrap_dns: Vec::new(),
            bootstrap_mainline: false,
            bootstrap_mainline_nodes: Vec::new(),
            bootstrap_server: false,
            overlay: "open".to_owned(),
            host_name: String::new(),
            tun: true,
            dns: None,
            dns_listen: ([127, 77, 0, 53], 53).into(),
            device: DeviceKind::default(),
            socks: None,
            http_proxy: None,
            proxy_clients: Vec::new(),
            proxy: None,
            proxy_pac: None,
            no_proxy: Vec::new(),
            proxy_ca: None,
            company_settings: None,
            company_key: None,
            nat64_prefix: nat64::Source::default(),
            wireguard_port: 51_820,
            class: Limit::default(),
            ticket_valid_days: 7,
            reports_hops: true,
            relay: true,
            relay_mbit_s: 400,
            relay_mbit_s_each: 100,
            relay_pairs: 64,
            links: true,
            web_ports: Vec::new(),
            policy: Policy::None,
            trusted: Vec::new(),
            carried_per_minute: 6000,
            upkeep_bytes_per_s: UPKEEP_BYTES_PER_S_USUAL,
            record: None,
            record_limit: RecordLimit::default(),
            turn: Turn::default(),
            log: "info".to_owned(),
        }
    }
}

/// What kind of network device a channel gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// One for IP packets (layer 3).
    #[default]
    Tun,
    /// One for Ethernet frames (layer 2).
    Tap,
}

impl FromStr for DeviceKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tun" => Ok(Self::Tun),
            "tap" => Ok(Self::Tap),
            _ => Err("a device is `tun` or `tap`".to_owned()),
        }
    }
}

/// Hosts that may use the proxies: an address, or a network as `address/prefix length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Clients(enishi_dataplane::Network);

impl Clients {
    /// Tells whether a host is among them.
    pub fn contains(&self, host: IpAddr) -> bool {
        self.0.contains(host)
    }
}

impl TryFrom<String> for Clients {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no address and no network like 192.168.1.0/24");
        let (address, prefix) = text.split_once('/').unwrap_or((&text, "128"));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix = prefix.parse().map_err(|_| wrong())?;
        Ok(Self(enishi_dataplane::Network::new(address, prefix)))
    }
}

/// The most that is carried for others: more than a link has, so that rates are numbers; and the most
/// pairs.
const RELAY_MBIT_S_MAX: u32 = 100_000;
const RELAY_PAIRS_MAX: u32 = 4_096;

/// The most octets per second for upkeep; more buys nothing in any overlay.
const UPKEEP_BYTES_PER_S_MAX: u32 = 10_000;

/// A node named in the file by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Trusted(pub NodeId);

impl TryFrom<String> for Trusted {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|error: enishi_overlay::id::ParseNodeIdError| error.to_string())
    }
}

/// How large a recording may become, 1 MiB at least; written as a number of octets, or
/// followed by `K`, `M`, `G` or `T` for powers of 1,024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct RecordLimit(u64);

impl RecordLimit {
    /// Returns it in octets.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl Default for RecordLimit {
    /// 1 GiB: months of a node with a few peers and nothing to do.
    fn default() -> Self {
        Self(1 << 30)
    }
}

impl FromStr for RecordLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match &text[digits.len()..] {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return Err("the unit is K, M, G or T".to_owned()),
        };
        let number: u64 = digits
            .parse()
            .map_err(|_| "write for example 64M or 2G".to_owned())?;
        match number.checked_mul(1 << shift) {
            Some(bytes) if bytes < RECORD_BYTES_MIN => {
                Err("a recording needs at least 1M".to_owned())
            }
            Some(bytes) => Ok(Self(bytes)),
            None => Err("that is too much".to_owned()),
        }
    }
}

impl TryFrom<String> for RecordLimit {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {path} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key is unknown, or its value does not fit; the text names it.
    #[error("the configuration file {path} is wrong: {message}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the key.
        message: String,
    },
}

impl Config {
    /// Reads the named file, or without a name the one in the data directory if it is
    /// there.
    ///
    /// # Errors
    /// [`ConfigError`] when it cannot be read, has an unknown key, or a value out of range.
    pub fn load(named: Option<&Path>, data: &Path) -> Result<Self, ConfigError> {
        let path = named.map_or_else(|| data.join(FILE_NAME), Path::to_owned);
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {
                return Ok(Self::default());
            }
            Err(source) => return Err(ConfigError::Unreadable { path, source }),
        };
        Self::parse(&text).map_err(|message| ConfigError::Wrong { path, message })
    }

    /// Returns how this host calls itself.
    pub fn host_name(&self) -> String {
        if !self.host_name.is_empty() {
            return self.host_name.clone();
        }
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        match name.trim() {
            "" => "host".to_owned(),
            name => name.to_owned(),
        }
    }

    /// Returns what is carried for others, in octets a second.
    pub(crate) fn relay_rates(&self) -> Rates {
        let bytes_per_s = |mbit_s: u32| u64::from(mbit_s) * 125_000;
        Rates {
            each: bytes_per_s(self.relay_mbit_s_each),
            all: bytes_per_s(self.relay_mbit_s),
        }
    }

    /// Returns for whom packets are relayed.
    pub(crate) fn relay_terms(&self) -> Terms {
        match self.relay {
            true => Terms {
                pairs_max: self.relay_pairs,
                pairs_of_one_max: (self.relay_pairs / 4).max(1),
            },
            false => Terms::default(),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut config: Self = toml::from_str(text).map_err(|error| plain::error(text, &error))?;
        let wrong = |key: &str, rule: &str| Err(format!("`{key}` {rule}"));
        if config.listen.len() > LISTEN_MAX {
            return wrong("listen", "has more than eight addresses");
        }
        if config.listen.iter().any(|at| !is_of_a_host(at.ip())) {
            return wrong("listen", "has an address that no host has");
        }
        if config.listen.is_empty() {
            config.listen = Self::default().listen;
        }
        if config.bootstrap.len() > SERVERS_MAX {
            return wrong("bootstrap", "has more than 16 nodes");
        }
        if config.bootstrap_mainline_nodes.len() > SERVERS_MAX {
            return wrong("bootstrap_mainline_nodes", "has more than 16 nodes");
        }
        if config.bootstrap_dns.len() > LISTS_MAX {
            return wrong("bootstrap_dns", "has more than eight names");
        }
        if !(1..=OVERLAY_BYTES_MAX).contains(&config.overlay.len()) {
            return wrong("overlay", "must have 1 to 255 octets");
        }
        if config.host_name.len() > enishi_services::vnet::wire::HOST_NAME_BYTES_MAX {
            return wrong("host_name", "must have at most 63 octets");
        }
        if !config.dns_listen.ip().is_loopback() {
            return wrong(
                "dns_listen",
                "must be an address of this host alone, as 127.77.0.53:53",
            );
        }
        if !(1..=TICKET_VALID_DAYS_MAX).contains(&config.ticket_valid_days) {
            return wrong("ticket_valid_days", "must be between 1 and 3650");
        }
        if config.web_ports.len() > WEB_PORTS_MAX || config.web_ports.contains(&0) {
            return wrong(
                "web_ports",
                "must be at most eight port numbers, each at least 1",
            );
        }
        for (key, rate) in [
            ("relay_mbit_s", config.relay_mbit_s),
            ("relay_mbit_s_each", config.relay_mbit_s_each),
        ] {
            if !(1..=RELAY_MBIT_S_MAX).contains(&rate) {
                return wrong(key, "must be between 1 and 100000");
            }
        }
        if config.relay_pairs > RELAY_PAIRS_MAX {
            return wrong("relay_pairs", "must be at most 4096");
        }
        if config.wireguard_port == 0 {
            return wrong("wireguard_port", "must be at least 1");
        }
        if config.trusted.len() > TRUSTED_MAX {
            return wrong("trusted", "has more than 1024 nodes");
        }
        if config.proxy_clients.len() > PROXY_CLIENTS_MAX {
            return wrong("proxy_clients", "has more than 64 networks");
        }
        if config.upkeep_bytes_per_s > UPKEEP_BYTES_PER_S_MAX {
            return wrong("upkeep_bytes_per_s", "must be at most 10000");
        }
        if config.carried_per_minute == 0 {
            return wrong("carried_per_minute", "must be at least 1");
        }
        config.check_proxy()?;
        config.turn.check()?;
        Ok(config)
    }
}

fn read(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger than 64 KiB"));
    }
    fs::read_to_string(path)
}

/// Tells whether a host may have an address, or all of its addresses are meant.
fn is_of_a_host(ip: IpAddr) -> bool {
    !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_optional_and_unknown_ones_are_named() {
        assert_eq!(Config::parse(""), Ok(Config::default()));
        let text = "listen = [\"127.0.0.1:4242\"]\noverlay = \"office\"\nhost_name = \"aki\"\n\
                    tun = false\nticket_valid_days = 1\nreports_hops = false\nrelay = false\nlog = \"debug\"";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.listen, ["127.0.0.1:4242".parse().unwrap()]);
        assert!(!config.reports_hops && !config.relay);
        assert_eq!(config.relay_terms(), Terms::default());
        assert!(!config.tun && config.overlay == "office" && config.host_name() == "aki");
        let config = Config::parse("dns = false\ndns_listen = \"127.0.0.9:5300\"").unwrap();
        assert_eq!((config.dns, config.dns_listen.port()), (Some(false), 5300));
        let error = Config::parse("dns_listen = \"10.0.0.1:53\"").unwrap_err();
        assert!(error.contains("dns_listen"), "{error}");
        let error = Config::parse("lisen = []").unwrap_err();
        assert!(error.contains("lisen"), "{error}");
        for listen in ["nowhere", "224.0.0.1:0", "255.255.255.255:0", "[ff02::1]:0"] {
            let error = Config::parse(&format!("listen = [\"{listen}\"]")).unwrap_err();
            assert!(error.contains("listen"), "{error}");
        }
        let config = Config::parse("listen = []").unwrap();
        assert_eq!(config.listen, Config::default().listen);
        assert!(Config::parse("ticket_valid_days = 0").is_err());
        let config = Config::parse("class = \"client\"").unwrap();
        assert_eq!(config.class, Limit::Client);
        assert!(Config::parse("class = \"super\"").is_err());
    }

    #[test]
    fn how_much_is_carried_for_others_has_limits() {
        for wrong in [
            "relay_mbit_s = 0",
            "relay_mbit_s_each = 200000",
            "relay_pairs = 5000",
        ] {
            assert!(
                Config::parse(wrong).unwrap_err().contains("relay_"),
                "{wrong}"
            );
        }
        let config =
            Config::parse("relay_mbit_s = 8\nrelay_mbit_s_each = 1\nrelay_pairs = 6").unwrap();
        let rates = config.relay_rates();
        assert_eq!((rates.all, rates.each), (1_000_000, 125_000));
        let terms = config.relay_terms();
        assert_eq!((terms.pairs_max, terms.pairs_of_one_max), (6, 1));
    }

    #[test]
    fn others_are_looked_for_in_the_local_network_alone_unless_told() {
        let config = Config::parse("").unwrap();
        assert!(config.mdns && !config.bootstrap_server && !config.bootstrap_mainline);
        let text = "mdns = false\nbootstrap = [\"boot.example.org:4242\", \"[2001:db8::7]:4242\"]\n\
                    bootstrap_dns = [\"enishi.example.org\"]\nbootstrap_server = true\n\
                    bootstrap_mainline = true\nbootstrap_mainline_nodes = [\"192.0.2.1:6881\"]";
        let config = Config::parse(text).unwrap();
        assert!(!config.mdns && config.bootstrap_server && config.bootstrap_mainline);
        assert_eq!((config.bootstrap.len(), config.bootstrap_dns.len()), (2, 1));
        for (text, wanted) in [
            ("bootstrap = [\"boot\"]", "boot.example.org:4242"),
            ("bootstrap_dns = [\"a b\"]", "enishi.example.org"),
            (
                "bootstrap_mainline_nodes = [\"x\"]",
                "boot.example.org:4242",
            ),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
        let many = format!("bootstrap = [{}]", "\"a:1\", ".repeat(17));
        assert!(Config::parse(&many).unwrap_err().contains("more than 16"));
    }

    #[test]
    fn proxies_are_off_and_for_this_host_unless_told() {
        let config = Config::parse("").unwrap();
        assert!(config.socks.is_none() && config.proxy_clients.is_empty());
        let text = "socks = \"127.0.0.1:1080\"\ndevice = \"tap\"\n\
                    proxy_clients = [\"192.168.1.0/24\", \"fd00::7\"]";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.socks, Some(([127, 0, 0, 1], 1080).into()));
        assert_eq!(config.device, DeviceKind::Tap);
        let may = |host: &str| {
            let host = host.parse().unwrap();
            config
                .proxy_clients
                .iter()
                .any(|clients| clients.contains(host))
        };
        assert!(may("192.168.1.9") && may("fd00::7"));
        assert!(!may("192.168.2.9") && !may("fd00::8"));
        assert!(Config::parse("proxy_clients = [\"here\"]").is_err());
        assert!(Config::parse("device = \"tup\"").is_err());
    }

    #[test]
    fn a_recording_has_a_limit_with_a_unit() {
        let config = Config::parse("record = \"r\"\nrecord_limit = \"64M\"").unwrap();
        assert_eq!(config.record_limit.bytes(), 64 * 1024 * 1024);
        assert_eq!("1048576".parse(), Ok(RecordLimit(1 << 20)));
        assert_eq!("1G".parse(), Ok(RecordLimit::default()));
        for wrong in ["1023K", "", "M", "1X", "1.5G", "-1G", "99999999999T"] {
            assert!(wrong.parse::<RecordLimit>().is_err(), "{wrong}");
        }
        assert!(Config::parse("record_limit = \"1\"").is_err());
    }

    #[test]
    fn a_policy_has_a_name_and_trusted_nodes_have_ids() {
        let id = enishi_overlay::Keypair::from_seed(&[1; 32]).id();
        let text = format!("policy = \"trust\"\ntrusted = [\"{id}\"]");
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.policy, Policy::Trust);
        assert_eq!(config.trusted, [Trusted(id)]);
        let config = Config::parse("policy = \"reputation\"").unwrap();
        assert_eq!(config.policy, Policy::Reputation);
        let error = Config::parse("policy = \"fame\"").unwrap_err();
        assert!(error.contains("reputation"), "{error}");
        let error = Config::parse("trusted = [\"me\"]").unwrap_err();
        assert!(error.contains("52 characters"), "{error}");
        assert!(Config::parse("carried_per_minute = 0").is_err());
        let config = Config::parse("upkeep_bytes_per_s = 0").unwrap();
        assert_eq!(config.upkeep_bytes_per_s, 0);
        assert!(Config::parse("upkeep_bytes_per_s = 10001").is_err());
    }

    #[test]
    fn only_a_named_file_has_to_be_there() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Config::load(None, dir.path()).unwrap(), Config::default());
        let missing = dir.path().join("missing");
        let error = Config::load(Some(&missing), dir.path()).unwrap_err();
        assert!(error.to_string().contains("missing"));
        fs::write(dir.path().join(FILE_NAME), "tun = 1").unwrap();
        let error = Config::load(None, dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("config.toml") && error.contains("tun"),
            "{error}"
        );
    }
}
