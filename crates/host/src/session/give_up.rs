//! Closing sessions of nodes that were taken for dead.
//!
//! Who does not answer in time may be slow, or this node may be: where all are, each closed session
//! costs both ends a handshake, and makes all of them slower. So what decides is whether anything
//! comes by the session, if only what QUIC says by itself. (Nodes that judge others while they are
//! slow themselves: A. Dadgar, J. Phillips and J. Currey, "Lifeguard: Local Health Awareness for
//! More Accurate Failure Detection", DSN-W 2018, section III.)

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use enishi_overlay::NodeId;

use super::connection::{CloseCode, Live};
use super::{Shared, lock};

/// How long something is waited for. iroh speaks by every path of a session every 5 s.
const SIGN_OF_LIFE_MAX: Duration = Duration::from_secs(6);

/// Closes all connections of a peer by which nothing comes within [`SIGN_OF_LIFE_MAX`].
pub(super) fn give_up(shared: &Arc<Shared>, peer: NodeId) {
    let lines = lock(&shared.table).lines_of(peer);
    for live in lines {
        if !live.is_given_up.swap(true, Relaxed) {
            shared.runtime.spawn(judge(live));
        }
    }
}

async fn judge(live: Arc<Live>) {
    let before = live.received();
    tokio::select! {
        _ = live.connection.closed() => return,
        () = tokio::time::sleep(SIGN_OF_LIFE_MAX) => {}
    }
    live.is_given_up.store(false, Relaxed);
    if live.received() == before {
        live.close(CloseCode::Dropped);
    }
}
