//! TCP connections of a stack.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{RecvError, Socket, State};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Shared;
use super::core::Waiting;

/// A connection. Dropping it ends it in good order, unless something was not read.
pub struct Stream {
    shared: Arc<Shared>,
    handle: SocketHandle,
    breaks: AtomicBool,
}

impl Stream {
    pub(super) fn new(shared: Arc<Shared>, handle: SocketHandle) -> Self {
        Self {
            shared,
            handle,
            breaks: AtomicBool::new(false),
        }
    }

    /// Has it break off (RST) when it is dropped, not end in good order.
    pub fn break_when_dropped(&self) {
        self.breaks.store(true, Ordering::Relaxed);
    }

    pub(super) async fn connect(shared: &Arc<Shared>, to: SocketAddr) -> io::Result<Self> {
        let stream = Self::open(shared, to)?;
        shared.used.notify_one();
        std::future::poll_fn(|cx| stream.poll_connected(cx)).await?;
        Ok(stream)
    }

    fn open(shared: &Arc<Shared>, to: SocketAddr) -> io::Result<Self> {
        if shared.closed.is_cancelled() {
            return Err(io::ErrorKind::NetworkDown.into());
        }
        let mut core = shared.lock();
        let own = core.own_address(to.ip());
        let own = own.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let port = core.free_port();
        let handle = core.add_tcp()?;
        let core = &mut *core;
        let socket = core.sockets.get_mut::<Socket<'_>>(handle);
        let connected = socket.connect(core.interface.context(), to, SocketAddr::new(own, port));
        if let Err(error) = connected {
            core.remove(handle);
            return Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                error.to_string(),
            ));
        }
        Ok(Self::new(Arc::clone(shared), handle))
    }

    fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut core = self.shared.lock();
        let is_unreachable = core.unreachable.contains(&self.handle);
        let socket = core.sockets.get_mut::<Socket<'_>>(self.handle);
        match socket.state() {
            State::Closed if is_unreachable => {
                Poll::Ready(Err(io::ErrorKind::HostUnreachable.into()))
            }
            State::Closed => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
            State::SynSent | State::SynReceived => {
                socket.register_send_waker(cx.waker());
                Poll::Pending
            }
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut core = self.shared.lock();
        let socket = core.sockets.get_mut::<Socket<'_>>(self.handle);
        match socket.recv_slice(buffer.initialize_unfilled()) {
            Ok(0) if buffer.remaining() > 0 => {
                socket.register_recv_waker(cx.waker());
                Poll::Pending
            }
            Ok(length) => {
                buffer.advance(length);
                drop(core);
                // The other may be waiting for room.
                self.shared.used.notify_one();
                Poll::Ready(Ok(()))
            }
            Err(RecvError::Finished) => Poll::Ready(Ok(())),
            Err(RecvError::InvalidState) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut core = self.shared.lock();
        let socket = core.sockets.get_mut::<Socket<'_>>(self.handle);
        match socket.send_slice(octets) {
            Ok(0) if !octets.is_empty() => {
                socket.register_send_waker(cx.waker());
                Poll::Pending
            }
            Ok(length) => {
                drop(core);
                self.shared.used.notify_one();
                Poll::Ready(Ok(length))
            }
            Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The driver was told with every write.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut core = self.shared.lock();
        core.sockets.get_mut::<Socket<'_>>(self.handle).close();
        drop(core);
        self.shared.used.notify_one();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut core = self.shared.lock();
        core.unreachable.retain(|handle| *handle != self.handle);
        core.let_go(self.handle, self.breaks.load(Ordering::Relaxed));
        drop(core);
        self.shared.used.notify_one();
    }
}

/// Where connections to a port are taken, as long as it is there.
pub struct Listener {
    shared: Arc<Shared>,
    port: u16,
}

impl Listener {
    pub(super) fn new(shared: Arc<Shared>, port: u16) -> io::Result<Self> {
        let mut core = shared.lock();
        if core.listeners.contains_key(&port) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        core.listeners.insert(port, Waiting::default());
        drop(core);
        Ok(Self { shared, port })
    }

    /// Waits for a connection, and tells from where it is.
    ///
    /// # Errors
    /// [`io::ErrorKind::NetworkDown`] when the stack was closed.
    pub async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>> {
        let mut core = self.shared.lock();
        let Some(waiting) = core.listeners.get_mut(&self.port) else {
            return Poll::Ready(Err(io::ErrorKind::NetworkDown.into()));
        };
        if let Some((handle, from)) = waiting.ready.pop_front() {
            let stream = Stream::new(Arc::clone(&self.shared), handle);
            return Poll::Ready(Ok((stream, from)));
        }
        if self.shared.closed.is_cancelled() {
            return Poll::Ready(Err(io::ErrorKind::NetworkDown.into()));
        }
        waiting.taker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut core = self.shared.lock();
        let waiting = core.listeners.remove(&self.port).unwrap_or_default();
        for (handle, _) in waiting.ready {
            core.let_go(handle, false);
        }
        drop(core);
        self.shared.used.notify_one();
    }
}
