//! What a flood costs its sender and the one that is flooded: processor time per message, of the
//! thread that makes and sends it, and of the thread that takes it. Sender and victim are in this
//! process, on loopback, where the sender's thread also carries its datagrams into the victim's
//! socket. The daemon's limit of 1,000 messages a second is left out, so that all are taken.
//!
//!     floods
//!
//! prints one line of JSON; `cargo xtask bench floods` measures with it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc as blocking;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use bytes::Bytes;
use enishi_dataplane::engine::{Command, Engine, NetworkId, Note, Outside, PeerKey, SessionKeys};
use enishi_dataplane::sealed::{Cipher, DirectionKey, INDEX_MARK};
use enishi_host::session::{QUEUE_FRAMES_MAX, SessionConfig, SessionEvent, Sessions};
use enishi_overlay::{Contact, Keypair, Message, NodeId, OverlayId, Time};
use enishi_services::keys::Secret;
use enishi_services::service::ServiceId;
use enishi_services::vnet::wire::{Attach, VnetMessage};
use enishi_services::vnet::{self, ChannelId, ChannelSpec, Entry};
use enishi_services::{Command as NodeCommand, Config, Input, Node, Output};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// How many messages and datagrams are sent.
const MESSAGES: u64 = 50_000;
const DATAGRAMS: u64 = 400_000;
/// How many messages may be on their way: none is dropped on the sender's side.
const WINDOW: u64 = QUEUE_FRAMES_MAX as u64 / 2;
const DATAGRAMS_AT_ONCE: u64 = 64;
const DATAGRAM_BYTES: usize = 128;
/// How many channels the victim has, each of which a name may mean.
const CHANNELS: u8 = 16;
/// Seeds of keys.
const VICTIM: u8 = 1;
const MEMBER: u8 = 2;
const STRANGER: u8 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// Microseconds per message.
struct Cost {
    sender: f64,
    victim: f64,
}

fn main() -> anyhow::Result<()> {
    let costs = [
        ("forged_attach", attaches(STRANGER)?),
        ("member_attach", attaches(MEMBER)?),
        ("bad_index", datagrams(INDEX_MARK | 99)?),
        ("bad_seal", datagrams(INDEX)?),
    ];
    let figures = costs.into_iter().flat_map(|(flood, cost)| {
        let sides = [("sender", cost.sender), ("victim", cost.victim)];
        sides.map(|(side, us)| (format!("{flood}_{side}"), Value::from(us)))
    });
    println!("{}", Value::Object(figures.collect::<Map<_, _>>()));
    Ok(())
}

/// Returns the processor time of a thread until now, in microseconds.
fn cpu_us(thread: &str) -> anyhow::Result<f64> {
    let path = format!("/proc/{thread}/schedstat");
    let told = fs::read_to_string(&path).with_context(|| path.clone())?;
    let nanos: Option<f64> = told.split(' ').next().and_then(|word| word.parse().ok());
    Ok(nanos.with_context(|| format!("{path} cannot be read"))? / 1e3)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}

/// A node with its sessions, driven by the thread that has it.
struct Peer {
    node: Node,
    sessions: Sessions,
    events: mpsc::Receiver<SessionEvent>,
    started: Instant,
}

impl Peer {
    async fn start(seed: u8) -> anyhow::Result<Self> {
        let keypair = Keypair::from_seed(&[seed; 32]);
        let overlay = OverlayId::from_name("floods");
        let config = SessionConfig {
            keypair: keypair.clone(),
            overlay,
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            on_datagram: Arc::new(|_, _| {}),
            carry: Arc::new(enishi_host::session::NobodyCarries),
        };
        let (sessions, events) = Sessions::bind(config).await?;
        let config = Config {
            overlay: enishi_overlay::Config::new(overlay),
            addresses: sessions.addresses(),
            host_name: format!("host{seed}"),
            started_unix_s: 1_800_000_000,
        };
        Ok(Self {
            node: Node::new(keypair, config, [seed; 32]),
            sessions,
            events,
            started: Instant::now(),
        })
    }

    fn contact(&self) -> Contact {
        Contact::new(self.sessions.me(), self.sessions.addresses())
    }

    /// Hands the node an input and sends what it says; returns a wish to exchange packets that is
    /// among it.
    fn input(&mut self, input: Input) -> Option<Attach> {
        let now = Time::ZERO + self.started.elapsed();
        let mut wished = None;
        for output in self.node.handle(now, input) {
            match output {
                Output::Send { to, message } => {
                    wished = wished.or_else(|| wish(&message));
                    self.sessions.send_control(&to, message.encode().into());
                }
                Output::Dial(to) => self.sessions.dial(&to),
                Output::GiveUp(peer) => self.sessions.doubt(peer),
                Output::Drop(peer) => self.sessions.drop_session(peer),
                Output::Persist { .. } | Output::Remember(_) | Output::Event(_) => {}
            }
        }
        wished
    }

