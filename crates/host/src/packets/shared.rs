//! Files that all nodes of one host share, that is, of one network namespace: to lock, and to tell
//! the next one what a crash left.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

/// Opens the shared file of a name. It is empty at first, for root alone, and gone when the host
/// starts anew. It stays when nobody needs it, as others may be about to lock it.
///
/// # Errors
/// What the system says.
pub(super) fn open(name: &str) -> io::Result<File> {
    let namespace = fs::metadata("/proc/self/ns/net")?.ino();
    OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(format!("/run/enishi-{name}-{namespace}.lock"))
}
