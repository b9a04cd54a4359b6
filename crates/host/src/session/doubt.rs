//! Closing sessions whose way has broken off, long before QUIC notices.
//!
//! Somebody above has asked a peer and heard nothing: the overlay, or packets that go straight. The
//! peer may be dead, or slow, or the session's path leads nowhere any more, as when a router on it has
//! started anew, while another one of the session's paths still does: while something is sent QUIC takes seven
//! seconds to see that, and sends by the dead one meanwhile. So the session itself is asked, by datagrams
//! for which its paths are chosen as for all others:
//!
//! ```text
//!   A -- empty datagram: are you there? --> B
//!     <-- datagram of one octet: yes ------
//! ```
//!
//! If neither an answer comes nor anything else by the path in use, the connection is closed; the next
//! frame dials anew, by whatever leads there now. How long is waited follows from the path's round trip, and it
//! is [`WAIT_MAX`]
//!
//! - if this node itself may be cut off: others are asked as well, and nobody is heard;
//! - where others, or a link, carry the session: these find another way by themselves, and proxies hold
//!   things back for seconds;
//! - if much waited to be sent before the question;
//! - with bulk streams open, which would break. Then anything counts that comes, by any path.
//!
//! Where all are slow, each closed session costs both ends a handshake, and makes all of them slower. So
//! who notices that it runs late itself waits anew. (Nodes that judge others while they are slow themselves:
//! A. Dadgar, J. Phillips and J. Currey, "Lifeguard: Local Health Awareness for More Accurate Failure
//! Detection", DSN-W 2018.)

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use enishi_overlay::NodeId;
use iroh::TransportAddr;
use iroh::endpoint::{Path, PathId};

use super::connection::{CloseCode, Live};
use super::table::SIMULTANEOUS_MAX;
use super::{DATAGRAM_SEND_BYTES_MAX, Shared, lock};

/// What is asked and answered: datagrams of this length at most are the session's own.
pub(super) const OWN_BYTES_MAX: usize = 1;
const ANSWER: &[u8] = &[1];

/// How long an answer is waited for: so many round trips, within these bounds. The longest outlasts a silent
/// link (`crate::reach`).
const ROUND_TRIPS: u32 = 8;
const WAIT_MIN: Duration = Duration::from_millis(1_500);
const WAIT_MAX: Duration = Duration::from_secs(6);

/// How often is asked meanwhile, as some may be lost.
const ASK_INTERVAL: Duration = Duration::from_millis(300);

/// Whoever is woken so much too late runs late itself; how often it waits anew then.
const LATE: Duration = Duration::from_millis(200);
const WAITS_MAX: u32 = 4;

/// How many others are asked.
const OTHERS_MAX: usize = 4;

/// With so many octets before it a question may be long on its way.
const QUEUED_MAX: usize = 32 * 1024;

/// What has come by a connection.
#[derive(Clone, Copy, Debug)]
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
            shared.runtime.spawn(judge(Arc::clone(shared), live, peer));
        }
    }
}

/// Takes a datagram of at most [`OWN_BYTES_MAX`] octets; tells whether it is a question, to be answered.
pub(super) fn take(live: &Live, datagram: &[u8]) -> bool {
    let is_question = datagram.is_empty();
    if !is_question {
        live.answers.fetch_add(1, Ordering::AcqRel);
    }
    is_question
}

/// Answers a question, or many.
pub(super) fn answer(live: &Live) {
    // Without room, or with a connection that has closed, there is no answer: it is asked again.
    let _ = live.connection.send_datagram(Bytes::from_static(ANSWER));
}

fn ask(live: &Live) {
    let _ = live.connection.send_datagram(Bytes::new());
}

async fn judge(shared: Arc<Shared>, live: Arc<Live>, peer: NodeId) {
    let mut others = lock(&shared.table).connected();
    others.retain(|(other, _)| *other != peer);
    others.truncate(OTHERS_MAX);
    let others: Vec<Arc<Live>> = others.into_iter().map(|(_, live)| live).collect();
    tokio::select! {
        _ = live.connection.closed() => {}
        is_alive = is_alive(&live, &others) => if !is_alive {
            live.close(CloseCode::Dropped);
        },
    }
    live.is_doubted.store(false, Ordering::Release);
}

/// Asks the peer, and tells whether the connection is of use.
async fn is_alive(live: &Live, others: &[Arc<Live>]) -> bool {
    let before = Heard::of(live);
    let of_others: Vec<u64> = others.iter().map(|other| received(other)).collect();
    let is_cut_off = || {
        let mut now = others.iter().map(|other| received(other)).zip(&of_others);
        !now.any(|(now, before)| now != *before)
    };
    let room = live.connection.datagram_send_buffer_space();
    let is_queued = room + QUEUED_MAX < DATAGRAM_SEND_BYTES_MAX;
    let wait = match is_carried(live) || is_queued {
        true => WAIT_MAX,
        false => (round_trip(live) * ROUND_TRIPS).clamp(WAIT_MIN, WAIT_MAX),
    };
    others.iter().for_each(|other| ask(other));
    let (mut began, mut waits) = (Instant::now(), 1);
    loop {
        ask(live);
        let asked = Instant::now();
        tokio::time::sleep(ASK_INTERVAL).await;
        if Heard::of(live).is_sign_of_life(&before, live.has_bulk()) {
            return true;
        }
        if asked.elapsed() >= ASK_INTERVAL + LATE && waits < WAITS_MAX {
            (began, waits) = (Instant::now(), waits + 1);
        }
        // A younger one could win over the next, by which its peer is reached.
        let is_old = live.opened.elapsed() > SIMULTANEOUS_MAX;
        let waited = began.elapsed();
        let is_patient = || live.has_bulk() || is_cut_off();
        if is_old && (waited >= WAIT_MAX || (waited >= wait && !is_patient())) {
            return false;
        }
    }
}

impl Heard {
    fn of(live: &Live) -> Self {
        let by_path = |path: &Path<'_>| (path.id(), path.stats().udp_rx.datagrams);
        Self {
            answers: live.answers.load(Ordering::Acquire),
            by_all: received(live),
            by_path: in_use(live, by_path),
        }
    }

    /// Tells whether something has come since that shows the peer to be there.
    fn is_sign_of_life(&self, before: &Self, by_any: bool) -> bool {
        let has_spoken = match by_any {
            true => self.by_all != before.by_all,
            false => self.by_path != before.by_path,
        };
        has_spoken || self.answers != before.answers
    }
}

fn received(live: &Live) -> u64 {
    live.connection.stats().udp_rx.datagrams
}

fn round_trip(live: &Live) -> Duration {
    let round_trip = |path: &Path<'_>| path.stats().rtt;
    in_use(live, round_trip).unwrap_or_default()
}

/// Tells whether others carry a connection, or a link.
fn is_carried(live: &Live) -> bool {
    let is_custom = |path: &Path<'_>| matches!(path.remote_addr(), TransportAddr::Custom(_));
    in_use(live, is_custom).unwrap_or(true)
}

/// Looks at the path in use.
fn in_use<T>(live: &Live, look: impl FnOnce(&Path<'_>) -> T) -> Option<T> {
    let paths = live.connection.paths();
    let path = paths.iter().find(Path::is_selected);
    path.map(|path| look(&path))
}
