//! The command line, as clap reads it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use enishi_sim::Scenario;

use crate::text::Language;

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
    /// Make, join, leave and list channels, the private networks
    #[command(subcommand)]
    Channel(Channel),
    /// Send echo requests to a node over the overlay
    Ping(Ping),
    /// Show the route to a node or key, hop by hop, and who holds a key
    Trace(Trace),
    /// Check the node end to end and say what is wrong and what to do
    Doctor,
    /// Look at the whole overlay
    #[command(subcommand)]
    Overlay(Overlay),
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
    /// Do without a network device; needs no permission
    #[arg(long)]
    pub(crate) no_tun: bool,
    /// The UDP address to listen on, for example 0.0.0.0:4242 or 127.0.0.1:0
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// An invitation of a node to join by; may be given several times
    #[arg(long, value_name = "TICKET")]
    pub(crate) bootstrap: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Channel {
    /// Make a channel and take an address in it
    Create {
        /// The channel's name: 1 to 63 letters, digits, `-` and `_`
        name: String,
        /// The virtual network
        #[arg(long, value_name = "CIDR", default_value = NETWORK_DEFAULT)]
        network: String,
        /// A file with the channel's password, `-` for standard input; without a
        /// password the channel is joined by invitation only
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// The virtual address to take instead of a random one
        #[arg(long)]
        address: Option<Ipv4Addr>,
    },
    /// Print an invitation to a channel
    Invite {
        /// The channel's name
        name: String,
    },
    /// Join a channel, by invitation or by name and password
    Join(Join),
    /// Leave a channel and give its address back
    Leave {
        /// The channel's name
        name: String,
    },
    /// List the channels of this node
    List,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The invitation, `-` to read it from standard input
    #[arg(required_unless_present = "name", conflicts_with_all = ["name", "password_file", "network"])]
    pub(crate) ticket: Option<String>,
    /// The channel's name
    #[arg(long, requires = "password_file")]
    pub(crate) name: Option<String>,
    /// A file with the channel's password, `-` for standard input
    #[arg(long, value_name = "FILE", requires = "name")]
    pub(crate) password_file: Option<PathBuf>,
    /// The channel's virtual network [default: 10.77.0.0/16]
    #[arg(long, value_name = "CIDR", requires = "name")]
    pub(crate) network: Option<String>,
    /// The virtual address to take instead of a random one
    #[arg(long)]
    pub(crate) address: Option<Ipv4Addr>,
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

#[derive(Debug, Subcommand)]
pub(crate) enum Overlay {
    /// Draw the ring as this node knows it
    Map(Map),
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

#[derive(Debug, Args)]
pub(crate) struct Sim {
    /// `hops` (routes in a grown overlay), `crash` (a fifth dies at once) or `partition`
    /// (two halves meet again)
    pub(crate) scenario: Scenario,
    /// How many nodes
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub(crate) nodes: u32,
    /// The source of everything random: the same seed gives the same run
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Long links per node [default: half the binary logarithm of the estimated size]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(0..=32))]
    pub(crate) links: Option<u32>,
    /// How many routes to ask for and judge
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub(crate) routes: u32,
}

/// Reads a length of time such as `90s`, `10m`, `12h` or `30d`; a plain number is seconds.
fn lease_s(text: &str) -> Result<u32, String> {
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
    match number.checked_mul(unit_s) {
        Some(0..30) => Err("the shortest lease is 30 seconds".to_owned()),
        Some(lease_s) => Ok(lease_s),
        None => Err("that is too long".to_owned()),
    }
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
            "channel create office --network 10.77.0.0/16 --password-file f --address 10.77.0.9",
            "channel create office",
            "channel invite office",
            "channel join TICKET",
            "channel join TICKET --address 10.77.0.9",
            "channel join --name office --password-file - --network 10.77.0.0/16",
            "channel leave office",
            "channel list",
            "ping 10.77.0.2 -c 3 --json",
            "trace key:hello --json",
            "trace hello --key --probes 20",
            "doctor --json",
            "overlay map",
            "overlay map --svg ring.svg --crawl 200 --json",
            "dht put key value --lease 12h",
            "dht put key -",
            "dht get key",
            "dht remove key",
            "connect 10.77.0.2 echo",
            "connect --listen echo",
            "demo --keep --json",
            "sim hops --nodes 100 --seed 7 --links 5 --json",
            "completions bash",
            "status --lang ja",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for line in [
            "channel join",
            "channel join TICKET --name office",
            "channel join --name office",
            "channel join --network 10.77.0.0/16 --password-file f",
            "channel join TICKET --network 10.0.0.0/8",
            "connect 10.77.0.2",
            "connect 10.77.0.2 echo --listen echo",
            "ping x -c 0",
            "ping x -c 1001",
            "trace x --probes 0",
            "trace x --probes 21",
            "overlay map --crawl 1001",
            "dht put key",
            "dht put key value --lease soon",
            "up --listen nowhere",
            "make tea",
            "sim tea",
            "sim hops --nodes 1",
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
