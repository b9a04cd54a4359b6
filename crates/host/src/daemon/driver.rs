//! The loop: owns the node, hands it what happens, and its outputs on. Nothing here
//! decides anything or waits for anybody; it only dispatches.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use enishi_overlay::overlay::Manner;
use enishi_overlay::view::Entry;
use enishi_overlay::{Contact, Keypair, Message, NodeId, PathKind, Time};
use enishi_services::dht::{Caller, Confirmation, GetAnswer, Holding, PutAnswer};
use enishi_services::diag::wire::Found;
use enishi_services::{Command, Event, Input, Node, Output, admission, dht, diag, reach, vnet};
use enishi_stun::Ticket;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::desk::{Ask, Desk, Echo, Observed, Opened, Shared, Unheard};
use super::outbox::Outbox;
use super::rates::Rates;
use super::recorder::Recorder;
use super::servers::{by_both_families, reached_by};
use super::streams;
use crate::nat64;
use crate::packets::Note;
use crate::reach::Mapped;
use crate::session::{External, SessionEvent, Sessions};
use crate::store::{Outcome, Slot};

/// How many session events are worked off before other inputs have their turn.
const EVENTS_AT_ONCE: usize = 64;

/// With how many nodes that it does not know sessions are opened because another one calls.
const CALLED_RELAYS_MAX: usize = 2;

/// At how many of the addresses that a caller names, which nothing proves, it is let in at TURN servers.
const CALLED_PERMITS_MAX: usize = 2;

/// How long the last values and messages may take at the end.
const LAST_COMMIT_MAX: Duration = Duration::from_secs(2);

/// The node's time: microseconds since the start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn new(start: Instant) -> Self {
        Self(start)
    }

    pub(super) fn now(self) -> Time {
        let micros = self.0.elapsed().as_micros();
        Time::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    fn until(self, time: Time) -> Duration {
        time.since(self.now())
    }
}

/// Where everything comes in.
pub(super) struct Inlets {
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) sessions: mpsc::Receiver<SessionEvent>,
    pub(super) outcomes: mpsc::Receiver<Outcome>,
    pub(super) notes: mpsc::Receiver<Note>,
    pub(super) addresses: watch::Receiver<Vec<SocketAddr>>,
    /// The nodes that are not reached.
    pub(super) wanted: mpsc::Receiver<NodeId>,
    pub(super) mapped: watch::Receiver<Mapped>,
    /// Whether servers of others relay for this node, and where.
    pub(super) relayed: watch::Receiver<u64>,
    /// Which NAT64 there is.
    pub(super) nat64: watch::Receiver<Option<nat64::Known>>,
    pub(super) stop: CancellationToken,
}

/// Who waits for what the host itself asked of the node.
#[derive(Default)]
struct Waiting {
    next: u64,
    gets: BTreeMap<u64, oneshot::Sender<GetAnswer>>,
    puts: BTreeMap<u64, oneshot::Sender<PutAnswer>>,
    confirms: BTreeMap<u64, oneshot::Sender<Confirmation>>,
    pings: BTreeMap<u64, oneshot::Sender<Result<Echo, Unheard>>>,
    finds: BTreeMap<u64, oneshot::Sender<Option<Found>>>,
    locates: BTreeMap<u64, oneshot::Sender<Vec<Entry>>>,
    surveys: BTreeMap<u64, oneshot::Sender<Vec<Holding>>>,
    traces: BTreeMap<u64, mpsc::Sender<diag::Event>>,
}

/// The loop's state beside the node.
pub(super) struct Driver {
    clock: Clock,
    outbox: Outbox,
    recorder: Recorder,
    sessions: Sessions,
    events: broadcast::Sender<vnet::Event>,
    shared: Arc<Shared>,
    rates: Rates,
    waiting: Waiting,
    /// What the node was last told of the store.
    storage_works: bool,
}

