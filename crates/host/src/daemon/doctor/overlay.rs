//! The node's place in the overlay: whom it knows, who finds it, and what it can store.

use std::time::{Duration, Instant};

use enishi_api::{Failure, Finding, Outcome, ValueStep};
use enishi_overlay::{NodeId, Position};
use enishi_services::Node;
use enishi_services::dht::{GetAnswer, PutAnswer};
use enishi_services::names::OpenName;
use tokio::task::JoinSet;

use super::Report;
use crate::daemon::desk::{Desk, no};
use crate::daemon::names;

/// How many strangers are asked to look for this node.
const STRANGERS_ASKED: usize = 3;

/// How long a stranger may look: a routed question may take ten seconds.
const FIND_TIME_MAX: Duration = Duration::from_secs(12);

/// How long storing, reading and removing a value may take, each.
const VALUE_TIME_MAX: Duration = Duration::from_secs(12);

/// The lease of the value that is stored and removed again, in seconds.
const LEASE_S: u32 = 60;

/// What the node knows of the overlay.
pub(super) struct Around {
    position: Position,
    near: u32,
    long: u32,
    seeking: bool,
    estimate: u64,
    known: u64,
    pub(super) held: u64,
    pub(super) own: u64,
    /// Near neighbours and long links.
    pub(super) peers: Vec<NodeId>,
    /// Whom to ask to look for this node, the best first, and whether they are strangers.
    strangers: Vec<NodeId>,
    are_strange: bool,
}

impl Around {
    pub(super) fn of(node: &Node) -> Self {
        let overlay = node.overlay();
        let peers: Vec<NodeId> = overlay.peers().map(|peer| peer.contact().id()).collect();
        let near = peers
            .iter()
            .filter(|id| overlay.near().contains(**id))
            .count();
        let known = overlay.known();
        // A stranger is in nobody's way: neither neighbour nor link, and far away. Long
        // links know this node; neighbours do in any case.
        let position = overlay.position();
        let strangers = known.keys().map(|id| (0, *id));
        let links = peers
            .iter()
            .map(|id| (1 + u8::from(overlay.near().contains(*id)), *id));
        let mut all: Vec<(u8, NodeId)> = strangers.chain(links).collect();
        let far = |id: &NodeId| u64::MAX - position.distance(overlay.position_of(id));
        all.sort_by_key(|(sort, id)| (*sort, far(id)));
        all.truncate(STRANGERS_ASKED);
        Self {
            position,
            near: near as u32,
            long: (peers.len() - near) as u32,
            seeking: overlay.is_seeking(),
            estimate: overlay.size_estimate(),
            known: overlay.places_known() as u64 + 1,
            held: node.dht().store().len() as u64,
            own: node.dht().owned() as u64,
            are_strange: all.first().is_some_and(|(sort, _)| *sort < 2),
            strangers: all.into_iter().map(|(_, id)| id).collect(),
            peers,
        }
    }
}

pub(super) async fn neighbours(around: &Around, report: &mut Report<'_>) {
    let (near, long, seeking) = (around.near, around.long, around.seeking);
    let outcome = match near {
        0 if seeking => Outcome::Problem,
        0 => Outcome::Warning,
        _ => Outcome::Ok,
    };
    let finding = Finding::Neighbours {
        near,
        long,
        seeking,
    };
    report.tell(outcome, finding).await;
}

/// By which ways others were found. That one does not work matters as long as there is nobody.
pub(super) async fn bootstrap(desk: &Desk, around: &Around, report: &mut Report<'_>) {
    let peers = around.peers.iter().copied().collect();
    let sources = desk.shared.found_by.told(&peers);
    let fails = sources.iter().any(|source| source.error.is_some());
    let outcome = match around.peers.is_empty() && fails {
        true => Outcome::Warning,
        false => Outcome::Ok,
    };
    if !sources.is_empty() {
        report.tell(outcome, Finding::Bootstrap { sources }).await;
    }
}

