//! The data directory of one node: its lock, its identity, its port.
//!
//! | file | holds |
//! |---|---|
//! | `lock` | nothing; locked as long as a daemon runs |
//! | `node.key` | the node's secret key: 64 hexadecimal digits and a line break, mode 0600 |
//! | `node.port` | the UDP port of the last run, so that the next one has the same address |
//! | `node.measure` | what former runs measured (`daemon/measuring.rs`) |
//! | `state.redb`, `state.made` | what the services keep, mode 0600 ([`crate::store`]) |
//! | `control.sock` | the control interface ([`crate::control`]) |
//! | `overlay.member`, … | the membership in a closed overlay ([`crate::closed`]) |

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER_PERMISSIVE;
use enishi_overlay::Keypair;
use zeroize::Zeroizing;

/// How long a daemon that is about to end may keep the lock, and how often to look.
const LOCK_TIME_MAX: Duration = Duration::from_millis(500);
const LOCK_PAUSE: Duration = Duration::from_millis(25);

const LOCK: &str = "lock";
const KEY: &str = "node.key";
/// Where a new key is written before it gets its name.
const KEY_PART: &str = "node.key.part";
const PORT: &str = "node.port";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another daemon has it.
    #[error(
        "the data directory {0} is in use by another enishi: stop it with `enishi down`, or \
         choose another directory with --data"
    )]
    InUse(PathBuf),
    /// The key file does not hold a key.
    #[error(
        "the identity {0} is damaged: put a copy of it back; or move it away to start as a \
         new node, which gets a new id and new addresses"
    )]
    DamagedKey(PathBuf),
    /// A file with settings does not hold what was written.
    #[error(
        "{path} is damaged ({message}): put a copy of it back; or move it away to start without \
         what it holds"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// Something else has the directory's name.
    #[error("{0} is not a directory; choose another place for the node's data with --data")]
    NotADirectory(PathBuf),
    /// The file system refuses.
    #[error("{path} cannot be {tried}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as a participle.
        tried: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A data directory, locked for this process.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is not there (mode 0700) and locks it, waiting
    /// half a second at most for a daemon that is about to end.
    ///
    /// # Errors
    /// [`DataDirError::InUse`] when another process has it, [`DataDirError::Io`].
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => DataDirError::NotADirectory(path.to_owned()),
            _ => io_error(path, "made")(error),
        })?;
        let lock = path.join(LOCK);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock)
            .map_err(io_error(&lock, "opened"))?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => {
                    return Ok(Self {
                        path: path.to_owned(),
                        _lock: file,
                    });
                }
                Err(TryLockError::WouldBlock) if started.elapsed() < LOCK_TIME_MAX => {
                    thread::sleep(LOCK_PAUSE);
                }
                Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse(path.to_owned())),
                Err(TryLockError::Error(source)) => return Err(io_error(&lock, "locked")(source)),
            }
        }
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the node's identity, or makes one if there is none. A file that is there is
    /// never replaced.
    ///
    /// # Errors
    /// [`DataDirError::DamagedKey`], [`DataDirError::Io`].
    pub fn identity(&self) -> Result<Keypair, DataDirError> {
        let path = self.path.join(KEY);
        match fs::read(&path).map(Zeroizing::new) {
            Ok(text) => parse_key(&text).ok_or(DataDirError::DamagedKey(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_identity(&path),
            Err(source) => Err(io_error(&path, "read")(source)),
        }
    }

    /// Returns the port of the last run.
    pub fn port(&self) -> Option<u16> {
        let text = fs::read_to_string(self.path.join(PORT)).ok()?;
        text.trim().parse().ok().filter(|port| *port != 0)
    }

    /// Keeps the port for the next run.
    ///
    /// # Errors
    /// What the file system says; the next run only gets another port.
    pub fn keep_port(&self, port: u16) -> io::Result<()> {
        fs::write(self.path.join(PORT), format!("{port}\n"))
    }

    /// Writes the new key to the disk before it gets its name, so that the name never
    /// stands for half a key.
    fn make_identity(&self, path: &Path) -> Result<Keypair, DataDirError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed)
            .map_err(|error| io_error(path, "made")(io::Error::other(error.to_string())))?;
        let text = Zeroizing::new(HEXLOWER_PERMISSIVE.encode(&*seed) + "\n");
        let part = self.path.join(KEY_PART);
        let written = write_part(&part, &text, || {
            // Fails when there is a key meanwhile, where a rename would replace it.
            fs::hard_link(&part, path)?;
            fs::remove_file(&part)?;
            File::open(&self.path)?.sync_all()
        });
        written.map_err(io_error(path, "written"))?;
        Ok(Keypair::from_seed(&seed))
    }
}

