//! The command line, as clap reads it.

mod beyond;
mod channel;
mod gateway;
mod proxy;
mod sim;
mod turn;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use enishi_api::Uses;
use enishi_host::config::{DeviceKind, RecordLimit};

use crate::text::Language;

pub(crate) use beyond::{Forward, Route, Way};
pub(crate) use channel::{Channel, Governed, Join, Member, Offered, Switch, WireGuard};
pub(crate) use gateway::{Audit, Consent, Gateway};
pub(crate) use proxy::{Proxy, ProxyCommand};
pub(crate) use sim::{Recorded, Remedy, Sim};
pub(crate) use turn::Turn;

/// The network of a channel when none is named.
pub(crate) const NETWORK_DEFAULT: &str = "10.77.0.0/16";

/// A private network without any server.
#[derive(Debug, Parser)]
#[command(
    name = "enishi",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Arguments {
    /// Reads the command line.
    ///
    /// # Errors
    /// What is wrong with it, or the help that was asked for.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        let matches = with_negative_numbers(Self::command()).try_get_matches()?;
        Self::from_arg_matches(&matches)
    }
}

/// Has a command and all below it take what looks like a negative number for a value, so that
/// its option can say what it wants instead.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let command = command.allow_negative_numbers(true);
    command.mut_subcommands(with_negative_numbers)
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The data directory: identity, state and control socket of one node
    #[arg(long, global = true, env = "ENISHI_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Print one JSON object on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The language of messages instead of the one that LC_ALL, LC_MESSAGES or LANG name
    #[arg(long, global = true, value_enum)]
    pub(crate) lang: Option<Language>,
}

