//! A network of hosts inside this machine.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cleanup::{Cleanup, maker, remove_stale};
use crate::host::{Host, INTERFACE, PREFIX_LENGTH, Port};
use crate::ip::{add_namespace, ip, ip_batch};
use crate::programs::{ensure_programs, is_root};

/// The most hosts at the bridge of one lab.
pub const HOSTS_MAX: u8 = 250;

/// The most directly joined pairs of one lab.
pub const PAIRS_MAX: u8 = 250;

/// The longest prefix of a lab and the longest name of a host, in characters.
pub const NAME_LENGTH_MAX: usize = 16;

/// The MTU of every cable, in octets.
pub const MTU: u16 = 1500;

/// The bridge at which all hosts meet.
const MAIN_BRIDGE: &str = "main";

/// The bridge of those that a cut has separated.
const SIDE_BRIDGE: &str = "side";

/// What a lab is built with: (program, Debian package).
const PROGRAMS: [(&str, &str); 2] = [("ip", "iproute2"), ("setpriv", "util-linux")];

/// A network of hosts inside this machine; dropping it removes everything.
#[derive(Debug)]
pub struct Lab {
    cleanup: Cleanup,
    /// What the names of all its namespaces begin with.
    stem: String,
    bridge_namespace: String,
    names: Vec<String>,
    hosts: u8,
    pairs: u8,
}

impl Lab {
    /// Makes a lab with a bridge and no hosts, and removes what earlier labs of the
    /// same prefix left behind when they were killed.
    ///
    /// `prefix` is 1 to [`NAME_LENGTH_MAX`] lower-case letters, digits and `-`. Labs
    /// with the same prefix may run at the same time.
    ///
    /// # Errors
    /// When the process is not root, a program is missing and cannot be installed, or
    /// the kernel has no namespaces, veth or bridge.
    pub fn new(prefix: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        check_name(prefix).context("the prefix of a lab")?;
        ensure!(
            is_root(),
            "network namespaces need root: run this with sudo"
        );
        ensure_programs(&PROGRAMS)?;
        remove_stale(prefix);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let stem = format!("{prefix}.{}.{count}", maker()?);
        let lab = Self {
            cleanup: Cleanup::register(),
            bridge_namespace: format!("{stem}.+bridge"), // No host can be called so.
            stem,
            names: Vec::new(),
            hosts: 0,
            pairs: 0,
        };
        lab.build_bridges().context("building the lab's bridge")?;
        Ok(lab)
    }

    /// Makes a host and joins it to the bridge. Its address is `10.99.0.N/24`, N from
    /// 1 in the order of making; there is no default route.
    ///
    /// `name` is 1 to [`NAME_LENGTH_MAX`] lower-case letters, digits and `-`, unique in the lab.
    ///
    /// # Errors
    /// When the name is unfit or taken, the lab has [`HOSTS_MAX`] hosts, or `ip` fails.
    pub fn host(&mut self, name: &str) -> Result<Host> {
        ensure!(
            self.hosts < HOSTS_MAX,
            "a lab has at most {HOSTS_MAX} hosts"
        );
        let namespace = self.claim(name)?;
        self.hosts += 1;
        let port = Port {
            namespace: self.bridge_namespace.clone(),
            interface: port_name(self.hosts),
        };
        let host = Host {
            name: name.to_owned(),
            namespace,
            address: Ipv4Addr::new(10, 99, 0, self.hosts),
            address_v6: None,
            far_end: port,
        };
        self.build_host(&host)
            .with_context(|| format!("making host {name}"))?;
        Ok(host)
    }

    /// Makes a host that hangs on no cable: whoever asked gives it a device and this address.
    pub(crate) fn bare_host(&mut self, name: &str, address: Ipv4Addr) -> Result<Host> {
        let namespace = self.claim(name)?;
        self.cleanup
            .make(&namespace, || add_namespace(&namespace))?;
        let far_end = Port {
            namespace: namespace.clone(),
            interface: INTERFACE.to_owned(),
        };
        Ok(Host {
            name: name.to_owned(),
            namespace,
            address,
            address_v6: None,
            far_end,
        })
    }

