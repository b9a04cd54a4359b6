//! Opening a link: all that may pass is tried at once, the dearer a little later, and the first that
//! proves to lead to the peer is taken.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use enishi_bridge::auth::Credentials;
use enishi_bridge::dial::Proxy;
use enishi_bridge::tunnel::TunnelError;
use enishi_bridge::{client, tunnel};
use enishi_overlay::{Keypair, NodeId};
use enishi_proxy::{Proxies, ProxyServer, Route, Trust};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_socks::tcp::Socks5Stream;

use super::hello::{self, Greeted, Pipe};
use super::message::Message;
use super::{Beginning, Opened, stream};
use crate::session::Reach;

/// The ports that companies let out: where a node may listen that wants to be reached from there.
pub(super) const WEB_PORTS: [u16; 4] = [443, 80, 8080, 8081];

/// Of how many addresses of a peer ports are tried.
const ADDRESSES_MAX: usize = 3;

/// How many ways out are tried to one address.
const ROUTES_MAX: usize = 4;

/// How long making a stream may take, and then coming to know each other.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(4);
const HELLO_TIME_MAX: Duration = Duration::from_secs(4);

/// By how much later a WebSocket is tried than a stream, and a bridge, which is slower than both.
const WEBSOCKET_LATER: Duration = Duration::from_millis(750);
const BRIDGE_LATER: Duration = Duration::from_millis(1_500);

/// How long a bridge may take to find out what passes, and then coming to know each other.
const BRIDGE_TIME_MAX: Duration = Duration::from_secs(60);
const BRIDGE_HELLO_TIME_MAX: Duration = Duration::from_secs(15);

/// One thing to try.
#[derive(Clone, Debug)]
enum Trial {
    Stream(SocketAddr, Route),
    WebSocket(SocketAddr, Route),
    Bridge(SocketAddr, Route),
}

/// Opens a link to a peer at one of its addresses. All ports that may be let out are tried where it is
/// `thorough` for an address, WebSockets and bridges. Takes three minutes at most.
pub(super) async fn dial(
    own: &Keypair,
    peer: NodeId,
    addresses: &[SocketAddr],
    proxies: &Proxies,
    bridges_at_once: &Arc<Semaphore>,
    thorough: impl Fn(Reach) -> bool,
) -> Option<Opened> {
    let mut trials = JoinSet::new();
    for host in hosts(addresses) {
        let streams = routes(proxies, "https", host.ip()).await;
        let bridges = routes(proxies, "http", host.ip()).await;
        let thorough = thorough(Reach::of(host.ip()));
        for (later, trial) in plan(host, &streams, &bridges, thorough) {
            let (own, turns) = (own.clone(), Arc::clone(bridges_at_once));
            let trust = proxies.trust().clone();
            trials.spawn(async move {
                tokio::time::sleep(later).await;
                let _turn = match &trial {
                    Trial::Bridge(..) => Some(turns.acquire_owned().await.ok()?),
                    Trial::Stream(..) | Trial::WebSocket(..) => None,
                };
                let answered = trial.answered(&trust).await.ok()?;
                answered.proven(&own, peer).await
            });
        }
    }
    while let Some(opened) = trials.join_next().await {
        if let Ok(Some(opened)) = opened {
            // The listener does not use what is opened until it is.
            opened.pipe.say(&Message::Ping);
            return Some(opened);
        }
    }
    None
}

/// Returns where something is tried: one address of each host, those of the Internet first. Anybody may
/// have named them.
fn hosts(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut hosts: Vec<SocketAddr> = Vec::new();
    for address in addresses {
        let is_new = hosts.iter().all(|host| host.ip() != address.ip());
        if is_new && Reach::of(address.ip()) != Reach::Host {
            hosts.push(*address);
        }
    }
    hosts.sort_by_key(|host| Reach::of(host.ip()) != Reach::Internet);
    hosts.truncate(ADDRESSES_MAX);
    hosts
}

/// What came of trying one way to a peer.
#[derive(Debug)]
pub(crate) struct Passage {
    /// Which way.
    pub(crate) about: String,
    /// After how long it was answered; none when it was not.
    pub(crate) took: Option<Duration>,
    /// What else was found out, for people.
    pub(crate) found: String,
}

/// Tries all ways to a peer that may be let through, and tells of each. Takes three minutes at most.
pub(crate) async fn survey(host: SocketAddr, proxies: &Proxies) -> Vec<Passage> {
    let streams = routes(proxies, "https", host.ip()).await;
    let bridges = routes(proxies, "http", host.ip()).await;
    let mut trials = JoinSet::new();
    let plan = plan(host, &streams, &bridges, true);
    for (number, (_, trial)) in plan.into_iter().enumerate() {
        let trust = proxies.trust().clone();
        trials.spawn(async move { (number, trial.examine(&trust).await) });
    }
    let mut passages = trials.join_all().await;
    passages.sort_by_key(|(number, _)| *number);
    passages.into_iter().map(|(_, passage)| passage).collect()
}

