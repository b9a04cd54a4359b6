//! A small Internet inside this machine: public hosts, homes behind routers of any kind, links that
//! take time and lose packets.
//!
//! ```text
//!   public("p")                                 eth0 11.0.1.1
//!   home("h", NatKind::symmetric(...))          router 11.0.2.1
//!      host("a", home)                          eth0 192.168.1.2
//!      host("b", home)                          eth0 192.168.1.3
//!   behind(carrier, "g", NatKind::...)          router 192.168.1.4, hosts 192.168.2.2...
//! ```
//!
//! Addresses of the Internet are of 11.0.0.0/8: real ones, for routers refuse to open ports of
//! addresses that are for documentation or private; and nothing leaves the namespaces. Each is in a
//! network of its own, as strangers are. There is no IPv6 yet.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::host::{Host, INTERFACE};
use crate::ip::{ip, ip_batch};
use crate::lab::Lab;
use crate::wire::{Area, Counts, Fabric, INTERNET, LinkKind, NatKind, Place, Wire};

/// The most hosts and routers of one area.
const AREA_MAX: u8 = 250;
/// How long the rules of a router may take to be made.
const RULES_TIME_MAX: Duration = Duration::from_secs(10);

/// What an area has given so far.
#[derive(Debug)]
struct Site {
    /// The first three octets of its addresses; in the Internet, the first two.
    network: [u8; 3],
    last: u8,
    link: LinkKind,
}

/// The Internet and all that is in it; dropping it removes everything.
#[derive(Debug)]
pub struct World {
    // Devices go with their namespaces; the thread goes first.
    wire: Wire,
    lab: Lab,
    /// By area.
    sites: Vec<Site>,
    places: Vec<(String, Place)>,
}

impl World {
    /// Makes an Internet in which nobody is. Packets take `link` to each public host and to each
    /// router, once in each direction.
    ///
    /// # Errors
    /// As [`Lab::new`], and when the thread of the wire cannot be started.
    pub fn new(prefix: &str, link: LinkKind) -> Result<Self> {
        Ok(Self {
            wire: Wire::start()?,
            lab: Lab::new(prefix)?,
            sites: vec![Site {
                network: [11, 0, 0],
                last: 0,
                link,
            }],
            places: Vec::new(),
        })
    }

    /// Makes a host in the Internet.
    ///
    /// # Errors
    /// When the name is unfit or taken, there is no address left, or a device cannot be made.
    pub fn public(&mut self, name: &str) -> Result<Host> {
        self.host(name, INTERNET)
    }

    /// Makes a network behind a router of the Internet. Packets within it take no time.
    ///
    /// # Errors
    /// When there is no address left.
    pub fn home(&mut self, nat: NatKind) -> Result<Area> {
        self.behind(INTERNET, nat)
    }

    /// Makes a network behind a router in another network.
    ///
    /// # Errors
    /// When there is no address left.
    pub fn behind(&mut self, outside: Area, nat: NatKind) -> Result<Area> {
        let address = self.address(outside)?;
        let link = self.sites[outside.0].link;
        let area = self
            .wire
            .change(|fabric| fabric.area(outside, address, nat, link));
        let number = u8::try_from(area.0).context("too many networks")?;
        // A carrier's network is told by its addresses (RFC 6598); most homes look alike.
        let is_inner = outside != INTERNET;
        self.sites.push(Site {
            network: [192, 168, if is_inner { 100 + number } else { 1 }],
            last: 1, // The router's own.
            link: LinkKind::of_delay(Duration::ZERO),
        });
        Ok(area)
    }

    /// Makes a host in a network.
    ///
    /// # Errors
    /// As [`Self::public`].
    pub fn host(&mut self, name: &str, area: Area) -> Result<Host> {
        let address = self.address(area)?;
        let link = self.sites[area.0].link;
        let host = self.lab.bare_host(name, address)?;
        let place = self.wire.connect(&host, area, link)?;
        configure(&host, area)?;
        self.places.push((name.to_owned(), place));
        Ok(host)
    }

