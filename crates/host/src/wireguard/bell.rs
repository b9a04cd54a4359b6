//! Waiting for a port's bell.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use enishi_dataplane::device::Port;
use tokio::io::unix::AsyncFd;

/// Returns what is readable when the port has packets.
///
/// # Errors
/// When the system has no file descriptor left.
#[allow(
    unsafe_code,
    reason = "tokio cannot see that a descriptor stays what it is"
)]
pub(super) fn of(port: &Port) -> io::Result<AsyncFd<OwnedFd>> {
    let bell = port.as_fd().try_clone_to_owned()?;
    // SAFETY: an `OwnedFd` gives the same open descriptor as long as it lives, and `AsyncFd`
    // keeps it until it is taken out of the reactor.
    Ok(unsafe { AsyncFd::register(bell) }?)
}
