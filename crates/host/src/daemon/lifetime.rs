//! When it is measured for how long the site's router keeps the mapping of a silent socket: once this
//! node knows nodes that help, and again when its addresses are others.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use enishi_api::MappingLifetime;
use enishi_services::Node;
use enishi_services::vnet::Channel;
use enishi_services::vnet::routes::Prefix;
use enishi_stun::{IDLE_S, Lifetime};
use tokio::sync::watch;

use super::desk::Desk;
use crate::reach::{Kept, measure};

/// How often it is looked whether there are nodes that help.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);

/// How soon it is tried again in vain: twice as long each time.
const RETRY_FIRST: Duration = Duration::from_secs(15);
const RETRY_INTERVAL: Duration = Duration::from_secs(600);

/// How soon it is measured again at all: a router may be set otherwise.
const REPEAT_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Measures until the daemon stops.
pub(super) async fn keep(desk: Desk) {
    let mut local = desk.sessions.watch_local_addresses();
    let stop = desk.ending.stop.clone();
    let mut retry = RETRY_FIRST;
    loop {
        local.mark_unchanged();
        let changed = async {
            // The sessions end with the daemon.
            if local.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = changed => {
                retry = RETRY_FIRST;
                tell(&desk, Kept::default());
            }
            () = attempt(&desk, &mut retry) => {}
        }
    }
}

/// Measures once, and waits until it is worth while again.
async fn attempt(desk: &Desk, retry: &mut Duration) {
    let (servers, own) = loop {
        match desk.look(helpers).await {
            Ok(servers) if !servers.is_empty() => {
                break (servers, desk.sessions.local_addresses());
            }
            Ok(_) => tokio::time::sleep(LOOK_INTERVAL).await,
            // The daemon ends.
            Err(_) => return std::future::pending().await,
        }
    };
    let own = own.iter().map(SocketAddr::ip).collect::<Vec<IpAddr>>();
    // What was known is not forgotten because nobody helps this time, or not to the end.
    let before = desk.shared.kept.borrow().lifetime;
    let mut found = None;
    let measured = measure(&servers, own, |lifetime| {
        found = lifetime;
        let (lifetime, is_measuring) = (best(before, found), true);
        tell(
            desk,
            Kept {
                lifetime,
                is_measuring,
            },
        );
    });
    if let Err(error) = measured.await {
        tracing::debug!(%error, "no sockets to measure the lifetime of mappings");
    }
    tracing::debug!(?found, "the lifetime of mappings is measured");
    let (lifetime, is_measuring) = (best(before, found), false);
    tell(
        desk,
        Kept {
            lifetime,
            is_measuring,
        },
    );
    tokio::time::sleep(pause(found, retry)).await;
}

/// Tells whether a measurement has come to its end: nothing forgets, or it was seen when it does, or
/// that it does not within the longest silence that is tried.
fn is_conclusive(found: &Lifetime) -> bool {
    let longest = IDLE_S.into_iter().max().unwrap_or_default();
    match found {
        Lifetime::Unlimited => true,
        Lifetime::Kept {
            at_least,
            less_than,
            ..
        } => less_than.is_some() || *at_least >= Duration::from_secs(longest.into()),
    }
}

/// Returns what is to be believed: what was found unless it is inconclusive, and what was known before is not.
fn best(before: Option<Lifetime>, found: Option<Lifetime>) -> Option<Lifetime> {
    let conclusive = |lifetime: Option<Lifetime>| lifetime.filter(is_conclusive);
    let known = conclusive(found).or(conclusive(before));
    known.or(found).or(before)
}

/// Returns how long to wait for the next measurement, and doubles the pause after one in vain.
fn pause(found: Option<Lifetime>, retry: &mut Duration) -> Duration {
    if found.is_some_and(|found| is_conclusive(&found)) {
        *retry = RETRY_FIRST;
        return REPEAT_INTERVAL;
    }
    let pause = *retry;
    *retry = (pause * 2).min(RETRY_INTERVAL);
    pause
}

/// Returns who answers STUN's questions, of one family; nobody while all packets take an exit, which
/// has a router of its own.
fn helpers(node: &Node) -> Vec<SocketAddr> {
    let exits = |channel: &Channel| {
        let networks = &channel.accepted().networks;
        networks.iter().any(Prefix::is_everything)
    };
    if node.vnet().channels().any(|(_, channel)| exits(channel)) {
        return Vec::new();
    }
    let servers = node.reach().servers(node.overlay());
    let mut servers: Vec<SocketAddr> = servers.into_iter().map(|(_, at)| at).collect();
    // Where there are both, IPv4 is what is translated.
    if servers.iter().any(SocketAddr::is_ipv4) {
        servers.retain(SocketAddr::is_ipv4);
    }
    servers
}

fn tell(desk: &Desk, now: Kept) {
    let change = |kept: &mut Kept| std::mem::replace(kept, now) != now;
    if desk.shared.kept.send_if_modified(change) {
        desk.shared.networks.set_keep_alive(now.keep_alive());
    }
}

/// What is known, for people and programs.
pub(super) fn told(kept: &watch::Sender<Kept>) -> MappingLifetime {
    let kept = *kept.borrow();
    let mut told = MappingLifetime {
        measuring: kept.is_measuring,
        keep_alive_ms: kept.keep_alive().as_millis() as u64,
        ..MappingLifetime::default()
    };
    match kept.lifetime {
        Some(Lifetime::Kept {
            at_least,
            less_than,
            is_translated,
        }) => {
            told.at_least_s = Some(at_least.as_secs());
            told.less_than_s = less_than.map(|less| less.as_secs());
            told.translated = is_translated;
        }
        Some(Lifetime::Unlimited) => told.unlimited = true,
        None => {}
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(at_least_s: u64, less_than_s: Option<u64>) -> Option<Lifetime> {
        Some(Lifetime::Kept {
            at_least: Duration::from_secs(at_least_s),
            less_than: less_than_s.map(Duration::from_secs),
            is_translated: true,
        })
    }

    #[test]
    fn a_measurement_that_came_to_no_end_replaces_none_that_did() {
        let short = kept(10, Some(20));
        for before in [None, kept(5, None), short, Some(Lifetime::Unlimited)] {
            for found in [
                kept(28, Some(37)),
                kept(295, None),
                Some(Lifetime::Unlimited),
            ] {
                assert_eq!(best(before, found), found);
            }
            assert_eq!(best(before, None), before);
        }
        for found in [kept(0, None), kept(190, None)] {
            assert_eq!(best(short, found), short);
            assert_eq!(
                best(Some(Lifetime::Unlimited), found),
                Some(Lifetime::Unlimited)
            );
            // It is no more than what is known.
            assert_eq!(best(None, found), found);
            assert_eq!(best(kept(5, None), found), found);
        }
    }

    #[test]
    fn in_vain_it_is_tried_again_soon_and_then_ever_later() {
        let mut retry = RETRY_FIRST;
        let mut pauses_s = |found| pause(found, &mut retry).as_secs();
        let vain = [None, kept(28, None), None, None, None, None, None, None];
        let pauses = vain.map(&mut pauses_s);
        assert_eq!(pauses, [15, 30, 60, 120, 240, 480, 600, 600]);
        assert_eq!(pauses_s(kept(28, Some(37))), REPEAT_INTERVAL.as_secs());
        assert_eq!(pauses_s(None), 15);
    }
}
