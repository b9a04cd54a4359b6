//! The client's shell: connections to a proxy, or straight to the bridge, around
//! [`Near`] and [`Probe`].
//!
//! One task holds the state, and one more each request that is under way. At most
//! [`CONNECTIONS_MAX`](crate::CONNECTIONS_MAX) connections are kept, each with one request at a time.

mod carrier;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use crate::auth::Credentials;
use crate::body::counted;
use crate::dial::Proxy;
use crate::exchange::{Answered, Figures, Near, NearInput, NearOutput, RequestId};
use crate::patience::Patience;
use crate::probe::{Outcome, Probe, ProbeInput, ProbeOutput, ProxyAuth};
use crate::way::Ask;
use crate::{SLOW_BYTES_PER_S, Time};
use carrier::{Carrier, Job};

/// Packets that wait between a client and who uses it, each way.
const CHANNEL_PACKETS: usize = 2_048;

/// Frames of streams that wait to be read.
const CHANNEL_PARTS: usize = 8;

/// The wait before the next probe when nothing passed; it doubles up to a minute.
const PROBE_AGAIN: Duration = Duration::from_secs(5);
const PROBE_AGAIN_MAX: Duration = Duration::from_secs(60);

/// How long a client that is dropped goes on to tell the server.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where to, and by way of whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Host and port of the bridge, as the proxy can reach it.
    pub bridge: String,
    /// The proxy. `None` goes straight to the bridge.
    pub proxy: Option<Proxy>,
    /// Who asks, for proxies that want to know.
    pub credentials: Option<Credentials>,
    /// What was found the last time: then nothing is tried before it fails.
    pub remembered: Option<Outcome>,
}

/// How it stands.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Whether there is a session, as far as is known.
    pub open: bool,
    /// What passes, once that was found out.
    pub outcome: Option<Arc<Outcome>>,
    /// The longest datagram that passes upward, in octets.
    pub datagram_bytes_max: usize,
    /// What was seen so far.
    pub figures: Figures,
}

/// A session through a bridge. It ends when this is dropped.
#[derive(Debug)]
pub struct Client {
    packets: mpsc::Sender<Bytes>,
    received: mpsc::Receiver<Bytes>,
    state: watch::Receiver<State>,
}

impl Client {
    /// Begins to look for a way, and goes on as long as it lives. Needs a tokio runtime.
    #[must_use]
    pub fn start(settings: Settings) -> Self {
        let (packets, to_send) = mpsc::channel(CHANNEL_PACKETS);
        let (given, received) = mpsc::channel(CHANNEL_PACKETS);
        let (told, state) = watch::channel(State::default());
        tokio::spawn(Driver::new(settings, given, told).run(to_send));
        Self {
            packets,
            received,
            state,
        }
    }

    /// Sends a packet of at most [`crate::DATAGRAM_BYTES_MAX`] octets. Returns `false` when it was
    /// dropped at once, for want of room.
    pub fn send(&self, packet: Bytes) -> bool {
        self.packets.try_send(packet).is_ok()
    }

    /// Waits for a packet. `None` never comes as long as the runtime lives.
    pub async fn recv(&mut self) -> Option<Bytes> {
        self.received.recv().await
    }

    /// Returns how it stands, now and later. Nothing is carried while what it lends is held.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Takes the client apart, for two tasks. The session ends when the sender is dropped.
    #[must_use]
    pub fn split(
        self,
    ) -> (
        mpsc::Sender<Bytes>,
        mpsc::Receiver<Bytes>,
        watch::Receiver<State>,
    ) {
        (self.packets, self.received, self.state)
    }
}

/// Finds out what passes, without opening a session. Takes a minute at most.
pub async fn probe(settings: &Settings) -> Outcome {
    let (given, _) = mpsc::channel(1);
    let (told, state) = watch::channel(State::default());
    let settings = Settings {
        remembered: None,
        ..settings.clone()
    };
    let mut driver = Driver::new(settings, given, told);
    driver.probe_now();
    while driver.probe.is_some() {
        driver.turn().await;
    }
    state
        .borrow()
        .outcome
        .as_deref()
        .cloned()
        .unwrap_or_default()
}

/// Whose request it was: of the session, or of the probe with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asker {
    Near,
    Probe(u64),
}

type Key = (Asker, RequestId);

/// What came of a request.
#[derive(Debug)]
enum Came {
    /// The next frame of a stream.
    Part(Bytes),
    /// The end.
    Done(Answered, ProxyAuth),
}

