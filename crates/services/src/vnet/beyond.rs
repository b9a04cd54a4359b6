//! Networks behind members: which are used, and by way of whom.
//!
//! A member offers networks in its claim; another uses those that its person has accepted, by
//! way of one of the members that offer them. When several do, the one in use is asked for a sign
//! of life every two seconds, and gives way to another when it does not answer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use enishi_overlay::{NodeId, Time};
use serde::{Deserialize, Serialize};

use super::routes::Prefix;
use super::wire::VnetMessage;
use super::{Alarm, Channel, ChannelId, Cx, Event, Vnet};

/// The most networks behind members that a node uses in one channel.
pub const ACCEPTED_MAX: usize = 256;
/// How often routers for which there are others are asked for a sign of life, and how often they
/// may miss.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
const MISSES_MAX: u8 = 2;
/// How long a router that did not answer is used only when there is no other.
const FAILED_FOR: Duration = Duration::from_secs(60);

/// What a person has accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Networks that are used by way of whoever offers them; at most [`ACCEPTED_MAX`].
    pub networks: Vec<Prefix>,
    /// The member by way of which everything else is reached.
    pub exit: Option<NodeId>,
}

/// A network that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The network.
    pub network: Prefix,
    /// The member that routes there.
    pub node: NodeId,
    /// Its address.
    pub via: IpAddr,
}

/// The networks behind the members of one channel.
#[derive(Debug, Default)]
pub(super) struct Beyond {
    pub(super) accepted: Accepted,
    routes: Vec<Route>,
    told_behind: Vec<Prefix>,
    told_exit: bool,
    /// Routers that were asked, and how often they have not answered since.
    asked: BTreeMap<NodeId, u8>,
    failed: BTreeMap<NodeId, Time>,
}

impl Beyond {
    pub(super) fn new(accepted: Accepted) -> Self {
        Self {
            accepted,
            ..Self::default()
        }
    }
}

impl Channel {
    /// Returns the networks behind members that are used now.
    pub fn routes(&self) -> &[Route] {
        &self.beyond.routes
    }

    /// Returns what is accepted.
    pub fn accepted(&self) -> &Accepted {
        &self.beyond.accepted
    }

    /// Returns who offers a network, besides this node.
    pub fn routers(&self, network: Prefix, me: NodeId) -> impl Iterator<Item = NodeId> {
        let offers = move |claim: &&super::Claim| claim.offers.routes.contains(&network);
        let members = self.members().filter(offers);
        let routers = members.map(|claim| claim.contact.id());
        routers.filter(move |node| *node != me)
    }

    /// The best router for a network: the one in use, unless it has failed and another has not.
    fn choose(&self, network: Prefix, me: NodeId) -> Option<NodeId> {
        let used = self.beyond.routes.iter().find(|r| r.network == network);
        let rank = |node: &NodeId| {
            let has_failed = self.beyond.failed.contains_key(node);
            let is_used = used.is_some_and(|route| route.node == *node);
            (
                has_failed,
                !is_used,
                !self.attached.contains_key(node),
                *node,
            )
        };
        self.routers(network, me).min_by_key(rank)
    }

    fn routes_wanted(&self, me: NodeId) -> Vec<Route> {
        let accepted = &self.beyond.accepted;
        let networks = accepted.networks.iter();
        let chosen = networks.filter_map(|n| Some((*n, self.choose(*n, me)?)));
        let exits = accepted.exit.into_iter().flat_map(|exit| {
            let offered = move |network: &Prefix| self.routers(*network, me).any(|n| n == exit);
            let networks = Prefix::EVERYTHING.into_iter().filter(offered);
            networks.map(move |network| (network, exit))
        });
        let routes = chosen.chain(exits).filter_map(|(network, node)| {
            let via = self.members.get(&node)?.address.into();
            Some(Route { network, node, via })
        });
        routes.collect()
    }

