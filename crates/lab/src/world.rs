//! A small Internet inside this machine: public hosts, homes behind routers of any kind, links that
//! take time and lose packets.
//!
//! ```text
//!   public("p")                                 eth0 11.0.1.1
//!   home("h", NatKind::symmetric(...))          router 11.0.2.1
//!      host("a", home)                          eth0 192.168.1.2
//!      host("b", home)                          eth0 192.168.1.3
//!   carrier(NatKind::...)                       router 11.0.3.1
//!      behind(carrier, NatKind::...)            router 100.64.2.2
//!         host("c", home)                       eth0 192.168.1.2
//! ```
//!
//! Addresses of the Internet are of 11.0.0.0/8: real ones, for routers refuse to open ports of
//! addresses that are for documentation or private; and nothing leaves the namespaces. Each is in a
//! network of its own, as strangers are.
//!
//! IPv6 is had by whom it is given ([`World::host_of`]): of 2600:11::/32, each public host and each
//! network of the Internet a prefix of 64 bits, in a site of its own (/48). Routers have a firewall
//! for it, which lets in answers alone, and where hosts have IPv6 alone, a NAT64 at 64:ff9b::/96. There
//! is no DNS64.

use std::net::{Ipv4Addr, Ipv6Addr};
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

/// What a host speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// IPv4 alone.
    Ipv4,
    /// Both.
    Dual,
    /// IPv6 alone.
    Ipv6,
}

/// What an area has given so far.
#[derive(Debug)]
struct Site {
    /// The first three octets of its addresses; in the Internet, the first two.
    network: [u8; 3],
    last: u8,
    link: LinkKind,
    /// What its addresses of IPv6 begin with; none where that is not routed.
    prefix: Option<Ipv6Addr>,
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
                prefix: None, // Each host has one of its own.
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

    /// Makes a carrier's network behind a router of the Internet, with shared addresses (RFC 6598).
    /// Homes are put there by [`Self::behind`]. Packets within it take no time.
    ///
    /// # Errors
    /// As [`Self::home`].
    pub fn carrier(&mut self, nat: NatKind) -> Result<Area> {
        let area = self.home(nat)?;
        let number = u8::try_from(area.0).context("too many networks")?;
        self.sites[area.0].network = [100, 64, number];
        Ok(area)
    }

    /// Keeps those in a network apart, as networks for guests do: nothing passes between them but by
    /// its router, if that turns packets round to where they come from ([`NatKind::hairpin`]).
    pub fn keep_apart(&self, area: Area) {
        self.wire.change(|fabric| fabric.keep_apart(area));
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
        // Most homes look alike; one within another has addresses of its own.
        let is_within = matches!(self.sites[outside.0].network, [192, 168, _]);
        self.sites.push(Site {
            network: [192, 168, if is_within { 100 + number } else { 1 }],
            last: 1, // The router's own.
            link: LinkKind::of_delay(Duration::ZERO),
            prefix: None,
        });
        Ok(area)
    }

    /// Makes a network behind a router of the Internet that routes IPv6 too, through a firewall that
    /// lets out what the kind lets out.
    ///
    /// # Errors
    /// As [`Self::home`].
    pub fn home_v6(&mut self, nat: NatKind) -> Result<Area> {
        let address = self.sites[0].last + 1;
        let area = self.home(nat.clone())?;
        let prefix = prefix(address);
        self.sites[area.0].prefix = Some(prefix);
        self.wire
            .change(|fabric| fabric.route_v6(area, prefix, nat));
        Ok(area)
    }

    /// Makes a host in a network.
    ///
    /// # Errors
    /// As [`Self::public`].
    pub fn host(&mut self, name: &str, area: Area) -> Result<Host> {
        self.host_of(name, area, Stack::Ipv4)
    }

