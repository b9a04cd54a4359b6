//! What a node keeps on disk: one redb file, written by a thread of its own.
//!
//! ```text
//! state.redb
//!   table meta      "format"            -> u32, FORMAT
//!                   "contacts"          -> contacts of the last run (postcard)
//!   table values    service (1) | key   -> seconds since 1970 (8, little endian) | value
//! ```
//!
//! A batch is committed as a whole and is on disk (fsync) when its [`Outcome`] comes.
//! After an error the file is opened anew for the next batch, because redb refuses to go
//! on with one whose state on disk is not certain.
//!
//! Only the owner may read the file (mode 0600): it holds the secrets of channels.
//!
//! A file that is damaged or of another format is moved aside, never overwritten. One that is
//! gone or empty is told as well: `state.made` tells that there was one.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Once, mpsc as blocking};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
};
use tokio::sync::mpsc;

/// The name of the file in the data directory.
pub const FILE_NAME: &str = "state.redb";

/// The name of the empty file that tells that the store has been made once.
const MADE_NAME: &str = "state.made";

/// The format of the tables' contents.
pub const FORMAT: u32 = 1;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const VALUES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("values");
/// What a person can do whose node has lost its state.
const AFRESH: &str = "name a node of its overlay with --bootstrap, and join its channels again";

const FORMAT_KEY: &str = "format";
const CONTACTS_KEY: &str = "contacts";

/// Who may read and write the file: its owner.
const MODE: u32 = 0o600;

/// How much of the file redb keeps in memory, in octets.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Where something is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// A service's value.
    Value {
        /// The service's number.
        service: u8,
        /// The service's key.
        key: Vec<u8>,
    },
    /// The contacts for the next start.
    Contacts,
}

/// A batch: what each slot is to hold, nothing without a value.
pub type Batch = BTreeMap<Slot, Option<Vec<u8>>>;

/// What became of a batch: on disk, or given back with the reason.
pub type Outcome = Result<(), (Batch, String)>;

/// A value from the last run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The service's number.
    pub service: u8,
    /// The service's key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// Seconds since it was written, by the system's clock.
    pub age_s: u64,
}

/// What was found at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The services' values.
    pub values: Vec<Kept>,
    /// The contacts as they were kept; empty without any.
    pub contacts: Vec<u8>,
    /// What a person should know: that a file was moved aside and why, or is gone.
    pub notice: Option<String>,
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "the state file {path} cannot be opened: {message}; check the disk and the permissions of \
     the data directory"
)]
pub struct StoreError {
    path: PathBuf,
    message: String,
}

/// The store, as a queue to its thread.
#[derive(Debug)]
pub struct Store {
    batches: blocking::Sender<Batch>,
    thread: JoinHandle<()>,
}

impl Store {
    /// Opens the file in a data directory, or makes it. The receiver gets one [`Outcome`]
    /// for each batch, in order.
    ///
    /// # Errors
    /// [`StoreError`] when the system refuses. A damaged file is no error.
    pub fn open(data: &Path) -> Result<(Self, Found, mpsc::Receiver<Outcome>), StoreError> {
        let path = data.join(FILE_NAME);
        let (batches, queue) = blocking::channel::<Batch>();
        let (outcomes, receiver) = mpsc::channel(1);
        let is_lost =
            fs::metadata(&path).map_or(0, |file| file.len()) == 0 && data.join(MADE_NAME).exists();
        let (database, mut found) = open_or_move_aside(&path)?;
        if is_lost {
            found.notice = Some(format!(
                "the state file {} was gone or empty, and the node starts with an empty one: stop \
                 it and put a copy back; or {AFRESH}",
                path.display()
            ));
        }
        if let Err(error) = fs::write(data.join(MADE_NAME), "") {
            tracing::warn!(%error, "should the state file be lost, that cannot be told");
        }
        let error = {
            let path = path.clone();
            move |source: io::Error| StoreError {
                path,
                message: source.to_string(),
            }
        };
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write_batches(&path, database, &queue, &outcomes))
            .map_err(error)?;
        Ok((Self { batches, thread }, found, receiver))
    }

    /// Hands over a batch. Its [`Outcome`] follows.
    pub fn commit(&self, batch: Batch) {
        // The thread ends only after this sender; should it have panicked, the receiver
        // of outcomes ends too.
        let _ = self.batches.send(batch);
    }

    /// Waits until all batches are dealt with and closes the file.
    pub fn close(self) {
        drop(self.batches);
        let _ = self.thread.join();
    }
}

