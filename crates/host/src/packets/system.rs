//! What the system routes for a channel: networks behind members by way of its device, and, on
//! a host that shares a network, what members send there.
//!
//! | for | with |
//! |---|---|
//! | a network behind a member | a route by the device, of a metric that leaves the host's own networks as they are |
//! | everything (an exit) | a table of its own and rules before the main one, from which the node's own sockets are exempt by their ports; the way of `wg-quick(8)`, with ports in place of its mark |
//! | a network behind this host | forwarding, and a table of nftables that puts this host's address in the place of the members' (masquerade), so that the network needs no way back |
//!
//! Everything is done by `ip` and `nft`, and undone when the channel is closed. What a crash
//! leaves goes nowhere: routes end with the device, and the rules find an empty table.

use std::io::Write;
use std::process::{Command, Stdio};

use enishi_services::vnet::routes::Prefix;

/// The table with the way to everything, and the priorities of the rules that lead there.
const TABLE: &str = "25966";
const OWN_SOCKETS: &str = "5180";
const OWN_NETWORKS: &str = "5190";
const EVERYTHING: &str = "5200";
/// Of routes to networks behind members; the system's own have 0 to 1024.
const METRIC: &str = "2000";
const FORWARDING: [&str; 2] = [
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv6/conf/all/forwarding",
];

/// What the system routes for one channel.
pub(super) struct SystemRoutes {
    device: String,
    /// The channel's networks.
    own: [Prefix; 2],
    /// Of this node's sockets.
    ports: Vec<u16>,
    routes: Vec<Prefix>,
    shares: bool,
    /// What was there before forwarding was switched on.
    forwarding: Vec<(&'static str, String)>,
}

impl SystemRoutes {
    /// Begins with nothing, for a device of a channel with these networks.
    pub(super) fn new(device: String, own: [Prefix; 2], ports: Vec<u16>) -> Self {
        Self {
            device,
            own,
            ports,
            routes: Vec::new(),
            shares: false,
            forwarding: Vec::new(),
        }
    }

    /// Returns the networks that are routed by the device.
    pub(super) fn routes(&self) -> &[Prefix] {
        &self.routes
    }

    /// Has the system route `routes` by the device, and pass on what comes for `behind`.
    ///
    /// # Errors
    /// A sentence for people about the first thing that could not be done; the rest is.
    pub(super) fn set(&mut self, routes: &[Prefix], behind: &[Prefix]) -> Result<(), String> {
        let gone: Vec<Prefix> = self.routes.clone();
        let gone = gone.into_iter().filter(|network| !routes.contains(network));
        let mut outcome = Ok(());
        for network in gone.collect::<Vec<_>>() {
            self.unroute(network);
        }
        for network in routes {
            if !self.routes.contains(network) {
                outcome = outcome.and(self.route(*network));
            }
        }
        self.routes = routes.to_vec();
        match (self.shares, !behind.is_empty()) {
            (false, true) => outcome = outcome.and(self.share()),
            (true, false) => self.unshare(),
            _ => {}
        }
        outcome
    }

    fn route(&self, network: Prefix) -> Result<(), String> {
        let device = &self.device;
        if !network.is_everything() {
            let line = format!("route replace {network} dev {device} metric {METRIC}");
            return ip(network, After::Stop, &[line]);
        }
        self.unroute(network);
        let own_socket =
            |port| format!("rule add pref {OWN_SOCKETS} ipproto udp sport {port} lookup main");
        let mut lines = vec![format!("route replace default dev {device} table {TABLE}")];
        lines.extend(self.ports.iter().map(own_socket));
        lines.push(format!(
            "rule add pref {OWN_NETWORKS} lookup main suppress_prefixlength 0"
        ));
        lines.push(format!("rule add pref {EVERYTHING} lookup {TABLE}"));
        let outcome = ip(network, After::Stop, &lines);
        if outcome.is_err() {
            // Half of it would send this node's own sessions through themselves.
            self.unroute(network);
        }
        outcome
    }

    fn unroute(&self, network: Prefix) {
        let device = &self.device;
        let lines = if network.is_everything() {
            let rules = [OWN_SOCKETS, OWN_NETWORKS, EVERYTHING];
            let gone =
                rules.map(|pref| vec![format!("rule del pref {pref}"); self.ports.len() + 1]);
            let mut lines = gone.concat();
            lines.push(format!("route flush table {TABLE}"));
            lines
        } else {
            vec![format!("route del {network} dev {device} metric {METRIC}")]
        };
        // What is not there need not be removed.
        let _ = ip(network, After::GoOn, &lines);
    }

    fn share(&mut self) -> Result<(), String> {
        self.shares = true;
        for file in FORWARDING {
            let before = std::fs::read_to_string(file);
            match before {
                Ok(before) if before.trim() != "0" => {}
                Ok(before) => {
                    std::fs::write(file, "1")
                        .map_err(|error| format!("forwarding cannot be switched on: {error}"))?;
                    self.forwarding.push((file, before));
                }
                // Without IPv6 there is nothing to forward.
                Err(_) => {}
            }
        }
        let (table, device) = (self.table(), &self.device);
        let [four, six] = self.own;
        nft(&format!(
            "add table inet {table}\n\
             delete table inet {table}\n\
             table inet {table} {{\n\
               chain sharing {{\n\
                 type nat hook postrouting priority srcnat; policy accept;\n\
                 ip saddr {four} oifname != {{ \"lo\", \"{device}\" }} masquerade\n\
                 ip6 saddr {six} oifname != {{ \"lo\", \"{device}\" }} masquerade\n\
               }}\n\
             }}\n"
        ))
    }

    fn unshare(&mut self) {
        self.shares = false;
        let _ = nft(&format!("delete table inet {}\n", self.table()));
        for (file, before) in self.forwarding.drain(..) {
            let _ = std::fs::write(file, before);
        }
    }

    fn table(&self) -> String {
        format!("enishi_{}", self.device)
    }
}

impl Drop for SystemRoutes {
    fn drop(&mut self) {
        // Undoing has nobody to tell.
        let _ = self.set(&[], &[]);
    }
}

/// What becomes of the commands after one that failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// They are not run.
    Stop,
    /// They are.
    GoOn,
}

/// Runs commands of `ip` in one process.
fn ip(network: Prefix, after: After, lines: &[String]) -> Result<(), String> {
    let mut words = vec![match network.address().is_ipv4() {
        true => "-4",
        false => "-6",
    }];
    if after == After::GoOn {
        words.push("-force");
    }
    words.extend(["-batch", "-"]);
    feed("ip", "iproute2", &words, &lines.join("\n"))
}

fn nft(script: &str) -> Result<(), String> {
    feed("nft", "nftables", &["-f", "-"], script)
}

/// Runs a program of a Debian package with this on its standard input.
fn feed(program: &str, package: &str, words: &[&str], input: &str) -> Result<(), String> {
    let cannot = |error| missing(program, package, &error);
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(cannot)?;
    told(program, &words.join(" "), &output)
}

fn missing(program: &str, package: &str, error: &std::io::Error) -> String {
    format!("`{program}` cannot be run ({error}): install the package {package}")
}

fn told(program: &str, words: &str, output: &std::process::Output) -> Result<(), String> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().next().unwrap_or("it said nothing");
    Err(format!("`{program} {words}` failed: {line}"))
}
