//! The answer: straight, or by way of a proxy.

use std::fmt;

use zeroize::Zeroizing;

use crate::target::{Target, split_port};

/// The longest text that names a proxy, in octets.
const SERVER_BYTES_MAX: usize = 1_024;

/// The port of a proxy of which none is said, as curl has it (curl(1), `--proxy`: "If the port number
/// is not specified in the proxy string, it is assumed to be 1080").
const PORT_USUAL: u16 = 1_080;

/// The port of a proxy that is spoken to by TLS, if none is said.
const PORT_USUAL_TLS: u16 = 443;

/// One way to take for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// No proxy.
    Direct,
    /// A proxy that is spoken to by plain HTTP: CONNECT (RFC 9110, section 9.3.6), or requests with the
    /// whole URL (RFC 9112, section 3.2.2).
    Http(ProxyServer),
    /// The same, spoken to by TLS.
    Https(ProxyServer),
    /// A proxy of SOCKS version 5 (RFC 1928); it looks names up itself.
    Socks5(ProxyServer),
}

impl Route {
    /// Reads `[scheme://][user:password@]host[:port]` of at most 1,024 octets, as `http_proxy` and our
    /// configuration have it. Without a scheme it is `http`; without a port it is 1080, and for `https`
    /// 443. User and password may have `%` escapes (RFC 3986, section 2.1).
    ///
    /// # Errors
    /// [`ServerError`], which never repeats what was read.
    pub fn parse(text: &str) -> Result<Self, ServerError> {
        Self::parse_with_port(text).map(|(route, _)| route)
    }

    /// The same, and whether the port was said.
    pub(crate) fn parse_with_port(text: &str) -> Result<(Self, bool), ServerError> {
        let text = text.trim();
        if text.len() > SERVER_BYTES_MAX {
            return Err(ServerError::Long);
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let kind = match scheme.to_ascii_lowercase().as_str() {
            "http" => Self::Http,
            "https" => Self::Https,
            "socks" | "socks5" | "socks5h" => Self::Socks5,
            "socks4" | "socks4a" => return Err(ServerError::Socks4),
            _ => return Err(ServerError::Scheme),
        };
        let is_tls = scheme.eq_ignore_ascii_case("https");
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        let credentials = user.map(Credentials::parse).transpose()?;
        let (host, port) = split_port(address).ok_or(ServerError::Address)?;
        let said = port.is_some();
        let port = port.unwrap_or(if is_tls { PORT_USUAL_TLS } else { PORT_USUAL });
        let server = ProxyServer::new(host, port, credentials)?;
        Ok((kind(server), said))
    }

    /// Returns the proxy; none for [`Route::Direct`].
    #[must_use]
    pub fn server(&self) -> Option<&ProxyServer> {
        match self {
            Self::Direct => None,
            Self::Http(server) | Self::Https(server) | Self::Socks5(server) => Some(server),
        }
    }
}

impl fmt::Display for Route {
    /// Writes `DIRECT` or `PROXY host:port` as PAC files do; no user, no password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("DIRECT"),
            Self::Http(server) => write!(f, "PROXY {server}"),
            Self::Https(server) => write!(f, "HTTPS {server}"),
            Self::Socks5(server) => write!(f, "SOCKS5 {server}"),
        }
    }
}

/// A proxy: where it is, and who one is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyServer {
    /// Its name in lower case, or its address without brackets.
    pub host: String,
    /// Its port, at least 1.
    pub port: u16,
    /// Who one is there; none when nothing is known.
    pub credentials: Option<Credentials>,
}

impl ProxyServer {
    /// Makes one of a name or an address, and a port of at least 1.
    ///
    /// # Errors
    /// [`ServerError::Address`] when it is none.
    pub fn new(
        host: &str,
        port: u16,
        credentials: Option<Credentials>,
    ) -> Result<Self, ServerError> {
        let target = Target::new("http", host, port).map_err(|_| ServerError::Address)?;
        if port == 0 {
            return Err(ServerError::Address);
        }
        Ok(Self {
            host: target.host().to_owned(),
            port,
            credentials,
        })
    }
}

impl fmt::Display for ProxyServer {
    /// Writes `host:port`, and nothing of the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A user and a password for a proxy. Zeroed when dropped; `Debug` hides both.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: Zeroizing<String>,
    password: Zeroizing<String>,
}

