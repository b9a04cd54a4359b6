//! How this node is reached: each side of a session tells the other where it sees it.
//!
//! ```text
//!   A ------ session, by way of a translation ------ B
//!     <------------- Seen(198.51.100.7:4321) --------
//! ```
//!
//! | part | does |
//! |---|---|
//! | [`wire`] | the messages |
//! | [`observed`] | which of the addresses that others see are believed, and for how long |
//! | [`call`] | has two nodes that do not reach each other dial at once, and names who may carry |
//! | [`nat`] | what kind of translation that tells |
//! | `ports` | at which ports others reach the host's packets |
//! | [`punch`] | has two members open their translations together |
//! | `shown` | where nodes show that their packets come out besides |
//! | `sought` | where those are who are about to be met |
//! | `early` | what is said before a session goes straight here, too |
//! | [`relay`] | has nodes relay packets that find no way straight |
//! | [`servers`] | who is asked where the packets' own port is seen |
//!
//! A node behind a translation does not know its outer address, so it is told: when a session
//! opens, when its path changes, and when the teller has other addresses or ports itself, at most
//! once in [`TELLING_PAUSE`] for each session. Only a path from address to address says anything. What is believed is told to the host, which
//! adds it to the addresses at which the node can be dialled.

pub mod call;
mod early;
pub mod nat;
pub mod observed;
mod ports;
pub mod punch;
pub mod relay;
pub mod servers;
mod shown;
mod sought;
pub mod wire;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use enishi_overlay::{Contact, NodeId, Overlay, PathKind, Time};
use serde::{Deserialize, Serialize};

use crate::service::{Context, Service, ServiceInput};

use crate::keys::Secret;
use call::Calls;
use early::Early;
use nat::Mapping;
use observed::{Observed, is_public};
use ports::Packets;
use punch::{AskedWhere, Offer, Plan, Punches};
use relay::{Relayed, Relays, Sight, Terms};
use servers::Servers;
use shown::{Prompted, PromptedBy, Shown};
use sought::Sought;
use wire::ReachMessage;

/// Between two messages that tell one peer where it is seen.
pub const TELLING_PAUSE: Duration = Duration::from_secs(10);
/// Between two changes of the addresses that the host is told: all peers hear of each, and members
/// agree on new keys.
const GIVING_PAUSE: Duration = Duration::from_secs(10);
/// Where all are taken to be whose sessions go by way of a NAT64 that nobody vouches for: in one network, in
/// which nobody else is (RFC 6890).
const BEYOND_NAT64: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 0);
/// The most sessions that are followed: more than there can be.
const SESSIONS_MAX: usize = 4096;