/// Asks strangers who is at this node's position. A stranger that declines says nothing.
pub(super) async fn position(
    desk: &Desk,
    around: &Around,
) -> Result<Option<(Outcome, Finding)>, Failure> {
    if around.strangers.is_empty() {
        return Ok(None);
    }
    let me = desk.sessions.me();
    let mut asking = JoinSet::new();
    for stranger in around.strangers.clone() {
        let desk = desk.clone();
        asking.spawn(async move { desk.find_me(stranger, FIND_TIME_MAX).await });
    }
    let (mut agree, mut disagree) = (0, 0);
    for found in asking.join_all().await {
        match found? {
            Some(found) if found.in_charge == Some(me) => agree += 1,
            Some(_) => disagree += 1,
            None => {}
        }
    }
    tracing::debug!(position = %around.position, agree, disagree, "strangers have looked");
    let outcome = match (agree, disagree) {
        (0, 0) => Outcome::Warning,
        (0, _) => Outcome::Problem,
        (_, 0) => Outcome::Ok,
        (_, _) => Outcome::Warning,
    };
    let finding = Finding::Position {
        asked: around.strangers.len() as u32,
        agree,
        disagree,
        strangers: around.are_strange,
    };
    Ok(Some((outcome, finding)))
}

/// Stores a value under a name that nobody else knows, reads it, removes it.
pub(super) async fn values(desk: &Desk) -> Result<(Outcome, Finding), Failure> {
    let started = Instant::now();
    let mut rng = names::rng()?;
    let value = rng.number().to_le_bytes();
    let name = format!("enishi doctor {} {:016x}", desk.sessions.me(), rng.number());
    let name = OpenName::new(&name, &desk.shared.keypair).ok_or_else(|| no("No name."))?;
    let (mut replicas, mut failed) = (0, None);
    let put = desk.put(name.put_request(&mut rng, LEASE_S, Some(&value)));
    match timely(put).await?.unwrap_or(PutAnswer::Failed) {
        PutAnswer::Stored {
            replicas: stored, ..
        } => replicas = stored,
        PutAnswer::Taken | PutAnswer::Full | PutAnswer::Failed => failed = Some(ValueStep::Put),
    }
    if failed.is_none() {
        let got = match timely(desk.get(name.key())).await? {
            Some(GetAnswer::Records(records)) => {
                records.iter().find_map(|record| name.open(record))
            }
            Some(GetAnswer::Failed) | None => None,
        };
        if got.as_deref() != Some(&value[..]) {
            failed = Some(ValueStep::Get);
        }
    }
    // Also after a failure, for it may be stored all the same; but then nobody waits.
    let removal = desk.put(name.put_request(&mut rng, LEASE_S, None));
    if failed == Some(ValueStep::Put) {
        let _ = tokio::time::timeout(Duration::from_millis(100), removal).await;
    } else if !matches!(timely(removal).await?, Some(PutAnswer::Stored { .. })) {
        failed = failed.or(Some(ValueStep::Remove));
    }
    let outcome = match failed {
        Some(ValueStep::Put | ValueStep::Get) => Outcome::Problem,
        Some(ValueStep::Remove) => Outcome::Warning,
        None => Outcome::Ok,
    };
    let time_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let finding = Finding::Values {
        failed,
        replicas,
        time_ms,
    };
    Ok((outcome, finding))
}

/// Waits for an answer as long as a person does; none when there was none by then.
async fn timely<T>(answer: impl Future<Output = Result<T, Failure>>) -> Result<Option<T>, Failure> {
    match tokio::time::timeout(VALUE_TIME_MAX, answer).await {
        Ok(answer) => answer.map(Some),
        Err(_) => Ok(None),
    }
}

/// An estimate cannot be right that is far below what the node knows by name.
pub(super) async fn size(around: &Around, report: &mut Report<'_>) {
    let (estimate, known) = (around.estimate, around.known);
    let outcome = if estimate.saturating_mul(2) < known {
        Outcome::Warning
    } else {
        Outcome::Ok
    };
    report
        .tell(outcome, Finding::Size { estimate, known })
        .await;
}
