//! Has a router map a port by UPnP (Internet Gateway Device: WANIPConnection 1 and 2,
//! WANPPPConnection 1).
//!
//! | part | does |
//! |---|---|
//! | `http` | asks one question by HTTP, and bounds the answer |
//! | `search` | finds a router by SSDP |
//! | `xml` | reads what is needed of its answers |
//!
//! Whoever is in the local network may claim to be the router. It can have this node believe that
//! ports are mapped; of its memory and time it gets what the limits of `http` and `search` say.

mod http;
mod search;
#[cfg(test)]
pub(super) mod tests;
mod xml;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::NonZeroU16;
use std::time::Duration;

use enishi_services::reach::observed::is_public;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(super) use search::find;

use crate::session::External;

/// For how long a port is mapped, and how often it is looked whether it still is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// How long a mapping is asked for. It is renewed at half of that.
    lifetime: Duration,
    /// Between two looks. A router that was restarted has forgotten the mapping.
    look: Duration,
    /// The same, where something tells that the router may have been restarted.
    look_early: Duration,
}

/// What routers are asked for. A look is two questions.
pub(super) const TERMS: Terms = Terms {
    lifetime: Duration::from_secs(2 * 60 * 60),
    look: Duration::from_secs(2 * 60),
    look_early: Duration::from_secs(10),
};

/// How long mapping a port may take, with all that is tried.
const MAP_TIME_MAX: Duration = Duration::from_secs(10);

/// How many outer ports and lifetimes are tried.
const TRIES: usize = 5;

/// After so many looks in a row that tell of no mapping, and do not make one, it is taken for lost.
const FAILURES_MAX: u32 = 3;

/// What the router shows to people.
const DESCRIPTION: &str = "enishi";

/// Another host has this outer port (WANIPConnection 1, section 2.4.16), or the router itself
/// (WANIPConnection 2, section 2.5.17).
const CONFLICTS: [u16; 2] = [718, 729];

/// The router maps a port to the same port alone (the same).
const SAME_PORT_WANTED: u16 = 724;

/// The router maps ports without an end alone (the same).
const ENDLESS_WANTED: u16 = 725;

/// The router does not do it for this host: another port changes nothing (UPnP Device Architecture 1.1,
/// section 3.2.2).
const FORBIDDEN: u16 = 606;

/// There is no such mapping (WANIPConnection 1, section 2.4.15).
const NO_MAPPING: u16 = 714;

/// A router that maps ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gateway {
    /// Who maps ports there, one at least.
    services: Vec<Service>,
}

/// Who maps ports at a router: one of its lines, by one of two kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Service {
    /// Where it takes questions.
    at: SocketAddrV4,
    /// The path there.
    control: String,
    kind: &'static str,
    /// The address of this host that it sees.
    local: Ipv4Addr,
}

/// Why a router did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpnpError {
    #[error(transparent)]
    Http(#[from] http::HttpError),
    #[error("the router refuses with the number {0} of UPnP")]
    Refused(u16),
    #[error("the router's answer is none to the question")]
    Answer,
    #[error("the router has no address outside")]
    Offline,
    #[error("the router has forgotten the mapping, and does not make it again")]
    Gone,
    #[error("the router takes more than ten seconds")]
    Late,
}

impl Gateway {
    /// Makes one of those who map ports there; none without any.
    fn new(services: Vec<Service>) -> Option<Self> {
        (!services.is_empty()).then_some(Self { services })
    }

    /// Maps a port of this host by the first that does it: those with an address of the Internet before
    /// the others, and none that has no address.
    async fn map(
        &self,
        port: NonZeroU16,
        wanted: u16,
        lifetime: Duration,
    ) -> Result<Mapped, UpnpError> {
        let mapped = tokio::time::timeout(MAP_TIME_MAX, async {
            let (mut online, mut failed) = (Vec::new(), UpnpError::Offline);
            for service in &self.services {
                match service.outer_ip().await {
                    Ok(ip) => online.push((ip, service)),
                    Err(error) => failed = error,
                }
            }
            online.sort_by_key(|(ip, _)| !is_public(IpAddr::V4(*ip)));
            for (ip, service) in online {
                match service.map_at(ip, port, wanted, lifetime).await {
                    Ok(mapped) => return Ok(mapped),
                    Err(error) => failed = error,
                }
            }
            Err(failed)
        });
        mapped.await.map_err(|_| UpnpError::Late)?
    }
}

