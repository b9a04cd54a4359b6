//! The QUIC endpoint: its sockets, its limits, dialling and accepting.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use enishi_overlay::{Keypair, NodeId, OverlayId};
use iroh::endpoint::{
    BindOpts, ConnectError, ConnectOptions, ConnectWithOptsError, Connection, Endpoint, Incoming,
    MtuDiscoveryConfig, NetReportConfig, PortmapperConfig, QuicConnectError, QuicTransportConfig,
    VarInt, presets,
};
use iroh::{EndpointAddr, PublicKey, RelayMode, SecretKey, TransportAddr};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{Instrument, debug, debug_span};

use super::selector::DirectFirst;
use super::transport::Transport;
use super::{Shared, connection, lock};

/// The most connections at a time. The last [`SESSIONS_RESERVED`] of them are kept
/// for this node's own dials, so that strangers cannot cut it off.
pub const SESSIONS_MAX: usize = 1_024;

/// How many of [`SESSIONS_MAX`] only this node's own dials may use.
pub const SESSIONS_RESERVED: usize = 128;

/// The most bulk streams that one peer may have open towards this node.
pub const BULK_STREAMS_PER_PEER_MAX: u32 = 64;

/// The most octets of datagrams that wait for the network; the oldest give way.
pub const DATAGRAM_SEND_BYTES_MAX: usize = 1024 * 1024;

/// The most octets of datagrams that wait for the callback, per session.
const DATAGRAM_RECEIVE_BYTES_MAX: usize = 512 * 1024;

/// The most octets that one stream may have under way or unread.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// The most octets that all streams of a session may have under way or unread:
/// the bound on what a peer can make this node hold.
const SESSION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// How long a handshake may take, and how long a dial waits for one.
pub(super) const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// The most incoming handshakes under way. From the half on, addresses must first
/// prove that they are not forged (QUIC retry).
const HANDSHAKES_MAX: usize = 128;

/// How long new sockets are left alone.
///
/// Until the runtime has seen once that a socket can be written, a first packet to
/// several addresses waits for it, and only one of the copies is woken: the others
/// go out with the retransmission, a second later. One turn of the runtime's event
/// loop is enough.
const SETTLE: Duration = Duration::from_millis(5);

/// A connection over which nothing at all arrives for so long is dead.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A path over which nothing arrives for so long after something was sent, while another one is open, is closed:
/// long enough for what iroh says by every path every 5 s, and for some of it to be lost. Also the one by way of
/// others: it comes back only with another session.
const PATH_SILENCE_MAX: Duration = Duration::from_secs(7);

/// What the endpoint starts with: safe on every path that carries IPv6, and enough
/// for an IPv6 packet of 1,280 octets in two datagrams.
const INITIAL_MTU_BYTES: u16 = 1_200;

/// The largest UDP payload that discovery tries: 1,500 less the IPv6 and UDP headers.
const DISCOVERED_MTU_BYTES: u16 = 1_452;

/// The longest packet that other nodes carry, in octets: what fits with who it is for into a
/// datagram of a session that has found a path of 1,452. Longer ones are
/// dropped, so discovery settles below.
pub const CARRIED_BYTES_MAX: usize = 1_380;

/// Why the node cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the port.
    #[error(
        "UDP port already in use ({addresses}): stop the program that has it, or listen \
         on another port with --listen (port 0 takes a free one)"
    )]
    PortInUse {
        /// The addresses asked for.
        addresses: String,
    },
    /// This host does not have the address.
    #[error(
        "no interface of this host has the address to listen on ({addresses}): check \
         --listen, or leave it out to listen on all interfaces"
    )]
    NoSuchAddress {
        /// The addresses asked for.
        addresses: String,
    },
    /// The system refused the sockets for another reason.
    #[error("cannot listen on {addresses}")]
    Socket {
        /// The addresses asked for.
        addresses: String,
        /// What the system said.
        source: io::Error,
    },
    /// The QUIC endpoint could not be set up.
    #[error("cannot set up the QUIC endpoint: {0}")]
    Endpoint(String),
}

/// Returns the name that both ends must agree on for a handshake to succeed: the
/// version of these lanes, and the overlay.
pub(super) fn protocol_name(overlay: &OverlayId) -> Vec<u8> {
    let mut name = b"enishi/1/".to_vec();
    for octet in &overlay.as_bytes()[..8] {
        name.extend(format!("{octet:02x}").bytes());
    }
    name
}

/// Returns the second protocol name that a dialler offers: whom the dial is for.
///
/// A dial goes to several addresses at once, and private ones often lead to another
/// node in another network. The first answer decides, so that node must keep silent:
/// a refusal would spoil the dial. It knows by this name, which is never agreed
/// upon. Only sixteen bits of the id, because everybody on the path can read them.
fn addressee(peer: &NodeId) -> Vec<u8> {
    let [first, second, ..] = peer.as_bytes();
    format!("{ADDRESSEE}{first:02x}{second:02x}").into_bytes()
}

