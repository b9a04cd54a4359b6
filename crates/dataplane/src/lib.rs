//! IP packets: devices, headers, ICMP errors, address tables, sealed datagrams, and the engine
//! that carries packets between the devices of this host and its peers.
//!
//! The fast path of a virtual network, usable alone. [`engine`] is where everything meets; a
//! packet that leaves this host goes through the modules in this order:
//!
//! ```text
//!   device   read one packet, or a super-packet, from the kernel
//!   packet   check its header
//!   table    whose is the destination?
//!              forward -> offload  cut the super-packet
//!                         sealed   seal each packet, in one datagram or two
//!                         socket   send many datagrams at once
//!              miss    -> pending  keep it until the address is resolved or given up
//!              no one  -> icmp     tell the sender why
//! ```
//!
//! and one that arrives goes through `socket`, `sealed` (with `replay`, and `reassembly` of
//! halves), `packet`, `table` (may this peer use that source?), `offload` (packets of one flow
//! become a super-packet) and `device`. Everything but [`device`], [`socket`] and [`engine`]
//! is pure: no sockets, no clock.

mod bell;
mod checksum;
pub mod device;
pub mod ecn;
pub mod engine;
pub mod filter;
pub mod hop;
pub mod icmp;
mod link;
pub mod offload;
pub mod packet;
pub mod pending;
pub mod reassembly;
pub mod relay;
pub mod replay;
pub mod sealed;
pub mod socket;
pub mod table;

pub use device::{Device, DeviceConfig, DeviceError, Layer};
pub use icmp::{ErrorBudget, Reason, error_for};
pub use link::{addresses_of_host, networks_of_host};
pub use packet::{IpPacket, PacketError};
pub use pending::{Pending, Pushed};
pub use reassembly::{Half, Reassembly};
pub use table::{AddressTable, Lookup, Network, Route, TableFull};
