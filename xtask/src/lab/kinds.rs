//! The kinds of places where nodes are.
//!
//! Each node has a router of its own, but for some kinds of which two are neighbours: behind one router in
//! between, whose outer address is that of both. To all others they are as anybody else behind such routers. What is
//! possible between two of them depends on whether that router turns packets round which come from
//! inside and are for its own outer address (*hairpinning*: RFC 4787, section 6):
//!
//! | kind | the way from one to the other |
//! |---|---|
//! | `neighbours` | straight in their network, by the addresses that they have there; the router does not hairpin |
//! | `guests` | nothing passes within their network: by the router, which hairpins |
//! | `carrier-neighbours` | by others: the outer address leads nowhere, their own ones are in two homes, and those between the routers nobody tells them |
//! | `carrier-hairpin` | by the carrier's router, as between any two homes whose routers keep one port for all |

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::ensure;
use enishi_lab::forward::ForwardProxy;
use enishi_lab::wire::{Area, Dependence, INTERNET, NatKind, Outward, Ports};
use enishi_lab::{Host, Stack, World};

use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};

/// The ports that remain where a company's firewall lets out the web alone.
const WEB_PORTS: [u16; 4] = [80, 443, 8080, 8081];

/// At which port a company's proxy listens, and what its configuration says besides.
const PROXY_PORT: u16 = 3128;
const CONNECT_TO_443_ALONE: &str = "acl SSL_ports port 443\nacl CONNECT method CONNECT\n\
     http_access deny CONNECT !SSL_ports\n";

