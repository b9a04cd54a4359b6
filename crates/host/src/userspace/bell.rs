//! The file descriptor that is readable when packets came out of the engine.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets tokio watch it.
#[allow(unsafe_code, reason = "tokio cannot tell that a descriptor stays open")]
pub(super) fn watch(bell: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open as long as it is there and is always the same descriptor,
    // and what is returned owns it and lends it to nobody who could exchange it.
    let watched = unsafe { AsyncFd::register_with_interest(bell, Interest::READABLE) };
    Ok(watched?)
}
