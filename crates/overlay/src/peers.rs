//! The peers of a node: everyone with whom it keeps up an acquaintance, that is, its
//! near neighbours and its long links in both directions.

use std::sync::Arc;
use std::time::Duration;

use crate::class::Grade;
use crate::contact::Contact;
use crate::coordinate::Coordinate;
use crate::id::NodeId;
use crate::near::Place;
use crate::ring::Position;
use crate::small_map::SmallMap;
use crate::time::Time;
use crate::view::{Entry, Member, Role, View};

/// The round-trip time before anything was measured.
const RTT_UNKNOWN: Duration = Duration::from_millis(400);
/// What a round trip takes as long as none was measured.
const RTT_USUAL: Duration = Duration::from_millis(100);

/// The least time to wait for a sign of life.
const TIMEOUT_MIN: Duration = Duration::from_millis(300);

/// A smoothed round-trip time and its variation (RFC 6298, section 2).
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundTrip {
    smoothed: Option<Duration>,
    variation: Duration,
    /// The least of late: queues and repeated packets only add to it.
    least: Duration,
    guessed: bool,
}

impl RoundTrip {
    /// Takes in what may be the round trip, until one is measured.
    pub fn guess(&mut self, sample: Duration) {
        if self.smoothed.is_none() {
            self.smoothed = Some(sample);
            self.variation = sample / 2;
            self.least = sample;
            self.guessed = true;
        }
    }

    /// Takes in a measurement.
    pub fn measured(&mut self, sample: Duration) {
        match self.smoothed.filter(|_| !self.guessed) {
            None => {
                self.smoothed = Some(sample);
                self.variation = sample / 2;
                self.least = sample;
                self.guessed = false;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
                self.least = sample.min(self.least + self.least / 16);
            }
        }
    }

    /// Returns the smoothed time; none before the first measurement.
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Returns the least time of late, which tells of the way itself; none before the first
    /// measurement.
    pub fn least(&self) -> Option<Duration> {
        self.smoothed.map(|_| self.least)
    }

    /// Returns the smoothed time, or what is usual before anything was measured.
    pub fn usual(&self) -> Duration {
        self.smoothed.unwrap_or(RTT_USUAL)
    }

    /// Returns how long to wait before a second try is worth its cost: 1.3 round trips
    /// or four variations, whichever is longer, and never under 10 ms.
    pub fn hedge_delay(&self) -> Duration {
        let Some(smoothed) = self.smoothed else {
            return RTT_UNKNOWN;
        };
        let usual = smoothed * 13 / 10;
        usual.max(smoothed + self.variation * 4) + Duration::from_millis(10)
    }

    /// Returns how long to wait for a sign of life before asking again: RFC 6298's
    /// timeout. Its lower bound of one second is there for the sake of a network full of bulk
    /// transfers; a question for a sign of life is small and asked three times, and with this
    /// bound a dead neighbour is known as dead within two seconds. The first measurements leave
    /// a wide variation, which is not to make a dead node look alive for long.
    pub fn timeout(&self) -> Duration {
        let smoothed = self.smoothed.unwrap_or(RTT_UNKNOWN);
        let most = smoothed * 2 + TIMEOUT_MIN;
        (smoothed + self.variation * 4).clamp(TIMEOUT_MIN, most)
    }
}

/// How often to ask before a peer is taken for dead. One message in a hundred is lost on a
/// bad path, and three in a row hardly ever.
pub(crate) const PROBE_TRIES: usize = 3;

/// A question for a sign of life that is on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    /// What each try carries: nobody is to answer one before it was sent.
    nonces: [u16; PROBE_TRIES],
    /// When each try was sent.
    sent_at: [Time; PROBE_TRIES],
    tries: u8,
    /// Whether the answer to the latest try was given more time.
    pub(crate) is_extended: bool,
}

impl Probe {
    /// Makes a question that was sent once.
    pub(crate) fn new(now: Time, nonce: u16) -> Self {
        Self {
            nonces: [nonce; PROBE_TRIES],
            sent_at: [now; PROBE_TRIES],
            tries: 1,
            is_extended: false,
        }
    }

