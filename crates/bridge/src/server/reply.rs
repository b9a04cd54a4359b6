//! The bodies of replies.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, PRAGMA};
use hyper::{Response, StatusCode};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use crate::exchange::{AskId, FarInput};
use crate::way::ReplyCoding;

/// The body of a reply.
#[derive(Debug)]
pub(super) enum Body {
    /// All of it.
    Whole(Bytes),
    /// What comes of it; the sender waits until enough was written.
    Parts(UnboundedReceiver<Bytes>, Leave),
}

impl Body {
    pub(super) fn whole(octets: Bytes) -> Self {
        Self::Whole(octets)
    }

    pub(super) fn parts(
        parts: UnboundedReceiver<Bytes>,
        ask: AskId,
        told: UnboundedSender<FarInput>,
    ) -> Self {
        Self::Parts(parts, Leave::new(ask, told))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = match self.get_mut() {
            Self::Whole(octets) => {
                let octets = std::mem::take(octets);
                (!octets.is_empty()).then_some(octets)
            }
            Self::Parts(parts, leave) => {
                let part = ready!(parts.poll_recv(cx));
                if part.is_none() {
                    leave.stay();
                }
                part
            }
        };
        Poll::Ready(part.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(octets) if octets.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(octets) => SizeHint::with_exact(octets.len() as u64),
            Self::Parts(..) => SizeHint::default(),
        }
    }
}

/// Tells when whoever asked has gone before the end of the answer.
#[derive(Debug)]
pub(super) struct Leave {
    ask: AskId,
    told: Option<UnboundedSender<FarInput>>,
}

impl Leave {
    pub(super) fn new(ask: AskId, told: UnboundedSender<FarInput>) -> Self {
        Self {
            ask,
            told: Some(told),
        }
    }

    pub(super) fn stay(&mut self) {
        self.told = None;
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        // Without the sessions nothing has to be told.
        let _ = self
            .told
            .take()
            .map(|told| told.send(FarInput::Gone(self.ask)));
    }
}

/// A reply of the bridge.
pub(super) fn ok(coding: ReplyCoding, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
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

/// A reply to a request that finds no room.
pub(super) fn without_room(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::whole(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// A reply to a request that is none of the bridge's.
pub(super) fn not_found() -> Response<Body> {
    let body = Bytes::from_static(b"<h1>Not Found</h1>\n");
    let mut response = Response::new(Body::whole(body));
    *response.status_mut() = StatusCode::NOT_FOUND;
    let html = HeaderValue::from_static("text/html");
    response.headers_mut().insert(CONTENT_TYPE, html);
    response
}

/// The last reply of a connection.
pub(super) fn last(mut response: Response<Body>) -> Response<Body> {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}
