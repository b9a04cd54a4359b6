//! Waiting for the bell of a port of the engine.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use enishi_dataplane::device::Port;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Returns what is readable when the port has packets. Must be called within a tokio runtime.
///
/// # Errors
/// When the system has no file descriptor left.
#[allow(unsafe_code, reason = "tokio cannot tell that a descriptor stays open")]
pub(crate) fn of(port: &Port) -> io::Result<AsyncFd<OwnedFd>> {
    let bell = port.as_fd().try_clone_to_owned()?;
    // SAFETY: an `OwnedFd` is open as long as it is there and is always the same descriptor,
    // and what is returned owns it and lends it to nobody who could exchange it.
    let watched = unsafe { AsyncFd::register_with_interest(bell, Interest::READABLE) };
    Ok(watched?)
}