/// A request of which more comes or goes.
struct Running {
    abort: AbortHandle,
    body: Option<mpsc::UnboundedSender<Bytes>>,
}

/// The task of a client.
struct Driver {
    settings: Settings,
    began: Instant,
    carrier: Arc<Carrier>,
    requests: JoinSet<()>,
    running: BTreeMap<Key, Running>,
    /// What comes of requests, in the order in which it came.
    given_back: mpsc::Sender<(Key, Came)>,
    came: mpsc::Receiver<(Key, Came)>,
    /// What was written of streams: no more than was handed on.
    wrote: mpsc::UnboundedSender<(RequestId, usize)>,
    written: mpsc::UnboundedReceiver<(RequestId, usize)>,
    near: Option<Near>,
    probe: Option<Probe>,
    /// Which probe it is: answers to the one before are nobody's.
    probes: u64,
    probe_at: Option<Instant>,
    probe_wait: Duration,
    given: mpsc::Sender<Bytes>,
    told: watch::Sender<State>,
}

impl Driver {
    fn new(settings: Settings, given: mpsc::Sender<Bytes>, told: watch::Sender<State>) -> Self {
        let (given_back, came) = mpsc::channel(CHANNEL_PARTS);
        let (wrote, written) = mpsc::unbounded_channel();
        Self {
            carrier: Arc::new(Carrier::new(&settings)),
            settings,
            began: Instant::now(),
            requests: JoinSet::new(),
            running: BTreeMap::new(),
            given_back,
            came,
            wrote,
            written,
            near: None,
            probe: None,
            probes: 0,
            probe_at: None,
            probe_wait: PROBE_AGAIN,
            given,
            told,
        }
    }

    async fn run(mut self, mut packets: mpsc::Receiver<Bytes>) {
        match self.settings.remembered.take() {
            Some(outcome) if outcome.way.is_some() => self.found(outcome),
            Some(_) | None => self.probe_now(),
        }
        loop {
            tokio::select! {
                packet = packets.recv() => match packet {
                    Some(packet) => {
                        self.send(packet);
                        while let Ok(packet) = packets.try_recv() {
                            self.send(packet);
                        }
                    }
                    None => break,
                },
                () = self.turn() => {}
            }
        }
        self.probe = None;
        self.drive_near(NearInput::Close);
        // Polls end when the server hears that the session is over; nobody waits for what they bring.
        self.came.close();
        let rest = async { while self.requests.join_next().await.is_some() {} };
        let _ = timeout(FAREWELL, rest).await;
    }

