//! SOCKS version 5 (RFC 1928): the messages, as octets.
//!
//! ```text
//! client -> proxy    0     1
//!                   +-----+-------+---------------+
//!                   |  5  | count | methods       |
//!                   +-----+-------+---------------+
//! proxy -> client   +-----+--------+
//!                   |  5  | method |  0 no authentication, 0xff none of these
//!                   +-----+--------+
//! client -> proxy    0     1     2     3
//!                   +-----+-----+-----+------+- - - - -+------+
//!                   |  5  | do  |  0  | kind | address | port |
//!                   +-----+-----+-----+------+- - - - -+------+
//! proxy -> client   the same, with the reply in the place of `do`
//!
//! datagrams         +-----+----------+------+- - - - -+------+- - -
//!                   | 0 0 | fragment | kind | address | port | data
//!                   +-----+----------+------+- - - - -+------+- - -
//! ```
//!
//! An address is of kind 1 (IPv4, 4 octets), 4 (IPv6, 16 octets) or 3 (a length and a name).
//! Every message has a longest form, [`MESSAGE_BYTES_MAX`]; a reader that has so many octets
//! has a whole one or an error.

use std::net::{IpAddr, SocketAddr};

/// The longest message of a client before its data: a request with a name.
pub const MESSAGE_BYTES_MAX: usize = 4 + 1 + 255 + 2;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_METHOD: u8 = 0xff;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Why octets are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SocksError {
    /// There are too few of them yet.
    #[error("cut short")]
    Truncated,
    /// They are of another version of the protocol, or none.
    #[error("not SOCKS version 5")]
    Version,
    /// A kind of address that there is not.
    #[error("an unknown kind of address")]
    AddressKind,
    /// A name that is empty or no text.
    #[error("a name that is no text")]
    Name,
    /// A fragment of a datagram, which nobody sends.
    #[error("a fragment")]
    Fragment,
}

/// A host as a client names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// By its address.
    Address(IpAddr),
    /// By its name, 1 to 255 octets.
    Name(String),
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// A connection.
    Connect,
    /// To exchange datagrams.
    Associate,
    /// Anything else.
    Other(u8),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is wanted.
    pub command: Command,
    /// Of which host.
    pub host: Host,
    /// At which port.
    pub port: u16,
}

/// How a request came out (RFC 1928, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reply {
    /// It is carried out.
    Succeeded = 0,
    /// It failed.
    Failed = 1,
    /// It is not allowed.
    NotAllowed = 2,
    /// There is no way to the network.
    NetworkUnreachable = 3,
    /// Nobody has the address.
    HostUnreachable = 4,
    /// Nobody listens there.
    Refused = 5,
    /// No answer came in time.
    TimedOut = 6,
    /// The proxy does not do that.
    CommandUnknown = 7,
    /// The kind of address is unknown.
    AddressKindUnknown = 8,
}

/// Reads the greeting that `octets` begin with. Returns what to answer, whether it is accepted,
/// and how long the greeting is.
///
/// # Errors
/// See [`SocksError`].
pub fn greeting(octets: &[u8]) -> Result<([u8; 2], bool, usize), SocksError> {
    let [version, rest @ ..] = octets else {
        return Err(SocksError::Truncated);
    };
    if *version != VERSION {
        return Err(SocksError::Version);
    }
    let (count, methods) = rest.split_first().ok_or(SocksError::Truncated)?;
    let methods = methods.get(..usize::from(*count));
    let methods = methods.ok_or(SocksError::Truncated)?;
    let accepted = methods.contains(&NO_AUTHENTICATION);
    let method = if accepted {
        NO_AUTHENTICATION
    } else {
        NO_METHOD
    };
    Ok(([VERSION, method], accepted, 2 + methods.len()))
}

impl Request {
    /// Reads the request that `octets` begin with, and tells how long it is.
    ///
    /// # Errors
    /// See [`SocksError`].
    pub fn decode(octets: &[u8]) -> Result<(Self, usize), SocksError> {
        let ([version, command, _], rest) =
            octets.split_first_chunk().ok_or(SocksError::Truncated)?;
        if *version != VERSION {
            return Err(SocksError::Version);
        }
        let (host, port, data) = endpoint(rest)?;
        let command = match command {
            1 => Command::Connect,
            3 => Command::Associate,
            other => Command::Other(*other),
        };
        let request = Self {
            command,
            host,
            port,
        };
        Ok((request, octets.len() - data.len()))
    }
}

/// Builds the answer to a request; `bound` is where the proxy is bound for it.
pub fn reply(reply: Reply, bound: SocketAddr) -> Vec<u8> {
    let mut octets = vec![VERSION, reply as u8, 0];
    put_endpoint(&mut octets, bound);
    octets
}

