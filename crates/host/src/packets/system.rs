//! What the system routes for a channel: networks behind members by way of its device, and, on
//! a host that shares a network, what members send there.
//!
//! | for | with |
//! |---|---|
//! | a network behind a member | a route by the device, of a metric that leaves the host's own networks as they are |
//! | everything (an exit) | a table of its own and rules before the main one, from which the node's own sockets are exempt by their ports; the way of `wg-quick(8)`, with ports in place of its mark. In the table stands a route that refuses (see `hold`), and before it the way by the device as long as there is one |
//! | discovery | routes to all of multicast and to 255.255.255.255, for programs that choose no device |
//! | a network behind this host | forwarding, and a table of nftables that puts this host's address in the place of the members' (masquerade), so that the network needs no way back |
//!
//! Everything is done by `ip` and `nft`, and undone when the channel is closed. Of what a crash
//! leaves, routes end with the device, and everything that went by an exit is refused: who
//! chose one does not want its packets to leave by another way because a program ended. The next
//! start goes on from there, or clears it if no exit is wanted any more.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use enishi_services::vnet::routes::Prefix;

use super::forwarding::{Forwarding, Version};
use super::hold::{Hold, TABLE};

/// Of routes to networks behind members; the system's own have 0 to 1024.
const METRIC: &str = "2000";
/// Where programs send that look for others without naming a device.
const DISCOVERY: [&str; 2] = ["255.255.255.255/32", "224.0.0.0/4"];

/// What the system routes for one channel.
pub(super) struct SystemRoutes {
    device: String,
    /// The channel's networks.
    own: [Prefix; 2],
    /// Of this node's sockets.
    ports: BTreeSet<u16>,
    routes: Vec<Prefix>,
    /// Whether everything is to go by the device or nowhere, and what sees to it.
    exit: bool,
    hold: Option<Hold>,
    discovers: bool,
    /// The versions of IP of which a network behind this host is shared, and what passes their
    /// packets on.
    shares: Vec<Version>,
    forwarding: Vec<Forwarding>,
    /// What a person should know: of what could not be routed, and of discovery.
    unrouted: Option<String>,
    undiscovered: Option<String>,
}

impl SystemRoutes {
    /// Begins with nothing, and without a device, on a node with sockets at these ports.
    pub(super) fn new(ports: BTreeSet<u16>) -> Self {
        Self {
            device: String::new(),
            own: Prefix::EVERYTHING,
            ports,
            routes: Vec::new(),
            exit: false,
            hold: None,
            discovers: false,
            shares: Vec::new(),
            forwarding: Vec::new(),
            unrouted: None,
            undiscovered: None,
        }
    }

    /// Says at which ports the node has sockets, in place of those before.
    pub(super) fn set_ports(&mut self, ports: BTreeSet<u16>) {
        if self.ports != ports {
            self.ports = ports;
            let outcome = self.hold(self.exit);
            self.unrouted = noted(outcome).or(self.unrouted.take());
        }
    }

    /// Goes on with the device of a channel with these networks.
    pub(super) fn with_device(mut self, device: String, own: [Prefix; 2]) -> Self {
        (self.device, self.own) = (device, own);
        self
    }

    /// Undoes all but that everything is refused which went by an exit: the device goes, and
    /// another is to take its place.
    pub(super) fn lose_device(&mut self) {
        // Undoing has nobody to tell.
        let _ = self.discover(false);
        self.set(&[], &[], self.exit);
    }

    /// Returns the networks that are routed by the device.
    pub(super) fn routes(&self) -> &[Prefix] {
        &self.routes
    }

    /// Tells whether everything is to go by the device or nowhere.
    pub(super) fn has_exit(&self) -> bool {
        self.exit
    }

    /// Returns what a person should know of it.
    pub(super) fn notices(&self) -> impl Iterator<Item = &String> {
        self.unrouted.iter().chain(&self.undiscovered)
    }

    /// Has the system route `routes` by the device, and pass on what comes for `behind`. With
    /// `exit` everything that has no nearer way is refused unless `routes` has one for it.
    /// Of what cannot be done there is a notice; the rest is.
    pub(super) fn set(&mut self, routes: &[Prefix], behind: &[Prefix], exit: bool) {
        let mut outcome = self.hold(exit);
        let is_held = self.hold.is_some();
        let possible = |network: &&Prefix| is_held || !network.is_everything();
        let routes: Vec<Prefix> = routes.iter().filter(possible).copied().collect();
        for network in self.routes.iter().filter(|n| !routes.contains(n)) {
            self.unroute(*network);
        }
        for network in &routes {
            if !self.routes.contains(network) {
                outcome = outcome.and(self.route(*network));
            }
        }
        self.routes = routes;
        let shares = versions(behind);
        if shares.is_empty() && !self.shares.is_empty() {
            self.unshare();
        } else if shares != self.shares {
            self.shares = shares;
            let shared = self.share();
            if shared.is_err() {
                // Is tried again the next time.
                self.unshare();
            }
            outcome = outcome.and(shared);
        }
        self.unrouted = noted(outcome);
    }