/// What the host says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    /// The addresses that this node has itself: not those at which others see it.
    Local(Vec<SocketAddr>),
    /// A peer lives anew, in the same session: it knows nothing of what it was told.
    Restarted(NodeId),
    /// Call a node that is not reached; answered by [`Event::Answered`] if it is there.
    Call(NodeId),
    /// At this port the host takes packets and answers STUN's questions.
    Packets(u16),
    /// A node that was asked by STUN has answered.
    Told(NodeId),
    /// One of these has given a ticket in its answer, which came to an address.
    Ticket {
        /// Who gave it.
        by: NodeId,
        /// Where it came.
        at: IpAddr,
        /// The ticket.
        ticket: u64,
    },
    /// A ticket of [`Event::Shown`] is this host's, and went to that address.
    Shown(NodeId, IpAddr),
    /// Packets find no way straight to a member.
    Punch(NodeId),
    /// How this node's packets come out now, for [`Event::Look`]; none when nobody says, or the peer
    /// is no member of a common channel.
    Looked(NodeId, Option<Offer>),
    /// What [`Event::Punch`] asked for has ended, with a way straight to the peer or without one.
    Punched(NodeId, bool),
    /// Whether it is to be found out where those come from with whom calls are exchanged: answered
    /// by [`Event::Sighted`]. What was told before is told again, as there may be another server.
    Seek(bool),
    /// For whom the host relays packets; for nobody before it has said.
    Terms(Terms),
    /// Packets find no way straight to a member: nodes are to relay them.
    Wayless {
        /// The member.
        peer: NodeId,
        /// Whether a node relays them already.
        is_relayed: bool,
        /// Who carries packets of the session with it, if somebody does.
        by: Vec<NodeId>,
    },
    /// Nobody uses what is relayed under this token: the host has forgotten it.
    Unused(u64),
    /// Whether the session with a peer goes by way of a NAT64 that nobody vouches for, as the site's DNS
    /// alone has told of it: told before its path. Where it goes is then no more than what that NAT64 makes
    /// believe, so others are told nothing of it.
    Hearsay(NodeId, bool),
    /// The site's router passes on what comes for the host's packets at this address and port.
    Mapped(Option<SocketAddr>),
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Event {
    /// Others see this node at these addresses, at most [`observed::GIVEN_MAX`], the best
    /// attested first; in place of those told before.
    Observed(Vec<SocketAddr>),
    /// Somebody sees this node at these addresses, at most [`observed::TRIED_MAX`]: not to be told to
    /// others, but worth a try where a session is to go straight; in place of those told before.
    Tried(Vec<SocketAddr>),
    /// A node calls: it is to be dialled.
    Called {
        /// The node, as it says itself.
        by: Contact,
        /// Who may carry to it; at most [`call::RELAYS_MAX`].
        relays: Vec<Contact>,
    },
    /// These are to be asked by STUN where the packets' port is seen: at most
    /// [`servers::ASKED_MAX`], each in another network.
    Ask(Vec<(NodeId, SocketAddr)>),
    /// A node shows a ticket by which it gets packets at an address: [`Command::Shown`] follows if it is
    /// one.
    Shown {
        /// The node.
        peer: NodeId,
        /// The address.
        at: IpAddr,
        /// The ticket.
        #[serde(skip)]
        ticket: u64,
    },
    /// It is to be found out how packets come out, if this peer is a member of a common channel:
    /// answered by [`Command::Looked`].
    Look(NodeId),
    /// A way straight to a peer is to be opened, now: answered by [`Command::Punched`].
    Punch {
        /// The peer.
        peer: NodeId,
        /// How.
        plan: Plan,
    },
    /// A node with which a call was exchanged is seen at this address, by a peer that was asked; of
    /// few addresses for each node.
    Sighted(NodeId, IpAddr),
    /// The host is to relay packets between two others, or longer than so far.
    Relay {
        /// What names the two.
        token: u64,
        /// The key of each.
        #[serde(skip)]
        keys: [Secret; 2],
        /// For how long.
        lasts: Duration,
    },
    /// It is to relay these no longer.
    RelayEnds(u64),
    /// A node relays packets between this one and another.
    Relayed(Relayed),
    /// A node that was called is to be dialled.
    Answered {
        /// The node; without addresses when another one answered for it.
        contact: Contact,
        /// Who may carry to it; at most [`call::RELAYS_MAX`].
        relays: Vec<Contact>,
    },
}

/// A session whose path is from address to address.
#[derive(Clone, Copy, Debug)]
struct Session {
    /// Where the peer is seen.
    at: SocketAddr,
    /// What it was told of that last.
    told: Option<SocketAddr>,
    /// When it may be told again.
    next: Time,
    /// Where else it has shown itself.
    shown: Shown,
    /// How often it had this node show itself.
    prompted: PromptedBy,
    /// How often it asks where others are.
    asks: AskedWhere,
}

impl Session {
    /// Returns when the peer is to be told; none when it knows.
    fn due(&self) -> Option<Time> {
        (self.told != Some(self.at)).then_some(self.next)
    }
}

/// The service.
#[derive(Debug, Default)]
pub struct Reach {
    sessions: BTreeMap<NodeId, Session>,
    observed: Observed,
    early: Early,
    calls: Calls,
    servers: Servers,
    punches: Punches,
    prompted: Prompted,
    /// How often those ask where others are with whom no session goes straight, all together.
    asks: AskedWhere,
    sought: Sought,
    relays: Relays,
    packets: Packets,
    /// What the host was told last.
    given: Vec<SocketAddr>,
    given_at: Option<Time>,
    tried: Vec<SocketAddr>,
    tried_at: Option<Time>,
    /// None until the host has said.
    local: Option<Vec<SocketAddr>>,
    deadline: Option<Time>,
}

