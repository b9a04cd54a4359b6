//! Closing sessions that nobody uses.
//!
//! iroh keeps the paths of a connection warm, so QUIC's own idle timeout never
//! strikes while the peer lives. What counts here is what the lanes carry.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use enishi_overlay::NodeId;

use super::connection::CloseCode;
use super::{Shared, lock};

/// A session over which no lane carried anything for so long is closed.
pub const IDLE_MAX: Duration = Duration::from_secs(30);

/// How often sessions are looked at; one may live so much longer than [`IDLE_MAX`].
const SWEEP_PERIOD: Duration = Duration::from_secs(5);

/// When each session was last seen to do something, and its activity then.
type Seen = HashMap<NodeId, (Instant, u64)>;

/// Closes idle sessions as long as the endpoint is open.
pub(super) async fn sweep(shared: Arc<Shared>) {
    let mut seen = Seen::new();
    let mut period = tokio::time::interval(SWEEP_PERIOD);
    while !shared.endpoint.is_closed() {
        tokio::select! {
            _ = period.tick() => {}
            () = shared.endpoint.closed() => return,
        }
        sweep_once(&shared, &mut seen, Instant::now());
    }
}

fn sweep_once(shared: &Shared, seen: &mut Seen, now: Instant) {
    let connected = lock(&shared.table).connected();
    let mut still = Seen::with_capacity(connected.len());
    for (peer, live) in connected {
        let Some(activity) = live.activity() else {
            continue;
        };
        let since = match seen.get(&peer) {
            Some((since, before)) if *before == activity => *since,
            Some(_) | None => now,
        };
        if now.duration_since(since) >= IDLE_MAX {
            live.close(CloseCode::Idle);
        }
        still.insert(peer, (since, activity));
    }
    *seen = still;
}
