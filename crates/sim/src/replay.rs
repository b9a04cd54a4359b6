//! Replays: a recorded node lives its life again, and must say the same at every step.
//!
//! The recording holds a digest of what the node said after each input
//! ([`enishi_services::recording`]). The first step whose digest differs is where the
//! traces part; after it nothing can be compared any more, so the replay ends there.

mod describe;

use std::collections::BTreeMap;
use std::io::Read;

use enishi_overlay::Time;
use enishi_services::recording::{self, Ending, Reader, Step, Stop, Trace};
use enishi_services::{Input, Output};
use serde::Serialize;

use crate::sorts;

/// The most outputs of the step at which traces part that are described.
const OUTPUTS_SHOWN_MAX: usize = 100;

/// How many steps are between two tellings of the progress.
const STEPS_PER_PROGRESS: u64 = 1024;

/// What came of a replay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replay {
    /// Whether the node said the same at every step that could be read.
    pub identical: bool,
    /// The version of the software that recorded.
    pub recorded_by: String,
    /// The version of this software.
    pub replayed_by: &'static str,
    /// Who the recorded node is.
    pub node_id: String,
    /// How many inputs the node was given again.
    pub inputs: u64,
    /// How many outputs came out of it.
    pub outputs: u64,
    /// From the node's start until the last input, in microseconds.
    pub duration_us: u64,
    /// How many inputs there were of each kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// How many messages of each sort came.
    pub received: BTreeMap<&'static str, u64>,
    /// How many messages of each sort the node sent.
    pub sent: BTreeMap<&'static str, u64>,
    /// The digest after the last input, 16 hexadecimal digits.
    pub digest: String,
    /// How the recording, or the replay, came to its end.
    pub ending: End,
    /// The octet at which the recording could not be read further.
    pub at_octet: Option<u64>,
    /// Where the traces part.
    pub parted: Option<Parting>,
}

/// How a replay came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The recorded node was stopped in good order.
    Stopped,
    /// The recording had reached its size limit.
    Limit,
    /// The disk was too slow for the recording.
    Slow,
    /// An input was too long for the recording.
    TooLong,
    /// The recording ends without a word: the recording program was killed.
    Killed,
    /// The last part of the recording is cut off or damaged.
    Torn,
    /// What follows is not known to this version.
    Unknown,
    /// The file could not be read further, and why.
    Unreadable(String),
    /// The traces part.
    Parted,
}

/// Where two traces part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parting {
    /// The number of the input after which they do, from 1.
    pub input_number: u64,
    /// When it came, in microseconds from the node's start.
    pub at_us: u64,
    /// What the input was.
    pub input: String,
    /// What the replay gave in answer, in order; at most 100.
    pub outputs: Vec<String>,
    /// How many further outputs there were.
    pub outputs_left_out: usize,
    /// When the replayed node then wanted to be woken, in microseconds from its start.
    pub next_timeout_us: Option<u64>,
    /// The digest in the recording.
    pub digest_recorded: String,
    /// The digest of the replay.
    pub digest_replayed: String,
}

impl Replay {
    /// Tells whether the node said the same to the end of what was recorded, as far as the
    /// recording is whole.
    pub fn is_well(&self) -> bool {
        self.identical && !matches!(self.ending, End::Unknown | End::Unreadable(_))
    }
}

/// Gives the recorded node all its inputs again. `progress` hears from time to time how
/// many octets of the recording are done.
pub fn replay<R: Read>(reader: &mut Reader<R>, progress: &mut impl FnMut(u64)) -> Replay {
    let header = reader.header();
    let mut node = header.node();
    let mut trace = Trace::new(&header.node_id());
    let mut replay = Replay::new(header);
    loop {
        let step = match reader.step() {
            Ok(step) => step,
            Err(stop) => {
                replay.stop(stop);
                return replay;
            }
        };
        let shown = step.input.clone();
        replay.count(&step);
        let mut outputs = Vec::new();
        for output in node.handle(step.at, step.input) {
            trace.output(&output);
            if let Output::Send { message, .. } = &output {
                *replay.sent.entry(sorts::sort(message)).or_default() += 1;
            }
            outputs.push(output);
        }
        replay.outputs += outputs.len() as u64;
        let digest = trace.digest(node.next_timeout());
        replay.digest = hex(&digest);
        if digest != step.digest {
            let parting = Parting {
                input: describe::input(&shown),
                outputs: shown_outputs(&outputs),
                outputs_left_out: outputs.len().saturating_sub(OUTPUTS_SHOWN_MAX),
                next_timeout_us: node.next_timeout().map(Time::as_micros),
                digest_recorded: hex(&step.digest),
                digest_replayed: hex(&digest),
                input_number: replay.inputs,
                at_us: step.at.as_micros(),
            };
            replay.part(parting);
            return replay;
        }
        if replay.inputs.is_multiple_of(STEPS_PER_PROGRESS) {
            progress(reader.offset());
        }
    }
}

impl Replay {
    fn new(header: &recording::Header) -> Self {
        Self {
            identical: true,
            recorded_by: header.software.clone(),
            replayed_by: recording::software(),
            node_id: header.node_id().to_string(),
            inputs: 0,
            outputs: 0,
            duration_us: 0,
            kinds: BTreeMap::new(),
            received: BTreeMap::new(),
            sent: BTreeMap::new(),
            digest: String::new(),
            ending: End::Stopped,
            at_octet: None,
            parted: None,
        }
    }

    fn count(&mut self, step: &Step) {
        self.inputs += 1;
        self.duration_us = step.at.as_micros();
        *self.kinds.entry(describe::kind(&step.input)).or_default() += 1;
        if let Input::Message { message, .. } = &step.input {
            *self.received.entry(sorts::sort(message)).or_default() += 1;
        }
    }

    fn stop(&mut self, stop: Stop) {
        let (ending, at_octet) = match stop {
            Stop::Ended(Ending::Stopped) => (End::Stopped, None),
            Stop::Ended(Ending::Limit) => (End::Limit, None),
            Stop::Ended(Ending::Slow) => (End::Slow, None),
            Stop::Ended(Ending::TooLong) => (End::TooLong, None),
            Stop::Cut => (End::Killed, None),
            Stop::Torn(octet) => (End::Torn, Some(octet)),
            Stop::Unknown(octet) => (End::Unknown, Some(octet)),
            Stop::Unreadable(error) => (End::Unreadable(error.to_string()), None),
        };
        self.ending = ending;
        self.at_octet = at_octet;
    }

    fn part(&mut self, parting: Parting) {
        self.identical = false;
        self.ending = End::Parted;
        self.parted = Some(parting);
    }
}

fn shown_outputs(outputs: &[Output]) -> Vec<String> {
    let shown = outputs.iter().take(OUTPUTS_SHOWN_MAX);
    shown.map(describe::output).collect()
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
