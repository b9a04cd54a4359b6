//! What the engine and the system are told of routes: to networks behind members, by an exit, and
//! for programs that look for others.

use std::collections::BTreeMap;
use std::sync::MutexGuard;

use enishi_dataplane::engine::{Command, NetworkId};
use enishi_dataplane::table::Gateway;
use enishi_services::vnet::beyond::Route;
use enishi_services::vnet::routes::Prefix;
use enishi_services::vnet::{self, ChannelId, Vnet};

use super::hold::release_left;
use super::system::SystemRoutes;
use super::terms::network_of;
use super::{Networks, forwarding, lock};

impl Networks {
    /// Has everything refused that is to go by the exit of a channel, before the channel has its
    /// address; without any, clears what a crash has left of one. Of networks that were shared it
    /// clears what a crash has left in any case.
    pub fn hold_exits(&self, vnet: &Vnet) {
        if self.makes_devices() {
            forwarding::end_left();
        }
        let has_exit = |channel: &vnet::Channel| channel.accepted().exit.is_some();
        let channels = vnet.channels().filter(|(_, channel)| has_exit(channel));
        let wanted: Vec<ChannelId> = channels.map(|(id, _)| id).collect();
        if self.layer.is_none() || wanted.is_empty() {
            return release_left();
        }
        for channel in wanted {
            let mut system = SystemRoutes::new(self.ports());
            system.set(&[], &[], true);
            self.lock_held().insert(channel, system);
        }
    }

    /// Has the engine, and the system if there is a device, route to networks behind members
    /// and to those behind this host. Without a device, what is to go by an exit is refused.
    pub(super) fn route(
        &self,
        channel: ChannelId,
        routes: &[Route],
        behind: &[Prefix],
        exit: bool,
    ) {
        let gateway = |route: &Route| Gateway {
            network: network_of(route.network),
            via: route.via,
        };
        self.tell(Command::Beyond {
            network: NetworkId(channel.0),
            gateways: routes.iter().map(gateway).collect(),
            behind: behind.iter().copied().map(network_of).collect(),
        });
        if let Some(network) = self.open.lock().get_mut(&channel)
            && let Some(system) = &mut network.system
        {
            let networks: Vec<Prefix> = routes.iter().map(|route| route.network).collect();
            system.set(&networks, behind, exit);
        } else if exit && self.makes_devices() {
            let mut held = self.lock_held();
            let system = held.entry(channel);
            let system = system.or_insert_with(|| SystemRoutes::new(self.ports()));
            system.set(&[], &[], true);
        } else {
            drop(self.lock_held().remove(&channel));
        }
    }

    /// Has programs that choose no device look for others in a channel, or no longer; now and
    /// after every start.
    ///
    /// # Errors
    /// A sentence for people when the system refuses, or it cannot be kept; then nothing has
    /// changed.
    pub fn discover(&self, channel: ChannelId, name: &str, on: bool) -> Result<(), String> {
        let was_on = self.discovery.channel().as_deref() == Some(name);
        let kept = self.discovery.set(on.then_some(name));
        kept.map_err(|error| error.to_string())?;
        self.lead_discovery(channel, on).inspect_err(|_| {
            if !was_on {
                // Who asked is told, and nothing stays of it.
                let _ = self.discovery.set(None);
                let _ = self.lead_discovery(channel, false);
            }
        })
    }

    /// Returns for which channel that is wanted. On a node without devices nothing comes of it.
    pub fn discovery(&self) -> Option<String> {
        self.discovery.channel()
    }

    pub(super) fn lead_discovery(&self, channel: ChannelId, on: bool) -> Result<(), String> {
        let mut open = self.open.lock();
        let network = open.get_mut(&channel);
        match network.and_then(|network| network.system.as_mut()) {
            Some(system) => system.discover(on),
            None => Ok(()),
        }
    }

    /// Tells whether the system routes to these networks, and to no others, by the channel's
    /// device if there is one, and refuses what is to go by an exit if one is wanted.
    pub fn has_routed(&self, channel: ChannelId, networks: &[Prefix], exit: bool) -> bool {
        let open = self.open.lock();
        let network = open.get(&channel);
        match network.and_then(|network| network.system.as_ref()) {
            Some(system) => system.routes() == networks && system.has_exit() == exit,
            None => {
                let held = self.lock_held();
                let is_held = held.get(&channel).is_some_and(SystemRoutes::has_exit);
                is_held == (exit && self.makes_devices())
            }
        }
    }

    /// The channel lost its address: what went by an exit is refused until it has another.
    pub(super) fn displace(&self, channel: ChannelId) {
        let mut open = self.open.lock();
        let system = open
            .get_mut(&channel)
            .and_then(|network| network.system.take());
        drop(open);
        if let Some(mut system) = system {
            system.lose_device();
            self.lock_held().insert(channel, system);
        }
        self.close_one(channel);
    }

    pub(super) fn lock_held(&self) -> MutexGuard<'_, BTreeMap<ChannelId, SystemRoutes>> {
        lock(&self.held)
    }
}
