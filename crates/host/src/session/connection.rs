//! One connection, from the end of its handshake to its close.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use bytes::Bytes;
use enishi_overlay::{NodeId, PathKind};
use iroh::TransportAddr;
use iroh::endpoint::{Connection, FrameStats, Path, VarInt};
use tokio::io::AsyncReadExt;
use tracing::debug;

use super::endpoint::SESSIONS_MAX;
use super::lanes::{self, BulkGuard, BulkReader, BulkWriter, ControlError, LANE_BULK};
use super::queue::{ControlQueue, Next};
use super::relayed::Relayed;
use super::table::{Left, LineId};
use super::transport::{By, Transport};
use super::{SessionEvent, SessionInfo, Shared, dial, doubt, lock};

/// How long a connection that no longer counts is still read.
const GRACE: Duration = Duration::from_secs(2);

/// How much longer the peer with the larger id waits, so that one side decides.
const GRACE_LARGER_ID: Duration = Duration::from_secs(3);

/// How long a peer may take to begin a lane after opening its stream.
const LANE_START_MAX: Duration = Duration::from_secs(5);

/// How long a writer waits at the end until its last frames are acknowledged.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// How many datagrams are taken from the connection at once.
const DATAGRAMS_PER_BATCH: usize = 64;

/// Why a connection is closed, as told to the peer (QUIC application error codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum CloseCode {
    /// The node goes away.
    Shutdown = 0,
    /// Another connection to the same peer took its place.
    Superseded = 1,
    /// Nothing was sent over it for a while.
    Idle = 2,
    /// The peer broke the protocol.
    Misbehaved = 3,
    /// The overlay gave the peer up, or by the session nothing goes any more.
    Dropped = 4,
    /// There are too many sessions.
    Limit = 5,
}

/// An open connection.
pub(super) struct Live {
    pub(super) connection: Connection,
    pub(super) opened: Instant,
    bulk: BulkGuard,
    relayed: Relayed,
    /// Whether its peer is being asked if it is there, and how often it has said so.
    pub(super) is_doubted: AtomicBool,
    pub(super) answers: AtomicU64,
}

impl Live {
    pub(super) fn new(connection: Connection, relayed: Relayed) -> Self {
        Self {
            connection,
            opened: Instant::now(),
            bulk: BulkGuard::default(),
            relayed,
            is_doubted: AtomicBool::default(),
            answers: AtomicU64::default(),
        }
    }

    /// Tells whether bulk streams are open.
    pub(super) fn has_bulk(&self) -> bool {
        Arc::strong_count(&self.bulk) > 1
    }

    /// Closes the connection at once.
    pub(super) fn close(&self, code: CloseCode) {
        debug!(?code, "closing the connection");
        self.connection.close(VarInt::from_u32(code as u32), b"");
    }

    /// Opens a bulk stream, waiting until the peer's limit allows one more.
    pub(super) async fn open_bulk(&self) -> std::io::Result<(BulkReader, BulkWriter)> {
        let (mut send, receive) = self.connection.open_bi().await?;
        send.write_all(&[LANE_BULK]).await?;
        let reader = BulkReader::new(receive, Arc::clone(&self.bulk));
        Ok((reader, BulkWriter::new(send, Arc::clone(&self.bulk))))
    }

