//! One settings file for all nodes of a company, signed, with a version that only grows.
//!
//! ```text
//!   settings.toml                          settings.toml.sig
//!     version = 3                            128 hexadecimal digits: the ed25519 signature of
//!     proxy = "http://proxy.corp:3128"       "enishi 1 company settings", a zero octet, and the file
//!     no_proxy = ["corp", "10.0.0.0/8"]
//! ```
//!
//! The key is in the configuration of each node, so the file may lie anywhere, and come by plain HTTP. Who
//! can change the file cannot change what it says, nor bring an older one back: a node keeps the file
//! with the highest version that it has seen. It can keep a newer one from the nodes.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use enishi_overlay::{Keypair, NodeId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::fetch::{FetchError, fetch};
use crate::settings::{Location, Secret, Settings, SettingsError, Written};
use crate::tls::Trust;

/// The longest file, in octets.
pub const FILE_BYTES_MAX: usize = 64 * 1024;

/// The longest file with a signature, in octets.
const SIGNATURE_BYTES_MAX: usize = 256;

/// What comes before the file in what is signed: a signature for something else is none for this.
const CONTEXT: &[u8] = b"enishi 1 company settings\0";

/// The keys that a file may have.
const KEYS: &[&str] = &["version", "proxy", "proxy_pac", "no_proxy", "bootstrap"];

/// The most invitations that a file may have, and the longest of them, in octets.
const INVITATIONS_MAX: usize = 16;
const INVITATION_BYTES_MAX: usize = 4_096;

/// A settings file and its signature, neither of which has been looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    text: Secret,
    signature: String,
}

/// What a company says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Company {
    /// The version, at least 1.
    pub version: u64,
    /// What it says of proxies; none for nothing.
    pub settings: Option<Settings>,
    /// Invitations to the overlay, which name nodes to join by and to reach others by; at most 16 of at
    /// most 4,096 octets, which nobody has looked at.
    pub bootstrap: Vec<String>,
}

/// The file as it stands there. Unknown keys are for newer nodes, and passed over.
#[derive(Deserialize)]
struct File {
    version: u64,
    proxy: Option<Secret>,
    proxy_pac: Option<String>,
    #[serde(default)]
    no_proxy: Vec<String>,
    #[serde(default)]
    bootstrap: Vec<String>,
}

/// Why a company's settings are not taken.
#[derive(Debug, thiserror::Error)]
pub enum CompanyError {
    /// The file or its signature cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The signature is none of the key.
    #[error(
        "the company's settings are not signed by `company_key`: sign them with `enishi proxy sign`, \
         and put the .sig file beside them"
    )]
    Unsigned,
    /// There was a newer one.
    #[error("the company's settings have version {found}, and there was version {known} already")]
    Older {
        /// The version that was found.
        found: u64,
        /// The version that is known.
        known: u64,
    },
    /// There was another one of the same version.
    #[error(
        "the company's settings were changed and still have version {0}: a change needs a higher one"
    )]
    Changed(u64),
    /// The file is not understood.
    #[error("the company's settings are not understood: {0}")]
    Wrong(String),
    /// A file to sign, or the key, cannot be used.
    #[error("{path} cannot be {tried}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried, as a participle.
        tried: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The file with the key holds none.
    #[error("{0} does not hold a key: name another with --key, or a new file to make one")]
    Key(PathBuf),
}

impl From<SettingsError> for CompanyError {
    fn from(error: SettingsError) -> Self {
        Self::Wrong(error.to_string())
    }
}

impl Signed {
    /// Fetches a file and its signature, which lies beside it with `.sig` after its name.
    ///
    /// # Errors
    /// [`CompanyError::Fetch`], [`CompanyError::Wrong`] when one is no text.
    pub async fn fetch(location: &Location, trust: &Trust) -> Result<Self, CompanyError> {
        let beside = match location {
            Location::Http(url) => Location::Http(format!("{url}.sig")),
            Location::File(path) => Location::File(with_sig(path)),
        };
        let text = fetch(location, FILE_BYTES_MAX, trust).await?;
        let signature = fetch(&beside, SIGNATURE_BYTES_MAX, trust).await?;
        let read = |octets| String::from_utf8(octets);
        let text = read(text).map_err(|_| CompanyError::Wrong("it is no text".to_owned()))?;
        let signature = read(signature).map_err(|_| CompanyError::Unsigned)?;
        Ok(Self {
            text: text.into(),
            signature: signature.trim().to_owned(),
        })
    }

