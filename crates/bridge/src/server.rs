//! The server's shell: a role that takes a listener, around [`Far`].
//!
//! One task holds all sessions; connections are tasks of their own (`asked.rs`). Whoever asks for something else
//! than the bridge gets 404, whatever it is; 413 where its body has no room, and 503 where a stream has none.

mod asked;
mod places;
mod reply;
mod stuck;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::body::counted;
use crate::exchange::{AskId, Far, FarInput, FarOutput, Limits, SessionId, network};
use crate::way::ReplyCoding;
use asked::{Asked, Shared};
use places::{Place, Places};
use reply::Body;
use stuck::Watched;

/// Connections in all.
const CONNECTIONS_MAX: usize = 2_048;

/// Datagrams, and sessions that came and went, that wait for who uses the bridge.
const CHANNEL_EVENTS: usize = 8_192;

/// Requests and packets that wait for the task that holds the sessions.
const CHANNEL_INPUTS: usize = 4_096;

/// How long the head of a request may take, and how long a connection may be idle.
const HEAD_WITHIN: Duration = Duration::from_secs(75);

/// How long a connection is used, and how long its last request may take then.
const CONNECTION_LIFE: Duration = Duration::from_secs(600);
const CONNECTION_END: Duration = Duration::from_secs(90);

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
        let (told, words) = mpsc::unbounded_channel();
        let holder = Holder {
            far: Far::new(limits, crate::seed()),
            began: Instant::now(),
            answers: BTreeMap::new(),
            streams: BTreeMap::new(),
            told: told.clone(),
            given,
        };
        let holder = tokio::spawn(holder.run(taken, asks, words));
        let server = tokio::spawn(take(streams, asked, told));
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

/// The task that holds the sessions.
struct Holder {
    far: Far,
    began: Instant,
    answers: BTreeMap<AskId, oneshot::Sender<(ReplyCoding, Body)>>,
    /// Replies of which more comes.
    streams: BTreeMap<AskId, mpsc::UnboundedSender<Bytes>>,
    /// Takes word of what was written, and who has gone.
    told: mpsc::UnboundedSender<FarInput>,
    given: mpsc::Sender<Event>,
}

impl Holder {
    async fn run(
        mut self,
        mut inputs: mpsc::Receiver<FarInput>,
        mut asks: mpsc::Receiver<Asked>,
        mut words: mpsc::UnboundedReceiver<FarInput>,
    ) {
        loop {
            let deadline = self.far.next_timeout().map(|time| self.began + time);
            // Kept until what came is worked off: who brings a stream waits for it.
            let mut _permit = None;
            let input = tokio::select! {
                Some(input) = inputs.recv() => input,
                Some(asked) = asks.recv() => {
                    if let FarInput::Asked { ask, .. } = asked.input
                        && let Some(answer) = asked.answer
                    {
                        // Word that who asked has gone may have come first, and comes once.
                        if answer.is_closed() {
                            continue;
                        }
                        self.answers.insert(ask, answer);
                    }
                    _permit = asked.permit;
                    asked.input
                }
                Some(word) = words.recv() => word,
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => FarInput::Timeout,
            };
            if let FarInput::Gone(ask) = input {
                self.answers.remove(&ask);
                self.streams.remove(&ask);
            }
            let outputs: Vec<FarOutput> = self.far.handle(self.began.elapsed(), input).collect();
            for output in outputs {
                if !self.effect(output).await {
                    return;
                }
            }
        }
    }

