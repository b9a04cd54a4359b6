//! `ping` and `trace`.

use std::time::Duration;

use enishi_api::{
    Answer, Failure, Held, Holder, Hop, HopState, Ping, PingSummary, Remote, RoundTrips,
    TraceSummary,
};
use enishi_overlay::{NodeId, PathKind, Position, Vitals};
use enishi_services::dht::{self, Holding};
use enishi_services::diag::route::Route;
use enishi_services::diag::{self, route};
use enishi_services::names::OpenName;
use tokio::sync::mpsc;

use super::desk::{Desk, Unheard, no, usage};
use super::target::{self, Target};

/// The fewest milliseconds between two echo requests.
const INTERVAL_MS_MIN: u32 = 10;

/// The longest that one echo response or the next request is waited for.
const WAIT_MS_MAX: u32 = 60_000;

/// The most echo requests of one ping.
const COUNT_MAX: u32 = 1_000;

pub(super) async fn ping(
    desk: &Desk,
    ping: &Ping,
    answers: &mpsc::Sender<Answer>,
) -> Result<Answer, Failure> {
    if !(1..=COUNT_MAX).contains(&ping.count) {
        return Err(usage(format!("One ping sends 1 to {COUNT_MAX} requests.")));
    }
    let interval_ms = ping.interval_ms.clamp(INTERVAL_MS_MIN, WAIT_MS_MAX);
    let timeout = Duration::from_millis(ping.timeout_ms.clamp(1, WAIT_MS_MAX).into());
    let peer = target::node(desk, &Target::parse(&ping.target)?).await?;
    let (done, mut results) = mpsc::channel(COUNT_MAX as usize);
    let asker = {
        let (desk, count) = (desk.clone(), ping.count);
        let mut ticks = tokio::time::interval(Duration::from_millis(interval_ms.into()));
        async move {
            for sequence in 0..count {
                ticks.tick().await;
                let (desk, done) = (desk.clone(), done.clone());
                tokio::spawn(async move {
                    let result = desk.ping(peer, timeout).await;
                    // Nobody may wait for it any more.
                    let _ = done.send((sequence, result)).await;
                });
            }
            // The last sender is gone when the last of them is done.
            drop(done);
            Ok(())
        }
    };
    let teller = async {
        let mut rtts_ms = Vec::new();
        let mut last = None;
        while let Some((sequence, result)) = results.recv().await {
            let answer = match result? {
                Ok(echo) => {
                    let rtt_ms = ms(echo.round_trip);
                    rtts_ms.push(rtt_ms);
                    last = echo.detail.map(|detail| remote(detail.vitals));
                    Answer::Pong {
                        sequence,
                        rtt_ms,
                        path: path(desk, peer),
                        remote: last.clone(),
                    }
                }
                Err(Unheard::Unknown) if sequence == 0 => return Err(unknown(peer)),
                Err(Unheard::Unknown | Unheard::Lost) => Answer::Lost { sequence },
            };
            // The task ends with the caller.
            let _ = answers.send(answer).await;
        }
        Ok::<_, Failure>((rtts_ms, last))
    };
    let ((), (rtts_ms, remote)) = tokio::try_join!(asker, teller)?;
    Ok(Answer::PingSummary(PingSummary {
        node_id: peer.to_string(),
        sent: ping.count,
        received: u32::try_from(rtts_ms.len()).unwrap_or(u32::MAX),
        rtt_ms: summary(rtts_ms),
        path: path(desk, peer),
        path_kind: api_path(desk, peer),
        remote,
    }))
}

fn unknown(node: NodeId) -> Failure {
    no(format!(
        "Nobody knows the node {node}: who sits at its place on the ring has never heard of it. It \
         is down, in another overlay, or the id is wrong; `enishi peers` and `enishi overlay map` \
         show those that are known."
    ))
}

fn summary(mut rtts_ms: Vec<f64>) -> Option<RoundTrips> {
    rtts_ms.sort_by(f64::total_cmp);
    let (min, max) = (*rtts_ms.first()?, *rtts_ms.last()?);
    // Nearest rank: the smallest value that 99 % do not exceed.
    let rank = (rtts_ms.len() * 99).div_ceil(100);
    let count = rtts_ms.len() as f64;
    let avg = rtts_ms.iter().sum::<f64>() / count;
    let squares: f64 = rtts_ms.iter().map(|rtt| (rtt - avg).powi(2)).sum();
    Some(RoundTrips {
        min,
        avg,
        mdev: (squares / count).sqrt(),
        p99: rtts_ms[rank - 1],
        max,
    })
}

/// The most probes of one trace.
const PROBES_MAX: u32 = 20;

