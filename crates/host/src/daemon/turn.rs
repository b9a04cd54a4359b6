//! `turn`: who may use this node's TURN server, and which servers of others this node uses.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use enishi_api::{
    Answer, Failure, Password, TurnAllocation, TurnAsk, TurnServer, TurnState, TurnUsed, TurnUser,
};
use enishi_services::Node;
use enishi_services::vnet::Network;
use enishi_services::vnet::routes::Prefix;
use enishi_stun::{Leg, Policy, Prefix as Range};

use super::channels::sentence;
use super::desk::{Desk, Shared, no, usage};
use crate::config::Config;
use crate::data_dir::DataDirError;
use crate::session::{Reach, Sessions};
use crate::turn::client::{self, Trouble, Used};
use crate::turn::kept::{Foreign, Kept, SERVERS_MAX, USERS_MAX, User};
use crate::turn::server;
use crate::turn::url::ServerUrl;
use tokio::sync::watch;

/// How often it is looked which addresses and networks are this node's.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);

/// How long it is waited for the first answer of a server, and how often it is looked.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(12);
const ANSWER_INTERVAL: Duration = Duration::from_millis(50);

/// The longest name of a user, in octets.
const NAME_BYTES_MAX: usize = 63;

/// How many octets of randomness are in a password that is drawn.
const PASSWORD_BYTES: usize = 15;

/// What the node has of TURN.
#[derive(Default)]
pub(super) struct Turn {
    kept: Option<Mutex<Kept>>,
    server: Option<server::TurnServer>,
    /// Why there is no server although there is to be one.
    failure: Option<String>,
    used: Mutex<Vec<Used>>,
    /// Counts what happens to the addresses that other servers give.
    changed: watch::Sender<u64>,
}

impl Turn {
    /// Reads who the users are, and starts the server if there is to be one; within a tokio runtime.
    /// `packets` is the port at which this node takes packets.
    ///
    /// # Errors
    /// When they cannot be read. That the server has no port is told, and the node goes on.
    pub(super) fn start(
        config: &Config,
        data: &std::path::Path,
        sessions: &Sessions,
        packets: Option<u16>,
    ) -> Result<Self, DataDirError> {
        let kept = Kept::load(data)?;
        let users = kept.content().users.iter();
        // They were looked at when they were read.
        let users = users.filter_map(|user| user.credentials().ok()).collect();
        let listen = config.turn.listen.map(|listen| listen.0);
        let started = listen.map(|at| server::TurnServer::start(config.turn.clone(), at, users));
        let (server, failure) = match started {
            None => (None, None),
            Some(Ok(server)) => (Some(server), None),
            Some(Err(error)) => {
                let own = listen.and_then(|at| taker(at, &sessions.listening(), packets));
                let own = own.filter(|_| error.kind() == ErrorKind::AddrInUse);
                (None, Some(failure(listen, &error, own)))
            }
        };
        let turn = Self {
            server,
            failure,
            ..Self::default()
        };
        for foreign in &kept.content().servers {
            turn.begin(foreign, sessions);
        }
        Ok(Self {
            kept: Some(Mutex::new(kept)),
            ..turn
        })
    }

    /// Begins to use a server of somebody else.
    fn begin(&self, foreign: &Foreign, sessions: &Sessions) {
        let inside = client::inside(&sessions.listening());
        let (Some(inside), Ok(credentials)) = (inside, foreign.credentials()) else {
            return;
        };
        let changed = self.changed.clone();
        let url = foreign.url.clone();
        let used = Used::start(url, credentials, inside, sessions.relayed(), changed);
        self.used().push(used);
        self.changed.send_modify(|count| *count += 1);
    }

    fn used(&self) -> MutexGuard<'_, Vec<Used>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows whether other servers are used, and which addresses they give.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Tells whether servers of others are used.
    pub(super) fn uses_others(&self) -> bool {
        !self.used().is_empty()
    }

    /// Returns the addresses that they give.
    pub(super) fn relayed(&self) -> Vec<SocketAddr> {
        let used = self.used();
        used.iter().filter_map(|it| it.progress().relayed).collect()
    }

    /// Has them let a peer in that is about to be met, at the first of these addresses that are of the
    /// Internet and of the family of theirs; at most so many.
    pub(super) fn permit(&self, peer: impl IntoIterator<Item = IpAddr>, most: usize) {
        let addresses: Vec<IpAddr> = peer.into_iter().collect();
        for used in self.used().iter() {
            let relayed = used.progress().relayed;
            for peer in to_permit(&addresses, relayed, most) {
                used.permit(peer);
            }
        }
    }

    /// Returns how they are.
    pub(super) fn servers(&self) -> Vec<TurnUsed> {
        self.used().iter().map(told).collect()
    }

