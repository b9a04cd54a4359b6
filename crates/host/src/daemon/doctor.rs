//! Checks the node end to end, and tells of each part whether it is well. The commands
//! word what is found, and say what to do.
//!
//! What others are asked costs them little: an echo of some peers and members, one routed
//! question of each of three strangers, one value with a short lease that is removed again.
//!
//! | module | is about |
//! |---|---|
//! | `host` | disk, files and clock, addresses and ways as others see them |
//! | `overlay` | whom the node knows, who finds it, what it can store |
//! | `channels` | devices, members, names of hosts |
//! | `net` | how the node gets out of its network: an examination of its own |

mod channels;
mod host;
pub(super) mod net;
mod overlay;

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_api::{Answer, Check, Failure, Finding, Outcome, Refused};
use enishi_overlay::NodeId;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::overlay::Around;
use super::desk::{Desk, Echo};
use super::status;
use crate::store::unix_s;

/// How many peers are asked for their clocks and where they see this node.
const PEERS_ASKED: usize = 8;

/// How long an echo is waited for; the node may have to be dialled.
const ECHO_TIME_MAX: Duration = Duration::from_secs(5);

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

impl<'a> Report<'a> {
    fn new(answers: &'a mpsc::Sender<Answer>) -> Self {
        Self {
            answers,
            counts: [0; 3],
        }
    }

    async fn tell(&mut self, outcome: Outcome, finding: Finding) {
        self.counts[outcome as usize] += 1;
        let check = Check { outcome, finding };
        // The task ends with the caller.
        let _ = self.answers.send(Answer::Check(check)).await;
    }

    fn conclude(self) -> Answer {
        let [ok, warnings, problems] = self.counts;
        Answer::Checked {
            ok,
            warnings,
            problems,
        }
    }
}

pub(super) async fn examine(
    desk: &Desk,
    answers: &mpsc::Sender<Answer>,
) -> Result<Answer, Failure> {
    let mut report = Report::new(answers);
    host::directory(desk, &mut report).await;
    host::files(&mut report).await;
    let around = desk.look(Around::of).await?;
    overlay::neighbours(&around, &mut report).await;
    overlay::bootstrap(desk, &around, &mut report).await;
    // What waits for others waits at the same time.
    let peers = around.peers.iter().copied().take(PEERS_ASKED);
    let (echoes, position, values) = tokio::join!(
        echoes(desk, peers),
        overlay::position(desk, &around),
        overlay::values(desk),
    );
    host::clock(desk, &echoes, &mut report).await;
    for (outcome, finding) in position?.into_iter().chain([values?]) {
        report.tell(outcome, finding).await;
    }
    overlay::size(&around, &mut report).await;
    host::addresses(desk, &echoes, &mut report).await?;
    host::sessions(desk, &mut report).await;
    channels::channels(desk, &mut report).await?;
    channels::names(desk, &mut report).await?;
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
    Ok(report.conclude())
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
        ("storm_packets", refused.storm_packets),
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
}
