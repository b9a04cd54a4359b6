//! Passing packets on, which the host does for as long as one of its channels shares a network.
//!
//! What was set differently before is written to a file that all who share have locked together
//! ([`Shared`]). Whoever is the last of them, or comes after a crash, has it alone, and
//! sets back what the file names.
//!
//! A host that passes IPv6 packets on forgets the routers that it heard of, and hears of no more,
//! unless it is told to (`accept_ra`, Linux's Documentation/networking/ip-sysctl.rst): it would cut
//! itself off.

use std::fs::{self, TryLockError};
use std::io::{self, Read, Seek, Write};

use super::shared::Shared;

/// Between which two values everything is set that is.
const OFF: &str = "0";
const ON: &str = "1";
/// Of `accept_ra`: routers are heard of unless the host passes packets on, and in any case.
const HEARS: &str = "1";
const HEARS_ALWAYS: &str = "2";

const CONF6: &str = "/proc/sys/net/ipv6/conf";
const INTERFACES_MAX: usize = 64;

/// How often it is tried again when another one has just switched it off.
const TRIES: usize = 5;
/// The longest that the file may be, in octets: a path for each interface.
const NOTE_BYTES_MAX: u64 = 64 * INTERFACES_MAX as u64;

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Four,
    Six,
}

/// The host passes packets of a version on until the last of these is dropped.
pub(super) struct Forwarding {
    version: Version,
    note: Shared,
}

impl Version {
    /// What switches it on.
    fn switch(self) -> &'static str {
        match self {
            Self::Four => "/proc/sys/net/ipv4/ip_forward",
            Self::Six => "/proc/sys/net/ipv6/conf/all/forwarding",
        }
    }

    /// Tells whether the host passes packets on, or has no such packets.
    pub(super) fn is_on(self) -> bool {
        !is(self.switch(), OFF)
    }

    fn open(self) -> io::Result<Forwarding> {
        let name = match self {
            Self::Four => "forwarding4",
            Self::Six => "forwarding6",
        };
        let note = Shared::open(name)?;
        Ok(Forwarding {
            version: self,
            note,
        })
    }
}

impl Forwarding {
    /// Has the host pass packets on.
    ///
    /// # Errors
    /// When the system refuses; then nothing was switched for good.
    pub(super) fn begin(version: Version) -> io::Result<Self> {
        for _ in 0..TRIES {
            let mut sharing = version.open()?;
            let file = &sharing.note.file;
            match file.try_lock() {
                Ok(()) if sharing.note.is_named() => sharing.switch_on()?,
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
            sharing.note.file.lock_shared()?;
            // The last one may have left since.
            if version.is_on() && sharing.note.is_named() {
                return Ok(sharing);
            }
        }
        Err(io::Error::other("others keep switching it off"))
    }

    /// Switches it on, unless it is.
    fn switch_on(&mut self) -> io::Result<()> {
        if self.version.is_on() {
            return Ok(());
        }
        if self.version == Version::Six {
            for path in hearing() {
                self.set(&path, HEARS_ALWAYS)?;
            }
        }
        self.set(self.version.switch(), ON)
    }

    /// Notes what is about to be set, beside what a crash left, and sets it.
    fn set(&mut self, path: &str, value: &str) -> io::Result<()> {
        let mut noted = self.noted()?;
        if !noted.iter().any(|known| known == path) {
            noted.push(path.to_owned());
            self.write(&noted.join("\n"))?;
        }
        fs::write(path, value)
    }

    /// Returns what the file names. Nothing else is ever set back.
    fn noted(&mut self) -> io::Result<Vec<String>> {
        let mut text = String::new();
        self.note.file.rewind()?;
        (&self.note.file)
            .take(NOTE_BYTES_MAX)
            .read_to_string(&mut text)?;
        let lines = text.lines().filter(|line| self.is_set_here(line));
        Ok(lines.map(str::to_owned).collect())
    }

    fn is_set_here(&self, path: &str) -> bool {
        let of_interface = |path: &str| {
            let rest = path.strip_prefix(CONF6)?.strip_prefix('/')?;
            let name = rest.strip_suffix("/accept_ra")?;
            Some(!name.contains('/') && name != "..")
        };
        path == self.version.switch()
            || (self.version == Version::Six && of_interface(path) == Some(true))
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.note.file.set_len(0)?;
        self.note.file.rewind()?;
        self.note.file.write_all(text.as_bytes())
    }

    /// Sets back what was set, unless others need it.
    fn end(&mut self) -> io::Result<()> {
        match self.note.file.try_lock() {
            Ok(()) if self.note.is_named() => {}
            // Another one has set back what there was.
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // In the other order: the host hears of routers until it passes nothing on.
        let noted = self.noted()?;
        for path in noted.iter().rev() {
            let value = match path == self.version.switch() {
                true => OFF,
                false => HEARS,
            };
            match fs::write(path, value) {
                // An interface that is gone.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                outcome => outcome?,
            }
        }
        self.write("")?;
        self.note.remove();
        Ok(())
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "forwarding stays switched on");
        }
    }
}

/// Sets back what nodes left that crashed while they shared a network, unless others share one now.
pub(super) fn end_left() {
    // The ends of two that have begun nothing.
    drop([Version::Four, Version::Six].map(Version::open));
}

/// The settings of the interfaces that hear of routers unless packets are passed on, and of those
/// that come later.
fn hearing() -> Vec<String> {
    let Ok(entries) = fs::read_dir(CONF6) else {
        return Vec::new();
    };
    let paths = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name != "all")
        .map(|name| format!("{CONF6}/{name}/accept_ra"));
    paths
        .filter(|path| is(path, HEARS))
        .take(INTERFACES_MAX)
        .collect()
}

/// Tells whether a setting is there and has this value.
fn is(path: &str, value: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() == value)
}
