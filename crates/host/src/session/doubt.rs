//! Closing sessions whose way has broken off, long before QUIC notices.
//!
//! Somebody above has asked a peer and heard nothing: the overlay, or packets that go straight. The
//! peer may be dead, or slow, or the session's path leads nowhere any more, as when a router on it has
//! started anew, while another one of the session's paths still does: QUIC takes
//! seven seconds to see that, and sends by the dead one meanwhile. So the session
//! itself is asked, by datagrams for which its paths are chosen as for all others:
//!
//! ```text
//!   A -- empty datagram: are you there? --> B
//!     <-- datagram of one octet: yes ------
//! ```
//!
//! If neither an answer comes nor anything else by the path in use, the connection is closed; the next
//! frame dials anew, by whatever leads there now.
//!
//! Where all are slow, each closed session costs both ends a handshake, and makes all of them slower. So
//! who has far to go is waited for longer, and who notices that it runs late itself waits anew. (Nodes that
//! judge others while they are slow themselves: A. Dadgar, J. Phillips and J. Currey, "Lifeguard: Local
//! Health Awareness for More Accurate Failure Detection", DSN-W 2018.) A connection with open bulk streams,
//! which would break, is closed only if nothing at all comes by it, on any path, for longer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use enishi_overlay::NodeId;
use iroh::endpoint::{Path, PathId};

use super::connection::{CloseCode, Live};
use super::{Shared, lock};

/// What is asked and answered: datagrams of this length at most are the session's own.
pub(super) const OWN_BYTES_MAX: usize = 1;
const ANSWER: &[u8] = &[1];

/// How long an answer is waited for: so many round trips, within these bounds; the longest where bulk
/// streams are open.
const ROUND_TRIPS: u32 = 8;
const WAIT_MIN: Duration = Duration::from_millis(1_500);
const WAIT_MAX: Duration = Duration::from_secs(6);

/// How often is asked meanwhile: some may be lost.
const ASKS: u32 = 5;

/// Whoever is woken so much too late, all in all, runs late itself; how often it waits anew then.
const LATE: Duration = Duration::from_millis(250);
const WAITS_MAX: u32 = 4;

/// What has come by a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Heard {
    answers: u64,
    /// Datagrams by all of its paths.
    by_all: u64,
    /// The path in use, and datagrams by it.
    by_path: Option<(PathId, u64)>,
}

/// Closes all connections of a peer by which it does not answer now.
pub(super) fn doubt(shared: &Arc<Shared>, peer: NodeId) {
    let lines = lock(&shared.table).lines_of(peer);
    for live in lines {
        if !live.is_doubted.swap(true, Ordering::AcqRel) {
            shared.runtime.spawn(judge(live));
        }
    }
}

/// Takes a datagram of at most [`OWN_BYTES_MAX`] octets.
pub(super) fn take(live: &Live, datagram: &[u8]) {
    if datagram.is_empty() {
        // Without room, or with a connection that has closed, there is no answer: it is asked again.
        let _ = live.connection.send_datagram(Bytes::from_static(ANSWER));
    } else {
        live.answers.fetch_add(1, Ordering::AcqRel);
    }
}

async fn judge(live: Arc<Live>) {
    tokio::select! {
        _ = live.connection.closed() => {}
        is_alive = is_alive(&live) => if !is_alive {
            live.close(CloseCode::Dropped);
        },
    }
    live.is_doubted.store(false, Ordering::Release);
}

/// Asks the peer, and tells whether the connection is of use.
async fn is_alive(live: &Live) -> bool {
    let (before, rtt) = heard(live);
    for _ in 0..WAITS_MAX {
        let wait = match live.has_bulk() {
            true => WAIT_MAX,
            false => (rtt * ROUND_TRIPS).clamp(WAIT_MIN, WAIT_MAX),
        };
        let began = Instant::now();
        for _ in 0..ASKS {
            let _ = live.connection.send_datagram(Bytes::new());
            tokio::time::sleep(wait / ASKS).await;
            let (now, _) = heard(live);
            let has_spoken = match live.has_bulk() {
                true => now.by_all != before.by_all,
                false => now.by_path != before.by_path,
            };
            if has_spoken || now.answers != before.answers {
                return true;
            }
        }
        if began.elapsed() < wait + LATE {
            break;
        }
    }
    false
}

/// Returns what has come by a connection, and the round trip of the path in use.
fn heard(live: &Live) -> (Heard, Duration) {
    let paths = live.connection.paths();
    let path = paths.iter().find(Path::is_selected);
    let heard = Heard {
        answers: live.answers.load(Ordering::Acquire),
        by_all: live.connection.stats().udp_rx.datagrams,
        by_path: path
            .as_ref()
            .map(|path| (path.id(), path.stats().udp_rx.datagrams)),
    };
    (heard, path.map(|path| path.rtt()).unwrap_or_default())
}
