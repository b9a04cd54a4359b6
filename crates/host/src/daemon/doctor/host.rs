//! The host: its disk, files and clock, its addresses and ways as others see them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use enishi_api::{Failure, Finding, Outcome, Sighting};

use super::{Echoes, Report};
use crate::daemon::desk::Desk;
use crate::daemon::{machine, status};
use crate::store::unix_s;

/// By how many seconds a clock may differ from those of others: versions of values follow
/// it, and an invitation's time.
const CLOCK_AHEAD_S_MAX: u64 = 60;

/// With less than this, in octets, the disk is about to be full.
const FREE_BYTES_MIN: u64 = 100 << 20;

pub(super) async fn directory(desk: &Desk, report: &mut Report<'_>) {
    let data = desk.shared.data.clone();
    let path = data.display().to_string();
    let tried = tokio::task::spawn_blocking(move || {
        let tried = machine::try_writing(&data).map_err(|error| error.to_string());
        (tried.err(), machine::free_bytes(&data))
    });
    let (error, free_bytes) = tried.await.unwrap_or_default();
    let outcome = match free_bytes {
        _ if error.is_some() => Outcome::Problem,
        Some(free) if free < FREE_BYTES_MIN => Outcome::Warning,
        Some(_) | None => Outcome::Ok,
    };
    let finding = Finding::DataDirectory {
        path,
        error,
        free_bytes,
    };
    report.tell(outcome, finding).await;
}

pub(super) async fn files(report: &mut Report<'_>) {
    let Some((open, limit)) = machine::open_files() else {
        return;
    };
    // Sessions share one socket; what comes in addition are streams of the commands.
    let outcome = match limit {
        0 => Outcome::Problem,
        _ if open >= limit - limit / 20 => Outcome::Problem,
        _ if open >= limit - limit / 5 || limit < 256 => Outcome::Warning,
        _ => Outcome::Ok,
    };
    report.tell(outcome, Finding::Files { open, limit }).await;
}

pub(super) async fn clock(desk: &Desk, echoes: &Echoes, report: &mut Report<'_>) {
    let stepped_s = difference(
        unix_s(),
        desk.shared.started_unix_s + desk.shared.started.elapsed().as_secs(),
    );
    let clocks = echoes
        .values()
        .flatten()
        .filter_map(|(here, echo)| Some(difference(*here, echo.detail?.unix_s)));
    let mut ahead: Vec<i64> = clocks.collect();
    // Seconds are cut off twice: one more or less says nothing.
    let stepped_s = if stepped_s.abs() > 1 { stepped_s } else { 0 };
    ahead.sort_unstable();
    let ahead_s = ahead.get(ahead.len() / 2).copied();
    let wrong = |seconds: i64| seconds.unsigned_abs() > CLOCK_AHEAD_S_MAX;
    let outcome = if wrong(stepped_s) || ahead_s.is_some_and(wrong) {
        Outcome::Warning
    } else {
        Outcome::Ok
    };
    let finding = Finding::Clock {
        stepped_s,
        ahead_s,
        peers: ahead.len() as u32,
    };
    report.tell(outcome, finding).await;
}

/// Returns by how much one number of seconds is more than another.
fn difference(one: u64, other: u64) -> i64 {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    signed(one).saturating_sub(signed(other))
}

pub(super) async fn addresses(
    desk: &Desk,
    echoes: &Echoes,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    let nat = status::nat(desk).await?;
    let echoes = echoes.values().flatten();
    let details = echoes.filter_map(|(_, echo)| echo.detail);
    let mut seen: BTreeMap<SocketAddr, u32> = BTreeMap::new();
    for address in details.filter_map(|detail| detail.seen_at) {
        *seen.entry(address).or_default() += 1;
    }
    // That peers see the node elsewhere does not mean that anybody can dial it there.
    let mut certain = desk.sessions.local_addresses();
    certain.extend(nat.mapped);
    let outcome = judge_addresses(&certain, &seen);
    let seen = seen.into_iter();
    let seen = seen.map(|(address, peers)| Sighting { address, peers });
    let finding = Finding::Addresses {
        own: desk.sessions.addresses(),
        seen: seen.collect(),
        nat: Box::new(nat),
    };
    report.tell(outcome, finding).await;
    Ok(())
}

/// Nobody dials a node without addresses; others only reach one that hides behind a
/// translated address when it has dialled them first.
fn judge_addresses(own: &[SocketAddr], seen: &BTreeMap<SocketAddr, u32>) -> Outcome {
    let seen_elsewhere = !seen.is_empty() && !own.iter().any(|address| seen.contains_key(address));
    if own.is_empty() {
        Outcome::Problem
    } else if seen_elsewhere || own.iter().all(|address| address.ip().is_loopback()) {
        Outcome::Warning
    } else {
        Outcome::Ok
    }
}

pub(super) async fn sessions(desk: &Desk, report: &mut Report<'_>) {
    let sessions = desk.sessions.sessions();
    let count = |kind| {
        sessions
            .iter()
            .filter(|session| session.kind == kind)
            .count() as u32
    };
    let direct = count(enishi_overlay::PathKind::Direct);
    let relayed = count(enishi_overlay::PathKind::Relayed);
    let outcome = match (direct, relayed) {
        (0, 1..) => Outcome::Warning,
        _ => Outcome::Ok,
    };
    report
        .tell(outcome, Finding::Sessions { direct, relayed })
        .await;
    let packets = desk.shared.networks.report().sessions;
    let direct = packets.iter().filter(|session| session.direct.is_some());
    let direct = direct.count() as u32;
    let by_session = packets.len() as u32 - direct;
    let outcome = match by_session {
        0 => Outcome::Ok,
        _ => Outcome::Warning,
    };
    let port = desk.shared.networks.port().unwrap_or(0);
    let finding = Finding::Packets {
        port,
        direct,
        by_session,
    };
    report.tell(outcome, finding).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_well_when_peers_see_one_of_them() {
        let [private, public, loopback] =
            ["10.0.0.1:1", "192.0.2.1:1", "127.0.0.1:1"].map(|text| text.parse().unwrap());
        let seen = |address: SocketAddr| BTreeMap::from([(address, 2)]);
        assert_eq!(judge_addresses(&[private], &seen(private)), Outcome::Ok);
        assert_eq!(judge_addresses(&[private], &BTreeMap::new()), Outcome::Ok);
        assert_eq!(judge_addresses(&[private], &seen(public)), Outcome::Warning);
        assert_eq!(
            judge_addresses(&[loopback], &seen(loopback)),
            Outcome::Warning
        );
        assert_eq!(judge_addresses(&[], &seen(public)), Outcome::Problem);
    }

    #[test]
    fn differences_of_clocks_have_a_sign() {
        assert_eq!((difference(5, 3), difference(3, 5)), (2, -2));
        assert_eq!(difference(0, u64::MAX), -i64::MAX);
    }
}
