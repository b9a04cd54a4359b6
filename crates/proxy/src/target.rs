//! Where a connection goes: the part of a URL that decides about proxies.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The longest URL that is read, in octets.
pub const URL_BYTES_MAX: usize = 2_048;

/// The longest name of a host, in octets (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// Where a connection goes: scheme, host and port. Path and user of a URL are left out, since neither
/// is a PAC file's business (as Chromium does for `https`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    scheme: String,
    host: String,
    port: u16,
}

/// Why a text is not a URL of which a proxy could be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a URL with a scheme and a host, as https://example.com:443")]
pub struct TargetError;

impl Target {
    /// Makes the target of a TCP connection to a host and a port. `scheme` is `https` for connections
    /// whose octets a proxy shall pass on (CONNECT), `http` for plain requests.
    ///
    /// # Errors
    /// [`TargetError`] when scheme or host cannot be one.
    pub fn new(scheme: &str, host: &str, port: u16) -> Result<Self, TargetError> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let is_host = host.parse::<IpAddr>().is_ok() || host.chars().all(is_name);
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        if host.is_empty()
            || host.split('.').any(str::is_empty)
            || host.len() > HOST_BYTES_MAX
            || !is_host
            || scheme.is_empty()
            || scheme.len() > 16
            || !scheme.chars().all(is_scheme)
        {
            return Err(TargetError);
        }
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            host,
            port,
        })
    }

    /// Reads a URL of at most [`URL_BYTES_MAX`] octets (RFC 3986, section 3); a port may be missing for
    /// the schemes that have a usual one.
    ///
    /// # Errors
    /// [`TargetError`] when it has no scheme, no host or no port.
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        if url.len() > URL_BYTES_MAX {
            return Err(TargetError);
        }
        let (scheme, rest) = url.split_once("://").ok_or(TargetError)?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let authority = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        let (host, port) = split_port(authority).ok_or(TargetError)?;
        let port = match port {
            Some(port) => port,
            None => usual_port(&scheme.to_ascii_lowercase()).ok_or(TargetError)?,
        };
        Self::new(scheme, host, port)
    }

    /// Returns the scheme, in lower case.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Returns the host: a name in lower case, or an address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the host when it is an address; one of IPv4 that is mapped to IPv6 counts as IPv4.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        let address: Option<IpAddr> = self.host.parse().ok();
        address.map(|address| address.to_canonical())
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(url: &str) -> Result<Self, TargetError> {
        Self::parse(url)
    }
}

impl fmt::Display for Target {
    /// Writes the URL that PAC files see: the usual port is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port } = self;
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]")?;
        } else {
            write!(f, "{scheme}://{host}")?;
        }
        if usual_port(scheme) != Some(*port) {
            write!(f, ":{port}")?;
        }
        f.write_str("/")
    }
}

fn usual_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        "ftp" => Some(21),
        _ => None,
    }
}

/// Splits `host`, `host:port`, `[v6]` and `[v6]:port`; none when the port is none.
pub(crate) fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        match rest {
            "" => (host, None),
            rest => (host, Some(rest.strip_prefix(':')?)),
        }
    } else {
        match authority.split_once(':') {
            // More than one colon: an IPv6 address without brackets.
            Some((_, rest)) if rest.contains(':') => (authority, None),
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    match port {
        None | Some("") => Some((host, None)),
        Some(port) if port.bytes().all(|c| c.is_ascii_digit()) => {
            Some((host, Some(port.parse().ok()?)))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_cut_to_what_decides() {
        for (url, seen) in [
            ("https://example.com", "https://example.com/"),
            ("HTTPS://Example.COM.:443/x", "https://example.com/"),
            (
                "http://user:secret@example.com:8080/a?b",
                "http://example.com:8080/",
            ),
            ("http://[2001:db8::1]/", "http://[2001:db8::1]/"),
            ("tcp://10.0.0.1:4242", "tcp://10.0.0.1:4242/"),
        ] {
            assert_eq!(Target::parse(url).unwrap().to_string(), seen);
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for url in [
            "",
            "example.com",
            "http://",
            "tcp://host",
            "http://a b",
            "http://\"+x+\"/",
            "http://h:99999",
            "http://h:-1",
            "http://[::1",
            "://h",
            "http://h..",
            "http://a..b",
        ] {
            assert_eq!(Target::parse(url), Err(TargetError), "{url}");
        }
        assert!(Target::parse(&format!("http://{}", "a".repeat(254))).is_err());
    }
}
