//! Clients that come to this node's TURN server by TCP (RFC 8656, section 2.1).
//!
//! Each stream has a task, which hands the messages in it to the protocol machine and writes what that
//! says to it. Strangers can open streams: one without an allocation is closed soon, and sooner when what
//! comes in it means nothing. There are few of them, whatever those have who have allocations.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use enishi_stun::{Input, Stream, subscriber};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::queue::{self, Queue};
use super::server::{Inner, State, wait_after};
use super::{canonical, lock};

/// The most streams without an allocation.
const UNSERVED_MAX: usize = 64;

/// The most of one subscriber: of an IPv4 address, or of the /64 of an IPv6 address.
const UNSERVED_OF_ONE_MAX: usize = 8;

/// How many messages without a meaning end a stream that has no allocation.
const IGNORED_MAX: u64 = 4;

/// For how long a stream may be without an allocation, and how often it is looked.
const UNSERVED_TIME_MAX: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The most messages with data that wait for a stream; further ones are lost, as datagrams would be.
const WAITING_MAX: usize = 64;

/// How much is read at once, in octets.
const READ_BYTES: usize = 16 * 1024;

/// The streams of clients, by the address of their other ends.
#[derive(Default)]
pub(super) struct Streams(BTreeMap<SocketAddr, Open>);

/// A stream.
struct Open {
    messages: Queue,
    /// Ends it.
    stop: CancellationToken,
    task: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Streams {
    /// Writes a message to a client. Without room data are lost, and without any other message the client
    /// would wait in vain: the stream ends.
    pub(super) fn write(&self, to: SocketAddr, message: Vec<u8>) {
        if let Some(open) = self.0.get(&to)
            && open.messages.put(message).is_err()
        {
            open.stop.cancel();
        }
    }

    /// Closes all.
    pub(super) fn close(&mut self) {
        self.0.clear();
    }

    /// Tells whether another one is taken. Those that are served do not count: there are no more than
    /// allocations.
    fn has_room(&self, source: SocketAddr, is_served: impl Fn(SocketAddr) -> bool) -> bool {
        let unserved = || self.0.keys().filter(|known| !is_served(**known));
        let place = subscriber(source.ip());
        let near = unserved().filter(|known| subscriber(known.ip()) == place);
        unserved().count() < UNSERVED_MAX
            && near.count() < UNSERVED_OF_ONE_MAX
            && !self.0.contains_key(&source)
    }
}

/// Takes streams, as long as the server runs.
pub(super) async fn accept(inner: Arc<Inner>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, source)) => begin(&inner, stream, canonical(source)),
            Err(error) => wait_after(&error).await,
        }
    }
}

fn begin(inner: &Arc<Inner>, stream: TcpStream, source: SocketAddr) {
    // The task finds its entry, as it waits for the lock when it ends.
    let mut state = lock(&inner.state);
    let State {
        server, streams, ..
    } = &mut *state;
    if streams.has_room(source, |known| server.serves_stream(known)) {
        let (messages, waiting) = Queue::new(WAITING_MAX);
        let stop = CancellationToken::new();
        let task = serve(Arc::clone(inner), stream, source, waiting, stop.clone());
        let task = tokio::spawn(task).abort_handle();
        let open = Open {
            messages,
            stop,
            task,
        };
        streams.0.insert(source, open);
    }
}

async fn serve(
    inner: Arc<Inner>,
    stream: TcpStream,
    source: SocketAddr,
    waiting: mpsc::Receiver<Vec<u8>>,
    stop: CancellationToken,
) {
    // What is relayed is not to wait for more.
    let _ = stream.set_nodelay(true);
    let (mut reader, writer) = stream.into_split();
    let read = async {
        let (mut buffer, mut found) = (vec![0; READ_BYTES], Stream::default());
        let (mut served, mut ignored) = (Instant::now(), 0);
        while served.elapsed() < UNSERVED_TIME_MAX && ignored < IGNORED_MAX {
            match tokio::time::timeout(LOOK_INTERVAL, reader.read(&mut buffer)).await {
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(length)) => {
                    found.push(&buffer[..length]);
                    let Ok(without_meaning) = take(&inner, source, &mut found) else {
                        return;
                    };
                    ignored += without_meaning;
                    // Others have their turn.
                    tokio::task::yield_now().await;
                }
                Err(_) => {}
            }
            if lock(&inner.state).server.serves_stream(source) {
                (served, ignored) = (Instant::now(), 0);
            }
        }
    };
    tokio::select! {
        () = queue::write(writer, waiting) => {}
        () = read => {}
        () = stop.cancelled() => {}
    }
    inner.take(Input::StreamEnded(source));
    drop(lock(&inner.state).streams.0.remove(&source));
}

/// Hands over the messages that are whole, and returns how many were ignored.
fn take(inner: &Arc<Inner>, source: SocketAddr, found: &mut Stream) -> io::Result<u64> {
    let mut ignored = 0;
    while let Some(message) = found.message().map_err(io::Error::other)? {
        let message = message.as_slice();
        ignored += inner.take(Input::FromStream { source, message });
    }
    Ok(ignored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn strangers_have_few_streams_and_take_none_from_who_is_served() {
        let mut streams = Streams::default();
        let mut open = |source: SocketAddr, is_served: &dyn Fn(SocketAddr) -> bool| {
            let has_room = streams.has_room(source, is_served);
            if has_room {
                let (messages, _) = Queue::new(1);
                let stop = CancellationToken::new();
                let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
                let open = Open {
                    messages,
                    stop,
                    task,
                };
                streams.0.insert(source, open);
            }
            has_room
        };
        let at = |host: u8, port: u16| SocketAddr::from(([20, 0, 0, host], port));
        // A subscriber has many addresses.
        let six = |host: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 1, 0, 0, 0, host], 1));
        let nobody = |_| false;
        let of_one = |open: &mut dyn FnMut(u16) -> bool| (1..100).filter(|n| open(*n)).count();
        let one = of_one(&mut |port| open(at(1, port), &nobody));
        assert_eq!(one, UNSERVED_OF_ONE_MAX);
        let six = of_one(&mut |host| open(six(host), &nobody));
        assert_eq!(six, UNSERVED_OF_ONE_MAX);
        assert!(
            open(at(2, 1), &nobody) && !open(at(2, 1), &nobody),
            "it is there already"
        );
        let others = of_one(&mut |host| open(at(2 + host as u8, 1), &nobody));
        assert_eq!(others, UNSERVED_MAX - 2 * UNSERVED_OF_ONE_MAX - 1);
        assert!(!open(at(200, 1), &nobody));
        // Those who are served leave their room to others, of their own address too.
        let is_one = |known: SocketAddr| known.ip() == at(1, 1).ip();
        let more = of_one(&mut |port| open(at(1, 1_000 + port), &is_one));
        assert_eq!(more, 99, "all of them are served");
        assert!(open(at(200, 1), &is_one));
    }
}
