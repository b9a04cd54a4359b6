//! Opening a link: all that may pass is tried at once, the dearer a little later. The first that is
//! answered is taken if it proves to lead to the peer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use enishi_bridge::auth::Credentials;
use enishi_bridge::{client, tunnel};
use enishi_overlay::{Keypair, NodeId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::hello::{self, Greeted, Pipe};
use super::{Opened, stream};
use crate::session::Reach;

/// The ports that companies let out: where a node may listen that wants to be reached from there.
pub(super) const WEB_PORTS: [u16; 4] = [443, 80, 8080, 8081];

/// Of how many addresses of a peer ports are tried.
const ADDRESSES_MAX: usize = 3;

/// How long making a stream may take, and then coming to know each other.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(4);
const HELLO_TIME_MAX: Duration = Duration::from_secs(4);

/// By how much later a bridge is tried than a stream, which is quicker.
const BRIDGE_LATER: Duration = Duration::from_millis(1_500);

/// How long a bridge may take to find out what passes, and then coming to know each other.
const BRIDGE_TIME_MAX: Duration = Duration::from_secs(60);
const BRIDGE_HELLO_TIME_MAX: Duration = Duration::from_secs(15);

/// How a connection goes out.
#[derive(Clone, Debug)]
pub(super) enum Route {
    /// Straight.
    Direct,
    /// By an HTTP proxy, host and port.
    Proxy(String, Option<Arc<Credentials>>),
}

/// One thing to try.
#[derive(Clone, Debug)]
enum Trial {
    Stream(SocketAddr, Route),
    Bridge(SocketAddr, Route),
}

/// Opens a link to a peer at one of its addresses; all ports that may be let out are tried where it is
/// `thorough`, and bridges. Takes a minute at most.
pub(super) async fn dial(
    own: &Keypair,
    peer: NodeId,
    addresses: &[SocketAddr],
    thorough: bool,
) -> Option<Opened> {
    let mut trials = JoinSet::new();
    for (later, trial) in plan(addresses, &[Route::Direct], thorough) {
        trials.spawn(async move {
            tokio::time::sleep(later).await;
            trial.answered().await
        });
    }
    while let Some(answered) = trials.join_next().await {
        let Ok(Some(answered)) = answered else {
            continue;
        };
        let proven = answered.greeted.prove(own, peer);
        if let Ok(Some(pipe)) = tokio::time::timeout(answered.time_max, proven).await {
            return Some(Opened {
                pipe,
                about: answered.about,
                held: answered.held,
            });
        }
    }
    None
}

/// Something that was tried, at whose other end links are taken.
struct Answered {
    greeted: Greeted,
    about: String,
    /// How long the rest may take.
    time_max: Duration,
    held: Box<dyn Send>,
}

/// Tells what to try, and how much later.
fn plan(addresses: &[SocketAddr], routes: &[Route], thorough: bool) -> Vec<(Duration, Trial)> {
    let worth = |address: &&SocketAddr| Reach::of(address.ip()) != Reach::Host;
    let mut hosts: Vec<SocketAddr> = Vec::new();
    for address in addresses.iter().filter(worth) {
        if hosts.len() < ADDRESSES_MAX && !hosts.contains(address) {
            hosts.push(*address);
        }
    }
    let mut plan: Vec<(Duration, Trial)> = Vec::new();
    for own in hosts {
        let web = WEB_PORTS.iter().filter(|port| **port != own.port());
        let ports: Vec<u16> = match thorough {
            true => std::iter::once(own.port()).chain(web.copied()).collect(),
            false => vec![own.port()],
        };
        for port in ports {
            let at = SocketAddr::new(own.ip(), port);
            for route in routes {
                let is_known = |(_, trial): &(Duration, Trial)| match trial {
                    Trial::Stream(known, by) => *known == at && by.is(route),
                    Trial::Bridge(..) => false,
                };
                if plan.iter().any(is_known) {
                    continue;
                }
                plan.push((Duration::ZERO, Trial::Stream(at, route.clone())));
                // What listens at 443 of a proxy is let through by CONNECT alone.
                if thorough && port != 443 {
                    plan.push((BRIDGE_LATER, Trial::Bridge(at, route.clone())));
                }
            }
        }
    }
    plan
}

impl Route {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Direct, Self::Direct) => true,
            (Self::Proxy(one, _), Self::Proxy(other, _)) => one == other,
            _ => false,
        }
    }

    /// Returns what is said of it to people.
    fn suffix(&self) -> String {
        match self {
            Self::Direct => String::new(),
            Self::Proxy(proxy, _) => format!(" by the proxy {proxy}"),
        }
    }
}