impl Credentials {
    /// Takes a user and a password.
    #[must_use]
    pub fn new(user: String, password: String) -> Self {
        Self {
            user: Zeroizing::new(user),
            password: Zeroizing::new(password),
        }
    }

    /// Returns the user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Returns the password; empty when none was said.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Reads `user[:password]` with `%` escapes.
    fn parse(text: &str) -> Result<Self, ServerError> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self {
            user: unescape(user)?,
            password: unescape(password)?,
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// Why a text does not name a proxy. What to do stands in the text; the text that was read does not,
/// since it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// It is longer than 1,024 octets.
    #[error("the proxy is longer than 1024 octets: write http://host:port")]
    Long,
    /// It has another scheme.
    #[error("a proxy begins with http://, https:// or socks5://, as http://proxy.example.com:3128")]
    Scheme,
    /// SOCKS 4 is not spoken.
    #[error("SOCKS 4 is not spoken: write socks5:// if the proxy takes version 5")]
    Socks4,
    /// Host or port are none.
    #[error(
        "the host or the port of the proxy is none: write http://host:port; in a user or a \
         password write %40 for @, %3A for :, %2F for /"
    )]
    Address,
    /// An escape is none.
    #[error("in the user or the password of a proxy, % begins an escape: write %25 for %")]
    Escape,
    /// A port has to be said.
    #[error("the port of the proxy is missing: write http://host:port")]
    Port,
}

/// Takes `%` escapes out (RFC 3986, section 2.1). Control characters are refused: they would end a
/// header.
fn unescape(text: &str) -> Result<Zeroizing<String>, ServerError> {
    let mut octets = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let Some((&octet, after)) = rest.split_first() {
        let (octet, after) = match (octet, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |c: u8| char::from(c).to_digit(16).ok_or(ServerError::Escape);
                let value = digit(*high)? * 16 + digit(*low)?;
                (u8::try_from(value).map_err(|_| ServerError::Escape)?, after)
            }
            (b'%', _) => return Err(ServerError::Escape),
            _ => (octet, after),
        };
        if octet.is_ascii_control() {
            return Err(ServerError::Escape);
        }
        octets.push(octet);
        rest = after;
    }
    let text = std::str::from_utf8(&octets).map_err(|_| ServerError::Escape)?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> ProxyServer {
        Route::parse(text).unwrap().server().unwrap().clone()
    }

    #[test]
    fn proxies_are_written_as_curl_takes_them() {
        assert_eq!(server("proxy").to_string(), "proxy:1080");
        assert_eq!(server("https://proxy").port, 443);
        assert_eq!(server("http://[2001:db8::1]:3128/").host, "2001:db8::1");
        let proxy = server("http://us%65r:p%40ss:w@Proxy.Example:3128");
        let credentials = proxy.credentials.clone().unwrap();
        assert_eq!(
            (credentials.user(), credentials.password()),
            ("user", "p@ss:w")
        );
        assert_eq!(proxy.to_string(), "proxy.example:3128");
        for text in ["socks5://h:1", "socks5h://h:1", "socks://h:1"] {
            assert!(matches!(Route::parse(text), Ok(Route::Socks5(_))), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for (text, error) in [
            ("gopher://secret@h", ServerError::Scheme),
            ("socks4://h:1", ServerError::Socks4),
            ("http://u:secret@h:x", ServerError::Address),
            ("http://u:secret@:3128", ServerError::Address),
            ("http://u:secret@h:0", ServerError::Address),
            ("http://u:sec%ret@h:1", ServerError::Escape),
            ("http://u:secret%0d%0a@h:1", ServerError::Escape),
            ("http://u:secret%f", ServerError::Address),
            ("http://u:%ff@h:1", ServerError::Escape),
        ] {
            let found = Route::parse(text).unwrap_err();
            assert_eq!(found, error, "{text}");
            assert!(!found.to_string().contains("secret"));
        }
        assert_eq!(Route::parse(&"a".repeat(2_000)), Err(ServerError::Long));
    }

    #[test]
    fn credentials_are_not_shown() {
        let route = Route::parse("http://alice:secret@h:1").unwrap();
        for text in [format!("{route}"), format!("{route:?}")] {
            assert!(
                !text.contains("secret") && !text.contains("alice"),
                "{text}"
            );
        }
    }
}
