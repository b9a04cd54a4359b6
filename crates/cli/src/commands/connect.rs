//! `enishi connect`: standard input and output become a byte stream to another member.

use std::io::{ErrorKind, IsTerminal};

use enishi_api::StreamRequest;
use enishi_host::control::records::{self, CopyError};
use tokio::io::{self, AsyncRead};

use super::Context;
use crate::args::Connect;
use crate::problem::{Problem, Verdict};
use crate::text::Message;

/// How much of what is typed waits to be sent, in octets.
const TYPED_BYTES_MAX: usize = 4 * 1024;

/// Copies both ways until both directions have ended; the end of one is passed on
/// while the other still flows. Someone who types is not waited for once the other
/// member has ended its direction.
///
/// Standard output carries the stream, with `--json` too.
pub(super) async fn run(cx: &Context, options: Connect) -> Result<Verdict, Problem> {
    let request = request(options);
    if let StreamRequest::Listen { service } = &request {
        cx.out.hint(&Message::StreamWaiting { service });
    }
    let stream = cx.client.stream(&request).await?;
    let (from_member, to_member) = io::split(stream);
    let (input, typing) = input();
    let sending = tokio::spawn(records::pack(input, to_member));
    match records::unpack(from_member, io::stdout()).await {
        Ok(()) => {}
        Err(CopyError::Source(error)) => return Err(broke(cx, &error)),
        Err(CopyError::Sink(error)) => return Err(Problem::of_output(&error)),
    }
    if let Some(typing) = typing {
        typing.abort();
    }
    match sending.await {
        Ok(Ok(())) => Ok(Verdict::Yes),
        Ok(Err(CopyError::Source(error) | CopyError::Sink(error))) => Err(broke(cx, &error)),
        Err(error) => Err(broke(cx, &error.into())),
    }
}

/// What is sent: standard input. With the task that reads it when a person types, whose end is
/// then the end of what is sent.
fn input() -> (
    Box<dyn AsyncRead + Send + Unpin>,
    Option<tokio::task::JoinHandle<()>>,
) {
    let mut stdin = io::stdin();
    if !std::io::stdin().is_terminal() {
        return (Box::new(stdin), None);
    }
    let (typed, mut keys) = io::duplex(TYPED_BYTES_MAX);
    let typing = tokio::spawn(async move {
        // Ends when the stream has: nobody reads then.
        let _ = io::copy(&mut stdin, &mut keys).await;
    });
    (Box::new(typed), Some(typing))
}

fn broke(cx: &Context, error: &io::Error) -> Problem {
    let error = (error.kind() != ErrorKind::UnexpectedEof).then_some(error);
    Problem::No(cx.out.text(&Message::StreamBroke { error }))
}

fn request(options: Connect) -> StreamRequest {
    match (options.listen, options.target, options.service) {
        (Some(service), _, _) => StreamRequest::Listen { service },
        (None, Some(target), Some(service)) => StreamRequest::Connect { target, service },
        (None, _, _) => unreachable!("clap requires a target and a service, or --listen"),
    }
}