    /// Returns the IP address of the path in use, `None` when it is not one.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let paths = self.connection.paths();
        let path = paths.iter().find(Path::is_selected);
        match path.or_else(|| paths.iter().next())?.remote_addr() {
            TransportAddr::Ip(address) => {
                let is_relayed = self.relayed.server_of(*address).is_some();
                Some(*address).filter(|_| !is_relayed)
            }
            _ => None,
        }
    }

    /// Returns what people want to know of a session.
    pub(super) fn info(&self, peer: NodeId, transport: &Transport) -> SessionInfo {
        let stats = self.connection.stats();
        let paths = self.connection.paths();
        let path = paths.iter().find(Path::is_selected);
        let path = path.or_else(|| paths.iter().next());
        let (kind, address, how) = match path.as_ref().map(Path::remote_addr) {
            Some(TransportAddr::Ip(address)) => match self.relayed.server_of(*address) {
                Some(server) => (PathKind::Relayed, None, format!("relayed by {server}")),
                None => (
                    PathKind::Direct,
                    Some(*address),
                    format!("direct {address}"),
                ),
            },
            Some(_) => match transport.by(peer) {
                Some(By::Link(about)) => (PathKind::Direct, None, format!("direct {about}")),
                Some(By::Node(relay)) => (
                    PathKind::Relayed,
                    None,
                    format!("relayed by {}", relay.short()),
                ),
                None => (PathKind::Relayed, None, "relayed".to_owned()),
            },
            None => (PathKind::Unconnected, None, String::new()),
        };
        SessionInfo {
            peer,
            kind,
            address,
            path: how,
            rtt: path.map(|path| path.rtt()).unwrap_or_default(),
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            open_for: self.opened.elapsed(),
        }
    }

    /// Returns a number that grows whenever a lane carries something, and does not
    /// with what QUIC says to keep the path alive. `None` while bulk streams are open.
    pub(super) fn activity(&self) -> Option<u64> {
        let stats = self.connection.stats();
        let frames = |f: &FrameStats| f.stream + f.datagram;
        (!self.has_bulk()).then(|| frames(&stats.frame_tx) + frames(&stats.frame_rx))
    }
}

/// Serves a connection that `dialler` opened until it is closed.
pub(super) async fn run(
    shared: Arc<Shared>,
    connection: Connection,
    peer: NodeId,
    dialler: NodeId,
) {
    let live = Arc::new(Live::new(connection, shared.relayed.clone()));
    let Some((line, queue)) = admit(&shared, &live, peer, dialler) else {
        live.close(CloseCode::Limit);
        if dialler == shared.me() {
            dial::abandon(&shared, peer).await;
        }
        return;
    };
    if dialler == peer && !lock(&shared.table).is_dialling(peer) {
        let met = lock(&shared.book).has_met(peer);
        (!met).then(|| shared.counters.strangers());
    }
    lock(&shared.book).met(peer, live.address());
    shared.announcer.update(&shared.table, peer).await;
    let served = Served {
        shared: &shared,
        live: &live,
        peer,
        line,
    };
    tokio::join!(
        served.read_control(),
        served.write_control(&queue),
        served.accept_bulk(),
        served.read_datagrams(),
        served.retire(),
    );
    let left = lock(&shared.table).remove(peer, line);
    if let Left::Nothing { frames } = left {
        shared.counters.frames_lost(frames);
    }
    shared.announcer.update(&shared.table, peer).await;
}

fn admit(
    shared: &Shared,
    live: &Arc<Live>,
    peer: NodeId,
    dialler: NodeId,
) -> Option<(LineId, Arc<ControlQueue>)> {
    let mut table = lock(&shared.table);
    if table.lines() >= SESSIONS_MAX {
        drop(table);
        shared.counters.sessions_refused();
        return None;
    }
    let admission = table.admit(peer, dialler, live.opened, Arc::clone(live));
    if dialler == shared.me() {
        table.end_dial(peer);
    } else {
        // A dial that still waits for its turn is not needed any more.
        table.wake_dial(peer);
    }
    drop(table);
    if let Some(oldest) = admission.evicted {
        oldest.close(CloseCode::Superseded);
    }
    Some((admission.line, admission.queue))
}

/// A connection with its place in the table, while its lanes are served.
struct Served<'a> {
    shared: &'a Shared,
    live: &'a Arc<Live>,
    peer: NodeId,
    line: LineId,
}

