//! Whom to ask at which address this node's packets are seen, by STUN at the ports of theirs.
//!
//! Sessions have one port and packets another, which a translation maps by itself. Each node tells
//! those with whom it opens a session at which port it answers STUN's questions; the host asks some
//! of them, from the packets' own port. What they say, [`super::observed`] has for sessions.
//!
//! They are asked again after [`ASK_INTERVAL`]: so often keeps the mapping that they see, and not
//! more often, as that one needs only be kept where nothing else does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use enishi_overlay::{NodeId, Overlay, Time};

use super::observed::{is_public, network_of};

/// How many are asked at a time: two that answer show whether each sees another port, a third one by
/// which steps, and one may be away.
pub const ASKED_MAX: usize = 4;
/// The most that are known; more than there are sessions of use.
const KNOWN_MAX: usize = 256;
/// How often they are asked: a mapping lives for two minutes at least (RFC 4787, REQ-5). Routers that
/// keep it for less, down to half a minute, have another one by the next question, and those who
/// meet by [`super::punch`] ask anew anyway.
pub const ASK_INTERVAL: Duration = Duration::from_secs(100);
/// How long others are waited for that are to be asked at the same time.
const GATHER: Duration = Duration::from_secs(1);
/// How soon to ask again while fewer than two have answered; then twice as long each time.
const RETRY: Duration = Duration::from_secs(5);

/// So often in vain is one asked that answered before, until it is taken to answer no longer.
const SILENT: u32 = 3;

/// One who answers.
#[derive(Clone, Copy, Debug)]
struct Server {
    at: SocketAddr,
    /// Whether it has answered at all.
    has_answered: bool,
    /// How often it was asked since it answered last.
    asked: u32,
}

impl Server {
    /// Tells whether it answers, as far as is known.
    fn answers(&self) -> bool {
        self.has_answered && self.asked < SILENT
    }

    /// Tells whether it was asked in vain.
    fn is_silent(&self) -> bool {
        self.asked > 0 && !self.answers()
    }
}

/// Those who answer.
#[derive(Debug, Default)]
pub(super) struct Servers {
    known: BTreeMap<NodeId, Server>,
    next: Option<Time>,
    retry: Duration,
}

impl Servers {
    /// A node with a session from `at` answers at another port there.
    pub(super) fn told(&mut self, now: Time, node: NodeId, at: SocketAddr, port: u16) {
        let at = SocketAddr::new(at.ip(), port);
        if port == 0 || !is_public(at.ip()) || self.known.get(&node).is_some_and(|s| s.at == at) {
            return;
        }
        if let Some(server) = self.known.get_mut(&node) {
            // What is known of it stands: who was asked in vain is not new because it names another port.
            server.at = at;
        } else if self.known.len() < KNOWN_MAX {
            let (has_answered, asked) = (false, 0);
            let server = Server {
                at,
                has_answered,
                asked,
            };
            self.known.insert(node, server);
        }
        if self.answering() < 2 {
            self.retry = RETRY;
            self.ask_at(now + GATHER);
        }
    }

    /// One of them has answered.
    pub(super) fn answered(&mut self, node: NodeId) {
        if let Some(server) = self.known.get_mut(&node) {
            (server.has_answered, server.asked) = (true, 0);
        }
    }

    /// Returns where one of them is asked.
    pub(super) fn place(&self, node: NodeId) -> Option<SocketAddr> {
        self.known.get(&node).map(|server| server.at)
    }

    /// The session with one of them has ended, not just gone by another path: that says nothing of its port.
    pub(super) fn gone(&mut self, node: NodeId) {
        self.known.remove(&node);
    }

    /// This node has other addresses: what was said is of yesterday.
    pub(super) fn moved(&mut self, now: Time) {
        self.retry = RETRY;
        if !self.known.is_empty() {
            self.ask_at(now + GATHER);
        }
    }

    fn ask_at(&mut self, at: Time) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    fn answering(&self) -> usize {
        self.known
            .values()
            .filter(|server| server.answers())
            .count()
    }

