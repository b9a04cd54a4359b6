//! What `enishi doctor` says, in English.

mod net;

use enishi_api::{BootstrapSource, Check, Finding, Nat, Outcome, ValueStep};

use crate::text::{Diagnosis, octets, or_dash, protocols};

/// Words whether the daemon is there.
pub(crate) fn daemon(problem: Option<&str>) -> Diagnosis {
    match problem {
        None => said("daemon", "it runs and answers", None),
        Some(reason) => said(
            "daemon",
            reason,
            Some("Nothing else can be checked before it runs. If it does not start, it says why."),
        ),
    }
}

/// Words a check.
pub(crate) fn diagnosis(check: &Check) -> Diagnosis {
    let Check { outcome, finding } = check;
    let bad = *outcome != Outcome::Ok;
    match finding {
        Finding::DataDirectory {
            path,
            error,
            free_bytes,
        } => directory(path, error.as_deref(), *free_bytes, bad),
        Finding::Files { open, limit } => said(
            "open files",
            format!("{open} of {limit} are in use"),
            bad.then_some(
                "Give the daemon more, for example `ulimit -n 4096` before `enishi up`, or \
                 LimitNOFILE=4096 in its unit.",
            ),
        ),
        Finding::Neighbours {
            near,
            long,
            seeking,
        } => neighbours(*near, *long, *seeking),
        Finding::Bootstrap { sources } => bootstrap(sources, bad),
        Finding::Position { .. } => position(finding),
        Finding::Values {
            failed,
            replicas,
            time_ms,
        } => values(*failed, *replicas, *time_ms),
        Finding::Size { estimate, known } => said(
            "size",
            format!("about {estimate} nodes in the overlay; {known} of them known"),
            bad.then_some(
                "The estimate is far too low. Just after a start that passes; otherwise the ring \
                 around this node is not whole: try again in a minute.",
            ),
        ),
        Finding::Clock {
            stepped_s,
            ahead_s,
            peers,
        } => clock(*stepped_s, *ahead_s, *peers, bad),
        Finding::Addresses { .. } => addresses(finding, bad),
        Finding::Sessions { direct, relayed } => said(
            "sessions",
            format!("{direct} direct, {relayed} relayed"),
            bad.then_some(
                "No peer is reached directly, which is slow for all. Let UDP pass the firewall, or \
                 forward the port of `listen`.",
            ),
        ),
        Finding::Packets {
            port,
            direct,
            by_session,
        } => said(
            "packets",
            format!(
                "UDP port {port}; straight to {direct} members, by their sessions to {by_session}"
            ),
            bad.then_some(
                "Packets by sessions are slower. Let the port pass the firewall for UDP, on both \
                 sides. In the first seconds it may just not be found out yet.",
            ),
        ),
        Finding::Channel { .. } => channel(finding, bad),
        Finding::Members {
            channel,
            asked,
            silent,
        } => members(channel, *asked, silent),
        Finding::Names { .. } => names(finding),
        Finding::Records { held, own } => said(
            "records",
            format!("{held} kept for the overlay; {own} of its own there"),
            None,
        ),
        Finding::Refused {
            count,
            uptime_s,
            most,
        } => said(
            "refused",
            match count {
                0 => "nothing since the start".to_owned(),
                _ => format!("{count} in {} min, mostly {most}", uptime_s / 60),
            },
            bad.then_some(
                "Somebody sends what this node does not take: a node of another version, or one \
                 that means harm. `enishi status` shows all counters.",
            ),
        ),
        Finding::Notice { text } => said("notice", text, None),
        Finding::Translation { .. }
        | Finding::Lifetime(_)
        | Finding::Paths { .. }
        | Finding::Proxies { .. }
        | Finding::TurnServer(_)
        | Finding::Passage { .. }
        | Finding::Blocked { .. }
        | Finding::NoPassage => net::diagnosis(finding, bad),
    }
}

fn directory(path: &str, error: Option<&str>, free: Option<u64>, bad: bool) -> Diagnosis {
    let free = or_dash(free.map(octets));
    match error {
        Some(error) => said(
            "data directory",
            format!("{path} cannot be written: {error}"),
            Some(
                "Make room on the disk, or see to it that the daemon's user may write there. Until \
                 then nothing new is kept.",
            ),
        ),
        None => said(
            "data directory",
            format!("{path} can be written; {free} free"),
            bad.then_some("Make room on the disk before it is full."),
        ),
    }
}