impl Driver {
    pub(super) fn new(
        clock: Clock,
        outbox: Outbox,
        recorder: Recorder,
        sessions: Sessions,
        events: broadcast::Sender<vnet::Event>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            clock,
            outbox,
            recorder,
            sessions,
            events,
            shared,
            rates: Rates::default(),
            waiting: Waiting::default(),
            storage_works: true,
        }
    }

    /// Runs until it is told to stop; then takes leave and closes everything.
    pub(super) async fn run(mut self, mut node: Node, desk: Desk, mut inlets: Inlets) {
        let addresses = inlets.addresses.borrow_and_update().clone();
        if let Some(port) = self.shared.networks.port() {
            self.tell_reach(&mut node, reach::Command::Packets(port));
            let terms = self.shared.config.relay_terms();
            let rates = self.shared.config.relay_rates();
            self.shared.networks.set_relay_terms(terms, rates);
            self.tell_reach(&mut node, reach::Command::Terms(terms));
        }
        self.tell_ways(&mut node, &addresses);
        if self.shared.turn.uses_others() {
            inlets.relayed.mark_changed();
        }
        loop {
            let timeout = self.sleep(&node);
            tokio::select! {
                () = inlets.stop.cancelled() => break,
                outcome = inlets.outcomes.recv(), if !self.outbox.is_dead() => {
                    self.on_outcome(&mut node, outcome);
                }
                event = inlets.sessions.recv() => {
                    // Ends only with the sessions.
                    let Some(event) = event else { break };
                    self.on_session(&mut node, &desk, event);
                    for _ in 1..EVENTS_AT_ONCE {
                        let Ok(event) = inlets.sessions.try_recv() else { break };
                        self.on_session(&mut node, &desk, event);
                    }
                }
                Some(ask) = inlets.asks.recv() => self.on_ask(&mut node, ask),
                Some(note) = inlets.notes.recv() => {
                    self.on_note(&mut node, note, &inlets.addresses);
                }
                Some(peer) = inlets.wanted.recv() => {
                    tracing::debug!(?peer, "calling a node that is not reached");
                    self.handle(&mut node, Input::Command(Command::Reach(reach::Command::Call(peer))));
                }
                Ok(()) = inlets.addresses.changed() => {
                    let addresses = inlets.addresses.borrow_and_update().clone();
                    self.shared.networks.moved();
                    self.handle(&mut node, Input::Addresses(addresses.clone()));
                    if let Some(carrier) = &self.shared.carrier {
                        carrier.take_heart();
                    }
                    self.tell_ways(&mut node, &addresses);
                }
                Ok(()) = inlets.mapped.changed() => {
                    let mapped = inlets.mapped.borrow_and_update().clone();
                    self.shared.networks.set_mapped(mapped.packets);
                    self.tell_reach(&mut node, reach::Command::Mapped(mapped.packets));
                    self.tell_external(&node);
                    self.tell_ways(&mut node, &inlets.addresses.borrow());
                }
                Ok(()) = inlets.relayed.changed() => {
                    let seeks = self.shared.turn.uses_others();
                    self.tell_reach(&mut node, reach::Command::Seek(seeks));
                    self.tell_external(&node);
                }
                Ok(()) = inlets.nat64.changed() => {
                    self.follow_nat64(&mut node, &inlets.addresses);
                }
                () = timeout => self.handle(&mut node, Input::Timeout),
            }
        }
        self.stop(node, inlets).await;
    }

    /// There is another NAT64, or none: packets are tried by it, and servers asked. Whom the node looks for
    /// and may now be reached is asked at once.
    fn follow_nat64(&mut self, node: &mut Node, addresses: &watch::Receiver<Vec<SocketAddr>>) {
        self.shared.networks.follow_nat64();
        self.tell_ways(node, &addresses.borrow().clone());
        let servers = by_both(node, node.reach().servers(node.overlay()));
        self.shared.networks.ask_outside(&servers);
        let nat64 = *self.sessions.watch_nat64().borrow();
        let reached = nat64.map_or_else(Vec::new, |known| reached_by(known.nat64(), node));
        if !reached.is_empty() {
            tracing::debug!(count = reached.len(), "asking whom the NAT64 may lead to");
            self.handle(node, Input::Bootstrap(reached));
        }
        if let Some(carrier) = &self.shared.carrier {
            carrier.take_heart();
        }
    }

    /// Tells the node which addresses are of this host, and where its packets are to be sent.
    fn tell_ways(&mut self, node: &mut Node, addresses: &[SocketAddr]) {
        let local = reach::Command::Local(self.sessions.local_addresses());
        self.handle(node, Input::Command(Command::Reach(local)));
        let ways = self.shared.networks.ways(addresses);
        self.handle(node, Input::Command(Command::Vnet(ways)));
    }

    /// Tells the sessions at which addresses others reach them from outside.
    fn tell_external(&self, node: &Node) {
        let mapped = self.shared.mapped.borrow().sessions;
        let observed = node.reach().observed().iter().copied();
        let relayed = self.shared.turn.relayed();
        self.sessions.set_external_addresses(External {
            told: mapped.into_iter().chain(observed).chain(relayed).collect(),
            tried: node.reach().tried().to_vec(),
        });
    }

    /// Hands the node what happened and carries out what it wants.
    pub(super) fn handle(&mut self, node: &mut Node, input: Input) {
        let now = self.clock.now();
        self.outbox.begin(now);
        self.recorder.begin(now, &input);
        for output in node.handle(now, input) {
            self.recorder.output(&output);
            match output {
                Output::Persist {
                    service,
                    key,
                    value,
                } => {
                    let service = service as u8;
                    self.outbox.persist(Slot::Value { service, key }, value);
                }
                Output::Remember(contacts) => {
                    let octets = postcard::to_stdvec(&contacts).ok();
                    // Without room: the next change brings them again.
                    let _ = self.outbox.keep(Slot::Contacts, octets);
                }
                Output::Send { to, message } => {
                    // Of messages nothing is logged: some bring keys.
                    tracing::trace!(?to, "sending");
                    self.outbox.send(to, &message);
                }
                Output::Dial(contact) => self.outbox.dial(contact),
                // It waits for some seconds anyway, and so for no message before it.
                Output::GiveUp(peer) => self.sessions.doubt(peer),
                Output::Drop(peer) => self.outbox.end_session(peer),
                Output::Event(event) => self.outbox.tell(event),
            }
        }
        self.recorder.finish(node.next_timeout());
        self.outbox.flush(now);
        self.follow_outbox(node);
    }

    /// What became of a commit; none when the store is gone.
    fn on_outcome(&mut self, node: &mut Node, outcome: Option<Outcome>) {
        match outcome {
            Some(outcome) => self.outbox.committed(self.clock.now(), outcome),
            None => self.outbox.died(),
        }
        self.follow_outbox(node);
    }

    /// Tells the events whose time has come, lets the messages go that follow them, and tells
    /// the node when the store begins or ceases to work.
    fn follow_outbox(&mut self, node: &mut Node) {
        for event in self.outbox.ready() {
            self.on_event(node, event);
        }
        self.outbox.leave();
        let works = self.outbox.works();
        if works != self.storage_works {
            self.storage_works = works;
            self.handle(node, Input::Storage { works });
        }
    }

    fn on_session(&mut self, node: &mut Node, desk: &Desk, event: SessionEvent) {
        match event {
            SessionEvent::Opened { peer, .. } => {
                tracing::debug!(?peer, "session open");
                if let Some(session) = self.sessions.session(peer) {
                    self.note_path(node, peer, session.kind, session.address);
                }
            }
            SessionEvent::Control { peer, frame } => self.on_frame(node, peer, &frame),
            SessionEvent::Bulk {
                peer,
                reader,
                writer,
            } => {
                streams::accept(desk, node, peer, (reader, writer));
            }
            SessionEvent::Closed { peer } => {
                tracing::debug!(?peer, "session closed");
                self.handle(node, Input::Closed(peer));
            }
            SessionEvent::Restarted { peer } => {
                tracing::debug!(?peer, "the peer was restarted");
                let restarted = vnet::Command::Restarted(peer);
                self.handle(node, Input::Command(Command::Vnet(restarted)));
                let restarted = reach::Command::Restarted(peer);
                self.handle(node, Input::Command(Command::Reach(restarted)));
            }
            SessionEvent::Unreachable { peer } => self.handle(node, Input::Unreachable(peer)),
        }
    }

    /// Tells the node of a path that it does not know.
    fn note_path(
        &mut self,
        node: &mut Node,
        peer: NodeId,
        kind: PathKind,
        address: Option<SocketAddr>,
    ) {
        // Who is seen by way of the NAT64 is where it says that it is, as far as that one is told the truth.
        let native = address.map(|at| self.sessions.native(at));
        let (address, is_hearsay) = (native.map(|it| it.0), native.is_some_and(|it| it.1));
        if node.reach().is_hearsay(peer) != is_hearsay {
            self.tell_reach(node, reach::Command::Hearsay(peer, is_hearsay));
        }
        if node.overlay().path(peer) != (kind, address) {
            let path = Input::Path {
                peer,
                kind,
                address,
            };
            self.handle(node, path);
        }
    }

    fn observe(&mut self, node: &mut Node, observed: Observed) {
        for (peer, kind, address) in observed.paths {
            self.note_path(node, peer, kind, address);
        }
        if let Some(load_per_mille) = observed.load_per_mille {
            self.handle(node, Input::Load(load_per_mille));
        }
    }

    fn on_frame(&mut self, node: &mut Node, from: NodeId, frame: &Bytes) {
        if !self.rates.take(from, self.clock.now()) {
            self.shared.flooded_messages.fetch_add(1, Relaxed);
            return;
        }
        match Message::decode(frame) {
            Ok(message) => {
                tracing::trace!(?from, "received");
                self.handle(node, Input::Message { from, message });
            }
            Err(error) => {
                tracing::debug!(?from, %error, "a message was refused");
                self.shared.malformed_messages.fetch_add(1, Relaxed);
            }
        }
    }

    fn on_ask(&mut self, node: &mut Node, ask: Ask) {
        let command = match ask {
            Ask::Look(look) => return look(node),
            Ask::Observe(observed) => return self.observe(node, observed),
            Ask::Bootstrap(contacts) => return self.handle(node, Input::Bootstrap(contacts)),
            Ask::Measured(measure) => return self.handle(node, Input::Measured(measure)),
            Ask::Open(spec, address, reply) => {
                let opened = match node.vnet().by_name(&spec.name) {
                    Some((id, channel)) if is_same(channel, &spec) => Opened::Before(id),
                    Some(_) => Opened::Conflict,
                    None => {
                        let name = spec.name.clone();
                        let open = vnet::Command::Open { spec, address };
                        self.handle(node, Input::Command(Command::Vnet(open)));
                        let found = node.vnet().by_name(&name);
                        found.map_or(Opened::TooMany, |(id, _)| Opened::New(id))
                    }
                };
                // Whoever asked may be gone; the channel is open all the same.
                let _ = reply.send(opened);
                return;
            }
            Ask::Get(key, consistency, reply) => {
                let id = self.waiting.number();
                self.waiting.gets.insert(id, reply);
                let caller = Caller::Host(id);
                Command::Dht(dht::Command::Get {
                    caller,
                    key,
                    consistency,
                })
            }
            Ask::Put(request, reply) => {
                let id = self.waiting.number();
                self.waiting.puts.insert(id, reply);
                let caller = Caller::Host(id);
                Command::Dht(dht::Command::Put { caller, request })
            }
            Ask::Confirm(subject, paths, reply) => {
                let id = self.waiting.number();
                self.waiting.confirms.insert(id, reply);
                let caller = Caller::Host(id);
                Command::Dht(dht::Command::Confirm {
                    caller,
                    subject,
                    paths,
                })
            }
            Ask::Ping(target, timeout, reply) => {
                let id = self.waiting.number();
                self.waiting.pings.insert(id, reply);
                Command::Diag(diag::Command::Ping {
                    id,
                    target,
                    timeout,
                })
            }
            Ask::FindMe(stranger, timeout, reply) => {
                let id = self.waiting.number();
                self.waiting.finds.insert(id, reply);
                Command::Diag(diag::Command::FindMe {
                    id,
                    stranger,
                    timeout,
                })
            }
            Ask::Locate(target, reply) => {
                let id = self.waiting.number();
                self.waiting.locates.insert(id, reply);
                Command::Diag(diag::Command::Locate {
                    id,
                    target,
                    manner: Manner::EXACT,
                })
            }
            Ask::Survey(key, reply) => {
                let id = self.waiting.number();
                self.waiting.surveys.insert(id, reply);
                Command::Dht(dht::Command::Survey { id, key })
            }
            Ask::Trace(target, reply) => {
                let id = self.waiting.number();
                self.waiting.traces.insert(id, reply);
                Command::Diag(diag::Command::Trace { id, target })
            }
            Ask::Vnet(command) => Command::Vnet(command),
            Ask::Revoke(list) => Command::Admission(admission::Command::Revoke(list)),
        };
        self.handle(node, Input::Command(command));
    }

    fn on_note(
        &mut self,
        node: &mut Node,
        note: Note,
        addresses: &watch::Receiver<Vec<SocketAddr>>,
    ) {
        let command = match note {
            Note::Missing { channel, address } => vnet::Command::Resolve { channel, address },
            // The peer may be attached already, and only the tables not know it yet. The
            // next packet brings another note.
            Note::UnknownIndex { .. } if self.outbox.lags() => return,
            Note::UnknownIndex { from, index } => vnet::Command::UnknownIndex { from, index },
            Note::Many { .. } if self.outbox.lags() => return,
            Note::Many { channel, packet } => vnet::Command::Broadcast { channel, packet },
            Note::KeysWanted { channel, peer } => vnet::Command::Renew { channel, peer },
            Note::Seen { by, at, ticket } => {
                self.tell_reach(node, reach::Command::Told(by));
                if let Some(ticket) = ticket.map(Ticket::number) {
                    let at = at.ip();
                    self.tell_reach(node, reach::Command::Ticket { by, at, ticket });
                }
                if self.shared.networks.seen(by, at) {
                    let addresses = addresses.borrow().clone();
                    self.tell_ways(node, &addresses);
                }
                return;
            }
            Note::Wayless(peer, is_relayed) => {
                self.tell_reach(node, reach::Command::Punch(peer));
                let carrier = self.shared.carrier.as_ref();
                let by = carrier.map_or_else(Vec::new, |carrier| carrier.carry_to(peer));
                tracing::debug!(?peer, is_relayed, ?by, "packets find no way straight");
                let wayless = reach::Command::Wayless {
                    peer,
                    is_relayed,
                    by,
                };
                return self.tell_reach(node, wayless);
            }
            Note::RelayUnused(token) => {
                return self.tell_reach(node, reach::Command::Unused(token));
            }
            Note::Shown(peer, at) => {
                tracing::debug!(?peer, "a node has shown where it gets packets");
                return self.tell_reach(node, reach::Command::Shown(peer, at));
            }
            Note::Looked(peer, offer) => {
                tracing::debug!(?peer, ?offer, "how packets come out");
                return self.tell_reach(node, reach::Command::Looked(peer, offer));
            }
            Note::Punched(peer, is_through) => {
                tracing::debug!(?peer, is_through, "a punch has ended");
                return self.tell_reach(node, reach::Command::Punched(peer, is_through));
            }
            Note::Question { from, datagram } => {
                // Without room: whoever asks asks again.
                let questions = self.shared.questions.as_ref();
                let _ = questions.map(|questions| questions.try_send((from, datagram)));
                return;
            }
        };
        self.handle(node, Input::Command(Command::Vnet(command)));
    }

    fn tell_reach(&mut self, node: &mut Node, command: reach::Command) {
        self.handle(node, Input::Command(Command::Reach(command)));
    }

    fn on_event(&mut self, node: &Node, event: Event) {
        match event {
            Event::Joined => {
                tracing::info!("joined the overlay");
            }
            Event::Dht(event) => self.waiting.on_dht(event),
            Event::Diag(event) => self.waiting.on_diag(event),
            // The host takes part in no group itself.
            Event::Multicast(_) => {}
            Event::Reach(event) => self.on_reach(node, event),
            Event::Vnet(event) => {
                self.shared.networks.on_event(&event, node.vnet());
                if let Some(wireguard) = &self.shared.wireguard {
                    wireguard.on_event(&event, node.vnet());
                }
                // Nobody may be listening.
                let _ = self.events.send(event);
            }
        }
    }

    fn on_reach(&mut self, node: &Node, event: reach::Event) {
        match event {
            reach::Event::Observed(_) | reach::Event::Tried(_) => self.tell_external(node),
            // Anybody can call; who answers was asked.
            reach::Event::Called { by, relays } => {
                self.meet(&by, relays, (CALLED_RELAYS_MAX, CALLED_PERMITS_MAX));
            }
            reach::Event::Answered { contact, relays } => {
                let permits_max = contact.addresses().len();
                self.meet(&contact, relays, (reach::call::RELAYS_MAX, permits_max));
            }
            reach::Event::Sighted(peer, at) => {
                tracing::debug!(?peer, "others see whom this node is to meet");
                self.shared.turn.permit([at], 1);
            }
            reach::Event::Ask(servers) => {
                let servers = by_both(node, servers);
                self.shared.networks.ask_outside(&servers);
            }
            reach::Event::Shown { peer, at, ticket } => {
                self.shared.networks.show(peer, at, Ticket::new(ticket));
            }
            reach::Event::Look(peer) => {
                let shared = Arc::clone(&self.shared);
                let servers = by_both(node, node.reach().servers(node.overlay()));
                tokio::spawn(async move { shared.networks.look(peer, &servers).await });
            }
            reach::Event::Relay { token, keys, lasts } => {
                tracing::debug!("relaying packets between two others");
                self.shared.networks.relay(token, &keys, lasts);
            }
            reach::Event::RelayEnds(token) => {
                self.shared.networks.end_relay(token);
            }
            reach::Event::Relayed(relayed) => {
                self.shared.networks.by_relay(&relayed);
            }
            reach::Event::Punch { peer, plan } => {
                tracing::debug!(?peer, ?plan, "opening a way for packets");
                self.shared.networks.punch(peer, plan);
            }
        }
    }

    /// Dials a node that dials this one at the same time, and uses those who may carry to it: opens
    /// sessions with so many that are new, and lets it in at so many of its addresses.
    fn meet(&self, node: &Contact, relays: Vec<Contact>, (new_max, permits_max): (usize, usize)) {
        tracing::debug!(?node, relays = relays.len(), "dialling at the same time");
        let addresses = node.addresses().iter().map(SocketAddr::ip);
        self.shared.turn.permit(addresses, permits_max);
        self.sessions.dial(node);
        if let Some(carrier) = &self.shared.carrier {
            carrier.learn(node.id(), relays, new_max);
        }
    }

    /// Sleeps until the node's or the outbox's deadline.
    fn sleep(&self, node: &Node) -> impl Future<Output = ()> + use<> {
        let deadlines = [node.next_timeout(), self.outbox.next_timeout()];
        let wait = deadlines.into_iter().flatten().min();
        let wait = wait.map(|at| self.clock.until(at));
        async move {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        }
    }

    async fn stop(mut self, mut node: Node, mut inlets: Inlets) {
        self.handle(&mut node, Input::Leave);
        if let Some(wireguard) = &self.shared.wireguard {
            wireguard.close();
        }
        self.shared.networks.close();
        self.recorder.close().await;
        let settle = async {
            while !self.outbox.is_settled() {
                let Some(outcome) = inlets.outcomes.recv().await else {
                    return;
                };
                // Nobody is told any more.
                self.outbox.committed(self.clock.now(), outcome);
                self.outbox.leave();
            }
        };
        if tokio::time::timeout(LAST_COMMIT_MAX, settle).await.is_err() {
            tracing::warn!("the last changes may not be on disk");
        }
        // The events of the closing have to go somewhere.
        tokio::spawn(async move { while inlets.sessions.recv().await.is_some() {} });
        self.sessions.close().await;
        inlets.outcomes.close();
        self.outbox.close();
    }
}

