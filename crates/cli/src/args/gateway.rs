//! `gateway`: joining two closed overlays.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Gateway {
    /// Sign a consent with the key of this closed overlay's authority
    Consent(Consent),
    /// Show what a consent says
    Read {
        /// The consent, `-` to read it from standard input
        consent: String,
    },
    /// Keep a consent in the gateway's directory (--data)
    Accept {
        /// The data directory of the gateway's node in the overlay that the consent is of
        #[arg(long, value_name = "DIR")]
        side: PathBuf,
        /// The consent, `-` to read it from standard input
        consent: String,
    },
    /// Let the consent of an overlay go
    Forget {
        /// The overlay's id, or its first characters
        overlay: String,
    },
    /// Run the gateway of a directory (--data) in the foreground
    Run,
    /// Show what the gateway of a directory (--data) may pass on, and why not
    Show,
    /// Show the audit log of the gateway of a directory (--data), and whether it is whole
    Audit(Audit),
    /// List the gateways among the members of this node's channels
    List,
}

#[derive(Debug, Args)]
pub(crate) struct Consent {
    /// The gateway's node in this overlay: its whole id
    #[arg(long, value_name = "ID")]
    pub(crate) node: String,
    /// The id of the other overlay, as `enishi overlay show` tells it there
    #[arg(long, value_name = "ID")]
    pub(crate) other: String,
    /// The channel of this overlay in which the gateway is
    #[arg(long, value_name = "NAME")]
    pub(crate) channel: String,
    /// A service of the other overlay that members of this one may use, the gateway's port for
    /// it, and who may (everybody if nobody is named): wiki=8080 or wiki=8080:aki,ben
    #[arg(long, value_name = "SERVICE=PORT[:MEMBER,…]", value_parser = service_out)]
    pub(crate) out: Vec<ServiceOut>,
    /// A service of this overlay that members of the other one may use: mail=ben:25
    #[arg(long = "in", value_name = "SERVICE=MEMBER:PORT", value_parser = service_in)]
    pub(crate) inside: Vec<ServiceIn>,
    /// A document of the other overlay's DHT that is to be put into this one, by its name
    #[arg(long, value_name = "NAME")]
    pub(crate) take: Vec<String>,
    /// A document of this overlay's DHT that may be put into the other one, by its name
    #[arg(long, value_name = "NAME")]
    pub(crate) give: Vec<String>,
    /// For how long, for example 12h, 30d
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = super::valid_s)]
    pub(crate) expires: u64,
    /// How many connections at a time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) flows: u16,
    /// How many octets a second, of all connections in both directions
    #[arg(long, value_name = "OCTETS", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1024..))]
    pub(crate) rate: u64,
    /// After how long without an octet a connection is ended
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = idle_s)]
    pub(crate) idle: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// How many of the last lines to show
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) last: usize,
    /// Show no lines, only whether the log is whole, and its last hash
    #[arg(long)]
    pub(crate) verify: bool,
    /// A hash that was noted before: exit code 1 unless a line of the log has it
    #[arg(long, value_name = "HASH")]
    pub(crate) expect: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct ServiceOut {
    pub(crate) service: String,
    pub(crate) port: u16,
    pub(crate) users: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct ServiceIn {
    pub(crate) service: String,
    pub(crate) member: String,
    pub(crate) port: u16,
}

fn service_out(text: &str) -> Result<ServiceOut, String> {
    let wrong = || "write SERVICE=PORT or SERVICE=PORT:MEMBER,MEMBER".to_owned();
    let (service, rest) = text.split_once('=').ok_or_else(wrong)?;
    let (port, users) = rest
        .split_once(':')
        .map_or((rest, None), |(p, u)| (p, Some(u)));
    let users: Vec<String> = users
        .into_iter()
        .flat_map(|users| users.split(','))
        .map(str::to_owned)
        .collect();
    // Nobody named would mean everybody.
    if users.iter().any(String::is_empty) {
        return Err(wrong());
    }
    Ok(ServiceOut {
        service: service.to_owned(),
        port: port.parse().map_err(|_| wrong())?,
        users,
    })
}

fn service_in(text: &str) -> Result<ServiceIn, String> {
    let wrong = || "write SERVICE=MEMBER:PORT".to_owned();
    let (service, rest) = text.split_once('=').ok_or_else(wrong)?;
    let (member, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
    Ok(ServiceIn {
        service: service.to_owned(),
        member: member.to_owned(),
        port: port.parse().map_err(|_| wrong())?,
    })
}

fn idle_s(text: &str) -> Result<u32, String> {
    match super::length_s(text)? {
        0 => Err("that is no time at all".to_owned()),
        length_s => Ok(length_s),
    }
}