    /// Signs a file.
    ///
    /// # Errors
    /// [`CompanyError::Wrong`] when it is not understood, is too long, or has a key that no node knows.
    pub fn sign(text: &str, keypair: &Keypair) -> Result<Self, CompanyError> {
        let wrong = |what: &str| Err(CompanyError::Wrong(what.to_owned()));
        if text.len() > FILE_BYTES_MAX {
            return wrong("it is longer than 65536 octets");
        }
        parse(text)?;
        let table: toml::Table = toml::from_str(text)
            .map_err(|error| CompanyError::Wrong(error.message().to_owned()))?;
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return wrong(&format!(
                "there is no key `{key}`; there are {}",
                KEYS.join(", ")
            ));
        }
        Ok(Self {
            text: text.into(),
            signature: HEXLOWER.encode(&keypair.sign(&message(text))),
        })
    }

    /// Returns the signature as it stands in its file.
    #[must_use]
    pub fn signature(&self) -> &str {
        &self.signature
    }

    /// Checks the signature, and then reads the file.
    ///
    /// # Errors
    /// [`CompanyError::Unsigned`], [`CompanyError::Wrong`].
    pub fn open(&self, key: &NodeId) -> Result<Company, CompanyError> {
        let signature = HEXLOWER_PERMISSIVE.decode(self.signature.as_bytes());
        let signature = signature.ok().and_then(|octets| octets.try_into().ok());
        let text = self.text.text();
        let is_signed = signature.is_some_and(|signature| key.verify(&message(text), &signature));
        match is_signed && text.len() <= FILE_BYTES_MAX {
            true => parse(text),
            false => Err(CompanyError::Unsigned),
        }
    }

    /// The same, in place of one that is known: refuses what is older, and what is different with the
    /// same version. One that is known and not signed by the key does not count.
    ///
    /// # Errors
    /// As [`Self::open`]; [`CompanyError::Older`], [`CompanyError::Changed`].
    pub fn replace(&self, known: Option<&Self>, key: &NodeId) -> Result<Company, CompanyError> {
        let company = self.open(key)?;
        let known = known.and_then(|known| Some((known, known.open(key).ok()?.version)));
        let found = company.version;
        match known {
            Some((_, known)) if found < known => Err(CompanyError::Older { found, known }),
            Some((before, known)) if found == known && before.text != self.text => {
                Err(CompanyError::Changed(found))
            }
            _ => Ok(company),
        }
    }
}

/// Signs the file at `path` with the key in `key`, which is made with mode 0600 when it is not there.
/// Writes the signature beside the file, and returns where, and the key by which nodes check it.
///
/// # Errors
/// [`CompanyError`] names the file and what to do.
pub fn sign_file(path: &Path, key: &Path) -> Result<(PathBuf, NodeId), CompanyError> {
    let failed = |path: &Path, tried| {
        let path = path.to_owned();
        move |source| CompanyError::File {
            path,
            tried,
            source,
        }
    };
    let text = std::fs::read_to_string(path).map_err(failed(path, "read"))?;
    // Before a key is made.
    parse(&text)?;
    let keypair = keypair(key)?;
    let signed = Signed::sign(&text, &keypair)?;
    let beside = with_sig(path);
    let written = std::fs::write(&beside, format!("{}\n", signed.signature));
    written.map_err(failed(&beside, "written"))?;
    Ok((beside, keypair.id()))
}

