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
mod tests;
mod xml;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU16;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(super) use search::find;

/// For how long a port is mapped; renewed at half of it.
pub(super) const LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);

/// How long mapping a port may take, with all that is tried.
const MAP_TIME_MAX: Duration = Duration::from_secs(5);

/// How many outer ports are tried.
const TRIES: usize = 4;

/// What the router shows to people.
const DESCRIPTION: &str = "enishi";

/// Another host has this outer port (WANIPConnection 1, section 2.4.16), or the router itself
/// (WANIPConnection 2, section 2.5.17).
const CONFLICTS: [u16; 2] = [718, 729];

/// The router maps a port to the same port alone (the same).
const SAME_PORT_WANTED: u16 = 724;

/// The router does not do it for this host, or not for a time: another port changes nothing (the same).
const IN_VAIN: [u16; 2] = [606, 725];

/// A router that maps ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gateway {
    /// Where it takes questions.
    at: SocketAddrV4,
    /// The path there.
    control: String,
    service: &'static str,
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
    #[error("the router takes more than five seconds")]
    Late,
}

impl Gateway {
    /// Maps a port of this host, to the outer one `wanted` if that is free, else to any. The same is to be
    /// wanted each time: what a router did without an answer is then done once.
    async fn map(
        &self,
        port: NonZeroU16,
        wanted: u16,
        lifetime: Duration,
    ) -> Result<Mapped, UpnpError> {
        let mapped = tokio::time::timeout(MAP_TIME_MAX, async {
            let ip = self
                .act("GetExternalIPAddress", &[], "NewExternalIPAddress")
                .await?
                .and_then(|ip| ip.parse().ok())
                // What has no address leads nowhere.
                .filter(|ip: &Ipv4Addr| !ip.is_unspecified())
                .ok_or(UpnpError::Answer)?;
            let (mut outer, mut is_taken) = (wanted, false);
            for _ in 0..TRIES {
                match self.add(port, outer, lifetime).await {
                    Ok(()) => {
                        let at = SocketAddrV4::new(ip, outer);
                        return Ok(Mapped { at, is_taken });
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
                        if outer == wanted && !IN_VAIN.contains(&number) =>
                    {
                        outer = any_port();
                    }
                    Err(error) => return Err(error),
                }
            }
            Err(UpnpError::Refused(CONFLICTS[0]))
        });
        mapped.await.map_err(|_| UpnpError::Late)?
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
        self.act("AddPortMapping", &arguments, "").await.map(drop)
    }

    async fn delete(&self, outer: u16) -> Result<(), UpnpError> {
        let arguments = [
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", outer.to_string()),
            ("NewProtocol", "UDP".to_owned()),
        ];
        let deleted = self.act("DeletePortMapping", &arguments, "");
        deleted.await.map(drop)
    }

    /// Has an action done, whose arguments are in the order of the standard and need no escaping.
    async fn act(
        &self,
        action: &str,
        arguments: &[(&str, String)],
        wanted: &str,
    ) -> Result<Option<String>, UpnpError> {
        let service = self.service;
        let arguments: String = arguments
            .iter()
            .map(|(name, value)| format!("<{name}>{value}</{name}>"))
            .collect();
        let body = format!(
            "<?xml version=\"1.0\"?>\r\n<s:Envelope \
             xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
             <u:{action} xmlns:u=\"{service}\">{arguments}</u:{action}></s:Body></s:Envelope>\r\n"
        );
        let name = format!("{service}#{action}");
        let answer = http::ask(self.at, &self.control, Some((&name, body))).await?;
        let said = xml::said(&answer.text, action, wanted).ok_or(UpnpError::Answer)?;
        match (said.refusal, said.is_done) {
            (Some(number), _) => Err(UpnpError::Refused(number)),
            (None, true) => Ok(said.value),
            (None, false) => Err(UpnpError::Answer),
        }
    }
}

/// What a router maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapped {
    at: SocketAddrV4,
    /// Whether another host has the outer port that was wanted.
    is_taken: bool,
}