type Cx<'a> = Context<'a, Event>;

impl Reach {
    /// Returns the addresses at which others see this node and that are believed.
    pub fn observed(&self) -> &[SocketAddr] {
        &self.given
    }

    /// Returns the addresses at which somebody sees this node, believed or not.
    pub fn tried(&self) -> &[SocketAddr] {
        &self.tried
    }

    /// Returns what kind of translation there is between this node and others.
    pub fn mapping(&self) -> Mapping {
        let local = self.local.as_deref().unwrap_or_default();
        nat::classify(local, self.observed.sightings())
    }

    /// Returns whom to ask by STUN where packets come out.
    pub fn servers(&self, overlay: &Overlay) -> Vec<(NodeId, SocketAddr)> {
        self.servers.choose(overlay)
    }

    /// Follows the path of a session, with a peer that may be spoken with.
    pub(crate) fn on_path(
        &mut self,
        peer: NodeId,
        kind: PathKind,
        address: Option<SocketAddr>,
        cx: &mut Cx<'_>,
    ) {
        let at = address.filter(|_| kind == PathKind::Direct);
        let is_full = self.sessions.len() >= SESSIONS_MAX;
        match (at.map(observed::canonical), self.sessions.get_mut(&peer)) {
            (Some(at), Some(session)) if session.at == at => return,
            (Some(at), Some(session)) => {
                if session.at.ip() != at.ip() {
                    session.shown.moved();
                }
                session.at = at;
            }
            (Some(at), None) if !is_full => {
                let session = Session {
                    at,
                    told: None,
                    next: cx.now(),
                    shown: Shown::default(),
                    prompted: PromptedBy::default(),
                    asks: AskedWhere::default(),
                };
                self.sessions.insert(peer, session);
                self.observed.resumed(peer);
                for message in self.early.take(cx.now(), peer) {
                    self.hear((peer, at), &message, cx.now());
                }
            }
            (None, Some(_)) => self.end(peer, cx.now()),
            (_, None) => return,
        }
        self.tell(peer, cx);
        self.settle(cx);
    }

    /// A session goes straight no longer.
    fn end(&mut self, peer: NodeId, now: Time) {
        self.sessions.remove(&peer);
        self.observed.ended(now, peer);
    }

    /// Hears from a peer, which is at an address, where it sees this node, or at which port it answers.
    fn hear(&mut self, (from, at): (NodeId, SocketAddr), message: &ReachMessage, now: Time) {
        match *message {
            ReachMessage::Seen(address) => self.observed.seen(now, from, at.ip(), address),
            ReachMessage::Stun(port) => self.servers.told(now, from, at, port),
            _ => {}
        }
    }

    /// This node is reached at other addresses or ports: all peers are told anew.
    fn tell_anew(&mut self) {
        for session in self.sessions.values_mut() {
            session.told = None;
        }
    }

    /// Tells whether the session with a peer goes by way of a NAT64 that nobody vouches for.
    pub fn is_hearsay(&self, peer: NodeId) -> bool {
        self.punches.is_hearsay(peer)
    }

    /// Returns in which network an observer is that has a session.
    fn network_of_observer(&self, observer: NodeId, at: SocketAddr) -> IpAddr {
        match self.is_hearsay(observer) {
            true => BEYOND_NAT64.into(),
            false => at.ip(),
        }
    }

