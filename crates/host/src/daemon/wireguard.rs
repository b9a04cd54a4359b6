//! `channel wireguard`: clients that have WireGuard and no node.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use enishi_api::{Answer, Failure, WireGuardAsk, WireGuardClient, WireGuardConfig};
use enishi_services::keys::Secret;
use enishi_services::vnet::routes::Prefix;
use enishi_services::vnet::wire::HOSTED_MAX;
use enishi_services::vnet::{ChannelId, Command, Event, Network};
use tokio::sync::Mutex;

use super::channels::{is_name, sentence, unknown};
use super::desk::{Desk, no, usage};
use crate::session::Reach;
use crate::wireguard::clients::{Client, encode_key};
use crate::wireguard::{WireGuard, public_key_of, random_key};

/// How long the claim of an address is waited for.
const HOST_TIME_MAX: Duration = Duration::from_secs(30);

/// The longest packet that a client sends: what fits in any path, within the tunnel.
const CLIENT_MTU: u16 = 1280;

/// How often a client tells that it is there, so that a NAT before it lets packets in.
const KEEPALIVE_S: u16 = 25;

/// The longest endpoint, in octets: a name of DNS, and a port.
const ENDPOINT_BYTES_MAX: usize = 253 + 6;

/// Clients are added one after the other: each has its own address.
static ADDING: Mutex<()> = Mutex::const_new(());

pub(super) async fn answer(desk: &Desk, ask: WireGuardAsk) -> Result<Answer, Failure> {
    match ask {
        WireGuardAsk::Add {
            channel,
            client,
            endpoint,
        } => add(desk, channel, client, endpoint).await,
        WireGuardAsk::Remove { channel, client } => remove(desk, &channel, &client).await,
        WireGuardAsk::List { channel } => list(desk, channel).await,
    }
}

async fn add(
    desk: &Desk,
    channel: String,
    name: String,
    endpoint: Option<String>,
) -> Result<Answer, Failure> {
    if !is_name(&name) {
        return Err(usage(
            "A client's name has 1 to 63 letters, digits, `-` and `_`.",
        ));
    }
    let _turn = ADDING.lock().await;
    let wireguard = of(desk)?;
    let place = place(desk, &channel).await?;
    let others = wireguard.clients().into_iter().map(|(client, _)| client);
    let others: Vec<Client> = others.filter(|other| other.channel == channel).collect();
    if others.iter().any(|other| other.name == name) {
        return Err(usage(format!(
            "There is a client called `{name}` already; remove it first (`enishi channel \
             wireguard remove {channel} {name}`), or choose another name."
        )));
    }
    if others.len() >= HOSTED_MAX {
        return Err(no(format!(
            "A node has at most {HOSTED_MAX} clients in a channel."
        )));
    }
    let port = wireguard.listen().map_err(|error| {
        no(format!(
            "There is no UDP port for WireGuard: {error}; choose another in the configuration \
             (`wireguard_port`)."
        ))
    })?;
    let (endpoint, notice) = match endpoint {
        Some(endpoint) => (checked(endpoint)?, None),
        None => own_endpoint(desk, port)?,
    };
    let used: BTreeSet<Ipv4Addr> = others.iter().map(|other| other.address).collect();
    let address = free_address(desk, place.id, &used).await?;
    let [key, preshared_key] = [random_key(), random_key()].map(|key| {
        key.map_err(|error| no(format!("The system gives no random numbers: {error}.")))
    });
    let (key, preshared_key) = (key?, preshared_key?);
    let client = Client {
        channel: channel.clone(),
        name: name.clone(),
        public_key: public_key_of(&key),
        preshared_key,
        address: address.0,
    };
    let configuration = configuration(&client, &key, address, &place, wireguard, &endpoint);
    wireguard.add(client).map_err(|error| {
        no(format!(
            "The client could not be kept: {}",
            sentence(&error.to_string())
        ))
    })?;
    Ok(Answer::WireGuardConfig(WireGuardConfig {
        channel,
        client: name,
        addresses: vec![address.0.into(), address.1],
        configuration,
        notice,
    }))
}

async fn remove(desk: &Desk, channel: &str, name: &str) -> Result<Answer, Failure> {
    let removed = of(desk)?.remove(channel, name);
    let removed = removed.map_err(|error| no(sentence(&error.to_string())))?;
    let Some(client) = removed else {
        return Err(no(format!(
            "There is no client called `{name}` in channel `{channel}`; `enishi channel \
             wireguard list` shows which there are."
        )));
    };
    let asked = channel.to_owned();
    let id = desk.look(move |node| node.vnet().by_name(&asked).map(|(id, _)| id));
    if let Some(id) = id.await? {
        desk.vnet(Command::Dismiss {
            channel: id,
            address: client.address,
        })
        .await?;
    }
    list(desk, Some(channel.to_owned())).await
}

async fn list(desk: &Desk, only: Option<String>) -> Result<Answer, Failure> {
    if let Some(name) = only.clone() {
        let asked = name.clone();
        let is_known = desk.look(move |node| node.vnet().by_name(&asked).is_some());
        if !is_known.await? {
            return Err(unknown(&name));
        }
    }
    let clients = of(desk)?.clients().into_iter();
    let clients = clients
        .filter(|(client, _)| only.as_ref().is_none_or(|name| client.channel == *name))
        .map(|(client, traffic)| {
            let passed = traffic.unwrap_or_default();
            WireGuardClient {
                channel: client.channel,
                client: client.name,
                address: client.address.into(),
                public_key: encode_key(&client.public_key),
                held: traffic.is_some(),
                endpoint: passed.endpoint,
                handshake_s: passed.handshake.map(|ago| ago.as_secs()),
                sent_bytes: passed.sent_bytes,
                received_bytes: passed.received_bytes,
            }
        });
    Ok(Answer::WireGuardClients {
        clients: clients.collect(),
    })
}