    fn take(&self, url: &str, password: &Password, sessions: &Sessions) -> Result<(), Failure> {
        let url: ServerUrl = url
            .parse()
            .map_err(|error: String| usage(sentence(&error)))?;
        let foreign = Foreign {
            url: url.clone(),
            password: password.0.clone().into(),
        };
        let credentials = foreign.credentials();
        credentials.map_err(|error| usage(sentence(&error.to_string())))?;
        let mut kept = self.kept()?;
        let others = kept
            .content()
            .servers
            .iter()
            .filter(|other| other.url != url);
        if others.count() >= SERVERS_MAX {
            return Err(no(format!(
                "A node uses at most {SERVERS_MAX} servers; `enishi turn forget URL` makes room."
            )));
        }
        let changed = kept.change(|content| {
            content.servers.retain(|other| other.url != url);
            content.servers.push(foreign.clone());
        });
        changed.map_err(|error| no(sentence(&error.to_string())))?;
        self.used().retain(|used| *used.url() != url);
        self.begin(&foreign, sessions);
        Ok(())
    }

    fn forget(&self, named: &str) -> Result<(), Failure> {
        let mut kept = self.kept()?;
        let url = named.parse::<ServerUrl>().ok();
        let is_it = |other: &ServerUrl| Some(other) == url.as_ref() || other.server() == named;
        if !kept.content().servers.iter().any(|other| is_it(&other.url)) {
            // What was typed may hold a password.
            let name = url.as_ref().map_or_else(
                || "that server".to_owned(),
                |url| format!("`{}`", url.server()),
            );
            return Err(no(format!(
                "This node does not use {name}; `enishi turn show` shows which it uses."
            )));
        }
        let changed = kept.change(|content| content.servers.retain(|other| !is_it(&other.url)));
        changed.map_err(|error| no(sentence(&error.to_string())))?;
        self.used().retain(|used| !is_it(used.url()));
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Waits until it is known whether a server serves, or long enough.
    async fn settled(&self, url: &str) {
        let is_known = || {
            let servers = self.servers();
            let waits = |server: &TurnUsed| server.trouble.as_deref() == Some("waiting");
            !servers
                .iter()
                .any(|server| server.url == url && waits(server))
        };
        let wait = async {
            while !is_known() {
                tokio::time::sleep(ANSWER_INTERVAL).await;
            }
        };
        // If it is not known by then, that is told.
        let _ = tokio::time::timeout(ANSWER_TIME_MAX, wait).await;
    }

    /// Ends everything.
    pub(super) fn close(&self) {
        if let Some(server) = &self.server {
            server.close();
        }
        self.used().clear();
    }

    /// Returns how the server is; none when it is off.
    pub(super) fn serving(&self, realm: &str) -> Option<TurnServer> {
        let server = self.server.as_ref()?;
        let (clients, counters) = server.report();
        let allocations = clients.into_iter().map(|client| TurnAllocation {
            user: client.user,
            client: client.client,
            tcp: client.leg == Leg::Tcp,
            relayed: client.relayed,
            peers: client.peers,
        });
        Some(TurnServer {
            listening: server.listening(),
            realm: realm.to_owned(),
            allocations: allocations.collect(),
            to_peers_bytes: counters.to_peers_octets,
            to_clients_bytes: counters.to_clients_octets,
            dropped_bytes: counters.dropped_octets,
            challenged_messages: counters.challenged_messages,
            denied_messages: counters.denied_messages,
            crowded_messages: counters.crowded_messages,
            throttled_messages: counters.throttled_messages,
            ignored_messages: counters.ignored_messages,
            refused_allocations: counters.refused_allocations,
        })
    }

    fn kept(&self) -> Result<MutexGuard<'_, Kept>, Failure> {
        let kept = self.kept.as_ref();
        let kept = kept.ok_or_else(|| no("This node keeps no users of TURN."))?;
        Ok(kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, name: String, password: Option<Password>) -> Result<TurnUser, Failure> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.chars().all(is_plain) {
            return Err(usage(
                "A user's name has 1 to 63 letters, digits, `-`, `_` and `.`.",
            ));
        }
        let password = match password {
            Some(password) => password,
            None => draw()?,
        };
        let user = User {
            name: name.clone(),
            password: password.0.clone().into(),
        };
        let credentials = user.credentials();
        let credentials = credentials.map_err(|error| usage(sentence(&error.to_string())))?;
        let mut kept = self.kept()?;
        let others = kept
            .content()
            .users
            .iter()
            .filter(|other| other.name != name);
        if others.count() >= USERS_MAX {
            return Err(no(format!("There are at most {USERS_MAX} users.")));
        }
        let changed = kept.change(|content| {
            content.users.retain(|other| other.name != user.name);
            content.users.push(user);
        });
        changed.map_err(|error| no(sentence(&error.to_string())))?;
        if let Some(server) = &self.server {
            server.add_user(credentials);
        }
        Ok(TurnUser { name, password })
    }

