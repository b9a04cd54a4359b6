//! `proxy`: which proxy connections of the node take.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Proxy {
    /// Also tell which proxy this URL takes, and why, as `https://example.com`
    pub(crate) url: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Option<ProxyCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProxyCommand {
    /// Tell the daemon what your desktop says: GNOME, KDE, or the variables of your session
    Tell {
        /// Print it as JSON, passwords included, instead of telling it
        #[arg(long, conflicts_with = "stdin")]
        print: bool,
        /// Tell what standard input holds, as --print has it
        #[arg(long)]
        stdin: bool,
    },
    /// Have the daemon forget what a desktop said
    Forget,
    /// Sign the settings file of a company; writes FILE.sig
    Sign {
        /// The file
        file: PathBuf,
        /// The file with the secret key, made when it is not there
        #[arg(long, value_name = "KEYFILE", default_value = "company.key")]
        key: PathBuf,
    },
}
