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

/// A session over which no lane carried anything for so long is closed. The overlay asks
/// every neighbour and link for a sign of life within 95 s, and members that exchange packets
/// agree on new keys every 135 s at the latest, so only sessions that nobody needs come to this.
pub const IDLE_MAX: Duration = Duration::from_secs(200);

/// How often sessions are looked at; one may live so much longer than [`IDLE_MAX`].
const SWEEP_PERIOD: Duration = Duration::from_secs(5);

/// When each session was last seen to do something, and its activity then.
type Seen = HashMap<NodeId, (Instant, u64)>;

/// Closes idle sessions until the sessions are closed for good.
pub(super) async fn sweep(shared: Arc<Shared>) {
    let mut seen = Seen::new();
    let mut period = tokio::time::interval(SWEEP_PERIOD);
    while !shared.closing.is_cancelled() {
        tokio::select! {
            _ = period.tick() => {}
            () = shared.closing.cancelled() => return,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{SessionConfig, SessionEvent, Sessions};
    use enishi_overlay::{Contact, Keypair, OverlayId};
    use tokio::sync::mpsc;

    async fn node(seed: u8) -> (Sessions, mpsc::Receiver<SessionEvent>) {
        let config = SessionConfig {
            keypair: Keypair::from_seed(&[seed; 32]),
            overlay: OverlayId::from_name("idle"),
            listen: vec![([127, 0, 0, 1], 0).into()],
            on_datagram: Arc::new(|_, _| {}),
            carry: Arc::new(crate::session::NobodyCarries),
        };
        Sessions::bind(config).await.expect("loopback is free")
    }

    /// Waits until the activity of a node's one session is such, and returns it.
    async fn activity(node: &Sessions, holds: impl Fn(Option<u64>) -> bool) -> Option<u64> {
        let such = async {
            loop {
                let connected = lock(&node.0.table).connected();
                let activity = connected
                    .into_iter()
                    .next()
                    .expect("one session")
                    .1
                    .activity();
                if holds(activity) {
                    return activity;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let such = tokio::time::timeout(Duration::from_secs(10), such).await;
        such.expect("it comes to such an activity")
    }

    #[tokio::test]
    async fn a_session_is_closed_when_no_lane_is_used_and_no_stream_open() {
        let (a, mut events) = node(1).await;
        let (b, mut b_events) = node(2).await;
        let to_b = Contact::new(b.me(), b.addresses());
        let bulk = a.open_bulk(&to_b).await.expect("b is there");
        while !matches!(b_events.recv().await, Some(SessionEvent::Bulk { .. })) {}
        events.recv().await.expect("opened");

        let (start, mut seen) = (Instant::now(), Seen::new());
        let mut sweep = |after: Duration| sweep_once(&a.0, &mut seen, start + after);
        sweep(Duration::ZERO);
        sweep(IDLE_MAX * 2);
        assert!(a.session(b.me()).is_some(), "a stream is open");
        drop(bulk);
        let quiet = activity(&a, |activity| activity.is_some()).await;
        sweep(IDLE_MAX * 2);
        a.send_control(&to_b, bytes::Bytes::from_static(b"x"));
        activity(&a, |activity| activity.is_some() && activity != quiet).await;
        sweep(IDLE_MAX * 3);
        assert!(events.is_empty(), "a frame was sent meanwhile");
        sweep(IDLE_MAX * 4);
        let event = events.recv().await;
        assert!(matches!(event, Some(SessionEvent::Closed { .. })));
    }
}
