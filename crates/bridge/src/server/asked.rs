//! Requests as they come.
//!
//! What is read takes room that is counted, and what is too much is read on for a while and dropped: an answer to
//! what was not read to its end is lost with the connection.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::places::Place;
use super::reply::{Body, Leave, last, not_found, ok, without_room};
use crate::body;
use crate::exchange::{AskId, FarInput, STREAM_BYTES_MAX, STREAM_S_MAX};
use crate::frame::{Damage, PART_BYTES_MAX, Splitter, is_stream};
use crate::way::{Ask, BODY_BYTES_MAX, ReplyCoding};
use crate::websocket;

/// How long the body of a request may take, and the first of it.
const BODY_WITHIN: Duration = Duration::from_secs(60);
const BEGUN_WITHIN: Duration = Duration::from_secs(10);

/// Bodies up to this length have room; of others all of it is counted, in octets.
const SHORT_BODY_BYTES_MAX: usize = 8 * 1024;

/// By how much the room of a body grows as it comes, in octets: what is declared and does not come takes nothing.
const ROOM_STEP_BYTES: usize = 64 * 1024;

/// How long a stream may last, and how long nothing may come of it.
const STREAM_WITHIN: Duration = Duration::from_secs(STREAM_S_MAX as u64 + 30);
const STREAM_IDLE: Duration = Duration::from_secs(15);

/// Frames of a stream that wait for the sessions.
const STREAM_FRAMES: usize = 2;

/// The room that a stream takes: these, one that comes, and what was read, in octets.
const STREAM_ROOM_BYTES: usize = (STREAM_FRAMES + 2) * PART_BYTES_MAX;

/// What is read and dropped before an answer, at most, and how long it may take, and be silent.
const DRAIN_BYTES_MAX: usize = 4 << 20;
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
const DRAIN_IDLE: Duration = Duration::from_secs(1);

/// A request, or more of one, on its way to the sessions.
pub(super) struct Asked {
    pub(super) input: FarInput,
    pub(super) answer: Option<oneshot::Sender<(ReplyCoding, Body)>>,
    /// Given back when it was worked off.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) asked: mpsc::Sender<Asked>,
    pub(super) told: mpsc::UnboundedSender<FarInput>,
    pub(super) asks: AtomicU64,
}