/// What `enishi doctor` looks at.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DoctorPart {
    /// How the node gets out of its network, and what passes there
    Net,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon in the foreground
    Up(Up),
    /// Stop the daemon
    Down,
    /// Show how the node is
    Status,
    /// Show the nodes that this one knows
    Peers,
    /// Print an invitation to the overlay alone, for `enishi up --bootstrap`
    Invite,
    /// Draw the overlay; make, join, leave and look after a closed one
    #[command(subcommand)]
    Overlay(Overlay),
    /// Make, join, leave and list channels, the private networks
    #[command(subcommand)]
    Channel(Channel),
    /// Share networks behind members: a LAN, or everything
    #[command(subcommand)]
    Route(Route),
    /// Show which host of this node's channels has a name or an address
    Resolve {
        /// A host's name (`aki`, `aki.office`, `aki.office.enishi`), its node id or an address
        name: String,
    },
    /// Wait for the daemon's end, and then take its server out of the resolver's file
    #[command(name = enishi_host::dns::guard::COMMAND, hide = true)]
    ResolverGuard {
        /// The file
        file: PathBuf,
        /// The server
        server: IpAddr,
    },
    /// Evaluate the PAC file that comes by standard input
    #[command(name = enishi_proxy::pac::guard::COMMAND, hide = true)]
    PacGuard,
    /// Show which proxy connections of this node take, and why
    Proxy(Proxy),
    /// Let programs with a password use this node as their TURN server
    #[command(subcommand)]
    Turn(Turn),
    /// Forward ports between this host and a channel
    #[command(subcommand)]
    Forward(Forward),
    /// Join two closed overlays, as the administrators of both allow
    #[command(subcommand)]
    Gateway(Gateway),
    /// Send echo requests to a node over the overlay
    Ping(Ping),
    /// Show the route to a node or key, hop by hop, and who holds a key
    Trace(Trace),
    /// Ask over several paths that have no node in common whether a node is what it seems,
    /// or what is stored under a key
    Verify(Verify),
    /// Check the node end to end and say what is wrong and what to do
    Doctor {
        /// Only this: `net`, how the node gets out of its network, and what passes there
        part: Option<DoctorPart>,
    },
    /// Store and read small values in the overlay
    #[command(subcommand)]
    Dht(Dht),
    /// Join standard input and output to a service of another member
    Connect(Connect),
    /// Show a private network of three hosts at work on this machine
    Demo(Demo),
    /// Run many simulated nodes, the same code as the daemon's, and report figures
    Sim(Sim),
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// The configuration file [default: config.toml in the data directory, if there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Do without a network device: channels are reached by proxies and forwards, and no
    /// permission is needed
    #[arg(long)]
    pub(crate) no_tun: bool,
    /// Do without names of hosts, and leave the system's resolver alone
    #[arg(long)]
    pub(crate) no_dns: bool,
    /// What kind of network device channels get: tun (IP) or tap (Ethernet) [default: tun]
    #[arg(long, value_name = "KIND", conflicts_with = "no_tun")]
    pub(crate) device: Option<DeviceKind>,
    /// Serve programs of this host that speak SOCKS 5, for example at 127.0.0.1:1080
    #[arg(long, value_name = "ADDR")]
    pub(crate) socks: Option<SocketAddr>,
    /// Serve programs of this host that use an HTTP proxy, for example at 127.0.0.1:8118
    #[arg(long, value_name = "ADDR")]
    pub(crate) http_proxy: Option<SocketAddr>,
    /// The UDP address to listen on, for example 0.0.0.0:4242 or 127.0.0.1:0
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Whether to look for other nodes in the local network, by mDNS [default: on]
    #[arg(long, value_name = "STATE")]
    pub(crate) mdns: Option<Switch>,
    /// An invitation of a node to join by, or the name or address of a Bootstrap Server as
    /// NAME:PORT; may be given several times
    #[arg(long, value_name = "TICKET")]
    pub(crate) bootstrap: Vec<String>,
    /// Attach to peers as a client instead of taking part in the ring; everything else works
    /// as usual
    #[arg(long)]
    pub(crate) client: bool,
    /// Record everything that goes into the node to a new file, for `enishi sim replay`;
    /// the file holds the node's secret key
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// How large the recording may become before it ends: 64M, 2G [default: 1G]
    #[arg(long, value_name = "SIZE")]
    pub(crate) record_limit: Option<RecordLimit>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Overlay {
    /// Draw the ring as this node knows it
    Map(Map),
    /// Make a closed overlay, with this node as its first member; before `enishi up`
    Create {
        /// The overlay's name: 1 to 63 letters, digits, `-` and `_`
        name: String,
        /// The simple form: all members share a random secret, and nobody can be removed
        #[arg(long, conflicts_with = "authority")]
        secret: bool,
        /// Go on with the authority whose key is in this file: a copy of authority-….key
        #[arg(long, value_name = "FILE")]
        authority: Option<PathBuf>,
    },
    /// Print an invitation to the closed overlay
    Invite {
        /// How many nodes may join by it, 1 to 16, or `any` [default: 1; `any` with --secret]
        #[arg(long, value_name = "N", value_parser = uses)]
        uses: Option<Uses>,
        /// For how long it may be used, for example 90s, 10m, 12h, 30d [default: 7d]
        #[arg(long, value_name = "TIME", value_parser = valid_s)]
        expires: Option<u64>,
    },
    /// Join a closed overlay by invitation, or renew the membership; before `enishi up`
    Join {
        /// The invitation, `-` to read it from standard input
        invitation: String,
    },
    /// Leave the closed overlay; after `enishi down`
    Leave,
    /// Show the closed overlay and how this node stands in it
    Show,
    /// Remove a node, or an invitation with all who came by it, from the closed overlay
    Revoke {
        /// A node id, the first characters of one, an invitation or its name
        subject: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Ping {
    /// A node id, the first characters of one, or a virtual address
    pub(crate) target: String,
    /// How many echo requests to send
    #[arg(short, long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) count: u32,
    /// Milliseconds between two requests
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=60_000))]
    pub(crate) interval_ms: u32,
    /// Milliseconds to wait for each answer
    #[arg(long, value_name = "MS", default_value_t = 3000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) timeout_ms: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Trace {
    /// A node id, the first characters of one, a virtual address, or `key:TEXT` for the
    /// node in charge of a key
    pub(crate) target: String,
    /// The target is the key of a value in the overlay, as with `key:`
    #[arg(long)]
    pub(crate) key: bool,
    /// How many times to send the question
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub(crate) probes: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// A node id, the first characters of one, a virtual address, or `key:TEXT` for what is
    /// stored under a key
    pub(crate) target: String,
    /// The target is the key of a value in the overlay, as with `key:`
    #[arg(long)]
    pub(crate) key: bool,
    /// Over how many paths to ask
    #[arg(long, value_name = "N", default_value_t = enishi_api::PATHS_MAX, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub(crate) paths: u8,
}

