//! The six periodic actions.
//!
//! libsymphony sends six kinds of control message at intervals of 11, 13, 17, 23, 29
//! and 89 seconds: as the numbers have no common factor, the kinds seldom fall
//! together (document 004, section 3.5). Here each node also starts every period at a
//! random phase and lengthens or shortens each interval by up to a fifth, so that
//! nodes which started together do not stay together.

use std::time::Duration;

use super::{Alarm, Overlay};
use crate::config::UpkeepClock;
use crate::id::NodeId;
use crate::time::Time;

/// The period of everything by [`UpkeepClock::Common`].
const COMMON_PERIOD: Duration = Duration::from_secs(17);

/// In how many rounds of [`Period::Probe`] every peer has been asked once.
const PROBE_ROUNDS: usize = 7;

/// How long changes among the near neighbours are gathered before they are kept.
const REMEMBER_DELAY: Duration = Duration::from_secs(1);

/// A periodic action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Period {
    /// Ask the nearest neighbour on each side for a sign of life.
    Stabilise,
    /// Ask the peers that were silent for longest.
    Probe,
    /// Tell the peers how this node's view changed.
    Announce,
    /// Look whether links are missing or outdated.
    Link,
    /// Look for this node's own place from far away.
    Place,
    /// Keep the present peers for the next start.
    Remember,
}

impl Period {
    const ALL: [Self; 6] = [
        Self::Stabilise,
        Self::Probe,
        Self::Announce,
        Self::Link,
        Self::Place,
        Self::Remember,
    ];

    const fn length(self) -> Duration {
        Duration::from_secs(match self {
            Self::Stabilise => 11,
            Self::Probe => 13,
            Self::Announce => 17,
            Self::Link => 23,
            Self::Place => 29,
            Self::Remember => 89,
        })
    }
}

impl Overlay {
    pub(super) fn start_periods(&mut self, now: Time) {
        for period in Period::ALL {
            let phase = match self.config.upkeep {
                UpkeepClock::Primes => self.rng.duration_below(period.length()),
                UpkeepClock::Common => COMMON_PERIOD,
            };
            self.deadlines.set(Alarm::Period(period), now + phase);
        }
    }

    /// Has the present peers kept soon, because they changed.
    pub(super) fn remember_soon(&mut self, now: Time) {
        let remember = Alarm::Period(Period::Remember);
        self.deadlines.set_no_later(remember, now + REMEMBER_DELAY);
    }

    pub(super) fn on_period(&mut self, now: Time, period: Period) {
        let wait = match self.config.upkeep {
            UpkeepClock::Primes => self.rng.jitter(period.length()),
            UpkeepClock::Common => COMMON_PERIOD,
        };
        self.deadlines.set(Alarm::Period(period), now + wait);
        if matches!(period, Period::Probe | Period::Link) {
            self.estimate_size();
        }
        if self.is_client() {
            return self.on_client_period(now, period);
        }
        match period {
            Period::Stabilise => self.probe_nearest(now),
            Period::Probe => {
                self.probe_silent(now);
                self.clients.forget_silent(now);
            }
            Period::Announce => self.announce_to_all(),
            Period::Link => {
                self.regulate(now);
                self.keep_links(now);
            }
            Period::Place => {
                self.check_place_seldom(now);
                self.try_a_peer(now);
            }
            Period::Remember => self.keep_contacts(),
        }
    }

    fn probe_nearest(&mut self, now: Time) {
        let ends = [
            self.near.successors().first(),
            self.near.predecessors().first(),
        ];
        let ids: Vec<NodeId> = ends.into_iter().flatten().map(|place| place.id).collect();
        for id in ids {
            self.probe(now, id);
        }
    }

    fn probe_silent(&mut self, now: Time) {
        let mut peers: Vec<(Time, NodeId)> = self
            .peers
            .iter()
            .map(|(id, peer)| (peer.heard_at, *id))
            .collect();
        peers.sort_unstable();
        let count = peers.len().div_ceil(PROBE_ROUNDS);
        for (_, id) in peers.into_iter().take(count) {
            self.probe(now, id);
        }
    }

    fn announce_to_all(&mut self) {
        // Places in the network change a little all the time; now and then is enough.
        self.renew_view();
        let peers: Vec<NodeId> = self.peers.keys().copied().collect();
        for id in peers {
            self.announce_to(id);
        }
    }
}
