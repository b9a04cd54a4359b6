//! The audit log of a gateway: a file to which lines are only ever added, each of which holds a
//! hash of all before it.
//!
//! ```text
//! {"seq":7,"unix_ms":…,"event":"opened",…,"hash":"<64 hexadecimal digits>"}
//!                                        BLAKE3 of the hash of the line before and of
//!                                        the line up to here, `,"hash":` excluded
//! ```
//!
//! When `audit.log` has [`FILE_BYTES_MAX`] octets it is renamed to `audit-N.log`, N the number of
//! its first line, and another one begun, whose first line names the last hash before it. The
//! [`FILES_MAX`] newest such files stay; where there are fewer, the log goes back to its first line. So the log is bounded, and what is left of it is one chain.
//!
//! A line counts once it is on the disk: [`AuditLog::write`] returns after that. A last line that a
//! crash tore is cut off when the log is opened, and a line says how much was. Anything else that is
//! not as it was written is not repaired: the log does not open.
//!
//! The chain shows that lines were changed, left out or put in between to whoever knows a later hash
//! from elsewhere. Who holds the disk can write a whole new chain.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tracing::warn;

/// The name of the file that is written to.
const FILE_NAME: &str = "audit.log";

/// The octets after which another file is begun, unless it is told otherwise.
pub const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// How many older files stay.
pub const FILES_MAX: usize = 8;

/// What stands between a line's content and its hash.
const SEAM: &str = ",\"hash\":\"";

/// The hash before the first line of all.
const BEGINNING: [u8; 32] = [0; 32];

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Its number, from 1, over all files.
    pub seq: u64,
    /// When it was written, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What it tells.
    #[serde(flatten)]
    pub event: Event,
}

/// What a line tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// A file begins.
    Begun {
        /// The hash of the last line of the file before, of zeros for the first file.
        previous: String,
    },
    /// A crash had torn the last line.
    Repaired {
        /// How many octets were cut off.
        octets: u64,
    },
    /// The gateway started. Connections that were open before and have no end have broken off.
    Started,
    /// The gateway was told to stop.
    Stopped,
    /// What may pass is another now.
    Changed {
        /// The services that are open, as `name USER-OVERLAY -> OWNER-OVERLAY`.
        open: Vec<String>,
        /// Why nothing is, or less than both consents name.
        reason: Option<String>,
    },
    /// A connection may pass.
    Opened {
        /// Its number since the gateway started.
        flow: u64,
        /// Who, and what.
        #[serde(flatten)]
        passage: Box<Passage>,
    },
    /// A connection may not pass.
    Refused {
        /// Who, and what.
        #[serde(flatten)]
        passage: Box<Passage>,
        /// Why.
        reason: String,
    },
    /// A connection that was opened has ended.
    Closed {
        /// Its number.
        flow: u64,
        /// Octets from the user to the service.
        octets_in: u64,
        /// Octets from the service to the user.
        octets_out: u64,
        /// For how long it was open, in milliseconds.
        open_ms: u64,
        /// Why it ended.
        reason: String,
    },
    /// A document goes into the other overlay: it is new, or has changed.
    Copied {
        /// Its name.
        document: String,
        /// The overlay that gives it.
        from_overlay: String,
        /// The overlay into which it is put.
        to_overlay: String,
        /// Its length.
        octets: u64,
        /// BLAKE3 of its content.
        content_hash: String,
        /// The names of the consents by which it was decided, that of the taker first.
        consents: Vec<String>,
    },
    /// A document could not be put into the other overlay.
    NotCopied {
        /// Its name.
        document: String,
        /// Why.
        reason: String,
    },
    /// A document was taken out of the overlay into which it had been put.
    Withdrawn {
        /// Its name.
        document: String,
        /// That overlay.
        to_overlay: String,
    },
    /// So many refusals have no line of their own: there were too many.
    Suppressed {
        /// How many.
        refusals: u64,
    },
}

/// Who wants to use what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Passage {
    /// The overlay of the user.
    pub from_overlay: String,
    /// The user's node id, proven by its session; none when the address is no member's.
    pub from_node: Option<String>,
    /// The user's address and port in the channel.
    pub from: String,
    /// The name of the service.
    pub service: String,
    /// The overlay of the service.
    pub to_overlay: String,
    /// The member that has it; none while the consents name none.
    pub to_node: Option<String>,
    /// Its port.
    pub to_port: Option<u16>,
    /// The names of the consents by which it was decided, that of the user's side first.
    pub consents: Vec<String>,
}

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file system refuses.
    #[error("the audit log {path} cannot be {tried}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as a participle.
        tried: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not what was written.
    #[error(
        "the audit log {path} is not what was written: line {line}: {what}. Keep all files of the \
         log as they are, to find out why, and move them away; the gateway then begins another"
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// The line of the file, from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}

fn io_error(path: &Path, tried: &'static str) -> impl FnOnce(io::Error) -> AuditError {
    let path = path.to_owned();
    move |source| AuditError::Io {
        path,
        tried,
        source,
    }
}