/// Reads the identity of a data directory, which a daemon may have locked.
pub(crate) fn read_identity(data: &Path) -> Result<Keypair, DataDirError> {
    let path = data.join(KEY);
    let text = fs::read(&path).map(Zeroizing::new);
    let text = text.map_err(io_error(&path, "read"))?;
    parse_key(&text).ok_or(DataDirError::DamagedKey(path))
}

/// Writes a file that only the owner may read (mode 0600), in place of one of that name: as
/// a whole or not at all.
///
/// One after another in this process, as two that write the same file share its part.
pub(crate) fn write_private(dir: &Path, path: &Path, text: &str) -> Result<(), DataDirError> {
    static WRITING: Mutex<()> = Mutex::new(());
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let part = path.with_extension("part");
    let written = write_part(&part, text, || {
        fs::rename(&part, path)?;
        File::open(dir)?.sync_all()
    });
    written.map_err(io_error(path, "written"))
}

/// Writes a file of mode 0600 to the disk, and then has it get its name; one that an earlier attempt
/// left is removed. If one of the two fails, as for want of room, nothing is left behind: it may hold a secret.
fn write_part(part: &Path, text: &str, name: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    match fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(part);
    let written = made.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        name()
    });
    written.inspect_err(|_| {
        // Not there any more if it has got its name.
        let _ = fs::remove_file(part);
    })
}

/// Reads a file with settings that may not be there; none without it.
///
/// # Errors
/// [`DataDirError::Damaged`] when it is too long or its content not understood,
/// [`DataDirError::Io`].
pub(crate) fn read_settings<T>(
    path: &Path,
    bytes_max: u64,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, DataDirError> {
    let damaged = |message: String| DataDirError::Damaged {
        path: path.to_owned(),
        message,
    };
    let mut octets = Zeroizing::new(Vec::new());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path, "read")(error)),
    };
    let read = file.take(bytes_max + 1).read_to_end(&mut octets);
    let count = read.map_err(io_error(path, "read"))?;
    if count as u64 > bytes_max {
        return Err(damaged(format!("it is longer than {bytes_max} octets")));
    }
    let text = str::from_utf8(&octets).map_err(|error| damaged(error.to_string()))?;
    parse(text).map(Some).map_err(damaged)
}

pub(crate) fn parse_key(text: &[u8]) -> Option<Keypair> {
    let octets = HEXLOWER_PERMISSIVE.decode(text.trim_ascii()).ok();
    let octets = octets.map(Zeroizing::new)?;
    let seed: &[u8; 32] = octets.as_slice().try_into().ok()?;
    Some(Keypair::from_seed(seed))
}

pub(crate) fn io_error(path: &Path, tried: &'static str) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io {
        path,
        tried,
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_identity_stays_and_a_damaged_one_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(&dir.path().join("new/node")).unwrap();
        let id = data.identity().unwrap().id();
        assert_eq!(data.identity().unwrap().id(), id);
        let key = data.path().join(KEY);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(data.path()), mode(&key)), (0o700, 0o600));
        assert!(!data.path().join(KEY_PART).exists());

        fs::write(&key, "0123").unwrap();
        let error = data.identity().unwrap_err();
        assert!(matches!(error, DataDirError::DamagedKey(_)), "{error}");
        assert_eq!(fs::read(&key).unwrap(), b"0123");
    }

    #[test]
    fn files_are_written_whole_by_whomever_and_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("told.json");
        thread::scope(|scope| {
            for writer in 0..8 {
                let (dir, path) = (dir.path(), &path);
                scope.spawn(move || {
                    for _ in 0..20 {
                        write_private(dir, path, &writer.to_string().repeat(1_000)).unwrap();
                    }
                });
            }
        });
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, text[..1].repeat(1_000));
        // What cannot get its name.
        let taken = dir.path().join("taken.json");
        fs::create_dir(&taken).unwrap();
        write_private(dir.path(), &taken, "a password").unwrap_err();
        let names = fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["taken.json", "told.json"]);
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DataDir::open(file.path()).unwrap_err();
        assert!(matches!(error, DataDirError::NotADirectory(_)), "{error}");
    }

    #[test]
    fn one_process_at_a_time_uses_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&dir.path().display().to_string()), "{error}");
        assert_eq!(first.port(), None);
        first.keep_port(4242).unwrap();
        drop(first);
        assert_eq!(DataDir::open(dir.path()).unwrap().port(), Some(4242));
    }
}