/// One that needs no rights, and that few routers use themselves.
pub(super) fn any_port() -> u16 {
    // Without random numbers every port is as good as another.
    let random = getrandom::u32().unwrap_or_default();
    u16::try_from(random % 0x8000).map_or(0x8000, |low| 0x8000 | low)
}

/// A mapped port. It is renewed until it is released.
#[derive(Debug)]
pub(super) struct Mapping {
    external: watch::Receiver<Option<SocketAddrV4>>,
    /// Gives it back when it goes.
    stop: DropGuard,
    kept: JoinHandle<()>,
}

impl Mapping {
    /// Has a port mapped, if possible to the outer one that is given. `find` looks for the router again when that one renews nothing.
    ///
    /// # Errors
    ///
    /// Fails when the router does not do it.
    pub(super) async fn open<F, Found>(
        gateway: Gateway,
        (port, outer): (NonZeroU16, u16),
        lifetime: Duration,
        find: F,
    ) -> Result<Self, UpnpError>
    where
        F: Fn() -> Found + Send + 'static,
        Found: Future<Output = Option<Gateway>> + Send + 'static,
    {
        let at = gateway.map(port, outer, lifetime).await?.at;
        let (told, external) = watch::channel(Some(at));
        let stop = CancellationToken::new();
        let kept = Kept {
            gateway,
            port,
            lifetime,
            at,
            find,
        };
        let kept = tokio::spawn(kept.keep(told, stop.clone()));
        Ok(Self {
            external,
            stop: stop.drop_guard(),
            kept,
        })
    }

    /// The outer address; none when the mapping is lost.
    pub(super) fn watch(&self) -> watch::Receiver<Option<SocketAddrV4>> {
        self.external.clone()
    }

    /// Gives it back. Takes as long as the router.
    pub(super) async fn release(self) {
        drop(self.stop);
        // It panics nowhere; if it did, there is nothing to give back any more.
        let _ = self.kept.await;
    }
}

/// What keeps a mapping.
struct Kept<F> {
    gateway: Gateway,
    port: NonZeroU16,
    lifetime: Duration,
    at: SocketAddrV4,
    find: F,
}

impl<F, Found> Kept<F>
where
    F: Fn() -> Found,
    Found: Future<Output = Option<Gateway>>,
{
    async fn keep(mut self, told: watch::Sender<Option<SocketAddrV4>>, stop: CancellationToken) {
        let mut ends = Instant::now() + self.lifetime;
        let mut pause = self.lifetime / 2;
        while let Some(renewed) = stop
            .run_until_cancelled(async {
                tokio::time::sleep(pause).await;
                self.renew().await
            })
            .await
        {
            match renewed {
                Ok(Mapped { at, is_taken }) => {
                    let before = std::mem::replace(&mut self.at, at);
                    if before.port() != at.port() && !is_taken {
                        // It ends by itself if the router does not do it.
                        let _ = self.gateway.delete(before.port()).await;
                    }
                    told.send_if_modified(|told| told.replace(at) != Some(at));
                    ends = Instant::now() + self.lifetime;
                    pause = self.lifetime / 2;
                }
                Err(error) => {
                    tracing::debug!(%error, "the router does not renew a mapping");
                    pause = self.lifetime / 8;
                    if Instant::now() + pause > ends {
                        break;
                    }
                }
            }
        }
        told.send_replace(None);
        // A router that does not do it forgets the mapping at the end of its time.
        let _ = self.gateway.delete(self.at.port()).await;
    }

    /// Asks for the same port again; if that fails, whoever is the router now: after a restart it may
    /// take questions at another port.
    async fn renew(&mut self) -> Result<Mapped, UpnpError> {
        let wanted = self.at.port();
        let failed = match self.gateway.map(self.port, wanted, self.lifetime).await {
            Ok(at) => return Ok(at),
            Err(failed) => failed,
        };
        match (self.find)().await {
            Some(gateway) if gateway != self.gateway => {
                self.gateway = gateway;
                self.gateway.map(self.port, wanted, self.lifetime).await
            }
            _ => Err(failed),
        }
    }
}