    fn command(&mut self, command: vnet::Command) -> Option<Attach> {
        self.input(Input::Command(NodeCommand::Vnet(command)))
    }

    fn open(&mut self, number: u8) -> anyhow::Result<()> {
        let spec = ChannelSpec {
            name: name(number),
            network: vnet::Network::new(Ipv4Addr::new(10, number, 0, 0), 16)?,
            secret: Secret::new([number; 32]),
            entry: Entry::Secret,
        };
        let address = None;
        self.command(vnet::Command::Open { spec, address });
        Ok(())
    }

    fn address(&self, number: u8) -> Option<IpAddr> {
        let (_, channel) = self.node.vnet().by_name(&name(number))?;
        channel.address().map(IpAddr::V4)
    }

    /// Takes what happens next; returns who sent a message, if somebody did, and a wish as
    /// [`Self::input`] does.
    async fn step(&mut self) -> (Option<NodeId>, Option<Attach>) {
        let now = Time::ZERO + self.started.elapsed();
        let due = self.node.next_timeout();
        let due = due.map_or(PATIENCE, |at| at.since(now));
        match timeout(due, self.events.recv()).await {
            Err(_) => (None, self.input(Input::Timeout)),
            Ok(Some(SessionEvent::Control { peer, frame })) => {
                let message = Message::decode(&frame).ok();
                let wished = message.and_then(|message| {
                    self.input(Input::Message {
                        from: peer,
                        message,
                    })
                });
                (Some(peer), wished)
            }
            Ok(_) => (None, None),
        }
    }
}

fn name(number: u8) -> String {
    format!("channel{number}")
}

fn wish(message: &Message) -> Option<Attach> {
    let Message::Direct { service, body } = message else {
        return None;
    };
    match VnetMessage::decode(body) {
        Some(VnetMessage::Attach(attach)) if *service == ServiceId::Vnet as u8 => Some(attach),
        _ => None,
    }
}

/// How far a flood is.
#[derive(Default)]
struct Flood {
    begun: AtomicBool,
    taken: AtomicU64,
}

impl Flood {
    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }
}

/// Floods a node with wishes to exchange packets: a member's, which has made one and sends it
/// again and again, or a stranger's, whose name means no channel.
fn attaches(sender: u8) -> anyhow::Result<Cost> {
    let flood = Arc::new(Flood::default());
    let (told, contact) = blocking::channel();
    let victim = thread::spawn({
        let flood = Arc::clone(&flood);
        move || runtime()?.block_on(be_flooded(sender, &flood, &told))
    });
    let (to, there) = contact.recv_timeout(PATIENCE).context("no victim")?;
    let sender = runtime()?.block_on(send_flood(sender, &flood, &to, there))?;
    let victim = victim
        .join()
        .map_err(|_| anyhow!("the victim panicked"))??;
    Ok(Cost { sender, victim })
}

async fn be_flooded(
    sender: u8,
    flood: &Flood,
    told: &blocking::Sender<(Contact, IpAddr)>,
) -> anyhow::Result<f64> {
    let sender = Keypair::from_seed(&[sender; 32]).id();
    let mut victim = Peer::start(VICTIM).await?;
    (1..=CHANNELS).try_for_each(|number| victim.open(number))?;
    let there = loop {
        let addresses: Vec<_> = (1..=CHANNELS).map_while(|n| victim.address(n)).collect();
        match addresses.first() {
            Some(first) if addresses.len() == usize::from(CHANNELS) => break *first,
            _ => victim.step().await,
        };
    };
    told.send((victim.contact(), there))?;
    while !flood.begun.load(Ordering::Acquire) {
        let _ = timeout(Duration::from_millis(1), victim.step()).await;
    }
    let begin = cpu_us("thread-self")?;
    while flood.taken() < MESSAGES {
        let (from, _) = victim.step().await;
        flood
            .taken
            .fetch_add((from == Some(sender)).into(), Ordering::Release);
    }
    let end = cpu_us("thread-self")?;
    let refused = victim.node.vnet().flooded();
    ensure!(refused > MESSAGES / 2, "only {refused} were refused");
    Ok((end - begin) / MESSAGES as f64)
}

