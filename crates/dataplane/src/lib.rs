//! IP packets: TUN devices, headers, ICMP errors, address tables.
//!
//! The fast path of a virtual network, usable alone. A packet that leaves this
//! host goes through the modules in this order:
//!
//! ```text
//!   tun      read one IP packet from the kernel
//!   packet   check its header
//!   table    whose is the destination?
//!              forward -> lane     frame it for the peer's session, in one part or two
//!              miss    -> pending  keep it until the address is resolved or given up
//!              no one  -> icmp     tell the sender why
//! ```
//!
//! and one that arrives goes through `lane` (decode, put together), `packet`,
//! `table` (may this peer use that source?) and `tun`. Everything but [`tun`] is
//! pure: no sockets, no clock.

pub mod device;
pub mod engine;
pub mod icmp;
pub mod lane;
mod link;
pub mod offload;
pub mod packet;
pub mod pending;
pub mod reassembly;
pub mod replay;
pub mod sealed;
pub mod socket;
pub mod table;
pub mod tun;

pub use icmp::{ErrorBudget, Reason, error_for};
pub use lane::{Frame, LaneError, Splitter};
pub use packet::{IpPacket, PacketError};
pub use pending::{Pending, Pushed};
pub use reassembly::Reassembly;
pub use table::{AddressTable, Lookup, Network, Route, TableFull};
pub use tun::{DeviceError, Tun, TunConfig};
