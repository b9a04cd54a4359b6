//! The client's shell: connections to a proxy, or straight to the bridge, around
//! [`Near`] and [`Probe`].
//!
//! One task holds the state, and one more each request that is under way. At most
//! [`CONNECTIONS_MAX`] connections are kept, each with one request at a time.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, PRAGMA, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, USER_AGENT,
};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use crate::auth::{Authenticator, Credentials};
use crate::exchange::{Answer, Answered, Failure, Figures, Near, NearInput, NearOutput, RequestId};
use crate::probe::{Outcome, Probe, ProbeInput, ProbeOutput, ProxyAuth};
use crate::way::{Ask, BODY_BYTES_MAX, Coding};
use crate::{CONNECTIONS_MAX, Time};

/// Packets that wait between a client and who uses it, each way.
const CHANNEL_PACKETS: usize = 2_048;

/// How long making a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(8);

/// So many kept connections in a row that ended in the proxy's hands show that it keeps none.
const ENDED_MAX: u32 = 3;

/// How often a proxy is asked the same with another answer to its 407.
const CHALLENGES_MAX: usize = 3;

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
    /// Host and port of the proxy. `None` goes straight to the bridge.
    pub proxy: Option<String>,
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

/// Whose request it was.
enum Asker {
    Near,
    Probe(u64),
}

type Done = (Asker, RequestId, Answered, ProxyAuth);

/// The task of a client.
struct Driver {
    settings: Settings,
    began: Instant,
    carrier: Arc<Carrier>,
    requests: JoinSet<Done>,
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
        Self {
            carrier: Arc::new(Carrier::new(&settings)),
            settings,
            began: Instant::now(),
            requests: JoinSet::new(),
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
        let rest = async {
            // Polls end when the server hears that the session is over.
            while self.requests.join_next().await.is_some() {}
        };
        let _ = timeout(FAREWELL, rest).await;
    }