    /// Tells a peer where it is seen, if it is time to.
    fn tell(&mut self, peer: NodeId, cx: &mut Cx<'_>) {
        let is_hearsay = self.is_hearsay(peer);
        let Some(session) = self.sessions.get_mut(&peer) else {
            return;
        };
        if session.due().is_some_and(|due| due <= cx.now()) {
            session.told = Some(session.at);
            session.next = cx.now() + TELLING_PAUSE;
            if is_hearsay {
                return;
            }
            let at = session.at;
            cx.send_to(peer, ReachMessage::Seen(at).encode());
            if let Some(port) = self.open_port(at) {
                cx.send_to(peer, ReachMessage::Stun(port).encode());
            }
        }
    }

    /// Returns the port at which whoever comes from an address reaches the host's packets, as far as is known.
    fn open_port(&self, from: SocketAddr) -> Option<u16> {
        // Who is behind a translation is not reached at a port that it names itself.
        match self.mapping() {
            Mapping::None | Mapping::Unknown => self.packets.port,
            _ => self
                .packets
                .mapped_port(&self.seen_at())
                .filter(|_| from.is_ipv4()),
        }
    }

    /// Returns where others see this node, some of them at the same address.
    fn seen_at(&self) -> Vec<SocketAddr> {
        self.observed.sightings().collect()
    }

    /// Has nodes relay, or relays.
    fn on_relay(&mut self, from: NodeId, message: ReachMessage, cx: &mut Cx<'_>) {
        let local = self.local.as_deref().unwrap_or_default();
        let ports = self.packets.ports(local, &self.seen_at());
        let sessions = &self.sessions;
        let sight = Sight { sessions, ports };
        match message {
            ReachMessage::Could(with) => self.relays.could(from, with, &sight, cx),
            ReachMessage::Offer(peer, standing) => {
                self.relays.offered((from, peer), standing, cx);
            }
            ReachMessage::Relay(with, token) => {
                self.relays.wished(from, (with, token), &sight, cx);
            }
            ReachMessage::Grant(peer, grant) => {
                self.relays.granted((from, peer), grant, &sight, cx);
            }
            ReachMessage::Seen(_)
            | ReachMessage::Call { .. }
            | ReachMessage::Answer(_)
            | ReachMessage::Stun(_)
            | ReachMessage::Where(_)
            | ReachMessage::Sees(..)
            | ReachMessage::Shows(..)
            | ReachMessage::Show
            | ReachMessage::Punch(..)
            | ReachMessage::Meet(..)
            | ReachMessage::Later(_) => {}
        }
    }

    /// Shows a node that packets come to this one at an address of IPv4, if it does not see that itself.
    fn show(&mut self, to: NodeId, (at, ticket): (IpAddr, u64), cx: &mut Cx<'_>) {
        let at = at.to_canonical();
        let is_seen = self.observed.by(to).is_some_and(|seen| seen.ip() == at);
        let Some(session) = self.sessions.get_mut(&to) else {
            return;
        };
        if at.is_ipv4() != session.at.is_ipv4() {
            session.prompted.has_given();
        }
        if at.is_ipv4() && is_public(at) && !is_seen {
            cx.send_to(to, ReachMessage::Shows(at, ticket).encode());
        }
    }

    /// Somebody asks where this node sees a node: it is told if their session goes straight. If that says
    /// nothing of the node's IPv4, it is asked to show where that comes out.
    fn tell_where(&mut self, from: NodeId, of: NodeId, cx: &mut Cx<'_>) {
        let now = cx.now();
        if self.is_hearsay(of) || !self.sessions.contains_key(&of) {
            return;
        }
        let asker = self.sessions.get_mut(&from);
        let asks = asker.map_or(&mut self.asks, |asker| &mut asker.asks);
        if !self.punches.may_tell(now, asks) {
            return;
        }
        let has_ipv4 = self.has_ipv4();
        let Some(session) = self.sessions.get_mut(&of) else {
            return;
        };
        let at = session.at.ip();
        let too = session.shown.besides(now, at);
        if too.is_some() {
            cx.send_to(from, ReachMessage::Sees(of, at, too).encode());
        }
        cx.send_to(from, ReachMessage::Sees(of, at, None).encode());
        if has_ipv4 && session.shown.is_prompted(now, at) {
            cx.send_to(of, ReachMessage::Show.encode());
        }
    }

