//! One question to a router by HTTP, and its answer: so many octets and so much time, whatever the
//! router says.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;

/// How much is read of one connection, in octets: the answer's head and everything that frames its
/// body count. Descriptions of real routers have 2 to 20 KiB.
pub(super) const ANSWER_MAX: u64 = 256 * 1024;

/// What the system keeps of what was not yet read, in octets. Without it the system takes in
/// megabytes before a limit of ours is met.
const RECEIVE_BUFFER: u32 = 64 * 1024;

/// How long an answer's head may be, in octets, and how much of its body is read at once.
const BUFFER: usize = 16 * 1024;

/// How long one question may take, from the connection to the end of the answer.
const TIME_MAX: Duration = Duration::from_secs(3);

/// What a router said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// At most `ANSWER_MAX` octets. What is not UTF-8 in it is replaced.
    pub(super) text: String,
    /// At which address of this host the router sees it.
    pub(super) local: Ipv4Addr,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("the router cannot be asked: {0}")]
    Io(#[from] std::io::Error),
    #[error("the router's answer is not HTTP, or longer than 256 KiB: {0}")]
    Http(#[from] hyper::Error),
    #[error("the question makes no HTTP: {0}")]
    Question(#[from] hyper::http::Error),
    #[error("the router did not answer within three seconds")]
    Late,
}

/// Asks for what is at a path, or, with a body, has an action of SOAP done.
///
/// # Errors
///
/// Fails when there is no whole answer within `TIME_MAX` and the first `ANSWER_MAX` octets. An answer
/// that says itself that something failed is an answer.
pub(super) async fn ask(
    at: SocketAddrV4,
    path: &str,
    action: Option<(&str, String)>,
) -> Result<Answer, HttpError> {
    let asked = Request::builder()
        .uri(path)
        .header(HOST, at.to_string())
        .header(CONNECTION, "close");
    let request = match action {
        None => asked.body(Full::default()),
        Some((name, body)) => asked
            .method(Method::POST)
            .header("SOAPAction", format!("\"{name}\""))
            .header(CONTENT_TYPE, "text/xml; charset=\"utf-8\"")
            .body(Full::new(Bytes::from(body))),
    }?;
    let answer = tokio::time::timeout(TIME_MAX, exchange(at, request));
    answer.await.map_err(|_| HttpError::Late)?
}

async fn exchange(at: SocketAddrV4, request: Request<Full<Bytes>>) -> Result<Answer, HttpError> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    let stream = socket.connect(at.into()).await?;
    let local = match stream.local_addr()?.ip() {
        IpAddr::V4(local) => local,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let (read, write) = stream.into_split();
    let limited = tokio::io::join(read.take(ANSWER_MAX), write);
    let mut opened = http1::Builder::new();
    opened.max_buf_size(BUFFER);
    let (mut sender, connection) = opened
        .handshake::<_, Full<Bytes>>(TokioIo::new(limited))
        .await?;
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let octets = answer.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&octets).into_owned();
        Ok(Answer {
            status,
            text,
            local,
        })
    });
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => {
            ended?;
            answer.await
        }
    }
}