    /// Does what is wanted; `false` when nobody takes events any longer.
    async fn effect(&mut self, output: FarOutput) -> bool {
        let news = match output {
            FarOutput::Answer { ask, coding, body } => {
                let body = self.counted(ask, body);
                // Who asked may have gone.
                let answer = self.answers.remove(&ask);
                let _ = answer.map(|answer| answer.send((coding, Body::whole(body))));
                return true;
            }
            FarOutput::Part { ask, coding, body } => {
                let body = self.counted(ask, body);
                if let Some(answer) = self.answers.remove(&ask) {
                    let (parts, rest) = mpsc::unbounded_channel();
                    let reply = Body::parts(rest, ask, self.told.clone());
                    let _ = answer.send((coding, reply));
                    self.streams.insert(ask, parts);
                }
                let _ = self.streams.get(&ask).map(|parts| parts.send(body));
                return true;
            }
            FarOutput::End(ask) => {
                self.streams.remove(&ask);
                return true;
            }
            FarOutput::Datagram(session, packet) => {
                // Who does not keep up loses datagrams, as with any socket.
                let _ = self.given.try_send(Event::Datagram(session, packet));
                return true;
            }
            FarOutput::Opened(session, from) => Event::Opened(session, from),
            FarOutput::Closed(session) => Event::Closed(session),
        };
        self.given.send(news).await.is_ok()
    }

    fn counted(&self, ask: AskId, body: Bytes) -> Bytes {
        let word = FarInput::Written(ask, body.len());
        counted(body, self.told.clone(), word)
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
    told: mpsc::UnboundedSender<FarInput>,
) {
    let shared = Arc::new(Shared {
        asked,
        told,
        asks: AtomicU64::new(0),
    });
    let places = Places::default();
    let mut connections = JoinSet::new();
    while let Some((stream, from)) = streams.recv().await {
        while connections.try_join_next().is_some() {}
        let from = from.to_canonical();
        let Some(place) =
            Place::enter(&places, network(from)).filter(|_| connections.len() < CONNECTIONS_MAX)
        else {
            tracing::debug!("a connection too many");
            continue;
        };
        let shared = shared.clone();
        connections.spawn(serve(stream, from, shared, Arc::new(place)));
    }
    while connections.join_next().await.is_some() {}
}

async fn serve(stream: TcpStream, from: IpAddr, shared: Arc<Shared>, place: Arc<Place>) {
    // Small replies wait for nothing; where this fails they are only slower.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let (shared, place) = (shared.clone(), place.clone());
        async move { Ok::<_, Infallible>(shared.answer(request, from, &place).await) }
    });
    let (stream, stuck) = Watched::new(stream);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let serving = async {
        if timeout(CONNECTION_LIFE, connection.as_mut()).await.is_err() {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(CONNECTION_END, connection).await;
        }
    };
    tokio::select! {
        () = serving => {}
        // What nobody reads is not kept.
        () = stuck.for_long() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Frame, Kind, Token};

    #[tokio::test]
    async fn who_has_gone_before_is_not_asked_for_anything() {
        let (given, mut events) = mpsc::channel(8);
        let (told, words) = mpsc::unbounded_channel();
        let (asked, asks) = mpsc::channel(8);
        let (_inputs, inputs) = mpsc::channel(8);
        let holder = Holder {
            far: Far::new(Limits::default(), crate::seed()),
            began: Instant::now(),
            answers: BTreeMap::new(),
            streams: BTreeMap::new(),
            told,
            given,
        };
        let holder = tokio::spawn(holder.run(inputs, asks, words));
        let from = |last| IpAddr::from([192, 0, 2, last]);
        let open = Frame::new(Kind::Open, Token::default()).encode(0);
        let mut answers = Vec::new();
        for ask in [1, 2] {
            let (answer, answered) = oneshot::channel();
            // The first has gone.
            answers.extend((ask == 2).then_some(answered));
            let input = FarInput::Asked {
                ask: ask.into(),
                from: from(ask),
                octets: Ok(open.clone()),
            };
            let (answer, permit) = (Some(answer), None);
            let sent = asked.send(Asked {
                input,
                answer,
                permit,
            });
            assert!(sent.await.is_ok());
        }
        assert!(answers.remove(0).await.is_ok());
        let opened = events.try_recv().unwrap();
        assert_eq!(opened, Event::Opened(SessionId(0), from(2)));
        assert!(events.try_recv().is_err());
        holder.abort();
    }
}