/// What there is to know of a channel to have clients in it.
struct Place {
    id: ChannelId,
    network: Network,
    network6: IpAddr,
    /// The networks behind members that this node uses.
    beyond: Vec<Prefix>,
}

async fn place(desk: &Desk, name: &str) -> Result<Place, Failure> {
    let asked = name.to_owned();
    let place = desk.look(move |node| {
        let (id, channel) = node.vnet().by_name(&asked)?;
        let network6 = Prefix::around(channel.address6().into(), Network::PREFIX6);
        Some(Place {
            id,
            network: channel.network(),
            network6: network6.address(),
            beyond: channel.accepted().networks.clone(),
        })
    });
    place.await?.ok_or_else(|| unknown(name))
}

/// Returns an address that this node holds and no client has: one that was left over, or a new
/// one.
async fn free_address(
    desk: &Desk,
    id: ChannelId,
    used: &BTreeSet<Ipv4Addr>,
) -> Result<(Ipv4Addr, IpAddr), Failure> {
    let free = |held: Vec<[IpAddr; 2]>| {
        held.into_iter().find_map(|[four, six]| match four {
            IpAddr::V4(four) if !used.contains(&four) => Some((four, six)),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        })
    };
    let held = desk.look(move |node| {
        let channel = node.vnet().channel(id);
        channel.map_or_else(Vec::new, |channel| channel.hosted(node.id()))
    });
    if let Some(left_over) = free(held.await?) {
        return Ok(left_over);
    }
    let mut events = desk.events();
    desk.vnet(Command::Host(id)).await?;
    let wait = async {
        loop {
            match events.recv().await {
                Ok(Event::Hosting { channel, addresses }) if channel == id => {
                    if let Some(address) = free(addresses) {
                        return Ok(address);
                    }
                }
                Ok(Event::HostFailed { channel, reason }) if channel == id => {
                    return Err(no(format!("No address for the client: {reason}.")));
                }
                Ok(_) => {}
                Err(_) => return Err(no("Too much happens at once; try again.")),
            }
        }
    };
    tokio::time::timeout(HOST_TIME_MAX, wait)
        .await
        .unwrap_or_else(|_| Err(no("No address for the client: too few nodes answer.")))
}

/// Writes the configuration of a client as `wg-quick(8)` and the applications read it.
fn configuration(
    client: &Client,
    key: &Secret,
    (address, address6): (Ipv4Addr, IpAddr),
    place: &Place,
    wireguard: &WireGuard,
    endpoint: &str,
) -> String {
    let beyond = place.beyond.iter().map(|network| format!(", {network}"));
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "[Interface]\n\
         PrivateKey = {}\n\
         Address = {address}/32, {address6}/128\n\
         MTU = {CLIENT_MTU}\n\
         \n\
         [Peer]\n\
         PublicKey = {}\n\
         PresharedKey = {}\n\
         Endpoint = {endpoint}\n\
         AllowedIPs = {}, {}/{}{}\n\
         PersistentKeepalive = {KEEPALIVE_S}\n",
        encode_key(key),
        encode_key(&wireguard.public_key()),
        encode_key(&client.preshared_key),
        place.network,
        place.network6,
        Network::PREFIX6,
        beyond.collect::<String>(),
    );
    text
}

/// An address of this node at which others may reach it: a public one if there is one, else with
/// what a person should know.
fn own_endpoint(desk: &Desk, port: u16) -> Result<(String, Option<String>), Failure> {
    let addresses = desk.sessions.addresses();
    let addresses = addresses.iter().map(|address| address.ip().to_canonical());
    let best = addresses.min_by_key(|address| (Reach::of(*address), address.is_ipv6()));
    let Some(address) = best else {
        return Err(no(
            "This node knows no address of its own; say where clients find it: `--endpoint \
            HOST:PORT`.",
        ));
    };
    let notice = (Reach::of(address) != Reach::Internet).then(|| {
        format!(
            "{address} is no public address: the client reaches this node only from its own \
             network. If a router forwards UDP port {port} to this node, remove the client and add \
             it again with `--endpoint` and the router's address or name."
        )
    });
    Ok((SocketAddr::new(address, port).to_string(), notice))
}

/// Checks that a text can be an endpoint, and nothing else in a configuration.
fn checked(endpoint: String) -> Result<String, Failure> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-.:[]_".contains(c);
    let host_and_port = endpoint.rsplit_once(':');
    let fits = host_and_port.is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    match fits && endpoint.len() <= ENDPOINT_BYTES_MAX && endpoint.chars().all(is_plain) {
        true => Ok(endpoint),
        false => Err(usage(
            "Write the endpoint as HOST:PORT, for example vpn.example.org:51820.",
        )),
    }
}

fn of(desk: &Desk) -> Result<&WireGuard, Failure> {
    let wireguard = desk.shared.wireguard.as_ref();
    wireguard.ok_or_else(|| no("This node takes no WireGuard clients."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port_and_no_line_more() {
        for right in [
            "192.0.2.1:51820",
            "[2001:db8::1]:1",
            "vpn.example.org:65535",
        ] {
            assert_eq!(checked(right.to_owned()).unwrap(), right);
        }
        let long = format!("{}:1", "a".repeat(300));
        for wrong in [
            "",
            ":1",
            "a",
            "a:0",
            "a:70000",
            "a b:1",
            "a:1\nDNS=1:1",
            &long,
        ] {
            assert!(checked(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
