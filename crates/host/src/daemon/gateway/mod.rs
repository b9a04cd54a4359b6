//! Ways into the channels for programs that have none by the kernel, and out of them.
//!
//! | part | does |
//! |---|---|
//! | `destination` | whom a program means, and whether it may reach it: members only |
//! | `socks`, `http` | proxies for the programs of this host |
//! | `forwards` | the forwards that a person set up, kept on disk |
//! | `forwarding` | carries connections and datagrams of one forward |
//!
//! All of them use [`crate::packets::Reach`]: the kernel's sockets where a channel has a
//! network device, those of the user-space network otherwise. They are no open proxy:
//! destinations outside the channels are refused, and so are clients on other hosts unless
//! the configuration names them.

mod destination;
mod forwarding;
pub(super) mod forwards;
mod http;
mod socks;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::desk::Desk;
use crate::config::Config;

pub(super) use forwards::Forwards;

/// The most connections of each proxy, and of each forward, at a time; further ones wait.
const CONNECTIONS_MAX: usize = 256;

/// Octets that a connection holds in each direction.
const COPY_BYTES: usize = 64 * 1024;

/// Why a proxy cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("the {which} proxy cannot listen at {at}: {source}")]
pub struct ProxyError {
    which: &'static str,
    at: SocketAddr,
    source: io::Error,
}

/// The proxies that are configured, bound and not yet serving.
pub(super) struct Proxies {
    socks: Option<TcpListener>,
    http: Option<TcpListener>,
}

impl Proxies {
    pub(super) async fn bind(config: &Config) -> Result<Self, ProxyError> {
        Ok(Self {
            socks: bind("SOCKS", config.socks).await?,
            http: bind("HTTP", config.http_proxy).await?,
        })
    }

    /// Where they listen.
    pub(super) fn addresses(&self) -> enishi_api::Proxies {
        let at = |listener: &Option<TcpListener>| listener.as_ref()?.local_addr().ok();
        enishi_api::Proxies {
            socks: at(&self.socks),
            http: at(&self.http),
        }
    }

    /// Serves until the daemon stops.
    pub(super) fn serve(self, desk: &Desk) {
        if let Some(listener) = self.socks {
            tokio::spawn(serve(desk.clone(), listener, socks::serve));
        }
        if let Some(listener) = self.http {
            tokio::spawn(serve(desk.clone(), listener, http::serve));
        }
    }
}

async fn bind(
    which: &'static str,
    at: Option<SocketAddr>,
) -> Result<Option<TcpListener>, ProxyError> {
    let Some(at) = at else { return Ok(None) };
    let bound = TcpListener::bind(at).await;
    let bound = bound.map_err(|source| ProxyError { which, at, source })?;
    tracing::info!(at = ?bound.local_addr().ok(), "{which} proxy");
    Ok(Some(bound))
}

/// One of the connections that a proxy has room for, until all that belongs to it has ended.
type Place = Arc<OwnedSemaphorePermit>;

/// Serves each client in a task of its own.
async fn serve<F: Future<Output = io::Result<()>> + Send + 'static>(
    desk: Desk,
    listener: TcpListener,
    client: fn(Desk, TcpStream, Place) -> F,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = desk.ending.stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, from)) if may_use(&desk.shared.config, from) => stream,
            Ok((_, from)) => {
                tracing::debug!(%from, "a client of another host was refused");
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "a client of a proxy could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let desk = desk.clone();
        tokio::spawn(async move {
            if let Err(error) = client(desk, stream, Arc::new(place)).await {
                tracing::debug!(%error, "a connection by a proxy broke off");
            }
        });
    }
}

/// After a failure to accept, mostly for want of file descriptors.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

fn may_use(config: &Config, from: SocketAddr) -> bool {
    let host = from.ip().to_canonical();
    let mut clients = config.proxy_clients.iter();
    host.is_loopback() || clients.any(|clients| clients.contains(host))
}

/// Copies both ways until both directions have ended.
async fn join(
    one: &mut (impl AsyncRead + AsyncWrite + Unpin + ?Sized),
    other: &mut (impl AsyncRead + AsyncWrite + Unpin + ?Sized),
) -> io::Result<()> {
    copy_bidirectional_with_sizes(one, other, COPY_BYTES, COPY_BYTES).await?;
    Ok(())
}
