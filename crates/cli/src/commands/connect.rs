//! `enishi connect`: standard input and output become a byte stream to another member.

use std::io::IsTerminal;

use enishi_api::StreamRequest;
use tokio::io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Context;
use crate::args::Connect;
use crate::problem::{Problem, Verdict};
use crate::text::Message;

/// How much is read from the stream at once, in octets.
const BUFFER_BYTES: usize = 64 * 1024;

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
    let sending = tokio::spawn(send(to_member));
    let received = receive(from_member).await;
    let sent = if received.is_err() || std::io::stdin().is_terminal() {
        Ok(())
    } else {
        sending.await.unwrap_or_else(|error| Err(error.into()))
    };
    let broke = |error| Problem::No(cx.out.text(&Message::StreamBroke { error: &error }));
    received?.and(sent).map_err(broke)?;
    Ok(Verdict::Yes)
}

async fn send(mut to_member: impl AsyncWrite + Unpin) -> io::Result<()> {
    io::copy(&mut io::stdin(), &mut to_member).await?;
    to_member.shutdown().await
}

/// Copies to standard output; the outer error is that of the output, the inner one
/// that of the stream.
async fn receive(mut from_member: impl AsyncRead + Unpin) -> Result<io::Result<()>, Problem> {
    let mut stdout = io::stdout();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from_member.read(&mut buffer).await {
            Ok(0) => return Ok(Ok(())),
            Ok(count) => {
                let written = stdout.write_all(&buffer[..count]).await;
                let written = written.and(stdout.flush().await);
                written.map_err(|error| Problem::of_output(&error))?;
            }
            Err(error) => return Ok(Err(error)),
        }
    }
}

fn request(options: Connect) -> StreamRequest {
    match (options.listen, options.target, options.service) {
        (Some(service), _, _) => StreamRequest::Listen { service },
        (None, Some(target), Some(service)) => StreamRequest::Connect { target, service },
        (None, _, _) => unreachable!("clap requires a target and a service, or --listen"),
    }
}
