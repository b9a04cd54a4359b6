//! The local network: DNS-SD (RFC 6763) over multicast DNS (RFC 6762).
//!
//! ```text
//!   _enishi._udp.local.          PTR  LABEL._enishi._udp.local.
//!   LABEL._enishi._udp.local.    SRV  0 0 PORT enishi-SALT.local.     TXT ""
//! ```
//!
//! The label is a random salt and a mark made of it with what the overlay's nodes know
//! (`Rendezvous::label`): they recognise each other, and to all others two labels have nothing in
//! common. It is drawn anew every day and at each start. No node id is announced; whoever knows the
//! overlay asks for it at the port, that of packets.
//!
//! What is heard is hostile. Labels of others are dropped, so many instances are remembered, and few are
//! asked at once. The library keeps what it hears as long as the sender wants; when that is too much,
//! it is stopped for a while.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use enishi_overlay::NodeId;
use mdns_sd::{
    IfKind, IfPredicate, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::ask::{Heard, rng};
use super::{Around, Source};

/// The service's type (RFC 6763, section 4.1.2).
const SERVICE: &str = "_enishi._udp.local.";

/// How the devices of virtual networks begin: nothing is announced there.
const OWN_DEVICES: &str = "enishi";

/// The most instances that are remembered, and the most addresses of each.
const INSTANCES_MAX: usize = 64;
const ADDRESSES_MAX: usize = 4;

/// How many instances are asked at once.
const ASKS_MAX: usize = 4;

/// How long after an instance was asked in vain it is asked again: at first, and at most.
const ASK_AGAIN_MIN: Duration = Duration::from_secs(2);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(300);

/// How long after a node answered it is asked again: while it is not among the peers, and this node
/// has none; or has others.
const MEET_AGAIN_ALONE: Duration = Duration::from_secs(10);
const MEET_AGAIN: Duration = Duration::from_secs(600);

/// Between two looks at whom to ask.
const TICK: Duration = Duration::from_millis(500);

/// After how long another label is drawn.
const LABEL_TIME: Duration = Duration::from_secs(86_400);

/// How many records the library may keep; it is looked at every so often, and stopped so long.
const CACHED_MAX: i64 = 4_096;
const CACHE_LOOK: Duration = Duration::from_secs(15);
const QUIET_TIME: Duration = Duration::from_secs(600);

/// How long it is waited when the network cannot be listened to.
const RETRY_TIME: Duration = Duration::from_secs(60);

/// Why an announcement ended.
enum End {
    /// It is to be made anew.
    LabelIsOld,
    /// The network says too much.
    Flooded,
    /// The library stopped.
    Stopped,
}

/// Announces this node and looks for others, until it is dropped.
pub(super) async fn run(around: Around) {
    loop {
        let announced = Announced::start(&around);
        let wait = match announced {
            Ok(mut announced) => match announced.follow(&around).await {
                End::LabelIsOld => Duration::ZERO,
                End::Flooded => {
                    let error = "too much is announced in the local network".to_owned();
                    around.book.failed(Source::LocalNetwork, error);
                    QUIET_TIME
                }
                End::Stopped => RETRY_TIME,
            },
            Err(error) => {
                around.book.failed(Source::LocalNetwork, error);
                RETRY_TIME
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// A node that is announced; it is taken back when this is dropped.
struct Announced {
    daemon: ServiceDaemon,
    own: String,
    events: mdns_sd::Receiver<ServiceEvent>,
    instances: BTreeMap<String, Instance>,
    asking: JoinSet<(String, Option<NodeId>)>,
}

/// Another node that is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Instance {
    addresses: Vec<SocketAddr>,
    /// Who answered there last.
    id: Option<NodeId>,
    next: Instant,
    /// How often nobody answered.
    misses: u32,
    is_asked: bool,
}

impl Announced {
    fn start(around: &Around) -> Result<Self, String> {
        let port = around.networks.port();
        let port = port.ok_or_else(|| "there is no port to announce".to_owned())?;
        let mut salt = [0; 8];
        getrandom::fill(&mut salt).map_err(|error| error.to_string())?;
        let label = around.rendezvous.label(salt);
        let said = |error: mdns_sd::Error| error.to_string();
        let daemon = ServiceDaemon::new().map_err(said)?;
        let is_own = IfPredicate::new(|device| device.name.starts_with(OWN_DEVICES));
        let left_out = vec![
            IfKind::Predicate(is_own),
            IfKind::LoopbackV4,
            IfKind::LoopbackV6,
        ];
        daemon.disable_interface(left_out).map_err(said)?;
        let host = format!("enishi-{}.local.", &label[..16]);
        let nothing: &[(&str, &str)] = &[];
        let service = ServiceInfo::new(SERVICE, &label, &host, "", port, nothing);
        let mut service = service.map_err(said)?.enable_addr_auto();
        // Sixteen random octets are in nobody's way.
        service.set_requires_probe(false);
        daemon.register(service).map_err(said)?;
        Ok(Self {
            events: daemon.browse(SERVICE).map_err(said)?,
            daemon,
            own: label,
            instances: BTreeMap::new(),
            asking: JoinSet::new(),
        })
    }

    async fn follow(&mut self, around: &Around) -> End {
        around.book.worked(Source::LocalNetwork);
        let (mut ticks, mut looks) = (interval(TICK), interval(CACHE_LOOK));
        let old = tokio::time::sleep(LABEL_TIME);
        tokio::pin!(old);
        loop {
            tokio::select! {
                event = self.events.recv_async() => match event {
                    Ok(ServiceEvent::ServiceResolved(service)) => self.heard(around, &service),
                    // It says goodbye; whoever is there goes on without being announced.
                    Ok(ServiceEvent::ServiceRemoved(_, name)) => drop(self.instances.remove(&name)),
                    Ok(_) => {}
                    Err(_) => return End::Stopped,
                },
                Some(asked) = self.asking.join_next() => {
                    if let Ok((name, id)) = asked {
                        self.answered(&name, id);
                    }
                }
                _ = ticks.tick() => self.ask(around),
                _ = looks.tick() => if self.is_flooded().await {
                    return End::Flooded;
                },
                () = &mut old => return End::LabelIsOld,
            }
        }
    }

    fn heard(&mut self, around: &Around, service: &ResolvedService) {
        let Some(label) = service.fullname.split('.').next() else {
            return;
        };
        let addresses = addresses(service);
        if label == self.own || addresses.is_empty() || !around.rendezvous.is_label(label) {
            return;
        }
        let known = self.instances.get(&service.fullname);
        if known.is_some_and(|known| known.addresses == addresses)
            || (known.is_none() && !self.make_room())
        {
            return;
        }
        tracing::debug!(?addresses, "a node is announced in the local network");
        let instance = Instance {
            addresses,
            id: None,
            next: Instant::now(),
            misses: 0,
            is_asked: false,
        };
        self.instances.insert(service.fullname.clone(), instance);
        self.ask(around);
    }

    /// Tells whether one more instance has room; who has been silent the longest gives way. A node
    /// that starts anew has another label, and its former ones are announced for an hour.
    fn make_room(&mut self) -> bool {
        if self.instances.len() < INSTANCES_MAX {
            return true;
        }
        let silent = self.instances.iter();
        let silent = silent.filter(|(_, instance)| instance.misses > 0 && !instance.is_asked);
        let longest = silent.max_by_key(|(_, instance)| instance.misses);
        let longest = longest.map(|(name, _)| name.clone());
        longest.is_some_and(|name| self.instances.remove(&name).is_some())
    }

    /// Asks those who are due.
    fn ask(&mut self, around: &Around) {
        let now = Instant::now();
        let company = around.company.borrow().clone();
        for (name, instance) in &mut self.instances {
            if self.asking.len() >= ASKS_MAX {
                return;
            }
            let is_peer = instance.id.is_some_and(|id| company.peers.contains(&id));
            let since = match company.near {
                0 if instance.id.is_some() => MEET_AGAIN.saturating_sub(MEET_AGAIN_ALONE),
                _ => Duration::ZERO,
            };
            if instance.is_asked || is_peer || now + since < instance.next {
                continue;
            }
            instance.is_asked = true;
            let (around, name) = (around.clone(), name.clone());
            let addresses = instance.addresses.clone();
            self.asking.spawn(async move {
                let source = Source::LocalNetwork;
                let heard = Heard::FromStrangers;
                let found = around.ask_and_tell(source, &addresses, heard).await;
                (name, found.first().copied())
            });
        }
    }

    fn answered(&mut self, name: &str, id: Option<NodeId>) {
        let Some(instance) = self.instances.get_mut(name) else {
            return;
        };
        instance.is_asked = false;
        let wait = match id {
            Some(_) => {
                (instance.id, instance.misses) = (id, 0);
                MEET_AGAIN
            }
            None => {
                instance.misses += 1;
                ask_again(instance.misses)
            }
        };
        instance.next = Instant::now() + wait;
    }

    /// Tells whether the library keeps more than it should.
    async fn is_flooded(&self) -> bool {
        let Ok(metrics) = self.daemon.get_metrics() else {
            return false;
        };
        let Ok(metrics) = metrics.recv_async().await else {
            return false;
        };
        let cached = metrics
            .iter()
            .filter(|(name, _)| name.starts_with("cached"));
        cached.map(|(_, count)| *count).sum::<i64>() > CACHED_MAX
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        // It says goodbye first; nobody waits for it.
        let _ = self.daemon.unregister(&format!("{}.{SERVICE}", self.own));
        let _ = self.daemon.shutdown();
    }
}

/// Returns where an instance may be asked: IPv4 first, and nothing that means little elsewhere.
fn addresses(service: &ResolvedService) -> Vec<SocketAddr> {
    let mut ips: Vec<IpAddr> = service.addresses.iter().map(ScopedIp::to_ip_addr).collect();
    ips.retain(|ip| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()));
    ips.sort_unstable();
    let at = ips.into_iter().map(|ip| SocketAddr::new(ip, service.port));
    at.take(ADDRESSES_MAX).collect()
}

fn ask_again(misses: u32) -> Duration {
    let doubled = ASK_AGAIN_MIN.saturating_mul(1 << misses.saturating_sub(1).min(16));
    // Not all at once.
    let jitter = rng().map_or(Duration::ZERO, |mut rng| rng.duration_below(ASK_AGAIN_MIN));
    doubled.min(ASK_AGAIN_MAX) + jitter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_is_asked_ever_less_often() {
        let waits: Vec<u64> = (1..20).map(|misses| ask_again(misses).as_secs()).collect();
        assert!((2..=4).contains(&waits[0]) && (4..=6).contains(&waits[1]));
        assert!(waits[18] >= 300 && waits[18] <= 302, "{waits:?}");
    }
}
