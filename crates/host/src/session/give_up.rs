//! Closing sessions of nodes that were taken for dead.
//!
//! Who does not answer in time may be slow, or this node may be: where all are, each closed session
//! costs both ends a handshake, and makes all of them slower. So what decides is whether anything
//! comes by the session, if only what QUIC says by itself. (Nodes that judge others while they are
//! slow themselves: A. Dadgar, J. Phillips and J. Currey, "Lifeguard: Local Health Awareness for
//! More Accurate Failure Detection", DSN-W 2018.)

use std::sync::Arc;
use std::time::{Duration, Instant};

use enishi_overlay::NodeId;

use super::connection::{CloseCode, Live};
use super::{Shared, lock};

/// How long something is waited for. iroh speaks by every path of a session every 5 s.
const SIGN_OF_LIFE_MAX: Duration = Duration::from_secs(6);

/// Closes all connections of a peer by which nothing comes within [`SIGN_OF_LIFE_MAX`] from now.
pub(super) fn give_up(shared: &Arc<Shared>, peer: NodeId) {
    let lines = lock(&shared.table).lines_of(peer);
    for live in lines {
        let now = (Instant::now(), live.received());
        let before = lock(&live.given_up).replace(now);
        if before.is_none() {
            shared.runtime.spawn(judge(live));
        }
    }
}

/// Waits until it is so long since the peer was given up last.
async fn judge(live: Arc<Live>) {
    loop {
        let given_up = *lock(&live.given_up);
        let Some((since, before)) = given_up else {
            return;
        };
        let left = SIGN_OF_LIFE_MAX.saturating_sub(since.elapsed());
        if left.is_zero() {
            *lock(&live.given_up) = None;
            if live.received() == before {
                live.close(CloseCode::Dropped);
            }
            return;
        }
        tokio::select! {
            _ = live.connection.closed() => return,
            () = tokio::time::sleep(left) => {}
        }
    }
}
