//! Streams that are tried before there is a session.
//!
//! `Try` is answered by four frames, one each tenth of a second: whoever asks sees whether they come as they
//! were sent. `Await` is answered when a stream with the same token has begun to come.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::{AskId, Far};
use crate::Time;
use crate::frame::{Frame, Kind, Token};
use crate::way::ReplyCoding;

/// Frames that answer `Try`, and how long after each other they are sent.
const FRAMES: u32 = 4;
const APART: Duration = Duration::from_millis(100);

/// How long the halves of a trial wait for each other.
const LASTS: Duration = Duration::from_secs(5);

/// Trials at once, in all and of one address.
const TRIALS_MAX: usize = 256;
const TRIALS_PER_PLACE_MAX: usize = 32;

/// What a trial costs of what an address may ask for, in octets.
const COST_BYTES: u32 = 1_024;

/// All trials.
#[derive(Debug, Default)]
pub(super) struct Trials {
    open: BTreeMap<AskId, Trial>,
}

#[derive(Debug)]
struct Trial {
    place: IpAddr,
    what: What,
    seq: u32,
    token: Token,
    reply: ReplyCoding,
    at: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// So many frames were sent.
    Try(u32),
    Await,
    Pour,
}

impl Trials {
    pub(super) fn is_open(&self, ask: AskId) -> bool {
        self.open.contains_key(&ask)
    }

    pub(super) fn is_poured(&self, ask: AskId) -> bool {
        let trial = self.open.get(&ask);
        trial.is_some_and(|trial| trial.what == What::Pour)
    }

    pub(super) fn gone(&mut self, ask: AskId) {
        self.open.remove(&ask);
    }

    /// Looks at all trials, of which there are few.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.open.values().map(|trial| trial.at).min()
    }

    fn has_room(&self, place: IpAddr) -> bool {
        let here = self.open.values().filter(|trial| trial.place == place);
        self.open.len() < TRIALS_MAX && here.count() < TRIALS_PER_PLACE_MAX
    }

    fn find(&self, what: What, token: Token) -> Option<AskId> {
        let mut found = self.open.iter();
        let found = found.find(|(_, trial)| trial.what == what && trial.token == token);
        found.map(|(ask, _)| *ask)
    }
}

impl Far {
    pub(super) fn try_stream(&mut self, now: Time, ask: AskId, place: IpAddr, frame: &Frame) {
        let may = self.trials.has_room(place)
            && self
                .place(now, place)
                .is_some_and(|place| place.probe_bytes.take(now, COST_BYTES));
        if !may {
            return self.say(ask, Kind::Busy, frame.reply, frame.seq);
        }
        let (what, at) = match frame.kind {
            Kind::Try if frame.reply == ReplyCoding::Text => {
                return self.say(ask, Kind::Damaged, frame.reply, frame.seq);
            }
            Kind::Try => (What::Try(0), now),
            Kind::Await => (What::Await, now + LASTS),
            _ => (What::Pour, now + LASTS),
        };
        self.trials.open.insert(
            ask,
            Trial {
                place,
                what,
                seq: frame.seq,
                token: frame.token,
                reply: frame.reply,
                at,
            },
        );
        // Either half may come first.
        if self.trials.find(What::Pour, frame.token).is_some()
            && let Some(waits) = self.trials.find(What::Await, frame.token)
        {
            self.end_trial(waits);
        }
        self.try_on(now);
    }

    /// Sends what is due, and ends what took too long.
    pub(super) fn try_on(&mut self, now: Time) {
        let due = |(ask, trial): (&AskId, &Trial)| (trial.at <= now).then_some(*ask);
        let due: Vec<AskId> = self.trials.open.iter().filter_map(due).collect();
        for ask in due {
            let Some(trial) = self.trials.open.get_mut(&ask) else {
                continue;
            };
            let (seq, reply) = (trial.seq, trial.reply);
            let What::Try(sent) = &mut trial.what else {
                self.trials.gone(ask);
                self.say(ask, Kind::Busy, reply, seq);
                continue;
            };
            let mut frame = Frame::new(Kind::Probed, Token::default());
            (frame.seq, frame.ack) = (*sent, seq);
            *sent += 1;
            let is_last = *sent == FRAMES;
            trial.at = now + APART;
            self.part(ask, &frame, reply);
            if is_last {
                self.trials.gone(ask);
                self.end(ask);
            }
        }
    }

    /// Answers one of the halves of a trial.
    pub(super) fn end_trial(&mut self, ask: AskId) {
        if let Some(trial) = self.trials.open.remove(&ask) {
            self.say(ask, Kind::Probed, trial.reply, trial.seq);
        }
    }
}
