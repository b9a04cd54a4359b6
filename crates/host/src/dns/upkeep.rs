//! Listens where names are asked for, and keeps the system's resolver set up: looked at
//! whenever channels change, and now and then, since others change the same things.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use enishi_dns::Zone;
use tokio::sync::mpsc;

use super::listener::Listener;
use super::resolver::{Link, Resolver};
use super::responder::{Door, Responder, Upstreams};
use super::{How, PORT, Place, Settings, Shown, State, ZoneRequest};

/// How many addresses on loopback are tried: several nodes run on one host.
const LOOPBACKS_MAX: u8 = 16;

/// Names for the programs of this host.
pub struct Upkeep {
    settings: Settings,
    zones: mpsc::Sender<ZoneRequest>,
    shown: Shown,
    responder: Arc<Responder>,
    loopback: Option<Listener>,
    in_channels: BTreeMap<SocketAddr, (u32, Listener)>,
    resolver: Resolver,
}

impl Upkeep {
    /// Begins with nothing set up.
    pub fn new(settings: Settings, zones: mpsc::Sender<ZoneRequest>, shown: Shown) -> Self {
        Self {
            resolver: Resolver::new(settings.marker.clone()),
            responder: Arc::new(Responder::new(zones.clone())),
            settings,
            zones,
            shown,
            loopback: None,
            in_channels: BTreeMap::new(),
        }
    }

    /// Sees to it that everything is as it is to be while these channels have devices, and
    /// tells whether it is: a new IPv6 address, for one, takes a moment until it can be used.
    pub async fn see_to(&mut self, places: &[Place]) -> bool {
        let mut state = State::default();
        let listened = self.listen_in_channels(places).await;
        let set_up = self.set_up_resolver(places, &mut state).await;
        state.notice = listened.err().or(set_up.err());
        let loopback = self.loopback.iter().map(Listener::address);
        state.listening = loopback.chain(self.in_channels.keys().copied()).collect();
        let wanted: usize = places.iter().map(|place| place.addresses.len()).sum();
        let is_complete = state.notice.is_none() && self.in_channels.len() == wanted;
        self.show(state);
        is_complete
    }

    /// Puts the resolver back as it was, and listens no more.
    pub fn close(mut self) {
        self.resolver.restore();
        self.shown.set(State::default());
    }

    /// Listens at this node's addresses in channels.
    async fn listen_in_channels(&mut self, places: &[Place]) -> Result<(), String> {
        let is_wanted = |address: &SocketAddr, channel: u32| {
            let mut places = places.iter().filter(|place| place.channel == channel);
            places.any(|place| place.addresses.contains(&address.ip()))
        };
        self.in_channels
            .retain(|address, (channel, _)| is_wanted(address, *channel));
        let mut failure = Ok(());
        for place in places {
            let door = Door::Channel {
                number: place.channel,
                own: place.addresses,
            };
            let mut errors = Vec::new();
            for address in place
                .addresses
                .map(|address| SocketAddr::new(address, PORT))
            {
                if self.in_channels.contains_key(&address) {
                    continue;
                }
                match Listener::bind(address, door, &self.responder).await {
                    Ok(listener) => {
                        self.in_channels.insert(address, (place.channel, listener));
                    }
                    Err(error) => errors.push(cannot_listen(address, &error)),
                }
            }
            // One of the two is enough; a device may have no IPv6.
            if errors.len() == place.addresses.len() {
                failure = errors.into_iter().next().map_or(Ok(()), Err);
            }
        }
        failure
    }

    async fn set_up_resolver(&mut self, places: &[Place], state: &mut State) -> Result<(), String> {
        if !self.settings.with_resolver {
            return self.listen_on_loopback().await.map(drop);
        }
        if places.is_empty() {
            self.leave_file();
            return Ok(());
        }
        match self.resolver.choose()? {
            How::None => {}
            How::Resolved => {
                self.leave_file();
                if let Some(zone) = super::zone(&self.zones).await {
                    let links = self.links(places, &zone);
                    self.resolver.set_up_links(&links).await?;
                }
                state.how = How::Resolved;
            }
            How::ResolvConf => {
                let server = self.listen_on_loopback().await?;
                let upstreams = self.resolver.write(server)?;
                state.upstreams.clone_from(&upstreams.servers);
                self.responder.set_upstreams(upstreams);
                state.how = How::ResolvConf;
            }
        }
        Ok(())
    }

    /// Nothing of this node is in the file any more.
    fn leave_file(&mut self) {
        self.resolver.restore();
        self.responder.set_upstreams(Upstreams::default());
        self.loopback = None;
    }

    /// What a resolver has to know of each device.
    fn links<'a>(&self, places: &'a [Place], zone: &Zone) -> Vec<Link<'a>> {
        let links = places.iter().map(|place| Link {
            place,
            servers: self.servers(place),
            domains: zone
                .domains(place.channel)
                .iter()
                .map(|domain| domain.trim_end_matches('.').to_owned())
                .collect(),
        });
        // Without an address there is nobody to ask; without a domain nothing to ask for.
        let is_ready = |link: &Link<'_>| !link.servers.is_empty() && !link.domains.is_empty();
        links.filter(is_ready).collect()
    }

    fn servers(&self, place: &Place) -> Vec<IpAddr> {
        let here = |address: &IpAddr| {
            let address = SocketAddr::new(*address, PORT);
            self.in_channels.contains_key(&address)
        };
        place.addresses.into_iter().filter(here).collect()
    }

    /// Listens on loopback, at the first address that is free.
    async fn listen_on_loopback(&mut self) -> Result<SocketAddr, String> {
        if let Some(listener) = &self.loopback {
            return Ok(listener.address());
        }
        let mut failure = String::new();
        for number in 0..LOOPBACKS_MAX {
            let Some(address) = nth_after(self.settings.loopback, number) else {
                break;
            };
            match Listener::bind(address, Door::Loopback, &self.responder).await {
                Ok(listener) => {
                    self.loopback = Some(listener);
                    return Ok(address);
                }
                Err(error) => failure = cannot_listen(address, &error),
            }
        }
        Err(failure)
    }

    /// Tells people what has changed.
    fn show(&self, state: State) {
        let before = self.shown.state();
        if before == state {
            return;
        }
        if before.how != state.how {
            tracing::info!(how = state.how.name(), "names of hosts are served");
        }
        if before.notice != state.notice
            && let Some(notice) = &state.notice
        {
            tracing::warn!("{notice}");
        }
        self.shown.set(state);
    }
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; that needs root, or a port above 1023 (`dns_listen`) and programs that are told to \
             ask there"
        }
        io::ErrorKind::AddrInUse => {
            "; if that is a DNS server which listens at all addresses, let it listen at its own"
        }
        _ => "",
    };
    format!("names cannot be served at {address}: {error}{advice}")
}

/// The address so many after another; only IPv4 has more than one on loopback.
fn nth_after(first: SocketAddr, number: u8) -> Option<SocketAddr> {
    match first.ip() {
        IpAddr::V4(four) => {
            let bits = four.to_bits().checked_add(number.into())?;
            Some(SocketAddr::new(bits.to_be_bytes().into(), first.port()))
        }
        IpAddr::V6(_) => (number == 0).then_some(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_one_host_find_an_address_each() {
        let first: SocketAddr = "127.77.0.53:53".parse().unwrap();
        assert_eq!(nth_after(first, 2), "127.77.0.55:53".parse().ok());
        let six: SocketAddr = "[::1]:53".parse().unwrap();
        assert_eq!((nth_after(six, 0), nth_after(six, 1)), (Some(six), None));
    }
}