    /// Tells whether this node may be asked by IPv4 where others come out: others see it there, or it has a
    /// public address itself.
    fn has_ipv4(&self) -> bool {
        let local = self.local.as_deref().unwrap_or_default();
        let mut addresses = local.iter().chain(&self.given);
        addresses.any(|at| at.is_ipv4() && is_public(at.ip()))
    }

    /// Has packets relayed that find no way straight: by one of those who carry the session, or of
    /// those who may.
    fn want_relay(&mut self, peer: (NodeId, bool), mut by: Vec<NodeId>, cx: &mut Cx<'_>) {
        by.truncate(call::RELAYS_MAX);
        let others = call::relays(cx.overlay(), peer.0).into_iter();
        by.extend(others.map(|contact| contact.id()));
        let (sessions, ports) = (&self.sessions, None);
        let sight = Sight { sessions, ports };
        self.relays.want(peer, &by, &sight, cx);
    }

    fn receive(&mut self, from: NodeId, octets: &[u8], cx: &mut Cx<'_>) {
        let now = cx.now();
        let message = ReachMessage::decode(octets);
        match message {
            Some(ReachMessage::Punch(number, offer)) => {
                let witnesses = self.witnesses(from, cx);
                return self.punches.asked(from, (number, offer), &witnesses, cx);
            }
            Some(ReachMessage::Meet(number, offer)) => {
                return self.punches.met(from, number, offer, cx);
            }
            Some(ReachMessage::Later(number)) => return self.punches.put_off(from, number, now),
            Some(ReachMessage::Where(of)) => return self.tell_where(from, of, cx),
            Some(
                message @ (ReachMessage::Could(_)
                | ReachMessage::Offer(..)
                | ReachMessage::Relay(..)
                | ReachMessage::Grant(..)),
            ) => return self.on_relay(from, message, cx),
            Some(
                ReachMessage::Seen(_)
                | ReachMessage::Stun(_)
                | ReachMessage::Sees(..)
                | ReachMessage::Shows(..)
                | ReachMessage::Show
                | ReachMessage::Call { .. }
                | ReachMessage::Answer(_),
            )
            | None => {}
        }
        if let Some(ReachMessage::Sees(of, at, too)) = message {
            let at = [Some(at), too].into_iter().flatten();
            let at = at.map(|at| at.to_canonical());
            for at in self.sought.hear(now, from, of, at) {
                cx.emit(Event::Sighted(of, at));
            }
        }
        // Who is not seen at an address cannot see this node at one.
        let Some(session) = self.sessions.get_mut(&from) else {
            if let Some(message @ (ReachMessage::Seen(_) | ReachMessage::Stun(_))) = message {
                self.early.keep(now, from, message);
            }
            return;
        };
        match message {
            Some(message @ (ReachMessage::Seen(_) | ReachMessage::Stun(_))) => {
                let at = session.at;
                self.hear((from, at), &message, now);
            }
            Some(ReachMessage::Sees(of, at, too)) => {
                let place = session.at;
                let network = self.network_of_observer(from, place);
                let is_hearsay = self.is_hearsay(from);
                let at = at.to_canonical();
                // One of each version of IP.
                let too = too.map(|too| too.to_canonical());
                let too = too.filter(|too| too.is_ipv4() != at.is_ipv4());
                // Of IPv6 nothing is heard by hearsay. What is sent to IPv4 goes by that NAT64, too.
                let is_heard = |at: &IpAddr| at.is_ipv4() || !is_hearsay;
                let said = [Some(at), too].map(|at| at.filter(is_heard));
                self.punches.told_where((from, network), (of, said), cx);
            }
            Some(ReachMessage::Shows(at, ticket)) => {
                let at = at.to_canonical();
                if at.is_ipv4() && is_public(at) && session.shown.may_show(now) {
                    let peer = from;
                    cx.emit(Event::Shown { peer, at, ticket });
                }
            }
            Some(ReachMessage::Show) => {
                if let Some(at) = self.servers.place(from)
                    && self.prompted.may(now, &mut session.prompted)
                {
                    cx.emit(Event::Ask(vec![(from, at)]));
                }
            }
            // These come through the overlay, or have been dealt with.
            Some(
                ReachMessage::Call { .. }
                | ReachMessage::Answer(_)
                | ReachMessage::Punch(..)
                | ReachMessage::Meet(..)
                | ReachMessage::Later(_)
                | ReachMessage::Where(_)
                | ReachMessage::Could(_)
                | ReachMessage::Offer(..)
                | ReachMessage::Relay(..)
                | ReachMessage::Grant(..),
            )
            | None => {}
        }
    }