/// What is wrong with a file.
enum Unfit {
    /// It cannot be read as what it should be.
    Damaged(String),
    /// It has another format.
    OldVersion(u32),
    /// The system refuses; nothing is known of the file.
    Refused(String),
}

fn open_or_move_aside(path: &Path) -> Result<(Database, Found), StoreError> {
    let refused = |message: String| StoreError {
        path: path.to_owned(),
        message,
    };
    let (suffix, why) = match open_guarded(path) {
        Ok(opened) => return Ok(opened),
        Err(Unfit::Refused(message)) => return Err(refused(message)),
        Err(Unfit::Damaged(message)) => {
            let suffix = format!("damaged-{}", unix_s());
            (suffix, format!("the state file was damaged ({message})"))
        }
        Err(Unfit::OldVersion(version)) => (
            format!("old-version-{version}-{}", unix_s()),
            format!("the state file is of version {version}, this program knows {FORMAT}"),
        ),
    };
    let aside = path.with_file_name(format!("{FILE_NAME}.{suffix}"));
    fs::rename(path, &aside).map_err(|error| refused(format!("{why}; {error}")))?;
    let notice = format!(
        "{why}; it is kept as {}, and the node starts with an empty one: {AFRESH}",
        aside.display()
    );
    let (database, mut found) = open_guarded(path).map_err(|unfit| match unfit {
        Unfit::Damaged(message) | Unfit::Refused(message) => refused(message),
        Unfit::OldVersion(version) => refused(format!("it is of version {version}")),
    })?;
    found.notice = Some(notice);
    Ok((database, found))
}

/// The thread that opens the file, of whose panics nothing is printed.
const OPENING: &str = "store-open";

/// Opens in a thread: some damage makes redb panic, which then ends only that thread.
fn open_guarded(path: &Path) -> Result<(Database, Found), Unfit> {
    hush_opening();
    let path = path.to_owned();
    let opening = thread::Builder::new()
        .name(OPENING.to_owned())
        .spawn(move || open(&path))
        .map_err(|error| Unfit::Refused(error.to_string()))?;
    let opened = opening.join();
    opened.unwrap_or_else(|_| Err(Unfit::Damaged("its pages make no sense".to_owned())))
}

/// Has the panics of [`OPENING`] printed no more: people are told what is damaged instead.
fn hush_opening() {
    static HUSHED: Once = Once::new();
    HUSHED.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |what| {
            if thread::current().name() != Some(OPENING) {
                others(what);
            }
        }));
    });
}

fn open(path: &Path) -> Result<(Database, Found), Unfit> {
    let fresh = !path.exists();
    let mut database = create(path)?;
    if !fresh && !database.check_integrity()? {
        tracing::warn!("the state file was not closed in good order; its last good state is used");
    }
    let transaction = database.begin_write().map_err(redb::Error::from)?;
    {
        let mut meta = transaction.open_table(META).map_err(redb::Error::from)?;
        let version = meta.get(FORMAT_KEY).map_err(redb::Error::from)?;
        let version = version.map(|octets| octets.value().try_into().map(u32::from_le_bytes));
        match version {
            Some(Ok(FORMAT)) => {}
            Some(Ok(version)) => return Err(Unfit::OldVersion(version)),
            Some(Err(_)) => return Err(Unfit::Damaged("it has no version".to_owned())),
            None => {
                let format = FORMAT.to_le_bytes();
                let inserted = meta.insert(FORMAT_KEY, &format[..]);
                inserted.map_err(redb::Error::from)?;
            }
        }
        transaction.open_table(VALUES).map_err(redb::Error::from)?;
    }
    transaction.commit().map_err(redb::Error::from)?;
    let found = read(&database)?;
    Ok((database, found))
}

fn create(path: &Path) -> Result<Database, DatabaseError> {
    let file = open_private(path).map_err(|error| DatabaseError::Storage(error.into()))?;
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).create_file(file)
}

