//! What the kernel knows of this host's network interfaces (rtnetlink(7)).

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrStorage, recv,
    sendto, socket,
};

const RTM_SETLINK: u16 = 19;
const NLM_F_REQUEST_ACK: u16 = 0x01 | 0x04;
const IFLA_GSO_MAX_SIZE: u16 = 41;
/// Of `nlmsghdr`, `ifinfomsg` and one attribute of 32 bits.
const MESSAGE_BYTES: u32 = 16 + 16 + 8;

/// Returns the addresses of this host on all its interfaces, those of virtual networks among them,
/// but for 127.0.0.0/8 and ::1; none when the kernel does not tell.
pub fn addresses_of_host() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else {
        return Vec::new();
    };
    let addresses = interfaces.filter_map(|interface| ip_of(interface.address?));
    addresses.filter(|address| !address.is_loopback()).collect()
}

/// The shortest prefixes, in bits, of what is taken for a network around this host. Shorter ones say
/// that nearly everything is reached that way, not who is near.
const NETWORK_BITS_MIN_4: u32 = 8;
const NETWORK_BITS_MIN_6: u32 = 32;

/// Returns the networks that this host is in, with their bits: those whose addresses its interfaces
/// reach without a router. Not those of links between two ends, such as of a tunnel, nor loopback, nor
/// any of fewer than 8 bits of IPv4 or 32 of IPv6; none when the kernel does not tell. The address is
/// the host's own: bits after the network's may be set.
pub fn networks_of_host() -> Vec<(IpAddr, u32)> {
    let Ok(interfaces) = getifaddrs() else {
        return Vec::new();
    };
    let no_network = InterfaceFlags::IFF_POINTOPOINT | InterfaceFlags::IFF_LOOPBACK;
    let interfaces = interfaces.filter(|interface| !interface.flags.intersects(no_network));
    let networks = interfaces.filter_map(|interface| {
        let (address, mask) = (ip_of(interface.address?)?, ip_of(interface.netmask?)?);
        Some((address, network_bits(mask)?))
    });
    networks.collect()
}

/// Returns how many bits of a mask are of the network; none when they are too few.
fn network_bits(mask: IpAddr) -> Option<u32> {
    let (bits, least) = match mask {
        IpAddr::V4(mask) => (mask.to_bits().leading_ones(), NETWORK_BITS_MIN_4),
        IpAddr::V6(mask) => (mask.to_bits().leading_ones(), NETWORK_BITS_MIN_6),
    };
    (bits >= least).then_some(bits)
}

fn ip_of(address: SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// Sets the longest super-packet that the kernel hands to an interface, in octets.
///
/// # Errors
/// When there is no such interface, or the kernel refuses.
pub(crate) fn set_gso_max_size(interface: &str, bytes: u32) -> io::Result<()> {
    let index = if_nametoindex(interface)?;
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    let mut message = Vec::with_capacity(MESSAGE_BYTES as usize);
    message.extend(MESSAGE_BYTES.to_ne_bytes());
    message.extend(RTM_SETLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    // Sequence and sender; then family, type.
    message.extend([0; 8]);
    message.extend([0; 4]);
    message.extend(index.to_ne_bytes());
    // Flags, and which of them change.
    message.extend([0; 8]);
    message.extend(8_u16.to_ne_bytes());
    message.extend(IFLA_GSO_MAX_SIZE.to_ne_bytes());
    message.extend(bytes.to_ne_bytes());
    let kernel = NetlinkAddr::new(0, 0);
    sendto(netlink.as_raw_fd(), &message, &kernel, MsgFlags::empty())?;
    let mut answer = [0; 64];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // `nlmsgerr` begins with the negated error, zero for none.
    let code = answer[..length]
        .get(16..20)
        .and_then(|octets| octets.try_into().ok());
    match code.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(Errno::from_raw(-code).into()),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_as_many_bits_as_its_mask_unless_it_is_nearly_everything() {
        let bits = |mask: &str| network_bits(mask.parse().unwrap());
        assert_eq!(bits("255.255.255.0"), Some(24));
        assert_eq!(bits("255.255.255.255"), Some(32));
        assert_eq!(bits("255.0.0.0"), Some(8));
        assert_eq!(bits("254.0.0.0"), None);
        assert_eq!(bits("0.0.0.0"), None);
        assert_eq!(bits("ffff:ffff:ffff:ffff::"), Some(64));
        assert_eq!(bits("ffff::"), None);
        assert_eq!(bits("::"), None);
    }
}
