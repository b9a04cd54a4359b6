//! What one source says: which proxies, or which PAC file, and what goes without.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::bypass::{Bypass, BypassError};
use crate::route::{Route, ServerError};
use crate::target::Target;

/// How "no proxy" is written.
pub const NONE: &str = "none";

/// What one source says, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How a proxy is chosen.
    pub choice: Choice,
    /// What goes without one.
    pub bypass: Bypass,
}

/// How a proxy is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// No proxy for anything.
    Direct,
    /// Proxies that are named.
    Fixed(Box<Fixed>),
    /// A PAC file says it for each host.
    Pac(Location),
}

/// Proxies that are named, for the schemes of URLs. What has none goes straight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fixed {
    /// For `http` and `ws`.
    pub http: Option<Route>,
    /// For `https` and `wss`.
    pub https: Option<Route>,
    /// For all for which there is none of the two.
    pub other: Option<Route>,
}

impl Fixed {
    /// Returns the proxy for a target.
    #[must_use]
    pub fn route(&self, target: &Target) -> Route {
        let own = match target.scheme() {
            "http" | "ws" => self.http.as_ref(),
            "https" | "wss" => self.https.as_ref(),
            _ => None,
        };
        own.or(self.other.as_ref())
            .cloned()
            .unwrap_or(Route::Direct)
    }
}

/// Where a file is: by HTTP, plain or by TLS, or on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Location {
    /// An `http://` or `https://` URL of at most 2,048 octets, without a user and a password.
    Http(String),
    /// A file, by its whole path.
    File(PathBuf),
}

impl FromStr for Location {
    type Err = SettingsError;

    fn from_str(text: &str) -> Result<Self, SettingsError> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix("file://") {
            return Self::file(path);
        }
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        match scheme.map(str::to_ascii_lowercase).as_deref() {
            None => Self::file(text),
            Some("http" | "https") => match Target::parse(text) {
                Ok(_) if text.chars().all(|c| c.is_ascii_graphic() && c != '@') => {
                    Ok(Self::Http(text.to_owned()))
                }
                _ => Err(SettingsError::Location),
            },
            Some(_) => Err(SettingsError::Location),
        }
    }
}

impl Location {
    fn file(path: &str) -> Result<Self, SettingsError> {
        let path = Path::new(path);
        match path.is_absolute() {
            true => Ok(Self::File(path.to_owned())),
            false => Err(SettingsError::Location),
        }
    }
}

impl TryFrom<String> for Location {
    type Error = SettingsError;

    fn try_from(text: String) -> Result<Self, SettingsError> {
        text.parse()
    }
}

impl From<Location> for String {
    fn from(location: Location) -> Self {
        location.to_string()
    }
}

impl fmt::Display for Location {
    /// Writes it for people: a user and a password in the URL, and what follows `?`, are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => f.write_str(url),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What one source says, as it is written: in our configuration, in a company's file, as told by a
/// desktop. Proxies may hold passwords.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Written {
    /// The proxy for everything for which there is no other, or [`NONE`].
    pub proxy: Option<Secret>,
    /// The proxy for `http`.
    pub http: Option<Secret>,
    /// The proxy for `https`.
    pub https: Option<Secret>,
    /// Where a PAC file is; it goes before proxies that are named.
    pub pac: Option<String>,
    /// What goes without a proxy.
    pub no_proxy: Vec<String>,
    /// Whether `no_proxy` names all that takes a proxy, and nothing else does.
    pub reversed: bool,
}

impl Written {
    /// Understands it. None when it says nothing of proxies.
    ///
    /// # Errors
    /// [`SettingsError`], which names the key and what to do, and repeats no password.
    pub fn settings(&self) -> Result<Option<Settings>, SettingsError> {
        let bypass = self.bypass()?;
        let named = |key, text: &Option<Secret>| match text.as_ref().map(Secret::text) {
            None | Some(NONE) => Ok(None),
            Some(text) => parse(key, text).map(Some),
        };
        let choice = if let Some(pac) = &self.pac {
            if self.proxy.is_some() {
                return Err(SettingsError::Both);
            }
            Choice::Pac(pac.parse()?)
        } else if self
            .proxy
            .as_ref()
            .is_some_and(|proxy| proxy.text() == NONE)
        {
            Choice::Direct
        } else {
            let fixed = Fixed {
                http: named("http", &self.http)?,
                https: named("https", &self.https)?,
                other: named("proxy", &self.proxy)?,
            };
            if fixed == Fixed::default() {
                return Ok(None);
            }
            Choice::Fixed(Box::new(fixed))
        };
        Ok(Some(Settings { choice, bypass }))
    }

