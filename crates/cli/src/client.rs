//! Talks to the daemon: HTTP over the Unix socket in its data directory.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use enishi_api::{Answer, Request, SOCKET_NAME, StreamRequest};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::http::request::Builder;
use hyper::http::{self, Response, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::output::Output;
use crate::output::progress::Progress;
use crate::problem::Problem;
use crate::text::Message;

/// The longest answer that is taken, in octets.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long a daemon may take until it takes a request: with its socket full of idle
/// connections it takes two. Answers may take longer.
const TAKEN_TIME_MAX: Duration = Duration::from_secs(30);

/// The daemon of one data directory, which may or may not be there.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    data: PathBuf,
    out: Output,
}

/// The answers to one request, as they come.
#[derive(Debug)]
pub(crate) struct Answers {
    body: Incoming,
    received: BytesMut,
    /// Up to where `received` is known to hold no line break.
    searched: usize,
    out: Output,
}

impl Client {
    /// Names the daemon of a data directory; nothing is opened yet.
    pub(crate) fn new(data: PathBuf, out: Output) -> Self {
        Self { data, out }
    }

    /// Returns the data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Asks something that gets several answers.
    ///
    /// # Errors
    /// [`Problem::NoDaemon`] when nobody listens on the socket, or takes the request within
    /// half a minute; [`Problem::No`] when the connection breaks off.
    pub(crate) async fn call(&self, request: &Request) -> Result<Answers, Problem> {
        let sent = self.send(http::Request::post("/v1/call"), request);
        match timeout(TAKEN_TIME_MAX, sent).await {
            Ok(response) => Ok(Answers::new(response?, self.out)),
            Err(_) => Err(Problem::NoDaemon(self.out.text(&Message::DaemonStuck))),
        }
    }

    /// Asks something that gets one answer; a person sees a spinner if it takes long.
    ///
    /// # Errors
    /// As [`Client::call`], and the daemon's own failure.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Answer, Problem> {
        let progress = Progress::start(&self.out, &Message::Waiting);
        let answer = self.call(request).await?.next().await;
        progress.stop().await;
        answer?.ok_or_else(|| Problem::No(self.out.text(&Message::DaemonSilent)))
    }

    /// Opens a byte stream.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(crate) async fn stream(
        &self,
        request: &StreamRequest,
    ) -> Result<TokioIo<Upgraded>, Problem> {
        let head = http::Request::post("/v1/stream")
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, "enishi-stream");
        let response = self.send(head, request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgraded = hyper::upgrade::on(response).await;
            return upgraded
                .map(TokioIo::new)
                .map_err(|error| broke(&self.out, &error));
        }
        match Answers::new(response, self.out).next().await? {
            Some(_) => Err(strange(&self.out)),
            None => Err(Problem::No(self.out.text(&Message::DaemonSilent))),
        }
    }

    async fn send(
        &self,
        head: Builder,
        request: &impl Serialize,
    ) -> Result<Response<Incoming>, Problem> {
        let stream = self.connect().await?;
        let broke = |error| broke(&self.out, &error);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broke)?;
        // Ends with the response's body, or with the upgraded stream.
        tokio::spawn(connection.with_upgrades());
        // The request may hold a password.
        let json = serde_json::to_vec(request).map(Zeroizing::new);
        let json = json.map_err(|error| Problem::Usage(error.to_string()))?;
        let request = head
            .header(header::HOST, "enishi")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from_owner(json)))
            .map_err(|error| Problem::Usage(error.to_string()))?;
        sender.send_request(request).await.map_err(broke)
    }

    async fn connect(&self) -> Result<UnixStream, Problem> {
        let error = match UnixStream::connect(self.data.join(SOCKET_NAME)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let data: &Path = &self.data;
        Err(match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Problem::NoDaemon(self.out.text(&Message::NoDaemon { data }))
            }
            io::ErrorKind::PermissionDenied => {
                Problem::NoDaemon(self.out.text(&Message::DaemonForbidden { data }))
            }
            _ => Problem::Usage(self.out.text(&Message::SocketPathUnfit {
                data,
                error: &error,
            })),
        })
    }
}

impl Answers {
    fn new(response: Response<Incoming>, out: Output) -> Self {
        Self {
            body: response.into_body(),
            received: BytesMut::new(),
            searched: 0,
            out,
        }
    }

    /// Waits for the next answer; none when the daemon has said everything.
    ///
    /// # Errors
    /// [`Problem`] when the daemon tells a failure, when the connection breaks off, or
    /// when the answer is not understood.
    pub(crate) async fn next(&mut self) -> Result<Option<Answer>, Problem> {
        loop {
            if let Some(line) = self.take_line() {
                return match serde_json::from_slice(&line) {
                    Ok(Answer::Failure(failure)) => Err(failure.into()),
                    Ok(answer) => Ok(Some(answer)),
                    Err(_) => Err(strange(&self.out)),
                };
            }
            if self.received.len() > ANSWER_BYTES_MAX {
                return Err(strange(&self.out));
            }
            match self.body.frame().await {
                None if self.received.is_empty() => return Ok(None),
                None => return Err(Problem::No(self.out.text(&Message::DaemonSilent))),
                Some(Err(error)) => return Err(broke(&self.out, &error)),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.received.extend_from_slice(data);
                    }
                }
            }
        }
    }

    fn take_line(&mut self) -> Option<BytesMut> {
        let new = &self.received[self.searched..];
        match new.iter().position(|byte| *byte == b'\n') {
            Some(at) => {
                let line = self.received.split_to(self.searched + at + 1);
                self.searched = 0;
                Some(line)
            }
            None => {
                self.searched = self.received.len();
                None
            }
        }
    }
}

/// The problem of an answer that does not belong to the request or to this version.
pub(crate) fn strange(out: &Output) -> Problem {
    Problem::No(out.text(&Message::AnswerStrange))
}

fn broke(out: &Output, error: &hyper::Error) -> Problem {
    Problem::No(out.text(&Message::DaemonBroke {
        error: &error.to_string(),
    }))
}
