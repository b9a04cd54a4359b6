//! Devices that the kernel makes: TUN, which speaks IP, and what TAP is built on.

use std::ffi::CString;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::uio::{readv, writev};
use nix::unistd::read;
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::link;

/// The longest name of a device, in octets (Linux, IFNAMSIZ less the final zero).
pub const NAME_BYTES_MAX: usize = 15;

/// The least MTU of a device, in octets (RFC 791). Below 1,280 there is no IPv6.
pub const MTU_MIN: u16 = 68;

/// The longest super-packet that the kernel is to hand over: sealed in packets for an
/// ordinary path it still fits one batch of the socket.
const SUPER_PACKET_BYTES_MAX: u32 = 60_000;

/// How many packets the kernel keeps for the engine, which may have to wait some milliseconds for
/// the processor. Of 140,000 datagrams a second a tenth were lost with Linux's own 500
/// (docs/experiments.md).
const QUEUE_PACKETS: u32 = 2_000;

/// What a device speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layer {
    /// IP packets: a TUN device (layer 3).
    #[default]
    Ip,
    /// Ethernet frames: a TAP device (layer 2).
    Ethernet,
}

impl From<Layer> for tun_rs::Layer {
    fn from(layer: Layer) -> Self {
        match layer {
            Layer::Ip => Self::L3,
            Layer::Ethernet => Self::L2,
        }
    }
}