    /// Makes two hosts joined directly by one cable of [`MTU`] octets, with the
    /// addresses `10.99.P.1/24` and `10.99.P.2/24`, P from 1 in the order of making.
    ///
    /// # Errors
    /// When a name is unfit or taken, the lab has [`PAIRS_MAX`] pairs, or `ip` fails.
    pub fn pair(&mut self, left: &str, right: &str) -> Result<(Host, Host)> {
        ensure!(
            self.pairs < PAIRS_MAX,
            "a lab has at most {PAIRS_MAX} pairs"
        );
        let (left_namespace, right_namespace) = (self.claim(left)?, self.claim(right)?);
        self.pairs += 1;
        let host = |name: &str, mine: &str, other: &str, last| Host {
            name: name.to_owned(),
            namespace: mine.to_owned(),
            address: Ipv4Addr::new(10, 99, self.pairs, last),
            address_v6: None,
            far_end: Port {
                namespace: other.to_owned(),
                interface: INTERFACE.to_owned(),
            },
        };
        let left = host(left, &left_namespace, &right_namespace, 1);
        let right = host(right, &right_namespace, &left_namespace, 2);
        self.build_pair(&left, &right)
            .context("making a pair of hosts")?;
        Ok((left, right))
    }

    /// Cuts the network in two: nothing passes between `one_side` and `other_side`.
    ///
    /// Hosts named in neither are with `one_side`. A second cut replaces the first.
    /// Cables keep their carrier: nobody notices but by silence.
    ///
    /// # Errors
    /// When a host is on both sides or not at the bridge, or `ip` fails.
    pub fn isolate(&self, one_side: &[&Host], other_side: &[&Host]) -> Result<()> {
        for host in one_side.iter().chain(other_side) {
            let name = &host.name;
            let at_bridge = host.far_end.namespace == self.bridge_namespace;
            ensure!(at_bridge, "host {name} is not at this lab's bridge");
        }
        let ports = |side: &[&Host]| -> BTreeSet<String> {
            side.iter()
                .map(|host| host.far_end.interface.clone())
                .collect()
        };
        let cut_off = ports(other_side);
        ensure!(
            ports(one_side).is_disjoint(&cut_off),
            "a host is on both sides of the cut"
        );
        self.place_ports(&cut_off)
    }

    /// Undoes [`Lab::isolate`].
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn heal(&self) -> Result<()> {
        self.place_ports(&BTreeSet::new())
    }

