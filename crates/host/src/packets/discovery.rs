//! In which channel programs of this host look for others when they choose no device: kept over
//! restarts, in a file of the data directory that holds the channel's name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use super::lock;
use crate::data_dir::{DataDirError, io_error, read_settings, write_private};

/// The file in the data directory.
const FILE_NAME: &str = "discovery";

/// The longest file, in octets.
const FILE_BYTES_MAX: u64 = 1024;

/// The channel for which discovery is on; at most one of a node, as the system has one route.
#[derive(Debug, Default)]
pub struct Discovery {
    data: PathBuf,
    channel: Mutex<Option<String>>,
}

impl Discovery {
    /// Reads which channel was kept.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn load(data: &Path) -> Result<Self, DataDirError> {
        let path = data.join(FILE_NAME);
        let channel = read_settings(&path, FILE_BYTES_MAX, |text| {
            let name = text.trim();
            match name.is_empty() || name.contains(char::is_control) {
                true => Err("it names no channel".to_owned()),
                false => Ok(name.to_owned()),
            }
        })?;
        Ok(Self {
            data: data.to_owned(),
            channel: Mutex::new(channel),
        })
    }

    /// Returns the name of the channel for which it is on.
    pub fn channel(&self) -> Option<String> {
        self.lock().clone()
    }

    /// Has it on for one channel, or for none.
    ///
    /// # Errors
    /// When that cannot be kept; then nothing has changed.
    pub(super) fn set(&self, channel: Option<&str>) -> Result<(), DataDirError> {
        let path = self.data.join(FILE_NAME);
        match channel {
            Some(name) => write_private(&self.data, &path, &format!("{name}\n"))?,
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error(&path, "removed")(error));
                }
                _ => {}
            },
        }
        *self.lock() = channel.map(str::to_owned);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        lock(&self.channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channel_is_kept_until_there_is_none() {
        let data = tempfile::tempdir().unwrap();
        let load = || Discovery::load(data.path()).unwrap().channel();
        assert_eq!(load(), None);
        let discovery = Discovery::load(data.path()).unwrap();
        discovery.set(Some("office")).unwrap();
        assert_eq!(load().as_deref(), Some("office"));
        discovery.set(None).unwrap();
        discovery.set(None).unwrap();
        assert_eq!((load(), discovery.channel()), (None, None));
        fs::write(data.path().join(FILE_NAME), [0xff, 0xfe]).unwrap();
        let error = Discovery::load(data.path()).unwrap_err().to_string();
        assert!(error.contains("move it away"), "{error}");
    }
}
