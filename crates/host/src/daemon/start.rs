//! Starting a daemon: everything is opened, made and connected here, in order.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use enishi_dataplane::Layer;
use enishi_overlay::class::{Limit, Measure};
use enishi_overlay::{Contact, Keypair, OverlayId};
use enishi_services::Input;
use enishi_services::recording::Header;
use enishi_services::service::ServiceId;
use enishi_services::ticket::{Ticket, TicketError};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc};
use zeroize::Zeroizing;

use super::closed::Member;
use super::desk::{ASKS_MAX, Desk, EVENTS_MAX, Ending, Shared};
use super::driver::{Clock, Driver, Inlets};
use super::gateway::{Forwards, Proxies, ProxyError};
use super::measuring::Measuring;
use super::outbox::Outbox;
use super::recorder::{RecordError, Recorder, Target};
use super::turn::{self, Turn};
use super::upstream::Upstream;
use super::{Daemon, Options, bootstrap, control, dns, lifetime, upstream, vitals};
use crate::bootstrap::{Server, Source, is_server};
use crate::closed::ClosedError;
use crate::config::{Config, ConfigError, DeviceKind};
use crate::control::{Control, STREAMS_MAX};
use crate::data_dir::{DataDir, DataDirError};
use crate::dns::Shown;
use crate::nat64;
use crate::packets::{Discovery, Networks};
use crate::reach::link::{self, Linker};
use crate::reach::{Carrier, Mapping, is_carried};
use crate::session::{BindError, SessionConfig, SessionEvent, Sessions};
use crate::store::{Found, Store, StoreError, unix_s};
use crate::wireguard::WireGuard;

/// How many notes of the packet path wait for the loop; further ones are dropped.
const NOTES_MAX: usize = 256;

/// How many ports are drawn until one is free at all addresses.
const DRAWS_MAX: usize = 8;

/// How many requests wait for their tasks.
const CALLS_MAX: usize = 64;