    /// Routers in use for which there is another.
    fn replaceable(&self, me: NodeId) -> Vec<NodeId> {
        let routes = self.beyond.routes.iter();
        let has_other = |route: &&Route| self.routers(route.network, me).count() > 1;
        let mut routers: Vec<NodeId> = routes.filter(has_other).map(|r| r.node).collect();
        routers.sort();
        routers.dedup();
        routers
    }
}

impl Vnet {
    /// Uses networks behind members.
    pub(super) fn accept_networks(&mut self, id: ChannelId, accepted: Accepted, cx: &mut Cx<'_>) {
        if accepted.networks.len() > ACCEPTED_MAX {
            return;
        }
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if channel.beyond.accepted == accepted {
            // Who asks once more wants the system to try again.
            return self.tell_routes_again(id, cx);
        }
        channel.beyond.accepted = accepted;
        self.keep(id, cx);
        self.find_routes(id, cx);
    }

    /// Works out which networks are reached by way of whom, and tells when that has changed.
    pub(super) fn find_routes(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let me = cx.me();
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let routes = channel.routes_wanted(me);
        let behind = channel.offers.routes.clone();
        let beyond = &mut channel.beyond;
        let exit = beyond.accepted.exit.is_some();
        let told = (&beyond.routes, &beyond.told_behind, beyond.told_exit);
        if (&routes, &behind, exit) != told {
            beyond.routes.clone_from(&routes);
            beyond.told_behind.clone_from(&behind);
            beyond.told_exit = exit;
            cx.emit(Event::Routed {
                channel: id,
                routes,
                behind,
                exit,
            });
        }
        if !self.deadlines.is_set(Alarm::Routers(id)) {
            self.await_check(id, cx);
        }
    }

    /// What is told after the host has made the device anew.
    pub(super) fn tell_routes_again(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.beyond.routes.clear();
            channel.beyond.told_behind.clear();
            channel.beyond.told_exit = false;
        }
        self.find_routes(id, cx);
    }

    fn await_check(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let channel = self.channels.get(&id);
        let waits = channel.is_some_and(|channel| {
            !channel.replaceable(cx.me()).is_empty() || !channel.beyond.failed.is_empty()
        });
        if waits {
            let at = cx.now() + CHECK_INTERVAL;
            self.deadlines.set(Alarm::Routers(id), at);
        }
    }

    /// Asks the routers for a sign of life, and gives up those that have not answered.
    pub(super) fn check_routers(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let (me, now) = (cx.me(), cx.now());
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let routers = channel.replaceable(me);
        let beyond = &mut channel.beyond;
        beyond.failed.retain(|_, at| now.since(*at) < FAILED_FOR);
        beyond.asked.retain(|router, _| routers.contains(router));
        for router in &routers {
            let misses = beyond.asked.entry(*router).or_default();
            *misses += 1;
            if *misses > MISSES_MAX {
                beyond.failed.insert(*router, now);
            }
        }
        let claims: Vec<_> = routers
            .iter()
            .filter_map(|router| channel.members.get(router))
            .map(|claim| claim.contact.clone())
            .collect();
        for contact in claims {
            let message = VnetMessage::Check {
                channel: channel.keys.blinded(&me, &contact.id()),
            };
            cx.send(contact, message.encode());
        }
        self.find_routes(id, cx);
        self.await_check(id, cx);
    }

    /// A member asks for a sign of life.
    pub(super) fn on_check(&mut self, from: NodeId, name: [u8; 16], cx: &mut Cx<'_>) {
        if let Some((id, None)) = self.by_blinded(from, name, cx)
            && let Some(channel) = self.channels.get(&id)
        {
            let channel = channel.keys.blinded(&cx.me(), &from);
            cx.send_to(from, VnetMessage::Checked { channel }.encode());
        }
    }

    /// A router gives one.
    pub(super) fn on_checked(&mut self, from: NodeId, name: [u8; 16], cx: &mut Cx<'_>) {
        if let Some((id, None)) = self.by_blinded(from, name, cx)
            && let Some(channel) = self.channels.get_mut(&id)
            && let Some(misses) = channel.beyond.asked.get_mut(&from)
        {
            *misses = 0;
            channel.beyond.failed.remove(&from);
        }
    }
}