impl Service {
    /// Returns its outer address.
    async fn outer_ip(&self) -> Result<Ipv4Addr, UpnpError> {
        let asked = self.act("GetExternalIPAddress", &[], ["NewExternalIPAddress"]);
        let [ip] = asked.await?;
        let ip = ip.and_then(|ip| ip.parse().ok());
        // What has no address leads nowhere.
        ip.filter(|ip: &Ipv4Addr| !ip.is_unspecified())
            .ok_or(UpnpError::Offline)
    }

    /// Maps a port again as it was mapped before.
    async fn renew(&self, port: NonZeroU16, before: &Mapped) -> Result<Mapped, UpnpError> {
        let mapped = tokio::time::timeout(MAP_TIME_MAX, async {
            let ip = self.outer_ip().await?;
            self.map_at(ip, port, before.at.port(), before.lifetime)
                .await
        });
        mapped.await.map_err(|_| UpnpError::Late)?
    }

    /// Maps a port of this host, to the outer one `wanted` if that is free, else to any. The same is to be
    /// wanted each time: what a router did without an answer is then done once.
    async fn map_at(
        &self,
        ip: Ipv4Addr,
        port: NonZeroU16,
        wanted: u16,
        mut lifetime: Duration,
    ) -> Result<Mapped, UpnpError> {
        let (mut outer, mut is_taken) = (wanted, false);
        for _ in 0..TRIES {
            match self.add(port, outer, lifetime).await {
                Ok(()) => {
                    return Ok(Mapped {
                        by: self.clone(),
                        at: SocketAddrV4::new(ip, outer),
                        lifetime,
                        is_taken,
                    });
                }
                Err(UpnpError::Refused(ENDLESS_WANTED)) if !lifetime.is_zero() => {
                    lifetime = Duration::ZERO;
                    // If this process does not live to give it back, its next life takes it over.
                    outer = port.get();
                }
                Err(UpnpError::Refused(SAME_PORT_WANTED)) if outer != port.get() => {
                    outer = port.get();
                }
                Err(UpnpError::Refused(number)) if CONFLICTS.contains(&number) => {
                    is_taken |= outer == wanted;
                    outer = any_port();
                }
                // Some say no more than that it failed.
                Err(UpnpError::Refused(number))
                    if outer == wanted && ![FORBIDDEN, ENDLESS_WANTED].contains(&number) =>
                {
                    outer = any_port();
                }
                Err(error) => return Err(error),
            }
        }
        Err(UpnpError::Refused(CONFLICTS[0]))
    }

