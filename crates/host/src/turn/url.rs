//! How a server of somebody else is named: `turn:user@host:3478?transport=udp`, or `tcp`, as RFC 7065 has
//! it, with the user's name and never with the password.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use enishi_stun::Leg;
use serde::{Deserialize, Serialize};

/// The port of TURN (RFC 8656, section 4).
const PORT: u16 = 3478;

/// The longest URL, in octets.
const BYTES_MAX: usize = 512;

/// A TURN server, and who this node is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerUrl {
    user: String,
    host: String,
    port: u16,
    leg: Leg,
}

impl ServerUrl {
    /// Returns the user's name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Returns the host's name or address, and the port.
    pub fn place(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Returns by what it is spoken to.
    pub fn leg(&self) -> Leg {
        self.leg
    }

    /// Returns host and port for people.
    pub fn server(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for ServerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write a server as turn:user@host:3478".to_owned();
        if text.starts_with("turns:") {
            return Err(
                "servers are spoken to by UDP or TCP, not by TLS: turn:user@host".to_owned(),
            );
        }
        let rest = text.strip_prefix("turn:").ok_or_else(wrong)?;
        if text.len() > BYTES_MAX || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(wrong());
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, "transport=udp"));
        let leg = match query {
            "transport=udp" => Leg::Udp,
            "transport=tcp" => Leg::Tcp,
            _ => {
                return Err(
                    "servers are spoken to by UDP or TCP: ?transport=udp or ?transport=tcp"
                        .to_owned(),
                );
            }
        };
        let (user, place) = rest.rsplit_once('@').ok_or_else(wrong)?;
        if user.contains(':') {
            return Err("a password does not belong in the URL: it is asked for".to_owned());
        }
        let (host, port) = match place.strip_prefix('[') {
            Some(six) => {
                let (host, port) = six.split_once(']').ok_or_else(wrong)?;
                host.parse::<Ipv6Addr>().map_err(|_| wrong())?;
                (host, port.strip_prefix(':'))
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        let port = port.map_or(Ok(PORT), str::parse).map_err(|_| wrong())?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        let fits = !user.is_empty() && !host.is_empty() && port != 0;
        match fits && host.chars().all(is_plain) {
            true => Ok(Self {
                user: user.to_owned(),
                host: host.to_owned(),
                port,
                leg,
            }),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "turn:{}@{}", self.user, self.server())?;
        match self.leg {
            Leg::Udp => Ok(()),
            Leg::Tcp => f.write_str("?transport=tcp"),
        }
    }
}

impl TryFrom<String> for ServerUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ServerUrl> for String {
    fn from(url: ServerUrl) -> Self {
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_with_its_user_and_without_the_password() {
        for (text, shown) in [
            (
                "turn:aki@turn.example.org",
                "turn:aki@turn.example.org:3478",
            ),
            (
                "turn:a@b@192.0.2.1:99?transport=udp",
                "turn:a@b@192.0.2.1:99",
            ),
            ("turn:aki@[2001:db8::1]", "turn:aki@[2001:db8::1]:3478"),
            (
                "turn:aki@192.0.2.1?transport=tcp",
                "turn:aki@192.0.2.1:3478?transport=tcp",
            ),
        ] {
            let url: ServerUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(shown.parse::<ServerUrl>().unwrap(), url);
        }
        for (text, wanted) in [
            ("aki@host", "turn:user@host:3478"),
            ("turn:host", "turn:user@host:3478"),
            ("turn:@host", "turn:user@host:3478"),
            ("turn:aki@", "turn:user@host:3478"),
            ("turn:aki@host:0", "turn:user@host:3478"),
            ("turn:aki@host/x", "turn:user@host:3478"),
            ("turn:aki@[::1", "turn:user@host:3478"),
            ("turns:aki@host", "TLS"),
            ("turn:aki@host?transport=sctp", "TCP"),
            ("turn:aki:secret@host", "password"),
        ] {
            let error = text.parse::<ServerUrl>().unwrap_err();
            assert!(
                error.contains(wanted) && !error.contains("secret"),
                "{error}"
            );
        }
    }
}
