//! What the node is capable of, measured: whether strangers reach it, how long it stays, how
//! fast it sends, how much it computes.
//!
//! | measure | how |
//! |---|---|
//! | reachability | nodes that this one never met, and is not dialling, opened sessions |
//! | stay | the mean of former runs, the last one a quarter of it |
//! | rate | the most octets that all sessions sent in a second, over ten seconds |
//! | work | signatures checked in a few milliseconds at the start |
//!
//! The node looks at its own uptime itself. What was measured is kept in the data directory
//! (`node.measure`), a minute old at most, so that a node need not begin anew each time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use enishi_overlay::class::Measure;
use enishi_overlay::{Keypair, NodeId};
use serde::{Deserialize, Serialize};

use super::desk::{Ask, Desk};
use crate::session::Sessions;

/// The file in the data directory.
const FILE_NAME: &str = "node.measure";
/// Between two looks at what was sent.
const LOOK: Duration = Duration::from_secs(10);
/// After how many looks the node is told, and the file written.
const LOOKS_PER_WORD: u32 = 6;
/// How many strangers must have come for a node to count as reachable: one may have been
/// introduced.
const STRANGERS_MIN: u64 = 2;
/// After how long, with how many sessions of its own, a node to which no stranger came counts
/// as not reachable.
const SILENCE: Duration = Duration::from_secs(600);
const SESSIONS_MIN: usize = 4;
/// How long signatures are checked at the start.
const BENCHMARK: Duration = Duration::from_millis(5);

/// What is kept for the next run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    stay_s: u32,
    reachable: Option<bool>,
    send_bytes_per_second: u64,
}

impl Kept {
    /// What is kept of a run that has lasted for `uptime` after former ones.
    fn after(self, uptime: Duration) -> u32 {
        let uptime_s = u32::try_from(uptime.as_secs()).unwrap_or(u32::MAX);
        match self.stay_s {
            0 => uptime_s,
            before => before / 4 * 3 + uptime_s / 4,
        }
    }
}

/// Measures a node from its start on.
#[derive(Debug)]
pub(super) struct Measuring {
    file: PathBuf,
    started: Instant,
    /// As it was at the start.
    before: Kept,
    measure: Measure,
    /// What each session had sent at the last look.
    sent: BTreeMap<NodeId, u64>,
}

impl Measuring {
    /// Reads what former runs kept, and measures what can be measured at once.
    pub(super) fn start(data: &Path, keypair: &Keypair) -> Self {
        let file = data.join(FILE_NAME);
        // A file that is missing or damaged only makes the node begin anew.
        let text = fs::read_to_string(&file).unwrap_or_default();
        let before: Kept = toml::from_str(&text).unwrap_or_default();
        let measure = Measure {
            reachable: before.reachable,
            stay_s: before.stay_s,
            // A peak of long ago is forgotten by and by.
            send_bytes_per_second: before.send_bytes_per_second / 8 * 7,
            checks_per_second: checks_per_second(keypair),
            on_battery: on_battery(),
        };
        Self {
            file,
            started: Instant::now(),
            before,
            measure,
            sent: BTreeMap::new(),
        }
    }

    /// Returns what is known so far.
    pub(super) fn measure(&self) -> Measure {
        self.measure
    }

    /// Looks at the sessions every ten seconds and tells the node every minute, as long as
    /// the daemon runs.
    pub(super) async fn run(mut self, desk: Desk) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.tick().await;
        for looks in 1_u32.. {
            ticks.tick().await;
            self.look(&desk.sessions);
            if looks % LOOKS_PER_WORD != 0 {
                continue;
            }
            self.keep();
            if desk.ask(Ask::Measured(self.measure)).await.is_err() {
                return;
            }
        }
    }

    fn look(&mut self, sessions: &Sessions) {
        let open = sessions.sessions();
        let count = open.len();
        let mut grown = 0;
        let mut sent = BTreeMap::new();
        for session in open {
            let before = self.sent.get(&session.peer).copied().unwrap_or(0);
            grown += session.bytes_sent.saturating_sub(before);
            sent.insert(session.peer, session.bytes_sent);
        }
        self.sent = sent;
        let rate = grown / LOOK.as_secs();
        let measure = &mut self.measure;
        measure.send_bytes_per_second = measure.send_bytes_per_second.max(rate);
        measure.on_battery = on_battery();
        let strangers = sessions.counters().strangers;
        let uptime = self.started.elapsed();
        measure.reachable = reachable(strangers, count, uptime).or(measure.reachable);
    }

    fn keep(&self) {
        let kept = Kept {
            stay_s: self.before.after(self.started.elapsed()),
            reachable: self.measure.reachable,
            send_bytes_per_second: self.measure.send_bytes_per_second,
        };
        let text = toml::to_string(&kept).unwrap_or_default();
        if let Err(error) = fs::write(&self.file, text) {
            // The next minute tries again.
            tracing::debug!(%error, "what was measured could not be kept");
        }
    }
}

/// Tells whether strangers reach the node; none when that cannot be said yet.
fn reachable(strangers: u64, sessions: usize, uptime: Duration) -> Option<bool> {
    match strangers {
        STRANGERS_MIN.. => Some(true),
        0 if uptime >= SILENCE && sessions >= SESSIONS_MIN => Some(false),
        _ => None,
    }
}

/// Checks signatures for some milliseconds.
fn checks_per_second(keypair: &Keypair) -> u32 {
    let message = [7; 64];
    let (signature, id) = (keypair.sign(&message), keypair.id());
    let started = Instant::now();
    let mut checked = 0_u64;
    while started.elapsed() < BENCHMARK {
        checked += u64::from(id.verify(&message, &signature));
    }
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    u32::try_from(checked * 1_000_000 / micros.max(1)).unwrap_or(u32::MAX)
}

/// Tells whether a battery is what this host runs on.
fn on_battery() -> bool {
    let supplies = fs::read_dir("/sys/class/power_supply");
    let supplies = supplies.into_iter().flatten().flatten();
    let mut states =
        supplies.filter_map(|supply| fs::read_to_string(supply.path().join("status")).ok());
    states.any(|state| state.trim() == "Discharging")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reachability_is_believed_only_with_evidence() {
        let (early, late) = (Duration::from_secs(30), SILENCE);
        assert_eq!(reachable(2, 2, early), Some(true));
        assert_eq!(reachable(1, 9, late), None);
        assert_eq!(reachable(0, 9, early), None);
        assert_eq!(reachable(0, 1, late), None);
        assert_eq!(reachable(0, 4, late), Some(false));
    }

    #[test]
    fn what_was_measured_is_there_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let keypair = Keypair::from_seed(&[1; 32]);
        let mut first = Measuring::start(dir.path(), &keypair);
        assert_eq!(
            (first.measure().reachable, first.measure().stay_s),
            (None, 0)
        );
        assert!(first.measure().checks_per_second > 100);
        first.measure.reachable = Some(false);
        first.measure.send_bytes_per_second = 80_000;
        first.before.stay_s = 4_000;
        first.keep();
        let second = Measuring::start(dir.path(), &keypair).measure();
        assert_eq!((second.reachable, second.stay_s), (Some(false), 3_000));
        assert_eq!(second.send_bytes_per_second, 70_000);
        fs::write(dir.path().join(FILE_NAME), "stay_s = -1").unwrap();
        assert_eq!(Measuring::start(dir.path(), &keypair).measure().stay_s, 0);
    }
}
