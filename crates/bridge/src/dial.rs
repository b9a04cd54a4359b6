//! Streams to a proxy, or straight to a bridge: plain, or by TLS where the proxy wants it so.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// How long making a connection may take, and then TLS.
const STEP_WITHIN: Duration = Duration::from_secs(8);

/// A proxy: where it is, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Its host, a name or an address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How TLS is spoken to it, and whom that trusts; `None` for plain HTTP.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Proxy {
    /// Makes one that is spoken to by plain HTTP.
    #[must_use]
    pub fn plain(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            tls: None,
        }
    }

    /// Opens a stream to it. Takes 16 seconds at most.
    pub(crate) async fn dial(&self) -> io::Result<Stream> {
        let stream = TcpStream::connect((self.host.as_str(), self.port));
        let stream = timeout(STEP_WITHIN, stream).await??;
        stream.set_nodelay(true)?;
        let Some(config) = &self.tls else {
            return Ok(Stream::Plain(stream));
        };
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        let connecting = TlsConnector::from(Arc::clone(config)).connect(name, stream);
        let stream = timeout(STEP_WITHIN, connecting).await??;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

/// Opens a stream without a proxy, to host and port. Takes 8 seconds at most.
pub(crate) async fn straight(to: &str) -> io::Result<Stream> {
    let stream = timeout(STEP_WITHIN, TcpStream::connect(to)).await??;
    stream.set_nodelay(true)?;
    Ok(Stream::Plain(stream))
}

/// The longest head of a reply, with all that come before it (status 1xx, RFC 9110, section 15.2), in octets; one
/// read may have more.
const HEADS_BYTES_MAX: usize = 32 * 1024;

/// How much may still come before the head of a reply.
#[derive(Clone, Debug)]
pub(crate) struct Heads(Arc<AtomicUsize>);

impl Heads {
    /// Bounds what is read of `stream` until [`Heads::came`].
    pub(crate) fn bound<S>(stream: S) -> (Headed<S>, Self) {
        let heads = Self(Arc::new(AtomicUsize::new(HEADS_BYTES_MAX)));
        let left = heads.0.clone();
        (Headed { stream, left }, heads)
    }

    /// A request follows.
    pub(crate) fn follow(&self) {
        self.0.store(HEADS_BYTES_MAX, Ordering::Relaxed);
    }

    /// The head has come, and as much may follow as does.
    pub(crate) fn came(&self) {
        self.0.store(usize::MAX, Ordering::Relaxed);
    }
}

/// A stream of which little is read before the head of a reply.
#[derive(Debug)]
pub(crate) struct Headed<S> {
    stream: S,
    /// In octets; as many as there can be once the head has come.
    left: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Headed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left.load(Ordering::Relaxed) == 0 {
            let error = io::Error::new(io::ErrorKind::InvalidData, "no end of heads");
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let bytes = buffer.filled().len() - before;
        let less = |left: usize| match left {
            usize::MAX => None,
            _ => Some(left.saturating_sub(bytes)),
        };
        // Where the head has come nothing is counted.
        let _ = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Headed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// A stream, plain or by TLS.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, octets),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, octets),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
