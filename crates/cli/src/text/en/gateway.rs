//! What is said of gateways, in English.

use crate::text::Gateway;

pub(crate) fn text(message: &Gateway<'_>) -> String {
    match message {
        Gateway::NoId { what } => {
            format!("{what} takes a whole id: 52 characters, a to z and 2 to 7.")
        }
        Gateway::NoMember { member } => format!(
            "`{member}` is not the one member of the channel that this node knows by that name; \
             write its whole node id (`enishi channel show`)."
        ),
        Gateway::Signed { name } => format!(
            "Give it to whoever runs the gateway, who keeps it with `enishi gateway accept`.\nTo \
             take it back:\n  enishi overlay revoke {name}"
        ),
        Gateway::Accepted { overlay } => format!(
            "The gateway has the consent of overlay {overlay}; `enishi gateway show` tells what \
             it may pass on."
        ),
        Gateway::Forgotten { overlay } => {
            format!("The gateway has no consent of overlay {overlay} any more.")
        }
        Gateway::Runs => "The gateway runs; Ctrl-C stops it.".to_owned(),
        Gateway::Limits {
            flows,
            octets_per_s,
            idle_s,
        } => format!(
            "{flows} connections, {octets_per_s} octets a second, {idle_s} s without an octet"
        ),
        Gateway::HashMissing => "No line of the audit log has that hash: it was changed since \
            the hash was noted, or the line is so old that its file is gone."
            .to_owned(),
        Gateway::Whole { lines, hash } => format!(
            "The audit log is whole: {lines} lines. Note the last hash elsewhere, to ask for it \
             later with --expect:\n{hash}"
        ),
        Gateway::NotLogged => {
            "There is no audit log yet: this node has not run a gateway.".to_owned()
        }
        Gateway::NoGateways => "No member of this node's channels shows a consent to be a \
            gateway."
            .to_owned(),
    }
}