impl Shared {
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        from: IpAddr,
        place: &Place,
    ) -> Response<Body> {
        let (head, mut body) = request.into_parts();
        if head.uri.path() == websocket::PATH {
            // A proxy sent it on a connection of other requests; the next is to come on one of its own.
            return last(refused(body, not_found()).await);
        }
        let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        let known = head.method == Method::GET || head.method == Method::POST;
        if !known || declared > STREAM_BYTES_MAX {
            return refused(body, not_found()).await;
        }
        let path = head.uri.path();
        let Ok(Some((begun, streams))) = timeout(BEGUN_WITHIN, begin(&mut body)).await else {
            return last(not_found());
        };
        if streams {
            let streamed = self.stream(path, begun, body, from, place);
            return match timeout(STREAM_WITHIN, streamed).await {
                Ok((response, Some(rest))) => refused(rest, response).await,
                Ok((response, None)) => response,
                Err(_) => last(not_found()),
            };
        }
        if declared > BODY_BYTES_MAX {
            return refused(body, not_found()).await;
        }
        let mut room = place.room();
        let mut came = 0;
        let fits = |bytes: usize| {
            came += bytes;
            let step = came.next_multiple_of(ROOM_STEP_BYTES);
            let step = step.min(declared.max(came));
            came <= SHORT_BODY_BYTES_MAX || room.reach(step)
        };
        let read = body::read(&mut body, begun, BODY_BYTES_MAX, fits);
        let octets = match timeout(BODY_WITHIN, read).await {
            Ok(Ok(octets)) => octets,
            Ok(Err(body::BodyError::Long)) => {
                drop(room);
                return refused(body, without_room(StatusCode::PAYLOAD_TOO_LARGE)).await;
            }
            Ok(Err(body::BodyError::Broken)) | Err(_) => return last(not_found()),
        };
        let undressed = Ask::undress(path, &octets);
        // It has to be gone when its room is.
        drop(octets);
        let Some(octets) = undressed else {
            return not_found();
        };
        // What did not come raw cannot go on.
        let octets = octets.and_then(|octets| match is_stream(&octets) {
            Some(true) => Err(Damage::Malformed),
            Some(false) | None => Ok(octets),
        });
        let worked_off = Arc::new(Semaphore::new(1));
        let permit = worked_off.clone().acquire_owned().await.ok();
        let Some((_, mut leave, answered)) = self.ask(from, octets, permit).await else {
            return not_found();
        };
        // A poll may wait long after that.
        drop(worked_off.acquire().await);
        drop(room);
        let Ok((coding, body)) = answered.await else {
            return not_found();
        };
        leave.stay();
        ok(coding, body)
    }

    /// Hands a request on. `None` when there are no sessions any longer.
    async fn ask(
        &self,
        from: IpAddr,
        octets: Result<Bytes, Damage>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Option<(AskId, Leave, oneshot::Receiver<(ReplyCoding, Body)>)> {
        let ask = self.asks.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let leave = Leave::new(ask, self.told.clone());
        let asked = Asked {
            input: FarInput::Asked { ask, from, octets },
            answer: Some(answer),
            permit,
        };
        self.asked.send(asked).await.ok()?;
        Some((ask, leave, answered))
    }

    /// Hands a stream on, frame by frame, until it ends or is answered; returns what is left to be read before
    /// the answer.
    async fn stream(
        &self,
        path: &str,
        begun: Bytes,
        mut body: Incoming,
        from: IpAddr,
        place: &Place,
    ) -> (Response<Body>, Option<Incoming>) {
        let mut room = place.room();
        if !room.reach(STREAM_ROOM_BYTES) {
            return (without_room(StatusCode::SERVICE_UNAVAILABLE), Some(body));
        }
        let begun_by = Instant::now() + BEGUN_WITHIN;
        let mut splitter = Splitter::default();
        splitter.push(&begun);
        let first = loop {
            match splitter.next_frame() {
                Ok(Some(first)) => break first,
                Ok(None) => {}
                Err(_) => return (not_found(), Some(body)),
            }
            let Ok(Ok(Some(part))) = timeout_at(begun_by, next(&mut body)).await else {
                return (last(not_found()), None);
            };
            splitter.push(&part);
        };
        if !matches!(Ask::undress(path, &first), Some(Ok(_))) {
            return (not_found(), Some(body));
        }
        let Some((ask, mut leave, mut answered)) = self.ask(from, Ok(first), None).await else {
            return (last(not_found()), None);
        };
        let permits = Arc::new(Semaphore::new(STREAM_FRAMES));
        let came_whole = loop {
            let more = match splitter.next_frame() {
                Ok(Some(octets)) => FarInput::More(ask, Ok(octets)),
                Ok(None) => {
                    tokio::select! {
                        // Whoever is answered before the end does not have to go on.
                        answer = &mut answered => {
                            leave.stay();
                            let Ok((coding, reply)) = answer else {
                                return (last(not_found()), None);
                            };
                            return (ok(coding, reply), Some(body));
                        }
                        part = next(&mut body) => match part {
                            Ok(Some(part)) => splitter.push(&part),
                            Ok(None) => break splitter.is_empty(),
                            Err(()) => break false,
                        }
                    }
                    continue;
                }
                Err(damage) => FarInput::More(ask, Err(damage)),
            };
            let is_last = matches!(more, FarInput::More(_, Err(_)));
            let permit = permits.clone().acquire_owned().await.ok();
            if !self.hand_on(more, permit).await {
                return (last(not_found()), None);
            }
            if is_last {
                break false;
            }
        };
        if came_whole && !self.hand_on(FarInput::Ended(ask), None).await {
            return (last(not_found()), None);
        }
        // What was cut has nobody any longer who reads an answer; what was damaged has.
        match timeout(DRAIN_IDLE, answered).await {
            Ok(Ok((coding, reply))) => {
                leave.stay();
                (ok(coding, reply), (!came_whole).then_some(body))
            }
            Ok(Err(_)) | Err(_) => (last(not_found()), None),
        }
    }

    async fn hand_on(&self, input: FarInput, permit: Option<OwnedSemaphorePermit>) -> bool {
        let asked = Asked {
            input,
            answer: None,
            permit,
        };
        self.asked.send(asked).await.is_ok()
    }
}

/// Reads the beginning of a body, and tells whether it is a stream. `None` when it is broken.
async fn begin(body: &mut Incoming) -> Option<(Bytes, bool)> {
    let mut begun = BytesMut::new();
    loop {
        if let Some(streams) = is_stream(&begun) {
            return Some((begun.freeze(), streams));
        }
        match body.frame().await {
            Some(frame) => {
                if let Ok(part) = frame.ok()?.into_data() {
                    begun.extend_from_slice(&part);
                }
            }
            None => return Some((begun.freeze(), false)),
        }
    }
}

/// Waits for more of a body; `None` at its end.
///
/// # Errors
/// When it is cut, or nothing comes.
async fn next(body: &mut Incoming) -> Result<Option<Bytes>, ()> {
    loop {
        let Some(frame) = timeout(STREAM_IDLE, body.frame()).await.map_err(|_| ())? else {
            return Ok(None);
        };
        if let Ok(part) = frame.map_err(|_| ())?.into_data() {
            return Ok(Some(part));
        }
    }
}

/// Answers after the rest of the body has come, or as much as is waited for.
async fn refused(mut body: Incoming, response: Response<Body>) -> Response<Body> {
    let end = Instant::now() + DRAIN_WITHIN;
    let mut left = DRAIN_BYTES_MAX;
    while !body.is_end_stream() {
        let until = end.min(Instant::now() + DRAIN_IDLE);
        let bytes = match timeout_at(until, body.frame()).await {
            Ok(Some(Ok(frame))) => frame.data_ref().map_or(0, Bytes::len),
            Ok(None) => return response,
            Ok(Some(Err(_))) | Err(_) => return last(response),
        };
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => return last(response),
        }
    }
    response
}