    fn remove(&self, name: &str) -> Result<(), Failure> {
        let mut kept = self.kept()?;
        if !kept.content().users.iter().any(|user| user.name == name) {
            return Err(no(format!(
                "There is no user called `{name}`; `enishi turn show` shows which there are."
            )));
        }
        let changed = kept.change(|content| content.users.retain(|user| user.name != name));
        changed.map_err(|error| no(sentence(&error.to_string())))?;
        if let Some(server) = &self.server {
            server.remove_user(name);
        }
        Ok(())
    }

    fn users(&self) -> Result<Vec<String>, Failure> {
        let kept = self.kept()?;
        let users = kept.content().users.iter();
        Ok(users.map(|user| user.name.clone()).collect())
    }
}

pub(super) async fn answer(desk: &Desk, ask: TurnAsk) -> Result<Answer, Failure> {
    let turn = &desk.shared.turn;
    let added = match ask {
        TurnAsk::Show => None,
        TurnAsk::Add { name, password } => Some(turn.add(name, password)?),
        TurnAsk::Remove { name } => {
            turn.remove(&name)?;
            None
        }
        TurnAsk::Use { url, password } => {
            turn.take(&url, &password, &desk.sessions)?;
            let url = url.parse().map(|url: ServerUrl| url.to_string());
            turn.settled(&url.unwrap_or_default()).await;
            None
        }
        TurnAsk::Forget { url } => {
            turn.forget(&url)?;
            None
        }
    };
    Ok(Answer::Turn(TurnState {
        server: turn.serving(&desk.shared.config.turn.realm),
        users: turn.users()?,
        servers: turn.servers(),
        added,
    }))
}

/// Tells the server which addresses and networks are this node's, as long as the node runs.
pub(super) async fn keep(desk: Desk) {
    let shared = Arc::clone(&desk.shared);
    if let Some(failure) = &shared.turn.failure {
        tracing::warn!("{failure}");
        shared.note("turn", failure.clone());
    }
    let Some(server) = &shared.turn.server else {
        desk.ending.stop.cancelled().await;
        return shared.turn.close();
    };
    while let Ok((virtual_networks, hidden, observed)) = desk.look(own).await {
        let policy = policy(&desk, &shared, &virtual_networks, observed);
        server.set_policy(policy, hidden);
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = desk.ending.stop.cancelled() => break,
        }
    }
    shared.turn.close();
}

/// Returns at which addresses a peer is let in where this node is reached at `relayed`.
fn to_permit(peer: &[IpAddr], relayed: Option<SocketAddr>, most: usize) -> BTreeSet<IpAddr> {
    let fits = |ip: &IpAddr| relayed.is_none_or(|relayed| relayed.is_ipv4() == ip.is_ipv4());
    let addresses = peer.iter().map(IpAddr::to_canonical);
    let fitting = addresses.filter(|ip| Reach::of(*ip) == Reach::Internet && fits(ip));
    let mut permitted = BTreeSet::new();
    for ip in fitting {
        if permitted.len() < most {
            permitted.insert(ip);
        }
    }
    permitted
}

/// How a server of somebody else is, for people and programs.
fn told(used: &Used) -> TurnUsed {
    let progress = used.progress();
    let (trouble, code, error) = match progress.trouble {
        None => (Some("waiting"), None, None),
        Some(Trouble::NoAddress) => (Some("no-address"), None, None),
        Some(Trouble::Unreachable(error)) => (Some("unreachable"), None, Some(error)),
        Some(Trouble::Silent) => (Some("silent"), None, None),
        Some(Trouble::Forgotten) => (Some("forgotten"), None, None),
        Some(Trouble::Refused(code)) => (Some("refused"), Some(code), None),
    };
    let trouble = trouble.filter(|_| progress.relayed.is_none());
    TurnUsed {
        url: used.url().to_string(),
        relayed: progress.relayed,
        trouble: trouble.map(str::to_owned),
        code,
        error,
        peers: progress.peers,
        sent_bytes: progress.sent_bytes,
        received_bytes: progress.received_bytes,
    }
}

/// The virtual networks that this node is in, with those behind members; its addresses there; and
/// those at which others see it.
fn own(node: &Node) -> (Vec<Prefix>, Vec<IpAddr>, Vec<SocketAddr>) {
    let (mut networks, mut hidden) = (Vec::new(), Vec::new());
    for (_, channel) in node.vnet().channels() {
        let four: IpAddr = channel.network().address().into();
        let six: IpAddr = channel.address6().into();
        networks.push(Prefix::around(four, channel.network().prefix()));
        networks.push(Prefix::around(six, Network::PREFIX6));
        let beyond = channel.accepted().networks.iter().copied();
        networks.extend(beyond.filter(|network| !network.is_everything()));
        hidden.extend(channel.address().map(IpAddr::from));
        hidden.push(six);
        hidden.extend(channel.hosted(node.id()).into_iter().flatten());
    }
    (networks, hidden, node.reach().tried().to_vec())
}

