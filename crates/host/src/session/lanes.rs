//! The three lanes on the wire: control frames, bulk streams, datagrams.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use iroh::endpoint::{RecvStream, SendDatagramError, SendStream, VarInt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::connection::Live;
use super::table::Current;

/// The first octet of a control stream.
pub(super) const LANE_CONTROL: u8 = 1;

/// The first octet of a bulk stream.
pub(super) const LANE_BULK: u8 = 2;

/// The longest control frame, in octets; a longer one is misbehaviour.
pub const CONTROL_FRAME_BYTES_MAX: usize = 256 * 1024;

/// Octets reserved for a frame before any of it has arrived.
const FRAME_RESERVE_BYTES: usize = 4 * 1024;

/// Why the control lane of a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlError {
    #[error("the peer announced a frame of {0} octets")]
    Oversized(usize),
    #[error("the peer opened a stream of unknown lane {0}")]
    UnknownLane(u8),
    #[error(transparent)]
    Lost(#[from] io::Error),
}

/// Begins a control stream: its lane and which life of the process this is.
pub(super) async fn write_control_start(
    stream: &mut SendStream,
    incarnation: u64,
) -> io::Result<()> {
    let mut start = [LANE_CONTROL; 9];
    start[1..].copy_from_slice(&incarnation.to_le_bytes());
    Ok(stream.write_all(&start).await?)
}

/// Reads the beginning of a control stream and returns the peer's incarnation.
pub(super) async fn read_control_start(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<u64, ControlError> {
    match stream.read_u8().await? {
        LANE_CONTROL => Ok(stream.read_u64_le().await?),
        other => Err(ControlError::UnknownLane(other)),
    }
}

/// Writes one control frame.
pub(super) async fn write_frame(stream: &mut SendStream, frame: &Bytes) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let length = Bytes::copy_from_slice(&length.to_le_bytes());
    Ok(stream
        .write_all_chunks(&mut [length, frame.clone()])
        .await?)
}

/// Reads one control frame; `None` at the end of the stream.
///
/// Memory grows with what arrives, not with what the length claims.
pub(super) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<Bytes>, ControlError> {
    let mut length = [0; 4];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await?;
    let length = u32::from_le_bytes(length) as usize;
    if length > CONTROL_FRAME_BYTES_MAX {
        return Err(ControlError::Oversized(length));
    }
    let mut frame = BytesMut::with_capacity(length.min(FRAME_RESERVE_BYTES));
    let mut rest = stream.take(length as u64);
    while frame.len() < length {
        if rest.read_buf(&mut frame).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    Ok(Some(frame.freeze()))
}

/// Keeps count of the bulk streams of a session: one with any is never idle.
pub(super) type BulkGuard = Arc<()>;

/// The receiving half of a bulk stream. Dropping it before its end tells the
/// sender to stop.
#[derive(Debug)]
pub struct BulkReader {
    stream: RecvStream,
    _open: BulkGuard,
}

/// The sending half of a bulk stream.
///
/// `shutdown` marks the end, which the other side reads as the end of the stream; it does
/// not wait until all was received. Dropped without that, the stream breaks off: the other
/// side reads an error, so it does not take a part for the whole.
#[derive(Debug)]
pub struct BulkWriter {
    stream: SendStream,
    ended: bool,
    _open: BulkGuard,
}

impl BulkReader {
    pub(super) fn new(stream: RecvStream, open: BulkGuard) -> Self {
        Self {
            stream,
            _open: open,
        }
    }
}

impl BulkWriter {
    pub(super) fn new(stream: SendStream, open: BulkGuard) -> Self {
        Self {
            stream,
            ended: false,
            _open: open,
        }
    }
}

impl Drop for BulkWriter {
    fn drop(&mut self) {
        if !self.ended {
            // Fails when it is closed already.
            let _ = self.stream.reset(VarInt::from_u32(0));
        }
    }
}

impl AsyncRead for BulkReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.stream), cx, buffer)
    }
}

impl AsyncWrite for BulkWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.stream), cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.stream), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended = true;
        AsyncWrite::poll_shutdown(Pin::new(&mut self.stream), cx)
    }
}

