//! `turn`: who may use this node's TURN server, and which servers of others it uses.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Turn {
    /// Show this node's TURN server, its users and their allocations, and the servers of others
    Show,
    /// Let a user in; the password is drawn and printed once unless a file has it
    Add {
        /// The user's name: 1 to 63 letters, digits, `-`, `_` and `.`
        name: String,
        /// A file with the password, `-` for standard input
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Let a user in no more; what it has ends
    Remove {
        /// The user's name
        name: String,
    },
    /// Use a TURN server of somebody else where nothing reaches this node straight
    Use {
        /// Which, with the user there: turn:user@host:3478
        url: String,
        /// A file with the password, `-` for standard input
        #[arg(long, value_name = "FILE", default_value = "-")]
        password_file: PathBuf,
    },
    /// Use it no longer
    Forget {
        /// Which, as it was named, or HOST:PORT
        url: String,
    },
}
