//! `enishi up`: the daemon in the foreground.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::args::Up;
use crate::output::Output;
use crate::problem::{Problem, Verdict};

/// What the daemon is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UpOptions {
    /// The data directory; made if it is not there.
    pub(crate) data: PathBuf,
    /// The configuration file; none for `config.toml` in the data directory, if there.
    pub(crate) config: Option<PathBuf>,
    /// Whether to do without a network device.
    pub(crate) no_tun: bool,
    /// The UDP address to listen on; none for what the configuration says.
    pub(crate) listen: Option<SocketAddr>,
    /// Invitations of nodes to join by.
    pub(crate) bootstrap: Vec<String>,
}

impl UpOptions {
    /// Puts together what the command line says.
    pub(crate) fn new(data: PathBuf, up: Up) -> Self {
        let Up {
            config,
            no_tun,
            listen,
            bootstrap,
        } = up;
        Self {
            data,
            config,
            no_tun,
            listen,
            bootstrap,
        }
    }
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// [`Problem`] says why it could not start.
pub(crate) fn run(_out: &Output, options: &UpOptions) -> Result<Verdict, Problem> {
    let data = options.data.display();
    Err(Problem::No(format!(
        "This build has no daemon to run on {data}: not built in yet."
    )))
}
