//! The channels: their devices, their members, and the names of hosts.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_api::{Channel, Failure, Finding, Outcome};
use enishi_overlay::NodeId;

use super::{Report, echoes};
use crate::daemon::desk::Desk;
use crate::daemon::{channels, dns, machine};
use crate::dns::How;

/// How many members of each channel are asked for an echo.
const MEMBERS_ASKED: usize = 32;

/// How long the system's resolver may take for a name.
const NAME_TIME_MAX: Duration = Duration::from_secs(8);

pub(super) async fn channels(desk: &Desk, report: &mut Report<'_>) -> Result<(), Failure> {
    let devices = desk.shared.networks.makes_devices();
    for channel in channels::all(desk).await? {
        let up = channel
            .interface
            .as_deref()
            .map(|name| machine::is_up(name).unwrap_or(false));
        let outcome = if channel.address.is_none() || up == Some(false) {
            Outcome::Problem
        } else if channel.notice.is_some() || (devices && up.is_none()) {
            Outcome::Warning
        } else {
            Outcome::Ok
        };
        let finding = Finding::Channel {
            name: channel.name.clone(),
            address: channel.address.map(|address| address.to_string()),
            interface: channel.interface.clone(),
            up,
            devices,
            notice: channel.notice.clone(),
        };
        report.tell(outcome, finding).await;
        members(desk, &channel, report).await;
    }
    Ok(())
}

async fn members(desk: &Desk, channel: &Channel, report: &mut Report<'_>) {
    let me = desk.sessions.me();
    let others: BTreeMap<NodeId, String> = channel
        .member_list
        .iter()
        .filter_map(|member| Some((member.node_id.parse().ok()?, member.host.clone())))
        .filter(|(id, _)| *id != me)
        .take(MEMBERS_ASKED)
        .collect();
    if others.is_empty() {
        return;
    }
    let echoes = echoes(desk, others.keys().copied()).await;
    let silent = echoes.iter().filter(|(_, echo)| echo.is_none());
    let silent: Vec<String> = silent
        .filter_map(|(id, _)| others.get(id).cloned())
        .collect();
    // A member may be switched off, which is no fault of this node; all of them is odd.
    let outcome = if silent.is_empty() {
        Outcome::Ok
    } else {
        Outcome::Warning
    };
    let finding = Finding::Members {
        channel: channel.name.clone(),
        asked: others.len() as u32,
        silent,
    };
    report.tell(outcome, finding).await;
}

/// Looks up this host's own name as every program does.
pub(super) async fn names(desk: &Desk, report: &mut Report<'_>) -> Result<(), Failure> {
    let Some(state) = dns::state(desk) else {
        return Ok(());
    };
    let own = dns::own_name(desk).await?;
    let own = own.filter(|_| state.how != How::None.name());
    let found = match &own {
        None => false,
        Some(own) => {
            let looked_up = tokio::net::lookup_host((own.name.as_str(), 0));
            let looked_up = tokio::time::timeout(NAME_TIME_MAX, looked_up).await;
            let mut addresses = looked_up.into_iter().flatten().flatten();
            addresses.any(|address| own.addresses.contains(&address.ip()))
        }
    };
    let outcome = match &own {
        Some(_) if !found => Outcome::Problem,
        _ if state.notice.is_some() => Outcome::Warning,
        _ => Outcome::Ok,
    };
    let finding = Finding::Names {
        how: state.how,
        listening: state.listening,
        asked: own.map(|own| own.name),
        found,
        notice: state.notice,
    };
    report.tell(outcome, finding).await;
    Ok(())
}
