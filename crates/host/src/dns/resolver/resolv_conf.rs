//! The text of `/etc/resolv.conf` (resolv.conf(5)): three lines before all others, which say
//! themselves whose they are. Whatever else changes in the file, these can be found and taken
//! out, and nothing else is.
//!
//! ```text
//! # enishi 127.77.0.53: names of channels; taken out when the node stops
//! nameserver 127.77.0.53
//! # enishi 127.77.0.53: end
//! ```
//!
//! Several nodes of a host stand above each other. Each asks those that stand below it, so that
//! a query passes every node once and comes to the servers that were there before.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use super::super::PORT;
use super::super::responder::Upstreams;

/// The most servers that are read from the file.
const SERVERS_MAX: usize = 8;

/// Puts a server before all others; the text stays the same if it stands in it already.
pub(super) fn with_server(text: &str, server: IpAddr) -> String {
    let [begin, line, end] = lines(server);
    let mut present = text.lines();
    if present.any(|present| present == line) && text.contains(&begin) && text.contains(&end) {
        return text.to_owned();
    }
    format!("{begin}\n{line}\n{end}\n{}", without_server(text, server))
}

/// Takes a server out; the text stays the same if it does not stand in it. A line for the
/// server that somebody else wrote is theirs.
pub(super) fn without_server(text: &str, server: IpAddr) -> String {
    let [begin, line, end] = lines(server);
    let mut is_ours = false;
    let stays = |present: &&str| {
        let whole = present.trim_end_matches('\n');
        let was_ours = is_ours;
        is_ours = whole == begin;
        !(whole == begin || whole == end || (was_ours && whole == line))
    };
    text.split_inclusive('\n').filter(stays).collect()
}

/// Returns the servers that stand below one, without those above.
pub(super) fn upstreams(text: &str, server: IpAddr) -> Upstreams {
    let [_, _, end] = lines(server);
    let below = text.lines().skip_while(|line| *line != end).skip(1);
    let mut upstreams = Upstreams::default();
    let mut node = None;
    for line in below {
        if let Some(other) = node_of(line) {
            node = Some(other);
        } else if let Some(address) = nameserver(line).filter(|address| address.ip() != server) {
            if upstreams.servers.is_empty() {
                upstreams.first_is_node = node == Some(address.ip());
            }
            if upstreams.servers.len() < SERVERS_MAX {
                upstreams.servers.push(address);
            }
        }
    }
    upstreams
}

fn lines(server: IpAddr) -> [String; 3] {
    [
        format!("# enishi {server}: names of channels; taken out when the node stops"),
        format!("nameserver {server}"),
        format!("# enishi {server}: end"),
    ]
}

/// The server that the first line of a node announces.
fn node_of(line: &str) -> Option<IpAddr> {
    let (server, _) = line.strip_prefix("# enishi ")?.split_once(": names")?;
    server.parse().ok()
}

/// The server that a line names; link-local ones have their device behind a `%`.
fn nameserver(line: &str) -> Option<SocketAddr> {
    let mut words = line.split_ascii_whitespace();
    let address = (words.next() == Some("nameserver")).then(|| words.next())??;
    match address.split_once('%') {
        None => Some(SocketAddr::new(address.parse().ok()?, PORT)),
        Some((address, device)) => {
            let scope = nix::net::if_::if_nametoindex(device).ok()?;
            Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, scope).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# made by hand\nsearch example.org\nnameserver 192.0.2.1\n\
                          nameserver 2001:db8::1\noptions edns0\n";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_put_in_is_taken_out_and_nothing_else() {
        let ours = ip("127.77.0.53");
        for before in [
            BEFORE,
            "",
            "nameserver 192.0.2.1",
            "nameserver 127.77.0.53\n",
        ] {
            let with = with_server(before, ours);
            assert!(
                with.contains("\nnameserver 127.77.0.53\n# enishi"),
                "{with}"
            );
            assert_eq!(with_server(&with, ours), with);
            assert_eq!(without_server(&with, ours), before);
            assert_eq!(without_server(before, ours), before);
        }
    }

    #[test]
    fn what_others_write_meanwhile_stays() {
        let ours = ip("127.77.0.53");
        let with = with_server(BEFORE, ours);
        let changed = with.replace("192.0.2.1", "192.0.2.9") + "nameserver 192.0.2.2\n";
        let expected = BEFORE.replace("192.0.2.1", "192.0.2.9") + "nameserver 192.0.2.2\n";
        assert_eq!(without_server(&changed, ours), expected);
        let halved = with.replace("# enishi 127.77.0.53: end\n", "");
        assert_eq!(without_server(&halved, ours), BEFORE);
        assert_eq!(with_server(&halved, ours), with);
    }

    #[test]
    fn servers_below_are_asked_and_another_node_is_known_as_one() {
        let (first, second) = (ip("127.77.0.53"), ip("127.77.0.54"));
        let one = with_server(BEFORE, first);
        let both = with_server(&one, second);
        let below = upstreams(&both, first);
        assert_eq!(
            below.servers,
            ["192.0.2.1:53", "[2001:db8::1]:53"].map(|s| s.parse().unwrap())
        );
        assert!(!below.first_is_node);
        let below = upstreams(&both, second);
        assert_eq!(below.servers[0], "127.77.0.53:53".parse().unwrap());
        assert!(below.first_is_node && below.servers.len() == 3);
        // The first comes back: now it stands above.
        let again = with_server(&without_server(&both, first), first);
        assert!(upstreams(&again, first).first_is_node);
        assert!(!upstreams(&again, second).first_is_node);
        assert_eq!(
            without_server(&without_server(&again, first), second),
            BEFORE
        );
    }

    #[test]
    fn odd_lines_name_no_server() {
        for line in [
            "nameserver",
            "nameserver x",
            "#nameserver 1.2.3.4",
            "nameserver fe80::1%nodev",
        ] {
            assert_eq!(nameserver(line), None, "{line}");
        }
        assert!(nameserver(" nameserver\tfe80::1%lo # x").is_some());
    }
}
