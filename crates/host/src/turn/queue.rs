//! What waits to be written into a stream: data are lost where there is no room, as datagrams would be. What
//! else the protocol says it says once in a stream, and it has room of its own.

use std::time::Duration;

use enishi_stun::{in_stream, is_data};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// The room that data leave to other messages: more than a client has requests under way, for 64 peers a
/// permission and a channel each, all of them renewed at the same time.
const RESERVED: usize = 160;

/// How long a stream may take nothing.
const WRITE_TIME_MAX: Duration = Duration::from_secs(20);

/// A message that must not be lost has no room: the stream is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Where messages are put.
pub(super) struct Queue(mpsc::Sender<Vec<u8>>);

impl Queue {
    /// Makes one for so many messages with data.
    pub(super) fn new(data_max: usize) -> (Self, mpsc::Receiver<Vec<u8>>) {
        let (messages, waiting) = mpsc::channel(data_max + RESERVED);
        (Self(messages), waiting)
    }

    /// Puts a message there, or loses one with data.
    ///
    /// # Errors
    /// When there is no room for another one. What was ended loses all.
    pub(super) fn put(&self, message: Vec<u8>) -> Result<(), Full> {
        if is_data(&message) && self.0.capacity() <= RESERVED {
            return Ok(());
        }
        match self.0.try_send(message) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Full),
        }
    }
}

/// Writes what waits, until nobody puts anything there any more or the stream takes nothing.
pub(super) async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut waiting: mpsc::Receiver<Vec<u8>>,
) {
    while let Some(message) = waiting.recv().await {
        let octets = in_stream(message);
        let written = tokio::time::timeout(WRITE_TIME_MAX, writer.write_all(&octets));
        if !matches!(written.await, Ok(Ok(()))) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_leave_room_for_what_is_said_once() {
        let (queue, mut waiting) = Queue::new(3);
        let data = || vec![0x40, 0, 0, 0];
        let (_, question) = enishi_stun::question();
        for _ in 0..10 {
            assert_eq!(queue.put(data()), Ok(()));
        }
        assert_eq!(waiting.len(), 3);
        for _ in 0..RESERVED {
            assert_eq!(queue.put(question.clone()), Ok(()));
        }
        assert_eq!(queue.put(question.clone()), Err(Full));
        assert_eq!(queue.put(data()), Ok(()));
        assert_eq!(waiting.len(), 3 + RESERVED);
        // In their order.
        assert_eq!(waiting.try_recv(), Ok(data()));
        waiting.close();
        assert_eq!(queue.put(question), Ok(()));
    }
}
