//! The server's shell: a role that takes a listener, around [`Far`].
//!
//! One task holds all sessions; connections are tasks of their own. Whoever asks for something else
//! than the bridge gets 404, whatever it is.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, PRAGMA};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::exchange::{AskId, Far, FarInput, FarOutput, Limits, SessionId};
use crate::way::{Ask, BODY_BYTES_MAX, ReplyCoding};

/// Connections in all.
const CONNECTIONS_MAX: usize = 2_048;

/// Connections of one address: a proxy may stand for many.
const CONNECTIONS_PER_PLACE_MAX: usize = 256;

/// Datagrams, and sessions that came and went, that wait for who uses the bridge.
const CHANNEL_EVENTS: usize = 8_192;

/// Requests and packets that wait for the task that holds the sessions.
const CHANNEL_INPUTS: usize = 4_096;

/// How long the head of a request may take, and how long a connection may be idle.
const HEAD_WITHIN: Duration = Duration::from_secs(75);

/// How long the body of a request may take.
const BODY_WITHIN: Duration = Duration::from_secs(60);

/// How long a connection is used, and how long its last request may take then.
const CONNECTION_LIFE: Duration = Duration::from_secs(600);
const CONNECTION_END: Duration = Duration::from_secs(60);

/// The longest head of a request, in octets.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// The wait after the system could not accept a connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What happened to the sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is a new session; its connections come from this address, mostly a proxy.
    Opened(SessionId, IpAddr),
    /// A packet came.
    Datagram(SessionId, Bytes),
    /// A session has ended.
    Closed(SessionId),
}

/// A bridge. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    inputs: mpsc::Sender<FarInput>,
    events: mpsc::Receiver<Event>,
    tasks: [AbortHandle; 2],
}

/// Sends packets to sessions.
#[derive(Clone, Debug)]
pub struct Sender(mpsc::Sender<FarInput>);

impl Server {
    /// Serves whoever connects to `listener`. Needs a tokio runtime.
    ///
    /// Events must be taken: datagrams that find no room are dropped, and nothing is answered while
    /// the news of a session finds none.
    #[must_use]
    pub fn start(listener: TcpListener, limits: Limits) -> Self {
        let (given, streams) = mpsc::channel(1);
        tokio::spawn(accept(listener, given));
        Self::serve(streams, limits)
    }

    /// The same for connections that others accept, with the addresses of who opened them.
    #[must_use]
    pub fn serve(streams: mpsc::Receiver<(TcpStream, IpAddr)>, limits: Limits) -> Self {
        let (inputs, taken) = mpsc::channel(CHANNEL_INPUTS);
        let (given, events) = mpsc::channel(CHANNEL_EVENTS);
        let (asked, asks) = mpsc::channel(CHANNEL_INPUTS);
        let holder = tokio::spawn(hold(limits, taken, asks, given));
        let server = tokio::spawn(take(streams, asked, inputs.clone()));
        let tasks = [holder.abort_handle(), server.abort_handle()];
        Self {
            inputs,
            events,
            tasks,
        }
    }