/// Opens a file that nobody else may read: it holds the secrets of channels.
fn open_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(MODE)
        .open(path)?;
    // One that was there may have been more open.
    if file.metadata()?.permissions().mode() & 0o777 != MODE {
        file.set_permissions(Permissions::from_mode(MODE))?;
    }
    Ok(file)
}

fn read(database: &Database) -> Result<Found, redb::Error> {
    let transaction = database.begin_read()?;
    let contacts = transaction.open_table(META)?.get(CONTACTS_KEY)?;
    let mut found = Found {
        contacts: contacts
            .map(|octets| octets.value().to_vec())
            .unwrap_or_default(),
        ..Found::default()
    };
    let now = unix_s();
    for entry in transaction.open_table(VALUES)?.iter()? {
        let (key, value) = entry?;
        let Some((service, key)) = key.value().split_first() else {
            continue;
        };
        let Some((written, value)) = value.value().split_first_chunk() else {
            continue;
        };
        found.values.push(Kept {
            service: *service,
            key: key.to_vec(),
            value: value.to_vec(),
            age_s: now.saturating_sub(u64::from_le_bytes(*written)),
        });
    }
    Ok(found)
}

fn write_batches(
    path: &Path,
    database: Database,
    queue: &blocking::Receiver<Batch>,
    outcomes: &mpsc::Sender<Outcome>,
) {
    let mut database = Some(database);
    while let Ok(batch) = queue.recv() {
        let outcome = write(path, &mut database, &batch).map_err(|error| {
            database = None;
            (batch, error.to_string())
        });
        if outcomes.blocking_send(outcome).is_err() {
            tracing::debug!("nobody waits for the store any more");
        }
    }
}

