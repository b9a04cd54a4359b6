//! What the tasks of requests may ask of the driver, and what all parts share.
//!
//! A task waits; the driver never does. It takes one question after the other from a
//! bounded queue and leaves its answer in a place that has room for it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use enishi_api::{Failure, FailureKind, Proxies};
use enishi_overlay::admission::Revocations;
use enishi_overlay::class::Measure;
use enishi_overlay::view::Entry;
use enishi_overlay::{Contact, Keypair, NodeId, OverlayId, PathKind, Position};
use enishi_services::dht::{
    Confirmation, Consistency, GetAnswer, Holding, PutAnswer, PutRequest, Subject,
};
use enishi_services::diag::wire::{EchoDetail, Found};
use enishi_services::record::Key;
use enishi_services::vnet::{ChannelId, ChannelSpec};
use enishi_services::{Node, diag, vnet};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::closed::Member;
use super::gateway::Forwards;
use super::ports::Arrivals;
use super::streams::Listeners;
use super::turn::Turn;
use super::upstream::Upstream;
use crate::bootstrap::Book;
use crate::config::Config;
use crate::dns::Shown;
use crate::packets::Networks;
use crate::reach::{Carrier, Kept, Mapped};
use crate::session::Sessions;
use crate::store::unix_s;
use crate::wireguard::WireGuard;

/// How many questions wait for the driver; further tasks wait to ask.
pub(super) const ASKS_MAX: usize = 1024;

/// How many events of the virtual networks a slow task may lag behind.
pub(super) const EVENTS_MAX: usize = 1024;

/// How many reports of a trace wait for its task; further ones are dropped.
const REPORTS_MAX: usize = 256;

/// A look at the node.
type Look = Box<dyn FnOnce(&Node) + Send>;

/// A question to the driver.
pub(super) enum Ask {
    /// Looks at the node.
    Look(Look),
    /// Names nodes that may know the overlay.
    Bootstrap(Vec<Contact>),
    /// Tells what the node was measured to be capable of.
    Measured(Measure),
    /// Reads the DHT.
    Get(Key, Consistency, oneshot::Sender<GetAnswer>),
    /// Writes to the DHT.
    Put(Box<PutRequest>, oneshot::Sender<PutAnswer>),
    /// Sends an echo request; answered by the echo, if there was one.
    Ping(NodeId, Duration, oneshot::Sender<Result<Echo, Unheard>>),
    /// Has another node look for this one at its position.
    FindMe(NodeId, Duration, oneshot::Sender<Option<Found>>),
    /// Asks which nodes are near a position.
    Locate(Position, oneshot::Sender<Vec<Entry>>),
    /// Asks which nodes hold a record.
    Survey(Key, oneshot::Sender<Vec<Holding>>),
    /// Confirms something over so many paths.
    Confirm(Subject, u8, oneshot::Sender<Confirmation>),
    /// What the host has measured.
    Observe(Observed),
    /// Follows a route.
    Trace(Position, mpsc::Sender<diag::Event>),
    /// Takes part in a channel, unless the node does so already.
    Open(ChannelSpec, Option<Ipv4Addr>, oneshot::Sender<Opened>),
    /// Anything else of the virtual networks; answered by events.
    Vnet(vnet::Command),
    /// Removes nodes from the closed overlay.
    Revoke(Revocations),
}

/// An echo of another node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Echo {
    pub(super) round_trip: Duration,
    /// What the node says of itself; none when it declines to.
    pub(super) detail: Option<EchoDetail>,
}

/// Why there is no echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unheard {
    /// The node did not answer in time.
    Lost,
    /// Nobody knows the node.
    Unknown,
}

/// What the host measures for the node.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    /// The share of a processor core that the daemon used, in thousandths; none when
    /// nothing new is known.
    pub(super) load_per_mille: Option<u16>,
    /// The paths of the open sessions.
    pub(super) paths: Vec<(NodeId, PathKind, Option<SocketAddr>)>,
}

/// What came of [`Ask::Open`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// The node takes part now.
    New(ChannelId),
    /// It did so before.
    Before(ChannelId),
    /// It takes part in another channel of that name.
    Conflict,
    /// It takes part in too many channels.
    TooMany,
}