    /// Returns whom to ask where they see a peer: those whom it was told to use as carriers, as they
    /// are likely to have sessions with it, then those who answer STUN, and others.
    fn witnesses(&self, peer: NodeId, cx: &Cx<'_>) -> Vec<NodeId> {
        let carriers = call::relays(cx.overlay(), peer).into_iter();
        let mut witnesses: Vec<NodeId> = carriers.map(|contact| contact.id()).collect();
        witnesses.retain(|id| self.sessions.contains_key(id));
        let others = self.sessions.keys().filter(|id| !witnesses.contains(id));
        let mut others: Vec<NodeId> = others.copied().collect();
        others.sort_by_key(|id| self.servers.place(*id).is_none());
        witnesses.extend(others);
        witnesses
    }

    /// Asks others where they see a node that is about to be met, if the host wants to know.
    fn seek(&mut self, peer: Option<NodeId>, cx: &mut Cx<'_>) {
        let now = cx.now();
        let Some(peer) = peer.filter(|peer| self.sought.may_begin(now, *peer)) else {
            return;
        };
        // A node that no datagram leaves is told by those with whom it has links.
        let mut witnesses = self.witnesses(peer, cx);
        let by_links = call::relays(cx.overlay(), peer).into_iter();
        let by_links = by_links.map(|contact| contact.id());
        let by_links: Vec<NodeId> = by_links.filter(|id| !witnesses.contains(id)).collect();
        witnesses.extend(by_links);
        witnesses.truncate(sought::ASKED_MAX);
        self.sought.begin(now, peer, &witnesses);
        for witness in witnesses {
            cx.send_to(witness, ReachMessage::Where(peer).encode());
        }
    }

    fn on_timeout(&mut self, cx: &mut Cx<'_>) {
        let due = |session: &Session| session.due().is_some_and(|due| due <= cx.now());
        let sessions = self.sessions.iter().filter(|(_, session)| due(session));
        let peers: Vec<NodeId> = sessions.map(|(peer, _)| *peer).collect();
        for peer in peers {
            self.tell(peer, cx);
        }
    }

    /// Tells the host what has changed, and finds the next deadline.
    fn settle(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now();
        self.observed.expire(now);
        let given = self.observed.addresses(now);
        let mut change = None;
        if given != self.given {
            let next = self.given_at.map(|at| at + GIVING_PAUSE);
            if next.is_none_or(|next| next <= now) {
                self.given.clone_from(&given);
                self.given_at = Some(now);
                cx.emit(Event::Observed(given));
            } else {
                change = next;
            }
        }
        let tried = self.observed.tried();
        if tried != self.tried {
            let next = self.tried_at.map(|at| at + GIVING_PAUSE);
            if next.is_none_or(|next| next <= now) {
                self.tried.clone_from(&tried);
                self.tried_at = Some(now);
                cx.emit(Event::Tried(tried));
            } else {
                change = change.min(next).or(next);
            }
        }
        if let Some(peer) = self.punches.due(now) {
            let witnesses = self.witnesses(peer, cx);
            self.punches.begin(peer, &witnesses, cx);
        }
        if let Some(asked) = self.servers.due(now, cx.overlay()) {
            cx.emit(Event::Ask(asked));
        }
        let tellings = self.sessions.values().filter_map(Session::due);
        let expiries = self.observed.next_timeout(now);
        let asking = self.servers.next_timeout();
        let deadlines = tellings.chain(expiries).chain(change);
        let punch = self.punches.next_timeout(now);
        let relays = self.relays.next_timeout();
        self.deadline = deadlines.chain(asking).chain(punch).chain(relays).min();
    }
}

