//! When to look for others, and when to look again.
//!
//! A node that is alone looks at once, and again after a second, two, four, up to a minute. One with
//! few neighbours looks a minute later, and ever less often, up to once an hour: a small overlay
//! always has few. One with enough does not look.

use std::time::Duration;

use enishi_overlay::Rng;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Company, FEW};

const ALONE_MIN: Duration = Duration::from_secs(1);
const ALONE_MAX: Duration = Duration::from_secs(60);
const FEW_MIN: Duration = Duration::from_secs(60);
const FEW_MAX: Duration = Duration::from_secs(3600);

/// How much a node needs others; the greater, the more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Enough,
    Few,
    Alone,
}

impl Need {
    fn of(company: &Company) -> Self {
        match company.near {
            0 => Self::Alone,
            near if near < FEW => Self::Few,
            _ => Self::Enough,
        }
    }

    /// Returns how long after the last of so many looks the next is due; none for never.
    fn wait(self, looks: u32) -> Option<Duration> {
        let doubled =
            |first: Duration, most: Duration| first.saturating_mul(1 << looks.min(16)).min(most);
        match self {
            Self::Enough => None,
            Self::Few => Some(doubled(FEW_MIN, FEW_MAX)),
            Self::Alone if looks == 0 => Some(Duration::ZERO),
            Self::Alone => Some(doubled(ALONE_MIN / 2, ALONE_MAX)),
        }
    }
}

/// Says when to look.
#[derive(Debug)]
pub(super) struct Pace {
    company: watch::Receiver<Company>,
    rng: Rng,
    need: Need,
    looks: u32,
    since: Instant,
}

impl Pace {
    pub(super) fn new(company: watch::Receiver<Company>, rng: Rng) -> Self {
        let need = Need::of(&company.borrow());
        Self {
            need,
            company,
            rng,
            looks: 0,
            since: Instant::now(),
        }
    }

    /// Waits until it is time to look.
    pub(super) async fn turn(&mut self) {
        loop {
            self.note_need();
            let wait = self.need.wait(self.looks);
            // Nodes that lost each other in one moment do not all ask in another one.
            let wait = wait.map(|wait| wait + self.rng.duration_below(wait / 4));
            let due = wait.map(|wait| self.since + wait);
            let due = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => break,
                changed = self.company.changed() => if changed.is_err() {
                    // The node has stopped, and this is about to be.
                    return std::future::pending().await;
                }
            }
        }
        self.looks += 1;
        self.since = Instant::now();
    }

    fn note_need(&mut self) {
        let need = Need::of(&self.company.borrow_and_update());
        if need != self.need {
            self.looks = 0;
            self.since = Instant::now();
        }
        self.need = need;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lonely_look_often_and_the_content_never() {
        let secs = |need: Need, looks| need.wait(looks).map(|wait| wait.as_secs());
        assert_eq!(secs(Need::Enough, 0), None);
        let alone: Vec<_> = (0..10).map(|looks| secs(Need::Alone, looks)).collect();
        assert_eq!(alone[..5], [Some(0), Some(1), Some(2), Some(4), Some(8)]);
        assert_eq!(alone[9], Some(60));
        assert_eq!(secs(Need::Few, 0), Some(60));
        assert_eq!(secs(Need::Few, 60), Some(3600));
        let company = |near| Company {
            near,
            ..Company::default()
        };
        assert_eq!(Need::of(&company(0)), Need::Alone);
        assert_eq!(Need::of(&company(FEW - 1)), Need::Few);
        assert_eq!(Need::of(&company(FEW)), Need::Enough);
    }

    #[tokio::test(start_paused = true)]
    async fn who_loses_all_others_looks_at_once() {
        let content = Company {
            near: FEW,
            ..Company::default()
        };
        let (sender, company) = watch::channel(content);
        let mut pace = Pace::new(company, Rng::from_seed([1; 32]));
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, pace.turn()).await.is_err());
        sender.send_replace(Company::default());
        let soon = Duration::from_millis(1);
        assert!(tokio::time::timeout(soon, pace.turn()).await.is_ok());
        assert!(tokio::time::timeout(soon, pace.turn()).await.is_err());
        assert!(
            tokio::time::timeout(2 * ALONE_MIN, pace.turn())
                .await
                .is_ok()
        );
    }
}