/// What all parts of the daemon share.
pub(super) struct Shared {
    pub(super) keypair: Keypair,
    pub(super) overlay: OverlayId,
    /// The membership in a closed overlay.
    pub(super) closed: Option<Member>,
    pub(super) config: Config,
    /// The data directory.
    pub(super) data: PathBuf,
    pub(super) started: Instant,
    /// The clock at the start, in seconds since 1970.
    pub(super) started_unix_s: u64,
    pub(super) networks: Arc<Networks>,
    /// What the site's router maps for the node.
    pub(super) mapped: watch::Sender<Mapped>,
    /// For how long the site's router keeps silent ways open.
    pub(super) kept: watch::Sender<Kept>,
    /// How names are served; none when they are not.
    pub(super) names: Option<Shown>,
    /// The WireGuard clients; none in tests of other parts.
    pub(super) wireguard: Option<WireGuard>,
    /// Carries packets between nodes; none in tests of other parts.
    pub(super) carrier: Option<Arc<Carrier>>,
    /// Which way found whom.
    pub(super) found_by: Arc<Book>,
    /// Takes what is asked at the port of packets; none in tests of other parts.
    pub(super) questions: Option<mpsc::Sender<(SocketAddr, Bytes)>>,
    pub(super) listeners: Listeners,
    /// Connections to ports that wait for the program that takes them.
    pub(super) arrivals: Arrivals,
    pub(super) forwards: Forwards,
    /// Where the proxies listen.
    pub(super) proxies: Proxies,
    /// Which proxies connections of this node take.
    pub(super) upstream: Upstream,
    /// What there is of TURN.
    pub(super) turn: Turn,
    /// Messages that could not be decoded.
    pub(super) malformed_messages: AtomicU64,
    /// Messages over a peer's rate.
    pub(super) flooded_messages: AtomicU64,
    /// What a person should know, by what it is about.
    notices: Mutex<BTreeMap<&'static str, String>>,
}

impl Shared {
    pub(super) fn new(
        keypair: Keypair,
        overlay: OverlayId,
        config: Config,
        data: PathBuf,
        networks: Arc<Networks>,
    ) -> Self {
        Self {
            keypair,
            overlay,
            closed: None,
            config,
            data,
            started: Instant::now(),
            started_unix_s: unix_s(),
            networks,
            mapped: watch::Sender::default(),
            kept: watch::Sender::default(),
            names: None,
            wireguard: None,
            carrier: None,
            found_by: Arc::default(),
            questions: None,
            listeners: Listeners::default(),
            arrivals: Arrivals::default(),
            forwards: Forwards::default(),
            proxies: Proxies::default(),
            upstream: Upstream::default(),
            turn: Turn::default(),
            malformed_messages: AtomicU64::new(0),
            flooded_messages: AtomicU64::new(0),
            notices: Mutex::default(),
        }
    }

    /// Notes what a person should know, in place of what was noted of the same before.
    pub(super) fn note(&self, about: &'static str, notice: String) {
        self.notices().insert(about, notice);
    }

    /// What was noted is no longer so.
    pub(super) fn unnote(&self, about: &'static str) {
        self.notices().remove(about);
    }

    /// Returns what was noted of something.
    pub(super) fn noted_about(&self, about: &'static str) -> Option<String> {
        self.notices().get(about).cloned()
    }

    /// Returns all notices.
    pub(super) fn noted(&self) -> Vec<String> {
        self.notices().values().cloned().collect()
    }