    /// Understands what goes without a proxy.
    ///
    /// # Errors
    /// [`SettingsError::Bypass`].
    pub fn bypass(&self) -> Result<Bypass, SettingsError> {
        let bypass = Bypass::new(self.no_proxy.iter().map(String::as_str))?;
        Ok(if self.reversed {
            bypass.reversed()
        } else {
            bypass
        })
    }
}

fn parse(key: &'static str, text: &str) -> Result<Route, SettingsError> {
    match Route::parse_with_port(text) {
        Ok((route, true)) => Ok(route),
        Ok((_, false)) => Err(SettingsError::Proxy(key, ServerError::Port)),
        Err(error) => Err(SettingsError::Proxy(key, error)),
    }
}

/// A text that may hold a password: zeroed when dropped, not shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Returns the text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Why what a source says cannot be used. The text says what to do, and repeats no password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A proxy is none.
    #[error("`{0}`: {1}")]
    Proxy(&'static str, ServerError),
    /// A list is wrong.
    #[error("`no_proxy`: {0}")]
    Bypass(#[from] BypassError),
    /// A place of a file is none.
    #[error(
        "a PAC file or a company's file is named as http://host/file or https://host/file, or by a \
         path that begins with /"
    )]
    Location,
    /// Both a proxy and a PAC file are named.
    #[error("there are both `proxy` and `proxy_pac`: leave one of them out")]
    Both,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(proxy: Option<&str>) -> Written {
        Written {
            proxy: proxy.map(Secret::from),
            ..Written::default()
        }
    }

    #[test]
    fn nothing_written_says_nothing_and_none_says_direct() {
        assert_eq!(written(None).settings(), Ok(None));
        let settings = written(Some("none")).settings().unwrap().unwrap();
        assert_eq!(settings.choice, Choice::Direct);
    }

    #[test]
    fn each_scheme_may_have_its_proxy() {
        let written = Written {
            proxy: Some("socks5://s:1".into()),
            http: Some("http://h:2".into()),
            ..Written::default()
        };
        let Some(Settings {
            choice: Choice::Fixed(fixed),
            ..
        }) = written.settings().unwrap()
        else {
            panic!("proxies are named");
        };
        let route = |url: &str| fixed.route(&Target::parse(url).unwrap()).to_string();
        assert_eq!(route("http://x"), "PROXY h:2");
        assert_eq!(route("https://x"), "SOCKS5 s:1");
        assert_eq!(route("tcp://x:9"), "SOCKS5 s:1");
    }

    #[test]
    fn mistakes_are_told_with_the_remedy() {
        let error = written(Some("http://u:secret@h")).settings().unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("http://host:port") && !text.contains("secret"),
            "{text}"
        );
        let mut both = written(Some("http://h:1"));
        both.pac = Some("/p.pac".to_owned());
        assert_eq!(both.settings(), Err(SettingsError::Both));
        for place in [
            "p.pac",
            "http://",
            "https://u@h/p.pac",
            "ftp://h/p",
            "http://h/ x",
        ] {
            let wrong = place.parse::<Location>();
            assert_eq!(wrong, Err(SettingsError::Location), "{place}");
        }
        for place in ["file:///etc/p.pac", "https://h/p.pac"] {
            assert!(place.parse::<Location>().is_ok(), "{place}");
        }
    }

    #[test]
    fn what_is_written_is_not_shown() {
        let shown = format!("{:?}", written(Some("http://u:secret@h:1")));
        assert!(!shown.contains("secret"));
    }
}
