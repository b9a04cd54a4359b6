//! Who the WireGuard clients of this node are: a file in the data directory.
//!
//! It holds what is needed to recognise a client, and its preshared key; not its secret key,
//! which is told once, in its configuration, and forgotten.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::data_dir::{DataDirError, io_error, read_settings, write_private};
use enishi_services::keys::Secret;

/// The name of the file.
const FILE: &str = "wireguard.json";

/// The longest file, in octets: all clients of all channels take a part of it.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// One client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// The name of the channel that it takes part in.
    pub channel: String,
    /// What it is called on this node; unique in its channel.
    pub name: String,
    /// Its public key.
    #[serde(serialize_with = "write_key", deserialize_with = "read_key")]
    pub public_key: [u8; 32],
    /// The key that it shares with this node, besides those that are exchanged.
    #[serde(serialize_with = "write_secret", deserialize_with = "read_secret")]
    pub preshared_key: Secret,
    /// Its address; the IPv6 address follows from it.
    pub address: Ipv4Addr,
}

/// All of them.
#[derive(Debug)]
pub struct Clients {
    dir: PathBuf,
    clients: Vec<Client>,
}

impl Clients {
    /// Reads them.
    ///
    /// # Errors
    /// When the file cannot be read, or does not hold clients.
    pub fn load(dir: &Path) -> Result<Self, DataDirError> {
        let path = dir.join(FILE);
        let clients = read_settings(&path, FILE_BYTES_MAX, |text| {
            serde_json::from_str(text).map_err(|error| error.to_string())
        })?;
        let clients = clients.unwrap_or_default();
        let dir = dir.to_owned();
        Ok(Self { dir, clients })
    }

    /// Returns them in the order in which they came.
    pub fn all(&self) -> &[Client] {
        &self.clients
    }

    /// Tells whether there is none.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Adds one, in place of one of the same name in the same channel.
    ///
    /// # Errors
    /// When the file cannot be written; then nothing has changed. So for what follows.
    pub fn add(&mut self, client: Client) -> Result<(), DataDirError> {
        let is_other = |other: &&Client| !other.is(&client.channel, &client.name);
        let mut clients: Vec<Client> = self.clients.iter().filter(is_other).cloned().collect();
        clients.push(client);
        self.keep(clients)
    }

    /// Removes one, and returns it if there was one.
    pub fn remove(&mut self, channel: &str, name: &str) -> Result<Option<Client>, DataDirError> {
        let (removed, left) = self.split(|client| client.is(channel, name));
        self.keep(left)?;
        Ok(removed.into_iter().next())
    }

    /// Removes all of a channel.
    pub fn remove_all(&mut self, channel: &str) -> Result<(), DataDirError> {
        let (removed, left) = self.split(|client| client.channel == channel);
        match removed.is_empty() {
            true => Ok(()),
            false => self.keep(left),
        }
    }

    fn split(&self, wanted: impl Fn(&Client) -> bool) -> (Vec<Client>, Vec<Client>) {
        self.clients.iter().cloned().partition(wanted)
    }

    fn keep(&mut self, clients: Vec<Client>) -> Result<(), DataDirError> {
        let path = self.dir.join(FILE);
        let text = serde_json::to_string_pretty(&clients).map(Zeroizing::new);
        let text = text.map_err(|error| io_error(&path, "written")(error.into()))?;
        write_private(&self.dir, &path, &text)?;
        self.clients = clients;
        Ok(())
    }
}

impl Client {
    fn is(&self, channel: &str, name: &str) -> bool {
        self.channel == channel && self.name == name
    }
}

/// Writes a key as WireGuard's programs do.
pub fn encode_key(key: &[u8; 32]) -> String {
    BASE64.encode(key)
}

fn write_key<S: Serializer>(key: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&encode_key(key))
}

fn read_key<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
    let text = Zeroizing::new(String::deserialize(from)?);
    let octets = BASE64.decode(text.as_bytes()).map(Zeroizing::new).ok();
    let key = octets.and_then(|octets| octets.as_slice().try_into().ok());
    key.ok_or_else(|| serde::de::Error::custom("not a key of WireGuard"))
}

fn write_secret<S: Serializer>(key: &Secret, to: S) -> Result<S::Ok, S::Error> {
    write_key(key, to)
}

fn read_secret<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    read_key(from).map(Secret::new)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn client(channel: &str, name: &str) -> Client {
        Client {
            channel: channel.to_owned(),
            name: name.to_owned(),
            public_key: [1; 32],
            preshared_key: Secret::new([2; 32]),
            address: Ipv4Addr::new(10, 77, 0, 9),
        }
    }

    #[test]
    fn what_is_added_is_there_after_a_new_start_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut clients = Clients::load(dir.path()).unwrap();
        assert!(clients.is_empty());
        for (channel, name) in [
            ("a", "phone"),
            ("a", "tablet"),
            ("b", "phone"),
            ("a", "phone"),
        ] {
            clients.add(client(channel, name)).unwrap();
        }
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let mut again = Clients::load(dir.path()).unwrap();
        assert_eq!(again.all(), clients.all());
        assert_eq!(again.all().len(), 3);
        assert_eq!(again.remove("b", "tablet").unwrap(), None);
        assert_eq!(
            again.remove("b", "phone").unwrap(),
            Some(client("b", "phone"))
        );
        again.remove_all("a").unwrap();
        assert!(Clients::load(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_file_is_told_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "[{}]").unwrap();
        let error = Clients::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(FILE), "{error}");
        assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), b"[{}]");
    }
}