impl Service for Reach {
    type Command = Command;
    type Event = Event;

    fn handle(&mut self, input: ServiceInput<Command>, cx: &mut Cx<'_>) {
        match input {
            ServiceInput::Command(Command::Local(addresses)) => {
                if self.local.as_ref().is_some_and(|local| *local != addresses) {
                    self.servers.moved(cx.now());
                    self.tell_anew();
                }
                self.local = Some(addresses);
            }
            ServiceInput::Command(Command::Packets(port)) => {
                if self.packets.port.replace(port) != Some(port) {
                    self.tell_anew();
                }
            }
            ServiceInput::Command(Command::Mapped(at)) => {
                if std::mem::replace(&mut self.packets.mapped, at) != at {
                    self.tell_anew();
                }
            }
            ServiceInput::Command(Command::Told(by)) => self.servers.answered(by),
            ServiceInput::Command(Command::Ticket { by, at, ticket }) => {
                return self.show(by, (at, ticket), cx);
            }
            ServiceInput::Command(Command::Hearsay(peer, is_hearsay)) => {
                self.punches.set_hearsay(peer, is_hearsay);
                return;
            }
            ServiceInput::Command(Command::Shown(peer, at)) => {
                if let Some(session) = self.sessions.get_mut(&peer) {
                    session.shown.learn(cx.now(), at);
                }
            }
            ServiceInput::Command(Command::Punch(peer)) => self.punches.want(peer),
            ServiceInput::Command(Command::Looked(peer, offer)) => {
                self.punches.looked(peer, offer, cx);
            }
            ServiceInput::Command(Command::Punched(peer, is_through)) => {
                self.punches.ended(peer, is_through, cx.now());
            }
            ServiceInput::Command(Command::Terms(terms)) => self.relays.set_terms(terms),
            ServiceInput::Command(Command::Wayless {
                peer,
                is_relayed,
                by,
            }) => self.want_relay((peer, is_relayed), by, cx),
            ServiceInput::Command(Command::Unused(token)) => self.relays.unused(token),
            ServiceInput::Command(Command::Restarted(peer)) => {
                self.relays.gone(peer);
                if let Some(session) = self.sessions.get_mut(&peer) {
                    session.told = None;
                }
                self.tell(peer, cx);
            }
            ServiceInput::Command(Command::Call(to)) => return self.calls.call(to, cx),
            ServiceInput::Command(Command::Seek(is_wanted)) => self.sought.set_wanted(is_wanted),
            ServiceInput::Asked { asker, body, .. } => {
                let met = self.calls.asked(asker, &body, cx);
                return self.seek(met, cx);
            }
            ServiceInput::Answered {
                token, from, reply, ..
            } => {
                let met = self.calls.answered(token, from, &reply, cx);
                return self.seek(met, cx);
            }
            ServiceInput::Failed { token } => return self.calls.failed(token),
            ServiceInput::Direct { from, body } => self.receive(from, &body, cx),
            ServiceInput::Gone(peer) => {
                self.punches.gone(peer);
                self.relays.gone(peer);
                self.servers.gone(peer);
                self.early.gone(peer);
                self.end(peer, cx.now());
            }
            ServiceInput::Timeout => {
                self.punches.on_timeout(cx);
                self.relays.on_timeout(cx);
                self.on_timeout(cx);
            }
            ServiceInput::Searched { .. }
            | ServiceInput::HopReport { .. }
            | ServiceInput::Got { .. }
            | ServiceInput::PutDone { .. }
            | ServiceInput::Restored { .. }
            | ServiceInput::NeighboursChanged
            | ServiceInput::AddressesChanged
            | ServiceInput::Heard(_)
            | ServiceInput::Receipts { .. } => return,
        }
        self.settle(cx);
    }

    fn next_timeout(&self) -> Option<Time> {
        self.deadline
    }
}

#[cfg(test)]
mod tests;
