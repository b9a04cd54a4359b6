//! `channel create`, `join`, `leave`, `list` and `show`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use enishi_api::{Answer, Channel, ChannelCreate, ChannelJoin, Failure, FailureKind};
use enishi_services::Node;
use enishi_services::keys::Secret;
use enishi_services::ticket::{ChannelTicket, Ticket, TicketError};
use enishi_services::vnet::routes::Prefix;
use enishi_services::vnet::{self, ChannelId, ChannelSpec, Entry, Network, secret_from_password};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::desk::{Desk, Opened, no, usage};
use super::members::Known;
use super::{discovery, invitations};
use crate::store::unix_s;

/// How long after it was left a channel may seem to be there.
const ADDRESSES_GONE_MAX: Duration = Duration::from_millis(500);

/// How long a claim of an address is waited for.
const CLAIM_TIME_MAX: Duration = Duration::from_secs(30);

/// How long other members are looked for before a person is told that there are none.
const MEMBERS_TIME_MAX: Duration = Duration::from_secs(3);

/// The same for who has an invitation, which proves that there is a channel.
const MEMBERS_TIME_BY_TICKET_MAX: Duration = Duration::from_millis(500);

/// Between two looks for members.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How long an event is waited for before the next look.
const EVENT_TIME_MAX: Duration = Duration::from_millis(100);

/// How long the removal of a channel's records may take.
const LEAVE_TIME: Duration = Duration::from_secs(1);

/// The longest name of a channel, in octets.
const NAME_BYTES_MAX: usize = 63;

/// Deriving a secret from a password takes 64 MiB: one at a time.
static DERIVING: Semaphore = Semaphore::const_new(1);

pub(super) async fn create(desk: &Desk, create: ChannelCreate) -> Result<Answer, Failure> {
    let ChannelCreate {
        name,
        network,
        password,
        address,
    } = create;
    let network = check(&name, &network, address)?;
    let (secret, entry) = match password {
        Some(password) => {
            let secret = derive(&name, Zeroizing::new(password), network).await?;
            (secret, Entry::Secret)
        }
        None => (random_secret()?, Entry::Founder(random_secret()?)),
    };
    let spec = ChannelSpec {
        name,
        network,
        secret,
        entry,
    };
    let opened = open(desk, spec, address).await?;
    claimed(desk, opened).await.map(Answer::Channel)
}

pub(super) async fn join(desk: &Desk, join: ChannelJoin) -> Result<Answer, Failure> {
    match join {
        ChannelJoin::Ticket { ticket, address } => {
            join_by_ticket(desk, &Zeroizing::new(ticket), address).await
        }
        ChannelJoin::Password {
            name,
            password,
            network,
            address,
        } => {
            let network = check(&name, &network, address)?;
            let secret = derive(&name, Zeroizing::new(password), network).await?;
            let spec = ChannelSpec {
                name,
                network,
                secret,
                entry: Entry::Secret,
            };
            let opened = open(desk, spec, address).await?;
            claimed(desk, opened).await?;
            let mut state = look_for_members(desk, opened, MEMBERS_TIME_MAX).await?;
            if state.members < 2 {
                let notice = "no other member was found: either none is online, or name, \
                              password or network differ from theirs (a wrong password looks \
                              the same)";
                state.notice.get_or_insert_with(|| notice.to_owned());
            }
            Ok(Answer::Channel(state))
        }
    }
}

pub(super) async fn leave(desk: &Desk, name: String, force: bool) -> Result<Answer, Failure> {
    let asked = name.clone();
    let look = move |node: &Node| {
        let (id, channel) = node.vnet().by_name(&asked)?;
        Some((id, channel.is_founded_here()))
    };
    let (id, is_founder) = desk.look(look).await?.ok_or_else(|| unknown(&name))?;
    if is_founder && !force {
        return Err(Failure {
            kind: FailureKind::Founder,
            message: format!(
                "This node has founded channel `{name}` and alone holds its authority: when it \
                 leaves, nobody can name administrators or remove one any more, and it cannot \
                 come back as the founder. Name others first (`enishi channel admin {name} \
                 MEMBER`), or ask with `force`."
            ),
        });
    }
    discovery::forget(desk, id, &name);
    desk.vnet(vnet::Command::Close(id)).await?;
    tokio::time::sleep(LEAVE_TIME).await;
    Ok(Answer::Done)
}