fn neighbours(near: u32, long: u32, seeking: bool) -> Diagnosis {
    let title = "neighbours";
    match (near, seeking) {
        (0, true) => said(
            title,
            "none; other nodes are known, and none of them answers",
            Some(
                "Check the network, and whether a firewall stops UDP. If the others have moved, \
                 get a new invitation: `enishi up --bootstrap TICKET`.",
            ),
        ),
        (0, false) => said(
            title,
            "none: this node is alone",
            Some(
                "Join others with `enishi up --bootstrap TICKET`, TICKET from `enishi invite` there.",
            ),
        ),
        _ => said(
            title,
            format!("{near} on the ring, {long} long links"),
            None,
        ),
    }
}

fn bootstrap(sources: &[BootstrapSource], bad: bool) -> Diagnosis {
    let one = |source: &BootstrapSource| {
        let name = match source.source.as_str() {
            "invitation" => "invitations",
            "earlier-runs" => "earlier runs",
            "local-network" => "the local network",
            "dns-list" => "lists in the DNS",
            "mainline" => "the Mainline DHT",
            other => other,
        };
        match &source.error {
            Some(error) if source.found == 0 => format!("{name} none ({error})"),
            _ => format!(
                "{name} {}, {} of them peers now",
                source.found, source.peers
            ),
        }
    };
    let told: Vec<String> = sources.iter().map(one).collect();
    said(
        "found by",
        told.join("; "),
        bad.then_some(
            "Nobody was found. Check the names, addresses and ports in the configuration, and \
             whether a firewall stops UDP, or mDNS (port 5353) in the local network.",
        ),
    )
}

fn position(finding: &Finding) -> Diagnosis {
    let Finding::Position {
        asked,
        agree,
        disagree,
        strangers,
    } = finding
    else {
        return said("position", "", None);
    };
    let who = if *strangers {
        "strangers"
    } else {
        "neighbours (there are no strangers)"
    };
    let silent = asked.saturating_sub(agree + disagree);
    let detail = format!(
        "of {asked} {who}, {agree} found this node at its position, {disagree} did not, {silent} \
         did not say"
    );
    let advice = match (agree, disagree) {
        (0, 0) => Some("Nobody looked. They may decline, or be gone: try again in a minute."),
        (0, _) => Some(
            "Others do not find this node, so it misses what is sent to it. Just after a start or \
             a split that passes; otherwise restart it, and check that UDP comes in.",
        ),
        (_, 0) => None,
        _ => Some("The ring is changing, or a node answers wrongly: try again in a minute."),
    };
    said("position", detail, advice)
}

fn values(failed: Option<ValueStep>, replicas: u32, time_ms: u64) -> Diagnosis {
    let title = "storage";
    match failed {
        None => said(
            title,
            format!(
                "a value was stored on {replicas} nodes at least, read and removed in {time_ms} ms"
            ),
            None,
        ),
        Some(ValueStep::Put) => said(
            title,
            "a value could not be stored in the overlay",
            Some(
                "Too few of the nodes in charge answer, or they have no room. See the checks of \
                 neighbours and position; try again in a minute.",
            ),
        ),
        Some(ValueStep::Get) => said(
            title,
            "a value that was stored could not be read back",
            Some("The nodes in charge change, or do not keep it: try again in a minute."),
        ),
        Some(ValueStep::Remove) => said(
            title,
            "a value was stored and read, but not removed",
            Some("It ends by itself within a minute. Try again then."),
        ),
    }
}

fn clock(stepped_s: i64, ahead_s: Option<i64>, peers: u32, bad: bool) -> Diagnosis {
    let detail = match ahead_s {
        Some(ahead) if ahead < 0 => format!("{} s behind {peers} peers", -ahead),
        Some(ahead) => format!("{ahead} s ahead of {peers} peers"),
        None => "no peer tells its own".to_owned(),
    };
    let detail = match stepped_s {
        0 => detail,
        _ => format!("{detail}; set by {stepped_s} s since the start"),
    };
    said(
        "clock",
        detail,
        bad.then_some(
            "Set the clock (a service such as chrony or systemd-timesyncd keeps it right), then \
             restart the daemon. A wrong one may make values of this node lose against older ones.",
        ),
    )
}

