//! A stream within a WebSocket (RFC 6455), for networks that let the web's own streams pass and no others.
//!
//! ```text
//!   client                            proxy                              server
//!     | -- GET /link, Upgrade: websocket -> | --------------------------->  |
//!     | <------------------ 101, accepted - | <---------------------------  |
//!     | <------ binary messages, of any length, in both directions -------> |
//! ```
//!
//! The octets of the messages one after the other are the stream; where a message ends means nothing.
//! Opening one is [`crate::tunnel::websocket`].

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use data_encoding::BASE64;
use futures_core::Stream;
use futures_sink::Sink;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sha1_smol::Sha1;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_websockets::{ClientBuilder, Limits, Message, ServerBuilder, WebSocketStream};

/// The path by which it is asked for.
pub const PATH: &str = "/link";

/// How a request for it begins; what else a listener takes begins otherwise.
pub const BEGINS: &[u8] = b"GET /link HTTP/1.";

/// The name of a WebSocket's protocol in `Upgrade`.
pub(crate) const PROTOCOL: &str = "websocket";

/// Its version in `Sec-WebSocket-Version` (RFC 6455, section 4.1).
pub(crate) const VERSION: &str = "13";

/// What follows the key of the opener in what is hashed (RFC 6455, section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The longest message, in octets: none is longer than what one write has.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// How many pings are answered before what is written has all gone out once: answers that nobody reads would
/// pile up.
const PINGS_MAX: u32 = 64;

/// The longest head of a request, in octets.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The stream of octets within a WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    inner: WebSocketStream<TokioIo<Upgraded>>,
    /// What is left of the last message.
    left: Bytes,
    /// How many pings came since all was written.
    pings: u32,
}

/// Takes the end of a stream on which both have agreed on a WebSocket.
pub(crate) fn opened(upgraded: Upgraded) -> WebSocket {
    let builder = ClientBuilder::new().limits(limits());
    WebSocket::new(builder.take_over(TokioIo::new(upgraded)))
}

/// Lets a WebSocket be opened on a connection whose first request is for one ([`BEGINS`]); none if it is
/// not, which is answered. Holds 16 KiB at most; the caller limits the time.
pub async fn accept(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Option<WebSocket> {
    let agreed: Arc<Mutex<Option<OnUpgrade>>> = Arc::default();
    let answer = service_fn(|request: Request<Incoming>| {
        let agreed = Arc::clone(&agreed);
        async move { Ok::<_, Infallible>(answer(request, &agreed)) }
    });
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX).keep_alive(false);
    let connection = builder.serve_connection(TokioIo::new(stream), answer);
    connection.with_upgrades().await.ok()?;
    let agreed = agreed.lock().unwrap_or_else(PoisonError::into_inner).take();
    let upgraded = agreed?.await.ok()?;
    let builder = ServerBuilder::new().limits(limits());
    Some(WebSocket::new(builder.serve(TokioIo::new(upgraded))))
}

/// Answers the request for a WebSocket, and keeps what comes of it.
fn answer(request: Request<Incoming>, agreed: &Mutex<Option<OnUpgrade>>) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    let headers = request.headers();
    let is_one = request.uri().path() == PATH
        && has(headers, UPGRADE, PROTOCOL)
        && has(headers, CONNECTION, "upgrade")
        && has(headers, SEC_WEBSOCKET_VERSION, VERSION);
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| is_one);
    let accepted = key.map(|key| accepting(key.as_bytes()));
    let Some(accepted) = accepted.and_then(|it| HeaderValue::try_from(it).ok()) else {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    let mut agreed = agreed.lock().unwrap_or_else(PoisonError::into_inner);
    *agreed = Some(hyper::upgrade::on(request));
    response
}

/// Tells whether a list of words in a header has one, in letters of any case.
fn has(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).into_iter();
    let mut words = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    words.any(|it| it.trim().eq_ignore_ascii_case(word))
}

/// Returns what shows that a key was understood (RFC 6455, section 4.2.2).
pub(crate) fn accepting(key: &[u8]) -> String {
    let mut hash = Sha1::from(key);
    hash.update(GUID.as_bytes());
    BASE64.encode(&hash.digest().bytes())
}

fn limits() -> Limits {
    Limits::default().max_payload_len(Some(MESSAGE_BYTES_MAX))
}

impl WebSocket {
    fn new(inner: WebSocketStream<TokioIo<Upgraded>>) -> Self {
        Self {
            inner,
            left: Bytes::new(),
            pings: 0,
        }
    }

    /// Counts one more ping.
    fn pinged(&mut self) -> io::Result<()> {
        self.pings += 1;
        match self.pings <= PINGS_MAX {
            true => Ok(()),
            false => Err(io::Error::other("more pings than are answered")),
        }
    }

    fn sink(self: Pin<&mut Self>) -> Pin<&mut WebSocketStream<TokioIo<Upgraded>>> {
        Pin::new(&mut self.get_mut().inner)
    }
}

impl AsyncRead for WebSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.left.is_empty() {
            match ready!(Pin::new(&mut this.inner).poll_next(cx)) {
                Some(Ok(message)) if message.is_binary() => {
                    this.left = message.into_payload().into();
                }
                // The library answers it.
                Some(Ok(message)) if message.is_ping() => this.pinged()?,
                // Text is of no use here.
                Some(Ok(message)) if !message.is_close() => {}
                Some(Ok(_)) | None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let length = this.left.len().min(buffer.remaining());
        buffer.put_slice(&this.left[..length]);
        this.left.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WebSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.as_mut().sink().poll_ready(cx)).map_err(io::Error::other)?;
        let octets = &octets[..octets.len().min(MESSAGE_BYTES_MAX)];
        let message = Message::binary(Bytes::copy_from_slice(octets));
        let sent = self.sink().start_send(message);
        Poll::Ready(sent.map(|()| octets.len()).map_err(io::Error::other))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().sink().poll_flush(cx)).map_err(io::Error::other)?;
        self.pings = 0;
        Poll::Ready(Ok(()))
    }

    /// Waits for the other end to close too, and drops what still comes from there.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sink().poll_close(cx).map_err(io::Error::other)
    }
}
