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
use crate::message::{Message, Query};
use crate::peers::Peer;
use crate::time::Time;

/// The period of everything by [`UpkeepClock::Common`].
const COMMON_PERIOD: Duration = Duration::from_secs(17);

/// In how many rounds of [`Period::Probe`] every peer has been asked once.
const PROBE_ROUNDS: usize = 7;

/// Who was heard within this time is not asked for a sign of life: of the nearest neighbours,
/// which ask each other, and of all others.
const HEARD_NEAREST: Duration = Duration::from_secs(4);
const HEARD_OTHERS: Duration = Duration::from_secs(11);

/// Whoever comes or goes is told at once when it is so many, and other changes with them; else
/// in every so many rounds of [`Period::Announce`]. Near neighbours hear of near neighbours
/// within a moment anyway.
const ANNOUNCE_WORTH: u32 = 2;
const ANNOUNCE_ROUNDS: u32 = 3;
/// In every so many rounds when nobody came or went, and only places in the network and grades
/// have changed: routes are a little longer by them at most.
const ANNOUNCE_QUIET_ROUNDS: u32 = 12;

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
        let length = match period {
            Period::Probe | Period::Place => self.effort.stretched_time(period.length()),
            Period::Stabilise | Period::Announce | Period::Link | Period::Remember => {
                period.length()
            }
        };
        let wait = match self.config.upkeep {
            UpkeepClock::Primes => self.rng.jitter(length),
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
                self.effort.look(now);
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
            self.probe_unless_heard(now, id, HEARD_NEAREST);
        }
    }

    fn probe_unless_heard(&mut self, now: Time, id: NodeId, lately: Duration) {
        let silent = |peer: &Peer| now.since(peer.heard_at) >= lately;
        if self.peers.get(&id).is_some_and(silent) {
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
        let lately = self.effort.stretched_time(HEARD_OTHERS);
        for (_, id) in peers.into_iter().take(count) {
            self.probe_unless_heard(now, id, lately);
        }
    }

    /// Tells those what changed who were told something else, when it is worth a message or
    /// has waited for long.
    fn announce_to_all(&mut self) {
        // Places in the network change a little all the time; now and then is enough.
        self.renew_view();
        self.rounds = self.rounds.wrapping_add(1);
        let due = |rounds| self.rounds.is_multiple_of(self.effort.stretched(rounds));
        let enough = if due(ANNOUNCE_QUIET_ROUNDS) {
            0
        } else if due(ANNOUNCE_ROUNDS) {
            1
        } else {
            self.effort.stretched(ANNOUNCE_WORTH) as usize
        };
        let worth = |peer: &Peer| {
            let sent = peer.sent.as_ref();
            sent.is_none_or(|sent| self.view.changes_since(sent) >= enough)
        };
        let peers = self.peers.iter().filter(|(_, peer)| worth(peer));
        let peers: Vec<NodeId> = peers.map(|(id, _)| *id).collect();
        for id in peers {
            self.announce_to(id);
        }
    }

    /// Counts a message towards the budget when it is one of this node's own upkeep, signs of
    /// life and welcomes to its peers included: not what it passes on or answers for others, by
    /// which strangers could take its links away, or says for services.
    pub(super) fn note_upkeep(&mut self, message: &Message) {
        let counts = match message {
            Message::Hello(_)
            | Message::Welcome(_)
            | Message::Ping { .. }
            | Message::Pong { .. }
            | Message::ViewRequest { .. }
            | Message::ViewUpdate(_) => true,
            Message::Routed(routed) => {
                let own = self.is_self(routed.origin.id());
                own && matches!(routed.query, Query::Place { .. } | Query::Links { .. })
            }
            Message::Leave
            | Message::Introduce { .. }
            | Message::Introduced { .. }
            | Message::HopAck { .. }
            | Message::HopNack { .. }
            | Message::Back { .. }
            | Message::Answer(_)
            | Message::Find { .. }
            | Message::Found { .. }
            | Message::Direct { .. }
            | Message::Summon { .. }
            | Message::Admission(_) => false,
        };
        if counts {
            self.effort.spend(message.encoded_len());
        }
    }
}
