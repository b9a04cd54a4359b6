//! Has the site's router map ports of this node, if it does so on request: by PCP (RFC 6887),
//! NAT-PMP (RFC 6886) or UPnP (Internet Gateway Device).
//!
//! Two ports of UDP over IPv4 are mapped, that of the sessions and that of the packets. A
//! router is asked at the start, when this host sends to the Internet by another address or router
//! (`home`), when a mapping is lost, and at growing intervals as long as there is none. What it gave is
//! renewed at half of its time and given back at the end. PCP and NAT-PMP are those of `portmapper`; its
//! UPnP reads whatever a router sends, however long, so that `upnp` is our own.

mod home;
#[cfg(test)]
mod tests;
mod upnp;

use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::num::NonZeroU16;
use std::time::Duration;

use enishi_api::PortMapping;
use enishi_services::reach::observed::is_public;
use portmapper::{Client, Config, Protocol};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::session::External;
use home::Home;

/// The first interval between two questions as long as a mapping is missing; each is twice the one
/// before. A router that has just been switched on, or did not hear the question, is found soon.
const ASK_INTERVAL_MIN: Duration = Duration::from_secs(5);

/// The longest interval: a router that maps nothing is left alone.
const ASK_INTERVAL_MAX: Duration = Duration::from_secs(600);

/// How soon a router is asked again that has taken a mapping back.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// How often it is looked by which address and router this host sends, besides when its addresses change.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);

/// How long one protocol may take to map a port.
const MAP_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a mapping may take to be given back, where the host is no more.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(1);

/// The same at the end, where it is waited for one question to a router: some mappings last for ever.
const LAST_RELEASE_TIME_MAX: Duration = Duration::from_millis(3500);

/// What a router maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mapped {
    /// Its outer address for the sessions; none when it maps nothing, or to an address that is not
    /// of the Internet.
    pub(crate) sessions: Option<SocketAddr>,
    /// The same for the packets of virtual networks.
    pub(crate) packets: Option<SocketAddr>,
    /// Which protocols it speaks; none until it was asked, or if there is none to ask.
    pub(crate) router: Option<PortMapping>,
}

/// The ports that a router is to map, and what is known of it.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// Of the sessions and the packets.
    ports: [Port; 2],
    router: Option<PortMapping>,
    /// The router that UPnP found.
    gateway: Option<upnp::Gateway>,
    /// What the mappings are for.
    home: Option<Home>,
    /// At which addresses others see this host.
    external: watch::Receiver<External>,
    mapped: watch::Sender<Mapped>,
}

impl Mapping {
    /// Prepares to have the ports of sessions and of packets mapped. `external` are the addresses at which
    /// others see this host.
    pub(crate) fn new(
        ports: [NonZeroU16; 2],
        external: watch::Receiver<External>,
        mapped: watch::Sender<Mapped>,
    ) -> Self {
        Self {
            ports: ports.map(|number| Port {
                number,
                outer: upnp::any_port(),
                kept: None,
            }),
            router: None,
            gateway: None,
            home: None,
            external,
            mapped,
        }
    }

    /// Sees to the mappings until it is told to stop. `local` are the addresses of this host.
    pub(crate) async fn keep(
        self,
        local: watch::Receiver<Vec<SocketAddr>>,
        stop: CancellationToken,
    ) {
        self.keep_where(local, stop, Home::look).await;
    }