/// Something that was tried, at whose other end links are taken.
struct Answered {
    greeted: Greeted,
    about: String,
    /// How long the rest may take.
    time_max: Duration,
    held: Box<dyn Send>,
}

impl Answered {
    /// Finds out whether the other end is the peer.
    async fn proven(self, own: &Keypair, peer: NodeId) -> Option<Opened> {
        let proven = tokio::time::timeout(self.time_max, self.greeted.prove(own, peer));
        Some(Opened {
            pipe: proven.await.ok()??,
            about: self.about,
            beginning: Beginning::Opened,
            held: self.held,
        })
    }
}

/// Tells what to try at one address of a peer, and how much later.
fn plan(
    host: SocketAddr,
    streams: &[Route],
    bridges: &[Route],
    thorough: bool,
) -> Vec<(Duration, Trial)> {
    let web = WEB_PORTS.iter().filter(|port| **port != host.port());
    let ports: Vec<u16> = match thorough {
        true => std::iter::once(host.port()).chain(web.copied()).collect(),
        false => vec![host.port()],
    };
    let at = |port: u16| SocketAddr::new(host.ip(), port);
    let mut plan = Vec::new();
    for port in ports {
        let stream = |route: &Route| (Duration::ZERO, Trial::Stream(at(port), route.clone()));
        plan.extend(streams.iter().map(stream));
        // Proxies let 443 through by CONNECT alone; requests go to nobody within a site.
        if thorough && port != 443 && Reach::of(host.ip()) == Reach::Internet {
            for route in bridges {
                let websocket = Trial::WebSocket(at(port), route.clone());
                let bridge = Trial::Bridge(at(port), route.clone());
                plan.extend([(WEBSOCKET_LATER, websocket), (BRIDGE_LATER, bridge)]);
            }
        }
    }
    plan
}

/// Returns what is said of a route to people.
fn suffix(route: &Route) -> String {
    let server = route.server();
    server.map_or_else(String::new, |server| format!(" by the proxy {server}"))
}

/// Returns the ways out to a host: straight, and by the proxies that are to be taken.
async fn routes(proxies: &Proxies, scheme: &str, host: IpAddr) -> Vec<Route> {
    let mut routes = vec![Route::Direct];
    let url = match host {
        IpAddr::V4(host) => format!("{scheme}://{host}/"),
        IpAddr::V6(host) => format!("{scheme}://[{host}]/"),
    };
    for route in proxies.proxies_for(&url).await {
        if !routes.contains(&route) && routes.len() < ROUTES_MAX {
            routes.push(route);
        }
    }
    routes
}

fn credentials(server: &ProxyServer) -> Option<Credentials> {
    let said = server.credentials.as_ref()?;
    Some(Credentials::new(
        said.user().to_owned(),
        said.password().to_owned(),
    ))
}

impl Trial {
    /// Says in words which way it is.
    fn about(&self) -> String {
        match self {
            Self::Stream(at, route) => format!("tcp {at}{}", suffix(route)),
            Self::WebSocket(at, route) => format!("websocket {at}{}", suffix(route)),
            Self::Bridge(at, route) => format!("http {at}{}", suffix(route)),
        }
    }

    async fn examine(self, trust: &Trust) -> Passage {
        let (started, about) = (Instant::now(), self.about());
        let Self::Bridge(at, route) = &self else {
            let answered = self.answered(trust).await;
            return Passage {
                about,
                took: answered.is_ok().then(|| started.elapsed()),
                found: answered.err().flatten().unwrap_or_default(),
            };
        };
        let found = match settings(*at, route, trust).await {
            Ok(settings) => client::probe(&settings).await,
            Err(found) => {
                return Passage {
                    about,
                    took: None,
                    found: found.unwrap_or_default(),
                };
            }
        };
        let took = found.way.is_some().then(|| started.elapsed());
        // What was refused in every dress is told once.
        let refused = found.tried.last().and_then(|(_, refusal)| *refusal);
        let refused = refused.map(|refusal| refusal.to_string());
        Passage {
            about,
            found: match took {
                Some(_) => found.to_string(),
                None => refused.unwrap_or_default(),
            },
            took,
        }
    }