async fn send_flood(sender: u8, flood: &Flood, to: &Contact, there: IpAddr) -> anyhow::Result<f64> {
    let mut peer = Peer::start(MEMBER).await?;
    peer.input(Input::Bootstrap(vec![to.clone()]));
    peer.open(1)?;
    while peer.address(1).is_none() {
        peer.step().await;
    }
    let resolve = vnet::Command::Resolve {
        channel: ChannelId(1),
        address: there,
    };
    let mut wished = peer.command(resolve);
    let mut attach = loop {
        match wished {
            Some(attach) => break attach,
            None => wished = peer.step().await.1,
        }
    };
    if sender != MEMBER {
        attach.channel = [0; 16];
        peer = Peer::start(sender).await?;
    }
    let Peer {
        sessions,
        mut events,
        ..
    } = peer;
    let unread = tokio::spawn(async move { while events.recv().await.is_some() {} });
    let message = Message::Direct {
        service: ServiceId::Vnet as u8,
        body: VnetMessage::Attach(attach).encode().into(),
    };
    let frame = Bytes::from(message.encode());
    flood.begun.store(true, Ordering::Release);
    let begin = cpu_us("thread-self")?;
    let mut sent = 0;
    let patient_until = Instant::now() + PATIENCE;
    while flood.taken() < MESSAGES {
        ensure!(Instant::now() < patient_until, "messages were lost");
        // What the member said before the flood may have been taken as one of it.
        while sent < MESSAGES && sent < flood.taken() + WINDOW {
            sessions.send_control(to, frame.clone());
            sent += 1;
        }
        sleep(Duration::from_millis(1)).await;
    }
    let us = cpu_us("thread-self")? - begin;
    unread.abort();
    Ok(us / sent as f64)
}

const NETWORK: NetworkId = NetworkId(1);
/// What the engine calls its session.
const INDEX: u32 = INDEX_MARK | 7;

/// A host without lanes.
struct Alone;

impl Outside for Alone {
    fn note(&mut self, _: Note) {}

    fn lane_bytes_max(&mut self, _: &PeerKey) -> Option<usize> {
        None
    }

    fn send_by_lane(&mut self, _: &PeerKey, _: &[Bytes]) {}
}

/// Starts an engine with one session.
fn engine() -> anyhow::Result<Engine> {
    let engine = Engine::start(0, Alone)?;
    let [here, there] = [1, 2].map(|last| IpAddr::V4(Ipv4Addr::new(10, 88, 0, last)));
    engine.inbox().tell(Command::Open {
        network: NETWORK,
        device: None,
        prefixes: vec![enishi_dataplane::Network::new(here, 16)],
        addresses: vec![here],
    });
    engine.inbox().tell(Command::Attach {
        network: NETWORK,
        peer: [2; 32],
        addresses: vec![there],
        filter: None,
        keys: SessionKeys {
            cipher: Cipher::preferred(),
            send: DirectionKey::new([1; 32]),
            receive: DirectionKey::new([2; 32]),
            send_index: INDEX,
            receive_index: INDEX,
            peer_has_them: true,
            renew_after: Duration::from_secs(3600),
        },
        candidates: Vec::new(),
    });
    Ok(engine)
}

/// Floods an engine with datagrams of an index whose seal is not genuine.
fn datagrams(index: u32) -> anyhow::Result<Cost> {
    let engine = engine()?;
    let refused = || -> anyhow::Result<u64> {
        let (to, report) = blocking::sync_channel(1);
        engine.inbox().tell(Command::Report(to));
        Ok(report.recv_timeout(PATIENCE)?.refused)
    };
    refused()?;
    let thread = packets_thread()?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(("127.0.0.1", engine.port()))?;
    let mut datagram = [0x5a; DATAGRAM_BYTES];
    datagram[..4].copy_from_slice(&index.to_be_bytes());
    let (mut sender, victim) = (0.0, cpu_us(&thread)?);
    for round in 0..DATAGRAMS / DATAGRAMS_AT_ONCE {
        let begin = cpu_us("thread-self")?;
        for number in 0..DATAGRAMS_AT_ONCE {
            let counter = round * DATAGRAMS_AT_ONCE + number;
            datagram[4..12].copy_from_slice(&counter.to_be_bytes());
            socket.send(&datagram)?;
        }
        sender += cpu_us("thread-self")? - begin;
        thread::sleep(Duration::from_micros(200));
    }
    let victim = cpu_us(&thread)? - victim;
    let refused = refused()?;
    ensure!(refused > DATAGRAMS * 9 / 10, "only {refused} were refused");
    Ok(Cost {
        sender: sender / DATAGRAMS as f64,
        victim: victim / refused as f64,
    })
}

/// Returns where `/proc` tells of the engine's thread.
fn packets_thread() -> anyhow::Result<String> {
    for thread in fs::read_dir("/proc/self/task")? {
        let thread = thread?;
        if fs::read_to_string(thread.path().join("comm"))?.trim() == "packets" {
            let name = thread.file_name();
            return Ok(format!("self/task/{}", name.to_string_lossy()));
        }
    }
    bail!("no thread of an engine")
}