    /// The same, with how to look where this host is.
    async fn keep_where(
        mut self,
        mut local: watch::Receiver<Vec<SocketAddr>>,
        stop: CancellationToken,
        look: impl Fn(&[IpAddr]) -> Option<Home>,
    ) {
        let mut interval = ASK_INTERVAL_MIN;
        loop {
            let own = of_ipv4(&local.borrow_and_update());
            let home = look(&own);
            if Home::is_another(self.home, &own, home) {
                self.release(RELEASE_TIME_MAX).await;
                (self.home, self.router, self.gateway) = (home, None, None);
                interval = ASK_INTERVAL_MIN;
            }
            if !own.is_empty() {
                let until = stop.run_until_cancelled(self.ask(&own));
                if until.await.is_none() {
                    break;
                }
            }
            self.tell();
            let before = self.home;
            let moved = async {
                let is_another = |local: &mut watch::Receiver<Vec<SocketAddr>>| {
                    let own = of_ipv4(&local.borrow_and_update());
                    Home::is_another(before, &own, look(&own))
                };
                while !is_another(&mut local) {
                    let changed = tokio::time::timeout(LOOK_INTERVAL, local.changed());
                    if matches!(changed.await, Ok(Err(_))) {
                        // The sessions end with the daemon, which stops this as well.
                        std::future::pending::<()>().await;
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = moved => {}
                () = self.changed() => {
                    interval = ASK_INTERVAL_MIN;
                    self.tell();
                    // It may be about to be renewed.
                    stop.run_until_cancelled(tokio::time::sleep(ASK_AGAIN)).await;
                }
                () = tokio::time::sleep(interval) => {
                    interval = (2 * interval).min(ASK_INTERVAL_MAX);
                }
            }
        }
        self.release(LAST_RELEASE_TIME_MAX).await;
    }

    /// Asks for what is missing. `own` are this host's addresses.
    async fn ask(&mut self, own: &[IpAddr]) {
        if self.ports.iter().all(|port| port.external().is_some()) {
            return;
        }
        // What it spoke before it still speaks: of many questions one may be lost.
        let before = self.router.unwrap_or_default();
        let both = client(Way::ALL);
        let (offered, found) = tokio::join!(both.probe(), upnp::find(own.to_vec()));
        self.gateway = found.or(self.gateway.take());
        // There is none to ask if this fails.
        let offered = offered.ok().and_then(Result::ok);
        let offered = offered.map(|now| (now.nat_pmp || before.nat_pmp, now.pcp || before.pcp));
        let upnp = self.gateway.is_some();
        // The protocols are found by different ways.
        let offered = offered.or(upnp.then_some((false, false)));
        self.router = offered.map(|(nat_pmp, pcp)| PortMapping { upnp, nat_pmp, pcp });
        let Some(router) = self.router else {
            return;
        };
        self.tell();
        let gateway = self.gateway.as_ref();
        let gateway = gateway.map(|gateway| (gateway, own, &self.external));
        let [sessions, packets] = &mut self.ports;
        tokio::join!(sessions.map(router, gateway), packets.map(router, gateway));
    }

    fn tell(&self) {
        let [sessions, packets] = self.ports.each_ref().map(Port::external);
        let now = Mapped {
            sessions,
            packets,
            router: self.router,
        };
        self.mapped.send_if_modified(|told| {
            let changed = *told != now;
            match told.sessions == now.sessions && told.packets == now.packets {
                true => {}
                false if sessions.or(packets).is_some() => tracing::info!("the router maps ports"),
                false => tracing::info!("the router maps no ports any more"),
            }
            *told = now;
            changed
        });
    }

    /// Waits until a mapping changes.
    async fn changed(&self) {
        let [sessions, packets] = self.ports.each_ref().map(Port::changed);
        tokio::select! {
            () = sessions => {}
            () = packets => {}
        }
    }

    /// Gives everything back.
    async fn release(&mut self, time_max: Duration) {
        let [sessions, packets] = &mut self.ports;
        tokio::join!(sessions.release(time_max), packets.release(time_max));
        self.tell();
    }
}

/// A port of this node.
#[derive(Debug)]
struct Port {
    number: NonZeroU16,
    /// Which outer one is asked for by UPnP.
    outer: u16,
    /// Who has it mapped.
    kept: Option<Kept>,
}

impl Port {
    /// Returns the outer address, if it is one of the Internet: a router behind another one maps
    /// to what nobody reaches.
    fn external(&self) -> Option<SocketAddr> {
        let mapped = *self.kept.as_ref()?.watch().borrow();
        let mapped = mapped.filter(|at| is_public(IpAddr::V4(*at.ip())));
        mapped.map(SocketAddr::V4)
    }

    /// Asks by one protocol after the other, since a router may speak one and refuse by it: PCP
    /// does so for an hour when the mapping is of a former life of this process.
    async fn map(&mut self, router: PortMapping, gateway: Option<Found<'_>>) {
        if self.external().is_some() {
            return;
        }
        self.release(RELEASE_TIME_MAX).await;
        for way in Way::ALL.into_iter().filter(|way| way.is_of(router)) {
            let client = client([way]);
            // Without it the client takes it that there is no such router.
            let _ = client.probe().await;
            client.update_local_port(self.number);
            let mut mapped = client.watch_external_address();
            let mapped = mapped.wait_for(Option::is_some);
            let is_mapped = tokio::time::timeout(MAP_TIME_MAX, mapped).await;
            if matches!(is_mapped, Ok(Ok(_))) {
                self.kept = Some(Kept::Client(client));
                return;
            }
        }
        if let Some((gateway, own, external)) = gateway {
            let (ports, own) = ((self.number, self.outer), own.to_vec());
            let find = move || upnp::find(own.clone());
            let (gateway, external) = (gateway.clone(), external.clone());
            let opened = upnp::Mapping::open(gateway, ports, upnp::TERMS, external, find);
            self.kept = opened
                .await
                .inspect_err(|error| tracing::debug!(%error, "no mapping by UPnP"))
                .map(Kept::Upnp)
                .ok();
        }
    }

    fn changed(&self) -> impl Future<Output = ()> + use<> {
        let watched = self.kept.as_ref().map(Kept::watch);
        async move {
            if let Some(mut watched) = watched {
                watched.mark_unchanged();
                if watched.changed().await.is_ok() {
                    return;
                }
            }
            std::future::pending::<()>().await;
        }
    }

    async fn release(&mut self, time_max: Duration) {
        let released = async {
            match self.kept.take() {
                None => {}
                Some(Kept::Upnp(mapping)) => mapping.release().await,
                Some(Kept::Client(client)) => {
                    client.deactivate();
                    // Is answered once that is done.
                    let _ = client.probe().await;
                }
            }
        };
        let _ = tokio::time::timeout(time_max, released).await;
    }
}

/// The router that UPnP found, this host's addresses, and those at which others see it.
type Found<'a> = (
    &'a upnp::Gateway,
    &'a [IpAddr],
    &'a watch::Receiver<External>,
);

/// What keeps a port mapped.
#[derive(Debug)]
enum Kept {
    Client(Client),
    Upnp(upnp::Mapping),
}

impl Kept {
    fn watch(&self) -> watch::Receiver<Option<SocketAddrV4>> {
        match self {
            Self::Client(client) => client.watch_external_address(),
            Self::Upnp(mapping) => mapping.watch(),
        }
    }
}

/// A protocol for it, besides UPnP, which is asked last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Pcp,
    NatPmp,
}

impl Way {
    /// The simplest and surest first.
    const ALL: [Self; 2] = [Self::Pcp, Self::NatPmp];

    fn is_of(self, router: PortMapping) -> bool {
        match self {
            Self::Pcp => router.pcp,
            Self::NatPmp => router.nat_pmp,
        }
    }
}

/// Who speaks these protocols.
fn client<const N: usize>(ways: [Way; N]) -> Client {
    Client::new(Config {
        enable_upnp: false,
        enable_pcp: ways.contains(&Way::Pcp),
        enable_nat_pmp: ways.contains(&Way::NatPmp),
        protocol: Protocol::Udp,
    })
}

fn of_ipv4(addresses: &[SocketAddr]) -> Vec<IpAddr> {
    let ips = addresses.iter().map(SocketAddr::ip);
    ips.filter(|ip| ip.is_ipv4() && !ip.is_loopback()).collect()
}
