//! A link over a stream: each message behind its length, two octets, little-endian.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::hello::Pipe;
use super::message::{MESSAGE_BYTES_MAX, next};

/// The most messages that wait, each way.
const WAITING_MAX: usize = 128;

/// How many messages are written at once.
const BATCH: usize = 32;

/// How much is read at once, in octets.
const READ_BYTES: usize = 16 * 1_024;

/// The tasks that read and write; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Tasks([AbortHandle; 2]);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// Makes a pipe of a stream. It ends with the stream, or with the tasks.
pub(super) fn pipe(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> (Pipe, Tasks) {
    let (reader, writer) = tokio::io::split(stream);
    let (to, outgoing) = mpsc::channel(WAITING_MAX);
    let (incoming, from) = mpsc::channel(WAITING_MAX);
    // However either of them ends, the other end of its channel sees it.
    let reading = tokio::spawn(async move { drop(read(reader, incoming).await) });
    let writing = tokio::spawn(async move { drop(write(writer, outgoing).await) });
    let tasks = Tasks([reading.abort_handle(), writing.abort_handle()]);
    (Pipe { to, from }, tasks)
}

async fn read(mut stream: impl AsyncRead + Unpin, incoming: mpsc::Sender<Bytes>) -> io::Result<()> {
    let mut octets = BytesMut::new();
    loop {
        while let Some(message) = next(&mut octets)? {
            // Who does not keep up slows the stream down.
            if incoming.send(message).await.is_err() {
                return Ok(());
            }
        }
        octets.reserve(READ_BYTES);
        if stream.read_buf(&mut octets).await? == 0 {
            return Ok(());
        }
    }
}

async fn write(
    mut stream: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    let (mut batch, mut octets) = (Vec::with_capacity(BATCH), BytesMut::new());
    while outgoing.recv_many(&mut batch, BATCH).await > 0 {
        let fits = |message: &Bytes| (1..=MESSAGE_BYTES_MAX).contains(&message.len());
        for message in batch.drain(..).filter(fits) {
            octets.put_u16_le(message.len() as u16);
            octets.put_slice(&message);
        }
        stream.write_all_buf(&mut octets).await?;
        stream.flush().await?;
    }
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_come_as_they_were_sent() {
        let (a, b) = tokio::io::duplex(700);
        let ((near, _near_tasks), (mut far, _far_tasks)) = (pipe(a), pipe(b));
        for length in [1, 2, 1_400, MESSAGE_BYTES_MAX, 3] {
            let message = Bytes::from(vec![length as u8; length]);
            near.to.send(message.clone()).await.unwrap();
            assert_eq!(far.from.recv().await, Some(message));
        }
        drop(near.to);
        assert_eq!(far.from.recv().await, None);
    }

    #[tokio::test]
    async fn a_length_that_cannot_be_ends_it() {
        for length in [0, MESSAGE_BYTES_MAX as u16 + 1] {
            let (mut a, b) = tokio::io::duplex(700);
            let (mut far, _tasks) = pipe(b);
            a.write_all(&length.to_le_bytes()).await.unwrap();
            assert_eq!(far.from.recv().await, None);
        }
    }
}
