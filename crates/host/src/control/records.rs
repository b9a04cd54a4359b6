//! How a byte stream passes the control socket, so that one that broke off is told from one that
//! ended: a socket that is closed looks the same either way.
//!
//! ```text
//! 0        2
//! +--------+-----------------+
//! | length | octets (length) |   length big-endian; 0: the direction ended in good order
//! +--------+-----------------+
//! ```
//!
//! Both directions of the socket are such records. An end of the socket without a record of
//! length 0 means that the stream broke off.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The octets of a length.
const LENGTH_BYTES: usize = 2;

/// The most octets of one record.
const RECORD_BYTES_MAX: usize = u16::MAX as usize;

/// Which side of a copy failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// It could not be read from.
    #[error(transparent)]
    Source(io::Error),
    /// It could not be written to.
    #[error(transparent)]
    Sink(io::Error),
}

/// Copies octets until they end, and writes them as records with a last one of length 0; then
/// shuts the sink down.
///
/// # Errors
/// [`CopyError`]; the last record is not written then.
pub async fn pack(
    mut source: impl AsyncRead + Unpin,
    mut sink: impl AsyncWrite + Unpin,
) -> Result<(), CopyError> {
    let mut record = vec![0; LENGTH_BYTES + RECORD_BYTES_MAX];
    loop {
        let read = source.read(&mut record[LENGTH_BYTES..]).await;
        let count = read.map_err(CopyError::Source)?;
        // As long as the record at most.
        record[..LENGTH_BYTES].copy_from_slice(&(count as u16).to_be_bytes());
        let written = sink.write_all(&record[..LENGTH_BYTES + count]).await;
        written.map_err(CopyError::Sink)?;
        if count == 0 {
            return sink.shutdown().await.map_err(CopyError::Sink);
        }
        sink.flush().await.map_err(CopyError::Sink)?;
    }
}

/// Copies the octets of records until the one of length 0; then shuts the sink down.
///
/// # Errors
/// [`CopyError`]; of the source with [`ErrorKind::UnexpectedEof`] when it ended without that
/// record. The sink is not shut down then.
pub async fn unpack(
    mut source: impl AsyncRead + Unpin,
    mut sink: impl AsyncWrite + Unpin,
) -> Result<(), CopyError> {
    let mut octets = vec![0; RECORD_BYTES_MAX];
    loop {
        let length = source.read_u16().await.map_err(CopyError::Source)?;
        if length == 0 {
            return sink.shutdown().await.map_err(CopyError::Sink);
        }
        let mut left = usize::from(length);
        while left > 0 {
            let read = source.read(&mut octets[..left]).await;
            let count = read.map_err(CopyError::Source)?;
            if count == 0 {
                return Err(CopyError::Source(ErrorKind::UnexpectedEof.into()));
            }
            let written = sink.write_all(&octets[..count]).await;
            written.map_err(CopyError::Sink)?;
            left -= count;
        }
        sink.flush().await.map_err(CopyError::Sink)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_packed_is_unpacked_and_every_shorter_piece_is_broken() {
        let octets: Vec<u8> = (0..=255).cycle().take(200_000).collect();
        let (mut packed, mut unpacked) = (Vec::new(), Vec::new());
        pack(&octets[..], &mut packed).await.unwrap();
        unpack(&packed[..], &mut unpacked).await.unwrap();
        assert_eq!(unpacked, octets);

        let mut packed = Vec::new();
        pack(&octets[..300], &mut packed).await.unwrap();
        for length in 0..packed.len() {
            let error = unpack(&packed[..length], &mut Vec::new()).await;
            let Err(CopyError::Source(error)) = error else {
                panic!("{length} octets were taken for the whole")
            };
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        }
    }
}
