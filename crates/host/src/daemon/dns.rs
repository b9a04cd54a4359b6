//! Names of hosts in channels: what the node knows of them, for the responder; and
//! `channel names` and `resolve`. (The names of values in the DHT are in `names`.)

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use enishi_api::{Answer, Failure, HostName, Names};
use enishi_dns::{DOMAIN, Zone};
use enishi_services::{Node, vnet};
use tokio::sync::broadcast;
use tokio::sync::mpsc;

use super::channels::unknown;
use super::desk::{Desk, no};
use crate::dns::{Settings, Shown, Upkeep, ZoneRequest};
use crate::store::unix_s;

/// How many queries wait for the present names.
const REQUESTS_MAX: usize = 256;

/// How old the names may be that a query is answered by.
const ZONE_AGE_MAX: Duration = Duration::from_secs(1);

/// How often it is looked whether all is still set up.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is tried again while something is missing.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The file that tells what has to be put back after a crash.
pub(super) const MARKER_NAME: &str = "resolver.restore";

/// Tells whether names are to be served: as configured, otherwise where they lead somewhere
/// and the system's resolver can be set up.
pub(super) fn is_wanted(configured: Option<bool>, with_devices: bool) -> bool {
    configured.unwrap_or_else(|| with_devices && nix::unistd::geteuid().is_root())
}

/// Serves names until the daemon stops; then puts the system's resolver back as it was.
pub(super) async fn serve(desk: Desk) {
    let Some(shown) = desk.shared.names.clone() else {
        return;
    };
    let (zones, requests) = mpsc::channel(REQUESTS_MAX);
    let keeping = tokio::spawn(keep_zone(desk.clone(), requests));
    let settings = Settings {
        loopback: desk.shared.config.dns_listen,
        with_resolver: desk.shared.networks.makes_devices(),
        marker: desk.shared.data.join(MARKER_NAME),
    };
    see_to(&desk, Upkeep::new(settings, zones, shown)).await;
    keeping.abort();
}

async fn see_to(desk: &Desk, mut upkeep: Upkeep) {
    let mut events = desk.events();
    loop {
        let is_complete = upkeep.see_to(&desk.shared.networks.places()).await;
        let look = tokio::time::sleep(match is_complete {
            true => LOOK_INTERVAL,
            false => RETRY_INTERVAL,
        });
        tokio::select! {
            () = desk.ending.stop.cancelled() => break,
            () = changed(&mut events) => {}
            () = look => {}
        }
    }
    upkeep.close();
}

