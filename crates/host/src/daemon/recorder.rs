//! The recording of everything that goes into the node (`enishi up --record`).
//!
//! The loop never waits for the disk: frames go to a thread through a bounded queue, and
//! what the queue does not take gathers until it does. A recording that cannot go on ends;
//! the node does not notice.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use enishi_overlay::Time;
use enishi_services::recording::{Ending, Header, Writer};
use enishi_services::{Input, Output};
use zeroize::Zeroize;

use super::desk::Shared;

/// How many batches wait for the disk.
const BATCHES_MAX: usize = 4;

/// How many octets gather while that many wait; with more, the disk is too slow.
const GATHERED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Room that is left below the size limit for the frame that tells of it, in octets.
const END_BYTES: u64 = 64;

/// Who may read and write the file: its owner.
const MODE: u32 = 0o600;

/// What its notice in `enishi status` is about.
const ABOUT: &str = "recording";

/// Why a recording cannot be begun.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// There is something in the file.
    #[error(
        "the recording {0} is there already, and a recording holds one run: name another file, \
         or move this one away"
    )]
    Exists(PathBuf),
    /// It is a device, a directory or another user's.
    #[error("the recording {0} must be a file of this user's: name another one")]
    NotOurs(PathBuf),
    /// The file system refuses.
    #[error("the recording {path} cannot be made: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A file that a recording may go into.
#[derive(Debug)]
pub(super) struct Target {
    path: PathBuf,
    file: File,
    limit_bytes: u64,
}

impl Target {
    /// Makes the file, or takes one that is empty; only its owner may read it then.
    pub(super) fn open(path: &Path, limit_bytes: u64) -> Result<Self, RecordError> {
        let failed = |source| RecordError::Io {
            path: path.to_owned(),
            source,
        };
        // To open a pipe would wait for its reader.
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(RecordError::NotOurs(path.to_owned()));
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(MODE)
            .open(path)
            .map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.len() > 0 {
            return Err(RecordError::Exists(path.to_owned()));
        }
        let ourselves = fs::metadata("/proc/self").map_err(failed)?;
        if metadata.uid() != ourselves.uid() {
            return Err(RecordError::NotOurs(path.to_owned()));
        }
        file.set_permissions(Permissions::from_mode(MODE))
            .map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            limit_bytes,
        })
    }
}

/// Records the node, or does nothing.
pub(super) struct Recorder(Option<Active>);

/// A recording that goes on.
struct Active {
    path: PathBuf,
    writer: Writer,
    limit_bytes: u64,
    /// What was recorded, with what still waits, in octets.
    recorded_bytes: u64,
    gathered: Vec<u8>,
    disk: SyncSender<Vec<u8>>,
    thread: JoinHandle<()>,
    shared: Arc<Shared>,
}

impl Recorder {
    /// Begins to record into a file, if there is one.
    pub(super) fn start(
        target: Option<Target>,
        header: &Header,
        shared: Arc<Shared>,
    ) -> Result<Self, RecordError> {
        let Some(target) = target else {
            return Ok(Self(None));
        };
        let path = target.path.clone();
        let (disk, batches) = sync_channel(BATCHES_MAX);
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("recording".to_owned())
            .spawn(move || write(target.file, &target.path, &batches, &for_thread))
            .map_err(|source| RecordError::Io {
                path: path.clone(),
                source,
            })?;
        tracing::warn!(
            "everything that goes into this node is recorded to {}, its secret key and what \
             channels are entrusted with included: keep the file as secret as the key",
            path.display()
        );
        let notice = format!(
            "this node is recorded to {}; the file holds its secret key",
            path.display()
        );
        shared.note(ABOUT, notice);
        let mut active = Active {
            path,
            writer: Writer::new(header),
            limit_bytes: target.limit_bytes,
            recorded_bytes: 0,
            gathered: Vec::new(),
            disk,
            thread,
            shared,
        };
        let preamble = Writer::preamble(header);
        active.recorded_bytes += preamble.len() as u64;
        active.gathered.extend_from_slice(&preamble);
        active.hand_over();
        Ok(Self(Some(active)))
    }

