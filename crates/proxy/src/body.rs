//! Bodies that come from outside, as one run of octets.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;

/// Why a body did not come whole.
#[derive(Debug)]
pub(crate) enum BodyError<E> {
    /// It is longer than may be.
    Long,
    /// It was cut, or what came is none.
    Broken(E),
}

/// Reads a body of at most `bytes_max` octets.
///
/// Each part is copied and given up before the next is read: however small it is, it may keep a whole buffer
/// of the connection.
///
/// # Errors
/// When it is longer, or cut.
pub(crate) async fn read<B: Body<Data = Bytes> + Unpin>(
    mut body: B,
    bytes_max: usize,
) -> Result<Vec<u8>, BodyError<B::Error>> {
    let mut octets = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(BodyError::Broken)?;
        // Trailers are nothing to us.
        let Ok(part) = frame.into_data() else {
            continue;
        };
        if part.len() > bytes_max - octets.len() {
            return Err(BodyError::Long);
        }
        octets.extend_from_slice(&part);
    }
    Ok(octets)
}