pub(super) async fn list(desk: &Desk) -> Result<Answer, Failure> {
    let channels = all(desk).await?;
    Ok(Answer::Channels { channels })
}

/// Returns the state of all channels, in the order of their names.
pub(super) async fn all(desk: &Desk) -> Result<Vec<Channel>, Failure> {
    let look = |node: &Node| {
        let channels = node.vnet().channels();
        let known = channels.map(|(id, channel)| Known::new(node.id(), id, channel));
        known.collect::<Vec<_>>()
    };
    let known = desk.look(look).await?.into_iter();
    let report = desk.shared.networks.report();
    let mut channels: Vec<Channel> = known.map(|known| known.told(desk, &report)).collect();
    channels.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(channels)
}

pub(super) async fn show(desk: &Desk, name: String) -> Result<Answer, Failure> {
    let asked = name.clone();
    let look = move |node: &Node| {
        let (id, channel) = node.vnet().by_name(&asked)?;
        Some(Known::new(node.id(), id, channel))
    };
    let known = desk.look(look).await?.ok_or_else(|| unknown(&name))?;
    let report = desk.shared.networks.report();
    Ok(Answer::Channel(known.told(desk, &report)))
}

/// Nobody here knows such a channel.
pub(super) fn unknown(name: &str) -> Failure {
    no(format!(
        "This node is in no channel called `{name}`; `enishi channel list` shows its channels."
    ))
}

async fn join_by_ticket(
    desk: &Desk,
    text: &str,
    address: Option<Ipv4Addr>,
) -> Result<Answer, Failure> {
    let ticket: Ticket = text
        .parse()
        .map_err(|error: TicketError| usage(sentence(&error.to_string())))?;
    if ticket.has_expired(unix_s()) {
        return Err(no(
            "The invitation has expired; ask for a new one (`enishi channel invite`).",
        ));
    }
    if ticket.overlay != desk.shared.overlay {
        return Err(no(
            "The invitation is for another overlay than the one of this node; start a node with \
             that overlay in its configuration (`overlay`).",
        ));
    }
    let spec = match ticket.channel {
        ChannelTicket::None => {
            return Err(usage(
                "The invitation is for the overlay alone, not for a channel: it serves for \
                 `enishi up --bootstrap`.",
            ));
        }
        ChannelTicket::Secret {
            name,
            network,
            secret,
        } => {
            desk.bootstrap(ticket.contacts).await?;
            ChannelSpec {
                name,
                network,
                secret,
                entry: Entry::Secret,
            }
        }
        ChannelTicket::Invitation { seed } => {
            desk.bootstrap(ticket.contacts).await?;
            invitations::fetch(desk, seed).await?
        }
    };
    check(&spec.name, &spec.network.to_string(), address)?;
    let opened = open(desk, spec, address).await?;
    claimed(desk, opened).await?;
    invitations::settle(desk, opened).await?;
    look_for_members(desk, opened, MEMBERS_TIME_BY_TICKET_MAX)
        .await
        .map(Answer::Channel)
}

/// Checks what names a channel and the address wanted in it.
fn check(name: &str, network: &str, address: Option<Ipv4Addr>) -> Result<Network, Failure> {
    if !is_name(name) {
        return Err(usage(
            "A channel's name has 1 to 63 letters, digits, `-` and `_`.",
        ));
    }
    let network: Network = network
        .parse()
        .map_err(|error: vnet::NetworkError| usage(sentence(&error.to_string())))?;
    match address {
        Some(address) if !network.has_host(address) => Err(usage(format!(
            "{address} is no address of a host in {network}."
        ))),
        Some(_) | None => Ok(network),
    }
}

