//! `route` and `forward`: what is reached by way of a channel.

use std::net::SocketAddr;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Route {
    /// List the networks that members offer, and those that this node uses
    List {
        /// Of one channel only
        channel: Option<String>,
    },
    /// Offer a network behind this node to the members of a channel
    Share {
        /// The channel's name
        channel: String,
        /// The network, for example 192.168.7.0/24, or `everything`
        network: String,
    },
    /// Offer it no longer
    Unshare {
        /// The channel's name
        channel: String,
        /// The network, or `everything`
        network: String,
    },
    /// Reach a network by way of a member that offers it
    Use {
        /// The channel's name
        channel: String,
        /// The network, or `everything`
        network: String,
        /// For `everything`: the member, by the name of its host, its virtual address or its id
        #[arg(long, value_name = "MEMBER")]
        by: Option<String>,
    },
    /// Reach it that way no longer
    Unuse {
        /// The channel's name
        channel: String,
        /// The network, or `everything`
        network: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Forward {
    /// Forward a port, now and after every start
    Add {
        /// The channel's name
        channel: String,
        #[command(subcommand)]
        way: Way,
    },
    /// List the forwards
    List,
    /// End a forward and its connections
    Remove {
        /// Its number, as the list shows it
        id: u32,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Way {
    /// From an address of this host to a member
    Local {
        /// Where programs of this host connect, for example 127.0.0.1:8080
        listen: SocketAddr,
        /// The member and its port: HOST:80, 10.77.0.9:80 or `[fd00::9]:80`
        to: String,
        /// Forward datagrams, not connections
        #[arg(long)]
        udp: bool,
    },
    /// From a port of this node's address in the channel to a program of this host
    Remote {
        /// The port that members connect to
        #[arg(value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
        /// The program, for example 127.0.0.1:8000
        to: SocketAddr,
        /// Forward datagrams, not connections
        #[arg(long)]
        udp: bool,
    },
}
