//! The kinds of places where nodes are.

use std::net::{Ipv4Addr, SocketAddr};

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
    /// Behind a home's router behind a carrier's.
    Carrier(Dependence, Dependence, Ports),
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

use Place::{Carrier, Company, Firewall, Home, HomeV6, Kernel, Public};

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
    /// this hosts file, if there is one.
    ///
    /// # Errors
    /// When the world cannot make it.
    pub(super) fn make(
        self,
        world: &mut World,
        name: &str,
        names: Option<&str>,
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
            Carrier(mapping, filtering, ports) => {
                let carrier = world.home(nat(mapping, filtering, ports))?;
                let inner = world.behind(carrier, NatKind::port_restricted())?;
                return Ok(Site::new(world.host(name, inner)?, Some(carrier)));
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

fn nat(mapping: Dependence, filtering: Dependence, ports: Ports) -> NatKind {
    NatKind {
        mapping,
        filtering,
        ports,
        ..NatKind::port_restricted()
    }
}
