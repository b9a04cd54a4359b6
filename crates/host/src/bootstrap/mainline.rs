//! The public rendezvous: peers of a number in the Mainline DHT (BEP 5), which anybody may use.
//!
//! Nodes that are reached from the Internet announce themselves under the overlay's number of the day
//! (`Rendezvous::info_hash`); whoever looks for the overlay asks for today's and yesterday's. What is
//! found are addresses without keys, and anybody may have put them there: a bounded number is asked who
//! is there, and only who knows the overlay can answer. The DHT sees a number that is another every
//! day, and the addresses of those who announce and ask. It has IPv4 alone.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use futures_lite::StreamExt;
use mainline::async_dht::AsyncDht;
use mainline::{Dht, Id};
use tokio::time::{Instant, timeout, timeout_at};

use super::ask::{ADDRESSES_MAX, Heard, rng};
use super::pace::Pace;
use super::{Around, Server, Source};
use crate::session::Reach;
use crate::store::unix_s;

/// How long one question to the DHT may take.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(20);

/// The most addresses of one lookup that are asked.
const FOUND_MAX: usize = 64;

/// Between two announcements: nodes of the DHT forget after half an hour or more.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(15 * 60);

/// How soon it is tried again when announcing failed, or this node was not reached from outside.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(20);

/// How long it is waited when there is no socket.
const RETRY_TIME: Duration = Duration::from_secs(60);

const DAY_S: u64 = 86_400;

/// Looks and announces by these nodes of the DHT, or by the public ones.
pub(super) async fn run(around: Around, nodes: Vec<Server>) {
    let dht = loop {
        match begin(&nodes).await {
            Ok(dht) => break dht,
            Err(error) => around.book.failed(Source::Mainline, error),
        }
        tokio::time::sleep(RETRY_TIME).await;
    };
    tokio::join!(look(&around, &dht), announce(&around, &dht));
}

async fn begin(nodes: &[Server]) -> Result<AsyncDht, String> {
    let mut builder = Dht::builder();
    if !nodes.is_empty() {
        let mut addresses = Vec::new();
        for node in nodes {
            addresses.extend(node.addresses().await?);
        }
        builder.bootstrap(&addresses);
    }
    let built = tokio::task::spawn_blocking(move || builder.build()).await;
    let built = built.map_err(|error| error.to_string())?;
    let built = built.map_err(|error| format!("no socket for the Mainline DHT: {error}"))?;
    Ok(built.as_async())
}

async fn look(around: &Around, dht: &AsyncDht) {
    let Some(rng) = rng() else { return };
    let mut pace = Pace::new(around.company.clone(), rng);
    loop {
        pace.turn().await;
        let today = unix_s() / DAY_S;
        let mut found = Vec::new();
        for day in [today, today.saturating_sub(1)] {
            found.extend(peers(around, dht, day).await);
        }
        found.sort_unstable();
        found.dedup();
        match found.is_empty() {
            true => {
                let error = "nobody is announced in the Mainline DHT".to_owned();
                around.book.failed(Source::Mainline, error);
            }
            false => around.book.worked(Source::Mainline),
        }
        for some in found.chunks(ADDRESSES_MAX) {
            around
                .ask_and_tell(Source::Mainline, some, Heard::FromStrangers)
                .await;
        }
    }
}

/// Returns who is announced on a day, at most [`FOUND_MAX`].
async fn peers(around: &Around, dht: &AsyncDht, day: u64) -> Vec<SocketAddr> {
    let deadline = Instant::now() + LOOKUP_TIME_MAX;
    let mut answers = dht.get_peers(Id::from(around.rendezvous.info_hash(day)));
    let mut found: Vec<SocketAddr> = Vec::new();
    while let Ok(Some(some)) = timeout_at(deadline, answers.next()).await {
        let some: Vec<SocketAddrV4> = some;
        for address in some.into_iter().map(SocketAddr::from) {
            if found.len() >= FOUND_MAX {
                return found;
            }
            if !found.contains(&address) {
                found.push(address);
            }
        }
    }
    found
}

async fn announce(around: &Around, dht: &AsyncDht) {
    loop {
        let wait = match public_port(around) {
            None => ANNOUNCE_AGAIN,
            Some(port) => {
                let id = Id::from(around.rendezvous.info_hash(unix_s() / DAY_S));
                let announced = timeout(LOOKUP_TIME_MAX, dht.announce_peer(id, Some(port))).await;
                match announced {
                    Ok(Ok(_)) => ANNOUNCE_INTERVAL,
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "announcing in the Mainline DHT");
                        ANNOUNCE_AGAIN
                    }
                    Err(_) => ANNOUNCE_AGAIN,
                }
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Returns the port at which this node is asked from outside; none when it is not reached there, as
/// far as it knows: behind a router that maps no port.
fn public_port(around: &Around) -> Option<u16> {
    if let Some(mapped) = around.networks.mapped() {
        return Some(mapped.port());
    }
    let addresses = around.addresses.borrow();
    let of_the_internet = |at: &SocketAddr| at.is_ipv4() && Reach::of(at.ip()) == Reach::Internet;
    let is_public = addresses.iter().any(of_the_internet);
    around.networks.port().filter(|_| is_public)
}
