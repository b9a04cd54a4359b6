//! Events for the host, in an order that makes sense to it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex as SyncMutex};

use enishi_overlay::NodeId;
use tokio::sync::{Mutex, mpsc};

use super::connection::Live;
use super::table::Table;
use super::{SessionEvent, lock};

/// The most events that wait for the host. Whoever has one more waits.
pub(super) const EVENTS_MAX: usize = 256;

/// Sends events, and holds `Opened` and `Closed` of each peer in turn.
///
/// Connections come and go in tasks of their own, so the event is made from the
/// table at the moment when it can be sent: of an open and a close that overtake
/// each other nothing is heard.
pub(super) struct Announcer {
    events: mpsc::Sender<SessionEvent>,
    /// The peers that the host was told are open.
    open: Mutex<HashSet<NodeId>>,
}

impl Announcer {
    pub(super) fn new(events: mpsc::Sender<SessionEvent>) -> Self {
        Self {
            events,
            open: Mutex::new(HashSet::new()),
        }
    }

    /// Sends an event, waiting for room. False when nobody listens any more.
    pub(super) async fn send(&self, event: SessionEvent) -> bool {
        self.events.send(event).await.is_ok()
    }

    /// Waits until nobody listens any more.
    pub(super) async fn deserted(&self) {
        self.events.closed().await;
    }

    /// Tells the host of the peer's state if it does not know it.
    pub(super) async fn update(&self, table: &SyncMutex<Table<Arc<Live>>>, peer: NodeId) {
        let mut open = self.open.lock().await;
        let current = lock(table).current(peer);
        match current {
            Some(live) => {
                if open.insert(peer) {
                    let address = live.address();
                    self.send(SessionEvent::Opened { peer, address }).await;
                }
            }
            None => {
                if open.remove(&peer) {
                    self.send(SessionEvent::Closed { peer }).await;
                }
            }
        }
    }

    /// Tells the host that a dial failed, unless the peer is connected after all.
    pub(super) async fn unreachable(&self, table: &SyncMutex<Table<Arc<Live>>>, peer: NodeId) {
        let _turn = self.open.lock().await;
        let connected = lock(table).current(peer).is_some();
        if !connected {
            self.send(SessionEvent::Unreachable { peer }).await;
        }
    }
}
