//! Files that all nodes of one host share, that is, of one network namespace: to lock, and to tell
//! the next one what a crash left.
//!
//! Whoever has a file locked alone and needs it no more removes it. Another one may be waiting for
//! its lock meanwhile, and would then have one that nobody else sees: so whoever has got a lock
//! looks whether the file still has its name ([`Shared::is_named`]), and opens it anew if not.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

/// A file that all nodes of this host share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) file: File,
    path: PathBuf,
}

impl Shared {
    /// Opens the file of a name. It is empty at first, for root alone, and gone when the host
    /// starts anew.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(name: &str) -> io::Result<Self> {
        let namespace = fs::metadata("/proc/self/ns/net")?.ino();
        let path = PathBuf::from(format!("/run/enishi-{name}-{namespace}.lock"));
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        Ok(Self { file, path })
    }

    /// Tells whether others who open the name now get this file.
    pub(super) fn is_named(&self) -> bool {
        let own = self.file.metadata().map(|file| (file.dev(), file.ino()));
        let named = fs::metadata(&self.path).map(|file| (file.dev(), file.ino()));
        own.is_ok_and(|own| named.is_ok_and(|named| own == named))
    }

    /// Takes the name away, of a file that is locked alone.
    pub(super) fn remove(&self) {
        if self.is_named()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(%error, path = %self.path.display(), "a file that is of no use stays");
        }
    }
}
