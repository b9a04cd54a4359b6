//! A bell: wakes whoever waits for a file descriptor, at the cost of one system call however
//! often it is rung until then.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// A bell, to be shared by those who ring it and the one who waits until it is readable.
pub(crate) struct Bell {
    event: EventFd,
    rung: AtomicBool,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            event: EventFd::from_value_and_flags(0, flags)?,
            rung: AtomicBool::new(false),
        })
    }

    /// Wakes the one who waits, after something was left for it.
    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // It can only be full, and then the one who waits is awake.
            let _ = self.event.write(1);
        }
    }

    /// Silences the bell. What was left is to be looked for after that, not before: only what
    /// is left from now on rings again.
    pub(crate) fn silence(&self) {
        let _ = self.event.read();
        self.rung.swap(false, Ordering::AcqRel);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