    /// Waits for something to happen.
    pub async fn recv(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Returns what packets are sent with.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender(self.inputs.clone())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Sender {
    /// Sends a packet of at most [`crate::DATAGRAM_BYTES_MAX`] octets. Returns `false` when it was
    /// dropped at once, for want of room.
    pub fn send(&self, session: SessionId, packet: Bytes) -> bool {
        self.0.try_send(FarInput::Send(session, packet)).is_ok()
    }

    /// Ends a session.
    pub async fn close(&self, session: SessionId) {
        // When the task is gone, so is the session.
        let _ = self.0.send(FarInput::Close(session)).await;
    }
}

/// A request on its way to the sessions.
struct Asked {
    ask: AskId,
    from: IpAddr,
    octets: Result<Bytes, crate::frame::Damage>,
    answer: oneshot::Sender<(ReplyCoding, Bytes)>,
}

/// The task that holds the sessions.
async fn hold(
    limits: Limits,
    mut inputs: mpsc::Receiver<FarInput>,
    mut asks: mpsc::Receiver<Asked>,
    given: mpsc::Sender<Event>,
) {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("the system gives random octets");
    let mut far = Far::new(limits, seed);
    let began = Instant::now();
    let mut answers = BTreeMap::new();
    loop {
        let deadline = far.next_timeout().map(|time| began + time);
        let input = tokio::select! {
            Some(input) = inputs.recv() => input,
            Some(Asked { ask, from, octets, answer }) = asks.recv() => {
                answers.insert(ask, answer);
                FarInput::Asked { ask, from, octets }
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => FarInput::Timeout,
            else => return,
        };
        if let FarInput::Gone(ask) = input {
            answers.remove(&ask);
        }
        for output in far.handle(began.elapsed(), input) {
            let news = match output {
                FarOutput::Answer { ask, coding, body } => {
                    let answer: Option<oneshot::Sender<_>> = answers.remove(&ask);
                    // Who asked may have gone.
                    let _ = answer.map(|answer| answer.send((coding, body)));
                    continue;
                }
                FarOutput::Datagram(session, packet) => {
                    // Who does not keep up loses datagrams, as with any socket.
                    let _ = given.try_send(Event::Datagram(session, packet));
                    continue;
                }
                FarOutput::Opened(session, from) => Event::Opened(session, from),
                FarOutput::Closed(session) => Event::Closed(session),
            };
            if given.send(news).await.is_err() {
                return;
            }
        }
    }
}

/// The task that accepts connections, until nobody takes them.
async fn accept(listener: TcpListener, given: mpsc::Sender<(TcpStream, IpAddr)>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = given.closed() => return,
        };
        match accepted {
            Ok((stream, from)) => drop(given.send((stream, from.ip())).await),
            Err(_) => sleep(ACCEPT_AGAIN).await,
        }
    }
}

/// The task that serves connections.
async fn take(
    mut streams: mpsc::Receiver<(TcpStream, IpAddr)>,
    asked: mpsc::Sender<Asked>,
    inputs: mpsc::Sender<FarInput>,
) {
    let shared = Arc::new(Shared {
        asked,
        inputs,
        asks: AtomicU64::new(0),
    });
    let places = Arc::new(Mutex::new(BTreeMap::new()));
    let mut connections = JoinSet::new();
    while let Some((stream, from)) = streams.recv().await {
        while connections.try_join_next().is_some() {}
        let from = from.to_canonical();
        let Some(place) =
            Place::enter(&places, from).filter(|_| connections.len() < CONNECTIONS_MAX)
        else {
            tracing::debug!("a connection too many");
            continue;
        };
        let shared = shared.clone();
        connections.spawn(async move {
            let _place = place;
            serve(stream, from, shared).await;
        });
    }
    while connections.join_next().await.is_some() {}
}

/// A connection of an address.
struct Place {
    from: IpAddr,
    places: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

impl Place {
    fn enter(places: &Arc<Mutex<BTreeMap<IpAddr, usize>>>, from: IpAddr) -> Option<Self> {
        let mut counts = places.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(from).or_default();
        let enters = *count < CONNECTIONS_PER_PLACE_MAX;
        *count += usize::from(enters);
        enters.then(|| Self {
            from,
            places: places.clone(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.from);
            }
        }
    }
}

struct Shared {
    asked: mpsc::Sender<Asked>,
    inputs: mpsc::Sender<FarInput>,
    asks: AtomicU64,
}

async fn serve(stream: TcpStream, from: IpAddr, shared: Arc<Shared>) {
    // Small replies wait for nothing; where this fails they are only slower.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(shared.answer(request, from).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    if timeout(CONNECTION_LIFE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(CONNECTION_END, connection).await;
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>, from: IpAddr) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        if head.method != Method::GET && head.method != Method::POST {
            return not_found();
        }
        if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
            return not_found();
        }
        let path = head.uri.path();
        let body = timeout(BODY_WITHIN, Limited::new(body, BODY_BYTES_MAX).collect()).await;
        let Ok(Ok(body)) = body else {
            return not_found();
        };
        let Some(octets) = Ask::undress(path, &body.to_bytes()) else {
            return not_found();
        };
        let ask = self.asks.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let leave = Leave {
            ask,
            inputs: &self.inputs,
            answered: false,
        };
        if self
            .asked
            .send(Asked {
                ask,
                from,
                octets,
                answer,
            })
            .await
            .is_err()
        {
            return not_found();
        }
        let Ok((coding, body)) = answered.await else {
            return not_found();
        };
        leave.stay();
        let mut response = Response::new(Full::new(body));
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static(coding.content_type()),
        );
        headers.insert(
            CACHE_CONTROL,
            HeaderValue::from_static("no-store, no-cache"),
        );
        headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
        response
    }
}

/// Tells when whoever asked has gone before the answer.
struct Leave<'a> {
    ask: AskId,
    inputs: &'a mpsc::Sender<FarInput>,
    answered: bool,
}

impl Leave<'_> {
    fn stay(mut self) {
        self.answered = true;
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if !self.answered {
            // When there is no room the poll ends by itself, within seconds.
            let _ = self.inputs.try_send(FarInput::Gone(self.ask));
        }
    }
}

fn not_found() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"<h1>Not Found</h1>\n")));
    *response.status_mut() = StatusCode::NOT_FOUND;
    let html = HeaderValue::from_static("text/html");
    response.headers_mut().insert(CONTENT_TYPE, html);
    response
}
