//! The control socket as a file: made with mode 0600, taken over from a dead daemon,
//! never from a live one.

use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::{fs, os::unix::net::UnixStream};

use enishi_api::SOCKET_NAME;
use tokio::net::UnixListener;
use tracing::warn;

use super::Control;

/// A directory that only the owner may enter. The socket is born in it and moved to
/// its place once its mode is set, so that nobody can connect in between.
const NURSERY_NAME: &str = ".ctl";

/// Why the control socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon answers on the socket.
    #[error(
        "another enishi runs on this data directory (it answers on {0}); \
         stop it with `enishi down`, or choose another directory with --data"
    )]
    InUse(PathBuf),
    /// Something else has the socket's name.
    #[error("{0} is not a socket; move it away and start again")]
    NotASocket(PathBuf),
    /// The file system refuses; the text says what was tried.
    #[error("the control socket {path} cannot be made: {source}")]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Control {
    /// Makes the control socket in a data directory, which must exist.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] when a daemon answers on the socket, when a file that is not a
    /// socket has its name, or when the file system refuses (a path of more than about
    /// 100 octets is too long for a socket).
    pub fn bind(data: &Path) -> Result<Self, BindError> {
        let path = data.join(SOCKET_NAME);
        refuse_if_taken(&path)?;
        match make(data, &path) {
            Ok(listener) => Ok(Self { listener, path }),
            Err(source) => Err(BindError::Io { path, source }),
        }
    }
}

fn refuse_if_taken(path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(BindError::Io {
            path: path.to_owned(),
            source,
        }),
        Ok(found) if !found.file_type().is_socket() => Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => Err(BindError::InUse(path.to_owned())),
            // Nobody listens: the daemon that made it is dead.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(source) => Err(BindError::Io {
                path: path.to_owned(),
                source,
            }),
        },
    }
}

fn make(data: &Path, path: &Path) -> io::Result<UnixListener> {
    let nursery = data.join(NURSERY_NAME);
    match fs::remove_dir_all(&nursery) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::DirBuilder::new().mode(0o700).create(&nursery)?;
    let born = nursery.join("s");
    let listener = UnixListener::bind(&born)?;
    fs::set_permissions(&born, fs::Permissions::from_mode(0o600))?;
    fs::rename(&born, path)?;
    fs::remove_dir(&nursery)?;
    Ok(listener)
}

/// Removes the socket of a daemon that stops.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        warn!(%error, "the control socket could not be removed");
    }
}