    /// Returns the outer address at which a port is mapped to the outer one, as far as it is.
    async fn has(&self, port: NonZeroU16, outer: u16) -> Result<Option<Ipv4Addr>, UpnpError> {
        let asked = [
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", outer.to_string()),
            ("NewProtocol", "UDP".to_owned()),
        ];
        let wanted = ["NewInternalPort", "NewInternalClient", "NewEnabled"];
        let entry = self.act("GetSpecificPortMappingEntry", &asked, wanted);
        let [inner, client, enabled] = match entry.await {
            Ok(values) => values,
            Err(UpnpError::Refused(NO_MAPPING)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_ours = inner.and_then(|inner| inner.parse().ok()) == Some(port)
            && client.and_then(|client| client.parse().ok()) == Some(self.local)
            && enabled.is_none_or(|enabled| enabled != "0");
        match is_ours {
            true => self.outer_ip().await.map(Some),
            false => Ok(None),
        }
    }

    async fn add(&self, port: NonZeroU16, outer: u16, lifetime: Duration) -> Result<(), UpnpError> {
        let arguments = [
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", outer.to_string()),
            ("NewProtocol", "UDP".to_owned()),
            ("NewInternalPort", port.to_string()),
            ("NewInternalClient", self.local.to_string()),
            ("NewEnabled", "1".to_owned()),
            ("NewPortMappingDescription", DESCRIPTION.to_owned()),
            ("NewLeaseDuration", lifetime.as_secs().to_string()),
        ];
        let [] = self.act("AddPortMapping", &arguments, []).await?;
        Ok(())
    }

    async fn delete(&self, outer: u16) -> Result<(), UpnpError> {
        let arguments = [
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", outer.to_string()),
            ("NewProtocol", "UDP".to_owned()),
        ];
        let [] = self.act("DeletePortMapping", &arguments, []).await?;
        Ok(())
    }

    /// Has an action done, whose arguments are in the order of the standard and need no escaping.
    /// Returns the arguments of the answer that are wanted.
    async fn act<const N: usize>(
        &self,
        action: &str,
        arguments: &[(&str, String)],
        wanted: [&str; N],
    ) -> Result<[Option<String>; N], UpnpError> {
        let kind = self.kind;
        let arguments: String = arguments
            .iter()
            .map(|(name, value)| format!("<{name}>{value}</{name}>"))
            .collect();
        let body = format!(
            "<?xml version=\"1.0\"?>\r\n<s:Envelope \
             xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
             <u:{action} xmlns:u=\"{kind}\">{arguments}</u:{action}></s:Body></s:Envelope>\r\n"
        );
        let name = format!("{kind}#{action}");
        let answer = http::ask(self.at, &self.control, Some((&name, body))).await?;
        let said = xml::said(&answer.text, action, wanted).ok_or(UpnpError::Answer)?;
        match (said.refusal, said.is_done) {
            (Some(number), _) => Err(UpnpError::Refused(number)),
            (None, true) => Ok(said.values),
            (None, false) => Err(UpnpError::Answer),
        }
    }
}

/// What a router maps.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapped {
    by: Service,
    at: SocketAddrV4,
    /// For how long; zero is without an end.
    lifetime: Duration,
    /// Whether another host has the outer port that was wanted.
    is_taken: bool,
}

/// One that needs no rights, and that few routers use themselves.
pub(super) fn any_port() -> u16 {
    // Without random numbers every port is as good as another.
    let random = getrandom::u32().unwrap_or_default();
    u16::try_from(random % 0x8000).map_or(0x8000, |low| 0x8000 | low)
}

/// A mapped port. It is looked after until it is released.
#[derive(Debug)]
pub(super) struct Mapping {
    outer: watch::Receiver<Option<SocketAddrV4>>,
    /// Gives it back when it goes.
    stop: DropGuard,
    kept: JoinHandle<()>,
}

impl Mapping {
    /// Has a port mapped, if possible to the outer one that is given. `external` are the addresses at which
    /// others see this host: when there is another one, it is soon looked whether the mapping is there.
    /// `find` looks for the router again when that one does not do it any more.
    ///
    /// # Errors
    ///
    /// Fails when the router does not do it.
    pub(super) async fn open<F, Found>(
        gateway: Gateway,
        (port, outer): (NonZeroU16, u16),
        terms: Terms,
        mut external: watch::Receiver<External>,
        find: F,
    ) -> Result<Self, UpnpError>
    where
        F: Fn() -> Found + Send + 'static,
        Found: Future<Output = Option<Gateway>> + Send + 'static,
    {
        let mapped = gateway.map(port, outer, terms.lifetime).await?;
        let (told, outer) = watch::channel(Some(mapped.at));
        let stop = CancellationToken::new();
        let seen_at = ips_of_ipv4(&external.borrow_and_update());
        let kept = Kept {
            gateway,
            port,
            terms,
            renews: terms.renews(&mapped),
            mapped,
            seen_at,
            external,
            find,
        };
        let kept = tokio::spawn(kept.keep(told, stop.clone()));
        Ok(Self {
            outer,
            stop: stop.drop_guard(),
            kept,
        })
    }

    /// The outer address; none when the mapping is lost.
    pub(super) fn watch(&self) -> watch::Receiver<Option<SocketAddrV4>> {
        self.outer.clone()
    }