impl Trial {
    async fn answered(self) -> Option<Answered> {
        match self {
            Self::Stream(at, route) => {
                let about = format!("tcp {at}{}", route.suffix());
                match route {
                    Route::Direct => {
                        let stream = TcpStream::connect(at);
                        let stream = tokio::time::timeout(CONNECT_TIME_MAX, stream).await;
                        let stream = stream.ok()?.ok()?;
                        // Where this fails it is only slower.
                        let _ = stream.set_nodelay(true);
                        greet(stream, about).await
                    }
                    Route::Proxy(proxy, credentials) => {
                        let stream = tunnel::connect(&proxy, credentials, &at.to_string()).await;
                        greet(stream.ok()?, about).await
                    }
                }
            }
            Self::Bridge(at, route) => {
                let about = format!("http {at}{}", route.suffix());
                let (proxy, credentials) = match route {
                    Route::Direct => (None, None),
                    Route::Proxy(proxy, credentials) => (Some(proxy), credentials),
                };
                let settings = client::Settings {
                    bridge: at.to_string(),
                    proxy,
                    credentials: credentials.as_deref().cloned(),
                    remembered: None,
                };
                bridge(settings, about).await
            }
        }
    }
}

async fn greet(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    about: String,
) -> Option<Answered> {
    let (pipe, tasks) = stream::pipe(stream);
    let greeted = tokio::time::timeout(HELLO_TIME_MAX, hello::greet(pipe));
    Some(Answered {
        greeted: greeted.await.ok()??,
        about,
        time_max: HELLO_TIME_MAX,
        held: Box::new(tasks),
    })
}

async fn bridge(settings: client::Settings, about: String) -> Option<Answered> {
    let (to, from, mut state) = client::Client::start(settings).split();
    let greeted = async {
        state.wait_for(|state| state.outcome.is_some()).await.ok()?;
        hello::greet(Pipe { to, from }).await
    };
    let greeted = tokio::time::timeout(BRIDGE_TIME_MAX, greeted);
    Some(Answered {
        greeted: greeted.await.ok()??,
        about,
        time_max: BRIDGE_HELLO_TIME_MAX,
        held: Box::new(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_is_bounded_and_each_thing_once() {
        let address = |n: u8, port: u16| SocketAddr::from(([11, 0, 0, n], port));
        let many: Vec<_> = (0..20).map(|n| address(n / 2, 4_000)).collect();
        let proxy = Route::Proxy("proxy:3128".to_owned(), None);
        let routes = [Route::Direct, proxy];
        let plan_of = |thorough| plan(&many, &routes, thorough);
        let ports = 1 + WEB_PORTS.len();
        assert_eq!(
            plan_of(true).len(),
            ADDRESSES_MAX * routes.len() * (2 * ports - 1)
        );
        assert_eq!(plan_of(false).len(), ADDRESSES_MAX * routes.len());
        let own = [address(1, 80)];
        assert_eq!(plan(&own, &routes[..1], true).len(), 4 + 3);
        let loopback = [SocketAddr::from(([127, 0, 0, 1], 80))];
        assert!(plan(&loopback, &routes, true).is_empty());
    }
}
