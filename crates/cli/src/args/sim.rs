//! `sim`: which story, with what, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use enishi_sim::hostile::Behaviour;
use enishi_sim::internet::Transport;
use enishi_sim::{Protocol, Scenario, Tree};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Sim {
    #[command(subcommand)]
    pub(crate) recorded: Option<Recorded>,
    /// `hops` (routes in a grown overlay), `crash` (a fifth dies at once),
    /// `storm` (all join at once, a third dies at once), `partition`
    /// (two halves meet again), `latency` (times of lookups), `churn` (nodes come and go),
    /// `storage` (values stay while nodes come and go), `bursts` (upkeep over time),
    /// `classes` (supernodes and clients), `compare` (geometries, ways to forward and a rival
    /// side by side), `riders` (some take and do not give), `attack` (some turn hostile),
    /// `multicast` (members of a group say something to all others) or `channel` (hundreds come
    /// into a channel at once, and a third of them dies)
    #[arg(required = true)]
    pub(crate) scenario: Option<Scenario>,
    /// How many nodes
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=1_048_576))]
    pub(crate) nodes: u32,
    /// The source of everything random: the same seed gives the same run
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Run with so many seeds, from the given one on, and tell means, least and greatest
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) seeds: u32,
    /// Long links per node [default: half the binary logarithm of the estimated size, and up to
    /// three times as many where their upkeep can be afforded]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(0..=32))]
    pub(crate) links: Option<u32>,
    /// How many packets are lost on the mean path, at most half [default: 1]
    #[arg(long, value_name = "PERCENT", value_parser = half)]
    pub(crate) loss: Option<u32>,
    /// How many pairs of nodes can never reach each other [default: 0]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) broken_pairs: Option<u32>,
    /// The delay one way between any two nodes, for example 0.1ms, instead of the Internet's
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) delay: Option<Duration>,
    /// How many routes, lookups or gets to ask for and judge [default: 2000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) routes: Option<u32>,
    /// How long a node stays on average, for example 1h or 84s [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) session_mean: Option<Duration>,
    /// How long half of the nodes stay at least, instead of the mean
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "session_mean")]
    pub(crate) session_median: Option<Duration>,
    /// How long the measured part lasts in simulated time, or the split [default: 30m for churn,
    /// 24h for storage, 512s for bursts, 20m for classes, 30m for riders, 10m after the deaths for
    /// channel, 4m for partition]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) duration: Option<Duration>,
    /// After how long each node asks for something, on average [default: 100s]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) lookup_interval: Option<Duration>,
    /// How many nodes take leave before they go; the others crash [default: 0]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) polite: Option<u32>,
    /// How many nodes die at once [default: 0 before the lookups of latency, 33.3333 for storm,
    /// 10 of the members for multicast, 33.3333 of them for channel]
    #[arg(long, value_name = "PERCENT", value_parser = not_all)]
    pub(crate) dead: Option<u32>,
    /// In how much time all nodes, or members of a channel, begin to join [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) joins_within: Option<Duration>,
    /// Whose nodes: `enishi`, or the rival `kademlia` (k = 20, alpha = 3) [default: enishi]
    #[arg(long, value_name = "NAME")]
    pub(crate) protocol: Option<Protocol>,
    /// What carries messages: `sessions` or `datagrams` [default: sessions for enishi,
    /// datagrams for kademlia]
    #[arg(long, value_name = "NAME")]
    pub(crate) transport: Option<Transport>,
    /// What a node is to spend on its tables, in bytes per second [default: 40 for enishi, 10
    /// for kademlia]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(crate) upkeep: Option<u32>,
    /// Leave out what nodes do for messages that may be lost, to see what it is worth
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    pub(crate) without: Vec<Remedy>,
    /// How many nodes are hostile, or free riders [default: several shares in turn]
    #[arg(long, value_name = "PERCENT", value_parser = not_all)]
    pub(crate) hostile: Option<u32>,
    /// How they behave: `drop`, `misroute`, `lie`, `withhold`, `grind`, `flood` or `slander`
    /// [default: drawn for each]
    #[arg(long, value_name = "NAME")]
    pub(crate) behaviour: Option<Behaviour>,
    /// How many nodes are clients, attached to peers instead of on the ring [default: 0]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) clients: Option<u32>,
    /// How many members the group has [default: 256]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=65_536))]
    pub(crate) group: Option<u32>,
    /// How many members the channel has [default: 120]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=65_000))]
    pub(crate) members: Option<u32>,
    /// Along what a group's messages go: `biased` or `scribe` [default: biased]
    #[arg(long, value_name = "NAME")]
    pub(crate) tree: Option<Tree>,
    /// How many values to store [default: for storage a fifth of the nodes, at least 20; for
    /// attack a fifth, at least 4; for storm one for each node; for classes none], or messages to
    /// publish [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) values: Option<u64>,
    /// Fill the tables of all nodes by the protocol's own rule, without any message; above
    /// 200,000 nodes it is always so
    #[arg(long)]
    pub(crate) by_rule: bool,
    /// Route as Symphony's paper does, without what this protocol adds; implies --by-rule
    #[arg(long)]
    pub(crate) paper: bool,
    /// Tell among the figures what the run costs here: events per second, and memory per node
    #[arg(long)]
    pub(crate) cost: bool,
    /// Draw a picture of the result into this file, as SVG
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
}