/// After how long without an answer a person is told that nobody answers.
const BOOTSTRAP_PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks whether one has answered after all.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Why a daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An invitation to join by cannot be used.
    #[error("--bootstrap: {0}")]
    Ticket(String),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The membership in a closed overlay cannot be used.
    #[error(transparent)]
    Closed(#[from] ClosedError),
    /// The state cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The control socket cannot be made.
    #[error(transparent)]
    Control(#[from] crate::control::BindError),
    /// The node cannot listen.
    #[error(transparent)]
    Listen(#[from] BindError),
    /// A proxy cannot listen.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// Packets cannot be carried.
    #[error("no socket or thread for packets: {0}")]
    Packets(std::io::Error),
    /// The recording cannot be begun.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

impl StartError {
    /// Tells whether the program was used wrongly, rather than something being in the way.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Ticket(_))
    }
}

pub(super) async fn start(options: Options, mut config: Config) -> Result<Daemon, StartError> {
    if options.client {
        config.class = Limit::Client;
    }
    config.device = options.device.unwrap_or(config.device);
    config.socks = options.socks.or(config.socks);
    config.http_proxy = options.http_proxy.or(config.http_proxy);
    let data = DataDir::open(&options.data)?;
    let closed = Member::load(&data)?;
    let overlay = closed.as_ref().map_or_else(
        || OverlayId::from_name(&config.overlay),
        |member| member.card.membership.overlay(),
    );
    config.mdns = options.mdns.unwrap_or(config.mdns);
    let (mut invited, servers) = contacts_of(&options.bootstrap, overlay)?;
    config.bootstrap.extend(servers);
    let keypair = data.identity()?;
    let target = record_target(&options, &config)?;
    let with_devices = config.tun && !options.no_tun;
    crate::dns::repair(&data.path().join(dns::MARKER_NAME));
    let with_names = !options.no_dns && dns::is_wanted(config.dns, with_devices);
    let state = closed.as_ref().map(|member| member.state.clone());
    let (store, found, outcomes) = Store::open(state.as_deref().unwrap_or(data.path()))?;
    let control = Control::bind(data.path())?;
    let (notes, notes_inlet) = mpsc::channel(NOTES_MAX);
    let layer = with_devices.then_some(match config.device {
        DeviceKind::Tun => Layer::Ip,
        DeviceKind::Tap => Layer::Ethernet,
    });
    let discovery = Discovery::load(data.path())?;
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(StartError::Random)?;
    let networks = Arc::new(Networks::new(notes, layer, discovery, key));
    let proxies = Proxies::bind(&config).await?;
    let forwards = Forwards::load(data.path())?;
    let proxies_out = Upstream::load(&config, data.path())?;
    let listen = options
        .listen
        .map_or_else(|| config.listen.clone(), |address| vec![address]);
    let (carrier, carrier_inlet, wanted) = Carrier::new(config.relay.then(|| config.relay_rates()));
    let inlets = (&networks, &carrier);
    let (sessions, events) = listen_at(&data, &keypair, overlay, listen, inlets).await?;
    if let nat64::Source::Known(known) = config.nat64_prefix {
        sessions.set_nat64(Some(nat64::Known::Told(known)));
    }
    networks
        .start(sessions.clone())
        .map_err(StartError::Packets)?;

    let measuring = Measuring::start(data.path(), &keypair);
    let mut birth = birth(&keypair, overlay, &config, &sessions, measuring.measure())?;
    if let Some(member) = &closed {
        birth = birth.in_closed_overlay(member.card.membership.clone());
        invited.extend(member.card.contacts.iter().cloned());
    }
    let mut node = birth.node();
    let clock = Clock::new(Instant::now());
    let path = data.path().to_owned();
    let turn = Turn::start(&config, &path, &sessions, networks.port())?;
    let port = config.wireguard_port;
    let wireguard = WireGuard::new(Arc::clone(&networks), &keypair, &path, port)?;
    wireguard.start();
    let mut shared = Shared::new(keypair, overlay, config, path, networks);
    shared.closed = closed;
    shared.names = with_names.then(Shown::default);
    shared.forwards = forwards;
    shared.proxies = proxies.addresses();
    shared.upstream = proxies_out;
    shared.turn = turn;
    shared.wireguard = Some(wireguard);
    shared.carrier = Some(Arc::clone(&carrier));
    let (questions, questions_inlet) = mpsc::channel(bootstrap::QUESTIONS_MAX);
    shared.questions = Some(questions);
    let shared = Arc::new(shared);
    note_at_start(&shared, &found);
    shared.found_by.found(Source::Invitation, &invited);
    let earlier = postcard::from_bytes::<Vec<Contact>>(&found.contacts).unwrap_or_default();
    shared.found_by.found(Source::EarlierRuns, &earlier);
    invited.extend(earlier);
    let outbox = Outbox::new(store, sessions.clone(), Arc::clone(&shared));
    let recorder = Recorder::start(target, &birth, Arc::clone(&shared))?;
    // From here on the keys are the node's.
    drop(birth);
    let (asks, asks_inlet) = mpsc::channel(ASKS_MAX);
    let (events_out, _) = broadcast::channel(EVENTS_MAX);
    let ending = Ending::default();
    let desk = Desk::new(
        asks,
        events_out.clone(),
        sessions.clone(),
        Arc::clone(&shared),
        ending.clone(),
    );

    let mut driver = Driver::new(
        clock,
        outbox,
        recorder,
        sessions.clone(),
        events_out,
        Arc::clone(&shared),
    );
    let seeks = !invited.is_empty() || !shared.config.bootstrap.is_empty();
    for input in first_inputs(found, invited) {
        driver.handle(&mut node, input);
    }
    shared.networks.hold_exits(node.vnet());
    let inlets = Inlets {
        asks: asks_inlet,
        sessions: events,
        outcomes,
        notes: notes_inlet,
        addresses: sessions.watch_addresses(),
        wanted: wanted.calls,
        mapped: shared.mapped.subscribe(),
        relayed: shared.turn.changes(),
        nat64: sessions.watch_nat64(),
        stop: ending.stop.clone(),
    };
    let (calls, calls_inlet) = mpsc::channel(CALLS_MAX);
    let (streams, streams_inlet) = mpsc::channel(STREAMS_MAX);
    tokio::spawn(vitals::observe(desk.clone()));
    tokio::spawn(upstream::keep(desk.clone()));
    tokio::spawn(turn::keep(desk.clone()));
    tokio::spawn(lifetime::keep(desk.clone()));
    let stop = ending.stopped.clone();
    tokio::spawn(Arc::clone(&carrier).run(sessions.clone(), carrier_inlet, stop.clone()));
    let listeners = link_listeners(&shared, &sessions);
    tokio::spawn(Linker::run(
        shared.keypair.clone(),
        Arc::clone(&carrier),
        (
            sessions.clone(),
            Arc::clone(&shared.networks),
            shared.upstream.proxies.clone(),
        ),
        listeners,
        wanted.links,
        stop,
    ));
    if shared.config.nat64_prefix == nat64::Source::Auto {
        let stop = ending.stop.clone();
        tokio::spawn(nat64::discovery::keep(sessions.clone(), stop));
    }
    proxies.serve(&desk);
    desk.shared.forwards.start(&desk);
    tokio::spawn(control::attend(desk.clone(), calls_inlet, streams_inlet));
    tokio::spawn(measuring.run(desk.clone()));
    bootstrap::start(&desk, questions_inlet);
    if seeks {
        tokio::spawn(tell_if_alone(desk.clone()));
    }
    let driver = tokio::spawn(driver.run(node, desk.clone(), inlets));
    let mapping = mapping(&desk).map(tokio::spawn);
    let names = with_names.then(|| tokio::spawn(dns::serve(desk)));
    let stopped = ending.stopped.clone();
    Ok(Daemon {
        node_id: sessions.me(),
        control: data.path().join(enishi_api::SOCKET_NAME),
        driver,
        names,
        mapping,
        server: tokio::spawn(control.serve(calls, streams, stopped.cancelled_owned())),
        sessions,
        ending,
        _data: data,
    })
}

/// Listens for links, as the configuration says. A port that another program has is passed over, and
/// noticed.
fn link_listeners(shared: &Shared, sessions: &Sessions) -> Vec<TcpListener> {
    if !shared.config.links {
        return Vec::new();
    }
    let (listeners, failures) = link::bind(&sessions.listening(), &shared.config.web_ports);
    if !failures.is_empty() {
        let notice = format!(
            "nodes where no UDP passes cannot come in at {}: stop the program that has the port, or \
             name other `web_ports` in the configuration",
            failures.join("; ")
        );
        tracing::warn!("{notice}");
        shared.note("links", notice);
    }
    listeners
}

/// Has the router map the node's ports, if it is to and others could use them.
fn mapping(desk: &Desk) -> Option<impl Future<Output = ()> + use<>> {
    let outside = |address: &SocketAddr| address.is_ipv4() && !address.ip().is_loopback();
    let sessions = desk.sessions.listening().into_iter().find(outside)?;
    let packets = NonZeroU16::new(desk.shared.networks.port()?)?;
    let sessions = NonZeroU16::new(sessions.port())?;
    let (ports, external) = (
        [sessions, packets],
        desk.sessions.watch_external_addresses(),
    );
    let mapping = Mapping::new(ports, external, desk.shared.mapped.clone());
    let local = desk.sessions.watch_local_addresses();
    let stop = desk.ending.stop.clone();
    let is_wanted = desk.shared.config.port_mapping;
    is_wanted.then(|| mapping.keep(local, stop))
}

/// Reads the invitations to join by, and the nodes to ask.
fn contacts_of(
    tickets: &[String],
    overlay: OverlayId,
) -> Result<(Vec<Contact>, Vec<Server>), StartError> {
    let (mut contacts, mut servers) = (Vec::new(), Vec::new());
    for text in tickets {
        if is_server(text) {
            servers.push(text.parse().map_err(StartError::Ticket)?);
            continue;
        }
        let ticket: Ticket = text
            .parse()
            .map_err(|error: TicketError| StartError::Ticket(not_understood(&error)))?;
        if ticket.overlay != overlay {
            return Err(StartError::Ticket(
                "the invitation is for another overlay than the one of this node (`enishi \
                 overlay show`, or `overlay` in the configuration)"
                    .to_owned(),
            ));
        }
        if ticket.has_expired(unix_s()) {
            tracing::warn!("an invitation given with --bootstrap is past its time; trying anyway");
        }
        contacts.extend(ticket.contacts.iter().cloned());
    }
    Ok((contacts, servers))
}

fn not_understood(error: &TicketError) -> String {
    match error {
        TicketError::Foreign => {
            format!("{error}. A node to ask is named with its port, as boot.example.org:4242")
        }
        error => error.to_string(),
    }
}

/// Listens at the port of the last run if it is free, and keeps the port for the next.
async fn listen_at(
    data: &DataDir,
    keypair: &Keypair,
    overlay: OverlayId,
    listen: Vec<SocketAddr>,
    (networks, carrier): (&Arc<Networks>, &Arc<Carrier>),
) -> Result<(Sessions, mpsc::Receiver<SessionEvent>), BindError> {
    let bind = |listen: Vec<SocketAddr>| {
        let networks = Arc::clone(networks);
        let (carry, carrier) = (Arc::clone(carrier), Arc::clone(carrier));
        Sessions::bind(SessionConfig {
            keypair: keypair.clone(),
            overlay,
            listen,
            on_datagram: Arc::new(move |peer, datagram| match is_carried(&datagram) {
                true => carrier.on_datagram(peer, &datagram),
                false => networks.on_datagram(peer, &datagram),
            }),
            carry,
        })
    };
    // The ports of the last run, then one for all that is free, then any.
    let before = data.port().map(|port| with_port(&listen, port));
    let others = [at_one_port(&listen), listen];
    let mut tries: Vec<_> = before.into_iter().chain(others).collect();
    tries.dedup();
    let mut tries = tries.into_iter().peekable();
    let bound = loop {
        let listen = tries.next().unwrap_or_default();
        match bind(listen).await {
            Err(BindError::PortInUse { addresses }) if tries.peek().is_some() => {
                tracing::info!("{addresses} is in use; taking another port");
            }
            bound => break bound?,
        }
    };
    if let Some(address) = bound.0.listening().first()
        && let Err(error) = data.keep_port(address.port())
    {
        tracing::warn!(%error, "the port could not be kept for the next run");
    }
    Ok(bound)
}

/// Draws a port where several addresses are to have any: one port in a firewall is enough for all. It
/// is free at all of them, unless another program takes it in this moment.
fn at_one_port(listen: &[SocketAddr]) -> Vec<SocketAddr> {
    let any: Vec<&SocketAddr> = listen
        .iter()
        .filter(|address| address.port() == 0)
        .collect();
    let [first, others @ ..] = &any[..] else {
        return listen.to_vec();
    };
    let is_free = |at: SocketAddr| {
        let bound = UdpSocket::bind(at);
        // What this host does not have at all is free as well.
        bound.map_or_else(|error| error.kind() != io::ErrorKind::AddrInUse, |_| true)
    };
    let draw = || {
        let port = UdpSocket::bind(first).ok()?.local_addr().ok()?.port();
        let mut others = others.iter();
        let is_free = others.all(|other| is_free(SocketAddr::new(other.ip(), port)));
        is_free.then_some(port)
    };
    let drawn = (!others.is_empty()).then(|| (0..DRAWS_MAX).find_map(|_| draw()));
    drawn
        .flatten()
        .map_or_else(|| listen.to_vec(), |port| with_port(listen, port))
}

/// Puts a port in the place of port 0.
fn with_port(listen: &[SocketAddr], port: u16) -> Vec<SocketAddr> {
    let fill = |address: &SocketAddr| match address.port() {
        0 => SocketAddr::new(address.ip(), port),
        _ => *address,
    };
    listen.iter().map(fill).collect()
}

/// Opens the file to record into, if there is to be one.
fn record_target(options: &Options, config: &Config) -> Result<Option<Target>, RecordError> {
    let limit = options.record_limit.unwrap_or(config.record_limit);
    let path = options.record.as_ref().or(config.record.as_ref());
    path.map(|path| Target::open(path, limit.bytes()))
        .transpose()
}

/// All that the node is made of, so that a recording can begin with it.
fn birth(
    keypair: &Keypair,
    overlay: OverlayId,
    config: &Config,
    sessions: &Sessions,
    measure: Measure,
) -> Result<Header, StartError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(StartError::Random)?;
    let mut overlay = enishi_overlay::Config::new(overlay);
    overlay.reports_hops = config.reports_hops;
    overlay.policy = config.policy;
    overlay.trusted = config.trusted.iter().map(|trusted| trusted.0).collect();
    overlay.carried_per_minute = config.carried_per_minute;
    overlay.upkeep_bytes_per_s = config.upkeep_bytes_per_s;
    (overlay.class, overlay.measure) = (config.class, measure);
    let config = enishi_services::Config {
        overlay,
        addresses: sessions.addresses(),
        host_name: config.host_name(),
        started_unix_s: unix_s(),
    };
    Ok(Header::new(keypair, &config, &seed))
}

fn note_at_start(shared: &Shared, found: &Found) {
    if let Some(notice) = &found.notice {
        tracing::warn!("{notice}");
        shared.note("state file", notice.clone());
    }
    let named = &shared.config.overlay;
    if let Some(member) = &shared.closed
        && *named != Config::default().overlay
    {
        let notice = format!(
            "this node is in the closed overlay {}, so `overlay = \"{named}\"` in the \
             configuration has no effect. Delete that line, or take the node out of the closed \
             overlay with `enishi down` and `enishi overlay leave`",
            member.card.name
        );
        tracing::warn!("{notice}");
        shared.note("overlay", notice);
    }
}

/// What the node is told first. It hears of the other nodes before it takes up its
/// channels, so that it asks them for its addresses and not only itself; and whom it may
/// speak with before it hears of them.
fn first_inputs(found: Found, bootstrap: Vec<Contact>) -> Vec<Input> {
    let restored = found.values.into_iter().filter_map(|kept| {
        Some(Input::Restored {
            service: ServiceId::from_wire(kept.service)?,
            key: kept.key,
            value: kept.value,
            age_s: kept.age_s,
        })
    });
    let is_first = |input: &Input| {
        let first = [ServiceId::Admission, ServiceId::Dht];
        matches!(input, Input::Restored { service, .. } if first.contains(service))
    };
    let (first, others): (Vec<Input>, Vec<Input>) = restored.partition(is_first);
    let mut inputs = first;
    if !bootstrap.is_empty() {
        inputs.push(Input::Bootstrap(bootstrap));
    }
    inputs.extend(others);
    inputs
}

/// Tells a person when nobody answers.
async fn tell_if_alone(desk: Desk) {
    tokio::time::sleep(BOOTSTRAP_PATIENCE).await;
    let joined = desk.look(|node| !node.overlay().is_alone()).await;
    if matches!(joined, Ok(false)) {
        let notice = "none of the nodes to join by answers, by UDP, by TCP or through a proxy; \
                      check that one of them runs and its address (`enishi invite` on it), and what \
                      this network lets through (`enishi doctor net`). Where nothing but the web \
                      passes, one of them has to have `web_ports`. Still trying";
        tracing::warn!("{notice}");
        desk.shared.note("bootstrap", notice.to_owned());
        while matches!(desk.look(|node| node.overlay().is_alone()).await, Ok(true)) {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        desk.shared.unnote("bootstrap");
    }
}