/// Reads or makes a key: 64 hexadecimal digits and a line break.
fn keypair(path: &Path) -> Result<Keypair, CompanyError> {
    let failed = |tried| {
        move |source| CompanyError::File {
            path: path.to_owned(),
            tried,
            source,
        }
    };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    match options.open(path) {
        Ok(mut file) => {
            let mut seed = Zeroizing::new([0; 32]);
            let random = getrandom::fill(&mut *seed);
            let random = random.map_err(|error| io::Error::other(error.to_string()));
            let text = Zeroizing::new(HEXLOWER.encode(&*seed) + "\n");
            let written = random.and_then(|()| file.write_all(text.as_bytes()));
            written
                .and_then(|()| file.sync_all())
                .map_err(failed("written"))?;
            Ok(Keypair::from_seed(&seed))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let file = std::fs::File::open(path).map_err(failed("read"))?;
            let mut text = Zeroizing::new(String::new());
            let read = file.take(128).read_to_string(&mut text);
            read.map_err(failed("read"))?;
            let seed = HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes());
            let seed = seed.map(Zeroizing::new).ok();
            let seed = seed.and_then(|seed| <[u8; 32]>::try_from(seed.as_slice()).ok());
            let seed = seed.map(Zeroizing::new);
            let seed = seed.ok_or_else(|| CompanyError::Key(path.to_owned()))?;
            Ok(Keypair::from_seed(&seed))
        }
        Err(error) => Err(failed("made")(error)),
    }
}

/// Reads a file whose signature was checked, or that is to be signed.
///
/// # Errors
/// [`CompanyError::Wrong`]; no password is in it.
pub fn parse(text: &str) -> Result<Company, CompanyError> {
    // The parser's own text may repeat a line with a password; its message does not.
    let file: File =
        toml::from_str(text).map_err(|error| CompanyError::Wrong(error.message().to_owned()))?;
    if file.version == 0 {
        return Err(CompanyError::Wrong(
            "`version` must be at least 1".to_owned(),
        ));
    }
    let is_long = |text: &String| text.len() > INVITATION_BYTES_MAX;
    if file.bootstrap.len() > INVITATIONS_MAX || file.bootstrap.iter().any(is_long) {
        return Err(CompanyError::Wrong(format!(
            "`bootstrap` has more than {INVITATIONS_MAX} invitations, or one that is too long"
        )));
    }
    let written = Written {
        proxy: file.proxy,
        pac: file.proxy_pac,
        no_proxy: file.no_proxy,
        ..Written::default()
    };
    Ok(Company {
        version: file.version,
        settings: written.settings()?,
        bootstrap: file.bootstrap,
    })
}

fn message(text: &str) -> Vec<u8> {
    [CONTEXT, text.as_bytes()].concat()
}