    /// Makes a host behind a host of this world that Linux itself makes a router, which masquerades
    /// with these words of nftables (`random`, `fully-random` or none). There is one of them for
    /// each router.
    ///
    /// # Errors
    /// When the name is unfit or taken, or `ip` or `nft` fails.
    pub fn behind_kernel(&mut self, name: &str, router: &Host, how: &str) -> Result<Host> {
        let [gateway, own] = [1, 2].map(|last| Ipv4Addr::new(192, 168, 1, last));
        let host = self.lab.bare_host(name, own)?;
        let (inside, outside) = (host.namespace(), router.namespace());
        let cable = ["type", "veth", "peer", "name", "lan0", "netns", outside];
        ip(&[&["-n", inside, "link", "add", INTERFACE][..], &cable].concat())?;
        let lines = format!("address add {gateway}/24 dev lan0\nlink set lan0 up\n");
        ip_batch(outside, &lines)?;
        let lines = format!(
            "address add {own}/24 dev {INTERFACE}\nlink set {INTERFACE} up\n\
             route add default via {gateway}\n"
        );
        ip_batch(inside, &lines)?;
        // What comes unasked is dropped before connections are tracked to their end: an entry of
        // it would give the inner host's packets another port.
        let rules = format!(
            "echo 1 > /proc/sys/net/ipv4/ip_forward\n\
             nft 'table ip lab {{ chain out {{ type nat hook postrouting priority srcnat; \
             oifname {INTERFACE} masquerade {how}; }}; chain in {{ type filter hook input \
             priority filter; iifname {INTERFACE} ct state new drop; }}; }}'"
        );
        let done = router.run(&["sh", "-ec", &rules], RULES_TIME_MAX)?;
        ensure!(done.success(), "making a router: {}", done.stderr);
        Ok(host)
    }

    /// Returns the outer address of a network's next host or router.
    fn address(&mut self, area: Area) -> Result<Ipv4Addr> {
        let site = self.sites.get_mut(area.0).context("no such network")?;
        ensure!(
            site.last < AREA_MAX,
            "a network has at most {AREA_MAX} hosts"
        );
        site.last += 1;
        let [a, b, c] = site.network;
        Ok(match area {
            INTERNET => Ipv4Addr::new(a, b, site.last, 1),
            _ => Ipv4Addr::new(a, b, c, site.last),
        })
    }

    /// Has a network's router start anew: it forgets everything, and has another outer address if
    /// it is to.
    ///
    /// # Errors
    /// When there is no address left.
    pub fn restart_router(&mut self, area: Area, moves: bool) -> Result<()> {
        let address = match moves {
            true => Some(self.address(INTERNET)?),
            false => None,
        };
        self.wire.change(|fabric| fabric.restart(area, address));
        Ok(())
    }

    /// Makes the links to a network's router others.
    pub fn set_area_link(&self, area: Area, link: LinkKind) {
        let change = |fabric: &mut Fabric| {
            fabric.on_area_links(area, |known| known.change(link));
        };
        self.wire.change(change);
    }

    /// Cuts a network off from what is around it, or joins it again.
    pub fn cut_area(&self, area: Area, is_cut: bool) {
        let cut = |fabric: &mut Fabric| {
            fabric.on_area_links(area, |link| link.cut(is_cut));
        };
        self.wire.change(cut);
    }

    /// Cuts a host off, or joins it again. It keeps its device, and learns of it by silence.
    ///
    /// # Errors
    /// When the host is not of this world.
    pub fn cut(&self, host: &Host, is_cut: bool) -> Result<()> {
        let place = self.place(host)?;
        let cut = |fabric: &mut Fabric| {
            fabric.on_host_links(place, |link| link.cut(is_cut));
        };
        self.wire.change(cut);
        Ok(())
    }

    /// Moves a host to another address of its network, or of another one; returns it as it is
    /// called from then on. What it was known by leads nowhere.
    ///
    /// # Errors
    /// When the host is not of this world, or there is no address left.
    pub fn readdress(&mut self, host: &Host, area: Area) -> Result<Host> {
        let (place, address) = (self.place(host)?, self.address(area)?);
        let namespace = host.namespace();
        ip(&["-n", namespace, "address", "flush", "dev", INTERFACE])?;
        self.wire
            .change(|fabric| fabric.readdress(place, area, address));
        let moved = Host {
            address,
            ..host.clone()
        };
        configure(&moved, area)?;
        Ok(moved)
    }

    /// Returns what became of packets.
    pub fn counts(&self) -> Counts {
        self.wire.change(|fabric| fabric.counts())
    }

    fn place(&self, host: &Host) -> Result<Place> {
        let mut places = self.places.iter();
        let found = places.find(|(name, _)| name == host.name());
        let (_, place) = found.with_context(|| format!("no host {}", host.name()))?;
        Ok(*place)
    }
}

/// Tells a host its address, and that everything is reached by its device.
fn configure(host: &Host, area: Area) -> Result<()> {
    let (namespace, address) = (host.namespace(), host.address());
    // The Internet is no network of which one would be part.
    let bits = if area == INTERNET { 32 } else { 24 };
    let own = format!("{address}/{bits}");
    ip(&["-n", namespace, "address", "add", &own, "dev", INTERFACE])?;
    ip(&["-n", namespace, "link", "set", INTERFACE, "up"])?;
    ip(&[
        "-n", namespace, "route", "replace", "default", "dev", INTERFACE,
    ])?;
    Ok(())
}
