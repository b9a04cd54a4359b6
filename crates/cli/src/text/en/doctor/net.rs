//! What `enishi doctor net` says, in English.

use std::net::SocketAddr;

use enishi_api::{Finding, MappingLifetime, Nat};

use super::{router, said};
use crate::text::{Diagnosis, Message};

/// Words what was found out about the node's network.
pub(super) fn diagnosis(finding: &Finding, bad: bool) -> Diagnosis {
    match finding {
        Finding::Translation { nat, own } => translation(nat, own, bad),
        Finding::Lifetime(lifetime) => self::lifetime(lifetime, bad),
        Finding::Paths {
            datagrams,
            site,
            streams,
            relayed,
        } => said(
            "sessions",
            format!("{datagrams} by UDP, {site} more within the site, {streams} by TCP or HTTP, {relayed} by way of others"),
            match (datagrams + site + streams + relayed, bad) {
                (0, _) => Some(
                    "The node speaks with nobody: it does not get out of its network, or knows \
                     nobody there. If a proxy is used here, name it: `proxy` in the configuration.",
                ),
                (_, true) => Some(
                    "No UDP passes, so everything is slower. If the firewall is yours, let UDP out.",
                ),
                _ => None,
            },
        ),
        Finding::Proxies { routes } => said(
            "proxies",
            match routes.as_slice() {
                [] => "none".to_owned(),
                [only] if only == "direct" => "none is to be used".to_owned(),
                some => some.join(", "),
            },
            None,
        ),
        Finding::TurnServer(server) => {
            let how = super::super::text(&Message::TurnUsed { server });
            let is_silent = server.trouble.as_deref() == Some("silent");
            if bad && is_silent && !server.url.contains('?') {
                let advice = "Perhaps no UDP passes to it. By TCP it is used as `enishi turn use \
                              URL?transport=tcp`, if it takes that; then nodes come by it again.";
                return said("TURN server", format!("{}: {how}", server.url), Some(advice));
            }
            let advice = bad.then_some(
                "Nodes that nothing else reaches do not come by it. Name and password: `enishi turn use`; else ask who runs it.",
            );
            said("TURN server", format!("{}: {how}", server.url), advice)
        }
        Finding::Passage {
            way,
            took_ms,
            found,
        } => {
            let detail = format!("{way}: passes, answered after {took_ms} ms");
            let found = found.lines().filter(|line| !line.is_empty());
            let found: Vec<_> = found.map(|line| format!("\n      {line}")).collect();
            said("passage", detail + &found.concat(), None)
        }
        Finding::Blocked { ways } => said(
            "blocked",
            format!("does not pass: {}", ways.join(", ")),
            bad.then_some("Nothing passes but what the sessions use. If this is your firewall, let out UDP, or TCP to port 443."),
        ),
        _ => said(
            "passage",
            "no peer is known with whom it could be tried what passes",
            Some("Once the node has joined, ask again: some member must be reached from outside."),
        ),
    }
}

fn translation(nat: &Nat, own: &[SocketAddr], bad: bool) -> Diagnosis {
    let own: Vec<String> = own.iter().map(ToString::to_string).collect();
    let seen: Vec<String> = nat.observed.iter().map(ToString::to_string).collect();
    let what = match nat.mapping.as_str() {
        "none" => "the node's own address is seen outside: nothing is in between".to_owned(),
        "endpoint-independent" => format!(
            "a router gives the node one outer address for all ({}): others reach it straight once both have spoken",
            seen.join(", ")
        ),
        "sequential" => {
            "a router gives it another port for each destination, one after the other: \
                         ways straight through are guessed, mostly with success"
                .to_owned()
        }
        "random" => "a router gives it another port for each destination, drawn: ways straight \
                     through are tried by many ports at once, or else lead by way of others"
            .to_owned(),
        _ => "too few have told where they see the node (three are needed)".to_owned(),
    };
    said(
        "translation",
        format!("{}; {what}{}", own.join(", "), router(nat)),
        bad.then_some(
            "Switch UPnP, NAT-PMP or PCP on at the router, or forward the node's UDP port: then \
             everybody reaches it straight.",
        ),
    )
}

fn lifetime(lifetime: &MappingLifetime, bad: bool) -> Diagnosis {
    let what = match lifetime.translated {
        true => "the router",
        false => "a firewall",
    };
    let every = lifetime.keep_alive_ms as f64 / 1e3;
    let kept = format!("silent ways are used every {every} s to keep them open");
    let detail = match (lifetime.at_least_s, lifetime.less_than_s) {
        _ if lifetime.unlimited => "nothing is in between that forgets silent ways".to_owned(),
        (Some(0), Some(less)) => {
            format!("{what} forgets a silent way in less than {less} s; {kept}")
        }
        (Some(least), Some(less)) => {
            format!("{what} forgets a silent way after {least} to {less} s; {kept}")
        }
        (Some(least), None) if lifetime.measuring => {
            format!("{what} keeps a silent way open for {least} s or more; still being measured")
        }
        (Some(least), None) => {
            format!("{what} keeps a silent way open for {least} s or more; {kept}")
        }
        (None, _) if lifetime.measuring => "being measured; ask again in some minutes".to_owned(),
        (None, _) => {
            "not known how long silent ways stay open: no node that is reached could help \
                      to find it out; it is tried again"
                .to_owned()
        }
    };
    said(
        "lifetime",
        detail,
        bad.then_some(
            "Two minutes are the least that a router should have (RFC 4787). If it is yours, set its UDP \
             timeout to that or more: idle nodes then send less.",
        ),
    )
}
