//! `turn`: who may use this node's TURN server.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Turn {
    /// Show this node's TURN server, its users and their allocations
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
}