/// Reads the header of a datagram to be relayed: to whom, and what.
///
/// # Errors
/// See [`SocksError`].
pub fn datagram(octets: &[u8]) -> Result<(Host, u16, &[u8]), SocksError> {
    let ([_, _, fragment], rest) = octets.split_first_chunk().ok_or(SocksError::Truncated)?;
    match fragment {
        0 => endpoint(rest),
        _ => Err(SocksError::Fragment),
    }
}

/// Builds a relayed datagram of a host.
pub fn relayed(from: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut octets = vec![0; 3];
    put_endpoint(&mut octets, from);
    octets.extend(data);
    octets
}

fn endpoint(octets: &[u8]) -> Result<(Host, u16, &[u8]), SocksError> {
    let (kind, rest) = octets.split_first().ok_or(SocksError::Truncated)?;
    let (host, rest) = match *kind {
        IPV4 => {
            let (address, rest) = rest.split_first_chunk::<4>().ok_or(SocksError::Truncated)?;
            (Host::Address((*address).into()), rest)
        }
        IPV6 => {
            let (address, rest) = rest
                .split_first_chunk::<16>()
                .ok_or(SocksError::Truncated)?;
            (Host::Address(IpAddr::from(*address).to_canonical()), rest)
        }
        NAME => {
            let (length, rest) = rest.split_first().ok_or(SocksError::Truncated)?;
            let length = usize::from(*length);
            let (name, rest) = rest.split_at_checked(length).ok_or(SocksError::Truncated)?;
            let name = std::str::from_utf8(name)
                .ok()
                .filter(|name| !name.is_empty());
            (Host::Name(name.ok_or(SocksError::Name)?.to_owned()), rest)
        }
        _ => return Err(SocksError::AddressKind),
    };
    let (port, rest) = rest.split_first_chunk().ok_or(SocksError::Truncated)?;
    Ok((host, u16::from_be_bytes(*port), rest))
}

fn put_endpoint(octets: &mut Vec<u8>, endpoint: SocketAddr) {
    match endpoint.ip() {
        IpAddr::V4(address) => {
            octets.push(IPV4);
            octets.extend(address.octets());
        }
        IpAddr::V6(address) => {
            octets.push(IPV6);
            octets.extend(address.octets());
        }
    }
    octets.extend(endpoint.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_are_taken_without_authentication_only() {
        assert_eq!(greeting(&[5, 2, 2, 0, 9]), Ok(([5, 0], true, 4)));
        assert_eq!(greeting(&[5, 1, 2]), Ok(([5, 0xff], false, 3)));
        assert_eq!(greeting(&[5, 2, 0]), Err(SocksError::Truncated));
        assert_eq!(greeting(&[5]), Err(SocksError::Truncated));
        assert_eq!(greeting(&[4, 1, 0]), Err(SocksError::Version));
    }

    #[test]
    fn requests_name_hosts_in_three_ways() {
        let by_name = [&[5, 1, 0, 3, 10][..], b"aki.office", &[0, 80], b"more"].concat();
        let (request, length) = Request::decode(&by_name).unwrap();
        let host = Host::Name("aki.office".to_owned());
        assert_eq!((request.command, request.host), (Command::Connect, host));
        assert_eq!((request.port, length), (80, 17));
        let by_address = [5, 3, 0, 1, 10, 77, 0, 2, 0, 53];
        let (request, _) = Request::decode(&by_address).unwrap();
        assert_eq!(request.command, Command::Associate);
        assert_eq!(request.host, Host::Address([10, 77, 0, 2].into()));
        let six = [&[5, 2, 0, 4][..], &[0xfd; 16], &[0, 1]].concat();
        let (request, _) = Request::decode(&six).unwrap();
        assert_eq!(request.command, Command::Other(2));
        assert_eq!(request.host, Host::Address([0xfd; 16].into()));
        for cut in 0..17 {
            let cut = Request::decode(&by_name[..cut]);
            assert_eq!(cut, Err(SocksError::Truncated));
        }
        let wrong = [
            (0, 4, SocksError::Version),
            (3, 2, SocksError::AddressKind),
            (5, 0xff, SocksError::Name),
        ];
        for (at, octet, error) in wrong {
            let mut octets = by_name.clone();
            octets[at] = octet;
            assert_eq!(Request::decode(&octets), Err(error));
        }
    }

    #[test]
    fn what_is_built_is_read_back() {
        for address in ["10.77.0.2:53", "[fd77::2]:53"] {
            let from: SocketAddr = address.parse().unwrap();
            let octets = relayed(from, b"data");
            let expected = (Host::Address(from.ip()), 53, &b"data"[..]);
            assert_eq!(datagram(&octets), Ok(expected));
            let octets = reply(Reply::Succeeded, from);
            let (request, length) = Request::decode(&octets).unwrap();
            assert_eq!(
                (request.host, length),
                (Host::Address(from.ip()), octets.len())
            );
        }
        assert_eq!(datagram(&[0, 0, 1, 1]), Err(SocksError::Fragment));
    }
}