    /// Makes the stream, and greets who is at its other end.
    ///
    /// # Errors
    /// When nobody is; what a person can do about it is told, if that is known.
    async fn answered(self, trust: &Trust) -> Result<Answered, Option<String>> {
        match &self {
            Self::Stream(at, route) => {
                let about = self.about();
                match route {
                    Route::Direct => {
                        let stream = TcpStream::connect(at);
                        let stream = tokio::time::timeout(CONNECT_TIME_MAX, stream).await;
                        let stream = stream.ok().and_then(Result::ok).ok_or(None)?;
                        // Where this fails it is only slower.
                        let _ = stream.set_nodelay(true);
                        greet(stream, about).await
                    }
                    Route::Http(server) | Route::Https(server) => {
                        let credentials = credentials(server).map(Arc::new);
                        let proxy = proxy(route, server, trust).await?;
                        let stream = tunnel::connect(&proxy, credentials, &at.to_string()).await;
                        let stream = stream.map_err(|error| certificate(route, &error))?;
                        greet(stream, about).await
                    }
                    Route::Socks5(server) => {
                        let stream = tokio::time::timeout(CONNECT_TIME_MAX, socks(server, *at));
                        let stream = stream.await.ok().flatten().ok_or(None)?;
                        greet(stream, about).await
                    }
                }
            }
            Self::WebSocket(at, route) => {
                let settings = settings(*at, route, trust).await?;
                let (proxy, credentials) = (settings.proxy.as_ref(), settings.credentials);
                let credentials = credentials.map(Arc::new);
                let stream = tunnel::websocket(proxy, credentials, &settings.bridge).await;
                let stream = stream.map_err(|error| certificate(route, &error))?;
                greet(stream, self.about()).await
            }
            Self::Bridge(at, route) => {
                let settings = settings(*at, route, trust).await?;
                bridge(settings, self.about()).await
            }
        }
        .ok_or(None)
    }
}

/// Returns how a bridge is reached.
///
/// # Errors
/// When the proxy carries no requests, or nothing is trusted.
async fn settings(
    at: SocketAddr,
    route: &Route,
    trust: &Trust,
) -> Result<client::Settings, Option<String>> {
    let server = match route {
        Route::Direct => None,
        Route::Http(server) | Route::Https(server) => Some(server),
        Route::Socks5(_) => return Err(None),
    };
    let proxy = match server {
        Some(server) => Some(proxy(route, server, trust).await?),
        None => None,
    };
    Ok(client::Settings {
        bridge: at.to_string(),
        proxy,
        credentials: server.and_then(credentials),
        remembered: None,
    })
}

/// Returns how a proxy is spoken to.
///
/// # Errors
/// When it is by TLS, and nobody is trusted.
async fn proxy(
    route: &Route,
    server: &ProxyServer,
    trust: &Trust,
) -> Result<Proxy, Option<String>> {
    let mut proxy = Proxy::plain(server.host.clone(), server.port);
    if let Route::Https(_) = route {
        let config = trust.config().await;
        proxy.tls = Some(config.map_err(|error| Some(error.to_string()))?);
    }
    Ok(proxy)
}

/// Tells why a proxy that is spoken to by TLS gave no stream.
fn certificate(route: &Route, error: &TunnelError) -> Option<String> {
    matches!(route, Route::Https(_)).then(|| error.to_string())
}

/// Opens a stream by a proxy of SOCKS version 5.
async fn socks(
    server: &ProxyServer,
    to: SocketAddr,
) -> Option<impl AsyncRead + AsyncWrite + Send + 'static> {
    let proxy = (server.host.as_str(), server.port);
    match &server.credentials {
        None => Socks5Stream::connect(proxy, to).await.ok(),
        Some(said) => {
            let (user, password) = (said.user(), said.password());
            Socks5Stream::connect_with_password(proxy, to, user, password)
                .await
                .ok()
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
        let passes = {
            let found = state.wait_for(|state| state.outcome.is_some()).await.ok()?;
            let found = found.outcome.as_ref();
            found.is_some_and(|found| found.way.is_some())
        };
        // It would go on searching.
        if !passes {
            return None;
        }
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
        let mut many: Vec<_> = (0..20).map(|n| address(n / 2, 4_000)).collect();
        many.insert(0, SocketAddr::from(([127, 0, 0, 1], 80)));
        assert_eq!(hosts(&many), [0, 1, 2].map(|n| address(n, 4_000)));
        // Hearsay of one host, or of a site, leaves room for others.
        let site = SocketAddr::from(([10, 0, 0, 1], 1));
        let named = [
            site,
            address(1, 1),
            address(1, 2),
            address(1, 3),
            address(2, 1),
        ];
        assert_eq!(hosts(&named), [address(1, 1), address(2, 1), site]);
        let routes = [Route::Direct, Route::parse("proxy:3128").unwrap()];
        let count = |port, routes, thorough| plan(address(1, port), routes, routes, thorough).len();
        let ports = 1 + WEB_PORTS.len();
        assert_eq!(
            count(4_000, &routes[..], true),
            routes.len() * (3 * ports - 2)
        );
        assert_eq!(count(4_000, &routes[..], false), routes.len());
        assert_eq!(count(80, &routes[..1], true), 4 + 2 * 3);
    }
}
