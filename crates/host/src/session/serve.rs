//! One endpoint after another: what is done with the endpoint as long as it lives, and another
//! one in its place when it dies.
//!
//! The QUIC library opens its sockets again whenever the host's network changes, on the ports
//! they had. That fails if the port is taken at that moment: by another program, or by this one,
//! whose every child process holds a copy of the sockets from `fork(2)` to `execve(2)`. The
//! library then gives its endpoint up, and all connections with it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use iroh::{Endpoint, Watcher};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::addresses::{is_dialable, worth_telling};
use super::{CLOSE_MAX, External, Shared, endpoint, local_addresses, random_number};

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

/// Keeps [`Shared::addresses`] as the endpoint sees them and the host was told of, until it is
/// closed; and tells the endpoint of the latter.
async fn follow_own_addresses(shared: &Shared, endpoint: &Endpoint) {
    let mut watcher = endpoint.watch_addr();
    let mut hidden = shared.hidden.subscribe();
    let mut external = shared.external.subscribe();
    let mut added = BTreeSet::new();
    loop {
        let hidden_now = hidden.borrow_and_update().clone();
        let mut local = local_addresses(endpoint, &hidden_now);
        local.retain(|address| !added.contains(address));
        let External { told, tried } = external.borrow_and_update().clone();
        let told = beyond(told, &local, &hidden_now);
        let wanted = &told | &beyond(tried, &local, &hidden_now);
        for gone in added.difference(&wanted) {
            endpoint.remove_external_addr(gone).await;
        }
        for new in wanted.difference(&added) {
            endpoint.add_external_addr(*new).await;
        }
        added = wanted;
        tell(&shared.local, worth_telling(local.iter().copied()));
        tell(
            &shared.addresses,
            worth_telling(local.union(&told).copied()),
        );
        tokio::select! {
            changed = watcher.updated() => if changed.is_err() { return },
            // Cannot fail, either of them: the senders are part of what this task holds.
            _ = hidden.changed() => {}
            _ = external.changed() => {}
            // Of addresses that the library leaves out it tells nothing.
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = endpoint.closed() => return,
        }
    }
}

/// Returns the addresses that are not of this host nor of its virtual networks.
fn beyond(
    external: Vec<SocketAddr>,
    local: &BTreeSet<SocketAddr>,
    hidden: &[IpAddr],
) -> BTreeSet<SocketAddr> {
    let is_beyond = |address: &SocketAddr| {
        is_dialable(address) && !local.contains(address) && !hidden.contains(&address.ip())
    };
    external.into_iter().filter(is_beyond).collect()
}

fn tell(told: &watch::Sender<Vec<SocketAddr>>, addresses: Vec<SocketAddr>) {
    told.send_if_modified(|told| {
        let before = std::mem::replace(told, addresses);
        *told != before
    });
}
