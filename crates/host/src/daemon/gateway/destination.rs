//! Whom a program means by a name or an address, and the way there.

use std::io;
use std::net::{IpAddr, SocketAddr};

use enishi_services::Node;
use enishi_services::vnet::{Channel, ChannelId};

use super::super::desk::Desk;
use super::super::target;
use crate::packets::{Connection, Reach};
use crate::socks::Host;

/// The domain of all channels.
const DOMAIN: &str = "enishi";

/// A member's port, and the way there.
#[derive(Clone)]
pub(super) struct Destination {
    pub(super) channel: ChannelId,
    pub(super) reach: Reach,
    pub(super) address: SocketAddr,
}

/// Why there is no way to a destination.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{0} is in none of this node's channels; only their members are reached")]
    Outside(IpAddr),
    #[error(
        "no member of this node's channels is called {0}; write HOST.CHANNEL or \
         HOST.CHANNEL.enishi as `enishi channel list` shows them"
    )]
    Unknown(String),
    #[error("{0} is this node itself, which a user-space network does not lead to")]
    Own(IpAddr),
    #[error("the channel has no address or no network yet")]
    NoNetwork,
    #[error("the daemon is stopping")]
    Stopping,
}

impl Destination {
    /// Finds a member's port in any channel.
    pub(super) async fn find(desk: &Desk, host: Host, port: u16) -> Result<Self, Refusal> {
        let found = desk.look(move |node| match host {
            Host::Address(address) => by_address(node, address),
            Host::Name(name) => by_name(node, &name),
        });
        let (channel, address) = found.await.map_err(|_| Refusal::Stopping)??;
        Self::at(desk, channel, SocketAddr::new(address, port)).await
    }

    /// Finds a member's port in one channel, where names need not name it.
    pub(super) async fn find_in(
        desk: &Desk,
        channel: String,
        host: Host,
        port: u16,
    ) -> Result<Self, Refusal> {
        let found = desk.look(move |node| {
            let (id, channel) = node.vnet().by_name(&channel).ok_or(Refusal::NoNetwork)?;
            let address = match host {
                Host::Address(address) if target::contains(channel, address) => address,
                Host::Address(address) => return Err(Refusal::Outside(address)),
                Host::Name(name) => {
                    let (host, there) = split(&name);
                    let is_here =
                        there.is_none_or(|there| there.eq_ignore_ascii_case(channel.name()));
                    let address = member(channel, host).filter(|_| is_here);
                    address.ok_or_else(|| Refusal::Unknown(name.clone()))?
                }
            };
            Ok((id, address))
        });
        let (id, address) = found.await.map_err(|_| Refusal::Stopping)??;
        Self::at(desk, id, SocketAddr::new(address, port)).await
    }

    /// Connects to it.
    pub(super) async fn connect(&self) -> io::Result<Box<dyn Connection>> {
        self.reach.connect(self.address).await
    }

    async fn at(desk: &Desk, channel: ChannelId, address: SocketAddr) -> Result<Self, Refusal> {
        let reach = desk.shared.networks.reach(channel);
        let reach = reach.ok_or(Refusal::NoNetwork)?;
        if matches!(reach, Reach::Userspace(_)) {
            let own = desk.look(move |node| {
                let channel = node.vnet().channel(channel)?;
                let own = [
                    channel.address().map(IpAddr::from),
                    Some(channel.address6().into()),
                ];
                Some(own.contains(&Some(address.ip())))
            });
            if own.await.map_err(|_| Refusal::Stopping)? == Some(true) {
                return Err(Refusal::Own(address.ip()));
            }
        }
        Ok(Self {
            channel,
            reach,
            address,
        })
    }
}

/// Reads `HOST:PORT` or `[ADDRESS]:PORT`.
pub(super) fn parse(text: &str) -> Option<(Host, u16)> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((Host::Address(address.ip()), address.port()));
    }
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let fit = |c: char| !c.is_control() && !c.is_whitespace() && !"[]:/@".contains(c);
    let is_name = (1..=255).contains(&host.len()) && host.chars().all(fit);
    is_name.then(|| (Host::Name(host.to_owned()), port))
}

/// Finds the channel that an address is in: best one where a member has it.
fn by_address(node: &Node, address: IpAddr) -> Result<(ChannelId, IpAddr), Refusal> {
    let (_, channels) = target::search(node, address);
    let channel = channels.first().ok_or(Refusal::Outside(address))?;
    Ok((*channel, address))
}

fn by_name(node: &Node, name: &str) -> Result<(ChannelId, IpAddr), Refusal> {
    let unknown = || Refusal::Unknown(name.to_owned());
    if let Ok(address) = name.parse() {
        return by_address(node, address);
    }
    let (host, channel) = split(name);
    let channel = channel.ok_or_else(unknown)?;
    let mut channels = node.vnet().channels();
    let found = channels.find(|(_, known)| known.name().eq_ignore_ascii_case(channel));
    let (id, channel) = found.ok_or_else(unknown)?;
    let address = member(channel, host).ok_or_else(unknown)?;
    Ok((id, address))
}

/// Splits `host.channel.enishi.`, `host.channel` or `host`.
fn split(name: &str) -> (&str, Option<&str>) {
    let name = name.strip_suffix('.').unwrap_or(name);
    let inside = match name.rsplit_once('.') {
        Some((inside, domain)) if domain.eq_ignore_ascii_case(DOMAIN) => inside,
        _ => name,
    };
    match inside.rsplit_once('.') {
        Some((host, channel)) => (host, Some(channel)),
        None => (inside, None),
    }
}

/// Returns the address of the member that is called so; of several, the one of the lowest id.
fn member(channel: &Channel, host: &str) -> Option<IpAddr> {
    let mut members = channel.members();
    let member = members.find(|claim| claim.host.eq_ignore_ascii_case(host))?;
    Some(member.address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_the_channel() {
        let office = Some("office");
        assert_eq!(split("aki.office.enishi"), ("aki", office));
        assert_eq!(split("aki.office.Enishi."), ("aki", office));
        assert_eq!(split("aki.lan.office"), ("aki.lan", office));
        assert_eq!(split("aki"), ("aki", None));
        assert_eq!(split(""), ("", None));
    }

    #[test]
    fn destinations_have_a_port() {
        let name = |text: &str| Host::Name(text.to_owned());
        assert_eq!(parse("aki:80"), Some((name("aki"), 80)));
        assert_eq!(
            parse("[fd77::2]:80"),
            Some((Host::Address("fd77::2".parse().unwrap()), 80))
        );
        for wrong in [
            "aki",
            ":80",
            "aki:",
            "aki:99999",
            "a b:80",
            "fd77::2",
            "a:b:80",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