/// What was found in a log that is whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verified {
    /// How many lines there are.
    pub lines: u64,
    /// The last one, and its hash.
    pub last: Option<(Line, String)>,
    /// How many octets of a torn last line there are; it does not count.
    pub torn: u64,
}

/// A log that is being written.
#[derive(Debug)]
pub struct AuditLog {
    dir: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    seq: u64,
    hash: [u8; 32],
    /// Whether a write has failed: what is on the disk is unknown then.
    broken: bool,
}

impl AuditLog {
    /// Opens the log of a directory, after looking at all of it; makes it if there is none. One
    /// process at a time may: the caller holds the directory's lock.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn open(dir: &Path) -> Result<Self, AuditError> {
        Self::open_with(dir, FILE_BYTES_MAX)
    }

    /// The same, with another limit of octets to a file.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn open_with(dir: &Path, bytes_max: u64) -> Result<Self, AuditError> {
        let found = read(dir, |_, _| {})?;
        let path = dir.join(FILE_NAME);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path);
        let file = file.map_err(io_error(&path, "opened"))?;
        let whole = file.metadata().map_err(io_error(&path, "read"))?.len() - found.torn;
        let (seq, hash) = match &found.last {
            Some((line, hash)) => (line.seq, unhex(hash).unwrap_or(BEGINNING)),
            None => (0, BEGINNING),
        };
        let mut log = Self {
            dir: dir.to_owned(),
            file,
            bytes: whole,
            bytes_max,
            seq,
            hash,
            broken: false,
        };
        if found.torn > 0 {
            log.file
                .set_len(whole)
                .map_err(io_error(&path, "repaired"))?;
        }
        if whole == 0 {
            log.begin()?;
            sync_dir(dir)?;
        }
        if found.torn > 0 {
            let octets = found.torn;
            log.write(&Event::Repaired { octets })?;
        }
        Ok(log)
    }

    /// Writes a line, and returns once it is on the disk.
    ///
    /// # Errors
    /// [`AuditError::Io`]; nothing more is written then until the log is opened anew.
    pub fn write(&mut self, event: &Event) -> Result<(), AuditError> {
        if self.bytes >= self.bytes_max {
            self.rotate()?;
        }
        self.append(event)
    }

    /// Returns the number of the last line, and its hash.
    pub fn head(&self) -> (u64, String) {
        (self.seq, hex(&self.hash))
    }

    fn append(&mut self, event: &Event) -> Result<(), AuditError> {
        let path = self.dir.join(FILE_NAME);
        if self.broken {
            let error = io::Error::other("an earlier write failed");
            return Err(io_error(&path, "written")(error));
        }
        let line = Line {
            seq: self.seq + 1,
            unix_ms: unix_ms(),
            event: event.clone(),
        };
        let mut text = serde_json::to_string(&line)
            .map_err(|error| io_error(&path, "written")(error.into()))?;
        // The hash becomes the object's last field.
        text.pop();
        let hash = chained(&self.hash, &text);
        let text = format!("{text}{SEAM}{}\"}}\n", hex(&hash));
        let written = self.file.write_all(text.as_bytes());
        let written = written.and_then(|()| self.file.sync_data());
        self.broken = written.is_err();
        written.map_err(io_error(&path, "written"))?;
        self.bytes += text.len() as u64;
        (self.seq, self.hash) = (line.seq, hash);
        Ok(())
    }

    fn begin(&mut self) -> Result<(), AuditError> {
        let previous = hex(&self.hash);
        self.append(&Event::Begun { previous })
    }

    fn rotate(&mut self) -> Result<(), AuditError> {
        let path = self.dir.join(FILE_NAME);
        let first = first_seq(&path)?.unwrap_or(self.seq);
        let older = self.dir.join(format!("audit-{first}.log"));
        fs::rename(&path, &older).map_err(io_error(&older, "made"))?;
        // Until the other file has its first line, no other line may follow: what fails here is
        // made good when the log is opened anew.
        self.broken = true;
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .mode(0o600)
            .open(&path);
        self.file = file.map_err(io_error(&path, "made"))?;
        self.bytes = 0;
        self.broken = false;
        self.begin()?;
        let synced = sync_dir(&self.dir);
        self.broken = synced.is_err();
        synced?;
        self.prune();
        Ok(())
    }

    /// Removes surplus files, the oldest first. One that cannot be removed stays, with all after
    /// it, until the next file is begun.
    fn prune(&self) {
        let files = older_files(&self.dir).unwrap_or_default();
        let surplus = files.len().saturating_sub(FILES_MAX);
        for (_, old) in files.into_iter().take(surplus) {
            if let Err(error) = fs::remove_file(&old) {
                warn!(%error, path = %old.display(), "an old file of the audit log stays");
                return;
            }
        }
    }
}

