//! What each path of the control interface does.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use bytes::Bytes;
use enishi_api::{Answer, Failure, FailureKind, Request, StreamRequest};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::debug;

use super::body::{Answers, line};
use super::records::{self, CopyError};
use super::{
    ANSWERS_QUEUED_MAX, BODY_BYTES_MAX, Call, Duplex, REQUEST_TIME_MAX, STREAMS_MAX, StreamCall,
};

/// The protocol that a connection becomes with `POST /v1/stream`.
const STREAM_PROTOCOL: &str = "enishi-stream";

#[derive(Clone)]
struct Node {
    calls: mpsc::Sender<Call>,
    streams: mpsc::Sender<StreamCall>,
    stream_places: Arc<Semaphore>,
}

/// A response that takes the place of the answers.
struct Refusal(StatusCode, Failure);

pub(super) fn router(calls: mpsc::Sender<Call>, streams: mpsc::Sender<StreamCall>) -> Router {
    Router::new()
        .route("/v1/call", routing::post(call))
        .route("/v1/stream", routing::post(stream))
        .route(
            "/v1/status",
            routing::get(|State(node): State<Node>| ask(node, Request::Status)),
        )
        .route(
            "/v1/peers",
            routing::get(|State(node): State<Node>| ask(node, Request::Peers)),
        )
        .route(
            "/v1/channels",
            routing::get(|State(node): State<Node>| ask(node, Request::ChannelList)),
        )
        .fallback(|| async {
            usage(
                StatusCode::NOT_FOUND,
                "There is no such path; see docs/commands.md.",
            )
        })
        .method_not_allowed_fallback(|| async {
            usage(
                StatusCode::METHOD_NOT_ALLOWED,
                "This path takes another method.",
            )
        })
        .with_state(Node {
            calls,
            streams,
            stream_places: Arc::new(Semaphore::new(STREAMS_MAX)),
        })
}

async fn call(State(node): State<Node>, request: HttpRequest) -> Result<Response, Refusal> {
    let request = parse(request.into_body()).await?;
    ask(node, request).await
}

async fn ask(node: Node, request: Request) -> Result<Response, Refusal> {
    let (answers, receiver) = mpsc::channel(ANSWERS_QUEUED_MAX);
    node.calls
        .send(Call { request, answers })
        .await
        .map_err(|_| stopping())?;
    let kind = [(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-ndjson"),
    )];
    Ok((kind, Body::new(Answers(receiver))).into_response())
}

async fn stream(State(node): State<Node>, mut request: HttpRequest) -> Result<Response, Refusal> {
    if !wants_stream(request.headers()) {
        return Err(usage(
            StatusCode::UPGRADE_REQUIRED,
            "This path needs the headers `Connection: upgrade` and `Upgrade: enishi-stream`.",
        ));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let request: StreamRequest = parse(request.into_body()).await?;
    let place = Arc::clone(&node.stream_places)
        .try_acquire_owned()
        .map_err(|_| busy())?;
    let (answer, stream) = oneshot::channel();
    node.streams
        .send(StreamCall { request, answer })
        .await
        .map_err(|_| stopping())?;
    let duplex = stream
        .await
        .map_err(|_| stopping())?
        .map_err(Refusal::from)?;
    tokio::spawn(copy(upgrade, duplex, place));
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static(STREAM_PROTOCOL)),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

fn wants_stream(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|name| {
        name.as_bytes()
            .eq_ignore_ascii_case(STREAM_PROTOCOL.as_bytes())
    })
}

/// Copies both ways until both directions have ended, one has broken off, or nothing more may
/// pass; the end of one direction is passed on while the other still flows.
async fn copy(upgrade: OnUpgrade, duplex: Duplex, _place: OwnedSemaphorePermit) {
    let upgraded: Upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return debug!(%error, "the caller left before its stream began"),
    };
    let (from_caller, to_caller) = io::split(TokioIo::new(upgraded));
    let copied = tokio::select! {
        copied = async {
            tokio::try_join!(
                records::unpack(from_caller, duplex.writer),
                records::pack(duplex.reader, to_caller),
            )
        } => copied.map(drop),
        () = duplex.forbidden => {
            Err(CopyError::Source(io::Error::other("it is not allowed any more")))
        }
    };
    if let Err(error) = copied {
        debug!(%error, "a stream broke off");
    }
}

/// Reads a request's body.
async fn parse<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    let read = to_bytes(body, BODY_BYTES_MAX);
    let body: Bytes = match tokio::time::timeout(REQUEST_TIME_MAX, read).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let message = "The request could not be read, or is longer than 64 KiB.";
            return Err(usage(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        Err(_) => {
            return Err(usage(
                StatusCode::REQUEST_TIMEOUT,
                "The request did not arrive in time.",
            ));
        }
    };
    serde_json::from_slice(&body).map_err(|error| {
        let message = format!("The request is not understood: {error}.");
        usage(StatusCode::BAD_REQUEST, &message)
    })
}

fn usage(status: StatusCode, message: &str) -> Refusal {
    Refusal(
        status,
        Failure {
            kind: FailureKind::Usage,
            message: message.to_owned(),
        },
    )
}

fn stopping() -> Refusal {
    let message = "The daemon is stopping and takes no requests.".to_owned();
    Refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        Failure {
            kind: FailureKind::No,
            message,
        },
    )
}

fn busy() -> Refusal {
    let message = format!("{STREAMS_MAX} streams are open already; end one and try again.");
    Refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        Failure {
            kind: FailureKind::No,
            message,
        },
    )
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let status = match failure.kind {
            FailureKind::No => StatusCode::NOT_FOUND,
            FailureKind::Usage => StatusCode::BAD_REQUEST,
            FailureKind::Founder => StatusCode::CONFLICT,
        };
        Self(status, failure)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let kind = [(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-ndjson"),
        )];
        (self.0, kind, line(&Answer::Failure(self.1))).into_response()
    }
}
