//! `ping` and `trace`.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_api::{Answer, Failure, Hop, Ping, PingSummary, RoundTrips, TraceSummary};
use enishi_overlay::NodeId;
use enishi_services::diag;
use enishi_services::names::OpenName;
use tokio::sync::mpsc;

use super::desk::{Desk, usage};
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
        }
    };
    let teller = async {
        let mut rtts_ms = Vec::new();
        while let Some((sequence, result)) = results.recv().await {
            let answer = match result? {
                Some(round_trip) => {
                    let rtt_ms = ms(round_trip);
                    rtts_ms.push(rtt_ms);
                    let path = path(desk, peer);
                    Answer::Pong {
                        sequence,
                        rtt_ms,
                        path,
                    }
                }
                None => Answer::Lost { sequence },
            };
            // The task ends with the caller.
            let _ = answers.send(answer).await;
        }
        Ok::<_, Failure>(rtts_ms)
    };
    let ((), rtts_ms) = tokio::join!(asker, teller);
    let rtts_ms = rtts_ms?;
    Ok(Answer::PingSummary(PingSummary {
        node_id: peer.to_string(),
        sent: ping.count,
        received: u32::try_from(rtts_ms.len()).unwrap_or(u32::MAX),
        rtt_ms: summary(rtts_ms),
        path: path(desk, peer),
    }))
}

fn summary(mut rtts_ms: Vec<f64>) -> Option<RoundTrips> {
    rtts_ms.sort_by(f64::total_cmp);
    let (min, max) = (*rtts_ms.first()?, *rtts_ms.last()?);
    // Nearest rank: the smallest value that 99 % do not exceed.
    let rank = (rtts_ms.len() * 99).div_ceil(100);
    Some(RoundTrips {
        min,
        avg: rtts_ms.iter().sum::<f64>() / rtts_ms.len() as f64,
        p99: rtts_ms[rank - 1],
        max,
    })
}

/// What is known of a route.
#[derive(Debug, Default)]
struct Route {
    /// By their places from 1: who reported, and when.
    reports: BTreeMap<u8, (NodeId, Duration)>,
    /// By their places: whom the hop before named.
    named: BTreeMap<u8, NodeId>,
}

pub(super) async fn trace(
    desk: &Desk,
    target: &str,
    answers: &mpsc::Sender<Answer>,
) -> Result<Answer, Failure> {
    let position = match Target::parse(target)? {
        Target::Key(key) => OpenName::new(&key, &desk.shared.keypair)
            .ok_or_else(|| usage("A key has 1 to 1024 octets."))?
            .key()
            .position(),
        target => {
            let node = target::node(desk, &target).await?;
            desk.look(move |me| me.overlay().position_of(&node)).await?
        }
    };
    let mut reports = desk.trace(position).await?;
    let mut route = Route::default();
    let mut end = None;
    while let Some(report) = reports.recv().await {
        match report {
            diag::Event::Hop {
                node,
                hops,
                round_trip,
                next,
                ..
            } => {
                route.report(node, hops, round_trip, next);
                // The task ends with the caller.
                let _ = answers
                    .send(Answer::Hop(hop(desk, node, Some(round_trip))))
                    .await;
            }
            diag::Event::Traced { end: reached, .. } => end = reached,
            diag::Event::Pong { .. } | diag::Event::Lost { .. } | diag::Event::Located { .. } => {}
        }
    }
    let hops = route.hops(end);
    let hops = hops
        .into_iter()
        .map(|(node, rtt)| hop(desk, node, rtt))
        .collect();
    Ok(Answer::TraceSummary(TraceSummary {
        hops,
        complete: end.is_some(),
    }))
}

impl Route {
    /// Takes in a report; of several for one place, which another try of the question
    /// brings about, the first counts.
    fn report(&mut self, node: NodeId, place: u8, rtt: Duration, next: Option<NodeId>) {
        self.reports.entry(place).or_insert((node, rtt));
        if let Some(next) = next {
            self.named.entry(place.saturating_add(1)).or_insert(next);
        }
    }

    /// Returns the hops in order, as far as they are known; the last is the end.
    fn hops(mut self, end: Option<(NodeId, u8, Duration)>) -> Vec<(NodeId, Option<Duration>)> {
        let mut hops = BTreeMap::new();
        for (place, node) in self.named {
            hops.insert(place, (node, None));
        }
        for (place, (node, rtt)) in std::mem::take(&mut self.reports) {
            hops.insert(place, (node, Some(rtt)));
        }
        if let Some((node, place, rtt)) = end {
            let mut last = hops.split_off(&place);
            let reported = last.remove(&place).filter(|(there, _)| *there == node);
            let rtt = reported.and_then(|(_, rtt)| rtt).unwrap_or(rtt);
            hops.insert(place, (node, Some(rtt)));
        }
        hops.into_values().collect()
    }
}

fn hop(desk: &Desk, node: NodeId, rtt: Option<Duration>) -> Hop {
    Hop {
        node_id: node.to_string(),
        rtt_ms: rtt.map(ms),
        path: path(desk, node),
    }
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

fn ms(duration: Duration) -> f64 {
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
        let many = summary((1..=200).rev().map(f64::from).collect()).unwrap();
        assert_eq!(
            (many.min, many.avg, many.p99, many.max),
            (1.0, 100.5, 198.0, 200.0)
        );
    }

    #[test]
    fn a_route_is_put_in_order() {
        let [a, b, c, d] = [1, 2, 3, 4].map(|octet| NodeId::from_bytes([octet; 32]));
        let ms = Duration::from_millis;
        let mut route = Route::default();
        route.report(c, 3, ms(3), None);
        route.report(a, 1, ms(1), Some(b));
        route.report(d, 1, ms(9), Some(d));
        let hops = route.hops(Some((c, 3, ms(4))));
        assert_eq!(hops, [(a, Some(ms(1))), (b, None), (c, Some(ms(3)))]);
        assert_eq!(Route::default().hops(None), []);
        let here = Route::default().hops(Some((a, 0, ms(0))));
        assert_eq!(here, [(a, Some(ms(0)))]);
    }
}
