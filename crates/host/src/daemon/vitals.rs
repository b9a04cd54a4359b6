//! Measures for the node what it cannot know: how busy the daemon is, and how the packets
//! of its sessions travel.

use std::time::{Duration, Instant};

use super::desk::{Desk, Observed};
use super::machine;

/// Between two looks at the paths of the sessions. A path changes seldom, and only
/// diagnostics show it.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Over how long the load is averaged. `/proc` counts in hundredths of a second, so ten
/// seconds resolve a thousandth of a core.
const LOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Observes until the daemon stops.
pub(super) async fn observe(desk: Desk) {
    let mut load = Load::start();
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = desk.ending.stop.cancelled() => return,
        }
        let sessions = desk.sessions.sessions().into_iter();
        let observed = Observed {
            load_per_mille: load.measure(),
            paths: sessions
                .map(|session| (session.peer, session.kind, session.address))
                .collect(),
        };
        if desk.observe(observed).await.is_err() {
            return;
        }
    }
}

/// The share of a core that the process uses.
struct Load {
    at: Instant,
    used: Option<Duration>,
    told: u16,
}

impl Load {
    fn start() -> Self {
        Self {
            at: Instant::now(),
            used: machine::processor_time(),
            told: 0,
        }
    }

    /// Returns the share since the last measurement, in thousandths, if it is time for
    /// one and the share has changed.
    fn measure(&mut self) -> Option<u16> {
        let elapsed = self.at.elapsed();
        if elapsed < LOAD_INTERVAL {
            return None;
        }
        let used = machine::processor_time();
        let spent = used?.saturating_sub(self.used?);
        (self.at, self.used) = (Instant::now(), used);
        let share = per_mille(spent, elapsed);
        (std::mem::replace(&mut self.told, share) != share).then_some(share)
    }
}

fn per_mille(spent: Duration, elapsed: Duration) -> u16 {
    let share = spent.as_micros() * 1000 / elapsed.as_micros().max(1);
    u16::try_from(share).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_a_share_of_one_core() {
        let ms = Duration::from_millis;
        assert_eq!(per_mille(ms(125), ms(10_000)), 12);
        assert_eq!(per_mille(ms(30_000), ms(10_000)), 3_000);
        assert_eq!(per_mille(ms(30_000), ms(0)), u16::MAX);
    }
}