    /// Waits for whatever comes next beside packets, and works it off. Loses nothing when it is
    /// given up while it waits.
    async fn turn(&mut self) {
        let deadline = self.deadline();
        tokio::select! {
            Some(done) = self.requests.join_next() => {
                if let Ok(done) = done {
                    self.done(done);
                }
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                let now = Instant::now();
                if self.probe_at.is_some_and(|at| at <= now) {
                    self.probe_now();
                }
                self.drive_probe(ProbeInput::Timeout);
                self.drive_near(NearInput::Timeout);
            }
            else => std::future::pending().await,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let near = self.near.as_ref().and_then(Near::next_timeout);
        let probe = self.probe.as_ref().and_then(Probe::next_timeout);
        let times = near.into_iter().chain(probe).map(|time| self.began + time);
        times.chain(self.probe_at).min()
    }

    fn done(&mut self, (asker, id, answered, auth): Done) {
        match asker {
            Asker::Near => self.drive_near(NearInput::Answered(id, answered)),
            Asker::Probe(probe) if probe == self.probes => {
                self.drive_probe(ProbeInput::Answered(id, answered, auth));
            }
            Asker::Probe(_) => {}
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
        self.probe = Some(Probe::new(seed()));
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
            None => self.near = Some(Near::new(way, seed())),
        }
        self.drive_near(NearInput::Timeout);
    }

    fn ask(&mut self, asker: Asker, id: RequestId, ask: Ask, within: Duration) {
        let carrier = self.carrier.clone();
        self.requests.spawn(async move {
            let (answered, auth) = carrier.ask(ask, within).await;
            (asker, id, answered, auth)
        });
    }

    fn now(&self) -> Time {
        self.began.elapsed()
    }
}

/// The connections of a client.
struct Carrier {
    /// Where connections lead.
    to: String,
    host: HeaderValue,
    /// What stands before paths; empty without a proxy.
    prefix: String,
    credentials: Option<Arc<Credentials>>,
    idle: Mutex<Vec<Connection>>,
    /// What was said to the proxy on connections that have ended: each nonce goes on with the next
    /// connection, so that a proxy which ends them after each reply need not ask each time.
    said: Mutex<Vec<Authenticator>>,
    /// Whether the proxy ever asked who asks.
    curious: AtomicBool,
    /// How many kept connections in a row were found to have ended.
    ended: AtomicU32,
    free: Semaphore,
}

struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    auth: Authenticator,
    driver: AbortHandle,
    /// Whether the last reply was cut, so that nothing can follow it.
    spent: bool,
    /// Whether something was answered on it.
    used: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Carrier {
    fn new(settings: &Settings) -> Self {
        let Settings {
            bridge,
            proxy,
            credentials,
            ..
        } = settings;
        let prefix = proxy.as_ref().map(|_| format!("http://{bridge}"));
        Self {
            to: proxy.as_ref().unwrap_or(bridge).clone(),
            // A host that is none makes requests that fail, which is told as such.
            host: HeaderValue::from_str(bridge).unwrap_or(HeaderValue::from_static("invalid")),
            prefix: prefix.unwrap_or_default(),
            credentials: credentials
                .clone()
                .filter(|_| proxy.is_some())
                .map(Arc::new),
            idle: Mutex::default(),
            said: Mutex::default(),
            curious: AtomicBool::new(false),
            ended: AtomicU32::new(0),
            free: Semaphore::new(CONNECTIONS_MAX),
        }
    }

    async fn ask(&self, ask: Ask, within: Duration) -> (Answered, ProxyAuth) {
        let mut auth = ProxyAuth::None;
        let asking = async {
            let _permit = self.free.acquire().await.map_err(|_| Failure::Broken)?;
            let kept = lock(&self.idle).pop();
            let mut connection = match kept.filter(Connection::is_open) {
                Some(connection) => connection,
                None => self.connect().await.map_err(|_| Failure::Connect)?,
            };
            // A proxy that asks may end the connection before it has read a long request, and its
            // question is lost: it is asked for with a short one.
            let curious = self.curious.load(Ordering::Relaxed);
            if curious && connection.auth.seen() == ProxyAuth::None && !ask.body.is_empty() {
                let short = Ask {
                    coding: Coding::Path,
                    body: Bytes::new(),
                    ..ask.clone()
                };
                connection.introduce(self, &short).await?;
            }
            let answer = connection.introduce(self, &ask).await;
            auth = connection.auth.seen();
            if auth != ProxyAuth::None {
                self.curious.store(true, Ordering::Relaxed);
            }
            self.keep(connection);
            answer
        };
        let answered = timeout(within, asking)
            .await
            .unwrap_or(Err(Failure::Silence));
        (answered, auth)
    }

    /// Keeps a connection for the next request, or what was said on it.
    fn keep(&self, mut connection: Connection) {
        let mut idle = lock(&self.idle);
        let (open, ended) = std::mem::take(&mut *idle)
            .into_iter()
            .partition(Connection::is_open);
        *idle = open;
        let mut ended: Vec<Connection> = ended;
        let keeps = self.ended.load(Ordering::Relaxed) < ENDED_MAX;
        if connection.is_open() && keeps && idle.len() < CONNECTIONS_MAX {
            idle.push(connection);
        } else {
            connection.spent = true;
            ended.push(connection);
        }
        let mut said = lock(&self.said);
        said.extend(ended.iter_mut().map(|connection| connection.auth.hand_on()));
        said.truncate(CONNECTIONS_MAX);
    }

    async fn connect(&self) -> io::Result<Connection> {
        let (sender, driver) = self.dial().await?;
        let said = lock(&self.said).pop();
        let auth = said.unwrap_or_else(|| Authenticator::new(self.credentials.clone()));
        Ok(Connection {
            sender,
            auth,
            driver,
            spent: false,
            used: false,
        })
    }

    async fn dial(&self) -> io::Result<(http1::SendRequest<Full<Bytes>>, AbortHandle)> {
        let stream = timeout(CONNECT_WITHIN, TcpStream::connect(&self.to)).await??;
        stream.set_nodelay(true)?;
        let handshake = http1::Builder::new().handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(io::Error::other)?;
        let driver = tokio::spawn(async move {
            // Its end is seen by the sender.
            let _ = connection.await;
        });
        Ok((sender, driver.abort_handle()))
    }
}

impl Connection {
    fn is_open(&self) -> bool {
        !self.sender.is_closed() && !self.spent
    }

