//! Nodes that a person names by name or address, and port: Bootstrap Servers, which hand out contacts
//! of the overlay (`bootstrap_server` in the configuration), and any others that answer.
//!
//! The port is that of the sessions, as in `listen`. Questions are answered at the port of packets,
//! which is the next one unless that was taken, so both are asked.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::Deserialize;
use tokio::net::lookup_host;

use super::ask::{ADDRESSES_MAX, Heard, rng};
use super::pace::Pace;
use super::{Around, Source};

/// The longest name of a host, in octets (RFC 1035, section 2.3.4).
const NAME_BYTES_MAX: usize = 253;

/// The most addresses of one name that are asked.
const ADDRESSES_PER_NAME_MAX: usize = 4;

/// A host and a port, as `NAME:PORT`, `192.0.2.7:4242` or `[2001:db8::7]:4242`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Server {
    host: String,
    port: u16,
}

/// Tells whether a text is meant as a [`Server`] and not as an invitation, which has no colon.
pub(crate) fn is_server(text: &str) -> bool {
    text.contains(':')
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no name or address with a port, as boot.example.org:4242");
        if let Ok(address) = text.parse::<SocketAddr>() {
            let host = address.ip().to_string();
            let port = address.port();
            return (port != 0).then_some(Self { host, port }).ok_or_else(wrong);
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let fits = |octet: u8| octet.is_ascii_alphanumeric() || b"-._".contains(&octet);
        let is_name = (1..=NAME_BYTES_MAX).contains(&host.len()) && host.bytes().all(fits);
        if !is_name || port == 0 {
            return Err(wrong());
        }
        let host = host.to_owned();
        Ok(Self { host, port })
    }
}

impl TryFrom<String> for Server {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Server {
    /// Returns its addresses, by the system's resolver, at most four.
    pub(super) async fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let found = lookup_host((self.host.as_str(), self.port)).await;
        let found = found.map_err(|error| format!("{self}: {error}"))?;
        Ok(found.take(ADDRESSES_PER_NAME_MAX).collect())
    }
}

/// Asks the servers whenever the node needs others.
pub(super) async fn run(around: Around, servers: Vec<Server>) {
    let Some(rng) = rng() else { return };
    let mut pace = Pace::new(around.company.clone(), rng);
    loop {
        pace.turn().await;
        let (mut found, mut error) = (false, None);
        for server in &servers {
            match server.addresses().await {
                Err(failed) => error = Some(failed),
                Ok(addresses) => {
                    let at = asked_at(&addresses);
                    let heard = Heard::FromOperator;
                    let answered = around.ask_and_tell(Source::Servers, &at, heard).await;
                    found |= !answered.is_empty();
                    if answered.is_empty() {
                        error = Some(format!("{server} does not answer"));
                    }
                }
            }
        }
        if let (false, Some(error)) = (found, error) {
            around.book.failed(Source::Servers, error);
        }
    }
}

/// Returns where a node is asked that listens at these addresses.
pub(super) fn asked_at(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let next = |address: &SocketAddr| {
        let port = address.port().checked_add(1)?;
        Some(SocketAddr::new(address.ip(), port))
    };
    let both = addresses
        .iter()
        .flat_map(|address| [next(address), Some(*address)]);
    both.flatten().take(ADDRESSES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_names_or_addresses_with_a_port() {
        for text in ["boot.example.org:4242", "192.0.2.7:1", "[2001:db8::7]:4242"] {
            assert_eq!(text.parse::<Server>().unwrap().to_string(), text);
            assert!(is_server(text));
        }
        for text in [
            "boot",
            "boot:",
            "boot:0",
            ":1",
            "a b:1",
            "192.0.2.7:0",
            "2001:db8::7",
            "a:65536",
        ] {
            let error = text.parse::<Server>().unwrap_err();
            assert!(error.contains("boot.example.org:4242"), "{error}");
        }
    }

    #[test]
    fn the_port_of_packets_is_asked_first() {
        let at: Vec<SocketAddr> = vec!["192.0.2.7:4242".parse().unwrap()];
        let asked: Vec<String> = asked_at(&at).iter().map(ToString::to_string).collect();
        assert_eq!(asked, ["192.0.2.7:4243", "192.0.2.7:4242"]);
    }
}