    /// Waits for whatever comes next beside packets, and works it off. Loses nothing when it is
    /// given up while it waits.
    async fn turn(&mut self) {
        let deadline = self.deadline();
        tokio::select! {
            Some((key, came)) = self.came.recv() => self.take(key, came),
            Some((id, bytes)) = self.written.recv() => self.drive_near(NearInput::Written(id, bytes)),
            Some(_) = self.requests.join_next() => {}
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                let now = Instant::now();
                if self.probe_at.is_some_and(|at| at <= now) {
                    self.probe_now();
                }
                self.drive_probe(ProbeInput::Timeout);
                self.drive_near(NearInput::Timeout);
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let near = self.near.as_ref().and_then(Near::next_timeout);
        let probe = self.probe.as_ref().and_then(Probe::next_timeout);
        let times = near.into_iter().chain(probe).map(|time| self.began + time);
        times.chain(self.probe_at).min()
    }

    fn take(&mut self, (asker, id): Key, came: Came) {
        let is_done = matches!(came, Came::Done(..));
        match (asker, came) {
            (Asker::Near, Came::Part(octets)) => self.drive_near(NearInput::Part(id, octets)),
            (Asker::Near, Came::Done(answered, _)) => {
                self.drive_near(NearInput::Answered(id, answered));
            }
            (Asker::Probe(probe), Came::Part(octets)) if probe == self.probes => {
                self.drive_probe(ProbeInput::Part(id, octets));
            }
            (Asker::Probe(probe), Came::Done(answered, auth)) if probe == self.probes => {
                self.drive_probe(ProbeInput::Answered(id, answered, auth));
            }
            (Asker::Probe(_), Came::Part(_) | Came::Done(..)) => {}
        }
        if is_done {
            self.running.remove(&(asker, id));
        }
    }

    fn send(&mut self, packet: Bytes) {
        self.drive_near(NearInput::Send(packet));
    }

    fn drive_near(&mut self, input: NearInput) {
        let now = self.now();
        let Some(near) = &mut self.near else {
            return;
        };
        let outputs: Vec<NearOutput> = near.handle(now, input).collect();
        let mut lost = false;
        for output in outputs {
            match output {
                NearOutput::Ask(id, ask, within) => self.ask(Asker::Near, id, ask, within),
                NearOutput::More(id, octets) => self.more(id, octets),
                NearOutput::Stop(id) => self.stop((Asker::Near, id)),
                // Who does not keep up loses datagrams, as with any socket.
                NearOutput::Datagram(packet) => drop(self.given.try_send(packet)),
                // The state tells it.
                NearOutput::Opened => {}
                NearOutput::Lost => lost = true,
            }
        }
        self.tell();
        if lost {
            tracing::debug!("the way of the bridge is lost");
            self.probe_now();
        }
    }

    /// Tells what changed of what can be asked for at any time.
    fn tell(&self) {
        let Some(near) = &self.near else {
            return;
        };
        self.told.send_if_modified(|state| {
            state.figures = near.figures();
            let now = (near.is_open(), near.datagram_bytes_max());
            let before = (state.open, state.datagram_bytes_max);
            (state.open, state.datagram_bytes_max) = now;
            now != before
        });
    }

    fn probe_now(&mut self) {
        self.probe_at = None;
        self.probes += 1;
        self.probe = Some(Probe::new(crate::seed()));
        self.drive_probe(ProbeInput::Timeout);
    }

    fn drive_probe(&mut self, input: ProbeInput) {
        let now = self.now();
        let Some(probe) = &mut self.probe else {
            return;
        };
        let outputs: Vec<ProbeOutput> = probe.handle(now, input).collect();
        for output in outputs {
            match output {
                ProbeOutput::Ask(id, ask, within) => {
                    self.ask(Asker::Probe(self.probes), id, ask, within);
                }
                ProbeOutput::Stop(id) => self.stop((Asker::Probe(self.probes), id)),
                ProbeOutput::Done(outcome) => {
                    self.probe = None;
                    self.found(*outcome);
                }
            }
        }
    }

    fn found(&mut self, outcome: Outcome) {
        let way = outcome.way;
        let outcome = Arc::new(outcome);
        self.told.send_modify(|state| state.outcome = Some(outcome));
        let Some(way) = way else {
            self.probe_at = Some(Instant::now() + self.probe_wait);
            self.probe_wait = PROBE_AGAIN_MAX.min(self.probe_wait * 2);
            return;
        };
        self.probe_wait = PROBE_AGAIN;
        match &mut self.near {
            Some(near) => near.resume(way),
            None => self.near = Some(Near::new(way, crate::seed())),
        }
        self.drive_near(NearInput::Timeout);
    }

    fn ask(&mut self, asker: Asker, id: RequestId, ask: Ask, within: Duration) {
        let carrier = self.carrier.clone();
        // Replies to probes have their time; those of a session are as long as there is to carry.
        let rate = matches!(asker, Asker::Near).then_some(SLOW_BYTES_PER_S);
        let patience = Patience::new(within, rate);
        let (to, key) = (self.given_back.clone(), (asker, id));
        let (body, poured) = match ask.length {
            Some(_) => {
                let (body, poured) = mpsc::unbounded_channel();
                (Some(body), Some(poured))
            }
            None => (None, None),
        };
        let runs = ask.streamed || body.is_some();
        let mut job = Job {
            parts: ask.streamed.then(|| (key, to.clone())),
            ask,
            poured,
        };
        let abort = self.requests.spawn(async move {
            let (answered, auth) = carrier.ask(&mut job, &patience).await;
            // Who asked may have gone.
            let _ = to.send((key, Came::Done(answered, auth))).await;
        });
        if runs {
            self.running.insert(key, Running { abort, body });
        }
    }

    /// Sends the next of a request's body; when the request is gone that is told in its place.
    fn more(&mut self, id: RequestId, octets: Bytes) {
        let running = self.running.get(&(Asker::Near, id));
        if let Some(body) = running.and_then(|running| running.body.as_ref()) {
            let word = (id, octets.len());
            let _ = body.send(counted(octets, self.wrote.clone(), word));
        }
    }

    fn stop(&mut self, key: Key) {
        if let Some(running) = self.running.remove(&key) {
            running.abort.abort();
        }
    }

    fn now(&self) -> Time {
        self.began.elapsed()
    }
}
