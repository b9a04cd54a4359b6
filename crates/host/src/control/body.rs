//! The body of a response: answers as lines of JSON, each sent as soon as it comes.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use enishi_api::Answer;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;
use tracing::warn;

/// Answers as a body. Dropping it, which hyper does when the caller hangs up, closes
/// the node's sender.
#[derive(Debug)]
pub(super) struct Answers(pub(super) mpsc::Receiver<Answer>);

impl Body for Answers {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|answer| answer.map(|answer| Ok(Frame::data(line(&answer)))))
    }
}

/// One answer as a line of JSON.
pub(super) fn line(answer: &Answer) -> Bytes {
    match serde_json::to_vec(answer) {
        Ok(mut json) => {
            json.push(b'\n');
            json.into()
        }
        // All maps of the interface have text keys, so this would be a defect of its types.
        Err(error) => {
            warn!(%error, "an answer could not be written as JSON");
            Bytes::new()
        }
    }
}
