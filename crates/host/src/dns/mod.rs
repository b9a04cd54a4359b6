//! Names of channels for the programs of this host: sockets around the answers of
//! `enishi-dns`, and the system's resolver led to them.
//!
//! ```text
//!   a program ── getaddrinfo ──> systemd-resolved ── *.office.enishi ──> 10.77.0.1:53, the device's
//!                        └─────> /etc/resolv.conf ── everything ───────> 127.77.0.53:53, loopback
//!                                                                             │ all other names
//!                                                                             v
//!                                                               the servers named there before
//!   another member ── names of this channel ───────────────────────────> 10.77.0.1:53
//! ```
//!
//! | part | does |
//! |---|---|
//! | `upkeep` | listens where it has to, and keeps the resolver set up |
//! | `listener` | one address: UDP and TCP |
//! | `responder` | who asks, how often, and what becomes of it |
//! | `forward` | asks other servers |
//! | `rates` | how often one may ask |
//! | `resolver` | sets up the system's resolver, and puts it back as it was |

mod forward;
mod listener;
mod rates;
mod resolver;
mod responder;
mod upkeep;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use enishi_dns::Zone;
use tokio::sync::{mpsc, oneshot};

pub use resolver::{guard, repair};
pub use upkeep::Upkeep;

/// The port of the DNS, at which a resolver asks when it is told an address alone.
pub const PORT: u16 = 53;

/// Who wants the present names, to answer a query.
pub type ZoneRequest = oneshot::Sender<Arc<Zone>>;

/// With what names are served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address on loopback, or one of the fifteen after it.
    pub loopback: SocketAddr,
    /// Whether the system's resolver is to be set up.
    pub with_resolver: bool,
    /// The file in which is kept what has to be put back after a crash.
    pub marker: PathBuf,
}

/// A channel that has a network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number on this node.
    pub channel: u32,
    /// Its device.
    pub device: String,
    /// This node's addresses in it.
    pub addresses: [IpAddr; 2],
}

/// How names reach the programs of this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum How {
    /// Not by themselves: a program has to ask here.
    #[default]
    None,
    /// By systemd-resolved.
    Resolved,
    /// By `/etc/resolv.conf`.
    ResolvConf,
}

impl How {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Resolved => "systemd-resolved",
            Self::ResolvConf => "resolv.conf",
        }
    }
}

/// What is set up at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// How names reach the programs of this host.
    pub how: How,
    /// Where queries are answered.
    pub listening: Vec<SocketAddr>,
    /// Who is asked for all other names.
    pub upstreams: Vec<SocketAddr>,
    /// What a person should know.
    pub notice: Option<String>,
}

/// What is set up, for whoever wants to tell of it; clones show the same.
#[derive(Clone, Debug, Default)]
pub struct Shown(Arc<Mutex<State>>);

impl Shown {
    /// Returns what is set up at the moment.
    pub fn state(&self) -> State {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.clone()
    }

    fn set(&self, state: State) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

/// Asks for the present names; none when the daemon is stopping.
async fn zone(requests: &mpsc::Sender<ZoneRequest>) -> Option<Arc<Zone>> {
    let (reply, zone) = oneshot::channel();
    requests.send(reply).await.ok()?;
    zone.await.ok()
}