/// The datagram lane of the session with one peer. Cheap to clone.
///
/// It follows the session from one connection to the next. Once the session is
/// closed it stays closed; a later session has a lane of its own.
#[derive(Clone)]
pub struct DatagramLane {
    current: watch::Receiver<Current<Arc<Live>>>,
}

/// Why a datagram was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// The session is closed.
    #[error("the session is closed")]
    Closed,
    /// The datagram is larger than the path takes at present.
    #[error("the datagram is larger than the path takes, {bytes_max} octets")]
    TooLarge {
        /// The largest datagram the path takes at present, in octets.
        bytes_max: usize,
    },
}

impl DatagramLane {
    pub(super) fn new(current: watch::Receiver<Current<Arc<Live>>>) -> Self {
        Self { current }
    }

    /// Sends one datagram without waiting.
    ///
    /// It may be lost. When more than [`super::DATAGRAM_SEND_BYTES_MAX`] octets wait
    /// for the network, the oldest give way. One of a single octet, or none, the other session keeps to itself.
    ///
    /// # Errors
    /// [`DatagramError`]: the session is closed, or the datagram too large.
    pub fn send(&self, datagram: Bytes) -> Result<(), DatagramError> {
        self.with(|live| live.connection.send_datagram(datagram))
    }

    /// Sends several datagrams in order, cheaper than one by one.
    ///
    /// # Errors
    /// As [`Self::send`]; when some are too large, the others are sent.
    pub fn send_many(&self, datagrams: &[Bytes]) -> Result<(), DatagramError> {
        let sent = self.with(|live| live.connection.send_many_datagrams(datagrams).map(|_| ()));
        let Err(DatagramError::TooLarge { .. }) = sent else {
            return sent;
        };
        // One that is too large had the library refuse all.
        for datagram in datagrams {
            if self.send(datagram.clone()) == Err(DatagramError::Closed) {
                return Err(DatagramError::Closed);
            }
        }
        sent
    }

    /// Returns the largest datagram that the path takes at present, in octets, or
    /// `None` when the session is closed. It grows as path MTU discovery proceeds,
    /// and may shrink when the path changes.
    pub fn bytes_max(&self) -> Option<usize> {
        let current = self.current.borrow();
        current.as_ref()?.1.connection.max_datagram_size()
    }

    fn with(
        &self,
        send: impl FnOnce(&Live) -> Result<(), SendDatagramError>,
    ) -> Result<(), DatagramError> {
        let current = self.current.borrow();
        let (_, live) = current.as_ref().ok_or(DatagramError::Closed)?;
        send(live).map_err(|error| match error {
            SendDatagramError::TooLarge => DatagramError::TooLarge {
                bytes_max: live.connection.max_datagram_size().unwrap_or(0),
            },
            // Both ends always allow datagrams: what remains is a lost connection.
            SendDatagramError::UnsupportedByPeer
            | SendDatagramError::Disabled
            | SendDatagramError::ConnectionLost(_) => DatagramError::Closed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_read_to_the_end_of_the_stream() {
        let mut octets = &b"\x01\x08\x07\x06\x05\x04\x03\x02\x01\x02\0\0\0hi\0\0\0\0"[..];
        let start = read_control_start(&mut octets).await.unwrap();
        assert_eq!(start, 0x0102_0304_0506_0708);
        assert_eq!(read_frame(&mut octets).await.unwrap().unwrap(), "hi");
        assert_eq!(read_frame(&mut octets).await.unwrap().unwrap(), "");
        assert!(read_frame(&mut octets).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn truncated_oversized_and_foreign_streams_are_refused() {
        for mut octets in [&b"\x02\0"[..], b"\x02\0\0\0", b"\x02\0\0\0h"] {
            let error = read_frame(&mut octets).await.unwrap_err();
            assert!(matches!(error, ControlError::Lost(_)));
        }
        let over = u32::try_from(CONTROL_FRAME_BYTES_MAX + 1).unwrap();
        let error = read_frame(&mut &over.to_le_bytes()[..]).await.unwrap_err();
        assert!(matches!(error, ControlError::Oversized(_)));
        let error = read_control_start(&mut &[LANE_BULK; 9][..]).await;
        assert!(matches!(error, Err(ControlError::UnknownLane(LANE_BULK))));
    }
}
