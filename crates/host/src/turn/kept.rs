//! Who may use this node's TURN server, and which servers of others this node uses: a file in the data directory, mode 0600. The passwords are
//! there as they are: long-term credentials (RFC 8489, section 9.2) need them on both sides, or what
//! is as good as they are.

use std::path::{Path, PathBuf};

use enishi_proxy::Secret;
use enishi_stun::{CredentialError, Credentials};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::url::ServerUrl;
use crate::data_dir::{DataDirError, io_error, read_settings, write_private};

/// The name of the file.
const FILE: &str = "turn.json";

/// The longest file, in octets.
const FILE_BYTES_MAX: u64 = 512 * 1024;

/// The most users.
pub const USERS_MAX: usize = 256;

/// The most servers of others: with each there is an allocation.
pub const SERVERS_MAX: usize = 2;

/// A name with its password.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password.
    pub password: Secret,
}

impl User {
    /// Returns them as the protocol takes them.
    ///
    /// # Errors
    /// When no message can carry them.
    pub fn credentials(&self) -> Result<Credentials, CredentialError> {
        Credentials::new(&self.name, self.password.text())
    }
}

/// A server of somebody else, and the password there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Foreign {
    /// Where it is, and the name there.
    pub url: ServerUrl,
    /// The password.
    pub password: Secret,
}

impl Foreign {
    /// Returns name and password as the protocol takes them.
    ///
    /// # Errors
    /// When no message can carry them.
    pub fn credentials(&self) -> Result<Credentials, CredentialError> {
        Credentials::new(self.url.user(), self.password.text())
    }
}

/// What is kept.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Content {
    /// Who may use this node's server, in the order of their names.
    pub users: Vec<User>,
    /// Which servers of others this node uses.
    pub servers: Vec<Foreign>,
}

/// The file.
#[derive(Debug)]
pub struct Kept {
    dir: PathBuf,
    content: Content,
}

impl Kept {
    /// Reads it.
    ///
    /// # Errors
    /// When it cannot be read, or does not hold what it should.
    pub fn load(dir: &Path) -> Result<Self, DataDirError> {
        let content = read_settings(&dir.join(FILE), FILE_BYTES_MAX, |text| {
            let content: Content = serde_json::from_str(text).map_err(|e| e.to_string())?;
            for user in &content.users {
                user.credentials().map_err(|error| error.to_string())?;
            }
            for server in &content.servers {
                server.credentials().map_err(|error| error.to_string())?;
            }
            Ok(content)
        })?;
        Ok(Self {
            dir: dir.to_owned(),
            content: content.unwrap_or_default(),
        })
    }

    /// Returns what is there.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Changes it; what was changed is on disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written; then nothing has changed.
    pub fn change(&mut self, change: impl FnOnce(&mut Content)) -> Result<(), DataDirError> {
        let mut content = self.content.clone();
        change(&mut content);
        content
            .users
            .sort_by(|one, other| one.name.cmp(&other.name));
        let path = self.dir.join(FILE);
        let text = serde_json::to_string_pretty(&content).map(Zeroizing::new);
        let text = text.map_err(|error| io_error(&path, "written")(error.into()))?;
        write_private(&self.dir, &path, &text)?;
        self.content = content;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn users_are_there_after_a_new_start_and_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = Kept::load(dir.path()).unwrap();
        for name in ["yui", "aki"] {
            let (name, password) = (name.to_owned(), "a secret".into());
            let add = |content: &mut Content| content.users.push(User { name, password });
            kept.change(add).unwrap();
        }
        assert!(!format!("{kept:?}").contains("a secret"));
        let path = dir.path().join(FILE);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Kept::load(dir.path()).unwrap();
        let names = again.content().users.iter().map(|user| user.name.as_str());
        assert!(names.eq(["aki", "yui"]));
        assert_eq!(again.content().users[0].password.text(), "a secret");
        fs::write(&path, r#"{"users":[{"name":"","password":"x"}]}"#).unwrap();
        let error = Kept::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(FILE), "{error}");
    }
}
