//! A stream through a proxy that lets CONNECT through (RFC 9110, section 9.3.6).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::auth::{Authenticator, Credentials};

/// How long one step may take.
const STEP_TIME_MAX: Duration = Duration::from_secs(8);

/// How often the proxy is asked the same with another answer to its 407.
const CHALLENGES_MAX: usize = 3;

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

/// Opens a stream to `target`, host and port, through the proxy at `proxy`, host and port. Takes
/// 72 seconds at most.
///
/// # Errors
/// When the proxy does not answer, or refuses.
pub async fn connect(
    proxy: &str,
    credentials: Option<Arc<Credentials>>,
    target: &str,
) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static, TunnelError> {
    let mut auth = Authenticator::new(credentials);
    for _ in 0..CHALLENGES_MAX {
        // A proxy may end a connection on which it refused, so each question has its own.
        let stream = timeout(STEP_TIME_MAX, TcpStream::connect(proxy)).await;
        let stream = stream.map_err(io::Error::from)??;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(connection.with_upgrades());
        let mut nonce = [0; 12];
        // Without randomness the number is a poor one, and the connection still works.
        let _ = getrandom::fill(&mut nonce);
        let mut request = Request::connect(target).header(HOST, target);
        if let Some(header) = auth.header("CONNECT", target, nonce) {
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
        let status = response.status();
        if status.is_success() {
            let upgraded = timeout(STEP_TIME_MAX, hyper::upgrade::on(response)).await;
            let upgraded = upgraded
                .map_err(io::Error::from)?
                .map_err(io::Error::other)?;
            return Ok(TokioIo::new(upgraded));
        }
        let challenges = response.headers().get_all(PROXY_AUTHENTICATE);
        let challenges = challenges.iter().filter_map(|value| value.to_str().ok());
        let again =
            status == StatusCode::PROXY_AUTHENTICATION_REQUIRED && auth.challenged(challenges);
        if !again {
            return Err(TunnelError::Refused(status.as_u16()));
        }
    }
    Err(TunnelError::Refused(407))
}
