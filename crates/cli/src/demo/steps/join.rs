//! Hosts, daemons, the channel, and who joins it how.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{CHANNEL, NETWORK, SPREAD_TIME_MAX};
use crate::demo::member::{Member, until};
use crate::demo::plan::Mode;
use crate::demo::transcript::Transcript;
use crate::demo::world::World;

/// What only the members know.
const PASSWORD: &str = "correct horse battery staple\n";

pub(super) fn hosts(world: &mut World) -> Result<String> {
    world.make_hosts()?;
    Ok("network namespaces, 10.99.0.0/24".to_owned())
}

pub(super) fn first_daemon(world: &mut World, transcript: &mut Transcript) -> Result<String> {
    let member = world.members.first_mut().context("there are no hosts")?;
    member.start(transcript, None)?;
    Ok(format!("node {}", member.node_id))
}

pub(super) fn other_daemons(world: &mut World, transcript: &mut Transcript) -> Result<String> {
    let invitation = world.members[0].tell(transcript, &["invite"])?;
    text(&invitation, "ticket")?.clone_into(&mut world.invitation);
    for member in &mut world.members[1..] {
        member.start(transcript, Some(&world.invitation))?;
    }
    for member in &world.members {
        until(SPREAD_TIME_MAX, "the nodes to find each other", || {
            let status = member.ask(&["status"])?;
            ensure!(
                status["joined"] == true,
                "{} has not joined the ring",
                member.name
            );
            let peers = status["peers"].as_u64().unwrap_or(0);
            ensure!(peers >= 1, "{} has no peers", member.name);
            Ok(())
        })?;
    }
    world.members[0].show(transcript, &["peers"])?;
    Ok("all on one ring".to_owned())
}

pub(super) fn create(world: &mut World, transcript: &mut Transcript) -> Result<String> {
    let file = world.directory().join("password");
    fs::write(&file, PASSWORD).context("writing the password file")?;
    let file = file.to_string_lossy();
    let words = [
        "channel",
        "create",
        CHANNEL,
        "--network",
        NETWORK,
        "--password-file",
        &file,
    ];
    entered(&world.members[0].tell(transcript, &words)?)
}

pub(super) fn by_invitation(world: &mut World, transcript: &mut Transcript) -> Result<String> {
    let invitation = world.members[0].tell(transcript, &["channel", "invite", CHANNEL])?;
    let ticket = text(&invitation, "ticket")?;
    entered(&world.members[1].tell(transcript, &["channel", "join", ticket])?)
}

pub(super) fn by_password(world: &mut World, transcript: &mut Transcript) -> Result<String> {
    let file = world.directory().join("password");
    let file = file.to_string_lossy();
    entered(&world.members[2].tell(transcript, &join_by_password(&file))?)
}

/// The words that join the channel by a password, right or wrong.
pub(super) fn join_by_password(file: &str) -> [&str; 8] {
    [
        "channel",
        "join",
        "--name",
        CHANNEL,
        "--password-file",
        file,
        "--network",
        NETWORK,
    ]
}

/// Waits until each member holds an address, and checks that nobody shares one.
pub(super) fn addresses(world: &mut World, transcript: &mut Transcript) -> Result<String> {
    let needs_device = world.mode == Mode::Namespaces;
    for member in &mut world.members {
        let address = until(SPREAD_TIME_MAX, "an address", || {
            let channel = channel_of(member)?;
            ensure!(
                !needs_device || channel["interface"].is_string(),
                "{} has no network device; its log says why",
                member.name
            );
            address_of(&channel)
        })?;
        member.address = Some(address);
        member.show(transcript, &["channel", "list"])?;
    }
    let mut addresses: Vec<Ipv4Addr> = world
        .members
        .iter()
        .filter_map(|member| member.address)
        .collect();
    let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    ensure!(
        addresses
            .iter()
            .all(|address| address.octets().starts_with(&[10, 77])),
        "an address is not of {NETWORK}: {shown:?}"
    );
    addresses.sort_unstable();
    addresses.dedup();
    ensure!(
        addresses.len() == world.members.len(),
        "an address is held twice: {shown:?}"
    );
    Ok(shown.join(", "))
}

/// The state of the channel at a member.
pub(super) fn channel_of(member: &Member) -> Result<Value> {
    let list = member.ask(&["channel", "list"])?;
    let channels = list["channels"]
        .as_array()
        .context("the list has no channels")?;
    let found = channels.iter().find(|channel| channel["name"] == CHANNEL);
    Ok(found
        .with_context(|| format!("{} is not in the channel", member.name))?
        .clone())
}

/// The address in a channel's state.
pub(super) fn address_of(channel: &Value) -> Result<Ipv4Addr> {
    let address = text(channel, "address").context("no address is held yet")?;
    address
        .parse()
        .with_context(|| format!("`{address}` is no address"))
}

fn entered(channel: &Value) -> Result<String> {
    Ok(format!("address {}", address_of(channel)?))
}

fn text<'a>(object: &'a Value, name: &str) -> Result<&'a str> {
    object[name]
        .as_str()
        .with_context(|| format!("the answer has no {name}"))
}