    /// Sends it once more; none after [`PROBE_TRIES`].
    pub(crate) fn again(mut self, now: Time, nonce: u16) -> Option<Self> {
        let tries = self.tries();
        *self.sent_at.get_mut(tries)? = now;
        *self.nonces.get_mut(tries)? = nonce;
        self.tries += 1;
        self.is_extended = false;
        Some(self)
    }

    /// Returns how often it was sent.
    pub(crate) fn tries(&self) -> usize {
        usize::from(self.tries)
    }

    /// Returns what the latest try carries.
    pub(crate) fn nonce(&self) -> u16 {
        self.nonces[self.tries() - 1]
    }

    /// Returns when it was last sent.
    pub(crate) fn sent_at(&self) -> Time {
        self.sent_at[self.tries() - 1]
    }

    /// Returns when the try was sent that an answer belongs to.
    pub(crate) fn answered(&self, nonce: u16) -> Option<Time> {
        let sent = self.nonces.iter().zip(&self.sent_at).take(self.tries());
        let mut sent = sent.filter(|(carried, _)| **carried == nonce);
        sent.next().map(|(_, at)| *at)
    }
}

/// What a node knows of one peer.
#[derive(Clone, Debug)]
pub struct Peer {
    pub(crate) contact: Contact,
    pub(crate) position: Position,
    /// For a link that this node drew: the size estimate at that time.
    pub(crate) drawn_at_size: Option<u64>,
    /// Whether the peer drew a link to this node.
    pub(crate) link_in: bool,
    pub(crate) round_trip: RoundTrip,
    pub(crate) heard_at: Time,
    /// When it was sent what it did not confirm in time.
    pub(crate) mute_since: Option<Time>,
    /// Where in the network it says to be.
    pub(crate) coordinate: Coordinate,
    /// Its class and score, as it says.
    pub(crate) grade: Grade,
    pub(crate) view: Arc<View>,
    /// The view of this node that the peer was sent last.
    pub(crate) sent: Option<Arc<View>>,
    /// What the peer was told last of this node's own place and grade.
    pub(crate) told: Option<(Coordinate, Grade)>,
    pub(crate) probe: Option<Probe>,
}

impl Peer {
    pub(crate) fn new(contact: Contact, position: Position, now: Time) -> Self {
        Self {
            contact,
            position,
            drawn_at_size: None,
            link_in: false,
            round_trip: RoundTrip::default(),
            heard_at: now,
            mute_since: None,
            coordinate: Coordinate::default(),
            grade: Grade::default(),
            view: Arc::default(),
            sent: None,
            told: None,
            probe: None,
        }
    }

    /// Returns by when the last try of a question is answered, if the peer is there: after twice
    /// the time for the last of all, after what may have been a burst of losses.
    pub(crate) fn answer_due(&self, probe: &Probe) -> Time {
        let times = probe.tries().div_ceil(2) as u32;
        probe.sent_at() + self.round_trip.timeout() * times
    }

    /// Returns how the peer may be reached.
    pub fn contact(&self) -> &Contact {
        &self.contact
    }

    /// Returns where in the network it says to be.
    pub fn coordinate(&self) -> Coordinate {
        self.coordinate
    }

    /// Returns its class and score, as it says.
    pub fn grade(&self) -> Grade {
        self.grade
    }

    /// Returns its round-trip time.
    pub fn round_trip(&self) -> RoundTrip {
        self.round_trip
    }

    /// Tells whether the peer is a long link, in either direction.
    pub fn is_long(&self) -> bool {
        self.drawn_at_size.is_some() || self.link_in
    }

    /// Returns the peer's own neighbours as far as they are known.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Returns what this node tells of the peer to others.
    pub(crate) fn entry(&self, role: Role) -> Entry {
        Entry {
            contact: self.contact.clone(),
            role,
            coordinate: self.coordinate,
            grade: self.grade,
        }
    }

    /// Returns the same as part of a view.
    pub(crate) fn as_member(&self, role: Role) -> Member {
        Member::new(self.position, &self.entry(role))
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            position: self.position,
            id: self.contact.id(),
        }
    }
}

/// The peers by id.
pub type Peers = SmallMap<NodeId, Peer>;