/// Tells whether a text is fit to name a channel or a service.
pub(super) fn is_name(name: &str) -> bool {
    let fit = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(fit)
}

pub(super) fn random_secret() -> Result<Secret, Failure> {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *secret)
        .map_err(|error| no(format!("The system gives no random numbers: {error}.")))?;
    Ok(Secret::new(*secret))
}

async fn derive(
    name: &str,
    password: Zeroizing<String>,
    network: Network,
) -> Result<Secret, Failure> {
    // The semaphore is never closed.
    let _turn = DERIVING.acquire().await;
    let name = name.to_owned();
    let work = move || secret_from_password(&name, &password, network);
    let secret = tokio::task::spawn_blocking(work).await;
    let secret = secret.map_err(|_| no("The password could not be worked on."))?;
    secret.map_err(|reason| usage(sentence(reason)))
}

/// A channel in which the node takes part, and whether it does so only now.
#[derive(Clone, Copy)]
pub(super) struct Open {
    pub(super) id: ChannelId,
    pub(super) new: bool,
}

/// Takes part in a channel; one where the node is already is as good.
async fn open(desk: &Desk, spec: ChannelSpec, address: Option<Ipv4Addr>) -> Result<Open, Failure> {
    let name = spec.name.clone();
    if desk.shared.networks.makes_devices() {
        // The addresses of a channel that was left are this host's for a moment longer.
        let deadline = Instant::now() + ADDRESSES_GONE_MAX;
        while let Err(why) = check_overlap(desk, &name, spec.network).await {
            if Instant::now() >= deadline {
                return Err(why);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
    match desk.open(spec, address).await? {
        Opened::New(id) => Ok(Open { id, new: true }),
        Opened::Before(id) => Ok(Open { id, new: false }),
        Opened::Conflict => Err(usage(format!(
            "This node is already in a channel called `{name}`, with another secret or network; \
             leave that one first (`enishi channel leave {name}`)."
        ))),
        Opened::TooMany => Err(no(format!(
            "A node takes part in at most {} channels; leave one first.",
            vnet::CHANNELS_MAX
        ))),
    }
}

/// Waits until the channel has its address and returns its state.
async fn claimed(desk: &Desk, opened: Open) -> Result<Channel, Failure> {
    let waiting = tokio::time::timeout(CLAIM_TIME_MAX, wait_for_claim(desk, opened));
    match waiting.await {
        Ok(result) => result,
        Err(_) => Err(no(
            "The node is in the channel, but holds no address yet: too few nodes of the overlay \
             answer. It goes on trying; `enishi channel list` shows when it has one.",
        )),
    }
}

/// Refuses a network that the host could not tell from one that it has already: its packets
/// would go astray, those of the node's own sessions among them.
async fn check_overlap(desk: &Desk, name: &str, network: Network) -> Result<(), Failure> {
    let name = name.to_owned();
    let other = desk
        .look(move |node| {
            let others = node.vnet().channels().map(|(_, channel)| channel);
            let mut others = others.filter(|other| other.name() != name);
            let around = Prefix::around(network.address().into(), network.prefix());
            others.find_map(|other| {
                let name = other.name();
                if other.network().overlaps(&network) {
                    return Some(format!("channel `{name}` ({})", other.network()));
                }
                let mut used = other.accepted().networks.iter();
                let used = used.find(|used| used.overlaps(&around))?;
                Some(format!("{used}, which is reached in channel `{name}`"))
            })
        })
        .await?;
    let own = desk.sessions.addresses().into_iter();
    let own = own.map(|address| (address.ip(), "this host's own address"));
    let peers = desk.sessions.sessions().into_iter();
    let peers = peers.filter_map(|session| {
        let address: SocketAddr = session.path.split(' ').next_back()?.parse().ok()?;
        Some((address.ip(), "a peer's address"))
    });
    let taken = own.chain(peers).find_map(|(address, whose)| match address {
        IpAddr::V4(four) if network.contains(four) => Some(format!("{whose} ({four})")),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    });
    match other.or(taken) {
        Some(what) => Err(usage(format!(
            "The network {network} overlaps {what}, and packets could not be told apart: choose \
             another with `--network` when the channel is made, or run the node with `--no-tun`."
        ))),
        None => Ok(()),
    }
}

async fn wait_for_claim(desk: &Desk, Open { id, new }: Open) -> Result<Channel, Failure> {
    let mut events = desk.events();
    loop {
        let channel = channel(desk, id).await?;
        // The address is held once it is on disk, which the packets' side hears of.
        if channel.address.is_some() && desk.shared.networks.is_open(id) {
            return Ok(channel);
        }
        if has_given_up(desk, id).await? {
            if new {
                desk.vnet(vnet::Command::Close(id)).await?;
            }
            let reason = channel
                .notice
                .unwrap_or_else(|| "no address could be had".to_owned());
            return Err(no(sentence(&reason)));
        }
        // Whatever happens, or is missed because so much happens: look again.
        let _ = tokio::time::timeout(EVENT_TIME_MAX, events.recv()).await;
    }
}

async fn has_given_up(desk: &Desk, id: ChannelId) -> Result<bool, Failure> {
    let look = move |node: &Node| {
        let channel = node.vnet().channel(id);
        channel.map(vnet::Channel::has_given_up)
    };
    desk.look(look).await?.ok_or_else(closed)
}

/// Waits a little for other members, and returns the channel's state then.
async fn look_for_members(
    desk: &Desk,
    Open { id, new }: Open,
    time_max: Duration,
) -> Result<Channel, Failure> {
    let started = Instant::now();
    loop {
        let state = channel(desk, id).await?;
        let look = move |node: &Node| {
            let channel = node.vnet().channel(id)?;
            let knows_all = !channel.is_governed() || channel.charter().is_some();
            let is_removed = channel.is_removed(node.id());
            Some((knows_all, is_removed, channel.is_said_removed()))
        };
        let (knows_all, is_removed, is_said) = desk.look(look).await?.ok_or_else(closed)?;
        let waited = started.elapsed();
        if is_removed || (is_said && waited >= MEMBERS_TIME_MAX) {
            if new {
                desk.vnet(vnet::Command::Close(id)).await?;
            }
            return Err(no(
                "An administrator removed this node from the channel, and it cannot come back.",
            ));
        }
        let has_looked = state.members > 1 || waited >= time_max;
        if (has_looked && knows_all) || waited >= MEMBERS_TIME_MAX {
            return Ok(state);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn channel(desk: &Desk, id: ChannelId) -> Result<Channel, Failure> {
    let look = move |node: &Node| {
        let channel = node.vnet().channel(id)?;
        Some(Known::new(node.id(), id, channel))
    };
    let known = desk.look(look).await?.ok_or_else(closed)?;
    Ok(known.told(desk, &desk.shared.networks.report()))
}

pub(super) fn closed() -> Failure {
    no("The channel was left meanwhile.")
}

/// Makes a sentence for people of an error's text. What begins with a path, or a key in quotes, begins as that
/// is written.
pub(super) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let word = text.split(' ').next().unwrap_or_default();
    let is_word = word.chars().all(char::is_alphabetic);
    let first = letters.next().into_iter();
    let first: String = match is_word {
        true => first.flat_map(char::to_uppercase).collect(),
        false => first.collect(),
    };
    let end = if text.ends_with('.') { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_checked() {
        let network = "10.77.0.0/16";
        assert!(check("office-2_b", network, None).is_ok());
        for name in ["", "a b", "ä", &"a".repeat(64)] {
            assert!(check(name, network, None).is_err(), "{name}");
        }
        assert!(check("a", "10.77.0.1/16", None).is_err());
        assert!(check("a", network, Some(Ipv4Addr::new(10, 77, 0, 9))).is_ok());
        assert!(check("a", network, Some(Ipv4Addr::new(10, 78, 0, 9))).is_err());
        assert_eq!(sentence("too long"), "Too long.");
        assert_eq!(sentence("d/turn.json is full"), "d/turn.json is full.");
    }
}
