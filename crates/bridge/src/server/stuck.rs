//! Connections whose other end does not read.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// How long nothing of what waits may be taken.
const STUCK_MAX: Duration = Duration::from_secs(30);

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(5);

/// A stream that notes since when nothing can be written.
#[derive(Debug)]
pub(super) struct Watched {
    stream: TcpStream,
    stuck: Stuck,
}

/// Since when nothing can be written to a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Stuck(Arc<Mutex<Option<Instant>>>);

impl Stuck {
    fn note<T>(&self, poll: Poll<T>) -> Poll<T> {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *since = match &poll {
            Poll::Pending => Some(since.unwrap_or_else(Instant::now)),
            Poll::Ready(_) => None,
        };
        poll
    }

    /// Waits until nothing could be written for half a minute.
    pub(super) async fn for_long(&self) {
        self.for_at_least(STUCK_MAX, LOOK).await;
    }

    async fn for_at_least(&self, long: Duration, look: Duration) {
        while !self.is_since(long) {
            sleep(look).await;
        }
    }

    fn is_since(&self, long: Duration) -> bool {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() >= long)
    }
}

impl Watched {
    pub(super) fn new(stream: TcpStream) -> (Self, Stuck) {
        let stuck = Stuck::default();
        let watched = Self {
            stream,
            stuck: stuck.clone(),
        };
        (watched, stuck)
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, octets);
        this.stuck.note(written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.stuck.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn who_does_not_read_is_seen_and_who_does_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut reader = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut stream, stuck) = Watched::new(listener.accept().await.unwrap().0);
        let block = vec![0; 64 * 1024];
        let mut written = 0;
        let writing = async {
            loop {
                stream.write_all(&block).await.unwrap();
                written += block.len();
            }
        };
        tokio::select! {
            () = stuck.for_at_least(Duration::from_millis(50), Duration::from_millis(5)) => {}
            () = writing => {}
        }
        assert!(written > 0 && stuck.is_since(Duration::ZERO));
        let mut read = vec![0; written];
        reader.read_exact(&mut read).await.unwrap();
        stream.write_all(b"more").await.unwrap();
        assert!(!stuck.is_since(Duration::ZERO));
    }
}
