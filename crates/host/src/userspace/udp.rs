//! Datagrams of a stack.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp;
use smoltcp::socket::udp::{PacketBuffer, PacketMetadata, RecvError};

use super::Shared;

/// How many datagrams, and how many octets of them, wait in each direction of a socket.
const DATAGRAMS_MAX: usize = 256;
const BUFFER_BYTES: usize = 256 * 1024;

/// A socket for datagrams, at both addresses of this node.
pub struct Socket {
    shared: Arc<Shared>,
    handle: SocketHandle,
}

impl Socket {
    pub(super) fn bind(shared: Arc<Shared>, port: u16) -> io::Result<Self> {
        if shared.closed.is_cancelled() {
            return Err(io::ErrorKind::NetworkDown.into());
        }
        let mut core = shared.lock();
        let port = match port {
            0 => core.free_port(),
            port => port,
        };
        let is_taken = core.sockets.iter().any(|(_, socket)| {
            matches!(socket, smoltcp::socket::Socket::Udp(socket) if socket.endpoint().port == port)
        });
        if is_taken {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let buffer = || {
            let metadata = vec![PacketMetadata::EMPTY; DATAGRAMS_MAX];
            PacketBuffer::new(metadata, vec![0; BUFFER_BYTES])
        };
        let mut socket = udp::Socket::new(buffer(), buffer());
        let bound = socket.bind(port);
        bound.map_err(|_| io::ErrorKind::AddrNotAvailable)?;
        let handle = core.add(socket)?;
        drop(core);
        Ok(Self { shared, handle })
    }

    /// Sends a datagram. Without room it is lost, as in any network.
    ///
    /// # Errors
    /// When the stack was closed, or the address makes no sense.
    pub fn send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        let mut core = self.shared.lock();
        let socket = core.sockets.get_mut::<udp::Socket<'_>>(self.handle);
        let sent = socket.send_slice(datagram, to);
        drop(core);
        self.shared.used.notify_one();
        match sent {
            Ok(()) | Err(udp::SendError::BufferFull) => Ok(()),
            Err(udp::SendError::Unaddressable) => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }

    /// Waits for a datagram, and returns its length and from whom it is. What finds no room in
    /// the buffer is cut off.
    ///
    /// # Errors
    /// [`io::ErrorKind::NetworkDown`] when the stack was closed.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        std::future::poll_fn(|cx| self.poll_receive(cx, buffer)).await
    }

    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut core = self.shared.lock();
        let socket = core.sockets.get_mut::<udp::Socket<'_>>(self.handle);
        if !socket.is_open() {
            return Poll::Ready(Err(io::ErrorKind::NetworkDown.into()));
        }
        match socket.recv() {
            Ok((datagram, metadata)) => {
                let length = datagram.len().min(buffer.len());
                buffer[..length].copy_from_slice(&datagram[..length]);
                let from = metadata.endpoint;
                Poll::Ready(Ok((length, SocketAddr::new(from.addr.into(), from.port))))
            }
            Err(RecvError::Exhausted | RecvError::Truncated) => {
                socket.register_recv_waker(cx.waker());
                Poll::Pending
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.shared.lock().remove(self.handle);
    }
}
