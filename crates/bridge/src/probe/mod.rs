//! Finds out what passes a proxy, before the first packet.
//!
//! Four questions, one after the other, each a list of trials in order of preference:
//!
//! 1. *Does anything pass?* A small GET, as what we are and as a browser, with replies of each dress;
//!    then a POST, should GET be forbidden.
//! 2. *How does something go up?* 1,200 octets of every value as a raw POST, an upload, a form, and a
//!    GET with all in its path.
//! 3. *How long may replies be?* And does what is written of one arrive before it has ended?
//! 4. *How long may requests be?* At last, as some proxies take long requests with short replies
//!    for a leak, and let nothing pass for a while. And does what was sent of one arrive before it has ended?
//!
//! Trials of the first two questions start one after the other within a quarter of a second, or when
//! one has failed, up to [`TRIALS_AT_ONCE`] at once; the first in the list that passes is taken. Those
//! of the last two are steps of a ladder. All of it ends within [`PROBE_MAX`].

mod outcome;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

pub use outcome::{Memory, Outcome, ProxyAuth};

use crate::exchange::{
    Answered, Refusal, RequestId, STREAM_BYTES_MAX, STREAM_BYTES_MIN, pattern, read,
};
use crate::frame::{Frame, Kind, Token};
use crate::way::{Agent, Ask, Coding, ReplyCoding, Way};
use crate::{FRAME_BYTES_MAX, Time};
use watch::Watch;

/// The longest time that all trials may take.
pub const PROBE_MAX: Duration = Duration::from_secs(60);

/// Trials that are under way at once.
pub const TRIALS_AT_ONCE: usize = 4;

/// The wait before the next trial begins beside those that have not been answered.
const STAGGER: Duration = Duration::from_millis(250);

/// How long a small trial may take.
const SMALL_WITHIN: Duration = Duration::from_secs(4);

/// How long a step of a ladder may take.
const LONG_WITHIN: Duration = Duration::from_secs(8);

/// A step that takes longer is the last: the network is too slow for long frames.
const SLOW: Duration = Duration::from_secs(3);

/// What must pass in one request or reply, in octets.
const SMALL_BYTES: usize = 1_280;

/// The steps of the ladders, in octets.
const STEPS: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, FRAME_BYTES_MAX];

/// Steps from this length on are seldom of use, and end a ladder when they take a quarter of [`SLOW`].
const LONG_BYTES: usize = 256 << 10;

/// The same for frames in paths.
const PATH_STEPS: [usize; 2] = [3_000, 6_000];

/// One request as it was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The dress of the request.
    pub coding: Coding,
    /// Who asked.
    pub agent: Agent,
    /// The dress of the reply.
    pub reply: ReplyCoding,
    /// How long the frame was, in octets.
    pub ask_bytes: usize,
    /// How long the reply was to be, in octets.
    pub reply_bytes: usize,
}

/// What happens to a probe.
#[derive(Debug)]
pub enum ProbeInput {
    /// Begin, or the deadline has come.
    Timeout,
    /// A request was answered, or will not be; and what the proxy asked for.
    Answered(RequestId, Answered, ProxyAuth),
    /// The next frame of a reply that is a stream.
    Part(RequestId, Bytes),
}

/// What a probe wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum ProbeOutput {
    /// Send this request, and give it up after this long.
    Ask(RequestId, Ask, Duration),
    /// Give a request up. It is not answered any longer.
    Stop(RequestId),
    /// The probe has ended.
    Done(Box<Outcome>),
}

/// Looks for a way. Begin it with [`ProbeInput::Timeout`].
#[derive(Debug)]
pub struct Probe {
    rng: ChaCha12Rng,
    began: Option<Time>,
    stage: Stage,
    race: Race,
    watch: Option<Watch>,
    /// Which trial it is, when it was begun, and its number.
    asked: BTreeMap<RequestId, (usize, Time, u32)>,
    requests: u64,
    seq: u32,
    /// The first way that passed, made better as trials pass.
    way: Option<Way>,
    outcome: Outcome,
    out: VecDeque<ProbeOutput>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Anything,
    Upward,
    Replies,
    /// Whether replies can be streams.
    Streams,
    Asks,
    /// Whether what passed still does, after something longer was forbidden.
    Flagged,
    /// Whether requests can be streams.
    Pours,
    Done,
}

