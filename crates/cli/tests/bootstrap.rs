//! How nodes find others of their overlay without an invitation that leads to one. Without root these
//! tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use enishi_lab::{Daemon, Host, Lab, is_root, until};
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_enishi");
const A_WHILE: Duration = Duration::from_secs(60);
const IN_LAN: [&str; 2] = ["--mdns", "on"];

/// A network of hosts with nodes on them.
struct Net {
    directory: TempDir,
    lab: Lab,
}

impl Net {
    fn open(name: &str) -> Option<Self> {
        if !is_root() {
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        Some(Self {
            directory: tempfile::tempdir().unwrap(),
            lab: Lab::new(name).unwrap(),
        })
    }

    fn hosts<const N: usize>(&mut self, names: [&str; N]) -> [Host; N] {
        names.map(|name| self.lab.host(name).unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start(&self, host: &Host, words: &[&str]) -> Daemon {
        start(&self.path(host.name()), host, words)
    }
}

fn start(data: &Path, host: &Host, words: &[&str]) -> Daemon {
    let words = [&["--no-tun", "--no-dns"], words].concat();
    Daemon::start(Path::new(PROGRAM), Some(host), data, &words).unwrap()
}

/// Waits until something of the status is so.
fn wait(daemon: &Daemon, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let waited = until(A_WHILE, what, || {
        std::thread::sleep(Duration::from_millis(100));
        last = daemon.json(&["status"])?;
        Ok(holds(&last))
    });
    waited.unwrap_or_else(|error| panic!("{error}: {last:#}\n{}", daemon.log()));
    last
}

fn has_joined(status: &Value) -> bool {
    status["joined"] == true
}

/// Returns what a source of contacts did.
fn source<'a>(status: &'a Value, name: &str) -> &'a Value {
    let mut sources = status["bootstrap"].as_array().unwrap().iter();
    let found = sources.find(|source| source["source"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {status:#}"))
}

#[test]
fn nodes_in_one_network_find_each_other_without_any_invitation_that_leads_on() {
    let Some(mut net) = Net::open("lan") else {
        return;
    };
    let [gone, left, right] = net.hosts(["gone", "left", "right"]);
    // The only node that the invitation names is no more.
    let ticket = net.start(&gone, &[]).text(&["invite"]).unwrap();
    let words = ["--mdns", "on", "--bootstrap", &ticket];
    let (left, right) = (net.start(&left, &words), net.start(&right, &words));
    for daemon in [&left, &right] {
        // Whoever was found first may have found nobody yet.
        let status = wait(daemon, "the node has found the other", |status| {
            let lan = source(status, "local-network");
            has_joined(status) && lan["found"] == 1 && lan["peers"] == 1
        });
        assert_eq!(source(&status, "invitation")["peers"], 0);
    }
}

#[test]
fn nodes_of_other_overlays_and_nodes_that_are_to_be_silent_are_left_alone() {
    let Some(mut net) = Net::open("lanother") else {
        return;
    };
    let [left, right, other, silent] = net.hosts(["left", "right", "other", "silent"]);
    let config = net.path("other.toml");
    std::fs::write(&config, "overlay = \"office\"").unwrap();
    let words = ["--mdns", "on", "--config", config.to_str().unwrap()];
    let other = net.start(&other, &words);
    let silent = net.start(&silent, &["--mdns", "off"]);
    let left = net.start(&left, &IN_LAN);
    let right = net.start(&right, &IN_LAN);
    for daemon in [&left, &right] {
        let status = wait(daemon, "the node joins", has_joined);
        assert_eq!(status["overlay_size_estimate"], 2);
    }
    for daemon in [&other, &silent] {
        let status = daemon.json(&["status"]).unwrap();
        assert!(!has_joined(&status), "{status:#}");
    }
}

#[test]
fn islands_merge_when_their_networks_do() {
    let Some(mut net) = Net::open("islands") else {
        return;
    };
    let hosts = net.hosts(["a", "b", "c", "d"]);
    let [a, b, c, d] = &hosts;
    net.lab.isolate(&[a, b], &[c, d]).unwrap();
    let daemons = hosts.each_ref().map(|host| net.start(host, &IN_LAN));
    for daemon in &daemons {
        let status = wait(daemon, "the node joins its island", has_joined);
        assert_eq!(status["overlay_size_estimate"], 2);
    }
    net.lab.heal().unwrap();
    for daemon in &daemons {
        wait(daemon, "the islands are one", |status| {
            status["overlay_size_estimate"] == 4
        });
    }
}

#[test]
fn a_name_and_a_port_are_enough_to_join() {
    let Some(mut net) = Net::open("bootserver") else {
        return;
    };
    let [server, member, newcomer, stranger] =
        net.hosts(["server", "member", "newcomer", "stranger"]);
    let config = net.path("server.toml");
    std::fs::write(
        &config,
        "bootstrap_server = true\nlisten = [\"0.0.0.0:4242\"]",
    )
    .unwrap();
    let words = ["--config", config.to_str().unwrap()];
    let address = format!("{}:4242", server.address());
    let running = net.start(&server, &words);
    let member = net.start(&member, &["--bootstrap", &address]);
    wait(&member, "the member joins", has_joined);
    // By name, in the system's way.
    let hosts = format!(
        "127.0.0.1 localhost\n{} boot.example.org\n",
        server.address()
    );
    newcomer.set_etc("hosts", &hosts).unwrap();
    let newcomer = net.start(&newcomer, &["--bootstrap", "boot.example.org:4242"]);
    let status = wait(&newcomer, "the newcomer joins", has_joined);
    // It was told of both.
    assert_eq!(source(&status, "servers")["found"], 2, "{status:#}");
    // Who means another overlay learns nothing.
    let config = net.path("stranger.toml");
    std::fs::write(&config, "overlay = \"office\"").unwrap();
    let words = [
        "--config",
        config.to_str().unwrap(),
        "--bootstrap",
        &address,
    ];
    let stranger = net.start(&stranger, &words);
    let status = wait(&stranger, "the stranger gets no answer", |status| {
        source(status, "servers")["error"].is_string()
    });
    let error = source(&status, "servers")["error"].as_str().unwrap();
    assert!(error.contains("does not answer"), "{error}");
    assert!(!has_joined(&status) && has_joined(&running.json(&["status"]).unwrap()));
}