/// Reads all of a log and holds it against its hashes; tells of each line, the oldest first, with
/// its hash. It has one file in memory at a time. While a gateway writes, a file may be begun during
/// this; then it fails, and succeeds when it is called again.
///
/// # Errors
/// [`AuditError`].
pub fn read(dir: &Path, mut tell: impl FnMut(&Line, &str)) -> Result<Verified, AuditError> {
    let mut found = Verified::default();
    let mut paths: Vec<PathBuf> = older_files(dir)?
        .into_iter()
        .map(|(_, path)| path)
        .collect();
    let newest = dir.join(FILE_NAME);
    // Files are removed only beyond so many.
    let is_pruned = paths.len() >= FILES_MAX;
    paths.push(newest.clone());
    for path in paths {
        let octets = match fs::read(&path) {
            Ok(octets) => octets,
            Err(error) if error.kind() == io::ErrorKind::NotFound && path == newest => Vec::new(),
            Err(error) => return Err(io_error(&path, "read")(error)),
        };
        let whole = octets
            .iter()
            .rposition(|octet| *octet == b'\n')
            .map_or(0, |at| at + 1);
        let torn = (octets.len() - whole) as u64;
        if torn > 0 && path != newest {
            let line = 1 + octets.iter().filter(|octet| **octet == b'\n').count();
            return Err(changed(&path, line, "it is cut off"));
        }
        found.torn = torn;
        read_file(&path, &octets[..whole], is_pruned, &mut found, &mut tell)?;
    }
    Ok(found)
}

fn read_file(
    path: &Path,
    octets: &[u8],
    is_pruned: bool,
    found: &mut Verified,
    tell: &mut impl FnMut(&Line, &str),
) -> Result<(), AuditError> {
    let Ok(text) = str::from_utf8(octets) else {
        return Err(changed(path, 1, "it is no text"));
    };
    for (at, text) in text.lines().enumerate() {
        let changed = |what| changed(path, at + 1, what);
        let (content, end) = text
            .rsplit_once(SEAM)
            .ok_or_else(|| changed("it has no hash"))?;
        let hash = end
            .strip_suffix("\"}")
            .ok_or_else(|| changed("it has no hash"))?;
        let line: Line =
            serde_json::from_str(&format!("{content}}}")).map_err(|_| changed("it is no line"))?;
        let before = match (&found.last, &line.event, at) {
            // The oldest file that is left begins with what it names; the first of all with nothing.
            (None, Event::Begun { previous }, 0)
                if is_pruned || (line.seq == 1 && *previous == hex(&BEGINNING)) =>
            {
                previous.clone()
            }
            (None, Event::Begun { .. }, 0) => {
                return Err(changed("files before it are missing"));
            }
            (Some((_, last)), Event::Begun { previous }, 0) if previous == last => last.clone(),
            (Some((last, hash)), _, 1..) if line.seq == last.seq + 1 => hash.clone(),
            _ => {
                return Err(changed(
                    "lines are missing before it, or it is out of order",
                ));
            }
        };
        let before = unhex(&before).ok_or_else(|| changed("it has no hash"))?;
        if hex(&chained(&before, content)) != hash {
            return Err(changed(
                "its hash is wrong: it, or the line before, was changed",
            ));
        }
        tell(&line, hash);
        found.lines += 1;
        found.last = Some((line, hash.to_owned()));
    }
    Ok(())
}

fn changed(path: &Path, line: usize, what: &'static str) -> AuditError {
    let path = path.to_owned();
    AuditError::Changed { path, line, what }
}

fn chained(before: &[u8; 32], content: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("enishi 1 gateway audit line");
    hasher.update(before).update(content.as_bytes());
    *hasher.finalize().as_bytes()
}

/// Returns the files that are no longer written to, the oldest first.
fn older_files(dir: &Path) -> Result<Vec<(u64, PathBuf)>, AuditError> {
    let mut files = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(io_error(dir, "read")(error)),
    };
    for entry in entries {
        let entry = entry.map_err(io_error(dir, "read"))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| {
            let number = name.strip_prefix("audit-")?.strip_suffix(".log")?;
            number.parse().ok()
        });
        files.extend(number.map(|number| (number, entry.path())));
    }
    files.sort();
    Ok(files)
}

fn first_seq(path: &Path) -> Result<Option<u64>, AuditError> {
    let text = fs::read_to_string(path).map_err(io_error(path, "read"))?;
    let first = text.lines().next();
    let line = first.and_then(|line| serde_json::from_str::<Line>(line).ok());
    Ok(line.map(|line| line.seq))
}

fn sync_dir(dir: &Path) -> Result<(), AuditError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(io_error(dir, "written"))
}

/// Returns the hash by which a line names the content of a document.
pub fn content_hash(octets: &[u8]) -> String {
    hex(blake3::hash(octets).as_bytes())
}

fn hex(octets: &[u8; 32]) -> String {
    data_encoding::HEXLOWER.encode(octets)
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let octets = data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?;
    octets.try_into().ok()
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests;