fn with_sig(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> Keypair {
        Keypair::from_seed(&[7; 32])
    }

    fn signed(text: &str) -> Signed {
        Signed::sign(text, &keys()).unwrap()
    }

    const TEXT: &str =
        "version = 3\nproxy = \"http://u:secret@proxy:3128\"\nno_proxy = [\"corp\"]\n";

    #[test]
    fn what_is_signed_is_read() {
        let company = signed(TEXT).open(&keys().id()).unwrap();
        assert_eq!(company.version, 3);
        assert!(company.settings.is_some());
        assert!(!format!("{:?} {company:?}", signed(TEXT)).contains("secret"));
    }

    #[test]
    fn invitations_are_bounded() {
        let of = |count: usize, length: usize| {
            let all = format!("\"{}\",", "x".repeat(length)).repeat(count);
            parse(&format!("version = 1\nbootstrap = [{all}]"))
        };
        assert_eq!(of(16, 4_096).unwrap().bootstrap.len(), 16);
        assert!(of(17, 1).is_err() && of(1, 4_097).is_err());
        assert!(parse("version = 1").unwrap().bootstrap.is_empty());
    }

    #[test]
    fn what_is_not_signed_by_the_company_is_refused() {
        let stranger = Keypair::from_seed(&[8; 32]);
        let forged = Signed::sign(TEXT, &stranger).unwrap();
        let changed = Signed {
            text: TEXT.replace("proxy:3128", "evil:3128").as_str().into(),
            ..signed(TEXT)
        };
        // A signature of the same octets for another purpose.
        let bare = Signed {
            text: TEXT.into(),
            signature: HEXLOWER.encode(&keys().sign(TEXT.as_bytes())),
        };
        let empty = Signed {
            text: TEXT.into(),
            signature: String::new(),
        };
        for wrong in [forged, changed, bare, empty] {
            let opened = wrong.open(&keys().id());
            assert!(matches!(opened, Err(CompanyError::Unsigned)));
        }
    }

    #[test]
    fn versions_only_grow() {
        let key = keys().id();
        let of = |version: u64| {
            signed(&format!(
                "version = {version}\nproxy = \"http://p:{version}\""
            ))
        };
        let three = of(3);
        assert!(three.replace(None, &key).is_ok());
        assert!(of(4).replace(Some(&three), &key).is_ok());
        assert!(three.replace(Some(&three), &key).is_ok());
        let older = of(2).replace(Some(&three), &key);
        assert!(matches!(
            older,
            Err(CompanyError::Older { found: 2, known: 3 })
        ));
        let changed = signed("version = 3").replace(Some(&three), &key);
        assert!(matches!(changed, Err(CompanyError::Changed(3))));
        // Another company's file does not count.
        let other = Signed::sign("version = 9", &Keypair::from_seed(&[8; 32])).unwrap();
        assert!(three.replace(Some(&other), &key).is_ok());
    }

    #[test]
    fn only_what_nodes_understand_is_signed() {
        for (text, what) in [
            ("proxy = \"http://p:1\"", "version"),
            ("version = 0", "version"),
            ("version = -1", "invalid value"),
            ("version = 1\nproxy = \"http://u:secret@p\"", "port"),
            ("version = 1\nproxy = \"http://u:secret@p:1", "string"),
            ("version = 1\nproxi = \"http://u:secret@p:1\"", "proxi"),
            ("version = 1\nno_proxy = [\"a b\"]", "no_proxy"),
        ] {
            let error = Signed::sign(text, &keys()).unwrap_err().to_string();
            assert!(error.contains(what) && !error.contains("secret"), "{error}");
        }
        let long = format!("version = 1\n#{}", "x".repeat(FILE_BYTES_MAX));
        assert!(Signed::sign(&long, &keys()).is_err());
        // A key of a later version keeps no node from what it knows.
        assert!(parse("version = 1\nlater = true").is_ok());
    }

    #[tokio::test]
    async fn a_file_is_signed_beside_itself_and_fetched() {
        let dir = tempfile::tempdir().unwrap();
        let (path, key) = (dir.path().join("s.toml"), dir.path().join("company.key"));
        std::fs::write(&path, TEXT).unwrap();
        let (beside, id) = sign_file(&path, &key).unwrap();
        assert_eq!(beside, dir.path().join("s.toml.sig"));
        assert_eq!(sign_file(&path, &key).unwrap().1, id);
        let location = Location::File(path.clone());
        let fetched = Signed::fetch(&location, &Trust::default()).await.unwrap();
        assert_eq!(fetched.open(&id).unwrap().version, 3);
        std::fs::write(&path, "x".repeat(FILE_BYTES_MAX + 1)).unwrap();
        assert!(matches!(
            Signed::fetch(&location, &Trust::default()).await,
            Err(CompanyError::Fetch(_))
        ));
        std::fs::remove_file(&beside).unwrap();
        std::fs::write(&path, TEXT).unwrap();
        assert!(Signed::fetch(&location, &Trust::default()).await.is_err());
        std::fs::write(&key, "nonsense").unwrap();
        assert!(matches!(sign_file(&path, &key), Err(CompanyError::Key(_))));
    }

    proptest! {
        #[test]
        fn any_change_of_the_text_breaks_the_signature(at in 0..TEXT.len(), octet in 32u8..127) {
            let mut octets = TEXT.as_bytes().to_vec();
            prop_assume!(octets[at] != octet);
            octets[at] = octet;
            let text = String::from_utf8(octets).unwrap();
            let changed = Signed { text: text.into(), ..signed(TEXT) };
            prop_assert!(changed.open(&keys().id()).is_err());
        }
    }
}