/// What a device of the kernel is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// What it speaks.
    pub layer: Layer,
    /// The name, or a pattern with one `%d` for which the kernel puts the first free
    /// number: `enishi%d`. At most [`NAME_BYTES_MAX`] octets.
    pub name: String,
    /// The longest packet, in octets, [`MTU_MIN`] to 65,535.
    pub mtu: u16,
    /// The IPv4 address and the length of its network's prefix, up to 32.
    pub ipv4: (Ipv4Addr, u8),
    /// The IPv6 address, if wanted, and the length of its network's prefix, up to 128.
    pub ipv6: Option<(Ipv6Addr, u8)>,
}

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The process may not make network devices.
    #[error(
        "no permission to make a network device: run as root, give the program \
         CAP_NET_ADMIN, or do without a device (--no-tun)"
    )]
    NoPermission,
    /// The kernel or the container has no TUN driver.
    #[error(
        "/dev/net/tun is not there: load the module `tun` (modprobe tun), give the \
         container this device, or do without one (--no-tun)"
    )]
    NoDriver,
    /// Another program has a network interface of this name.
    #[error("the network interface `{0}` is in use: choose another name")]
    NameInUse(String),
    /// The configuration makes no sense.
    #[error("the network device cannot be configured so: {0}")]
    Config(&'static str),
    /// Anything else that the system refused.
    #[error("the network device cannot be set up: {0}")]
    System(#[source] io::Error),
}

/// A device of the kernel that is up, with super-packets and partial checksums
/// ([`crate::offload`]). The kernel routes the prefixes of its addresses to it.
pub struct Kernel {
    device: SyncDevice,
    name: String,
    ipv6_failure: Option<io::Error>,
}

impl Kernel {
    /// Makes a device, gives it its addresses and brings it up.
    pub(super) fn new(config: &DeviceConfig) -> Result<Self, DeviceError> {
        check(config)?;
        let (address, prefix) = config.ipv4;
        let device = DeviceBuilder::new()
            .layer(config.layer.into())
            .name(&config.name)
            .mtu(config.mtu)
            .ipv4(address, prefix, None)
            .offload(true)
            .build_sync()
            .map_err(|error| classify(error, &config.name))?;
        device.set_nonblocking(true).map_err(DeviceError::System)?;
        let name = device.name().map_err(DeviceError::System)?;
        if config.layer == Layer::Ethernet {
            // Whose the address is was found out before, and not by asking the neighbours: it
            // need not wait a second for their silence. Where this is refused, it does.
            let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_dad"), "0");
        }
        let ipv6 = config
            .ipv6
            .map(|(address, prefix)| device.add_address_v6(address, prefix));
        // Longer ones cost one send more, that is all.
        let _ = link::set_gso_max_size(&name, SUPER_PACKET_BYTES_MAX);
        // A shorter queue loses more in bursts, that is all.
        let _ = device.set_tx_queue_len(QUEUE_PACKETS);
        Ok(Self {
            name,
            ipv6_failure: ipv6.and_then(Result::err),
            device,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn ipv6_failure(&self) -> Option<&io::Error> {
        self.ipv6_failure.as_ref()
    }

    pub(super) fn has_udp_super_packets(&self) -> bool {
        self.device.udp_gso()
    }

    /// Returns the Ethernet address that the host has on a TAP device.
    pub(super) fn mac(&self) -> io::Result<[u8; 6]> {
        self.device.mac_address()
    }

    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(read(self.device.as_fd(), buffer)?)
    }

    pub(super) fn read_into(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        Ok(readv(self.device.as_fd(), pieces)?)
    }

    pub(super) fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        writev(self.device.as_fd(), pieces)?;
        Ok(())
    }
}

impl AsFd for Kernel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn check(config: &DeviceConfig) -> Result<(), DeviceError> {
    let name = config.name.as_str();
    let numbers = name.matches("%d").count();
    let fit = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
    let whole = CString::new(name).is_ok() && name.chars().all(fit) && name != "." && name != "..";
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !whole {
        return Err(DeviceError::Config(
            "its name is not 1 to 15 letters, digits, `-` and the like",
        ));
    }
    if name.matches('%').count() != numbers || numbers > 1 {
        return Err(DeviceError::Config(
            "its name has a `%` other than one `%d`",
        ));
    }
    if config.mtu < MTU_MIN {
        return Err(DeviceError::Config("its MTU is below 68 octets"));
    }
    if config.ipv4.1 > 32 || config.ipv6.is_some_and(|(_, prefix)| prefix > 128) {
        return Err(DeviceError::Config("a prefix is longer than its address"));
    }
    Ok(())
}

/// Tells what a failure to make a device means, by the codes of the kernel's TUN driver.
fn classify(error: io::Error, name: &str) -> DeviceError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => DeviceError::NoPermission,
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => DeviceError::NoDriver,
        Some(Errno::EBUSY | Errno::EEXIST) => DeviceError::NameInUse(name.to_owned()),
        // So answers the kernel when the interface is there but no TUN device.
        Some(Errno::EINVAL) if if_nametoindex(name).is_ok() => {
            DeviceError::NameInUse(name.to_owned())
        }
        _ => DeviceError::System(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str) -> DeviceConfig {
        DeviceConfig {
            layer: Layer::Ip,
            name: name.to_owned(),
            mtu: 1280,
            ipv4: (Ipv4Addr::new(10, 77, 0, 1), 16),
            ipv6: None,
        }
    }

    #[test]
    fn unfit_configurations_are_refused_before_the_kernel_sees_them() {
        for name in [
            "",
            "sixteen-letters-",
            "a b",
            "a/b",
            "..",
            "a%d%d",
            "a%s",
            "nul\0",
        ] {
            assert!(
                matches!(check(&config(name)), Err(DeviceError::Config(_))),
                "{name:?}"
            );
        }
        assert!(check(&config("enishi%d")).is_ok() && check(&config("enishi0")).is_ok());
        let mtu = DeviceConfig {
            mtu: 67,
            ..config("a")
        };
        let prefix = DeviceConfig {
            ipv4: (Ipv4Addr::LOCALHOST, 33),
            ..config("a")
        };
        assert!(check(&mtu).is_err() && check(&prefix).is_err());
    }

    #[test]
    fn failures_are_told_apart() {
        let classify = |errno: Errno, name| classify(io::Error::from(errno), name).to_string();
        assert!(classify(Errno::EPERM, "x").contains("CAP_NET_ADMIN"));
        assert!(classify(Errno::ENOENT, "x").contains("modprobe"));
        assert!(classify(Errno::EBUSY, "x").contains("`x` is in use"));
        assert!(classify(Errno::EINVAL, "lo").contains("`lo` is in use"));
        assert!(classify(Errno::EINVAL, "no-such").contains("cannot be set up"));
    }
}
