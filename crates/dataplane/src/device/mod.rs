//! Devices: where the packets of one network enter and leave this host (Linux).
//!
//! | kind | other end | speaks |
//! |---|---|---|
//! | TUN | the kernel | IP, with super-packets and partial checksums ([`crate::offload`]) |
//! | TAP | the kernel | Ethernet, with the same; the engine sees IP ([`Tap`]) |
//! | queue | a task in this process, by its [`Port`] | IP, whole packets with complete checksums |
//!
//! A device exists as long as its [`Device`]; the kernel removes it with its addresses
//! and routes when the process ends, however it ends. The kernel routes the prefixes
//! of the device's addresses to it, so no further routes are set.
//!
//! The kernel itself sends multicast packets into every device that speaks IPv6
//! (router solicitations, group reports from link-local addresses): a reader must
//! expect packets that are none of its network's.

mod kernel;
mod neighbours;
mod queue;
mod tap;

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use crate::offload::{OFFLOAD_HEADER_BYTES, Transport};

pub use kernel::{DeviceConfig, DeviceError, Kernel, Layer, MTU_MIN, NAME_BYTES_MAX};
pub use queue::{PACKETS_MAX, Port, Queue, queue, queue_with_super_packets};
pub use tap::Tap;

/// Octets of a buffer that holds whatever is read from a device: a header, and a packet of
/// any length.
pub const READ_BYTES_MAX: usize = OFFLOAD_HEADER_BYTES + 65_535;

/// A device that is up.
pub enum Device {
    /// A network interface of the kernel that takes IP packets.
    Tun(Kernel),
    /// A network interface of the kernel that takes Ethernet frames.
    Tap(Tap),
    /// A queue to a task of this process.
    Queue(Queue),
}

impl Device {
    /// Makes a device of the kernel, gives it its addresses and brings it up.
    ///
    /// When only the IPv6 address is refused, typically because IPv6 is switched off,
    /// the device works with IPv4 alone: see [`Device::ipv6_failure`].
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn new(config: &DeviceConfig) -> Result<Self, DeviceError> {
        match config.layer {
            Layer::Ip => Kernel::new(config).map(Self::Tun),
            Layer::Ethernet => Tap::new(config).map(Self::Tap),
        }
    }

    /// Returns the name of the network interface; that of a queue is `queue`.
    pub fn name(&self) -> &str {
        match self {
            Self::Tun(kernel) => kernel.name(),
            Self::Tap(tap) => tap.kernel().name(),
            Self::Queue(_) => "queue",
        }
    }

    /// Returns why the device has no IPv6 address although one was wanted.
    pub fn ipv6_failure(&self) -> Option<&io::Error> {
        match self {
            Self::Tun(kernel) => kernel.ipv6_failure(),
            Self::Tap(tap) => tap.kernel().ipv6_failure(),
            Self::Queue(_) => None,
        }
    }

    /// Tells whether the device takes super-packets of a transport. The kernel takes those of
    /// UDP since Linux 6.2.
    pub fn takes_super_packets(&self, transport: Transport) -> bool {
        match (self, transport) {
            (Self::Tun(_) | Self::Tap(_), Transport::Tcp) => true,
            (Self::Tun(kernel), Transport::Udp) => kernel.has_udp_super_packets(),
            (Self::Tap(tap), Transport::Udp) => tap.kernel().has_udp_super_packets(),
            (Self::Queue(queue), transport) => queue.takes_super_packets(transport),
        }
    }

    /// Takes a packet that this host sends into the device, with the header of
    /// [`crate::offload`] before it, and returns the length of both. The buffer should have
    /// [`READ_BYTES_MAX`] octets: more than fits is cut off.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is none. When the device was removed see
    /// [`Device::is_removed`].
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tun(kernel) => kernel.read(buffer),
            Self::Tap(tap) => tap.read(buffer),
            Self::Queue(queue) => queue.read(buffer),
        }
    }

    /// Hands a packet to this host as if it had arrived on the device: the pieces are the
    /// header of [`crate::offload`] and then the packet; the header is whole in the first. The
    /// kernel takes packets at once, and drops what it cannot hold; a queue likewise.
    ///
    /// # Errors
    /// When the packet makes no sense to the kernel, or the device is down or was removed.
    pub fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        match self {
            Self::Tun(kernel) => kernel.write(pieces),
            Self::Tap(tap) => tap.write(pieces),
            Self::Queue(queue) => {
                queue.write(pieces);
                Ok(())
            }
        }
    }

    /// Returns how many frames of a TAP device were dropped because they are neither IP nor
    /// questions for addresses.
    pub fn foreign_frames(&self) -> u64 {
        match self {
            Self::Tap(tap) => tap.dropped(),
            Self::Tun(_) | Self::Queue(_) => 0,
        }
    }

    /// Tells whether an error of [`Device::read`] means that the device was removed, for
    /// example with `ip link del`: nothing will come from it any more.
    pub fn is_removed(error: &io::Error) -> bool {
        error.raw_os_error().map(Errno::from_raw) == Some(Errno::EBADFD)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tun(kernel) => kernel.as_fd(),
            Self::Tap(tap) => tap.as_fd(),
            Self::Queue(queue) => queue.as_fd(),
        }
    }
}
