//! Bodies that come from outside, as one run of octets.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::sync::mpsc::UnboundedSender;

/// Why a body did not come whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It is longer than may be, or there is no room for it.
    Long,
    /// The connection ended before it did, or what came is none.
    Broken,
}

/// Octets that send word when nobody refers to them any longer: they were written, or are not going to be.
struct Counted<T> {
    octets: Bytes,
    to: UnboundedSender<T>,
    word: Option<T>,
}

impl<T> AsRef<[u8]> for Counted<T> {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

impl<T> Drop for Counted<T> {
    fn drop(&mut self) {
        // Who counted them may have gone.
        let _ = self.word.take().map(|word| self.to.send(word));
    }
}

/// Has `word` sent when the last reference to `octets` goes. What waits in the channel is as many words as there
/// were octets handed on.
pub(crate) fn counted<T: Send + 'static>(octets: Bytes, to: UnboundedSender<T>, word: T) -> Bytes {
    Bytes::from_owner(Counted {
        octets,
        to,
        word: Some(word),
    })
}

/// Reads a body that begins with `begun`, of at most `bytes_max` octets, and tells how many came each time some
/// did; where that is answered with `false` there is no room.
///
/// Each part is copied and given up before the next is read: however small it is, it may keep a whole buffer
/// of the connection. What is read takes at most three times its length for a moment, whatever was declared.
///
/// # Errors
/// When it is longer, or cut.
pub(crate) async fn read<B: Body<Data = Bytes> + Unpin>(
    mut body: B,
    begun: Bytes,
    bytes_max: usize,
    mut came: impl FnMut(usize) -> bool,
) -> Result<Bytes, BodyError> {
    let mut octets = Vec::from(begun);
    if octets.len() > bytes_max || !came(octets.len()) {
        return Err(BodyError::Long);
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| BodyError::Broken)?;
        // Trailers are nothing to us.
        let Ok(part) = frame.into_data() else {
            continue;
        };
        if part.len() > bytes_max - octets.len() || !came(part.len()) {
            return Err(BodyError::Long);
        }
        octets.extend_from_slice(&part);
    }
    Ok(octets.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use hyper::body::Frame;

    /// A buffer of 8 KiB that tells by its references whether it lives.
    struct Buffer(Vec<u8>, #[allow(dead_code, reason = "it counts")] Arc<()>);

    impl AsRef<[u8]> for Buffer {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    /// Parts of one octet, each in a buffer of its own.
    struct Dribble {
        left: usize,
        buffers: Arc<()>,
        most: usize,
    }

    impl Body for &mut Dribble {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let this = &mut **self;
            this.most = this.most.max(Arc::strong_count(&this.buffers) - 1);
            if this.left == 0 {
                return Poll::Ready(None);
            }
            this.left -= 1;
            let buffer = Buffer(vec![b'x'; 8 * 1024], this.buffers.clone());
            let part = Bytes::from_owner(buffer).slice(..1);
            Poll::Ready(Some(Ok(Frame::data(part))))
        }
    }

    #[tokio::test]
    async fn small_parts_keep_no_buffers() {
        let dribble = |left| Dribble {
            left,
            buffers: Arc::default(),
            most: 0,
        };
        let (mut body, mut came) = (dribble(5_000), 0);
        let count = |bytes| {
            came += bytes;
            true
        };
        let octets = read(&mut body, Bytes::new(), 5_000, count).await.unwrap();
        assert_eq!((octets.len(), came), (5_000, 5_000));
        assert_eq!(body.most, 0, "buffers live on");
        let mut body = dribble(5_000);
        let refused = read(&mut body, Bytes::new(), 100, |_| true).await;
        assert_eq!((refused, body.left), (Err(BodyError::Long), 5_000 - 101));
    }
}
