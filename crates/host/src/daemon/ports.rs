//! Ports in channels for programs that use the control interface: taking connections to a port of
//! this node, with the member that each is of, and connecting to a port of a member by its id.
//!
//! A connection waits here between being told of and being taken.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use enishi_api::{Answer, Failure, PortConnection};
use enishi_overlay::NodeId;
use enishi_services::Node;
use tokio::io::{self, AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use super::channels::{sentence, unknown};
use super::desk::{Desk, no, usage};
use crate::control::Duplex;
use crate::packets::{Connection, Reach};

/// How many connections wait to be taken; further ones are ended at once.
const WAITING_MAX: usize = 64;

/// For how long one waits.
const WAITING_TIME_MAX: Duration = Duration::from_secs(5);

/// Before a port is tried again that gave no connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections that were told of and not taken yet.
#[derive(Default)]
pub(super) struct Arrivals(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    last: u64,
    connections: BTreeMap<u64, Unended>,
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a connection, and numbers it; none when there is no room.
    fn keep(&self, connection: Unended) -> Option<u64> {
        let mut waiting = self.lock();
        if waiting.connections.len() >= WAITING_MAX {
            return None;
        }
        waiting.last += 1;
        let number = waiting.last;
        waiting.connections.insert(number, connection);
        Some(number)
    }

    fn take(&self, number: u64) -> Option<Unended> {
        self.lock().connections.remove(&number)
    }
}

/// Takes connections to a port until the caller hangs up.
pub(super) async fn listen(
    desk: &Desk,
    channel: String,
    port: u16,
    answers: &mpsc::Sender<Answer>,
) -> Result<Answer, Failure> {
    let reach = reach(desk, &channel).await?;
    let mut changes = desk.shared.networks.changes();
    let mut listener = reach.listen(port).map_err(|error| {
        no(format!(
            "Port {port} of this node in channel `{channel}` cannot be taken: {error}."
        ))
    })?;
    let _ = answers.send(Answer::PortOpen).await;
    loop {
        let accepted = tokio::select! {
            // Only waiting may be given up: what was accepted is told of, or broken off.
            accepted = listener.accept() => accepted,
            changed = changes.changed() => {
                let now = self::reach(desk, &channel).await?;
                if changed.is_err() || !now.is_same(&reach) {
                    return Err(no(format!(
                        "This node's network in channel `{channel}` is another now; ask again."
                    )));
                }
                continue;
            }
        };
        let Ok((stream, from)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        if let Some(arrived) = arrival(desk, &channel, Unended::new(stream), from).await {
            let _ = answers.send(Answer::PortConnection(arrived)).await;
        }
    }
}

/// Finds out of whom a connection is, and keeps it until it is taken.
async fn arrival(
    desk: &Desk,
    channel: &str,
    connection: Unended,
    from: SocketAddr,
) -> Option<PortConnection> {
    let (channel, address) = (channel.to_owned(), from.ip());
    let member = desk
        .look(move |node| member_at(node, &channel, address))
        .await
        .ok()?;
    let connection = desk.shared.arrivals.keep(connection)?;
    let desk = desk.clone();
    tokio::spawn(async move {
        tokio::time::sleep(WAITING_TIME_MAX).await;
        drop(desk.shared.arrivals.take(connection));
    });
    Some(PortConnection {
        connection,
        from,
        node_id: member.map(|id| id.to_string()),
    })
}

/// Returns the member with which packets are exchanged and that has an address: the engine takes
/// no packet from that address but of it. This node itself has its own.
fn member_at(node: &Node, channel: &str, address: IpAddr) -> Option<NodeId> {
    let (_, channel) = node.vnet().by_name(channel)?;
    let own = [
        channel.address().map(IpAddr::from),
        Some(channel.address6().into()),
    ];
    if own.contains(&Some(address)) {
        return Some(node.id());
    }
    let mut attached = channel.all_attached();
    let claim = attached.find(|claim| claim.addresses().contains(&address))?;
    Some(claim.contact.id())
}

/// Hands over a connection that was told of.
pub(super) fn take(desk: &Desk, connection: u64) -> Result<Duplex, Failure> {
    let taken = desk.shared.arrivals.take(connection);
    let taken = taken.ok_or_else(|| no("That connection has ended, or was taken before."))?;
    Ok(duplex(taken))
}

/// Connects to a port of a member.
pub(super) async fn connect(
    desk: &Desk,
    channel: &str,
    member: &str,
    port: u16,
) -> Result<Duplex, Failure> {
    let id: NodeId = member
        .parse()
        .map_err(|_| usage("A member is named by its whole node id."))?;
    let reach = reach(desk, channel).await?;
    let name = channel.to_owned();
    let address = desk.look(move |node| {
        let (_, channel) = node.vnet().by_name(&name)?;
        let claim = channel.attached(id).or_else(|| channel.member(id))?;
        Some(IpAddr::from(claim.address))
    });
    let address = address.await?.ok_or_else(|| {
        no(format!(
            "{} is no member of channel `{channel}` that this node knows.",
            id.short()
        ))
    })?;
    let connected = reach.connect(SocketAddr::new(address, port)).await;
    let connected = connected.map_err(|error| {
        no(sentence(&format!(
            "port {port} of {} is not reached: {error}",
            id.short()
        )))
    })?;
    // The directory of members says what members say; who proved the address is another matter.
    let name = channel.to_owned();
    let proven = desk.look(move |node| {
        let attached = node
            .vnet()
            .by_name(&name)
            .and_then(|(_, channel)| channel.attached(id));
        attached.is_some_and(|claim| claim.addresses().contains(&address))
    });
    match proven.await? {
        true => Ok(duplex(Unended::new(connected))),
        false => Err(no(format!(
            "Another node than {} has its address now.",
            id.short()
        ))),
    }
}

/// A connection that breaks off when it is dropped before this side has ended it: a program that
/// was told the end of a stream would take what it got for all.
struct Unended {
    connection: Box<dyn Connection>,
    is_ended: bool,
}

impl Unended {
    fn new(connection: Box<dyn Connection>) -> Self {
        let is_ended = false;
        Self {
            connection,
            is_ended,
        }
    }
}

impl Drop for Unended {
    fn drop(&mut self) {
        if !self.is_ended {
            self.connection.break_off();
        }
    }
}

impl AsyncRead for Unended {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.connection).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Unended {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.connection).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut *self.connection).poll_shutdown(cx);
        self.is_ended |= matches!(ended, Poll::Ready(Ok(())));
        ended
    }
}

fn duplex(connection: Unended) -> Duplex {
    let (reader, writer) = io::split(connection);
    Duplex {
        reader: Box::new(reader),
        writer: Box::new(writer),
        // Packets have the channel's rules.
        forbidden: Box::pin(std::future::pending()),
    }
}

async fn reach(desk: &Desk, channel: &str) -> Result<Reach, Failure> {
    let name = channel.to_owned();
    let id = desk.look(move |node| node.vnet().by_name(&name).map(|(id, _)| id));
    let id = id.await?.ok_or_else(|| unknown(channel))?;
    desk.shared.networks.reach(id).ok_or_else(|| {
        no(format!(
            "This node has no address in channel `{channel}` yet; try again."
        ))
    })
}
