//! `channel discovery`: where programs look for others that choose no device.

use enishi_api::{Answer, Discovery, Failure};
use enishi_services::Node;
use enishi_services::vnet::ChannelId;

use super::channels::{sentence, unknown};
use super::desk::{Desk, no, usage};

pub(super) async fn answer(desk: &Desk, name: String, on: Option<bool>) -> Result<Answer, Failure> {
    let networks = &desk.shared.networks;
    let (asked, now) = (name.clone(), networks.discovery());
    let look = move |node: &Node| {
        let vnet = node.vnet();
        let (id, _) = vnet.by_name(&asked)?;
        let other = now.filter(|now| *now != asked && vnet.by_name(now).is_some());
        Some((id, other))
    };
    let (id, other) = desk.look(look).await?.ok_or_else(|| unknown(&name))?;
    if on == Some(true) && !networks.makes_devices() {
        return Err(usage(
            "A node without a network device (`--no-tun`) has nothing to which programs of this \
             host could be led.",
        ));
    }
    if let (Some(true), Some(other)) = (on, other) {
        return Err(usage(format!(
            "Programs of this host look for others in channel `{other}`, and can do so in one \
             only; `enishi channel discovery {other} off` ends that."
        )));
    }
    let is_on = networks.discovery().as_deref() == Some(name.as_str());
    // Once more when it is on: the system may have refused at the start.
    if let Some(on) = on.filter(|on| *on || is_on) {
        let done = networks.discover(id, &name, on);
        done.map_err(|error| no(sentence(&error)))?;
    }
    Ok(Answer::Discovery(Discovery {
        channel: name,
        on: on.unwrap_or(is_on) && networks.makes_devices(),
    }))
}

/// Returns for which channel it is on and the host has a device.
pub(super) fn in_use(desk: &Desk) -> Option<String> {
    let networks = &desk.shared.networks;
    networks.discovery().filter(|_| networks.makes_devices())
}

/// Ends it for a channel that is left.
pub(super) fn forget(desk: &Desk, id: ChannelId, name: &str) {
    let networks = &desk.shared.networks;
    if networks.discovery().as_deref() == Some(name)
        && let Err(error) = networks.discover(id, name, false)
    {
        tracing::warn!(%error, "discovery comes back when a channel of this name is joined");
    }
}
