//! A stream through a proxy that lets CONNECT through (RFC 9110, section 9.3.6), or WebSockets (RFC 6455),
//! which some let through in place of it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{
    CONNECTION, HOST, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::auth::{Authenticator, Credentials};
use crate::dial::{Heads, Proxy, straight};
use crate::websocket::{self, WebSocket};

/// How long one step may take.
const STEP_TIME_MAX: Duration = Duration::from_secs(8);

/// How often the proxy is asked the same with another answer to its 407.
const CHALLENGES_MAX: usize = 3;

/// How often a WebSocket is asked for that is not found: a proxy may have asked for it on a connection on which it
/// asked the bridge before, and that ends with the answer.
const STRAYS_MAX: usize = 3;

/// The longest head of a reply, in octets.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The proxy could not be reached, or did not speak HTTP.
    #[error("the proxy does not answer: {0}")]
    Io(#[from] io::Error),
    /// The proxy said no.
    #[error("the proxy answers {0}")]
    Refused(u16),
}

/// How a stream is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Connect,
    WebSocket,
}

/// Opens a stream to `target`, host and port, through a proxy. Takes 96 seconds at most.
///
/// # Errors
/// When the proxy does not answer, or refuses.
pub async fn connect(
    proxy: &Proxy,
    credentials: Option<Arc<Credentials>>,
    target: &str,
) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static, TunnelError> {
    let upgraded = ask(Kind::Connect, Some(proxy), credentials, target).await?;
    Ok(TokioIo::new(upgraded))
}

/// Opens a WebSocket to `target`, host and port, through a proxy or straight. Takes 160 seconds at most.
///
/// # Errors
/// When the proxy, or who is there, does not answer, or refuses.
pub async fn websocket(
    proxy: Option<&Proxy>,
    credentials: Option<Arc<Credentials>>,
    target: &str,
) -> Result<WebSocket, TunnelError> {
    let upgraded = ask(Kind::WebSocket, proxy, credentials, target).await?;
    Ok(websocket::opened(upgraded))
}

/// Asks for a stream, and answers the proxy that asks who this is.
async fn ask(
    kind: Kind,
    proxy: Option<&Proxy>,
    credentials: Option<Arc<Credentials>>,
    target: &str,
) -> Result<Upgraded, TunnelError> {
    let (method, uri) = match (kind, proxy) {
        (Kind::Connect, _) => (Method::CONNECT, target.to_owned()),
        (Kind::WebSocket, Some(_)) => (Method::GET, format!("http://{target}{}", websocket::PATH)),
        (Kind::WebSocket, None) => (Method::GET, websocket::PATH.to_owned()),
    };
    let mut auth = Authenticator::new(credentials);
    let (mut challenges, mut strays) = (0, 0);
    loop {
        // A proxy may end a connection on which it refused, so each question has its own.
        let stream = match proxy {
            Some(proxy) => proxy.dial().await?,
            None => straight(target).await?,
        };
        let (stream, heads) = Heads::bound(stream);
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(connection.with_upgrades());
        let mut random = [0; 28];
        // Without randomness the numbers are poor ones, and the connection still works.
        let _ = getrandom::fill(&mut random);
        let (nonce, key) = random.split_at(12);
        let (nonce, key) = (nonce.try_into().unwrap_or_default(), BASE64.encode(key));
        let mut request = Request::builder().method(&method).uri(&uri);
        request = request.header(HOST, target);
        if kind == Kind::WebSocket {
            request = request
                .header(CONNECTION, "Upgrade")
                .header(UPGRADE, websocket::PROTOCOL)
                .header(SEC_WEBSOCKET_VERSION, websocket::VERSION)
                .header(SEC_WEBSOCKET_KEY, &key);
        }
        if let Some(header) = auth.header(method.as_str(), &uri, nonce) {
            let mut value = HeaderValue::from_str(&header).map_err(io::Error::other)?;
            value.set_sensitive(true);
            request = request.header(PROXY_AUTHORIZATION, value);
        }
        let request = request.body(Empty::<Bytes>::new());
        let request = request.map_err(io::Error::other)?;
        let response = timeout(STEP_TIME_MAX, sender.send_request(request)).await;
        let response = response
            .map_err(io::Error::from)?
            .map_err(io::Error::other)?;
        heads.came();
        let status = response.status();
        let is_open = match kind {
            Kind::Connect => status.is_success(),
            Kind::WebSocket => {
                let accepted = response.headers().get(SEC_WEBSOCKET_ACCEPT);
                let expected = websocket::accepting(key.as_bytes());
                status == StatusCode::SWITCHING_PROTOCOLS
                    && accepted.is_some_and(|it| it.as_bytes() == expected.as_bytes())
            }
        };
        if is_open {
            let upgraded = timeout(STEP_TIME_MAX, hyper::upgrade::on(response)).await;
            let upgraded = upgraded.map_err(io::Error::from)?;
            return Ok(upgraded.map_err(io::Error::other)?);
        }
        let asked = response.headers().get_all(PROXY_AUTHENTICATE);
        let asked = asked.iter().filter_map(|value| value.to_str().ok());
        let again = match status {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                challenges += 1;
                challenges < CHALLENGES_MAX && auth.challenged(asked)
            }
            StatusCode::NOT_FOUND if kind == Kind::WebSocket => {
                strays += 1;
                strays < STRAYS_MAX
            }
            _ => false,
        };
        if !again {
            return Err(TunnelError::Refused(status.as_u16()));
        }
    }
}
