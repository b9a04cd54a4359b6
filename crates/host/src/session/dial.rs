//! Dialling: one dial at a time per peer, no sooner than its backoff allows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use enishi_overlay::NodeId;
use iroh::endpoint::Connection;
use tokio::sync::{AcquireError, Notify, SemaphorePermit};
use tracing::{Instrument, debug_span};

use super::table::Left;
use super::{Shared, by_ipv4, connection, endpoint, lock};

/// The most dials under way at once; others wait for their turn.
pub(super) const DIALS_AT_ONCE_MAX: usize = 64;

/// The most of them to strangers, so that those once met need not wait behind all.
pub(super) const STRANGERS_AT_ONCE_MAX: usize = 48;

/// How often one dial begins anew because more addresses became known.
const RESTARTS_MAX: usize = 3;

enum Outcome {
    Open(Connection),
    Failed,
    /// The peer dialled us while we waited.
    NotNeeded,
}

/// Starts to dial a peer; `wake` tells the dial that something changed.
pub(super) fn start(shared: &Arc<Shared>, peer: NodeId, wake: Arc<Notify>) {
    let span = debug_span!("session", peer = %peer.short());
    let task = dial(Arc::clone(shared), peer, wake).instrument(span);
    shared.tasks.spawn_on(task, &shared.runtime);
}

async fn dial(shared: Arc<Shared>, peer: NodeId, wake: Arc<Notify>) {
    match attempt(&shared, peer, &wake).await {
        Outcome::Open(connection) => {
            let me = shared.me();
            connection::run(shared, connection, peer, me).await;
        }
        Outcome::Failed => {
            lock(&shared.book).failed(peer, Instant::now());
            abandon(&shared, peer).await;
        }
        Outcome::NotNeeded => abandon(&shared, peer).await,
    }
}

/// Ends the dial of a peer without a connection, and says so if there is no other.
pub(super) async fn abandon(shared: &Shared, peer: NodeId) {
    let left = lock(&shared.table).end_dial(peer);
    if let Left::Nothing { frames } = left {
        shared.counters.frames_lost(frames);
        shared.announcer.unreachable(&shared.table, peer).await;
    }
}

async fn attempt(shared: &Shared, peer: NodeId, wake: &Notify) -> Outcome {
    wait_for_turn(shared, peer, wake).await;
    let Ok(_turns) = take_turn(shared, peer).await else {
        return Outcome::NotNeeded;
    };
    for restarts in 0.. {
        if lock(&shared.table).current(peer).is_some() {
            return Outcome::NotNeeded;
        }
        let addresses = lock(&shared.book).addresses(peer);
        if addresses.is_empty() {
            return Outcome::Failed;
        }
        let connecting = connect(shared, peer, addresses);
        tokio::select! {
            connection = connecting => {
                return connection.map_or(Outcome::Failed, Outcome::Open);
            }
            () = new_address(shared, peer, wake), if restarts < RESTARTS_MAX => {}
        }
    }
    Outcome::Failed
}

/// Opens a connection at any of these addresses, some of them first and without carriers.
async fn connect(shared: &Shared, peer: NodeId, addresses: Vec<SocketAddr>) -> Option<Connection> {
    if let Some(first) = by_ipv4::first(shared, &addresses) {
        let connecting = endpoint::connect_straight(shared, peer, first);
        let connected = tokio::time::timeout(by_ipv4::TIME_MAX, connecting).await;
        if let Ok(Some(connection)) = connected {
            return Some(connection);
        }
    }
    endpoint::connect(shared, peer, addresses).await
}

/// Waits for a place among the dials under way, a stranger among the strangers first.
async fn take_turn(
    shared: &Shared,
    peer: NodeId,
) -> Result<[Option<SemaphorePermit<'_>>; 2], AcquireError> {
    let stranger = !lock(&shared.book).has_met(peer);
    let first = match stranger {
        true => Some(shared.strangers.acquire().await?),
        false => None,
    };
    Ok([first, Some(shared.dials.acquire().await?)])
}

/// Waits until the backoff of the peer is over, or something changed.
async fn wait_for_turn(shared: &Shared, peer: NodeId, wake: &Notify) {
    let Some(not_before) = lock(&shared.book).not_before(peer) else {
        return;
    };
    tokio::select! {
        () = tokio::time::sleep_until(not_before.into()) => {}
        () = wake.notified() => {}
    }
}

/// Waits for a change that is not an incoming session.
///
/// A dial under way is never given up for an incoming one: if both ends did that
/// at the same moment, both connections would be lost.
async fn new_address(shared: &Shared, peer: NodeId, wake: &Notify) {
    loop {
        wake.notified().await;
        if lock(&shared.table).current(peer).is_none() {
            return;
        }
    }
}
