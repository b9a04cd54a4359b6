//! Changing `/etc/resolv.conf` so that no program ever reads half of it, and remembering
//! that it was changed.
//!
//! A new file takes the place of the old one in one step. Where the path is a symbolic link
//! that is done where it leads; where a file is mounted upon it, as `ip netns exec` and
//! containers do, it cannot be replaced, and is written over instead.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use super::super::PORT;
use super::resolv_conf;

/// How often a change is tried anew when others change the file at the same time.
const TRIES_MAX: u32 = 5;

/// The longest file that is read, in octets.
const BYTES_MAX: u64 = 64 * 1024;

/// Changes the text of a file, and returns what it is then. One that would stay the same is
/// not written; one that somebody else changes meanwhile is read again.
pub(super) fn edit(path: &Path, change: impl Fn(&str) -> String) -> io::Result<String> {
    for _ in 0..TRIES_MAX {
        let before = read_if_there(path)?;
        let after = change(&before);
        if after == before || write(path, &before, &after)? {
            return Ok(after);
        }
    }
    Err(io::Error::other("another program changes it all the time"))
}

/// Writes a text in the place of another; false when the file has a third one.
fn write(path: &Path, before: &str, after: &str) -> io::Result<bool> {
    match replace(path, before, after) {
        Ok(written) => Ok(written),
        // A mounted file cannot be replaced, and a missing one need not be.
        Err(_) if read_if_there(path)? == before => overwrite(path, after).map(|()| true),
        Err(_) => Ok(false),
    }
}

/// Without the file a resolver asks this host; it will be empty afterwards.
fn read_if_there(path: &Path) -> io::Result<String> {
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

/// Takes a server out of a file.
pub(super) fn take_out(path: &Path, server: IpAddr) -> io::Result<()> {
    edit(path, |text| resolv_conf::without_server(text, server)).map(drop)
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = File::open(path)?;
    if file.metadata()?.len() > BYTES_MAX {
        return Err(io::Error::other("it is larger than 64 KiB"));
    }
    file.take(BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Puts a new file in the place of the old one, with its owner and rights; false when the old
/// one has another text by then.
fn replace(path: &Path, before: &str, text: &str) -> io::Result<bool> {
    let path = fs::canonicalize(path)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    let metadata = fs::metadata(&path)?;
    let new = directory.join(format!(".resolv.conf.enishi-{}", std::process::id()));
    let replaced = || -> io::Result<bool> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(metadata.permissions())?;
        chown(&new, Some(metadata.uid()), Some(metadata.gid()))?;
        file.sync_all()?;
        let is_same = read(&path)? == before;
        is_same.then(|| fs::rename(&new, &path)).transpose()?;
        Ok(is_same)
    };
    let replaced = replaced();
    if !matches!(replaced, Ok(true)) {
        // It may not even have been made.
        let _ = fs::remove_file(&new);
    }
    replaced
}

/// Writes over the file, and cuts it afterwards: it is never shorter than the new text.
fn overwrite(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)?;
    file.sync_all()
}

/// A file in the data directory: which server stands in which file, for as long as it does.
#[derive(Debug)]
pub(super) struct Marker(PathBuf);

impl Marker {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Notes that a server stands in a file: its address, a blank, the file.
    pub(super) fn set(&self, path: &Path, server: IpAddr) -> io::Result<()> {
        fs::write(&self.0, format!("{server} {}\n", path.display()))
    }

    /// Notes that none does.
    pub(super) fn clear(&self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the note about the resolver cannot be removed");
        }
    }

    /// Takes out what an earlier run left, unless another node has the address by now.
    pub(super) fn repair(&self) {
        let Ok(text) = fs::read_to_string(&self.0) else {
            return;
        };
        let left = text.trim_end().split_once(' ');
        if let Some((server, path)) = left
            && let Ok(server) = server.parse()
            && UdpSocket::bind((server, PORT)).is_ok()
        {
            match take_out(Path::new(path), server) {
                Ok(()) => tracing::info!("what the last run left in {path} was taken out"),
                Err(error) => return tracing::warn!(%error, "{path} could not be restored"),
            }
        }
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const BEFORE: &str = "nameserver 192.0.2.1\n";

    fn add(text: &str) -> String {
        resolv_conf::with_server(text, [127, 77, 0, 53].into())
    }

    #[test]
    fn a_file_is_replaced_where_a_link_leads_and_keeps_its_rights() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        fs::write(&file, BEFORE).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("file", &link).unwrap();
        let inode = fs::metadata(&file).unwrap().ino();
        assert_eq!(edit(&link, add).unwrap(), add(BEFORE));
        assert_eq!(edit(&link, add).unwrap(), add(BEFORE));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let metadata = fs::metadata(&file).unwrap();
        assert_ne!(metadata.ino(), inode);
        assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
        take_out(&link, [127, 77, 0, 53].into()).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), BEFORE);
        let entries = fs::read_dir(directory.path()).unwrap();
        assert_eq!(entries.count(), 2);
    }

    #[test]
    fn what_others_write_at_the_same_moment_is_not_lost() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, BEFORE).unwrap();
        let theirs = format!("{BEFORE}search example.org\n");
        let change = |text: &str| {
            fs::write(&file, &theirs).unwrap();
            add(text)
        };
        assert_eq!(edit(&file, change).unwrap(), add(&theirs));
        assert!(!write(&file, BEFORE, "x").unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), add(&theirs));
    }

    #[test]
    fn writing_over_leaves_nothing_of_a_longer_text() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, add(BEFORE)).unwrap();
        overwrite(&file, BEFORE).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), BEFORE);
    }

    #[test]
    fn a_missing_file_is_made_and_empty_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        assert_eq!(edit(&file, add).unwrap(), add(""));
        take_out(&file, [127, 77, 0, 53].into()).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "");
    }

    #[test]
    fn the_next_start_takes_out_what_a_crash_left() {
        let directory = tempfile::tempdir().unwrap();
        let [file, note] = ["file", "note"].map(|name| directory.path().join(name));
        let server = IpAddr::from([127, 77, 1, 53]);
        fs::write(&file, resolv_conf::with_server(BEFORE, server)).unwrap();
        let marker = Marker::new(note.clone());
        marker.repair();
        marker.set(&file, server).unwrap();
        if UdpSocket::bind((server, PORT)).is_err() {
            eprintln!("skipped: needs the right to port {PORT}");
            return;
        }
        marker.repair();
        assert_eq!(fs::read_to_string(&file).unwrap(), BEFORE);
        assert!(!note.exists());
    }
}