/// One kind of place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// As it is asked for.
    pub(super) name: &'static str,
    /// What it stands for.
    pub(super) about: &'static str,
    place: Place,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Public,
    /// Behind a router of the lab.
    Home(Dependence, Dependence, Ports),
    /// Behind one that keeps one port for all, and forgets UDP by which nothing leaves for so long.
    Forgetful(Duration),
    /// Behind a home's router behind a carrier's.
    Carrier(Dependence, Dependence, Ports),
    /// In one home with its like, whose router keeps one port for all. Where hosts are kept apart it
    /// hairpins.
    Shared {
        is_apart: bool,
    },
    /// Behind a home's router behind one of the carrier that its like is behind, too.
    SharedCarrier {
        hairpin: bool,
    },
    /// Behind Linux's own masquerading.
    Kernel(&'static str),
    /// Behind a firewall.
    Firewall {
        only_web: bool,
    },
    /// Behind one that lets out a proxy alone.
    Company,
    /// Behind a router that routes IPv6 too, with this mapping of IPv4, of nodes with this configuration.
    HomeV6(Stack, Dependence, &'static str),
}

use Place::{
    Carrier, Company, Firewall, Forgetful, Home, HomeV6, Kernel, Public, Shared, SharedCarrier,
};

const fn kind(name: &'static str, about: &'static str, place: Place) -> Kind {
    Kind { name, about, place }
}

/// All of them.
pub(super) const KINDS: &[Kind] = &[
    kind("public", "an address that everybody reaches", Public),
    kind(
        "full-cone",
        "mapping and filter independent, ports kept",
        Home(EndpointIndependent, EndpointIndependent, Ports::Preserving),
    ),
    kind(
        "cone-random",
        "mapping and filter independent, ports drawn",
        Home(EndpointIndependent, EndpointIndependent, Ports::Random),
    ),
    kind(
        "restricted",
        "mapping independent, filter by address",
        Home(EndpointIndependent, AddressDependent, Ports::Random),
    ),
    kind(
        "port-restricted",
        "mapping independent, filter by address and port, ports drawn",
        Home(EndpointIndependent, AddressAndPortDependent, Ports::Random),
    ),
    kind(
        "short-lived",
        "the same, and UDP by which nothing leaves for 15 s is forgotten",
        Forgetful(Duration::from_secs(15)),
    ),
    kind(
        "linux",
        "nftables masquerade: ports kept, filter by address and port",
        Kernel(""),
    ),
    kind(
        "by-address",
        "mapping and filter by address",
        Home(AddressDependent, AddressDependent, Ports::Random),
    ),
    kind(
        "symmetric-kept",
        "mapping by address and port, the inner port where it is free",
        Home(
            AddressAndPortDependent,
            AddressAndPortDependent,
            Ports::Preserving,
        ),
    ),
    kind(
        "symmetric-steps",
        "mapping by address and port, one port after the other",
        Home(
            AddressAndPortDependent,
            AddressAndPortDependent,
            Ports::Sequential(1),
        ),
    ),
    kind(
        "symmetric",
        "mapping by address and port, ports drawn",
        Home(
            AddressAndPortDependent,
            AddressAndPortDependent,
            Ports::Random,
        ),
    ),
    kind(
        "linux-random",
        "nftables masquerade fully-random",
        Kernel("fully-random"),
    ),
    kind(
        "carrier",
        "a home's router behind a carrier's, both independent, filters by address and port",
        Carrier(EndpointIndependent, AddressAndPortDependent, Ports::Random),
    ),
    kind(
        "carrier-symmetric",
        "a home's router behind a symmetric one of the carrier",
        Carrier(
            AddressAndPortDependent,
            AddressAndPortDependent,
            Ports::Random,
        ),
    ),
    kind(
        "neighbours",
        "two in one home, whose router does not hairpin",
        Shared { is_apart: false },
    ),
    kind(
        "guests",
        "two in one network that keeps them apart, whose router hairpins",
        Shared { is_apart: true },
    ),
    kind(
        "carrier-neighbours",
        "two homes' routers behind one of a carrier that does not hairpin",
        SharedCarrier { hairpin: false },
    ),
    kind(
        "carrier-hairpin",
        "the same, and the carrier's router hairpins",
        SharedCarrier { hairpin: true },
    ),
    kind(
        "no-udp",
        "a firewall without UDP",
        Firewall { only_web: false },
    ),
    kind(
        "web-only",
        "a firewall that lets out TCP to 80, 443, 8080 and 8081",
        Firewall { only_web: true },
    ),
    kind(
        "company-proxy",
        "a firewall that lets out squid alone, by TCP to 80, 443, 8080 and 8081",
        Company,
    ),
    kind(
        "dual-stack",
        "IPv4 behind a router with filters by address and port, IPv6 behind a firewall",
        HomeV6(Stack::Dual, EndpointIndependent, ""),
    ),
    kind(
        "dual-symmetric",
        "the same, and IPv4 with mapping by address and port, ports drawn",
        HomeV6(Stack::Dual, AddressAndPortDependent, ""),
    ),
    kind(
        "ipv6-only",
        "IPv6 alone, behind a firewall that is a NAT64",
        HomeV6(Stack::Ipv6, EndpointIndependent, ""),
    ),
    kind(
        "ipv6-nat64",
        "the same, and the node is told of the NAT64",
        HomeV6(
            Stack::Ipv6,
            EndpointIndependent,
            "nat64_prefix = \"64:ff9b::/96\"\n",
        ),
    ),
];

/// A host at a place.
pub(super) struct Site {
    pub(super) host: Host,
    /// The network whose router stands between it and the Internet, if that is the lab's own.
    pub(super) area: Option<Area>,
    /// The configuration that its node has.
    pub(super) config: String,
    /// The proxy that it has to take: its URL, and what is to be kept.
    pub(super) proxy: Option<(String, ForwardProxy)>,
}

impl Site {
    pub(super) fn new(host: Host, area: Option<Area>) -> Self {
        Self {
            host,
            area,
            config: String::new(),
            proxy: None,
        }
    }
}

impl Kind {
    /// Makes a place of this kind, and a host there. The names that programs of the place know are in
    /// this hosts file, if there is one. Neighbours are put in the network of the first one.
    ///
    /// # Errors
    /// When the world cannot make it.
    pub(super) fn make(
        self,
        world: &mut World,
        name: &str,
        names: Option<&str>,
        first: Option<Area>,
    ) -> anyhow::Result<Site> {
        let area: Area = match self.place {
            Public => {
                let host = world.host_of(name, INTERNET, Stack::Dual)?;
                return Ok(Site::new(host, None));
            }
            Kernel(how) => {
                let router = world.public(&format!("{name}-r"))?;
                return Ok(Site::new(world.behind_kernel(name, &router, how)?, None));
            }
            Home(mapping, filtering, ports) => world.home(nat(mapping, filtering, ports))?,
            Forgetful(udp_lifetime) => world.home(NatKind {
                udp_lifetime,
                ..cone(false)
            })?,
            Carrier(mapping, filtering, ports) => {
                let carrier = world.carrier(nat(mapping, filtering, ports))?;
                return customer(world, name, carrier);
            }
            Shared { is_apart } => match first {
                Some(home) => home,
                None => {
                    let home = world.home(cone(is_apart))?;
                    if is_apart {
                        world.keep_apart(home);
                    }
                    home
                }
            },
            SharedCarrier { hairpin } => {
                let make = || world.carrier(cone(hairpin));
                let carrier = first.map_or_else(make, Ok)?;
                return customer(world, name, carrier);
            }
            Firewall { only_web } => {
                let outward = match only_web {
                    true => Outward::TcpTo(WEB_PORTS.to_vec()),
                    false => Outward::NoUdp,
                };
                world.home(NatKind {
                    outward,
                    ..NatKind::port_restricted()
                })?
            }
            Company => {
                // The proxy is the first host there.
                let address = Ipv4Addr::new(192, 168, 1, 2);
                let area = world.home(NatKind {
                    outward: Outward::TcpOf(address, WEB_PORTS.to_vec()),
                    ..NatKind::port_restricted()
                })?;
                let gate = world.host(&format!("{name}-p"), area)?;
                ensure!(
                    gate.address() == address,
                    "the proxy is at {}",
                    gate.address()
                );
                if let Some(names) = names {
                    // It has no IPv6, and squid tries no second address of a hosts file.
                    let four = names.lines().filter(|line| !line.contains(':'));
                    let four: String = four.map(|line| format!("{line}\n")).collect();
                    gate.set_etc("hosts", &four)?;
                }
                let at = SocketAddr::from((address, PROXY_PORT));
                let proxy = ForwardProxy::squid(Some(&gate), at, CONNECT_TO_443_ALONE)?;
                let url = format!("http://{at}");
                return Ok(Site {
                    config: format!("proxy = {url:?}\n"),
                    proxy: Some((url, proxy)),
                    ..Site::new(world.host(name, area)?, Some(area))
                });
            }
            HomeV6(stack, mapping, config) => {
                let kind = nat(mapping, AddressAndPortDependent, Ports::Random);
                let area = world.home_v6(kind)?;
                return Ok(Site {
                    config: config.to_owned(),
                    ..Site::new(world.host_of(name, area, stack)?, Some(area))
                });
            }
        };
        Ok(Site::new(world.host(name, area)?, Some(area)))
    }
}

/// Makes a home in a carrier's network, and a host there.
fn customer(world: &mut World, name: &str, carrier: Area) -> anyhow::Result<Site> {
    let home = world.behind(carrier, NatKind::port_restricted())?;
    Ok(Site::new(world.host(name, home)?, Some(carrier)))
}

/// A router that keeps one port for all and lets in whom was sent to.
fn cone(hairpin: bool) -> NatKind {
    NatKind {
        hairpin,
        ..nat(EndpointIndependent, AddressAndPortDependent, Ports::Random)
    }
}

fn nat(mapping: Dependence, filtering: Dependence, ports: Ports) -> NatKind {
    NatKind {
        mapping,
        filtering,
        ports,
        ..NatKind::port_restricted()
    }
}

#[cfg(test)]
mod tests {
    use enishi_lab::wire::LinkKind;

    use super::*;

    #[test]
    fn neighbours_have_a_router_in_common_and_nobody_else_has() {
        if !enishi_lab::is_root() {
            eprintln!("skipped: network namespaces need root");
            return;
        }
        let mut world = World::new("kinds", LinkKind::of_delay(Duration::ZERO)).unwrap();
        for (number, kind) in KINDS.iter().enumerate() {
            let hosts = match kind.place {
                Shared { .. } => ["192.168.1.2", "192.168.1.3"],
                SharedCarrier { .. } | Carrier(..) | Home(..) | Forgetful(_) => ["192.168.1.2"; 2],
                Public | Kernel(_) | Firewall { .. } | Company | HomeV6(..) => continue,
            };
            let mut make = |letter: &str, first| {
                let name = format!("{letter}{number}");
                kind.make(&mut world, &name, None, first).unwrap()
            };
            let one = make("a", None);
            let other = make("b", one.area);
            let is_common = matches!(kind.place, Shared { .. } | SharedCarrier { .. });
            assert_eq!(one.area == other.area, is_common, "{}", kind.name);
            let own = [&one, &other].map(|site| site.host.address().to_string());
            assert_eq!(own, hosts, "{}", kind.name);
        }
    }
}
