//! Reading a recording, frame by frame.

use std::io::{self, Read};

use enishi_overlay::Time;
use zeroize::Zeroizing;

use super::{
    Birth, Ending, Entry, FORMAT, FRAME_HEAD_BYTES, Header, MAGIC, PAYLOAD_BYTES_MAX, Step,
    checksum,
};

/// Why something cannot be read as a recording at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The octets cannot be had.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It begins otherwise.
    #[error("it is not a recording of `enishi up --record`")]
    NotARecording,
    /// It is of another format.
    #[error("it is a recording of format {0}, and this program reads format {FORMAT}")]
    Format(u8),
    /// Its beginning is cut off or damaged.
    #[error("the beginning of the recording is cut off or damaged")]
    Damaged,
    /// Its header is not as this version writes it.
    #[error("version {0} recorded it in a way that this version does not read; replay it there")]
    Version(String),
}

/// Why there is no next step.
#[derive(Debug)]
pub enum Stop {
    /// The recording says so.
    Ended(Ending),
    /// It ends between two frames without saying why: the program was killed.
    Cut,
    /// From this octet on it is cut off or damaged.
    Torn(u64),
    /// The frame at this octet is whole, but holds nothing that this program knows, or a
    /// time before the one of the last step.
    Unknown(u64),
    /// The octets cannot be had.
    Unreadable(io::Error),
}

/// Reads the steps of one recording; holds one frame at a time.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    header: Header,
    offset: u64,
    last: Time,
    payload: Zeroizing<Vec<u8>>,
}

/// What was found where a frame should be.
enum Found {
    Frame,
    Nothing,
    Torn,
}

impl<R: Read> Reader<R> {
    /// Reads what a recording begins with.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(mut source: R) -> Result<Self, OpenError> {
        let mut start = Vec::new();
        let start_bytes = MAGIC.len() + 1;
        source
            .by_ref()
            .take(start_bytes as u64)
            .read_to_end(&mut start)?;
        match start.strip_prefix(&MAGIC) {
            Some([FORMAT]) => {}
            Some([format]) => return Err(OpenError::Format(*format)),
            Some(_) => return Err(OpenError::Damaged),
            None => return Err(OpenError::NotARecording),
        }
        let mut payload = Zeroizing::new(Vec::new());
        let Found::Frame = frame(&mut source, &mut payload)? else {
            return Err(OpenError::Damaged);
        };
        Ok(Self {
            header: header(&payload)?,
            offset: (start_bytes + FRAME_HEAD_BYTES + payload.len()) as u64,
            last: Time::ZERO,
            source,
            payload,
        })
    }

    /// Returns the header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns how much was read, in octets.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads the next step.
    ///
    /// # Errors
    /// [`Stop`] says why there is none; there will be none later either.
    pub fn step(&mut self) -> Result<Step, Stop> {
        match frame(&mut self.source, &mut self.payload) {
            Ok(Found::Frame) => {}
            Ok(Found::Nothing) => return Err(Stop::Cut),
            Ok(Found::Torn) => return Err(Stop::Torn(self.offset)),
            Err(error) => return Err(Stop::Unreadable(error)),
        }
        let step = match Entry::decode(&self.payload) {
            Some(Entry::Step(step)) if step.at >= self.last => *step,
            Some(Entry::End(ending)) => return Err(Stop::Ended(ending)),
            _ => return Err(Stop::Unknown(self.offset)),
        };
        self.last = step.at;
        self.offset += (FRAME_HEAD_BYTES + self.payload.len()) as u64;
        Ok(step)
    }
}

fn header(payload: &[u8]) -> Result<Header, OpenError> {
    let (software, rest) =
        postcard::take_from_bytes::<String>(payload).map_err(|_| OpenError::Damaged)?;
    let unknown = || OpenError::Version(software.chars().take(64).collect());
    let (birth, rest) = postcard::take_from_bytes::<Birth>(rest).map_err(|_| unknown())?;
    let header = Header {
        software: software.clone(),
        birth,
    };
    match rest.is_empty() && header.is_bounded() {
        true => Ok(header),
        false => Err(unknown()),
    }
}

/// Reads one frame's payload.
fn frame(source: &mut impl Read, payload: &mut Vec<u8>) -> io::Result<Found> {
    payload.clear();
    source.take(FRAME_HEAD_BYTES as u64).read_to_end(payload)?;
    let Some((head, _)) = payload.split_first_chunk::<FRAME_HEAD_BYTES>() else {
        return Ok(match payload.is_empty() {
            true => Found::Nothing,
            false => Found::Torn,
        });
    };
    let [a, b, c, d, sum @ ..] = *head;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    payload.clear();
    if !(1..=PAYLOAD_BYTES_MAX).contains(&length) {
        return Ok(Found::Torn);
    }
    source.take(length as u64).read_to_end(payload)?;
    Ok(match payload.len() == length && checksum(payload) == sum {
        true => Found::Frame,
        false => Found::Torn,
    })
}