fn policy(
    desk: &Desk,
    shared: &Shared,
    virtual_networks: &[Prefix],
    observed: Vec<SocketAddr>,
) -> Policy {
    let turn = &shared.config.turn;
    let mapped = shared.mapped.borrow().sessions;
    let outside = desk.sessions.addresses().into_iter().chain(observed);
    let outside = outside.chain(mapped).map(|at| at.ip());
    let outside = outside.chain(turn.external).map(Range::from);
    let own = server::of_host().chain(outside);
    let networks = virtual_networks
        .iter()
        .filter_map(|network| Range::new(network.address(), u32::from(network.bits())));
    Policy {
        own: own.chain(networks).collect(),
        extra: turn.peers(),
    }
}

/// Draws a password of 24 characters.
fn draw() -> Result<Password, Failure> {
    let mut octets = zeroize::Zeroizing::new([0; PASSWORD_BYTES]);
    getrandom::fill(&mut *octets)
        .map_err(|error| no(format!("The system gives no random numbers: {error}.")))?;
    Ok(Password(BASE32_NOPAD.encode(&*octets).to_lowercase()))
}

/// Returns what this node itself takes at a port, if anything: a server there has no room.
fn taker(at: SocketAddr, sessions: &[SocketAddr], packets: Option<u16>) -> Option<&'static str> {
    let overlaps = |own: &SocketAddr| {
        let is_everywhere = own.ip().is_unspecified() || at.ip().is_unspecified();
        own.port() == at.port() && (is_everywhere || own.ip() == at.ip())
    };
    match packets == Some(at.port()) {
        true => Some("its packets, for which it has the UDP port after that of its sessions"),
        false => sessions.iter().any(overlaps).then_some("its sessions"),
    }
}

fn failure(listen: Option<SocketAddr>, error: &std::io::Error, own: Option<&str>) -> String {
    let at = listen.map_or_else(String::new, |at| at.to_string());
    match own {
        Some(own) => format!(
            "there is no TURN server at {at}: this node itself takes {own}, at that port. Name another port \
             in `listen` of the table `turn` of the configuration, or for the node itself in the `listen` \
             above all tables"
        ),
        None => format!(
            "there is no TURN server at {at}: {error}. Stop the program that has the port, or name \
             another address as `listen` in the table `turn` of the configuration"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_many_addresses_is_let_in_at_few() {
        let ips = |text: &[&str]| -> Vec<IpAddr> {
            text.iter().map(|text| text.parse().unwrap()).collect()
        };
        let named = ips(&[
            "192.168.1.2",
            "2a00::1",
            "20.0.0.9",
            "::ffff:20.0.0.9",
            "20.0.0.1",
            "20.0.0.2",
            "20.0.0.3",
        ]);
        let permitted = |relayed: Option<&str>, most| -> Vec<IpAddr> {
            let relayed = relayed.map(|text| text.parse().unwrap());
            to_permit(&named, relayed, most).into_iter().collect()
        };
        let four = Some("11.0.0.1:5000");
        assert_eq!(permitted(four, 2), ips(&["20.0.0.1", "20.0.0.9"]));
        assert_eq!(permitted(Some("[2a00::9]:5000"), 2), ips(&["2a00::1"]));
        assert_eq!(permitted(None, 2), ips(&["20.0.0.9", "2a00::1"]));
        assert_eq!(permitted(four, 8).len(), 4);
        assert_eq!(permitted(four, 0), ips(&[]));
    }

    #[test]
    fn what_has_the_port_is_told() {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let sessions = [at("192.0.2.1:3477"), at("[::]:4000")];
        let error = std::io::Error::from(ErrorKind::AddrInUse);
        let told = |listen: &str| {
            let own = taker(at(listen), &sessions, Some(3478));
            failure(Some(at(listen)), &error, own)
        };
        for listen in ["0.0.0.0:3478", "192.0.2.7:3478"] {
            let told = told(listen);
            assert!(
                told.contains("takes its packets") && told.contains(listen),
                "{told}"
            );
            assert!(!told.contains("program"), "{told}");
        }
        for listen in ["0.0.0.0:3477", "192.0.2.1:3477", "192.0.2.7:4000"] {
            let told = told(listen);
            assert!(told.contains("takes its sessions"), "{told}");
        }
        for listen in ["192.0.2.7:3477", "0.0.0.0:3479"] {
            let told = told(listen);
            assert!(told.contains("Stop the program"), "{told}");
        }
    }
}