    /// Gives it back. Takes as long as the router.
    pub(super) async fn release(self) {
        drop(self.stop);
        // It panics nowhere; if it did, there is nothing to give back any more.
        let _ = self.kept.await;
    }
}

impl Terms {
    /// Returns when a mapping that was just made is to be renewed; none if it has no end.
    fn renews(&self, mapped: &Mapped) -> Option<Instant> {
        let has_end = !mapped.lifetime.is_zero();
        has_end.then(|| Instant::now() + self.lifetime / 2)
    }
}

/// What keeps a mapping.
struct Kept<F> {
    gateway: Gateway,
    port: NonZeroU16,
    terms: Terms,
    mapped: Mapped,
    renews: Option<Instant>,
    /// At which addresses others see this host, and which of them are known.
    external: watch::Receiver<External>,
    seen_at: BTreeSet<IpAddr>,
    find: F,
}

impl<F, Found> Kept<F>
where
    F: Fn() -> Found,
    Found: Future<Output = Option<Gateway>>,
{
    async fn keep(mut self, told: watch::Sender<Option<SocketAddrV4>>, stop: CancellationToken) {
        let mut failures = 0;
        while failures < FAILURES_MAX {
            let looked = async {
                self.pause().await;
                self.look().await
            };
            let looked = stop.run_until_cancelled(looked).await;
            match looked {
                None => break,
                Some(Ok(())) => {
                    let at = self.mapped.at;
                    told.send_if_modified(|told| told.replace(at) != Some(at));
                    failures = 0;
                }
                Some(Err(UpnpError::Gone)) => {
                    told.send_replace(None);
                    // The outer port may be another host's.
                    return;
                }
                Some(Err(_)) => failures += 1,
            }
        }
        told.send_replace(None);
        // A router that does not do it forgets the mapping at the end of its time, if it has one.
        let _ = self.mapped.by.delete(self.mapped.at.port()).await;
    }

    /// Waits until it is to be looked: sooner where others see this host elsewhere, as then the router may
    /// have been restarted.
    async fn pause(&mut self) {
        let (now, look) = (Instant::now(), Instant::now() + self.terms.look);
        // What is due already was tried in vain.
        let renews = self.renews.filter(|renews| *renews > now);
        let until = renews.map_or(look, |renews| look.min(renews));
        let early = async {
            tokio::time::sleep(self.terms.look_early).await;
            // Ends only with the node.
            while self.external.changed().await.is_ok() {
                let now = ips_of_ipv4(&self.external.borrow_and_update());
                let is_known = now.is_subset(&self.seen_at);
                self.seen_at = now;
                if !is_known {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        // Either is a reason.
        let _ = tokio::time::timeout_at(until, early).await;
    }

    /// Looks whether the port is mapped, and has it mapped again where it may not be, or not for long.
    async fn look(&mut self) -> Result<(), UpnpError> {
        let is_due = self.renews.is_some_and(|renews| renews <= Instant::now());
        let at = self.mapped.at;
        let has = match is_due {
            true => None,
            false => self.mapped.by.has(self.port, at.port()).await.ok(),
        };
        if has == Some(Some(*at.ip())) {
            return Ok(());
        }
        let renewed = self.renew().await.map_err(|error| {
            tracing::debug!(%error, ?has, "the router does not map a port again");
            match has {
                Some(None) => UpnpError::Gone,
                _ => error,
            }
        });
        let mapped = renewed?;
        self.renews = self.terms.renews(&mapped);
        let before = std::mem::replace(&mut self.mapped, mapped);
        let is_another = before.by != self.mapped.by || before.at.port() != self.mapped.at.port();
        // What is another host's, or may be, is left alone.
        if is_another && has != Some(None) && !self.mapped.is_taken {
            // It ends by itself if the router does not do it.
            let _ = before.by.delete(before.at.port()).await;
        }
        Ok(())
    }

    /// Asks for the same port again; if that fails, by the router's other lines; and then whoever is the
    /// router now: after a restart it may take questions at another port.
    async fn renew(&mut self) -> Result<Mapped, UpnpError> {
        let Self { port, terms, .. } = *self;
        let wanted = self.mapped.at.port();
        let mut failed = match self.mapped.by.renew(port, &self.mapped).await {
            Ok(mapped) => return Ok(mapped),
            Err(failed) => failed,
        };
        if self.gateway.services.len() > 1 {
            match self.gateway.map(port, wanted, terms.lifetime).await {
                Ok(mapped) => return Ok(mapped),
                Err(error) => failed = error,
            }
        }
        match (self.find)().await {
            Some(gateway) if gateway != self.gateway => {
                self.gateway = gateway;
                self.gateway.map(port, wanted, terms.lifetime).await
            }
            _ => Err(failed),
        }
    }
}

fn ips_of_ipv4(external: &External) -> BTreeSet<IpAddr> {
    let all = external.told.iter().chain(&external.tried);
    let ips = all.map(|at: &SocketAddr| at.ip().to_canonical());
    ips.filter(IpAddr::is_ipv4).collect()
}