/// Returns the same nodes, each by both versions of IP if it says that it has both.
fn by_both(node: &Node, servers: Vec<(NodeId, SocketAddr)>) -> Vec<(NodeId, SocketAddr)> {
    let peer = |id| node.overlay().peer(id);
    let contact_of = |id| Some(peer(id)?.contact().clone());
    by_both_families(contact_of, servers)
}

impl Waiting {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    // Whoever does not wait any more has gone; the answers are for nobody then.

    fn on_dht(&mut self, event: dht::Event) {
        match event {
            dht::Event::Got {
                caller: Caller::Host(id),
                answer,
            } => {
                let _ = self.gets.remove(&id).map(|reply| reply.send(answer));
            }
            dht::Event::PutDone {
                caller: Caller::Host(id),
                answer,
            } => {
                let _ = self.puts.remove(&id).map(|reply| reply.send(answer));
            }
            dht::Event::Surveyed { id, holdings } => {
                let _ = self.surveys.remove(&id).map(|reply| reply.send(holdings));
            }
            dht::Event::Confirmed {
                caller: Caller::Host(id),
                confirmation,
            } => {
                let reply = self.confirms.remove(&id);
                let _ = reply.map(|reply| reply.send(confirmation));
            }
            dht::Event::Got { .. } | dht::Event::PutDone { .. } | dht::Event::Confirmed { .. } => {}
        }
    }

