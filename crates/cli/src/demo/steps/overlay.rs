//! The overlay itself: ping, trace, values, and nodes that go and come back.

use anyhow::{Context, Result, ensure};

use super::join::{address_of, channel_of};
use super::{SPREAD_TIME_MAX, network};
use crate::demo::member::{Member, until};
use crate::demo::plan::Mode;
use crate::demo::transcript::Transcript;
use crate::demo::world::World;

/// The key of the value that is stored.
const KEY: &str = "greeting";

/// The value.
const VALUE: &str = "hello from ben";

/// How many echo requests are sent.
const PINGS: &str = "5";

pub(super) fn ping(world: &mut World, transcript: &mut Transcript) -> Result<String> {
    let words = [
        "ping",
        &world.members[1].node_id,
        "-c",
        PINGS,
        "--interval-ms",
        "100",
    ];
    let summary = world.members[0].tell(transcript, &words)?;
    ensure!(
        summary["received"] == summary["sent"],
        "some echo requests were lost"
    );
    let mean = summary["rtt_ms"]["avg"]
        .as_f64()
        .context("there is no round-trip time")?;
    let path = summary["path"].as_str().unwrap_or("-");
    Ok(format!("{PINGS} of {PINGS}, mean {mean:.2} ms, {path}"))
}

pub(super) fn trace(world: &mut World, transcript: &mut Transcript) -> Result<String> {
    let target = &world.members[2].node_id;
    let route = world.members[0].tell(transcript, &["trace", target])?;
    let hops = route["hops"].as_array().context("the route has no hops")?;
    let last = hops.last().context("the route has no hops")?;
    ensure!(
        last["node_id"] == target.as_str(),
        "the route does not end at its target"
    );
    Ok(format!(
        "{} hop{}",
        hops.len(),
        if hops.len() == 1 { "" } else { "s" }
    ))
}

pub(super) fn store(world: &mut World, transcript: &mut Transcript) -> Result<String> {
    let stored = world.members[1].tell(transcript, &["dht", "put", KEY, VALUE])?;
    read(&world.members[0], transcript)?;
    Ok(format!("{} nodes acknowledged it", stored["replicas"]))
}

pub(super) fn kill(world: &mut World, transcript: &mut Transcript) -> Result<String> {
    world.members[1].kill(transcript)?;
    for member in [&world.members[0], &world.members[2]] {
        until(SPREAD_TIME_MAX, "the value", || {
            member.ask(&["dht", "get", KEY])
        })?;
        read(member, transcript)?;
    }
    Ok("read at both that are left".to_owned())
}

/// Starts the killed node again: same identity, same address, and it can be reached.
pub(super) fn come_back(world: &mut World, transcript: &mut Transcript) -> Result<String> {
    let invitation = world.invitation.clone();
    let member = &mut world.members[1];
    let before = member.node_id.clone();
    member.start(transcript, Some(&invitation))?;
    ensure!(
        member.node_id == before,
        "it is node {} now",
        member.node_id
    );
    let member = &world.members[1];
    ensure!(
        member.address.is_some(),
        "the same id, but it held no address before"
    );
    let address = until(SPREAD_TIME_MAX, "its address", || {
        address_of(&channel_of(member)?)
    })?;
    ensure!(
        Some(address) == member.address,
        "its address is {address} now"
    );
    match world.mode {
        Mode::Namespaces => reach_by_ip(world, transcript)?,
        Mode::Loopback => reach_by_overlay(world, transcript)?,
    }
    Ok(format!("the same id, {address}"))
}

fn reach_by_ip(world: &World, transcript: &mut Transcript) -> Result<()> {
    let [aki, ben, _] = world.members.as_slice() else {
        anyhow::bail!("there are not three members")
    };
    let address = ben.virtual_address()?.to_string();
    until(SPREAD_TIME_MAX, "the way to it", || {
        let output = aki.try_run(
            &["ping", "-c", "1", "-W", "1", &address],
            network::PING_TIME_MAX,
        )?;
        ensure!(output.success(), "{address} does not answer");
        Ok(())
    })?;
    network::ping(transcript, aki, ben)?;
    Ok(())
}

fn reach_by_overlay(world: &World, transcript: &mut Transcript) -> Result<()> {
    let (aki, ben) = (&world.members[0], &world.members[1]);
    let address = ben.virtual_address()?.to_string();
    let words = ["ping", &address, "-c", "1", "--timeout-ms", "1000"];
    until(SPREAD_TIME_MAX, "the way to it", || aki.ask(&words))?;
    aki.tell(transcript, &words)?;
    Ok(())
}

fn read(member: &Member, transcript: &mut Transcript) -> Result<()> {
    let found = member.tell(transcript, &["dht", "get", KEY])?;
    ensure!(
        found["value"] == VALUE,
        "another value was read: {}",
        found["value"]
    );
    Ok(())
}
