//! The commands of channels.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use enishi_api::Uses;

use super::{NETWORK_DEFAULT, uses, valid_s};

/// What is done about the members of a channel.
#[derive(Debug, Subcommand)]
pub(crate) enum Governed {
    /// Print an invitation to a channel
    Invite {
        /// The channel's name
        name: String,
        /// How many nodes may join by it, 1 to 16, or `any` [default: 1; `any` in a channel
        /// with a password]
        #[arg(long, value_name = "N", value_parser = uses)]
        uses: Option<Uses>,
        /// For how long it may be used, for example 90s, 10m, 12h, 30d [default: 7d]
        #[arg(long, value_name = "TIME", value_parser = valid_s)]
        expires: Option<u64>,
        /// The role of those who come by it, for rules
        #[arg(long, value_name = "ROLE")]
        role: Option<String>,
    },
    /// List the open invitations that this node has made to a channel
    Invitations {
        /// The channel's name
        name: String,
    },
    /// End an invitation; who came by it stays
    Revoke {
        /// The channel's name
        name: String,
        /// The invitation, its name, or the first characters of that
        invitation: String,
    },
    /// Remove a member from a channel, and renew the channel's secret
    Remove {
        #[command(flatten)]
        of: Member,
    },
    /// Give a member a role, or take it away
    Role {
        #[command(flatten)]
        of: Member,
        /// The role: 1 to 31 small letters, digits and `-`
        #[arg(required_unless_present = "none", conflicts_with = "none")]
        role: Option<String>,
        /// Take the role away
        #[arg(long)]
        none: bool,
    },
    /// Make a member an administrator; only the founder can
    Admin {
        #[command(flatten)]
        of: Member,
        /// Make it one no longer
        #[arg(long)]
        no: bool,
    },
    /// List who may reach what in a channel
    Rules {
        /// The channel's name
        name: String,
    },
    /// Add a rule; as soon as there is one, only what rules name is allowed
    Allow {
        /// The channel's name
        name: String,
        /// Who may begin: `*` for everybody, `role:NAME`, or a member
        #[arg(long, value_name = "WHO")]
        from: String,
        /// With whom: the same, or `net:CIDR` for what is behind a member
        #[arg(long, value_name = "WHO")]
        to: String,
        /// Protocols and ports, for example tcp/22,udp/5000-5100,sctp,icmp [default: all]
        #[arg(long, value_name = "PORTS", value_delimiter = ',')]
        ports: Vec<String>,
    },
    /// Take a rule away
    Disallow {
        /// The channel's name
        name: String,
        /// The rule's number in `channel rules`
        number: u32,
    },
}

/// A member of a channel.
#[derive(Debug, Args)]
pub(crate) struct Member {
    /// The channel's name
    pub(crate) name: String,
    /// The name of the member's host, one of its addresses, its node id or the first
    /// characters of it
    pub(crate) member: String,
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
        /// A file with the channel's password, `-` for standard input; without a password
        /// the channel is governed: joined by invitation, with this node as its founder
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// The virtual address to take instead of a random one
        #[arg(long)]
        address: Option<Ipv4Addr>,
    },
    #[command(flatten)]
    Governed(Governed),
    /// Show a channel, its members and how they are reached
    Show {
        /// The channel's name
        name: String,
        /// Write a drawing to a file, `-` for standard output
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
    /// Join a channel, by invitation or by name and password
    Join(Join),
    /// Leave a channel and give its address back
    Leave {
        /// The channel's name
        name: String,
        /// Also if this node has founded the channel, whose authority is lost then
        #[arg(long)]
        force: bool,
    },
    /// List the channels of this node
    List,
    /// Let phones and others that have WireGuard take part by way of this node
    #[command(subcommand, name = "wireguard")]
    WireGuard(WireGuard),
    /// List the hosts of a channel by name
    Names {
        /// The channel's name
        name: String,
    },
    #[command(flatten)]
    Offered(Offered),
    /// Count the members whom a message to all reaches
    Count {
        /// The channel's name
        name: String,
    },
    /// Have programs of this host that choose no device look for others in a channel: what they
    /// send to 255.255.255.255, or to a group
    Discovery {
        /// The channel's name
        name: String,
        /// Whether; left out to be told
        state: Option<Switch>,
    },
}

/// Whether something is to be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// It is
    On,
    /// It is not
    Off,
}

/// What is done about services of members.
#[derive(Debug, Subcommand)]
pub(crate) enum Offered {
    /// Tell members of a service of this host, for those who look for it by name
    Offer {
        /// The channel's name
        name: String,
        /// The service, for example _http._tcp or _sip._udp
        service: String,
        /// Its port
        #[arg(value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
        /// What else who looks for it is to know, for example path=/wiki; as often as needed
        #[arg(long = "text", value_name = "KEY=VALUE")]
        texts: Vec<String>,
    },
    /// Tell of it no longer
    Withdraw {
        /// The channel's name
        name: String,
        /// The service
        service: String,
    },
    /// List the services that members offer
    Offers {
        /// The channel's name
        name: String,
    },
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

#[derive(Debug, Subcommand)]
pub(crate) enum WireGuard {
    /// Add a client and print its configuration, once, with a code to scan
    Add {
        /// The channel's name
        channel: String,
        /// What the client is to be called
        #[arg(default_value = "phone")]
        client: String,
        /// Where the client finds this node [default: an address that this node has]
        #[arg(long, value_name = "HOST:PORT")]
        endpoint: Option<String>,
    },
    /// Remove a client; its configuration is of no use any more
    Remove {
        /// The channel's name
        channel: String,
        /// The client's name
        client: String,
    },
    /// List the clients of this node, and what passed
    List {
        /// Of one channel only
        channel: Option<String>,
    },
}
