//! Where this host is: what of its place in the network a mapping depends on.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};

use crate::nat64::source_to;

/// An address of the documentation (RFC 5737), as any that is elsewhere. Nothing is sent there.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The system's table of routes by IPv4 (proc_net(5)).
const ROUTES: &str = "/proc/net/route";

/// By which address and router this host sends to the Internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) own: Ipv4Addr,
    /// None where the routes name none.
    pub(super) router: Option<Ipv4Addr>,
}

impl Home {
    /// Looks where this host is. `own` are its addresses but for those of virtual networks. None where no
    /// route leads out, or that by a virtual network, as where all goes by an exit: that tells nothing.
    pub(super) fn look(own: &[IpAddr]) -> Option<Self> {
        let local = source_to(ELSEWHERE).ok()?;
        let IpAddr::V4(local) = own.iter().find(|own| **own == local)? else {
            return None;
        };
        // A host of the Internet's core has a million routes: they are read one by one.
        let routes = std::fs::File::open(ROUTES).ok().map(BufReader::new);
        let routes = routes.into_iter().flat_map(BufRead::lines);
        Some(Self {
            own: *local,
            router: router(routes.map_while(Result::ok)),
        })
    }

    /// Tells whether the host is no more where it was, or is known to be somewhere at last. `own` are its
    /// addresses. That others come and go, as those of bridges for containers, moves it nowhere.
    pub(super) fn is_another(before: Option<Self>, own: &[IpAddr], now: Option<Self>) -> bool {
        let is_lost = before.is_some_and(|before| !own.contains(&before.own.into()));
        is_lost || now.is_some_and(|now| before != Some(now))
    }
}

/// Returns the router of the route to everywhere that is preferred.
fn router(routes: impl Iterator<Item = impl AsRef<str>>) -> Option<Ipv4Addr> {
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, destination, gateway, _, _, _, metric, mask, ..] = fields[..] else {
            return None;
        };
        let number = |text: &str| u32::from_str_radix(text, 16).ok();
        let is_default = number(destination)? == 0 && number(mask)? == 0;
        // Its octets are in the order of the network, and the number is read from memory.
        let gateway = Ipv4Addr::from(number(gateway)?.to_ne_bytes());
        let metric: u32 = metric.parse().ok()?;
        (is_default && !gateway.is_unspecified()).then_some((metric, gateway))
    };
    let routes = routes.filter_map(|line| route(line.as_ref()));
    routes.min().map(|(_, gateway)| gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_is_that_of_the_preferred_way_out() {
        let head = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";
        let line = |to: &str, router: [u8; 4], metric: u32, mask: &str| {
            let router = u32::from_ne_bytes(router);
            format!("eth0\t{to}\t{router:08X}\t0003\t0\t0\t{metric}\t{mask}\t0\t0\t0 \n")
        };
        let bridge = line("000011AC", [0; 4], 0, "0000FFFF");
        let other = line("00000000", [10, 0, 0, 1], 600, "00000000");
        let first = line("00000000", [192, 168, 1, 1], 100, "00000000");
        let half = line("00000000", [10, 8, 0, 1], 0, "00000080");
        let of = |lines: &[&String]| {
            let lines: String = lines.iter().map(|line| line.as_str()).collect();
            router(format!("{head}{lines}").lines())
        };
        let all = of(&[&bridge, &other, &half, &first]);
        assert_eq!(all, Some(Ipv4Addr::new(192, 168, 1, 1)));
        assert_eq!(of(&[&bridge, &other]), Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(of(&[&bridge, &half]), None);
        assert_eq!(router(["eth0 x y"].into_iter()), None);
    }

    #[test]
    fn only_another_address_or_router_is_another_place() {
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let at = |own: &str, router: &str| {
            Some(Home {
                own: own.parse().unwrap(),
                router: router.parse().ok(),
            })
        };
        let here = at("192.168.1.2", "192.168.1.1");
        let [own, bridge] = ["192.168.1.2", "172.17.0.1"].map(ip);
        assert!(!Home::is_another(here, &[own], here));
        assert!(!Home::is_another(here, &[own, bridge], here));
        // An exit has the routes for now.
        assert!(!Home::is_another(here, &[own], None));
        assert!(Home::is_another(here, &[bridge], None));
        assert!(Home::is_another(here, &[], None));
        let other = at("192.168.1.2", "192.168.1.254");
        assert!(Home::is_another(here, &[own], other));
        let other = at("10.0.0.5", "10.0.0.1");
        assert!(Home::is_another(here, &[own, ip("10.0.0.5")], other));
        assert!(Home::is_another(None, &[own], here));
        assert!(!Home::is_another(None, &[bridge], None));
    }
}
