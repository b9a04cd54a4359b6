//! English.

use super::{Label, Message, or_dash};

pub(super) fn text(message: &Message<'_>) -> String {
    match message {
        Message::NoDaemon { data } => {
            let data = data.display();
            format!("No enishi runs on {data}; `enishi up --data {data}` starts it.")
        }
        Message::DaemonForbidden { data } => format!(
            "The enishi on {} belongs to another user; run this command as that user, or name \
             your own data directory with --data.",
            data.display()
        ),
        Message::SocketPathUnfit { data, error } => format!(
            "The daemon on {} cannot be reached: {error}. Check the path given with --data.",
            data.display()
        ),
        Message::DaemonBroke { error } => format!(
            "The connection to the daemon broke off: {error}. Its log says more; try again."
        ),
        Message::DaemonSilent => {
            "The daemon stopped before it answered. Its log says more; try again.".to_owned()
        }
        Message::AnswerStrange => "The daemon's answer is not understood: it is of another \
            version than this command. Stop it with `enishi down` and start it again."
            .to_owned(),
        Message::PasswordUnreadable { name, error } => {
            format!("The password file {name} cannot be read: {error}.")
        }
        Message::PasswordUnfit { name, max } => format!(
            "The password file {name} must hold a password: UTF-8 text of 1 to {max} octets."
        ),
        Message::InputUnreadable { error } => format!("Standard input cannot be read: {error}."),
        Message::ValueTooLong { max } => format!(
            "A value may have {max} octets at most; store a larger one in parts, or a link to it."
        ),
        Message::TicketEmpty => "Standard input holds no invitation.".to_owned(),
        Message::Waiting => "waiting for the daemon".to_owned(),
        Message::Stopped => "The daemon stops.".to_owned(),
        Message::ChannelReady {
            name,
            address,
            interface,
        } => {
            let address = or_dash(*address);
            let device = interface.map_or_else(
                || "no network device".to_owned(),
                |interface| format!("network device {interface}"),
            );
            format!("In channel {name} this node has the address {address} ({device}).")
        }
        Message::ChannelLeft { name } => format!("This node has left channel {name}."),
        Message::NoChannels => "No channels; `enishi channel create NAME` makes one.".to_owned(),
        Message::NoPeers => {
            "No peers yet; start another node with `enishi up --bootstrap TICKET`, TICKET from \
             `enishi invite`."
                .to_owned()
        }
        Message::UseOverlayTicket { ticket } => format!(
            "On the other machine, or scanned from above:\n  enishi up --bootstrap {ticket}"
        ),
        Message::UseChannelTicket { ticket } => format!(
            "On the other machine, or scanned from above (who has it, may join):\n  \
             enishi channel join {ticket}"
        ),
        Message::Stored { replicas, seq } => {
            format!("Stored as version {seq}; {replicas} nodes hold it.")
        }
        Message::Removed => "Removed.".to_owned(),
        Message::Pong {
            sequence,
            rtt_ms,
            path,
        } => {
            format!("answer {sequence}: {rtt_ms:.2} ms, {path}")
        }
        Message::Lost { sequence } => format!("answer {sequence}: none in time"),
        Message::PingSummary {
            node,
            sent,
            received,
        } => {
            format!("{node}: {sent} sent, {received} received")
        }
        Message::RoundTrips { min, avg, p99, max } => format!(
            "round trip: min {min:.2} ms, mean {avg:.2} ms, 99 % {p99:.2} ms, max {max:.2} ms"
        ),
        Message::Hop {
            number,
            node,
            rtt_ms,
            path,
        } => {
            let rtt = rtt_ms.map_or_else(|| "-".to_owned(), |rtt_ms| format!("{rtt_ms:.2} ms"));
            format!("{number:>2}  {node}  {rtt:>10}  {path}")
        }
        Message::TraceIncomplete => {
            "The node in charge did not answer; the route ends here.".to_owned()
        }
        Message::StreamWaiting { service } => {
            format!("waiting for a stream to the service {service}")
        }
        Message::StreamBroke { error } => format!("The stream broke off: {error}."),
        Message::Joined { size, peers } => {
            format!("about {size} nodes, {peers} connected with this one")
        }
        Message::Clients { count: 1 } => "1 client".to_owned(),
        Message::Clients { count } => format!("{count} clients"),
        Message::NotJoined => "alone; `enishi up --bootstrap TICKET` joins others".to_owned(),
    }
}

pub(super) fn label(label: Label) -> &'static str {
    match label {
        Label::Node => "node",
        Label::Version => "version",
        Label::Uptime => "up for",
        Label::Overlay => "overlay",
        Label::Class => "class",
        Label::Addresses => "addresses",
        Label::Records => "records held",
        Label::Refused => "refused",
        Label::RefusedDetail => "(malformed, flooded, foreign packets)",
        Label::Dropped => "lost or dropped",
        Label::Channel => "channel",
        Label::Network => "network",
        Label::Address => "address",
        Label::Address6 => "address6",
        Label::Interface => "device",
        Label::Members => "members",
        Label::Role => "role",
        Label::Path => "path",
        Label::RoundTrip => "round trip",
        Label::Sent => "sent",
        Label::Received => "received",
        Label::Check => "check",
        Label::Time => "time",
        Label::Result => "result",
    }
}