    fn on_diag(&mut self, event: diag::Event) {
        match event {
            diag::Event::Pong {
                id,
                round_trip,
                detail,
            } => {
                let echo = Echo { round_trip, detail };
                let _ = self.pings.remove(&id).map(|reply| reply.send(Ok(echo)));
            }
            diag::Event::Located { id, nodes, .. } => {
                let _ = self.locates.remove(&id).map(|reply| reply.send(nodes));
            }
            diag::Event::FoundMe { id, found } => {
                let _ = self.finds.remove(&id).map(|reply| reply.send(found));
            }
            diag::Event::Lost { id } => {
                let reply = self.pings.remove(&id);
                let _ = reply.map(|reply| reply.send(Err(Unheard::Lost)));
            }
            diag::Event::Unknown { id } => {
                let reply = self.pings.remove(&id);
                let _ = reply.map(|reply| reply.send(Err(Unheard::Unknown)));
            }
            diag::Event::Hop { id, .. } => {
                if let Some(reply) = self.traces.get(&id) {
                    let _ = reply.try_send(event);
                }
            }
            diag::Event::Traced { id, .. } => {
                if let Some(reply) = self.traces.remove(&id) {
                    let _ = reply.try_send(event);
                }
            }
        }
    }
}

fn is_same(channel: &vnet::Channel, spec: &vnet::ChannelSpec) -> bool {
    let is_same = match &spec.entry {
        vnet::Entry::Secret => channel.authority().is_none() && channel.secret() == &spec.secret,
        vnet::Entry::Founder(seed) => channel.authority() == Some(Keypair::from_seed(seed).id()),
        // Its secret may have changed meanwhile.
        vnet::Entry::Invited(guest) => channel.authority() == Some(guest.authority),
    };
    is_same && channel.network() == spec.network
}