fn addresses(finding: &Finding, bad: bool) -> Diagnosis {
    let Finding::Addresses { own, seen, nat } = finding else {
        return said("addresses", "", None);
    };
    let title = "addresses";
    let own_text: Vec<String> = own.iter().map(ToString::to_string).collect();
    let own_text = own_text.join(", ");
    if own.is_empty() {
        let advice = "Nobody can dial this node. Check `listen` in its configuration, and whether \
                      a network is up.";
        return said(title, "none", Some(advice));
    }
    let seen_text: Vec<String> = seen
        .iter()
        .map(|sighting| format!("{} ({} peers)", sighting.address, sighting.peers))
        .collect();
    let seen_text = match seen_text.is_empty() {
        true => "not known how peers see it".to_owned(),
        false => format!("peers see it at {}", seen_text.join(", ")),
    };
    let loopback = own.iter().all(|address| address.ip().is_loopback());
    let advice = if loopback {
        "Only nodes on this machine can reach it. Listen on a network: `listen` in the \
         configuration."
    } else {
        "The node is behind a NAT: others reach it once it has dialled them. If it is to be dialled \
         by anybody, forward the UDP port on the router."
    };
    said(
        title,
        format!("{own_text}; {seen_text}{}", router(nat)),
        bad.then_some(advice),
    )
}

/// Whether a router maps ports on request.
fn router(nat: &Nat) -> String {
    let Some(router) = nat.router else {
        return String::new();
    };
    let spoken = protocols(router);
    match nat.mapped {
        Some(mapped) => format!("; the router maps {mapped} to it ({spoken})"),
        None if spoken.is_empty() => "; the router maps no ports on request".to_owned(),
        None => format!("; the router refuses to map a port ({spoken})"),
    }
}

fn channel(finding: &Finding, bad: bool) -> Diagnosis {
    let Finding::Channel {
        name,
        address,
        interface,
        up,
        devices,
        notice,
    } = finding
    else {
        return said("channel", "", None);
    };
    let device = match (interface, up) {
        (Some(interface), Some(false)) => format!("device {interface}, which is down"),
        (Some(interface), _) => format!("device {interface}"),
        (None, _) => "no device".to_owned(),
    };
    let notice_text = notice.as_ref().map(|notice| format!("; {notice}"));
    let detail = format!(
        "{name}: address {}, {device}{}",
        or_dash(address.as_ref()),
        notice_text.unwrap_or_default()
    );
    let advice = if address.is_none() {
        Some(
            "No address is held yet. It takes some seconds after a start; if it stays so, look at \
             the checks of neighbours and storage."
                .to_owned(),
        )
    } else if *up == Some(false) {
        let interface = or_dash(interface.as_ref());
        Some(format!(
            "Bring it up: `ip link set {interface} up`, or restart the daemon."
        ))
    } else if interface.is_none() && *devices {
        Some(
            "IP packets do not flow. Run the daemon as root or with the capability CAP_NET_ADMIN, \
             and see to it that /dev/net/tun is there."
                .to_owned(),
        )
    } else {
        None
    };
    Diagnosis {
        title: "channel",
        detail,
        advice: advice.filter(|_| bad),
    }
}

fn names(finding: &Finding) -> Diagnosis {
    let Finding::Names {
        how,
        listening,
        asked,
        found,
        notice,
    } = finding
    else {
        unreachable!("only names are told here");
    };
    let listening: Vec<String> = listening.iter().map(ToString::to_string).collect();
    let detail = match (asked, found) {
        (Some(asked), true) => format!("by {how}; {asked} leads to this host"),
        (Some(asked), false) => format!("by {how}, but {asked} does not lead to this host"),
        (None, _) if listening.is_empty() && notice.is_none() => {
            "none to serve yet: there is no channel".to_owned()
        }
        (None, _) => format!("by {how}; served at {}", listening.join(", ")),
    };
    let advice = match (asked, found) {
        (Some(asked), false) => Some(format!(
            "`dig @{} {asked}` tells whether this node answers; if it does, another program has \
             changed the system's resolver.",
            listening
                .first()
                .map_or("ADDRESS", |first| first.trim_end_matches(":53"))
        )),
        _ => None,
    };
    said("names", detail, notice.clone().or(advice).as_deref())
}

fn members(channel: &str, asked: u32, silent: &[String]) -> Diagnosis {
    let answered = asked.saturating_sub(u32::try_from(silent.len()).unwrap_or(u32::MAX));
    let detail = format!("{channel}: {answered} of {asked} others answer");
    if silent.is_empty() {
        return said("members", detail, None);
    }
    let detail = format!("{detail}; silent: {}", silent.join(", "));
    said(
        "members",
        detail,
        Some("They may be switched off. If one is not, run `enishi doctor` there."),
    )
}

fn said(title: &'static str, detail: impl Into<String>, advice: Option<&str>) -> Diagnosis {
    Diagnosis {
        title,
        detail: detail.into(),
        advice: advice.map(str::to_owned),
    }
}