/// Commits a batch with redb's full durability, its default.
fn write(path: &Path, database: &mut Option<Database>, batch: &Batch) -> Result<(), redb::Error> {
    let database = match database {
        Some(database) => database,
        None => database.insert(create(path)?),
    };
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        let mut values = transaction.open_table(VALUES)?;
        let now = unix_s().to_le_bytes();
        for (slot, value) in batch {
            match (slot, value) {
                (Slot::Contacts, Some(value)) => {
                    meta.insert(CONTACTS_KEY, value.as_slice())?;
                }
                (Slot::Contacts, None) => {
                    meta.remove(CONTACTS_KEY)?;
                }
                (Slot::Value { service, key }, Some(value)) => {
                    let value = [&now[..], value].concat();
                    values.insert(&*place(*service, key), &*value)?;
                }
                (Slot::Value { service, key }, None) => {
                    values.remove(&*place(*service, key))?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn place(service: u8, key: &[u8]) -> Vec<u8> {
    [&[service], key].concat()
}

/// Returns the seconds since 1970 by the system's clock; 0 before.
pub(crate) fn unix_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

impl From<redb::Error> for Unfit {
    fn from(error: redb::Error) -> Self {
        match error {
            // So redb says that a file is none of its own.
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                Self::Damaged(error.to_string())
            }
            redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Damaged(error.to_string())
            }
            redb::Error::Io(error) => Self::Refused(error.to_string()),
            redb::Error::UpgradeRequired(version) => Self::OldVersion(version.into()),
            error => Self::Damaged(error.to_string()),
        }
    }
}

impl From<DatabaseError> for Unfit {
    fn from(error: DatabaseError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<StorageError> for Unfit {
    fn from(error: StorageError) -> Self {
        redb::Error::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn slot(key: &[u8]) -> Slot {
        Slot::Value {
            service: 1,
            key: key.to_vec(),
        }
    }

    fn names(data: &Path) -> Vec<String> {
        let entries = fs::read_dir(data).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != MADE_NAME)
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_committed_is_there_after_a_start() {
        let dir = tempfile::tempdir().unwrap();
        let (store, found, mut outcomes) = Store::open(dir.path()).unwrap();
        assert_eq!(found, Found::default());
        let batch = [
            (slot(b"a"), Some(vec![1])),
            (slot(b"b"), Some(vec![2])),
            (Slot::Contacts, Some(vec![3])),
        ];
        store.commit(batch.into());
        outcomes.blocking_recv().unwrap().unwrap();
        store.commit([(slot(b"a"), None)].into());
        outcomes.blocking_recv().unwrap().unwrap();
        store.close();
        let (_store, found, _outcomes) = Store::open(dir.path()).unwrap();
        let [kept] = &found.values[..] else {
            panic!("{found:?}")
        };
        assert_eq!((&kept.key[..], &kept.value[..]), (&b"b"[..], &[2][..]));
        assert!(kept.age_s < 60 && found.contacts == [3] && found.notice.is_none());
    }

    #[test]
    fn a_commit_that_was_told_survives_a_copy_of_the_file_taken_at_that_moment() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _, mut outcomes) = Store::open(dir.path()).unwrap();
        store.commit([(slot(b"a"), Some(vec![1]))].into());
        outcomes.blocking_recv().unwrap().unwrap();
        // As after `kill -9`: the file as it is, without the end of the process.
        let copy = tempfile::tempdir().unwrap();
        fs::copy(dir.path().join(FILE_NAME), copy.path().join(FILE_NAME)).unwrap();
        let (_store, found, _outcomes) = Store::open(copy.path()).unwrap();
        assert_eq!(found.values.len(), 1);
        assert_eq!(found.notice, None);
    }

    #[test]
    fn only_the_owner_reads_the_file_a_new_one_or_an_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let (store, ..) = Store::open(dir.path()).unwrap();
        assert_eq!(mode(), 0o600);
        store.close();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let (_store, ..) = Store::open(dir.path()).unwrap();
        assert_eq!(mode(), 0o600);
    }

    #[test]
    fn damaged_files_are_kept_aside() {
        for octets in [&b"this is no state file"[..], &[0; 8192], b""] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(FILE_NAME), octets).unwrap();
            let (store, found, _outcomes) = Store::open(dir.path()).unwrap();
            store.close();
            if octets.is_empty() {
                continue;
            }
            assert!(found.notice.unwrap().contains("damaged"));
            let [_, aside] = &names(dir.path())[..] else {
                panic!("{:?}", names(dir.path()))
            };
            assert!(aside.starts_with("state.redb.damaged-"), "{aside}");
            assert_eq!(fs::read(dir.path().join(aside)).unwrap(), octets);
        }
    }

    #[test]
    fn a_file_that_is_gone_or_empty_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let open = || {
            let (store, found, _outcomes) = Store::open(dir.path()).unwrap();
            store.close();
            found.notice
        };
        assert_eq!((open(), open()), (None, None));
        fs::write(&path, b"").unwrap();
        assert!(open().unwrap().contains("gone or empty"));
        assert_eq!(open(), None);
        fs::remove_file(&path).unwrap();
        assert!(open().unwrap().contains("gone or empty"));
    }

    #[test]
    fn holes_in_a_good_file_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _, mut outcomes) = Store::open(dir.path()).unwrap();
        for number in 0..200_u32 {
            let key = number.to_le_bytes();
            store.commit([(slot(&key), Some(vec![7; 3000]))].into());
            outcomes.blocking_recv().unwrap().unwrap();
        }
        store.close();
        let path = dir.path().join(FILE_NAME);
        let mut octets = fs::read(&path).unwrap();
        for octet in &mut octets[8192..200_000] {
            *octet ^= 0x5a;
        }
        fs::write(&path, octets).unwrap();
        let (_store, found, _outcomes) = Store::open(dir.path()).unwrap();
        assert!(
            found
                .notice
                .is_some_and(|notice| notice.contains("damaged"))
        );
    }

    #[test]
    fn files_of_another_version_are_kept_aside() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::create(dir.path().join(FILE_NAME)).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert(FORMAT_KEY, &9_u32.to_le_bytes()[..]).unwrap();
        drop(meta);
        transaction.commit().unwrap();
        drop(database);
        let (_store, found, _outcomes) = Store::open(dir.path()).unwrap();
        assert!(found.notice.unwrap().contains("version 9"));
        let names = names(dir.path());
        assert!(
            names[1].starts_with("state.redb.old-version-9-"),
            "{names:?}"
        );
    }
}
