//! How this node's packets come out, found out at the moment when it is wanted, and where others get
//! theirs, as they show.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use enishi_dataplane::engine::{Command, SessionReport};
use enishi_overlay::NodeId;
use enishi_services::reach::punch::Offer;
use enishi_stun::Ticket;

use super::stun::Family;
use super::{Networks, Note, Started};

/// How long all answers are waited for that tell how packets come out; how long so many as it takes to
/// tell, where they come from far away; and how often it is looked whether they are there.
const LOOK_ALL: Duration = Duration::from_millis(400);
const LOOK_MAX: Duration = Duration::from_millis(1_500);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

impl Networks {
    /// Returns at which places nodes are asked by STUN: by IPv4 only where a route leads there, as what
    /// is asked in vain is waited for.
    pub(super) fn asked_at(
        &self,
        started: &Started,
        servers: &[(NodeId, SocketAddr)],
    ) -> Vec<(NodeId, SocketAddr)> {
        let places = servers.iter().flat_map(|(node, at)| {
            let places = started.sessions.places(*at);
            places.map(|at| (*node, at))
        });
        let is_outside = |(_, at): &(NodeId, SocketAddr)| !self.open.holds(at.ip());
        let leads = |(_, at): &(NodeId, SocketAddr)| match at.ip().to_canonical() {
            IpAddr::V4(to) => started.sessions.sends_to(to),
            IpAddr::V6(_) => true,
        };
        places.filter(is_outside).filter(leads).collect()
    }

    /// Finds out how this node's packets come out, if a peer is a member of a common channel: a
    /// [`Note::Looked`] follows within half a second, or one and a half if nodes that answer are far.
    pub async fn look(&self, peer: NodeId, servers: &[(NodeId, SocketAddr)]) {
        let is_it = |session: &SessionReport| session.peer == *peer.as_bytes();
        let offer = match self.report().sessions.iter().any(is_it) {
            true => self.comes_out(servers).await,
            false => None,
        };
        // Ends only with the node.
        let _ = self.notes.send(Note::Looked(peer, offer)).await;
    }

    async fn comes_out(&self, servers: &[(NodeId, SocketAddr)]) -> Option<Offer> {
        let started = self.started.get()?;
        let servers = self.asked_at(started, servers);
        let family = |at: SocketAddr| match at.is_ipv4() {
            true => Family::V4,
            false if started.sessions.native(at).0 != at => Family::Translated,
            false => Family::V6,
        };
        let [first, anew] = self.questions.look(Instant::now(), &servers, family);
        self.tell(Command::Send(first));
        self.tell(Command::SendAnew(anew));
        let began = Instant::now();
        while began.elapsed() < LOOK_MAX && !self.questions.has_looked() {
            if began.elapsed() >= LOOK_ALL && self.questions.tells() {
                break;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        let ([first, anew], by_nat64) = self.questions.looked();
        self.by_nat64.store(by_nat64, Ordering::Relaxed);
        Offer::judge(&first, &anew)
    }

    /// Returns where to send to meet a peer at an address of IPv4, if that goes by a NAT64.
    pub(super) fn way_to(&self, at: SocketAddr) -> SocketAddr {
        let by_nat64 = self.by_nat64.load(Ordering::Relaxed);
        let started = self.started.get().filter(|_| by_nat64);
        let last = started.and_then(|started| started.sessions.places(at).last());
        last.unwrap_or(at)
    }

    /// A node shows a ticket by which it gets packets at an address: a [`Note::Shown`] follows if this
    /// host gave it lately.
    pub fn show(&self, by: NodeId, at: IpAddr, ticket: Ticket) {
        if self.questions.gave(at, ticket) {
            // Without room: it is shown again.
            let _ = self.notes.try_send(Note::Shown(by, at));
        }
    }
}