    /// Makes a host in a network, or in the Internet, that speaks IPv4, IPv6 or both.
    ///
    /// # Errors
    /// As [`Self::public`], and when it is to have IPv6 and the network has none
    /// ([`Self::home_v6`]), or to have IPv6 alone in the Internet, which has no NAT64.
    pub fn host_of(&mut self, name: &str, area: Area, stack: Stack) -> Result<Host> {
        ensure!(
            stack != Stack::Ipv6 || area != INTERNET,
            "a host with IPv6 alone needs a router that is its NAT64"
        );
        let address = self.address(area)?;
        let Site { link, .. } = self.sites[area.0];
        let address_v6 = match stack {
            Stack::Ipv4 => None,
            Stack::Dual | Stack::Ipv6 => Some(self.address_v6(area, address)?),
        };
        let host = Host {
            address_v6,
            ..self.lab.bare_host(name, address)?
        };
        let place = self.wire.connect(&host, area, link)?;
        if let Some(address) = address_v6 {
            let is_alone = stack == Stack::Ipv6;
            self.wire
                .change(|fabric| fabric.add_v6(place, address, is_alone));
        }
        configure(&host, area, stack)?;
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

    /// Returns the address of IPv6 of a host with this one of IPv4.
    fn address_v6(&self, area: Area, address: Ipv4Addr) -> Result<Ipv6Addr> {
        let [.., number, last] = address.octets();
        let (prefix, last) = match area {
            INTERNET => (prefix(number), 1),
            _ => {
                let prefix = self.sites[area.0].prefix;
                (prefix.context("a network without IPv6")?, last)
            }
        };
        Ok(Ipv6Addr::from_bits(prefix.to_bits() | u128::from(last)))
    }

    /// Has a network's router start anew: it forgets everything, and has another outer address of
    /// IPv4 if it is to. Its prefix of IPv6 stays.
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
    /// When the host is not of this world, or there is no address left, or it has IPv6.
    pub fn readdress(&mut self, host: &Host, area: Area) -> Result<Host> {
        ensure!(
            host.address_v6.is_none(),
            "hosts with IPv6 stay where they are"
        );
        let (place, address) = (self.place(host)?, self.address(area)?);
        let namespace = host.namespace();
        ip(&["-n", namespace, "address", "flush", "dev", INTERFACE])?;
        self.wire
            .change(|fabric| fabric.readdress(place, area, address));
        let moved = Host {
            address,
            ..host.clone()
        };
        configure(&moved, area, Stack::Ipv4)?;
        Ok(moved)
    }

    /// Returns what became of packets.
    pub fn counts(&self) -> Counts {
        self.wire.change(|fabric| fabric.counts())
    }

    /// Returns how long after its time a packet was carried on at most, since that was asked last: what is
    /// more than a few milliseconds is the doing of a busy machine, not of the links.
    pub fn take_lateness(&self) -> Duration {
        self.wire.change(Fabric::take_lateness)
    }

    fn place(&self, host: &Host) -> Result<Place> {
        let mut places = self.places.iter();
        let found = places.find(|(name, _)| name == host.name());
        let (_, place) = found.with_context(|| format!("no host {}", host.name()))?;
        Ok(*place)
    }
}

/// The prefix of IPv6 of the public host, or network, that is this one in order.
fn prefix(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2600, 0x11, number.into(), 0, 0, 0, 0, 0)
}

/// Tells a host its addresses, and that everything is reached by its device.
fn configure(host: &Host, area: Area, stack: Stack) -> Result<()> {
    // The Internet is no network of which one would be part.
    let [bits, bits_v6] = if area == INTERNET {
        [32, 128]
    } else {
        [24, 64]
    };
    let mut lines = format!("link set {INTERFACE} up\n");
    if stack != Stack::Ipv6 {
        let address = host.address();
        lines += &format!(
            "address add {address}/{bits} dev {INTERFACE}\nroute replace default dev {INTERFACE}\n"
        );
    }
    if let Some(address) = host.address_v6() {
        lines += &format!(
            "address add {address}/{bits_v6} dev {INTERFACE} nodad\n\
             route replace ::/0 dev {INTERFACE}\n"
        );
    }
    ip_batch(host.namespace(), &lines)
}
