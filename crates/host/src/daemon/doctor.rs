//! Checks the node end to end, and tells of each part whether it is well. The commands
//! word what is found, and say what to do.
//!
//! What others are asked costs them little: an echo of some peers and members, one routed
//! question of each of three strangers, one value with a short lease that is removed again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use enishi_api::{Answer, Channel, Check, Failure, Finding, Outcome, Refused, Sighting, ValueStep};
use enishi_overlay::{NodeId, Position};
use enishi_services::Node;
use enishi_services::dht::{GetAnswer, PutAnswer};
use enishi_services::names::OpenName;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::desk::{Desk, Echo, no};
use super::{channels, dns, machine, names, status};
use crate::dns::How;
use crate::store::unix_s;

/// How many peers are asked for their clocks and where they see this node.
const PEERS_ASKED: usize = 8;

/// How many strangers are asked to look for this node.
const STRANGERS_ASKED: usize = 3;

/// How many members of each channel are asked for an echo.
const MEMBERS_ASKED: usize = 32;

/// How long an echo is waited for; the node may have to be dialled.
const ECHO_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a stranger may look: a routed question may take ten seconds.
const FIND_TIME_MAX: Duration = Duration::from_secs(12);

/// How long storing, reading and removing a value may take, each.
const VALUE_TIME_MAX: Duration = Duration::from_secs(12);

/// How long the system's resolver may take for a name.
const NAME_TIME_MAX: Duration = Duration::from_secs(8);

/// The lease of the value that is stored and removed again, in seconds.
const LEASE_S: u32 = 60;

/// By how many seconds a clock may differ from those of others: versions of values follow
/// it, and an invitation's time.
const CLOCK_AHEAD_S_MAX: u64 = 60;

/// With less than this, in octets, the disk is about to be full.
const FREE_BYTES_MIN: u64 = 100 << 20;

/// From how many refusals on their rate is looked at, and the rate that is high, an hour.
const REFUSED_MIN: u64 = 100;
const REFUSED_PER_HOUR_MAX: u64 = 360;

/// The echoes of some nodes, each with the clock at its arrival; none from the silent.
type Echoes = BTreeMap<NodeId, Option<(u64, Echo)>>;

/// Where the findings go.
struct Report<'a> {
    answers: &'a mpsc::Sender<Answer>,
    counts: [u32; 3],
}

impl Report<'_> {
    async fn tell(&mut self, outcome: Outcome, finding: Finding) {
        self.counts[outcome as usize] += 1;
        let check = Check { outcome, finding };
        // The task ends with the caller.
        let _ = self.answers.send(Answer::Check(check)).await;
    }
}

pub(super) async fn examine(
    desk: &Desk,
    answers: &mpsc::Sender<Answer>,
) -> Result<Answer, Failure> {
    let mut report = Report {
        answers,
        counts: [0; 3],
    };
    check_directory(desk, &mut report).await;
    check_files(&mut report).await;
    let around = desk.look(Around::of).await?;
    check_neighbours(&around, &mut report).await;
    // What waits for others waits at the same time.
    let peers = around.peers.iter().copied().take(PEERS_ASKED);
    let (echoes, position, values) = tokio::join!(
        echoes(desk, peers),
        check_position(desk, &around),
        check_values(desk),
    );
    check_clock(desk, &echoes, &mut report).await;
    for (outcome, finding) in position?.into_iter().chain([values?]) {
        report.tell(outcome, finding).await;
    }
    check_size(&around, &mut report).await;
    check_addresses(desk, &echoes, &mut report).await;
    check_sessions(desk, &mut report).await;
    check_channels(desk, &mut report).await?;
    check_names(desk, &mut report).await?;
    let (held, own) = (around.held, around.own);
    report
        .tell(Outcome::Ok, Finding::Records { held, own })
        .await;
    check_refused(desk, &mut report).await?;
    for text in desk.shared.noted() {
        report
            .tell(Outcome::Warning, Finding::Notice { text })
            .await;
    }
    let [ok, warnings, problems] = report.counts;
    Ok(Answer::Checked {
        ok,
        warnings,
        problems,
    })
}

