//! The UDP socket of the data plane: many datagrams with one system call.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::ecn::NOT_CAPABLE;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use noq_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};

/// The most octets of one batch, that is of one send: what fits one IPv4 packet (RFC 791),
/// which is what the kernel cuts it from.
pub const BATCH_BYTES_MAX: usize = 65_507;
/// How many octets of datagrams the kernel may keep for us, in each direction.
const BUFFER_BYTES: usize = 4 << 20;
/// How long a full send buffer is waited for before the datagrams are lost.
const SEND_PATIENCE: Duration = Duration::from_millis(5);

/// A UDP socket for both IP versions, or for IPv4 where there is no IPv6.
pub struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    address: SocketAddr,
}

/// Datagrams that came from one address, all of one length but the last, which may be
/// shorter.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// From where.
    pub from: SocketAddr,
    /// How many octets of the buffer they fill.
    pub bytes: usize,
    /// The length of each.
    pub stride: usize,
    /// Whether a router marked them: it is congested.
    pub is_marked: bool,
    /// What their headers say of congestion ([`crate::ecn`]).
    pub ecn: u8,
}

impl Socket {
    /// Opens a socket on a port; on any for 0.
    ///
    /// # Errors
    /// When the port is in use, or the system refuses.
    pub fn bind(port: u16) -> io::Result<Self> {
        let any6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let any4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let socket = UdpSocket::bind(any6).or_else(|_| UdpSocket::bind(any4))?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // The system may allow less, which costs speed alone.
        let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), BUFFER_BYTES);
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), BUFFER_BYTES);
        let address = socket.local_addr()?;
        Ok(Self {
            socket,
            state,
            address,
        })
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns the most datagrams of one batch; 1 where the kernel cannot cut batches.
    pub fn batch_datagrams_max(&self) -> usize {
        self.state.max_gso_segments().get()
    }

    /// Sends datagrams of `stride` octets each, of which the last may be shorter, and says this
    /// of congestion in their headers ([`crate::ecn`]). Waits for
    /// room for five milliseconds.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there was no room; [`is_too_long`] errors when the
    /// path to the first router takes less; others when there is no route.
    pub fn send(
        &self,
        (to, ecn): (SocketAddr, u8),
        datagrams: &[u8],
        stride: usize,
    ) -> io::Result<()> {
        let destination = match (self.address.is_ipv6(), to) {
            (true, SocketAddr::V4(to)) => (to.ip().to_ipv6_mapped(), to.port()).into(),
            _ => to,
        };
        let segment_size = Some(stride);
        let contents = datagrams;
        let transmit = Transmit {
            destination,
            ecn: EcnCodepoint::from_bits(ecn),
            contents,
            segment_size,
            src_ip: None,
        };
        let sent = self
            .state
            .try_send(UdpSockRef::from(&self.socket), &transmit);
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let patience = PollTimeout::try_from(SEND_PATIENCE).unwrap_or(PollTimeout::ZERO);
                poll(
                    &mut [PollFd::new(self.as_fd(), PollFlags::POLLOUT)],
                    patience,
                )?;
                self.state
                    .try_send(UdpSockRef::from(&self.socket), &transmit)
            }
            sent => sent,
        }
    }

    /// Takes what has arrived, without waiting: for each buffer at most one batch from one
    /// address. `batches` tells what they hold; returns how many.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing is there; others seldom, and passing.
    pub fn receive(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        batches: &mut [Option<Received>],
    ) -> io::Result<usize> {
        const MOST: usize = noq_udp::BATCH_SIZE;
        let mut meta = [RecvMeta::default(); MOST];
        let most = buffers.len().min(batches.len()).min(MOST);
        let received = self.state.recv(
            UdpSockRef::from(&self.socket),
            &mut buffers[..most],
            &mut meta[..most],
        )?;
        for (batch, meta) in batches.iter_mut().zip(&meta[..received]) {
            *batch = Some(Received {
                from: canonical(meta.addr),
                bytes: meta.len,
                stride: meta.stride.max(1),
                is_marked: meta.ecn == Some(EcnCodepoint::Ce),
                ecn: meta.ecn.map_or(NOT_CAPABLE, |ecn| ecn as u8),
            });
        }
        Ok(received)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Tells whether a send failed because the datagrams are too long for the path.
pub fn is_too_long(error: &io::Error) -> bool {
    noq_udp::is_msg_size_err(error)
}

/// Writes an IPv4 address in an IPv6 one as what it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
