//! What becomes of a query: who asks, how often, and whether this node or another server
//! answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use enishi_dns::answer::failed;
use enishi_dns::{Asker, Policy, Reply, Transport, Zone, answer};
use tokio::sync::{Semaphore, mpsc};

use super::rates::{self, Rates};
use super::{ZoneRequest, forward};

/// How many queries wait for other servers at once; further ones fail.
const FORWARDED_MAX: usize = 256;

/// For whom an address is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// On loopback: for this host.
    Loopback,
    /// Of this node in a channel: for this host and the members.
    Channel {
        /// Which.
        number: u32,
        /// This node's addresses in it.
        own: [IpAddr; 2],
    },
}

/// The servers that answer what this node does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Upstreams {
    /// In the order in which they are asked.
    pub(super) servers: Vec<SocketAddr>,
    /// Whether the first of them is another node of this host, with channels of its own.
    pub(super) first_is_node: bool,
}

/// Answers queries, whatever they come by.
pub(super) struct Responder {
    zones: mpsc::Sender<ZoneRequest>,
    rates: Mutex<Rates>,
    upstreams: Mutex<Arc<Upstreams>>,
    forwarded: Semaphore,
}

impl Responder {
    pub(super) fn new(zones: mpsc::Sender<ZoneRequest>) -> Self {
        Self {
            zones,
            rates: Mutex::default(),
            upstreams: Mutex::default(),
            forwarded: Semaphore::new(FORWARDED_MAX),
        }
    }

    /// Names the servers to which other names are forwarded; without any they are refused.
    pub(super) fn set_upstreams(&self, upstreams: Upstreams) {
        *lock(&self.upstreams) = Arc::new(upstreams);
    }

    /// Judges a query; none when nothing is to be sent. A query that is to be forwarded is
    /// not waited for: see [`Self::forward`].
    pub(super) async fn judge(
        &self,
        query: &[u8],
        from: IpAddr,
        door: Door,
        transport: Transport,
    ) -> Reply {
        let Some(zone) = super::zone(&self.zones).await else {
            return Reply::Nothing;
        };
        let Some(asker) = asker(&zone, from.to_canonical(), door) else {
            return Reply::Nothing;
        };
        let allowance = match asker {
            Asker::Host => rates::HOST,
            Asker::Member(_) => rates::MEMBER,
        };
        if !lock(&self.rates).take(from, allowance, Instant::now()) {
            return Reply::Nothing;
        }
        let upstreams = Arc::clone(&lock(&self.upstreams));
        let policy = Policy {
            domains: !upstreams.servers.is_empty(),
            channels: upstreams.first_is_node,
        };
        answer(&zone, query, asker, transport, policy)
    }

    /// Has another server answer; `channel` tells that only another node can. None when
    /// nothing is to be sent.
    pub(super) async fn forward(
        &self,
        query: &[u8],
        transport: Transport,
        channel: bool,
    ) -> Option<Vec<u8>> {
        let upstreams = Arc::clone(&lock(&self.upstreams));
        let servers = match channel {
            true => &upstreams.servers[..upstreams.servers.len().min(1)],
            false => &upstreams.servers,
        };
        let answer = match self.forwarded.try_acquire() {
            Ok(_turn) => forward::ask(servers, query, transport).await,
            Err(_) => None,
        };
        answer.or_else(|| match failed(query) {
            Reply::Answer(octets) => Some(octets),
            Reply::Forward | Reply::ForwardChannel | Reply::Nothing => None,
        })
    }
}

/// Tells who asks; none when it is nobody who may.
fn asker(zone: &Zone, from: IpAddr, door: Door) -> Option<Asker> {
    match door {
        _ if from.is_loopback() => Some(Asker::Host),
        Door::Loopback => None,
        Door::Channel { own, .. } if own.contains(&from) => Some(Asker::Host),
        Door::Channel { number, .. } => zone.serves(number, from).then_some(Asker::Member(number)),
    }
}

/// A panic elsewhere does not make what is guarded useless: every change is complete.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
