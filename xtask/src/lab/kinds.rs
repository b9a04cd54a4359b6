//! The kinds of places where nodes are.

use enishi_lab::wire::{Area, Dependence, NatKind, Outward, Ports};
use enishi_lab::{Host, World};

use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};

/// The ports that remain where a company's firewall lets out the web alone.
const WEB_PORTS: [u16; 4] = [80, 443, 8080, 8081];

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
}

use Place::{Carrier, Firewall, Home, Kernel, Public};

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
];

impl Kind {
    /// Makes a place of this kind, and a host there; returns the place too if its router is the
    /// lab's own.
    ///
    /// # Errors
    /// When the world cannot make it.
    pub(super) fn make(
        self,
        world: &mut World,
        name: &str,
    ) -> anyhow::Result<(Host, Option<Area>)> {
        let area: Area = match self.place {
            Public => return Ok((world.public(name)?, None)),
            Kernel(how) => {
                let router = world.public(&format!("{name}-r"))?;
                return Ok((world.behind_kernel(name, &router, how)?, None));
            }
            Home(mapping, filtering, ports) => world.home(nat(mapping, filtering, ports))?,
            Carrier(mapping, filtering, ports) => {
                let carrier = world.home(nat(mapping, filtering, ports))?;
                let inner = world.behind(carrier, NatKind::port_restricted())?;
                return Ok((world.host(name, inner)?, Some(carrier)));
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
        };
        Ok((world.host(name, area)?, Some(area)))
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
