//! `route`: networks behind members, offered and used.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use enishi_api::{Answer, Failure, Route, RouteAsk, Router};
use enishi_overlay::NodeId;
use enishi_services::Node;
use enishi_services::vnet::beyond::ACCEPTED_MAX;
use enishi_services::vnet::routes::{Prefix, ROUTES_MAX};
use enishi_services::vnet::wire::Offers;
use enishi_services::vnet::{self, Channel, ChannelId, Command};
use tokio::sync::Semaphore;

use super::channels::{closed, sentence, unknown};
use super::desk::{Desk, no, usage};
use super::offers;
use super::target::{self, Target};

/// How long the system's routes are waited for, and how often they are looked at.
const ROUTED_TIME_MAX: Duration = Duration::from_secs(3);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// One decision after the other: each goes on from what the one before has left.
static ACCEPTING: Semaphore = Semaphore::const_new(1);

/// What names the networks of everything.
const EVERYTHING: &str = "everything";

pub(super) async fn answer(desk: &Desk, ask: RouteAsk) -> Result<Answer, Failure> {
    match ask {
        RouteAsk::List { channel } => list(desk, channel).await,
        RouteAsk::Share {
            channel,
            network,
            share,
        } => self::share(desk, &channel, &network, share).await,
        RouteAsk::Use {
            channel,
            network,
            by,
            r#use,
        } => accept(desk, &channel, &network, by, r#use).await,
    }
}

async fn list(desk: &Desk, only: Option<String>) -> Result<Answer, Failure> {
    if let Some(name) = &only {
        find(desk, name, |_, _| ()).await?;
    }
    let routes = desk.look(move |node| {
        let channels = node.vnet().channels().map(|(_, channel)| channel);
        let wanted = channels.filter(|c| only.as_ref().is_none_or(|name| c.name() == name));
        wanted
            .flat_map(|channel| routes(node, channel))
            .collect::<Vec<_>>()
    });
    Ok(Answer::Routes {
        routes: routes.await?,
    })
}

/// All that is offered, shared or wanted in a channel.
fn routes(node: &Node, channel: &Channel) -> Vec<Route> {
    let me = node.id();
    let accepted = channel.accepted();
    let offered = channel.members().flat_map(|claim| &claim.offers.routes);
    let exit = accepted.exit.iter().flat_map(|_| &Prefix::EVERYTHING);
    let networks: BTreeSet<Prefix> = offered
        .chain(&channel.offers().routes)
        .chain(&accepted.networks)
        .chain(exit)
        .copied()
        .collect();
    let route = |network: Prefix| {
        let host = |id: NodeId| {
            let mut members = channel.members();
            members.find(|claim| claim.contact.id() == id)
        };
        let routers = channel.routers(network, me).map(|id| Router {
            node_id: id.to_string(),
            host: host(id).map_or_else(String::new, |claim| claim.host.clone()),
        });
        let used = channel.routes().iter().find(|r| r.network == network);
        Route {
            channel: channel.name().to_owned(),
            network: network.to_string(),
            shared: channel.offers().routes.contains(&network),
            accepted: accepted.networks.contains(&network)
                || (accepted.exit.is_some() && network.is_everything()),
            via: used.map(|route| route.node.to_string()),
            barred: used.is_some_and(|route| !channel.lets_into(me, network, route.node)),
            routers: routers.collect(),
        }
    };
    networks.into_iter().map(route).collect()
}

async fn share(desk: &Desk, name: &str, network: &str, share: bool) -> Result<Answer, Failure> {
    let networks = parse(network)?;
    let own = find(desk, name, |_, channel| own(channel)).await?;
    for network in &networks {
        let overlaps = |own: &&Prefix| own.overlaps(network) && !network.is_everything();
        if let (true, Some(own)) = (share, own.iter().find(overlaps)) {
            return Err(usage(format!(
                "{network} overlaps {own}, the channel's own network, whose members reach each \
                 other anyway."
            )));
        }
    }
    if share && !desk.shared.networks.makes_devices() {
        return Err(usage(
            "A node without a network device (`--no-tun`) cannot pass packets on; share the \
             network from a node that runs as root.",
        ));
    }
    let change = |offers: &mut Offers| {
        offers.routes.retain(|known| !networks.contains(known));
        offers.routes.extend(networks.iter().filter(|_| share));
        match offers.routes.len() <= ROUTES_MAX {
            true => Ok(()),
            false => Err(usage(format!(
                "A node shares at most {ROUTES_MAX} networks in a channel."
            ))),
        }
    };
    offers::change(desk, name, change).await?;
    list(desk, Some(name.to_owned())).await
}

/// A channel's own networks.
fn own(channel: &Channel) -> [Prefix; 2] {
    let four = channel.network();
    [
        Prefix::around(four.address().into(), four.prefix()),
        Prefix::around(channel.address6().into(), vnet::Network::PREFIX6),
    ]
}

async fn accept(
    desk: &Desk,
    name: &str,
    network: &str,
    by: Option<String>,
    wanted: bool,
) -> Result<Answer, Failure> {
    let networks = parse(network)?;
    // The semaphore is never closed.
    let _turn = ACCEPTING.acquire().await.map_err(|_| closed())?;
    let everything = networks == Prefix::EVERYTHING;
    let (id, mut accepted) =
        find(desk, name, |id, channel| (id, channel.accepted().clone())).await?;
    if everything {
        if wanted {
            if !desk.shared.networks.makes_devices() {
                return Err(usage(
                    "A node without a network device (`--no-tun`) has nothing that could go by an \
                     exit: its proxies reach members alone.",
                ));
            }
            check_exit(desk, name).await?;
        }
        accepted.exit = match (wanted, by) {
            (false, _) => None,
            (true, Some(by)) => Some(exit(desk, name, by).await?),
            (true, None) => {
                return Err(usage(
                    "Say by way of which member everything is to go: `--by MEMBER`; `enishi route \
                     list` shows who offers it.",
                ));
            }
        };
    } else {
        if wanted {
            check_overlap(desk, name, networks[0]).await?;
        }
        accepted.networks.retain(|known| !networks.contains(known));
        accepted.networks.extend(networks.iter().filter(|_| wanted));
        if accepted.networks.len() > ACCEPTED_MAX {
            return Err(usage(format!(
                "A node uses at most {ACCEPTED_MAX} networks behind members of a channel."
            )));
        }
    }
    let channel = id;
    desk.vnet(Command::Accept { channel, accepted }).await?;
    until_routed(desk, name).await?;
    list(desk, Some(name.to_owned())).await
}

/// Waits until the system does what was decided, so that a script can go on.
async fn until_routed(desk: &Desk, name: &str) -> Result<(), Failure> {
    let deadline = Instant::now() + ROUTED_TIME_MAX;
    loop {
        let (id, networks, exit) = find(desk, name, |id, channel| {
            let networks = channel.routes().iter().map(|route| route.network);
            let exit = channel.accepted().exit.is_some();
            (id, networks.collect::<Vec<_>>(), exit)
        })
        .await?;
        if desk.shared.networks.has_routed(id, &networks, exit) || Instant::now() >= deadline {
            return Ok(());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Finds the member by way of which everything is to go.
async fn exit(desk: &Desk, name: &str, by: String) -> Result<NodeId, Failure> {
    let wanted = by.clone();
    let by_host = find(desk, name, move |_, channel| {
        let members = channel.members().filter(|claim| claim.host == wanted);
        members.map(|claim| claim.contact.id()).collect::<Vec<_>>()
    })
    .await?;
    let node = match by_host[..] {
        [node] => node,
        [] => target::node(desk, &Target::parse(&by)?).await?,
        _ => {
            return Err(usage(format!(
                "Several members call themselves `{by}`; name one by its address or id."
            )));
        }
    };
    if node == desk.sessions.me() {
        return Err(usage(
            "A node cannot go by way of itself; `enishi route list` shows who else offers it.",
        ));
    }
    let offers = find(desk, name, move |_, channel| {
        let mut members = channel.members().filter(|claim| claim.contact.id() == node);
        members.any(|claim| claim.offers.routes.iter().any(Prefix::is_everything))
    });
    if offers.await? {
        Ok(node)
    } else {
        Err(no(format!(
            "`{by}` does not offer to pass everything on; there: `enishi route share {name} \
             everything`."
        )))
    }
}

/// Refuses a second exit: the system has one way to everything.
async fn check_exit(desk: &Desk, name: &str) -> Result<(), Failure> {
    let asked = name.to_owned();
    let other = desk.look(move |node| {
        let mut channels = node.vnet().channels().map(|(_, channel)| channel);
        let other = channels.find(|c| c.accepted().exit.is_some() && c.name() != asked);
        other.map(|channel| channel.name().to_owned())
    });
    match other.await? {
        Some(other) => Err(usage(format!(
            "Everything goes by way of a member of channel `{other}`, and can go by one only; \
             `enishi route unuse {other} everything` ends that."
        ))),
        None => Ok(()),
    }
}

/// Refuses a network of which the system could not tell where it is.
async fn check_overlap(desk: &Desk, name: &str, network: Prefix) -> Result<(), Failure> {
    let asked = name.to_owned();
    let other = desk.look(move |node| {
        let channels = node.vnet().channels().map(|(_, channel)| channel);
        channels
            .flat_map(|channel| {
                let used = channel.accepted().networks.iter().copied();
                let used = used.filter(|used| channel.name() != asked || *used != network);
                used.chain(own(channel))
                    .map(|network| (channel.name().to_owned(), network))
                    .collect::<Vec<_>>()
            })
            .find(|(_, other)| other.overlaps(&network))
    });
    if let Some((channel, other)) = other.await? {
        return Err(usage(format!(
            "{network} overlaps {other}, which is reached in channel `{channel}`: packets could \
             not be told apart. Have one of the two networks numbered anew, or use only one \
             (`enishi route unuse`)."
        )));
    }
    let addresses = desk.sessions.addresses();
    let own = addresses.iter().find(|own| network.contains(own.ip()));
    match own {
        Some(own) => Err(usage(format!(
            "{network} contains {}, an address of this host, which is in such a network itself.",
            own.ip()
        ))),
        None => Ok(()),
    }
}

/// Looks at a channel.
async fn find<T: Send + 'static>(
    desk: &Desk,
    name: &str,
    look: impl FnOnce(ChannelId, &Channel) -> T + Send + 'static,
) -> Result<T, Failure> {
    let asked = name.to_owned();
    let found = desk.look(move |node| {
        let found = node.vnet().by_name(&asked);
        found.map(|(id, channel)| look(id, channel))
    });
    found.await?.ok_or_else(|| unknown(name))
}

fn parse(network: &str) -> Result<Vec<Prefix>, Failure> {
    if network == EVERYTHING {
        return Ok(Prefix::EVERYTHING.to_vec());
    }
    let network: Prefix = network
        .parse()
        .map_err(|error: vnet::routes::PrefixError| usage(sentence(&error.to_string())))?;
    match network.is_everything() {
        true => Err(usage("For everything write `everything`.")),
        false => Ok(vec![network]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read() {
        assert_eq!(parse("everything").unwrap(), Prefix::EVERYTHING);
        assert_eq!(parse("192.168.7.0/24").unwrap().len(), 1);
        for wrong in ["192.168.7.1/24", "0.0.0.0/0", "::/0", "lan", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