    /// Returns when they are to be asked.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.next
    }

    /// Returns whom to ask now, if it is time to.
    pub(super) fn due(
        &mut self,
        now: Time,
        overlay: &Overlay,
    ) -> Option<Vec<(NodeId, SocketAddr)>> {
        self.next.take_if(|next| *next <= now)?;
        let chosen = self.choose(overlay);
        if chosen.is_empty() {
            return None;
        }
        let wait = match self.answering() >= 2 {
            true => ASK_INTERVAL,
            false => self.retry,
        };
        self.retry = (self.retry * 2).clamp(RETRY, ASK_INTERVAL);
        self.next = Some(now + wait.min(ASK_INTERVAL));
        for (node, _) in &chosen {
            if let Some(server) = self.known.get_mut(node) {
                server.asked = server.asked.saturating_add(1);
            }
        }
        Some(chosen)
    }

    /// Chooses whom to ask, each in another network: those who have answered, those never asked, and
    /// of these the ones that others reach. Before them go those that have IPv4, unless they were asked in
    /// vain: IPv4 is what routers translate.
    pub(super) fn choose(&self, overlay: &Overlay) -> Vec<(NodeId, SocketAddr)> {
        let mut ranked: Vec<_> = self.known.iter().collect();
        ranked.sort_by_key(|(id, server)| {
            let peer = overlay.peer(**id);
            let is_reachable = peer.is_some_and(|peer| peer.grade().is_reachable());
            let others = peer.map_or(&[][..], |peer| peer.contact().addresses());
            let mut addresses = others.iter().chain([&server.at]);
            let has_ipv4 =
                addresses.any(|at| at.ip().to_canonical().is_ipv4() && is_public(at.ip()));
            let is_silent = server.is_silent();
            let answers = match (server.answers(), is_silent) {
                (true, _) => 2,
                (false, false) => 1,
                (false, true) => 0,
            };
            let rank = (has_ipv4 && !is_silent, answers, is_reachable);
            (Reverse(rank), **id)
        });
        let mut networks = BTreeSet::new();
        let apart = ranked
            .into_iter()
            .filter(|(_, server)| networks.insert(network_of(server.at.ip())));
        let chosen = apart.map(|(id, server)| (*id, server.at));
        chosen.take(ASKED_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use enishi_overlay::{Config, Contact, OverlayId, Rng};

    fn id(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn overlay() -> Overlay {
        let config = Config::new(OverlayId::from_name("servers"));
        let me = Contact::new(id(200), []);
        Overlay::new(Time::ZERO, me, config, Rng::from_seed([1; 32]))
    }

    fn at(network: u8) -> SocketAddr {
        ([20, 0, network, 1], 7000).into()
    }

    #[test]
    fn some_in_different_networks_are_asked_and_again_just_before_a_mapping_may_end() {
        let (mut servers, overlay) = (Servers::default(), overlay());
        assert_eq!(servers.next_timeout(), None);
        for number in 1..20 {
            servers.told(Time::ZERO, id(number), at(number / 3), 7001);
        }
        servers.told(Time::ZERO, id(20), ([192, 168, 1, 2], 7000).into(), 7001);
        assert_eq!(servers.due(Time::ZERO, &overlay), None);
        let now = Time::ZERO + GATHER;
        assert_eq!(servers.next_timeout(), Some(now));
        let asked = servers.due(now, &overlay).unwrap();
        let networks: BTreeSet<_> = asked.iter().map(|(_, at)| network_of(at.ip())).collect();
        assert_eq!((asked.len(), networks.len()), (ASKED_MAX, ASKED_MAX));
        assert!(asked.iter().all(|(_, at)| at.port() == 7001));
        // Those who do not answer give way to others, soon.
        let again = servers.due(now + RETRY, &overlay).unwrap();
        assert!(again.iter().any(|server| !asked.contains(server)));
        for (node, _) in &again[..2] {
            servers.answered(*node);
        }
        let now = servers.next_timeout().unwrap();
        let last = servers.due(now, &overlay).unwrap();
        assert_eq!(last[..2], again[..2]);
        assert_eq!(servers.next_timeout(), Some(now + ASK_INTERVAL));
        servers.moved(now);
        assert_eq!(servers.next_timeout(), Some(now + GATHER));
    }

    #[test]
    fn who_answered_is_asked_first_at_another_place_too_until_it_was_asked_often_in_vain() {
        let (mut servers, overlay) = (Servers::default(), overlay());
        servers.told(Time::ZERO, id(9), at(9), 7001);
        let mut now = Time::ZERO + GATHER;
        assert_eq!(servers.due(now, &overlay).unwrap().len(), 1);
        servers.answered(id(9));
        for number in 1..9 {
            servers.told(now, id(number), at(number), 7001);
        }
        servers.told(now, id(9), at(10), 7002);
        for asked in 0..=SILENT {
            now = servers.next_timeout().unwrap();
            let first = servers.due(now, &overlay).unwrap()[0];
            let is_it = first == (id(9), ([20, 0, 10, 1], 7002).into());
            assert_eq!(is_it, asked < SILENT, "asked {asked} times");
        }
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut servers = Servers::default();
        for number in 0..1_000_u16 {
            let mut octets = [0; 32];
            octets[..2].copy_from_slice(&number.to_be_bytes());
            servers.told(Time::ZERO, NodeId::from_bytes(octets), at(1), 7001);
        }
        assert_eq!(servers.known.len(), KNOWN_MAX);
    }
}
