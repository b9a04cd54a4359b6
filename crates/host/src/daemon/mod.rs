//! The daemon: one node with its sessions, its store, its devices and its control
//! interface, from start to stop.
//!
//! ```text
//!   control ──> tasks, one per request ──asks──┐
//!   sessions ──events──────────────────────────┤
//!   store ──outcomes───────────────────────────┼──> driver: owns Node
//!   packets ──notes────────────────────────────┤      └─> outbox ──> store, sessions
//!   clock ─────────────────────────────────────┘
//! ```
//!
//! | part | does |
//! |---|---|
//! | `driver` | the loop: hands inputs to the node and its outputs on |
//! | `outbox` | keeps what the node persists, holds messages back until it is on disk |
//! | `recorder` | records everything that goes into the node, if that is wanted |
//! | `rates` | how many messages a peer may send |
//! | `bootstrap` | ties the node to what looks for others, and answers who asks |
//! | `measuring` | what the node is capable of |
//! | `desk` | what tasks may ask of the driver |
//! | `control` | requests: which file answers which |
//! | `dns` | names of hosts: what the node knows, for the responder |
//! | `channels`, `closed`, `invitations`, `names`, `diagnostics`, `discovery`, `doctor`, `map`, `streams`, `status`, `turn`, `wireguard` | the answers |
//! | `gateway` | proxies and forwards: the channels for programs without a network device |
//! | `ports` | connections to ports in channels, for programs that use the control interface |
//! | `machine` | what the system tells of the process and its devices |
//! | `vitals` | measures load and paths for the node |
//! | `target` | which node a person means |
//! | `upstream` | which proxies connections of this node take |

mod bootstrap;
mod channels;
mod closed;
mod control;
mod desk;
mod diagnostics;
mod discovery;
mod dns;
mod doctor;
mod driver;
mod gateway;
mod government;
mod invitations;
mod lifetime;
mod machine;
mod map;
mod measuring;
mod members;
mod names;
mod offers;
mod outbox;
mod ports;
mod rates;
mod recorder;
mod routes;
mod servers;
mod start;
mod status;
mod streams;
mod target;
mod turn;
mod upstream;
mod verify;
mod vitals;
mod wireguard;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use enishi_overlay::NodeId;
use tokio::task::JoinHandle;

use crate::config::{Config, DeviceKind, RecordLimit};
use crate::data_dir::DataDir;
use crate::session::Sessions;

use desk::Ending;
pub use recorder::RecordError;
pub use start::StartError;

/// What a daemon is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; made if it is not there.
    pub data: PathBuf,
    /// The configuration file; none for `config.toml` in the data directory, if there.
    pub config: Option<PathBuf>,
    /// Whether to do without network devices, whatever the configuration says.
    pub no_tun: bool,
    /// Whether to do without names of hosts, whatever the configuration says.
    pub no_dns: bool,
    /// What kind of network devices, instead of what the configuration says.
    pub device: Option<DeviceKind>,
    /// Where to serve SOCKS 5, instead of where the configuration says.
    pub socks: Option<SocketAddr>,
    /// Where to be an HTTP proxy, instead of where the configuration says.
    pub http_proxy: Option<SocketAddr>,
    /// The UDP address to listen on instead of those of the configuration.
    pub listen: Option<SocketAddr>,
    /// Whether to look for others in the local network, instead of what the configuration says.
    pub mdns: Option<bool>,
    /// Invitations of nodes to join by, and nodes to ask as `NAME:PORT`.
    pub bootstrap: Vec<String>,
    /// The file to record into instead of that of the configuration.
    pub record: Option<PathBuf>,
    /// How large it may become, instead of what the configuration says.
    pub record_limit: Option<RecordLimit>,
    /// Whether the node is to be a client, whatever the configuration says.
    pub client: bool,
}

/// How long the driver may take to end once it is told to.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// A daemon that runs.
#[derive(Debug)]
pub struct Daemon {
    node_id: NodeId,
    control: PathBuf,
    sessions: Sessions,
    ending: Ending,
    driver: JoinHandle<()>,
    /// Serves names, if it is to.
    names: Option<JoinHandle<()>>,
    /// Has ports mapped, if it is to.
    mapping: Option<JoinHandle<()>>,
    server: JoinHandle<()>,
    /// Locked until the daemon has ended.
    _data: DataDir,
}

impl Daemon {
    /// Starts a daemon. Must be called within a tokio runtime, which runs its tasks.
    ///
    /// # Errors
    /// [`StartError`] says what is in the way and what to do about it.
    pub async fn start(options: Options, config: Config) -> Result<Self, StartError> {
        start::start(options, config).await
    }

    /// Returns the node's id.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Returns the addresses and ports that its sockets are bound to.
    pub fn listening(&self) -> Vec<SocketAddr> {
        self.sessions.listening()
    }

    /// Returns the path of the control socket.
    pub fn control(&self) -> &PathBuf {
        &self.control
    }

    /// Runs until a request stops the daemon or `until` resolves; then takes leave of the
    /// peers, closes sessions and devices, and returns after some seconds at most.
    pub async fn run(self, until: impl Future<Output = ()>) {
        tokio::select! {
            () = self.ending.stop.cancelled() => {}
            () = until => {}
        }
        tracing::info!("stopping");
        self.ending.stop.cancel();
        if tokio::time::timeout(STOP_TIME_MAX, self.driver)
            .await
            .is_err()
        {
            tracing::warn!("the node did not stop in time");
        }
        if let Some(names) = self.names
            && tokio::time::timeout(STOP_TIME_MAX, names).await.is_err()
        {
            tracing::warn!("the resolver was not put back in time");
        }
        if let Some(mapping) = self.mapping
            && tokio::time::timeout(STOP_TIME_MAX, mapping).await.is_err()
        {
            tracing::warn!("the router was not told in time that no ports are needed");
        }
        self.ending.stopped.cancel();
        // It ends by itself within a second.
        let _ = tokio::time::timeout(STOP_TIME_MAX, self.server).await;
    }
}