    /// Notes what the node is about to be told.
    pub(super) fn begin(&mut self, now: Time, input: &Input) {
        if let Some(active) = &mut self.0 {
            active.writer.begin(now, input);
        }
    }

    /// Notes what the node wants.
    pub(super) fn output(&mut self, output: &Output) {
        if let Some(active) = &mut self.0 {
            active.writer.output(output);
        }
    }

    /// Ends the step.
    pub(super) fn finish(&mut self, next_timeout: Option<Time>) {
        if let Some(active) = &mut self.0
            && let Err(end) = active.finish(next_timeout)
        {
            self.give_up(end);
        }
    }

    /// Ends the recording in good order and waits until it is written.
    pub(super) async fn close(mut self) {
        let Some(active) = self.0.take() else { return };
        let ended = tokio::task::spawn_blocking(move || active.end(Ending::Stopped)).await;
        if ended.is_err() {
            tracing::warn!("the end of the recording may not be on disk");
        }
    }

    fn give_up(&mut self, end: End) {
        let Some(active) = self.0.take() else { return };
        // The thread has told of its failure itself.
        let End::Because(ending, reason) = end else {
            return;
        };
        let notice = format!(
            "the recording {} has ended: {reason}; the node goes on",
            active.path.display()
        );
        tracing::warn!("{notice}");
        active.shared.note(ABOUT, notice);
        // The disk may be slow, and the loop must not wait for it.
        thread::spawn(move || active.end(ending));
    }
}

/// Why a recording cannot go on.
#[derive(Clone, Copy)]
enum End {
    /// Nothing can be written any more.
    Failed,
    /// For a reason that the recording's last frame tells.
    Because(Ending, &'static str),
}

impl Active {
    fn finish(&mut self, next_timeout: Option<Time>) -> Result<(), End> {
        let frame = self.writer.finish(next_timeout).map_err(|_| {
            End::Because(
                Ending::TooLong,
                "an input was longer than a recording can hold",
            )
        })?;
        let recorded_bytes = self.recorded_bytes + frame.len() as u64;
        if recorded_bytes + END_BYTES > self.limit_bytes {
            return Err(End::Because(Ending::Limit, "it has reached its size limit"));
        }
        if self.gathered.len() + frame.len() > GATHERED_BYTES_MAX {
            return Err(End::Because(Ending::Slow, "the disk is too slow for it"));
        }
        self.recorded_bytes = recorded_bytes;
        self.gathered.extend_from_slice(frame);
        self.hand_over().then_some(()).ok_or(End::Failed)
    }

    /// Gives the disk what has gathered, if it takes it; false when it takes nothing any
    /// more.
    fn hand_over(&mut self) -> bool {
        match self.disk.try_send(std::mem::take(&mut self.gathered)) {
            Ok(()) => true,
            Err(TrySendError::Full(gathered)) => {
                self.gathered = gathered;
                true
            }
            Err(TrySendError::Disconnected(mut gathered)) => {
                gathered.zeroize();
                false
            }
        }
    }

    /// Writes the last frame and waits for the disk.
    fn end(mut self, ending: Ending) {
        let mut last = std::mem::take(&mut self.gathered);
        last.extend_from_slice(self.writer.end(ending));
        // Without the thread, which has told of its failure, there is nothing to be done.
        let _ = self.disk.send(last);
        drop(self.disk);
        let _ = self.thread.join();
    }
}

/// The thread: writes what it is given, until there is nothing more or the disk fails.
fn write(mut file: File, path: &Path, batches: &Receiver<Vec<u8>>, shared: &Shared) {
    let mut written_bytes = 0;
    while let Ok(mut batch) = batches.recv() {
        let done = file.write_all(&batch);
        written_bytes += batch.len() as u64;
        batch.zeroize();
        if let Err(error) = done {
            let notice = format!(
                "the recording {} has ended: it cannot be written ({error}); the node goes on",
                path.display()
            );
            tracing::warn!("{notice}");
            shared.note(ABOUT, notice);
            return;
        }
    }
    tracing::info!(written_bytes, "the recording is complete");
}

#[cfg(test)]
mod tests;