/// How the name that [`addressee`] makes begins.
const ADDRESSEE: &str = "to/";

/// Tells whether a dial that arrived here is for another node.
fn is_for_another(incoming: &Incoming, me: &NodeId) -> bool {
    let Some(names) = incoming.decrypt().and_then(|initial| initial.alpns()) else {
        return false;
    };
    let mut names = names.filter_map(Result::ok);
    names
        .find(|name| name.starts_with(ADDRESSEE.as_bytes()))
        .is_some_and(|name| name != addressee(me))
}

/// Binds the sockets. No relay, no name service, nothing of anyone else's.
pub(super) async fn bind(
    keypair: &Keypair,
    protocol: Vec<u8>,
    listen: &[SocketAddr],
    transport: &Transport,
) -> Result<Endpoint, BindError> {
    let mut builder = Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&keypair.seed()))
        .alpns(vec![protocol])
        .relay_mode(RelayMode::Disabled)
        .net_report_config(NetReportConfig::minimal())
        // Ports are mapped for packets as well, by more than UPnP, and more than once.
        .portmapper_config(PortmapperConfig::Disabled)
        .transport_config(transport_config())
        .add_custom_transport(Arc::new(transport.clone()))
        .path_selector(Arc::new(DirectFirst));
    if !listen.is_empty() {
        builder = builder.clear_ip_transports();
    }
    let is_first = |index: usize| {
        let family = listen[index].is_ipv4();
        listen[..index].iter().all(|it| it.is_ipv4() != family)
    };
    let mut order: Vec<usize> = (0..listen.len()).collect();
    // After the one that everything else goes by, iroh takes no other of its family.
    order.sort_by_key(|index| is_first(*index));
    for index in order {
        let (address, first) = (&listen[index], is_first(index));
        builder = builder
            .bind_addr_with_opts(*address, bind_options(listen, *address, first))
            .map_err(|error| BindError::Endpoint(error.to_string()))?;
    }
    let endpoint = builder.bind().await.map_err(|e| bind_error(e, listen))?;
    tokio::time::sleep(SETTLE).await;
    Ok(endpoint)
}

/// Returns where it listens, in the order of what was asked for.
pub(super) fn listening(endpoint: &Endpoint, listen: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut bound = endpoint.bound_sockets();
    bound.sort_by_key(|at| listen.iter().position(|wanted| wanted.ip() == at.ip()));
    bound
}

/// The first socket of a family sends what no other socket is nearer to. Not every host speaks
/// IPv6: that of all interfaces may be missing where there are others.
fn bind_options(listen: &[SocketAddr], address: SocketAddr, first: bool) -> BindOpts {
    let host = if address.is_ipv4() { 32 } else { 128 };
    let is_all6 = address.is_ipv6() && address.ip().is_unspecified();
    BindOpts::default()
        .set_prefix_len(if first { 0 } else { host })
        .set_is_default_route(first)
        .set_is_required(!is_all6 || listen.iter().all(SocketAddr::is_ipv6))
}

fn bind_error(error: iroh::endpoint::BindError, listen: &[SocketAddr]) -> BindError {
    let addresses = match listen {
        [] => "all interfaces".to_owned(),
        some => some
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    };
    match error {
        iroh::endpoint::BindError::Sockets { source, .. } => match source.kind() {
            io::ErrorKind::AddrInUse => BindError::PortInUse { addresses },
            io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress { addresses },
            _ => BindError::Socket { addresses, source },
        },
        other => BindError::Endpoint(other.to_string()),
    }
}

fn transport_config() -> QuicTransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(DISCOVERED_MTU_BYTES);
    let silence_ms = VarInt::from_u32(SILENCE_MAX.as_millis() as u32);
    QuicTransportConfig::builder()
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .max_concurrent_bidi_streams(VarInt::from_u32(BULK_STREAMS_PER_PEER_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(SESSION_WINDOW_BYTES))
        .send_window(u64::from(SESSION_WINDOW_BYTES))
        .datagram_send_buffer_size(DATAGRAM_SEND_BYTES_MAX)
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BYTES_MAX))
        .initial_mtu(INITIAL_MTU_BYTES)
        .mtu_discovery_config(Some(discovery))
        .max_idle_timeout(Some(silence_ms.into()))
        .default_path_max_idle_timeout(PATH_SILENCE_MAX)
        // iroh keeps every path warm by itself, every 5 s, and that cannot be turned
        // off; a second keep-alive for the whole connection would only double it.
        .keep_alive_interval(SILENCE_MAX * 2)
        .build()
}

