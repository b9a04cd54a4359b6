//! Whether the nodes are there by way of whom packets go.
//!
//! Only who is used is asked, so an idle node asks nobody.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use enishi_overlay::NodeId;

use super::IN_USE;

/// A node that carries is asked whether it is there when it was silent for so long while it was
/// used, and again after as long; it is taken to be gone after three questions.
pub(super) const ASK_AFTER: Duration = Duration::from_millis(300);
pub(super) const GONE_AFTER: Duration = Duration::from_millis(900);

/// The same for a node to which there is a link: TCP needs as long to send twice what was lost (RFC 6298,
/// section 5), and a proxy may hold what is asked back.
pub(super) const LINK_GONE_AFTER: Duration = Duration::from_secs(4);

/// Until then a silent link is kept, and other ways go before it after a time between [`GONE_AFTER`] and
/// this one: twice its last silence that had an end.
pub(super) const LINK_SILENT_AFTER: Duration = Duration::from_secs(2);

/// For how long a node that was taken to be gone comes after all others, unless it is heard: others go on
/// naming it until their sessions with it end. And the most such nodes.
pub(super) const LOST_FOR: Duration = Duration::from_secs(30);
const LOST_MAX: usize = 1_024;

/// For how long a node that says that it carries as much as it can comes after others.
/// It says so once a second; what comes sooner is not looked at.
pub(super) const BUSY_FOR: Duration = Duration::from_secs(10);
pub(super) const BUSY_PAUSE: Duration = Duration::from_millis(500);

/// The nodes that carry.
#[derive(Default)]
pub(super) struct Relays {
    used: HashMap<NodeId, Relay>,
    /// Those that were taken to be gone.
    lost: HashMap<NodeId, Instant>,
    /// Those that said to be busy; none that is not used.
    busy: HashMap<NodeId, Instant>,
}

struct Relay {
    heard: Instant,
    used: Instant,
    asked: Option<Instant>,
    /// After how long a silence other ways go first, where it has a link.
    patience: Duration,
}

impl Relays {
    /// Something goes by way of a node.
    pub(super) fn use_by(&mut self, now: Instant, relay: NodeId) {
        let relay = self.used.entry(relay).or_insert_with(|| Relay::new(now));
        if relay.asked.is_none() && now.duration_since(relay.used) > ASK_AFTER {
            // It was not used, so it had no reason to speak.
            relay.heard = now;
        }
        relay.used = now;
    }

    /// A node gave a sign of life.
    pub(super) fn heard(&mut self, now: Instant, relay: NodeId) {
        self.lost.remove(&relay);
        let Some(relay) = self.used.get_mut(&relay) else {
            return;
        };
        if relay.asked.take().is_some() {
            let silence = now.duration_since(relay.heard);
            relay.patience = (silence * 2).clamp(GONE_AFTER, LINK_SILENT_AFTER);
        }
        relay.heard = now;
    }

    /// A node says that it carries as much as it can. Tells whether that counts: if it is used, and has not
    /// said so a moment ago.
    pub(super) fn busy(&mut self, now: Instant, relay: NodeId) -> bool {
        let lately = |said: &Instant| now.duration_since(*said) < BUSY_PAUSE;
        let counts = self.used.contains_key(&relay)
            && !self.busy.get(&relay).is_some_and(lately)
            && self.busy.len() < LOST_MAX;
        if counts {
            self.busy.insert(relay, now);
        }
        counts
    }

    /// Tells whether it said so lately.
    pub(super) fn is_busy(&self, now: Instant, relay: NodeId) -> bool {
        let since = self.busy.get(&relay);
        since.is_some_and(|since| now.duration_since(*since) < BUSY_FOR)
    }

    /// Forgets a node, as nothing can go by it.
    pub(super) fn remove(&mut self, relay: NodeId) {
        self.used.remove(&relay);
    }

    /// Tells whether a node was taken to be gone, and not heard since.
    pub(super) fn is_lost(&self, now: Instant, relay: NodeId) -> bool {
        let since = self.lost.get(&relay);
        since.is_some_and(|since| now.duration_since(*since) < LOST_FOR)
    }

    /// Tells whether other ways go before one by a node: it was asked in vain, or is lost. A link that leads
    /// to the peer `itself` has more time than one to a node that carries.
    pub(super) fn doubts(&self, now: Instant, relay: NodeId, itself: bool) -> bool {
        let is_silent = |relay: &Relay| {
            let patience = if itself {
                LINK_SILENT_AFTER
            } else {
                relay.patience
            };
            relay.asked.is_some() && now.duration_since(relay.heard) >= patience
        };
        self.used.get(&relay).is_some_and(is_silent) || self.is_lost(now, relay)
    }

    /// Returns which nodes are to be asked, and which are gone.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        is_link: impl Fn(&NodeId) -> bool,
    ) -> (Vec<NodeId>, Vec<NodeId>) {
        let (mut ask, mut gone) = (Vec::new(), Vec::new());
        for (id, relay) in &mut self.used {
            let gone_after = if is_link(id) {
                LINK_GONE_AFTER
            } else {
                GONE_AFTER
            };
            let silent = now.duration_since(relay.heard);
            let is_unused = now.duration_since(relay.used) > GONE_AFTER;
            if (is_unused && relay.asked.is_none()) || silent < ASK_AFTER {
                continue;
            }
            if silent >= gone_after && relay.asked.is_some() {
                gone.push(*id);
            } else if relay
                .asked
                .is_none_or(|at| now.duration_since(at) >= ASK_AFTER)
            {
                relay.asked = Some(now);
                ask.push(*id);
            }
        }
        self.used
            .retain(|_, relay| now.duration_since(relay.used) < IN_USE);
        self.lost
            .retain(|_, since| now.duration_since(*since) < LOST_FOR);
        self.busy
            .retain(|_, since| now.duration_since(*since) < BUSY_FOR);
        let room = LOST_MAX.saturating_sub(self.lost.len());
        self.lost
            .extend(gone.iter().take(room).map(|id| (*id, now)));
        (ask, gone)
    }
}

impl Relay {
    fn new(now: Instant) -> Self {
        Self {
            heard: now,
            used: now,
            asked: None,
            patience: GONE_AFTER,
        }
    }
}
