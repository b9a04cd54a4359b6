//! English.

pub(super) mod doctor;
mod gateway;
mod verify;

use super::{Label, Message, loss, or_dash, percent};

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
        Message::DaemonStuck => "The daemon is there and takes no request: it is stopped, or \
            stuck. End its process and start it again with `enishi up`; what it has stored \
            stays."
            .to_owned(),
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
        Message::FounderLeaves { name } => format!(
            "This node has founded channel {name} and alone holds its authority: when it leaves, \
             nobody can name administrators or remove one any more, and it cannot come back as the \
             founder. Name others first, who then invite and remove without it: `enishi channel \
             admin {name} MEMBER`. To leave all the same: `enishi channel leave {name} --force`."
        ),
        Message::NoOffers => "No member offers a service; `enishi channel offer CHANNEL \
            _http._tcp 80` offers one."
            .to_owned(),
        Message::Counted { members: 0, .. } => {
            "There is no other member who could receive a message.".to_owned()
        }
        Message::Counted { received, members } => {
            format!("{received} of {members} other members received a message to all.")
        }
        Message::Discovery { name, on: true } => format!(
            "Programs of this host that choose no device look for others in channel {name}."
        ),
        Message::Discovery { name, on: false } => format!(
            "Programs of this host that choose no device do not look for others in channel {name}."
        ),
        Message::NoRoutes => {
            "No member offers a network; `enishi route share CHANNEL NETWORK` offers one."
                .to_owned()
        }
        Message::NoWireGuardClients => {
            "No WireGuard clients; `enishi channel wireguard add CHANNEL CLIENT` adds one."
                .to_owned()
        }
        Message::UseWireGuard { channel, client } => format!(
            "Scan the code with WireGuard on the phone, or save the lines as {channel}.conf for \
             `wg-quick up`. They hold a secret key that is nowhere else.\nTo cut the client off:\n  \
             enishi channel wireguard remove {channel} {client}"
        ),
        Message::UseTurn { port, realm } => format!(
            "User and password for a TURN client; they are shown once. The server is at UDP port \
             {port} of this node, the realm is {realm}."
        ),
        Message::TurnIsOff => "This node is no TURN server: `listen = \"0.0.0.0:3478\"` in the \
            table [turn] of the configuration turns it on."
            .to_owned(),
        Message::TurnUsed { server } => {
            if let Some(relayed) = server.relayed {
                return format!("relays for {relayed}");
            }
            let error = server.error.as_deref().unwrap_or_default();
            match (server.trouble.as_deref().unwrap_or_default(), server.code) {
                ("waiting", _) => "has not answered yet".to_owned(),
                ("no-address", _) => "its name has no address".to_owned(),
                ("unreachable", _) => format!("not reached: {error}"),
                ("silent", _) => "does not answer".to_owned(),
                ("forgotten", _) => "was restarted, and is asked again".to_owned(),
                (_, Some(401)) => "refuses name or password (401)".to_owned(),
                (_, Some(486)) => "this user has too many allocations (486)".to_owned(),
                (_, Some(508)) => "has no room (508)".to_owned(),
                (_, Some(code)) => format!("refuses ({code})"),
                (other, None) => other.to_owned(),
            }
        }
        Message::TurnKeptTrying { server } => {
            let (url, how) = (&server.url, text(&Message::TurnUsed { server }));
            format!(
                "{url} does not relay for this node: {how}. It is kept, and tried again. The same command \
                 with another password replaces it; `enishi turn forget {url}` ends it."
            )
        }
        Message::NoChannels => "No channels; `enishi channel create NAME` makes one.".to_owned(),
        Message::ForwardAdded { id, way } => format!("Forward {id}: {way}."),
        Message::ForwardRemoved { id } => format!("Forward {id} is removed."),
        Message::NoProxies => "No proxy is named: connections go straight. `enishi proxy tell` \
            tells the daemon what your desktop says."
            .to_owned(),
        Message::ProxyFound { by } => format!("Found by {by}:"),
        Message::ProxyNotFound => "Your desktop and your session name no proxy; what was told \
            before is forgotten."
            .to_owned(),
        Message::ProxyInputUnfit => {
            "Standard input does not hold what `enishi proxy tell --print` \
            prints."
                .to_owned()
        }
        Message::ProxyAnswer {
            url,
            routes,
            source,
            bypass,
            pac,
        } => match (source, bypass, pac) {
            (None, ..) => format!("{url} goes straight: nobody names a proxy."),
            (Some(source), Some(entry), _) => {
                format!("{url} goes straight: {entry} takes no proxy ({source}).")
            }
            (Some(source), None, Some(pac)) => {
                format!("{url} takes {routes}: asked was the PAC file {pac} ({source}).")
            }
            (Some(source), None, None) => format!("{url} takes {routes} ({source})."),
        },
        Message::CompanySigned { signature, key } => format!(
            "The signature is in {signature}; it belongs beside the file. The nodes' configuration \
             needs:\ncompany_key = \"{key}\""
        ),
        Message::NoForwards => "No forwards; `enishi forward add CHANNEL` makes one.".to_owned(),
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
        Message::UseGovernedTicket {
            name,
            ticket,
            uses,
            revoke,
        } => {
            let uses = nodes(*uses);
            format!(
                "On the other machine, or scanned from above ({uses}; who has it, may join):\n  \
                 enishi channel join {ticket}\nTo take it back:\n  \
                 enishi channel revoke {name} {revoke}"
            )
        }
        Message::InvitationNotStored => {
            "The overlay has not taken the invitation yet, for too few \
            nodes answer; this node goes on trying. It cannot be used before."
                .to_owned()
        }
        Message::NoInvitations { name } => format!(
            "This node has no open invitation to the channel; `enishi channel invite {name}` makes \
             one."
        ),
        Message::InvitationRevoked => "Revoked: nobody can join by it any more. Who came by it \
            stays; `enishi channel remove` removes a member."
            .to_owned(),
        Message::ChannelFounded { name } => format!(
            "This node has founded the channel: it decides who is an administrator. `enishi channel \
             invite {name}` lets others in."
        ),
        Message::MemberRemoved {
            name,
            member,
            invitation,
        } => {
            let removed = format!(
                "{member} is removed from channel {name}, which has a new secret; members that are \
                 away hear of it when they come back."
            );
            match invitation {
                Some(key) => format!(
                    "{removed}\nThe invitation by which it came is open: whoever has it can come \
                     by it with another node. To end it:\n  enishi channel revoke {name} {key}"
                ),
                None => removed,
            }
        }
        Message::MemberStands {
            member,
            role,
            admin,
        } => {
            let standing = if *admin {
                "an administrator"
            } else {
                "a member"
            };
            let role = role.map_or_else(
                || "without a role".to_owned(),
                |role| format!("with the role {role}"),
            );
            format!("{member} is {standing} {role}.")
        }
        Message::NoRules => {
            "No rules: every member may reach everything of every other.".to_owned()
        }
        Message::RulesBind => "Only what these rules name may be begun; the answers to it pass. \
            Everything else is refused."
            .to_owned(),
        Message::ChannelTitle { name } => format!("Channel {name} as this node sees it"),
        Message::ChannelSummary { known, online } => {
            format!("{known} known, in touch with {online}, this node included")
        }
        Message::MembersOmitted { count } => format!("{count} more are not drawn"),
        Message::Charter { version, epoch } => {
            format!("version {version}, with secret number {epoch}")
        }
        Message::UseClosedTicket {
            ticket,
            uses,
            revoke,
        } => {
            let uses = nodes(*uses);
            let join = format!(
                "On the other machine, or scanned from above ({uses}; who has it, may join):\n  \
                 enishi overlay join {ticket}\n  enishi up"
            );
            match revoke {
                Some(key) => format!("{join}\nTo take it back:\n  enishi overlay revoke {key}"),
                None => join,
            }
        }
        Message::OverlayCreated { name, key } => match key {
            Some(key) => format!(
                "The closed overlay {name} is made; `enishi up` runs this node in it.\nKeep a copy \
                 of {key} in a safe place: who has it decides who is a member, and without it \
                 nobody can be invited or removed."
            ),
            None => format!(
                "The closed overlay {name} is made; `enishi up` runs this node in it.\nAll members \
                 share its secret: nobody can be removed."
            ),
        },
        Message::OverlayJoined { name } => format!(
            "This node is a member of the closed overlay {name}; `enishi up` runs it there."
        ),
        Message::OverlayLeft { name } => format!(
            "This node has left the closed overlay {name}; what it kept there stays in its data \
             directory."
        ),
        Message::OverlayRevoked => "Revoked; the other members hear of it from each other. A \
            member that is away hears of it when it comes back."
            .to_owned(),
        Message::Membership {
            refusal: Some(refusal),
            ..
        } => format!("refused by the other members: {refusal}"),
        Message::Membership {
            days, is_authority, ..
        } => {
            let role = if *is_authority {
                "member with the authority's key"
            } else {
                "member"
            };
            days.map_or_else(
                || role.to_owned(),
                |days| format!("{role}, for {days} more days"),
            )
        }
        Message::Stored { replicas, seq } => {
            let nodes = if *replicas == 1 {
                "1 node holds"
            } else {
                &format!("{replicas} nodes hold")
            };
            format!("Stored as version {seq}; {nodes} it.")
        }
        Message::Removed => "Removed.".to_owned(),
        Message::Pong {
            sequence,
            rtt_ms,
            path,
        } => {
            format!("answer {sequence}: {rtt_ms:.2} ms, {path}")
        }
        Message::Lost { sequence } => format!("answer {sequence}: none"),
        Message::PingSummary {
            node,
            sent,
            received,
        } => {
            let lost = loss(*sent, *received);
            format!("{node}: {sent} sent, {received} received, {lost} lost")
        }
        Message::RoundTrips {
            min,
            avg,
            mdev,
            p99,
            max,
        } => format!(
            "round trip: min {min:.2} ms, mean {avg:.2} ms, deviation {mdev:.2} ms, 99 % {p99:.2} \
             ms, max {max:.2} ms"
        ),
        Message::Remote {
            version,
            load_per_mille,
        } => {
            let load = percent(*load_per_mille);
            format!("the node: version {version}, load {load} of a core")
        }
        Message::RemoteDeclines => "the node: declines to say how it is".to_owned(),
        Message::TraceAnswered {
            node,
            answered,
            probes,
        } => format!("{answered} of {probes} probes were answered, by {node}."),
        Message::TraceIncomplete => {
            "The node in charge did not answer; the route ends here. `enishi doctor` checks \
             whether this node is well."
                .to_owned()
        }
        Message::TraceMissed => {
            "Another node is in charge of that place: the node itself is gone, has never been \
             there, or is a client. `enishi ping` asks the node itself."
                .to_owned()
        }
        Message::HeldValue { seq, age_s } => {
            format!("version {seq}, its owner last heard {age_s} s ago")
        }
        Message::Holders { with, asked } => {
            format!("{with} of the {asked} nodes nearest to the key hold it:")
        }
        Message::Verdict { verdict, is_key } => verify::verdict(*verdict, *is_key).to_owned(),
        Message::VerdictAdvice { verdict, is_key } => verify::advice(*verdict, *is_key).to_owned(),
        Message::CrowdedAdvice { is_key } => verify::crowded(*is_key).to_owned(),
        Message::Paths {
            all_known,
            agreeing,
            paths,
        } => verify::paths(*all_known, *agreeing, *paths),
        Message::Shown { seq, holders } => verify::shown(*seq, *holders),
        Message::Examining => "checking the node".to_owned(),
        Message::Examined {
            ok,
            warnings,
            problems,
        } => format!(
            "{ok} well, {} and {}.",
            count(*warnings, "warning"),
            count(*problems, "problem")
        ),
        Message::MapTitle { node } => format!("The overlay as {node} sees it"),
        Message::MapSummary { known, estimate } => {
            format!("{known} nodes known, about {estimate} in the overlay")
        }
        Message::MapTwice => {
            "Standard output takes the drawing or the JSON object: name a file for the drawing."
                .to_owned()
        }
        Message::MapWritten { file } => format!("The drawing is in {file}."),
        Message::SimCost {
            events_per_second,
            memory_bytes_per_node,
        } => {
            let memory =
                memory_bytes_per_node.map(|bytes| format!(", {bytes} bytes of memory a node"));
            let memory = memory.unwrap_or_default();
            format!("{events_per_second:.0} events a second{memory}")
        }
        Message::Times { elapsed, left } => format!("{elapsed} so far, {left} left"),
        Message::FileUnwritable { file, error } => {
            format!("The file {file} cannot be written: {error}. Name another with --svg.")
        }
        Message::StreamWaiting { service } => {
            format!("waiting for a stream to the service {service}")
        }
        Message::StreamBroke { error: Some(error) } => {
            format!("The stream broke off: {error}. What came until then is not all of it.")
        }
        Message::StreamBroke { error: None } => "The stream broke off before its end: the other \
            program, a node or the way between them stopped. What came until then is not all of it."
            .to_owned(),
        Message::Gateway(message) => gateway::text(message),
        Message::Joined { size, peers } => {
            format!("about {size} nodes, {peers} connected with this one")
        }
        Message::Clients { count: 1 } => "1 client".to_owned(),
        Message::Clients { count } => format!("{count} clients"),
        Message::Relays { octets, pairs: 1 } => format!("{octets}, between 1 pair now"),
        Message::Relays { octets, pairs } => format!("{octets}, between {pairs} pairs now"),
        Message::ForwardsOpen { count, open: 1 } => format!("{count}, with 1 connection"),
        Message::ForwardsOpen { count, open } => format!("{count}, with {open} connections"),
        Message::NotJoined => "alone; `enishi up --bootstrap TICKET` joins others".to_owned(),
    }
}