    fn notices(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to the driver; cheap to clone.
#[derive(Clone)]
pub(super) struct Desk {
    asks: mpsc::Sender<Ask>,
    events: broadcast::Sender<vnet::Event>,
    pub(super) sessions: Sessions,
    pub(super) shared: Arc<Shared>,
    pub(super) ending: Ending,
}

/// How the daemon's end is told.
#[derive(Clone, Debug, Default)]
pub(super) struct Ending {
    /// Stops the daemon.
    pub(super) stop: CancellationToken,
    /// The node has stopped.
    pub(super) stopped: CancellationToken,
}

impl Desk {
    pub(super) fn new(
        asks: mpsc::Sender<Ask>,
        events: broadcast::Sender<vnet::Event>,
        sessions: Sessions,
        shared: Arc<Shared>,
        ending: Ending,
    ) -> Self {
        Self {
            asks,
            events,
            sessions,
            shared,
            ending,
        }
    }

    /// Looks at the node.
    ///
    /// # Errors
    /// The daemon is stopping; so for all methods.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Node) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let look = move |node: &Node| drop(reply.send(look(node)));
        self.ask(Ask::Look(Box::new(look))).await?;
        answer.await.map_err(|_| stopping())
    }

    /// Names nodes that may know the overlay.
    pub(super) async fn bootstrap(&self, contacts: Vec<Contact>) -> Result<(), Failure> {
        self.ask(Ask::Bootstrap(contacts)).await
    }

    /// Reads the DHT; a majority of the holders is asked.
    pub(super) async fn get(&self, key: Key) -> Result<GetAnswer, Failure> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Get(key, Consistency::Majority, reply))
            .await?;
        answer.await.map_err(|_| stopping())
    }

    /// Writes to the DHT.
    pub(super) async fn put(&self, request: PutRequest) -> Result<PutAnswer, Failure> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Put(Box::new(request), reply)).await?;
        answer.await.map_err(|_| stopping())
    }

    /// Has another node look for this one at its position.
    pub(super) async fn find_me(
        &self,
        stranger: NodeId,
        timeout: Duration,
    ) -> Result<Option<Found>, Failure> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::FindMe(stranger, timeout, reply)).await?;
        answer.await.map_err(|_| stopping())
    }

    /// Asks which nodes are near a position, the one in charge first; none when nobody
    /// answers.
    pub(super) async fn locate(&self, target: Position) -> Result<Vec<Entry>, Failure> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Locate(target, reply)).await?;
        answer.await.map_err(|_| stopping())
    }

    /// Asks what each of the nodes nearest to a key has under it.
    pub(super) async fn survey(&self, key: Key) -> Result<Vec<Holding>, Failure> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Survey(key, reply)).await?;
        answer.await.map_err(|_| stopping())
    }

    /// Confirms something over several paths that have no node in common.
    pub(super) async fn confirm(
        &self,
        subject: Subject,
        paths: u8,
    ) -> Result<Confirmation, Failure> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Confirm(subject, paths, reply)).await?;
        answer.await.map_err(|_| stopping())
    }

    /// Tells the node what the host has measured.
    pub(super) async fn observe(&self, observed: Observed) -> Result<(), Failure> {
        self.ask(Ask::Observe(observed)).await
    }

    /// Sends an echo request and waits for the response.
    pub(super) async fn ping(
        &self,
        target: NodeId,
        timeout: Duration,
    ) -> Result<Result<Echo, Unheard>, Failure> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Ping(target, timeout, reply)).await?;
        answer.await.map_err(|_| stopping())
    }

    /// Follows a route; the reports end with [`diag::Event::Traced`].
    pub(super) async fn trace(
        &self,
        target: Position,
    ) -> Result<mpsc::Receiver<diag::Event>, Failure> {
        let (reply, reports) = mpsc::channel(REPORTS_MAX);
        self.ask(Ask::Trace(target, reply)).await?;
        Ok(reports)
    }

    /// Takes part in a channel.
    pub(super) async fn open(
        &self,
        spec: ChannelSpec,
        address: Option<Ipv4Addr>,
    ) -> Result<Opened, Failure> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Open(spec, address, reply)).await?;
        answer.await.map_err(|_| stopping())
    }

    /// Asks anything else of the virtual networks.
    pub(super) async fn vnet(&self, command: vnet::Command) -> Result<(), Failure> {
        self.ask(Ask::Vnet(command)).await
    }

    /// Removes nodes from the closed overlay.
    pub(super) async fn revoke(&self, list: Revocations) -> Result<(), Failure> {
        self.ask(Ask::Revoke(list)).await
    }

    /// Follows what happens in the virtual networks from now on.
    pub(super) fn events(&self) -> broadcast::Receiver<vnet::Event> {
        self.events.subscribe()
    }

    pub(super) async fn ask(&self, ask: Ask) -> Result<(), Failure> {
        self.asks.send(ask).await.map_err(|_| stopping())
    }
}

/// The answer is no.
pub(super) fn no(message: impl Into<String>) -> Failure {
    Failure {
        kind: FailureKind::No,
        message: message.into(),
    }
}

/// The request makes no sense.
pub(super) fn usage(message: impl Into<String>) -> Failure {
    Failure {
        kind: FailureKind::Usage,
        message: message.into(),
    }
}

fn stopping() -> Failure {
    no("The daemon is stopping and takes no requests.")
}