/// Trials in order of preference.
#[derive(Debug)]
struct Race {
    trials: Vec<Trial>,
    results: Vec<Option<Result<(), Refusal>>>,
    started: usize,
    next_start: Time,
    /// One after the other, until one fails.
    is_ladder: bool,
}

impl Probe {
    /// Makes a probe. The addresses of requests are drawn from `seed`.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            rng: ChaCha12Rng::from_seed(seed),
            began: None,
            stage: Stage::Anything,
            race: Race::new(anything(), false),
            watch: None,
            asked: BTreeMap::new(),
            requests: 0,
            seq: 0,
            way: None,
            outcome: Outcome::default(),
            out: VecDeque::new(),
        }
    }

    /// Takes an input in; what is to be done comes out.
    pub fn handle(
        &mut self,
        now: Time,
        input: ProbeInput,
    ) -> impl Iterator<Item = ProbeOutput> + '_ {
        let began = *self.began.get_or_insert(now);
        match input {
            ProbeInput::Answered(id, answered, auth) => self.answered(now, id, answered, auth),
            ProbeInput::Part(id, octets) => self.came(now, id, &octets),
            ProbeInput::Timeout => {}
        }
        if self.stage != Stage::Done && now >= began + PROBE_MAX {
            self.finish();
        }
        while self.stage != Stage::Done {
            if matches!(self.stage, Stage::Streams | Stage::Pours) {
                if !self.watched(now) {
                    break;
                }
            } else if let Some(best) = self.race.settled() {
                self.advance(best);
            } else {
                self.start(now);
                break;
            }
        }
        self.out.drain(..)
    }

    /// Returns when [`ProbeInput::Timeout`] is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        let began = self.began.filter(|_| self.stage != Stage::Done)?;
        let end = began + PROBE_MAX;
        if let Some(watch) = &self.watch {
            return Some(end.min(watch.deadline()));
        }
        let more = self.race.may_start() && self.asked.len() < TRIALS_AT_ONCE;
        Some(if more {
            end.min(self.race.next_start)
        } else {
            end
        })
    }

    fn start(&mut self, now: Time) {
        while self.race.may_start()
            && self.asked.len() < TRIALS_AT_ONCE
            && self.race.next_start <= now
        {
            let trial = self.race.trials[self.race.started];
            self.ask(now, self.race.started, trial);
            self.race.started += 1;
            self.race.next_start = now + STAGGER;
        }
    }

    fn ask(&mut self, now: Time, index: usize, trial: Trial) {
        let mut frame = Frame::new(Kind::Probe, Token::default());
        frame.seq = self.seq;
        frame.most = u32::try_from(trial.reply_bytes).unwrap_or(u32::MAX);
        frame.reply = trial.reply;
        frame.packets = pattern(trial.ask_bytes);
        self.seq += 1;
        let unique = self.rng.next_u64();
        let ask = Ask::new(&frame.encode(0), trial.coding, trial.agent, unique);
        let id = RequestId(self.requests);
        self.requests += 1;
        self.asked.insert(id, (index, now, frame.seq));
        let within = if self.race.is_ladder {
            LONG_WITHIN
        } else {
            SMALL_WITHIN
        };
        self.out.push_back(ProbeOutput::Ask(id, ask, within));
    }

    fn answered(&mut self, now: Time, id: RequestId, answered: Answered, auth: ProxyAuth) {
        if auth != ProxyAuth::None {
            self.outcome.auth = auth;
        }
        if self.watch_answered(id, &answered) {
            return;
        }
        // Answers to the trials of an earlier question find nothing here.
        let Some((index, at, seq)) = self.asked.remove(&id) else {
            return;
        };
        let trial = self.race.trials[index];
        let result = read(answered).and_then(|frame| match frame.kind {
            Kind::Probed if frame.ack != seq => Err(Refusal::Cached),
            Kind::Probed if frame.bytes() + 3 >= trial.reply_bytes => Ok(()),
            Kind::Probed => Err(Refusal::ReplyDamaged),
            _ => Err(Refusal::Cached),
        });
        self.outcome.note(trial, result);
        self.race.results[index] = Some(result);
        match result {
            Err(Refusal::Authentication) => self.finish(),
            Err(_) => self.race.next_start = now,
            Ok(()) if self.race.is_ladder => {
                self.race.next_start = now;
                let is_long = trial.ask_bytes.max(trial.reply_bytes) >= LONG_BYTES;
                if now > at + if is_long { SLOW / 4 } else { SLOW } {
                    self.race.trials.truncate(self.race.started);
                }
            }
            Ok(()) => {}
        }
    }

    /// A question is answered: by the trial `best`, or by none.
    fn advance(&mut self, best: Option<usize>) {
        let best = best.map(|best| self.race.trials[best]);
        self.asked.clear();
        match self.stage {
            Stage::Anything => match best {
                Some(trial) => {
                    self.way = Some(Way {
                        coding: trial.coding,
                        polls: trial.coding,
                        reply: trial.reply,
                        agent: trial.agent,
                        ask_bytes: SMALL_BYTES,
                        reply_bytes: SMALL_BYTES,
                        pad: false,
                        stream_bytes: 0,
                        pour_bytes: 0,
                    });
                    let codings = [Coding::Raw, Coding::Upload, Coding::Form, Coding::Path];
                    self.next(
                        Stage::Upward,
                        codings
                            .map(|coding| Trial {
                                coding,
                                ask_bytes: SMALL_BYTES,
                                ..trial
                            })
                            .to_vec(),
                    );
                }
                None => self.finish(),
            },
            Stage::Upward => match best.zip(self.way.as_mut()) {
                Some((trial, way)) => {
                    way.coding = trial.coding;
                    let trial = Trial {
                        coding: way.polls,
                        ask_bytes: 0,
                        ..trial
                    };
                    self.next(
                        Stage::Replies,
                        STEPS
                            .map(|reply_bytes| Trial {
                                reply_bytes,
                                ..trial
                            })
                            .to_vec(),
                    );
                }
                None => {
                    self.way = None;
                    self.finish();
                }
            },
            Stage::Replies => self.after_replies(best),
            Stage::Asks => self.after_asks(best),
            Stage::Flagged => {
                self.outcome.flagged = best.is_none();
                if let Some(way) = &mut self.way {
                    way.pad = self.outcome.flagged;
                }
                // Who takes long requests for leaks is not to see the longest.
                self.finish();
            }
            Stage::Streams | Stage::Pours | Stage::Done => {}
        }
    }

    fn after_replies(&mut self, best: Option<Trial>) {
        let Some(way) = &mut self.way else {
            return self.finish();
        };
        way.reply_bytes = best.map_or(SMALL_BYTES, |trial| trial.reply_bytes);
        // Where replies are cut, streams are no longer than what passed.
        let is_limited = self.race.results.iter().flatten().any(Result::is_err);
        way.stream_bytes = if is_limited {
            way.reply_bytes
        } else {
            STREAM_BYTES_MAX
        };
        let may = way.stream_bytes >= STREAM_BYTES_MIN && way.reply != ReplyCoding::Text;
        if may {
            self.stage = Stage::Streams;
        } else {
            way.stream_bytes = 0;
            self.try_asks();
        }
    }

    fn try_asks(&mut self) {
        let Some(way) = &self.way else {
            return self.finish();
        };
        let steps: &[usize] = match way.coding {
            Coding::Raw | Coding::Upload | Coding::Form => &STEPS,
            Coding::Path => &PATH_STEPS,
        };
        let trial = Trial {
            coding: way.coding,
            agent: way.agent,
            reply: way.reply,
            ask_bytes: 0,
            reply_bytes: 0,
        };
        let trials = steps
            .iter()
            .map(|step| Trial {
                ask_bytes: *step,
                ..trial
            })
            .collect();
        self.next(Stage::Asks, trials);
    }

    fn after_asks(&mut self, best: Option<Trial>) {
        let Some(way) = &mut self.way else {
            return self.finish();
        };
        way.ask_bytes = best.map_or(SMALL_BYTES, |trial| trial.ask_bytes);
        let trial = Trial {
            ask_bytes: SMALL_BYTES,
            ..self.race.trials[0]
        };
        let forbidden = self.race.results.contains(&Some(Err(Refusal::Forbidden)));
        // Where requests have to be short, streams would be no longer. What is broken may be so because too much
        // of it came at once.
        let refused =
            |result: &Result<(), Refusal>| !matches!(result, Ok(()) | Err(Refusal::Broken));
        let is_limited =
            self.race.results.iter().flatten().any(refused) || way.ask_bytes < STREAM_BYTES_MIN;
        if forbidden {
            self.next(Stage::Flagged, vec![trial]);
        } else if way.coding == Coding::Raw && !is_limited {
            way.pour_bytes = STREAM_BYTES_MAX;
            self.stage = Stage::Pours;
        } else {
            self.finish();
        }
    }

    fn next(&mut self, stage: Stage, trials: Vec<Trial>) {
        self.stage = stage;
        self.race = Race::new(trials, matches!(stage, Stage::Replies | Stage::Asks));
    }

    fn finish(&mut self) {
        self.stop_watching();
        if matches!(self.stage, Stage::Anything | Stage::Upward) {
            self.way = None;
        }
        self.stage = Stage::Done;
        self.asked.clear();
        self.outcome.way = self.way;
        let outcome = Box::new(std::mem::take(&mut self.outcome));
        self.out.push_back(ProbeOutput::Done(outcome));
    }
}