    /// Makes the connection anew if it has ended, and keeps what is to be said to the proxy.
    async fn ready(&mut self, carrier: &Carrier) -> Result<(), Failure> {
        // A connection that has just ended is seen to have by waiting for it.
        if !self.is_open() || self.sender.ready().await.is_err() {
            self.driver.abort();
            let dialled = carrier.dial().await;
            (self.sender, self.driver) = dialled.map_err(|_| Failure::Connect)?;
            (self.spent, self.used) = (false, false);
        }
        Ok(())
    }

    /// Sends a request, and again as long as the proxy asks who asks and can be told.
    async fn introduce(&mut self, carrier: &Carrier, ask: &Ask) -> Answered {
        for _ in 0..CHALLENGES_MAX {
            self.ready(carrier).await?;
            let kept = self.used;
            let mut asked = self.ask(carrier, ask).await;
            if kept && asked == Err(Failure::Broken) {
                // The proxy ended the connection after the reply before, and did not say so. Who is
                // asked twice knows it by the number.
                carrier.ended.fetch_add(1, Ordering::Relaxed);
                self.spent = true;
                self.ready(carrier).await?;
                asked = self.ask(carrier, ask).await;
            } else if kept {
                carrier.ended.store(0, Ordering::Relaxed);
            }
            self.used = true;
            if let Some(answer) = asked? {
                return Ok(answer);
            }
        }
        Ok(Answer {
            status: 407,
            body: Bytes::new(),
        })
    }

    /// Sends a request. `None` when the proxy asked who asks, and can be told.
    async fn ask(&mut self, carrier: &Carrier, ask: &Ask) -> Result<Option<Answer>, Failure> {
        let method = if ask.coding.is_post() { "POST" } else { "GET" };
        let uri = format!("{}{}", carrier.prefix, ask.path);
        let mut request = Request::builder()
            .method(method)
            .uri(&uri)
            .header(HOST, &carrier.host)
            .header(USER_AGENT, ask.agent.text())
            .header(ACCEPT, "*/*")
            .header(CACHE_CONTROL, "no-cache, no-store")
            .header(PRAGMA, "no-cache");
        if let Some(content_type) = ask.coding.content_type() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let mut nonce = [0; 12];
        // Without randomness the number is a poor one, and the connection still works.
        let _ = getrandom::fill(&mut nonce);
        if let Some(header) = self.auth.header(method, &uri, nonce) {
            let value = HeaderValue::from_str(&header);
            let mut value = value.map_err(|_| Failure::Broken)?;
            value.set_sensitive(true);
            request = request.header(PROXY_AUTHORIZATION, value);
        }
        let request = request.body(Full::new(ask.body.clone()));
        let request = request.map_err(|_| Failure::Connect)?;
        let response = self.sender.send_request(request).await;
        let response = response.map_err(|_| Failure::Broken)?;
        self.read(response).await
    }

    async fn read(&mut self, response: Response<Incoming>) -> Result<Option<Answer>, Failure> {
        let (head, body) = response.into_parts();
        let status = head.status.as_u16();
        let challenges = head.headers.get_all(PROXY_AUTHENTICATE);
        let challenges = challenges.iter().filter_map(|value| value.to_str().ok());
        let again = status == 407 && self.auth.challenged(challenges);
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
        self.spent = body.is_err();
        if again {
            return Ok(None);
        }
        if status != 407 {
            self.auth.passed();
        }
        // A reply that was cut is no frame, and told as such; of a refusal the status is enough.
        let body = body.map(Collected::to_bytes).unwrap_or_default();
        Ok(Some(Answer { status, body }))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("the system gives random octets");
    seed
}