    /// Has multicast and broadcast of programs that choose no device go by the channel's, or no
    /// longer.
    ///
    /// # Errors
    /// A sentence for people, which is a notice as well; then nothing has changed.
    pub(super) fn discover(&mut self, on: bool) -> Result<(), String> {
        let before = self.discovers;
        let outcome = match on && !before {
            true => self.lead("replace", After::Stop),
            false => Ok(()),
        };
        self.discovers = on && outcome.is_ok();
        if !self.discovers && (on || before) {
            // What is not there need not be removed.
            let _ = self.lead("del", After::GoOn);
        }
        self.undiscovered = noted(outcome.clone());
        outcome
    }

    fn lead(&self, verb: &str, after: After) -> Result<(), String> {
        let device = &self.device;
        let line = |network| format!("route {verb} {network} dev {device} metric {METRIC}");
        let [four, _] = Prefix::EVERYTHING;
        ip(four, after, &DISCOVERY.map(line))
    }

    /// Has everything go by the device or nowhere, or no longer. What failed is tried again.
    fn hold(&mut self, exit: bool) -> Result<(), String> {
        self.exit = exit;
        if !exit {
            self.hold = None;
            return Ok(());
        }
        let hold = match self.hold.take() {
            Some(hold) => hold,
            None => Hold::take()?,
        };
        self.hold.insert(hold).stand(&self.ports)
    }

    fn route(&self, network: Prefix) -> Result<(), String> {
        let line = format!("route replace {}", self.way(network));
        ip(network, After::Stop, &[line])
    }

    fn unroute(&self, network: Prefix) {
        let line = format!("route del {}", self.way(network));
        // What is not there need not be removed.
        let _ = ip(network, After::GoOn, &[line]);
    }

    /// The route to a network by the device, as `ip` has it.
    fn way(&self, network: Prefix) -> String {
        let device = &self.device;
        match network.is_everything() {
            true => format!("default dev {device} table {TABLE}"),
            false => format!("{network} dev {device} metric {METRIC}"),
        }
    }

    fn share(&mut self) -> Result<(), String> {
        self.forwarding.clear();
        for version in self.shares.clone() {
            match Forwarding::begin(version) {
                Ok(forwarding) => self.forwarding.push(forwarding),
                // Then nothing needs to be switched.
                Err(_) if version.is_on() => {}
                Err(error) => return Err(format!("forwarding cannot be switched on: {error}")),
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
        self.shares.clear();
        let _ = nft(&format!("delete table inet {}\n", self.table()));
        self.forwarding.clear();
    }

    fn table(&self) -> String {
        format!("enishi_{}", self.device)
    }
}

impl Drop for SystemRoutes {
    fn drop(&mut self) {
        // Undoing has nobody to tell.
        let _ = self.discover(false);
        self.set(&[], &[], false);
    }
}

/// Which versions of IP some networks are of.
fn versions(networks: &[Prefix]) -> Vec<Version> {
    let of = |network: &Prefix| match network.address().is_ipv4() {
        true => Version::Four,
        false => Version::Six,
    };
    let is_shared = |version: &Version| networks.iter().any(|network| of(network) == *version);
    let all = [Version::Four, Version::Six].into_iter();
    all.filter(is_shared).collect()
}

/// Makes a notice of what failed.
fn noted(outcome: Result<(), String>) -> Option<String> {
    let notice = outcome.err()?;
    tracing::warn!("{notice}");
    Some(notice)
}

/// What becomes of the commands after one that failed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// They are not run.
    Stop,
    /// They are.
    GoOn,
}

/// Runs commands of `ip` in one process.
pub(super) fn ip(network: Prefix, after: After, lines: &[String]) -> Result<(), String> {
    let mut words = vec![family(network)];
    if after == After::GoOn {
        words.push("-force");
    }
    words.extend(["-batch", "-"]);
    feed("ip", "iproute2", &words, &lines.join("\n"))
}

/// The option of `ip` for the version of a network.
pub(super) fn family(network: Prefix) -> &'static str {
    match network.address().is_ipv4() {
        true => "-4",
        false => "-6",
    }
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