/// Waits until channels come or go.
async fn changed(events: &mut broadcast::Receiver<vnet::Event>) {
    loop {
        match events.recv().await {
            Ok(event) if !changes_channels(&event) => {}
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
            // The daemon is stopping.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn changes_channels(event: &vnet::Event) -> bool {
    matches!(
        event,
        vnet::Event::Claimed { .. }
            | vnet::Event::Displaced { .. }
            | vnet::Event::Closed(_)
            | vnet::Event::Governed(_)
    )
}

/// Hands out the present names, made anew when somebody asks and they may have changed.
async fn keep_zone(desk: Desk, mut requests: mpsc::Receiver<ZoneRequest>) {
    let mut events = desk.events();
    let mut kept: Option<(Instant, Arc<Zone>)> = None;
    loop {
        tokio::select! {
            biased;
            () = changed(&mut events) => kept = None,
            request = requests.recv() => {
                let Some(request) = request else { return };
                let fresh = kept.take().filter(|(at, _)| at.elapsed() < ZONE_AGE_MAX);
                let (at, zone) = match fresh {
                    Some(fresh) => fresh,
                    None => match zone(&desk).await {
                        Ok(zone) => (Instant::now(), Arc::new(zone)),
                        Err(_) => return,
                    },
                };
                // Whoever asked may have given up.
                let _ = request.send(Arc::clone(&zone));
                kept = Some((at, zone));
            }
        }
    }
}

async fn zone(desk: &Desk) -> Result<Zone, Failure> {
    let channels = desk.look(channels).await?;
    Ok(Zone::new(unix_s() as u32, &channels))
}

fn channels(node: &Node) -> Vec<enishi_dns::Channel> {
    let me = node.overlay().me().id();
    let channels = node.vnet().channels();
    let channels = channels.map(|(id, channel)| enishi_dns::Channel {
        number: id.0,
        name: channel.name().to_owned(),
        network: channel.network().into(),
        network6: (channel.address6(), vnet::Network::PREFIX6),
        me,
        members: channel.members().map(member).collect(),
        guests: channel.hosted(me).into_iter().flatten().collect(),
    });
    channels.collect()
}

fn member(claim: &vnet::wire::Claim) -> enishi_dns::Member {
    enishi_dns::Member {
        node: claim.contact.id(),
        host: claim.host.clone(),
        addresses: claim.addresses().to_vec(),
        services: claim.offers.services.iter().map(service).collect(),
    }
}

fn service(offer: &vnet::wire::ServiceOffer) -> enishi_dns::Service {
    enishi_dns::Service {
        name: offer.name.clone(),
        protocol: match offer.udp {
            true => enishi_dns::Protocol::Udp,
            false => enishi_dns::Protocol::Tcp,
        },
        port: offer.port,
        texts: offer.texts.clone(),
    }
}

/// The names of a channel's hosts.
pub(super) async fn names(desk: &Desk, name: &str) -> Result<Answer, Failure> {
    let names = hosts(desk, name).await?.iter().map(host_name).collect();
    Ok(Answer::Names { names })
}

/// The hosts of a channel by name.
pub(super) async fn hosts(desk: &Desk, name: &str) -> Result<Vec<enishi_dns::HostName>, Failure> {
    let asked = name.to_owned();
    let look = move |node: &Node| {
        (
            node.vnet().by_name(&asked).map(|(id, _)| id),
            channels(node),
        )
    };
    let (id, channels) = desk.look(look).await?;
    let id = id.ok_or_else(|| unknown(name))?;
    let zone = Zone::new(unix_s() as u32, &channels);
    Ok(zone.hosts(id.0).to_vec())
}

/// This host's name in the first channel with a device.
pub(super) async fn own_name(desk: &Desk) -> Result<Option<enishi_dns::HostName>, Failure> {
    let places = desk.shared.networks.places();
    let Some(number) = places.first().map(|place| place.channel) else {
        return Ok(None);
    };
    let me = desk.sessions.me();
    let zone = zone(desk).await?;
    let own = zone.hosts(number).iter().find(|host| host.node == me);
    Ok(own.cloned())
}

/// Who has a name, or an address.
pub(super) async fn resolve(desk: &Desk, name: &str) -> Result<Answer, Failure> {
    let channels = desk.look(channels).await?;
    let zone = Zone::new(unix_s() as u32, &channels);
    let numbers = channels.iter().map(|channel| channel.number);
    let hosts = numbers.flat_map(|number| zone.hosts(number));
    let hosts = hosts.filter(|host| is_meant(host, name));
    let names: Vec<HostName> = hosts.map(host_name).collect();
    match names.is_empty() {
        false => Ok(Answer::Names { names }),
        true => Err(no(format!(
            "No known member of this node's channels is called `{name}` or has that address; \
             `enishi channel names CHANNEL` shows all."
        ))),
    }
}

/// Tells whether a host is meant by an address, or by its name with or without what all
/// names end in.
fn is_meant(host: &enishi_dns::HostName, text: &str) -> bool {
    if let Ok(address) = text.parse::<IpAddr>() {
        return host.addresses.contains(&address);
    }
    let text = text.trim_end_matches('.').to_ascii_lowercase();
    let short = host.name.trim_end_matches(DOMAIN).trim_end_matches('.');
    let (label, channel) = short.split_once('.').unwrap_or((short, ""));
    let text = text.strip_suffix(&format!(".{DOMAIN}")).unwrap_or(&text);
    let id = host.node.to_string();
    text == short || text == label || text == id || text == format!("{id}.{channel}")
}

fn host_name(host: &enishi_dns::HostName) -> HostName {
    HostName {
        name: host.name.clone(),
        node_id: host.node.to_string(),
        addresses: host.addresses.clone(),
    }
}

/// How names are served, for `status`.
pub(super) fn state(desk: &Desk) -> Option<Names> {
    let state = desk.shared.names.as_ref().map(Shown::state)?;
    Some(Names {
        how: state.how.name().to_owned(),
        listening: state.listening,
        upstreams: state.upstreams,
        notice: state.notice,
    })
}