impl Served<'_> {
    /// Hands frames to the host, no faster than it takes them: what it has not taken
    /// stays in QUIC's window, which in the end stops the peer.
    async fn read_control(&self) {
        match self.read_frames().await {
            // The peer is about to close the connection.
            Ok(()) => {}
            Err(error) => {
                debug!(%error, "control lane ended");
                if matches!(error, ControlError::Oversized(_)) {
                    self.shared.counters.frames_oversized();
                }
                // Without its control lane a session is of no use; where the error
                // is that the connection closed, this does nothing.
                self.live.close(CloseCode::Misbehaved);
            }
        }
    }

    async fn read_frames(&self) -> Result<(), ControlError> {
        let accept = self.live.connection.accept_uni();
        let mut stream = accept.await.map_err(std::io::Error::from)?;
        let start = lanes::read_control_start(&mut stream);
        let incarnation = tokio::time::timeout(LANE_START_MAX, start)
            .await
            .map_err(std::io::Error::from)??;
        let is_another = lock(&self.shared.table).identify(self.peer, self.line, incarnation);
        if is_another {
            let peer = self.peer;
            let restarted = SessionEvent::Restarted { peer };
            self.shared.announcer.send(restarted).await;
        }
        while let Some(frame) = lanes::read_frame(&mut stream).await? {
            let event = SessionEvent::Control {
                peer: self.peer,
                frame,
            };
            if !self.shared.announcer.send(event).await {
                self.live.close(CloseCode::Shutdown);
            }
        }
        Ok(())
    }

    /// Writes the peer's frames as long as this connection is the one that counts.
    async fn write_control(&self, queue: &ControlQueue) {
        match self.write_frames(queue).await {
            Ok(()) => self.live.close(CloseCode::Shutdown),
            Err(error) => debug!(%error, "control lane ended"),
        }
    }

    async fn write_frames(&self, queue: &ControlQueue) -> std::io::Result<()> {
        let mut stream = self.live.connection.open_uni().await?;
        stream.set_priority(1)?;
        lanes::write_control_start(
            &mut stream,
            self.shared
                .incarnation
                .load(std::sync::atomic::Ordering::Acquire),
        )
        .await?;
        while let Next::Frame(frame) = self.next(queue).await? {
            if let Err(error) = lanes::write_frame(&mut stream, &frame).await {
                if queue.give_back(frame).is_err() {
                    self.shared.counters.frames_dropped();
                }
                return Err(error);
            }
            self.shared.counters.frame_sent(frame.len());
        }
        stream.finish()?;
        // Whether the peer took all of it or not: the connection is closed after.
        let _ = tokio::time::timeout(FLUSH_MAX, stream.stopped()).await;
        Ok(())
    }

    async fn next(&self, queue: &ControlQueue) -> std::io::Result<Next> {
        tokio::select! {
            next = queue.next(self.line) => Ok(next),
            reason = self.live.connection.closed() => Err(reason.into()),
        }
    }

    async fn accept_bulk(&self) {
        while let Ok((send, mut receive)) = self.live.connection.accept_bi().await {
            let lane = tokio::time::timeout(LANE_START_MAX, receive.read_u8()).await;
            match lane {
                Ok(Ok(LANE_BULK)) => {}
                // The peer took it back, or never began: both halves are dropped.
                Ok(Err(_)) | Err(_) => continue,
                Ok(Ok(_)) => return self.live.close(CloseCode::Misbehaved),
            }
            let event = SessionEvent::Bulk {
                peer: self.peer,
                reader: BulkReader::new(receive, Arc::clone(&self.live.bulk)),
                writer: BulkWriter::new(send, Arc::clone(&self.live.bulk)),
            };
            self.shared.announcer.send(event).await;
        }
    }

    /// Hands datagrams to the host, but for the session's own: questions whether this node is there, of which
    /// as many as come at once have one answer.
    async fn read_datagrams(&self) {
        let mut batch = [const { Bytes::new() }; DATAGRAMS_PER_BATCH];
        while let Ok(count) = self.live.connection.read_many_datagrams(&mut batch).await {
            let mut is_asked = false;
            for datagram in &mut batch[..count] {
                let datagram = std::mem::take(datagram);
                match datagram.len() <= doubt::OWN_BYTES_MAX {
                    true => is_asked |= doubt::take(self.live, &datagram),
                    false => (self.shared.on_datagram)(self.peer, datagram),
                }
            }
            if is_asked {
                doubt::answer(self.live);
            }
        }
    }

    /// Closes the connection some time after another took its place.
    async fn retire(&self) {
        let Some(mut current) = lock(&self.shared.table).follow(self.peer) else {
            return;
        };
        let grace = if self.shared.me() < self.peer {
            GRACE
        } else {
            GRACE + GRACE_LARGER_ID
        };
        let line = self.line;
        let retire = async {
            loop {
                let superseded = |c: &super::table::Current<_>| {
                    c.as_ref().is_some_and(|(current, _)| *current != line)
                };
                if current.wait_for(superseded).await.is_err() {
                    return;
                }
                tokio::time::sleep(grace).await;
                if lock(&self.shared.table).is_superseded(self.peer, line) {
                    return self.live.close(CloseCode::Superseded);
                }
            }
        };
        tokio::select! {
            _ = self.live.connection.closed() => {}
            () = retire => {}
        }
    }
}
