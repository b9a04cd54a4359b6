//! The control interface: HTTP/1.1 and JSON on a Unix socket in the data directory.
//!
//! ```text
//! POST /v1/call      a Request  →  Answers, one JSON object per line, as they come
//! POST /v1/stream    a StreamRequest with `Upgrade: enishi-stream`
//!                               →  101 and the bytes as [`records`], or a Failure
//! GET  /v1/status    the same as the requests Status, Peers and ChannelList,
//! GET  /v1/peers     for people with curl
//! GET  /v1/channels
//! ```
//!
//! This module knows nothing of the node. Each request becomes a [`Call`] or a
//! [`StreamCall`] in a queue that the host's loop reads, together with the place
//! where the answer goes. Whoever may open the socket may do everything: its mode
//! is 0600, and that is the only authentication.
//!
//! A connection carries one request. When the caller hangs up, the receiving end of
//! the answers is dropped, so the node sees its sender closed and stops the work.

mod body;
pub mod records;
mod routes;
mod socket;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use enishi_api::{Answer, Failure, Request, StreamRequest};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::{debug, warn};

pub use socket::BindError;

/// The largest body of a request, in octets.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// How many connections are served at once; further callers wait to be accepted.
pub const CONNECTIONS_MAX: usize = 64;

/// How many byte streams are open at once; further ones are refused.
pub const STREAMS_MAX: usize = 256;

/// How many answers wait for a caller who reads slowly, before the node has to.
pub const ANSWERS_QUEUED_MAX: usize = 64;

/// How long a caller may take until the head of its request is there: short, as those who say nothing
/// take the places of others.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(2);

/// How long it may take to send the rest.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);

/// How long answers under way may still take once the daemon stops.
const STOP_TIME_MAX: Duration = Duration::from_secs(1);

/// How long accepting rests after an error, for example without file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One request and the place for its answers.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Takes up to [`ANSWERS_QUEUED_MAX`] answers ahead of the caller; dropping it
    /// ends the response. It is closed as soon as the caller hangs up.
    pub answers: mpsc::Sender<Answer>,
}

/// A request for a byte stream and the place for the stream.
#[derive(Debug)]
pub struct StreamCall {
    /// What is asked.
    pub request: StreamRequest,
    /// Takes the stream or the reason why there is none. It is closed as soon as the
    /// caller hangs up.
    pub answer: oneshot::Sender<Result<Duplex, Failure>>,
}

/// Both directions of a byte stream, as the node sees them.
pub struct Duplex {
    /// What comes from the other member; its end is passed on to the caller, and that it broke
    /// off, too.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// What goes to the other member; it is shut down when the caller is through, and dropped
    /// without that when the caller broke off.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// Resolves when the two may exchange nothing more: the stream breaks off then.
    pub forbidden: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl std::fmt::Debug for Duplex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Duplex")
    }
}

/// The control interface, bound to its socket and not yet serving.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Serves callers until `stop` resolves; then finishes the answers under way for at
    /// most a second, removes the socket and returns.
    ///
    /// Byte streams end with this future's runtime, not with this future.
    pub async fn serve(
        self,
        calls: mpsc::Sender<Call>,
        streams: mpsc::Sender<StreamCall>,
        stop: impl Future<Output = ()>,
    ) {
        let router = routes::router(calls, streams);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => {}
                (stream, place) = accept(&self.listener, &places) => {
                    let router = router.clone();
                    connections.spawn(async move {
                        serve_connection(stream, router).await;
                        drop(place);
                    });
                }
            }
        }
        drop(self.listener);
        socket::remove(&self.path);
        let finish = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIME_MAX, finish).await.is_err() {
            debug!("callers of the control interface were cut off");
        }
    }
}

/// Waits for a free place and then for a caller.
async fn accept(
    listener: &UnixListener,
    places: &Arc<Semaphore>,
) -> (UnixStream, Option<tokio::sync::OwnedSemaphorePermit>) {
    // The semaphore is never closed, so there always is a permit.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                warn!(%error, "the control socket could not accept a caller");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(stream: UnixStream, router: axum::Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    if let Err(error) = connection.await {
        debug!(%error, "a caller of the control interface broke off");
    }
}
