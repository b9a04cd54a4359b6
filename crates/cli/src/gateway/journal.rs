//! The audit log, written by one at a time, and not by who floods it.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use enishi_host::audit::{AuditError, AuditLog, Event, Passage};
use tokio::task::spawn_blocking;

use super::Shared;
use crate::problem::sentence;

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

    /// Writes how many were refused without a line of their own, once it is time for that.
    ///
    /// # Errors
    /// [`AuditError`].
    async fn tell_suppressed(&self) -> Result<(), AuditError> {
        let refusals = self.lock().turn();
        match refusals {
            0 => Ok(()),
            refusals => self.write(Event::Suppressed { refusals }).await,
        }
    }

    /// Writes that the gateway stops, and who was refused without a line before.
    ///
    /// # Errors
    /// [`AuditError`].
    pub(super) async fn stop(&self) -> Result<(), AuditError> {
        let refusals = std::mem::take(&mut self.lock().suppressed);
        if refusals > 0 {
            self.write(Event::Suppressed { refusals }).await?;
        }
        self.write(Event::Stopped).await
    }

    fn lock(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many had no line before and are told of now, and whether this one has one.
    fn count_refusal(&self) -> (u64, bool) {
        let mut refusals = self.lock();
        let suppressed = refusals.turn();
        let has_room = refusals.written < REFUSALS_MAX;
        match has_room {
            true => refusals.written += 1,
            false => refusals.suppressed += 1,
        }
        (suppressed, has_room)
    }
}

impl Refusals {
    /// Begins another interval when it is time; returns how many had no line in the one before.
    fn turn(&mut self) -> u64 {
        if self.since.elapsed() < REFUSALS_INTERVAL {
            return 0;
        }
        self.written = 0;
        self.since = Instant::now();
        std::mem::take(&mut self.suppressed)
    }
}

/// Has those counted who were refused last, too.
pub(super) async fn count(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(REFUSALS_INTERVAL) => {}
            () = shared.stop.cancelled() => return,
        }
        if let Err(error) = shared.journal.tell_suppressed().await {
            shared.out.notice(&sentence(&error.to_string()));
        }
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

    #[tokio::test]
    async fn the_last_who_are_refused_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        for _ in 0..REFUSALS_MAX + 3 {
            let refused = journal.refuse(Passage::default(), "no".to_owned());
            refused.await.unwrap();
        }
        journal.tell_suppressed().await.unwrap();
        journal.refusals.lock().unwrap().since -= REFUSALS_INTERVAL;
        journal.tell_suppressed().await.unwrap();
        for _ in 0..REFUSALS_MAX + 2 {
            let refused = journal.refuse(Passage::default(), "no".to_owned());
            refused.await.unwrap();
        }
        journal.stop().await.unwrap();
        let mut told = Vec::new();
        audit::read(dir.path(), |line, _| match line.event {
            Event::Suppressed { refusals } => told.push(refusals),
            Event::Stopped => told.push(0),
            _ => {}
        })
        .unwrap();
        assert_eq!(told, [3, 2, 0]);
    }
}