#[derive(Debug, Args)]
pub(crate) struct Map {
    /// Write a drawing to a file, `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Ask up to N nodes for their neighbours, 20 a second, to find nodes that this one
    /// does not know
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) crawl: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Dht {
    /// Store a value under a key
    Put {
        /// The key: any text
        key: String,
        /// The value, at most 4,096 octets; `-` reads it from standard input
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// How long others keep the value without hearing of this node: 90s, 10m, 12h, 30d
        #[arg(long, value_name = "TIME", default_value = "1d", value_parser = lease_s)]
        lease: u32,
    },
    /// Print the value of a key; exit code 1 when there is none
    Get {
        /// The key
        key: String,
    },
    /// Remove a value that this node stored
    Remove {
        /// The key
        key: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// A virtual address, a node id, or the first characters of one
    #[arg(required_unless_present = "listen", requires = "service")]
    pub(crate) target: Option<String>,
    /// The service's name at the other member
    pub(crate) service: Option<String>,
    /// Wait for one stream to this service of the own node instead
    #[arg(long, value_name = "SERVICE", conflicts_with_all = ["target", "service"])]
    pub(crate) listen: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leave the data directories of the three nodes for inspection
    #[arg(long)]
    pub(crate) keep: bool,
    /// Use loopback and no network devices even as root
    #[arg(long)]
    pub(crate) loopback: bool,
}

fn uses(text: &str) -> Result<Uses, String> {
    match (text, text.parse()) {
        ("any", _) => Ok(Uses::Any),
        (_, Ok(number @ 1..=16)) => Ok(Uses::Of(number)),
        _ => Err("write a number from 1 to 16, or any".to_owned()),
    }
}

fn valid_s(text: &str) -> Result<u64, String> {
    match length_s(text)? {
        0 => Err("that is no time at all".to_owned()),
        length_s => Ok(length_s.into()),
    }
}

fn lease_s(text: &str) -> Result<u32, String> {
    match length_s(text)? {
        0..30 => Err("the shortest lease is 30 seconds".to_owned()),
        lease_s => Ok(lease_s),
    }
}

/// Reads a length of time such as `90s`, `10m`, `12h` or `30d`; a plain number is seconds.
fn length_s(text: &str) -> Result<u32, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_s: u32 = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err("the unit is s, m, h or d".to_owned()),
    };
    let number: u32 = digits
        .parse()
        .map_err(|_| "write for example 90s, 10m, 12h or 30d")?;
    number
        .checked_mul(unit_s)
        .ok_or_else(|| "that is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::error::ErrorKind> {
        let words = std::iter::once("enishi").chain(line.split_whitespace());
        Arguments::try_parse_from(words).map_err(|error| error.kind())
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn names_that_scripts_rely_on_are_understood() {
        for line in [
            "up --data /d --config f --no-tun --listen 127.0.0.1:0 --bootstrap T --bootstrap U",
            "--data /d status",
            "status --data /d --json",
            "peers --json",
            "invite",
            "down",
            "overlay create office",
            "overlay create office --secret --json",
            "overlay create office --authority f",
            "overlay invite --uses 3 --expires 12h",
            "overlay invite --uses any",
            "overlay join -",
            "overlay leave",
            "overlay show --json",
            "overlay revoke abc",
            "channel create office --network 10.77.0.0/16 --password-file f --address 10.77.0.9",
            "channel create office",
            "channel invite office",
            "channel invite office --uses any --expires 12h --role guest",
            "channel invitations office --json",
            "channel revoke office abc",
            "channel remove office laptop",
            "channel role office laptop guest",
            "channel role office laptop --none",
            "channel admin office laptop --no",
            "channel rules office",
            "channel allow office --from role:guest --to * --ports tcp/22,icmp",
            "channel disallow office 1",
            "channel show office --svg - --json",
            "channel join TICKET",
            "channel join TICKET --address 10.77.0.9",
            "channel join --name office --password-file - --network 10.77.0.0/16",
            "channel leave office",
            "channel list",
            "ping 10.77.0.2 -c 3 --json",
            "trace key:hello --json",
            "trace hello --key --probes 20",
            "verify hello --key --paths 8",
            "doctor --json",
            "gateway consent --node a --other b --channel c --out w=80:aki,ben --in m=cho:25 --take t --give g --json",
            "gateway consent --node a --other b --channel c --out w=80 --expires 12h --idle 1m",
            "gateway read -",
            "gateway accept --side d -",
            "gateway forget abc",
            "gateway run",
            "gateway show --json",
            "gateway audit --verify --expect abc",
            "gateway list",
            "overlay map",
            "overlay map --svg ring.svg --crawl 200 --json",
            "dht put key value --lease 12h",
            "dht put key -",
            "dht get key",
            "dht remove key",
            "turn show --json",
            "turn add aki --password-file -",
            "turn remove aki",
            "turn use turn:aki@host:3478",
            "turn forget host:3478",
            "connect 10.77.0.2 echo",
            "connect --listen echo",
            "demo --keep --json",
            "up --record r --record-limit 64M",
            "sim replay r --json",
            "sim hops --nodes 100 --seed 7 --links 5 --json --plot hops.svg",
            "sim churn --session-mean 1h --loss 1 --broken-pairs 5 --duration 30m --seeds 3",
            "sim churn --session-median 1.4m --polite 50 --lookup-interval 10s",
            "sim latency --dead 30 --routes 500",
            "sim storage --values 100 --duration 24h",
            "sim bursts",
            "sim multicast --group 16 --tree scribe --dead 20 --values 32",
            "sim classes --clients 20",
            "sim compare --nodes 100 --plot compare.svg",
            "sim churn --protocol kademlia --transport sessions --upkeep 20",
            "completions bash",
            "status --lang ja",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for line in [
            "overlay create office --secret --authority f",
            "overlay invite --uses 0",
            "overlay invite --uses 17",
            "overlay invite --expires 0",
            "channel join",
            "gateway consent --node a --other b --channel c --out w=80:",
            "gateway consent --node a --other b --channel c --in w=80",
            "gateway consent --node a --other b --channel c --idle 0",
            "gateway accept -",
            "channel invite office --uses 17",
            "channel role office laptop",
            "channel role office laptop guest --none",
            "channel allow office --from a",
            "channel disallow office first",
            "channel join TICKET --name office",
            "channel join --name office",
            "channel join --network 10.77.0.0/16 --password-file f",
            "channel join TICKET --network 10.0.0.0/8",
            "connect 10.77.0.2",
            "connect 10.77.0.2 echo --listen echo",
            "ping x -c 0",
            "ping x -c 1001",
            "trace x --probes 0",
            "verify x --paths 0",
            "trace x --probes 21",
            "overlay map --crawl 1001",
            "dht put key",
            "dht put key value --lease soon",
            "up --listen nowhere",
            "make tea",
            "up --record-limit 1",
            "sim",
            "sim replay",
            "sim replay r --nodes 5",
            "sim --nodes 5 replay r",
            "sim tea",
            "sim hops --nodes 1",
            "sim hops --loss 51",
            "sim hops --routes 0",
            "sim hops --nodes -5",
            "sim latency --dead 100",
            "sim attack --hostile 100",
            "sim hops --seeds 0",
            "sim churn --session-mean 1h --session-median 1h",
            "sim churn --session-mean 0",
            "sim churn --duration 1w",
            "sim storage --values 0",
            "sim churn --protocol chord",
            "sim churn --transport pigeons",
            "sim multicast --tree oak",
            "sim multicast --group 1",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_lease_has_a_unit() {
        assert_eq!(lease_s("90"), Ok(90));
        assert_eq!(lease_s("90s"), Ok(90));
        assert_eq!(lease_s("10m"), Ok(600));
        assert_eq!(lease_s("12h"), Ok(43_200));
        assert_eq!(lease_s("30d"), Ok(2_592_000));
        for wrong in ["", "29s", "d", "1w", "-1s", "0", "99999999d", "1.5h", "1hh"] {
            assert!(lease_s(wrong).is_err(), "{wrong}");
        }
    }
}