async fn check_directory(desk: &Desk, report: &mut Report<'_>) {
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

async fn check_files(report: &mut Report<'_>) {
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

/// What the node knows of the overlay.
struct Around {
    position: Position,
    near: u32,
    long: u32,
    seeking: bool,
    estimate: u64,
    known: u64,
    held: u64,
    own: u64,
    /// Near neighbours and long links.
    peers: Vec<NodeId>,
    /// Whom to ask to look for this node, the best first, and whether they are strangers.
    strangers: Vec<NodeId>,
    are_strange: bool,
}

impl Around {
    fn of(node: &Node) -> Self {
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

async fn check_neighbours(around: &Around, report: &mut Report<'_>) {
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

/// Sends an echo request to each of some nodes at the same time.
async fn echoes(desk: &Desk, nodes: impl Iterator<Item = NodeId>) -> Echoes {
    let mut asking = JoinSet::new();
    for node in nodes {
        let desk = desk.clone();
        asking.spawn(async move {
            let echo = desk.ping(node, ECHO_TIME_MAX).await;
            (
                node,
                echo.ok().and_then(Result::ok).map(|echo| (unix_s(), echo)),
            )
        });
    }
    asking.join_all().await.into_iter().collect()
}

async fn check_clock(desk: &Desk, echoes: &Echoes, report: &mut Report<'_>) {
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

/// Asks strangers who is at this node's position. A stranger that declines says nothing.
async fn check_position(
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
async fn check_values(desk: &Desk) -> Result<(Outcome, Finding), Failure> {
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
async fn check_size(around: &Around, report: &mut Report<'_>) {
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

async fn check_addresses(desk: &Desk, echoes: &Echoes, report: &mut Report<'_>) {
    let own = desk.sessions.addresses();
    let echoes = echoes.values().flatten();
    let details = echoes.filter_map(|(_, echo)| echo.detail);
    let mut seen: BTreeMap<SocketAddr, u32> = BTreeMap::new();
    for address in details.filter_map(|detail| detail.seen_at) {
        *seen.entry(address).or_default() += 1;
    }
    let outcome = judge_addresses(&own, &seen);
    let seen = seen.into_iter();
    let seen = seen.map(|(address, peers)| Sighting { address, peers });
    let finding = Finding::Addresses {
        own,
        seen: seen.collect(),
    };
    report.tell(outcome, finding).await;
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

async fn check_sessions(desk: &Desk, report: &mut Report<'_>) {
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

async fn check_channels(desk: &Desk, report: &mut Report<'_>) -> Result<(), Failure> {
    let devices = desk.shared.networks.makes_devices();
    for channel in channels::all(desk).await? {
        let up = channel
            .interface
            .as_deref()
            .map(|name| machine::is_up(name).unwrap_or(false));
        let outcome = if channel.address.is_none() || up == Some(false) {
            Outcome::Problem
        } else if channel.notice.is_some() || (devices && up.is_none()) {
            Outcome::Warning
        } else {
            Outcome::Ok
        };
        let finding = Finding::Channel {
            name: channel.name.clone(),
            address: channel.address.map(|address| address.to_string()),
            interface: channel.interface.clone(),
            up,
            devices,
            notice: channel.notice.clone(),
        };
        report.tell(outcome, finding).await;
        check_members(desk, &channel, report).await;
    }
    Ok(())
}

/// Looks up this host's own name as every program does.
async fn check_names(desk: &Desk, report: &mut Report<'_>) -> Result<(), Failure> {
    let Some(state) = dns::state(desk) else {
        return Ok(());
    };
    let own = dns::own_name(desk).await?;
    let own = own.filter(|_| state.how != How::None.name());
    let found = match &own {
        None => false,
        Some(own) => {
            let looked_up = tokio::net::lookup_host((own.name.as_str(), 0));
            let looked_up = tokio::time::timeout(NAME_TIME_MAX, looked_up).await;
            let mut addresses = looked_up.into_iter().flatten().flatten();
            addresses.any(|address| own.addresses.contains(&address.ip()))
        }
    };
    let outcome = match &own {
        Some(_) if !found => Outcome::Problem,
        _ if state.notice.is_some() => Outcome::Warning,
        _ => Outcome::Ok,
    };
    let finding = Finding::Names {
        how: state.how,
        listening: state.listening,
        asked: own.map(|own| own.name),
        found,
        notice: state.notice,
    };
    report.tell(outcome, finding).await;
    Ok(())
}

async fn check_members(desk: &Desk, channel: &Channel, report: &mut Report<'_>) {
    let me = desk.sessions.me();
    let others: BTreeMap<NodeId, String> = channel
        .member_list
        .iter()
        .filter_map(|member| Some((member.node_id.parse().ok()?, member.host.clone())))
        .filter(|(id, _)| *id != me)
        .take(MEMBERS_ASKED)
        .collect();
    if others.is_empty() {
        return;
    }
    let echoes = echoes(desk, others.keys().copied()).await;
    let silent = echoes.iter().filter(|(_, echo)| echo.is_none());
    let silent: Vec<String> = silent
        .filter_map(|(id, _)| others.get(id).cloned())
        .collect();
    // A member may be switched off, which is no fault of this node; all of them is odd.
    let outcome = if silent.is_empty() {
        Outcome::Ok
    } else {
        Outcome::Warning
    };
    let finding = Finding::Members {
        channel: channel.name.clone(),
        asked: others.len() as u32,
        silent,
    };
    report.tell(outcome, finding).await;
}

async fn check_refused(desk: &Desk, report: &mut Report<'_>) -> Result<(), Failure> {
    let Answer::Status(status) = status::status(desk).await? else {
        return Ok(());
    };
    let (count, most) = refused(&status.refused);
    let uptime_s = status.uptime_s;
    let per_hour = count.saturating_mul(3_600) / uptime_s.max(1);
    let outcome = if count >= REFUSED_MIN && per_hour > REFUSED_PER_HOUR_MAX {
        Outcome::Warning
    } else {
        Outcome::Ok
    };
    let finding = Finding::Refused {
        count,
        uptime_s,
        most: most.to_owned(),
    };
    report.tell(outcome, finding).await;
    Ok(())
}

/// Returns how much was refused or dropped that should not occur, and what most of all.
/// Peers and frames that are lost when somebody goes away belong to every day.
fn refused(refused: &Refused) -> (u64, &'static str) {
    let counts = [
        ("malformed_messages", refused.malformed_messages),
        ("flooded_messages", refused.flooded_messages),
        ("foreign_packets", refused.foreign_packets),
        ("messages_refused", refused.messages_refused),
        ("hops_dropped", refused.hops_dropped),
        ("frames_dropped", refused.frames_dropped),
        ("frames_oversized", refused.frames_oversized),
        ("sessions_refused", refused.sessions_refused),
        ("dials_refused", refused.dials_refused),
    ];
    let sum = counts.iter().map(|(_, count)| count).sum();
    let most = counts.iter().max_by_key(|(_, count)| *count);
    (sum, most.map_or("", |(name, _)| *name))
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
    fn what_is_lost_when_others_go_away_is_not_counted() {
        let mut counts = Refused {
            peers_lost: 1_000,
            frames_lost: 1_000,
            foreign_packets: 2,
            ..Refused::default()
        };
        assert_eq!(refused(&counts), (2, "foreign_packets"));
        counts.dials_refused = 3;
        assert_eq!(refused(&counts), (5, "dials_refused"));
    }

    #[test]
    fn differences_of_clocks_have_a_sign() {
        assert_eq!((difference(5, 3), difference(3, 5)), (2, -2));
        assert_eq!(difference(0, u64::MAX), -i64::MAX);
    }
}
