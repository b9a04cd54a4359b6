//! One endpoint after another: what is done with the endpoint as long as it lives, and another
//! one in its place when it dies.
//!
//! The QUIC library opens its sockets again whenever the host's network changes, on the ports
//! they had. That fails if the port is taken at that moment: by another program, or by this one,
//! whose every child process holds a copy of the sockets from `fork(2)` to `execve(2)`. The
//! library then gives its endpoint up, and all connections with it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use iroh::{Endpoint, Watcher};
use tracing::{debug, info, warn};

use super::{CLOSE_MAX, Shared, endpoint, own_addresses, random_number};

/// How long to wait before the sockets are opened again once more; each time twice as long.
const REOPEN_AFTER: Duration = Duration::from_millis(500);
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(30);

/// How often the host's addresses are looked at when nothing is told of them.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Accepts connections and follows the node's own addresses, on one endpoint after another,
/// until the sessions are closed for good.
pub(super) async fn serve(shared: Arc<Shared>) {
    let until_closed = async {
        let mut endpoint = shared.endpoint.borrow().clone();
        while let Some(live) = endpoint {
            tokio::select! {
                () = endpoint::accept(&shared, &live) => {}
                () = follow_own_addresses(&shared, &live) => {}
            }
            if shared.closing.is_cancelled() {
                break;
            }
            endpoint = Some(replace(&shared, live).await);
        }
    };
    shared.closing.run_until_cancelled(until_closed).await;
}

/// Opens an endpoint in place of a dead one, on the same ports, trying until it succeeds.
async fn replace(shared: &Shared, dead: Endpoint) -> Endpoint {
    warn!("the sockets of the sessions failed; opening them again");
    shared.endpoint.send_replace(None);
    // Nobody can be told of the end on dead sockets; what is left is freed.
    let _ = tokio::time::timeout(CLOSE_MAX, dead.close()).await;
    drop(dead);
    let fresh = reopen(shared).await;
    shared.incarnation.store(random_number(), Ordering::Release);
    shared.endpoint.send_replace(Some(fresh.clone()));
    info!("the sockets of the sessions are open again");
    fresh
}

async fn reopen(shared: &Shared) -> Endpoint {
    let mut pause = REOPEN_AFTER;
    loop {
        let protocol = shared.protocol.clone();
        match endpoint::bind(
            &shared.keypair,
            protocol,
            &shared.listening,
            &shared.transport,
        )
        .await
        {
            Ok(endpoint) => return endpoint,
            Err(error) if pause == REOPEN_AFTER => debug!(%error, "cannot open the sockets yet"),
            Err(error) => warn!(%error, ?pause, "cannot open the sockets again; trying on"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(REOPEN_PAUSE_MAX);
    }
}

/// Keeps [`Shared::addresses`] as the endpoint sees them, until it is closed.
async fn follow_own_addresses(shared: &Shared, endpoint: &Endpoint) {
    let mut watcher = endpoint.watch_addr();
    let mut hidden = shared.hidden.subscribe();
    loop {
        let own = own_addresses(endpoint, &hidden.borrow_and_update());
        shared.addresses.send_if_modified(|told| {
            let changed = *told != own;
            *told = own;
            changed
        });
        tokio::select! {
            changed = watcher.updated() => if changed.is_err() { return },
            // Cannot fail: the sender is part of what this task holds.
            _ = hidden.changed() => {}
            // Of addresses that the library leaves out it tells nothing.
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = endpoint.closed() => return,
        }
    }
}