    /// Tells hosts at the bridge each other's Ethernet addresses, once and for all.
    ///
    /// The kernel finds them out by itself, but keeps what it found for all namespaces of
    /// the machine in one table of a thousand places: too few for fifty hosts of which
    /// everybody speaks with everybody.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn acquaint(&self, hosts: &[&Host]) -> Result<()> {
        for host in hosts {
            let others = hosts.iter().filter(|other| other.address != host.address);
            let lines = others.map(|other| {
                let (address, ethernet) = (other.address, other.ethernet());
                format!(
                    "neighbour replace {address} lladdr {ethernet} dev {INTERFACE} nud permanent\n"
                )
            });
            ip_batch(&host.namespace, &lines.collect::<String>())
                .with_context(|| format!("telling host {} of the others", host.name))?;
        }
        Ok(())
    }

    /// Returns what has passed the interface of each of some hosts at the bridge since they
    /// were made, in their order.
    ///
    /// # Errors
    /// When a host is not at the bridge, or `ip` fails.
    pub fn octets(&self, hosts: &[&Host]) -> Result<Vec<Octets>> {
        let text = ip(&["-n", &self.bridge_namespace, "-s", "-j", "link", "show"])?;
        let links: Value = serde_json::from_str(&text).context("reading what ip tells")?;
        let of = |host: &&Host| {
            let links = links.as_array()?;
            let port = links
                .iter()
                .find(|link| link["ifname"] == host.far_end.interface.as_str())?;
            // What the bridge receives at its end of the cable, the host has sent.
            Some(Octets {
                sent: port["stats64"]["rx"]["bytes"].as_u64()?,
                received: port["stats64"]["tx"]["bytes"].as_u64()?,
            })
        };
        hosts
            .iter()
            .map(|host| of(host).with_context(|| format!("no figures of host {}", host.name)))
            .collect()
    }

    /// Returns the means to remove the lab at any moment, for example in a handler of
    /// signals. See also [`crate::install_signal_cleanup`].
    pub fn cleanup_handle(&self) -> Cleanup {
        self.cleanup.clone()
    }

    /// Checks a host's name and returns the name of its namespace.
    fn claim(&mut self, name: &str) -> Result<String> {
        check_name(name).context("the name of a host")?;
        ensure!(
            !self.names.iter().any(|taken| taken == name),
            "there is a host {name} already"
        );
        self.names.push(name.to_owned());
        Ok(format!("{}.{name}", self.stem))
    }

    fn build_bridges(&self) -> Result<()> {
        let namespace = &self.bridge_namespace;
        self.cleanup.make(namespace, || add_namespace(namespace))?;
        for bridge in [MAIN_BRIDGE, SIDE_BRIDGE] {
            ip(&["-n", namespace, "link", "add", bridge, "type", "bridge"])?;
            ip(&["-n", namespace, "link", "set", bridge, "up"])?;
        }
        Ok(())
    }

    fn build_host(&self, host: &Host) -> Result<()> {
        self.cleanup
            .make(&host.namespace, || add_namespace(&host.namespace))?;
        lay_cable(host)?;
        let Port {
            namespace,
            interface,
        } = &host.far_end;
        self.move_port(interface, MAIN_BRIDGE)?;
        ip(&["-n", namespace, "link", "set", interface, "up"])?;
        set_address(host)
    }

    fn build_pair(&self, left: &Host, right: &Host) -> Result<()> {
        for host in [left, right] {
            self.cleanup
                .make(&host.namespace, || add_namespace(&host.namespace))?;
        }
        lay_cable(left)?;
        set_address(left)?;
        set_address(right)
    }

    /// Puts the ports named in `cut_off` on the side bridge and all others on the main one.
    fn place_ports(&self, cut_off: &BTreeSet<String>) -> Result<()> {
        for port in (1..=self.hosts).map(port_name) {
            let bridge = if cut_off.contains(&port) {
                SIDE_BRIDGE
            } else {
                MAIN_BRIDGE
            };
            self.move_port(&port, bridge)?;
        }
        Ok(())
    }

    fn move_port(&self, port: &str, bridge: &str) -> Result<()> {
        ip(&[
            "-n",
            &self.bridge_namespace,
            "link",
            "set",
            port,
            "master",
            bridge,
        ])?;
        Ok(())
    }
}

/// What has passed an interface, Ethernet headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Octets {
    /// From the host.
    pub sent: u64,
    /// To the host.
    pub received: u64,
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.cleanup.run();
    }
}

fn port_name(number: u8) -> String {
    format!("p{number}")
}

/// Makes the veth pair from a host to the far end of its cable.
fn lay_cable(host: &Host) -> Result<()> {
    let Port {
        namespace,
        interface,
    } = &host.far_end;
    let mtu = MTU.to_string();
    ip(&[
        "-n",
        &host.namespace,
        "link",
        "add",
        INTERFACE,
        "address",
        &host.ethernet(),
        "mtu",
        &mtu,
        "type",
        "veth", //
        "peer",
        "name",
        interface,
        "mtu",
        &mtu,
        "netns",
        namespace,
    ])?;
    Ok(())
}

fn set_address(host: &Host) -> Result<()> {
    let address = format!("{}/{PREFIX_LENGTH}", host.address);
    ip(&[
        "-n",
        &host.namespace,
        "address",
        "add",
        &address,
        "dev",
        INTERFACE,
    ])?;
    ip(&["-n", &host.namespace, "link", "set", INTERFACE, "up"])?;
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    let fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    ensure!(
        (1..=NAME_LENGTH_MAX).contains(&name.len()) && name.chars().all(fit),
        "`{name}` is not 1 to {NAME_LENGTH_MAX} lower-case letters, digits and `-`"
    );
    Ok(())
}
