//! Somebody who knows the channel's name but not its password.

use std::fs;

use anyhow::{Context, Result, bail, ensure};

use super::join::{address_of, join_by_password};
use super::network::PING_TIME_MAX;
use crate::demo::member::Member;
use crate::demo::plan::Mode;
use crate::demo::transcript::Transcript;
use crate::demo::world::World;

/// What the stranger guesses.
const GUESS: &str = "password1\n";

/// A fourth node of the overlay tries to join with a wrong password: nobody refuses it, for
/// it names another channel, in which it must be alone.
pub(super) fn try_password(world: &mut World, transcript: &mut Transcript) -> Result<String> {
    let invitation = match world.invitation.as_str() {
        "" => bail!("there is no invitation to the overlay"),
        invitation => invitation.to_owned(),
    };
    let file = world.directory().join("guess");
    fs::write(&file, GUESS).context("writing the password file")?;
    let file = file.to_string_lossy().into_owned();
    let stranger = world.make_stranger()?;
    stranger.start(transcript, Some(&invitation))?;
    let channel = stranger.tell(transcript, &join_by_password(&file))?;
    ensure!(
        channel["members"] == 1,
        "it found {} members",
        channel["members"]
    );
    stranger.address = Some(address_of(&channel)?);
    check_alone(world, transcript)?;
    Ok("it is alone in a channel of its own".to_owned())
}

/// Neither side sees the other.
fn check_alone(world: &World, transcript: &mut Transcript) -> Result<()> {
    let stranger = world.stranger.as_ref().context("there is no stranger")?;
    for member in world.members.iter().filter(|member| member.is_started()) {
        let status = member.ask(&["channel", "list"])?.to_string();
        ensure!(
            !status.contains(&stranger.node_id),
            "{} counts it as a member",
            member.name
        );
        // Both may have chosen the same address by chance, in two networks.
        let differs = member.address.is_some() && member.address != stranger.address;
        if world.mode == Mode::Namespaces && differs {
            check_unreachable(transcript, stranger, member)?;
        }
    }
    Ok(())
}

fn check_unreachable(
    transcript: &mut Transcript,
    stranger: &Member,
    member: &Member,
) -> Result<()> {
    let address = member.virtual_address()?.to_string();
    let words = ["ping", "-c", "1", "-W", "1", &address];
    let output = stranger.try_run(&words, PING_TIME_MAX)?;
    transcript.command(stranger.name, &words.join(" "), &output.stdout)?;
    ensure!(!output.success(), "{address} answers to the stranger");
    Ok(())
}