/// Opens a connection to a node at any of `addresses`, or by way of other nodes, within
/// [`HANDSHAKE_MAX`].
///
/// The TLS handshake proves that the other end holds the key of `peer`; `None` when
/// nobody at these addresses does, or they speak another protocol or overlay.
pub(super) async fn connect(
    shared: &Shared,
    peer: NodeId,
    addresses: Vec<SocketAddr>,
) -> Option<Connection> {
    let carried = shared.transport.address(peer);
    let targets = targets(shared, addresses).chain([carried]).collect();
    connect_at(shared, peer, targets).await
}

/// Opens a connection to a node at any of `addresses`, not by way of other nodes, as [`connect`] does.
pub(super) async fn connect_straight(
    shared: &Shared,
    peer: NodeId,
    addresses: Vec<SocketAddr>,
) -> Option<Connection> {
    let targets = targets(shared, addresses).collect();
    connect_at(shared, peer, targets).await
}

fn targets(shared: &Shared, addresses: Vec<SocketAddr>) -> impl Iterator<Item = TransportAddr> {
    let sockets = addresses.into_iter().flat_map(|at| shared.places(at));
    sockets.map(TransportAddr::Ip)
}

async fn connect_at(
    shared: &Shared,
    peer: NodeId,
    targets: Vec<TransportAddr>,
) -> Option<Connection> {
    let key = PublicKey::from_bytes(peer.as_bytes()).ok()?;
    let target = EndpointAddr::from_parts(key, targets);
    let options = ConnectOptions::new().with_additional_alpns(vec![addressee(&peer)]);
    let connecting = async {
        let mut endpoints = shared.endpoint.subscribe();
        loop {
            let Some(endpoint) = endpoints.borrow_and_update().clone() else {
                // Cannot fail: the sender is part of what the caller holds.
                let _ = endpoints.changed().await;
                continue;
            };
            let (target, options) = (target.clone(), options.clone());
            let dial = endpoint.connect_with_opts(target, &shared.protocol, options);
            let connected = async { Ok::<_, ConnectError>(dial.await?.await?) };
            match connected.await {
                Err(error) if is_end_of_endpoint(&error) || has_changed(&endpoints) => {
                    let _ = endpoints.changed().await;
                }
                connected => return connected,
            }
        }
    };
    match tokio::time::timeout(HANDSHAKE_MAX, connecting).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(error)) => {
            debug!(peer = %peer.short(), %error, "dial failed");
            None
        }
        Err(_) => {
            debug!(peer = %peer.short(), "dial timed out");
            None
        }
    }
}

/// Tells whether another endpoint is in use, or none for now, since it was looked at.
fn has_changed(endpoints: &watch::Receiver<Option<Endpoint>>) -> bool {
    endpoints.has_changed().unwrap_or(false)
}

/// Tells whether a dial failed because its endpoint is dead, and another one will take its place.
fn is_end_of_endpoint(error: &ConnectError) -> bool {
    let ConnectError::Connect { source, .. } = error else {
        return false;
    };
    match source {
        ConnectWithOptsError::EndpointClosed { .. } => true,
        ConnectWithOptsError::Noq { source, .. } => *source == QuicConnectError::EndpointStopping,
        _ => false,
    }
}

/// Accepts connections until the endpoint is closed, or dead.
pub(super) async fn accept(shared: &Arc<Shared>, endpoint: &Endpoint) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    while let Some(incoming) = endpoint.accept().await {
        if is_for_another(&incoming, &shared.me()) {
            incoming.ignore();
            continue;
        }
        let permit = Arc::clone(&handshakes).try_acquire_owned().ok();
        let full = lock(&shared.table).lines() >= SESSIONS_MAX - SESSIONS_RESERVED;
        let (Some(permit), false) = (permit, full) else {
            shared.counters.sessions_refused();
            incoming.refuse();
            continue;
        };
        let busy = handshakes.available_permits() < HANDSHAKES_MAX / 2;
        if busy && !incoming.remote_addr_validated() {
            // Cannot fail: only an address that proved itself is not asked again.
            let _ = incoming.retry();
            continue;
        }
        let task = handshake(Arc::clone(shared), incoming, permit);
        shared.tasks.spawn(task);
    }
}

async fn handshake(shared: Arc<Shared>, incoming: Incoming, permit: OwnedSemaphorePermit) {
    let connection = match tokio::time::timeout(HANDSHAKE_MAX, incoming.into_future()).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return debug!(%error, "handshake failed"),
        Err(_) => return debug!("handshake timed out"),
    };
    drop(permit);
    let peer = NodeId::from_bytes(*connection.remote_id().as_bytes());
    let span = debug_span!("session", peer = %peer.short());
    connection::run(shared, connection, peer, peer)
        .instrument(span)
        .await;
}
