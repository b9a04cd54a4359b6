//! Under which names addresses are looked up: `in-addr.arpa` by octets (RFC 1035, section
//! 3.5) and `ip6.arpa` by half octets (RFC 3596, section 2.5), the last of them first.

use std::net::{IpAddr, Ipv4Addr};

/// Returns the domain name of an address, with the dot at its end.
pub fn name(address: IpAddr) -> String {
    let parts = match address {
        IpAddr::V4(_) => 4,
        IpAddr::V6(_) => 32,
    };
    domain(address, parts)
}

/// Returns the domains that cover a network and nothing else, each with the dot at its end.
/// A name ends at an octet or half octet, so a prefix in between needs up to 128 of them for
/// IPv4, the only family whose networks may have such a prefix.
pub fn domains(network: IpAddr, prefix: u8) -> Vec<String> {
    match network {
        IpAddr::V4(four) => {
            let parts = prefix.div_ceil(8);
            let count = 1_u32 << (parts * 8 - prefix).min(7);
            let step = 1_u32.checked_shl(u32::from(32 - parts * 8)).unwrap_or(0);
            let networks = (0..count).map(|number| four.to_bits().wrapping_add(number * step));
            networks
                .map(|bits| domain(Ipv4Addr::from_bits(bits).into(), parts))
                .collect()
        }
        IpAddr::V6(_) => vec![domain(network, prefix / 4)],
    }
}

/// The domain of the first parts of an address.
fn domain(address: IpAddr, parts: u8) -> String {
    let parts = usize::from(parts);
    let (labels, zone): (Vec<String>, &str) = match address {
        IpAddr::V4(four) => {
            let octets = four.octets();
            let labels = octets.iter().take(parts).map(ToString::to_string);
            (labels.collect(), "in-addr.arpa.")
        }
        IpAddr::V6(six) => {
            let halves = six.octets().into_iter().flat_map(|o| [o >> 4, o & 15]);
            let labels = halves.take(parts).map(|half| format!("{half:x}"));
            (labels.collect(), "ip6.arpa.")
        }
    };
    let mut name: String = labels
        .iter()
        .rev()
        .fold(String::new(), |name, label| name + label + ".");
    name += zone;
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks_have_names() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(name(address("10.77.3.4")), "4.3.77.10.in-addr.arpa.");
        let six = name(address("fd00::a1"));
        assert!(
            six.starts_with("1.a.0.0.") && six.ends_with(".0.0.d.f.ip6.arpa."),
            "{six}"
        );
        assert_eq!(six.len(), 32 * 2 + "ip6.arpa.".len());
        assert_eq!(domains(address("10.0.0.0"), 8), ["10.in-addr.arpa."]);
        assert_eq!(domains(address("10.77.0.0"), 16), ["77.10.in-addr.arpa."]);
        let odd = domains(address("10.76.0.0"), 15);
        assert_eq!(odd, ["76.10.in-addr.arpa.", "77.10.in-addr.arpa."]);
        let small = domains(address("192.168.7.8"), 30);
        assert_eq!(small.len(), 4);
        assert_eq!(small[3], "11.7.168.192.in-addr.arpa.");
        assert_eq!(domains(address("10.0.0.0"), 9).len(), 128);
        let six = domains(address("fd12:3456::"), 64);
        assert_eq!(six, ["0.0.0.0.0.0.0.0.6.5.4.3.2.1.d.f.ip6.arpa."]);
    }
}
