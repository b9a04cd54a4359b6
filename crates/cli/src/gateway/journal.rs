//! The audit log, written by one at a time, and not by who floods it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use enishi_host::audit::{AuditError, AuditLog, Event, Passage};
use tokio::task::spawn_blocking;

/// How many refusals get a line of their own in [`REFUSALS_INTERVAL`]; further ones are counted.
const REFUSALS_MAX: u32 = 50;
const REFUSALS_INTERVAL: Duration = Duration::from_secs(10);

/// The audit log of a gateway that runs.
pub(super) struct Journal {
    log: Arc<Mutex<AuditLog>>,
    refusals: Mutex<Refusals>,
}

struct Refusals {
    since: Instant,
    written: u32,
    suppressed: u64,
}

impl Journal {
    /// Opens it.
    ///
    /// # Errors
    /// [`AuditError`].
    pub(super) fn open(dir: &Path) -> Result<Self, AuditError> {
        Ok(Self {
            log: Arc::new(Mutex::new(AuditLog::open(dir)?)),
            refusals: Mutex::new(Refusals {
                since: Instant::now(),
                written: 0,
                suppressed: 0,
            }),
        })
    }

    /// Writes a line, and returns once it is on the disk.
    ///
    /// # Errors
    /// [`AuditError`]: what it would have told must not be done.
    pub(super) async fn write(&self, event: Event) -> Result<(), AuditError> {
        let log = Arc::clone(&self.log);
        let write = move || {
            log.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write(&event)
        };
        match spawn_blocking(write).await {
            Ok(written) => written,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Writes that somebody was refused, unless that is too often.
    ///
    /// # Errors
    /// [`AuditError`].
    pub(super) async fn refuse(&self, passage: Passage, reason: String) -> Result<(), AuditError> {
        let (suppressed, has_room) = self.count_refusal();
        if suppressed > 0 {
            let refusals = suppressed;
            self.write(Event::Suppressed { refusals }).await?;
        }
        if !has_room {
            return Ok(());
        }
        let passage = Box::new(passage);
        self.write(Event::Refused { passage, reason }).await
    }

    /// Returns how many had no line before and are told of now, and whether this one has one.
    fn count_refusal(&self) -> (u64, bool) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let mut suppressed = 0;
        if refusals.since.elapsed() >= REFUSALS_INTERVAL {
            suppressed = std::mem::take(&mut refusals.suppressed);
            refusals.written = 0;
            refusals.since = Instant::now();
        }
        let has_room = refusals.written < REFUSALS_MAX;
        match has_room {
            true => refusals.written += 1,
            false => refusals.suppressed += 1,
        }
        (suppressed, has_room)
    }
}

#[cfg(test)]
mod tests {
    use enishi_host::audit;

    use super::*;

    #[tokio::test]
    async fn who_is_refused_too_often_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let refuse = || journal.refuse(Passage::default(), "no".to_owned());
        for _ in 0..REFUSALS_MAX + 7 {
            refuse().await.unwrap();
        }
        journal.refusals.lock().unwrap().since -= REFUSALS_INTERVAL;
        refuse().await.unwrap();
        let (mut lines, mut suppressed) = (0, None);
        audit::read(dir.path(), |line, _| match line.event {
            Event::Refused { .. } => lines += 1,
            Event::Suppressed { refusals } => suppressed = Some(refusals),
            _ => {}
        })
        .unwrap();
        assert_eq!((lines, suppressed), (REFUSALS_MAX + 1, Some(7)));
    }
}
