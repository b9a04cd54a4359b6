//! Hosts with IPv6 alone, with IPv4 alone, and with both.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

use std::path::Path;
use std::time::Duration;

use enishi_lab::{Daemon, Host, Lab, is_root, until};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_enishi");
const A_WHILE: Duration = Duration::from_secs(60);

/// Gives a host an address of IPv6, and takes that of IPv4 away if it is to have no other.
fn speak_ipv6(host: &Host, number: u8, only: bool) {
    let address = format!("2001:db8:77::{number}/64");
    let add = ["ip", "addr", "add", &address, "dev", "eth0", "nodad"];
    let flush = ["ip", "-4", "addr", "flush", "dev", "eth0"];
    for words in [&add[..], &flush[..]].iter().take(1 + usize::from(only)) {
        let done = host.run(words, A_WHILE).unwrap();
        assert!(done.success(), "{}", done.stderr);
    }
}

fn start(data: &TempDir, host: &Host, ticket: Option<&str>) -> Daemon {
    let words: Vec<&str> = ticket
        .iter()
        .flat_map(|ticket| ["--bootstrap", ticket])
        .collect();
    let data = data.path().join(host.name());
    let daemon = Daemon::start(Path::new(PROGRAM), Some(host), &data, &words).unwrap();
    let Some(ticket) = ticket else { return daemon };
    until(A_WHILE, "it joins the channel", || {
        Ok(daemon.call(&["channel", "join", ticket])?.success())
    })
    .unwrap_or_else(|error| panic!("{error}: {}", daemon.log()));
    daemon
}

fn answers(from: &Host, to: &Daemon) {
    let address = to.address().unwrap().to_string();
    let ping = ["ping", "-c", "1", "-W", "1", &address];
    until(A_WHILE, "it answers", || {
        Ok(from.run(&ping, A_WHILE)?.success())
    })
    .unwrap();
}

#[test]
fn hosts_without_ipv4_and_without_ipv6_are_of_one_network() {
    if !is_root() {
        eprintln!("skipped: network namespaces need root");
        return;
    }
    let mut lab = Lab::new("ipv6").unwrap();
    let [both, six, seven, four] =
        ["both", "six", "seven", "four"].map(|name| lab.host(name).unwrap());
    speak_ipv6(&both, 1, false);
    speak_ipv6(&six, 2, true);
    speak_ipv6(&seven, 3, true);

    let data = tempfile::tempdir().unwrap();
    let founder = start(&data, &both, None);
    founder.text(&["channel", "create", "lab"]).unwrap();
    let invite = ["channel", "invite", "lab", "--uses", "any"];
    let ticket = founder.text(&invite).unwrap();
    // One port for both is one rule in a firewall.
    let told = founder.json(&["status"]).unwrap();
    let addresses = told["addresses"].as_array().unwrap().iter();
    let addresses: Vec<&str> = addresses.map(|address| address.as_str().unwrap()).collect();
    let port = |of: &str| {
        let at = addresses.iter().find(|address| address.starts_with(of));
        at.unwrap().rsplit(':').next().unwrap().to_owned()
    };
    assert_eq!(port("10.99."), port("[2001:db8:77::1]"), "{addresses:?}");

    let [a, b, c] = [&six, &seven, &four].map(|host| start(&data, host, Some(&ticket)));
    answers(&six, &founder);
    answers(&six, &b);
    // By way of the one that both reach.
    answers(&six, &c);
    answers(&four, &a);
}