pub(super) async fn trace(
    desk: &Desk,
    target: &str,
    probes: u32,
    answers: &mpsc::Sender<Answer>,
) -> Result<Answer, Failure> {
    if !(1..=PROBES_MAX).contains(&probes) {
        return Err(usage(format!("One trace sends 1 to {PROBES_MAX} probes.")));
    }
    let (position, key, meant) = match Target::parse(target)? {
        Target::Key(name) => {
            let name = OpenName::new(&name, &desk.shared.keypair)
                .ok_or_else(|| usage("A key has 1 to 1024 octets."))?;
            (name.key().position(), Some(name.key()), None)
        }
        target => {
            let node = target::node(desk, &target).await?;
            let position = desk.look(move |me| me.overlay().position_of(&node)).await?;
            (position, None, Some(node))
        }
    };
    let mut route = Route::default();
    let mut answered = 0;
    for probe in 0..probes {
        let end = follow(desk, position, &mut route).await?;
        answered += u32::from(end.is_some());
        route.end_probe(end);
        // The task ends with the caller.
        let _ = answers.send(Answer::Probed { probe }).await;
    }
    let holders = match key {
        Some(key) => Some(desk.survey(key).await?.iter().map(holder).collect()),
        None => None,
    };
    let hops = route.hops();
    Ok(Answer::TraceSummary(TraceSummary {
        hops: hops.iter().map(|hop| api_hop(desk, hop)).collect(),
        complete: route.end().is_some(),
        answered_by: route.end().map(|end| end.node.to_string()),
        reached: route.end().zip(meant).map(|(end, meant)| end.node == meant),
        probes,
        answered,
        holders,
    }))
}

/// Sends one traced question and hands its reports to the route.
async fn follow(
    desk: &Desk,
    position: Position,
    route: &mut Route,
) -> Result<Option<route::End>, Failure> {
    let mut reports = desk.trace(position).await?;
    let mut end = None;
    while let Some(report) = reports.recv().await {
        match report {
            diag::Event::Hop {
                attempt,
                by,
                report,
                round_trip,
                ..
            } => route.report(attempt, by, report, round_trip),
            diag::Event::Traced { end: reached, .. } => {
                end = reached.map(|(node, hops, round_trip)| route::End {
                    node,
                    hops,
                    round_trip,
                });
            }
            diag::Event::Pong { .. }
            | diag::Event::Lost { .. }
            | diag::Event::Unknown { .. }
            | diag::Event::Located { .. }
            | diag::Event::FoundMe { .. } => {}
        }
    }
    Ok(end)
}

fn api_hop(desk: &Desk, hop: &route::Hop) -> Hop {
    let sum: Duration = hop.round_trips.iter().sum();
    let count = u32::try_from(hop.round_trips.len()).unwrap_or(u32::MAX);
    Hop {
        place: hop.place,
        node_id: hop.node.map(|node| node.to_string()),
        state: match hop.state {
            route::HopState::Reported => HopState::Reported,
            route::HopState::GaveBack => HopState::GaveBack,
            route::HopState::Declined => HopState::Declined,
            route::HopState::Lost => HopState::Lost,
        },
        sent: hop.sent,
        received: hop.received,
        rtt_ms: hop.round_trips.iter().min().copied().map(ms),
        rtt_ms_avg: (count > 0).then(|| ms(sum / count)),
        path: hop
            .node
            .map_or_else(|| "-".to_owned(), |node| path(desk, node)),
        next_path: hop.next.map(|(_, kind)| api_kind(kind)),
        remote: hop.vitals.map(remote),
    }
}

fn holder(holding: &Holding) -> Holder {
    Holder {
        node_id: holding.node.to_string(),
        held: match holding.held {
            dht::Held::Value { seq, age_s } => Held::Value { seq, age_s },
            dht::Held::Removed => Held::Removed,
            dht::Held::Nothing => Held::Nothing,
            dht::Held::Silent => Held::Silent,
        },
    }
}

/// What a node says of itself, for people.
pub(super) fn remote(vitals: Vitals) -> Remote {
    Remote {
        version: vitals.software.to_string(),
        load_per_mille: vitals.load_per_mille,
        class: Some(vitals.grade.class().name().to_owned()),
    }
}

const fn api_kind(kind: PathKind) -> enishi_api::PathKind {
    match kind {
        PathKind::Unconnected => enishi_api::PathKind::Unconnected,
        PathKind::Direct => enishi_api::PathKind::Direct,
        PathKind::Relayed => enishi_api::PathKind::Relayed,
    }
}

/// What sort of path leads to a node.
pub(super) fn api_path(desk: &Desk, peer: NodeId) -> enishi_api::PathKind {
    if peer == desk.sessions.me() {
        return enishi_api::PathKind::Itself;
    }
    let session = desk.sessions.session(peer);
    api_kind(session.map_or(PathKind::Unconnected, |session| session.kind))
}

/// How packets reach a node, for people.
pub(super) fn path(desk: &Desk, peer: NodeId) -> String {
    if peer == desk.sessions.me() {
        return "self".to_owned();
    }
    let session = desk.sessions.session(peer);
    match session.map(|session| session.path) {
        Some(path) if !path.is_empty() => path,
        _ => "-".to_owned(),
    }
}

pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_summed_up() {
        assert_eq!(summary(vec![]), None);
        let one = summary(vec![2.0]).unwrap();
        assert_eq!((one.min, one.avg, one.p99, one.max), (2.0, 2.0, 2.0, 2.0));
        assert_eq!(one.mdev, 0.0);
        assert_eq!(summary(vec![1.0, 3.0]).unwrap().mdev, 1.0);
        let many = summary((1..=200).rev().map(f64::from).collect()).unwrap();
        assert_eq!(
            (many.min, many.avg, many.p99, many.max),
            (1.0, 100.5, 198.0, 200.0)
        );
    }
}