impl Race {
    fn new(trials: Vec<Trial>, is_ladder: bool) -> Self {
        Self {
            results: vec![None; trials.len()],
            trials,
            started: 0,
            next_start: Time::ZERO,
            is_ladder,
        }
    }

    /// Returns the best trial once nothing better can pass: `Some(None)` when all have failed.
    fn settled(&self) -> Option<Option<usize>> {
        let results = &self.results[..self.trials.len()];
        let failed = results
            .iter()
            .position(|result| matches!(result, Some(Err(_))));
        if self.is_ladder {
            let end = failed.or(results.iter().all(Option::is_some).then_some(results.len()))?;
            return Some(end.checked_sub(1));
        }
        let first = results
            .iter()
            .position(|result| !matches!(result, Some(Err(_))));
        match first {
            None => Some(None),
            Some(first) => results[first].map(|_| Some(first)),
        }
    }

    fn may_start(&self) -> bool {
        let answered = self.results[..self.started].iter().all(Option::is_some);
        self.started < self.trials.len() && (!self.is_ladder || answered)
    }
}

/// What may pass at all, the plainest first.
fn anything() -> Vec<Trial> {
    let replies = [ReplyCoding::Raw, ReplyCoding::Image, ReplyCoding::Text];
    let agents = [Agent::Own, Agent::Browser];
    let trial = |coding, agent, reply| Trial {
        coding,
        agent,
        reply,
        ask_bytes: 0,
        reply_bytes: SMALL_BYTES,
    };
    let mut trials: Vec<Trial> = agents
        .iter()
        .flat_map(|agent| replies.map(|reply| trial(Coding::Path, *agent, reply)))
        .collect();
    trials.push(trial(Coding::Form, Agent::Browser, ReplyCoding::Text));
    trials
}

#[cfg(test)]
mod tests;