fn nodes(uses: Option<u8>) -> String {
    match uses {
        Some(1) => "one node".to_owned(),
        Some(uses) => format!("{uses} nodes"),
        None => "any number of nodes".to_owned(),
    }
}

fn count(number: u32, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

pub(super) fn label(label: Label) -> &'static str {
    match label {
        Label::Node => "node",
        Label::Version => "version",
        Label::Uptime => "up for",
        Label::Overlay => "overlay",
        Label::Class => "class",
        Label::Addresses => "addresses",
        Label::Outside => "from outside",
        Label::Records => "records held",
        Label::Name => "name",
        Label::Names => "names",
        Label::Proxies => "proxies",
        Label::TakesProxy => "takes proxy",
        Label::Source => "source",
        Label::Says => "says",
        Label::Configuration => "configuration",
        Label::Company => "company",
        Label::Desktop => "desktop",
        Label::Environment => "environment",
        Label::Discovery => "discovery",
        Label::Forwards => "forwards",
        Label::Exit => "exit",
        Label::Routes => "routes",
        Label::WireGuard => "WireGuard",
        Label::TurnServer => "TURN server",
        Label::Realm => "realm",
        Label::Users => "users",
        Label::User => "user",
        Label::Allocations => "allocations",
        Label::ToPeers => "to peers",
        Label::ToClients => "to clients",
        Label::Peers => "peers",
        Label::Carried => "passed on for others",
        Label::Relays => "packets for others",
        Label::Refused => "refused",
        Label::RefusedDetail => "(malformed, flooded, foreign packets)",
        Label::Dropped => "lost or dropped",
        Label::Channel => "channel",
        Label::Network => "network",
        Label::Address => "address",
        Label::Address6 => "address6",
        Label::Interface => "device",
        Label::Service => "service",
        Label::Port => "port",
        Label::OfferedBy => "offered by",
        Label::Texts => "to know",
        Label::UsedBy => "used by way of",
        Label::ThisNode => "this node",
        Label::Client => "client",
        Label::Endpoint => "heard from",
        Label::Handshake => "last handshake",
        Label::AddressLost => "its address was lost",
        Label::NobodyOffers => "nobody offers it",
        Label::RulesBar => "barred by rules",
        Label::Members => "members",
        Label::Online => "in touch",
        Label::Host => "host",
        Label::Standing => "standing",
        Label::Founder => "founder",
        Label::Administrator => "administrator",
        Label::Member => "member",
        Label::Charter => "charter",
        Label::Rules => "rules",
        Label::Rule => "rule",
        Label::From => "from",
        Label::To => "to",
        Label::Ports => "ports",
        Label::Everything => "everything",
        Label::Invitation => "invitation",
        Label::Uses => "uses",
        Label::Any => "any",
        Label::Ends => "ends in",
        Label::CameBy => "came by it",
        Label::InSession => "in the session",
        Label::NotInTouch => "not in touch",
        Label::Role => "role",
        Label::Path => "path",
        Label::RoundTrip => "round trip",
        Label::Sent => "sent",
        Label::Received => "received",
        Label::Check => "check",
        Label::Time => "time",
        Label::Result => "result",
        Label::Id => "id",
        Label::Authority => "authority",
        Label::Membership => "this node",
        Label::Admitted => "admitted now",
        Label::TurnedAway => "turned away (messages / proofs)",
        Label::Revoked => "revoked",
        Label::Hop => "hop",
        Label::State => "state",
        Label::Mean => "mean",
        Label::Loss => "loss",
        Label::Load => "load",
        Label::ToNext => "to the next",
        Label::Reported => "reports",
        Label::GaveBack => "gave back",
        Label::Declined => "declined",
        Label::Forwarding => "forwards",
        Label::Open => "open",
        Label::Works => "works",
        Label::Lost => "lost",
        Label::InCharge => "in charge",
        Label::InChargeDeclined => "in charge, declined",
        Label::Direct => "direct",
        Label::Relayed => "relayed",
        Label::Unconnected => "not connected yet",
        Label::Itself => "this node",
        Label::Unknown => "unknown",
        Label::Holder => "holder",
        Label::Held => "holds",
        Label::Key => "key",
        Label::PathsAgreeing => "paths",
        Label::NodesAsked => "nodes asked",
        Label::Record => "record",
        Label::Owner => "owner",
        Label::Density => "nodes near it",
        Label::Unusual => "unnaturally close to it, or far from it",
        Label::AsElsewhere => "as close as elsewhere",
        Label::Nearest => "nearest",
        Label::Blank => "",
        Label::Removed => "the mark of a removal",
        Label::Nothing => "nothing",
        Label::Silent => "no answer",
        Label::Ok => "ok",
        Label::Warning => "warning",
        Label::Problem => "problem",
        Label::Position => "position",
        Label::Near => "near neighbour",
        Label::Long => "long link",
        Label::Known => "known from a peer",
        Label::Found => "found by asking",
        Label::Consent => "consent",
        Label::Gateway => "gateway",
        Label::OtherOverlay => "other overlay",
        Label::LetOut => "lets out",
        Label::LetIn => "lets in",
        Label::Limits => "limits",
        Label::Document => "document",
        Label::Takes => "takes",
        Label::Gives => "gives",
        Label::Everybody => "everybody",
        Label::Counts => "counts",
    }
}