/// What is done with a recorded node instead of a scenario.
#[derive(Debug, Subcommand)]
pub(crate) enum Recorded {
    /// Give a recorded node all its inputs again; exit code 1 when it does not say the same
    Replay {
        /// The recording of `enishi up --record`
        file: PathBuf,
    },
}

/// What nodes do for messages that may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Remedy {
    /// Going round a hop that does not confirm in time
    Hedging,
    /// Setting out by two first hops at once
    TwoWays,
    /// Asking one node after the other when nothing else brings an answer
    Iterative,
}

/// Reads a share such as `5`, `0.5` or `5%`, in millionths.
fn percent(text: &str) -> Result<u32, String> {
    let number = text.trim_end_matches('%');
    match decimal(number, 10_000) {
        Some(share) if share <= 1_000_000 => Ok(share as u32),
        Some(_) => Err("that is more than 100 %".to_owned()),
        None => Err("write a percentage, for example 5 or 0.5".to_owned()),
    }
}

/// Reads a percentage of which the simulated paths lose no more.
fn half(text: &str) -> Result<u32, String> {
    percent(text).and_then(|share| match share {
        0..=500_000 => Ok(share),
        _ => Err("no path is simulated that loses more than 50 %".to_owned()),
    })
}

/// Reads a percentage of nodes that leaves some.
fn not_all(text: &str) -> Result<u32, String> {
    percent(text).and_then(|share| match share {
        1_000_000 => Err("some have to be left".to_owned()),
        _ => Ok(share),
    })
}

/// Reads a length of time such as `1h`, `84s`, `1.4m` or `500ms`; a plain number is
/// seconds.
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_micros = match &text[digits.len()..] {
        "ms" => 1_000,
        "" | "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return Err("the unit is ms, s, m, h or d".to_owned()),
    };
    match decimal(digits, unit_micros) {
        Some(0) => Err("it has to be longer than nothing".to_owned()),
        Some(micros) if micros <= 366 * 86_400_000_000 => Ok(Duration::from_micros(micros)),
        Some(_) => Err("that is more than a year".to_owned()),
        None => Err("write for example 84s, 10m, 1.5h or 24h".to_owned()),
    }
}

/// Reads a number with at most six decimal places as a multiple of 1 / `one`.
fn decimal(text: &str, one: u64) -> Option<u64> {
    let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    if !digits(whole) || !digits(places) || places.len() > 6 {
        return None;
    }
    let scale = 10_u64.pow(u32::try_from(places.len()).ok()?);
    let whole = whole.parse::<u64>().ok()?.checked_mul(one)?;
    let part = places.parse::<u64>().ok()?.checked_mul(one)? / scale;
    whole.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_shares_may_have_places() {
        assert_eq!(time("84"), Ok(Duration::from_secs(84)));
        assert_eq!(time("1.4m"), Ok(Duration::from_secs(84)));
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(percent("0.5"), Ok(5_000));
        assert_eq!(percent("100%"), Ok(1_000_000));
        for wrong in [
            "",
            ".5",
            "5.",
            "-1",
            "1e3",
            "99999999999999999999",
            "0.1234567",
        ] {
            assert!(time(wrong).is_err() && percent(wrong).is_err(), "{wrong}");
        }
    }
}
